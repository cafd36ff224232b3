//! The container's root: an overlay in a mount namespace of the shim's own, so that the host's mount table never
//! shows it and it goes when the shim does, however that ends.

use std::fs;
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use spec::causes::chain;

use super::{failure, mapped, permanent};
use crate::container::lifecycle::Failure;
use crate::container::{ContainerConfig, Rootfs};
use crate::image::overlay::{OverlayError, mount_overlay};

/// Makes the root available at `config.root()`.
pub(super) fn prepare(config: &ContainerConfig) -> Result<(), Failure> {
    let step = |what: &str, error: &dyn std::fmt::Display| failure("rootfs", format!("cannot {what}: {error}"));
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| step("make a mount namespace", &error))?;
    // Mounts of the host still arrive here (HostToContainer volumes), none travels back.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(|error| step("detach the mount namespace", &error))?;
    if let Some(mount) = &config.left_behind {
        // Not there, or pinned by an earlier version somewhere else: then the table of mounts is only longer.
        let _ = umount2(mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    }
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
            let stack = |lowers: &[PathBuf]| {
                mount_overlay(lowers, Some((upper, work)), &target).map_err(|error| match &error {
                    OverlayError::Open { .. } | OverlayError::TooMany { .. } => permanent("rootfs", chain(&error)),
                    OverlayError::Mount { .. } => failure("rootfs", chain(&error)),
                })
            };
            match &config.namespaces.user {
                Some(users) => mapped::stack_layers(config, users, lowers, upper, stack),
                None => stack(lowers),
            }
        }
    }
}

/// Takes the root away. What is still in use goes with its last user.
pub(super) fn release(config: &ContainerConfig) {
    if matches!(config.rootfs, Rootfs::Overlay { .. }) {
        let _ = umount2(&config.root(), MntFlags::MNT_DETACH);
    }
}
