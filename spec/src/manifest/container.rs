//! Containers of a pod.

use crate::codes;
use crate::node::Node;
use crate::pod::{ContainerSpec, Port, Propagation, Protocol, RestartPolicy, VolumeMount};
use crate::schema::check::{quoted, suggest};
use crate::schema::read;
use crate::schema::report::Report;

use super::{At, PodRefs, env, probe, resources, security, volume};

/// What of the pod matters to its containers.
pub(super) struct Around<'a> {
    pub(super) security: Option<&'a Node>,
    pub(super) volumes: Vec<&'a str>,
    pub(super) grace: Option<u64>,
    pub(super) host_network: bool,
    pub(super) os_named: bool,
    pub(super) host_users: bool,
}

/// One container.
pub(super) fn read(
    report: &mut Report<'_>,
    node: &Node,
    init: bool,
    around: &Around<'_>,
    refs: &mut PodRefs,
) -> ContainerSpec {
    let restart_policy = restart_policy(read::text(node, "restartPolicy"));
    let sidecar = init && restart_policy == Some(RestartPolicy::Always);
    if init && !sidecar {
        for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            if read::get(node, field).is_some_and(|value| value.as_map().is_none_or(|map| !map.is_empty())) {
                let message = format!("an init container takes no `{field}`, for it runs to its end");
                report.error_at(codes::CONFLICT, node, field, message).hint =
                    Some("a sidecar has `restartPolicy: Always`".to_owned());
            }
        }
    }
    let raw_env = env::read(report, node);
    let index = refs.env.len();
    let security = security::container(report, node, around.security);
    if security.unmasked_proc && around.host_users {
        let at = read::get(node, "securityContext").unwrap_or(node);
        let message = "`procMount: Unmasked` needs a user namespace";
        report.error_at(codes::CONFLICT, at, "procMount", message).hint =
            Some("set `hostUsers: false` on the pod".to_owned());
    }
    let (resources, cdi_devices) = resources::with_devices(report, node);
    let command = read::get(node, "command").map(|_| read::strings(node, "command")).filter(|c| !c.is_empty());
    let args = read::get(node, "args").map(|_| read::strings(node, "args")).filter(|a| !a.is_empty());
    let out = ContainerSpec {
        name: read::string(node, "name").unwrap_or_default(),
        image: read::get(node, "image").and_then(|at| volume::image(report, at)),
        pull_policy: volume::pull_policy(node, "imagePullPolicy"),
        command,
        args,
        expand_args: true,
        working_dir: read::string(node, "workingDir"),
        env: plain_env(&raw_env),
        ports: ports(report, node, around, index, refs),
        mounts: mounts(report, node, around, security.privileged),
        resources,
        cdi_devices,
        security,
        stdin: read::boolean(node, "stdin").unwrap_or(false),
        stdin_once: read::boolean(node, "stdinOnce").unwrap_or(false),
        tty: read::boolean(node, "tty").unwrap_or(false),
        stop_signal: stop_signal(report, node, around),
        liveness: probe::probe(report, node, "livenessProbe"),
        readiness: probe::probe(report, node, "readinessProbe"),
        startup: probe::probe(report, node, "startupProbe"),
        post_start: probe::hooks(report, node, "postStart", around.grace),
        pre_stop: probe::hooks(report, node, "preStop", around.grace),
        restart_policy,
        termination_message_path: read::string(node, "terminationMessagePath"),
        termination_message_from_log: read::text(node, "terminationMessagePolicy") == Some("FallbackToLogsOnError"),
        ..ContainerSpec::default()
    };
    probe::check_port_names(report, node);
    refs.env.push(raw_env);
    out
}

fn plain_env(raw: &[env::RawEnv]) -> Vec<crate::pod::EnvVar> {
    raw.iter()
        .filter_map(|raw| match raw {
            env::RawEnv::Var(variable) => Some(variable.clone()),
            _ => None,
        })
        .collect()
}

/// A restart policy by its word.
pub(super) fn restart_policy(word: Option<&str>) -> Option<RestartPolicy> {
    Some(match word? {
        "Always" => RestartPolicy::Always,
        "OnFailure" => RestartPolicy::OnFailure,
        "Never" => RestartPolicy::Never,
        _ => return None,
    })
}

/// `lifecycle.stopSignal`: a signal of Linux, and only with `spec.os.name` (core/v1 validation).
fn stop_signal(report: &mut Report<'_>, node: &Node, around: &Around<'_>) -> Option<String> {
    let at = read::dig(node, &["lifecycle", "stopSignal"])?;
    let signal = at.as_str()?;
    let name = signal.strip_prefix("SIG").unwrap_or_default();
    let real_time = name.strip_prefix("RTMIN").or_else(|| name.strip_prefix("RTMAX")).is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix(['+', '-']).is_some_and(|n| n.parse::<u8>().is_ok_and(|n| n <= 15))
    });
    let known = "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS \
                 TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ";
    if !real_time && !known.split_whitespace().any(|known| known == name) {
        let names = known.split_whitespace().map(|name| format!("SIG{name}")).collect::<Vec<_>>();
        report.error(codes::BAD_VALUE, at, format!("{} is not a signal", quoted(signal))).hint =
            suggest(signal, names.iter().map(String::as_str)).map(|name| format!("did you mean `{name}`?"));
    } else if !around.os_named {
        let hint = "add `os: {name: linux}` to the pod's spec";
        report.error(codes::CONFLICT, at, "`stopSignal` needs `spec.os.name`").hint = Some(hint.to_owned());
    }
    Some(signal.to_owned())
}

fn ports(report: &mut Report<'_>, node: &Node, around: &Around<'_>, index: usize, refs: &mut PodRefs) -> Vec<Port> {
    let mut out: Vec<Port> = Vec::new();
    for item in read::list(node, "ports") {
        let number = |key| read::int(item, key).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        let Some(container_port) = number("containerPort") else { continue };
        let port = Port {
            name: read::string(item, "name"),
            container_port,
            host_port: number("hostPort"),
            host_ip: read::text(item, "hostIP").and_then(|ip| ip.parse().ok()),
            protocol: protocol(item),
        };
        if around.host_network && port.host_port.is_some_and(|host| host != container_port) {
            let message = "with `hostNetwork: true` `hostPort` must be the same as `containerPort`";
            report.error_at(codes::CONFLICT, item, "hostPort", message);
        }
        if let Some(name) = &port.name
            && out.iter().any(|other| other.name.as_ref() == Some(name))
        {
            let message = format!("there are two ports named {}", quoted(name));
            report.error_at(codes::DUPLICATE_ENTRY, item, "name", message);
        }
        if out.iter().any(|other| {
            other.container_port == container_port
                && other.protocol == port.protocol
                && other.host_port == port.host_port
        }) {
            report.warn_at(
                codes::DUPLICATE_ENTRY,
                item,
                "containerPort",
                format!("port {container_port} is listed twice"),
            );
        }
        if port.host_port.is_some() || around.host_network {
            let key = if port.host_port.is_some() { "hostPort" } else { "containerPort" };
            let at = At::of(report, read::get(item, key).unwrap_or(item));
            refs.host_ports.push((index, out.len(), at));
        }
        out.push(port);
    }
    out
}

/// `protocol` of a port.
pub(super) fn protocol(node: &Node) -> Protocol {
    match read::text(node, "protocol") {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

fn mounts(report: &mut Report<'_>, node: &Node, around: &Around<'_>, privileged: bool) -> Vec<VolumeMount> {
    let mut out: Vec<VolumeMount> = Vec::new();
    for item in read::list(node, "volumeMounts") {
        let (Some(volume), Some(path)) = (read::string(item, "name"), read::string(item, "mountPath")) else {
            continue;
        };
        if !around.volumes.contains(&volume.as_str()) {
            let hint = suggest(&volume, around.volumes.iter().copied());
            let message = format!("the pod has no volume named {}", quoted(&volume));
            let at = read::get(item, "name").unwrap_or(item);
            report.error(codes::BAD_REFERENCE, at, message).hint = Some(match hint {
                Some(name) => format!("did you mean `{name}`?"),
                None => "add it to `volumes` of the pod".to_owned(),
            });
        }
        if out.iter().any(|mount| mount.path == path) {
            let message = format!("two volumes are mounted at {}", quoted(&path));
            report.error_at(codes::DUPLICATE_ENTRY, item, "mountPath", message);
        }
        let plain = sub_path(report, item, "subPath");
        let expression = sub_path(report, item, "subPathExpr");
        if plain.is_some() && expression.is_some() {
            let message = "`subPath` and `subPathExpr` cannot both be set";
            report.error_at(codes::EXACTLY_ONE, item, "subPathExpr", message);
        }
        let propagation = match read::text(item, "mountPropagation") {
            Some("HostToContainer") => Some(Propagation::HostToContainer),
            Some("Bidirectional") => Some(Propagation::Bidirectional),
            Some("None") => Some(Propagation::Private),
            _ => None,
        };
        if propagation == Some(Propagation::Bidirectional) && !privileged {
            let message = "`mountPropagation: Bidirectional` needs a privileged container";
            report.error_at(codes::CONFLICT, item, "mountPropagation", message);
        }
        let read_only = read::boolean(item, "readOnly").unwrap_or(false);
        let recursive = read::text(item, "recursiveReadOnly").is_some_and(|word| word != "Disabled");
        if recursive && (!read_only || propagation.is_some_and(|p| p != Propagation::Private)) {
            let message = "`recursiveReadOnly` needs `readOnly: true` and no mount propagation";
            report.error_at(codes::CONFLICT, item, "recursiveReadOnly", message);
        }
        // Container runtimes take a relative path from the root.
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        out.push(VolumeMount {
            volume,
            path,
            read_only,
            recursive_read_only: recursive,
            sub_path_expr: expression.is_some(),
            sub_path: expression.or(plain),
            propagation,
            copy_up: false,
        });
    }
    out
}

fn sub_path(report: &mut Report<'_>, item: &Node, key: &str) -> Option<String> {
    let path = read::string(item, key)?;
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        let message = format!("`{key}`: {} must be relative and without `..`", quoted(&path));
        report.error_at(codes::BAD_VALUE, item, key, message);
    }
    Some(path)
}
