//! Sources that lie: unmounted, half-written, emptied, in the middle of a checkout. What runs stays as it is until
//! there is evidence that something else is meant.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tests::git::Repository;
use tests::manifest::pod;
use tests::{Agent, require_root, world};

fn mount_tmpfs(at: &Path) {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("root mounts a tmpfs");
}

fn source(agent: &Agent<'_>) -> (String, String, Option<String>) {
    let status = agent.json(&["status"]);
    let source = &status["sources"][0];
    let text = |key: &str| source[key].as_str().unwrap_or_default().to_owned();
    (text("state"), source["errors"].to_string(), source["approve"].as_str().map(str::to_owned))
}

#[test]
fn an_unmounted_source_is_an_error_and_no_wish() {
    if !require_root("an_unmounted_source_is_an_error_and_no_wish") {
        return;
    }
    let (sandbox, _registry, image) = world("unmounted");
    let manifests = sandbox.manifests();
    let fill = || {
        for name in ["a", "b"] {
            sandbox.write(&format!("{name}.json"), &pod(name, &image, &["sleep"]).to_string());
        }
    };
    mount_tmpfs(&manifests);
    fill();
    // Nothing tells that a file system goes: the directory is looked at every second here.
    let mut agent = Agent::start_with(&sandbox, &["--resync", "1s"], &[]);
    let pids = vec![agent.wait_ready("a", 1), agent.wait_ready("b", 1)];

    // The file system goes; the empty directory below it is what is left.
    umount2(&manifests, MntFlags::MNT_DETACH).expect("it is mounted");
    let failed = |agent: &mut Agent<'_>| {
        agent.wait_for("the source has failed", Duration::from_secs(30), |agent| {
            let (state, errors, id) = source(agent);
            (state == "failed" && errors.contains("not mounted any more")).then_some(id).flatten()
        })
    };
    failed(&mut agent);
    agent.assert_untouched(&["a", "b"], &pids, Duration::from_millis(500));
    // An agent that starts now has never seen the file system.
    agent.restart();
    failed(&mut agent);
    agent.assert_untouched(&["a", "b"], &pids, Duration::from_millis(500));
    // Back: all well, nothing restarted.
    mount_tmpfs(&manifests);
    fill();
    agent.wait_for("the source is well", Duration::from_secs(30), |agent| (source(agent).0 == "ok").then_some(()));
    agent.assert_untouched(&["a", "b"], &pids, Duration::from_millis(300));
    // Gone for good: a person says so.
    umount2(&manifests, MntFlags::MNT_DETACH).expect("it is mounted");
    let id = failed(&mut agent);
    agent.cli(&["approve", &id]).ok();
    agent.wait_status("both are gone", |status| {
        (status.workload("a").is_none() && status.workload("b").is_none()).then_some(())
    });
    assert_eq!(source(&agent).0, "ok");
}

#[test]
fn a_directory_made_anew_and_empty_is_doubted() {
    if !require_root("a_directory_made_anew_and_empty_is_doubted") {
        return;
    }
    let (sandbox, _registry, image) = world("anew");
    sandbox.write("a.json", &pod("a", &image, &["sleep"]).to_string());
    let mut agent = Agent::start(&sandbox);
    let pids = vec![agent.wait_ready("a", 1)];
    agent.kill9();
    std::fs::rename(sandbox.manifests(), sandbox.dir().join("away")).expect("it can be renamed");
    std::fs::create_dir(sandbox.manifests()).expect("it can be made");
    agent.start_again();
    agent.wait_for("the source has failed", Duration::from_secs(30), |agent| {
        let (state, errors, _) = source(agent);
        (state == "failed" && errors.contains("another directory")).then_some(())
    });
    agent.assert_untouched(&["a"], &pids, Duration::from_millis(300));
    // The same directory, emptied by hand, is a wish.
    std::fs::remove_dir(sandbox.manifests()).expect("it is empty");
    std::fs::rename(sandbox.dir().join("away"), sandbox.manifests()).expect("it can be renamed");
    agent.wait_for("the source is well", Duration::from_secs(30), |agent| (source(agent).0 == "ok").then_some(()));
    sandbox.remove("a.json");
    agent.wait_status("it is gone", |status| status.workload("a").is_none().then_some(()));
}

#[test]
fn files_that_are_being_written_are_not_acted_on() {
    if !require_root("files_that_are_being_written_are_not_acted_on") {
        return;
    }
    let (sandbox, _registry, image) = world("writing");
    let [one, two] = ["one", "two"].map(|name| pod(name, &image, &["sleep"]).to_string());
    let both = format!("{one}\n---\n{two}\n");
    sandbox.write("both.yaml", &both);
    sandbox.write("other.json", &pod("other", &image, &["sleep"]).to_string());
    let mut agent = Agent::start(&sandbox);
    let pids = vec![agent.wait_ready("one", 1), agent.wait_ready("two", 1)];
    agent.wait_ready("other", 1);
    let path = sandbox.manifests().join("both.yaml");

    // A slow writer: the second object is missing for more than a second, while another file changes.
    let mut file = std::fs::File::create(&path).expect("the directory is ours");
    file.write_all(one.as_bytes()).expect("written");
    file.flush().expect("written");
    sandbox.remove("other.json");
    agent.assert_untouched(&["one", "two"], &pids, Duration::from_millis(1200));
    file.write_all(format!("\n---\n{two}\n").as_bytes()).expect("written");
    drop(file);
    agent.wait_status("the other change is seen", |status| status.workload("other").is_none().then_some(()));
    agent.assert_untouched(&["one", "two"], &pids, Duration::from_millis(200));

    // Cut to nothing, as a full disk leaves it.
    drop(std::fs::File::create(&path).expect("the directory is ours"));
    agent.wait_status("it is held", |status| (status.is_held("one") && status.is_held("two")).then_some(()));
    assert!(source(&agent).1.contains("the file is empty"), "{:?}", source(&agent));
    agent.assert_untouched(&["one", "two"], &pids, Duration::from_millis(200));
    sandbox.write("both.yaml", &both);
    agent.wait_status("it is well", |status| (!status.is_held("one") && !status.is_held("two")).then_some(()));

    // An editor that renames the old file away and writes a new one leaves a gap.
    for _ in 0..5 {
        std::fs::rename(&path, sandbox.manifests().join("both.yaml~")).expect("it is there");
        std::thread::sleep(Duration::from_millis(100));
        std::fs::write(&path, &both).expect("the directory is ours");
        agent.assert_untouched(&["one", "two"], &pids, Duration::from_millis(100));
    }
    agent.assert_untouched(&["one", "two"], &pids, Duration::from_millis(500));
}

fn git(dir: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .current_dir(dir)
        .env("HOME", dir)
        .output()
        .expect("git is here");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_checkout_in_place_is_one_change() {
    if !require_root("a_checkout_in_place_is_one_change") {
        return;
    }
    if Command::new("git").arg("--version").output().is_err() {
        tests::sandbox::skipped("a_checkout_in_place_is_one_change", "git is not here");
        return;
    }
    let (sandbox, _registry, image) = world("checkout");
    let manifests = sandbox.manifests();
    let write = |version: &str| {
        for index in 0..150 {
            let map = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{index}")},
                "data": {"version": version}});
            sandbox.write(&format!("maps/c{index:03}.json"), &map.to_string());
        }
        for name in ["a", "b", "c"] {
            let mut pod = pod(name, &image, &["sleep"]);
            let from = |map: &str| serde_json::json!({"name": map.to_uppercase(), "valueFrom": {"configMapKeyRef": {"name": map, "key": "version"}}});
            pod["spec"]["containers"][0]["env"] = serde_json::json!([from("c1"), from("c149")]);
            sandbox.write(&format!("{name}.json"), &pod.to_string());
        }
    };
    git(&manifests, &["init", "-q", "-b", "one"]);
    write("one");
    git(&manifests, &["add", "."]);
    git(&manifests, &["commit", "-q", "-m", "one"]);
    git(&manifests, &["checkout", "-q", "-b", "two"]);
    write("two");
    git(&manifests, &["commit", "-q", "-a", "-m", "two"]);
    git(&manifests, &["checkout", "-q", "one"]);
    let mut agent = Agent::start(&sandbox);
    let names = ["a", "b", "c"];
    let mut pids: Vec<Vec<i32>> = names.iter().map(|name| agent.wait_ready(name, 1)).collect();

    // A git that was stopped in the middle: half of the files are gone, and its lock is there.
    std::fs::write(manifests.join(".git/index.lock"), "").expect("the directory is ours");
    for name in ["a.json", "b.json", "maps/c001.json"] {
        sandbox.remove(name);
    }
    agent.assert_untouched(&names, &pids, Duration::from_millis(2500));
    std::fs::remove_file(manifests.join(".git/index.lock")).expect("it is there");
    git(&manifests, &["checkout", "-q", "-f", "one"]);
    agent.assert_untouched(&names, &pids, Duration::from_millis(500));

    // Real ones: each is one replacement of each pod, never a pod between two states.
    for branch in ["two", "one", "two"] {
        let created = |agent: &Agent<'_>| {
            let events = agent.json(&["events", "-n", "10000"]);
            let made =
                |event: &&serde_json::Value| event["message"].as_str().is_some_and(|m| m.starts_with("create pod"));
            events.as_array().map_or(0, |events| events.iter().filter(made).count())
        };
        let before = created(&agent);
        git(&manifests, &["checkout", "-q", branch]);
        let old = pids.clone();
        pids = agent.wait_status("all are replaced", |status| {
            let now: Vec<Vec<i32>> = names.iter().map(|name| status.pids(name)).collect();
            let new = now.iter().zip(&old).all(|(now, old)| now.len() == 1 && now != old);
            new.then_some(now)
        });
        agent.assert_untouched(&names, &pids, Duration::from_millis(400));
        assert_eq!(created(&agent) - before, 3, "each was replaced once");
    }
}

#[test]
fn a_remote_that_was_never_fetched_takes_the_place_of_nothing() {
    if !require_root("a_remote_that_was_never_fetched_takes_the_place_of_nothing") {
        return;
    }
    let (sandbox, _registry, image) = world("moved");
    let pod = |name: &str| pod(name, &image, &["sleep"]).to_string();
    let names = ["a", "b", "c"];
    for name in names {
        sandbox.write(&format!("{name}.json"), &pod(name));
    }
    let config = sandbox.dir().join("config.toml");
    let configure = |text: &str| std::fs::write(&config, text).expect("the directory is ours");
    let repository = sandbox.dir().join("fleet");
    let follow_at = |name: &str, url: &Path| {
        configure(&format!("[[git]]\nname = '{name}'\nurl = '{}'\npoll = '1h'\n", url.display()))
    };
    let follow = |name: &str| follow_at(name, &repository);
    // While the agent executes itself anew, questions are refused.
    let complains = |agent: &mut Agent<'_>, held: &str| {
        agent.wait_for("the remote is complained about", Duration::from_secs(30), |agent| {
            let told = agent.cli(&["status"]).stdout;
            (told.contains("cannot ask") && told.contains(held)).then_some(())
        });
    };
    configure(&format!("sources = ['{}']\n", sandbox.manifests().display()));
    let mut agent = Agent::start_configured(&sandbox, &config);
    let mut pids: Vec<Vec<i32>> = names.iter().map(|name| agent.wait_ready(name, 1)).collect();

    // The first remote is named; there is nothing behind it yet.
    follow("fleet");
    complains(&mut agent, "3 held");
    agent.assert_untouched(&names, &pids, Duration::from_millis(1500));
    agent.restart();
    complains(&mut agent, "3 held");
    agent.assert_untouched(&names, &pids, Duration::from_millis(500));
    // It can be fetched, and counts: one of the three is not in it.
    let remote = Repository::new(repository.clone());
    remote.commit("a.json", &pod("a"), None);
    remote.commit("b.json", &pod("b"), None);
    agent.cli(&["sync"]).ok();
    agent.wait_status("the repository counts", |status| {
        (status.workload("c").is_none() && !status.is_held("a") && !status.is_held("b")).then_some(())
    });
    pids.truncate(2);
    agent.assert_untouched(&names[..2], &pids, Duration::from_millis(300));

    // The same under another name, while it cannot be asked.
    let away = sandbox.dir().join("away");
    std::fs::rename(&repository, &away).expect("it is there");
    follow("company");
    complains(&mut agent, "2 held");
    agent.assert_untouched(&names[..2], &pids, Duration::from_millis(1500));
    std::fs::rename(&away, &repository).expect("it is there");
    agent.cli(&["sync"]).ok();
    agent.wait_status("it counts", |status| (!status.is_held("a") && !status.is_held("b")).then_some(()));
    agent.assert_untouched(&names[..2], &pids, Duration::from_millis(300));

    // The name is given to another repository: what is there stays, and is not told of that one.
    follow_at("company", &away);
    complains(&mut agent, &format!("; the files of {}#HEAD at ", repository.display()));
    agent.assert_untouched(&names[..2], &pids, Duration::from_millis(300));
    let source = &agent.json(&["status"])["sources"][0];
    assert!(source["revision"].is_null() && source["lastSuccess"].is_null(), "{source}");
    assert_eq!(agent.stop(), 0);
    sandbox.down();
    sandbox.assert_clean();
}
