//! The first process of a pod whose containers share one process namespace (`shareProcessNamespace`).
//!
//! It reaps what is orphaned in there and does nothing else. Containers of the pod can look at it as their PID 1, so
//! it has an empty root, no capabilities and nothing of the host.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::{failure, report};
use crate::container::cgroup::{self, Layout};
use crate::container::lifecycle::{Failure, Report, Running};
use crate::container::record;
use crate::sys::{self, CapMasks, Fork};

/// Makes the namespace with its first process, reports that, and leaves it alone.
pub(super) fn run(dir: &Path, cgroup: &str, users: Option<&Path>) -> i32 {
    match make(dir, cgroup, users) {
        Ok(running) => {
            report(&Report::Started(Box::new(running)));
            0
        }
        Err(failed) => {
            report(&Report::Failed(failed));
            1
        }
    }
}

fn make(dir: &Path, cgroup: &str, users: Option<&Path>) -> Result<Running, Failure> {
    let step = |what: &'static str| move |error: std::io::Error| failure("create", format!("cannot {what}: {error}"));
    sys::assert_single_thread().map_err(step("make a process namespace"))?;
    let layout = Layout::detect().map_err(|error| failure("cgroup", spec::causes::chain(&error)))?;
    cgroup::attach(&layout, cgroup, std::process::id())
        .map_err(|error| failure("cgroup", spec::causes::chain(&error)))?;
    let empty = dir.join("empty");
    fs::create_dir_all(&empty).map_err(step("make an empty root"))?;
    if let Some(users) = users {
        let users = fs::File::open(users).map_err(step("open the pod's user namespace"))?;
        sys::setns(users.as_fd(), libc::CLONE_NEWUSER).map_err(step("enter the pod's user namespace"))?;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)
        .map_err(|error| step("make a process namespace")(error.into()))?;
    // The child tells by the end of this pipe that it has let go of the host.
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| step("make a pipe")(error.into()))?;
    match sys::fork().map_err(step("fork"))? {
        Fork::Child => {
            drop(read);
            let settled = settle(&empty, users.is_some());
            if let Err(error) = settled {
                let _ = rustix::io::write(&write, error.to_string().as_bytes());
                std::process::exit(1);
            }
            drop(write);
            reap()
        }
        Fork::Parent(pid) => {
            drop(write);
            let mut text = String::new();
            std::io::Read::read_to_string(&mut fs::File::from(read), &mut text).map_err(step("read a pipe"))?;
            if !text.is_empty() {
                return Err(failure("create", format!("cannot isolate the pod's first process: {text}")));
            }
            let start_time = super::start_time(pid);
            Ok(Running { pid, start_time, started: record::now(), ..Running::default() })
        }
    }
}

/// Gives up everything of the host.
fn settle(empty: &Path, mapped: bool) -> std::io::Result<()> {
    rustix::process::setsid()?;
    // Its arguments are paths of the host, and containers can read them.
    let _ = sys::set_command_line("mainstay-init");
    let _ = fs::write("/proc/self/oom_score_adj", "-998");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), empty, Some("tmpfs"), flags | MsFlags::MS_RDONLY, Some("size=0,mode=555"))?;
    std::env::set_current_dir(empty)?;
    rustix::process::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")?;
    if mapped {
        // Until here it was the host's root by its number, to whom its directory belongs.
        sys::set_ids(0, 0, &[])?;
    }
    SigSet::all().thread_block()?;
    nix::sys::prctl::set_name(c"mainstay-init")?;
    sys::close_standard();
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    sys::capset(CapMasks::default())
}

fn reap() -> ! {
    let signals = SigSet::all();
    loop {
        match signals.wait() {
            Ok(Signal::SIGTERM | Signal::SIGINT) => std::process::exit(0),
            _ => {
                while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
            }
        }
    }
}
