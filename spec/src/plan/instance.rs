//! What one pod of a workload is: the template, with what belongs to its ordinal.

use std::sync::Arc;

use super::Goal;
use crate::pod::{EnvSource, EnvVar, PodSpec, Volume, VolumeSource};
use crate::workload::{Controller, CronSpec, JobSpec, WorkloadId, WorkloadKind};

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
        Controller::Job(job) | Controller::Cron(CronSpec { job, .. }) if job.indexed => {
            let index = index(job, ordinal);
            let mut spec = PodSpec::clone(template);
            // Pods of an indexed Job are found by name (Job, completionMode).
            spec.hostname = spec.hostname.or_else(|| Some(format!("{name}-{index}")));
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

/// The index that a pod of an indexed Job works on.
pub(super) fn index(job: &JobSpec, ordinal: u32) -> u32 {
    ordinal % job.completions.unwrap_or(1).max(1)
}

/// The name of the Job that a run of a CronJob is: the schedule's minute behind the name, as in Kubernetes; seconds where
/// a schedule is not of whole minutes.
fn job_name(name: &str, run: Option<i64>) -> String {
    match run {
        Some(at) if at.rem_euclid(60) == 0 => format!("{name}-{}", at.div_euclid(60)),
        Some(at) => format!("{name}-{at}"),
        None => name.to_owned(),
    }
}

/// What the pod with this ordinal is made from: pods of a Job carry the labels and annotations that Kubernetes gives
/// them, for Services and the downward API.
pub(super) fn goal(goal: &Goal, ordinal: u32, run: Option<i64>) -> Goal {
    let (Controller::Job(job) | Controller::Cron(CronSpec { job, .. })) = &goal.workload.controller else {
        return goal.clone();
    };
    let mut workload = crate::workload::Workload::clone(&goal.workload);
    let name = job_name(&workload.id.name, run);
    let template = &mut workload.template;
    let mut label = |key: &str, value: String| {
        template.labels.entry(key.to_owned()).or_insert(value);
    };
    label("job-name", name.clone());
    label("batch.kubernetes.io/job-name", name);
    if job.indexed {
        let index = index(job, ordinal).to_string();
        label("batch.kubernetes.io/job-completion-index", index.clone());
        template.annotations.insert("batch.kubernetes.io/job-completion-index".to_owned(), index);
    }
    if let Some(at) = run {
        let key = "batch.kubernetes.io/cronjob-scheduled-timestamp".to_owned();
        template.annotations.insert(key, crate::cron::Zone::utc().show(at));
    }
    Goal { workload: Arc::new(workload), ..goal.clone() }
}

/// The name of a pod: a bare pod has its own, the pods of a StatefulSet their ordinals, those of a Compose service
/// count from 1; all others carry the version, so that two versions can stand side by side.
pub(super) fn name(goal: &Goal, ordinal: u32, run: Option<i64>) -> String {
    let WorkloadId { kind, namespace, name } = &goal.workload.id;
    match (&goal.workload.controller, kind) {
        (Controller::Single, _) => name.clone(),
        (Controller::Ordered { .. } | Controller::Job(_), _) => format!("{name}-{ordinal}"),
        (Controller::Cron(_), _) => format!("{}-{ordinal}", job_name(name, run)),
        (_, WorkloadKind::Service) => format!("{namespace}-{name}-{}", ordinal.saturating_add(1)),
        _ => format!("{name}-{}-{ordinal}", goal.revision),
    }
}
