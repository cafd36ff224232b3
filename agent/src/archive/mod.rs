//! Archives as sources: from their bytes to a directory that is read like any other. [`https`] fetches them by URL and
//! digest, [`oci`] from registries.
//!
//! Only regular files and directories are unpacked, into a new directory of our own in which no link is ever made;
//! anything else in an archive refuses it as a whole. What fails changes nothing.

pub(crate) mod https;
pub(crate) mod oci;

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use spec::digest::Digest;

use crate::revisions;

/// Most bytes that are fetched.
pub(crate) const MAX_SERVED: usize = 64 << 20;
/// Most bytes and entries that are unpacked.
const MAX_CONTENT: u64 = 256 << 20;
const MAX_ENTRIES: usize = 50_000;

/// Why bytes are no source.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// It is too long.
    #[error("the archive is too long: at most {} MiB are fetched and {} MiB unpacked", MAX_SERVED >> 20, MAX_CONTENT >> 20)]
    TooLarge,
    /// It cannot be unpacked.
    #[error("cannot unpack the archive")]
    Unpack(#[source] std::io::Error),
    /// It has something in it that is refused.
    #[error("the archive is refused: `{path}` is {what}")]
    Entry {
        /// Which.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is no such directory in it.
    #[error("the archive has no directory `{path}`", path = .0.display())]
    NoPath(PathBuf),
}

/// Which part of the content is looked at.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// So many leading directories of each name are left out.
    pub(crate) strip: usize,
    /// The directory that counts, after that.
    pub(crate) path: Option<PathBuf>,
}

/// Bytes that were fetched.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    /// The name of the file that they are, should they be no archive.
    pub(crate) name: Option<String>,
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Selection {
    /// Where the files of a digest are, seen from the directory of the source. Another path in it, or another depth,
    /// is another place.
    pub(crate) fn place(&self, hex: &str) -> PathBuf {
        let view = format!("{}\n{}", self.strip, self.path.as_deref().unwrap_or(Path::new("")).display());
        Path::new("revisions").join(format!("{hex}-{}", Digest::of(view.as_bytes()).short()))
    }
}

/// Unpacks everything into one directory of its own and lets it count.
pub(crate) async fn switch(
    selection: Selection,
    home: &Path,
    hex: &str,
    contents: Vec<Content>,
) -> Result<(), UnpackError> {
    let (home, place) = (home.to_owned(), selection.place(hex));
    let unpacked = tokio::task::spawn_blocking(move || switch_now(&selection, &home, &place, &contents)).await;
    unpacked.unwrap_or_else(|error| Err(UnpackError::Unpack(std::io::Error::other(error))))
}

fn switch_now(selection: &Selection, home: &Path, place: &Path, contents: &[Content]) -> Result<(), UnpackError> {
    let failed = UnpackError::Unpack;
    revisions::prepare(home).map_err(failed)?;
    let draft = revisions::draft(home).map_err(failed)?;
    // Long names and extended headers are entries too; all of them together have an end.
    let mut left = MAX_CONTENT;
    for Content { name, bytes } in contents {
        left = if bytes.starts_with(&[0x1f, 0x8b]) {
            unpack(selection.strip, flate2::read::MultiGzDecoder::new(&**bytes), left, &draft)?
        } else if let Some(name) = name.as_deref().filter(|_| !is_tar(bytes)) {
            write(&below(&draft, Path::new(name), 0)?.ok_or_else(|| entry(name, "no name"))?, &mut &**bytes)?;
            left.saturating_sub(bytes.len() as u64)
        } else {
            unpack(selection.strip, &**bytes, left, &draft)?
        };
    }
    let wanted = selection.path.as_ref().map_or_else(|| draft.clone(), |path| draft.join(path));
    if !wanted.is_dir() {
        return Err(UnpackError::NoPath(selection.path.clone().unwrap_or_default()));
    }
    let directory = home.join(place);
    if directory.exists() {
        std::fs::remove_dir_all(&directory).map_err(failed)?;
    }
    std::fs::rename(&wanted, &directory).map_err(failed)?;
    drop(std::fs::remove_dir_all(&draft));
    revisions::switch(home, place).map_err(failed)
}

/// Whether these bytes begin with the header of a tar archive (POSIX pax, "ustar Interchange Format").
fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

fn entry(path: impl AsRef<Path>, what: &'static str) -> UnpackError {
    UnpackError::Entry { path: path.as_ref().display().to_string(), what }
}

/// Where a name leads below a directory, without its first parts; nowhere when it has no more than those.
fn below(directory: &Path, name: &Path, strip: usize) -> Result<Option<PathBuf>, UnpackError> {
    let mut parts = Vec::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(entry(name, "outside of the archive"));
            }
        }
    }
    let kept = parts.iter().skip(strip);
    Ok((parts.len() > strip).then(|| kept.fold(directory.to_owned(), |target, part| target.join(part))))
}

/// Writes a file that is not there yet.
fn write(target: &Path, from: &mut impl Read) -> Result<(), UnpackError> {
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(UnpackError::Unpack)?;
    }
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(target);
    std::io::copy(from, &mut file.map_err(UnpackError::Unpack)?).map(drop).map_err(UnpackError::Unpack)
}

/// Unpacks one archive; how much may follow.
fn unpack(strip: usize, from: impl Read, left: u64, draft: &Path) -> Result<u64, UnpackError> {
    let failed = UnpackError::Unpack;
    let mut limited = from.take(left);
    let mut archive = tar::Archive::new(&mut limited);
    for (number, found) in archive.entries().map_err(failed)?.enumerate() {
        let mut found = found.map_err(failed)?;
        let path = found.path().map_err(failed)?.into_owned();
        if number >= MAX_ENTRIES {
            return Err(entry(path, "one entry too many"));
        }
        let kind = found.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let Some(target) = below(draft, &path, strip)? else { continue };
        if kind.is_dir() {
            std::fs::create_dir_all(&target).map_err(failed)?;
        } else if kind.is_file() {
            write(&target, &mut found)?;
        } else {
            return Err(entry(path, "neither a file nor a directory"));
        }
    }
    // One that was cut off here would be half of what is wished.
    if limited.limit() == 0 { Err(UnpackError::TooLarge) } else { Ok(limited.limit()) }
}

#[cfg(test)]
mod tests;
