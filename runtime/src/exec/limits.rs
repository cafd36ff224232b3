//! Process limits and OOM score of a container's processes.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::container::ContainerConfig;
use crate::sys;

/// Process limits and OOM score of the first process, from outside and before it runs anything of the image.
/// What the host does not let us raise is clamped: asking for more than there is is common in Compose files.
pub(crate) fn apply(config: &ContainerConfig, pid: u32, warnings: &mut Vec<String>) {
    for (name, limit) in &config.ulimits {
        let Some(resource) = rlimit(name) else {
            warnings.push(format!("unknown ulimit {name}"));
            continue;
        };
        let (soft, hard) = (value(limit.soft), value(limit.hard));
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let set = |hard: Option<u64>| prlimit(process, resource, Rlimit { current: lower(soft, hard), maximum: hard });
        if set(hard).is_ok() {
            continue;
        }
        // The process has our own limits so far.
        let most = lower(hard, getrlimit(resource).maximum);
        let clamped = set(most).map(|_| most.map_or_else(|| "unlimited".to_owned(), |most| most.to_string()));
        warnings.push(match clamped {
            Ok(most) => format!("ulimit {name} is limited to {most} by this host"),
            Err(error) => format!("ulimit {name} cannot be set: {error}"),
        });
    }
    let score = config.oom_score_adj.unwrap_or(0).to_string();
    let path = format!("/proc/{pid}/oom_score_adj");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == score) {
        return;
    }
    if let Err(error) = fs::write(path, &score) {
        warnings.push(format!("oom_score_adj {score} cannot be set: {error}"));
    }
}

/// Gives the calling process the limits and the OOM score of another one, as far as this host lets it: a program that is
/// started in a container has those of the container, wherever its command was typed.
pub(super) fn take_over(from: u32) {
    let text = fs::read_to_string(format!("/proc/{from}/limits")).unwrap_or_default();
    for (resource, limit) in parse(&text) {
        if setrlimit(resource, limit).is_err() {
            let maximum = lower(limit.maximum, getrlimit(resource).maximum);
            let _ = setrlimit(resource, Rlimit { current: lower(limit.current, maximum), maximum });
        }
    }
    if let Ok(score) = fs::read_to_string(format!("/proc/{from}/oom_score_adj")) {
        let _ = fs::write("/proc/self/oom_score_adj", score.trim());
    }
}

/// What /proc/PID/limits says.
fn parse(text: &str) -> impl Iterator<Item = (Resource, Rlimit)> {
    text.lines().filter_map(|line| {
        let (title, resource) = TITLES.iter().find(|(title, _)| line.starts_with(title))?;
        let mut numbers = line.get(title.len()..)?.split_whitespace().map(|number| match number {
            "unlimited" => Some(None),
            number => number.parse().ok().map(Some),
        });
        Some((*resource, Rlimit { current: numbers.next()??, maximum: numbers.next()?? }))
    })
}

/// Lines of /proc/PID/limits (proc(5)).
const TITLES: [(&str, Resource); 16] = [
    ("Max cpu time", Resource::Cpu),
    ("Max file size", Resource::Fsize),
    ("Max data size", Resource::Data),
    ("Max stack size", Resource::Stack),
    ("Max core file size", Resource::Core),
    ("Max resident set", Resource::Rss),
    ("Max processes", Resource::Nproc),
    ("Max open files", Resource::Nofile),
    ("Max locked memory", Resource::Memlock),
    ("Max address space", Resource::As),
    ("Max file locks", Resource::Locks),
    ("Max pending signals", Resource::Sigpending),
    ("Max msgqueue size", Resource::Msgqueue),
    ("Max nice priority", Resource::Nice),
    ("Max realtime priority", Resource::Rtprio),
    ("Max realtime timeout", Resource::Rttime),
];

/// The same process limits as the `rlimits` of an OCI process, for a runtime that sets them by itself.
pub(crate) fn oci(config: &ContainerConfig, warnings: &mut Vec<String>) -> Vec<serde_json::Value> {
    // CAP_SYS_RESOURCE lets a process raise its hard limits.
    let may_raise = sys::capget().is_ok_and(|own| own.effective & (1 << 24) != 0);
    let mut all = Vec::new();
    for (name, limit) in &config.ulimits {
        let Some(resource) = rlimit(name) else {
            warnings.push(format!("unknown ulimit {name}"));
            continue;
        };
        let (soft, mut hard) = (value(limit.soft), value(limit.hard));
        let most = getrlimit(resource).maximum;
        if lower(hard, most) != hard && !may_raise {
            let most = most.unwrap_or(u64::MAX);
            warnings.push(format!("ulimit {name} is limited to {most} by this host"));
            hard = Some(most);
        }
        let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
        all.push(serde_json::json!({"type": kind, "soft": number(lower(soft, hard)), "hard": number(hard)}));
    }
    all
}

/// A number of a manifest; -1 is unlimited.
fn value(number: i64) -> Option<u64> {
    u64::try_from(number).ok()
}

/// The lower of two limits; `None` is unlimited.
fn lower(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

fn rlimit(name: &str) -> Option<Resource> {
    Some(match name {
        "cpu" => Resource::Cpu,
        "fsize" => Resource::Fsize,
        "data" => Resource::Data,
        "stack" => Resource::Stack,
        "core" => Resource::Core,
        "rss" => Resource::Rss,
        "nproc" => Resource::Nproc,
        "nofile" => Resource::Nofile,
        "memlock" => Resource::Memlock,
        "as" => Resource::As,
        "locks" => Resource::Locks,
        "sigpending" => Resource::Sigpending,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_process_are_read() {
        let text = fs::read_to_string("/proc/self/limits").expect("proc is mounted");
        assert_eq!(parse(&text).count(), TITLES.len(), "{text}");
        for (resource, limit) in parse(&text) {
            assert_eq!(limit, getrlimit(resource), "{resource:?}");
        }
    }

    #[test]
    fn limits_have_names() {
        assert_eq!(rlimit("nofile"), Some(Resource::Nofile));
        assert_eq!(rlimit("NOFILE"), None);
        assert_eq!((lower(None, Some(3)), lower(Some(2), Some(3)), lower(None, None)), (Some(3), Some(2), None));
    }
}
