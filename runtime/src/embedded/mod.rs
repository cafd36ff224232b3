//! The runtime of the product: real containers on this host.
//!
//! Glue between images, containers, networks and volumes, and the only writer of pod records. Every call does its
//! work on blocking threads; the kernel and the records are the only state, so a new agent finds everything again.

mod config;
mod layout;
mod records;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use spec::image_ref::ImageRef;
use spec::observed::{
    Addresses, ContainerFacts, ContainerState, Exit, PodFacts, PodRecord, PodUid, PortKey, PortTarget,
};
use spec::pod::{PullPolicy, VolumeSource};
use tokio::sync::mpsc;

use crate::api::{
    ContainerStart, ContainerStats, ExecResult, FailureClass, FileSet, ImageInfo, NetworkStats, PortFault,
    PullCredentials, PullProgress, Result, Runtime, RuntimeError, RuntimeEvent,
};
use crate::container::{self, ContainerError, Mount, MountKind, ShimClient, cgroup};
use crate::exec;
use crate::image::pull::Puller;
use crate::image::registry::RegistryConfig;
use crate::image::store::{Image, Store};
use crate::network::{self, Network, NetworkConfig};
use crate::volume::{self, PreparedVolume, VolumeDirs};

pub use layout::Layout;

/// Bytes of output that are kept of a command in a container.
const EXEC_OUTPUT: usize = 64 << 10;

/// How the embedded runtime is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directories and cgroup.
    pub layout: Layout,
    /// This boot.
    pub boot_id: String,
    /// Network.
    pub network: NetworkConfig,
    /// Registries.
    pub registries: RegistryConfig,
    /// Bytes before a log is rotated.
    pub log_max_size: u64,
    /// Log files kept.
    pub log_max_files: u32,
    /// Take the locks and be the one agent of these directories. Commands that only look do not.
    pub exclusive: bool,
}

/// Why the runtime cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not root.
    #[error("mainstay must run as root: it makes namespaces, mounts and network interfaces")]
    NotRoot,
    /// A directory cannot be made.
    #[error("cannot make directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another agent has it.
    #[error("another mainstay agent uses {}", .0.display())]
    Locked(PathBuf),
    /// This program cannot be found again.
    #[error("cannot open /proc/self/exe")]
    SelfExe(#[source] std::io::Error),
    /// The image store.
    #[error("cannot open the image store")]
    Store(#[source] crate::image::store::StoreError),
    /// The network.
    #[error("cannot open the network records")]
    Network(#[source] network::NetworkError),
}

/// Real containers. Clones share everything.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    options: Options,
    store: Store,
    puller: Puller,
    network: Network,
    self_exe: File,
    hints: mpsc::UnboundedSender<RuntimeEvent>,
    /// Taken once by the agent's loop.
    listener: Mutex<Option<mpsc::UnboundedReceiver<RuntimeEvent>>>,
    /// Attempts whose shim is watched. Guards a set for the length of one look.
    watched: Mutex<std::collections::BTreeSet<(PodUid, String, u32)>>,
    /// Keep the directories ours; released by the kernel when the process ends.
    _locks: Vec<nix::fcntl::Flock<File>>,
}

fn failure(
    operation: impl Into<String>,
    class: FailureClass,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> RuntimeError {
    RuntimeError { operation: operation.into(), class, hint: None, source: source.into() }
}

fn transient(operation: impl Into<String>) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> RuntimeError {
    let operation = operation.into();
    move |source| failure(operation, FailureClass::Transient, source)
}

impl Embedded {
    /// Opens the directories.
    ///
    /// # Errors
    /// Not root, another agent, or a disk that refuses.
    pub fn open(options: Options) -> std::result::Result<Self, OpenError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(OpenError::NotRoot);
        }
        let mut locks = Vec::new();
        for (dir, mode) in [(&options.layout.data, 0o711), (&options.layout.run, 0o711)] {
            make_dir(dir, mode)?;
            if options.exclusive {
                locks.push(lock(dir)?);
            }
        }
        make_dir(&options.layout.pods(), 0o700)?;
        let store = Store::open(&options.layout.data.join("images")).map_err(OpenError::Store)?;
        let puller = Puller::new(store.clone(), options.registries.clone());
        let network = Network::open(options.network.clone()).map_err(OpenError::Network)?;
        let self_exe = File::open("/proc/self/exe").map_err(OpenError::SelfExe)?;
        let (hints, listener) = mpsc::unbounded_channel();
        let listener = Mutex::new(Some(listener));
        Ok(Self(Arc::new(Inner {
            options,
            store,
            puller,
            network,
            self_exe,
            hints,
            listener,
            watched: Mutex::default(),
            _locks: locks,
        })))
    }

    /// The image store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Where everything lies.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.0.options.layout
    }

    /// Makes an image available and tells how it goes on.
    ///
    /// # Errors
    /// See [`Runtime::pull`].
    pub async fn pull_with_progress(
        &self,
        reference: &ImageRef,
        policy: PullPolicy,
        credentials: &PullCredentials,
        progress: Option<mpsc::UnboundedSender<PullProgress>>,
    ) -> Result<ImageInfo> {
        let image = self
            .0
            .puller
            .pull(reference, policy, None, credentials, progress)
            .await
            .map_err(|error| error.into_runtime(reference))?;
        Ok(ImageInfo { reference: reference.clone(), digest: image.digest, size: image.size })
    }

    /// Runs blocking work off the async threads.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => Err(failure("finish a task", FailureClass::Transient, error)),
        }
    }

    /// Tells the loop when the shim of a running container ends, once for each attempt.
    fn watch(&self, uid: &PodUid, container: &str, attempt: u32) {
        let key = (uid.clone(), container.to_owned(), attempt);
        if !self.0.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            return;
        }
        let inner = Arc::downgrade(&self.0);
        let run = self.0.options.layout.attempt(uid, container, attempt).run;
        let event = RuntimeEvent::ContainerChanged(uid.clone(), container.to_owned());
        let hints = self.0.hints.clone();
        tokio::spawn(async move {
            if let Ok(stream) = ShimClient::connect(&run).map(ShimClient::into_stream)
                && stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = tokio::net::UnixStream::from_std(stream)
            {
                let mut buffer = [0u8; 64];
                loop {
                    if stream.readable().await.is_err() {
                        break;
                    }
                    match stream.try_read(&mut buffer) {
                        Ok(0) => break,
                        Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
                        Ok(_) | Err(_) => {}
                    }
                }
            }
            if let Some(inner) = inner.upgrade() {
                inner.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            }
            // Nobody listens any more when the agent ends.
            let _ = hints.send(event);
        });
    }
}

fn make_dir(path: &Path, mode: u32) -> std::result::Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| OpenError::Directory { path: path.to_owned(), source })
}

fn lock(dir: &Path) -> std::result::Result<nix::fcntl::Flock<File>, OpenError> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| OpenError::Directory { path: path.clone(), source })?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock)
        .map_err(|_| OpenError::Locked(dir.to_owned()))
}

impl Inner {
    fn layout(&self) -> &Layout {
        &self.options.layout
    }

    fn facts(&self, record: PodRecord) -> Result<PodFacts> {
        let uid = record.uid.clone();
        let mut containers = BTreeMap::new();
        for container in record.spec.all_containers() {
            let found = records::newest(self.layout(), &uid, &container.name, &self.options.boot_id)
                .map_err(|error| transient(format!("inspect container `{}`", container.name))(error.into()))?;
            if let Some((_, facts)) = found {
                containers.insert(container.name.clone(), facts);
            }
        }
        let pinned = self.layout().namespaces(&uid);
        let sandbox = if record.spec.host_network {
            self.layout().pod_run(&uid).join("ready").exists()
        } else {
            network::is_pinned(&pinned.join("net"))
        };
        // Networks are listed by name; the first the pod names is the one it is known by.
        let all = self.network.addresses(&uid);
        let first = record.spec.networks.first().and_then(|attachment| all.get(&attachment.network));
        let addresses = first.or_else(|| all.values().next()).copied().unwrap_or_default();
        Ok(PodFacts { record: Arc::new(record), sandbox, addresses, containers })
    }

    fn create_pod(&self, record: &PodRecord, files: &BTreeMap<String, FileSet>) -> Result<Addresses> {
        let operation = format!("create pod `{}`", record.name);
        let uid = &record.uid;
        let layout = self.layout();
        let record_path = layout.pod(uid).join("pod.json");
        records::write(&record_path, record).map_err(|error| transient(&operation)(error.into()))?;
        let spec = &record.spec;
        let pod_run = layout.pod_run(uid);
        make_dir(&pod_run, 0o711).map_err(|error| transient(&operation)(error.into()))?;
        let hostname = config::hostname(record);
        let network_failed = |error: network::NetworkError| transient(&operation)(error.into());
        let namespaces = layout.namespaces(uid);
        let addresses = if spec.host_network {
            if !spec.host_ipc {
                let request = network::NamespaceRequest { ipc: true, ..network::NamespaceRequest::default() };
                network::create_namespaces(&namespaces, &request).map_err(network_failed)?;
            }
            Addresses::default()
        } else {
            if !network::is_pinned(&namespaces.join("net")) {
                let request = network::NamespaceRequest {
                    net: true,
                    ipc: !spec.host_ipc,
                    uts: true,
                    hostname: Some(hostname.clone()),
                    domainname: spec.domainname.clone(),
                    sysctls: spec.sysctls.clone(),
                };
                network::create_namespaces(&namespaces, &request).map_err(network_failed)?;
            }
            if spec.no_network {
                Addresses::default()
            } else {
                self.network.attach(uid, &namespaces.join("net"), &spec.networks).map_err(network_failed)?
            }
        };
        self.write_etc(record, &hostname, addresses).map_err(|error| transient(&operation)(error.into()))?;
        self.prepare_volumes(record, files)?;
        std::fs::write(pod_run.join("ready"), b"").map_err(|error| transient(&operation)(error.into()))?;
        Ok(addresses)
    }

    /// /etc/hosts, /etc/resolv.conf and /etc/hostname of a pod.
    fn write_etc(&self, record: &PodRecord, hostname: &str, addresses: Addresses) -> std::io::Result<()> {
        let spec = &record.spec;
        let dir = self.layout().pod_run(&record.uid);
        let fqdn = spec
            .subdomain
            .as_ref()
            .map(|subdomain| format!("{hostname}.{subdomain}.{}.svc.cluster.local", record.workload.namespace));
        let gateway = self.network.gateway(spec.networks.first().map(|n| n.network.as_str())).unwrap_or_default();
        let hosts = network::hosts::HostsFile {
            addresses,
            hostname,
            fqdn: fqdn.as_deref(),
            aliases: &spec.host_aliases,
            gateway,
            neighbours: &[],
        };
        let hosts = if spec.host_network {
            let mut own = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            own.push_str(&network::hosts::render_aliases(&spec.host_aliases, gateway));
            own
        } else {
            hosts.render()
        };
        std::fs::write(dir.join("hosts"), hosts)?;
        let host = network::hosts::host_resolver(spec.host_network)?;
        std::fs::write(dir.join("resolv.conf"), network::hosts::pod_resolver(&host, &spec.dns).render())?;
        std::fs::write(dir.join("hostname"), network::hosts::render_hostname(hostname))
    }

    fn dirs(&self) -> VolumeDirs {
        VolumeDirs { data: self.layout().data.clone(), run: self.layout().run.clone() }
    }

    /// Makes all volumes of a pod ready, those of images included. Repeating it mends what is missing.
    fn prepare_volumes(
        &self,
        record: &PodRecord,
        files: &BTreeMap<String, FileSet>,
    ) -> Result<BTreeMap<String, PreparedVolume>> {
        let operation = format!("prepare the volumes of pod `{}`", record.name);
        let mut prepared =
            volume::prepare(record, files, &self.dirs()).map_err(|error| transient(&operation)(error.into()))?;
        for volume in &record.spec.volumes {
            let VolumeSource::Image { image, .. } = &volume.source else { continue };
            let image = match self.store.image(image) {
                Ok(Some(image)) => image,
                Ok(None) => {
                    let why = format!("image `{image}` of volume `{}` is not in the store", volume.name);
                    return Err(failure(operation, FailureClass::Transient, why));
                }
                Err(error) => return Err(transient(&operation)(error.into())),
            };
            let target = self.layout().pod_run(&record.uid).join("volumes").join(&volume.name);
            let source = image_root(&image, &target).map_err(|error| transient(&operation)(error.into()))?;
            let ready = PreparedVolume { source, read_only: true, size_limit: None, named: None };
            prepared.insert(volume.name.clone(), ready);
        }
        Ok(prepared)
    }

    fn volume_mounts(&self, start: &ContainerStart, image: &Image) -> Result<Vec<Mount>> {
        let (record, container) = (&start.pod, &start.container);
        let operation = format!("mount the volumes of container `{}`", container.name);
        let prepared = self.prepare_volumes(record, &start.files)?;
        let mut mounts = Vec::new();
        for (index, mount) in container.mounts.iter().enumerate() {
            if let Some(name) = prepared.get(&mount.volume).and_then(|volume| volume.named.as_ref())
                && mount.copy_up
            {
                let place = self.layout().pod_run(&record.uid).join("image");
                let root = image_root(image, &place).map_err(|error| transient(&operation)(error.into()))?;
                let copied = volume::copy_up(&self.layout().data, name, &root, &mount.path);
                // A mount that is left is found and removed with the pod.
                let _ = nix::mount::umount2(&place, nix::mount::MntFlags::MNT_DETACH);
                copied.map_err(|error| transient(&operation)(error.into()))?;
            }
            let sub_path = mount.sub_path.as_deref();
            let source =
                volume::source_for(&record.uid, &container.name, index, mount, sub_path, &prepared, &self.dirs())
                    .map_err(|error| transient(&operation)(error.into()))?;
            let read_only = mount.read_only || prepared.get(&mount.volume).is_some_and(|volume| volume.read_only);
            mounts.push(Mount {
                source,
                target: PathBuf::from(&mount.path),
                kind: MountKind::Bind,
                read_only,
                recursive_read_only: mount.recursive_read_only,
                propagation: mount.propagation,
            });
        }
        Ok(mounts)
    }

    fn start(&self, start: &ContainerStart) -> Result<ContainerFacts> {
        let name = &start.container.name;
        let operation = format!("start container `{name}` of pod `{}`", start.pod.name);
        let layout = self.layout();
        let uid = &start.pod.uid;
        let known = records::newest(layout, uid, name, &self.options.boot_id)
            .map_err(|error| transient(&operation)(error.into()))?;
        if let Some((_, facts)) = known {
            // The same attempt again, or one that must end first: the facts tell which.
            if facts.attempt == start.attempt || facts.is_running() {
                return Ok(facts);
            }
        }
        let image =
            self.store.image_by_digest(&start.image).map_err(|error| transient(&operation)(error.into()))?.ok_or_else(
                || {
                    let why = format!("image {} is no longer in the store", start.image);
                    failure(&operation, FailureClass::Transient, why)
                },
            )?;
        let attempt = layout.attempt(uid, name, start.attempt);
        self.drop_old_attempts(uid, name, start.attempt);
        let volumes = self.volume_mounts(start, &image)?;
        let permanent = |error: config::ConfigError| failure(&operation, FailureClass::Permanent, error);
        let config = config::container_config(config::Inputs {
            start,
            image: &image,
            layout,
            attempt: &attempt,
            volumes,
            log_max_size: self.options.log_max_size,
            log_max_files: self.options.log_max_files,
        })
        .map_err(permanent)?;
        let record = records::StartRecord {
            series: start.series,
            boot_id: self.options.boot_id.clone(),
            image: start.image,
            stop_signal: config::stop_signal(&start.container, Some(&image)).map_err(permanent)?,
            started: container::now(),
        };
        for dir in ["upper", "work"] {
            make_dir(&attempt.dir.join(dir), 0o755).map_err(|error| transient(&operation)(error.into()))?;
        }
        records::write(&attempt.start_file(), &record).map_err(|error| transient(&operation)(error.into()))?;
        let state = match container::start(&config, &self.self_exe) {
            Ok(running) => {
                for warning in &running.warnings {
                    tracing::warn!(pod = start.pod.name, container = name, "{warning}");
                }
                ContainerState::Running { pid: running.pid, started: running.started }
            }
            Err(ContainerError::Failed(fault)) => {
                self.failed_attempt(&attempt, &record, &fault).map_err(|error| transient(&operation)(error.into()))?
            }
            Err(error) => {
                // There was no attempt: the next one may have the same number.
                drop(std::fs::remove_file(attempt.start_file()));
                return Err(transient(&operation)(error.into()));
            }
        };
        Ok(ContainerFacts { attempt: start.attempt, series: start.series, state })
    }

    /// An attempt that never ran is one that ended (Kubernetes: StartError, exit code 128; a missing program 127).
    fn failed_attempt(
        &self,
        attempt: &layout::Attempt,
        start: &records::StartRecord,
        fault: &container::Failure,
    ) -> std::io::Result<ContainerState> {
        let exit = Exit {
            code: if fault.stage == "exec" { 127 } else { 128 },
            signal: None,
            oom: false,
            started: None,
            finished: container::now(),
            finished_unix: container::record::now_unix(),
            boot_id: start.boot_id.clone(),
            error: Some(fault.message.clone()),
            message: None,
        };
        let record = container::ExitRecord { version: 1, id: attempt.id.clone(), exit: exit.clone() };
        container::record::write_exit(&attempt.exit_file(), &record)?;
        Ok(ContainerState::Exited(exit))
    }

    /// Keeps the last dead attempt for its log; the ones before go, and its writable layer too.
    fn drop_old_attempts(&self, uid: &PodUid, name: &str, next: u32) {
        for number in layout::attempts(&self.layout().container(uid, name)) {
            let attempt = self.layout().attempt(uid, name, number);
            if number.saturating_add(1) < next {
                drop(std::fs::remove_dir_all(&attempt.dir));
            } else if number < next {
                drop(std::fs::remove_dir_all(attempt.dir.join("upper")));
                drop(std::fs::remove_dir_all(attempt.dir.join("work")));
            }
            if number < next {
                drop(std::fs::remove_dir_all(&attempt.run));
            }
        }
    }

    fn stop(&self, uid: &PodUid, name: &str, grace: Duration) -> Result<()> {
        let operation = format!("stop container `{name}`");
        let found = records::newest(self.layout(), uid, name, &self.options.boot_id)
            .map_err(|error| transient(&operation)(error.into()))?;
        let Some((attempt, facts)) = found else { return Ok(()) };
        if !facts.is_running() {
            return Ok(());
        }
        let signal = records::read::<records::StartRecord>(&attempt.start_file())
            .ok()
            .flatten()
            .map_or(libc::SIGTERM, |record| record.stop_signal);
        if let Ok(mut client) = ShimClient::connect(&attempt.run) {
            // A shim that is gone in between has ended: the record is looked at below.
            if !grace.is_zero() {
                drop(client.signal(signal));
                if client.wait_exit(Some(grace)).unwrap_or(false) {
                    return self.await_record(&attempt, &operation);
                }
            }
            drop(client.signal(libc::SIGKILL));
            container::kill_all(&attempt.cgroup).map_err(|error| transient(&operation)(error.into()))?;
            drop(client.wait_exit(Some(Duration::from_secs(10))));
        }
        self.await_record(&attempt, &operation)
    }

    /// The attempt of a container that runs.
    fn running(&self, uid: &PodUid, name: &str) -> Result<layout::Attempt> {
        let operation = format!("reach container `{name}`");
        let found = records::newest(self.layout(), uid, name, &self.options.boot_id)
            .map_err(|error| transient(&operation)(error.into()))?;
        match found {
            Some((attempt, facts)) if facts.is_running() => Ok(attempt),
            _ => Err(failure(&operation, FailureClass::Permanent, "it does not run")),
        }
    }

    /// The end is recorded when the shim has gone; one that was lost is recorded here.
    fn await_record(&self, attempt: &layout::Attempt, operation: &str) -> Result<()> {
        match container::inspect(&attempt.run, &attempt.exit_file(), &attempt.cgroup) {
            Ok(container::ContainerState::Running(_)) => {
                Err(failure(operation, FailureClass::Transient, "it still runs after SIGKILL"))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(transient(operation)(error.into())),
        }
    }

    fn remove_pod(&self, uid: &PodUid) -> Result<()> {
        let operation = format!("remove pod {uid}");
        let layout = self.layout();
        let mut errors: Vec<String> = Vec::new();
        let mut note = |result: std::result::Result<(), String>| errors.extend(result.err());
        let record = records::read::<PodRecord>(&layout.pod(uid).join("pod.json")).ok().flatten();
        for container in record.iter().flat_map(|record| record.spec.all_containers()) {
            for number in layout::attempts(&layout.container(uid, &container.name)) {
                let attempt = layout.attempt(uid, &container.name, number);
                note(container::cleanup(&attempt.run, &attempt.cgroup).map_err(|error| report(&error)));
            }
        }
        note(volume::remove_pod_volumes(uid, &self.dirs()).map_err(|error| report(&error)));
        note(self.network.detach(uid).map_err(|error| report(&error)));
        note(network::remove_namespaces(&layout.namespaces(uid)).map_err(|error| report(&error)));
        note(remove_cgroup(&layout.pod_cgroup(uid)));
        for dir in [layout.pod_run(uid), layout.pod(uid)] {
            match std::fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    note(Err(format!("cannot remove {}: {error}", dir.display())));
                }
                _ => {}
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(failure(operation, FailureClass::Transient, errors.join("; "))) }
    }

    fn teardown(&self) -> Result<()> {
        let mut errors: Vec<String> = Vec::new();
        errors.extend(self.network.teardown().err().map(|error| report(&error)));
        errors.extend(remove_cgroup(&self.layout().shim_cgroup()).err());
        errors.extend(remove_cgroup(&format!("/{}", self.layout().cgroup)).err());
        if errors.is_empty() {
            Ok(())
        } else {
            Err(failure("remove what pods shared", FailureClass::Transient, errors.join("; ")))
        }
    }
}

/// Where the files of an image are together, read-only: its one layer, or all of them mounted at `place`.
fn image_root(image: &Image, place: &Path) -> std::io::Result<PathBuf> {
    if let [only] = image.layers.as_slice() {
        return Ok(only.clone());
    }
    std::fs::create_dir_all(place)?;
    let lowers: Vec<String> = image.layers.iter().rev().map(|layer| layer.display().to_string()).collect();
    let options = format!("ro,lowerdir={}", lowers.join(":"));
    let mounted = std::fs::read_dir(place)?.next().is_some();
    if !mounted {
        let flags = nix::mount::MsFlags::MS_RDONLY;
        nix::mount::mount(Some("overlay"), place, Some("overlay"), flags, Some(options.as_str()))?;
    }
    Ok(place.to_owned())
}

fn remove_cgroup(path: &str) -> std::result::Result<(), String> {
    let layout = cgroup::Layout::detect().map_err(|error| report(&error))?;
    cgroup::remove(&layout, path).map_err(|error| report(&error))
}

/// An error with its causes.
fn report(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[async_trait]
impl Runtime for Embedded {
    async fn list(&self) -> Result<Vec<PodFacts>> {
        let pods = self
            .blocking(|inner| {
                let (found, damaged) = records::pods(inner.layout());
                for (uid, error) in damaged {
                    // A pod without a readable record cannot be kept going: what is left of it is removed.
                    let error = error.map(|error| report(&error)).unwrap_or_default();
                    tracing::warn!(pod = %uid, error, "pod without a record removed");
                    inner.remove_pod(&uid)?;
                }
                found.into_iter().map(|record| inner.facts(record)).collect::<Result<Vec<_>>>()
            })
            .await?;
        for pod in &pods {
            for (name, facts) in pod.containers.iter().filter(|(_, facts)| facts.is_running()) {
                self.watch(&pod.record.uid, name, facts.attempt);
            }
        }
        Ok(pods)
    }

    async fn inspect(&self, pod: &PodUid) -> Result<Option<PodFacts>> {
        let pod = pod.clone();
        self.blocking(move |inner| {
            let path = inner.layout().pod(&pod).join("pod.json");
            let record = records::read::<PodRecord>(&path)
                .map_err(|error| transient(format!("inspect pod {pod}"))(error.into()))?;
            record.map(|record| inner.facts(record)).transpose()
        })
        .await
    }

    fn events(&self) -> mpsc::UnboundedReceiver<RuntimeEvent> {
        let taken = self.0.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    async fn image(&self, reference: &ImageRef) -> Result<Option<ImageInfo>> {
        let reference = reference.clone();
        self.blocking(move |inner| {
            let image = inner
                .store
                .image(&reference)
                .map_err(|error| transient(format!("look image `{reference}` up"))(error.into()))?;
            Ok(image.map(|image| ImageInfo { digest: image.digest, size: image.size, reference }))
        })
        .await
    }

    async fn pull(&self, reference: &ImageRef, policy: PullPolicy, credentials: &PullCredentials) -> Result<ImageInfo> {
        self.pull_with_progress(reference, policy, credentials, None).await
    }

    async fn create_pod(&self, record: Arc<PodRecord>, files: BTreeMap<String, FileSet>) -> Result<Addresses> {
        self.blocking(move |inner| inner.create_pod(&record, &files)).await
    }

    async fn start_container(&self, start: ContainerStart) -> Result<ContainerFacts> {
        let (uid, name) = (start.pod.uid.clone(), start.container.name.clone());
        let facts = self.blocking(move |inner| inner.start(&start)).await?;
        if facts.is_running() {
            self.watch(&uid, &name, facts.attempt);
        }
        Ok(facts)
    }

    async fn signal_container(&self, pod: &PodUid, container: &str, signal: i32) -> Result<()> {
        let (pod, container) = (pod.clone(), container.to_owned());
        self.blocking(move |inner| {
            let operation = format!("signal container `{container}`");
            let attempt = inner.running(&pod, &container)?;
            ShimClient::connect(&attempt.run)
                .and_then(|mut client| client.signal(signal))
                .map_err(|error| transient(&operation)(error.into()))
        })
        .await
    }

    async fn stop_container(&self, pod: &PodUid, container: &str, grace: Duration) -> Result<()> {
        let (pod, container) = (pod.clone(), container.to_owned());
        self.blocking(move |inner| inner.stop(&pod, &container, grace)).await
    }

    async fn exec(&self, pod: &PodUid, container: &str, command: &[String], timeout: Duration) -> Result<ExecResult> {
        let (pod, container, command) = (pod.clone(), container.to_owned(), command.to_vec());
        self.blocking(move |inner| {
            let operation = format!("run a command in container `{container}`");
            let dir = inner.running(&pod, &container)?.run;
            let request = exec::ExecRequest { args: command, ..exec::ExecRequest::default() };
            let captured = exec::capture(&dir, &request, EXEC_OUTPUT, timeout, &inner.self_exe)
                .map_err(|error| transient(&operation)(error.into()))?;
            match captured.code {
                Some(code) => Ok(ExecResult { code, output: captured.output }),
                None => Err(failure(operation, FailureClass::Transient, format!("no end within {timeout:?}"))),
            }
        })
        .await
    }

    async fn remove_pod(&self, pod: &PodUid) -> Result<()> {
        let pod = pod.clone();
        self.blocking(move |inner| inner.remove_pod(&pod)).await
    }

    async fn publish(&self, ports: &BTreeMap<PortKey, PortTarget>) -> Result<Vec<PortFault>> {
        let ports = ports.clone();
        self.blocking(move |inner| {
            let faults = inner.network.publish(&ports).map_err(|error| transient("publish ports")(error.into()))?;
            Ok(faults
                .into_iter()
                .map(|fault| PortFault { key: fault.key().clone(), message: fault.to_string() })
                .collect())
        })
        .await
    }

    async fn update_files(&self, pod: &PodUid, files: BTreeMap<String, FileSet>) -> Result<()> {
        let pod = pod.clone();
        self.blocking(move |inner| {
            let operation = format!("update the files of pod {pod}");
            let record = records::read::<PodRecord>(&inner.layout().pod(&pod).join("pod.json"))
                .map_err(|error| transient(&operation)(error.into()))?;
            let Some(record) = record else { return Ok(()) };
            volume::update_files(&record, &files, &inner.dirs())
                .map(drop)
                .map_err(|error| transient(&operation)(error.into()))
        })
        .await
    }

    async fn teardown(&self) -> Result<()> {
        self.blocking(Inner::teardown).await
    }

    async fn stats(&self, pod: &PodUid, container: &str) -> Result<ContainerStats> {
        let (pod, container) = (pod.clone(), container.to_owned());
        self.blocking(move |inner| {
            let operation = format!("read the cgroup of container `{container}`");
            let attempts = layout::attempts(&inner.layout().container(&pod, &container));
            let Some(number) = attempts.last() else {
                return Err(failure(operation, FailureClass::Permanent, "it never ran"));
            };
            let attempt = inner.layout().attempt(&pod, &container, *number);
            let layout = cgroup::Layout::detect().map_err(|error| transient(&operation)(error.into()))?;
            cgroup::stats(&layout, &attempt.cgroup).map_err(|error| transient(&operation)(error.into()))
        })
        .await
    }

    async fn network_stats(&self, pod: &PodUid) -> Result<Option<NetworkStats>> {
        let pod = pod.clone();
        self.blocking(move |inner| {
            inner.network.stats(&pod).map_err(|error| transient("read interface counters")(error.into()))
        })
        .await
    }

    fn log_files(&self, pod: &PodUid, container: &str) -> Vec<PathBuf> {
        let layout = self.layout();
        let Some(number) = layout::attempts(&layout.container(pod, container)).last().copied() else {
            return Vec::new();
        };
        let log = layout.attempt(pod, container, number).log();
        let rotated = (1..100).map(|n| log.with_file_name(format!("log.{n}"))).take_while(|path| path.exists());
        std::iter::once(log.clone()).chain(rotated).collect()
    }
}
