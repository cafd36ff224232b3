//! Why a store operation failed.

use std::io;
use std::path::{Path, PathBuf};

use spec::digest::Digest;

use crate::image::unpack::UnpackError;

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory of the store.
    #[error("cannot {operation} `{}`", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer could not be unpacked.
    #[error("cannot unpack layer {diff_id}")]
    Unpack {
        /// Digest of the uncompressed layer, as the image's configuration says.
        diff_id: Digest,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// What an image needs above its layers could not be made.
    #[error("cannot put the layers together")]
    Fixup {
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// The file system is too full for it.
    #[error(
        "no room for the image: its layers are {needed} bytes compressed; {available} are free, {reserve} of them kept in reserve"
    )]
    Room {
        /// Compressed bytes of what is missing.
        needed: u64,
        /// Bytes free now.
        available: u64,
        /// Bytes that stay free.
        reserve: u64,
    },
    /// It does not fit even on an empty disk: making room is no use.
    #[error("the image is larger than the disk: its layers are {needed} bytes compressed, the file system has {total}")]
    TooLarge {
        /// Compressed bytes of what is missing.
        needed: u64,
        /// Bytes of the file system.
        total: u64,
    },
    /// A record on disk is no JSON of the expected shape.
    #[error("cannot read record `{}`", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A record of a newer version of the program.
    #[error("cannot read record `{}`: its schema {found} is newer than {known}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version this program writes.
        known: u32,
    },
    /// Content that has another digest than its name.
    #[error("cannot trust `{}`: its content has digest {found}, expected {expected}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A manifest or configuration that makes no image.
    #[error("invalid image: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// A manifest or configuration that is no JSON of the expected shape.
    #[error("invalid image: its {what} cannot be parsed")]
    Json {
        /// Manifest, configuration, index.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An image is recorded only once all its layers are there.
    #[error("cannot record the image: layer {diff_id} is not in the store")]
    MissingLayer {
        /// The layer.
        diff_id: Digest,
    },
    /// No such image.
    #[error("no image `{reference}` in the store")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// It may not be removed now.
    #[error("cannot remove image `{reference}`: {reason}")]
    InUse {
        /// What was to be removed.
        reference: String,
        /// What keeps it.
        reason: &'static str,
    },
    /// An image cannot be unpacked to this place.
    #[error("cannot unpack into `{}`: {reason}", path.display())]
    Destination {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An archive or layout that cannot be loaded.
    #[error("cannot load `{}`: {reason}", path.display())]
    Load {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The archive around the layers is broken.
    #[error("cannot load `{}`", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: UnpackError,
    },
}

impl StoreError {
    /// Whether trying again may succeed with the same input: full disk, failed stream.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            // A layer that vanished while the others were fetched is fetched again.
            Self::File { .. } | Self::Room { .. } | Self::MissingLayer { .. } => true,
            Self::Unpack { source, .. } | Self::Archive { source, .. } | Self::Fixup { source } => {
                source.is_transient()
            }
            Self::Record { .. }
            | Self::Schema { .. }
            | Self::Damaged { .. }
            | Self::TooLarge { .. }
            | Self::Invalid { .. }
            | Self::Json { .. }
            | Self::NotFound { .. }
            | Self::InUse { .. }
            | Self::Destination { .. }
            | Self::Load { .. } => false,
        }
    }

    /// Whether what was read could not be inflated.
    pub(crate) const fn is_stream(&self) -> bool {
        matches!(self, Self::Unpack { source: UnpackError::Stream(_), .. })
    }

    /// Whether the file system is too full.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Room { .. } => true,
            Self::Unpack { source, .. } | Self::Archive { source, .. } | Self::Fixup { source } => {
                matches!(source, UnpackError::Space { .. } | UnpackError::Inodes { .. } | UnpackError::Full { .. })
            }
            Self::File { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// Whether a record, manifest or configuration of the store cannot be read: what it was for can be fetched or loaded
    /// anew, which writes it anew.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Record { .. } | Self::Damaged { .. } | Self::Invalid { .. } | Self::Json { .. } => true,
            Self::File { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Something the reader can do.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        if self.is_shortage() {
            return Some("make room on the disk; `mainstay prune` removes images that nothing needs");
        }
        match self {
            Self::Unpack { source, .. } | Self::Archive { source, .. } | Self::Fixup { source } => source.hint(),
            Self::Damaged { .. } => {
                Some("it was changed or never whole; what is in the store `mainstay verify --repair` sees to")
            }
            Self::Invalid { .. } | Self::Json { .. } => Some("the image is broken: build it again"),
            Self::Schema { .. } => Some("a newer version of mainstay wrote it: run that one"),
            Self::InUse { .. } => Some("`mainstay ps` lists the containers; stop what runs on it first"),
            Self::NotFound { .. } => Some("`mainstay images` lists what is here"),
            Self::TooLarge { .. } => {
                Some("keep the images on a larger disk, if the size is what the image is meant to have")
            }
            Self::Record { .. } => {
                Some("`mainstay verify --repair` removes it, and the image can be fetched or loaded anew")
            }
            Self::Destination { .. } => Some("name a directory that is empty or not there yet"),
            Self::File { .. } | Self::Room { .. } | Self::MissingLayer { .. } | Self::Load { .. } => None,
        }
    }

    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { operation, path, source }
    }

    pub(crate) fn errno(operation: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.to_owned();
        move |source| Self::File { operation, path, source: source.into() }
    }
}
