//! From resources to cgroup files.

use std::path::Path;

use spec::pod::Resources;

use super::{CgroupError, Layout, Result, write};

/// Length of a CPU period in microseconds.
const PERIOD: u64 = 100_000;

/// CPU shares (version 1 scale) that are asked for, or those of a request; `None` when neither is there.
pub fn shares(resources: &Resources) -> Option<u64> {
    let asked = resources.cpu_shares.map(|shares| shares.clamp(2, 262_144));
    asked.or_else(|| resources.cpu_request_milli.map(spec::qos::cpu_shares))
}

/// Weight (version 2 scale) for shares: 2, 1024 and 262144 become 1, 100 and 10000, and what is between lies on a curve
/// through them (runc 1.4 and crun 1.23; the straight line of before made 39 of the default of 1024).
fn weight(shares: u64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "262144 at most")]
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let weight = 10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 10000")]
    let weight = (weight - 1e-6).ceil() as u64;
    weight.clamp(1, 10_000)
}

/// Gives a cgroup its part of the CPU beside its siblings, where the host has a controller for that.
pub(super) fn apply_shares(layout: &Layout, path: &str, shares: u64) {
    let (dir, file, value) = match layout.v2_dir(path) {
        Some(dir) => (Some(dir), "cpu.weight", weight(shares)),
        None => (layout.v1_dir("cpu", path), "cpu.shares", shares),
    };
    prefer(dir.as_deref(), &[file], &value.to_string(), file, &mut Vec::new());
}

/// Quota in microseconds of [`PERIOD`]; the kernel takes no less than 1 ms.
fn quota(milli: u64) -> u64 {
    (milli * PERIOD / 1000).max(1000)
}

/// Bytes of memory and swap together: as asked, else no swap beyond the memory limit (Kubernetes NoSwap).
fn memory_and_swap(resources: &Resources) -> Option<i64> {
    resources.memory_swap_limit.or_else(|| resources.memory_limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX)))
}

pub(super) fn apply(layout: &Layout, path: &str, resources: &Resources) -> Result<Vec<String>> {
    match layout.v2_dir(path) {
        Some(dir) => apply_v2(&dir, resources),
        None => apply_v1(layout, path, resources),
    }
}

/// Writes a limit whose file tells by its absence that the controller is missing.
fn limit(dir: Option<&Path>, file: &str, value: &str, field: &'static str, controller: &'static str) -> Result<()> {
    match dir {
        Some(dir) if dir.join(file).exists() => write(&dir.join(file), value),
        _ => Err(CgroupError::NoController { field, controller }),
    }
}

/// Writes a preference; failing is only worth a warning.
fn prefer(dir: Option<&Path>, files: &[&str], value: &str, field: &str, warnings: &mut Vec<String>) {
    let done = dir.is_some_and(|dir| files.iter().any(|file| write(&dir.join(file), value).is_ok()));
    if !done {
        warnings.push(format!("{field} has no effect on this host"));
    }
}

fn apply_v1(layout: &Layout, path: &str, r: &Resources) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let dir = |controller: &str| layout.v1_dir(controller, path);
    if let Some(shares) = shares(r) {
        prefer(dir("cpu").as_deref(), &["cpu.shares"], &shares.to_string(), "CPU request", &mut warnings);
    }
    if let Some(milli) = r.cpu_limit_milli {
        let cpu = dir("cpu");
        limit(cpu.as_deref(), "cpu.cfs_period_us", &PERIOD.to_string(), "CPU limit", "cpu")?;
        limit(cpu.as_deref(), "cpu.cfs_quota_us", &quota(milli).to_string(), "CPU limit", "cpu")?;
    }
    let memory = dir("memory");
    if let Some(bytes) = r.memory_limit {
        let set = || limit(memory.as_deref(), "memory.limit_in_bytes", &bytes.to_string(), "memory limit", "memory");
        if let Err(error) = set() {
            // The kernel wants memory <= memory + swap at every moment: when both grow, the sum goes first.
            let (Some(both), Some(dir)) = (memory_and_swap(r), &memory) else { return Err(error) };
            write(&dir.join("memory.memsw.limit_in_bytes"), &both.to_string()).map_err(|_| error)?;
            set()?;
        }
    }
    if r.memory_high.is_some() {
        warnings.push("memory_high has no effect with cgroup version 1".to_owned());
    }
    if let Some(bytes) = r.memory_request {
        let files = ["memory.soft_limit_in_bytes"];
        prefer(memory.as_deref(), &files, &bytes.to_string(), "memory reservation", &mut warnings);
    }
    if let Some(both) = memory_and_swap(r) {
        // Without swap accounting there is no such file.
        if memory.as_ref().is_some_and(|dir| dir.join("memory.memsw.limit_in_bytes").exists()) {
            limit(memory.as_deref(), "memory.memsw.limit_in_bytes", &both.to_string(), "swap limit", "memory")?;
        } else if r.memory_swap_limit.is_some() {
            warnings.push("swap limit has no effect on this host".to_owned());
        }
    }
    if r.oom_kill_disable {
        limit(memory.as_deref(), "memory.oom_control", "1", "oom_kill_disable", "memory")?;
    }
    if let Some(max) = r.pids_limit {
        let value = if max <= 0 { "max".to_owned() } else { max.to_string() };
        limit(dir("pids").as_deref(), "pids.max", &value, "pids limit", "pids")?;
    }
    if let Some(cpus) = &r.cpuset {
        limit(dir("cpuset").as_deref(), "cpuset.cpus", cpus, "cpuset", "cpuset")?;
    }
    if let Some(weight) = r.blkio_weight {
        let files = ["blkio.weight", "blkio.bfq.weight"];
        prefer(dir("blkio").as_deref(), &files, &weight.to_string(), "block I/O weight", &mut warnings);
    }
    for disk in &r.disk_limits {
        let device = device(&disk.path)?;
        for (file, rate) in [
            ("blkio.throttle.read_bps_device", disk.read_bps),
            ("blkio.throttle.write_bps_device", disk.write_bps),
            ("blkio.throttle.read_iops_device", disk.read_iops),
            ("blkio.throttle.write_iops_device", disk.write_iops),
        ] {
            if let Some(rate) = rate {
                limit(dir("blkio").as_deref(), file, &format!("{device} {rate}"), "limit of a disk", "blkio")?;
            }
        }
    }
    for (size, bytes) in &r.hugepages {
        let file = format!("hugetlb.{}.limit_in_bytes", page_size(size));
        limit(dir("hugetlb").as_deref(), &file, &bytes.to_string(), "hugepages limit", "hugetlb")?;
    }
    Ok(warnings)
}

fn apply_v2(dir: &Path, r: &Resources) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let here = Some(dir);
    if let Some(shares) = shares(r) {
        prefer(here, &["cpu.weight"], &weight(shares).to_string(), "CPU request", &mut warnings);
    }
    if let Some(milli) = r.cpu_limit_milli {
        limit(here, "cpu.max", &format!("{} {PERIOD}", quota(milli)), "CPU limit", "cpu")?;
    }
    if let Some(bytes) = r.memory_limit {
        limit(here, "memory.max", &bytes.to_string(), "memory limit", "memory")?;
        if !r.single_process_oom_kill {
            // The whole container goes, not one process of it (Kubernetes on version 2).
            let _ = write(&dir.join("memory.oom.group"), "1");
        }
    }
    if let Some(bytes) = r.memory_high {
        prefer(here, &["memory.high"], &bytes.to_string(), "memory_high", &mut warnings);
    }
    if let Some(bytes) = r.memory_request {
        prefer(here, &["memory.low"], &bytes.to_string(), "memory reservation", &mut warnings);
    }
    if let Some(both) = memory_and_swap(r) {
        let value = match (both, r.memory_limit) {
            (i64::MIN..0, _) => "max".to_owned(),
            (_, Some(limit)) => both.unsigned_abs().saturating_sub(limit).to_string(),
            (_, None) => both.to_string(),
        };
        if dir.join("memory.swap.max").exists() {
            limit(here, "memory.swap.max", &value, "swap limit", "memory")?;
        } else if r.memory_swap_limit.is_some() {
            warnings.push("swap limit has no effect on this host".to_owned());
        }
    }
    if r.oom_kill_disable {
        warnings.push("oom_kill_disable has no effect with cgroup version 2".to_owned());
    }
    if let Some(max) = r.pids_limit {
        let value = if max <= 0 { "max".to_owned() } else { max.to_string() };
        limit(here, "pids.max", &value, "pids limit", "pids")?;
    }
    if let Some(cpus) = &r.cpuset {
        limit(here, "cpuset.cpus", cpus, "cpuset", "cpuset")?;
    }
    if let Some(weight) = r.blkio_weight {
        // OCI: 10..1000 becomes 1..10000 for io.weight; bfq keeps the scale.
        let io = 1 + u64::from(weight.saturating_sub(10)) * 9999 / 990;
        let bfq = dir.join("io.bfq.weight").exists() && write(&dir.join("io.bfq.weight"), &weight.to_string()).is_ok();
        if !bfq {
            prefer(here, &["io.weight"], &format!("default {io}"), "block I/O weight", &mut warnings);
        }
    }
    for disk in &r.disk_limits {
        let rates =
            [("rbps", disk.read_bps), ("wbps", disk.write_bps), ("riops", disk.read_iops), ("wiops", disk.write_iops)];
        let rates = rates.iter().filter_map(|(key, rate)| Some(format!(" {key}={}", (*rate)?)));
        let line = device(&disk.path)? + &rates.collect::<String>();
        limit(here, "io.max", &line, "limit of a disk", "io")?;
    }
    for (size, bytes) in &r.hugepages {
        let file = format!("hugetlb.{}.max", page_size(size));
        limit(here, &file, &bytes.to_string(), "hugepages limit", "hugetlb")?;
    }
    Ok(warnings)
}

/// `major:minor` of a block device.
fn device(path: &str) -> Result<String> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let fault = |source| CgroupError::Device { path: path.to_owned(), source };
    let meta = std::fs::metadata(path).map_err(|error| fault(Some(error)))?;
    if !meta.file_type().is_block_device() {
        return Err(fault(None));
    }
    let number = meta.rdev();
    Ok(format!("{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number)))
}

/// `2Mi` (Kubernetes `hugepages-2Mi`) as cgroup files have it: `2MB`.
fn page_size(name: &str) -> String {
    let name = name.strip_prefix("hugepages-").unwrap_or(name);
    name.strip_suffix('i').map_or_else(|| name.to_owned(), |short| format!("{short}B"))
}
