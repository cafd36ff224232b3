//! Actions that failed: how long is waited before the next try, under which inputs a failure counts, and what of it an
//! agent that takes over is to know.
//!
//! A failure counts as long as the inputs that it happened under: other inputs are worth a try at once. It is kept for
//! the present boot only. Times are on the boot's clock, so a step of the wall clock neither shortens a wait nor makes it
//! longer; after a boot everything is tried once, as containers are.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ActionKey, Goal, Goals};
use crate::observed::{PodFacts, PodUid};
use crate::restart;
use crate::time::{Millis, Timestamp};

/// So many failures are kept for another agent; each belongs to a workload or a pod.
const MOST: usize = 1000;
/// So much of what each said is kept, in characters.
const LONGEST_MESSAGE: usize = 1000;

/// A failure that is not mended yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// How many times in a row.
    pub count: u32,
    /// When the last one was.
    pub at: Timestamp,
    /// What it said.
    pub message: String,
    /// Trying again without a change of inputs is pointless for a long while.
    pub permanent: bool,
    /// Label of the inputs that it failed under: [`Goals::inputs`]. It depends on secrets.
    pub inputs: String,
}

impl Failure {
    /// Wait after it: 1 s doubling to 5 minutes; where trying again is pointless it starts at 10 s, Kubernetes' first wait
    /// for a pull.
    #[must_use]
    pub fn wait(&self) -> Millis {
        let initial = if self.permanent { restart::INITIAL } else { Millis::from_secs(1) };
        restart::doubled(initial, self.count.saturating_sub(1), restart::MAX)
    }
}

/// Failures as they are kept for another agent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Kept {
    /// The boot whose clock the times are on.
    pub boot_id: String,
    /// What failed.
    pub failures: Vec<(ActionKey, Failure)>,
}

impl Kept {
    /// What is to be kept. What an agent does for the node as a whole is done by each agent first of all, whatever came
    /// of it before: ports are held by the process itself.
    #[must_use]
    pub fn of(failures: &BTreeMap<ActionKey, Failure>, boot_id: &str) -> Self {
        let kept = failures.iter().filter(|(key, _)| !key.is_of_node()).take(MOST).map(|(key, failure)| {
            let message = failure.message.chars().take(LONGEST_MESSAGE).collect();
            (key.clone(), Failure { message, ..failure.clone() })
        });
        Self { boot_id: boot_id.to_owned(), failures: kept.collect() }
    }

    /// The failures that count for an agent that begins now: those of this boot. None of them is later than now, so no
    /// wait is longer than it would be after a failure at this moment.
    #[must_use]
    pub fn taken_over(self, boot_id: &str, now: Timestamp) -> BTreeMap<ActionKey, Failure> {
        if self.boot_id != boot_id {
            return BTreeMap::new();
        }
        let failures = self.failures.into_iter().filter(|(key, _)| !key.is_of_node());
        failures.map(|(key, failure)| (key, Failure { at: failure.at.min(now), ..failure })).collect()
    }
}

impl ActionKey {
    /// Whether it is about the node as a whole and no single workload.
    fn is_of_node(&self) -> bool {
        matches!(self, Self::Publish | Self::Services | Self::Names)
    }
}

impl Goal {
    /// Label of everything of the sources that its actions depend on: the version, logins for its images, and whether
    /// these are what a generation says.
    fn inputs(&self, goals: &Goals) -> String {
        let logins = crate::files::pull_secrets_label(&goals.desired, &self.workload);
        let images = if self.images.is_some() { "known" } else { "named" };
        format!("{} {images} {logins}", self.version)
    }
}

impl Goals {
    /// Label of the inputs of an action: as long as it is the same, trying again is no more promising than before. Empty
    /// where the workload is not wished any more; `None` where no workload is concerned, or none that is known.
    #[must_use]
    pub fn inputs(&self, key: &ActionKey, pods: &BTreeMap<PodUid, Arc<PodFacts>>) -> Option<String> {
        let workload = match key {
            ActionKey::Prepare(id, _) | ActionKey::Create(id, ..) | ActionKey::Memory(id) => id,
            ActionKey::Pod(uid) | ActionKey::Container(uid, _) | ActionKey::Files(uid) => {
                &pods.get(uid)?.record.workload
            }
            ActionKey::Publish | ActionKey::Services | ActionKey::Names => return None,
        };
        Some(self.workloads.get(workload).map(|goal| goal.inputs(self)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{WorkloadId, WorkloadKind};

    fn failure(count: u32, permanent: bool, at: u64) -> Failure {
        Failure { count, at: Timestamp(at), message: "x".repeat(5000), permanent, inputs: "i".into() }
    }

    #[test]
    fn waits_double_to_five_minutes() {
        let waits = |permanent| (1..=10).map(|n| failure(n, permanent, 0).wait().0 / 1000).collect::<Vec<_>>();
        assert_eq!(waits(false), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(waits(true), [10, 20, 40, 80, 160, 300, 300, 300, 300, 300]);
        assert_eq!(failure(u32::MAX, true, 0).wait(), restart::MAX);
    }

    fn key(number: u32) -> ActionKey {
        let id = WorkloadId { kind: WorkloadKind::Pod, namespace: "default".into(), name: format!("{number:05}") };
        ActionKey::Create(id, 0, "r".into())
    }

    /// Through the form on disk: boot that takes over, when it does, and the moments that it knows failures of.
    #[test]
    fn failures_count_in_their_boot_and_no_wait_gets_longer() {
        for (boot, now, expected) in [
            ("b1", 9000, vec![5000]),
            ("b1", 5000, vec![5000]),
            // The clock of a boot never goes back; a record that says so is wrong.
            ("b1", 100, vec![100]),
            ("b2", 9000, vec![]),
        ] {
            let failures = BTreeMap::from([
                (key(1), failure(4, true, 5000)),
                (ActionKey::Publish, failure(9, false, 5000)),
                (ActionKey::Services, failure(9, false, 5000)),
                (ActionKey::Names, failure(9, false, 5000)),
            ]);
            let text = serde_json::to_string(&Kept::of(&failures, "b1")).expect("it can be written");
            let kept: Kept = serde_json::from_str(&text).expect("it can be read");
            let known = kept.taken_over(boot, Timestamp(now));
            assert_eq!(known.values().map(|failure| failure.at.0).collect::<Vec<_>>(), expected, "{boot} {now}");
            assert!(known.values().all(|failure| failure.count == 4 && failure.inputs == "i"));
        }
    }

    #[test]
    fn what_is_kept_has_an_end() {
        let many = (0..3000).map(|number| (key(number), failure(1, false, 0))).collect();
        let kept = Kept::of(&many, "b");
        assert_eq!(kept.failures.len(), MOST);
        assert!(kept.failures.iter().all(|(_, failure)| failure.message.len() == LONGEST_MESSAGE));
    }
}
