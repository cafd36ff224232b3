//! Users, capabilities and confinement.

use std::collections::BTreeMap;

use crate::codes;
use crate::node::Node;
use crate::pod::{PodSpec, Seccomp, Security};
use crate::schema::check::{quoted, suggest};
use crate::schema::read;
use crate::schema::report::Report;

/// Capabilities of Linux 6.x (capabilities(7)), without `CAP_`.
const CAPABILITIES: &[&str] = &[
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// The security context of a container over that of its pod.
pub(super) fn container(report: &mut Report<'_>, container: &Node, pod: Option<&Node>) -> Security {
    let mut security = pod.map(|pod| shared(report, pod, false)).unwrap_or_default();
    let Some(node) = read::get(container, "securityContext").filter(|node| node.as_map().is_some()) else {
        return security;
    };
    let own = shared(report, node, true);
    security.run_as_user = own.run_as_user.or(security.run_as_user);
    security.run_as_group = own.run_as_group.or(security.run_as_group);
    security.run_as_non_root = own.run_as_non_root.or(security.run_as_non_root);
    security.seccomp = own.seccomp.or(security.seccomp);
    security.apparmor = own.apparmor.or(security.apparmor);
    security.privileged = read::boolean(node, "privileged").unwrap_or(false);
    security.read_only_root = read::boolean(node, "readOnlyRootFilesystem").unwrap_or(false);
    security.allow_privilege_escalation = read::boolean(node, "allowPrivilegeEscalation");
    security.unmasked_proc = read::text(node, "procMount") == Some("Unmasked");
    if let Some(capabilities) = read::get(node, "capabilities") {
        security.cap_add = self::capabilities(report, capabilities, "add");
        security.cap_drop = self::capabilities(report, capabilities, "drop");
    }
    if security.allow_privilege_escalation == Some(false) {
        let clash = if security.privileged {
            Some("`privileged: true`")
        } else if security.cap_add.iter().any(|cap| cap == "SYS_ADMIN") {
            Some("the capability SYS_ADMIN")
        } else {
            None
        };
        if let Some(clash) = clash {
            let message = format!("`allowPrivilegeEscalation: false` contradicts {clash}");
            report.error_at(codes::CONFLICT, node, "allowPrivilegeEscalation", message);
        }
    }
    security
}

/// What pods and containers have in common. Problems of the pod's are reported once, by [`pod`].
fn shared(report: &mut Report<'_>, node: &Node, check: bool) -> Security {
    let id = |key| read::count(node, key);
    Security {
        run_as_user: id("runAsUser"),
        run_as_group: id("runAsGroup"),
        run_as_non_root: read::boolean(node, "runAsNonRoot"),
        seccomp: seccomp(report, node, check),
        apparmor: apparmor(report, node, check),
        ..Security::default()
    }
}

fn seccomp(report: &mut Report<'_>, node: &Node, check: bool) -> Option<Seccomp> {
    let profile = read::get(node, "seccompProfile")?;
    let file = localhost(report, profile, check);
    Some(match read::text(profile, "type")? {
        "RuntimeDefault" => Seccomp::RuntimeDefault,
        "Unconfined" => Seccomp::Unconfined,
        "Localhost" => Seccomp::Localhost(file?),
        _ => return None,
    })
}

fn apparmor(report: &mut Report<'_>, node: &Node, check: bool) -> Option<String> {
    let profile = read::get(node, "appArmorProfile")?;
    let name = localhost(report, profile, check);
    Some(match read::text(profile, "type")? {
        "RuntimeDefault" => "runtime/default".to_owned(),
        "Unconfined" => "unconfined".to_owned(),
        "Localhost" => name?,
        _ => return None,
    })
}

/// `localhostProfile`, which goes with `type: Localhost` and nothing else.
fn localhost(report: &mut Report<'_>, profile: &Node, check: bool) -> Option<String> {
    let name = read::string(profile, "localhostProfile");
    let wanted = read::text(profile, "type") == Some("Localhost");
    if check && wanted && name.is_none() {
        let message = "`type: Localhost` needs `localhostProfile`";
        report.error_at(codes::MISSING_FIELD, profile, "localhostProfile", message);
    }
    if check && !wanted && name.is_some() {
        let message = "`localhostProfile` goes with `type: Localhost` only";
        report.error_at(codes::CONFLICT, profile, "localhostProfile", message);
    }
    if check && name.as_deref().is_some_and(|name| name.starts_with('/') || name.split('/').any(|part| part == "..")) {
        let message = "`localhostProfile` must be a relative path without `..`";
        report.error_at(codes::BAD_VALUE, profile, "localhostProfile", message);
    }
    name
}

fn capabilities(report: &mut Report<'_>, node: &Node, which: &str) -> Vec<String> {
    let mut out = Vec::new();
    for item in read::list(node, which) {
        let Some(written) = item.as_str() else { continue };
        let upper = written.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if CAPABILITIES.contains(&name) {
            out.push(name.to_owned());
        } else {
            report.error(codes::BAD_VALUE, item, format!("unknown capability {}", quoted(written))).hint =
                suggest(name, CAPABILITIES.iter().copied()).map(|name| format!("did you mean `{name}`?"));
        }
    }
    out
}

/// What the pod's security context sets for the pod as a whole.
pub(super) fn pod(report: &mut Report<'_>, spec: &Node, out: &mut PodSpec) {
    let Some(node) = read::get(spec, "securityContext").filter(|node| node.as_map().is_some()) else { return };
    shared(report, node, true);
    out.fs_group = read::count(node, "fsGroup");
    out.fs_group_on_root_mismatch = read::text(node, "fsGroupChangePolicy") == Some("OnRootMismatch");
    out.supplemental_groups = read::list(node, "supplementalGroups")
        .iter()
        .filter_map(|group| u32::try_from(read::as_int(group)?).ok())
        .collect();
    out.supplemental_groups_strict = read::text(node, "supplementalGroupsPolicy") == Some("Strict");
    out.sysctls = sysctls(report, node, out.host_network, out.host_ipc);
}

/// The namespace that a sysctl belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::manifest) enum SysctlOwner {
    /// Of the network.
    Network,
    /// Of shared memory, semaphores and message queues.
    Ipc,
}

/// Whose a sysctl is; `None` is the whole host's (Kubernetes, "Using sysctls in a Kubernetes Cluster").
pub(in crate::manifest) fn sysctl_owner(name: &str) -> Option<SysctlOwner> {
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    if name.starts_with("net.") {
        return Some(SysctlOwner::Network);
    }
    (ipc.iter().any(|start| name.starts_with(start)) || name == "kernel.sem").then_some(SysctlOwner::Ipc)
}

/// Sysctls: only those of a namespace, since the others would change the host (kubelet, pkg/kubelet/sysctl).
fn sysctls(report: &mut Report<'_>, node: &Node, host_network: bool, host_ipc: bool) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for item in read::list(node, "sysctls") {
        let (Some(written), Some(at)) = (read::text(item, "name"), read::get(item, "name")) else { continue };
        // Slashes may be written for dots, and then dots for slashes (sysctl.d(5)).
        let name = match written.find(['.', '/']).and_then(|i| written.get(i..=i)) {
            Some("/") => written
                .chars()
                .map(|c| {
                    if c == '/' {
                        '.'
                    } else if c == '.' {
                        '/'
                    } else {
                        c
                    }
                })
                .collect(),
            _ => written.to_owned(),
        };
        let segment =
            |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'/'));
        if !name.contains('.') || !name.split('.').all(segment) {
            report.error(codes::BAD_NAME, at, format!("{} is not the name of a sysctl", quoted(written)));
            continue;
        }
        let owner = sysctl_owner(&name);
        let (network, ipc) = (owner == Some(SysctlOwner::Network), owner == Some(SysctlOwner::Ipc));
        if owner.is_none() {
            let message = format!("the sysctl `{name}` belongs to the whole host, not to a pod");
            report.error(codes::BAD_VALUE, at, message).hint = Some("set it in /etc/sysctl.d of the host".to_owned());
        }
        if (network && host_network) || (ipc && host_ipc) {
            let field = if network { "hostNetwork" } else { "hostIPC" };
            report.error(
                codes::CONFLICT,
                at,
                format!("the sysctl `{name}` would change the host with `{field}: true`"),
            );
        }
        if out.insert(name, read::string(item, "value").unwrap_or_default()).is_some() {
            report.error(codes::DUPLICATE_ENTRY, at, format!("the sysctl {} is set twice", quoted(written)));
        }
    }
    out
}
