//! Unpacks image layers: one compressed tar stream into one directory, whatever the archive tries.
//!
//! Owns the limits, and the two threads of a stream (`stream`: inflate and hash; `writer`: files). Never leaves the
//! directory it is given, and knows neither images nor the store.

mod archive;
mod error;
mod fuzz;
mod header;
mod list;
mod merge;
mod stream;
mod tree;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};

use spec::digest::Digest;

pub use error::UnpackError;
pub use fuzz::fuzz_one;

use archive::Bounds;
pub(crate) use archive::{Archive, Input, Kind};
pub(crate) use list::{Line, ListReader, Recorded, escape, unescape};
pub(crate) use merge::{Merge, Take, copy_xattrs, describe, is_opaque, names, xattr_names};
pub(crate) use stream::Inflater;
pub(crate) use tree::{beneath, open_directory, remove, remove_path};

#[cfg(test)]
pub(crate) mod testkit;
#[cfg(test)]
mod tests;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar archive.
    None,
    /// gzip, one member or several.
    Gzip,
    /// zstd, one frame or several.
    Zstd,
}

impl Compression {
    /// What the first bytes of a stream tell.
    #[must_use]
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame: zstd:chunked and some writers start with one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Bounds of what one layer may use. The defaults let every sane image pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed archive.
    pub archive_bytes: u64,
    /// Bytes of all files, holes included.
    pub file_bytes: u64,
    /// Entries, and directories made for them.
    pub entries: u64,
    /// Entries of all layers of one image.
    pub image_entries: u64,
    /// Names in one path.
    pub depth: usize,
    /// Bytes of one extended header, long name or sparse map.
    pub extension_bytes: u64,
    /// Uncompressed bytes for each compressed one, once [`Self::ratio_free_bytes`] are out.
    pub ratio: u64,
    /// Uncompressed bytes up to which any ratio is fine.
    pub ratio_free_bytes: u64,
    /// Bytes to leave free on the file system; by itself the smaller of 1 GiB and 5 % of it.
    pub reserve_bytes: Option<u64>,
    /// Files to leave room for on the file system, where it has a limit of them; by itself the smaller of 10,000 and 5 %.
    pub reserve_inodes: Option<u64>,
    /// Largest zstd window, as a power of two: it is the decoder's memory. RFC 8878 recommends at least 23.
    pub zstd_window_log: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            archive_bytes: 256 << 30,
            file_bytes: 256 << 30,
            entries: 1_000_000,
            image_entries: 4_000_000,
            depth: 255,
            extension_bytes: 1 << 20,
            ratio: 200,
            ratio_free_bytes: 256 << 20,
            reserve_bytes: None,
            reserve_inodes: None,
            zstd_window_log: 25,
        }
    }
}

impl Limits {
    /// Bytes that are free on the file system of `file`, and how many of them stay so.
    pub(crate) fn space(&self, file: impl std::os::fd::AsFd) -> Result<(u64, u64), UnpackError> {
        let stat =
            rustix::fs::fstatvfs(file).map_err(|e| UnpackError::entry("look at the free space of", b"the store", e))?;
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        let reserve = self.reserve_bytes.unwrap_or((1 << 30).min(total / 20));
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), reserve))
    }

    /// Fails when the file system of `file` has less left than is to stay free.
    pub(crate) fn check_space(&self, file: impl std::os::fd::AsFd) -> Result<(), UnpackError> {
        let (available, reserve) = self.space(&file)?;
        if available < reserve {
            return Err(UnpackError::Space { available, reserve });
        }
        let stat =
            rustix::fs::fstatvfs(file).map_err(|e| UnpackError::entry("look at the free space of", b"the store", e))?;
        // Those that make inodes as they need them (btrfs) say that they have none.
        let reserve = self.reserve_inodes.unwrap_or(10_000.min(stat.f_files / 20));
        if stat.f_files > 0 && stat.f_favail < reserve {
            return Err(UnpackError::Inodes { available: stat.f_favail, reserve });
        }
        Ok(())
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { extension: self.extension_bytes }
    }
}

/// What a layer turned out to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Bytes of its files, holes included.
    pub(crate) bytes: u64,
    /// Entries, and directories made for them.
    pub(crate) entries: u64,
    /// Whiteouts of single names.
    pub(crate) whiteouts: u64,
    /// Directories that hide what is below them.
    pub(crate) opaques: u64,
    /// The whole layer hides what is below it.
    pub(crate) root_opaque: bool,
    /// Directories that the layer uses but does not describe.
    pub(crate) implied: BTreeSet<Vec<u8>>,
    /// Hard links to files that the layer does not have: the path, and the target in a layer below.
    pub(crate) links: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Unpacks one layer into `root`, an empty private directory, with the list of what was written into `list`.
/// Reads `reader` to its end. Answers the digest of the uncompressed bytes with what was found; the caller compares it.
///
/// # Errors
/// Whatever the error, `root` holds a part of the layer then: the caller removes it.
pub(crate) fn unpack(
    reader: &mut dyn Read,
    root: OwnedFd,
    list: File,
    limits: &Limits,
    below: Option<BorrowedFd<'_>>,
) -> Result<(Unpacked, Digest), UnpackError> {
    let (unpacked, passed) = stream::pump(reader, limits, |chunks| {
        let writer = writer::Writer::new(root, list, limits, below)?;
        let mut archive = Archive::new(chunks, limits.bounds());
        let unpacked = writer.write_all(&mut archive)?;
        archive.drain()?;
        Ok(unpacked)
    })?;
    Ok((unpacked, passed.digest))
}
