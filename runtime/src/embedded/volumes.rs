//! Volumes of a pod, and where a container's mounts find them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use spec::image_ref::ImageRef;
use spec::observed::{DiskUsage, PodFailure, PodRecord, PodUid};
use spec::pod::VolumeSource;

use super::{FAILED, Inner, failure, image_volume, records, transient};
use crate::api::{ContainerStart, FailureClass, FileSet, FilesChange, Result};
use crate::container::{Mount, MountKind, ShimClient};
use crate::image::store::{Image, StoreError};
use crate::volume::{self, PreparedVolume, VolumeDirs};

impl Inner {
    pub(super) fn dirs(&self) -> VolumeDirs {
        VolumeDirs { data: self.layout().data.clone(), run: self.layout().run.clone() }
    }

    /// Makes all volumes of a pod ready, those of images included. Repeating it mends what is missing.
    pub(super) fn prepare_volumes(
        &self,
        record: &PodRecord,
        files: &BTreeMap<String, FileSet>,
    ) -> Result<BTreeMap<String, PreparedVolume>> {
        let operation = format!("prepare the volumes of pod `{}`", record.name);
        let mut prepared =
            volume::prepare(record, files, &self.dirs()).map_err(|error| transient(&operation)(error.into()))?;
        for volume in &record.spec.volumes {
            let VolumeSource::Image { image, .. } = &volume.source else { continue };
            let image = match self.volume_image(record, &volume.name, image) {
                Ok(Some(image)) => image,
                Ok(None) => {
                    let why = format!("image `{image}` of volume `{}` is not in the store", volume.name);
                    return Err(failure(operation, FailureClass::Transient, why));
                }
                Err(error) => return Err(transient(&operation)(error.into())),
            };
            let target = self.layout().pod_run(&record.uid).join("volumes").join(&volume.name);
            let users =
                (record.spec.host_users == Some(false)).then(|| self.layout().namespaces(&record.uid).join("user"));
            let root = image_volume::prepare(&image, &target, users.as_deref())
                .map_err(|error| failure(&operation, error.class(), error))?;
            let (source, shifted) = (root.path, root.shifted);
            let ready = PreparedVolume { source, read_only: true, size_limit: None, named: None, shifted };
            prepared.insert(volume.name.clone(), ready);
        }
        Ok(prepared)
    }

    /// The image of a volume as the pod was made with it; what its name stands for now when the record does not tell.
    pub(super) fn volume_image(
        &self,
        record: &PodRecord,
        volume: &str,
        image: &ImageRef,
    ) -> std::result::Result<Option<Image>, StoreError> {
        match record.images.get(&spec::observed::volume_image(volume)) {
            Some(digest) => self.store.image_by_digest(digest),
            None => self.store.image(image),
        }
    }

    /// See [`crate::Runtime::update_files`].
    pub(super) fn update_files(
        &self,
        uid: &PodUid,
        files: &BTreeMap<String, FileSet>,
        change: &FilesChange,
    ) -> Result<bool> {
        let operation = format!("update the files of pod {uid}");
        let record = records::read::<PodRecord>(&self.layout().pod(uid).join("pod.json"))
            .map_err(|error| transient(&operation)(error.into()))?;
        let Some(record) = record else { return Ok(false) };
        let differ =
            volume::files_differ(&record, files, &self.dirs()).map_err(|error| transient(&operation)(error.into()))?;
        // Whom a signal is owed, from before the swap until it is sent. Containers end with the boot, and so does this.
        let owed = self.layout().pod_run(uid).join("files-changed");
        match change {
            FilesChange::Compare => return Ok(!differ.is_empty()),
            FilesChange::Signal(_) if !differ.is_empty() => {
                std::fs::write(&owed, differ.join("\n")).map_err(|error| transient(&operation)(error.into()))?;
            }
            FilesChange::Signal(_) | FilesChange::Swap => {}
        }
        volume::update_files(&record, files, &self.dirs()).map_err(|error| transient(&operation)(error.into()))?;
        if let (FilesChange::Signal(signal), Ok(text)) = (change, std::fs::read_to_string(&owed)) {
            self.tell(&record, signal, &text.lines().collect::<Vec<_>>(), &operation)?;
            std::fs::remove_file(&owed).map_err(|error| transient(&operation)(error.into()))?;
        }
        Ok(!differ.is_empty())
    }

    /// Sends a signal to the running containers that mount one of these volumes.
    fn tell(&self, record: &PodRecord, signal: &str, volumes: &[&str], operation: &str) -> Result<()> {
        let number = super::config::parse_signal(signal)
            .ok_or_else(|| failure(operation, FailureClass::Permanent, format!("signal `{signal}` does not exist")))?;
        for container in record.spec.all_containers() {
            if !container.mounts.iter().any(|mount| volumes.contains(&mount.volume.as_str())) {
                continue;
            }
            // One that does not run reads the new content when it starts.
            let Ok(attempt) = self.running(&record.uid, &container.name) else { continue };
            ShimClient::connect(&attempt.run)
                .and_then(|mut client| client.signal(number))
                .map_err(|error| transient(operation)(error.into()))?;
        }
        Ok(())
    }

    pub(super) fn fail_pod(&self, uid: &PodUid, why: &PodFailure) -> Result<()> {
        let operation = format!("write down that pod {uid} has failed");
        let path = self.layout().pod(uid).join(FAILED);
        // A pod that is gone needs no mark, and must not come back as a directory with nothing but one.
        if path.exists() || !self.layout().pod(uid).exists() {
            return Ok(());
        }
        records::write(&path, why).map_err(|error| transient(operation)(error.into()))
    }

    /// Measures what a pod has written: emptyDirs on disk, and of each container its writable layer with the logs.
    pub(super) fn disk_usage(&self, uid: &PodUid) -> Result<DiskUsage> {
        let operation = format!("measure the disk use of pod {uid}");
        let record = records::read::<PodRecord>(&self.layout().pod(uid).join("pod.json"))
            .map_err(|error| transient(&operation)(error.into()))?;
        let Some(record) = record else { return Ok(DiskUsage::default()) };
        let measure = |path: PathBuf| match volume::usage(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            other => other.map_err(|error| transient(&operation)(error.into())),
        };
        let mut usage = DiskUsage::default();
        for volume in &record.spec.volumes {
            if matches!(volume.source, VolumeSource::EmptyDir { memory: false, .. }) {
                let place = self.layout().pod(uid).join("volumes").join(&volume.name);
                usage.volumes.insert(volume.name.clone(), measure(place)?);
            }
        }
        if record.spec.all_containers().any(|container| container.resources.ephemeral_storage_limit.is_some()) {
            for container in record.spec.all_containers() {
                let used = measure(self.layout().container(uid, &container.name))?;
                usage.containers.insert(container.name.clone(), used);
            }
        }
        Ok(usage)
    }

    /// /dev/shm where containers have it together: the host's, or the pod's. One that is alone keeps its own.
    fn shared_memory(&self, start: &ContainerStart, operation: &str) -> Result<Option<Mount>> {
        const TARGET: &str = "/dev/shm";
        let spec = &start.pod.spec;
        if start.container.mounts.iter().any(|mount| mount.path.trim_end_matches('/') == TARGET) {
            return Ok(None);
        }
        let source = if spec.host_ipc {
            PathBuf::from(TARGET)
        } else if spec.all_containers().count() > 1 {
            volume::shared_memory(&start.pod, &self.dirs()).map_err(|error| transient(operation)(error.into()))?
        } else {
            return Ok(None);
        };
        Ok(Some(Mount {
            source,
            target: PathBuf::from(TARGET),
            kind: MountKind::Bind,
            read_only: false,
            recursive_read_only: false,
            propagation: None,
            shifted: false,
        }))
    }

    pub(super) fn volume_mounts(&self, start: &ContainerStart, image: &Image) -> Result<Vec<Mount>> {
        let (record, container) = (&start.pod, &start.container);
        let operation = format!("mount the volumes of container `{}`", container.name);
        let prepared = self.prepare_volumes(record, &start.files)?;
        let mut mounts = Vec::new();
        mounts.extend(self.shared_memory(start, &operation)?);
        for (index, mount) in container.mounts.iter().enumerate() {
            if let Some(name) = prepared.get(&mount.volume).and_then(|volume| volume.named.as_ref())
                && mount.copy_up
            {
                let place = self.layout().pod_run(&record.uid).join("image");
                let root = image_volume::prepare(image, &place, None)
                    .map_err(|error| failure(&operation, error.class(), error))?;
                let copied = volume::copy_up(&self.layout().data, name, &root.path, &mount.path);
                // A mount that is left is found and removed with the pod.
                let _ = nix::mount::umount2(&place, nix::mount::MntFlags::MNT_DETACH);
                copied.map_err(|error| transient(&operation)(error.into()))?;
            }
            let sub_path = mount.sub_path.as_deref();
            let source =
                volume::source_for(&record.uid, &container.name, index, mount, sub_path, &prepared, &self.dirs())
                    .map_err(|error| transient(&operation)(error.into()))?;
            let volume = prepared.get(&mount.volume);
            let read_only = mount.read_only || volume.is_some_and(|volume| volume.read_only);
            mounts.push(Mount {
                source,
                target: PathBuf::from(&mount.path),
                kind: MountKind::Bind,
                read_only,
                recursive_read_only: mount.recursive_read_only,
                propagation: mount.propagation,
                shifted: volume.is_some_and(|volume| volume.shifted),
            });
        }
        Ok(mounts)
    }
}
