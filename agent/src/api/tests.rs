//! The interface over a real socket, asked with the command line's own client.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::testing::{Fixture, busy_snapshot};
use super::{ApiError, Server};
use crate::cli::client::Client;
use crate::events::{Event, EventKind, Filter};
use crate::reconciler::{self, Command};

/// Status and body of an answer.
async fn ask(socket: PathBuf, method: &'static str, path: &str, body: Option<Value>) -> (u16, String) {
    let path = path.to_owned();
    let asked = move || {
        let answer = Client::new(socket).request(method, &path, body.as_ref()).expect("the agent answers");
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    };
    tokio::task::spawn_blocking(asked).await.expect("the question does not panic")
}

async fn get(fixture: &Fixture, path: &str) -> (u16, Value) {
    let (status, body) = ask(fixture.settings.socket(), "GET", path, None).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

async fn check(fixture: &Fixture, path: &str, status: u16, pointer: &str, expected: Value) {
    let (found, body) = get(fixture, path).await;
    let part = if pointer.is_empty() { Some(&body) } else { body.pointer(pointer) };
    assert_eq!((found, part), (status, Some(&expected)), "{path}: {body}");
}

#[tokio::test]
async fn reading_routes_answer_from_the_snapshot() {
    let fixture = Fixture::start().await;
    check(&fixture, "/readyz", 503, "", json!("the sources have not been read yet\n")).await;
    fixture.publish(busy_snapshot());
    check(&fixture, "/readyz", 200, "", json!("ok\n")).await;
    check(&fixture, "/livez", 200, "", json!("ok\n")).await;
    check(&fixture, "/v1/version", 200, "/api", json!(1)).await;
    check(&fixture, "/v1/status", 200, "/workloads/1/held/reason", json!("broken")).await;
    check(&fixture, "/v1/plan", 200, "/steps/0/action", json!("stop_pod")).await;
    check(&fixture, "/v1/config", 200, "/bridge", json!("mainstay0")).await;
    check(&fixture, "/v1/pods", 200, "/2/workload", json!("Pod/jobs/worker")).await;
    check(&fixture, "/v1/pods/00000000000000ff", 200, "/name", json!("worker")).await;
    check(&fixture, "/v1/pods/nope", 404, "/error/code", json!("not_found")).await;
    check(&fixture, "/v1/pods/00000000000000ff/worker/stats", 200, "/pids", json!(3)).await;
    let log = json!(fixture.dir.path().join("0.log"));
    check(&fixture, "/v1/pods/00000000000000ff/worker/logs", 200, "/0", log).await;
    check(&fixture, "/v1/pods/00000000000000ff/nope/logs", 404, "/error/code", json!("not_found")).await;
    check(&fixture, "/v1/workloads/deployment/default/web", 200, "/ready", json!(2)).await;
    check(&fixture, "/v1/workloads/Pod/default/web", 404, "/error/code", json!("not_found")).await;
    check(&fixture, "/v1/nope", 404, "/error/message", json!("there is no /v1/nope")).await;
    check(&fixture, "/v1/down", 405, "/error/code", json!("wrong_method")).await;
    check(&fixture, "/v1/events?limit=many", 400, "/error/code", json!("bad_request")).await;
}

/// Metrics are no condition for pods: at a boot somebody else may have the port.
#[tokio::test(start_paused = true)]
async fn an_address_that_is_taken_is_told_and_served_once_it_is_free() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = other.local_addr().expect("it is bound");
    let fixture = Fixture::with_metrics(address).await;
    assert_eq!(fixture.server.metrics_address(), None);
    let told = fixture.journal.recent(&Filter::default()).expect("the journal can be read");
    let told = &told.first().expect("an event").event;
    assert!(told.reason == "listen_failed" && told.message.contains(&address.to_string()), "{told:?}");
    let file = fixture.settings.metrics_address_file();
    assert!(!file.exists());
    drop(other);
    // The time of the test passes while nobody does anything.
    while !file.exists() {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    std::net::TcpStream::connect(address).expect("it is served");
    fixture.server.stop().await;
}

#[tokio::test]
async fn tcp_serves_health_and_metrics_only_and_its_address_is_written_down() {
    let fixture = Fixture::start().await;
    fixture.publish(busy_snapshot());
    let address = fixture.server.metrics_address().expect("an address is bound");
    let written = std::fs::read_to_string(fixture.settings.metrics_address_file()).expect("the file is there");
    assert_eq!(written, format!("{address}\n"));
    let fetch = |path: &'static str| async move {
        let asked = move || {
            use std::io::{Read as _, Write as _};
            let mut stream = std::net::TcpStream::connect(address).expect("it listens");
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("it reads");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("it answers");
            text
        };
        tokio::task::spawn_blocking(asked).await.expect("the question does not panic")
    };
    assert!(fetch("/livez").await.starts_with("HTTP/1.0 200"));
    let metrics = fetch("/metrics").await;
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("mainstay_container_pids{"), "{metrics}");
    assert!(metrics.contains("mainstay_pod_network_receive_bytes_total{"), "{metrics}");
    assert!(metrics.contains("mainstay_scrape_failures 0"), "{metrics}");
    assert!(fetch("/v1/status").await.starts_with("HTTP/1.0 404"));
}

#[tokio::test]
async fn a_reading_that_fails_leaves_the_others() {
    let fixture = Fixture::start().await;
    let mut snapshot = busy_snapshot();
    snapshot.workloads[0].pods[0].containers[0].name = "unreadable".to_owned();
    fixture.publish(snapshot);
    let (status, body) = ask(fixture.settings.socket(), "GET", "/metrics", None).await;
    assert_eq!(status, 200);
    assert!(body.contains("mainstay_scrape_failures 1"), "{body}");
    assert!(body.contains("mainstay_container_pids{container=\"nginx\""), "{body}");
}

/// Answers the next command as the loop would.
async fn answer_next(fixture: &mut Fixture) {
    match fixture.inbox.recv().await {
        Some(reconciler::Event::Command(Command::Down { reply })) => {
            let _ = reply.send(Err("disk full".to_owned()));
        }
        Some(reconciler::Event::Command(Command::Retry { workload, reply })) => {
            let _ = reply.send(workload == "Pod/jobs/worker");
        }
        Some(reconciler::Event::Command(Command::Approve { id, reply })) => {
            let _ = reply.send(Ok(id == "abc"));
        }
        other => panic!("unexpected: {other:?}"),
    }
}

#[tokio::test]
async fn commands_reach_the_loop_and_its_answer_comes_back() {
    let mut fixture = Fixture::start().await;
    for (path, body, status, expected) in [
        ("/v1/retry", json!({"workload": "Pod/jobs/worker"}), 200, "Pod/jobs/worker"),
        ("/v1/retry", json!({"workload": "nope"}), 404, "there is no workload nope"),
        ("/v1/approve", json!({"id": "abc"}), 200, "approved"),
        ("/v1/approve", json!({"id": "x"}), 404, "nothing with the id `x` is held now"),
        ("/v1/down", json!({}), 500, "disk full"),
    ] {
        let asked = tokio::spawn(ask(fixture.settings.socket(), "POST", path, Some(body)));
        answer_next(&mut fixture).await;
        let (found, body) = asked.await.expect("the question does not panic");
        assert!(found == status && body.contains(expected), "{path}: {found} {body}");
    }
    let (status, body) = ask(fixture.settings.socket(), "POST", "/v1/retry", Some(json!({"name": "x"}))).await;
    assert!(status == 400 && body.contains("unknown field `name`"), "{status} {body}");
    fixture.inbox.close();
    let (status, body) = ask(fixture.settings.socket(), "POST", "/v1/down", None).await;
    assert!(status == 503 && body.contains("unavailable"), "{status} {body}");
}

fn event(message: &str) -> Event {
    Event {
        unix_millis: 0,
        kind: EventKind::Normal,
        reason: "missing".to_owned(),
        workload: None,
        pod: None,
        container: None,
        cause: None,
        message: message.to_owned(),
    }
}

#[tokio::test]
async fn followers_see_old_and_new_events_until_the_server_stops() {
    let fixture = Fixture::start().await;
    fixture.journal.record(event("zero"));
    fixture.journal.record(event("one"));
    let (lines, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let socket = fixture.settings.socket();
    let follower = tokio::task::spawn_blocking(move || {
        Client::new(socket).lines("/v1/events?follow=true&limit=1", &mut |line| {
            lines.send(String::from_utf8_lossy(line).into_owned()).is_ok()
        })
    });
    assert!(seen.recv().await.expect("the old one").contains("\"one\""));
    fixture.journal.record(event("two"));
    assert!(seen.recv().await.expect("the new one").contains("\"two\""));
    fixture.server.stop().await;
    follower.await.expect("the follower does not panic").expect("the stream ends well");
    assert!(seen.recv().await.is_none());
}

#[tokio::test]
async fn the_socket_is_for_root_only_and_never_taken_from_one_who_answers() {
    let fixture = Fixture::start().await;
    let socket = fixture.settings.socket();
    let mode = std::fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(super::socket::bind(&socket).await, Err(ApiError::Taken { .. })));
    // A killed agent leaves its socket behind; nobody answers.
    let Fixture { dir, server, .. } = fixture;
    let Server { tasks, .. } = server;
    drop(tasks);
    while super::socket::bind(&socket).await.is_err() {
        tokio::task::yield_now().await;
    }
    drop(dir);
}
