//! Draining: a pod that is replaced while others could still be talking to it goes on accepting for a while after
//! ports and names have moved, so that connections that are being made are not lost (a SYN is sent again after 1 s).

use super::{Plan, View};
use crate::observed::PodFacts;
use crate::time::Millis;
use crate::workload::{Workload, WorkloadKind};

/// The annotation of a workload for how long, such as `10s`; `0s` for not at all.
pub const DRAIN: &str = "mainstay/drain";
/// How long without it.
const DEFAULT: Millis = Millis::from_secs(2);
/// No longer than this: an update must end.
const LONGEST: Millis = Millis::from_secs(3600);

/// How long pods of a workload are drained.
#[must_use]
pub fn drain_time(workload: &Workload) -> Millis {
    workload.annotations.get(DRAIN).and_then(|text| parse(text)).map_or(DEFAULT, |wait| wait.min(LONGEST))
}

/// Whether a text says a time to drain.
#[must_use]
pub fn is_drain_time(text: &str) -> bool {
    parse(text).is_some()
}

/// Such as `500ms`, `10s`, `2m` or `10` (seconds).
fn parse(text: &str) -> Option<Millis> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..)?;
    let factor = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).map(Millis)
}

/// Whether a pod that served may end now. The first time it is asked, draining begins.
pub(super) fn drained(view: &View<'_>, workload: &Workload, pod: &PodFacts, plan: &mut Plan) -> bool {
    let wait = drain_time(workload);
    if wait == Millis(0) || !is_reached_by_others(view, pod) {
        return true;
    }
    plan.draining.insert(pod.record.uid.clone());
    let since = view.observed.draining.get(&pod.record.uid).copied().unwrap_or(view.now);
    let due = since.plus(wait);
    if due > view.now {
        plan.wake_at(due);
    }
    due <= view.now && !view.still_published(&pod.record.uid)
}

/// Whether anything leads to a pod that others could use: a port of the host, a Service, a name in its project.
fn is_reached_by_others(view: &View<'_>, pod: &PodFacts) -> bool {
    let record = &pod.record;
    let published =
        !record.spec.host_network && record.spec.all_containers().flat_map(|c| &c.ports).any(|p| p.host_port.is_some());
    let selected = || {
        view.goals.services.values().any(|service| {
            service.namespace == record.workload.namespace
                && !service.selector.is_empty()
                && service.selector.iter().all(|(key, value)| record.labels.get(key) == Some(value))
        })
    };
    published || record.workload.kind == WorkloadKind::Service || selected()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_with_their_units() {
        for (text, millis) in [
            ("10", Some(10_000)),
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            (" 2m ", Some(120_000)),
            ("0s", Some(0)),
            ("1h", None),
            ("-1s", None),
            ("soon", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(parse(text), millis.map(Millis), "{text}");
        }
    }
}
