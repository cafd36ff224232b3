//! The table of names against itself, the documentation and what is served.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::api::{ContainerStats, NetworkStats, Pulls, RunningPull};
use spec::workload::{WorkloadId, WorkloadKind};

use super::{Kind, METRICS, Metric, Metrics, Readings};
use crate::status::{
    ContainerStatus, CronStatus, HeldStatus, PodStatus, Snapshot, SourceStatus, WaitStatus, WorkloadStatus,
};

fn id() -> WorkloadId {
    WorkloadId { kind: WorkloadKind::Deployment, namespace: "default".to_owned(), name: "web".to_owned() }
}

fn snapshot() -> Snapshot {
    let container = ContainerStatus { name: "app".to_owned(), state: "running".to_owned(), ..Default::default() };
    let pod = PodStatus {
        name: "web-0".to_owned(),
        phase: "Running".to_owned(),
        containers: vec![container],
        ..Default::default()
    };
    let workload = WorkloadStatus {
        kind: "Deployment".to_owned(),
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        phase: "Running".to_owned(),
        held: Some(HeldStatus { reason: "broken".to_owned(), message: String::new() }),
        waiting: vec![WaitStatus { reason: "pulling".to_owned(), ..WaitStatus::default() }],
        cron: Some(CronStatus { next_run: Some(3), last_run: Some(2), last_success: Some(1), ..Default::default() }),
        pods: vec![pod],
        ..Default::default()
    };
    let source = SourceStatus {
        path: "/m".to_owned(),
        state: "degraded".to_owned(),
        files: 3,
        errors: vec!["x".to_owned()],
        broken: 1,
        revision: Some("aa".to_owned()),
        ..Default::default()
    };
    Snapshot { workloads: vec![workload], sources: vec![source], ..Default::default() }
}

/// Metrics of an agent to which everything has happened once.
fn eventful() -> (Metrics, String) {
    let metrics = Metrics::new();
    metrics.reconcile(Duration::from_millis(3), true, true);
    metrics.resync_interval(Duration::from_secs(60));
    metrics.source_interval("/m", Duration::from_secs(60));
    metrics.action("pull", "images_needed", true, Duration::from_secs(1));
    metrics.container_restart(&id(), "app");
    metrics.container_oom(&id(), "app");
    metrics.probe("liveness", true, Duration::from_millis(1));
    metrics.run_ended(&id(), true);
    metrics.image_pull(true, Duration::from_secs(1));
    let reference = || spec::image_ref::ImageRef::parse("web:1").expect("a reference");
    let running = |received| RunningPull { reference: reference(), layers: 2, done: 1, bytes: 900, received };
    for fetched in [400, 1000, 1000] {
        metrics.pulls(&Pulls { running: vec![running(100), running(900)], fetched });
    }
    metrics.source_success("/m", 1e9);
    metrics.event("normal", false);
    metrics.notification("chat", "ok", 1);
    metrics.sizes(&crate::sizes::Sizes { images: (2, 300), volumes: [("data".to_owned(), 4096)].into() });
    metrics.taken_in(3, Duration::from_millis(1));
    metrics.running_actions(2);
    metrics.observe_snapshot(&snapshot());
    let names = ["default", "web", "web-0", "app"].map(str::to_owned);
    let stats = ContainerStats {
        cpu_nanos: 1_500_000_000,
        throttled: (3, 500_000_000),
        stalled: Some([1_000_000_000, 0, 2_000_000_000]),
        memory_limit: Some(64),
        ..Default::default()
    };
    let [namespace, workload, pod, _] = names.clone();
    let network = NetworkStats { bytes: (10, 20), packets: (1, 2) };
    let readings =
        Readings { containers: vec![(names, stats)], pods: vec![([namespace, workload, pod], network)], failures: 0 };
    let text = metrics.text_with(&readings);
    (metrics, text)
}

/// Types by name, as the answer declares them.
fn declared(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

#[test]
fn every_metric_of_the_table_is_served_and_no_other() {
    let (_, text) = eventful();
    let table: BTreeMap<&str, &str> = METRICS.iter().map(|metric| (metric.name, metric.kind.word())).collect();
    assert_eq!(declared(&text), table);
}

#[test]
fn every_metric_of_the_table_is_documented_and_no_other() {
    let document = include_str!("../../../docs/metrics.md");
    let documented: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
    let row = |metric: &Metric| {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |", metric.name, metric.kind.word(), labels.join(", "), metric.help)
    };
    let table: Vec<String> = METRICS.iter().map(row).collect();
    assert!(documented == table, "docs/metrics.md should hold these rows:\n{}\n", table.join("\n"));
}

#[test]
fn names_follow_the_rules() {
    for metric in METRICS {
        let name = metric.name;
        let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
        assert!(name.starts_with("mainstay_") || name.starts_with("process_"), "{name}: prefix");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}: characters");
        assert_eq!(ends(&["_total"]), metric.kind == Kind::Counter, "{name}: counters and only they end in _total");
        assert!(!ends(&["_count", "_sum", "_bucket"]), "{name}: reserved ending");
        assert!(metric.kind != Kind::Histogram || ends(&["_seconds", "_bytes"]), "{name}: unit of a histogram");
        assert!(!name.contains("timestamp") || ends(&["_timestamp_seconds"]), "{name}: timestamps are in seconds");
        for unit in ["milliseconds", "_ms", "kilobytes", "megabytes", "percent", "minutes"] {
            assert!(!name.contains(unit), "{name}: {unit} is no base unit");
        }
        assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}: help is a sentence");
        for label in metric.labels {
            assert!(!name.contains(&format!("_by_{label}")), "{name}: label {label} in the name");
            assert!(!["uid", "id", "path", "message", "error", "le"].contains(label), "{name}: label {label}");
        }
    }
}

#[track_caller]
fn check(text: &str, line: &str) {
    assert!(text.lines().any(|other| other == line), "missing: {line}\n{text}");
}

#[test]
fn values_are_in_base_units_and_states_without_members_are_zero() {
    let (_, text) = eventful();
    let labels = r#"{container="app",namespace="default",pod="web-0",workload="web"}"#;
    check(&text, &format!("mainstay_container_cpu_seconds_total{labels} 1.5"));
    check(&text, &format!("mainstay_container_cpu_throttled_seconds_total{labels} 0.5"));
    check(&text, &format!("mainstay_container_memory_limit_bytes{labels} 64"));
    check(&text, r#"mainstay_pod_network_transmit_bytes_total{namespace="default",pod="web-0",workload="web"} 20"#);
    check(&text, r#"mainstay_workloads{phase="Running"} 1"#);
    check(&text, r#"mainstay_workloads{phase="Failed"} 0"#);
    check(&text, r#"mainstay_manifests{state="ok"} 2"#);
    check(&text, r#"mainstay_manifests{state="broken"} 1"#);
    check(&text, r#"mainstay_workloads_held{reason="broken"} 1"#);
    check(&text, r#"mainstay_actions_total{action="pull",outcome="ok",reason="images_needed"} 1"#);
    check(&text, "mainstay_image_pull_bytes_total 1000");
    check(&text, "mainstay_image_pulls_running 2");
    check(&text, "mainstay_image_pull_remaining_bytes 800");
    check(&text, "mainstay_events_lost_total 1");
    check(&text, "mainstay_image_store_bytes 300");
    check(&text, r#"mainstay_volume_bytes{volume="data"} 4096"#);
    check(&text, "mainstay_inbox_events 3");
    check(&text, "mainstay_reconcile_lag_seconds_bucket{le=\"0.001\"} 1");
}

#[test]
fn series_of_a_workload_that_is_gone_are_dropped() {
    let (metrics, text) = eventful();
    let line = r#"mainstay_container_restarts_total{container="app",namespace="default",workload="web"} 1"#;
    check(&text, line);
    metrics.observe_snapshot(&Snapshot::default());
    assert!(!metrics.text().contains("workload=\"web\""));
    assert!(text.contains("revision=\"aa\"") && !metrics.text().contains("revision=\"aa\""));
    check(&metrics.text(), r#"mainstay_workloads{phase="Running"} 0"#);
}

/// What alerts take the increase of: a series that appears with its first step has none.
#[test]
fn counters_are_at_zero_before_anything_happens() {
    let metrics = Metrics::new();
    metrics.observe_snapshot(&snapshot());
    metrics.webhook("chat");
    let container = r#"{container="app",namespace="default",workload="web"}"#;
    for name in ["mainstay_container_restarts_total", "mainstay_container_ooms_total"] {
        check(&metrics.text(), &format!("{name}{container} 0"));
    }
    for outcome in ["ok", "error"] {
        let labels = format!(r#"{{cronjob="web",namespace="default",outcome="{outcome}"}}"#);
        check(&metrics.text(), &format!("mainstay_cronjob_runs_total{labels} 0"));
    }
    for outcome in ["ok", "error", "dropped"] {
        let labels = format!(r#"{{outcome="{outcome}",webhook="chat"}}"#);
        check(&metrics.text(), &format!("mainstay_notifications_total{labels} 0"));
    }
    // Each counts for itself, whichever is first.
    metrics.container_oom(&id(), "app");
    metrics.container_oom(&id(), "new");
    check(&metrics.text(), &format!("mainstay_container_ooms_total{container} 1"));
    check(&metrics.text(), &format!("mainstay_container_restarts_total{container} 0"));
    let new = container.replace("app", "new");
    check(&metrics.text(), &format!("mainstay_container_restarts_total{new} 0"));
}

#[test]
fn two_agents_in_one_process_count_apart() {
    let (first, second) = (Metrics::new(), Metrics::new());
    first.reconcile(Duration::ZERO, false, true);
    check(&first.text(), r#"mainstay_reconciles_total{outcome="error"} 1"#);
    check(&second.text(), r#"mainstay_reconciles_total{outcome="error"} 0"#);
}
