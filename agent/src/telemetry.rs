//! Counters.

use std::time::Duration;

use spec::workload::WorkloadId;

use crate::status::Snapshot;

/// All metrics.
#[derive(Debug, Clone, Default)]
pub struct Metrics;

impl Metrics {
    /// One pass.
    pub fn reconcile(&self, _elapsed: Duration, _ok: bool) {}
    /// One action.
    pub fn action(&self, _word: &'static str, _reason: &'static str, _ok: bool, _elapsed: Duration) {}
    /// One restart.
    pub fn container_restart(&self, _workload: &WorkloadId, _container: &str) {}
    /// A snapshot.
    pub fn observe_snapshot(&self, _snapshot: &Snapshot) {}
}
