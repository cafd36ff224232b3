//! A directory tree that only file descriptors lead into: every path of an archive is resolved here.
//!
//! One rule keeps everything inside: the kernel is only ever given a path together with the descriptor of the tree
//! and `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, or one single name together with the descriptor of its directory.
//! Symbolic links are followed here, one by one, with the tree as their root, as a container would see them. The tree is
//! private (below a 0700 directory), so nothing changes between two steps.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat, statat, unlinkat,
};
use rustix::io::Errno;

use super::Limits;
use super::error::UnpackError;

/// Symbolic links followed in one path, as in the kernel.
const MAX_LINKS: usize = 40;
/// Names looked up one by one, for each entry that a layer may have.
const STEPS: u64 = 32;

/// A directory inside the tree.
#[derive(Debug)]
pub(crate) struct Place {
    fd: OwnedFd,
    /// Its path in the tree, without links, dots and doubled slashes; empty for the tree itself.
    pub(crate) path: Vec<u8>,
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the resolver met that its caller may want to know.
pub(super) trait Notes {
    /// A directory was made because an entry is below it.
    fn implied(&mut self, path: &[u8]) -> Result<(), UnpackError>;
    /// A whiteout stood where a directory is needed, and has made room for it.
    fn replaced_whiteout(&mut self, place: BorrowedFd<'_>, path: &[u8]) -> Result<(), UnpackError>;
}

/// The tree.
pub(super) struct Tree {
    root: Rc<Place>,
    /// The directory of the entry before; archives go directory by directory.
    last: Option<(Vec<u8>, Rc<Place>)>,
    max_depth: usize,
    /// Names that may still be looked up one by one. A path of a few bytes can lead through thousands of names by
    /// symbolic links, and a small archive has a million paths.
    steps: Cell<u64>,
    max_steps: u64,
}

/// A path of an archive as names.
#[derive(Debug, Clone)]
pub(super) struct Names<'a>(pub(super) Vec<&'a [u8]>);

impl<'a> Names<'a> {
    /// Splits and cleans a path. One that leads above the tree is refused; a leading slash means the tree.
    pub(super) fn parse(path: &'a [u8], max_depth: usize) -> Result<Self, UnpackError> {
        let mut names: Vec<&[u8]> = Vec::new();
        if path.len() > 4095 {
            return Err(UnpackError::Limit { what: "the length of a path", limit: 4095 });
        }
        for name in path.split(|b| *b == b'/') {
            match name {
                b"" | b"." => {}
                b".." if names.pop().is_none() => {
                    return Err(UnpackError::refused(path, "it leads outside of the layer"));
                }
                b".." => {}
                // The name that a whiteout hides may be as long as any; the whiteout itself never becomes a file.
                _ if name.strip_prefix(b".wh.").unwrap_or(name).len() > 255 => {
                    return Err(UnpackError::Limit { what: "the length of a name", limit: 255 });
                }
                _ => names.push(name),
            }
            if names.len() > max_depth {
                return Err(UnpackError::Limit { what: "the depth of a path", limit: max_depth as u64 });
            }
        }
        Ok(Self(names))
    }
}

impl Tree {
    /// Opens a directory as the tree.
    pub(super) fn open(fd: OwnedFd, limits: &Limits) -> Self {
        let max_steps = limits.entries.saturating_mul(STEPS);
        let root = Rc::new(Place { fd, path: Vec::new() });
        Self { root, last: None, max_depth: limits.depth, steps: Cell::new(max_steps), max_steps }
    }

    /// Counts a name that is looked up by itself.
    pub(super) fn step(&self) -> Result<(), UnpackError> {
        let limit = UnpackError::Limit { what: "the number of names looked up through links", limit: self.max_steps };
        self.steps.set(self.steps.get().checked_sub(1).ok_or(limit)?);
        Ok(())
    }

    pub(super) fn root(&self) -> &Rc<Place> {
        &self.root
    }

    /// To be called whenever something was removed or replaced: a remembered directory may be gone.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// The directory with these names; what is missing on the way is made.
    pub(super) fn directory(&mut self, names: &[&[u8]], notes: &mut dyn Notes) -> Result<Rc<Place>, UnpackError> {
        if names.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        let path = names.join(&b'/');
        if let Some((last, place)) = &self.last
            && *last == path
        {
            return Ok(Rc::clone(place));
        }
        let place = match beneath(&self.root.fd, &path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => Place { fd, path: path.clone() },
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => self.walk(names, Some(notes))?,
            Err(error) => return Err(UnpackError::entry("open directory", &path, error)),
        };
        let place = Rc::new(place);
        self.last = Some((path, Rc::clone(&place)));
        Ok(place)
    }

    /// The directory with these names, when it is there.
    pub(super) fn find(&self, names: &[&[u8]]) -> Result<Place, UnpackError> {
        self.walk(names, None)
    }

    /// Name by name, following links inside the tree.
    fn walk(&self, names: &[&[u8]], mut notes: Option<&mut (dyn Notes + '_)>) -> Result<Place, UnpackError> {
        let whole = names.join(&b'/');
        let mut todo: VecDeque<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
        let mut at: Vec<Vec<u8>> = Vec::new();
        let mut fd = self.reopen(&at)?;
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            self.step()?;
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at.pop();
                    fd = self.reopen(&at)?;
                    continue;
                }
                _ => {}
            }
            let text = OsStr::from_bytes(&name);
            let found = match statat(&fd, text, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(UnpackError::entry("look up", &whole, error)),
            };
            let kind = found.as_ref().map(|stat| FileType::from_raw_mode(stat.st_mode));
            match (kind, found) {
                (Some(FileType::Symlink), _) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(UnpackError::refused(&whole, "it goes through too many symbolic links"));
                    }
                    let target =
                        readlinkat(&fd, text, Vec::new()).map_err(|e| UnpackError::entry("read link", &whole, e))?;
                    let target = target.into_bytes();
                    if target.first() == Some(&b'/') {
                        at.clear();
                        fd = self.reopen(&at)?;
                    }
                    for part in target.split(|b| *b == b'/').rev() {
                        todo.push_front(part.to_vec());
                    }
                    if todo.len() > 4096 {
                        return Err(UnpackError::refused(&whole, "it goes through too many symbolic links"));
                    }
                    continue;
                }
                (Some(FileType::Directory), _) => {}
                (Some(FileType::CharacterDevice), Some(stat)) if stat.st_rdev == 0 => {
                    let Some(notes) = notes.as_deref_mut() else {
                        return Err(UnpackError::entry("open directory", &whole, Errno::NOENT));
                    };
                    unlinkat(&fd, text, AtFlags::empty())
                        .and_then(|()| make_directory(fd.as_fd(), &name))
                        .map_err(|e| UnpackError::entry("make directory", &whole, e))?;
                    let made = [at.as_slice(), std::slice::from_ref(&name)].concat().join(&b'/');
                    notes.implied(&made)?;
                    let opened = open_directory(fd.as_fd(), &name)
                        .map_err(|e| UnpackError::entry("open directory", &whole, e))?;
                    notes.replaced_whiteout(opened.as_fd(), &made)?;
                }
                (Some(_), _) => {
                    return Err(UnpackError::refused(&whole, "it is below something that is no directory"));
                }
                (None, _) => {
                    let Some(notes) = notes.as_deref_mut() else {
                        return Err(UnpackError::entry("open directory", &whole, Errno::NOENT));
                    };
                    make_directory(fd.as_fd(), &name).map_err(|e| UnpackError::entry("make directory", &whole, e))?;
                    notes.implied(&[at.as_slice(), std::slice::from_ref(&name)].concat().join(&b'/'))?;
                }
            }
            fd = beneath(&fd, &name, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(|e| UnpackError::entry("open directory", &whole, e))?;
            at.push(name);
            if at.len() > self.max_depth {
                return Err(UnpackError::Limit { what: "the depth of a path", limit: self.max_depth as u64 });
            }
        }
        Ok(Place { fd, path: at.join(&b'/') })
    }

    fn reopen(&self, at: &[Vec<u8>]) -> Result<OwnedFd, UnpackError> {
        let path = at.join(&b'/');
        let name: &[u8] = if path.is_empty() { b"." } else { &path };
        beneath(&self.root.fd, name, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|e| UnpackError::entry("open directory", &path, e))
    }
}

/// Opens a path below a directory: no link on the way or at the end, no other file system, nothing above.
pub(crate) fn beneath(directory: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    loop {
        // EAGAIN: a rename somewhere on the system while resolving.
        match openat2(&directory, OsStr::from_bytes(path), flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens the directory with this one name, for reading and for changing its attributes.
pub(crate) fn open_directory(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    beneath(directory, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
}

/// Makes a directory as a layer means one that it does not describe: of root, mode 0755.
pub(super) fn make_directory(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    mkdirat(directory, OsStr::from_bytes(name), Mode::from_raw_mode(0o755))?;
    let made = open_directory(directory, name)?;
    // Neither the umask nor a setgid parent decides.
    rustix::fs::fchown(&made, Some(rustix::fs::Uid::ROOT), Some(rustix::fs::Gid::ROOT))?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))
}

/// Removes what has this one name in `directory`, with everything below; follows no link. Nothing there is a success.
///
/// Holds two descriptors however deep the tree is: it climbs back by `..`, which is sound in a private tree.
pub(crate) fn remove(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let file = |at: BorrowedFd<'_>, name: &[u8]| unlinkat(at, OsStr::from_bytes(name), AtFlags::empty());
    match file(directory, name) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let mut names = vec![name.to_vec()];
    let mut current = open_directory(directory, name)?;
    'directory: loop {
        let mut listing = Dir::read_from(&current)?;
        while let Some(entry) = listing.read() {
            let entry = entry?;
            let child = entry.file_name().to_bytes();
            if matches!(child, b"." | b"..") {
                continue;
            }
            match file(current.as_fd(), child) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    let below = open_directory(current.as_fd(), child)?;
                    names.push(child.to_vec());
                    current = below;
                    continue 'directory;
                }
                Err(error) => return Err(error),
            }
        }
        drop(listing);
        let Some(done) = names.pop() else { return Ok(()) };
        let parent = if names.is_empty() {
            None
        } else {
            Some(openat(&current, "..", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
        };
        let above = parent.as_ref().map_or(directory, |fd| fd.as_fd());
        unlinkat(above, OsStr::from_bytes(&done), AtFlags::REMOVEDIR)?;
        match parent {
            Some(parent) => current = parent,
            None => return Ok(()),
        }
    }
}

/// [`remove`] for a path of our own.
pub(crate) fn remove_path(path: &std::path::Path) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() { std::path::Path::new(".") } else { parent };
    match openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(remove(fd.as_fd(), name.as_bytes())?),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
