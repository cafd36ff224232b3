//! Layers: unpacked into `tmp/`, made visible by one rename.
//!
//! A layer counts as there when its record is. Until its bytes are on disk for sure (one `syncfs` when its image is
//! recorded, instead of one `fsync` a file), the record names the boot it was made in, and is believed in that boot
//! only: a power cut leaves the whole layer or none.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags, flock, open, renameat_with, syncfs};
use serde::{Deserialize, Serialize};
use spec::digest::Digest;

use super::records::SCHEMA;
use super::{Inner, Store, StoreError};
use crate::image::unpack::{self, Compression, UnpackError};

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of its files.
    pub size: u64,
    /// Entries in it.
    pub entries: u64,
    /// Directory with its content.
    pub path: PathBuf,
}

/// The compressed layer as the registry has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressedBlob {
    /// Digest of the compressed bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
}

/// `layer.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) schema: u32,
    pub(crate) diff_id: Digest,
    pub(crate) size: u64,
    pub(crate) entries: u64,
    #[serde(default)]
    pub(crate) root_opaque: bool,
    /// Directories that it uses but does not describe, escaped.
    #[serde(default)]
    implied: Vec<String>,
    /// Hard links to files that it does not have, escaped: the path, and the target in a layer below.
    #[serde(default)]
    links: Vec<(String, String)>,
    #[serde(default)]
    pub(crate) compressed: Option<CompressedBlob>,
    /// The boot in which it was made, while it may not be on disk.
    #[serde(default)]
    pub(crate) unsynced_boot: Option<String>,
}

impl LayerRecord {
    /// It looks the same whatever is below it.
    pub(crate) fn stands_alone(&self) -> bool {
        self.links.is_empty() && self.implied.iter().all(String::is_empty)
    }

    /// Bytes of all paths in it.
    pub(crate) fn noted(&self) -> usize {
        let links = self.links.iter().map(|(path, target)| path.len() + target.len());
        links.chain(self.implied.iter().map(String::len)).sum()
    }

    /// Hard links to files that it does not have: the path, and the target in a layer below.
    pub(crate) fn links(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let links = self.links.iter();
        links.filter_map(|(path, target)| Some((unpack::unescape(path)?, unpack::unescape(target)?))).collect()
    }

    /// Directories that it uses but does not describe; the empty path is the root.
    pub(crate) fn implied(&self) -> BTreeSet<Vec<u8>> {
        self.implied.iter().filter_map(|path| unpack::unescape(path)).collect()
    }
}

/// A layer that is unpacked but not visible. Dropping it removes it.
#[derive(Debug)]
pub struct PendingLayer {
    store: Store,
    directory: TemporaryDirectory,
    record: LayerRecord,
}

/// A directory in `tmp/` that is locked while somebody works in it.
#[derive(Debug)]
pub(crate) struct TemporaryDirectory {
    pub(crate) path: PathBuf,
    /// `None` once it has become something else.
    lock: Option<OwnedFd>,
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        if self.lock.is_some()
            && let Err(error) = unpack::remove_path(&self.path)
        {
            // The next open tries again.
            tracing::warn!(path = %self.path.display(), error = %error, "temporary directory not removed");
        }
    }
}

impl PendingLayer {
    /// What was unpacked.
    #[must_use]
    pub fn diff_id(&self) -> Digest {
        self.record.diff_id
    }

    /// Notes what it was compressed as.
    pub fn set_compressed(&mut self, blob: CompressedBlob) {
        self.record.compressed = Some(blob);
    }

    /// Makes the layer visible. When another one was faster, that one stays.
    pub fn commit(mut self) -> Result<LayerInfo, StoreError> {
        let store = &self.store;
        let target = store.layer_path(&self.record.diff_id);
        let record = self.directory.path.join("layer.json");
        let bytes =
            serde_json::to_vec(&self.record).map_err(|source| StoreError::Record { path: record.clone(), source })?;
        std::fs::write(&record, bytes).map_err(StoreError::file("write", &record))?;
        let _lock = store.lock()?;
        if store.good_layer_record(&self.record.diff_id)?.is_none() {
            store.discard_layer(&target)?;
            let cwd = rustix::fs::CWD;
            renameat_with(cwd, &self.directory.path, cwd, &target, RenameFlags::NOREPLACE)
                .map_err(StoreError::errno("create", &target))?;
            self.directory.lock = None;
        }
        let LayerRecord { diff_id, size, entries, .. } = self.record;
        Ok(LayerInfo { diff_id, size, entries, path: target.join("fs") })
    }
}

impl Store {
    /// Unpacks a layer from a compressed stream into a private directory, and checks that the uncompressed bytes have
    /// `diff_id`. Reads `reader` to its end. Nothing is visible until [`PendingLayer::commit`]; dropping the value
    /// removes what was unpacked.
    ///
    /// How it is compressed is seen in the bytes: mislabelled layers exist, and the diff id pins the result.
    pub fn unpack_layer(
        &self,
        diff_id: &Digest,
        _compression: Compression,
        reader: &mut dyn Read,
    ) -> Result<PendingLayer, StoreError> {
        let directory = self.temporary_directory()?;
        let content = directory.path.join("fs");
        std::fs::create_dir(&content).map_err(StoreError::file("create directory", &content))?;
        let list_path = directory.path.join("list.zst");
        let list = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&list_path);
        let list = list.map_err(StoreError::file("create", &list_path))?;
        let root = open_path(&content)?;
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))
            .map_err(StoreError::errno("set the mode of", &content))?;
        let failed = |source| StoreError::Unpack { diff_id: *diff_id, source };
        let (unpacked, found) = unpack::unpack(reader, root, list, self.limits(), None).map_err(failed)?;
        if found != *diff_id {
            return Err(failed(UnpackError::DiffId { expected: *diff_id, found }));
        }
        let record = LayerRecord {
            schema: SCHEMA,
            diff_id: *diff_id,
            size: unpacked.bytes,
            entries: unpacked.entries,
            root_opaque: unpacked.root_opaque,
            implied: unpacked.implied.iter().map(|path| unpack::escape(path)).collect(),
            links: unpacked.links.iter().map(|(path, to)| (unpack::escape(path), unpack::escape(to))).collect(),
            compressed: None,
            unsynced_boot: Some(self.inner.boot_id.clone()),
        };
        Ok(PendingLayer { store: self.clone(), directory, record })
    }

    /// The record of a layer that can be used; `None` when there is none.
    pub(crate) fn layer_record(&self, diff_id: &Digest) -> Result<Option<LayerRecord>, StoreError> {
        let path = self.layer_path(diff_id).join("layer.json");
        let Some(record) = self.read_json::<LayerRecord>(&path)? else { return Ok(None) };
        if record.diff_id != *diff_id {
            return Err(StoreError::Damaged { path, expected: *diff_id, found: record.diff_id });
        }
        let synced = record.unsynced_boot.as_ref().is_none_or(|boot| *boot == self.inner.boot_id);
        Ok(Some(record).filter(|_| synced))
    }

    /// [`Self::layer_record`], with a damaged one as good as none: its layer is fetched or loaded anew.
    pub(crate) fn good_layer_record(&self, diff_id: &Digest) -> Result<Option<LayerRecord>, StoreError> {
        match self.layer_record(diff_id) {
            Err(error) if error.is_damage() => Ok(None),
            record => record,
        }
    }

    pub(super) fn require_layers(&self, diff_ids: &[Digest]) -> Result<(), StoreError> {
        match diff_ids.iter().find(|diff_id| !self.has_layer(diff_id)) {
            Some(diff_id) => Err(StoreError::MissingLayer { diff_id: *diff_id }),
            None => Ok(()),
        }
    }

    /// Fails when layers have more entries together than one image may have.
    pub(super) fn check_entries(&self, diff_ids: &[Digest]) -> Result<(), StoreError> {
        let limit = self.limits().image_entries;
        let mut entries = 0u64;
        for diff_id in diff_ids.iter().collect::<BTreeSet<_>>() {
            let record = self.layer_record(diff_id)?.ok_or(StoreError::MissingLayer { diff_id: *diff_id })?;
            entries = entries.saturating_add(record.entries);
        }
        if entries > limit {
            let source = UnpackError::Limit { what: "the number of entries of all layers", limit };
            return Err(StoreError::Fixup { source });
        }
        Ok(())
    }

    /// Brings layers to the disk, once for all of them, and notes it. The caller holds the lock.
    pub(super) fn sync_layers(&self, diff_ids: &[Digest]) -> Result<(), StoreError> {
        self.require_layers(diff_ids)?;
        if self.unsynced(diff_ids)?.is_empty() {
            return Ok(());
        }
        self.sync()?;
        self.note_synced(diff_ids)
    }

    /// The same without the caller waiting, and with the lock only for the notes.
    pub(super) fn sync_later(&self, diff_ids: Vec<Digest>) {
        let Inner { root, options, boot_id, shortage, .. } = &*self.inner;
        // A store of its own: the thread must not keep alive what waits for it.
        let inner = Inner {
            root: root.clone(),
            options: options.clone(),
            boot_id: boot_id.clone(),
            shortage: Arc::clone(shortage),
            syncing: Mutex::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        let run = move || {
            let synced = store.sync().and_then(|()| {
                let _lock = store.lock()?;
                store.note_synced(&diff_ids)
            });
            if let Err(error) = synced {
                // They stay marked: after a power cut they are pulled again.
                tracing::warn!(error = %error, "pulled layers not synchronised");
            }
        };
        match std::thread::Builder::new().name("image-sync".to_owned()).spawn(run) {
            Ok(thread) => {
                if let Ok(mut threads) = self.inner.syncing.lock() {
                    threads.retain(|thread| !thread.is_finished());
                    threads.push(thread);
                }
            }
            Err(error) => tracing::warn!(error = %error, "pulled layers not synchronised"),
        }
    }

    fn unsynced(&self, diff_ids: &[Digest]) -> Result<Vec<LayerRecord>, StoreError> {
        let mut unsynced = Vec::new();
        for diff_id in diff_ids {
            unsynced.extend(self.layer_record(diff_id)?.filter(|record| record.unsynced_boot.is_some()));
        }
        Ok(unsynced)
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let root = open_path(&self.inner.root)?;
        syncfs(&root).map_err(StoreError::errno("synchronise", &self.inner.root))
    }

    fn note_synced(&self, diff_ids: &[Digest]) -> Result<(), StoreError> {
        for mut record in self.unsynced(diff_ids)? {
            record.unsynced_boot = None;
            self.write_json(&self.layer_path(&record.diff_id).join("layer.json"), &record)?;
        }
        Ok(())
    }

    /// Removes a layer so that a crash leaves it or nothing: first out of sight. The caller holds the lock.
    pub(crate) fn discard_layer(&self, path: &Path) -> Result<(), StoreError> {
        let away = self.temporary_path();
        match std::fs::rename(path, &away) {
            Ok(()) => unpack::remove_path(&away).map_err(StoreError::file("remove", &away)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::file("remove", path)(error)),
        }
    }

    pub(crate) fn temporary_directory(&self) -> Result<TemporaryDirectory, StoreError> {
        // With the store's lock, so that nobody cleans up between the two steps.
        let _lock = self.lock()?;
        let path = self.temporary_path();
        std::fs::create_dir(&path).map_err(StoreError::file("create directory", &path))?;
        let fd = open_path(&path)?;
        flock(&fd, FlockOperation::NonBlockingLockExclusive).map_err(StoreError::errno("lock", &path))?;
        Ok(TemporaryDirectory { path, lock: Some(fd) })
    }
}

pub(crate) fn open_path(path: &Path) -> Result<OwnedFd, StoreError> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(StoreError::errno("open directory", path))
}
