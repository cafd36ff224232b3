//! Gives a volume to a group: Kubernetes' fsGroup.
//!
//! The rule of the kubelet (pkg/volume/volume_linux.go): everything belongs to the group, the group may do what it
//! takes to read and write, and new files in directories inherit the group.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, chownat, openat, statat};

use super::error::{Result, failed};
use super::tree::{self, Entry};

const READ_WRITE: u32 = 0o660;
const SEARCH: u32 = 0o110;
const SET_GID: u32 = 0o2000;

/// Gives all of a volume to a group. With `only_on_mismatch` nothing is done when the top has it already
/// (fsGroupChangePolicy `OnRootMismatch`), which saves the walk through large volumes.
pub(super) fn give_to_group(path: &Path, group: u32, only_on_mismatch: bool) -> Result<()> {
    let change = || {
        if only_on_mismatch {
            let top = tree::open_root(path)?;
            let stat = statat(&top, c"", AtFlags::EMPTY_PATH)?;
            let wanted = wanted_mode(FileType::Directory, 0);
            if stat.st_gid == group && stat.st_mode & wanted == wanted {
                return Ok(());
            }
        }
        tree::walk(path, |entry| give(entry, group))
    };
    change().map_err(failed("give to the group of the pod", path))
}

fn wanted_mode(kind: FileType, mode: u32) -> u32 {
    let directory = if kind == FileType::Directory { SEARCH | SET_GID } else { 0 };
    mode & 0o7777 | READ_WRITE | directory
}

fn give(entry: &Entry<'_>, group: u32) -> io::Result<()> {
    let path_flag = if entry.name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::empty() };
    let tolerate = |result: rustix::io::Result<()>| match result {
        // Removed in the meantime.
        Err(rustix::io::Errno::NOENT) => Ok(()),
        other => other.map_err(io::Error::from),
    };
    if entry.stat.st_gid != group {
        let flags = AtFlags::SYMLINK_NOFOLLOW | path_flag;
        tolerate(chownat(entry.directory, entry.name, None, Some(Gid::from_raw(group)), flags))?;
    }
    let kind = entry.kind();
    let mode = wanted_mode(kind, entry.stat.st_mode);
    if kind == FileType::Symlink || entry.stat.st_mode & 0o7777 == mode {
        return Ok(());
    }
    // There is no fchmodat that refuses links on older kernels; a descriptor cannot be swapped for one.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = if entry.name.is_empty() {
        rustix::io::dup(entry.directory)
    } else {
        openat(entry.directory, entry.name, flags, Mode::empty())
    };
    let pinned = match opened {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        other => other?,
    };
    // What was pinned may be another thing than what was looked at.
    if FileType::from_raw_mode(statat(&pinned, c"", AtFlags::EMPTY_PATH)?.st_mode) != kind {
        return Ok(());
    }
    tolerate(rustix::fs::chmod(format!("/proc/self/fd/{}", pinned.as_raw_fd()), Mode::from_raw_mode(mode)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn everything_goes_to_the_group_and_links_lead_nowhere() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: changing owners needs root");
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let (outside, volume) = (dir.path().join("outside"), dir.path().join("volume"));
        fs::write(&outside, "").expect("written");
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).expect("own file");
        fs::create_dir_all(volume.join("sub")).expect("made");
        for (name, mode) in [("file", 0o600), ("sub/script", 0o755), ("sub/secret", 0o400)] {
            fs::write(volume.join(name), "").expect("written");
            fs::set_permissions(volume.join(name), fs::Permissions::from_mode(mode)).expect("own file");
        }
        for name in [".", "sub"] {
            fs::set_permissions(volume.join(name), fs::Permissions::from_mode(0o700)).expect("own directory");
        }
        symlink(&outside, volume.join("link")).expect("made");
        give_to_group(&volume, 2000, false).expect("root may");
        let facts = |path: &Path| {
            let m = fs::symlink_metadata(path).expect("there");
            (m.gid(), m.mode() & 0o7777)
        };
        for (name, mode) in
            [(".", 0o2770), ("sub", 0o2770), ("file", 0o660), ("sub/script", 0o775), ("sub/secret", 0o660)]
        {
            assert_eq!(facts(&volume.join(name)), (2000, mode), "{name}");
        }
        assert_eq!(facts(&volume.join("link")).0, 2000);
        assert_eq!(facts(&outside), (0, 0o600));

        fs::write(volume.join("late"), "").expect("written");
        std::os::unix::fs::chown(volume.join("late"), None, Some(0)).expect("root may");
        give_to_group(&volume, 2000, true).expect("nothing to do");
        assert_eq!(facts(&volume.join("late")).0, 0, "the top is right, so nothing was walked");
        give_to_group(&volume, 2000, false).expect("root may");
        assert_eq!(facts(&volume.join("late")).0, 2000);
    }
}
