//! A tar archive as a sequence of entries: headers with their PAX, GNU long-name and sparse extensions applied.
//!
//! Own parser, for three reasons: bounded memory whatever an extension header claims, an answer for everything
//! readers disagree about, and PAX sparse files. Never touches a file system.

use std::io::{self, BufRead};

use super::error::{UnpackError, escape};
use super::header::{BLOCK, Dialect, Header, sparse_pairs, until_nul};

/// Where an archive's bytes come from.
pub(crate) trait Input: BufRead {
    /// Passes over `count` bytes; answers how many there were.
    fn pass(&mut self, count: u64) -> io::Result<u64> {
        let mut left = count;
        while left > 0 {
            let available = self.fill_buf()?.len();
            if available == 0 {
                break;
            }
            let step = available.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.consume(step);
            left -= step as u64;
        }
        Ok(count - left)
    }
}

/// Offset and length of each stored part of a file with holes.
pub(crate) type SparseMap = Vec<(u64, u64)>;

/// Keys and values of an extended header.
type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Hardlink,
    Fifo,
    Char,
    Block,
}

/// One entry of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Path as written.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Target of a link.
    pub(crate) link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub(crate) mtime: (i64, u32),
    /// Size of the file: of a sparse one with its holes.
    pub(crate) size: u64,
    /// Where stored bytes belong, when the file has holes.
    pub(crate) sparse: Option<SparseMap>,
    pub(crate) device: (u32, u32),
    /// `SCHILY.xattr.*` records, names without that prefix.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where its stored bytes start in the archive.
    pub(crate) offset: u64,
}

/// Bounds of what is kept in memory while reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of one extended header, long name or sparse map.
    pub(crate) extension: u64,
}

/// Reads entries one after the other.
pub(crate) struct Archive<R> {
    input: R,
    bounds: Bounds,
    /// Bytes read of the archive.
    position: u64,
    /// Stored bytes of the current entry that were not read yet, and the padding behind them.
    left: u64,
    padding: u64,
    ended: bool,
}

/// Extensions that belong to the next entry.
#[derive(Default)]
struct Extensions {
    records: Records,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    any: bool,
}

impl Extensions {
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        // The last one counts; an empty value takes the header's own back (POSIX pax, "extended header").
        let (_, value) = self.records.iter().rev().find(|(k, _)| k == key)?;
        (!value.is_empty()).then_some(value)
    }
}

impl<R: Input> Archive<R> {
    pub(crate) fn new(input: R, bounds: Bounds) -> Self {
        Self { input, bounds, position: 0, left: 0, padding: 0, ended: false }
    }

    /// The next entry; what was not read of the one before is passed over.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, UnpackError> {
        if self.ended {
            return Ok(None);
        }
        let mut extensions = Extensions::default();
        loop {
            self.finish_entry()?;
            let offset = self.position;
            let Some(header) = self.header()? else {
                self.ended = true;
                if extensions.any {
                    return Err(UnpackError::Truncated("an extended header"));
                }
                return Ok(None);
            };
            let bad = |reason| UnpackError::Header { offset, reason };
            if !header.checksum_fits() {
                return Err(bad(if offset == 0 { "it is no tar archive" } else { "the checksum is wrong" }));
            }
            match header.kind() {
                b'x' | b'X' => {
                    let bytes = self.extension(&header, offset)?;
                    extensions.records = pax_records(&bytes).map_err(bad)?;
                }
                b'g' => {
                    let bytes = self.extension(&header, offset)?;
                    refuse_ambiguous_globals(&pax_records(&bytes).map_err(bad)?).map_err(bad)?;
                    continue;
                }
                b'L' => extensions.long_path = Some(until_nul(&self.extension(&header, offset)?).to_vec()),
                b'K' => extensions.long_link = Some(until_nul(&self.extension(&header, offset)?).to_vec()),
                // A GNU volume label says nothing about a file.
                b'V' => {
                    self.start_data(header.size().map_err(bad)?);
                    continue;
                }
                _ => return self.entry(&header, offset, &extensions).map(Some),
            }
            extensions.any = true;
        }
    }

    /// The next stored bytes of the current entry; empty at its end.
    pub(crate) fn data(&mut self) -> Result<&[u8], UnpackError> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let bytes = self.input.fill_buf().map_err(UnpackError::Stream)?;
        if bytes.is_empty() {
            return Err(UnpackError::Truncated("a file"));
        }
        Ok(&bytes[..bytes.len().min(left)])
    }

    /// Marks bytes that [`Self::data`] gave as used.
    pub(crate) fn used(&mut self, count: usize) {
        let count = count.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.input.consume(count);
        self.left -= count as u64;
        self.position += count as u64;
    }

    /// Reads on to the end of the input, past the end of the archive.
    pub(crate) fn drain(&mut self) -> Result<(), UnpackError> {
        self.ended = true;
        self.input.pass(u64::MAX).map_err(UnpackError::Stream)?;
        Ok(())
    }

    fn start_data(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of_or_max() - size;
    }

    fn finish_entry(&mut self) -> Result<(), UnpackError> {
        let passed = self.input.pass(self.left).map_err(UnpackError::Stream)?;
        self.position += passed;
        if passed < self.left {
            return Err(UnpackError::Truncated("a file"));
        }
        // GNU tar and Go's archive/tar both take an archive that ends without the last padding.
        self.position += self.input.pass(self.padding).map_err(UnpackError::Stream)?;
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// One header block; `None` at the end of the archive, with or without its two zero blocks.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let Some(header) = self.block()? else { return Ok(None) };
        if !header.is_zero() {
            return Ok(Some(header));
        }
        let offset = self.position;
        if let Some(next) = self.block()?
            && !next.is_zero()
            && next.checksum_fits()
        {
            // GNU tar stops here, others read on: what an image holds must not depend on its reader.
            return Err(UnpackError::Header { offset, reason: "an entry follows the end mark" });
        }
        Ok(None)
    }

    fn block(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut block = [0; BLOCK];
        let read = self.fill(&mut block)?;
        match read {
            0 => Ok(None),
            BLOCK => Ok(Some(Header(block))),
            _ if block.iter().all(|b| *b == 0) => Ok(None),
            _ => Err(UnpackError::Truncated("a header")),
        }
    }

    fn fill(&mut self, target: &mut [u8]) -> Result<usize, UnpackError> {
        let mut filled = 0;
        while filled < target.len() {
            let bytes = self.input.fill_buf().map_err(UnpackError::Stream)?;
            if bytes.is_empty() {
                break;
            }
            let step = bytes.len().min(target.len() - filled);
            target[filled..filled + step].copy_from_slice(&bytes[..step]);
            self.input.consume(step);
            filled += step;
        }
        self.position += filled as u64;
        Ok(filled)
    }

    /// The bytes of an extended header or long name.
    fn extension(&mut self, header: &Header, offset: u64) -> Result<Vec<u8>, UnpackError> {
        let size = header.size().map_err(|reason| UnpackError::Header { offset, reason })?;
        if size > self.bounds.extension {
            return Err(UnpackError::Limit { what: "the size of an extended header", limit: self.bounds.extension });
        }
        self.start_data(size);
        let mut bytes = Vec::new();
        loop {
            let part = self.data()?;
            if part.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(part);
            let count = part.len();
            self.used(count);
        }
    }

    fn entry(&mut self, header: &Header, offset: u64, extensions: &Extensions) -> Result<Entry, UnpackError> {
        let bad = |reason| UnpackError::Header { offset, reason };
        let decimal = |key: &[u8], reason| match extensions.get(key) {
            Some(text) => parse_decimal(text).map(Some).ok_or(bad(reason)),
            None => Ok(None),
        };
        let path = match (extensions.get(b"GNU.sparse.name"), extensions.get(b"path"), &extensions.long_path) {
            (Some(path), ..) | (None, Some(path), _) => path.to_vec(),
            (None, None, Some(path)) => path.clone(),
            (None, None, None) => header.path(),
        };
        let link = match (extensions.get(b"linkpath"), &extensions.long_link) {
            (Some(link), _) => link.to_vec(),
            (None, Some(link)) => link.clone(),
            (None, None) => header.link(),
        };
        if path.contains(&0) || link.contains(&0) {
            return Err(bad("a name holds a NUL byte"));
        }
        let kind = kind_of(header.kind(), &path).ok_or_else(|| UnpackError::Refused {
            path: escape(&path),
            reason: "its type is none that a layer can hold",
        })?;
        // u32::MAX means "leave the owner as it is" to chown.
        let id = |value: u64| u32::try_from(value).ok().filter(|id| *id != u32::MAX).ok_or(bad("its owner is no id"));
        let uid = id(decimal(b"uid", "its user id is no number")?.map_or_else(|| header.uid().map_err(bad), Ok)?)?;
        let gid = id(decimal(b"gid", "its group id is no number")?.map_or_else(|| header.gid().map_err(bad), Ok)?)?;
        let mtime = match extensions.get(b"mtime") {
            Some(text) => pax_time(text).ok_or(bad("its time is no number"))?,
            None => (header.mtime().map_err(bad)?, 0),
        };
        let stored = decimal(b"size", "its size is no number")?.map_or_else(|| header.size().map_err(bad), Ok)?;
        if i64::try_from(stored).is_err() {
            return Err(bad("its size is beyond what a file can have"));
        }
        let device = match kind {
            Kind::Char | Kind::Block => {
                let (major, minor) = header.device().map_err(bad)?;
                let number = |n: u64, max: u64| {
                    u32::try_from(n).ok().filter(|_| n <= max).ok_or(bad("its device number is too large"))
                };
                // Twelve and twenty bits in Linux.
                (number(major, 0xfff)?, number(minor, 0xf_ffff)?)
            }
            _ => (0, 0),
        };
        // Links, devices and directories have no data, whatever their size field says (Go's archive/tar).
        let has_data = matches!(header.kind(), b'0' | b'\0' | b'7' | b'S' | b'D');
        self.start_data(if has_data { stored } else { 0 });
        let (size, sparse) = match kind {
            Kind::File => match self.sparse(header, extensions, offset)? {
                Some((size, map)) => (size, Some(map)),
                None => (stored, None),
            },
            _ => (0, None),
        };
        let xattrs = extensions
            .records
            .iter()
            .filter_map(|(key, value)| key.strip_prefix(b"SCHILY.xattr.").map(|name| (name.to_vec(), value.clone())));
        let mode = u32::try_from(header.mode().map_err(bad)? & 0o7777).expect("twelve bits");
        let xattrs = xattrs.collect();
        Ok(Entry { path, kind, link, mode, uid, gid, mtime, size, sparse, device, xattrs, offset: self.position })
    }

    /// Full size and map of a sparse file of any of the four GNU formats.
    fn sparse(
        &mut self,
        header: &Header,
        extensions: &Extensions,
        offset: u64,
    ) -> Result<Option<(u64, SparseMap)>, UnpackError> {
        let bad = |reason| UnpackError::Header { offset, reason };
        let most = usize::try_from(self.bounds.extension / 16).unwrap_or(usize::MAX);
        let number = |key: &[u8]| extensions.get(key).and_then(parse_decimal);
        let (size, map) = if header.kind() == b'S' {
            if header.dialect() != Dialect::Gnu {
                return Err(bad("a sparse file in an archive that is not GNU's"));
            }
            let (mut map, mut more, size) = header.gnu_sparse().map_err(bad)?;
            let stored = self.left;
            self.start_data(0);
            while more {
                let Some(block) = self.block()? else { return Err(UnpackError::Truncated("a sparse map")) };
                map.extend(sparse_pairs(&block.0[..504]).map_err(bad)?);
                more = block.0[504] != 0;
                if map.len() > most {
                    return Err(UnpackError::Limit { what: "the parts of a sparse file", limit: most as u64 });
                }
            }
            self.start_data(stored);
            (size, map)
        } else if let Some(major) = extensions.get(b"GNU.sparse.major") {
            if major != b"1" || extensions.get(b"GNU.sparse.minor").is_some_and(|minor| minor != b"0") {
                return Err(bad("its sparse format is newer than 1.0"));
            }
            let size = number(b"GNU.sparse.realsize").ok_or(bad("a sparse file without its size"))?;
            (size, self.sparse_map(offset, most)?)
        } else if let Some(size) = number(b"GNU.sparse.size") {
            let numbers: Option<Vec<u64>> = match extensions.get(b"GNU.sparse.map") {
                Some(list) => list.split(|b| *b == b',').map(parse_decimal).collect(),
                None => {
                    let keys: [&[u8]; 2] = [b"GNU.sparse.offset", b"GNU.sparse.numbytes"];
                    let records = extensions.records.iter().filter(|(key, _)| keys.contains(&key.as_slice()));
                    records.map(|(_, value)| parse_decimal(value)).collect()
                }
            };
            let numbers = numbers.ok_or(bad("its sparse map holds something else than numbers"))?;
            let pairs = numbers.chunks(2).map(|pair| match pair {
                [at, length] => Ok((*at, *length)),
                _ => Err(bad("its sparse map has an odd number of numbers")),
            });
            (size, pairs.collect::<Result<_, _>>()?)
        } else if extensions.records.iter().any(|(key, _)| key.starts_with(b"GNU.sparse.")) {
            return Err(bad("a sparse file of an unknown format"));
        } else {
            return Ok(None);
        };
        // Parts in order, apart, inside the file, and as many bytes as are stored.
        let mut end = 0u64;
        let mut total = 0u64;
        for (at, length) in &map {
            let next = at.checked_add(*length).filter(|next| *at >= end && *next <= size);
            end = next.ok_or(bad("its sparse map is out of order"))?;
            total += length;
        }
        if total != self.left || i64::try_from(size).is_err() {
            return Err(bad("its sparse map does not fit its data"));
        }
        Ok(Some((size, map)))
    }

    /// The map before the data of a PAX 1.0 sparse file: decimal lines, padded to a block.
    fn sparse_map(&mut self, offset: u64, most: usize) -> Result<Vec<(u64, u64)>, UnpackError> {
        let bad = |reason| UnpackError::Header { offset, reason };
        let start = self.left;
        let mut numbers: Vec<u64> = Vec::new();
        let mut digits = Vec::new();
        loop {
            let wanted = numbers.first().map_or(1, |count| count.saturating_mul(2).saturating_add(1));
            if numbers.len() as u64 >= wanted {
                break;
            }
            let Some(byte) = self.data()?.first().copied() else {
                return Err(bad("its sparse map is cut off"));
            };
            self.used(1);
            match byte {
                b'\n' => {
                    numbers
                        .push(parse_decimal(&digits).ok_or(bad("its sparse map holds something else than numbers"))?);
                    digits.clear();
                }
                _ if digits.len() < 20 => digits.push(byte),
                _ => return Err(bad("its sparse map holds something else than numbers")),
            }
            if numbers.first().is_some_and(|count| *count > most as u64) {
                return Err(UnpackError::Limit { what: "the parts of a sparse file", limit: most as u64 });
            }
        }
        let read = start - self.left;
        let mut rest = (read.next_multiple_of(BLOCK as u64) - read).min(self.left);
        while rest > 0 {
            let count = self.data()?.len().min(usize::try_from(rest).unwrap_or(BLOCK));
            self.used(count);
            rest -= count as u64;
        }
        Ok(numbers.get(1..).unwrap_or_default().chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }
}

trait BlockMultiple {
    fn next_multiple_of_or_max(self) -> u64;
}

impl BlockMultiple for u64 {
    fn next_multiple_of_or_max(self) -> u64 {
        self.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX)
    }
}

fn kind_of(flag: u8, path: &[u8]) -> Option<Kind> {
    match flag {
        // A name with a slash at its end is a directory to GNU tar, and to v7 there was no other way to say it.
        b'0' | b'\0' | b'7' if path.last() == Some(&b'/') => Some(Kind::Directory),
        b'0' | b'\0' | b'7' | b'S' => Some(Kind::File),
        b'1' => Some(Kind::Hardlink),
        b'2' => Some(Kind::Symlink),
        b'3' => Some(Kind::Char),
        b'4' => Some(Kind::Block),
        b'5' | b'D' => Some(Kind::Directory),
        b'6' => Some(Kind::Fifo),
        _ => None,
    }
}

fn parse_decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `[-]seconds[.fraction]`.
fn pax_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = i64::try_from(parse_decimal(whole.as_bytes())?).ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    match (negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanos)),
    }
}

/// `length key=value\n`, the length counting itself (POSIX pax, "pax Extended Header").
fn pax_records(mut bytes: &[u8]) -> Result<Records, &'static str> {
    let mut records = Vec::new();
    // Some writers fill the rest of the block into the size.
    while !bytes.iter().all(|b| *b == 0) {
        let space = bytes.iter().take(20).position(|b| *b == b' ').ok_or("an extended header without lengths")?;
        let length = parse_decimal(&bytes[..space]).and_then(|n| usize::try_from(n).ok());
        let record = length.filter(|n| *n > space + 1).and_then(|n| bytes.get(..n));
        let Some([content @ .., b'\n']) = record.and_then(|record| record.get(space + 1..)) else {
            return Err("an extended header whose lengths do not fit");
        };
        let equals = content.iter().position(|b| *b == b'=').ok_or("an extended header without `=`")?;
        let (key, value) = (&content[..equals], &content[equals + 1..]);
        if key.is_empty() || key.contains(&0) {
            return Err("an extended header without a key");
        }
        records.push((key.to_vec(), value.to_vec()));
        bytes = &bytes[space + 2 + content.len()..];
    }
    Ok(records)
}

/// Global headers are passed over as Go's archive/tar and thus every engine does. One that would change names or
/// sizes for readers that do apply it is refused: what an image holds must not depend on its reader.
fn refuse_ambiguous_globals(records: &[(Vec<u8>, Vec<u8>)]) -> Result<(), &'static str> {
    let changes = |key: &[u8]| matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.");
    if records.iter().any(|(key, _)| changes(key)) {
        return Err("a global header that changes names or sizes");
    }
    Ok(())
}
