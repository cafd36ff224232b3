//! The contract for every field a Compose file can have: its form, and what mainstay does with it.
//!
//! One table serves validation, `mainstay explain` and the JSON Schema. It follows the JSON Schema of the Compose
//! specification (compose-spec.json): a field that is not here is unknown there as well.

/// What mainstay does with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does what the specification says.
    Enforced,
    /// It is accepted, with a warning when it is written; the text says why it has no effect.
    NoEffect(&'static str),
    /// It is accepted silently, since nothing can be missed; the text says why it has no effect.
    Ignored(&'static str),
    /// A file that has it is refused; the text says why.
    Rejected(&'static str),
}

/// The form of a value.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Anything.
    Any,
    /// `null`.
    Null,
    /// Text.
    Str,
    /// Text or a number.
    StrNum,
    /// Text, a number, a boolean or null.
    Scalar,
    /// A boolean, or text that says one.
    Bool,
    /// A boolean and no text.
    StrictBool,
    /// An integer, or text that says one.
    Int,
    /// A number, or text that says one.
    Num,
    /// A size such as `512m`, or a number of bytes.
    Bytes,
    /// A size such as `512m`, as text.
    BytesStr,
    /// A duration such as `1m30s`.
    Duration,
    /// One of some words.
    Enum(&'static [&'static str]),
    /// A list.
    List(&'static Shape),
    /// A list without duplicates.
    Unique(&'static Shape),
    /// A mapping with any keys.
    Map(&'static Shape),
    /// A mapping whose keys are names of letters, digits, `.`, `_` and `-`.
    Named(&'static Shape),
    /// A mapping with known keys.
    Object(&'static Object),
    /// One of several forms.
    OneOf(&'static [Shape]),
}

/// A mapping with known keys.
#[derive(Debug)]
pub struct Object {
    /// The keys.
    pub fields: &'static [Field],
    /// Whether `x-...` keys are welcome.
    pub extensions: bool,
}

/// A key of an [`Object`].
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// The form of its value.
    pub shape: Shape,
    /// What is done with it.
    pub status: Status,
    /// Whether it must be there.
    pub required: bool,
    /// What it means, in a sentence.
    pub doc: &'static str,
}

const fn f(name: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field { name, shape, status: Status::Enforced, required: false, doc }
}

impl Field {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn no_effect(self, why: &'static str) -> Self {
        Self { status: Status::NoEffect(why), ..self }
    }

    const fn ignored(self, why: &'static str) -> Self {
        Self { status: Status::Ignored(why), ..self }
    }

    const fn rejected(self, why: &'static str) -> Self {
        Self { status: Status::Rejected(why), ..self }
    }
}

use Shape::{
    Any, Bool, Bytes, BytesStr, Duration, Enum, Int, List, Map, Named, Null, Num, OneOf, Scalar, Str, StrNum,
    StrictBool, Unique,
};

const fn object(fields: &'static [Field]) -> Object {
    Object { fields, extensions: true }
}

const fn strict(fields: &'static [Field]) -> Object {
    Object { fields, extensions: false }
}

const STRINGS: Shape = Unique(&Str);
// Lists that are merged by a key have lost their duplicates before the check.
const STR_OR_LIST: Shape = OneOf(&[Str, List(&Str)]);
const PAIRS: Shape = OneOf(&[Map(&Scalar), List(&Str)]);
const COMMAND: Shape = OneOf(&[Null, Str, List(&Str)]);
const HOSTS: Shape = OneOf(&[Map(&OneOf(&[Str, List(&Str)])), STRINGS]);

const WINDOWS: &str = "it exists on Windows only";
const BUILD: &str = "images are pulled, not built";
const WATCH: &str = "nothing watches source files";
const ONE_NODE: &str = "there is one node";
const NO_REALTIME: &str = "real-time scheduling is not set up";

/// The whole file.
pub static FILE: Object = object(&[
    f("version", Str, "Version of the file format.").ignored("it is obsolete; the format has one version"),
    f("name", Str, "Project name; default the name of the directory."),
    f(
        "include",
        List(&OneOf(&[Str, Shape::Object(&INCLUDE)])),
        "Compose files whose services become part of this project.",
    ),
    f("services", Named(&Shape::Object(&SERVICE)), "The containers to run, by name."),
    f("networks", Map(&OneOf(&[Null, Shape::Object(&NETWORK)])), "Networks that services join."),
    f("volumes", Named(&OneOf(&[Null, Shape::Object(&VOLUME)])), "Data that outlives containers."),
    f("secrets", Named(&Shape::Object(&SECRET)), "Sensitive files, kept in memory."),
    f("configs", Named(&Shape::Object(&CONFIG)), "Files that services read."),
    f("models", Named(&Shape::Object(&MODEL)), "Language models.").no_effect("there is no model runner"),
]);

static INCLUDE: Object = strict(&[
    f("path", STR_OR_LIST, "The file, or files that are merged."),
    f("env_file", STR_OR_LIST, "Files with variables for the included file; default its `.env`."),
    f("project_directory", Str, "What relative paths in the file start from; default its directory."),
]);

/// A service.
pub static SERVICE: Object = object(&[
    f("image", Str, "The image to run."),
    f("build", OneOf(&[Str, Shape::Object(&BUILD_OBJECT)]), "How to build the image.").ignored(BUILD),
    f("command", COMMAND, "Replaces the image's CMD; a string is split into words."),
    f("entrypoint", COMMAND, "Replaces the image's ENTRYPOINT; a string is split into words."),
    f("environment", PAIRS, "Variables of the container."),
    f("env_file", OneOf(&[Str, List(&OneOf(&[Str, Shape::Object(&ENV_FILE)]))]), "Files with variables."),
    f("ports", List(&OneOf(&[StrNum, Shape::Object(&PORT)])), "Ports published on the host."),
    f("expose", List(&StrNum), "Ports that other services use.").ignored("services reach each other's ports anyway"),
    f("volumes", List(&OneOf(&[Str, Shape::Object(&MOUNT)])), "Volumes, paths of the host and memory file systems."),
    f("volumes_from", STRINGS, "Mounts everything that another service mounts."),
    f("tmpfs", STR_OR_LIST, "Memory file systems."),
    f("networks", OneOf(&[STRINGS, Named(&OneOf(&[Null, Shape::Object(&ATTACHMENT)]))]), "Networks to join."),
    f("network_mode", Str, "`host`, `none`, `bridge` or `service:NAME`."),
    f("depends_on", OneOf(&[STRINGS, Named(&Shape::Object(&DEPENDS_ON))]), "Services that must be up first."),
    f(
        "healthcheck",
        Shape::Object(&HEALTHCHECK),
        "Tells whether the container works; a sick one is restarted, unless `restart` is `no` or the label `mainstay.heal` is `false`. Without it the image's HEALTHCHECK counts.",
    ),
    f("restart", Str, "`no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`."),
    f("deploy", OneOf(&[Null, Shape::Object(&DEPLOY)]), "Replicas, limits, updates."),
    f("scale", Int, "Number of containers."),
    f("container_name", Str, "A further name of the container; it excludes replicas."),
    f("hostname", Str, "Host name inside."),
    f("domainname", Str, "Domain name inside."),
    f("user", Str, "User and group of the process."),
    f("group_add", Unique(&StrNum), "Further groups of the process."),
    f("working_dir", Str, "Working directory."),
    f("labels", PAIRS, "Labels of the container."),
    f("label_file", STR_OR_LIST, "Files with labels."),
    f("annotations", PAIRS, "Annotations of the container."),
    f("configs", List(&OneOf(&[Str, Shape::Object(&FILE_REF)])), "Configs to mount."),
    f("secrets", List(&OneOf(&[Str, Shape::Object(&FILE_REF)])), "Secrets to mount."),
    f("extra_hosts", HOSTS, "Lines for /etc/hosts."),
    f("dns", STR_OR_LIST, "Name servers."),
    f("dns_search", STR_OR_LIST, "Search domains."),
    f("dns_opt", List(&Str), "Resolver options."),
    f("links", List(&Str), "Services under further names."),
    f("external_links", STRINGS, "Containers outside of the project.")
        .no_effect("containers outside of the project have no names here"),
    f("extends", OneOf(&[Str, Shape::Object(&EXTENDS)]), "A service to start from."),
    f("profiles", STRINGS, "The service runs only when one of them is enabled."),
    f("pull_policy", Str, "When the image is pulled."),
    f("pull_refresh_after", Str, "Age after which the image is pulled again.")
        .no_effect("images are pulled when a container is made"),
    f("platform", Str, "Platform of the image, as `os/arch[/variant]`."),
    f("stop_signal", Str, "Signal that asks the container to stop."),
    f("stop_grace_period", Duration, "Time to stop before it is killed; default 10s."),
    f("init", Bool, "Run an init process that forwards signals and reaps."),
    f("tty", Bool, "Give it a terminal."),
    f("stdin_open", Bool, "Keep stdin open."),
    f("attach", Bool, "Show its log in `compose up`.").ignored("`mainstay logs` shows any log"),
    f("read_only", Bool, "Root file system without writes."),
    f("privileged", Bool, "All capabilities and devices."),
    f("cap_add", List(&Str), "Added capabilities."),
    f("cap_drop", List(&Str), "Dropped capabilities."),
    f("security_opt", STRINGS, "`no-new-privileges`, `seccomp=...`, `apparmor=...`, `label=...`."),
    f("sysctls", PAIRS, "Kernel parameters of the container."),
    f("ulimits", Map(&OneOf(&[Int, Shape::Object(&ULIMIT)])), "Limits of its processes."),
    f("devices", List(&OneOf(&[Str, Shape::Object(&DEVICE)])), "Devices of the host, or CDI names."),
    f("device_cgroup_rules", STRINGS, "Device rules of the cgroup.").no_effect("device access follows from `devices`"),
    f("gpus", OneOf(&[Enum(&["all"]), List(&Shape::Object(&GPU))]), "GPUs, as CDI devices."),
    f(
        "runtime",
        Str,
        "A runtime of the agent's configuration; `runc` is the built-in one unless named there, `nvidia` all GPUs by CDI.",
    ),
    f("shm_size", Bytes, "Size of /dev/shm."),
    f("logging", Shape::Object(&LOGGING), "Log rotation."),
    f("cpus", Num, "Limit of cores."),
    f("cpuset", Str, "CPUs it may use."),
    f("cpu_shares", Num, "CPU weight."),
    f("cpu_quota", Num, "CPU time per period, in microseconds."),
    f("cpu_period", Num, "CPU period, in microseconds."),
    f("cpu_rt_period", StrNum, "Real-time period.").no_effect(NO_REALTIME),
    f("cpu_rt_runtime", StrNum, "Real-time runtime.").no_effect(NO_REALTIME),
    f("cpu_count", Int, "Number of CPUs.").no_effect(WINDOWS),
    f("cpu_percent", Num, "Percentage of CPUs.").no_effect(WINDOWS),
    f("mem_limit", Bytes, "Limit of memory."),
    f("mem_reservation", Bytes, "Memory that is kept for it."),
    f("memswap_limit", Bytes, "Limit of memory and swap together; -1 is unlimited."),
    f("mem_swappiness", Int, "Readiness to swap.").no_effect("cgroup v2 has no swappiness per group"),
    f("pids_limit", Num, "Limit of processes."),
    f("oom_kill_disable", Bool, "No OOM kill.").no_effect("cgroup v2 cannot switch the OOM killer off"),
    f("oom_score_adj", Int, "Change of the OOM score."),
    f("blkio_config", Shape::Object(&BLKIO), "Block I/O weight."),
    f("storage_opt", Any, "Options of the storage driver.").no_effect("the root file system has no such driver"),
    f("ipc", Str, "`host`, `shareable` or `private`."),
    f("pid", OneOf(&[Null, Str]), "`host`."),
    f("uts", Str, "`host`.").no_effect("a container keeps a host name of its own"),
    f("userns_mode", Str, "`host`."),
    f("cgroup", Enum(&["host", "private"]), "cgroup namespace."),
    f("cgroup_parent", Str, "Parent cgroup.").no_effect("cgroups are laid out by mainstay"),
    f("isolation", Str, "Isolation technology; only `default`."),
    f("mac_address", Str, "MAC address on the first network."),
    f("post_start", List(&Shape::Object(&HOOK)), "Commands that run after the start."),
    f("pre_stop", List(&Shape::Object(&HOOK)), "Commands that run before the stop."),
    f("pre_start", List(&Shape::Object(&PRE_START)), "Containers that run to their end before the service starts."),
    f("credential_spec", Shape::Object(&CREDENTIAL_SPEC), "Windows credentials.").rejected(WINDOWS),
    f("develop", OneOf(&[Null, Shape::Object(&DEVELOP)]), "Development settings.").ignored(WATCH),
    f("provider", Shape::Object(&PROVIDER), "Something other than a container.")
        .rejected("there are no provider plugins; run what it provides as a service with an image"),
    f("models", OneOf(&[STRINGS, Named(&OneOf(&[Null, Shape::Object(&MODEL_REF)]))]), "Language models to use.")
        .rejected("there is no model runner; run one as a service and set its address in `environment`"),
    f("use_api_socket", StrictBool, "The Docker API socket.").rejected("there is no Docker API"),
]);

static BUILD_OBJECT: Object = object(&[
    f("context", Str, "Directory or address.").ignored(BUILD),
    f("dockerfile", Str, "Name of the Dockerfile.").ignored(BUILD),
    f("dockerfile_inline", Str, "A Dockerfile.").ignored(BUILD),
    f("entitlements", List(&Str), "Rights of the build.").ignored(BUILD),
    f("args", PAIRS, "Arguments.").ignored(BUILD),
    f("ssh", PAIRS, "SSH keys.").ignored(BUILD),
    f("labels", PAIRS, "Labels of the image.").ignored(BUILD),
    f("cache_from", List(&Str), "Caches to read.").ignored(BUILD),
    f("cache_to", List(&Str), "Caches to write.").ignored(BUILD),
    f("no_cache", Bool, "Build without cache.").ignored(BUILD),
    f("no_cache_filter", STR_OR_LIST, "Stages to build without cache.").ignored(BUILD),
    f("additional_contexts", PAIRS, "Further contexts.").ignored(BUILD),
    f("network", Str, "Network of the build.").ignored(BUILD),
    f("provenance", OneOf(&[Bool, Str]), "Provenance attestation.").ignored(BUILD),
    f("sbom", OneOf(&[Bool, Str]), "SBOM attestation.").ignored(BUILD),
    f("pull", Bool, "Pull base images.").ignored(BUILD),
    f("target", Str, "Stage to build.").ignored(BUILD),
    f("shm_size", Bytes, "Size of /dev/shm.").ignored(BUILD),
    f("extra_hosts", HOSTS, "Host names.").ignored(BUILD),
    f("isolation", Str, "Isolation.").ignored(BUILD),
    f("privileged", Bool, "Privileged build.").ignored(BUILD),
    f("secrets", List(&OneOf(&[Str, Shape::Object(&FILE_REF)])), "Secrets of the build.").ignored(BUILD),
    f("tags", List(&Str), "Tags of the image.").ignored(BUILD),
    f("ulimits", Map(&OneOf(&[Int, Shape::Object(&ULIMIT)])), "Limits of the build.").ignored(BUILD),
    f("platforms", List(&Str), "Platforms to build for.").ignored(BUILD),
]);

static ENV_FILE: Object = strict(&[
    f("path", Str, "The file.").required(),
    f("format", Str, "`raw`: values are taken as they are."),
    f("required", Bool, "Whether the file must be there; default true."),
]);

static PORT: Object = object(&[
    f("name", Str, "Name of the port."),
    f("mode", Str, "`host` or `ingress`; the same on one node."),
    f("host_ip", Str, "Address of the host to publish on; default all."),
    f("target", Int, "Port inside."),
    f("published", StrNum, "Port of the host, or a range."),
    f("protocol", Str, "`tcp`, `udp` or `sctp`."),
    f("app_protocol", Str, "Application protocol.").ignored("it is a note for people"),
]);

static MOUNT: Object = object(&[
    f("type", Enum(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"]), "What is mounted.").required(),
    f("source", Str, "Path of the host, volume or image."),
    f("target", Str, "Path inside."),
    f("read_only", Bool, "No writes."),
    f("consistency", Str, "Consistency of the mount.").ignored("it matters in virtual machines only"),
    f("bind", Shape::Object(&MOUNT_BIND), "Options of a bind."),
    f("volume", Shape::Object(&MOUNT_VOLUME), "Options of a volume."),
    f("tmpfs", Shape::Object(&MOUNT_TMPFS), "Options of a memory file system."),
    f("image", Shape::Object(&MOUNT_IMAGE), "Options of an image."),
]);

static MOUNT_BIND: Object = object(&[
    f(
        "propagation",
        Enum(&["private", "rprivate", "shared", "rshared", "slave", "rslave", ""]),
        "How mounts made later travel.",
    ),
    f("create_host_path", Bool, "Make the path when it is missing; default true."),
    f("recursive", Enum(&["enabled", "disabled", "writable", "readonly"]), "What happens to mounts below the path."),
    f("selinux", Enum(&["z", "Z"]), "SELinux label.").ignored("labels are not changed"),
]);

static MOUNT_VOLUME: Object = object(&[
    f("labels", PAIRS, "Labels of the volume.").ignored("volumes have no labels"),
    f("nocopy", Bool, "Do not fill an empty volume from the image."),
    f("subpath", Str, "Path in the volume."),
]);

static MOUNT_TMPFS: Object = object(&[f("size", Bytes, "Size in bytes."), f("mode", StrNum, "File mode.")]);

static MOUNT_IMAGE: Object = object(&[f("subpath", Str, "Path in the image.")]);

static ATTACHMENT: Object = object(&[
    f("aliases", List(&Str), "Further names on the network."),
    f("interface_name", Str, "Name of the interface.").no_effect("interfaces are named eth0, eth1 and so on"),
    f("ipv4_address", Str, "Fixed IPv4 address."),
    f("ipv6_address", Str, "Fixed IPv6 address."),
    f("link_local_ips", List(&Str), "Link-local addresses.").no_effect("no link-local addresses are assigned"),
    f("mac_address", Str, "Fixed MAC address."),
    f("driver_opts", Map(&StrNum), "Options of the driver.").no_effect("the bridge has no such options"),
    f("priority", Num, "The network with the highest is joined first."),
    f("gw_priority", Num, "The network with the highest has the default route."),
]);

static DEPENDS_ON: Object = object(&[
    f(
        "condition",
        Enum(&["service_started", "service_healthy", "service_completed_successfully"]),
        "What must have happened.",
    )
    .required(),
    f("restart", Bool, "Restart when the other service is restarted."),
    f("required", StrictBool, "Whether the service may be missing; default true."),
]);

static HEALTHCHECK: Object = object(&[
    f("test", OneOf(&[Str, List(&Str)]), "The command; a string runs in a shell. Without it that of the image runs."),
    f("interval", Duration, "Time between two; default 30s."),
    f("timeout", Duration, "Longest time of one; default 30s."),
    f("retries", Int, "Failures in a row that count; default 3."),
    f("start_period", Duration, "Failures in this time after the start do not count."),
    f("start_interval", Duration, "Time between two in the start period; default 5s."),
    f("disable", Bool, "No health check, also none of the image."),
]);

static DEPLOY: Object = object(&[
    f(
        "mode",
        Enum(&["replicated", "global", "replicated-job", "global-job"]),
        "`replicated` or `global`, which is one replica here.",
    ),
    f("endpoint_mode", Str, "`vip` or `dnsrr`.").no_effect("a name resolves to all ready containers"),
    f("replicas", Int, "Number of containers."),
    f("labels", PAIRS, "Labels of the service."),
    f("update_config", Shape::Object(&UPDATE), "How a new version takes over."),
    f("rollback_config", Shape::Object(&UPDATE), "How the old version comes back."),
    f("resources", Shape::Object(&RESOURCES), "Limits and reservations."),
    f("restart_policy", Shape::Object(&RESTART_POLICY), "Replaces `restart`."),
    f("placement", Shape::Object(&PLACEMENT), "Choice of the node.").no_effect(ONE_NODE),
]);

static UPDATE: Object = object(&[
    f("parallelism", Int, "Containers replaced at a time; 0 is all."),
    f("delay", Duration, "Wait between two batches."),
    f("failure_action", Enum(&["continue", "pause", "rollback"]), "What a failure leads to."),
    f("monitor", Duration, "Time to watch a new container."),
    f("max_failure_ratio", Num, "Failures that are tolerated.").no_effect("the first failure counts"),
    f("order", Enum(&["start-first", "stop-first"]), "Whether the new container starts before the old one stops."),
]);

static RESOURCES: Object = object(&[
    f("limits", Shape::Object(&LIMITS), "Limits."),
    f("reservations", Shape::Object(&RESERVATIONS), "What is kept for the service."),
]);

static LIMITS: Object =
    object(&[f("cpus", Num, "Cores."), f("memory", BytesStr, "Memory."), f("pids", Int, "Processes.")]);

static RESERVATIONS: Object = object(&[
    f("cpus", Num, "Cores."),
    f("memory", BytesStr, "Memory."),
    f("generic_resources", Any, "Resources of a cluster.").no_effect(ONE_NODE),
    f("devices", List(&Shape::Object(&RESERVED)), "Devices, as CDI devices."),
]);

static GPU: Object = object(&[
    f("capabilities", STRINGS, "What the device must be able to do."),
    f("count", OneOf(&[Enum(&["all"]), Int]), "How many, or `all`."),
    f("device_ids", STRINGS, "Which."),
    f("driver", Str, "`nvidia` or `cdi`."),
    f("options", PAIRS, "Options of the driver.").no_effect("CDI devices have no options"),
]);

/// The same where its capabilities must be said (Compose specification, "deploy", "devices").
static RESERVED: Object = object(&[
    f("capabilities", STRINGS, "What the device must be able to do.").required(),
    f("count", OneOf(&[Enum(&["all"]), Int]), "How many, or `all`."),
    f("device_ids", STRINGS, "Which."),
    f("driver", Str, "`nvidia` or `cdi`."),
    f("options", PAIRS, "Options of the driver.").no_effect("CDI devices have no options"),
]);

static RESTART_POLICY: Object = object(&[
    f(
        "condition",
        Enum(&["none", "no", "on-failure", "unless-stopped", "any", "always"]),
        "When a container that ended is started again.",
    ),
    f("delay", Duration, "Wait before a restart."),
    f("max_attempts", Int, "Restarts at the most."),
    f("window", Duration, "A run of this length starts the count afresh."),
]);

static PLACEMENT: Object = object(&[
    f("constraints", List(&Str), "Conditions on the node.").no_effect(ONE_NODE),
    f("preferences", List(&Shape::Object(&PREFERENCE)), "Preferences.").no_effect(ONE_NODE),
    f("max_replicas_per_node", Int, "Containers on a node.").no_effect(ONE_NODE),
]);

static PREFERENCE: Object = object(&[f("spread", Str, "Label to spread over.").no_effect(ONE_NODE)]);

static FILE_REF: Object = object(&[
    f("source", Str, "Name of the config or secret."),
    f("target", Str, "Path inside."),
    f("uid", Str, "Owner."),
    f("gid", Str, "Group."),
    f("mode", StrNum, "File mode; default 0444."),
]);

static EXTENDS: Object = strict(&[
    f("service", Str, "The service to start from.").required(),
    f("file", Str, "The file it is in; default this one."),
]);

static ULIMIT: Object = object(&[f("hard", Int, "Hard limit.").required(), f("soft", Int, "Soft limit.").required()]);

static DEVICE: Object = object(&[
    f("source", Str, "Path on the host, or a CDI name.").required(),
    f("target", Str, "Path inside.").required(),
    f("permissions", Str, "Of `r`, `w` and `m`."),
]);

static LOGGING: Object = object(&[
    f("driver", Str, "`json-file`, `local` or `none`; others have no effect."),
    f("options", Map(&OneOf(&[Null, StrNum])), "`max-size` and `max-file`; others have no effect."),
]);

static BLKIO: Object = strict(&[
    f("weight", Int, "Weight, 10 to 1000."),
    f("weight_device", List(&Shape::Object(&BLKIO_WEIGHT)), "Weight per device.")
        .no_effect("there is one weight for all"),
    f("device_read_bps", List(&Shape::Object(&BLKIO_LIMIT)), "Bytes read per second."),
    f("device_read_iops", List(&Shape::Object(&BLKIO_LIMIT)), "Reads per second."),
    f("device_write_bps", List(&Shape::Object(&BLKIO_LIMIT)), "Bytes written per second."),
    f("device_write_iops", List(&Shape::Object(&BLKIO_LIMIT)), "Writes per second."),
]);

static BLKIO_LIMIT: Object = strict(&[f("path", Str, "Device."), f("rate", StrNum, "Rate.")]);

static BLKIO_WEIGHT: Object = strict(&[f("path", Str, "Device."), f("weight", Int, "Weight.")]);

static HOOK: Object = object(&[
    f("command", COMMAND, "The command.").required(),
    f("user", Str, "User that runs it.").no_effect("hooks run as the container's user"),
    f("privileged", Bool, "With all rights.").no_effect("hooks have the container's rights"),
    f("working_dir", Str, "Directory it runs in."),
    f("environment", PAIRS, "Variables."),
]);

static PRE_START: Object = object(&[
    f("image", Str, "The image; default the service's."),
    f("command", COMMAND, "The command; default the image's."),
    f("user", Str, "User that runs it; default the service's."),
    f("privileged", Bool, "All capabilities and devices."),
    f("working_dir", Str, "Directory it runs in."),
    f("environment", PAIRS, "Variables besides the service's."),
    f("per_replica", Bool, "Run for each container.").ignored("it runs before each container"),
]);

static CREDENTIAL_SPEC: Object = object(&[
    f("config", Str, "Config.").rejected(WINDOWS),
    f("file", Str, "File.").rejected(WINDOWS),
    f("registry", Str, "Registry.").rejected(WINDOWS),
]);

static DEVELOP: Object = object(&[f("watch", List(&Shape::Object(&WATCH_RULE)), "What to watch.").ignored(WATCH)]);

static WATCH_RULE: Object = object(&[
    f("path", Str, "Path.").required().ignored(WATCH),
    f("action", Enum(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"]), "Action.")
        .required()
        .ignored(WATCH),
    f("ignore", STR_OR_LIST, "Patterns to leave out.").ignored(WATCH),
    f("include", STR_OR_LIST, "Patterns to take in.").ignored(WATCH),
    f("target", Str, "Path inside.").ignored(WATCH),
    f("exec", Shape::Object(&HOOK), "Command.").ignored(WATCH),
    f("initial_sync", Bool, "Sync at the start.").ignored(WATCH),
]);

static PROVIDER: Object = object(&[
    f("type", Str, "Kind of provider.").required(),
    f("options", Map(&OneOf(&[Scalar, List(&Scalar)])), "Options."),
]);

static MODEL: Object = object(&[
    f("name", Str, "Name.").ignored("there is no model runner"),
    f("model", Str, "The model.").required().ignored("there is no model runner"),
    f("context_size", Int, "Size of the context.").ignored("there is no model runner"),
    f("runtime_flags", List(&Str), "Flags.").ignored("there is no model runner"),
]);

static MODEL_REF: Object =
    object(&[f("endpoint_var", Str, "Variable with the address."), f("model_var", Str, "Variable with the name.")]);

const EXTERNAL: Shape = OneOf(&[Bool, Shape::Object(&EXTERNAL_NAME)]);

static EXTERNAL_NAME: Object = object(&[f("name", Str, "Name outside of the project.")]);

static NETWORK: Object = object(&[
    f("name", Str, "Name on the host; default `PROJECT_NETWORK`."),
    f("driver", Str, "`bridge`; `host` and `none` as in `network_mode`."),
    f("driver_opts", Map(&StrNum), "Options of the driver.").no_effect("the bridge has no such options"),
    f("ipam", Shape::Object(&IPAM), "Addresses."),
    f("external", EXTERNAL, "Made by someone else."),
    f("internal", Bool, "No way out."),
    f("enable_ipv4", Bool, "IPv4 addresses; default true."),
    f("enable_ipv6", Bool, "IPv6 addresses."),
    f("attachable", Bool, "Whether other containers may join.").ignored("it matters in a swarm only"),
    f("labels", PAIRS, "Labels.").ignored("networks have no labels"),
]);

static IPAM: Object = object(&[
    f("driver", Str, "IPAM driver; only `default`."),
    f("config", List(&Shape::Object(&IPAM_CONFIG)), "Subnets."),
    f("options", Map(&Str), "Options.").no_effect("the address pool has no options"),
]);

static IPAM_CONFIG: Object = object(&[
    f("subnet", Str, "Subnet in CIDR form."),
    f("ip_range", Str, "Range for containers.").no_effect("addresses come from the whole subnet"),
    f("gateway", Str, "Address of the gateway.").no_effect("the gateway is the first address of the subnet"),
    f("aux_addresses", Map(&Str), "Addresses to leave out.").no_effect("addresses come from the whole subnet"),
]);

static VOLUME: Object = object(&[
    f("name", Str, "Name on the host; default `PROJECT_VOLUME`."),
    f("driver", Str, "`local`."),
    f("driver_opts", Map(&StrNum), "`type`, `o` and `device` of a bind or tmpfs."),
    f("external", EXTERNAL, "Made by someone else."),
    f("labels", PAIRS, "Labels.").ignored("volumes have no labels"),
]);

static SECRET: Object = object(&[
    f("name", Str, "Name."),
    f("environment", Str, "Variable that holds the value."),
    f("file", Str, "File that holds the value."),
    f("external", EXTERNAL, "Made by someone else: a Secret in the namespace of the project's name."),
    f("labels", PAIRS, "Labels.").ignored("secrets have no labels"),
    f("driver", Str, "Driver.").rejected("secrets come from files and variables only"),
    f("driver_opts", Map(&StrNum), "Options of the driver.").rejected("secrets come from files and variables only"),
    f("template_driver", Str, "Template driver.").rejected("secrets are taken as they are"),
]);

static CONFIG: Object = object(&[
    f("name", Str, "Name."),
    f("content", Str, "The content."),
    f("environment", Str, "Variable that holds the content."),
    f("file", Str, "File that holds the content."),
    f("external", EXTERNAL, "Made by someone else: a ConfigMap in the namespace of the project's name."),
    f("labels", PAIRS, "Labels.").ignored("configs have no labels"),
    f("template_driver", Str, "Template driver.").rejected("configs are taken as they are"),
]);
