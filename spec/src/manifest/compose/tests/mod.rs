//! Whole files: what they become, and what is said about them.

mod accepted;
mod lowering;
mod merging;
mod refused;
mod robust;

use std::path::PathBuf;
use std::sync::Arc;

use super::{ComposeInput, ComposeProject, FileState, Step, load};
use crate::diagnostic::Diagnostic;
use crate::pod::{ContainerSpec, EnvSource, PodSpec};
use crate::workload::Workload;

/// Files by name; a file is named `compose.yaml` when it is the main one, `override.yaml` is merged over it.
pub(super) struct Project {
    files: Vec<(String, String)>,
    pub(super) input: ComposeInput,
}

impl Project {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let main = ["compose.yaml", "override.yaml"];
        let input = ComposeInput {
            files: main.iter().filter(|m| files.iter().any(|(n, _)| n == *m)).map(PathBuf::from).collect(),
            project_dir: "/srv/Shop".into(),
            home: "/root".into(),
            ..ComposeInput::default()
        };
        Self { files: files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(), input }
    }

    pub(super) fn one(text: &str) -> Self {
        Self::new(&[("compose.yaml", text)])
    }

    /// Loads as a caller with a file system would.
    pub(super) fn load(mut self) -> (ComposeProject, Vec<Diagnostic>) {
        for _ in 0..20 {
            match load(&self.input) {
                Step::Done(project, diagnostics) => return (*project, diagnostics),
                Step::Need(paths) => {
                    assert!(!paths.is_empty(), "something is asked for");
                    for path in paths {
                        let name = path.display().to_string();
                        let state = match self.files.iter().find(|(other, _)| *other == name) {
                            Some((_, text)) => FileState::Content(Arc::from(text.as_bytes())),
                            None if name.ends_with("/dir") => FileState::Directory,
                            None => FileState::Missing,
                        };
                        let known = self.input.contents.insert(path, state);
                        assert!(known.is_none(), "{name} is asked for once");
                    }
                }
            }
        }
        panic!("the loader asks for ever more files");
    }

    /// Loads without any error.
    pub(super) fn good(self) -> ComposeProject {
        let (project, diagnostics) = self.load();
        let errors: Vec<_> = diagnostics.iter().filter(|d| d.is_error()).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        project
    }

    /// What is said, one line for each finding.
    pub(super) fn said(self) -> Vec<String> {
        let (_, diagnostics) = self.load();
        diagnostics
            .iter()
            .map(|d| {
                let place = d.span.map_or(String::new(), |span| format!(":{}:{}", span.line, span.column));
                let kind = if d.is_error() { "error" } else { "warning" };
                let hint = d.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
                format!("{kind}[{}] {}{place}: {}{hint}", d.code, d.file, d.message)
            })
            .collect()
    }
}

/// A service `a` with these lines, four spaces in.
pub(super) fn service(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("services:\n  a:\n    image: app\n{lines}")
}

pub(super) fn workload<'p>(project: &'p ComposeProject, name: &str) -> &'p Workload {
    project.workloads.iter().find(|w| w.id.name == name).expect("the service is there")
}

pub(super) fn pod<'p>(project: &'p ComposeProject, name: &str) -> &'p PodSpec {
    &workload(project, name).template.spec
}

pub(super) fn container<'p>(project: &'p ComposeProject, name: &str) -> &'p ContainerSpec {
    pod(project, name).containers.first().expect("a pod has a container")
}

pub(super) fn env(project: &ComposeProject, name: &str) -> String {
    let pairs: Vec<String> = container(project, name)
        .env
        .iter()
        .map(|var| match &var.source {
            EnvSource::Literal(value) => format!("{}={value}", var.name),
            other => format!("{}: {other:?}", var.name),
        })
        .collect();
    pairs.join(" ")
}
