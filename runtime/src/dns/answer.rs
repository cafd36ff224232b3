//! A query in, what to do about it out: pure, and without trust in a single byte.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use spec::names::{CLUSTER_DOMAIN, Meaning, NameTable};
use spec::observed::PodUid;

use crate::network::Ipv4Net;

/// Seconds for which answers may be kept, negative ones too: names follow pods.
const TTL: u32 = 2;
/// Largest UDP answer, whatever the client says: no fragments (DNS flag day 2020).
const MAX_UDP: u16 = 1232;
/// A reader without EDNS takes so much (RFC 1035, 4.2.1).
const PLAIN_UDP: u16 = 512;

/// All that is known of our own names.
#[derive(Debug, Default)]
pub(super) struct Zone {
    pub(super) table: NameTable,
    /// Addresses of pods by network.
    pub(super) members: BTreeMap<String, BTreeMap<PodUid, Ipv4Addr>>,
    /// Ranges of pods and Services: nobody outside knows their names.
    pub(super) ranges: Vec<Ipv4Net>,
}

/// Who asks.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// The pod; `None` for the host itself.
    pub pod: Option<PodUid>,
    /// Whether it knows the names of Services.
    pub cluster: bool,
    /// The networks that it is on.
    pub networks: Vec<String>,
}

/// What to do about a query.
#[derive(Debug)]
pub(super) enum Answer {
    /// Send this.
    Ready(Vec<u8>),
    /// Others know.
    Forward,
    /// It is another name, which others know.
    Alias(Box<Message>, Query),
    /// No query at all.
    Silence,
}

enum Found {
    Records(Vec<RData>),
    NoSuchName,
    NotOurs,
}

/// Decides what becomes of a packet. `turn` rotates addresses.
pub(super) fn answer(packet: &[u8], client: &Client, zone: &Zone, udp: bool, turn: usize) -> Answer {
    let Ok(request) = Message::from_vec(packet) else { return malformed(packet) };
    if request.metadata.message_type != MessageType::Query {
        return Answer::Silence;
    }
    let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    let limit = if udp {
        request.edns.as_ref().map_or(PLAIN_UDP, |e| e.max_payload().clamp(PLAIN_UDP, MAX_UDP))
    } else {
        u16::MAX
    };
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP);
        reply.set_edns(edns);
    }
    if request.metadata.op_code != OpCode::Query {
        reply.metadata.response_code = ResponseCode::NotImp;
        return encode(&reply, limit);
    }
    let [query] = request.queries.as_slice() else {
        reply.metadata.response_code = ResponseCode::FormErr;
        return encode(&reply, limit);
    };
    reply.add_query(query.clone());
    if query.query_class() != DNSClass::IN {
        reply.metadata.response_code = ResponseCode::Refused;
        return encode(&reply, limit);
    }
    let name = query.name().to_lowercase().to_ascii();
    let name = name.trim_end_matches('.');
    match find(name, query.query_type(), client, zone, turn) {
        Found::NotOurs => Answer::Forward,
        Found::NoSuchName => {
            reply.metadata.authoritative = true;
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(start_of_authority());
            encode(&reply, limit)
        }
        Found::Records(data) => {
            reply.metadata.authoritative = true;
            if data.is_empty() {
                reply.add_authority(start_of_authority());
            }
            let mut owner = query.name().clone();
            let mut outside = None;
            for data in data {
                if let RData::CNAME(target) = &data {
                    outside = Some(target.0.clone());
                }
                let next = outside.clone();
                reply.add_answer(Record::from_rdata(owner.clone(), TTL, data));
                owner = next.unwrap_or(owner);
            }
            let complete = reply.answers.len() > 1 || query.query_type() == RecordType::CNAME;
            match outside {
                Some(target) if !complete => Answer::Alias(Box::new(reply), Query::query(target, query.query_type())),
                _ => encode(&reply, limit),
            }
        }
    }
}

/// Puts the answer for the target of an alias behind the alias.
pub(super) fn complete(mut reply: Message, target: Option<&[u8]>, udp: bool) -> Option<Vec<u8>> {
    match target.and_then(|packet| Message::from_vec(packet).ok()) {
        Some(found) => {
            reply.metadata.response_code = found.metadata.response_code;
            reply.add_answers(found.answers);
        }
        None => reply.metadata.response_code = ResponseCode::ServFail,
    }
    let limit = match (&reply.edns, udp) {
        (_, false) => u16::MAX,
        (Some(_), true) => MAX_UDP,
        (None, true) => PLAIN_UDP,
    };
    match encode(&reply, limit) {
        Answer::Ready(packet) => Some(packet),
        _ => None,
    }
}

/// An answer that only says why there is none.
pub(super) fn refusal(packet: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    let request = Message::from_vec(packet).ok()?;
    let mut reply = Message::error_msg(request.metadata.id, request.metadata.op_code, code);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(request.queries);
    reply.to_vec().ok()
}

fn malformed(packet: &[u8]) -> Answer {
    // Answering what is itself an answer would let two of us talk for ever.
    match packet {
        [high, low, flags, _, _, _, _, _, _, _, _, _, ..] if flags & 0x80 == 0 => {
            let id = u16::from_be_bytes([*high, *low]);
            let reply = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
            reply.to_vec().map_or(Answer::Silence, Answer::Ready)
        }
        _ => Answer::Silence,
    }
}

fn encode(reply: &Message, limit: u16) -> Answer {
    let Ok(packet) = reply.to_vec() else { return Answer::Silence };
    if packet.len() <= usize::from(limit) {
        return Answer::Ready(packet);
    }
    // The client comes again over TCP.
    reply.truncate().to_vec().map_or(Answer::Silence, Answer::Ready)
}

fn find(name: &str, kind: RecordType, client: &Client, zone: &Zone, turn: usize) -> Found {
    if let Some(address) = reverse_address(name) {
        return reverse(address, kind, client, zone);
    }
    if client.cluster {
        if let Some(meaning) = zone.table.cluster.get(name) {
            return Found::Records(records(meaning, kind, zone, turn));
        }
        if name == CLUSTER_DOMAIN || name.ends_with(&format!(".{CLUSTER_DOMAIN}")) {
            // Names in between exist when something is below them (RFC 8020).
            let below = format!(".{name}");
            let exists = zone.table.cluster.keys().any(|known| known.ends_with(&below));
            return if exists { Found::Records(Vec::new()) } else { Found::NoSuchName };
        }
    }
    let mut known = false;
    let mut addresses = BTreeSet::new();
    for network in &client.networks {
        let Some(pods) = zone.table.networks.get(network).and_then(|names| names.get(name)) else { continue };
        known = true;
        let members = zone.members.get(network);
        addresses.extend(pods.iter().filter_map(|pod| members?.get(pod)));
    }
    if known {
        return Found::Records(records(&Meaning::Addresses(addresses), kind, zone, turn));
    }
    // A name of another project is nobody's business, here or outside.
    if zone.table.networks.values().any(|names| names.contains_key(name)) && !name.contains('.') {
        return Found::NoSuchName;
    }
    Found::NotOurs
}

fn records(meaning: &Meaning, kind: RecordType, zone: &Zone, turn: usize) -> Vec<RData> {
    match meaning {
        Meaning::Addresses(addresses) if matches!(kind, RecordType::A | RecordType::ANY) => {
            let mut all: Vec<RData> = addresses.iter().map(|address| RData::A(A(*address))).collect();
            let start = turn.checked_rem(all.len()).unwrap_or(0);
            all.rotate_left(start);
            all
        }
        Meaning::Ports(ports) if matches!(kind, RecordType::SRV | RecordType::ANY) => {
            ports.iter().filter_map(|(port, host)| Some(RData::SRV(SRV::new(0, 100, *port, absolute(host)?)))).collect()
        }
        Meaning::Alias(target) => {
            let Some(name) = absolute(target) else { return Vec::new() };
            let mut all = vec![RData::CNAME(CNAME(name))];
            // One of ours is answered at once; a chain of them is not followed.
            if let Some(known @ Meaning::Addresses(_)) = zone.table.cluster.get(target) {
                all.extend(records(known, kind, zone, turn));
            }
            all
        }
        Meaning::Addresses(_) | Meaning::Ports(_) => Vec::new(),
    }
}

fn reverse(address: Ipv4Addr, kind: RecordType, client: &Client, zone: &Zone) -> Found {
    let name = if client.cluster
        && let Some(name) = zone.table.reverse.get(&address)
    {
        Some(name.clone())
    } else {
        client.networks.iter().find_map(|network| {
            let (pod, _) = zone.members.get(network)?.iter().find(|(_, member)| **member == address)?;
            let names = zone.table.networks.get(network)?;
            let own = names.iter().filter(|(_, pods)| pods.contains(pod)).map(|(name, _)| name);
            // The longest is the pod's own name: it has the project's and the service's in it.
            Some(format!("{}.{network}", own.max_by_key(|name| name.len())?))
        })
    };
    match name.and_then(|name| absolute(&name)) {
        Some(name) if matches!(kind, RecordType::PTR | RecordType::ANY) => Found::Records(vec![RData::PTR(PTR(name))]),
        Some(_) => Found::Records(Vec::new()),
        None if zone.ranges.iter().any(|range| range.offset_of(address).is_some()) => Found::NoSuchName,
        None => Found::NotOurs,
    }
}

/// The address of `4.3.2.1.in-addr.arpa`.
fn reverse_address(name: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u8> =
        name.strip_suffix(".in-addr.arpa")?.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [d, c, b, a] = parts.as_slice() else { return None };
    Some(Ipv4Addr::new(*a, *b, *c, *d))
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Tells resolvers for how long they may keep "no" (RFC 2308).
fn start_of_authority() -> Record {
    let zone = absolute(CLUSTER_DOMAIN).unwrap_or_default();
    let seconds = i32::try_from(TTL).unwrap_or(1);
    let data = SOA::new(zone.clone(), zone.clone(), 1, seconds, seconds, seconds, TTL);
    Record::from_rdata(zone, TTL, RData::SOA(data))
}

#[cfg(test)]
mod tests;
