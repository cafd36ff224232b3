//! Turns the entries of one layer into files below one directory, with whiteouts as overlayfs wants them.
//!
//! Owns the order of things: a removal before what takes its place; owner, mode, extended attributes, times; times of
//! directories at the very end. Never writes through a link and never outside of its tree (see `tree`).

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown,
    fsetxattr, ftruncate, futimens, linkat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::archive::{Archive, Entry, Input, Kind};
use super::error::UnpackError;
use super::list::{Line, ListReader, ListWriter, Recorded};
use super::merge::{is_opaque, names};
use super::tree::{Names, Notes, Place, Tree, beneath, make_directory, open_directory, remove};
use super::{Limits, Unpacked};

const WHITEOUT: &[u8] = b".wh.";
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Free space is looked at again after this many bytes.
const SPACE_STEP: u64 = 16 << 20;
/// Bytes of paths that depend on lower layers: directories that one uses and does not describe, and hard links to files
/// that it does not have. They are kept in memory, and in the layer's record.
const MAX_NOTED: u64 = 4 << 20;
/// What each of them takes beside its bytes.
const NOTED: u64 = 32;
/// Hard links to files of lower layers in one layer.
const MAX_FOREIGN_LINKS: usize = 16_384;

/// Writes entries into a tree.
pub(super) struct Writer<'a> {
    tree: Tree,
    state: State,
    limits: &'a Limits,
    /// Where a hard link's target is looked up that the layer itself does not have.
    below: Option<Tree>,
    until_space_check: u64,
    /// How often something was removed.
    cleared: u64,
    /// What [`Self::hides`] answered last.
    hidden: RefCell<Option<Hidden>>,
}

/// An answer of [`Writer::hides`].
struct Hidden {
    path: Vec<u8>,
    /// How many directories were opaque then, and how often something was removed before.
    mark: (u64, u64),
    answer: bool,
}

/// What is noted on the way.
struct State {
    list: ListWriter,
    summary: Unpacked,
    max_entries: u64,
    /// Bytes of paths that depend on lower layers, of those that were taken out again as well.
    noted: u64,
}

impl State {
    fn note(&mut self, bytes: usize) -> Result<(), UnpackError> {
        self.noted += bytes as u64 + NOTED;
        if self.noted > MAX_NOTED {
            let what = "the size of the names of directories and links that depend on lower layers";
            return Err(UnpackError::Limit { what, limit: MAX_NOTED });
        }
        Ok(())
    }

    fn add(&mut self, line: &Line) -> Result<(), UnpackError> {
        self.list.add(line).map_err(|source| list_error(source, "write the list of"))
    }

    fn count_entry(&mut self) -> Result<(), UnpackError> {
        self.summary.entries += 1;
        if self.summary.entries > self.max_entries {
            return Err(UnpackError::Limit { what: "the number of entries", limit: self.max_entries });
        }
        Ok(())
    }
}

fn list_error(source: std::io::Error, operation: &'static str) -> UnpackError {
    match source.kind() {
        std::io::ErrorKind::StorageFull => UnpackError::Full { path: "the list of entries".to_owned() },
        _ => UnpackError::Entry { operation, path: "the layer".to_owned(), source },
    }
}

impl Notes for State {
    fn implied(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        // Counted as entries: one path of an archive can make hundreds of directories.
        self.count_entry()?;
        self.note(path.len())?;
        self.summary.implied.insert(path.to_vec());
        // Their time is fixed, so that a layer is the same wherever it is unpacked.
        self.add(&implied_line(path, false))
    }

    fn replaced_whiteout(&mut self, place: BorrowedFd<'_>, path: &[u8]) -> Result<(), UnpackError> {
        set_opaque(place, path)?;
        self.summary.opaques += 1;
        self.add(&implied_line(path, true))
    }
}

fn implied_line(path: &[u8], opaque: bool) -> Line {
    Line { path: path.to_vec(), mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), item: Recorded::Directory { opaque } }
}

fn set_opaque(place: BorrowedFd<'_>, path: &[u8]) -> Result<(), UnpackError> {
    fsetxattr(place, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .map_err(|e| UnpackError::entry("mark as opaque", path, e))
}

fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn name_of(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

impl<'a> Writer<'a> {
    /// Writes into `root`, an empty directory, and the list of it into `list`.
    pub(super) fn new(
        root: OwnedFd,
        list: File,
        limits: &'a Limits,
        below: Option<BorrowedFd<'_>>,
    ) -> Result<Self, UnpackError> {
        let below = below.map(|below| rustix::io::fcntl_dupfd_cloexec(below, 0)).transpose();
        let below = below.map_err(|e| UnpackError::entry("open directory", b"/", e))?;
        let below = below.map(|below| Tree::open(below, limits));
        let list = ListWriter::new(list).map_err(|e| list_error(e, "write the list of"))?;
        // The root is one that the layer does not describe, until it does.
        let summary = Unpacked { implied: [Vec::new()].into(), ..Unpacked::default() };
        let mut state = State { list, summary, max_entries: limits.entries, noted: 0 };
        state.add(&implied_line(b"", false))?;
        let tree = Tree::open(root, limits);
        let until_space_check = SPACE_STEP;
        let hidden = RefCell::new(None);
        let writer = Self { tree, state, limits, below, until_space_check, cleared: 0, hidden };
        writer.check_space()?;
        Ok(writer)
    }

    /// Everything of an archive, to its end.
    pub(super) fn write_all<R: Input>(mut self, archive: &mut Archive<R>) -> Result<Unpacked, UnpackError> {
        while let Some(entry) = archive.next_entry()? {
            self.write(&entry, archive)?;
        }
        self.finish()
    }

    fn write<R: Input>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<(), UnpackError> {
        self.state.count_entry()?;
        if self.state.summary.entries.is_multiple_of(1024) {
            self.check_space()?;
        }
        let names = Names::parse(&entry.path, self.limits.depth)?;
        let Some((name, parents)) = names.0.split_last() else {
            if entry.kind != Kind::Directory {
                return Err(UnpackError::refused(&entry.path, "it would replace the root directory"));
            }
            let root = Rc::clone(self.tree.root());
            let opened = beneath(&root, b".", OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(|e| UnpackError::entry("open directory", b"/", e))?;
            self.state.summary.implied.remove(b"".as_slice());
            return self.describe_directory(&opened, Vec::new(), entry, false);
        };
        // Below these is aufs' own book-keeping, never content.
        if parents.iter().any(|parent| parent.starts_with(AUFS)) {
            return Ok(());
        }
        if parents.iter().any(|parent| parent.starts_with(WHITEOUT)) {
            return Err(UnpackError::refused(&entry.path, "names that start with `.wh.` are reserved"));
        }
        if *name == OPAQUE {
            return self.write_opaque(parents);
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(UnpackError::refused(&entry.path, "it is a whiteout of nothing"));
            }
            let place = self.tree.directory(parents, &mut self.state)?;
            // There is nothing below to hide, and overlayfs would show the whiteout in listings of such a directory.
            if self.hides(parents)? {
                return Ok(());
            }
            return self.write_whiteout(&place, hidden);
        }
        let place = self.tree.directory(parents, &mut self.state)?;
        let path = if place.path.is_empty() { name.to_vec() } else { [&place.path, *name].join(&b'/') };
        match entry.kind {
            Kind::File => self.write_file(&place, name, path, entry, archive),
            Kind::Directory => self.write_directory(&place, name, path, entry),
            Kind::Symlink => self.write_symlink(&place, name, path, entry),
            Kind::Hardlink => self.write_hardlink(&place, name, path, entry),
            Kind::Fifo | Kind::Char | Kind::Block => self.write_special(&place, name, path, entry),
        }
    }

    /// Makes something under a new name; what has the name goes first.
    fn create<T>(
        &mut self,
        place: &Place,
        name: &[u8],
        path: &[u8],
        operation: &'static str,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, UnpackError> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(place, name, path)?;
                make()
            }
            other => other,
        }
        .map_err(|e| UnpackError::entry(operation, path, e))
    }

    fn clear(&mut self, place: &Place, name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        self.tree.forget();
        self.cleared += 1;
        remove(place.as_fd(), name).map_err(|e| UnpackError::entry("replace", path, e))?;
        let implied = &mut self.state.summary.implied;
        implied.remove(path);
        let below = [path, b"/"].concat();
        while let Some(gone) = implied.range(below.clone()..).next().filter(|path| path.starts_with(&below)).cloned() {
            implied.remove(&gone);
        }
        self.state.add(&Line::removed(path.to_vec()))
    }

    fn write_file<R: Input>(
        &mut self,
        place: &Place,
        name: &[u8],
        path: Vec<u8>,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        let total = self.state.summary.bytes.saturating_add(entry.size);
        if total > self.limits.file_bytes {
            return Err(UnpackError::Limit { what: "the size of all files", limit: self.limits.file_bytes });
        }
        self.state.summary.bytes = total;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.create(place, name, &path, "create file", || {
            openat(place, name_of(name), flags, Mode::from_raw_mode(0o600))
        })?;
        let failed = |operation, error| UnpackError::entry(operation, &path, error);
        let mut crc = flate2::Crc::new();
        match &entry.sparse {
            None => self.copy(&file, &path, entry.size, archive, &mut crc)?,
            Some(parts) => {
                ftruncate(&file, entry.size).map_err(|e| failed("set the size of", e))?;
                for (offset, length) in parts {
                    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(*offset)).map_err(|e| failed("write", e))?;
                    self.copy(&file, &path, *length, archive, &mut crc)?;
                }
            }
        }
        fchown(&file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
            .map_err(|e| failed("set the owner of", e))?;
        fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(|e| failed("set the mode of", e))?;
        set_xattrs(file.as_fd(), &path, entry)?;
        futimens(&file, &times(entry.mtime)).map_err(|e| failed("set the time of", e))?;
        let item = Recorded::File { size: entry.size, crc: crc.sum(), parts: entry.sparse.clone() };
        self.state.add(&line(path, entry, item))
    }

    fn copy<R: Input>(
        &mut self,
        file: &OwnedFd,
        path: &[u8],
        mut left: u64,
        archive: &mut Archive<R>,
        crc: &mut flate2::Crc,
    ) -> Result<(), UnpackError> {
        while left > 0 {
            let bytes = archive.data()?;
            let step = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if step == 0 {
                return Err(UnpackError::Truncated("a file"));
            }
            let mut rest = &bytes[..step];
            crc.update(rest);
            while !rest.is_empty() {
                match rustix::io::write(file, rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(UnpackError::entry("write", path, error)),
                }
            }
            archive.used(step);
            left -= step as u64;
            self.until_space_check = self.until_space_check.saturating_sub(step as u64);
            if self.until_space_check == 0 {
                self.check_space()?;
                self.until_space_check = SPACE_STEP;
            }
        }
        Ok(())
    }

    fn check_space(&self) -> Result<(), UnpackError> {
        let root = beneath(self.tree.root(), b".", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|e| UnpackError::entry("open directory", b"/", e))?;
        self.limits.check_space(&root)
    }

    fn write_directory(&mut self, place: &Place, name: &[u8], path: Vec<u8>, entry: &Entry) -> Result<(), UnpackError> {
        let mut opaque = false;
        match statat(place, name_of(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Ok(_) => {
                // In the place of a whiteout or of anything else that the layer has had there: whatever the layers below
                // have under this name was gone by then.
                opaque = true;
                self.clear(place, name, &path)?;
                make_directory(place.as_fd(), name).map_err(|e| UnpackError::entry("make directory", &path, e))?;
            }
            Err(Errno::NOENT) => {
                make_directory(place.as_fd(), name).map_err(|e| UnpackError::entry("make directory", &path, e))?;
            }
            Err(error) => return Err(UnpackError::entry("look up", &path, error)),
        }
        let opened = open_directory(place.as_fd(), name).map_err(|e| UnpackError::entry("open directory", &path, e))?;
        if opaque {
            set_opaque(opened.as_fd(), &path)?;
            self.state.summary.opaques += 1;
        }
        self.state.summary.implied.remove(&path);
        self.describe_directory(&opened, path, entry, opaque)
    }

    fn describe_directory(
        &mut self,
        opened: &OwnedFd,
        path: Vec<u8>,
        entry: &Entry,
        opaque: bool,
    ) -> Result<(), UnpackError> {
        let failed = |operation, error| UnpackError::entry(operation, &path, error);
        fchown(opened, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
            .map_err(|e| failed("set the owner of", e))?;
        fchmod(opened, Mode::from_raw_mode(entry.mode)).map_err(|e| failed("set the mode of", e))?;
        set_xattrs(opened.as_fd(), &path, entry)?;
        self.state.add(&line(path, entry, Recorded::Directory { opaque }))
    }

    fn write_symlink(&mut self, place: &Place, name: &[u8], path: Vec<u8>, entry: &Entry) -> Result<(), UnpackError> {
        if entry.link.is_empty() {
            return Err(UnpackError::refused(&entry.path, "it is a symbolic link to nothing"));
        }
        self.create(place, name, &path, "create symbolic link", || {
            symlinkat(name_of(&entry.link), place, name_of(name))
        })?;
        let failed = |operation, error| UnpackError::entry(operation, &path, error);
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        chownat(place, name_of(name), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed("set the owner of", e))?;
        utimensat(place, name_of(name), &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed("set the time of", e))?;
        self.state.add(&line(path, entry, Recorded::Symlink(entry.link.clone())))
    }

    fn write_hardlink(&mut self, place: &Place, name: &[u8], path: Vec<u8>, entry: &Entry) -> Result<(), UnpackError> {
        let target = Names::parse(&entry.link, self.limits.depth)?;
        let Some((target_name, target_parents)) = target.0.split_last() else {
            return Err(UnpackError::refused(&entry.path, "it is a hard link to the root directory"));
        };
        if target_name.starts_with(WHITEOUT) {
            return Err(UnpackError::refused(&entry.path, "it is a hard link to a reserved name"));
        }
        let failed = |error| UnpackError::entry("create hard link", &path, error);
        // The last name is not followed: a link to a symbolic link is another name of that link.
        let here = self.tree.find(target_parents).ok().and_then(|from| {
            statat(&from, name_of(target_name), AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| (from, stat))
        });
        let (from, target_stat) = match (here, &self.below) {
            (Some((_, stat)), _) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(UnpackError::refused(&entry.path, "it is a hard link to a directory"));
            }
            (Some((from, stat)), _) if !is_whiteout(&stat) => (from, stat),
            (Some(_), _) => {
                return Err(UnpackError::refused(&entry.path, "it is a hard link to a file that the layer removes"));
            }
            _ if self.hides(target_parents)? => {
                return Err(UnpackError::refused(&entry.path, "it is a hard link to a file that the layer hides"));
            }
            (_, Some(below)) => {
                let from = below.find(target_parents)?;
                let stat = statat(&from, name_of(target_name), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                (from, stat)
            }
            (_, None) => return self.note_foreign_link(place, name, path, target),
        };
        if let Ok(existing) = statat(place, name_of(name), AtFlags::SYMLINK_NOFOLLOW)
            && (existing.st_dev, existing.st_ino) == (target_stat.st_dev, target_stat.st_ino)
        {
            // Already another name of it, or the very same name.
            return Ok(());
        }
        self.create(place, name, &path, "create hard link", || {
            linkat(&from, name_of(target_name), place, name_of(name), AtFlags::empty())
        })?;
        let target_path =
            if from.path.is_empty() { target_name.to_vec() } else { [&from.path, *target_name].join(&b'/') };
        self.state.add(&line(path, entry, Recorded::Hardlink(target_path)))
    }

    /// Whether one of these directories hides what layers below have in it.
    fn hides(&self, parents: &[&[u8]]) -> Result<bool, UnpackError> {
        if self.state.summary.root_opaque {
            return Ok(true);
        }
        let path = parents.join(&b'/');
        // Archives go directory by directory: the last answer counts for as long as nothing became opaque or was removed.
        let mark = (self.state.summary.opaques, self.cleared);
        if let Some(last) = &*self.hidden.borrow()
            && (&last.path, last.mark) == (&path, mark)
        {
            return Ok(last.answer);
        }
        let mut at: Option<OwnedFd> = None;
        let mut answer = false;
        for name in parents {
            self.tree.step()?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let opened = match &at {
                Some(at) => beneath(at, name, flags),
                None => beneath(self.tree.root(), name, flags),
            };
            // Through a link of this layer, or not in it at all.
            let Ok(opened) = opened else { break };
            answer = is_opaque(opened.as_fd()).map_err(|error| UnpackError::entry("look at", &path, error))?;
            if answer {
                break;
            }
            at = Some(opened);
        }
        *self.hidden.borrow_mut() = Some(Hidden { path, mark, answer });
        Ok(answer)
    }

    /// A hard link to a file of a lower layer: made when the image is put together.
    fn note_foreign_link(
        &mut self,
        place: &Place,
        name: &[u8],
        path: Vec<u8>,
        target: Names<'_>,
    ) -> Result<(), UnpackError> {
        let written = target.0.join(&b'/');
        let through = target.0.split_last().and_then(|(last, parents)| {
            let from = self.tree.find(parents).ok()?;
            Some(if from.path.is_empty() { last.to_vec() } else { [&from.path, *last].join(&b'/') })
        });
        let target = through.unwrap_or(written);
        let links = &self.state.summary.links;
        // A link to such a link leads where that one does.
        let target = links.get(&target).cloned().unwrap_or(target);
        if links.len() >= MAX_FOREIGN_LINKS {
            let limit = MAX_FOREIGN_LINKS as u64;
            return Err(UnpackError::Limit { what: "the number of hard links to lower layers", limit });
        }
        if statat(place, name_of(name), AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            self.clear(place, name, &path)?;
        }
        self.state.note(path.len() + target.len())?;
        self.state.summary.links.insert(path, target);
        Ok(())
    }

    fn write_special(&mut self, place: &Place, name: &[u8], path: Vec<u8>, entry: &Entry) -> Result<(), UnpackError> {
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let kind = match entry.kind {
            Kind::Char if device == 0 => {
                let names: Vec<&[u8]> =
                    place.path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
                return if self.hides(&names)? { Ok(()) } else { self.write_whiteout(place, name) };
            }
            Kind::Char => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            Kind::Fifo | Kind::File | Kind::Directory | Kind::Symlink | Kind::Hardlink => FileType::Fifo,
        };
        self.create(place, name, &path, "create device or fifo", || {
            mknodat(place, name_of(name), kind, Mode::from_raw_mode(0o600), device)
        })?;
        let failed = |operation, error| UnpackError::entry(operation, &path, error);
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        chownat(place, name_of(name), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed("set the owner of", e))?;
        // By name, and it would follow a link: but the name was made a moment ago, in a private tree, as no link.
        chmodat(place, name_of(name), Mode::from_raw_mode(entry.mode), AtFlags::empty())
            .map_err(|e| failed("set the mode of", e))?;
        utimensat(place, name_of(name), &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed("set the time of", e))?;
        let mode = kind.as_raw_mode() | entry.mode;
        self.state.add(&line(path, entry, Recorded::Special { mode, device }))
    }

    /// Hides what layers below have under this name; what this layer has itself stays, in whatever order they come
    /// (OCI image specification, layer.md, "Whiteouts").
    fn write_whiteout(&mut self, place: &Place, name: &[u8]) -> Result<(), UnpackError> {
        let path = if place.path.is_empty() { name.to_vec() } else { [&place.path, name].join(&b'/') };
        if self.state.summary.links.contains_key(&path) {
            return Ok(());
        }
        self.state.summary.whiteouts += 1;
        match statat(place, name_of(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let opened =
                    open_directory(place.as_fd(), name).map_err(|e| UnpackError::entry("open directory", &path, e))?;
                self.make_opaque(&opened, path)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                mknodat(place, name_of(name), FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(|e| UnpackError::entry("create whiteout", &path, e))?;
                let item = Recorded::Special { mode: FileType::CharacterDevice.as_raw_mode(), device: 0 };
                self.state.add(&Line { path, mode: 0, uid: 0, gid: 0, mtime: (0, 0), item })
            }
            Err(error) => Err(UnpackError::entry("look up", &path, error)),
        }
    }

    fn write_opaque(&mut self, parents: &[&[u8]]) -> Result<(), UnpackError> {
        let place = self.tree.directory(parents, &mut self.state)?;
        if place.path.is_empty() {
            // overlayfs does not look at the attribute on a layer's root: the caller leaves the layers below out.
            self.state.summary.root_opaque = true;
        }
        let opened = beneath(&place, b".", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|e| UnpackError::entry("open directory", &place.path, e))?;
        self.make_opaque(&opened, place.path.clone())
    }

    fn make_opaque(&mut self, opened: &OwnedFd, path: Vec<u8>) -> Result<(), UnpackError> {
        if is_opaque(opened.as_fd()).map_err(|e| UnpackError::entry("look at", &path, e))? {
            return Ok(());
        }
        set_opaque(opened.as_fd(), &path)?;
        self.state.summary.opaques += 1;
        self.drop_whiteouts(opened, &path)?;
        let stat = rustix::fs::fstat(opened).map_err(|e| UnpackError::entry("look up", &path, e))?;
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        self.state.add(&Line {
            path,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            // Its own entry, before or after, sets the time.
            mtime: (i64::MIN, nanos),
            item: Recorded::Directory { opaque: true },
        })
    }

    /// Removes whiteouts that came before their directory was known to hide everything.
    fn drop_whiteouts(&mut self, directory: &OwnedFd, path: &[u8]) -> Result<(), UnpackError> {
        for name in names(directory).map_err(|e| UnpackError::entry("list", path, e))? {
            let failed = |error| UnpackError::entry("remove whiteout", path, error);
            if is_whiteout(&statat(directory, name_of(&name), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?) {
                unlinkat(directory, name_of(&name), AtFlags::empty()).map_err(failed)?;
                let gone = if path.is_empty() { name } else { [path, &name].join(&b'/') };
                self.state.add(&Line::removed(gone))?;
            }
        }
        Ok(())
    }

    /// Restores the times of directories and ends the list.
    fn finish(self) -> Result<Unpacked, UnpackError> {
        let State { list, mut summary, .. } = self.state;
        // What came later under the same name, or in the place of a directory above it, counts.
        summary.links.retain(|path, _| {
            let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
                None => (&b"."[..], path.as_slice()),
            };
            let place = beneath(self.tree.root(), parent, OFlags::PATH | OFlags::DIRECTORY);
            place
                .is_ok_and(|place| matches!(statat(place, name_of(name), AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT)))
        });
        let read_error = |e| list_error(e, "read the list of");
        let mut file = list.finish().map_err(|e| list_error(e, "write the list of"))?;
        std::io::Seek::rewind(&mut file).map_err(read_error)?;
        for line in ListReader::new(file).map_err(read_error)? {
            let line = line.map_err(read_error)?;
            if !matches!(line.item, Recorded::Directory { .. }) || line.mtime.0 == i64::MIN {
                continue;
            }
            let path: &[u8] = if line.path.is_empty() { b"." } else { &line.path };
            match beneath(self.tree.root(), path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(directory) => futimens(&directory, &times(line.mtime))
                    .map_err(|e| UnpackError::entry("set the time of", path, e))?,
                // It was replaced by something else later on.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(UnpackError::entry("open directory", path, error)),
            }
        }
        Ok(summary)
    }
}

fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn line(path: Vec<u8>, entry: &Entry, item: Recorded) -> Line {
    Line { path, mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, item }
}

/// Sets the attributes that a layer may bring: file capabilities and `user.*`. Labels, ACLs and above all `trusted.*`
/// belong to the host. `user.overlay.*` is overlayfs' own language as well.
fn set_xattrs(file: BorrowedFd<'_>, path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
    for (name, value) in &entry.xattrs {
        let capability = name == b"security.capability" && entry.kind == Kind::File;
        let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && name != b"user.";
        if !capability && !user {
            continue;
        }
        match fsetxattr(file, name_of(name), value, XattrFlags::empty()) {
            Ok(()) => {}
            // A file system without such attributes: losing a capability would break the program, the others are
            // hints.
            Err(Errno::NOTSUP) if user => {}
            // What a file system has room for is its own affair: 4 KiB for all of a file on ext4, 64 KiB on others.
            Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) => {
                return Err(UnpackError::refused(path, "its extended attributes do not fit on this file system"));
            }
            Err(error) => {
                return Err(UnpackError::Entry {
                    operation: "set an extended attribute of",
                    path: super::error::escape(path),
                    source: error.into(),
                });
            }
        }
    }
    Ok(())
}
