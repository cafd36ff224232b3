//! Draining: a pod that is replaced while others could still be talking to it goes on accepting after ports and names
//! have moved, so that no connection that is being made or used is lost. It is told to end when at least 2 s are over
//! (a SYN is sent again after 1 s) and the kernel tracks no connection to it any more, or when its limit is reached:
//! clients that keep a connection for ever leave when the server closes it on TERM.

use super::{Plan, View};
use crate::observed::PodFacts;
use crate::time::Millis;
use crate::workload::{Workload, WorkloadKind};

/// The annotation of a workload for the limit, such as `10s`; `0s` for not at all.
pub const DRAIN: &str = "mainstay/drain";
/// The limit without it.
const DEFAULT: Millis = Millis::from_secs(10);
/// No shorter than this, unless the limit is.
const LEAST: Millis = Millis::from_secs(2);
/// No longer than this: an update must end.
const LONGEST: Millis = Millis::from_secs(3600);

/// How long pods of a workload are drained at the most.
#[must_use]
pub fn drain_time(workload: &Workload) -> Millis {
    workload.annotations.get(DRAIN).and_then(|text| parse(text)).map_or(DEFAULT, |wait| wait.min(LONGEST))
}

/// Whether a text says a time to drain.
#[must_use]
pub fn is_drain_time(text: &str) -> bool {
    parse(text).is_some()
}

/// Such as `500ms`, `1m 30s`, or a number of seconds.
fn parse(text: &str) -> Option<Millis> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Millis::from_secs(seconds.into()));
    }
    let length = humantime::parse_duration(text).ok()?;
    u64::try_from(length.as_millis()).ok().map(Millis)
}

/// Whether a pod that served may end now. The first time it is asked, draining begins.
pub(super) fn drained(view: &View<'_>, workload: &Workload, pod: &PodFacts, plan: &mut Plan) -> bool {
    let limit = drain_time(workload);
    if limit == Millis(0) || !is_reached_by_others(view, pod) {
        return true;
    }
    if view.leads_somewhere(pod) {
        return false;
    }
    let uid = &pod.record.uid;
    plan.draining.insert(uid.clone());
    if view.still_published(uid) {
        // It begins anew when its ports have moved.
        return false;
    }
    let since = view.observed.draining.get(uid).copied().unwrap_or(view.now);
    let (least, most) = (since.plus(LEAST.min(limit)), since.plus(limit));
    // What is not known counts as in use.
    let due = if view.observed.idle.contains(uid) { least } else { most };
    if view.now < due {
        plan.wake_at(if view.now < least { least } else { due });
        return false;
    }
    true
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
            ("1h", Some(3_600_000)),
            ("0s", Some(0)),
            ("1m 30s", Some(90_000)),
            ("-1s", None),
            ("soon", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(parse(text), millis.map(Millis), "{text}");
        }
    }
}
