//! The agent's own process, read from /proc at the moment of a scrape. Names are those of Prometheus' client
//! libraries, so that ready-made dashboards show it.

use super::{Maker, NONE, names};

/// One reading of /proc/self.
#[derive(Debug, Default, PartialEq)]
struct Process {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    threads: f64,
    start_unix: f64,
}

/// Adds the readings; what cannot be read is absent.
pub(super) fn register(make: &Maker<'_>) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    if let Some(process) = parse(&stat, &boot, ticks_per_second(), page_size()) {
        make.counters(names::PROCESS_CPU).with_label_values(NONE).inc_by(process.cpu_seconds);
        for (metric, value) in [
            (names::PROCESS_RSS, process.resident_bytes),
            (names::PROCESS_VIRTUAL, process.virtual_bytes),
            (names::PROCESS_THREADS, process.threads),
            (names::PROCESS_START, process.start_unix),
        ] {
            make.gauges(metric).with_label_values(NONE).set(value);
        }
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being listed.
        let count = super::as_float(entries.count().saturating_sub(1) as u64);
        make.gauges(names::PROCESS_FDS).with_label_values(NONE).set(count);
    }
    if let Ok((soft, _)) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        make.gauges(names::PROCESS_MAX_FDS).with_label_values(NONE).set(super::as_float(soft));
    }
}

/// Fields of proc_pid_stat(5), counted from the one after the program's name, which may hold anything.
fn parse(stat: &str, boot: &str, ticks: f64, page: f64) -> Option<Process> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let booted = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())?;
    Some(Process {
        cpu_seconds: (field(11)? + field(12)?) / ticks,
        threads: field(17)?,
        start_unix: booted + field(19)? / ticks,
        virtual_bytes: field(20)?,
        resident_bytes: field(21)? * page,
    })
}

fn ticks_per_second() -> f64 {
    setting(nix::unistd::SysconfVar::CLK_TCK, 100)
}

fn page_size() -> f64 {
    setting(nix::unistd::SysconfVar::PAGE_SIZE, 4096)
}

fn setting(variable: nix::unistd::SysconfVar, usual: u64) -> f64 {
    let value = nix::unistd::sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok());
    super::as_float(value.unwrap_or(usual))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_and_blanks_is_skipped() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1000 8192000 300 184467 1 1";
        let process = parse(stat, "cpu 1\nbtime 1700000000\n", 100.0, 4096.0).expect("it can be parsed");
        let expected = Process {
            cpu_seconds: 3.0,
            resident_bytes: 300.0 * 4096.0,
            virtual_bytes: 8_192_000.0,
            threads: 9.0,
            start_unix: 1_700_000_010.0,
        };
        assert_eq!(process, expected);
    }
}
