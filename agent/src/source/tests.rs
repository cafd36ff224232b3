use std::path::Path;

use super::*;
use crate::clock::HostClock;
use crate::follow::Remote;

struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().expect("a directory for the test") };
        for name in ["data", "manifests"] {
            std::fs::create_dir(host.dir.path().join(name)).expect("the directory is ours");
        }
        host
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn manifests(&self) -> PathBuf {
        self.dir.path().join("manifests")
    }

    /// An agent that begins: these directories, and repositories by these names.
    fn open(&self, roots: &[PathBuf], repositories: &[&str]) -> Sources {
        let orders = Orders::open(&self.data());
        let (clock, metrics) = (Arc::new(HostClock), Metrics::default());
        let sources = Sources::open(roots.to_vec(), self.data(), BTreeMap::new(), clock, metrics, orders);
        let view = |name: &&str| {
            let table = format!("name = '{name}'\nurl = 'file:///nonexistent'");
            Remote::Git(toml::from_str(&table).expect("a repository")).view(&self.data())
        };
        sources.expect("the key can be made").with_repositories(repositories.iter().map(view))
    }

    /// Lets a revision with this one file count.
    fn fetch(&self, repository: &str, file: &str, text: &str) {
        let home = self.data().join("git").join(repository);
        crate::revisions::prepare(&home).expect("the directory is ours");
        write(&home.join("revisions/aa-1"), file, text);
        crate::revisions::switch(&home, Path::new("revisions/aa-1")).expect("it is there");
    }
}

fn write(dir: &Path, file: &str, text: &str) {
    std::fs::create_dir_all(dir).expect("the directory is ours");
    std::fs::write(dir.join(file), text).expect("the directory is ours");
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n\
         spec: {{containers: [{{name: main, image: registry.example.org/app:1}}]}}\n"
    )
}

const PROJECT: &str = "services: {db: {image: registry.example.org/db:1}}\n";

/// Reads until it is certain; what is wished and what of it is only kept.
fn read(sources: &mut Sources) -> (Vec<String>, Vec<String>) {
    let names = |ids: Vec<&WorkloadId>| ids.into_iter().map(|id| id.name.clone()).collect();
    loop {
        if let Some(reading) = sources.read() {
            return (names(reading.desired.workloads.keys().collect()), names(reading.held.keys().collect()));
        }
        assert!(sources.is_deferred(), "something has changed");
        std::thread::sleep(sources.again().expect("it is to be confirmed"));
    }
}

#[test]
fn a_remote_that_was_never_fetched_is_no_evidence() {
    let host = Host::new();
    write(&host.manifests(), "web.yaml", &pod("web"));
    write(&host.manifests(), "compose.yaml", PROJECT);
    let (wished, held) = read(&mut host.open(&[host.manifests()], &[]));
    assert_eq!((wished.len(), held.len()), (2, 0));

    // The first repository is named, and the directory is no source any more.
    let mut sources = host.open(&[], &["fleet"]);
    let reading = sources.read().expect("what is kept is certain");
    assert_eq!((reading.desired.workloads.len(), reading.held.len()), (2, 2));
    let why = reading.held.values().next().expect("one is held");
    assert_eq!(why.reason, "source_failed");
    assert!(why.message.contains("file:///nonexistent#HEAD has not been fetched yet"), "{}", why.message);
    // So it is after a restart, too.
    let mut sources = host.open(&[], &["fleet"]);
    assert_eq!(read(&mut sources).1.len(), 2);
    // It is fetched, and all that counts.
    host.fetch("fleet", "api.yaml", &pod("api"));
    assert_eq!(read(&mut sources), (vec!["api".to_owned()], vec![]));

    // It is called otherwise.
    let mut sources = host.open(&[], &["company"]);
    assert_eq!(read(&mut sources), (vec!["api".to_owned()], vec!["api".to_owned()]));
    host.fetch("company", "api.yaml", &pod("api"));
    assert_eq!(read(&mut sources), (vec!["api".to_owned()], vec![]));
}

#[test]
fn a_file_that_is_removed_from_a_source_is_gone_whatever_was_never_fetched() {
    let host = Host::new();
    write(&host.manifests(), "web.yaml", &pod("web"));
    write(&host.manifests(), "api.yaml", &pod("api"));
    let mut sources = host.open(&[host.manifests()], &["fleet"]);
    assert_eq!(read(&mut sources).0, ["api", "web"]);
    std::fs::remove_file(host.manifests().join("web.yaml")).expect("it is there");
    assert_eq!(read(&mut sources), (vec!["api".to_owned()], vec![]));
}

#[test]
fn a_file_is_gone_when_it_stays_away_however_often_it_is_looked_for() {
    let host = Host::new();
    write(&host.manifests(), "web.yaml", &pod("web"));
    let mut sources = host.open(&[host.manifests()], &[]);
    assert_eq!(read(&mut sources).0, ["web"]);
    let away = host.dir.path().join("away.yaml");
    std::fs::rename(host.manifests().join("web.yaml"), &away).expect("it is there");
    for _ in 0..10 {
        assert!(sources.read().is_none() && sources.is_deferred());
    }
    std::fs::rename(&away, host.manifests().join("web.yaml")).expect("it is there");
    assert!(sources.read().is_none() && !sources.is_deferred(), "nothing has changed");
    std::fs::remove_file(host.manifests().join("web.yaml")).expect("it is there");
    assert!(sources.read().is_none() && sources.is_deferred(), "the time begins anew");
    assert_eq!(read(&mut sources).0, Vec::<String>::new());
}

#[test]
fn who_asks_after_a_removal_is_told_of_the_reading_without_the_file() {
    let host = Host::new();
    write(&host.manifests(), "web.yaml", &pod("web"));
    let sources = host.open(&[host.manifests()], &[]);
    let (deliver, readings) = std::sync::mpsc::channel();
    let watching = watch(sources, Duration::from_secs(600), move |reading| deliver.send(reading).is_ok());
    let ask = watching.expect("a thread").asker();
    let first = ask().blocking_recv().expect("it is answered");
    let reading = readings.recv().expect("there is one");
    assert_eq!((reading.number, reading.desired.workloads.len()), (first, 1));
    std::fs::remove_file(host.manifests().join("web.yaml")).expect("it is there");
    let second = ask().blocking_recv().expect("it is answered");
    assert_ne!(first, second, "what was removed counted still");
    let reading = readings.recv().expect("there is one");
    assert_eq!((reading.number, reading.desired.workloads.len()), (second, 0));
}
