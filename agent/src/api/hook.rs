//! The sync hook: a forge or registry says that something has changed, and every source is asked at once instead of at
//! its next turn.
//!
//! It has a listener of its own, which others may be let through to, and can do nothing but ask. Who calls has to know
//! the secret of `sync_hook.secret_file`, in one of the ways in which GitHub, Gitea, Forgejo, GitLab and `curl` send
//! one. What a request says otherwise is not looked at.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Router, response::IntoResponse};
use ring::hmac;
use tokio::sync::Semaphore;

use super::error;
use crate::config::SyncHook;
use crate::credential;
use crate::telemetry::Metrics;

/// Bytes of a request; who sends more is refused, and the source is asked at its next turn.
const MAX_BODY: usize = 4 << 20;
/// Requests that are read at the same time: strangers can fill no more memory than this.
const MAX_REQUESTS: usize = 4;
/// So long a request may take to come.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Hook {
    settings: SyncHook,
    sync: Arc<dyn Fn() + Send + Sync>,
    metrics: Metrics,
    room: Arc<Semaphore>,
}

/// What the listener serves.
pub(super) fn routes(settings: SyncHook, sync: Arc<dyn Fn() + Send + Sync>, metrics: Metrics) -> Router {
    let hook = Hook { settings, sync, metrics, room: Arc::new(Semaphore::new(MAX_REQUESTS)) };
    Router::new()
        .route("/sync", post(take))
        .method_not_allowed_fallback(error::wrong_method)
        .fallback(error::not_found)
        .with_state(hook)
}

async fn take(State(hook): State<Hook>, headers: HeaderMap, body: Body) -> impl IntoResponse {
    let Ok(_room) = hook.room.try_acquire() else { return (StatusCode::SERVICE_UNAVAILABLE, "busy\n") };
    let Ok(Ok(body)) = tokio::time::timeout(LIMIT, to_bytes(body, MAX_BODY)).await else {
        return (StatusCode::BAD_REQUEST, "the request is too long or did not end\n");
    };
    let secret = match credential::read(&hook.settings.secret_file) {
        Ok(secret) => secret,
        Err(error) => {
            tracing::error!(error = spec::causes::chain(&error), "sync hook not used");
            return (StatusCode::INTERNAL_SERVER_ERROR, "the secret cannot be read on this host\n");
        }
    };
    if !is_signed(secret.trim_ascii(), &headers, &body) {
        hook.metrics.sync_request(false);
        return (StatusCode::UNAUTHORIZED, "the secret is missing or wrong\n");
    }
    hook.metrics.sync_request(true);
    (hook.sync)();
    (StatusCode::ACCEPTED, "sources are asked now\n")
}

/// Whether who sent this knows the secret: `X-Hub-Signature-256` (GitHub, Gitea, Forgejo; Bitbucket without the `-256`)
/// is the HMAC-SHA256 of the body, `X-Gitlab-Token` and `Authorization: Bearer` are the secret itself.
fn is_signed(secret: &[u8], headers: &HeaderMap, body: &[u8]) -> bool {
    // An empty file would let everybody in.
    if secret.is_empty() {
        return false;
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let text = |name: &str| headers.get(name).map(|value| value.as_bytes());
    for name in ["x-hub-signature-256", "x-hub-signature"] {
        let hex = text(name).and_then(|value| value.strip_prefix(b"sha256="));
        if let Some(signature) = hex.and_then(from_hex) {
            return hmac::verify(&key, body, &signature).is_ok();
        }
    }
    let bearer = text("authorization").and_then(|value| value.strip_prefix(b"Bearer "));
    text("x-gitlab-token").or(bearer).is_some_and(|given| {
        // Codes are compared in constant time, texts would not be.
        let code = hmac::sign(&key, b"sync");
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, given), b"sync", code.as_ref()).is_ok()
    })
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_knows_the_secret_is_heard() {
        let check = |secret: &str, header: Option<(&'static str, &str)>, body: &str, good: bool| {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header {
                headers.insert(name, value.parse().expect("a header"));
            }
            assert_eq!(is_signed(secret.as_bytes(), &headers, body.as_bytes()), good, "{secret} {header:?} {body}");
        };
        // GitHub's own example ("Validating webhook deliveries").
        let (secret, body) = ("It's a Secret to Everybody", "Hello, World!");
        let right = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        check(secret, Some(("x-hub-signature-256", right)), body, true);
        check(secret, Some(("x-hub-signature", right)), body, true);
        check(secret, Some(("x-hub-signature-256", right)), "Hello, World?", false);
        check("another secret", Some(("x-hub-signature-256", right)), body, false);
        check(secret, Some(("x-hub-signature-256", "sha256=75")), body, false);
        check(secret, Some(("x-hub-signature-256", "sha256=757")), body, false);
        check(secret, Some(("x-hub-signature-256", "sha256=xx")), body, false);
        check(secret, Some(("x-hub-signature-256", "sha256=")), body, false);
        check("s3cret", Some(("x-gitlab-token", "s3cret")), body, true);
        check("s3cret", Some(("authorization", "Bearer s3cret")), body, true);
        check("s3cret", Some(("x-gitlab-token", "s3cre")), body, false);
        check("s3cret", Some(("x-gitlab-token", "")), body, false);
        check("s3cret", Some(("authorization", "Basic s3cret")), body, false);
        check("s3cret", None, body, false);
        check("", Some(("x-gitlab-token", "")), body, false);
        check("", None, "", false);
    }
}
