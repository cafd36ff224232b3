//! `mainstay unpack`: all layers of an image in one plain directory, as a container would see them.
//!
//! Works in a directory of its own and puts the finished tree in its place: beside a destination that is not there yet,
//! which then appears at once and whole; within one that is there, so that nothing outside of it is touched. On failure
//! everything that was made is removed; what a crash has left is removed by the next unpack to the same destination.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    FlockOperation, Mode, OFlags, RenameFlags, Timespec, Timestamps, flock, openat, renameat_with, syncfs,
};
use spec::digest::Digest;
use spec::image_ref::ImageRef;

use super::{Bundle, Planned, open_layer, plan};
use crate::image::store::{Image, Store, StoreError, open_path};
use crate::image::unpack::{
    Limits, Merge, Take, UnpackError, Unpacked, copy_xattrs, describe, names, remove, remove_path, unpack,
};

/// Where a destination that is there is worked in.
const STAGING: &str = ".mainstay-unpack";

/// The time of directories that no layer describes, so that an image is the same wherever it is unpacked.
const EPOCH: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: 0, tv_nsec: 0 },
};

/// What `unpack_to` reads.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// An image of the store.
    Stored(&'a Store, &'a Image),
    /// An OCI layout, OCI archive or Docker archive; with a reference when it holds several images.
    Path(&'a Path, Option<&'a ImageRef>),
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flattened {
    /// Manifest digest of the image.
    pub digest: Digest,
    /// Layers laid over each other.
    pub layers: usize,
}

/// Unpacks all layers of an image into `destination`, which must be empty or absent.
pub fn unpack_to(source: Source<'_>, destination: &Path, limits: &Limits) -> Result<Flattened, StoreError> {
    let target = Target::prepare(destination)?;
    let flattened = match source {
        Source::Stored(store, image) => target.stored(store, image, limits)?,
        Source::Path(path, reference) => target.bundle(path, reference, limits)?,
    };
    target.finish()?;
    Ok(flattened)
}

/// The destination while it is filled. Dropping it before the end takes away what was made.
struct Target {
    path: PathBuf,
    /// The destination, when it was there already.
    there: Option<OwnedFd>,
    staging: PathBuf,
    /// Held while the staging directory is in use: one that nobody holds was left by a crash.
    _lock: OwnedFd,
    root: OwnedFd,
    /// What was moved into the destination that was there.
    moved: Vec<Vec<u8>>,
    finished: bool,
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // The error that led here is the one to report.
        let _ = remove_path(&self.staging);
        if let Some(fd) = &self.there {
            for name in &self.moved {
                let _ = remove(fd.as_fd(), name);
            }
        }
    }
}

impl Target {
    fn prepare(path: &Path) -> Result<Self, StoreError> {
        let there = match std::fs::symlink_metadata(path) {
            Ok(_) => Some(open_path(path)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(StoreError::file("look at", path)(error)),
        };
        let staging = match (&there, path.parent(), path.file_name()) {
            (None, Some(parent), Some(name)) => {
                let name = Digest::of(name.as_bytes()).hex();
                parent.join(format!(".mainstay-unpack-{}", name.get(..12).unwrap_or_default()))
            }
            _ => path.join(STAGING),
        };
        clear_stale(&staging, path)?;
        if let Some(fd) = &there
            && !names(fd).map_err(StoreError::errno("list", path))?.is_empty()
        {
            return Err(StoreError::Destination { path: path.to_owned(), reason: "it is not empty" });
        }
        let build = || {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new().mode(0o700).create(&staging)?;
            std::fs::create_dir(staging.join("root"))
        };
        // Whoever runs the command knows the destination, not where it is made.
        let built = build().map_err(StoreError::file("create directory", path));
        let open = || {
            let (lock, root) = (open_path(&staging)?, open_path(&staging.join("root"))?);
            flock(&lock, FlockOperation::NonBlockingLockExclusive)
                .and_then(|()| rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755)))
                .and_then(|()| rustix::fs::futimens(&root, &EPOCH))
                .map_err(StoreError::errno("lock and set up", &staging))?;
            Ok((lock, root))
        };
        match built.and_then(|()| open()) {
            Ok((lock, root)) => {
                let (path, moved) = (path.to_owned(), Vec::new());
                Ok(Self { path, there, staging, _lock: lock, root, moved, finished: false })
            }
            Err(error) => {
                let _ = remove_path(&staging);
                Err(error)
            }
        }
    }

    fn bundle(&self, path: &Path, reference: Option<&ImageRef>, limits: &Limits) -> Result<Flattened, StoreError> {
        let bundle = Bundle::open(path, &self.staging, limits)?;
        let planned = pick(&bundle, plan(&bundle)?, reference)?;
        let mut entries = 0u64;
        for layer in &planned.layers {
            let staged = self.staging.join("layer");
            std::fs::create_dir(&staged).map_err(StoreError::file("create directory", &staged))?;
            let fd = open_path(&staged)?;
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))
                .map_err(StoreError::errno("set the mode of", &staged))?;
            let again = open_path(&staged)?;
            let failed = |source| StoreError::Unpack { diff_id: layer.diff_id, source };
            let mut reader = open_layer(&bundle, layer)?;
            let list = self.list()?;
            let (unpacked, found) = unpack(&mut reader, fd, list, limits, Some(self.root.as_fd())).map_err(failed)?;
            if found != layer.diff_id {
                return Err(failed(UnpackError::DiffId { expected: layer.diff_id, found }));
            }
            reader.finish(&bundle, layer)?;
            entries = entries.saturating_add(unpacked.entries);
            if entries > limits.image_entries {
                let limit = limits.image_entries;
                return Err(failed(UnpackError::Limit { what: "the number of entries of all layers", limit }));
            }
            self.lay_over(&again, Take::Move, &unpacked, limits).map_err(failed)?;
            remove_path(&staged).map_err(StoreError::file("remove", &staged))?;
        }
        Ok(Flattened { digest: Digest::of(&planned.manifest), layers: planned.layers.len() })
    }

    fn stored(&self, store: &Store, image: &Image, limits: &Limits) -> Result<Flattened, StoreError> {
        let stack = store.stack(&image.diff_ids)?;
        for layer in &stack {
            let fd = open_path(&store.layer_path(&layer.diff_id).join("fs"))?;
            let unpacked = Unpacked { whiteouts: 1, implied: layer.implied(), ..Unpacked::default() };
            let failed = |source| StoreError::Unpack { diff_id: layer.diff_id, source };
            self.lay_over(&fd, Take::Copy, &unpacked, limits).map_err(failed)?;
        }
        if let Some(above) = image.layers.get(stack.len()) {
            let unpacked = Unpacked { implied: BTreeSet::from([Vec::new()]), ..Unpacked::default() };
            let failed = |source| StoreError::Fixup { source };
            self.lay_over(&open_path(above)?, Take::Copy, &unpacked, limits).map_err(failed)?;
        }
        Ok(Flattened { digest: image.digest, layers: stack.len() })
    }

    fn lay_over(&self, layer: &OwnedFd, take: Take, unpacked: &Unpacked, limits: &Limits) -> Result<(), UnpackError> {
        if unpacked.root_opaque {
            for name in names(&self.root).map_err(|e| UnpackError::entry("list", b"/", e))? {
                remove(self.root.as_fd(), &name).map_err(|e| UnpackError::entry("remove", &name, e))?;
            }
            rustix::fs::futimens(&self.root, &EPOCH).map_err(|e| UnpackError::entry("set the time of", b"/", e))?;
        }
        let hides = unpacked.whiteouts + unpacked.opaques > 0;
        Merge::new(take, &unpacked.implied, hides, self.root.as_fd(), limits).run(layer)
    }

    /// A file without a name for the list of a layer.
    fn list(&self) -> Result<File, StoreError> {
        let path = self.staging.join("list");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = openat(rustix::fs::CWD, &path, flags, Mode::from_raw_mode(0o600))
            .map_err(StoreError::errno("create", &path))?;
        std::fs::remove_file(&path).map_err(StoreError::file("remove", &path))?;
        Ok(fd.into())
    }

    /// Puts the tree in its place: at once when the destination was not there; else what is in it is moved up, and the
    /// destination gets the attributes of the image's root. All of it is on disk before anything of it is to be seen.
    fn finish(mut self) -> Result<(), StoreError> {
        let path = self.path.clone();
        let failed = |operation| StoreError::errno(operation, &path);
        let cwd = rustix::fs::CWD;
        syncfs(&self.root).map_err(failed("synchronise"))?;
        match &self.there {
            None => {
                renameat_with(cwd, self.staging.join("root"), cwd, &path, RenameFlags::NOREPLACE)
                    .map_err(failed("move the finished tree to"))?;
                remove_path(&self.staging).map_err(StoreError::file("remove", &self.staging))?;
            }
            Some(fd) => {
                // Read now: moving files out changes the time.
                let stat = rustix::fs::fstat(&self.root).map_err(failed("look at"))?;
                for name in names(&self.root).map_err(failed("list"))? {
                    renameat_with(&self.root, name.as_slice(), fd, name.as_slice(), RenameFlags::NOREPLACE)
                        .map_err(failed("move the finished tree into"))?;
                    self.moved.push(name);
                }
                copy_xattrs(self.root.as_fd(), fd.as_fd()).map_err(failed("set extended attributes of"))?;
                remove_path(&self.staging).map_err(StoreError::file("remove", &self.staging))?;
                describe(fd.as_fd(), &stat).map_err(failed("set owner, mode and time of"))?;
            }
        }
        self.finished = true;
        Ok(())
    }
}

/// Removes what a crash has left of an earlier unpack to the same destination.
fn clear_stale(staging: &Path, path: &Path) -> Result<(), StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = match openat(rustix::fs::CWD, staging, flags, Mode::empty()) {
        Ok(lock) => lock,
        // What else is wrong shows when it is to be made.
        Err(_) => return Ok(()),
    };
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        let reason = "another command unpacks an image there";
        return Err(StoreError::Destination { path: path.to_owned(), reason });
    }
    remove_path(staging).map_err(StoreError::file("remove", staging))
}

fn pick(bundle: &Bundle, images: Vec<Planned>, reference: Option<&ImageRef>) -> Result<Planned, StoreError> {
    let names = |images: &[Planned]| {
        let names: BTreeSet<String> = images.iter().flat_map(|i| &i.references).map(ToString::to_string).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    match reference {
        Some(reference) => {
            let all = names(&images);
            let found = images.into_iter().find(|image| image.references.contains(reference));
            found.ok_or_else(|| bundle.fault(format!("it has no image `{reference}`, only {all}")))
        }
        None if images.len() > 1 => {
            let (count, all) = (images.len(), names(&images));
            Err(bundle.fault(format!("it holds {count} images; name one of them: {all}")))
        }
        None => images.into_iter().next().ok_or_else(|| bundle.fault("it holds no image".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::unpack::testkit::isolated;

    /// What somebody else puts there meanwhile is not ours to remove.
    #[test]
    fn only_what_was_made_is_taken_away() {
        isolated(|| {
            let work = tempfile::tempdir().expect("temporary directory");
            let destination = work.path().join("to");
            std::fs::create_dir(&destination).expect("made");
            let target = Target::prepare(&destination).expect("prepared");
            for name in ["a", "b"] {
                std::fs::write(target.staging.join("root").join(name), "ours").expect("written");
            }
            std::fs::write(destination.join("b"), "theirs").expect("written");
            target.finish().expect_err("one name is taken");
            let left = names(&open_path(&destination).expect("open")).expect("listed");
            assert_eq!(left, [b"b".to_vec()]);
            assert_eq!(std::fs::read(destination.join("b")).expect("read"), b"theirs");
        });
    }
}
