//! What the disk tells while no agent runs. Read only; the layout is `runtime`'s
//! (`<data>/pods/<uid>/<container>/<attempt>/log`).

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use spec::observed::PodRecord;

use super::output::CliError;
use crate::status::Snapshot;

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
    crate::known::records(data).map_err(|error| unreadable(data, &error))
}

/// Pods by workload as far as records tell; phases are unknown.
pub(super) fn snapshot(data: &Path) -> Result<Snapshot, CliError> {
    crate::known::snapshot(data).map_err(|error| unreadable(data, &error))
}

fn unreadable(data: &Path, error: &std::io::Error) -> CliError {
    let place = data.join("pods").display().to_string();
    let told = CliError::new("cannot read the records of pods").place(place).cause(error);
    let root = error.kind() == ErrorKind::PermissionDenied;
    if root { told.hint("run the command as root, such as with sudo") } else { told }
}
