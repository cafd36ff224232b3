//! What a workload does when the content of its generated files changes: ConfigMaps and Secrets as volumes, `configs`
//! and `secrets` of Compose. A variable is part of the pod's specification, so its change is a new version anyway.

use crate::observed::PodUid;
use crate::pod::VolumeSource;
use crate::workload::{Workload, WorkloadKind};

use super::View;

/// The annotation of a workload: `live`, `restart` or `signal:SIGHUP`.
pub const ON_CONFIG_CHANGE: &str = "mainstay/on-config-change";

/// Label of the files of a pod that an earlier agent made: they are looked at first.
pub const UNKNOWN_FILES: &str = "unknown";

/// What follows from other content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// The files are swapped under the running containers, as in Kubernetes.
    Live,
    /// The same, and containers that mount them get this signal.
    Signal(String),
    /// Pods are replaced, as by a change of their specification. Their own files stay as they are.
    Restart,
}

/// How a workload wishes to be told. Files of Compose, its `configs` and the files of the host that a service mounts, are
/// mounted one by one, and such a mount keeps the file that it was made with: there, as in Compose itself, other content
/// means other pods.
#[must_use]
pub fn reaction(workload: &Workload) -> Reaction {
    let spec = &workload.template.spec;
    let single_files = spec.all_containers().flat_map(|container| &container.mounts).any(|mount| {
        mount.sub_path.is_some()
            && spec
                .volumes
                .iter()
                .any(|volume| volume.name == mount.volume && matches!(volume.source, VolumeSource::Files(_)))
    });
    let single_files = single_files || !workload.template.bound.is_empty();
    let text = workload.annotations.get(ON_CONFIG_CHANGE).map(|text| text.trim());
    match text.and_then(|text| text.split_once(':').map_or(Some((text, "")), Some)) {
        Some(("live", "")) => Reaction::Live,
        Some(("restart", "")) => Reaction::Restart,
        // What a signal would make the program read again is not what is new.
        Some(("signal", signal)) if !signal.trim().is_empty() && !single_files => {
            Reaction::Signal(signal.trim().to_owned())
        }
        Some(("signal", _)) if single_files => Reaction::Restart,
        _ if workload.id.kind == WorkloadKind::Service && single_files => Reaction::Restart,
        _ => Reaction::Live,
    }
}

/// Whether a pod is to be replaced because its files have other content than is wished.
pub(super) fn is_outdated(view: &View<'_>, workload: &Workload, uid: &PodUid, wished: &str) -> bool {
    let has = view.observed.files.get(uid);
    has.is_some_and(|has| has != wished && has != UNKNOWN_FILES) && reaction(workload) == Reaction::Restart
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::pod::{ContainerSpec, FilesVolume, PodSpec, Volume, VolumeMount};
    use crate::workload::{Controller, PodTemplate, SourceRef, WorkloadId};

    #[test]
    fn kind_mounts_and_annotation_decide() {
        let signal = |name: &str| Reaction::Signal(name.to_owned());
        for (kind, single, annotation, expected) in [
            (WorkloadKind::Deployment, false, None, Reaction::Live),
            (WorkloadKind::Deployment, true, None, Reaction::Live),
            (WorkloadKind::Deployment, false, Some("restart"), Reaction::Restart),
            (WorkloadKind::Deployment, false, Some("signal:SIGHUP"), signal("SIGHUP")),
            (WorkloadKind::Deployment, false, Some(" signal: USR1 "), signal("USR1")),
            (WorkloadKind::Deployment, true, Some("signal:SIGHUP"), Reaction::Restart),
            (WorkloadKind::Deployment, false, Some("signal:"), Reaction::Live),
            (WorkloadKind::Deployment, false, Some("nonsense"), Reaction::Live),
            (WorkloadKind::Service, true, None, Reaction::Restart),
            (WorkloadKind::Service, true, Some("live"), Reaction::Live),
            (WorkloadKind::Service, false, None, Reaction::Live),
        ] {
            let mount = VolumeMount {
                volume: "files".into(),
                path: "/etc/app".into(),
                sub_path: single.then(|| "app".to_owned()),
                ..VolumeMount::default()
            };
            let volume = Volume { name: "files".into(), source: VolumeSource::Files(FilesVolume::default()) };
            let container = ContainerSpec { name: "main".into(), mounts: vec![mount], ..ContainerSpec::default() };
            let spec = PodSpec { containers: vec![container], volumes: vec![volume], ..PodSpec::default() };
            let workload = Workload {
                id: WorkloadId { kind, namespace: "default".into(), name: "w".into() },
                source: SourceRef::default(),
                labels: BTreeMap::new(),
                annotations: annotation
                    .map(|text: &str| (ON_CONFIG_CHANGE.to_owned(), text.to_owned()))
                    .into_iter()
                    .collect(),
                controller: Controller::Single,
                template: PodTemplate { spec: Arc::new(spec), ..PodTemplate::default() },
                depends_on: Vec::new(),
            };
            assert_eq!(reaction(&workload), expected, "{kind:?} {single} {annotation:?}");
            // A file of the host is a single file too, and its content is no part of what the template is called.
            let mut bound = workload.clone();
            bound.template.bound.insert("/p/a".to_owned(), "1".to_owned());
            match (kind, annotation) {
                (WorkloadKind::Service, None) => assert_eq!(reaction(&bound), Reaction::Restart),
                (_, Some("signal:SIGHUP")) => assert_eq!(reaction(&bound), Reaction::Restart),
                (_, None | Some("live" | "restart")) => assert_eq!(reaction(&bound), expected),
                _ => {}
            }
            assert_eq!(crate::plan::revision(&bound), crate::plan::revision(&workload));
            let label = |workload| crate::files::content_label(&crate::workload::Desired::default(), workload);
            let mut other = bound.clone();
            other.template.bound.insert("/p/a".to_owned(), "2".to_owned());
            assert_ne!(label(&bound), label(&other));
        }
    }
}
