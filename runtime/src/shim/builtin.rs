//! The built-in runtime: libcontainer, linked into this process, with an executor of our own.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use spec::causes::chain;

use super::cgroup_mount::CgroupMount;
use super::create::{Made, Streams, io_failure, pipe};
use super::executor::LaunchExecutor;
use super::{details, failure};
use crate::container::cgroup::Layout;
use crate::container::lifecycle::Failure;
use crate::container::{ContainerConfig, bundle};
use crate::exec::launch::Launch;

/// Makes the container of a bundle that is written.
pub(super) fn make(
    config: &ContainerConfig,
    layout: &Layout,
    launch: Launch,
    device_dirs: BTreeSet<PathBuf>,
    streams: Streams,
) -> Result<Made, Failure> {
    let lib = |error: libcontainer::error::LibcontainerError| {
        failure("create", format!("cannot create the container: {}", chain(&error)))
    };
    let (error_read, error_write) = pipe()?;
    details::send_to(error_write.as_raw_fd());
    let executor = LaunchExecutor {
        launch: Rc::new(launch),
        errors: error_write.as_raw_fd(),
        device_dirs,
        cgroups: CgroupMount::of(config, layout),
    };
    let mut builder = ContainerBuilder::new(config.id.clone(), SyscallType::default())
        .validate_id()
        .and_then(|builder| builder.with_root_path(config.dir.join("state")))
        .map_err(lib)?
        .with_executor(executor);
    let mut console = None;
    match streams {
        Streams::Pipes([stdin, stdout, stderr]) => {
            builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
        }
        Streams::Terminal(socket) => {
            builder = builder.with_console_socket(Some(socket.path().to_owned()));
            console = Some(socket);
        }
    }
    let bundle = bundle::bundle_dir(&config.dir);
    let built = builder.as_init(&bundle).with_systemd(false).with_detach(true).build();
    details::stop();
    drop(error_write);
    let mut container = match built {
        Ok(container) => container,
        Err(error) => return Err(explain(&error, error_read)),
    };
    let pid = container.pid().map(|pid| pid.as_raw().cast_unsigned()).unwrap_or(0);
    let start = move || {
        container.start().map_err(lib)?;
        wait_exec(error_read)
    };
    Ok(Made { pid, console, start: Box::new(start) })
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::shim::permanent;

    #[test]
    fn a_report_of_the_first_process_is_passed_on() {
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        let sent = permanent("exec", "no program \"x\" in the image");
        rustix::io::write(write.as_fd(), &serde_json::to_vec(&sent).expect("JSON")).expect("written");
        drop(write);
        assert_eq!(wait_exec(read), Err(sent));
    }
}
