//! Which addresses Services have, and which pods are behind them.
//!
//! An address follows from the Service's name and stays while the Service is there, so that clients may keep it. A pod
//! that is about to be stopped leaves first: connections are never sent to a pod that was told to end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::pod::pod_ready_since;
use super::{Goals, Observed};
use crate::digest::Digest;
use crate::observed::{PodFacts, PodUid, PortKey, PortTarget};
use crate::pod::{PortRef, Protocol};
use crate::services::{
    Backend, Balance, Entrance, NODE_PORTS, ReadyContainers, ServiceLeases, ServiceRange, ServiceSet, address_key,
    port_key,
};
use crate::workload::{Exposure, Service, ServicePort, WorkloadKind};

/// Below this place a range is left to addresses that manifests ask for, where it is large enough (as Kubernetes does:
/// KEP-3070, "reserve Service IP ranges for dynamic and static allocation").
const STATIC_BAND: u64 = 256;

/// What Services should open, and what cannot be had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    /// As the kernel should have it.
    pub set: ServiceSet,
    /// What a Service asks for and does not get, by namespace and name; for people.
    pub faults: BTreeMap<(String, String), Vec<String>>,
}

/// The set of Services that should be. Pods in `leaving` are about to be stopped and get no more clients; ports in
/// `taken` lead to pods already.
#[must_use]
pub fn services(
    goals: &Goals,
    observed: &Observed,
    taken: &BTreeMap<PortKey, PortTarget>,
    leaving: &BTreeSet<PodUid>,
) -> Services {
    let mut out = Services::default();
    out.set.ready = ready_by_probe(observed);
    out.set.leases.addresses = addresses(goals, observed, &mut out.faults);
    out.set.leases.node_ports = node_ports(goals, &observed.services.leases, taken);
    for ((namespace, name), service) in goals.services.iter().filter(|(_, service)| has_address(service)) {
        let pods: Vec<&Arc<PodFacts>> = selected(goals, observed, namespace, service)
            .filter(|pod| !leaving.contains(&pod.record.uid))
            .filter(|pod| service.publish_not_ready || serves(pod, observed))
            .collect();
        for port in &service.ports {
            let balance = Balance {
                sticky: service.client_ip_affinity,
                backends: pods.iter().filter_map(|pod| backend(pod, port, observed)).collect(),
            };
            let virtual_address = out.set.leases.addresses.get(&address_key(namespace, name)).copied();
            let on_host = host_ports(service, port, &out.set.leases);
            let at = |address, port: u16, protocol| Entrance { protocol, address, port };
            if let Some(address) = virtual_address {
                out.set.entrances.insert(at(Some(address), port.port, port.protocol), balance.clone());
            }
            for number in on_host {
                let entrance = at(None, number, port.protocol);
                let fault = if taken.keys().any(|key| key.protocol == port.protocol && key.host_port == number) {
                    Some("a pod publishes it")
                } else if out.set.entrances.contains_key(&entrance) {
                    Some("another Service has it")
                } else {
                    None
                };
                match fault {
                    Some(why) => {
                        let message = format!("port {entrance} of the host is taken: {why}");
                        out.faults.entry((namespace.clone(), name.clone())).or_default().push(message);
                    }
                    None => drop(out.set.entrances.insert(entrance, balance.clone())),
                }
            }
        }
    }
    out
}

/// The entrances on the host that a Service asks for.
pub fn host_entrances(service: &Service, leases: &ServiceLeases) -> impl Iterator<Item = Entrance> {
    service.ports.iter().filter(|_| has_address(service)).flat_map(|port| {
        let numbers = host_ports(service, port, leases);
        numbers.into_iter().map(|number| Entrance { protocol: port.protocol, address: None, port: number })
    })
}

/// The pods that stand behind a Service now.
pub fn service_pods<'a>(
    goals: &'a Goals,
    observed: &'a Observed,
    service: &'a Service,
) -> impl Iterator<Item = &'a Arc<PodFacts>> {
    selected(goals, observed, &service.namespace, service)
        .filter(|pod| service.publish_not_ready || serves(pod, observed))
}

/// Whether a Service has an address of its own.
pub(super) fn has_address(service: &Service) -> bool {
    !service.headless && service.external_name.is_none()
}

/// The pods that a Service's selector means.
pub(super) fn selected<'a>(
    goals: &'a Goals,
    observed: &'a Observed,
    namespace: &'a str,
    service: &'a Service,
) -> impl Iterator<Item = &'a Arc<PodFacts>> {
    observed.pods.values().filter(move |pod| {
        let record = &pod.record;
        // Labels of a bare pod may change while it runs.
        let labels = goals
            .workloads
            .get(&record.workload)
            .filter(|goal| goal.workload.id.kind == WorkloadKind::Pod)
            .map_or(&record.labels, |goal| &goal.workload.template.labels);
        record.workload.kind != WorkloadKind::Service
            && record.workload.namespace == namespace
            && !service.selector.is_empty()
            && service.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && !observed.stopping.contains_key(&record.uid)
            && pod.sandbox
    })
}

/// Whether a pod can serve now.
pub(super) fn serves(pod: &PodFacts, observed: &Observed) -> bool {
    pod_ready_since(pod, observed).is_some()
}

/// Where a pod is reached from others.
pub(super) fn address_of(pod: &PodFacts, observed: &Observed) -> Option<Ipv4Addr> {
    if pod.record.spec.host_network { observed.service_state.gateway } else { pod.addresses.v4 }
}

fn backend(pod: &PodFacts, port: &ServicePort, observed: &Observed) -> Option<Backend> {
    let number = match &port.target {
        None => port.port,
        Some(PortRef::Number(number)) => *number,
        Some(PortRef::Name(name)) => {
            pod.record
                .spec
                .all_containers()
                .flat_map(|container| &container.ports)
                .find(|p| p.name.as_deref() == Some(name) && p.protocol == port.protocol)?
                .container_port
        }
    };
    let v4 = address_of(pod, observed)?;
    Some(Backend { pod: pod.record.uid.clone(), port: number, v4: Some(v4), v6: pod.addresses.v6 })
}

/// Ports of the host that a Service's port is reached on.
fn host_ports(service: &Service, port: &ServicePort, leases: &ServiceLeases) -> Vec<u16> {
    let given = || leases.node_ports.get(&port_key(&service.namespace, &service.name, port.port, port.protocol));
    match service.exposure {
        Exposure::Cluster => Vec::new(),
        Exposure::NodePort => port.node_port.or_else(|| given().copied()).into_iter().collect(),
        // The host is the load balancer; a node port beside it is opened when it is asked for.
        Exposure::LoadBalancer => {
            let second = port.node_port.filter(|number| *number != port.port);
            [Some(port.port), second].into_iter().flatten().collect()
        }
    }
}

/// Virtual addresses: what is asked for, what was given, and for new Services the first free one from a place that
/// follows from the name.
fn addresses(
    goals: &Goals,
    observed: &Observed,
    faults: &mut BTreeMap<(String, String), Vec<String>>,
) -> BTreeMap<String, Ipv4Addr> {
    let Some(range) = observed.service_state.range else { return BTreeMap::new() };
    let wanting = || goals.services.iter().filter(|(_, service)| has_address(service));
    let mut given: BTreeMap<String, Ipv4Addr> = BTreeMap::new();
    let mut used: BTreeSet<Ipv4Addr> = BTreeSet::new();
    for ((namespace, name), service) in wanting() {
        let Some(wished) = service.cluster_ip else { continue };
        if range.can_give(wished) && used.insert(wished) {
            given.insert(address_key(namespace, name), wished);
        } else {
            let why = if range.can_give(wished) {
                "another Service has it".to_owned()
            } else {
                format!("it is not in {range} (setting `service_subnet`)")
            };
            let message = format!("address {wished} cannot be given: {why}; another one is used");
            faults.entry((namespace.clone(), name.clone())).or_default().push(message);
        }
    }
    for (namespace, name) in wanting().map(|(key, _)| key) {
        let key = address_key(namespace, name);
        if given.contains_key(&key) {
            continue;
        }
        if let Some(kept) = observed.services.leases.addresses.get(&key).filter(|address| range.can_give(**address))
            && used.insert(*kept)
        {
            given.insert(key, *kept);
        }
    }
    for (namespace, name) in wanting().map(|(key, _)| key) {
        let key = address_key(namespace, name);
        if given.contains_key(&key) {
            continue;
        }
        match free_address(range, &key, &used) {
            Some(address) => {
                used.insert(address);
                given.insert(key, address);
            }
            None => {
                let message = format!("no address is left in {range} (setting `service_subnet`)");
                faults.entry((namespace.clone(), name.clone())).or_default().push(message);
            }
        }
    }
    given
}

fn free_address(range: ServiceRange, key: &str, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let first = if range.size() >= 4 * STATIC_BAND { STATIC_BAND } else { 1 };
    let count = range.size().saturating_sub(first + 1);
    places(key, count).filter_map(|place| range.nth(first + place)).find(|a| range.can_give(*a) && !used.contains(a))
}

/// Every place below `count`, starting at one that follows from the key.
fn places(key: &str, count: u64) -> impl Iterator<Item = u64> {
    let start = u64::from_str_radix(&Digest::of(key.as_bytes()).hex()[..15], 16).unwrap_or(0);
    (0..count).map(move |step| (start % count + step) % count)
}

/// Node ports for those that name none: kept ones, then free ones.
fn node_ports(goals: &Goals, before: &ServiceLeases, taken: &BTreeMap<PortKey, PortTarget>) -> BTreeMap<String, u16> {
    let ports = || goals.services.values().flat_map(|service| service.ports.iter().map(move |port| (service, port)));
    let mut used: BTreeSet<(Protocol, u16)> = taken.keys().map(|key| (key.protocol, key.host_port)).collect();
    for (service, port) in ports().filter(|(service, _)| service.exposure != Exposure::Cluster) {
        used.extend(port.node_port.map(|number| (port.protocol, number)));
        if service.exposure == Exposure::LoadBalancer {
            used.insert((port.protocol, port.port));
        }
    }
    let wanting = || {
        ports().filter(|(service, port)| service.exposure == Exposure::NodePort && port.node_port.is_none()).map(
            |(service, port)| (port_key(&service.namespace, &service.name, port.port, port.protocol), port.protocol),
        )
    };
    let mut given = BTreeMap::new();
    for (key, protocol) in wanting() {
        if let Some(kept) = before.node_ports.get(&key).filter(|number| NODE_PORTS.contains(number))
            && used.insert((protocol, *kept))
        {
            given.insert(key, *kept);
        }
    }
    for (key, protocol) in wanting() {
        if given.contains_key(&key) {
            continue;
        }
        let count = u64::from(NODE_PORTS.end() - NODE_PORTS.start()) + 1;
        let free = places(&key, count)
            .filter_map(|place| Some(NODE_PORTS.start() + u16::try_from(place).ok()?))
            .find(|number| !used.contains(&(protocol, *number)));
        if let Some(number) = free {
            used.insert((protocol, number));
            given.insert(key, number);
        }
    }
    given
}

/// Containers with a readiness or startup probe that has passed, in the attempt that runs.
fn ready_by_probe(observed: &Observed) -> ReadyContainers {
    let mut ready = ReadyContainers::new();
    for pod in observed.pods.values() {
        for container in pod.record.spec.all_containers() {
            if !crate::health::is_checked(pod, container) {
                continue;
            }
            let uid = &pod.record.uid;
            let Some(health) = observed.health.get(&(uid.clone(), container.name.clone())) else { continue };
            let facts = pod.containers.get(&container.name);
            if health.started && health.ready && facts.is_some_and(|f| f.attempt == health.attempt && f.is_running()) {
                ready.entry(uid.clone()).or_default().insert(container.name.clone(), health.attempt);
            }
        }
    }
    ready
}
