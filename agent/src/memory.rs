//! What is remembered of workloads beside their pods: which moments of a schedule are settled, which Jobs have ended.
//!
//! One small file for each workload that needs one, so that damage to one costs no other. Owns `<data>/memory`;
//! decides nothing: what to remember and what follows from it is the plan's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spec::digest::Digest;
use spec::observed::JobMemory;
use spec::workload::WorkloadId;

/// Version of the files.
const SCHEMA: u32 = 1;

/// Why something cannot be remembered.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A file cannot be written.
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
    /// A file cannot be removed.
    #[error("cannot remove {0}")]
    Remove(PathBuf, #[source] io::Error),
    /// A memory cannot be put into words.
    #[error("cannot encode what is remembered of {0}")]
    Encode(WorkloadId, #[source] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    schema: u32,
    workload: WorkloadId,
    memory: JobMemory,
}

/// The files.
#[derive(Debug, Clone)]
pub struct Memories {
    dir: PathBuf,
}

impl Memories {
    /// Memories below a data directory.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { dir: data.join("memory") }
    }

    /// Everything that is remembered. A file that makes no sense is put aside and told of.
    #[must_use]
    pub fn load(&self) -> BTreeMap<WorkloadId, JobMemory> {
        let mut known = BTreeMap::new();
        let Ok(entries) = fs::read_dir(&self.dir) else { return known };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let stored = fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).map_err(|error| error.to_string()));
            match stored {
                Ok(stored) if stored.schema <= SCHEMA => {
                    known.insert(stored.workload, stored.memory);
                }
                Ok(stored) => {
                    tracing::error!(file = %path.display(), schema = stored.schema, "written by a newer version");
                }
                Err(error) => {
                    let aside = path.with_extension("damaged");
                    tracing::error!(file = %path.display(), error, aside = %aside.display(), "memory is damaged");
                    if let Err(error) = fs::rename(&path, &aside) {
                        tracing::error!(file = %path.display(), %error, "cannot put it aside");
                    }
                }
            }
        }
        known
    }

    /// Writes down what is remembered of a workload, or forgets it. On disk when it returns.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; what was known before stays.
    pub fn set(&self, workload: &WorkloadId, memory: Option<&JobMemory>) -> Result<(), MemoryError> {
        let path = self.path(workload);
        let Some(memory) = memory else {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(MemoryError::Remove(path, error)),
                _ => Ok(()),
            };
        };
        let stored = Stored { schema: SCHEMA, workload: workload.clone(), memory: memory.clone() };
        let bytes = serde_json::to_vec(&stored).map_err(|error| MemoryError::Encode(workload.clone(), error))?;
        self.write(&path, &bytes).map_err(|error| MemoryError::Write(path, error))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        crate::record::write_bytes(path, bytes)
    }

    /// Forgets everything.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Remove`].
    pub fn clear(&self) -> Result<(), MemoryError> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(MemoryError::Remove(self.dir.clone(), error)),
            _ => Ok(()),
        }
    }

    /// Names may be longer than a file's may be.
    fn path(&self, workload: &WorkloadId) -> PathBuf {
        let label: String = Digest::of(workload.to_string().as_bytes()).hex().chars().take(32).collect();
        self.dir.join(format!("{label}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::workload::WorkloadKind;

    fn id(name: &str) -> WorkloadId {
        WorkloadId { kind: WorkloadKind::CronJob, namespace: "default".into(), name: name.into() }
    }

    #[test]
    fn what_is_set_is_known_after_a_restart() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let memories = Memories::new(dir.path());
        let memory = |at| JobMemory { settled: Some(at), ..JobMemory::default() };
        for (name, at) in [("a", 1), ("b", 2), ("a", 3), (&*"x".repeat(300), 4)] {
            memories.set(&id(name), Some(&memory(at))).expect("it can be written");
        }
        memories.set(&id("b"), None).expect("it can be removed");
        memories.set(&id("never"), None).expect("what is not there is forgotten already");
        let known = Memories::new(dir.path()).load();
        assert_eq!(known, BTreeMap::from([(id("a"), memory(3)), (id(&"x".repeat(300)), memory(4))]));
        memories.clear().expect("it can be removed");
        assert!(memories.load().is_empty());
    }

    #[test]
    fn what_an_older_version_has_written_counts_and_what_a_newer_one_has_does_not() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let memories = Memories::new(dir.path());
        for (name, schema) in [("a", SCHEMA - 1), ("b", SCHEMA), ("c", SCHEMA + 1)] {
            let stored = Stored { schema, workload: id(name), memory: JobMemory::default() };
            let bytes = serde_json::to_vec(&stored).expect("plain data");
            memories.write(&memories.path(&id(name)), &bytes).expect("it can be written");
        }
        assert_eq!(memories.load().into_keys().collect::<Vec<_>>(), [id("a"), id("b")]);
        assert!(memories.path(&id("c")).exists(), "who wrote it may come back");
    }

    #[test]
    fn damage_to_one_costs_no_other() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let memories = Memories::new(dir.path());
        memories.set(&id("a"), Some(&JobMemory::default())).expect("it can be written");
        memories.set(&id("b"), Some(&JobMemory::default())).expect("it can be written");
        fs::write(memories.path(&id("a")), b"{\"sch").expect("it can be written");
        assert_eq!(memories.load().into_keys().collect::<Vec<_>>(), [id("b")]);
        assert!(memories.path(&id("a")).with_extension("damaged").exists());
    }
}
