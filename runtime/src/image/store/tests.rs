use super::*;
use crate::image::unpack::Compression;
use crate::image::unpack::testkit::{Item, dir, file, gzip, hardlink, isolated, root, symlink, tar};

pub(crate) fn put(store: &Store, name: &str, layers: &[Vec<u8>]) -> Image {
    try_put(store, name, layers).expect("recorded")
}

fn try_put(store: &Store, name: &str, layers: &[Vec<u8>]) -> Result<Image, StoreError> {
    let mut diff_ids = Vec::new();
    let mut descriptors = Vec::new();
    for layer in layers {
        let diff_id = Digest::of(layer);
        let blob = gzip(layer);
        if !store.has_layer(&diff_id) {
            let pending = store.unpack_layer(&diff_id, Compression::Gzip, &mut blob.as_slice()).expect("unpacked");
            assert!(!store.has_layer(&diff_id), "not before the commit");
            pending.commit().expect("committed");
        }
        diff_ids.push(diff_id.to_string());
        descriptors.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": Digest::of(&blob).to_string(), "size": blob.len()
        }));
    }
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": [name], "Env": null},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}
    })
    .to_string();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": {"digest": Digest::of(config.as_bytes()).to_string(), "size": config.len()},
        "layers": descriptors
    })
    .to_string();
    let reference = ImageRef::parse(name).expect("reference");
    store.put_image(Some(&reference), manifest.as_bytes(), config.as_bytes())
}

#[test]
fn images_share_layers_and_are_found_again() {
    if !root() {
        return;
    }
    let work = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(work.path()).expect("opened");
    let base = tar(&[dir("bin/"), file("bin/a", "12345")]);
    let one = put(&store, "one:1", &[base.clone(), tar(&[file("one", "1")])]);
    let two = put(&store, "two:1", &[base.clone(), tar(&[file("two", "22")]), base.clone()]);
    assert_eq!(std::fs::read_dir(work.path().join("layers")).expect("listed").count(), 3);
    assert_eq!((one.size, two.size), (6, 7));
    assert_eq!(two.diff_ids.len(), 3);
    assert_eq!(two.layers.len(), 2, "the same layer is stacked once");
    assert_eq!(two.layers.last(), one.layers.first(), "where it is uppermost");
    let again = Store::open(work.path()).expect("opened again");
    let found = again.image(&ImageRef::parse("one:1").expect("reference")).expect("read").expect("there");
    assert_eq!(found.digest, one.digest);
    assert!(again.image(&ImageRef::parse("one:2").expect("reference")).expect("read").is_none());
    assert_eq!(again.images().expect("listed").len(), 2);
}

#[test]
fn nothing_is_left_of_a_layer_that_was_not_committed() {
    if !root() {
        return;
    }
    let work = tempfile::tempdir().expect("temporary directory");
    let store = Store::open(work.path()).expect("opened");
    let layer = tar(&[dir("a/b/c/"), file("a/b/c/d", "x")]);
    let diff_id = Digest::of(&layer);
    let empty = |what: &str| {
        for name in ["tmp", "layers"] {
            assert_eq!(std::fs::read_dir(work.path().join(name)).expect("listed").count(), 0, "{what}: {name}");
        }
    };
    drop(store.unpack_layer(&diff_id, Compression::None, &mut layer.as_slice()).expect("unpacked"));
    empty("dropped");
    let wrong = Digest::of(b"other");
    assert!(store.unpack_layer(&wrong, Compression::None, &mut layer.as_slice()).is_err());
    empty("wrong diff id");
    let cut = &gzip(&layer)[..40];
    assert!(store.unpack_layer(&diff_id, Compression::Gzip, &mut &*cut).is_err());
    empty("cut off");
}

#[test]
fn a_layer_that_may_not_be_on_disk_is_not_believed_after_a_power_cut() {
    if !root() {
        return;
    }
    let work = tempfile::tempdir().expect("temporary directory");
    let boot = |id: &str| {
        let options = StoreOptions { boot_id: Some(id.to_owned()), ..StoreOptions::default() };
        Store::open_with(work.path(), options).expect("opened")
    };
    let store = boot("first");
    let kept = tar(&[file("a", "1")]);
    let lost = tar(&[file("b", "2")]);
    put(&store, "kept:1", std::slice::from_ref(&kept));
    let pending = store.unpack_layer(&Digest::of(&lost), Compression::None, &mut lost.as_slice()).expect("unpacked");
    pending.commit().expect("committed");
    assert!(boot("first").has_layer(&Digest::of(&lost)), "the agent's restart is no power cut");
    store.flush();
    let store = boot("second");
    assert!(store.has_layer(&Digest::of(&kept)));
    assert!(!store.has_layer(&Digest::of(&lost)));
    assert_eq!(std::fs::read_dir(work.path().join("layers")).expect("listed").count(), 1);
}

/// Each link leads twice through the one below it: forty layers stand for more paths than anybody can follow.
#[test]
fn layers_that_take_for_ever_to_put_together_are_refused() {
    isolated(|| {
        let work = tempfile::tempdir().expect("temporary directory");
        let limits = Limits { entries: 1000, ..Limits::default() };
        let options = StoreOptions { limits, ..StoreOptions::default() };
        let store = Store::open_with(work.path(), options).expect("opened");
        let mut links = vec![tar(&[symlink("s0", "."), symlink("z", ".")])];
        links.extend((1..=40).map(|i| tar(&[hardlink(&format!("s{i}"), &format!("s{0}/s{0}/z", i - 1))])));
        // The honest kind of the same: a directory that every layer uses and only the lowest describes.
        let mut honest = vec![tar(&[Item { mode: 0o700, ..dir("d") }])];
        honest.extend((0..40).map(|i| tar(&[file(&format!("d/{i}"), "")])));
        let many: Vec<_> = (0..50).map(|i| file(&format!("d{i}/f"), "")).collect();
        let directories: Vec<_> =
            (0..40).map(|i| tar(&[many.as_slice(), &[file(&format!("f{i}"), "")]].concat())).collect();
        for (name, layers, fits) in [("links", &links, false), ("honest", &honest, true), ("same", &directories, true)]
        {
            match try_put(&store, &format!("{name}:1"), layers) {
                Ok(_) => assert!(fits, "{name}"),
                Err(error) => {
                    let text = spec::causes::chain(&error);
                    assert!(
                        !fits && text.contains("put the layers together is above the limit of 16000"),
                        "{name}: {text}"
                    );
                    assert!(!error.is_transient(), "{name}");
                }
            }
        }
    });
}

/// Only a layer without a record was never finished. What cannot be read today may be read tomorrow, or by another version.
#[test]
fn a_layer_whose_record_cannot_be_read_is_not_thrown_away() {
    if !root() {
        return;
    }
    let layer = tar(&[file("f", "1")]);
    let diff_id = Digest::of(&layer);
    let other = Digest::of(b"other");
    let newer = format!(r#"{{"schema":99,"diff_id":"{diff_id}","size":1,"entries":1}}"#);
    let foreign = format!(r#"{{"schema":1,"diff_id":"{other}","size":1,"entries":1}}"#);
    for (name, record, stays, again) in [
        ("none", None, false, true),
        ("empty", Some(""), true, true),
        ("cut off", Some("{"), true, true),
        ("of another layer", Some(foreign.as_str()), true, true),
        ("of a newer version", Some(newer.as_str()), true, false),
        ("a directory", Some("/"), true, false),
    ] {
        let work = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(work.path()).expect("opened");
        put(&store, "a:1", std::slice::from_ref(&layer));
        store.flush();
        let path = store.layer_path(&diff_id);
        std::fs::remove_file(path.join("layer.json")).expect("removed");
        match record {
            Some("/") => std::fs::create_dir(path.join("layer.json")).expect("made"),
            Some(text) => std::fs::write(path.join("layer.json"), text).expect("written"),
            None => {}
        }
        let store = Store::open(work.path()).expect("opened again");
        assert_eq!(path.join("fs/f").exists(), stays, "{name}");
        assert!(!store.has_layer(&diff_id), "{name}");
        let pending = store.unpack_layer(&diff_id, Compression::None, &mut layer.as_slice()).expect("unpacked");
        assert_eq!(pending.commit().is_ok(), again, "{name}");
        assert!(path.join("fs/f").exists(), "{name}");
        assert_eq!(store.has_layer(&diff_id), again, "{name}");
    }
}
