//! Sources of manifests: directories, read again whenever something may have changed.
//!
//! A thread of its own lists, parses and puts objects together, and hands a [`Reading`] to the loop when it differs
//! from the last one. inotify only shortens the wait. Nothing is removed here: objects whose absence is no evidence
//! stay at their last good version, and say so.

mod lastgood;
mod list;
mod seal;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spec::diagnostic::{Diagnostic, Severity};
use spec::digest::Digest;
use spec::manifest::{AssembleOptions, FileObjects, Missing, ParseOptions, assemble, parse_file};
use spec::secret::MacKey;
use spec::workload::{Desired, ObjectId, WorkloadId};

use crate::clock::SharedClock;
use crate::reconciler::Reading;
use crate::status::{HeldStatus, SourceStatus};
use lastgood::{Good, LastGood};
pub use seal::{NodeKey, SealError};
pub use watch::{Watching, watch};

/// Reads sources.
pub struct Sources {
    roots: Vec<PathBuf>,
    data_dir: PathBuf,
    key: NodeKey,
    mac_key: MacKey,
    node_labels: BTreeMap<String, String>,
    clock: SharedClock,
    /// Parsed files by path, as long as their bytes are the same.
    parsed: HashMap<String, (Digest, FileObjects)>,
    good: LastGood,
    /// The last desired state: what a workload falls back to whose references broke.
    desired: Desired,
    last_success: BTreeMap<PathBuf, i64>,
    revision: Option<String>,
}

impl Sources {
    /// Sources of these directories; last good versions come from the data directory.
    ///
    /// # Errors
    /// The node key cannot be read or made. Last good versions that cannot be opened are told and left alone.
    pub fn open(
        roots: Vec<PathBuf>,
        data_dir: PathBuf,
        node_labels: BTreeMap<String, String>,
        clock: SharedClock,
    ) -> Result<Self, SealError> {
        let key = NodeKey::load_or_make(&data_dir.join("node.key"))?;
        let good = LastGood::load(&data_dir, &key).unwrap_or_else(|error| {
            tracing::error!(%error, "last good versions cannot be read: a broken manifest has nothing to fall back to");
            LastGood::default()
        });
        let mac_key = key.mac_key();
        let mut sources = Self {
            roots,
            data_dir,
            key,
            mac_key,
            node_labels,
            clock,
            parsed: HashMap::new(),
            good,
            desired: Desired::default(),
            last_success: BTreeMap::new(),
            revision: None,
        };
        // What was good before the restart is what a reference that is broken now falls back to.
        let files: Vec<FileObjects> = sources.good.objects.values().map(as_file).collect();
        sources.desired = sources.assemble(&files).desired;
        Ok(sources)
    }

    fn assemble(&self, files: &[FileObjects]) -> spec::manifest::Assembly {
        assemble(
            files,
            &AssembleOptions { mac_key: &self.mac_key, node_labels: Some(&self.node_labels), missing: Missing::Error },
        )
    }

    /// Reads everything; `None` when it is all as it was.
    pub fn read(&mut self) -> Option<Reading> {
        let mut listed = Vec::new();
        let mut text = String::new();
        for root in &self.roots {
            let listing = list::list(root);
            match &listing {
                Ok(listing) => {
                    for (path, content) in &listing.files {
                        text.push_str(&path.to_string_lossy());
                        match content {
                            Ok(bytes) => text.push_str(&Digest::of(bytes).hex()),
                            Err(error) => text.push_str(error),
                        }
                    }
                    text.push_str(&format!("{:?}", listing.identity));
                }
                Err(error) => text.push_str(error),
            }
            listed.push((root.clone(), listing));
        }
        let revision = Digest::of(text.as_bytes()).short();
        if self.revision.as_ref() == Some(&revision) {
            return None;
        }
        let reading = self.take(listed, revision.clone());
        self.revision = Some(revision);
        Some(reading)
    }

    fn take(&mut self, listed: Vec<(PathBuf, Result<list::Listing, String>)>, revision: String) -> Reading {
        let mut files: Vec<FileObjects> = Vec::new();
        let mut contents: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
        let mut unreadable: BTreeMap<String, String> = BTreeMap::new();
        let mut lost: Vec<(String, String)> = Vec::new();
        let mut statuses: Vec<(PathBuf, SourceStatus)> = Vec::new();
        for (root, listing) in listed {
            let mut status =
                SourceStatus { path: root.display().to_string(), state: "ok".to_owned(), ..SourceStatus::default() };
            match listing {
                Err(error) => {
                    "failed".clone_into(&mut status.state);
                    status.errors.push(error.clone());
                    lost.push((root.display().to_string(), error));
                }
                Ok(listing) => {
                    self.last_success.insert(root.clone(), self.clock.unix());
                    status.files = listing.files.len();
                    for (path, content) in listing.files {
                        let name = path.to_string_lossy().into_owned();
                        match content {
                            Ok(bytes) => {
                                files.push(self.parse(&name, &bytes));
                                contents.insert(name, bytes);
                            }
                            Err(error) => {
                                status.errors.push(format!("cannot read {name}: {error}"));
                                unreadable.insert(name, error);
                            }
                        }
                    }
                }
            }
            status.last_success = self.last_success.get(&root).copied();
            statuses.push((root, status));
        }
        self.parsed.retain(|name, _| contents.contains_key(name));

        let retained = self.good.retained(&files, &unreadable, &lost);
        let own = files.len();
        files.extend(retained.iter().map(|(good, ..)| as_file(good)));
        let mut assembly = self.assemble(&files);
        let mut held: BTreeMap<WorkloadId, HeldStatus> = BTreeMap::new();
        for (good, word, sentence) in &retained {
            if let Some(id) = workload_id(&assembly.desired, &self.desired, &good.object.id) {
                held.insert(id, HeldStatus { reason: (*word).to_owned(), message: sentence.clone() });
            }
        }
        // Objects that are good alone but not together: their last good version stays.
        for id in &assembly.broken {
            let Some(workload) = workload_id(&self.desired, &Desired::default(), id) else { continue };
            if let Some(previous) = self.desired.workloads.get(&workload)
                && !assembly.desired.workloads.contains_key(&workload)
            {
                assembly.desired.workloads.insert(workload.clone(), Arc::clone(previous));
                held.entry(workload).or_insert_with(|| HeldStatus {
                    reason: "broken".to_owned(),
                    message: format!("{id} has errors; the last good version is kept"),
                });
            }
        }
        self.remember(&files, own, &assembly.broken, &contents, &retained);
        self.report(&files, own, &assembly.diagnostics, &contents, &mut statuses);
        self.desired = assembly.desired.clone();
        Reading {
            desired: assembly.desired,
            sources: statuses.into_iter().map(|(_, status)| status).collect(),
            held,
            revision,
        }
    }

    fn parse(&mut self, name: &str, bytes: &[u8]) -> FileObjects {
        let digest = Digest::of(bytes);
        if let Some((known, file)) = self.parsed.get(name)
            && *known == digest
        {
            return file.clone();
        }
        let file = parse_file(name, bytes, &ParseOptions::default());
        self.parsed.insert(name.to_owned(), (digest, file.clone()));
        file
    }

    /// Good objects become the last good ones; those that are gone for good are forgotten.
    fn remember(
        &mut self,
        files: &[FileObjects],
        own: usize,
        broken: &[ObjectId],
        contents: &BTreeMap<String, Arc<[u8]>>,
        retained: &[(Good, &'static str, String)],
    ) {
        let mut next: BTreeMap<ObjectId, Good> =
            retained.iter().map(|(good, ..)| (good.object.id.clone(), good.clone())).collect();
        for file in files.iter().take(own) {
            let Some(bytes) = contents.get(&file.name) else { continue };
            for object in &file.objects {
                if broken.contains(&object.id) {
                    if let Some(good) = self.good.objects.get(&object.id) {
                        next.insert(object.id.clone(), good.clone());
                    }
                } else {
                    let good = Good { file: file.name.clone(), bytes: Arc::clone(bytes), object: object.clone() };
                    next.insert(object.id.clone(), good);
                }
            }
        }
        self.good.objects = next;
        if let Err(error) = self.good.save(&self.data_dir, &self.key) {
            tracing::error!(%error, "last good versions not saved: after a reboot a broken manifest would have nothing to fall back to");
        }
    }

    /// Findings as text, in the status of the source that the file is in.
    fn report(
        &self,
        files: &[FileObjects],
        own: usize,
        between: &[Diagnostic],
        contents: &BTreeMap<String, Arc<[u8]>>,
        statuses: &mut [(PathBuf, SourceStatus)],
    ) {
        let all = files.iter().take(own).flat_map(|file| &file.diagnostics).chain(between);
        for finding in all {
            let text = |name: &str| contents.get(name).and_then(|bytes| std::str::from_utf8(bytes).ok());
            let rendered = spec::render::render(std::slice::from_ref(finding), text, false);
            let Some((_, status)) =
                statuses.iter_mut().find(|(root, _)| std::path::Path::new(&finding.file).starts_with(root))
            else {
                continue;
            };
            match finding.severity {
                Severity::Error => status.errors.push(rendered.trim_end().to_owned()),
                Severity::Warning => status.warnings.push(rendered.trim_end().to_owned()),
            }
        }
        for (_, status) in statuses.iter_mut() {
            if status.state == "ok" && !status.errors.is_empty() {
                "degraded".clone_into(&mut status.state);
            }
            for error in &status.errors {
                tracing::error!(source = status.path, "{error}");
            }
        }
    }
}

/// A file that consists of one retained object.
fn as_file(good: &Good) -> FileObjects {
    FileObjects { name: good.file.clone(), objects: vec![good.object.clone()], ..FileObjects::default() }
}

/// The workload that an object is.
fn workload_id(desired: &Desired, before: &Desired, id: &ObjectId) -> Option<WorkloadId> {
    let same = |workload: &&WorkloadId| {
        workload.namespace == id.namespace && workload.name == id.name && workload.kind.to_string() == id.kind
    };
    desired.workloads.keys().find(same).or_else(|| before.workloads.keys().find(same)).cloned()
}

/// How long changes may go on before a reading is due all the same.
pub const LONGEST_DEBOUNCE: Duration = Duration::from_secs(2);
