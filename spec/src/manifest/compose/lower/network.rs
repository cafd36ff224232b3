//! `ports`, `expose`, `networks`, `network_mode` and `links`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Lower;
use super::top::Mode;
use crate::codes;
use crate::diagnostic::Note;
use crate::manifest::compose::ports::{self, PortSpec};
use crate::manifest::compose::sink::Hint;
use crate::manifest::compose::tree::{Fields, Tree, Val, join_key};
use crate::pod::{ContainerSpec, NetworkAttachment, PodSpec, Port};
use crate::workload::Workload;

impl Lower<'_, '_> {
    pub(super) fn ports(&mut self, tree: &Tree, path: &str, container: &mut ContainerSpec) {
        for (item, path) in tree.items_of("ports", path) {
            let (spec, name) = match &item.val {
                Val::Map(_) => (self.long_port(item, &path), item.text_of("name").map(str::to_owned)),
                _ => match ports::parse(&item.text().unwrap_or_default()) {
                    Ok(spec) => (Some(spec), None),
                    Err(reason) => {
                        let text = item.text().unwrap_or_default();
                        let message = format!("`{text}` is not a port: {reason}");
                        let hint = if item.unset {
                            "a variable in it is not set; set it in `.env`"
                        } else {
                            "write it like 8080:80, 127.0.0.1:8080:80 or 53:53/udp"
                        };
                        self.sink().error(codes::BAD_VALUE, item, &path, message).help(hint);
                        (None, None)
                    }
                },
            };
            if let Some(spec) = spec {
                self.publish(&spec, name, item, &path, container);
            }
        }
        for (item, path) in tree.items_of("expose", path) {
            let text = item.text().unwrap_or_default();
            let (range, protocol) = text.split_once('/').unwrap_or((&text, ""));
            let parsed = ports::range(range).and_then(|range| Ok((range, ports::protocol(protocol)?)));
            match parsed {
                Ok(((first, last), protocol)) => {
                    for port in (first..=last).take(1000) {
                        let known = container.ports.iter().any(|p| p.container_port == port && p.protocol == protocol);
                        if !known {
                            container.ports.push(Port { container_port: port, protocol, ..Port::default() });
                        }
                    }
                }
                Err(_) if item.unset && text.is_empty() => {}
                Err(reason) => {
                    let message = format!("`{text}` is not a port: {reason}");
                    self.sink().error(codes::BAD_VALUE, item, &path, message).help("write it like 80 or 53/udp");
                }
            }
        }
    }

    fn long_port(&mut self, item: &Tree, path: &str) -> Option<PortSpec> {
        let failed = |this: &mut Self, key: &str, reason: String| {
            let at = item.get(key).unwrap_or(item);
            this.sink().error(codes::BAD_VALUE, at, &join_key(path, key), reason);
        };
        let target = item.get("target").and_then(Tree::text).unwrap_or_default();
        if target.is_empty() {
            self.sink().error(codes::MISSING_FIELD, item, path, "the field `target` is missing");
            return None;
        }
        let container = match ports::range(&target) {
            Ok(range) => range,
            Err(reason) => {
                failed(self, "target", reason);
                return None;
            }
        };
        let host = match item.get("published").and_then(Tree::text).filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => match ports::host_range(&text) {
                Ok(range) => Some(range),
                Err(reason) => {
                    failed(self, "published", reason);
                    return None;
                }
            },
        };
        let protocol = match ports::protocol(item.text_of("protocol").unwrap_or_default()) {
            Ok(protocol) => protocol,
            Err(reason) => {
                failed(self, "protocol", reason);
                return None;
            }
        };
        let ip = match item.text_of("host_ip").map(ports::address).transpose() {
            Ok(ip) => ip,
            Err(reason) => {
                failed(self, "host_ip", reason);
                return None;
            }
        };
        if let Some(mode) = item.text_of("mode")
            && !["host", "ingress"].contains(&mode)
        {
            let reason = format!("`{mode}` is not a mode of a port; there are host and ingress");
            failed(self, "mode", reason);
        }
        let spec = PortSpec { ip, host, container, protocol };
        if let Err(reason) = ports::check(&spec) {
            failed(self, "published", reason);
            return None;
        }
        Some(spec)
    }

    fn publish(&mut self, spec: &PortSpec, name: Option<String>, at: &Tree, path: &str, container: &mut ContainerSpec) {
        let (first, last) = spec.container;
        let host = match spec.host {
            Some((0, 0)) | None => {
                let message = format!("port {first} gets no port of the host, since none is written");
                self.sink()
                    .warn(codes::NO_EFFECT, at, path, message)
                    .help(format!("choose one: \"{first}:{first}\"; other services reach it anyway"));
                None
            }
            Some((from, to)) => {
                if first == last && to > from {
                    let message = format!("of the ports {from}-{to} of the host the first one is used");
                    self.sink().warn(codes::NO_EFFECT, at, path, message);
                }
                Some(from)
            }
        };
        for port in first..=last {
            let port = Port {
                name: name.clone().filter(|_| first == last),
                container_port: port,
                host_port: host.and_then(|host| host.checked_add(port - first)),
                host_ip: spec.ip,
                protocol: spec.protocol,
            };
            self.clash(&container.name, &port, at, path);
            container.ports.push(port);
        }
    }

    /// A port of the host is taken once.
    fn clash(&mut self, service: &str, port: &Port, at: &Tree, path: &str) {
        let Some(number) = port.host_port else { return };
        let any = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
        let taken = self.published.iter().find(|(_, other, _)| {
            other.host_port == Some(number)
                && other.protocol == port.protocol
                && (any(other.host_ip) || any(port.host_ip) || other.host_ip == port.host_ip)
        });
        let Some((other, first, place)) = taken.cloned() else {
            self.published.push((service.to_owned(), port.clone(), at.place));
            return;
        };
        if other == service && first.container_port == port.container_port {
            return;
        }
        let message = format!("port {number}/{} of the host is published twice", port.protocol);
        let (file, span) = (self.session.sink.name(place).to_owned(), Some(place.span));
        // What `extends` or an alias brought twice is written once; it may be meant for one service at a time.
        let found = if place == at.place {
            self.sink()
                .warn(codes::PORT_CLASH, at, path, message)
                .help("write `ports: !override` in one of the services")
        } else {
            self.sink().error(codes::PORT_CLASH, at, path, message).help("choose another port of the host")
        };
        found.notes.push(Note { file, span, message: format!("first published here, by the service `{other}`") });
    }

    pub(super) fn join_networks(&mut self, name: &str, tree: &Tree, path: &str, spec: &mut PodSpec) {
        let mode = tree.text_of("network_mode");
        let listed = tree.get("networks").filter(|networks| match &networks.val {
            Val::Seq(items) => !items.is_empty(),
            Val::Map(map) => !map.is_empty(),
            _ => false,
        });
        if let (Some(mode), Some(at)) = (mode, tree.get("network_mode")) {
            if listed.is_some() {
                let message = "`network_mode` and `networks` exclude each other";
                self.sink()
                    .error(codes::CONFLICT, at, &join_key(path, "network_mode"), message)
                    .help("remove one of the two");
            }
            self.network_mode(mode, at, &join_key(path, "network_mode"), tree, spec);
            return;
        }
        let mut aliases = vec![name.to_owned()];
        aliases.extend(tree.text_of("container_name").filter(|other| *other != name).map(str::to_owned));
        let path = join_key(path, "networks");
        let wanted: Vec<(String, Tree, Option<Tree>)> = match listed.map(|networks| &networks.val) {
            Some(Val::Seq(items)) => items.iter().filter_map(|item| Some((item.text()?, item.clone(), None))).collect(),
            Some(Val::Map(map)) => map
                .iter()
                .map(|(key, item)| {
                    (key.clone(), Tree { place: item.key, ..item.tree.clone() }, Some(item.tree.clone()))
                })
                .collect(),
            _ => vec![("default".to_owned(), tree.clone(), None)],
        };
        let mut joined = Vec::new();
        for (key, at, options) in wanted {
            let Some(network) = self.networks.get(&key).cloned() else {
                let known: Vec<String> = self.networks.keys().cloned().collect();
                self.undefined("network", &key, &at, &path, &known);
                continue;
            };
            match network.mode {
                Mode::Host => spec.host_network = true,
                Mode::None => spec.no_network = true,
                Mode::Bridge => {
                    self.used_networks.insert(key.clone());
                    let order = |key: &str| options.as_ref().and_then(|o| o.number_of(key)).unwrap_or(0.0);
                    let weight = (order("gw_priority"), order("priority"));
                    let path = join_key(&path, &key);
                    joined.push((weight, self.attachment(network.spec.name, &aliases, options.as_ref(), &path)));
                }
            }
        }
        joined.sort_by(|(a, _), (b, _)| b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal));
        spec.networks = joined.into_iter().map(|(_, attachment)| attachment).collect();
        if let Some(mac) = tree.get("mac_address")
            && let Some(mac) = self.mac(mac, &join_key(path.trim_end_matches(".networks"), "mac_address"))
            && let Some(first) = spec.networks.first_mut()
        {
            first.mac_address.get_or_insert(mac);
        }
    }

    fn mac(&mut self, at: &Tree, path: &str) -> Option<String> {
        let text = at.str().filter(|text| !text.is_empty())?;
        let parts: Vec<&str> = text.split([':', '-']).collect();
        let valid =
            parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
        if !valid {
            let message = format!("`{text}` is not a MAC address");
            self.sink().error(codes::BAD_VALUE, at, path, message).help("write it like 02:42:ac:11:00:02");
            return None;
        }
        Some(parts.join(":").to_ascii_lowercase())
    }

    fn attachment(
        &mut self,
        network: String,
        aliases: &[String],
        options: Option<&Tree>,
        path: &str,
    ) -> NetworkAttachment {
        let mut attachment = NetworkAttachment { network, aliases: aliases.to_vec(), ..NetworkAttachment::default() };
        let Some(options) = options else { return attachment };
        for (alias, _) in options.strings_of("aliases") {
            if !attachment.aliases.contains(&alias) {
                attachment.aliases.push(alias);
            }
        }
        attachment.ipv4_address = self.address(options, "ipv4_address", path);
        attachment.ipv6_address = self.address(options, "ipv6_address", path);
        attachment.mac_address =
            options.get("mac_address").and_then(|mac| self.mac(mac, &join_key(path, "mac_address")));
        attachment
    }

    fn address<T: std::str::FromStr>(&mut self, options: &Tree, key: &str, path: &str) -> Option<T> {
        let at = options.get(key)?;
        let text = at.str().filter(|text| !text.is_empty())?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let version = if key.starts_with("ipv4") { "IPv4" } else { "IPv6" };
            let message = format!("`{text}` is not an {version} address");
            self.sink().error(codes::BAD_VALUE, at, &join_key(path, key), message);
        }
        parsed
    }

    fn network_mode(&mut self, mode: &str, at: &Tree, path: &str, tree: &Tree, spec: &mut PodSpec) {
        match mode {
            "host" => spec.host_network = true,
            "none" => spec.no_network = true,
            // The pod's default network.
            "bridge" | "default" => {}
            _ if mode.starts_with("service:") => {
                let other = mode.trim_start_matches("service:");
                // Whether it exists and runs is told with the dependency that follows from it.
                spec.network_of = Some(other.to_owned());
                if tree.get("ports").and_then(Tree::seq).is_some_and(|ports| !ports.is_empty()) {
                    let message = format!("ports of a service in the network of `{other}` cannot be published");
                    self.sink()
                        .warn(codes::NO_EFFECT, at, path, message)
                        .help(format!("publish them at the service `{other}`"));
                }
            }
            _ if mode.starts_with("container:") => {
                let message = format!("`{mode}` is a container outside of the project");
                self.sink()
                    .error(codes::REJECTED_FIELD, at, path, message)
                    .help("put that container into this project and write `service:NAME`");
            }
            other => {
                // A network by its name on the host.
                spec.networks = vec![NetworkAttachment { network: other.to_owned(), ..NetworkAttachment::default() }];
                let message = format!("the network `{other}` must exist");
                self.sink()
                    .warn(codes::MISSING_REFERENCE, at, path, message)
                    .help("declare it under the top-level `networks:` with `external: true`");
            }
        }
    }

    /// `links: [db:database]` gives `db` the further name on the networks that both join.
    pub(super) fn link_aliases(&mut self, services: &Fields, workloads: &mut [Workload]) {
        let mut names: BTreeMap<String, Vec<(String, Vec<String>)>> = BTreeMap::new();
        for workload in workloads.iter() {
            let Some(item) = services.get(&workload.id.name) else { continue };
            let own: Vec<String> = workload.template.spec.networks.iter().map(|n| n.network.clone()).collect();
            for (link, _) in item.tree.strings_of("links") {
                if let Some((other, alias)) = link.split_once(':') {
                    names.entry(other.to_owned()).or_default().push((alias.to_owned(), own.clone()));
                }
            }
        }
        for workload in workloads {
            let Some(further) = names.get(&workload.id.name) else { continue };
            let spec = Arc::make_mut(&mut workload.template.spec);
            for (alias, networks) in further {
                for attachment in spec.networks.iter_mut().filter(|a| networks.contains(&a.network)) {
                    if !attachment.aliases.contains(alias) {
                        attachment.aliases.push(alias.clone());
                    }
                }
            }
        }
    }
}
