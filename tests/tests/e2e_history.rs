//! What the node was, why it is as it is, and what people hold: generations, pauses, drains, approvals, and an agent
//! that finds its own state damaged.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::agent::SOON;
use tests::image::fixture_builder;
use tests::manifest::{deployment, pod, web};
use tests::{Agent, require_root, world};

/// Whether a change of a workload is held back.
fn waits(agent: &Agent<'_>, name: &str) -> bool {
    let status = agent.json(&["status"]);
    let workloads = status["workloads"].as_array().cloned().unwrap_or_default();
    let waiting =
        workloads.into_iter().find(|workload| workload["name"] == name).map(|found| found["waiting"].to_string());
    waiting.is_some_and(|waiting| waiting.contains("paused"))
}

fn generations(agent: &Agent<'_>) -> Vec<u64> {
    let history = agent.json(&["history"]);
    history.as_array().into_iter().flatten().filter_map(|generation| generation["number"].as_u64()).collect()
}

#[test]
fn a_rollback_works_without_a_registry_and_holds_the_source() {
    if !require_root("a_rollback_works_without_a_registry_and_holds_the_source") {
        return;
    }
    let (sandbox, registry, one) = world("generations");
    let two = registry.push("app:2", &fixture_builder().env(&["MORE=yes"]).build());
    sandbox.write("web.yaml", &web("web", &one, "one", 8080));
    let mut agent = Agent::start(&sandbox);
    agent.wait_page(8080, "/", |body| body == "one\n");
    let newest = |agent: &mut Agent<'_>, least: usize| {
        agent.wait_for("a generation is written", SOON, |agent| {
            let found = generations(agent);
            (found.len() >= least).then_some(found)
        })
    };
    assert_eq!(newest(&mut agent, 1), [1]);
    sandbox.write("web.yaml", &web("web", &two, "two", 8080));
    agent.wait_page(8080, "/", |body| body == "two\n");
    assert_eq!(newest(&mut agent, 2), [1, 2]);

    let diff = agent.cli(&["diff", "1", "2"]);
    assert_eq!(diff.code, 1, "{diff:?}");
    assert!(diff.stdout.contains("changed Pod/default/web") && diff.stdout.contains("app:2"), "{}", diff.stdout);
    assert_eq!(agent.cli(&["diff", "2", "2"]).code, 0);
    assert_eq!(agent.cli(&["diff", "1", "9"]).code, 2);

    // Pruning everything spares what a generation needs; then the registry goes.
    agent.cli(&["prune", "--older-than", "0s", "--loaded"]).ok();
    drop(registry);
    agent.cli(&["rollback", "1"]).ok();
    agent.wait_page(8080, "/", |body| body == "one\n");
    let status = agent.json(&["status"]);
    assert_eq!(status["rolledBackTo"], json!(1), "{status:#}");
    // It stays there over a restart of the agent, and while the source says the same as before.
    let pids = vec![agent.wait_ready("web", 1)];
    agent.restart();
    agent.assert_untouched(&["web"], &pids, Duration::from_millis(500));
    // The source changes: it counts again.
    sandbox.write("web.yaml", &web("web", &two, "three", 8080));
    agent.wait_page(8080, "/", |body| body == "three\n");
    assert_eq!(agent.json(&["status"])["rolledBackTo"], Value::Null);
    // And by hand.
    agent.cli(&["rollback", "2"]).ok();
    agent.wait_page(8080, "/", |body| body == "two\n");
    agent.cli(&["resume"]).ok();
    agent.wait_page(8080, "/", |body| body == "three\n");
    assert_eq!(agent.cli(&["rollback", "77"]).code, 2);
    // A person removed what generation 1 needs: the pod that runs is not ended for it.
    agent.cli(&["prune", "--named", "--older-than", "0s", "--loaded"]).ok();
    let pids = vec![agent.wait_ready("web", 1)];
    agent.cli(&["rollback", "1"]).ok();
    agent.wait_for("it says what is missing", SOON, |agent| {
        let status = agent.json(&["status", "web"]).to_string();
        status.contains("is not in the store").then_some(())
    });
    agent.assert_untouched(&["web"], &pids, Duration::from_millis(500));
    agent.cli(&["resume"]).ok();
    agent.wait_for("nothing is waited for", SOON, |agent| {
        let status = agent.json(&["status", "web"]).to_string();
        (!status.contains("is not in the store")).then_some(())
    });
    agent.assert_untouched(&["web"], &pids, Duration::from_millis(1));
}

#[test]
fn a_pause_holds_changes_and_healing_goes_on() {
    if !require_root("a_pause_holds_changes_and_healing_goes_on") {
        return;
    }
    let (sandbox, _registry, image) = world("pause");
    sandbox.write("a.yaml", &web("a", &image, "one", 8081));
    sandbox.write("b.yaml", &web("b", &image, "one", 8082));
    let mut agent = Agent::start(&sandbox);
    agent.wait_page(8081, "/", |body| body == "one\n");
    agent.wait_page(8082, "/", |body| body == "one\n");
    agent.cli(&["pause", "a"]).ok();
    sandbox.write("a.yaml", &web("a", &image, "two", 8081));
    sandbox.write("b.yaml", &web("b", &image, "two", 8082));
    agent.wait_page(8082, "/", |body| body == "two\n");
    agent.wait_for("the change waits", SOON, |agent| waits(agent, "a").then_some(()));
    let plan = agent.cli(&["plan"]);
    assert!(plan.code == 1 && plan.stdout.contains("a change waits"), "{plan:?}");
    // Killed: it comes back as it was, also with another agent.
    let before = agent.status().pids("a");
    kill(Pid::from_raw(before[0]), Signal::SIGKILL).expect("it runs");
    let healed = agent.wait_status("it is healed", |status| {
        let now = status.pids("a");
        (now.len() == 1 && now != before).then_some(now)
    });
    agent.restart();
    agent.wait_for("the change waits", SOON, |agent| {
        agent.cli(&["plan"]).stdout.contains("a change waits").then_some(())
    });
    agent.assert_untouched(&["a"], std::slice::from_ref(&healed), Duration::from_millis(300));
    assert_eq!(tests::http::get(("127.0.0.1", 8081), "/").expect("it serves").text(), "one\n");
    // Its file gone: that waits too.
    sandbox.remove("a.yaml");
    agent.wait_for("the removal is seen", SOON, |agent| {
        (agent.json(&["status"])["sources"][0]["files"] == json!(1)).then_some(())
    });
    agent.assert_untouched(&["a"], &[healed], Duration::from_millis(600));
    sandbox.write("a.yaml", &web("a", &image, "three", 8081));
    agent.cli(&["resume", "a"]).ok();
    agent.wait_page(8081, "/", |body| body == "three\n");
    assert_eq!(agent.cli(&["resume", "a"]).code, 2, "it is not paused any more");
}

#[test]
fn windows_and_lock_files_hold_changes_back() {
    if !require_root("windows_and_lock_files_hold_changes_back") {
        return;
    }
    let (sandbox, _registry, image) = world("windows");
    let volume = sandbox.dir().join("volume");
    std::fs::create_dir(&volume).expect("the directory is ours");
    let write = |version: &str, window: &str| {
        let mut a = pod("a", &image, &["sleep"]);
        a["metadata"]["annotations"] = json!({"mainstay/maintenance-window": window});
        a["spec"]["containers"][0]["env"] = json!([{"name": "V", "value": version}]);
        sandbox.write("a.json", &a.to_string());
        let mut b = pod("b", &image, &["sleep"]);
        b["metadata"]["annotations"] = json!({"mainstay/hold-while-file": "v/backup.lock"});
        b["spec"]["volumes"] = json!([{"name": "v", "hostPath": {"path": volume, "type": "Directory"}}]);
        b["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/data"}]);
        b["spec"]["containers"][0]["env"] = json!([{"name": "V", "value": version}]);
        sandbox.write("b.json", &b.to_string());
    };
    write("1", "00:00-00:00");
    let mut agent = Agent::start(&sandbox);
    let pids = vec![agent.wait_ready("a", 1), agent.wait_ready("b", 1)];
    std::fs::write(volume.join("backup.lock"), "").expect("the directory is ours");
    // A window that was 12 hours ago.
    let hour = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs() / 3600;
    let (from, to) = ((hour + 12) % 24, (hour + 13) % 24);
    write("2", &format!("{from:02}:00-{to:02}:00"));
    agent.wait_for("both wait", SOON, |agent| (waits(agent, "a") && waits(agent, "b")).then_some(()));
    agent.assert_untouched(&["a", "b"], &pids, Duration::from_millis(500));
    std::fs::remove_file(volume.join("backup.lock")).expect("it is there");
    agent.wait_status("the one without its lock goes on", |status| {
        let now = status.pids("b");
        (now.len() == 1 && now != pids[1]).then_some(())
    });
    assert_eq!(agent.status().pids("a"), pids[0]);
    write("2", "00:00-00:00");
    agent.wait_status("the other one goes on", |status| {
        let now = status.pids("a");
        (now.len() == 1 && now != pids[0]).then_some(())
    });
}

#[test]
fn why_tells_the_chain_from_cause_to_effect() {
    if !require_root("why_tells_the_chain_from_cause_to_effect") {
        return;
    }
    let (sandbox, _registry, image) = world("why");
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let mut agent = Agent::start(&sandbox);
    agent.wait_page(8080, "/", |body| body == "one\n");
    sandbox.write("web.yaml", &web("web", &image, "two", 8080));
    agent.wait_page(8080, "/", |body| body == "two\n");
    let pid = agent.status().pids("web")[0];
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
    agent.wait_status("it runs again", |status| (status.containers("web").first()?.restarts >= 1).then_some(()));
    let check = |why: &Value| {
        let events = why["events"].as_array().expect("a list of events");
        let find = |reason: &str, text: &str| {
            let fits = |event: &&Value| {
                event["reason"] == reason && event["message"].as_str().is_some_and(|message| message.contains(text))
            };
            events.iter().rev().find(fits).unwrap_or_else(|| panic!("no {reason} with {text}: {why:#}"))
        };
        let changed = find("source_changed", "two");
        assert!(changed["message"].as_str().is_some_and(|message| message.contains("web.yaml: ")), "{changed}");
        let created = find("missing", "create pod");
        assert_eq!(created["cause"], changed["number"], "{why:#}");
        let exit = find("exited", "was ended by signal 9");
        let again = find("exited", "start container main of pod web again");
        assert_eq!(again["cause"], exit["number"], "{why:#}");
        // The removal at the end is one more exit.
        assert!(why["lastExit"]["number"].as_u64() >= exit["number"].as_u64(), "{why:#}");
    };
    check(&agent.json(&["why", "web"]));
    let text = agent.cli(&["why", "web"]).ok().stdout;
    assert!(text.contains("waits for: nothing") && text.contains("last exit: "), "{text}");
    // The record outlives the agent, and the workload.
    agent.kill9();
    check(&sandbox.json(&["why", "web"]));
    agent.start_again();
    sandbox.remove("web.yaml");
    agent.wait_status("it is gone", |status| status.workload("web").is_none().then_some(()));
    check(&agent.json(&["why", "Pod/default/web"]));
    assert_eq!(agent.cli(&["why", "nothing"]).code, 2);
}

#[test]
fn a_drained_node_stays_empty_until_it_is_uncordoned() {
    if !require_root("a_drained_node_stays_empty_until_it_is_uncordoned") {
        return;
    }
    let (sandbox, _registry, image) = world("drain");
    sandbox.write("a.json", &deployment("a", 2, &image, &["serve"]).to_string());
    let mut done = pod("done", &image, &["exit", "0"]);
    done["spec"]["restartPolicy"] = json!("Never");
    sandbox.write("done.json", &done.to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("a", 2);
    let over = |agent: &mut Agent<'_>| {
        agent.wait_status("the short one is over", |status| {
            let workload = status.workload("done")?;
            (workload.phase == "Succeeded").then(|| workload.pods.first().map(|pod| pod.uid.clone())).flatten()
        })
    };
    let uid = over(&mut agent);
    agent.cli(&["drain"]).ok();
    assert_eq!(agent.status().pids("a"), Vec::<i32>::new());
    agent.restart();
    agent.assert_untouched(&["a"], &[vec![]], Duration::from_millis(500));
    agent.cli(&["uncordon"]).ok();
    agent.wait_ready("a", 2);
    assert_eq!(over(&mut agent), uid, "what was over did not run again");
}

#[test]
fn an_approval_outlives_the_agent() {
    if !require_root("an_approval_outlives_the_agent") {
        return;
    }
    let (sandbox, _registry, image) = world("approval");
    for index in 0..5 {
        sandbox.write(&format!("w{index}.json"), &pod(&format!("w{index}"), &image, &["sleep"]).to_string());
    }
    let mut agent = Agent::start(&sandbox);
    for index in 0..5 {
        agent.wait_ready(&format!("w{index}"), 1);
    }
    for index in 1..5 {
        sandbox.remove(&format!("w{index}.json"));
    }
    let id = agent.wait_for("the removal is held", SOON, |agent| {
        let plan = agent.json(&["plan"]);
        let removal = &plan["removal"];
        (removal["workloads"].as_array()?.len() == 4).then(|| removal["id"].as_str().map(str::to_owned)).flatten()
    });
    let plan = agent.cli(&["plan"]);
    assert!(plan.code == 1 && plan.stdout.contains(&format!("mainstay approve {id}")), "{plan:?}");
    // Held ones are healed like all others.
    let pids = agent.status().pids("w1");
    kill(Pid::from_raw(pids[0]), Signal::SIGKILL).expect("it runs");
    agent.wait_status("it is healed", |status| {
        (status.pids("w1").len() == 1 && status.pids("w1") != pids).then_some(())
    });
    // Killed right behind the approval: what is left of the removal is not held again.
    let kept = agent.status().pids("w0");
    agent.cli(&["approve", &id]).ok();
    agent.restart();
    // An agent that has just started knows of none of the five.
    agent.wait_status("the four are gone", |status| {
        let gone = (1..5).all(|index| status.workload(&format!("w{index}")).is_none());
        (gone && !status.pids("w0").is_empty()).then_some(())
    });
    assert_eq!(agent.status().pids("w0"), kept);
    assert!(agent.json(&["events", "-n", "500"]).to_string().contains("removal_approved"));
}

/// Every file of the agent's own state, deleted and damaged one by one, with containers running all the while.
#[test]
fn state_that_is_lost_or_damaged_stops_nothing() {
    if !require_root("state_that_is_lost_or_damaged_stops_nothing") {
        return;
    }
    let (sandbox, _registry, image) = world("damage");
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "hunter2"}});
    sandbox.write("secret.json", &secret.to_string());
    let mut b = pod("b", &image, &["sleep"]);
    b["spec"]["containers"][0]["env"] =
        json!([{"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}}]);
    sandbox.write("b.json", &b.to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_page(8080, "/", |body| body == "one\n");
    let pids = vec![agent.wait_ready("web", 1), agent.wait_ready("b", 1)];
    agent.wait_for("a generation is written", SOON, |agent| (!generations(agent).is_empty()).then_some(()));
    agent.cli(&["pause"]).ok();
    agent.cli(&["resume"]).ok();
    let files = [
        "orders.json",
        "sources.json",
        "last-good.sealed",
        "node.key",
        "generations/1.sealed",
        "generations/1.json",
        "events/current.jsonl",
        "lock",
    ];
    for file in files {
        let path = sandbox.data().join(file);
        for damage in ["deleted", "damaged"] {
            agent.kill9();
            assert!(damage == "damaged" || path.exists(), "{file} is one of the agent's files");
            if damage == "deleted" {
                std::fs::remove_file(&path).expect("it is there");
            } else {
                std::fs::write(&path, b"\x00{damaged").expect("the directory is ours");
            }
            agent.start_again();
            agent.wait_for("the sources were read", SOON, |agent| {
                let status = agent.json(&["status"]);
                (status["passes"] != json!(0) && status["converged"] == json!(true)).then_some(())
            });
            let status = agent.status();
            let now = vec![status.pids("web"), status.pids("b")];
            assert_eq!(now, pids, "{file} {damage}\n{}", agent.tail());
            assert_eq!(
                tests::http::get(("127.0.0.1", 8080), "/").expect("it serves").text(),
                "one\n",
                "{file} {damage}"
            );
        }
    }
    agent.stop();
    sandbox.down();
    agent.start_again();
    agent.wait_page(8080, "/", |body| body == "one\n");
}
