//! `mainstay plan PATH...`: what manifests would change here, field by field. Compared with the records of pods on
//! this host's disk; on a host without any, everything is new. Asks no agent and no registry, and changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use spec::diff;
use spec::manifest::Missing;
use spec::observed::PodRecord;
use spec::plan::{Goal, Goals, Reason};
use spec::secret::MacKey;
use spec::workload::{Controller, WorkloadId, WorkloadKind};

use super::control::count;
use super::manifests::Manifests;
use super::output::{CliError, Io, Outcome, clean};
use crate::config::Settings;
use crate::decrypt::Keys;

/// What becomes of one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    workload: String,
    /// `create`, `replace`, `scale` or `remove`.
    action: &'static str,
    /// The word that the agent's plan will give.
    reason: &'static str,
    /// Pods now.
    from: usize,
    /// Pods then.
    to: usize,
    /// Images of pods that will be made.
    images: Vec<String>,
    /// Ports of the host: `8080/tcp`.
    ports: Vec<String>,
    /// Fields that differ.
    changes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    changes: Vec<Change>,
    unchanged: usize,
}

pub(super) fn plan(paths: &[PathBuf], settings: &Settings, io: &mut Io<'_>) -> Outcome {
    let records = super::disk::records(&settings.data_dir)?;
    let key = mac_key(settings, !records.is_empty())?;
    let manifests = Manifests::read(paths, Missing::Error, &key, &Keys::load(settings.age_identity.as_deref()))?;
    if !manifests.diagnostics.is_empty() {
        io.err.write_all(manifests.rendered(false).as_bytes())?;
    }
    // A broken file keeps what stands in it, and single files say nothing about what is in others.
    let whole = manifests.errors() == 0 && paths.iter().any(|path| path.is_dir());
    let answer = compare(&Goals::new(&std::sync::Arc::new(manifests.desired.clone())), &records, whole);
    let code = u8::from(!answer.changes.is_empty() || manifests.errors() > 0);
    if io.json {
        io.json(&answer)?;
        return Ok(code);
    }
    for change in &answer.changes {
        show(change, io)?;
    }
    let unchanged = count(answer.unchanged, "workload");
    if answer.changes.is_empty() {
        writeln!(io.out, "nothing to change, {unchanged} as wished")?;
    } else {
        writeln!(io.out, "\n{} to change, {unchanged} as wished", count(answer.changes.len(), "workload"))?;
    }
    Ok(code)
}

/// The key of this host's hashes of secrets, so that unchanged ones are seen to be the same.
fn mac_key(settings: &Settings, needed: bool) -> Result<MacKey, CliError> {
    let path = settings.data_dir.join("node.key");
    if !needed || !path.exists() {
        return Ok(MacKey::new([0; 32]));
    }
    let key = crate::source::NodeKey::load_or_make(&path);
    key.map(|key| key.mac_key())
        .map_err(|error| CliError::of(&error).hint("run the command as root, such as with sudo"))
}

fn compare(goals: &Goals, records: &[PodRecord], whole: bool) -> Answer {
    let mut pods: BTreeMap<&WorkloadId, Vec<&PodRecord>> = BTreeMap::new();
    for record in records {
        pods.entry(&record.workload).or_default().push(record);
    }
    let mut answer = Answer { changes: Vec::new(), unchanged: 0 };
    for (id, goal) in &goals.workloads {
        match change(id, goal, pods.get(id).map_or(&[], Vec::as_slice)) {
            Some(change) => answer.changes.push(change),
            None => answer.unchanged += 1,
        }
    }
    for (id, members) in pods.iter().filter(|(id, _)| whole && !goals.workloads.contains_key(**id)) {
        answer.changes.push(Change {
            workload: id.to_string(),
            action: "remove",
            reason: Reason::Removed.word(),
            from: members.len(),
            to: 0,
            images: Vec::new(),
            ports: Vec::new(),
            changes: Vec::new(),
        });
    }
    answer
}

/// What becomes of a workload that is wished; nothing when all its pods are as it says.
fn change(id: &WorkloadId, goal: &Goal, pods: &[&PodRecord]) -> Option<Change> {
    let template = &goal.workload.template;
    let wished = match &goal.workload.controller {
        Controller::Single | Controller::Cron(_) => 1,
        Controller::Replicated { replicas, .. } | Controller::Ordered { replicas, .. } => *replicas as usize,
        Controller::Job(job) => job.completions.unwrap_or(1) as usize,
    };
    // As the agent decides it: specs field by field, labels where new pods are made for them.
    let labels = |pod: &PodRecord| {
        matches!(id.kind, WorkloadKind::Pod | WorkloadKind::Job | WorkloadKind::CronJob)
            || (pod.labels == template.labels && pod.annotations == template.annotations)
    };
    let old = pods.iter().find(|pod| pod.spec != template.spec || !labels(pod));
    let mut changes = Vec::new();
    if let Some(old) = old {
        changes.extend(diff::changes(&old.spec, &template.spec).iter().map(ToString::to_string));
        for (name, from, to) in
            [("labels", &old.labels, &template.labels), ("annotations", &old.annotations, &template.annotations)]
        {
            if id.kind != WorkloadKind::Pod {
                let prefixed = |change: diff::Change| format!("{name}.{change}");
                changes.extend(diff::changes(from, to).into_iter().map(prefixed));
            }
        }
    }
    let (action, reason) = match (pods.len(), old) {
        (0, _) if wished == 0 => return None,
        (0, _) => ("create", Reason::Missing.word()),
        (_, Some(_)) => ("replace", Reason::SpecChanged { changes: Vec::new() }.word()),
        (now, None) if now < wished => ("scale", Reason::Missing.word()),
        (now, None) if now > wished => ("scale", Reason::ScaledDown.word()),
        (_, None) => return None,
    };
    let spec = &template.spec;
    let mut images: Vec<String> =
        spec.all_containers().filter_map(|container| container.image.as_ref()).map(ToString::to_string).collect();
    images.dedup();
    let ports = spec.containers.iter().flat_map(|container| &container.ports);
    let ports = ports.filter_map(|port| Some(format!("{}/{}", port.host_port?, port.protocol))).collect();
    Some(Change { workload: id.to_string(), action, reason, from: pods.len(), to: wished, images, ports, changes })
}

fn show(change: &Change, io: &mut Io<'_>) -> std::io::Result<()> {
    let (sign, hue) = match change.action {
        "create" => ("+", "32"),
        "remove" => ("-", "31"),
        _ => ("~", "33"),
    };
    let sign = if io.color { format!("\u{1b}[1;{hue}m{sign}\u{1b}[0m") } else { sign.to_owned() };
    let pods = match change.action {
        "create" => count(change.to, "pod"),
        "scale" | "replace" if change.from != change.to => format!("{} -> {}", change.from, count(change.to, "pod")),
        _ => count(change.from, "pod"),
    };
    writeln!(io.out, "{sign} {} {}: {pods} ({})", change.action, change.workload, change.reason)?;
    if change.action == "create" {
        for image in &change.images {
            writeln!(io.out, "    image {}", clean(image))?;
        }
        for port in &change.ports {
            writeln!(io.out, "    port {port}")?;
        }
    }
    for field in &change.changes {
        writeln!(io.out, "    {}", clean(field))?;
    }
    Ok(())
}
