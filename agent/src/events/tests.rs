//! Crashes, damage, limits and followers of the journal.

use std::path::Path;

use super::store::{Limits, Store};
use super::{Event, EventKind, Filter, Journal, Record};

fn event(message: &str) -> Event {
    Event {
        unix_millis: 1_700_000_000_000,
        kind: EventKind::Normal,
        reason: "missing".to_owned(),
        workload: Some("Deployment/default/web".to_owned()),
        pod: None,
        container: None,
        cause: None,
        message: message.to_owned(),
    }
}

fn open(dir: &Path) -> Journal {
    Journal::open(dir, None).expect("the journal opens")
}

fn messages(records: &[Record]) -> Vec<(u64, &str)> {
    records.iter().map(|record| (record.number, record.event.message.as_str())).collect()
}

fn all(journal: &Journal) -> Vec<Record> {
    journal.recent(&Filter::default()).expect("the journal can be read")
}

/// What is there after a crash that left these bytes behind the events 1 and 2, and after one more event.
fn check(left: &[u8], expected: &[(u64, &str)]) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let journal = open(dir.path());
    journal.record(event("one"));
    journal.record(event("two"));
    drop(journal);
    let path = dir.path().join("current.jsonl");
    let mut bytes = std::fs::read(&path).expect("the file is there");
    bytes.extend_from_slice(left);
    std::fs::write(&path, bytes).expect("the file can be written");
    let journal = open(dir.path());
    journal.record(event("next"));
    assert_eq!(messages(&all(&journal)), expected, "{}", String::from_utf8_lossy(left));
}

#[test]
fn a_torn_last_line_is_dropped_and_the_rest_stays() {
    let next = |number| [(1, "one"), (2, "two"), (number, "next")];
    check(b"", &next(3));
    check(b"{\"number\":3,\"unixMil", &next(3));
    check(b"{", &next(3));
    check(&[0; 4096], &next(3));
    check(b"damage in the middle\n", &next(3));
    let whole = serde_json::to_string(&Record { number: 3, event: event("three") }).expect("it can be written");
    check(whole.as_bytes(), &next(3));
    check(format!("{whole}\n").as_bytes(), &[(1, "one"), (2, "two"), (3, "three"), (4, "next")]);
}

#[test]
fn the_journal_stays_within_its_limits_and_keeps_the_newest() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    for limits in [Limits { records: 10, bytes: 1 << 20 }, Limits { records: 1 << 20, bytes: 1500 }] {
        let mut store = Store::open(dir.path(), limits).expect("the journal opens");
        for index in 0..95 {
            let number = store.next_number();
            let record = Record { number, event: event(&format!("event {index}")) };
            store.append(&record).expect("it can be written");
        }
        let kept = super::read(dir.path(), &Filter::default()).expect("it can be read");
        assert!(kept.len() >= 10 && kept.len() <= 20, "{} records kept", kept.len());
        assert_eq!(kept.last().map(|record| record.event.message.as_str()), Some("event 94"));
        assert!(kept.windows(2).all(|pair| pair[0].number + 1 == pair[1].number), "a gap or a wrong order");
        let bytes: u64 = std::fs::read_dir(dir.path())
            .expect("the directory can be listed")
            .map(|entry| entry.expect("an entry").metadata().expect("its metadata").len())
            .sum();
        assert!(bytes <= 2 * limits.bytes);
    }
}

#[test]
fn numbers_go_on_after_a_rotation_and_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let journal = open(dir.path());
    journal.record(event("one"));
    drop(journal);
    // The crash came between the rename and the first line of the new file.
    std::fs::rename(dir.path().join("current.jsonl"), dir.path().join("previous.jsonl")).expect("it can be renamed");
    let journal = open(dir.path());
    journal.record(event("two"));
    assert_eq!(messages(&all(&journal)), [(1, "one"), (2, "two")]);
}

#[test]
fn a_filter_chooses_by_kind_object_time_and_number() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let journal = open(dir.path());
    journal.record(event("a"));
    journal.record(Event { kind: EventKind::Warning, ..event("b") });
    journal.record(Event { workload: None, pod: Some("web-0".to_owned()), ..event("c") });
    journal.record(Event { unix_millis: 1_800_000_000_000, ..event("d") });
    let check = |filter: Filter, expected: &[&str]| {
        let found = journal.recent(&filter).expect("it can be read");
        let found: Vec<&str> = found.iter().map(|record| record.event.message.as_str()).collect();
        assert_eq!(found, expected, "{filter:?}");
    };
    let about = |about: &str| Filter { about: Some(about.to_owned()), ..Filter::default() };
    check(Filter::default(), &["a", "b", "c", "d"]);
    check(Filter { limit: Some(2), ..Filter::default() }, &["c", "d"]);
    check(Filter { kind: Some(EventKind::Warning), ..Filter::default() }, &["b"]);
    check(Filter { since: Some(1_750_000_000_000), ..Filter::default() }, &["d"]);
    check(about("web"), &["a", "b", "d"]);
    check(about("default/web"), &["a", "b", "d"]);
    check(about("Deployment/default/web"), &["a", "b", "d"]);
    check(about("eb"), &[]);
    check(about("web-0"), &["c"]);
}

#[tokio::test]
async fn a_follower_sees_what_was_and_what_comes_without_a_gap() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let journal = open(dir.path());
    journal.record(event("before"));
    let (past, mut coming) = journal.follow(&Filter::default()).expect("it can be followed");
    journal.record(event("after"));
    assert_eq!(messages(&past), [(1, "before")]);
    assert_eq!(coming.recv().await.expect("it comes").number, 2);
}

#[test]
fn a_journal_that_cannot_be_written_still_reaches_followers_and_counts() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let metrics = crate::telemetry::Metrics::new();
    let journal = Journal::open(dir.path(), Some(metrics.clone())).expect("the journal opens");
    let mut follower = journal.subscribe();
    journal.0.lock().read_only_for_test();
    journal.record(event("lost"));
    assert_eq!(follower.try_recv().expect("it comes").event.message, "lost");
    assert!(metrics.text().contains("mainstay_events_lost_total 1"));
    assert!(all(&journal).is_empty());
}
