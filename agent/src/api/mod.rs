//! The agent's HTTP interface: JSON on a socket for root, metrics and health on TCP for everybody.
//!
//! It reads what the loop has published and hands commands to the loop; it never writes state itself.

mod error;
mod events;
mod health;
mod hook;
mod public;
mod routes;
mod socket;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::config::Settings;
use crate::events::Journal;
use crate::reconciler::Event;
use crate::reload::Handle;
use crate::status::Snapshot;
use crate::telemetry::Metrics;

pub use error::{ErrorBody, ErrorDetail};
use public::Public;

/// Requests that are being answered may go on for so long when the agent ends.
const DRAIN: Duration = Duration::from_secs(1);

/// What the interface is served from.
#[derive(Clone)]
pub struct ApiState {
    /// What the loop publishes after each pass.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// For readings and log files; never for changes.
    pub runtime: Arc<dyn Runtime>,
    /// Counters.
    pub metrics: Metrics,
    /// Events.
    pub journal: Journal,
    /// The loop's inbox.
    pub commands: mpsc::UnboundedSender<Event>,
    /// Effective settings.
    pub settings: Arc<Settings>,
    /// Takes requests to take something new in.
    pub reload: Handle,
    /// Has all sources read now.
    pub sync: Arc<dyn Fn() + Send + Sync>,
    /// Tells the number of the newest reading once everything that is in the sources now has been read.
    pub reading: Arc<dyn Fn() -> oneshot::Receiver<u64> + Send + Sync>,
}

/// Why the interface cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Another agent answers on the socket.
    #[error("cannot serve the API on {}: another agent answers there", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot serve the API on {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The address cannot be taken.
    #[error("cannot serve {what} on {address}")]
    Listen {
        /// "metrics", "the sync hook".
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The file with the address cannot be written.
    #[error("cannot write {}", path.display())]
    AddressFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl ApiError {
    /// What the reader can do.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Taken { .. } => Some("stop the other agent, or give this one --run-dir and --data-dir of its own"),
            Self::Listen { .. } => Some("choose another address with `metrics_listen` or `sync_hook`, or `none`"),
            Self::Socket { .. } | Self::AddressFile { .. } => None,
        }
    }
}

/// The running interface. Dropping it ends all connections at once; [`Server::stop`] lets answers end first.
#[derive(Debug)]
pub struct Server {
    tasks: JoinSet<()>,
    stopping: watch::Sender<bool>,
    /// Removed at the end.
    socket: Option<PathBuf>,
    metrics_address: Option<SocketAddr>,
}

/// What handlers share.
#[derive(Clone)]
struct Shared {
    state: ApiState,
    health: health::Health,
    stopping: watch::Receiver<bool>,
}

impl Server {
    /// Binds socket and address and serves until it is stopped. A socket that was handed over is served instead of one
    /// of its own.
    ///
    /// # Errors
    ///
    /// Another agent answers on the socket, or it cannot be made.
    pub async fn start(state: ApiState, inherited: Option<std::os::unix::net::UnixListener>) -> Result<Self, ApiError> {
        let settings = Arc::clone(&state.settings);
        let path = settings.socket();
        let (listener, bound) = match inherited {
            // systemd made it and keeps it: nothing is made, nothing is removed.
            Some(listener) => (socket::take(listener).map_err(|source| ApiError::Socket { path, source })?, None),
            None => (socket::bind(&path).await?, Some(path)),
        };
        let (stopping, ends) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let health = health::Health::new(settings.resync);
        tasks.spawn(health.clone().follow(state.snapshot.clone()));
        let shared = Shared { state, health, stopping: ends.clone() };
        let api = public_routes().merge(private_routes()).fallback(error::not_found).with_state(shared.clone());
        tasks.spawn(serve(axum::serve(listener, api).with_graceful_shutdown(stop_of(ends.clone()))));
        let mut metrics_address = None;
        if let Some(address) = settings.metrics_listen {
            let routes = public_routes().fallback(error::not_found).with_state(shared.clone());
            let metrics = Public { what: "metrics", address, file: settings.metrics_address_file(), routes };
            let (bound, serving) = metrics.serve(&shared.state.journal, ends.clone()).await;
            metrics_address = bound;
            tasks.spawn(serving);
        }
        if let Some(wanted) = settings.sync_hook.clone() {
            let (address, file) = (wanted.listen, settings.hook_address_file());
            let routes = hook::routes(wanted, shared.state.sync, shared.state.metrics);
            let hook = Public { what: "the sync hook", address, file, routes };
            tasks.spawn(hook.serve(&shared.state.journal, ends).await.1);
        }
        Ok(Self { tasks, stopping, socket: bound, metrics_address })
    }

    /// Where metrics are served on TCP, if that works by now.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Takes no more requests, lets the current ones end for a moment, then ends.
    pub async fn stop(mut self) {
        // Whoever looks for the agent now finds none.
        if let Some(socket) = &self.socket {
            drop(std::fs::remove_file(socket));
        }
        self.stopping.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            tracing::debug!("connections of the API cut off");
        }
    }
}

async fn serve(server: impl IntoFuture<Output = std::io::Result<()>, IntoFuture: Send>) {
    if let Err(error) = server.await {
        tracing::error!(%error, "API ended");
    }
}

async fn stop_of(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone: the server itself was dropped.
    drop(stopping.wait_for(|stop| *stop).await);
}

/// What may be seen by everybody on the host.
fn public_routes() -> Router<Shared> {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(routes::metrics))
        .method_not_allowed_fallback(error::wrong_method)
}

fn private_routes() -> Router<Shared> {
    Router::new()
        .route("/v1/version", get(routes::version))
        .route("/v1/ping", get(routes::ping))
        .route("/v1/status", get(routes::status))
        .route("/v1/plan", get(routes::plan))
        .route("/v1/config", get(routes::config))
        .route("/v1/events", get(events::events))
        .route("/v1/stats", get(routes::all_stats))
        .route("/v1/pods", get(routes::pods))
        .route("/v1/pods/{uid}", get(routes::pod))
        .route("/v1/pods/{uid}/{container}/logs", get(routes::log_files))
        .route("/v1/pods/{uid}/{container}/stats", get(routes::stats))
        .route("/v1/workloads/{kind}/{namespace}/{name}", get(routes::workload))
        .route("/v1/down", post(routes::down))
        .route("/v1/sync", post(routes::sync))
        .route("/v1/reading", get(routes::reading))
        .route("/v1/retry", post(routes::retry))
        .route("/v1/approve", post(routes::approve))
        .route("/v1/orders", post(routes::order))
        .route("/v1/reload", post(routes::reload))
        .method_not_allowed_fallback(error::wrong_method)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
