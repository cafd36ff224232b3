//! Reading the body of an answer so that no registry can hold a pull for long.
//!
//! Counts only time spent waiting for the network, so slow unpacking never looks like a slow registry.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};

use super::errors::RegistryError;

/// Stall limits that are the time for a small document in all.
pub(super) const DOCUMENT_LIMITS: u32 = 4;

/// What a transfer has to keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How long nothing, or too little, may come.
    pub(super) stall_limit: Duration,
    /// Bytes a second below which it is too little.
    pub(super) min_rate: u64,
}

/// A body with its limits.
pub(super) struct Body {
    response: reqwest::Response,
    host: String,
    pace: Pace,
    /// Since the last byte.
    silent: Duration,
    /// Since the window began in which too little may come.
    waited: Duration,
    received: u64,
}

impl Body {
    pub(super) fn new(response: reqwest::Response, host: String, pace: Pace) -> Self {
        Self { response, host, pace, silent: Duration::ZERO, waited: Duration::ZERO, received: 0 }
    }

    /// The same after a silence that its first byte has to end.
    pub(super) fn after(self, silent: Duration) -> Self {
        Self { silent, ..self }
    }

    /// The next piece; `None` at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let start = Instant::now();
            let left = self.pace.stall_limit.saturating_sub(self.waited.max(self.silent));
            let result = timeout(left, self.response.chunk()).await;
            let passed = start.elapsed();
            self.waited += passed;
            self.silent += passed;
            let chunk = match result {
                Ok(Ok(chunk)) => chunk,
                Ok(Err(source)) => {
                    return Err(RegistryError::Broken { host: self.host.clone(), source: source.without_url() });
                }
                Err(_) if self.silent >= self.pace.stall_limit => {
                    let limit = self.pace.stall_limit;
                    return Err(RegistryError::Stalled { host: self.host.clone(), limit });
                }
                Err(_) => {
                    self.end_of_window()?;
                    continue;
                }
            };
            let Some(chunk) = chunk else { return Ok(None) };
            if !chunk.is_empty() {
                self.silent = Duration::ZERO;
            }
            self.received = self.received.saturating_add(chunk.len() as u64);
            if self.waited >= self.pace.stall_limit {
                self.end_of_window()?;
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    fn end_of_window(&mut self) -> Result<(), RegistryError> {
        let limit = self.pace.stall_limit;
        let least = (self.pace.min_rate as f64 * limit.as_secs_f64()) as u64;
        let host = self.host.clone();
        if self.received < least {
            return Err(RegistryError::TooSlow { host, rate: self.pace.min_rate, limit });
        }
        self.waited = Duration::ZERO;
        self.received = 0;
        Ok(())
    }

    /// The whole of a small document of at most `limit` bytes.
    ///
    /// Four stall limits are its time in all: a document that drips just above the lowest rate ends too.
    pub(super) async fn document(mut self, what: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let too_large = || RegistryError::TooLarge { host: self.host.clone(), what: what.to_owned(), limit };
        let length = self.response.content_length();
        if length.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let all = self.pace.stall_limit * DOCUMENT_LIMITS;
        let deadline = Instant::now() + all;
        let mut bytes = Vec::new();
        loop {
            let Ok(chunk) = timeout_at(deadline, self.chunk()).await else {
                return Err(RegistryError::TooLate { host: self.host, what: what.to_owned(), limit: all });
            };
            let chunk = match chunk {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(bytes),
                Err(RegistryError::Broken { .. }) if length.is_some_and(|length| bytes.len() as u64 != length) => {
                    return Err(RegistryError::Truncated {
                        host: self.host,
                        what: what.to_owned(),
                        received: bytes.len() as u64,
                        expected: length.unwrap_or_default(),
                    });
                }
                Err(error) => return Err(error),
            };
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(RegistryError::TooLarge { host: self.host, what: what.to_owned(), limit });
            }
            bytes.extend_from_slice(&chunk);
        }
    }
}
