//! `mainstay exec-init DIR NAME`: joins the container of a run directory and runs one program in it.
//!
//! One thread. Joins cgroup and namespaces, forks (only a child is in the process namespace), waits for the child
//! and ends with its exit code. With a terminal it copies between that and its own standard streams meanwhile.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::ExecRequest;
use super::launch::{self, Launch};
use crate::container::cgroup::{self, Layout};
use crate::container::lifecycle::Failure;
use crate::container::{ContainerConfig, ID_COUNT, ShimClient, User, Users, apparmor, caps, record, users};
use crate::shim::mapped;
use crate::sys::{self, Fork};
use spec::causes::chain;

/// Runs as `exec-init` and ends the process. `args` are those behind it: run directory and name of the request.
pub fn exec_main(args: Vec<std::ffi::OsString>) -> ! {
    let (Some(dir), Some(name)) = (args.first().map(PathBuf::from), args.get(1).and_then(|name| name.to_str())) else {
        eprintln!("mainstay exec-init: run directory and request expected");
        std::process::exit(2);
    };
    let _ = sys::close_from(3);
    let errors = File::options().write(true).open(dir.join(format!("{name}.err")));
    let code = match join(&dir, name, errors.as_ref().ok()) {
        Ok(code) => code,
        Err(failure) => {
            tell(errors.as_ref().ok(), &failure);
            126
        }
    };
    std::process::exit(code)
}

fn tell(errors: Option<&File>, failure: &Failure) {
    if let (Some(mut file), Ok(bytes)) = (errors, serde_json::to_vec(failure)) {
        let _ = file.write_all(&bytes);
    }
}

pub(super) fn failure(message: String) -> Failure {
    Failure { stage: "join".to_owned(), message, permanent: false }
}

pub(super) fn step<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| failure(format!("cannot {what}: {error}"))
}

fn join(dir: &Path, name: &str, errors: Option<&File>) -> Result<i32, Failure> {
    sys::assert_single_thread().map_err(step("join a container"))?;
    let path = dir.join(format!("{name}.json"));
    let bytes = fs::read(&path).map_err(step("read the request"));
    let _ = fs::remove_file(&path);
    let request: ExecRequest = serde_json::from_slice(&bytes?).map_err(step("read the request"))?;
    let config: ContainerConfig = fs::read(ContainerConfig::file(dir))
        .map_err(|error| failure(format!("the container is not running: {error}")))
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(step("read the container's config")))?;
    let state = ShimClient::connect(dir)
        .and_then(|mut shim| shim.state())
        .map_err(|error| failure(format!("the container is not running: {error}")))?;
    let pid =
        rustix::process::Pid::from_raw(state.pid.cast_signed()).ok_or_else(|| failure("no such process".into()))?;
    let target = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        .map_err(step("open the container's first process"))?;
    if record::start_time(state.pid) != Some(state.start_time) {
        return Err(failure("the container is not running any more".to_owned()));
    }

    let launch = launch_of(&config, &request, state.pid)?;
    let signals = SigSet::all();
    if let Some(external) = config.external() {
        signals.thread_block().map_err(step("block signals"))?;
        let (child, master) = super::external::start(external, &config, &launch, name)?;
        return attend(child, &signals, master);
    }
    super::limits::take_over(state.pid);
    // Nobody in there may look into this process while it is neither out nor in.
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).map_err(step("hide from the container"))?;
    Layout::detect()
        .and_then(|layout| cgroup::enter(&layout, &config.cgroup_path, std::process::id(), state.pid))
        .map_err(|error| failure(chain(&error)))?;
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWCGROUP;
    let namespaces = match &config.namespaces.user {
        Some(users) => {
            give_pipes(users, &launch.user);
            namespaces | libc::CLONE_NEWUSER
        }
        None => namespaces,
    };
    sys::setns(target.as_fd(), namespaces).map_err(step("enter the container's namespaces"))?;
    if config.namespaces.user.is_some() {
        if launch.user.uid >= ID_COUNT || launch.user.gid >= ID_COUNT {
            let message = "the user namespace of the container has the users and groups 0 to 65535".to_owned();
            return Err(Failure { permanent: true, ..failure(message) });
        }
        // Root in there, instead of somebody whom it does not know.
        sys::set_ids(0, 0, &[]).map_err(step("become root in the container"))?;
    }

    let terminal = if request.tty { Some(open_terminal()?) } else { None };
    signals.thread_block().map_err(step("block signals"))?;
    match sys::fork().map_err(step("fork"))? {
        Fork::Child => {
            let _ = rustix::process::setsid();
            if let Some((master, slave)) = terminal {
                drop(master);
                let _ = sys::set_controlling_terminal(slave.as_fd());
                for number in 0..3 {
                    let _ = sys::dup_onto(slave.as_fd(), number);
                }
            }
            tell(errors, &launch.run(&|| {}));
            std::process::exit(126)
        }
        Fork::Parent(child) => {
            let master = terminal.map(|(master, _)| master);
            attend(Pid::from_raw(child.cast_signed()), &signals, master)
        }
    }
}

/// Gives pipes without a name to the program, which cannot take files of the host from inside a user namespace.
fn give_pipes(users: &Users, user: &User) {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].into_iter().filter(|stream| launch::is_pipe(*stream))
    {
        let _ = mapped::give_pipe(stream, users, user.uid, user.gid);
    }
}

/// What the program becomes: the container's own settings with those of the request over them.
fn launch_of(config: &ContainerConfig, request: &ExecRequest, pid: u32) -> Result<Launch, Failure> {
    let mut config = config.clone();
    config.args.clone_from(&request.args);
    config.env.0.extend(request.env.0.iter().cloned());
    config.tty = request.tty;
    config.init = false;
    if let Some(cwd) = &request.cwd {
        config.cwd.clone_from(cwd);
    }
    if let Some(user) = &request.user {
        let extra: Vec<String> = config.user.manifest_gids.iter().map(u32::to_string).collect();
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        config.user = users::resolve(&[root], user, &extra, users::Memberships::WithoutGroup)
            .map_err(|error| Failure { permanent: true, ..failure(chain(&error)) })?;
    }
    config.security.privileged |= request.privileged;
    let mut launch = Launch::of(&config, caps::bounding(), &mut Vec::new())?;
    launch.make_cwd = false;
    // That of the container's own processes; a container of another version may have none.
    launch.apparmor = if request.privileged { None } else { apparmor::of_process(pid) };
    Ok(launch)
}

/// A terminal of the container's own devpts: master and slave.
fn open_terminal() -> Result<(OwnedFd, OwnedFd), Failure> {
    let open = || -> io::Result<(OwnedFd, OwnedFd)> {
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let master =
            rustix::fs::open("/dev/pts/ptmx", flags | rustix::fs::OFlags::NOFOLLOW, rustix::fs::Mode::empty())?;
        // The container may have put something else there (CVE-2025-52565).
        let stat = rustix::fs::fstat(&master)?;
        let magic = rustix::fs::fstatfs(&master)?.f_type;
        if stat.st_rdev != rustix::fs::makedev(5, 2) || u64::try_from(magic).ok() != Some(0x1cd1) {
            return Err(io::Error::other("/dev/pts/ptmx of the container is no terminal"));
        }
        rustix::pty::unlockpt(&master)?;
        let slave =
            rustix::pty::ioctl_tiocgptpeer(&master, rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)?;
        rustix::io::fcntl_setfd(&slave, rustix::io::FdFlags::CLOEXEC)?;
        Ok((master, slave))
    };
    open().map_err(step("open a terminal in the container"))
}

/// The caller's terminal in raw mode, and back when dropped.
pub(super) struct RawMode(Termios);

impl RawMode {
    pub(super) fn enter() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

fn copy_size(master: &OwnedFd) {
    if let Ok((rows, cols)) = sys::window_size(io::stdin().as_fd()) {
        let _ = sys::set_window_size(master.as_fd(), rows, cols);
    }
}

/// Waits for the child: forwards signals, copies the terminal, returns its exit code.
fn attend(child: Pid, signals: &SigSet, master: Option<OwnedFd>) -> Result<i32, Failure> {
    let signals = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(step("wait for signals"))?;
    let _raw = master.as_ref().and_then(|_| RawMode::enter());
    if let Some(master) = &master {
        copy_size(master);
    }
    let mut copy = Copy { master, stdin_open: true, to_master: Vec::new() };
    loop {
        copy.wait(&signals);
        while let Ok(Some(info)) = signals.read_signal() {
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(Signal::SIGCHLD) => {
                    if let Some(code) = reap(child) {
                        copy.drain();
                        return Ok(code);
                    }
                }
                Ok(Signal::SIGWINCH) => copy.master.iter().for_each(copy_size),
                // Whoever started this wants it over.
                Ok(Signal::SIGTERM | Signal::SIGHUP) => {
                    let _ = killpg(child, Signal::SIGKILL);
                    let _ = kill(child, Signal::SIGKILL);
                }
                Ok(signal) => drop(kill(child, signal)),
                Err(_) => {}
            }
        }
    }
}

fn reap(child: Pid) -> Option<i32> {
    match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
        Ok(_) => None,
        Err(_) => Some(255),
    }
}

/// Copies between a terminal and this process' standard streams.
struct Copy {
    master: Option<OwnedFd>,
    stdin_open: bool,
    to_master: Vec<u8>,
}

impl Copy {
    /// Waits for something to do, and copies what there is.
    fn wait(&mut self, signals: &SignalFd) {
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        if let Some(master) = &self.master {
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, !self.to_master.is_empty());
            fds.push(PollFd::new(master, wanted));
            if self.stdin_open && self.to_master.is_empty() {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
        }
        if rustix::event::poll(&mut fds, None).is_err() {
            return;
        }
        let ready = |index: usize| fds.get(index).map_or(PollFlags::empty(), PollFd::revents);
        let (from_master, from_stdin) = (ready(1), ready(2));
        if from_master.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.output();
        }
        if !from_stdin.is_empty() {
            self.input(stdin.as_fd());
        }
        if let Some(master) = &self.master
            && !self.to_master.is_empty()
            && (from_master.contains(PollFlags::OUT) || !from_stdin.is_empty())
            && let Ok(count) = rustix::io::write(master, &self.to_master)
        {
            self.to_master.drain(..count);
        }
    }

    fn input(&mut self, stdin: BorrowedFd<'_>) {
        let mut chunk = [0; 4096];
        match rustix::io::read(stdin, &mut chunk) {
            Ok(0) => {
                self.stdin_open = false;
                // End of a piped stdin reaches the program as ^D.
                self.to_master.push(4);
            }
            Ok(count) => self.to_master.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(_) => self.stdin_open = false,
        }
    }

    /// Copies once from the terminal to stdout; `false` at its end.
    fn output(&mut self) -> bool {
        let Some(master) = &self.master else { return false };
        let mut chunk = [0; 4096];
        match rustix::io::read(master, &mut chunk) {
            Ok(count) if count > 0 => {
                let mut out = io::stdout().lock();
                let _ = out.write_all(chunk.get(..count).unwrap_or_default()).and_then(|()| out.flush());
                true
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => true,
            // EIO: the last process has closed it.
            _ => {
                self.master = None;
                false
            }
        }
    }

    /// Copies what is left when the program has ended.
    fn drain(&mut self) {
        if let Some(master) = &self.master {
            let _ = rustix::io::ioctl_fionbio(master, true);
        }
        for _ in 0..1024 {
            let before = self.master.as_ref().map(|master| master.as_raw_fd());
            let empty = self.master.as_ref().is_none_or(|master| {
                let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
                rustix::event::poll(&mut [PollFd::new(master, PollFlags::IN)], Some(&now)).unwrap_or(0) == 0
            });
            if empty || before.is_none() || !self.output() {
                return;
            }
        }
    }
}
