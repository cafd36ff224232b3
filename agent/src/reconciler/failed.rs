//! Failures of actions: what is written down of one, and how they are forgotten.

use std::collections::BTreeSet;

use spec::observed::PodUid;
use spec::plan::{Action, ActionKey, Failure, Step};
use spec::workload::WorkloadId;

use super::Reconciler;

impl Reconciler {
    /// Notes that an action has failed for the `count`th time in a row. What it failed under may be out of date: then it
    /// says nothing of what is wished now, and there is nothing to wait for.
    pub(super) fn note_failure(&mut self, step: &Step, key: ActionKey, count: u32, message: &str, permanent: bool) {
        if let Action::Prepare { goal } | Action::CreatePod { goal, .. } = &step.action {
            let wished = self.goals.workloads.get(&goal.workload.id);
            if wished.is_none_or(|wished| wished.version != goal.version) {
                return;
            }
        }
        let inputs = self.goals.inputs(&key, &self.observed.pods).unwrap_or_default();
        let failure = Failure { count, at: self.clock.now(), message: message.to_owned(), permanent, inputs };
        self.observed.failures.insert(key, failure);
    }

    /// Forgets failures and waits of a workload (`Kind/namespace/name`); whether there is such a one. One that is wished no
    /// longer counts, too: its end may be what fails.
    pub(super) fn retry(&mut self, workload: &str) -> bool {
        let running = self.observed.pods.values().map(|pod| &pod.record.workload);
        let mut known = self.goals.workloads.keys().chain(running);
        let Some(id) = known.find(|id| id.to_string() == workload).cloned() else { return false };
        let pods = self.pods_of(&id);
        self.observed.failures.retain(|key, _| match key {
            ActionKey::Prepare(of, _) | ActionKey::Create(of, ..) | ActionKey::Memory(of) => *of != id,
            ActionKey::Pod(uid) | ActionKey::Container(uid, _) | ActionKey::Files(uid) => !pods.contains(uid),
            // They are everybody's: its ports and names are among them.
            ActionKey::Publish | ActionKey::Services | ActionKey::Names => false,
        });
        self.observed.retry.extend(pods);
        self.give_another_chance(&id);
        true
    }

    fn pods_of(&self, id: &WorkloadId) -> BTreeSet<PodUid> {
        let pods = self.observed.pods.values().filter(|pod| pod.record.workload == *id);
        pods.map(|pod| pod.record.uid.clone()).collect()
    }
}
