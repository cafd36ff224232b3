//! Records as files: written whole or not at all, read with their schema checked.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use spec::digest::Digest;
use spec::image_ref::ImageRef;

use super::{Origin, Store, StoreError};

/// Version of every record the store writes.
pub(super) const SCHEMA: u32 = 1;

/// An image, by its manifest digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) schema: u32,
    pub(crate) manifest: Digest,
    pub(crate) config: Digest,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) origin: Origin,
    #[serde(default)]
    pub(crate) pinned: bool,
    /// Something is stacked above its layers.
    #[serde(default)]
    pub(crate) fixup: bool,
}

/// A reference and where it leads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RefRecord {
    pub(crate) schema: u32,
    pub(crate) reference: ImageRef,
    pub(crate) manifest: Digest,
    /// A name that was given here: no registry is known to have the image under it.
    #[serde(default)]
    pub(crate) local: bool,
}

#[derive(Deserialize)]
struct SchemaOnly {
    schema: u32,
}

impl Store {
    /// Writes a file so that after a crash its old or its new content is there. The caller holds the lock.
    pub(super) fn write_record(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = self.temporary_path();
        let write = || {
            let mut file = std::fs::File::create_new(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)?;
            let parent = path.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
            std::fs::File::open(parent)?.sync_all()
        };
        write().map_err(|source| {
            // The error is about the write; a left-over is removed at the next open in any case.
            let _ = std::fs::remove_file(&temporary);
            StoreError::File { operation: "write", path: path.to_owned(), source }
        })
    }

    pub(crate) fn write_json<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(value).map_err(|source| StoreError::Record { path: path.to_owned(), source })?;
        self.write_record(path, &bytes)
    }

    /// A record; `None` when there is none.
    pub(crate) fn read_json<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, StoreError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::file("read", path)(error)),
        };
        let failed = |source| StoreError::Record { path: path.to_owned(), source };
        let found = serde_json::from_slice::<SchemaOnly>(&bytes).map_err(failed)?.schema;
        if found > SCHEMA {
            return Err(StoreError::Schema { path: path.to_owned(), found, known: SCHEMA });
        }
        serde_json::from_slice(&bytes).map(Some).map_err(failed)
    }

    /// Content whose name is its digest.
    pub(crate) fn read_content(&self, kind: &str, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.path(kind, &digest.hex());
        let bytes = std::fs::read(&path).map_err(StoreError::file("read", &path))?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(StoreError::Damaged { path, expected: *digest, found });
        }
        Ok(bytes)
    }

    pub(crate) fn stored(&self, digest: &Digest) -> Result<Option<Stored>, StoreError> {
        self.read_json(&self.path("records", &format!("{}.json", digest.hex())))
    }

    pub(crate) fn all_stored(&self) -> Result<Vec<Stored>, StoreError> {
        self.all("records")
    }

    /// Whether nothing but a file can give this image again: it came from one, or it has only names that were given here.
    pub(crate) fn is_irreplaceable(stored: &Stored, references: &[RefRecord]) -> bool {
        let mut names = references.iter().filter(|record| record.manifest == stored.manifest).peekable();
        match stored.origin {
            Origin::Loaded => true,
            Origin::Builtin => false,
            Origin::Pulled => names.peek().is_some() && names.all(|record| record.local),
        }
    }

    pub(crate) fn references(&self) -> Result<Vec<RefRecord>, StoreError> {
        self.all("refs")
    }

    fn all<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>, StoreError> {
        let mut records = Vec::new();
        for name in self.names(kind)?.iter().filter(|name| name.ends_with(".json")) {
            // One that vanished meanwhile was removed by somebody else.
            records.extend(self.read_json(&self.path(kind, name))?);
        }
        Ok(records)
    }

    /// References are longer than file names may be, and hold slashes: the name is their hash.
    pub(crate) fn reference_path(&self, reference: &ImageRef) -> PathBuf {
        self.path("refs", &format!("{}.json", Digest::of(reference.to_string().as_bytes()).hex()))
    }

    /// Lets a reference lead to an image. `local`: it does not come from a registry, unless it was known to.
    pub(crate) fn write_reference(
        &self,
        reference: &ImageRef,
        manifest: Digest,
        local: bool,
    ) -> Result<(), StoreError> {
        let path = self.reference_path(reference);
        let known = |record: Option<RefRecord>| record.is_some_and(|known| known.manifest == manifest && !known.local);
        let local = local && !self.read_json(&path).is_ok_and(known);
        self.write_json(&path, &RefRecord { schema: SCHEMA, reference: reference.clone(), manifest, local })
    }
}
