//! What others on the host do to the network of pods: it is not ours to change, but people should know.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use super::Inner;
use crate::api::RuntimeEvent;

/// What was looked at, and told.
#[derive(Debug, Default)]
pub(super) struct Told {
    bridges: BTreeSet<String>,
    warnings: BTreeSet<String>,
}

impl Inner {
    /// After a pod has got a network: looks when there is a bridge that was not there before.
    pub(super) fn tell_of_new_bridges(&self) {
        let mut told = self.told_foreign.lock().unwrap_or_else(PoisonError::into_inner);
        if self.bridges() != told.bridges {
            self.tell_warnings(&mut told);
        }
    }

    /// Tells what is new since it was told last.
    pub(super) fn tell_foreign(&self) {
        self.tell_warnings(&mut self.told_foreign.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn bridges(&self) -> BTreeSet<String> {
        self.network.bridges().into_iter().collect()
    }

    fn tell_warnings(&self, told: &mut Told) {
        let bridges = self.bridges();
        if bridges.is_empty() {
            return;
        }
        let warnings: BTreeSet<String> = match self.network.warnings() {
            Ok(warnings) => warnings.into_iter().collect(),
            Err(error) => {
                tracing::debug!(error = super::chain(&error), "rules of others cannot be read");
                return;
            }
        };
        for warning in warnings.difference(&told.warnings) {
            // Nobody listens any more when the agent ends.
            let _ = self.hints.send(RuntimeEvent::NetworkWarning(warning.clone()));
        }
        *told = Told { bridges, warnings };
    }
}
