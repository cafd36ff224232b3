//! Which files of a source are manifests, and their bytes. One function for the agent, `validate` and `plan`, so that
//! a laptop and a server see the same files.
//!
//! Rules: recursive; names that begin with a dot, editors' leftovers and what `.mainstayignore` names are passed
//! over; `.yaml`, `.yml`, `.json` and `.toml` count, the first three also with `.age` behind. Symlinks are followed, each file and directory once. A source
//! that cannot be listed as a whole is an error, never an empty list; one unreadable file is an error of that file.

mod compose;
mod git;
mod ignore;
mod mounts;
mod projects;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ignore::Ignored;

pub use compose::{LoadedProject, Neighbours, load_project};
pub use git::GitState;
pub use mounts::Mounts;
pub use projects::{Project, projects};

/// A manifest above this many bytes is refused.
pub const MAX_BYTES: u64 = 1 << 20;

/// A tree above this many manifests is no source of one host.
pub const MAX_FILES: usize = 20_000;

/// A listing that is overtaken by changes is begun again so many times.
const TRIES: usize = 5;

/// The name of files with patterns.
const IGNORE_FILE: &str = ".mainstayignore";

/// A file that counts.
#[derive(Debug)]
pub struct FoundFile {
    /// Its path: the source's path and the way below it.
    pub path: PathBuf,
    /// Its bytes.
    pub result: Result<Vec<u8>, ReadError>,
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is too long to be a manifest.
    #[error("the file has {bytes} bytes, at most {MAX_BYTES} are read")]
    TooLarge {
        /// Its length.
        bytes: u64,
    },
    /// A symlink that leads nowhere.
    #[error("the symlink leads to `{}`, which does not exist", target.display())]
    Dangling {
        /// Where it leads.
        target: PathBuf,
    },
    /// A symlink of a repository that leads to a file of the host.
    #[error("the symlink leads to `{}`, outside of the directory that is followed", target.display())]
    Outside {
        /// Where it leads.
        target: PathBuf,
    },
    /// A pipe, a socket or a device.
    #[error("it is neither a file nor a directory")]
    NotAFile,
    /// The system refuses.
    #[error("it cannot be read")]
    Io {
        /// Why.
        source: std::io::Error,
    },
}

impl ReadError {
    /// What is wrong, with its cause, in one line.
    #[must_use]
    pub fn report(&self) -> String {
        match self {
            Self::Io { source } => format!("{self}: {source}"),
            Self::TooLarge { .. } | Self::Dangling { .. } | Self::Outside { .. } | Self::NotAFile => self.to_string(),
        }
    }
}

/// Which directory a source is: another one under the same path has another identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
}

/// What a source contains.
#[derive(Debug)]
pub struct Listing {
    /// Files that count, by path.
    pub files: Vec<FoundFile>,
    /// Which directory it was.
    pub identity: Identity,
    /// Directories that were listed, for those who watch them.
    pub directories: Vec<PathBuf>,
}

/// Why a source cannot be listed. Everything that came from it stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not there.
    #[error("there is no file or directory `{}`", .0.display())]
    Missing(PathBuf),
    /// A directory cannot be listed.
    #[error("cannot list the directory `{}`", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file with patterns cannot be read: what it would leave out is not known.
    #[error("cannot read `{}`", path.display())]
    Ignore {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There are too many.
    #[error("`{}` holds more than {MAX_FILES} manifests", .0.display())]
    TooMany(PathBuf),
    /// It changes all the time.
    #[error("`{}` changed each time while it was read", .0.display())]
    Restless(PathBuf),
}

/// Lists a directory, or one file, and reads what counts.
///
/// # Errors
///
/// The source as a whole cannot be listed.
pub fn discover(root: &Path) -> Result<Listing, SourceError> {
    walk(root, false)
}

/// The same for a directory that was made elsewhere: a symlink that leads out of it is an error of that file, since
/// what it leads to was never meant to be read.
///
/// # Errors
///
/// The source as a whole cannot be listed.
pub fn discover_closed(root: &Path) -> Result<Listing, SourceError> {
    walk(root, true)
}

fn walk(root: &Path, closed: bool) -> Result<Listing, SourceError> {
    for _ in 0..TRIES {
        match Walk::new(root, closed).run() {
            Ok(listing) => return Ok(listing),
            Err(Stop::Overtaken) => {}
            Err(Stop::Failed(error)) => return Err(error),
        }
    }
    Err(SourceError::Restless(root.to_owned()))
}

/// Why a walk ended early.
enum Stop {
    /// Something moved meanwhile: what was read may be half old, half new.
    Overtaken,
    /// It cannot be done.
    Failed(SourceError),
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

struct Walk<'a> {
    root: &'a Path,
    /// What symlinks may not lead out of.
    within: Option<PathBuf>,
    files: Vec<FoundFile>,
    directories: Vec<PathBuf>,
    /// Files and directories by device and inode: each counts once.
    seen: BTreeSet<(u64, u64)>,
    /// Symlinks, looked at after everything that is really there.
    links: Vec<(PathBuf, Ignored)>,
    /// `..data` links and where they led: a swap of one is one change, never two halves.
    swaps: Vec<(PathBuf, PathBuf)>,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Path, closed: bool) -> Self {
        Self {
            root,
            // One that is not there is told by the walk.
            within: closed.then(|| root.canonicalize().unwrap_or_default()),
            files: Vec::new(),
            directories: Vec::new(),
            seen: BTreeSet::new(),
            links: Vec::new(),
            swaps: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Listing, Stop> {
        let meta = match std::fs::metadata(self.root) {
            Ok(meta) => meta,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(SourceError::Missing(self.root.to_owned()).into());
            }
            Err(source) => return Err(SourceError::Directory { path: self.root.to_owned(), source }.into()),
        };
        let identity = Identity { device: meta.dev(), inode: meta.ino() };
        if meta.is_dir() {
            self.seen.insert((meta.dev(), meta.ino()));
            self.directory(self.root, &Ignored::default())?;
            // Links may lead to directories with more links.
            while !self.links.is_empty() {
                for (path, ignored) in std::mem::take(&mut self.links) {
                    self.link(&path, &ignored)?;
                }
            }
        } else {
            // Named by hand, so its name does not matter.
            let result = read(self.root);
            self.files.push(FoundFile { path: self.root.to_owned(), result });
        }
        for (link, target) in &self.swaps {
            if std::fs::read_link(link).ok().as_ref() != Some(target) {
                return Err(Stop::Overtaken);
            }
        }
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.directories.sort();
        Ok(Listing { files: self.files, identity, directories: self.directories })
    }

    fn directory(&mut self, dir: &Path, above: &Ignored) -> Result<(), Stop> {
        let failed = |source: std::io::Error| match source.kind() {
            // It was there a moment ago.
            ErrorKind::NotFound if dir != self.root => Stop::Overtaken,
            _ => SourceError::Directory { path: dir.to_owned(), source }.into(),
        };
        let swap = dir.join("..data");
        if let Ok(target) = std::fs::read_link(&swap) {
            self.swaps.push((swap, target));
        }
        let mut entries = std::fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        let ignored = Self::patterns(dir, above)?;
        self.directories.push(dir.to_owned());
        for entry in entries {
            let (name, path) = (entry.file_name(), entry.path());
            let kind = match entry.file_type() {
                Ok(kind) => kind,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(source) => return Err(SourceError::Directory { path, source }.into()),
            };
            if is_leftover(&name) || ignored.covers(&path, kind.is_dir()) {
                continue;
            }
            if kind.is_dir() {
                let meta = match std::fs::metadata(&path) {
                    Ok(meta) => meta,
                    Err(error) if error.kind() == ErrorKind::NotFound => return Err(Stop::Overtaken),
                    Err(source) => return Err(SourceError::Directory { path, source }.into()),
                };
                if self.seen.insert((meta.dev(), meta.ino())) {
                    self.directory(&path, &ignored)?;
                }
            } else if kind.is_symlink() {
                self.links.push((path, ignored.clone()));
            } else if is_manifest(&name) {
                self.file(path)?;
            }
        }
        Ok(())
    }

    fn patterns(dir: &Path, above: &Ignored) -> Result<Ignored, Stop> {
        let path = dir.join(IGNORE_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(above.with(dir, &text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(above.clone()),
            Err(source) => Err(SourceError::Ignore { path, source }.into()),
        }
    }

    fn link(&mut self, path: &Path, ignored: &Ignored) -> Result<(), Stop> {
        let name = path.file_name().unwrap_or_default();
        let meta = match std::fs::metadata(path) {
            Ok(meta) => meta,
            // A loop of links counts as one that leads nowhere.
            Err(error) if error.kind() == ErrorKind::NotFound || is_loop(&error) => {
                if is_manifest(name) {
                    let target = std::fs::read_link(path).unwrap_or_default();
                    self.files.push(FoundFile { path: path.to_owned(), result: Err(ReadError::Dangling { target }) });
                }
                return Ok(());
            }
            Err(source) => {
                if is_manifest(name) {
                    self.files.push(FoundFile { path: path.to_owned(), result: Err(ReadError::Io { source }) });
                    return Ok(());
                }
                return Err(SourceError::Directory { path: path.to_owned(), source }.into());
            }
        };
        let outside = self.within.as_ref().is_some_and(|top| path.canonicalize().is_ok_and(|to| !to.starts_with(top)));
        if outside && (is_manifest(name) || meta.is_dir()) {
            if !ignored.covers(path, meta.is_dir()) {
                let target = std::fs::read_link(path).unwrap_or_default();
                self.files.push(FoundFile { path: path.to_owned(), result: Err(ReadError::Outside { target }) });
            }
            return Ok(());
        }
        let new = !self.seen.contains(&(meta.dev(), meta.ino()));
        if meta.is_dir() {
            if new && !ignored.covers(path, true) {
                self.seen.insert((meta.dev(), meta.ino()));
                self.directory(path, ignored)?;
            }
        } else if new && is_manifest(name) {
            self.file(path.to_owned())?;
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf) -> Result<(), Stop> {
        match std::fs::metadata(&path) {
            Ok(meta) if !self.seen.insert((meta.dev(), meta.ino())) => return Ok(()),
            Ok(_) => {}
            // Removed since the directory was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                self.files.push(FoundFile { path, result: Err(ReadError::Io { source }) });
                return Ok(());
            }
        }
        if self.files.len() >= MAX_FILES {
            return Err(SourceError::TooMany(self.root.to_owned()).into());
        }
        match read(&path) {
            Err(ReadError::Io { source }) if source.kind() == ErrorKind::NotFound => {}
            result => self.files.push(FoundFile { path, result }),
        }
        Ok(())
    }
}

fn is_loop(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32)
}

/// Reads a file without ever waiting for another process: a pipe with a manifest's name must not stop the agent.
fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let failed = |source| ReadError::Io { source };
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(ReadError::NotAFile);
    }
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(ReadError::NotAFile);
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ReadError::TooLarge { bytes: meta.len().max(bytes.len() as u64) });
    }
    Ok(bytes)
}

/// What editors, packages and patches leave behind, and hidden files.
fn is_leftover(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let endings: [&[u8]; 6] = [b"~", b".swp", b".bak", b".orig", b".tmp", b".rej"];
    name.starts_with(b".") || endings.iter().any(|ending| name.ends_with(ending))
}

/// Whether a file of this name is looked at when a directory is read.
#[must_use]
pub fn counts(name: &OsStr) -> bool {
    is_manifest(name) && !is_leftover(name)
}

/// Whether a file of this name is read.
#[must_use]
pub fn is_manifest(name: &OsStr) -> bool {
    let path = Path::new(name);
    let extension = path.extension().unwrap_or_default().as_encoded_bytes();
    if extension == b"age" {
        // Encrypted as a whole; other files of age are none of ours.
        let inner = path.file_stem().map(Path::new).and_then(Path::extension).unwrap_or_default();
        return [b"yaml".as_slice(), b"yml", b"json"].contains(&inner.as_encoded_bytes());
    }
    [b"yaml".as_slice(), b"yml", b"json", b"toml"].contains(&extension)
}

#[cfg(test)]
mod tests;
