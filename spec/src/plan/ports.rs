//! Which pod each published port leads to.
//!
//! A port moves to a pod of the new version when that pod can serve, in one change of the map; until then it stays
//! where it is. That is what makes a replacement on a fixed host port lose nothing.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::pod::{may_serve, pod_ready_since};
use super::{Goals, Observed};
use crate::observed::{PodFacts, PortKey, PortTarget};

/// The whole port map that should be.
#[must_use]
pub fn port_map(goals: &Goals, observed: &Observed) -> BTreeMap<PortKey, PortTarget> {
    let mut map: BTreeMap<PortKey, (Rank, PortTarget)> = BTreeMap::new();
    for pod in observed.pods.values() {
        let spec = &pod.record.spec;
        if spec.host_network || !pod.sandbox || (pod.addresses.v4.is_none() && pod.addresses.v6.is_none()) {
            continue;
        }
        for port in spec.all_containers().flat_map(|c| &c.ports) {
            let Some(host_port) = port.host_port else { continue };
            let key = PortKey { protocol: port.protocol, host_ip: port.host_ip, host_port };
            let target = PortTarget {
                pod: pod.record.uid.clone(),
                addresses: pod.addresses,
                container_port: port.container_port,
            };
            let rank = rank(goals, observed, pod, observed.published.get(&key));
            match map.get(&key) {
                Some((best, _)) if *best >= rank => {}
                _ => {
                    map.insert(key, (rank, target));
                }
            }
        }
    }
    map.into_iter().map(|(key, (_, target))| (key, target)).collect()
}

/// Which of several pods that publish the same port gets it: one that serves, not ending, of the current version, that
/// has it already; then the lowest ordinal. While none is ready, an old pod that may serve goes before a new one, which
/// has yet to begin.
type Rank = (bool, bool, bool, bool, bool, Reverse<u32>, Reverse<String>);

fn rank(goals: &Goals, observed: &Observed, pod: &Arc<PodFacts>, published: Option<&PortTarget>) -> Rank {
    let record = &pod.record;
    let ready = pod_ready_since(pod, observed).is_some();
    let current = goals.workloads.get(&record.workload).is_some_and(|goal| {
        Arc::ptr_eq(&goal.workload.template.spec, &record.spec)
            || *super::instance::spec(goal, record.ordinal) == *record.spec
    });
    let has = published.is_some_and(|target| target.pod == record.uid);
    let ending = observed.stopping.contains_key(&record.uid) || observed.draining.contains_key(&record.uid);
    let goes_on = !ready && !current && may_serve(pod, observed);
    (ready, !ending, goes_on, current, has, Reverse(record.ordinal), Reverse(record.uid.0.clone()))
}
