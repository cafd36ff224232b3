//! Kinds beyond Pod and Deployment, probes, names and the removal budget, with real containers.

use serde_json::{Value, json};
use tests::manifest::{deployment, pod};
use tests::{Agent, require_root, world};

/// Waits until all containers of a workload have ended; their number.
fn wait_ended(agent: &mut Agent<'_>, name: &str, pods: usize) {
    agent.wait_status(&format!("{pods} pods of {name} have ended"), |status| {
        let all = status.containers(name);
        (all.len() == pods && all.iter().all(|container| container.state == "exited")).then_some(())
    });
}

#[test]
fn a_job_completes_and_never_runs_again() {
    if !require_root("a_job_completes_and_never_runs_again") {
        return;
    }
    let (sandbox, _registry, image) = world("job");
    let mut template = pod("x", &image, &["exit", "0"]);
    template["spec"]["restartPolicy"] = json!("Never");
    let job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "sums"},
        "spec": {"completions": 2, "parallelism": 1, "template": {"spec": template["spec"]}},
    });
    sandbox.write("job.json", &job.to_string());
    let mut agent = Agent::start(&sandbox);
    wait_ended(&mut agent, "sums", 2);
    let uids = |agent: &mut Agent<'_>| {
        let mut uids: Vec<String> =
            agent.status().workload("sums").expect("it is listed").pods.iter().map(|p| p.uid.clone()).collect();
        uids.sort();
        uids
    };
    let before = uids(&mut agent);
    agent.kill9();
    agent.start_again();
    agent.wait_status("the Job is known again", |status| {
        status.workload("sums").filter(|w| w.phase == "Succeeded").map(|_| ())
    });
    assert_eq!(uids(&mut agent), before);
}

#[test]
fn the_volume_of_a_set_survives_a_replacement() {
    if !require_root("the_volume_of_a_set_survives_a_replacement") {
        return;
    }
    let (sandbox, _registry, image) = world("set");
    let set = |version: &str| {
        let mut template = pod("x", &image, &["sleep"]);
        template["metadata"] = json!({"labels": {"app": "db"}});
        template["spec"]["containers"][0]["env"] = json!([{"name": "VERSION", "value": version}]);
        template["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        json!({
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "db"},
            "spec": {
                "replicas": 2,
                "serviceName": "db",
                "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": template["metadata"], "spec": template["spec"]},
                "volumeClaimTemplates": [{
                    "metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
                }],
            },
        })
        .to_string()
    };
    sandbox.write("set.json", &set("1"));
    let mut agent = Agent::start(&sandbox);
    let before = agent.wait_ready("db", 2);
    agent.cli(&["exec", "db-1", "--", "/bin/fixture", "write", "/data/kept", "for good"]).ok();
    sandbox.write("set.json", &set("2"));
    agent.wait_status("both pods are replaced", |status| {
        let now = status.pids("db");
        (now.len() == 2 && now.iter().all(|pid| !before.contains(pid))).then_some(())
    });
    let kept = agent.cli(&["exec", "db-1", "--", "/bin/fixture", "cat", "/data/kept"]).ok().stdout;
    assert_eq!(kept.trim_end(), "for good");
    let other = agent.cli(&["exec", "db-0", "--", "/bin/fixture", "cat", "/data/kept"]);
    assert_ne!(other.code, 0, "each ordinal has a volume of its own");
}

#[test]
fn a_service_gives_a_name_that_resolves() {
    if !require_root("a_service_gives_a_name_that_resolves") {
        return;
    }
    let (sandbox, _registry, image) = world("names");
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 8080}]},
    });
    sandbox.write("service.json", &service.to_string());
    sandbox.write("web.json", &deployment("web", 2, &image, &["serve"]).to_string());
    sandbox.write("asks.json", &pod("asks", &image, &["sleep"]).to_string());
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("web", 2);
    agent.wait_ready("asks", 1);
    for name in ["web", "web.default.svc.cluster.local"] {
        agent.wait_for("the name resolves", tests::agent::SOON, |agent| {
            let hosts = agent.cli(&["exec", "asks", "--", "/bin/fixture", "cat", "/etc/hosts"]).stdout;
            (hosts.lines().filter(|line| line.split_whitespace().any(|word| word == name)).count() == 2).then_some(())
        });
    }
}

#[test]
fn probes_decide_on_readiness_and_life() {
    if !require_root("probes_decide_on_readiness_and_life") {
        return;
    }
    let (sandbox, _registry, image) = world("probes");
    let with = |name: &str, probe: &str, value: Value| {
        let mut wanted = pod(name, &image, &["serve"]);
        wanted["spec"]["containers"][0][probe] = value;
        sandbox.write(&format!("{name}.json"), &wanted.to_string());
    };
    with("serves", "readinessProbe", json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}));
    // Asked inside of the pod: nobody listens there on this host.
    let inside = json!({"httpGet": {"host": "127.0.0.1", "path": "/", "port": 8080}, "periodSeconds": 1});
    with("inside", "readinessProbe", inside);
    with("mute", "readinessProbe", json!({"tcpSocket": {"port": 9}, "periodSeconds": 1}));
    let failing =
        json!({"exec": {"command": ["/bin/fixture", "exit", "3"]}, "periodSeconds": 1, "failureThreshold": 1});
    with("sick", "livenessProbe", failing);
    let mut agent = Agent::start(&sandbox);
    agent.wait_ready("serves", 1);
    agent.wait_ready("inside", 1);
    agent.wait_status("the sick one was started again", |status| {
        status.containers("sick").first().filter(|container| container.restarts > 0).map(|_| ())
    });
    let status = agent.status();
    assert_eq!(status.workload("mute").expect("it is listed").ready, 0);
    assert_eq!(status.containers("mute").first().map(|c| (c.state.as_str(), c.restarts)), Some(("running", 0)));
}

#[test]
fn a_mass_removal_waits_for_approval() {
    if !require_root("a_mass_removal_waits_for_approval") {
        return;
    }
    let (sandbox, _registry, image) = world("budget");
    for index in 0..5 {
        let name = format!("w{index}");
        let dir = if index == 0 { "" } else { "apps/" };
        sandbox.write(&format!("{dir}{name}.json"), &pod(&name, &image, &["sleep"]).to_string());
    }
    let mut agent = Agent::start(&sandbox);
    for index in 0..5 {
        agent.wait_ready(&format!("w{index}"), 1);
    }
    let before: Vec<Vec<i32>> = (1..5).map(|index| agent.status().pids(&format!("w{index}"))).collect();
    // All but one go in one change.
    std::fs::rename(sandbox.manifests().join("apps"), sandbox.manifests().join(".apps")).expect("it can be renamed");
    agent.wait_status("the removal is held", |status| {
        (1..5).all(|index| status.is_held(&format!("w{index}"))).then_some(())
    });
    let now: Vec<Vec<i32>> = (1..5).map(|index| agent.status().pids(&format!("w{index}"))).collect();
    assert_eq!(now, before, "they run on");
    let text = serde_json::to_string(&agent.json(&["status"])).expect("a value is JSON");
    let id =
        text.split("mainstay approve ").nth(1).and_then(|rest| rest.split(['`', '"']).next()).expect("an id is named");
    agent.cli(&["approve", id]).ok();
    agent.wait_status("the held ones are gone", |status| {
        (1..5).all(|index| status.workload(&format!("w{index}")).is_none()).then_some(())
    });
    assert_eq!(agent.status().pids("w0").len(), 1);
}
