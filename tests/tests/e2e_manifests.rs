//! What can be written in manifests, and what comes of it in real containers.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::agent::SOON;
use tests::manifest::{pod, web};
use tests::{Agent, Sandbox, require_root, world};

#[test]
fn every_format_and_packaging_counts() {
    if !require_root("every_format_and_packaging_counts") {
        return;
    }
    let (sandbox, _registry, image) = world("formats");
    let sleeper = |name: &str| pod(name, &image, &["sleep", "forever"]);
    sandbox.write("two.yaml", &format!("---\n{}\n---\n# nothing here\n---\n{}\n", sleeper("doc1"), sleeper("doc2")));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [sleeper("item1"), sleeper("item2")]});
    sandbox.write("deep/er/list.json", &list.to_string());
    sandbox.write(
        "pod.toml",
        &format!(
            "apiVersion = \"v1\"\nkind = \"Pod\"\n[metadata]\nname = \"toml\"\n[spec]\nterminationGracePeriodSeconds = 5\n\
             [[spec.containers]]\nname = \"main\"\nimage = \"{image}\"\nargs = [\"sleep\", \"forever\"]\n"
        ),
    );
    // Neither of these is a manifest; the first is worth a word, the others are not.
    sandbox.write("values.yaml", "replicas: 3\nimage: {tag: one}\n");
    sandbox.write("README.md", "kind: Pod\n");
    sandbox.write("old.yaml.bak", "kind: [Pod");
    let mut agent = Agent::start(&sandbox);
    for name in ["doc1", "doc2", "item1", "item2", "toml"] {
        agent.wait_ready(name, 1);
    }
    let status = agent.status();
    assert_eq!(status.workloads.len(), 5, "{:?}", status.workloads);
    assert_eq!(status.errors(), "");
    let warnings = serde_json::to_string(&status.sources.iter().map(|s| &s.warnings).collect::<Vec<_>>());
    let warnings = warnings.expect("warnings are JSON");
    assert!(warnings.contains("values.yaml") && !warnings.contains("old.yaml"), "{warnings}");
    // One document of a file goes: only its workload does.
    let pids = agent.wait_ready("doc2", 1);
    sandbox.write("two.yaml", &sleeper("doc2").to_string());
    agent
        .wait_status("the first document's workload is gone", |status| status.workload("doc1").is_none().then_some(()));
    assert_eq!(agent.wait_ready("doc2", 1), pids);
}

/// Typing errors and fields that one node cannot give: an answer for each, with its place.
#[test]
fn no_field_is_ignored_in_silence() {
    if !require_root("no_field_is_ignored_in_silence") {
        return;
    }
    let sandbox = Sandbox::new("fields");
    let validate = |change: &dyn Fn(&mut Value)| {
        let mut wanted = pod("web", "example.org/app:1", &["serve"]);
        change(&mut wanted);
        sandbox.write("web.json", &serde_json::to_string_pretty(&wanted).expect("a value is JSON"));
        let output = sandbox.cli(&["validate", &sandbox.manifests().display().to_string()]);
        (output.code, format!("{}{}", output.stdout, output.stderr))
    };
    let (code, text) = validate(&|_| {});
    assert_eq!((code, text.contains("warning")), (0, false), "{text}");
    for (field, value, words) in [
        ("restartpolicy", json!("Never"), &["restartpolicy", "restartPolicy"][..]),
        ("restartPolicy", json!("Sometimes"), &["Sometimes", "OnFailure"]),
        ("terminationGracePeriodSeconds", json!("soon"), &["terminationGracePeriodSeconds"]),
        ("containers", json!([]), &["containers"]),
    ] {
        let (code, text) = validate(&|wanted| wanted["spec"][field] = value.clone());
        assert_eq!(code, 1, "{field}: {text}");
        for word in words.iter().chain(&["web.json:"]) {
            assert!(text.contains(word), "{field}: `{word}` is not in\n{text}");
        }
    }
    // Accepted without effect on one node, and said so.
    let (code, text) = validate(&|wanted| wanted["spec"]["schedulerName"] = json!("mine"));
    assert!(code == 0 && text.contains("schedulerName"), "{code}: {text}");
    // Several faults are told at once.
    let (_, text) = validate(&|wanted| {
        wanted["spec"]["containers"][0]["imge"] = json!("x");
        wanted["spec"]["volums"] = json!([]);
    });
    assert!(text.contains("imge") && text.contains("volums"), "{text}");
}

#[test]
fn volumes_are_what_they_say() {
    if !require_root("volumes_are_what_they_say") {
        return;
    }
    let (sandbox, _registry, image) = world("volumes");
    let host = sandbox.dir().join("host");
    std::fs::create_dir_all(host.join("sub")).expect("the directory is ours");
    std::fs::write(host.join("file"), "from the host\n").expect("the directory is ours");
    std::fs::write(host.join("sub/inner"), "below\n").expect("the directory is ours");
    let path = |name: &str| host.join(name).display().to_string();
    let mut wanted = pod("volumes", &image, &["serve"]);
    wanted["spec"]["volumes"] = json!([
        {"name": "dir", "hostPath": {"path": path(""), "type": "Directory"}},
        {"name": "file", "hostPath": {"path": path("file"), "type": "File"}},
        {"name": "made", "hostPath": {"path": path("made"), "type": "DirectoryOrCreate"}},
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}},
    ]);
    wanted["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8080, "hostPort": 8080}]);
    wanted["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "dir", "mountPath": "/dir", "readOnly": true},
        {"name": "dir", "mountPath": "/sub", "subPath": "sub"},
        {"name": "file", "mountPath": "/etc/one-file"},
        {"name": "made", "mountPath": "/made"},
        {"name": "disk", "mountPath": "/disk"},
        {"name": "memory", "mountPath": "/memory"},
    ]);
    sandbox.write("volumes.json", &wanted.to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_page(8080, "/file/dir/file", |body| body == "from the host\n");
    agent.wait_page(8080, "/file/sub/inner", |body| body == "below\n");
    agent.wait_page(8080, "/file/etc/one-file", |body| body == "from the host\n");
    let run = |agent: &Agent<'_>, words: &[&str]| {
        let mut all = vec!["exec", "volumes", "--", "/bin/fixture"];
        all.extend(words);
        agent.cli(&all).code
    };
    assert_ne!(run(&agent, &["write", "/dir/new", "x"]), 0, "it is read only");
    assert_eq!(run(&agent, &["write", "/made/new", "x"]), 0);
    assert_eq!(std::fs::read_to_string(host.join("made/new")).ok().as_deref(), Some("x\n"));
    assert_eq!(run(&agent, &["write", "/disk/kept", "x"]), 0);
    assert_eq!(run(&agent, &["write", "/memory/kept", "x"]), 0);
    let page = agent.wait_page(8080, "/probe", |_| true);
    let seen: Value = serde_json::from_str(&page).expect("a probe is JSON");
    let mounts = seen["mounts"].as_array().expect("mounts are listed");
    let memory = mounts.iter().find(|m| m["point"] == "/memory").expect("it is mounted");
    assert_eq!(memory["type"], "tmpfs");
    assert!(memory["super"].as_str().is_some_and(|options| options.contains("size=2048k")), "{memory}");
    // A container that comes back finds its emptyDir as it was.
    let pids = agent.wait_ready("volumes", 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pids[0]), nix::sys::signal::Signal::SIGKILL).expect("it runs");
    agent.wait_status("it runs again", |status| {
        let now = status.pids("volumes");
        (now.len() == 1 && now != pids).then_some(())
    });
    agent.wait_page(8080, "/file/disk/kept", |body| body == "x\n");
    agent.wait_page(8080, "/file/memory/kept", |body| body == "x\n");
    // The pod's own directories go with it, the host's stay.
    sandbox.remove("volumes.json");
    agent.wait_status("the workload is gone", |status| status.workload("volumes").is_none().then_some(()));
    agent.assert_no_workloads();
    assert!(host.join("made/new").exists() && host.join("file").exists());
}

/// The value of a control of a process's cgroup, as the kernel has it: `(v1 controller, v1 file, v2 file)`.
fn control(pid: i32, controller: &str, v1: &str, v2: &str) -> String {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the container runs");
    let find = |wanted: &str| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
            names.split(',').any(|name| name == wanted).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let root = Path::new("/sys/fs/cgroup");
    let file: PathBuf = match find(controller) {
        Some(path) => root.join(controller).join(path).join(v1),
        None => root.join(find("").expect("a process is in a cgroup")).join(v2),
    };
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display())).trim().to_owned()
}

#[test]
fn limits_are_in_the_kernel() {
    if !require_root("limits_are_in_the_kernel") {
        return;
    }
    let (sandbox, _registry, image) = world("limits");
    let mut wanted = pod("limits", &image, &["sleep", "forever"]);
    wanted["spec"]["containers"][0]["resources"] =
        json!({"limits": {"memory": "64Mi", "cpu": "250m"}, "requests": {"cpu": "100m"}});
    sandbox.write("limits.json", &wanted.to_string());
    let mut agent = Agent::start(&sandbox);
    let pid = agent.wait_ready("limits", 1)[0];
    assert_eq!(control(pid, "memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    let quota = control(pid, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "25000" || quota == "25000 100000", "{quota}");
    agent.wait_for("the limit is in the metrics", SOON, |agent| {
        let limit = agent.metrics().sum("mainstay_container_memory_limit_bytes", &[("workload", "limits")]);
        (limit == Some(67_108_864.0)).then_some(())
    });
}

fn log_files(dir: &Path, found: &mut Vec<(PathBuf, u64)>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            log_files(&entry.path(), found);
        } else if meta.is_file() && entry.file_name().to_string_lossy().split('.').next() == Some("log") {
            found.push((entry.path(), meta.len()));
        }
    }
}

#[test]
fn logs_are_rotated() {
    if !require_root("logs_are_rotated") {
        return;
    }
    let (sandbox, _registry, image) = world("rotation");
    let mut wanted = pod("talker", &image, &["print", "40000", "a line of some length"]);
    wanted["spec"]["restartPolicy"] = json!("Never");
    sandbox.write("talker.json", &wanted.to_string());
    let mut agent = Agent::start_with(&sandbox, &[], &[("MAINSTAY_LOG_MAX_SIZE", "100KiB")]);
    agent.wait_status("it has ended", |status| {
        status.containers("talker").first().filter(|c| c.state == "exited").map(|_| ())
    });
    let mut files = Vec::new();
    log_files(&sandbox.data(), &mut files);
    log_files(&sandbox.run(), &mut files);
    assert!(files.len() >= 2, "{files:?}");
    let total: u64 = files.iter().map(|(_, size)| size).sum();
    assert!(total < 1 << 20 && files.iter().all(|(_, size)| *size <= 110 << 10), "{files:?}");
    let text = agent.cli(&["logs", "talker"]).ok().stdout;
    assert!(text.ends_with("40000 a line of some length\n"), "the newest lines are kept");
    let kept: Vec<u64> = text.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
    assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "no line is lost between two files");
}

/// Four logs that are all within their own limit, and together above that of the host.
#[test]
fn logs_of_all_containers_have_a_limit() {
    if !require_root("logs_of_all_containers_have_a_limit") {
        return;
    }
    let (sandbox, _registry, image) = world("log-limit");
    let loud = ["loud-a", "loud-b", "loud-c"];
    for name in loud {
        sandbox.write(&format!("{name}.json"), &pod(name, &image, &["chatter", "/done", "20000", "100"]).to_string());
    }
    let mut ended = pod("ended", &image, &["print", "40000", "a line of some length"]);
    ended["spec"]["restartPolicy"] = json!("Never");
    sandbox.write("ended.json", &ended.to_string());
    let settings = [("MAINSTAY_LOG_MAX_SIZE", "256Ki"), ("MAINSTAY_LOG_TOTAL_SIZE", "2Mi")];
    let mut agent = Agent::start_with(&sandbox, &[], &settings);
    let pids = loud.map(|name| agent.wait_ready(name, 1));
    let files_of = |dir: &Path| {
        let mut files = Vec::new();
        log_files(dir, &mut files);
        files
    };
    agent.wait_for("the logs are below the limit", SOON, |agent| {
        let metrics = agent.metrics();
        let removed = metrics.sum("mainstay_log_removed_bytes_total", &[])?;
        let bytes: u64 = files_of(&sandbox.data().join("pods")).iter().map(|(_, size)| size).sum();
        (removed > 1_000_000.0 && bytes <= 2 << 20).then_some(())
    });
    assert_eq!(agent.metrics().sum("mainstay_log_limit_bytes", &[]), Some(2_097_152.0));
    for (name, before) in loud.iter().zip(pids) {
        assert_eq!(agent.wait_ready(name, 1), before, "{name} was not disturbed");
        assert!(agent.cli(&["logs", name]).ok().stdout.lines().count() > 10, "the newest lines of {name} stay");
    }
    let status = agent.status();
    let uid = status.workload("ended").and_then(|ended| ended.pods.first()).map(|pod| pod.uid.clone());
    let uid = uid.expect("it is remembered");
    assert_eq!(files_of(&sandbox.data().join("pods").join(uid)).len(), 1, "what ended goes first");
    assert!(agent.cli(&["logs", "ended"]).ok().stdout.ends_with("40000 a line of some length\n"));
    let events = agent.cli(&["events"]).ok().stdout;
    assert!(events.contains("logs_removed") && events.contains("loud-"), "{events}");
}

/// Moving a manifest to another file, reformatting it or adding a comment changes nothing that runs.
#[test]
fn what_means_the_same_is_no_change() {
    if !require_root("what_means_the_same_is_no_change") {
        return;
    }
    let (sandbox, _registry, image) = world("same");
    let text = web("web", &image, "one", 8080);
    sandbox.write("web.yaml", &text);
    let mut agent = Agent::start(&sandbox);
    let pids = agent.wait_ready("web", 1);
    sandbox.write("web.yaml", &format!("# a comment\n{}", text.replace("args: [serve]", "args:\n        - \"serve\"")));
    // Another change is seen to its end, so the first one was looked at as well.
    sandbox.write("other.json", &pod("other", &image, &["sleep", "forever"]).to_string());
    agent.wait_ready("other", 1);
    assert_eq!(agent.wait_ready("web", 1), pids);
    assert_eq!(agent.status().containers("web").first().map(|c| c.restarts), Some(0));
}
