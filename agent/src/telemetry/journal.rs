//! Log lines for the journal in its own protocol: one datagram is one entry, with the values of the line as fields.
//! `journalctl MAINSTAY_WORKLOAD='Pod default/web'` finds what was said about one workload, and an entry of several
//! lines stays one.
//!
//! `MESSAGE` holds the values too: it is all that `journalctl` and `systemctl status` show.
//!
//! Source: systemd.io, "Native Journal Protocol"; fields as in systemd.journal-fields(7).

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FormatFields as _;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::layer::Context;

use super::logging;

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// How long a line waits for a journal that does not read; then it is left out. Nobody but the journal loses by that.
const PATIENCE: Duration = Duration::from_secs(1);

/// Begins the names of the fields that hold a line's values.
const PREFIX: &str = "MAINSTAY_";

/// Longest name of a field that the journal takes.
const LONGEST_NAME: usize = 64;

/// Sends each event to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
    to: SocketAddrUnix,
    /// Entries left out since the last one that was taken.
    lost: AtomicU64,
}

impl Journal {
    /// For the journal that listens at this socket.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(super) fn at(to: &Path) -> io::Result<Self> {
        // Only to see: a journal that is started anew has another socket at this path.
        UnixDatagram::unbound()?.connect(to)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, to: SocketAddrUnix::new(to)?, lost: AtomicU64::new(0) })
    }

    fn take(&self, entry: &Entry) {
        // One line waits for a journal that does not read, not each that follows.
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let flags = if lost > 0 { SendFlags::DONTWAIT } else { SendFlags::empty() };
        let gap = || Entry::new(Level::WARN, format!("{lost} log lines before this one were not taken by the journal"));
        let sent = if lost > 0 { self.send(&gap(), flags) } else { Ok(()) };
        if sent.is_err() {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        match sent.and_then(|()| self.send(entry, flags)) {
            Ok(()) => {}
            Err(Errno::AGAIN) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            // Nobody listens for now. The stream that the service manager holds open for the journal takes the line.
            Err(_) => drop(logging::to_stream(io::stderr(), entry.level, &entry.text)),
        }
    }

    /// One entry, whatever its size.
    fn send(&self, entry: &Entry, flags: SendFlags) -> rustix::io::Result<()> {
        let send = |bytes: &[u8], mut passed: SendAncillaryBuffer<'_, '_, '_>| {
            sendmsg_addr(&self.socket, &self.to, &[IoSlice::new(bytes)], &mut passed, flags).map(drop)
        };
        match send(&entry.fields, SendAncillaryBuffer::default()) {
            Err(Errno::MSGSIZE | Errno::NOBUFS) => {
                let file = sealed(&entry.fields).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                let (files, mut space) = ([file.as_fd()], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
                let mut passed = SendAncillaryBuffer::new(&mut space);
                passed.push(SendAncillaryMessage::ScmRights(&files));
                send(&[], passed)
            }
            result => result,
        }
    }
}

/// A file without a name that nobody can change any more: so the journal takes what does not fit into a datagram.
fn sealed(bytes: &[u8]) -> io::Result<File> {
    let file = memfd_create("journal-entry", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(file)
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let meta = event.metadata();
        let mut text = String::new();
        // A string takes everything.
        let _ = DefaultFields::new().format_fields(Writer::new(&mut text), event);
        let mut entry = Entry::new(*meta.level(), text);
        if let (Some(file), Some(line)) = (meta.file(), meta.line()) {
            put(&mut entry.fields, "CODE_FILE", file);
            put(&mut entry.fields, "CODE_LINE", &line.to_string());
        }
        event.record(&mut entry);
        self.take(&entry);
    }
}

/// A line, as text and as it is sent.
struct Entry {
    level: Level,
    text: String,
    fields: Vec<u8>,
}

impl Entry {
    fn new(level: Level, text: String) -> Self {
        let mut fields = Vec::new();
        put(&mut fields, "MESSAGE", &text);
        put(&mut fields, "PRIORITY", &logging::priority(level).to_string());
        put(&mut fields, "SYSLOG_IDENTIFIER", "mainstay");
        Self { level, text, fields }
    }

    fn value(&mut self, field: &Field, value: &str) {
        // It is in `MESSAGE`.
        if field.name() != "message" {
            put(&mut self.fields, &name(field.name()), value);
        }
    }
}

/// A value of several lines is sent with its length, little-endian; any other ends with its line.
fn put(fields: &mut Vec<u8>, name: &str, value: &str) {
    fields.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        fields.push(b'\n');
        fields.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        fields.push(b'=');
    }
    fields.extend_from_slice(value.as_bytes());
    fields.push(b'\n');
}

/// The name of a field: letters, digits and `_`, of bounded length, and none of the journal's own.
fn name(field: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    PREFIX.chars().chain(field.chars().map(word)).take(LONGEST_NAME).collect()
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.value(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.value(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests;
