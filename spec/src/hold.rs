//! Changes that are held back: what is wished, with some workloads as they were before. What they refer to stays with
//! them, so that they go on being healed as they are.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::files::content_label;
use crate::pod::{EnvSource, FilesSource, PodSpec, VolumeSource};
use crate::workload::{Desired, Workload, WorkloadId};

/// Why changes of a workload are held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Pause {
    /// A person said `mainstay pause`.
    Ordered,
    /// It is outside of its maintenance windows.
    Window,
    /// A lock file exists in one of its volumes.
    Lock {
        /// Volume and path.
        file: String,
    },
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ordered => f.write_str("it is paused; `mainstay resume` lets it go on"),
            Self::Window => f.write_str("it is outside of its maintenance windows"),
            Self::Lock { file } => write!(f, "the lock file {file} exists"),
        }
    }
}

/// What is to be had, and which workloads would be otherwise if nothing were held.
#[derive(Debug, Clone, Default)]
pub struct Merged {
    /// What is to be had.
    pub desired: Desired,
    /// Workloads with a change that is held back.
    pub pending: BTreeSet<WorkloadId>,
}

/// `wished`, but the workloads in `closed` as they are in `base`: changed ones unchanged, new ones not there, removed
/// ones still there. A ConfigMap or Secret that a closed one uses stays as it is, for others too.
#[must_use]
pub fn merge(base: &Desired, wished: &Desired, closed: &BTreeSet<WorkloadId>) -> Merged {
    let mut merged = Merged { desired: wished.clone(), pending: BTreeSet::new() };
    for id in closed {
        let (old, new) = (base.workloads.get(id), wished.workloads.get(id));
        let same = match (old, new) {
            (Some(old), Some(new)) => is_same(old, new) && content_label(base, old) == content_label(wished, new),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !same {
            merged.pending.insert(id.clone());
        }
        match old {
            Some(old) => {
                keep_references(base, old, &mut merged.desired);
                merged.desired.workloads.insert(id.clone(), Arc::clone(old));
            }
            None => drop(merged.desired.workloads.remove(id)),
        }
    }
    merged
}

/// Whether two versions wish for the same. Where it is written does not count.
fn is_same(old: &Workload, new: &Workload) -> bool {
    old.template == new.template && old.controller == new.controller && old.depends_on == new.depends_on
}

fn keep_references(base: &Desired, workload: &Workload, desired: &mut Desired) {
    let (configs, secrets) = references(&workload.template.spec);
    let key = |name: String| (workload.id.namespace.clone(), name);
    for key in configs.into_iter().map(key) {
        if let Some(config) = base.configs.get(&key) {
            desired.configs.insert(key, Arc::clone(config));
        }
    }
    for key in secrets.into_iter().map(key) {
        if let Some(secret) = base.secrets.get(&key) {
            desired.secrets.insert(key, Arc::clone(secret));
        }
    }
    for attachment in &workload.template.spec.networks {
        if let Some(network) = base.networks.get(&attachment.network) {
            desired.networks.entry(attachment.network.clone()).or_insert_with(|| Arc::clone(network));
        }
    }
}

/// Names of the ConfigMaps and Secrets that pods of this spec read while they live.
#[must_use]
pub fn references(spec: &PodSpec) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut configs, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for volume in &spec.volumes {
        let VolumeSource::Files(files) = &volume.source else { continue };
        for source in &files.sources {
            match source {
                FilesSource::ConfigMap { name, .. } => drop(configs.insert(name.clone())),
                FilesSource::Secret { name, .. } => drop(secrets.insert(name.clone())),
                FilesSource::DownwardApi { .. } => {}
            }
        }
    }
    for variable in spec.all_containers().flat_map(|container| &container.env) {
        if let EnvSource::Secret { name, .. } = &variable.source {
            secrets.insert(name.clone());
        }
    }
    secrets.extend(spec.image_pull_secrets.iter().cloned());
    (configs, secrets)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::pod::{FilesVolume, Volume};
    use crate::workload::{ConfigData, Controller, PodTemplate, SourceRef, WorkloadKind};

    fn id(name: &str) -> WorkloadId {
        WorkloadId { kind: WorkloadKind::Pod, namespace: "default".into(), name: name.into() }
    }

    /// `a1 b2 map=x`: workloads with versions, and the content of a ConfigMap that all of them mount.
    fn desired(text: &str) -> Desired {
        let mut desired = Desired::default();
        for word in text.split_ascii_whitespace() {
            if let Some((name, value)) = word.split_once('=') {
                let data = ConfigData(BTreeMap::from([("key".to_owned(), value.as_bytes().to_vec())]));
                desired.configs.insert(("default".into(), name.into()), Arc::new(data));
                continue;
            }
            let (name, version) = word.split_at(1);
            let source = FilesSource::ConfigMap { name: "map".into(), optional: true, items: Vec::new() };
            let files = FilesVolume { sources: vec![source], ..FilesVolume::default() };
            let volume = Volume { name: "v".into(), source: VolumeSource::Files(files) };
            let spec = PodSpec { volumes: vec![volume], hostname: Some(version.to_owned()), ..PodSpec::default() };
            let template = PodTemplate { spec: Arc::new(spec), ..PodTemplate::default() };
            let workload = Workload {
                id: id(name),
                source: SourceRef::default(),
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                controller: Controller::Single,
                template,
                depends_on: Vec::new(),
            };
            desired.workloads.insert(id(name), Arc::new(workload));
        }
        desired
    }

    fn text(desired: &Desired) -> String {
        let hostname = |workload: &Workload| workload.template.spec.hostname.clone().unwrap_or_default();
        let workloads = desired.workloads.iter().map(|(id, workload)| format!("{}{}", id.name, hostname(workload)));
        let value = |config: &ConfigData| String::from_utf8_lossy(config.0.get("key").expect("one key")).into_owned();
        let configs = desired.configs.iter().map(|((_, name), config)| format!("{name}={}", value(config)));
        workloads.chain(configs).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn closed_workloads_stay_as_they_are_with_what_they_use() {
        // base, wished, closed, to be had, pending
        for (base, wished, closed, expected, pending) in [
            ("a1 b1", "a2 b2", "a", "a1 b2", "a"),
            ("a1", "a1", "a", "a1", ""),
            ("a1", "", "a", "a1", "a"),
            ("", "a1", "a", "", "a"),
            ("a1", "a2", "", "a2", ""),
            ("a1 map=x", "a1 map=y", "a", "a1 map=x", "a"),
            ("a1 map=x", "", "a", "a1 map=x", "a"),
            ("a1 map=x", "a1 map=y", "", "a1 map=y", ""),
        ] {
            let closed: BTreeSet<WorkloadId> = closed.split_ascii_whitespace().map(id).collect();
            let merged = merge(&desired(base), &desired(wished), &closed);
            let found: Vec<&str> = merged.pending.iter().map(|id| id.name.as_str()).collect();
            assert_eq!((text(&merged.desired).as_str(), found.join(" ").as_str()), (expected, pending), "{wished}");
        }
    }
}
