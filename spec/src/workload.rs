//! The desired state of a node: workloads and the objects they refer to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::pod::PodSpec;
use crate::secret::SecretBytes;
use crate::time::Millis;

/// What kind of thing a workload was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WorkloadKind {
    /// v1 Pod.
    Pod,
    /// apps/v1 Deployment.
    Deployment,
    /// apps/v1 ReplicaSet.
    ReplicaSet,
    /// apps/v1 DaemonSet: one pod on this node.
    DaemonSet,
    /// apps/v1 StatefulSet.
    StatefulSet,
    /// batch/v1 Job.
    Job,
    /// batch/v1 CronJob.
    CronJob,
    /// A service of a Compose project; the project is the namespace.
    Service,
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Identity of a workload: what it is and is called, never where it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkloadId {
    /// Kind.
    pub kind: WorkloadKind,
    /// Namespace, or the Compose project.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// Identity of any object, workload or not: kind as written, namespace, name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId {
    /// Kind as written, such as `ConfigMap`; `Service` of Compose is `ComposeService`.
    pub kind: String,
    /// Namespace, or the Compose project.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// One workload as its manifest wishes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Who it is.
    pub id: WorkloadId,
    /// File it is written in, as named to the parser, and the line it starts at.
    pub source: SourceRef,
    /// Labels of the object.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the object; `mainstay/...` ones steer the agent.
    pub annotations: BTreeMap<String, String>,
    /// How pods follow from it.
    pub controller: Controller,
    /// What its pods are.
    pub template: PodTemplate,
    /// What must be up before its pods start.
    pub depends_on: Vec<Dependency>,
}

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct SourceRef {
    /// File name as given to the parser.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
}

/// Labels, annotations and spec of the pods of a workload.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PodTemplate {
    /// Labels of each pod.
    pub labels: BTreeMap<String, String>,
    /// Annotations of each pod.
    pub annotations: BTreeMap<String, String>,
    /// What each pod is. Shared, since records, plans and actions all point at it.
    pub spec: Arc<PodSpec>,
    /// Files of the host whose content counts, with a label of it: see [`crate::files::bound_files`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bound: BTreeMap<String, String>,
}

/// How pods follow from a workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Controller {
    /// One pod with the workload's own name (Pod).
    Single,
    /// A number of equal pods (Deployment, ReplicaSet, DaemonSet, Compose service).
    Replicated {
        /// How many.
        replicas: u32,
        /// How a new version takes over.
        strategy: UpdateStrategy,
    },
    /// Pods with ordinals and stable names, started and stopped in order (StatefulSet).
    Ordered {
        /// How many.
        replicas: u32,
        /// First ordinal.
        first_ordinal: u32,
        /// Start and stop all at once (`podManagementPolicy: Parallel`).
        parallel: bool,
        /// Only ordinals at or above it are updated.
        partition: u32,
        /// `OnDelete`: pods are updated only when they are removed by hand.
        on_delete: bool,
        /// Ready for so long before it counts as available.
        min_ready: Millis,
        /// Volumes made for each ordinal: volume name in the pod, and the claim's name prefix.
        claims: Vec<ClaimTemplate>,
        /// `serviceName`: the domain of the pods' names.
        service_name: Option<String>,
    },
    /// Pods that run to their end (Job).
    Job(JobSpec),
    /// Jobs by the clock (CronJob).
    Cron(CronSpec),
}

/// A volume of each pod of a StatefulSet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimTemplate {
    /// Name of the volume in the pod; the claim of ordinal 3 is `<name>-<workload>-3`.
    pub name: String,
}

/// How a new version of a replicated workload takes over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateStrategy {
    /// Stop all old pods first (`Recreate`).
    pub recreate: bool,
    /// Pods above the wished number while updating; 0 is stop-first.
    pub max_surge: u32,
    /// Pods below the wished number while updating.
    pub max_unavailable: u32,
    /// Ready for so long without a restart before it counts as available.
    pub min_ready: Millis,
    /// An update that makes no progress for so long has failed; default 600 s.
    pub progress_deadline: Millis,
    /// What happens when an update has failed.
    pub on_failure: OnFailure,
    /// Wait between two batches (Compose `update_config.delay`).
    pub delay: Millis,
    /// Watch a new pod for so long (Compose `update_config.monitor`).
    pub monitor: Millis,
    /// `OnDelete` of a DaemonSet.
    pub on_delete: bool,
    /// How a rollback goes, when it is to go otherwise (Compose `rollback_config`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackStrategy>,
}

/// How the old version comes back after a failed update (Compose `rollback_config`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollbackStrategy {
    /// Pods above the wished number meanwhile; 0 is stop-first.
    pub max_surge: u32,
    /// Pods below the wished number meanwhile.
    pub max_unavailable: u32,
    /// Wait between two batches.
    pub delay: Millis,
    /// Watch a new pod for so long.
    pub monitor: Millis,
    /// What happens when the rollback fails too: never another rollback.
    pub on_failure: OnFailure,
}

impl Default for UpdateStrategy {
    /// Kubernetes' Deployment defaults for one replica: surge 1, unavailable 0, 600 s.
    fn default() -> Self {
        Self {
            recreate: false,
            max_surge: 1,
            max_unavailable: 0,
            min_ready: Millis(0),
            progress_deadline: Millis::from_secs(600),
            on_failure: OnFailure::Rollback,
            delay: Millis(0),
            monitor: Millis(0),
            on_delete: false,
            rollback: None,
        }
    }
}

/// What a failed update leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// Back to the last good version.
    Rollback,
    /// Stop there and say so.
    Pause,
    /// Go on.
    Continue,
}

/// A Job's rules (batch/v1 JobSpec).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Successful pods needed; `None` with `parallelism` is a work queue.
    pub completions: Option<u32>,
    /// Pods at a time.
    pub parallelism: u32,
    /// Failures before it is given up; default 6.
    pub backoff_limit: u32,
    /// The Job fails after so long.
    pub active_deadline: Option<Millis>,
    /// Its pods are removed so long after its end.
    pub ttl_after_finished: Option<Millis>,
    /// Each index completes once (`completionMode: Indexed`).
    pub indexed: bool,
    /// Create no pods.
    pub suspend: bool,
    /// Rules on exit codes, first match wins.
    pub failure_policy: Vec<FailureRule>,
    /// Failures of each index before it is given up (indexed Jobs); failures of the whole do not count then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_limit_per_index: Option<u32>,
    /// The Job fails when more indexes than these were given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed_indexes: Option<u32>,
}

/// A rule of a Job's podFailurePolicy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRule {
    /// What to do.
    pub action: FailureAction,
    /// Only this container; any when `None`.
    pub container: Option<String>,
    /// `NotIn` when true.
    pub not_in: bool,
    /// Exit codes.
    pub exit_codes: Vec<i32>,
}

/// What a failure rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureAction {
    /// The Job has failed.
    FailJob,
    /// The index is given up.
    FailIndex,
    /// Does not count.
    Ignore,
    /// Counts.
    Count,
}

/// A CronJob's rules (batch/v1 CronJobSpec).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CronSpec {
    /// Five fields, or `@daily` and the like.
    pub schedule: String,
    /// IANA time zone; the host's when `None`.
    pub time_zone: Option<String>,
    /// `Allow`, `Forbid` or `Replace`.
    pub concurrency: Concurrency,
    /// A run that could not start for so long is missed.
    pub starting_deadline: Option<Millis>,
    /// Start no runs.
    pub suspend: bool,
    /// Finished runs kept; default 3.
    pub successful_history: u32,
    /// Failed runs kept; default 1.
    pub failed_history: u32,
    /// What each run is.
    pub job: JobSpec,
}

/// What happens when a run is due while another still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Concurrency {
    /// Both run.
    Allow,
    /// The new one is skipped.
    Forbid,
    /// The old one is stopped.
    Replace,
}

/// Another workload that must have reached a condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Which.
    pub workload: WorkloadId,
    /// What it must have reached.
    pub condition: DependencyCondition,
    /// Restart when it restarts.
    pub restart: bool,
    /// Missing is an error when true, else a warning.
    pub required: bool,
}

/// Compose depends_on conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DependencyCondition {
    /// Its containers run.
    Started,
    /// It is ready.
    Healthy,
    /// It ended with exit code 0.
    CompletedSuccessfully,
}

/// A ConfigMap's content.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConfigData(pub BTreeMap<String, Vec<u8>>);

/// A Secret's content; no Serialize.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretData {
    /// Keys and values.
    pub data: BTreeMap<String, SecretBytes>,
    /// Type, such as `kubernetes.io/dockerconfigjson`.
    pub kind: String,
}

/// A virtual address and names for pods (v1 Service); Compose services have names only.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels of the pods it stands for; empty selects none.
    pub selector: BTreeMap<String, String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// The virtual address that is asked for.
    pub cluster_ip: Option<std::net::Ipv4Addr>,
    /// No virtual address: the name means the pods (`clusterIP: None`).
    pub headless: bool,
    /// NodePort or LoadBalancer: reachable on the host.
    pub exposure: Exposure,
    /// Same client, same pod.
    pub client_ip_affinity: bool,
    /// Names of pods that are not ready too.
    pub publish_not_ready: bool,
    /// `type: ExternalName`.
    pub external_name: Option<String>,
}

/// How far a Service is reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Exposure {
    /// From pods and the host itself.
    #[default]
    Cluster,
    /// On a node port.
    NodePort,
    /// On its own port of the host.
    LoadBalancer,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServicePort {
    /// Name.
    pub name: Option<String>,
    /// Port of the virtual address.
    pub port: u16,
    /// Port of the pods; default the same.
    pub target: Option<crate::pod::PortRef>,
    /// Port of the host (NodePort).
    pub node_port: Option<u16>,
    /// Transport.
    pub protocol: crate::pod::Protocol,
}

/// A network of a Compose project.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Name on the host.
    pub name: String,
    /// No way out.
    pub internal: bool,
    /// Not made and not removed by us.
    pub external: bool,
    /// IPv6 as well.
    pub ipv6: bool,
    /// Wished subnets in CIDR form.
    pub subnets: Vec<String>,
}

/// Everything a set of sources wishes for.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// Workloads by identity.
    pub workloads: BTreeMap<WorkloadId, Arc<Workload>>,
    /// ConfigMaps by (namespace, name).
    pub configs: BTreeMap<(String, String), Arc<ConfigData>>,
    /// Secrets by (namespace, name).
    pub secrets: BTreeMap<(String, String), Arc<SecretData>>,
    /// Services by (namespace, name).
    pub services: BTreeMap<(String, String), Arc<Service>>,
    /// Networks by name.
    pub networks: BTreeMap<String, Arc<NetworkSpec>>,
}
