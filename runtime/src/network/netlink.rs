//! One blocking netlink socket and the attribute encoding that rtnetlink, nf_tables and conntrack share.
//!
//! The kernel handles a request while it is being sent, so every answer but the later parts of a dump is already
//! queued when `send` returns. That makes a plain send-then-receive exchange complete and free of time-outs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr};

pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_MIN_TYPE: u16 = 0x10;
const HEADER: usize = 16;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A message as it came from the kernel.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) flags: u16,
    /// Port id of the socket whose request caused it; 0 for the kernel itself.
    pub(super) port: u32,
    sequence: u32,
    /// What follows the netlink header.
    pub(super) payload: Vec<u8>,
}

/// A request that failed: its place in the batch, and why.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) sequence: u32,
    pub(super) error: io::Error,
}

/// A netlink socket of the calling thread's network namespace.
pub(super) struct Netlink {
    socket: Socket,
    port: u32,
}

impl Netlink {
    /// Opens a socket of `protocol` (such as `NETLINK_ROUTE`).
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        // Errors echo the header of the failed request only, not its content: a big batch cannot fill the queue.
        socket.set_cap_ack(true)?;
        socket.set_rx_buf_sz(1_i32 << 20)?;
        Ok(Self { socket, port })
    }

    /// The port id that marks notifications caused by this socket.
    pub(super) const fn port(&self) -> u32 {
        self.port
    }

    /// Joins a multicast group.
    pub(super) fn join(&self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    /// Sends requests and collects what each of them answers with: `Err` items are refused requests by sequence number.
    /// Returns when the queue is empty, or for dumps when the kernel says done.
    pub(super) fn exchange(&self, requests: &[u8], dump: bool) -> io::Result<(Vec<Message>, Vec<Refusal>)> {
        self.send(requests)?;
        let (mut messages, mut refusals, mut done) = (Vec::new(), Vec::new(), false);
        while !done {
            let flags = if dump { 0 } else { libc::MSG_DONTWAIT };
            let packet = match self.receive(flags) {
                Ok(packet) => packet,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            for message in split(&packet) {
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        let code = message.payload.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
                        if code < 0 {
                            let error = io::Error::from_raw_os_error(-code);
                            refusals.push(Refusal { sequence: message.sequence, error });
                        }
                        done |= dump;
                    }
                    kind if kind >= NLMSG_MIN_TYPE => messages.push(message),
                    _ => {}
                }
            }
        }
        Ok((messages, refusals))
    }

    /// A dump, tried again when the kernel says that the data changed under it.
    pub(super) fn dump(&self, request: &[u8]) -> io::Result<Vec<Message>> {
        for _ in 0..8 {
            let (messages, mut refusals) = match self.exchange(request, true) {
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => continue,
                other => other?,
            };
            if messages.iter().any(|m| m.flags & NLM_F_DUMP_INTR != 0) {
                continue;
            }
            return match refusals.pop() {
                Some(refusal) if refusal.error.raw_os_error() == Some(libc::EINTR) => continue,
                Some(refusal) => Err(refusal.error),
                None => Ok(messages),
            };
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the data kept changing while it was read"))
    }

    /// The next packet, waited for.
    pub(super) fn receive_messages(&self) -> io::Result<Vec<Message>> {
        Ok(split(&self.receive(libc::MSG_DONTWAIT)?))
    }

    fn send(&self, requests: &[u8]) -> io::Result<()> {
        // The default send buffer holds about 200 KiB; a batch must go in one piece to be atomic.
        if requests.len() > 100_000 {
            let wanted = requests.len().saturating_mul(2);
            nix::sys::socket::setsockopt(&self.socket.as_fd(), nix::sys::socket::sockopt::SndBufForce, &wanted)?;
        }
        self.socket.send_to(requests, &SocketAddr::new(0, 0), 0).map(drop)
    }

    fn receive(&self, flags: i32) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(64 * 1024);
        let (length, _) = self.socket.recv_from(&mut buffer, flags | libc::MSG_TRUNC)?;
        if length > buffer.len() {
            return Err(io::Error::other("a netlink message was longer than its buffer"));
        }
        Ok(buffer)
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Netlink {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

fn split(mut packet: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((head, _)) = packet.split_first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(payload) = packet.get(HEADER..length) else { break };
        messages.push(Message {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            sequence: u32::from_ne_bytes([head[8], head[9], head[10], head[11]]),
            port: u32::from_ne_bytes([head[12], head[13], head[14], head[15]]),
            payload: payload.to_vec(),
        });
        packet = packet.get(align(length)..).unwrap_or_default();
    }
    messages
}

const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Requests in the order of sending. Sequence numbers are their positions.
#[derive(Default)]
pub(super) struct Requests {
    bytes: Vec<u8>,
    count: u32,
}

impl Requests {
    /// Appends one request and returns its sequence number; `body` writes what follows the netlink header.
    pub(super) fn push(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Attributes)) -> u32 {
        let sequence = self.count;
        self.count += 1;
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        let mut attributes = Attributes(std::mem::take(&mut self.bytes));
        body(&mut attributes);
        self.bytes = attributes.0;
        let length = u32::try_from(self.bytes.len() - start).expect("a request is far below 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(align(self.bytes.len()), 0);
        sequence
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Writes netlink attributes: length, type, value, padding to four bytes.
#[derive(Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// Raw bytes, such as the fixed header of a message.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("attributes are kept below 64 KiB by their writers");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(align(self.0.len()), 0);
    }

    /// Attributes that are encoded already, as a nest.
    pub(super) fn bytes_nested(&mut self, kind: u16, value: &[u8]) {
        self.bytes(kind | NLA_F_NESTED, value);
    }

    /// A 32 bit number in network order, as nfnetlink wants every number.
    pub(super) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A text with its final NUL.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    pub(super) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0, 0]);
        self.0.extend((kind | NLA_F_NESTED).to_ne_bytes());
        body(self);
        let length = u16::try_from(self.0.len() - start).expect("attributes are kept below 64 KiB by their writers");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// The attributes of a message: type without flags, value.
pub(super) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some((head, _)) = bytes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(value) = bytes.get(4..length) else { break };
        found.push((u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK, value));
        bytes = bytes.get(align(length)..).unwrap_or_default();
    }
    found
}

/// The value of the first attribute of that type.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).into_iter().find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A text attribute without its final NUL.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// A number in network order of up to four bytes.
pub(super) fn be(value: &[u8]) -> u32 {
    value.iter().take(4).fold(0, |n, b| n << 8 | u32::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_back() {
        let mut requests = Requests::default();
        requests.push(0x20, NLM_F_ACK, |a| {
            a.text(1, "abc");
            a.nest(2, |a| {
                a.be32(1, 7);
                a.bytes(2, &[1, 2, 3, 4, 5]);
            });
        });
        requests.push(0x21, 0, |a| a.raw(&[9]));
        let messages = split(requests.as_bytes());
        assert_eq!(
            messages.iter().map(|m| (m.kind, m.flags, m.sequence)).collect::<Vec<_>>(),
            [(0x20, NLM_F_ACK | NLM_F_REQUEST, 0), (0x21, NLM_F_REQUEST, 1)]
        );
        let first = &messages[0].payload;
        assert_eq!(text(attribute(first, 1).expect("written above")), "abc");
        let nested = attribute(first, 2).expect("written above");
        assert_eq!(be(attribute(nested, 1).expect("written above")), 7);
        assert_eq!(attribute(nested, 2), Some(&[1, 2, 3, 4, 5][..]));
        assert_eq!(messages[1].payload, [9]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_from_the_kernel_can_panic(bytes: Vec<u8>) {
            for message in split(&bytes) {
                let _ = attributes(&message.payload);
            }
            let _ = attributes(&bytes);
        }
    }
}
