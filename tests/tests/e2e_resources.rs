//! What a container's programs are given of the host: its part of the CPU, its badness, its limits, its groups.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::manifest::pod;
use tests::{Agent, require_root, world};

/// What `fixture probe` says when it is started in a container by a caller with few descriptors.
fn probed(agent: &Agent<'_>, name: &str) -> Value {
    let mut command = std::process::Command::new("prlimit");
    let own = agent.sandbox().command();
    command.arg("--nofile=200:300").arg("--core=0:0").arg(own.get_program()).args(own.get_args());
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let words = ["exec", name, "/bin/fixture", "probe"];
    command.args(words);
    let output = agent.sandbox().finish(command, &words).ok();
    serde_json::from_str(&output.stdout).expect("a probe")
}

/// The directory of the pod of a process in the hierarchy of the CPU, and the file that has its part there.
fn pods_part(pid: i32) -> String {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the container runs");
    let place = |wanted: &str| {
        groups.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            names.split(',').any(|name| name == wanted).then(|| PathBuf::from(path.trim_start_matches('/')))
        })
    };
    let (root, path, file) = match place("cpu") {
        Some(path) => (Path::new("/sys/fs/cgroup/cpu"), path, "cpu.shares"),
        None => (Path::new("/sys/fs/cgroup"), place("").expect("a process is in a cgroup"), "cpu.weight"),
    };
    let dir = root.join(path);
    let file = dir.parent().expect("a container is below its pod").join(file);
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display())).trim().to_owned()
}

/// Kubernetes gives a pod what it requests; Docker treats all alike. Neither has what the agent has, or whoever types.
#[test]
fn requests_make_a_pods_part_and_its_badness() {
    if !require_root("requests_make_a_pods_part_and_its_badness") {
        return;
    }
    let (sandbox, _registry, image) = world("parts");
    let mut agent = Agent::start(&sandbox);
    fs::write(format!("/proc/{}/oom_score_adj", agent.pid()), "333").expect("root can");
    let asks = |name: &str, resources: Value| {
        let mut wanted = pod(name, &image, &["serve"]);
        wanted["spec"]["containers"][0]["resources"] = resources;
        sandbox.write(&format!("{name}.json"), &wanted.to_string());
    };
    asks("nothing", json!({}));
    asks("limited", json!({"limits": {"cpu": "250m"}}));
    asks("some", json!({"requests": {"cpu": 2, "memory": "1Ki"}}));
    let service = json!({"image": image, "command": ["serve"], "ulimits": {"nofile": {"soft": 100, "hard": 150}}});
    let project = json!({"name": "p", "services": {"service": service}});
    sandbox.write("compose.yaml", &project.to_string());
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    for (name, shares, weight, badness) in
        [("nothing", "2", "1", "1000"), ("limited", "256", "34", "999"), ("some", "2048", "170", "999")]
    {
        let pid = agent.wait_ready(name, 1)[0];
        assert_eq!(pods_part(pid), if unified { weight } else { shares }, "{name}");
        let own = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("it runs");
        assert_eq!(own.trim(), badness, "{name}");
        let seen = probed(&agent, name);
        assert_eq!(seen["oomScoreAdj"].as_str().map(str::trim), Some(badness), "{name}");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
        let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
        let files: Vec<&str> = files.split_whitespace().skip(3).take(2).collect();
        let seen = &seen["limits"]["Max open files"];
        // Without CAP_SYS_RESOURCE nothing can be raised above what the caller may have.
        assert!(*seen == json!(files) || *seen == json!(["300", "300"]), "{name}: {seen}, not {files:?}");
    }
    let pid = agent.wait_ready("service", 1)[0];
    assert_eq!(pods_part(pid), if unified { "100" } else { "1024" });
    let seen = probed(&agent, "service");
    assert_eq!(seen["oomScoreAdj"].as_str().map(str::trim), Some("0"));
    assert_eq!(seen["limits"]["Max open files"], json!(["100", "150"]));
    drop(agent);
    sandbox.down();
}

/// Kubernetes' `supplementalGroupsPolicy: Merge`, the default: the image's own /etc/group counts whatever the group is.
/// Parameters of shared memory are the pod's own also on the host's network.
#[test]
fn groups_of_the_image_and_parameters_of_the_pod() {
    if !require_root("groups_of_the_image_and_parameters_of_the_pod") {
        return;
    }
    let (sandbox, _registry, image) = world("groups");
    let mut agent = Agent::start(&sandbox);
    let mut wanted = pod("merged", &image, &["serve"]);
    wanted["spec"]["hostNetwork"] = json!(true);
    wanted["spec"]["containers"][0]["args"] = json!(["sleep", "forever"]);
    wanted["spec"]["securityContext"] = json!({
        "runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2500,
        "sysctls": [{"name": "kernel.shmmax", "value": "123456"}],
    });
    sandbox.write("merged.json", &wanted.to_string());
    wanted["metadata"]["name"] = json!("strict");
    wanted["spec"]["securityContext"]["supplementalGroupsPolicy"] = json!("Strict");
    sandbox.write("strict.json", &wanted.to_string());
    for (name, groups) in [("merged", json!([2000, 2500, 3000])), ("strict", json!([2500, 3000]))] {
        agent.wait_ready(name, 1);
        let seen = probed(&agent, name);
        assert_eq!((&seen["identity"]["gid"], &seen["identity"]["groups"]), (&json!(3000), &groups), "{name}");
        assert_eq!(seen["sysctls"]["kernel.shmmax"], "123456", "{name}");
    }
    drop(agent);
    sandbox.down();
}
