//! What an earlier version has remembered is understood: last good manifests, generations, versions, ends of runs, orders,
//! events.
//!
//! `fixtures/data-N` is a data directory as version N of these records has written it. A new version of a record adds a
//! directory and changes no old one; `MAINSTAY_KEEP_DATA=DIR` writes the present form to DIR. Records of pods are in
//! `tests/fixtures`.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::clock::HostClock;
use agent::events::{Event, EventKind, Filter, Journal, Word};
use agent::history::{self, History, Images};
use agent::memory::Memories;
use agent::orders::{Orders, Pin};
use agent::reconciler::Reading;
use agent::source::Sources;
use agent::telemetry::Metrics;
use agent::versions::Versions;
use spec::digest::Digest;
use spec::observed::{JobMemory, PodUid};
use spec::plan::{Bad, Cause, Crashes, Goals, Memory, Trial, Version};
use spec::time::Timestamp;
use spec::workload::{WorkloadId, WorkloadKind};

/// What is kept, one for each version of a record.
const KEPT: &[&str] = &["data-1"];

/// Where the manifests were; nothing is there any more.
const SOURCE: &str = "/var/empty/mainstay-kept-records";

const MANIFESTS: &str = r"
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {password: hunter2}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: main
          image: registry.example.org/web:1
          env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}}]
";

fn web() -> WorkloadId {
    WorkloadId { kind: WorkloadKind::Deployment, namespace: "default".into(), name: "web".into() }
}

fn read(source: &Path, data: &Path) -> Option<Reading> {
    let orders = Orders::open(data);
    let (roots, labels) = (vec![source.to_owned()], BTreeMap::new());
    let sources = Sources::open(roots, data.to_owned(), labels, Arc::new(HostClock), Metrics::default(), orders);
    sources.expect("the key can be read").read()
}

/// Writes one of everything.
fn keep(data: &Path) {
    let source = Path::new(SOURCE);
    std::fs::create_dir_all(source).expect("the directory can be made");
    std::fs::write(source.join("web.yaml"), MANIFESTS).expect("the directory is ours");
    let desired = read(source, data).expect("it is new").desired;
    std::fs::remove_dir_all(source).expect("the directory is ours");
    let goals = Goals::new(&Arc::new(desired.clone()));
    let workload = Arc::clone(&desired.workloads[&web()]);
    let label = goals.workloads[&web()].revision.clone();
    let resolved = BTreeMap::from([("main".to_owned(), Digest::of(b"image"))]);
    let images = Images::from([((web(), label.clone()), resolved.clone())]);
    let commits = BTreeMap::from([("fleet".to_owned(), "0123456789abcdef".to_owned())]);
    let mut history = History::open(data, 10).expect("a new one");
    history.record(&goals, &desired, &images, "r", commits, 7).expect("written");
    history.save_applied(Some(&desired)).expect("written");
    let version = |label: &str| Version {
        label: label.to_owned(),
        workload: Arc::clone(&workload),
        objects: Arc::new(desired.clone()),
        images: resolved.clone(),
    };
    let crashes = Crashes { count: 1, attempt: 2, first: Timestamp(3), last: Timestamp(4), code: 5 };
    let trial = Trial {
        version: version("two"),
        boot_id: "a boot".to_owned(),
        since: Timestamp(1),
        progress: Timestamp(2),
        best: 1,
        proven: false,
        crashes: BTreeMap::from([(PodUid("u".to_owned()), BTreeMap::from([("main".to_owned(), crashes)]))]),
    };
    let bad = Bad { revision: label, cause: Cause::OutOfMemory { container: "main".to_owned() } };
    let memory =
        Memory { good: Some(version("one")), trial: Some(trial), bad: BTreeMap::from([("three".to_owned(), bad)]) };
    Versions::open(data).expect("a new one").0.write(&web(), &memory);
    Memories::new(data).set(&web(), Some(&ended())).expect("written");
    let ordered = Orders::open(data).change(|standing| {
        standing.paused.insert("*".to_owned(), 7);
        standing.pinned = Some(Pin { generation: 1, revision: "r".to_owned() });
        standing.drained = Some(8);
        standing.protected.insert(web().to_string());
    });
    ordered.expect("written");
    let journal = Journal::open(&data.join("events"), None).expect("a new one");
    // A word that this version has not is read as it is.
    let event = Event::of_node(7, EventKind::Warning, Word::HELD, "told".to_owned());
    journal.record(Event { reason: "kept".to_owned(), ..event });
}

fn ended() -> JobMemory {
    JobMemory { settled: Some(1), last_run: Some(2), last_success: Some(3), ..JobMemory::default() }
}

/// Copies a directory for root alone, as the agent writes it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the directory is ours");
    for entry in std::fs::read_dir(from).expect("the directory is there").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("the directory is ours");
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
        }
    }
}

#[test]
fn what_every_version_has_remembered_is_known() {
    if let Some(dir) = std::env::var_os("MAINSTAY_KEEP_DATA") {
        keep(Path::new(&dir));
        return;
    }
    for version in KEPT {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let data = dir.path();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version), data);
        let secret = |desired: &spec::workload::Desired| {
            let data = &desired.secrets[&("default".to_owned(), "login".to_owned())].data;
            assert_eq!(data["password"].expose(), b"hunter2", "{version}");
        };

        let reading = read(&PathBuf::from(SOURCE), data).expect("it is new");
        assert!(reading.desired.workloads.contains_key(&web()), "{version}: the last good manifests");
        secret(&reading.desired);

        let generations = history::list(data);
        let [generation] = generations.as_slice() else { panic!("{version}: {generations:?}") };
        assert_eq!((generation.number, generation.unix, generation.revision.as_str()), (1, 7, "r"), "{version}");
        assert_eq!(generation.sources["fleet"], "0123456789abcdef", "{version}");
        assert!(generation.images.contains(&Digest::of(b"image")), "{version}");
        secret(&history::read(data, 1).expect("it can be opened").desired);
        secret(&History::open(data, 10).expect("the key is there").applied().expect("it can be opened"));
        let goals = Goals::new(&Arc::new(reading.desired));
        let label = goals.workloads[&web()].revision.clone();
        let images = Images::from([((web(), label), BTreeMap::from([("main".to_owned(), Digest::of(b"image"))]))]);
        assert_eq!(
            history::label(&goals, &images),
            generation.label,
            "{version}: the same state is the same generation"
        );

        let versions = Versions::look(data).expect("the key is there");
        let memory = &versions[&web()];
        let good = memory.good.as_ref().expect("there is one");
        assert_eq!((good.label.as_str(), good.images["main"]), ("one", Digest::of(b"image")), "{version}");
        secret(&good.objects);
        let trial = memory.trial.as_ref().expect("there is one");
        assert_eq!((trial.since, trial.crashes[&PodUid("u".to_owned())]["main"].code), (Timestamp(1), 5), "{version}");
        assert!(matches!(memory.bad["three"].cause, Cause::OutOfMemory { .. }), "{version}");

        assert_eq!(Memories::new(data).load(), BTreeMap::from([(web(), ended())]), "{version}");
        let standing = Orders::open(data).standing();
        assert_eq!((standing.paused["*"], standing.drained), (7, Some(8)), "{version}");
        assert_eq!(standing.pinned.map(|pin| pin.generation), Some(1), "{version}");
        assert!(standing.protected.contains(&web().to_string()), "{version}");

        let events = agent::events::read(&data.join("events"), &Filter::default()).expect("they can be read");
        assert!(events.iter().any(|record| record.event.reason == "kept"), "{version}");
    }
}
