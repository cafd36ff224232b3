//! What is shipped beside the binary names only what exists, and says what the documents say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// Words of metrics in a text, without the endings that a histogram adds.
fn metrics(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("mainstay_") || word.starts_with("process_"))
        .map(|word| ["_bucket", "_sum", "_count"].iter().fold(word, |word, end| word.trim_end_matches(end)).to_owned())
        .collect()
}

#[test]
fn alerts_and_dashboard_use_metrics_that_exist() {
    // A test of the agent compares this document with what is served.
    let known = metrics(&read("docs/metrics.md"));
    for file in ["packaging/monitoring/mainstay.rules.yml", "packaging/monitoring/grafana-dashboard.json"] {
        let used = metrics(&read(file));
        assert!(used.len() > 5, "{file} uses no metrics: {used:?}");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} uses metrics that do not exist: {unknown:?}");
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("packaging/monitoring/grafana-dashboard.json")).expect("the dashboard is JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 10));
}

#[test]
fn units_leave_containers_alone() {
    let value = |unit: &str, key: &str| -> Vec<String> {
        let text = read(&format!("packaging/systemd/{unit}"));
        let start = format!("{key}=");
        text.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    };
    let check = |unit: &str, key: &str, expected: &str| assert_eq!(value(unit, key), [expected], "{unit}: {key}");
    let (agent, pods) = ("mainstay.service", "mainstay-pods.service");
    check(agent, "Type", "notify");
    check(agent, "Restart", "always");
    check(agent, "KillMode", "process");
    check(agent, "StartLimitIntervalSec", "0");
    check(agent, "Requires", pods);
    check(agent, "WantedBy", "multi-user.target");
    check(pods, "Delegate", "yes");
    check(pods, "RemainAfterExit", "yes");
    check(pods, "OOMPolicy", "continue");
    assert!(value(pods, "ExecStop")[0].starts_with("/usr/bin/mainstay shutdown "));
    // The group that the drop-in names is that of the unit.
    assert!(read("packaging/systemd/10-systemd.toml").contains("\"system.slice/mainstay-pods.service/pods\""));
    for unit in [agent, pods] {
        // These make a mount namespace, or are handed on to every container.
        for key in [
            "ProtectSystem",
            "ProtectHome",
            "PrivateTmp",
            "PrivateDevices",
            "ReadOnlyPaths",
            "NoNewPrivileges",
            "SystemCallFilter",
            "CapabilityBoundingSet",
            "RestrictAddressFamilies",
            "LockPersonality",
            "MemoryDenyWriteExecute",
            "PrivateMounts",
            "RootDirectory",
            "DynamicUser",
        ] {
            assert!(value(unit, key).is_empty(), "{unit}: {key} reaches containers");
        }
    }
}

#[test]
fn scripts_are_shell() {
    for (shell, script) in [
        ("sh", "packaging/deb/postinst"),
        ("sh", "packaging/deb/prerm"),
        ("sh", "packaging/deb/postrm"),
        ("sh", "packaging/scripts/install"),
        ("sh", "packaging/examples/ec2-user-data.sh"),
        ("bash", "packaging/scripts/deb"),
        ("bash", "packaging/scripts/rpm"),
        ("bash", "packaging/scripts/tarball"),
        ("bash", "packaging/scripts/generate"),
        ("bash", "tests/vm/run"),
        ("bash", "tests/vm/guest.sh"),
    ] {
        let checked = Command::new(shell).arg("-n").arg(root().join(script)).output().expect("there is a shell");
        assert!(checked.status.success(), "{script}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}
