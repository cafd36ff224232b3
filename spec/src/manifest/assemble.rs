//! Objects of all files together: duplicates, references between objects, ports of the host; then the desired state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::codes;
use crate::diagnostic::{Diagnostic, Severity};
use crate::node::Span;
use crate::pod::{EnvSource, EnvVar, PodSpec, Protocol, VolumeSource};
use crate::schema::check::{quoted, suggest};
use crate::secret::MacKey;
use crate::workload::{ConfigData, Desired, Exposure, ObjectId, SecretData, Workload};

use super::env::RawEnv;
use super::storage::{Claim, Storage};
use super::{At, FileObjects, Object, ObjectValue, RawWorkload, steering};

/// How much a missing object matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missing {
    /// An error: the sources are all there is.
    #[default]
    Error,
    /// A warning: the object may be in a file that is not looked at. It is an error all the same when there is an
    /// object with nearly the same name, which is a slip of the pen.
    Warning,
}

/// How objects are put together.
#[derive(Debug, Clone, Copy)]
pub struct AssembleOptions<'a> {
    /// Key of this install's secret hashes.
    pub mac_key: &'a MacKey,
    /// Labels of the node; `None` when they are not known, as on a laptop.
    pub node_labels: Option<&'a BTreeMap<String, String>>,
    /// What a missing ConfigMap, Secret or claim is.
    pub missing: Missing,
}

/// What a set of files wishes for.
#[derive(Debug, Clone, Default)]
pub struct Assembly {
    /// The desired state, without what is broken.
    pub desired: Desired,
    /// What is wrong between the files; what is wrong inside them is in each [`FileObjects`].
    pub diagnostics: Vec<Diagnostic>,
    /// Objects left out, those of the files included: what was applied of them before stays.
    pub broken: Vec<ObjectId>,
}

type Name = (String, String);

/// Puts the objects of several files together.
#[must_use]
pub fn assemble(files: &[FileObjects], options: &AssembleOptions<'_>) -> Assembly {
    let mut out = Assembly::default();
    let mut world = World::default();
    let mut seen: BTreeMap<&ObjectId, (&str, &Object)> = BTreeMap::new();
    let mut workloads: Vec<(&str, &Object, &RawWorkload)> = Vec::new();
    for file in files {
        out.broken.extend(file.broken.iter().cloned());
        for id in &file.broken {
            world.broken.insert((id.kind.as_str(), &id.namespace, &id.name));
        }
        for object in &file.objects {
            if let Some((first_file, first)) = seen.get(&object.id) {
                let id = &object.id;
                let message = format!("{} {} is defined twice", id.kind, quoted(&id.name));
                out.diagnostics.push(
                    Diagnostic::error(codes::DUPLICATE_OBJECT, &file.name, Some(object.name_at), message)
                        .hint("rename one of the two, or put it into another namespace")
                        .note(first_file, Some(first.name_at), "first defined here"),
                );
                out.broken.push(id.clone());
                continue;
            }
            seen.insert(&object.id, (&file.name, object));
            let name = (object.id.namespace.clone(), object.id.name.clone());
            match &object.value {
                ObjectValue::Workload(workload) => workloads.push((&file.name, object, workload)),
                ObjectValue::Config(data) => drop(world.configs.insert(name, Arc::new(data.clone()))),
                ObjectValue::Secret(data) => drop(world.secrets.insert(name, Arc::new(data.clone()))),
                ObjectValue::Service(service) => drop(out.desired.services.insert(name, Arc::new(service.clone()))),
                ObjectValue::Claim(claim) => drop(world.claims.insert(name, claim)),
                ObjectValue::Storage(storage) => world.storages.push(storage),
                ObjectValue::Namespace => {}
            }
        }
    }
    // A second definition leaves the first one in doubt too: which of them was meant?
    let doubtful: BTreeSet<ObjectId> = out.broken.iter().cloned().collect();
    world.bind();
    let mut order = steering::order(&workloads, &out.broken, options.missing);
    out.diagnostics.append(&mut order.diagnostics);
    let mut ports: Vec<Published<'_>> = Vec::new();
    for (file, object, raw) in &workloads {
        let mut context =
            Context { file, options, world: &world, namespace: &object.id.namespace, diagnostics: Vec::new() };
        let mut workload = context.resolve(raw);
        workload.depends_on = order.of.remove(&workload.id).unwrap_or_default();
        context.node_selector(raw);
        context.host_ports(&object.id, raw, &mut ports);
        let mut failed = context.diagnostics.iter().any(Diagnostic::is_error);
        out.diagnostics.append(&mut context.diagnostics);
        failed |= doubtful.contains(&object.id) || order.failed.contains(&workload.id);
        // The image of an example to be filled in: that is said in a warning, and there is nothing to run.
        failed |= workload.template.spec.all_containers().any(|container| container.image.is_none());
        if failed {
            if !doubtful.contains(&object.id) {
                out.broken.push(object.id.clone());
            }
        } else {
            out.desired.workloads.insert(workload.id.clone(), Arc::new(workload));
        }
    }
    service_ports(files, &mut ports, &mut out);
    same_selectors(&workloads, &mut out);
    selectors(files, &workloads, &mut out);
    out.desired.configs = world.configs;
    out.desired.secrets = world.secrets;
    out
}

#[derive(Default)]
struct World<'a> {
    configs: BTreeMap<Name, Arc<ConfigData>>,
    secrets: BTreeMap<Name, Arc<SecretData>>,
    claims: BTreeMap<Name, &'a Claim>,
    storages: Vec<&'a Storage>,
    bound: BTreeMap<Name, &'a Storage>,
    broken: BTreeSet<(&'a str, &'a str, &'a str)>,
}

impl World<'_> {
    /// Gives claims their PersistentVolumes: the one they name or that names them, else the smallest that fits and
    /// is free, in the order of names (controller `persistentvolume`, findBestMatchForClaim).
    fn bind(&mut self) {
        let mut taken: BTreeSet<&str> = BTreeSet::new();
        self.storages.sort_by(|a, b| (a.bytes, &a.name).cmp(&(b.bytes, &b.name)));
        for exact in [true, false] {
            for (name, claim) in &self.claims {
                if self.bound.contains_key(name) {
                    continue;
                }
                let found = self.storages.iter().find(|storage| {
                    let reserved = storage.claim.as_ref();
                    let named = claim.volume.as_ref() == Some(&storage.name) || reserved == Some(name);
                    let free = !taken.contains(storage.name.as_str()) && reserved.is_none_or(|r| r == name);
                    free && if exact { named } else { claim.volume.is_none() && fits(claim, storage) }
                });
                if let Some(storage) = found {
                    taken.insert(&storage.name);
                    self.bound.insert(name.clone(), storage);
                }
            }
        }
    }
}

fn fits(claim: &Claim, storage: &Storage) -> bool {
    let class = |class: &Option<String>| class.clone().unwrap_or_default();
    !claim.expressions
        && class(&claim.class) == class(&storage.class)
        && storage.bytes >= claim.bytes
        && claim.access_modes.iter().all(|mode| storage.access_modes.contains(mode))
        && claim.labels.iter().all(|(key, value)| storage.labels.get(key) == Some(value))
}

/// A port of the host and who publishes it.
struct Published<'a> {
    port: u16,
    protocol: Protocol,
    ip: Option<IpAddr>,
    owner: &'a ObjectId,
    file: &'a str,
    at: Span,
}

impl Published<'_> {
    /// The finding about a port that another one has already.
    fn clash(&self, ports: &[Published<'_>]) -> Option<Diagnostic> {
        let any = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
        let other = ports.iter().find(|other| {
            other.port == self.port
                && other.protocol == self.protocol
                && other.owner != self.owner
                && (any(other.ip) || any(self.ip) || other.ip == self.ip)
        })?;
        let message = format!("port {}/{} of the host is taken", self.port, self.protocol);
        let owner = format!("{} `{}` has it", other.owner.kind, other.owner.name);
        let found = Diagnostic::error(codes::PORT_CLASH, self.file, Some(self.at), message);
        Some(found.note(other.file, Some(other.at), owner))
    }
}

/// Ports of the host that Services open, against those of pods and of other Services. Two of type LoadBalancer may have
/// one port in a cluster, and each has an address of its own there: the second one is reached by its other names here.
fn service_ports<'a>(files: &'a [FileObjects], ports: &mut Vec<Published<'a>>, out: &mut Assembly) {
    for file in files {
        for object in &file.objects {
            let ObjectValue::Service(service) = &object.value else { continue };
            let wide = service.exposure == Exposure::LoadBalancer;
            for (index, port) in service.ports.iter().enumerate() {
                let balanced = wide.then_some((port.port, false));
                let node = port.node_port.map(|number| (number, true));
                for (number, strict) in balanced.into_iter().chain(node) {
                    let (protocol, owner, at) = (port.protocol, &object.id, object.name_at);
                    let own = Published { port: number, protocol, ip: None, owner, file: &file.name, at };
                    if let Some(mut clash) = own.clash(ports) {
                        if !strict {
                            clash.severity = Severity::Warning;
                        }
                        let key = if strict { "nodePort" } else { "port" };
                        let hint = "there is one host: give one of the two another port";
                        out.diagnostics.push(clash.at(format!("spec.ports[{index}].{key}")).hint(hint));
                    }
                    ports.push(own);
                }
            }
        }
    }
}

/// Controllers with one selector: here each keeps its own pods, in a cluster they would fight for them.
fn same_selectors(workloads: &[(&str, &Object, &RawWorkload)], out: &mut Assembly) {
    type Selector<'s> = (&'s str, &'s BTreeMap<String, String>);
    let mut seen: BTreeMap<Selector<'_>, (&str, &Object)> = BTreeMap::new();
    for (file, object, raw) in workloads.iter().filter(|(_, _, raw)| !raw.refs.selector.is_empty()) {
        let key = (object.id.namespace.as_str(), &raw.refs.selector);
        let Some((first_file, first)) = seen.get(&key).filter(|(_, first)| first.id != object.id) else {
            seen.insert(key, (file, object));
            continue;
        };
        let message = format!("{} {} has the selector of another workload", object.id.kind, quoted(&object.id.name));
        let note = format!("{} {} has it too", first.id.kind, quoted(&first.id.name));
        out.diagnostics.push(
            Diagnostic::warning(codes::SELECTS_FOREIGN, file, Some(object.name_at), message)
                .at("spec.selector")
                .hint("give each its own labels: a Service finds the pods of both, and in a cluster they take each other's")
                .note(first_file, Some(first.name_at), note),
        );
    }
}

struct Context<'a> {
    file: &'a str,
    options: &'a AssembleOptions<'a>,
    world: &'a World<'a>,
    namespace: &'a str,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Context<'a> {
    fn resolve(&mut self, raw: &RawWorkload) -> Workload {
        let mut workload = raw.workload.clone();
        let mut spec: PodSpec = (*workload.template.spec).clone();
        for (container, entries) in spec.init_containers.iter_mut().chain(&mut spec.containers).zip(&raw.refs.env) {
            if entries.iter().any(|entry| !matches!(entry, RawEnv::Var(_))) {
                container.env = entries.iter().flat_map(|entry| self.variables(entry)).collect();
            }
            container.env = last_ones(std::mem::take(&mut container.env));
        }
        for claim in &raw.refs.claims {
            let source = self.claim(&claim.claim, &claim.at);
            for volume in spec.volumes.iter_mut().filter(|volume| volume.name == claim.volume) {
                volume.source = source.clone();
            }
        }
        for reference in &raw.refs.objects {
            let Some(keys) =
                self.find(reference.secret, &reference.name, reference.optional, reference.lenient, &reference.at)
            else {
                continue;
            };
            for (key, at) in &reference.keys {
                if !keys.contains(key) && !reference.optional {
                    self.no_key(reference.secret, &reference.name, key, &keys, at);
                }
            }
        }
        workload.template.spec = Arc::new(spec);
        workload
    }

    /// The keys of a ConfigMap or Secret; reports when it is missing and that matters.
    fn find(&mut self, secret: bool, name: &str, optional: bool, lenient: bool, at: &At) -> Option<Vec<String>> {
        let id = (self.namespace.to_owned(), name.to_owned());
        let keys: Option<Vec<String>> = if secret {
            self.world.secrets.get(&id).map(|data| data.data.keys().cloned().collect())
        } else {
            self.world.configs.get(&id).map(|data| data.0.keys().cloned().collect())
        };
        if keys.is_none() && !optional {
            let kind = if secret { "Secret" } else { "ConfigMap" };
            let names: Vec<&str> = if secret {
                names_in(self.namespace, self.world.secrets.keys())
            } else {
                names_in(self.namespace, self.world.configs.keys())
            };
            self.missing(kind, name, &names, lenient, at);
        }
        keys
    }

    fn missing(&mut self, kind: &str, name: &str, names: &[&str], lenient: bool, at: &At) {
        let near = suggest(name, names.iter().copied()).filter(|near| !is_next_of(name, near));
        let broken = self.world.broken.contains(&(kind, self.namespace, name));
        let message = if broken {
            format!("the {kind} {} has errors", quoted(name))
        } else {
            format!("there is no {kind} {} in namespace {}", quoted(name), quoted(self.namespace))
        };
        let severity = match self.options.missing {
            _ if lenient => Severity::Warning,
            Missing::Warning if near.is_none() && !broken => Severity::Warning,
            _ => Severity::Error,
        };
        let mut diagnostic =
            Diagnostic::error(codes::MISSING_REFERENCE, self.file, Some(at.span), message).at(&at.path);
        diagnostic.severity = severity;
        diagnostic.hint = Some(match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if broken => "solve its errors first".to_owned(),
            None => format!("add a {kind} of this name, or say `optional: true` where that is allowed"),
        });
        self.diagnostics.push(diagnostic);
    }

    fn no_key(&mut self, secret: bool, name: &str, key: &str, keys: &[String], at: &At) {
        let kind = if secret { "Secret" } else { "ConfigMap" };
        let message = format!("the {kind} {} has no key {}", quoted(name), quoted(key));
        let mut diagnostic = Diagnostic::error(codes::MISSING_KEY, self.file, Some(at.span), message).at(&at.path);
        diagnostic.hint = suggest(key, keys.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
        self.diagnostics.push(diagnostic);
    }

    fn variables(&mut self, entry: &RawEnv) -> Vec<EnvVar> {
        match entry {
            RawEnv::Var(variable) => vec![variable.clone()],
            RawEnv::Key { variable, secret, object, key, optional, at } => {
                let found = self.find(*secret, object, *optional, false, at);
                if let Some(keys) = &found
                    && !keys.contains(key)
                    && !optional
                {
                    self.no_key(*secret, object, key, keys, at);
                }
                self.value(*secret, object, key)
                    .map(|source| EnvVar { name: variable.clone(), source })
                    .into_iter()
                    .collect()
            }
            RawEnv::All { prefix, secret, object, optional, at } => {
                let keys = self.find(*secret, object, *optional, false, at).unwrap_or_default();
                keys.iter()
                    .filter_map(|key| {
                        Some(EnvVar { name: format!("{prefix}{key}"), source: self.value(*secret, object, key)? })
                    })
                    .collect()
            }
        }
    }

    /// The value of a key as a variable; none when it is missing or, in a ConfigMap, not text.
    fn value(&self, secret: bool, object: &str, key: &str) -> Option<EnvSource> {
        let id = (self.namespace.to_owned(), object.to_owned());
        if secret {
            let mac = self.world.secrets.get(&id).and_then(|data| data.data.get(key));
            let mac = mac.map(|value| self.options.mac_key.mac(value.expose()))?;
            return Some(EnvSource::Secret { name: object.to_owned(), key: key.to_owned(), mac: Some(mac) });
        }
        let bytes = self.world.configs.get(&id)?.0.get(key)?;
        Some(EnvSource::Literal(std::str::from_utf8(bytes).ok()?.to_owned()))
    }

    /// Where the data of a claim is.
    fn claim(&mut self, name: &str, at: &At) -> VolumeSource {
        let id = (self.namespace.to_owned(), name.to_owned());
        if let Some(storage) = self.world.bound.get(&id) {
            return storage.place.0.clone();
        }
        match self.world.claims.get(&id) {
            Some(claim) => {
                if let Some(volume) = &claim.volume {
                    self.missing("PersistentVolume", volume, &[], true, at);
                }
            }
            None => {
                let names = names_in(self.namespace, self.world.claims.keys());
                self.missing("PersistentVolumeClaim", name, &names, false, at);
            }
        }
        VolumeSource::Named { name: format!("{}/{name}", self.namespace) }
    }

    /// Labels of the node that the pod asks for. Every node of ours runs Linux.
    fn node_selector(&mut self, raw: &RawWorkload) {
        let Some(at) = &raw.refs.node_selector else { return };
        for (key, value) in &raw.workload.template.spec.node_selector {
            let linux = matches!(key.as_str(), "kubernetes.io/os" | "beta.kubernetes.io/os") && value == "linux";
            if linux {
                continue;
            }
            let message = match self.options.node_labels {
                Some(labels) if labels.get(key) == Some(value) => continue,
                Some(_) => format!("this node does not have the label `{key}: {value}`, so the pod does not run here"),
                None => format!("the pod runs only where `nodeSelector` finds the label `{key}: {value}`"),
            };
            let diagnostic = Diagnostic::warning(codes::NODE_SELECTOR, self.file, Some(at.span), message);
            let path = format!("{}[\"{key}\"]", at.path);
            self.diagnostics.push(diagnostic.at(path).hint("set it in the configuration, `node.labels`"));
        }
    }

    /// Ports that another workload publishes already. A pod's own are checked with the pod.
    fn host_ports(&mut self, id: &'a ObjectId, raw: &'a RawWorkload, ports: &mut Vec<Published<'a>>) {
        let containers: Vec<_> = raw.workload.template.spec.all_containers().collect();
        for (container, index, at) in &raw.refs.host_ports {
            let Some(port) = containers.get(*container).and_then(|c| c.ports.get(*index)) else { continue };
            let own = Published {
                port: port.host_port.unwrap_or(port.container_port),
                protocol: port.protocol,
                ip: port.host_ip,
                owner: id,
                file: self.file,
                at: at.span,
            };
            if let Some(mut clash) = own.clash(ports) {
                // A port that a program in the host's network only says to listen on need not be true.
                if port.host_port.is_none() {
                    clash.severity = Severity::Warning;
                }
                self.diagnostics.push(clash.at(&at.path));
            }
            ports.push(own);
        }
    }
}

/// Whether two names are members of one series, such as `db-1` and `db-2`, or `cache-a` and `cache-b`: one of them may
/// well be elsewhere.
pub(super) fn is_next_of(name: &str, other: &str) -> bool {
    fn stem(name: &str) -> &str {
        let digits = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let cut = match digits.as_bytes() {
            [.., b'-' | b'.', b'a'..=b'z'] if digits.len() == name.len() => &digits[..digits.len() - 1],
            _ => digits,
        };
        cut.trim_end_matches(['-', '.'])
    }
    name != other && stem(name) == stem(other)
}

fn names_in<'n>(namespace: &str, names: impl Iterator<Item = &'n Name>) -> Vec<&'n str> {
    names.filter(|(ns, _)| ns == namespace).map(|(_, name)| name.as_str()).collect()
}

/// Of variables with the same name the last one counts. An earlier one stays only where a value between them may
/// refer to it.
fn last_ones(variables: Vec<EnvVar>) -> Vec<EnvVar> {
    let keep: Vec<bool> = variables
        .iter()
        .enumerate()
        .map(|(i, variable)| {
            let later = variables.iter().enumerate().skip(i + 1);
            let Some(last) = variables.iter().rposition(|other| other.name == variable.name).filter(|last| *last > i)
            else {
                return true;
            };
            let reference = format!("$({})", variable.name);
            later.take(last - i).any(
                |(_, other)| matches!(&other.source, EnvSource::Template(template) if template.contains(&reference)),
            )
        })
        .collect();
    variables.into_iter().zip(keep).filter_map(|(variable, keep)| keep.then_some(variable)).collect()
}

/// Services whose selector matches no pod.
fn selectors(files: &[FileObjects], workloads: &[(&str, &Object, &RawWorkload)], out: &mut Assembly) {
    if workloads.is_empty() {
        return;
    }
    for file in files {
        for object in &file.objects {
            let ObjectValue::Service(service) = &object.value else { continue };
            let matches = |(_, other, raw): &&(&str, &Object, &RawWorkload)| {
                other.id.namespace == service.namespace
                    && service.selector.iter().all(|(k, v)| raw.workload.template.labels.get(k) == Some(v))
            };
            if !service.selector.is_empty() && !workloads.iter().any(|entry| matches(&entry)) {
                let message = format!("no pod has the labels that the Service {} selects", quoted(&service.name));
                let at = Some(object.name_at);
                let diagnostic = Diagnostic::warning(codes::SELECTS_NOTHING, &file.name, at, message);
                out.diagnostics.push(diagnostic.at("spec.selector").hint("compare it with the labels of the template"));
            }
        }
    }
}
