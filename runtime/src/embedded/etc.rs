//! Names inside pods: /etc/hosts, /etc/resolv.conf, /etc/hostname, and the networks that names are about.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::PoisonError;

use spec::digest::Digest;
use spec::names::{Meaning, NameTable, short_forms};
use spec::observed::{Addresses, PodRecord};
use spec::pod::DnsPolicy;
use spec::workload::{NetworkSpec, WorkloadKind};

use super::{Inner, config, records, transient};
use crate::api::Result;
use crate::dns::Client;
use crate::network::{self, hosts::OwnResolver};

impl Inner {
    /// /etc/hosts, /etc/resolv.conf and /etc/hostname of a pod.
    pub(super) fn write_etc(&self, record: &PodRecord, hostname: &str, addresses: Addresses) -> std::io::Result<()> {
        let dir = self.layout().pod_run(&record.uid);
        let short = config::hostname(record);
        {
            // Kept while the file is written: names that come meanwhile are written behind it.
            let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            let text = self.hosts(record, &short, addresses, &self.known_names(record, &names));
            std::fs::write(dir.join("hosts"), text)?;
        }
        let host = network::hosts::host_resolver(record.spec.host_network)?;
        let own = self.own_resolver(record);
        let resolver = network::hosts::pod_resolver(&host, &record.spec.dns, own.as_ref());
        std::fs::write(dir.join("resolv.conf"), resolver.render())?;
        std::fs::write(dir.join("hostname"), network::hosts::render_hostname(hostname))
    }

    /// The responder that a pod asks: of its Compose network, or of the default one by `dnsPolicy`.
    fn own_resolver(&self, record: &PodRecord) -> Option<OwnResolver> {
        let spec = &record.spec;
        let gateway = |network: Option<&str>| self.network.gateway(network).and_then(|gateway| gateway.v4);
        if spec.no_network {
            return None;
        }
        if record.workload.kind == WorkloadKind::Service {
            let network = spec.networks.first().filter(|_| !spec.host_network)?;
            return Some(OwnResolver { address: gateway(Some(&network.network))?, namespace: None });
        }
        let wanted = match spec.dns.policy {
            None | Some(DnsPolicy::ClusterFirst) => !spec.host_network,
            Some(DnsPolicy::ClusterFirstWithHostNet) => true,
            Some(DnsPolicy::Default | DnsPolicy::None) => false,
        };
        let namespace = Some(record.workload.namespace.clone());
        wanted.then(|| gateway(None)).flatten().map(|address| OwnResolver { address, namespace })
    }

    /// Who asks the responder: a pod, or the host by one of its own addresses.
    pub(super) fn who_is(&self, address: Ipv4Addr) -> Option<Client> {
        if let Some((pod, networks)) = self.network.owner(address) {
            let cluster = networks.iter().any(|network| network == self.network.default_name());
            return Some(Client { pod: Some(pod), cluster, networks });
        }
        let is_host = address.is_loopback() || self.network.gateways().contains(&address);
        is_host.then(|| Client { pod: None, cluster: true, networks: Vec::new() })
    }

    /// Lets the responder listen on the bridges that there are.
    pub(super) fn listen_for_names(&self) {
        if let Some(responder) = self.responder.get() {
            responder.listen(&self.network.gateways());
        }
    }

    /// Makes a network of a Compose project.
    pub(super) fn define_network(&self, network: &NetworkSpec) -> Result<()> {
        let subnet = network.subnets.iter().find_map(|text| text.parse().ok());
        let options = network::NetworkOptions { subnet, ipv6: network.ipv6, internal: network.internal };
        self.network
            .define_network(&network.name, &options)
            .map_err(|error| transient(format!("make network `{}`", network.name))(error.into()))
    }

    /// Gives names to the responder, and writes the hosts files of all pods anew where they changed; in place, since
    /// containers have them mounted.
    pub(super) fn set_names(&self, names: &NameTable) -> Result<()> {
        if let Some(responder) = self.responder.get() {
            responder.set(names, self.network.members(), self.network.ranges());
        }
        self.listen_for_names();
        let mut known = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone_from(names);
        for record in records::pods(self.layout()).0 {
            let path = self.layout().pod_run(&record.uid).join("hosts");
            let Ok(old) = std::fs::read_to_string(&path) else { continue };
            let facts = self.network.addresses(&record.uid);
            let first = record.spec.networks.first().and_then(|attachment| facts.get(&attachment.network));
            let addresses = first.or_else(|| facts.values().next()).copied().unwrap_or_default();
            let lines = self.known_names(&record, names);
            let text = self.hosts(&record, &config::hostname(&record), addresses, &lines);
            if text != old {
                overwrite(&path, &text, old.len())
                    .map_err(|error| transient(format!("write {}", path.display()))(error.into()))?;
            }
        }
        Ok(())
    }

    /// The lines of other pods' names that a pod gets.
    fn known_names(&self, record: &PodRecord, names: &NameTable) -> Vec<(IpAddr, Vec<String>)> {
        let mut known: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
        if record.workload.kind == WorkloadKind::Service {
            for attachment in &record.spec.networks {
                for (name, pods) in names.networks.get(&attachment.network).into_iter().flatten() {
                    for pod in pods {
                        let addresses = self.network.addresses(pod);
                        if let Some(address) = addresses.get(&attachment.network).and_then(|addresses| addresses.v4) {
                            known.entry(address.into()).or_default().insert(name.clone());
                        }
                    }
                }
            }
        } else {
            for (whole, meaning) in &names.cluster {
                let Meaning::Addresses(addresses) = meaning else { continue };
                for address in addresses {
                    let forms = short_forms(whole, &record.workload.namespace);
                    known.entry((*address).into()).or_default().extend(forms);
                }
            }
        }
        let mut lines: Vec<(IpAddr, Vec<String>)> =
            known.into_iter().map(|(address, names)| (address, names.into_iter().collect())).collect();
        // Clients take the first address of a name: another one for each pod, so that replicas share the work.
        lines.sort_by_cached_key(|(address, _)| Digest::of(format!("{}{address}", record.uid).as_bytes()));
        lines
    }

    fn hosts(
        &self,
        record: &PodRecord,
        hostname: &str,
        addresses: Addresses,
        neighbours: &[(std::net::IpAddr, Vec<String>)],
    ) -> String {
        let spec = &record.spec;
        let fqdn = config::full_name(record);
        let gateway = self.network.gateway(spec.networks.first().map(|n| n.network.as_str())).unwrap_or_default();
        let hosts = network::hosts::HostsFile {
            addresses,
            hostname,
            fqdn: fqdn.as_deref(),
            aliases: &spec.host_aliases,
            gateway,
            neighbours,
        };
        if spec.host_network {
            let mut own = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            own.push_str(&network::hosts::render_aliases(&spec.host_aliases, gateway));
            own
        } else {
            hosts.render()
        }
    }
}

/// Puts a text into a file that others have open, so that who reads meanwhile sees whole lines: the new text with empty
/// lines up to the old length in one write, then the new length.
fn overwrite(path: &Path, text: &str, old_length: usize) -> std::io::Result<()> {
    let file = std::fs::File::options().write(true).open(path)?;
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(bytes.len().max(old_length), b'\n');
    file.write_all_at(&bytes, 0)?;
    file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))
}
