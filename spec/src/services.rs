//! Services as values: virtual addresses, the pods behind them, and what was given out and must stay.
//!
//! [`crate::plan`] decides them; the runtime makes them so and keeps the leases.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::observed::{Addresses, PodUid};
use crate::pod::Protocol;

/// Node ports are given out from this range (Kubernetes' default `--service-node-port-range`).
pub const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// The range of virtual addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRange {
    /// First address.
    pub first: Ipv4Addr,
    /// Bits of its prefix.
    pub prefix: u8,
}

impl ServiceRange {
    /// How many addresses it has.
    #[must_use]
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix.min(32)))
    }

    /// The address at that place.
    #[must_use]
    pub fn nth(self, place: u64) -> Option<Ipv4Addr> {
        let place = u32::try_from(place).ok().filter(|place| u64::from(*place) < self.size())?;
        Some(Ipv4Addr::from_bits(self.first.to_bits().checked_add(place)?))
    }

    /// Whether a Service can have this address: not the first and not the last one.
    #[must_use]
    pub fn can_give(self, address: Ipv4Addr) -> bool {
        let place = address.to_bits().checked_sub(self.first.to_bits()).map(u64::from);
        place.is_some_and(|place| place > 0 && place + 1 < self.size())
    }
}

impl fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// What Services were given and keep over restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLeases {
    /// Virtual addresses by `namespace/name`.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// Ports of the host by `namespace/name/port/protocol`.
    pub node_ports: BTreeMap<String, u16>,
}

/// What the runtime knows of Services when an agent starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Range of virtual addresses; without one there are none.
    pub range: Option<ServiceRange>,
    /// Where pods reach the host: stands for pods on the host's network.
    pub gateway: Option<Ipv4Addr>,
    /// What was given out.
    pub leases: ServiceLeases,
    /// What was known to be ready by its probes.
    pub ready: ReadyContainers,
}

/// Containers that have passed their readiness or startup probe, with the attempt that has. Kept, so that a new agent
/// does not take pods out of service until it has probed them itself.
pub type ReadyContainers = BTreeMap<PodUid, BTreeMap<String, u32>>;

/// Where clients connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entrance {
    /// Transport.
    pub protocol: Protocol,
    /// The virtual address; `None` for every address of the host.
    pub address: Option<Ipv4Addr>,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}:{}/{}", self.port, self.protocol),
            None => write!(f, "{}/{}", self.port, self.protocol),
        }
    }
}

/// A pod behind an entrance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// The pod.
    pub pod: PodUid,
    /// Port inside.
    pub port: u16,
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address; used by entrances on the host's addresses.
    pub v6: Option<std::net::Ipv6Addr>,
}

impl Backend {
    /// Its addresses.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        Addresses { v4: self.v4, v6: self.v6 }
    }
}

/// What an entrance leads to. Without a pod, clients are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    /// The same client comes to the same pod (`sessionAffinity: ClientIP`).
    pub sticky: bool,
    /// The pods, sorted.
    pub backends: BTreeSet<Backend>,
}

/// Everything that Services open, as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceSet {
    /// Leases after this change.
    pub leases: ServiceLeases,
    /// What is known to be ready by its probes.
    pub ready: ReadyContainers,
    /// Entrances and what they lead to.
    pub entrances: BTreeMap<Entrance, Balance>,
}

impl ServiceSet {
    /// Whether some entrance leads to that pod.
    #[must_use]
    pub fn leads_to(&self, pod: &PodUid) -> bool {
        self.entrances.values().any(|balance| balance.backends.iter().any(|backend| backend.pod == *pod))
    }
}

/// The key of a Service in [`ServiceLeases::addresses`].
#[must_use]
pub fn address_key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// The key of a Service's port in [`ServiceLeases::node_ports`].
#[must_use]
pub fn port_key(namespace: &str, name: &str, port: u16, protocol: Protocol) -> String {
    format!("{namespace}/{name}/{port}/{protocol}")
}
