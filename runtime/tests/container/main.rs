//! Real containers, as root, seen from outside: through the log, /proc, the cgroup files and the mount table.
//!
//! Every case runs under the built-in runtime and, but for a few, under runc through the same shim.
//!
//! This program is also the shim that the containers run under, hence its own `main`. Every test has its own
//! directory and cgroup and checks at its end that nothing is left of either.

mod bench;
mod cases;
mod fixture;
mod parity;

use std::panic::{AssertUnwindSafe, catch_unwind};

use runtime::container::external::Program;

fn main() {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("shim") => runtime::shim::shim_main(args.collect()),
        Some("exec-init") => runtime::exec::exec_main(args.collect()),
        Some("bench") => {
            let rounds = args.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(20);
            return bench::run(rounds);
        }
        Some("probe") => {
            let script = args.next().and_then(|text| text.into_string().ok()).unwrap_or_default();
            let fixture = fixture::Fixture::new("probe", None);
            print!("{}", fixture.probe(&script, |_| {}));
            return fixture.assert_nothing_left();
        }
        Some("start-and-die") => fixture::start_and_die(args.collect()),
        _ => {}
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if std::env::args().any(|arg| arg == "--list") {
        cases::ALL.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    if let Some(why) = fixture::cannot_run() {
        eprintln!("skipped: {why}");
        return;
    }
    let mut rounds: Vec<(String, Option<Program>, cases::Test)> =
        cases::ALL.iter().map(|(name, case)| ((*name).to_owned(), None, *case)).collect();
    match fixture::runc() {
        Some(program) => {
            let same = cases::ALL.iter().filter(|(name, _)| !cases::BUILT_IN_ONLY.contains(name));
            let own = cases::EXTERNAL.iter().chain(same);
            rounds.extend(own.map(|(name, case)| (format!("runc-{name}"), Some(program.clone()), *case)));
        }
        None => eprintln!("skipped: runc is not installed: no container ran under another runtime"),
    }
    let mut failed = Vec::new();
    for (name, program, case) in rounds {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let begin = std::time::Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| {
            let fixture = fixture::Fixture::new(&name, program);
            case(&fixture);
            fixture.assert_nothing_left();
        }))
        .is_ok();
        println!("test {name} ... {} ({:?})", if passed { "ok" } else { "FAILED" }, begin.elapsed());
        if !passed {
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        println!("failed: {failed:?}");
        std::process::exit(1);
    }
}
