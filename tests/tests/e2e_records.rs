//! Records that an earlier version has written are understood: the pods of them are taken over, none is made anew and
//! nothing that has ended runs again.
//!
//! `fixtures/records-N` holds what version N of the records looked like on the disk, with `@IMAGE@` and `@DIGEST@` for
//! what differs from one machine to the next. A new version of the records adds a directory and changes no old one;
//! `MAINSTAY_KEEP_RECORDS=DIR` writes the present one to DIR.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
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
