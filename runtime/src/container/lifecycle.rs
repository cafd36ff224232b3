//! Starting a container through its shim, telling its state, and removing what it leaves.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use spec::observed::Exit;
use spec::time::Timestamp;

use super::cgroup::{self, Layout};
use super::config::ContainerConfig;
use super::handle::{ShimClient, ShimState};
use super::record;

/// How long a start may take before it counts as failed. Covers a cold disk, not a program that is slow to be ready.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Longest wait for the last that is written into a run directory.
const REMOVE_LIMIT: Duration = Duration::from_secs(2);

/// How long SIGKILL may take to empty a cgroup.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// What can fail.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The run directory cannot be written.
    #[error("cannot write {path}")]
    RunDir {
        /// What was written.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The shim could not be run.
    #[error("cannot run the shim")]
    Spawn(#[source] io::Error),
    /// The shim ended without a report.
    #[error("the shim of {id} ended without a report{log}")]
    NoReport {
        /// The attempt.
        id: String,
        /// What it wrote last.
        log: String,
    },
    /// The start took too long.
    #[error("{0} did not start within {START_LIMIT:?}")]
    TimedOut(String),
    /// The shim reported why it failed.
    #[error("{0}")]
    Failed(Failure),
    /// A cgroup could not be emptied or removed.
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    /// The record of its end cannot be written.
    #[error("cannot write exit record {path}")]
    Record {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A run directory cannot be removed.
    #[error("cannot remove {path}")]
    Remove {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a container could not be started, as the shim reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done: `exec`, `rootfs`, `cgroup`, `bundle`, `seccomp`, `create`.
    pub stage: String,
    /// For people; names the field or program.
    pub message: String,
    /// Whether it fails again until an input changes.
    pub permanent: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// What the shim writes on its report pipe, one JSON object a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// Its process id, before anything else.
    Shim(u32),
    /// The program runs.
    Started(Box<Running>),
    /// It does not.
    Failed(Failure),
}

/// A container whose program runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The container's first process.
    pub pid: u32,
    /// Its start time in clock ticks since boot.
    pub start_time: u64,
    /// The shim.
    pub shim_pid: u32,
    /// Its start time in clock ticks since boot.
    pub shim_start_time: u64,
    /// When the program was executed.
    pub started: Timestamp,
    /// What was asked for and could not be given in full: clamped limits, weights without effect.
    pub warnings: Vec<String>,
}

/// How an attempt is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Its shim answers.
    Running(ShimState),
    /// Its shim recorded its end.
    Exited(Exit),
    /// Its shim is gone without a record: whatever was left of it has been killed, and this record written.
    Lost(Exit),
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), ContainerError> {
    let failed = |source| ContainerError::RunDir { path: path.to_owned(), source };
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).map_err(failed)
}

/// Starts an attempt and returns when its program has been executed. On failure nothing of it is left.
///
/// `self_exe` is this program (`/proc/self/exe`, opened once when it started, so that replacing the file by an
/// upgrade is harmless); its `main` hands `shim` on to [`crate::shim::shim_main`].
///
/// # Errors
/// Anything on the way, down to a program that the image does not have.
pub fn start(config: &ContainerConfig, self_exe: &File) -> Result<Running, ContainerError> {
    let failed = |source| ContainerError::RunDir { path: config.dir.clone(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.dir).map_err(failed)?;
    write_private(&ContainerConfig::file(&config.dir), &serde_json::to_vec(config).map_err(|e| failed(e.into()))?)?;
    let log_path = config.dir.join("shim.log");
    write_private(&log_path, b"")?;
    let log = File::options().append(true).open(&log_path).map_err(failed)?;

    let program = format!("/proc/self/fd/{}", self_exe.as_raw_fd());
    let mut child = Command::new(program)
        .arg0("mainstay-shim")
        .arg("shim")
        .arg(&config.dir)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(ContainerError::Spawn)?;
    let mut shim = None;
    let result = match child.stdout.take() {
        Some(pipe) => read_report(pipe, &config.id, &mut shim),
        None => Err(ContainerError::Spawn(io::Error::other("no report pipe"))),
    };
    // The first process only forks the shim and ends.
    let _ = child.wait();
    let error = match result {
        Ok(running) => return Ok(running),
        Err(ContainerError::NoReport { id, .. }) => ContainerError::NoReport { id, log: last_lines(&log_path) },
        Err(error) => error,
    };
    if let Some(shim) = shim {
        // It cleans up and ends by itself after a report; one that hangs is ended.
        end_shim(shim, matches!(error, ContainerError::Failed(_)));
    }
    cleanup(&config.dir, &config.cgroup_path)?;
    Err(error)
}

/// Starts the first process of a process namespace that a pod's containers share, in a cgroup of its own. Its
/// namespace is `/proc/<pid>/ns/pid` of the answer; it belongs to the user namespace `users` when there is one. It lives until [`kill_all`] of that cgroup.
///
/// # Errors
/// The namespace or the cgroup cannot be made.
pub fn start_pod_init(
    dir: &Path,
    cgroup_path: &str,
    users: Option<&Path>,
    self_exe: &File,
) -> Result<Running, ContainerError> {
    let failed = |source| ContainerError::RunDir { path: dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let mut child = Command::new(format!("/proc/self/fd/{}", self_exe.as_raw_fd()))
        .arg0("mainstay-init")
        .args(["shim", "--pod-init"])
        .arg(dir)
        .arg(cgroup_path)
        .args(users)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(ContainerError::Spawn)?;
    let result = match child.stdout.take() {
        Some(pipe) => read_report(pipe, "the pod's first process", &mut None),
        None => Err(ContainerError::Spawn(io::Error::other("no report pipe"))),
    };
    // It only forks the process that stays.
    let _ = child.wait();
    if result.is_err() {
        let layout = Layout::detect()?;
        cgroup::kill_all(&layout, cgroup_path, KILL_LIMIT)?;
        cgroup::remove(&layout, cgroup_path)?;
    }
    result
}

fn last_lines(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let tail: Vec<&str> = text.lines().rev().take(3).collect();
    if tail.is_empty() { String::new() } else { format!(": {}", tail.into_iter().rev().collect::<Vec<_>>().join("; ")) }
}

fn read_report(
    mut pipe: std::process::ChildStdout,
    id: &str,
    shim: &mut Option<rustix::fd::OwnedFd>,
) -> Result<Running, ContainerError> {
    let deadline = Instant::now() + START_LIMIT;
    let mut buffer = Vec::new();
    loop {
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(Report::Shim(pid)) => *shim = pidfd(pid),
                Ok(Report::Started(running)) => return Ok(*running),
                Ok(Report::Failed(failure)) => return Err(ContainerError::Failed(failure)),
                // A report of a newer shim; the one that matters follows.
                Err(_) => {}
            }
        }
        let mut fds = [rustix::event::PollFd::new(&pipe, rustix::event::PollFlags::IN)];
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            rustix::time::Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Err(ContainerError::TimedOut(id.to_owned())),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(ContainerError::Spawn(error.into())),
            Ok(_) => {}
        }
        let mut chunk = [0; 4096];
        match pipe.read(&mut chunk) {
            Ok(0) => return Err(ContainerError::NoReport { id: id.to_owned(), log: String::new() }),
            Ok(count) => buffer.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ContainerError::Spawn(error)),
        }
    }
}

fn pidfd(pid: u32) -> Option<rustix::fd::OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed())?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

/// Waits for a shim to end, with force after a while or at once.
fn end_shim(shim: rustix::fd::OwnedFd, by_itself: bool) {
    use rustix::event::{PollFd, PollFlags, poll};
    let wait = |seconds| {
        let timeout = rustix::time::Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::new(&shim, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0)
    };
    if !(by_itself && wait(10)) {
        let _ = rustix::process::pidfd_send_signal(&shim, rustix::process::Signal::KILL);
        wait(10);
    }
}

/// Tells how an attempt is, also one that another agent started: asks its shim, else reads the record of its end,
/// else it is lost: then everything in its cgroup is killed and its end recorded.
///
/// # Errors
/// What is left of a lost one cannot be killed or recorded.
pub fn inspect(dir: &Path, exit_file: &Path, cgroup_path: &str) -> Result<ContainerState, ContainerError> {
    // A shim that lives has as long as a start may take: on a host that stalls it must not be taken for lost, and its
    // container killed, because it is slow.
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Ok(state) = ShimClient::connect(dir).and_then(|mut client| client.state()) {
            return Ok(ContainerState::Running(state));
        }
        // The record is written before the socket goes away.
        if let Some(found) = record::read_exit(exit_file) {
            return Ok(ContainerState::Exited(found.exit));
        }
        // A shim that is starting or ending holds the lock without answering.
        if !shim_lives(dir) || Instant::now() > deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    lost(dir, exit_file, cgroup_path).map(ContainerState::Lost)
}

/// Whether a shim holds the lock of a run directory.
fn shim_lives(dir: &Path) -> bool {
    let Ok(file) = File::options().read(true).write(true).open(dir.join("shim.lock")) else { return false };
    // Only looks: taking the lock for a moment could turn a starting shim away.
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETLK(&mut lock)).is_ok()
        && lock.l_type != libc::F_UNLCK as libc::c_short
}

fn lost(dir: &Path, exit_file: &Path, cgroup_path: &str) -> Result<Exit, ContainerError> {
    kill_all(cgroup_path)?;
    let config: Option<ContainerConfig> =
        fs::read(ContainerConfig::file(dir)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(external) = config.as_ref().and_then(ContainerConfig::external) {
        external.delete();
    }
    let exit = Exit {
        code: 137,
        signal: Some(9),
        oom: false,
        started: None,
        finished: record::now(),
        finished_unix: record::now_unix(),
        boot_id: record::boot_id(),
        error: Some("lost: its shim was killed or the host was restarted".to_owned()),
        message: None,
        stopped: false,
    };
    let id = config.map(|config| config.id).unwrap_or_default();
    let record = record::ExitRecord { version: 1, id, exit: exit.clone() };
    record::write_exit(exit_file, &record)
        .map_err(|source| ContainerError::Record { path: exit_file.to_owned(), source })?;
    cleanup(dir, cgroup_path)?;
    Ok(exit)
}

/// Ends every process of a cgroup and waits until they are gone. One that does not exist is fine.
///
/// # Errors
/// Some do not go.
pub fn kill_all(cgroup_path: &str) -> Result<(), ContainerError> {
    let layout = Layout::detect()?;
    Ok(cgroup::kill_all(&layout, cgroup_path, KILL_LIMIT)?)
}

/// Removes what an ended attempt left: its cgroup, with any process still in it, and its run directory.
/// Done again it does nothing. The mounts went with the shim.
///
/// # Errors
/// Something is still in use.
pub fn cleanup(dir: &Path, cgroup_path: &str) -> Result<(), ContainerError> {
    let layout = Layout::detect()?;
    cgroup::kill_all(&layout, cgroup_path, KILL_LIMIT)?;
    cgroup::remove(&layout, cgroup_path)?;
    let limit = Instant::now() + REMOVE_LIMIT;
    loop {
        match fs::remove_dir_all(dir) {
            // The end is told before the shim or its runtime has done the last there.
            Err(source) if source.kind() == io::ErrorKind::DirectoryNotEmpty && Instant::now() < limit => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(ContainerError::Remove { path: dir.to_owned(), source });
            }
            _ => return Ok(()),
        }
    }
}
