//! Who uses more of the disk than it may, and what is said about it.
//!
//! Rules and sentences: kubelet, `pkg/kubelet/eviction` (emptyDirLimitEviction, podEphemeralStorageLimitEviction,
//! containerEphemeralStorageLimitEviction), in that order. Volumes in memory are limited by the kernel instead.

use crate::observed::DiskUsage;
use crate::pod::{PodSpec, VolumeSource};

/// Whether anything of a pod has a limit on the disk: others need not be measured.
#[must_use]
pub fn has_disk_limits(spec: &PodSpec) -> bool {
    disk_volumes(spec).any(|(_, limit)| limit.is_some()) || pod_limit(spec).is_some()
}

/// What of a pod is above which limit; `None` when nothing is.
#[must_use]
pub fn over_disk_limit(spec: &PodSpec, usage: &DiskUsage) -> Option<String> {
    let used = |volume: &str| usage.volumes.get(volume).copied().unwrap_or(0);
    for (name, limit) in disk_volumes(spec) {
        if let Some(limit) = limit.filter(|limit| used(name) > *limit) {
            return Some(format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{}\".", bytes(limit)));
        }
    }
    let limit = pod_limit(spec)?;
    let volumes = disk_volumes(spec).map(|(name, _)| used(name));
    let containers = usage.containers.values().copied();
    if volumes.chain(containers).fold(0, u64::saturating_add) > limit {
        let limit = bytes(limit);
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}."));
    }
    spec.all_containers().find_map(|container| {
        let limit = container.resources.ephemeral_storage_limit?;
        let used = usage.containers.get(&container.name).copied().unwrap_or(0);
        let name = &container.name;
        (used > limit)
            .then(|| format!("Container {name} exceeded its local ephemeral storage limit \"{}\".", bytes(limit)))
    })
}

/// Names and limits of the emptyDirs that are on the disk.
fn disk_volumes(spec: &PodSpec) -> impl Iterator<Item = (&str, Option<u64>)> {
    spec.volumes.iter().filter_map(|volume| match volume.source {
        VolumeSource::EmptyDir { memory: false, size_limit } => Some((volume.name.as_str(), size_limit)),
        _ => None,
    })
}

/// The limit of a pod as a whole: the sum of its containers', or the largest init container's when that is more
/// (Kubernetes, "effective limit" of a pod).
fn pod_limit(spec: &PodSpec) -> Option<u64> {
    let limits = |containers: &[crate::pod::ContainerSpec]| -> Vec<u64> {
        containers.iter().filter_map(|c| c.resources.ephemeral_storage_limit).collect()
    };
    let sum = limits(&spec.containers).into_iter().reduce(u64::saturating_add);
    sum.max(limits(&spec.init_containers).into_iter().max())
}

/// Bytes as manifests write them.
fn bytes(count: u64) -> String {
    let units = [(1u64 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    match units.into_iter().find(|(size, _)| count >= *size && count.is_multiple_of(*size)) {
        Some((size, unit)) => format!("{}{unit}", count / size),
        None => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::pod::{ContainerSpec, Resources, Volume};

    const MIB: u64 = 1 << 20;

    fn container(name: &str, limit: Option<u64>) -> ContainerSpec {
        let resources = Resources { ephemeral_storage_limit: limit, ..Resources::default() };
        ContainerSpec { name: name.to_owned(), resources, ..ContainerSpec::default() }
    }

    fn volume(name: &str, memory: bool, size_limit: Option<u64>) -> Volume {
        Volume { name: name.to_owned(), source: VolumeSource::EmptyDir { memory, size_limit } }
    }

    fn check(spec: &PodSpec, volumes: &[(&str, u64)], containers: &[(&str, u64)], says: Option<&str>) {
        let map = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
            pairs.iter().map(|(name, mib)| ((*name).to_owned(), mib * MIB)).collect()
        };
        let usage = DiskUsage { volumes: map(volumes), containers: map(containers) };
        let found = over_disk_limit(spec, &usage);
        assert_eq!(found.is_some(), says.is_some(), "{volumes:?} {containers:?}: {found:?}");
        assert!(found.unwrap_or_default().contains(says.unwrap_or_default()), "{volumes:?} {containers:?}");
    }

    #[test]
    fn what_is_above_a_limit_is_named_volumes_first() {
        let spec = PodSpec {
            volumes: vec![volume("a", false, Some(10 * MIB)), volume("b", false, None), volume("m", true, Some(MIB))],
            containers: vec![container("x", Some(20 * MIB)), container("y", Some(5 * MIB)), container("z", None)],
            ..PodSpec::default()
        };
        assert!(has_disk_limits(&spec));
        check(&spec, &[("a", 10), ("b", 1), ("m", 9)], &[("x", 3)], None);
        check(&spec, &[("a", 11)], &[], Some("EmptyDir volume \"a\" exceeds the limit \"10Mi\""));
        // 25 MiB for all, whoever of them uses it.
        check(&spec, &[("b", 20)], &[("z", 5)], None);
        check(&spec, &[("b", 20)], &[("z", 6)], Some("total limit of containers 25Mi"));
        check(&spec, &[], &[("y", 6)], Some("Container y exceeded"));
    }

    #[test]
    fn pods_without_limits_are_not_measured() {
        let volumes = vec![volume("m", true, Some(MIB)), volume("b", false, None)];
        let spec = PodSpec { volumes, containers: vec![container("x", None)], ..PodSpec::default() };
        assert!(!has_disk_limits(&spec));
        check(&spec, &[("b", 1 << 30)], &[("x", 1 << 30)], None);
        let init = PodSpec { init_containers: vec![container("i", Some(MIB))], ..PodSpec::default() };
        assert!(has_disk_limits(&init));
    }
}
