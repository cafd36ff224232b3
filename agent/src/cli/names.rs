//! What a name on the command line means: a workload, a pod, and a container of it.

use super::output::CliError;
use crate::status::{ContainerStatus, PodStatus, Snapshot, WorkloadStatus};

/// `Kind/namespace/name`.
pub(super) fn full(workload: &WorkloadStatus) -> String {
    format!("{}/{}/{}", workload.kind, workload.namespace, workload.name)
}

/// A name, with the container that was given by itself.
pub(super) fn with_container(name: String, container: Option<String>) -> String {
    match container {
        Some(container) => format!("{name}/{container}"),
        None => name,
    }
}

/// Whether a text names a workload: `name`, `namespace/name`, `kind/name` or `kind/namespace/name`. The kind may be
/// in small letters.
pub(super) fn fits(workload: &WorkloadStatus, text: &str) -> bool {
    let kind = |kind: &str| workload.kind.eq_ignore_ascii_case(kind);
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [name] => workload.name == *name,
        [first, name] => workload.name == *name && (workload.namespace == *first || kind(first)),
        [first, namespace, name] => workload.name == *name && workload.namespace == *namespace && kind(first),
        _ => false,
    }
}

/// The one workload that a text names.
pub(super) fn workload<'a>(snapshot: &'a Snapshot, text: &str) -> Result<&'a WorkloadStatus, CliError> {
    let found: Vec<&WorkloadStatus> = snapshot.workloads.iter().filter(|workload| fits(workload, text)).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(unknown(snapshot, text)),
        many => Err(ambiguous(text, many.iter().map(|workload| full(workload)))),
    }
}

fn fits_pod(workload: &WorkloadStatus, pod: &PodStatus, text: &str) -> bool {
    let in_namespace =
        text.split_once('/').is_some_and(|(space, name)| workload.namespace == space && pod.name == name);
    pod.name == text || pod.uid == text || in_namespace || fits(workload, text)
}

/// One container of one pod.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) workload: &'a WorkloadStatus,
    pub(super) pod: &'a PodStatus,
    pub(super) container: &'a ContainerStatus,
    /// So many pods fit as well.
    pub(super) other_pods: usize,
    /// So many containers were not named.
    pub(super) other_containers: usize,
}

/// Finds `NAME` or `NAME/CONTAINER`. Of several pods of one workload one that is ready is taken, of several
/// containers the first that is no init container.
pub(super) fn resolve<'a>(snapshot: &'a Snapshot, text: &str) -> Result<Target<'a>, CliError> {
    let mut found: Vec<(&WorkloadStatus, Option<&str>, Vec<&PodStatus>)> = Vec::new();
    for workload in &snapshot.workloads {
        let pods = |name: &str| workload.pods.iter().filter(|pod| fits_pod(workload, pod, name)).collect::<Vec<_>>();
        let whole = pods(text);
        if !whole.is_empty() || fits(workload, text) {
            found.push((workload, None, whole));
        }
        if let Some((name, container)) = text.rsplit_once('/') {
            let mut members = pods(name);
            members.retain(|pod| pod.containers.iter().any(|other| other.name == container));
            if !members.is_empty() {
                found.push((workload, Some(container), members));
            }
        }
    }
    let (workload, container, pods) = match found.as_slice() {
        [one] => one,
        [] => return Err(without(snapshot, text).unwrap_or_else(|| unknown(snapshot, text))),
        many => {
            let names = many.iter().map(|(workload, container, _)| match container {
                Some(container) => format!("{}/{container}", full(workload)),
                None => full(workload),
            });
            return Err(ambiguous(text, names));
        }
    };
    let Some(pod) = pods.iter().max_by_key(|pod| (pod.ready, pod.phase == "Running", pod.created)) else {
        return Err(CliError::new(format!("{} has no pod yet", full(workload)))
            .hint(format!("`mainstay status {}` says what it waits for", full(workload))));
    };
    let wanted = |other: &&ContainerStatus| container.map_or(!other.init, |name| other.name == name);
    let Some(chosen) = pod.containers.iter().find(wanted) else {
        return Err(CliError::new(format!("pod `{}` has no container", pod.name)));
    };
    let mains = pod.containers.iter().filter(|other| !other.init).count();
    Ok(Target {
        workload,
        pod,
        container: chosen,
        other_pods: pods.len() - 1,
        other_containers: if container.is_some() { 0 } else { mains.saturating_sub(1) },
    })
}

impl Target<'_> {
    /// What was chosen among several, for stderr.
    pub(super) fn remark(&self) -> Option<String> {
        (self.other_pods > 0 || self.other_containers > 0).then(|| {
            let pods = if self.other_pods > 0 { format!(" of {} pods", self.other_pods + 1) } else { String::new() };
            format!("taking container `{}` of pod `{}`{pods}", self.container.name, self.pod.name)
        })
    }
}

/// What is wrong with `NAME/CONTAINER` where the pod is there.
fn without(snapshot: &Snapshot, text: &str) -> Option<CliError> {
    let (name, container) = text.rsplit_once('/')?;
    let mut all = snapshot.workloads.iter().flat_map(|workload| workload.pods.iter().map(move |pod| (workload, pod)));
    let (_, pod) = all.find(|(workload, pod)| fits_pod(workload, pod, name))?;
    let known: Vec<&str> = pod.containers.iter().map(|container| container.name.as_str()).collect();
    let message = format!("pod `{}` has no container `{container}`", pod.name);
    Some(CliError::new(message).cause(format!("it has {}", known.join(", "))).hint("name one of these"))
}

pub(super) fn ambiguous(text: &str, names: impl Iterator<Item = String>) -> CliError {
    CliError::new(format!("`{text}` means more than one thing"))
        .cause(format!("it fits {}", names.collect::<Vec<_>>().join(", ")))
        .hint("write one of these names in full")
}

pub(super) fn unknown(snapshot: &Snapshot, text: &str) -> CliError {
    let names = snapshot.workloads.iter().flat_map(|workload| {
        let pods = workload.pods.iter().map(|pod| pod.name.as_str());
        std::iter::once(workload.name.as_str()).chain(pods)
    });
    let last = text.rsplit('/').next().unwrap_or(text);
    let hint = match crate::config::nearest(last, names) {
        Some(close) => format!("did you mean `{close}`?"),
        None => "`mainstay ps` lists what there is".to_owned(),
    };
    CliError::new(format!("there is no workload or pod `{text}`")).hint(hint)
}
