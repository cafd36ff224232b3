//! What is there: the facts that the runtime reports and that plans are made from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::health::ImageCheck;
use crate::pod::{PodSpec, Protocol, ResolvedImages};
use crate::time::Timestamp;
use crate::workload::{SourceRef, WorkloadId};

/// Unique id of one pod, new for every replacement: 16 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodUid(pub String);

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a pod was made as. Written once, when it is made, and kept on disk until it is removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Unique id.
    pub uid: PodUid,
    /// The workload it belongs to.
    pub workload: WorkloadId,
    /// Which of the workload's pods it is, from 0.
    pub ordinal: u32,
    /// Label of the template it was made from; only tells versions apart, never compared to decide.
    #[serde(default)]
    pub revision: String,
    /// Its name: the workload's own for single pods, else with the ordinal.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Workloads that must end after it.
    #[serde(default)]
    pub depends_on: Vec<WorkloadId>,
    /// Where its manifest was.
    pub source: SourceRef,
    /// What it is.
    pub spec: Arc<PodSpec>,
    /// Which digest each image stood for.
    pub images: ResolvedImages,
    /// When it was made, in seconds of Unix time; for people only.
    pub created_unix: i64,
    /// When it was made, on the boot-time clock of `boot_id`.
    pub created: Timestamp,
    /// The boot it was made in.
    pub boot_id: String,
    /// For a pod of a CronJob: the moment of the schedule that it runs for, in seconds of Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<i64>,
    /// Files of the host whose content counts, with the label of what they held when it was made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bound: BTreeMap<String, String>,
}

/// The key of a volume's image in [`ResolvedImages`]: no container has such a name.
#[must_use]
pub fn volume_image(volume: &str) -> String {
    format!("volume/{volume}")
}

/// What must not be forgotten about a workload when no pod tells it any more: kept on disk beside the pods.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobMemory {
    /// CronJob: moments of the schedule up to this one (seconds of Unix time) are settled and never run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<i64>,
    /// CronJob: the newest moment that a run was started for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<i64>,
    /// CronJob: the newest run that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<RunEnd>,
    /// CronJob: the newest run that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<i64>,
    /// Job: its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Finished>,
}

/// How a run of a CronJob ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    /// The moment of the schedule, in seconds of Unix time.
    pub at: i64,
    /// Whether it did what it should.
    pub succeeded: bool,
}

/// The end of a Job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finished {
    /// What its pods were: another template is another Job.
    pub spec: Arc<PodSpec>,
    /// Why it failed; `None` when it succeeded.
    pub failure: Option<String>,
    /// When that was seen, in seconds of Unix time.
    pub unix: i64,
    /// When that was seen, on the boot-time clock of `boot_id`.
    pub at: Timestamp,
    /// The boot it was seen in.
    pub boot_id: String,
}

/// A pod as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct PodFacts {
    /// What it was made as.
    pub record: Arc<PodRecord>,
    /// Whether its namespaces exist in this boot.
    pub sandbox: bool,
    /// Its addresses; none on the host's network.
    pub addresses: Addresses,
    /// The newest attempt of each container that was ever started, by container name.
    pub containers: BTreeMap<String, ContainerFacts>,
    /// Set once the pod has failed as a whole: nothing in it runs again, whatever its restart policy.
    pub failed: Option<PodFailure>,
}

/// Why a pod has failed as a whole (Kubernetes PodStatus.reason and .message). Kept on disk with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodFailure {
    /// The word.
    pub reason: PodFailureReason,
    /// A sentence.
    pub message: String,
}

/// The words for a pod that has failed as a whole, as Kubernetes has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodFailureReason {
    /// It used more disk than it may.
    Evicted,
    /// It ran for longer than `activeDeadlineSeconds`.
    DeadlineExceeded,
}

impl fmt::Display for PodFailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Evicted => "Evicted",
            Self::DeadlineExceeded => "DeadlineExceeded",
        })
    }
}

/// Bytes that a pod takes on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskUsage {
    /// Of each emptyDir on disk, by volume name.
    pub volumes: BTreeMap<String, u64>,
    /// Writable layer and logs of each container, by container name.
    pub containers: BTreeMap<String, u64>,
}

/// Addresses of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Addresses {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// The newest attempt of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerFacts {
    /// Counts from 0; each start is a new attempt.
    pub attempt: u32,
    /// How many restarts in a row led to this attempt without a long run between them; given at its start and kept
    /// with it, so that backoff survives a restart of the agent.
    #[serde(default)]
    pub series: u32,
    /// How it is.
    pub state: ContainerState,
    /// The HEALTHCHECK of its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_check: Option<ImageCheck>,
    /// It was ended for being unhealthy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unhealthy: bool,
}

/// State of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Its process runs.
    Running {
        /// Process id on the host.
        pid: u32,
        /// When it started.
        started: Timestamp,
    },
    /// It ended.
    Exited(Exit),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed it for want of memory.
    pub oom: bool,
    /// When it started, on the boot-time clock of `boot_id`; `None` when it never did.
    pub started: Option<Timestamp>,
    /// When it ended, on the boot-time clock of `boot_id`.
    pub finished: Timestamp,
    /// When it ended, in seconds of Unix time; for people only.
    pub finished_unix: i64,
    /// The boot it ended in.
    pub boot_id: String,
    /// Why it could not start or was lost, when that is so.
    pub error: Option<String>,
    /// Its termination message (Kubernetes terminationMessagePath).
    pub message: Option<String>,
    /// It was told to end because its whole pod was to: this end is not the program's own, whatever its code says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
}

impl Exit {
    /// Whether the program did its work: it ended by itself, with code 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.code == 0 && !self.stopped
    }
}

impl ContainerFacts {
    /// An attempt in a state, of an image without HEALTHCHECK.
    #[must_use]
    pub fn new(attempt: u32, series: u32, state: ContainerState) -> Self {
        Self { attempt, series, state, image_check: None, unhealthy: false }
    }

    /// Whether its process runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }

    /// How it ended, when it did.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            ContainerState::Exited(exit) => Some(exit),
            ContainerState::Running { .. } => None,
        }
    }
}

/// A published port: connections to it reach a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortKey {
    /// Transport.
    pub protocol: Protocol,
    /// Host address; every one when `None`.
    pub host_ip: Option<IpAddr>,
    /// Port on the host.
    pub host_port: u16,
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(ip) => write!(f, "{}/{}", std::net::SocketAddr::new(ip, self.host_port), self.protocol),
            None => write!(f, "{}/{}", self.host_port, self.protocol),
        }
    }
}

/// Where a published port leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortTarget {
    /// The pod.
    pub pod: PodUid,
    /// Its addresses.
    pub addresses: Addresses,
    /// Port inside.
    pub container_port: u16,
}
