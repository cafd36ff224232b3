//! What one pod of a workload is: the template, with what belongs to its ordinal.

use std::sync::Arc;

use super::Goal;
use crate::pod::{EnvSource, EnvVar, PodSpec, Volume, VolumeSource};
use crate::workload::{Controller, WorkloadId, WorkloadKind};

/// The spec of the pod with this ordinal. Most workloads have equal pods and share the template's.
pub(super) fn spec(goal: &Goal, ordinal: u32) -> Arc<PodSpec> {
    let template = &goal.workload.template.spec;
    let WorkloadId { namespace, name, .. } = &goal.workload.id;
    match &goal.workload.controller {
        Controller::Ordered { claims, service_name, .. } => {
            let mut spec = PodSpec::clone(template);
            for claim in claims {
                // The claim of ordinal 3 is `<claim>-<set>-3`, and stays when the pod goes (StatefulSet, volumeClaimTemplates).
                let volume = format!("{namespace}/{}-{name}-{ordinal}", claim.name);
                spec.volumes.retain(|known| known.name != claim.name);
                spec.volumes.push(Volume { name: claim.name.clone(), source: VolumeSource::Named { name: volume } });
            }
            spec.subdomain = spec.subdomain.or_else(|| service_name.clone());
            Arc::new(spec)
        }
        Controller::Job(job) if job.indexed => {
            let index = ordinal % job.completions.unwrap_or(1).max(1);
            let mut spec = PodSpec::clone(template);
            for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
                let source = EnvSource::Literal(index.to_string());
                container.env.insert(0, EnvVar { name: "JOB_COMPLETION_INDEX".to_owned(), source });
            }
            Arc::new(spec)
        }
        Controller::Single | Controller::Replicated { .. } | Controller::Job(_) | Controller::Cron(_) => {
            Arc::clone(template)
        }
    }
}

/// The name of a pod: a bare pod has its own, the pods of a StatefulSet their ordinals, those of a Compose service
/// count from 1; all others carry the version, so that two versions can stand side by side.
pub(super) fn name(goal: &Goal, ordinal: u32) -> String {
    let WorkloadId { kind, namespace, name } = &goal.workload.id;
    match (&goal.workload.controller, kind) {
        (Controller::Single, _) => name.clone(),
        (Controller::Ordered { .. } | Controller::Job(_), _) => format!("{name}-{ordinal}"),
        (_, WorkloadKind::Service) => format!("{namespace}-{name}-{}", ordinal.saturating_add(1)),
        _ => format!("{name}-{}-{ordinal}", goal.revision),
    }
}
