//! The notify socket of sd_notify(3): datagrams of `KEY=value` lines.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Why the service manager cannot be told anything.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// `NOTIFY_SOCKET` is no address that is understood.
    #[error("cannot use NOTIFY_SOCKET `{0}`: neither a path nor an abstract name")]
    Address(String),
    /// No socket of our own.
    #[error("cannot make a socket for messages to the service manager")]
    Socket(#[source] std::io::Error),
}

/// How long a message waits for a manager that does not read; then it is dropped.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends messages to the service manager, or to nobody.
#[derive(Debug, Default)]
pub struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// For an address as in `NOTIFY_SOCKET`: a path, or `@` and an abstract name.
    ///
    /// # Errors
    /// The address is neither, or there are no more file descriptors.
    pub fn new(address: Option<&OsStr>) -> Result<Self, NotifyError> {
        let Some(address) = address.filter(|address| !address.is_empty()) else { return Ok(Self(None)) };
        let wrong = || NotifyError::Address(address.to_string_lossy().into_owned());
        let to = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(address),
            _ => return Err(wrong()),
        };
        let socket = UnixDatagram::unbound().map_err(NotifyError::Socket)?;
        // Few messages wait for a manager that does not read; the one after them would wait for ever.
        socket.set_write_timeout(Some(PATIENCE)).map_err(NotifyError::Socket)?;
        Ok(Self(Some((socket, to.map_err(|_| wrong())?))))
    }

    /// For the manager that started this process.
    ///
    /// # Errors
    /// See [`Notifier::new`].
    pub fn of_process() -> Result<Self, NotifyError> {
        Self::new(std::env::var_os("NOTIFY_SOCKET").as_deref())
    }

    /// Whether a manager listens.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// The agent does its work.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// A line for `systemctl status`.
    pub fn status(&self, line: &str) {
        self.send(&format!("STATUS={}", line.replace('\n', " ")));
    }

    /// The agent takes its configuration in anew; [`Notifier::ready`] ends that.
    pub fn reloading(&self) {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
            .map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// The agent ends because it was told to.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The loop goes round.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        let Some((socket, to)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), to) {
            // What matters is noticed by the manager itself: it ends an agent that it does not hear from.
            tracing::debug!(%error, "service manager does not listen");
        }
    }
}
