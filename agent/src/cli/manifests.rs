//! Manifests read without an agent, for `validate` and `plan`: the same listing, parser and rules as the agent's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spec::codes;
use spec::diagnostic::{Diagnostic, Severity};
use spec::manifest::{AssembleOptions, Missing, assemble};
use spec::secret::MacKey;
use spec::workload::Desired;

use super::output::CliError;
use crate::decrypt::{Keyless, Keys, parse};
use crate::discover::{self, FoundFile, Neighbours, Project, SourceError};

/// What stdin is called in findings.
const STDIN: &str = "<stdin>";

/// Everything that some paths hold.
#[derive(Default)]
pub(super) struct Manifests {
    /// The desired state without what is broken.
    pub(super) desired: Desired,
    /// What is wrong or odd, in order of files.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Texts of the files, by name as in the findings.
    pub(super) texts: BTreeMap<String, String>,
    /// Files that hold manifests.
    pub(super) files: usize,
    /// Objects in them that are without errors.
    pub(super) objects: usize,
}

impl Manifests {
    /// Reads all paths. What cannot be listed is an error of the command; what is wrong in a file is a finding.
    /// Encrypted files are opened with the keys where that is possible.
    pub(super) fn read(
        paths: &[PathBuf],
        mut missing: Missing,
        mac_key: &MacKey,
        keys: &Keys,
    ) -> Result<Self, CliError> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        for path in paths {
            for file in list(path)? {
                // Two paths may name the same file.
                let real = std::fs::canonicalize(&file.path).unwrap_or_else(|_| file.path.clone());
                if seen.insert(real) {
                    found.push(file);
                }
            }
        }
        let mut all = Self::default();
        let neighbours = match missing {
            Missing::Error => Neighbours::Known,
            Missing::Warning => Neighbours::Unknown,
        };
        let (projects, rest) = discover::projects(found.iter().map(|file| file.path.as_path()));
        let mut own = BTreeSet::new();
        for project in &projects {
            own.extend(all.compose(project, neighbours)?);
        }
        let mut parsed = Vec::new();
        for FoundFile { path, result } in found {
            let name = path.display().to_string();
            if own.contains(&name) || !rest.contains(&path) {
                continue;
            }
            match result {
                Ok(bytes) => {
                    let file = parse(&name, &bytes, keys, Keyless::Outline);
                    if file.hides {
                        // What others refer to may be in there.
                        missing = Missing::Warning;
                    }
                    let objects = file.objects;
                    if file.lines_fit {
                        all.texts.insert(name.clone(), String::from_utf8_lossy(&bytes).into_owned());
                    }
                    let by_hand = paths.contains(&path) || path == Path::new(STDIN);
                    if objects.compose && by_hand {
                        // Named by hand, so its name does not matter.
                        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
                        all.compose(&Project { dir, name: None, files: vec![path] }, neighbours)?;
                        continue;
                    }
                    if objects.compose {
                        let message = "a Compose file with this name counts only where another one includes it";
                        let hint = "name it compose.yaml or NAME.compose.yaml, or list it in .mainstayignore";
                        all.diagnostics
                            .push(Diagnostic::warning(codes::NOT_A_MANIFEST, &name, None, message).hint(hint));
                    }
                    all.files += usize::from(!objects.not_a_manifest);
                    all.objects += objects.objects.len();
                    let none = objects.not_a_manifest && by_hand && !objects.compose && !file.hides;
                    if none && objects.diagnostics.is_empty() {
                        let message = "the file holds no manifest";
                        let found = Diagnostic::error(codes::NOT_A_MANIFEST, &name, None, message);
                        all.diagnostics.push(found.hint(header_hint()));
                    }
                    // In a directory other files are passed over; a file named by hand was meant.
                    all.diagnostics.extend(objects.diagnostics.iter().cloned().map(|mut found| {
                        if none && found.code == codes::NOT_A_MANIFEST {
                            found.severity = Severity::Error;
                            "this is no manifest".clone_into(&mut found.message);
                        }
                        found
                    }));
                    parsed.push(objects);
                }
                Err(error) => {
                    all.diagnostics.push(Diagnostic::error(codes::UNREADABLE, &name, None, error.report()));
                }
            }
        }
        let assembly = assemble(&parsed, &AssembleOptions { mac_key, node_labels: None, missing });
        let services = std::mem::replace(&mut all.desired, assembly.desired);
        all.desired.workloads.extend(services.workloads);
        all.diagnostics.extend(assembly.diagnostics);
        let place = |d: &Diagnostic| (d.file.clone(), d.span.map_or(0, |span| span.start));
        all.diagnostics.sort_by_key(place);
        Ok(all)
    }

    /// Adds a Compose project; the files that it read.
    fn compose(&mut self, project: &Project, neighbours: Neighbours) -> Result<Vec<String>, CliError> {
        let loaded = discover::load_project(project, neighbours).map_err(|error| CliError::of(&error))?;
        let names: Vec<String> = loaded.files.keys().cloned().collect();
        for (name, bytes) in &loaded.files {
            self.texts.insert(name.clone(), String::from_utf8_lossy(bytes).into_owned());
        }
        self.files += project.files.len();
        // One broken service breaks its project, as with Compose itself.
        if !loaded.diagnostics.iter().any(Diagnostic::is_error) {
            self.objects += loaded.project.workloads.len();
            for workload in loaded.project.workloads {
                if let Some(first) = self.desired.workloads.get(&workload.id) {
                    let id = &workload.id;
                    let message = format!("service `{}` of project `{}` is defined twice", id.name, id.namespace);
                    let found = Diagnostic::error(codes::DUPLICATE_OBJECT, &workload.source.file, None, message);
                    let found = found.hint("give one of the projects another `name:`");
                    self.diagnostics.push(found.note(&first.source.file, None, "first defined here"));
                    continue;
                }
                self.desired.workloads.insert(workload.id.clone(), Arc::new(workload));
            }
        }
        self.diagnostics.extend(loaded.diagnostics);
        Ok(names)
    }

    pub(super) fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count()
    }

    /// The findings with their lines.
    pub(super) fn rendered(&self, color: bool) -> String {
        spec::render::render(&self.diagnostics, |file| self.texts.get(file).map(String::as_str), color)
    }
}

/// What a manifest looks like.
fn header_hint() -> &'static str {
    "a Kubernetes object has `apiVersion` and `kind`, a Compose file has `services`"
}

/// The files of one path; `-` is what comes on stdin.
fn list(path: &Path) -> Result<Vec<FoundFile>, CliError> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().take(discover::MAX_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| CliError::new("cannot read stdin").cause(error))?;
        return Ok(vec![FoundFile { path: STDIN.into(), result: Ok(bytes) }]);
    }
    match discover::discover(path) {
        Ok(listing) => Ok(listing.files),
        Err(error) => {
            let told = CliError::of(&error);
            Err(match error {
                SourceError::Missing(_) => told.hint("give a file or a directory that exists"),
                SourceError::Directory { .. }
                | SourceError::Ignore { .. }
                | SourceError::TooMany(_)
                | SourceError::Restless(_) => told,
            })
        }
    }
}
