//! Probes and lifecycle hooks.

use crate::codes;
use crate::node::{Node, Value};
use crate::pod::{Handler, PortRef, Probe};
use crate::schema::read;
use crate::schema::report::Report;
use crate::time::Millis;

use super::env::exactly_one;

/// A probe of a container. `which` is the field's name.
pub(super) fn probe(report: &mut Report<'_>, container: &Node, which: &str) -> Option<Probe> {
    let node = read::get(container, which).filter(|node| node.as_map().is_some())?;
    let kind = exactly_one(report, node, &["exec", "httpGet", "tcpSocket", "grpc"], which)?;
    let inner = read::get(node, kind)?;
    // Zero stands for the default in these (core/v1 defaults).
    let seconds = |key| read::count64(node, key).filter(|n| *n > 0).map(Millis::from_secs);
    let number = |key| read::count(node, key).filter(|n| *n > 0);
    let success = number("successThreshold");
    if which != "readinessProbe" && success.is_some_and(|n| n != 1) {
        let message = format!("`successThreshold` of a {which} must be 1");
        report.error_at(codes::OUT_OF_RANGE, node, "successThreshold", message);
    }
    if which == "readinessProbe" && read::get(node, "terminationGracePeriodSeconds").is_some() {
        let message = "`terminationGracePeriodSeconds` has no place in a readinessProbe, which never ends a container";
        report.error_at(codes::CONFLICT, node, "terminationGracePeriodSeconds", message);
    }
    Some(Probe {
        handler: handler(kind, inner)?,
        initial_delay: seconds("initialDelaySeconds"),
        period: seconds("periodSeconds"),
        timeout: seconds("timeoutSeconds"),
        success_threshold: success,
        failure_threshold: number("failureThreshold"),
        termination_grace: seconds("terminationGracePeriodSeconds"),
        start_period: None,
        start_interval: None,
    })
}

/// Hooks of a container: `postStart` or `preStop`.
pub(super) fn hooks(report: &mut Report<'_>, container: &Node, which: &str, grace: Option<u64>) -> Vec<Handler> {
    let Some(node) = read::dig(container, &["lifecycle", which]).filter(|node| node.as_map().is_some()) else {
        return Vec::new();
    };
    if read::get(node, "tcpSocket").is_some() {
        return Vec::new();
    }
    let Some(kind) = exactly_one(report, node, &["exec", "httpGet", "sleep"], which) else { return Vec::new() };
    let Some(inner) = read::get(node, kind) else { return Vec::new() };
    if kind == "sleep"
        && let Some(seconds) = read::count64(inner, "seconds")
        && seconds > grace.unwrap_or(30)
    {
        let message = format!("a sleep of {seconds} s is longer than the grace period of {} s", grace.unwrap_or(30));
        report.error_at(codes::OUT_OF_RANGE, inner, "seconds", message).hint =
            Some("raise `terminationGracePeriodSeconds`".to_owned());
    }
    handler(kind, inner).into_iter().collect()
}

fn handler(kind: &str, inner: &Node) -> Option<Handler> {
    Some(match kind {
        "exec" => Handler::Exec(read::strings(inner, "command")),
        "httpGet" => Handler::Http {
            path: read::string(inner, "path").unwrap_or_else(|| "/".to_owned()),
            port: port(inner, "port")?,
            host: read::string(inner, "host"),
            https: read::text(inner, "scheme") == Some("HTTPS"),
            headers: read::list(inner, "httpHeaders")
                .iter()
                .map(|h| (read::string(h, "name").unwrap_or_default(), read::string(h, "value").unwrap_or_default()))
                .collect(),
        },
        "tcpSocket" => Handler::Tcp { port: port(inner, "port")?, host: read::string(inner, "host") },
        "grpc" => Handler::Grpc {
            port: read::int(inner, "port").and_then(|p| u16::try_from(p).ok())?,
            service: read::string(inner, "service"),
        },
        _ => Handler::Sleep(Millis::from_secs(read::count64(inner, "seconds")?)),
    })
}

/// A port by number or name.
pub(super) fn port(node: &Node, key: &str) -> Option<PortRef> {
    match &read::get(node, key)?.value {
        Value::String(name, _) => Some(PortRef::Name(name.clone())),
        _ => read::int(node, key).and_then(|p| u16::try_from(p).ok()).map(PortRef::Number),
    }
}

/// Ports by name that no container port has: the probe could never succeed.
pub(super) fn check_port_names(report: &mut Report<'_>, container: &Node) {
    let names: Vec<&str> = read::list(container, "ports").iter().filter_map(|p| read::text(p, "name")).collect();
    let steps: [&[&str]; 8] = [
        &["livenessProbe", "httpGet"],
        &["livenessProbe", "tcpSocket"],
        &["readinessProbe", "httpGet"],
        &["readinessProbe", "tcpSocket"],
        &["startupProbe", "httpGet"],
        &["startupProbe", "tcpSocket"],
        &["lifecycle", "postStart", "httpGet"],
        &["lifecycle", "preStop", "httpGet"],
    ];
    for steps in steps {
        if let Some(at) = read::dig(container, steps).and_then(|node| read::get(node, "port"))
            && let Some(name) = at.as_str()
            && crate::schema::format::port_name(name).is_none()
            && !names.contains(&name)
        {
            // Kubernetes accepts this and the probe fails for ever.
            report.warn(codes::BAD_REFERENCE, at, format!("the container has no port named `{name}`")).hint =
                crate::schema::check::suggest(name, names.iter().copied()).map(|n| format!("did you mean `{n}`?"));
        }
    }
}
