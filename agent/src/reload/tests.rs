//! Verdicts, and what becomes of the file.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::json;

use super::*;

fn settings(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("no map: {other}"),
    }
}

#[test]
fn what_changes_decides() {
    let now = settings(json!({ "data_dir": "/a", "log_level": "info", "resync": "1m", "old": 1 }));
    let check = |next: Value, always: bool, expected: Result<(bool, &[&str]), &str>| {
        let answer = Answer { version: "2".to_owned(), settings: settings(next.clone()), pods: 0 };
        let found = judge(&now, &answer, always);
        let found = found.map(|v| (v.reloading, v.changed)).map_err(|error| error.to_string());
        let expected = expected.map(|(go, names)| (go, names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()));
        assert_eq!(found, expected.map_err(str::to_owned), "{next}");
    };
    let same = json!({ "data_dir": "/a", "log_level": "info", "resync": "1m" });
    check(same.clone(), false, Ok((false, &[])));
    check(same, true, Ok((true, &[])));
    check(json!({ "data_dir": "/a", "log_level": "debug", "resync": "1m" }), false, Ok((true, &["log_level"])));
    // A version with a setting more or less: nobody changed anything.
    check(json!({ "data_dir": "/a", "log_level": "info", "new": 1 }), false, Ok((false, &[])));
    let fixed = Err("cannot change data_dir while containers may run");
    check(json!({ "data_dir": "/b", "log_level": "debug" }), false, fixed);
    check(json!({ "data_dir": "/b" }), true, fixed);
}

#[test]
fn an_address_that_somebody_has_is_refused_before_the_switch() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let taken = other.local_addr().expect("it is bound");
    let check = |now: Value, next: Value, expected: Result<(), &str>| {
        let answer = Answer { version: "2".to_owned(), settings: settings(next.clone()), pods: 0 };
        let found = judge(&settings(now), &answer, true).map(drop).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{next}");
    };
    let (none, metrics) = (json!({ "metrics_listen": "none" }), json!({ "metrics_listen": taken }));
    let refused = format!("cannot serve `metrics_listen` on {taken}");
    check(none.clone(), metrics.clone(), Err(&refused));
    let hook = json!({ "sync_hook": { "listen": taken, "secret_file": "/s" } });
    check(none.clone(), hook, Err(&format!("cannot serve `sync_hook` on {taken}")));
    // It is this agent itself that has it.
    check(metrics.clone(), metrics.clone(), Ok(()));
    check(metrics.clone(), json!({ "metrics_listen": format!("0.0.0.0:{}", taken.port()) }), Ok(()));
    check(metrics.clone(), none, Ok(()));
    drop(other);
    check(json!({}), metrics, Ok(()));
}

#[test]
fn the_check_asks_the_same_run() {
    let check = |args: &str, expected: &str| {
        let args = args.split(' ').map(OsString::from).collect();
        let found = Invocation { exe: PathBuf::new(), args }.check_args();
        let found: Vec<String> = found.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        assert_eq!(found.join(" "), expected);
    };
    check("mainstay run", "run --check --output json");
    check("mainstay --data-dir /d run --resync 5s /m", "--data-dir /d run --check --output json --resync 5s /m");
    check("mainstay run -- /m", "run --check --output json -- /m");
}

/// A binary that answers as told, in a directory of its own.
fn binary(dir: &Path, name: &str, script: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the directory is ours");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the file is ours");
    path
}

/// What comes of a request for a binary that does this, and whether it is in place afterwards.
async fn upgrade(script: &str) -> (Result<Verdict, String>, bool) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let exe = binary(dir.path(), "mainstay", "old");
    let inode = std::fs::metadata(&exe).expect("it is there").ino();
    let new = binary(dir.path(), "candidate", script);
    let invocation = Invocation { exe: exe.clone(), args: vec!["mainstay".into(), "run".into()] };
    let (send, mut requests) = mpsc::unbounded_channel();
    let (reply, answer) = oneshot::channel();
    send.send(Request { binary: Some(new), always: true, reply: Some(reply) }).expect("somebody listens");
    let now = settings(json!({ "data_dir": "/a" }));
    let deciding = decide(&invocation, &now, &mut requests, |_| {});
    tokio::pin!(answer);
    let answer = tokio::select! { () = deciding => answer.await, answer = &mut answer => answer };
    let answer = answer.expect("an answer comes");
    let replaced = std::fs::metadata(&exe).expect("a binary is always in place").ino() != inode;
    let kept = std::fs::metadata(backup_of(&exe)).is_ok_and(|kept| kept.ino() == inode);
    assert_eq!(replaced, kept, "the binary before is kept exactly when another takes its place");
    assert!(!dir.path().join("mainstay.new").exists(), "no draft stays");
    (answer.map_err(|error| error.to_string()), replaced)
}

#[tokio::test]
async fn a_binary_that_fails_its_check_is_not_switched_to() {
    let good = r#"echo '{"version":"9.9.9","settings":{"data_dir":"/a"},"pods":3}'"#;
    let (verdict, replaced) = upgrade(good).await;
    let expected = Verdict { reloading: true, version: "9.9.9".to_owned(), changed: Vec::new() };
    assert_eq!((verdict, replaced), (Ok(expected), true));

    for (script, words) in [
        ("echo 'error: no such setting' >&2; exit 2", "no such setting"),
        ("exit 1", "exit status: 1"),
        ("kill -SEGV $$", "signal: 11"),
        ("echo hello", "is no mainstay"),
        (r#"echo '{"version":"1","settings":{"data_dir":"/b"},"pods":0}'"#, "cannot change data_dir"),
    ] {
        let (verdict, replaced) = upgrade(script).await;
        assert!(verdict.as_ref().is_err_and(|why| why.contains(words)), "{script}: {verdict:?}");
        assert!(!replaced, "{script}");
    }
}

#[tokio::test]
async fn a_file_without_a_change_of_settings_is_no_reload() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let exe = binary(dir.path(), "mainstay", r#"echo '{"version":"1","settings":{"data_dir":"/a"},"pods":0}'"#);
    let invocation = Invocation { exe, args: vec!["mainstay".into(), "run".into()] };
    let (send, mut requests) = mpsc::unbounded_channel();
    let now = settings(json!({ "data_dir": "/a" }));
    let heard = std::sync::Mutex::new(Vec::new());
    for always in [false, true] {
        send.send(Request { binary: None, always, reply: None }).expect("somebody listens");
    }
    decide(&invocation, &now, &mut requests, |verdict| {
        heard.lock().expect("nobody panics").push(verdict.expect("the check says yes").reloading);
    })
    .await;
    assert_eq!(heard.into_inner().expect("nobody panics"), [false, true]);
}
