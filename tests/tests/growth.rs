//! How the work of reading and planning grows with the number of objects, in instructions that valgrind counts: they
//! are the same in each run to a few in ten thousand, on whatever machine, so that a quadratic step cannot hide.

use std::fmt::Write as _;
use std::process::Command;

use tests::manifest::typical;

const FEW: u32 = 10;
const TIMES: u32 = 8;

/// Instructions of `mainstay COMMAND` over a directory with so many objects.
fn instructions(command: &str, objects: u32) -> u64 {
    let world = tempfile::tempdir().expect("a temporary directory can be made");
    let at = |name: &str| world.path().join(name);
    std::fs::create_dir(at("manifests")).expect("the directory is ours");
    let text: String = (0..objects).map(typical).collect();
    std::fs::write(at("manifests/all.yaml"), text).expect("the directory is ours");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(tests::binary::mainstay())
        .arg("--data-dir")
        .arg(at("data"))
        .arg("--run-dir")
        .arg(at("run"))
        .arg(command)
        .arg(at("manifests"))
        .env_clear()
        .output()
        .expect("valgrind can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    let changes = i32::from(command == "plan");
    assert_eq!(output.status.code(), Some(changes), "{said}");
    let counted = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    counted.unwrap_or_else(|| panic!("no count in: {said}"))
}

#[test]
fn work_grows_with_the_number_of_objects_and_no_faster() {
    let there = Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        return tests::sandbox::skipped("work_grows_with_the_number_of_objects_and_no_faster", "valgrind is not here");
    }
    let mut table = String::new();
    let mut most = 0.0;
    for command in ["validate", "plan"] {
        let (few, many) = (instructions(command, FEW), instructions(command, FEW * TIMES));
        let growth = many as f64 / few as f64;
        most = f64::max(most, growth);
        writeln!(
            table,
            "{command}: {few} instructions for {FEW} objects, {growth:.2} times that for {TIMES} times as many"
        )
        .expect("writing into a string works");
    }
    print!("{table}");
    // What is done once, whatever the number, makes it less.
    assert!(most < f64::from(TIMES), "{table}");
}
