//! Volumes of a pod (core/v1).

use super::Kind::{Bool, Enum, Int, Obj, Objs, Quantity, Str};
use super::container::{FIELD_SELECTOR, RESOURCE_SELECTOR};
use super::storage::CLAIM_TEMPLATE;
use super::{Field, Format, TEXT, Type, field, rejected, required};

const CLUSTER: &str = "the volume type needs a storage system of a cluster";
const USE: &str =
    "use `hostPath`, `emptyDir` or `persistentVolumeClaim`; a network file system can be mounted on the host";

/// A volume type that only a cluster has.
pub(super) const fn cluster_volume(name: &'static str) -> Field {
    rejected(name, CLUSTER, USE, "A volume type that only a cluster has.")
}

pub(super) static VOLUME: Type = Type {
    name: "Volume",
    doc: "Something that containers can mount; exactly one source.",
    fields: &[
        required("name", Str(Format::DnsLabel), "Name, unique in the pod."),
        field("hostPath", Obj(&HOST_PATH), "A path of the host."),
        field("emptyDir", Obj(&EMPTY_DIR), "Empty at first, gone with the pod."),
        field("configMap", Obj(&CONFIG_MAP_VOLUME), "Keys of a ConfigMap as files."),
        field("secret", Obj(&SECRET_VOLUME), "Keys of a Secret as files, in memory."),
        field("downwardAPI", Obj(&DOWNWARD_VOLUME), "Facts of the pod as files."),
        field("projected", Obj(&PROJECTED), "Several of these in one directory."),
        field("persistentVolumeClaim", Obj(&CLAIM_VOLUME), "Data that outlives the pod."),
        field("image", Obj(&IMAGE_VOLUME), "The files of an image, read-only."),
        field("ephemeral", Obj(&EPHEMERAL), "Like emptyDir, written as a claim."),
        rejected(
            "gitRepo",
            "Kubernetes has removed it",
            "clone in an init container into an `emptyDir`",
            "A git clone.",
        ),
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

pub(super) static HOST_PATH: Type = Type {
    name: "HostPathVolumeSource",
    doc: "A path of the host.",
    fields: &[
        required("path", TEXT, "The path."),
        field(
            "type",
            Enum(&[
                "",
                "DirectoryOrCreate",
                "Directory",
                "FileOrCreate",
                "File",
                "Socket",
                "CharDevice",
                "BlockDevice",
            ]),
            "What must be there or is made.",
        ),
    ],
};

static EMPTY_DIR: Type = Type {
    name: "EmptyDirVolumeSource",
    doc: "An empty directory.",
    fields: &[
        field("medium", TEXT, "`Memory` for a file system in memory."),
        field("sizeLimit", Quantity, "Bytes at the most."),
        super::inert("mode", Int(0, 0o1777), "the directory is open to all users of the pod", "Permissions."),
    ],
};

const MODE: super::Kind = Int(0, 0o777);

static KEY_TO_PATH: Type = Type {
    name: "KeyToPath",
    doc: "A key and the path it appears at.",
    fields: &[
        required("key", Str(Format::ConfigKey), "The key."),
        required("path", TEXT, "Relative path."),
        field("mode", MODE, "Permissions, such as 0400."),
    ],
};

static CONFIG_MAP_VOLUME: Type = Type {
    name: "ConfigMapVolumeSource",
    doc: "Keys of a ConfigMap as files.",
    fields: &[
        required("name", Str(Format::DnsSubdomain), "Name of the ConfigMap."),
        field("items", Objs(&KEY_TO_PATH), "Chosen keys; all when left out."),
        field("defaultMode", MODE, "Permissions; default 0644."),
        field("optional", Bool, "Missing is fine."),
    ],
};

static SECRET_VOLUME: Type = Type {
    name: "SecretVolumeSource",
    doc: "Keys of a Secret as files.",
    fields: &[
        required("secretName", Str(Format::DnsSubdomain), "Name of the Secret."),
        field("items", Objs(&KEY_TO_PATH), "Chosen keys; all when left out."),
        field("defaultMode", MODE, "Permissions; default 0644."),
        field("optional", Bool, "Missing is fine."),
    ],
};

static DOWNWARD_VOLUME: Type = Type {
    name: "DownwardAPIVolumeSource",
    doc: "Facts of the pod as files.",
    fields: &[
        field("items", Objs(&DOWNWARD_FILE), "The files."),
        field("defaultMode", MODE, "Permissions; default 0644."),
    ],
};

static DOWNWARD_FILE: Type = Type {
    name: "DownwardAPIVolumeFile",
    doc: "A fact of the pod as a file.",
    fields: &[
        required("path", TEXT, "Relative path."),
        field("fieldRef", Obj(&FIELD_SELECTOR), "A fact of the pod."),
        field("resourceFieldRef", Obj(&RESOURCE_SELECTOR), "A limit or request of a container."),
        field("mode", MODE, "Permissions."),
    ],
};

static PROJECTED: Type = Type {
    name: "ProjectedVolumeSource",
    doc: "Several sources in one directory.",
    fields: &[
        field("sources", Objs(&PROJECTION), "The sources; later ones win."),
        field("defaultMode", MODE, "Permissions; default 0644."),
    ],
};

static PROJECTION: Type = Type {
    name: "VolumeProjection",
    doc: "One source; exactly one field.",
    fields: &[
        field("configMap", Obj(&PROJECTED_OBJECT), "Keys of a ConfigMap."),
        field("secret", Obj(&PROJECTED_OBJECT), "Keys of a Secret."),
        field("downwardAPI", Obj(&PROJECTED_FACTS), "Facts of the pod."),
        rejected(
            "serviceAccountToken",
            "the volume type needs an API server that issues tokens",
            "remove it, or mount a token from a Secret",
            "A token for a cluster's API.",
        ),
        rejected(
            "clusterTrustBundle",
            "there is no cluster that keeps trust bundles",
            "use a ConfigMap",
            "Certificates.",
        ),
        rejected("podCertificate", "there is no cluster that signs certificates", "use a Secret", "A certificate."),
    ],
};

static PROJECTED_OBJECT: Type = Type {
    name: "ObjectProjection",
    doc: "Keys of a ConfigMap or Secret.",
    fields: &[
        required("name", Str(Format::DnsSubdomain), "Name of the object."),
        field("items", Objs(&KEY_TO_PATH), "Chosen keys; all when left out."),
        field("optional", Bool, "Missing is fine."),
    ],
};

static PROJECTED_FACTS: Type = Type {
    name: "DownwardAPIProjection",
    doc: "Facts of the pod.",
    fields: &[field("items", Objs(&DOWNWARD_FILE), "The files.")],
};

static CLAIM_VOLUME: Type = Type {
    name: "PersistentVolumeClaimVolumeSource",
    doc: "A claim.",
    fields: &[
        required("claimName", Str(Format::DnsSubdomain), "Name of the PersistentVolumeClaim."),
        field("readOnly", Bool, "No writes through it."),
    ],
};

static IMAGE_VOLUME: Type = Type {
    name: "ImageVolumeSource",
    doc: "The files of an image.",
    fields: &[
        required("reference", TEXT, "Image reference."),
        field("pullPolicy", Enum(&["Always", "IfNotPresent", "Never"]), "When to pull."),
    ],
};

static EPHEMERAL: Type = Type {
    name: "EphemeralVolumeSource",
    doc: "A directory that lives as long as the pod.",
    fields: &[Field {
        status: super::Status::Silent,
        ..required("volumeClaimTemplate", Obj(&CLAIM_TEMPLATE), "The claim; its size is not enforced.")
    }],
};
