//! Compose projects of a source: loaded with everything they refer to, each with its last good version.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use spec::diagnostic::Diagnostic;
use spec::manifest::compose::ComposeProject;
use spec::secret::SecretBytes;
use spec::workload::{ConfigData, NetworkSpec, SecretData, Workload};

use crate::discover::{LoadedProject, Neighbours, Project, load_project};

/// A project as it was read now.
pub(super) struct ProjectReading {
    /// Its main file: what the project is known by here.
    pub main: String,
    /// What was read.
    pub loaded: LoadedProject,
}

impl ProjectReading {
    /// Reads a project.
    pub(super) fn of(project: &Project) -> Result<Self, String> {
        let main = project.files.first().map(|file| file.display().to_string()).unwrap_or_default();
        let loaded =
            load_project(project, Neighbours::Known).map_err(|error| format!("cannot load {main}: {error}"))?;
        Ok(Self { main, loaded })
    }

    /// One broken service breaks its project, as with Compose itself.
    pub(super) fn is_good(&self) -> bool {
        !self.loaded.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// A project in the form that is kept on disk (sealed: it contains secrets).
#[derive(Serialize, Deserialize)]
pub(super) struct StoredProject {
    main: String,
    name: String,
    workloads: Vec<Workload>,
    configs: BTreeMap<String, ConfigData>,
    secrets: BTreeMap<String, StoredSecret>,
    networks: Vec<NetworkSpec>,
}

#[derive(Serialize, Deserialize)]
struct StoredSecret {
    kind: String,
    data: BTreeMap<String, String>,
}

impl StoredProject {
    pub(super) fn of(main: &str, project: &ComposeProject) -> Self {
        let secret = |data: &SecretData| StoredSecret {
            kind: data.kind.clone(),
            data: data.data.iter().map(|(key, value)| (key.clone(), STANDARD.encode(value.expose()))).collect(),
        };
        Self {
            main: main.to_owned(),
            name: project.name.clone(),
            workloads: project.workloads.clone(),
            configs: project.configs.clone(),
            secrets: project.secrets.iter().map(|(name, data)| (name.clone(), secret(data))).collect(),
            networks: project.networks.clone(),
        }
    }

    pub(super) fn into_project(self) -> (String, ComposeProject) {
        let secret = |stored: StoredSecret| SecretData {
            kind: stored.kind,
            data: stored
                .data
                .into_iter()
                .filter_map(|(key, value)| Some((key, SecretBytes::new(STANDARD.decode(value).ok()?))))
                .collect(),
        };
        let project = ComposeProject {
            name: self.name,
            workloads: self.workloads,
            configs: self.configs,
            secrets: self.secrets.into_iter().map(|(name, stored)| (name, secret(stored))).collect(),
            networks: self.networks,
            ..ComposeProject::default()
        };
        (self.main, project)
    }
}
