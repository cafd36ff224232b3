//! The shim's life after the start: one poll loop over the container's output, its end, and the control socket.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};
use spec::observed::Exit;

use super::control::{self, Client, Input, write_some};
use super::create::{self, Created};
use super::log::{Log, Stream};
use crate::container::cgroup::{self, Layout};
use crate::container::lifecycle::Running;
use crate::container::{ContainerConfig, ExitRecord, Request, Response, ShimState, handle, record};
use crate::sys;
use spec::causes::chain;

/// How long output is still read once everything that could write it has been killed.
const DRAIN: Duration = Duration::from_secs(5);

/// How long those who are behind with reading have for the rest of it once the container has ended.
const SEE_OFF: Duration = Duration::from_secs(5);

/// Longest termination message in bytes (Kubernetes: 4096).
const MAX_MESSAGE: u64 = 4096;

/// Longest part of the log that becomes the termination message (Kubernetes: 2048 bytes or 80 lines).
const MAX_LOG_MESSAGE: u64 = 2048;

/// What the shim serves. What of it is more than the configuration goes through [`Server::handover`].
pub(super) struct Server {
    config: ContainerConfig,
    running: Running,
    pidfd: OwnedFd,
    /// Output pipes; the terminal's master stands in for stdout.
    outputs: Vec<(Stream, OwnedFd)>,
    stdin: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    /// Other side of the terminal: while it is open, the program may close its own and open it again.
    slave: Option<OwnedFd>,
    log: Option<Log>,
    listener: UnixListener,
    clients: Vec<Client>,
    /// Its pod is to end, and it was told so.
    stopped: bool,
}

/// A server in numbers of descriptors, which stay open across exec.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Handover {
    config: ContainerConfig,
    running: Running,
    pidfd: RawFd,
    outputs: Vec<(Stream, RawFd)>,
    stdin: Option<RawFd>,
    terminal: Option<RawFd>,
    slave: Option<RawFd>,
    listener: RawFd,
    #[serde(default)]
    stopped: bool,
    /// The lock on the run directory: whoever has it is the shim.
    pub(super) lock: RawFd,
}

impl Handover {
    /// Every descriptor of it.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        let outputs = self.outputs.iter().map(|(_, fd)| *fd);
        let optional = [self.stdin, self.terminal, self.slave].into_iter().flatten();
        [self.pidfd, self.listener, self.lock].into_iter().chain(outputs).chain(optional)
    }
}

fn log_of(config: &ContainerConfig) -> Option<Log> {
    config.log_path.as_ref().map(|path| Log::new(path, config.log_max_size, config.log_max_files))
}

/// What became ready.
#[derive(Default)]
struct Ready {
    ended: bool,
    outputs: Vec<usize>,
    accept: bool,
    clients: Vec<usize>,
}

impl Server {
    pub(super) fn new(config: &ContainerConfig, created: Created) -> io::Result<Self> {
        let mut outputs = Vec::new();
        for (stream, fd) in [(Stream::Stdout, created.stdout), (Stream::Stderr, created.stderr)] {
            outputs.extend(fd.map(|fd| (stream, fd)));
        }
        if let Some(master) = &created.terminal {
            outputs.push((Stream::Stdout, master.try_clone()?));
        }
        for fd in outputs.iter().map(|(_, fd)| fd).chain(&created.stdin) {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let slave = created.terminal.as_ref().and_then(|master| rustix::pty::ioctl_tiocgptpeer(master, flags).ok());
        Ok(Self {
            slave,
            running: created.running,
            pidfd: created.pidfd,
            outputs,
            stdin: created.stdin,
            terminal: created.terminal,
            log: log_of(config),
            listener: handle::listen(&config.dir)?,
            clients: Vec::new(),
            stopped: false,
            config: ContainerConfig { env: Default::default(), ..config.clone() },
        })
    }

    /// What another process image needs to go on.
    pub(super) fn handover(&self, lock: &impl AsRawFd) -> Handover {
        let number = |fd: &Option<OwnedFd>| fd.as_ref().map(AsRawFd::as_raw_fd);
        Handover {
            config: self.config.clone(),
            running: self.running.clone(),
            pidfd: self.pidfd.as_raw_fd(),
            outputs: self.outputs.iter().map(|(stream, fd)| (*stream, fd.as_raw_fd())).collect(),
            stdin: number(&self.stdin),
            terminal: number(&self.terminal),
            slave: number(&self.slave),
            listener: self.listener.as_raw_fd(),
            stopped: self.stopped,
            lock: lock.as_raw_fd(),
        }
    }

    /// Goes on with what [`Server::handover`] gave, in a process that owns none of it yet.
    pub(super) fn resume(from: Handover) -> io::Result<Self> {
        let optional = |fd: Option<RawFd>| fd.map(sys::take_fd).transpose();
        let outputs = from.outputs.into_iter().map(|(stream, fd)| Ok((stream, sys::take_fd(fd)?)));
        Ok(Self {
            running: from.running,
            pidfd: sys::take_fd(from.pidfd)?,
            outputs: outputs.collect::<io::Result<_>>()?,
            stdin: optional(from.stdin)?,
            terminal: optional(from.terminal)?,
            slave: optional(from.slave)?,
            listener: sys::take_fd(from.listener)?.into(),
            log: log_of(&from.config),
            clients: Vec::new(),
            stopped: from.stopped,
            config: from.config,
        })
    }

    /// Serves until the container has ended, records that, and removes what it had.
    pub(super) fn run(&mut self) {
        let status = loop {
            let ready = self.wait(None);
            self.serve(&ready);
            if ready.ended
                && let Some(status) = self.reap()
            {
                break status;
            }
        };
        let finished = (record::now(), record::now_unix());
        self.kill_rest();
        self.drain();
        self.finish(status, finished);
    }

    fn wait(&self, limit: Option<Duration>) -> Ready {
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(self.outputs.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
        // A client whose input waits for the program is looked at when the program reads, or when output can go to it.
        // Not for input, nor for its end, which would wake the loop again and again.
        let mut polled = Vec::with_capacity(self.clients.len());
        for (index, client) in self.clients.iter().enumerate() {
            let mut wanted = if client.is_stuck() { PollFlags::empty() } else { PollFlags::IN };
            wanted.set(PollFlags::OUT, client.wants_write());
            if !wanted.is_empty() {
                polled.push(index);
                fds.push(PollFd::new(&client.stream, wanted));
            }
        }
        let stuck = self.clients.iter().any(Client::is_stuck);
        if stuck {
            fds.extend(self.input().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        }
        let timeout =
            limit.map(|limit| Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() });
        if rustix::event::poll(&mut fds, timeout.as_ref()).is_err() {
            return Ready::default();
        }
        let events: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let at = |index: usize| events.get(index).copied().unwrap_or(false);
        let outputs = self.outputs.len();
        let input_ready = stuck && (self.input().is_none() || at(2 + outputs + polled.len()));
        let mut clients: Vec<usize> =
            polled.iter().enumerate().filter(|(place, _)| at(2 + outputs + place)).map(|(_, index)| *index).collect();
        if input_ready {
            clients.extend((0..self.clients.len()).filter(|index| !clients.contains(index)).collect::<Vec<_>>());
        }
        Ready { ended: at(0), accept: at(1), outputs: (0..outputs).filter(|index| at(2 + index)).collect(), clients }
    }

    fn input(&self) -> Option<&OwnedFd> {
        self.terminal.as_ref().or(self.stdin.as_ref())
    }

    fn serve(&mut self, ready: &Ready) {
        let mut gone = Vec::new();
        for &index in &ready.outputs {
            if !self.read_output(index) {
                gone.push(index);
            }
        }
        for index in gone.into_iter().rev() {
            self.outputs.remove(index);
        }
        for &index in &ready.clients {
            self.serve_client(index);
        }
        if ready.accept {
            while let Ok((stream, _)) = self.listener.accept() {
                self.clients.extend(Client::new(stream).ok());
            }
        }
        let detached = self.clients.iter().any(|client| client.closed && client.attached == Some(true));
        self.clients.retain(|client| !client.closed);
        if detached && self.config.stdin_once {
            self.stdin = None;
        }
    }

    /// Reads once from an output; `false` at its end.
    fn read_output(&mut self, index: usize) -> bool {
        let mut chunk = [0; 16 << 10];
        let Some((stream, fd)) = self.outputs.get(index) else { return true };
        let stream = *stream;
        let count = match rustix::io::read(fd, &mut chunk) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
            // A terminal whose last user closed it: EIO. Another may open it again, so it ends with the container.
            Err(_) => return false,
        };
        let bytes = chunk.get(..count).unwrap_or_default();
        if let Some(log) = &mut self.log {
            log.write(stream, bytes);
        }
        let kind = if stream == Stream::Stderr { control::STDERR } else { control::STDOUT };
        for client in self.clients.iter_mut().filter(|client| client.attached.is_some()) {
            client.send(kind, bytes);
        }
        true
    }

    fn serve_client(&mut self, index: usize) {
        let Some(mut client) = (index < self.clients.len()).then(|| self.clients.swap_remove(index)) else { return };
        client.flush();
        if !client.is_stuck() {
            client.fill();
        }
        while let Some(input) = client.take() {
            match input {
                Input::Line(line) => self.request(&mut client, &line),
                Input::Frame(kind, payload) => {
                    if !self.frame(&mut client, kind, &payload) {
                        break;
                    }
                }
            }
        }
        // Back to its place, so that the indexes of the others stay right.
        self.clients.push(client);
        let last = self.clients.len() - 1;
        self.clients.swap(index, last);
    }

    fn request(&mut self, client: &mut Client, line: &[u8]) {
        let response = match serde_json::from_slice::<Request>(line) {
            Ok(Request::Attach { stdin }) => {
                client.answer(&Response::default());
                client.attached = Some(stdin && self.config.stdin && self.input().is_some());
                return;
            }
            Ok(request) => match self.act(&request) {
                Ok(state) => Response { error: None, state },
                Err(error) => Response { error: Some(error), state: None },
            },
            Err(error) => Response { error: Some(format!("unknown request: {error}")), state: None },
        };
        client.answer(&response);
    }

    fn act(&mut self, request: &Request) -> Result<Option<ShimState>, String> {
        match request {
            Request::State => Ok(Some(ShimState {
                id: self.config.id.clone(),
                pid: self.running.pid,
                start_time: self.running.start_time,
                started: self.running.started,
                shim_pid: self.running.shim_pid,
                shim_start_time: self.running.shim_start_time,
            })),
            Request::Signal { signal, stop } => {
                match self.config.external() {
                    Some(external) => external.quiet("kill", &[], &[&signal.to_string()])?,
                    None => sys::pidfd_signal(self.pidfd.as_fd(), *signal).map_err(|error| error.to_string())?,
                }
                self.stopped |= stop;
                Ok(None)
            }
            Request::Resize { rows, cols } => {
                let terminal = self.terminal.as_ref().ok_or("the container has no terminal")?;
                sys::set_window_size(terminal.as_fd(), *rows, *cols).map_err(|error| error.to_string())?;
                Ok(None)
            }
            Request::Update { resources } => Layout::detect()
                .and_then(|layout| cgroup::create(&layout, &self.config.cgroup_path, resources, None))
                .map(|_| None)
                .map_err(|error| chain(&error)),
            Request::CutLog { keep } => {
                if let Some(log) = &mut self.log {
                    log.cut(*keep);
                }
                Ok(None)
            }
            Request::Attach { .. } => Err("attach is a stream".to_owned()),
        }
    }

    /// Deals with a frame of an attached client; `false` when the program has to read first.
    fn frame(&mut self, client: &mut Client, kind: u8, payload: &[u8]) -> bool {
        match (kind, payload) {
            (control::STDIN, bytes) if client.attached == Some(true) => {
                let Some(fd) = self.input() else { return true };
                match write_some(fd, bytes) {
                    Ok(count) if count < bytes.len() => {
                        client.put_back(kind, bytes.get(count..).unwrap_or_default());
                        return false;
                    }
                    Ok(_) => {}
                    // The program has closed its end.
                    Err(_) => self.stdin = None,
                }
            }
            (control::STDIN_END, _) if client.attached == Some(true) => self.stdin = None,
            (control::SIZE, &[a, b, c, d]) => {
                if let Some(terminal) = &self.terminal {
                    let (rows, cols) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
                    let _ = sys::set_window_size(terminal.as_fd(), rows, cols);
                }
            }
            _ => {}
        }
        true
    }

    /// Waits for children without blocking; the status of the container's first process once it has ended.
    fn reap(&self) -> Option<(i32, Option<i32>)> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid.as_raw().cast_unsigned() == self.running.pid => {
                    return Some((code, None));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw().cast_unsigned() == self.running.pid => {
                    return Some((128 + signal as i32, Some(signal as i32)));
                }
                Ok(WaitStatus::StillAlive) => return None,
                Ok(_) => {}
                // Not our child any more: it can only be known that it is gone.
                Err(_) => return Some((255, None)),
            }
        }
    }

    /// Ends processes that outlived the first one (only without a process namespace of their own).
    fn kill_rest(&self) {
        let killed = Layout::detect()
            .and_then(|layout| cgroup::kill_all(&layout, &self.config.cgroup_path, Duration::from_secs(10)));
        if let Err(error) = killed {
            eprintln!("mainstay shim: {}", chain(&error));
        }
    }

    /// Reads output that is still in the pipes.
    fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN;
        while !self.outputs.is_empty() && Instant::now() < deadline {
            let ready = self.wait(Some(Duration::from_millis(50)));
            if ready.outputs.is_empty() {
                // Someone outside holds the pipe open but writes nothing.
                break;
            }
            self.serve(&ready);
        }
        if let Some(log) = &mut self.log {
            log.finish();
        }
    }

    fn finish(&mut self, (code, signal): (i32, Option<i32>), finished: (spec::time::Timestamp, i64)) {
        let oom = Layout::detect().is_ok_and(|layout| cgroup::oom_kills(&layout, &self.config.cgroup_path) > 0);
        let exit = Exit {
            code,
            signal,
            oom: oom && code != 0,
            started: Some(self.running.started),
            finished: finished.0,
            finished_unix: finished.1,
            boot_id: record::boot_id(),
            error: None,
            message: self.message(code),
            stopped: self.stopped,
        };
        let record = ExitRecord { version: 1, id: self.config.id.clone(), exit };
        // A full disk: try again for a while, since without a record the end counts as a loss.
        for _ in 0..50 {
            match record::write_exit(&self.config.exit_file, &record) {
                Ok(()) => break,
                Err(error) => eprintln!("mainstay shim: cannot write {}: {error}", self.config.exit_file.display()),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        // It writes into the run directory, which may go as soon as the end is told.
        if let Some(external) = self.config.external() {
            external.delete();
        }
        // Told at once: whoever waits for the end of a connection need not wait for mounts and cgroups to go.
        handle::unlink(&self.config.dir);
        self.clients.retain(|client| client.attached.is_some() && client.wants_write());
        create::undo(&self.config);
        self.see_off();
    }

    /// Gives those who are attached and behind the rest of the output.
    fn see_off(&mut self) {
        let deadline = Instant::now() + SEE_OFF;
        while !self.clients.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            let mut fds: Vec<PollFd<'_>> =
                self.clients.iter().map(|client| PollFd::new(&client.stream, PollFlags::OUT)).collect();
            if left.is_zero() || rustix::event::poll(&mut fds, Some(&limit)).is_err() {
                break;
            }
            self.clients.iter_mut().for_each(Client::flush);
            self.clients.retain(|client| !client.closed && client.wants_write());
        }
        self.clients.clear();
    }

    /// The termination message (Kubernetes `terminationMessagePath`, `terminationMessagePolicy`).
    fn message(&self, code: i32) -> Option<String> {
        self.config.termination_message_path.as_ref()?;
        let mut bytes = Vec::new();
        // On the host it is our own file in our own directory, whatever the container made of its view of it.
        if let Ok(file) = fs::File::open(create::termination_file(&self.config.dir)) {
            let _ = file.take(MAX_MESSAGE).read_to_end(&mut bytes);
        }
        if bytes.is_empty() && code != 0 && self.config.termination_message_from_log {
            bytes = self.config.log_path.as_ref().and_then(|path| log_tail(path).ok()).unwrap_or_default();
        }
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The end of a log, without what CRI puts before each line.
fn log_tail(path: &std::path::Path) -> io::Result<Vec<u8>> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = fs::File::open(path)?;
    let size = file.metadata()?.len();
    // Each line has about 40 bytes of head: twice the size holds enough text in most cases.
    file.seek(SeekFrom::Start(size.saturating_sub(2 * MAX_LOG_MESSAGE + 80 * 42)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let joined = lines.get(lines.len().saturating_sub(80)..).unwrap_or_default().join("\n");
    let from = joined.len().saturating_sub(usize::try_from(MAX_LOG_MESSAGE).unwrap_or(usize::MAX));
    Ok(joined.as_bytes().get(from..).unwrap_or_default().to_vec())
}
