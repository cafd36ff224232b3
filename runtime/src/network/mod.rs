//! Pod networks: namespaces, a bridge for each network, addresses, published ports, and the files that tell names.
//!
//! Owns the bridges it makes, one nf_tables table, and the records below its state directory. Never touches tables or
//! interfaces of others, never runs another program. Everything blocks; callers use threads made for that.
//! All calls work on the network namespace of the thread that called [`Network::open`], so they must come from threads
//! of that namespace.
//!
//! 127.0.0.1 and every address of the host lead to published ports, over IPv6 too, except for `[::1]`, which is
//! refused at once: the kernel has no `route_localnet` for IPv6. Pod addresses themselves are reached from the host and
//! from pods of the same network, not from other hosts.

mod conntrack;
mod error;
mod hold;
pub mod hosts;
mod lease;
mod link;
mod namespace;
mod netlink;
mod ports;
mod reap;
mod rule;
mod services;
mod setup;
mod sockets;
mod subnet;
mod table;
mod users;
mod watch;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spec::observed::{Addresses, PodUid};
use spec::pod::NetworkAttachment;
use spec::services::{Balance, Entrance};

use crate::api::{NetworkStats, PortKey, PortTarget};

pub use error::NetworkError;
pub use hold::PortFault;
pub use namespace::{
    NamespaceRequest, connect_inside, create as create_namespaces, is_pinned, mount_all as mount_namespaces,
    remove as remove_namespaces, share_network as share_network_namespace, unmount_all as unmount_namespaces,
};
pub use setup::NetworkState;
pub use sockets::Sockets;
pub use subnet::Ipv4Net;
pub use users::UserRange;
pub(crate) use users::hold as hold_namespaces;
pub use watch::Hints;

use hold::Holds;
use lease::{Lease, Leases, short_hash};
use link::{Links, Veth};
use table::Table;

type Result<T> = std::result::Result<T, NetworkError>;

/// How pod networks are set up.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Names the table, the default network and, with `0` behind it, its bridge.
    pub name: String,
    /// Range of the default network; by default the first /20 from 10.88.0.0 on that no route of the host overlaps.
    pub subnet: Option<Ipv4Net>,
    /// Range of the virtual addresses of Services; by default the last free /20 of 10.88.0.0/13.
    pub service_subnet: Option<Ipv4Net>,
    /// Give pods IPv6 addresses too, from a private prefix (RFC 4193) that is derived from name and machine.
    pub ipv6: bool,
    /// Largest packet in bytes; default 1500. Hosts on tunnels need less.
    pub mtu: Option<u32>,
    /// Let pods reach the metadata services of clouds, such as 169.254.169.254.
    pub allow_metadata: bool,
    /// Where address leases are kept; outlives a reboot.
    pub state_dir: PathBuf,
}

impl NetworkConfig {
    /// The defaults, with records in that directory.
    #[must_use]
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            name: "mainstay".to_owned(),
            subnet: None,
            service_subnet: None,
            ipv6: true,
            mtu: None,
            allow_metadata: false,
            state_dir,
        }
    }
}

/// Options of a network beside the default one (Compose `networks:`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Its range; chosen when `None`.
    pub subnet: Option<Ipv4Net>,
    /// Give pods IPv6 addresses too.
    pub ipv6: bool,
    /// No way out of it and no published ports into it.
    pub internal: bool,
}

/// The networks of this host's pods.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    /// Guards records and leases; held for a file write at the most.
    leases: Mutex<Leases>,
    /// What Services were given. Never held while another of these locks is taken, but for `leases`.
    service_record: Mutex<services::ServiceRecord>,
    /// The one socket that changes rules, opened at first use. Held for a batch, so that changes come one by one.
    table: Mutex<Option<Table>>,
    /// What is published: the wish of the last `publish`, and the sockets that hold the ports.
    published: Mutex<Published>,
    /// Clears up behind pods that are gone.
    reaper: reap::Reaper,
    /// Port id of that socket, for telling our own changes from those of others.
    rules_port: Arc<AtomicU32>,
    /// Whether bridges and rules are known to be there; cleared by every hint to the contrary.
    ready: AtomicBool,
}

#[derive(Debug, Default)]
struct Published {
    /// `None` before the first call: what the kernel has from an earlier agent stays then.
    ports: Option<BTreeMap<PortKey, PortTarget>>,
    holds: Holds,
    /// The same for Services.
    services: Option<BTreeMap<Entrance, Balance>>,
    service_holds: Holds,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Table")
    }
}

/// What these mutexes guard is whole between any two statements that can panic, so a panic elsewhere is no reason to
/// stop serving pods.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Network {
    /// Reads the records. Changes nothing in the kernel.
    ///
    /// # Errors
    /// When the name cannot name interfaces, or records cannot be read.
    pub fn open(config: NetworkConfig) -> Result<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if config.name.is_empty() || config.name.len() > 14 || !config.name.bytes().all(plain) {
            return Err(NetworkError::Config {
                what: format!("network name `{}`", config.name),
                why: "it needs 1 to 14 letters, digits, `-` or `_`".to_owned(),
            });
        }
        let leases = Leases::load(&config.state_dir)?;
        let service_record = services::ServiceRecord::load(&config.state_dir)?;
        Ok(Self {
            config,
            leases: Mutex::new(leases),
            service_record: Mutex::new(service_record),
            table: Mutex::new(None),
            reaper: reap::Reaper::default(),
            rules_port: Arc::default(),
            published: Mutex::default(),
            ready: AtomicBool::new(false),
        })
    }

    /// Connects a pod: addresses that stay the same for its uid, interfaces in its namespace, default routes.
    /// An empty list of attachments is the default network; a network that was not defined before is made with a range
    /// of its own and a way out. Repeating it mends what is missing.
    ///
    /// # Errors
    /// When no address is left, a wished one is taken, or the kernel refuses a step.
    pub fn attach(&self, pod: &PodUid, netns: &Path, attachments: &[NetworkAttachment]) -> Result<Addresses> {
        self.ensure()?;
        let default = [NetworkAttachment { network: self.config.name.clone(), ..NetworkAttachment::default() }];
        let wished = if attachments.is_empty() { &default } else { attachments };
        self.define_missing(wished)?;
        let leases = lock(&self.leases).take(pod, wished)?;
        let netns = File::open(netns).map_err(NetworkError::namespace(format!("open {}", netns.display())))?;
        self.connect(pod, &netns, &leases).or_else(|error| {
            if !link::no_device(&error) {
                return Err(error);
            }
            // The bridge has vanished since it was last looked at, or a half-made interface is in the way.
            self.ready.store(false, Ordering::Release);
            self.ensure()?;
            let links = Links::open()?;
            for lease in &leases {
                links.delete(&self.host_interface(pod, lease))?;
            }
            self.connect(pod, &netns, &leases)
        })?;
        let first = leases.first().map(|lease| {
            let segment = lock(&self.leases).segment(&lease.network).cloned();
            segment.map_or(lease.addresses, |segment| setup::served(lease.addresses, &segment))
        });
        Ok(first.unwrap_or_default())
    }

    /// Disconnects a pod and gives its addresses back. Its interfaces, and the flows that the kernel still tracks for
    /// its addresses, are deleted right after, without anybody waiting for it. That nothing is left is a success.
    ///
    /// # Errors
    /// When the record cannot be removed: the addresses stay leased then.
    pub fn detach(&self, pod: &PodUid) -> Result<()> {
        let leases = lock(&self.leases).of(pod).to_vec();
        if leases.is_empty() {
            return Ok(());
        }
        lock(&self.leases).release(pod)?;
        let interfaces = leases.iter().map(|lease| self.host_interface(pod, lease)).collect();
        self.reaper.take(interfaces, leases.iter().flat_map(|l| both(l.addresses)).collect())
    }

    /// A pod's addresses by network.
    #[must_use]
    pub fn addresses(&self, pod: &PodUid) -> BTreeMap<String, Addresses> {
        lock(&self.leases).of(pod).iter().map(|l| (l.network.clone(), l.addresses)).collect()
    }

    /// Pods that have addresses; for finding those that are left over.
    #[must_use]
    pub fn pods(&self) -> Vec<PodUid> {
        lock(&self.leases).pods().map(|(pod, _)| pod.clone()).collect()
    }

    /// The bridge's addresses of a network (`host-gateway`); none while the network was not made.
    #[must_use]
    pub fn gateway(&self, network: Option<&str>) -> Option<Addresses> {
        let leases = lock(&self.leases);
        leases.segment(network.unwrap_or(&self.config.name)).map(lease::Segment::gateway)
    }

    /// The pod that has an address, with the networks it is on.
    #[must_use]
    pub fn owner(&self, address: std::net::Ipv4Addr) -> Option<(PodUid, Vec<String>)> {
        let leases = lock(&self.leases);
        let has = |list: &&[Lease]| list.iter().any(|lease| lease.addresses.v4 == Some(address));
        let (pod, list) = leases.pods().find(|(_, list)| has(list))?;
        Some((pod.clone(), list.iter().map(|lease| lease.network.clone()).collect()))
    }

    /// IPv4 addresses of all pods by network.
    #[must_use]
    pub fn members(&self) -> BTreeMap<String, BTreeMap<PodUid, std::net::Ipv4Addr>> {
        let mut members: BTreeMap<String, BTreeMap<PodUid, std::net::Ipv4Addr>> = BTreeMap::new();
        for (pod, list) in lock(&self.leases).pods() {
            for lease in list {
                if let Some(address) = lease.addresses.v4 {
                    members.entry(lease.network.clone()).or_default().insert(pod.clone(), address);
                }
            }
        }
        members
    }

    /// IPv4 addresses of all bridges.
    #[must_use]
    pub fn gateways(&self) -> Vec<std::net::Ipv4Addr> {
        lock(&self.leases).segments().filter_map(|segment| segment.gateway().v4).collect()
    }

    /// The ranges of pods and of Services.
    #[must_use]
    pub fn ranges(&self) -> Vec<Ipv4Net> {
        let services = lock(&self.service_record).range;
        lock(&self.leases).segments().map(|segment| segment.subnet).chain(services).collect()
    }

    /// Name of the network of pods that name none.
    #[must_use]
    pub fn default_name(&self) -> &str {
        &self.config.name
    }

    /// Counters of a pod's interfaces, as the pod sees them; `None` when it has none.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn stats(&self, pod: &PodUid) -> Result<Option<NetworkStats>> {
        let leases = lock(&self.leases).of(pod).to_vec();
        let links = Links::open()?;
        let mut total: Option<NetworkStats> = None;
        for lease in &leases {
            if let Some(found) = links.find(&self.host_interface(pod, lease))? {
                let stats = total.get_or_insert_default();
                // What the host's end receives, the pod has sent.
                let [received, sent, packets_received, packets_sent] = found.counters;
                stats.bytes = (stats.bytes.0 + sent, stats.bytes.1 + received);
                stats.packets = (stats.packets.0 + packets_sent, stats.packets.1 + packets_received);
            }
        }
        Ok(total)
    }

    /// Makes the interfaces that are missing and sets addresses and routes.
    fn connect(&self, pod: &PodUid, netns: &File, leases: &[Lease]) -> Result<()> {
        let links = Links::open()?;
        for lease in leases {
            let segment = lock(&self.leases).segment(&lease.network).cloned().ok_or_else(|| self.unknown(lease))?;
            let bridge = links.find(&segment.bridge)?.ok_or_else(|| {
                let gone = std::io::Error::from_raw_os_error(libc::ENODEV);
                NetworkError::link(format!("find bridge {}", segment.bridge))(gone)
            })?;
            let host_name = self.host_interface(pod, lease);
            self.reaper.spare(&host_name);
            let pod_name = format!("eth{}", lease.interface);
            let made = links.create_veth(&Veth {
                host_name: &host_name,
                bridge: bridge.index,
                netns: netns.as_fd(),
                pod_name: &pod_name,
                mac: lease.mac.or(lease.addresses.v4.map(link::mac_for)).unwrap_or([2, 0, 0, 0, 0, 1]),
                mtu: self.mtu(),
            });
            match made {
                Err(error) if link::is_there(&error) => {
                    if let Some(found) = links.find(&host_name)? {
                        links.join_bridge(found.index, &host_name, bridge.index)?;
                    }
                }
                other => other?,
            }
            let prefix = |ip: &IpAddr| if ip.is_ipv4() { segment.subnet.prefix() } else { 64 };
            let addresses: Vec<_> =
                both(setup::served(lease.addresses, &segment)).map(|ip| (ip, prefix(&ip))).collect();
            // The first network that has a way out gives the default route.
            let first = leases.iter().find(|l| !lock(&self.leases).segment(&l.network).is_some_and(|s| s.internal));
            let has_route = first.is_some_and(|l| l.network == lease.network);
            let gateways: Vec<_> = if has_route { both(segment.gateway()).collect() } else { Vec::new() };
            namespace::inside(netns, || Links::open()?.configure(&pod_name, &addresses, &gateways))?;
        }
        Ok(())
    }

    fn unknown(&self, lease: &Lease) -> NetworkError {
        NetworkError::Config { what: format!("network `{}`", lease.network), why: "it was removed".to_owned() }
    }

    fn mtu(&self) -> u32 {
        self.config.mtu.unwrap_or(1500)
    }

    /// Name of the host's end of a pod's interface: the same on every call, and at most 15 characters.
    fn host_interface(&self, pod: &PodUid, lease: &Lease) -> String {
        format!("ms{}", short_hash(&format!("{}\0{}\0{pod}", self.config.name, lease.network), 12))
    }
}

/// The addresses that there are.
fn both(addresses: Addresses) -> impl Iterator<Item = IpAddr> {
    addresses.v4.map(IpAddr::V4).into_iter().chain(addresses.v6.map(IpAddr::V6))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::on_a_host;
