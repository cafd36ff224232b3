//! The phases of an update, with real containers: whatever can fail early fails while the old pod still runs, and the
//! old pod ends only when nobody talks to it any more.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::agent::SOON;
use tests::image::fixture_builder;
use tests::manifest::{deployment, pod};
use tests::{Agent, Layer, require_root, world};

/// A workload whose old pod must end before the new one starts: the worst case for a version that cannot be made.
fn stop_first(kind: &str, name: &str, image: &str) -> Value {
    let arguments = ["sleep", "forever"];
    if kind == "Pod" {
        return pod(name, image, &arguments);
    }
    let mut manifest = deployment(name, 1, image, &arguments);
    manifest["kind"] = json!(kind);
    match kind {
        "Deployment" => manifest["spec"]["strategy"] = json!({"type": "Recreate"}),
        _ => manifest["spec"]["serviceName"] = json!(name),
    }
    manifest
}

#[test]
fn what_can_fail_early_fails_while_the_old_pod_runs() {
    if !require_root("what_can_fail_early_fails_while_the_old_pod_runs") {
        return;
    }
    let (sandbox, _registry, image) = world("early");
    let directory = sandbox.dir().join("made-later");
    let holder = TcpListener::bind("0.0.0.0:8090").expect("the sandbox's network is fresh");
    let volume = |source: Value| json!([{"name": "data", "hostPath": source}]);
    // Kind, name, what the new version asks for, what is said.
    let cases = [
        ("Pod", "path", json!({"volumes": volume(json!({"path": &directory, "type": "Directory"}))}), "made-later"),
        ("Deployment", "kind", json!({"volumes": volume(json!({"path": "/dev/null", "type": "File"}))}), "/dev/null"),
        ("Deployment", "port", json!({"port": 8090}), "8090"),
        ("StatefulSet", "root", json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 0}}), "runAsNonRoot"),
        ("Pod", "user", json!({"env": {"secretKeyRef": {"name": "later", "key": "k"}}}), "later"),
        ("Deployment", "nope", json!({"image": "nope"}), "nope"),
        ("Deployment", "program", json!({"command": ["/bin/missing"]}), "/bin/missing"),
    ];
    for (kind, name, ..) in &cases {
        sandbox.write(&format!("{name}.json"), &stop_first(kind, name, &image).to_string());
    }
    let mut agent = Agent::start(&sandbox);
    let before: Vec<Vec<i32>> = cases.iter().map(|(_, name, ..)| agent.wait_ready(name, 1)).collect();
    for (kind, name, change, _) in &cases {
        let mut manifest = stop_first(kind, name, &image);
        let spec = if *kind == "Pod" { &mut manifest["spec"] } else { &mut manifest["spec"]["template"]["spec"] };
        if change["volumes"].is_array() {
            spec["volumes"] = change["volumes"].clone();
            spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        }
        if change["port"].is_number() {
            spec["containers"][0]["ports"] = json!([{"containerPort": 8080, "hostPort": change["port"]}]);
        }
        if change["securityContext"].is_object() {
            spec["securityContext"] = change["securityContext"].clone();
        }
        if change["env"].is_object() {
            spec["containers"][0]["env"] = json!([{"name": "V", "valueFrom": change["env"]}]);
        }
        if change["command"].is_array() {
            spec["containers"][0]["command"] = change["command"].clone();
        }
        if change["image"].is_string() {
            spec["containers"][0]["image"] = json!(image.replace("app:1", "nope:1"));
        }
        sandbox.write(&format!("{name}.json"), &manifest.to_string());
    }
    for (_, name, _, word) in &cases {
        agent
            .wait_for(&format!("{name}: {word} is named"), SOON, |agent| agent.told(name).contains(word).then_some(()));
    }
    let names: Vec<&str> = cases.iter().map(|(_, name, ..)| *name).collect();
    agent.assert_untouched(&names, &before, Duration::from_secs(2));
    // What is mended is done, without another word.
    std::fs::create_dir(&directory).expect("the sandbox's directory is ours");
    drop(holder);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "later"}, "stringData": {"k": "v"}});
    sandbox.write("later.json", &secret.to_string());
    for (index, name) in [(0, "path"), (2, "port"), (4, "user")] {
        agent.wait_status(&format!("{name} is replaced"), |status| {
            let web = status.workload(name)?;
            (web.ready == 1 && web.pods.len() == 1 && status.pids(name) != *before.get(index)?).then_some(())
        });
    }
}

/// A Deployment on a port of the host, with another version of everything in `version`.
fn on_port(name: &str, image: &str, version: &str, arguments: &[&str], port: Value, drain: &str) -> Value {
    let mut manifest = deployment(name, 1, image, arguments);
    manifest["metadata"]["annotations"] = json!({"mainstay/drain": drain});
    let spec = &mut manifest["spec"]["template"]["spec"];
    spec["hostname"] = json!(version);
    spec["containers"][0]["env"] = json!([{"name": "MESSAGE", "value": version}]);
    spec["containers"][0]["ports"] = json!([port]);
    manifest
}

/// One client with one socket: the kernel would send its datagrams to the old pod for as long as they come.
#[test]
fn datagrams_reach_the_new_version() {
    if !require_root("datagrams_reach_the_new_version") {
        return;
    }
    let (sandbox, _registry, image) = world("datagrams");
    let version = |version: &str| {
        let port = json!({"containerPort": 7000, "hostPort": 7000, "protocol": "UDP"});
        let manifest = on_port("echo", &image, version, &["udp-echo", "7000"], port, "1s");
        sandbox.write("echo.json", &manifest.to_string());
    };
    version("one");
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("echo", 1);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback is up");
    socket.connect("127.0.0.1:7000").expect("an address of this host");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout above zero");
    let ask = || {
        let mut buffer = [0u8; 64];
        socket.send(b"hello").ok()?;
        let length = socket.recv(&mut buffer).ok()?;
        String::from_utf8(buffer.get(..length)?.to_vec()).ok()
    };
    agent.wait_for("the first version answers", SOON, |_| ask().filter(|answer| answer == "one: hello"));
    version("two");
    // The same socket all the while, with never a pause that would let the kernel forget the flow.
    agent.wait_for("the second version answers", SOON, |_| ask().filter(|answer| answer == "two: hello"));
    for _ in 0..50 {
        assert_eq!(ask().as_deref(), Some("two: hello"));
    }
}

/// What is connected is not cut off before the limit, and nothing waits for it when nobody is.
#[test]
fn a_connection_keeps_the_old_pod_until_it_closes() {
    if !require_root("a_connection_keeps_the_old_pod_until_it_closes") {
        return;
    }
    let (sandbox, _registry, image) = world("connected");
    let version = |version: &str| {
        let port = json!({"containerPort": 7000, "hostPort": 7000});
        let manifest = on_port("echo", &image, version, &["tcp-echo", "7000"], port, "10m");
        sandbox.write("echo.json", &manifest.to_string());
    };
    version("one");
    let mut agent = Agent::start(&sandbox);
    let old = agent.wait_ready("echo", 1);
    let connect = |_: &mut Agent<'_>| TcpStream::connect("127.0.0.1:7000").ok();
    let mut client = agent.wait_for("it accepts", SOON, connect);
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout above zero");
    let mut echo = |text: &[u8; 4]| {
        let mut answer = [0u8; 4];
        client.write_all(text).and_then(|()| client.read_exact(&mut answer)).expect("the connection lives");
        assert_eq!(&answer, text);
    };
    echo(b"ping");
    version("two");
    agent.wait_status("both versions run", |status| (status.workload("echo")?.pods.len() == 2).then_some(()));
    let moved = Instant::now();
    // Past the least time of draining.
    agent.wait_for("4 s are over", SOON, |_| (moved.elapsed() > Duration::from_secs(4)).then_some(()));
    echo(b"pong");
    assert!(agent.status().pids("echo").contains(&old[0]), "the old pod serves whom it knows");
    drop(client);
    let closed = Instant::now();
    agent.wait_status("the old pod is gone", |status| {
        let pids = status.pids("echo");
        (pids.len() == 1 && !pids.contains(&old[0])).then_some(())
    });
    assert!(closed.elapsed() < Duration::from_secs(60), "long before its limit");
}

/// A tag that means another image now changes nothing by itself: not while the pod runs, not when its container is
/// started again, not under a new agent.
#[test]
fn a_tag_that_moves_changes_nothing_by_itself() {
    if !require_root("a_tag_that_moves_changes_nothing_by_itself") {
        return;
    }
    let (sandbox, registry, image) = world("tag");
    let manifest = |text: &str| {
        let mut manifest = pod("db", &image, &["sleep", "forever"]);
        manifest["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
        manifest["spec"]["containers"][0]["env"] = json!([{"name": "V", "value": text}]);
        sandbox.write("db.json", &manifest.to_string());
    };
    manifest("one");
    let mut agent = Agent::start_with(&sandbox, &[], &[("MAINSTAY_RESYNC", "1s")]);
    let before = agent.wait_ready("db", 1);
    let other = fixture_builder().layer(Layer::new().file("/version", "two")).build();
    assert_eq!(registry.push("app:1", &other), image, "the same tag");
    agent.assert_untouched(&["db"], std::slice::from_ref(&before), Duration::from_secs(3));
    agent.restart();
    assert_eq!(agent.wait_ready("db", 1), before);
    let has_version = |agent: &Agent<'_>| agent.cli(&["exec", "db", "--", "/bin/fixture", "cat", "/version"]);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(before[0]), nix::sys::signal::Signal::SIGKILL).expect("it runs");
    agent.wait_status("its container runs again", |status| {
        let now = status.pids("db");
        (now.len() == 1 && now != before).then_some(())
    });
    assert!(!has_version(&agent).stdout.contains("two"), "the image that it was made with");
    // Only a change of the manifest asks what the tag means.
    manifest("two");
    agent.wait_for("the new image is used", SOON, |agent| has_version(agent).stdout.contains("two").then_some(()));
}

/// What is not ours stays, whatever is removed: a process beside the containers, files where a pod had its own.
#[test]
fn what_others_made_is_left_alone() {
    if !require_root("what_others_made_is_left_alone") {
        return;
    }
    let (sandbox, _registry, image) = world("others");
    let shared = sandbox.dir().join("shared");
    std::fs::create_dir(&shared).expect("the sandbox's directory is ours");
    std::fs::write(shared.join("theirs"), "kept").expect("written");
    let mut theirs = std::process::Command::new("sleep").arg("600").spawn().expect("sleep is everywhere");
    let mut manifest = pod("web", &image, &["sleep", "forever"]);
    manifest["spec"]["volumes"] = json!([{"name": "data", "hostPath": {"path": &shared}}]);
    manifest["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    sandbox.write("web.json", &manifest.to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("web", 1);
    sandbox.remove("web.json");
    agent.wait_status("it is gone", |status| status.workloads.is_empty().then_some(()));
    agent.cli(&["prune", "--yes"]);
    sandbox.write("web.json", &manifest.to_string());
    agent.wait_ready("web", 1);
    agent.stop();
    sandbox.down();
    assert_eq!(std::fs::read_to_string(shared.join("theirs")).expect("still there"), "kept");
    let alive = theirs.try_wait().expect("our child").is_none();
    theirs.kill().and_then(|()| theirs.wait()).expect("our child");
    assert!(alive, "a process of somebody else");
}

/// Other content of a ConfigMap or of Compose's `configs` reaches the program: by new pods, by a signal, or by the files
/// alone, as the workload wishes; and a new agent is no new content.
#[test]
fn a_change_of_configuration_reaches_the_program() {
    if !require_root("a_change_of_configuration_reaches_the_program") {
        return;
    }
    let (sandbox, _registry, image) = world("config");
    let diary = sandbox.dir().join("diary");
    let configured = |name: &str, reaction: Option<&str>, arguments: &[&str]| {
        let mut manifest = deployment(name, 1, &image, arguments);
        if let Some(reaction) = reaction {
            manifest["metadata"]["annotations"] = json!({"mainstay/on-config-change": reaction});
        }
        let spec = &mut manifest["spec"]["template"]["spec"];
        spec["volumes"] = json!([
            {"name": "files", "configMap": {"name": "settings"}},
            {"name": "diary", "hostPath": {"path": &diary, "type": "DirectoryOrCreate"}},
        ]);
        spec["containers"][0]["volumeMounts"] =
            json!([{"name": "files", "mountPath": "/files"}, {"name": "diary", "mountPath": "/diary"}]);
        sandbox.write(&format!("{name}.json"), &manifest.to_string());
    };
    let content = |text: &str| {
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": text}});
        sandbox.write("settings.json", &map.to_string());
        let project = format!(
            "name: shop\nservices:\n  web:\n    image: {image}\n    command: [sleep, forever]\n    stop_grace_period: 3s\n    configs: [one]\n\
             configs:\n  one:\n    content: {text}\n"
        );
        sandbox.write("compose.yaml", &project);
    };
    content("first");
    configured("live", None, &["sleep", "forever"]);
    configured("anew", Some("restart"), &["sleep", "forever"]);
    configured("told", Some("signal:SIGUSR1"), &["diary", "/diary/told", "told"]);
    let mut agent = Agent::start(&sandbox);
    let names = ["live", "anew", "told", "web"];
    let before: Vec<Vec<i32>> = names.iter().map(|name| agent.wait_ready(name, 1)).collect();
    let reads = |agent: &Agent<'_>, name: &str, file: &str, text: &str| {
        let pod = agent.status().workload(name).and_then(|workload| Some(workload.pods.first()?.name.clone()));
        let said = agent.cli(&["exec", &pod.unwrap_or_default(), "--", "/bin/fixture", "cat", file]).stdout;
        said.contains(text).then_some(())
    };
    // A new agent writes nothing anew and tells nobody.
    agent.restart();
    agent.wait_for("it knows the files", SOON, |agent| reads(agent, "live", "/files/key", "first"));
    agent.assert_untouched(&names, &before, Duration::from_secs(1));
    content("second");
    agent.wait_for("files are swapped", SOON, |agent| reads(agent, "live", "/files/key", "second"));
    assert_eq!(agent.status().pids("live"), before[0], "nothing else happens to it");
    agent.wait_for("the program was told", SOON, |_| {
        std::fs::read_to_string(diary.join("told")).ok()?.contains("told ends by SIGUSR1").then_some(())
    });
    for (name, file, index) in [("anew", "/files/key", 1), ("web", "/one", 3)] {
        agent.wait_for(&format!("{name} has new content"), SOON, |agent| reads(agent, name, file, "second"));
        agent.wait_status(&format!("{name} was replaced"), |status| {
            let pids = status.pids(name);
            (pids.len() == 1 && Some(&pids) != before.get(index)).then_some(())
        });
    }
}

/// A file of the project that a service mounts by itself and read-only counts as its configuration, also when it changes
/// while no agent runs; one that the service may write to, or that lies elsewhere, does not.
#[test]
fn a_mounted_file_of_the_project_counts() {
    if !require_root("a_mounted_file_of_the_project_counts") {
        return;
    }
    let (sandbox, _registry, image) = world("bound");
    let outside = sandbox.dir().join("outside.conf");
    std::fs::write(&outside, "first").expect("the sandbox's directory is ours");
    sandbox.write("site.conf", "first");
    sandbox.write("own.conf", "first");
    let project = format!(
        "name: shop\nservices:\n  web:\n    image: {image}\n    command: [sleep, forever]\n    stop_grace_period: 3s\n    volumes:\n      \
         - ./site.conf:/site.conf:ro\n      - ./own.conf:/own.conf\n      - {}:/outside.conf:ro\n",
        outside.display()
    );
    sandbox.write("compose.yaml", &project);
    let mut agent = Agent::start(&sandbox);
    let first = agent.wait_ready("web", 1);
    agent.restart();
    std::fs::write(&outside, "second").expect("the sandbox's directory is ours");
    sandbox.write("own.conf", "second");
    agent.assert_untouched(&["web"], std::slice::from_ref(&first), Duration::from_secs(1));
    let replaced = |agent: &mut Agent<'_>, before: &[i32], text: &str| {
        let pids = agent.wait_status(&format!("a pod with the {text} content"), |status| {
            let pids = status.pids("web");
            (pids.len() == 1 && pids != before).then_some(pids)
        });
        let said = agent.cli(&["exec", "shop-web-1", "--", "/bin/fixture", "cat", "/site.conf"]).stdout;
        assert!(said.contains(text), "{said}");
        pids
    };
    sandbox.write("site.conf", "second");
    let second = replaced(&mut agent, &first, "second");
    agent.kill9();
    sandbox.write("site.conf", "third");
    agent.start_again();
    replaced(&mut agent, &second, "third");
}
