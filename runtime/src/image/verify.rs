//! Whether what is on disk is still what was unpacked.
//!
//! Compares every file of a layer with the list that was written while it was unpacked: kind, mode, owner, size,
//! checksum of the content, targets of links, devices, and that nothing was added. Finds damage, not forgery: who can
//! write below the store as root can write the list as well.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{AtFlags, FileType, OFlags, Stat, readlinkat, statat};
use spec::causes::chain;
use spec::digest::Digest;

use super::store::{RefRecord, Store, StoreError, Stored, open_path};
use super::unpack::{Line, ListReader, Recorded, beneath, escape, is_opaque, names, open_directory};

/// Differences named for one layer; the rest is only counted.
const MAX_NAMED: usize = 20;

/// What was found about one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerCheck {
    /// The layer.
    pub diff_id: Digest,
    /// Paths with what is wrong with them; none when it is as it was.
    pub problems: Vec<String>,
    /// It was removed, so that its images are pulled again.
    pub removed: bool,
    /// Why it was left though it should have been removed, with what to do.
    pub kept: Option<String>,
}

/// What is wrong with what the store knows of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageCheck {
    /// The image, by its manifest digest, or the file that says which image a name stands for.
    pub image: String,
    /// What is wrong.
    pub problem: String,
    /// It was mended, or forgotten so that it is fetched or loaded anew.
    pub repaired: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Every layer.
    pub layers: Vec<LayerCheck>,
    /// Records, manifests and configurations that are damaged or missing.
    pub images: Vec<ImageCheck>,
}

impl Verified {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.images.is_empty() && self.layers.iter().all(|layer| layer.problems.is_empty())
    }
}

impl Store {
    /// Reads everything in the store and compares it. With `repair`, damaged layers are removed, so that their images
    /// are pulled again, and images whose records, manifests or configurations are damaged are forgotten; those of images
    /// in `in_use` stay, since a container would lose the files under it, and so do layers of images that no registry
    /// gives back.
    pub fn verify(&self, repair: Option<&BTreeSet<Digest>>) -> Result<Verified, StoreError> {
        let mut images = Vec::new();
        let (stored, references) = self.verify_records(repair, &mut images)?;
        let mut layers = Vec::new();
        let there = self.names("layers")?.into_iter().filter_map(|name| Digest::parse(&format!("sha256:{name}")).ok());
        let named = stored.iter().flat_map(|image| image.diff_ids.iter().copied());
        for diff_id in there.chain(named).collect::<BTreeSet<_>>() {
            let problems = self.verify_layer(&diff_id)?;
            let mut check = LayerCheck { diff_id, problems, removed: false, kept: None };
            if let Some(in_use) = repair.filter(|_| !check.problems.is_empty()) {
                let mut users = stored.iter().filter(|image| image.diff_ids.contains(&diff_id));
                if users.clone().any(|image| in_use.contains(&image.manifest)) {
                    check.kept = Some("a container runs on it".to_owned());
                } else if let Some(image) = users.find(|image| Self::is_irreplaceable(image, &references)) {
                    let name = references.iter().find(|record| record.manifest == image.manifest);
                    let name = name.map_or_else(|| image.manifest.to_string(), |record| record.reference.to_string());
                    let what = format!("no registry gives it back: `mainstay rmi {name}`, and load the image anew");
                    check.kept = Some(what);
                } else {
                    let _lock = self.lock()?;
                    self.discard_layer(&self.layer_path(&diff_id))?;
                    check.removed = true;
                }
            }
            layers.push(check);
        }
        for image in &stored {
            if !image.diff_ids.iter().all(|layer| self.has_layer(layer)) {
                continue;
            }
            if let Some(problem) = self.verify_fixup(&image.manifest, &image.diff_ids)? {
                let repaired = repair.is_some_and(|in_use| !in_use.contains(&image.manifest));
                if repaired {
                    let fixup = self.plan_fixup(&image.diff_ids)?;
                    let _lock = self.lock()?;
                    self.make_fixup(&image.manifest, fixup)?;
                }
                images.push(ImageCheck { image: image.manifest.to_string(), problem, repaired });
            }
        }
        Ok(Verified { layers, images })
    }

    /// Records of images whose manifest and configuration are as they should be, and names that can be read.
    fn verify_records(
        &self,
        repair: Option<&BTreeSet<Digest>>,
        images: &mut Vec<ImageCheck>,
    ) -> Result<(Vec<Stored>, Vec<RefRecord>), StoreError> {
        let mut good = Vec::new();
        for name in self.names("records")? {
            let Some(digest) = name.strip_suffix(".json").and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok())
            else {
                continue;
            };
            let (stored, problem) = match self.stored(&digest) {
                Ok(None) => continue,
                Ok(Some(stored)) => {
                    let contents = [("manifests", stored.manifest), ("configs", stored.config)];
                    let damage = contents.iter().find_map(|(kind, digest)| self.read_content(kind, digest).err());
                    (Some(stored), damage)
                }
                Err(error) if error.is_damage() => (None, Some(error)),
                Err(error) => return Err(error),
            };
            let Some(problem) = problem else {
                good.extend(stored);
                continue;
            };
            let repaired = repair.is_some_and(|in_use| !in_use.contains(&digest));
            if repaired {
                let _lock = self.lock()?;
                self.forget_image(&digest)?;
            } else {
                // Its layers are still those of an image.
                good.extend(stored);
            }
            images.push(ImageCheck { image: digest.to_string(), problem: chain(&problem), repaired });
        }
        let mut references = Vec::new();
        for name in self.names("refs")?.iter().filter(|name| name.ends_with(".json")) {
            let path = self.path("refs", name);
            match self.read_json::<RefRecord>(&path) {
                Ok(record) => references.extend(record),
                Err(error) if error.is_damage() => {
                    if repair.is_some() {
                        let _lock = self.lock()?;
                        self.unlink(&path)?;
                    }
                    let (image, problem) = (path.display().to_string(), chain(&error));
                    images.push(ImageCheck { image, problem, repaired: repair.is_some() });
                }
                Err(error) => return Err(error),
            }
        }
        Ok((good, references))
    }

    /// What is wrong with one layer.
    pub fn verify_layer(&self, diff_id: &Digest) -> Result<Vec<String>, StoreError> {
        let directory = self.layer_path(diff_id);
        match self.layer_record(diff_id) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(vec!["it is missing".to_owned()]),
            Err(error) if error.is_damage() => return Ok(vec![chain(&error)]),
            Err(error) => return Err(error),
        }
        let list = match File::open(directory.join("list.zst")) {
            Ok(list) => list,
            Err(error) => return Ok(vec![format!("the list of its files cannot be opened: {error}")]),
        };
        let expected = match expected(list) {
            Ok(expected) => expected,
            Err(error) => return Ok(vec![format!("the list of its files cannot be read: {error}")]),
        };
        let root = match open_path(&directory.join("fs")) {
            Ok(root) => root,
            Err(error) => return Ok(vec![error.to_string()]),
        };
        let mut check = Check { expected, problems: Vec::new(), more: 0 };
        check.directory(&root, b"");
        for path in std::mem::take(&mut check.expected).into_keys() {
            check.note(&path, "is missing");
        }
        if check.more > 0 {
            check.problems.push(format!("and {} more", check.more));
        }
        Ok(check.problems)
    }
}

/// The list as a map: later lines take the place of earlier ones.
fn expected(list: File) -> std::io::Result<BTreeMap<Vec<u8>, Line>> {
    let mut expected: BTreeMap<Vec<u8>, Line> = BTreeMap::new();
    for line in ListReader::new(list)? {
        let mut line = line?;
        match &line.item {
            Recorded::Removed => {
                let below = [line.path.as_slice(), b"/"].concat();
                expected.remove(&line.path);
                while let Some((path, _)) =
                    expected.range(below.clone()..).next().filter(|(p, _)| p.starts_with(&below))
                {
                    let path = path.clone();
                    expected.remove(&path);
                }
                continue;
            }
            // What the name leads to, even when the other name is replaced later on.
            Recorded::Hardlink(target) => {
                if let Some(target) = expected.get(target) {
                    line = Line { path: line.path, ..target.clone() };
                }
            }
            Recorded::Directory { .. } => {
                if let Some(Line { item: Recorded::Directory { opaque: true }, .. }) = expected.get(&line.path) {
                    line.item = Recorded::Directory { opaque: true };
                }
            }
            Recorded::File { .. } | Recorded::Symlink(_) | Recorded::Special { .. } => {}
        }
        expected.insert(line.path.clone(), line);
    }
    Ok(expected)
}

struct Check {
    expected: BTreeMap<Vec<u8>, Line>,
    problems: Vec<String>,
    more: usize,
}

impl Check {
    fn note(&mut self, path: &[u8], problem: &str) {
        if self.problems.len() < MAX_NAMED {
            self.problems.push(format!("/{} {problem}", escape(path)));
        } else {
            self.more += 1;
        }
    }

    fn directory(&mut self, directory: &OwnedFd, path: &[u8]) {
        if let Some(line) = self.expected.remove(path) {
            match rustix::fs::fstat(directory) {
                Ok(stat) => self.attributes(path, &line, &stat),
                Err(error) => self.note(path, &format!("cannot be looked at: {error}")),
            }
            let opaque = is_opaque(directory.as_fd()).unwrap_or(false);
            match line.item {
                Recorded::Directory { opaque: expected } if expected != opaque => {
                    self.note(path, "hides something else than it did");
                }
                Recorded::Directory { .. } => {}
                _ => self.note(path, "is a directory now"),
            }
        } else {
            self.note(path, "was added");
        }
        let names = match names(directory) {
            Ok(names) => names,
            Err(error) => return self.note(path, &format!("cannot be listed: {error}")),
        };
        for name in names {
            let below = if path.is_empty() { name.clone() } else { [path, &name].join(&b'/') };
            self.entry(directory, &name, &below);
        }
    }

    fn entry(&mut self, directory: &OwnedFd, name: &[u8], path: &[u8]) {
        let text = OsStr::from_bytes(name);
        let stat = match statat(directory, text, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(error) => return self.note(path, &format!("cannot be looked at: {error}")),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            match open_directory(directory.as_fd(), name) {
                Ok(below) => self.directory(&below, path),
                Err(error) => self.note(path, &format!("cannot be opened: {error}")),
            }
            return;
        }
        let Some(line) = self.expected.remove(path) else { return self.note(path, "was added") };
        let same = match &line.item {
            Recorded::File { size, crc, parts } if kind == FileType::RegularFile => {
                u64::try_from(stat.st_size) == Ok(*size)
                    && match content(directory, name, parts.as_deref()) {
                        Ok(found) => found == *crc,
                        Err(error) => return self.note(path, &format!("cannot be read: {error}")),
                    }
            }
            Recorded::Symlink(target) if kind == FileType::Symlink => {
                readlinkat(directory, text, Vec::new()).is_ok_and(|found| found.as_bytes() == target.as_slice())
            }
            Recorded::Special { mode, device } => {
                let format = |mode: u32| FileType::from_raw_mode(mode);
                format(*mode) == kind && (kind == FileType::Fifo || stat.st_rdev == *device)
            }
            // A name of something that the list does not hold: only that it is there.
            Recorded::Hardlink(_) => return,
            Recorded::File { .. } | Recorded::Symlink(_) | Recorded::Directory { .. } | Recorded::Removed => false,
        };
        if !same {
            self.note(path, "has another content");
        }
        self.attributes(path, &line, &stat);
    }

    fn attributes(&mut self, path: &[u8], line: &Line, stat: &Stat) {
        // The mode of a link is nobody's, that of a whiteout nothing.
        let plain =
            !matches!(line.item, Recorded::Symlink(_)) && !matches!(line.item, Recorded::Special { device: 0, .. });
        if plain && stat.st_mode & 0o7777 != line.mode {
            self.note(path, "has another mode");
        }
        if (stat.st_uid, stat.st_gid) != (line.uid, line.gid) {
            self.note(path, "has another owner");
        }
    }
}

/// CRC-32 of a file, or of its parts that were stored.
fn content(directory: &OwnedFd, name: &[u8], parts: Option<&[(u64, u64)]>) -> std::io::Result<u32> {
    let mut file = File::from(beneath(directory, name, OFlags::RDONLY | OFlags::NOFOLLOW)?);
    let mut crc = flate2::Crc::new();
    let mut buffer = vec![0u8; 128 << 10];
    let Some(parts) = parts else {
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(crc.sum()),
                count => crc.update(&buffer[..count]),
            }
        }
    };
    for (offset, length) in parts {
        let (mut at, end) = (*offset, offset + length);
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let count = file.read_at(&mut buffer[..most], at)?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            crc.update(&buffer[..count]);
            at += count as u64;
        }
    }
    Ok(crc.sum())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use spec::image_ref::ImageRef;

    use super::*;
    use crate::image::store::tests::put;
    use crate::image::unpack::testkit::{Item, dir, file, hardlink, isolated, item, pax, root, symlink, tar};

    fn odd_layer() -> Vec<u8> {
        tar(&[
            dir("d"),
            file("d/f", "content"),
            file("d/g", "first"),
            hardlink("d/h", "d/g"),
            file("d/g", "second"),
            symlink("l", "d/f"),
            Item { device: (1, 3), mode: 0o666, ..item(b'3', "null") },
            file("x/y/z", "1"),
            file("x", "2"),
            file(".wh.gone", ""),
            dir("o"),
            file("o/.wh..wh..opq", ""),
            dir("o"),
            file("below/implied", ""),
            pax(&[("GNU.sparse.size", "10"), ("GNU.sparse.map", "0,3,7,2")], file("sparse", "abcde")),
            pax(&[("path", "odd \u{1} name %")], Item { mode: 0o4711, uid: 7, ..file("n", "1") }),
        ])
    }

    #[test]
    fn damage_is_found_and_repaired() {
        if !root() {
            return;
        }
        type Damage = fn(&Path) -> std::io::Result<()>;
        let damages: [(&str, Damage); 11] = [
            ("/d/f has another content", |fs| std::fs::write(fs.join("d/f"), "conTent")),
            ("/d/h has another content", |fs| std::fs::write(fs.join("d/h"), "other")),
            ("/sparse has another content", |fs| std::fs::write(fs.join("sparse"), "abd\0\0\0\0de\0")),
            ("/d/g is missing", |fs| std::fs::remove_file(fs.join("d/g"))),
            ("/new was added", |fs| std::fs::write(fs.join("new"), "")),
            ("/l has another content", |fs| {
                std::fs::remove_file(fs.join("l"))?;
                std::os::unix::fs::symlink("/etc", fs.join("l"))
            }),
            ("/x has another mode", |fs| {
                std::fs::set_permissions(fs.join("x"), std::os::unix::fs::PermissionsExt::from_mode(0o777))
            }),
            ("/null has another owner", |fs| std::os::unix::fs::chown(fs.join("null"), Some(1), None)),
            ("/gone is missing", |fs| std::fs::remove_file(fs.join("gone"))),
            ("/o hides something else than it did", |fs| {
                Ok(rustix::fs::removexattr(fs.join("o"), "trusted.overlay.opaque")?)
            }),
            ("/below is missing", |fs| std::fs::remove_dir_all(fs.join("below"))),
        ];
        for (expected, damage) in damages {
            let work = tempfile::tempdir().expect("temporary directory");
            let store = Store::open(work.path()).expect("opened");
            let image = put(&store, "odd:1", &[odd_layer()]);
            let verified = store.verify(None).expect("verified");
            assert!(verified.is_good(), "{verified:?}");
            damage(&image.layers[0]).expect("damaged");
            let problems = &store.verify(None).expect("verified").layers[0].problems;
            assert!(problems.iter().any(|problem| problem == expected), "{expected}: {problems:?}");
            let in_use = BTreeSet::from([image.digest]);
            assert!(!store.verify(Some(&in_use)).expect("verified").layers[0].removed, "a container needs it");
            assert!(store.verify(Some(&BTreeSet::new())).expect("verified").layers[0].removed);
            assert!(store.image_by_digest(&image.digest).expect("read").is_none(), "to be pulled again");
            put(&store, "odd:1", &[odd_layer()]);
            assert!(store.verify(None).expect("verified").is_good());
        }
    }

    /// A layer that an image names is looked for, and what cannot come again is left for people to decide.
    #[test]
    fn missing_layers_are_found_and_irreplaceable_ones_are_left() {
        if !root() {
            return;
        }
        type Damage = fn(&Path) -> std::io::Result<()>;
        let damages: [(&str, Damage); 4] = [
            ("it is missing", |layer| std::fs::remove_dir_all(layer)),
            ("cannot read record", |layer| std::fs::write(layer.join("layer.json"), "{")),
            ("it is missing", |layer| std::fs::remove_file(layer.join("layer.json"))),
            ("/f has another content", |layer| std::fs::write(layer.join("fs/f"), "2")),
        ];
        for (expected, damage) in damages {
            for loaded in [false, true] {
                let work = tempfile::tempdir().expect("temporary directory");
                let store = Store::open(work.path()).expect("opened");
                let image = put(&store, "a:1", &[tar(&[file("f", "1")])]);
                store.flush();
                if loaded {
                    let path = store.path("records", &format!("{}.json", image.digest.hex()));
                    let text = std::fs::read_to_string(&path).expect("read").replace("\"pulled\"", "\"loaded\"");
                    std::fs::write(&path, text).expect("written");
                }
                let layer = store.layer_path(&image.diff_ids[0]);
                damage(&layer).expect("damaged");
                let store = Store::open(work.path()).expect("opened again");
                let found = store.verify(None).expect("verified");
                assert!(!found.is_good(), "{expected}");
                let problems = &found.layers[0].problems;
                assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:?}");
                let there = layer.exists();
                let found = store.verify(Some(&BTreeSet::new())).expect("verified");
                let kept = found.layers[0].kept.as_deref().unwrap_or_default();
                assert_eq!(kept.contains("`mainstay rmi docker.io/library/a:1`"), loaded, "{expected}: {kept}");
                assert_eq!((found.layers[0].removed, layer.exists()), (!loaded, loaded && there), "{expected}");
            }
        }
    }

    #[test]
    fn damaged_configurations_are_found() {
        if !root() {
            return;
        }
        let work = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(work.path()).expect("opened");
        let image = put(&store, "a:1", &[tar(&[file("f", "1")])]);
        std::fs::write(store.path("configs", &image.config_digest.hex()), "{}").expect("written");
        assert_eq!(store.verify(None).expect("verified").images.len(), 1);
        assert!(matches!(store.image_by_digest(&image.digest), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn damaged_records_are_forgotten_and_the_image_can_come_again() {
        if !root() {
            return;
        }
        type Damage = fn(&Store, &crate::image::store::Image) -> std::path::PathBuf;
        let damages: [(&str, Damage); 4] = [
            ("the record", |store, image| store.path("records", &format!("{}.json", image.digest.hex()))),
            ("the manifest", |store, image| store.path("manifests", &image.digest.hex())),
            ("the configuration", |store, image| store.path("configs", &image.config_digest.hex())),
            ("the name", |store, _| store.reference_path(&ImageRef::parse("a:1").expect("a reference"))),
        ];
        for (name, damage) in damages {
            for content in [Some("{"), Some(""), None] {
                let work = tempfile::tempdir().expect("temporary directory");
                let store = Store::open(work.path()).expect("opened");
                let layers = [tar(&[file("f", "1")])];
                let image = put(&store, "a:1", &layers);
                let path = damage(&store, &image);
                match content {
                    Some(text) => std::fs::write(&path, text).expect("written"),
                    None => std::fs::remove_file(&path).expect("removed"),
                }
                // One that is not there is a name or an image less, and nothing else.
                let gone = content.is_none() && (name == "the record" || name == "the name");
                let found = store.verify(None).expect("verified");
                assert_eq!(found.images.len(), usize::from(!gone), "{name} {content:?}: {found:?}");
                let in_use = BTreeSet::from([image.digest]);
                let kept = store.verify(Some(&in_use)).expect("verified");
                assert!(kept.images.iter().all(|image| image.repaired == (name == "the name")), "{name}: {kept:?}");
                let found = store.verify(Some(&BTreeSet::new())).expect("verified");
                assert!(found.images.iter().all(|image| image.repaired), "{name}: {found:?}");
                assert!(store.verify(None).expect("verified").is_good(), "{name}");
                let again = put(&store, "a:1", &layers);
                let found = store.image(&ImageRef::parse("a:1").expect("a reference")).expect("read").expect("there");
                assert_eq!((again.digest, found.digest), (image.digest, image.digest), "{name} {content:?}");
                assert!(store.verify(None).expect("verified").is_good(), "{name}");
            }
        }
    }

    /// Whatever an archive is like: what was unpacked of it is what its list says.
    #[test]
    fn no_layer_looks_damaged_from_the_start() {
        isolated(|| {
            let names =
                ["a", "b", "a/b", "a/b/c", "b/file", "./a/", "l/x", ".wh.a", "a/.wh.b", "a/.wh..wh..opq", "a/../b"];
            let links = ["a", "b", "a/b", "b/file", "/a", "../a", "."];
            let names = proptest::sample::select(names.to_vec());
            let links = proptest::sample::select(links.to_vec());
            let kinds = proptest::sample::select(b"0012356".to_vec());
            let items = (names, links, kinds, 0u32..0o10000).prop_map(|(path, link, kind, mode)| {
                let data = if kind == b'0' { path.as_bytes().to_vec() } else { Vec::new() };
                let device = if kind == b'3' { (1, mode % 2) } else { (0, 0) };
                Item {
                    link: link.as_bytes().to_vec(),
                    mode,
                    data,
                    device,
                    uid: u64::from(mode % 3),
                    ..item(kind, path)
                }
            });
            let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
            let mut runner = proptest::test_runner::TestRunner::new(config);
            let unpacked = std::cell::Cell::new(0);
            let outcome = runner.run(&proptest::collection::vec(items, 1..10), |items| {
                let work = tempfile::tempdir().expect("temporary directory");
                let store = Store::open(work.path()).expect("opened");
                let bytes = tar(&items);
                let diff_id = Digest::of(&bytes);
                let pending =
                    store.unpack_layer(&diff_id, crate::image::unpack::Compression::None, &mut bytes.as_slice());
                if let Ok(pending) = pending {
                    pending.commit().expect("committed");
                    let problems = store.verify_layer(&diff_id).expect("verified");
                    proptest::prop_assert!(problems.is_empty(), "{:?}", problems);
                    unpacked.set(unpacked.get() + 1);
                }
                Ok(())
            });
            if let Err(error) = outcome {
                panic!("{error}");
            }
            assert!(unpacked.get() > 50, "{} of 400 were layers", unpacked.get());
        });
    }
}
