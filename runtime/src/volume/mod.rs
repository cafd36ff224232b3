//! Volumes of pods: made ready, handed out as mount sources, and removed with their pod.
//!
//! Owns `<data>/pods/<uid>/volumes`, `<run>/pods/<uid>/{volumes,subpaths}` and `<data>/volumes`. Never deletes a named
//! volume by implication, never follows a link or a mount that a container has made. Everything blocks.
//!
//! | volume | where it is |
//! |---|---|
//! | emptyDir, files | `<data>/pods/<uid>/volumes/<name>` |
//! | emptyDir in memory, files of secrets | `<run>/pods/<uid>/volumes/<name>`, a tmpfs |
//! | named | `<data>/volumes/<name>/data`, beside `volume.json` |
//! | hostPath, bind | where the manifest says |

mod error;
mod files;
mod host_path;
mod mounts;
mod named;
mod ownership;
mod sub_path;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use spec::observed::{PodRecord, PodUid};
use spec::pod::{Volume, VolumeMount, VolumeSource};

use crate::api::FileSet;

pub use error::VolumeError;
pub(crate) use mounts::is_mount_point;
pub use named::{Copied, VolumeRecord, copy_up, list, path as named_path, remove as remove_named};
pub use tree::usage;

use error::{Result, failed};

/// The agent's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeDirs {
    /// Survives a reboot.
    pub data: PathBuf,
    /// Does not.
    pub run: PathBuf,
}

impl VolumeDirs {
    fn on_disk(&self, pod: &PodUid) -> Result<PathBuf> {
        Ok(self.data.join("pods").join(plain("pod uid", &pod.0)?))
    }

    fn in_run(&self, pod: &PodUid) -> Result<PathBuf> {
        Ok(self.run.join("pods").join(plain("pod uid", &pod.0)?))
    }

    fn of(&self, pod: &PodUid, volume: &str, memory: bool) -> Result<PathBuf> {
        let pod = if memory { self.in_run(pod)? } else { self.on_disk(pod)? };
        Ok(pod.join("volumes").join(plain("volume name", volume)?))
    }
}

/// A volume that is ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedVolume {
    /// What to bind.
    pub source: PathBuf,
    /// Files of ours: containers must not write them, whatever the mount says (as for ConfigMaps and Secrets).
    pub read_only: bool,
    /// Bytes that a volume on disk may take; its use is measured with [`usage`]. Those in memory are limited by the
    /// kernel.
    pub size_limit: Option<u64>,
    /// Name of the volume when it outlives pods, for [`copy_up`].
    pub named: Option<String>,
    /// Its ids are shifted already as the pod's user namespace wants them.
    pub shifted: bool,
}

/// Makes every volume of a pod ready, those of images excepted. Repeating it mends what is missing and keeps data.
///
/// # Errors
/// When a host path is not what it must be, a name or path is bad, or the kernel refuses a step.
pub fn prepare(
    pod: &PodRecord,
    files: &BTreeMap<String, FileSet>,
    dirs: &VolumeDirs,
) -> Result<BTreeMap<String, PreparedVolume>> {
    let mut prepared = BTreeMap::new();
    for volume in &pod.spec.volumes {
        if let Some(ready) = prepare_one(pod, volume, files, dirs)? {
            prepared.insert(volume.name.clone(), ready);
        }
    }
    Ok(prepared)
}

/// Whether the volumes of a pod can be made ready: host paths are what they must be, names are good. Makes nothing.
///
/// # Errors
/// The first that cannot.
pub fn check(pod: &PodRecord, dirs: &VolumeDirs) -> Result<()> {
    for volume in &pod.spec.volumes {
        match &volume.source {
            VolumeSource::HostPath { path, kind } => host_path::check(&volume.name, path, *kind)?,
            VolumeSource::Bind { path, create } => host_path::check_bind(&volume.name, path, *create)?,
            VolumeSource::Named { name } => drop(named::path(&dirs.data, name)?),
            VolumeSource::EmptyDir { .. } | VolumeSource::Files(_) | VolumeSource::Image { .. } => {}
        }
    }
    Ok(())
}

fn prepare_one(
    pod: &PodRecord,
    volume: &Volume,
    files: &BTreeMap<String, FileSet>,
    dirs: &VolumeDirs,
) -> Result<Option<PreparedVolume>> {
    let ready = |source| PreparedVolume { source, read_only: false, size_limit: None, named: None, shifted: false };
    let shared_with = |source: &Path| match pod.spec.fs_group {
        Some(group) => ownership::give_to_group(source, group, pod.spec.fs_group_on_root_mismatch),
        None => Ok(()),
    };
    Ok(Some(match &volume.source {
        VolumeSource::HostPath { path, kind } => ready(host_path::prepare(&volume.name, path, *kind)?),
        VolumeSource::Bind { path, create } => ready(host_path::prepare_bind(&volume.name, path, *create)?),
        VolumeSource::EmptyDir { memory, size_limit } => {
            let source = dirs.of(&pod.uid, &volume.name, *memory)?;
            if *memory {
                make_tmpfs(&source, "777", size_limit.or_else(|| memory_of(pod)))?;
            } else {
                make_dir(&source, 0o777)?;
            }
            shared_with(&source)?;
            PreparedVolume { size_limit: size_limit.filter(|_| !memory), ..ready(source) }
        }
        VolumeSource::Files(_) => {
            let set = files.get(&volume.name).ok_or_else(|| VolumeError::NoFiles(volume.name.clone()))?;
            let source = dirs.of(&pod.uid, &volume.name, set.memory)?;
            if set.memory {
                make_tmpfs(&source, "755", None)?;
            } else {
                make_dir(&source, 0o755)?;
            }
            files::write(&source, set, pod.spec.fs_group)?;
            PreparedVolume { read_only: true, ..ready(source) }
        }
        VolumeSource::Named { name } => {
            let source = named::prepare(&dirs.data, name)?;
            shared_with(&source)?;
            PreparedVolume { named: Some(name.clone()), ..ready(source) }
        }
        VolumeSource::Image { .. } => return Ok(None),
    }))
}

/// The memory that all containers of a pod share at /dev/shm, made unless it is there (in Kubernetes it belongs to the
/// pod's IPC namespace, and outlives its containers).
///
/// # Errors
/// When the kernel refuses.
pub fn shared_memory(pod: &PodRecord, dirs: &VolumeDirs) -> Result<PathBuf> {
    // No volume can have this name.
    let path = dirs.in_run(&pod.uid)?.join("volumes/.shm");
    let options = format!("mode=1777,size={}", pod.spec.shm_size.unwrap_or(64 << 20));
    make_memory(&path, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, &options)?;
    Ok(path)
}

/// What to bind for a mount of a container. `sub_path` is the mount's, with its variables expanded. With one, the path
/// within the volume is mounted at a place of the pod's, and that place is returned: nothing a container does to the
/// volume afterwards changes where it leads. `index` is the mount's place in the container, and keeps two apart.
///
/// # Errors
/// When there is no such volume, or the path leads out of it or is not there in a volume that is read-only.
pub fn source_for(
    pod: &PodUid,
    container: &str,
    index: usize,
    mount: &VolumeMount,
    sub_path: Option<&str>,
    prepared: &BTreeMap<String, PreparedVolume>,
    dirs: &VolumeDirs,
) -> Result<PathBuf> {
    let volume = prepared.get(&mount.volume).ok_or_else(|| VolumeError::Unknown(mount.volume.clone()))?;
    let Some(sub_path) = sub_path.filter(|p| !p.is_empty()) else { return Ok(volume.source.clone()) };
    let container = plain("container name", container)?;
    let target = dirs.in_run(pod)?.join("subpaths").join(container).join(index.to_string());
    sub_path::mount(&volume.source, sub_path, &target, !volume.read_only)?;
    Ok(target)
}

/// Names of a pod's volumes of files whose content is another one. Changes nothing.
///
/// # Errors
/// When a name is bad or a link cannot be read.
pub fn files_differ(pod: &PodRecord, files: &BTreeMap<String, FileSet>, dirs: &VolumeDirs) -> Result<Vec<String>> {
    let mut differ = Vec::new();
    for volume in pod.spec.volumes.iter().filter(|v| matches!(v.source, VolumeSource::Files(_))) {
        let Some(set) = files.get(&volume.name) else { continue };
        let source = dirs.of(&pod.uid, &volume.name, set.memory)?;
        if !files::is_written(&source, set, pod.spec.fs_group)? {
            differ.push(volume.name.clone());
        }
    }
    Ok(differ)
}

/// Swaps the content of a pod's volumes of files. Returns the names of those that changed.
///
/// # Errors
/// When a path is bad or a file cannot be written: that volume keeps its old content, as do those after it.
pub fn update_files(pod: &PodRecord, files: &BTreeMap<String, FileSet>, dirs: &VolumeDirs) -> Result<Vec<String>> {
    let mut changed = Vec::new();
    for volume in pod.spec.volumes.iter().filter(|v| matches!(v.source, VolumeSource::Files(_))) {
        let Some(set) = files.get(&volume.name) else { continue };
        let source = dirs.of(&pod.uid, &volume.name, set.memory)?;
        if files::write(&source, set, pod.spec.fs_group)? {
            changed.push(volume.name.clone());
        }
    }
    Ok(changed)
}

/// Removes the volumes that die with a pod. Named volumes and host paths stay. Gone already is a success.
///
/// # Errors
/// All of it is tried; what failed is told.
pub fn remove_pod_volumes(pod: &PodUid, dirs: &VolumeDirs) -> Result<()> {
    let (disk, run) = (dirs.on_disk(pod)?, dirs.in_run(pod)?);
    let mut errors = Vec::new();
    for dir in [run.join("subpaths"), run.join("volumes"), disk.join("volumes")] {
        // First every mount goes, so that removing files never reaches what was mounted.
        let removed = mounts::unmount_below(&dir).map_err(failed("unmount everything below", &dir));
        let removed = removed.and_then(|()| tree::remove(&dir).map_err(failed("remove", &dir)));
        errors.extend(removed.err());
    }
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(VolumeError::Several(errors)),
    }
}

/// A name that is one component of a path.
fn plain<'a>(what: &'static str, name: &'a str) -> Result<&'a str> {
    let good = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']) && name.len() <= 255;
    let refused = || VolumeError::Refused { what, value: name.to_owned(), why: "it cannot be a file name" };
    good.then_some(name).ok_or_else(refused)
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    // The umask must not take bits away.
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(failed("create directory", path))
}

/// Mounts a tmpfs, unless one is there already.
fn make_tmpfs(path: &Path, mode: &str, size: Option<u64>) -> Result<()> {
    let size = size.map(|s| format!(",size={s}")).unwrap_or_default();
    make_memory(path, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, &format!("mode={mode}{size}"))
}

fn make_memory(path: &Path, flags: MsFlags, options: &str) -> Result<()> {
    // Containers with users of their own pass the directories above, and everybody on this host may with them. What is
    // in memory may be a secret, and root alone mounts it.
    let volumes = path.parent().unwrap_or(path);
    fs::create_dir_all(volumes)
        .and_then(|()| fs::set_permissions(volumes, fs::Permissions::from_mode(0o700)))
        .map_err(failed("create directory", volumes))?;
    if mounts::is_mount_point(path).map_err(failed("read the mounts below", path))? {
        return Ok(());
    }
    make_dir(path, 0o755)?;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).map_err(failed("mount a tmpfs at", path))
}

/// A volume in memory without a limit of its own ends at what the pod may use (kubelet, SizeMemoryBackedVolumes).
fn memory_of(pod: &PodRecord) -> Option<u64> {
    pod.spec.containers.iter().map(|c| c.resources.memory_limit).sum::<Option<u64>>().filter(|sum| *sum > 0)
}

#[cfg(test)]
mod tests;
