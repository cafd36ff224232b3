//! What the loop writes down for people as it goes: probes that failed, what is newly waited for, what is remembered.

use std::collections::BTreeSet;
use std::time::Duration;

use runtime::api::RunningPull;
use spec::observed::JobMemory;
use spec::plan::{ActionKey, Hold, Plan, Reason, Step};
use spec::workload::WorkloadId;

use super::Reconciler;
use crate::events::{Event as JournalEvent, EventKind, Word};
use crate::executor::Outcome;
use crate::probe::HealthReport;
use crate::pulls::{amount, images};
use crate::traces::{Done, Traces};

impl Reconciler {
    /// Actions that end are told there from now on.
    #[must_use]
    pub fn with_traces(mut self, traces: Traces) -> Self {
        self.traces = Some(traces);
        self
    }

    pub(super) fn trace(&self, step: &Step, outcome: &Outcome, elapsed: Duration) {
        let Some(traces) = &self.traces else { return };
        let error = if let Outcome::Failed(error) = outcome { Some(error.report()) } else { None };
        let of = step.workload.as_ref();
        let revision = of.and_then(|id| Some(self.goals.workloads.get(id)?.revision.as_str()));
        traces.done(&Done {
            workload: of.map(|id| (id, revision.unwrap_or("gone"))),
            action: step.action.word(),
            reason: step.reason.word(),
            error: error.as_deref(),
            elapsed,
        });
    }

    /// The next publish compares with the kernel and repairs.
    pub(super) fn network_changed(&mut self) {
        self.observed.published.clear();
        self.observed.services.entrances.clear();
    }

    pub(super) fn remembered(&mut self, id: &WorkloadId, memory: Option<JobMemory>, reason: &Reason) {
        if let Reason::RunEnded { succeeded, .. } = reason {
            self.metrics.run_ended(id, *succeeded);
        }
        match memory {
            Some(memory) => self.observed.memories.insert(id.clone(), memory),
            None => self.observed.memories.remove(id),
        };
    }

    pub(super) fn health(&mut self, report: HealthReport) {
        let key = (report.pod.clone(), report.container.clone());
        let before = self.observed.health.insert(key, report.health);
        if let Some(message) = report.message
            && before.is_none_or(|before| {
                before.ready != report.health.ready || before.refused != report.health.refused || report.health.failed
            })
            && let Some(pod) = self.observed.pods.get(&report.pod)
        {
            let word = if report.health.failed { Word::UNHEALTHY } else { Word::NOT_READY };
            let message = format!("container `{}` of pod `{}`: {message}", report.container, pod.record.name);
            tracing::warn!(workload = %pod.record.workload, container = report.container, reason = word.as_str(), "probe failed");
            let id = pod.record.workload.clone();
            let mut event = event(self.clock.unix(), EventKind::Warning, word, Some(&id), message);
            (event.pod, event.container) = (self.pod_name(&report.pod), Some(report.container.clone()));
            event.cause = self.causes.get(&id).copied();
            let number = self.journal.record(event);
            if report.health.failed {
                self.causes.insert(id, number);
            }
        }
    }

    /// Writes down what is about to be fetched, for each workload that waits for it.
    pub(super) fn pull_began(&mut self, pull: &RunningPull) {
        let waits = |id: &WorkloadId| {
            let goal = self.goals.workloads.get(id);
            goal.is_some_and(|goal| images(&goal.workload.template.spec).contains(&pull.reference))
        };
        let waiting: BTreeSet<WorkloadId> = self
            .observed
            .in_flight
            .iter()
            .filter_map(|key| if let ActionKey::Prepare(id, _) = key { Some(id) } else { None })
            .filter(|id| waits(id))
            .cloned()
            .collect();
        let message = crate::pulls::beginning(pull);
        for id in waiting {
            self.journal.record(event(
                self.clock.unix(),
                EventKind::Normal,
                Word::FETCHING_IMAGES,
                Some(&id),
                message.clone(),
            ));
        }
    }

    /// Writes down how much was fetched for a workload, and how fast.
    pub(super) fn pulled(&mut self, key: &ActionKey, bytes: u64, elapsed: Duration) {
        let ActionKey::Prepare(id, _) = key else { return };
        if bytes == 0 {
            return;
        }
        let message = fetched(bytes, elapsed);
        self.journal.record(event(self.clock.unix(), EventKind::Normal, Word::IMAGES_FETCHED, Some(id), message));
    }

    /// Writes down what is newly waited for.
    pub(super) fn note_holds(&mut self, plan: &Plan) {
        for (workload, hold) in plan.holds.iter().filter(|hold| !self.last_holds.contains(hold)) {
            let told = match hold {
                Hold::BackingOff { .. } => Word::BACKING_OFF,
                Hold::GaveUp { .. } => Word::GAVE_UP,
                Hold::UpdateFailed { .. } => Word::UPDATE_FAILED,
                Hold::JobFailed { .. } => Word::JOB_FAILED,
                Hold::Paused { .. } => Word::PAUSED,
                Hold::ClockNotSet => Word::CLOCK_NOT_SET,
                Hold::ClockBehind { .. } => Word::CLOCK_BEHIND,
                Hold::Pulling
                | Hold::Failed { .. }
                | Hold::Dependency { .. }
                | Hold::Successor { .. }
                | Hold::NotReady
                | Hold::PreviousRun { .. } => {
                    tracing::debug!(%workload, reason = hold.word(), "{hold}");
                    continue;
                }
            };
            tracing::warn!(%workload, reason = told.as_str(), "{hold}");
            let message = hold.to_string();
            self.journal.record(event(self.clock.unix(), EventKind::Warning, told, Some(workload), message));
        }
        self.last_holds.clone_from(&plan.holds);
    }
}

pub(super) fn event(
    unix: i64,
    kind: EventKind,
    reason: Word,
    workload: Option<&WorkloadId>,
    message: String,
) -> JournalEvent {
    JournalEvent {
        unix_millis: unix.saturating_mul(1000),
        kind,
        reason: reason.as_str().to_owned(),
        workload: workload.map(ToString::to_string),
        pod: None,
        container: None,
        cause: None,
        message,
    }
}

/// Bytes, time and speed for people.
fn fetched(bytes: u64, elapsed: Duration) -> String {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let speed = bytes.saturating_mul(1000) / millis;
    let seconds = format!("{}.{} s", millis / 1000, millis % 1000 / 100);
    format!("{} fetched in {seconds} ({} a second)", amount(bytes), amount(speed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_is_told_with_its_speed() {
        for (bytes, millis, expected) in [
            (419_430_400, 4_210, "400.0 MiB fetched in 4.2 s (95.0 MiB a second)"),
            (2048, 0, "2 KiB fetched in 0.0 s (1.9 MiB a second)"),
            (1 << 20, 2_000, "1.0 MiB fetched in 2.0 s (512 KiB a second)"),
        ] {
            assert_eq!(fetched(bytes, Duration::from_millis(millis)), expected);
        }
    }
}
