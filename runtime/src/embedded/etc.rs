//! Names inside pods: /etc/hosts, /etc/resolv.conf, /etc/hostname, and the networks that names are about.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use spec::digest::Digest;
use spec::names::{Meaning, NameTable, short_forms};
use spec::observed::{Addresses, PodRecord};
use spec::workload::{NetworkSpec, WorkloadKind};

use super::{Inner, config, records, transient};
use crate::api::Result;
use crate::network;

impl Inner {
    /// /etc/hosts, /etc/resolv.conf and /etc/hostname of a pod.
    pub(super) fn write_etc(&self, record: &PodRecord, hostname: &str, addresses: Addresses) -> std::io::Result<()> {
        let dir = self.layout().pod_run(&record.uid);
        let text = self.hosts(record, hostname, addresses, &[]);
        std::fs::write(dir.join("hosts"), text)?;
        let host = network::hosts::host_resolver(record.spec.host_network)?;
        std::fs::write(dir.join("resolv.conf"), network::hosts::pod_resolver(&host, &record.spec.dns).render())?;
        std::fs::write(dir.join("hostname"), network::hosts::render_hostname(hostname))
    }

    /// Makes a network of a Compose project.
    pub(super) fn define_network(&self, network: &NetworkSpec) -> Result<()> {
        let subnet = network.subnets.iter().find_map(|text| text.parse().ok());
        let options = network::NetworkOptions { subnet, ipv6: network.ipv6, internal: network.internal };
        self.network
            .define_network(&network.name, &options)
            .map_err(|error| transient(format!("make network `{}`", network.name))(error.into()))
    }

    /// Writes the hosts files of all pods anew where they changed; in place, since containers have them mounted.
    pub(super) fn set_names(&self, names: &NameTable) -> Result<()> {
        for record in records::pods(self.layout()).0 {
            let path = self.layout().pod_run(&record.uid).join("hosts");
            let Ok(old) = std::fs::read_to_string(&path) else { continue };
            let facts = self.network.addresses(&record.uid);
            let first = record.spec.networks.first().and_then(|attachment| facts.get(&attachment.network));
            let addresses = first.or_else(|| facts.values().next()).copied().unwrap_or_default();
            let known = self.known_names(&record, names);
            let text = self.hosts(&record, &config::hostname(&record), addresses, &known);
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
        let fqdn = spec
            .subdomain
            .as_ref()
            .map(|subdomain| format!("{hostname}.{subdomain}.{}.svc.cluster.local", record.workload.namespace));
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
