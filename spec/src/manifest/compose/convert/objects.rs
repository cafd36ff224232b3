//! A Compose project as Kubernetes objects: a workload and a headless Service for each service, and the ConfigMaps,
//! Secrets and claims that they use.
//!
//! What is written makes the same containers here as the Compose file did. What Kubernetes has no field for is told in
//! a note, never left out in silence.

use std::collections::BTreeSet;

use base64::Engine as _;

use super::yaml::Yaml;
use crate::manifest::DEPENDS_ON;
use crate::manifest::compose::ComposeProject;
use crate::plan::ON_FAILURE;
use crate::pod::{
    ContainerSpec, EnvSource, FilesSource, FilesVolume, Handler, HostPathKind, PodSpec, PortRef, Probe, Propagation,
    PullPolicy, Resources, RestartPolicy, Seccomp, VolumeSource,
};
use crate::schema::Format;
use crate::time::Millis;
use crate::workload::{Controller, DependencyCondition, OnFailure, UpdateStrategy, Workload};

/// A converted project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertedProject {
    /// The objects, as YAML documents.
    pub text: String,
    /// What is different now, one line each.
    pub notes: Vec<String>,
}

/// Converts a project that was loaded without errors.
#[must_use]
pub fn objects(project: &ComposeProject) -> ConvertedProject {
    let mut out = Writer { namespace: dns(&project.name), notes: BTreeSet::new(), claims: BTreeSet::new() };
    let mut documents = vec![document("v1", "Namespace", &out.namespace, None)];
    let workloads: Vec<Yaml> = project.workloads.iter().flat_map(|workload| out.workload(workload)).collect();
    for (name, data) in &project.configs {
        let mut object = document("v1", "ConfigMap", &dns(name), Some(&out.namespace));
        for (key, bytes) in &data.0 {
            match std::str::from_utf8(bytes) {
                Ok(text) => object.slot("data").set(key, text.into()),
                Err(_) => object.slot("binaryData").set(key, base64(bytes).into()),
            }
        }
        documents.push(object);
    }
    for (name, data) in &project.secrets {
        out.note(format!("the Secret `{}` holds its value: keep this file private", dns(name)));
        let mut object = document("v1", "Secret", &dns(name), Some(&out.namespace));
        for (key, bytes) in &data.data {
            object.slot("data").set(key, base64(bytes.expose()).into());
        }
        documents.push(object);
    }
    for claim in &out.claims {
        let mut object = document("v1", "PersistentVolumeClaim", claim, Some(&out.namespace));
        let spec = object.slot("spec");
        spec.push("accessModes", "ReadWriteOnce".into());
        spec.slot("resources").slot("requests").set("storage", "1Gi".into());
        documents.push(object);
    }
    documents.extend(workloads);
    let text = documents.iter().map(Yaml::write).collect::<Vec<_>>().join("---\n");
    ConvertedProject { text, notes: out.notes.into_iter().collect() }
}

struct Writer {
    namespace: String,
    notes: BTreeSet<String>,
    claims: BTreeSet<String>,
}

impl Writer {
    fn note(&mut self, note: impl Into<String>) {
        self.notes.insert(note.into());
    }

    /// A workload and the Service that gives it its name.
    fn workload(&mut self, workload: &Workload) -> [Yaml; 2] {
        let name = dns(&workload.id.name);
        if name != workload.id.name {
            self.note(format!(
                "service `{}` is called `{name}`: names of Kubernetes have no other letters",
                workload.id.name
            ));
        }
        let spec = &workload.template.spec;
        let (replicas, strategy) = match &workload.controller {
            Controller::Replicated { replicas, strategy } => (*replicas, Some(strategy)),
            _ => (1, None),
        };
        let ends = spec.restart_policy() != RestartPolicy::Always;
        if ends && replicas != 1 {
            self.note(format!(
                "service `{name}`: a Pod stands for one of its {replicas} containers, since they may end"
            ));
        }
        let (version, kind) = if ends { ("v1", "Pod") } else { ("apps/v1", "Deployment") };
        let mut object = document(version, kind, &name, Some(&self.namespace));
        let mut annotations = Yaml::Map(Vec::new());
        for (key, value) in workload.labels.iter().chain(&workload.annotations) {
            match Format::LabelKey.fault(key) {
                None => annotations.set(key, value.as_str().into()),
                Some(_) => self.note(format!("service `{name}`: the label `{key}` has a name that Kubernetes refuses")),
            }
        }
        let mut own = annotations.clone();
        let depends: Vec<String> = workload
            .depends_on
            .iter()
            .map(|on| {
                let condition = match on.condition {
                    DependencyCondition::Started => "started",
                    DependencyCondition::Healthy => "ready",
                    DependencyCondition::CompletedSuccessfully => "completed",
                };
                format!("{}={condition}", dns(&on.workload.name))
            })
            .collect();
        if !depends.is_empty() {
            own.set(DEPENDS_ON, depends.join(", ").into());
        }
        if workload.depends_on.iter().any(|on| on.restart) {
            self.note(format!("service `{name}`: `depends_on.restart` has no counterpart"));
        }
        let usual = UpdateStrategy::default().on_failure;
        if let Some(other) = strategy.map(|strategy| strategy.on_failure).filter(|other| *other != usual && !ends) {
            let word = match other {
                OnFailure::Rollback => "rollback",
                OnFailure::Pause => "pause",
                OnFailure::Continue => "continue",
            };
            own.set(ON_FAILURE, word.into());
        }
        if !own.is_empty() {
            object.slot("metadata").set("annotations", own);
        }
        let labels = Yaml::Map(vec![("app".to_owned(), name.as_str().into())]);
        object.slot("metadata").set("labels", labels.clone());
        let pod = self.pod(&name, spec);
        if ends {
            object.set("spec", pod);
        } else {
            let out = object.slot("spec");
            out.set("replicas", number(replicas));
            out.slot("selector").set("matchLabels", labels.clone());
            if let Some(strategy) = strategy.filter(|strategy| !strategy.recreate) {
                out.slot("strategy").set("type", "RollingUpdate".into());
                let rolling = out.slot("strategy").slot("rollingUpdate");
                rolling.set("maxSurge", number(strategy.max_surge));
                rolling.set("maxUnavailable", number(strategy.max_unavailable));
                if strategy.delay != Millis(0) || strategy.monitor != Millis(0) || strategy.rollback.is_some() {
                    self.note(format!(
                        "service `{name}`: `delay`, `monitor` and `rollback_config` have no counterpart"
                    ));
                }
            } else if strategy.is_some() {
                out.slot("strategy").set("type", "Recreate".into());
            }
            out.slot("template").slot("metadata").set("labels", labels.clone());
            if !annotations.is_empty() {
                out.slot("template").slot("metadata").set("annotations", annotations);
            }
            out.slot("template").set("spec", pod);
        }
        let mut service = document("v1", "Service", &name, Some(&self.namespace));
        service.slot("spec").set("clusterIP", "None".into());
        service.slot("spec").set("selector", labels);
        [object, service]
    }

    fn pod(&mut self, name: &str, spec: &PodSpec) -> Yaml {
        let mut out = Yaml::Map(Vec::new());
        if spec.restart_policy() != RestartPolicy::Always {
            out.set("restartPolicy", format!("{:?}", spec.restart_policy()).into());
        }
        let seconds = spec.termination_grace().0.div_ceil(1000);
        out.set("terminationGracePeriodSeconds", number(seconds));
        if spec.all_containers().any(|container| container.stop_signal.is_some()) {
            // Kubernetes takes signals only of a pod that says its system.
            out.slot("os").set("name", "linux".into());
        }
        for (key, set) in [
            ("hostNetwork", spec.host_network),
            ("hostPID", spec.host_pid),
            ("hostIPC", spec.host_ipc),
            ("shareProcessNamespace", spec.share_process_namespace),
        ] {
            if set {
                out.set(key, Yaml::Plain("true".to_owned()));
            }
        }
        if let Some(name) = &spec.runtime_class {
            out.set("runtimeClassName", name.as_str().into());
        }
        match &spec.hostname {
            Some(host) if Format::DnsLabel.fault(host).is_none() => out.set("hostname", host.as_str().into()),
            Some(host) => self.note(format!("service `{name}`: `{host}` is no host name for Kubernetes")),
            None => {}
        }
        for alias in &spec.host_aliases {
            if alias.ip.parse::<std::net::IpAddr>().is_err() {
                self.note(format!("service `{name}`: `extra_hosts` with `{}` has no counterpart", alias.ip));
                continue;
            }
            let mut entry = Yaml::Map(vec![("ip".to_owned(), alias.ip.as_str().into())]);
            entry.set("hostnames", texts(&alias.hostnames));
            out.push("hostAliases", entry);
        }
        self.dns_config(&mut out, spec);
        for (key, value) in &spec.sysctls {
            let pair = vec![("name".to_owned(), key.as_str().into()), ("value".to_owned(), value.as_str().into())];
            out.slot("securityContext").push("sysctls", Yaml::Map(pair));
        }
        for (lost, what) in [
            (spec.domainname.is_some(), "domainname"),
            (spec.no_network, "network_mode: none"),
            (spec.network_of.is_some(), "network_mode: service:..."),
            (spec.shm_size.is_some(), "shm_size"),
            (spec.restart_backoff.as_ref().is_some_and(|b| b.max_attempts.is_some()), "the number of restarts"),
            (spec.networks.iter().any(|n| n.ipv4_address.is_some() || n.ipv6_address.is_some()), "fixed addresses"),
            (spec.networks.len() > 1, "several networks"),
        ] {
            if lost {
                self.note(format!("service `{name}`: `{what}` has no counterpart"));
            }
        }
        for volume in &spec.volumes {
            let source = self.volume(name, &volume.source);
            let mut entry = Yaml::Map(vec![("name".to_owned(), dns(&volume.name).into())]);
            if let Yaml::Map(pairs) = source {
                for (key, value) in pairs {
                    entry.set(&key, value);
                }
            }
            out.push("volumes", entry);
        }
        let (inits, mains) = (spec.init_containers.len(), &spec.containers);
        for (index, container) in spec.init_containers.iter().chain(mains).enumerate() {
            let key = if index < inits { "initContainers" } else { "containers" };
            let (entry, memory) = self.container(name, container);
            out.push(key, entry);
            for volume in memory {
                out.push("volumes", volume);
            }
        }
        out
    }

    fn dns_config(&mut self, out: &mut Yaml, spec: &PodSpec) {
        if !spec.dns.nameservers.is_empty() {
            out.slot("dnsConfig").set("nameservers", texts(&spec.dns.nameservers));
        }
        if !spec.dns.searches.is_empty() {
            out.slot("dnsConfig").set("searches", texts(&spec.dns.searches));
        }
        for option in &spec.dns.options {
            let (key, value) = option.split_once(':').unwrap_or((option, ""));
            let mut entry = Yaml::Map(vec![("name".to_owned(), key.into())]);
            if !value.is_empty() {
                entry.set("value", value.into());
            }
            out.slot("dnsConfig").push("options", entry);
        }
    }

    fn volume(&mut self, service: &str, source: &VolumeSource) -> Yaml {
        let mut out = Yaml::Map(Vec::new());
        match source {
            VolumeSource::Bind { path, create } => {
                out.slot("hostPath").set("path", path.as_str().into());
                if *create {
                    out.slot("hostPath").set("type", "DirectoryOrCreate".into());
                }
            }
            VolumeSource::HostPath { path, kind } => {
                out.slot("hostPath").set("path", path.as_str().into());
                if *kind != HostPathKind::Any {
                    out.slot("hostPath").set("type", format!("{kind:?}").into());
                }
            }
            VolumeSource::EmptyDir { memory, size_limit } => {
                let dir = out.slot("emptyDir");
                if *memory {
                    dir.set("medium", "Memory".into());
                }
                if let Some(bytes) = size_limit {
                    dir.set("sizeLimit", number(bytes));
                }
            }
            VolumeSource::Named { name } => {
                let claim = dns(name);
                self.note(format!(
                    "the volume `{name}` becomes the claim `{claim}`, which is empty at first: copy the data of the old one"
                ));
                out.slot("persistentVolumeClaim").set("claimName", claim.as_str().into());
                self.claims.insert(claim);
            }
            VolumeSource::Image { image, .. } => out.slot("image").set("reference", image.to_string().into()),
            VolumeSource::Files(files) => self.files(service, files, &mut out),
        }
        out
    }

    fn files(&mut self, service: &str, files: &FilesVolume, out: &mut Yaml) {
        if files.uid.is_some() || files.gid.is_some() {
            self.note(format!("service `{service}`: owners of configs and secrets have no counterpart"));
        }
        if let Some(mode) = files.default_mode {
            out.slot("projected").set("defaultMode", number(mode));
        }
        for source in &files.sources {
            let (key, name, items) = match source {
                FilesSource::ConfigMap { name, items, .. } => ("configMap", name, items),
                FilesSource::Secret { name, items, .. } => ("secret", name, items),
                FilesSource::DownwardApi { .. } => continue,
            };
            let mut entry = Yaml::Map(Vec::new());
            entry.slot(key).set("name", dns(name).into());
            for item in items {
                let mut one = Yaml::Map(vec![("key".to_owned(), item.key.as_str().into())]);
                one.set("path", item.path.as_str().into());
                if let Some(mode) = item.mode {
                    one.set("mode", number(mode));
                }
                entry.slot(key).push("items", one);
            }
            out.slot("projected").push("sources", entry);
        }
    }

    /// A container, and the memory volumes that it needs.
    fn container(&mut self, service: &str, container: &ContainerSpec) -> (Yaml, Vec<Yaml>) {
        let mut out = Yaml::Map(vec![("name".to_owned(), dns(&container.name).into())]);
        if let Some(image) = &container.image {
            out.set("image", image.to_string().into());
        }
        let policy = container.pull_policy.unwrap_or(PullPolicy::IfNotPresent);
        out.set("imagePullPolicy", format!("{policy:?}").into());
        for (key, words) in [("command", &container.command), ("args", &container.args)] {
            if let Some(words) = words {
                out.set(key, Yaml::List(words.iter().map(|word| plain(word).into()).collect()));
            }
        }
        if let Some(dir) = &container.working_dir {
            out.set("workingDir", dir.as_str().into());
        }
        for variable in &container.env {
            let (EnvSource::Literal(value) | EnvSource::Template(value)) = &variable.source else { continue };
            let pair =
                vec![("name".to_owned(), variable.name.as_str().into()), ("value".to_owned(), text(&plain(value)))];
            out.push("env", Yaml::Map(pair));
        }
        for port in &container.ports {
            let mut entry = Yaml::Map(vec![("containerPort".to_owned(), number(port.container_port))]);
            if let Some(host) = port.host_port {
                entry.set("hostPort", number(host));
            }
            if let Some(ip) = port.host_ip {
                entry.set("hostIP", ip.to_string().into());
            }
            entry.set("protocol", port.protocol.to_string().to_uppercase().into());
            out.push("ports", entry);
        }
        let mut memory = Vec::new();
        for mount in &container.mounts {
            let mut entry = Yaml::Map(vec![("name".to_owned(), dns(&mount.volume).into())]);
            entry.set("mountPath", mount.path.as_str().into());
            if mount.read_only {
                entry.set("readOnly", Yaml::Plain("true".to_owned()));
            }
            if let Some(path) = &mount.sub_path {
                entry.set("subPath", path.as_str().into());
            }
            match mount.propagation {
                Some(Propagation::HostToContainer) => entry.set("mountPropagation", "HostToContainer".into()),
                Some(Propagation::Bidirectional) => entry.set("mountPropagation", "Bidirectional".into()),
                Some(Propagation::Private) | None => {}
            }
            out.push("volumeMounts", entry);
        }
        for (index, (path, _)) in container.tmpfs.iter().enumerate() {
            let name = format!("{}-tmpfs-{index}", dns(&container.name));
            let mut mount = Yaml::Map(vec![("name".to_owned(), name.as_str().into())]);
            mount.set("mountPath", path.as_str().into());
            out.push("volumeMounts", mount);
            let mut volume = Yaml::Map(vec![("name".to_owned(), name.into())]);
            volume.slot("emptyDir").set("medium", "Memory".into());
            memory.push(volume);
        }
        resources(&container.resources, &mut out);
        self.security(service, container, &mut out);
        if let Some(probe) = &container.liveness {
            out.set("livenessProbe", self.probe(service, probe));
        }
        if let Some(probe) = &container.readiness {
            out.set("readinessProbe", self.probe(service, probe));
        }
        for (key, hooks) in [("postStart", &container.post_start), ("preStop", &container.pre_stop)] {
            match hooks.as_slice() {
                [] => {}
                [one, rest @ ..] => {
                    out.slot("lifecycle").set(key, handler(one));
                    if !rest.is_empty() {
                        self.note(format!("service `{service}`: of several hooks Kubernetes runs the first one only"));
                    }
                }
            }
        }
        if let Some(signal) = &container.stop_signal {
            out.slot("lifecycle").set("stopSignal", signal.as_str().into());
        }
        for (key, set) in [("stdin", container.stdin), ("tty", container.tty)] {
            if set {
                out.set(key, Yaml::Plain("true".to_owned()));
            }
        }
        let resources = &container.resources;
        for (lost, what) in [
            (container.platform.is_some(), "platform"),
            (!container.devices.is_empty() || !container.cdi_devices.is_empty(), "devices"),
            (!container.ulimits.is_empty(), "ulimits"),
            (container.init, "init"),
            (container.log.is_some(), "logging"),
            (container.tmpfs.iter().any(|(_, options)| !options.is_empty()), "options of tmpfs"),
            (resources.pids_limit.is_some(), "pids_limit"),
            (resources.cpuset.is_some() || resources.cpu_shares.is_some(), "cpuset and cpu_shares"),
            (resources.memory_swap_limit.is_some(), "memswap_limit"),
            (resources.oom_score_adj.is_some(), "oom_score_adj"),
            (resources.blkio_weight.is_some() || !resources.disk_limits.is_empty(), "blkio_config"),
        ] {
            if lost {
                self.note(format!("service `{service}`: `{what}` has no counterpart"));
            }
        }
        (out, memory)
    }

    fn security(&mut self, service: &str, container: &ContainerSpec, out: &mut Yaml) {
        let security = &container.security;
        let mut context = Yaml::Map(Vec::new());
        if let Some(user) = &security.user {
            let (user, group) = user.split_once(':').map_or((user.as_str(), None), |(user, group)| (user, Some(group)));
            match user.parse::<u32>() {
                Ok(user) => context.set("runAsUser", number(user)),
                Err(_) => self.note(format!("service `{service}`: Kubernetes knows users by number, not `{user}`")),
            }
            match group.map(str::parse::<u32>) {
                Some(Ok(group)) => context.set("runAsGroup", number(group)),
                Some(Err(_)) => self.note(format!("service `{service}`: Kubernetes knows groups by number")),
                None => {}
            }
        }
        for (key, set) in [("privileged", security.privileged), ("readOnlyRootFilesystem", security.read_only_root)] {
            if set {
                context.set(key, Yaml::Plain("true".to_owned()));
            }
        }
        if let Some(allowed) = security.allow_privilege_escalation {
            context.set("allowPrivilegeEscalation", Yaml::Plain(allowed.to_string()));
        }
        for (key, names) in [("add", &security.cap_add), ("drop", &security.cap_drop)] {
            if !names.is_empty() {
                context.slot("capabilities").set(key, texts(names));
            }
        }
        match &security.seccomp {
            Some(Seccomp::Unconfined) => context.slot("seccompProfile").set("type", "Unconfined".into()),
            Some(Seccomp::RuntimeDefault) => context.slot("seccompProfile").set("type", "RuntimeDefault".into()),
            Some(Seccomp::Localhost(_)) => self.note(format!("service `{service}`: its seccomp profile is left out")),
            None => {}
        }
        if security.apparmor.as_deref() == Some("unconfined") {
            context.slot("appArmorProfile").set("type", "Unconfined".into());
        }
        if !security.group_add.is_empty() {
            self.note(format!("service `{service}`: `group_add` has no counterpart for one container"));
        }
        if !context.is_empty() {
            out.set("securityContext", context);
        }
    }

    fn probe(&mut self, service: &str, probe: &Probe) -> Yaml {
        let mut out = handler(&probe.handler);
        let mut seconds = |key: &str, time: Option<Millis>| {
            if let Some(time) = time {
                out.set(key, number(time.0.div_ceil(1000).max(1)));
            }
        };
        seconds("initialDelaySeconds", probe.initial_delay.or(probe.start_period.filter(|time| time.0 > 0)));
        seconds("periodSeconds", probe.period);
        seconds("timeoutSeconds", probe.timeout);
        if let Some(count) = probe.failure_threshold {
            out.set("failureThreshold", number(count.max(1)));
        }
        if probe.start_period.is_some_and(|time| time.0 > 0) {
            self.note(format!("service `{service}`: during `start_period` nothing is probed now"));
        }
        out
    }
}

fn handler(handler: &Handler) -> Yaml {
    let mut out = Yaml::Map(Vec::new());
    match handler {
        Handler::Exec(words) => {
            let words = words.iter().map(|word| word.as_str().into()).collect();
            out.slot("exec").set("command", Yaml::List(words));
        }
        Handler::Sleep(time) => out.slot("sleep").set("seconds", number(time.0.div_ceil(1000))),
        Handler::Tcp { port: PortRef::Number(port), .. } => out.slot("tcpSocket").set("port", number(port)),
        // A Compose file has no others.
        Handler::Http { .. } | Handler::Tcp { .. } | Handler::Grpc { .. } => {}
    }
    out
}

fn resources(resources: &Resources, out: &mut Yaml) {
    for (kind, cpu, memory) in [
        ("limits", resources.cpu_limit_milli, resources.memory_limit),
        ("requests", resources.cpu_request_milli, resources.memory_request),
    ] {
        if let Some(cpu) = cpu {
            out.slot("resources").slot(kind).set("cpu", format!("{cpu}m").into());
        }
        if let Some(memory) = memory {
            out.slot("resources").slot(kind).set("memory", number(memory));
        }
    }
}

fn document(version: &str, kind: &str, name: &str, namespace: Option<&str>) -> Yaml {
    let mut out = Yaml::Map(vec![("apiVersion".to_owned(), version.into()), ("kind".to_owned(), kind.into())]);
    out.slot("metadata").set("name", name.into());
    if let Some(namespace) = namespace {
        out.slot("metadata").set("namespace", namespace.into());
    }
    out
}

/// A name as Kubernetes allows it: lower case letters, digits and `-`.
fn dns(name: &str) -> String {
    let lower: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(63).collect();
    let lower = lower.trim_matches('-');
    if lower.is_empty() { "x".to_owned() } else { lower.to_owned() }
}

/// `$(` starts a variable in Kubernetes and nothing in Compose.
fn plain(text: &str) -> String {
    text.replace("$(", "$$(")
}

fn number(number: impl std::fmt::Display) -> Yaml {
    Yaml::Plain(number.to_string())
}

fn text(text: &str) -> Yaml {
    Yaml::Str(text.to_owned())
}

fn texts(words: &[String]) -> Yaml {
    Yaml::List(words.iter().map(|word| word.as_str().into()).collect())
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests;
