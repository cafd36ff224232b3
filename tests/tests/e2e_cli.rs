//! The command line as scripts and people use it: data on stdout, the rest on stderr, exit codes 0, 1 and 2.

use std::io::Read as _;
use std::os::unix::process::CommandExt;

use serde_json::json;
use tests::agent::SOON;
use tests::manifest::{pod, web};
use tests::{Agent, Sandbox, require_root, world};

const BROKEN: &str = "apiVersion: v1
kind: Pod
metadata:
  name: broken
spec:
  containers:
    - name: main
      imge: app:1
";

/// `validate` as nobody, in a network namespace without any network: it needs neither root nor a registry.
#[test]
fn validate_works_offline_and_without_root() {
    if !require_root("validate_works_offline_and_without_root") {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new("validate");
    sandbox.write("good.yaml", &web("web", "example.org/app:1", "one", 8080));
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("the directory is ours");
    };
    open(sandbox.dir());
    let manifests = sandbox.manifests().display().to_string();
    // Copied: the build directory may be closed to others.
    let binary = sandbox.dir().join("mainstay");
    std::fs::copy(tests::binary::mainstay(), &binary).expect("the binary is readable");
    open(&binary);
    let validate = || {
        let mut command = std::process::Command::new(&binary);
        command.args(["validate", &manifests]).env_clear().env("NO_COLOR", "1").uid(65534).gid(65534).current_dir("/");
        sandbox.finish(command, &["validate"])
    };
    validate().ok();
    sandbox.write("bad.yaml", BROKEN);
    let refused = validate();
    assert_eq!(refused.code, 1, "{refused:?}");
    let text = format!("{}{}", refused.stdout, refused.stderr);
    for part in ["bad.yaml:8", "imge", "image", "^"] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    assert!(!text.contains("\u{1b}["), "NO_COLOR is respected");
}

#[test]
fn exit_codes_say_what_happened() {
    if !require_root("exit_codes_say_what_happened") {
        return;
    }
    let sandbox = Sandbox::new("codes");
    let missing = sandbox.dir().join("none").display().to_string();
    assert_eq!(sandbox.cli(&["version"]).code, 0);
    assert!(sandbox.cli(&["version"]).stdout.contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(sandbox.cli(&["validate", &missing]).code, 2);
    // No agent is there to answer.
    let status = sandbox.cli(&["status"]);
    assert_eq!((status.code, status.stdout.as_str()), (2, ""), "{status:?}");
    assert!(!status.stderr.is_empty());
    assert_eq!(sandbox.cli(&["no-such-command"]).code, 2);
}

#[test]
fn plan_shows_the_fields_that_change() {
    if !require_root("plan_shows_the_fields_that_change") {
        return;
    }
    let (sandbox, _registry, image) = world("plan");
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("web", 1);
    agent.wait_status("nothing is left to do", |status| status.converged.then_some(()));
    let other = sandbox.dir().join("other");
    std::fs::create_dir(&other).expect("the directory is ours");
    let plan = |text: &str| {
        std::fs::write(other.join("web.yaml"), text).expect("the directory is ours");
        agent.cli(&["plan", &other.display().to_string()])
    };
    let same = plan(&web("web", &image, "one", 8080));
    assert_eq!(same.code, 0, "{same:?}");
    let changed = plan(&web("web", &image, "two", 8080));
    assert_eq!(changed.code, 1, "{changed:?}");
    for part in ["web", "MESSAGE", "one", "two"] {
        assert!(changed.stdout.contains(part), "`{part}` is not in\n{}", changed.stdout);
    }
    // A plan changes nothing.
    assert_eq!(tests::http::get(("127.0.0.1", 8080), "/").expect("it serves").text(), "one\n");
}

#[test]
fn reading_commands_agree_with_the_kernel() {
    if !require_root("reading_commands_agree_with_the_kernel") {
        return;
    }
    let (sandbox, _registry, image) = world("reading");
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let mut agent = Agent::start(&sandbox);
    let pids = agent.wait_ready("web", 1);
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", pids[0])).expect("the container runs");
    assert_eq!(command, "/bin/fixture\0serve\0");
    assert!(agent.cli(&["ps"]).ok().stdout.contains("web"));
    assert!(agent.json(&["ps"]).to_string().contains("web"));
    assert!(agent.cli(&["events"]).ok().stdout.contains("web"));
    assert!(agent.json(&["images"]).to_string().contains("app"));
    // Logs: what was printed, and what is printed later.
    agent.wait_for("the first line is in the log", tests::agent::SOON, |agent| {
        agent.cli(&["logs", "web"]).ok().stdout.contains("serving on 8080").then_some(())
    });
    // exec: output, exit code, and a clear word when there is no such program.
    let id = agent.cli(&["exec", "web", "--", "/bin/fixture", "env"]).ok();
    assert!(id.stdout.contains("MESSAGE=one"), "{id:?}");
    assert_eq!(agent.cli(&["exec", "web", "--", "/bin/fixture", "exit", "7"]).code, 7);
    let missing = agent.cli(&["exec", "web", "--", "/bin/none"]);
    assert!(missing.code != 0 && missing.stderr.contains("/bin/none"), "{missing:?}");
    let unknown = agent.cli(&["logs", "nobody"]);
    assert!(unknown.code != 0 && unknown.stderr.contains("nobody"), "{unknown:?}");
}

#[test]
fn a_log_is_whole_and_outlives_the_agent() {
    if !require_root("a_log_is_whole_and_outlives_the_agent") {
        return;
    }
    let (sandbox, _registry, image) = world("logs");
    let mut lines = pod("lines", &image, &["print", "5000", "of", "many"]);
    lines["spec"]["restartPolicy"] = json!("Never");
    sandbox.write("lines.json", &lines.to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_status("it has ended", |status| {
        status.containers("lines").first().filter(|c| c.state == "exited").map(|_| ())
    });
    let text = agent.cli(&["logs", "lines"]).ok().stdout;
    let expected: String = (1..=5000).map(|n| format!("{n} of many\n")).collect();
    assert_eq!(text.len(), expected.len());
    assert_eq!(text, expected);
    // The log of a container that ended is there after the agent was killed, too.
    agent.restart();
    agent.wait_status("it is known", |status| status.workload("lines").map(|_| ()));
    assert_eq!(agent.cli(&["logs", "lines"]).ok().stdout, expected);
}

/// Lines come out as they are written, until the reader goes away.
#[test]
fn a_log_is_followed() {
    if !require_root("a_log_is_followed") {
        return;
    }
    let (sandbox, _registry, image) = world("follow");
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let mut agent = Agent::start(&sandbox);
    agent.wait_page(8080, "/", |body| body == "one\n");
    let file = sandbox.dir().join("followed");
    let output = std::fs::File::create(&file).expect("the directory is ours");
    let mut command = sandbox.command();
    let mut follower = command.args(["logs", "-f", "web"]).stdout(output).spawn().expect("the binary runs");
    let mut wait = |line: &str| {
        agent.wait_for(&format!("`{line}` is followed"), tests::agent::SOON, |_| {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            text.lines().any(|have| have == line).then_some(())
        });
    };
    wait("serving on 8080");
    for n in 0..3 {
        let said = tests::http::get(("127.0.0.1", 8080), &format!("/say/line-{n}")).expect("it serves");
        assert_eq!(said.status, 200);
        wait(&format!("line-{n}"));
    }
    assert!(follower.try_wait().expect("the child is ours").is_none(), "it follows until it is ended");
    follower.kill().expect("the child is ours");
    drop(follower.wait());
}

#[test]
fn metrics_count_what_happened() {
    if !require_root("metrics_count_what_happened") {
        return;
    }
    let (sandbox, _registry, image) = world("metrics");
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    sandbox.write("broken.yaml", BROKEN);
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("web", 1);
    agent.wait_page(8080, "/", |body| body == "one\n");
    let metrics = agent.wait_for("the pull is counted", tests::agent::SOON, |agent| {
        let metrics = agent.metrics();
        metrics.sum("mainstay_image_pulls_total", &[("outcome", "ok")]).filter(|n| *n >= 1.0)?;
        Some(metrics)
    });
    let at_least = |name: &str, labels: &[(&str, &str)], least: f64| {
        let value = metrics.sum(name, labels);
        assert!(value.is_some_and(|value| value >= least), "{name}{labels:?} = {value:?}");
    };
    at_least("mainstay_build_info", &[], 1.0);
    at_least("mainstay_reconciles_total", &[("outcome", "ok")], 1.0);
    at_least("mainstay_reconcile_duration_seconds_count", &[], 1.0);
    at_least("mainstay_actions_total", &[("outcome", "ok")], 1.0);
    at_least("mainstay_manifests", &[("state", "ok")], 1.0);
    at_least("mainstay_manifests", &[("state", "broken")], 1.0);
    at_least("mainstay_last_reconcile_success_timestamp_seconds", &[], 1.0);
    at_least("mainstay_workloads", &[("phase", "Running")], 1.0);
    at_least("mainstay_container_memory_working_set_bytes", &[("workload", "web")], 1.0);
    at_least("mainstay_container_cpu_seconds_total", &[("workload", "web")], 0.0);
    at_least("mainstay_container_pids", &[("workload", "web")], 1.0);
    at_least("mainstay_pod_network_receive_bytes_total", &[("workload", "web")], 1.0);
    for path in ["/livez", "/readyz"] {
        assert_eq!(tests::http::get(agent.metrics_address(), path).expect("it answers").status, 200, "{path}");
    }
    // A series has a type, and its name keeps the rules for names.
    for sample in &metrics.samples {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.name.strip_suffix(end));
        let known =
            metrics.types.contains_key(&sample.name) || base.is_some_and(|base| metrics.types.contains_key(base));
        assert!(known, "{} has no type", sample.name);
    }
}

/// Without root: a sentence that says so, not a panic or a permission error without context.
#[test]
fn run_without_root_says_so() {
    if !require_root("run_without_root_says_so") {
        return;
    }
    let sandbox = Sandbox::new("nobody");
    let binary = sandbox.dir().join("mainstay");
    std::fs::copy(tests::binary::mainstay(), &binary).expect("the binary is readable");
    use std::os::unix::fs::PermissionsExt;
    for path in [sandbox.dir(), &binary] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("the directory is ours");
    }
    let mut command = std::process::Command::new(&binary);
    command.arg("run").arg(sandbox.manifests()).env_clear().uid(65534).gid(65534).current_dir("/");
    let refused = sandbox.finish(command, &["run"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("root"), "{}", refused.stderr);
}

/// The last line of a file that a command writes to, once there is a whole one.
fn first_line(agent: &mut Agent<'_>, file: &std::path::Path) -> String {
    agent.wait_for("the command says something", tests::agent::SOON, |_| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.contains('\n').then(|| text.lines().next().unwrap_or_default().to_owned())
    })
}

#[test]
fn commands_reach_into_a_running_container() {
    if !require_root("commands_reach_into_a_running_container") {
        return;
    }
    let (sandbox, _registry, image) = world("reach");
    sandbox.write("web.json", &pod("web", &image, &["serve"]).to_string());
    let mut talker = pod("talker", &image, &["stdin"]);
    talker["spec"]["containers"][0]["stdin"] = json!(true);
    talker["spec"]["restartPolicy"] = json!("Never");
    sandbox.write("talker.json", &talker.to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("web", 1);
    agent.wait_ready("talker", 1);
    let dir = sandbox.dir().join("files");
    let path = |name: &str| dir.join(name).display().to_string();

    // cp: a tree goes in with a link that leads to the host's files, seen from the host.
    std::fs::create_dir_all(dir.join("tree/sub")).expect("the directory is ours");
    std::fs::write(dir.join("tree/sub/text"), "from the host\n").expect("the directory is ours");
    std::fs::write(dir.join("secret"), "secret\n").expect("the directory is ours");
    std::os::unix::fs::symlink(&dir, dir.join("tree/out")).expect("the directory is ours");
    agent.cli(&["cp", &path("tree"), "web:/copied"]).ok();
    let read = agent.cli(&["exec", "web", "--", "/bin/fixture", "cat", "/copied/sub/text"]).ok();
    assert_eq!(read.stdout, "from the host\n");
    agent.cli(&["cp", "web:/copied/sub/.", &path("back")]).ok();
    assert_eq!(std::fs::read_to_string(dir.join("back/text")).expect("it was copied"), "from the host\n");
    // In the container that link leads nowhere.
    let escaped = agent.cli(&["cp", "web:/copied/out/secret", &path("stolen")]);
    assert!(escaped.code == 2 && !dir.join("stolen").exists(), "{escaped:?}");
    // As an archive, out and in again.
    let mut out = sandbox.command();
    out.args(["cp", "web:/copied/sub", "-"]);
    let archive = out.output().expect("the binary runs");
    assert!(archive.status.success() && archive.stdout.len().is_multiple_of(512), "{archive:?}");
    std::fs::write(dir.join("archive.tar"), &archive.stdout).expect("the directory is ours");
    let mut into = sandbox.command();
    into.args(["cp", "-", "web:/copied"]).stdin(std::fs::File::open(dir.join("archive.tar")).expect("just written"));
    sandbox.finish(into, &["cp"]).ok();
    sandbox
        .finish(
            {
                let mut again = sandbox.command();
                again.args(["cp", "web:/copied/sub/text", &path("again")]);
                again
            },
            &["cp"],
        )
        .ok();
    let wrong = agent.cli(&["cp", &path("secret"), &path("other")]);
    assert_eq!(wrong.code, 2, "{wrong:?}");

    // port-forward, to a port that is not published.
    let said = dir.join("forwarded");
    let mut forward = sandbox.command();
    let mut forward = forward
        .args(["port-forward", "web", "0:8080"])
        .stdout(std::fs::File::create(&said).expect("the directory is ours"))
        .spawn()
        .expect("the binary runs");
    let line = first_line(&mut agent, &said);
    let address = line.split(' ').next().expect("it has an address").to_owned();
    let page = tests::http::get(address.as_str(), "/");
    drop(forward.kill());
    drop(forward.wait());
    assert_eq!(page.expect("it leads to the pod").status, 200, "{line}");

    // stats: what the kernel counts, as a table and as JSON.
    let rows = agent.json(&["stats", "web"]);
    let row = &rows.as_array().expect("a list")[0];
    assert_eq!((&row["pod"], &row["container"]), (&json!("web"), &json!("main")), "{rows:#}");
    assert!(row["memoryBytes"].as_u64() > Some(0) && row["pids"].as_u64() > Some(0), "{rows:#}");
    assert!(row["receivedBytes"].as_u64().is_some(), "{rows:#}");
    assert!(agent.cli(&["stats"]).ok().stdout.contains("talker"));

    // attach: what is typed goes in, what is said comes out, and the exit code at the end.
    std::fs::write(dir.join("typed"), "hello\n").expect("the directory is ours");
    let mut attach = sandbox.command();
    attach.args(["attach", "-i", "talker"]).stdin(std::fs::File::open(dir.join("typed")).expect("just written"));
    let attached = sandbox.finish(attach, &["attach"]);
    assert_eq!((attached.code, attached.stdout.as_str()), (0, "read: hello\n"), "{attached:?}");
    let ended = agent.cli(&["attach", "talker"]);
    assert!(ended.code == 2 && ended.stderr.contains("does not run"), "{ended:?}");
}

/// `status --wait` right after a file was written: what is in it is there, and not only as wished before it was read.
#[test]
fn waiting_begins_with_what_was_just_written() {
    if !require_root("waiting_begins_with_what_was_just_written") {
        return;
    }
    let (sandbox, _registry, image) = world("wait");
    let mut agent = Agent::start(&sandbox);
    for name in ["one", "two", "three"] {
        sandbox.write(&format!("{name}.json"), &pod(name, &image, &["sleep", "forever"]).to_string());
        let told = agent.cli(&["status", "--wait", "60s"]).ok();
        assert!(told.stdout.contains("; all as wished"), "{}", told.stdout);
        assert!(agent.status().workload(name).is_some_and(|workload| workload.phase == "Running"), "{}", told.stdout);
    }
    // What cannot become true is said after the time.
    sandbox.write("broken.yaml", BROKEN);
    let told = agent.cli(&["status", "--wait", "100ms"]);
    assert_eq!(told.code, 1, "{}", told.stdout);
    assert!(told.stdout.contains("3 running, 1 error; the rest as wished"), "{}", told.stdout);
    sandbox.remove("broken.yaml");
    agent.stop();
    // An agent that is not there is waited for, but no longer than was said.
    let told = sandbox.cli(&["status", "--wait", "100ms"]);
    assert!(told.code == 2 && told.stderr.contains("the agent is not running"), "{told:?}");
    let mut waiting = sandbox.command();
    waiting.args(["status", "--wait", "60s"]);
    let told = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sandbox.finish(waiting, &["status"]));
        agent.start_again();
        waiting.join().expect("it does not panic")
    });
    assert!(told.code == 0 && told.stdout.contains("3 running; all as wished"), "{told:?}");
    agent.stop();
    sandbox.down();
    sandbox.assert_clean();
}

/// Whoever looks at what a container writes and does not read on is left behind, not waited for.
#[test]
fn a_reader_that_stops_reading_stops_nobody() {
    if !require_root("a_reader_that_stops_reading_stops_nobody") {
        return;
    }
    let (sandbox, _registry, image) = world("reader");
    let mut wanted = pod("flood", &image, &["flood"]);
    wanted["spec"]["terminationGracePeriodSeconds"] = json!(0);
    sandbox.write("flood.json", &wanted.to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("flood", 1);
    let reader = |words: &[&str]| {
        let mut command = sandbox.command();
        let child =
            command.args(words).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn();
        let mut child = child.expect("the binary runs");
        let mut first = [0];
        child.stdout.as_mut().expect("piped").read_exact(&mut first).expect("it shows something");
        child
    };
    let mut readers = [reader(&["attach", "flood"]), reader(&["logs", "-f", "-n", "1", "flood"])];
    let written = |agent: &Agent<'_>| -> u64 {
        let line = agent.cli(&["logs", "-n", "1", "flood"]).ok().stdout;
        line.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    let before = written(&agent);
    agent.wait_for("it has written on, far more than pipes and sockets hold", SOON, |agent| {
        (written(agent) > before + 100_000).then_some(())
    });
    for child in &mut readers {
        drop(child.kill());
        drop(child.wait());
    }
    drop(agent);
    sandbox.down();
}
