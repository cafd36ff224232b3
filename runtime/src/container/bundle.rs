//! From a container's config to the OCI runtime specification that libcontainer works from.
//!
//! libcontainer gets namespaces, mounts, devices, masks and sysctls. User, capabilities, system call filter,
//! limits, working directory and environment are *not* in it: our own executor applies them right before exec
//! (see `shim::executor`), since libcontainer's order and error reports do not fit; the cgroup is made before.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde_json::{Value, json};
use spec::pod::Propagation;

use super::apparmor;
use super::caps::CapSet;
use super::cgroup::DeviceRule;
use super::config::{ContainerConfig, Mount, MountKind, Namespace};

/// What cannot be put into a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A device node of the host is missing or none.
    #[error("cannot use device {path}")]
    Device {
        /// Its path on the host.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is to be mounted is not there.
    #[error("cannot mount {path} at {target}")]
    Source {
        /// Its path on the host.
        path: PathBuf,
        /// Where it would appear.
        target: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A field asks for something that is not supported.
    #[error("{field}: {reason}")]
    Unsupported {
        /// The field of the manifest.
        field: &'static str,
        /// Why not.
        reason: String,
    },
}

/// Hidden by default (moby `oci/defaults.go`).
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// The same with what every processor tells of its temperature (moby `oci/defaults.go`).
fn masked() -> Vec<String> {
    let processors = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let throttles = processors.map(|entry| entry.path().join("thermal_throttle")).filter(|path| path.is_dir());
    let known = MASKED.iter().map(|path| (*path).to_owned());
    known.chain(throttles.map(|path| path.to_string_lossy().into_owned())).collect()
}

/// Not writable by default (moby `oci/defaults.go`).
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A device node in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    host: PathBuf,
    path: String,
    kind: char,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
}

fn node(host: &Path, inside: &str) -> io::Result<Node> {
    let meta = fs::metadata(host)?;
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a device node")),
    };
    let number = meta.rdev();
    Ok(Node {
        host: host.to_owned(),
        path: inside.to_owned(),
        kind,
        major: rustix::fs::major(number),
        minor: rustix::fs::minor(number),
        mode: meta.mode() & 0o777,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

/// Nodes below a directory of devices; a path may be one of them or hold several (Docker `--device DIR`).
fn nodes_below(host: &Path, inside: &str, found: &mut Vec<Node>) -> io::Result<()> {
    if !fs::metadata(host)?.is_dir() {
        found.push(node(host, inside)?);
        return Ok(());
    }
    for entry in fs::read_dir(host)?.flatten() {
        let name = entry.file_name();
        let path = format!("{inside}/{}", name.to_string_lossy());
        // Each container has its own of these; loops and stdio links are no devices.
        let own =
            inside == "/dev" && ["pts", "shm", "fd", "mqueue", "console", "ptmx", "tty"].iter().any(|own| name == *own);
        match entry.file_type() {
            _ if own => {}
            Ok(kind) if kind.is_dir() => nodes_below(&entry.path(), &path, found)?,
            Ok(kind) if kind.is_char_device() || kind.is_block_device() => {
                found.extend(node(&entry.path(), &path).ok())
            }
            _ => {}
        }
    }
    Ok(())
}

/// Device nodes and the rules that let the container use them.
fn devices(config: &ContainerConfig) -> Result<(Vec<Node>, Vec<DeviceRule>), BundleError> {
    let mut nodes = Vec::new();
    let mut rules = Vec::new();
    if config.security.privileged {
        nodes_below(Path::new("/dev"), "/dev", &mut nodes)
            .map_err(|source| BundleError::Device { path: "/dev".to_owned(), source })?;
    }
    for device in &config.devices {
        let inside = if device.container_path.is_empty() { &device.host_path } else { &device.container_path };
        let access = device.permissions.as_deref().unwrap_or("rwm");
        if access.is_empty() || access.chars().any(|c| !"rwm".contains(c)) {
            let reason = format!("{access:?} is not made of `r`, `w` and `m`");
            return Err(BundleError::Unsupported { field: "devices permissions", reason });
        }
        if !inside.starts_with("/dev/") {
            let reason = format!("{inside} is not below /dev");
            return Err(BundleError::Unsupported { field: "devices path", reason });
        }
        let mut found = Vec::new();
        nodes_below(Path::new(&device.host_path), inside, &mut found)
            .map_err(|source| BundleError::Device { path: device.host_path.clone(), source })?;
        rules.extend(found.iter().map(|node| DeviceRule::one(node.kind, node.major, node.minor, access)));
        nodes.retain(|old| found.iter().all(|new| new.path != old.path));
        nodes.append(&mut found);
    }
    for node in &mut nodes {
        if let Some(owner) = config.device_owners.get(&node.path) {
            node.uid = owner.uid.unwrap_or(node.uid);
            node.gid = owner.gid.unwrap_or(node.gid);
            node.mode = owner.mode.unwrap_or(node.mode);
        }
    }
    Ok((nodes, rules))
}

fn default_mounts(config: &ContainerConfig) -> Vec<Value> {
    let privileged = config.security.privileged;
    let access = if privileged { "rw" } else { "ro" };
    let mount = |target: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
    let shm = format!("size={}", config.shm_size.unwrap_or(64 << 20));
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
    ]
}

/// The mode of a directory of the container's root; `None` when there is none. No link leads out of it.
fn mode_of(root: &Path, path: &Path) -> Option<u32> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).ok()?;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&root, path, flags, Mode::empty(), how).ok()?;
    Some(rustix::fs::fstat(found).ok()?.st_mode & 0o7777)
}

fn mount(mount: &Mount, root: &Path) -> Value {
    let target = mount.target.display().to_string();
    match &mount.kind {
        MountKind::Bind => {
            let mut options = vec!["rbind"];
            if mount.read_only {
                options.push("ro");
            }
            if mount.recursive_read_only {
                options.push("rro");
            }
            json!({"destination": target, "type": "bind", "source": mount.source, "options": options})
        }
        MountKind::Tmpfs { size, options } => {
            // Docker's defaults for --tmpfs; a later option wins.
            let mut all = vec!["nosuid".to_owned(), "nodev".to_owned(), "noexec".to_owned()];
            all.extend(size.map(|bytes| format!("size={bytes}")));
            all.extend(options.iter().cloned());
            if mount.read_only {
                all.push("ro".to_owned());
            }
            // What the image has there keeps its mode (runc); what it does not have is as tmpfs makes it: open to all.
            if !all.iter().any(|option| option.starts_with("mode=")) {
                all.extend(mode_of(root, &mount.target).map(|mode| format!("mode={mode:o}")));
            }
            json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": all})
        }
    }
}

fn namespace(kind: &str, wanted: &Namespace) -> Option<Value> {
    match wanted {
        Namespace::New => Some(json!({"type": kind})),
        Namespace::Path(path) => Some(json!({"type": kind, "path": path})),
        Namespace::Host => None,
    }
}

/// The OCI specification of a container, and the device rules of its cgroup.
///
/// # Errors
/// Missing devices and fields that are not supported.
pub fn build(config: &ContainerConfig, all_caps: CapSet) -> Result<(Value, Vec<DeviceRule>), BundleError> {
    let privileged = config.security.privileged;
    let mut namespaces = vec![json!({"type": "mount"})];
    if let Some(users) = &config.namespaces.user {
        namespaces.push(json!({"type": "user", "path": users.path}));
    }
    if !config.security.host_cgroup_namespace {
        namespaces.push(json!({"type": "cgroup"}));
    }
    let n = &config.namespaces;
    for (kind, wanted) in [("network", &n.net), ("ipc", &n.ipc), ("uts", &n.uts), ("pid", &n.pid)] {
        namespaces.extend(namespace(kind, wanted));
    }

    let targets: Vec<&Path> = config.mounts.iter().map(|mount| mount.target.as_path()).collect();
    let mut mounts: Vec<Value> = default_mounts(config);
    mounts.retain(|default| {
        !targets.iter().any(|target| default["destination"].as_str().is_some_and(|own| Path::new(own) == *target))
    });
    let root = config.root();
    mounts.extend(config.mounts.iter().map(|one| mount(one, &root)));

    for mount in config.mounts.iter().filter(|mount| mount.kind == MountKind::Bind) {
        if let Err(source) = fs::metadata(&mount.source) {
            let (path, target) = (mount.source.clone(), mount.target.clone());
            return Err(BundleError::Source { path, target, source });
        }
    }
    let (nodes, rules) = devices(config)?;
    // Nobody makes device nodes in a user namespace. libcontainer mounts those of the host instead, by the same path only.
    let mapped = config.namespaces.user.is_some();
    let elsewhere = |node: &&Node| mapped && node.host != Path::new(&node.path);
    mounts.extend(
        nodes
            .iter()
            .filter(elsewhere)
            .map(|node| json!({"destination": node.path, "type": "bind", "source": node.host, "options": ["bind"]})),
    );
    let devices: Vec<Value> = nodes
        .iter()
        .filter(|node| !elsewhere(node))
        .map(|node| {
            json!({"path": node.path, "type": node.kind.to_string(), "major": node.major, "minor": node.minor,
                "fileMode": node.mode, "uid": node.uid, "gid": node.gid})
        })
        .collect();
    let mut all_rules = super::cgroup::default_rules(privileged);
    if !privileged {
        all_rules.extend(rules);
    }

    // Everything that this process has: the executor needs it, and drops it.
    let caps: Vec<String> =
        all_caps.numbers().filter_map(super::caps::name).map(|name| format!("CAP_{name}")).collect();
    let unmasked = privileged || config.security.unmasked_proc;
    let masked = if unmasked { Vec::new() } else { masked() };
    let read_only: &[&str] = if unmasked { &[] } else { &READ_ONLY };
    if config.mounts.iter().any(|mount| mount.propagation == Some(Propagation::Bidirectional)) {
        let reason = "Bidirectional is not supported; HostToContainer and None are".to_owned();
        return Err(BundleError::Unsupported { field: "mountPropagation", reason });
    }
    // libcontainer passes no propagation on to single mounts: they get that of the root they are cloned under.
    let slave = config.mounts.iter().any(|mount| mount.propagation == Some(Propagation::HostToContainer));
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "root": {"path": config.root(), "readonly": config.security.read_only_root},
        "mounts": mounts,
        "process": {
            "terminal": config.tty,
            "user": {"uid": 0, "gid": 0},
            "args": config.args,
            "cwd": "/",
            // Never used: without it libcontainer asks libc for root's home, which, inside the container's root and
            // with every capability, would load name service modules of the image.
            "env": ["HOME=/"],
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        },
        "linux": {
            "cgroupsPath": config.cgroup_path,
            "namespaces": namespaces,
            "devices": devices,
            "sysctl": config.sysctls,
            "maskedPaths": masked,
            "readonlyPaths": read_only,
            "rootfsPropagation": if slave { "slave" } else { "private" },
        },
    });
    if !config.hooks.is_empty() {
        spec["hooks"] = json!(config.hooks);
    }
    // Both are settings of the namespace: the host keeps its own, and so does a pod's that is joined.
    if n.uts == Namespace::New {
        spec["hostname"] = json!(config.hostname);
        if let Some(domain) = &config.domainname {
            spec["domainname"] = json!(domain);
        }
    }
    let unsupported = |reason| BundleError::Unsupported { field: "appArmorProfile", reason };
    if let Some(profile) = apparmor::profile(config).map_err(unsupported)? {
        spec["process"]["apparmorProfile"] = json!(profile);
    }
    Ok((spec, all_rules))
}

/// Directories below /dev that device nodes of a specification are in.
pub(crate) fn device_dirs(spec: &Value) -> BTreeSet<PathBuf> {
    let devices = spec["linux"]["devices"].as_array().into_iter().flatten();
    let parents =
        devices.filter_map(|device| device["path"].as_str()).flat_map(|path| Path::new(path).ancestors().skip(1));
    parents.filter(|dir| dir.parent().is_some_and(|parent| parent.starts_with("/dev"))).map(Path::to_owned).collect()
}

/// Where the bundle of a run directory is.
#[must_use]
pub fn bundle_dir(dir: &Path) -> PathBuf {
    dir.join("bundle")
}
