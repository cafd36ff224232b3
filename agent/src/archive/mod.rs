//! A tar archive as a source: fetched over https, accepted by its digest, unpacked into a directory that is then read
//! like any other.
//!
//! What the digest names never changes, so that nothing is asked once it is there. Only regular files and directories
//! are unpacked, into a new directory of our own in which no link is ever made; anything else in an archive refuses it
//! as a whole. The switch to another revision is one rename of a symlink; what fails changes nothing.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use spec::digest::Digest;

use crate::config::ArchiveSource;
use crate::credential::{self, CredentialError};

/// Longest archive as it is served.
const MAX_SERVED: usize = 64 << 20;
/// Most bytes and entries in one.
const MAX_CONTENT: u64 = 256 << 20;
const MAX_ENTRIES: usize = 50_000;

/// Why an archive is no source now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// The token cannot be had.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// It cannot be fetched.
    #[error("cannot fetch {url}")]
    Fetch {
        /// From where.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server says no.
    #[error("cannot fetch {url}: the server answered {status}")]
    Refused {
        /// From where.
        url: String,
        /// Its answer.
        status: u16,
    },
    /// It is too long.
    #[error("the archive is too long: at most {} MiB are fetched and {} MiB unpacked", MAX_SERVED >> 20, MAX_CONTENT >> 20)]
    TooLarge,
    /// It is another file.
    #[error("the archive has the digest sha256:{found}, not sha256:{wanted}")]
    Digest {
        /// What is served.
        found: String,
        /// What was asked for.
        wanted: String,
    },
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

/// One try: fetches and switches when this digest is not there yet. What counts then.
pub(crate) async fn poll(source: &ArchiveSource, home: &Path) -> Result<String, ArchiveError> {
    let place = place(source);
    if std::fs::read_link(home.join("current")).ok().as_ref() == Some(&place) && home.join(&place).is_dir() {
        return Ok(source.hex().to_owned());
    }
    let bytes = fetch(source).await?;
    let (source, home) = (source.clone(), home.to_owned());
    let hex = source.hex().to_owned();
    let unpacked = tokio::task::spawn_blocking(move || switch(&source, &home, &place, &bytes)).await;
    unpacked.unwrap_or_else(|error| Err(ArchiveError::Unpack(std::io::Error::other(error))))?;
    Ok(hex)
}

/// The files of this digest; another path in it, or another depth, is another place.
fn place(source: &ArchiveSource) -> PathBuf {
    let view = format!("{}\n{}", source.strip, source.path.as_deref().unwrap_or(Path::new("")).display());
    Path::new("revisions").join(format!("{}-{}", source.hex(), Digest::of(view.as_bytes()).short()))
}

async fn fetch(source: &ArchiveSource) -> Result<Vec<u8>, ArchiveError> {
    let failed = |error: reqwest::Error| ArchiveError::Fetch { url: source.url.clone(), source: error.without_url() };
    runtime::install_crypto();
    // A token goes to the host of the URL only: reqwest drops it when a redirect leads to another one.
    let client = reqwest::Client::builder()
        .https_only(source.url.starts_with("https://"))
        .connect_timeout(std::time::Duration::from_secs(10))
        .read_timeout(std::time::Duration::from_secs(30))
        .user_agent("mainstay")
        .build()
        .map_err(failed)?;
    let mut request = client.get(&source.url);
    if let Some(file) = &source.token_file {
        request = request.bearer_auth(String::from_utf8_lossy(&credential::read(file)?).trim());
    }
    let mut answer = request.send().await.map_err(failed)?;
    if !answer.status().is_success() {
        return Err(ArchiveError::Refused { url: source.url.clone(), status: answer.status().as_u16() });
    }
    let mut bytes = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(failed)? {
        if bytes.len() + part.len() > MAX_SERVED {
            return Err(ArchiveError::TooLarge);
        }
        bytes.extend_from_slice(&part);
    }
    if !source.is_this(&bytes) {
        let (found, wanted) = (Digest::of(&bytes).hex(), source.hex().to_owned());
        return Err(ArchiveError::Digest { found, wanted });
    }
    Ok(bytes)
}

/// Unpacks into a directory of its own and lets it count.
fn switch(source: &ArchiveSource, home: &Path, place: &Path, bytes: &[u8]) -> Result<(), ArchiveError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failed = ArchiveError::Unpack;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(home.join("revisions")).map_err(failed)?;
    let draft = home.join("draft");
    if draft.exists() {
        std::fs::remove_dir_all(&draft).map_err(failed)?;
    }
    std::fs::DirBuilder::new().mode(0o700).create(&draft).map_err(failed)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        unpack(source, flate2::read::MultiGzDecoder::new(bytes), &draft)?;
    } else {
        unpack(source, bytes, &draft)?;
    }
    let wanted = source.path.as_ref().map_or_else(|| draft.clone(), |path| draft.join(path));
    if !wanted.is_dir() {
        return Err(ArchiveError::NoPath(source.path.clone().unwrap_or_default()));
    }
    let directory = home.join(place);
    if directory.exists() {
        std::fs::remove_dir_all(&directory).map_err(failed)?;
    }
    std::fs::rename(&wanted, &directory).map_err(failed)?;
    drop(std::fs::remove_dir_all(&draft));
    let link = home.join("current.new");
    drop(std::fs::remove_file(&link));
    std::os::unix::fs::symlink(place, &link).map_err(failed)?;
    let before = std::fs::read_link(home.join("current")).ok();
    std::fs::rename(&link, home.join("current")).map_err(failed)?;
    // The one before stays: somebody may be reading it now.
    let kept = [Some(place.to_owned()), before];
    for entry in std::fs::read_dir(home.join("revisions")).map_err(failed)?.flatten() {
        if !kept.contains(&Some(Path::new("revisions").join(entry.file_name()))) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
    Ok(())
}

fn unpack(source: &ArchiveSource, from: impl Read, draft: &Path) -> Result<(), ArchiveError> {
    let failed = ArchiveError::Unpack;
    // Long names and extended headers are entries too; all of them together have an end.
    let mut limited = from.take(MAX_CONTENT);
    let mut archive = tar::Archive::new(&mut limited);
    for (number, entry) in archive.entries().map_err(failed)?.enumerate() {
        let mut entry = entry.map_err(failed)?;
        let path = entry.path().map_err(failed)?.into_owned();
        let refused = |what| Err(ArchiveError::Entry { path: path.display().to_string(), what });
        if number >= MAX_ENTRIES {
            return refused("one entry too many");
        }
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let mut parts = Vec::new();
        for part in path.components() {
            match part {
                Component::Normal(part) => parts.push(part),
                Component::CurDir => {}
                Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                    return refused("outside of the archive");
                }
            }
        }
        let target = parts.iter().skip(source.strip).fold(draft.to_owned(), |target, part| target.join(part));
        if parts.len() <= source.strip {
            continue;
        }
        if kind.is_dir() {
            std::fs::create_dir_all(&target).map_err(failed)?;
        } else if kind.is_file() {
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent).map_err(failed)?;
            }
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&target).map_err(failed)?;
            std::io::copy(&mut entry, &mut file).map_err(failed)?;
        } else {
            return refused("neither a file nor a directory");
        }
    }
    // One that was cut off here would be half of what is wished.
    if limited.limit() == 0 { Err(ArchiveError::TooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
