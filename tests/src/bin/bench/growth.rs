//! How validation and planning grow with the number of objects.

use crate::Options;
use crate::table::{MAINSTAY, Table};
use crate::world::World;

const SIZES: [u32; 4] = [10, 100, 1_000, 10_000];
/// Documents of one file: a file may have 1 MiB.
const A_FILE: u32 = 100;

/// `validate` and `plan` of a directory, without an agent.
pub(crate) fn measure(options: &Options) -> Vec<Table> {
    let world = World::new("growth");
    let mut table = Table::new("Objects: validate and plan");
    for size in SIZES {
        for file in 0..size.div_ceil(A_FILE) {
            let numbers = file * A_FILE..size.min((file + 1) * A_FILE);
            let text: String = numbers.map(tests::manifest::typical).collect();
            world.sandbox.write(&format!("part-{file}.yaml"), &text);
        }
        for _ in 0..options.runs {
            for command in ["validate", "plan"] {
                let lap = world.meter.start();
                let output = world.sandbox.command().arg(command).arg(world.sandbox.manifests()).output();
                let sample = lap.done();
                let output = output.expect("the binary can be started");
                let code = output.status.code();
                assert!(code == Some(i32::from(command == "plan")), "{}", String::from_utf8_lossy(&output.stderr));
                table.add(&format!("{command} {size}"), "ms", MAINSTAY, sample);
            }
        }
    }
    vec![table]
}
