//! Blobs: fetched piece by piece, hashed on the way, resumed where they broke.
//!
//! A blob is handed on before its digest is known, so the receiver must keep it private until [`Session::blob`]
//! has answered. Memory is bounded by the receiver taking pieces at its own pace.

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use std::time::Duration;
use tokio::time::{Instant, timeout};

use super::body::{Body, DOCUMENT_LIMITS};
use super::client::{Reply, Session};
use super::errors::{RegistryError, Retry};
use super::manifest::Descriptor;
use super::retry::Retries;
use crate::image::hash::Sha256;

/// How long to wait for the end of a body whose every byte has come.
const END_WAIT: Duration = Duration::from_secs(1);

/// Bytes that are still fetched after the receiver has stopped, to tell a wrong blob from a bad one.
const MAX_AFTER_STOP: u64 = 16 * 1024 * 1024;

/// Takes the pieces of a blob in order.
pub(crate) trait Sink: Send {
    /// Takes one piece; `false` ends the transfer without an error of its own.
    fn take(&mut self, piece: bytes::Bytes) -> impl Future<Output = bool> + Send;
}

impl Sink for Vec<u8> {
    async fn take(&mut self, piece: bytes::Bytes) -> bool {
        self.extend_from_slice(&piece);
        true
    }
}

/// How a transfer ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All of it came and it is what its digest says.
    Verified,
    /// The receiver wanted no more.
    Stopped,
}

/// A transfer in progress, over any number of requests.
struct Transfer {
    offset: u64,
    hash: Sha256,
    stopped: bool,
    /// The bandwidth limit counts.
    paced: bool,
}

impl Default for Transfer {
    fn default() -> Self {
        Self { offset: 0, hash: Sha256::new(), stopped: false, paced: true }
    }
}

impl Session {
    /// Fetches the config of an image; the size was checked against its limit.
    ///
    /// Four stall limits are its time in all, as for any document. It is not held back by the bandwidth limit.
    pub(crate) async fn config(&self, blob: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        const WHAT: &str = "config";
        let limit = self.client.config().stall_limit * DOCUMENT_LIMITS;
        let mut bytes = Vec::new();
        let transfer = Transfer { paced: false, ..Transfer::default() };
        match timeout(limit, self.transfer(blob, WHAT, &mut bytes, transfer)).await {
            Ok(fetched) => fetched.map(|_| bytes),
            Err(_) => Err(RegistryError::TooLate { host: self.endpoint.name.clone(), what: WHAT.to_owned(), limit }),
        }
    }

    /// Fetches a blob of at most a few megabytes into memory. The caller has checked the size against its limit.
    pub(crate) async fn small_blob(&self, blob: &Descriptor, what: &str) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        self.blob(blob, what, &mut bytes).await?;
        Ok(bytes)
    }

    /// Fetches a blob; it is what its descriptor says only when this answers [`Ended::Verified`].
    pub(crate) async fn blob(
        &self,
        blob: &Descriptor,
        what: &str,
        sink: &mut impl Sink,
    ) -> Result<Ended, RegistryError> {
        self.transfer(blob, what, sink, Transfer::default()).await
    }

    async fn transfer(
        &self,
        blob: &Descriptor,
        what: &str,
        sink: &mut impl Sink,
        mut transfer: Transfer,
    ) -> Result<Ended, RegistryError> {
        let mut retries = Retries::new(self.client.config());
        loop {
            let start = transfer.offset;
            match self.part(blob, what, sink, &mut transfer).await {
                Ok(()) if transfer.offset < blob.size => return Ok(Ended::Stopped),
                Ok(()) => break,
                // The bytes are no longer wanted; only what is wrong with them is.
                Err(error) if transfer.stopped && error.retry() != Retry::Never => return Ok(Ended::Stopped),
                Err(error) => {
                    retries.progressed(transfer.offset - start);
                    retries.after(error).await?;
                }
            }
        }
        let found = transfer.hash.digest();
        if found != blob.digest {
            let (host, what) = (self.endpoint.name.clone(), what.to_owned());
            return Err(RegistryError::Digest { host, what, expected: blob.digest, found });
        }
        Ok(if transfer.stopped { Ended::Stopped } else { Ended::Verified })
    }

    /// One request, from where the last one broke.
    async fn part(
        &self,
        blob: &Descriptor,
        what: &str,
        sink: &mut impl Sink,
        transfer: &mut Transfer,
    ) -> Result<(), RegistryError> {
        if blob.size == transfer.offset && blob.size > 0 {
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        if transfer.offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", transfer.offset));
            headers.insert(header::RANGE, range.unwrap_or_else(|_| HeaderValue::from_static("bytes=0-")));
        }
        // What has stalled may be asked for once more, and has to bring a byte within one limit then: silence ends a
        // transfer after two.
        let start = Instant::now();
        let limit = self.client.config().stall_limit;
        let request = self.request(&Method::GET, self.endpoint.blob(&blob.digest.to_string()), headers, what);
        let reply = match transfer.offset {
            0 => request.await?,
            _ => match timeout(limit, request).await {
                Ok(reply) => reply?,
                Err(_) => return Err(RegistryError::Stalled { host: self.endpoint.name.clone(), limit }),
            },
        };
        let mut skip = match reply.response.status() {
            StatusCode::OK => transfer.offset,
            StatusCode::PARTIAL_CONTENT if transfer.offset > 0 => {
                self.check_range(&reply, blob, transfer.offset)?;
                0
            }
            _ => return Err(reply.into_error(what).await),
        };
        let Reply { response, host } = reply;
        let coming = blob.size - transfer.offset + skip;
        if let Some(found) = response.content_length().filter(|length| *length != coming) {
            let found = found.saturating_add(transfer.offset - skip);
            return Err(RegistryError::Length { host, what: what.to_owned(), expected: blob.size, found });
        }
        let declared = response.content_length().is_some();
        let silent = if transfer.offset > 0 { start.elapsed() } else { Duration::ZERO };
        let mut body = Body::new(response, host.clone(), self.client.pace()).after(silent);
        while transfer.offset < blob.size {
            let Some(mut piece) = body.chunk().await? else {
                let (received, expected) = (transfer.offset, blob.size);
                return Err(RegistryError::Truncated { host, what: what.to_owned(), received, expected });
            };
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            bytes::Buf::advance(&mut piece, skipped as usize);
            if piece.is_empty() {
                continue;
            }
            if piece.len() as u64 > blob.size - transfer.offset {
                return Err(RegistryError::TooLarge { host, what: what.to_owned(), limit: blob.size });
            }
            transfer.hash.update(&piece);
            transfer.offset += piece.len() as u64;
            if transfer.paced {
                self.client.throttle(piece.len()).await;
            }
            if !transfer.stopped && !sink.take(piece).await {
                transfer.stopped = true;
            }
            // The receiver stopped: because the registry sent something else, or because the image is bad as it is?
            // The digest tells, when not too much is missing for it.
            if transfer.stopped && blob.size - transfer.offset > MAX_AFTER_STOP {
                return Ok(());
            }
        }
        // The bytes are all here; what follows can only show that the registry means another blob.
        if !declared && let Ok(Ok(Some(_))) = timeout(END_WAIT, body.chunk()).await {
            return Err(RegistryError::TooLarge { host, what: what.to_owned(), limit: blob.size });
        }
        Ok(())
    }

    /// Checks that a partial answer continues where the last one ended (RFC 9110 section 14.4).
    fn check_range(&self, reply: &Reply, blob: &Descriptor, offset: u64) -> Result<(), RegistryError> {
        let text = reply.response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let fits = text.and_then(|text| {
            let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
            let (first, last) = range.split_once('-')?;
            let total_fits = total == "*" || total.parse::<u64>().ok()? == blob.size;
            let last_fits = last.parse::<u64>().ok()?.checked_add(1)? == blob.size;
            Some(first.parse::<u64>().ok()? == offset && total_fits && last_fits)
        });
        if fits == Some(true) {
            return Ok(());
        }
        let shown = super::errors::clean(text.unwrap_or("nothing"), 60);
        let reason = format!("Content-Range `{shown}` where the blob goes on at byte {offset} of {}", blob.size);
        Err(RegistryError::Malformed { host: reply.host.clone(), reason })
    }
}
