//! Deployment, ReplicaSet, DaemonSet and StatefulSet (apps/v1).

use super::Kind::{Bool, Enum, IntOrPercent, Obj, Objs, Str};
use super::meta::{API_VERSION, KIND, LABEL_SELECTOR, METADATA};
use super::pod::POD_TEMPLATE;
use super::storage::CLAIM_TEMPLATE;
use super::{COUNT, Field, Format, POSITIVE, Type, field, inert, required, silent};

const SELECTOR: Field = required("selector", Obj(&LABEL_SELECTOR), "Labels of its pods; must match the template's.");
const TEMPLATE: Field = required("template", Obj(&POD_TEMPLATE), "What its pods are.");
const REPLICAS: Field = field("replicas", COUNT, "How many pods; default 1.");
const MIN_READY: Field = field("minReadySeconds", COUNT, "Ready for so long before a pod counts as available.");
const HISTORY: Field = silent("revisionHistoryLimit", COUNT, "Old versions kept; the agent keeps its own history.");

pub(super) static DEPLOYMENT: Type = Type {
    name: "Deployment",
    doc: "A number of equal pods, replaced without a gap.",
    fields: &[
        API_VERSION,
        KIND,
        METADATA,
        required("spec", Obj(&DEPLOYMENT_SPEC), "Pods and strategy."),
        super::status::DEPLOYMENT,
    ],
};

static DEPLOYMENT_SPEC: Type = Type {
    name: "DeploymentSpec",
    doc: "Pods and strategy of a Deployment.",
    fields: &[
        REPLICAS,
        SELECTOR,
        TEMPLATE,
        field("strategy", Obj(&DEPLOYMENT_STRATEGY), "How a new version takes over."),
        MIN_READY,
        field("progressDeadlineSeconds", POSITIVE, "An update without progress for so long has failed; default 600."),
        inert("paused", Bool, "changes are always applied", "Hold changes back."),
        HISTORY,
    ],
};

static DEPLOYMENT_STRATEGY: Type = Type {
    name: "DeploymentStrategy",
    doc: "How a new version takes over.",
    fields: &[
        field("type", Enum(&["RollingUpdate", "Recreate"]), "`Recreate` stops all old pods first."),
        field("rollingUpdate", Obj(&ROLLING_UPDATE), "Limits of a rolling update."),
    ],
};

static ROLLING_UPDATE: Type = Type {
    name: "RollingUpdate",
    doc: "Limits of a rolling update.",
    fields: &[
        field("maxSurge", IntOrPercent, "Pods above the wished number; default 25%, rounded up."),
        field("maxUnavailable", IntOrPercent, "Pods below the wished number; default 25%, rounded down."),
    ],
};

pub(super) static REPLICA_SET: Type = Type {
    name: "ReplicaSet",
    doc: "A number of equal pods.",
    fields: &[
        API_VERSION,
        KIND,
        METADATA,
        required("spec", Obj(&REPLICA_SET_SPEC), "The pods."),
        super::status::REPLICA_SET,
    ],
};

static REPLICA_SET_SPEC: Type =
    Type { name: "ReplicaSetSpec", doc: "Pods of a ReplicaSet.", fields: &[REPLICAS, SELECTOR, TEMPLATE, MIN_READY] };

pub(super) static DAEMON_SET: Type = Type {
    name: "DaemonSet",
    doc: "A pod on each node: one, here.",
    fields: &[
        API_VERSION,
        KIND,
        METADATA,
        required("spec", Obj(&DAEMON_SET_SPEC), "The pod."),
        super::status::DAEMON_SET,
    ],
};

static DAEMON_SET_SPEC: Type = Type {
    name: "DaemonSetSpec",
    doc: "The pod of a DaemonSet.",
    fields: &[
        SELECTOR,
        TEMPLATE,
        field("updateStrategy", Obj(&DAEMON_STRATEGY), "How a new version takes over."),
        MIN_READY,
        HISTORY,
    ],
};

static DAEMON_STRATEGY: Type = Type {
    name: "DaemonSetUpdateStrategy",
    doc: "How a new version takes over.",
    fields: &[
        field("type", Enum(&["RollingUpdate", "OnDelete"]), "`OnDelete` waits until the pod is removed by hand."),
        field("rollingUpdate", Obj(&ROLLING_UPDATE), "Limits of a rolling update."),
    ],
};

pub(super) static STATEFUL_SET: Type = Type {
    name: "StatefulSet",
    doc: "Pods with ordinals, stable names and volumes of their own.",
    fields: &[
        API_VERSION,
        KIND,
        METADATA,
        required("spec", Obj(&STATEFUL_SET_SPEC), "Pods and volumes."),
        super::status::STATEFUL_SET,
    ],
};

static STATEFUL_SET_SPEC: Type = Type {
    name: "StatefulSetSpec",
    doc: "Pods and volumes of a StatefulSet.",
    fields: &[
        REPLICAS,
        SELECTOR,
        TEMPLATE,
        field("serviceName", Str(Format::DnsSubdomain), "The headless Service that names the pods."),
        field("volumeClaimTemplates", Objs(&CLAIM_TEMPLATE), "A claim for each pod."),
        field("podManagementPolicy", Enum(&["OrderedReady", "Parallel"]), "`Parallel` starts all at once."),
        field("updateStrategy", Obj(&STATEFUL_STRATEGY), "How a new version takes over."),
        MIN_READY,
        field("ordinals", Obj(&ORDINALS), "Numbering of the pods."),
        silent("persistentVolumeClaimRetentionPolicy", Obj(&RETENTION), "Data is never deleted, whatever this says."),
        HISTORY,
    ],
};

static STATEFUL_STRATEGY: Type = Type {
    name: "StatefulSetUpdateStrategy",
    doc: "How a new version takes over.",
    fields: &[
        field("type", Enum(&["RollingUpdate", "OnDelete"]), "`OnDelete` waits until pods are removed by hand."),
        field("rollingUpdate", Obj(&STATEFUL_ROLLING), "Limits of a rolling update."),
    ],
};

static STATEFUL_ROLLING: Type = Type {
    name: "RollingUpdateStatefulSetStrategy",
    doc: "Limits of a rolling update.",
    fields: &[
        field("partition", COUNT, "Only ordinals at or above it are updated."),
        inert("maxUnavailable", IntOrPercent, "pods are updated one at a time", "Pods below the wished number."),
    ],
};

static ORDINALS: Type = Type {
    name: "StatefulSetOrdinals",
    doc: "Numbering of the pods.",
    fields: &[field("start", COUNT, "First number; default 0.")],
};

static RETENTION: Type = Type {
    name: "StatefulSetPersistentVolumeClaimRetentionPolicy",
    doc: "What a cluster does with claims.",
    fields: &[
        silent("whenDeleted", Enum(&["Retain", "Delete"]), "When the StatefulSet is removed."),
        silent("whenScaled", Enum(&["Retain", "Delete"]), "When it gets fewer pods."),
    ],
};
