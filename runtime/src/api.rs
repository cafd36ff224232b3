//! The one trait through which the agent uses a runtime, and the values that cross it.
//!
//! Two implementations: `embedded` (real containers) and `sim` (seeded, in memory). Every call is idempotent:
//! making what is there and removing what is gone are successes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use spec::digest::Digest;
use spec::image_ref::ImageRef;
use spec::names::NameTable;
use spec::observed::{Addresses, ContainerFacts, DiskUsage, PodFacts, PodFailure, PodRecord, PodUid};
pub use spec::observed::{PortKey, PortTarget};
use spec::pod::{ContainerSpec, PullPolicy};
use spec::services::{Entrance, ServiceSet, ServiceState};
use spec::workload::NetworkSpec;
use tokio::net::TcpSocket;

/// An error for people: what failed, and the chain of causes below it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct RuntimeError {
    /// What was tried: "pull image `x`".
    pub operation: String,
    /// What the failure means for trying again.
    pub class: FailureClass,
    /// Something the reader can do.
    pub hint: Option<String>,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What a failure means for trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// May go away by itself: network, registry, full disk.
    Transient,
    /// Stays until an input changes: no such image, no such program in it, wrong credentials.
    Permanent,
}

/// What a runtime result is.
pub type Result<T> = std::result::Result<T, RuntimeError>;

/// An image in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageInfo {
    /// The reference it was asked for by.
    pub reference: ImageRef,
    /// Digest of its manifest for this platform.
    pub digest: Digest,
    /// Bytes of its unpacked layers.
    pub size: u64,
    /// Bytes that were fetched for this answer.
    pub fetched: u64,
}

/// Credentials for registries, by registry host: what `imagePullSecrets` hold.
pub type PullCredentials = Vec<(String, RegistryAuth)>;

/// One registry login, by how it is presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryAuth {
    /// User name and password.
    Basic(String, spec::secret::SecretBytes),
    /// An OAuth2 refresh token (`identitytoken`).
    Identity(spec::secret::SecretBytes),
    /// A token that the registry itself takes (`registrytoken`).
    Bearer(spec::secret::SecretBytes),
}

/// What a container is started with: its spec and what the executor has resolved for it.
#[derive(Debug, Clone)]
pub struct ContainerStart {
    /// The pod.
    pub pod: Arc<PodRecord>,
    /// The container's spec.
    pub container: Arc<ContainerSpec>,
    /// Number of this attempt, from 0.
    pub attempt: u32,
    /// See [`ContainerFacts::series`]; kept with the attempt.
    pub series: u32,
    /// The image, by the digest that the pod was made with.
    pub image: Digest,
    /// Every variable of the manifest, expanded. Those of the image are added by the runtime, below these.
    /// Holds secrets: it never leaves memory and the run directory.
    pub env: Vec<(String, String)>,
    /// Files of the pod's generated volumes, by volume name.
    pub files: BTreeMap<String, FileSet>,
}

/// Content of a generated volume.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FileSet {
    /// Keep it in memory (it holds secrets).
    pub memory: bool,
    /// Files by relative path.
    pub files: BTreeMap<String, FileContent>,
}

/// What to do where the content of generated volumes differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesChange {
    /// Swap it.
    Swap,
    /// Swap it and send this signal (`SIGHUP`) to the containers that mount it.
    Signal(String),
    /// Nothing.
    Compare,
}

/// One generated file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileContent {
    /// Its bytes.
    pub bytes: spec::secret::SecretBytes,
    /// Mode bits.
    pub mode: u32,
    /// Owner, when not root.
    pub owner: Option<(u32, u32)>,
}

/// Something happened; the facts are to be looked at again. A hint: it may be lost or doubled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// A container of this pod ended, or its shim did.
    ContainerChanged(PodUid, String),
    /// The network's rules are not as they should be.
    NetworkChanged,
    /// Somebody else does to the network of pods what is not ours to change; people should know.
    NetworkWarning(String),
    /// The first byte of an image's layers is about to be fetched.
    PullBegan(RunningPull),
}

/// A pull that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningPull {
    /// Which image.
    pub reference: ImageRef,
    /// Layers of the image; 0 until its manifest is known.
    pub layers: usize,
    /// Those of them that are in the store, unpacked and verified.
    pub done: usize,
    /// Compressed bytes of the layers that were not there.
    pub bytes: u64,
    /// Those of them that have come.
    pub received: u64,
}

/// What goes on with images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulls {
    /// Pulls that run now, in no order.
    pub running: Vec<RunningPull>,
    /// Compressed bytes of layers that came since the start, those of pulls that failed included.
    pub fetched: u64,
}

/// A port that could not be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFault {
    /// Which.
    pub key: PortKey,
    /// Why, for people.
    pub message: String,
}

/// An entrance of a Service that could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFault {
    /// Which.
    pub entrance: Entrance,
    /// Why, for people.
    pub message: String,
}

/// cgroup readings of a container at one moment.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStats {
    /// CPU time used, in nanoseconds.
    pub cpu_nanos: u64,
    /// Periods in which it was throttled, and for how long in nanoseconds.
    pub throttled: (u64, u64),
    /// Bytes in use, page cache included.
    pub memory_bytes: u64,
    /// Bytes in use without reclaimable page cache.
    pub working_set_bytes: u64,
    /// Memory limit, when there is one.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes read from and written to block devices.
    pub io_bytes: (u64, u64),
    /// For how long some of its threads waited for CPU, memory and block devices, in nanoseconds (PSI, `some`); `None`
    /// where the kernel does not tell: cgroup v1, or built without it.
    pub stalled: Option<[u64; 3]>,
}

/// Counters of a pod's network interface.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStats {
    /// Bytes received and sent.
    pub bytes: (u64, u64),
    /// Packets received and sent.
    pub packets: (u64, u64),
}

/// What a command in a container answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// Its exit code; 128 + signal when a signal ended it; `None` when it did not end in time and was ended for it.
    pub code: Option<i32>,
    /// The start of its output, stdout and stderr as they came.
    pub output: Vec<u8>,
}

/// What is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopScope {
    /// The container alone: its exit code counts as when it ends by itself.
    Container,
    /// Its whole pod.
    Pod,
}

/// Progress of a pull.
#[derive(Debug, Clone, PartialEq)]
pub enum PullProgress {
    /// A layer is known, with its compressed size.
    Layer {
        /// Digest of the compressed layer.
        digest: Digest,
        /// Bytes to fetch.
        size: u64,
        /// Already in the store.
        present: bool,
    },
    /// Bytes of a layer have arrived.
    Bytes {
        /// Digest of the compressed layer.
        digest: Digest,
        /// Bytes so far.
        received: u64,
    },
    /// A layer is unpacked and verified.
    Done {
        /// Digest of the compressed layer.
        digest: Digest,
    },
}

/// Hands of the agent.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Every pod there is a record of, as it is now.
    async fn list(&self) -> Result<Vec<PodFacts>>;

    /// One pod as it is now; `None` when there is no record of it.
    async fn inspect(&self, pod: &PodUid) -> Result<Option<PodFacts>>;

    /// Hints that facts have changed. Called once.
    fn events(&self) -> tokio::sync::mpsc::UnboundedReceiver<RuntimeEvent>;

    /// The image that a reference stands for in the store, without asking a registry.
    async fn image(&self, reference: &ImageRef) -> Result<Option<ImageInfo>>;

    /// Makes an image available by its pull policy.
    async fn pull(&self, reference: &ImageRef, policy: PullPolicy, credentials: &PullCredentials) -> Result<ImageInfo>;

    /// What goes on with images at this moment.
    fn pulls(&self) -> Pulls {
        Pulls::default()
    }

    /// Whether a pod like this one could be made and started, its images being in the store: volumes, devices, users,
    /// programs, ports of the host. Makes nothing. Asked before an old pod is touched for a new one, so what pods of the
    /// same workload hold now is in nobody's way.
    async fn check_pod(&self, record: Arc<PodRecord>) -> Result<()>;

    /// Writes the record and makes namespaces, addresses and volumes. Publishes no port.
    async fn create_pod(&self, record: Arc<PodRecord>, files: BTreeMap<String, FileSet>) -> Result<Addresses>;

    /// Starts an attempt of a container; answers when its program runs. An attempt that was started already is left as
    /// it is. A program that cannot be started is an attempt that ended, with the reason in its exit; an error means
    /// that there was no attempt.
    async fn start_container(&self, start: ContainerStart) -> Result<ContainerFacts>;

    /// Sends a signal to a container's first process.
    async fn signal_container(&self, pod: &PodUid, container: &str, signal: i32) -> Result<()>;

    /// Asks a container to stop with its stop signal, and ends it with the whole of its cgroup when it still runs
    /// after `grace`; answers when it is gone. One that has ended already is a success. That it was told to end with
    /// its pod is written down with how it ended ([`spec::observed::Exit::stopped`]).
    async fn stop_container(&self, pod: &PodUid, container: &str, grace: Duration, scope: StopScope) -> Result<()>;

    /// Writes down that an attempt of a container is to be ended for being unhealthy.
    async fn mark_unhealthy(&self, pod: &PodUid, container: &str, attempt: u32) -> Result<()>;

    /// Runs a command in a running container and collects what it says (64 KiB at most). A transient failure is the
    /// host's and says nothing of the container; a permanent one is the container's: it has no such program, has
    /// reached a limit of its own, is gone.
    async fn exec(&self, pod: &PodUid, container: &str, command: &[String], timeout: Duration) -> Result<ExecResult>;

    /// A socket in the network of a pod that is not on the host's, to be connected to an address of this family.
    async fn socket(&self, pod: &PodUid, to: SocketAddr) -> std::io::Result<TcpSocket>;

    /// Writes down that a pod has failed as a whole. What has been written stays as it is.
    async fn fail_pod(&self, pod: &PodUid, failure: &PodFailure) -> Result<()>;

    /// What a pod takes on the disk. Reads every directory of it: not for often.
    async fn disk_usage(&self, pod: &PodUid) -> Result<DiskUsage>;

    /// Removes a pod whose containers have ended: namespaces, addresses, volumes that die with it, record.
    async fn remove_pod(&self, pod: &PodUid) -> Result<()>;

    /// Replaces the whole set of published ports in one atomic change; answers which could not be had. Those do not keep
    /// the others from being published.
    async fn publish(&self, ports: &BTreeMap<PortKey, PortTarget>) -> Result<Vec<PortFault>>;

    /// How many connections others have to a pod, or are making, as the kernel tracks them: those that came through a
    /// port of the host or a Service.
    async fn connections(&self, pod: &PodUid) -> Result<usize>;

    /// What Services can be given, and what they were given before. Asked for once, at the start.
    async fn service_state(&self) -> Result<ServiceState>;

    /// Replaces everything that Services open in one atomic change, and keeps its leases; answers which entrances could
    /// not be had. Those do not keep the others from being opened.
    async fn publish_services(&self, services: &ServiceSet) -> Result<Vec<ServiceFault>>;

    /// Makes a network that pods can join, unless it is there.
    async fn define_network(&self, network: &NetworkSpec) -> Result<()>;

    /// Tells pods the names of others, so that running containers know them at once.
    async fn set_names(&self, names: &NameTable) -> Result<()>;

    /// Swaps the content of a pod's generated volumes and tells containers that mount what has changed; with
    /// [`FilesChange::Compare`] it touches nothing. Whether anything differed. That somebody is to be told is not
    /// forgotten when the agent dies on the way: the next call does it.
    async fn update_files(&self, pod: &PodUid, files: BTreeMap<String, FileSet>, change: FilesChange) -> Result<bool>;

    /// Removes what is shared by all pods: bridge, rules, cgroup. Called when no pod is left.
    async fn teardown(&self) -> Result<()>;

    /// Readings of a running container.
    async fn stats(&self, pod: &PodUid, container: &str) -> Result<ContainerStats>;

    /// Counters of a pod's interface; `None` on the host's network.
    async fn network_stats(&self, pod: &PodUid) -> Result<Option<NetworkStats>>;

    /// Whether this path is there (a symlink counts), as a running container sees it.
    fn has_file(&self, pod: &PodFacts, container: &str, path: &Path) -> bool;

    /// The log file of an attempt's container, current one first.
    fn log_files(&self, pod: &PodUid, container: &str) -> Vec<PathBuf>;
}
