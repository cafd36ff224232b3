//! Where the files of an image are together for a volume: its one layer, or all of them stacked.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use crate::api::FailureClass;
use crate::image::overlay::{OverlayError, mount_overlay};
use crate::image::store::Image;
use crate::shim::mapped;
use crate::volume;

/// Why the files of an image cannot be had together.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageVolumeError {
    /// The directory for them, or the user namespace that they are for.
    #[error("cannot use {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer whose file system takes no other ids.
    #[error("cannot mount layer {} with other user ids (`hostUsers: false`; {})", path.display(), mapped::ABLE)]
    Shift {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The stack.
    #[error(transparent)]
    Stack(#[from] OverlayError),
}

impl ImageVolumeError {
    /// Whether another try may succeed.
    pub(super) fn class(&self) -> FailureClass {
        match self {
            Self::Shift { source, .. } => match source.raw_os_error() {
                Some(libc::EINVAL | libc::EPERM | libc::ENOSYS) => FailureClass::Permanent,
                _ => FailureClass::Transient,
            },
            Self::Directory { .. } | Self::Stack(_) => FailureClass::Transient,
        }
    }
}

/// The files of an image, read-only, and whether their ids are shifted already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImageRoot {
    pub(super) path: PathBuf,
    pub(super) shifted: bool,
}

/// One layer as it is, several mounted over each other at `place`. A stack cannot be shifted afterwards as one layer can
/// (overlayfs takes idmapped layers and is none itself), so this is done here, as the user namespace `users` maps ids.
///
/// # Errors
/// The kernel refuses a mount.
pub(super) fn prepare(image: &Image, place: &Path, users: Option<&Path>) -> Result<ImageRoot, ImageVolumeError> {
    if let [only] = image.layers.as_slice() {
        return Ok(ImageRoot { path: only.clone(), shifted: false });
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ImageVolumeError::Directory { path, source }
    };
    fs::create_dir_all(place).map_err(failed(place))?;
    let shifted = users.is_some() && !image.layers.is_empty();
    let ready = ImageRoot { path: place.to_owned(), shifted };
    if image.layers.is_empty() || volume::is_mount_point(place).map_err(failed(place))? {
        return Ok(ready);
    }
    let Some(users) = users else {
        mount_overlay(&image.layers, None, place)?;
        return Ok(ready);
    };
    // No volume has such a name; what a crash leaves mounted here goes with the volumes of the pod.
    let stage = place.with_file_name(".layers");
    let users = File::open(users).map_err(failed(users))?;
    let stacked = stack(&image.layers, &stage, &users, place);
    // The stack has mounts of its own of them.
    for entry in fs::read_dir(&stage).into_iter().flatten().flatten() {
        let _ = umount2(&entry.path(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        let _ = fs::remove_dir(entry.path());
    }
    let _ = fs::remove_dir(&stage);
    stacked.map(|()| ready)
}

fn stack(layers: &[PathBuf], stage: &Path, users: &File, place: &Path) -> Result<(), ImageVolumeError> {
    let mut shifted = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let target = stage.join(index.to_string());
        fs::create_dir_all(&target).map_err(|source| ImageVolumeError::Directory { path: target.clone(), source })?;
        mapped::mount_again(layer, &target, Some(users))
            .map_err(|source| ImageVolumeError::Shift { path: layer.clone(), source })?;
        shifted.push(target);
    }
    Ok(mount_overlay(&shifted, None, place)?)
}
