//! What a container with a user namespace gets of the host: layers, volumes and files, each mounted once more with its
//! ids shifted (an idmapped mount, mount_setattr(2)), so that root inside is root to them and nobody outside.
//!
//! The container's first process is no root to the host, hence must be let through the directories on the way to these
//! mounts: those of ours are opened to its group alone, which is no other pod's.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use rustix::fs::{AtFlags, CWD};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::{failure, permanent};
use crate::container::lifecycle::Failure;
use crate::container::{ContainerConfig, MountKind, Users};
use crate::sys;

/// Which file systems can be mounted with other ids.
pub(crate) const ABLE: &str =
    "Linux 6.3 or later can do it for ext4, xfs, btrfs and tmpfs, and for nothing that is mapped already";

/// Where the mounts are made; only the shim's own mount namespace shows them.
struct Stage {
    users: File,
    dir: PathBuf,
    count: usize,
}

fn step(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Failure {
    failure("rootfs", format!("cannot {what} {}: {error}", path.display()))
}

impl Stage {
    /// Mounts `source`, and what is mounted below it, with its ids shifted unless they are.
    fn add(&mut self, source: &Path, shifted: bool) -> io::Result<PathBuf> {
        let target = self.dir.join(self.count.to_string());
        self.count += 1;
        if fs::metadata(source)?.is_dir() {
            fs::create_dir(&target)?;
        } else {
            File::create(&target)?;
        }
        mount_again(source, &target, Some(&self.users).filter(|_| !shifted))?;
        Ok(target)
    }
}

/// Mounts `source`, and what is mounted below it, at `target` as well: with ids shifted as the user namespace `users` maps
/// them, or as they are.
///
/// # Errors
/// The file system cannot be mapped (`EINVAL`), or has been (`EPERM`).
pub(crate) fn mount_again(source: &Path, target: &Path, users: Option<&File>) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, source, flags)?;
    if let Some(users) = users {
        // What is mounted below may be of a kind that cannot be mapped, and then belongs to nobody inside (runc).
        sys::mount_map_ids(tree.as_fd(), users.as_fd(), true)
            .or_else(|_| sys::mount_map_ids(tree.as_fd(), users.as_fd(), false))?;
    }
    Ok(move_mount(&tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Mounts the layers with shifted ids, lets the container's root own the writable layer, and hands the layers to
/// `stack`.
pub(super) fn stack_layers(
    config: &ContainerConfig,
    users: &Users,
    lowers: &[PathBuf],
    upper: &Path,
    stack: impl FnOnce(&[PathBuf]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut stage = open(config, users, "layers")?;
    let refused = |path: &Path, error: &io::Error| match error.raw_os_error() {
        Some(libc::EINVAL | libc::EPERM | libc::ENOSYS) => permanent("rootfs", unmappable("the image", path)),
        _ => step("mount layer", path, error),
    };
    let mapped: Result<Vec<PathBuf>, Failure> =
        lowers.iter().map(|layer| stage.add(layer, false).map_err(|error| refused(layer, &error))).collect();
    std::os::unix::fs::chown(upper, Some(users.first), Some(users.first))
        .map_err(|error| step("give to the container", upper, &error))?;
    let mapped = mapped?;
    let stacked = stack(&mapped);
    // The stack has mounts of its own of them.
    for layer in mapped {
        let _ = umount2(&layer, MntFlags::MNT_DETACH);
    }
    stacked
}

fn unmappable(what: &str, path: &Path) -> String {
    format!(
        "`hostUsers: false`: the file system of {what} ({}) cannot be mounted with other user ids ({ABLE})",
        path.display()
    )
}

/// Puts mounts with shifted ids in the place of what a container mounts of the host.
pub(super) fn map_mounts(config: &mut ContainerConfig) -> Result<(), Failure> {
    let Some(users) = config.namespaces.user.clone() else { return Ok(()) };
    let mut stage = open(config, &users, "volumes")?;
    for mount in config.mounts.iter_mut().filter(|mount| mount.kind == MountKind::Bind) {
        mount.source = stage.add(&mount.source, mount.shifted).map_err(|error| match error.raw_os_error() {
            // It may be there at the next try.
            Some(libc::ENOENT) => step(&format!("mount at {}", mount.target.display()), &mount.source, &error),
            Some(libc::EINVAL | libc::EPERM | libc::ENOSYS) => {
                permanent("rootfs", unmappable(&format!("the volume at {}", mount.target.display()), &mount.source))
            }
            _ => step(&format!("mount at {}", mount.target.display()), &mount.source, &error),
        })?;
    }
    Ok(())
}

fn open(config: &ContainerConfig, users: &Users, name: &str) -> Result<Stage, Failure> {
    let dir = config.dir.join(name);
    fs::create_dir_all(&dir).map_err(|error| step("make", &dir, &error))?;
    for own in [&dir, &config.dir].into_iter().map(PathBuf::as_path).chain(config.dir.parent()) {
        let given = std::os::unix::fs::chown(own, None, Some(users.first))
            .and_then(|()| fs::set_permissions(own, fs::Permissions::from_mode(0o710)));
        given.map_err(|error| step("open to the container", own, &error))?;
    }
    // Further up it is not ours to say who may pass.
    for above in config.dir.ancestors().skip(2) {
        let mode = fs::metadata(above).map_err(|error| step("look at", above, &error))?.mode();
        if mode & 0o001 == 0 {
            let why = format!(
                "`hostUsers: false`: users other than root cannot pass {} (mode {:03o}), which the run directory is in",
                above.display(),
                mode & 0o777
            );
            return Err(permanent("rootfs", why));
        }
    }
    let users = File::open(&users.path).map_err(|error| step("open", &users.path, &error))?;
    Ok(Stage { users, dir, count: 0 })
}

/// Gives a pipe to a user of the container.
pub(crate) fn give_pipe(pipe: impl std::os::fd::AsFd, users: &Users, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (users.first.saturating_add(uid), users.first.saturating_add(gid));
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    Ok(rustix::fs::chownat(pipe, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
}
