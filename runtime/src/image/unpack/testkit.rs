//! Archives byte by byte, as no honest tool writes them, and trees as text to compare.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// One entry to write.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) link: Vec<u8>,
    pub(crate) data: Vec<u8>,
    pub(crate) device: (u32, u32),
    /// PAX records that go before it.
    pub(crate) pax: Vec<(Vec<u8>, Vec<u8>)>,
    /// Stands in the size field instead of the length of `data`.
    pub(crate) size: Option<u64>,
}

pub(crate) fn item(kind: u8, path: &str) -> Item {
    let mode = if kind == b'5' { 0o755 } else { 0o644 };
    Item {
        path: path.as_bytes().to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: 1_000_000,
        link: Vec::new(),
        data: Vec::new(),
        device: (0, 0),
        pax: Vec::new(),
        size: None,
    }
}

pub(crate) fn file(path: &str, data: &str) -> Item {
    Item { data: data.as_bytes().to_vec(), ..item(b'0', path) }
}

pub(crate) fn dir(path: &str) -> Item {
    item(b'5', path)
}

pub(crate) fn symlink(path: &str, target: &str) -> Item {
    Item { link: target.as_bytes().to_vec(), mode: 0o777, ..item(b'2', path) }
}

pub(crate) fn hardlink(path: &str, target: &str) -> Item {
    Item { link: target.as_bytes().to_vec(), ..item(b'1', path) }
}

pub(crate) fn pax(records: &[(&str, &str)], item: Item) -> Item {
    Item { pax: records.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect(), ..item }
}

pub(crate) fn pax_bytes(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        out.extend_from_slice(format!("{length} ").as_bytes());
        out.extend_from_slice(&[key.as_slice(), b"=", value, b"\n"].concat());
    }
    out
}

impl Item {
    /// Header, data and padding.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.pax.is_empty() {
            let data = pax_bytes(&self.pax);
            out.extend(Item { data, ..item(b'x', "pax") }.bytes());
        }
        out.extend_from_slice(&self.header());
        out.extend_from_slice(&self.data);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }

    pub(crate) fn header(&self) -> [u8; 512] {
        let mut block = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.path[..self.path.len().min(100)]);
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        put(108, format!("{:07o}\0", self.uid).as_bytes());
        put(116, format!("{:07o}\0", self.gid).as_bytes());
        put(124, format!("{:011o}\0", self.size.unwrap_or(self.data.len() as u64)).as_bytes());
        put(136, format!("{:011o}\0", self.mtime).as_bytes());
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}\0", self.device.0).as_bytes());
        put(337, format!("{:07o}\0", self.device.1).as_bytes());
        seal(&mut block);
        block
    }
}

/// Puts the right checksum into a header.
pub(crate) fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// An archive with its end.
pub(crate) fn tar(items: &[Item]) -> Vec<u8> {
    let mut out: Vec<u8> = items.iter().flat_map(Item::bytes).collect();
    out.resize(out.len() + 1024, 0);
    out
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("write to memory");
    out.finish().expect("write to memory")
}

/// A tree as sorted lines: type, mode, owner, time, name, and content, target or device.
pub(crate) fn tree(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = std::fs::symlink_metadata(&path).expect("is there");
        let name = path.strip_prefix(root).expect("below").as_os_str().as_bytes().escape_ascii().to_string();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            todo.extend(std::fs::read_dir(&path).expect("listed").map(|entry| entry.expect("entry").path()));
            "dir".to_owned()
        } else if kind.is_symlink() {
            format!("link -> {}", std::fs::read_link(&path).expect("read").display())
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).expect("read");
            format!("file {} {}", meta.nlink(), bytes.escape_ascii())
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else {
            format!("device {:x}", meta.rdev())
        };
        if what == "device 0" {
            lines.push(format!("/{name} whiteout"));
            continue;
        }
        let mut opaque = [0u8; 4];
        let opaque = rustix::fs::lgetxattr(&path, "trusted.overlay.opaque", &mut opaque).is_ok();
        lines.push(format!(
            "/{name} {what} {:o} {}:{} {}.{}{}",
            meta.mode() & 0o7777,
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            if opaque { " opaque" } else { "" }
        ));
    }
    lines.sort();
    lines
}

/// Whether tests that need root can run; says so on stderr when not.
pub(crate) fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// Runs a test in a mount namespace of its own: the root file system read-only, `/tmp` an empty one. Even an unpacker
/// that fails in every way harms nothing then. Skips when that needs rights that are missing.
pub(crate) fn isolated(test: impl FnOnce() + Send) {
    use nix::mount::{MsFlags, mount};
    if !root() {
        return;
    }
    let isolate = || -> nix::Result<()> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), Some("size=256m,mode=1777"))?;
        mount(none, "/", none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, none)
    };
    let outcome = std::thread::scope(|scope| {
        let run = || {
            if let Err(error) = isolate() {
                eprintln!("skipped: cannot make a mount namespace: {error}");
                return;
            }
            test();
        };
        // The namespace belongs to this thread and those it starts, and ends with them.
        scope.spawn(run).join()
    });
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}
