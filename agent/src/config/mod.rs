//! The effective configuration and where each value comes from.
//!
//! Layers, later ones win: defaults, `/etc/mainstay/config.toml` (or `--config F`), `conf.d/*.toml` beside it in
//! order of name, `MAINSTAY_*` variables, flags. A key is one entry of [`keys::KEYS`]: file, environment, flags and
//! `mainstay config` all read that table. This module reads files and decides nothing about workloads.

mod archive;
mod git;
mod hook;
mod keys;
mod layers;
mod oci;
mod places;
mod runtimes;
mod tables;
mod values;
mod webhook;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use archive::ArchiveSource;
pub use git::{GitSource, Transport};
pub use hook::SyncHook;
pub use keys::{KEYS, Key};
pub use layers::{ConfigError, Entry, Layers, Loaded, Origin, Place, Problem, SET};
pub(crate) use layers::{drop_ins, is_drop_in, nearest};
pub use oci::OciSource;
pub use places::Places;
pub use runtimes::RuntimeProgram;
pub use webhook::Webhook;

/// Where the configuration file is looked for.
pub const DEFAULT_CONFIG: &str = "/etc/mainstay/config.toml";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How many workloads a new revision of the sources may remove without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovalBudget {
    /// So many may always go.
    pub min: u32,
    /// So many percent of the running ones may go.
    pub percent: u32,
}

impl Default for RemovalBudget {
    fn default() -> Self {
        Self { min: 3, percent: 30 }
    }
}

/// When images that nobody needs are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageGcSettings {
    /// Images go when their file system is so full, in per cent (kubelet's imageGCHighThresholdPercent).
    pub high_percent: u8,
    /// Until it is only so full (imageGCLowThresholdPercent).
    pub low_percent: u8,
    /// Images that were not used for so long go in any case (imageMaximumGCAge); `None`: age alone is no reason.
    pub max_age: Option<Duration>,
    /// How often the disk is looked at.
    pub period: Duration,
}

impl Default for ImageGcSettings {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, max_age: None, period: Duration::from_secs(300) }
    }
}

/// What the logs of all containers may take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLimit {
    /// See [`spec::logs::default_limit`].
    #[default]
    Auto,
    /// So many bytes.
    Bytes(u64),
    /// As much as they need.
    Unlimited,
}

/// Everything that can be set. Made by [`Layers::load`]; never changed afterwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Facts that survive a reboot.
    pub data_dir: PathBuf,
    /// Sockets, namespaces and secrets of this boot.
    pub run_dir: PathBuf,
    /// Directories (or files) with manifests.
    pub sources: Vec<PathBuf>,
    /// Git repositories with manifests.
    pub git: Vec<GitSource>,
    /// Archives with manifests.
    pub archives: Vec<ArchiveSource>,
    /// Artifacts in registries with manifests.
    pub oci: Vec<OciSource>,
    /// Where others may say that something has changed; nowhere when `None`.
    pub sync_hook: Option<SyncHook>,
    /// File with the identities of age that open encrypted manifests, or `credential:NAME`.
    pub age_identity: Option<PathBuf>,
    /// Who is told of events.
    pub webhooks: Vec<Webhook>,
    /// Where metrics and health are served; `None` serves them on the socket only. Port 0 takes a free one, which
    /// is then written to `<run_dir>/metrics.addr`.
    pub metrics_listen: Option<SocketAddr>,
    /// Address of an OpenTelemetry collector that gets traces of actions; nowhere when `None`.
    pub traces: Option<String>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// A `tracing` filter: `info`, `agent=debug,info`, ...
    pub log_level: String,
    /// Name of the bridge of pods.
    pub bridge: String,
    /// Subnet of pods in CIDR form; chosen beside the host's routes when `None`.
    pub subnet: Option<String>,
    /// Range of the virtual addresses of Services in CIDR form; chosen when `None`.
    pub service_subnet: Option<String>,
    /// Parent of all control groups.
    pub cgroup_parent: String,
    /// Name of this node, the host's name by default.
    pub node_name: String,
    /// Labels of this node.
    pub node_labels: BTreeMap<String, String>,
    /// Address of the metadata service that more labels come from, like EC2's; none when `None`.
    pub node_metadata: Option<String>,
    /// Sources are read again at least this often.
    pub resync: Duration,
    /// Registries by host: mirrors, plain http, certificates. Given to the runtime as it is.
    pub registries: toml::Table,
    /// OCI runtimes beside the built-in one, by the name that pods select them with.
    pub runtimes: BTreeMap<String, RuntimeProgram>,
    /// Containers started at the same time.
    pub max_parallel_starts: u32,
    /// Images pulled from one registry at the same time.
    pub max_parallel_pulls: u32,
    /// When images that nobody needs are removed.
    pub image_gc: ImageGcSettings,
    /// A container's log file is rotated at this size, in bytes.
    pub log_max_size: u64,
    /// Log files kept of each container.
    pub log_max_files: u32,
    /// How far between request and limit of memory a container is slowed down, in percent; 0 is never.
    pub memory_high_percent: u32,
    /// What the logs of all containers may take together.
    pub log_total_size: LogLimit,
    /// Pods may reach the cloud's metadata address.
    pub allow_metadata: bool,
    /// How many workloads may vanish at once.
    pub removal_budget: RemovalBudget,
    /// Generations that are kept.
    pub generations: u32,
    /// When changes are let through; always without any.
    pub maintenance_windows: Vec<spec::window::Window>,
    /// Stands in for the kernel's boot id; for tests of reboots.
    pub boot_id: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/mainstay"),
            run_dir: PathBuf::from("/run/mainstay"),
            sources: vec![PathBuf::from("/etc/mainstay/manifests")],
            git: Vec::new(),
            archives: Vec::new(),
            oci: Vec::new(),
            sync_hook: None,
            age_identity: None,
            webhooks: Vec::new(),
            metrics_listen: Some(SocketAddr::from(([127, 0, 0, 1], 9641))),
            traces: None,
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            bridge: "mainstay0".to_owned(),
            subnet: None,
            service_subnet: None,
            cgroup_parent: "mainstay".to_owned(),
            node_name: host_name(),
            node_labels: BTreeMap::new(),
            node_metadata: None,
            resync: Duration::from_secs(60),
            registries: toml::Table::new(),
            runtimes: BTreeMap::new(),
            max_parallel_starts: 8,
            max_parallel_pulls: 3,
            image_gc: ImageGcSettings::default(),
            log_max_size: 10 << 20,
            log_max_files: 5,
            memory_high_percent: 0,
            log_total_size: LogLimit::Auto,
            allow_metadata: false,
            removal_budget: RemovalBudget::default(),
            generations: 10,
            maintenance_windows: Vec::new(),
            boot_id: None,
        }
    }
}

impl Settings {
    /// Whether anything is followed that is no directory of this host.
    #[must_use]
    pub fn follows(&self) -> bool {
        !self.git.is_empty() || !self.archives.is_empty() || !self.oci.is_empty()
    }

    /// The socket of the API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("mainstay.sock")
    }

    /// The file that names the address of the metrics once it is bound.
    #[must_use]
    pub fn metrics_address_file(&self) -> PathBuf {
        self.run_dir.join("metrics.addr")
    }

    /// The file that names the address of the sync hook once it is bound.
    #[must_use]
    pub fn hook_address_file(&self) -> PathBuf {
        self.run_dir.join("hook.addr")
    }

    /// The record of the directories that the agent of this boot reads: those of its command line are in no file.
    #[must_use]
    pub fn sources_file(&self) -> PathBuf {
        self.run_dir.join("sources.json")
    }

    /// The directory of the event journal.
    #[must_use]
    pub fn events_dir(&self) -> PathBuf {
        self.data_dir.join("events")
    }
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests;
