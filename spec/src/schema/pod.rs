//! Pod, PodTemplate and PodSpec (core/v1).

use super::Kind::{Bool, Enum, Int, Labels, List, Map, Obj, Objs, Quantity, Str};
use super::container::{CONTAINER, INIT_CONTAINER, SECCOMP_PROFILE};
use super::meta::{API_VERSION, KIND, LABEL_SELECTOR, LOCAL_REFERENCE, METADATA, TEMPLATE_METADATA};
use super::volume::VOLUME;
use super::{
    COUNT, Field, Format, INT32, ONE_NODE, POSITIVE, TEXT, TEXTS, Type, field, inert, rejected, required, silent,
};

pub(super) static POD: Type = Type {
    name: "Pod",
    doc: "One or more containers that run together with one address.",
    fields: &[API_VERSION, KIND, METADATA, required("spec", Obj(&POD_SPEC), "What runs."), super::status::POD],
};

pub(super) static POD_TEMPLATE: Type = Type {
    name: "PodTemplateSpec",
    doc: "What the pods of a workload are.",
    fields: &[TEMPLATE_METADATA, required("spec", Obj(&POD_SPEC), "What runs.")],
};

const ACCOUNT: &str = "there is no API server that a service account could speak to";

pub(super) static POD_SPEC: Type = Type {
    name: "PodSpec",
    doc: "What a pod is.",
    fields: &[
        required("containers", Objs(&CONTAINER), "Containers that run together."),
        field("initContainers", Objs(&INIT_CONTAINER), "Containers that run before, one after the other."),
        rejected(
            "ephemeralContainers",
            "they are added to a running pod, not written in a manifest",
            "use `mainstay exec` to look into a running container",
            "Containers for debugging.",
        ),
        field("volumes", Objs(&VOLUME), "What containers can mount."),
        field("restartPolicy", Enum(&["Always", "OnFailure", "Never"]), "When ended containers start again."),
        field(
            "terminationGracePeriodSeconds",
            Int(0, i64::MAX),
            "Seconds between stop signal and SIGKILL; default 30.",
        ),
        field("activeDeadlineSeconds", Int(1, i32::MAX as i64), "The pod fails after this many seconds."),
        field("dnsPolicy", Enum(&["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]), "Which resolver."),
        field("dnsConfig", Obj(&DNS_CONFIG), "Resolver settings."),
        field("nodeSelector", Labels, "Labels that the node must have (configuration, `node.labels`)."),
        inert("nodeName", Str(Format::DnsSubdomain), ONE_NODE, "The node to run on."),
        inert("serviceAccountName", Str(Format::DnsSubdomain), ACCOUNT, "Identity towards a cluster."),
        inert("serviceAccount", Str(Format::DnsSubdomain), ACCOUNT, "Old name of serviceAccountName."),
        inert("automountServiceAccountToken", Bool, ACCOUNT, "Whether a token is mounted."),
        field("hostNetwork", Bool, "Use the host's network."),
        field("hostPID", Bool, "Use the host's process namespace."),
        field("hostIPC", Bool, "Use the host's IPC namespace."),
        field(
            "hostUsers",
            Bool,
            "`false` gives the pod a user namespace: its users 0 to 65535 are others on the host, which nobody else has.",
        ),
        field("shareProcessNamespace", Bool, "All containers see each other's processes."),
        field("securityContext", Obj(&POD_SECURITY), "Users, groups and confinement of all containers."),
        field("imagePullSecrets", Objs(&LOCAL_REFERENCE), "Secrets with registry credentials."),
        field("hostname", Str(Format::DnsLabel), "Host name inside; default the pod's name."),
        field("subdomain", Str(Format::DnsLabel), "Domain of the host name, below the namespace."),
        field("setHostnameAsFQDN", Bool, "The host name is the full name."),
        field("hostnameOverride", Str(Format::DnsSubdomain), "Host name inside, whatever `hostname` says."),
        field("hostAliases", Objs(&HOST_ALIAS), "Lines for /etc/hosts."),
        field(
            "runtimeClassName",
            Str(Format::DnsSubdomain),
            "Another OCI runtime than the built-in one: a name of `[runtimes]` in the agent's configuration.",
        ),
        field("resources", Obj(&POD_RESOURCES), "CPU and memory of the pod as a whole."),
        field("os", Obj(&POD_OS), "The operating system; only `linux`."),
        inert("affinity", Obj(&AFFINITY), ONE_NODE, "Preferences for nodes and neighbours."),
        inert("tolerations", Objs(&TOLERATION), ONE_NODE, "Taints of nodes that do not matter."),
        inert("topologySpreadConstraints", Objs(&SPREAD), ONE_NODE, "How pods spread over nodes."),
        inert("schedulerName", Str(Format::LabelKey), ONE_NODE, "Which scheduler."),
        inert("priorityClassName", Str(Format::DnsSubdomain), ONE_NODE, "Class of importance."),
        inert("priority", INT32, ONE_NODE, "Importance."),
        inert("preemptionPolicy", Enum(&["PreemptLowerPriority", "Never"]), ONE_NODE, "Whether it pushes others out."),
        inert("overhead", Map(&Quantity), ONE_NODE, "Cost of the runtime class."),
        inert(
            "readinessGates",
            Objs(&READINESS_GATE),
            "no controller sets conditions",
            "More conditions of readiness.",
        ),
        inert("schedulingGates", Objs(&SCHEDULING_GATE), ONE_NODE, "What scheduling waits for."),
        silent("enableServiceLinks", Bool, "Variables for every Service; names are used instead."),
        rejected(
            "resourceClaims",
            "dynamic resource allocation needs a cluster",
            "name CDI devices in a Compose file (`devices: [vendor.com/class=name]`)",
            "Claimed devices.",
        ),
        rejected("workloadRef", "gang scheduling needs a cluster", "remove it", "Group of pods scheduled together."),
    ],
};

static POD_OS: Type = Type {
    name: "PodOS",
    doc: "The operating system of a pod.",
    fields: &[required("name", Enum(&["linux", "windows"]), "`linux`; `windows` is refused.")],
};

static POD_RESOURCES: Type = Type {
    name: "PodResourceRequirements",
    doc: "CPU and memory of a pod as a whole.",
    fields: &[
        field("limits", Map(&Quantity), "At the most: `cpu`, `memory`, `hugepages-*`."),
        field("requests", Map(&Quantity), "Reserved: `cpu`, `memory`, `hugepages-*`."),
        rejected("claims", "dynamic resource allocation needs a cluster", "remove it", "Claimed devices."),
    ],
};

static DNS_CONFIG: Type = Type {
    name: "PodDNSConfig",
    doc: "Resolver settings.",
    fields: &[
        field("nameservers", List(&Str(Format::Ip)), "Addresses of name servers, at most 3."),
        field("searches", TEXTS, "Search domains, at most 32."),
        field("options", Objs(&DNS_OPTION), "Options such as `ndots`."),
    ],
};

static DNS_OPTION: Type = Type {
    name: "PodDNSConfigOption",
    doc: "A resolver option.",
    fields: &[required("name", TEXT, "Its name."), field("value", TEXT, "Its value.")],
};

static HOST_ALIAS: Type = Type {
    name: "HostAlias",
    doc: "Names for an address.",
    fields: &[
        required("ip", Str(Format::Ip), "The address."),
        field("hostnames", List(&Str(Format::DnsSubdomain)), "The names."),
    ],
};

static POD_SECURITY: Type = Type {
    name: "PodSecurityContext",
    doc: "Users, groups and confinement of all containers of a pod.",
    fields: &[
        field("runAsUser", COUNT, "Numeric user."),
        field("runAsGroup", COUNT, "Numeric group."),
        field("runAsNonRoot", Bool, "Refuse to run as user 0."),
        field("fsGroup", COUNT, "Group that owns volumes."),
        field("fsGroupChangePolicy", Enum(&["OnRootMismatch", "Always"]), "When ownership is changed."),
        field("supplementalGroups", List(&COUNT), "Further groups."),
        field("supplementalGroupsPolicy", Enum(&["Merge", "Strict"]), "Whether the image's groups are added."),
        field("sysctls", Objs(&SYSCTL), "Kernel parameters of the pod's namespaces."),
        field("seccompProfile", Obj(&SECCOMP_PROFILE), "System call filter."),
        field("appArmorProfile", Obj(&super::container::APPARMOR_PROFILE), "AppArmor profile."),
        inert("seLinuxOptions", Obj(&super::container::SELINUX), "SELinux labels are not managed", "SELinux label."),
        inert(
            "seLinuxChangePolicy",
            Enum(&["MountOption", "Recursive"]),
            "SELinux labels are not managed",
            "How volumes are labelled.",
        ),
        rejected("windowsOptions", "only Linux is supported", "remove it", "Settings for Windows."),
    ],
};

static SYSCTL: Type = Type {
    name: "Sysctl",
    doc: "A kernel parameter.",
    fields: &[
        required("name", TEXT, "Such as `net.core.somaxconn`."),
        required("value", TEXT, "Its value, in quotes."),
    ],
};

static TOLERATION: Type = Type {
    name: "Toleration",
    doc: "A taint that does not matter.",
    fields: &[
        silent("key", Str(Format::LabelKey), "Key of the taint."),
        silent("operator", Enum(&["Exists", "Equal", "Lt", "Gt"]), "How it is compared."),
        silent("value", TEXT, "Value of the taint."),
        silent("effect", Enum(&["", "NoSchedule", "PreferNoSchedule", "NoExecute"]), "Effect of the taint."),
        silent("tolerationSeconds", super::Kind::Int(i64::MIN, i64::MAX), "For how long."),
    ],
};

static SPREAD: Type = Type {
    name: "TopologySpreadConstraint",
    doc: "How pods spread over nodes.",
    fields: &[
        Field { required: true, ..silent("maxSkew", POSITIVE, "Largest difference.") },
        Field { required: true, ..silent("topologyKey", TEXT, "Label of nodes.") },
        Field {
            required: true,
            ..silent("whenUnsatisfiable", Enum(&["DoNotSchedule", "ScheduleAnyway"]), "What if not.")
        },
        silent("labelSelector", Obj(&LABEL_SELECTOR), "Which pods count."),
        silent("minDomains", POSITIVE, "At least so many domains."),
        silent("nodeAffinityPolicy", Enum(&["Honor", "Ignore"]), "Whether affinity counts."),
        silent("nodeTaintsPolicy", Enum(&["Honor", "Ignore"]), "Whether taints count."),
        silent("matchLabelKeys", TEXTS, "Labels taken from the pod."),
    ],
};

static READINESS_GATE: Type = Type {
    name: "PodReadinessGate",
    doc: "A condition of readiness.",
    fields: &[Field { required: true, ..silent("conditionType", Str(Format::LabelKey), "The condition.") }],
};

static SCHEDULING_GATE: Type = Type {
    name: "PodSchedulingGate",
    doc: "What scheduling waits for.",
    fields: &[Field { required: true, ..silent("name", Str(Format::LabelKey), "Its name.") }],
};

static AFFINITY: Type = Type {
    name: "Affinity",
    doc: "Preferences for nodes and neighbours.",
    fields: &[
        silent("nodeAffinity", Obj(&NODE_AFFINITY), "Preferences for nodes."),
        silent("podAffinity", Obj(&POD_AFFINITY), "Pods to be near."),
        silent("podAntiAffinity", Obj(&POD_AFFINITY), "Pods to be away from."),
    ],
};

static NODE_AFFINITY: Type = Type {
    name: "NodeAffinity",
    doc: "Preferences for nodes.",
    fields: &[
        silent("requiredDuringSchedulingIgnoredDuringExecution", Obj(&NODE_SELECTOR), "Must hold."),
        silent("preferredDuringSchedulingIgnoredDuringExecution", Objs(&PREFERRED_NODE), "Should hold."),
    ],
};

pub(super) static NODE_SELECTOR: Type = Type {
    name: "NodeSelector",
    doc: "Which nodes.",
    fields: &[Field { required: true, ..silent("nodeSelectorTerms", Objs(&NODE_TERM), "Any of these.") }],
};

static NODE_TERM: Type = Type {
    name: "NodeSelectorTerm",
    doc: "Conditions on a node.",
    fields: &[
        silent("matchExpressions", Objs(&NODE_REQUIREMENT), "Conditions on labels."),
        silent("matchFields", Objs(&NODE_REQUIREMENT), "Conditions on fields."),
    ],
};

static NODE_REQUIREMENT: Type = Type {
    name: "NodeSelectorRequirement",
    doc: "A condition on a node.",
    fields: &[
        Field { required: true, ..silent("key", Str(Format::LabelKey), "The label.") },
        Field {
            required: true,
            ..silent("operator", Enum(&["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]), "How it is compared.")
        },
        silent("values", TEXTS, "The values."),
    ],
};

static PREFERRED_NODE: Type = Type {
    name: "PreferredSchedulingTerm",
    doc: "A preference with a weight.",
    fields: &[
        Field { required: true, ..silent("weight", Int(1, 100), "How much.") },
        Field { required: true, ..silent("preference", Obj(&NODE_TERM), "What.") },
    ],
};

static POD_AFFINITY: Type = Type {
    name: "PodAffinity",
    doc: "Pods to be near or away from.",
    fields: &[
        silent("requiredDuringSchedulingIgnoredDuringExecution", Objs(&POD_AFFINITY_TERM), "Must hold."),
        silent("preferredDuringSchedulingIgnoredDuringExecution", Objs(&WEIGHTED_AFFINITY), "Should hold."),
    ],
};

static POD_AFFINITY_TERM: Type = Type {
    name: "PodAffinityTerm",
    doc: "Which pods.",
    fields: &[
        silent("labelSelector", Obj(&LABEL_SELECTOR), "Their labels."),
        silent("namespaces", List(&Str(Format::DnsLabel)), "Their namespaces."),
        Field { required: true, ..silent("topologyKey", Str(Format::LabelKey), "Label of nodes.") },
        silent("namespaceSelector", Obj(&LABEL_SELECTOR), "Labels of their namespaces."),
        silent("matchLabelKeys", TEXTS, "Labels taken from the pod."),
        silent("mismatchLabelKeys", TEXTS, "Labels taken from the pod, not to match."),
    ],
};

static WEIGHTED_AFFINITY: Type = Type {
    name: "WeightedPodAffinityTerm",
    doc: "A preference with a weight.",
    fields: &[
        Field { required: true, ..silent("weight", Int(1, 100), "How much.") },
        Field { required: true, ..silent("podAffinityTerm", Obj(&POD_AFFINITY_TERM), "What.") },
    ],
};
