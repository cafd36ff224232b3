//! Measures what pods with a limit on the disk take of it, at a bounded cost. Judges by [`spec::plan::over_disk_limit`]
//! and reports only what is above a limit; what follows from that is the planner's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use runtime::Runtime;
use spec::observed::{ContainerFacts, DiskUsage, PodFacts, PodUid};
use tokio::sync::{mpsc, watch};

use crate::reconciler::Event;

/// Between two rounds (kubelet measures every 10 s to a minute).
const PERIOD: Duration = Duration::from_secs(10);

/// A round that takes long is followed by so many times its length of rest: at most 2 % of one core.
const REST: u32 = 50;

/// A pod is above a limit.
#[derive(Debug)]
pub struct DiskReport {
    /// Which.
    pub pod: PodUid,
    /// What it takes.
    pub usage: DiskUsage,
}

/// The task that measures. It ends with this.
pub struct DiskWatch {
    wanted: watch::Sender<Vec<Arc<PodFacts>>>,
    task: tokio::task::JoinHandle<()>,
}

impl DiskWatch {
    /// Starts with nothing to measure.
    #[must_use]
    pub fn new(runtime: Arc<dyn Runtime>, events: mpsc::UnboundedSender<Event>) -> Self {
        let (wanted, receiver) = watch::channel(Vec::new());
        Self { wanted, task: tokio::spawn(measure(runtime, receiver, events)) }
    }

    /// Measures the running pods among these that have a limit, from now on.
    pub fn follow<'a>(&mut self, pods: impl Iterator<Item = &'a Arc<PodFacts>>) {
        let running = |pod: &&Arc<PodFacts>| {
            pod.failed.is_none()
                && spec::plan::has_disk_limits(&pod.record.spec)
                && pod.containers.values().any(ContainerFacts::is_running)
        };
        let pods: Vec<Arc<PodFacts>> = pods.filter(running).map(Arc::clone).collect();
        let uids =
            |pods: &[Arc<PodFacts>]| -> BTreeSet<PodUid> { pods.iter().map(|pod| pod.record.uid.clone()).collect() };
        self.wanted.send_if_modified(|known| {
            let changed = uids(known) != uids(&pods);
            if changed {
                *known = pods;
            }
            changed
        });
    }
}

impl Drop for DiskWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn measure(
    runtime: Arc<dyn Runtime>,
    mut wanted: watch::Receiver<Vec<Arc<PodFacts>>>,
    events: mpsc::UnboundedSender<Event>,
) {
    loop {
        let pods = wanted.borrow_and_update().clone();
        if pods.is_empty() {
            // Nothing to measure: no timer runs.
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        }
        let started = tokio::time::Instant::now();
        for pod in &pods {
            let uid = &pod.record.uid;
            match runtime.disk_usage(uid).await {
                Ok(usage) if spec::plan::over_disk_limit(&pod.record.spec, &usage).is_some() => {
                    // Without the loop nobody cares.
                    let _ = events.send(Event::Disk(DiskReport { pod: uid.clone(), usage }));
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(pod = %pod.record.name, %error, "disk use not known"),
            }
        }
        tokio::time::sleep(PERIOD.max(started.elapsed() * REST)).await;
    }
}
