//! Job and CronJob (batch/v1).

use super::Kind::{Any, Bool, Enum, List, Obj, Objs, Str};
use super::meta::{API_VERSION, KIND, LABEL_SELECTOR, METADATA, TEMPLATE_METADATA};
use super::pod::POD_TEMPLATE;
use super::{COUNT, COUNT64, Format, INT32, TEXT, Type, field, inert, rejected, required, silent};

pub(super) static JOB: Type = Type {
    name: "Job",
    doc: "Pods that run to their end.",
    fields: &[API_VERSION, KIND, METADATA, required("spec", Obj(&JOB_SPEC), "Pods and rules."), super::status::JOB],
};

static JOB_SPEC: Type = Type {
    name: "JobSpec",
    doc: "Pods and rules of a Job.",
    fields: &[
        required("template", Obj(&POD_TEMPLATE), "What its pods are."),
        field("completions", COUNT, "Successful pods needed; default 1."),
        field("parallelism", COUNT, "Pods at a time; default 1."),
        field("backoffLimit", COUNT, "Failures before it is given up; default 6."),
        field("activeDeadlineSeconds", COUNT64, "It fails after this many seconds."),
        field("ttlSecondsAfterFinished", COUNT, "Its pods are removed so long after its end."),
        field("completionMode", Enum(&["NonIndexed", "Indexed"]), "`Indexed`: each index completes once."),
        field("suspend", Bool, "Start no pods."),
        field("podFailurePolicy", Obj(&FAILURE_POLICY), "What failures mean, by exit code."),
        field("backoffLimitPerIndex", COUNT, "Failures of each index before it is given up."),
        field("maxFailedIndexes", COUNT, "Indexes that may be given up before the Job is."),
        inert("successPolicy", Any, "a Job succeeds when all completions did", "When it succeeds."),
        inert(
            "podReplacementPolicy",
            Enum(&["TerminatingOrFailed", "Failed"]),
            "a pod is replaced once it has ended",
            "When pods are replaced.",
        ),
        silent("selector", Obj(&LABEL_SELECTOR), "Labels of its pods; set by a cluster."),
        silent("manualSelector", Bool, "Whether the selector was written by hand."),
        rejected("managedBy", "there is no other controller", "remove it", "Controller in charge."),
    ],
};

static FAILURE_POLICY: Type = Type {
    name: "PodFailurePolicy",
    doc: "What failures mean; the first rule that matches wins.",
    fields: &[required("rules", Objs(&FAILURE_RULE), "At most 20 rules.")],
};

static FAILURE_RULE: Type = Type {
    name: "PodFailurePolicyRule",
    doc: "What a failure means.",
    fields: &[
        required("action", Enum(&["FailJob", "Ignore", "Count", "FailIndex"]), "What is done."),
        field("onExitCodes", Obj(&ON_EXIT_CODES), "Exit codes that match."),
        inert(
            "onPodConditions",
            Objs(&ON_CONDITION),
            "pods are not evicted here, so no condition ever matches",
            "Conditions that match.",
        ),
    ],
};

static ON_EXIT_CODES: Type = Type {
    name: "PodFailurePolicyOnExitCodesRequirement",
    doc: "Exit codes that match.",
    fields: &[
        field("containerName", TEXT, "Only this container."),
        required("operator", Enum(&["In", "NotIn"]), "How they are compared."),
        required("values", List(&INT32), "The exit codes, at most 255."),
    ],
};

static ON_CONDITION: Type = Type {
    name: "PodFailurePolicyOnPodConditionsPattern",
    doc: "A condition that matches.",
    fields: &[
        silent("type", TEXT, "The condition."),
        silent("status", Enum(&["True", "False", "Unknown"]), "Its status; default True."),
    ],
};

pub(super) static CRON_JOB: Type = Type {
    name: "CronJob",
    doc: "Jobs by the clock.",
    fields: &[
        API_VERSION,
        KIND,
        METADATA,
        required("spec", Obj(&CRON_JOB_SPEC), "Schedule and Job."),
        super::status::CRON_JOB,
    ],
};

static CRON_JOB_SPEC: Type = Type {
    name: "CronJobSpec",
    doc: "Schedule and Job.",
    fields: &[
        required("schedule", Str(Format::Cron), "Five fields (minute hour day month weekday) or `@daily`."),
        required("jobTemplate", Obj(&JOB_TEMPLATE), "What each run is."),
        field("timeZone", Str(Format::TimeZone), "IANA time zone; the host's when left out."),
        field("concurrencyPolicy", Enum(&["Allow", "Forbid", "Replace"]), "When one still runs; default Allow."),
        field("startingDeadlineSeconds", COUNT64, "A run that is late for so long is missed."),
        field("suspend", Bool, "Start no runs."),
        field("successfulJobsHistoryLimit", COUNT, "Finished runs kept; default 3."),
        field("failedJobsHistoryLimit", COUNT, "Failed runs kept; default 1."),
    ],
};

static JOB_TEMPLATE: Type = Type {
    name: "JobTemplateSpec",
    doc: "What each run is.",
    fields: &[TEMPLATE_METADATA, required("spec", Obj(&JOB_SPEC), "Pods and rules.")],
};
