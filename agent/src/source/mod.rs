//! Sources of manifests: directories, read again whenever something may have changed.
//!
//! A thread of its own lists, parses and puts objects together, and hands a [`Reading`] to the loop when it differs
//! from the last one. inotify only shortens the wait. Nothing is removed here: objects whose absence is no evidence
//! stay at their last good version, and say so.

mod evidence;
mod lastgood;
mod lost;
mod projects;
mod seal;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spec::diagnostic::{Diagnostic, Severity};
use spec::digest::Digest;
use spec::manifest::{AssembleOptions, FileObjects, Missing, ParseOptions, assemble, parse_file};
use spec::secret::MacKey;
use spec::workload::{Desired, ObjectId, WorkloadId};

use crate::clock::SharedClock;
use crate::decrypt::{Keyless, Keys, ParsedFile, parse};
use crate::discover::{GitState, Listing, Mounts, Project, discover, discover_closed, projects as find_projects};
use crate::follow::View;
use crate::orders::Orders;
use crate::reconciler::Reading;
use crate::status::{HeldStatus, SourceStatus};
use crate::telemetry::Metrics;
use evidence::{Doubt, Known};
use lastgood::{Good, LastGood};
use lost::{Lost, Unreadable};
use projects::ProjectReading;
pub use seal::{NodeKey, SealError};
pub use watch::{Watching, watch};

/// The directories and what was found in each.
type Listed = [(PathBuf, Result<Listing, Unreadable>)];

/// Reads sources.
pub struct Sources {
    roots: Vec<PathBuf>,
    data_dir: PathBuf,
    key: NodeKey,
    mac_key: MacKey,
    node_labels: BTreeMap<String, String>,
    clock: SharedClock,
    metrics: Metrics,
    /// Parsed files by path, as long as their bytes are the same and the keys that open them.
    parsed: HashMap<String, (Digest, ParsedFile)>,
    /// The file with the keys that open encrypted manifests.
    age_identity: Option<PathBuf>,
    keys: Keys,
    good: LastGood,
    /// The last desired state: what a workload falls back to whose references broke.
    desired: Desired,
    last_success: BTreeMap<PathBuf, i64>,
    /// What each source was when it was believed last.
    known: BTreeMap<PathBuf, Known>,
    /// What people approved.
    orders: Orders,
    /// When to look again although nothing happens.
    again: Option<Duration>,
    /// Directories of the last listing, and git's word on them before it.
    directories: Vec<PathBuf>,
    git: GitState,
    /// Files with good objects that the last listing lacked, and since when: gone when they stay away.
    vanishing: BTreeMap<String, Instant>,
    /// The last reading was not certain yet.
    deferred: bool,
    /// What is followed elsewhere, by the directory where its files appear.
    repositories: BTreeMap<PathBuf, View>,
    /// Content and state of everything at the last reading.
    stamp: Option<String>,
    /// Files that services mount one by one.
    bound: BTreeSet<PathBuf>,
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
        metrics: Metrics,
        orders: Orders,
    ) -> Result<Self, SealError> {
        let key = NodeKey::load_or_make(&data_dir.join("node.key"))?;
        let good = LastGood::load(&data_dir, &key).unwrap_or_else(|error| {
            tracing::error!(%error, "last good versions cannot be read: a broken manifest has nothing to fall back to");
            LastGood::default()
        });
        let mac_key = key.mac_key();
        let known = evidence::load(&data_dir);
        let read = |(root, known): (&PathBuf, &Known)| Some((root.clone(), known.read?));
        let last_success = known.iter().filter_map(read).collect();
        let mut sources = Self {
            roots,
            data_dir,
            key,
            mac_key,
            node_labels,
            clock,
            metrics,
            parsed: HashMap::new(),
            age_identity: None,
            keys: Keys::default(),
            good,
            desired: Desired::default(),
            last_success,
            known,
            orders,
            again: None,
            directories: Vec::new(),
            git: GitState::default(),
            vanishing: BTreeMap::new(),
            deferred: false,
            repositories: BTreeMap::new(),
            stamp: None,
            bound: BTreeSet::new(),
        };
        // What was good before the restart is what a reference that is broken now falls back to.
        let files: Vec<FileObjects> = sources.good.objects.values().map(as_file).collect();
        sources.desired = sources.assemble(&files).desired;
        Ok(sources)
    }

    /// Opens encrypted manifests with the keys in this file.
    #[must_use]
    pub fn with_age_identity(mut self, setting: Option<PathBuf>) -> Self {
        self.age_identity = setting;
        self
    }

    /// Adds repositories: their directories become roots like the others.
    #[must_use]
    pub fn with_repositories(mut self, repositories: impl IntoIterator<Item = View>) -> Self {
        for view in repositories {
            self.roots.push(view.root.clone());
            self.repositories.insert(view.root.clone(), view);
        }
        self
    }

    fn assemble(&self, files: &[FileObjects]) -> spec::manifest::Assembly {
        assemble(
            files,
            &AssembleOptions { mac_key: &self.mac_key, node_labels: Some(&self.node_labels), missing: Missing::Error },
        )
    }

    /// When to read again although nothing happened: a source failed, or something has to be confirmed.
    #[must_use]
    pub fn again(&self) -> Option<Duration> {
        self.again
    }

    /// Whether the last [`Sources::read`] saw what may be a moment in the middle of a change.
    #[must_use]
    pub fn is_deferred(&self) -> bool {
        self.deferred
    }

    /// The lock of a git operation that is changing a source now.
    #[must_use]
    pub fn git_lock(&mut self) -> Option<PathBuf> {
        let directories = self.roots.iter().chain(&self.directories).map(PathBuf::as_path);
        self.git = GitState::of(directories);
        self.git.lock.clone()
    }

    /// Whether git has changed something since [`Sources::git_lock`] was asked.
    fn git_moved(&self) -> bool {
        let directories = self.roots.iter().chain(&self.directories).map(PathBuf::as_path);
        GitState::of(directories) != self.git
    }

    /// How long to wait until files with good objects that are in none of the listings are gone. Editors and tools that
    /// remove and write anew leave such a gap for a moment.
    fn left_to_vanish(&mut self, listed: &Listed, lost: &Lost) -> Option<Duration> {
        let there: BTreeSet<&str> = listed
            .iter()
            .filter_map(|(_, listing)| listing.as_ref().ok())
            .flat_map(|listing| &listing.files)
            .filter_map(|file| file.path.to_str())
            .collect();
        let now = Instant::now();
        let since = |file: &str| self.vanishing.get(file).copied().unwrap_or(now);
        let vanished: BTreeMap<String, Instant> = self
            .good
            .files()
            .filter(|file| !there.contains(file) && lost.why(file).is_none())
            .map(|file| (file.to_owned(), since(file)))
            .collect();
        let left = vanished.values().max().map(|since| (*since + CONFIRM).saturating_duration_since(now));
        self.vanishing = vanished;
        left.filter(|left| !left.is_zero())
    }

    /// Reads everything; `None` when it is all as it was, or not certain yet (see [`Sources::again`]).
    pub fn read(&mut self) -> Option<Reading> {
        let mut listed = Vec::new();
        let mut text = String::new();
        let mut known = self.known.clone();
        for root in &self.roots {
            let view = self.repositories.get(root);
            let followed = view.is_some();
            let listing = if followed { discover_closed(root) } else { discover(root) }
                .map_err(|error| match view.filter(|view| view.status().revision.is_none()) {
                    Some(view) => Unreadable::unfetched(&view.label),
                    None => Unreadable { message: spec::causes::chain(&error), approve: None, unfetched: false },
                })
                .and_then(|listing| self.believe(root, listing, &mut known));
            if !followed {
                if listing.is_ok() {
                    self.last_success.insert(root.clone(), self.clock.unix());
                }
                // A clock of today fits a float to the microsecond. 0 stands for never.
                let last = self.last_success.get(root).copied().unwrap_or(0);
                self.metrics.source_success(&root.display().to_string(), last as f64);
            }
            match &listing {
                Ok(listing) => {
                    for file in &listing.files {
                        text.push_str(&file.path.to_string_lossy());
                        match &file.result {
                            Ok(bytes) => text.push_str(&Digest::of(bytes).hex()),
                            Err(error) => text.push_str(&error.to_string()),
                        }
                    }
                    text.push_str(&format!("{:?}", listing.identity));
                }
                Err(error) => text.push_str(&error.message),
            }
            listed.push((root.clone(), listing));
        }
        if known != self.known {
            evidence::save(&self.data_dir, &known);
            self.known = known;
        }
        self.again = listed.iter().any(|(_, listing)| listing.is_err()).then_some(FAILED);
        let directories = listed.iter().filter_map(|(_, listing)| listing.as_ref().ok());
        let directories: Vec<PathBuf> = directories.flat_map(|listing| listing.directories.iter().cloned()).collect();
        let moved = self.git_moved().then_some(CONFIRM);
        self.directories = directories;
        let lost = Lost::of(&listed);
        let left = moved.max(self.left_to_vanish(&listed, &lost));
        self.deferred = left.is_some();
        if self.deferred {
            self.again = left;
            return None;
        }
        let projects = self.load_projects(&listed);
        self.bound.clear();
        for (main, project) in &projects {
            text.push_str(main);
            match project {
                Ok(project) => {
                    for (name, bytes) in &project.loaded.files {
                        text.push_str(name);
                        text.push_str(&Digest::of(bytes).hex());
                    }
                    text.push_str(&format!("{:?}", project.loaded.bound));
                    self.bound.extend(project.loaded.bound.keys().map(PathBuf::from));
                }
                Err(error) => text.push_str(error),
            }
        }
        let revision = Digest::of(text.as_bytes()).short();
        let keys = Keys::load(self.age_identity.as_deref());
        if keys.stamp() != self.keys.stamp() {
            // What did not open may open now.
            self.parsed.clear();
        }
        let stamp = format!("{revision} {}", keys.stamp());
        self.keys = keys;
        let stamp = self.repositories.values().fold(stamp, |stamp, view| format!("{stamp}{:?}", view.status()));
        if self.stamp.as_ref() == Some(&stamp) {
            return None;
        }
        self.stamp = Some(stamp);
        Some(self.take(listed, &lost, projects, revision))
    }

    /// Whether a listing is evidence of what is wished.
    fn believe(
        &self,
        root: &std::path::Path,
        listing: Listing,
        known: &mut BTreeMap<PathBuf, Known>,
    ) -> Result<Listing, Unreadable> {
        let mounts = Mounts::now();
        let now = Known::of(&listing, &mounts).read_at(self.clock.unix(), self.known.get(root));
        // A revision was named by its remote: that is evidence, whatever directory it is in.
        let doubt = if self.repositories.contains_key(root) {
            None
        } else {
            evidence::judge(root, self.known.get(root), &now, |point| mounts.has(point), self.good.is_below(root))
        };
        match doubt {
            Some(Doubt { id, message }) if !self.orders.is_approved(&id) => {
                Err(Unreadable { message, approve: Some(id), unfetched: false })
            }
            Some(_) | None => {
                known.insert(root.to_owned(), now);
                Ok(listing)
            }
        }
    }

    /// Compose projects among the listed files, by their main file. A file that is a source itself may have any name.
    fn load_projects(&self, listed: &Listed) -> BTreeMap<String, Result<ProjectReading, String>> {
        let mut found = BTreeMap::new();
        for (root, listing) in listed {
            let Ok(listing) = listing else { continue };
            let (mut projects, rest) = find_projects(listing.files.iter().map(|file| file.path.as_path()));
            if rest.as_slice() == [root.clone()]
                && listing.files.iter().any(|file| {
                    file.result
                        .as_ref()
                        .is_ok_and(|bytes| parse_file(&root.to_string_lossy(), bytes, &ParseOptions::default()).compose)
                })
            {
                let dir = root.parent().map(std::path::Path::to_owned).unwrap_or_default();
                projects.push(Project { dir, name: None, files: rest });
            }
            for project in &projects {
                let main = project.files.first().map(|file| file.display().to_string()).unwrap_or_default();
                found.insert(main, ProjectReading::of(project));
            }
        }
        found
    }

    /// Puts projects into the desired state: as they are now when they are good, else at their last good version.
    fn add_projects(
        &mut self,
        projects: BTreeMap<String, Result<ProjectReading, String>>,
        lost: &Lost,
        desired: &mut Desired,
        held: &mut BTreeMap<WorkloadId, HeldStatus>,
    ) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        let mut next = BTreeMap::new();
        for (main, project) in projects {
            let (reason, message) = match project {
                Ok(project) => {
                    findings.extend(project.loaded.diagnostics.iter().cloned());
                    if project.is_good() {
                        project.loaded.project.add_to(desired);
                        next.insert(project.main, project.loaded.project);
                        continue;
                    }
                    ("broken", format!("{main} has errors; the last good version is kept"))
                }
                Err(error) => {
                    findings.push(Diagnostic::error(spec::codes::UNREADABLE, &main, None, error.clone()));
                    ("unreadable", format!("{error}; the last good version is kept"))
                }
            };
            if let Some(good) = self.good.projects.get(&main) {
                hold_project(good, desired, held, reason, &message);
                next.insert(main, good.clone());
            }
        }
        for (main, good) in &self.good.projects {
            if let (false, Some(error)) = (next.contains_key(main), lost.why(main)) {
                let message = format!("{error}; the last good version is kept");
                hold_project(good, desired, held, "source_failed", &message);
                next.insert(main.clone(), good.clone());
            }
        }
        self.good.projects = next;
        findings
    }

    fn take(
        &mut self,
        listed: Vec<(PathBuf, Result<Listing, Unreadable>)>,
        lost: &Lost,
        projects: BTreeMap<String, Result<ProjectReading, String>>,
        revision: String,
    ) -> Reading {
        let of_projects: std::collections::BTreeSet<String> =
            projects.values().flatten().flat_map(|project| project.loaded.files.keys().cloned()).collect();
        let mut files: Vec<FileObjects> = Vec::new();
        let mut contents: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
        // What was encrypted, as it is open; never shown.
        let mut opened: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
        let mut unreadable: BTreeMap<String, String> = BTreeMap::new();
        let mut statuses: Vec<(PathBuf, SourceStatus)> = Vec::new();
        for (root, listing) in listed {
            let mut status =
                SourceStatus { path: root.display().to_string(), state: "ok".to_owned(), ..SourceStatus::default() };
            match listing {
                Err(error) => {
                    "failed".clone_into(&mut status.state);
                    status.errors.push(error.message);
                    status.approve = error.approve;
                }
                Ok(listing) => {
                    status.files = listing.files.len();
                    for file in listing.files {
                        let name = file.path.to_string_lossy().into_owned();
                        match file.result {
                            // A manifest without a byte is one that is being written, or that a full disk left behind.
                            Ok(bytes) if bytes.is_empty() && self.good.came_from(&name) => {
                                let error = "the file is empty; remove it to remove what was in it".to_owned();
                                status.broken += 1;
                                status.errors.push(format!("{name}: {error}"));
                                unreadable.insert(name, error);
                            }
                            Ok(bytes) => {
                                if !of_projects.contains(&name) {
                                    let file = self.parse(&name, &bytes);
                                    if let Some(text) = file.opened {
                                        opened.insert(name.clone(), text.into());
                                    }
                                    files.push(file.objects);
                                    if !file.lines_fit {
                                        contents.insert(name, Arc::default());
                                        continue;
                                    }
                                }
                                contents.insert(name, bytes.into());
                            }
                            Err(error) => {
                                let error = spec::causes::chain(&error);
                                status.broken += 1;
                                status.errors.push(format!("cannot read {name}: {error}"));
                                unreadable.insert(name, error);
                            }
                        }
                    }
                }
            }
            status.last_success = self.last_success.get(&root).copied();
            if let Some(view) = self.repositories.get(&root) {
                view.tell(&mut status);
            }
            statuses.push((root, status));
        }
        self.parsed.retain(|name, _| contents.contains_key(name));

        let retained = self.good.retained(&files, &unreadable, lost);
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
        for project in projects.values().flatten() {
            contents.extend(project.loaded.files.iter().map(|(name, bytes)| (name.clone(), Arc::clone(bytes))));
        }
        let found = self.add_projects(projects, lost, &mut assembly.desired, &mut held);
        assembly.diagnostics.extend(found);
        let plain: BTreeMap<&String, &Arc<[u8]>> = contents.iter().chain(&opened).collect();
        self.remember(&files, own, &assembly.broken, &plain, &retained);
        self.report(&files, own, &assembly.diagnostics, &contents, &mut statuses);
        self.desired = assembly.desired.clone();
        Reading {
            desired: assembly.desired,
            sources: statuses.into_iter().map(|(_, status)| status).collect(),
            held,
            revision,
            number: 0,
        }
    }

    fn parse(&mut self, name: &str, bytes: &[u8]) -> ParsedFile {
        let digest = Digest::of(bytes);
        if let Some((known, file)) = self.parsed.get(name)
            && *known == digest
        {
            return file.clone();
        }
        let file = parse(name, bytes, &self.keys, Keyless::Refuse);
        self.parsed.insert(name.to_owned(), (digest, file.clone()));
        file
    }

    /// Good objects become the last good ones; those that are gone for good are forgotten.
    fn remember(
        &mut self,
        files: &[FileObjects],
        own: usize,
        broken: &[ObjectId],
        contents: &BTreeMap<&String, &Arc<[u8]>>,
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
        for (root, status) in statuses.iter_mut() {
            let with_errors: std::collections::BTreeSet<&str> = files
                .iter()
                .take(own)
                .flat_map(|file| &file.diagnostics)
                .chain(between)
                .filter(|finding| finding.is_error() && std::path::Path::new(&finding.file).starts_with(&*root))
                .map(|finding| finding.file.as_str())
                .collect();
            status.broken += with_errors.len();
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

/// Keeps a project at a last good version.
fn hold_project(
    good: &spec::manifest::compose::ComposeProject,
    desired: &mut Desired,
    held: &mut BTreeMap<WorkloadId, HeldStatus>,
    reason: &str,
    message: &str,
) {
    good.add_to(desired);
    for workload in &good.workloads {
        let status = HeldStatus { reason: reason.to_owned(), message: message.to_owned() };
        held.insert(workload.id.clone(), status);
    }
}

/// The workload that an object is.
fn workload_id(desired: &Desired, before: &Desired, id: &ObjectId) -> Option<WorkloadId> {
    let same = |workload: &&WorkloadId| {
        workload.namespace == id.namespace && workload.name == id.name && workload.kind.to_string() == id.kind
    };
    desired.workloads.keys().find(same).or_else(|| before.workloads.keys().find(same)).cloned()
}

/// A source that failed is looked at again after so long.
const FAILED: Duration = Duration::from_secs(1);

/// What may be a moment in the middle of a change is looked at again after so long.
const CONFIRM: Duration = Duration::from_millis(250);

/// How long changes may go on before a reading is due all the same.
pub const LONGEST_DEBOUNCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
