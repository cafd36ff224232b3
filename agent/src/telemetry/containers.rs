//! Readings of control groups and interfaces, taken through the runtime when somebody asks for `/metrics`.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use runtime::Runtime;
use runtime::api::{ContainerStats, NetworkStats};
use spec::observed::PodUid;

use super::{Maker, as_float, names};
use crate::status::Snapshot;

/// So many readings are taken at once.
const PARALLEL: usize = 16;

/// A reading that takes longer is left out: Prometheus gives up after 10 s by default.
const PATIENCE: Duration = Duration::from_secs(5);

/// Readings of one moment.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    /// Of containers: namespace, workload, pod, container.
    pub containers: Vec<([String; 4], ContainerStats)>,
    /// Of pods with a network of their own: namespace, workload, pod.
    pub pods: Vec<([String; 3], NetworkStats)>,
    /// So many could not be taken.
    pub failures: u64,
}

enum Reading {
    Container([String; 4], ContainerStats),
    Pod([String; 3], NetworkStats),
    Nothing,
    Failed,
}

/// What is to be read: a pod's interface, or one container.
struct Wanted {
    labels: [String; 3],
    uid: PodUid,
    container: Option<String>,
}

/// Reads every running container and every pod of a snapshot.
pub async fn gather(runtime: &dyn Runtime, snapshot: &Snapshot) -> Readings {
    let mut readings = stream::iter(wanted(snapshot))
        .map(|wanted| async move {
            let reading = read(runtime, wanted);
            tokio::time::timeout(PATIENCE, reading).await.unwrap_or(Reading::Failed)
        })
        .buffer_unordered(PARALLEL);
    let mut all = Readings::default();
    while let Some(reading) = readings.next().await {
        match reading {
            Reading::Container(labels, stats) => all.containers.push((labels, stats)),
            Reading::Pod(labels, stats) => all.pods.push((labels, stats)),
            Reading::Nothing => {}
            Reading::Failed => all.failures += 1,
        }
    }
    all
}

fn wanted(snapshot: &Snapshot) -> Vec<Wanted> {
    let mut all = Vec::new();
    for workload in &snapshot.workloads {
        for pod in &workload.pods {
            let one = |container: Option<String>| Wanted {
                labels: [workload.namespace.clone(), workload.name.clone(), pod.name.clone()],
                uid: PodUid(pod.uid.clone()),
                container,
            };
            let running = pod.containers.iter().filter(|container| container.state == "running");
            all.extend(running.map(|container| one(Some(container.name.clone()))));
            all.extend(pod.ip.is_some().then(|| one(None)));
        }
    }
    all
}

async fn read(runtime: &dyn Runtime, Wanted { labels, uid, container }: Wanted) -> Reading {
    match container {
        Some(container) => match runtime.stats(&uid, &container).await {
            Ok(stats) => {
                let [namespace, workload, pod] = labels;
                Reading::Container([namespace, workload, pod, container], stats)
            }
            Err(_) => Reading::Failed,
        },
        None => match runtime.network_stats(&uid).await {
            Ok(Some(stats)) => Reading::Pod(labels, stats),
            Ok(None) => Reading::Nothing,
            Err(_) => Reading::Failed,
        },
    }
}

const NANOS: f64 = 1e9;

impl Readings {
    /// Makes series of them.
    pub(super) fn register(&self, make: &Maker<'_>) {
        make.gauges(names::SCRAPE_FAILURES).with_label_values(super::NONE).set(as_float(self.failures));
        let counters = |metric, value: &dyn Fn(&ContainerStats) -> f64| {
            let vector = make.counters(metric);
            for (labels, stats) in &self.containers {
                vector.with_label_values(labels).inc_by(value(stats));
            }
        };
        counters(names::CPU, &|stats| as_float(stats.cpu_nanos) / NANOS);
        counters(names::THROTTLED, &|stats| as_float(stats.throttled.1) / NANOS);
        counters(names::THROTTLES, &|stats| as_float(stats.throttled.0));
        counters(names::FS_READ, &|stats| as_float(stats.io_bytes.0));
        counters(names::FS_WRITE, &|stats| as_float(stats.io_bytes.1));
        let stalled = make.counters(names::STALLED);
        for (labels, stats) in &self.containers {
            for (resource, nanos) in ["cpu", "memory", "io"].iter().zip(stats.stalled.into_iter().flatten()) {
                let [namespace, workload, pod, container] = labels;
                let labels = [namespace.as_str(), workload, pod, container, resource];
                stalled.with_label_values(&labels).inc_by(as_float(nanos) / NANOS);
            }
        }
        let gauges = |metric, value: &dyn Fn(&ContainerStats) -> Option<u64>| {
            let vector = make.gauges(metric);
            for (labels, stats) in &self.containers {
                if let Some(value) = value(stats) {
                    vector.with_label_values(labels).set(as_float(value));
                }
            }
        };
        gauges(names::WORKING_SET, &|stats| Some(stats.working_set_bytes));
        gauges(names::MEMORY, &|stats| Some(stats.memory_bytes));
        gauges(names::MEMORY_LIMIT, &|stats| stats.memory_limit);
        gauges(names::PIDS, &|stats| Some(stats.pids));
        let networks = |metric, value: &dyn Fn(&NetworkStats) -> u64| {
            let vector = make.counters(metric);
            for (labels, stats) in &self.pods {
                vector.with_label_values(labels).inc_by(as_float(value(stats)));
            }
        };
        networks(names::NET_RX_BYTES, &|stats| stats.bytes.0);
        networks(names::NET_TX_BYTES, &|stats| stats.bytes.1);
        networks(names::NET_RX_PACKETS, &|stats| stats.packets.0);
        networks(names::NET_TX_PACKETS, &|stats| stats.packets.1);
    }
}
