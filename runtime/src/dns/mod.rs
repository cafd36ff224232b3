//! The DNS responder of pods, on the address of each bridge: our own names from a table, all others from the servers
//! of the host.
//!
//! Owns its sockets and nothing else; the table comes with [`Responder::set`]. It answers addresses of pods and of this
//! host only, follows no chain but an alias of ours, and keeps nothing that others have said. Bounded: so many questions
//! to others at once altogether and for each client, so many TCP connections, each with a time limit.

mod answer;
mod upstream;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use spec::names::NameTable;
use spec::observed::PodUid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

pub use answer::Client;
use answer::{Answer, Zone};

use crate::network::Ipv4Net;

const PORT: u16 = 53;
/// Questions to other servers at once.
const FORWARDS: usize = 256;
/// The same for one client.
const FORWARDS_OF_ONE: usize = 64;
/// TCP connections at once.
const CONNECTIONS: usize = 64;
/// A TCP client has so long for each question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says who has an address; `None` for strangers, who get no answer.
pub type WhoIs = dyn Fn(Ipv4Addr) -> Option<Client> + Send + Sync;

/// What is served and where. Ends with this value.
pub struct Responder {
    runtime: tokio::runtime::Handle,
    shared: Arc<Shared>,
    listeners: Mutex<BTreeMap<Ipv4Addr, Vec<JoinHandle<()>>>>,
}

struct Shared {
    who_is: Box<WhoIs>,
    /// `None` before names are known: nothing is listened on then. Held for a copy of the pointer.
    zone: Mutex<Option<Arc<Zone>>>,
    turn: AtomicUsize,
    forwards: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    /// Questions to others by client. Held for a count.
    busy: Mutex<BTreeMap<IpAddr, usize>>,
    servers: upstream::HostServers,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Responder")
    }
}

impl Responder {
    /// Serves nothing until names are set. Must be made within a tokio runtime.
    #[must_use]
    pub fn new(who_is: Box<WhoIs>) -> Self {
        let shared = Shared {
            who_is,
            zone: Mutex::new(None),
            turn: AtomicUsize::new(0),
            forwards: Arc::new(Semaphore::new(FORWARDS)),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            busy: Mutex::default(),
            servers: upstream::HostServers::default(),
        };
        Self { runtime: tokio::runtime::Handle::current(), shared: Arc::new(shared), listeners: Mutex::default() }
    }

    /// Replaces all names, with the addresses of pods by network and the ranges that are ours.
    pub fn set(&self, table: &NameTable, members: BTreeMap<String, BTreeMap<PodUid, Ipv4Addr>>, ranges: Vec<Ipv4Net>) {
        *lock(&self.shared.zone) = Some(Arc::new(Zone { table: table.clone(), members, ranges }));
    }

    /// Listens on these addresses and no others, as far as they can be had: one that cannot is tried at the next call.
    pub fn listen(&self, addresses: &[Ipv4Addr]) {
        if lock(&self.shared.zone).is_none() {
            return;
        }
        let mut listeners = lock(&self.listeners);
        listeners.retain(|address, tasks| {
            let keep = addresses.contains(address);
            if !keep {
                tasks.iter().for_each(JoinHandle::abort);
            }
            keep
        });
        for address in addresses {
            if listeners.contains_key(address) {
                continue;
            }
            match bind(*address) {
                Ok((udp, tcp)) => {
                    let _inside = self.runtime.enter();
                    let tasks = UdpSocket::from_std(udp).and_then(|udp| Ok((udp, TcpListener::from_std(tcp)?)));
                    let Ok((udp, tcp)) = tasks else { continue };
                    let tasks = vec![
                        self.runtime.spawn(serve_udp(Arc::clone(&self.shared), Arc::new(udp))),
                        self.runtime.spawn(serve_tcp(Arc::clone(&self.shared), tcp)),
                    ];
                    listeners.insert(*address, tasks);
                }
                // Pods have the host's servers as well, and names in /etc/hosts.
                Err(error) => tracing::warn!(%address, %error, "no DNS for pods on this address"),
            }
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        lock(&self.listeners).values().flatten().for_each(JoinHandle::abort);
    }
}

fn bind(address: Ipv4Addr) -> std::io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    let udp = std::net::UdpSocket::bind((address, PORT))?;
    let tcp = std::net::TcpListener::bind((address, PORT))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

async fn serve_udp(shared: Arc<Shared>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; 4096];
    loop {
        // An error here is about an earlier answer that did not arrive.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let packet = buffer.get(..length).unwrap_or_default();
        let Some((client, zone)) = shared.known(peer) else { continue };
        match answer::answer(packet, &client, &zone, true, shared.next_turn()) {
            Answer::Ready(reply) => drop(socket.send_to(&reply, peer).await),
            Answer::Silence => {}
            pending => match shared.permit(peer.ip()) {
                Some(permit) => {
                    let (shared, socket, packet) = (Arc::clone(&shared), Arc::clone(&socket), packet.to_vec());
                    tokio::spawn(async move {
                        let _permit = permit;
                        if let Some(reply) = shared.ask_others(&packet, pending, &client, &zone, true).await {
                            drop(socket.send_to(&reply, peer).await);
                        }
                    });
                }
                None => {
                    if let Some(reply) = answer::refusal(packet, ResponseCode::Refused) {
                        drop(socket.send_to(&reply, peer).await);
                    }
                }
            },
        }
    }
}

async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of descriptors, most likely: not at once again.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _permit = permit;
            // A client that goes away in the middle has nothing to be told.
            drop(converse(&shared, stream, peer).await);
        });
    }
}

async fn converse(shared: &Arc<Shared>, mut stream: TcpStream, peer: SocketAddr) -> std::io::Result<()> {
    loop {
        let packet = match tokio::time::timeout(PATIENCE, read_message(&mut stream)).await {
            Ok(Ok(packet)) => packet,
            _ => return Ok(()),
        };
        let Some((client, zone)) = shared.known(peer) else { return Ok(()) };
        let reply = match answer::answer(&packet, &client, &zone, false, shared.next_turn()) {
            Answer::Ready(reply) => Some(reply),
            Answer::Silence => None,
            pending => match shared.permit(peer.ip()) {
                Some(_permit) => shared.ask_others(&packet, pending, &client, &zone, false).await,
                None => answer::refusal(&packet, ResponseCode::Refused),
            },
        };
        let Some(reply) = reply else { return Ok(()) };
        match tokio::time::timeout(PATIENCE, write_message(&mut stream, &reply)).await {
            Ok(written) => written?,
            Err(_) => return Ok(()),
        }
    }
}

async fn read_message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut packet = vec![0; usize::from(length)];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

async fn write_message(stream: &mut TcpStream, packet: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(packet.len()).map_err(std::io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(packet);
    stream.write_all(&bytes).await
}

/// The right to ask others, of one client; given back when dropped.
struct Permit {
    shared: Arc<Shared>,
    client: IpAddr,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut busy = lock(&self.shared.busy);
        if let Some(count) = busy.get_mut(&self.client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                busy.remove(&self.client);
            }
        }
    }
}

impl Shared {
    fn known(&self, peer: SocketAddr) -> Option<(Client, Arc<Zone>)> {
        let IpAddr::V4(address) = peer.ip() else { return None };
        Some(((self.who_is)(address)?, lock(&self.zone).clone()?))
    }

    fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn permit(self: &Arc<Self>, client: IpAddr) -> Option<Permit> {
        let place = Arc::clone(&self.forwards).try_acquire_owned().ok()?;
        let mut busy = lock(&self.busy);
        let count = busy.entry(client).or_default();
        if *count >= FORWARDS_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Permit { shared: Arc::clone(self), client, _place: place })
    }

    /// Gets an answer from the servers of the pod, or of the host.
    async fn ask_others(
        &self,
        packet: &[u8],
        pending: Answer,
        client: &Client,
        zone: &Zone,
        udp: bool,
    ) -> Option<Vec<u8>> {
        let own = client.pod.as_ref().and_then(|pod| zone.table.upstreams.get(pod));
        let servers = match own {
            Some(servers) => servers.clone(),
            None => self.servers.now(&zone.ranges),
        };
        match pending {
            Answer::Forward => match upstream::ask(packet, &servers, udp).await {
                Some(reply) => Some(reply),
                None => answer::refusal(packet, ResponseCode::ServFail),
            },
            Answer::Alias(reply, query) => {
                let request = upstream::question(query);
                let found = match &request {
                    Some(request) => upstream::ask(request, &servers, udp).await,
                    None => None,
                };
                answer::complete(*reply, found.as_deref(), udp)
            }
            Answer::Ready(reply) => Some(reply),
            Answer::Silence => None,
        }
    }
}

#[cfg(test)]
mod tests;
