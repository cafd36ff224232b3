//! A further process in a container of another OCI runtime: that runtime joins it, this process is its parent.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;

use nix::unistd::Pid;

use super::launch::Launch;
use super::limits;
use crate::container::ContainerConfig;
use crate::container::console::Console;
use crate::container::external::External;
use crate::container::lifecycle::Failure;
use crate::sys;

/// Starts the process; its id and, with a terminal, the master side of that. `name` is unique in the run directory.
/// Signals are to be blocked already, so that its end is not missed.
pub(super) fn start(
    external: External<'_>,
    config: &ContainerConfig,
    launch: &Launch,
    name: &str,
) -> Result<(Pid, Option<OwnedFd>), Failure> {
    let step = super::join::step;
    // The runtime ends when the process runs, which then is ours to wait for.
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).map_err(step("wait for others"))?;
    let mut process = launch.oci_process()?;
    process["rlimits"] = serde_json::json!(limits::oci(config, &mut Vec::new()));
    let (process_file, pid_file) =
        (external.dir.join(format!("{name}.process")), external.dir.join(format!("{name}.pid")));
    let _files = [Temporary(&process_file), Temporary(&pid_file)];
    let bytes = serde_json::to_vec(&process).map_err(|error| step("write the process")(error.into()))?;
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&process_file);
    file.and_then(|mut file| file.write_all(&bytes)).map_err(step("write the process"))?;

    let mut args: Vec<OsString> = vec!["--detach".into(), "--pid-file".into(), (&pid_file).into()];
    args.extend(["--process".into(), (&process_file).into()]);
    let console = launch.tty.then(|| Console::listen(external.dir, &format!("{name}.sock"))).transpose();
    let console = console.map_err(step("make the terminal"))?;
    let streams = match &console {
        Some(console) => {
            args.extend(["--console-socket".into(), console.address().into()]);
            [Stdio::null(), Stdio::null(), Stdio::null()]
        }
        None => [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()],
    };
    let failed = |message| Failure { stage: "exec".to_owned(), message, permanent: false };
    external.call("exec", &args, &[], streams).map_err(failed)?;
    let master = console.map(Console::receive).transpose().map_err(step("receive the terminal"))?;
    let pid = fs::read_to_string(&pid_file).map_err(step("read the pid of the process"))?;
    let pid = pid.trim().parse().map_err(|_| super::join::failure(format!("{pid:?} is no pid")))?;
    Ok((Pid::from_raw(pid), master))
}

/// A file that goes at the end.
struct Temporary<'a>(&'a Path);

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}
