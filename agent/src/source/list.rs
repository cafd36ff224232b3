//! Lists the manifest files of a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest manifest file in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A directory as it is now.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Content or what was wrong, by path.
    pub files: BTreeMap<PathBuf, Result<Arc<[u8]>, String>>,
    /// Device and inode of the directory.
    pub identity: (u64, u64),
}

/// Lists a directory (or one file); an error is one of the source as a whole.
pub(super) fn list(root: &Path) -> Result<Listing, String> {
    let failed = |error: std::io::Error| format!("cannot read source {}: {error}", root.display());
    let meta = std::fs::metadata(root).map_err(failed)?;
    let mut listing = Listing { identity: (meta.dev(), meta.ino()), ..Listing::default() };
    if meta.is_dir() {
        let mut seen = BTreeSet::from([listing.identity]);
        walk(root, &mut listing, &mut seen, 0).map_err(failed)?;
    } else {
        listing.files.insert(root.to_owned(), read(root));
    }
    Ok(listing)
}

fn walk(dir: &Path, listing: &mut Listing, seen: &mut BTreeSet<(u64, u64)>, depth: usize) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !ignored(name)) else { continue };
        let path = entry.path();
        let meta = match std::fs::metadata(&path) {
            Ok(meta) => meta,
            // Gone in between, or a link to nowhere: the next listing tells.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                listing.files.insert(path, Err(error.to_string()));
                continue;
            }
        };
        if meta.is_dir() {
            if depth < 32 && seen.insert((meta.dev(), meta.ino())) {
                walk(&path, listing, seen, depth + 1)?;
            }
        } else if is_manifest(name) {
            let content = if meta.len() > MAX_FILE {
                Err(format!("it has {} bytes, at most {MAX_FILE} are read", meta.len()))
            } else {
                read(&path)
            };
            listing.files.insert(path, content);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Arc<[u8]>, String> {
    std::fs::read(path).map(Into::into).map_err(|error| error.to_string())
}

fn ignored(name: &str) -> bool {
    name.starts_with('.')
        || name.ends_with('~')
        || [".swp", ".bak", ".orig", ".tmp", ".rej"].iter().any(|ending| name.ends_with(ending))
}

fn is_manifest(name: &str) -> bool {
    [".yaml", ".yml", ".json", ".toml"].iter().any(|ending| name.ends_with(ending))
}
