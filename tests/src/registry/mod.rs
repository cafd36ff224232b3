//! An OCI distribution registry on loopback, read only, on std threads, with switchable faults.
//!
//! It follows the OCI distribution specification 1.1 (pull) and the token flow of Docker's registry: enough that
//! skopeo and the product cannot tell it from a real one, apart from the faults. Its sockets are in the network namespace
//! of the thread that starts it.

mod serve;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::image::{Image, digest};

/// Who may pull.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Auth {
    /// Everybody.
    #[default]
    Anonymous,
    /// Whoever sends this user and password.
    Basic(String, String),
    /// Whoever has a token, which the registry's own `/token` gives to anybody.
    BearerAnonymous,
    /// Whoever has a token, which `/token` gives for this user and password.
    Bearer(String, String),
}

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed without an answer.
    Down,
    /// An answer with this status and an error body of the specification.
    Status(u16),
    /// 429 with `Retry-After` in seconds.
    TooMany(u64),
    /// The body ends after so many bytes although the length was promised whole.
    Truncate(usize),
    /// The body has its last byte changed.
    Corrupt,
    /// The body comes in chunks of so many bytes with a pause before each.
    Slow(usize, Duration),
    /// No byte of the body ever comes; the connection stays open.
    Stall,
    /// 307 to the same content on another port (another origin), as registries do with their object stores.
    Redirect,
    /// Ranges are ignored: the whole body with 200.
    NoRanges,
}

/// A fault with the requests that it hits.
#[derive(Debug, Clone)]
struct Rule {
    part: String,
    fault: Fault,
    times: Option<u32>,
}

/// One request as it was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `GET` or `HEAD`.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Whether it carried credentials.
    pub authorized: bool,
    /// The `Range` header.
    pub range: Option<String>,
    /// Whether it came to the second origin that redirects lead to.
    pub redirected: bool,
    /// Number of the TCP connection that it came on, from 0.
    pub connection: usize,
}

/// Media type and bytes of each manifest of a repository, by tag and by digest.
type Tags = BTreeMap<String, (String, Arc<Vec<u8>>)>;

#[derive(Default)]
struct Shared {
    auth: Auth,
    manifests: BTreeMap<String, Tags>,
    blobs: BTreeMap<String, Arc<Vec<u8>>>,
    rules: Vec<Rule>,
    seen: Vec<Seen>,
    connections: usize,
}

struct Inner {
    address: SocketAddr,
    second: SocketAddr,
    stopping: AtomicBool,
    // Guards content, rules and records; held only to look up and to note, never while sending.
    shared: Mutex<Shared>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running registry; it ends when dropped.
pub struct Registry {
    inner: Arc<Inner>,
    acceptors: Vec<JoinHandle<()>>,
}

impl Registry {
    /// Starts one that everybody may pull from, on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When loopback has no free port or is down.
    pub fn start() -> Self {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Starts one on an address, for a registry that comes back where it was.
    ///
    /// # Panics
    /// When the address is taken.
    pub fn start_on(address: SocketAddr) -> Self {
        let bind = |address: SocketAddr| {
            TcpListener::bind(address).unwrap_or_else(|e| panic!("cannot listen on {address}: {e}"))
        };
        let (main, second) = (bind(address), bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
        let local = |listener: &TcpListener| listener.local_addr().expect("a bound listener has an address");
        let inner = Arc::new(Inner {
            address: local(&main),
            second: local(&second),
            stopping: AtomicBool::new(false),
            shared: Mutex::default(),
        });
        let acceptors = [(main, false), (second, true)]
            .into_iter()
            .map(|(listener, redirected)| {
                let inner = Arc::clone(&inner);
                std::thread::spawn(move || serve::accept(&listener, &inner, redirected))
            })
            .collect();
        Self { inner, acceptors }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// The reference of a tag on this registry: `127.0.0.1:PORT/repository:tag`.
    pub fn reference(&self, repository_and_tag: &str) -> String {
        format!("{}/{repository_and_tag}", self.inner.address)
    }

    /// Asks for credentials from now on.
    pub fn require(&self, auth: Auth) {
        self.inner.lock().auth = auth;
    }

    /// Puts an image under `repository:tag` and returns its whole reference.
    pub fn push(&self, repository_and_tag: &str, image: &Image) -> String {
        let (repository, tag) = repository_and_tag.rsplit_once(':').unwrap_or((repository_and_tag, "latest"));
        let mut shared = self.inner.lock();
        shared.blobs.extend(image.blobs.clone());
        let manifests = shared.manifests.entry(repository.to_owned()).or_default();
        manifests.extend(image.manifests.clone());
        let top = image.manifests.get(image.digest()).expect("an image holds its top manifest").clone();
        manifests.insert(tag.to_owned(), top);
        drop(shared);
        self.reference(repository_and_tag)
    }

    /// Puts an artifact of these layers under `repository:tag` and returns its digest. Each layer is a media type, a
    /// title that the layer may have, and its bytes (OCI image specification, "Guidelines for Artifact Usage").
    pub fn push_artifact(&self, repository_and_tag: &str, layers: &[(&str, Option<&str>, Vec<u8>)]) -> String {
        const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
        let (repository, tag) = repository_and_tag.rsplit_once(':').unwrap_or((repository_and_tag, "latest"));
        let mut shared = self.inner.lock();
        let mut described = Vec::new();
        for (media_type, title, bytes) in layers {
            let name = digest(bytes);
            let mut layer = json!({"mediaType": media_type, "digest": name, "size": bytes.len()});
            if let (Some(title), Some(layer)) = (title, layer.as_object_mut()) {
                layer.insert("annotations".to_owned(), json!({"org.opencontainers.image.title": title}));
            }
            described.push(layer);
            shared.blobs.insert(name, Arc::new(bytes.clone()));
        }
        let config = Arc::new(b"{}".to_vec());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.cncf.flux.config.v1+json",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(&config), "size": config.len()},
            "layers": described,
        });
        shared.blobs.insert(digest(&config), config);
        let manifest = Arc::new(manifest.to_string().into_bytes());
        let name = digest(&manifest);
        let manifests = shared.manifests.entry(repository.to_owned()).or_default();
        for key in [name.as_str(), tag] {
            manifests.insert(key.to_owned(), (MANIFEST.to_owned(), Arc::clone(&manifest)));
        }
        name
    }

    /// Takes a tag away; its manifests stay reachable by digest.
    pub fn untag(&self, repository: &str, tag: &str) {
        if let Some(manifests) = self.inner.lock().manifests.get_mut(repository) {
            manifests.remove(tag);
        }
    }

    /// Makes requests whose path contains `part` go wrong, until [`Registry::heal`].
    pub fn fail(&self, part: &str, fault: Fault) {
        self.inner.lock().rules.push(Rule { part: part.to_owned(), fault, times: None });
    }

    /// Makes the next `times` requests whose path contains `part` go wrong.
    pub fn fail_times(&self, part: &str, fault: Fault, times: u32) {
        self.inner.lock().rules.push(Rule { part: part.to_owned(), fault, times: Some(times) });
    }

    /// No more faults.
    pub fn heal(&self) {
        self.inner.lock().rules.clear();
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.inner.lock().seen.clone()
    }

    /// Number of requests whose path contains `part`.
    pub fn count(&self, part: &str) -> usize {
        self.inner.lock().seen.iter().filter(|seen| seen.path.contains(part)).count()
    }

    /// Number of TCP connections so far.
    pub fn connections(&self) -> usize {
        self.inner.lock().connections
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.inner.lock().seen.clear();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptors; when that fails they have ended already.
        for address in [self.inner.address, self.inner.second] {
            drop(std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)));
        }
        for thread in self.acceptors.drain(..) {
            drop(thread.join());
        }
    }
}
