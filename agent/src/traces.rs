//! Traces of what was carried out, for a collector of OpenTelemetry. Without the cargo feature `traces` nothing takes
//! them, and the configuration refuses to name a collector.

#[cfg(feature = "traces")]
mod otlp;

use std::time::Duration;

use spec::workload::WorkloadId;

#[cfg(feature = "traces")]
pub use otlp::Traces;

/// Takes spans: there is none of it in this build.
#[cfg(not(feature = "traces"))]
#[derive(Debug, Clone)]
pub enum Traces {}

#[cfg(not(feature = "traces"))]
impl Traces {
    /// Never called.
    pub fn done(&self, _: &Done<'_>) {
        match *self {}
    }
}

/// An action that was carried out.
#[derive(Debug, Clone, Copy)]
pub struct Done<'a> {
    /// For which workload, and which version of it.
    pub workload: Option<(&'a WorkloadId, &'a str)>,
    /// The word of the plan for it.
    pub action: &'static str,
    /// And for its reason.
    pub reason: &'static str,
    /// What went wrong.
    pub error: Option<&'a str>,
    /// How long it took, until now.
    pub elapsed: Duration,
}
