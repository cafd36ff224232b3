//! A fleet of one-container pods through its life: from nothing, nothing to do, one changed, all changed, killed, the
//! agent restarted, at rest, ended.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::Agent;
use tests::agent::{SOON, poll};

use crate::Options;
use crate::bell::Bell;
use crate::floor::Floor;
use crate::meter::Meter;
use crate::peers::{compose, podman};
use crate::table::{MAINSTAY, Sample, Table};
use crate::world::{Net, World};

/// After this the agent has given back what the start had taken.
const REST: Duration = Duration::from_secs(8);
/// After this nothing of a start is left to be done.
pub(crate) const PROVEN: Duration = Duration::from_secs(20);

/// What a round found: work, unit, who, sample.
pub(crate) type Found = Vec<(String, &'static str, String, Sample)>;

/// Every size, `runs` rounds of each, of none only what the agent is when it has nothing to do; with `peers` beside other
/// engines, which take their time.
pub(crate) fn measure(options: &Options, net: Net, peers: bool) -> Vec<Table> {
    let network = if net == Net::Own { "own network each" } else { "host network" };
    let mut tables = Vec::new();
    for &size in &options.sizes {
        let mut table = Table::new(format!("{size} containers, {network}"));
        for run in 0..options.runs {
            let idle = if run == 0 { options.idle } else { 0 };
            let mut rounds = vec![round(move || agent(size, net, idle))];
            if size > 0 {
                rounds.push(round(move || floor(size, net)));
            }
            if peers && size > 0 {
                rounds.extend([round(move || podman(size)), round(move || compose(size))]);
            }
            for found in rounds {
                for (what, unit, who, sample) in found {
                    table.add(&what, unit, &who, sample);
                }
            }
        }
        if size >= 10 {
            for (what, unit, who, sample) in round(move || failing(size, net)) {
                table.add(&what, unit, &who, sample);
            }
        }
        tables.push(table);
    }
    tables
}

/// In a thread of its own, which the namespaces of the round end with.
fn round(work: impl FnOnce() -> Found + Send + 'static) -> Found {
    std::thread::spawn(work).join().unwrap_or_else(|_| panic!("a round failed; see above"))
}

fn agent(size: u32, net: Net, idle: u64) -> Found {
    let mut world = World::new("bench");
    let mut found = Found::new();
    let mut add = |what: &str, unit, sample| found.push((what.to_owned(), unit, MAINSTAY.to_owned(), sample));
    let mut agent = Agent::start(&world.sandbox);
    agent.cli(&["pull", &world.image]).ok();

    let lap = world.meter.start();
    (0..size).for_each(|number| world.write_member(number, "first", net));
    world.bell.wait(size, |line| line.ends_with(" first"));
    if size > 0 {
        add("from nothing", "ms", lap.done());
    }

    settle(&mut agent);
    std::thread::sleep(REST);
    let shims = shims(&world, agent.pid());
    add("memory of the agent", "MB PSS", figure(pss(agent.pid())));
    #[expect(clippy::cast_precision_loss, reason = "a measurement")]
    let each = shims.iter().map(|&pid| pss(pid)).sum::<f64>() / shims.len().max(1) as f64;
    if !shims.is_empty() {
        add("memory of a shim", "MB PSS", figure(each));
    }
    add("memory of all", "MB PSS", figure(pss(agent.pid()) + shims.iter().map(|&pid| pss(pid)).sum::<f64>()));

    add("pass with nothing to do", "ms", nothing_to_do(&world, &agent));
    let lap = world.meter.start();
    let planned = world.sandbox.command().arg("plan").arg(world.sandbox.manifests()).output();
    assert!(planned.is_ok_and(|output| output.status.success()), "there is nothing to do");
    add("mainstay plan", "ms", lap.done());
    for _ in 0..5 {
        let lap = world.meter.start();
        agent.metrics();
        add("scrape of the metrics", "ms", lap.done());
    }
    if idle > 0 {
        // Versions are proven some seconds after their start, and noted once.
        std::thread::sleep(PROVEN);
        let lap = world.meter.start();
        std::thread::sleep(Duration::from_secs(idle));
        let sample = lap.done();
        let minute = sample.cpu.map(|cpu| cpu * 60e3 / sample.wall);
        add("a minute at rest", "CPU ms", Sample { wall: minute.unwrap_or_default() * 1e3, cpu: minute });
    }
    if size == 0 {
        return found;
    }

    for turn in 0..3 {
        let (member, version) = (size / 2, format!("turn{turn}"));
        let lap = world.meter.start();
        world.write_member(member, &version, net);
        world.bell.wait(1, |line| line == format!("member-{member} {version}"));
        add("one changed", "ms", lap.done());
    }
    settle(&mut agent);
    for member in 0..size.min(3) {
        add("one killed, runs again", "ms", killed(&mut world.bell, &world.meter, &agent, member));
    }

    let lap = world.meter.start();
    (0..size).for_each(|number| world.write_member(number, "all", net));
    world.bell.wait(size, |line| line.ends_with(" all"));
    add("all changed", "ms", lap.done());
    settle(&mut agent);
    let status = agent.status();
    let pids: Vec<i32> = (0..size).flat_map(|number| status.pids(&format!("member-{number}"))).collect();
    let lap = world.meter.start();
    kill_each(&pids);
    world.bell.wait(size, |line| line.ends_with(" all"));
    add("all killed, run again", "ms", lap.done());

    settle(&mut agent);
    let lap = world.meter.start();
    agent.kill9();
    drop(fs::remove_file(world.sandbox.run().join("metrics.addr")));
    agent.start_again();
    let address = agent.metrics_address();
    let ready = || tests::http::get(address.as_str(), "/readyz").ok().filter(|answer| answer.status == 200);
    poll("the agent has been round once", SOON, ready).expect("it comes back");
    add("agent restarted, in sync", "ms", lap.done());

    drop(agent);
    // Cgroups of containers take their accounts with them.
    let lap = world.meter.start_own();
    world.sandbox.down();
    add("all ended", "ms", Sample { cpu: None, ..lap.done() });
    found
}

/// The same where every tenth container fails at once: the others must not wait for it.
fn failing(size: u32, net: Net) -> Found {
    let mut world = World::new("bench");
    let agent = Agent::start(&world.sandbox);
    agent.cli(&["pull", &world.image]).ok();
    let bad = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: NAME}}\nspec: {{containers: [{{name: main, image: '{}', args: [exit, '1']}}]}}\n",
        world.image
    );
    let lap = world.meter.start();
    for number in 0..size {
        if number % 10 == 9 {
            world.sandbox.write(&format!("member-{number}.yaml"), &bad.replace("NAME", &format!("bad-{number}")));
        } else {
            world.write_member(number, "first", net);
        }
    }
    world.bell.wait(size - size / 10, |line| line.ends_with(" first"));
    let sample = lap.done();
    drop(agent);
    world.sandbox.down();
    vec![("from nothing, 10 % fail".to_owned(), "ms", MAINSTAY.to_owned(), sample)]
}

fn floor(size: u32, net: Net) -> Found {
    let mut world = World::new("floor");
    let Some(floor) = Floor::new(&world.sandbox.data(), world.bell.dir(), &world.sandbox.cgroup_parent(), net) else {
        eprintln!("bench: no floor: neither crun nor runc, or no ip, is installed");
        return Found::new();
    };
    let mut found = Found::new();
    let mut add = |what: &str, unit, sample| found.push((what.to_owned(), unit, floor.name(), sample));
    let lap = world.meter.start();
    floor.start_all(size, "first");
    world.bell.wait(size, |line| line.ends_with(" first"));
    add("from nothing", "ms", lap.done());
    for turn in 0..3 {
        let (member, version) = (size / 2, format!("turn{turn}"));
        let lap = world.meter.start();
        floor.remove(member);
        floor.start(member, &version);
        world.bell.wait(1, |line| line == format!("member-{member} {version}"));
        let sample = lap.done();
        add("one changed", "ms", sample);
        add("one killed, runs again", "ms", sample);
    }
    let lap = world.meter.start();
    (0..size).for_each(|number| floor.remove(number));
    floor.end();
    add("all ended", "ms", Sample { cpu: None, ..lap.done() });
    found
}

/// From kill -9 of a member's container to the first act of the next one.
pub(crate) fn killed(bell: &mut Bell, meter: &Meter, agent: &Agent<'_>, member: u32) -> Sample {
    let name = format!("member-{member}");
    let pids = agent.status().pids(&name);
    let lap = meter.start();
    kill_each(&pids);
    bell.wait(1, |line| line.starts_with(&format!("{name} ")));
    lap.done()
}

/// kill -9.
fn kill_each(pids: &[i32]) {
    for &pid in pids {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it was running a moment ago");
    }
}

/// Waits until the agent says that nothing is left to do.
pub(crate) fn settle(agent: &mut Agent<'_>) {
    agent.wait_for("convergence", Duration::from_secs(120), |agent| agent.status().converged.then_some(()));
}

/// A ConfigMap that nobody uses changes: what a pass over everything costs, by the agent's own histogram, and its CPU.
/// (Files saved again without a change do not even lead to a pass.)
fn nothing_to_do(world: &World, agent: &Agent<'_>) -> Sample {
    let reading = || {
        let metrics = agent.metrics();
        let value = |name: &str| metrics.sum(name, &[]).unwrap_or_default();
        (value("mainstay_reconcile_duration_seconds_sum"), value("mainstay_reconcile_duration_seconds_count"))
    };
    let before = reading();
    let lap = world.meter.start_own();
    for turn in 0..5 {
        let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: unused}}\ndata: {{turn: '{turn}'}}\n");
        world.sandbox.write("unused.yaml", &text);
        // Long enough for the pass; a scrape to find its end would cost more than the pass.
        std::thread::sleep(Duration::from_millis(400));
    }
    let sample = lap.done();
    let after = reading();
    let passes = (after.1 - before.1).max(1.0);
    Sample { wall: (after.0 - before.0) * 1e3 / passes, cpu: sample.cpu.map(|cpu| cpu / passes) }
}

pub(crate) fn figure(value: f64) -> Sample {
    Sample { wall: value, cpu: None }
}

/// Processes of the product other than the agent: they run its binary.
fn shims(world: &World, agent: u32) -> Vec<u32> {
    let binary = fs::canonicalize(world.sandbox.binary()).expect("the binary is there");
    let own = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary);
    let pids = world.sandbox.processes().into_iter().filter_map(|process| u32::try_from(process.pid).ok());
    pids.filter(|pid| *pid != agent).filter(own).collect()
}

/// Proportional set size in MB (proc(5), smaps_rollup).
pub(crate) fn pss(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() * 1024.0 / 1e6
}
