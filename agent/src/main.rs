//! mainstay: one binary. What it is called with decides what it is: the agent, a command, or a helper of a container.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Helpers of containers come here first: they must not have any other thread.
    agent::cli::main()
}
