//! What the records of pods tell while no agent runs. Read only; the layout is `runtime`'s
//! (`<data>/pods/<uid>/pod.json`, `<data>/pods/<uid>/<container>/<attempt>/log`).

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use spec::observed::PodRecord;

use super::output::CliError;
use crate::status::{ContainerStatus, PodStatus, Snapshot, WorkloadStatus};

/// All attempts of a container.
pub(super) fn container_dir(data: &Path, uid: &str, container: &str) -> PathBuf {
    data.join("pods").join(uid).join(runtime::embedded::container_directory(container))
}

/// Numbers of attempts, lowest first.
pub(super) fn attempts(container: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(container).into_iter().flatten();
    let mut found: Vec<u32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    found
}

/// Every record of a pod that can be read.
pub(super) fn records(data: &Path) -> Result<Vec<PodRecord>, CliError> {
    let dir = data.join("pods");
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let told = CliError::new("cannot read the records of pods").place(dir.display().to_string()).cause(&error);
            let root = error.kind() == ErrorKind::PermissionDenied;
            return Err(if root { told.hint("run the command as root, such as with sudo") } else { told });
        }
    };
    let mut records: Vec<PodRecord> = entries
        .flatten()
        .filter_map(|entry| {
            // A record that cannot be read is the agent's to complain about; here the others count.
            let bytes = std::fs::read(entry.path().join("pod.json")).ok()?;
            serde_json::from_slice(&bytes).ok()
        })
        .collect();
    records.sort_by(|a: &PodRecord, b| (&a.workload, a.ordinal, &a.uid).cmp(&(&b.workload, b.ordinal, &b.uid)));
    Ok(records)
}

/// Pods by workload as far as records tell; phases are unknown.
pub(super) fn snapshot(data: &Path) -> Result<Snapshot, CliError> {
    let mut workloads = BTreeMap::new();
    for record in records(data)? {
        let status = workloads.entry(record.workload.clone()).or_insert_with(|| WorkloadStatus {
            kind: record.workload.kind.to_string(),
            namespace: record.workload.namespace.clone(),
            name: record.workload.name.clone(),
            source: record.source.file.clone(),
            ..WorkloadStatus::default()
        });
        let one = |name: &str, init| ContainerStatus { name: name.to_owned(), init, ..ContainerStatus::default() };
        let init = record.spec.init_containers.iter().map(|container| one(&container.name, true));
        let main = record.spec.containers.iter().map(|container| one(&container.name, false));
        status.pods.push(PodStatus {
            uid: record.uid.0.clone(),
            name: record.name.clone(),
            revision: record.revision.clone(),
            created: record.created_unix,
            containers: init.chain(main).collect(),
            ..PodStatus::default()
        });
    }
    Ok(Snapshot { workloads: workloads.into_values().collect(), ..Snapshot::default() })
}
