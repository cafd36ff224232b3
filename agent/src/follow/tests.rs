//! What is told of what is followed.

use super::*;

#[test]
fn a_first_fetch_is_waited_for_and_a_failure_is_told() {
    let check = |revision: Option<&str>, error: Option<&str>, found: &str, state: &str, errors: &[&str]| {
        let known = Known {
            revision: revision.map(str::to_owned),
            last_success: revision.map(|_| 7),
            error: error.map(str::to_owned),
            files_of: None,
        };
        let status = Arc::new(Mutex::new(known));
        let view = View { label: "fleet".to_owned(), root: PathBuf::from("/d/current"), status };
        let found_errors = if found == "failed" { vec!["there is no directory".to_owned()] } else { Vec::new() };
        let mut status = SourceStatus { state: found.to_owned(), errors: found_errors, ..SourceStatus::default() };
        view.tell(&mut status);
        assert_eq!((status.state.as_str(), status.errors.as_slice()), (state, errors_of(errors).as_slice()));
        assert_eq!(status.last_success.is_some(), revision.is_some());
    };
    fn errors_of(errors: &[&str]) -> Vec<String> {
        errors.iter().map(|error| (*error).to_owned()).collect()
    }
    check(None, None, "failed", "waiting", &[]);
    check(None, Some("it is away"), "failed", "failed", &["it is away"]);
    check(Some("aa"), None, "ok", "ok", &[]);
    check(Some("aa"), Some("it is away"), "ok", "degraded", &["it is away; the last revision stays"]);
    check(Some("aa"), None, "failed", "failed", &["there is no directory"]);
}

#[test]
fn a_fleet_does_not_ask_at_once() {
    for period in [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(86_400)] {
        let hosts: Vec<String> = (0..100).map(|number| format!("web-{number}")).collect();
        let pauses: Vec<Duration> = hosts.iter().map(|host| spread(host, "fleet", period)).collect();
        assert!(pauses.iter().all(|pause| (period..=period.mul_f64(1.1)).contains(pause)), "{pauses:?}");
        // Each tenth of the extra time has some of them, and each host keeps its own.
        let slot = |pause: &Duration| ((*pause - period).as_secs_f64() / period.as_secs_f64() * 100.0) as u32;
        let slots: std::collections::BTreeSet<u32> = pauses.iter().map(slot).filter(|slot| *slot < 10).collect();
        assert_eq!(slots.len(), 10, "{pauses:?}");
        let again: Vec<Duration> = hosts.iter().map(|host| spread(host, "fleet", period)).collect();
        assert_eq!(again, pauses);
        assert_ne!(spread("web-1", "fleet", period), spread("web-1", "other", period));
    }
}

#[test]
fn each_change_is_told_once() {
    let known = |text: &str| {
        let (revision, error) = text.split_once(' ').unwrap_or((text, ""));
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Known { revision: some(revision), error: some(error), ..Known::default() }
    };
    let check = |before: &str, next: &str, want: &[(&str, &str)]| {
        let news = news("fleet", &known(before), &known(next));
        let found: Vec<(&str, &str)> = news.iter().map(|(_, reason, text)| (reason.as_str(), text.as_str())).collect();
        assert_eq!(found, want, "{before:?} to {next:?}");
        for (kind, reason, _) in &news {
            assert_eq!(*kind == EventKind::Warning, *reason == Word::SOURCE_FAILED);
        }
    };
    check("", "aa", &[("source_switched", "fleet: revision aa counts")]);
    check("aa", "aa", &[]);
    check("aa", "bb", &[("source_switched", "fleet: revision bb counts, before it aa")]);
    check("", " away", &[("source_failed", "fleet: away")]);
    check("aa", "aa away", &[("source_failed", "fleet: away; revision aa stays")]);
    check("aa away", "aa away", &[]);
    check("aa away", "aa unsigned", &[("source_failed", "fleet: unsigned; revision aa stays")]);
    check("aa away", "aa", &[("source_recovered", "fleet can be read again")]);
    check(
        "aa away",
        "bb",
        &[
            ("source_recovered", "fleet can be read again"),
            ("source_switched", "fleet: revision bb counts, before it aa"),
        ],
    );
}

/// Alerts by the age of a source work when its remote is away, also when the agent was started meanwhile.
#[tokio::test]
async fn the_age_of_a_source_is_known_at_once() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let metrics = Metrics::new();
    let puller = runtime::image::pull::Puller::new(
        runtime::image::store::Store::open(&dir.path().join("images")).expect("a store"),
        runtime::image::registry::RegistryConfig::default(),
    );
    let tools = Tools {
        data_dir: dir.path().to_owned(),
        clock: Arc::new(crate::clock::HostClock),
        metrics: metrics.clone(),
        journal: Journal::open(&dir.path().join("events"), None).expect("a journal"),
        artifacts: puller.artifacts(),
    };
    let mut ages = Vec::new();
    for (name, known) in [("never", None), ("once", Some(1_700_000_000))] {
        let table = format!("name = '{name}'\nurl = 'file:///nonexistent'");
        let source: GitSource = toml::from_str(&table).expect("a repository");
        let remote = Remote::Git(source);
        if let Some(unix) = known {
            let home = remote.home(dir.path());
            revisions::prepare(&home).expect("ours");
            revisions::note_success(&home, unix);
        }
        let view = remote.view(dir.path());
        assert_eq!(view.status().last_success, known);
        let tried = Arc::new(Notify::new());
        let told = Arc::clone(&tried);
        let follower = Follower::start(remote, view, tools.clone(), move || told.notify_one());
        tokio::time::timeout(Duration::from_secs(30), tried.notified()).await.expect("it is tried");
        let text = metrics.text();
        let line = text.lines().find(|line| line.starts_with("mainstay_source_last_success_timestamp_seconds{"));
        ages.push(line.and_then(|line| line.split(' ').next_back()).map(str::to_owned));
        drop(follower);
    }
    assert_eq!(ages, [Some("0".to_owned()), Some("1700000000".to_owned())]);
}

/// A name that is given to another remote: its directory stays, and nothing that the one before did is told of it.
#[test]
fn another_remote_of_the_same_name_begins_anew() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let remote = |url: &str, reference: &str| {
        let table = format!("name = 'fleet'\nurl = 'file:///{url}'\nref = '{reference}'");
        Remote::Git(toml::from_str(&table).expect("a repository"))
    };
    let home = remote("old", "main").home(dir.path());
    let status = |url: &str, reference: &str| remote(url, reference).view(dir.path()).status();
    assert_eq!(status("old", "main"), Known::default());
    revisions::prepare(&home).expect("ours");
    std::fs::create_dir(home.join("revisions/0123456789abcdef-1")).expect("ours");
    revisions::switch(&home, Path::new("revisions/0123456789abcdef-1")).expect("it is there");
    revisions::note_success(&home, 1_700_000_000);
    let own = Known {
        revision: Some("0123456789abcdef".to_owned()),
        last_success: revisions::last_success(&home),
        ..Known::default()
    };
    assert_eq!(status("old", "main"), own, "one of a version that made no such note");
    revisions::note_remote(&home, "file:///old#main");
    assert_eq!(status("old", "main"), own);
    let other = Known { files_of: Some("file:///old#main at 0123456789ab".to_owned()), ..Known::default() };
    assert_eq!(status("new", "main"), other);
    assert_eq!(status("old", "stable"), other);

    let told = |view: &View| {
        let mut status =
            SourceStatus { state: "ok".to_owned(), errors: vec!["broken".to_owned()], ..Default::default() };
        view.tell(&mut status);
        assert_eq!((status.revision, status.last_success), (None, None));
        (status.state, status.errors, status.warnings)
    };
    let view = remote("new", "main").view(dir.path());
    let warning = "nothing was fetched yet: the files are those of file:///old#main at 0123456789ab".to_owned();
    assert_eq!(told(&view), ("waiting".to_owned(), vec!["broken".to_owned()], vec![warning]));
    let failed = Known { error: Some("away".to_owned()), ..other.clone() };
    view.set(failed.clone());
    let error = "away; the files of file:///old#main at 0123456789ab stay".to_owned();
    assert_eq!(told(&view), ("degraded".to_owned(), vec!["broken".to_owned(), error], vec![]));
    let texts = |before: &Known, next: &Known| -> Vec<String> {
        news("fleet", before, next).into_iter().map(|(_, _, text)| text).collect()
    };
    let stays = "file:///old#main at 0123456789ab, which had this name before, stays";
    assert_eq!(texts(&other, &failed), [format!("fleet: away; {stays}")]);
    let fetched = Known { revision: Some("bb".to_owned()), ..Known::default() };
    let switched = "fleet: revision bb counts, before it file:///old#main at 0123456789ab";
    assert_eq!(texts(&other, &fetched), [switched]);

    // It has answered: what is there is its own, and no more that of the one before.
    revisions::note_remote(&home, &view.label);
    assert_eq!((status("new", "main"), status("old", "main").revision), (own, None));
}
