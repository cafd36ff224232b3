//! Job: pods that run to their end (batch/v1 Job). Runs of a CronJob are the same with another memory.
//!
//! Pods that ended stay with their records until the Job's end is written down: what has finished never runs twice,
//! also when its pods are removed. A Job whose template changed is another Job: the pods of the old one go, and it
//! runs anew.

mod tally;

use std::sync::Arc;

use super::order::{dependencies_up, tend};
use super::pod;
use super::replicated::prepare;
use super::{Goal, Hold, Plan, Reason, View, instance};
use crate::diff;
use crate::observed::{Finished, JobMemory, PodFacts};
use crate::time::Millis;
use crate::workload::JobSpec;

pub(super) use tally::{State, Tally, tally};

pub(super) fn plan(view: &View<'_>, goal: &Goal, job: &JobSpec, plan: &mut Plan) {
    let id = &goal.workload.id;
    let pods = view.pods_of(id);
    let is_current = |pod: &PodFacts| *pod.record.spec == *instance::spec(goal, pod.record.ordinal);
    for pod in pods.iter().filter(|pod| !is_current(pod)) {
        let changes = diff::changes(&*pod.record.spec, &*instance::spec(goal, pod.record.ordinal));
        pod::stop(view, pod, Reason::SpecChanged { changes }, plan);
    }
    if pods.iter().any(|pod| !is_current(pod)) {
        return;
    }
    let template = &goal.workload.template.spec;
    let finished = view.observed.memories.get(id).and_then(|memory| memory.finished.as_ref());
    if let Some(finished) = finished.filter(|finished| finished.spec == *template) {
        if let Some(failure) = &finished.failure {
            plan.hold(id, Hold::JobFailed { failure: failure.clone() });
        }
        let age = view.age(finished.at, &finished.boot_id, finished.unix);
        settle(view, goal, job, pods, age, finished.failure.as_ref(), plan);
        return;
    }
    let tally = tally(view, pods, job);
    let failure = match tally.state(view, job, plan) {
        State::Active => {
            proceed(view, goal, job, None, pods, &tally, plan);
            return;
        }
        State::Succeeded => None,
        State::Failed(failure) => Some(failure),
    };
    let finished = Finished {
        spec: Arc::clone(template),
        failure: failure.clone(),
        unix: view.observed.unix,
        at: view.now,
        boot_id: view.observed.boot_id.clone(),
    };
    let memory = JobMemory { finished: Some(finished), ..JobMemory::default() };
    super::remember(view, id, Some(memory), Reason::JobEnded { failure }, plan);
}

/// What is left to do for a Job, or a run, that ended so long ago: what still runs is stopped, and all is removed when
/// its time is over.
pub(super) fn settle(
    view: &View<'_>,
    goal: &Goal,
    job: &JobSpec,
    pods: &[&Arc<PodFacts>],
    age: Millis,
    failure: Option<&String>,
    plan: &mut Plan,
) {
    let expired = job.ttl_after_finished.is_some_and(|ttl| age >= ttl);
    if let Some(ttl) = job.ttl_after_finished.filter(|_| !expired && !pods.is_empty()) {
        plan.wake_at(view.now.plus(Millis(ttl.0.saturating_sub(age.0))));
    }
    for pod in pods {
        if expired {
            pod::stop(view, pod, Reason::TimeToLive, plan);
        } else if is_active(view, pod) {
            pod::stop(view, pod, Reason::JobEnded { failure: failure.cloned() }, plan);
        } else {
            tend(view, goal, pod, Some(goal.files.as_str()), plan);
        }
    }
}

/// Whether a pod still has something to do.
pub(super) fn is_active(view: &View<'_>, pod: &PodFacts) -> bool {
    !pod::pod_phase(pod, view.observed).is_over()
}

/// The next steps of a Job, or a run, that has not ended.
pub(super) fn proceed(
    view: &View<'_>,
    goal: &Goal,
    job: &JobSpec,
    run: Option<i64>,
    pods: &[&Arc<PodFacts>],
    tally: &Tally,
    plan: &mut Plan,
) {
    let id = &goal.workload.id;
    for pod in pods {
        if job.suspend && is_active(view, pod) {
            pod::stop(view, pod, Reason::ScaledDown, plan);
        } else {
            pod::keep(view, pod, Some(goal.files.as_str()), plan);
        }
    }
    if job.suspend {
        return;
    }
    let making = view
        .observed
        .in_flight
        .iter()
        .filter(|key| matches!(key, super::ActionKey::Create(of, ..) if of == id))
        .count();
    let room = tally.room(job, making);
    if room == 0 {
        return;
    }
    let ordinals = tally.ordinals(view, job, room, plan);
    if ordinals.is_empty() || !(prepare(view, goal, plan) && dependencies_up(view, goal, plan)) {
        return;
    }
    for ordinal in ordinals {
        super::create_for(view, goal, ordinal, run, plan);
    }
}
