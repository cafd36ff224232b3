//! Deletes connection tracking entries that would keep sending packets to where they no longer belong, and counts the
//! connections that a pod still has.
//!
//! TCP connections end with their pod; what one that lost its pod leaves in the table is deleted. UDP flows live on as long as packets come, so they are deleted when their port
//! leads elsewhere, and whenever an address is given back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::error::NetworkError;
use super::netlink::{self, Attributes, NLM_F_DUMP, Netlink, Requests};

type Result<T> = std::result::Result<T, NetworkError>;

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const PROTOINFO: u16 = 4;
const PROTOINFO_TCP: u16 = 1;
const PROTOINFO_TCP_STATE: u16 = 1;
const ID: u16 = 12;
const FILTER: u16 = 25;
const UDP: u8 = 17;
/// TCP states of the kernel (enum tcp_conntrack): SYN_SENT, SYN_RECV, ESTABLISHED; all above are closing.
const SYN_SENT: u8 = 1;
const ESTABLISHED: u8 = 3;
const TIME_WAIT: u8 = 7;
/// Bits of the filter (kernel 5.8 and later; older ones answer with every entry, which is filtered here again).
const FILTER_IP_SRC: u32 = 1;
const FILTER_PROTO_NUM: u32 = 1 << 3;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    destination_port: u16,
}

/// Deletes every flow from or to one of these addresses. Returns how many there were.
pub(super) fn delete_of_addresses(addresses: &BTreeSet<IpAddr>) -> Result<usize> {
    let wanted = |original: Tuple, reply: Tuple| {
        [original.source, original.destination, reply.source, reply.destination].iter().any(|a| addresses.contains(a))
    };
    let mut deleted = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let of_family = |a: &&IpAddr| a.is_ipv4() == (family == libc::AF_INET);
        let mut of_family = addresses.iter().filter(of_family);
        let (Some(first), more) = (of_family.next(), of_family.next()) else { continue };
        let socket = open()?;
        if more.is_some() {
            deleted += delete(&socket, family, wanted, |_| {})?;
            continue;
        }
        // The kernel finds those of one address: flows that the pod opened, and flows that were translated to it, seen
        // from where their replies come from.
        for tuple in [TUPLE_ORIG, TUPLE_REPLY] {
            deleted += delete(&socket, family, wanted, |a| replies_from(a, tuple, *first))?;
        }
    }
    Ok(deleted)
}

/// How many TCP connections to an address are established or being made. Only those count that pass through this
/// host's tracking: through a published port or a Service, or from another host.
pub(super) fn connections_to(address: IpAddr) -> Result<usize> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let flows = list(&open()?, family, |a| replies_from(a, TUPLE_REPLY, address))?;
    let counts = |flow: &netlink::Message| {
        let body = flow.payload.get(4..).unwrap_or_default();
        let reply = netlink::attribute(body, TUPLE_REPLY).and_then(parse);
        reply.is_some_and(|reply| reply.source == address) && matches!(tcp_state(body), Some(SYN_SENT..=ESTABLISHED))
    };
    Ok(flows.iter().filter(|flow| counts(flow)).count())
}

/// Deletes every UDP flow that was sent to one of these ports of this host. Returns how many there were.
pub(super) fn delete_udp_to(ports: &[(Option<IpAddr>, u16)]) -> Result<usize> {
    if ports.is_empty() {
        return Ok(0);
    }
    let wanted = |original: Tuple, _: Tuple| {
        original.protocol == UDP
            && ports.iter().any(|(ip, port)| {
                *port == original.destination_port
                    && ip.is_none_or(|ip| ip == original.destination || ip.is_unspecified())
            })
    };
    delete_udp(wanted)
}

/// UDP flows to an entrance, and the pods that it leads to now.
pub(super) struct UdpEntrance {
    /// Its address; any address of this host when `None`.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) pods: BTreeSet<IpAddr>,
}

/// Deletes every UDP flow that was translated for one of these entrances to what is no longer behind it.
pub(super) fn delete_udp_astray(entrances: &[UdpEntrance]) -> Result<usize> {
    if entrances.is_empty() {
        return Ok(0);
    }
    let wanted = |original: Tuple, reply: Tuple| {
        original.protocol == UDP
            && reply.source != original.destination
            && entrances.iter().any(|entrance| {
                entrance.port == original.destination_port
                    && entrance.address.is_none_or(|address| address == original.destination)
                    && !entrance.pods.contains(&reply.source)
            })
    };
    delete_udp(wanted)
}

/// Deletes the UDP flows of both families that are wanted. Returns how many there were.
fn delete_udp(wanted: impl Fn(Tuple, Tuple) -> bool + Copy) -> Result<usize> {
    let socket = open()?;
    let mut deleted = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        deleted += delete(&socket, family, wanted, |a| {
            a.nest(TUPLE_ORIG, |a| a.nest(2, |a| a.bytes(1, &[UDP])));
            filter(a, TUPLE_ORIG, FILTER_PROTO_NUM);
        })?;
    }
    Ok(deleted)
}

fn open() -> Result<Netlink> {
    Netlink::open(NETLINK_NETFILTER)
        .map_err(|source| NetworkError::Conntrack { what: "open a connection tracking socket", source })
}

fn filter(a: &mut Attributes, tuple: u16, bits: u32) {
    a.nest(FILTER, |a| a.bytes(tuple, &bits.to_ne_bytes()));
}

/// Narrows a listing to flows with this source in that direction.
fn replies_from(a: &mut Attributes, tuple: u16, source: IpAddr) {
    a.nest(tuple, |a| {
        a.nest(1, |a| match source {
            IpAddr::V4(v4) => a.bytes(1, &v4.octets()),
            IpAddr::V6(v6) => a.bytes(3, &v6.octets()),
        });
    });
    filter(a, tuple, FILTER_IP_SRC);
}

fn list(socket: &Netlink, family: i32, narrow: impl FnOnce(&mut Attributes)) -> Result<Vec<netlink::Message>> {
    let family = u8::try_from(family).expect("address families are small");
    let mut requests = Requests::default();
    requests.push(SUBSYSTEM << 8 | GET, NLM_F_DUMP, |a| {
        a.raw(&[family, 0, 0, 0]);
        narrow(a);
    });
    socket
        .dump(requests.as_bytes())
        .map_err(|source| NetworkError::Conntrack { what: "list tracked connections", source })
}

fn delete(
    socket: &Netlink,
    family: i32,
    wanted: impl Fn(Tuple, Tuple) -> bool,
    narrow: impl FnOnce(&mut Attributes),
) -> Result<usize> {
    let flows = list(socket, family, narrow)?;
    let family = u8::try_from(family).expect("address families are small");
    let mut requests = Requests::default();
    let mut count = 0;
    for flow in &flows {
        let body = flow.payload.get(4..).unwrap_or_default();
        let tuple = |kind| netlink::attribute(body, kind).and_then(parse);
        let (Some(original), Some(reply)) = (tuple(TUPLE_ORIG), tuple(TUPLE_REPLY)) else { continue };
        if !wanted(original, reply) || is_over(body) {
            continue;
        }
        requests.push(SUBSYSTEM << 8 | DELETE, 0, |a| {
            a.raw(&[family, 0, 0, 0]);
            if let Some(tuple) = netlink::attribute(body, TUPLE_ORIG) {
                a.bytes_nested(TUPLE_ORIG, tuple);
            }
            // The id keeps a new flow with the same addresses safe, as a rule.
            if let Some(id) = netlink::attribute(body, ID) {
                a.bytes(ID, id);
            }
        });
        count += 1;
    }
    if count > 0 {
        let failed = |source| NetworkError::Conntrack { what: "delete tracked connections", source };
        let (_, refusals) = socket.exchange(requests.as_bytes(), false).map_err(failed)?;
        // Gone in the meantime is as good.
        let refusal = refusals.into_iter().find(|r| r.error.raw_os_error() != Some(libc::ENOENT));
        refusal.map_or(Ok(()), |r| Err(failed(r.error)))?;
    }
    Ok(count)
}

fn tcp_state(flow: &[u8]) -> Option<u8> {
    let tcp = netlink::attribute(netlink::attribute(flow, PROTOINFO)?, PROTOINFO_TCP)?;
    netlink::attribute(tcp, PROTOINFO_TCP_STATE)?.first().copied()
}

/// Whether a TCP connection is over and tracked for a while still. Such an entry is left alone: it is in nobody's way,
/// since the kernel replaces it when its client uses the same port again. That new connection would be what is deleted
/// when it comes between listing and deleting: it has the same addresses, and as a rule the same id, which the kernel
/// makes from the addresses and the place in memory that was just freed.
fn is_over(flow: &[u8]) -> bool {
    matches!(tcp_state(flow), Some(TIME_WAIT..))
}

fn parse(tuple: &[u8]) -> Option<Tuple> {
    let ip = netlink::attribute(tuple, 1)?;
    let address = |v4, v6| {
        let four = netlink::attribute(ip, v4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(IpAddr::from);
        four.or_else(|| netlink::attribute(ip, v6).and_then(|b| <[u8; 16]>::try_from(b).ok()).map(IpAddr::from))
    };
    let protocol = netlink::attribute(tuple, 2)?;
    let port = netlink::attribute(protocol, 3).and_then(|b| b.first_chunk().copied()).map_or(0, u16::from_be_bytes);
    Some(Tuple {
        source: address(1, 3)?,
        destination: address(2, 4)?,
        protocol: *netlink::attribute(protocol, 1)?.first()?,
        destination_port: port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flow as the kernel lists it, of TCP in that state or of another protocol.
    fn flow(state: Option<u8>) -> Vec<u8> {
        let mut flow = Attributes::default();
        flow.bytes(ID, &7u32.to_be_bytes());
        if let Some(state) = state {
            flow.nest(PROTOINFO, |a| a.nest(PROTOINFO_TCP, |a| a.bytes(PROTOINFO_TCP_STATE, &[state])));
        }
        flow.as_bytes().to_vec()
    }

    #[test]
    fn connections_that_are_over_are_not_deleted() {
        // UDP; then NONE, SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT, CLOSE.
        for (state, over) in
            [(None, false), (Some(1), false), (Some(3), false), (Some(6), false), (Some(7), true), (Some(8), true)]
        {
            assert_eq!(tcp_state(&flow(state)), state);
            assert_eq!(is_over(&flow(state)), over, "{state:?}");
        }
    }
}
