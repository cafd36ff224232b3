//! Why a layer could not be unpacked.

use std::io;

use spec::digest::Digest;

/// Why a layer could not be unpacked. Whatever it is, nothing of the layer stays on disk.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The compressed stream failed: network, file, or bytes that are no gzip or zstd.
    #[error("cannot read the layer's stream")]
    Stream(#[source] io::Error),
    /// The archive ends inside an entry.
    #[error("cannot read the archive: it ends in the middle of {0}")]
    Truncated(&'static str),
    /// A header that is not a tar header.
    #[error("cannot read the archive: {reason} (header at byte {offset})")]
    Header {
        /// Where the header starts in the uncompressed archive.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry that would reach outside the layer, or that means nothing.
    #[error("archive entry `{path}` refused: {reason}")]
    Refused {
        /// Path in the archive, escaped.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// A bound of [`super::Limits`] was met.
    #[error("layer refused: {what} is above the limit of {limit}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The file system would be left with too little space.
    #[error("cannot unpack the layer: {available} bytes free, and {reserve} are kept in reserve")]
    Space {
        /// Bytes free now.
        available: u64,
        /// Bytes that stay free.
        reserve: u64,
    },
    /// The file system would be left with too few inodes.
    #[error(
        "cannot unpack the layer: the file system has room for {available} more files, and {reserve} are kept in reserve"
    )]
    Inodes {
        /// Files that can be made now.
        available: u64,
        /// How many of them stay free.
        reserve: u64,
    },
    /// The file system is full.
    #[error("cannot write `{path}`: the file system is full")]
    Full {
        /// Path in the layer.
        path: String,
    },
    /// A system call on an entry failed.
    #[error("cannot {operation} `{path}`")]
    Entry {
        /// What was tried.
        operation: &'static str,
        /// Path in the layer, escaped.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The content is not what was asked for.
    #[error("cannot use the layer: its content has digest {found}, expected {expected}")]
    DiffId {
        /// What the image's configuration says.
        expected: Digest,
        /// What was hashed.
        found: Digest,
    },
    /// `openat2` is missing.
    #[error("cannot unpack safely: this kernel has no openat2 (Linux 5.12 or later is needed)")]
    Kernel,
    /// A thread could not be started, or ended in a panic.
    #[error("cannot unpack: a worker thread failed")]
    Worker,
}

impl UnpackError {
    /// Whether trying again with the same bytes may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Stream(_) | Self::Space { .. } | Self::Inodes { .. } | Self::Full { .. } | Self::Worker => true,
            Self::Entry { source, .. } => !matches!(
                source.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename
            ),
            Self::Truncated(_)
            | Self::Header { .. }
            | Self::Refused { .. }
            | Self::Limit { .. }
            | Self::DiffId { .. }
            | Self::Kernel => false,
        }
    }

    /// Something the reader can do; what is wrong with the layer itself is for whoever has built it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Truncated(_) | Self::Header { .. } | Self::DiffId { .. } => {
                Some("nothing of the image was kept: it is broken where it comes from, build or push it again")
            }
            Self::Refused { .. } => Some(
                "nothing of the image was kept: no honest build makes such a layer, look at where the image comes from",
            ),
            Self::Limit { .. } => {
                Some("nothing of the image was kept: it holds more than any image needs, look at where it comes from")
            }
            Self::Kernel => Some("use Linux 5.12 or later"),
            Self::Stream(_)
            | Self::Space { .. }
            | Self::Inodes { .. }
            | Self::Full { .. }
            | Self::Entry { .. }
            | Self::Worker => None,
        }
    }

    pub(crate) fn entry(operation: &'static str, path: &[u8], source: rustix::io::Errno) -> Self {
        match source {
            rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT => Self::Full { path: escape(path) },
            rustix::io::Errno::NOSYS => Self::Kernel,
            _ => Self::Entry { operation, path: escape(path), source: source.into() },
        }
    }

    pub(crate) fn refused(path: &[u8], reason: &'static str) -> Self {
        Self::Refused { path: escape(path), reason }
    }
}

/// Names in archives are bytes: control characters and what is not UTF-8 never reach a terminal or a log raw.
pub(crate) fn escape(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
        if text.len() > 200 {
            text = text.chars().take(200).collect();
            text.push_str("...");
            break;
        }
    }
    text
}
