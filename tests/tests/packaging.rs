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
fn alerts_come_when_they_should() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("skipped: promtool is not installed");
        return;
    }
    let monitoring = root().join("packaging/monitoring");
    // What it says is in the log of whoever asks for output: which rules there are, and that they were tried.
    for args in [["check", "rules", "mainstay.rules.yml"], ["test", "rules", "mainstay.rules.test.yml"]] {
        println!("{}", run(Command::new("promtool").args(args).current_dir(&monitoring)));
    }
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
    // A hang before the agent is ready ends as one after that does: it is started anew.
    check(agent, "TimeoutStartSec", "5min");
    for unit in [agent, pods] {
        let after = value(unit, "After").join(" ");
        // What pods write to must be there until they have ended.
        for target in ["network-online.target", "local-fs.target", "remote-fs.target"] {
            assert!(after.split(' ').any(|each| each == target), "{unit}: After={after}");
        }
    }
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

/// systemd passes over what it does not know, with a line in the log: here that is an error.
#[test]
fn systemd_knows_every_setting_of_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let units = ["mainstay-pods.service", "mainstay.service", "mainstay.socket"];
    let analyze = |args: &[&str]| {
        let output =
            Command::new("systemd-analyze").args(args).args(units).current_dir(&dir).output().expect("it is there");
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), said)
    };
    let verify = ["verify", "--man=no", "--recursive-errors=no"];
    let write = |more: &str| {
        for unit in units {
            // The binary is not installed here, which is an error of its own.
            let text = read(&format!("packaging/systemd/{unit}")).replace("/usr/bin/mainstay", "/bin/true");
            fs::write(dir.path().join(unit), text + more).expect("the directory is ours");
        }
    };
    write("");
    let (good, said) = analyze(&verify);
    assert!(good && !said.contains("mainstay"), "{said}");
    let exposure = ["security", "--no-pager", "--offline=true"];
    for unit in &units[..2] {
        let output = Command::new("systemd-analyze").args(exposure).arg(dir.path().join(unit)).output().expect("there");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{}", text.lines().find(|line| line.contains("exposure level")).unwrap_or("no exposure was told"));
    }
    write("Unknown=yes\n");
    assert!(analyze(&verify).1.contains("Unknown"), "it would have said so");
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

/// Runs a command that must work; what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_debian_package_holds_what_it_needs() {
    let out = tempfile::tempdir().expect("a temporary directory");
    let binary = tests::binary::mainstay();
    // Packing a binary with debug information takes long and shows nothing.
    run(Command::new(root().join("packaging/scripts/deb"))
        .args([binary.as_os_str(), "1.2.3".as_ref(), out.path().as_os_str()])
        .env("MAINSTAY_DEB_COMPRESSION", "none"));
    let file = fs::read_dir(out.path()).expect("it is there").flatten().next().expect("a package was made").path();
    let fields = run(Command::new("dpkg-deb").arg("--field").arg(&file));
    for field in ["Package: mainstay", "Version: 1.2.3", "Depends: libc6 (>= ", "Recommends: ca-certificates"] {
        assert!(fields.contains(field), "{field}\n{fields}");
    }
    let content = run(Command::new("dpkg-deb").arg("--contents").arg(&file));
    let check = |mode: &str, path: &str| {
        let line = content.lines().find(|line| line.ends_with(&format!(" .{path}")));
        assert!(line.is_some_and(|line| line.starts_with(&format!("{mode} root/root"))), "{path}: {line:?}\n{content}");
    };
    check("drwxr-xr-x", "/");
    check("-rwxr-xr-x", "/usr/bin/mainstay");
    for unit in ["mainstay.service", "mainstay-pods.service", "mainstay.socket"] {
        check("-rw-r--r--", &format!("/usr/lib/systemd/system/{unit}"));
    }
    check("-rw-r--r--", "/etc/mainstay/conf.d/10-systemd.toml");
    check("drwxr-xr-x", "/etc/mainstay/manifests/");
    check("-rw-r--r--", "/usr/share/man/man1/mainstay.1.gz");
    check("-rw-r--r--", "/usr/share/man/man1/mainstay-status.1.gz");
    check("-rw-r--r--", "/usr/share/bash-completion/completions/mainstay");
    check("-rw-r--r--", "/usr/share/zsh/vendor-completions/_mainstay");
    check("-rw-r--r--", "/usr/share/doc/mainstay/operations.md");
    check("-rw-r--r--", "/usr/share/doc/mainstay/monitoring/mainstay.rules.yml");
    check("-rw-r--r--", "/usr/share/doc/mainstay/examples/cloud-init.yaml");
    // What is not a file of the configuration is replaced by an upgrade; this one is not.
    let control = out.path().join("control");
    run(Command::new("dpkg-deb").arg("--control").arg(&file).arg(&control));
    assert_eq!(fs::read_to_string(control.join("conffiles")).expect("there"), "/etc/mainstay/conf.d/10-systemd.toml\n");
}

#[test]
fn the_rpm_holds_what_it_needs() {
    if Command::new("rpmbuild").arg("--version").output().is_err() {
        eprintln!("skipped: rpmbuild is not installed");
        return;
    }
    let out = tempfile::tempdir().expect("a temporary directory");
    let binary = tests::binary::mainstay();
    run(Command::new(root().join("packaging/scripts/rpm"))
        .args([binary.as_os_str(), "1.2.3".as_ref(), out.path().as_os_str()])
        .env("MAINSTAY_RPM_PAYLOAD", "w.ufdio"));
    let file = fs::read_dir(out.path()).expect("it is there").flatten().next().expect("a package was made").path();
    let query = |what: &[&str]| run(Command::new("rpm").arg("-qp").args(what).arg(&file));
    assert!(query(&[]).starts_with("mainstay-1.2.3-1."), "{}", query(&[]));
    let content = query(&["--queryformat", "[%{FILEMODES:perms} %{FILEUSERNAME} %{FILENAMES}\n]"]);
    let check = |mode: &str, path: &str| {
        let line = format!("{mode} root {path}");
        assert!(content.lines().any(|each| each == line), "{line}\n{content}");
    };
    check("-rwxr-xr-x", "/usr/bin/mainstay");
    for unit in ["mainstay.service", "mainstay-pods.service", "mainstay.socket"] {
        check("-rw-r--r--", &format!("/usr/lib/systemd/system/{unit}"));
    }
    for directory in ["/etc/mainstay", "/etc/mainstay/conf.d", "/etc/mainstay/manifests"] {
        check("drwxr-xr-x", directory);
    }
    check("-rw-r--r--", "/usr/share/man/man1/mainstay-status.1.gz");
    check("-rw-r--r--", "/usr/share/zsh/site-functions/_mainstay");
    check("-rw-r--r--", "/usr/share/doc/mainstay/operations.md");
    assert_eq!(query(&["--configfiles"]), "/etc/mainstay/conf.d/10-systemd.toml\n");
    // An upgrade stops nothing.
    let scripts = query(&["--scripts"]);
    let removal = scripts.split("preuninstall").nth(1).expect("there is one");
    assert!(removal.contains("if [ \"$1\" = 0 ]") && removal.contains("mainstay down --yes"), "{scripts}");
}

#[test]
fn the_install_script_puts_everything_into_its_place() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (packed, target) = (dir.path().join("packed"), dir.path().join("target"));
    fs::create_dir(&packed).expect("the directory is ours");
    // As `packaging/scripts/tarball` packs it.
    fs::copy(tests::binary::mainstay(), packed.join("mainstay")).expect("copied");
    run(Command::new("cp").arg("-r").arg(root().join("packaging/systemd")).arg(&packed));
    run(Command::new("cp").arg(root().join("packaging/scripts/install")).arg(&packed));
    run(Command::new(root().join("packaging/scripts/generate")).arg(packed.join("mainstay")).arg(&packed));
    let install = || {
        run(Command::new(packed.join("install")).arg("--prefix").arg("/opt/m").arg("--root").arg(&target));
    };
    install();
    let version = run(Command::new(target.join("opt/m/bin/mainstay")).arg("version"));
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let there = |path: &str| fs::read_to_string(target.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(there("etc/systemd/system/mainstay.service").contains("ExecStart=/opt/m/bin/mainstay run"));
    assert!(there("etc/systemd/system/mainstay-pods.service").contains("ExecStop=/opt/m/bin/mainstay shutdown"));
    assert!(there("opt/m/share/bash-completion/completions/mainstay").contains("adopt"));
    assert!(target.join("opt/m/share/man/man1/mainstay.1.gz").exists());
    assert!(target.join("etc/mainstay/manifests").is_dir());
    // Again, over what somebody has changed.
    fs::write(target.join("etc/mainstay/conf.d/10-systemd.toml"), "# mine\n").expect("the directory is ours");
    install();
    assert_eq!(there("etc/mainstay/conf.d/10-systemd.toml"), "# mine\n");
    assert!(!target.join("opt/m/bin/mainstay.new").exists());
}
