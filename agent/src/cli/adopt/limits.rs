//! Limits, devices and namespaces of `HostConfig`, and whatever else it says that has no flag.

use serde_json::Value;

use super::container::{elements, list, text};
use super::docker::Fields;

/// Numbers with a flag, and the unit that it wants.
const NUMBERS: [(&str, &str, &str); 7] = [
    ("memory", "Memory", "b"),
    ("memory-reservation", "MemoryReservation", "b"),
    ("shm-size", "ShmSize", "b"),
    ("pids-limit", "PidsLimit", ""),
    ("cpu-shares", "CpuShares", ""),
    ("blkio-weight", "BlkioWeight", ""),
    ("oom-score-adj", "OomScoreAdj", ""),
];

/// What one gets from Docker or podman without asking.
const USUAL: [(&str, &str); 11] = [
    ("ShmSize", "67108864"),
    ("ShmSize", "65536000"),
    ("PidsLimit", "2048"),
    ("PidsLimit", "-1"),
    ("Runtime", "runc"),
    ("Runtime", "crun"),
    ("Runtime", "oci"),
    ("Runtime", "io.containerd.runc.v2"),
    ("UTSMode", "private"),
    ("Isolation", "default"),
    ("VolumeDriver", "local"),
];

/// Fields that are read, here or in `docker`, and those that say nothing about the container.
#[rustfmt::skip]
const READ: [&str; 51] = [
    "Annotations", "AutoRemove", "Binds", "BlkioWeight", "CapAdd", "CapDrop", "CgroupManager", "CgroupMode", "Cgroups",
    "CgroupnsMode", "ConsoleSize", "ContainerIDFile", "CpuPeriod", "CpuQuota", "CpuShares", "CpusetCpus",
    "DeviceRequests", "Devices", "Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "GroupAdd", "Init", "IpcMode", "Links",
    "LogConfig", "MaskedPaths", "Memory", "MemoryReservation", "MemorySwap", "Mounts", "NanoCpus", "NetworkMode",
    "OomScoreAdj", "PidMode", "PidsLimit", "PortBindings", "Privileged", "PublishAllPorts", "ReadonlyPaths",
    "ReadonlyRootfs", "RestartPolicy", "Runtime", "SecurityOpt", "ShmSize", "Sysctls", "Tmpfs", "Ulimits", "UsernsMode",
    "VolumesFrom",
];

pub(super) fn read(fields: &mut Fields<'_>) {
    let host = fields.host;
    for (flag, field, unit) in NUMBERS {
        if let Some(number) = host[field].as_i64().filter(|_| !is_usual(field, &host[field])) {
            fields.flag(flag, format!("{number}{unit}"));
        }
    }
    swap(fields);
    cpus(fields);
    for device in elements(&host["Devices"]) {
        let (from, to) = (text(&device["PathOnHost"]), text(&device["PathInContainer"]));
        fields.flag("device", format!("{from}:{to}:{}", text(&device["CgroupPermissions"])));
    }
    elements(&host["DeviceRequests"]).for_each(|request| gpus(request, fields));
    for limit in elements(&host["Ulimits"]) {
        let number = |field: &str| limit[field].as_i64().unwrap_or(-1);
        // podman writes `RLIMIT_NOFILE`.
        let name = text(&limit["Name"]).trim_start_matches("RLIMIT_").to_ascii_lowercase();
        fields.flag("ulimit", format!("{name}={}:{}", number("Soft"), number("Hard")));
    }
    if !is_usual("Runtime", &host["Runtime"]) {
        fields.flag("runtime", text(&host["Runtime"]));
    }
    for (flag, field) in
        [("ipc", "IpcMode"), ("pid", "PidMode"), ("userns", "UsernsMode"), ("cgroupns", "CgroupnsMode")]
    {
        match text(&host[field]) {
            // Docker's own choice where the host has version 1 of cgroups.
            "host" if field == "CgroupnsMode" && host["Privileged"] != true => {}
            "host" => fields.flag(flag, "host"),
            "" | "private" | "shareable" | "none" => {}
            other => fields.lost(field, &format!("it was `{other}`, which cannot be shared")),
        }
    }
    for (field, value) in host.as_object().into_iter().flatten() {
        if !READ.contains(&field.as_str()) && !is_usual(field, value) {
            fields.lost(field, &format!("it was {value}"));
        }
    }
}

/// Whether this is what one gets without asking.
fn is_usual(field: &str, value: &Value) -> bool {
    let nothing = match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        // podman says -1 for a swappiness that nobody has set.
        Value::Number(number) => {
            number.as_i64() == Some(0) || (field == "MemorySwappiness" && number.as_i64() == Some(-1))
        }
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(pairs) => pairs.is_empty(),
    };
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    nothing || USUAL.contains(&(field, shown.as_str()))
}

/// Twice the memory is what both engines set by themselves.
fn swap(fields: &mut Fields<'_>) {
    let memory = fields.host["Memory"].as_i64().unwrap_or(0);
    match fields.host["MemorySwap"].as_i64().unwrap_or(0) {
        0 => {}
        -1 => fields.flag("memory-swap", "-1"),
        both if Some(both) == memory.checked_mul(2) => {}
        both => fields.flag("memory-swap", format!("{both}b")),
    }
}

fn cpus(fields: &mut Fields<'_>) {
    let host = fields.host;
    let number = |field: &str| host[field].as_i64().filter(|number| *number > 0);
    match number("NanoCpus") {
        // podman says the same once more as a quota.
        Some(nano) => fields.flag("cpus", format!("{}.{:03}", nano / 1_000_000_000, nano % 1_000_000_000 / 1_000_000)),
        None => {
            for (flag, field) in [("cpu-period", "CpuPeriod"), ("cpu-quota", "CpuQuota")] {
                fields.flag(flag, number(field).map(|number| number.to_string()).unwrap_or_default());
            }
        }
    }
    fields.flag("cpuset-cpus", text(&host["CpusetCpus"]));
}

/// `--gpus` and CDI devices.
fn gpus(request: &Value, fields: &mut Fields<'_>) {
    let ids = list(&request["DeviceIDs"]);
    let gpu = elements(&request["Capabilities"]).any(|all| list(all).contains(&"gpu"));
    match request["Count"].as_i64().unwrap_or(0) {
        _ if text(&request["Driver"]) == "cdi" => ids.into_iter().for_each(|id| fields.flag("device", id)),
        _ if !gpu => fields.lost("DeviceRequests", &format!("it was {request}")),
        _ if !ids.is_empty() => fields.flag("gpus", format!("device={}", ids.join(","))),
        -1 => fields.flag("gpus", "all"),
        count => fields.flag("gpus", count.to_string()),
    }
}
