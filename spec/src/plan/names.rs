//! Which names each pod knows, beside its own: Services of its namespace, and the services of its Compose project
//! that share a network with it. Names stand for pods that can serve, so they follow replicas and restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Goals;
use super::Observed;
use super::pod::pod_ready_since;
use crate::observed::{PodFacts, PodUid};
use crate::workload::WorkloadKind;

/// Names for each address, as /etc/hosts has them.
pub type Names = Vec<(IpAddr, Vec<String>)>;

/// The names that each pod should know; pods without any are left out.
#[must_use]
pub fn names(goals: &Goals, observed: &Observed) -> BTreeMap<PodUid, Names> {
    let ready: Vec<(&Arc<PodFacts>, IpAddr)> = observed
        .pods
        .values()
        .filter(|pod| !observed.stopping.contains_key(&pod.record.uid))
        .filter(|pod| !observed.draining.contains_key(&pod.record.uid))
        .filter(|pod| pod_ready_since(pod, observed).is_some())
        .filter_map(|pod| Some((pod, IpAddr::from(pod.addresses.v4?))))
        .collect();
    let mut all = BTreeMap::new();
    let services = service_names(goals, &ready);
    for pod in observed.pods.values().filter(|pod| pod.sandbox) {
        let mut known: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
        if pod.record.workload.kind == WorkloadKind::Service {
            compose_names(pod, &ready, &mut known);
        } else {
            for (namespace, address, name) in &services {
                let full = format!("{name}.{namespace}");
                let names = known.entry(*address).or_default();
                if *namespace == pod.record.workload.namespace {
                    names.insert((*name).to_owned());
                }
                names.insert(format!("{full}.svc.cluster.local"));
                names.insert(format!("{full}.svc"));
                names.insert(full);
            }
        }
        if !known.is_empty() {
            let list = known.into_iter().map(|(ip, names)| (ip, names.into_iter().collect())).collect();
            all.insert(pod.record.uid.clone(), list);
        }
    }
    all
}

/// Each Service with a pod that serves it: a headless one with all of them, any other with the first.
fn service_names<'a>(goals: &'a Goals, ready: &[(&Arc<PodFacts>, IpAddr)]) -> Vec<(&'a str, IpAddr, &'a str)> {
    let mut found = Vec::new();
    for ((namespace, name), service) in &goals.services {
        let selected = ready.iter().filter(|(pod, _)| {
            let labels = goals
                .workloads
                .get(&pod.record.workload)
                .filter(|goal| goal.workload.id.kind == WorkloadKind::Pod)
                .map_or(&pod.record.labels, |goal| &goal.workload.template.labels);
            pod.record.workload.namespace == *namespace
                && !service.selector.is_empty()
                && service.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        });
        let count = if service.headless { usize::MAX } else { 1 };
        found.extend(selected.take(count).map(|(_, address)| (namespace.as_str(), *address, name.as_str())));
    }
    found
}

/// Names of the services that share a network with this pod.
fn compose_names(pod: &PodFacts, ready: &[(&Arc<PodFacts>, IpAddr)], known: &mut BTreeMap<IpAddr, BTreeSet<String>>) {
    let own = &pod.record.spec.networks;
    for (other, address) in ready {
        let record = &other.record;
        if record.workload.kind != WorkloadKind::Service {
            continue;
        }
        let shared: Vec<_> =
            record.spec.networks.iter().filter(|n| own.iter().any(|mine| mine.network == n.network)).collect();
        let same_default = own.is_empty()
            && record.spec.networks.is_empty()
            && record.workload.namespace == pod.record.workload.namespace;
        if shared.is_empty() && !same_default {
            continue;
        }
        let names = known.entry(*address).or_default();
        if record.workload.namespace == pod.record.workload.namespace {
            names.insert(record.workload.name.clone());
        }
        names.insert(record.name.clone());
        names.extend(shared.iter().flat_map(|network| network.aliases.iter().cloned()));
    }
}
