//! The protocol against a socket that stands in for systemd.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use std::ffi::OsStr;

use super::*;
use crate::status::WorkloadStatus;

/// A fake manager and a notifier for it.
fn manager() -> (UnixDatagram, Arc<Notifier>, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("the directory is ours");
    let notifier = Notifier::new(Some(path.as_os_str())).expect("a path is an address");
    (socket, Arc::new(notifier), dir)
}

/// The next message; blocks at most until the deadline of the test.
async fn heard(socket: &UnixDatagram) -> String {
    let socket = socket.try_clone().expect("a descriptor can be duplicated");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("the time is not zero");
    let read = tokio::task::spawn_blocking(move || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("a message comes");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    });
    read.await.expect("the reader does not panic")
}

/// Answers the next ping.
async fn answer(inbox: &mut mpsc::UnboundedReceiver<Event>) {
    match inbox.recv().await {
        Some(Event::Ping(reply)) => reply.send(()).expect("somebody waits"),
        other => panic!("no ping: {other:?}"),
    }
}

fn nothing_waits(socket: &UnixDatagram) -> bool {
    socket.set_nonblocking(true).expect("a socket can be changed");
    let empty = socket.recv(&mut [0; 8]).is_err();
    socket.set_nonblocking(false).expect("a socket can be changed");
    empty
}

#[tokio::test]
async fn ready_comes_after_the_loop_and_signs_of_life_only_from_the_loop() {
    let (socket, notifier, _dir) = manager();
    let (events, mut inbox) = mpsc::unbounded_channel();
    let (publish, snapshots) = watch::channel(Arc::default());
    let reporting = tokio::spawn(report(notifier, Some(Duration::from_millis(20)), events, snapshots));

    let first = inbox.recv().await;
    assert!(nothing_waits(&socket), "not ready before the loop answers");
    let Some(Event::Ping(reply)) = first else { panic!("no ping: {first:?}") };
    reply.send(()).expect("somebody waits");
    assert_eq!(heard(&socket).await, "READY=1");
    assert_eq!(heard(&socket).await, "STATUS=waiting for the first reading of the sources");

    answer(&mut inbox).await;
    assert_eq!(heard(&socket).await, "WATCHDOG=1");
    // The next ping is there and is not answered: the loop is stuck.
    let stuck = inbox.recv().await;
    publish.send_replace(Arc::new(Snapshot { passes: 1, ..Snapshot::default() }));
    assert_eq!(heard(&socket).await, "STATUS=no workloads", "a status is told while the loop is stuck");
    assert!(nothing_waits(&socket), "no sign of life from a loop that is stuck");
    let Some(Event::Ping(reply)) = stuck else { panic!("no ping: {stuck:?}") };
    reply.send(()).expect("somebody waits");
    assert_eq!(heard(&socket).await, "WATCHDOG=1");
    reporting.abort();
}

#[tokio::test]
async fn the_same_status_is_told_once() {
    let (socket, notifier, _dir) = manager();
    let (events, mut inbox) = mpsc::unbounded_channel();
    let (publish, snapshots) = watch::channel(Arc::default());
    let reporting = tokio::spawn(report(notifier, None, events, snapshots));
    answer(&mut inbox).await;
    assert_eq!(heard(&socket).await, "READY=1");
    heard(&socket).await;
    for passes in [1, 2] {
        publish.send_replace(Arc::new(Snapshot { passes, ..Snapshot::default() }));
        tokio::task::yield_now().await;
    }
    let workloads = vec![WorkloadStatus { phase: "Running".to_owned(), ..WorkloadStatus::default() }];
    publish.send_replace(Arc::new(Snapshot { passes: 3, workloads, ..Snapshot::default() }));
    let mut lines = vec![heard(&socket).await];
    if lines == ["STATUS=no workloads"] {
        lines.push(heard(&socket).await);
    }
    assert_eq!(lines.last().map(String::as_str), Some("STATUS=1 running"));
    assert!(nothing_waits(&socket));
    // Without a watchdog there is no further ping.
    assert!(inbox.try_recv().is_err());
    reporting.abort();
}

#[tokio::test]
async fn without_a_manager_the_loop_is_left_alone() {
    let (events, mut inbox) = mpsc::unbounded_channel();
    let (_publish, snapshots) = watch::channel(Arc::default());
    report(Arc::new(Notifier::default()), Some(Duration::from_millis(1)), events, snapshots).await;
    assert!(inbox.try_recv().is_err());
}

#[test]
fn abstract_sockets_and_messages() {
    let name = format!("mainstay-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("the name is short");
    let socket = UnixDatagram::bind_addr(&address).expect("the name is free");
    let notifier = Notifier::new(Some(OsStr::new(&format!("@{name}")))).expect("an address");
    let next = || {
        let mut buffer = [0; 128];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    notifier.reloading();
    let text = next();
    let (first, second) = text.split_once('\n').expect("two lines");
    assert_eq!(first, "RELOADING=1");
    let stamp = second.strip_prefix("MONOTONIC_USEC=").and_then(|number| number.parse::<u64>().ok());
    assert!(stamp.is_some_and(|stamp| stamp > 0), "{text}");
    notifier.stopping();
    assert_eq!(next(), "STOPPING=1");
    notifier.status("two\nlines");
    assert_eq!(next(), "STATUS=two lines");
}

/// An agent must end also when the manager hears nothing.
#[test]
fn a_manager_that_does_not_read_holds_nothing_up() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let path = dir.path().join("notify");
    let _silent = UnixDatagram::bind(&path).expect("the directory is ours");
    let notifier = Notifier::new(Some(path.as_os_str())).expect("an address");
    let (done, ended) = std::sync::mpsc::channel();
    let queue = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").expect("Linux tells");
    let queue: usize = queue.trim().parse().expect("a number");
    std::thread::spawn(move || {
        (0..queue + 2).for_each(|_| notifier.alive());
        done.send(())
    });
    ended.recv_timeout(Duration::from_secs(60)).expect("what cannot be told is dropped");
}

#[test]
fn addresses() {
    let check = |address: &str, heard: Option<bool>| {
        let found = Notifier::new(Some(OsStr::new(address))).ok().map(|notifier| notifier.is_heard());
        assert_eq!(found, heard, "{address}");
    };
    check("", Some(false));
    check("/run/systemd/notify", Some(true));
    check("@abstract", Some(true));
    check("relative/path", None);
    check("vsock:2:1", None);
    check(&format!("/{}", "x".repeat(200)), None);
    assert!(!Notifier::new(None).expect("nobody is fine").is_heard());
}

#[test]
fn whether_somebody_watches() {
    let check = |limit: Option<&str>, pid: Option<&str>, expected: Option<u64>| {
        let variable = |name: &str| match name {
            "WATCHDOG_USEC" => limit.map(str::to_owned),
            "WATCHDOG_PID" => pid.map(str::to_owned),
            other => panic!("no such variable: {other}"),
        };
        assert_eq!(watchdog_limit(variable, 42), expected.map(Duration::from_micros), "{limit:?} {pid:?}");
    };
    check(None, None, None);
    check(Some("30000000"), None, Some(30_000_000));
    check(Some("30000000"), Some("42"), Some(30_000_000));
    check(Some("30000000"), Some("43"), None);
    check(Some("30000000"), Some("me"), None);
    check(Some("0"), None, None);
    check(Some("soon"), None, None);
}
