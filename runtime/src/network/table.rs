//! Our one nf_tables table: what is in it, and how it gets into the kernel.
//!
//! The chains and rules never change. What changes - bridges, subnets, published ports - are elements of sets and
//! maps, so that publishing a port is a change of data. Every change is one batch, which the kernel takes as a whole
//! or not at all. This module never touches another table.

use std::collections::BTreeMap;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::error::NetworkError;
use super::netlink::{self, Attributes, Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, Netlink, Refusal, Requests};
use super::rule::{Family, Pick, Rule};

type Result<T> = std::result::Result<T, NetworkError>;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = 0;
pub(super) const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
pub(super) const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
pub(super) const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
pub(super) const DELSET: u16 = 11;
pub(super) const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
pub(super) const DELSETELEM: u16 = 14;
/// `NFPROTO_INET`: IPv4 and IPv6 in one table.
const INET: u8 = 1;

/// nft's numbers of data types; in concatenations each takes six bits.
const IPV4_ADDR: u32 = 7;
const IPV6_ADDR: u32 = 8;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;
const MARK: u32 = 19;
const IFNAME: u32 = 41;
const IFNAME_LENGTH: usize = 16;

const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
const ELEMENT_INTERVAL_END: u32 = 1;
/// Elements in one message: an attribute holds 64 KiB, an element takes below 100 bytes.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// Name of the set of all our bridges.
pub(super) const BRIDGES: &str = "bridges";
/// Bridges without a way out.
pub(super) const INTERNAL: &str = "internal";
/// Pairs of bridges between which traffic flows: each with itself.
pub(super) const SAME: &str = "same";
/// Pod addresses.
pub(super) const SUBNETS4: &str = "subnets4";
/// Pod addresses.
pub(super) const SUBNETS6: &str = "subnets6";
/// Cloud metadata addresses that pods must not reach.
pub(super) const METADATA4: &str = "metadata4";
/// Cloud metadata addresses that pods must not reach.
pub(super) const METADATA6: &str = "metadata6";
/// Published ports by protocol and port.
pub(super) const PORTS4: &str = "ports4";
/// Published ports by protocol and port.
pub(super) const PORTS6: &str = "ports6";
/// Published ports by host address, protocol and port.
pub(super) const BOUND4: &str = "bound4";
/// Published ports by host address, protocol and port.
pub(super) const BOUND6: &str = "bound6";
/// The maps that publishing changes.
pub(super) const PORT_MAPS: [&str; 4] = [PORTS4, PORTS6, BOUND4, BOUND6];

/// The bridges from which virtual addresses are reached.
pub(super) const CLIENTS: &str = "clients";
/// Virtual addresses of Services, used or not.
pub(super) const VIRTUAL: &str = "virtual";
/// Ports of the host that lead to Services, by protocol and port.
pub(super) const OPEN: &str = "open";
/// Pods behind a virtual address, by address, protocol, port and place.
pub(super) const SPREAD: &str = "spread";
/// The same for Services with affinity.
pub(super) const STICKY: &str = "sticky";
/// Pods behind a port of the host, by protocol, port and place.
pub(super) const OPEN_SPREAD4: &str = "openspread4";
/// Pods behind a port of the host, by protocol, port and place.
pub(super) const OPEN_SPREAD6: &str = "openspread6";
/// The same for Services with affinity.
pub(super) const OPEN_STICKY4: &str = "opensticky4";
/// The same for Services with affinity.
pub(super) const OPEN_STICKY6: &str = "opensticky6";
/// What Services change.
pub(super) const SERVICE_SETS: [&str; 7] =
    [OPEN, SPREAD, STICKY, OPEN_SPREAD4, OPEN_SPREAD6, OPEN_STICKY4, OPEN_STICKY6];

/// A key of a set. The end of an interval is an element of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) bytes: Vec<u8>,
    pub(super) end: bool,
}

impl Ord for Key {
    /// The end of one range comes before the start of the next at the same place: the kernel takes them in that order
    /// only.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bytes.cmp(&other.bytes).then(other.end.cmp(&self.end))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Key {
    pub(super) const fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, end: false }
    }
}

/// Elements of one set or map.
pub(super) type Elements = BTreeMap<Key, Option<Vec<u8>>>;

/// Elements of every set, by its name.
pub(super) type Contents = BTreeMap<&'static str, Elements>;

/// An interface name as a key.
pub(super) fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(IFNAME_LENGTH, 0);
    bytes
}

struct Set {
    name: &'static str,
    key: &'static [u32],
    data: &'static [u32],
    interval: bool,
}

const fn set(name: &'static str, key: &'static [u32], data: &'static [u32]) -> Set {
    Set { name, key, data, interval: false }
}

const SETS: [Set; 20] = [
    set(BRIDGES, &[IFNAME], &[]),
    set(INTERNAL, &[IFNAME], &[]),
    set(SAME, &[IFNAME, IFNAME], &[]),
    Set { name: SUBNETS4, key: &[IPV4_ADDR], data: &[], interval: true },
    Set { name: SUBNETS6, key: &[IPV6_ADDR], data: &[], interval: true },
    set(METADATA4, &[IPV4_ADDR], &[]),
    set(METADATA6, &[IPV6_ADDR], &[]),
    set(PORTS4, &[INET_PROTO, INET_SERVICE], &[IPV4_ADDR, INET_SERVICE]),
    set(PORTS6, &[INET_PROTO, INET_SERVICE], &[IPV6_ADDR, INET_SERVICE]),
    set(BOUND4, &[IPV4_ADDR, INET_PROTO, INET_SERVICE], &[IPV4_ADDR, INET_SERVICE]),
    set(BOUND6, &[IPV6_ADDR, INET_PROTO, INET_SERVICE], &[IPV6_ADDR, INET_SERVICE]),
    set(CLIENTS, &[IFNAME], &[]),
    Set { name: VIRTUAL, key: &[IPV4_ADDR], data: &[], interval: true },
    set(OPEN, &[INET_PROTO, INET_SERVICE], &[]),
    set(SPREAD, &[IPV4_ADDR, INET_PROTO, INET_SERVICE, MARK], &[IPV4_ADDR, INET_SERVICE]),
    set(STICKY, &[IPV4_ADDR, INET_PROTO, INET_SERVICE, MARK], &[IPV4_ADDR, INET_SERVICE]),
    set(OPEN_SPREAD4, &[INET_PROTO, INET_SERVICE, MARK], &[IPV4_ADDR, INET_SERVICE]),
    set(OPEN_SPREAD6, &[INET_PROTO, INET_SERVICE, MARK], &[IPV6_ADDR, INET_SERVICE]),
    set(OPEN_STICKY4, &[INET_PROTO, INET_SERVICE, MARK], &[IPV4_ADDR, INET_SERVICE]),
    set(OPEN_STICKY6, &[INET_PROTO, INET_SERVICE, MARK], &[IPV6_ADDR, INET_SERVICE]),
];

const fn width(kind: u32) -> u32 {
    match kind {
        IFNAME | IPV6_ADDR => 16,
        // Narrower parts of a concatenation are padded to a register.
        _ => 4,
    }
}

fn concatenation(kinds: &[u32]) -> (u32, u32) {
    kinds.iter().fold((0, 0), |(kind, length), k| (kind << 6 | k, length + width(*k)))
}

#[derive(Clone, Copy)]
struct Hook {
    kind: &'static str,
    number: u32,
    priority: i32,
}

const fn hook(kind: &'static str, number: u32, priority: i32) -> Option<Hook> {
    Some(Hook { kind, number, priority })
}

struct Chain {
    name: &'static str,
    hook: Option<Hook>,
    rules: Vec<Rule>,
}

const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// Chains in the order in which they can be made: a chain before the rules that jump to it.
fn chains() -> Vec<Chain> {
    let chain = |name, hook, rules| Chain { name, hook, rules };
    vec![
        chain("refuse", None, vec![Rule::new("answer at once").tcp().reset(), Rule::new("answer at once").prohibit()]),
        chain(
            "unserved",
            None,
            vec![Rule::new("no pod serves it").tcp().reset(), Rule::new("no pod serves it").unreachable()],
        ),
        chain(
            "ports",
            None,
            vec![
                Rule::new("published on one address").translate(Family::V4, BOUND4, true),
                Rule::new("published on one address").translate(Family::V6, BOUND6, true),
                Rule::new("published").translate(Family::V4, PORTS4, false),
                Rule::new("published").translate(Family::V6, PORTS6, false),
                Rule::new("Service on the host").spread(Family::V4, OPEN_SPREAD4, false, Pick::Random),
                Rule::new("Service on the host").spread(Family::V6, OPEN_SPREAD6, false, Pick::Random),
                Rule::new("Service on the host").spread(Family::V4, OPEN_STICKY4, false, Pick::Client),
                Rule::new("Service on the host").spread(Family::V6, OPEN_STICKY6, false, Pick::Client),
            ],
        ),
        chain(
            "services",
            None,
            vec![
                Rule::new("Service").spread(Family::V4, SPREAD, true, Pick::Random),
                Rule::new("Service").spread(Family::V4, STICKY, true, Pick::Client),
            ],
        ),
        chain(
            // route_localnet on the bridge lets replies to 127.0.0.1 through; pods must not use it to reach services
            // that listen on the host's loopback (CVE-2020-8558).
            "guard",
            hook("filter", PREROUTING, -300),
            vec![Rule::new("no way to the host's loopback").input_in(BRIDGES).destination_loopback4().discard()],
        ),
        chain(
            "arriving",
            hook("nat", PREROUTING, -100),
            vec![
                Rule::new("to an address of this host").destination_local().jump("ports"),
                Rule::new("to a Service").input_in(CLIENTS).destination_in(Family::V4, VIRTUAL).jump("services"),
            ],
        ),
        chain(
            "leaving",
            hook("nat", OUTPUT, -100),
            vec![
                // There is no route_localnet for IPv6: translated packets would vanish. Untranslated ones meet the
                // placeholder socket, which does not listen, and are refused at once.
                Rule::new("not possible with ::1").destination_loopback6().leave(),
                Rule::new("to an address of this host").destination_local().jump("ports"),
                Rule::new("to a Service").destination_in(Family::V4, VIRTUAL).jump("services"),
            ],
        ),
        chain(
            // What was translated has another destination by now.
            "output",
            hook("filter", OUTPUT, 0),
            vec![Rule::new("no pod behind the Service").destination_in(Family::V4, VIRTUAL).jump("unserved")],
        ),
        chain(
            "input",
            hook("filter", INPUT, 0),
            vec![
                Rule::new("no cloud metadata").input_in(BRIDGES).destination_in(Family::V4, METADATA4).jump("refuse"),
                Rule::new("no cloud metadata").input_in(BRIDGES).destination_in(Family::V6, METADATA6).jump("refuse"),
                Rule::new("replies").established().leave(),
                Rule::new("no pod behind the Service").port_in(OPEN).jump("unserved"),
            ],
        ),
        chain(
            "forward",
            hook("filter", FORWARD, 0),
            vec![
                Rule::new("replies").established().accept(),
                Rule::new("no cloud metadata").input_in(BRIDGES).destination_in(Family::V4, METADATA4).jump("refuse"),
                Rule::new("no cloud metadata").input_in(BRIDGES).destination_in(Family::V6, METADATA6).jump("refuse"),
                Rule::new("no pod behind the Service").destination_in(Family::V4, VIRTUAL).jump("unserved"),
                Rule::new("within a network").interfaces_in(SAME).accept(),
                Rule::new("internal networks have no way out").input_in(INTERNAL).discard(),
                Rule::new("internal networks have no way in").output_in(INTERNAL).discard(),
                Rule::new("to published ports").output_in(BRIDGES).translated().accept(),
                Rule::new("to nothing else").output_in(BRIDGES).discard(),
            ],
        ),
        chain(
            "source",
            hook("nat", POSTROUTING, 100),
            vec![
                Rule::new("way out").source_in(Family::V4, SUBNETS4).output_not_in(BRIDGES).masquerade(),
                Rule::new("way out").source_in(Family::V6, SUBNETS6).output_not_in(BRIDGES).masquerade(),
                Rule::new("from 127.0.0.1").output_in(BRIDGES).translated().source_loopback4().masquerade(),
                Rule::new("pod by host port")
                    .output_in(BRIDGES)
                    .translated()
                    .source_in(Family::V4, SUBNETS4)
                    .masquerade(),
                Rule::new("pod by host port")
                    .output_in(BRIDGES)
                    .translated()
                    .source_in(Family::V6, SUBNETS6)
                    .masquerade(),
            ],
        ),
    ]
}

/// A chain of another table through which forwarded packets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForwardChain {
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) drops: bool,
    /// Interface names that rules of its table test for.
    pub(super) mentions: Vec<String>,
}

/// A batch under construction, and what each of its requests is for.
struct Batch {
    requests: Requests,
    labels: BTreeMap<u32, String>,
}

impl Batch {
    fn new() -> Self {
        let mut requests = Requests::default();
        requests.push(BATCH_BEGIN, 0, |a| a.raw(&[0, 0, 0, 10]));
        Self { requests, labels: BTreeMap::new() }
    }

    fn push(&mut self, kind: u16, flags: u16, label: String, body: impl FnOnce(&mut Attributes)) {
        let sequence = self.requests.push(SUBSYSTEM << 8 | kind, flags, |a| {
            a.raw(&[INET, 0, 0, 0]);
            body(a);
        });
        self.labels.insert(sequence, label);
    }
}

/// Access to the table over one socket.
pub(super) struct Table {
    socket: Netlink,
    name: String,
}

impl Table {
    pub(super) fn open(name: &str) -> Result<Self> {
        let socket = Netlink::open(NETLINK_NETFILTER).map_err(NetworkError::NoNfTables)?;
        Ok(Self { socket, name: name.to_owned() })
    }

    /// Port id of the socket that makes the changes.
    pub(super) const fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Replaces the whole table, or makes it, with these elements.
    pub(super) fn install(&self, contents: &Contents) -> Result<()> {
        let mut batch = Batch::new();
        let table = |a: &mut Attributes| a.text(1, &self.name);
        // Adding first makes the deletion valid when there is no table yet.
        batch.push(NEWTABLE, NLM_F_CREATE, self.label("add"), table);
        batch.push(DELTABLE, 0, self.label("replace"), table);
        batch.push(NEWTABLE, NLM_F_CREATE, self.label("add"), table);
        for (id, set) in (1..).zip(&SETS) {
            batch.push(NEWSET, NLM_F_CREATE, format!("add set {}", set.name), |a| self.set(a, set, id));
        }
        for (name, elements) in contents {
            self.elements(
                &mut batch,
                NEWSETELEM,
                name,
                &elements.iter().map(|(k, v)| (k, v.as_deref())).collect::<Vec<_>>(),
            );
        }
        for chain in chains() {
            batch.push(NEWCHAIN, NLM_F_CREATE, format!("add chain {}", chain.name), |a| self.chain(a, &chain));
            for rule in &chain.rules {
                let label = format!("add rule `{}` to chain {}", rule.comment(), chain.name);
                batch.push(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, label, |a| self.rule(a, chain.name, rule));
            }
        }
        self.commit(batch)
    }

    /// Makes the elements of these sets what is wished; all of it in one batch. Returns whether anything changed.
    pub(super) fn update(&self, present: &Contents, wished: &Contents) -> Result<bool> {
        let mut batch = Batch::new();
        let nothing = Elements::new();
        for (name, wished) in wished {
            let present = present.get(name).unwrap_or(&nothing);
            // A changed element is removed and added anew; within a batch nobody sees it gone.
            let removed: Vec<_> =
                present.iter().filter(|(k, v)| wished.get(k) != Some(v)).map(|(k, _)| (k, None)).collect();
            let added: Vec<_> =
                wished.iter().filter(|(k, v)| present.get(k) != Some(v)).map(|(k, v)| (k, v.as_deref())).collect();
            self.elements(&mut batch, DELSETELEM, name, &removed);
            self.elements(&mut batch, NEWSETELEM, name, &added);
        }
        if batch.labels.is_empty() {
            return Ok(false);
        }
        self.commit(batch).map(|()| true)
    }

    /// What these sets hold now; `None` when the table or one of the sets is not there.
    pub(super) fn read(&self, names: &[&'static str]) -> Result<Option<Contents>> {
        let mut contents = Contents::new();
        for name in names {
            let answer = self.dump(GETSETELEM, |a| {
                a.text(1, &self.name);
                a.text(2, name);
            });
            let Some(messages) = none_when_missing(answer, &format!("read set {name}"))? else { return Ok(None) };
            let elements = contents.entry(name).or_default();
            for message in messages {
                let list = message.payload.get(4..).and_then(|p| netlink::attribute(p, 3)).unwrap_or_default();
                elements.extend(netlink::attributes(list).into_iter().filter_map(|(_, e)| element(e)));
            }
        }
        Ok(Some(contents))
    }

    /// Everything that is not as it should be with chains and rules, for people; empty when all is well.
    pub(super) fn faults(&self) -> Result<Vec<String>> {
        let answer = self.dump(GETRULE, |a| a.text(1, &self.name));
        let rules = none_when_missing(answer, "read the rules")?.unwrap_or_default();
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for message in rules {
            let body = message.payload.get(4..).unwrap_or_default();
            let text = |kind| netlink::attribute(body, kind).map(netlink::text).unwrap_or_default();
            // The filter by table is a hint to the kernel that older ones do not know.
            if text(1) != self.name || message.payload.first() != Some(&INET) {
                continue;
            }
            let comment = netlink::attribute(body, 7).and_then(|data| data.get(2..)).map(netlink::text);
            found.entry(text(2)).or_default().push(comment.unwrap_or_default());
        }
        let present = self.base_chains()?;
        let mut faults = Vec::new();
        for chain in chains() {
            let Some(base) = present.iter().find(|c| c.table == self.name && c.family == INET && c.name == chain.name)
            else {
                faults.push(format!("chain {} of table {} is missing", chain.name, self.name));
                continue;
            };
            if base.hook != chain.hook.map(|h| (h.number, h.priority))
                || (chain.hook.is_some() && base.policy == Some(0))
            {
                faults.push(format!("chain {} of table {} has another hook or policy", chain.name, self.name));
            }
            let rules = found.remove(chain.name).unwrap_or_default();
            if rules != chain.rules.iter().map(Rule::comment).collect::<Vec<_>>() {
                faults.push(format!("the rules of chain {} of table {} were changed", chain.name, self.name));
            }
        }
        faults.extend(found.keys().map(|chain| format!("table {} has a foreign chain {chain}", self.name)));
        Ok(faults)
    }

    /// The chains of other tables through which forwarded packets pass as well.
    pub(super) fn foreign_forward_chains(&self) -> Result<Vec<ForwardChain>> {
        let mut found: Vec<ForwardChain> = self
            .base_chains()?
            .into_iter()
            .filter(|c| {
                c.table != self.name && (c.hook.is_some_and(|(hook, _)| hook == FORWARD) || c.name == "DOCKER-USER")
            })
            .map(|c| ForwardChain { table: c.table, chain: c.name, drops: c.policy == Some(0), mentions: Vec::new() })
            .collect();
        if found.iter().any(|c| c.drops) {
            for (table, name) in self.tested_names()? {
                found.iter_mut().filter(|c| c.table == table).for_each(|c| c.mentions.push(name.clone()));
            }
        }
        Ok(found)
    }

    /// Tables and the texts that their rules compare something with, which is how rules name interfaces.
    fn tested_names(&self) -> Result<Vec<(String, String)>> {
        let mut requests = Requests::default();
        requests.push(SUBSYSTEM << 8 | GETRULE, NLM_F_DUMP, |a| a.raw(&[0, 0, 0, 0]));
        let answer = self.socket.dump(requests.as_bytes());
        let mut names = Vec::new();
        for rule in none_when_missing(answer, "read the rules")?.unwrap_or_default() {
            let body = rule.payload.get(4..).unwrap_or_default();
            let table = netlink::attribute(body, 1).map(netlink::text).unwrap_or_default();
            for (_, expression) in netlink::attributes(netlink::attribute(body, 4).unwrap_or_default()) {
                let value = || netlink::attribute(netlink::attribute(netlink::attribute(expression, 2)?, 3)?, 1);
                if netlink::attribute(expression, 1).map(netlink::text).as_deref() == Some("cmp")
                    && let Some(value) = value()
                {
                    names.push((table.clone(), netlink::text(value)));
                }
            }
        }
        Ok(names)
    }

    /// Removes the table. That it is gone already is a success.
    pub(super) fn remove(&self) -> Result<()> {
        let mut batch = Batch::new();
        batch.push(DELTABLE, 0, self.label("remove"), |a| a.text(1, &self.name));
        match self.commit(batch) {
            Err(NetworkError::Rules { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn label(&self, verb: &str) -> String {
        format!("{verb} table {}", self.name)
    }

    fn set(&self, a: &mut Attributes, set: &Set, id: u32) {
        let (key, length) = concatenation(set.key);
        a.text(1, &self.name);
        a.text(2, set.name);
        let map = if set.data.is_empty() { 0 } else { SET_MAP };
        a.be32(3, map | if set.interval { SET_INTERVAL } else { 0 });
        a.be32(4, key);
        a.be32(5, length);
        if !set.data.is_empty() {
            let (data, length) = concatenation(set.data);
            a.be32(6, data);
            a.be32(7, length);
        }
        a.be32(10, id);
        // For `nft list`: keys of interface names are text in host order, all others are in network order.
        let order: u32 = if set.key == [IFNAME] { 1 } else { 2 };
        let mut user_data = vec![0, 4];
        user_data.extend(order.to_ne_bytes());
        a.bytes(13, &user_data);
    }

    fn chain(&self, a: &mut Attributes, chain: &Chain) {
        a.text(1, &self.name);
        a.text(3, chain.name);
        if let Some(hook) = chain.hook {
            a.nest(4, |a| {
                a.be32(1, hook.number);
                a.bytes(2, &hook.priority.to_be_bytes());
            });
            a.be32(5, 1); // accept what no rule decides
            a.text(7, hook.kind);
        }
    }

    fn rule(&self, a: &mut Attributes, chain: &str, rule: &Rule) {
        a.text(1, &self.name);
        a.text(2, chain);
        a.bytes_nested(4, rule.expressions());
        let comment = rule.comment();
        let mut user_data = vec![0, u8::try_from(comment.len() + 1).expect("comments are short")];
        user_data.extend(comment.as_bytes());
        user_data.push(0);
        a.bytes(7, &user_data);
    }

    fn elements(&self, batch: &mut Batch, kind: u16, set: &str, elements: &[(&Key, Option<&[u8]>)]) {
        let (flags, verb) = if kind == NEWSETELEM { (NLM_F_CREATE, "add") } else { (0, "remove") };
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            batch.push(kind, flags, format!("{verb} elements of set {set}"), |a| {
                a.text(1, &self.name);
                a.text(2, set);
                a.nest(3, |a| {
                    for (key, data) in chunk {
                        a.nest(1, |a| {
                            a.nest(1, |a| a.bytes(1, &key.bytes));
                            if let Some(data) = data {
                                a.nest(2, |a| a.bytes(1, data));
                            }
                            if key.end {
                                a.be32(3, ELEMENT_INTERVAL_END);
                            }
                        });
                    }
                });
            });
        }
    }

    fn commit(&self, mut batch: Batch) -> Result<()> {
        batch.requests.push(BATCH_END, 0, |a| a.raw(&[0, 0, 0, 10]));
        let failed = |source| NetworkError::Rules { what: "send the rules to the kernel".to_owned(), source };
        let (_, refusals) = self.socket.exchange(batch.requests.as_bytes(), false).map_err(failed)?;
        let Some(Refusal { sequence, error }) = refusals.into_iter().next() else { return Ok(()) };
        // The batch as a whole is refused when nobody handles nf_tables.
        match batch.labels.remove(&sequence) {
            None if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Err(NetworkError::NoNfTables(error)),
            None => Err(failed(error)),
            Some(what) => Err(NetworkError::Rules { what, source: error }),
        }
    }

    fn dump(&self, kind: u16, body: impl FnOnce(&mut Attributes)) -> io::Result<Vec<Message>> {
        let mut requests = Requests::default();
        requests.push(SUBSYSTEM << 8 | kind, NLM_F_DUMP, |a| {
            a.raw(&[INET, 0, 0, 0]);
            body(a);
        });
        self.socket.dump(requests.as_bytes())
    }

    fn base_chains(&self) -> Result<Vec<FoundChain>> {
        let mut requests = Requests::default();
        requests.push(SUBSYSTEM << 8 | GETCHAIN, NLM_F_DUMP, |a| a.raw(&[0, 0, 0, 0]));
        let answer = self.socket.dump(requests.as_bytes());
        let messages = none_when_missing(answer, "read the chains")?.unwrap_or_default();
        Ok(messages.iter().filter_map(FoundChain::parse).collect())
    }
}

struct FoundChain {
    family: u8,
    table: String,
    name: String,
    hook: Option<(u32, i32)>,
    policy: Option<u32>,
}

impl FoundChain {
    fn parse(message: &Message) -> Option<Self> {
        let (header, body) = message.payload.split_first_chunk::<4>()?;
        let hook = netlink::attribute(body, 4).and_then(|hook| {
            Some((netlink::be(netlink::attribute(hook, 1)?), netlink::be(netlink::attribute(hook, 2)?).cast_signed()))
        });
        Some(Self {
            family: header[0],
            table: netlink::text(netlink::attribute(body, 1)?),
            name: netlink::text(netlink::attribute(body, 3)?),
            hook,
            policy: netlink::attribute(body, 5).map(netlink::be),
        })
    }
}

fn element(bytes: &[u8]) -> Option<(Key, Option<Vec<u8>>)> {
    let value = |kind| netlink::attribute(bytes, kind).and_then(|data| netlink::attribute(data, 1));
    let flags = netlink::attribute(bytes, 3).map_or(0, netlink::be);
    let key = Key { bytes: value(1)?.to_vec(), end: flags & ELEMENT_INTERVAL_END != 0 };
    Some((key, value(2).map(<[u8]>::to_vec)))
}

/// Tells "there is no such table" from other failures.
fn none_when_missing(answer: io::Result<Vec<Message>>, what: &str) -> Result<Option<Vec<Message>>> {
    match answer {
        Ok(messages) => Ok(Some(messages)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Err(NetworkError::NoNfTables(e)),
        Err(source) => Err(NetworkError::Rules { what: what.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests;
