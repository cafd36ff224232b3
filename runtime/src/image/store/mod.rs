//! The content store: unpacked layers by diff id, manifests, configurations, and the references that lead to them.
//!
//! ```text
//! images/layers/<diff id>/{fs,list.zst,layer.json}   a layer, unpacked, with overlayfs whiteouts
//!       /manifests/<digest> configs/<digest>         raw bytes, checked whenever they are read
//!       /fixups/<manifest digest>                    what an image needs above its layers, if anything
//!       /records/<manifest digest>.json              an image; its modification time is its last use
//!       /refs/<hash of the reference>.json           a reference, to a manifest digest
//!       /tmp/                                        what is not finished; emptied at open, by lock
//!       /lock                                        held for changes, by threads and processes alike
//! ```
//!
//! Owns these files. Never keeps compressed blobs: they are streamed into the unpacker, and what is needed to tell
//! damage later is in the list. Never talks to a registry.

mod error;
mod fixup;
mod layer;
mod model;
mod records;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use spec::digest::Digest;
use spec::image_ref::ImageRef;

use super::unpack::{self, Limits};

pub use error::StoreError;
pub use layer::{CompressedBlob, LayerInfo, PendingLayer};
pub use model::{Image, ImageRecord, Origin};

pub(crate) use layer::open_path;
pub(crate) use model::{parse_config, parse_json, parse_manifest};
pub(crate) use records::{RefRecord, Stored};

/// The most layers that overlayfs stacks (`OVL_MAX_STACK`, 500), less one for what an image needs above them.
pub(crate) const MAX_LAYERS: usize = 499;

/// How a store behaves.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// Bounds of each layer.
    pub limits: Limits,
    /// The running boot; read from the kernel by itself. Layers that were not on disk for sure when another boot
    /// ended are not believed.
    pub boot_id: Option<String>,
}

/// The content store. Cheap to clone; every method blocks.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    options: StoreOptions,
    boot_id: String,
    /// Told when something did not fit on the disk.
    shortage: Arc<tokio::sync::Notify>,
    /// Threads that bring pulled layers to the disk; held only to add to or take from.
    syncing: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A short-lived command ends only when what it has pulled is safe.
        join_all(&self.syncing);
    }
}

fn join_all(threads: &Mutex<Vec<JoinHandle<()>>>) {
    let threads = threads.lock().map(|mut threads| std::mem::take(&mut *threads)).unwrap_or_default();
    for thread in threads {
        // One that panicked has told; its layers stay marked as not synchronised.
        let _ = thread.join();
    }
}

/// Numbers temporary names of this process.
static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// The store is not changed by anyone else while this lives.
pub(crate) struct StoreLock {
    _file: OwnedFd,
}

impl Store {
    /// Opens the store below `root`, makes it when it is not there, and removes what a crash has left.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, StoreOptions::default())
    }

    /// [`Self::open`] with own limits.
    pub fn open_with(root: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        use std::os::unix::fs::DirBuilderExt as _;
        for name in ["", "layers", "manifests", "configs", "fixups", "records", "refs", "tmp"] {
            let path = root.join(name);
            // Unpacked layers hold setuid programs: nobody else comes near them.
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(StoreError::file("create directory", &path))?;
        }
        let root = root.canonicalize().map_err(StoreError::file("open", root))?;
        let boot_id = match &options.boot_id {
            Some(boot_id) => boot_id.clone(),
            None => {
                let path = Path::new("/proc/sys/kernel/random/boot_id");
                let text = std::fs::read_to_string(path).map_err(StoreError::file("read", path))?;
                text.trim().to_owned()
            }
        };
        let inner = Inner { root, options, boot_id, shortage: Arc::default(), syncing: Mutex::default() };
        let store = Self { inner: Arc::new(inner) };
        store.clean()?;
        Ok(store)
    }

    /// Where the store is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Bounds of each layer.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.options.limits
    }

    /// Told whenever an image did not fit on the disk.
    #[must_use]
    pub fn shortage(&self) -> Arc<tokio::sync::Notify> {
        Arc::clone(&self.inner.shortage)
    }

    /// Fails when so many bytes do not fit beside the reserve.
    pub(crate) fn check_room(&self, needed: u64) -> Result<(), StoreError> {
        let root = open_path(&self.inner.root)?;
        let stat = rustix::fs::fstatvfs(&root).map_err(StoreError::errno("look at the free space of", self.root()))?;
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        if needed > total {
            return Err(StoreError::TooLarge { needed, total });
        }
        let (available, reserve) = self.limits().space(&root).map_err(|source| StoreError::Fixup { source })?;
        if available.saturating_sub(reserve) < needed {
            return Err(StoreError::Room { needed, available, reserve });
        }
        Ok(())
    }

    /// Whether a layer is there, whole.
    #[must_use]
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer_record(diff_id).is_ok_and(|record| record.is_some())
    }

    /// Records an image that a registry gave; see [`Self::put_image_from`].
    pub fn put_image(&self, reference: Option<&ImageRef>, manifest: &[u8], config: &[u8]) -> Result<Image, StoreError> {
        self.put_image_from(Origin::Pulled, reference, manifest, config)
    }

    /// Records an image: raw manifest and configuration, and what it is called. All layers must be there.
    ///
    /// When this returns, an image that only a file or the program can give survives a power cut. A pulled one does
    /// so a moment later: waiting for the disk would double the time of a pull, and a power cut before that only means
    /// that it is pulled again. [`Self::flush`] waits.
    pub fn put_image_from(
        &self,
        origin: Origin,
        reference: Option<&ImageRef>,
        manifest: &[u8],
        config: &[u8],
    ) -> Result<Image, StoreError> {
        let body = parse_manifest(manifest)?;
        let config_digest = Digest::of(config);
        if body.config.digest != config_digest {
            let reason = format!(
                "its manifest names configuration {}, its configuration is {config_digest}",
                body.config.digest
            );
            return Err(StoreError::Invalid { reason });
        }
        let parsed = parse_config(config)?;
        if parsed.diff_ids.len() != body.layers.len() {
            let (layers, ids) = (body.layers.len(), parsed.diff_ids.len());
            return Err(StoreError::Invalid {
                reason: format!("its manifest has {layers} layers, its configuration {ids}"),
            });
        }
        let digest = Digest::of(manifest);
        self.check_entries(&parsed.diff_ids)?;
        let fixup = self.plan_fixup(&parsed.diff_ids)?;
        let _lock = self.lock()?;
        self.require_layers(&parsed.diff_ids)?;
        let fixup = self.make_fixup(&digest, fixup)?;
        if fixup {
            // Rare, and nothing notes whether it is on disk.
            self.sync()?;
        }
        if origin != Origin::Pulled {
            self.sync_layers(&parsed.diff_ids)?;
        }
        self.write_record(&self.path("manifests", &digest.hex()), manifest)?;
        self.write_record(&self.path("configs", &config_digest.hex()), config)?;
        let known = match self.stored(&digest) {
            // Written anew below.
            Err(error) if error.is_damage() => None,
            known => known?,
        };
        let stored = Stored {
            schema: records::SCHEMA,
            manifest: digest,
            config: config_digest,
            diff_ids: parsed.diff_ids,
            // What a registry can give back stays so when the same image is loaded from a file.
            origin: match &known {
                Some(known) if known.origin == Origin::Pulled => Origin::Pulled,
                _ => origin,
            },
            pinned: known.is_some_and(|known| known.pinned),
            fixup,
        };
        self.write_json(&self.path("records", &format!("{}.json", digest.hex())), &stored)?;
        if let Some(reference) = reference {
            self.write_reference(reference, digest, origin != Origin::Pulled)?;
        }
        if origin == Origin::Pulled {
            self.sync_later(stored.diff_ids.clone());
        }
        self.read_image(&stored)
    }

    /// Waits until everything that was recorded survives a power cut.
    pub fn flush(&self) {
        join_all(&self.inner.syncing);
    }

    /// The image that a reference stands for: by name, else by the manifest digest it carries.
    pub fn image(&self, reference: &ImageRef) -> Result<Option<Image>, StoreError> {
        let path = self.reference_path(reference);
        if let Some(record) = self.read_json::<RefRecord>(&path)?
            && let Some(image) = self.image_by_digest(&record.manifest)?
        {
            return Ok(Some(image));
        }
        match reference.digest() {
            Some(digest) => self.image_by_digest(&digest),
            None => Ok(None),
        }
    }

    /// The image with this manifest digest.
    pub fn image_by_digest(&self, digest: &Digest) -> Result<Option<Image>, StoreError> {
        match self.stored(digest)? {
            // Without its layers it is none: to be pulled again.
            Some(stored)
                if stored.diff_ids.iter().all(|layer| self.has_layer(layer))
                    && (!stored.fixup || self.fixup_path(digest).is_dir()) =>
            {
                self.read_image(&stored).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Every image, with what it is called.
    pub fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        let references = self.references()?;
        let mut images = Vec::new();
        for stored in self.all_stored()? {
            let path = self.path("records", &format!("{}.json", stored.manifest.hex()));
            let last_used = std::fs::metadata(&path)
                .and_then(|meta| meta.modified())
                .map_err(StoreError::file("look at", &path))?;
            let mut size = 0;
            let mut complete = true;
            let mut seen = std::collections::BTreeSet::new();
            for layer in &stored.diff_ids {
                match self.good_layer_record(layer)? {
                    Some(record) if seen.insert(*layer) => size += record.size,
                    Some(_) => {}
                    None => complete = false,
                }
            }
            let irreplaceable = Self::is_irreplaceable(&stored, &references);
            let names = references.iter().filter(|r| r.manifest == stored.manifest);
            images.push(ImageRecord {
                digest: stored.manifest,
                config: stored.config,
                references: names.map(|r| r.reference.clone()).collect(),
                diff_ids: stored.diff_ids,
                size,
                origin: stored.origin,
                irreplaceable,
                pinned: stored.pinned,
                complete,
                last_used,
            });
        }
        Ok(images)
    }

    /// Directory of a layer's content.
    #[must_use]
    pub(crate) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.path("layers", &diff_id.hex())
    }

    pub(crate) fn path(&self, kind: &str, name: &str) -> PathBuf {
        self.inner.root.join(kind).join(name)
    }

    pub(crate) fn lock(&self) -> Result<StoreLock, StoreError> {
        let path = self.inner.root.join("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = open(&path, flags, Mode::from_raw_mode(0o600)).map_err(StoreError::errno("open", &path))?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.map_err(StoreError::errno("lock", &path))?,
            }
        }
        Ok(StoreLock { _file: file })
    }

    /// A name in `tmp/` that nobody else uses: stale ones of another process with the same id were removed at open.
    pub(crate) fn temporary_path(&self) -> PathBuf {
        let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
        self.path("tmp", &format!("{}-{number}", std::process::id()))
    }

    /// Removes what nobody works on any more from `tmp/`, and layers without a record or whose bytes may not have reached
    /// the disk before the boot they were made in ended. One whose record cannot be read stays: `verify` tells.
    fn clean(&self) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        for name in self.names("tmp")? {
            let path = self.path("tmp", &name);
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let stale = match open(&path, flags, Mode::empty()) {
                Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
                Err(error) => error != rustix::io::Errno::NOENT,
            };
            if stale {
                unpack::remove_path(&path).map_err(StoreError::file("remove", &path))?;
            }
        }
        for name in self.names("layers")? {
            let Ok(diff_id) = Digest::parse(&format!("sha256:{name}")) else { continue };
            if matches!(self.layer_record(&diff_id), Ok(None)) {
                self.discard_layer(&self.path("layers", &name))?;
            }
        }
        for name in self.names("fixups")? {
            if !self.path("records", &format!("{name}.json")).exists() {
                self.discard_layer(&self.path("fixups", &name))?;
            }
        }
        Ok(())
    }

    pub(crate) fn names(&self, kind: &str) -> Result<Vec<String>, StoreError> {
        let path = self.inner.root.join(kind);
        let failed = |e| StoreError::file("list", &path)(e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            // A name that is no text is none of ours; it is left alone.
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
pub(crate) mod tests;
