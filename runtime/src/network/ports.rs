//! Published ports: the whole wish at once, turned into one atomic change of the maps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use spec::observed::PodUid;
use spec::pod::Protocol;

use super::hold::Holds;
use super::table::{BOUND4, BOUND6, Contents, Elements, Key, PORT_MAPS, PORTS4, PORTS6};
use super::{Network, PortFault, Result, conntrack, lock};
use crate::api::{PortKey, PortTarget};

pub(super) const UDP: u8 = 17;

impl Network {
    /// Makes the set of published ports this one. All changes take effect in the same moment; connections that are
    /// established stay where they are, and new ones go to the new targets when this returns. Known UDP flows of
    /// changed ports are forgotten, since they would go on to the old target for as long as packets come.
    ///
    /// Ports that cannot be held (taken by a program of the host, no such address) are left out and returned; they do
    /// not keep the others from being published.
    ///
    /// # Errors
    /// When the rules cannot be changed; then nothing was.
    pub fn publish(&self, ports: &BTreeMap<PortKey, PortTarget>) -> Result<Vec<PortFault>> {
        self.ensure()?;
        let mut table = lock(&self.table);
        let table = self.opened(&mut table)?;
        let mut published = lock(&self.published);
        // First let go: a port may only move from one address to another.
        published.holds.keep_only(|key| ports.contains_key(key));
        let mut faults = Vec::new();
        let mut accepted = BTreeMap::new();
        for (key, target) in ports {
            match published.holds.hold(key) {
                Ok(()) => drop(accepted.insert(key.clone(), target.clone())),
                Err(fault) => faults.push(fault),
            }
        }
        let wished = elements(&accepted);
        let present = table.read(&PORT_MAPS)?;
        published.ports = Some(accepted);
        let before = match present {
            Some(present) => {
                table.update(&present, &wished)?;
                present
            }
            // The table has vanished since it was last looked at.
            None => {
                table.install(&self.contents(&published))?;
                Contents::new()
            }
        };
        conntrack::delete_udp_to(&changed_udp(&before, &wished))?;
        Ok(faults)
    }
}

impl Network {
    /// Which of these ports could not be published, since a program of the host has them or there is no such address.
    /// Ports that are published already are good, whoever has them. Holds nothing.
    #[must_use]
    pub fn check_ports<'a>(&self, ports: impl Iterator<Item = &'a PortKey>) -> Vec<PortFault> {
        // Two checks at once would be in each other's way, and in that of publishing.
        let published = lock(&self.published);
        let ours = |key: &PortKey| published.holds.has(key) || published.service_holds.has(key);
        ports.filter(|key| !ours(key)).filter_map(|key| Holds::default().hold(key).err()).collect()
    }

    /// How many connections to this pod the kernel tracks that are established or being made.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn connections(&self, pod: &PodUid) -> Result<usize> {
        let addresses = self.addresses(pod).into_values().flat_map(|a| [a.v4.map(IpAddr::V4), a.v6.map(IpAddr::V6)]);
        addresses.flatten().map(conntrack::connections_to).sum()
    }
}

/// The elements of the four port maps.
pub(super) fn elements(ports: &BTreeMap<PortKey, PortTarget>) -> Contents {
    let mut contents: Contents = PORT_MAPS.into_iter().map(|name| (name, Elements::new())).collect();
    for (key, target) in ports {
        let value = |octets: &[u8]| [octets, &padded(target.container_port)].concat();
        let v4 = target.addresses.v4.map(|a| value(&a.octets()));
        let v6 = target.addresses.v6.map(|a| value(&a.octets()));
        let service = [[number(key.protocol), 0, 0, 0], padded(key.host_port)].concat();
        let bound = |octets: &[u8]| [octets, &service].concat();
        let wished = match key.host_ip {
            None => vec![(PORTS4, service.clone(), v4), (PORTS6, service.clone(), v6)],
            Some(IpAddr::V4(a)) if a.is_unspecified() => vec![(PORTS4, service.clone(), v4)],
            Some(IpAddr::V6(a)) if a.is_unspecified() => vec![(PORTS6, service.clone(), v6)],
            Some(IpAddr::V4(a)) => vec![(BOUND4, bound(&a.octets()), v4)],
            Some(IpAddr::V6(a)) => vec![(BOUND6, bound(&a.octets()), v6)],
        };
        for (map, key, value) in wished {
            // A pod without an address of that version is not reached over it.
            if let Some(value) = value {
                contents.entry(map).or_default().insert(Key::new(key), Some(value));
            }
        }
    }
    contents
}

/// A port as nf_tables keeps it in a concatenation: network order, filled up to four bytes.
pub(super) const fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

pub(super) const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => UDP,
        Protocol::Sctp => 132,
    }
}

/// Host address and port of every UDP port whose target differs between the two.
fn changed_udp(before: &Contents, after: &Contents) -> Vec<(Option<IpAddr>, u16)> {
    let nothing = Elements::new();
    let mut changed = BTreeSet::new();
    for name in PORT_MAPS {
        let (before, after) = (before.get(name).unwrap_or(&nothing), after.get(name).unwrap_or(&nothing));
        let keys = before.keys().chain(after.keys()).filter(|key| before.get(key) != after.get(key));
        changed.extend(keys.filter_map(|key| udp_port(&key.bytes)));
    }
    changed.into_iter().collect()
}

fn udp_port(key: &[u8]) -> Option<(Option<IpAddr>, u16)> {
    let (address, service) = key.split_last_chunk::<8>()?;
    let address = match address.len() {
        0 => None,
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(address).ok()?)),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(address).ok()?)),
    };
    (service[0] == UDP).then(|| (address, u16::from_be_bytes([service[4], service[5]])))
}
