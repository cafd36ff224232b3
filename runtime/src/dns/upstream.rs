//! Questions to other servers: each over a socket of its own with a port and id by chance, so that answers are hard to
//! forge; the first server that answers counts.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use hickory_proto::op::{Message, MessageType, Query};
use tokio::net::{TcpStream, UdpSocket};

use crate::network::Ipv4Net;
use crate::network::hosts::Resolver;

/// Wait for one server. Resolvers in pods wait five seconds altogether.
const WAIT: Duration = Duration::from_millis(1500);
/// As many as resolv.conf(5) has.
const SERVERS: usize = 3;

/// The servers of the host, read again when its resolv.conf changes.
#[derive(Debug)]
pub(super) struct HostServers {
    path: PathBuf,
    /// Held for a look at the file.
    known: Mutex<Option<(SystemTime, Vec<IpAddr>)>>,
}

impl Default for HostServers {
    fn default() -> Self {
        Self { path: PathBuf::from("/etc/resolv.conf"), known: Mutex::default() }
    }
}

impl HostServers {
    /// The servers as of now, those in our own ranges left out: asking ourselves would never end.
    pub(super) fn now(&self, own: &[Ipv4Net]) -> Vec<IpAddr> {
        let changed = std::fs::metadata(&self.path).and_then(|file| file.modified()).ok();
        let mut known = super::lock(&self.known);
        let all = match (&*known, changed) {
            (Some((then, servers)), Some(now)) if *then == now => servers.clone(),
            (_, now) => {
                let text = std::fs::read_to_string(&self.path).unwrap_or_default();
                let parsed = Resolver::parse(&text).nameservers;
                let servers: Vec<IpAddr> = parsed.iter().filter_map(|server| server.parse().ok()).collect();
                *known = now.map(|now| (now, servers.clone()));
                servers
            }
        };
        let is_own = |server: &IpAddr| match server {
            IpAddr::V4(v4) => own.iter().any(|range| range.offset_of(*v4).is_some()),
            IpAddr::V6(_) => false,
        };
        all.into_iter().filter(|server| !is_own(server)).take(SERVERS).collect()
    }
}

/// A query of our own.
pub(super) fn question(query: Query) -> Option<Vec<u8>> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query);
    message.to_vec().ok()
}

/// The answer of the first server that gives one, with the id of the question.
pub(super) async fn ask(packet: &[u8], servers: &[IpAddr], udp: bool) -> Option<Vec<u8>> {
    for server in servers {
        let server = SocketAddr::new(*server, super::PORT);
        let asked = async { if udp { over_udp(packet, server).await } else { over_tcp(packet, server).await } };
        if let Ok(Ok(reply)) = tokio::time::timeout(WAIT, asked).await {
            return Some(reply);
        }
    }
    None
}

async fn over_udp(packet: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let (id, request) = with_new_id(packet)?;
    socket.send(&request).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let reply = buffer.get(..length).unwrap_or_default();
        // Anything else is not for this question: the right answer may still come.
        if answers(packet, id, reply) {
            return with_id_of(packet, reply);
        }
    }
}

async fn over_tcp(packet: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let (id, request) = with_new_id(packet)?;
    super::write_message(&mut stream, &request).await?;
    let reply = super::read_message(&mut stream).await?;
    if answers(packet, id, &reply) {
        with_id_of(packet, &reply)
    } else {
        Err(std::io::Error::other("the answer is to another question"))
    }
}

fn with_new_id(packet: &[u8]) -> std::io::Result<([u8; 2], Vec<u8>)> {
    // Keyed by a secret of this process, another one at each call.
    let chance = std::hash::BuildHasher::build_hasher(&std::hash::RandomState::new());
    let [high, low, ..] = std::hash::Hasher::finish(&chance).to_be_bytes();
    let id = [high, low];
    let mut request = packet.to_vec();
    request.get_mut(..2).ok_or_else(|| std::io::Error::other("no question"))?.copy_from_slice(&id);
    Ok((id, request))
}

fn with_id_of(packet: &[u8], reply: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut reply = reply.to_vec();
    match (reply.get_mut(..2), packet.get(..2)) {
        (Some(to), Some(from)) => to.copy_from_slice(from),
        _ => return Err(std::io::Error::other("no answer")),
    }
    Ok(reply)
}

/// Whether a packet is a response with that id to that question (RFC 5452, section 9.1).
fn answers(packet: &[u8], id: [u8; 2], reply: &[u8]) -> bool {
    if reply.get(..2) != Some(&id[..]) {
        return false;
    }
    let (Ok(request), Ok(reply)) = (Message::from_vec(packet), Message::from_vec(reply)) else { return false };
    let same =
        |a: &Query, b: &Query| a.query_type() == b.query_type() && a.name().to_lowercase() == b.name().to_lowercase();
    reply.metadata.message_type == MessageType::Response
        && reply.queries.len() == request.queries.len()
        && reply.queries.iter().zip(&request.queries).all(|(a, b)| same(a, b))
}
