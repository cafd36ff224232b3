//! What is served on TCP: metrics and health, and the sync hook. An address that cannot be taken is told and tried again:
//! pods do not wait for it, at a boot least of all.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::ApiError;
use crate::clock::{Clock as _, HostClock};
use crate::events::{Event, EventKind, Journal, Word};

/// How long after a failure the address is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Something to be served.
pub(super) struct Public {
    /// "metrics", "the sync hook".
    pub(super) what: &'static str,
    /// Where.
    pub(super) address: SocketAddr,
    /// Says which address it is; there is none while nothing is served.
    pub(super) file: PathBuf,
    /// What.
    pub(super) routes: Router,
}

impl Public {
    /// Takes the address.
    async fn bind(&self) -> Result<(TcpListener, SocketAddr), ApiError> {
        let failed = |source| ApiError::Listen { what: self.what, address: self.address, source };
        let listener = TcpListener::bind(self.address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let failed = |source| ApiError::AddressFile { path: self.file.clone(), source };
        let draft = self.file.with_extension("addr.tmp");
        std::fs::write(&draft, format!("{bound}\n")).map_err(failed)?;
        std::fs::rename(&draft, &self.file).map_err(failed)?;
        Ok((listener, bound))
    }

    /// Takes the address, or says why not; then serves as soon as that works, until it is to stop. With the address, if
    /// there is one at once.
    pub(super) async fn serve(
        self,
        journal: &Journal,
        stopping: watch::Receiver<bool>,
    ) -> (Option<SocketAddr>, impl Future<Output = ()> + Send + 'static) {
        let first = self.bind().await;
        let bound = first.as_ref().ok().map(|(_, bound)| *bound);
        if let Err(error) = &first {
            // Whoever reads it would ask somebody else.
            drop(std::fs::remove_file(&self.file));
            let message = format!("{}; it is tried again", spec::causes::chain(error));
            tracing::error!("{message}");
            journal.record(Event::of_node(HostClock.unix(), EventKind::Warning, Word::LISTEN_FAILED, message));
        }
        let mut stop = stopping.clone();
        let serving = async move {
            let listener = tokio::select! {
                listener = self.until_bound(first.ok().map(|(listener, _)| listener)) => listener,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            super::serve(axum::serve(listener, self.routes).with_graceful_shutdown(super::stop_of(stopping))).await;
        };
        (bound, serving)
    }

    async fn until_bound(&self, mut listener: Option<TcpListener>) -> TcpListener {
        loop {
            match listener {
                Some(listener) => return listener,
                None => tokio::time::sleep(AGAIN).await,
            }
            listener = self.bind().await.ok().map(|(listener, bound)| {
                tracing::info!(address = %bound, "{} served now", self.what);
                listener
            });
        }
    }
}
