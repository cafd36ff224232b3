//! Requests to registries: connections, redirects, status codes.
//!
//! Redirects are followed here and not by the HTTP library, because each one is a decision: no login crosses hosts,
//! nothing falls back to http without TLS, and nobody is sent to this machine's loopback from outside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use spec::digest::Digest;
use tokio::time::{Instant, timeout};

use super::auth::{Logins, Tokens};
use super::body::{Body, Pace};
use super::errors::{RegistryError, clean};
use super::hosts::{Endpoint, RegistryConfig, authority, is_loopback};
use super::retry::Retries;
use super::tls;
use crate::api::PullCredentials;
use crate::image::credentials::CredentialFiles;

/// Redirects that are followed for one request.
const MAX_REDIRECTS: usize = 10;
/// Largest manifest or index (OCI distribution specification, "Pushing Manifests": registries accept 4 MiB).
pub(super) const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// What a manifest request accepts; schema 1 is left out so that registries convert or refuse.
const ACCEPT_MANIFEST: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Shared by all pulls of this process.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    config: RegistryConfig,
    files: CredentialFiles,
    roots: OnceLock<tls::Roots>,
    /// One HTTP client per set of TLS settings. Held only to look up or insert.
    clients: Mutex<HashMap<String, reqwest::Client>>,
    tokens: Tokens,
    #[cfg(feature = "ecr")]
    passwords: super::ecr::Passwords,
    /// When the bandwidth limit lets the next byte through. Held only to compute.
    next_byte: Mutex<Instant>,
}

impl Client {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        let files = match &config.credential_files {
            Some(paths) => CredentialFiles::new(paths.clone()),
            None => CredentialFiles::usual(),
        };
        Self(Arc::new(Inner {
            config,
            files,
            roots: OnceLock::new(),
            clients: Mutex::new(HashMap::new()),
            tokens: Tokens::default(),
            #[cfg(feature = "ecr")]
            passwords: super::ecr::Passwords::default(),
            next_byte: Mutex::new(Instant::now()),
        }))
    }

    pub(crate) fn config(&self) -> &RegistryConfig {
        &self.0.config
    }

    /// One repository at one place, with the logins of one pull.
    pub(crate) fn session(&self, endpoint: Endpoint, secrets: Arc<PullCredentials>) -> Session {
        let logins = Logins::new(&endpoint, secrets);
        Session { client: self.clone(), endpoint, logins }
    }

    pub(super) fn files(&self) -> &CredentialFiles {
        &self.0.files
    }

    #[cfg(feature = "ecr")]
    pub(super) fn passwords(&self) -> &super::ecr::Passwords {
        &self.0.passwords
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// Waits until the bandwidth limit allows what has just come.
    pub(super) async fn throttle(&self, bytes: usize) {
        let Some(rate) = self.0.config.bytes_per_second else { return };
        let until = {
            let mut next = self.0.next_byte.lock().unwrap_or_else(PoisonError::into_inner);
            *next = (*next).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            *next
        };
        tokio::time::sleep_until(until).await;
    }

    pub(super) fn pace(&self) -> Pace {
        Pace { stall_limit: self.0.config.stall_limit, min_rate: self.0.config.min_bytes_per_second }
    }

    /// The HTTP client for an address.
    fn http(&self, url: &Url) -> Result<reqwest::Client, RegistryError> {
        let secure = url.scheme() == "https";
        let host = self.0.config.host(url).filter(|host| secure && host.own_tls());
        // The metadata service of clouds is as near as loopback.
        let loopback = is_loopback(url) || url.host_str() == Some("169.254.169.254");
        let key = match (&host, loopback) {
            (Some(_), _) => format!("{secure} host {}", authority(url)),
            (None, true) => format!("{secure} loopback"),
            (None, false) => format!("{secure}"),
        };
        let known = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(client) = known {
            return Ok(client);
        }
        // Reading the certificates takes a moment; who speaks plain http only never does.
        let roots = match secure {
            true => self.0.roots.get_or_init(tls::Roots::of_system),
            false => &tls::Roots::none(),
        };
        if secure && roots.is_empty() && host.is_none_or(|host| host.ca_files.is_empty()) {
            return Err(RegistryError::NoRoots { host: authority(url), looked: roots.looked.clone() });
        }
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(roots, host)?)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.0.config.connect_timeout)
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("mainstay/", env!("CARGO_PKG_VERSION")))
            .referer(false)
            // Windows for about 100 MB/s at 20 ms; they bound the memory of a transfer.
            .http2_initial_stream_window_size(2 * 1024 * 1024)
            .http2_initial_connection_window_size(4 * 1024 * 1024)
            .http2_max_header_list_size(64 * 1024);
        if loopback {
            // A proxy could not reach this machine's own addresses (Go's clients leave them out as well).
            builder = builder.no_proxy();
        }
        let client = builder
            .build()
            .map_err(|error| RegistryError::BadHost { host: authority(url), reason: error.to_string() })?;
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(key, client.clone());
        Ok(client)
    }

    /// Sends one request and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: HeaderMap,
        form: Option<&[(&str, &str)]>,
    ) -> Result<reqwest::Response, RegistryError> {
        let mut request = self.http(url)?.request(method.clone(), url.clone()).headers(headers);
        if let Some(form) = form {
            request = request.form(form);
        }
        self.head(url, request).await
    }

    /// Sends one request with a body.
    #[cfg(feature = "ecr")]
    pub(super) async fn send_body(
        &self,
        method: &Method,
        url: &Url,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<reqwest::Response, RegistryError> {
        let request = self.http(url)?.request(method.clone(), url.clone()).headers(headers).body(body);
        self.head(url, request).await
    }

    async fn head(&self, url: &Url, request: reqwest::RequestBuilder) -> Result<reqwest::Response, RegistryError> {
        let host = authority(url);
        // The time to connect is part of it; the connection has a shorter limit of its own.
        let limit = self.0.config.stall_limit;
        match timeout(limit, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) if source.is_connect() => {
                Err(RegistryError::Unreachable { host, source: source.without_url() })
            }
            Ok(Err(source)) => Err(RegistryError::Broken { host, source: source.without_url() }),
            Err(_) => Err(RegistryError::Stalled { host, limit }),
        }
    }

    /// Where a redirect leads, when it may be followed.
    pub(super) fn redirect(&self, from: &Url, headers: &HeaderMap) -> Result<Url, RegistryError> {
        let host = authority(from);
        let refuse = |reason: &str| RegistryError::Redirect { host: host.clone(), reason: reason.to_owned() };
        let mut locations = headers.get_all(header::LOCATION).iter();
        let location = locations.next().ok_or_else(|| refuse("it has no Location"))?;
        if locations.next().is_some() {
            return Err(refuse("it has several Locations"));
        }
        let location = location.to_str().map_err(|_| refuse("its Location is not text"))?;
        if location.trim().is_empty() {
            return Err(refuse("its Location is empty"));
        }
        if location.len() > 16 * 1024 {
            return Err(refuse("its Location is longer than 16 KiB"));
        }
        let mut url = from.join(location).map_err(|error| {
            refuse(&format!("its Location `{}` is not an address: {error}", clean(without_query(location), 80)))
        })?;
        url.set_fragment(None);
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(refuse(&format!("`{}:` is neither http nor https", clean(url.scheme(), 20))));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("its Location holds a user name"));
        }
        if same_origin(from, &url) {
            return Ok(url);
        }
        let to = authority(&url);
        if url.scheme() == "http" && from.scheme() == "https" {
            return Err(refuse(&format!("it leads from https to http without TLS (`{to}`)")));
        }
        if is_loopback(&url) && !is_loopback(from) {
            return Err(refuse(&format!("it leads to this machine (`{to}`)")));
        }
        if !self.0.config.may_use(&url) {
            return Err(refuse(&format!("`{to}` would be asked over http without TLS")));
        }
        Ok(url)
    }
}

/// Whether two addresses have the same scheme, host and port.
pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

fn without_query(text: &str) -> &str {
    text.split_once('?').map_or(text, |(path, _)| path)
}

/// One repository at one place, for one pull.
pub(crate) struct Session {
    pub(super) client: Client,
    pub(super) endpoint: Endpoint,
    pub(super) logins: Logins,
}

/// An answer with its final status, and who gave it.
pub(super) struct Reply {
    pub(super) response: reqwest::Response,
    pub(super) host: String,
}

/// A manifest or index as it came.
pub(crate) struct RawManifest {
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// Their digest.
    pub(crate) digest: Digest,
    /// Media type of the answer, without parameters.
    pub(crate) content_type: Option<String>,
}

impl Session {
    /// The registry or mirror, by the name people know it by.
    pub(crate) fn host(&self) -> &str {
        &self.endpoint.name
    }

    /// The manifest that a tag or digest names. Its digest is checked before anyone reads it.
    pub(crate) async fn manifest(
        &self,
        reference: &str,
        expected: Option<(Digest, Option<u64>)>,
    ) -> Result<RawManifest, RegistryError> {
        let what = match expected {
            Some((digest, Some(_))) => format!("manifest {digest}"),
            _ => "image".to_owned(),
        };
        let mut retries = Retries::new(self.client.config());
        loop {
            match self.manifest_once(reference, expected, &what).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => retries.after(error).await?,
            }
        }
    }

    async fn manifest_once(
        &self,
        reference: &str,
        expected: Option<(Digest, Option<u64>)>,
        what: &str,
    ) -> Result<RawManifest, RegistryError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT_MANIFEST));
        let reply = self.request(&Method::GET, self.endpoint.manifest(reference), headers, what).await?;
        let Reply { response, host } = reply.expect_status(what, StatusCode::OK).await?;
        let content_type = match response.headers().get(header::CONTENT_TYPE) {
            Some(value) => {
                let text = String::from_utf8_lossy(value.as_bytes());
                let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
                Some(kind).filter(|kind| !kind.is_empty())
            }
            None => None,
        };
        if content_type.as_deref() == Some("text/html") {
            let reason = "a web page instead of a manifest".to_owned();
            return Err(RegistryError::Malformed { host, reason });
        }
        let stated = stated_digest(response.headers(), &host)?;
        let bytes = Body::new(response, host.clone(), self.client.pace()).document(what, MAX_MANIFEST).await?;
        let digest = Digest::of(&bytes);
        let what = what.to_owned();
        if let Some((expected, size)) = expected {
            if let Some(expected) = size.filter(|size| *size != bytes.len() as u64) {
                return Err(RegistryError::Length { host, what, expected, found: bytes.len() as u64 });
            }
            if expected != digest {
                return Err(RegistryError::Digest { host, what, expected, found: digest });
            }
        }
        if let Some(expected) = stated.filter(|stated| *stated != digest) {
            let what = format!("{what} (Docker-Content-Digest)");
            return Err(RegistryError::Digest { host, what, expected, found: digest });
        }
        Ok(RawManifest { bytes, digest, content_type })
    }

    /// The digest that a tag has now, when the registry tells it without sending the manifest.
    pub(crate) async fn head(&self, reference: &str) -> Result<Option<Digest>, RegistryError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT_MANIFEST));
        let reply = self.request(&Method::HEAD, self.endpoint.manifest(reference), headers, "image").await?;
        if reply.response.status() != StatusCode::OK {
            return Ok(None);
        }
        stated_digest(reply.response.headers(), &reply.host)
    }

    /// Sends a request, logs in when asked to, and follows redirects; any final status is an answer.
    ///
    /// Two stall limits are its time in all: redirects and logins must not each use up one.
    pub(super) async fn request(
        &self,
        method: &Method,
        address: Url,
        headers: HeaderMap,
        what: &str,
    ) -> Result<Reply, RegistryError> {
        let limit = self.client.config().stall_limit * 2;
        match timeout(limit, self.exchange(method, address, headers, what)).await {
            Ok(reply) => reply,
            Err(_) => Err(RegistryError::TooLate { host: self.endpoint.name.clone(), what: what.to_owned(), limit }),
        }
    }

    async fn exchange(
        &self,
        method: &Method,
        address: Url,
        headers: HeaderMap,
        what: &str,
    ) -> Result<Reply, RegistryError> {
        let mut url = address;
        let mut redirects = 0;
        let mut login = self.logins.current(&self.client);
        let mut attempts = 0;
        let mut pinged = false;
        loop {
            let mut headers = headers.clone();
            let ours = same_origin(&url, &self.endpoint.base);
            if let Some(login) = login.as_ref().filter(|_| ours) {
                headers.insert(header::AUTHORIZATION, login.header.clone());
            }
            let response = self.client.send(method, &url, headers, None).await?;
            let host = if ours { self.endpoint.name.clone() } else { authority(&url) };
            match response.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if ours => {
                    let answer = self.logins.answer(&self.client, self, response, login.as_ref(), attempts).await?;
                    login = Some(answer);
                    attempts += 1;
                }
                // Registries with public parts hide the others from strangers; who has a login asks how to use it.
                StatusCode::NOT_FOUND
                    if ours && login.is_none() && !pinged && self.logins.any(&self.client, &self.endpoint).await =>
                {
                    pinged = true;
                    let ping = self.client.send(&Method::GET, &self.endpoint.ping(), HeaderMap::new(), None).await?;
                    if ping.status() != StatusCode::UNAUTHORIZED {
                        return Ok(Reply { response, host });
                    }
                    login = Some(self.logins.answer(&self.client, self, ping, None, attempts).await?);
                    attempts += 1;
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    redirects += 1;
                    if redirects > MAX_REDIRECTS {
                        let reason = format!("more than {MAX_REDIRECTS} redirects for {what}");
                        return Err(RegistryError::Redirect { host, reason });
                    }
                    url = self.client.redirect(&url, response.headers())?;
                }
                _ => {
                    let encoding = response.headers().get(header::CONTENT_ENCODING);
                    if encoding.is_some_and(|e| !e.is_empty() && !e.as_bytes().eq_ignore_ascii_case(b"identity")) {
                        let encoding = String::from_utf8_lossy(encoding.map_or(b"", |e| e.as_bytes())).into_owned();
                        let reason = format!("a Content-Encoding `{}` nobody asked for", clean(&encoding, 30));
                        return Err(RegistryError::Malformed { host, reason });
                    }
                    return Ok(Reply { response, host });
                }
            }
        }
    }
}

impl Reply {
    /// The answer when it has this status, else the error that it stands for.
    pub(super) async fn expect_status(self, what: &str, status: StatusCode) -> Result<Self, RegistryError> {
        if self.response.status() == status { Ok(self) } else { Err(self.into_error(what).await) }
    }

    /// The error that the status stands for, with what the registry says about it.
    pub(super) async fn into_error(self, what: &str) -> RegistryError {
        let Self { response, host } = self;
        let status = response.status();
        let after = retry_after(response.headers());
        let detail = detail(response).await;
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { host, what: what.to_owned(), detail },
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = after.map(|after| format!(", asks to wait {}s", after.as_secs())).unwrap_or_default();
                RegistryError::RateLimited { host, wait, detail, after }
            }
            _ => RegistryError::Status { host, what: what.to_owned(), status: status.as_u16(), detail, after },
        }
    }
}

/// `Docker-Content-Digest`, when it is one this host can check.
fn stated_digest(headers: &HeaderMap, host: &str) -> Result<Option<Digest>, RegistryError> {
    let mut found = None;
    for value in headers.get_all("docker-content-digest") {
        let malformed = || RegistryError::Malformed {
            host: host.to_owned(),
            reason: format!(
                "its Docker-Content-Digest `{}` is not a digest",
                clean(&String::from_utf8_lossy(value.as_bytes()), 80)
            ),
        };
        let text = value.to_str().map_err(|_| malformed())?.trim();
        // sha512 is registered too; the digest of a reference is what counts then.
        if text.strip_prefix("sha512:").is_some_and(|hex| hex.chars().all(|c| c.is_ascii_hexdigit())) {
            continue;
        }
        let digest = Digest::parse(text).map_err(|_| malformed())?;
        if found.is_some_and(|found| found != digest) {
            let reason = "two different Docker-Content-Digest headers".to_owned();
            return Err(RegistryError::Malformed { host: host.to_owned(), reason });
        }
        found = Some(digest);
    }
    Ok(found)
}

/// `Retry-After`, in seconds or as a date (RFC 9110 section 10.2.3). A date is compared with the one of the answer: this
/// host's clock may be wrong. Without that one it counts as absent.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let most = u64::from(u32::MAX);
    let text = |name| Some(headers.get(name)?.to_str().ok()?.trim());
    let after = text(header::RETRY_AFTER)?;
    let seconds = if !after.is_empty() && after.bytes().all(|b| b.is_ascii_digit()) {
        after.parse().unwrap_or(most)
    } else {
        let date = |text: &str| httpdate::parse_http_date(text).ok();
        let wait = date(after)?.duration_since(date(text(header::DATE)?)?);
        // A moment that is over asks for no wait.
        wait.map_or(0, |wait| wait.as_secs())
    };
    Some(Duration::from_secs(seconds.min(most)))
}

/// What an error answer says, as `: CODE: message`, shortened; empty when it says nothing of use.
///
/// Errors are objects with a list `errors` (OCI distribution specification, "Error Codes").
pub(super) async fn detail(mut response: reqwest::Response) -> String {
    let html = response.headers().get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/html"));
    let mut bytes = Vec::new();
    // Only of use for the message: little, and not waited for long.
    let read = async {
        while bytes.len() < 8 * 1024 {
            match response.chunk().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                _ => break,
            }
        }
    };
    let _ = timeout(Duration::from_secs(1), read).await;
    bytes.truncate(16 * 1024);
    let mut parts = Vec::new();
    if let Ok(body) = serde_json::from_slice::<serde_json::Value>(&bytes) {
        let list = body.get("errors").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
        for error in list.iter().take(3).chain([&body]) {
            for key in ["code", "__type", "error", "message", "error_description", "details"] {
                parts.extend(error.get(key).and_then(serde_json::Value::as_str).map(str::to_owned));
            }
        }
    } else if !html {
        parts.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    let text = clean(&parts.join(": "), 200);
    if text.is_empty() { text } else { format!(": {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_ask_to_wait_in_seconds_or_until_a_date() {
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (after, date, expected) in [
            ("7", None, Some(7)),
            (" 7 ", now, Some(7)),
            ("99999999999999999999", None, Some(u64::from(u32::MAX))),
            ("Sun, 06 Nov 1994 08:50:07 GMT", now, Some(30)),
            ("Sunday, 06-Nov-94 08:50:07 GMT", now, Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", now, Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", now, Some(u64::from(u32::MAX))),
            ("Sun, 06 Nov 1994 08:50:07 GMT", None, None),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some("today"), None),
            ("soon", now, None),
            ("-1", now, None),
            ("", now, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(after));
            headers.extend(date.map(|date| (header::DATE, HeaderValue::from_static(date))));
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{after} at {date:?}");
        }
    }
}
