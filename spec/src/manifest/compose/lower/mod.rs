//! From a merged and checked file to workloads: names are resolved, defaults of Docker are filled in where they differ
//! from the pod's, and what belongs together across services (references, cycles, names) is checked.

mod container;
mod deploy;
mod files;
mod health;
mod mounts;
mod network;
mod security;
mod service;
mod top;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::ComposeProject;
use super::session::Session;
use super::sink::{Hint, Sink, closest};
use super::tree::{Fields, Place, Tree, join_key};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::pod::Port;
use crate::workload::{ConfigData, NetworkSpec, SecretData, WorkloadId, WorkloadKind};

/// What is known while services are lowered.
pub(super) struct Lower<'s, 'a> {
    session: &'s mut Session<'a>,
    project: String,
    model: &'s Tree,
    /// Services that run.
    enabled: BTreeSet<String>,
    networks: BTreeMap<String, top::Network>,
    volumes: BTreeMap<String, top::NamedVolume>,
    configs: BTreeMap<String, ConfigData>,
    secrets: BTreeMap<String, SecretData>,
    /// Networks that a service joins.
    used_networks: BTreeSet<String>,
    /// Ports of the host that services take.
    published: Vec<(String, Port, Place)>,
}

/// Makes workloads of a project.
pub(super) fn lower(
    session: &mut Session<'_>,
    model: &Tree,
    project: String,
    profiles: &BTreeSet<String>,
) -> ComposeProject {
    let empty = Fields::new();
    let services = model.get("services").and_then(Tree::map).unwrap_or(&empty);
    let enabled: BTreeSet<String> = services
        .iter()
        .filter(|(_, item)| {
            let own = item.tree.strings_of("profiles");
            own.is_empty() || profiles.contains("*") || own.iter().any(|(name, _)| profiles.contains(name))
        })
        .map(|(name, _)| name.clone())
        .collect();
    let mut lower = Lower {
        session,
        project,
        model,
        enabled,
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        configs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        used_networks: BTreeSet::new(),
        published: Vec::new(),
    };
    lower.top_level();
    let mut workloads = Vec::new();
    for (name, item) in services {
        if lower.enabled.contains(name) && item.tree.map().is_some() {
            workloads.push(lower.service(name, item));
        }
    }
    lower.volumes_from(services, &mut workloads);
    lower.link_aliases(services, &mut workloads);
    lower.container_names(services);
    lower.cycles(services, &workloads);
    let networks = lower.used_network_specs();
    ComposeProject {
        name: lower.project,
        workloads,
        configs: lower.configs,
        secrets: lower.secrets,
        networks,
        disabled: services.keys().filter(|name| !lower.enabled.contains(*name)).cloned().collect(),
    }
}

impl Lower<'_, '_> {
    fn sink(&mut self) -> &mut Sink {
        &mut self.session.sink
    }

    fn id(&self, service: &str) -> WorkloadId {
        WorkloadId { kind: WorkloadKind::Service, namespace: self.project.clone(), name: service.to_owned() }
    }

    fn used_network_specs(&self) -> Vec<NetworkSpec> {
        self.used_networks.iter().filter_map(|key| self.networks.get(key)).map(|network| network.spec.clone()).collect()
    }

    /// An absolute path for what was written at a place; `~` is the home directory of the input.
    fn host_path(&self, at: &Tree, written: &str) -> String {
        let home = &self.session.input.home;
        let path = match written.strip_prefix('~') {
            Some("") => home.clone(),
            Some(rest) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
            _ => self.session.sink.resolve(at.place, written),
        };
        super::sink::normalise(&self.session.input.project_dir.join(path)).display().to_string()
    }

    /// The same for files that are read while loading: relative to the project directory where possible.
    fn read_path(&self, at: super::tree::Place, written: &str) -> std::path::PathBuf {
        let input = self.session.input;
        let path = match written.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => input.home.join(rest.trim_start_matches('/')),
            _ => self.session.sink.resolve(at, written),
        };
        path.strip_prefix(&input.project_dir).map(Path::to_path_buf).unwrap_or(path)
    }

    /// A file beside the Compose files is missing.
    fn missing(&mut self, at: Place, path: &str, message: String) -> &mut Diagnostic {
        if self.session.input.neighbours_unknown {
            self.sink().warn_at(codes::MISSING_FILE, at, path, message)
        } else {
            self.sink().error_at(codes::MISSING_FILE, at, path, message)
        }
    }

    /// An error for a name that is not declared, with the one that was probably meant.
    fn undefined(&mut self, what: &str, name: &str, at: &Tree, path: &str, known: &[String]) {
        let near = closest(name, known.iter().map(String::as_str)).map(str::to_owned);
        let message = format!("{what} `{name}` is not defined");
        let found = self.sink().error(codes::BAD_REFERENCE, at, path, message);
        match near {
            Some(near) => found.help(format!("did you mean `{near}`?")),
            None => found.help(format!("declare it under the top-level `{what}s:`")),
        };
    }

    /// Names of containers are used once.
    fn container_names(&mut self, services: &Fields) {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, item) in services.iter().filter(|(name, _)| self.enabled.contains(*name)) {
            let Some(at) = item.tree.get("container_name") else { continue };
            let Some(container) = at.str().filter(|name| !name.is_empty() || !at.unset) else { continue };
            // Docker's rule for names of containers (moby, RestrictedNamePattern).
            let mut letters = container.chars();
            let first = letters.next().is_some_and(|c| c.is_ascii_alphanumeric());
            let rest = letters.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
            if container.len() < 2 || !first || !rest {
                let path = join_key(&join_key("services", name), "container_name");
                self.session
                    .sink
                    .error(codes::BAD_NAME, at, &path, format!("`{container}` is not the name of a container"))
                    .help("use two or more letters, digits, `_`, `.` and `-`, beginning with a letter or digit");
            }
            if let Some(other) = seen.insert(container, name) {
                let path = join_key(&join_key("services", name), "container_name");
                let message = format!("the container name `{container}` is also used by the service `{other}`");
                self.session
                    .sink
                    .error(codes::DUPLICATE_ENTRY, at, &path, message)
                    .help("container names must be unique");
            }
        }
    }

    /// Services do not wait for each other in a circle.
    fn cycles(&mut self, services: &Fields, workloads: &[crate::workload::Workload]) {
        let edges: BTreeMap<&str, Vec<&str>> = workloads
            .iter()
            .map(|w| (w.id.name.as_str(), w.depends_on.iter().map(|d| d.workload.name.as_str()).collect()))
            .collect();
        let Some(circle) = circle(&edges) else { return };
        let Some(item) = circle.first().and_then(|name| services.get(*name)) else { return };
        let path = join_key(&join_key("services", circle.first().unwrap_or(&"")), "depends_on");
        let at = item.tree.get("depends_on").map_or(item.key, |tree| tree.place);
        let message = format!("services depend on each other in a circle: {}", circle.join(" -> "));
        self.session
            .sink
            .error_at(codes::DEPENDENCY_CYCLE, at, &path, message)
            .help("remove one of these dependencies");
    }
}

/// A way through the edges that comes back to its start, which stands at both ends.
fn circle<'n>(edges: &BTreeMap<&'n str, Vec<&'n str>>) -> Option<Vec<&'n str>> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in edges.keys().copied() {
        // The way so far: a name and how many of its edges were followed.
        let mut way: Vec<(&'n str, usize)> = vec![(start, 0)];
        let mut on_way: BTreeSet<&str> = BTreeSet::from([start]);
        while let Some((name, followed)) = way.last_mut() {
            let next = edges.get(name).and_then(|to| to.get(*followed)).copied();
            *followed += 1;
            match next {
                None => {
                    done.insert(name);
                    on_way.remove(name);
                    way.pop();
                }
                Some(next) if on_way.contains(next) => {
                    let from = way.iter().position(|(name, _)| *name == next).unwrap_or(0);
                    return Some(way.iter().skip(from).map(|(name, _)| *name).chain([next]).collect());
                }
                Some(next) if done.contains(next) => {}
                Some(next) => {
                    on_way.insert(next);
                    way.push((next, 0));
                }
            }
        }
    }
    None
}
