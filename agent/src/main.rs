//! mainstay: one binary. What it is called with decides what it is: the agent, a command, or a helper of a container.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Secrets are opened in memory here, and a crash must not write them to a disk.
    runtime::sys::forbid_core_dump();
    // Helpers of containers come first: they must not have any other thread.
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("shim") => runtime::shim::shim_main(args.collect()),
        Some("exec-init") => runtime::exec::exec_main(args.collect()),
        _ => {
            agent::reload::reap_inherited();
            agent::cli::main()
        }
    }
}
