//! Making the container: root file system, cgroup, bundle, libcontainer's create and start.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use spec::pod::Seccomp;

use super::executor::LaunchExecutor;
use super::{chain, failure, permanent, rootfs, start_time};
use crate::container::bundle::{self, BundleError};
use crate::container::caps::{self, CapSet};
use crate::container::cgroup::{self, CgroupError, Layout};
use crate::container::lifecycle::{Failure, Running};
use crate::container::{ContainerConfig, Mount, MountKind, record, seccomp};
use crate::exec::launch::Launch;
use crate::sys;

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

fn io_failure(stage: &'static str, what: &str) -> impl Fn(io::Error) -> Failure {
    move |error| failure(stage, format!("cannot {what}: {error}"))
}

/// The launch of the container's program, with what it could not be given.
fn launch(config: &ContainerConfig, all: CapSet, warnings: &mut Vec<String>) -> Result<Launch, Failure> {
    let security = &config.security;
    let wanted = caps::wanted(security).map_err(|error| permanent("create", error.to_string()))?;
    let missing = wanted.without(all);
    if !security.privileged && missing != CapSet::EMPTY {
        let names: Vec<&str> = missing.numbers().filter_map(caps::name).collect();
        warnings.push(format!("capabilities that this host does not let us pass on: {}", names.join(", ")));
    }
    let wanted = wanted.without(missing);
    let profile = if security.privileged { Some(Seccomp::Unconfined) } else { security.seccomp.clone() };
    let filter = seccomp::filter_for(profile.as_ref(), wanted).map_err(|e| permanent("seccomp", chain(&e)))?;
    Ok(Launch {
        args: config.args.clone(),
        env: config.env.0.clone(),
        cwd: config.cwd.clone(),
        make_cwd: true,
        user: config.user.clone(),
        caps: wanted,
        no_new_privs: security.allow_privilege_escalation == Some(false) && !security.privileged,
        filter,
        init: config.init,
        tty: config.tty,
    })
}

fn bundle_failure(error: &BundleError) -> Failure {
    permanent("bundle", chain(error))
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
        });
    }
    Ok(config)
}

/// Where the termination message is on the host.
pub(super) fn termination_file(dir: &Path) -> std::path::PathBuf {
    dir.join("termination-log")
}

/// Makes the container and runs its program.
pub(super) fn create(config: &ContainerConfig, inherited_oom_score: &str) -> Result<Created, Failure> {
    let mut warnings = Vec::new();
    let all = caps::bounding();
    let launch = launch(config, all, &mut warnings)?;
    let config = with_termination_file(config)?;
    let (oci, rules) = bundle::build(&config, all).map_err(|error| bundle_failure(&error))?;
    let bundle_dir = bundle::bundle_dir(&config.dir);
    write_bundle(&bundle_dir, &oci).map_err(io_failure("bundle", "write the bundle"))?;

    let layout = Layout::detect().map_err(|error| failure("cgroup", chain(&error)))?;
    let limits = cgroup::create(&layout, &config.cgroup_path, &config.resources, Some(&rules));
    warnings.extend(limits.map_err(|error| match error {
        CgroupError::NoController { .. } => permanent("cgroup", error.to_string()),
        other => failure("cgroup", chain(&other)),
    })?);
    rootfs::prepare(&config)?;

    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from);
    let io_pipe = || pipe().map_err(io_failure("create", "make a pipe"));
    let (error_read, error_write) = io_pipe()?;
    let state_dir = config.dir.join("state");
    fs::create_dir_all(&state_dir).map_err(io_failure("create", "make the state directory"))?;

    let lib = |error: libcontainer::error::LibcontainerError| failure("create", explain(&error));
    let executor = LaunchExecutor { launch: Rc::new(launch), errors: error_write.as_raw_fd() };
    let mut builder = ContainerBuilder::new(config.id.clone(), SyscallType::default())
        .validate_id()
        .and_then(|builder| builder.with_root_path(&state_dir))
        .map_err(lib)?
        .with_executor(executor);
    let (mut stdout, mut stderr, mut stdin, mut console) = (None, None, None, None);
    if config.tty {
        let path = config.dir.join("console.sock");
        console =
            Some(super::terminal::Console::listen(&config.dir).map_err(io_failure("create", "make the console"))?);
        builder = builder.with_console_socket(Some(path));
    } else {
        let (out_read, out_write) = io_pipe()?;
        let (err_read, err_write) = io_pipe()?;
        let input: OwnedFd = if config.stdin {
            let (in_read, in_write) = io_pipe()?;
            stdin = Some(in_write);
            in_read
        } else {
            File::open("/dev/null").map_err(io_failure("create", "open /dev/null"))?.into()
        };
        for (end, _) in [(&out_write, 1), (&err_write, 2)] {
            // A program may reopen /dev/stdout whatever its user: the pipe is then its own.
            let _ = rustix::fs::fchown(end, unix_uid(config.user.uid), unix_gid(config.user.gid));
        }
        (stdout, stderr) = (Some(out_read), Some(err_read));
        builder = builder.with_stdin(input).with_stdout(out_write).with_stderr(err_write);
    }
    let built = builder.as_init(&bundle_dir).with_systemd(false).with_detach(true).build();
    let mut container = match built {
        Ok(container) => container,
        Err(error) => return Err(lib(error)),
    };
    drop(error_write);
    let pid = container.pid().map(|pid| pid.as_raw().cast_unsigned()).unwrap_or(0);
    let pidfd = rustix::process::Pid::from_raw(pid.cast_signed())
        .ok_or_else(|| failure("create", "libcontainer gave no pid"))
        .and_then(|pid| {
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                .map_err(|error| failure("create", format!("cannot open a pidfd: {error}")))
        })?;
    let terminal = match console {
        Some(console) => Some(console.receive().map_err(io_failure("create", "receive the terminal"))?),
        None => None,
    };
    apply_limits(&config, pid, inherited_oom_score, &mut warnings);

    container.start().map_err(lib)?;
    wait_exec(error_read)?;
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
        stdout,
        stderr,
        stdin,
        terminal,
    })
}

fn unix_uid(id: u32) -> Option<rustix::fs::Uid> {
    Some(rustix::fs::Uid::from_raw(id))
}

fn unix_gid(id: u32) -> Option<rustix::fs::Gid> {
    Some(rustix::fs::Gid::from_raw(id))
}

/// libcontainer's message without its layers of "failed to".
fn explain(error: &libcontainer::error::LibcontainerError) -> String {
    format!("cannot create the container: {}", chain(error))
}

fn write_bundle(dir: &Path, oci: &serde_json::Value) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let path = dir.join("config.json");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec(oci).map_err(io::Error::other)?)
}

/// Waits until the program has been executed, or tells why it was not.
fn wait_exec(errors: OwnedFd) -> Result<(), Failure> {
    let mut text = Vec::new();
    File::from(errors).read_to_end(&mut text).map_err(io_failure("exec", "read the report of the first process"))?;
    if text.is_empty() {
        return Ok(());
    }
    Err(serde_json::from_slice(&text).unwrap_or_else(|_| failure("exec", String::from_utf8_lossy(&text).into_owned())))
}

/// Process limits and OOM score of the first process, from outside and before it runs anything of the image.
/// What the host does not let us raise is clamped: asking for more than there is is common in Compose files.
fn apply_limits(config: &ContainerConfig, pid: u32, inherited_oom_score: &str, warnings: &mut Vec<String>) {
    for (name, limit) in &config.ulimits {
        let Some(resource) = rlimit(name) else {
            warnings.push(format!("unknown ulimit {name}"));
            continue;
        };
        let value = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
        let (soft, hard) = (value(limit.soft), value(limit.hard));
        if sys::prlimit(pid, resource, Some((soft.min(hard), hard))).is_ok() {
            continue;
        }
        let clamped = sys::prlimit(pid, resource, None).and_then(|(_, most)| {
            let hard = hard.min(most);
            sys::prlimit(pid, resource, Some((soft.min(hard), hard))).map(|_| hard)
        });
        warnings.push(match clamped {
            Ok(most) => format!("ulimit {name} is limited to {most} by this host"),
            Err(error) => format!("ulimit {name} cannot be set: {error}"),
        });
    }
    let score = config.oom_score_adj.map_or_else(|| inherited_oom_score.to_owned(), |score| score.to_string());
    let path = format!("/proc/{pid}/oom_score_adj");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == score) {
        return;
    }
    if let Err(error) = fs::write(path, &score) {
        warnings.push(format!("oom_score_adj {score} cannot be set: {error}"));
    }
}

fn rlimit(name: &str) -> Option<u32> {
    Some(match name {
        "cpu" => libc::RLIMIT_CPU,
        "fsize" => libc::RLIMIT_FSIZE,
        "data" => libc::RLIMIT_DATA,
        "stack" => libc::RLIMIT_STACK,
        "core" => libc::RLIMIT_CORE,
        "rss" => libc::RLIMIT_RSS,
        "nproc" => libc::RLIMIT_NPROC,
        "nofile" => libc::RLIMIT_NOFILE,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "as" => libc::RLIMIT_AS,
        "locks" => libc::RLIMIT_LOCKS,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        _ => return None,
    })
}

/// Removes what a failed or ended container has: processes, mount, cgroup, libcontainer's state.
pub(super) fn undo(config: &ContainerConfig) {
    let removed = Layout::detect().and_then(|layout| {
        cgroup::kill_all(&layout, &config.cgroup_path, Duration::from_secs(10))?;
        // Children that were killed are still to be waited for.
        while nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG))
            .is_ok_and(|status| status != nix::sys::wait::WaitStatus::StillAlive)
        {}
        rootfs::release(config);
        cgroup::remove(&layout, &config.cgroup_path)
    });
    if let Err(error) = removed {
        eprintln!("mainstay shim: {}", chain(&error));
    }
    let _ = fs::remove_dir_all(config.dir.join("state"));
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn limits_have_names() {
        assert_eq!(rlimit("nofile"), Some(libc::RLIMIT_NOFILE));
        assert_eq!(rlimit("NOFILE"), None);
    }

    #[test]
    fn a_report_of_the_first_process_is_passed_on() {
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        let sent = permanent("exec", "no program \"x\" in the image");
        rustix::io::write(write.as_fd(), &serde_json::to_vec(&sent).expect("JSON")).expect("written");
        drop(write);
        assert_eq!(wait_exec(read), Err(sent));
    }
}
