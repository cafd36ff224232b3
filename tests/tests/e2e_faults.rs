//! Bad input and faults of the machine: a clear word for each, nothing lost, and it goes on when the fault is gone.

use std::net::TcpListener;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tests::agent::SOON;
use tests::image::{fixture_builder, fixture_image, scratch_image};
use tests::manifest::{pod, web};
use tests::{Agent, Layer, require_root, world};

#[test]
fn a_taken_port_is_named_and_taken_over_when_free() {
    if !require_root("a_taken_port_is_named_and_taken_over_when_free") {
        return;
    }
    let (sandbox, _registry, image) = world("port");
    let holder = TcpListener::bind("0.0.0.0:8080").expect("the sandbox's network is fresh");
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let mut agent = Agent::start(&sandbox);
    agent.wait_for("the taken port is named", SOON, |agent| {
        let told = agent.told("web").to_lowercase();
        (told.contains("8080") && (told.contains("taken") || told.contains("in use"))).then_some(())
    });
    drop(holder);
    agent.wait_page(8080, "/", |body| body == "one\n");
}

/// Two workloads that want the same port: the first keeps it, the second says who has it.
#[test]
fn a_port_is_given_to_one_workload_only() {
    if !require_root("a_port_is_given_to_one_workload_only") {
        return;
    }
    let (sandbox, _registry, image) = world("conflict");
    sandbox.write("one.yaml", &web("one", &image, "one", 8080));
    let mut agent = Agent::start(&sandbox);
    agent.wait_page(8080, "/", |body| body == "one\n");
    sandbox.write("two.yaml", &web("two", &image, "two", 8080));
    agent.wait_for("the conflict is named", SOON, |agent| {
        let said = agent.told("two").to_lowercase();
        (said.contains("8080") && said.contains("one")).then_some(())
    });
    assert_eq!(tests::http::get(("127.0.0.1", 8080), "/").expect("it serves").text(), "one\n");
}

#[test]
fn a_container_that_cannot_start_says_why() {
    if !require_root("a_container_that_cannot_start_says_why") {
        return;
    }
    let (sandbox, registry, image) = world("cannot");
    let mut missing = pod("missing", &image, &[]);
    missing["spec"]["containers"][0]["command"] = json!(["/bin/nothing"]);
    sandbox.write("missing.json", &missing.to_string());
    // A program without the bit that makes it one.
    let closed = fixture_builder().layer(Layer::new().file("/bin/closed", "#!/bin/fixture\n")).build();
    let mut plain = pod("plain", &registry.push("closed:1", &closed), &[]);
    plain["spec"]["containers"][0]["command"] = json!(["/bin/closed"]);
    sandbox.write("plain.json", &plain.to_string());
    // An image with nothing to run.
    let empty = pod("empty", &registry.push("empty:1", &scratch_image(&[("/a", "b")])), &[]);
    sandbox.write("empty.json", &empty.to_string());
    // No such image.
    sandbox.write("unknown.json", &pod("unknown", &registry.reference("none:1"), &[]).to_string());
    let mut agent = Agent::start(&sandbox);
    for (name, words) in [
        ("missing", &["/bin/nothing"][..]),
        ("plain", &["/bin/closed"]),
        ("empty", &["command", "entrypoint", "nothing to run"]),
        ("unknown", &["not found", "404", "no such", "unknown:"]),
    ] {
        agent.wait_for(&format!("{name} says why"), SOON, |agent| {
            let told = agent.told(name).to_lowercase();
            words.iter().any(|word| told.contains(word)).then_some(())
        });
    }
    // The healed manifest starts.
    missing["spec"]["containers"][0]["command"] = json!(["/bin/fixture", "sleep", "forever"]);
    sandbox.write("missing.json", &missing.to_string());
    agent.wait_ready("missing", 1);
}

/// A firewall reload throws the rules away; they come back, and the containers never noticed.
#[test]
fn flushed_rules_come_back() {
    if !require_root("flushed_rules_come_back") {
        return;
    }
    let (sandbox, _registry, image) = world("flush");
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let mut agent = Agent::start_with(&sandbox, &[], &[("MAINSTAY_RESYNC", "1s")]);
    agent.wait_page(8080, "/", |body| body == "one\n");
    let pids = agent.wait_ready("web", 1);
    let tables = tests::netlink::tables().expect("nftables answers root");
    assert!(!tables.is_empty(), "the product has a table");
    for table in &tables {
        tests::netlink::remove_table(table).expect("root removes a table");
    }
    agent.wait_page(8080, "/", |body| body == "one\n");
    assert_eq!(tests::netlink::tables().expect("nftables answers root"), tables);
    assert_eq!(agent.status().pids("web"), pids);
}

/// A disk that is full stops what is new, names the disk, and loses nothing of what runs.
#[test]
fn a_full_disk_stops_nothing_that_runs() {
    if !require_root("a_full_disk_stops_nothing_that_runs") {
        return;
    }
    let (mut sandbox, registry, image) = world("full");
    let size = fixture_image().blobs.values().map(|blob| blob.len()).sum::<usize>() + (16 << 20);
    let unpacked = tests::image::fixture_files().iter().map(|(_, bytes, _)| bytes.len()).sum::<usize>();
    sandbox.limit_data(u32::try_from((size + unpacked) >> 20).expect("a small disk"));
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let mut agent = Agent::start(&sandbox);
    agent.wait_page(8080, "/", |body| body == "one\n");
    let pids = agent.wait_ready("web", 1);
    let noise: Vec<u8> = (0..64u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let large = fixture_builder().layer(Layer::new().file("/large", noise)).build();
    let large = registry.push("large:1", &large);
    sandbox.write("large.json", &pod("large", &large, &["sleep", "forever"]).to_string());
    agent.wait_for("the full disk is named", SOON, |agent| {
        let told = agent.told("large").to_lowercase();
        (told.contains("no space") || told.contains("disk") || told.contains("full")).then_some(())
    });
    assert_eq!(agent.status().pids("web"), pids);
    agent.restart();
    assert_eq!(agent.wait_ready("web", 1), pids);
}

/// The parent of a container killed: the container is not left alone for ever, and one of it runs in the end.
#[test]
fn a_killed_shim_leaves_one_container() {
    if !require_root("a_killed_shim_leaves_one_container") {
        return;
    }
    let (sandbox, _registry, image) = world("shim");
    sandbox.write("web.yaml", &web("web", &image, "one", 8080));
    let mut agent = Agent::start(&sandbox);
    let pids = agent.wait_ready("web", 1);
    let parent = parent_of(pids[0]);
    assert_ne!(parent, agent.pid().cast_signed(), "containers do not hang on the agent");
    kill(Pid::from_raw(parent), Signal::SIGKILL).expect("the shim runs");
    agent.wait_status("one container is known and ready", |status| {
        let now = status.pids("web");
        (now.len() == 1 && status.workload("web")?.ready == 1).then_some(())
    });
    agent.wait_page(8080, "/", |body| body == "one\n");
    agent.wait_for("exactly one server runs", SOON, |agent| {
        let servers = agent.sandbox().processes().into_iter().filter(|p| p.command == "/bin/fixture serve").count();
        (servers == 1).then_some(())
    });
}

fn parent_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).expect("stat has a name in brackets");
    rest.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()).expect("stat has a parent")
}

/// An agent killed again and again in the middle of its work: in the end there is exactly what was wished.
#[test]
fn kills_in_the_middle_of_starts_leave_no_doubles() {
    if !require_root("kills_in_the_middle_of_starts_leave_no_doubles") {
        return;
    }
    let (sandbox, _registry, image) = world("chaos");
    for n in 0..6 {
        sandbox.write(&format!("p{n}.json"), &pod(&format!("p{n}"), &image, &["sleep", "forever"]).to_string());
    }
    let mut agent = Agent::start(&sandbox);
    for round in 0..8u32 {
        // Later and later in the work; the state that it is killed in is a matter of luck, the outcome is not.
        let until = std::time::Instant::now() + std::time::Duration::from_millis(u64::from(round) * 60);
        agent.wait_for("the moment to kill", SOON, |_| (std::time::Instant::now() >= until).then_some(()));
        agent.restart();
    }
    for n in 0..6 {
        assert_eq!(agent.wait_ready(&format!("p{n}"), 1).len(), 1);
    }
    let running = sandbox.processes().into_iter().filter(|p| p.command == "/bin/fixture sleep forever").count();
    assert_eq!(running, 6);
    for n in 0..6 {
        sandbox.remove(&format!("p{n}.json"));
    }
    // All of them at once is above the budget for removals: said so, and done when approved.
    let id = agent.wait_for("removal is held or done", SOON, |agent| {
        let status = agent.json(&["status"]).to_string();
        let held = status.split("approve ").nth(1).and_then(|rest| rest.split(|c: char| !c.is_alphanumeric()).next());
        match held {
            Some(id) => Some(Some(id.to_owned())),
            None => agent.status().workloads.is_empty().then_some(None),
        }
    });
    let id = id.expect("six of six removed at once is above every budget");
    assert_eq!(sandbox.processes().into_iter().filter(|p| p.command.starts_with("/bin/fixture")).count(), 6);
    agent.cli(&["approve", &id]).ok();
    agent.assert_no_workloads();
}
