//! What a container sees and how it ends, asked from inside with the fixture and from outside through /proc.

use serde_json::{Value, json};
use tests::image::{Entry, ImageBuilder, Layer};
use tests::manifest::{deployment, pod};
use tests::{Agent, require_root, world};

/// What `fixture probe` says from inside a pod.
fn probed(agent: &mut Agent<'_>, mut wanted: Value) -> Value {
    wanted["spec"]["restartPolicy"] = json!("Never");
    let name = wanted["metadata"]["name"].as_str().expect("a pod has a name").to_owned();
    agent.sandbox().write(&format!("{name}.json"), &wanted.to_string());
    agent.wait_status(&format!("{name} has ended"), |status| {
        status.containers(&name).first().filter(|c| c.state == "exited").map(|_| ())
    });
    let text = agent.cli(&["logs", &name]).ok().stdout;
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name} printed no probe: {e}\n{text}\n{}", agent.tail()))
}

#[test]
fn a_container_is_boxed_like_dockers() {
    if !require_root("a_container_is_boxed_like_dockers") {
        return;
    }
    let (sandbox, _registry, image) = world("boxed");
    let mut agent = Agent::start(&sandbox);
    let seen = probed(&mut agent, pod("boxed", &image, &["probe"]));
    let status = |name: &str| seen["status"][name].as_str().unwrap_or_default().to_owned();
    assert_eq!(status("Seccomp"), "2");
    assert_eq!(status("NoNewPrivs"), "0");
    assert_eq!(app_armor(&seen), own_profile());
    // Docker's fourteen: chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw
    // sys_chroot mknod audit_write setfcap.
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status(set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status(set), "0000000000000000", "{set}");
    }
    // Rust's start-up code in the fixture ignores PIPE (bit 12) itself; nothing else may be ignored.
    assert!(["0000000000001000", "0000000000000000"].contains(&status("SigIgn").as_str()), "{}", status("SigIgn"));
    assert_eq!(status("SigBlk"), "0000000000000000");
    assert_eq!(seen["pid"], 1);
    assert_eq!(seen["umask"], 0o022);
    assert_eq!(seen["cwd"], "/");
    assert_eq!(seen["writableRoot"], true);
    let fds: Vec<&String> = seen["fds"].as_object().expect("descriptors are listed").keys().collect();
    assert_eq!(fds, ["0", "1", "2"], "{}", seen["fds"]);
    assert_eq!(seen["hostname"], "boxed");
    assert!(
        seen["hosts"].as_str().is_some_and(|t| t.contains("127.0.0.1") && t.contains("boxed")),
        "{}",
        seen["hosts"]
    );
    assert!(seen["resolvConf"].is_string());
    assert_eq!(seen["env"]["FROM_IMAGE"], "yes");
    assert!(seen["env"]["PATH"].is_string());
    let dev = seen["dev"].as_object().expect("devices are listed");
    for name in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm"] {
        assert!(dev.contains_key(name), "/dev/{name}: {dev:?}");
    }
    assert!(!dev.contains_key("sda") && !dev.contains_key("vda") && !dev.contains_key("kmsg"), "{dev:?}");
    let masked = |path: &str| {
        let mounts = seen["mounts"].as_array().expect("mounts are listed");
        mounts.iter().any(|mount| mount["point"] == path)
    };
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sys", "/sys/firmware"] {
        assert!(masked(path) || !std::path::Path::new(path).exists(), "{path} is open: {}", seen["mounts"]);
    }
    let host = |kind: &str| std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap_or_default();
    for kind in ["ipc", "mnt", "net", "pid", "uts", "cgroup"] {
        assert_ne!(seen["namespaces"][kind], json!(host(kind)), "{kind}");
    }
    assert!(seen["addresses"].as_array().is_some_and(|list| list.iter().any(|a| a["interface"] != "lo")), "{seen:#}");
}

/// The profile that a probe reports: `Some("unconfined")`, its name, or `None` without AppArmor.
fn app_armor(seen: &Value) -> Option<String> {
    let text = seen["appArmor"].as_str().map(str::trim).filter(|text| !text.is_empty())?;
    Some(text.split(' ').next().unwrap_or_default().to_owned())
}

/// What it is to be for a container that names none: the product's own where the host can load it.
fn own_profile() -> Option<String> {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with('Y'));
    let parser =
        ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"].iter().any(|p| std::path::Path::new(p).exists());
    enabled.then(|| if parser { "mainstay-default" } else { "unconfined" }.to_owned())
}

/// Points in which Docker and Kubernetes differ, and a name that files of ours have, too.
#[test]
fn a_service_is_boxed_like_dockers() {
    if !require_root("a_service_is_boxed_like_dockers") {
        return;
    }
    let (sandbox, _registry, image) = world("service");
    let service = json!({"image": image, "command": ["probe"], "restart": "no", "mem_limit": "64m"});
    let mut user = service.clone();
    user["user"] = json!("1000:1001");
    user["read_only"] = json!(true);
    user["sysctls"] = json!({"net.ipv4.ip_unprivileged_port_start": 1024});
    let project = json!({"name": "p", "services": {"hostname": service, "user": user}});
    sandbox.write("compose.yaml", &project.to_string());
    let mut agent = Agent::start(&sandbox);
    let mut seen = |name: &str| -> Value {
        agent.wait_status(&format!("{name} has ended"), |status| {
            status.containers(name).first().filter(|c| c.state == "exited").map(|_| ())
        });
        serde_json::from_str(&agent.cli(&["logs", name]).ok().stdout).expect("a probe")
    };
    let plain = seen("hostname");
    assert_eq!(plain["sysctls"]["net.ipv4.ip_unprivileged_port_start"], "0");
    assert_eq!(plain["sysctls"]["net.ipv4.ping_group_range"], "0\t2147483647");
    assert_eq!(plain["identity"]["groups"], json!([0]));
    assert!(plain["dev"].get("termination-log").is_none(), "{}", plain["dev"]);
    let user = seen("user");
    assert_eq!(user["sysctls"]["net.ipv4.ip_unprivileged_port_start"], "1024");
    assert_eq!(user["identity"]["groups"], json!([1001]));
    for path in ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"] {
        let options = |seen: &Value| {
            let mounts = seen["mounts"].as_array().expect("mounts are listed");
            mounts.iter().find(|mount| mount["point"] == path).map(|mount| mount["options"].to_string())
        };
        assert!(options(&plain).is_some_and(|options| options.starts_with("\"rw")), "{path}");
        assert!(options(&user).is_some_and(|options| options.starts_with("\"ro")), "{path}");
    }
}

#[test]
fn root_of_a_user_namespace_is_nobody_outside() {
    use std::os::unix::fs::MetadataExt as _;
    if !require_root("root_of_a_user_namespace_is_nobody_outside") {
        return;
    }
    if !tests::sandbox::idmapped_tmpfs() {
        return tests::sandbox::skipped("root_of_a_user_namespace_is_nobody_outside", "Linux before 6.3");
    }
    const FIRST: u32 = 0x7000_0000;
    let (sandbox, registry, image) = world("users");
    let own = |text: &str| Entry::File(text.into());
    let lower = Layer::new().entry("/d/low", own("low"), 0o600, (0, 0)).file("/d/gone", "");
    let upper = Layer::new().entry("/d/high", own("high"), 0o600, (1000, 1001)).whiteout("/d/gone");
    let stacked = registry.push("stacked:1", &ImageBuilder::new().layer(lower).layer(upper).build());
    let shared = sandbox.dir().join("shared");
    std::fs::create_dir(&shared).expect("the sandbox is ours");
    std::fs::write(shared.join("mine"), "of the host's root").expect("the sandbox is ours");
    let with = |name: &str| {
        let mut wanted = pod(name, &image, &["serve"]);
        wanted["spec"]["hostUsers"] = json!(false);
        wanted["spec"]["volumes"] = json!([
            {"name": "disk", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "host", "hostPath": {"path": shared}},
            {"name": "stack", "image": {"reference": stacked}},
        ]);
        wanted["spec"]["containers"][0]["volumeMounts"] = json!([
            {"name": "disk", "mountPath": "/disk"},
            {"name": "memory", "mountPath": "/memory"},
            {"name": "host", "mountPath": "/host"},
            {"name": "stack", "mountPath": "/stack"},
            {"name": "stack", "mountPath": "/part", "subPath": "d"},
        ]);
        wanted
    };
    sandbox.write("one.json", &with("one").to_string());
    let mut agent = Agent::start(&sandbox);
    let pids = agent.wait_ready("one", 1);
    let status = |pid: i32, key: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::to_owned);
        line.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
    };
    assert_eq!((status(pids[0], "Uid"), status(pids[0], "Gid")), (FIRST.to_string(), FIRST.to_string()));
    assert_eq!((&*status(pids[0], "Seccomp"), &*status(pids[0], "CapEff")), ("2", "00000000a80425fb"));
    let run = |agent: &Agent<'_>, arguments: &[&str]| agent.cli(&[&["exec"], arguments].concat()).ok().stdout;
    let map = run(&agent, &["one", "--", "/bin/fixture", "cat", "/proc/self/uid_map"]);
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &FIRST.to_string(), "65536"]);
    let seen: Value = serde_json::from_str(&run(&agent, &["one", "--", "/bin/fixture", "probe"])).expect("a probe");
    assert_eq!((&seen["identity"]["uid"], &seen["identity"]["groups"]), (&json!(0), &json!([0])));
    assert_eq!((&seen["status"]["CapEff"], &seen["status"]["Seccomp"]), (&json!("00000000a80425fb"), &json!("2")));
    let fds: Vec<&String> = seen["fds"].as_object().expect("descriptors are listed").keys().collect();
    assert_eq!(fds, ["0", "1", "2"], "{}", seen["fds"]);
    for kind in ["user", "net", "ipc", "uts", "mnt", "pid", "cgroup"] {
        let own = std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).expect("a namespace");
        assert_ne!(std::fs::read_link(format!("/proc/{}/ns/{kind}", pids[0])).expect("it runs"), own, "{kind}");
    }
    // The image, volumes and files of ours are root's inside; what is written there is root's on the disk.
    for path in ["/etc/passwd", "/etc/hosts", "/host/mine"] {
        run(&agent, &["one", "--", "/bin/fixture", "append", path, ""]);
    }
    for path in ["/disk/new", "/memory/new", "/host/new", "/new"] {
        run(&agent, &["one", "--", "/bin/fixture", "write", path, "x"]);
    }
    run(&agent, &["--user", "1000:1001", "one", "--", "/bin/fixture", "write", "/disk/user", "x"]);
    let owner = |path: &std::path::Path| std::fs::metadata(path).map(|meta| (meta.uid(), meta.gid())).ok();
    assert_eq!(owner(&shared.join("new")), Some((0, 0)));
    let found = |name: &str| {
        files_named(&sandbox.data().join("pods"), name).iter().filter_map(|path| owner(path)).collect::<Vec<_>>()
    };
    assert_eq!(found("user"), [(1000, 1001)]);
    // An image of several layers: files of root and of others are theirs inside, layers cover each other, nothing is written.
    for (user, path) in [("0", "/stack/d/low"), ("0", "/part/low"), ("1000", "/stack/d/high"), ("1000", "/part/high")] {
        let text = run(&agent, &["--user", user, "one", "--", "/bin/fixture", "cat", path]);
        assert!(path.ends_with(text.trim()), "{path}: {text}");
    }
    for (user, command) in [
        ("1000", ["cat", "/stack/d/low"].as_slice()),
        ("0", &["cat", "/stack/d/gone"]),
        ("0", &["write", "/stack/d/low", "x"]),
        ("0", &["write", "/part/new", "x"]),
    ] {
        let refused = agent.cli(&[&["exec", "--user", user, "one", "--", "/bin/fixture"], command].concat());
        assert_ne!(refused.code, 0, "{user} {command:?}");
    }
    // The writable layer is the container's own, with ids that are nobody's.
    let mut new = found("new");
    new.sort_unstable();
    assert_eq!(new, [(0, 0), (FIRST, FIRST)]);
    // A user that the namespace does not have, and what only the host's root may do.
    assert!(!agent.cli(&["exec", "--user", "70000", "one", "--", "/bin/fixture", "id"]).stderr.is_empty());
    // Copies in both directions.
    let file = sandbox.dir().join("file");
    std::fs::write(&file, "copied").expect("the sandbox is ours");
    for place in ["one:/disk/copied", "one:/copied"] {
        agent.cli(&["cp", &file.display().to_string(), place]).ok();
    }
    let mut copied = found("copied");
    copied.sort_unstable();
    assert_eq!(copied, [(0, 0), (FIRST, FIRST)]);
    let back = sandbox.dir().join("back");
    agent.cli(&["cp", "one:/disk/copied", &back.display().to_string()]).ok();
    assert_eq!(std::fs::read_to_string(&back).expect("copied"), "copied");
    // Another pod has other ids, and a new agent changes nothing.
    sandbox.write("two.json", &with("two").to_string());
    let two = agent.wait_ready("two", 1);
    assert_eq!(status(two[0], "Uid"), (FIRST + 65_536).to_string());
    agent.restart();
    assert_eq!(agent.wait_ready("one", 1), pids);
    run(&agent, &["one", "--", "/bin/fixture", "id"]);
    // A container that is started again is who it was.
    nix_kill(pids[0]);
    let again = agent.wait_for("it runs again", tests::agent::SOON, |agent| {
        agent.status().pids("one").first().copied().filter(|pid| *pid != pids[0])
    });
    assert_eq!(status(again, "Uid"), FIRST.to_string());
}

#[test]
fn gpus_are_devices_of_a_cdi_file() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    if !require_root("gpus_are_devices_of_a_cdi_file") {
        return;
    }
    let (sandbox, _registry, image) = world("gpus");
    let with = |name: &str| {
        let mut wanted = pod(name, &image, &["probe"]);
        wanted["spec"]["containers"][0]["resources"] = json!({"limits": {"nvidia.com/gpu": 2}});
        wanted
    };
    let mut agent = Agent::start(&sandbox);
    sandbox.write("none.json", &with("none").to_string());
    agent.wait_for("it is refused with what to do", tests::agent::SOON, |agent| {
        let said = agent.cli(&["why", "none"]).stdout;
        (said.contains("there is no CDI device `nvidia.com/gpu=0`") && said.contains("nvidia-ctk")).then_some(())
    });
    sandbox.remove("none.json");
    // As if the host had such a file; only this test's own mount namespace shows it.
    let layer = sandbox.dir().join("etc");
    std::fs::create_dir_all(layer.join("cdi")).expect("the sandbox is ours");
    let device = |number: u32| json!({"name": number.to_string(), "containerEdits": {"deviceNodes": [{"path": format!("/dev/nvidia{number}"), "hostPath": "/dev/null", "gid": 44, "fileMode": 0o640}], "env": [format!("GPU_{number}=yes")]}});
    // Before the container's root is its own, as the hooks of drivers want it.
    let ran = sandbox.dir().join("hook-ran");
    let script = format!(
        r#"cat > {0}.state; cp $(sed 's/.*"bundle":"\([^"]*\)".*/\1/' {0}.state)/config.json {0}"#,
        ran.display()
    );
    let hook = json!({"hookName": "createContainer", "path": "/bin/sh", "args": ["sh", "-c", script]});
    let all = json!({"hooks": [hook], "additionalGids": [44]});
    let devices = [device(0), device(1), device(2)];
    let file = json!({"cdiVersion": "0.7.0", "kind": "nvidia.com/gpu", "containerEdits": all, "devices": devices});
    std::fs::write(layer.join("cdi/nvidia.json"), file.to_string()).expect("the sandbox is ours");
    let options = format!("lowerdir={}:/etc", layer.display());
    mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str())).expect("mounted");
    let seen = probed(&mut agent, with("gpu"));
    umount2("/etc", MntFlags::MNT_DETACH).expect("mounted above");
    let env = seen["env"].as_object().expect("variables are listed");
    assert_eq!(["GPU_0", "GPU_1", "GPU_2"].map(|name| env.contains_key(name)), [true, true, false]);
    let dev = seen["dev"].as_object().expect("devices are listed");
    let there = ["nvidia0", "nvidia1", "nvidia2"].map(|name| dev.contains_key(name));
    assert_eq!(there, [true, true, false], "{dev:?}");
    assert!(dev["nvidia0"].as_str().is_some_and(|node| node.ends_with(" 640")), "{dev:?}");
    assert_eq!(seen["identity"]["groups"], json!([0, 44]));
    // Its state leads to the root of the container, where drivers put their links.
    let config = std::fs::read_to_string(&ran).expect("the hook ran");
    let config: Value = serde_json::from_str(&config).expect("a configuration");
    assert!(config["root"]["path"].as_str().is_some_and(|root| root.starts_with('/')), "{config}");
}

fn nix_kill(pid: i32) {
    let killed = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    killed.expect("it runs");
}

fn files_named(dir: &std::path::Path, name: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_named(&entry.path(), name)),
            Ok(_) if entry.file_name() == name => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

#[test]
fn the_security_context_is_obeyed() {
    if !require_root("the_security_context_is_obeyed") {
        return;
    }
    let (sandbox, _registry, image) = world("security");
    let mut agent = Agent::start(&sandbox);
    let with = |name: &str, context: Value| {
        let mut wanted = pod(name, &image, &["probe"]);
        wanted["spec"]["containers"][0]["securityContext"] = context;
        wanted
    };
    let user = probed(
        &mut agent,
        with(
            "user",
            json!({"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": true, "readOnlyRootFilesystem": true,
                   "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
        ),
    );
    assert_eq!((&user["identity"]["uid"], &user["identity"]["gid"]), (&json!(1000), &json!(1000)));
    assert_eq!(user["status"]["NoNewPrivs"], "1");
    assert_eq!(user["status"]["CapEff"], "0000000000000000");
    assert_eq!(user["status"]["CapBnd"], "0000000000000000");
    assert_eq!(user["status"]["Seccomp"], "2");
    assert_eq!(user["writableRoot"], false);
    let added = probed(&mut agent, with("added", json!({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}})));
    assert_eq!(added["status"]["CapEff"], "0000000000001000");
    assert_eq!(app_armor(&added), own_profile());
    let free = probed(&mut agent, with("free", json!({"appArmorProfile": {"type": "Unconfined"}})));
    assert_eq!(app_armor(&free), own_profile().map(|_| "unconfined".to_owned()));
    let all = probed(&mut agent, with("privileged", json!({"privileged": true})));
    assert_eq!(app_armor(&all), app_armor(&free));
    assert_eq!(all["status"]["Seccomp"], "0");
    let effective = all["status"]["CapEff"].as_str().and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
    assert!(effective & (1 << 21) != 0, "SYS_ADMIN is missing: {effective:x}");
    // Root where the manifest forbids root: refused with a reason, not started.
    let mut root = pod("root", &image, &["probe"]);
    root["spec"]["containers"][0]["securityContext"] = json!({"runAsNonRoot": true});
    sandbox.write("root.json", &root.to_string());
    agent.wait_for("root is refused with a word about it", tests::agent::SOON, |agent| {
        let status = agent.json(&["status"]);
        let workloads = status["workloads"].as_array().cloned().unwrap_or_default();
        let found = workloads.into_iter().find(|workload| workload["name"] == "root")?.to_string();
        (found.contains("runAsNonRoot") || found.contains("as root")).then_some(())
    });
    assert!(agent.status().pids("root").is_empty());
}

#[test]
fn environment_and_files_come_from_config_maps_and_secrets() {
    if !require_root("environment_and_files_come_from_config_maps_and_secrets") {
        return;
    }
    let (sandbox, _registry, image) = world("config");
    let config = |colour: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"COLOUR": colour, "k": "v"}});
    sandbox.write("c.json", &config("red").to_string());
    sandbox.write("s.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: sesame-open}\n");
    let mut wanted = pod("reader", &image, &["serve"]);
    wanted["spec"]["volumes"] = json!([
        {"name": "c", "configMap": {"name": "c"}},
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o400}},
        {"name": "e", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]);
    let container = &mut wanted["spec"]["containers"][0];
    container["env"] = json!([
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "COLOUR"}}},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "GREETING", "value": "hello $(NAME), not $$(NAME)"},
        {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "x", "optional": true}}},
    ]);
    container["volumeMounts"] = json!([
        {"name": "c", "mountPath": "/config"},
        {"name": "s", "mountPath": "/secret", "readOnly": true},
        {"name": "e", "mountPath": "/scratch"},
    ]);
    container["ports"] = json!([{"containerPort": 8080, "hostPort": 8080}]);
    sandbox.write("reader.json", &wanted.to_string());
    let mut agent = Agent::start(&sandbox);
    let env = agent.wait_page(8080, "/env", |body| body.contains("COLOUR"));
    for line in ["COLOUR=red", "PASSWORD=sesame-open", "NAME=reader", "GREETING=hello reader, not $(NAME)"] {
        assert!(env.lines().any(|have| have == line), "{line} is not in\n{env}");
    }
    assert!(!env.contains("MAYBE"));
    agent.wait_page(8080, "/file/config/COLOUR", |body| body == "red");
    agent.wait_page(8080, "/file/secret/password", |body| body == "sesame-open");
    // A new value appears in the running container.
    let pids = agent.wait_ready("reader", 1);
    sandbox.write("c.json", &config("blue").to_string().replace("\"v\"", "\"w\""));
    agent.wait_page(8080, "/file/config/k", |body| body == "w");
    let _ = pids;
    // The secret is in no answer, no log, and in no file of the data directory.
    for arguments in [&["status", "-o", "json"][..], &["plan", "-o", "json"], &["events"]] {
        let output = agent.cli(arguments);
        assert!(!output.stdout.contains("sesame") && !output.stderr.contains("sesame"), "{arguments:?}: {output:?}");
    }
    assert!(!agent.log().contains("sesame"));
    assert_eq!(files_with(&sandbox.data(), "sesame-open"), Vec::<std::path::PathBuf>::new());
}

fn files_with(dir: &std::path::Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(files_with(&entry.path(), text));
        } else if kind.is_file() {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn ends_are_recorded_with_code_signal_and_reason() {
    if !require_root("ends_are_recorded_with_code_signal_and_reason") {
        return;
    }
    let (sandbox, _registry, image) = world("ends");
    let mut agent = Agent::start(&sandbox);
    let mut ended = |name: &str, arguments: &[&str], memory: Option<&str>| {
        let mut wanted = pod(name, &image, arguments);
        wanted["spec"]["restartPolicy"] = json!("Never");
        if let Some(memory) = memory {
            wanted["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": memory}});
        }
        sandbox.write(&format!("{name}.json"), &wanted.to_string());
        agent.wait_status(&format!("{name} has ended"), |status| {
            let container = status.containers(name).first().copied()?.clone();
            (container.state == "exited").then_some((container.exit_code, container.reason.unwrap_or_default()))
        })
    };
    assert_eq!(ended("fine", &["exit", "0"], None), (Some(0), "Completed".to_owned()));
    assert_eq!(ended("seven", &["exit", "7"], None), (Some(7), "Error".to_owned()));
    assert_eq!(ended("hungry", &["eat", "256"], Some("64Mi")), (Some(137), "OOMKilled".to_owned()));
}

#[test]
fn restart_policies_are_kept() {
    if !require_root("restart_policies_are_kept") {
        return;
    }
    let (sandbox, _registry, image) = world("restarts");
    let mut agent = Agent::start(&sandbox);
    // Crashes once, then stays: the writable layer is fresh for each attempt, the volume is not.
    let mut twice = pod("twice", &image, &["crash-once", "/v/mark"]);
    twice["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    twice["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    sandbox.write("twice.json", &twice.to_string());
    let mut done = pod("done", &image, &["exit", "0"]);
    done["spec"]["restartPolicy"] = json!("OnFailure");
    sandbox.write("done.json", &done.to_string());
    agent.wait_status("it runs at the second try", |status| {
        let container = status.containers("twice").first().copied()?.clone();
        (container.state == "running" && container.restarts == 1).then_some(())
    });
    let status = agent.wait_status("the other is done", |status| {
        (status.containers("done").first()?.state == "exited").then(|| status.clone())
    });
    assert_eq!(status.containers("done").first().map(|c| (c.exit_code, c.restarts)), Some((Some(0), 0)));
    let metrics = agent.metrics();
    assert_eq!(metrics.sum("mainstay_container_restarts_total", &[("workload", "twice")]), Some(1.0));
}

#[test]
fn init_containers_run_in_order_before_the_rest() {
    if !require_root("init_containers_run_in_order_before_the_rest") {
        return;
    }
    let (sandbox, _registry, image) = world("init");
    let mut wanted = pod("init", &image, &["cat", "/v/steps"]);
    wanted["spec"]["restartPolicy"] = json!("Never");
    wanted["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    wanted["spec"]["containers"][0]["volumeMounts"] = mounts.clone();
    wanted["spec"]["initContainers"] = json!([
        {"name": "one", "image": image, "args": ["append", "/v/steps", "one"], "volumeMounts": mounts},
        {"name": "two", "image": image, "args": ["append", "/v/steps", "two"], "volumeMounts": mounts},
    ]);
    sandbox.write("init.json", &wanted.to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_status("the pod is done", |status| {
        let main = status.containers("init").into_iter().find(|c| c.name == "main")?;
        (main.state == "exited" && main.exit_code == Some(0)).then_some(())
    });
    assert_eq!(agent.cli(&["logs", "init/main"]).ok().stdout, "one\ntwo\n");
}

/// TERM first; KILL for those that do not listen, when their time is over.
#[test]
fn the_grace_period_is_kept() {
    if !require_root("the_grace_period_is_kept") {
        return;
    }
    let (sandbox, _registry, image) = world("grace");
    let mut deaf = pod("deaf", &image, &["ignore-term"]);
    deaf["spec"]["terminationGracePeriodSeconds"] = json!(2);
    sandbox.write("deaf.json", &deaf.to_string());
    let mut polite = pod("polite", &image, &["sleep", "forever"]);
    polite["spec"]["terminationGracePeriodSeconds"] = json!(3600);
    sandbox.write("polite.json", &polite.to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("deaf", 1);
    agent.wait_ready("polite", 1);
    let from = std::time::Instant::now();
    sandbox.remove("deaf.json");
    sandbox.remove("polite.json");
    agent.wait_status("the polite one is gone", |status| status.workload("polite").is_none().then_some(()));
    agent.wait_status("the deaf one is gone", |status| status.workload("deaf").is_none().then_some(()));
    assert!(from.elapsed() >= std::time::Duration::from_secs(2), "the deaf one had no grace");
    agent.assert_no_workloads();
}

#[test]
fn pods_reach_each_other_and_the_host() {
    if !require_root("pods_reach_each_other_and_the_host") {
        return;
    }
    let (sandbox, _registry, image) = world("network");
    let mut server = pod("server", &image, &["tcp-echo", "7"]);
    server["spec"]["containers"][0]["ports"] = json!([{"containerPort": 7, "hostPort": 7007}]);
    sandbox.write("server.json", &server.to_string());
    let mut udp = pod("udp", &image, &["udp-echo", "7"]);
    udp["spec"]["containers"][0]["ports"] = json!([{"containerPort": 7, "hostPort": 7008, "protocol": "UDP"}]);
    sandbox.write("udp.json", &udp.to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("server", 1);
    agent.wait_ready("udp", 1);
    let ip = agent.status().workload("server").and_then(|w| w.pods.first()?.ip.clone()).expect("a pod has an address");
    let mut client = pod("client", &image, &["connect", &ip, "7"]);
    client["spec"]["restartPolicy"] = json!("Never");
    sandbox.write("client.json", &client.to_string());
    let code = agent.wait_status("the client has ended", |status| {
        status.containers("client").first().filter(|c| c.state == "exited")?.exit_code
    });
    assert_eq!(code, 0, "{}", agent.cli(&["logs", "client"]).stdout);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has free ports");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(1))).expect("a socket takes a limit");
    let answer = agent.wait_for("the UDP port of the host answers", tests::agent::SOON, |_| {
        socket.send_to(b"ping", "127.0.0.1:7008").ok()?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    });
    assert_eq!(answer, "udp: ping");
    // On the host's own network.
    let mut host = pod("host", &image, &["serve", "--port", "8099"]);
    host["spec"]["hostNetwork"] = json!(true);
    sandbox.write("host.json", &host.to_string());
    agent.wait_page(8099, "/", |body| !body.is_empty());
}

#[test]
fn a_pod_that_fills_its_disk_limit_is_evicted() {
    if !require_root("a_pod_that_fills_its_disk_limit_is_evicted") {
        return;
    }
    let (sandbox, _registry, image) = world("evicted");
    let mut agent = Agent::start(&sandbox);
    // One file of 3 MiB where 1 MiB is allowed; the second pod writes the same into its writable layer.
    let mut volume = pod("volume", &image, &["fill", "/data/file", "3"]);
    volume["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {"sizeLimit": "1Mi"}}]);
    volume["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let mut layer = deployment("layer", 1, &image, &["fill", "/tmp/file", "3"]);
    layer["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": "1Mi"}});
    let mut within = volume.clone();
    within["metadata"]["name"] = json!("within");
    within["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] = json!("8Mi");
    for wanted in [&volume, &layer, &within] {
        let name = wanted["metadata"]["name"].as_str().expect("named");
        sandbox.write(&format!("{name}.json"), &wanted.to_string());
    }
    // Each is seen to run, not all at once: the first may be gone before the last has started.
    let (mut layer, mut within) = (None, None);
    let first = agent.wait_status("both have run", |status| {
        layer = layer.or(status.pids("layer").first().copied());
        within = within.or(status.pids("within").first().copied());
        layer.zip(within)
    });
    agent.wait_status("both are above their limits", |status| {
        // The bare pod stays as it failed; the Deployment has another pod.
        let gone = status.workload("volume").is_some_and(|volume| volume.phase == "Failed");
        let another = status.pids("layer").first().is_some_and(|pid| *pid != first.0);
        (gone && another).then_some(())
    });
    let shown = agent.json(&["status"]);
    let workload = |name: &str| {
        let all = shown["workloads"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|workload| workload["name"] == name).expect("it is listed")
    };
    assert_eq!(workload("volume")["phase"], "Failed", "{shown:#}");
    assert_eq!(workload("volume")["pods"][0]["reason"], "Evicted", "{shown:#}");
    let message = workload("volume")["pods"][0]["message"].to_string();
    assert!(message.contains("data") && message.contains("1Mi"), "{message}");
    assert_eq!(agent.status().pids("within"), [first.1]);
    let events = agent.cli(&["events"]).ok().stdout;
    assert!(events.contains("evicted"), "{events}");
    // It does not come back with the next agent either.
    agent.kill9();
    agent.start_again();
    agent
        .wait_status("the next agent has read the manifests", |status| (status.pids("layer").len() == 1).then_some(()));
    assert!(agent.status().pids("volume").is_empty());
    assert_eq!(agent.status().pids("within"), [first.1]);
}

#[test]
fn containers_of_a_pod_share_memory() {
    if !require_root("containers_of_a_pod_share_memory") {
        return;
    }
    let (sandbox, _registry, image) = world("shm");
    let mut agent = Agent::start(&sandbox);
    let mut wanted = pod("pair", &image, &["serve"]);
    let mut second = wanted["spec"]["containers"][0].clone();
    second["name"] = json!("second");
    second["args"] = json!(["sleep"]);
    wanted["spec"]["containers"].as_array_mut().expect("a list").push(second);
    sandbox.write("pair.json", &wanted.to_string());
    agent.wait_ready("pair", 1);
    agent.cli(&["exec", "pair/main", "--", "/bin/fixture", "write", "/dev/shm/note", "shared"]).ok();
    let read = agent.cli(&["exec", "pair/second", "--", "/bin/fixture", "cat", "/dev/shm/note"]).ok();
    // What is run in a container is as confined as the container.
    let probe = agent.cli(&["exec", "pair/main", "--", "/bin/fixture", "probe"]).ok().stdout;
    assert_eq!(app_armor(&serde_json::from_str(&probe).expect("a probe")), own_profile());
    assert_eq!(read.stdout, "shared\n");
}

fn runc() -> Option<&'static str> {
    ["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
}

/// Pods that name a runtime of the configuration run under that program, and nothing else is different.
#[test]
fn another_runtime_runs_what_names_it() {
    const NAME: &str = "another_runtime_runs_what_names_it";
    if !require_root(NAME) {
        return;
    }
    let Some(program) = runc() else { return tests::sandbox::skipped(NAME, "runc is not installed") };
    let (sandbox, _registry, image) = world("runtimes");
    let named = |name: &str, class: &str, args: &[&str]| {
        let mut wanted = pod(name, &image, args);
        wanted["spec"]["runtimeClassName"] = json!(class);
        wanted
    };
    let runtimes = format!("outside.path = \"{program}\"\nabsent.path = \"/no/such/program\"");
    sandbox.write("sleeper.json", &named("sleeper", "outside", &["sleep", "forever"]).to_string());
    sandbox.write("lost.json", &named("lost", "gvisor", &["sleep", "forever"]).to_string());
    sandbox.write("absent.json", &named("absent", "absent", &["sleep", "forever"]).to_string());
    // A name of the like of the built-in one needs no entry.
    sandbox.write("alike.json", &named("alike", "crun", &["sleep", "forever"]).to_string());
    sandbox.write(
        "stack/compose.yaml",
        &format!("services:\n  talker:\n    image: {image}\n    runtime: outside\n    command: [sleep, forever]\n    stop_grace_period: 5s\n"),
    );
    let mut agent = Agent::start_with(&sandbox, &[], &[("MAINSTAY_RUNTIMES", &runtimes)]);
    let pids = agent.wait_ready("sleeper", 1);
    agent.wait_ready("talker", 1);
    agent.wait_ready("alike", 1);
    let state_of = |agent: &mut Agent<'_>, name: &str| {
        let status = agent.status();
        let uid = status.workload(name).and_then(|found| found.pods.first()).map(|pod| pod.uid.clone()).expect("a pod");
        let container = status.containers(name).first().map(|container| container.name.clone()).expect("a container");
        sandbox.run().join("pods").join(&uid).join(&container).join(format!("0/state/{uid}-{container}-0"))
    };
    for (name, outside) in [("sleeper", true), ("talker", true), ("alike", false)] {
        // The file of runc has what runc was given; libcontainer's youki has other keys.
        let text = std::fs::read_to_string(state_of(&mut agent, name).join("state.json")).expect("a state");
        assert_eq!(text.contains("init_process_pid"), outside, "{name}: {text}");
    }
    let seen = probed(&mut agent, named("boxed", "outside", &["probe"]));
    assert_eq!((&seen["status"]["Seccomp"], &seen["status"]["CapEff"]), (&json!("2"), &json!("00000000a80425fb")));
    assert_eq!((&seen["pid"], &seen["hostname"]), (&json!(1), &json!("boxed")));

    let exec = |agent: &Agent<'_>, args: &[&str]| agent.cli(&[&["exec", "sleeper", "--"], args].concat());
    assert_eq!(exec(&agent, &["/bin/fixture", "exit", "7"]).code, 7);
    assert!(exec(&agent, &["/bin/fixture", "env"]).ok().stdout.contains("HOSTNAME=sleeper"));

    agent.kill9();
    agent.start_again();
    assert_eq!(agent.wait_ready("sleeper", 1), pids, "it is taken over");
    assert_eq!(exec(&agent, &["/bin/fixture", "exit", "3"]).code, 3);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pids[0]), nix::sys::signal::SIGKILL).expect("it runs");
    agent.wait_status("it is started again", |status| {
        let container = *status.containers("sleeper").first()?;
        (container.state == "running" && container.restarts == 1).then_some(())
    });

    for (name, why) in [
        ("lost", "no runtime `gvisor` in the configuration (`[runtimes.gvisor]`): it has absent, outside"),
        ("absent", "cannot use the program /no/such/program of runtime `absent`: it is not there"),
    ] {
        agent.wait_for(why, tests::agent::SOON, |agent| agent.cli(&["why", name]).stdout.contains(why).then_some(()));
    }
    assert!(agent.cli(&["events"]).ok().stdout.contains("runtime_missing"));
    let warned = agent.cli(&["validate", &sandbox.manifests().display().to_string()]);
    let said = format!("{}{}", warned.stdout, warned.stderr);
    assert!(said.contains("has a runtime `gvisor`") && said.contains("has a runtime `outside`"), "{said}");

    for file in ["sleeper.json", "stack/compose.yaml", "lost.json", "absent.json"] {
        sandbox.remove(file);
    }
    agent.wait_status("they are gone", |status| {
        (["sleeper", "lost"].iter().all(|name| status.workload(name).is_none())).then_some(())
    });
}
