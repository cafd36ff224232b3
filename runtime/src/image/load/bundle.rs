//! Files of an image that is not in a registry: in a directory, or in a tar archive that is read where it is.
//!
//! Never extracts an archive, and never reads outside of a directory whatever links are in it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

use crate::image::store::StoreError;
use crate::image::unpack::{Archive, Compression, Inflater, Input, Kind, Limits, UnpackError};

/// Files in one archive; an image has a few hundred.
const MAX_MEMBERS: usize = 100_000;
/// Bytes of their names together; they are kept in memory.
const MAX_NAMES: usize = 16 << 20;

/// Where an image's files are.
pub(crate) struct Bundle {
    path: PathBuf,
    files: Files,
}

enum Files {
    Directory(OwnedFd),
    Archive { file: File, members: BTreeMap<Vec<u8>, Member> },
}

enum Member {
    Data {
        offset: u64,
        size: u64,
    },
    /// A link: `docker save` once stored equal layers as links to each other.
    Link(Vec<u8>),
}

/// A part of a file as a stream.
#[derive(Debug)]
pub(crate) struct Section {
    file: File,
    at: u64,
    end: u64,
}

impl Section {
    pub(crate) fn size(&self) -> u64 {
        self.end - self.at
    }
}

impl Read for Section {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.size()).unwrap_or(usize::MAX).min(target.len());
        let count = self.file.read_at(&mut target[..most], self.at)?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Bundle {
    /// Opens a directory or an archive. A compressed archive is inflated once into a nameless file in `scratch`.
    pub(crate) fn open(path: &Path, scratch: &Path, limits: &Limits) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = open(path, flags, Mode::empty()).map_err(StoreError::errno("open", path))?;
        let file = File::from(fd);
        let meta = file.metadata().map_err(StoreError::file("look at", path))?;
        if meta.is_dir() {
            return Ok(Self { path: path.to_owned(), files: Files::Directory(file.into()) });
        }
        let file = plain(file, meta.is_file(), path, scratch, limits)?;
        let failed = |source| StoreError::Archive { path: path.to_owned(), source };
        let members = index(&file, limits).map_err(failed)?;
        Ok(Self { path: path.to_owned(), files: Files::Archive { file, members } })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file by its path in the bundle; `None` when there is none.
    pub(crate) fn file(&self, name: &str) -> Result<Option<Section>, StoreError> {
        let Some(key) = clean(name.as_bytes()) else {
            return Err(self.fault(format!("the name {name:?} leads outside of it")));
        };
        match &self.files {
            Files::Directory(directory) => self.file_in_directory(directory, &key),
            Files::Archive { file, members } => self.file_in_archive(file, members, key),
        }
    }

    fn file_in_directory(&self, directory: &OwnedFd, key: &[u8]) -> Result<Option<Section>, StoreError> {
        let path = self.path.join(OsStr::from_bytes(key));
        // NONBLOCK: a fifo in the place of a blob must not hang the load.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let fd = match openat2(directory.as_fd(), OsStr::from_bytes(key), flags, Mode::empty(), resolve) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(StoreError::errno("open", &path)(error)),
        };
        let file = File::from(fd);
        let meta = file.metadata().map_err(StoreError::file("look at", &path))?;
        if !meta.is_file() {
            return Err(self.fault(format!("`{}` is no regular file", path.display())));
        }
        Ok(Some(Section { file, at: 0, end: meta.len() }))
    }

    fn file_in_archive(
        &self,
        file: &File,
        members: &BTreeMap<Vec<u8>, Member>,
        mut key: Vec<u8>,
    ) -> Result<Option<Section>, StoreError> {
        for _ in 0..8 {
            match members.get(&key) {
                None => return Ok(None),
                Some(Member::Link(target)) => key.clone_from(target),
                Some(Member::Data { offset, size }) => {
                    let file = file.try_clone().map_err(StoreError::file("open", &self.path))?;
                    return Ok(Some(Section { file, at: *offset, end: offset + size }));
                }
            }
        }
        Err(self.fault("a chain of links in it is too long".to_owned()))
    }

    /// The whole of a small file.
    pub(crate) fn small(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut section) = self.file(name)? else { return Ok(None) };
        if section.size() > most {
            return Err(self.fault(format!("`{name}` is larger than {most} bytes")));
        }
        let mut bytes = Vec::new();
        section.read_to_end(&mut bytes).map_err(StoreError::file("read", &self.path))?;
        Ok(Some(bytes))
    }

    pub(crate) fn fault(&self, reason: String) -> StoreError {
        StoreError::Load { path: self.path.clone(), reason }
    }
}

/// A path without dots and slashes that mean nothing; `None` when it leads outside.
fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|b| *b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()?),
            _ if name.contains(&0) => return None,
            _ => names.push(name),
        }
    }
    Some(names.join(&b'/'))
}

/// The archive as a file that can be read at any place.
fn plain(mut file: File, seekable: bool, path: &Path, scratch: &Path, limits: &Limits) -> Result<File, StoreError> {
    let mut start = [0u8; 4];
    if seekable {
        let count = file.read_at(&mut start, 0).map_err(StoreError::file("read", path))?;
        if Compression::detect(&start[..count]) == Compression::None {
            return Ok(file);
        }
    }
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let out = open(scratch, flags, Mode::from_raw_mode(0o600))
        .map_err(StoreError::errno("create a temporary file in", scratch))?;
    let mut out = File::from(out);
    let failed = |source| StoreError::Archive { path: path.to_owned(), source };
    let mut inflater = Inflater::new(&mut file, limits).map_err(failed)?;
    let mut chunk = Vec::new();
    let mut until_check = 0;
    loop {
        inflater.fill(&mut chunk).map_err(failed)?;
        if chunk.is_empty() {
            break;
        }
        if until_check == 0 {
            limits.check_space(&out).map_err(failed)?;
            until_check = 128;
        }
        until_check -= 1;
        out.write_all(&chunk).map_err(StoreError::file("write a temporary file in", scratch))?;
    }
    out.rewind().map_err(StoreError::file("read a temporary file in", scratch))?;
    Ok(out)
}

fn index(file: &File, limits: &Limits) -> Result<BTreeMap<Vec<u8>, Member>, UnpackError> {
    let length = file.metadata().map_err(UnpackError::Stream)?.len();
    let file = file.try_clone().map_err(UnpackError::Stream)?;
    let input = Seeking { reader: BufReader::with_capacity(4096, At { file, at: 0 }), passed: 0, length };
    let mut archive = Archive::new(input, limits.bounds());
    let mut members = BTreeMap::new();
    let mut names = 0;
    while let Some(entry) = archive.next_entry()? {
        let Some(key) = clean(&entry.path) else {
            return Err(UnpackError::refused(&entry.path, "it leads outside of the archive"));
        };
        let member = match entry.kind {
            Kind::File if entry.sparse.is_some() => {
                return Err(UnpackError::refused(&entry.path, "an image's file cannot be sparse"));
            }
            Kind::File => {
                if entry.offset.checked_add(entry.size).is_none_or(|end| end > length) {
                    return Err(UnpackError::Truncated("a file"));
                }
                Member::Data { offset: entry.offset, size: entry.size }
            }
            Kind::Hardlink | Kind::Symlink => {
                let directory = key.rsplitn(2, |b| *b == b'/').nth(1).unwrap_or_default();
                let target = match entry.kind {
                    Kind::Symlink => clean(&[directory, b"/", &entry.link].concat()),
                    _ => clean(&entry.link),
                };
                let Some(target) = target else {
                    return Err(UnpackError::refused(&entry.path, "its link leads outside of the archive"));
                };
                Member::Link(target)
            }
            Kind::Directory => continue,
            Kind::Fifo | Kind::Char | Kind::Block => {
                return Err(UnpackError::refused(&entry.path, "an image's file cannot be a device"));
            }
        };
        if members.len() >= MAX_MEMBERS {
            return Err(UnpackError::Limit { what: "the number of files", limit: MAX_MEMBERS as u64 });
        }
        names += key.len();
        if let Member::Link(target) = &member {
            names += target.len();
        }
        if names > MAX_NAMES {
            return Err(UnpackError::Limit { what: "the length of all names", limit: MAX_NAMES as u64 });
        }
        members.insert(key, member);
    }
    Ok(members)
}

/// Reads a file from its own place, whatever others do with the descriptor's.
struct At {
    file: File,
    at: u64,
}

impl Read for At {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(target, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Passes over data without reading it.
struct Seeking {
    reader: BufReader<At>,
    passed: u64,
    length: u64,
}

impl Read for Seeking {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(target)?;
        self.passed += count as u64;
        Ok(count)
    }
}

impl BufRead for Seeking {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.passed += count as u64;
        self.reader.consume(count);
    }
}

impl Input for Seeking {
    fn pass(&mut self, count: u64) -> io::Result<u64> {
        let count = count.min(self.length.saturating_sub(self.passed));
        let buffered = self.reader.buffer().len() as u64;
        if count <= buffered {
            self.reader.consume(usize::try_from(count).unwrap_or(0));
        } else {
            let buffered_bytes = self.reader.buffer().len();
            self.reader.consume(buffered_bytes);
            self.reader.get_mut().at += count - buffered;
        }
        self.passed += count;
        Ok(count)
    }
}
