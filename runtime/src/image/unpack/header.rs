//! One 512-byte tar header: numbers, names and checksum of v7, ustar, GNU and star archives.
//!
//! Owns the bytes of one block. Never follows extended headers; `archive` does.

/// Size of everything in a tar archive.
pub(super) const BLOCK: usize = 512;

/// The families that give the last 255 bytes of a header different meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Before ustar: no device numbers, no prefix.
    V7,
    /// POSIX: a prefix of 155 bytes.
    Ustar,
    /// Ustar with a prefix of 131 bytes and two times.
    Star,
    /// GNU: sparse maps where others have the prefix.
    Gnu,
}

/// A block that claims to be a header.
pub(super) struct Header(pub(super) [u8; BLOCK]);

impl Header {
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|b| *b == 0)
    }

    /// The sum over all bytes with the checksum field as spaces; old writers added signed bytes.
    pub(super) fn checksum_fits(&self) -> bool {
        let Ok(stored) = octal(self.field(148, 8)) else { return false };
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, byte) in self.0.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        i64::try_from(stored).is_ok_and(|stored| stored == unsigned || stored == signed)
    }

    pub(super) fn dialect(&self) -> Dialect {
        match (self.field(257, 8), self.field(508, 4)) {
            (b"ustar  \0", _) => Dialect::Gnu,
            (magic, b"tar\0") if magic.starts_with(b"ustar\0") => Dialect::Star,
            (magic, _) if magic.starts_with(b"ustar\0") => Dialect::Ustar,
            _ => Dialect::V7,
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Name with its prefix.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = until_nul(self.field(0, 100));
        let prefix = match self.dialect() {
            Dialect::Ustar => until_nul(self.field(345, 155)),
            Dialect::Star => until_nul(self.field(345, 131)),
            Dialect::V7 | Dialect::Gnu => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        until_nul(self.field(157, 100)).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u64, &'static str> {
        unsigned(self.field(100, 8)).map_err(|()| "its mode is no number")
    }

    pub(super) fn uid(&self) -> Result<u64, &'static str> {
        unsigned(self.field(108, 8)).map_err(|()| "its user id is no number")
    }

    pub(super) fn gid(&self) -> Result<u64, &'static str> {
        unsigned(self.field(116, 8)).map_err(|()| "its group id is no number")
    }

    pub(super) fn size(&self) -> Result<u64, &'static str> {
        unsigned(self.field(124, 12)).map_err(|()| "its size is no number")
    }

    pub(super) fn mtime(&self) -> Result<i64, &'static str> {
        signed(self.field(136, 12)).map_err(|()| "its time is no number")
    }

    pub(super) fn device(&self) -> Result<(u64, u64), &'static str> {
        if self.dialect() == Dialect::V7 {
            return Ok((0, 0));
        }
        let number = |at| unsigned(self.field(at, 8)).map_err(|()| "its device number is no number");
        Ok((number(329)?, number(337)?))
    }

    /// Four (offset, length) pairs of an old GNU sparse header, whether a block with more follows, and the full size.
    pub(super) fn gnu_sparse(&self) -> Result<(super::archive::SparseMap, bool, u64), &'static str> {
        let map = sparse_pairs(&self.0[386..482])?;
        let size = unsigned(self.field(483, 12)).map_err(|()| "its sparse size is no number")?;
        Ok((map, self.0[482] != 0, size))
    }

    fn field(&self, at: usize, length: usize) -> &[u8] {
        &self.0[at..at + length]
    }
}

/// Gives every block that looks like a header its right checksum.
pub(super) fn seal_all(bytes: &mut [u8]) {
    for block in bytes.as_chunks_mut::<BLOCK>().0.iter_mut().filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Pairs of 12-byte numbers, until an empty one.
pub(super) fn sparse_pairs(bytes: &[u8]) -> Result<Vec<(u64, u64)>, &'static str> {
    let mut pairs = Vec::new();
    for pair in bytes.chunks_exact(24) {
        let (offset, length) = pair.split_at(12);
        if offset.first() == Some(&0) && length.first() == Some(&0) {
            break;
        }
        let number = |field| unsigned(field).map_err(|()| "its sparse map holds something else than numbers");
        pairs.push((number(offset)?, number(length)?));
    }
    Ok(pairs)
}

/// What is before the first NUL.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

fn unsigned(field: &[u8]) -> Result<u64, ()> {
    u64::try_from(signed(field)?).map_err(|_| ())
}

/// Octal digits, or big-endian two's complement when the first bit is set (GNU and star, "base-256").
fn signed(field: &[u8]) -> Result<i64, ()> {
    let Some((first, rest)) = field.split_first() else { return Err(()) };
    if first & 0x80 == 0 {
        return octal(field).and_then(|n| i64::try_from(n).map_err(|_| ()));
    }
    // Bit 6 is the sign; the bits above it are no part of the number.
    let mut value: i128 = if first & 0x40 == 0 { i128::from(first & 0x3f) } else { i128::from(*first as i8) };
    for byte in rest {
        value = value.checked_mul(256).ok_or(())? + i128::from(*byte);
    }
    i64::try_from(value).map_err(|_| ())
}

fn octal(field: &[u8]) -> Result<u64, ()> {
    let pad = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !pad(b)).unwrap_or(field.len());
    let digits = until_nul(&field[start..]).trim_ascii_end();
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' if value < 1 << 60 => Ok(value * 8 + u64::from(digit - b'0')),
        _ => Err(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_gnu_tar_reads_them() {
        for (field, value) in [
            (&b"0000644\0"[..], Ok(0o644)),
            (b"   644 \0", Ok(0o644)),
            (b"00000000", Ok(0)),
            (b"\0\0\0\0\0\0\0\0", Ok(0)),
            (b"77777777", Ok(0o77_777_777)),
            (b"12a\0\0\0\0\0", Err(())),
            (b"-1\0\0\0\0\0\0", Err(())),
            (b"\x80\0\0\0\0\x0f\x42\x40", Ok(1_000_000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Ok(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Err(())),
        ] {
            assert_eq!(signed(field), value, "{field:?}");
        }
    }
}
