//! The container's root: an overlay in a mount namespace of the shim's own, so that the host's mount table never
//! shows it and it goes when the shim does, however that ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    move_mount,
};

use super::{failure, permanent};
use crate::container::lifecycle::Failure;
use crate::container::{ContainerConfig, Rootfs};

/// Makes the root available at `config.root()`.
pub(super) fn prepare(config: &ContainerConfig) -> Result<(), Failure> {
    let step = |what: &str, error: &dyn std::fmt::Display| failure("rootfs", format!("cannot {what}: {error}"));
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| step("make a mount namespace", &error))?;
    // Mounts of the host still arrive here (HostToContainer volumes), none travels back.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(|error| step("detach the mount namespace", &error))?;
    match &config.rootfs {
        Rootfs::Plain(path) if !path.is_dir() => {
            Err(permanent("rootfs", format!("no root file system at {}", path.display())))
        }
        Rootfs::Plain(_) => Ok(()),
        Rootfs::Overlay { lowers, upper, work } => {
            let target = config.root();
            for dir in [upper, work, &target] {
                fs::create_dir_all(dir).map_err(|error| step(&format!("make {}", dir.display()), &error))?;
            }
            if let Some(missing) = lowers.iter().find(|dir| !dir.is_dir()) {
                return Err(permanent("rootfs", format!("image layer {} is not there", missing.display())));
            }
            overlay(lowers, upper, work, &target).map_err(|error| step("mount the layers", &error))
        }
    }
}

/// By fsopen where the kernel knows one option a layer, else by mount(2).
///
/// Before Linux 6.5 overlayfs takes any option in and refuses all of them only when the file system is made; so it does
/// not matter which of the calls says that it is invalid.
fn overlay(lowers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    match modern(lowers, upper, work, target) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => legacy(lowers, upper, work, target),
        other => Ok(other?),
    }
}

/// One call a layer, topmost first: no page of options to overflow, no `:` to escape. Since Linux 6.5.
fn modern(lowers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> rustix::io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, path: &Path| fsconfig_set_string(&context, key, path);
    fsconfig_set_string(&context, "source", "overlay")?;
    lowers.iter().rev().try_for_each(|lower| set("lowerdir+", lower))?;
    set("upperdir", upper)?;
    set("workdir", work)?;
    fsconfig_create(&context)?;
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(&mounted, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// mount(2) with everything in one string of at most a page.
fn legacy(lowers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    let escape = |path: &Path| path.display().to_string().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,");
    let joined: Vec<String> = lowers.iter().rev().map(|path| escape(path)).collect();
    let options = format!("lowerdir={},upperdir={},workdir={}", joined.join(":"), escape(upper), escape(work));
    if options.len() >= 4096 {
        // Descriptors have short names.
        return crate::image::overlay::mount_overlay(lowers, Some((upper, work)), target).map_err(io::Error::other);
    }
    mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str())).map_err(io::Error::from)
}

/// Takes the root away. What is still in use goes with its last user.
pub(super) fn release(config: &ContainerConfig) {
    if matches!(config.rootfs, Rootfs::Overlay { .. }) {
        let _ = umount2(&config.root(), MntFlags::MNT_DETACH);
    }
}
