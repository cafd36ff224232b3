//! PersistentVolumeClaim and PersistentVolume (core/v1).

use super::Kind::{Enum, List, Map, Obj, Quantity, Str};
use super::meta::{API_VERSION, KIND, LABEL_SELECTOR, METADATA, TEMPLATE_METADATA, TYPED_LOCAL_REFERENCE};
use super::pod::NODE_SELECTOR;
use super::volume::{HOST_PATH, cluster_volume};
use super::{Field, Format, TEXT, TEXTS, Type, field, inert, required, silent};

const ACCESS_MODES: super::Kind = List(&Enum(&["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]));
const ONE_STORE: &str = "every claim is a directory on this host unless a PersistentVolume matches it";

pub(super) static CLAIM: Type = Type {
    name: "PersistentVolumeClaim",
    doc: "Data that outlives pods.",
    fields: &[
        API_VERSION,
        KIND,
        METADATA,
        required("spec", Obj(&CLAIM_SPEC), "What is asked for."),
        super::status::CLAIM,
    ],
};

pub(super) static CLAIM_TEMPLATE: Type = Type {
    name: "PersistentVolumeClaimTemplate",
    doc: "A claim made for each pod.",
    fields: &[
        silent("apiVersion", TEXT, "Version of the kind; `v1`."),
        silent("kind", TEXT, "`PersistentVolumeClaim`."),
        TEMPLATE_METADATA,
        required("spec", Obj(&CLAIM_SPEC), "What is asked for."),
        super::status::CLAIM,
    ],
};

static CLAIM_SPEC: Type = Type {
    name: "PersistentVolumeClaimSpec",
    doc: "What a claim asks for.",
    fields: &[
        required("accessModes", ACCESS_MODES, "How it may be mounted."),
        required("resources", Obj(&CLAIM_RESOURCES), "How much."),
        field("volumeName", TEXT, "The PersistentVolume to use."),
        field("selector", Obj(&LABEL_SELECTOR), "Labels of the PersistentVolume to use."),
        inert("storageClassName", Str(Format::DnsSubdomain), ONE_STORE, "Class of storage."),
        inert("volumeAttributesClassName", TEXT, ONE_STORE, "Class of attributes."),
        field("volumeMode", Enum(&["Filesystem", "Block"]), "Only `Filesystem`."),
        inert("dataSource", Obj(&TYPED_LOCAL_REFERENCE), "the volume starts empty", "Content to start with."),
        inert("dataSourceRef", Obj(&TYPED_LOCAL_REFERENCE), "the volume starts empty", "Content to start with."),
    ],
};

static CLAIM_RESOURCES: Type = Type {
    name: "VolumeResourceRequirements",
    doc: "How much a claim asks for.",
    fields: &[
        required("requests", Map(&Quantity), "At least; `storage`."),
        silent("limits", Map(&Quantity), "At the most; not enforced."),
    ],
};

pub(super) static VOLUME: Type = Type {
    name: "PersistentVolume",
    doc: "A place for a claim's data.",
    fields: &[
        API_VERSION,
        KIND,
        METADATA,
        required("spec", Obj(&VOLUME_SPEC), "Where the data is."),
        super::status::VOLUME,
    ],
};

static VOLUME_SPEC: Type = Type {
    name: "PersistentVolumeSpec",
    doc: "Where the data of a claim is; exactly one source.",
    fields: &[
        required("capacity", Map(&Quantity), "Size; `storage`."),
        required("accessModes", ACCESS_MODES, "How it may be mounted."),
        field("hostPath", Obj(&HOST_PATH), "A path of the host."),
        field("local", Obj(&LOCAL), "A path of the host that must exist."),
        field("claimRef", Obj(&CLAIM_REFERENCE), "The claim it is kept for."),
        field("storageClassName", Str(Format::DnsSubdomain), "Claims of this class match."),
        silent(
            "persistentVolumeReclaimPolicy",
            Enum(&["Retain", "Delete", "Recycle"]),
            "Data is never deleted, whatever this says.",
        ),
        silent("mountOptions", TEXTS, "Options for mounting; a path is not mounted."),
        field("volumeMode", Enum(&["Filesystem", "Block"]), "Only `Filesystem`."),
        silent("nodeAffinity", Obj(&VOLUME_NODE_AFFINITY), "Nodes that have it; there is one node."),
        inert("volumeAttributesClassName", TEXT, ONE_STORE, "Class of attributes."),
        cluster_volume("awsElasticBlockStore"),
        cluster_volume("azureDisk"),
        cluster_volume("azureFile"),
        cluster_volume("cephfs"),
        cluster_volume("cinder"),
        cluster_volume("csi"),
        cluster_volume("fc"),
        cluster_volume("flexVolume"),
        cluster_volume("flocker"),
        cluster_volume("gcePersistentDisk"),
        cluster_volume("glusterfs"),
        cluster_volume("iscsi"),
        cluster_volume("nfs"),
        cluster_volume("photonPersistentDisk"),
        cluster_volume("portworxVolume"),
        cluster_volume("quobyte"),
        cluster_volume("rbd"),
        cluster_volume("scaleIO"),
        cluster_volume("storageos"),
        cluster_volume("vsphereVolume"),
    ],
};

static LOCAL: Type = Type {
    name: "LocalVolumeSource",
    doc: "A path of the host that must exist.",
    fields: &[required("path", TEXT, "The path."), silent("fsType", TEXT, "File system of a block device; not used.")],
};

static VOLUME_NODE_AFFINITY: Type = Type {
    name: "VolumeNodeAffinity",
    doc: "Nodes that have a volume.",
    fields: &[Field { required: false, ..silent("required", Obj(&NODE_SELECTOR), "Must hold.") }],
};

static CLAIM_REFERENCE: Type = Type {
    name: "ObjectReference",
    doc: "An object.",
    fields: &[
        silent("apiVersion", TEXT, "Version of its kind."),
        silent("kind", TEXT, "Its kind."),
        field("name", Str(Format::DnsSubdomain), "Its name."),
        field("namespace", Str(Format::DnsLabel), "Its namespace."),
        silent("uid", TEXT, "Its unique id."),
        silent("resourceVersion", TEXT, "Its version."),
        silent("fieldPath", TEXT, "A part of it."),
    ],
};
