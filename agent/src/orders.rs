//! What people ordered and what holds until they take it back: approvals, pauses, a generation to stay at, a drained
//! node. Durable, since an order must outlive the agent; `<data>/orders.json` holds no secret.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use spec::budget::Approval;

/// Approvals of sources that are remembered; the oldest are forgotten.
const MOST_APPROVALS: usize = 64;

/// What is ordered now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Standing {
    schema: u32,
    /// Removals that were approved.
    pub removals: Vec<Approval>,
    /// Ids of sources whose change was approved.
    pub sources: Vec<String>,
    /// Paused workloads as `Kind/namespace/name`, `*` for all, and when that was ordered in seconds of Unix time.
    pub paused: BTreeMap<String, i64>,
    /// The generation that the node is to stay at.
    pub pinned: Option<Pin>,
    /// Since when the node is drained, in seconds of Unix time.
    pub drained: Option<i64>,
    /// Workloads that are protected from removal, as their manifests said when there were any. A manifest that is gone says
    /// nothing, and pods carry their template's annotations only.
    pub protected: BTreeSet<String>,
}

/// A generation that the node stays at until the sources change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// Which.
    pub generation: u64,
    /// The state of the sources that it stands against.
    pub revision: String,
}

/// What people can order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Hold changes of a workload (`Kind/namespace/name`) back, or of all.
    Pause {
        /// Which; all without it.
        workload: Option<String>,
    },
    /// Take a pause back; without a workload also a rollback and a drain.
    Resume {
        /// Which; everything without it.
        workload: Option<String>,
    },
    /// Go back to a generation and stay there until the sources change.
    Rollback {
        /// Its number.
        generation: u64,
    },
    /// Stop everything and start nothing.
    Drain,
    /// Take a drain back.
    Uncordon,
}

/// The orders of a node. Cheap to clone: all clones are the same orders.
#[derive(Debug, Clone)]
pub struct Orders(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Held for a copy or while the file is replaced, never across an await.
    standing: Mutex<Standing>,
}

impl Orders {
    /// Reads the orders of a data directory. Damaged ones are put aside: no order is the safe reading, since each only
    /// lets something happen or holds something back.
    #[must_use]
    pub fn open(data_dir: &Path) -> Self {
        let path = data_dir.join("orders.json");
        let standing: Standing = crate::record::read(&path).unwrap_or_default();
        Self(Arc::new(Inner { path, standing: Mutex::new(standing) }))
    }

    /// What is ordered now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.0.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a change of a source was approved.
    #[must_use]
    pub fn is_approved(&self, id: &str) -> bool {
        self.0.standing.lock().unwrap_or_else(PoisonError::into_inner).sources.iter().any(|known| known == id)
    }

    /// Changes the orders; durable when this returns.
    ///
    /// # Errors
    /// The disk refuses; the orders are as they were.
    pub fn change(&self, change: impl FnOnce(&mut Standing)) -> std::io::Result<Standing> {
        let mut standing = self.0.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = standing.clone();
        change(&mut next);
        next.schema = 1;
        let oldest = |length: usize| length.saturating_sub(MOST_APPROVALS);
        next.sources.drain(..oldest(next.sources.len()));
        next.removals.drain(..oldest(next.removals.len()));
        if next != *standing {
            crate::record::write(&self.0.path, &next)?;
            *standing = next;
        }
        Ok(standing.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_outlive_the_agent_and_damage_is_no_order() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let orders = Orders::open(dir.path());
        orders.change(|standing| standing.paused.extend([("*".to_owned(), 5)])).expect("written");
        let again = Orders::open(dir.path());
        assert_eq!(again.standing(), orders.standing());
        assert_eq!(again.standing().paused.get("*"), Some(&5));
        std::fs::write(dir.path().join("orders.json"), b"{\"paused\":").expect("damaged");
        let damaged = Orders::open(dir.path());
        assert_eq!(damaged.standing(), Standing::default());
        assert!(dir.path().join("orders.json.damaged").exists(), "it is kept for people");
        damaged.change(|standing| standing.drained = Some(1)).expect("it can be written again");
        assert_eq!(Orders::open(dir.path()).standing().drained, Some(1));
    }

    #[test]
    fn approvals_do_not_pile_up() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let orders = Orders::open(dir.path());
        for number in 0..100 {
            orders.change(|standing| standing.sources.push(number.to_string())).expect("written");
        }
        assert!(orders.is_approved("99") && !orders.is_approved("0"));
        assert_eq!(orders.standing().sources.len(), MOST_APPROVALS);
    }
}
