//! Process limits and OOM score of a container's processes.

use std::fs;

use crate::container::ContainerConfig;
use crate::sys;

/// Process limits and OOM score of the first process, from outside and before it runs anything of the image.
/// What the host does not let us raise is clamped: asking for more than there is is common in Compose files.
pub(crate) fn apply(config: &ContainerConfig, pid: u32, inherited_oom_score: &str, warnings: &mut Vec<String>) {
    for (name, limit) in &config.ulimits {
        let Some(resource) = rlimit(name) else {
            warnings.push(format!("unknown ulimit {name}"));
            continue;
        };
        let value = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
        let (soft, hard) = (value(limit.soft), value(limit.hard));
        if sys::prlimit(pid, resource, Some((soft.min(hard), hard))).is_ok() {
            continue;
        }
        let clamped = sys::prlimit(pid, resource, None).and_then(|(_, most)| {
            let hard = hard.min(most);
            sys::prlimit(pid, resource, Some((soft.min(hard), hard))).map(|_| hard)
        });
        warnings.push(match clamped {
            Ok(most) => format!("ulimit {name} is limited to {most} by this host"),
            Err(error) => format!("ulimit {name} cannot be set: {error}"),
        });
    }
    let score = config.oom_score_adj.map_or_else(|| inherited_oom_score.to_owned(), |score| score.to_string());
    let path = format!("/proc/{pid}/oom_score_adj");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == score) {
        return;
    }
    if let Err(error) = fs::write(path, &score) {
        warnings.push(format!("oom_score_adj {score} cannot be set: {error}"));
    }
}

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
        let value = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
        let (soft, mut hard) = (value(limit.soft), value(limit.hard));
        let most = sys::prlimit(std::process::id(), resource, None).map_or(u64::MAX, |(_, most)| most);
        if hard > most && !may_raise {
            warnings.push(format!("ulimit {name} is limited to {most} by this host"));
            hard = most;
        }
        let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
        all.push(serde_json::json!({"type": kind, "soft": soft.min(hard), "hard": hard}));
    }
    all
}

fn rlimit(name: &str) -> Option<u32> {
    Some(match name {
        "cpu" => libc::RLIMIT_CPU,
        "fsize" => libc::RLIMIT_FSIZE,
        "data" => libc::RLIMIT_DATA,
        "stack" => libc::RLIMIT_STACK,
        "core" => libc::RLIMIT_CORE,
        "rss" => libc::RLIMIT_RSS,
        "nproc" => libc::RLIMIT_NPROC,
        "nofile" => libc::RLIMIT_NOFILE,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "as" => libc::RLIMIT_AS,
        "locks" => libc::RLIMIT_LOCKS,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_names() {
        assert_eq!(rlimit("nofile"), Some(libc::RLIMIT_NOFILE));
        assert_eq!(rlimit("NOFILE"), None);
    }
}
