//! The shim: the small process that is the parent of one container, and outlives the agent.
//!
//! `mainstay shim DIR` reads `DIR/config.json`, forks away from its caller, makes the container with libcontainer,
//! reports on its standard output when the program runs, and then serves until the end: log, control socket, exit
//! record. When the program runs it executes itself once more as `mainstay shim DIR STATE`, to be small. One thread, no async runtime. libcontainer clones without exec and goes on allocating in the child, which
//! is only sound in a process with one thread: [`shim_main`] is to be called before anything starts another.

mod builtin;
mod cgroup_mount;
mod control;
mod create;
mod details;
mod executor;
mod external;
pub(crate) mod frames;
mod log;
pub(crate) mod mapped;
mod pod_init;
mod renew;
mod rootfs;
mod serve;

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use crate::container::cgroup::{self, Layout};
use crate::container::lifecycle::{Failure, Report};
use crate::container::{ContainerConfig, record};
use crate::sys::{self, Fork};

/// Runs as a shim and ends the process. `args` are those behind `shim`: the run directory; or `--pod-init`, a
/// directory and a cgroup, for the first process of a shared process namespace; or `--namespaces` and what to make,
/// for those of a pod with a user namespace.
pub fn shim_main(args: Vec<std::ffi::OsString>) -> ! {
    let code = match args.first().map(PathBuf::from) {
        Some(flag) if flag.as_os_str() == "--pod-init" => match (args.get(1), args.get(2).and_then(|arg| arg.to_str()))
        {
            (Some(dir), Some(cgroup)) => {
                let _ = sys::close_from(3);
                pod_init::run(Path::new(dir), cgroup, args.get(3).map(Path::new))
            }
            _ => 2,
        },
        Some(flag) if flag.as_os_str() == "--namespaces" => {
            let _ = sys::close_from(3);
            crate::network::hold_namespaces(args.get(1..).unwrap_or_default())
        }
        Some(dir) => match args.get(1).and_then(|arg| arg.to_str()) {
            Some(state) => renew::resume(state),
            None => run(&dir),
        },
        None => {
            eprintln!("mainstay shim: no run directory given");
            2
        }
    };
    std::process::exit(code)
}

fn failure(stage: &str, message: impl Into<String>) -> Failure {
    Failure { stage: stage.to_owned(), message: message.into(), permanent: false }
}

fn permanent(stage: &str, message: impl Into<String>) -> Failure {
    Failure { permanent: true, ..failure(stage, message) }
}

/// Writes a line on the report pipe. Nobody may be listening any more, which changes nothing.
fn report(line: &Report) {
    if let Ok(mut bytes) = serde_json::to_vec(line) {
        bytes.push(b'\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&bytes).and_then(|()| out.flush());
    }
}

fn run(dir: &Path) -> i32 {
    let _ = sys::close_from(3);
    let config: ContainerConfig = match read_config(dir) {
        Ok(config) => config,
        Err(failure) => {
            report(&Report::Failed(failure));
            return 1;
        }
    };
    match sys::fork() {
        Ok(Fork::Parent(child)) => {
            // Moving a process between cgroups waits for an RCU grace period; here it does so while the shim works.
            if !config.shim_cgroup.is_empty()
                && let Err(error) =
                    Layout::detect().and_then(|layout| cgroup::attach(&layout, &config.shim_cgroup, child))
            {
                eprintln!("mainstay shim: {}", spec::causes::chain(&error));
            }
            0
        }
        Ok(Fork::Child) => shim(&config),
        Err(error) => {
            report(&Report::Failed(failure("create", format!("cannot fork the shim: {error}"))));
            1
        }
    }
}

fn read_config(dir: &Path) -> Result<ContainerConfig, Failure> {
    let path = ContainerConfig::file(dir);
    let bytes = std::fs::read(&path).map_err(|e| failure("create", format!("cannot read {}: {e}", path.display())))?;
    serde_json::from_slice(&bytes).map_err(|e| failure("create", format!("cannot parse {}: {e}", path.display())))
}

fn shim(config: &ContainerConfig) -> i32 {
    let pid = std::process::id();
    let lock = match take_lock(&config.dir) {
        Ok(lock) => lock,
        Err(error) => {
            report(&Report::Failed(failure("create", format!("another shim serves {}: {error}", config.id))));
            return 1;
        }
    };
    report(&Report::Shim(pid));
    let _ = rustix::process::setsid();
    let _ = sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0);
    let _ = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Needs CAP_SYS_RESOURCE below the inherited value; without it the shim is as exposed as its parent.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");

    let created = match create::create(config) {
        Ok(created) => created,
        Err(failed) => {
            create::undo(config);
            report(&Report::Failed(failed));
            return 1;
        }
    };
    let running = created.running.clone();
    let mut server = match serve::Server::new(config, created) {
        Ok(server) => server,
        Err(error) => {
            create::undo(config);
            report(&Report::Failed(failure("create", format!("cannot serve the container: {error}"))));
            return 1;
        }
    };
    report(&Report::Started(Box::new(running)));
    // The caller waits for this pipe, or has it open for as long as it lives: no reader may block the shim.
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = sys::dup_onto(null.as_fd(), 1);
    }
    // Comes back only when it cannot be done: then this process goes on as it is.
    let error = renew::renew(&config.dir, &server, &lock);
    eprintln!("mainstay shim: goes on with all the memory of the start: {error}");
    sys::limit_arenas(1);
    sys::trim_heap();
    server.run();
    drop(lock);
    0
}

/// Takes the lock that tells others that this run directory has a live shim. It is this process' alone: children
/// do not inherit it, and it goes when the process does.
fn take_lock(dir: &Path) -> std::io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(dir.join("shim.lock"))?;
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// The start time of a process, or 0 when it is gone already.
fn start_time(pid: u32) -> u64 {
    record::start_time(pid).unwrap_or(0)
}
