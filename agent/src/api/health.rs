//! `/livez`: the loop still goes round. `/readyz`: it has been round once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Shared;
use crate::status::Snapshot;

/// Beyond three resyncs, so that one slow pass kills nothing.
const SPARE: Duration = Duration::from_secs(30);

/// When the loop last passed.
#[derive(Debug, Clone)]
pub(super) struct Health {
    /// Held for one copy.
    last: Arc<Mutex<Instant>>,
    limit: Duration,
}

impl Health {
    /// The agent counts as alive from now on until it misses three resyncs.
    pub(super) fn new(resync: Duration) -> Self {
        Self { last: Arc::new(Mutex::new(Instant::now())), limit: resync.saturating_mul(3).saturating_add(SPARE) }
    }

    /// Notes each pass until the loop ends.
    pub(super) async fn follow(self, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
        while snapshots.changed().await.is_ok() {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    fn age(&self) -> Duration {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

pub(super) async fn livez(State(shared): State<Shared>) -> (StatusCode, String) {
    let (age, limit) = (shared.health.age(), shared.health.limit);
    if age <= limit {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        let text = format!("no pass of the loop for {} s, at most {} s expected\n", age.as_secs(), limit.as_secs());
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

pub(super) async fn readyz(State(shared): State<Shared>) -> (StatusCode, String) {
    if shared.state.snapshot.borrow().passes > 0 {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the sources have not been read yet\n".to_owned())
    }
}
