//! What the records of pods tell before anybody has looked at what runs: to commands while no agent is there, and to the
//! agent itself until its first pass. Read only; the layout is `runtime`'s (`<data>/pods/<uid>/pod.json`).

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;

use spec::observed::PodRecord;

use crate::status::{ContainerStatus, PodStatus, Snapshot, WorkloadStatus};

/// Every record of a pod that can be read.
///
/// # Errors
/// The directory of pods cannot be read.
pub(crate) fn records(data: &Path) -> io::Result<Vec<PodRecord>> {
    let entries = match std::fs::read_dir(data.join("pods")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
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
///
/// # Errors
/// See [`records`].
pub(crate) fn snapshot(data: &Path) -> io::Result<Snapshot> {
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
