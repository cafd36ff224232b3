//! The leak check sees what is planted, and a sandbox leaves nothing of itself.

use std::fs;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use tests::leaks::{Baseline, cgroups, mounts};
use tests::netlink::{plant_link, plant_table, remove_table};
use tests::{Sandbox, require_root};

/// Runs the fixture as a bystander that a test would have left.
fn fixture(arguments: &[&str]) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_fixture"))
        .args(arguments)
        .stdout(Stdio::null())
        .spawn()
        .expect("the fixture was built with this test")
}

#[test]
fn a_fresh_sandbox_has_no_leaks() {
    if !require_root("a_fresh_sandbox_has_no_leaks") {
        return;
    }
    let sandbox = Sandbox::new("fresh");
    assert_eq!(sandbox.leaks(), Vec::<String>::new());
    let dir = sandbox.dir().to_owned();
    assert!(dir.join("run").is_dir());
    drop(sandbox);
    assert!(!dir.exists());
    assert!(!mounts().iter().any(|mount| mount.point.starts_with(&dir)));
}

#[test]
fn planted_leaks_are_found_and_cleared_away() {
    if !require_root("planted_leaks_are_found_and_cleared_away") {
        return;
    }
    let sandbox = Sandbox::new("planted");
    let expect = |kind: &str| {
        let leaks = sandbox.leaks();
        assert!(leaks.iter().any(|leak| leak.starts_with(kind)), "no `{kind}` in {leaks:?}");
    };
    let none: Option<&str> = None;
    let target = sandbox.run().join("mnt");
    fs::create_dir(&target).expect("the run directory is ours");
    mount(Some("tmpfs"), &target, Some("tmpfs"), MsFlags::empty(), none).expect("root mounts a tmpfs");
    expect("mount: tmpfs");

    let pin = sandbox.run().join("netns");
    fs::write(&pin, "").expect("the run directory is ours");
    mount(Some("/proc/thread-self/ns/uts"), &pin, none, MsFlags::MS_BIND, none).expect("root pins a namespace");
    expect("pinned namespace: nsfs");

    plant_link("leak0", "veth").expect("root makes a veth");
    expect("interface: leak0");
    plant_link(sandbox.bridge(), "bridge").expect("root makes a bridge");
    expect(&format!("interface: {}", sandbox.bridge()));
    assert!(!sandbox.leaks_of_workloads(&[]).iter().any(|leak| leak.contains(sandbox.bridge())));

    plant_table("leaked").expect("root makes a table");
    expect("nftables table: leaked");
    plant_table("short").expect("root makes a table");
    expect("nftables table: short");
    remove_table("short").expect("root removes a table");
    assert!(!sandbox.leaks().iter().any(|leak| leak.contains("short")));

    let hierarchy = mounts().into_iter().find(|mount| mount.kind.starts_with("cgroup")).expect("require_root looked");
    let cgroup = hierarchy.point.join(sandbox.cgroup_parent().trim_start_matches('/')).join("pod");
    fs::create_dir_all(&cgroup).expect("root makes a cgroup");
    expect("cgroup: ");
    assert_eq!(sandbox.leaks_of_workloads(&[]).iter().filter(|leak| leak.starts_with("cgroup: ")).count(), 1);
    assert_eq!(sandbox.leaks().iter().filter(|leak| leak.starts_with("cgroup: ")).count(), 2);

    let mut child = fixture(&["sleep", "forever"]);
    fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).expect("root moves its child");
    expect(&format!("process: {}", child.id()));

    let dir = sandbox.dir().to_owned();
    let name = sandbox.cgroup_parent().trim_start_matches('/').to_owned();
    let reaper = std::thread::spawn(move || child.wait());
    drop(sandbox);
    let ended = reaper.join().expect("waiting does not panic").expect("the child is ours");
    assert!(!ended.success(), "the planted process was ended");
    assert!(!dir.exists());
    assert_eq!(cgroups(&name), Vec::<std::path::PathBuf>::new());
}

/// A thread that stays in the namespaces that the test started in, and starts a process there.
struct Outside {
    paths: std::sync::mpsc::Sender<String>,
    children: std::sync::mpsc::Receiver<std::process::Child>,
}

impl Outside {
    fn start() -> Self {
        let (paths, asked) = std::sync::mpsc::channel::<String>();
        let (answer, children) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for path in asked {
                // The fixture refuses extra words only where it reads them: "print" repeats them until it is ended.
                drop(answer.send(fixture(&["print", "18446744073709551615", &path])));
            }
        });
        Self { paths, children }
    }

    fn send(&self, path: String) -> std::process::Child {
        self.paths.send(path).expect("the thread waits for it");
        self.children.recv().expect("the thread answers")
    }
}

/// Each mark alone is enough to find a process.
#[test]
fn processes_are_found_by_command_line_and_by_namespace() {
    if !require_root("processes_are_found_by_command_line_and_by_namespace") {
        return;
    }
    let outside = Outside::start();
    let sandbox = Sandbox::new("marks");
    let found = |pid: u32| sandbox.processes().iter().any(|process| i64::from(process.pid) == i64::from(pid));

    // By namespace: nothing of the sandbox is in its command line.
    let mut inside = fixture(&["sleep", "forever"]);
    assert!(found(inside.id()));

    // By command line: started by a thread that is in none of the sandbox's namespaces.
    let path = sandbox.run().display().to_string();
    let mut outside = outside.send(path);
    assert!(found(outside.id()));
    sandbox.kill_all();
    assert!(!inside.wait().expect("the child is ours").success());
    assert!(!outside.wait().expect("the child is ours").success());
    assert_eq!(sandbox.processes(), Vec::new());
}

#[test]
fn sandboxes_do_not_see_each_other() {
    if !require_root("sandboxes_do_not_see_each_other") {
        return;
    }
    let before = Baseline::take();
    let other = std::thread::spawn(|| {
        let sandbox = Sandbox::new("other");
        plant_link("other0", "bridge").expect("root makes an interface");
        let bound = std::net::TcpListener::bind("127.0.0.1:8080").expect("loopback is up and its own");
        (sandbox.leaks(), sandbox.bridge().to_owned(), bound)
    });
    let (leaks, bridge, _bound) = other.join().expect("the other test passed");
    assert_eq!(leaks, ["interface: other0"]);
    assert!(bridge.len() <= 15, "interface names have at most 15 bytes: {bridge}");
    assert_eq!(before.new_interfaces(), Vec::<String>::new());
    let sandbox = Sandbox::new("this");
    assert_ne!(sandbox.bridge(), bridge);
    std::net::TcpListener::bind("127.0.0.1:8080").expect("the other one's port is not in this network namespace");
}

#[test]
fn a_reboot_takes_everything_but_the_disk() {
    if !require_root("a_reboot_takes_everything_but_the_disk") {
        return;
    }
    let mut sandbox = Sandbox::new("reboot");
    let boot = sandbox.boot_id();
    let none: Option<&str> = None;
    fs::write(sandbox.data().join("record"), "kept").expect("the data directory is ours");
    fs::write(sandbox.run().join("socket"), "gone").expect("the run directory is ours");
    let target = sandbox.data().join("mnt");
    fs::create_dir(&target).expect("the data directory is ours");
    mount(Some("tmpfs"), &target, Some("tmpfs"), MsFlags::empty(), none).expect("root mounts a tmpfs");
    plant_link(sandbox.bridge(), "bridge").expect("root makes a bridge");
    plant_table("old").expect("root makes a table");
    let mut child = fixture(&["sleep", "forever"]);
    let reaper = std::thread::spawn(move || child.wait());
    assert!(sandbox.leaks().len() >= 4, "{:?}", sandbox.leaks());
    sandbox.reboot();
    reaper.join().expect("waiting does not panic").expect("the child is ours");
    assert_eq!(sandbox.leaks(), Vec::<String>::new());
    assert_eq!(fs::read_dir(sandbox.run()).expect("it is there again").count(), 0);
    assert_eq!(fs::read_to_string(sandbox.data().join("record")).ok().as_deref(), Some("kept"));
    assert_ne!(sandbox.boot_id(), boot);
    std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up again");
    plant_link("later0", "veth").expect("root makes a veth");
    assert!(sandbox.leaks().iter().any(|leak| leak.contains("later0")));
}
