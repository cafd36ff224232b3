//! The main job, end to end: a manifest file becomes a served page, and follows the file for its whole life.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tests::agent::{SOON, poll};
use tests::image::{fixture_image, write_oci_archive};
use tests::manifest::{deployment, pod, web};
use tests::{Agent, Sandbox, require_root, world};

/// Whether nobody listens on a port of this host: neither a process nor a rule.
fn port_is_free(port: u16) -> bool {
    use std::io::ErrorKind::ConnectionRefused;
    tests::http::get(("127.0.0.1", port), "/").is_err_and(|e| e.kind() == ConnectionRefused)
}

#[test]
fn a_manifest_lives_its_whole_life() {
    if !require_root("a_manifest_lives_its_whole_life") {
        return;
    }
    let (sandbox, registry, image) = world("life");
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let mut agent = Agent::start(&sandbox);

    // Pulled, started, published.
    agent.wait_page(8080, "/", |body| body == "one\n");
    let first = agent.wait_ready("web", 1);
    assert_eq!(first.len(), 1);
    let layer = fixture_image().layers[0].clone();
    assert_eq!(registry.count(&layer), 1, "one layer is fetched once");

    // An edit replaces it.
    sandbox.write("web.yaml", &web("web", &image, "two", 8080));
    agent.wait_page(8080, "/", |body| body == "two\n");
    let second = agent.wait_status("the new container alone runs", |status| {
        let pids = status.pids("web");
        (status.workload("web")?.ready == 1 && pids.len() == 1 && pids != first).then_some(pids)
    });
    assert_eq!(registry.count(&layer), 1, "the image is there already");

    // Killed by hand: it comes back.
    kill(Pid::from_raw(second[0]), Signal::SIGKILL).expect("the container runs");
    let third = agent.wait_status("the container runs again", |status| {
        let pids = status.pids("web");
        let restarts = status.containers("web").first()?.restarts;
        (pids.len() == 1 && pids != second && restarts >= 1).then_some(pids)
    });
    agent.wait_page(8080, "/", |body| body == "two\n");

    // The agent killed and started again: the same processes, served all the while.
    agent.kill9();
    assert_eq!(tests::http::get(("127.0.0.1", 8080), "/").expect("it serves without the agent").text(), "two\n");
    agent.start_again();
    assert_eq!(agent.wait_ready("web", 1), third);
    agent.wait_page(8080, "/", |body| body == "two\n");

    // The file broken: it keeps running, and the status says where and why.
    sandbox.write("web.yaml", &web("web", &image, "three", 8080).replace("kind: Pod", "kind: [Pod"));
    agent.wait_status("the file is complained about", |status| status.errors().contains("web.yaml").then_some(()));
    let status = agent.status();
    assert!(status.is_held("web"), "{:?}", status.workload("web"));
    assert_eq!(status.pids("web"), third);
    assert_eq!(tests::http::get(("127.0.0.1", 8080), "/").expect("it still serves").text(), "two\n");

    // Healed: it goes on.
    sandbox.write("web.yaml", &web("web", &image, "four", 8080));
    agent.wait_page(8080, "/", |body| body == "four\n");

    // The file removed: stopped, and nothing left behind.
    sandbox.remove("web.yaml");
    agent.wait_status("the workload is gone", |status| status.workload("web").is_none().then_some(()));
    agent.assert_no_workloads();
    agent.wait_for("the port is free", SOON, |_| port_is_free(8080).then_some(()));
    if let Some(rules) = sandbox.ruleset() {
        assert!(!rules.contains("8080"), "{rules}");
    }
    assert_eq!(agent.stop(), 0);
    sandbox.down();
    sandbox.assert_clean();
}

#[test]
fn containers_keep_running_without_the_agent_and_are_adopted() {
    if !require_root("containers_keep_running_without_the_agent_and_are_adopted") {
        return;
    }
    let (sandbox, _registry, image) = world("adopt");
    sandbox.write("a.json", &deployment("a", 3, &image, &["serve"]).to_string());
    let mut agent = Agent::start(&sandbox);
    let pids = agent.wait_ready("a", 3);
    let uids = |agent: &Agent<'_>| -> Vec<String> {
        agent.status().workload("a").into_iter().flat_map(|w| &w.pods).map(|pod| pod.uid.clone()).collect()
    };
    let before = uids(&agent);
    for _ in 0..3 {
        agent.restart();
        assert_eq!(agent.wait_ready("a", 3), pids);
        assert_eq!(uids(&agent), before);
    }
    // A container that ends while no agent is there is noticed afterwards.
    agent.kill9();
    kill(Pid::from_raw(pids[0]), Signal::SIGKILL).expect("the container runs");
    agent.start_again();
    agent.wait_status("the third container is back", |status| {
        let now = status.pids("a");
        (now.len() == 3 && !now.contains(&pids[0]) && status.workload("a")?.ready == 3).then_some(())
    });
    assert_eq!(agent.status().pids("a").iter().filter(|pid| pids.contains(pid)).count(), 2);
    // TERM is no different from kill -9 for the workloads.
    let pids = agent.wait_ready("a", 3);
    assert_eq!(agent.stop(), 0);
    agent.start_again();
    assert_eq!(agent.wait_ready("a", 3), pids);
}

#[test]
fn down_works_with_the_agent_dead() {
    if !require_root("down_works_with_the_agent_dead") {
        return;
    }
    let (sandbox, _registry, image) = world("down");
    let volume = sandbox.dir().join("volume");
    std::fs::create_dir(&volume).expect("the directory is ours");
    std::fs::write(volume.join("precious"), "data").expect("the directory is ours");
    let mut precious = pod("keeper", &image, &["sleep", "forever"]);
    precious["spec"]["volumes"] = json!([{"name": "v", "hostPath": {"path": volume, "type": "Directory"}}]);
    precious["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/data"}]);
    sandbox.write("keeper.json", &precious.to_string());
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let mut agent = Agent::start(&sandbox);
    agent.wait_page(8080, "/", |body| body == "one\n");
    agent.wait_ready("keeper", 1);
    agent.kill9();
    assert!(!sandbox.leaks_of_workloads(&[]).is_empty(), "the containers run on");
    sandbox.down();
    sandbox.assert_clean();
    assert_eq!(std::fs::read_to_string(volume.join("precious")).ok().as_deref(), Some("data"));
    // Again: nothing to do is no failure.
    sandbox.down();
}

#[test]
fn a_second_agent_on_the_same_directories_is_refused() {
    if !require_root("a_second_agent_on_the_same_directories_is_refused") {
        return;
    }
    let (sandbox, _registry, image) = world("second");
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let mut agent = Agent::start(&sandbox);
    let pids = agent.wait_ready("web", 1);
    let manifests = sandbox.manifests().display().to_string();
    let second = sandbox.cli(&["run", &manifests]);
    assert_eq!(second.code, 2, "{second:?}");
    assert!(second.stderr.contains("already") || second.stderr.contains("another"), "{}", second.stderr);
    // The first one is not disturbed, and after its end there is room for another.
    assert_eq!(agent.wait_ready("web", 1), pids);
    assert!(agent.exited().is_none());
    agent.restart();
    assert_eq!(agent.wait_ready("web", 1), pids);
}

#[test]
fn a_deployment_is_replaced_without_a_gap() {
    if !require_root("a_deployment_is_replaced_without_a_gap") {
        return;
    }
    let (sandbox, _registry, image) = world("gap");
    let version = |message: &str| {
        let mut wanted = deployment("web", 2, &image, &["serve", "--delay-ms", "300"]);
        let container = &mut wanted["spec"]["template"]["spec"]["containers"][0];
        container["env"] = json!([{"name": "MESSAGE", "value": message}]);
        container["ports"] = json!([{"containerPort": 8080}]);
        container["readinessProbe"] = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1});
        wanted.to_string()
    };
    sandbox.write("web.json", &version("one"));
    let mut agent = Agent::start(&sandbox);
    let old = agent.wait_ready("web", 2);
    sandbox.write("web.json", &version("two"));
    // At every moment at least one ready pod, until only new ones are left.
    agent.wait_status("only new containers run", |status| {
        let found = status.workload("web")?;
        assert!(found.ready >= 1, "a gap: {found:?}");
        let pids = status.pids("web");
        (found.ready == 2 && pids.len() == 2 && pids.iter().all(|pid| !old.contains(pid))).then_some(())
    });
    // Scaled down, one stays as it is.
    let new = agent.status().pids("web");
    sandbox.write("web.json", &version("two").replace("\"replicas\":2", "\"replicas\":1"));
    agent.wait_status("one is left", |status| (status.pids("web").len() == 1).then_some(()));
    assert!(new.contains(&agent.status().pids("web")[0]));
}

/// One manifest of three broken, one gone wrong in its reference: the others are not touched by it.
#[test]
fn neighbours_of_a_broken_file_are_untouched() {
    if !require_root("neighbours_of_a_broken_file_are_untouched") {
        return;
    }
    let (sandbox, registry, image) = world("neighbours");
    let good = pod("good", &image, &["sleep", "forever"]);
    let bad = pod("bad", &image, &["sleep", "forever"]);
    sandbox.write("sub/good.json", &good.to_string());
    sandbox.write("bad.json", &bad.to_string());
    let mut agent = Agent::start(&sandbox);
    let (good_pids, bad_pids) = (agent.wait_ready("good", 1), agent.wait_ready("bad", 1));
    // The new version's image does not exist: nothing is touched until everything is ready.
    let missing = bad.to_string().replace("app:1", "app:missing");
    sandbox.write("bad.json", &missing);
    agent.wait_for("the missing image was asked for", SOON, |_| (registry.count("missing") > 0).then_some(()));
    assert_eq!(agent.status().pids("bad"), bad_pids);
    sandbox.write("bad.json", "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {");
    agent.wait_status("the file is complained about", |status| status.errors().contains("bad.json").then_some(()));
    let status = agent.status();
    assert_eq!((status.pids("bad"), status.pids("good")), (bad_pids, good_pids.clone()));
    // Moving a file is no change.
    std::fs::rename(sandbox.manifests().join("sub/good.json"), sandbox.manifests().join("moved.json"))
        .expect("the directory is ours");
    sandbox.write("third.json", &pod("third", &image, &["sleep", "forever"]).to_string());
    agent.wait_ready("third", 1);
    assert_eq!(agent.status().pids("good"), good_pids);
}

/// The whole directory gone is no wish to stop everything.
#[test]
fn a_vanished_directory_stops_nothing() {
    if !require_root("a_vanished_directory_stops_nothing") {
        return;
    }
    let (sandbox, _registry, image) = world("vanished");
    sandbox.write("a.json", &pod("a", &image, &["sleep", "forever"]).to_string());
    let mut agent = Agent::start(&sandbox);
    let pids = agent.wait_ready("a", 1);
    let away = sandbox.dir().join("away");
    std::fs::rename(sandbox.manifests(), &away).expect("the directory is ours");
    agent.wait_status("the source has failed", |status| {
        status.sources.iter().any(|source| source.state == "failed").then_some(())
    });
    assert_eq!(agent.status().pids("a"), pids);
    // Also for an agent that never saw the directory.
    agent.restart();
    agent.wait_status("the source has failed", |status| {
        status.sources.iter().any(|source| source.state == "failed").then_some(())
    });
    assert_eq!(agent.wait_ready("a", 1), pids);
    let read = agent.metrics().sum("mainstay_source_last_success_timestamp_seconds", &[]);
    assert!(read.is_some_and(|unix| unix > 1e9), "when it was read last is known: {read:?}");
    std::fs::rename(&away, sandbox.manifests()).expect("the directory is ours");
    agent.wait_status("the source is fine", |status| {
        status.sources.iter().all(|source| source.state == "ok").then_some(())
    });
    assert_eq!(agent.status().pids("a"), pids);
}

#[test]
fn an_image_from_a_file_needs_no_registry() {
    if !require_root("an_image_from_a_file_needs_no_registry") {
        return;
    }
    let sandbox = Sandbox::new("offline");
    let archive = sandbox.dir().join("image.tar");
    write_oci_archive(&archive, &[("example.org/app:1", &fixture_image())]).expect("the directory is ours");
    sandbox.cli(&["load", &archive.display().to_string()]).ok();
    let listed = sandbox.cli(&["images"]).ok();
    assert!(listed.stdout.contains("example.org/app"), "{}", listed.stdout);
    sandbox.write("web.yaml", &web("web", "example.org/app:1", "offline", 8080));
    let mut agent = Agent::start(&sandbox);
    agent.wait_page(8080, "/", |body| body == "offline\n");
    // Reached on the pod's own address as well.
    let ip = agent.status().workload("web").and_then(|w| w.pods.first()?.ip.clone()).expect("a pod has an address");
    let direct = poll("the pod's address answers", SOON, || tests::http::get((ip.as_str(), 8080), "/").ok());
    assert_eq!(direct.expect("it answers").text(), "offline\n");
}
