//! Makes bridges, parameters and rules what they should be, says what is not, and takes all of it away again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::Ordering;

use spec::observed::{Addresses, PodUid};
use spec::pod::NetworkAttachment;

use super::lease::{Segment, short_hash};
use super::link::{Link, Links};
use super::namespace::set_sysctl;
use super::subnet::{self, Ipv4Net};
use super::table::{
    BRIDGES, CLIENTS, Contents, ForwardChain, INTERNAL, Key, METADATA4, METADATA6, PORT_MAPS, SAME, SERVICE_SETS,
    SUBNETS4, SUBNETS6, Table, VIRTUAL, interface,
};
use super::{Network, NetworkError, NetworkOptions, Published, Result, both, lock, ports, services};

/// Where clouds give credentials of the machine to whoever asks: EC2, GCP, Azure and others; ECS; EKS; Alibaba.
const METADATA: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
];
/// The same over IPv6: EC2, EKS, GCP.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// How the kernel's network compares with what it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkState {
    /// What is missing or different; [`Network::repair`] mends it.
    pub faults: Vec<String>,
    /// Pods with a lease whose interface is missing: to be attached again when they still have a namespace.
    pub cut_off: Vec<PodUid>,
    /// What we must not change but people should know.
    pub warnings: Vec<String>,
}

impl NetworkState {
    /// Whether nothing needs repair.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.faults.is_empty() && self.cut_off.is_empty()
    }
}

impl Network {
    /// Makes bridges, kernel parameters and rules, where they are not known to be there. Published ports of an
    /// earlier agent stay as they are until the first `publish`.
    ///
    /// # Errors
    /// When no address range is free, or the kernel refuses a step.
    pub fn ensure(&self) -> Result<()> {
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut table = lock(&self.table);
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        self.set_up(&mut table)?;
        self.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Adds a network beside the default one, or changes whether it is internal. Pods of different networks reach
    /// each other by published ports only.
    ///
    /// # Errors
    /// When its range is taken or none is free, or the record cannot be written.
    pub fn define_network(&self, name: &str, options: &NetworkOptions) -> Result<()> {
        let links = Links::open()?;
        self.define(&links, name, options)?;
        self.ready.store(false, Ordering::Release);
        Ok(())
    }

    /// Makes the networks of these attachments that are not known.
    pub(super) fn define_missing(&self, wished: &[NetworkAttachment]) -> Result<()> {
        let unknown: Vec<&str> = {
            let leases = lock(&self.leases);
            wished.iter().map(|w| w.network.as_str()).filter(|name| leases.segment(name).is_none()).collect()
        };
        for name in &unknown {
            let options = NetworkOptions { ipv6: self.config.ipv6, ..NetworkOptions::default() };
            self.define_network(name, &options)?;
        }
        if unknown.is_empty() { Ok(()) } else { self.ensure() }
    }

    /// Removes a network beside the default one. That it is gone already is a success.
    ///
    /// # Errors
    /// When pods are on it, or the kernel refuses a step.
    pub fn remove_network(&self, name: &str) -> Result<()> {
        let Some(segment) = lock(&self.leases).segment(name).cloned() else { return Ok(()) };
        lock(&self.leases).undefine(name)?;
        Links::open()?.delete(&segment.bridge)?;
        self.ready.store(false, Ordering::Release);
        self.ensure()
    }

    /// The bridges of all networks.
    #[must_use]
    pub fn bridges(&self) -> Vec<String> {
        lock(&self.leases).segments().map(|segment| segment.bridge.clone()).collect()
    }

    /// What we must not change but people should know.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn warnings(&self) -> Result<Vec<String>> {
        let mut table = lock(&self.table);
        let segments: Vec<Segment> = lock(&self.leases).segments().cloned().collect();
        self.warnings_of(self.opened(&mut table)?, &segments)
    }

    /// Compares the kernel with what it should be. Changes nothing.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn check(&self) -> Result<NetworkState> {
        let mut table = lock(&self.table);
        let table = self.opened(&mut table)?;
        let mut state = NetworkState { faults: table.faults()?, ..NetworkState::default() };
        let segments: Vec<Segment> = lock(&self.leases).segments().cloned().collect();

        let links = Links::open()?;
        let routes = links.routes()?;
        let interfaces: BTreeMap<String, Link> = links.all()?.into_iter().map(|l| (l.name.clone(), l)).collect();
        for segment in &segments {
            match interfaces.get(&segment.bridge) {
                None => state.faults.push(format!("bridge {} is missing", segment.bridge)),
                Some(l) if !l.is_bridge => state.faults.push(format!("interface {} is no bridge", segment.bridge)),
                Some(l) if !l.up => state.faults.push(format!("bridge {} is down", segment.bridge)),
                Some(l) if !routes.contains(&(segment.subnet, Some(l.index))) => {
                    state.faults.push(format!("bridge {} has no route to {}", segment.bridge, segment.subnet));
                }
                Some(_) => {}
            }
        }
        for (pod, leases) in lock(&self.leases).pods() {
            for lease in leases {
                let bridge = segments.iter().find(|s| s.name == lease.network).map(|s| s.bridge.as_str());
                let bridge = bridge.and_then(|b| interfaces.get(b)).map(|l| l.index);
                match interfaces.get(&self.host_interface(pod, lease)) {
                    None => state.cut_off.push(pod.clone()),
                    Some(l) if l.master.is_none() || l.master != bridge || !l.up => {
                        state.faults.push(format!("interface {} of pod {pod} is not on its bridge", l.name));
                    }
                    Some(_) => {}
                }
            }
        }
        if read_number("/proc/sys/net/ipv4/ip_forward") != Some(1) {
            state.faults.push("net.ipv4.ip_forward is not 1".to_owned());
        }
        let published = lock(&self.published);
        let has_services = published.services.as_ref().is_some_and(|services| !services.is_empty());
        if let Some(range) = lock(&self.service_record).range.filter(|_| has_services)
            && !routes.iter().any(|(net, _)| *net == range)
        {
            state.faults.push(format!("there is no route to the Services' range {range}"));
        }
        let wished = self.contents(&published);
        let names: Vec<_> = wished.keys().copied().collect();
        match table.read(&names)? {
            None if state.faults.is_empty() => state.faults.push("a set of the rules is missing".to_owned()),
            Some(present) => {
                let differ = names.iter().filter(|name| present.get(*name) != wished.get(*name));
                state.faults.extend(differ.map(|name| format!("the elements of set {name} were changed")));
            }
            None => {}
        }
        state.warnings = self.warnings_of(table, &segments)?;
        Ok(state)
    }

    /// Mends what [`Network::check`] finds, except for pods that are cut off.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub fn repair(&self) -> Result<()> {
        self.ready.store(false, Ordering::Release);
        self.ensure()?;
        let links = Links::open()?;
        let interfaces: BTreeMap<String, Link> = links.all()?.into_iter().map(|l| (l.name.clone(), l)).collect();
        let leases = lock(&self.leases);
        for (pod, pod_leases) in leases.pods() {
            for lease in pod_leases {
                let bridge = leases.segment(&lease.network).and_then(|s| interfaces.get(&s.bridge));
                let end = interfaces.get(&self.host_interface(pod, lease));
                if let (Some(bridge), Some(end)) = (bridge, end)
                    && (end.master != Some(bridge.index) || !end.up)
                {
                    links.join_bridge(end.index, &end.name, bridge.index)?;
                }
            }
        }
        Ok(())
    }

    /// Takes bridges, rules, placeholders and records away. Kernel parameters stay: others may rely on them by now.
    ///
    /// # Errors
    /// When pods still have addresses (nothing is done then). Else every step is tried and all errors are told.
    pub fn teardown(&self) -> Result<()> {
        let mut table = lock(&self.table);
        let mut leases = lock(&self.leases);
        let pods = leases.pods().count();
        if pods > 0 {
            return Err(NetworkError::InUse { what: format!("network `{}`", self.config.name), pods });
        }
        self.ready.store(false, Ordering::Release);
        let mut errors = Vec::new();
        errors.extend(self.opened(&mut table).and_then(|t| t.remove()).err());
        errors.extend(self.reaper.finish().err());
        let links = Links::open()?;
        let services = lock(&self.service_record).range;
        errors.extend(services.and_then(|range| links.delete_route(range).err()));
        for segment in leases.segments().cloned().collect::<Vec<_>>() {
            let removed = links.delete(&segment.bridge);
            errors.extend(removed.and_then(|()| leases.undefine(&segment.name)).err());
        }
        let mut published = lock(&self.published);
        published.ports = None;
        published.holds.clear();
        published.services = None;
        published.service_holds.clear();
        NetworkError::collect(errors)
    }

    /// The table's socket, opened at first use.
    pub(super) fn opened<'a>(&self, table: &'a mut Option<Table>) -> Result<&'a Table> {
        match table {
            Some(table) => Ok(table),
            None => {
                let opened = Table::open(&self.config.name)?;
                self.rules_port.store(opened.port(), Ordering::Release);
                Ok(table.insert(opened))
            }
        }
    }

    fn set_up(&self, table: &mut Option<Table>) -> Result<()> {
        let links = Links::open()?;
        self.define_default(&links)?;
        let segments: Vec<Segment> = lock(&self.leases).segments().cloned().collect();
        let ipv6 = segments.iter().any(|s| s.prefix6.is_some());
        enable_forwarding(ipv6)?;
        for segment in &segments {
            self.set_up_bridge(&links, segment)?;
        }
        self.route_services(&links)?;
        let table = self.opened(table)?;
        let published = lock(&self.published);
        let mut wished = self.contents(&published);
        let names: Vec<_> = wished.keys().copied().collect();
        let present = table.read(&names)?;
        if let Some(present) = present
            && table.faults()?.is_empty()
        {
            table.update(&present, &wished)?;
            return Ok(());
        }
        // Rules of another version, perhaps: what they publish must go on working.
        let unknown_ports = PORT_MAPS.iter().filter(|_| published.ports.is_none());
        let unknown_services = SERVICE_SETS.iter().filter(|_| published.services.is_none());
        for name in unknown_ports.chain(unknown_services).copied() {
            if let Some(elements) = table.read(&[name]).ok().flatten().and_then(|mut c| c.remove(name)) {
                wished.insert(name, elements);
            }
        }
        table.install(&wished)
    }

    fn set_up_bridge(&self, links: &Links, segment: &Segment) -> Result<()> {
        let mac = segment.gateway().v4.map(super::link::mac_for).unwrap_or_default();
        let bridge = match links.find(&segment.bridge)? {
            Some(found) if found.up => found,
            Some(found) => {
                links.set_up(found.index, &segment.bridge)?;
                found
            }
            None => {
                links.create_bridge(&segment.bridge, mac, self.mtu())?;
                links.find(&segment.bridge)?.unwrap_or_default()
            }
        };
        if !bridge.is_bridge && !bridge.name.is_empty() {
            return Err(NetworkError::Config {
                what: format!("bridge name `{}`", segment.bridge),
                why: "an interface of another kind has that name".to_owned(),
            });
        }
        let addresses: Vec<(IpAddr, u8)> =
            both(segment.gateway()).map(|ip| (ip, if ip.is_ipv4() { segment.subnet.prefix() } else { 64 })).collect();
        links.configure(&segment.bridge, &addresses, &[])?;
        if segment.prefix6.is_some() {
            // No duplicate detection of the link-local address: until it ends, neighbours are not asked for, and
            // published ports would hang for two seconds.
            set_sysctl(&format!("net/ipv6/conf/{}/accept_dad", segment.bridge), "0")?;
        }
        // So that replies to 127.0.0.1 may come back in from pods. On no other interface.
        set_sysctl(&format!("net/ipv4/conf/{}/route_localnet", segment.bridge), "1")
    }

    pub(super) fn define_default(&self, links: &Links) -> Result<()> {
        let options = NetworkOptions { subnet: self.config.subnet, ipv6: self.config.ipv6, internal: false };
        self.define(links, &self.config.name, &options)
    }

    fn define(&self, links: &Links, name: &str, options: &NetworkOptions) -> Result<()> {
        let services = lock(&self.service_record).range;
        let mut leases = lock(&self.leases);
        let known = leases.segment(name).cloned();
        let subnet = match (options.subnet, &known) {
            (Some(subnet), _) => subnet,
            (None, Some(known)) => known.subnet,
            (None, None) => {
                let mut in_use: Vec<Ipv4Net> = links.routes()?.into_iter().map(|(net, _)| net).collect();
                in_use.extend(leases.segments().map(|s| s.subnet).chain(services));
                subnet::choose(&in_use).ok_or_else(|| NetworkError::NoSubnet { network: name.to_owned() })?
            }
        };
        // Another id of the machine gives another prefix, in which addresses that pods have already would lead nowhere.
        let own6 = known.as_ref().and_then(|known| known.prefix6);
        let prefix6 = (options.ipv6 && ipv6_works())
            .then(|| own6.unwrap_or_else(|| subnet::unique_local_prefix(&machine_id(), name)));
        let bridge = if name == self.config.name {
            format!("{name}0")
        } else {
            format!("ms-{}", short_hash(&format!("{}\0{name}", self.config.name), 12))
        };
        let segment = Segment::new(name.to_owned(), bridge, subnet, prefix6, options.internal);
        if known.as_ref() == Some(&segment) { Ok(()) } else { leases.define(segment) }
    }

    /// What every set should hold. The port maps only when it is known what is published.
    pub(super) fn contents(&self, published: &Published) -> Contents {
        let virtual_range = lock(&self.service_record).range;
        let leases = lock(&self.leases);
        let mut contents = Contents::new();
        let mut add = |set: &'static str, key: Option<Key>| {
            contents.entry(set).or_default().extend(key.map(|key| (key, None)));
        };
        for set in [BRIDGES, INTERNAL, SAME, SUBNETS4, SUBNETS6, METADATA4, METADATA6, CLIENTS, VIRTUAL] {
            add(set, None);
        }
        if let Some(range) = virtual_range {
            add(VIRTUAL, Some(Key::new(range.network().octets().to_vec())));
            add(VIRTUAL, Some(Key { bytes: range.end().to_be_bytes().to_vec(), end: true }));
        }
        if let Some(segment) = leases.segment(&self.config.name) {
            add(CLIENTS, Some(Key::new(interface(&segment.bridge))));
        }
        for segment in leases.segments() {
            let name = interface(&segment.bridge);
            add(SAME, Some(Key::new([name.as_slice(), &name].concat())));
            if segment.internal {
                add(INTERNAL, Some(Key::new(name.clone())));
            }
            add(BRIDGES, Some(Key::new(name)));
            let (first, end) = (segment.subnet.network().octets(), segment.subnet.end().to_be_bytes());
            add(SUBNETS4, Some(Key::new(first.to_vec())));
            add(SUBNETS4, Some(Key { bytes: end.to_vec(), end: true }));
            if let Some(prefix) = segment.prefix6 {
                let end = prefix.to_bits().wrapping_add(1 << 64).to_be_bytes();
                add(SUBNETS6, Some(Key::new(prefix.octets().to_vec())));
                add(SUBNETS6, Some(Key { bytes: end.to_vec(), end: true }));
            }
        }
        if !self.config.allow_metadata {
            METADATA.iter().for_each(|address| add(METADATA4, Some(Key::new(address.octets().to_vec()))));
            METADATA_V6.iter().for_each(|address| add(METADATA6, Some(Key::new(address.octets().to_vec()))));
        }
        if let Some(wished) = &published.ports {
            contents.extend(ports::elements(wished));
        }
        if let Some(wished) = &published.services {
            contents.extend(services::elements(wished));
        }
        contents
    }

    fn warnings_of(&self, table: &Table, segments: &[Segment]) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        let foreign = table.foreign_forward_chains()?;
        let bridges: BTreeSet<&str> = segments.iter().map(|s| s.bridge.as_str()).collect();
        for chain in foreign.iter().filter(|c| c.drops) {
            for bridge in bridges.iter().filter(|b| !chain.mentions.iter().any(|m| m == *b)) {
                warnings.push(forward_warning(chain, &foreign, bridge));
            }
        }
        if self.config.ipv6 && !ipv6_works() {
            warnings.push("pods get no IPv6 addresses: IPv6 is off on this host".to_owned());
        }
        Ok(warnings)
    }
}

/// Another table's verdict to drop is final whatever ours says, and other tables are not ours to change.
fn forward_warning(chain: &ForwardChain, all: &[ForwardChain], bridge: &str) -> String {
    let docker = all.iter().any(|c| c.chain == "DOCKER-USER");
    let advice = match chain.table.as_str() {
        "firewalld" => {
            format!("firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload")
        }
        "filter" => {
            let list = if docker { "DOCKER-USER" } else { "FORWARD" };
            format!("iptables -I {list} -i {bridge} -j ACCEPT; iptables -I {list} -o {bridge} -j ACCEPT")
        }
        other => format!("accept `iifname {bridge}` and `oifname {bridge}` in chain {} of table {other}", chain.chain),
    };
    format!(
        "chain {} of table {} drops forwarded packets: pods on {bridge} have no way out and published ports no way in; \
         allow them: {advice}",
        chain.chain, chain.table
    )
}

/// Lets the host pass packets on. With IPv6 forwarding the kernel stops listening to router advertisements, from
/// which the host may have its own default route: interfaces that listened go on listening (`accept_ra` 2).
fn enable_forwarding(ipv6: bool) -> Result<()> {
    set_sysctl_once("net.ipv4.ip_forward", 1)?;
    if !ipv6 || read_number("/proc/sys/net/ipv6/conf/all/forwarding") == Some(1) {
        return Ok(());
    }
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if read_number(entry.path().join("accept_ra")) == Some(1) {
            set_sysctl(&format!("net/ipv6/conf/{name}/accept_ra"), "2")?;
        }
    }
    set_sysctl_once("net.ipv6.conf.all.forwarding", 1)
}

/// Writes a parameter unless it has the value: /proc/sys may be read-only where all is set up already.
fn set_sysctl_once(name: &str, value: u32) -> Result<()> {
    if read_number(Path::new("/proc/sys").join(name.replace('.', "/"))) == Some(value) {
        return Ok(());
    }
    set_sysctl(name, &value.to_string())
}

fn read_number(path: impl AsRef<Path>) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn ipv6_works() -> bool {
    // Absent without IPv6 in the kernel; 1 where it was switched off.
    read_number("/proc/sys/net/ipv6/conf/all/disable_ipv6") == Some(0)
        && read_number("/proc/sys/net/ipv6/conf/default/disable_ipv6") == Some(0)
}

fn machine_id() -> String {
    fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned()
}

/// The addresses of a lease that its network can serve now.
pub(super) fn served(addresses: Addresses, segment: &Segment) -> Addresses {
    Addresses { v6: addresses.v6.filter(|_| segment.prefix6.is_some()), ..addresses }
}
