//! The list of what a layer wrote: one line an entry, in order; kept beside the layer to restore directory times and
//! to tell later whether what is on disk is still what was unpacked.
//!
//! Lines of fields separated by blanks, `%XX` for bytes that are no plain ASCII, compressed with zstd. A later line
//! on a path takes the place of an earlier one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

/// What a line tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// Regular file: CRC-32 over its bytes, which finds damage; whoever could forge it could forge the list as well.
    File {
        size: u64,
        crc: u32,
        /// Of a file with holes: the parts that the CRC is over.
        parts: Option<Vec<(u64, u64)>>,
    },
    Directory {
        opaque: bool,
    },
    Symlink(Vec<u8>),
    /// Path of the file it is another name of.
    Hardlink(Vec<u8>),
    /// Fifo, character or block device, whiteout: its full mode and device number.
    Special {
        mode: u32,
        device: u64,
    },
    /// Everything at and below the path was removed.
    Removed,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) path: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) item: Recorded,
}

impl Line {
    pub(super) fn removed(path: Vec<u8>) -> Self {
        Self { path, mode: 0, uid: 0, gid: 0, mtime: (0, 0), item: Recorded::Removed }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let Self { mode, uid, gid, mtime, .. } = self;
        let (kind, detail) = match &self.item {
            Recorded::File { size, crc, parts } => {
                let mut detail = format!("{size},{crc:08x}");
                for (offset, length) in parts.iter().flatten() {
                    detail.push_str(&format!(",{offset}:{length}"));
                }
                (if parts.is_some() { 'F' } else { 'f' }, detail)
            }
            Recorded::Directory { opaque } => ('d', if *opaque { "opaque" } else { "-" }.to_owned()),
            Recorded::Symlink(target) => ('l', escape(target)),
            Recorded::Hardlink(target) => ('h', escape(target)),
            Recorded::Special { mode, device } => ('s', format!("{mode:o},{device}")),
            Recorded::Removed => ('r', "-".to_owned()),
        };
        let (seconds, nanos) = mtime;
        let path = escape(&self.path);
        out.extend_from_slice(
            format!("{kind} {mode:o} {uid} {gid} {seconds}.{nanos:09} {detail} /{path}\n").as_bytes(),
        );
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let kind = fields.next()?;
        let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let (seconds, nanos) = fields.next()?.split_once('.')?;
        let mtime = (seconds.parse().ok()?, nanos.parse().ok()?);
        let detail = fields.next()?;
        let path = unescape(fields.next()?.strip_prefix('/')?)?;
        let item = match kind {
            "f" | "F" => {
                let mut fields = detail.split(',');
                let size = fields.next()?.parse().ok()?;
                let crc = u32::from_str_radix(fields.next()?, 16).ok()?;
                let part = |part: &str| {
                    let (offset, length) = part.split_once(':')?;
                    Some((offset.parse().ok()?, length.parse().ok()?))
                };
                let parts = fields.map(part).collect::<Option<Vec<_>>>()?;
                Recorded::File { size, crc, parts: (kind == "F").then_some(parts) }
            }
            "d" => Recorded::Directory { opaque: detail == "opaque" },
            "l" => Recorded::Symlink(unescape(detail)?),
            "h" => Recorded::Hardlink(unescape(detail)?),
            "s" => {
                let (mode, device) = detail.split_once(',')?;
                Recorded::Special { mode: u32::from_str_radix(mode, 8).ok()?, device: device.parse().ok()? }
            }
            "r" => Recorded::Removed,
            _ => return None,
        };
        Some(Self { path, mode, uid, gid, mtime, item })
    }
}

/// Bytes as plain ASCII without blanks.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'!'..=b'~' if *byte != b'%' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Undoes [`escape`].
pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) = (char::from(bytes.next()?).to_digit(16)?, char::from(bytes.next()?).to_digit(16)?);
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

/// Writes a list.
pub(super) struct ListWriter {
    out: zstd::stream::write::Encoder<'static, File>,
    buffer: Vec<u8>,
}

impl ListWriter {
    pub(super) fn new(file: File) -> io::Result<Self> {
        Ok(Self { out: zstd::stream::write::Encoder::new(file, 1)?, buffer: Vec::new() })
    }

    pub(super) fn add(&mut self, line: &Line) -> io::Result<()> {
        line.write(&mut self.buffer);
        if self.buffer.len() >= 32 << 10 {
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<File> {
        self.out.write_all(&self.buffer)?;
        self.out.finish()
    }
}

/// Reads a list line by line.
pub(crate) struct ListReader {
    lines: io::Lines<BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>>,
}

impl ListReader {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        Ok(Self { lines: BufReader::new(zstd::stream::read::Decoder::new(file)?).lines() })
    }
}

impl Iterator for ListReader {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = match self.lines.next()? {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        Some(
            Line::parse(&line)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a line of the list is damaged")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back_as_they_were_written() {
        let line = |path: &[u8], item| Line { path: path.to_vec(), mode: 0o4755, uid: 1, gid: 2, mtime: (-5, 7), item };
        for line in [
            line(b"a b%\n\xff", Recorded::File { size: 1 << 40, crc: 0xdead_beef, parts: None }),
            line(b"s", Recorded::File { size: 9, crc: 1, parts: Some(vec![(0, 1), (4, 2)]) }),
            line(b"s", Recorded::File { size: 9, crc: 0, parts: Some(vec![]) }),
            line(b"", Recorded::Directory { opaque: true }),
            line(b"d", Recorded::Directory { opaque: false }),
            line(b"l", Recorded::Symlink(b"../ x".to_vec())),
            line(b"l", Recorded::Symlink(Vec::new())),
            line(b"h", Recorded::Hardlink(b"a/b".to_vec())),
            line(b"s", Recorded::Special { mode: 0o020_000, device: 0 }),
            Line::removed(b"x".to_vec()),
        ] {
            let mut out = Vec::new();
            line.write(&mut out);
            let text = String::from_utf8(out).expect("ASCII");
            assert_eq!(Line::parse(text.trim_end_matches('\n')), Some(line));
        }
    }
}
