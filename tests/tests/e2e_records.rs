//! Records that an earlier version has written are understood: the pods of them are taken over, none is made anew and
//! nothing that has ended runs again.
//!
//! `fixtures/records-N` holds what version N of the records looked like on the disk, with `@IMAGE@` and `@DIGEST@` for
//! what differs from one machine to the next. A new version of the records adds a directory and changes no old one;
//! `MAINSTAY_KEEP_RECORDS=DIR` writes the present one to DIR. `fixtures/state-N` and `MAINSTAY_KEEP_STATE=DIR` are the same
//! for what lies beside pods: networks, addresses, Services, ranges of user ids, named volumes and images.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::manifest::{deployment, pod};
use tests::{Agent, require_root, world};

/// Every record below a directory of pods, by its path there.
fn records(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("the directory is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !matches!(entry.file_name().to_str(), Some("upper" | "work" | "volumes")) {
                found.extend(records(&path));
            }
        } else if path.extension().is_some_and(|ending| ending == "json") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Copies records and replaces words in them.
fn copy(from: &Path, to: &Path, words: &[(&str, &str)]) {
    for path in records(from) {
        let mut text = fs::read_to_string(&path).expect("a record is text");
        for (old, new) in words {
            text = text.replace(old, new);
        }
        let target = to.join(path.strip_prefix(from).expect("it is below"));
        fs::create_dir_all(target.parent().expect("it has a directory")).expect("the directory is ours");
        fs::write(target, text).expect("the directory is ours");
    }
}

/// Uid of the only pod of a workload.
fn uid(agent: &Agent<'_>, workload: &str) -> Option<String> {
    let status = agent.json(&["status"]);
    let found = status["workloads"].as_array()?.iter().find(|one| one["name"] == workload)?.clone();
    found["pods"][0]["uid"].as_str().map(str::to_owned)
}

#[test]
fn records_of_every_version_are_taken_over() {
    if !require_root("records_of_every_version_are_taken_over") {
        return;
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    for version in ["records-1"] {
        let (sandbox, _registry, image) = world("records");
        sandbox.cli(&["pull", &image]).ok();
        let images = sandbox.json(&["images"]);
        let digest = images[0]["digest"].as_str().expect("the image has a digest").to_owned();
        sandbox.write("web.json", &deployment("web", 1, &image, &["sleep", "forever"]).to_string());
        let mut once = pod("once", &image, &["exit", "0"]);
        once["spec"]["restartPolicy"] = Value::from("Never");
        sandbox.write("once.json", &once.to_string());
        let kept = std::env::var_os("MAINSTAY_KEEP_RECORDS").map(PathBuf::from);
        if kept.is_none() {
            copy(&fixtures.join(version), &sandbox.data().join("pods"), &[("@IMAGE@", &image), ("@DIGEST@", &digest)]);
        }

        let mut agent = Agent::start(&sandbox);
        agent.wait_ready("web", 1);
        agent.wait_status("`once` has ended", |status| {
            status.workload("once").filter(|workload| workload.phase == "Succeeded").map(drop)
        });
        if let Some(dir) = kept {
            // Records of this boot would be read as those of an agent that has just ended.
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the kernel has a boot id");
            let boot = (boot.trim(), "00000000-0000-4000-8000-000000000001");
            copy(&sandbox.data().join("pods"), &dir, &[(&image, "@IMAGE@"), (&digest, "@DIGEST@"), boot]);
        } else {
            let known: Vec<String> = fs::read_dir(fixtures.join(version))
                .expect("the records are there")
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            for workload in ["web", "once"] {
                let uid = uid(&agent, workload).expect("there is a pod");
                assert!(known.contains(&uid), "{version}: {workload} was made anew: {uid} is none of {known:?}");
            }
            let again = fs::read_dir(sandbox.data().join("pods")).expect("the directory is there").count();
            assert_eq!(again, known.len(), "{version}: no pod was added");
            let once = uid(&agent, "once").expect("there is a pod");
            let second = sandbox.data().join("pods").join(once).join("main/1");
            assert!(!second.exists(), "{version}: what had ended ran again");
        }
        let (web, pids) = (uid(&agent, "web"), agent.wait_ready("web", 1));
        assert_eq!(agent.stop(), 0);
        // One of a version to come: this one changes nothing, and what runs runs on.
        let record = sandbox.data().join("pods").join(web.as_deref().expect("there is a pod")).join("pod.json");
        let known = fs::read_to_string(&record).expect("the record is there");
        fs::write(&record, known.replace("\"schema\":1", "\"schema\":2")).expect("the directory is ours");
        for arguments in [["run", "--check"].as_slice(), &["run"]] {
            let refused = sandbox.cli(arguments);
            assert!(refused.code == 2 && refused.stderr.contains("written by a newer version"), "{}", refused.stderr);
        }
        fs::write(&record, known).expect("the directory is ours");
        agent.start_again();
        assert_eq!((agent.wait_ready("web", 1), uid(&agent, "web")), (pids, web));
        assert_eq!(agent.stop(), 0);
        sandbox.down();
        sandbox.assert_clean();
    }
}

/// A record of what lies beside pods, as it is kept.
fn kept(version: &str, file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(version).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The only JSON file of a directory.
fn only(dir: &Path) -> PathBuf {
    let found = records(dir);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn what_lies_beside_pods_is_taken_over_from_every_version() {
    let name = "what_lies_beside_pods_is_taken_over_from_every_version";
    if !require_root(name) {
        return;
    }
    if !tests::sandbox::idmapped_tmpfs() {
        return tests::sandbox::skipped(name, "Linux before 6.3");
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    for version in ["state-1"] {
        let (sandbox, registry, image) = world("state");
        sandbox.cli(&["pull", &image]).ok();
        let digest = sandbox.json(&["images"])[0]["digest"].as_str().expect("it has a digest").to_owned();
        let (data, images) = (sandbox.data(), sandbox.data().join("images"));
        let layer = fs::read_dir(images.join("layers")).expect("there is one").flatten().next().expect("there is one");
        let parts = [
            ("image.json", only(&images.join("records"))),
            ("reference.json", only(&images.join("refs"))),
            ("layer.json", layer.path().join("layer.json")),
        ];
        let record: Value = serde_json::from_slice(&fs::read(&parts[0].1).expect("it is there")).expect("it is JSON");
        let text = |value: &Value| value.as_str().expect("a digest").to_owned();
        let (config, diff_id) = (text(&record["config"]), text(&record["diff_ids"][0]));
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the kernel has a boot id");
        let words = [
            (image.as_str(), "@IMAGE@"),
            (digest.as_str(), "@DIGEST@"),
            (config.as_str(), "@CONFIG@"),
            (diff_id.as_str(), "@LAYER@"),
            (sandbox.bridge(), "@BRIDGE@"),
            // The default network is called as its bridge is, without the number.
            (sandbox.bridge().trim_end_matches('0'), "@NETWORK@"),
        ];
        let back = words.map(|(here, word)| (word, here));

        let with_users = |name: &str| {
            let mut wanted = pod(name, &image, &["sleep", "forever"]);
            wanted["spec"]["hostUsers"] = json!(false);
            wanted.to_string()
        };
        let project = format!(
            "services:\n  db:\n    image: {image}\n    command: [sleep, forever]\n    restart: always\n    volumes: ['data:/etc']\nvolumes: {{data: {{}}}}\n"
        );
        let wish = || {
            let mut web = deployment("web", 1, &image, &["serve"]);
            let probe = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
            web["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe;
            sandbox.write("web.json", &web.to_string());
            let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
            sandbox.write("service.json", &service.to_string());
            sandbox.write("own.json", &with_users("own"));
            sandbox.write("shop/compose.yaml", &project);
        };
        if let Some(dir) = std::env::var_os("MAINSTAY_KEEP_STATE").map(PathBuf::from) {
            // Other addresses and ids than what is chosen first, so that they tell whether the record was gone by.
            sandbox.write("first.json", &with_users("first"));
            let ranges = [("MAINSTAY_SUBNET", "10.77.0.0/24"), ("MAINSTAY_SERVICE_SUBNET", "10.78.0.0/24")];
            let mut agent = Agent::start_with(&sandbox, &[], &ranges);
            agent.wait_ready("first", 1);
            wish();
            for workload in ["web", "own", "db"] {
                agent.wait_ready(workload, 1);
            }
            sandbox.remove("first.json");
            agent.wait_status("the first is gone", |status| status.workload("first").is_none().then_some(()));
            assert_eq!(agent.stop(), 0);
            // Records of this boot would be read as those of an agent that has just ended.
            let earlier = (boot.trim(), "00000000-0000-4000-8000-000000000001");
            let words = [words.as_slice(), &[earlier]].concat();
            for part in ["pods", "network"] {
                copy(&data.join(part), &dir.join(part), &words);
            }
            for (name, path) in &parts {
                let mut text = fs::read_to_string(path).expect("it is there");
                for (here, word) in words.iter().rev() {
                    text = text.replace(here, word);
                }
                fs::write(dir.join(name), text).expect("the directory is ours");
            }
            fs::copy(data.join("volumes/shop_data/volume.json"), dir.join("volume.json")).expect("there is one");
            sandbox.down();
            return;
        }

        for part in ["pods", "network"] {
            copy(&fixtures.join(version).join(part), &data.join(part), &back);
        }
        for (name, path) in &parts {
            let mut text = kept(version, name).to_string();
            for (word, here) in back {
                text = text.replace(word, here);
            }
            fs::write(path, text).expect("the directory is ours");
        }
        // The volume was filled from the image once, and everything in it was removed since.
        let volume = data.join("volumes/shop_data");
        fs::create_dir_all(volume.join("data")).expect("the directory is ours");
        fs::write(volume.join("volume.json"), kept(version, "volume.json").to_string()).expect("the directory is ours");
        // Nobody can give the image again.
        drop(registry);
        wish();
        let mut agent = Agent::start(&sandbox);
        let mut pids = Vec::new();
        for workload in ["web", "own", "db"] {
            pids.push(agent.wait_ready(workload, 1));
            let uid = uid(&agent, workload).expect("there is a pod");
            assert!(
                fixtures.join(version).join("pods").join(&uid).exists(),
                "{version}: {workload} was made anew: {uid}"
            );
            let lease = kept(version, &format!("network/leases/{uid}.json"));
            let status = agent.status();
            let ip = status.workload(workload).and_then(|found| found.pods.first()?.ip.clone());
            assert_eq!(ip.as_deref(), lease["leases"][0]["addresses"]["v4"].as_str(), "{version}: {workload}");
        }
        let status = agent.json(&["status"]);
        let (service, leases) = (&status["services"][0], &kept(version, "network/services.json")["leases"]);
        assert_eq!(service["address"], leases["addresses"]["default/web"], "{version}: {service}");
        assert!(leases["addresses"]["default/web"].as_str().is_some_and(|address| address.starts_with("10.78.")));
        let port = leases["node_ports"].as_object().and_then(|ports| ports.values().next()).expect("one is kept");
        assert_eq!(service["hostPorts"], json!([format!("{port}/tcp")]), "{version}: {service}");
        let uid = uid(&agent, "own").expect("there is a pod");
        let first = &kept(version, &format!("pods/{uid}/users.json"))["first"];
        assert_ne!(first, &json!(0x7000_0000), "{version}: as if nothing had been kept");
        let map = fs::read_to_string(format!("/proc/{}/uid_map", pids[1][0])).expect("it runs");
        assert_eq!(map.split_whitespace().nth(1), Some(first.to_string().as_str()), "{version}");
        assert!(fs::read_dir(volume.join("data")).expect("it is there").next().is_none(), "{version}: filled again");
        let known = agent.json(&["images"]);
        let one = known.as_array().into_iter().flatten().find(|one| one["digest"] == digest).expect("it is there");
        assert!(one.to_string().contains(&image), "{version}: {one}");
        assert_eq!(agent.stop(), 0);
        sandbox.down();
        sandbox.assert_clean();
    }
}
