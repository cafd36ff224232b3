//! The rounds of one pass: what a plan says of versions and of draining is taken in, and planned with again.

use std::collections::BTreeMap;
use std::sync::Arc;

use spec::observed::{PodUid, PortKey, PortTarget};
use spec::plan::{Bad, Goals, Memory, Plan, on_failure};
use spec::time::Timestamp;
use spec::workload::{OnFailure, WorkloadId};

use super::Reconciler;
use super::notes::event;
use crate::events::{EventKind, Word};

impl Reconciler {
    /// Plans, and plans again where what is remembered of versions has changed: a version that failed makes other goals.
    pub(super) fn plan(&mut self) -> Plan {
        let mut plan = (self.planner)(&self.goals, &self.observed, self.clock.now());
        // Each further round is for a version that failed in the one before; there are not many of one workload.
        for _ in 0..8 {
            let drains = self.drain(&plan);
            if !self.remember(&plan) && !drains {
                break;
            }
            self.renew_goals();
            plan = (self.planner)(&self.goals, &self.observed, self.clock.now());
        }
        plan
    }

    /// Takes in which pods are drained; whether there is a new one.
    fn drain(&mut self, plan: &Plan) -> bool {
        let now = self.clock.now();
        let draining = &mut self.observed.draining;
        let before = draining.len();
        draining.retain(|uid, _| plan.draining.contains(uid));
        let kept = draining.len();
        for uid in &plan.draining {
            draining.entry(uid.clone()).or_insert(now);
        }
        let draining = &self.observed.draining;
        self.observed.idle.retain(|uid| draining.contains_key(uid));
        draining.len() > kept || before > kept
    }

    /// What is drained accepts for long enough after its last port has moved: from now on.
    pub(super) fn drain_anew(&mut self, ports: &BTreeMap<PortKey, PortTarget>) {
        let now = self.clock.now();
        for (key, before) in &self.observed.published {
            if ports.get(key).is_none_or(|target| target.pod != before.pod)
                && let Some(since) = self.observed.draining.get_mut(&before.pod)
            {
                *since = now;
                self.observed.idle.remove(&before.pod);
            }
        }
    }

    /// Takes in what was counted of a pod that is being drained since then.
    pub(super) fn idle(&mut self, uid: PodUid, since: Timestamp, idle: bool) {
        if self.observed.draining.get(&uid) != Some(&since) {
            return;
        }
        if idle {
            self.observed.idle.insert(uid);
        } else {
            self.observed.idle.remove(&uid);
        }
    }

    /// Takes in what a plan says of versions; whether one failed.
    fn remember(&mut self, plan: &Plan) -> bool {
        let mut failed = false;
        for (id, memory) in &plan.versions {
            let before = self.observed.versions.insert(id.clone(), Arc::clone(memory));
            self.versions.write(id, memory);
            let known = |label: &String| before.as_ref().is_some_and(|before| before.bad.contains_key(label));
            for bad in memory.bad.iter().filter(|(label, _)| !known(label)).map(|(_, bad)| bad) {
                failed = true;
                self.tell_of_failure(id, memory, bad);
            }
        }
        failed
    }

    fn tell_of_failure(&self, id: &WorkloadId, memory: &Memory, bad: &Bad) {
        let back = self.goals.workloads.get(id).is_some_and(|goal| on_failure(&goal.workload) == OnFailure::Rollback);
        let good = memory.good.as_ref().map(|good| spec::plan::revision(&good.workload)).filter(|_| back);
        let (reason, failed, next) = match good {
            Some(good) => {
                let [failed, good] = bad.names(&good);
                (Word::ROLLED_BACK, failed, format!("version {good} comes back"))
            }
            None => (Word::UPDATE_FAILED, bad.revision.clone(), "nothing more is done for it".to_owned()),
        };
        let message = format!("version {failed} failed: {}; {next}", bad.cause);
        tracing::warn!(workload = %id, reason = reason.as_str(), cause = bad.cause.word(), "{message}");
        self.metrics.version_failed(bad.cause.word(), back);
        self.journal.record(event(self.clock.unix(), EventKind::Warning, reason, Some(id), message));
    }

    /// Forgets that versions of a workload failed, and what its images stood for: a tag may stand for another one now.
    pub(super) fn give_another_chance(&mut self, id: &WorkloadId) {
        self.observed.prepared.retain(|(of, _), _| of != id);
        let Some(known) = self.observed.versions.get(id).filter(|memory| !memory.bad.is_empty()) else { return };
        let memory = Arc::new(Memory { bad: BTreeMap::new(), ..Memory::clone(known) });
        self.versions.write(id, &memory);
        self.observed.versions.insert(id.clone(), memory);
        self.renew_goals();
    }

    /// Goals by what is remembered of versions now; what holds them back stays.
    fn renew_goals(&mut self) {
        let before = std::mem::take(&mut self.goals);
        self.goals = Goals {
            held: before.held,
            unwished: before.unwished,
            paused: before.paused,
            drained: before.drained,
            ..Goals::with_versions(&self.desired, &self.observed.versions)
        };
        for (id, goal) in &mut self.goals.workloads {
            let same = before.workloads.get(id).filter(|before| before.revision == goal.revision);
            goal.images = same.and_then(|before| before.images.clone());
        }
    }
}
