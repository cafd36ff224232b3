//! Everything that one attempt of a container needs, fully resolved: what the shim is started with.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spec::pod::{Device, Propagation, Resources, Security, Ulimit};

use super::external::{External, Program};

/// Owner and mode of a device node; what is not given is as on the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceOwner {
    /// User.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// One attempt of a container. Written as JSON into its run directory (tmpfs, 0600) for the shim.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// Unique on the host: letters, digits and `_+-.` only, such as `<pod uid>-<container>-<attempt>`.
    pub id: String,
    /// Run directory of this attempt, made by [`super::start`]: this config, bundle, control socket, mount point.
    pub dir: PathBuf,
    /// Durable record of its end.
    pub exit_file: PathBuf,
    /// Where its log goes; nowhere when `None`.
    pub log_path: Option<PathBuf>,
    /// Bytes before the log is rotated; 0 is 10 MiB.
    pub log_max_size: u64,
    /// Log files kept, the current one included; 0 is 5.
    pub log_max_files: u32,
    /// The program that runs it; the built-in runtime when `None`.
    pub runtime: Option<Program>,
    /// Its root file system.
    pub rootfs: Rootfs,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Variables in order; a later one of the same name wins.
    pub env: Env,
    /// Working directory; `/` when empty. Made when missing, as Docker and runc do.
    pub cwd: String,
    /// Who it runs as.
    pub user: User,
    /// Host name, set when the uts namespace is new.
    pub hostname: String,
    /// NIS domain name, likewise.
    pub domainname: Option<String>,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// A mount of the host that the shim has no use for once it has opened `namespaces`: it takes it out of its own mount
    /// namespace. The runtime library reads the table of mounts dozens of times for each container.
    pub left_behind: Option<PathBuf>,
    /// cgroup below every hierarchy's root, such as `/mainstay/pod<uid>/<id>`. Owned by this attempt.
    pub cgroup_path: String,
    /// cgroup of the shim; stays in that of the caller when empty.
    pub shim_cgroup: String,
    /// What is mounted, in this order, over the defaults. A mount at the path of a default (`/dev/shm`) replaces it.
    pub mounts: Vec<Mount>,
    /// Limits.
    pub resources: Resources,
    /// Capabilities and confinement (`user` and `run_as_*` are resolved in `user`).
    pub security: Security,
    /// Device nodes of the host.
    pub devices: Vec<Device>,
    /// Limits of processes, by lower-case name without `RLIMIT_`.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Kernel parameters of new namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Badness for the OOM killer; 0 when `None`.
    pub oom_score_adj: Option<i32>,
    /// Device nodes, by path in the container, that are not owned as on the host.
    pub device_owners: BTreeMap<String, DeviceOwner>,
    /// OCI hooks by name, as devices of the host ask for them.
    pub hooks: serde_json::Map<String, serde_json::Value>,
    /// Bytes of /dev/shm; 64 MiB when `None`.
    pub shm_size: Option<u64>,
    /// Keep stdin open for attaching.
    pub stdin: bool,
    /// Close stdin when the first attached client is done.
    pub stdin_once: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// PID 1 is a small reaper that starts the program and forwards signals.
    pub init: bool,
    /// File whose content is the termination message; none when `None`.
    pub termination_message_path: Option<String>,
    /// Take the end of the log when that file is empty and the container failed.
    pub termination_message_from_log: bool,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// A directory that is used as it is.
    Plain(PathBuf),
    /// Layers and a writable directory, mounted by the shim in a mount namespace of its own.
    Overlay {
        /// Unpacked layers, lowest first.
        lowers: Vec<PathBuf>,
        /// Takes the writes.
        upper: PathBuf,
        /// overlayfs' work directory, on the same file system as `upper`.
        work: PathBuf,
    },
}

impl Default for Rootfs {
    fn default() -> Self {
        Self::Plain(PathBuf::new())
    }
}

/// Variables. They may hold secrets: `Debug` shows their number only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Env(pub Vec<(String, String)>);

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} variables]", self.0.len())
    }
}

/// Who a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Those of them that come from the manifest: another user in the same container has them too.
    pub manifest_gids: Vec<u32>,
    /// Home directory for HOME, when the environment has none; `/` when `None`.
    pub home: Option<String>,
}

/// Where a namespace comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// A new one.
    #[default]
    New,
    /// That of a pinned file.
    Path(PathBuf),
    /// The host's.
    Host,
}

/// The namespaces of a container. The mount namespace is always new.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Network.
    pub net: Namespace,
    /// System V and POSIX IPC.
    pub ipc: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// Processes.
    pub pid: Namespace,
    /// Users: that of a pinned file, which the others belong to; the host's when `None`.
    pub user: Option<Users>,
}

/// How many ids a user namespace has.
pub const ID_COUNT: u32 = 65_536;

/// A user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// Where it is pinned.
    pub path: PathBuf,
    /// The id of the host that is root in it; [`ID_COUNT`] ids from there on are its own.
    pub first: u32,
}

/// What a mount is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A path of the host.
    Bind,
    /// A file system in memory.
    Tmpfs {
        /// Bytes; half of the memory when `None`.
        size: Option<u64>,
        /// Mount options such as `noexec` or `mode=1777`.
        options: Vec<String>,
    },
}

/// Something mounted in the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Path on the host; unused for memory file systems.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// What it is.
    pub kind: MountKind,
    /// No writes through it.
    pub read_only: bool,
    /// Nor through mounts below it.
    pub recursive_read_only: bool,
    /// How later mounts travel; private when `None`.
    pub propagation: Option<Propagation>,
    /// Its ids are shifted already as the container's user namespace wants them.
    #[serde(default)]
    pub shifted: bool,
}

impl ContainerConfig {
    /// Where the shim reads it.
    pub(crate) fn file(dir: &Path) -> PathBuf {
        dir.join("config.json")
    }

    /// The container of another runtime; `None` for the built-in one.
    pub(crate) fn external(&self) -> Option<External<'_>> {
        self.runtime.as_ref().map(|program| External { program, dir: &self.dir, id: &self.id })
    }

    /// Where the root file system is (mounted).
    pub(crate) fn root(&self) -> PathBuf {
        match &self.rootfs {
            Rootfs::Plain(path) => path.clone(),
            Rootfs::Overlay { .. } => self.dir.join("rootfs"),
        }
    }
}
