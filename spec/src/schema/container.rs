//! Container and what belongs to it (core/v1).

use super::Kind::{Any, Bool, Enum, Int, Map, Obj, Objs, Port, Quantity, Str};
use super::{COUNT, Field, Format, PORT_NUMBER, POSITIVE, TEXT, TEXTS, Type, field, inert, rejected, required};

const NAME: Field = required("name", Str(Format::DnsLabel), "Name, unique in the pod.");
const IMAGE: Field = required("image", TEXT, "Image reference, such as `nginx:1.27`.");
const COMMAND: Field = field("command", TEXTS, "Replaces the image's ENTRYPOINT; `$(VAR)` expands.");
const ARGS: Field = field("args", TEXTS, "Replaces the image's CMD; `$(VAR)` expands.");
const WORKING_DIR: Field = field("workingDir", TEXT, "Working directory; default the image's.");
const PORTS: Field = field("ports", Objs(&CONTAINER_PORT), "Ports it listens on.");
const ENV_FROM: Field = field("envFrom", Objs(&ENV_FROM_SOURCE), "Variables from whole objects.");
const ENV: Field = field("env", Objs(&ENV_VAR), "Variables, in order.");
const RESOURCES: Field = field("resources", Obj(&RESOURCE_REQUIREMENTS), "Limits and requests.");
const RESIZE: Field = inert(
    "resizePolicy",
    Objs(&RESIZE_POLICY),
    "changed limits are applied as the update strategy says",
    "What a change of limits restarts.",
);
const RESTART_POLICY: Field =
    field("restartPolicy", Enum(&["Always", "OnFailure", "Never"]), "`Always` on an init container makes a sidecar.");
const RESTART_RULES: Field = inert(
    "restartPolicyRules",
    Any,
    "restarts follow `restartPolicy` whatever the exit code",
    "Restart rules by exit code.",
);
const MOUNTS: Field = field("volumeMounts", Objs(&VOLUME_MOUNT), "Where volumes appear.");
const DEVICES: Field = rejected(
    "volumeDevices",
    "raw block volumes need a storage driver of a cluster",
    "give the container the device with a `hostPath` of type `BlockDevice`",
    "Raw block volumes.",
);
const LIVENESS: Field = field("livenessProbe", Obj(&PROBE), "Restart the container when this fails.");
const READINESS: Field = field("readinessProbe", Obj(&PROBE), "Send requests only when this succeeds.");
const STARTUP: Field = field("startupProbe", Obj(&PROBE), "Hold the other probes until this has succeeded.");
const LIFECYCLE: Field = field("lifecycle", Obj(&LIFECYCLE_TYPE), "What runs after start and before stop.");
const MESSAGE_PATH: Field = field("terminationMessagePath", TEXT, "File with the last words of the container.");
const MESSAGE_POLICY: Field =
    field("terminationMessagePolicy", Enum(&["File", "FallbackToLogsOnError"]), "Where last words come from.");
const PULL_POLICY: Field = field("imagePullPolicy", Enum(&["Always", "IfNotPresent", "Never"]), "When to pull.");
const SECURITY: Field = field("securityContext", Obj(&SECURITY_CONTEXT), "User, capabilities and confinement.");
const STDIN: Field = field("stdin", Bool, "Keep standard input open.");
const STDIN_ONCE: Field = field("stdinOnce", Bool, "Close standard input after the first client.");
const TTY: Field = field("tty", Bool, "Give it a terminal; needs `stdin`.");

pub(super) static CONTAINER: Type = Type {
    name: "Container",
    doc: "A container of a pod.",
    fields: &[
        NAME,
        IMAGE,
        COMMAND,
        ARGS,
        WORKING_DIR,
        PORTS,
        ENV_FROM,
        ENV,
        RESOURCES,
        RESIZE,
        RESTART_POLICY,
        RESTART_RULES,
        MOUNTS,
        DEVICES,
        LIVENESS,
        READINESS,
        STARTUP,
        LIFECYCLE,
        MESSAGE_PATH,
        MESSAGE_POLICY,
        PULL_POLICY,
        SECURITY,
        STDIN,
        STDIN_ONCE,
        TTY,
    ],
};

/// The same fields; which of them need a sidecar is checked with the pod.
pub(super) static INIT_CONTAINER: Type =
    Type { name: "InitContainer", doc: "A container that runs before.", ..CONTAINER };

static CONTAINER_PORT: Type = Type {
    name: "ContainerPort",
    doc: "A port of a container.",
    fields: &[
        required("containerPort", PORT_NUMBER, "Port inside, 1 to 65535."),
        field("name", Str(Format::PortName), "Name that probes and Services can use."),
        field("hostPort", Int(0, 65535), "Port on the host."),
        field("hostIP", Str(Format::Ip), "Host address to publish on."),
        field("protocol", Enum(&["TCP", "UDP", "SCTP"]), "Transport; default TCP."),
    ],
};

static ENV_VAR: Type = Type {
    name: "EnvVar",
    doc: "A variable.",
    fields: &[
        required("name", Str(Format::EnvName), "Its name."),
        field("value", TEXT, "Its value; `$(VAR)` expands to variables before it."),
        field("valueFrom", Obj(&ENV_VAR_SOURCE), "Where its value comes from."),
    ],
};

static ENV_VAR_SOURCE: Type = Type {
    name: "EnvVarSource",
    doc: "Where the value of a variable comes from; exactly one.",
    fields: &[
        field("configMapKeyRef", Obj(&KEY_SELECTOR), "A key of a ConfigMap."),
        field("secretKeyRef", Obj(&KEY_SELECTOR), "A key of a Secret."),
        field("fieldRef", Obj(&FIELD_SELECTOR), "A fact of the pod."),
        field("resourceFieldRef", Obj(&RESOURCE_SELECTOR), "A limit or request of a container."),
        rejected(
            "fileKeyRef",
            "variables from files of a volume are not supported",
            "use a ConfigMap or a Secret",
            "A key of a file in a volume.",
        ),
    ],
};

static KEY_SELECTOR: Type = Type {
    name: "KeySelector",
    doc: "A key of a ConfigMap or Secret.",
    fields: &[
        required("name", Str(Format::DnsSubdomain), "Name of the object."),
        required("key", Str(Format::ConfigKey), "The key."),
        field("optional", Bool, "Missing is fine."),
    ],
};

pub(super) static FIELD_SELECTOR: Type = Type {
    name: "ObjectFieldSelector",
    doc: "A fact of the pod.",
    fields: &[
        super::silent("apiVersion", TEXT, "Version of the path; `v1`."),
        required("fieldPath", TEXT, "Such as `metadata.name` or `status.podIP`."),
    ],
};

pub(super) static RESOURCE_SELECTOR: Type = Type {
    name: "ResourceFieldSelector",
    doc: "A limit or request of a container.",
    fields: &[
        field("containerName", TEXT, "The container; its own when left out."),
        required("resource", TEXT, "Such as `limits.memory`."),
        field("divisor", Quantity, "Unit of the value; default 1."),
    ],
};

static ENV_FROM_SOURCE: Type = Type {
    name: "EnvFromSource",
    doc: "Variables from all keys of an object; exactly one of the two.",
    fields: &[
        field("prefix", TEXT, "Put before each key."),
        field("configMapRef", Obj(&ENV_SOURCE_REF), "A ConfigMap."),
        field("secretRef", Obj(&ENV_SOURCE_REF), "A Secret."),
    ],
};

static ENV_SOURCE_REF: Type = Type {
    name: "EnvSourceReference",
    doc: "An object whose keys become variables.",
    fields: &[required("name", Str(Format::DnsSubdomain), "Its name."), field("optional", Bool, "Missing is fine.")],
};

static RESOURCE_REQUIREMENTS: Type = Type {
    name: "ResourceRequirements",
    doc: "Limits and requests.",
    fields: &[
        field("limits", Map(&Quantity), "At the most: `cpu`, `memory`, `ephemeral-storage`, `hugepages-*`, `pids`."),
        field("requests", Map(&Quantity), "Reserved: the same resources; default the limits."),
        rejected(
            "claims",
            "dynamic resource allocation needs a cluster",
            "name CDI devices in a Compose file (`devices: [vendor.com/class=name]`)",
            "Claimed devices.",
        ),
    ],
};

static RESIZE_POLICY: Type = Type {
    name: "ContainerResizePolicy",
    doc: "What a change of a limit restarts.",
    fields: &[
        Field { required: true, ..super::silent("resourceName", Enum(&["cpu", "memory"]), "The resource.") },
        Field {
            required: true,
            ..super::silent("restartPolicy", Enum(&["NotRequired", "RestartContainer"]), "Whether it restarts.")
        },
    ],
};

static VOLUME_MOUNT: Type = Type {
    name: "VolumeMount",
    doc: "A volume at a path of a container.",
    fields: &[
        required("name", TEXT, "Name of the volume."),
        required("mountPath", TEXT, "Path inside."),
        field("readOnly", Bool, "No writes through it."),
        field("recursiveReadOnly", Enum(&["Disabled", "IfPossible", "Enabled"]), "Mounts below are read-only too."),
        field("subPath", TEXT, "Only this path of the volume."),
        field("subPathExpr", TEXT, "The same, with `$(VAR)`."),
        field("mountPropagation", Enum(&["None", "HostToContainer", "Bidirectional"]), "How mounts made later travel."),
    ],
};

static PROBE: Type = Type {
    name: "Probe",
    doc: "A health check; exactly one of exec, httpGet, tcpSocket, grpc.",
    fields: &[
        field("exec", Obj(&EXEC), "A command; exit code 0 is success."),
        field("httpGet", Obj(&HTTP_GET), "A request; 200 to 399 is success."),
        field("tcpSocket", Obj(&TCP_SOCKET), "A connection."),
        field("grpc", Obj(&GRPC), "A gRPC health check."),
        field("initialDelaySeconds", COUNT, "Wait before the first; default 0."),
        field("timeoutSeconds", COUNT, "Longest answer time; default 1."),
        field("periodSeconds", COUNT, "Between two; default 10."),
        field("successThreshold", COUNT, "Successes in a row that count; default 1."),
        field("failureThreshold", COUNT, "Failures in a row that count; default 3."),
        field("terminationGracePeriodSeconds", POSITIVE, "Grace period when this probe ends the container."),
    ],
};

static EXEC: Type =
    Type { name: "ExecAction", doc: "A command.", fields: &[required("command", TEXTS, "Program and arguments.")] };

static HTTP_GET: Type = Type {
    name: "HTTPGetAction",
    doc: "An HTTP request.",
    fields: &[
        field("path", TEXT, "Path with query; default `/`."),
        required("port", Port, "Port number or name."),
        field("host", TEXT, "Address; default the pod's."),
        field("scheme", Enum(&["HTTP", "HTTPS"]), "`HTTPS` does not verify the certificate."),
        field("httpHeaders", Objs(&HTTP_HEADER), "Headers."),
    ],
};

static HTTP_HEADER: Type = Type {
    name: "HTTPHeader",
    doc: "A header.",
    fields: &[required("name", Str(Format::HeaderName), "Its name."), field("value", TEXT, "Its value.")],
};

static TCP_SOCKET: Type = Type {
    name: "TCPSocketAction",
    doc: "A connection.",
    fields: &[required("port", Port, "Port number or name."), field("host", TEXT, "Address; default the pod's.")],
};

static GRPC: Type = Type {
    name: "GRPCAction",
    doc: "A gRPC health check.",
    fields: &[required("port", PORT_NUMBER, "Port number."), field("service", TEXT, "Service asked for.")],
};

static LIFECYCLE_TYPE: Type = Type {
    name: "Lifecycle",
    doc: "What runs after start and before stop.",
    fields: &[
        field("postStart", Obj(&HANDLER), "Right after the start."),
        field("preStop", Obj(&HANDLER), "Before the stop signal, inside the grace period."),
        field("stopSignal", TEXT, "Signal that asks it to stop; needs `spec.os.name`."),
    ],
};

static HANDLER: Type = Type {
    name: "LifecycleHandler",
    doc: "What a hook does; exactly one.",
    fields: &[
        field("exec", Obj(&EXEC), "A command."),
        field("httpGet", Obj(&HTTP_GET), "A request."),
        field("sleep", Obj(&SLEEP), "A wait."),
        rejected("tcpSocket", "a TCP hook never did anything", "use `exec` or `httpGet`", "A connection."),
    ],
};

static SLEEP: Type =
    Type { name: "SleepAction", doc: "A wait.", fields: &[required("seconds", Int(0, i64::MAX), "How long.")] };

static SECURITY_CONTEXT: Type = Type {
    name: "SecurityContext",
    doc: "User, capabilities and confinement of a container.",
    fields: &[
        field("runAsUser", COUNT, "Numeric user."),
        field("runAsGroup", COUNT, "Numeric group."),
        field("runAsNonRoot", Bool, "Refuse to run as user 0."),
        field("privileged", Bool, "All capabilities and devices, no confinement."),
        field("capabilities", Obj(&CAPABILITIES), "Added and dropped capabilities."),
        field("readOnlyRootFilesystem", Bool, "No writes to the root file system."),
        field("allowPrivilegeEscalation", Bool, "`false` sets no_new_privs."),
        field(
            "procMount",
            Enum(&["Default", "Unmasked"]),
            "`Unmasked` hides nothing of /proc; with `hostUsers: false` only.",
        ),
        field("seccompProfile", Obj(&SECCOMP_PROFILE), "System call filter."),
        field("appArmorProfile", Obj(&APPARMOR_PROFILE), "AppArmor profile."),
        inert("seLinuxOptions", Obj(&SELINUX), "SELinux labels are not managed", "SELinux label."),
        rejected("windowsOptions", "only Linux is supported", "remove it", "Settings for Windows."),
    ],
};

static CAPABILITIES: Type = Type {
    name: "Capabilities",
    doc: "Capabilities of a container.",
    fields: &[field("add", TEXTS, "Added, such as `NET_ADMIN`."), field("drop", TEXTS, "Dropped; `ALL` for all.")],
};

pub(super) static SECCOMP_PROFILE: Type = Type {
    name: "SeccompProfile",
    doc: "System call filter.",
    fields: &[
        required("type", Enum(&["RuntimeDefault", "Unconfined", "Localhost"]), "Which."),
        field("localhostProfile", TEXT, "File below `seccomp` of the data directory, for `Localhost`."),
    ],
};

pub(super) static APPARMOR_PROFILE: Type = Type {
    name: "AppArmorProfile",
    doc: "AppArmor profile.",
    fields: &[
        required("type", Enum(&["RuntimeDefault", "Unconfined", "Localhost"]), "Which."),
        field("localhostProfile", TEXT, "Name of a loaded profile, for `Localhost`."),
    ],
};

pub(super) static SELINUX: Type = Type {
    name: "SELinuxOptions",
    doc: "SELinux label.",
    fields: &[
        super::silent("user", TEXT, "User."),
        super::silent("role", TEXT, "Role."),
        super::silent("type", TEXT, "Type."),
        super::silent("level", TEXT, "Level."),
    ],
};
