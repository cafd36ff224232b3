//! Lays an unpacked layer over a plain tree as overlayfs would show it: whiteouts remove, opaque directories start
//! empty, and everything else takes the place of what has its name.
//!
//! Owns two trees that nobody else changes meanwhile, and walks both by descriptors. Never follows a link.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat, ftruncate, futimens, linkat, mkdirat,
    mknodat, openat, readlinkat, renameat, seek, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::Limits;
use super::error::UnpackError;
use super::tree::{beneath, open_directory, remove};

/// Free space is looked at again after this many bytes.
const SPACE_STEP: u64 = 16 << 20;
/// What a name alone counts for.
const NAME: u64 = 4096;

/// What becomes of the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// It is of no use afterwards: files are moved.
    Move,
    /// It stays as it is: files are copied.
    Copy,
}

/// One layer being laid over a tree.
pub(crate) struct Merge<'a> {
    pub(crate) take: Take,
    /// Directories that the layer does not describe: they leave one that is there as it is.
    pub(crate) implied: &'a BTreeSet<Vec<u8>>,
    /// The layer holds whiteouts or opaque directories.
    pub(crate) hides: bool,
    /// Copies of files with several names.
    links: HashMap<u64, Vec<u8>>,
    target: BorrowedFd<'a>,
    limits: &'a Limits,
    /// Bytes until the free space is looked at again; a name counts as a few.
    until_space_check: u64,
}

impl<'a> Merge<'a> {
    pub(crate) fn new(
        take: Take,
        implied: &'a BTreeSet<Vec<u8>>,
        hides: bool,
        target: BorrowedFd<'a>,
        limits: &'a Limits,
    ) -> Self {
        Self { take, implied, hides, links: HashMap::new(), target, limits, until_space_check: 0 }
    }

    /// Looks at the free space now and then, before it is used up.
    fn use_space(&mut self, bytes: u64) -> Result<(), UnpackError> {
        match self.until_space_check.checked_sub(bytes) {
            Some(left) => self.until_space_check = left,
            None => {
                self.limits.check_space(self.target)?;
                self.until_space_check = SPACE_STEP;
            }
        }
        Ok(())
    }

    /// Lays `layer` over the target.
    pub(crate) fn run(mut self, layer: &OwnedFd) -> Result<(), UnpackError> {
        let target = rustix::io::fcntl_dupfd_cloexec(self.target, 0)
            .map_err(|e| UnpackError::entry("open directory", b"/", e))?;
        self.directory(layer, &target, b"")?;
        // The rest since the last look; files that were moved take nothing.
        if self.take == Take::Copy { self.limits.check_space(self.target) } else { Ok(()) }
    }

    /// Two directories of the same path, and what their attributes are to be.
    fn directory(&mut self, layer: &OwnedFd, target: &OwnedFd, path: &[u8]) -> Result<(), UnpackError> {
        let failed = |operation, error| UnpackError::entry(operation, path, error);
        let before = fstat(target).map_err(|e| failed("look up", e))?;
        let described = !self.implied.contains(path);
        let after = if described { fstat(layer).map_err(|e| failed("look up", e))? } else { before };
        for name in names(layer).map_err(|e| failed("list", e))? {
            let below = if path.is_empty() { name.clone() } else { [path, &name].join(&b'/') };
            self.entry(layer, target, &name, &below)?;
        }
        if described {
            copy_xattrs(layer.as_fd(), target.as_fd()).map_err(|e| failed("copy extended attributes of", e))?;
        }
        describe(target.as_fd(), &after).map_err(|e| failed("set owner, mode and time of", e))
    }

    fn entry(&mut self, layer: &OwnedFd, target: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        let failed = |operation, error| UnpackError::entry(operation, path, error);
        let text = OsStr::from_bytes(name);
        let stat = statat(layer, text, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed("look up", e))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            return remove(target.as_fd(), name).map_err(|e| failed("remove", e));
        }
        if kind == FileType::Directory {
            return self.subdirectory(layer, target, name, path);
        }
        remove(target.as_fd(), name).map_err(|e| failed("replace", e))?;
        match self.take {
            Take::Move => renameat(layer, text, target, text).map_err(|e| failed("move", e)),
            Take::Copy => self.copy(layer, target, name, path, &stat),
        }
    }

    fn subdirectory(&mut self, layer: &OwnedFd, target: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        let failed = |operation, error| UnpackError::entry(operation, path, error);
        let text = OsStr::from_bytes(name);
        let from = open_directory(layer.as_fd(), name).map_err(|e| failed("open directory", e))?;
        let opaque = self.hides && is_opaque(from.as_fd()).map_err(|e| failed("look at", e))?;
        let there = match statat(target, text, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && !opaque => true,
            Ok(_) => {
                remove(target.as_fd(), name).map_err(|e| failed("replace", e))?;
                false
            }
            Err(Errno::NOENT) => false,
            Err(error) => return Err(failed("look up", error)),
        };
        if there {
            let to = open_directory(target.as_fd(), name).map_err(|e| failed("open directory", e))?;
            return self.directory(&from, &to, path);
        }
        if self.take == Take::Move && !self.hides {
            return renameat(layer, text, target, text).map_err(|e| failed("move", e));
        }
        mkdirat(target, text, Mode::from_raw_mode(0o700)).map_err(|e| failed("make directory", e))?;
        let to = open_directory(target.as_fd(), name).map_err(|e| failed("open directory", e))?;
        // The one that was just made says nothing; the layer's own, described or not, is all there is.
        let after = fstat(&from).map_err(|e| failed("look up", e))?;
        self.directory(&from, &to, path)?;
        copy_xattrs(from.as_fd(), to.as_fd()).map_err(|e| failed("copy extended attributes of", e))?;
        describe(to.as_fd(), &after).map_err(|e| failed("set owner, mode and time of", e))
    }

    fn copy(
        &mut self,
        layer: &OwnedFd,
        target: &OwnedFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), UnpackError> {
        let failed = |operation, error| UnpackError::entry(operation, path, error);
        self.use_space(NAME)?;
        let text = OsStr::from_bytes(name);
        let many = stat.st_nlink > 1;
        if many && let Some(known) = self.links.get(&stat.st_ino) {
            let (directory, last) = match known.iter().rposition(|b| *b == b'/') {
                Some(at) => (&known[..at], &known[at + 1..]),
                None => (&b"."[..], known.as_slice()),
            };
            let from = beneath(self.target, directory, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(|e| failed("open directory", e))?;
            return linkat(&from, OsStr::from_bytes(last), target, text, AtFlags::empty())
                .map_err(|e| failed("create hard link", e));
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let from = beneath(layer, name, OFlags::RDONLY | OFlags::NOFOLLOW).map_err(|e| failed("open", e))?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let to = openat(target, text, flags, Mode::from_raw_mode(0o600)).map_err(|e| failed("create", e))?;
                let (from, to) = (File::from(from), File::from(to));
                self.copy_content(&from, &to, path, stat)?;
                // The owner goes first: changing it takes setuid bits and capabilities away.
                fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
                    .and_then(|()| copy_xattrs(from.as_fd(), to.as_fd()))
                    .and_then(|()| describe(to.as_fd(), stat))
                    .map_err(|e| failed("set owner, mode and time of", e))?;
            }
            FileType::Symlink => {
                let link = readlinkat(layer, text, Vec::new()).map_err(|e| failed("read link", e))?;
                symlinkat(link, target, text).map_err(|e| failed("create symbolic link", e))?;
                describe_name(target, text, stat).map_err(|e| failed("set owner and time of", e))?;
            }
            kind => {
                mknodat(target, text, kind, Mode::from_raw_mode(0o600), stat.st_rdev)
                    .map_err(|e| failed("create device or fifo", e))?;
                describe_name(target, text, stat).map_err(|e| failed("set owner and time of", e))?;
            }
        }
        if many {
            self.links.insert(stat.st_ino, path.to_vec());
        }
        Ok(())
    }
}

impl Merge<'_> {
    /// Everything of a file but its holes.
    fn copy_content(&mut self, mut from: &File, mut to: &File, path: &[u8], stat: &Stat) -> Result<(), UnpackError> {
        let failed = |error| UnpackError::entry("copy", path, error);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        ftruncate(to, size).map_err(failed)?;
        let mut at = 0;
        while at < size {
            let start = match seek(from, SeekFrom::Data(at)) {
                Ok(start) => start,
                // Nothing but a hole is left.
                Err(Errno::NXIO) => break,
                Err(error) => return Err(failed(error)),
            };
            let end = seek(from, SeekFrom::Hole(start)).map_err(failed)?.min(size);
            // The second time, since looking for the hole has moved it.
            seek(from, SeekFrom::Start(start)).map_err(failed)?;
            seek(to, SeekFrom::Start(start)).map_err(failed)?;
            at = start;
            while at < end {
                let step = SPACE_STEP.min(end - at);
                self.use_space(step)?;
                let copied = io::copy(&mut Read::by_ref(&mut from).take(step), &mut to);
                let copied = copied.map_err(|source| match Errno::from_io_error(&source) {
                    Some(errno) => failed(errno),
                    None => UnpackError::Stream(source),
                })?;
                if copied == 0 {
                    return Ok(());
                }
                at += copied;
            }
        }
        Ok(())
    }
}

/// Names in a directory, without dots.
pub(crate) fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let mut listing = Dir::read_from(directory)?;
    while let Some(entry) = listing.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

pub(crate) fn is_opaque(directory: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let mut value = [0u8; 8];
    match fgetxattr(directory, "trusted.overlay.opaque", &mut value) {
        Ok(length) => Ok(value.get(..length) == Some(b"y")),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
        Err(Errno::RANGE) => Ok(false),
        Err(error) => Err(error),
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() };
    Timestamps { last_access: time, last_modification: time }
}

/// Owner, mode and time as another file has them.
pub(crate) fn describe(file: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<()> {
    let now = fstat(file)?;
    if (now.st_uid, now.st_gid) != (stat.st_uid, stat.st_gid) {
        fchown(file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    }
    fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    futimens(file, &times(stat))
}

fn describe_name(target: &OwnedFd, name: &OsStr, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(target, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        // It was made a moment ago, in a private tree, as no link.
        chmodat(target, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    utimensat(target, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// Makes the attributes that a layer may bring the same; leaves the host's own alone.
pub(crate) fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let wanted = xattr_names(from)?;
    for name in xattr_names(to)? {
        if !wanted.contains(&name) {
            fremovexattr(to, name.as_slice())?;
        }
    }
    for name in wanted {
        let mut value = vec![0u8; 64 << 10];
        let length = fgetxattr(from, name.as_slice(), &mut value)?;
        match fsetxattr(to, name.as_slice(), &value[..length], XattrFlags::empty()) {
            Err(Errno::NOTSUP) if name.starts_with(b"user.") => {}
            other => other?,
        }
    }
    Ok(())
}

/// Names of the attributes that a layer may bring.
pub(crate) fn xattr_names(file: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0u8; 64 << 10];
    let length = match flistxattr(file, &mut list) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error),
    };
    let names = list.get(..length).unwrap_or_default().split(|b| *b == 0);
    let ours = names.filter(|name| name.starts_with(b"user.") || *name == b"security.capability");
    Ok(ours.map(<[u8]>::to_vec).collect())
}
