//! Readings of a cgroup.

use std::fs;
use std::path::Path;

use super::{CgroupError, Layout, Result, keyed};
use crate::api::ContainerStats;

/// Limits from here on mean none: version 1 shows the largest page-aligned number.
const UNLIMITED: u64 = 1 << 62;

/// Reads what a container uses.
///
/// # Errors
/// There is no such cgroup.
pub fn stats(layout: &Layout, path: &str) -> Result<ContainerStats> {
    let missing = |dir: &Path| CgroupError::Read {
        path: dir.to_owned(),
        source: std::io::Error::from(std::io::ErrorKind::NotFound),
    };
    if let Some(dir) = layout.v2_dir(path) {
        return if dir.exists() { Ok(stats_v2(&dir)) } else { Err(missing(&dir)) };
    }
    match layout.dirs(path).first() {
        Some(dir) if !dir.exists() => Err(missing(dir)),
        _ => Ok(stats_v1(layout, path)),
    }
}

fn text(dir: Option<&Path>, file: &str) -> String {
    dir.and_then(|dir| fs::read_to_string(dir.join(file)).ok()).unwrap_or_default()
}

fn number(dir: Option<&Path>, file: &str) -> Option<u64> {
    text(dir, file).trim().parse().ok()
}

fn stats_v1(layout: &Layout, path: &str) -> ContainerStats {
    let dir = |controller: &str| layout.v1_dir(controller, path);
    let (cpu, cpuacct, memory) = (dir("cpu"), dir("cpuacct"), dir("memory"));
    let cpu_stat = text(cpu.as_deref(), "cpu.stat");
    let memory_bytes = number(memory.as_deref(), "memory.usage_in_bytes").unwrap_or(0);
    let inactive = keyed(&text(memory.as_deref(), "memory.stat"), "total_inactive_file").unwrap_or(0);
    let io = text(dir("blkio").as_deref(), "blkio.throttle.io_service_bytes");
    let sum = |word: &str| -> u64 {
        io.lines().filter_map(|line| line.split_once(&format!(" {word} "))?.1.trim().parse::<u64>().ok()).sum()
    };
    ContainerStats {
        cpu_nanos: number(cpuacct.as_deref(), "cpuacct.usage").unwrap_or(0),
        throttled: (keyed(&cpu_stat, "nr_throttled").unwrap_or(0), keyed(&cpu_stat, "throttled_time").unwrap_or(0)),
        memory_bytes,
        working_set_bytes: memory_bytes.saturating_sub(inactive),
        memory_limit: number(memory.as_deref(), "memory.limit_in_bytes").filter(|&limit| limit < UNLIMITED),
        pids: number(dir("pids").as_deref(), "pids.current").unwrap_or(0),
        io_bytes: (sum("Read"), sum("Write")),
        stalled: None,
    }
}

fn stats_v2(dir: &Path) -> ContainerStats {
    let here = Some(dir);
    let cpu_stat = text(here, "cpu.stat");
    let memory_bytes = number(here, "memory.current").unwrap_or(0);
    let inactive = keyed(&text(here, "memory.stat"), "inactive_file").unwrap_or(0);
    let io = text(here, "io.stat");
    let sum = |key: &str| -> u64 {
        io.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum()
    };
    ContainerStats {
        cpu_nanos: keyed(&cpu_stat, "usage_usec").unwrap_or(0).saturating_mul(1000),
        throttled: (
            keyed(&cpu_stat, "nr_throttled").unwrap_or(0),
            keyed(&cpu_stat, "throttled_usec").unwrap_or(0).saturating_mul(1000),
        ),
        memory_bytes,
        working_set_bytes: memory_bytes.saturating_sub(inactive),
        memory_limit: number(here, "memory.max"),
        pids: number(here, "pids.current").unwrap_or(0),
        io_bytes: (sum("rbytes="), sum("wbytes=")),
        stalled: stalled(dir),
    }
}

/// Pressure stall information of a version 2 cgroup (kernel: Documentation/accounting/psi.rst), in nanoseconds.
fn stalled(dir: &Path) -> Option<[u64; 3]> {
    let total = |file: &str| some_total(&text(Some(dir), file)).map(|micros| micros.saturating_mul(1000));
    Some([total("cpu.pressure")?, total("memory.pressure")?, total("io.pressure")?])
}

/// The total of the line `some`, in microseconds.
fn some_total(pressure: &str) -> Option<u64> {
    let some = pressure.lines().find(|line| line.starts_with("some "))?;
    some.split_ascii_whitespace().find_map(|word| word.strip_prefix("total=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_the_total_of_some() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(some_total(text), expected, "{text}");
        check("some avg10=0.00 avg60=0.01 avg300=0.10 total=4711\nfull avg10=0.00 total=12\n", Some(4711));
        check("full avg10=0.00 avg60=0.00 avg300=0.00 total=12\n", None);
        check("", None);
        check("some avg10=0.00 total=many\n", None);
    }
}
