//! The flags of `docker run` and what each becomes (Docker documentation, "docker container run"), and those that only
//! podman has.

/// What a flag takes and becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No value; sets the key to true.
    Bool(&'static str),
    /// No value; without effect.
    NoValue,
    /// A value; without effect.
    Dropped,
    /// Text at this path of the service.
    Text(&'static str),
    /// A number at this path of the service.
    Number(&'static str),
    /// Appended to the list at this path.
    List(&'static str),
    /// `KEY=VALUE` in the mapping at this path.
    Pair(&'static str),
    /// Has code of its own.
    Own,
    /// A value; the flag cannot be expressed, for this reason.
    Refused(&'static str),
    /// A value; left out with a note that gives this reason.
    Lost(&'static str),
    /// The same without a value.
    LostSwitch(&'static str),
}

/// A flag.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) long: &'static str,
    pub(super) short: Option<char>,
    pub(super) kind: Kind,
}

const fn f(long: &'static str, kind: Kind) -> Flag {
    Flag { long, short: None, kind }
}

const fn s(long: &'static str, short: char, kind: Kind) -> Flag {
    Flag { long, short: Some(short), kind }
}

use Kind::{Bool, Dropped, List, Lost, LostSwitch, NoValue, Number, Own, Pair, Refused, Text};

const NO_MAP: &str = "ids of users are not mapped by hand";
const ONE_CHECK: &str = "there is one healthcheck: `start_period` and `start_interval` are for the start";
const ONE_PLATFORM: &str = "write `platform: linux/ARCH`";
const NO_LOGIN: &str = "the agent has its own credentials for registries";

/// All flags.
#[rustfmt::skip]
pub(super) static FLAGS: &[Flag] = &[
    f("add-host", List("extra_hosts")), f("annotation", Pair("annotations")), s("attach", 'a', Dropped), f("blkio-weight", Number("blkio_config.weight")),
    f("blkio-weight-device", Refused("only the weight as a whole is set")), f("cap-add", List("cap_add")), f("cap-drop", List("cap_drop")), f("cgroup-parent", Text("cgroup_parent")),
    f("cgroupns", Text("cgroup")), f("cidfile", Dropped), f("cpu-count", Dropped), f("cpu-percent", Dropped), f("cpu-period", Number("cpu_period")), f("cpu-quota", Number("cpu_quota")),
    f("cpu-rt-period", Text("cpu_rt_period")), f("cpu-rt-runtime", Text("cpu_rt_runtime")), s("cpu-shares", 'c', Number("cpu_shares")), f("cpus", Own), f("cpuset-cpus", Text("cpuset")),
    f("cpuset-mems", Refused("memory nodes are not chosen")), s("detach", 'd', NoValue), f("detach-keys", Dropped), f("device", List("devices")), f("device-cgroup-rule", List("device_cgroup_rules")),
    f("device-read-bps", Refused("block I/O rates are not limited")), f("device-read-iops", Refused("block I/O rates are not limited")), f("device-write-bps", Refused("block I/O rates are not limited")),
    f("device-write-iops", Refused("block I/O rates are not limited")), f("disable-content-trust", NoValue), f("dns", List("dns")), f("dns-opt", List("dns_opt")), f("dns-option", List("dns_opt")),
    f("dns-search", List("dns_search")), f("domainname", Text("domainname")), f("entrypoint", Own), s("env", 'e', List("environment")), f("env-file", List("env_file")), f("expose", List("expose")),
    f("gpus", Own), f("group-add", List("group_add")), f("health-cmd", Own), f("health-interval", Text("healthcheck.interval")), f("health-retries", Number("healthcheck.retries")),
    f("health-start-interval", Text("healthcheck.start_interval")), f("health-start-period", Text("healthcheck.start_period")), f("health-timeout", Text("healthcheck.timeout")), s("hostname", 'h', Text("hostname")),
    f("init", Bool("init")), s("interactive", 'i', Bool("stdin_open")), f("ip", Own), f("ip6", Own), f("ipc", Text("ipc")), f("isolation", Text("isolation")), f("kernel-memory", Dropped),
    s("label", 'l', List("labels")), f("label-file", List("label_file")), f("link", Own), f("link-local-ip", Own), f("log-driver", Text("logging.driver")), f("log-opt", Pair("logging.options")), f("mac-address", Text("mac_address")),
    s("memory", 'm', Text("mem_limit")), f("memory-reservation", Text("mem_reservation")), f("memory-swap", Text("memswap_limit")), f("memory-swappiness", Number("mem_swappiness")), f("mount", Own), f("name", Own),
    f("net", Own), f("net-alias", Own), f("network", Own), f("network-alias", Own), f("no-healthcheck", Bool("healthcheck.disable")), f("oom-kill-disable", Bool("oom_kill_disable")), f("oom-score-adj", Number("oom_score_adj")),
    f("pid", Text("pid")), f("pids-limit", Number("pids_limit")), f("platform", Text("platform")), f("privileged", Bool("privileged")), s("publish", 'p', List("ports")), s("publish-all", 'P', NoValue),
    f("pull", Text("pull_policy")), s("quiet", 'q', NoValue), f("read-only", Bool("read_only")), f("restart", Text("restart")), f("rm", NoValue), f("runtime", Text("runtime")), f("security-opt", List("security_opt")),
    f("shm-size", Text("shm_size")), f("sig-proxy", NoValue), f("stop-signal", Text("stop_signal")), f("stop-timeout", Own), f("storage-opt", Pair("storage_opt")), f("sysctl", Pair("sysctls")), f("tmpfs", List("tmpfs")),
    s("tty", 't', Bool("tty")), f("ulimit", Own), f("use-api-socket", Bool("use_api_socket")), s("user", 'u', Text("user")), f("userns", Text("userns_mode")), f("uts", Text("uts")), s("volume", 'v', Own),
    f("volume-driver", Refused("volumes are local")), f("volumes-from", Refused("name the same volumes in both services")), s("workdir", 'w', Text("working_dir")),
    // podman's own ("podman-run(1)"). First how it supervises and fetches, which is mainstay's business here.
    f("cgroups", Dropped), f("conmon-pidfile", Dropped), f("health-log-destination", Dropped), f("health-max-log-count", Dropped), f("health-max-log-size", Dropped), f("http-proxy", NoValue), f("init-path", Dropped), f("passwd", NoValue),
    f("pidfile", Dropped), f("pod-id-file", Dropped), f("read-only-tmpfs", NoValue), f("replace", NoValue), f("retry", Dropped), f("retry-delay", Dropped), f("rmi", NoValue), f("sdnotify", Dropped), f("seccomp-policy", Dropped),
    f("shm-size-systemd", Dropped), f("signature-policy", Dropped), f("systemd", Dropped), f("tls-verify", NoValue),
    f("healthcheck-command", Own), f("healthcheck-interval", Text("healthcheck.interval")), f("healthcheck-retries", Number("healthcheck.retries")), f("healthcheck-start-period", Text("healthcheck.start_period")), f("healthcheck-timeout", Text("healthcheck.timeout")), f("tz", Own),
    f("arch", Lost(ONE_PLATFORM)), f("os", Lost(ONE_PLATFORM)), f("variant", Lost(ONE_PLATFORM)), f("authfile", Lost(NO_LOGIN)), f("cert-dir", Lost(NO_LOGIN)), f("creds", Lost(NO_LOGIN)), f("decryption-key", Lost("encrypted images are not read")),
    f("cgroup-conf", Lost("keys of the cgroup are not set by hand")), f("chrootdirs", Lost("files in /etc are the container's only")), f("env-host", LostSwitch("write the variables that it needs into `environment`")), f("env-merge", Lost("write the whole value into `environment`")),
    f("unsetenv", Lost("a variable of the image can only be set to something else")), f("unsetenv-all", LostSwitch("a variable of the image can only be set to something else")), f("gidmap", Lost(NO_MAP)), f("subgidname", Lost(NO_MAP)), f("subuidname", Lost(NO_MAP)), f("uidmap", Lost(NO_MAP)),
    f("group-entry", Lost("/etc/group is the image's")), f("hostuser", Lost("/etc/passwd is the image's")), f("passwd-entry", Lost("/etc/passwd is the image's")), f("hosts-file", Lost("write the names into `extra_hosts`")), f("no-hosts", LostSwitch("/etc/hosts is always written")), f("no-hostname", LostSwitch("/etc/hostname is always written")),
    f("health-on-failure", Lost("a service that fails its healthcheck is restarted, unless it has the label `mainstay.heal=false`")), f("health-startup-cmd", Lost(ONE_CHECK)), f("health-startup-interval", Lost(ONE_CHECK)), f("health-startup-retries", Lost(ONE_CHECK)), f("health-startup-success", Lost(ONE_CHECK)), f("health-startup-timeout", Lost(ONE_CHECK)),
    f("image-volume", Lost("name what is to be mounted in `volumes`")), f("init-ctr", Lost("write it as `pre_start` of the service that waits for it")), f("personality", Lost("there is none to choose")), f("pod", Lost("containers that share a network are one Pod, or services with `network_mode: service:NAME`")), f("preserve-fd", Lost("descriptors are not passed on")),
    f("preserve-fds", Lost("descriptors are not passed on")), f("rdt-class", Lost("there are no classes of resources")), f("requires", Lost("put both services into one project and write `depends_on`")), f("secret", Lost("write it under `secrets`, as a file that only root can read")), f("timeout", Lost("a service may run for ever")), f("umask", Lost("the image's umask counts")),
];

/// A flag by its long name.
pub(super) fn long(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.long == name)
}

/// A flag by its letter.
pub(super) fn short(letter: char) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.short == Some(letter))
}

impl Flag {
    /// Whether a value follows.
    pub(super) fn takes_value(&self) -> bool {
        !matches!(self.kind, Bool(_) | NoValue | LostSwitch(_))
    }
}
