//! What is remembered of the versions of each workload: the last good one with its ConfigMaps and Secrets, the one on
//! trial, those that failed. One sealed file for each workload, since secrets are in it.
//!
//! Decides nothing: what is remembered is an outcome of planning. Writing is done by a thread of its own, in order, so
//! that the loop never waits for a disk; what a crash loses of it is found out again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use spec::digest::Digest;
use spec::observed::PodUid;
use spec::plan::{Bad, Crashes, Memory, Trial, Version};
use spec::pod::ResolvedImages;
use spec::secret::SecretBytes;
use spec::time::Timestamp;
use spec::workload::{ConfigData, Desired, NetworkSpec, SecretData, Workload, WorkloadId};

use crate::gc::roots;
use crate::source::{NodeKey, SealError};

/// The form on disk.
#[derive(Serialize, Deserialize)]
struct Stored {
    schema: u32,
    id: WorkloadId,
    good: Option<StoredVersion>,
    trial: Option<StoredTrial>,
    bad: BTreeMap<String, Bad>,
}

#[derive(Serialize, Deserialize)]
struct StoredVersion {
    label: String,
    workload: Workload,
    images: ResolvedImages,
    configs: Vec<(String, ConfigData)>,
    secrets: Vec<(String, String, BTreeMap<String, String>)>,
    networks: Vec<NetworkSpec>,
}

#[derive(Serialize, Deserialize)]
struct StoredTrial {
    version: StoredVersion,
    boot_id: String,
    since: Timestamp,
    progress: Timestamp,
    best: u32,
    proven: bool,
    crashes: BTreeMap<PodUid, BTreeMap<String, Crashes>>,
}

impl StoredVersion {
    fn of(version: &Version) -> Self {
        let objects = &version.objects;
        let secret = |data: &SecretData| {
            data.data.iter().map(|(key, value)| (key.clone(), STANDARD.encode(value.expose()))).collect()
        };
        Self {
            label: version.label.clone(),
            workload: Workload::clone(&version.workload),
            images: version.images.clone(),
            configs: objects.configs.iter().map(|((_, name), data)| (name.clone(), ConfigData::clone(data))).collect(),
            secrets: (objects.secrets.iter())
                .map(|((_, name), data)| (name.clone(), data.kind.clone(), secret(data)))
                .collect(),
            networks: objects.networks.values().map(|network| NetworkSpec::clone(network)).collect(),
        }
    }

    fn into_version(self) -> Version {
        let namespace = &self.workload.id.namespace;
        let key = |name: String| (namespace.clone(), name);
        let mut objects = Desired::default();
        objects.configs.extend(self.configs.into_iter().map(|(name, data)| (key(name), Arc::new(data))));
        for (name, kind, data) in self.secrets {
            let data = data
                .into_iter()
                .filter_map(|(name, value)| Some((name, SecretBytes::new(STANDARD.decode(value).ok()?))))
                .collect();
            objects.secrets.insert(key(name), Arc::new(SecretData { data, kind }));
        }
        objects.networks.extend(self.networks.into_iter().map(|network| (network.name.clone(), Arc::new(network))));
        Version {
            label: self.label,
            workload: Arc::new(self.workload),
            objects: Arc::new(objects),
            images: self.images,
        }
    }
}

impl Stored {
    fn of(id: &WorkloadId, memory: &Memory) -> Self {
        let trial = memory.trial.as_ref().map(|trial| StoredTrial {
            version: StoredVersion::of(&trial.version),
            boot_id: trial.boot_id.clone(),
            since: trial.since,
            progress: trial.progress,
            best: trial.best,
            proven: trial.proven,
            crashes: trial.crashes.clone(),
        });
        let good = memory.good.as_ref().map(StoredVersion::of);
        Self { schema: 1, id: id.clone(), good, trial, bad: memory.bad.clone() }
    }

    fn into_memory(self) -> (WorkloadId, Memory) {
        let trial = self.trial.map(|trial| Trial {
            version: trial.version.into_version(),
            boot_id: trial.boot_id,
            since: trial.since,
            progress: trial.progress,
            best: trial.best,
            proven: trial.proven,
            crashes: trial.crashes,
        });
        (self.id, Memory { good: self.good.map(StoredVersion::into_version), trial, bad: self.bad })
    }
}

enum Work {
    /// The file, its content, and the images that it needs.
    Write(PathBuf, Vec<u8>, BTreeSet<String>),
    Remove(PathBuf),
}

/// Where it is kept.
pub struct Versions {
    dir: PathBuf,
    work: Option<Sender<Work>>,
    writer: Option<JoinHandle<()>>,
}

impl Versions {
    /// The store below a data directory, and what it remembers. A file that cannot be opened is told and left out: its
    /// workload has nothing to go back to until its next version has proved itself.
    ///
    /// # Errors
    /// The node key cannot be read or made, or the directory cannot be made.
    pub fn open(data_dir: &Path) -> Result<(Self, BTreeMap<WorkloadId, Arc<Memory>>), SealError> {
        let key = NodeKey::load_or_make(&data_dir.join("node.key"))?;
        let dir = data_dir.join("versions");
        std::fs::create_dir_all(&dir).map_err(|source| SealError::Io { verb: "make", path: dir.clone(), source })?;
        let known = read(&dir, &key);
        let (work, inbox) = channel::<Work>();
        let mut needed: BTreeMap<PathBuf, BTreeSet<String>> =
            known.iter().map(|(id, memory)| (file(&dir, id), images(memory))).collect();
        let data_dir = data_dir.to_owned();
        let writer = std::thread::Builder::new().name("versions".to_owned()).spawn(move || {
            // What a workload may go back to is not removed with unused images.
            let keep = |needed: &BTreeMap<PathBuf, BTreeSet<String>>| {
                let all = needed.values().flatten().cloned().collect();
                if let Err(error) = roots::note(&data_dir, roots::VERSIONS, &all) {
                    tracing::warn!(%error, "images of versions not noted as needed");
                }
            };
            keep(&needed);
            while let Ok(work) = inbox.recv() {
                match work {
                    Work::Write(path, bytes, images) => {
                        needed.insert(path.clone(), images);
                        keep(&needed);
                        if let Err(error) = key.write(&path, &bytes) {
                            tracing::warn!(error = &error as &dyn std::error::Error, "version not remembered on disk");
                        }
                    }
                    Work::Remove(path) => {
                        needed.remove(&path);
                        keep(&needed);
                        drop(std::fs::remove_file(path));
                    }
                }
            }
        });
        let writer = writer.map_err(|source| SealError::Io { verb: "write", path: dir.clone(), source })?;
        Ok((Self { dir, work: Some(work), writer: Some(writer) }, known))
    }

    /// Remembers.
    pub fn write(&self, id: &WorkloadId, memory: &Memory) {
        let bytes = serde_json::to_vec(&Stored::of(id, memory)).unwrap_or_default();
        self.send(Work::Write(file(&self.dir, id), bytes, images(memory)));
    }

    /// Forgets a workload that is gone.
    pub fn remove(&self, id: &WorkloadId) {
        self.send(Work::Remove(file(&self.dir, id)));
    }

    /// Which versions are remembered now, as another reader of the disk sees it.
    ///
    /// # Errors
    /// The key cannot be read.
    pub fn look(data_dir: &Path) -> Result<BTreeMap<WorkloadId, Arc<Memory>>, SealError> {
        let dir = data_dir.join("versions");
        if !dir.exists() {
            return Ok(BTreeMap::new());
        }
        Ok(read(&dir, &NodeKey::load_or_make(&data_dir.join("node.key"))?))
    }

    fn send(&self, work: Work) {
        if let Some(sender) = &self.work {
            // The writer ends only when the sender is dropped.
            let _ = sender.send(work);
        }
    }
}

impl std::fmt::Debug for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Versions").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Drop for Versions {
    /// Everything that was said is written.
    fn drop(&mut self) {
        self.work = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Digests of the images that a workload may go back to.
fn images(memory: &Memory) -> BTreeSet<String> {
    let versions = memory.good.iter().chain(memory.trial.iter().map(|trial| &trial.version));
    versions.flat_map(|version| version.images.values()).map(ToString::to_string).collect()
}

fn file(dir: &Path, id: &WorkloadId) -> PathBuf {
    dir.join(format!("{}.sealed", Digest::of(id.to_string().as_bytes()).short()))
}

fn read(dir: &Path, key: &NodeKey) -> BTreeMap<WorkloadId, Arc<Memory>> {
    let mut known = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "sealed") {
            continue;
        }
        match key.read(&path) {
            Ok(Some(bytes)) => match serde_json::from_slice::<Stored>(&bytes) {
                Ok(stored) => {
                    let (id, memory) = stored.into_memory();
                    known.insert(id, Arc::new(memory));
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "remembered version not understood"),
            },
            Ok(None) => {}
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "remembered version left out"),
        }
    }
    known
}
