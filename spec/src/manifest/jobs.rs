//! Job and CronJob.

use crate::codes;
use crate::node::Node;
use crate::schema::check::{quoted, suggest};
use crate::schema::read;
use crate::schema::report::Report;
use crate::time::Millis;
use crate::workload::{Concurrency, CronSpec, FailureAction, FailureRule, JobSpec, PodTemplate};

use super::pod::Rules;
use super::{PodRefs, pod};

const TO_THE_END: Rules = Rules { restart: &["OnFailure", "Never"], deadline: true };

/// A Job's rules and pods.
pub(super) fn job(report: &mut Report<'_>, spec: &Node, refs: &mut PodRefs) -> Option<(JobSpec, PodTemplate)> {
    let template = read::get(spec, "template")
        .filter(|template| template.as_map().is_some())
        .and_then(|template| pod::template(report, template, TO_THE_END, &[], refs));
    let completions = read::count(spec, "completions");
    let indexed = read::text(spec, "completionMode") == Some("Indexed");
    if indexed && completions.is_none() {
        let message = "`completionMode: Indexed` needs `completions`";
        report.error_at(codes::MISSING_FIELD, spec, "completions", message);
    }
    let parallelism = read::count(spec, "parallelism");
    if indexed && parallelism.is_some_and(|n| n > 100_000) {
        report.error_at(codes::OUT_OF_RANGE, spec, "parallelism", "`parallelism` of an indexed Job is at most 100000");
    }
    let failure_policy = failure_policy(report, spec, template.as_ref());
    by_index(report, spec, template.as_ref(), completions);
    let per_index = read::count(spec, "backoffLimitPerIndex");
    let seconds = |key| read::count64(spec, key).map(Millis::from_secs);
    let job = JobSpec {
        // Neither of the two is one pod (batch/v1 defaults).
        completions: completions.or_else(|| parallelism.is_none().then_some(1)),
        parallelism: parallelism.unwrap_or(1),
        // With a limit for each index the Job as a whole has none by default (batch/v1 defaults).
        backoff_limit: read::count(spec, "backoffLimit").unwrap_or(if per_index.is_some() { u32::MAX } else { 6 }),
        active_deadline: seconds("activeDeadlineSeconds"),
        ttl_after_finished: seconds("ttlSecondsAfterFinished"),
        indexed,
        suspend: read::boolean(spec, "suspend").unwrap_or(false),
        failure_policy,
        backoff_limit_per_index: per_index,
        max_failed_indexes: read::count(spec, "maxFailedIndexes"),
    };
    Some((job, template?))
}

/// The rules of failures that count by index (batch/v1 `backoffLimitPerIndex`).
fn by_index(report: &mut Report<'_>, spec: &Node, template: Option<&PodTemplate>, completions: Option<u32>) {
    let limited = read::get(spec, "backoffLimitPerIndex").is_some();
    if limited && read::text(spec, "completionMode") != Some("Indexed") {
        let message = "`backoffLimitPerIndex` needs `completionMode: Indexed`";
        report.error_at(codes::CONFLICT, spec, "backoffLimitPerIndex", message);
    }
    if limited && template.is_some_and(|template| !pod::never(&template.spec)) {
        let message = "`backoffLimitPerIndex` needs `restartPolicy: Never` in the template";
        report.error_at(codes::CONFLICT, spec, "backoffLimitPerIndex", message);
    }
    let Some(most) = read::count(spec, "maxFailedIndexes") else { return };
    if !limited {
        let message = "`maxFailedIndexes` needs `backoffLimitPerIndex`";
        report.error_at(codes::CONFLICT, spec, "maxFailedIndexes", message);
    }
    if completions.is_some_and(|completions| most > completions) {
        let message = "`maxFailedIndexes` must not be greater than `completions`";
        report.error_at(codes::OUT_OF_RANGE, spec, "maxFailedIndexes", message);
    }
}

fn failure_policy(report: &mut Report<'_>, spec: &Node, template: Option<&PodTemplate>) -> Vec<FailureRule> {
    let Some(policy) = read::get(spec, "podFailurePolicy") else { return Vec::new() };
    if template.is_some_and(|template| !pod::never(&template.spec)) {
        let message = "`podFailurePolicy` needs `restartPolicy: Never` in the template";
        report.error_at(codes::CONFLICT, spec, "podFailurePolicy", message);
    }
    let rules = read::list(policy, "rules");
    if rules.len() > 20 {
        report.error_at(codes::OUT_OF_RANGE, policy, "rules", "at most 20 `rules` are allowed");
    }
    let limited = read::get(spec, "backoffLimitPerIndex").is_some();
    rules.iter().filter_map(|rule| failure_rule(report, rule, template, limited)).collect()
}

fn failure_rule(
    report: &mut Report<'_>,
    rule: &Node,
    template: Option<&PodTemplate>,
    limited: bool,
) -> Option<FailureRule> {
    let action = match read::text(rule, "action")? {
        "FailJob" => FailureAction::FailJob,
        "Ignore" => FailureAction::Ignore,
        "Count" => FailureAction::Count,
        "FailIndex" => {
            if !limited {
                report.error_at(codes::CONFLICT, rule, "action", "`FailIndex` needs `backoffLimitPerIndex` in the Job");
            }
            FailureAction::FailIndex
        }
        _ => return None,
    };
    let conditions = !read::list(rule, "onPodConditions").is_empty();
    let Some(codes_node) = read::get(rule, "onExitCodes") else {
        if !conditions {
            report.error(codes::EXACTLY_ONE, rule, "a rule needs `onExitCodes` or `onPodConditions`");
        }
        // Conditions never hold here, so the rule never matches.
        return None;
    };
    if conditions {
        let message = "`onExitCodes` and `onPodConditions` cannot both be set";
        report.error_at(codes::EXACTLY_ONE, rule, "onPodConditions", message);
    }
    let not_in = read::text(codes_node, "operator") == Some("NotIn");
    let mut exit_codes: Vec<i32> = Vec::new();
    let values = read::list(codes_node, "values");
    if values.len() > 255 {
        report.error_at(codes::OUT_OF_RANGE, codes_node, "values", "at most 255 `values` are allowed");
    }
    for value in values {
        let Some(code) = read::as_int(value).and_then(|code| i32::try_from(code).ok()) else { continue };
        if code == 0 && !not_in {
            report.error(codes::BAD_VALUE, value, "exit code 0 is success; it cannot be in `values` of `In`");
        }
        if exit_codes.last().is_some_and(|last| *last == code) || exit_codes.contains(&code) {
            report.error(codes::DUPLICATE_ENTRY, value, format!("exit code {code} is listed twice"));
        }
        exit_codes.push(code);
    }
    let container = read::string(codes_node, "containerName");
    if let (Some(name), Some(template)) = (&container, template) {
        let names: Vec<&str> = template.spec.all_containers().map(|c| c.name.as_str()).collect();
        if !names.contains(&name.as_str()) {
            let message = format!("the pod has no container named {}", quoted(name));
            report.error_at(codes::BAD_REFERENCE, codes_node, "containerName", message).hint =
                suggest(name, names.into_iter()).map(|name| format!("did you mean `{name}`?"));
        }
    }
    Some(FailureRule { action, container, not_in, exit_codes })
}

/// A CronJob's rules and pods.
pub(super) fn cron(report: &mut Report<'_>, spec: &Node, refs: &mut PodRefs) -> Option<(CronSpec, PodTemplate)> {
    let job_spec = read::dig(spec, &["jobTemplate", "spec"]).filter(|s| s.as_map().is_some())?;
    let (job, mut template) = job(report, job_spec, refs)?;
    if let Some(metadata) = read::dig(spec, &["jobTemplate", "metadata"]) {
        // The Jobs have no identity of their own here; their labels and annotations go to the pods.
        for (key, value) in read::text_map(metadata, "labels") {
            template.labels.entry(key).or_insert(value);
        }
        for (key, value) in read::text_map(metadata, "annotations") {
            template.annotations.entry(key).or_insert(value);
        }
    }
    let cron = CronSpec {
        schedule: read::string(spec, "schedule")?,
        time_zone: read::string(spec, "timeZone"),
        concurrency: match read::text(spec, "concurrencyPolicy") {
            Some("Forbid") => Concurrency::Forbid,
            Some("Replace") => Concurrency::Replace,
            _ => Concurrency::Allow,
        },
        starting_deadline: read::count64(spec, "startingDeadlineSeconds").map(Millis::from_secs),
        suspend: read::boolean(spec, "suspend").unwrap_or(false),
        successful_history: read::count(spec, "successfulJobsHistoryLimit").unwrap_or(3),
        failed_history: read::count(spec, "failedJobsHistoryLimit").unwrap_or(1),
        job,
    };
    Some((cron, template))
}
