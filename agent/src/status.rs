//! What the agent says about itself and its workloads: the shapes of `status -o json` and of the API.
//!
//! Keys are stable. The reconcile loop publishes a [`Snapshot`] after each pass; everybody else only reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything the loop publishes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Version of the agent.
    pub version: String,
    /// Process id of the agent.
    pub pid: u32,
    /// Number of passes so far.
    pub passes: u64,
    /// Number of the reading of the sources that the last pass went by; it rises with each.
    #[serde(default)]
    pub reading: u64,
    /// Whether the last pass saw every source and left nothing to do.
    pub converged: bool,
    /// Sources and their findings.
    pub sources: Vec<SourceStatus>,
    /// Workloads, sorted.
    pub workloads: Vec<WorkloadStatus>,
    /// Published ports: `8080/tcp` -> pod name and port.
    pub ports: BTreeMap<String, String>,
    /// Services, sorted.
    #[serde(default)]
    pub services: Vec<ServiceStatus>,
    /// What the last plan wanted to do, and why.
    pub plan: Vec<StepStatus>,
    /// A removal that waits for approval.
    #[serde(default)]
    pub removal: Option<RemovalStatus>,
    /// What people paused and what is held back.
    #[serde(default)]
    pub paused: Vec<PausedStatus>,
    /// The newest generation.
    #[serde(default)]
    pub generation: Option<u64>,
    /// The generation that the node stays at, whatever its sources say.
    #[serde(default)]
    pub rolled_back_to: Option<u64>,
    /// Since when the node is drained, in seconds of Unix time.
    #[serde(default)]
    pub drained: Option<i64>,
    /// Pulls that run, as far as they are at the moment of the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pulls: Vec<PullStatus>,
}

/// A removal above the budget, or of something protected.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovalStatus {
    /// What `mainstay approve` takes.
    pub id: String,
    /// Why it is held.
    pub message: String,
    /// What would go, as `Kind/namespace/name`.
    pub workloads: Vec<String>,
}

/// A pause, or a change that is held back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PausedStatus {
    /// `Kind/namespace/name`, or `*` for everything.
    pub workload: String,
    /// A sentence.
    pub message: String,
    /// Whether there is a change that waits.
    pub pending: bool,
}

/// A source of manifests.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The directory as given.
    pub path: String,
    /// `ok`, `degraded` (some files have errors: their last good version stays), `failed` (it cannot be read:
    /// everything of it stays) or `waiting` (it is followed elsewhere and was never fetched yet).
    pub state: String,
    /// Manifest files in it.
    pub files: usize,
    /// Files of them with errors.
    #[serde(default)]
    pub broken: usize,
    /// Errors of its files, rendered for people, one each.
    pub errors: Vec<String>,
    /// Warnings, rendered for people.
    pub warnings: Vec<String>,
    /// When it was last read without an error, in seconds of Unix time.
    pub last_success: Option<i64>,
    /// The commit that counts, of a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// What `mainstay approve` takes to make a directory count that is another one than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approve: Option<String>,
}

/// One Service.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `Headless` or `ExternalName`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its virtual address.
    pub address: Option<String>,
    /// The name it stands for, with `ExternalName`.
    pub external_name: Option<String>,
    /// Its ports, as `80/tcp`.
    pub ports: Vec<String>,
    /// Ports of the host that lead to it, as `30080/tcp`.
    pub host_ports: Vec<String>,
    /// Names of the pods that get its clients now.
    pub pods: Vec<String>,
    /// What it asks for and does not get.
    pub problems: Vec<String>,
}

/// One workload.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Kind as written.
    pub kind: String,
    /// Namespace or Compose project.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Stopping`; `Scheduled` for a CronJob between two runs.
    pub phase: String,
    /// Pods wished.
    pub desired: u32,
    /// Pods that can serve.
    pub ready: u32,
    /// Pods of the newest version.
    pub updated: u32,
    /// The file it comes from.
    pub source: String,
    /// Set while the file is broken or gone wrong: the last good version is kept.
    pub held: Option<HeldStatus>,
    /// Why it is not further on: word and sentence.
    pub waiting: Vec<WaitStatus>,
    /// What its schedule says, for a CronJob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<CronStatus>,
    /// Its pods.
    pub pods: Vec<PodStatus>,
}

/// The schedule of a CronJob and what came of it. Moments are those of the schedule, in seconds of Unix time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CronStatus {
    /// The schedule as written.
    pub schedule: String,
    /// The zone that it is meant in.
    pub time_zone: String,
    /// Whether no runs are started.
    pub suspended: bool,
    /// Runs that have not ended.
    pub active: u32,
    /// The next run.
    pub next_run: Option<i64>,
    /// The newest run that was started.
    pub last_run: Option<i64>,
    /// Whether the newest run that ended succeeded.
    pub last_succeeded: Option<bool>,
    /// The newest run that succeeded.
    pub last_success: Option<i64>,
}

/// Why a workload is frozen at its last good version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldStatus {
    /// One word: `broken`, `unreadable`, `budget`, ...
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// What a workload waits for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitStatus {
    /// The word of the hold.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// While images are waited for, which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

/// A pull that runs while it is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullStatus {
    /// The image.
    pub image: String,
    /// Its layers; 0 until they are known.
    pub layers: usize,
    /// Layers of them that are here, unpacked and verified.
    pub done: usize,
    /// Compressed bytes of the layers that were missing.
    pub bytes: u64,
    /// Bytes of them that have come.
    pub received: u64,
}

/// One pod.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Unique id.
    pub uid: String,
    /// Name.
    pub name: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Stopping`.
    pub phase: String,
    /// Whether it can serve.
    pub ready: bool,
    /// `Evicted` or `DeadlineExceeded`, when it failed as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A sentence about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its IPv4 address.
    pub ip: Option<String>,
    /// Label of its version.
    pub revision: String,
    /// When it was made, in seconds of Unix time.
    pub created: i64,
    /// Its containers, init containers first.
    pub containers: Vec<ContainerStatus>,
}

/// One container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Name.
    pub name: String,
    /// Image as written, normalised.
    pub image: String,
    /// Digest it stands for.
    pub digest: Option<String>,
    /// `waiting`, `running` or `exited`.
    pub state: String,
    /// Whether it can serve.
    pub ready: bool,
    /// An init container.
    pub init: bool,
    /// Process id on the host, while running.
    pub pid: Option<u32>,
    /// Starts after the first.
    pub restarts: u32,
    /// Seconds since it started, while running.
    pub running_seconds: Option<u64>,
    /// Exit code of the last attempt that ended.
    pub exit_code: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `CannotStart`, ...
    pub reason: Option<String>,
    /// Termination message or error.
    pub message: Option<String>,
}

/// A step of the last plan.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// The action's word.
    pub action: String,
    /// The workload, as `Kind/namespace/name`.
    pub workload: Option<String>,
    /// The reason's word.
    pub reason: String,
    /// Field-level changes.
    pub changes: Vec<String>,
}

/// Answer of `/v1/stats`: readings of this moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatsAnswer {
    /// Of every running container.
    pub containers: Vec<StatsEntry>,
    /// Of the interface of every pod that has one.
    pub pods: Vec<NetworkEntry>,
}

/// Readings of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatsEntry {
    /// Namespace.
    pub namespace: String,
    /// Name of its workload.
    pub workload: String,
    /// Name of its pod.
    pub pod: String,
    /// Name.
    pub container: String,
    /// The readings.
    #[serde(flatten)]
    pub stats: runtime::api::ContainerStats,
}

/// Readings of a pod's interface.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkEntry {
    /// Namespace.
    pub namespace: String,
    /// Name of its workload.
    pub workload: String,
    /// Name.
    pub pod: String,
    /// The readings.
    #[serde(flatten)]
    pub stats: runtime::api::NetworkStats,
}
