//! What every implementation of the trait `Runtime` must do, asked of each of them: the simulated one, the built-in one
//! and, through the same shim, runc.
//!
//! The agent relies on these and nothing else, and simulations say something about the product only as far as `sim`
//! passes them as well. This program is also the shim that the containers run under, hence its own `main`.

mod cases;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use futures_util::FutureExt as _;
use world::{Kind, World};

fn main() {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("shim") => runtime::shim::shim_main(args.collect()),
        Some("exec-init") => runtime::exec::exec_main(args.collect()),
        _ => {}
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let mut kinds = vec![Kind::Sim];
    match world::cannot_run() {
        Some(why) => eprintln!("skipped: {why}: only the simulated runtime was asked"),
        None => {
            // What a runtime does to the network is done to one of this process alone.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
            kinds.push(Kind::BuiltIn);
            match world::runc() {
                Some(program) => kinds.push(Kind::External(program)),
                None => eprintln!("skipped: runc is not installed"),
            }
        }
    }
    let all = kinds.iter().flat_map(|kind| cases::ALL.iter().map(move |case| (kind, case)));
    let all = all.filter(|(kind, (_, real, _))| !real || **kind != Kind::Sim);
    let mut failed = Vec::new();
    for (kind, (name, _, case)) in all {
        let full = format!("{}-{name}", kind.name());
        if std::env::args().any(|arg| arg == "--list") {
            println!("{full}: test");
            continue;
        }
        if !filters.is_empty() && !filters.iter().any(|filter| full.contains(filter.as_str())) {
            continue;
        }
        let begin = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| {
            let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            tokio.expect("a reactor").block_on(async {
                let mut world = World::new(kind);
                let outcome = AssertUnwindSafe(case(&mut world)).catch_unwind().await;
                // What a case that failed has left would run for ever.
                world.end().await;
                outcome.unwrap_or_else(|panic| resume_unwind(panic));
            });
        }))
        .is_ok();
        println!("test {full} ... {} ({:?})", if passed { "ok" } else { "FAILED" }, begin.elapsed());
        if !passed {
            failed.push(full);
        }
    }
    if !failed.is_empty() {
        println!("failed: {failed:?}");
        std::process::exit(1);
    }
}
