//! `apiVersion` and `kind`: what is supported, what is refused and why.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::node::{Node, Span, Value};
use crate::schema::check::{quoted, suggest};
use crate::schema::report::Report;
use crate::schema::{self, ObjectKind, read};
use crate::workload::ObjectId;

/// What a document claims to be.
pub(super) enum Header {
    /// A supported kind.
    Kind(&'static ObjectKind),
    /// A list of objects.
    List,
    /// Refused; that is reported.
    Refused,
}

/// API versions of supported kinds that Kubernetes has removed (kubernetes.io, "Deprecated API Migration Guide").
const REMOVED: &[(&str, &[&str])] = &[
    ("extensions/v1beta1", &["Deployment", "DaemonSet", "ReplicaSet"]),
    ("apps/v1beta1", &["Deployment", "StatefulSet"]),
    ("apps/v1beta2", &["Deployment", "DaemonSet", "ReplicaSet", "StatefulSet"]),
    ("apps/v1alpha1", &["StatefulSet", "PetSet"]),
    ("batch/v1beta1", &["CronJob", "Job"]),
    ("batch/v2alpha1", &["CronJob", "ScheduledJob", "Job"]),
    ("v1beta1", &[]),
    ("v1beta2", &[]),
    ("v1beta3", &[]),
];

/// Kinds that only a cluster has: why, and what to use here.
const CLUSTER: &[(&str, &str, &str)] = &[
    ("ServiceAccount", "there is no API server that accounts could speak to", "remove it"),
    ("ReplicationController", "it is the old form of a ReplicaSet", "write a Deployment (apps/v1)"),
    (
        "Ingress",
        "there is no ingress controller",
        "publish ports with `hostPort` or a Service of type NodePort, or run a proxy as a Pod",
    ),
    ("IngressClass", "there is no ingress controller", "remove it"),
    (
        "NetworkPolicy",
        "traffic between pods of one host is not filtered",
        "put pods that must not meet on separate networks (Compose `networks`)",
    ),
    ("PodDisruptionBudget", "there is one node, so nothing is drained", "remove it"),
    ("HorizontalPodAutoscaler", "the number of pods is what the manifest says", "set `replicas`"),
    ("VerticalPodAutoscaler", "limits are what the manifest says", "set `resources`"),
    ("StorageClass", "volumes are directories of this host", "remove it; claims need no class"),
    ("ResourceQuota", "there are no tenants to divide the host among", "set `resources` in the pods"),
    ("LimitRange", "there are no defaults by namespace", "set `resources` in the pods"),
    ("Role", "there is no API server to guard", "remove it"),
    ("ClusterRole", "there is no API server to guard", "remove it"),
    ("RoleBinding", "there is no API server to guard", "remove it"),
    ("ClusterRoleBinding", "there is no API server to guard", "remove it"),
    ("CustomResourceDefinition", "there is no API server to extend", "remove it"),
    ("APIService", "there is no API server to extend", "remove it"),
    ("MutatingWebhookConfiguration", "there is no API server to extend", "remove it"),
    ("ValidatingWebhookConfiguration", "there is no API server to extend", "remove it"),
    ("ValidatingAdmissionPolicy", "there is no API server to extend", "remove it"),
    ("ValidatingAdmissionPolicyBinding", "there is no API server to extend", "remove it"),
    ("PodSecurityPolicy", "Kubernetes has removed it", "set `securityContext` in the pods"),
    ("PodPreset", "Kubernetes has removed it", "write its settings into the pods"),
    ("PodTemplate", "nothing makes pods from it", "write a Pod or a Deployment"),
    (
        "Endpoints",
        "addresses follow from the pods of a Service",
        "give the Service a selector, or use `type: ExternalName`",
    ),
    ("EndpointSlice", "addresses follow from the pods of a Service", "give the Service a selector"),
    ("PriorityClass", "there is one node and no scheduler", "remove it"),
    ("RuntimeClass", "runtimes are named in the configuration file, `[runtimes.NAME]`", "remove it"),
    ("Node", "the node is this host", "set labels in the configuration file, `node.labels`"),
    ("Event", "events are written by the agent", "remove it"),
    ("Lease", "there is no API server that keeps leases", "remove it"),
    ("CSIDriver", "storage drivers need a cluster", "remove it"),
    ("VolumeSnapshot", "storage drivers need a cluster", "remove it"),
    ("VolumeSnapshotClass", "storage drivers need a cluster", "remove it"),
    ("ControllerRevision", "history is kept by the agent", "remove it"),
    ("ComponentStatus", "it only exists in a cluster", "remove it"),
    ("Kustomization", "overlays are not applied here", "run `kustomize build` and use its output"),
    ("Component", "overlays are not applied here", "run `kustomize build` and use its output"),
    ("DeploymentConfig", "it belongs to OpenShift", "write a Deployment (apps/v1)"),
    ("ImageStream", "it belongs to OpenShift", "name the image in the containers"),
    ("ImageStreamTag", "it belongs to OpenShift", "name the image in the containers"),
    ("BuildConfig", "images are not built here", "build the image elsewhere and name it in the containers"),
    ("Route", "it belongs to OpenShift", "publish ports with `hostPort` or a Service of type NodePort"),
    ("Template", "it belongs to OpenShift", "run `oc process` and use its output"),
    ("SecurityContextConstraints", "it belongs to OpenShift", "set `securityContext` in the pods"),
    ("Project", "it belongs to OpenShift", "write a Namespace"),
    ("Policy", "it is a setting of a scheduler or an API server", "remove it"),
    ("SealedSecret", "its key is in a cluster", "write a Secret"),
    ("HelmRelease", "charts are not rendered here", "run `helm template` and use its output"),
    ("HelmChart", "charts are not rendered here", "run `helm template` and use its output"),
    ("Gateway", "there is no gateway controller", "publish ports with `hostPort` or a Service of type NodePort"),
    ("HTTPRoute", "there is no gateway controller", "publish ports with `hostPort` or a Service of type NodePort"),
    ("ServiceMonitor", "it configures an operator of a cluster", "configure Prometheus itself"),
    ("PodMonitor", "it configures an operator of a cluster", "configure Prometheus itself"),
    ("PrometheusRule", "it configures an operator of a cluster", "configure Prometheus itself"),
];

/// Whether the document means to be a Kubernetes object.
pub(super) fn is_manifest(node: &Node) -> bool {
    let has = |key| node.get(key).is_some();
    (has("kind") && (has("apiVersion") || has("metadata") || has("spec") || has("items")))
        || (has("apiVersion") && (has("metadata") || has("spec") || has("kind") || has("data")))
}

/// Whether the document is a Compose file.
pub(super) fn is_compose(node: &Node) -> bool {
    let has = |key| node.get(key).is_some();
    !has("kind")
        && !has("apiVersion")
        && (has("services") || (has("include") && !has("spec")) || super::compose::is_mistaken(node))
}

/// The finding about a document that is something else.
pub(super) fn not_a_manifest(file: &str, node: &Node) -> Diagnostic {
    let span = Span { end: node.span.start.saturating_add(1), ..node.span };
    Diagnostic::warning(codes::NOT_A_MANIFEST, file, Some(span), "this is no manifest and is passed over")
        .hint("a Kubernetes object has `apiVersion` and `kind`, a Compose file has `services`")
}

/// Who the document is about, when that can be read at all.
pub(super) fn id(node: &Node) -> Option<ObjectId> {
    let metadata = read::get(node, "metadata")?;
    Some(ObjectId {
        kind: read::string(node, "kind")?,
        namespace: read::string(metadata, "namespace").unwrap_or_else(|| "default".to_owned()),
        name: read::string(metadata, "name")?,
    })
}

/// Reads the header and reports what is wrong with it.
pub(super) fn read(report: &mut Report<'_>, node: &Node) -> Header {
    if node.as_map().is_none() {
        let message = format!("an object is a mapping, not {}", node.kind());
        report.error(codes::MISSING_HEADER, node, message);
        return Header::Refused;
    }
    let mut complete = true;
    for key in ["apiVersion", "kind"] {
        match read::get(node, key).map(|value| &value.value) {
            Some(Value::String(text, _)) if !text.is_empty() => {}
            Some(Value::String(..)) | None => {
                report.error_at(codes::MISSING_HEADER, node, key, format!("`{key}` is missing"));
                complete = false;
            }
            Some(_) => {
                report.error_at(codes::MISSING_HEADER, node, key, format!("`{key}` must be text"));
                complete = false;
            }
        }
    }
    let kind = read::text(node, "kind").unwrap_or_default();
    let version = read::text(node, "apiVersion").unwrap_or_default();
    if !complete {
        // The kind is refused by name even when the version is missing.
        if let Some((_, why, hint)) = CLUSTER.iter().find(|(name, ..)| *name == kind) {
            refuse(report, node, kind, why, hint);
        }
        return Header::Refused;
    }
    // A list is of the version of what it lists.
    let version_of = if kind == "List" {
        Some("v1")
    } else {
        kind.strip_suffix("List").and_then(schema::kind).map(|k| k.api_version)
    };
    if let Some(wanted) = version_of.filter(|wanted| *wanted != version) {
        let message = format!("{kind} is not in {}", quoted(version));
        report.error_at(codes::UNKNOWN_KIND, node, "apiVersion", message).hint =
            Some(format!("write `apiVersion: {wanted}`"));
        return Header::Refused;
    }
    if kind.ends_with("List") && read::get(node, "items").is_some_and(|items| items.as_seq().is_some()) {
        return Header::List;
    }
    if version == "v1" && kind == "List" {
        if read::get(node, "items").is_some() {
            report.error_at(codes::WRONG_TYPE, node, "items", "`items` takes a list");
            return Header::Refused;
        }
        return Header::List;
    }
    classify(report, node, version, kind)
}

fn refuse(report: &mut Report<'_>, node: &Node, kind: &str, why: &str, hint: &str) {
    report.error_at(codes::REJECTED_KIND, node, "kind", format!("{kind} is not supported: {why}")).hint =
        Some(hint.to_owned());
}

fn classify(report: &mut Report<'_>, node: &Node, version: &str, kind: &str) -> Header {
    if let Some(found) = schema::KINDS.iter().find(|k| k.kind == kind && k.api_version == version) {
        return Header::Kind(found);
    }
    let removed = REMOVED.iter().any(|(old, kinds)| *old == version && (kinds.is_empty() || kinds.contains(&kind)));
    let supported = schema::kind(kind);
    if removed {
        let message = format!("{version} is not served any more for {kind}");
        let now = supported.map(|k| k.api_version);
        report.error_at(codes::REMOVED_API, node, "apiVersion", message).hint = Some(match now {
            Some(now) => format!("write `apiVersion: {now}`{}", migration(kind, version)),
            None => "Kubernetes has removed this kind".to_owned(),
        });
        return Header::Refused;
    }
    if let Some(supported) = supported
        && (version == "v1" || !version.contains('.') || version.starts_with("core/"))
    {
        let message = format!("{kind} is not in {}", quoted(version));
        report.error_at(codes::UNKNOWN_KIND, node, "apiVersion", message).hint =
            Some(format!("write `apiVersion: {}`", supported.api_version));
        return Header::Refused;
    }
    if let Some((_, why, hint)) = CLUSTER.iter().find(|(name, ..)| *name == kind) {
        refuse(report, node, kind, why, hint);
        return Header::Refused;
    }
    if version.contains('.') {
        let message = format!("{kind} of {version} is not supported: it extends a cluster");
        report.error_at(codes::REJECTED_KIND, node, "kind", message).hint =
            Some("only the kinds of v1, apps/v1 and batch/v1 that run containers are supported".to_owned());
        return Header::Refused;
    }
    let names = schema::KINDS.iter().map(|k| k.kind).chain(CLUSTER.iter().map(|(name, ..)| *name)).chain(["List"]);
    let hint = suggest(kind, names).map(|name| format!("did you mean `{name}`?"));
    report.error_at(codes::UNKNOWN_KIND, node, "kind", format!("unknown kind {} of {version}", quoted(kind))).hint =
        hint.or_else(|| {
            let known: Vec<_> = schema::KINDS.iter().map(|k| k.kind).collect();
            Some(format!("supported are {}", known.join(", ")))
        });
    Header::Refused
}

fn migration(kind: &str, version: &str) -> &'static str {
    match (kind, version) {
        ("CronJob", _) => "",
        (_, "apps/v1beta2") => "",
        _ => " and add `spec.selector` with the labels of the template",
    }
}

/// Fields of a list itself; whether there is something wrong with them.
pub(super) fn check_list(report: &mut Report<'_>, node: &Node) -> bool {
    let mut wrong = false;
    let known = ["apiVersion", "kind", "metadata", "items"];
    for (key, entry) in node.as_map().into_iter().flatten() {
        // Old versions of kubectl wrote these beside `metadata` instead of into it, always empty.
        if ["resourceVersion", "selfLink"].contains(&key.as_str()) && entry.node.as_str() == Some("") {
            continue;
        }
        if !known.contains(&key.as_str()) {
            report.error_at(codes::UNKNOWN_FIELD, node, key, format!("unknown field `{key}`")).hint =
                suggest(key, known.into_iter()).map(|name| format!("did you mean `{name}`?"));
            wrong = true;
        }
    }
    wrong
}
