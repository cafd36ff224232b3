//! Metadata and the types that several kinds share.

use super::Kind::{Annotations, Any, Bool, Enum, Labels, List, Obj, Objs, Str};
use super::{COUNT64, Field, Format, TEXT, Type, field, required, silent};

/// `apiVersion` and `kind`, first in every object.
pub(super) const API_VERSION: Field = required("apiVersion", TEXT, "Version of the kind, such as `apps/v1`.");
pub(super) const KIND: Field = required("kind", TEXT, "What the object is, such as `Deployment`.");
pub(super) const METADATA: Field = required("metadata", Obj(&OBJECT_META), "Name, namespace, labels, annotations.");

pub(super) static OBJECT_META: Type = Type {
    name: "ObjectMeta",
    doc: "Who an object is.",
    fields: &[
        field("name", TEXT, "Name, unique among the objects of its kind in its namespace."),
        field("generateName", TEXT, "Start of a name to be made up; here the end is derived from the content."),
        field("namespace", Str(Format::DnsLabel), "Namespace; `default` when left out."),
        field("labels", Labels, "Keys and values that selectors match."),
        field("annotations", Annotations, "Keys and values for tools; `mainstay/...` ones steer the agent."),
        silent("selfLink", TEXT, "Set by a cluster; read and dropped."),
        silent("uid", TEXT, "Set by a cluster; read and dropped."),
        silent("resourceVersion", TEXT, "Set by a cluster; read and dropped."),
        silent("generation", COUNT64, "Set by a cluster; read and dropped."),
        silent("creationTimestamp", Str(Format::Time), "Set by a cluster; read and dropped."),
        silent("deletionTimestamp", Str(Format::Time), "Set by a cluster; read and dropped."),
        silent("deletionGracePeriodSeconds", COUNT64, "Set by a cluster; read and dropped."),
        silent("ownerReferences", Objs(&OWNER_REFERENCE), "Owner in a cluster; read and dropped."),
        silent("finalizers", List(&Str(Format::LabelKey)), "Clean-up steps of a cluster; read and dropped."),
        silent("managedFields", List(&Any), "Bookkeeping of a cluster; read and dropped."),
    ],
};

/// Metadata of a template: the same fields, but it may be left out.
pub(super) const TEMPLATE_METADATA: Field =
    field("metadata", Obj(&OBJECT_META), "Labels and annotations of what is made from the template.");

static OWNER_REFERENCE: Type = Type {
    name: "OwnerReference",
    doc: "The object that owns this one in a cluster.",
    fields: &[
        Field { required: true, ..silent("apiVersion", TEXT, "Version of the owner's kind.") },
        Field { required: true, ..silent("kind", TEXT, "Kind of the owner.") },
        Field { required: true, ..silent("name", TEXT, "Name of the owner.") },
        Field { required: true, ..silent("uid", TEXT, "Unique id of the owner.") },
        silent("controller", Bool, "Whether the owner manages it."),
        silent("blockOwnerDeletion", Bool, "Whether the owner waits for it."),
    ],
};

pub(super) static LABEL_SELECTOR: Type = Type {
    name: "LabelSelector",
    doc: "Which labels an object must have.",
    fields: &[
        field("matchLabels", Labels, "Each key must have this value."),
        field("matchExpressions", Objs(&SELECTOR_REQUIREMENT), "Further conditions on keys."),
    ],
};

static SELECTOR_REQUIREMENT: Type = Type {
    name: "LabelSelectorRequirement",
    doc: "A condition on one label.",
    fields: &[
        required("key", Str(Format::LabelKey), "The label."),
        required("operator", Enum(&["In", "NotIn", "Exists", "DoesNotExist"]), "How it is compared."),
        field("values", List(&Str(Format::LabelValue)), "Values for `In` and `NotIn`."),
    ],
};

pub(super) static LOCAL_REFERENCE: Type = Type {
    name: "LocalObjectReference",
    doc: "An object of the same namespace.",
    fields: &[field("name", TEXT, "Its name.")],
};

pub(super) static TYPED_LOCAL_REFERENCE: Type = Type {
    name: "TypedObjectReference",
    doc: "An object of some kind.",
    fields: &[
        silent("apiGroup", TEXT, "Group of its kind."),
        silent("kind", TEXT, "Its kind."),
        silent("name", TEXT, "Its name."),
        silent("namespace", TEXT, "Its namespace."),
    ],
};
