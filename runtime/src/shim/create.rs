//! Making the container: root file system, cgroup and streams here, the rest by the runtime ([`builtin`] or
//! [`external`]).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use spec::causes::chain;

use super::{builtin, external, failure, mapped, permanent, rootfs, start_time};
use crate::container::bundle::{self, BundleError};
use crate::container::caps;
use crate::container::cgroup::{self, CgroupError, Layout};
use crate::container::console::Console;
use crate::container::lifecycle::{Failure, Running};
use crate::container::{ContainerConfig, Mount, MountKind, Namespace, record};
use crate::exec::launch::Launch;
use crate::exec::limits;

/// A container whose program runs, and the shim's ends of its streams.
pub(super) struct Created {
    pub(super) running: Running,
    pub(super) pidfd: OwnedFd,
    /// Output and error pipes, or the terminal alone.
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
}

pub(super) fn io_failure(stage: &'static str, what: &str) -> impl Fn(io::Error) -> Failure {
    move |error| failure(stage, format!("cannot {what}: {error}"))
}

fn bundle_failure(error: &BundleError) -> Failure {
    // A volume may be there at the next try.
    let permanent = !matches!(error, BundleError::Source { .. });
    Failure { permanent, ..failure("bundle", chain(error)) }
}

/// Adds the file that the termination message is read from.
fn with_termination_file(config: &ContainerConfig) -> Result<ContainerConfig, Failure> {
    let mut config = config.clone();
    if let Some(target) = config.termination_message_path.clone() {
        let source = termination_file(&config.dir);
        let made = File::create(&source).and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o666)));
        made.map_err(io_failure("create", "make the termination message file"))?;
        config.mounts.push(Mount {
            source,
            target: target.into(),
            kind: MountKind::Bind,
            read_only: false,
            recursive_read_only: false,
            propagation: None,
            shifted: false,
        });
    }
    Ok(config)
}

/// Opens pinned namespaces and names them by descriptor: their paths go with `left_behind`.
fn open_namespaces(config: &mut ContainerConfig) -> Result<Vec<OwnedFd>, Failure> {
    // libcontainer's processes inherit the descriptors, those of other runtimes look into this process.
    let owner = if config.runtime.is_none() { "self".to_owned() } else { std::process::id().to_string() };
    let namespaces = &mut config.namespaces;
    let mut opened = Vec::new();
    for namespace in [&mut namespaces.net, &mut namespaces.ipc, &mut namespaces.uts, &mut namespaces.pid] {
        if let Namespace::Path(path) = namespace {
            let file = File::open(&*path).map_err(io_failure("create", &format!("open {}", path.display())))?;
            *namespace = Namespace::Path(format!("/proc/{owner}/fd/{}", file.as_raw_fd()).into());
            opened.push(OwnedFd::from(file));
        }
    }
    if let Some(users) = &mut namespaces.user {
        let file = File::open(&users.path).map_err(io_failure("create", "open the pod's user namespace"))?;
        users.path = format!("/proc/{owner}/fd/{}", file.as_raw_fd()).into();
        opened.push(OwnedFd::from(file));
    }
    Ok(opened)
}

/// Where the termination message is on the host.
pub(super) fn termination_file(dir: &Path) -> std::path::PathBuf {
    dir.join("termination-log")
}

/// Makes the container and runs its program.
pub(super) fn create(config: &ContainerConfig) -> Result<Created, Failure> {
    let mut warnings = Vec::new();
    let all = caps::bounding();
    let launch = Launch::of(config, all, &mut warnings)?;
    let mut config = with_termination_file(config)?;
    if config.namespaces.user.is_some() && config.runtime.is_some() {
        return Err(permanent("create", "`hostUsers: false` works with the built-in runtime only"));
    }
    // Dropped at the end of this function: only the container's own processes keep its namespaces alive.
    let _opened = open_namespaces(&mut config)?;
    rootfs::prepare(&config)?;
    mapped::map_mounts(&mut config)?;
    let (oci, rules) = bundle::build(&config, all).map_err(|error| bundle_failure(&error))?;
    if config.runtime.is_none() {
        write_bundle(&config, &oci)?;
    }

    let layout = Layout::detect().map_err(|error| failure("cgroup", chain(&error)))?;
    let limits = cgroup::create(&layout, &config.cgroup_path, &config.resources, Some(&rules));
    warnings.extend(limits.map_err(|error| match error {
        CgroupError::NoController { .. } | CgroupError::Device { .. } => permanent("cgroup", chain(&error)),
        other => failure("cgroup", chain(&other)),
    })?);
    fs::create_dir_all(config.dir.join("state")).map_err(io_failure("create", "make the state directory"))?;

    let (ours, theirs) = streams(&config)?;
    let made = match &config.runtime {
        None => builtin::make(&config, &layout, launch, bundle::device_dirs(&oci), theirs)?,
        Some(_) => external::make(&config, &launch, theirs, (oci, &rules), &mut warnings)?,
    };
    if config.runtime.is_some() {
        // It has set them.
        config.ulimits.clear();
    }
    let pid = made.pid;
    let pidfd = rustix::process::Pid::from_raw(pid.cast_signed())
        .ok_or_else(|| failure("create", "the runtime gave no pid"))
        .and_then(|pid| {
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                .map_err(|error| failure("create", format!("cannot open a pidfd: {error}")))
        })?;
    let terminal = match made.console {
        Some(console) => Some(console.receive().map_err(io_failure("create", "receive the terminal"))?),
        None => None,
    };
    limits::apply(&config, pid, &mut warnings);

    (made.start)()?;
    Ok(Created {
        running: Running {
            pid,
            start_time: start_time(pid),
            shim_pid: std::process::id(),
            shim_start_time: start_time(std::process::id()),
            started: record::now(),
            warnings,
        },
        pidfd,
        stdout: ours.stdout,
        stderr: ours.stderr,
        stdin: ours.stdin,
        terminal,
    })
}

/// A container whose first process waits to be told to become the program.
pub(super) struct Made {
    pub(super) pid: u32,
    /// Where its terminal has arrived.
    pub(super) console: Option<Console>,
    /// Tells it; answers when the program runs, as far as the runtime knows.
    pub(super) start: Box<dyn FnOnce() -> Result<(), Failure>>,
}

/// The shim's ends of the container's streams; none with a terminal.
#[derive(Default)]
struct Ours {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
}

/// What the container's first process is given.
pub(super) enum Streams {
    /// stdin, stdout and stderr.
    Pipes([OwnedFd; 3]),
    /// A terminal, which the runtime makes and sends here.
    Terminal(Console),
}

pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    let made = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from);
    made.map_err(io_failure("create", "make a pipe"))
}

fn streams(config: &ContainerConfig) -> Result<(Ours, Streams), Failure> {
    if config.tty {
        let console = Console::listen(&config.dir, "console.sock").map_err(io_failure("create", "make the console"))?;
        return Ok((Ours::default(), Streams::Terminal(console)));
    }
    let (out_read, out_write) = pipe()?;
    let (err_read, err_write) = pipe()?;
    let (input, stdin): (OwnedFd, _) = if config.stdin {
        let (in_read, in_write) = pipe()?;
        (in_read, Some(in_write))
    } else {
        (File::open("/dev/null").map_err(io_failure("create", "open /dev/null"))?.into(), None)
    };
    for end in [&out_write, &err_write] {
        // A program may reopen /dev/stdout whatever its user: the pipe is then its own.
        let _ = rustix::fs::fchown(end, unix_uid(config.user.uid), unix_gid(config.user.gid));
    }
    if let Some(users) = &config.namespaces.user {
        // Inside, nobody can do that: it is a file of the host.
        for pipe in [Some(&out_write), Some(&err_write), stdin.as_ref().map(|_| &input)].into_iter().flatten() {
            let given = mapped::give_pipe(pipe, users, config.user.uid, config.user.gid);
            given.map_err(io_failure("create", "give a pipe to the container"))?;
        }
    }
    let ours = Ours { stdout: Some(out_read), stderr: Some(err_read), stdin };
    Ok((ours, Streams::Pipes([input, out_write, err_write])))
}

fn unix_uid(id: u32) -> Option<rustix::fs::Uid> {
    Some(rustix::fs::Uid::from_raw(id))
}

fn unix_gid(id: u32) -> Option<rustix::fs::Gid> {
    Some(rustix::fs::Gid::from_raw(id))
}

/// Writes the configuration that the runtime reads; the directory that it is in.
pub(super) fn write_bundle(config: &ContainerConfig, oci: &serde_json::Value) -> Result<PathBuf, Failure> {
    let dir = bundle::bundle_dir(&config.dir);
    let write = || {
        fs::create_dir_all(&dir)?;
        let path = dir.join("config.json");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(&serde_json::to_vec(oci).map_err(io::Error::other)?)
    };
    write().map_err(io_failure("bundle", "write the bundle"))?;
    Ok(dir)
}

/// Removes what a failed or ended container has: processes, mount, cgroup, libcontainer's state.
pub(super) fn undo(config: &ContainerConfig) {
    let removed = Layout::detect().and_then(|layout| {
        cgroup::kill_all(&layout, &config.cgroup_path, Duration::from_secs(10))?;
        // Children that were killed are still to be waited for.
        while nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG))
            .is_ok_and(|status| status != nix::sys::wait::WaitStatus::StillAlive)
        {}
        if let Some(external) = config.external() {
            external.delete();
        }
        rootfs::release(config);
        cgroup::remove(&layout, &config.cgroup_path)
    });
    if let Err(error) = removed {
        eprintln!("mainstay shim: {}", chain(&error));
    }
    let _ = fs::remove_dir_all(config.dir.join("state"));
}
