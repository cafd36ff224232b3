//! An empty node: every pod that is not over is stopped, each after those that depend on it. Pods that are over keep
//! their records, so that finished Jobs do not run again afterwards; one whose end was begun and cut off is not over.

use std::sync::Arc;

use super::order;
use super::{Plan, Reason, View, pod};
use crate::observed::{ContainerFacts, PodFacts};

pub(super) fn plan(view: &View<'_>, plan: &mut Plan) {
    let begun = |pod: &PodFacts| pod.containers.values().filter_map(ContainerFacts::exit).any(|exit| exit.stopped);
    let over = |pod: &PodFacts| pod::pod_phase(pod, view.observed).is_over() && (pod.failed.is_some() || !begun(pod));
    let live: Vec<&Arc<PodFacts>> = view.observed.pods.values().filter(|pod| !over(pod)).collect();
    let first = order::first_to_end(&live.iter().map(|pod| pod.as_ref()).collect::<Vec<_>>());
    for pod in live.iter().filter(|pod| first.contains(&pod.record.workload)) {
        let reason = view.observed.stopping.get(&pod.record.uid).cloned().unwrap_or(Reason::Drained);
        pod::stop(view, pod, reason, plan);
    }
}
