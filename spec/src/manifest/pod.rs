//! Pod specifications.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codes;
use crate::node::{Node, Value};
use crate::pod::{ContainerSpec, DnsConfig, DnsPolicy, HostAlias, PodSpec, Port, RestartPolicy};
use crate::schema::check::quoted;
use crate::schema::report::Report;
use crate::schema::{format, read};
use crate::time::Millis;
use crate::workload::PodTemplate;

use super::container::{self, Around};
use super::{At, ObjectRef, PodRefs, metadata, resources, security, volume};

/// What a kind of workload demands of its pods.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Restart policies it allows.
    pub(super) restart: &'static [&'static str],
    /// Whether `activeDeadlineSeconds` may be set.
    pub(super) deadline: bool,
}

/// A template: labels, annotations and spec. `claims` are names of volumes that the workload adds.
pub(super) fn template(
    report: &mut Report<'_>,
    node: &Node,
    rules: Rules,
    claims: &[String],
    refs: &mut PodRefs,
) -> Option<PodTemplate> {
    let metadata = read::get(node, "metadata");
    let labels = metadata.map(|m| read::text_map(m, "labels")).unwrap_or_default();
    let annotations = metadata.map(|m| metadata::annotations(report, m)).unwrap_or_default();
    let spec = read::get(node, "spec").filter(|spec| spec.as_map().is_some())?;
    let spec = self::spec(report, spec, rules, claims, refs);
    Some(PodTemplate { labels, annotations, spec: Arc::new(spec), bound: BTreeMap::new() })
}

fn spec(report: &mut Report<'_>, node: &Node, rules: Rules, claims: &[String], refs: &mut PodRefs) -> PodSpec {
    if let Some(name) = read::text(node, "runtimeClassName").filter(|name| !crate::pod::is_built_in_runtime(name)) {
        let message = format!("the pod runs only where the agent's configuration has a runtime `{name}`");
        let warning = report.warn_at(codes::NAMED_RUNTIME, node, "runtimeClassName", message);
        warning.hint = Some(format!("name its program in `[runtimes.{name}]`, or leave the field out"));
    }
    let flag = |key| read::boolean(node, key).unwrap_or(false);
    let mut out = PodSpec {
        hostname: read::string(node, "hostnameOverride").or_else(|| read::string(node, "hostname")),
        subdomain: read::string(node, "subdomain"),
        hostname_as_fqdn: flag("setHostnameAsFQDN"),
        host_network: flag("hostNetwork"),
        host_pid: flag("hostPID"),
        host_ipc: flag("hostIPC"),
        host_users: read::boolean(node, "hostUsers"),
        share_process_namespace: flag("shareProcessNamespace"),
        runtime_class: read::string(node, "runtimeClassName"),
        restart_policy: container::restart_policy(read::text(node, "restartPolicy")),
        termination_grace: read::count64(node, "terminationGracePeriodSeconds").map(Millis::from_secs),
        active_deadline: read::count64(node, "activeDeadlineSeconds").map(Millis::from_secs),
        host_aliases: host_aliases(node),
        dns: dns(report, node),
        image_pull_secrets: read::list(node, "imagePullSecrets")
            .iter()
            .filter_map(|s| read::string(s, "name"))
            .collect(),
        node_selector: read::text_map(node, "nodeSelector"),
        resources: resources::read(report, node),
        ..PodSpec::default()
    };
    restart_rules(report, node, rules);
    operating_system(report, node);
    namespaces(report, node, &out);
    security::pod(report, node, &mut out);
    tolerations(report, node);
    for key in ["affinity", "topologySpreadConstraints"] {
        if let Some(inside) = read::get(node, key) {
            conditions(report, inside);
        }
    }
    for secret in read::list(node, "imagePullSecrets") {
        if let (Some(name), Some(at)) = (read::string(secret, "name"), read::get(secret, "name")) {
            let at = At::of(report, at);
            refs.objects.push(ObjectRef { secret: true, name, keys: Vec::new(), optional: false, lenient: true, at });
        }
    }
    refs.node_selector = read::get(node, "nodeSelector").map(|at| At::of(report, at));
    out.volumes = volume::read(report, node, refs);
    let names: Vec<String> = out.volumes.iter().map(|v| v.name.clone()).chain(claims.iter().cloned()).collect();
    // A claim of the workload stands for a volume of the same name (apps/v1, StatefulSet).
    out.volumes.retain(|volume| !claims.contains(&volume.name));
    refs.claims.retain(|claim| !claims.contains(&claim.volume));
    let around = Around {
        security: read::get(node, "securityContext").filter(|s| s.as_map().is_some()),
        volumes: names.iter().map(String::as_str).collect(),
        grace: read::count64(node, "terminationGracePeriodSeconds"),
        host_network: out.host_network,
        os_named: read::dig(node, &["os", "name"]).is_some(),
        host_users: out.host_users != Some(false),
    };
    let mut seen: BTreeMap<String, ()> = BTreeMap::new();
    for (key, init) in [("initContainers", true), ("containers", false)] {
        for item in read::list(node, key).iter().filter(|item| item.as_map().is_some()) {
            let container = container::read(report, item, init, &around, refs);
            if !container.name.is_empty() && seen.insert(container.name.clone(), ()).is_some() {
                let message = format!("there are two containers named {}", quoted(&container.name));
                report.error_at(codes::DUPLICATE_ENTRY, item, "name", message);
            }
            if init { out.init_containers.push(container) } else { out.containers.push(container) }
        }
    }
    claims_read_only(node, &mut out);
    host_ports(report, &out, refs);
    out
}

fn restart_rules(report: &mut Report<'_>, node: &Node, rules: Rules) {
    let word = read::text(node, "restartPolicy");
    let known = ["Always", "OnFailure", "Never"];
    let effective = word.unwrap_or("Always");
    if known.contains(&effective) && !rules.restart.contains(&effective) {
        let allowed = rules.restart.iter().map(|r| format!("`{r}`")).collect::<Vec<_>>().join(" or ");
        let message = match word {
            Some(word) => format!("`restartPolicy` cannot be `{word}` here; it must be {allowed}"),
            None => format!("`restartPolicy` is missing; it must be {allowed}"),
        };
        let code = if word.is_some() { codes::BAD_VALUE } else { codes::MISSING_FIELD };
        report.error_at(code, node, "restartPolicy", message);
    }
    if !rules.deadline && read::get(node, "activeDeadlineSeconds").is_some() {
        let message = "`activeDeadlineSeconds` cannot be set in pods that are to run for ever";
        report.error_at(codes::CONFLICT, node, "activeDeadlineSeconds", message);
    }
}

fn operating_system(report: &mut Report<'_>, node: &Node) {
    let windows = "the pod is meant for Windows; only Linux is supported";
    if let Some(at) = read::dig(node, &["os", "name"])
        && at.as_str() == Some("windows")
    {
        report.error(codes::REJECTED_WINDOWS, at, windows);
    }
    let terms = ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    for term in read::dig(node, &terms).map(|n| read::list(n, "nodeSelectorTerms")).unwrap_or_default() {
        for condition in read::list(term, "matchExpressions") {
            let os = matches!(read::text(condition, "key"), Some("kubernetes.io/os" | "beta.kubernetes.io/os"));
            let values = read::strings(condition, "values");
            if os && read::text(condition, "operator") == Some("In") && values.iter().all(|os| os == "windows") {
                report.error(codes::REJECTED_WINDOWS, condition, windows);
            }
        }
    }
    for key in ["kubernetes.io/os", "beta.kubernetes.io/os"] {
        if let Some(at) = read::dig(node, &["nodeSelector", key])
            && at.as_str().is_some_and(|os| os.eq_ignore_ascii_case("windows"))
        {
            report.error(codes::REJECTED_WINDOWS, at, windows);
        }
    }
}

fn namespaces(report: &mut Report<'_>, node: &Node, spec: &PodSpec) {
    if spec.host_pid && spec.share_process_namespace {
        let message = "`shareProcessNamespace` and `hostPID` cannot both be true";
        report.error_at(codes::CONFLICT, node, "shareProcessNamespace", message);
    }
    if spec.host_users == Some(false) {
        for (set, field) in [(spec.host_network, "hostNetwork"), (spec.host_pid, "hostPID"), (spec.host_ipc, "hostIPC")]
        {
            if set {
                let message = format!("`{field}: true` contradicts `hostUsers: false`");
                report.error_at(codes::CONFLICT, node, field, message);
            }
        }
    }
    if spec.hostname_as_fqdn && read::get(node, "hostnameOverride").is_some() {
        let message = "`setHostnameAsFQDN` and `hostnameOverride` cannot both be set";
        report.error_at(codes::CONFLICT, node, "setHostnameAsFQDN", message);
    }
}

/// Rules of tolerations (core/v1 validation), though they have no effect.
fn tolerations(report: &mut Report<'_>, node: &Node) {
    for item in read::list(node, "tolerations") {
        let operator = read::text(item, "operator").unwrap_or("Equal");
        if operator == "Exists" && read::text(item, "value").is_some() {
            report.error_at(codes::CONFLICT, item, "value", "`operator: Exists` takes no `value`");
        }
        if read::text(item, "key").is_none() && operator != "Exists" {
            report.error_at(codes::CONFLICT, item, "operator", "without a `key` `operator` must be `Exists`");
        }
        if operator == "Equal"
            && let Some(value) = read::get(item, "value")
            && let Some(fault) = value.as_str().and_then(format::label_value)
        {
            report.error(codes::BAD_NAME, value, format!("`value`: {} {fault}", quoted(value.as_str().unwrap_or(""))));
        }
        let effect = read::text(item, "effect");
        if read::get(item, "tolerationSeconds").is_some() && effect != Some("NoExecute") {
            let message = "`tolerationSeconds` goes with `effect: NoExecute` only";
            report.error_at(codes::CONFLICT, item, "tolerationSeconds", message);
        }
    }
}

/// Rules of the selectors in affinity and spread, though they have no effect.
fn conditions(report: &mut Report<'_>, node: &Node) {
    match &node.value {
        Value::Map(map) => {
            super::selector::expressions(report, node);
            map.values().for_each(|entry| conditions(report, &entry.node));
        }
        Value::Seq(items) => items.iter().for_each(|item| conditions(report, item)),
        _ => {}
    }
}

fn host_aliases(node: &Node) -> Vec<HostAlias> {
    read::list(node, "hostAliases")
        .iter()
        .filter_map(|alias| {
            Some(HostAlias { ip: read::string(alias, "ip")?, hostnames: read::strings(alias, "hostnames") })
        })
        .collect()
}

fn dns(report: &mut Report<'_>, node: &Node) -> DnsConfig {
    let policy = match read::text(node, "dnsPolicy") {
        Some("ClusterFirst") => Some(DnsPolicy::ClusterFirst),
        Some("ClusterFirstWithHostNet") => Some(DnsPolicy::ClusterFirstWithHostNet),
        Some("Default") => Some(DnsPolicy::Default),
        Some("None") => Some(DnsPolicy::None),
        _ => None,
    };
    let config = read::get(node, "dnsConfig");
    let nameservers = config.map(|c| read::strings(c, "nameservers")).unwrap_or_default();
    let searches = config.map(|c| read::strings(c, "searches")).unwrap_or_default();
    if policy == Some(DnsPolicy::None) && nameservers.is_empty() {
        let message = "`dnsPolicy: None` needs `dnsConfig.nameservers`";
        report.error_at(codes::MISSING_FIELD, config.unwrap_or(node), "nameservers", message);
    }
    if let Some(config) = config {
        if nameservers.len() > 3 {
            report.error_at(codes::OUT_OF_RANGE, config, "nameservers", "at most 3 `nameservers` are allowed");
        }
        let bytes: usize = searches.iter().map(|search| search.len() + 1).sum();
        if searches.len() > 32 || bytes > 2049 {
            let message = "at most 32 `searches` and 2048 characters are allowed";
            report.error_at(codes::OUT_OF_RANGE, config, "searches", message);
        }
        for item in read::list(config, "searches") {
            let name = item.as_str().unwrap_or_default();
            let plain = name.strip_suffix('.').unwrap_or(name).replace('_', "x");
            if name != "."
                && let Some(fault) = format::dns_subdomain(&plain)
            {
                report.error(codes::BAD_NAME, item, format!("the search domain {} {fault}", quoted(name)));
            }
        }
    }
    let options = config.map(|c| read::list(c, "options")).unwrap_or_default();
    let options = options
        .iter()
        .filter_map(|option| {
            let name = read::text(option, "name")?;
            Some(read::text(option, "value").map_or_else(|| name.to_owned(), |value| format!("{name}:{value}")))
        })
        .collect();
    DnsConfig { policy, nameservers, searches, options }
}

/// `readOnly` of a claim makes each of its mounts read-only.
fn claims_read_only(node: &Node, spec: &mut PodSpec) {
    for volume in read::list(node, "volumes") {
        let read_only = read::get(volume, "persistentVolumeClaim").and_then(|c| read::boolean(c, "readOnly"));
        let Some(name) = read::text(volume, "name").filter(|_| read_only == Some(true)) else { continue };
        let all: [&mut Vec<ContainerSpec>; 2] = [&mut spec.init_containers, &mut spec.containers];
        for mount in all.into_iter().flatten().flat_map(|c| &mut c.mounts).filter(|mount| mount.volume == name) {
            mount.read_only = true;
        }
    }
}

/// One pod cannot publish the same port of the host twice (core/v1 validation, checkHostPortConflicts).
fn host_ports(report: &mut Report<'_>, spec: &PodSpec, refs: &PodRefs) {
    let containers: Vec<&ContainerSpec> = spec.all_containers().collect();
    let port = |(container, port, _): &(usize, usize, At)| containers.get(*container)?.ports.get(*port);
    // In the host's network a port of a container is one of the host (core/v1 defaults, defaultHostNetworkPorts).
    let number = |port: &Port| port.host_port.unwrap_or(port.container_port);
    for (i, entry) in refs.host_ports.iter().enumerate() {
        let Some(this) = port(entry) else { continue };
        let twin = refs.host_ports.iter().take(i).find(|other| {
            port(other).is_some_and(|other| {
                (number(other), other.protocol, other.host_ip) == (number(this), this.protocol, this.host_ip)
            })
        });
        if twin.is_some() {
            let at = report.root.nearest(&entry.2.path);
            let (number, protocol) = (number(this), this.protocol);
            report.error(codes::DUPLICATE_ENTRY, at, format!("port {number}/{protocol} of the host is used twice"));
        }
    }
}

/// The restart policy that a Job's pods have.
pub(super) fn never(spec: &PodSpec) -> bool {
    spec.restart_policy() == RestartPolicy::Never
}
