//! Small records of the agent on disk: JSON, written to a temporary file, synced and renamed. One that cannot be read
//! is as good as none: what it said is found again from facts, or is safe to forget.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads a record. A damaged one is told, put aside as `NAME.damaged` for people, and counts as none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!(file = %path.display(), %error, "record not read");
            return None;
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::error!(file = %path.display(), %error, "damaged record put aside");
            put_aside(path);
            None
        }
    }
}

/// Renames a damaged file so that it is neither read again nor lost.
pub(crate) fn put_aside(path: &Path) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    drop(std::fs::rename(path, aside));
}

/// Writes a record durably, for root only.
///
/// # Errors
/// The disk refuses.
pub(crate) fn write<T: Serialize>(path: &Path, record: &T) -> std::io::Result<()> {
    write_bytes(path, &serde_json::to_vec(record)?)
}

/// Temporary file, fsync, rename, fsync of the directory; readable by root only.
///
/// # Errors
/// The disk refuses.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    std::fs::File::open(dir)?.sync_all()
}
