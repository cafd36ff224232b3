//! New versions of workloads, with real containers: nothing is lost while one takes over, one that fails is taken back,
//! and an agent that is killed at any moment leaves old or new.
//!
//! `MAINSTAY_ROLLOUTS` and `MAINSTAY_KILLS` make the long runs of it.

use std::io::{BufReader, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::agent::SOON;
use tests::manifest::deployment;
use tests::{Agent, require_root, world};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A Deployment that serves its version, ready when it does.
fn served(name: &str, image: &str, version: &str, host_port: u16) -> Value {
    let mut manifest = deployment(name, 1, image, &["serve"]);
    // The kept connections of the load stay until the server closes them.
    manifest["metadata"]["annotations"] = json!({"mainstay/drain": "3s"});
    let container = &mut manifest["spec"]["template"]["spec"]["containers"][0];
    container["env"] = json!([{"name": "MESSAGE", "value": version}]);
    container["ports"] = json!([{"containerPort": 8080, "hostPort": host_port}]);
    container["readinessProbe"] = json!({"httpGet": {"port": 8080}, "periodSeconds": 1});
    manifest
}

/// Clients on one port until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    lost: Arc<Mutex<Vec<String>>>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(port: u16) -> Self {
        let mut load =
            Self { stop: Arc::default(), answered: Arc::default(), lost: Arc::default(), clients: Vec::new() };
        for keep_alive in [false, false, false, true, true] {
            let (stop, answered, lost) = (Arc::clone(&load.stop), Arc::clone(&load.answered), Arc::clone(&load.lost));
            load.clients.push(std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let result = if keep_alive {
                        converse(port, &stop, &answered)
                    } else {
                        tests::http::get(("127.0.0.1", port), "/").map(|answer| {
                            assert_eq!(answer.status, 200);
                            answered.fetch_add(1, Ordering::SeqCst);
                        })
                    };
                    if let Err(error) = result {
                        // To be found in the agent's log.
                        let at = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64();
                        let kind = if keep_alive { "on a kept connection" } else { "on a new connection" };
                        lost.lock().expect("no client panics with it").push(format!("{at:.3} {kind}: {error}"));
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
            }));
        }
        load
    }

    /// Answers, and what was lost.
    fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().expect("a client counts and does not panic");
        }
        let lost = self.lost.lock().expect("all clients have ended").clone();
        (self.answered.load(Ordering::SeqCst), lost)
    }
}

/// Requests on one connection until the server says that it closes it.
fn converse(port: u16, stop: &AtomicBool, answered: &AtomicU64) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let last = stop.load(Ordering::SeqCst);
        let connection = if last { "close" } else { "keep-alive" };
        write!(stream, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n")?;
        let answer = tests::http::read_response(&mut reader)?;
        answered.fetch_add(1, Ordering::SeqCst);
        if last || answer.head.header("connection") == Some("close") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn updates_under_load_lose_no_request() {
    if !require_root("updates_under_load_lose_no_request") {
        return;
    }
    let (sandbox, _registry, image) = world("load");
    sandbox.write("web.json", &served("web", &image, "v0", 8080).to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_page(8080, "/", |body| body == "v0\n");
    // A pod that serves and was never found ready is no loss to a rolling update, as in Kubernetes.
    agent.wait_ready("web", 1);
    let updates = number("MAINSTAY_ROLLOUTS", 3);
    let load = Load::start(8080);
    for update in 1..=updates {
        let version = format!("v{update}");
        sandbox.write("web.json", &served("web", &image, &version, 8080).to_string());
        agent.wait_page(8080, "/", |body| body.trim() == version);
        agent.wait_status("the old pod is gone", |status| {
            let web = status.workload("web")?;
            (web.pods.len() == 1 && web.ready == 1).then_some(())
        });
    }
    let (answered, lost) = load.end();
    eprintln!("{updates} updates: {answered} answers, {} lost", lost.len());
    assert!(lost.is_empty(), "{} of {answered} lost: {lost:?}", lost.len());
    assert!(answered > 200 * updates, "only {answered} answers");
}

/// How the agent says why a workload is held.
fn held(agent: &Agent<'_>, name: &str) -> Option<(String, String)> {
    let status = agent.json(&["status"]);
    let workload = status["workloads"].as_array()?.iter().find(|workload| workload["name"] == name)?.clone();
    let text = |key: &str| workload["held"][key].as_str().map(str::to_owned);
    Some((text("reason")?, text("message")?))
}

#[test]
fn a_version_that_fails_is_taken_back() {
    if !require_root("a_version_that_fails_is_taken_back") {
        return;
    }
    let (sandbox, _registry, image) = world("takenback");
    let write = |name: &str, port: u16, change: &dyn Fn(&mut Value)| {
        let mut manifest = served(name, &image, "good", port);
        // What ends again and again is not to fail for want of time: its third end comes after 10 s.
        manifest["spec"]["progressDeadlineSeconds"] = json!(if name == "crash" { 60 } else { 12 });
        change(&mut manifest);
        sandbox.write(&format!("{name}.json"), &manifest.to_string());
    };
    write("crash", 8081, &|_| {});
    write("hang", 8082, &|_| {});
    let mut agent = Agent::start(&sandbox);
    let before = [agent.wait_ready("crash", 1), agent.wait_ready("hang", 1)];
    // A version that has served for ten seconds without an end is a good one; the agent looks when they are over.
    let ready = Instant::now();
    agent.wait_for("both have served for a while", SOON, |_| {
        (ready.elapsed() >= Duration::from_millis(10_500)).then_some(())
    });
    write("crash", 8081, &|manifest| {
        let container = &mut manifest["spec"]["template"]["spec"]["containers"][0];
        container["args"] = json!(["exit", "3"]);
    });
    write("hang", 8082, &|manifest| {
        let container = &mut manifest["spec"]["template"]["spec"]["containers"][0];
        container["args"] = json!(["sleep", "forever"]);
    });
    for (name, cause) in [("crash", "code 3"), ("hang", "not ready within 12 s")] {
        let (reason, message) = agent.wait_for("it is taken back", SOON, |agent| held(agent, name));
        assert_eq!(reason, "rolled_back");
        assert!(message.contains(cause) && message.contains("mainstay retry"), "{message}");
    }
    agent.wait_status("the failed pods are gone", |status| {
        (status.workload("crash")?.pods.len() == 1 && status.workload("hang")?.pods.len() == 1).then_some(())
    });
    assert_eq!(
        [agent.status().pids("crash"), agent.status().pids("hang")],
        before,
        "the old pods served all the while"
    );
    assert!(agent.cli(&["status"]).stdout.contains("rolled_back"));
    assert!(agent.cli(&["events"]).stdout.contains("rolled_back"));
    let failed = agent.metrics().sum("mainstay_versions_failed_total", &[]).expect("it is served");
    assert!((failed - 2.0).abs() < 0.1, "{failed}");
    // It is remembered by the next agent, and forgotten when somebody says so.
    agent.kill9();
    agent.start_again();
    agent.wait_ready("crash", 1);
    assert_eq!(agent.wait_for("it is held still", SOON, |agent| held(agent, "crash")).0, "rolled_back");
    assert_eq!(agent.status().pids("crash"), before[0]);
    agent.cli(&["retry", "crash"]).ok();
    agent.wait_status("it is tried again", |status| (status.workload("crash")?.pods.len() == 2).then_some(()));
    // A version that works takes over.
    write("crash", 8081, &|manifest| {
        let container = &mut manifest["spec"]["template"]["spec"]["containers"][0];
        container["env"][0]["value"] = json!("better");
    });
    agent.wait_page(8081, "/", |body| body == "better\n");
    assert_eq!(held(&agent, "crash"), None);
}

#[test]
fn an_agent_killed_during_updates_leaves_old_or_new() {
    if !require_root("an_agent_killed_during_updates_leaves_old_or_new") {
        return;
    }
    let (sandbox, _registry, image) = world("killed");
    let workloads = number("MAINSTAY_KILL_WORKLOADS", 3);
    let name = |n: u64| format!("w{n}");
    let port = |n: u64| 8100 + u16::try_from(n).expect("few workloads");
    let write = |version: &str| {
        for n in 0..workloads {
            let text = served(&name(n), &image, version, port(n)).to_string();
            sandbox.write(&format!("{}.json", name(n)), &text);
        }
    };
    write("v0");
    let mut agent = Agent::start(&sandbox);
    for n in 0..workloads {
        agent.wait_ready(&name(n), 1);
    }
    let kills = number("MAINSTAY_KILLS", 4);
    // Reproducible moments, spread over the length of an update.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for kill in 1..=kills {
        write(&format!("v{kill}"));
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The moment is what is tried out here; nothing is waited for.
        std::thread::sleep(Duration::from_millis((state >> 33) % 1500));
        agent.kill9();
        for n in 0..workloads {
            let answer = tests::http::get(("127.0.0.1", port(n)), "/");
            assert!(answer.is_ok(), "kill {kill}: {} is gone: {answer:?}", name(n));
        }
        agent.start_again();
    }
    for n in 0..workloads {
        agent.wait_page(port(n), "/", |body| body.trim() == format!("v{kills}"));
    }
    agent.wait_status("one pod is left of each", |status| {
        (0..workloads)
            .all(|n| status.workload(&name(n)).is_some_and(|w| w.pods.len() == 1 && w.ready == 1))
            .then_some(())
    });
    eprintln!("{kills} kills during updates of {workloads} workloads: nothing lost");
    assert_eq!(agent.stop(), 0);
    sandbox.down();
    sandbox.assert_clean();
}
