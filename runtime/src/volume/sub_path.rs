//! A path within a volume as a mount source that cannot be led elsewhere.
//!
//! Containers write volumes, so a path that was checked can be a link to `/` when it is mounted (CVE-2017-1002101).
//! Here nothing is checked and used later: the kernel resolves the path beneath the volume and hands out the thing
//! itself, and that thing is mounted. Links that stay within the volume work; those that lead out are errors.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, statat};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use super::error::{Result, VolumeError, failed};

/// Mounts `sub_path` of the volume at `target`, which is made. What was mounted there before is replaced.
/// A missing path is made as directories where `create` says so, with the mode of the volume's top.
pub(super) fn mount(volume: &Path, sub_path: &str, target: &Path, create: bool) -> Result<()> {
    let found = resolve(volume, sub_path, create)?;
    let is_dir = statat(&found, c"", AtFlags::EMPTY_PATH)
        .map(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
        .map_err(failed("look at a subPath of", volume))?;
    detach(target).map_err(failed("unmount", target))?;
    make_target(target, is_dir).map_err(failed("create", target))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(&found, c"", flags).map_err(failed("mount a subPath of", volume))?;
    move_mount(&tree, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(failed("mount", target))
}

/// The thing at a path within a volume.
fn resolve(volume: &Path, sub_path: &str, create: bool) -> Result<OwnedFd> {
    let refused = |why| VolumeError::Refused { what: "subPath", value: sub_path.to_owned(), why };
    let path = Path::new(sub_path);
    if path.is_absolute() || sub_path.contains('\0') {
        return Err(refused("it must be a relative path"));
    }
    if path.components().any(|c| c == Component::ParentDir) {
        return Err(refused("it must not have `..` in it"));
    }
    let root = openat(CWD, volume, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open", volume))?;
    let error = |e: rustix::io::Errno| match e {
        rustix::io::Errno::XDEV => refused("a link in it leads out of the volume"),
        rustix::io::Errno::LOOP => refused("a link in it leads in circles or out of the volume"),
        rustix::io::Errno::NOTDIR => refused("a part of it is a file"),
        other => failed("open a subPath of", &volume.join(path))(other),
    };
    match beneath(&root, path) {
        Err(rustix::io::Errno::NOENT) if create => {}
        other => return other.map_err(error),
    }
    // As the kubelet's SafeMakeDir: each missing directory gets the mode of the volume's top.
    let mode = statat(&root, c"", AtFlags::EMPTY_PATH).map_err(error)?.st_mode & 0o7777;
    let mut made = std::path::PathBuf::new();
    for component in path.components().filter(|c| matches!(c, Component::Normal(_))) {
        let parent = beneath(&root, if made.as_os_str().is_empty() { Path::new(".") } else { &made }).map_err(error)?;
        match mkdirat(&parent, component.as_os_str(), Mode::from_raw_mode(mode & 0o777)) {
            Ok(()) => {
                // The umask may have taken bits away; what was just made is opened without following a link.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let new = openat(&parent, component.as_os_str(), flags, Mode::empty()).map_err(error)?;
                rustix::fs::fchmod(&new, Mode::from_raw_mode(mode)).map_err(error)?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(error(e)),
        }
        made.push(component);
    }
    beneath(&root, path).map_err(error)
}

fn beneath(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // The kernel saw a rename and cannot tell whether `..` was safe; asking again is.
            Err(rustix::io::Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// Takes away what is mounted there, all of it.
pub(super) fn detach(target: &Path) -> io::Result<()> {
    loop {
        match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

fn make_target(target: &Path, is_dir: bool) -> io::Result<()> {
    if let Ok(metadata) = fs::symlink_metadata(target) {
        if metadata.is_dir() == is_dir {
            return Ok(());
        }
        if metadata.is_dir() { fs::remove_dir(target)? } else { fs::remove_file(target)? }
    }
    if is_dir {
        return fs::create_dir_all(target);
    }
    fs::create_dir_all(target.parent().unwrap_or(Path::new("/")))?;
    fs::File::create(target).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::atomic::Ordering;

    use super::*;

    fn volume() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("volume/dir/deep")).expect("made");
        fs::write(dir.path().join("volume/dir/file"), "inside").expect("written");
        fs::write(dir.path().join("file"), "outside").expect("written");
        for (target, link) in
            [("dir", "inner"), ("/", "root"), ("..", "up"), ("../file", "file"), ("a", "b"), ("b", "a")]
        {
            symlink(target, dir.path().join("volume").join(link)).expect("made");
        }
        dir
    }

    #[test]
    fn paths_stay_within_the_volume() {
        let dir = volume();
        for (path, create, expected) in [
            ("dir", false, ""),
            ("dir/file", false, ""),
            ("inner/file", false, ""),
            ("dir/./deep", false, ""),
            ("", false, "cannot open a subPath"),
            ("none", false, "cannot open a subPath"),
            ("none/deep", true, ""),
            ("inner/new", true, ""),
            ("dir/file/deep", true, "a part of it is a file"),
            ("root", false, "leads out of the volume"),
            ("root/etc", true, "leads out of the volume"),
            ("up", false, "leads out of the volume"),
            ("file", true, "leads out of the volume"),
            ("a", true, "leads in circles"),
            ("../file", false, "must not have `..`"),
            ("dir/../dir", false, "must not have `..`"),
            ("/etc", false, "must be a relative path"),
        ] {
            let got =
                resolve(&dir.path().join("volume"), path, create).map_or_else(|e| e.to_string(), |_| String::new());
            assert_eq!(got.is_empty(), expected.is_empty(), "{path:?}: {got}");
            assert!(got.contains(expected), "{path:?}: {got}");
        }
        assert!(dir.path().join("volume/dir/new").is_dir(), "made behind the link");
    }

    #[test]
    fn a_link_that_is_swapped_in_during_the_mount_never_leads_out() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let dir = volume();
        let (volume, target) = (dir.path().join("volume"), dir.path().join("target"));
        fs::create_dir(volume.join("x")).expect("made");
        symlink(dir.path(), volume.join("y")).expect("made");
        let swap = || {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(CWD, volume.join("x"), CWD, volume.join("y"), flags).expect("both are there");
        };
        // A container that swaps a directory and a link to the outside, while paths are mounted.
        let swaps = std::sync::atomic::AtomicU32::new(0);
        let outcomes = std::thread::scope(|scope| {
            scope.spawn(|| {
                while swaps.load(Ordering::Relaxed) < 5_000 {
                    swap();
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            });
            let mut outcomes = Vec::new();
            while swaps.load(Ordering::Relaxed) < 5_000 {
                outcomes.push(mount(&volume, "x", &target, true).map(|()| target.join("file").exists()).ok());
            }
            outcomes
        });
        detach(&target).expect("mounted");
        assert!(!outcomes.contains(&Some(true)), "the outside was mounted");
        for expected in [None, Some(false)] {
            assert!(outcomes.contains(&expected), "{expected:?} in {} attempts", outcomes.len());
        }
    }

    #[test]
    fn files_and_directories_can_be_mounted_again_and_again() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let dir = volume();
        let (volume, target) = (dir.path().join("volume"), dir.path().join("run/target"));
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o2777)).expect("own directory");
        for _ in 0..2 {
            mount(&volume, "dir/file", &target, false).expect("there");
            assert_eq!(fs::read_to_string(&target).expect("mounted"), "inside");
            mount(&volume, "made/here", &target, true).expect("made");
            fs::write(target.join("new"), "x").expect("writable");
        }
        detach(&target).expect("mounted");
        let made = fs::metadata(volume.join("made/here")).expect("made");
        assert_eq!(made.permissions().mode() & 0o7777, 0o2777);
        assert!(volume.join("made/here/new").exists());
    }
}
