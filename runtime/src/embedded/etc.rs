//! Names inside pods: /etc/hosts, /etc/resolv.conf, /etc/hostname, and the networks that names are about.

use std::collections::BTreeMap;

use spec::observed::{Addresses, PodRecord, PodUid};
use spec::workload::NetworkSpec;

use super::{Inner, config, records, transient};
use crate::api::{Names, Result};
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
    pub(super) fn set_names(&self, names: &BTreeMap<PodUid, Names>) -> Result<()> {
        for record in records::pods(self.layout()).0 {
            let path = self.layout().pod_run(&record.uid).join("hosts");
            let Ok(old) = std::fs::read_to_string(&path) else { continue };
            let facts = self.network.addresses(&record.uid);
            let first = record.spec.networks.first().and_then(|attachment| facts.get(&attachment.network));
            let addresses = first.or_else(|| facts.values().next()).copied().unwrap_or_default();
            let known = names.get(&record.uid).map(Vec::as_slice).unwrap_or_default();
            let text = self.hosts(&record, &config::hostname(&record), addresses, known);
            if text != old {
                std::fs::write(&path, text)
                    .map_err(|error| transient(format!("write {}", path.display()))(error.into()))?;
            }
        }
        Ok(())
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
