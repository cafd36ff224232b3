//! Walks directory trees that containers have written, by file descriptors: never through a symbolic link, never
//! across a mount, however hostile the names and the nesting are.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, renameat, statat, unlinkat,
};

/// Deeper directories are moved up before they are entered, so that neither stack nor descriptors run out.
const MAX_DEPTH: usize = 64;

/// Opens a directory that is given by the agent itself.
pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// Opens something below `root` without leaving its file system; `flags` decide what it may be.
fn open_below(root: impl AsFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    loop {
        match openat2(&root, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), inside) {
            // A rename elsewhere during the look-up.
            Err(rustix::io::Errno::AGAIN) => {}
            other => return other,
        }
    }
}

fn names(directory: impl AsFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// One thing of a tree.
pub(super) struct Entry<'a> {
    /// The directory it is in, or itself for the root.
    pub(super) directory: &'a OwnedFd,
    /// Its name there; empty for the root.
    pub(super) name: &'a CStr,
    /// What it is.
    pub(super) stat: Stat,
}

impl Entry<'_> {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Visits a directory and all that is below it on the same mount, parents first.
pub(super) fn walk(root: &Path, mut visit: impl FnMut(&Entry<'_>) -> io::Result<()>) -> io::Result<()> {
    let root = open_root(root)?;
    let stat = statat(&root, c"", AtFlags::EMPTY_PATH)?;
    visit(&Entry { directory: &root, name: c"", stat })?;
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let opened;
        let directory = if path.as_os_str().is_empty() {
            &root
        } else {
            match open_below(&root, &path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(directory) => {
                    opened = directory;
                    &opened
                }
                // Removed or replaced in the meantime, or another mount.
                Err(
                    rustix::io::Errno::NOENT
                    | rustix::io::Errno::NOTDIR
                    | rustix::io::Errno::LOOP
                    | rustix::io::Errno::XDEV,
                ) => continue,
                Err(e) => return Err(e.into()),
            }
        };
        for name in names(directory)? {
            let stat = match statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => continue,
                other => other?,
            };
            let entry = Entry { directory, name: &name, stat };
            visit(&entry)?;
            if entry.kind() == FileType::Directory {
                use std::os::unix::ffi::OsStrExt as _;
                waiting.push(path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    Ok(())
}

/// Bytes that a tree takes on its file system; hard links count once. Other mounts in it do not count.
///
/// # Errors
/// When the directory cannot be read.
pub fn usage(path: &Path) -> io::Result<u64> {
    let mut linked = std::collections::HashSet::new();
    let mut bytes = 0;
    walk(path, |entry| {
        let stat = &entry.stat;
        if stat.st_nlink < 2 || entry.kind() == FileType::Directory || linked.insert((stat.st_dev, stat.st_ino)) {
            bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
        }
        Ok(())
    })?;
    Ok(bytes)
}

/// Removes a directory with all that is in it. That it is not there is a success; a mount in it is an error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    if let Err(error) = clear(path) {
        return if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    }
    match std::fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes everything in a directory.
pub(super) fn clear(path: &Path) -> io::Result<()> {
    let top = open_root(path)?;
    let mut moved = 0;
    // Each round empties what is there, except for what it has moved up from too deep below.
    loop {
        let before = moved;
        empty(&top, &top, 0, &mut moved)?;
        if moved == before {
            return Ok(());
        }
    }
}

fn empty(top: &OwnedFd, directory: &OwnedFd, depth: usize, moved: &mut u64) -> io::Result<()> {
    for name in names(directory)? {
        match unlinkat(directory, &name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => continue,
            // Which of the two it is for a directory depends on the file system.
            Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
        if depth >= MAX_DEPTH {
            renameat(directory, &name, top, format!(".removed-{moved}"))?;
            *moved += 1;
            continue;
        }
        use std::os::unix::ffi::OsStrExt as _;
        let path = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let inner = open_below(directory, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        empty(top, &inner, depth + 1, moved)?;
        drop(inner);
        unlinkat(directory, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn removal_follows_no_links_and_survives_deep_nesting() {
        let dir = tempfile::tempdir().expect("a directory");
        let (outside, tree) = (dir.path().join("outside"), dir.path().join("tree"));
        fs::create_dir(&outside).expect("made");
        fs::write(outside.join("keep"), "x").expect("written");
        fs::create_dir(&tree).expect("made");
        symlink(&outside, tree.join("link")).expect("made");
        fs::create_dir(tree.join(".removed-0")).expect("made");
        // Deeper than a path name can be.
        let mut directory = open_root(&tree).expect("a directory");
        for _ in 0..3000 {
            rustix::fs::mkdirat(&directory, "deeper", Mode::RWXU).expect("made");
            directory = openat(&directory, "deeper", OFlags::DIRECTORY, Mode::empty()).expect("just made");
        }
        remove(&tree).expect("removable");
        assert!(!tree.exists());
        assert!(outside.join("keep").exists());
        remove(&tree).expect("gone already");
    }

    #[test]
    fn usage_counts_blocks_and_links_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let empty = usage(dir.path()).expect("readable");
        fs::create_dir(dir.path().join("sub")).expect("made");
        fs::write(dir.path().join("sub/file"), vec![1; 100_000]).expect("written");
        fs::hard_link(dir.path().join("sub/file"), dir.path().join("again")).expect("linked");
        let used = usage(dir.path()).expect("readable") - empty;
        assert!((100_000..150_000).contains(&used), "{used}");
    }
}
