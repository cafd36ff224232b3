//! `volumes`, `tmpfs` and `volumes_from`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Lower;
use crate::codes;
use crate::image_ref::ImageRef;
use crate::manifest::compose::sink::Hint;
use crate::manifest::compose::tree::{Fields, Tree, Val, join_key};
use crate::manifest::compose::{units, volumes};
use crate::pod::{ContainerSpec, PodSpec, Propagation, Volume, VolumeMount, VolumeSource};
use crate::workload::Workload;

/// Modes of short volumes without a meaning on Linux without SELinux.
const SILENT_MODES: [&str; 7] = ["rw", "z", "Z", "cached", "delegated", "consistent", "default"];

/// A mount, before it has a volume.
struct Wanted {
    source: VolumeSource,
    mount: VolumeMount,
}

impl Lower<'_, '_> {
    pub(super) fn mounts(
        &mut self,
        name: &str,
        tree: &Tree,
        path: &str,
        spec: &mut PodSpec,
        container: &mut ContainerSpec,
    ) {
        for (item, path) in tree.items_of("volumes", path) {
            let wanted = match &item.val {
                Val::Str(text) => self.short(text, item, &path),
                Val::Map(_) => self.long(item, &path, container),
                _ => None,
            };
            if let Some(wanted) = wanted {
                add(wanted, spec, container);
            }
        }
        let path = join_key(path, "tmpfs");
        for (text, place) in tree.strings_of("tmpfs") {
            let (target, options) = text.split_once(':').unwrap_or((&text, ""));
            if target.starts_with('/') {
                container.tmpfs.push((target.to_owned(), options.to_owned()));
            } else if !target.is_empty() {
                let message = format!("`{target}` is not an absolute path");
                self.sink().error_at(codes::BAD_VALUE, place, &path, message);
            }
        }
        let _ = name;
    }

    fn target(&mut self, target: &str, at: &Tree, path: &str) -> Option<String> {
        if target.starts_with('/') {
            let trimmed = target.trim_end_matches('/');
            if trimmed.is_empty() {
                let message = "a volume cannot replace the root directory";
                self.sink().error(codes::BAD_VALUE, at, path, message);
                return None;
            }
            return Some(trimmed.to_owned());
        }
        if target.is_empty() && at.unset {
            return None;
        }
        let message = format!("the path `{target}` in the container is not absolute");
        self.sink().error(codes::BAD_VALUE, at, path, message).help("start it with `/`");
        None
    }

    fn short(&mut self, text: &str, at: &Tree, path: &str) -> Option<Wanted> {
        let short = match volumes::parse(text) {
            Ok(short) => short,
            Err(reason) => {
                let message = format!("`{text}` is not a volume: {reason}");
                let found = self.sink().error(codes::BAD_VALUE, at, path, message);
                if at.unset {
                    found.help("a variable in it is not set; set it in `.env`");
                } else {
                    found.help("write it like ./data:/data or name:/data:ro");
                }
                return None;
            }
        };
        let path_inside = self.target(&short.target, at, path)?;
        let mut mount = VolumeMount { path: path_inside, copy_up: true, ..VolumeMount::default() };
        for mode in &short.modes {
            match mode.as_str() {
                "ro" => mount.read_only = true,
                "nocopy" => mount.copy_up = false,
                mode if SILENT_MODES.contains(&mode) => {}
                mode if propagation(mode).is_some() => mount.propagation = propagation(mode),
                "" => {}
                other => {
                    let message = format!("`{other}` is not a mode of a volume");
                    self.sink()
                        .warn(codes::BAD_VALUE, at, path, message)
                        .help("use ro, rw, z, Z, nocopy or a propagation such as rslave");
                }
            }
        }
        let source = match short.source {
            None => VolumeSource::EmptyDir { memory: false, size_limit: None },
            Some(source) if volumes::is_path(&source) => {
                mount.copy_up = false;
                let path_outside = self.host_path(at, &source);
                self.docker_socket(&path_outside, at, path);
                VolumeSource::Bind { path: path_outside, create: true }
            }
            Some(source) => self.declared(&source, at, path, &mut mount)?,
        };
        Some(Wanted { source, mount })
    }

    /// A volume of the top level.
    fn declared(&mut self, name: &str, at: &Tree, path: &str, mount: &mut VolumeMount) -> Option<VolumeSource> {
        if let Some(volume) = self.volumes.get(name) {
            let source = volume.source.clone();
            mount.copy_up &= matches!(source, VolumeSource::Named { .. });
            return Some(source);
        }
        let known: Vec<String> = self.volumes.keys().cloned().collect();
        if name.contains('/') {
            let message = format!("volume `{name}` is not defined");
            self.sink()
                .error(codes::BAD_REFERENCE, at, path, message)
                .help(format!("a path starts with `./`, `/` or `~`: write `./{name}`"));
        } else {
            self.undefined("volume", name, at, path, &known);
        }
        None
    }

    fn docker_socket(&mut self, host: &str, at: &Tree, path: &str) {
        if matches!(host, "/var/run/docker.sock" | "/run/docker.sock") {
            let message = "the socket of Docker is mounted, but this host need not have Docker";
            self.sink()
                .warn(codes::NO_EFFECT, at, path, message)
                .help("mainstay speaks no Docker API; the service sees only what Docker runs");
        }
    }

    fn long(&mut self, item: &Tree, path: &str, container: &mut ContainerSpec) -> Option<Wanted> {
        let target = item.get("target").and_then(Tree::str).unwrap_or_default();
        if target.is_empty() {
            if !item.get("target").is_some_and(|target| target.unset) {
                self.sink().error(codes::MISSING_FIELD, item, path, "the field `target` is missing");
            }
            return None;
        }
        let at = item.get("target").unwrap_or(item);
        let inside = self.target(target, at, &join_key(path, "target"))?;
        let mut mount = VolumeMount {
            path: inside,
            read_only: item.bool_of("read_only").unwrap_or(false),
            ..VolumeMount::default()
        };
        let kind = item.get("type").and_then(Tree::str)?;
        for other in ["bind", "volume", "tmpfs", "image"] {
            if other != kind && item.get(other).and_then(Tree::map).is_some_and(|map| !map.is_empty()) {
                let message = format!("`{other}` has no effect on a mount of type `{kind}`");
                let at = item.get(other).unwrap_or(item).clone();
                self.sink().warn(codes::NO_EFFECT, &at, &join_key(path, other), message);
            }
        }
        let source = item.get("source").filter(|source| source.text().is_some_and(|text| !text.is_empty()));
        let written = source.and_then(Tree::text).unwrap_or_default();
        let source = match kind {
            "bind" => {
                let Some(at) = source else {
                    self.sink().error(codes::MISSING_FIELD, item, path, "a bind needs the field `source`");
                    return None;
                };
                let options = item.get("bind");
                let outside = self.host_path(at, &written);
                self.docker_socket(&outside, at, path);
                mount.propagation = options.and_then(|o| o.text_of("propagation")).and_then(propagation);
                mount.recursive_read_only =
                    mount.read_only && options.and_then(|o| o.text_of("recursive")) == Some("readonly");
                let create = options.and_then(|options| options.bool_of("create_host_path")).unwrap_or(true);
                VolumeSource::Bind { path: outside, create }
            }
            "volume" => {
                let options = item.get("volume");
                mount.copy_up = !options.and_then(|options| options.bool_of("nocopy")).unwrap_or(false);
                mount.sub_path = options.and_then(|options| options.text_of("subpath")).map(str::to_owned);
                match source {
                    None => VolumeSource::EmptyDir { memory: false, size_limit: None },
                    Some(at) => self.declared(&written, at, &join_key(path, "source"), &mut mount)?,
                }
            }
            "tmpfs" => {
                let options = item.get("tmpfs");
                let mut flags = Vec::new();
                if let Some(size) = options.and_then(|options| options.bytes_of("size")) {
                    flags.push(format!("size={size}"));
                }
                if let Some(mode) = options.and_then(|options| options.get("mode"))
                    && let Some(mode) = self.file_mode(mode, &join_key(path, "tmpfs.mode"))
                {
                    flags.push(format!("mode={mode:o}"));
                }
                if mount.read_only {
                    flags.push("ro".to_owned());
                }
                container.tmpfs.push((mount.path, flags.join(",")));
                return None;
            }
            "image" => {
                mount.sub_path = item.get("image").and_then(|options| options.text_of("subpath")).map(str::to_owned);
                mount.read_only = true;
                let Some(at) = source else {
                    self.sink().error(codes::MISSING_FIELD, item, path, "an image mount needs the field `source`");
                    return None;
                };
                match ImageRef::parse(&written) {
                    Ok(image) => VolumeSource::Image { image, pull_policy: None },
                    Err(error) => {
                        self.sink().error(codes::BAD_IMAGE, at, &join_key(path, "source"), error.to_string());
                        return None;
                    }
                }
            }
            other => {
                let at = item.get("type").unwrap_or(item);
                let message = format!("mounts of type `{other}` are not supported");
                self.sink()
                    .error(codes::REJECTED_VOLUME, at, &join_key(path, "type"), message)
                    .help("use bind, volume, tmpfs or image");
                return None;
            }
        };
        Some(Wanted { source, mount })
    }

    /// A mode as a number (YAML reads `0440` as octal) or as octal text.
    pub(super) fn file_mode(&mut self, at: &Tree, path: &str) -> Option<u32> {
        let mode = match &at.val {
            Val::Int(mode) => u32::try_from(*mode).ok().filter(|mode| *mode <= 0o7777),
            Val::Str(text) => units::mode(text),
            _ => None,
        };
        if mode.is_none() && !at.unset {
            let message = format!("`{}` is not a file mode", at.text().unwrap_or_default());
            self.sink().error(codes::BAD_VALUE, at, path, message).help("write it in octal, like 0440");
        }
        mode
    }

    /// Adds the mounts of other services.
    pub(super) fn volumes_from(&mut self, services: &Fields, workloads: &mut [Workload]) {
        let specs: BTreeMap<String, Arc<PodSpec>> =
            workloads.iter().map(|w| (w.id.name.clone(), Arc::clone(&w.template.spec))).collect();
        for workload in workloads {
            let Some(item) = services.get(&workload.id.name) else { continue };
            for (at, path) in item.tree.items_of("volumes_from", &join_key("services", &workload.id.name)) {
                let Some(text) = at.str() else { continue };
                let (name, mode) =
                    text.rsplit_once(':').filter(|(_, m)| *m == "ro" || *m == "rw").unwrap_or((text, "rw"));
                if name.starts_with("container:") {
                    let message = format!("`{text}` is a container outside of the project");
                    self.sink()
                        .error(codes::REJECTED_FIELD, at, &path, message)
                        .help("name a service, or mount the same volume");
                    continue;
                }
                let Some(other) = specs.get(name) else {
                    let known: Vec<String> = specs.keys().cloned().collect();
                    self.undefined("service", name, at, &path, &known);
                    continue;
                };
                borrow_mounts(Arc::make_mut(&mut workload.template.spec), other, mode == "ro");
            }
        }
    }
}

fn borrow_mounts(spec: &mut PodSpec, other: &PodSpec, read_only: bool) {
    let Some(theirs) = other.containers.first() else { return };
    let Some(mut own) = spec.containers.pop() else { return };
    for mount in &theirs.mounts {
        let Some(volume) = other.volumes.iter().find(|volume| volume.name == mount.volume) else { continue };
        let shared = matches!(
            volume.source,
            VolumeSource::Named { .. } | VolumeSource::Bind { .. } | VolumeSource::HostPath { .. }
        );
        if shared && own.mounts.iter().all(|present| present.path != mount.path) {
            let mount = VolumeMount { read_only: mount.read_only || read_only, ..mount.clone() };
            add(Wanted { source: volume.source.clone(), mount }, spec, &mut own);
        }
    }
    spec.containers.push(own);
}

/// Mounts a source; equal sources share a volume of the pod.
fn add(wanted: Wanted, spec: &mut PodSpec, container: &mut ContainerSpec) {
    let Wanted { source, mut mount } = wanted;
    let shared = !matches!(source, VolumeSource::EmptyDir { .. });
    let known = spec.volumes.iter().find(|volume| shared && volume.source == source).map(|volume| volume.name.clone());
    mount.volume = known.unwrap_or_else(|| {
        let name = format!("v{}", spec.volumes.len());
        spec.volumes.push(Volume { name: name.clone(), source });
        name
    });
    container.mounts.push(mount);
}

fn propagation(mode: &str) -> Option<Propagation> {
    match mode {
        "private" | "rprivate" => Some(Propagation::Private),
        "slave" | "rslave" => Some(Propagation::HostToContainer),
        "shared" | "rshared" => Some(Propagation::Bidirectional),
        _ => None,
    }
}
