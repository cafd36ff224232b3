//! ConfigMap, Secret and Namespace (core/v1).

use super::Kind::{Bool, Map, Obj};
use super::meta::{API_VERSION, KIND, METADATA};
use super::{TEXT, TEXTS, Type, field, silent};

pub(super) static CONFIG_MAP: Type = Type {
    name: "ConfigMap",
    doc: "Settings by key.",
    fields: &[
        API_VERSION,
        KIND,
        METADATA,
        field("data", Map(&TEXT), "Text by key."),
        field("binaryData", Map(&TEXT), "Bytes by key, in base64."),
        silent("immutable", Bool, "Whether a cluster forbids changes."),
    ],
};

pub(super) static SECRET: Type = Type {
    name: "Secret",
    doc: "Values that must not be seen, by key.",
    fields: &[
        API_VERSION,
        KIND,
        METADATA,
        field("type", TEXT, "Such as `Opaque` or `kubernetes.io/dockerconfigjson`."),
        field("data", Map(&TEXT), "Values by key, in base64."),
        field("stringData", Map(&TEXT), "Values by key, as they are; they win over `data`."),
        silent("immutable", Bool, "Whether a cluster forbids changes."),
    ],
};

pub(super) static NAMESPACE: Type = Type {
    name: "Namespace",
    doc: "A space for names. It needs no object: a namespace is there as soon as something is in it.",
    fields: &[
        API_VERSION,
        KIND,
        METADATA,
        silent("spec", Obj(&NAMESPACE_SPEC), "Settings of a cluster."),
        super::status::NAMESPACE,
    ],
};

static NAMESPACE_SPEC: Type = Type {
    name: "NamespaceSpec",
    doc: "Settings of a cluster.",
    fields: &[silent("finalizers", TEXTS, "Clean-up steps of a cluster.")],
};
