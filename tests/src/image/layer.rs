//! One layer: archive entries in the order given, with fixed times and owners.

use std::io::Write;

/// How the archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip without a time stamp.
    #[default]
    Gzip,
    /// zstd, one frame.
    Zstd,
}

impl Compression {
    /// Packs bytes.
    pub fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::None => bytes.to_vec(),
            Self::Gzip => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
                writer.write_all(bytes).expect("memory takes every byte");
                writer.finish().expect("memory takes every byte")
            }
            Self::Zstd => zstd::encode_all(bytes, 1).expect("memory takes every byte"),
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A directory.
    Dir,
    /// A regular file.
    File(Vec<u8>),
    /// A symbolic link to this.
    Symlink(String),
    /// A hard link to an earlier entry.
    Hardlink(String),
    /// A named pipe.
    Fifo,
}

#[derive(Debug, Clone)]
struct Item {
    path: String,
    entry: Entry,
    mode: u32,
    owner: (u64, u64),
}

/// A layer being written.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    items: Vec<Item>,
    /// How it will be packed.
    pub compression: Compression,
}

impl Layer {
    /// An empty layer, gzip.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds any entry. Paths keep what they are given as, but for one leading slash: hostile ones stay hostile.
    pub fn entry(mut self, path: &str, entry: Entry, mode: u32, owner: (u64, u64)) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path).to_owned();
        self.items.push(Item { path, entry, mode, owner });
        self
    }

    /// A directory, 0755 of root.
    pub fn dir(self, path: &str) -> Self {
        self.entry(path, Entry::Dir, 0o755, (0, 0))
    }

    /// A file, 0644 of root.
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry(path, Entry::File(content.as_ref().to_vec()), 0o644, (0, 0))
    }

    /// A program, 0755 of root.
    pub fn program(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry(path, Entry::File(content.as_ref().to_vec()), 0o755, (0, 0))
    }

    /// A symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, Entry::Symlink(target.to_owned()), 0o777, (0, 0))
    }

    /// A hard link to an earlier file.
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        let target = target.strip_prefix('/').unwrap_or(target).to_owned();
        self.entry(path, Entry::Hardlink(target), 0o644, (0, 0))
    }

    /// Removes what lower layers have at this path (OCI image specification, layer: whiteouts).
    pub fn whiteout(self, path: &str) -> Self {
        let path = match path.rsplit_once('/') {
            Some((dir, name)) => format!("{dir}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        self.entry(&path, Entry::File(Vec::new()), 0o644, (0, 0))
    }

    /// Hides everything that lower layers have in this directory.
    pub fn opaque(self, dir: &str) -> Self {
        self.entry(&format!("{dir}/.wh..wh..opq"), Entry::File(Vec::new()), 0o644, (0, 0))
    }

    /// Chooses how it is packed.
    pub fn compress(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// The uncompressed archive.
    pub fn tar(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for item in &self.items {
            append(&mut builder, item);
        }
        builder.into_inner().expect("memory takes every byte")
    }
}

fn append(builder: &mut tar::Builder<Vec<u8>>, item: &Item) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(item.mode);
    header.set_uid(item.owner.0);
    header.set_gid(item.owner.1);
    header.set_mtime(0);
    header.set_size(0);
    let wrote = match &item.entry {
        Entry::File(content) => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(content.len() as u64);
            builder.append_data_raw(&mut header, &item.path, content)
        }
        Entry::Dir => {
            header.set_entry_type(tar::EntryType::Directory);
            builder.append_data_raw(&mut header, &format!("{}/", item.path.trim_end_matches('/')), &[])
        }
        Entry::Symlink(target) | Entry::Hardlink(target) => {
            let hard = matches!(item.entry, Entry::Hardlink(_));
            header.set_entry_type(if hard { tar::EntryType::Link } else { tar::EntryType::Symlink });
            header.set_link_name_literal(target).and_then(|()| builder.append_data_raw(&mut header, &item.path, &[]))
        }
        Entry::Fifo => {
            header.set_entry_type(tar::EntryType::Fifo);
            builder.append_data_raw(&mut header, &item.path, &[])
        }
    };
    wrote.expect("memory takes every byte, and names in tests are short");
}

/// The `tar` crate refuses `..` in names; hostile archives do not ask it.
fn set_raw_name(header: &mut tar::Header, path: &str) {
    let field = &mut header.as_old_mut().name;
    field.fill(0);
    for (to, from) in field.iter_mut().zip(path.bytes()) {
        *to = from;
    }
}

trait AppendRaw {
    fn append_data_raw(&mut self, header: &mut tar::Header, path: &str, data: &[u8]) -> std::io::Result<()>;
}

impl AppendRaw for tar::Builder<Vec<u8>> {
    fn append_data_raw(&mut self, header: &mut tar::Header, path: &str, data: &[u8]) -> std::io::Result<()> {
        if path.len() < 100 {
            set_raw_name(header, path);
            header.set_cksum();
            self.append(header, data)
        } else {
            self.append_data(header, path, data)
        }
    }
}
