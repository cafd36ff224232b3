//! The runtime of the product: real containers on this host.
//!
//! Glue between images, containers, networks and volumes, and the only writer of pod records. Every call does its
//! work on blocking threads; the kernel and the records are the only state, so a new agent finds everything again.

mod calls;
mod check;
mod config;
mod etc;
mod foreign;
mod id_range;
mod image_volume;
mod joined;
mod layout;
pub mod logs;
mod program;
mod records;
mod volumes;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use spec::causes::chain;
use spec::image_ref::ImageRef;
use spec::observed::{
    Addresses, ContainerFacts, ContainerState, Exit, PodFacts, PodRecord, PodUid, PortKey, PortTarget,
};
use spec::pod::PullPolicy;
use spec::services::ServiceSet;
use tokio::sync::mpsc;

use crate::api::{
    ContainerStart, FailureClass, FileSet, ImageInfo, PortFault, PullCredentials, PullProgress, Result, RuntimeError,
    RuntimeEvent, ServiceFault, StopScope,
};
use crate::container::external::Program;
use crate::container::{self, ContainerError, ShimClient, apparmor, cgroup};
use crate::dns::Responder;
use crate::image::artifact::Artifacts;
use crate::image::pull::Puller;
use crate::image::registry::RegistryConfig;
use crate::image::store::Store;
use crate::network::{self, Network, NetworkConfig};
use crate::volume::{self};

pub use layout::{Attempt, Layout, container_directory};

/// Bytes of output that are kept of a command in a container.
const EXEC_OUTPUT: usize = 64 << 10;

/// Record of a pod that has failed as a whole.
const FAILED: &str = "failed.json";

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
    /// How far between request and limit of memory a container is slowed down, in percent; 0 is never
    /// ([`spec::qos::memory_high`]).
    pub memory_high_percent: u32,
    /// Other OCI runtimes that pods may name.
    pub runtimes: BTreeMap<String, Program>,
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
    /// Somebody else may have changed rules or bridges since they were looked at.
    network_suspect: AtomicBool,
    /// What others do to the network, as far as it was told.
    told_foreign: Mutex<foreign::Told>,
    /// The names that pods were told last. Guards the hosts files, too, for as long as they are written.
    names: Mutex<spec::names::NameTable>,
    /// Tells pods names; made when the agent's loop starts.
    responder: std::sync::OnceLock<Responder>,
    /// Makes sockets in pods' networks; started with the first probe.
    sockets: Mutex<Option<Arc<network::Sockets>>>,
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

/// A container that does not fit its image or this host.
fn config_failure(operation: &str, error: config::ConfigError) -> RuntimeError {
    let hint = error.hint();
    RuntimeError { hint, ..failure(operation, FailureClass::Permanent, error) }
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
        let network = Network::open(options.network.clone()).map_err(OpenError::Network)?;
        let self_exe = File::open("/proc/self/exe").map_err(OpenError::SelfExe)?;
        if options.exclusive
            && let Err(error) = apparmor::load_default(&options.layout.run.join("apparmor"))
        {
            tracing::warn!(
                reason = chain(&error),
                "containers run without an AppArmor profile; install the package apparmor, then start the agent again"
            );
        }
        let (hints, listener) = mpsc::unbounded_channel();
        let told = hints.clone();
        // Without a loop nobody waits to be told.
        let began = move |pull| drop(told.send(RuntimeEvent::PullBegan(pull)));
        let puller = Puller::telling(store.clone(), options.registries.clone(), Box::new(began));
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
            network_suspect: AtomicBool::new(true),
            told_foreign: Mutex::default(),
            names: Mutex::default(),
            responder: std::sync::OnceLock::new(),
            sockets: Mutex::default(),
            _locks: locks,
        })))
    }

    /// The image store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Fetches artifacts, over the connections and logins of images.
    #[must_use]
    pub fn artifacts(&self) -> Artifacts {
        self.0.puller.artifacts()
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
        Ok(ImageInfo { reference: reference.clone(), digest: image.digest, size: image.size, fetched: 0 })
    }

    fn sockets(&self) -> std::io::Result<Arc<network::Sockets>> {
        let mut sockets = self.0.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        match &*sockets {
            Some(sockets) => Ok(Arc::clone(sockets)),
            None => Ok(Arc::clone(sockets.insert(Arc::new(network::Sockets::start()?)))),
        }
    }

    /// Runs blocking work off the async threads.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => Err(failure("finish a task", FailureClass::Transient, error)),
        }
    }

    /// Makes the responder, which serves when names are known.
    fn start_responder(&self) {
        let inner = Arc::downgrade(&self.0);
        let who_is = move |address| inner.upgrade().and_then(|inner| inner.who_is(address));
        self.0.responder.get_or_init(|| Responder::new(Box::new(who_is)));
    }

    /// Tells the loop when somebody else changes rules or bridges. Blocks nobody: a thread waits for the kernel.
    fn watch_network(&self) {
        let (inner, hints) = (Arc::downgrade(&self.0), self.0.hints.clone());
        let suspect = move |inner: &std::sync::Weak<Inner>| {
            inner.upgrade().is_some_and(|inner| {
                inner.network_suspect.store(true, Ordering::Release);
                hints.send(RuntimeEvent::NetworkChanged).is_ok()
            })
        };
        let wait = move || {
            let changes = inner.upgrade().map(|inner| inner.network.watch());
            let mut changes = match changes {
                Some(Ok(changes)) => changes,
                Some(Err(error)) => {
                    tracing::warn!(error = chain(&error), "changes of the network are seen at the next resync only");
                    return;
                }
                None => return,
            };
            while changes.blocking_next().is_some() && suspect(&inner) {}
        };
        if let Err(error) = std::thread::Builder::new().name("network".to_owned()).spawn(wait) {
            tracing::warn!(%error, "changes of the network are seen at the next resync only");
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
        // The mark is made last: a pod that was made halfway is made again.
        let sandbox = self.layout().pod_run(&uid).join("ready").exists()
            && (record.spec.host_network || network::is_pinned(&pinned.join("net")));
        let addresses = self.addresses_of(&uid, &record);
        let failed = records::read(&self.layout().pod(&uid).join(FAILED))
            .map_err(|error| transient(format!("inspect pod {uid}"))(error.into()))?;
        Ok(PodFacts { record: Arc::new(record), sandbox, addresses, containers, failed })
    }

    fn create_pod(&self, record: &PodRecord, files: &BTreeMap<String, FileSet>) -> Result<Addresses> {
        let operation = format!("create pod `{}`", record.name);
        let uid = &record.uid;
        let layout = self.layout();
        let record_path = layout.pod(uid).join("pod.json");
        records::write(&record_path, record).map_err(|error| transient(&operation)(error.into()))?;
        let spec = &record.spec;
        self.runtime_of(record, &operation)?;
        let pod_run = layout.pod_run(uid);
        make_dir(&pod_run, 0o711).map_err(|error| transient(&operation)(error.into()))?;
        let hostname =
            config::kernel_hostname(record).map_err(|error| failure(&operation, FailureClass::Permanent, error))?;
        let network_failed = |error: network::NetworkError| transient(&operation)(error.into());
        network::mount_namespaces(&layout.all_namespaces()).map_err(network_failed)?;
        if let Some(shares) = config::pod_cpu_shares(record) {
            cgroup::Layout::detect()
                .and_then(|cgroups| cgroup::set_shares(&cgroups, &layout.pod_cgroup(uid), shares))
                .map_err(|error| transient(&operation)(error.into()))?;
        }
        let namespaces = layout.namespaces(uid);
        let addresses = if spec.host_network {
            if !spec.host_ipc {
                // All of them are of the IPC namespace: validation refuses those of the network here.
                let sysctls = spec.sysctls.clone();
                let request = network::NamespaceRequest { ipc: true, sysctls, ..network::NamespaceRequest::default() };
                network::create_namespaces(&namespaces, &request, None).map_err(network_failed)?;
            }
            Addresses::default()
        } else if let Some(service) = &spec.network_of {
            self.join_network(record, service, hostname.clone())?
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
                let first = (spec.host_users == Some(false)).then(|| id_range::choose(layout, uid)).transpose();
                let first = first.map_err(|error| transient(&operation)(error.into()))?;
                let users = first.map(|first| network::UserRange { first, self_exe: &self.self_exe });
                network::create_namespaces(&namespaces, &request, users.as_ref()).map_err(network_failed)?;
            }
            if spec.no_network {
                Addresses::default()
            } else {
                let addresses = self.network.attach(uid, &namespaces.join("net"), &spec.networks);
                self.tell_of_new_bridges();
                addresses.map_err(network_failed)?
            }
        };
        if spec.share_process_namespace {
            let dir = pod_run.join("init");
            let running = std::fs::read_to_string(dir.join("pid")).ok().and_then(|pid| pid.parse::<u32>().ok());
            if running.and_then(container::record::start_time).is_none() {
                let users = (spec.host_users == Some(false)).then(|| namespaces.join("user"));
                let init = container::start_pod_init(&dir, &layout.init_cgroup(uid), users.as_deref(), &self.self_exe)
                    .map_err(|error| transient(&operation)(error.into()))?;
                std::fs::write(dir.join("pid"), init.pid.to_string())
                    .map_err(|error| transient(&operation)(error.into()))?;
            }
        }
        self.listen_for_names();
        self.write_etc(record, &hostname, addresses).map_err(|error| transient(&operation)(error.into()))?;
        self.prepare_volumes(record, files)?;
        std::fs::write(pod_run.join("ready"), b"").map_err(|error| transient(&operation)(error.into()))?;
        Ok(addresses)
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
        let permanent = |error| config_failure(&operation, error);
        let config = config::container_config(config::Inputs {
            start,
            image: &image,
            layout,
            attempt: &attempt,
            volumes,
            users: id_range::of(layout, uid).map_err(|error| transient(&operation)(error.into()))?,
            runtime: self.runtime_of(&start.pod, &operation)?,
            options: &self.options,
        })
        .map_err(permanent)?;
        let declared = image.config.config().as_ref().and_then(|config| config.volumes().clone()).unwrap_or_default();
        for path in config::without_volume(&declared, &config.mounts).iter().filter(|_| start.attempt == 0) {
            tracing::warn!(
                pod = start.pod.name,
                container = name,
                path,
                "the image has a volume where nothing is mounted: what is written there goes with the container"
            );
        }
        let record = records::StartRecord {
            series: start.series,
            boot_id: self.options.boot_id.clone(),
            image: start.image,
            stop_signal: config::stop_signal(&start.container, Some(&image)).map_err(permanent)?,
            started: container::now(),
            image_check: config::image_check(&image),
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
        let image_check = record.image_check;
        Ok(ContainerFacts { image_check, ..ContainerFacts::new(start.attempt, start.series, state) })
    }

    /// The runtime that a pod names; `None` is the built-in one.
    fn runtime_of(&self, record: &PodRecord, operation: &str) -> Result<Option<Program>> {
        let Some(name) = &record.spec.runtime_class else { return Ok(None) };
        match self.options.runtimes.get(name) {
            // It may be installed at any time.
            Some(program) => match program.fault() {
                Some(why) => Err(failure(operation, FailureClass::Transient, why)),
                None => Ok(Some(program.clone())),
            },
            None if spec::pod::is_built_in_runtime(name) => Ok(None),
            None => {
                let known: Vec<&str> = self.options.runtimes.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let why = format!("no runtime `{name}` in the configuration (`[runtimes.{name}]`): it has {known}");
                Err(failure(operation, FailureClass::Permanent, why))
            }
        }
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
            stopped: false,
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

    fn stop(&self, uid: &PodUid, name: &str, grace: Duration, scope: StopScope) -> Result<()> {
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
        let send = |client: &mut ShimClient, signal| match scope {
            StopScope::Container => client.signal(signal),
            StopScope::Pod => client.stop(signal),
        };
        if let Ok(mut client) = ShimClient::connect(&attempt.run) {
            // A shim that is gone in between has ended: the record is looked at below.
            if !grace.is_zero() {
                drop(send(&mut client, signal));
                if client.wait_exit(Some(grace)).unwrap_or(false) {
                    return self.await_record(&attempt, &operation);
                }
            }
            drop(send(&mut client, libc::SIGKILL));
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
                note(container::cleanup(&attempt.run, &attempt.cgroup).map_err(|error| chain(&error)));
            }
        }
        if record.as_ref().is_some_and(|record| record.spec.share_process_namespace) {
            let dir = layout.pod_run(uid).join("init");
            note(container::cleanup(&dir, &layout.init_cgroup(uid)).map_err(|error| chain(&error)));
        }
        note(volume::remove_pod_volumes(uid, &self.dirs()).map_err(|error| chain(&error)));
        // The namespace first: with it the pod's end of each interface is gone at once, and detaching has less to do.
        note(network::remove_namespaces(&layout.namespaces(uid)).map_err(|error| chain(&error)));
        note(self.network.detach(uid).map_err(|error| chain(&error)));
        for attachment in record.iter().flat_map(|record| &record.spec.networks) {
            // The last pod of a network takes it along; with others on it this is refused, as it should be.
            drop(self.network.remove_network(&attachment.network));
        }
        note(remove_cgroup(&layout.pod_cgroup(uid)));
        // The record goes first: what is left of a removal that was cut short is no pod, instead of one that has
        // forgotten how its containers ended.
        drop(std::fs::remove_file(layout.pod(uid).join("pod.json")));
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

    /// Publishes ports, after mending bridges and rules that are not as they should be.
    fn publish(&self, ports: &BTreeMap<PortKey, PortTarget>) -> Result<Vec<PortFault>> {
        let failed = |error: network::NetworkError| transient("publish ports")(error.into());
        self.mend_network(!ports.is_empty()).map_err(failed)?;
        let faults = self.network.publish(ports).map_err(failed)?;
        Ok(faults.into_iter().map(|fault| PortFault { key: fault.key().clone(), message: fault.to_string() }).collect())
    }

    /// Opens Services, after mending as for ports.
    fn publish_services(&self, services: &ServiceSet) -> Result<Vec<ServiceFault>> {
        let failed = |error: network::NetworkError| transient("open the ports of Services")(error.into());
        self.mend_network(!services.entrances.is_empty()).map_err(failed)?;
        let faults = self.network.publish_services(services).map_err(failed)?;
        let told = |(entrance, fault): (_, network::PortFault)| ServiceFault { entrance, message: fault.to_string() };
        Ok(faults.into_iter().map(told).collect())
    }

    /// After somebody else may have changed rules or bridges: compares, mends, and connects pods that were cut off.
    fn mend_network(&self, in_use: bool) -> std::result::Result<(), network::NetworkError> {
        if !in_use || !self.network_suspect.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let state = self.network.check()?;
        if state.is_whole() {
            return Ok(());
        }
        // Before the first pod there is nothing yet that others could have changed.
        if self.network.pods().is_empty() {
            tracing::debug!(faults = state.faults.join("; "), "network made");
        } else {
            tracing::warn!(faults = state.faults.join("; "), "network mended");
        }
        self.network.repair()?;
        for uid in &state.cut_off {
            let netns = self.layout().namespaces(uid).join("net");
            let record = records::read::<PodRecord>(&self.layout().pod(uid).join("pod.json")).ok().flatten();
            // After a reboot a pod has no namespace yet: it is connected when it is made again.
            if let Some(record) = record.filter(|_| network::is_pinned(&netns)) {
                self.network.attach(uid, &netns, &record.spec.networks)?;
            }
        }
        Ok(())
    }

    fn teardown(&self) -> Result<()> {
        let mut errors: Vec<String> = Vec::new();
        errors.extend(self.network.teardown().err().map(|error| chain(&error)));
        errors.extend(network::unmount_namespaces(&self.layout().all_namespaces()).err().map(|error| chain(&error)));
        errors.extend(remove_cgroup(&self.layout().shim_cgroup()).err());
        errors.extend(remove_cgroup(&format!("/{}", self.layout().cgroup)).err());
        if errors.is_empty() {
            Ok(())
        } else {
            Err(failure("remove what pods shared", FailureClass::Transient, errors.join("; ")))
        }
    }
}

fn remove_cgroup(path: &str) -> std::result::Result<(), String> {
    let layout = cgroup::Layout::detect().map_err(|error| chain(&error))?;
    cgroup::remove(&layout, path).map_err(|error| chain(&error))
}
