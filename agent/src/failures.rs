//! Failed actions and their waits, kept for an agent that takes over in the same boot. What is kept and what counts of
//! it is decided by [`spec::plan::Kept`].
//!
//! One sealed file in the run directory, since labels of inputs depend on secrets. It is replaced when a pass has changed
//! what it says; the run directory is in memory, so this works on a full disk and waits for none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use spec::plan::{ActionKey, Failure, Kept};
use spec::time::Timestamp;

use crate::source::{NodeKey, SealError};

/// The file.
pub struct Failures {
    path: PathBuf,
    key: NodeKey,
    /// What it says.
    written: Kept,
}

impl Failures {
    /// The file below a run directory, and what it says. One that cannot be read says nothing.
    ///
    /// # Errors
    /// The node key cannot be read or made.
    pub fn open(data_dir: &Path, run_dir: &Path) -> Result<Self, SealError> {
        let key = NodeKey::load_or_make(&data_dir.join("node.key"))?;
        let path = run_dir.join("failures.sealed");
        let written = match key.read(&path) {
            Ok(bytes) => bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose().unwrap_or_else(|error| {
                tracing::warn!(file = %path.display(), %error, "failures not understood");
                None
            }),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "failures left out");
                None
            }
        };
        Ok(Self { path, key, written: written.unwrap_or_default() })
    }

    /// The failures that count now.
    #[must_use]
    pub fn taken_over(&self, boot_id: &str, now: Timestamp) -> BTreeMap<ActionKey, Failure> {
        self.written.clone().taken_over(boot_id, now)
    }

    /// Keeps these, where they are others than before. What cannot be written costs a wait after a restart, no more.
    pub fn keep(&mut self, failures: &BTreeMap<ActionKey, Failure>, boot_id: &str) {
        if failures.is_empty() && self.written.failures.is_empty() {
            return;
        }
        let kept = Kept::of(failures, boot_id);
        if kept == self.written {
            return;
        }
        let bytes = serde_json::to_vec(&kept).unwrap_or_default();
        if let Err(error) = self.key.write(&self.path, &bytes) {
            tracing::warn!(error = &error as &dyn std::error::Error, "failures not kept");
        }
        self.written = kept;
    }
}

impl std::fmt::Debug for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failures").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use spec::workload::{WorkloadId, WorkloadKind};

    use super::*;

    fn key(name: &str) -> ActionKey {
        let id = WorkloadId { kind: WorkloadKind::Pod, namespace: "default".into(), name: name.into() };
        ActionKey::Prepare(id, "r".into())
    }

    #[test]
    fn another_agent_knows_them_and_damage_costs_no_more_than_a_wait() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = || Failures::open(dir.path(), dir.path()).expect("a directory of our own");
        let failure = Failure {
            count: 3,
            at: Timestamp(5),
            message: "refused".into(),
            permanent: false,
            inputs: "hunter2".into(),
        };
        let failures = BTreeMap::from([(key("a"), failure)]);
        assert_eq!(open().taken_over("b", Timestamp(9)), BTreeMap::new());
        open().keep(&BTreeMap::new(), "b");
        assert!(!dir.path().join("failures.sealed").exists(), "nothing has failed: nothing is written");
        open().keep(&failures, "b");
        assert_eq!(open().taken_over("b", Timestamp(9)), failures);
        assert_eq!(open().taken_over("later", Timestamp(9)), BTreeMap::new());
        let file = dir.path().join("failures.sealed");
        assert!(!std::fs::read(&file).expect("read").windows(7).any(|word| word == b"hunter2"));
        open().keep(&BTreeMap::new(), "b");
        assert_eq!(open().taken_over("b", Timestamp(9)), BTreeMap::new());
        std::fs::write(&file, "damage").expect("written");
        assert_eq!(open().taken_over("b", Timestamp(9)), BTreeMap::new());
        open().keep(&failures, "b");
        assert_eq!(open().taken_over("b", Timestamp(9)), failures);
    }
}
