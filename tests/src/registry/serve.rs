//! Connections of the registry: one thread each, requests one after the other (HTTP/1.1 keep-alive).

use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Auth, Fault, Inner, Seen};
use crate::http::Head;
use crate::image::digest;

const TOKEN: &str = "a-token-of-the-test-registry";

pub(super) fn accept(listener: &TcpListener, inner: &Arc<Inner>, redirected: bool) {
    for stream in listener.incoming() {
        if inner.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let inner = Arc::clone(inner);
        let connection = {
            let mut shared = inner.lock();
            shared.connections += 1;
            shared.connections - 1
        };
        // A client that goes away in the middle is part of the tests.
        std::thread::spawn(move || drop(converse(stream, &inner, connection, redirected)));
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Arc<Vec<u8>>,
}

impl Answer {
    fn new(status: u16, content_type: &str, body: Arc<Vec<u8>>) -> Self {
        Self { status, headers: vec![("Content-Type".into(), content_type.into())], body }
    }

    /// The error body of the OCI distribution specification.
    fn error(status: u16, code: &str) -> Self {
        let body = json!({"errors": [{"code": code, "message": format!("the test registry says {code}")}]});
        Self::new(status, "application/json", Arc::new(body.to_string().into_bytes()))
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

fn converse(mut stream: TcpStream, inner: &Inner, connection: usize, redirected: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A connection that nobody uses does not keep its thread for ever.
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(head) = Head::read(&mut reader)? {
        let mut words = head.first.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or("/").to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let fault = note(inner, &head, &method, path, connection, redirected);
        let mut answer = match &fault {
            Some(Fault::Down) => return Ok(()),
            Some(Fault::Status(status)) => Answer::error(*status, "UNKNOWN"),
            Some(Fault::TooMany(seconds)) => {
                Answer::error(429, "TOOMANYREQUESTS").with("Retry-After", seconds.to_string())
            }
            Some(Fault::Redirect) if !redirected => Answer::new(307, "text/plain", Arc::default())
                .with("Location", format!("http://{}{target}", inner.second)),
            _ => answer(inner, &head, path, query, redirected),
        };
        if answer.status == 200 && path.contains("/blobs/") && fault != Some(Fault::NoRanges) {
            answer = ranged(answer, head.header("range"));
        }
        let close = head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let body = if method == "HEAD" { None } else { Some(Arc::clone(&answer.body)) };
        send_head(&mut stream, &answer, close)?;
        if let Some(body) = body
            && !send_body(&mut stream, &body, fault.as_ref(), inner)?
        {
            return Ok(());
        }
        if close {
            return Ok(());
        }
    }
    Ok(())
}

/// Records a request and takes the fault that is due for it.
fn note(inner: &Inner, head: &Head, method: &str, path: &str, connection: usize, redirected: bool) -> Option<Fault> {
    let mut shared = inner.lock();
    shared.seen.push(Seen {
        method: method.to_owned(),
        path: path.to_owned(),
        authorized: head.header("authorization").is_some(),
        range: head.header("range").map(str::to_owned),
        redirected,
        connection,
    });
    let rule = shared.rules.iter_mut().find(|rule| path.contains(&rule.part) && rule.times != Some(0))?;
    if let Some(times) = &mut rule.times {
        *times -= 1;
    }
    Some(rule.fault.clone())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        307 => "Temporary Redirect",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

fn send_head(stream: &mut TcpStream, answer: &Answer, close: bool) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let connection = if close { "close" } else { "keep-alive" };
    text.push_str(&format!(
        "Docker-Distribution-Api-Version: registry/2.0\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
        answer.body.len()
    ));
    stream.write_all(text.as_bytes())
}

/// Sends a body with its fault; `false` when the connection is of no more use.
fn send_body(stream: &mut TcpStream, body: &[u8], fault: Option<&Fault>, inner: &Inner) -> io::Result<bool> {
    match fault {
        Some(Fault::Truncate(length)) => {
            stream.write_all(body.get(..*length).unwrap_or(body))?;
            Ok(false)
        }
        Some(Fault::Corrupt) => {
            let mut bytes = body.to_vec();
            if let Some(last) = bytes.last_mut() {
                *last ^= 0xff;
            }
            stream.write_all(&bytes)?;
            Ok(true)
        }
        Some(Fault::Slow(size, pause)) => {
            for chunk in body.chunks((*size).max(1)) {
                if inner.stopping.load(Ordering::SeqCst) {
                    return Ok(false);
                }
                std::thread::sleep(*pause);
                stream.write_all(chunk)?;
            }
            Ok(true)
        }
        Some(Fault::Stall) => {
            // Waits for the client to give up; the registry's end is noticed too.
            stream.set_read_timeout(Some(Duration::from_millis(100)))?;
            while !inner.stopping.load(Ordering::SeqCst) {
                match stream.peek(&mut [0]) {
                    Ok(0) => break,
                    Err(e) if !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                    Ok(_) | Err(_) => {}
                }
            }
            Ok(false)
        }
        _ => {
            stream.write_all(body)?;
            Ok(true)
        }
    }
}

/// RFC 9110, section 14: one range of bytes.
fn ranged(answer: Answer, range: Option<&str>) -> Answer {
    let length = answer.body.len();
    let Some((from, to)) = range.and_then(|r| r.strip_prefix("bytes=")).and_then(|r| r.split_once('-')) else {
        return answer.with("Accept-Ranges", "bytes");
    };
    let (Ok(from), to) = (from.parse::<usize>(), to.parse::<usize>().unwrap_or(usize::MAX)) else { return answer };
    let end = to.saturating_add(1).min(length);
    match answer.body.get(from..end) {
        Some(part) if from < length => {
            let mut partial = Answer::new(206, "application/octet-stream", Arc::new(part.to_vec()));
            partial = partial.with("Content-Range", format!("bytes {from}-{}/{length}", end - 1));
            partial
        }
        _ => Answer::error(416, "RANGE_INVALID").with("Content-Range", format!("bytes */{length}")),
    }
}

fn answer(inner: &Inner, head: &Head, path: &str, query: &str, redirected: bool) -> Answer {
    let shared = inner.lock();
    let sent = head.header("authorization").unwrap_or_default();
    let basic = |user: &str, password: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    if path == "/token" {
        let allowed = match &shared.auth {
            Auth::Bearer(user, password) => sent == basic(user, password),
            _ => true,
        };
        if !allowed {
            return Answer::error(401, "UNAUTHORIZED").with("WWW-Authenticate", "Basic realm=\"test\"");
        }
        if !query.contains("service=test-registry") {
            return Answer::error(400, "UNSUPPORTED");
        }
        let body = json!({"token": TOKEN, "access_token": TOKEN, "expires_in": 300});
        return Answer::new(200, "application/json", Arc::new(body.to_string().into_bytes()));
    }
    // The second origin is an object store with signed addresses: it wants no credentials.
    if !redirected {
        let challenge = match &shared.auth {
            Auth::Anonymous => None,
            Auth::Basic(user, password) if sent == basic(user, password) => None,
            Auth::Basic(..) => Some("Basic realm=\"test-registry\"".to_owned()),
            Auth::BearerAnonymous | Auth::Bearer(..) if sent == format!("Bearer {TOKEN}") => None,
            Auth::BearerAnonymous | Auth::Bearer(..) => {
                let scope =
                    repository(path).map(|name| format!(",scope=\"repository:{name}:pull\"")).unwrap_or_default();
                Some(format!("Bearer realm=\"http://{}/token\",service=\"test-registry\"{scope}", inner.address))
            }
        };
        if let Some(challenge) = challenge {
            return Answer::error(401, "UNAUTHORIZED").with("WWW-Authenticate", challenge);
        }
    }
    if path == "/v2/" || path == "/v2" {
        return Answer::new(200, "application/json", Arc::new(b"{}".to_vec()));
    }
    let Some(name) = repository(path) else { return Answer::error(404, "NAME_UNKNOWN") };
    let last = path.rsplit('/').next().unwrap_or_default();
    if path.contains("/manifests/") {
        return match shared.manifests.get(name).and_then(|known| known.get(last)) {
            Some((media_type, bytes)) => {
                Answer::new(200, media_type, Arc::clone(bytes)).with("Docker-Content-Digest", digest(bytes))
            }
            None => Answer::error(404, "MANIFEST_UNKNOWN"),
        };
    }
    if path.ends_with("/tags/list") {
        let tags: Vec<&String> = shared
            .manifests
            .get(name)
            .map(|known| known.keys().filter(|key| !key.contains(':')).collect())
            .unwrap_or_default();
        let body = json!({"name": name, "tags": tags});
        return Answer::new(200, "application/json", Arc::new(body.to_string().into_bytes()));
    }
    match shared.blobs.get(last) {
        Some(bytes) if shared.manifests.contains_key(name) => {
            Answer::new(200, "application/octet-stream", Arc::clone(bytes))
                .with("Docker-Content-Digest", last.to_owned())
        }
        _ => Answer::error(404, "BLOB_UNKNOWN"),
    }
}

/// The repository of `/v2/<name>/(manifests|blobs|tags)/...`.
fn repository(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v2/")?;
    ["/manifests/", "/blobs/", "/tags/"].iter().find_map(|part| rest.find(part).and_then(|at| rest.get(..at)))
}
