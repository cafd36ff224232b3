//! The flags of `docker run` and what each becomes (Docker documentation, "docker container run").

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

use Kind::{Bool, Dropped, List, NoValue, Number, Own, Pair, Refused, Text};

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
    f("gpus", Own), f("group-add", List("group_add")), f("health-cmd", Text("healthcheck.test")), f("health-interval", Text("healthcheck.interval")), f("health-retries", Number("healthcheck.retries")),
    f("health-start-interval", Text("healthcheck.start_interval")), f("health-start-period", Text("healthcheck.start_period")), f("health-timeout", Text("healthcheck.timeout")), s("hostname", 'h', Text("hostname")),
    f("init", Bool("init")), s("interactive", 'i', Bool("stdin_open")), f("ip", Own), f("ip6", Own), f("ipc", Text("ipc")), f("isolation", Text("isolation")), f("kernel-memory", Dropped),
    s("label", 'l', List("labels")), f("label-file", List("label_file")), f("link", Own), f("link-local-ip", Own), f("log-driver", Text("logging.driver")), f("log-opt", Pair("logging.options")), f("mac-address", Text("mac_address")),
    s("memory", 'm', Text("mem_limit")), f("memory-reservation", Text("mem_reservation")), f("memory-swap", Text("memswap_limit")), f("memory-swappiness", Number("mem_swappiness")), f("mount", Own), f("name", Own),
    f("net", Own), f("net-alias", Own), f("network", Own), f("network-alias", Own), f("no-healthcheck", Bool("healthcheck.disable")), f("oom-kill-disable", Bool("oom_kill_disable")), f("oom-score-adj", Number("oom_score_adj")),
    f("pid", Text("pid")), f("pids-limit", Number("pids_limit")), f("platform", Text("platform")), f("privileged", Bool("privileged")), s("publish", 'p', List("ports")), s("publish-all", 'P', NoValue),
    f("pull", Text("pull_policy")), s("quiet", 'q', NoValue), f("read-only", Bool("read_only")), f("restart", Text("restart")), f("rm", NoValue), f("runtime", Text("runtime")), f("security-opt", List("security_opt")),
    f("shm-size", Text("shm_size")), f("sig-proxy", NoValue), f("stop-signal", Text("stop_signal")), f("stop-timeout", Own), f("storage-opt", Pair("storage_opt")), f("sysctl", Pair("sysctls")), f("tmpfs", List("tmpfs")),
    s("tty", 't', Bool("tty")), f("ulimit", Own), f("use-api-socket", Bool("use_api_socket")), s("user", 'u', Text("user")), f("userns", Text("userns_mode")), f("uts", Text("uts")), s("volume", 'v', Own),
    f("volume-driver", Refused("volumes are local")), f("volumes-from", Refused("name the same volumes in both services")), s("workdir", 'w', Text("working_dir")), f("replace", NoValue), f("systemd", Dropped),
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
        !matches!(self.kind, Bool(_) | NoValue)
    }
}
