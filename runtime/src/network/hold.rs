//! Placeholder sockets: translation in the kernel binds nothing, so a socket of ours holds each published port.
//!
//! It makes "port taken" an error instead of a hijacked service, and keeps other programs from taking the port
//! later. It is bound but never listens: what reaches it untranslated ([::1], or while the rules are being repaired)
//! is refused at once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use spec::pod::Protocol;

use crate::api::PortKey;

/// The sockets, by port.
#[derive(Debug, Default)]
pub(super) struct Holds(BTreeMap<PortKey, Vec<OwnedFd>>);

/// Why a port cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PortFault {
    /// A program of the host has it.
    #[error("cannot publish {}: {}", show(key), holder.as_deref().map_or_else(|| "the port is taken".to_owned(), |h| format!("the port is taken by {h}")))]
    Taken {
        /// The port.
        key: PortKey,
        /// Name and process id of the program, where they can be found.
        holder: Option<String>,
    },
    /// The host does not have that address.
    #[error("cannot publish {}: this host has no such address", show(key))]
    NoSuchAddress {
        /// The port.
        key: PortKey,
    },
    /// Another reason.
    #[error("cannot publish {}", show(key))]
    Other {
        /// The port.
        key: PortKey,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PortFault {
    /// The port.
    #[must_use]
    pub const fn key(&self) -> &PortKey {
        match self {
            Self::Taken { key, .. } | Self::NoSuchAddress { key } | Self::Other { key, .. } => key,
        }
    }
}

fn show(key: &PortKey) -> String {
    match key.host_ip {
        Some(ip) => format!("{} on {}", key.protocol, SocketAddr::new(ip, key.host_port)),
        None => format!("{} port {}", key.protocol, key.host_port),
    }
}

impl Holds {
    /// Holds a port; that it is held already is a success.
    pub(super) fn hold(&mut self, key: &PortKey) -> Result<(), PortFault> {
        if self.0.contains_key(key) {
            return Ok(());
        }
        let mut sockets = Vec::new();
        for address in addresses(key) {
            match bind(key.protocol, address) {
                Ok(socket) => sockets.push(socket),
                Err(e) => match e.raw_os_error() {
                    Some(libc::EADDRINUSE) => {
                        let holder = holder(key.protocol, address);
                        return Err(PortFault::Taken { key: key.clone(), holder });
                    }
                    Some(libc::EADDRNOTAVAIL) => return Err(PortFault::NoSuchAddress { key: key.clone() }),
                    // No IPv6, or a kernel without SCTP sockets: then no program can have the port either.
                    Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT) => {}
                    _ => return Err(PortFault::Other { key: key.clone(), source: e }),
                },
            }
        }
        self.0.insert(key.clone(), sockets);
        Ok(())
    }

    /// Whether a port is held in this or another form (one address instead of all).
    pub(super) fn has(&self, key: &PortKey) -> bool {
        self.0.keys().any(|held| held.protocol == key.protocol && held.host_port == key.host_port)
    }

    /// Lets every port go that is not in `wished`.
    pub(super) fn keep_only(&mut self, wished: impl Fn(&PortKey) -> bool) {
        self.0.retain(|key, _| wished(key));
    }

    /// Lets every port go.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The addresses that a key stands for: without one, all of either version.
fn addresses(key: &PortKey) -> Vec<SocketAddr> {
    let ips = match key.host_ip {
        Some(ip) => vec![ip],
        None => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
    };
    ips.into_iter().map(|ip| SocketAddr::new(ip, key.host_port)).collect()
}

fn bind(protocol: Protocol, address: SocketAddr) -> io::Result<OwnedFd> {
    match try_bind(protocol, address, Reuse::No) {
        // Connections of a former holder in TIME_WAIT block the port for a plain bind. Whether somebody really has
        // it shows when listening: this succeeds besides TIME_WAIT, never besides a bound socket without SO_REUSEADDR.
        Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) && protocol == Protocol::Tcp => {
            let probe = try_bind(protocol, address, Reuse::Yes)?;
            rustix::net::listen(&probe, 0)?;
            drop(probe);
            let socket = try_bind(protocol, address, Reuse::Yes)?;
            sockopt::set_socket_reuseaddr(&socket, false)?;
            Ok(socket)
        }
        other => other,
    }
}

#[derive(PartialEq, Eq)]
enum Reuse {
    No,
    Yes,
}

fn try_bind(protocol: Protocol, address: SocketAddr, reuse: Reuse) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if reuse == Reuse::Yes {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if kind == SocketType::DGRAM {
        // Datagrams that come untranslated are dropped, not queued.
        sockopt::set_socket_recv_buffer_size(&socket, 0)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// The program that has a port, as `name (pid)`, found by its socket's inode among all open files.
fn holder(protocol: Protocol, address: SocketAddr) -> Option<String> {
    let name = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => return None,
    };
    let inode = [name.to_owned(), format!("{name}6")]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok())
        .find_map(|table| table.lines().skip(1).find_map(|line| socket_inode(line, address, protocol)))?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let pid = process.file_name();
        let Some(pid) = pid.to_str().filter(|p| p.bytes().all(|b| b.is_ascii_digit())) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let found = files.flatten().any(|f| fs::read_link(f.path()).is_ok_and(|l| l.as_os_str() == wanted.as_str()));
        if found {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim_end()));
        }
    }
    None
}

/// The inode of a line of /proc/net/tcp or its like, when that socket stands in the way of binding `address`.
fn socket_inode(line: &str, address: SocketAddr, protocol: Protocol) -> Option<String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let blocks = u16::from_str_radix(port, 16).ok()? == address.port()
        // Listening TCP sockets, and UDP sockets of any state.
        && (protocol != Protocol::Tcp || *fields.get(3)? == "0A");
    let any = ip.bytes().all(|b| b == b'0');
    let same = |ip: &str| match address.ip() {
        IpAddr::V4(v4) => ip.ends_with(&format!("{:08X}", u32::from_ne_bytes(v4.octets()))),
        IpAddr::V6(v6) => {
            let words: Vec<String> = v6
                .octets()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|word| format!("{:08X}", u32::from_ne_bytes(*word)))
                .collect();
            ip == words.concat()
        }
    };
    (blocks && (any || address.ip().is_unspecified() || same(ip))).then(|| (*fields.get(9).unwrap_or(&"")).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn key(protocol: Protocol, host_ip: Option<&str>, host_port: u16) -> PortKey {
        PortKey { protocol, host_ip: host_ip.map(|ip| ip.parse().expect("an address")), host_port }
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let error = Holds::default().hold(&key(Protocol::Tcp, None, port)).expect_err("the listener has it");
        let expected = format!("(pid {})", std::process::id());
        assert!(error.to_string().starts_with(&format!("cannot publish tcp port {port}: the port is taken by ")));
        assert!(error.to_string().ends_with(&expected), "{error}");

        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("bound").port();
        let error = Holds::default().hold(&key(Protocol::Udp, Some("127.0.0.1"), port)).expect_err("taken");
        assert!(error.to_string().ends_with(&expected), "{error}");
    }

    #[test]
    fn a_held_port_is_refused_to_others_and_to_clients() {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let mut holds = Holds::default();
        holds.hold(&key(Protocol::Tcp, None, port)).expect("free");
        holds.hold(&key(Protocol::Tcp, None, port)).expect("held already");
        assert!(holds.has(&key(Protocol::Tcp, Some("127.0.0.1"), port)));
        assert!(!holds.has(&key(Protocol::Udp, Some("127.0.0.1"), port)));
        for address in [format!("0.0.0.0:{port}"), format!("127.0.0.1:{port}"), format!("[::]:{port}")] {
            let error = TcpListener::bind(&address).expect_err("held");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{address}");
        }
        assert!(Holds::default().hold(&key(Protocol::Tcp, None, port)).is_err(), "held by another agent");
        let refused = std::net::TcpStream::connect(("::1", port)).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        holds.keep_only(|_| false);
        assert!(!holds.has(&key(Protocol::Tcp, None, port)));
        TcpListener::bind(("0.0.0.0", port)).expect("given back");
    }

    #[test]
    fn connections_in_time_wait_do_not_block_a_port() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let client = std::net::TcpStream::connect(address).expect("listening");
        let (server, _) = listener.accept().expect("a client");
        // The side that closes first stays in TIME_WAIT.
        drop(server);
        drop(client);
        drop(listener);
        let key = key(Protocol::Tcp, Some("127.0.0.1"), address.port());
        assert!(try_bind(Protocol::Tcp, address, Reuse::No).is_err(), "the test needs a TIME_WAIT");
        Holds::default().hold(&key).expect("nobody has it");
        let mut holds = Holds::default();
        holds.hold(&key).expect("nobody has it");
        assert!(TcpListener::bind(address).is_err(), "held");
    }

    #[test]
    fn an_address_of_another_host_is_told() {
        let error = Holds::default().hold(&key(Protocol::Tcp, Some("192.0.2.1"), 80)).expect_err("not ours");
        assert_eq!(error.to_string(), "cannot publish tcp on 192.0.2.1:80: this host has no such address");
    }
}
