//! Logs of attempts on disk, shown and followed.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, UNIX_EPOCH};

use super::super::moment::Moment;
use super::super::output::Io;
use super::{Wanted, logs};
use crate::api::testing::{Fixture, busy_snapshot};

const NOW: i64 = 1_700_000_060;

fn wanted(name: &str) -> Wanted {
    Wanted {
        name: name.to_owned(),
        follow: false,
        tail: None,
        since: None,
        until: None,
        previous: false,
        timestamps: false,
    }
}

struct Log {
    fixture: Fixture,
    dir: PathBuf,
}

impl Log {
    /// A pod `worker` with two attempts; the log of the last has been rotated once.
    async fn new() -> Self {
        let fixture = Fixture::start().await;
        fixture.publish(busy_snapshot());
        let dir = fixture.settings.data_dir.join("pods/00000000000000ff/worker");
        let log = Self { fixture, dir };
        log.write(0, "log", "2023-11-14T22:12:00.000000000Z stderr F crash\n");
        log.write(0, "exit.json", "{}");
        log.write(
            1,
            "log.1",
            "2023-11-14T22:13:00.000000000Z stdout F one\n2023-11-14T22:13:10.000000000Z stdout P tw",
        );
        log.write(1, "log.1", "\n");
        log.write(
            1,
            "log",
            "2023-11-14T22:13:20.000000000Z stdout F o\n2023-11-14T22:14:00.500000000Z stderr F three\n",
        );
        log
    }

    fn write(&self, attempt: u32, name: &str, text: &str) {
        let dir = self.dir.join(attempt.to_string());
        std::fs::create_dir_all(&dir).expect("it can be made");
        let mut file = std::fs::File::options().create(true).append(true).open(dir.join(name)).expect("it opens");
        file.write_all(text.as_bytes()).expect("it can be written");
    }

    async fn check(&self, wanted: Wanted, json: bool, expected: &str) {
        let settings = self.fixture.settings.clone();
        let shown = move || {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut io = Io { out: &mut out, err: &mut err, json, color: false, now: NOW };
            let outcome = logs(&settings, &wanted, &mut io);
            let code = super::super::code_of(outcome, &mut err, false);
            (code, String::from_utf8_lossy(&out).into_owned() + &String::from_utf8_lossy(&err))
        };
        let (code, text) = tokio::task::spawn_blocking(shown).await.expect("no panic");
        assert_eq!(text, expected, "exit code {code}");
    }
}

#[tokio::test]
async fn rotated_files_are_one_log_and_parts_are_joined() {
    let log = Log::new().await;
    log.check(wanted("worker"), false, "one\ntwo\nthree\n").await;
    log.check(Wanted { tail: Some(2), ..wanted("worker") }, false, "two\nthree\n").await;
    log.check(Wanted { tail: Some(0), ..wanted("worker") }, false, "").await;
    log.check(Wanted { previous: true, ..wanted("jobs/worker") }, false, "crash\n").await;
    log.check(Wanted { since: Some(Moment::Ago(Duration::from_secs(60))), ..wanted("worker") }, false, "three\n").await;
    let until = Some(Moment::At(UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
    log.check(Wanted { until, ..wanted("worker") }, false, "one\ntwo\n").await;
    let timed = Wanted { timestamps: true, tail: Some(1), ..wanted("worker") };
    log.check(timed.clone(), false, "2023-11-14T22:14:00.500000000Z three\n").await;
    let json = "{\"time\":\"2023-11-14T22:14:00.500000000Z\",\"stream\":\"stderr\",\"text\":\"three\"}\n";
    log.check(timed, true, json).await;
    let none = log.fixture.settings.data_dir.join("pods/0000000000000000/logger");
    let error = format!(
        "error: container `logger` has no log yet\n  --> {}\nhint: `mainstay status Deployment/default/web` says what it \
         waits for\n",
        none.display()
    );
    log.check(wanted("web-1a2b3c4d-0/logger"), false, &error).await;
}

/// Sends what is written, line by line.
struct Sender(mpsc::Sender<String>);

impl std::io::Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.0.send(text).map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_new_lines_rotations_and_restarts_until_the_pod_is_gone() {
    let log = Log::new().await;
    let (sender, seen) = mpsc::channel();
    let settings = log.fixture.settings.clone();
    let follower = std::thread::spawn(move || {
        let (mut out, mut err) = (Sender(sender.clone()), Sender(sender));
        let mut io = Io { out: &mut out, err: &mut err, json: false, color: false, now: NOW };
        logs(&settings, &Wanted { follow: true, tail: Some(1), ..wanted("worker") }, &mut io).is_ok()
    });
    let mut text = String::new();
    let mut expect = |part: &str| {
        while !text.contains(part) {
            let more = seen.recv_timeout(Duration::from_secs(20));
            text.push_str(&more.unwrap_or_else(|_| panic!("no `{part}` in:\n{text}")));
        }
    };
    expect("three\n");
    log.write(1, "log", "5Z stdout F fo");
    log.write(1, "log", "ur\n");
    expect("four\n");
    std::fs::rename(log.dir.join("1/log"), log.dir.join("1/log.1")).expect("it can be renamed");
    log.write(1, "log", "6Z stdout F five\n");
    expect("five\n");
    log.write(2, "log", "7Z stdout F six\n");
    expect("the container was started again\n");
    expect("six\n");
    std::fs::remove_dir_all(&log.dir).expect("it can be removed");
    let ended = tokio::task::spawn_blocking(move || follower.join()).await.expect("no panic");
    assert!(ended.expect("no panic"));
    assert!(!text.contains("two"), "{text}");
}
