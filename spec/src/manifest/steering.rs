//! `mainstay/...` annotations of workloads: which there are, what they take, and what `mainstay/depends-on` leads to.
//!
//! Each annotation is read where it counts; here its value is checked, so that a slip is found before anything runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::codes;
use crate::diagnostic::{Diagnostic, Severity};
use crate::node::Node;
use crate::plan::{DRAIN, ON_FAILURE, is_drain_time};
use crate::schema::check::{quoted, suggest};
use crate::schema::read;
use crate::schema::report::Report;
use crate::workload::{Dependency, DependencyCondition, ObjectId, WorkloadId, WorkloadKind};
use crate::{budget, window};

use super::assemble::is_next_of;
use super::{At, Missing, Object, RawWorkload};

/// The annotation with what must be up before the pods of a workload start: `NAME`, `KIND/NAME` or either with
/// `=started`, `=ready` or `=completed`, commas between them. Without a condition a Job must have completed and
/// anything else must be ready.
pub const DEPENDS_ON: &str = "mainstay/depends-on";
/// The annotation with a file that holds changes back while it exists, as `VOLUME/PATH`.
pub const HOLD_WHILE_FILE: &str = "mainstay/hold-while-file";

const PREFIX: &str = "mainstay/";
const KNOWN: [&str; 6] = [DEPENDS_ON, HOLD_WHILE_FILE, DRAIN, ON_FAILURE, budget::PROTECTED, window::ANNOTATION];

/// A workload that another one waits for, as written.
#[derive(Debug, Clone, PartialEq)]
pub struct DependsRef {
    kind: Option<WorkloadKind>,
    name: String,
    condition: Option<DependencyCondition>,
    at: At,
}

/// Checks the annotations of a workload; what it depends on.
pub(super) fn read(report: &mut Report<'_>, node: &Node) -> Vec<DependsRef> {
    let mut found = Vec::new();
    let entries = read::dig(node, &["metadata", "annotations"]).and_then(Node::as_map).into_iter().flatten();
    for (key, entry) in entries.filter(|(key, _)| key.starts_with(PREFIX)) {
        let Some(value) = entry.node.as_str() else { continue };
        if !KNOWN.contains(&key.as_str()) {
            let message = format!("there is no annotation `{key}`, so it has no effect");
            let hint = match suggest(key, KNOWN.into_iter()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", KNOWN.join(", ")),
            };
            report.warn(codes::NO_EFFECT, &entry.node, message).hint = Some(hint);
        } else if key == DEPENDS_ON {
            for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                match depends(part, At::of(report, &entry.node)) {
                    Ok(reference) => found.push(reference),
                    Err(why) => {
                        let message = format!("`{key}`: {} {why}", quoted(part));
                        let hint = "write `NAME`, `KIND/NAME` or `KIND/NAME=ready`, with commas between them";
                        report.error(codes::BAD_VALUE, &entry.node, message).hint = Some(hint.to_owned());
                    }
                }
            }
        } else if let Some(fault) = fault(key, value) {
            report.error(codes::BAD_VALUE, &entry.node, fault);
        }
    }
    let inner = read::dig(node, &["spec", "template", "metadata", "annotations"]).and_then(Node::as_map);
    for (key, entry) in inner.into_iter().flatten().filter(|(key, _)| KNOWN.contains(&key.as_str())) {
        let message = format!("`{key}` has no effect in a template: it belongs to the workload");
        report.warn(codes::NO_EFFECT, &entry.node, message).hint =
            Some("move it to `metadata.annotations` at the top".to_owned());
    }
    found
}

/// What is wrong with the value of one of our annotations, [`DEPENDS_ON`] aside.
pub(crate) fn fault(key: &str, value: &str) -> Option<String> {
    let one_of = |words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        Some(format!("`{key}` takes {}, not {}", words.join(", "), quoted(value)))
    };
    match key {
        window::ANNOTATION => window::parse_all(value).err().map(|error| error.to_string()),
        ON_FAILURE if !["rollback", "pause", "continue"].contains(&value) => one_of(&["rollback", "pause", "continue"]),
        budget::PROTECTED if !["true", "false"].contains(&value) => one_of(&["true", "false"]),
        DRAIN if !is_drain_time(value) => Some(format!("`{key}` takes a time such as `10s`, not {}", quoted(value))),
        HOLD_WHILE_FILE
            if !value.split_once('/').is_some_and(|(volume, path)| !volume.is_empty() && !path.is_empty()) =>
        {
            Some(format!("`{key}` takes a file as `VOLUME/PATH`, not {}", quoted(value)))
        }
        _ => None,
    }
}

fn depends(text: &str, at: At) -> Result<DependsRef, &'static str> {
    let (who, condition) = match text.split_once('=') {
        None => (text, None),
        Some((who, "started")) => (who, Some(DependencyCondition::Started)),
        Some((who, "ready")) => (who, Some(DependencyCondition::Healthy)),
        Some((who, "completed")) => (who, Some(DependencyCondition::CompletedSuccessfully)),
        Some(_) => return Err("ends in no condition: `started`, `ready` or `completed`"),
    };
    let (kind, name) = match who.split_once('/') {
        None => (None, who),
        Some((kind, name)) => (Some(kind), name),
    };
    let kind = match kind.map(str::to_ascii_lowercase).as_deref() {
        None => None,
        Some("pod") => Some(WorkloadKind::Pod),
        Some("deployment") => Some(WorkloadKind::Deployment),
        Some("replicaset") => Some(WorkloadKind::ReplicaSet),
        Some("daemonset") => Some(WorkloadKind::DaemonSet),
        Some("statefulset") => Some(WorkloadKind::StatefulSet),
        Some("job") => Some(WorkloadKind::Job),
        Some("cronjob") => return Err("is a CronJob, which is never up as a whole"),
        Some(_) => return Err("does not begin with the kind of a workload"),
    };
    match crate::schema::format::dns_subdomain(name) {
        Some(_) => Err("has no valid name"),
        None => Ok(DependsRef { kind, name: name.to_owned(), condition, at }),
    }
}

/// Dependencies of all workloads, and the workloads that cannot be applied because of theirs.
#[derive(Default)]
pub(super) struct Order {
    pub(super) of: BTreeMap<WorkloadId, Vec<Dependency>>,
    pub(super) failed: BTreeSet<WorkloadId>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// Finds what workloads wait for. `broken` are objects with errors of their own.
pub(super) fn order(workloads: &[(&str, &Object, &RawWorkload)], broken: &[ObjectId], missing: Missing) -> Order {
    let mut out = Order::default();
    for (file, _, raw) in workloads {
        let own = &raw.workload.id;
        for reference in &raw.refs.depends {
            let kind = |kind: WorkloadKind| reference.kind.is_none_or(|wanted| wanted == kind);
            let near = |other: &WorkloadId| other.namespace == own.namespace && kind(other.kind);
            let named: Vec<&WorkloadId> = workloads
                .iter()
                .map(|(_, _, other)| &other.workload.id)
                .filter(|other| near(other) && other.name == reference.name)
                .collect();
            match named.as_slice() {
                [one] => {
                    let condition = reference.condition.unwrap_or(match one.kind {
                        WorkloadKind::Job => DependencyCondition::CompletedSuccessfully,
                        _ => DependencyCondition::Healthy,
                    });
                    let dependency = Dependency { workload: (*one).clone(), condition, restart: false, required: true };
                    out.of.entry(own.clone()).or_default().push(dependency);
                }
                [] => {
                    let names = workloads.iter().map(|(_, _, other)| &other.workload.id).filter(|other| near(other));
                    let near = suggest(&reference.name, names.map(|other| other.name.as_str()));
                    let near = near.filter(|near| !is_next_of(&reference.name, near));
                    let faulty = broken.iter().any(|id| id.namespace == own.namespace && id.name == reference.name);
                    let name = quoted(&reference.name);
                    let (message, hint) = match near {
                        _ if faulty => (format!("the workload {name} has errors"), "solve its errors first".to_owned()),
                        Some(near) => (nowhere(&name, own), format!("did you mean `{near}`?")),
                        None => (nowhere(&name, own), "add it, or remove it from the annotation".to_owned()),
                    };
                    let mut found = Diagnostic::error(codes::MISSING_REFERENCE, file, Some(reference.at.span), message)
                        .at(&reference.at.path)
                        .hint(hint);
                    if missing == Missing::Warning && near.is_none() && !faulty {
                        found.severity = Severity::Warning;
                    } else {
                        out.failed.insert(own.clone());
                    }
                    out.diagnostics.push(found);
                }
                [first, second, ..] => {
                    let message = format!("{} is the name of several workloads", quoted(&reference.name));
                    let found = Diagnostic::error(codes::BAD_REFERENCE, file, Some(reference.at.span), message);
                    let hint = format!("write `{}/{}` or `{}/{}`", first.kind, first.name, second.kind, second.name);
                    out.diagnostics.push(found.at(&reference.at.path).hint(hint));
                    out.failed.insert(own.clone());
                }
            }
        }
    }
    circles(workloads, &mut out);
    out
}

fn nowhere(name: &str, own: &WorkloadId) -> String {
    format!("there is no workload {name} in namespace {}", quoted(&own.namespace))
}

/// Workloads that wait for themselves, each circle told once.
fn circles(workloads: &[(&str, &Object, &RawWorkload)], out: &mut Order) {
    for (file, _, raw) in workloads {
        let start = &raw.workload.id;
        if out.failed.contains(start) {
            continue;
        }
        // The shortest way back, breadth first.
        let mut came: BTreeMap<&WorkloadId, &WorkloadId> = BTreeMap::new();
        let mut open = vec![start];
        let mut next = 0;
        while let Some(at) = open.get(next).copied() {
            next += 1;
            for dependency in out.of.get(at).into_iter().flatten() {
                if !came.contains_key(&dependency.workload) {
                    came.insert(&dependency.workload, at);
                    open.push(&dependency.workload);
                }
            }
        }
        if !came.contains_key(start) {
            continue;
        }
        let mut circle = vec![start.clone()];
        let mut at = start;
        while let Some(before) = came.get(at).copied() {
            circle.push(before.clone());
            at = before;
            if at == start {
                break;
            }
        }
        let names: Vec<String> = circle.iter().rev().map(|id| format!("{}/{}", id.kind, id.name)).collect();
        let place = raw.refs.depends.first().map(|reference| reference.at.clone()).unwrap_or_default();
        let message = format!("these workloads wait for each other: {}", names.join(" -> "));
        let found = Diagnostic::error(codes::DEPENDENCY_CYCLE, file, Some(place.span), message).at(place.path);
        out.diagnostics.push(found.hint("remove one of these dependencies"));
        out.failed.extend(circle);
    }
}
