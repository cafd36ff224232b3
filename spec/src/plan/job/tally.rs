//! What has become of a Job so far, and what follows for it as a whole (batch/v1 JobSpec: completions, backoffLimit,
//! backoffLimitPerIndex, maxFailedIndexes, activeDeadlineSeconds, podFailurePolicy).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::observed::{ContainerFacts, PodFacts};
use crate::plan::pod::{self, PodPhase};
use crate::plan::{Plan, View, instance};
use crate::restart::doubled;
use crate::time::{Millis, Timestamp};
use crate::workload::{FailureAction, FailureRule, JobSpec};

/// Longest wait between failures of a Job's pods.
const MAX_WAIT: Millis = Millis::from_secs(360);

/// Where a Job is as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::plan) enum State {
    /// It goes on.
    Active,
    /// It did what it should.
    Succeeded,
    /// It is given up, and why.
    Failed(String),
}

/// What has become of a Job so far.
#[derive(Default)]
pub(in crate::plan) struct Tally {
    active: usize,
    succeeded: usize,
    failed: u32,
    failed_by_policy: bool,
    last_failure: Option<Timestamp>,
    next_ordinal: u32,
    indexes: BTreeMap<u32, Index>,
    /// How long ago its first pod was made.
    age: Option<Millis>,
}

/// What has become of an index.
#[derive(Default)]
struct Index {
    tries: u32,
    active: bool,
    succeeded: bool,
    failed: u32,
    given_up: bool,
    last_failure: Option<Timestamp>,
}

pub(in crate::plan) fn tally(view: &View<'_>, pods: &[&Arc<PodFacts>], job: &JobSpec) -> Tally {
    let mut tally = Tally::default();
    for pod in pods {
        let record = &pod.record;
        tally.next_ordinal = tally.next_ordinal.max(record.ordinal.saturating_add(1));
        tally.age = tally.age.max(Some(view.age(record.created, &record.boot_id, record.created_unix)));
        let index = tally.indexes.entry(instance::index(job, record.ordinal)).or_default();
        index.tries = index.tries.saturating_add(1);
        match pod::pod_phase(pod, view.observed) {
            PodPhase::Succeeded => {
                // An index counts once.
                tally.succeeded += usize::from(!(job.indexed && index.succeeded));
                index.succeeded = true;
            }
            PodPhase::Failed => {
                let verdict = verdict(pod, &job.failure_policy);
                tally.failed_by_policy |= verdict == FailureAction::FailJob;
                index.given_up |= verdict == FailureAction::FailIndex;
                if matches!(verdict, FailureAction::Count | FailureAction::FailIndex) {
                    tally.failed = tally.failed.saturating_add(1);
                    index.failed = index.failed.saturating_add(1);
                    let ends = pod.containers.values().filter_map(ContainerFacts::exit);
                    let here =
                        ends.filter(|exit| exit.boot_id == view.observed.boot_id).map(|exit| exit.finished).max();
                    tally.last_failure = tally.last_failure.max(here);
                    index.last_failure = index.last_failure.max(here);
                }
            }
            PodPhase::Pending | PodPhase::Running => {
                tally.active += 1;
                index.active = true;
                // Restarts in place count as failures too (Job backoffLimit with restartPolicy OnFailure).
                let restarts = pod.containers.values().map(|facts| facts.attempt).max().unwrap_or(0);
                tally.failed = tally.failed.saturating_add(restarts);
            }
        }
        index.given_up |= job.backoff_limit_per_index.is_some_and(|limit| index.failed > limit);
    }
    tally
}

impl Tally {
    /// Where the Job is, and when that changes by itself.
    pub(in crate::plan) fn state(&self, view: &View<'_>, job: &JobSpec, plan: &mut Plan) -> State {
        let complete = match job.completions {
            Some(completions) => self.succeeded >= completions as usize,
            // A work queue is empty when one pod says so and no other works on.
            None => self.succeeded > 0 && self.active == 0,
        };
        if complete {
            return State::Succeeded;
        }
        if self.failed_by_policy {
            return State::Failed("a rule of `podFailurePolicy` ended it".to_owned());
        }
        if let (Some(deadline), Some(age), false) = (job.active_deadline, self.age, job.suspend) {
            if age >= deadline {
                return State::Failed(format!("it ran for longer than `activeDeadlineSeconds` ({deadline})"));
            }
            plan.wake_at(view.now.plus(Millis(deadline.0 - age.0)));
        }
        let given_up: Vec<String> = self
            .indexes
            .iter()
            .filter(|(_, i)| i.given_up && !i.succeeded)
            .map(|(index, _)| index.to_string())
            .collect();
        if job.backoff_limit_per_index.is_some() {
            let over = self.succeeded + given_up.len() >= job.completions.unwrap_or(1) as usize;
            if job.max_failed_indexes.is_some_and(|most| given_up.len() > most as usize) || over {
                return State::Failed(format!("given up on index {}", given_up.join(", ")));
            }
        }
        if self.failed > job.backoff_limit {
            let limit = job.backoff_limit;
            return State::Failed(format!("failures of its pods: {}, `backoffLimit` is {limit}", self.failed));
        }
        State::Active
    }

    /// How many more pods there may be now.
    pub(in crate::plan) fn room(&self, job: &JobSpec, making: usize) -> usize {
        let busy = self.active + making;
        let left = match job.completions {
            Some(completions) => (completions as usize).saturating_sub(self.succeeded + busy),
            None if self.succeeded > 0 => 0,
            None => usize::MAX,
        };
        (job.parallelism as usize).saturating_sub(busy).min(left)
    }

    /// Ordinals for at most `count` new pods, those that have to wait after a failure left out. In an indexed Job the
    /// remainder by `completions` is the index.
    pub(in crate::plan) fn ordinals(&self, view: &View<'_>, job: &JobSpec, count: usize, plan: &mut Plan) -> Vec<u32> {
        let mut waits = |failed: u32, last: Option<Timestamp>| {
            let due = last.map(|last| last.plus(doubled(Millis::from_secs(10), failed.saturating_sub(1), MAX_WAIT)));
            if let Some(due) = due.filter(|due| *due > view.now) {
                plan.wake_at(due);
                return true;
            }
            false
        };
        let by_index = job.backoff_limit_per_index.is_some();
        if !by_index && waits(self.failed, self.last_failure) {
            return Vec::new();
        }
        let Some(completions) = job.completions.filter(|_| job.indexed) else {
            return (self.next_ordinal..).take(count).collect();
        };
        let none = Index::default();
        (0..completions)
            .map(|index| (index, self.indexes.get(&index).unwrap_or(&none)))
            .filter(|(_, is)| !is.active && !is.succeeded && !is.given_up)
            .filter(|(_, is)| !(by_index && waits(is.failed, is.last_failure)))
            .map(|(index, is)| is.tries.saturating_mul(completions).saturating_add(index))
            .take(count)
            .collect()
    }
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
