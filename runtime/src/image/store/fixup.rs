//! What an image needs above all its layers, because no layer can hold it by itself: each is unpacked alone, once for
//! all images that have it, whatever is below it there.
//!
//! Two things depend on the layers below. A hard link whose target only a lower layer has (layers that were not made
//! from an overlay do this), and a directory that a layer uses but does not describe, which keeps the owner, mode, time
//! and attributes that a lower layer gave it. Both are put into one small directory per image,
//! `images/fixups/<manifest digest>`, which is stacked above the layers. Its files are further names of the layers' own,
//! so it takes no space. Never changes a layer.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, fstat, futimens, linkat, mkdirat, readlinkat, statat,
};
use rustix::io::Errno;
use spec::digest::Digest;

use super::layer::LayerRecord;
use super::{Store, StoreError, open_path};
use crate::image::unpack::{
    UnpackError, beneath, copy_xattrs, describe, is_opaque, open_directory, remove_path, xattr_names,
};

/// Symbolic links followed in one path, as in the kernel.
const MAX_LINKS: usize = 40;
/// Names looked up for one image, for each entry that a layer may have.
const STEPS: u64 = 16;

/// What stands at a path of the fix-up.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    /// A directory with the attributes that it has in this layer.
    Directory { layer: usize },
    /// Another name of this layer's file.
    File { layer: usize, path: Vec<u8> },
}

/// What one layer has at a path.
enum Look {
    /// Nothing: what is below counts.
    Absent,
    /// Nothing, and it hides what is below.
    Hidden,
    /// `opaque`: nothing below counts.
    Directory { opaque: bool },
    /// A hard link to this path in the layers below.
    Link(Vec<u8>),
    /// Anything else.
    Other(Stat),
}

struct Layer {
    diff_id: Digest,
    root: OwnedFd,
    implied: BTreeSet<Vec<u8>>,
    links: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Layers, lowest first, as one tree.
struct View {
    layers: Vec<Layer>,
    /// Names that may still be looked up. A link of one layer leads through links of those below, each through others, so
    /// a few layers can stand for more paths than anybody can follow; and each directory that a layer does not describe is
    /// looked up in all of them.
    steps: Cell<u64>,
    max_steps: u64,
}

/// What a fix-up holds, by path.
type Plan = BTreeMap<Vec<u8>, Item>;

/// What an image needs above its layers, not made yet.
pub(crate) struct Fixup(Option<(View, Plan)>);

/// A file or directory of one layer.
struct Found {
    layer: usize,
    /// Its name there.
    name: Vec<u8>,
    stat: Stat,
}

type Result<T> = std::result::Result<T, UnpackError>;

impl Store {
    pub(crate) fn fixup_path(&self, manifest: &Digest) -> PathBuf {
        self.path("fixups", &manifest.hex())
    }

    /// Makes what this image needs above its layers; answers whether it needs anything. The caller holds the lock.
    ///
    /// One that is there and as it should be stays: containers may run on it.
    pub(crate) fn make_fixup(&self, manifest: &Digest, fixup: Fixup) -> std::result::Result<bool, StoreError> {
        let path = self.fixup_path(manifest);
        let Some((view, plan)) = fixup.0 else {
            self.discard_layer(&path)?;
            return Ok(false);
        };
        for layer in &view.layers {
            if !self.is_current(layer)? {
                return Err(StoreError::MissingLayer { diff_id: layer.diff_id });
            }
        }
        if path.is_dir() && check(&view, &plan, &path).is_none() {
            return Ok(true);
        }
        let made = self.temporary_path();
        let write = || {
            std::fs::create_dir(&made).map_err(StoreError::file("create directory", &made))?;
            let root = open_path(&made)?;
            write(&view, &plan, &root).map_err(|source| StoreError::Fixup { source })
        };
        let written = write().and_then(|()| {
            self.discard_layer(&path)?;
            std::fs::rename(&made, &path).map_err(StoreError::file("create", &path))
        });
        if written.is_err() {
            // The error that led here is the one to report; what is left is removed at the next open.
            let _ = remove_path(&made);
        }
        written.map(|()| true)
    }

    /// What is wrong with what this image has above its layers.
    pub(crate) fn verify_fixup(
        &self,
        manifest: &Digest,
        diff_ids: &[Digest],
    ) -> std::result::Result<Option<String>, StoreError> {
        let Some((view, plan)) = self.plan_fixup(diff_ids)?.0 else { return Ok(None) };
        Ok(check(&view, &plan, &self.fixup_path(manifest)))
    }

    /// Whether a layer that was looked at before the lock was taken is still the one that is there.
    fn is_current(&self, layer: &Layer) -> std::result::Result<bool, StoreError> {
        let path = self.layer_path(&layer.diff_id).join("fs");
        let now = match statat(rustix::fs::CWD, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(StoreError::errno("look at", &path)(error)),
        };
        let then = fstat(&layer.root).map_err(StoreError::errno("look at", &path))?;
        Ok((now.st_dev, now.st_ino) == (then.st_dev, then.st_ino))
    }

    /// What this image needs above its layers. It may take a while, and needs no lock.
    pub(crate) fn plan_fixup(&self, diff_ids: &[Digest]) -> std::result::Result<Fixup, StoreError> {
        let stack = self.stack(diff_ids)?;
        // Most images end here: each layer describes what it uses, but for the root, which is the container's own.
        if stack.iter().all(LayerRecord::stands_alone) {
            return Ok(Fixup(None));
        }
        let layer = |record: &LayerRecord| {
            Ok(Layer {
                diff_id: record.diff_id,
                root: open_path(&self.layer_path(&record.diff_id).join("fs"))?,
                implied: record.implied(),
                links: record.links(),
            })
        };
        let layers = stack.iter().map(layer).collect::<std::result::Result<_, StoreError>>()?;
        let max_steps = self.limits().entries.saturating_mul(STEPS);
        let view = View { layers, steps: Cell::new(max_steps), max_steps };
        let plan = view.plan()?;
        Ok(Fixup(if plan.is_empty() { None } else { Some((view, plan)) }))
    }
}

impl View {
    fn plan(&self) -> std::result::Result<Plan, StoreError> {
        let mut plan = Plan::new();
        let mut looked = BTreeSet::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let failed = |source| StoreError::Unpack { diff_id: layer.diff_id, source };
            for path in layer.implied.iter().filter(|path| !path.is_empty() && looked.insert(path.as_slice())) {
                if let Some(described) = self.described(path).map_err(failed)? {
                    plan.insert(path.clone(), Item::Directory { layer: described });
                }
            }
            for (path, target) in &layer.links {
                self.plan_link(index, path, target, &mut plan).map_err(failed)?;
            }
        }
        // Directories on the way: they would be the uppermost of their name otherwise.
        let paths: Vec<Vec<u8>> = plan.keys().cloned().collect();
        for path in paths {
            for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                let parent = path.get(..at).unwrap_or_default();
                if !plan.contains_key(parent) {
                    let failed = |source| StoreError::Fixup { source };
                    let missing = || failed(UnpackError::refused(&path, "a directory above it is not there"));
                    let layer = self.attributes(parent).map_err(failed)?.ok_or_else(missing)?;
                    plan.insert(parent.to_vec(), Item::Directory { layer });
                }
            }
        }
        Ok(plan)
    }

    fn plan_link(&self, index: usize, path: &[u8], target: &[u8], plan: &mut Plan) -> Result<()> {
        let Some((Found { layer, name, stat }, visible)) = self.follow(index, target)? else {
            let reason = "it is a hard link to a file that neither its layer nor one below has";
            return Err(UnpackError::refused(path, reason));
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(UnpackError::refused(path, "it is a hard link to a directory"));
        }
        for above in (index + 1..self.layers.len()).rev() {
            if !matches!(self.look(above, path)?, Look::Absent) {
                return Ok(());
            }
        }
        let item = Item::File { layer, path: name.clone() };
        // The target is another name of the same file for as long as nothing has taken its place.
        if let Some(uppermost) = self.find(self.layers.len(), &visible)?
            && (uppermost.layer, uppermost.name) == (layer, name)
        {
            plan.insert(visible, item.clone());
        }
        plan.insert(path.to_vec(), item);
        Ok(())
    }

    /// Counts a name that is looked up.
    fn step(&self) -> Result<()> {
        let what = "the number of names looked up to put the layers together";
        let left = self.steps.get().checked_sub(1).ok_or(UnpackError::Limit { what, limit: self.max_steps })?;
        self.steps.set(left);
        Ok(())
    }

    /// What one layer has at a path.
    fn look(&self, index: usize, path: &[u8]) -> Result<Look> {
        let Some(layer) = self.layers.get(index) else { return Ok(Look::Absent) };
        let failed = |error| UnpackError::entry("look up", path, error);
        let mut names = path.split(|byte| *byte == b'/').peekable();
        let mut at: Option<OwnedFd> = None;
        let mut hides = false;
        let mut length = 0;
        while let Some(name) = names.next() {
            self.step()?;
            length += name.len() + usize::from(length > 0);
            let last = names.peek().is_none();
            if let Some(target) = path.get(..length).and_then(|path| layer.links.get(path)) {
                return Ok(if last { Look::Link(target.clone()) } else { Look::Hidden });
            }
            let place = at.as_ref().unwrap_or(&layer.root);
            let stat = match statat(place, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(if hides { Look::Hidden } else { Look::Absent }),
                Err(error) => return Err(failed(error)),
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                let whiteout = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0;
                return Ok(if last && !whiteout { Look::Other(stat) } else { Look::Hidden });
            }
            let opened = open_directory(place.as_fd(), name).map_err(failed)?;
            hides |= is_opaque(opened.as_fd()).map_err(failed)?;
            at = Some(opened);
        }
        Ok(Look::Directory { opaque: hides })
    }

    /// The layer that describes a directory whose uppermost one does not.
    fn described(&self, path: &[u8]) -> Result<Option<usize>> {
        let (first, described) = self.directories(path)?;
        Ok(described.filter(|described| Some(*described) != first))
    }

    /// The layer whose attributes a directory has.
    fn attributes(&self, path: &[u8]) -> Result<Option<usize>> {
        let (first, described) = self.directories(path)?;
        Ok(described.or(first))
    }

    /// The uppermost layer that has this directory, and the uppermost one that describes it.
    fn directories(&self, path: &[u8]) -> Result<(Option<usize>, Option<usize>)> {
        let mut first = None;
        for (index, layer) in self.layers.iter().enumerate().rev() {
            match self.look(index, path)? {
                Look::Absent => {}
                Look::Hidden | Look::Other(_) | Look::Link(_) => break,
                Look::Directory { opaque } => {
                    first = first.or(Some(index));
                    if !layer.implied.contains(path) {
                        return Ok((first, Some(index)));
                    }
                    if opaque {
                        break;
                    }
                }
            }
        }
        Ok((first, None))
    }

    /// What the layers below `limit` show at a path, links on the way not followed.
    fn find(&self, limit: usize, path: &[u8]) -> Result<Option<Found>> {
        let name = path.to_vec();
        for index in (0..limit).rev() {
            match self.look(index, path)? {
                Look::Absent => {}
                Look::Hidden => return Ok(None),
                Look::Link(target) => {
                    return Ok(self.follow(index, &target)?.map(|(found, _)| found));
                }
                Look::Other(stat) => return Ok(Some(Found { layer: index, name, stat })),
                Look::Directory { .. } => {
                    let Some(layer) = self.layers.get(index) else { return Ok(None) };
                    let stat = beneath(&layer.root, path, OFlags::PATH | OFlags::DIRECTORY)
                        .and_then(|fd| fstat(&fd))
                        .map_err(|error| UnpackError::entry("look up", path, error))?;
                    return Ok(Some(Found { layer: index, name, stat }));
                }
            }
        }
        Ok(None)
    }

    /// [`Self::find`] with links followed in all names but the last, inside the tree, as a container would; with the
    /// name that it is seen by.
    fn follow(&self, limit: usize, path: &[u8]) -> Result<Option<(Found, Vec<u8>)>> {
        let mut todo: VecDeque<Vec<u8>> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        let mut at: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            self.step()?;
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(name),
            }
            let seen = at.join(&b'/');
            let Some(found) = self.find(limit, &seen)? else { return Ok(None) };
            if todo.is_empty() {
                return Ok(Some((found, seen)));
            }
            match FileType::from_raw_mode(found.stat.st_mode) {
                FileType::Directory => {}
                FileType::Symlink => {
                    links += 1;
                    let target = self.read_link(found.layer, &found.name)?;
                    if links > MAX_LINKS || todo.len() > 4096 {
                        return Err(UnpackError::refused(path, "it goes through too many symbolic links"));
                    }
                    at.pop();
                    if target.first() == Some(&b'/') {
                        at.clear();
                    }
                    for part in target.split(|byte| *byte == b'/').rev() {
                        todo.push_front(part.to_vec());
                    }
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn read_link(&self, layer: usize, path: &[u8]) -> Result<Vec<u8>> {
        let failed = |error| UnpackError::entry("read link", path, error);
        let (place, name) = self.place(layer, path).map_err(failed)?;
        Ok(readlinkat(&place, OsStr::from_bytes(name), Vec::new()).map_err(failed)?.into_bytes())
    }

    /// The directory of a layer that holds a path, and the path's last name.
    fn place<'a>(&self, layer: usize, path: &'a [u8]) -> rustix::io::Result<(OwnedFd, &'a [u8])> {
        let root = &self.layers.get(layer).ok_or(Errno::NOENT)?.root;
        place(root, path)
    }

    fn directory(&self, layer: usize, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        beneath(&self.layers.get(layer).ok_or(Errno::NOENT)?.root, path, OFlags::RDONLY | OFlags::DIRECTORY)
    }
}

fn place<'a>(root: &OwnedFd, path: &'a [u8]) -> rustix::io::Result<(OwnedFd, &'a [u8])> {
    let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => path.split_at(at),
        None => (&b"."[..], path),
    };
    let name = name.strip_prefix(b"/").unwrap_or(name);
    Ok((beneath(root, directory, OFlags::PATH | OFlags::DIRECTORY)?, name))
}

fn write(view: &View, plan: &Plan, root: &OwnedFd) -> Result<()> {
    let set_mode = rustix::fs::fchmod(root, Mode::from_raw_mode(0o755));
    set_mode.map_err(|e| UnpackError::entry("set the mode of", b"/", e))?;
    for (path, item) in plan {
        let failed = |error| UnpackError::entry("create", path, error);
        let (to, name) = place(root, path).map_err(failed)?;
        match item {
            Item::Directory { .. } => {
                mkdirat(&to, OsStr::from_bytes(name), Mode::from_raw_mode(0o700)).map_err(failed)?;
            }
            Item::File { layer, path } => {
                let (from, target) = view.place(*layer, path).map_err(failed)?;
                let (target, name) = (OsStr::from_bytes(target), OsStr::from_bytes(name));
                linkat(&from, target, &to, name, AtFlags::empty()).map_err(failed)?;
            }
        }
    }
    // What is deepest comes first: making something in a directory changes its time.
    for (path, item) in plan.iter().rev() {
        if let Item::Directory { layer } = item {
            let describe_it = || {
                let to = beneath(root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
                let from = view.directory(*layer, path)?;
                let stat = fstat(&from)?;
                copy_xattrs(from.as_fd(), to.as_fd())?;
                describe(to.as_fd(), &stat)
            };
            describe_it().map_err(|e| UnpackError::entry("set owner, mode and time of", path, e))?;
        }
    }
    let epoch = Timespec { tv_sec: 0, tv_nsec: 0 };
    futimens(root, &Timestamps { last_access: epoch, last_modification: epoch })
        .map_err(|e| UnpackError::entry("set the time of", b"/", e))
}

/// The first thing that is not as planned.
fn check(view: &View, plan: &Plan, path: &Path) -> Option<String> {
    let root = match open_path(path) {
        Ok(root) => root,
        Err(error) => return Some(error.to_string()),
    };
    let same = |path: &[u8], item: &Item| -> rustix::io::Result<bool> {
        match item {
            Item::File { layer, path: source } => {
                let (from, target) = view.place(*layer, source)?;
                let (to, name) = place(&root, path)?;
                let a = statat(&from, OsStr::from_bytes(target), AtFlags::SYMLINK_NOFOLLOW)?;
                let b = statat(&to, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)?;
                Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
            }
            Item::Directory { layer } => {
                let (from, to) =
                    (view.directory(*layer, path)?, beneath(&root, path, OFlags::RDONLY | OFlags::DIRECTORY)?);
                let (a, b) = (fstat(&from)?, fstat(&to)?);
                let attributes = (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid);
                Ok(attributes && xattr_names(from.as_fd())? == xattr_names(to.as_fd())?)
            }
        }
    };
    let wrong = plan.iter().find(|(path, item)| !same(path, item).unwrap_or(false));
    wrong.map(|(path, _)| format!("/{} is not what the layers below make of it", crate::image::unpack::escape(path)))
}
