//! Which images must stay: what pods run on, what manifests name, what somebody else asked to keep.
//!
//! Pods are read from their records. Everything else is a file in `<data>/image-roots/`, with one reference or manifest
//! digest a line: what manifests name, what workloads may go back to, and whatever people put beside it. One file or
//! record that cannot be read makes the answer unknown, and then nothing is removed: what is removed by mistake may not
//! come back.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use runtime::image::store::{Store, StoreError};
use spec::digest::Digest;
use spec::image_ref::ImageRef;
use spec::observed::{PodRecord, volume_image};
use spec::pod::VolumeSource;
use spec::workload::Desired;

/// The file of what manifests name.
pub const MANIFESTS: &str = "manifests";
/// The file of what workloads may go back to.
pub const VERSIONS: &str = "versions";

/// Why nobody can tell which images are needed.
#[derive(Debug, thiserror::Error)]
#[error("cannot tell which images are needed: cannot read {}", path.display())]
pub struct RootsError {
    /// The record or file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

fn failed<E: std::error::Error + Send + Sync + 'static>(path: &Path) -> impl FnOnce(E) -> RootsError {
    let path = path.to_owned();
    move |source| RootsError { path, source: Box::new(source) }
}

/// Manifest digests of the images that pods of this host were made from.
///
/// # Errors
/// A record cannot be read.
pub fn of_pods(data: &Path, store: &Store) -> Result<BTreeSet<Digest>, RootsError> {
    let dir = data.join("pods");
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(failed(&dir)(error)),
    };
    let mut used = BTreeSet::new();
    for entry in entries {
        let path = entry.map_err(failed(&dir))?.path().join("pod.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // A pod that is being made or removed has no record yet, or no more, and no container.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(&path)(error)),
        };
        let record: PodRecord = serde_json::from_slice(&bytes).map_err(failed(&path))?;
        used.extend(record.images.values().copied());
        // An older record does not tell what the images of its volumes stood for.
        for volume in &record.spec.volumes {
            if let VolumeSource::Image { image, .. } = &volume.source
                && !record.images.contains_key(&volume_image(&volume.name))
            {
                used.extend(resolve(store, image).map_err(failed(&path))?);
            }
        }
    }
    Ok(used)
}

/// Everything that is not to be removed: [`of_pods`], and what the files of `<data>/image-roots/` name.
///
/// # Errors
/// A record or a file cannot be read.
pub fn all(data: &Path, store: &Store) -> Result<BTreeSet<Digest>, RootsError> {
    let mut keep = of_pods(data, store)?;
    let dir = data.join("image-roots");
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(keep),
        Err(error) => return Err(failed(&dir)(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed(&dir))?.path();
        // A file that is being written, or was when its writer ended.
        if path.extension().is_some_and(|extension| extension == "tmp") {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(failed(&path))?;
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.parse::<Digest>() {
                Ok(digest) => {
                    keep.insert(digest);
                }
                Err(_) => {
                    let reference = ImageRef::parse(line).map_err(failed(&path))?;
                    keep.extend(resolve(store, &reference).map_err(failed(&path))?);
                }
            }
        }
    }
    Ok(keep)
}

fn resolve(store: &Store, reference: &ImageRef) -> Result<Option<Digest>, StoreError> {
    Ok(store.image(reference)?.map(|image| image.digest))
}

/// Every image that a desired state names, of pods that run only now and then as well.
#[must_use]
pub fn named(desired: &Desired) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for workload in desired.workloads.values() {
        let spec = &workload.template.spec;
        named.extend(spec.all_containers().filter_map(|container| container.image.as_ref()).map(ToString::to_string));
        named.extend(spec.volumes.iter().filter_map(|volume| match &volume.source {
            VolumeSource::Image { image, .. } => Some(image.to_string()),
            _ => None,
        }));
    }
    named
}

/// Notes what one part of the agent needs: references or manifest digests.
///
/// # Errors
/// The file cannot be written; the one before stays.
pub fn note(data: &Path, part: &str, needed: &BTreeSet<String>) -> std::io::Result<()> {
    let dir = data.join("image-roots");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(part);
    let text: String = needed.iter().map(|name| format!("{name}\n")).collect();
    if std::fs::read_to_string(&path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    crate::record::write_bytes(&path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spec::observed::PodUid;
    use spec::pod::{PodSpec, Volume};

    use super::*;

    #[test]
    fn a_volume_keeps_the_image_that_the_pod_was_made_with() {
        let work = tempfile::tempdir().expect("temporary directory");
        let data = work.path();
        let store = Store::open(&data.join("images")).expect("a store");
        let name = ImageRef::parse("data:1").expect("a reference");
        let put = |label: &str| {
            let config = format!(r#"{{"config":{{"Cmd":["{label}"]}},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#);
            let digest = Digest::of(config.as_bytes());
            let manifest = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":1}},"layers":[]}}"#);
            store.put_image(Some(&name), manifest.as_bytes(), config.as_bytes()).expect("recorded").digest
        };
        let (old, new) = (put("old"), put("new"));
        let source = VolumeSource::Image { image: name.clone(), pull_policy: None };
        let volume = Volume { name: "files".to_owned(), source };
        let spec = Arc::new(PodSpec { volumes: vec![volume], ..PodSpec::default() });
        let mut record = PodRecord {
            uid: PodUid("00".to_owned()),
            workload: spec::workload::WorkloadId {
                kind: spec::workload::WorkloadKind::Pod,
                namespace: "default".into(),
                name: "web".into(),
            },
            ordinal: 0,
            revision: String::new(),
            name: "web-0".to_owned(),
            labels: Default::default(),
            annotations: Default::default(),
            run: None,
            bound: Default::default(),
            depends_on: Vec::new(),
            source: Default::default(),
            spec,
            images: [(volume_image("files"), old)].into(),
            created_unix: 0,
            created: spec::time::Timestamp(0),
            boot_id: String::new(),
        };
        std::fs::create_dir_all(data.join("pods/00")).expect("made");
        for (images, expected) in [(record.images.clone(), old), (Default::default(), new)] {
            record.images = images;
            let text = serde_json::to_string(&record).expect("JSON");
            std::fs::write(data.join("pods/00/pod.json"), text).expect("written");
            assert_eq!(of_pods(data, &store).expect("read"), BTreeSet::from([expected]));
        }
    }

    #[test]
    fn what_cannot_be_read_makes_the_answer_unknown() {
        let work = tempfile::tempdir().expect("temporary directory");
        let data = work.path();
        let store = Store::open(&data.join("images")).expect("a store");
        let digest = Digest::of(b"x");
        assert!(all(data, &store).expect("nothing is there").is_empty());
        note(data, MANIFESTS, &BTreeSet::from(["docker.io/library/nginx:1".to_owned()])).expect("written");
        let roots = data.join("image-roots");
        std::fs::write(roots.join("generations"), format!("{digest}\n")).expect("written");
        std::fs::write(roots.join("half.tmp"), "sha256:zz").expect("written");
        assert_eq!(all(data, &store).expect("read"), BTreeSet::from([digest]));
        std::fs::write(roots.join("other"), "not a name\n").expect("written");
        all(data, &store).expect_err("a line that means nothing");
        std::fs::remove_file(roots.join("other")).expect("removed");
        std::fs::create_dir_all(data.join("pods/a")).expect("made");
        assert_eq!(all(data, &store).expect("a pod without a record"), BTreeSet::from([digest]));
        std::fs::write(data.join("pods/a/pod.json"), "{").expect("written");
        all(data, &store).expect_err("a broken record");
        of_pods(data, &store).expect_err("a broken record");
    }
}
