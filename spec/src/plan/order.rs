//! Ordering between workloads: what must be up before a pod starts, what must be gone before one ends, and which pods
//! follow when something they depend on has been replaced.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::pod::{self, PodPhase};
use super::{Goal, Hold, Plan, View};
use crate::observed::{ContainerFacts, ContainerState, PodFacts};
use crate::time::Timestamp;
use crate::workload::{Dependency, DependencyCondition, WorkloadId};

/// The first dependency of a workload that is not up.
pub(super) fn unmet(view: &View<'_>, goal: &Goal) -> Option<WorkloadId> {
    goal.workload.depends_on.iter().find(|dependency| !met(view, dependency)).map(|d| d.workload.clone())
}

fn met(view: &View<'_>, dependency: &Dependency) -> bool {
    if !view.goals.workloads.contains_key(&dependency.workload) && !dependency.required {
        return true;
    }
    let pods = view.pods_of(&dependency.workload);
    !pods.is_empty()
        && pods.iter().all(|pod| match dependency.condition {
            DependencyCondition::Started => match pod::pod_phase(pod, view.observed) {
                // A pod that waits to be started again after a crash of everything does not run.
                PodPhase::Running => pod.containers.values().any(ContainerFacts::is_running),
                phase => phase == PodPhase::Succeeded,
            },
            DependencyCondition::Healthy => pod::pod_ready_since(pod, view.observed).is_some(),
            DependencyCondition::CompletedSuccessfully => pod::pod_phase(pod, view.observed) == PodPhase::Succeeded,
        })
}

/// Whether everything the workload depends on is up; what is not is waited for.
pub(super) fn dependencies_up(view: &View<'_>, goal: &Goal, plan: &mut Plan) -> bool {
    let Some(on) = unmet(view, goal) else { return true };
    let hold = (goal.workload.id.clone(), Hold::Dependency { on });
    if !plan.holds.contains(&hold) {
        plan.holds.push(hold);
    }
    false
}

/// The next steps of a pod that belongs to a goal. One of which nothing runs starts only when what it depends on is
/// up: after a reboot and after a crash of everything as well as the first time.
pub(super) fn tend(view: &View<'_>, goal: &Goal, pod: &Arc<PodFacts>, files: Option<&str>, plan: &mut Plan) {
    let idle = !pod.containers.values().any(ContainerFacts::is_running);
    let open = !pod::pod_phase(pod, view.observed).is_over();
    let stopping = view.observed.stopping.contains_key(&pod.record.uid);
    if idle && open && !stopping && !goal.workload.depends_on.is_empty() && !dependencies_up(view, goal, plan) {
        return;
    }
    pod::keep(view, pod, files, plan);
}

/// The dependency that has been replaced or restarted since this pod started, where the pod is to follow (Compose
/// `depends_on.restart`; here for every cause of a restart).
pub(super) fn follows(view: &View<'_>, goal: &Goal, pod: &PodFacts) -> Option<WorkloadId> {
    let started = starts(pod).min()?;
    let newer = |dependency: &&Dependency| {
        let of = view.pods_of(&dependency.workload).iter();
        // Further replicas are no restart: all of them must be newer.
        let starts = of.filter(|pod| !view.observed.stopping.contains_key(&pod.record.uid)).flat_map(|pod| starts(pod));
        dependency.restart && met(view, dependency) && starts.min().is_some_and(|at| at > started)
    };
    goal.workload.depends_on.iter().find(newer).map(|dependency| dependency.workload.clone())
}

fn starts(pod: &PodFacts) -> impl Iterator<Item = Timestamp> + '_ {
    pod.containers.values().filter_map(|facts| match facts.state {
        ContainerState::Running { started, .. } => Some(started),
        ContainerState::Exited(_) => None,
    })
}

/// Of workloads that all end, those whose turn it is: nothing that still is there depends on them.
pub(super) fn first_to_end<'a>(ending: &[&'a PodFacts]) -> BTreeSet<&'a WorkloadId> {
    let all: BTreeSet<&WorkloadId> = ending.iter().map(|pod| &pod.record.workload).collect();
    let needed: BTreeSet<&WorkloadId> =
        ending.iter().flat_map(|pod| pod.record.depends_on.iter().filter(|on| **on != pod.record.workload)).collect();
    let free: BTreeSet<&WorkloadId> = all.difference(&needed).copied().collect();
    // A circle is refused where manifests are read; records of one must not last for ever all the same.
    if free.is_empty() { all } else { free }
}

/// Pods in the order in which they are to end: each group when the one before is gone, dependents before what they
/// depend on.
#[must_use]
pub fn stop_order(pods: &[PodFacts]) -> Vec<Vec<&PodFacts>> {
    let mut left: Vec<&PodFacts> = pods.iter().collect();
    let mut groups = Vec::new();
    while !left.is_empty() {
        let free = first_to_end(&left);
        let (now, later): (Vec<_>, Vec<_>) = left.into_iter().partition(|pod| free.contains(&pod.record.workload));
        groups.push(now);
        left = later;
    }
    groups
}
