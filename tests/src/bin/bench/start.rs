//! How long one container takes to start when all that it needs is there: pod, network, image, configuration.
//!
//! For mainstay it is a restart: from kill -9 of a container to the first act of the next one, so the noticing, the
//! record and the decision are in it. For runc and crun it is `run -d` of a bundle that is ready.

use std::time::Duration;

use tests::Agent;

use crate::Options;
use crate::fleet::{killed, settle};
use crate::floor::Floor;
use crate::table::{MAINSTAY, Table};
use crate::world::{Net, World};

/// Containers of one round. Each is killed once: a second kill would find the back-off.
const EACH: u32 = 10;

/// Rounds of everyone, interleaved.
pub(crate) fn measure(options: &Options) -> Vec<Table> {
    let mut table = Table::new("Start of one container, all it needs is there");
    for _ in 0..options.runs {
        let mut world = World::new("start");
        let mut agent = Agent::start(&world.sandbox);
        (0..EACH).for_each(|number| world.write_member(number, "first", Net::Own));
        world.bell.wait(EACH, |_| true);
        settle(&mut agent);
        // What follows a start is over by then.
        std::thread::sleep(Duration::from_secs(5));
        for member in 0..EACH {
            let sample = killed(&mut world.bell, &world.meter, &agent, member);
            table.add("start", "ms", MAINSTAY, sample);
            settle(&mut agent);
        }
        drop(agent);
        world.sandbox.down();
        for runtime in ["runc", "crun"] {
            bare(&mut world, runtime, &mut table);
        }
    }
    vec![table]
}

fn bare(world: &mut World, runtime: &'static str, table: &mut Table) {
    let (data, cgroup) = (world.sandbox.data(), world.sandbox.cgroup_parent());
    let Some(floor) = Floor::with(runtime, &data, world.bell.dir(), &cgroup, Net::Own) else {
        table.note(format!("{runtime} or ip is not installed."));
        return;
    };
    for number in 0..EACH {
        floor.prepare(number, runtime);
        let World { bell, meter, .. } = &mut *world;
        let lap = meter.start();
        floor.run(number);
        bell.wait(1, |line| line == format!("member-{number} {runtime}"));
        table.add("start", "ms", &format!("{runtime} run -d"), lap.done());
    }
    (0..EACH).for_each(|number| floor.remove(number));
    floor.end();
}
