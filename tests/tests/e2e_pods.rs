//! What a pod promises its containers, with real ones: the order of sidecars and hooks, probes that wait for each other,
//! messages at the end, generated files, shared namespaces.

use std::path::PathBuf;

use serde_json::{Value, json};
use tests::agent::SOON;
use tests::manifest::{deployment, pod};
use tests::{Agent, Registry, Sandbox, require_root};

const FIXTURE: &str = "/bin/fixture";

/// A directory of the host that containers have at `/log`.
struct World {
    sandbox: Sandbox,
    _registry: Registry,
    image: String,
    log: PathBuf,
}

fn world(name: &str) -> World {
    let (sandbox, registry, image) = tests::world(name);
    let log = sandbox.dir().join("log");
    std::fs::create_dir(&log).expect("the directory is ours");
    World { sandbox, _registry: registry, image, log }
}

impl World {
    fn container(&self, name: &str, arguments: &[&str]) -> Value {
        json!({
            "name": name, "image": self.image, "args": arguments,
            "volumeMounts": [{"name": "log", "mountPath": "/log"}],
        })
    }

    /// A pod of these containers.
    fn pod(&self, name: &str, spec: &Value) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        pod["spec"]["volumes"] = json!([{"name": "log", "hostPath": {"path": self.log}}]);
        pod["spec"]["terminationGracePeriodSeconds"] = json!(5);
        pod
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.log.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn write(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().expect("it has a name");
        self.sandbox.write(&format!("{name}.json"), &object.to_string());
    }
}

/// `exec` of the fixture in a pod; its output.
fn said(agent: &Agent<'_>, pod: &str, arguments: &[&str]) -> String {
    let mut all = vec!["exec", pod, "--", FIXTURE];
    all.extend(arguments);
    agent.cli(&all).ok().stdout
}

#[test]
fn sets_of_pods_run_and_heal() {
    if !require_root("sets_of_pods_run_and_heal") {
        return;
    }
    let world = world("sets");
    let mut set = deployment("copies", 2, &world.image, &["serve"]);
    set["kind"] = json!("ReplicaSet");
    let mut daemon = deployment("daemon", 1, &world.image, &["serve"]);
    daemon["kind"] = json!("DaemonSet");
    daemon["spec"].as_object_mut().expect("an object").remove("replicas");
    daemon["spec"]["template"]["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    world.write(&set);
    world.write(&daemon);
    let mut agent = Agent::start(&world.sandbox);
    agent.wait_ready("copies", 2);
    let daemons = agent.wait_ready("daemon", 1);
    assert_eq!(daemons.len(), 1, "one pod on this node");
    let status = agent.status();
    let kinds: Vec<&str> = ["copies", "daemon"].iter().map(|n| status.workload(n).map_or("", |w| &w.kind)).collect();
    assert_eq!(kinds, ["ReplicaSet", "DaemonSet"]);
    // A container that is killed comes back in its pod.
    let pid = nix::unistd::Pid::from_raw(daemons[0]);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it runs");
    agent.wait_status("it runs again", |status| {
        let now = status.pids("daemon");
        (now.len() == 1 && now != daemons).then_some(())
    });
    // Replicas follow their number; a new template of a DaemonSet replaces its pod.
    set["spec"]["replicas"] = json!(1);
    world.write(&set);
    let old = agent.status().workload("daemon").map(|w| w.pods[0].uid.clone());
    daemon["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "MESSAGE", "value": "new"}]);
    world.write(&daemon);
    agent.wait_ready("copies", 1);
    agent.wait_status("the daemon's pod is another one", |status| {
        let found = status.workload("daemon")?;
        (found.ready == 1 && found.pods.len() == 1 && Some(&found.pods[0].uid) != old.as_ref()).then_some(())
    });
    agent.kill9();
    world.sandbox.down();
    world.sandbox.assert_clean();
}

#[test]
fn a_startup_probe_holds_the_others_back() {
    if !require_root("a_startup_probe_holds_the_others_back") {
        return;
    }
    let world = world("startup");
    let has = |file: &str, failures: u32| json!({"exec": {"command": [FIXTURE, "cat", file]}, "periodSeconds": 1, "failureThreshold": failures});
    let mut slow = world.container("main", &["sleep"]);
    slow["startupProbe"] = has("/log/up", 60);
    slow["livenessProbe"] = has("/log/alive", 1);
    slow["readinessProbe"] =
        json!({"exec": {"command": [FIXTURE, "append", "/log/asked", "ready?"]}, "periodSeconds": 1});
    let mut stuck = world.container("main", &["diary", "/log/stuck", "stuck"]);
    stuck["startupProbe"] = has("/log/never", 2);
    world.write(&world.pod("slow", &json!({"containers": [slow]})));
    world.write(&world.pod("stuck", &json!({"containers": [stuck]})));
    let mut agent = Agent::start(&world.sandbox);
    // By then the startup probe of the other has failed twice: liveness, with a threshold of 1, would have struck.
    agent.wait_for("a startup that fails ends the container", SOON, |_| {
        let lines = world.lines("stuck");
        (lines.len() >= 3).then(|| assert_eq!(lines[..3], ["stuck starts", "stuck ends by SIGTERM", "stuck starts"]))
    });
    let status = agent.status();
    let state = status.containers("slow").first().map(|c| (c.state.clone(), c.restarts));
    assert_eq!(state, Some(("running".to_owned(), 0)));
    assert_eq!(status.workload("slow").map(|w| w.ready), Some(0));
    assert_eq!(world.lines("asked"), Vec::<String>::new(), "readiness is not asked before");
    std::fs::write(world.log.join("alive"), "").expect("the directory is ours");
    std::fs::write(world.log.join("up"), "").expect("the directory is ours");
    let pids = agent.wait_ready("slow", 1);
    std::fs::remove_file(world.log.join("alive")).expect("the directory is ours");
    agent.wait_status("now liveness counts", |status| (status.pids("slow") != pids).then_some(()));
}

#[test]
fn sidecars_start_before_and_end_after_the_rest() {
    if !require_root("sidecars_start_before_and_end_after_the_rest") {
        return;
    }
    let world = world("sidecars");
    let diary = |file: &str, name: &str, seconds: &[&str]| {
        let path = format!("/log/{file}");
        world.container(name, &[&["diary", &path, name], seconds].concat())
    };
    let sidecar = |file: &str, name: &str| {
        let mut container = diary(file, name, &[]);
        container["restartPolicy"] = json!("Always");
        container
    };
    let spec = |file: &str, seconds: &[&str]| {
        let mut second = sidecar(file, "proxy");
        // The next one starts when this has passed, not before.
        second["startupProbe"] =
            json!({"exec": {"command": [FIXTURE, "append", format!("/log/{file}"), "proxy is asked"]}});
        json!({
            "initContainers": [sidecar(file, "logger"), diary(file, "init", &["0"]), second],
            "containers": [diary(file, "main", seconds)],
        })
    };
    let mut job = world.pod("work", &spec("work", &["0.5"]));
    job["spec"]["restartPolicy"] = json!("Never");
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"}, "spec": {"template": {"spec": job["spec"]}},
    });
    world.write(&job);
    world.write(&world.pod("web", &spec("web", &[])));
    let mut agent = Agent::start(&world.sandbox);
    agent.wait_status("the Job succeeds while its sidecars run", |status| {
        (status.workload("work")?.phase == "Succeeded").then_some(())
    });
    // The probe asks as soon as the container runs, and may be faster than the program's own first word.
    let lines_of = |file: &str| {
        let mut lines = world.lines(file);
        let asked = lines.iter().position(|line| line == "proxy is asked").unwrap_or_default();
        if lines.get(asked + 1).is_some_and(|line| line == "proxy starts") {
            lines.swap(asked, asked + 1);
        }
        lines
    };
    let started = ["logger starts", "init starts", "init ends", "proxy starts", "proxy is asked", "main starts"];
    agent.wait_for("its sidecars are ended", SOON, |_| {
        let lines = world.lines("work");
        (lines.iter().filter(|line| line.ends_with("ends by SIGTERM")).count() == 2).then_some(())
    });
    let lines = lines_of("work");
    assert_eq!(lines[..6], started);
    assert_eq!(lines[6], "main ends");
    // A sidecar that ends comes back, and nothing else does.
    agent.wait_ready("web", 1);
    let pids = agent.status().pids("web");
    let status = agent.status();
    let logger = status.containers("web").into_iter().find(|c| c.name == "logger").and_then(|c| c.pid);
    let logger = nix::unistd::Pid::from_raw(logger.expect("it runs"));
    nix::sys::signal::kill(logger, nix::sys::signal::Signal::SIGKILL).expect("it runs");
    agent.wait_status("the sidecar is back", |status| {
        let now = status.pids("web");
        (now.len() == 3 && now != pids).then_some(())
    });
    world.sandbox.remove("web.json");
    agent.wait_status("the pod is gone", |status| status.workload("web").is_none().then_some(()));
    let mut expected: Vec<&str> = started.to_vec();
    expected.extend(["logger starts", "main ends by SIGTERM", "proxy ends by SIGTERM", "logger ends by SIGTERM"]);
    assert_eq!(lines_of("web"), expected);
}

#[test]
fn hooks_run_and_the_stop_signal_is_the_one_asked_for() {
    if !require_root("hooks_run_and_the_stop_signal_is_the_one_asked_for") {
        return;
    }
    let world = world("hooks");
    let says = |file: &str, text: &str| json!({"exec": {"command": [FIXTURE, "append", format!("/log/{file}"), text]}});
    let mut good = world.container("main", &["diary", "/log/good", "main"]);
    good["lifecycle"] =
        json!({"postStart": says("good", "postStart"), "preStop": says("good", "preStop"), "stopSignal": "SIGUSR1"});
    // The hook fails: the container is ended, and started again by its policy.
    let mut bad = world.container("main", &["diary", "/log/bad", "main"]);
    bad["lifecycle"] = json!({"postStart": {"exec": {"command": [FIXTURE, "exit", "1"]}}});
    // A hook that takes longer than the grace period is not waited for.
    let mut slow = world.container("main", &["diary", "/log/slow", "main"]);
    slow["lifecycle"] = json!({"preStop": {"exec": {"command": [FIXTURE, "sleep", "60"]}}});
    world.write(&world.pod("good", &json!({"os": {"name": "linux"}, "containers": [good]})));
    world.write(&world.pod("bad", &json!({"containers": [bad]})));
    let mut pod = world.pod("slow", &json!({"containers": [slow]}));
    pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
    world.write(&pod);
    let mut agent = Agent::start(&world.sandbox);
    agent.wait_ready("good", 1);
    agent.wait_ready("slow", 1);
    agent.wait_for("the hook has run", SOON, |_| (world.lines("good").len() >= 2).then_some(()));
    let mut lines = world.lines("good");
    lines.sort();
    assert_eq!(lines, ["main starts", "postStart"]);
    agent.wait_status("a failed hook ends the container", |status| {
        status.containers("bad").first().filter(|container| container.restarts > 0).map(|_| ())
    });
    for name in ["good", "slow"] {
        world.sandbox.remove(&format!("{name}.json"));
    }
    agent.wait_status("they are gone", |status| {
        (status.workload("good").is_none() && status.workload("slow").is_none()).then_some(())
    });
    assert_eq!(world.lines("good")[2..], ["preStop", "main ends by SIGUSR1"]);
    assert_eq!(world.lines("slow"), ["main starts", "main ends by SIGTERM"]);
}

#[test]
fn an_end_leaves_its_message_in_the_status() {
    if !require_root("an_end_leaves_its_message_in_the_status") {
        return;
    }
    let world = world("message");
    let ends = |name: &str, file: &str, text: &str, code: &str, fields: &[(&str, &str)]| {
        let mut wanted = pod(name, &world.image, &["say-and-exit", file, text, code]);
        wanted["spec"]["restartPolicy"] = json!("Never");
        for (field, value) in fields {
            wanted["spec"]["containers"][0][*field] = json!(value);
        }
        world.write(&wanted);
    };
    let from_log = ("terminationMessagePolicy", "FallbackToLogsOnError");
    ends("default", "/dev/termination-log", "written there", "0", &[]);
    ends("moved", "/tmp/end", "written here", "1", &[("terminationMessagePath", "/tmp/end")]);
    ends("silent", "", "only in the log", "1", &[]);
    ends("logged", "", "last line of the log", "1", &[from_log]);
    ends("fine", "", "no error", "0", &[from_log]);
    ends("long", "/dev/termination-log", &"x".repeat(9000), "0", &[]);
    let mut agent = Agent::start(&world.sandbox);
    let long = "x".repeat(4096);
    for (name, message) in [
        ("default", Some("written there")),
        ("moved", Some("written here")),
        ("silent", None),
        ("logged", Some("last line of the log")),
        ("fine", None),
        ("long", Some(long.as_str())),
    ] {
        let found = agent.wait_for(&format!("{name} has ended"), SOON, |agent| {
            let status = agent.json(&["status"]);
            let all = status["workloads"].as_array()?;
            let workload = all.iter().find(|workload| workload["name"] == name)?;
            let container = workload["pods"][0]["containers"][0].clone();
            (container["state"] == "exited").then_some(container)
        });
        assert_eq!(found["message"].as_str().map(str::trim_end), message, "{name}: {found}");
    }
}

#[test]
fn files_are_made_of_facts() {
    if !require_root("files_are_made_of_facts") {
        return;
    }
    let world = world("facts");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1", "b": "2"}});
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"k": "hidden"}});
    world.write(&map);
    world.write(&secret);
    let field = |path: &str, field: &str| json!({"path": path, "fieldRef": {"fieldPath": field}});
    let mut wanted = pod("facts", &world.image, &["sleep"]);
    wanted["metadata"]["labels"] = json!({"tier": "front"});
    wanted["metadata"]["annotations"] = json!({"note": "a \"b\""});
    let spec = &mut wanted["spec"];
    spec["securityContext"] = json!({"fsGroup": 3000});
    spec["containers"][0]["resources"] = json!({"limits": {"memory": "64Mi", "cpu": "500m"}});
    spec["containers"][0]["env"] = json!([{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    spec["volumes"] = json!([
        {"name": "down", "downwardAPI": {"items": [
            field("name", "metadata.name"), field("labels", "metadata.labels"), field("notes", "metadata.annotations"),
            {"path": "deep/memory", "mode": 0o400, "resourceFieldRef": {"containerName": "main", "resource": "limits.memory", "divisor": "1Mi"}},
            {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}},
        ]}},
        {"name": "all", "projected": {"defaultMode": 0o440, "sources": [
            {"configMap": {"name": "settings", "items": [{"key": "a", "path": "conf/a"}]}},
            {"secret": {"name": "keys"}},
            {"downwardAPI": {"items": [field("ns", "metadata.namespace")]}},
            {"configMap": {"name": "missing", "optional": true}},
        ]}},
        {"name": "data", "hostPath": {"path": world.log}},
    ]);
    spec["containers"][0]["volumeMounts"] = json!([
        {"name": "down", "mountPath": "/down"},
        {"name": "all", "mountPath": "/all"},
        {"name": "data", "mountPath": "/own", "subPathExpr": "of/$(WHO)"},
    ]);
    world.write(&wanted);
    let mut agent = Agent::start(&world.sandbox);
    agent.wait_ready("facts", 1);
    for (file, expected) in [
        ("/down/name", "facts"),
        ("/down/labels", "tier=\"front\""),
        ("/down/deep/memory", "64"),
        ("/down/cpu", "1"),
        ("/all/conf/a", "1"),
        ("/all/k", "hidden"),
        ("/all/ns", "default"),
    ] {
        assert_eq!(said(&agent, "facts", &["cat", file]).trim_end(), expected, "{file}");
    }
    assert!(said(&agent, "facts", &["cat", "/down/notes"]).contains("note=\"a \\\"b\\\"\""));
    said(&agent, "facts", &["write", "/own/file", "here"]);
    assert_eq!(std::fs::read_to_string(world.log.join("of/facts/file")).ok().as_deref(), Some("here\n"));
    // A change of the labels shows in the file, since the pod is made anew; a change of the ConfigMap without that.
    let pids = agent.status().pids("facts");
    let mut changed = map.clone();
    changed["data"]["a"] = json!("one");
    world.write(&changed);
    agent.wait_for("the new content is there", SOON, |agent| {
        (said(agent, "facts", &["cat", "/all/conf/a"]).trim_end() == "one").then_some(())
    });
    assert_eq!(agent.status().pids("facts"), pids);
}

#[test]
fn what_a_pod_shares_is_seen_inside() {
    if !require_root("what_a_pod_shares_is_seen_inside") {
        return;
    }
    let world = world("shares");
    let profiles = world.sandbox.data().join("seccomp/no-unlink.json");
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat", "unlink", "unlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]});
    std::fs::create_dir(world.sandbox.data().join("seccomp")).expect("the directory is ours");
    std::fs::write(&profiles, profile.to_string()).expect("the directory is ours");
    let two = |name: &str, spec: &Value| {
        let mut wanted = pod(name, &world.image, &["sleep"]);
        let mut second = wanted["spec"]["containers"][0].clone();
        second["name"] = json!("second");
        wanted["spec"]["containers"].as_array_mut().expect("a list").push(second);
        for (key, value) in spec.as_object().expect("an object") {
            wanted["spec"][key] = value.clone();
        }
        world.write(&wanted);
    };
    two("apart", &json!({}));
    two("together", &json!({"shareProcessNamespace": true}));
    two("host", &json!({"hostPID": true, "hostIPC": true}));
    two(
        "named",
        &json!({
            "hostname": "box", "subdomain": "dom", "setHostnameAsFQDN": true,
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["192.0.2.7"], "searches": ["corp.example"], "options": [{"name": "ndots", "value": "3"}, {"name": "edns0"}]},
            "securityContext": {
                "runAsUser": 1000, "supplementalGroups": [4242], "supplementalGroupsPolicy": "Strict",
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}, {"name": "kernel.shmmax", "value": "123456"}],
                "seccompProfile": {"type": "Localhost", "localhostProfile": "no-unlink.json"},
            },
        }),
    );
    two(
        "merged",
        &json!({"hostname": "box", "subdomain": "dom", "securityContext": {"runAsUser": 1000, "supplementalGroups": [4242]}}),
    );
    let mut agent = Agent::start(&world.sandbox);
    let names = ["apart", "together", "host", "named", "merged"];
    for name in names {
        agent.wait_status(&format!("both containers of {name} run"), |status| {
            (status.pids(name).len() == 2).then_some(())
        });
    }
    let seen = |name: &str, container: &str| -> Value {
        let output = agent.cli(&["exec", &format!("{name}/{container}"), "--", FIXTURE, "probe"]).ok().stdout;
        serde_json::from_str(&output).expect("the fixture prints JSON")
    };
    let own = |kind: &str| {
        std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a link").to_string_lossy().into_owned()
    };
    let (first, second) = (seen("apart", "main"), seen("apart", "second"));
    assert_ne!(first["namespaces"]["pid"], second["namespaces"]["pid"]);
    assert_eq!(first["namespaces"]["ipc"], second["namespaces"]["ipc"], "containers of a pod share IPC");
    assert_ne!(first["namespaces"]["ipc"], json!(own("ipc")));
    let (first, second) = (seen("together", "main"), seen("together", "second"));
    assert_eq!(first["namespaces"]["pid"], second["namespaces"]["pid"]);
    assert_ne!(first["namespaces"]["pid"], json!(own("pid")));
    // PID 1 is not the program: that of the pod reaps what programs leave.
    let init = said(&agent, "together", &["cat", "/proc/1/cmdline"]);
    assert!(!init.contains("fixture"), "{init}");
    let host = seen("host", "main");
    assert_eq!(host["namespaces"]["pid"], json!(own("pid")));
    assert_eq!(host["namespaces"]["ipc"], json!(own("ipc")));
    let named = seen("named", "main");
    assert_eq!(named["hostname"], json!("box.dom.default.svc.cluster.local"));
    let resolver = named["resolvConf"].as_str().unwrap_or_default();
    let lines: Vec<&str> = resolver.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(lines, ["nameserver 192.0.2.7", "search corp.example", "options ndots:3 edns0"]);
    assert_eq!(named["identity"]["groups"], json!([1000, 4242]), "Strict: without those of /etc/group");
    assert_eq!(named["sysctls"]["net.ipv4.ip_unprivileged_port_start"], json!("80"));
    assert_eq!(named["sysctls"]["kernel.shmmax"], json!("123456"));
    assert_eq!(named["status"]["Seccomp"], json!("2"));
    let refused = agent.cli(&["exec", "named", "--", FIXTURE, "remove", "/tmp/nothing"]);
    assert!(refused.stderr.contains("Operation not permitted"), "{}", refused.stderr);
    let merged = seen("merged", "main");
    assert_eq!(merged["hostname"], json!("box"), "the short name unless it is asked for");
    assert_eq!(merged["identity"]["groups"], json!([1000, 2000, 4242]));
    agent.kill9();
    world.sandbox.down();
    world.sandbox.assert_clean();
}
