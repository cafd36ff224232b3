//! A registry on loopback that can be told to misbehave, and an image for it to serve.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::json;
use spec::digest::Digest;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: String,
    /// How many requests with this method and target came before it.
    pub(super) count: usize,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }

    pub(super) fn is_manifest(&self) -> bool {
        self.target.contains("/manifests/")
    }

    pub(super) fn is_blob(&self, digest: Digest) -> bool {
        self.target.contains(&format!("/blobs/{digest}"))
    }
}

/// What a reply does, in order.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Send(Vec<u8>),
    /// Again and again until the other side goes away.
    Endless(Vec<u8>),
    /// One byte of it at a time, with a pause.
    Drip(Vec<u8>, Duration),
    /// Nothing, until the other side goes away.
    Hang,
    /// The connection ends.
    Close,
    /// The connection ends without goodbye.
    Reset,
}

/// A reply: a proper one, or any steps.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Http { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    Steps(Vec<Step>),
}

impl Reply {
    /// What goes over the wire.
    pub(super) fn steps(self, request: &Request) -> Vec<Step> {
        match self {
            Self::Steps(steps) => steps,
            Self::Http { status, headers, body } => {
                let mut head = format!("HTTP/1.1 {status} x\r\n");
                for (name, value) in &headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
                    head.push_str(&format!("content-length: {}\r\n", body.len()));
                }
                head.push_str("\r\n");
                let body = if request.method == "HEAD" { Vec::new() } else { body };
                vec![Step::Send([head.into_bytes(), body].concat())]
            }
        }
    }
}

pub(super) fn http(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Reply::Http { status, headers, body: body.into() }
}

pub(super) fn raw(text: impl Into<Vec<u8>>) -> Reply {
    Reply::Steps(vec![Step::Send(text.into()), Step::Close])
}

pub(super) type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server on its own port; it ends with the value.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<Weak<TcpStream>>>>,
}

impl Server {
    pub(super) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, handler)
    }

    /// With TLS.
    pub(super) fn start_with(
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let handler: Arc<Handler> = Arc::new(handler);
        let (log, stop, open) =
            (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let shared = (Arc::clone(&log), Arc::clone(&stop), Arc::clone(&open));
        std::thread::spawn(move || {
            let (log, stop, open) = shared;
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let stream = Arc::new(stream);
                open.lock().expect("the list").push(Arc::downgrade(&stream));
                let (handler, log, stop) = (Arc::clone(&handler), Arc::clone(&log), Arc::clone(&stop));
                let tls = tls.clone();
                std::thread::spawn(move || match tls {
                    None => serve(&stream, &mut &*stream, &*handler, &log, &stop),
                    Some(config) => {
                        let mut session = rustls::ServerConnection::new(config).expect("a TLS session");
                        let mut socket = &*stream;
                        serve(&stream, &mut rustls::Stream::new(&mut session, &mut socket), &*handler, &log, &stop);
                    }
                });
            }
        });
        Self { address, log, stop, open }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.log.lock().expect("the log").clone()
    }

    /// How many requests had this in their target.
    pub(super) fn count(&self, part: &str) -> usize {
        self.requests().iter().filter(|request| request.target.contains(part)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for stream in self.open.lock().expect("the list").iter().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = TcpStream::connect(self.address);
    }
}

/// What a connection is read from and written to.
trait Wire: std::io::Read + std::io::Write {}
impl<T: std::io::Read + std::io::Write> Wire for T {}

fn serve(socket: &TcpStream, stream: &mut dyn Wire, handler: &Handler, log: &Mutex<Vec<Request>>, stop: &AtomicBool) {
    let _ = socket.set_nodelay(true);
    while let Some(mut request) = read_request(stream) {
        {
            let mut log = log.lock().expect("the log");
            request.count = log.iter().filter(|r| r.target == request.target && r.method == request.method).count();
            log.push(request.clone());
        }
        let steps = handler(&request).steps(&request);
        for step in steps {
            match step {
                Step::Send(bytes) if stream.write_all(&bytes).is_err() => return,
                Step::Send(_) => {}
                Step::Endless(bytes) => {
                    while !stop.load(Ordering::SeqCst) && stream.write_all(&bytes).is_ok() {}
                    return;
                }
                Step::Drip(bytes, pause) => {
                    for byte in bytes {
                        if stop.load(Ordering::SeqCst) || stream.write_all(&[byte]).is_err() {
                            return;
                        }
                        // A slow registry is what this plays.
                        std::thread::park_timeout(pause);
                    }
                }
                Step::Hang => {
                    let _ = stream.read(&mut [0]);
                    return;
                }
                Step::Close => {
                    let _ = socket.shutdown(Shutdown::Both);
                    return;
                }
                Step::Reset => {
                    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                    let _ = nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::Linger, &linger);
                    return;
                }
            }
        }
    }
}

fn read_request(stream: &mut dyn Wire) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if head.len() > 64 * 1024 || stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
        // A TLS handshake: web servers say so in plain text.
        if head == [0x16] {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
            return None;
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Request { method, target, headers, body: String::from_utf8_lossy(&body).into_owned(), count: 0 })
}

/// One layer of the image.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) diff_id: Digest,
    pub(super) media_type: &'static str,
}

/// An image to serve.
#[derive(Debug, Clone)]
pub(super) struct TestImage {
    pub(super) layers: Vec<Layer>,
    pub(super) config: Vec<u8>,
    pub(super) manifest: Vec<u8>,
}

/// Bytes that do not compress, so that a layer has the size it is asked for.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    // Written as it is: the crate would refuse the names that matter here.
    let field = &mut header.as_old_mut().name;
    field.iter_mut().zip(name.bytes()).for_each(|(slot, byte)| *slot = byte);
    header.set_cksum();
    builder.append(&header, content).expect("an entry");
    builder.into_inner().expect("an archive")
}

pub(super) fn layer(kind: &str, name: &str, content: &[u8]) -> Layer {
    let plain = tar(name, content);
    let diff_id = Digest::of(&plain);
    let (bytes, media_type) = match kind {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&plain).expect("gzip");
            (encoder.finish().expect("gzip"), OCI_GZIP)
        }
        "zstd" => (zstd::encode_all(&*plain, 1).expect("zstd"), "application/vnd.oci.image.layer.v1.tar+zstd"),
        _ => (plain, "application/vnd.oci.image.layer.v1.tar"),
    };
    Layer { digest: Digest::of(&bytes), bytes, diff_id, media_type }
}

impl TestImage {
    pub(super) fn new(layers: Vec<Layer>) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/app"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let descriptors: Vec<_> = layers
            .iter()
            .map(|l| json!({"mediaType": l.media_type, "digest": l.digest, "size": l.bytes.len()}))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": Digest::of(&config), "size": config.len()},
            "layers": descriptors,
        });
        Self { layers, config, manifest: manifest.to_string().into_bytes() }
    }

    /// One small and one larger layer.
    pub(super) fn usual() -> Self {
        Self::new(vec![layer("gzip", "etc/motd", b"hello"), layer("gzip", "bin/app", &noise(7, 300_000))])
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub(super) fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }

    pub(super) fn last(&self) -> &Layer {
        self.layers.last().expect("a layer")
    }

    /// The manifest as JSON, to change.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.manifest).expect("its own manifest")
    }

    /// What a well-behaved registry answers.
    pub(super) fn answer(&self, request: &Request) -> Reply {
        if request.is_manifest() {
            let digest = self.digest().to_string();
            if request.target.contains("sha256:") && !request.target.contains(&digest) {
                return http(404, &[], r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#);
            }
            return http(
                200,
                &[("content-type", OCI_MANIFEST), ("docker-content-digest", &digest)],
                self.manifest.clone(),
            );
        }
        let blobs = self.layers.iter().map(|l| (l.digest, &l.bytes)).chain([(self.config_digest(), &self.config)]);
        for (digest, bytes) in blobs {
            if request.is_blob(digest) {
                return blob(request, bytes);
            }
        }
        http(404, &[], r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"unknown"}]}"#)
    }
}

/// A blob, or the part of it that is asked for.
pub(super) fn blob(request: &Request, bytes: &[u8]) -> Reply {
    let first = request.header("range").strip_prefix("bytes=").and_then(|r| r.strip_suffix('-'));
    match first.and_then(|first| first.parse::<usize>().ok()) {
        Some(first) => {
            let range = format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
            http(206, &[("content-range", &range)], bytes.get(first..).expect("inside").to_vec())
        }
        None => http(200, &[("content-type", "application/octet-stream")], bytes.to_vec()),
    }
}

/// A 200 whose body is cut after `keep` bytes, while its length says more.
pub(super) fn truncated(bytes: &[u8], keep: usize) -> Reply {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.len());
    raw([head.as_bytes(), bytes.get(..keep).expect("inside")].concat())
}

/// A manifest of any content.
pub(super) fn manifest(value: &serde_json::Value) -> Reply {
    let kind = value.get("mediaType").and_then(serde_json::Value::as_str).unwrap_or(OCI_MANIFEST).to_owned();
    http(200, &[("content-type", &kind)], value.to_string())
}
