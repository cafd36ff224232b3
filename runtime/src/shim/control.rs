//! Clients of the control socket: requests by line, and attached streams.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::frames;
use crate::container::handle::Response;

/// Longest request or frame from a client.
const MAX_INPUT: usize = 1 << 20;

/// Most output that waits for an attached client. One that falls further behind is cut off: the log goes on.
const MAX_BEHIND: usize = 1 << 20;

pub(super) use super::frames::{SIZE, STDERR, STDIN, STDIN_END, STDOUT};

/// One connection.
pub(super) struct Client {
    pub(super) stream: UnixStream,
    /// `Some` once attached: whether it writes to stdin.
    pub(super) attached: Option<bool>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Whether a frame was put back.
    stuck: bool,
    pub(super) closed: bool,
}

/// What a client sent.
pub(super) enum Input {
    /// A request line.
    Line(Vec<u8>),
    /// A frame.
    Frame(u8, Vec<u8>),
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, attached: None, input: Vec::new(), output: Vec::new(), stuck: false, closed: false })
    }

    /// Whether output waits to be written.
    pub(super) fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether it has sent more than the program has read.
    pub(super) fn is_stuck(&self) -> bool {
        self.attached == Some(true) && self.stuck
    }

    /// Reads what is there.
    pub(super) fn fill(&mut self) {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    self.closed = true;
                    return;
                }
                Ok(count) => self.input.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
            if self.input.len() > MAX_INPUT {
                // Frames are taken before more is read; a line of that length is no request.
                self.closed = self.attached.is_none();
                return;
            }
        }
    }

    /// The next whole request or frame.
    pub(super) fn take(&mut self) -> Option<Input> {
        if self.attached.is_none() {
            let end = self.input.iter().position(|byte| *byte == b'\n')?;
            return Some(Input::Line(self.input.drain(..=end).collect()));
        }
        let (&[kind, a, b, c, d], rest) = self.input.split_first_chunk::<5>()?;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MAX_INPUT {
            self.closed = true;
            return None;
        }
        let payload = rest.get(..length)?.to_vec();
        self.input.drain(..5 + length);
        self.stuck = false;
        Some(Input::Frame(kind, payload))
    }

    /// Puts a frame back that could not be dealt with yet.
    pub(super) fn put_back(&mut self, kind: u8, payload: &[u8]) {
        let mut frame = frames::head(kind, payload.len()).to_vec();
        frame.extend_from_slice(payload);
        frame.append(&mut self.input);
        self.input = frame;
        self.stuck = true;
    }

    pub(super) fn answer(&mut self, response: &Response) {
        if let Ok(mut bytes) = serde_json::to_vec(response) {
            bytes.push(b'\n');
            self.output.append(&mut bytes);
        }
        self.flush();
    }

    /// Sends output of the program to an attached client.
    pub(super) fn send(&mut self, kind: u8, payload: &[u8]) {
        self.output.extend_from_slice(&frames::head(kind, payload.len()));
        self.output.extend_from_slice(payload);
        self.flush();
        if self.output.len() > MAX_BEHIND {
            self.closed = true;
        }
    }

    pub(super) fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }
}

/// Writes as much of `bytes` as fits without blocking; how many were.
pub(super) fn write_some(fd: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    match rustix::io::write(fd, bytes) {
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
        other => Ok(other?),
    }
}
