//! When a failed request is sent again, and after which pause.
//!
//! Bounded: by tries, by the time since anything came, by the longest `Retry-After` that is waited for. A stall that
//! brought nothing is not tried again, and one after much has come only once: a registry that falls silent holds a pull
//! for two stall limits at most.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use super::errors::{RegistryError, Retry};
use super::hosts::RegistryConfig;

/// The longest pause that this host chooses by itself.
const MAX_PAUSE: Duration = Duration::from_secs(8);
/// A broken transfer that brought this much counts as a first try again, so large layers survive bad lines.
const PROGRESS: u64 = 256 * 1024;

/// Tries that one request has left.
pub(super) struct Retries {
    left: u32,
    stalls_left: u32,
    tries: u32,
    pause: Duration,
    first_pause: Duration,
    longest_wait: Duration,
    /// No try begins later than this after the last progress, so that slow failures do not add up.
    patience: Duration,
    since: Instant,
}

impl Retries {
    pub(super) fn new(config: &RegistryConfig) -> Self {
        let left = config.tries.saturating_sub(1);
        Self {
            left,
            stalls_left: 0,
            tries: left,
            pause: config.retry_pause,
            first_pause: config.retry_pause,
            longest_wait: config.retry_after_limit,
            patience: config.stall_limit,
            since: Instant::now(),
        }
    }

    /// Bytes that arrived before a failure.
    pub(super) fn progressed(&mut self, bytes: u64) {
        if bytes >= PROGRESS {
            self.left = self.tries;
            self.stalls_left = 1.min(self.tries);
            self.pause = self.first_pause;
            self.since = Instant::now();
        }
    }

    /// Waits before the next try, or gives the error back when there is none.
    pub(super) async fn after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let wait = match error.retry() {
            Retry::Never => return Err(error),
            Retry::AfterProgress if self.stalls_left == 0 => return Err(error),
            Retry::AfterProgress => {
                self.stalls_left -= 1;
                Duration::ZERO
            }
            Retry::Backoff(Some(wait)) if wait > self.longest_wait => return Err(error),
            Retry::Backoff(wait) => wait.unwrap_or_default(),
        };
        if self.left == 0 {
            return Err(error);
        }
        self.left -= 1;
        let pause = wait.max(jittered(self.pause));
        if self.since.elapsed() + pause > self.patience.max(self.longest_wait) {
            return Err(error);
        }
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        tracing::debug!(error = %error, pause_ms = pause.as_millis() as u64, "registry request tried again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Between half and the whole of a pause, so that many hosts do not come back in step.
fn jittered(pause: Duration) -> Duration {
    // The standard library's per-process random keys are random enough for this.
    let random = std::hash::RandomState::new().build_hasher().finish() % 512;
    pause / 2 + pause / 1024 * random as u32
}
