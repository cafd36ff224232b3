//! `status`: what a cluster wrote into an object that was fetched from it. It is read and dropped, but what is wrong in it
//! is wrong in a cluster too.

use super::Kind::{Any, Bool, Int, List, Map, Obj, Objs, Quantity, Str};
use super::{Field, Format, INT32, Kind, TEXT, TEXTS, Type, silent};

const DOC: &str = "As a cluster reported it.";

const fn of(ty: &'static Type) -> Field {
    silent("status", Obj(ty), "State in a cluster; read and dropped.")
}

const fn s(name: &'static str, kind: Kind) -> Field {
    silent(name, kind, DOC)
}

const TIME: Kind = Str(Format::Time);
const INT64: Kind = Int(i64::MIN, i64::MAX);

macro_rules! status {
    ($($name:ident = $label:literal { $($field:literal: $kind:expr),* $(,)? })*) => {
        $(static $name: Type = Type { name: $label, doc: DOC, fields: &[$(s($field, $kind)),*] };)*
    };
}

pub(super) const DEPLOYMENT: Field = of(&DEPLOYMENT_STATUS);
pub(super) const REPLICA_SET: Field = of(&REPLICA_SET_STATUS);
pub(super) const DAEMON_SET: Field = of(&DAEMON_SET_STATUS);
pub(super) const STATEFUL_SET: Field = of(&STATEFUL_SET_STATUS);
pub(super) const JOB: Field = of(&JOB_STATUS);
pub(super) const CRON_JOB: Field = of(&CRON_JOB_STATUS);
pub(super) const POD: Field = of(&POD_STATUS);
pub(super) const SERVICE: Field = of(&SERVICE_STATUS);
pub(super) const CLAIM: Field = of(&CLAIM_STATUS);
pub(super) const VOLUME: Field = of(&VOLUME_STATUS);
pub(super) const NAMESPACE: Field = of(&NAMESPACE_STATUS);

status! {
    // The fields of the conditions of all kinds.
    CONDITION = "Condition" {
        "type": TEXT, "status": TEXT, "reason": TEXT, "message": TEXT, "observedGeneration": INT64,
        "lastProbeTime": TIME, "lastTransitionTime": TIME, "lastUpdateTime": TIME,
    }
    DEPLOYMENT_STATUS = "DeploymentStatus" {
        "observedGeneration": INT64, "replicas": INT32, "updatedReplicas": INT32, "readyReplicas": INT32,
        "availableReplicas": INT32, "unavailableReplicas": INT32, "terminatingReplicas": INT32,
        "conditions": Objs(&CONDITION), "collisionCount": INT32,
    }
    REPLICA_SET_STATUS = "ReplicaSetStatus" {
        "replicas": INT32, "fullyLabeledReplicas": INT32, "readyReplicas": INT32, "availableReplicas": INT32,
        "terminatingReplicas": INT32, "observedGeneration": INT64, "conditions": Objs(&CONDITION),
    }
    DAEMON_SET_STATUS = "DaemonSetStatus" {
        "currentNumberScheduled": INT32, "numberMisscheduled": INT32, "desiredNumberScheduled": INT32,
        "numberReady": INT32, "observedGeneration": INT64, "updatedNumberScheduled": INT32, "numberAvailable": INT32,
        "numberUnavailable": INT32, "collisionCount": INT32, "conditions": Objs(&CONDITION),
    }
    STATEFUL_SET_STATUS = "StatefulSetStatus" {
        "observedGeneration": INT64, "replicas": INT32, "readyReplicas": INT32, "currentReplicas": INT32,
        "updatedReplicas": INT32, "currentRevision": TEXT, "updateRevision": TEXT, "collisionCount": INT32,
        "conditions": Objs(&CONDITION), "availableReplicas": INT32,
    }
    JOB_STATUS = "JobStatus" {
        "conditions": Objs(&CONDITION), "startTime": TIME, "completionTime": TIME, "active": INT32, "succeeded": INT32,
        "failed": INT32, "terminating": INT32, "completedIndexes": TEXT, "failedIndexes": TEXT,
        "uncountedTerminatedPods": Obj(&UNCOUNTED), "ready": INT32,
    }
    UNCOUNTED = "UncountedTerminatedPods" { "succeeded": TEXTS, "failed": TEXTS }
    CRON_JOB_STATUS = "CronJobStatus" {
        "active": Objs(&REFERENCE), "lastScheduleTime": TIME, "lastSuccessfulTime": TIME,
    }
    REFERENCE = "ObjectReference" {
        "kind": TEXT, "namespace": TEXT, "name": TEXT, "uid": TEXT, "apiVersion": TEXT, "resourceVersion": TEXT,
        "fieldPath": TEXT,
    }
    POD_STATUS = "PodStatus" {
        "observedGeneration": INT64, "phase": TEXT, "conditions": Objs(&CONDITION), "message": TEXT, "reason": TEXT,
        "nominatedNodeName": TEXT, "hostIP": TEXT, "hostIPs": Objs(&ADDRESS), "podIP": TEXT, "podIPs": Objs(&ADDRESS),
        "startTime": TIME, "initContainerStatuses": Objs(&CONTAINER_STATUS), "containerStatuses": Objs(&CONTAINER_STATUS),
        "qosClass": TEXT, "ephemeralContainerStatuses": Objs(&CONTAINER_STATUS), "resize": TEXT,
        "resourceClaimStatuses": List(&Any), "extendedResourceClaimStatus": Map(&Any),
    }
    ADDRESS = "PodIP" { "ip": TEXT }
    CONTAINER_STATUS = "ContainerStatus" {
        "name": TEXT, "state": Obj(&CONTAINER_STATE), "lastState": Obj(&CONTAINER_STATE), "ready": Bool,
        "restartCount": INT32, "image": TEXT, "imageID": TEXT, "containerID": TEXT, "started": Bool,
        "allocatedResources": Map(&Quantity), "resources": Map(&Any), "volumeMounts": List(&Any), "user": Map(&Any),
        "allocatedResourcesStatus": List(&Any), "stopSignal": TEXT,
    }
    CONTAINER_STATE = "ContainerState" { "waiting": Obj(&WAITING), "running": Obj(&RUNNING), "terminated": Obj(&TERMINATED) }
    WAITING = "ContainerStateWaiting" { "reason": TEXT, "message": TEXT }
    RUNNING = "ContainerStateRunning" { "startedAt": TIME }
    TERMINATED = "ContainerStateTerminated" {
        "exitCode": INT32, "signal": INT32, "reason": TEXT, "message": TEXT, "startedAt": TIME, "finishedAt": TIME,
        "containerID": TEXT,
    }
    SERVICE_STATUS = "ServiceStatus" { "loadBalancer": Obj(&LOAD_BALANCER), "conditions": Objs(&CONDITION) }
    LOAD_BALANCER = "LoadBalancerStatus" { "ingress": Objs(&INGRESS) }
    INGRESS = "LoadBalancerIngress" { "ip": TEXT, "hostname": TEXT, "ipMode": TEXT, "ports": List(&Map(&Any)) }
    CLAIM_STATUS = "PersistentVolumeClaimStatus" {
        "phase": TEXT, "accessModes": TEXTS, "capacity": Map(&Quantity), "conditions": Objs(&CONDITION),
        "allocatedResources": Map(&Quantity), "allocatedResourceStatuses": Map(&TEXT),
        "currentVolumeAttributesClassName": TEXT, "modifyVolumeStatus": Map(&Any), "resizeStatus": TEXT,
    }
    VOLUME_STATUS = "PersistentVolumeStatus" {
        "phase": TEXT, "message": TEXT, "reason": TEXT, "lastPhaseTransitionTime": TIME,
    }
    NAMESPACE_STATUS = "NamespaceStatus" { "phase": TEXT, "conditions": Objs(&CONDITION) }
}
