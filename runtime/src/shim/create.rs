//! Making the container: root file system, cgroup, bundle, libcontainer's create and start.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use spec::causes::chain;

use super::cgroup_mount::CgroupMount;
use super::executor::LaunchExecutor;
use super::{details, failure, mapped, permanent, rootfs, start_time};
use crate::container::bundle::{self, BundleError};
use crate::container::caps;
use crate::container::cgroup::{self, CgroupError, Layout};
use crate::container::lifecycle::{Failure, Running};
use crate::container::{ContainerConfig, Mount, MountKind, Namespace, Namespaces, record};
use crate::exec::launch::Launch;
use crate::exec::limits;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;

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
        });
    }
    Ok(config)
}

/// Opens pinned namespaces and names them by descriptor: their paths go with `left_behind`.
fn open_namespaces(namespaces: &mut Namespaces) -> Result<Vec<OwnedFd>, Failure> {
    let mut opened = Vec::new();
    for namespace in [&mut namespaces.net, &mut namespaces.ipc, &mut namespaces.uts, &mut namespaces.pid] {
        if let Namespace::Path(path) = namespace {
            let file = File::open(&*path).map_err(io_failure("create", &format!("open {}", path.display())))?;
            *namespace = Namespace::Path(format!("/proc/self/fd/{}", file.as_raw_fd()).into());
            opened.push(OwnedFd::from(file));
        }
    }
    if let Some(users) = &mut namespaces.user {
        let file = File::open(&users.path).map_err(io_failure("create", "open the pod's user namespace"))?;
        users.path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        opened.push(OwnedFd::from(file));
    }
    Ok(opened)
}

/// Where the termination message is on the host.
pub(super) fn termination_file(dir: &Path) -> std::path::PathBuf {
    dir.join("termination-log")
}

/// Makes the container and runs its program.
pub(super) fn create(config: &ContainerConfig, inherited_oom_score: &str) -> Result<Created, Failure> {
    let mut warnings = Vec::new();
    let all = caps::bounding();
    let launch = Launch::of(config, all, &mut warnings)?;
    let mut config = with_termination_file(config)?;
    // Dropped at the end of this function: only the container's own processes keep its namespaces alive.
    let _opened = open_namespaces(&mut config.namespaces)?;
    rootfs::prepare(&config)?;
    mapped::map_mounts(&mut config)?;
    let (oci, rules) = bundle::build(&config, all).map_err(|error| bundle_failure(&error))?;
    let bundle_dir = bundle::bundle_dir(&config.dir);
    write_bundle(&bundle_dir, &oci).map_err(io_failure("bundle", "write the bundle"))?;

    let layout = Layout::detect().map_err(|error| failure("cgroup", chain(&error)))?;
    let limits = cgroup::create(&layout, &config.cgroup_path, &config.resources, Some(&rules));
    warnings.extend(limits.map_err(|error| match error {
        CgroupError::NoController { .. } => permanent("cgroup", error.to_string()),
        other => failure("cgroup", chain(&other)),
    })?);

    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from);
    let io_pipe = || pipe().map_err(io_failure("create", "make a pipe"));
    let (error_read, error_write) = io_pipe()?;
    let state_dir = config.dir.join("state");
    fs::create_dir_all(&state_dir).map_err(io_failure("create", "make the state directory"))?;

    let lib = |error: libcontainer::error::LibcontainerError| {
        failure("create", format!("cannot create the container: {}", chain(&error)))
    };
    details::send_to(error_write.as_raw_fd());
    let executor = LaunchExecutor {
        launch: Rc::new(launch),
        errors: error_write.as_raw_fd(),
        device_dirs: bundle::device_dirs(&oci),
        cgroups: CgroupMount::of(&config, &layout),
    };
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
        if let Some(users) = &config.namespaces.user {
            // Inside, nobody can do that: it is a file of the host.
            for pipe in [Some(&out_write), Some(&err_write), stdin.as_ref().map(|_| &input)].into_iter().flatten() {
                let given = mapped::give_pipe(pipe, users, config.user.uid, config.user.gid);
                given.map_err(io_failure("create", "give a pipe to the container"))?;
            }
        }
        (stdout, stderr) = (Some(out_read), Some(err_read));
        builder = builder.with_stdin(input).with_stdout(out_write).with_stderr(err_write);
    }
    let built = builder.as_init(&bundle_dir).with_systemd(false).with_detach(true).build();
    let mut container = match built {
        Ok(container) => container,
        Err(error) => {
            details::stop();
            drop(error_write);
            return Err(explain(&error, error_read));
        }
    };
    details::stop();
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
    limits::apply(&config, pid, inherited_oom_score, &mut warnings);

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

/// Why libcontainer could not make the container: what it logged first, else its error.
fn explain(error: &libcontainer::error::LibcontainerError, details: OwnedFd) -> Failure {
    let mut text = Vec::new();
    // Its processes are gone or going, and the pipe ends with them.
    let _ = File::from(details).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    let (detail, _) = details::split(&text);
    let cause = detail.map_or_else(|| chain(error), str::to_owned);
    failure("create", format!("cannot create the container: {cause}"))
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
    let text = String::from_utf8_lossy(&text);
    let (detail, report) = details::split(&text);
    match (serde_json::from_str(&report), detail) {
        (Ok(failed), _) => Err(failed),
        (Err(_), Some(detail)) => Err(failure("exec", format!("cannot start the container: {detail}"))),
        (Err(_), None) if report.is_empty() => Ok(()),
        (Err(_), None) => Err(failure("exec", report)),
    }
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
    fn a_report_of_the_first_process_is_passed_on() {
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        let sent = permanent("exec", "no program \"x\" in the image");
        rustix::io::write(write.as_fd(), &serde_json::to_vec(&sent).expect("JSON")).expect("written");
        drop(write);
        assert_eq!(wait_exec(read), Err(sent));
    }
}
