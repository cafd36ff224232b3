//! Pulling: from a reference to an image in the store.
//!
//! One stream per layer: network, hash of the compressed bytes, decompression, hash of the tar, files. Nothing is
//! visible before both hashes fit. Equal pulls that run at once are one; a layer is fetched once from a registry however
//! many images want it. No registry holds up what comes from another.

mod error;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use spec::digest::Digest;
use spec::image_ref::ImageRef;
use spec::pod::PullPolicy;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

pub use error::{PullError, PullFailure};

use super::artifact::Artifacts;
use super::credentials;
use super::pipe::{self, PipeReader, PipeWriter};
use super::progress::{self, Progress};
use super::registry::{
    Client, Config, Descriptor, Document, Ended, Endpoint, ManifestError, Platform, RawManifest, RegistryConfig,
    RegistryError, Session, Sink,
};
use super::store::{CompressedBlob, Image, PendingLayer, Store, StoreError};
use super::unpack::Compression;
use crate::api::{FailureClass, PullCredentials, PullProgress, Pulls, RunningPull};

/// Registries that may be sending as many layers as they are allowed to before others wait.
const MAX_BUSY: usize = 8;
/// An index may name another index, but not for ever.
const MAX_NESTED: usize = 3;

type Outcome = Result<Image, PullError>;
type Flying = Shared<BoxFuture<'static, Outcome>>;

/// Told of each pull that has something to fetch, before it does.
type Began = Box<dyn Fn(RunningPull) + Send + Sync>;

/// What one registry may have under way at once: one that drips holds up nobody who asks another.
struct Share {
    images: Semaphore,
    downloads: Semaphore,
}

/// What makes two downloads of a layer equal. What an image says of its layers is no promise: whoever waited for a layer
/// because another registry claims to send it might wait for ever.
#[derive(PartialEq, Eq, Hash)]
struct Download {
    host: String,
    diff_id: Digest,
    blob: Digest,
}

/// What makes two pulls equal.
#[derive(PartialEq, Eq, Hash)]
struct PullKey {
    reference: String,
    platform: Platform,
    secrets: [u8; 32],
}

/// A pull that runs. Held weakly: it ends when everyone who waited for it has gone.
struct Flight {
    reference: ImageRef,
    future: WeakShared<BoxFuture<'static, Outcome>>,
    progress: Arc<Progress>,
}

/// Pulls images into a store. Cheap to clone; all clones share connections, tokens, limits and running pulls.
#[derive(Clone)]
pub struct Puller(Arc<Inner>);

struct Inner {
    client: Client,
    store: Store,
    /// What each registry may have under way while anyone asks it. The map is held only to look up or insert.
    hosts: Mutex<HashMap<String, Weak<Share>>>,
    /// Layers that are unpacked at once, whoever sends them.
    unpacking: Semaphore,
    /// One lock a download while anyone wants it. The map is held only to look up or insert.
    layers: Mutex<HashMap<Download, Weak<tokio::sync::Mutex<()>>>>,
    /// Running pulls. Held only to look up or insert.
    pulls: Mutex<HashMap<PullKey, Flight>>,
    /// What tags stood for when they were last asked, by reference and platform: the digest of the manifest or index
    /// that the tag named, and of the image's manifest. Saves fetching manifests, which registries count.
    seen: Mutex<HashMap<(String, Platform), (Digest, Digest)>>,
    began: Option<Began>,
    /// Compressed bytes of layers that have come.
    fetched: AtomicU64,
}

impl Puller {
    /// Pulls into this store.
    #[must_use]
    pub fn new(store: Store, config: RegistryConfig) -> Self {
        Self::make(store, config, None)
    }

    /// The same, and tells of each pull that has something to fetch, before it does.
    pub(crate) fn telling(store: Store, config: RegistryConfig, began: Began) -> Self {
        Self::make(store, config, Some(began))
    }

    fn make(store: Store, config: RegistryConfig, began: Option<Began>) -> Self {
        let unpacking = Semaphore::new(config.parallel_downloads.max(1).saturating_mul(MAX_BUSY));
        Self(Arc::new(Inner {
            client: Client::new(config),
            store,
            hosts: Mutex::default(),
            unpacking,
            layers: Mutex::default(),
            pulls: Mutex::default(),
            seen: Mutex::default(),
            began,
            fetched: AtomicU64::new(0),
        }))
    }

    /// What goes on now.
    #[must_use]
    pub fn pulls(&self) -> Pulls {
        let pulls = self.0.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        let running = pulls.values().filter_map(|flight| {
            let runs = flight.future.upgrade().is_some_and(|future| future.peek().is_none());
            runs.then(|| flight.progress.now(flight.reference.clone()))
        });
        Pulls { running: running.collect(), fetched: self.0.fetched.load(Ordering::Relaxed) }
    }

    /// Fetches artifacts over the same connections.
    #[must_use]
    pub fn artifacts(&self) -> Artifacts {
        Artifacts::new(self.0.client.clone())
    }

    /// Makes an image available by its policy (Kubernetes, Container.imagePullPolicy).
    ///
    /// `platform` is `os/architecture[/variant]`; this host's when `None`.
    pub async fn pull(
        &self,
        reference: &ImageRef,
        policy: PullPolicy,
        platform: Option<&str>,
        credentials: &PullCredentials,
        progress: Option<UnboundedSender<PullProgress>>,
    ) -> Result<Image, PullError> {
        let platform = match platform {
            Some(text) => Platform::parse(text).map_err(PullFailure::Platform)?,
            None => Platform::of_host(),
        };
        let known = self.0.stored(reference).await?;
        match (policy, known) {
            (PullPolicy::IfNotPresent | PullPolicy::Never, Some(image)) => Ok(image),
            (PullPolicy::Never, None) => Err(PullFailure::NotInStore(reference.to_string()).into()),
            (PullPolicy::IfNotPresent | PullPolicy::Always, _) => {
                self.join(reference, platform, credentials, progress).await
            }
        }
    }

    /// Waits for an equal pull that runs, or starts one.
    fn join(
        &self,
        reference: &ImageRef,
        platform: Platform,
        secrets: &PullCredentials,
        listener: Option<UnboundedSender<PullProgress>>,
    ) -> Flying {
        let key = PullKey {
            reference: reference.to_string(),
            platform: platform.clone(),
            secrets: credentials::fingerprint(secrets),
        };
        let mut pulls = self.0.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        let running = pulls.get(&key).and_then(|flight| {
            let future = flight.future.upgrade().filter(|future| future.peek().is_none())?;
            Some((future, Arc::clone(&flight.progress)))
        });
        let (future, progress) = running.unwrap_or_else(|| {
            let progress = Arc::new(Progress::default());
            let pull = Pull {
                inner: Arc::clone(&self.0),
                reference: reference.clone(),
                platform,
                secrets: Arc::new(secrets.clone()),
                progress: Arc::clone(&progress),
            };
            let future = async move { pull.run().await.map_err(PullError::from) }.boxed().shared();
            pulls.retain(|_, flight| flight.future.upgrade().is_some_and(|future| future.peek().is_none()));
            if let Some(weak) = future.downgrade() {
                let flight = Flight { reference: reference.clone(), future: weak, progress: Arc::clone(&progress) };
                pulls.insert(key, flight);
            }
            (future, progress)
        });
        if let Some(listener) = listener {
            progress.join(listener);
        }
        future
    }
}

impl Inner {
    async fn stored(&self, reference: &ImageRef) -> Result<Option<Image>, PullFailure> {
        let (store, reference) = (self.store.clone(), reference.clone());
        let look = move || match store.image(&reference) {
            // What cannot be read is as good as not there: it is fetched and written anew.
            Err(error) if error.is_damage() => {
                tracing::warn!(image = %reference, error = spec::causes::chain(&error), "image in the store damaged");
                Ok(None)
            }
            found => found,
        };
        blocking("the image", look).await
    }

    fn layer_lock(&self, host: &str, layer: &Layer) -> Arc<tokio::sync::Mutex<()>> {
        let key = Download { host: host.to_owned(), diff_id: layer.diff_id, blob: layer.descriptor.digest };
        shared(&self.layers, key, || tokio::sync::Mutex::new(()))
    }

    fn share(&self, host: &str) -> Arc<Share> {
        let config = self.client.config();
        shared(&self.hosts, host.to_owned(), || Share {
            images: Semaphore::new(config.parallel_images.max(1)),
            downloads: Semaphore::new(config.parallel_downloads.max(1)),
        })
    }
}

/// What a map has for a key, made when nobody has it.
fn shared<K: Eq + Hash, V>(map: &Mutex<HashMap<K, Weak<V>>>, key: K, make: impl FnOnce() -> V) -> Arc<V> {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = map.get(&key).and_then(Weak::upgrade) {
        return known;
    }
    map.retain(|_, value| value.strong_count() > 0);
    let made = Arc::new(make());
    map.insert(key, Arc::downgrade(&made));
    made
}

/// One running pull.
struct Pull {
    inner: Arc<Inner>,
    reference: ImageRef,
    platform: Platform,
    secrets: Arc<PullCredentials>,
    progress: Arc<Progress>,
}

impl Pull {
    async fn run(self) -> Result<Image, PullFailure> {
        match self.anywhere().await {
            Err(PullFailure::Store { what, source }) if source.is_shortage() => {
                self.inner.store.shortage().notify_one();
                Err(PullFailure::Store { what, source })
            }
            Err(source @ PullFailure::Registry { .. })
                if source.class() == FailureClass::Transient && self.inner.stored(&self.reference).await?.is_some() =>
            {
                Err(PullFailure::Always { reference: self.reference.to_string(), source: Box::new(source) })
            }
            outcome => outcome,
        }
    }

    /// From the first place that has it.
    async fn anywhere(&self) -> Result<Image, PullFailure> {
        let endpoints =
            self.inner.client.config().endpoints(&self.reference).map_err(|error| registry("the manifest", error))?;
        let last = endpoints.len().saturating_sub(1);
        let mut mirrors: Vec<String> = Vec::new();
        for (index, endpoint) in endpoints.into_iter().enumerate() {
            match self.from(endpoint).await {
                Ok(image) => return Ok(image),
                Err(source) if index == last && mirrors.is_empty() => return Err(source),
                Err(source) if index == last => {
                    return Err(PullFailure::Mirrors { mirrors: mirrors.join("; "), source: Box::new(source) });
                }
                Err(failure) if failure.elsewhere() => {
                    let cause = std::error::Error::source(&failure).map_or_else(String::new, ToString::to_string);
                    tracing::debug!(image = %self.reference, error = %cause, "mirror skipped");
                    mirrors.push(cause);
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(PullFailure::Platform("no registry to ask".to_owned()))
    }

    async fn from(&self, endpoint: Endpoint) -> Result<Image, PullFailure> {
        let share = self.inner.share(&endpoint.name);
        let session = self.inner.client.session(endpoint, Arc::clone(&self.secrets));
        if let Some(image) = self.unchanged(&session).await? {
            return Ok(image);
        }
        let (top, raw, manifest, named) = self.resolve(&session).await?;
        let known = self.inner.stored(&self.reference).await?;
        if let Some(image) = known.filter(|image| image.digest == raw.digest) {
            self.remember(top, raw.digest);
            return Ok(image);
        }
        // Looking something up is not counted: a registry that stalls must not keep the images of others waiting. Never
        // closed, so this cannot fail; without a permit the image would only be one too many.
        let _permit = share.images.acquire().await;
        let config_bytes = session.config(&manifest.config).await.map_err(|error| registry("the config", error))?;
        let config =
            Config::read(&config_bytes, &manifest, &self.platform, named).map_err(|source| self.unusable(source))?;

        let count = manifest.layers.len();
        let layers = manifest.layers.iter().zip(&config.diff_ids).enumerate();
        let layers: Vec<_> = layers
            .map(|(index, ((descriptor, compression), diff_id))| Layer {
                descriptor: descriptor.clone(),
                compression: *compression,
                diff_id: *diff_id,
                name: format!("layer {} of {count}", index + 1),
            })
            .collect();
        let mut missing = BTreeMap::new();
        self.progress.restart();
        for layer in &layers {
            let present = self.inner.store.has_layer(&layer.diff_id);
            let Descriptor { digest, size } = layer.descriptor;
            if !present {
                missing.insert(digest, size);
            }
            self.progress.tell(PullProgress::Layer { digest, size, present });
        }
        let (store, needed) = (self.inner.store.clone(), missing.values().sum());
        blocking("the image", move || store.check_room(needed)).await?;
        if let Some(began) = self.inner.began.as_ref().filter(|_| !missing.is_empty()) {
            began(self.progress.now(self.reference.clone()));
        }
        // The largest first, so that it is not the one that everyone waits for at the end.
        let mut layers = layers;
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.descriptor.size));
        let image = loop {
            // Cancel-safe: a dropped layer leaves nothing visible.
            let jobs: Vec<BoxFuture<'_, _>> =
                layers.iter().map(|layer| self.layer(&session, &share, layer).boxed()).collect();
            stream::iter(jobs)
                .buffer_unordered(self.inner.client.config().parallel_layers.max(1))
                .try_collect::<()>()
                .await?;
            let (store, reference) = (self.inner.store.clone(), self.reference.clone());
            let (manifest, config) = (raw.bytes.clone(), config_bytes.clone());
            let put = move || match store.put_image(Some(&reference), &manifest, &config) {
                // One that was there may have gone with another image meanwhile.
                Err(StoreError::MissingLayer { .. }) => Ok(None),
                put => put.map(Some),
            };
            if let Some(image) = blocking("the image", put).await? {
                break image;
            }
        };
        self.remember(top, raw.digest);
        Ok(image)
    }

    fn seen_key(&self) -> (String, Platform) {
        (self.reference.to_string(), self.platform.clone())
    }

    fn remember(&self, top: Digest, manifest: Digest) {
        let mut seen = self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() > 1000 {
            seen.clear();
        }
        seen.insert(self.seen_key(), (top, manifest));
    }

    /// The stored image when a HEAD request shows that the tag still stands for it.
    async fn unchanged(&self, session: &Session) -> Result<Option<Image>, PullFailure> {
        let seen = self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&self.seen_key()).copied();
        let Some((top, manifest)) = seen else { return Ok(None) };
        let Some(image) = self.inner.stored(&self.reference).await?.filter(|i| i.digest == manifest) else {
            return Ok(None);
        };
        match session.head(&self.reference.manifest_reference()).await {
            Ok(Some(now)) if now == top => Ok(Some(image)),
            // Asking once more would only take as long again.
            Err(error @ RegistryError::Stalled { .. }) => Err(registry("the manifest", error)),
            // Any other trouble is left to the request that follows: it can tell what is wrong.
            _ => Ok(None),
        }
    }

    /// The manifest for the platform, the digest of what the reference names, and whether an index named the platform.
    async fn resolve(
        &self,
        session: &Session,
    ) -> Result<(Digest, RawManifest, super::registry::Manifest, bool), PullFailure> {
        let fetch = |error| registry("the manifest", error);
        let expected = self.reference.digest().map(|digest| (digest, None));
        let mut raw = session.manifest(&self.reference.manifest_reference(), expected).await.map_err(fetch)?;
        let top = raw.digest;
        let mut named = false;
        for _ in 0..=MAX_NESTED {
            let document = Document::read(&raw.bytes, raw.content_type.as_deref(), &self.platform)
                .map_err(|source| self.unusable(source))?;
            match document {
                Document::Manifest(manifest) => return Ok((top, raw, manifest, named)),
                Document::Chosen(chosen, has_platform) => {
                    named |= has_platform;
                    let expected = Some((chosen.digest, Some(chosen.size)));
                    raw = session.manifest(&chosen.digest.to_string(), expected).await.map_err(fetch)?;
                }
            }
        }
        let reason = format!("indexes are nested more than {MAX_NESTED} deep");
        Err(self.unusable(ManifestError::Unreadable { what: "index", reason }))
    }

    fn unusable(&self, source: ManifestError) -> PullFailure {
        PullFailure::Manifest { reference: self.reference.to_string(), source }
    }

    /// Makes sure that a layer is in the store.
    async fn layer(&self, session: &Session, share: &Share, layer: &Layer) -> Result<(), PullFailure> {
        let lock = self.inner.layer_lock(session.host(), layer);
        let _one = lock.lock().await;
        let digest = layer.descriptor.digest;
        if self.inner.store.has_layer(&layer.diff_id) {
            self.progress.done(digest);
            return Ok(());
        }
        // Never closed, so these cannot fail; without a permit the layer would only be one too many.
        let _permit = (share.downloads.acquire().await, self.inner.unpacking.acquire().await);
        let (writer, reader) = pipe::pipe();
        let (store, unpacked) = (self.inner.store.clone(), layer.clone());
        let unpacking = tokio::task::spawn_blocking(move || unpack(&store, &unpacked, reader));
        let (progress, fetched) = (&*self.progress, &self.inner.fetched);
        let mut sink = LayerSink { writer, progress, fetched, digest, received: 0, told: 0 };
        let fetched = session.blob(&layer.descriptor, &layer.name, &mut sink).await;
        if let Ok(Ended::Verified) = fetched {
            self.progress.tell(PullProgress::Bytes { digest, received: sink.received });
            sink.writer.finish();
        } else {
            // Without its end the layer is thrown away.
            drop(sink);
        }
        let unpacked = unpacking.await.unwrap_or_else(|_| Err(PullFailure::Unfinished(layer.name.clone())));
        let pending = match (fetched, unpacked) {
            (Ok(Ended::Verified), Ok(pending)) => pending,
            (Err(error), _) => return Err(registry(&layer.name, error)),
            (Ok(Ended::Verified), Err(PullFailure::Store { what, source })) if source.is_stream() => {
                return Err(PullFailure::Corrupt { what, source });
            }
            // When the unpacking stops the transfer, it says why.
            (Ok(_), Err(failure)) => return Err(failure),
            (Ok(Ended::Stopped), Ok(_)) => return Err(PullFailure::Unfinished(layer.name.clone())),
        };
        blocking(&layer.name, move || pending.commit()).await?;
        self.progress.done(digest);
        Ok(())
    }
}

/// A layer to fetch.
#[derive(Clone)]
struct Layer {
    descriptor: Descriptor,
    compression: Compression,
    diff_id: Digest,
    name: String,
}

/// Hands the pieces of a layer to its unpacking, and tells how far it is.
struct LayerSink<'a> {
    writer: PipeWriter,
    progress: &'a Progress,
    fetched: &'a AtomicU64,
    digest: Digest,
    received: u64,
    told: u64,
}

impl Sink for LayerSink<'_> {
    async fn take(&mut self, piece: bytes::Bytes) -> bool {
        self.received += piece.len() as u64;
        self.fetched.fetch_add(piece.len() as u64, Ordering::Relaxed);
        if self.received - self.told >= progress::STEP {
            self.told = self.received;
            self.progress.tell(PullProgress::Bytes { digest: self.digest, received: self.received });
        }
        self.writer.write(piece).await
    }
}

fn registry(what: &str, source: RegistryError) -> PullFailure {
    PullFailure::Registry { what: what.to_owned(), source: Box::new(source) }
}

/// Unpacks a layer from its download, and answers only when the download has ended well.
fn unpack(store: &Store, layer: &Layer, mut reader: PipeReader) -> Result<PendingLayer, PullFailure> {
    let failed = |source| PullFailure::Store { what: layer.name.clone(), source: Box::new(source) };
    // The store looks at the first bytes itself: what they are counts for more than what the media type says, and
    // both hashes are checked anyway.
    let mut pending = store.unpack_layer(&layer.diff_id, layer.compression, &mut reader).map_err(failed)?;
    // The reader's end is the word that the compressed bytes are verified.
    io::copy(&mut reader, &mut io::sink()).map_err(|_| PullFailure::Unfinished(layer.name.clone()))?;
    pending.set_compressed(CompressedBlob { digest: layer.descriptor.digest, size: layer.descriptor.size });
    Ok(pending)
}

async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, PullFailure> {
    let what = what.to_owned();
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|source| PullFailure::Store { what, source: Box::new(source) }),
        Err(_) => Err(PullFailure::Unfinished(what)),
    }
}
