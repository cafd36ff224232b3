//! Generations are written once for each state, kept within their number, and come back whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use spec::image_ref::ImageRef;
use spec::pod::{ContainerSpec, PodSpec};
use spec::secret::SecretBytes;
use spec::workload::{ConfigData, Controller, PodTemplate, SecretData, SourceRef, Workload, WorkloadKind};

use super::*;

fn state(image: &str, value: &str) -> (Desired, Images) {
    let id = WorkloadId { kind: WorkloadKind::Pod, namespace: "default".into(), name: "web".into() };
    let container = ContainerSpec {
        name: "main".into(),
        image: Some(ImageRef::parse(image).expect("a reference")),
        ..ContainerSpec::default()
    };
    let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
    let workload = Arc::new(Workload {
        id: id.clone(),
        source: SourceRef::default(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        controller: Controller::Single,
        template: PodTemplate { spec: Arc::new(spec), ..PodTemplate::default() },
        depends_on: Vec::new(),
    });
    let version = spec::plan::revision(&workload);
    let mut desired = Desired::default();
    desired.workloads.insert(id.clone(), workload);
    let key = |name: &str| ("default".to_owned(), name.to_owned());
    let config = ConfigData(BTreeMap::from([("file".to_owned(), value.as_bytes().to_vec())]));
    desired.configs.insert(key("map"), Arc::new(config));
    let secret = BTreeMap::from([("password".to_owned(), SecretBytes::new(b"hunter2".to_vec()))]);
    desired.secrets.insert(key("secret"), Arc::new(SecretData { data: secret, kind: "Opaque".into() }));
    let images = BTreeMap::from([("main".to_owned(), Digest::of(image.as_bytes()))]);
    (desired, BTreeMap::from([((id, version), images)]))
}

fn record(history: &mut History, image: &str, value: &str) -> Option<u64> {
    let (desired, images) = state(image, value);
    history
        .record(&Goals::new(&Arc::new(desired.clone())), &desired, &images, "r", BTreeMap::new(), 7)
        .expect("it can be written")
}

#[test]
fn each_state_is_written_once_and_the_oldest_go() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut history = History::open(dir.path(), 3).expect("opened");
    assert_eq!(record(&mut history, "app:1", "x"), Some(1));
    assert_eq!(record(&mut history, "app:1", "x"), None, "nothing is new");
    let mut history = History::open(dir.path(), 3).expect("opened again");
    assert_eq!(record(&mut history, "app:1", "x"), None, "nor after a restart");
    for number in 2..=5 {
        assert_eq!(record(&mut history, &format!("app:{number}"), "x"), Some(number));
    }
    assert_eq!(list(dir.path()).iter().map(|summary| summary.number).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(matches!(history.load(2), Err(HistoryError::Unknown(2))));
    let retained = std::fs::read_to_string(dir.path().join("image-roots/generations")).expect("written");
    let needs = |image: &str| retained.contains(&Digest::of(image.as_bytes()).to_string());
    assert!(needs("app:3") && !needs("app:2"), "{retained}");
}

#[test]
fn a_generation_comes_back_whole_and_sealed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut history = History::open(dir.path(), 3).expect("opened");
    record(&mut history, "app:1", "x");
    let (desired, images) = state("app:1", "x");
    let loaded = read(dir.path(), 1).expect("it is there");
    assert_eq!(loaded.images, images);
    assert_eq!(loaded.desired.workloads, desired.workloads);
    assert_eq!(loaded.desired.configs, desired.configs);
    assert_eq!(loaded.desired.secrets, desired.secrets);
    for entry in std::fs::read_dir(dir.path().join("generations")).expect("listed").flatten() {
        let bytes = std::fs::read(entry.path()).expect("read");
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "{:?}", entry.path());
    }
    std::fs::write(dir.path().join("generations/1.sealed"), b"damaged, and long enough").expect("written");
    assert!(matches!(read(dir.path(), 1), Err(HistoryError::Seal { .. })));
    assert_eq!(record(&mut history, "app:2", "x"), Some(2), "damage stops nothing");
}

#[test]
fn differences_name_fields_and_keys_but_no_values() {
    let of = |image: &str, value: &str| {
        let (desired, images) = state(image, value);
        Generation { desired, images }
    };
    let lines = |a: &Generation, b: &Generation| -> Vec<String> {
        compare(Some(a), b).iter().map(ToString::to_string).collect()
    };
    let (one, two) = (of("app:1", "x"), of("app:2", "secret text"));
    let found = lines(&one, &two);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("changed Pod/default/web: ") && found[0].contains("app:2"), "{found:?}");
    assert_eq!(found[1], "changed ConfigMap/default/map: file");
    assert_eq!(lines(&one, &one), Vec::<String>::new());
    let none = Generation { desired: Desired::default(), images: Images::new() };
    assert_eq!(lines(&one, &none).len(), 3);
    assert!(lines(&one, &none).iter().all(|line| line.starts_with("removed ")));
}

#[test]
fn what_was_let_through_is_kept_only_while_it_matters() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let history = History::open(dir.path(), 3).expect("opened");
    let (desired, _) = state("app:1", "x");
    history.save_applied(Some(&desired)).expect("written");
    assert_eq!(history.applied().expect("kept").workloads, desired.workloads);
    history.save_applied(None).expect("removed");
    history.save_applied(None).expect("nothing to remove is fine");
    assert!(history.applied().is_none());
}
