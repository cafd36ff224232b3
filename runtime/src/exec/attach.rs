//! Attaching to the streams of a container's first process, through its shim: for people (`mainstay attach`).
//!
//! The shim cuts off who falls too far behind, so a slow reader never stops the container. Blocks; runs in the
//! command line's process.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};

use super::join::RawMode;
use crate::container::{ContainerConfig, ShimClient};
use crate::shim::frames;
use crate::sys;

/// How to attach.
#[derive(Debug, Clone)]
pub struct AttachOptions {
    /// Hand stdin through, where the container has one.
    pub stdin: bool,
    /// Bytes that end it when typed, such as ctrl-p ctrl-q; empty for none.
    pub detach: Vec<u8>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// The container did, or its shim cut this off.
    Ended,
    /// The keys were typed, or a signal came.
    Detached,
}

/// Copies between a container and this process' standard streams.
///
/// # Errors
/// The container does not run, or a stream breaks.
pub fn attach(dir: &Path, options: &AttachOptions) -> io::Result<Attached> {
    let config: ContainerConfig =
        serde_json::from_slice(&std::fs::read(ContainerConfig::file(dir))?).map_err(io::Error::other)?;
    let stdin = options.stdin && config.stdin;
    let stream = ShimClient::connect(dir)?.attach(stdin)?;
    stream.set_nonblocking(true)?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGWINCH, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&signals, flags)?;
    let _raw = (stdin && config.tty).then(RawMode::enter).flatten();
    let mut session = Session { stream, input: Vec::new(), output: Vec::new(), keys: Keys::new(&options.detach) };
    if config.tty {
        session.tell_size();
    }
    session.run(&signals, stdin, config.tty)
}

struct Session {
    stream: UnixStream,
    /// From the shim, not yet a whole frame.
    input: Vec<u8>,
    /// To the shim, not yet written.
    output: Vec<u8>,
    keys: Keys,
}

impl Session {
    fn run(&mut self, signals: &SignalFd, mut stdin: bool, tty: bool) -> io::Result<Attached> {
        let standard = io::stdin();
        loop {
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, !self.output.is_empty());
            let mut fds = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(&self.stream, wanted)];
            // No more is read than the program takes.
            if stdin && self.output.is_empty() {
                fds.push(PollFd::new(&standard, PollFlags::IN));
            }
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            let at = |index: usize| ready.get(index).copied().unwrap_or(PollFlags::empty());
            while let Ok(Some(info)) = signals.read_signal() {
                if Signal::try_from(info.ssi_signo.cast_signed()) != Ok(Signal::SIGWINCH) {
                    return Ok(Attached::Detached);
                }
                if tty {
                    self.tell_size();
                }
            }
            if !at(2).is_empty() {
                let mut chunk = [0; 4096];
                match rustix::io::read(standard.as_fd(), &mut chunk) {
                    Ok(0) => {
                        stdin = false;
                        self.send(frames::STDIN_END, &[]);
                    }
                    Ok(count) => {
                        let (bytes, detached) = self.keys.pass(chunk.get(..count).unwrap_or_default());
                        self.send(frames::STDIN, &bytes);
                        if detached {
                            self.flush()?;
                            return Ok(Attached::Detached);
                        }
                    }
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    Err(_) => stdin = false,
                }
            }
            self.flush()?;
            if !at(1).is_empty() && !self.receive()? {
                return Ok(Attached::Ended);
            }
        }
    }

    fn tell_size(&mut self) {
        if let Ok((rows, cols)) = sys::window_size(io::stdin().as_fd()) {
            let ([a, b], [c, d]) = (rows.to_le_bytes(), cols.to_le_bytes());
            self.send(frames::SIZE, &[a, b, c, d]);
        }
    }

    fn send(&mut self, kind: u8, payload: &[u8]) {
        self.output.extend_from_slice(&frames::head(kind, payload.len()));
        self.output.extend_from_slice(payload);
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The end is seen where it is read.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.output.clear(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what the shim has sent and writes it on; `false` at its end.
    fn receive(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 << 10];
        let open = match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.input.extend_from_slice(chunk.get(..count).unwrap_or_default());
                true
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => true,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => return Err(error),
        };
        while let Some((&[kind, a, b, c, d], rest)) = self.input.split_first_chunk::<5>() {
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            let Some(payload) = rest.get(..length) else { break };
            match kind {
                frames::STDERR => write(io::stderr().as_fd(), payload)?,
                frames::STDOUT => write(io::stdout().as_fd(), payload)?,
                _ => {}
            }
            self.input.drain(..5 + length);
        }
        Ok(open)
    }
}

fn write(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Looks for the keys that detach.
struct Keys {
    keys: Vec<u8>,
    /// How many of them were typed last.
    typed: usize,
}

impl Keys {
    fn new(keys: &[u8]) -> Self {
        Self { keys: keys.to_vec(), typed: 0 }
    }

    /// What of the input goes on, and whether the keys were complete. The start of the keys is held back until what
    /// follows tells them apart from input.
    fn pass(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len());
        for byte in input {
            if self.keys.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(self.keys.get(..self.typed).unwrap_or_default());
            self.typed = usize::from(self.keys.first() == Some(byte));
            if self.typed == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_sequence_detaches() {
        for (pieces, passed, detached) in [
            (&["ab"][..], "ab", false),
            (&["a\u{10}\u{11}b"], "a", true),
            (&["a\u{10}", "\u{11}"], "a", true),
            (&["\u{10}x\u{11}"], "\u{10}x\u{11}", false),
            (&["\u{10}\u{10}\u{11}"], "\u{10}", true),
        ] {
            let mut keys = Keys::new(&[0x10, 0x11]);
            let (mut all, mut ended) = (Vec::new(), false);
            for piece in pieces {
                let (bytes, end) = keys.pass(piece.as_bytes());
                all.extend(bytes);
                ended |= end;
            }
            assert_eq!((String::from_utf8_lossy(&all).as_ref(), ended), (passed, detached), "{pieces:?}");
        }
        let mut none = Keys::new(&[]);
        assert_eq!(none.pass(b"\x10\x11"), (vec![0x10, 0x11], false));
    }
}
