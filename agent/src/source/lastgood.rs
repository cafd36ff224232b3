//! The last good version of each object: what a broken file falls back to, also after a reboot.
//!
//! Kept as the files' own bytes and the objects that were good in them, sealed since Secrets are among them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use spec::manifest::compose::ComposeProject;
use spec::manifest::{FileObjects, Object, ParseOptions, parse_file};
use spec::workload::ObjectId;

use super::lost::Lost;
use super::projects::StoredProject;
use super::seal::{NodeKey, SealError};

/// A good object and the file it was good in.
#[derive(Debug, Clone)]
pub(super) struct Good {
    pub file: String,
    pub bytes: Arc<[u8]>,
    pub object: Object,
}

/// Last good versions by identity.
#[derive(Debug, Default)]
pub(super) struct LastGood {
    pub objects: BTreeMap<ObjectId, Good>,
    /// Compose projects by their main file.
    pub projects: BTreeMap<String, ComposeProject>,
    written: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    schema: u32,
    files: Vec<StoredFile>,
    #[serde(default)]
    projects: Vec<StoredProject>,
}

#[derive(Serialize, Deserialize)]
struct StoredFile {
    name: String,
    bytes: String,
    objects: Vec<ObjectId>,
}

/// Where it lies.
fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("last-good.sealed")
}

impl LastGood {
    /// Reads what was good before; nothing when there is nothing.
    pub(super) fn load(data_dir: &Path, key: &NodeKey) -> Result<Self, SealError> {
        let Some(bytes) = key.read(&path(data_dir))? else { return Ok(Self::default()) };
        let Ok(stored) = serde_json::from_slice::<Stored>(&bytes) else {
            return Err(SealError::Foreign(path(data_dir)));
        };
        let mut objects = BTreeMap::new();
        for file in stored.files {
            let Ok(bytes) = STANDARD.decode(&file.bytes) else { continue };
            let bytes: Arc<[u8]> = bytes.into();
            let wanted: BTreeSet<ObjectId> = file.objects.into_iter().collect();
            let parsed = parse_file(&file.name, &bytes, &ParseOptions::default());
            for object in parsed.objects.into_iter().filter(|object| wanted.contains(&object.id)) {
                let good = Good { file: file.name.clone(), bytes: Arc::clone(&bytes), object };
                objects.insert(good.object.id.clone(), good);
            }
        }
        let projects = stored.projects.into_iter().map(StoredProject::into_project).collect();
        Ok(Self { objects, projects, written: Some(bytes) })
    }

    /// Whether anything good is known of this file.
    pub(super) fn came_from(&self, file: &str) -> bool {
        self.objects.values().any(|good| good.file == file) || self.projects.contains_key(file)
    }

    /// The files that something good is known of.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        let objects = self.objects.values().map(|good| good.file.as_str());
        objects.chain(self.projects.keys().map(String::as_str))
    }

    /// Whether anything good is known from below this path.
    pub(super) fn is_below(&self, root: &Path) -> bool {
        let below = |file: &String| Path::new(file).starts_with(root);
        self.objects.values().any(|good| below(&good.file)) || self.projects.keys().any(below)
    }

    /// Writes it down when it has changed.
    pub(super) fn save(&mut self, data_dir: &Path, key: &NodeKey) -> Result<(), SealError> {
        let mut files: BTreeMap<(&str, &[u8]), Vec<ObjectId>> = BTreeMap::new();
        for (id, good) in &self.objects {
            files.entry((&good.file, &good.bytes)).or_default().push(id.clone());
        }
        let files = files
            .into_iter()
            .map(|((name, bytes), objects)| StoredFile {
                name: name.to_owned(),
                bytes: STANDARD.encode(bytes),
                objects,
            })
            .collect();
        let projects = self.projects.iter().map(|(main, project)| StoredProject::of(main, project)).collect();
        let bytes = serde_json::to_vec(&Stored { schema: 1, files, projects }).unwrap_or_default();
        if self.written.as_ref() != Some(&bytes) {
            key.write(&path(data_dir), &bytes)?;
            self.written = Some(bytes);
        }
        Ok(())
    }

    /// Objects that are not among the good ones of the files now, but whose absence is no evidence: their document is
    /// broken, or the file they came from cannot be read whole. With the word and the sentence why.
    pub(super) fn retained(
        &self,
        files: &[FileObjects],
        unreadable: &BTreeMap<String, String>,
        lost: &Lost,
    ) -> Vec<(Good, &'static str, String)> {
        let present: BTreeSet<&ObjectId> = files.iter().flat_map(|f| &f.objects).map(|o| &o.id).collect();
        let broken: BTreeMap<&ObjectId, &str> =
            files.iter().flat_map(|f| f.broken.iter().map(|id| (id, f.name.as_str()))).collect();
        let doubtful: BTreeSet<&str> = files.iter().filter(|f| f.unnamed_broken).map(|f| f.name.as_str()).collect();
        let mut kept = Vec::new();
        for (id, good) in &self.objects {
            if present.contains(id) {
                continue;
            }
            let why = if let Some(file) = broken.get(id) {
                Some(("broken", format!("{file} has errors; the last good version is kept")))
            } else if doubtful.contains(good.file.as_str()) {
                Some(("broken", format!("{} has errors; the last good version is kept", good.file)))
            } else if let Some(error) = unreadable.get(&good.file) {
                Some(("unreadable", format!("{}: {error}; the last good version is kept", good.file)))
            } else {
                let sentence = |error| format!("{error}; the last good version is kept");
                lost.why(&good.file).map(|error| ("source_failed", sentence(error)))
            };
            if let Some((word, sentence)) = why {
                kept.push((good.clone(), word, sentence));
            }
        }
        kept
    }
}
