//! Pod, Deployment, ReplicaSet, DaemonSet and StatefulSet.

use crate::codes;
use crate::node::{Node, Value};
use crate::schema::check::quoted;
use crate::schema::read;
use crate::schema::report::Report;
use crate::time::Millis;
use crate::workload::{
    ClaimTemplate, Controller, PodTemplate, SourceRef, UpdateStrategy, Workload, WorkloadId, WorkloadKind,
};

use super::metadata::Meta;
use super::pod::Rules;
use super::{PodRefs, RawWorkload, jobs, pod, selector, steering, storage};

const FOREVER: Rules = Rules { restart: &["Always"], deadline: false };
const ANY: Rules = Rules { restart: &["Always", "OnFailure", "Never"], deadline: true };

/// A workload of any kind.
pub(super) fn workload(report: &mut Report<'_>, kind: &str, node: &Node, meta: &Meta) -> Option<RawWorkload> {
    let spec = read::get(node, "spec").filter(|spec| spec.as_map().is_some())?;
    let mut refs = PodRefs::default();
    let (kind, controller, template) = match kind {
        "Pod" => {
            let mut template = pod::template(report, node, ANY, &[], &mut refs)?;
            template.labels.clone_from(&meta.labels);
            template.annotations.clone_from(&meta.annotations);
            (WorkloadKind::Pod, Controller::Single, template)
        }
        "Deployment" => {
            let (controller, template) = replicated(report, spec, &mut refs, deployment_strategy)?;
            (WorkloadKind::Deployment, controller, template)
        }
        "ReplicaSet" => {
            let (controller, template) = replicated(report, spec, &mut refs, |_, spec, _| plain_strategy(spec))?;
            (WorkloadKind::ReplicaSet, controller, template)
        }
        "DaemonSet" => {
            let template = selected(report, spec, &[], &mut refs)?;
            let strategy = daemon_strategy(report, spec);
            (WorkloadKind::DaemonSet, Controller::Replicated { replicas: 1, strategy }, template)
        }
        "StatefulSet" => {
            let (controller, template) = stateful(report, spec, &mut refs)?;
            (WorkloadKind::StatefulSet, controller, template)
        }
        "Job" => {
            let (job, template) = jobs::job(report, spec, &mut refs)?;
            (WorkloadKind::Job, Controller::Job(job), template)
        }
        "CronJob" => {
            let (cron, template) = jobs::cron(report, spec, &mut refs)?;
            (WorkloadKind::CronJob, Controller::Cron(cron), template)
        }
        _ => return None,
    };
    refs.depends = steering::read(report, node);
    let id = WorkloadId { kind, namespace: meta.namespace.clone(), name: meta.name.clone() };
    let workload = Workload {
        id,
        source: SourceRef { file: report.file.to_owned(), line: meta.line },
        labels: meta.labels.clone(),
        annotations: meta.annotations.clone(),
        controller,
        template,
        depends_on: Vec::new(),
    };
    Some(RawWorkload { workload, refs })
}

/// The template of a workload with a selector that must match it.
fn selected(report: &mut Report<'_>, spec: &Node, claims: &[String], refs: &mut PodRefs) -> Option<PodTemplate> {
    let template = read::get(spec, "template").filter(|t| t.as_map().is_some())?;
    let labels = read::get(template, "metadata").map(|m| read::text_map(m, "labels"));
    selector::check(report, spec, &labels.unwrap_or_default());
    if let Some(selector) = read::get(spec, "selector").filter(|s| read::list(s, "matchExpressions").is_empty()) {
        refs.selector = read::text_map(selector, "matchLabels");
    }
    pod::template(report, template, FOREVER, claims, refs)
}

fn replicated(
    report: &mut Report<'_>,
    spec: &Node,
    refs: &mut PodRefs,
    strategy: impl Fn(&mut Report<'_>, &Node, u32) -> UpdateStrategy,
) -> Option<(Controller, PodTemplate)> {
    let template = selected(report, spec, &[], refs);
    let replicas = read::count(spec, "replicas").unwrap_or(1);
    let strategy = strategy(report, spec, replicas);
    Some((Controller::Replicated { replicas, strategy }, template?))
}

fn min_ready(spec: &Node) -> Millis {
    read::count64(spec, "minReadySeconds").map(Millis::from_secs).unwrap_or_default()
}

fn plain_strategy(spec: &Node) -> UpdateStrategy {
    UpdateStrategy { min_ready: min_ready(spec), ..UpdateStrategy::default() }
}

fn deployment_strategy(report: &mut Report<'_>, spec: &Node, replicas: u32) -> UpdateStrategy {
    let mut out = plain_strategy(spec);
    let deadline = read::count64(spec, "progressDeadlineSeconds");
    if let Some(deadline) = deadline {
        out.progress_deadline = Millis::from_secs(deadline);
    }
    if out.progress_deadline <= out.min_ready {
        let message = "`progressDeadlineSeconds` must be greater than `minReadySeconds`";
        let key = if deadline.is_some() { "progressDeadlineSeconds" } else { "minReadySeconds" };
        report.error_at(codes::CONFLICT, spec, key, message);
    }
    let strategy = read::get(spec, "strategy");
    let rolling = strategy.and_then(|s| read::get(s, "rollingUpdate"));
    if strategy.and_then(|s| read::text(s, "type")) == Some("Recreate") {
        out.recreate = true;
        (out.max_surge, out.max_unavailable) = (0, 0);
        if rolling.is_some() {
            let message = "`rollingUpdate` cannot be set with `type: Recreate`";
            report.error_at(codes::CONFLICT, strategy.unwrap_or(spec), "rollingUpdate", message);
        }
        return out;
    }
    let surge = rolling.and_then(|r| share(r, "maxSurge")).unwrap_or(Share::Percent(25));
    let unavailable = rolling.and_then(|r| share(r, "maxUnavailable")).unwrap_or(Share::Percent(25));
    if surge.is_zero() && unavailable.is_zero() {
        let message = "`maxUnavailable` cannot be 0 when `maxSurge` is 0: nothing could ever be replaced";
        report.error_at(codes::CONFLICT, rolling.unwrap_or(spec), "maxUnavailable", message);
    }
    if let (Some(rolling), Share::Percent(101..)) = (rolling, unavailable) {
        report.error_at(codes::OUT_OF_RANGE, rolling, "maxUnavailable", "`maxUnavailable` cannot be more than 100%");
    }
    out.max_surge = surge.of(replicas, true);
    out.max_unavailable = unavailable.of(replicas, false);
    if out.max_surge == 0 && out.max_unavailable == 0 {
        // Both were rounded down to nothing (deployment controller, ResolveFenceposts).
        out.max_unavailable = 1;
    }
    out
}

fn daemon_strategy(report: &mut Report<'_>, spec: &Node) -> UpdateStrategy {
    let mut out = UpdateStrategy { max_surge: 0, max_unavailable: 1, ..plain_strategy(spec) };
    let strategy = read::get(spec, "updateStrategy");
    out.on_delete = strategy.and_then(|s| read::text(s, "type")) == Some("OnDelete");
    let Some(rolling) = strategy.and_then(|s| read::get(s, "rollingUpdate")) else { return out };
    let surge = share(rolling, "maxSurge").unwrap_or(Share::Number(0));
    let unavailable = share(rolling, "maxUnavailable").unwrap_or(Share::Number(1));
    if surge.is_zero() && unavailable.is_zero() {
        let message = "`maxUnavailable` cannot be 0 when `maxSurge` is 0: nothing could ever be replaced";
        report.error_at(codes::CONFLICT, rolling, "maxUnavailable", message);
    } else if !surge.is_zero() && !unavailable.is_zero() {
        let message = "`maxSurge` needs `maxUnavailable: 0`";
        report.error_at(codes::CONFLICT, rolling, "maxSurge", message);
    }
    for (key, value) in [("maxSurge", surge), ("maxUnavailable", unavailable)] {
        if matches!(value, Share::Percent(101..)) {
            report.error_at(codes::OUT_OF_RANGE, rolling, key, format!("`{key}` cannot be more than 100%"));
        }
    }
    out.max_surge = surge.of(1, true);
    out.max_unavailable = unavailable.of(1, true);
    out
}

fn stateful(report: &mut Report<'_>, spec: &Node, refs: &mut PodRefs) -> Option<(Controller, PodTemplate)> {
    let mut claims: Vec<String> = Vec::new();
    for claim in read::list(spec, "volumeClaimTemplates") {
        let metadata = read::get(claim, "metadata");
        let Some(name) = metadata.and_then(|m| read::string(m, "name")) else {
            report.error_at(codes::MISSING_FIELD, metadata.unwrap_or(claim), "name", "`name` is missing");
            continue;
        };
        if claims.contains(&name) {
            let message = format!("there are two claims named {}", quoted(&name));
            report.error_at(codes::DUPLICATE_ENTRY, claim, "metadata", message);
        }
        if let (Some(fault), Some(metadata)) = (crate::schema::format::dns_label(&name), metadata) {
            report.error_at(codes::BAD_NAME, metadata, "name", format!("`name`: {} {fault}", quoted(&name)));
        }
        if let Some(inner) = read::get(claim, "spec") {
            storage::claim(report, inner);
        }
        claims.push(name);
    }
    let template = selected(report, spec, &claims, refs);
    let strategy = read::get(spec, "updateStrategy");
    let rolling = strategy.and_then(|s| read::get(s, "rollingUpdate"));
    let on_delete = strategy.and_then(|s| read::text(s, "type")) == Some("OnDelete");
    if on_delete && rolling.is_some() {
        let message = "`rollingUpdate` cannot be set with `type: OnDelete`";
        report.error_at(codes::CONFLICT, strategy.unwrap_or(spec), "rollingUpdate", message);
    }
    let controller = Controller::Ordered {
        replicas: read::count(spec, "replicas").unwrap_or(1),
        first_ordinal: read::get(spec, "ordinals").and_then(|o| read::count(o, "start")).unwrap_or(0),
        parallel: read::text(spec, "podManagementPolicy") == Some("Parallel"),
        partition: rolling.and_then(|r| read::count(r, "partition")).unwrap_or(0),
        on_delete,
        min_ready: min_ready(spec),
        claims: claims.into_iter().map(|name| ClaimTemplate { name }).collect(),
        service_name: read::string(spec, "serviceName"),
    };
    Some((controller, template?))
}

/// A number or a percentage of the replicas.
#[derive(Debug, Clone, Copy)]
enum Share {
    Number(u32),
    Percent(u32),
}

fn share(node: &Node, key: &str) -> Option<Share> {
    match &read::get(node, key)?.value {
        Value::String(text, _) => text.strip_suffix('%')?.parse().ok().map(Share::Percent),
        _ => read::count(node, key).map(Share::Number),
    }
}

impl Share {
    fn is_zero(self) -> bool {
        matches!(self, Self::Number(0) | Self::Percent(0))
    }

    fn of(self, replicas: u32, up: bool) -> u32 {
        match self {
            Self::Number(number) => number,
            Self::Percent(percent) => {
                let hundredths = u64::from(replicas) * u64::from(percent);
                let whole = if up { hundredths.div_ceil(100) } else { hundredths / 100 };
                u32::try_from(whole).unwrap_or(u32::MAX)
            }
        }
    }
}
