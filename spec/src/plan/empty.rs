//! An empty node: every pod that is not over is stopped, each after those that depend on it. Pods that are over keep
//! their records, so that finished Jobs do not run again afterwards.

use super::pod::{self, PodPhase};
use super::{Plan, Reason, View};

pub(super) fn plan(view: &View<'_>, plan: &mut Plan) {
    let live = |pod: &crate::observed::PodFacts| {
        !matches!(pod::pod_phase(pod, view.observed), PodPhase::Succeeded | PodPhase::Failed)
    };
    for (id, pods) in &view.pods {
        let has_dependents = view.goals.workloads.values().any(|goal| {
            goal.workload.depends_on.iter().any(|dependency| dependency.workload == **id)
                && goal.workload.id != **id
                && view.pods_of(&goal.workload.id).iter().any(|pod| live(pod))
        });
        if has_dependents {
            continue;
        }
        for pod in pods.iter().filter(|pod| live(pod)) {
            let reason = view.observed.stopping.get(&pod.record.uid).cloned().unwrap_or(Reason::Drained);
            pod::stop(view, pod, reason, plan);
        }
    }
}
