//! Job: pods that run to their end (batch/v1 Job).
//!
//! Pods that ended stay, with their records: what has finished never runs twice. A Job whose template changed is
//! another Job: the pods of the old one go, and it runs anew.

use std::sync::Arc;

use super::order::{dependencies_up, tend};
use super::pod::{self, PodPhase};
use super::replicated::prepare;
use super::{Goal, Hold, Plan, Reason, View, instance};
use crate::diff;
use crate::observed::{ContainerFacts, PodFacts};
use crate::restart::doubled;
use crate::time::{Millis, Timestamp};
use crate::workload::{FailureAction, FailureRule, JobSpec};

/// Longest wait between failures of a Job's pods.
const MAX_WAIT: Millis = Millis::from_secs(360);

/// What has become of a Job so far.
struct Tally {
    active: usize,
    succeeded: usize,
    failed: u32,
    fail_now: bool,
    last_failure: Option<Timestamp>,
    next_ordinal: u32,
}

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
    let tally = tally(view, pods, job);
    let wanted = job.completions.map_or(1, |n| n as usize);
    let complete = tally.succeeded >= wanted || (job.completions.is_none() && tally.succeeded > 0 && tally.active == 0);
    let started =
        pods.iter().filter(|pod| pod.record.boot_id == view.observed.boot_id).map(|pod| pod.record.created).min();
    let expired = match (job.active_deadline, started) {
        (Some(deadline), Some(started)) if !complete => {
            plan.wake_at(started.plus(deadline));
            view.now >= started.plus(deadline)
        }
        _ => false,
    };
    let failed = tally.fail_now || tally.failed > job.backoff_limit || expired;
    if failed && !complete {
        plan.hold(id, Hold::JobFailed { failures: tally.failed });
    }
    let over = complete || failed || job.suspend;
    for pod in pods {
        let running = matches!(pod::pod_phase(pod, view.observed), PodPhase::Pending | PodPhase::Running);
        if over && running && !complete {
            let reason = if expired { Reason::DeadlineExceeded } else { Reason::ScaledDown };
            pod::stop(view, pod, reason, plan);
        } else {
            tend(view, goal, pod, Some(goal.files.as_str()), plan);
        }
    }
    if over || !(prepare(view, goal, plan) && dependencies_up(view, goal, plan)) {
        return;
    }
    if let Some(last) = tally.last_failure {
        let due = last.plus(doubled(Millis::from_secs(10), tally.failed.saturating_sub(1), MAX_WAIT));
        if due > view.now {
            plan.wake_at(due);
            return;
        }
    }
    let making = view
        .observed
        .in_flight
        .iter()
        .filter(|key| matches!(key, super::ActionKey::Create(of, ..) if of == id))
        .count();
    let left = match job.completions {
        Some(completions) => (completions as usize).saturating_sub(tally.succeeded + tally.active + making),
        None if tally.succeeded > 0 => 0,
        None => usize::MAX,
    };
    let room = (job.parallelism as usize).saturating_sub(tally.active + making).min(left);
    for ordinal in ordinals(view, pods, job, tally.next_ordinal).take(room) {
        super::create(view, goal, ordinal, plan);
    }
}

fn tally(view: &View<'_>, pods: &[&Arc<PodFacts>], job: &JobSpec) -> Tally {
    let mut tally = Tally { active: 0, succeeded: 0, failed: 0, fail_now: false, last_failure: None, next_ordinal: 0 };
    for pod in pods {
        tally.next_ordinal = tally.next_ordinal.max(pod.record.ordinal.saturating_add(1));
        match pod::pod_phase(pod, view.observed) {
            PodPhase::Succeeded => tally.succeeded += 1,
            PodPhase::Failed => match verdict(pod, &job.failure_policy) {
                FailureAction::Ignore => {}
                FailureAction::FailJob => tally.fail_now = true,
                FailureAction::Count => {
                    tally.failed = tally.failed.saturating_add(1);
                    let ends = pod.containers.values().filter_map(ContainerFacts::exit);
                    let here = ends.filter(|exit| exit.boot_id == view.observed.boot_id).map(|exit| exit.finished);
                    tally.last_failure = tally.last_failure.max(here.max());
                }
            },
            PodPhase::Pending | PodPhase::Running => {
                tally.active += 1;
                // Restarts in place count as failures too (Job backoffLimit with restartPolicy OnFailure).
                let restarts = pod.containers.values().map(|facts| facts.attempt).max().unwrap_or(0);
                tally.failed = tally.failed.saturating_add(restarts);
            }
        }
    }
    tally
}

/// What the failure policy says of a failed pod: the first rule that matches.
fn verdict(pod: &PodFacts, rules: &[FailureRule]) -> FailureAction {
    rules
        .iter()
        .find(|rule| {
            pod.containers.iter().any(|(name, facts)| {
                rule.container.as_ref().is_none_or(|wanted| wanted == name)
                    && facts
                        .exit()
                        .is_some_and(|exit| exit.code != 0 && rule.exit_codes.contains(&exit.code) != rule.not_in)
            })
        })
        .map_or(FailureAction::Count, |rule| rule.action)
}

/// Ordinals for new pods. In an indexed Job the remainder by `completions` is the index: indexes that have neither
/// succeeded nor run come first.
fn ordinals<'a>(
    view: &'a View<'_>,
    pods: &'a [&Arc<PodFacts>],
    job: &'a JobSpec,
    next: u32,
) -> Box<dyn Iterator<Item = u32> + 'a> {
    let Some(completions) = job.completions.filter(|_| job.indexed) else { return Box::new(next..) };
    let done = move |index: u32| {
        pods.iter().any(|pod| {
            pod.record.ordinal % completions == index && pod::pod_phase(pod, view.observed) != PodPhase::Failed
        })
    };
    let tries = move |index: u32| {
        let of = pods.iter().filter(|pod| pod.record.ordinal % completions == index);
        u32::try_from(of.count()).unwrap_or(u32::MAX)
    };
    Box::new(
        (0..completions)
            .filter(move |index| !done(*index))
            .map(move |index| tries(index).saturating_mul(completions).saturating_add(index)),
    )
}
