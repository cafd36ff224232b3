//! StatefulSet: pods with ordinals, one after the other (Kubernetes, StatefulSet "Deployment and Scaling Guarantees").
//!
//! Started from the lowest ordinal up, each when the ones before are ready; scaled down and updated from the highest
//! down, one at a time. A pod that is updated ends before its successor starts: they have the same name and volumes.

use std::sync::Arc;

use super::order::{dependencies_up, tend};
use super::replicated::prepare;
use super::{Goal, Hold, Plan, Reason, View, instance, pod, successor};
use crate::diff;
use crate::observed::PodFacts;
use crate::time::Millis;

/// How the pods of a set follow each other.
pub(super) struct Rules {
    pub replicas: u32,
    pub first: u32,
    pub parallel: bool,
    pub partition: u32,
    pub on_delete: bool,
    pub min_ready: Millis,
}

pub(super) fn plan(view: &View<'_>, goal: &Goal, rules: &Rules, plan: &mut Plan) {
    let id = &goal.workload.id;
    let mut pods: Vec<&Arc<PodFacts>> = view.pods_of(id).to_vec();
    pods.sort_by_key(|pod| pod.record.ordinal);
    let wished = rules.first..rules.first.saturating_add(rules.replicas);
    for pod in &pods {
        pod::clear_failed(view, pod, plan);
    }
    let ending = |pod: &PodFacts| pod.failed.is_some() || view.observed.stopping.contains_key(&pod.record.uid);
    let available = |pod: &PodFacts, plan: &mut Plan| {
        pod::pod_ready_since(pod, view.observed).is_some_and(|since| {
            let due = since.plus(rules.min_ready);
            if due > view.now {
                plan.wake_at(due);
            }
            due <= view.now
        })
    };
    if let Some(bad) = &goal.failed {
        plan.hold(id, Hold::UpdateFailed { cause: bad.cause.clone() });
    }
    let any_ending = pods.iter().any(|pod| ending(pod));
    let all_ready = wished
        .clone()
        .all(|ordinal| pods.iter().any(|pod| pod.record.ordinal == ordinal && !ending(pod) && available(pod, plan)));

    // What is above the wished number goes, the highest first.
    for pod in pods.iter().rev().filter(|pod| !wished.contains(&pod.record.ordinal) && !ending(pod)) {
        if rules.parallel || !any_ending {
            pod::stop(view, pod, Reason::ScaledDown, plan);
        }
        if !rules.parallel {
            break;
        }
    }
    let outdated = |pod: &PodFacts| super::config::is_outdated(view, &goal.workload, &pod.record.uid, &goal.files);
    let old = pods.iter().rev().find(|pod| {
        wished.contains(&pod.record.ordinal)
            && pod.record.ordinal >= rules.partition
            && !ending(pod)
            && (*pod.record.spec != *instance::spec(goal, pod.record.ordinal) || outdated(pod))
    });
    let missing: Vec<u32> =
        wished.clone().filter(|ordinal| !pods.iter().any(|pod| pod.record.ordinal == *ordinal)).collect();
    let ready_to_start = if missing.is_empty() && old.is_none() {
        true
    } else {
        prepare(view, goal, plan) && dependencies_up(view, goal, plan) && !successor::waits(view, goal, plan)
    };
    if let Some(pod) = old
        && ready_to_start
        && !rules.on_delete
        && goal.failed.is_none()
        && !any_ending
        && missing.is_empty()
    {
        // One that does not serve is replaced at once; one that does, only while all the others serve too.
        if all_ready || !available(pod, plan) {
            let spec = instance::spec(goal, pod.record.ordinal);
            let reason = if *pod.record.spec == *spec {
                Reason::FilesChanged
            } else {
                goal.replaced(|| diff::changes(&*pod.record.spec, &*spec))
            };
            pod::stop(view, pod, reason, plan);
        } else {
            plan.hold(id, Hold::NotReady);
        }
    }
    if ready_to_start {
        for ordinal in missing {
            let before_ready = pods
                .iter()
                .filter(|pod| pod.record.ordinal < ordinal && wished.contains(&pod.record.ordinal))
                .all(|pod| available(pod, plan))
                && pods.iter().filter(|pod| pod.record.ordinal < ordinal).count() >= (ordinal - rules.first) as usize;
            if !rules.parallel && !before_ready {
                break;
            }
            super::create(view, goal, ordinal, plan);
        }
    }
    for pod in &pods {
        if !plan.stops(&pod.record.uid) {
            let current = *pod.record.spec == *instance::spec(goal, pod.record.ordinal);
            tend(view, goal, pod, current.then_some(goal.files.as_str()), plan);
        }
    }
}
