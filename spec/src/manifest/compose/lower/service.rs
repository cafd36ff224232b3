//! A service as a workload.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Lower;
use crate::codes;
use crate::manifest::compose::FileState;
use crate::manifest::compose::dotenv;
use crate::manifest::compose::sink::Hint;
use crate::manifest::compose::tree::{Fields, Item, Tree, Val, join_key};
use crate::manifest::security::{SysctlOwner, sysctl_owner};
use crate::pod::{ContainerSpec, PodSpec, RestartPolicy};
use crate::time::Millis;
use crate::workload::{Controller, Dependency, DependencyCondition, PodTemplate, SourceRef, Workload};

/// Docker's time between stop signal and SIGKILL.
const GRACE: Millis = Millis::from_secs(10);

impl Lower<'_, '_> {
    pub(super) fn service(&mut self, name: &str, item: &Item) -> Workload {
        let tree = &item.tree;
        let path = join_key("services", name);
        let mut spec = PodSpec {
            hostname: tree.text_of("hostname").map(str::to_owned),
            domainname: tree.text_of("domainname").map(str::to_owned),
            termination_grace: Some(tree.duration_of("stop_grace_period").unwrap_or(GRACE)),
            shm_size: tree.bytes_of("shm_size"),
            sysctls: tree.pairs_of("sysctls").into_iter().map(|(k, v, _)| (k, v.unwrap_or_default())).collect(),
            ..PodSpec::default()
        };
        let mut container = ContainerSpec { name: name.to_owned(), ..ContainerSpec::default() };
        self.container(tree, &path, item, &mut container);
        self.resources(tree, &path, &mut container);
        self.security(tree, &path, &mut spec, &mut container);
        self.mounts(name, tree, &path, &mut spec, &mut container);
        self.file_mounts(tree, &path, &mut spec, &mut container);
        let labels = self.labels(tree, &path);
        self.health(tree, &path, &labels, &mut container);
        self.ports(tree, &path, &mut container);
        self.join_networks(name, tree, &path, &mut spec);
        self.check_sysctls(tree, &path, &spec);
        self.restart(tree, &path, &mut spec);
        if spec.restart_policy == Some(RestartPolicy::Never) {
            // Nothing would start it again: an unhealthy container that runs is better than none, as with Docker.
            container.liveness = None;
        }
        container.labels.clone_from(&labels);
        let annotations = plain(tree, "annotations");
        self.pre_start(tree, &path, &container, &mut spec);
        spec.containers = vec![container];
        let (replicas, strategy) = self.scale(tree, &path);
        if replicas > 1
            && let Some(at) = tree.get("container_name")
        {
            let message = format!("a service with {replicas} replicas cannot have a container name");
            let path = join_key(&path, "container_name");
            self.sink().error(codes::CONFLICT, at, &path, message).help("remove `container_name`: names are unique");
        }
        let depends_on = self.dependencies(name, tree, &path);
        let deploy_labels = tree.get("deploy").map(|deploy| plain(deploy, "labels")).unwrap_or_default();
        Workload {
            id: self.id(name),
            source: SourceRef { file: self.session.sink.name(item.key).to_owned(), line: item.key.span.line },
            labels: labels.iter().chain(&deploy_labels).map(|(k, v)| (k.clone(), v.clone())).collect(),
            annotations: annotations.clone(),
            controller: Controller::Replicated { replicas, strategy },
            template: PodTemplate { labels, annotations, spec: Arc::new(spec), bound: BTreeMap::new() },
            depends_on,
        }
    }

    /// Kernel parameters that would change more than the service: Docker refuses them as well, when it starts it.
    fn check_sysctls(&mut self, tree: &Tree, path: &str, spec: &PodSpec) {
        let Some(at) = tree.get("sysctls") else { return };
        let path = join_key(path, "sysctls");
        for name in spec.sysctls.keys().map(|name| name.replace('/', ".")) {
            let other = spec.network_of.as_ref().map(|service| format!("service:{service}"));
            let network = if spec.host_network { Some("host".to_owned()) } else { other };
            let (code, message) = match (sysctl_owner(&name), network) {
                (Some(SysctlOwner::Network), Some(mode)) => {
                    (codes::CONFLICT, format!("the sysctl `{name}` would change more with `network_mode: {mode}`"))
                }
                (Some(SysctlOwner::Ipc), _) if spec.host_ipc => {
                    (codes::CONFLICT, format!("the sysctl `{name}` would change the host with `ipc: host`"))
                }
                (None, _) if ["kernel.", "vm.", "fs.", "dev.", "user."].iter().any(|start| name.starts_with(start)) => {
                    (codes::BAD_VALUE, format!("the sysctl `{name}` belongs to the whole host, not to a service"))
                }
                _ => continue,
            };
            self.sink().error(code, at, &path, message).help("set it in /etc/sysctl.d of the host");
        }
    }

    fn labels(&mut self, tree: &Tree, path: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for (file, place) in tree.strings_of("label_file") {
            let target = self.read_path(place, &file);
            match self.session.file(&target) {
                Some(FileState::Content(bytes)) => match dotenv::parse(bytes, &|_: &str| None) {
                    Ok(entries) => labels.extend(entries.into_iter().map(|(k, v)| (k, v.unwrap_or_default()))),
                    Err(error) => self.session.bad_env_file(&target, &error),
                },
                Some(FileState::Missing | FileState::Directory) => {
                    let message = format!("the label file `{}` does not exist", target.display());
                    self.missing(place, &join_key(path, "label_file"), message);
                }
                None => {}
            }
        }
        labels.extend(plain(tree, "labels"));
        labels
    }

    fn dependencies(&mut self, name: &str, tree: &Tree, path: &str) -> Vec<Dependency> {
        let mut found: Vec<Dependency> = Vec::new();
        let path = join_key(path, "depends_on");
        match tree.get("depends_on").map(|t| (&t.val, t)) {
            Some((Val::Seq(items), _)) => {
                for item in items {
                    if let Some(other) = item.str() {
                        self.dependency(other, item, &path, None, &mut found);
                    }
                }
            }
            Some((Val::Map(map), _)) => {
                for (other, item) in map {
                    let at = Tree { place: item.key, ..item.tree.clone() };
                    self.dependency(other, &at, &join_key(&path, other), Some(&item.tree), &mut found);
                }
            }
            _ => {}
        }
        // What shares something with another service starts after it (compose-go, Normalize).
        let mut implied: Vec<(String, &Tree)> = Vec::new();
        for (key, separator) in [("links", ':'), ("volumes_from", ':')] {
            for item in tree.get(key).and_then(Tree::seq).unwrap_or_default() {
                let other = item.str().and_then(|text| text.split(separator).next()).unwrap_or_default();
                if other != "container" {
                    implied.push((other.to_owned(), item));
                }
            }
        }
        if let Some(mode) = tree.get("network_mode")
            && let Some(other) = mode.str().and_then(|text| text.strip_prefix("service:"))
        {
            implied.push((other.to_owned(), mode));
        }
        let network_of = tree.text_of("network_mode").and_then(|mode| mode.strip_prefix("service:"));
        for (other, at) in implied {
            if self.service_names().contains(&other) && found.iter().any(|d| d.workload.name == other) {
                continue;
            }
            let key = if at.str().is_some_and(|text| text.starts_with("service:")) { "network_mode" } else { "links" };
            let path = join_key(path.trim_end_matches(".depends_on"), key);
            self.dependency(&other, at, &path, None, &mut found);
        }
        // What is in the network of a pod that has been replaced is in none (compose-go sets `restart` likewise).
        for dependency in found.iter_mut().filter(|dependency| Some(dependency.workload.name.as_str()) == network_of) {
            dependency.restart = true;
        }
        let _ = name;
        found
    }

    fn service_names(&self) -> Vec<String> {
        let services = self.model.get("services").and_then(Tree::map);
        services.map(|map: &Fields| map.keys().cloned().collect()).unwrap_or_default()
    }

    fn dependency(&mut self, other: &str, at: &Tree, path: &str, options: Option<&Tree>, found: &mut Vec<Dependency>) {
        let required = options.and_then(|options| options.bool_of("required")).unwrap_or(true);
        if !self.enabled.contains(other) {
            let known = self.service_names();
            if known.iter().any(|name| name == other) {
                // `required: false` is about services that are disabled, not about ones that nobody wrote.
                if !required {
                    return;
                }
                let profiles: Vec<String> = self
                    .model
                    .get("services")
                    .and_then(|services| services.get(other))
                    .map(|service| service.strings_of("profiles").into_iter().map(|(name, _)| name).collect())
                    .unwrap_or_default();
                let message = format!("the service `{other}` is needed but disabled by its profiles");
                self.sink()
                    .error(codes::DISABLED_SERVICE, at, path, message)
                    .help(format!("enable one of its profiles: {}", profiles.join(", ")));
            } else {
                self.undefined("service", other, at, path, &known);
            }
            return;
        }
        let condition = match options.and_then(|options| options.text_of("condition")) {
            Some("service_healthy") => DependencyCondition::Healthy,
            Some("service_completed_successfully") => DependencyCondition::CompletedSuccessfully,
            _ => DependencyCondition::Started,
        };
        found.push(Dependency {
            workload: self.id(other),
            condition,
            restart: options.and_then(|options| options.bool_of("restart")).unwrap_or(false),
            required,
        });
    }
}

/// Pairs where a missing value is an empty one.
pub(super) fn plain(tree: &Tree, key: &str) -> BTreeMap<String, String> {
    tree.pairs_of(key).into_iter().map(|(key, value, _)| (key, value.unwrap_or_default())).collect()
}
