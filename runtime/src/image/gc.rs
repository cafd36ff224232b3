//! Names, sizes and removal of images.
//!
//! Owns the rule of what may go: never what is in use or pinned, and never by itself what no registry can give back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, fstatvfs, utimensat};
use spec::digest::Digest;
use spec::image_ref::ImageRef;

use super::store::{Store, StoreError, open_path};

/// A layer without an image is left alone this long: somebody may be pulling the rest.
const ORPHAN_GRACE: Duration = Duration::from_secs(3600);

/// Space of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// Digest of its manifest.
    pub digest: Digest,
    /// What it is called.
    pub references: Vec<ImageRef>,
    /// Bytes of its layers.
    pub size: u64,
    /// Bytes of layers that other images have as well.
    pub shared: u64,
    /// Bytes of layers that only it has: what its removal would free.
    pub own: u64,
}

/// Space of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// Every image.
    pub images: Vec<ImageUsage>,
    /// Bytes of all layers, each counted once.
    pub total: u64,
    /// Bytes of layers without an image.
    pub orphans: u64,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// References that led to it.
    pub references: Vec<ImageRef>,
    /// Images, by manifest digest.
    pub images: Vec<Digest>,
    /// Layers, by diff id.
    pub layers: Vec<Digest>,
    /// Bytes of these layers.
    pub bytes: u64,
}

/// When to prune, and what.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Manifest digests that running or retained generations need.
    pub keep: BTreeSet<Digest>,
    /// The present time; ages are counted from last use.
    pub now: SystemTime,
    /// Only what was not used for so long.
    pub older_than: Duration,
    /// Only when the file system is this full, in per cent, and then until it is down to the second; always and
    /// everything when `None`. Kubernetes' defaults are 85 and 80.
    pub thresholds: Option<(u8, u8)>,
    /// Also images that no registry gives back: loaded from files, or with names that were given here alone.
    pub loaded: bool,
}

impl Store {
    /// Gives an image another name. A name that exists moves.
    pub fn tag(&self, image: &Digest, name: &ImageRef) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        if self.stored(image)?.is_none() {
            return Err(StoreError::NotFound { reference: image.to_string() });
        }
        self.write_reference(name, *image, true)
    }

    /// Notes that an image is used now.
    pub fn touch(&self, image: &Digest) -> Result<(), StoreError> {
        let path = self.path("records", &format!("{}.json", image.hex()));
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        };
        utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty())
            .map_err(StoreError::errno("set the time of", &path))
    }

    /// Keeps an image whatever its age, or no longer.
    pub fn set_pinned(&self, image: &Digest, pinned: bool) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let mut stored = self.stored(image)?.ok_or(StoreError::NotFound { reference: image.to_string() })?;
        stored.pinned = pinned;
        self.write_json(&self.path("records", &format!("{}.json", image.hex())), &stored)
    }

    /// Removes a reference, and the image with it when that was its last one. `in_use` are the manifest digests of
    /// images that containers run on.
    pub fn remove_reference(&self, name: &ImageRef, in_use: &BTreeSet<Digest>) -> Result<Removed, StoreError> {
        let _lock = self.lock()?;
        let references = self.references()?;
        let Some(found) = references.iter().find(|record| record.reference == *name) else {
            return Err(StoreError::NotFound { reference: name.to_string() });
        };
        let digest = found.manifest;
        let last = references.iter().filter(|record| record.manifest == digest).count() == 1;
        if last && in_use.contains(&digest) {
            let reference = name.to_string();
            return Err(StoreError::InUse { reference, reason: "a container runs on it" });
        }
        if last {
            return self.remove_images(&BTreeSet::from([digest]));
        }
        self.forget_reference(name)?;
        Ok(Removed { references: vec![name.clone()], ..Removed::default() })
    }

    /// Removes an image with all its references.
    pub fn remove_image(&self, image: &Digest, in_use: &BTreeSet<Digest>) -> Result<Removed, StoreError> {
        let _lock = self.lock()?;
        if self.stored(image)?.is_none() {
            return Err(StoreError::NotFound { reference: image.to_string() });
        }
        if in_use.contains(image) {
            let reference = image.to_string();
            return Err(StoreError::InUse { reference, reason: "a container runs on it" });
        }
        self.remove_images(&BTreeSet::from([*image]))
    }

    /// Sizes of everything, shared layers counted once.
    pub fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        let images = self.images()?;
        let sizes = self.layer_sizes()?;
        let mut users: BTreeMap<Digest, u32> = BTreeMap::new();
        for image in &images {
            for layer in image.diff_ids.iter().collect::<BTreeSet<_>>() {
                *users.entry(*layer).or_default() += 1;
            }
        }
        let usage = images.into_iter().map(|image| {
            let layers: BTreeSet<Digest> = image.diff_ids.into_iter().collect();
            let sum = |wanted: &dyn Fn(u32) -> bool| {
                let chosen = layers.iter().filter(|layer| wanted(users.get(layer).copied().unwrap_or(0)));
                chosen.filter_map(|layer| sizes.get(layer)).sum()
            };
            let (shared, own): (u64, u64) = (sum(&|users| users > 1), sum(&|users| users <= 1));
            ImageUsage { digest: image.digest, references: image.references, size: shared + own, shared, own }
        });
        let images = usage.collect();
        let orphans = sizes.iter().filter(|(layer, _)| !users.contains_key(layer)).map(|(_, size)| size).sum();
        Ok(DiskUsage { images, total: sizes.values().sum(), orphans })
    }

    /// Removes images nobody needs, longest unused first, and layers without an image.
    pub fn prune(&self, options: &PruneOptions) -> Result<Removed, StoreError> {
        let _lock = self.lock()?;
        let mut removed = self.remove_orphans(options.now)?;
        if let Some((high, _)) = options.thresholds
            && self.used_percent()? < high
        {
            return Ok(removed);
        }
        let mut candidates = self.images()?;
        candidates.retain(|image| {
            let age = options.now.duration_since(image.last_used).unwrap_or_default();
            let lost = image.irreplaceable && !options.loaded;
            !options.keep.contains(&image.digest) && !image.pinned && !lost && age >= options.older_than
        });
        candidates.sort_by_key(|image| image.last_used);
        for image in candidates {
            if let Some((_, low)) = options.thresholds
                && self.used_percent()? < low
            {
                break;
            }
            let one = self.remove_images(&BTreeSet::from([image.digest]))?;
            removed.references.extend(one.references);
            removed.images.extend(one.images);
            removed.layers.extend(one.layers);
            removed.bytes += one.bytes;
        }
        Ok(removed)
    }

    /// How full the store's file system is, as `df` counts it: without what is reserved for root. Of bytes and inodes, what
    /// is scarcer.
    pub fn used_percent(&self) -> Result<u8, StoreError> {
        let root = open_path(self.root())?;
        let stat = fstatvfs(&root).map_err(StoreError::errno("look at the free space of", self.root()))?;
        let percent = |all: u64, free: u64, available: u64| {
            let used = all.saturating_sub(free);
            used.saturating_mul(100).div_ceil(used.saturating_add(available).max(1))
        };
        let bytes = percent(stat.f_blocks, stat.f_bfree, stat.f_bavail);
        let inodes = percent(stat.f_files, stat.f_ffree, stat.f_favail);
        Ok(u8::try_from(bytes.max(inodes)).unwrap_or(100))
    }

    /// References first, then the record, then layers: a crash leaves an image or none, and orphans for later.
    fn remove_images(&self, gone: &BTreeSet<Digest>) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        for record in self.references()?.into_iter().filter(|record| gone.contains(&record.manifest)) {
            self.forget_reference(&record.reference)?;
            removed.references.push(record.reference);
        }
        let (gone, kept): (Vec<_>, Vec<_>) =
            self.all_stored()?.into_iter().partition(|stored| gone.contains(&stored.manifest));
        let needed: BTreeSet<Digest> = kept.iter().flat_map(|stored| stored.diff_ids.iter().copied()).collect();
        let configs: BTreeSet<Digest> = kept.iter().map(|stored| stored.config).collect();
        for stored in gone {
            self.unlink(&self.path("records", &format!("{}.json", stored.manifest.hex())))?;
            self.unlink(&self.path("manifests", &stored.manifest.hex()))?;
            if !configs.contains(&stored.config) {
                self.unlink(&self.path("configs", &stored.config.hex()))?;
            }
            self.discard_layer(&self.fixup_path(&stored.manifest))?;
            removed.images.push(stored.manifest);
            for layer in stored.diff_ids {
                if !needed.contains(&layer) {
                    self.remove_layer(&layer, &mut removed)?;
                }
            }
        }
        Ok(removed)
    }

    fn remove_layer(&self, layer: &Digest, removed: &mut Removed) -> Result<(), StoreError> {
        let size = self.good_layer_record(layer)?.map_or(0, |record| record.size);
        let path = self.layer_path(layer);
        // The same layer may be in one image twice.
        if path.exists() {
            self.discard_layer(&path)?;
            removed.layers.push(*layer);
            removed.bytes += size;
        }
        Ok(())
    }

    fn remove_orphans(&self, now: SystemTime) -> Result<Removed, StoreError> {
        let needed: BTreeSet<Digest> = self.all_stored()?.into_iter().flat_map(|stored| stored.diff_ids).collect();
        let mut removed = Removed::default();
        for layer in self.layer_sizes()?.into_keys().filter(|layer| !needed.contains(layer)) {
            let path = self.layer_path(&layer).join("layer.json");
            let modified = std::fs::metadata(&path).and_then(|meta| meta.modified());
            let modified = modified.map_err(StoreError::file("look at", &path))?;
            if now.duration_since(modified).unwrap_or_default() >= ORPHAN_GRACE {
                self.remove_layer(&layer, &mut removed)?;
            }
        }
        Ok(removed)
    }

    pub(crate) fn layer_sizes(&self) -> Result<BTreeMap<Digest, u64>, StoreError> {
        let mut sizes = BTreeMap::new();
        for name in self.names("layers")? {
            if let Ok(layer) = Digest::parse(&format!("sha256:{name}"))
                && let Some(record) = self.good_layer_record(&layer)?
            {
                sizes.insert(layer, record.size);
            }
        }
        Ok(sizes)
    }

    fn forget_reference(&self, name: &ImageRef) -> Result<(), StoreError> {
        self.unlink(&self.reference_path(name))
    }

    /// Takes an image's record, manifest and configuration away. Its layers stay until somebody prunes, and so do its names:
    /// when it comes again before that, nothing else has to.
    pub(crate) fn forget_image(&self, image: &Digest) -> Result<(), StoreError> {
        if let Ok(Some(stored)) = self.stored(image)
            && self.read_content("configs", &stored.config).is_err()
        {
            // Others may have the same one; it is of no use to them either.
            self.unlink(&self.path("configs", &stored.config.hex()))?;
        }
        self.unlink(&self.path("records", &format!("{}.json", image.hex())))?;
        self.unlink(&self.path("manifests", &image.hex()))
    }

    pub(crate) fn unlink(&self, path: &std::path::Path) -> Result<(), StoreError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::file("remove", path)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::store::tests::put;
    use crate::image::unpack::testkit::{file, isolated, root, tar};

    fn layer(name: &str, size: usize) -> Vec<u8> {
        tar(&[file(name, &"x".repeat(size))])
    }

    fn reference(name: &str) -> ImageRef {
        ImageRef::parse(name).expect("reference")
    }

    fn names(store: &Store) -> Vec<String> {
        let mut names: Vec<String> = store
            .images()
            .expect("listed")
            .iter()
            .flat_map(|image| &image.references)
            .map(|name| format!("{}:{}", name.repository().trim_start_matches("library/"), name.tag().unwrap_or("")))
            .collect();
        names.sort();
        names
    }

    fn layers(store: &Store) -> usize {
        std::fs::read_dir(store.root().join("layers")).expect("listed").count()
    }

    #[test]
    fn names_sizes_and_removal() {
        if !root() {
            return;
        }
        let work = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(work.path()).expect("opened");
        let base = layer("base", 100);
        let a = put(&store, "a:1", &[base.clone(), layer("a", 10)]);
        let b = put(&store, "b:1", &[base.clone(), layer("b", 1), layer("b", 1)]);
        let usage = store.disk_usage().expect("counted");
        let of = |image: &Digest| usage.images.iter().find(|usage| usage.digest == *image).expect("there");
        assert_eq!((of(&a.digest).size, of(&a.digest).shared, of(&a.digest).own), (110, 100, 10));
        assert_eq!((of(&b.digest).own, usage.total, usage.orphans), (1, 111, 0));

        store.tag(&a.digest, &reference("a:stable")).expect("tagged");
        assert_eq!(names(&store), ["a:1", "a:stable", "b:1"]);
        let in_use = BTreeSet::from([a.digest]);
        let removed = store.remove_reference(&reference("a:1"), &in_use).expect("one of two names");
        assert!(removed.images.is_empty());
        let error = store.remove_reference(&reference("a:stable"), &in_use).expect_err("in use");
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert!(matches!(store.remove_image(&a.digest, &in_use), Err(StoreError::InUse { .. })));
        let removed = store.remove_reference(&reference("a:stable"), &BTreeSet::new()).expect("removed");
        assert_eq!((removed.images.len(), removed.layers.len(), removed.bytes), (1, 1, 10));
        assert_eq!((names(&store), layers(&store)), (vec!["b:1".to_owned()], 2));
        assert!(matches!(store.remove_reference(&reference("a:1"), &in_use), Err(StoreError::NotFound { .. })));
        store.remove_image(&b.digest, &BTreeSet::new()).expect("removed");
        assert_eq!(layers(&store), 0);
        for kind in ["refs", "records", "manifests", "configs", "tmp"] {
            assert_eq!(std::fs::read_dir(work.path().join(kind)).expect("listed").count(), 0, "{kind}");
        }
    }

    #[test]
    fn prune_removes_only_what_nobody_needs() {
        if !root() {
            return;
        }
        let work = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(work.path()).expect("opened");
        let kept = put(&store, "kept:1", &[layer("kept", 1)]);
        let pinned = put(&store, "pinned:1", &[layer("pinned", 1)]);
        store.set_pinned(&pinned.digest, true).expect("pinned");
        put(&store, "old:1", &[layer("old", 1)]);
        let loaded = put(&store, "loaded:1", &[layer("loaded", 1)]);
        let path = store.path("records", &format!("{}.json", loaded.digest.hex()));
        let text = std::fs::read_to_string(&path).expect("read").replace("\"pulled\"", "\"loaded\"");
        std::fs::write(&path, text).expect("written");
        let orphan = layer("orphan", 1);
        let pending =
            store.unpack_layer(&Digest::of(&orphan), crate::image::unpack::Compression::None, &mut orphan.as_slice());
        pending.expect("unpacked").commit().expect("committed");

        let day = Duration::from_secs(86400);
        let now = SystemTime::now();
        let options = |now, thresholds| PruneOptions {
            keep: BTreeSet::from([kept.digest]),
            now,
            older_than: day,
            thresholds,
            loaded: false,
        };
        assert_eq!(store.prune(&options(now, None)).expect("pruned"), Removed::default(), "all is young");
        let removed = store.prune(&options(now + 2 * day, Some((101, 100)))).expect("pruned");
        assert_eq!((removed.images.len(), removed.layers.len()), (0, 1), "only the orphan: the disk is not that full");
        let removed = store.prune(&options(now + 2 * day, Some((0, 0)))).expect("pruned");
        assert_eq!(removed.images.len(), 1);
        assert_eq!(names(&store), ["kept:1", "loaded:1", "pinned:1"]);
        store.prune(&PruneOptions { loaded: true, ..options(now + 2 * day, None) }).expect("pruned");
        assert_eq!(names(&store), ["kept:1", "pinned:1"]);
    }

    #[test]
    fn an_image_with_a_name_of_its_own_alone_stays() {
        if !root() {
            return;
        }
        let work = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(work.path()).expect("opened");
        let image = put(&store, "a:1", &[layer("a", 1)]).digest;
        let prune = |loaded| {
            let (now, keep) = (SystemTime::now(), BTreeSet::new());
            let options = PruneOptions { keep, now, older_than: Duration::ZERO, thresholds: None, loaded };
            store.prune(&options).expect("pruned").images.len()
        };
        // Its own name once more is no other name.
        store.tag(&image, &reference("a:1")).expect("tagged");
        assert_eq!(prune(false), 1);
        for moved in [false, true] {
            put(&store, "a:1", &[layer("a", 1)]);
            store.tag(&image, &reference("mine:1")).expect("tagged");
            if moved {
                put(&store, "a:1", &[layer("b", 1)]);
            } else {
                store.remove_reference(&reference("a:1"), &BTreeSet::new()).expect("removed");
            }
            assert_eq!(prune(false), usize::from(moved), "what a:1 is now can come again");
            assert_eq!(names(&store), ["mine:1"], "no registry knows it by this name");
            assert_eq!(prune(true), 1, "when asked for");
        }
    }

    #[test]
    fn a_disk_without_inodes_is_full() {
        isolated(|| {
            let disk = std::path::Path::new("/tmp/disk");
            std::fs::create_dir(disk).expect("made");
            let flags = nix::mount::MsFlags::empty();
            nix::mount::mount(Some("tmpfs"), disk, Some("tmpfs"), flags, Some("size=64m,nr_inodes=1000"))
                .expect("mounted");
            let store = Store::open(disk).expect("opened");
            (0..900).for_each(|i| drop(std::fs::File::create(disk.join(i.to_string())).expect("made")));
            assert!((90..95).contains(&store.used_percent().expect("looked at")));
        });
    }

    /// Kubernetes' thresholds on a file system that really is that full.
    #[test]
    fn a_full_disk_loses_the_longest_unused_and_no_more_than_it_must() {
        isolated(|| {
            let disk = std::path::Path::new("/tmp/disk");
            std::fs::create_dir(disk).expect("made");
            let flags = nix::mount::MsFlags::empty();
            nix::mount::mount(Some("tmpfs"), disk, Some("tmpfs"), flags, Some("size=64m")).expect("mounted");
            let store = Store::open(disk).expect("opened");
            let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
            // Twelve of 4.7 MiB: 88 %. Two have to go, one would not be enough.
            let add = |name: &str| put(&store, name, &[layer(name, 4_930_000)]).digest;
            let record = |image: &Digest| store.path("records", &format!("{}.json", image.hex()));
            let age = |image: &Digest, hours: u32| {
                let file = std::fs::File::options().write(true).open(record(image)).expect("its record");
                file.set_modified(now - hour * hours).expect("set");
            };
            let [runs, retained, pinned, loaded] = ["runs:1", "retained:1", "pinned:1", "loaded:1"].map(add);
            store.set_pinned(&pinned, true).expect("pinned");
            let text = std::fs::read_to_string(record(&loaded)).expect("read").replace("\"pulled\"", "\"loaded\"");
            std::fs::write(record(&loaded), text).expect("written");
            [runs, retained, pinned, loaded].iter().for_each(|image| age(image, 99));
            for (name, hours) in
                [("e:1", 1), ("a:1", 50), ("c:1", 30), ("b:1", 40), ("d:1", 20), ("f:1", 0), ("g:1", 10), ("h:1", 11)]
            {
                age(&add(name), hours);
            }
            let full = store.used_percent().expect("looked at");
            assert!((86..95).contains(&full), "{full} %");
            let prune = |thresholds| {
                let keep = BTreeSet::from([runs, retained]);
                let older_than = Duration::from_secs(120);
                store.prune(&PruneOptions { keep, now, older_than, thresholds, loaded: false }).expect("pruned")
            };
            assert_eq!(prune(Some((full + 1, 80))), Removed::default(), "it is not that full");
            let removed = prune(Some((85, 80)));
            let gone: Vec<String> = removed.references.iter().map(|name| name.repository().to_owned()).collect();
            assert_eq!(gone, ["library/a", "library/b"]);
            let used = store.used_percent().expect("looked at");
            assert!((70..80).contains(&used), "{used} %");
            assert_eq!(prune(Some((85, 80))), Removed::default(), "it is no longer that full");
            // Whatever is asked for, what is needed, pinned, cannot come again or was used a moment ago stays.
            assert_eq!(prune(Some((1, 0))).images.len(), 5);
            assert_eq!(names(&store), ["f:1", "loaded:1", "pinned:1", "retained:1", "runs:1"]);
        });
    }
}
