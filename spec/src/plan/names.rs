//! Which names there are: Services, pods behind headless Services, and the services of Compose projects on their
//! networks. Names stand for pods that can serve, so they follow replicas and restarts.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::services::{address_of, has_address, selected, serves};
use super::{Goals, Observed};
use crate::names::{Meaning, NameTable, service_name};
use crate::observed::{PodFacts, PodUid};
use crate::services::{ServiceSet, address_key};
use crate::workload::{Service, WorkloadKind};

/// The names that there should be, with Services as decided.
#[must_use]
pub fn names(goals: &Goals, observed: &Observed, services: &ServiceSet, leaving: &BTreeSet<PodUid>) -> NameTable {
    let mut table = NameTable::default();
    for ((namespace, name), service) in &goals.services {
        let whole = service_name(namespace, name);
        if let Some(other) = &service.external_name {
            let other = other.trim_end_matches('.').to_ascii_lowercase();
            table.cluster.insert(whole, Meaning::Alias(other));
        } else if has_address(service) {
            let address = services.leases.addresses.get(&address_key(namespace, name)).copied();
            if let Some(address) = address {
                table.reverse.insert(address, whole.clone());
            }
            add_ports(&mut table, service, &whole, std::slice::from_ref(&whole));
            table.cluster.insert(whole, Meaning::Addresses(address.into_iter().collect()));
        } else {
            let pods = selected(goals, observed, namespace, service)
                .filter(|pod| !leaving.contains(&pod.record.uid))
                .filter(|pod| service.publish_not_ready || serves(pod, observed));
            headless(&mut table, service, &whole, pods, observed);
        }
    }
    for pod in observed.pods.values().filter(|pod| pod.sandbox) {
        let record = &pod.record;
        if record.workload.kind != WorkloadKind::Service {
            continue;
        }
        let servers: Vec<IpAddr> =
            record.spec.dns.nameservers.iter().filter_map(|server| server.parse().ok()).collect();
        if !servers.is_empty() {
            table.upstreams.insert(record.uid.clone(), servers);
        }
        let leaves = leaving.contains(&record.uid) || observed.stopping.contains_key(&record.uid);
        for attachment in &record.spec.networks {
            // A name without a pod that serves is still no name of the world outside.
            let zone = table.networks.entry(attachment.network.clone()).or_default();
            let is_there = !leaves && serves(pod, observed);
            let own = [&record.workload.name, &record.name].into_iter().chain(&attachment.aliases);
            for name in own {
                let pods = zone.entry(name.to_ascii_lowercase()).or_default();
                if is_there {
                    pods.insert(record.uid.clone());
                }
            }
        }
    }
    table
}

/// A headless Service is its pods: all of them by its name, and each by its own where it has one
/// (Kubernetes, "DNS for Services and Pods": hostname and subdomain).
fn headless<'a>(
    table: &mut NameTable,
    service: &Service,
    whole: &str,
    pods: impl Iterator<Item = &'a Arc<PodFacts>>,
    observed: &Observed,
) {
    let mut all: BTreeSet<Ipv4Addr> = BTreeSet::new();
    let mut hosts = Vec::new();
    for pod in pods {
        let Some(address) = address_of(pod, observed) else { continue };
        all.insert(address);
        let spec = &pod.record.spec;
        let own = (spec.subdomain.as_deref() == Some(&service.name))
            .then(|| spec.hostname.clone().unwrap_or_else(|| pod.record.name.clone()));
        // A pod without a name of its own is told by its address, as Kubernetes' DNS does it.
        let host = own.unwrap_or_else(|| address.to_string().replace('.', "-"));
        let host = format!("{host}.{whole}").to_ascii_lowercase();
        let meaning = table.cluster.entry(host.clone()).or_insert_with(|| Meaning::Addresses(BTreeSet::new()));
        if let Meaning::Addresses(addresses) = meaning {
            addresses.insert(address);
        }
        table.reverse.insert(address, host.clone());
        hosts.push(host);
    }
    add_ports(table, service, whole, &hosts);
    table.cluster.insert(whole.to_owned(), Meaning::Addresses(all));
}

fn add_ports(table: &mut NameTable, service: &Service, whole: &str, hosts: &[String]) {
    for port in &service.ports {
        let Some(name) = &port.name else { continue };
        let owner = format!("_{name}._{}.{whole}", port.protocol).to_ascii_lowercase();
        let ports = hosts.iter().map(|host| (port.port, host.clone())).collect();
        table.cluster.insert(owner, Meaning::Ports(ports));
    }
}
