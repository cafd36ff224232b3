//! Volumes of generated files, swapped as a whole: a reader sees the old files or the new ones, never a mixture.
//!
//! The kubelet's layout (pkg/volume/util/atomic_writer.go): `..data` is a link to a directory of this version, and each
//! file or directory at the top is a link into `..data`. Programs that watch `..data` work as they do there.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path};
use std::time::SystemTime;

use super::error::{Result, VolumeError, failed};
use super::tree;
use crate::api::{FileContent, FileSet};

const CURRENT: &str = "..data";
const NEXT: &str = "..data_tmp";
/// PATH_MAX, the kubelet's limit too.
const MAX_PATH: usize = 4096;

/// Whether `dir` has exactly these files.
pub(super) fn is_written(dir: &Path, set: &FileSet, fs_group: Option<u32>) -> Result<bool> {
    Ok(current(dir)?.is_some_and(|version| is_same(&dir.join(version), set, fs_group)))
}

/// The directory that is shown now.
fn current(dir: &Path) -> Result<Option<std::path::PathBuf>> {
    match fs::read_link(dir.join(CURRENT)) {
        Ok(target) => Ok(Some(target)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("read link", &dir.join(CURRENT))(e)),
    }
}

/// Writes the files into `dir`, unless they are there already. Returns whether anything changed.
pub(super) fn write(dir: &Path, set: &FileSet, fs_group: Option<u32>) -> Result<bool> {
    let mut top = BTreeSet::new();
    for path in set.files.keys() {
        top.insert(check_path(path)?);
    }
    let same = is_written(dir, set, fs_group)?;
    if !same {
        let version = new_version(dir, set, fs_group)?;
        let next = dir.join(NEXT);
        remove_entry(&next)?;
        symlink(&version, &next).map_err(failed("create link", &next))?;
        fs::rename(&next, dir.join(CURRENT)).map_err(failed("replace link", &dir.join(CURRENT)))?;
    }
    link_top(dir, &top)?;
    remove_stale(dir, &top)?;
    Ok(!same)
}

/// The first component of a good path.
fn check_path(path: &str) -> Result<OsString> {
    let refused = |why| VolumeError::Refused { what: "file path", value: path.to_owned(), why };
    if path.is_empty() || path.len() > MAX_PATH || path.contains('\0') {
        return Err(refused("it is empty, too long or has a NUL in it"));
    }
    let mut first = None;
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => drop(first.get_or_insert_with(|| name.to_owned())),
            Component::ParentDir => return Err(refused("it leads out of the volume")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {
                return Err(refused("it must be a relative path"));
            }
        }
    }
    match first {
        // The writer's own names, and everything that could be mistaken for them.
        Some(first) if first.as_encoded_bytes().starts_with(b"..") => Err(refused("it starts with `..`")),
        Some(first) => Ok(first),
        None => Err(refused("it must be a relative path")),
    }
}

/// Owner and mode that a file gets. Of an fsGroup's volume the group can read everything (Kubernetes fsGroup).
fn attributes(file: &FileContent, fs_group: Option<u32>) -> (u32, u32, u32) {
    let (uid, gid) = file.owner.unwrap_or((0, fs_group.unwrap_or(0)));
    let mode = file.mode & 0o7777 | if fs_group.is_some() && file.owner.is_none() { 0o440 } else { 0 };
    (uid, gid, mode)
}

fn is_same(version: &Path, set: &FileSet, fs_group: Option<u32>) -> bool {
    let same_file = |(path, file): (&String, &FileContent)| {
        let path = version.join(path);
        let Ok(metadata) = fs::symlink_metadata(&path) else { return false };
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777) == attributes(file, fs_group)
            && metadata.is_file()
            && fs::read(&path).is_ok_and(|bytes| bytes == file.bytes.expose())
    };
    let mut files = 0;
    let counted = tree::walk(version, |entry| {
        files += usize::from(entry.kind() != rustix::fs::FileType::Directory);
        Ok(())
    });
    counted.is_ok() && files == set.files.len() && set.files.iter().all(same_file)
}

/// Makes the directory of a new version, complete; returns its name.
fn new_version(dir: &Path, set: &FileSet, fs_group: Option<u32>) -> Result<String> {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut name = format!("..{}", since_epoch.as_nanos());
    while dir.join(&name).symlink_metadata().is_ok() {
        name.push('x');
    }
    let version = dir.join(&name);
    make_dir(&version, fs_group)?;
    for (path, file) in &set.files {
        let target = version.join(path);
        let mut parent = version.clone();
        for component in Path::new(path).parent().into_iter().flat_map(Path::components) {
            parent.push(component);
            if !parent.is_dir() {
                make_dir(&parent, fs_group)?;
            }
        }
        write_file(&target, file, fs_group).map_err(failed("write", &target))?;
    }
    Ok(name)
}

fn make_dir(path: &Path, fs_group: Option<u32>) -> Result<()> {
    fs::create_dir(path)
        .and_then(|()| std::os::unix::fs::chown(path, None, fs_group))
        // Not left to the umask: every user of the container may look around.
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(failed("create directory", path))
}

fn write_file(path: &Path, file: &FileContent, fs_group: Option<u32>) -> io::Result<()> {
    let (uid, gid, mode) = attributes(file, fs_group);
    // Closed to everybody until owner and mode are right.
    let mut target = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    target.write_all(file.bytes.expose())?;
    std::os::unix::fs::fchown(&target, Some(uid), Some(gid))?;
    target.set_permissions(fs::Permissions::from_mode(mode))
}

fn link_top(dir: &Path, top: &BTreeSet<OsString>) -> Result<()> {
    for name in top {
        let link = dir.join(name);
        let target = Path::new(CURRENT).join(name);
        match fs::read_link(&link) {
            Ok(present) if present == target => {}
            _ => {
                remove_entry(&link)?;
                symlink(&target, &link).map_err(failed("create link", &link))?;
            }
        }
    }
    Ok(())
}

/// Removes links of files that are no more, and directories of older versions.
fn remove_stale(dir: &Path, top: &BTreeSet<OsString>) -> Result<()> {
    let current = fs::read_link(dir.join(CURRENT)).map_err(failed("read link", &dir.join(CURRENT)))?;
    for entry in fs::read_dir(dir).map_err(failed("read directory", dir))? {
        let name = entry.map_err(failed("read directory", dir))?.file_name();
        let own = name.as_encoded_bytes().starts_with(b"..");
        let stays = if own { name == CURRENT || current.as_os_str() == name } else { top.contains(&name) };
        if !stays {
            remove_entry(&dir.join(&name))?;
        }
    }
    Ok(())
}

fn remove_entry(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(metadata) if metadata.is_dir() => tree::remove(path),
        _ => fs::remove_file(path),
    }
    .map_err(failed("remove", path))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use spec::secret::SecretBytes;

    fn set(files: &[(&str, &str, u32)]) -> FileSet {
        let file = |text: &str, mode| FileContent { bytes: SecretBytes::new(text.into()), mode, owner: None };
        let files = files.iter().map(|(path, text, mode)| ((*path).to_owned(), file(text, *mode)));
        FileSet { memory: false, files: files.collect() }
    }

    /// What a program sees: path, mode and text.
    fn seen(dir: &Path) -> BTreeMap<String, (u32, String)> {
        fn visit(dir: &Path, prefix: &str, found: &mut BTreeMap<String, (u32, String)>) {
            for entry in fs::read_dir(dir).expect("readable").flatten() {
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if name.starts_with("..") {
                    continue;
                }
                let metadata = fs::metadata(entry.path()).expect("no dangling links");
                if metadata.is_dir() {
                    visit(&entry.path(), &format!("{name}/"), found);
                } else {
                    let text = fs::read_to_string(entry.path()).expect("readable");
                    found.insert(name, (metadata.mode() & 0o7777, text));
                }
            }
        }
        let mut found = BTreeMap::new();
        visit(dir, "", &mut found);
        found
    }

    fn check(dir: &Path, files: &[(&str, &str, u32)], changed: bool) {
        assert_eq!(write(dir, &set(files), None).expect("good files"), changed, "{files:?}");
        let expected: BTreeMap<_, _> = files.iter().map(|(p, t, m)| ((*p).to_owned(), (*m, (*t).to_owned()))).collect();
        assert_eq!(seen(dir), expected);
        let own = fs::read_dir(dir)
            .expect("readable")
            .flatten()
            .filter(|e| e.file_name().as_encoded_bytes().starts_with(b".."));
        assert_eq!(own.count(), 2, "`..data` and one version");
    }

    #[test]
    fn files_are_swapped_as_a_whole_and_only_when_they_differ() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        check(dir, &[], true);
        check(dir, &[("a", "1", 0o644), ("sub/b", "2", 0o400)], true);
        check(dir, &[("a", "1", 0o644), ("sub/b", "2", 0o400)], false);
        check(dir, &[("a", "1", 0o600), ("sub/b", "2", 0o400)], true);
        check(dir, &[("a", "x", 0o600), ("sub/b", "2", 0o400)], true);
        // A file becomes a directory, a directory a file.
        check(dir, &[("a/b", "x", 0o600), ("sub", "2", 0o400)], true);
        check(dir, &[("sub", "2", 0o400)], true);
    }

    #[test]
    fn an_open_directory_keeps_the_old_version_and_names_lead_to_the_new() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), &set(&[("a", "old", 0o644)]), None).expect("good files");
        let mut open = fs::File::open(dir.path().join("a")).expect("there");
        write(dir.path(), &set(&[("a", "new", 0o644)]), None).expect("good files");
        let mut text = String::new();
        io::Read::read_to_string(&mut open, &mut text).expect("still readable");
        assert_eq!(text, "old");
        assert_eq!(fs::read_to_string(dir.path().join("a")).expect("there"), "new");
    }

    #[test]
    fn what_a_cut_off_run_left_is_mended() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        fs::create_dir(dir.join("..123")).expect("made");
        symlink("..gone", dir.join(NEXT)).expect("made");
        symlink("..gone", dir.join(CURRENT)).expect("made");
        symlink("..data/a", dir.join("stale")).expect("made");
        check(dir, &[("a", "1", 0o644)], true);
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        for (path, good) in [
            ("a", true),
            ("a/b", true),
            (".hidden", true),
            ("a/..b", true),
            ("..a", false),
            ("..data", false),
            ("../a", false),
            ("a/../b", false),
            ("/a", false),
            ("./a", false),
            ("", false),
            ("a\0", false),
        ] {
            let inner = dir.path().join("volume");
            fs::create_dir_all(&inner).expect("made");
            assert_eq!(write(&inner, &set(&[(path, "x", 0o644)]), None).is_ok(), good, "{path:?}");
            tree::remove(&inner).expect("removable");
        }
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }

    #[test]
    fn the_group_of_an_fs_group_can_read() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: changing owners needs root");
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let mut files = set(&[("a", "1", 0o400), ("b", "2", 0o400)]);
        files.files.get_mut("b").expect("in the set").owner = Some((7, 8));
        write(dir.path(), &files, Some(2000)).expect("good files");
        assert!(!write(dir.path(), &files, Some(2000)).expect("good files"));
        let facts = |name| {
            let m = fs::metadata(dir.path().join(name)).expect("there");
            (m.uid(), m.gid(), m.mode() & 0o7777)
        };
        assert_eq!(facts("a"), (0, 2000, 0o440));
        assert_eq!(facts("b"), (7, 8, 0o400));
    }
}
