//! How much may be removed at once without being asked.
//!
//! A revision of the sources that removes more than `max(minimum, percent of the running workloads)` without a
//! replacement, or one that is protected, is held: what runs stays and heals until the removal is approved.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::workload::WorkloadId;

/// The annotation that protects a workload from removal without approval.
pub const PROTECTED: &str = "mainstay/protected";

/// How much may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// So many always may.
    pub minimum: usize,
    /// So many in a hundred of the running workloads may.
    pub percent: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { minimum: 3, percent: 30 }
    }
}

/// A removal that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRemoval {
    /// Names exactly this removal of exactly this revision.
    pub id: String,
    /// The state of the sources that wishes for it.
    pub revision: String,
    /// What would go.
    pub workloads: BTreeSet<WorkloadId>,
    /// Why it is held, for people.
    pub reason: String,
}

impl HeldRemoval {
    /// The approval of exactly this removal.
    #[must_use]
    pub fn approval(&self) -> Approval {
        Approval { revision: self.revision.clone(), workloads: self.workloads.clone() }
    }
}

/// A removal that people approved. It counts for what is left of it, too: a removal that was begun is not held again
/// when the agent is restarted in the middle of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The state of the sources.
    pub revision: String,
    /// What may go.
    pub workloads: BTreeSet<WorkloadId>,
}

/// Whether the removal of what runs but is wished no longer is to be held. `revision` labels the state of the
/// sources; `approved` holds what people approved.
#[must_use]
pub fn check(
    running: &BTreeSet<WorkloadId>,
    wished: &BTreeSet<WorkloadId>,
    protected: &BTreeSet<WorkloadId>,
    revision: &str,
    budget: Budget,
    approved: &[Approval],
) -> Option<HeldRemoval> {
    let removed: BTreeSet<WorkloadId> = running.difference(wished).cloned().collect();
    if removed.is_empty() {
        return None;
    }
    if approved.iter().any(|known| known.revision == revision && removed.is_subset(&known.workloads)) {
        return None;
    }
    let limit = budget.minimum.max(running.len().saturating_mul(budget.percent) / 100);
    let guarded: Vec<String> = removed.intersection(protected).map(ToString::to_string).collect();
    let reason = if !guarded.is_empty() {
        format!("{} protected by annotation `{PROTECTED}`", guarded.join(", "))
    } else if removed.len() > limit {
        format!(
            "{} of {} workloads would be removed, more than the {limit} allowed at once",
            removed.len(),
            running.len()
        )
    } else {
        return None;
    };
    let mut text = revision.to_owned();
    for id in &removed {
        text.push('\n');
        text.push_str(&id.to_string());
    }
    let id: String = Digest::of(text.as_bytes()).hex().chars().take(10).collect();
    Some(HeldRemoval { id, revision: revision.to_owned(), workloads: removed, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::WorkloadKind;

    fn ids(range: std::ops::Range<u32>) -> BTreeSet<WorkloadId> {
        range
            .map(|n| WorkloadId { kind: WorkloadKind::Pod, namespace: "default".into(), name: format!("w{n:03}") })
            .collect()
    }

    #[test]
    fn the_larger_of_the_two_limits_counts() {
        let none = BTreeSet::new();
        for (running, left, held) in
            [(3, 0, false), (4, 0, true), (10, 7, false), (10, 6, true), (100, 70, false), (100, 69, true)]
        {
            let result = check(&ids(0..running), &ids(0..left), &none, "r", Budget::default(), &[]);
            assert_eq!(result.is_some(), held, "{running} -> {left}");
        }
    }

    #[test]
    fn one_protected_is_enough_and_approval_names_exactly_this_removal() {
        let (running, wished, protected) = (ids(0..10), ids(1..10), ids(0..1));
        let check = |revision: &str, approved: &[Approval]| {
            check(&running, &wished, &protected, revision, Budget::default(), approved)
        };
        let held = check("r1", &[]).expect("held");
        let approved = [held.approval()];
        assert_eq!(check("r1", &approved), None);
        assert!(check("r2", &approved).is_some(), "another revision needs another approval");
    }

    #[test]
    fn what_is_left_of_an_approved_removal_is_approved() {
        let (running, none) = (ids(0..10), BTreeSet::new());
        let held = check(&running, &ids(9..10), &none, "r", Budget::default(), &[]).expect("held");
        let approved = [held.approval()];
        let rest = |wished: std::ops::Range<u32>| {
            check(&ids(3..10), &ids(wished), &none, "r", Budget::default(), &approved).is_some()
        };
        assert!(!rest(9..10), "three of nine are gone already");
        assert!(rest(0..1), "one more than was approved");
    }
}
