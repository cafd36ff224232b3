//! Steps within one pod: namespaces, init containers in order, containers, restarts, end.

use std::sync::Arc;

use super::{Action, ActionKey, Hold, Observed, Plan, Reaction, Reason, View};
use crate::health;
use crate::observed::{ContainerFacts, ContainerState, Exit, PodFacts, PodFailure, PodFailureReason};
use crate::pod::{ContainerSpec, PodSpec, RestartPolicy};
use crate::restart::{self, Restart};
use crate::time::{Millis, Timestamp};
use crate::workload::WorkloadKind;

/// Where a pod is in its life (Kubernetes PodPhase).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum PodPhase {
    /// Not all containers have started yet.
    Pending,
    /// At least one container runs, or is about to run again.
    Running,
    /// All containers ended with code 0 and stay ended.
    Succeeded,
    /// All containers ended, at least one with another code, and stay ended.
    Failed,
}

impl PodPhase {
    /// Whether its containers have ended and stay so.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// Grace period of an evicted pod (kubelet, immediateEvictionGracePeriodSeconds).
const EVICTION_GRACE: Millis = Millis::from_secs(1);

/// The restart policy of one container of a pod.
fn policy_of(spec: &PodSpec, container: &ContainerSpec) -> RestartPolicy {
    container.restart_policy.unwrap_or_else(|| spec.restart_policy())
}

fn stays(spec: &PodSpec, container: &ContainerSpec, facts: &ContainerFacts, boot_id: &str) -> Option<Exit> {
    let exit = facts.exit()?;
    match after_end(spec, policy_of(spec, container), facts, exit, boot_id) {
        Restart::Stay | Restart::GiveUp => Some(exit.clone()),
        Restart::At { .. } => None,
    }
}

/// What follows from the end of an attempt. That one was ended for being unhealthy is known of services only: with
/// Kubernetes, its exit code decides.
fn after_end(spec: &PodSpec, policy: RestartPolicy, facts: &ContainerFacts, exit: &Exit, boot_id: &str) -> Restart {
    let backoff = spec.restart_backoff.as_ref();
    if facts.unhealthy {
        return restart::after_unhealthy(backoff, exit, facts.series, boot_id);
    }
    restart::after_exit(policy, backoff, exit, facts.series, boot_id)
}

/// Whether an init container has done its work: it ended with 0 in this boot, or a later container has run since.
fn init_done(pod: &PodFacts, container: &ContainerSpec, observed: &Observed) -> bool {
    pod.containers
        .get(&container.name)
        .and_then(ContainerFacts::exit)
        .is_some_and(|exit| exit.succeeded() && (exit.boot_id == observed.boot_id || pod_finished(pod, observed)))
}

/// Whether every main container ended and stays so.
fn pod_finished(pod: &PodFacts, observed: &Observed) -> bool {
    let spec = &pod.record.spec;
    spec.containers
        .iter()
        .all(|c| pod.containers.get(&c.name).is_some_and(|facts| stays(spec, c, facts, &observed.boot_id).is_some()))
}

/// Where a pod is in its life.
#[must_use]
pub fn pod_phase(pod: &PodFacts, observed: &Observed) -> PodPhase {
    let spec = &pod.record.spec;
    if pod.failed.is_some() {
        return PodPhase::Failed;
    }
    if let Some(exit) = failed_init(pod, observed)
        && !exit.succeeded()
    {
        return PodPhase::Failed;
    }
    if pod_finished(pod, observed) {
        let all_zero = spec
            .containers
            .iter()
            .all(|c| pod.containers.get(&c.name).and_then(ContainerFacts::exit).is_some_and(Exit::succeeded));
        return if all_zero { PodPhase::Succeeded } else { PodPhase::Failed };
    }
    if spec.containers.iter().all(|c| pod.containers.contains_key(&c.name)) {
        PodPhase::Running
    } else {
        PodPhase::Pending
    }
}

/// The exit of an init container that ended badly and is not run again.
fn failed_init(pod: &PodFacts, observed: &Observed) -> Option<Exit> {
    let spec = &pod.record.spec;
    spec.init_containers.iter().filter(|c| !c.is_sidecar()).find_map(|c| {
        let facts = pod.containers.get(&c.name)?;
        // `Always` stands for `OnFailure` where init containers are concerned.
        let policy = match policy_of(spec, c) {
            RestartPolicy::Always => RestartPolicy::OnFailure,
            other => other,
        };
        let exit = facts.exit().filter(|exit| !exit.succeeded())?;
        let next = restart::after_exit(policy, spec.restart_backoff.as_ref(), exit, facts.series, &observed.boot_id);
        matches!(next, Restart::Stay | Restart::GiveUp).then(|| exit.clone())
    })
}

/// Whether a container can serve, and since when.
fn container_ready_since(pod: &PodFacts, container: &ContainerSpec, observed: &Observed) -> Option<Timestamp> {
    let facts = pod.containers.get(&container.name)?;
    let ContainerState::Running { started, .. } = facts.state else { return None };
    if !health::is_checked(pod, container) {
        return Some(started);
    }
    let health = observed.health.get(&(pod.record.uid.clone(), container.name.clone()))?;
    (health.attempt == facts.attempt && health.started && health.ready).then_some(health.since)
}

/// Since when all containers of a pod can serve; `None` when one cannot.
#[must_use]
pub fn pod_ready_since(pod: &PodFacts, observed: &Observed) -> Option<Timestamp> {
    if pod.failed.is_some() {
        return None;
    }
    let mut since = Timestamp(0);
    for container in &pod.record.spec.containers {
        since = since.max(container_ready_since(pod, container, observed)?);
    }
    Some(since)
}

/// Whether a pod may be serving, though that need not be proved (yet): all its containers run, and no check has come to
/// the end that one cannot.
pub(super) fn may_serve(pod: &PodFacts, observed: &Observed) -> bool {
    pod.failed.is_none()
        && pod.record.spec.containers.iter().all(|container| {
            let Some(facts) = pod.containers.get(&container.name).filter(|facts| facts.is_running()) else {
                return false;
            };
            let health = observed.health.get(&(pod.record.uid.clone(), container.name.clone()));
            health.is_none_or(|health| health.attempt != facts.attempt || !(health.failed || health.refused))
        })
}

/// Orders the end of a pod.
pub(super) fn stop(view: &View<'_>, pod: &Arc<PodFacts>, reason: Reason, plan: &mut Plan) {
    let key = ActionKey::Pod(pod.record.uid.clone());
    if view.pod_busy(pod) {
        return;
    }
    if view.is_blocked(&key, &pod.record.workload, plan) {
        return;
    }
    // New clients must go elsewhere before it is told to end. That this cannot be done keeps no pod alive.
    let uid = &pod.record.uid;
    if view.observed.services.leads_to(uid) && view.blocked_until(&ActionKey::Services).is_none() {
        plan.leaving.insert(uid.clone());
        return;
    }
    let grace = pod.record.spec.termination_grace();
    plan.push(&pod.record.workload, Action::StopPod { pod: Arc::clone(pod), grace }, reason);
}

/// Orders that a pod fails as a whole: its containers end for good, its record and logs stay.
fn fail(view: &View<'_>, pod: &Arc<PodFacts>, failure: PodFailure, plan: &mut Plan) {
    let key = ActionKey::Pod(pod.record.uid.clone());
    if view.pod_busy(pod) {
        return;
    }
    if view.is_blocked(&key, &pod.record.workload, plan) {
        return;
    }
    let (grace, reason) = match failure.reason {
        PodFailureReason::Evicted => (EVICTION_GRACE, Reason::Evicted { message: failure.message.clone() }),
        PodFailureReason::DeadlineExceeded => (pod.record.spec.termination_grace(), Reason::DeadlineExceeded),
    };
    plan.push(&pod.record.workload, Action::FailPod { pod: Arc::clone(pod), failure, grace }, reason);
}

/// A pod that failed as a whole makes room for another one, where its workload makes pods; whether it has to go.
/// A bare pod stays as it ended, as do those of a Job, which counts them.
pub(super) fn clear_failed(view: &View<'_>, pod: &Arc<PodFacts>, plan: &mut Plan) -> bool {
    let Some(failure) = &pod.failed else { return false };
    if pod.record.workload.kind == WorkloadKind::Pod {
        return false;
    }
    let reason = match failure.reason {
        PodFailureReason::Evicted => Reason::Evicted { message: failure.message.clone() },
        PodFailureReason::DeadlineExceeded => Reason::DeadlineExceeded,
    };
    stop(view, pod, reason, plan);
    true
}

/// The next steps that keep a pod going as it was made.
pub(super) fn keep(view: &View<'_>, pod: &Arc<PodFacts>, files: Option<&str>, plan: &mut Plan) {
    let observed = view.observed;
    let record = &pod.record;
    if let Some(reason) = observed.stopping.get(&record.uid) {
        stop(view, pod, reason.clone(), plan);
        return;
    }
    if let Some(failure) = &pod.failed {
        // The mark is written first: what still runs was not stopped yet.
        if pod.containers.values().any(ContainerFacts::is_running) {
            fail(view, pod, failure.clone(), plan);
        }
        return;
    }
    if pod_finished(pod, observed) || failed_init(pod, observed).is_some() {
        finish(view, pod, plan);
        return;
    }
    let pod_key = ActionKey::Pod(record.uid.clone());
    if view.busy(&pod_key) {
        return;
    }
    if view.is_blocked(&pod_key, &record.workload, plan) {
        return;
    }
    if !pod.sandbox {
        plan.push(&record.workload, Action::RestorePod { pod: Arc::clone(pod) }, Reason::SandboxLost);
        return;
    }
    if let Some(deadline) = record.spec.active_deadline
        && record.boot_id == observed.boot_id
    {
        let due = record.created.plus(deadline);
        if view.now >= due {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            fail(view, pod, PodFailure { reason: PodFailureReason::DeadlineExceeded, message }, plan);
            return;
        }
        plan.wake_at(due);
    }
    if let Some(message) = observed.disk.get(&record.uid).and_then(|usage| super::over_disk_limit(&record.spec, usage))
    {
        fail(view, pod, PodFailure { reason: PodFailureReason::Evicted, message }, plan);
        return;
    }
    if let Some(label) = files
        && let Some(has) = observed.files.get(&record.uid)
        && has != label
        && !view.pod_busy(pod)
        && !view.is_blocked(&ActionKey::Files(record.uid.clone()), &record.workload, plan)
        && let reaction =
            view.goals.workloads.get(&record.workload).map_or(Reaction::Live, |goal| super::reaction(&goal.workload))
        && (reaction != Reaction::Restart || has == super::UNKNOWN_FILES)
    {
        let action = Action::UpdateFiles { pod: Arc::clone(pod), label: label.to_owned(), reaction };
        plan.push(&record.workload, action, Reason::FilesChanged);
    }
    if !keep_init(view, pod, plan) {
        return;
    }
    for container in &record.spec.containers {
        keep_container(view, pod, container, policy_of(&record.spec, container), plan);
    }
}

/// Steps of the init containers; whether the main containers may run.
fn keep_init(view: &View<'_>, pod: &Arc<PodFacts>, plan: &mut Plan) -> bool {
    let spec = &pod.record.spec;
    // Once a main container has run in this boot, init containers are over.
    let over = spec.containers.iter().any(|c| {
        pod.containers.get(&c.name).is_some_and(|facts| match facts.exit() {
            None => true,
            Some(exit) => exit.boot_id == view.observed.boot_id,
        })
    });
    for container in &spec.init_containers {
        if container.is_sidecar() {
            keep_container(view, pod, container, RestartPolicy::Always, plan);
            let up = container_started(pod, container, view.observed);
            if !over && !up {
                return false;
            }
        } else if !over && !init_done(pod, container, view.observed) {
            let policy = match policy_of(spec, container) {
                RestartPolicy::Never => RestartPolicy::Never,
                RestartPolicy::Always | RestartPolicy::OnFailure => RestartPolicy::OnFailure,
            };
            keep_container(view, pod, container, policy, plan);
            return false;
        }
    }
    true
}

/// Whether a sidecar has started and passed its startup probe.
fn container_started(pod: &PodFacts, container: &ContainerSpec, observed: &Observed) -> bool {
    let Some(facts) = pod.containers.get(&container.name) else { return false };
    facts.is_running()
        && (container.startup.is_none()
            || observed
                .health
                .get(&(pod.record.uid.clone(), container.name.clone()))
                .is_some_and(|health| health.attempt == facts.attempt && health.started))
}

fn keep_container(
    view: &View<'_>,
    pod: &Arc<PodFacts>,
    container: &ContainerSpec,
    policy: RestartPolicy,
    plan: &mut Plan,
) {
    let record = &pod.record;
    let key = ActionKey::Container(record.uid.clone(), container.name.clone());
    if view.busy(&key) {
        return;
    }
    if view.is_blocked(&key, &record.workload, plan) {
        return;
    }
    let start = |attempt, series| Action::StartContainer {
        pod: Arc::clone(pod),
        container: container.name.clone(),
        attempt,
        series,
    };
    let Some(facts) = pod.containers.get(&container.name) else {
        plan.push(&record.workload, start(0, 0), Reason::NotStarted);
        return;
    };
    let exit = match &facts.state {
        ContainerState::Running { .. } => {
            let health = view.observed.health.get(&(record.uid.clone(), container.name.clone()));
            if health.is_some_and(|health| health.attempt == facts.attempt && health.failed) {
                let service = record.workload.kind == WorkloadKind::Service;
                if service && !restart::may_restart(record.spec.restart_backoff.as_ref(), facts.series) {
                    // It would not be started again: one that runs is better than none.
                    plan.hold(&record.workload, Hold::GaveUp { container: container.name.clone() });
                    return;
                }
                let grace = [&container.liveness, &container.startup]
                    .into_iter()
                    .flatten()
                    .find_map(|probe| probe.termination_grace)
                    .unwrap_or_else(|| record.spec.termination_grace());
                let action = Action::StopContainer {
                    pod: Arc::clone(pod),
                    container: container.name.clone(),
                    grace,
                    unhealthy: service.then_some(facts.attempt),
                };
                plan.push(&record.workload, action, Reason::Unhealthy);
            }
            return;
        }
        ContainerState::Exited(exit) => exit,
    };
    // An init container that ended with 0 before a reboot runs again, like the rest of the pod.
    let rerun = exit.succeeded() && exit.boot_id != view.observed.boot_id && policy == RestartPolicy::OnFailure;
    let rerun = rerun && record.spec.init_containers.iter().any(|c| c.name == container.name);
    match after_end(&record.spec, policy, facts, exit, &view.observed.boot_id) {
        Restart::Stay if rerun => {
            plan.push(&record.workload, start(facts.attempt.saturating_add(1), 0), Reason::NotStarted);
        }
        Restart::Stay => {}
        Restart::GiveUp => plan.hold(&record.workload, Hold::GaveUp { container: container.name.clone() }),
        Restart::At { due, .. } if due > view.now && !view.observed.retry.contains(&record.uid) => {
            plan.hold(&record.workload, Hold::BackingOff { container: container.name.clone(), due });
            plan.wake_at(due);
        }
        Restart::At { series, .. } => {
            let reason = match (facts.unhealthy, exit.stopped) {
                (true, _) => Reason::Unhealthy,
                (false, true) => Reason::NotStarted,
                (false, false) => Reason::Exited { code: exit.code, oom: exit.oom },
            };
            plan.push(&record.workload, start(facts.attempt.saturating_add(1), series), reason);
        }
    }
}

/// A finished pod keeps its record and logs; sidecars that still run are stopped.
fn finish(view: &View<'_>, pod: &Arc<PodFacts>, plan: &mut Plan) {
    let record = &pod.record;
    for container in record.spec.init_containers.iter().filter(|c| c.is_sidecar()) {
        let key = ActionKey::Container(record.uid.clone(), container.name.clone());
        if pod.containers.get(&container.name).is_some_and(ContainerFacts::is_running) && !view.busy(&key) {
            let action = Action::StopContainer {
                pod: Arc::clone(pod),
                container: container.name.clone(),
                grace: record.spec.termination_grace(),
                unhealthy: None,
            };
            plan.push(&record.workload, action, Reason::Replaced);
        }
    }
}
