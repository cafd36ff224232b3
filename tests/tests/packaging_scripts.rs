//! What scripts of packages do to a host: to its running agent, and to data.

use std::fs;
use std::path::Path;
use std::process::Command;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Runs a command that must work; what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What a part of a script says and does on an upgrade, with this answer of `systemctl reload`: its end, what it printed,
/// and the calls of systemctl.
fn upgrade(script: &str, args: &[&str], reload: i32) -> (bool, String, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (calls, systemctl) = (dir.path().join("calls"), dir.path().join("systemctl"));
    fs::write(&calls, "").expect("the directory is ours");
    let fake = format!("#!/bin/sh\necho \"$@\" >>'{}'\n[ \"$1\" != reload ] || exit {reload}\n", calls.display());
    fs::write(&systemctl, fake).expect("the directory is ours");
    fs::set_permissions(&systemctl, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    // As on a host that systemd runs, and in directories that are of this test alone.
    let world =
        "mount -t tmpfs none /run && mount -t tmpfs none /etc && mkdir -p /run/systemd/system && exec sh -c \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", world, "world", script, "script"])
        .args(args)
        .env("PATH", format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap_or_default()))
        .output()
        .expect("unshare is there");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said, fs::read_to_string(calls).expect("it is ours"))
}

/// What the next binary or configuration says no to is never started: the agent that runs is the one that works.
#[test]
fn an_upgrade_that_is_refused_leaves_the_old_agent() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let spec = read("packaging/rpm/mainstay.spec");
    let part = |text: &str, from: &str, to: &str| {
        let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no `{from}`"));
        rest.split_once(to).unwrap_or_else(|| panic!("no `{to}`")).0.to_owned()
    };
    let install = read("packaging/scripts/install");
    let scripts: [(&str, String, &[&str]); 3] = [
        ("deb", read("packaging/deb/postinst"), &["configure", "0.1.0"]),
        ("rpm", part(&spec, "%post\n", "%preun"), &["2"]),
        (
            "install",
            format!("set -eu\nstart=1\nsystemctl daemon-reload{}", part(&install, "systemctl daemon-reload", "echo ")),
            &[],
        ),
    ];
    for (name, script, args) in scripts {
        for refused in [0, 1] {
            let (worked, said, calls) = upgrade(&script, args, refused);
            assert!(worked, "{name}: the installation goes on: {said}");
            assert!(calls.contains("reload mainstay.service"), "{name}: {calls}");
            assert!(!calls.contains("restart"), "{name}: {calls}");
            let told = said.contains("goes on")
                && said.contains("journalctl -u mainstay")
                && said.contains("systemctl reload");
            assert_eq!(told, refused == 1, "{name}: {said}");
        }
    }
}

/// `systemctl` as far as scripts of packages use it: which units are enabled and which run are files below /run/units.
const SYSTEMCTL: &str = "#!/bin/sh
while [ \"${1#-}\" != \"$1\" ]; do shift; done
verb=$1
shift
for unit in \"$@\"; do
  case $verb in
    enable | start) touch /run/units/$verb-$unit ;;
    disable) rm -f /run/units/enable-$unit ;;
    stop) rm -f /run/units/start-$unit ;;
    is-active) case $unit in -*) ;; *) [ -e /run/units/start-$unit ] || exit 3 ;; esac ;;
  esac
done
";

/// What is enabled, what runs and whether there is a mark after these steps, on a host that systemd runs, or in an image
/// that is being built.
fn units_after(scripts: &[(&str, &str)], steps: &str, systemd: bool) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in scripts.iter().copied().chain([("systemctl", SYSTEMCTL), ("mainstay", "#!/bin/sh\n")]) {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("the directory is ours");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    }
    let booted = if systemd { "mkdir -p /run/systemd/system" } else { "true" };
    // The scripts are below /tmp, which stays as it is.
    let world = format!(
        "set -e
        for dir in /run /var/lib /etc; do mount -t tmpfs none $dir; done
        mkdir /run/units
        {booted}
        {steps}
        cd /run/units
        echo units: * /var/lib/mainstay/.remove[d]"
    );
    let said = run(Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &world])
        .env("PATH", format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap_or_default())));
    let units = said.lines().find_map(|line| line.strip_prefix("units: ")).unwrap_or_else(|| panic!("{said}"));
    units.replace("/var/lib/mainstay/.remove[d]", "").replace(".service", "").trim().to_owned()
}

/// dpkg names the version before also when a package that was removed comes back, since its conffile has stayed.
#[test]
fn a_package_that_comes_back_runs_at_once_and_an_upgrade_keeps_what_was_chosen() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let scripts = ["postinst", "prerm", "postrm"].map(|name| (name, read(&format!("packaging/deb/{name}"))));
    let scripts: Vec<(&str, &str)> = scripts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let check = |steps: &str, systemd: bool, expected: &str| {
        assert_eq!(units_after(&scripts, steps, systemd), expected, "{steps}, systemd: {systemd}");
    };
    let (install, remove) = ("postinst configure ''; ", "prerm remove; postrm remove; ");
    let (again, upgrade) =
        ("postinst configure 0.1.0; ", "prerm upgrade 0.2.0; postrm upgrade 0.2.0; postinst configure 0.1.0; ");
    let runs = "enable-mainstay start-mainstay";
    check(install, true, runs);
    check(&format!("{install}{upgrade}"), true, runs);
    check(&format!("{install}{remove}"), true, "* /var/lib/mainstay/.removed");
    check(&format!("{install}{remove}{again}"), true, runs);
    check(&format!("{install}{remove}postrm purge; "), true, "*");
    check(&format!("{install}{remove}postrm purge; {install}"), true, runs);
    // Who has stopped the agent, or uses the socket, is not asked again by an upgrade, also of a package that came back.
    let off = "systemctl disable mainstay.service; systemctl stop mainstay.service; ";
    check(&format!("{install}{off}{upgrade}"), true, "*");
    check(&format!("{install}{remove}{again}{off}{upgrade}"), true, "*");
    let socket = "systemctl enable mainstay.socket; ";
    check(&format!("{install}{socket}{upgrade}"), true, "enable-mainstay enable-mainstay.socket start-mainstay");
    // A link to a unit that is gone would stay; the socket is nobody's until somebody asks for it.
    check(&format!("{install}{socket}{remove}{again}"), true, runs);
    check(&format!("{install}{remove}"), false, "* /var/lib/mainstay/.removed");
    check(&format!("{install}{remove}{again}"), false, "enable-mainstay");
}

#[test]
fn removing_the_rpm_disables_every_unit() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let spec = read("packaging/rpm/mainstay.spec");
    let part = |from: &str, to: &str| {
        let (_, rest) = spec.split_once(from).unwrap_or_else(|| panic!("no `{from}`"));
        format!("#!/bin/sh\n{}", rest.split_once(to).unwrap_or_else(|| panic!("no `{to}`")).0)
    };
    let (post, preun) = (part("%post\n", "%preun\n"), part("%preun\n", "%postun\n"));
    let scripts = [("post", post.as_str()), ("preun", preun.as_str())];
    let socket = "systemctl enable mainstay.socket; ";
    for systemd in [true, false] {
        let after = |steps: &str| units_after(&scripts, &format!("post 1; {socket}{steps}"), systemd);
        assert_eq!(after("preun 0"), if systemd { "*" } else { "start-mainstay" }, "systemd: {systemd}");
        let kept = "enable-mainstay enable-mainstay.socket start-mainstay";
        assert_eq!(after("post 2; preun 1"), kept, "systemd: {systemd}");
        assert_eq!(after("preun 0; post 1"), "enable-mainstay start-mainstay", "systemd: {systemd}");
    }
}

/// What is mounted below the run directory are volumes and directories of the host.
#[test]
fn a_purge_goes_through_no_mount() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let world = "
        set -e
        for dir in /run /var/lib /etc; do mount -t tmpfs none $dir; done
        cd /var/lib
        mkdir -p /run/mainstay/pods/u/volumes/s /run/host mainstay/volumes/data mainstay/volumes/disk mainstay/pods/u/v mainstay/images
        touch /run/host/precious mainstay/volumes/data/precious mainstay/images/layer
        case $2 in
          subpath) mount --bind mainstay/volumes/data /run/mainstay/pods/u/volumes/s ;;
          hostpath) mount --bind /run/host /run/mainstay/pods/u/volumes/s ;;
          data) mount --bind mainstay/volumes/data mainstay/pods/u/v ;;
          disk) mount -t tmpfs none mainstay/volumes/disk ;;
        esac
        cd /
        sh -c \"$1\" postrm purge
        set +e
        ls -d /run/host/precious /var/lib/mainstay/volumes/data/precious /run/mainstay /var/lib/mainstay/* 2>/dev/null
        true";
    let script = read("packaging/deb/postrm");
    for (mounted, left) in [
        ("nothing", ""),
        ("subpath", "/run/mainstay"),
        ("hostpath", "/run/mainstay"),
        ("data", "/var/lib/mainstay/pods"),
        ("disk", ""),
    ] {
        let said = run(Command::new("unshare").args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            world,
            "world",
            &script,
            mounted,
        ]));
        let there = |path: &str| said.lines().any(|line| line == path);
        assert!(there("/run/host/precious") && there("/var/lib/mainstay/volumes/data/precious"), "{mounted}: {said}");
        for path in ["/run/mainstay", "/var/lib/mainstay/pods", "/var/lib/mainstay/images"] {
            assert_eq!(there(path), path == left, "{mounted}: {path}: {said}");
        }
        assert_eq!(said.contains("is mounted below"), !left.is_empty(), "{mounted}: {said}");
    }
}
