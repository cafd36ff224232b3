//! Progress of one pull, told to everyone who waits for it.
//!
//! Who joins late is told first what has happened. Bytes are told in steps, since the channels have no bound.

use std::sync::{Mutex, PoisonError};

use spec::digest::Digest;
use tokio::sync::mpsc::UnboundedSender;

use crate::api::PullProgress;

/// Bytes between two messages of a layer.
pub(super) const STEP: u64 = 256 * 1024;

/// Who listens, and what they have been told. The lock is held for one message.
#[derive(Default)]
pub(super) struct Progress(Mutex<State>);

#[derive(Default)]
struct State {
    listeners: Vec<UnboundedSender<PullProgress>>,
    /// Layers and ends; bytes are not worth repeating.
    told: Vec<PullProgress>,
}

impl Progress {
    /// Adds a listener.
    pub(super) fn join(&self, listener: UnboundedSender<PullProgress>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.told.iter().all(|message| listener.send(message.clone()).is_ok()) {
            state.listeners.push(listener);
        }
    }

    /// Tells everyone; who has gone is forgotten.
    pub(super) fn tell(&self, message: PullProgress) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.listeners.retain(|listener| listener.send(message.clone()).is_ok());
        if !matches!(message, PullProgress::Bytes { .. }) {
            state.told.push(message);
        }
    }

    /// A layer is in the store.
    pub(super) fn done(&self, digest: Digest) {
        self.tell(PullProgress::Done { digest });
    }
}
