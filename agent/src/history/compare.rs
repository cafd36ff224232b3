//! What differs between two generations, in lines for people. Values of ConfigMaps and Secrets are not shown.

use std::fmt;

use serde::Serialize;
use spec::plan::revision;
use spec::workload::{Controller, WorkloadId};

use super::Generation;

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What, as `Kind/namespace/name`.
    pub object: String,
    /// `added`, `removed` or `changed`.
    pub kind: &'static str,
    /// In which fields.
    pub changes: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.object)?;
        if !self.changes.is_empty() {
            write!(f, ": {}", self.changes.join("; "))?;
        }
        Ok(())
    }
}

/// What differs, by object. Against nothing everything is added.
#[must_use]
pub fn compare(before: Option<&Generation>, after: &Generation) -> Vec<Difference> {
    let empty = Generation { desired: spec::workload::Desired::default(), images: super::Images::new() };
    let before = before.unwrap_or(&empty);
    let mut found = Vec::new();
    for (id, old) in &before.desired.workloads {
        let Some(new) = after.desired.workloads.get(id) else {
            found.push(difference(id.to_string(), "removed", Vec::new()));
            continue;
        };
        let mut changes: Vec<String> =
            spec::diff::changes(&old.template.spec, &new.template.spec).iter().map(ToString::to_string).collect();
        if replicas(&old.controller) != replicas(&new.controller) {
            let show = |count: Option<u32>| count.map_or("none".to_owned(), |count| count.to_string());
            changes.push(format!(
                "replicas: {} -> {}",
                show(replicas(&old.controller)),
                show(replicas(&new.controller))
            ));
        } else if old.controller != new.controller {
            changes.push("how pods follow from it".to_owned());
        }
        if (&old.template.labels, &old.template.annotations) != (&new.template.labels, &new.template.annotations) {
            changes.push("labels or annotations of its pods".to_owned());
        }
        changes.extend(digests(id, (before, &revision(old)), (after, &revision(new))));
        if !changes.is_empty() {
            found.push(difference(id.to_string(), "changed", changes));
        }
    }
    for id in after.desired.workloads.keys().filter(|id| !before.desired.workloads.contains_key(*id)) {
        found.push(difference(id.to_string(), "added", Vec::new()));
    }
    let (old, new) = (&before.desired, &after.desired);
    found.extend(contents(
        "ConfigMap",
        &old.configs,
        &new.configs,
        |data| data.0.keys().cloned().collect(),
        |a, b, key| a.0.get(key) == b.0.get(key),
    ));
    found.extend(contents(
        "Secret",
        &old.secrets,
        &new.secrets,
        |data| data.data.keys().cloned().collect(),
        |a, b, key| a.data.get(key) == b.data.get(key),
    ));
    found.extend(contents("Service", &old.services, &new.services, |_| vec!["spec".to_owned()], |a, b, _| a == b));
    found
}

fn difference(object: String, kind: &'static str, changes: Vec<String>) -> Difference {
    Difference { object, kind, changes }
}

fn replicas(controller: &Controller) -> Option<u32> {
    match controller {
        Controller::Replicated { replicas, .. } | Controller::Ordered { replicas, .. } => Some(*replicas),
        Controller::Single | Controller::Job(_) | Controller::Cron(_) => None,
    }
}

/// Tags that stand for another image now.
fn digests(id: &WorkloadId, before: (&Generation, &String), after: (&Generation, &String)) -> Vec<String> {
    let of = |(generation, version): (&Generation, &String)| {
        generation.images.get(&(id.clone(), version.clone())).cloned().unwrap_or_default()
    };
    let (old, new) = (of(before), of(after));
    let moved = new.iter().filter_map(|(container, digest)| {
        let known = old.get(container).filter(|known| *known != digest)?;
        Some(format!("image of {container}: {known} -> {digest}"))
    });
    moved.collect()
}

type Named<T> = std::collections::BTreeMap<(String, String), std::sync::Arc<T>>;

fn contents<T>(
    kind: &str,
    old: &Named<T>,
    new: &Named<T>,
    keys: impl Fn(&T) -> Vec<String>,
    same: impl Fn(&T, &T, &str) -> bool,
) -> Vec<Difference> {
    let name = |(namespace, name): &(String, String)| format!("{kind}/{namespace}/{name}");
    let mut found = Vec::new();
    for (id, data) in old {
        let Some(now) = new.get(id) else {
            found.push(difference(name(id), "removed", Vec::new()));
            continue;
        };
        let mut all = keys(data);
        all.extend(keys(now));
        all.sort();
        all.dedup();
        let changes: Vec<String> = all.into_iter().filter(|key| !same(data, now, key)).collect();
        if !changes.is_empty() {
            found.push(difference(name(id), "changed", changes));
        }
    }
    let added = new.keys().filter(|id| !old.contains_key(*id)).map(|id| difference(name(id), "added", Vec::new()));
    found.extend(added);
    found
}
