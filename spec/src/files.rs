//! Content of generated volumes: configMap, secret and downwardAPI files of a pod, as pure functions.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::pod::{EnvSource, FileItem, FilesSource, FilesVolume, PodSpec, VolumeSource};
use crate::secret::SecretBytes;
use crate::workload::{Desired, Workload};

/// A generated file.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedFile {
    /// Content.
    pub bytes: SecretBytes,
    /// Mode bits.
    pub mode: u32,
}

/// Why the files of a volume cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    /// A ConfigMap or Secret that is not optional is missing.
    #[error("{kind} `{name}` of volume `{volume}` does not exist")]
    MissingObject {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The volume.
        volume: String,
    },
    /// A chosen key is missing in an object that is not optional.
    #[error("{kind} `{name}` of volume `{volume}` has no key `{key}`")]
    MissingKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The volume.
        volume: String,
        /// The key.
        key: String,
    },
}

/// The files of one volume, by relative path. `fact` answers what a downwardAPI item contains.
pub fn render(
    desired: &Desired,
    namespace: &str,
    volume: &str,
    files: &FilesVolume,
    fact: &dyn Fn(&EnvSource) -> Option<String>,
) -> Result<BTreeMap<String, GeneratedFile>, FilesError> {
    let default_mode = files.default_mode.unwrap_or(0o644);
    let mut out = BTreeMap::new();
    for source in &files.sources {
        let (kind, name, optional, items, data) = match source {
            FilesSource::ConfigMap { name, optional, items } => {
                let data = desired.configs.get(&(namespace.to_owned(), name.clone())).map(|config| {
                    config.0.iter().map(|(k, v)| (k.clone(), SecretBytes::new(v.clone()))).collect::<BTreeMap<_, _>>()
                });
                ("ConfigMap", name, *optional, items, data)
            }
            FilesSource::Secret { name, optional, items } => {
                let data = desired.secrets.get(&(namespace.to_owned(), name.clone())).map(|secret| secret.data.clone());
                ("Secret", name, *optional, items, data)
            }
            FilesSource::DownwardApi { items } => {
                for item in items {
                    if let Some(text) = fact(&item.source) {
                        let file = GeneratedFile {
                            bytes: SecretBytes::new(text.into_bytes()),
                            mode: item.mode.unwrap_or(default_mode),
                        };
                        out.insert(item.path.clone(), file);
                    }
                }
                continue;
            }
        };
        let Some(data) = data else {
            if optional {
                continue;
            }
            return Err(FilesError::MissingObject { kind, name: name.clone(), volume: volume.to_owned() });
        };
        let all: Vec<FileItem>;
        let chosen = if items.is_empty() {
            all = data.keys().map(|key| FileItem { key: key.clone(), path: key.clone(), mode: None }).collect();
            &all
        } else {
            items
        };
        for item in chosen {
            match data.get(&item.key) {
                Some(bytes) => {
                    let file = GeneratedFile { bytes: bytes.clone(), mode: item.mode.unwrap_or(default_mode) };
                    out.insert(item.path.clone(), file);
                }
                None if optional => {}
                None => {
                    return Err(FilesError::MissingKey {
                        kind,
                        name: name.clone(),
                        volume: volume.to_owned(),
                        key: item.key.clone(),
                    });
                }
            }
        }
    }
    Ok(out)
}

/// Whether a volume's content must stay in memory.
#[must_use]
pub fn holds_secrets(files: &FilesVolume) -> bool {
    files.sources.iter().any(|source| matches!(source, FilesSource::Secret { .. }))
}

/// Files of the host that a project mounts one by one: their content counts as that of `configs` does. These are the
/// sources of binds below the project's directory whose mounts are all read-only; only reading shows which of them are
/// files. What a container may write to would restart it for its own doing, and what is elsewhere, such as
/// `/etc/localtime`, is not the project's.
#[must_use]
pub fn bound_files(spec: &PodSpec, directory: &Path) -> Vec<String> {
    let mounted_to_read = |volume: &str| {
        let mut mounts = spec.all_containers().flat_map(|container| &container.mounts).filter(|m| m.volume == volume);
        let first = mounts.next();
        first.is_some() && first.into_iter().chain(mounts).all(|mount| mount.read_only)
    };
    let inside = |path: &str| Path::new(path).strip_prefix(directory).is_ok_and(|rest| !rest.as_os_str().is_empty());
    spec.volumes
        .iter()
        .filter_map(|volume| match &volume.source {
            VolumeSource::Bind { path, .. } if inside(path) && mounted_to_read(&volume.name) => Some(path.clone()),
            _ => None,
        })
        .collect()
}

/// A label of the content of a workload's generated volumes, and of files of the host that count: another content has
/// another label. It never leaves memory, since it depends on secrets.
#[must_use]
pub fn content_label(desired: &Desired, workload: &Workload) -> String {
    let mut hash = Sha256::new();
    let mut any = !workload.template.bound.is_empty();
    for text in workload.template.bound.iter().flat_map(|(path, label)| [path, label]) {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    for volume in &workload.template.spec.volumes {
        let VolumeSource::Files(files) = &volume.source else { continue };
        any = true;
        match render(desired, &workload.id.namespace, &volume.name, files, &|source| Some(format!("{source:?}"))) {
            Ok(rendered) => {
                for (path, file) in rendered {
                    for part in [volume.name.as_bytes(), path.as_bytes(), file.bytes.expose()] {
                        hash.update((part.len() as u64).to_le_bytes());
                        hash.update(part);
                    }
                    hash.update(file.mode.to_le_bytes());
                }
            }
            Err(error) => hash.update(error.to_string().as_bytes()),
        }
    }
    if any { Digest::from_bytes(hash.finalize().into()).short() } else { String::new() }
}

/// A label of the content of the Secrets that a workload's images are pulled with; empty where it names none. It never
/// leaves memory and sealed files, since it depends on secrets.
#[must_use]
pub fn pull_secrets_label(desired: &Desired, workload: &Workload) -> String {
    let names = &workload.template.spec.image_pull_secrets;
    if names.is_empty() {
        return String::new();
    }
    let mut hash = Sha256::new();
    for name in names {
        let secret = desired.secrets.get(&(workload.id.namespace.clone(), name.clone()));
        let parts =
            secret.iter().flat_map(|secret| &secret.data).flat_map(|(key, value)| [key.as_bytes(), value.expose()]);
        for part in [name.as_bytes()].into_iter().chain(parts) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Digest::from_bytes(hash.finalize().into()).short()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{ContainerSpec, Volume, VolumeMount};

    /// Sources of binds in a project at `/p`, each with whether its mounts are read-only, and which of them count.
    #[test]
    fn files_count_that_are_the_projects_and_only_read() {
        for (mounts, expected) in [
            (vec![("/p/a.conf", true)], vec!["/p/a.conf"]),
            (vec![("/p/sub/a.conf", true), ("/p/b", true)], vec!["/p/sub/a.conf", "/p/b"]),
            (vec![("/p/a.conf", false)], vec![]),
            (vec![("/etc/localtime", true), ("/pp/a", true), ("/p", true), ("/", true)], vec![]),
        ] {
            let mut spec = PodSpec::default();
            let mut container = ContainerSpec::default();
            for (index, (path, read_only)) in mounts.iter().enumerate() {
                let (name, path) = (format!("v{index}"), (*path).to_owned());
                container.mounts.push(VolumeMount {
                    volume: name.clone(),
                    read_only: *read_only,
                    ..VolumeMount::default()
                });
                spec.volumes.push(Volume { name, source: VolumeSource::Bind { path, create: true } });
            }
            // Another container that may write to it makes a file one that is written to.
            let mut writer = ContainerSpec { mounts: container.mounts.clone(), ..ContainerSpec::default() };
            spec.containers = vec![container];
            assert_eq!(bound_files(&spec, Path::new("/p")), expected, "{mounts:?}");
            writer.mounts.iter_mut().for_each(|mount| mount.read_only = false);
            spec.containers.push(writer);
            assert_eq!(bound_files(&spec, Path::new("/p")), Vec::<String>::new(), "{mounts:?}");
        }
    }
}
