//! Paths of the host as volumes: checked, and made where the manifest says so.

use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use spec::pod::HostPathKind;

use super::error::{Result, VolumeError, failed};

/// Checks a hostPath by its type, and makes it for the `OrCreate` types (Kubernetes HostPathType).
pub(super) fn prepare(volume: &str, path: &str, kind: HostPathKind) -> Result<PathBuf> {
    typed(volume, path, kind, true)
}

/// Whether [`prepare`] can succeed. Makes nothing.
pub(super) fn check(volume: &str, path: &str, kind: HostPathKind) -> Result<()> {
    typed(volume, path, kind, false).map(drop)
}

fn typed(volume: &str, path: &str, kind: HostPathKind, make: bool) -> Result<PathBuf> {
    let path = absolute(path)?;
    let found = match fs::metadata(&path) {
        Ok(metadata) => Some(metadata.file_type()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(failed("look at", &path)(e)),
    };
    let wrong = |wanted| VolumeError::HostPath {
        volume: volume.to_owned(),
        path: path.clone(),
        found: found.map_or("there is nothing", describe),
        wanted,
    };
    match (kind, found) {
        (HostPathKind::DirectoryOrCreate | HostPathKind::FileOrCreate | HostPathKind::Any, None) if !make => {
            can_be_made(&path, kind != HostPathKind::FileOrCreate)?;
        }
        (HostPathKind::DirectoryOrCreate, None) => make_directory(&path)?,
        (HostPathKind::FileOrCreate, None) => {
            // The directory it goes into is not made (Kubernetes: "the parent directory ... must exist").
            let file = fs::OpenOptions::new().write(true).create_new(true).open(&path);
            file.and_then(|f| f.set_permissions(fs::Permissions::from_mode(0o644)))
                .map_err(failed("create file", &path))?;
        }
        // Nothing is checked, but a mount needs something to mount: the kubelet's runtimes make a directory.
        (HostPathKind::Any, None) => make_directory(&path)?,
        (HostPathKind::Any, Some(_)) => {}
        (HostPathKind::DirectoryOrCreate | HostPathKind::Directory, found) => {
            found.filter(FileType::is_dir).ok_or_else(|| wrong("a directory"))?;
        }
        (HostPathKind::FileOrCreate | HostPathKind::File, found) => {
            found.filter(FileType::is_file).ok_or_else(|| wrong("a file"))?;
        }
        (HostPathKind::Socket, found) => {
            found.filter(FileTypeExt::is_socket).ok_or_else(|| wrong("a socket"))?;
        }
        (HostPathKind::CharDevice, found) => {
            found.filter(FileTypeExt::is_char_device).ok_or_else(|| wrong("a character device"))?;
        }
        (HostPathKind::BlockDevice, found) => {
            found.filter(FileTypeExt::is_block_device).ok_or_else(|| wrong("a block device"))?;
        }
    }
    Ok(path)
}

/// A bind of Compose: must be there, or is made as a directory (`create_host_path`).
pub(super) fn prepare_bind(volume: &str, path: &str, create: bool) -> Result<PathBuf> {
    let path = absolute(path)?;
    match fs::symlink_metadata(&path) {
        Ok(_) => Ok(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound && create => make_directory(&path).map(|()| path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(VolumeError::HostPath {
            volume: volume.to_owned(),
            path,
            found: "there is nothing",
            wanted: "made before",
        }),
        Err(e) => Err(failed("look at", &path)(e)),
    }
}

/// Whether [`prepare_bind`] can succeed. Makes nothing.
pub(super) fn check_bind(volume: &str, path: &str, create: bool) -> Result<()> {
    match absolute(path)? {
        missing if create && fs::symlink_metadata(&missing).is_err() => can_be_made(&missing, true),
        _ => prepare_bind(volume, path, false).map(drop),
    }
}

/// Whether what is above a path is a directory; with `deep` the nearest of it that is there.
fn can_be_made(path: &Path, deep: bool) -> Result<()> {
    for above in path.ancestors().skip(1) {
        match fs::metadata(above) {
            Ok(meta) if meta.is_dir() => return Ok(()),
            Ok(_) => return Err(failed("create anything below", above)(io::Error::from(io::ErrorKind::NotADirectory))),
            Err(e) if deep && e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("create anything in", above)(e)),
        }
    }
    Ok(())
}

fn absolute(path: &str) -> Result<PathBuf> {
    let refused = |why| VolumeError::Refused { what: "host path", value: path.to_owned(), why };
    let parsed = Path::new(path);
    if !parsed.is_absolute() {
        return Err(refused("it must be absolute"));
    }
    if parsed.components().any(|c| c == Component::ParentDir) {
        return Err(refused("it must not have `..` in it"));
    }
    Ok(parsed.to_owned())
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(failed("create directory", path))
}

fn describe(kind: FileType) -> &'static str {
    match kind {
        k if k.is_dir() => "it is a directory",
        k if k.is_file() => "it is a file",
        k if k.is_socket() => "it is a socket",
        k if k.is_char_device() => "it is a character device",
        k if k.is_block_device() => "it is a block device",
        _ => "it is something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_checked_or_made() {
        use HostPathKind::*;
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name).to_str().expect("plain").to_owned();
        fs::create_dir(at("dir")).expect("made");
        fs::write(at("file"), "").expect("written");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("bound");
        for (path, kind, expected) in [
            (at("dir"), Directory, ""),
            (at("file"), Directory, "it is a file, and it must be a directory"),
            (at("none"), Directory, "there is nothing, and it must be a directory"),
            (at("file"), DirectoryOrCreate, "it is a file, and it must be a directory"),
            (at("made/deep"), DirectoryOrCreate, ""),
            (at("made/deep"), Directory, ""),
            (at("file"), File, ""),
            (at("dir"), File, "it is a directory, and it must be a file"),
            (at("made/file"), FileOrCreate, ""),
            (at("made/file"), File, ""),
            (at("no/parent"), FileOrCreate, "cannot create file"),
            (at("socket"), Socket, ""),
            (at("dir"), Socket, "it is a directory, and it must be a socket"),
            ("/dev/null".to_owned(), CharDevice, ""),
            (at("socket"), CharDevice, "it is a socket, and it must be a character device"),
            ("/dev/null".to_owned(), BlockDevice, "it is a character device, and it must be a block device"),
            (at("socket"), Any, ""),
            (at("any"), Any, ""),
            (at("any"), Directory, ""),
            (at("file/below"), Any, "cannot look at"),
            ("relative".to_owned(), Any, "it must be absolute"),
            ("/a/../etc".to_owned(), Any, "it must not have `..` in it"),
        ] {
            // What is only checked fails where it would fail in earnest, and nothing is made.
            let there = Path::new(&path).exists();
            assert_eq!(check("v", &path, kind).is_err(), !expected.is_empty(), "{path} {kind:?}");
            assert_eq!(Path::new(&path).exists(), there, "{path} {kind:?}");
            let got = prepare("v", &path, kind).map_or_else(|e| e.to_string(), |_| String::new());
            assert_eq!(got.is_empty(), expected.is_empty(), "{path} {kind:?}: {got}");
            assert!(got.contains(expected), "{path} {kind:?}: {got}");
        }
    }

    #[test]
    fn binds_are_made_only_when_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a/b").to_str().expect("plain").to_owned();
        let error = prepare_bind("v", &path, false).expect_err("nothing there").to_string();
        assert_eq!(
            error,
            format!("cannot use host path {path} for volume `v`: there is nothing, and it must be made before")
        );
        check_bind("v", &path, false).expect_err("nothing there");
        check_bind("v", &path, true).expect("it can be made");
        assert!(!Path::new(&path).exists());
        prepare_bind("v", &path, true).expect("made");
        check_bind("v", &path, false).expect("there");
        prepare_bind("v", &path, false).expect("there");
    }
}
