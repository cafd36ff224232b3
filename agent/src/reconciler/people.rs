//! What people ask the loop for and what it keeps of it.

use spec::budget::{Approval, HeldRemoval};

use super::gate::wish_label;
use super::{EventKind, Reconciler, event};
use crate::events::Word;
use crate::orders::{Order, Pin, Standing};
use crate::status::HeldStatus;

impl Reconciler {
    /// Approves what is held under this id: a removal, or a source that is another directory than before. Whether
    /// there is such a thing.
    pub(super) fn approve(&mut self, id: &str) -> Result<bool, String> {
        let removal = self.removal.as_ref().filter(|removal| removal.id == id);
        let source = self.reading.sources.iter().find(|source| source.approve.as_deref() == Some(id));
        let (reason, message) = match (removal, source) {
            (Some(removal), _) => (Word::REMOVAL_APPROVED, format!("{id}: {}", removal.reason)),
            (None, Some(source)) => (Word::SOURCE_APPROVED, format!("{id}: what {} shows counts", source.path)),
            (None, None) => return Ok(false),
        };
        let approval = removal.map(HeldRemoval::approval);
        let changed = self.orders.change(|standing| match approval {
            Some(approval) => standing.removals.push(approval),
            None => standing.sources.push(id.to_owned()),
        });
        changed.map_err(|error| format!("cannot write the approval down: {error}"))?;
        tracing::info!(id, reason = reason.as_str(), "approved");
        self.journal.record(event(self.clock.unix(), EventKind::Normal, reason, None, message));
        Ok(true)
    }

    /// Carries an order out; a sentence about what holds now.
    pub(super) fn order(&mut self, order: Order) -> Result<String, String> {
        let unix = self.clock.unix();
        match order {
            Order::Pause { workload } => {
                let what = workload.clone().unwrap_or_else(|| "*".to_owned());
                self.known(workload.as_deref())?;
                self.stand(|standing| standing.paused.extend([(what, unix)]))?;
                self.reconsider();
                let about = workload.unwrap_or_else(|| "everything".to_owned());
                Ok(self.ordered(Word::PAUSED, format!("{about} is paused: changes wait, healing goes on")))
            }
            Order::Resume { workload: Some(workload) } => {
                let standing = self.orders.standing();
                if standing.paused.contains_key("*") {
                    return Err("everything is paused: `mainstay resume` without a name lets it go on".to_owned());
                }
                if !standing.paused.contains_key(&workload) {
                    return Err(format!("{workload} is not paused"));
                }
                self.stand(|standing| standing.paused.retain(|known, _| *known != workload))?;
                self.reconsider();
                Ok(self.ordered(Word::RESUMED, format!("{workload} goes on")))
            }
            Order::Resume { workload: None } => {
                self.stand(|standing| {
                    standing.paused.clear();
                    standing.drained = None;
                })?;
                self.unpin("a person said so");
                self.reconsider();
                Ok(self.ordered(Word::RESUMED, "everything goes on".to_owned()))
            }
            Order::Rollback { generation } => {
                if !self.ready {
                    return Err("the sources are not read yet: try again in a moment".to_owned());
                }
                let Some(history) = &self.history else { return Err("no generations are kept".to_owned()) };
                let whole = history.load(generation).map_err(|error| spec::causes::chain(&error))?;
                let revision = wish_label(&self.reading.desired);
                self.stand(|standing| standing.pinned = Some(Pin { generation, revision }))?;
                self.pin(generation, whole);
                let message = format!("back to generation {generation}, until the sources change or `mainstay resume`");
                Ok(self.ordered(Word::ROLLED_BACK, message))
            }
            Order::Drain => {
                self.stand(|standing| standing.drained = Some(standing.drained.unwrap_or(unix)))?;
                self.reconsider();
                Ok(self.ordered(Word::DRAINED, "everything is stopped, until `mainstay uncordon`".to_owned()))
            }
            Order::Uncordon => {
                if self.orders.standing().drained.is_none() {
                    return Err("the node is not drained".to_owned());
                }
                self.stand(|standing| standing.drained = None)?;
                self.reconsider();
                Ok(self.ordered(Word::RESUMED, "the node is in use again".to_owned()))
            }
        }
    }

    /// Forgets approvals of removals in states of the sources that are over: should such a state come back, by a commit that
    /// is reverted, nobody has been asked about it. A source that cannot be read is in no other state.
    pub(super) fn forget_approvals(&self) {
        let readable = self.reading.sources.iter().all(|source| source.state != "failed");
        let over = |approval: &Approval| approval.revision != self.reading.revision;
        if readable && self.orders.standing().removals.iter().any(over) {
            let changed = self.orders.change(|standing| standing.removals.retain(|approval| !over(approval)));
            if let Err(error) = changed {
                tracing::error!(%error, "approvals that are over are not taken back");
            }
        }
    }

    fn known(&self, workload: Option<&str>) -> Result<(), String> {
        let Some(workload) = workload else { return Ok(()) };
        let wished = self.wished().workloads.keys().map(ToString::to_string);
        let running = self.observed.pods.values().map(|pod| pod.record.workload.to_string());
        if wished.chain(running).any(|known| known == workload) {
            return Ok(());
        }
        Err(format!("there is no workload {workload}"))
    }

    fn stand(&self, change: impl FnOnce(&mut Standing)) -> Result<(), String> {
        let changed = self.orders.change(change);
        changed.map(drop).map_err(|error| format!("cannot write the order down: {error}"))
    }

    fn ordered(&mut self, reason: Word, message: String) -> String {
        self.say(reason, None, message.clone());
        message
    }

    /// Writes down which workloads are held from now on, and which are not any more.
    pub(super) fn note_held(&mut self, reading: &super::Reading) {
        let before = std::mem::take(&mut self.reading.held);
        for (id, HeldStatus { reason, message }) in &reading.held {
            if before.get(id).is_none_or(|known| known.reason != *reason) {
                let warning = event(self.clock.unix(), EventKind::Warning, Word::HELD, Some(id), message.clone());
                self.journal.record(warning);
            }
        }
        for id in before.keys().filter(|id| !reading.held.contains_key(id)) {
            self.say(Word::HELD_NO_MORE, Some(id), "its source is well again".to_owned());
        }
    }
}
