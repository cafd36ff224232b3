//! Work that goes on while containers run: logs, programs started inside, probes.

use std::process::{Command, Stdio};
use std::time::Duration;

use tests::Agent;

use crate::Options;
use crate::bell::INSIDE;
use crate::floor::Floor;
use crate::table::{MAINSTAY, Sample, Table};
use crate::world::{Net, World};

const LINES: u32 = 1_000_000;
const CHATTY: u32 = 50;

/// A million lines of 100 bytes, by one container and by fifty.
pub(crate) fn logs(options: &Options) -> Vec<Table> {
    let mut table = Table::new("Logs: a million lines of 100 bytes");
    for _ in 0..options.runs {
        let mut world = World::new("logs");
        let agent = Agent::start(&world.sandbox);
        agent.cli(&["pull", &world.image]).ok();
        for (what, containers) in [("written by 1 container", 1), ("written by 50 containers, start included", CHATTY)]
        {
            let lap = world.meter.start();
            for number in 0..containers {
                chatter(&world, containers, number, LINES / containers);
            }
            let said = world.bell.wait(containers, |line| line.starts_with("chatter "));
            let mut sample = lap.done();
            if let ([only], Some(seconds)) = (said.as_slice(), said.first().and_then(|line| line.rsplit(' ').next())) {
                assert!(only.starts_with("chatter "));
                sample.wall = seconds.parse::<f64>().unwrap_or_default() * 1e3;
            }
            table.add(what, "ms", MAINSTAY, sample);
        }
        drop(agent);
        world.sandbox.down();

        let log = world.sandbox.data().join("floor.log");
        let script = format!(
            "{} chatter /dev/null {LINES} 100 | cat > {}",
            tests::binary::built("tests", "fixture").display(),
            log.display()
        );
        let lap = world.meter.start();
        let mut child =
            Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).spawn().expect("there is a shell");
        let whole = u64::from(LINES) * 100;
        while std::fs::metadata(&log).map_or(0, |meta| meta.len()) < whole {
            assert!(child.try_wait().is_ok_and(|ended| ended.is_none()), "the floor of logs ended early");
            std::thread::sleep(Duration::from_millis(1));
        }
        table.add("written by 1 container", "ms", "floor: a pipe to cat", lap.done());
        world.sandbox.kill_all();
        drop(child.wait());
    }
    vec![table]
}

fn chatter(world: &World, containers: u32, number: u32, lines: u32) {
    let text = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: chatty-{containers}-{number}}}
spec:
  containers:
    - name: main
      image: {}
      args: [chatter, {INSIDE}, '{lines}', '100']
      volumeMounts: [{{name: bell, mountPath: /bell}}]
  volumes:
    - name: bell
      hostPath: {{path: {}}}
",
        world.image,
        world.bell.dir().display()
    );
    world.sandbox.write(&format!("chatty-{containers}-{number}.yaml"), &text);
}

/// A program started in a running container, to its end.
pub(crate) fn exec(options: &Options) -> Vec<Table> {
    let mut table = Table::new("exec: a program started in a container, to its end");
    let mut world = World::new("exec");
    {
        let agent = Agent::start(&world.sandbox);
        world.write_member(0, "first", Net::Own);
        world.bell.wait(1, |_| true);
        for _ in 0..options.runs * 5 {
            let lap = world.meter.start();
            let output = world.sandbox.command().args(["exec", "member-0", "--", "/bin/fixture", "exit", "0"]).output();
            assert!(output.is_ok_and(|output| output.status.success()), "exec works");
            table.add("exec", "ms", MAINSTAY, lap.done());
        }
        drop(agent);
        world.sandbox.down();
    }
    if let Some(floor) = Floor::new(&world.sandbox.data(), world.bell.dir(), &world.sandbox.cgroup_parent(), Net::Own) {
        floor.start(0, "first");
        world.bell.wait(1, |_| true);
        for _ in 0..options.runs * 5 {
            let lap = world.meter.start();
            floor.exec(0, &["/bin/fixture", "exit", "0"]);
            table.add("exec", "ms", &floor.name(), lap.done());
        }
        floor.remove(0);
        floor.end();
    }
    vec![table]
}

/// What probes cost: pods with two probes a second each, CPU of the agent alone.
pub(crate) fn probes(options: &Options) -> Vec<Table> {
    let mut table = Table::new("Probes: CPU of the agent");
    let kinds = [
        ("http", 100, 0, "httpGet: {path: /, port: 8080}"),
        ("tcp", 100, 0, "tcpSocket: {port: 8080}"),
        ("tcp of 500 containers", 100, 4, "tcpSocket: {port: 8080}"),
        ("exec", 10, 0, "exec: {command: [/bin/fixture, exit, '0']}"),
    ];
    for (kind, pods, more, handler) in kinds {
        let world = World::new("probes");
        let mut agent = Agent::start(&world.sandbox);
        agent.cli(&["pull", &world.image]).ok();
        for number in 0..pods {
            let text = format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: probed-{number}}}\nspec:\n  containers:\n    - name: main
      image: {}\n      args: [serve]\n      readinessProbe: {{{handler}, periodSeconds: 1}}
      livenessProbe: {{{handler}, periodSeconds: 1}}\n",
                world.image
            );
            let more = (0..more).map(|container| {
                format!(
                    "    - name: more-{container}
      image: {}\n      args: [sleep, forever]\n      readinessProbe: {{{handler}, periodSeconds: 1}}\n",
                    world.image
                )
            });
            world.sandbox.write(&format!("probed-{number}.yaml"), &(text + &more.collect::<String>()));
        }
        agent.wait_for("all are ready", Duration::from_secs(120), |agent| agent.status().converged.then_some(()));
        // What follows a start is over by then.
        std::thread::sleep(crate::fleet::PROVEN);
        let count = |agent: &Agent<'_>| agent.metrics().sum("mainstay_probes_total", &[]).unwrap_or_default();
        let before = count(&agent);
        let lap = world.meter.start_own();
        std::thread::sleep(Duration::from_secs(options.idle));
        let sample = lap.done();
        let done = (count(&agent) - before).max(1.0);
        let seconds = sample.wall / 1e3;
        table.add(&format!("{kind}: probes a second"), "/s", MAINSTAY, Sample { wall: done / seconds, cpu: None });
        if let Some(cpu) = sample.cpu {
            table.add(
                &format!("{kind}: CPU of one probe"),
                "us",
                MAINSTAY,
                Sample { wall: cpu * 1e6 / done, cpu: None },
            );
        }
        drop(agent);
        world.sandbox.down();
    }
    vec![table]
}
