//! What an attempt is started with: the container's spec over the image's configuration.
//!
//! Rules: Kubernetes API, Container.command and .args (a command without args drops the image's CMD); OCI image
//! specification, config.md (Entrypoint, Cmd, Env, User, WorkingDir, StopSignal).

use std::path::{Path, PathBuf};

use spec::health::{ImageCheck, Numbers};
use spec::observed::PodRecord;
use spec::pod::{ContainerSpec, PodSpec, Resources, Seccomp, Security};
use spec::time::Millis;
use spec::workload::WorkloadKind;

use crate::api::ContainerStart;
use crate::container::external::Program;
use crate::container::users::Memberships;
use crate::container::{ContainerConfig, Env, ID_COUNT, Mount, MountKind, Namespace, Namespaces, Rootfs, User, Users};
use crate::image::store::Image;

use super::Options;
use super::layout::{Attempt, Layout};

/// What is wrong with a container for its image.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    /// Neither the manifest nor the image says what to run.
    #[error("container `{0}` has nothing to run: the image has no ENTRYPOINT and no CMD, and the manifest no command")]
    NothingToRun(String),
    /// `runAsNonRoot` and user 0.
    #[error("container `{0}` must not run as root (runAsNonRoot), but its user is 0")]
    IsRoot(String),
    /// A named user cannot be proved not to be root by name alone; its number says.
    #[error("cannot resolve the user of container `{container}`")]
    User {
        /// The container.
        container: String,
        /// Why.
        source: crate::container::users::UserError,
    },
    /// A user or group that a user namespace does not have.
    #[error("container `{container}` runs with user or group {id}, and a pod with `hostUsers: false` has 0 to 65535")]
    NotMapped {
        /// The container.
        container: String,
        /// The id.
        id: u32,
    },
    /// A device of the host is missing.
    #[error("cannot give container `{container}` its devices")]
    Devices {
        /// The container.
        container: String,
        /// Why.
        source: crate::container::cdi::CdiError,
    },
    /// The full name is too long for the kernel.
    #[error("the full name `{0}` is longer than the 64 characters of a host name (setHostnameAsFQDN)")]
    LongName(String),
    /// The pod has no name.
    #[error("stop signal `{0}` does not exist")]
    Signal(String),
}

impl ConfigError {
    /// What helps against it.
    pub(super) fn hint(&self) -> Option<String> {
        let Self::Devices { source: crate::container::cdi::CdiError::Unknown { name, .. }, .. } = self else {
            return None;
        };
        Some(if name.starts_with("nvidia.com/gpu=") {
            "make the file with `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`, after the driver is installed"
                .to_owned()
        } else {
            "the maker of the device has a program that writes its CDI file".to_owned()
        })
    }
}

/// Program and arguments.
pub(super) fn argv(container: &ContainerSpec, image: &Image) -> Result<Vec<String>, ConfigError> {
    let config = image.config.config().as_ref();
    let from_image = |get: fn(&oci_spec::image::Config) -> &Option<Vec<String>>| {
        config.and_then(|config| get(config).clone()).unwrap_or_default()
    };
    let mut argv = match &container.command {
        Some(command) => command.clone(),
        None => from_image(|config| config.entrypoint()),
    };
    match (&container.args, &container.command) {
        (Some(args), _) => argv.extend(args.iter().cloned()),
        (None, Some(_)) => {}
        (None, None) => argv.extend(from_image(|config| config.cmd())),
    }
    if argv.is_empty() { Err(ConfigError::NothingToRun(container.name.clone())) } else { Ok(argv) }
}

/// Who it runs as.
fn user(pod: &PodSpec, container: &ContainerSpec, image: &Image, compose: bool) -> Result<User, ConfigError> {
    let security = &container.security;
    let image_user = image.config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
    let text = match (security.run_as_user, &security.user) {
        (Some(uid), _) => uid.to_string(),
        (None, Some(user)) => user.clone(),
        (None, None) => image_user,
    };
    let memberships = match (pod.supplemental_groups_strict, compose) {
        (true, _) => Memberships::None,
        (false, true) => Memberships::WithoutGroup,
        (false, false) => Memberships::Always,
    };
    let mut user = crate::container::users::resolve(&image.layers, &text, &security.group_add, memberships)
        .map_err(|source| ConfigError::User { container: container.name.clone(), source })?;
    if let Some(gid) = security.run_as_group {
        user.gid = gid;
    }
    if user.uid == 0 && security.run_as_non_root == Some(true) {
        return Err(ConfigError::IsRoot(container.name.clone()));
    }
    let of_the_pod = pod.fs_group.iter().chain(&pod.supplemental_groups);
    user.manifest_gids.extend(of_the_pod.clone());
    user.additional_gids.extend(of_the_pod);
    let ids = [user.uid, user.gid].into_iter().chain(user.additional_gids.iter().copied());
    if let Some(id) = ids.max().filter(|id| pod.host_users == Some(false) && *id >= ID_COUNT) {
        return Err(ConfigError::NotMapped { container: container.name.clone(), id });
    }
    Ok(user)
}

/// The variables: the image's, then the manifest's over them, and the host name as Docker and Kubernetes set it.
fn env(start: &ContainerStart, image: &Image, hostname: &str) -> Env {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match all.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => all.push((name.to_owned(), value.to_owned())),
    };
    set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    set("HOSTNAME", hostname);
    if start.container.tty {
        set("TERM", "xterm");
    }
    let from_image = image.config.config().as_ref().and_then(|config| config.env().clone()).unwrap_or_default();
    for line in &from_image {
        if let Some((name, value)) = line.split_once('=') {
            set(name, value);
        }
    }
    for (name, value) in &start.env {
        set(name, value);
    }
    Env(all)
}

/// The HEALTHCHECK of an image (Docker image specification 1.2, container config, `Healthcheck`: lengths are in
/// nanoseconds, and zero means that it is inherited, here from the defaults).
pub(super) fn image_check(image: &Image) -> Option<ImageCheck> {
    let config = image.config_json.get("config")?;
    let words = |value: Option<&serde_json::Value>| -> Vec<String> {
        let list = value.and_then(serde_json::Value::as_array).into_iter().flatten();
        list.filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let check = config.get("Healthcheck")?;
    let length = |key: &str| {
        let nanos = check.get(key).and_then(serde_json::Value::as_u64).filter(|nanos| *nanos > 0)?;
        Some(Millis((nanos / 1_000_000).max(1)))
    };
    let retries = check.get("Retries").and_then(serde_json::Value::as_u64).filter(|retries| *retries > 0);
    let numbers = Numbers {
        interval: length("Interval"),
        timeout: length("Timeout"),
        start_period: length("StartPeriod"),
        start_interval: length("StartInterval"),
        retries: retries.and_then(|retries| u32::try_from(retries).ok()),
    };
    let test = words(check.get("Test"));
    (!test.is_empty()).then(|| ImageCheck { test, shell: words(config.get("Shell")), numbers })
}

/// The signal that asks a container to stop: the manifest's, else the image's, else SIGTERM.
pub(super) fn stop_signal(container: &ContainerSpec, image: Option<&Image>) -> Result<i32, ConfigError> {
    let from_image =
        image.and_then(|image| image.config.config().as_ref().and_then(|config| config.stop_signal().clone()));
    let Some(text) = container.stop_signal.clone().or(from_image).filter(|text| !text.is_empty()) else {
        return Ok(libc::SIGTERM);
    };
    parse_signal(&text).ok_or(ConfigError::Signal(text))
}

/// `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`.
pub(super) fn parse_signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: i32 = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse().ok()? };
        return (0..=30).contains(&offset).then_some(34 + offset);
    }
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
    Some(signal as i32)
}

/// Whether a pod is of a Compose file.
fn is_compose(record: &PodRecord) -> bool {
    record.workload.kind == WorkloadKind::Service
}

/// Limits and preferences, with what Docker or the kubelet makes of those that are not written. A memory limit without
/// one for swap allows as much of it again with Docker, and no swap with Kubernetes.
fn resources(record: &PodRecord, container: &ContainerSpec, high_percent: u32) -> Resources {
    let mut resources = container.resources.clone();
    if is_compose(record) {
        if resources.memory_swap_limit.is_none() {
            let both = resources.memory_limit.map(|limit| i64::try_from(limit.saturating_mul(2)).unwrap_or(i64::MAX));
            resources.memory_swap_limit = both;
        }
        resources.single_process_oom_kill = true;
        resources.oom_score_adj.get_or_insert(0);
        return resources;
    }
    let node = rustix::system::sysinfo();
    let memory = node.totalram.saturating_mul(u64::from(node.mem_unit));
    resources.oom_score_adj.get_or_insert_with(|| spec::qos::oom_score_adj(&record.spec, container, memory));
    if record.spec.all_containers().any(|other| spec::qos::cpu_request(&other.resources) > 0) {
        resources.cpu_shares = Some(spec::qos::cpu_shares(spec::qos::cpu_request(&resources)));
    }
    resources.memory_high = spec::qos::memory_high(&record.spec, container, memory, high_percent);
    if high_percent == 0 {
        // The kernel spares what a service reserves; with Kubernetes that is part of MemoryQoS, as is `memory.high`.
        resources.memory_request = None;
    }
    resources
}

/// CPU shares of the pod beside others; `None` is the kernel's default.
pub(super) fn pod_cpu_shares(record: &PodRecord) -> Option<u64> {
    match record.spec.containers.first() {
        Some(service) if is_compose(record) => crate::container::cgroup::shares(&service.resources),
        _ => Some(spec::qos::pod_cpu_shares(&record.spec)),
    }
}

/// The host name of a pod. On the host's network it is the host's (kubelet, `generatePodSandboxConfig`), but for a
/// Compose file that gives another one.
#[must_use]
pub(super) fn hostname(record: &PodRecord) -> String {
    let own = record.spec.hostname.clone();
    if record.spec.host_network && (own.is_none() || !is_compose(record)) {
        return rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
    let name = own.unwrap_or_else(|| record.name.clone());
    // The kernel takes 64 bytes; Kubernetes cuts at 63.
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// The full name of a pod with a subdomain (Kubernetes, "DNS for Services and Pods").
#[must_use]
pub(super) fn full_name(record: &PodRecord) -> Option<String> {
    let subdomain = record.spec.subdomain.as_ref()?;
    Some(format!("{}.{subdomain}.{}.svc.cluster.local", hostname(record), record.workload.namespace))
}

/// What the kernel is told that the pod is called: its full name where `setHostnameAsFQDN` wants it.
///
/// # Errors
/// The full name is longer than the 64 bytes that the kernel takes (kubelet: such a pod does not start).
pub(super) fn kernel_hostname(record: &PodRecord) -> Result<String, ConfigError> {
    match full_name(record).filter(|_| record.spec.hostname_as_fqdn) {
        Some(name) if name.len() > 64 => Err(ConfigError::LongName(name)),
        Some(name) => Ok(name),
        None => Ok(hostname(record)),
    }
}

/// The security settings, with the place of a seccomp profile of the host: relative ones (Kubernetes knows no others)
/// are below `<data>/seccomp`, as they are below the kubelet's directory of that name.
fn security(container: &ContainerSpec, layout: &Layout) -> Security {
    let mut security = container.security.clone();
    if let Some(Seccomp::Localhost(path)) = &mut security.seccomp {
        *path = layout.data.join("seccomp").join(&path).to_string_lossy().into_owned();
    }
    security
}

/// What a container is started with.
pub(super) struct Inputs<'a> {
    pub start: &'a ContainerStart,
    pub image: &'a Image,
    pub layout: &'a Layout,
    pub attempt: &'a Attempt,
    pub volumes: Vec<Mount>,
    /// First id of the pod's user namespace.
    pub users: Option<u32>,
    pub runtime: Option<Program>,
    pub options: &'a Options,
}

/// Puts everything together.
pub(super) fn container_config(inputs: Inputs<'_>) -> Result<ContainerConfig, ConfigError> {
    let Inputs { start, image, layout, attempt, volumes, users, runtime, options } = inputs;
    let (container, record) = (&start.container, &start.pod);
    let spec = &record.spec;
    let hostname = kernel_hostname(record)?;
    let pod_run = layout.pod_run(&record.uid);
    let pinned = layout.namespaces(&record.uid);
    let image_dir = image.config.config().as_ref().and_then(|config| config.working_dir().clone());
    let mut mounts = vec![];
    for (file, target) in [("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname")]
    {
        let taken = |mount: &Mount| mount.target == Path::new(target);
        if !volumes.iter().any(taken) {
            let source = super::joined::etc_dir(layout, record, file).join(file);
            // As read-only as the root is (Docker; containerd for the kubelet).
            mounts.push(Mount { read_only: container.security.read_only_root, ..bind(source, target) });
        }
    }
    for (path, options) in &container.tmpfs {
        mounts.push(tmpfs(path, options));
    }
    mounts.extend(volumes);
    let cdi = crate::container::cdi::edits(&container.cdi_devices)
        .map_err(|source| ConfigError::Devices { container: container.name.clone(), source })?;
    mounts.extend(cdi.mounts);
    let mut devices = container.devices.clone();
    devices.extend(cdi.devices);
    let mut user = user(spec, container, image, is_compose(record))?;
    user.additional_gids.extend(cdi.gids);
    let mut env = env(start, image, &hostname);
    // What the manifest says wins over what a device asks for.
    let wished: Vec<(String, String)> =
        cdi.env.into_iter().filter(|(name, _)| env.0.iter().all(|(known, _)| known != name)).collect();
    env.0.extend(wished);
    let log = container.log.clone().unwrap_or_default();
    let own_network = !spec.host_network;
    let resources = resources(record, container, options.memory_high_percent);
    Ok(ContainerConfig {
        id: attempt.id.clone(),
        dir: attempt.run.clone(),
        exit_file: attempt.exit_file(),
        log_path: (!log.none).then(|| attempt.log()),
        log_max_size: log.max_size.unwrap_or(options.log_max_size),
        log_max_files: log.max_files.unwrap_or(options.log_max_files),
        runtime,
        rootfs: Rootfs::Overlay {
            lowers: image.layers.clone(),
            upper: attempt.dir.join("upper"),
            work: attempt.dir.join("work"),
        },
        args: argv(container, image)?,
        env,
        cwd: container.working_dir.clone().or(image_dir).filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".into()),
        user,
        hostname,
        domainname: spec.domainname.clone(),
        namespaces: Namespaces {
            net: if own_network { Namespace::Path(pinned.join("net")) } else { Namespace::Host },
            ipc: if spec.host_ipc { Namespace::Host } else { Namespace::Path(pinned.join("ipc")) },
            uts: match own_network {
                true => Namespace::Path(pinned.join("uts")),
                // Docker's; it begins with the host's name.
                false if is_compose(record) => Namespace::New,
                false => Namespace::Host,
            },
            pid: if spec.host_pid {
                Namespace::Host
            } else if spec.share_process_namespace {
                let pid = std::fs::read_to_string(pod_run.join("init/pid")).unwrap_or_default();
                Namespace::Path(PathBuf::from(format!("/proc/{pid}/ns/pid")))
            } else {
                Namespace::New
            },
            user: users.map(|first| Users { path: pinned.join("user"), first }),
        },
        left_behind: Some(layout.all_namespaces()),
        cgroup_path: attempt.cgroup.clone(),
        shim_cgroup: layout.shim_cgroup(),
        mounts,
        oom_score_adj: resources.oom_score_adj,
        resources,
        security: security(container, layout),
        devices,
        device_owners: cdi.owners,
        hooks: cdi.hooks,
        ulimits: container.ulimits.clone(),
        // The namespaces exist already: their parameters were set when they were made.
        sysctls: std::collections::BTreeMap::new(),
        shm_size: spec.shm_size,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        init: container.init,
        // Docker knows no such file.
        termination_message_path: (!is_compose(record))
            .then(|| container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".to_owned())),
        termination_message_from_log: container.termination_message_from_log,
    })
}

/// Places that the image declares as volumes and that lie in no mount: what a program writes there goes with its container,
/// where Docker would have made a volume without a name.
pub(super) fn without_volume<'v>(declared: &'v [String], mounts: &[Mount]) -> Vec<&'v str> {
    let mounted = |path: &&str| mounts.iter().any(|mount| Path::new(path).starts_with(&mount.target));
    declared.iter().map(String::as_str).filter(|path| path.starts_with('/') && !mounted(path)).collect()
}

fn bind(source: PathBuf, target: &str) -> Mount {
    Mount {
        source,
        target: PathBuf::from(target),
        kind: MountKind::Bind,
        read_only: false,
        recursive_read_only: false,
        propagation: None,
        shifted: false,
    }
}

/// A memory file system from `path` and comma-separated options (`size=64m,mode=1777`).
fn tmpfs(path: &str, options: &str) -> Mount {
    let mut size = None;
    let mut rest = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.strip_prefix("size=").and_then(|text| text.parse().ok()) {
            Some(bytes) => size = Some(bytes),
            None => rest.push(option.to_owned()),
        }
    }
    let read_only = rest.iter().any(|option| option == "ro");
    Mount {
        source: PathBuf::new(),
        target: PathBuf::from(path),
        kind: MountKind::Tmpfs { size, options: rest },
        read_only,
        recursive_read_only: false,
        propagation: None,
        shifted: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_of_an_image_that_nothing_is_mounted_at_are_named() {
        let declared = ["/var/lib/mysql", "/data/cache", "/datastore", "odd"].map(str::to_owned);
        let mounts = ["/data", "/var/lib/mysql/"].map(|target| bind(PathBuf::from("/x"), target));
        assert_eq!(without_volume(&declared, &mounts), ["/datastore"]);
        assert_eq!(without_volume(&declared, &[]), ["/var/lib/mysql", "/data/cache", "/datastore"]);
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMIN", 34), ("SIGQUIT", 3)]
        {
            assert_eq!(parse_signal(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "SIGNOPE", "RTMIN+99", "-1"] {
            assert_eq!(parse_signal(text), None, "{text}");
        }
    }
}
