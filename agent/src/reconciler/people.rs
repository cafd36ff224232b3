//! What people ask the loop for and what it keeps of it.

use super::{EventKind, Reconciler, event};

impl Reconciler {
    /// Approves what is held under this id: a removal, or a source that is another directory than before. Whether
    /// there is such a thing.
    pub(super) fn approve(&mut self, id: &str) -> Result<bool, String> {
        let removal = self.removal.as_ref().filter(|removal| removal.id == id);
        let source = self.reading.sources.iter().find(|source| source.approve.as_deref() == Some(id));
        let (reason, message) = match (removal, source) {
            (Some(removal), _) => ("removal_approved", format!("{id}: {}", removal.reason)),
            (None, Some(source)) => ("source_approved", format!("{id}: what {} shows counts", source.path)),
            (None, None) => return Ok(false),
        };
        let approval = removal.map(spec::budget::HeldRemoval::approval);
        let changed = self.orders.change(|standing| match approval {
            Some(approval) => standing.removals.push(approval),
            None => standing.sources.push(id.to_owned()),
        });
        changed.map_err(|error| format!("cannot write the approval down: {error}"))?;
        tracing::info!(id, reason, "approved");
        self.journal.record(event(self.clock.unix(), EventKind::Normal, reason, None, message));
        Ok(true)
    }
}
