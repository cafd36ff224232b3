//! Who has which address: networks with their ranges, and the leases of pods, kept as JSON records.
//!
//! A pod keeps its address for as long as it has a record here, also over a reboot. Addresses that were never given
//! out come first, then the one that has been free for longest, so that an address is not soon reused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use spec::observed::{Addresses, PodUid};
use spec::pod::NetworkAttachment;

use super::error::NetworkError;
use super::subnet::{Ipv4Net, nth6};

type Result<T> = std::result::Result<T, NetworkError>;

const SCHEMA: u32 = 1;
/// Place of the bridge's own address in a range.
const GATEWAY: u32 = 1;

/// One network: a bridge and its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Segment {
    schema: u32,
    pub(super) name: String,
    pub(super) bridge: String,
    pub(super) subnet: Ipv4Net,
    /// First address of its /64.
    pub(super) prefix6: Option<Ipv6Addr>,
    pub(super) internal: bool,
}

impl Segment {
    pub(super) const fn new(
        name: String,
        bridge: String,
        subnet: Ipv4Net,
        prefix6: Option<Ipv6Addr>,
        internal: bool,
    ) -> Self {
        Self { schema: SCHEMA, name, bridge, subnet, prefix6, internal }
    }

    /// The bridge's own addresses.
    pub(super) fn gateway(&self) -> Addresses {
        self.addresses(GATEWAY)
    }

    fn addresses(&self, offset: u32) -> Addresses {
        Addresses { v4: self.subnet.nth(offset), v6: self.prefix6.map(|prefix| nth6(prefix, offset)) }
    }

    /// The places that pods can have: not the first address, the gateway's or the broadcast address.
    fn usable(&self) -> std::ops::Range<u32> {
        GATEWAY + 1..u32::try_from(self.subnet.size().saturating_sub(1)).unwrap_or(u32::MAX)
    }
}

/// A pod's place in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) network: String,
    pub(super) addresses: Addresses,
    /// Number of its interface in the pod, from 0.
    pub(super) interface: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mac: Option<super::link::Mac>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PodLeases {
    schema: u32,
    pod: PodUid,
    leases: Vec<Lease>,
}

/// All networks and leases.
#[derive(Debug)]
pub(super) struct Leases {
    dir: PathBuf,
    segments: BTreeMap<String, Segment>,
    pods: BTreeMap<PodUid, Vec<Lease>>,
    /// Addresses that were given back, by network and address: when, as a count of releases.
    released: BTreeMap<(String, Ipv4Addr), u64>,
    releases: u64,
    /// Behind the last address that was given out, by network.
    next: BTreeMap<String, u32>,
}

impl Leases {
    /// Reads every record below `dir`. A lease that cannot be read is dropped: its pod gets another address.
    pub(super) fn load(dir: &Path) -> Result<Self> {
        let mut leases = Self {
            dir: dir.to_owned(),
            segments: BTreeMap::new(),
            pods: BTreeMap::new(),
            released: BTreeMap::new(),
            releases: 0,
            next: BTreeMap::new(),
        };
        for segment in read_all::<Segment>(&dir.join("networks"))? {
            leases.segments.insert(segment.name.clone(), segment);
        }
        for record in read_all::<PodLeases>(&dir.join("leases"))? {
            for lease in &record.leases {
                leases.advance(lease);
            }
            leases.pods.insert(record.pod, record.leases);
        }
        Ok(leases)
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.values()
    }

    pub(super) fn segment(&self, name: &str) -> Option<&Segment> {
        self.segments.get(name)
    }

    /// Adds a network, or replaces its options.
    pub(super) fn define(&mut self, segment: Segment) -> Result<()> {
        if let Some(other) = self.segments().find(|s| s.name != segment.name && s.subnet.overlaps(segment.subnet)) {
            return Err(NetworkError::SubnetTaken {
                network: segment.name,
                subnet: segment.subnet,
                other: other.name.clone(),
                other_subnet: other.subnet,
            });
        }
        write_record(&self.segment_path(&segment.name), &segment, Durability::Synced)?;
        self.segments.insert(segment.name.clone(), segment);
        Ok(())
    }

    /// Forgets a network that no pod is on.
    pub(super) fn undefine(&mut self, name: &str) -> Result<()> {
        let pods = self.pods.values().filter(|leases| leases.iter().any(|l| l.network == name)).count();
        if pods > 0 {
            return Err(NetworkError::InUse { what: format!("network `{name}`"), pods });
        }
        remove_file(&self.segment_path(name))?;
        self.segments.remove(name);
        Ok(())
    }

    /// A pod's leases, in the order of its interfaces.
    pub(super) fn of(&self, pod: &PodUid) -> &[Lease] {
        self.pods.get(pod).map_or(&[], Vec::as_slice)
    }

    /// How many pods have a lease.
    pub(super) fn pods(&self) -> impl Iterator<Item = (&PodUid, &[Lease])> {
        self.pods.iter().map(|(pod, leases)| (pod, leases.as_slice()))
    }

    /// The leases of a pod on these networks; what it has stays, what it lacks is given out and recorded.
    pub(super) fn take(&mut self, pod: &PodUid, wished: &[NetworkAttachment]) -> Result<Vec<Lease>> {
        let path = self.pod_path(pod)?;
        let mut leases = self.of(pod).to_vec();
        let before = leases.len();
        for attachment in wished {
            if leases.iter().any(|l| l.network == attachment.network) {
                continue;
            }
            let segment = self.segments.get(&attachment.network).cloned().ok_or_else(|| NetworkError::Config {
                what: format!("network `{}`", attachment.network),
                why: "there is no such network".to_owned(),
            })?;
            let addresses = self.pick(&segment, attachment, &leases)?;
            let mac = attachment.mac_address.as_deref().map(|text| {
                super::link::parse_mac(text).ok_or_else(|| NetworkError::Config {
                    what: format!("MAC address `{text}`"),
                    why: "it is no address of one interface, such as 02:42:ac:11:00:02".to_owned(),
                })
            });
            let interface = u32::try_from(leases.len()).unwrap_or(u32::MAX);
            leases.push(Lease { network: segment.name, addresses, interface, mac: mac.transpose()? });
        }
        if leases.len() > before {
            let record = PodLeases { schema: SCHEMA, pod: pod.clone(), leases: leases.clone() };
            // Not synced: a lease that a power cut loses only costs the pod its old address.
            write_record(&path, &record, Durability::Renamed)?;
            for lease in leases.iter().skip(before) {
                self.advance(lease);
            }
            self.pods.insert(pod.clone(), leases.clone());
        }
        Ok(leases)
    }

    /// Gives a pod's addresses back.
    pub(super) fn release(&mut self, pod: &PodUid) -> Result<()> {
        remove_file(&self.pod_path(pod)?)?;
        for lease in self.pods.remove(pod).unwrap_or_default() {
            if let Some(v4) = lease.addresses.v4 {
                self.releases += 1;
                self.released.insert((lease.network, v4), self.releases);
            }
        }
        Ok(())
    }

    fn pick(&self, segment: &Segment, wished: &NetworkAttachment, own: &[Lease]) -> Result<Addresses> {
        let used: BTreeSet<Ipv4Addr> = self
            .pods
            .values()
            .flatten()
            .chain(own)
            .filter(|l| l.network == segment.name)
            .filter_map(|l| l.addresses.v4)
            .collect();
        let usable = segment.usable();
        let refused = |address: IpAddr, why: &str| NetworkError::Address {
            network: segment.name.clone(),
            address,
            why: why.to_owned(),
        };
        let offset = if let Some(address) = wished.ipv4_address {
            let offset = segment.subnet.offset_of(address).filter(|o| usable.contains(o)).ok_or_else(|| {
                refused(address.into(), &format!("it is none of the addresses for pods in {}", segment.subnet))
            })?;
            if used.contains(&address) {
                return Err(refused(address.into(), "another pod has it"));
            }
            offset
        } else {
            self.longest_free(segment, &used).ok_or_else(|| NetworkError::Exhausted {
                network: segment.name.clone(),
                subnet: segment.subnet,
                leased: used.len(),
            })?
        };
        let mut addresses = segment.addresses(offset);
        if let Some(v6) = wished.ipv6_address {
            let in_prefix = segment.prefix6.is_some_and(|p| p.to_bits() >> 64 == v6.to_bits() >> 64);
            if !in_prefix {
                return Err(refused(v6.into(), "it is not in the network's IPv6 range"));
            }
            addresses.v6 = Some(v6);
        }
        Ok(addresses)
    }

    /// A place that was never used, else the one that was given back first.
    fn longest_free(&self, segment: &Segment, used: &BTreeSet<Ipv4Addr>) -> Option<u32> {
        let usable = segment.usable();
        let start = self.next.get(&segment.name).copied().filter(|n| usable.contains(n)).unwrap_or(usable.start);
        let released = |a: &Ipv4Addr| self.released.get(&(segment.name.clone(), *a)).copied();
        let mut best: Option<(u64, u32)> = None;
        for offset in (start..usable.end).chain(usable.start..start) {
            let address = segment.subnet.nth(offset)?;
            if used.contains(&address) {
                continue;
            }
            match released(&address) {
                None => return Some(offset),
                Some(when) if best.is_none_or(|(b, _)| when < b) => best = Some((when, offset)),
                Some(_) => {}
            }
        }
        best.map(|(_, offset)| offset)
    }

    fn advance(&mut self, lease: &Lease) {
        let Some(segment) = self.segments.get(&lease.network) else { return };
        let Some(offset) = lease.addresses.v4.and_then(|v4| segment.subnet.offset_of(v4)) else { return };
        let next = self.next.entry(lease.network.clone()).or_default();
        *next = (*next).max(offset + 1);
    }

    fn pod_path(&self, pod: &PodUid) -> Result<PathBuf> {
        let plain = !pod.0.is_empty() && pod.0.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !plain {
            return Err(NetworkError::Config {
                what: format!("pod uid `{pod}`"),
                why: "it has other characters than letters, digits and hyphens".to_owned(),
            });
        }
        Ok(self.dir.join("leases").join(format!("{pod}.json")))
    }

    fn segment_path(&self, name: &str) -> PathBuf {
        // Names of networks come from manifests; their hash is a safe file name.
        self.dir.join("networks").join(format!("{}.json", short_hash(name, 16)))
    }
}

/// The first `digits` hex digits of a text's SHA-256.
pub(super) fn short_hash(text: &str, digits: usize) -> String {
    let mut hex: String = Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect();
    hex.truncate(digits);
    hex
}

fn read_all<T: DeserializeOwned>(dir: &Path) -> Result<Vec<T>> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| NetworkError::Record { what: "read", path, source }
    };
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed(dir))?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed(dir))?.path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let bytes = fs::read(&path).map_err(failed(&path))?;
        match serde_json::from_slice(&bytes) {
            Ok(record) => records.push(record),
            Err(error) => tracing::warn!(path = %path.display(), %error, "network record ignored"),
        }
    }
    Ok(records)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Whole or not at all, but a power cut may undo it.
    Renamed,
    /// On disk when the call returns.
    Synced,
}

pub(super) fn write_record(path: &Path, record: &impl Serialize, durability: Durability) -> Result<()> {
    let write = || {
        let dir = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir)?;
        let temporary = path.with_extension("tmp");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        if durability == Durability::Synced {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        if durability == Durability::Synced {
            fs::File::open(dir)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|source| NetworkError::Record { what: "write", path: path.to_owned(), source })
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(NetworkError::Record { what: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(network: &str) -> NetworkAttachment {
        NetworkAttachment { network: network.to_owned(), ..NetworkAttachment::default() }
    }

    fn store(dir: &Path, subnet: &str) -> Leases {
        let mut leases = Leases::load(dir).expect("an empty directory");
        let subnet = subnet.parse().expect("a range");
        let segment =
            Segment::new("n".into(), "n0".into(), subnet, Some("fd00:1::".parse().expect("an address")), false);
        leases.define(segment).expect("a free range");
        leases
    }

    fn take(leases: &mut Leases, pod: &str) -> Option<String> {
        let got = leases.take(&PodUid(pod.to_owned()), &[attachment("n")]).ok()?;
        got[0].addresses.v4.map(|v4| v4.to_string())
    }

    #[test]
    fn leases_are_stable_and_survive_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut leases = store(dir.path(), "10.1.0.0/24");
        assert_eq!(take(&mut leases, "a").as_deref(), Some("10.1.0.2"));
        assert_eq!(take(&mut leases, "b").as_deref(), Some("10.1.0.3"));
        assert_eq!(take(&mut leases, "a").as_deref(), Some("10.1.0.2"));
        let mut again = Leases::load(dir.path()).expect("good records");
        assert_eq!(take(&mut again, "b").as_deref(), Some("10.1.0.3"));
        assert_eq!(take(&mut again, "c").as_deref(), Some("10.1.0.4"));
        assert_eq!(again.of(&PodUid("c".into()))[0].addresses.v6, Some("fd00:1::4".parse().expect("an address")));
    }

    #[test]
    fn the_address_that_was_free_for_longest_comes_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut leases = store(dir.path(), "10.1.0.0/29");
        for pod in ["a", "b", "c"] {
            take(&mut leases, pod).expect("free addresses");
        }
        leases.release(&PodUid("b".into())).expect("leased");
        leases.release(&PodUid("a".into())).expect("leased");
        let next: Vec<_> = ["d", "e", "f", "g"].iter().map(|p| take(&mut leases, p).expect("free")).collect();
        assert_eq!(next, ["10.1.0.5", "10.1.0.6", "10.1.0.3", "10.1.0.2"]);
    }

    #[test]
    fn a_full_range_is_a_clear_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut leases = store(dir.path(), "10.1.0.0/30");
        assert_eq!(take(&mut leases, "a").as_deref(), Some("10.1.0.2"));
        let error = leases.take(&PodUid("b".into()), &[attachment("n")]).expect_err("no address is left");
        assert_eq!(error.to_string(), "cannot give an address of network `n`: all 1 of 10.1.0.0/30 are in use");
        leases.release(&PodUid("a".into())).expect("leased");
        assert_eq!(take(&mut leases, "b").as_deref(), Some("10.1.0.2"));
    }

    #[test]
    fn fixed_addresses_are_checked() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut leases = store(dir.path(), "10.1.0.0/24");
        for (pod, address, works) in [
            ("a", "10.1.0.9", true),
            ("b", "10.1.0.9", false),
            ("b", "10.1.0.1", false),
            ("b", "10.1.0.0", false),
            ("b", "10.1.0.255", false),
            ("b", "10.2.0.9", false),
        ] {
            let mut wished = attachment("n");
            wished.ipv4_address = Some(address.parse().expect("an address"));
            assert_eq!(leases.take(&PodUid(pod.into()), &[wished]).is_ok(), works, "{pod} {address}");
        }
    }

    #[test]
    fn broken_records_and_bad_names_are_no_danger() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut leases = store(dir.path(), "10.1.0.0/24");
        take(&mut leases, "a").expect("free");
        fs::write(dir.path().join("leases/a.json"), b"").expect("written");
        assert!(Leases::load(dir.path()).expect("loads").of(&PodUid("a".into())).is_empty());
        assert!(leases.take(&PodUid("../x".into()), &[attachment("n")]).is_err());
        assert!(leases.take(&PodUid("b".into()), &[attachment("other")]).is_err());
    }
}
