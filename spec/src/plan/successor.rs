//! Workloads that take the place of others: one that was renamed, or became another kind, is a removal and an addition in
//! one revision, with nothing in common but what both use.
//!
//! What is to go stays until everything of its successor that can fail early is done. And no version of a workload is
//! made beside a pod that is to go, or is held, and that it cannot stand side by side with: they write the same data, or
//! listen to the same port of the host. Where pods of the workload stand beside it in that way already, more may.

use std::collections::BTreeSet;

use super::{Goal, Hold, Plan, View};
use crate::observed::PodFacts;
use crate::pod::{PodSpec, Protocol};
use crate::workload::{Controller, WorkloadId};

/// Whether a workload has to wait for a pod of another one that is wished no longer; the plan then says so.
pub(super) fn waits(view: &View<'_>, goal: &Goal, plan: &mut Plan) -> bool {
    if view.leftover.is_empty() {
        return false;
    }
    let own = view.pods_of(&goal.workload.id);
    let excludes = |pod: &&&PodFacts| {
        let other = &pod.record.spec;
        exclude(&goal.workload.template.spec, other) && !own.iter().any(|own| exclude(&own.record.spec, other))
    };
    let Some(pod) = view.leftover.iter().find(excludes) else { return false };
    let hold = (goal.workload.id.clone(), Hold::Dependency { on: pod.record.workload.clone() });
    if !plan.holds.contains(&hold) {
        plan.holds.push(hold);
    }
    true
}

/// The new workload that is to take the place of a pod that is to go, while it cannot be made yet.
pub(super) fn unprepared<'a>(view: &View<'a>, pod: &PodFacts) -> Option<&'a WorkloadId> {
    let spec = &pod.record.spec;
    // Preparing looks for the ports of the host, and a pod on the host's network has them itself.
    if spec.host_network || view.observed.stopping.contains_key(&pod.record.uid) {
        return None;
    }
    let succeeds = |goal: &&Goal| {
        let id = &goal.workload.id;
        let wanted = match &goal.workload.controller {
            Controller::Single => true,
            Controller::Replicated { replicas, .. } | Controller::Ordered { replicas, .. } => *replicas > 0,
            Controller::Job(_) | Controller::Cron(_) => false,
        };
        let new = &goal.workload.template.spec;
        wanted
            && view.pods_of(id).is_empty()
            && !view.observed.prepared.contains_key(&(id.clone(), goal.revision.clone()))
            && (new.shares_writable_data(spec) || !published(new).is_disjoint(&published(spec)))
    };
    view.goals.workloads.values().find(succeeds).map(|goal| &goal.workload.id)
}

/// Whether two pods cannot stand side by side.
fn exclude(one: &PodSpec, other: &PodSpec) -> bool {
    one.shares_writable_data(other) || !host_listeners(one).is_disjoint(&host_listeners(other))
}

type Ports = BTreeSet<(Protocol, u16)>;

/// Ports that containers themselves open on the host.
fn host_listeners(spec: &PodSpec) -> Ports {
    let ports = spec.all_containers().flat_map(|container| &container.ports);
    ports.filter(|_| spec.host_network).map(|port| (port.protocol, port.container_port)).collect()
}

/// Ports of the host that lead to a pod.
fn published(spec: &PodSpec) -> Ports {
    let ports = spec.all_containers().flat_map(|container| &container.ports);
    ports.filter_map(|port| Some((port.protocol, port.host_port?))).collect()
}
