//! Progress of one pull, told to everyone who waits for it, and how far it is for everyone who asks.
//!
//! Who joins late is told first what has happened. Bytes are told in steps, since the channels have no bound.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use spec::digest::Digest;
use spec::image_ref::ImageRef;
use tokio::sync::mpsc::UnboundedSender;

use crate::api::{PullProgress, RunningPull};

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
    layers: BTreeMap<Digest, Layer>,
}

#[derive(Default)]
struct Layer {
    /// Compressed bytes that are to come: none of one that was there.
    missing: u64,
    received: u64,
    done: bool,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a listener.
    pub(super) fn join(&self, listener: UnboundedSender<PullProgress>) {
        let mut state = self.state();
        if state.told.iter().all(|message| listener.send(message.clone()).is_ok()) {
            state.listeners.push(listener);
        }
    }

    /// Another place is asked: what was known of the image may not be so there.
    pub(super) fn restart(&self) {
        let mut state = self.state();
        state.layers.clear();
        state.told.clear();
    }

    /// Tells everyone; who has gone is forgotten.
    pub(super) fn tell(&self, message: PullProgress) {
        let mut state = self.state();
        match &message {
            PullProgress::Layer { digest, size, present } => {
                let missing = if *present { 0 } else { *size };
                state.layers.insert(*digest, Layer { missing, received: 0, done: *present });
            }
            PullProgress::Bytes { digest, received } => {
                if let Some(layer) = state.layers.get_mut(digest) {
                    layer.received = (*received).min(layer.missing);
                }
            }
            PullProgress::Done { digest } => {
                if let Some(layer) = state.layers.get_mut(digest) {
                    // Somebody else may have fetched it.
                    (layer.done, layer.received) = (true, layer.missing);
                }
            }
        }
        state.listeners.retain(|listener| listener.send(message.clone()).is_ok());
        if !matches!(message, PullProgress::Bytes { .. }) {
            state.told.push(message);
        }
    }

    /// A layer is in the store.
    pub(super) fn done(&self, digest: Digest) {
        self.tell(PullProgress::Done { digest });
    }

    /// How far it is.
    pub(super) fn now(&self, reference: ImageRef) -> RunningPull {
        let state = self.state();
        let sum = |of: fn(&Layer) -> u64| state.layers.values().map(of).fold(0, u64::saturating_add);
        RunningPull {
            reference,
            layers: state.layers.len(),
            done: state.layers.values().filter(|layer| layer.done).count(),
            bytes: sum(|layer| layer.missing),
            received: sum(|layer| layer.received),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_pull_is() {
        let reference = || ImageRef::parse("web:1").expect("a reference");
        let progress = Progress::default();
        let digest = |text: &str| Digest::of(text.as_bytes());
        let layer = |name: &str, size, present| PullProgress::Layer { digest: digest(name), size, present };
        let check = |layers, done, bytes, received| {
            let expected = RunningPull { reference: reference(), layers, done, bytes, received };
            assert_eq!(progress.now(reference()), expected);
        };
        check(0, 0, 0, 0);
        progress.tell(layer("base", 100, true));
        progress.tell(layer("app", 50, false));
        progress.tell(layer("data", 7, false));
        // The same layer twice in one image is fetched once.
        progress.tell(layer("app", 50, false));
        check(3, 1, 57, 0);
        progress.tell(PullProgress::Bytes { digest: digest("app"), received: 20 });
        progress.tell(PullProgress::Bytes { digest: digest("unknown"), received: 20 });
        check(3, 1, 57, 20);
        progress.done(digest("data"));
        check(3, 2, 57, 27);
        progress.done(digest("base"));
        progress.done(digest("app"));
        check(3, 3, 57, 57);
        progress.restart();
        check(0, 0, 0, 0);
    }
}
