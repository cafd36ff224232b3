//! Service.

use std::net::{IpAddr, Ipv4Addr};

use crate::codes;
use crate::node::Node;
use crate::schema::check::quoted;
use crate::schema::report::Report;
use crate::schema::{format, read};
use crate::workload::{Exposure, Service, ServicePort};

use super::container::protocol;
use super::metadata::Meta;
use super::probe::port as port_ref;

/// A Service, by the rules of core/v1 ValidateService.
pub(super) fn service(report: &mut Report<'_>, node: &Node, meta: &Meta) -> Service {
    let mut out = Service { namespace: meta.namespace.clone(), name: meta.name.clone(), ..Service::default() };
    let Some(spec) = read::get(node, "spec").filter(|spec| spec.as_map().is_some()) else { return out };
    let kind = read::text(spec, "type").unwrap_or("ClusterIP");
    out.exposure = match kind {
        "NodePort" => Exposure::NodePort,
        "LoadBalancer" => Exposure::LoadBalancer,
        _ => Exposure::Cluster,
    };
    out.selector = read::text_map(spec, "selector");
    (out.headless, out.cluster_ip) = cluster_ip(report, spec, kind);
    out.client_ip_affinity = read::text(spec, "sessionAffinity") == Some("ClientIP");
    out.publish_not_ready = read::boolean(spec, "publishNotReadyAddresses").unwrap_or(false);
    out.external_name = external_name(report, spec, kind);
    out.ports = ports(report, spec, kind, out.headless);
    affinity(report, spec, out.client_ip_affinity);
    let families = read::list(spec, "ipFamilies");
    if families.iter().any(|family| family.as_str() == Some("IPv6")) {
        let message = "`ipFamilies`: IPv6 has no effect: Services have IPv4 addresses";
        report.warn_at(codes::NO_EFFECT, spec, "ipFamilies", message);
    }
    let outside = matches!(kind, "NodePort" | "LoadBalancer") || read::get(spec, "externalIPs").is_some();
    if !outside && read::text(spec, "externalTrafficPolicy").is_some() {
        let message = "`externalTrafficPolicy` goes with `type: NodePort` or `LoadBalancer` only";
        report.error_at(codes::CONFLICT, spec, "externalTrafficPolicy", message);
    }
    if kind != "LoadBalancer" {
        for field in ["loadBalancerSourceRanges", "loadBalancerClass", "allocateLoadBalancerNodePorts"] {
            let set = read::get(spec, field).is_some_and(|value| value.as_seq().is_none_or(|items| !items.is_empty()));
            if set {
                let message = format!("`{field}` goes with `type: LoadBalancer` only");
                report.error_at(codes::CONFLICT, spec, field, message);
            }
        }
    }
    out
}

/// Whether it is headless, and the address that is asked for.
fn cluster_ip(report: &mut Report<'_>, spec: &Node, kind: &str) -> (bool, Option<Ipv4Addr>) {
    let first = read::list(spec, "clusterIPs").first().and_then(Node::as_str);
    let ip = read::text(spec, "clusterIP").or(first);
    let key = if read::text(spec, "clusterIP").is_some() { "clusterIP" } else { "clusterIPs" };
    match ip {
        // The API writes an empty text where nothing was asked for.
        None | Some("") => (false, None),
        Some("None") => {
            if matches!(kind, "NodePort" | "LoadBalancer") {
                let message = format!("`clusterIP: None` cannot be combined with `type: {kind}`");
                report.error_at(codes::CONFLICT, spec, key, message);
            }
            (true, None)
        }
        Some(ip) => {
            let address = ip.parse::<IpAddr>();
            if kind == "ExternalName" {
                let message = "`clusterIP` cannot be set with `type: ExternalName`";
                report.error_at(codes::CONFLICT, spec, key, message);
            } else if address.is_err() {
                let message = format!("`{key}` is an address or `None`, not {}", quoted(ip));
                report.error_at(codes::BAD_VALUE, spec, key, message);
            } else if address.as_ref().is_ok_and(IpAddr::is_ipv6) {
                let message = format!("`{key}` has no effect: Services have IPv4 addresses");
                report.warn_at(codes::NO_EFFECT, spec, key, message);
            }
            (false, ip.parse().ok())
        }
    }
}

fn external_name(report: &mut Report<'_>, spec: &Node, kind: &str) -> Option<String> {
    let name = read::string(spec, "externalName");
    if kind != "ExternalName" {
        return None;
    }
    match &name {
        None => {
            let message = "`type: ExternalName` needs `externalName`";
            report.error_at(codes::MISSING_FIELD, spec, "externalName", message);
        }
        Some(name) => {
            if let Some(fault) = format::dns_subdomain(name.strip_suffix('.').unwrap_or(name)) {
                let message = format!("`externalName`: {} {fault}", quoted(name));
                report.error_at(codes::BAD_NAME, spec, "externalName", message);
            }
        }
    }
    name
}

fn affinity(report: &mut Report<'_>, spec: &Node, client_ip: bool) {
    let Some(config) = read::get(spec, "sessionAffinityConfig") else { return };
    if !client_ip {
        let message = "`sessionAffinityConfig` goes with `sessionAffinity: ClientIP` only";
        report.error_at(codes::CONFLICT, spec, "sessionAffinityConfig", message);
    }
    if let Some(inner) = read::get(config, "clientIP")
        && let Some(seconds) = read::int(inner, "timeoutSeconds")
        && !(1..=86400).contains(&seconds)
    {
        let message = "`timeoutSeconds` must be 1 to 86400";
        report.error_at(codes::OUT_OF_RANGE, inner, "timeoutSeconds", message);
    }
}

fn ports(report: &mut Report<'_>, spec: &Node, kind: &str, headless: bool) -> Vec<ServicePort> {
    let nodes = read::list(spec, "ports");
    if nodes.is_empty() && !headless && kind != "ExternalName" {
        report.error_at(codes::MISSING_FIELD, spec, "ports", "`ports` is missing");
    }
    let mut out: Vec<ServicePort> = Vec::new();
    for node in nodes.iter().filter(|node| node.as_map().is_some()) {
        let number = |key| read::int(node, key).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        let name = read::string(node, "name");
        match &name {
            None if nodes.len() > 1 => {
                report.error_at(
                    codes::MISSING_FIELD,
                    node,
                    "name",
                    "`name` is missing; each of several ports needs one",
                );
            }
            Some(name) if out.iter().any(|port| port.name.as_ref() == Some(name)) => {
                let message = format!("there are two ports named {}", quoted(name));
                report.error_at(codes::DUPLICATE_ENTRY, node, "name", message);
            }
            _ => {}
        }
        let Some(port) = number("port") else { continue };
        let protocol = protocol(node);
        if out.iter().any(|other| other.port == port && other.protocol == protocol) {
            report.error_at(codes::DUPLICATE_ENTRY, node, "port", format!("port {port}/{protocol} is listed twice"));
        }
        let node_port = number("nodePort");
        if let Some(node_port) = node_port {
            node_port_rules(report, node, kind, node_port);
            if out.iter().any(|other| other.node_port == Some(node_port) && other.protocol == protocol) {
                report.error_at(
                    codes::DUPLICATE_ENTRY,
                    node,
                    "nodePort",
                    format!("`nodePort` {node_port} is used twice"),
                );
            }
        }
        out.push(ServicePort { name, port, target: port_ref(node, "targetPort"), node_port, protocol });
    }
    out
}

fn node_port_rules(report: &mut Report<'_>, node: &Node, kind: &str, node_port: u16) {
    if matches!(kind, "ClusterIP" | "ExternalName") {
        let message = format!("`nodePort` cannot be set with `type: {kind}`");
        report.error_at(codes::CONFLICT, node, "nodePort", message).hint = Some("write `type: NodePort`".to_owned());
    } else if !(30000..=32767).contains(&node_port) {
        let message = format!("`nodePort` is {node_port}, but must be 30000 to 32767");
        report.error_at(codes::OUT_OF_RANGE, node, "nodePort", message).hint =
            Some("for another port of the host use `hostPort` in the pod".to_owned());
    }
}
