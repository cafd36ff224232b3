//! What a service manager sees of the agent, and that a new configuration or a new binary takes over without any
//! container noticing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::agent::SOON;
use tests::image::fixture_image;
use tests::manifest::{pod, web};
use tests::{Agent, Registry, Sandbox, require_root, world};

/// The messages of a fake service manager, as they come.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("the directory is ours");
        socket.set_read_timeout(Some(SOON)).expect("the time is not zero");
        Self { socket, heard: Vec::new() }
    }

    /// Reads on until a message begins like this.
    #[track_caller]
    fn wait(&mut self, start: &str) -> String {
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            let mut buffer = [0; 1024];
            let Ok(length) = self.socket.recv(&mut buffer) else { break };
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.heard.push(message.clone());
            if message.starts_with(start) {
                return message;
            }
        }
        panic!("no message `{start}...` came; heard: {:?}", self.heard)
    }
}

/// Start time of a process in clock ticks since boot: with the pid it names one process.
fn started(pid: i32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields = stat.rsplit_once(") ").expect("stat has a name in parentheses").1;
    fields.split(' ').nth(19).expect("stat has a start time").to_owned()
}

fn instance(agent: &Agent<'_>) -> Option<String> {
    let response = tests::http::unix(&agent.socket(), "GET", "/v1/version", b"").ok()?;
    let value: Value = serde_json::from_str(&response.text()).ok()?;
    value["instance"].as_str().map(str::to_owned)
}

#[test]
fn a_service_manager_hears_of_it_and_down_stays_down() {
    if !require_root("a_service_manager_hears_of_it_and_down_stays_down") {
        return;
    }
    let (sandbox, _registry, image) = world("notify");
    let mut manager = Manager::new(&sandbox.dir().join("notify"));
    let notify = sandbox.dir().join("notify").display().to_string();
    // Ready does not depend on a source: there is none yet.
    fs::remove_dir(sandbox.manifests()).expect("the directory is empty");
    let mut agent = Agent::start_with(&sandbox, &[], &[("NOTIFY_SOCKET", &notify), ("WATCHDOG_USEC", "1000000")]);
    manager.wait("READY=1");
    manager.wait("WATCHDOG=1");
    fs::create_dir(sandbox.manifests()).expect("the directory is ours");
    sandbox.write("a.json", &pod("a", &image, &["sleep", "forever"]).to_string());
    manager.wait("STATUS=1 running");

    // Stopped, the loop gives no sign of life: systemd would end the agent.
    let pid = Pid::from_raw(i32::try_from(agent.pid()).expect("a pid fits"));
    kill(pid, Signal::SIGSTOP).expect("the agent runs");
    manager.socket.set_read_timeout(Some(Duration::from_millis(1200))).expect("the time is not zero");
    while manager.socket.recv(&mut [0; 1024]).is_ok() {}
    kill(pid, Signal::SIGCONT).expect("the agent is stopped");
    manager.socket.set_read_timeout(Some(SOON)).expect("the time is not zero");
    manager.wait("WATCHDOG=1");

    // The unit names this exit code in RestartPreventExitStatus=.
    agent.cli(&["down", "--yes"]).ok();
    let status = agent.wait_for("the agent ends after down", SOON, Agent::exited);
    assert_eq!(status.code(), Some(3));
    manager.wait("STOPPING=1");
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd/mainstay.service"));
    assert!(unit.expect("the unit is there").contains("\nRestartPreventExitStatus=3\n"));
    sandbox.assert_clean();
}

#[test]
fn a_reload_touches_no_container() {
    if !require_root("a_reload_touches_no_container") {
        return;
    }
    let (sandbox, _registry, image) = world("reload");
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let config = sandbox.dir().join("config.toml");
    fs::write(&config, "").expect("the directory is ours");
    let mut manager = Manager::new(&sandbox.dir().join("notify"));
    let notify = sandbox.dir().join("notify").display().to_string();
    let config_path = config.display().to_string();
    let mut agent = Agent::start_with(&sandbox, &[], &[("MAINSTAY_CONFIG", &config_path), ("NOTIFY_SOCKET", &notify)]);
    manager.wait("READY=1");
    let pids = agent.wait_ready("web", 1);
    let container = (pids[0], started(pids[0]));
    let agent_start = started(i32::try_from(agent.pid()).expect("a pid fits"));
    let first = instance(&agent);
    assert!(first.is_some());

    // Somebody follows the log all the while.
    let followed = sandbox.dir().join("followed");
    let output = fs::File::create(&followed).expect("the directory is ours");
    let mut follower = sandbox.command();
    let mut follower = follower.args(["logs", "-f", "web"]).stdout(output).spawn().expect("the binary runs");
    // And what happens.
    let happened = sandbox.dir().join("happened");
    let output = fs::File::create(&happened).expect("the directory is ours");
    let mut watcher = sandbox.command();
    watcher.args(["-o", "json", "events", "-f", "-n", "1000"]).stdout(output);
    let mut watcher = watcher.spawn().expect("the binary runs");
    // And what containers use.
    let used = sandbox.dir().join("used");
    let output = fs::File::create(&used).expect("the directory is ours");
    let mut top = sandbox.command();
    let mut top = top.args(["-o", "json", "top"]).stdout(output).spawn().expect("the binary runs");
    let readings = || fs::read_to_string(&used).unwrap_or_default().lines().count();
    let mut said = 0;
    let mut say = || {
        said += 1;
        let answer = tests::http::get(("127.0.0.1", 8080), &format!("/say/line-{said}")).expect("it serves");
        assert_eq!(answer.status, 200);
    };
    say();

    // Wrong: said, and nothing changes.
    fs::write(&config, "log_levle = \"debug\"\n").expect("the directory is ours");
    agent.wait_for("the mistake is told", SOON, |agent| {
        let events = agent.json(&["events"]).to_string();
        (events.contains("reload_refused") && events.contains("log_levle")).then_some(())
    });
    assert_eq!(instance(&agent), first);
    assert_eq!(agent.metrics().sum("mainstay_config_last_reload_successful", &[]), Some(0.0));
    let refused = agent.cli(&["reload"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("log_levle"), "{}", refused.stderr);
    // A place of things cannot change while containers are in it.
    fs::write(&config, "subnet = \"10.99.0.0/20\"\n").expect("the directory is ours");
    let refused = agent.cli(&["reload"]);
    assert!(refused.code == 2 && refused.stderr.contains("cannot change subnet"), "{}", refused.stderr);
    assert_eq!(instance(&agent), first);
    say();

    // Right: taken in by itself.
    fs::write(&config, "log_level = \"debug\"\n").expect("the directory is ours");
    manager.wait("RELOADING=1\nMONOTONIC_USEC=");
    manager.wait("READY=1");
    let second =
        agent.wait_for("another agent answers", SOON, |agent| instance(agent).filter(|i| Some(i) != first.as_ref()));
    assert_eq!(started(i32::try_from(agent.pid()).expect("a pid fits")), agent_start, "the same process");
    say();

    // SIGHUP, and by hand.
    kill(Pid::from_raw(i32::try_from(agent.pid()).expect("a pid fits")), Signal::SIGHUP).expect("the agent runs");
    let third = agent.wait_for("another agent answers", SOON, |agent| instance(agent).filter(|i| *i != second));
    say();
    let reloaded = agent.cli(&["reload"]).ok();
    assert!(reloaded.stderr.contains("reloaded"), "{}", reloaded.stderr);
    assert!(instance(&agent).is_some_and(|i| i != third));
    say();

    // The container never noticed, and not a line is missing.
    assert_eq!(agent.wait_ready("web", 1), pids);
    assert_eq!(started(pids[0]), container.1);
    let expected: Vec<String> = (1..=5).map(|n| format!("line-{n}")).collect();
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with("line-")).map(str::to_owned).collect()
    };
    agent.wait_for("every line is followed", SOON, |_| {
        (lines(&fs::read_to_string(&followed).unwrap_or_default()) == expected).then_some(())
    });
    assert_eq!(lines(&agent.cli(&["logs", "web"]).ok().stdout), expected);
    follower.kill().expect("the child is ours");
    drop(follower.wait());
    // Nor is an event, and none came twice, though four agents have told them.
    agent.wait_for("every event is followed", SOON, |agent| {
        let numbers = |text: &str| -> Vec<u64> {
            let records = serde_json::Deserializer::from_str(text).into_iter::<Value>();
            records.filter_map(|record| record.ok()?["number"].as_u64()).collect()
        };
        let all = agent.json(&["events", "-n", "1000"]);
        let all: String = all.as_array().into_iter().flatten().map(Value::to_string).collect();
        (numbers(&fs::read_to_string(&happened).unwrap_or_default()) == numbers(&all)).then_some(())
    });
    watcher.kill().expect("the child is ours");
    drop(watcher.wait());
    let before = readings();
    agent.wait_for("readings go on", SOON, |_| (readings() > before).then_some(()));
    top.kill().expect("the child is ours");
    drop(top.wait());
    // The command does not have the variable that names the agent's file.
    let config = agent.cli(&["config"]).ok();
    assert!(config.stderr.contains("note: the agent that runs has log_level = debug"), "{}", config.stderr);
    // It heals as before: the loop is alive.
    kill(Pid::from_raw(pids[0]), Signal::SIGKILL).expect("the container runs");
    agent.wait_status("the container runs again", |status| {
        let now = status.pids("web");
        (now.len() == 1 && now != pids).then_some(())
    });
    // Told to end in the middle of a reload, it ends.
    let pid = Pid::from_raw(i32::try_from(agent.pid()).expect("a pid fits"));
    kill(pid, Signal::SIGHUP).expect("the agent runs");
    manager.wait("RELOADING=1\nMONOTONIC_USEC=");
    kill(pid, Signal::SIGTERM).expect("the agent runs");
    agent.wait_for("the agent ends", SOON, Agent::exited);
    sandbox.down();
    sandbox.assert_clean();
}

#[test]
fn log_lines_are_entries_of_the_journal() {
    if !require_root("log_lines_are_entries_of_the_journal") {
        return;
    }
    let sandbox = Sandbox::new("journal");
    let socket = UnixDatagram::bind(sandbox.dir().join("socket")).expect("the directory is ours");
    socket.set_read_timeout(Some(SOON)).expect("the time is not zero");
    let stream = fs::File::create(sandbox.dir().join("stderr")).expect("the directory is ours");
    let file = stream.metadata().expect("it is open");
    sandbox.write("bad.yaml", "kind: Pod\napiVersion: v1\n");
    // The journal's address is fixed, so the agent has a /run of its own.
    let mounts =
        r#"mount -t tmpfs run /run && mkdir -p /run/systemd/journal && mount --bind "$0" /run/systemd/journal"#;
    let agent = sandbox.command();
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &format!("{mounts} && exec \"$@\"")]);
    command.arg(sandbox.dir()).arg(agent.get_program()).args(agent.get_args()).arg("run").arg(sandbox.manifests());
    command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino())).stderr(stream);
    let mut child = command.spawn().expect("unshare is there");

    let mut buffer = [0; 65536];
    let mut entries = Vec::new();
    let found = loop {
        let Ok(length) = socket.recv(&mut buffer) else { break None };
        let entry = String::from_utf8_lossy(&buffer[..length]).into_owned();
        entries.push(entry.clone());
        if entry.contains("bad.yaml") {
            break Some(entry);
        }
    };
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid fits")), Signal::SIGTERM).expect("the agent runs");
    child.wait().expect("the child is ours");
    let entry = found.unwrap_or_else(|| panic!("no entry of the fault: {entries:?}"));
    for field in ["PRIORITY=3\n", "SYSLOG_IDENTIFIER=mainstay\n", "MAINSTAY_SOURCE=", "CODE_FILE=agent/src/"] {
        assert!(entry.contains(field), "{field} in {entry}");
    }
    let rest = fs::read_to_string(sandbox.dir().join("stderr")).expect("it is there");
    assert!(!rest.contains("bad.yaml"), "told once: {rest}");
    sandbox.down();
    sandbox.assert_clean();
}

#[test]
fn another_binary_takes_over_only_when_it_works() {
    if !require_root("another_binary_takes_over_only_when_it_works") {
        return;
    }
    let mut sandbox = Sandbox::new("upgrade");
    let exe = sandbox.use_copy();
    let registry = Registry::start();
    let image = registry.push("app:1", &fixture_image());
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let mut agent = Agent::start(&sandbox);
    let pids = agent.wait_ready("web", 1);
    let start = started(pids[0]);
    let running = |agent: &Agent<'_>| fs::metadata(format!("/proc/{}/exe", agent.pid())).expect("the agent runs").ino();
    let first = running(&agent);

    // What is no program, or one that is no mainstay, changes nothing.
    let text = sandbox.dir().join("text");
    fs::write(&text, "not a program\n").expect("the directory is ours");
    for (bad, why) in [("/bin/false", "exit status: 1"), (text.to_str().expect("plain path"), "cannot run")] {
        let refused = agent.cli(&["upgrade", "--binary", bad]);
        assert!(refused.code == 2 && refused.stderr.contains(why), "{bad}: {}", refused.stderr);
        assert_eq!((running(&agent), fs::metadata(&exe).expect("it is there").ino()), (first, first), "{bad}");
    }

    // Another one that works, and the one before again.
    let new = sandbox.dir().join("new");
    let mut bytes = fs::read(&exe).expect("it is there");
    bytes.extend_from_slice(b"\nanother build\n");
    fs::write(&new, &bytes).expect("the directory is ours");
    let before = sandbox.dir().join("before");
    fs::copy(&exe, &before).expect("the directory is ours");
    for (binary, length) in [(&new, bytes.len()), (&before, bytes.len() - 15)] {
        let path = binary.to_str().expect("plain path");
        agent.cli(&["upgrade", "--binary", path]).ok();
        let running = fs::metadata(format!("/proc/{}/exe", agent.pid())).expect("the same process runs");
        assert_eq!(running.len(), length as u64, "{path}");
        assert_eq!(agent.wait_ready("web", 1), pids);
        assert_eq!(started(pids[0]), start);
        agent.wait_page(8080, "/", |body| body == "one\n");
    }
    assert!(fs::exists(exe.with_file_name("mainstay.previous")).expect("it can be looked for"));

    // An agent that has not read its sources yet, since git is at work in them, knows what runs all the same.
    let lock = sandbox.manifests().join(".git/index.lock");
    fs::create_dir(sandbox.manifests().join(".git")).expect("the directory is ours");
    fs::write(&lock, "").expect("the directory is ours");
    agent.cli(&["upgrade", "--binary", new.to_str().expect("plain path")]).ok();
    assert_eq!(agent.json(&["status"])["passes"], 0, "it waits for git");
    agent.cli(&["logs", "web"]).ok();
    let asked = agent.cli(&["down"]);
    assert!(asked.code == 2 && asked.stderr.contains("not stopping 1 pod of 1 workload"), "{}", asked.stderr);
    fs::remove_file(&lock).expect("it is there");
    agent.wait_status("the sources are read", |status| (status.pids("web") == pids).then_some(()));

    // A shim that the other binary has started is spoken to.
    kill(Pid::from_raw(pids[0]), Signal::SIGKILL).expect("the container runs");
    agent.wait_status("the container runs again", |status| (status.pids("web").len() == 1).then_some(()));
    assert_eq!(agent.stop(), 0);
    sandbox.down();
    sandbox.assert_clean();
}

#[test]
fn a_shutdown_stops_in_order_and_forgets_nothing() {
    if !require_root("a_shutdown_stops_in_order_and_forgets_nothing") {
        return;
    }
    let (sandbox, _registry, image) = world("shutdown");
    let compose = format!(
        "name: shop\nservices:\n  web:\n    image: {image}\n    command: [ignore-term]\n    restart: always\n    depends_on: [db]\n    stop_grace_period: 2s\n  db:\n    image: {image}\n    command: [sleep, forever]\n    restart: always\n    stop_grace_period: 5s\n  queue:\n    image: {image}\n    command: [sleep, forever]\n    restart: on-failure\n"
    );
    sandbox.write("compose.yaml", &compose);
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("web", 1);
    agent.wait_ready("db", 1);
    agent.wait_ready("queue", 1);
    let uids = |agent: &Agent<'_>| -> Vec<String> {
        let status = agent.json(&["status"]);
        let workloads = status["workloads"].as_array().expect("there are workloads").clone();
        workloads.iter().map(|workload| workload["pods"][0]["uid"].to_string()).collect()
    };
    let before = uids(&agent);
    // Not beside an agent, which would start everything again.
    assert_eq!(agent.cli(&["shutdown"]).code, 2);
    assert_eq!(agent.stop(), 0);
    // Manifests say who depends on whom. Where they, the containers and their data are was on the agent's command line and
    // is in no file but the records that it left: the one that should say so was broken while the agent went on.
    let config = sandbox.dir().join("config.toml");
    fs::write(&config, "data_dir = \"/nowhere\"\nlog_levle = \"debug\"\n").expect("the directory is ours");
    let mut shutdown = std::process::Command::new(sandbox.binary());
    shutdown.arg("--run-dir").arg(sandbox.run()).args(["shutdown", "--timeout", "20s"]).env("MAINSTAY_CONFIG", config);
    let stopped = sandbox.finish(shutdown, &["shutdown"]).ok();
    assert!(stopped.stderr.contains("log_levle"), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("stopped 3 pods"), "{}", stopped.stderr);
    // Records of both ends are there; who depends on the other one ended first.
    let ended = |name: &str| -> i64 {
        let mut records = Vec::new();
        for pod in fs::read_dir(sandbox.data().join("pods")).expect("records stay").flatten() {
            if let Ok(text) = fs::read_to_string(pod.path().join(name).join("0/exit.json")) {
                let value: Value = serde_json::from_str(&text).expect("a record is JSON");
                records.push(value["finished"].as_i64().unwrap_or_else(|| panic!("no time in {value}")));
            }
        }
        assert_eq!(records.len(), 1, "{name}");
        records[0]
    };
    // It takes its whole grace period: at the same time the other one would have ended first.
    assert!(ended("web") <= ended("db"));
    // The next agent goes on with the same pods, also with what ended in good order and starts after failures only.
    agent.start_again();
    agent.wait_ready("web", 1);
    agent.wait_ready("db", 1);
    agent.wait_ready("queue", 1);
    assert_eq!(uids(&agent), before);
    assert_eq!(agent.stop(), 0);
    sandbox.down();
    sandbox.assert_clean();
}

#[test]
fn a_configuration_that_cannot_be_used_is_told_and_tried_again_when_it_is_mended() {
    if !require_root("a_configuration_that_cannot_be_used_is_told_and_tried_again_when_it_is_mended") {
        return;
    }
    let sandbox = Sandbox::new("exit78");
    let config = sandbox.dir().join("config.toml");
    fs::write(&config, "log_levle = \"debug\"\n").expect("the directory is ours");
    let start = |notify: Option<&Path>| {
        let mut command = sandbox.command();
        command.env("MAINSTAY_CONFIG", &config).arg("run").stderr(std::process::Stdio::null());
        command.envs(notify.map(|socket| ("NOTIFY_SOCKET", socket)));
        command.spawn().expect("the binary runs")
    };
    let ended = |child: &mut std::process::Child| {
        tests::agent::poll("the agent ends", SOON, || child.try_wait().expect("the child is ours"))
            .expect("it ends by itself")
            .code()
    };
    // Nobody listens: at once.
    assert_eq!(ended(&mut start(None)), Some(78));
    // A service manager starts it again within 100 ms, so that it waits itself, and says why.
    let mut manager = Manager::new(&sandbox.dir().join("notify"));
    let begun = Instant::now();
    let mut agent = start(Some(&sandbox.dir().join("notify")));
    let told = manager.wait("STATUS=not started: ");
    assert!(told.contains("log_levle"), "{told}");
    assert!(agent.try_wait().expect("the child is ours").is_none(), "it waits");
    fs::write(&config, "log_level = \"debug\"\n").expect("the directory is ours");
    assert_eq!(ended(&mut agent), Some(78));
    assert!(begun.elapsed() < Duration::from_secs(10), "mended: it does not wait to the end");
    assert!(!manager.heard.iter().any(|message| message.starts_with("READY")), "{:?}", manager.heard);
    sandbox.assert_clean();
}
