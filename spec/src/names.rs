//! What names mean: the names of Services for pods of the default network, and the names of Compose services for those
//! who share a network with them.
//!
//! [`crate::plan`] decides them; the runtime tells pods, by its DNS responder and in /etc/hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crate::observed::PodUid;

/// The domain that cluster names end in.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// All names that pods know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameTable {
    /// Names of Services and of pods behind headless ones, whole (`web.default.svc.cluster.local`) and in lower case.
    pub cluster: BTreeMap<String, Meaning>,
    /// Names by network and name, in lower case: the pods on that network that it stands for.
    pub networks: BTreeMap<String, BTreeMap<String, BTreeSet<PodUid>>>,
    /// Whole names of addresses.
    pub reverse: BTreeMap<Ipv4Addr, String>,
    /// Servers that a pod wants outside names to be asked of, instead of the host's (Compose `dns`).
    pub upstreams: BTreeMap<PodUid, Vec<IpAddr>>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// Addresses; none while no pod serves.
    Addresses(BTreeSet<Ipv4Addr>),
    /// Another name (`type: ExternalName`).
    Alias(String),
    /// Ports of hosts, for SRV records (`_http._tcp.web.default.svc.cluster.local`).
    Ports(Vec<(u16, String)>),
}

/// The whole name of a Service.
#[must_use]
pub fn service_name(namespace: &str, name: &str) -> String {
    format!("{name}.{namespace}.svc.{CLUSTER_DOMAIN}").to_ascii_lowercase()
}

/// The shorter forms of a cluster name that a pod of that namespace may use, longest last; the name itself is last.
#[must_use]
pub fn short_forms(whole: &str, namespace: &str) -> Vec<String> {
    let Some(in_namespace) = whole.strip_suffix(&format!(".svc.{CLUSTER_DOMAIN}")) else {
        return vec![whole.to_owned()];
    };
    let own = in_namespace.strip_suffix(&format!(".{namespace}")).map(str::to_owned);
    own.into_iter().chain([in_namespace.to_owned(), format!("{in_namespace}.svc"), whole.to_owned()]).collect()
}
