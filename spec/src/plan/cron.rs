//! CronJob: Jobs by the clock (batch/v1 CronJob).
//!
//! A run is the pods that carry its moment of the schedule. Which moments are settled is on disk before the pods of
//! their runs may go, and a moment that is settled is never looked at again: no restart, reboot or step of the clock
//! runs it twice. After a time without the agent, in sleep, or while `Forbid` held it back, at most the latest moment
//! that was missed is made up for, when `startingDeadlineSeconds` lets it; earlier ones are not.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::job::{self, State};
use super::{Goal, Hold, Plan, Reason, View, pod};
use crate::cron::{Schedule, Zone};
use crate::observed::{ContainerFacts, JobMemory, PodFacts, RunEnd};
use crate::time::Millis;
use crate::workload::{Concurrency, CronSpec, WorkloadId};

/// 2024-01-01: a host whose clock shows an earlier time has not set it yet (boards without a battery start in 1970).
pub(super) const CLOCK_SET: i64 = 1_704_067_200;

/// A step back of the clock that is not worth a word: seconds.
const SMALL_STEP: i64 = 120;

/// A run: its pods, and where it is.
struct Run<'a> {
    at: i64,
    pods: Vec<&'a Arc<PodFacts>>,
    tally: job::Tally,
    state: State,
}

impl Run<'_> {
    /// How long ago its last container ended.
    fn age(&self, view: &View<'_>) -> Millis {
        let exits = self.pods.iter().flat_map(|pod| pod.containers.values()).filter_map(ContainerFacts::exit);
        exits.map(|exit| view.age(exit.finished, &exit.boot_id, exit.finished_unix)).min().unwrap_or(Millis(0))
    }
}

pub(super) fn plan(view: &View<'_>, goal: &Goal, cron: &CronSpec, plan: &mut Plan) {
    let id = &goal.workload.id;
    let runs = runs(view, id, cron, plan);
    let memory = view.observed.memories.get(id);
    let settled = memory.and_then(|memory| memory.settled);
    let newest = runs.last().map(|run| run.at);
    note(view, id, &runs, memory, plan);
    let due = follow(view, goal, cron, settled.max(newest), plan);
    let missed = due.is_some_and(|due| miss(view, id, cron, due, plan));
    let replace = due.is_some() && !missed && cron.concurrency == Concurrency::Replace;
    keep(view, goal, cron, &runs, settled, replace, plan);
    let Some(due) = due.filter(|_| !missed) else { return };
    let active = runs.iter().any(|run| run.state == State::Active);
    match cron.concurrency {
        Concurrency::Forbid if active => plan.hold(id, Hold::PreviousRun { at: due }),
        // They end first.
        Concurrency::Replace if active => {}
        Concurrency::Allow | Concurrency::Forbid | Concurrency::Replace => {
            let tally = job::tally(view, &[], &cron.job);
            job::proceed(view, goal, &cron.job, Some(due), &[], &tally, plan);
        }
    }
}

/// The moment that a run is due for now, if there is one.
fn follow(view: &View<'_>, goal: &Goal, cron: &CronSpec, settled: Option<i64>, plan: &mut Plan) -> Option<i64> {
    let id = &goal.workload.id;
    let now = view.observed.unix;
    if now < CLOCK_SET {
        plan.hold(id, Hold::ClockNotSet);
        return None;
    }
    let Some(settled) = settled else {
        let memory = JobMemory { settled: Some(now), ..JobMemory::default() };
        super::remember(view, id, Some(memory), Reason::NewSchedule, plan);
        return None;
    };
    if settled > now.saturating_add(SMALL_STEP) {
        plan.hold(id, Hold::ClockBehind { settled });
    }
    let schedule = Schedule::parse(&cron.schedule).ok().filter(|_| !cron.suspend)?;
    let zone = zone(cron, &view.observed.zone);
    if let Some(next) = schedule.next(&zone, settled, now.max(settled)) {
        wake_at(view, next, plan);
    }
    schedule.latest(&zone, settled, now)
}

/// Whether it is too late for the run that is due (`startingDeadlineSeconds`); that is written down then.
fn miss(view: &View<'_>, id: &WorkloadId, cron: &CronSpec, due: i64, plan: &mut Plan) -> bool {
    let Some(deadline) = cron.starting_deadline else { return false };
    let latest = due.saturating_add(i64::try_from(deadline.0 / 1000).unwrap_or(i64::MAX));
    if view.observed.unix <= latest {
        wake_at(view, latest.saturating_add(1), plan);
        return false;
    }
    let known = view.observed.memories.get(id).cloned().unwrap_or_default();
    super::remember(view, id, Some(JobMemory { settled: Some(due), ..known }), Reason::RunMissed { at: due }, plan);
    true
}

/// The zone that a schedule is meant in: its own, or the host's.
fn zone(cron: &CronSpec, host: &str) -> Zone {
    Zone::named(cron.time_zone.as_deref().unwrap_or(host)).unwrap_or(Zone::utc())
}

/// When the next run is due, in seconds of Unix time; `None` while suspended or not known yet. For people.
#[must_use]
pub fn next_run(cron: &CronSpec, memory: Option<&JobMemory>, host_zone: &str, now: i64) -> Option<i64> {
    if cron.suspend || now < CLOCK_SET {
        return None;
    }
    let settled = memory?.settled?;
    Schedule::parse(&cron.schedule).ok()?.next(&zone(cron, host_zone), settled, now.max(settled))
}

fn wake_at(view: &View<'_>, unix: i64, plan: &mut Plan) {
    let wait = u64::try_from(unix.saturating_sub(view.observed.unix)).unwrap_or(0);
    plan.wake_at(view.now.plus(Millis::from_secs(wait)));
}

/// The runs there are pods of, oldest first.
fn runs<'a>(view: &View<'a>, id: &WorkloadId, cron: &CronSpec, plan: &mut Plan) -> Vec<Run<'a>> {
    let mut by_moment: BTreeMap<i64, Vec<&Arc<PodFacts>>> = BTreeMap::new();
    for pod in view.pods_of(id) {
        by_moment.entry(pod.record.run.unwrap_or(0)).or_default().push(pod);
    }
    let assess = |(at, pods): (i64, Vec<&'a Arc<PodFacts>>)| {
        let tally = job::tally(view, &pods, &cron.job);
        let state = tally.state(view, &cron.job, plan);
        Run { at, pods, tally, state }
    };
    by_moment.into_iter().map(assess).collect()
}

/// Writes down what runs tell: the newest that was started, and how the newest that ended did.
fn note(view: &View<'_>, id: &WorkloadId, runs: &[Run<'_>], memory: Option<&JobMemory>, plan: &mut Plan) {
    let Some(newest) = runs.last().map(|run| run.at) else { return };
    let known = memory.cloned().unwrap_or_default();
    if known.settled.is_none_or(|settled| settled < newest) {
        let memory = JobMemory { settled: Some(newest), last_run: Some(newest), ..known };
        super::remember(view, id, Some(memory), Reason::RunStarted { at: newest }, plan);
        return;
    }
    let ended = runs.iter().rev().find(|run| run.state != State::Active);
    if let Some(run) = ended.filter(|run| known.last_end.as_ref().is_none_or(|end| end.at < run.at)) {
        let end = RunEnd { at: run.at, succeeded: run.state == State::Succeeded };
        let last_success = if end.succeeded { Some(run.at) } else { known.last_success };
        let reason = Reason::RunEnded { at: end.at, succeeded: end.succeeded };
        let memory = JobMemory { last_end: Some(end), last_success, ..known };
        super::remember(view, id, Some(memory), reason, plan);
    }
}

/// Next steps of the runs there are: those that go on, those that ended and stay for a while, those above the limits.
fn keep(
    view: &View<'_>,
    goal: &Goal,
    cron: &CronSpec,
    runs: &[Run<'_>],
    settled: Option<i64>,
    replace: bool,
    plan: &mut Plan,
) {
    let (mut succeeded, mut failed) = (0u32, 0u32);
    for run in runs.iter().rev() {
        let (count, limit, failure) = match &run.state {
            State::Active if replace => {
                for pod in &run.pods {
                    pod::stop(view, pod, Reason::RunReplaced, plan);
                }
                continue;
            }
            State::Active => {
                job::proceed(view, goal, &cron.job, Some(run.at), &run.pods, &run.tally, plan);
                continue;
            }
            State::Succeeded => (&mut succeeded, cron.successful_history, None),
            State::Failed(failure) => (&mut failed, cron.failed_history, Some(failure)),
        };
        *count = count.saturating_add(1);
        // The pods are the proof that it ran until that is written down.
        if settled.is_none_or(|settled| settled < run.at) {
            continue;
        }
        if *count > limit {
            for pod in &run.pods {
                pod::stop(view, pod, Reason::HistoryLimit, plan);
            }
        } else {
            job::settle(view, goal, &cron.job, &run.pods, run.age(view), failure, plan);
        }
    }
}
