//! `/v1/events`: the journal as JSON, or as a stream of JSON lines with `follow=true`.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::Shared;
use super::error::Failure;
use crate::events::{EventKind, Filter, Journal, JournalError, Record};

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    limit: Option<usize>,
    kind: Option<EventKind>,
    about: Option<String>,
    since: Option<i64>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn events(
    State(shared): State<Shared>,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Failure> {
    let Query(wanted) = wanted.map_err(|error| Failure::bad_request(error.body_text()))?;
    let filter = Filter { limit: wanted.limit, kind: wanted.kind, about: wanted.about, since: wanted.since };
    let journal = shared.state.journal.clone();
    if !wanted.follow {
        let records = blocking(move || journal.recent(&filter)).await?;
        return Ok(Json(records).into_response());
    }
    let (past, coming) = {
        let (journal, filter) = (journal.clone(), filter.clone());
        blocking(move || journal.follow(&filter)).await?
    };
    let follower = Follower {
        last: past.last().map_or(0, |record| record.number),
        waiting: past.into_iter().map(Arc::new).collect(),
        coming,
        journal,
        filter: Filter { limit: None, ..filter },
        stopping: shared.stopping,
    };
    let lines = stream::unfold(follower, |mut follower| async move {
        let record = follower.next().await?;
        let mut line = serde_json::to_vec(&*record).ok()?;
        line.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(line), follower))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::failed(error.to_string());
    tokio::task::spawn_blocking(read).await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

/// One who follows, without a gap: whoever is too slow for the broadcast reads the journal again.
struct Follower {
    last: u64,
    waiting: VecDeque<Arc<Record>>,
    coming: broadcast::Receiver<Arc<Record>>,
    journal: Journal,
    filter: Filter,
    stopping: watch::Receiver<bool>,
}

impl Follower {
    async fn next(&mut self) -> Option<Arc<Record>> {
        loop {
            if let Some(record) = self.waiting.pop_front() {
                self.last = record.number;
                return Some(record);
            }
            // Cancel safety: both may be dropped at any time without losing anything.
            let received = tokio::select! {
                received = self.coming.recv() => received,
                _ = self.stopping.wait_for(|stop| *stop) => return None,
            };
            match received {
                Ok(record) if record.number > self.last && self.filter.matches(&record.event) => {
                    self.waiting.push_back(record);
                }
                Ok(_) => {}
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(_)) => {
                    let (journal, filter) = (self.journal.clone(), self.filter.clone());
                    let (past, coming) = blocking(move || journal.follow(&filter)).await.ok()?;
                    self.coming = coming;
                    let missed = past.into_iter().filter(|record| record.number > self.last);
                    self.waiting.extend(missed.map(Arc::new));
                }
            }
        }
    }
}
