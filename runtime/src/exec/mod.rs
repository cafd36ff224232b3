//! Running further processes in a container that runs: for people (`mainstay exec`), probes and hooks.
//!
//! Each is the child of a short-lived process of its own (`exec-init`, see [`join`]), so that it stalls neither the
//! shim's log nor the agent. The functions here block; they run in the agent or in the command line's process.

mod attach;
pub mod copy;
mod external;
pub(crate) mod join;
pub(crate) mod launch;
pub(crate) mod limits;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use crate::container::Env;
use crate::container::lifecycle::Failure;

pub use attach::{AttachOptions, Attached, attach};
pub use join::exec_main;

/// What to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecRequest {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Variables beside the container's own, which they replace.
    pub env: Env,
    /// Working directory; the container's when `None`.
    pub cwd: Option<String>,
    /// `user[:group]` by name or number; the container's when `None`.
    pub user: Option<String>,
    /// Give it a terminal, wired to the caller's standard streams.
    pub tty: bool,
    /// Give it every capability and no system call filter.
    pub privileged: bool,
}

/// What can fail.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The request cannot be handed over.
    #[error("cannot write the request to {path}")]
    Request {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process that joins the container cannot be run or waited for.
    #[error("cannot run a process in the container")]
    Spawn(#[source] io::Error),
    /// The container is gone, or the program cannot be executed.
    #[error("{0}")]
    Failed(Failure),
}

/// What a captured run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Exit code; 128 + signal when a signal ended it; `None` when it was ended for taking too long.
    pub code: Option<i32>,
    /// The start of what it wrote to both streams.
    pub output: Vec<u8>,
    /// Whether it wrote more than that.
    pub truncated: bool,
}

/// A process in a container that has been started.
#[derive(Debug)]
pub struct ExecProcess {
    child: Child,
    errors: PathBuf,
}

impl Drop for ExecProcess {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.errors);
    }
}

/// Starts a process in the container of a run directory. `streams` are its stdin, stdout and stderr;
/// [`Stdio::inherit`] for a command line.
///
/// # Errors
/// It cannot be spawned. What goes wrong inside is told by [`ExecProcess::wait`].
pub fn spawn(
    dir: &Path,
    request: &ExecRequest,
    [stdin, stdout, stderr]: [Stdio; 3],
    self_exe: &File,
) -> Result<ExecProcess, ExecError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let unique = format!("exec-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let (path, errors) = (dir.join(format!("{unique}.json")), dir.join(format!("{unique}.err")));
    let write = |path: &Path, bytes: &[u8]| {
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        file.and_then(|mut file| file.write_all(bytes))
            .map_err(|source| ExecError::Request { path: path.to_owned(), source })
    };
    let bytes = serde_json::to_vec(request).map_err(|error| ExecError::Spawn(error.into()))?;
    write(&path, &bytes)?;
    let result = write(&errors, b"").and_then(|()| {
        Command::new(format!("/proc/self/fd/{}", self_exe.as_raw_fd()))
            .arg0("mainstay-exec")
            .arg("exec-init")
            .arg(dir)
            .arg(&unique)
            .env_clear()
            .current_dir("/")
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(ExecError::Spawn)
    });
    match result {
        Ok(child) => Ok(ExecProcess { child, errors }),
        Err(error) => {
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(&errors);
            Err(error)
        }
    }
}

impl ExecProcess {
    /// The parent's ends of piped streams.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Asks the joining process to end the program and itself.
    pub fn kill(&mut self) {
        // It has not been waited for, so its number is still its own.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Waits for its end: the exit code, or 128 + signal.
    ///
    /// # Errors
    /// The program could not be executed.
    pub fn wait(&mut self) -> Result<i32, ExecError> {
        let status = self.child.wait().map_err(ExecError::Spawn)?;
        let text = fs::read(&self.errors).unwrap_or_default();
        if let Ok(failure) = serde_json::from_slice::<Failure>(&text) {
            return Err(ExecError::Failed(failure));
        }
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }
}

/// Runs a process in the container of a run directory with the caller's own standard streams, and returns its exit
/// code. With `tty` and a terminal as stdin that is set to raw mode meanwhile.
///
/// # Errors
/// See [`spawn`] and [`ExecProcess::wait`].
pub fn exec(dir: &Path, request: &ExecRequest, self_exe: &File) -> Result<i32, ExecError> {
    spawn(dir, request, [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()], self_exe)?.wait()
}

/// Runs a process in the container of a run directory, keeps the first `limit` bytes of its output, and ends it
/// after `timeout`.
///
/// # Errors
/// See [`spawn`] and [`ExecProcess::wait`].
pub fn capture(
    dir: &Path,
    request: &ExecRequest,
    limit: usize,
    timeout: Duration,
    self_exe: &File,
) -> Result<Captured, ExecError> {
    let deadline = Instant::now() + timeout;
    let mut process = spawn(dir, request, [Stdio::null(), Stdio::piped(), Stdio::piped()], self_exe)?;
    let mut pipes: Vec<File> = Vec::new();
    pipes.extend(process.child.stdout.take().map(|pipe| File::from(std::os::fd::OwnedFd::from(pipe))));
    pipes.extend(process.child.stderr.take().map(|pipe| File::from(std::os::fd::OwnedFd::from(pipe))));
    for pipe in &pipes {
        rustix::io::ioctl_fionbio(pipe, true).map_err(|error| ExecError::Spawn(error.into()))?;
    }
    let ended = rustix::process::Pid::from_raw(process.child.id().cast_signed())
        .ok_or_else(|| ExecError::Spawn(io::ErrorKind::InvalidData.into()))
        .and_then(|pid| {
            let flags = rustix::process::PidfdFlags::empty();
            rustix::process::pidfd_open(pid, flags).map_err(|error| ExecError::Spawn(error.into()))
        })?;
    let (mut output, mut truncated, mut late) = (Vec::new(), false, false);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = if late { Duration::from_secs(5) } else { left };
        let limit_time =
            rustix::time::Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
        fds.extend(pipes.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        match poll(&mut fds, Some(&limit_time)) {
            Ok(0) if late => {
                let _ = process.child.kill();
            }
            Ok(0) => {
                late = true;
                process.kill();
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(ExecError::Spawn(error.into())),
        }
        // Its end counts, not that of its pipes: a child it left behind may keep them open.
        let over = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        pipes.retain_mut(|pipe| read_some(pipe, &mut output, limit, &mut truncated));
        if over {
            break;
        }
    }
    let code = process.wait();
    if late {
        Ok(Captured { code: None, output, truncated })
    } else {
        Ok(Captured { code: Some(code?), output, truncated })
    }
}

/// Reads what is there; `false` at the end of the pipe.
fn read_some(pipe: &mut File, output: &mut Vec<u8>, limit: usize, truncated: &mut bool) -> bool {
    let mut chunk = [0; 4096];
    // Bounded, so that a program that never stops writing does not hold the loop.
    for _ in 0..64 {
        match pipe.read(&mut chunk) {
            Ok(0) => return false,
            Ok(count) => {
                let room = limit.saturating_sub(output.len()).min(count);
                output.extend_from_slice(chunk.get(..room).unwrap_or_default());
                *truncated |= room < count;
            }
            Err(error) => {
                return error.kind() == io::ErrorKind::WouldBlock || error.kind() == io::ErrorKind::Interrupted;
            }
        }
    }
    true
}
