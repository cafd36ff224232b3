//! The agent as a process: puts the parts together and runs them until it is told to end.

use std::path::Path;
use std::sync::Arc;

use runtime::embedded::{Embedded, Layout, OpenError, Options};
use runtime::image::registry::RegistryConfig;
use runtime::network::NetworkConfig;
use spec::budget::Budget;
use spec::env::NodeFacts;

use crate::api::{ApiState, Server};
use crate::clock::{HostClock, SharedClock};
use crate::config::Settings;
use crate::events::{Journal, JournalError};
use crate::executor::{Executor, random_uid};
use crate::orders::Orders;
use crate::reconciler::{Event, Parts, Reconciler};
use crate::source::{SealError, Sources, watch};
use crate::systemd::{EXIT_AFTER_DOWN, Notifier, NotifyError, report, watchdog_limit};
use crate::telemetry::Metrics;

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
    /// The pods cannot be listed.
    #[error("cannot see what runs")]
    Observe(#[from] runtime::api::RuntimeError),
    /// The quick-start image cannot be stored.
    #[error("cannot store the built-in image")]
    Builtin(#[source] runtime::image::store::StoreError),
    /// The service manager cannot be told anything.
    #[error(transparent)]
    Notify(#[from] NotifyError),
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
    let registries: RegistryConfig =
        settings.registries.clone().try_into().map_err(|error| RunError::Registries(Box::new(error)))?;
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

/// Runs until the agent is told to end; the exit code of the process.
///
/// # Errors
///
/// Something that it cannot do without is missing.
pub async fn run(settings: Settings) -> Result<u8, RunError> {
    let clock: SharedClock = Arc::new(HostClock);
    let runtime = Arc::new(Embedded::open(options(&settings, true)?)?);
    builtin(&runtime).await?;
    let metrics = Metrics::new();
    let journal = Journal::open(&settings.events_dir(), Some(metrics.clone()))?;
    let orders = Orders::open(&settings.data_dir);
    let notifier = Arc::new(Notifier::of_process()?);
    let (snapshot, snapshots) = tokio::sync::watch::channel(Arc::default());
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
        resync: settings.resync,
    });
    let sources = Sources::open(
        settings.sources.clone(),
        settings.data_dir.clone(),
        settings.node_labels.clone(),
        Arc::clone(&clock),
        metrics.clone(),
        orders,
    )?;
    let deliver = events.clone();
    let watching =
        watch(sources, settings.resync, move |reading| deliver.send(Event::Sources(Box::new(reading))).is_ok())
            .map_err(RunError::Thread)?;
    let server = Server::start(ApiState {
        snapshot: snapshots.clone(),
        runtime: runtime.clone(),
        metrics,
        journal,
        commands: events.clone(),
        settings: Arc::new(settings.clone()),
    })
    .await?;
    announce(&settings, &server);
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(RunError::Signals)?;
    let watchdog = watchdog_limit(|name| std::env::var(name).ok(), std::process::id());
    let reporting = tokio::spawn(report(Arc::clone(&notifier), watchdog, events, snapshots));
    let result = tokio::select! {
        result = reconciler.run() => {
            // The loop ends by itself only after `down`.
            tracing::info!("agent ended");
            let code = if notifier.is_heard() { EXIT_AFTER_DOWN } else { 0 };
            result.map(|()| code).map_err(RunError::from)
        }
        () = told_to_end(&mut terminate) => {
            tracing::info!("agent ended; containers keep running");
            Ok(0)
        }
    };
    notifier.stopping();
    reporting.abort();
    drop(watching);
    server.stop().await;
    result
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
    let sources: Vec<String> = settings.sources.iter().map(|path| path.display().to_string()).collect();
    tracing::info!(
        sources = sources.join(", "),
        socket = %settings.socket().display(),
        metrics = server.metrics_address().map(tracing::field::display),
        "agent started"
    );
    if !settings.sources.iter().any(|path| Path::new(path).exists()) {
        tracing::warn!("no source exists yet: nothing is started or stopped until one does");
    }
}
