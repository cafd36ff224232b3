//! What a pod is, whatever it was written as: the canonical form that Kubernetes objects and Compose services are
//! lowered to, that records keep and that plans compare field by field.
//!
//! A field that the manifest leaves out stays `None` or empty here (*undefaulted*): defaults are applied where a
//! field is used, so a default that changes with a new version never looks like a change of the pod.
//! No secret value is ever in here, only its reference and keyed hash.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::image_ref::ImageRef;
use crate::secret::SecretMac;
use crate::time::Millis;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name { $($(#[$field_meta])* #[serde(skip_serializing_if = "is_default")] pub $field: $type,)* }
    };
}

mod resources;

pub use resources::{DiskLimit, Resources};

/// Whether a runtime of this name does what the built-in one does: it means that one, unless the configuration names a
/// program for it.
#[must_use]
pub fn is_built_in_runtime(name: &str) -> bool {
    ["runc", "crun", "youki", "io.containerd.runc.v2"].contains(&name)
}

record! {
    /// Everything that makes a pod what it is. Two pods with equal specs need no replacement.
    pub struct PodSpec {
        /// Host name inside; default the pod's name.
        pub hostname: Option<String>,
        /// Kubernetes `subdomain`.
        pub subdomain: Option<String>,
        /// `setHostnameAsFQDN`.
        pub hostname_as_fqdn: bool,
        /// `domainname` of Compose.
        pub domainname: Option<String>,
        /// Share the host's network namespace.
        pub host_network: bool,
        /// Share the host's process namespace.
        pub host_pid: bool,
        /// Share the host's IPC namespace.
        pub host_ipc: bool,
        /// `false`: the pod gets a user namespace of its own.
        pub host_users: Option<bool>,
        /// All containers in one process namespace, with `mainstay init` as PID 1.
        pub share_process_namespace: bool,
        /// Networks to join, in order; empty is the default network.
        pub networks: Vec<NetworkAttachment>,
        /// No network but loopback (`network_mode: none`).
        pub no_network: bool,
        /// Share the network namespace of another workload's pod (`network_mode: service:x`), by workload name.
        pub network_of: Option<String>,
        /// When containers are started again; default `Always`.
        pub restart_policy: Option<RestartPolicy>,
        /// Backoff and caps that differ from the defaults of the restart policy.
        pub restart_backoff: Option<RestartBackoff>,
        /// Time between the stop signal and SIGKILL; default 30 s (Kubernetes), 10 s (Compose sets it).
        pub termination_grace: Option<Millis>,
        /// The pod fails when it has run for that long.
        pub active_deadline: Option<Millis>,
        /// Run one after the other before the containers; with `restart_policy: Always` a native sidecar.
        pub init_containers: Vec<ContainerSpec>,
        /// Run together.
        pub containers: Vec<ContainerSpec>,
        /// What containers can mount, by name.
        pub volumes: Vec<Volume>,
        /// Lines for /etc/hosts.
        pub host_aliases: Vec<HostAlias>,
        /// Resolver settings.
        pub dns: DnsConfig,
        /// Kernel parameters of the pod's namespaces.
        pub sysctls: BTreeMap<String, String>,
        /// Group that owns volumes and is added to every container's groups.
        pub fs_group: Option<u32>,
        /// `OnRootMismatch` when true.
        pub fs_group_on_root_mismatch: bool,
        /// Further groups of every container.
        pub supplemental_groups: Vec<u32>,
        /// `supplementalGroupsPolicy: Strict`: the groups that the image gives the user are not added.
        pub supplemental_groups_strict: bool,
        /// Key of the credentials to pull with, in order of trying (`imagePullSecrets`, in the pod's namespace).
        pub image_pull_secrets: Vec<String>,
        /// Labels that the node must have.
        pub node_selector: BTreeMap<String, String>,
        /// Size of /dev/shm in bytes; default 64 MiB.
        pub shm_size: Option<u64>,
        /// cgroup settings of the pod as a whole.
        pub resources: Resources,
        /// Name of the runtime that runs its containers; the built-in one when `None`.
        pub runtime_class: Option<String>,
    }
}

record! {
    /// One container of a pod.
    pub struct ContainerSpec {
        /// Name, unique in the pod.
        pub name: String,
        /// The image as written, normalised.
        pub image: Option<ImageRef>,
        /// When to pull; default by the image's tag.
        pub pull_policy: Option<PullPolicy>,
        /// `os/arch[/variant]`; default the host's.
        pub platform: Option<String>,
        /// Replaces the image's ENTRYPOINT (and drops its CMD).
        pub command: Option<Vec<String>>,
        /// Replaces the image's CMD.
        pub args: Option<Vec<String>>,
        /// `$(VAR)` in command and args expands (Kubernetes); Compose interpolates before and says false.
        pub expand_args: bool,
        /// Working directory; default the image's.
        pub working_dir: Option<String>,
        /// Variables in order; later ones may refer to earlier ones.
        pub env: Vec<EnvVar>,
        /// Ports it listens on and where they are published.
        pub ports: Vec<Port>,
        /// Where volumes appear.
        pub mounts: Vec<VolumeMount>,
        /// Device nodes of the host.
        pub devices: Vec<Device>,
        /// CDI device names (`vendor.com/class=name`).
        pub cdi_devices: Vec<String>,
        /// Limits and requests.
        pub resources: Resources,
        /// User, capabilities and confinement.
        pub security: Security,
        /// Resource limits of processes.
        pub ulimits: BTreeMap<String, Ulimit>,
        /// Keep stdin open.
        pub stdin: bool,
        /// Close stdin after the first attach ends.
        pub stdin_once: bool,
        /// Give it a terminal.
        pub tty: bool,
        /// Run `mainstay init` as PID 1, which forwards signals and reaps.
        pub init: bool,
        /// Signal that asks it to stop; default the image's, else SIGTERM.
        pub stop_signal: Option<String>,
        /// Tells whether it lives.
        pub liveness: Option<Probe>,
        /// Tells whether it can serve.
        pub readiness: Option<Probe>,
        /// Holds the other two back until it has passed.
        pub startup: Option<Probe>,
        /// Compose: the HEALTHCHECK of the image does not count (`disable: true`, `test: NONE`).
        pub no_image_check: bool,
        /// Compose: numbers for the HEALTHCHECK of the image, of a `healthcheck` without a `test`.
        pub image_check: Option<crate::health::Numbers>,
        /// Runs right after the start.
        pub post_start: Vec<Handler>,
        /// Runs before the stop signal, inside the grace period.
        pub pre_stop: Vec<Handler>,
        /// Restart policy of this container alone; `Always` on an init container makes a sidecar.
        pub restart_policy: Option<RestartPolicy>,
        /// File whose content is the termination message; default /dev/termination-log.
        pub termination_message_path: Option<String>,
        /// Take the end of the log when the file is empty and the container failed.
        pub termination_message_from_log: bool,
        /// Log rotation that differs from 10 MiB x 5.
        pub log: Option<LogOptions>,
        /// Memory-backed mounts (`tmpfs:` of Compose): path and options.
        pub tmpfs: Vec<(String, String)>,
        /// Container-only sysctls (Compose); merged into the pod's.
        pub labels: BTreeMap<String, String>,
    }
}

/// When a container that ended is started again (Kubernetes PodSpec.restartPolicy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Whatever its exit code.
    Always,
    /// When its exit code is not zero.
    OnFailure,
    /// Not at all.
    Never,
}

record! {
    /// Restart timing that differs from Kubernetes' (10 s doubling to 300 s, reset after 10 min).
    pub struct RestartBackoff {
        /// First wait.
        pub initial: Option<Millis>,
        /// Longest wait.
        pub max: Option<Millis>,
        /// A run of this length starts the series afresh.
        pub reset_after: Option<Millis>,
        /// Give up after so many restarts.
        pub max_attempts: Option<u32>,
    }
}

/// When an image is pulled (Kubernetes Container.imagePullPolicy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Ask the registry before every start; equal digests are not fetched again.
    Always,
    /// When it is not in the store.
    IfNotPresent,
    /// Only what is in the store.
    Never,
}

record! {
    /// One variable.
    pub struct EnvVar {
        /// Its name.
        pub name: String,
        /// Where its value comes from.
        pub source: EnvSource,
    }
}

/// Where the value of a variable comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EnvSource {
    /// Written in the manifest; `$(VAR)` expands to variables before it.
    Template(String),
    /// Taken as it is: ConfigMap values, Compose values.
    Literal(String),
    /// A key of a Secret; the value is looked up when the container starts.
    Secret {
        /// Name of the Secret, in the pod's namespace.
        name: String,
        /// The key in it.
        key: String,
        /// Hash of the value it stood for; `None` when it was missing and optional.
        mac: Option<SecretMac>,
    },
    /// A fact of the pod, such as `status.podIP` (Kubernetes ObjectFieldSelector).
    Field(String),
    /// A limit or request of a container (Kubernetes ResourceFieldSelector).
    ResourceField {
        /// The container; its own when `None`.
        container: Option<String>,
        /// Such as `limits.memory`.
        resource: String,
        /// Unit to divide by, in the base unit times 1000 (`1` is 1000, `1Mi` is 1048576000).
        divisor_milli: u64,
    },
}

impl Default for EnvSource {
    fn default() -> Self {
        Self::Literal(String::new())
    }
}

record! {
    /// A port of a container.
    pub struct Port {
        /// Name that probes and Services can use.
        pub name: Option<String>,
        /// Port inside.
        pub container_port: u16,
        /// Port on the host, when published.
        pub host_port: Option<u16>,
        /// Host address to publish on; all when `None`.
        pub host_ip: Option<std::net::IpAddr>,
        /// Transport.
        pub protocol: Protocol,
    }
}

/// Transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

record! {
    /// A volume at a path of a container.
    pub struct VolumeMount {
        /// Name of the volume in the pod.
        pub volume: String,
        /// Absolute path inside.
        pub path: String,
        /// No writes through it.
        pub read_only: bool,
        /// `recursiveReadOnly`.
        pub recursive_read_only: bool,
        /// Only this path of the volume. `$(VAR)` expands when `sub_path_expr`.
        pub sub_path: Option<String>,
        /// Whether `sub_path` is a template.
        pub sub_path_expr: bool,
        /// `private`, `rslave` or `rshared`; default private.
        pub propagation: Option<Propagation>,
        /// Copy what the image has at the path into an empty volume (Compose named volumes, without `nocopy`).
        pub copy_up: bool,
    }
}

/// How mounts made later travel (Kubernetes VolumeMount.mountPropagation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Neither way.
    Private,
    /// From host to container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

record! {
    /// A named volume of a pod.
    pub struct Volume {
        /// Name in the pod.
        pub name: String,
        /// What it is.
        pub source: VolumeSource,
    }
}

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// A path of the host.
    HostPath {
        /// Absolute path.
        path: String,
        /// What must be there or is made (Kubernetes HostPathType).
        kind: HostPathKind,
    },
    /// Empty at first, gone with the pod.
    EmptyDir {
        /// In memory, counted to the container's memory limit.
        memory: bool,
        /// Bytes at the most.
        size_limit: Option<u64>,
    },
    /// Files from objects and facts; read-only, swapped atomically when their content changes.
    Files(FilesVolume),
    /// Data that outlives pods: a directory below the data directory, never deleted by reconciling.
    Named {
        /// Unique on the host, such as `namespace/claim` or `project_volume`.
        name: String,
    },
    /// The files of an image, read-only.
    Image {
        /// Which.
        image: ImageRef,
        /// When to pull it.
        pull_policy: Option<PullPolicy>,
    },
    /// A bind of a path that must exist or is created as a directory (Compose short syntax).
    Bind {
        /// Absolute path.
        path: String,
        /// Create it when missing.
        create: bool,
    },
}

impl Default for VolumeSource {
    fn default() -> Self {
        Self::EmptyDir { memory: false, size_limit: None }
    }
}

/// Kubernetes HostPathType.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum HostPathKind {
    /// No check.
    #[default]
    Any,
    /// Made as a directory (0755) when nothing is there.
    DirectoryOrCreate,
    /// Must be a directory.
    Directory,
    /// Made as an empty file (0644) when nothing is there.
    FileOrCreate,
    /// Must be a file.
    File,
    /// Must be a socket.
    Socket,
    /// Must be a character device.
    CharDevice,
    /// Must be a block device.
    BlockDevice,
}

record! {
    /// A volume of generated files: configMap, secret, downwardAPI, or several of them projected together.
    pub struct FilesVolume {
        /// Mode of files without one of their own; default 0644.
        pub default_mode: Option<u32>,
        /// Where the files come from, later ones winning.
        pub sources: Vec<FilesSource>,
        /// Compose configs and secrets: single files with an owner, mounted at their target.
        pub uid: Option<u32>,
        /// See `uid`.
        pub gid: Option<u32>,
    }
}

/// One source of generated files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FilesSource {
    /// Keys of a ConfigMap of the pod's namespace.
    ConfigMap {
        /// Its name.
        name: String,
        /// Absent is fine.
        optional: bool,
        /// Chosen keys; all when empty.
        items: Vec<FileItem>,
    },
    /// Keys of a Secret of the pod's namespace; the volume lives in memory.
    Secret {
        /// Its name.
        name: String,
        /// Absent is fine.
        optional: bool,
        /// Chosen keys; all when empty.
        items: Vec<FileItem>,
    },
    /// Facts of the pod.
    DownwardApi {
        /// Which fact goes where.
        items: Vec<DownwardItem>,
    },
}

record! {
    /// A key and the path it appears at.
    pub struct FileItem {
        /// Key of the object.
        pub key: String,
        /// Relative path.
        pub path: String,
        /// Mode of this file.
        pub mode: Option<u32>,
    }
}

record! {
    /// A fact of the pod as a file.
    pub struct DownwardItem {
        /// Relative path.
        pub path: String,
        /// What it contains.
        pub source: EnvSource,
        /// Mode of this file.
        pub mode: Option<u32>,
    }
}

record! {
    /// Names for an address in /etc/hosts.
    pub struct HostAlias {
        /// Address; `host-gateway` stands for the bridge's.
        pub ip: String,
        /// Names.
        pub hostnames: Vec<String>,
    }
}

record! {
    /// Resolver settings.
    pub struct DnsConfig {
        /// `ClusterFirst`, `Default`, `ClusterFirstWithHostNet` or `None`.
        pub policy: Option<DnsPolicy>,
        /// Name servers.
        pub nameservers: Vec<String>,
        /// Search domains.
        pub searches: Vec<String>,
        /// Options such as `ndots:2`.
        pub options: Vec<String>,
    }
}

/// Kubernetes DNSPolicy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsPolicy {
    /// Names of this node first, then the host's resolvers.
    ClusterFirst,
    /// The same, also with host network.
    ClusterFirstWithHostNet,
    /// The host's resolvers.
    Default,
    /// Only what `dnsConfig` says.
    None,
}

record! {
    /// A network a pod joins.
    pub struct NetworkAttachment {
        /// Network name, unique on the host.
        pub network: String,
        /// Names it answers to there.
        pub aliases: Vec<String>,
        /// Fixed IPv4 address.
        pub ipv4_address: Option<std::net::Ipv4Addr>,
        /// Fixed IPv6 address.
        pub ipv6_address: Option<std::net::Ipv6Addr>,
        /// Fixed MAC address.
        pub mac_address: Option<String>,
    }
}

record! {
    /// User, capabilities and confinement of a container.
    pub struct Security {
        /// Numeric user.
        pub run_as_user: Option<u32>,
        /// Numeric group.
        pub run_as_group: Option<u32>,
        /// `user[:group]` by name or number (Compose `user`).
        pub user: Option<String>,
        /// Refuse to run as user 0.
        pub run_as_non_root: Option<bool>,
        /// All capabilities, all devices, no seccomp, no masks.
        pub privileged: bool,
        /// Added capabilities, without `CAP_`; `ALL` for all.
        pub cap_add: Vec<String>,
        /// Dropped capabilities, without `CAP_`; `ALL` for all.
        pub cap_drop: Vec<String>,
        /// No writes to the root file system.
        pub read_only_root: bool,
        /// `false` sets no_new_privs.
        pub allow_privilege_escalation: Option<bool>,
        /// System call filter; default `RuntimeDefault`.
        pub seccomp: Option<Seccomp>,
        /// AppArmor profile: `unconfined`, `runtime/default` or a name.
        pub apparmor: Option<String>,
        /// `Unmasked` when true.
        pub unmasked_proc: bool,
        /// Further groups by name or number (Compose `group_add`).
        pub group_add: Vec<String>,
        /// `cgroup: host` of Compose.
        pub host_cgroup_namespace: bool,
    }
}

/// System call filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The built-in profile.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// A JSON profile of the host.
    Localhost(String),
}

record! {
    /// A device node of the host in a container.
    pub struct Device {
        /// Path on the host.
        pub host_path: String,
        /// Path inside.
        pub container_path: String,
        /// Of `r`, `w` and `m`; default all.
        pub permissions: Option<String>,
    }
}

record! {
    /// A process limit; -1 is unlimited.
    pub struct Ulimit {
        /// Soft limit.
        pub soft: i64,
        /// Hard limit.
        pub hard: i64,
    }
}

record! {
    /// Log rotation.
    pub struct LogOptions {
        /// Bytes before a file is rotated.
        pub max_size: Option<u64>,
        /// Files kept, the current one included.
        pub max_files: Option<u32>,
        /// Keep no log (`driver: none`).
        pub none: bool,
    }
}

record! {
    /// A health check (Kubernetes Probe, Compose healthcheck).
    pub struct Probe {
        /// What is done.
        pub handler: Handler,
        /// Wait before the first; default 0.
        pub initial_delay: Option<Millis>,
        /// Between two; default 10 s.
        pub period: Option<Millis>,
        /// Longest answer time; default 1 s.
        pub timeout: Option<Millis>,
        /// Successes in a row that count; default 1.
        pub success_threshold: Option<u32>,
        /// Failures in a row that count; default 3.
        pub failure_threshold: Option<u32>,
        /// Grace period when this probe ends the container.
        pub termination_grace: Option<Millis>,
        /// Compose: failures in this time after the start do not count.
        pub start_period: Option<Millis>,
        /// Compose: between two in the start period.
        pub start_interval: Option<Millis>,
    }
}

/// What a probe or hook does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Handler {
    /// Runs in the container; exit 0 is success.
    Exec(Vec<String>),
    /// HTTP GET; 200 to 399 is success.
    Http {
        /// Path with query.
        path: String,
        /// Port number or name.
        port: PortRef,
        /// Default the pod's address.
        host: Option<String>,
        /// TLS, without verification.
        https: bool,
        /// Request headers.
        headers: Vec<(String, String)>,
    },
    /// A connection can be opened.
    Tcp {
        /// Port number or name.
        port: PortRef,
        /// Default the pod's address.
        host: Option<String>,
    },
    /// gRPC health check protocol.
    Grpc {
        /// Port.
        port: u16,
        /// Service name asked for.
        service: Option<String>,
    },
    /// Waits (hooks only).
    Sleep(Millis),
}

impl Default for Handler {
    fn default() -> Self {
        Self::Exec(Vec::new())
    }
}

/// A port by number or by the name of a container port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    /// By number.
    Number(u16),
    /// By name.
    Name(String),
}

/// The digest that an image of a pod stood for when the pod was made, by container name; those of volumes by
/// [`crate::observed::volume_image`].
pub type ResolvedImages = BTreeMap<String, Digest>;

impl PodSpec {
    /// Init containers and containers, in that order.
    pub fn all_containers(&self) -> impl Iterator<Item = &ContainerSpec> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// The restart policy with its default.
    #[must_use]
    pub fn restart_policy(&self) -> RestartPolicy {
        self.restart_policy.unwrap_or(RestartPolicy::Always)
    }

    /// The grace period with its default of 30 s.
    #[must_use]
    pub fn termination_grace(&self) -> Millis {
        self.termination_grace.unwrap_or(Millis::from_secs(30))
    }

    /// Directories that outlive the pod and that it writes to: host paths and names of volumes.
    #[must_use]
    pub fn writable_data(&self) -> BTreeSet<&str> {
        self.volumes
            .iter()
            .filter(|volume| {
                self.all_containers().any(|c| c.mounts.iter().any(|m| m.volume == volume.name && !m.read_only))
            })
            .filter_map(|volume| match &volume.source {
                VolumeSource::HostPath { path, .. } | VolumeSource::Bind { path, .. } => Some(path.as_str()),
                VolumeSource::Named { name } => Some(name.as_str()),
                VolumeSource::EmptyDir { .. } | VolumeSource::Files(_) | VolumeSource::Image { .. } => None,
            })
            .collect()
    }

    /// Whether two pods write to the same data: pods of two versions of which that is so must never run side by side.
    #[must_use]
    pub fn shares_writable_data(&self, other: &Self) -> bool {
        !self.writable_data().is_disjoint(&other.writable_data())
    }
}

impl ContainerSpec {
    /// Whether it is a native sidecar when listed under init containers.
    #[must_use]
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == Some(RestartPolicy::Always)
    }

    /// The pull policy with Kubernetes' default by tag.
    #[must_use]
    pub fn pull_policy(&self) -> PullPolicy {
        self.pull_policy
            .unwrap_or_else(|| self.image.as_ref().map_or(PullPolicy::IfNotPresent, ImageRef::default_pull_policy))
    }
}
