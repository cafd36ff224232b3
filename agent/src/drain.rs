//! Counts the connections of pods that are being drained, while there are such pods, and tells the loop which of them
//! have none. What follows from that is the planner's ([`spec::plan`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime::Runtime;
use spec::observed::PodUid;
use spec::time::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::reconciler::Event;

/// Between two counts.
const PERIOD: Duration = Duration::from_millis(250);

type Draining = BTreeMap<PodUid, Timestamp>;

/// The task that counts. It ends with this.
pub struct DrainWatch {
    wanted: watch::Sender<Draining>,
    task: tokio::task::JoinHandle<()>,
}

impl DrainWatch {
    /// Starts with nothing to count.
    #[must_use]
    pub fn new(runtime: Arc<dyn Runtime>, events: mpsc::UnboundedSender<Event>) -> Self {
        let (wanted, receiver) = watch::channel(Draining::new());
        Self { wanted, task: tokio::spawn(count(runtime, receiver, events)) }
    }

    /// Counts for these from now on; each is told of anew when the time since when it is drained is another.
    pub fn follow(&self, draining: &Draining) {
        self.wanted.send_if_modified(|known| {
            let changed = known != draining;
            if changed {
                known.clone_from(draining);
            }
            changed
        });
    }
}

impl Drop for DrainWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn count(runtime: Arc<dyn Runtime>, mut wanted: watch::Receiver<Draining>, events: mpsc::UnboundedSender<Event>) {
    let mut told: BTreeMap<PodUid, (Timestamp, bool)> = BTreeMap::new();
    loop {
        let draining = wanted.borrow_and_update().clone();
        told.retain(|uid, _| draining.contains_key(uid));
        if draining.is_empty() {
            // Nothing to count: no timer runs.
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        }
        for (uid, since) in &draining {
            match runtime.connections(uid).await {
                Ok(connections) => {
                    let now = (*since, connections == 0);
                    if told.insert(uid.clone(), now) != Some(now) {
                        // Without the loop nobody cares.
                        let _ = events.send(Event::Idle(uid.clone(), now.0, now.1));
                    }
                }
                // What is not known counts as in use, until the limit.
                Err(error) => tracing::debug!(pod = %uid, error = spec::causes::chain(&error), "connections not known"),
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}
