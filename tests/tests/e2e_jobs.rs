//! Jobs and CronJobs with real containers: rules of failure, ends that are remembered, runs by the clock.

use serde_json::{Value, json};
use tests::manifest::pod;
use tests::{Agent, Sandbox, require_root, world};

/// A pod template that runs once, with the sandbox's `volume` at `/data`.
fn template(sandbox: &Sandbox, image: &str, arguments: &[&str]) -> Value {
    let mut template = pod("x", image, arguments);
    template["spec"]["restartPolicy"] = json!("Never");
    template["spec"]["terminationGracePeriodSeconds"] = json!(1);
    template["spec"]["volumes"] =
        json!([{"name": "v", "hostPath": {"path": sandbox.dir().join("volume"), "type": "DirectoryOrCreate"}}]);
    template["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/data"}]);
    json!({"spec": template["spec"]})
}

fn lines(sandbox: &Sandbox, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(sandbox.dir().join("volume").join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn jobs_end_by_their_rules_and_stay_ended() {
    if !require_root("jobs_end_by_their_rules_and_stay_ended") {
        return;
    }
    let (sandbox, _registry, image) = world("jobs");
    let policy = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]});
    let jobs: [(&str, &[&str], Value); 8] = [
        ("parallel", &["append", "/data/parallel", "done"], json!({"completions": 4, "parallelism": 2})),
        (
            "indexed",
            &["append", "/data/indexed", "$(JOB_COMPLETION_INDEX)"],
            json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"}),
        ),
        ("tries", &["exit", "3"], json!({"backoffLimit": 0})),
        ("late", &["sleep"], json!({"activeDeadlineSeconds": 1})),
        ("ruled", &["exit", "42"], json!({"podFailurePolicy": policy})),
        ("given-up", &["exit", "1"], json!({"completions": 1, "completionMode": "Indexed", "backoffLimitPerIndex": 0})),
        ("vanishes", &["append", "/data/vanishes", "done"], json!({"ttlSecondsAfterFinished": 0})),
        ("waits", &["append", "/data/waits", "done"], json!({"suspend": true})),
    ];
    for (name, arguments, mut spec) in jobs {
        spec["template"] = template(&sandbox, &image, arguments);
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec});
        sandbox.write(&format!("{name}.json"), &job.to_string());
    }
    let expected = [
        ("parallel", "Succeeded", 4),
        ("indexed", "Succeeded", 3),
        ("tries", "Failed", 1),
        ("late", "Failed", 0),
        ("ruled", "Failed", 1),
        ("given-up", "Failed", 1),
        ("vanishes", "Succeeded", 0),
    ];
    let wait = |agent: &mut Agent<'_>| {
        for (name, phase, pods) in expected {
            agent.wait_status(&format!("{name} is {phase} with {pods} pods"), |status| {
                status.workload(name).filter(|w| w.phase == phase && w.pods.len() == pods).map(|_| ())
            });
        }
    };
    let mut agent = Agent::start(&sandbox);
    wait(&mut agent);
    agent.restart();
    wait(&mut agent);
    let mut indexes = lines(&sandbox, "indexed");
    indexes.sort();
    assert_eq!(indexes, ["0", "1", "2"]);
    assert_eq!(lines(&sandbox, "parallel").len(), 4);
    assert_eq!(lines(&sandbox, "vanishes").len(), 1);
    assert_eq!(agent.status().workload("waits").map(|w| w.pods.len()), Some(0));
    let events = agent.cli(&["events"]).ok().stdout;
    assert!(events.contains("the Job failed: it ran for longer than `activeDeadlineSeconds`"), "{events}");
    agent.kill9();
    sandbox.down();
    sandbox.assert_clean();
}

#[test]
fn a_cron_job_runs_by_the_clock_and_no_moment_twice() {
    if !require_root("a_cron_job_runs_by_the_clock_and_no_moment_twice") {
        return;
    }
    let (sandbox, _registry, image) = world("cron");
    // Each run writes down the moment that it is for.
    let mut template = template(&sandbox, &image, &["append", "/data/runs", "$(MOMENT)"]);
    let path = "metadata.annotations['batch.kubernetes.io/cronjob-scheduled-timestamp']";
    template["spec"]["containers"][0]["env"] =
        json!([{"name": "MOMENT", "valueFrom": {"fieldRef": {"fieldPath": path}}}]);
    let cron = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick"},
        "spec": {
            "schedule": "@every 1s",
            "concurrencyPolicy": "Forbid",
            "successfulJobsHistoryLimit": 1,
            "jobTemplate": {"spec": {"template": template}},
        },
    });
    sandbox.write("tick.json", &cron.to_string());
    // One that is far away, and says when.
    let mut yearly = cron.clone();
    yearly["metadata"]["name"] = json!("yearly");
    yearly["spec"]["schedule"] = json!("@yearly");
    yearly["spec"]["timeZone"] = json!("Europe/Paris");
    sandbox.write("yearly.json", &yearly.to_string());

    let mut agent = Agent::start(&sandbox);
    let runs = |agent: &mut Agent<'_>, more: usize| {
        let before = lines(&sandbox, "runs").len();
        let enough = |_: &mut Agent<'_>| (lines(&sandbox, "runs").len() >= before + more).then_some(());
        agent.wait_for("it runs", tests::agent::SOON, enough);
    };
    runs(&mut agent, 2);
    agent.restart();
    runs(&mut agent, 2);
    let mut moments = lines(&sandbox, "runs");
    let count = moments.len();
    assert!(moments.is_sorted(), "{moments:?}");
    moments.dedup();
    assert_eq!(moments.len(), count, "{moments:?}");
    agent.wait_status("one ended run is kept", |status| {
        status.workload("tick").filter(|tick| tick.pods.len() <= 2).map(|_| ())
    });
    let status = agent.json(&["status", "CronJob/default/yearly"]);
    assert_eq!((status["phase"].as_str(), status["cron"]["lastRun"].as_i64()), (Some("Scheduled"), None), "{status}");
    let shown = agent.cli(&["status", "yearly"]).ok().stdout;
    assert!(shown.contains("-01-01T00:00:00+01:00"), "{shown}");
    let labels = [("cronjob", "tick"), ("outcome", "ok")];
    assert!(agent.metrics().sum("mainstay_cronjob_runs_total", &labels).is_some_and(|n| n >= 1.0));
    sandbox.remove("tick.json");
    sandbox.remove("yearly.json");
    agent.assert_no_workloads();
}
