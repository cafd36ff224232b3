//! What happened on this node: a durable, bounded journal and a broadcast to those who follow it.
//!
//! An event is written to the page cache before [`Journal::record`] returns, so it survives the end of the agent; a
//! thread of its own then brings it to the disk. The journal is never in the way: when it cannot be written (disk
//! full), events still reach the followers and are counted as lost.

mod store;
mod words;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::telemetry::Metrics;
use store::Store;
pub use words::Word;

/// Followers that are so many events behind lose the oldest.
const FOLLOWER_BACKLOG: usize = 1024;

/// Whether it needs attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Something a person may want to look at.
    Warning,
}

impl EventKind {
    /// The label in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Warning => "warning",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When, in milliseconds of Unix time.
    pub unix_millis: i64,
    /// Whether it needs attention.
    pub kind: EventKind,
    /// Why: a [`Word`]; versions to come may have others.
    pub reason: String,
    /// The workload, as `Kind/namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The pod's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The container's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Number of the event that this one follows from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<u64>,
    /// A sentence for people; holds no secret.
    pub message: String,
}

impl Event {
    /// Something that happened to the node as a whole. `unix` is in seconds of Unix time.
    #[must_use]
    pub fn of_node(unix: i64, kind: EventKind, reason: Word, message: String) -> Self {
        Self {
            unix_millis: unix.saturating_mul(1000),
            kind,
            reason: reason.as_str().to_owned(),
            workload: None,
            pod: None,
            container: None,
            cause: None,
            message,
        }
    }
}

/// An event with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Grows by one with each event of this node.
    pub number: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Which events are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// At most so many, the newest ones.
    pub limit: Option<usize>,
    /// Only this kind.
    pub kind: Option<EventKind>,
    /// Only of workloads whose `Kind/namespace/name` is this, ends with `/` and this, or of this pod.
    pub about: Option<String>,
    /// Only those at or after this moment, in milliseconds of Unix time.
    pub since: Option<i64>,
}

impl Filter {
    /// Whether an event is wanted; the limit does not count here.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        let about = |wanted: &String| {
            let workload = event.workload.as_deref().unwrap_or_default();
            workload == wanted
                || workload.strip_suffix(wanted.as_str()).is_some_and(|rest| rest.ends_with('/'))
                || event.pod.as_ref() == Some(wanted)
        };
        self.kind.is_none_or(|kind| kind == event.kind)
            && self.since.is_none_or(|since| event.unix_millis >= since)
            && self.about.as_ref().is_none_or(about)
    }
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} the event journal {}", path.display())]
pub struct JournalError {
    /// What was tried.
    operation: &'static str,
    /// The file or directory.
    path: PathBuf,
    /// Why.
    source: std::io::Error,
}

/// The journal of a node. Cheap to clone: all clones are the same journal.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Held while a line is appended (one write to the page cache), never across an await.
    store: Mutex<Store>,
    followers: broadcast::Sender<Arc<Record>>,
    /// Tells the thread that something is to be brought to the disk; one nudge is as good as many.
    dirty: SyncSender<()>,
    metrics: Option<Metrics>,
}

impl Journal {
    /// Opens or makes the journal in a directory of its own. A torn last line is dropped.
    ///
    /// # Errors
    ///
    /// The directory or its files cannot be made, read or written.
    pub fn open(dir: &Path, metrics: Option<Metrics>) -> Result<Self, JournalError> {
        let store = Store::open(dir, store::Limits::default())?;
        let (dirty, nudges) = sync_channel(1);
        let journal = Arc::new(Inner {
            store: Mutex::new(store),
            followers: broadcast::Sender::new(FOLLOWER_BACKLOG),
            dirty,
            metrics,
        });
        let weak = Arc::downgrade(&journal);
        // Ends with the last clone of the journal, since the sender of nudges ends with it.
        let syncer = move || {
            while nudges.recv().is_ok() {
                let Some(inner) = weak.upgrade() else { return };
                let file = inner.lock().file();
                drop(inner);
                // What the disk refuses now was reported by the write already, or will be by the next one.
                drop(file.sync_data());
            }
        };
        std::thread::Builder::new().name("journal".to_owned()).spawn(syncer).map_err(|source| JournalError {
            operation: "start the thread of",
            path: dir.to_owned(),
            source,
        })?;
        Ok(Self(journal))
    }

    /// Writes an event down and tells the followers; its number. Never waits for the disk and never fails.
    pub fn record(&self, event: Event) -> u64 {
        let kind = event.kind;
        let (record, written) = {
            let mut store = self.0.lock();
            let record = Arc::new(Record { number: store.next_number(), event });
            let written = store.append(&record);
            // Inside the lock, so that followers see the order of the file. No follower is no failure.
            drop(self.0.followers.send(Arc::clone(&record)));
            (record, written)
        };
        if let Err(error) = &written {
            tracing::warn!(%error, reason = record.event.reason, "event not stored");
        } else {
            // Full means: it will look anyway.
            let _ = self.0.dirty.try_send(());
        }
        if let Some(metrics) = &self.0.metrics {
            metrics.event(kind.word(), written.is_ok());
        }
        record.number
    }

    /// The newest events that a filter lets through, oldest first. Reads the files.
    ///
    /// # Errors
    ///
    /// The files cannot be read.
    pub fn recent(&self, filter: &Filter) -> Result<Vec<Record>, JournalError> {
        let reader = self.0.lock().reader()?;
        reader.read(filter)
    }

    /// The newest events and all that follow them, without a gap and without one twice.
    ///
    /// # Errors
    ///
    /// The files cannot be read.
    pub fn follow(&self, filter: &Filter) -> Result<(Vec<Record>, broadcast::Receiver<Arc<Record>>), JournalError> {
        let (reader, receiver) = {
            let store = self.0.lock();
            (store.reader()?, self.0.followers.subscribe())
        };
        Ok((reader.read(filter)?, receiver))
    }

    /// All events from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        self.0.followers.subscribe()
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the journal of an agent that does not run.
///
/// # Errors
///
/// The files cannot be read. A journal that is not there is empty.
pub fn read(dir: &Path, filter: &Filter) -> Result<Vec<Record>, JournalError> {
    store::Reader::of_directory(dir)?.read(filter)
}

#[cfg(test)]
mod tests;
