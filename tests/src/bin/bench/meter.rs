//! CPU time of everything that a measurement starts: cgroup accounting, so that other work on the machine and processes
//! that have ended already are told apart.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tests::Sandbox;

use crate::table::Sample;

const CPUACCT: &str = "/sys/fs/cgroup/cpuacct";

/// Counts from its start on. On a host without the v1 hierarchy cpuacct CPU time is not counted, and tables say `-`.
#[derive(Debug)]
pub(crate) struct Meter {
    groups: Vec<PathBuf>,
    own: Option<PathBuf>,
}

impl Meter {
    /// Moves the calling thread, and with it what it starts later, into a group of its own, and counts that and the
    /// sandbox's cgroup, where containers and their shims are.
    pub(crate) fn new(sandbox: &Sandbox) -> Self {
        let own = Path::new(CPUACCT).join(format!("bench-{}-{}", std::process::id(), nix::unistd::gettid()));
        let moved =
            fs::create_dir(&own).and_then(|()| fs::write(own.join("tasks"), nix::unistd::gettid().to_string())).is_ok();
        let product = Path::new(CPUACCT).join(sandbox.cgroup_parent().trim_start_matches('/'));
        if moved {
            Self { groups: vec![own.clone(), product], own: Some(own) }
        } else {
            Self { groups: Vec::new(), own: None }
        }
    }

    /// Begins a measurement of everything.
    pub(crate) fn start(&self) -> Lap<'_> {
        Lap::new(&self.groups)
    }

    /// Begins a measurement without containers and shims: what this thread starts, the agent.
    pub(crate) fn start_own(&self) -> Lap<'_> {
        Lap::new(self.groups.get(..1).unwrap_or_default())
    }
}

/// CPU seconds of some groups so far.
fn cpu(groups: &[PathBuf]) -> Option<f64> {
    let nanos = |group: &PathBuf| -> u64 {
        // The product's group appears with its first container and goes with the last.
        fs::read_to_string(group.join("cpuacct.usage")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    #[expect(clippy::cast_precision_loss, reason = "a measurement")]
    let seconds = groups.iter().map(nanos).sum::<u64>() as f64 / 1e9;
    (!groups.is_empty()).then_some(seconds)
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            // Threads go back to the root group, so that the own one can be removed.
            drop(fs::write(Path::new(CPUACCT).join("tasks"), nix::unistd::gettid().to_string()));
            drop(fs::remove_dir(own));
        }
    }
}

/// A running measurement.
#[derive(Debug)]
pub(crate) struct Lap<'a> {
    groups: &'a [PathBuf],
    cpu: Option<f64>,
    at: Instant,
}

impl<'a> Lap<'a> {
    fn new(groups: &'a [PathBuf]) -> Self {
        Self { groups, cpu: cpu(groups), at: Instant::now() }
    }

    /// Its milliseconds and CPU seconds until now.
    pub(crate) fn done(&self) -> Sample {
        let wall = self.at.elapsed().as_secs_f64() * 1e3;
        Sample { wall, cpu: self.cpu.zip(cpu(self.groups)).map(|(from, to)| to - from) }
    }
}
