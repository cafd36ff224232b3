//! Limits and requests.

use std::collections::BTreeMap;

use crate::codes;
use crate::node::Node;
use crate::pod::Resources;
use crate::quantity::Quantity;
use crate::schema::check::{quoted, suggest};
use crate::schema::report::Report;
use crate::schema::{format, read};

/// No host has more devices of a kind than this.
const MOST_DEVICES: u64 = 64;

/// Reads `resources` of a pod, which has no devices.
pub(super) fn read(report: &mut Report<'_>, owner: &Node) -> Resources {
    let (resources, _) = with_devices(report, owner);
    for which in ["limits", "requests"] {
        let Some(map) = read::dig(owner, &["resources", which]) else { continue };
        for name in map.as_map().into_iter().flatten().map(|(name, _)| name).filter(|name| name.contains('/')) {
            let message = format!("`{name}` is a resource of containers, not of pods");
            report.error_at(codes::REJECTED_RESOURCE, map, name, message);
        }
    }
    resources
}

/// Reads `resources` of a container: limits, and CDI devices. An extended resource is a number of devices of the CDI kind
/// of that name: `nvidia.com/gpu: 2` means `nvidia.com/gpu=0` and `=1`.
pub(super) fn with_devices(report: &mut Report<'_>, owner: &Node) -> (Resources, Vec<String>) {
    let Some(node) = read::get(owner, "resources").filter(|node| node.as_map().is_some()) else {
        return (Resources::default(), Vec::new());
    };
    let limits = quantities(report, node, "limits");
    let requests = quantities(report, node, "requests");
    let mut devices = Vec::new();
    for (name, limit) in limits.iter().filter(|(name, _)| name.contains('/')) {
        match limit.units().filter(|count| limit.is_whole() && *count <= MOST_DEVICES) {
            Some(count) => devices.extend((0..count).map(|index| format!("{name}={index}"))),
            None => {
                let Some(at) = read::dig(node, &["limits", name]) else { continue };
                report.error(codes::OUT_OF_RANGE, at, format!("{name} is a whole number of at most {MOST_DEVICES}"));
            }
        }
    }
    for (name, request) in &requests {
        let Some(at) = read::dig(node, &["requests", name]) else { continue };
        match limits.get(name) {
            Some(limit) if request > limit => {
                let message = format!("the request for {name} is above its limit");
                report.error(codes::CONFLICT, at, message).hint = Some("lower the request or raise the limit".into());
            }
            Some(limit) if (name.starts_with("hugepages-") || name.contains('/')) && request != limit => {
                report.error(codes::CONFLICT, at, format!("request and limit of {name} must be equal"));
            }
            None if name.starts_with("hugepages-") || name.contains('/') => {
                report.error(codes::CONFLICT, at, format!("{name} needs a limit equal to its request"));
            }
            _ => {}
        }
    }
    let huge = limits.keys().chain(requests.keys()).any(|name| name.starts_with("hugepages-"));
    let plain = |set: &BTreeMap<&str, Quantity>| set.contains_key("cpu") || set.contains_key("memory");
    if huge && !plain(&limits) && !plain(&requests) {
        report.error(codes::CONFLICT, node, "huge pages need a request or limit of cpu or memory beside them");
    }
    let milli = |set: &BTreeMap<&str, Quantity>, name: &str| set.get(name).and_then(|q| q.milli());
    let units = |set: &BTreeMap<&str, Quantity>, name: &str| set.get(name).and_then(|q| q.units());
    let resources = Resources {
        cpu_limit_milli: milli(&limits, "cpu"),
        cpu_request_milli: milli(&requests, "cpu"),
        memory_limit: units(&limits, "memory"),
        memory_request: units(&requests, "memory"),
        ephemeral_storage_limit: units(&limits, "ephemeral-storage"),
        ephemeral_storage_request: units(&requests, "ephemeral-storage"),
        pids_limit: units(&limits, "pids").and_then(|pids| i64::try_from(pids).ok()),
        hugepages: limits
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("hugepages-")?.to_owned(), value.units()?)))
            .collect(),
        ..Resources::default()
    };
    (resources, devices)
}

/// Whether a name is that of a CDI kind (`vendor/class`; CDI specification, "Device names").
fn is_kind(name: &str) -> bool {
    let part = |text: &str, extra: &[u8]| {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
            && text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
    };
    name.split_once('/')
        .is_some_and(|(vendor, class)| part(vendor, b".-_") && vendor.contains('.') && part(class, b"-_."))
        && !name.contains("kubernetes.io/")
}

fn quantities<'n>(report: &mut Report<'_>, node: &'n Node, which: &str) -> BTreeMap<&'n str, Quantity> {
    let mut out = BTreeMap::new();
    let Some(map_node) = read::get(node, which) else { return out };
    for (name, entry) in map_node.as_map().into_iter().flatten() {
        if !resource_name(report, map_node, name) {
            continue;
        }
        let Some(quantity) = read::as_quantity(&entry.node) else { continue };
        if quantity.is_negative() {
            report.error(codes::OUT_OF_RANGE, &entry.node, format!("`{name}` must not be negative"));
            continue;
        }
        if name == "memory" && !quantity.is_whole() {
            let hint = "memory is counted in bytes: did you mean `Mi`?";
            report.warn(codes::BAD_QUANTITY, &entry.node, "`memory` is a fraction of a byte").hint = Some(hint.into());
        }
        out.insert(name.as_str(), quantity);
    }
    out
}

/// Whether a resource exists here; reports it when not.
fn resource_name(report: &mut Report<'_>, node: &Node, name: &str) -> bool {
    if matches!(name, "cpu" | "memory" | "ephemeral-storage" | "pids") {
        return true;
    }
    if let Some(size) = name.strip_prefix("hugepages-") {
        if Quantity::parse(size).is_some() {
            return true;
        }
        report.error_at(codes::BAD_VALUE, node, name, format!("{} names no page size", quoted(name)));
        return false;
    }
    if is_kind(name) {
        return true;
    }
    if name.contains('/') && format::label_key(name).is_none() {
        let message = format!("the extended resource `{name}` is not supported: it needs a device plugin of a cluster");
        report.error_at(codes::REJECTED_RESOURCE, node, name, message).hint =
            Some("devices of the host are named as CDI kinds are, such as `nvidia.com/gpu`".to_owned());
        return false;
    }
    let known = ["cpu", "memory", "ephemeral-storage", "pids"];
    report.error_at(codes::BAD_VALUE, node, name, format!("unknown resource {}", quoted(name))).hint =
        Some(match suggest(name, known.into_iter()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "resources are cpu, memory, ephemeral-storage, pids and hugepages-<size>".to_owned(),
        });
    false
}
