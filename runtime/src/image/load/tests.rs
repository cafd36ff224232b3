mod flat;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spec::digest::Digest;

use super::*;
use crate::image::store::StoreOptions;
use crate::image::unpack::Limits;
use crate::image::unpack::testkit::{Item, dir, file, gzip, hardlink, isolated, item, pax, symlink, tar, tree};

/// Files of a layout or archive by path.
type Files = BTreeMap<String, Vec<u8>>;

struct Layout {
    files: Files,
}

fn config(layers: &[Vec<u8>], architecture: &str) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
    .into_bytes()
}

fn host() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

impl Layout {
    fn new() -> Self {
        let mut files = Files::new();
        files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        Self { files }
    }

    fn blob(&mut self, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        self.files.insert(format!("blobs/sha256/{}", digest.hex()), bytes.to_vec());
        json!({"digest": digest, "size": bytes.len()})
    }

    /// A manifest with its blobs; its descriptor.
    fn image(&mut self, layers: &[Vec<u8>], architecture: &str) -> Value {
        let config = self.blob(&config(layers, architecture));
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(&gzip(layer))).collect();
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        let mut descriptor = self.blob(manifest.to_string().as_bytes());
        descriptor["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
        descriptor
    }

    fn index(&mut self, manifests: &[Value]) -> Value {
        let mut descriptor = self.blob(json!({"schemaVersion": 2, "manifests": manifests}).to_string().as_bytes());
        descriptor["mediaType"] = "application/vnd.oci.image.index.v1+json".into();
        descriptor
    }

    fn with_index(mut self, manifests: &[Value]) -> Files {
        self.files.insert("index.json".into(), json!({"schemaVersion": 2, "manifests": manifests}).to_string().into());
        self.files
    }
}

fn named(mut descriptor: Value, name: &str) -> Value {
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    descriptor
}

fn on(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
    descriptor
}

fn archive(files: &Files) -> Vec<u8> {
    let items = files.iter().map(|(path, bytes)| Item { data: bytes.clone(), ..file(path, "") });
    tar(&items.collect::<Vec<_>>())
}

fn directory(files: &Files, at: &Path) {
    for (path, bytes) in files {
        let path = at.join(path);
        std::fs::create_dir_all(path.parent().expect("has one")).expect("made");
        std::fs::write(path, bytes).expect("written");
    }
}

struct Setup {
    work: tempfile::TempDir,
    store: Store,
}

fn setup() -> Setup {
    let work = tempfile::tempdir().expect("temporary directory");
    let limits = Limits { reserve_bytes: Some(0), ..Limits::default() };
    let options = StoreOptions { limits, boot_id: None };
    let store = Store::open_with(&work.path().join("images"), options).expect("opened");
    Setup { work, store }
}

impl Setup {
    fn load(&self, name: &str, bytes: &[u8]) -> Result<Vec<(Option<ImageRef>, Image)>, StoreError> {
        let path = self.work.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        load(&self.store, &path)
    }

    fn names(&self, name: &str, files: &Files) -> Vec<String> {
        let loaded = self.load(name, &archive(files)).unwrap_or_else(|e| panic!("{name}: {e}"));
        loaded.iter().map(|(name, _)| name.as_ref().map_or("-".to_owned(), ToString::to_string)).collect()
    }
}

fn two_layers() -> [Vec<u8>; 2] {
    [tar(&[dir("d"), file("d/a", "1"), file("d/b", "2")]), tar(&[dir("d"), file("d/.wh.a", ""), file("c", "3")])]
}

#[test]
fn the_same_image_is_loaded_from_every_container() {
    isolated(|| {
        let mut layout = Layout::new();
        let image = layout.image(&two_layers(), host());
        let files = layout.with_index(&[named(image, "web:1")]);
        let bytes = archive(&files);
        let mut digests = Vec::new();
        for (name, bytes) in [
            ("plain.tar", bytes.clone()),
            ("packed.tar.gz", gzip(&bytes)),
            ("packed.tar.zst", zstd::encode_all(bytes.as_slice(), 3).expect("memory")),
        ] {
            let setup = setup();
            let loaded = setup.load(name, &bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
            digests.push(loaded[0].1.digest);
            let reference = ImageRef::parse("web:1").expect("reference");
            let image = setup.store.image(&reference).expect("read").expect("there");
            assert_eq!((image.layers.len(), image.origin), (2, Origin::Loaded), "{name}");
            assert_eq!(std::fs::read_dir(setup.store.root().join("tmp")).expect("listed").count(), 0, "{name}");
        }
        let setup = setup();
        let layout = setup.work.path().join("layout");
        directory(&files, &layout);
        digests.push(load(&setup.store, &layout).expect("loaded")[0].1.digest);
        digests.dedup();
        assert_eq!(digests.len(), 1, "one image, one digest");
    });
}

#[test]
fn names_and_platforms_are_chosen_as_the_index_says() {
    isolated(|| {
        let layers = two_layers();
        let other = [layers[0].clone()];
        let host_layer = std::slice::from_ref(&layers[1]);

        let mut l = Layout::new();
        let (a, b) = (l.image(&layers, host()), l.image(&other, "s390x"));
        let index = l.index(&[on(b.clone(), "s390x"), on(a.clone(), host())]);
        let nested = l.index(&[index]);
        let files = l.with_index(&[named(nested, "ghcr.io/o/multi:2")]);
        assert_eq!(setup().names("nested.tar", &files), ["ghcr.io/o/multi:2"]);

        let mut l = Layout::new();
        let (a, b) = (l.image(host_layer, host()), l.image(&other, "s390x"));
        let files = l.with_index(&[on(b, "s390x"), on(a, host())]);
        let s = setup();
        assert_eq!(s.names("flat.tar", &files), ["-"]);
        assert_eq!(s.store.images().expect("listed")[0].diff_ids, [Digest::of(&layers[1])]);

        let mut l = Layout::new();
        let (a, b) = (l.image(host_layer, host()), l.image(&other, host()));
        let files = l.with_index(&[named(a, "one:1"), named(b, "v2")]);
        let names = setup().names("several.oci.tar", &files);
        assert_eq!(names, ["docker.io/library/one:1", "localhost/several:v2"]);

        let mut l = Layout::new();
        let b = l.image(&other, "s390x");
        let files = l.with_index(&[on(b, "s390x")]);
        let error = setup().load("foreign.tar", &archive(&files)).expect_err("refused").to_string();
        assert!(error.contains("linux/s390x"), "{error}");

        // Whatever the index says, or leaves out.
        for (platform, name) in [(Some(host()), None), (None, None), (None, Some("a:1"))] {
            let mut l = Layout::new();
            let mut b = l.image(&other, "s390x");
            b = platform.map_or(b.clone(), |platform| on(b.clone(), platform));
            b = name.map_or(b.clone(), |name| named(b.clone(), name));
            let s = setup();
            let error = s.load("foreign.tar", &archive(&l.with_index(&[b]))).expect_err("refused").to_string();
            assert!(error.contains("the image is for linux/s390x, not for linux/"), "{error}");
            assert!(s.store.images().expect("listed").is_empty());
        }

        let mut l = Layout::new();
        let a = l.image(host_layer, host());
        let attestation = l.image(&other, "unknown");
        let attestation = json!({"annotations": {"vnd.docker.reference.type": "attestation-manifest"},
            "digest": attestation["digest"], "mediaType": attestation["mediaType"],
            "platform": {"os": "unknown", "architecture": "unknown"}});
        let index = l.index(&[on(a, host()), attestation]);
        let index = json!({"digest": index["digest"], "mediaType": index["mediaType"],
            "annotations": {"io.containerd.image.name": "docker.io/library/app:3", "org.opencontainers.image.ref.name": "3"}});
        let files = l.with_index(&[index]);
        assert_eq!(setup().names("buildkit.tar", &files), ["docker.io/library/app:3"]);
    });
}

fn docker_files(layers: &[Vec<u8>], tags: &[&str]) -> Files {
    let mut files = Files::new();
    let config = config(layers, host());
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let names: Vec<String> = (0..layers.len()).map(|n| format!("l{n}/layer.tar")).collect();
    for (name, layer) in names.iter().zip(layers) {
        files.insert(name.clone(), layer.clone());
    }
    files.insert(config_name.clone(), config);
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]);
    files.insert("manifest.json".into(), manifest.to_string().into_bytes());
    files
}

#[test]
fn docker_archives_are_loaded() {
    isolated(|| {
        let layers = two_layers();
        let s = setup();
        let names = s.names("docker.tar", &docker_files(&layers, &["app:1", "app:latest"]));
        assert_eq!(names, ["docker.io/library/app:1", "docker.io/library/app:latest"]);
        assert_eq!(s.store.images().expect("listed").len(), 1);
        assert_eq!(setup().names("nameless.tar", &docker_files(&layers, &[])), ["-"]);
        // Equal layers as links to each other, as docker did for years; and compressed layers.
        let mut files = docker_files(&[layers[0].clone(), layers[0].clone()], &["twice:1"]);
        files.remove("l1/layer.tar");
        let mut items: Vec<Item> = files.iter().map(|(n, b)| Item { data: b.clone(), ..file(n, "") }).collect();
        items.push(symlink("l1/layer.tar", "../l0/layer.tar"));
        assert_eq!(setup().load("links.tar", &tar(&items)).expect("loaded")[0].1.layers.len(), 1);
        let mut files = docker_files(&layers, &["packed:1"]);
        files.insert("l0/layer.tar".into(), gzip(&layers[0]));
        assert_eq!(setup().names("packed.tar", &files), ["docker.io/library/packed:1"]);
    });
}

#[test]
fn what_is_not_as_it_says_is_refused() {
    isolated(|| {
        let layers = two_layers();
        let good = || {
            let mut l = Layout::new();
            let image = l.image(&layers, host());
            (l, named(image, "web:1"))
        };
        let mut cases: Vec<(&str, Files, &str)> = Vec::new();
        let (l, image) = good();
        let mut files = l.with_index(&[image]);
        for bytes in files.values_mut().filter(|bytes| bytes.starts_with(&[0x1f, 0x8b])) {
            bytes[9] ^= 1;
        }
        cases.push(("another byte in a layer", files, "digest"));
        for (name, digest) in [
            ("a path for a digest", "sha256:../../../../etc/passwd".to_owned()),
            ("an absolute path", "/etc/passwd".to_owned()),
            ("another algorithm", format!("sha512:{}", "a".repeat(128))),
            ("a digest that is not there", format!("sha256:{}", "a".repeat(64))),
        ] {
            let (l, mut image) = good();
            image["digest"] = digest.into();
            cases.push((name, l.with_index(&[image]), if name.starts_with("a digest") { "missing" } else { "digest" }));
        }
        let (l, image) = good();
        let mut files = l.with_index(&[image]);
        files.retain(|name, bytes| !name.contains("blobs") || !bytes.starts_with(&[0x1f, 0x8b]));
        cases.push(("missing layers", files, "missing"));
        let (l, image) = good();
        cases.push(("a bad name", l.with_index(&[named(image, "../../x:1")]), "reference"));
        cases.push(("no index", Layout::new().files, "neither"));
        cases.push(("an empty index", Layout::new().with_index(&[]), "no image"));
        let (mut l, image) = good();
        l.files.insert("index.json".into(), b"{".to_vec());
        cases.push(("half an index", l.files, "index"));
        let mut l = Layout::new();
        let mut nested = l.image(&layers, host());
        for _ in 0..7 {
            nested = l.index(&[nested]);
        }
        cases.push(("indexes without end", l.with_index(&[nested]), "nested too deep"));
        let mut l = Layout::new();
        let mut nested = l.image(&layers, host());
        for _ in 0..4 {
            nested = l.index(&vec![nested; 20]);
        }
        cases.push(("an index bomb", l.with_index(&[nested]), "too many"));
        let mut files = docker_files(&layers, &["a:1"]);
        let manifest = String::from_utf8(files["manifest.json"].clone()).expect("text");
        files.insert("manifest.json".into(), manifest.replace("l0/layer.tar", "../../etc/passwd").into_bytes());
        cases.push(("a path out of a docker archive", files, "outside"));
        let mut files = docker_files(&layers, &["a:1"]);
        files.insert("l0/layer.tar".into(), tar(&[file("other", "")]));
        cases.push(("another docker layer", files, "unpack layer"));
        let mut files = docker_files(&layers, &["a:1"]);
        files.insert("manifest.json".into(), manifest.replace(",\"l1/layer.tar\"", "").into_bytes());
        cases.push(("a layer too few", files, "layers"));
        for (name, files, expected) in cases {
            let s = setup();
            let error = s.load("x.tar", &archive(&files)).map(|_| ()).expect_err(name);
            assert!(error.to_string().contains(expected), "{name}: {error}");
            let layout = s.work.path().join("layout");
            directory(&files, &layout);
            load(&s.store, &layout).map(|_| ()).expect_err(name);
            assert!(s.store.images().expect("listed").is_empty(), "{name}");
            assert_eq!(std::fs::read_dir(s.store.root().join("tmp")).expect("listed").count(), 0, "{name}");
        }
        // Small archives that would take much memory.
        let mut l = Layout::new();
        let padded = [config(&[], host()), vec![b' '; 7 << 20]].concat();
        let padded = l.blob(&padded);
        let manifests: Vec<Value> = (0..12)
            .map(|n| {
                let manifest =
                    json!({"schemaVersion": 2, "config": padded, "layers": [], "annotations": {"n": n.to_string()}});
                let mut descriptor = l.blob(manifest.to_string().as_bytes());
                descriptor["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
                named(descriptor, &format!("many:{n}"))
            })
            .collect();
        let s = setup();
        let error = s.load("x.tar", &archive(&l.with_index(&manifests))).map(|_| ()).expect_err("padded").to_string();
        assert!(error.contains("larger than"), "{error}");
        let long = |n: usize| pax(&[("path", &format!("{n}/{}", "n".repeat(900_000)))], file("f", ""));
        let error = s.load("x.tar", &tar(&(0..20).map(long).collect::<Vec<_>>())).map(|_| ()).expect_err("names");
        assert!(spec::causes::chain(&error).contains("the length of all names"), "{error}");
        drop(image);
        for (name, bytes) in [
            ("text", b"no archive".repeat(99)),
            ("cut", archive(&docker_files(&layers, &[]))[..3000].to_vec()),
            ("empty", Vec::new()),
            ("a path", tar(&[file("../index.json", "{}")])),
            ("a link out", tar(&[symlink("index.json", "../../etc/passwd")])),
            ("a hard link out", tar(&[hardlink("index.json", "../x")])),
            ("links in a circle", tar(&[symlink("index.json", "a"), symlink("a", "index.json")])),
            ("a fifo", tar(&[item(b'6', "index.json")])),
        ] {
            s.load("x.tar", &bytes).map(|_| ()).expect_err(name);
        }
        // In a directory: links lead nowhere outside, and a fifo does not hang the load.
        let layout = s.work.path().join("links");
        std::fs::create_dir(&layout).expect("made");
        std::os::unix::fs::symlink("/etc/passwd", layout.join("index.json")).expect("linked");
        assert!(load(&s.store, &layout).expect_err("refused").to_string().contains("neither"));
        std::fs::remove_file(layout.join("index.json")).expect("removed");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, layout.join("index.json"), rustix::fs::FileType::Fifo, mode, 0)
            .expect("made");
        assert!(load(&s.store, &layout).expect_err("refused").to_string().contains("no regular file"));
    });
}

#[test]
fn a_failed_unpack_leaves_nothing() {
    isolated(|| {
        let s = setup();
        let path = s.work.path().join("image.tar");
        let bad = [two_layers()[0].clone(), tar(&[file("x", ""), file("../../victim", "evil")])];
        std::fs::write(&path, archive(&docker_files(&bad, &["flat:1"]))).expect("written");
        let absent = s.work.path().join("absent");
        unpack_to(Source::Path(&path, None), &absent, s.store.limits()).expect_err("refused");
        assert!(!absent.exists());
        let empty = s.work.path().join("empty");
        std::fs::create_dir(&empty).expect("made");
        unpack_to(Source::Path(&path, None), &empty, s.store.limits()).expect_err("refused");
        assert_eq!(std::fs::read_dir(&empty).expect("still there").count(), 0);
        let full = s.work.path().join("full");
        std::fs::create_dir(&full).expect("made");
        std::fs::write(full.join("mine"), "1").expect("written");
        let error = unpack_to(Source::Path(&path, None), &full, s.store.limits()).expect_err("refused");
        assert!(error.to_string().contains("not empty"), "{error}");
        assert!(full.join("mine").exists());
    });
}

/// A crash leaves the directory that was worked in, and nothing else where nothing was.
#[test]
fn what_a_crash_has_left_is_in_nobodys_way() {
    isolated(|| {
        let s = setup();
        let path = s.work.path().join("image.tar");
        std::fs::write(&path, archive(&docker_files(&two_layers(), &["flat:1"]))).expect("written");
        let unpack = |to: &Path| unpack_to(Source::Path(&path, None), to, s.store.limits());
        let names = |at: &Path| {
            let mut names: Vec<_> =
                std::fs::read_dir(at).expect("listed").map(|e| e.expect("entry").file_name()).collect();
            names.sort();
            names
        };
        for there in [false, true] {
            let work = tempfile::tempdir_in(s.work.path()).expect("temporary directory");
            let destination = work.path().join("to");
            if there {
                std::fs::create_dir(&destination).expect("made");
            }
            let staging = match there {
                true => destination.join(".mainstay-unpack"),
                false => work.path().join(format!(".mainstay-unpack-{}", &Digest::of(b"to").hex()[..12])),
            };
            std::fs::create_dir_all(staging.join("root/half")).expect("made");
            let lock = crate::image::store::open_path(&staging).expect("open");
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
            let error = unpack(&destination).expect_err("somebody works there").to_string();
            assert!(error.contains("another command"), "{error}");
            assert!(staging.join("root/half").exists());
            drop(lock);
            unpack(&destination).expect("what nobody works in is left from a crash");
            assert_eq!(names(work.path()), ["to"]);
            assert_eq!(names(&destination), ["c", "d"]);
            let error = unpack(&destination).expect_err("it is there").to_string();
            assert!(error.contains("not empty"), "{error}");
        }
    });
}

#[test]
fn what_is_no_image_is_not_loaded() {
    isolated(|| {
        let check = |name: &str, change: &dyn Fn(&mut Value), expected: &str| {
            let s = setup();
            let mut layout = Layout::new();
            let layer = two_layers()[0].clone();
            let config = layout.blob(&config(std::slice::from_ref(&layer), host()));
            let mut manifest = json!({"schemaVersion": 2, "config": config, "layers": [layout.blob(&layer)]});
            change(&mut manifest);
            let descriptor = layout.blob(manifest.to_string().as_bytes());
            let files = layout.with_index(&[descriptor]);
            let error = s.load("x.tar", &archive(&files)).expect_err(name).to_string();
            assert!(error.contains(expected), "{name}: {error}");
        };
        let helm = "application/vnd.cncf.helm.config.v1+json";
        check("a chart", &|m| m["config"]["mediaType"] = helm.into(), "artifact of type");
        check("schema 1", &|m| m["schemaVersion"] = 1.into(), "schema version 1");
        check("layers of schema 1", &|m| m["fsLayers"] = json!([]), "schema version 1");
        check("an unknown layer", &|m| m["layers"][0]["mediaType"] = "application/x-evil".into(), "media type");
        check("another mediaType", &|m| m["mediaType"] = "text/plain".into(), "media type is `text/plain`");
    });
}

#[test]
fn an_unpacked_image_keeps_its_holes_and_leaves_room() {
    isolated(|| {
        use std::os::unix::fs::MetadataExt as _;
        let s = setup();
        let size = (100_u64 << 20).to_string();
        let holes =
            pax(&[("GNU.sparse.size", size.as_str()), ("GNU.sparse.map", "5000000,3,90000000,2")], file("f", "abcde"));
        let ends = pax(&[("GNU.sparse.size", "50000000"), ("GNU.sparse.map", "")], file("empty", ""));
        let layers = [tar(&[holes, ends, file("full", &"x".repeat(6 << 20))])];
        s.load("holes.tar", &archive(&docker_files(&layers, &["holes:1"]))).expect("loaded");
        let image = s.store.image(&ImageRef::parse("holes:1").expect("reference")).expect("read").expect("there");
        let to = s.work.path().join("to");
        unpack_to(Source::Stored(&s.store, &image), &to, s.store.limits()).expect("unpacked");
        for (name, size, at_most) in [("f", 100 << 20, 64), ("empty", 50_000_000, 0), ("full", 6 << 20, 6 << 11)] {
            let meta = std::fs::metadata(to.join(name)).expect("there");
            assert_eq!(meta.len(), size, "{name}");
            assert!(meta.blocks() <= at_most, "{name}: {} blocks", meta.blocks());
            let (a, b) = (image.layers[0].join(name), to.join(name));
            assert!(std::fs::read(a).expect("read") == std::fs::read(b).expect("read"), "{name}");
        }
        let disk = Path::new("/tmp/small");
        std::fs::create_dir(disk).expect("made");
        let none = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), disk, Some("tmpfs"), none, Some("size=8m")).expect("mounted");
        let limits = Limits { reserve_bytes: Some(7 << 20), ..s.store.limits().clone() };
        for _ in 0..2 {
            let there = unpack_to(Source::Stored(&s.store, &image), &disk.join("to"), &limits);
            if disk.join("to").exists() {
                std::fs::remove_dir_all(disk.join("to")).expect("removed");
                panic!("it leaves no room: {there:?}");
            }
            let error = there.expect_err("no room");
            assert!(error.is_shortage(), "{error}");
            assert_eq!(std::fs::read_dir(disk).expect("listed").count(), 0);
        }
    });
}

#[test]
fn a_full_disk_is_seen_before_anything_is_loaded() {
    isolated(|| {
        let disk = Path::new("/tmp/small");
        std::fs::create_dir(disk).expect("made");
        let none = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), disk, Some("tmpfs"), none, Some("size=8m,nr_inodes=8000")).expect("mounted");
        let many = |name: &str| tar(&(0..3000).map(|i| file(&format!("{name}{i}"), "")).collect::<Vec<_>>());
        let big = tar(&[file("f", &"x".repeat(6 << 20))]);
        let base = Limits { reserve_bytes: Some(0), reserve_inodes: Some(0), ..Limits::default() };
        for (name, layers, limits, expected) in [
            (
                "bytes",
                vec![tar(&[]), big],
                Limits { reserve_bytes: Some(4 << 20), ..base.clone() },
                "no room for the image",
            ),
            (
                "inodes",
                vec![many("a"), many("b")],
                Limits { reserve_inodes: Some(3000), ..base.clone() },
                "more files, and 3000",
            ),
            (
                "entries",
                vec![many("a"), many("b")],
                Limits { image_entries: 5000, ..base.clone() },
                "the limit of 5000",
            ),
        ] {
            let options = StoreOptions { limits: limits.clone(), boot_id: None };
            let store = Store::open_with(&disk.join(name), options).expect("opened");
            let path = Path::new("/tmp/image.tar");
            std::fs::write(path, archive(&docker_files(&layers, &["a:1"]))).expect("written");
            let error = load(&store, path).expect_err("refused");
            let text = spec::causes::chain(&error);
            assert!(text.contains(expected), "{name}: {text}");
            assert_eq!((error.is_shortage(), error.is_transient()), (name != "entries", name != "entries"), "{name}");
            assert!(store.images().expect("listed").is_empty(), "{name}");
            let layers = std::fs::read_dir(store.root().join("layers")).expect("listed").count();
            assert_eq!(
                layers,
                ["bytes", "inodes", "entries"].iter().position(|n| *n == name).expect("known"),
                "{name}"
            );
            std::fs::remove_dir_all(disk.join(name)).expect("removed");
            if name == "entries" {
                let error = unpack_to(Source::Path(path, None), &disk.join("to"), &limits).expect_err("refused");
                assert!(spec::causes::chain(&error).contains(expected), "{error}");
            }
        }
    });
}
