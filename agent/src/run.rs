//! The agent as a process: puts the parts together and runs them until it is told to end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use runtime::container::external::Program;
use runtime::embedded::{Embedded, Layout, OpenError, Options};
use runtime::image::registry::RegistryConfig;
use runtime::network::NetworkConfig;
use spec::budget::Budget;
use spec::env::NodeFacts;

use crate::api::{ApiState, Server};
use crate::clock::{HostClock, SharedClock};
use crate::config::Settings;
use crate::events::{EventKind, Journal, JournalError, Word};
use crate::executor::{Executor, random_uid};
use crate::failures::Failures;
use crate::follow::{Follower, Remote, Tools, View};
use crate::gc::{ImageGc, logs::LogGc, roots};
use crate::history::History;
use crate::memory::Memories;
use crate::orders::Orders;
use crate::reconciler::{Command, Event, Parts, Reconciler};
use crate::reload::{self, Handle, Invocation, Refusal, Request, Verdict};
use crate::source::{SealError, Sources, watch};
use crate::status::Snapshot;
use crate::systemd::{EXIT_AFTER_DOWN, Inherited, Notifier, NotifyError, report, watchdog_limit};
use crate::telemetry::Metrics;
use crate::versions::Versions;

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The interface cannot be served.
    #[error(transparent)]
    Api(#[from] crate::api::ApiError),
    /// The runtime cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The registry settings are wrong.
    #[error("cannot use the settings under `registries`")]
    Registries(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The subnet is wrong.
    #[error("cannot use subnet `{0}`: it is not an IPv4 network such as 10.88.0.0/20")]
    Subnet(String),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Sources cannot be read.
    #[error("cannot open the sources")]
    Sources(#[from] SealError),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// A newer version has been here.
    #[error(transparent)]
    Newer(#[from] reload::Newer),
    /// The pods cannot be listed.
    #[error("cannot see what runs")]
    Observe(#[from] runtime::api::RuntimeError),
    /// The quick-start image cannot be stored.
    #[error("cannot store the built-in image")]
    Builtin(#[source] runtime::image::store::StoreError),
    /// The service manager cannot be told anything.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// What systemd handed over cannot be used.
    #[error("cannot use the socket that systemd has handed over")]
    Inherited(#[source] std::io::Error),
    /// What this program is cannot be told.
    #[error("cannot tell which program this is")]
    Invocation(#[source] std::io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
}

impl RunError {
    /// What the reader can do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Api(error) => error.hint(),
            Self::Open(OpenError::NotRoot) => {
                Some("run it with sudo; `mainstay validate` and `mainstay plan PATH` need no root")
            }
            Self::Open(OpenError::Locked(_)) => {
                Some("stop the other agent, or give this one its own --data-dir and --run-dir")
            }
            Self::Newer(_) => Some(reload::Newer::HINT),
            Self::Subnet(_) => Some("give a free private network, or leave it out to have one chosen"),
            _ => None,
        }
    }
}

/// Id of this boot: the kernel's, or what stands in for it.
#[must_use]
pub fn boot_id(settings: &Settings) -> String {
    settings.boot_id.clone().unwrap_or_else(runtime::container::boot_id)
}

/// The options of the embedded runtime.
///
/// # Errors
/// A setting that only the runtime can judge is wrong.
pub fn options(settings: &Settings, exclusive: bool) -> Result<Options, RunError> {
    let mut registries: RegistryConfig =
        settings.registries.clone().try_into().map_err(|error| RunError::Registries(Box::new(error)))?;
    registries.parallel_images = settings.max_parallel_pulls.max(1) as usize;
    let mut network = NetworkConfig::new(settings.data_dir.join("network"));
    // The bridge is named after the network with `0` behind it.
    network.name = settings.bridge.strip_suffix('0').unwrap_or(&settings.bridge).to_owned();
    network.allow_metadata = settings.allow_metadata;
    if let Some(text) = &settings.subnet {
        network.subnet = Some(text.parse().map_err(|_| RunError::Subnet(text.clone()))?);
    }
    if let Some(text) = &settings.service_subnet {
        network.service_subnet = Some(text.parse().map_err(|_| RunError::Subnet(text.clone()))?);
    }
    Ok(Options {
        layout: Layout {
            data: settings.data_dir.clone(),
            run: settings.run_dir.clone(),
            cgroup: settings.cgroup_parent.clone(),
        },
        boot_id: boot_id(settings),
        network,
        registries,
        log_max_size: settings.log_max_size,
        log_max_files: settings.log_max_files,
        memory_high_percent: settings.memory_high_percent,
        runtimes: settings
            .runtimes
            .iter()
            .map(|(name, program)| {
                let (name, path, args) = (name.clone(), program.path.clone(), program.args.clone());
                (name.clone(), Program { name, path, args })
            })
            .collect(),
        exclusive,
    })
}

/// An executor over a runtime.
#[must_use]
pub fn executor(settings: &Settings, runtime: Arc<Embedded>, clock: SharedClock) -> Executor {
    Executor {
        runtime,
        clock,
        node: Arc::new(node_facts(settings)),
        boot_id: boot_id(settings).into(),
        uids: Arc::new(random_uid),
        memories: Memories::new(&settings.data_dir),
        starts: Arc::new(tokio::sync::Semaphore::new(settings.max_parallel_starts.max(1) as usize)),
    }
}

fn node_facts(settings: &Settings) -> NodeFacts {
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?.to_owned();
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    });
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    NodeFacts {
        name: settings.node_name.clone(),
        ip: host_address().unwrap_or_else(|| "127.0.0.1".to_owned()),
        cpu_milli: u64::try_from(cpus).unwrap_or(1).saturating_mul(1000),
        memory: memory.unwrap_or(0).saturating_mul(1024),
    }
}

/// The address that the host would reach others from. Nothing is sent.
fn host_address() -> Option<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// What is in hand may take so long to end before another binary takes over.
const SETTLE: Duration = Duration::from_secs(5);

/// How the agent ended.
#[derive(Debug)]
pub enum Ended {
    /// For good, with this exit code.
    Code(u8),
    /// To be executed anew.
    Again(Invocation),
}

/// Runs until the agent is told to end. `config` is the configuration file, there or not.
///
/// # Errors
///
/// Something that it cannot do without is missing.
pub async fn run(settings: Settings, config: PathBuf) -> Result<Ended, RunError> {
    let invocation = Invocation::of_process().map_err(RunError::Invocation)?;
    // First of all: unasked, the signal would end an agent that is still opening things.
    let (requests, mut requested) = tokio::sync::mpsc::unbounded_channel();
    let hangups = hangups(requests.clone()).map_err(RunError::Signals)?;
    let clock: SharedClock = Arc::new(HostClock);
    reload::check_records(&settings.data_dir)?;
    let runtime = Arc::new(Embedded::open(options(&settings, true)?)?);
    crate::source::NodeKey::ensure(&settings.data_dir, &settings.run_dir)?;
    builtin(&runtime).await?;
    let metrics = Metrics::new();
    metrics.resync_interval(settings.resync);
    for path in &settings.sources {
        metrics.source_interval(&path.display().to_string(), settings.resync);
    }
    let journal = Journal::open(&settings.events_dir(), Some(metrics.clone()))?;
    // Before anything is told: an event of the start reaches them like any other.
    let webhooks: Vec<_> = settings
        .webhooks
        .iter()
        .map(|webhook| {
            let node = settings.node_name.clone();
            tokio::spawn(crate::webhook::run(webhook.clone(), node, journal.subscribe(), metrics.clone()))
        })
        .collect();
    let (versions, known_versions) = Versions::open(&settings.data_dir)?;
    let orders = Orders::open(&settings.data_dir);
    let notifier = Arc::new(Notifier::of_process()?);
    // Whoever asks before the first pass is told what there is: nothing would read as "ended" or "nothing to stop".
    let known = crate::known::snapshot(&settings.data_dir).unwrap_or_default();
    let known = Snapshot { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id(), ..known };
    let (snapshot, snapshots) = tokio::sync::watch::channel(Arc::new(known));
    let resting = tokio::spawn(crate::rest::run(snapshots.clone()));
    let (reconciler, events) = Reconciler::new(Parts {
        executor: executor(&settings, Arc::clone(&runtime), Arc::clone(&clock)),
        clock: Arc::clone(&clock),
        metrics: metrics.clone(),
        journal: journal.clone(),
        snapshot,
        budget: Budget {
            minimum: settings.removal_budget.min as usize,
            percent: settings.removal_budget.percent as usize,
        },
        orders: orders.clone(),
        history: Some(History::open(&settings.data_dir, settings.generations as usize)?),
        windows: settings.maintenance_windows.clone(),
        resync: settings.resync,
        versions,
        known_versions,
        failures: Failures::open(&settings.data_dir, &settings.run_dir)?,
        planner: Arc::new(spec::plan::plan),
    });
    let (reconciler, tracing) = traced(reconciler, &settings);
    let labels =
        crate::ec2::with_labels(settings.node_metadata.as_deref(), &settings.data_dir, &settings.node_labels).await;
    let sources = Sources::open(
        settings.sources.clone(),
        settings.data_dir.clone(),
        labels.labels.clone(),
        Arc::clone(&clock),
        metrics.clone(),
        orders,
    )?;
    let remotes = Remote::all(&settings);
    let views: Vec<View> = remotes.iter().map(|remote| remote.view(&settings.data_dir)).collect();
    let sources = sources.with_age_identity(settings.age_identity.clone()).with_repositories(views.clone());
    if let Err(error) = crate::config::Places::note(&settings) {
        tracing::warn!(%error, "cannot note where containers are");
    }
    // What was named on the command line is in no file: `mainstay shutdown` asks here whom to stop in which order.
    if let Err(error) = crate::record::write(&settings.sources_file(), &settings.sources) {
        tracing::warn!(%error, "cannot note which sources these are");
    }
    let deliver = events.clone();
    let (named, ready) = tokio::sync::watch::channel(false);
    let data_dir = settings.data_dir.clone();
    let watching = watch(sources, settings.resync, move |reading| {
        // Before anyone acts on the reading, so that no image is removed that it names.
        match roots::note(&data_dir, roots::MANIFESTS, &roots::named(&reading.desired)) {
            Ok(()) => drop(named.send_replace(true)),
            Err(error) => tracing::warn!(%error, "cannot note which images are needed: none is removed"),
        }
        deliver.send(Event::Sources(Box::new(reading))).is_ok()
    })
    .map_err(RunError::Thread)?;
    let gc = tokio::spawn(
        ImageGc {
            store: runtime.store().clone(),
            data_dir: settings.data_dir.clone(),
            settings: settings.image_gc,
            metrics: metrics.clone(),
            journal: journal.clone(),
            clock: Arc::clone(&clock),
            ready,
        }
        .run(),
    );
    let sizes = crate::sizes::run(runtime.store().clone(), settings.data_dir.clone(), metrics.clone());
    let sizes = tokio::spawn(sizes);
    for why in missing_runtimes(&settings)? {
        tracing::warn!("{why}");
        let unix = clock.unix();
        journal.record(crate::events::Event::of_node(unix, EventKind::Warning, Word::RUNTIME_MISSING, why));
    }
    let log_gc = tokio::spawn(
        LogGc {
            layout: runtime.layout().clone(),
            limit: settings.log_total_size,
            metrics: metrics.clone(),
            journal: journal.clone(),
            clock: Arc::clone(&clock),
        }
        .run(),
    );
    let by_file = requests.clone();
    let config_watch = reload::watch(&config, move || {
        // The receiver goes when the agent ends.
        let _ = by_file.send(Request { binary: None, always: false, reply: None });
    });
    let renewing = settings.node_metadata.clone().map(|endpoint| {
        let (configured, requests) = (settings.node_labels.clone(), requests.clone());
        let mut labels = labels;
        tokio::spawn(async move {
            loop {
                crate::ec2::changed(&endpoint, &configured, &labels).await;
                // Told once: when the reload is refused, the next look is one like any other.
                labels.fresh = true;
                tracing::info!("the metadata service tells other labels of this node");
                // Taken in like a changed configuration; the receiver goes when the agent ends.
                let _ = requests.send(Request { binary: None, always: true, reply: None });
            }
        })
    });
    let inherited = Inherited::of_process().map_err(RunError::Inherited)?;
    let listener = inherited.as_ref().map(Inherited::listener).transpose().map_err(RunError::Inherited)?;
    let tools = Tools {
        data_dir: settings.data_dir.clone(),
        clock: Arc::clone(&clock),
        metrics: metrics.clone(),
        journal: journal.clone(),
        artifacts: runtime.artifacts(),
    };
    let follow = |(remote, view)| Follower::start(remote, view, tools.clone(), watching.reader());
    let followers: Vec<Follower> = remotes.into_iter().zip(views).map(follow).collect();
    let read_now = watching.reader();
    let followers = Arc::new(followers);
    let asked = Arc::clone(&followers);
    let sync = Arc::new(move || {
        asked.iter().for_each(Follower::poll_now);
        read_now();
    });
    let reading = Arc::new(watching.asker());
    let state = ApiState {
        snapshot: snapshots.clone(),
        runtime: runtime.clone(),
        metrics: metrics.clone(),
        journal: journal.clone(),
        commands: events.clone(),
        settings: Arc::new(settings.clone()),
        reload: Handle { requests: requests.clone(), instance: random_uid().0.into(), exe: invocation.exe.clone() },
        sync,
        reading,
    };
    // Who gets an answer may tell it to end.
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(RunError::Signals)?;
    let server = Server::start(state, listener).await?;
    announce(&settings, &server);
    let watchdog = watchdog_limit(|name| std::env::var(name).ok(), std::process::id());
    let reporting = tokio::spawn(report(Arc::clone(&notifier), watchdog, events.clone(), snapshots));
    let shown = reload::shown(&settings);
    let told = |verdict: Result<&Verdict, &Refusal>| tell(verdict, &journal, &metrics, clock.unix());
    let looping = reconciler.run();
    tokio::pin!(looping);
    let result = tokio::select! {
        result = &mut looping => {
            // The loop ends by itself only after `down`.
            tracing::info!("agent ended");
            notifier.stopping();
            let code = if notifier.is_heard() { EXIT_AFTER_DOWN } else { 0 };
            result.map(|()| Ended::Code(code)).map_err(RunError::from)
        }
        () = told_to_end(&mut terminate) => {
            tracing::info!("agent ended; containers keep running");
            notifier.stopping();
            Ok(Ended::Code(0))
        }
        () = reload::decide(&invocation, &shown, &mut requested, told) => {
            notifier.reloading();
            let _ = events.send(Event::Command(Command::Settle(SETTLE)));
            // The next agent sees from facts what this one has left in the middle.
            tokio::select! {
                settled = tokio::time::timeout(SETTLE * 2, &mut looping) => {
                    if settled.is_err() {
                        tracing::warn!("the loop does not end; going on without it");
                    }
                    Ok(Ended::Again(invocation.clone()))
                }
                () = told_to_end(&mut terminate) => Ok(Ended::Code(0)),
            }
        }
    };
    gc.abort();
    sizes.abort();
    resting.abort();
    tracing.iter().for_each(tokio::task::JoinHandle::abort);
    renewing.iter().for_each(tokio::task::JoinHandle::abort);
    log_gc.abort();
    webhooks.iter().for_each(tokio::task::JoinHandle::abort);
    reporting.abort();
    hangups.abort();
    drop(followers);
    drop(watching);
    drop(config_watch);
    if let (Ok(Ended::Again(_)), Some(inherited)) = (&result, inherited) {
        inherited.hand_on().map_err(RunError::Inherited)?;
    }
    server.stop().await;
    // What the signal was for is not what would run next.
    let ended = told_to_end(&mut terminate).now_or_never().is_some();
    match result {
        Ok(Ended::Again(_)) if ended => Ok(Ended::Code(0)),
        Ok(Ended::Again(again)) => {
            tracing::info!("agent executes itself anew; containers keep running");
            Ok(Ended::Again(again))
        }
        result => result,
    }
}

/// Has actions traced where a collector is named, and the task that sends them there.
#[cfg(feature = "traces")]
fn traced(reconciler: Reconciler, settings: &Settings) -> (Reconciler, Option<tokio::task::JoinHandle<()>>) {
    let Some(collector) = &settings.traces else { return (reconciler, None) };
    let (traces, sending) = crate::traces::Traces::to(collector, &settings.node_name);
    (reconciler.with_traces(traces), Some(tokio::spawn(sending)))
}

#[cfg(not(feature = "traces"))]
fn traced(reconciler: Reconciler, _: &Settings) -> (Reconciler, Option<tokio::task::JoinHandle<()>>) {
    (reconciler, None)
}

/// Asks for a reload at each SIGHUP. An agent on a terminal is left to end with it, as programs do.
fn hangups(requests: tokio::sync::mpsc::UnboundedSender<Request>) -> std::io::Result<tokio::task::JoinHandle<()>> {
    use std::io::IsTerminal as _;
    let mut hangups = if std::io::stdin().is_terminal() {
        None
    } else {
        Some(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?)
    };
    Ok(tokio::spawn(async move {
        let Some(hangups) = &mut hangups else { return };
        while hangups.recv().await.is_some() {
            // The receiver goes when the agent ends.
            let _ = requests.send(Request { binary: None, always: true, reply: None });
        }
    }))
}

/// Says what comes of a request to reload.
fn tell(verdict: Result<&Verdict, &Refusal>, journal: &Journal, metrics: &Metrics, unix: i64) {
    metrics.reload(verdict.is_ok(), unix);
    let (kind, reason, message) = match verdict {
        Ok(Verdict { reloading: false, .. }) => return,
        Ok(verdict) => {
            let changed = verdict.changed.join(", ");
            tracing::info!(version = verdict.version, changed, "reloading");
            let what = if changed.is_empty() { String::new() } else { format!("; changed: {changed}") };
            (EventKind::Normal, Word::RELOADING, format!("version {} takes over{what}", verdict.version))
        }
        Err(refusal) => {
            let message = spec::causes::chain(refusal);
            tracing::error!(error = message, "not reloaded: the agent goes on as it was");
            (EventKind::Warning, Word::RELOAD_REFUSED, format!("the agent goes on as it was: {message}"))
        }
    };
    journal.record(crate::events::Event::of_node(unix, kind, reason, message));
}

/// Why configured runtimes cannot be used now. Pods that name one of them wait; nobody else is concerned.
///
/// # Errors
/// See [`options`].
pub fn missing_runtimes(settings: &Settings) -> Result<Vec<String>, RunError> {
    Ok(options(settings, false)?.runtimes.values().filter_map(Program::fault).collect())
}

/// Waits for SIGTERM or SIGINT.
async fn told_to_end(terminate: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Puts the image that the quick start uses into the store.
async fn builtin(runtime: &Arc<Embedded>) -> Result<(), RunError> {
    let store = runtime.store().clone();
    let made = tokio::task::spawn_blocking(move || runtime::image::quickstart::ensure_quickstart(&store).map(drop));
    made.await.map_or(Ok(()), |made| made.map_err(RunError::Builtin))
}

fn announce(settings: &Settings, server: &Server) {
    let directories = settings.sources.iter().map(|path| path.display().to_string());
    let sources: Vec<String> = directories.chain(Remote::all(settings).iter().map(Remote::label)).collect();
    tracing::info!(
        sources = sources.join(", "),
        socket = %settings.socket().display(),
        metrics = server.metrics_address().map(tracing::field::display),
        "agent started"
    );
    if !settings.follows() && !settings.sources.iter().any(|path| Path::new(path).exists()) {
        tracing::warn!("no source exists yet: nothing is started or stopped until one does");
    }
}
