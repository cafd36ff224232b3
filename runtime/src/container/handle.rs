//! The control socket of a shim, from the side of the agent.
//!
//! One JSON object a line each way. The protocol only grows: an unknown request is answered with an error, unknown
//! fields are ignored, since agents and shims of different versions meet after every upgrade.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spec::pod::Resources;
use spec::time::Timestamp;

/// What a shim can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// What it runs.
    State,
    /// Sends a signal to the container's first process.
    Signal {
        /// Its number.
        signal: i32,
        /// That it ends of it is the end of its pod.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        stop: bool,
    },
    /// Sets the size of the container's terminal.
    Resize {
        /// Lines.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Turns this connection into a stream of frames (see `shim::frames`).
    Attach {
        /// Whether this client writes to stdin.
        stdin: bool,
    },
    /// Changes limits of the running container.
    Update {
        /// All of them, changed or not.
        resources: Box<Resources>,
    },
    /// Removes the oldest files of the log.
    CutLog {
        /// So many of the newest stay, the one that is written included; with 0 that one begins anew.
        keep: u32,
    },
}

/// What a shim answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Response {
    /// Why it could not be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Answer to [`Request::State`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ShimState>,
}

/// What a shim runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShimState {
    /// Id of the attempt.
    pub id: String,
    /// The container's first process.
    pub pid: u32,
    /// Its start time in clock ticks since boot.
    pub start_time: u64,
    /// When it started.
    pub started: Timestamp,
    /// The shim.
    pub shim_pid: u32,
    /// Its start time in clock ticks since boot.
    pub shim_start_time: u64,
}

const SOCKET: &str = "shim.sock";

/// A path to the socket of any length of `dir`: socket addresses hold 108 bytes, so it goes through a descriptor.
fn address(dir: &Path) -> io::Result<(File, String)> {
    let handle = File::open(dir)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd());
    Ok((handle, path))
}

/// Makes the socket of a run directory.
pub(crate) fn listen(dir: &Path) -> io::Result<UnixListener> {
    let (_dir, path) = address(dir)?;
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes the socket of a run directory.
pub(crate) fn unlink(dir: &Path) {
    let _ = std::fs::remove_file(dir.join(SOCKET));
}

/// A connection to a shim.
#[derive(Debug)]
pub struct ShimClient {
    stream: UnixStream,
}

impl ShimClient {
    /// Connects to the shim of a run directory.
    ///
    /// # Errors
    /// There is none.
    pub fn connect(dir: &Path) -> io::Result<Self> {
        let (_dir, path) = address(dir)?;
        let stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream })
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// The shim is gone or refuses.
    pub fn call(&mut self, request: &Request) -> io::Result<Response> {
        let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
        line.push(b'\n');
        self.stream.write_all(&line)?;
        let answer = self.read_line()?;
        let response: Response = serde_json::from_slice(&answer).map_err(io::Error::other)?;
        match response.error {
            Some(text) => Err(io::Error::other(text)),
            None => Ok(response),
        }
    }

    /// Takes one line and nothing behind it: what follows an answer belongs to whoever takes the stream over.
    fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let (mut line, mut chunk) = (Vec::new(), [0; 1024]);
        loop {
            let there = match rustix::net::recv(&self.stream, &mut chunk[..], rustix::net::RecvFlags::PEEK) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?.0,
            };
            let there = chunk.get(..there).unwrap_or_default();
            let end = there.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let mut taken = vec![0; end.unwrap_or(there.len())];
            if taken.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.stream.read_exact(&mut taken)?;
            line.append(&mut taken);
            if end.is_some() {
                return Ok(line);
            }
        }
    }

    /// What the shim runs.
    ///
    /// # Errors
    /// See [`Self::call`].
    pub fn state(&mut self) -> io::Result<ShimState> {
        self.call(&Request::State)?.state.ok_or_else(|| io::Error::other("the shim gave no state"))
    }

    /// Sends a signal to the container's first process.
    ///
    /// # Errors
    /// See [`Self::call`].
    pub fn signal(&mut self, signal: i32) -> io::Result<()> {
        self.call(&Request::Signal { signal, stop: false }).map(drop)
    }

    /// Sends a signal to the container's first process that is to end it, with its whole pod.
    ///
    /// # Errors
    /// See [`Self::call`].
    pub fn stop(&mut self, signal: i32) -> io::Result<()> {
        self.call(&Request::Signal { signal, stop: true }).map(drop)
    }

    /// Sets the size of the container's terminal.
    ///
    /// # Errors
    /// See [`Self::call`]; there is no terminal.
    pub fn resize(&mut self, rows: u16, cols: u16) -> io::Result<()> {
        self.call(&Request::Resize { rows, cols }).map(drop)
    }

    /// Changes limits.
    ///
    /// # Errors
    /// See [`Self::call`].
    pub fn update(&mut self, resources: &Resources) -> io::Result<()> {
        self.call(&Request::Update { resources: Box::new(resources.clone()) }).map(drop)
    }

    /// Removes all but the `keep` newest files of the log.
    ///
    /// # Errors
    /// See [`Self::call`].
    pub fn cut_log(&mut self, keep: u32) -> io::Result<()> {
        self.call(&Request::CutLog { keep }).map(drop)
    }

    /// Starts attaching; frames follow on the returned stream.
    ///
    /// # Errors
    /// See [`Self::call`].
    pub fn attach(mut self, stdin: bool) -> io::Result<UnixStream> {
        self.call(&Request::Attach { stdin })?;
        self.stream.set_read_timeout(None)?;
        self.stream.set_write_timeout(None)?;
        Ok(self.stream)
    }

    /// Waits until the shim has ended, which is after the exit record was written. `false` when `limit` passed first.
    ///
    /// # Errors
    /// The connection is broken in another way.
    pub fn wait_exit(&mut self, limit: Option<Duration>) -> io::Result<bool> {
        self.stream.set_read_timeout(limit)?;
        let mut byte = [0; 1];
        match self.stream.read(&mut byte) {
            Ok(0) => Ok(true),
            Ok(_) => Err(io::Error::other("the shim said something that was not asked for")),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The stream, for waiting on its end with other means (a reactor).
    #[must_use]
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }
}
