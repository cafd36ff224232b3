//! Whether a newer version has left records that this one would misread.
//!
//! Each kind of record has a schema number, which rises when an older version must not go by it any more. Such a version
//! would take a Job that has ended for one that never ran, or what is paused for what is not. It does nothing instead:
//! containers run on, and the version that wrote the records can be installed again.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::source::NodeKey;

/// Kinds of records that are not sealed: where they are below the data directory (`*` stands for any name), and the newest
/// schema that this version reads.
const KINDS: &[(&str, u32)] = &[
    ("pods/*/pod.json", 1),
    ("pods/*/users.json", 1),
    ("pods/*/*/*/start.json", 1),
    ("pods/*/*/*/exit.json", 1),
    ("memory/*.json", 1),
    ("generations/*.json", 1),
    ("network/networks/*.json", 1),
    ("network/leases/*.json", 1),
    ("network/services.json", 1),
    ("images/records/*.json", 1),
    ("images/refs/*.json", 1),
    ("images/layers/*/layer.json", 1),
    ("volumes/*/volume.json", 1),
    ("git/*/remote.json", 1),
    ("archives/*/remote.json", 1),
    ("oci/*/remote.json", 1),
    ("orders.json", 1),
    ("sources.json", 1),
];

/// Those that are sealed with the node's key.
const SEALED: &[(&str, u32)] =
    &[("versions/*.sealed", 1), ("generations/*.sealed", 1), ("last-good.sealed", 1), ("applied.sealed", 1)];

/// A record that this version cannot go by.
#[derive(Debug, thiserror::Error)]
#[error("record {} was written by a newer version (schema {schema}, this one reads {known})", path.display())]
pub struct Newer {
    path: PathBuf,
    schema: u32,
    known: u32,
}

impl Newer {
    /// What the reader can do.
    pub const HINT: &str = "install the version again that was here before; containers are as it left them";
}

/// What a record says of itself; exit records call it `version`.
#[derive(Deserialize)]
struct Mark {
    #[serde(alias = "version")]
    schema: u32,
}

/// Looks at every record. One that is damaged or cannot be read is the business of who needs it.
///
/// # Errors
/// The first one of a newer schema.
pub(crate) fn check(data_dir: &Path) -> Result<(), Newer> {
    check_kinds(data_dir, KINDS, |path| std::fs::read(path).ok())?;
    match NodeKey::load(&data_dir.join("node.key")) {
        Ok(key) => check_kinds(data_dir, SEALED, |path| key.read(path).ok().flatten()),
        Err(_) => Ok(()),
    }
}

fn check_kinds(data_dir: &Path, kinds: &[(&str, u32)], read: impl Fn(&Path) -> Option<Vec<u8>>) -> Result<(), Newer> {
    for (pattern, known) in kinds {
        for path in below(data_dir, pattern).unwrap_or_default() {
            let mark = read(&path).and_then(|bytes| serde_json::from_slice::<Mark>(&bytes).ok());
            if let Some(Mark { schema }) = mark.filter(|mark| mark.schema > *known) {
                return Err(Newer { path, schema, known: *known });
            }
        }
    }
    Ok(())
}

/// Files that a pattern means, there or not: a plain name at its end is put behind each directory.
pub(super) fn below(dir: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![dir.to_owned()];
    let parts: Vec<&str> = pattern.split('/').collect();
    for part in parts {
        let mut next = Vec::new();
        for dir in found {
            match part.strip_prefix('*') {
                None => next.push(dir.join(part)),
                // What volumes of pods hold is not ours.
                Some(ending) => {
                    next.extend(entries(&dir)?.into_iter().filter(|path| {
                        ends(path, ending) && !(pattern.starts_with("pods/") && path.ends_with("volumes"))
                    }))
                }
            }
        }
        found = next;
    }
    Ok(found)
}

fn ends(path: &Path, ending: &str) -> bool {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default().ends_with(ending)
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        // Gone in between, or a file.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_any_kind_that_is_newer_is_found() {
        let check = |file: &str, text: &str, want: Option<u32>| {
            let dir = tempfile::tempdir().expect("a temporary directory can be made");
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().expect("below")).expect("the directory is ours");
            std::fs::write(&path, text).expect("the directory is ours");
            let found = check(dir.path()).err();
            assert_eq!(found.as_ref().map(|newer| newer.schema), want, "{file} {text}");
            assert!(found.is_none_or(|newer| newer.path == path));
        };
        for file in [
            "pods/u/pod.json",
            "pods/u/users.json",
            "pods/u/main/3/start.json",
            "pods/u/main/3/exit.json",
            "memory/a.json",
            "generations/12.json",
            "network/networks/default.json",
            "network/leases/u.json",
            "network/services.json",
            "images/records/d.json",
            "images/refs/h.json",
            "images/layers/d/layer.json",
            "volumes/data/volume.json",
            "volumes/volumes/volume.json",
            "git/fleet/remote.json",
            "archives/fleet/remote.json",
            "oci/fleet/remote.json",
            "orders.json",
            "sources.json",
        ] {
            check(file, "{\"schema\":2}", Some(2));
            check(file, "{\"version\":7,\"more\":[]}", Some(7));
            check(file, "{\"schema\":1}", None);
            check(file, "damaged", None);
        }
        let sealed = tempfile::tempdir().expect("a temporary directory can be made");
        let key = NodeKey::load_or_make(&sealed.path().join("node.key")).expect("a new key");
        for file in ["versions/a.sealed", "generations/12.sealed", "last-good.sealed", "applied.sealed"] {
            let path = sealed.path().join(file);
            std::fs::create_dir_all(path.parent().expect("below")).expect("the directory is ours");
            for (text, want) in [("{\"schema\":2}", true), ("{\"schema\":1}", false)] {
                key.write(&path, text.as_bytes()).expect("the directory is ours");
                assert_eq!(super::check(sealed.path()).is_err(), want, "{file} {text}");
            }
        }
        check("pods/u/volumes/data/start.json", "{\"schema\":2}", None);
        check("pods/u/main/3/upper/start.json", "{\"schema\":2}", None);
        check("volumes/data/orders.json", "{\"schema\":2}", None);
    }
}
