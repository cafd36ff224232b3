//! Generations: each converged state of the node, numbered, with everything that is needed to have it again. And the
//! state that was let through last, which is what stays while changes are held back.
//!
//! `<data>/generations/<number>.sealed` holds the objects, secrets included, sealed with the node's key;
//! `<number>.json` beside it says what a list needs, among it the digests of images, which removal of images spares.
//! At most a set number of them is kept. A pair that cannot be read is as good as none.

mod compare;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spec::digest::Digest;
use spec::plan::Goals;
use spec::pod::ResolvedImages;
use spec::workload::{Desired, WorkloadId};

use crate::gc::roots;
use crate::source::{NodeKey, SealError};
use stored::Stored;

pub use compare::{Difference, compare};

/// What a list of generations shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    schema: u32,
    /// Grows by one with each.
    pub number: u64,
    /// When the node had become so, in seconds of Unix time.
    pub unix: i64,
    /// Equal states have equal labels.
    pub label: String,
    /// The state of the sources that it came from.
    pub revision: String,
    /// Commits and digests that it came from, by the label of what is followed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, String>,
    /// Its workloads, as `Kind/namespace/name`.
    pub workloads: Vec<String>,
    /// What changed since the one before, for people.
    pub changes: Vec<String>,
    /// Manifest digests of the images that it needs.
    pub images: BTreeSet<Digest>,
}

/// A generation as a whole.
#[derive(Debug)]
pub struct Generation {
    /// What there was to be.
    pub desired: Desired,
    /// What the images of each version stood for.
    pub images: Images,
}

/// Resolved images by workload and label of its version.
pub type Images = BTreeMap<(WorkloadId, String), ResolvedImages>;

#[derive(Default, Serialize, Deserialize)]
struct Sealed {
    schema: u32,
    desired: Stored,
    images: Vec<(WorkloadId, String, ResolvedImages)>,
}

/// Why a generation cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is no such number, or no more.
    #[error("there is no generation {0}")]
    Unknown(u64),
    /// It cannot be opened or written.
    #[error("cannot use generation {number}")]
    Seal {
        /// Which.
        number: u64,
        /// Why.
        source: SealError,
    },
    /// Its content is damaged.
    #[error("generation {0} is damaged")]
    Damaged(u64),
}

/// The generations of a node; written by the agent's loop only.
pub struct History {
    data_dir: PathBuf,
    key: NodeKey,
    keep: usize,
    known: Vec<Summary>,
}

impl History {
    /// Opens the generations of a data directory, of which `keep` are kept.
    ///
    /// # Errors
    /// The node key cannot be had.
    pub fn open(data_dir: &Path, keep: usize) -> Result<Self, SealError> {
        let key = NodeKey::load_or_make(&data_dir.join("node.key"))?;
        Ok(Self { data_dir: data_dir.to_owned(), key, keep: keep.max(1), known: list(data_dir) })
    }

    /// The newest one.
    #[must_use]
    pub fn newest(&self) -> Option<&Summary> {
        self.known.last()
    }

    /// Writes the present state down when it is another one than the newest generation's; its number then. `revision` and
    /// `sources` say where it came from.
    ///
    /// # Errors
    /// The disk refuses; nothing half-written counts.
    pub fn record(
        &mut self,
        goals: &Goals,
        desired: &Desired,
        images: &Images,
        revision: &str,
        sources: BTreeMap<String, String>,
        unix: i64,
    ) -> Result<Option<u64>, HistoryError> {
        let label = label(goals, images);
        if self.newest().is_some_and(|newest| newest.label == label) {
            return Ok(None);
        }
        let number = self.newest().map_or(1, |newest| newest.number.saturating_add(1));
        let failed = |source| HistoryError::Seal { number, source };
        let before = self.newest().and_then(|newest| self.load(newest.number).ok());
        let now = Generation { desired: desired.clone(), images: images.clone() };
        let changes = compare(before.as_ref(), &now).iter().map(ToString::to_string).collect();
        let images_of = |((id, version), images): (&(WorkloadId, String), &ResolvedImages)| {
            (id.clone(), version.clone(), images.clone())
        };
        let sealed = Sealed { schema: 1, desired: Stored::of(desired), images: images.iter().map(images_of).collect() };
        let bytes = serde_json::to_vec(&sealed).map_err(|_| HistoryError::Damaged(number))?;
        let dir = dir(&self.data_dir);
        let io = |source| failed(SealError::Io { verb: "write", path: dir.clone(), source });
        std::fs::create_dir_all(&dir).map_err(io)?;
        self.key.write(&dir.join(format!("{number}.sealed")), &bytes).map_err(failed)?;
        let summary = Summary {
            schema: 1,
            number,
            unix,
            label,
            revision: revision.to_owned(),
            sources,
            workloads: desired.workloads.keys().map(ToString::to_string).collect(),
            changes,
            images: images.values().flat_map(|images| images.values().copied()).collect(),
        };
        // The summary makes it count, so it comes last.
        crate::record::write(&dir.join(format!("{number}.json")), &summary).map_err(io)?;
        self.known.push(summary);
        while self.known.len() > self.keep {
            let oldest = self.known.remove(0).number;
            for ending in ["json", "sealed"] {
                drop(std::fs::remove_file(dir.join(format!("{oldest}.{ending}"))));
            }
        }
        let images: BTreeSet<String> =
            self.known.iter().flat_map(|known| &known.images).map(ToString::to_string).collect();
        if let Err(error) = roots::note(&self.data_dir, ROOTS, &images) {
            tracing::error!(%error, "images of generations are not protected from removal");
        }
        Ok(Some(number))
    }

    /// A generation as a whole.
    ///
    /// # Errors
    /// It is not there or cannot be opened.
    pub fn load(&self, number: u64) -> Result<Generation, HistoryError> {
        load(&self.data_dir, &self.key, number)
    }

    /// Keeps what was let through last; nothing to keep removes it.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save_applied(&self, desired: Option<&Desired>) -> Result<(), SealError> {
        let path = self.data_dir.join(APPLIED);
        match desired {
            Some(desired) => {
                let sealed = Sealed { schema: 1, desired: Stored::of(desired), images: Vec::new() };
                self.key.write(&path, &serde_json::to_vec(&sealed).unwrap_or_default())
            }
            None => match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    Err(SealError::Io { verb: "remove", path, source })
                }
                Ok(()) | Err(_) => Ok(()),
            },
        }
    }

    /// What was let through last, when changes were held back then.
    #[must_use]
    pub fn applied(&self) -> Option<Desired> {
        let bytes = match self.key.read(&self.data_dir.join(APPLIED)) {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::error!(%error, "what was held back before is not known: it stays as it runs");
                return None;
            }
        };
        serde_json::from_slice::<Sealed>(&bytes).ok().map(|sealed| sealed.desired.into_desired())
    }
}

/// The file of image roots that generations need.
const ROOTS: &str = "generations";

const APPLIED: &str = "applied.sealed";

fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("generations")
}

/// Every generation that counts, oldest first.
#[must_use]
pub fn list(data_dir: &Path) -> Vec<Summary> {
    let entries = std::fs::read_dir(dir(data_dir)).into_iter().flatten().flatten();
    let mut found: Vec<Summary> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .filter_map(|path| serde_json::from_slice(&std::fs::read(path).ok()?).ok())
        .collect();
    found.sort_by_key(|summary: &Summary| summary.number);
    found
}

/// Reads a generation, also while no agent runs.
///
/// # Errors
/// It is not there or cannot be opened.
pub fn read(data_dir: &Path, number: u64) -> Result<Generation, HistoryError> {
    if !list(data_dir).iter().any(|summary| summary.number == number) {
        return Err(HistoryError::Unknown(number));
    }
    let key = NodeKey::load(&data_dir.join("node.key")).map_err(|source| HistoryError::Seal { number, source })?;
    load(data_dir, &key, number)
}

fn load(data_dir: &Path, key: &NodeKey, number: u64) -> Result<Generation, HistoryError> {
    let path = dir(data_dir).join(format!("{number}.sealed"));
    let bytes = key.read(&path).map_err(|source| HistoryError::Seal { number, source })?;
    let bytes = bytes.ok_or(HistoryError::Unknown(number))?;
    let sealed: Sealed = serde_json::from_slice(&bytes).map_err(|_| HistoryError::Damaged(number))?;
    let images = sealed.images.into_iter().map(|(id, version, images)| ((id, version), images)).collect();
    Ok(Generation { desired: sealed.desired.into_desired(), images })
}

/// A label of what there is to be: the same for the same workloads, contents and images, wherever they are written.
#[must_use]
pub fn label(goals: &Goals, images: &Images) -> String {
    let mut text = String::new();
    for (id, goal) in &goals.workloads {
        let controller = serde_json::to_string(&goal.workload.controller).unwrap_or_default();
        text.push_str(&format!("{id} {} {} {controller}\n", goal.revision, goal.files));
    }
    for ((id, version), images) in images {
        text.push_str(&format!("{id} {version}"));
        images.iter().for_each(|(container, digest)| text.push_str(&format!(" {container}={digest}")));
        text.push('\n');
    }
    for (key, service) in &goals.services {
        text.push_str(&format!("{key:?} {}\n", serde_json::to_string(service).unwrap_or_default()));
    }
    Digest::of(text.as_bytes()).hex().chars().take(12).collect()
}

#[cfg(test)]
mod tests;
