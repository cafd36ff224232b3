//! What can go wrong between this host and a registry, what it means for trying again, and what to do about it.
//!
//! Text that a registry sent is shortened and stripped of control characters before it gets into an error.

use std::path::PathBuf;
use std::time::Duration;

use spec::digest::Digest;

use crate::api::FailureClass;

/// A request to a registry that failed, or an answer that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name or the settings of a host are unusable.
    #[error("cannot use registry host `{host}`: {reason}")]
    BadHost {
        /// As written.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No certificate authorities were found.
    #[error("cannot verify `{host}`: no CA certificates on this host (looked in {looked})")]
    NoRoots {
        /// The registry.
        host: String,
        /// Files that were tried.
        looked: String,
    },
    /// A certificate or key file is unusable.
    #[error("cannot use certificate file {}: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection, or it broke.
    #[error("cannot reach registry `{host}`")]
    Unreachable {
        /// The registry.
        host: String,
        /// What the connection said.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke in the middle of an answer.
    #[error("registry `{host}` broke off its answer, or it was no HTTP")]
    Broken {
        /// The registry.
        host: String,
        /// What the connection said.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing came for the stall limit.
    #[error("registry `{host}` sent nothing for {}", seconds(*limit))]
    Stalled {
        /// The registry.
        host: String,
        /// The limit.
        limit: Duration,
    },
    /// Less came than the lowest rate allows.
    #[error("registry `{host}` sent less than {rate} bytes a second for {}", seconds(*limit))]
    TooSlow {
        /// The registry.
        host: String,
        /// The lowest rate, in bytes a second.
        rate: u64,
        /// Over how long.
        limit: Duration,
    },
    /// A small document took too long in all.
    #[error("registry `{host}` took longer than {} for {what}", seconds(*limit))]
    TooLate {
        /// The registry.
        host: String,
        /// What was fetched.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// 404.
    #[error("{what} not found: registry `{host}` answered 404{detail}")]
    NotFound {
        /// The registry.
        host: String,
        /// "image", "blob sha256:...".
        what: String,
        /// What the registry said, after `: `.
        detail: String,
    },
    /// 401 or 403.
    #[error(
        "wrong or missing credentials: registry `{host}` denied access{detail} (looked for credentials in {looked})"
    )]
    Denied {
        /// The registry, or its token service.
        host: String,
        /// What it said, after `: `.
        detail: String,
        /// Where credentials were looked for.
        looked: String,
    },
    /// 429.
    #[error("registry `{host}` limits the rate of requests (429){wait}{detail}")]
    RateLimited {
        /// The registry.
        host: String,
        /// ", asks to wait 60s".
        wait: String,
        /// What it said, after `: `.
        detail: String,
        /// What it asks to wait.
        after: Option<Duration>,
    },
    /// Another status that is not a success.
    #[error("registry `{host}` answered {status} for {what}{detail}")]
    Status {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The status code.
        status: u16,
        /// What it said, after `: `.
        detail: String,
        /// What it asks to wait.
        after: Option<Duration>,
    },
    /// A redirect that is not followed.
    #[error("cannot follow the redirect of registry `{host}`: {reason}")]
    Redirect {
        /// Who sent it.
        host: String,
        /// Why not.
        reason: String,
    },
    /// A header that makes no sense.
    #[error("registry `{host}` sent a malformed answer: {reason}")]
    Malformed {
        /// The registry.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// The registry asks for a login in a way that is not supported or unsafe.
    #[error("cannot log in to registry `{host}`: {reason}")]
    Login {
        /// The registry.
        host: String,
        /// Why not.
        reason: String,
    },
    /// What gives this machine its logins cannot be asked now.
    #[error("cannot log in to registry `{host}` for now: the instance's role gives no login ({reason})")]
    NoRole {
        /// The registry.
        host: String,
        /// Why not.
        reason: String,
    },
    /// A body is longer than allowed.
    #[error("{what} from registry `{host}` is larger than {limit} bytes")]
    TooLarge {
        /// The registry.
        host: String,
        /// What was fetched.
        what: String,
        /// The limit or the declared size.
        limit: u64,
    },
    /// A length differs from the one in the manifest.
    #[error("wrong length of {what} from registry `{host}`: {found} bytes instead of {expected}")]
    Length {
        /// The registry.
        host: String,
        /// What was fetched.
        what: String,
        /// As the descriptor says.
        expected: u64,
        /// As the answer says.
        found: u64,
    },
    /// The body ended early.
    #[error("registry `{host}` ended {what} after {received} of {expected} bytes")]
    Truncated {
        /// The registry.
        host: String,
        /// What was fetched.
        what: String,
        /// Bytes that came.
        received: u64,
        /// Bytes that were declared.
        expected: u64,
    },
    /// Content that is not what its digest says.
    #[error("wrong digest of {what} from registry `{host}`: {found} instead of {expected}")]
    Digest {
        /// The registry.
        host: String,
        /// What was fetched.
        what: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
}

impl RegistryError {
    /// Whether the same request may be sent again within this pull, and after which pause at least.
    pub(super) fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { source, .. } if certificate_refused(source) => Retry::Never,
            Self::Unreachable { source, .. } if source.is_timeout() => Retry::AfterProgress,
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Truncated { .. } => Retry::Backoff(None),
            Self::Stalled { .. } | Self::TooSlow { .. } => Retry::AfterProgress,
            Self::RateLimited { after, .. } => Retry::Backoff(*after),
            Self::Status { status: 408 | 425 | 500 | 502..=504, after, .. } => Retry::Backoff(*after),
            _ => Retry::Never,
        }
    }

    /// What it means for another pull later.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::BadHost { .. }
            | Self::NoRoots { .. }
            | Self::Certificate { .. }
            | Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::Login { .. } => FailureClass::Permanent,
            Self::Status { status, .. } if (400..500).contains(status) && !matches!(status, 408 | 425) => {
                FailureClass::Permanent
            }
            _ => FailureClass::Transient,
        }
    }

    /// Something the reader can do.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::BadHost { .. } => "check the image reference and the `registries` table of the configuration".into(),
            Self::NoRoots { .. } => {
                "install the package `ca-certificates`, or point SSL_CERT_FILE at a PEM file with CA certificates"
                    .into()
            }
            Self::Certificate { .. } => "check `ca_files`, `client_cert` and `client_key` of this host".into(),
            Self::Unreachable { host, source } => unreachable_hint(host, source),
            Self::Broken { host, .. } => format!("check the network to `{host}` and the proxies on the way"),
            Self::Stalled { host, .. } | Self::TooSlow { host, .. } | Self::TooLate { host, .. } => {
                format!("check the network to `{host}`; the limit is `stall_limit` in the configuration")
            }
            Self::NotFound { .. } => "check the name and the tag of the image".into(),
            Self::Denied { host, .. } => format!(
                "log in with `docker login {host}` or name a secret for `{host}` in imagePullSecrets; \
                 a registry also says this for an image that does not exist"
            ),
            Self::RateLimited { host, .. } => {
                format!("log in to `{host}`, use a mirror, or wait until the limit is over")
            }
            Self::Status { host, .. } | Self::Malformed { host, .. } | Self::Redirect { host, .. } => {
                format!("check that `{host}` is an OCI registry and that no proxy answers in its place")
            }
            Self::Login { host, .. } => format!("check the settings of `{host}` and of its token service"),
            Self::NoRole { .. } => {
                "check that the instance's metadata service and the API of ECR can be reached from this host".into()
            }
            Self::TooLarge { .. } | Self::Length { .. } | Self::Truncated { .. } | Self::Digest { .. } => {
                "what the registry or a proxy sent is not what the image says; nothing of it was kept".into()
            }
        }
    }
}

fn unreachable_hint(host: &str, source: &reqwest::Error) -> String {
    let chain = spec::causes::chain(source);
    if certificate_refused(source) {
        format!("add the CA of `{host}` to the system's certificates or to `ca_files` of this host")
    } else if chain.contains("InvalidContentType") {
        format!("`{host}` seems to speak http without TLS; if that is meant, set `plain_http = true` for it")
    } else if chain.contains("dns error") || chain.contains("lookup") {
        format!("the name `{host}` does not resolve: check it and /etc/resolv.conf")
    } else {
        format!("check that `{host}` is up and reachable from this host, and the proxy variables if you use one")
    }
}

fn certificate_refused(source: &reqwest::Error) -> bool {
    spec::causes::chain(source).contains("invalid peer certificate")
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// It would fail again.
    Never,
    /// Only when much came before: a registry that stalls must not hold a pull for longer than the limit.
    AfterProgress,
    /// After a pause, at least this long when the registry asks for it.
    Backoff(Option<Duration>),
}

fn seconds(limit: Duration) -> String {
    format!("{}s", limit.as_secs_f32())
}

/// Outside text for people: control characters (line breaks, terminal sequences, bidi overrides) become spaces,
/// runs of spaces one, and it is cut after `max` characters.
pub(crate) fn clean(text: &str, max: usize) -> String {
    let mut out = String::new();
    let mut count = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control() || is_format(c)).filter(|w| !w.is_empty()) {
        for c in (if out.is_empty() { None } else { Some(' ') }).into_iter().chain(word.chars()) {
            if count == max {
                out.push_str("...");
                return out;
            }
            out.push(c);
            count += 1;
        }
    }
    out
}

/// Invisible characters that change how the text around them is shown (Unicode category Cf, the common ones).
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffd}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_text_is_made_harmless() {
        for (text, max, expected) in [
            ("plain", 10, "plain"),
            ("two  words\r\n", 20, "two words"),
            ("\u{1b}[31mred\u{7}", 20, "[31mred"),
            ("a\u{202e}b", 20, "a b"),
            ("abcdef", 3, "abc..."),
            ("", 3, ""),
        ] {
            assert_eq!(clean(text, max), expected);
        }
    }
}
