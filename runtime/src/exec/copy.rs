//! Copies files between two file systems, such as a container's and the host's, as a tar stream from one to the other.
//!
//! Nothing of the container runs, so its image needs no `tar`. Whatever links the container has made: the path that a
//! person writes is resolved as the container itself would (`RESOLVE_IN_ROOT`), and below it no link is followed, on
//! either side. Device nodes are never opened. Set-user-id bits are dropped: a file of a container must not become a
//! way to root on the host.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};

use crate::container::{ContainerConfig, ShimClient, record};
use crate::sys;

/// Deeper trees are refused: each level costs a descriptor.
const MAX_DEPTH: usize = 256;

/// Bits of a mode that are kept.
const MODE: u32 = 0o1777;

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A step failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The step.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It makes no sense, or is not done on purpose.
    #[error("{}: {why}", path.display())]
    Refused {
        /// What.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// The container is gone.
    #[error("the container is not running")]
    NotRunning(#[source] io::Error),
    /// The other side ended, or what comes is no archive.
    #[error("cannot read the archive")]
    Archive(#[source] io::Error),
    /// The other side ended.
    #[error("cannot write the archive")]
    Output(#[source] io::Error),
}

type Result<T> = std::result::Result<T, CopyError>;

fn failed(what: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> CopyError {
    let path = path.to_owned();
    move |error| CopyError::Io { what, path, source: error.into() }
}

fn refused(path: &Path, why: &'static str) -> CopyError {
    CopyError::Refused { path: path.to_owned(), why }
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Device nodes and sockets that were left out.
    pub skipped: u64,
}

/// A root to copy from or to.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// Whom new files belong to, when that is not root: the root of a user namespace.
    owner: Option<u32>,
}

impl From<OwnedFd> for Root {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, owner: None }
    }
}

/// The root of a container's file system, by its run directory.
///
/// # Errors
/// The container does not run.
pub fn container_root(dir: &Path) -> Result<Root> {
    let state = ShimClient::connect(dir).and_then(|mut shim| shim.state()).map_err(CopyError::NotRunning)?;
    let path = PathBuf::from(format!("/proc/{}/root", state.pid));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(failed("open", &path))?;
    // Files of a user namespace are root's of that one, and its volumes take no others.
    let config = std::fs::read(ContainerConfig::file(dir)).map_err(CopyError::NotRunning)?;
    let config: ContainerConfig =
        serde_json::from_slice(&config).map_err(|error| CopyError::NotRunning(error.into()))?;
    let owner = config.namespaces.user.map(|users| users.first);
    // The number may have become another process' in between: then the start time is another one now.
    if record::start_time(state.pid) != Some(state.start_time) {
        return Err(CopyError::NotRunning(io::ErrorKind::NotFound.into()));
    }
    Ok(Root { fd, owner })
}

/// The root of the host's file system.
///
/// # Errors
/// The kernel refuses.
pub fn host_root() -> Result<Root> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty()).map(Root::from).map_err(failed("open", Path::new("/")))
}

/// Opens a path as somebody whose root this is would.
fn resolve(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    open2(root, path, OFlags::PATH, Mode::empty(), ResolveFlags::IN_ROOT)
}

fn open2(at: impl AsFd, path: &Path, flags: OFlags, mode: Mode, how: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    loop {
        match rustix::fs::openat2(&at, path, flags | OFlags::CLOEXEC, mode, how | ResolveFlags::NO_MAGICLINKS) {
            // A rename elsewhere during the look-up.
            Err(rustix::io::Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// Opens what a descriptor of a path stands for, after its type was looked at.
fn reopen(fd: &OwnedFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(
        format!("/proc/self/fd/{}", fd.as_raw_fd()),
        flags | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    )
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether a source means what is in a directory, rather than itself.
fn is_content(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b"/.") || path.as_os_str() == "." || path.file_name().is_none()
}

/// Writes a file or a tree as a tar archive. Its entries begin with the last part of `path`, or with `.` when that
/// ends in `/.`: its content then.
///
/// # Errors
/// What is not there or cannot be read; a tree that is too deep.
pub fn export(root: &Root, path: &Path, out: impl Write) -> Result<Copied> {
    let content = is_content(path);
    let name = if content { OsStr::new(".") } else { path.file_name().unwrap_or(OsStr::new(".")) };
    let fd = resolve(&root.fd, path).map_err(failed("open", path))?;
    let stat = rustix::fs::fstat(&fd).map_err(failed("look at", path))?;
    if content && kind(&stat) != FileType::Directory {
        return Err(refused(path, "it is no directory"));
    }
    if matches!(kind(&stat), FileType::CharacterDevice | FileType::BlockDevice | FileType::Socket) {
        return Err(refused(path, "device nodes and sockets are not copied"));
    }
    let mut writer = Exporter { builder: tar::Builder::new(out), copied: Copied::default() };
    writer.add(&fd, &stat, Path::new(name), 0)?;
    writer.builder.into_inner().and_then(|mut out| out.flush()).map_err(CopyError::Output)?;
    Ok(writer.copied)
}

struct Exporter<W: Write> {
    builder: tar::Builder<W>,
    copied: Copied,
}

impl<W: Write> Exporter<W> {
    fn add(&mut self, fd: &OwnedFd, stat: &Stat, path: &Path, depth: usize) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(stat.st_mode & MODE);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(0);
        match kind(stat) {
            FileType::RegularFile => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(size);
                let file = File::from(reopen(fd, OFlags::RDONLY).map_err(failed("read", path))?);
                // The head has told the size: a file that shrinks meanwhile is filled up, one that grows cut off.
                let content = file.take(size).chain(io::repeat(0)).take(size);
                self.builder.append_data(&mut header, path, content).map_err(CopyError::Output)?;
                self.copied.bytes += size;
            }
            FileType::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                self.builder.append_data(&mut header, path, io::empty()).map_err(CopyError::Output)?;
                self.children(fd, path, depth)?;
            }
            FileType::Symlink => {
                header.set_entry_type(tar::EntryType::Symlink);
                let target = rustix::fs::readlinkat(fd, "", Vec::new()).map_err(failed("read link", path))?;
                let target = Path::new(OsStr::from_bytes(target.to_bytes())).to_owned();
                self.builder.append_link(&mut header, path, target).map_err(CopyError::Output)?;
            }
            FileType::Fifo => {
                header.set_entry_type(tar::EntryType::Fifo);
                self.builder.append_data(&mut header, path, io::empty()).map_err(CopyError::Output)?;
            }
            _ => {
                self.copied.skipped += 1;
                return Ok(());
            }
        }
        self.copied.entries += 1;
        Ok(())
    }

    fn children(&mut self, fd: &OwnedFd, path: &Path, depth: usize) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(refused(path, "the tree is too deep"));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(fd, ".", flags, Mode::empty()).map_err(failed("list", path))?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&opened).map_err(failed("list", path))? {
            let name = entry.map_err(failed("list", path))?.file_name().to_owned();
            if name.as_c_str() != c"." && name.as_c_str() != c".." {
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            let inner = path.join(OsStr::from_bytes(name.to_bytes()));
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match rustix::fs::openat(&opened, &name, flags, Mode::empty()) {
                Err(rustix::io::Errno::NOENT) => continue,
                other => other.map_err(failed("open", &inner))?,
            };
            let stat = rustix::fs::fstat(&fd).map_err(failed("look at", &inner))?;
            self.add(&fd, &stat, &inner, depth + 1)?;
        }
        Ok(())
    }
}

/// Where the entries of an archive go.
#[derive(Debug)]
pub struct Destination {
    directory: OwnedFd,
    /// Whom files belong to that are written; the writer when `None`.
    owner: Option<u32>,
    /// What the first part of each path becomes; `None` keeps it.
    name: Option<Vec<u8>>,
    /// The entries are the content of a directory: the name comes before the first part.
    content: bool,
    shown: PathBuf,
}

/// Finds out what a destination means, as `cp` does: a directory that is there is copied into; anything else is the
/// new name, in a directory that has to be there.
///
/// # Errors
/// The directory is not there.
pub fn destination(root: &Root, path: &Path) -> Result<Destination> {
    let shown = path.to_owned();
    let directory =
        |path: &Path| open2(&root.fd, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), ResolveFlags::IN_ROOT);
    match directory(path) {
        Ok(directory) => return Ok(Destination { directory, owner: root.owner, name: None, content: false, shown }),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
        Err(error) => return Err(failed("open", path)(error)),
    }
    let Some(name) = path.file_name().filter(|_| !path.as_os_str().as_bytes().ends_with(b"/")) else {
        return Err(refused(path, "there is no such directory"));
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = directory(parent).map_err(failed("open", parent))?;
    let name = Some(name.as_bytes().to_vec());
    Ok(Destination { directory, owner: root.owner, name, content: false, shown })
}

/// Writes the entries of a tar archive. What is there is overwritten, but never a directory by something else.
///
/// # Errors
/// No archive, an entry that leads elsewhere, or what cannot be written.
pub fn import(into: &Destination, input: impl Read) -> Result<Copied> {
    if let Some(owner) = into.owner {
        // This thread alone, and for as long as it lives.
        sys::act_as(owner).map_err(|source| CopyError::Io {
            what: "write as the container's root to",
            path: into.shown.clone(),
            source,
        })?;
    }
    let mut copied = Copied::default();
    let mut archive = tar::Archive::new(input);
    for entry in archive.entries().map_err(CopyError::Archive)? {
        let mut entry = entry.map_err(CopyError::Archive)?;
        let path = into.place(&entry.path_bytes())?;
        let Some(path) = path else { continue };
        match into.write(&path, &mut entry)? {
            Some(bytes) => {
                copied.entries += 1;
                copied.bytes += bytes;
            }
            None => copied.skipped += 1,
        }
    }
    Ok(copied)
}

impl Destination {
    /// The path below the directory; `None` for the directory itself.
    fn place(&self, raw: &[u8]) -> Result<Option<PathBuf>> {
        let mut parts: Vec<&[u8]> =
            raw.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
        match (&self.name, parts.first_mut()) {
            (Some(name), _) if self.content => parts.insert(0, name),
            (Some(name), Some(first)) => *first = name,
            _ => {}
        }
        if parts.iter().any(|part| *part == b"..") {
            return Err(refused(Path::new(OsStr::from_bytes(raw)), "the name leads out of the destination"));
        }
        let path: PathBuf = parts.into_iter().map(OsStr::from_bytes).collect();
        Ok((!path.as_os_str().is_empty()).then_some(path))
    }

    fn shown(&self, path: &Path) -> PathBuf {
        if self.name.is_some() { self.shown.clone() } else { self.shown.join(path) }
    }

    /// The directory that something goes to, made when it is missing. No link is followed.
    fn parent(&self, path: &Path) -> Result<OwnedFd> {
        const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);
        let open = |path: &Path| open2(&self.directory, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), BENEATH);
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match open(parent) {
            Err(rustix::io::Errno::NOENT) if parent != Path::new(".") => {
                let above = self.parent(parent)?;
                let name = parent.file_name().unwrap_or_default();
                rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755))
                    .map_err(failed("make directory", &self.shown(parent)))?;
                open(parent)
            }
            other => other,
        }
        .map_err(failed("open", &self.shown(parent)))
    }

    /// Writes one entry; `None` when its kind is left out.
    fn write(&self, path: &Path, entry: &mut tar::Entry<'_, impl Read>) -> Result<Option<u64>> {
        let shown = self.shown(path);
        let parent = self.parent(path)?;
        let name = path.file_name().unwrap_or_default();
        let mode = Mode::from_raw_mode(entry.header().mode().unwrap_or(0o644) & MODE);
        let mtime = entry.header().mtime().unwrap_or(0);
        let known = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| kind(&stat));
        let entry_type = entry.header().entry_type();
        match entry_type {
            tar::EntryType::Directory => {
                match known {
                    Some(FileType::Directory) => return Ok(Some(0)),
                    Some(_) => return Err(refused(&shown, "a directory cannot replace what is no directory")),
                    None => {}
                }
                rustix::fs::mkdirat(&parent, name, Mode::RWXU).map_err(failed("make directory", &shown))?;
                rustix::fs::chmodat(&parent, name, mode, AtFlags::empty())
                    .map_err(failed("set the mode of", &shown))?;
                return Ok(Some(0));
            }
            _ if known == Some(FileType::Directory) => {
                return Err(refused(&shown, "a directory is in the way"));
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                let mut file = create(&parent, name, known).map_err(failed("write", &shown))?;
                let bytes = io::copy(entry, &mut file);
                let bytes = bytes.map_err(|source| CopyError::Io { what: "write", path: shown.clone(), source })?;
                rustix::fs::fchmod(&file, mode).map_err(failed("set the mode of", &shown))?;
                let time = Timespec { tv_sec: i64::try_from(mtime).unwrap_or(0), tv_nsec: 0 };
                // Only a courtesy: some file systems keep no times.
                let _ = rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time });
                return Ok(Some(bytes));
            }
            _ => {}
        }
        let remove = || match known {
            Some(_) => rustix::fs::unlinkat(&parent, name, AtFlags::empty()).map_err(failed("replace", &shown)),
            None => Ok(()),
        };
        match entry_type {
            tar::EntryType::Symlink => {
                let target = entry.link_name_bytes().map(|bytes| bytes.into_owned()).unwrap_or_default();
                remove()?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, name)
                    .map_err(failed("make link", &shown))?;
            }
            tar::EntryType::Link => {
                let target = entry.link_name_bytes().map(|bytes| bytes.into_owned()).unwrap_or_default();
                let Some(target) = self.place(&target)? else { return Ok(None) };
                let from = self.parent(&target)?;
                remove()?;
                rustix::fs::linkat(&from, target.file_name().unwrap_or_default(), &parent, name, AtFlags::empty())
                    .map_err(failed("make link", &shown))?;
            }
            tar::EntryType::Fifo => {
                remove()?;
                rustix::fs::mknodat(&parent, name, FileType::Fifo, mode, 0).map_err(failed("make pipe", &shown))?;
            }
            _ => return Ok(None),
        }
        Ok(Some(0))
    }
}

/// A file to write: the one that is there keeps its identity (it may be a mount), anything else is replaced.
fn create(parent: &OwnedFd, name: &OsStr, known: Option<FileType>) -> rustix::io::Result<File> {
    if known == Some(FileType::RegularFile) {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        if kind(&rustix::fs::fstat(&fd)?) == FileType::RegularFile {
            return reopen(&fd, OFlags::WRONLY | OFlags::TRUNC).map(File::from);
        }
    }
    if known.is_some() {
        rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)).map(File::from)
}

/// Copies from one root to another, without a file in between.
///
/// # Errors
/// That of the side that failed first.
pub fn copy(from: (&Root, &Path), to: (&Root, &Path)) -> Result<Copied> {
    let into = Destination { content: is_content(from.1), ..destination(to.0, to.1)? };
    let (reader, writer) = io::pipe().map_err(CopyError::Archive)?;
    std::thread::scope(|scope| {
        // A thread of its own also since the writer may become another user.
        let exporter = scope.spawn(move || export(from.0, from.1, io::BufWriter::with_capacity(64 << 10, writer)));
        let imported = import(&into, io::BufReader::with_capacity(64 << 10, reader));
        let exported = exporter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (exported, imported) {
            // The reader went away: its reason is the one that tells something.
            (Err(CopyError::Output(_)), Err(error)) | (Ok(_), Err(error)) => Err(error),
            (Err(error), _) => Err(error),
            (Ok(read), Ok(written)) => Ok(Copied { skipped: read.skipped + written.skipped, ..written }),
        }
    })
}

/// The host's working directory in front of a relative path.
///
/// # Errors
/// It has none.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let here = std::env::current_dir().map_err(|source| CopyError::Io {
        what: "find the working directory for",
        path: path.to_owned(),
        source,
    })?;
    Ok(here.join(path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn root(path: &Path) -> Root {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("a directory").into()
    }

    /// Two roots in a directory with something outside of both.
    fn world() -> (tempfile::TempDir, Root, Root) {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["a", "b", "outside"] {
            fs::create_dir(dir.path().join(name)).expect("made");
        }
        let (a, b) = (root(&dir.path().join("a")), root(&dir.path().join("b")));
        (dir, a, b)
    }

    fn tree(dir: &Path) {
        fs::create_dir_all(dir.join("d/sub")).expect("made");
        fs::write(dir.join("d/file"), "content").expect("written");
        fs::write(dir.join("d/sub/program"), "x").expect("written");
        fs::set_permissions(dir.join("d/sub/program"), fs::Permissions::from_mode(0o4755)).expect("set");
        symlink("file", dir.join("d/link")).expect("made");
        symlink("/etc/passwd", dir.join("d/away")).expect("made");
    }

    #[test]
    fn destinations_mean_what_they_mean_to_cp() {
        let (dir, a, b) = world();
        tree(&dir.path().join("a"));
        let here = dir.path().join("b");
        fs::create_dir(here.join("there")).expect("made");
        for (from, to, found) in [
            ("d", "/", "d/sub/program"),
            ("d", "/new", "new/sub/program"),
            ("d", "/there", "there/d/file"),
            ("d/.", "/there", "there/file"),
            ("d/.", "/plain", "plain/sub/program"),
            ("d/file", "/there", "there/file"),
            ("d/file", "/renamed", "renamed"),
            // A link that was named is followed, as the container would.
            ("d/link", "/from-link", "from-link"),
        ] {
            copy((&a, Path::new(from)), (&b, Path::new(to))).unwrap_or_else(|error| panic!("{from} {to}: {error}"));
            assert!(here.join(found).is_file(), "{from} to {to}");
        }
        assert_eq!(fs::read_to_string(here.join("renamed")).expect("written"), "content");
        assert_eq!(fs::read_link(here.join("d/away")).expect("a link"), Path::new("/etc/passwd"));
        let mode = fs::metadata(here.join("d/sub/program")).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "no set-user-id");
        for (from, to) in
            [("d", "/none/new"), ("d/file", "/none/"), ("none", "/"), ("d", "/renamed"), ("d/file/.", "/")]
        {
            assert!(copy((&a, Path::new(from)), (&b, Path::new(to))).is_err(), "{from} to {to}");
        }
    }

    #[test]
    fn no_link_leads_out_on_either_side() {
        let (dir, a, b) = world();
        let outside = dir.path().join("outside");
        fs::write(outside.join("secret"), "secret").expect("written");
        // Out of the source: by an absolute link, by dots, and by a link of many steps.
        symlink(&outside, dir.path().join("a/absolute")).expect("made");
        symlink("../outside", dir.path().join("a/relative")).expect("made");
        for from in ["absolute/secret", "relative/secret", "../outside/secret", "/../../outside/secret"] {
            assert!(copy((&a, Path::new(from)), (&b, Path::new("/x"))).is_err(), "{from}");
        }
        // Out of the destination: a link where the tree has a directory.
        fs::create_dir(dir.path().join("a/d")).expect("made");
        fs::write(dir.path().join("a/d/evil"), "evil").expect("written");
        symlink(&outside, dir.path().join("b/d")).expect("made");
        assert!(copy((&a, Path::new("d")), (&b, Path::new("/"))).is_err());
        // An archive that makes the link itself, and one that climbs.
        let archive = |names: &[(&str, Option<&str>)]| {
            let mut builder = tar::Builder::new(Vec::new());
            for (name, link) in names {
                let mut header = tar::Header::new_gnu();
                header.set_mode(0o777);
                header.set_size(0);
                header.set_entry_type(if link.is_some() { tar::EntryType::Symlink } else { tar::EntryType::Regular });
                // The library refuses such names; their bytes are put in by hand.
                let gnu = header.as_gnu_mut().expect("made as one");
                gnu.name.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
                gnu.linkname.iter_mut().zip(link.unwrap_or("").bytes()).for_each(|(place, byte)| *place = byte);
                header.set_cksum();
                builder.append(&header, io::empty()).expect("written to memory");
            }
            builder.into_inner().expect("written to memory")
        };
        let target = outside.display().to_string();
        for names in [
            &[("l", Some(target.as_str())), ("l/evil", None)][..],
            &[("../outside/evil", None)],
            &[("x/../../outside/evil", None)],
        ] {
            let into = destination(&b, Path::new("/")).expect("there");
            assert!(import(&into, &*archive(names)).is_err(), "{names:?}");
        }
        // An absolute name is one below the destination.
        let into = destination(&b, Path::new("/")).expect("there");
        import(&into, &*archive(&[("/evil", None)])).expect("written");
        assert!(dir.path().join("b/evil").exists());
        let left: Vec<_> = fs::read_dir(&outside).expect("listed").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["secret"]);
    }
}
