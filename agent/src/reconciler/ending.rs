//! How the loop ends: for good, or for another agent that takes over. Whatever it waits for, it answers pings, since a
//! grace period may be longer than a watchdog waits.

use super::{Event, Reconciler};

impl Reconciler {
    /// Waits for what is in flight.
    pub(super) async fn settle(&mut self) {
        while !self.observed.in_flight.is_empty() {
            match self.inbox.recv().await {
                Some(Event::Done(step, outcome, elapsed)) => self.done(*step, outcome, elapsed),
                Some(Event::Ping(reply)) => drop(reply.send(())),
                Some(_) => {}
                None => break,
            }
        }
    }

    /// Stops everything, after what is in flight has ended.
    pub(super) async fn down(&mut self) -> Result<(), String> {
        self.settle().await;
        let executor = self.executor.clone();
        let stopping = executor.down();
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                result = &mut stopping => return result,
                // Grace periods may be longer than a watchdog waits.
                event = self.inbox.recv() => {
                    if let Some(Event::Ping(reply)) = event {
                        let _ = reply.send(());
                    }
                }
            }
        }
    }
}
