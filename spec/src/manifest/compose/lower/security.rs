//! User, capabilities, confinement, namespaces, limits of processes and devices.

use super::Lower;
use crate::codes;
use crate::manifest::compose::sink::{Hint, closest};
use crate::manifest::compose::tree::{Tree, Val, join_key};
use crate::manifest::compose::units;
use crate::pod::{ContainerSpec, Device, DnsConfig, HostAlias, PodSpec, Seccomp, Ulimit, is_built_in_runtime};

impl Lower<'_, '_> {
    pub(super) fn security(&mut self, tree: &Tree, path: &str, spec: &mut PodSpec, container: &mut ContainerSpec) {
        container.security.user = tree.text_of("user").map(str::to_owned);
        container.security.group_add = tree.strings_of("group_add").into_iter().map(|(group, _)| group).collect();
        container.security.privileged = tree.bool_of("privileged").unwrap_or(false);
        container.security.read_only_root = tree.bool_of("read_only").unwrap_or(false);
        container.security.cap_add = self.capabilities(tree, path, "cap_add");
        container.security.cap_drop = self.capabilities(tree, path, "cap_drop");
        container.security.host_cgroup_namespace = tree.text_of("cgroup") == Some("host");
        for (item, path) in tree.items_of("security_opt", path) {
            self.security_option(item, &path, container);
        }
        self.namespaces(tree, path, spec);
        self.ulimits(tree, path, container);
        for (item, path) in tree.items_of("devices", path) {
            self.device(item, &path, container);
        }
        spec.dns = DnsConfig {
            policy: None,
            nameservers: self.name_servers(tree, path),
            searches: tree.strings_of("dns_search").into_iter().map(|(domain, _)| domain).collect(),
            options: tree.strings_of("dns_opt").into_iter().map(|(option, _)| option).collect(),
        };
        self.extra_hosts(tree, path, spec);
        match tree.text_of("runtime") {
            None => {}
            // What that runtime does for a container is what the CDI files of its toolkit say.
            Some("nvidia") => container.cdi_devices.push("nvidia.com/gpu=all".to_owned()),
            Some(name) => {
                spec.runtime_class = Some(name.to_owned());
                if let Some(at) = tree.get("runtime").filter(|_| !is_built_in_runtime(name)) {
                    let message =
                        format!("the service runs only where the agent's configuration has a runtime `{name}`");
                    self.sink()
                        .warn(codes::NAMED_RUNTIME, at, &join_key(path, "runtime"), message)
                        .help(format!("name its program in `[runtimes.{name}]`, or leave the field out"));
                }
            }
        }
        if let Some(isolation) = tree.text_of("isolation").filter(|isolation| *isolation != "default")
            && let Some(at) = tree.get("isolation")
        {
            let message = format!("the isolation `{isolation}` exists on Windows only");
            self.sink().error(codes::REJECTED_WINDOWS, at, &join_key(path, "isolation"), message);
        }
    }

    fn capabilities(&mut self, tree: &Tree, path: &str, key: &str) -> Vec<String> {
        let mut names = Vec::new();
        for (item, path) in tree.items_of(key, path) {
            let Some(text) = item.str() else { continue };
            let upper = text.to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if name == "ALL" || crate::capability::NAMES.contains(&name) {
                names.push(name.to_owned());
                continue;
            }
            if item.unset && text.is_empty() {
                continue;
            }
            let near = closest(name, crate::capability::NAMES);
            let found = self.sink().error(codes::BAD_VALUE, item, &path, format!("`{text}` is not a capability"));
            if let Some(near) = near {
                found.help(format!("did you mean `{near}`?"));
            }
        }
        names
    }

    fn security_option(&mut self, item: &Tree, path: &str, container: &mut ContainerSpec) {
        let Some(text) = item.str() else { return };
        let (name, value) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
        let security = &mut container.security;
        match (name, value) {
            ("no-new-privileges", "") => security.allow_privilege_escalation = Some(false),
            ("no-new-privileges", value) if units::boolean(value).is_some() => {
                security.allow_privilege_escalation = units::boolean(value).map(|on| !on);
            }
            ("seccomp", "unconfined") => security.seccomp = Some(Seccomp::Unconfined),
            ("seccomp", "builtin" | "default") => security.seccomp = Some(Seccomp::RuntimeDefault),
            ("seccomp", profile) if !profile.is_empty() => {
                let path = self.host_path(item, profile);
                container.security.seccomp = Some(Seccomp::Localhost(path));
            }
            ("apparmor", profile) if !profile.is_empty() => security.apparmor = Some(profile.to_owned()),
            ("systempaths", "unconfined") => security.unmasked_proc = true,
            ("label", _) => {
                self.sink().warn(codes::NO_EFFECT, item, path, "SELinux labels are not set; `label` has no effect");
            }
            _ => {
                let message = format!("`{text}` is not a security option");
                self.sink()
                    .error(codes::BAD_VALUE, item, path, message)
                    .help("use no-new-privileges:true, seccomp=..., apparmor=... or systempaths=unconfined");
            }
        }
    }

    fn namespaces(&mut self, tree: &Tree, path: &str, spec: &mut PodSpec) {
        for (key, own) in [("ipc", &["", "private", "shareable", "none"][..]), ("pid", &[""]), ("userns_mode", &[""])] {
            let Some(at) = tree.get(key) else { continue };
            let Some(text) = at.str() else { continue };
            match (text, key) {
                ("host", "ipc") => spec.host_ipc = true,
                ("host", "pid") => spec.host_pid = true,
                ("host", _) => spec.host_users = Some(true),
                _ if own.contains(&text) => {}
                _ => {
                    let message = format!("`{key}: {text}` is not supported");
                    self.sink()
                        .error(codes::REJECTED_FIELD, at, &join_key(path, key), message)
                        .help(format!("use `{key}: host`, or leave it out"));
                }
            }
        }
    }

    fn ulimits(&mut self, tree: &Tree, path: &str, container: &mut ContainerSpec) {
        let path = join_key(path, "ulimits");
        for (name, item) in tree.get("ulimits").and_then(Tree::map).into_iter().flatten() {
            let at = join_key(&path, name);
            if !ULIMITS.contains(&name.as_str()) {
                if name.starts_with("x-") {
                    continue;
                }
                let near = closest(name, ULIMITS);
                let found = self.sink().error_at(codes::BAD_VALUE, item.key, &at, format!("`{name}` is not a limit"));
                if let Some(near) = near {
                    found.help(format!("did you mean `{near}`?"));
                }
                continue;
            }
            let limit = match &item.tree.val {
                Val::Map(_) => (item.tree.int_of("soft"), item.tree.int_of("hard")),
                _ => (item.tree.integer(), item.tree.integer()),
            };
            let (Some(soft), Some(hard)) = limit else { continue };
            if hard != -1 && (soft > hard || soft == -1) {
                let message = format!("the soft limit {soft} is above the hard limit {hard}");
                self.sink().error(codes::CONFLICT, &item.tree, &at, message);
                continue;
            }
            container.ulimits.insert(name.clone(), Ulimit { soft, hard });
        }
    }

    fn device(&mut self, item: &Tree, path: &str, container: &mut ContainerSpec) {
        let (source, target, permissions) = match &item.val {
            Val::Str(text) => {
                let mut parts = text.splitn(3, ':');
                let mut next = || parts.next().filter(|part| !part.is_empty()).map(str::to_owned);
                let (source, second, third) = (next(), next(), next());
                match (second, third) {
                    (Some(second), None) if second.chars().all(|c| "rwm".contains(c)) => (source, None, Some(second)),
                    (second, third) => (source, second, third),
                }
            }
            Val::Map(_) => {
                let text = |key: &str| item.text_of(key).map(str::to_owned);
                (text("source"), text("target"), text("permissions"))
            }
            _ => return,
        };
        let Some(source) = source else {
            if !item.unset {
                self.sink().error(codes::BAD_VALUE, item, path, "the device is missing");
            }
            return;
        };
        // CDI: vendor.com/class=name
        if !source.starts_with('/') && source.contains('/') && source.contains('=') {
            container.cdi_devices.push(source);
            return;
        }
        if !source.starts_with('/') {
            let message = format!("`{source}` is neither an absolute path nor a CDI device");
            self.sink().error(codes::BAD_VALUE, item, path, message).help("write it like /dev/ttyUSB0:/dev/ttyUSB0");
            return;
        }
        if let Some(bad) = permissions.as_ref().filter(|p| !p.chars().all(|c| "rwm".contains(c))) {
            let message = format!("`{bad}` are not permissions of a device");
            self.sink().error(codes::BAD_VALUE, item, path, message).help("use letters of `rwm`");
            return;
        }
        let container_path = target.unwrap_or_else(|| source.clone());
        container.devices.push(Device { host_path: source, container_path, permissions });
    }

    fn name_servers(&mut self, tree: &Tree, path: &str) -> Vec<String> {
        let mut servers = Vec::new();
        for (server, place) in tree.strings_of("dns") {
            if server.parse::<std::net::IpAddr>().is_ok() {
                servers.push(server);
            } else if !server.is_empty() {
                let message = format!("`{server}` is not an IP address");
                self.sink().error_at(codes::BAD_VALUE, place, &join_key(path, "dns"), message);
            }
        }
        servers
    }

    fn extra_hosts(&mut self, tree: &Tree, path: &str, spec: &mut PodSpec) {
        let path = join_key(path, "extra_hosts");
        let mut hosts: Vec<(String, String, Tree)> = Vec::new();
        match tree.get("extra_hosts").map(|t| &t.val) {
            Some(Val::Map(map)) => {
                for (name, item) in map {
                    match &item.tree.val {
                        Val::Seq(items) => {
                            hosts.extend(items.iter().filter_map(|ip| Some((name.clone(), ip.text()?, ip.clone()))));
                        }
                        _ => hosts.extend(item.tree.text().map(|ip| (name.clone(), ip, item.tree.clone()))),
                    }
                }
            }
            Some(Val::Seq(items)) => {
                for item in items {
                    let Some(text) = item.str() else { continue };
                    match text.split_once('=').or_else(|| text.split_once(':')) {
                        Some((name, ip)) if !name.is_empty() => {
                            hosts.push((name.to_owned(), ip.to_owned(), item.clone()))
                        }
                        _ => {
                            let message = format!("`{text}` is not `NAME:ADDRESS`");
                            self.sink().error(codes::BAD_VALUE, item, &path, message);
                        }
                    }
                }
            }
            _ => {}
        }
        for (name, written, at) in hosts {
            let ip = written.trim().trim_start_matches('[').trim_end_matches(']');
            if ip == "host-gateway" || ip.parse::<std::net::IpAddr>().is_ok() {
                match spec.host_aliases.iter_mut().find(|alias| alias.ip == ip) {
                    Some(alias) => alias.hostnames.push(name),
                    None => spec.host_aliases.push(HostAlias { ip: ip.to_owned(), hostnames: vec![name] }),
                }
            } else if !at.unset {
                let message = format!("`{ip}` is not an IP address");
                self.sink().error(codes::BAD_VALUE, &at, &path, message).help("write an address, or host-gateway");
            }
        }
    }
}

/// Names of docker/go-units.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
