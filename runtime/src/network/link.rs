//! Interfaces, addresses and routes over rtnetlink, in as few exchanges as can be.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, LinkMessageBuffer,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMessageBuffer, RouteProtocol, RouteScope, RouteType,
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::error::NetworkError;
use super::netlink::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, Netlink, Requests};
use super::subnet::Ipv4Net;

type Result<T> = std::result::Result<T, NetworkError>;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

/// A hardware address.
pub(super) type Mac = [u8; 6];

/// An interface as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) up: bool,
    /// Index of the bridge it is a port of.
    pub(super) master: Option<u32>,
    pub(super) is_bridge: bool,
    /// Bytes, then packets; received, then sent.
    pub(super) counters: [u64; 4],
}

/// What a pod's interface is made with.
pub(super) struct Veth<'a> {
    /// Name of the end on the host.
    pub(super) host_name: &'a str,
    /// Index of the bridge it joins.
    pub(super) bridge: u32,
    /// Namespace of the other end.
    pub(super) netns: BorrowedFd<'a>,
    /// Name of the other end.
    pub(super) pod_name: &'a str,
    /// Hardware address of the other end.
    pub(super) mac: Mac,
    pub(super) mtu: u32,
}

/// An rtnetlink socket of one network namespace.
pub(super) struct Links {
    socket: Netlink,
}

impl Links {
    /// Opens one in the namespace of the calling thread.
    pub(super) fn open() -> Result<Self> {
        let socket =
            Netlink::open(NETLINK_ROUTE).map_err(|source| NetworkError::Socket { family: "rtnetlink", source })?;
        Ok(Self { socket })
    }

    /// The interface of that name.
    pub(super) fn find(&self, name: &str) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut requests = Requests::default();
        requests.push(RTM_GETLINK, 0, |a| a.raw(&encode(&message)));
        let what = || format!("look for interface {name}");
        let (messages, refusals) =
            self.socket.exchange(requests.as_bytes(), false).map_err(NetworkError::link(what()))?;
        match refusals.into_iter().next().map(|r| r.error) {
            Some(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            Some(e) => return Err(NetworkError::link(what())(e)),
            None => {}
        }
        Ok(messages.iter().find_map(|m| parse_link(&m.payload)))
    }

    /// Every interface.
    pub(super) fn all(&self) -> Result<Vec<Link>> {
        let mut requests = Requests::default();
        requests.push(RTM_GETLINK, NLM_F_DUMP, |a| a.raw(&encode(&LinkMessage::default())));
        let messages = self.socket.dump(requests.as_bytes()).map_err(NetworkError::link("list interfaces"))?;
        Ok(messages.iter().filter_map(|m| parse_link(&m.payload)).collect())
    }

    /// Makes a bridge that is up. That it is there is a success.
    pub(super) fn create_bridge(&self, name: &str, mac: Mac, mtu: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        set_up(&mut message);
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        let mut batch = Changes::default();
        batch.push(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, format!("create bridge {name}"), &message);
        batch.ignore(libc::EEXIST);
        self.commit(batch)
    }

    /// Sets an interface up.
    pub(super) fn set_up(&self, index: u32, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        set_up(&mut message);
        message.header.index = index;
        let mut batch = Changes::default();
        batch.push(RTM_NEWLINK, 0, format!("set interface {name} up"), &message);
        self.commit(batch)
    }

    /// Makes a pair of interfaces, one end up and a port of the bridge, the other in the pod's namespace.
    /// Fails with `AlreadyExists` inside when the name on the host is taken.
    pub(super) fn create_veth(&self, veth: &Veth<'_>) -> Result<()> {
        // The kernel refuses to set this end up in the same request (ENOTCONN); `configure` does it.
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(veth.pod_name.to_owned()),
            LinkAttribute::NetNsFd(veth.netns.as_raw_fd()),
            LinkAttribute::Address(veth.mac.to_vec()),
            LinkAttribute::Mtu(veth.mtu),
        ];
        let mut message = LinkMessage::default();
        set_up(&mut message);
        message.attributes = vec![
            LinkAttribute::IfName(veth.host_name.to_owned()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::Controller(veth.bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        let mut batch = Changes::default();
        batch.push(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, format!("create interface {}", veth.host_name), &message);
        batch.push(RTM_NEWLINK, 0, format!("set up bridge port {}", veth.host_name), &hairpin(veth.host_name));
        self.commit(batch)
    }

    /// Makes an interface a port of a bridge, and sets it up.
    pub(super) fn join_bridge(&self, index: u32, name: &str, bridge: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        set_up(&mut message);
        message.header.index = index;
        message.attributes.push(LinkAttribute::Controller(bridge));
        let mut batch = Changes::default();
        batch.push(RTM_NEWLINK, 0, format!("make interface {name} a port of its bridge"), &message);
        batch.push(RTM_NEWLINK, 0, format!("set up bridge port {name}"), &hairpin(name));
        self.commit(batch)
    }

    /// Sets an interface up and gives it addresses and, where asked for, default routes through them.
    pub(super) fn configure(&self, name: &str, addresses: &[(IpAddr, u8)], gateways: &[IpAddr]) -> Result<()> {
        let Some(Link { index, .. }) = self.find(name)? else {
            let gone = io::Error::from_raw_os_error(libc::ENODEV);
            return Err(NetworkError::link(format!("find interface {name}"))(gone));
        };
        let mut batch = Changes::default();
        let mut message = LinkMessage::default();
        set_up(&mut message);
        message.header.index = index;
        batch.push(RTM_NEWLINK, 0, format!("set interface {name} up"), &message);
        for (address, prefix) in addresses {
            let message = address_message(index, *address, *prefix);
            let label = format!("add address {address}/{prefix}");
            batch.push(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, label, &message);
        }
        for gateway in gateways {
            let label = format!("add the default route by {gateway}");
            batch.push(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, label, &default_route(index, *gateway));
        }
        self.commit(batch)
    }

    /// Makes a route to a range by loopback, with the address that packets of this host carry as their source.
    pub(super) fn add_route(&self, range: Ipv4Net, source: Option<Ipv4Addr>) -> Result<()> {
        let mut batch = Changes::default();
        let label = format!("add the route to {range}");
        batch.push(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, label, &loopback_route(range, source));
        self.commit(batch)
    }

    /// Deletes such a route. That it is gone already is a success.
    pub(super) fn delete_route(&self, range: Ipv4Net) -> Result<()> {
        let mut batch = Changes::default();
        batch.push(RTM_DELROUTE, 0, format!("delete the route to {range}"), &loopback_route(range, None));
        batch.ignore(libc::ESRCH);
        self.commit(batch)
    }

    /// Deletes an interface, and its other end. That it is gone already is a success.
    pub(super) fn delete(&self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut batch = Changes::default();
        batch.push(RTM_DELLINK, 0, format!("delete interface {name}"), &message);
        batch.ignore(libc::ENODEV);
        self.commit(batch)
    }

    /// The IPv4 ranges that routes of this host lead to, with the interface; without default routes.
    pub(super) fn routes(&self) -> Result<Vec<(Ipv4Net, Option<u32>)>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let mut requests = Requests::default();
        requests.push(RTM_GETROUTE, NLM_F_DUMP, |a| a.raw(&encode(&message)));
        let messages = self.socket.dump(requests.as_bytes()).map_err(NetworkError::link("list routes"))?;
        Ok(messages.iter().filter_map(|m| parse_route(&m.payload)).collect())
    }

    fn commit(&self, batch: Changes) -> Result<()> {
        let Changes { requests, labels, ignored } = batch;
        let (_, refusals) = self
            .socket
            .exchange(requests.as_bytes(), false)
            .map_err(NetworkError::link("send a request to the kernel"))?;
        for refusal in refusals {
            if refusal.error.raw_os_error().is_some_and(|code| ignored.contains(&code)) {
                continue;
            }
            let label = labels.get(refusal.sequence as usize).cloned().unwrap_or_default();
            return Err(NetworkError::Link { what: label, source: refusal.error });
        }
        Ok(())
    }
}

#[derive(Default)]
struct Changes {
    requests: Requests,
    labels: Vec<String>,
    ignored: Vec<i32>,
}

impl Changes {
    fn push(&mut self, kind: u16, flags: u16, label: String, message: &impl Emitable) {
        self.requests.push(kind, flags | NLM_F_ACK, |a| a.raw(&encode(message)));
        self.labels.push(label);
    }

    /// An error that means that the wish is fulfilled.
    fn ignore(&mut self, code: i32) {
        self.ignored.push(code);
    }
}

fn encode(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn set_up(message: &mut LinkMessage) {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
}

/// Lets a frame leave by the port it came in by. Where bridge-nf-call-iptables is on, as Docker sets it, a pod that
/// connects to its own published port is translated on the bridge, and its packets come back by the same port.
fn hairpin(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ]),
    ];
    message
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = prefix;
    match address {
        IpAddr::V4(v4) => {
            message.header.family = AddressFamily::Inet;
            let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            let broadcast = Ipv4Addr::from_bits(v4.to_bits() | host_bits);
            message.attributes = vec![
                AddressAttribute::Local(address),
                AddressAttribute::Address(address),
                AddressAttribute::Broadcast(broadcast),
            ];
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            // We give addresses out ourselves: without duplicate detection they can be used at once.
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes = vec![
                AddressAttribute::Local(address),
                AddressAttribute::Address(address),
                AddressAttribute::Flags(AddressFlags::Nodad),
            ];
        }
    }
    message
}

fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.table = 254;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    let gateway = match gateway {
        IpAddr::V4(v4) => {
            message.header.address_family = AddressFamily::Inet;
            RouteAddress::Inet(v4)
        }
        IpAddr::V6(v6) => {
            message.header.address_family = AddressFamily::Inet6;
            RouteAddress::Inet6(v6)
        }
    };
    message.attributes = vec![RouteAttribute::Gateway(gateway), RouteAttribute::Oif(index)];
    message
}

fn loopback_route(range: Ipv4Net, source: Option<Ipv4Addr>) -> RouteMessage {
    const LOOPBACK: u32 = 1;
    let mut message = RouteMessage::default();
    message.header.table = 254;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Link;
    message.header.kind = RouteType::Unicast;
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = range.prefix();
    message.attributes =
        vec![RouteAttribute::Destination(RouteAddress::Inet(range.network())), RouteAttribute::Oif(LOOPBACK)];
    message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(RouteAddress::Inet(source))));
    message
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let message = LinkMessage::parse(&LinkMessageBuffer::new_checked(&payload).ok()?).ok()?;
    let mut link =
        Link { index: message.header.index, up: message.header.flags.contains(LinkFlags::Up), ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::LinkInfo(info) => link.is_bridge = info.contains(&LinkInfo::Kind(InfoKind::Bridge)),
            LinkAttribute::Stats64(s) => link.counters = [s.rx_bytes, s.tx_bytes, s.rx_packets, s.tx_packets],
            _ => {}
        }
    }
    Some(link)
}

fn parse_route(payload: &[u8]) -> Option<(Ipv4Net, Option<u32>)> {
    let message = RouteMessage::parse(&RouteMessageBuffer::new_checked(&payload).ok()?).ok()?;
    let (mut destination, mut interface) = (None, None);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some(address),
            RouteAttribute::Oif(index) => interface = Some(index),
            _ => {}
        }
    }
    // Local and broadcast routes of 127/8 and the like never overlap a candidate; default routes have no destination.
    Some((Ipv4Net::new(destination?, message.header.destination_prefix_length)?, interface))
}

/// The lowest hardware address bits that say "locally administered, one station", followed by ours.
pub(super) fn mac_for(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x02, 0x4d, a, b, c, d]
}

/// Reads `02:4d:0a:58:00:02`.
pub(super) fn parse_mac(text: &str) -> Option<Mac> {
    let bytes: Vec<u8> = text.split([':', '-']).map(|part| u8::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    let mac: Mac = bytes.try_into().ok()?;
    // The lowest bit of the first byte marks a group, which no interface can have.
    (mac[0] & 1 == 0).then_some(mac)
}

/// Whether this error says that what was to be made is there.
pub(super) fn is_there(error: &NetworkError) -> bool {
    matches!(error, NetworkError::Link { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
}

/// Whether this error says that an interface is not there.
pub(super) fn no_device(error: &NetworkError) -> bool {
    matches!(error, NetworkError::Link { source, .. }
        if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENXIO | libc::EINVAL)))
}
