//! Images as an OCI archive, for another host or another engine.
//!
//! Compressed blobs are not kept in the store (they would double its size, and every pull would write twice as much), so
//! layers are archived anew. The content is the same, the bytes are not: layers, configuration and manifest have new
//! digests, the same ones every time, and the answer says so. The archive also has Docker's `manifest.json`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fgetxattr, fstat, open, readlinkat, statat};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spec::digest::Digest;
use spec::image_ref::ImageRef;

use super::store::{Image, Store, StoreError, open_path};
use super::tarball::{END, TarEntry, padding};
use super::unpack::{beneath, is_opaque, names, open_directory, xattr_names};

/// One image in a saved archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// What it is called there.
    pub reference: ImageRef,
    /// Digest of its manifest in the store.
    pub original: Digest,
    /// Digest of its manifest in the archive.
    pub digest: Digest,
}

/// A layer of the archive, waiting in a file without a name.
struct Archived {
    file: File,
    digest: Digest,
    diff_id: Digest,
    size: u64,
}

/// Writes images as one OCI archive to `path`, which must not exist. On failure nothing is left there.
pub fn save(store: &Store, images: &[ImageRef], path: &Path) -> Result<Vec<Saved>, StoreError> {
    let mut out = File::create_new(path).map_err(StoreError::file("create", path))?;
    let result = save_to(store, images, &mut out, path);
    if result.is_err() {
        // The error that led here is the one to report.
        let _ = std::fs::remove_file(path);
    }
    result
}

fn save_to(store: &Store, images: &[ImageRef], out: &mut File, path: &Path) -> Result<Vec<Saved>, StoreError> {
    let mut archive = Archive { out: io::BufWriter::new(out), written: BTreeMap::new() };
    let failed = |source| StoreError::file("write", path)(source);
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(failed)?;
    let mut layers: BTreeMap<Digest, (Digest, Digest, u64)> = BTreeMap::new();
    let (mut saved, mut index, mut docker) = (Vec::new(), Vec::new(), Vec::new());
    for reference in images {
        let image = store.image(reference)?.ok_or_else(|| StoreError::NotFound { reference: reference.to_string() })?;
        let stack = store.stack(&image.diff_ids)?;
        for record in &stack {
            if let Entry::Vacant(place) = layers.entry(record.diff_id) {
                let content = store.layer_path(&record.diff_id).join("fs");
                let mut layer = archive_layer(store, &content, record.implied())?;
                archive.blob_from(&layer.digest, layer.size, &mut layer.file).map_err(failed)?;
                place.insert((layer.digest, layer.diff_id, layer.size));
            }
        }
        let mut parts: Vec<_> = stack.iter().filter_map(|record| layers.get(&record.diff_id)).copied().collect();
        // What the image has above its layers becomes one more layer.
        if let Some(above) = image.layers.get(stack.len()) {
            let mut layer = archive_layer(store, above, BTreeSet::from([Vec::new()]))?;
            archive.blob_from(&layer.digest, layer.size, &mut layer.file).map_err(failed)?;
            parts.push((layer.digest, layer.diff_id, layer.size));
        }
        let config = config(&image, &parts);
        let config_digest = archive.blob(&config).map_err(failed)?;
        let manifest = manifest(&config, &parts);
        let digest = archive.blob(&manifest).map_err(failed)?;
        index.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": manifest.len(),
            "annotations": {
                "org.opencontainers.image.ref.name": reference.to_string(),
                "io.containerd.image.name": reference.to_string()
            }
        }));
        let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        docker.push(json!({
            "Config": blob(&config_digest),
            "RepoTags": [reference.to_string()],
            "Layers": parts.iter().map(|(digest, ..)| blob(digest)).collect::<Vec<_>>()
        }));
        saved.push(Saved { reference: reference.clone(), original: image.digest, digest });
    }
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index});
    archive.file("index.json", index.to_string().as_bytes()).map_err(failed)?;
    archive.file("manifest.json", Value::from(docker).to_string().as_bytes()).map_err(failed)?;
    archive.out.write_all(&END).map_err(failed)?;
    archive.out.flush().map_err(failed)?;
    archive.out.get_ref().sync_all().map_err(failed)?;
    Ok(saved)
}

/// The configuration with the new digests; all else as it was, but the history, which no longer fits.
fn config(image: &Image, parts: &[(Digest, Digest, u64)]) -> Vec<u8> {
    let mut config = image.config_json.clone();
    if let Some(object) = config.as_object_mut() {
        object.remove("history");
        let diff_ids: Vec<_> = parts.iter().map(|(_, diff_id, _)| diff_id).collect();
        object.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": diff_ids}));
    }
    config.to_string().into_bytes()
}

fn manifest(config: &[u8], parts: &[(Digest, Digest, u64)]) -> Vec<u8> {
    let layers = parts.iter().map(|(digest, _, size)| {
        json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size})
    });
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config),
            "size": config.len()
        },
        "layers": layers.collect::<Vec<_>>()
    })
    .to_string()
    .into_bytes()
}

/// The archive around everything.
struct Archive<W: Write> {
    out: W,
    written: BTreeMap<Digest, ()>,
}

impl<W: Write> Archive<W> {
    fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(&TarEntry::file(path, 0o644, bytes.len() as u64).header())?;
        self.out.write_all(bytes)?;
        self.out.write_all(padding(bytes.len() as u64))
    }

    fn blob(&mut self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        if self.written.insert(digest, ()).is_none() {
            self.file(&format!("blobs/sha256/{}", digest.hex()), bytes)?;
        }
        Ok(digest)
    }

    fn blob_from(&mut self, digest: &Digest, size: u64, file: &mut File) -> io::Result<()> {
        if self.written.insert(*digest, ()).is_some() {
            return Ok(());
        }
        self.out.write_all(&TarEntry::file(&format!("blobs/sha256/{}", digest.hex()), 0o644, size).header())?;
        io::copy(file, &mut self.out)?;
        self.out.write_all(padding(size))
    }
}

/// Hashes what goes through.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    count: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), count: 0 }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn archive_layer(store: &Store, content: &Path, implied: BTreeSet<Vec<u8>>) -> Result<Archived, StoreError> {
    let scratch = store.root().join("tmp");
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = open(&scratch, flags, Mode::from_raw_mode(0o600))
        .map_err(StoreError::errno("create a temporary file in", &scratch))?;
    let write = || -> io::Result<Archived> {
        let compressed = Hashing::new(File::from(file));
        let encoder = flate2::GzBuilder::new().write(compressed, flate2::Compression::fast());
        let mut layer = LayerArchive { out: Hashing::new(encoder), links: BTreeMap::new(), implied };
        let root = open_path(content).map_err(io::Error::other)?;
        layer.directory(&root, b"")?;
        layer.out.write_all(&END)?;
        let plain = layer.out;
        let compressed = plain.inner.finish()?;
        let mut file = compressed.inner;
        file.rewind()?;
        Ok(Archived {
            file,
            digest: Digest::from_bytes(compressed.hash.finalize().into()),
            diff_id: Digest::from_bytes(plain.hash.finalize().into()),
            size: compressed.count,
        })
    };
    write().map_err(StoreError::file("archive layer", content))
}

/// A layer's tree as OCI writes layers: whiteouts by name.
struct LayerArchive<W> {
    out: W,
    /// First names of files with several.
    links: BTreeMap<u64, Vec<u8>>,
    implied: BTreeSet<Vec<u8>>,
}

impl<W: Write> LayerArchive<W> {
    fn directory(&mut self, directory: &OwnedFd, path: &[u8]) -> io::Result<()> {
        if !self.implied.contains(path) {
            let name = if path.is_empty() { b"./".to_vec() } else { [path, b"/"].concat() };
            let entry = entry(name, b'5', &fstat(directory)?);
            self.out.write_all(&TarEntry { xattrs: xattrs(directory)?, ..entry }.header())?;
        }
        let below = |name: &[u8]| if path.is_empty() { name.to_vec() } else { [path, name].join(&b'/') };
        if is_opaque(directory.as_fd())? {
            self.marker(below(b".wh..wh..opq"))?;
        }
        let mut names = names(directory)?;
        names.sort();
        for name in names {
            let stat = statat(directory, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.directory(&open_directory(directory.as_fd(), &name)?, &below(&name))?,
                FileType::CharacterDevice if stat.st_rdev == 0 => {
                    self.marker(below(&[b".wh.".as_slice(), &name].concat()))?;
                }
                kind => self.other(directory, &name, below(&name), kind, &stat)?,
            }
        }
        Ok(())
    }

    fn marker(&mut self, path: Vec<u8>) -> io::Result<()> {
        self.out.write_all(&TarEntry { path, kind: b'0', mode: 0o600, ..TarEntry::default() }.header())
    }

    fn other(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        path: Vec<u8>,
        kind: FileType,
        stat: &Stat,
    ) -> io::Result<()> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&stat.st_ino) {
                let link = TarEntry { link: first.clone(), ..entry(path, b'1', stat) };
                return self.out.write_all(&link.header());
            }
            self.links.insert(stat.st_ino, path.clone());
        }
        match kind {
            FileType::Symlink => {
                let target = readlinkat(directory, OsStr::from_bytes(name), Vec::new())?;
                let link = TarEntry { link: target.into_bytes(), ..entry(path, b'2', stat) };
                self.out.write_all(&link.header())
            }
            FileType::RegularFile => {
                let fd = beneath(directory, name, OFlags::RDONLY | OFlags::NOFOLLOW)?;
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                let file = TarEntry { size, xattrs: xattrs(&fd)?, ..entry(path, b'0', stat) };
                self.out.write_all(&file.header())?;
                let copied = io::copy(&mut File::from(fd).take(size), &mut self.out)?;
                if copied != size {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.out.write_all(padding(size))
            }
            kind => {
                let flag = match kind {
                    FileType::CharacterDevice => b'3',
                    FileType::BlockDevice => b'4',
                    _ => b'6',
                };
                let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                self.out.write_all(&TarEntry { device, ..entry(path, flag, stat) }.header())
            }
        }
    }
}

fn entry(path: Vec<u8>, kind: u8, stat: &Stat) -> TarEntry {
    TarEntry {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        ..TarEntry::default()
    }
}

fn xattrs(file: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut names = xattr_names(file.as_fd())?;
    names.sort();
    for name in names {
        let mut value = vec![0u8; 64 << 10];
        let length = fgetxattr(file, name.as_slice(), &mut value)?;
        value.truncate(length);
        found.push((name, value));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::load::load;
    use crate::image::store::tests::put;
    use crate::image::unpack::testkit::{Item, dir, file, hardlink, isolated, item, pax, symlink, tar, tree};

    #[test]
    fn a_saved_image_is_loaded_as_the_same_tree() {
        isolated(|| {
            let work = tempfile::tempdir().expect("temporary directory");
            let open = |name: &str| Store::open(&work.path().join(name)).expect("opened");
            let (first, second) = (open("first"), open("second"));
            let layers = [
                tar(&[
                    dir("./"),
                    dir("d"),
                    Item { mode: 0o4755, uid: 3_000_000, ..file("d/f", "content") },
                    hardlink("d/h", "d/f"),
                    symlink("l", &"long".repeat(50)),
                    pax(&[("mtime", "-1.25"), ("SCHILY.xattr.user.a", "b\n\0=")], file("t", "1")),
                    pax(&[("path", &"p/".repeat(90))], dir("p")),
                    Item { device: (7, 5), ..item(b'4', "loop") },
                    item(b'6', "fifo"),
                ]),
                tar(&[file("d/.wh.f", ""), dir("e"), file("e/.wh..wh..opq", ""), file("implied/x", "")]),
            ];
            let image = put(&first, "web:1", &layers);
            put(&first, "other:1", &layers[..1]);
            let names = ["web:1", "other:1"].map(|name| ImageRef::parse(name).expect("reference"));
            let path = work.path().join("saved.tar");
            let saved = save(&first, &names, &path).expect("saved");
            assert_eq!(saved[0].original, image.digest);
            let loaded = load(&second, &path).expect("loaded");
            assert_eq!(loaded.len(), 2);
            let again = second.image(&names[0]).expect("read").expect("there");
            assert_eq!(again.digest, saved[0].digest);
            for (old, new) in image.layers.iter().zip(&again.layers) {
                assert_eq!(tree(old), tree(new));
            }
            assert_eq!(image.config.config(), again.config.config());
            // The same content makes the same bytes, from whichever store.
            let other = work.path().join("again.tar");
            save(&second, &names, &other).expect("saved again");
            assert_eq!(std::fs::read(&path).expect("read"), std::fs::read(&other).expect("read"));
            let error = save(&first, &[ImageRef::parse("none:1").expect("reference")], &work.path().join("none.tar"));
            assert!(matches!(error, Err(StoreError::NotFound { .. })));
            assert!(!work.path().join("none.tar").exists());
        });
    }
}
