//! Headers of the archives this program writes: ustar, with a PAX header where ustar has no room.

/// One entry.
#[derive(Debug, Clone, Default)]
pub(crate) struct TarEntry {
    pub(crate) path: Vec<u8>,
    /// Type flag: `0` file, `1` hard link, `2` symbolic link, `3` `4` devices, `5` directory, `6` fifo.
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) size: u64,
    pub(crate) link: Vec<u8>,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The end of an archive.
pub(crate) const END: [u8; 1024] = [0; 1024];

/// Zero bytes after `size` bytes of data.
pub(crate) fn padding(size: u64) -> &'static [u8] {
    let used = usize::try_from(size % 512).unwrap_or(0);
    if used == 0 { &[] } else { &END[..512 - used] }
}

impl TarEntry {
    /// A regular file of root.
    pub(crate) fn file(path: &str, mode: u32, size: u64) -> Self {
        Self { path: path.as_bytes().to_vec(), kind: b'0', mode, size, ..Self::default() }
    }

    /// Header blocks, to be followed by `size` bytes and their padding.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let mut record = |key: &[u8], value: &[u8]| {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            records.extend_from_slice(format!("{length} ").as_bytes());
            records.extend_from_slice(&[key, b"=", value, b"\n"].concat());
        };
        if self.path.len() > 100 {
            record(b"path", &self.path);
        }
        if self.link.len() > 100 {
            record(b"linkpath", &self.link);
        }
        if self.size >= 1 << 33 {
            record(b"size", self.size.to_string().as_bytes());
        }
        for (key, id) in [(b"uid", self.uid), (b"gid", self.gid)] {
            if id >= 1 << 21 {
                record(key, id.to_string().as_bytes());
            }
        }
        let (seconds, nanos) = self.mtime;
        if nanos != 0 || !(0..1 << 33).contains(&seconds) {
            record(b"mtime", pax_time(seconds, nanos).as_bytes());
        }
        for (name, value) in &self.xattrs {
            record(&[b"SCHILY.xattr.".as_slice(), name].concat(), value);
        }
        let mut out = Vec::new();
        if !records.is_empty() {
            let extended = Self::file("pax", 0o644, records.len() as u64);
            let extended = Self { kind: b'x', ..extended };
            out.extend_from_slice(&extended.block());
            out.extend_from_slice(&records);
            out.extend_from_slice(padding(records.len() as u64));
        }
        out.extend_from_slice(&self.block());
        out
    }

    fn block(&self) -> [u8; 512] {
        let mut block = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.path[..self.path.len().min(100)]);
        put(100, format!("{:07o}\0", self.mode & 0o7777).as_bytes());
        // What does not fit is in the PAX header.
        put(108, format!("{:07o}\0", self.uid & 0x1f_ffff).as_bytes());
        put(116, format!("{:07o}\0", self.gid & 0x1f_ffff).as_bytes());
        put(124, format!("{:011o}\0", self.size & 0x1_ffff_ffff).as_bytes());
        put(136, format!("{:011o}\0", self.mtime.0.clamp(0, (1 << 33) - 1)).as_bytes());
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}\0", self.device.0).as_bytes());
        put(337, format!("{:07o}\0", self.device.1).as_bytes());
        put(148, b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

fn pax_time(seconds: i64, nanos: u32) -> String {
    match (seconds < 0, nanos) {
        (_, 0) => seconds.to_string(),
        (false, _) => format!("{seconds}.{nanos:09}"),
        // -1.25 is kept as -2 and 0.75.
        (true, _) => {
            let whole = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            format!("-{}.{:09}", -whole / 1_000_000_000, -whole % 1_000_000_000)
        }
    }
}
