//! Quality of service: what requests and limits of a pod mean for its share of a busy node (Kubernetes, "Pod Quality of
//! Service Classes"; kubelet, `pkg/kubelet/qos/policy.go` and `pkg/kubelet/cm/helpers_linux.go`).

use crate::pod::{ContainerSpec, PodSpec, Resources};

/// How firmly the node's memory is promised to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has a limit of CPU and of memory, and requests as much.
    Guaranteed,
    /// Some container asks for something.
    Burstable,
    /// Nobody asks for anything.
    BestEffort,
}

/// CPU shares (version 1 scale) of a cgroup that asks for none: the least there is.
const MIN_SHARES: u64 = 2;
/// Bytes of a page, or a part of it: limits are whole pages.
const PAGE: u64 = 4096;
/// The most there are.
const MAX_SHARES: u64 = 262_144;

/// CPU and memory that a container asks for. A request that is not written is the limit.
fn requests(resources: &Resources) -> [(Option<u64>, Option<u64>); 2] {
    let some = |value: Option<u64>| value.filter(|value| *value > 0);
    let pair = |request: Option<u64>, limit: Option<u64>| (some(request.or(limit)), some(limit));
    [
        pair(resources.cpu_request_milli, resources.cpu_limit_milli),
        pair(resources.memory_request, resources.memory_limit),
    ]
}

impl QosClass {
    /// The class of a pod.
    #[must_use]
    pub fn of(pod: &PodSpec) -> Self {
        let all: Vec<_> = pod.all_containers().flat_map(|container| requests(&container.resources)).collect();
        if all.iter().all(|(request, _)| request.is_none()) {
            Self::BestEffort
        } else if all.iter().all(|(request, limit)| limit.is_some() && request == limit) {
            Self::Guaranteed
        } else {
            Self::Burstable
        }
    }
}

/// How much sooner than others the processes of a container are killed when the node has no memory left: those of pods
/// that asked for nothing first, then whoever uses more than it asked for. `node_memory` is in bytes.
#[must_use]
pub fn oom_score_adj(pod: &PodSpec, container: &ContainerSpec, node_memory: u64) -> i32 {
    match QosClass::of(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let [_, (memory, _)] = requests(&container.resources);
            let share = u128::from(memory.unwrap_or(0)) * 1000 / u128::from(node_memory.max(1));
            (1000 - i32::try_from(share).unwrap_or(1000)).clamp(3, 999)
        }
    }
}

/// Bytes of memory from which a container is slowed down and made to give back: so many percent of the way from its
/// request to its limit, or to all of the node without one. None for what is promised to it in full (Kubernetes, KEP-2570,
/// `memoryThrottlingFactor`).
#[must_use]
pub fn memory_high(pod: &PodSpec, container: &ContainerSpec, node_memory: u64, percent: u32) -> Option<u64> {
    let [_, (request, limit)] = requests(&container.resources);
    let (request, limit) = (request.unwrap_or(0), limit.unwrap_or(node_memory));
    if percent == 0 || QosClass::of(pod) == QosClass::Guaranteed || request >= limit {
        return None;
    }
    let way = u128::from(limit - request) * u128::from(percent.min(100)) / 100;
    let high = request.saturating_add(u64::try_from(way).ok()?);
    Some(high - high % PAGE)
}

/// CPU shares (version 1 scale) of thousandths of a core (Kubernetes, `MilliCPUToShares`).
#[must_use]
pub fn cpu_shares(milli: u64) -> u64 {
    (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// CPU that a container asks for, in thousandths of a core.
#[must_use]
pub fn cpu_request(resources: &Resources) -> u64 {
    let [(cpu, _), _] = requests(resources);
    cpu.unwrap_or(0)
}

/// CPU shares of a whole pod beside others: what its containers ask for together, or the one init container that asks
/// for more.
#[must_use]
pub fn pod_cpu_shares(pod: &PodSpec) -> u64 {
    let request = |container: &ContainerSpec| cpu_request(&container.resources);
    let stays = |container: &&ContainerSpec| container.is_sidecar();
    let together: u64 = pod.containers.iter().chain(pod.init_containers.iter().filter(stays)).map(request).sum();
    let most = pod.init_containers.iter().map(request).max().unwrap_or(0);
    cpu_shares(together.max(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: &[[Option<u64>; 4]]) -> PodSpec {
        let containers = resources.iter().map(|&[cpu_request_milli, cpu_limit_milli, memory_request, memory_limit]| {
            let resources =
                Resources { cpu_request_milli, cpu_limit_milli, memory_request, memory_limit, ..Resources::default() };
            ContainerSpec { resources, ..ContainerSpec::default() }
        });
        PodSpec { containers: containers.collect(), ..PodSpec::default() }
    }

    #[test]
    fn requests_and_limits_make_the_class_the_score_and_the_shares() {
        let full = [None, Some(500), None, Some(100)];
        for (resources, class, score, shares) in [
            (vec![[None; 4]], QosClass::BestEffort, 1000, 2),
            (vec![[Some(0), None, None, None]], QosClass::BestEffort, 1000, 2),
            (vec![full], QosClass::Guaranteed, -997, 512),
            (vec![full, full], QosClass::Guaranteed, -997, 1024),
            (vec![[Some(500), Some(500), Some(100), Some(100)]], QosClass::Guaranteed, -997, 512),
            (vec![full, [None; 4]], QosClass::Burstable, 900, 512),
            (vec![[Some(100), Some(500), None, Some(100)]], QosClass::Burstable, 900, 102),
            (vec![[Some(250), None, None, None]], QosClass::Burstable, 999, 256),
            (vec![[None, None, Some(1000), None]], QosClass::Burstable, 3, 2),
            (vec![[None, None, Some(u64::MAX), None]], QosClass::Burstable, 3, 2),
            (vec![[None, None, None, Some(250)]], QosClass::Burstable, 750, 2),
        ] {
            let pod = pod(&resources);
            assert_eq!(QosClass::of(&pod), class, "{resources:?}");
            assert_eq!(oom_score_adj(&pod, &pod.containers[0], 1000), score, "{resources:?}");
            assert_eq!(pod_cpu_shares(&pod), shares, "{resources:?}");
        }
        for (request, limit, percent, high) in [
            (None, Some(1 << 20), 0, None),
            (Some(1 << 18), Some(1 << 20), 90, Some((1 << 20) - 81_920)),
            (None, Some(1 << 20), 90, None),
            (Some(1 << 20), None, 50, Some(3 << 19)),
            (None, None, 100, Some(1 << 21)),
        ] {
            let pod = pod(&[[None, None, request, limit]]);
            assert_eq!(memory_high(&pod, &pod.containers[0], 1 << 21, percent), high, "{request:?} {limit:?}");
        }
        let mut pod = pod(&[full]);
        pod.init_containers = vec![ContainerSpec {
            resources: Resources { cpu_request_milli: Some(2000), ..Resources::default() },
            ..ContainerSpec::default()
        }];
        assert_eq!(pod_cpu_shares(&pod), 2048);
        assert_eq!(QosClass::of(&pod), QosClass::Burstable);
    }
}
