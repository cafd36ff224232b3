//! Services: the whole wish at once, turned into one atomic change of the maps, and the record of what was given out.
//!
//! A balanced port has [`PLACES`] places, and each connection gets one of them by chance or by its client's address;
//! the pods behind it share them. So Services are data like published ports, and the rules never change.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spec::pod::Protocol;
use spec::services::{
    Backend, Balance, Entrance, ReadyContainers, ServiceLeases, ServiceRange, ServiceSet, ServiceState,
};

use super::conntrack::UdpEntrance;
use super::lease::{Durability, write_record};
use super::link::Links;
use super::ports::{number, padded};
use super::rule::PLACES;
use super::subnet::{self, Ipv4Net};
use super::table::{
    Contents, Elements, Key, OPEN, OPEN_SPREAD4, OPEN_SPREAD6, OPEN_STICKY4, OPEN_STICKY6, SERVICE_SETS, SPREAD, STICKY,
};
use super::{Network, NetworkError, PortFault, Result, conntrack, lock};
use crate::api::PortKey;

const SCHEMA: u32 = 1;

/// What outlives the agent and a reboot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ServiceRecord {
    schema: u32,
    /// Range of virtual addresses.
    pub(super) range: Option<Ipv4Net>,
    #[serde(default)]
    leases: ServiceLeases,
    #[serde(default)]
    ready: ReadyContainers,
}

impl ServiceRecord {
    /// Reads the record; one that cannot be read is dropped: Services get the addresses that follow from their names.
    pub(super) fn load(dir: &Path) -> Result<Self> {
        let path = path(dir);
        match std::fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(NetworkError::Record { what: "read", path, source }),
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "record of Services ignored");
                Self::default()
            })),
        }
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("services.json")
}

impl Network {
    /// What Services can be given and were given. Chooses the range of virtual addresses at the first call; changes
    /// nothing in the kernel.
    ///
    /// # Errors
    /// When the host's routes cannot be read, or the record cannot be written.
    pub fn service_state(&self) -> Result<ServiceState> {
        let links = Links::open()?;
        // The pods' own range is chosen first, so that it is where it would be without Services.
        self.define_default(&links)?;
        let mut record = lock(&self.service_record);
        let fits = record.range.is_some_and(|range| self.config.service_subnet.is_none_or(|wished| wished == range));
        if !fits {
            let mut in_use: Vec<Ipv4Net> = links.routes()?.into_iter().map(|(net, _)| net).collect();
            in_use.extend(lock(&self.leases).segments().map(|s| s.subnet));
            record.range = self.config.service_subnet.or_else(|| subnet::choose_last(&in_use));
            record.schema = SCHEMA;
            write_record(&path(&self.config.state_dir), &*record, Durability::Synced)?;
        }
        Ok(ServiceState {
            range: record.range.map(|range| ServiceRange { first: range.network(), prefix: range.prefix() }),
            gateway: self.gateway(None).and_then(|gateway| gateway.v4),
            leases: record.leases.clone(),
            ready: record.ready.clone(),
        })
    }

    /// Makes what Services open this set. All changes take effect in the same moment; established connections stay with
    /// their pod. UDP flows to pods that are no longer behind their Service are forgotten.
    ///
    /// Ports of the host that cannot be held are left out and returned.
    ///
    /// # Errors
    /// When the rules cannot be changed (then nothing was), or the record cannot be written.
    pub fn publish_services(&self, set: &ServiceSet) -> Result<Vec<(Entrance, PortFault)>> {
        self.record_services(set)?;
        let known = lock(&self.published).services.as_ref().map(BTreeMap::is_empty);
        if set.entrances.is_empty() && (known == Some(true) || (known.is_none() && !self.has_services()?)) {
            // A host without Services gets no bridge and no rules for their sake.
            return Ok(Vec::new());
        }
        self.ensure()?;
        let mut table = lock(&self.table);
        let table = self.opened(&mut table)?;
        let mut published = lock(&self.published);
        let host_port =
            |entrance: &Entrance| PortKey { protocol: entrance.protocol, host_ip: None, host_port: entrance.port };
        let wished_ports: BTreeSet<PortKey> =
            set.entrances.keys().filter(|entrance| entrance.address.is_none()).map(host_port).collect();
        published.service_holds.keep_only(|key| wished_ports.contains(key));
        let mut faults = Vec::new();
        let mut accepted = BTreeMap::new();
        for (entrance, balance) in &set.entrances {
            let held = match entrance.address {
                Some(_) => Ok(()),
                None => published.service_holds.hold(&host_port(entrance)),
            };
            match held {
                Ok(()) => drop(accepted.insert(*entrance, balance.clone())),
                Err(fault) => faults.push((*entrance, fault)),
            }
        }
        let wished = elements(&accepted);
        let present = table.read(&SERVICE_SETS)?;
        let before = published.services.replace(accepted);
        match present {
            Some(present) => drop(table.update(&present, &wished)?),
            // The table has vanished since it was last looked at.
            None => table.install(&self.contents(&published))?,
        }
        let after = published.services.as_ref();
        conntrack::delete_udp_astray(&changed_udp(before.as_ref(), after.unwrap_or(&BTreeMap::new())))?;
        drop(published);
        self.route_services(&Links::open()?)?;
        Ok(faults)
    }

    /// The host reaches virtual addresses also where it has no default route. The route goes by loopback, since nothing
    /// is ever sent along it: what leads to a pod is translated before, the rest is refused. By the bridge, pods would
    /// be told that a shorter way exists (ICMP redirect), and be told of no refusal for a second after that.
    pub(super) fn route_services(&self, links: &Links) -> Result<()> {
        let open = lock(&self.published).services.as_ref().map(|services| !services.is_empty());
        let range = lock(&self.service_record).range;
        let source = self.gateway(None).and_then(|gateway| gateway.v4);
        match (open, range) {
            (Some(true), Some(range)) => links.add_route(range, source),
            (Some(false), Some(range)) => links.delete_route(range),
            _ => Ok(()),
        }
    }

    /// Whether the kernel has elements of an earlier agent's Services.
    fn has_services(&self) -> Result<bool> {
        let mut table = lock(&self.table);
        let table = self.opened(&mut table)?;
        Ok(table.read(&SERVICE_SETS)?.is_some_and(|sets| sets.values().any(|elements| !elements.is_empty())))
    }

    fn record_services(&self, set: &ServiceSet) -> Result<()> {
        let mut record = lock(&self.service_record);
        let wished =
            ServiceRecord { schema: SCHEMA, range: record.range, leases: set.leases.clone(), ready: set.ready.clone() };
        if *record == wished {
            return Ok(());
        }
        // An address that a power cut loses would be another one afterwards; a probe is soon repeated.
        let durability = if record.leases == wished.leases { Durability::Renamed } else { Durability::Synced };
        write_record(&path(&self.config.state_dir), &wished, durability)?;
        *record = wished;
        Ok(())
    }
}

/// The elements of the sets that Services change.
pub(super) fn elements(entrances: &BTreeMap<Entrance, Balance>) -> Contents {
    let mut contents: Contents = SERVICE_SETS.into_iter().map(|name| (name, Elements::new())).collect();
    for (entrance, balance) in entrances {
        let service = [[number(entrance.protocol), 0, 0, 0], padded(entrance.port)].concat();
        let v4 = |backend: &Backend| Some([&backend.v4?.octets()[..], &padded(backend.port)].concat());
        let v6 = |backend: &Backend| Some([&backend.v6?.octets()[..], &padded(backend.port)].concat());
        let mut fill = |map: &'static str, key: &[u8], value: &dyn Fn(&Backend) -> Option<Vec<u8>>| {
            let backends: Vec<(&Backend, Vec<u8>)> =
                balance.backends.iter().filter_map(|b| Some((b, value(b)?))).collect();
            let elements = contents.entry(map).or_default();
            for place in 0..PLACES {
                if let Some(value) = at_place(place, &backends, balance.sticky) {
                    let key = [key, &place.to_ne_bytes()].concat();
                    elements.insert(Key::new(key), Some(value.to_vec()));
                }
            }
        };
        match entrance.address {
            Some(address) => {
                let key = [&address.octets()[..], &service].concat();
                fill(if balance.sticky { STICKY } else { SPREAD }, &key, &v4);
            }
            None => {
                let (four, six) =
                    if balance.sticky { (OPEN_STICKY4, OPEN_STICKY6) } else { (OPEN_SPREAD4, OPEN_SPREAD6) };
                fill(four, &service, &v4);
                fill(six, &service, &v6);
                contents.entry(OPEN).or_default().insert(Key::new(service), None);
            }
        }
    }
    contents
}

/// Which pod a place leads to: in turn, or with affinity the one with the highest hash of pod and place, so that a pod
/// that comes or goes changes no place of the others.
fn at_place<'a>(place: u32, backends: &'a [(&Backend, Vec<u8>)], sticky: bool) -> Option<&'a [u8]> {
    if sticky {
        let best = backends.iter().max_by_key(|(backend, _)| weight(place, backend));
        return best.map(|(_, value)| value.as_slice());
    }
    let count = u32::try_from(backends.len()).ok().filter(|count| *count > 0)?;
    backends.get((place % count) as usize).map(|(_, value)| value.as_slice())
}

/// FNV-1a over pod and place, finished as in splitmix64.
fn weight(place: u32, backend: &Backend) -> u64 {
    let bytes = backend.pod.0.bytes().chain(place.to_le_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The UDP entrances that lead elsewhere than before, with where they lead now.
fn changed_udp(before: Option<&BTreeMap<Entrance, Balance>>, after: &BTreeMap<Entrance, Balance>) -> Vec<UdpEntrance> {
    let nothing = BTreeMap::new();
    let before = before.unwrap_or(&nothing);
    let all: BTreeSet<&Entrance> = before.keys().chain(after.keys()).collect();
    all.into_iter()
        .filter(|entrance| entrance.protocol == Protocol::Udp && before.get(entrance) != after.get(entrance))
        .map(|entrance| UdpEntrance {
            address: entrance.address.map(IpAddr::V4),
            port: entrance.port,
            pods: after.get(entrance).iter().flat_map(|balance| &balance.backends).flat_map(addresses).collect(),
        })
        .collect()
}

fn addresses(backend: &Backend) -> impl Iterator<Item = IpAddr> {
    super::both(backend.addresses())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use spec::observed::PodUid;

    use super::*;

    fn backend(number: u8) -> Backend {
        Backend {
            pod: PodUid(format!("pod{number}")),
            port: 8080,
            v4: Some(Ipv4Addr::new(10, 88, 0, number)),
            v6: None,
        }
    }

    /// How many places each of the pods 1 to `count` has, and which pod each place has.
    fn shares(count: u8, sticky: bool) -> (Vec<usize>, Vec<u8>) {
        let entrance = Entrance { protocol: Protocol::Tcp, address: Some(Ipv4Addr::new(10, 99, 1, 1)), port: 80 };
        let balance = Balance { sticky, backends: (1..=count).map(backend).collect() };
        let contents = elements(&BTreeMap::from([(entrance, balance)]));
        let map = &contents[if sticky { STICKY } else { SPREAD }];
        let places: Vec<u8> = map.values().map(|value| value.as_ref().expect("a map")[3]).collect();
        ((1..=count).map(|pod| places.iter().filter(|p| **p == pod).count()).collect(), places)
    }

    #[test]
    fn pods_have_equal_shares() {
        assert_eq!(shares(0, false).0, Vec::<usize>::new());
        assert_eq!(shares(1, false).0, [120]);
        assert_eq!(shares(3, false).0, [40, 40, 40]);
        assert_eq!(shares(7, false).0, [18, 17, 17, 17, 17, 17, 17]);
        assert!(shares(3, true).0.iter().all(|share| (20..=60).contains(share)), "{:?}", shares(3, true).0);
    }

    #[test]
    fn with_affinity_a_new_pod_takes_places_but_moves_none() {
        let (three, four) = (shares(3, true).1, shares(4, true).1);
        assert!(three.iter().zip(&four).all(|(before, after)| before == after || *after == 4));
        assert!(four.contains(&4));
    }
}
