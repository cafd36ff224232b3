//! Keeps the logs of all containers together below a limit. What goes is decided by [`spec::logs`].
//!
//! Looks at sizes only, a few hundred calls for a hundred containers. Between two looks each log is bounded by its own
//! rotation. Without the agent that is the only bound.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::embedded::Layout;
use runtime::embedded::logs::{self, AttemptLog};
use spec::logs::{LogFiles, default_limit, make_room, total};
use tokio::time::Instant;

use crate::clock::SharedClock;
use crate::config::LogLimit;
use crate::events::{Event, EventKind, Journal, Word};
use crate::telemetry::Metrics;

/// Between two looks while more than half of the limit is taken.
const PERIOD: Duration = Duration::from_secs(10);
/// Between two looks while there is much room, and will be for as long: a look costs some calls for each container, on an idle node as well.
const ROOMY: Duration = Duration::from_secs(60);
/// Where containers never stop to write, an event tells of so much time.
const PAUSE: Duration = Duration::from_secs(600);
/// Containers that an event names.
const NAMED: usize = 3;

/// The part of the agent that removes log files.
pub struct LogGc {
    /// Where they are.
    pub layout: Layout,
    /// What they may take together.
    pub limit: LogLimit,
    /// Counts.
    pub metrics: Metrics,
    /// Tells people.
    pub journal: Journal,
    /// Time of events.
    pub clock: SharedClock,
}

/// What one look came to.
#[derive(Debug, Default)]
struct Pass {
    limit: u64,
    /// Bytes that are left.
    left: u64,
    /// Bytes that went, by `pod/container`.
    removed: BTreeMap<String, u64>,
    /// Why some did not go.
    failed: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum LogGcError {
    #[error("cannot look at the logs of containers")]
    Look(#[from] std::io::Error),
    #[error("cannot look at the logs of containers: the thread ended early")]
    Thread,
}

impl LogGc {
    /// Looks now and then, until the future is dropped.
    pub async fn run(self) {
        let mut complained: Option<String> = None;
        let mut untold: BTreeMap<String, u64> = BTreeMap::new();
        let mut told: Option<Instant> = None;
        let mut before: Option<u64> = None;
        loop {
            let mut pause = PERIOD;
            let complaint = match self.pass().await {
                Ok(pass) => {
                    for (owner, bytes) in &pass.removed {
                        *untold.entry(owner.clone()).or_default() += bytes;
                    }
                    if !untold.is_empty() && told.is_none_or(|told| told.elapsed() >= PAUSE) {
                        self.event(Word::LOGS_REMOVED, removed(&std::mem::take(&mut untold), pass.limit));
                        told = Some(Instant::now());
                    }
                    if is_roomy(before, pass.left, pass.limit) {
                        pause = ROOMY;
                    }
                    before = Some(pass.left);
                    pass.failed
                }
                Err(error) => Some(spec::causes::chain(&error)),
            };
            if let Some(message) = complaint.clone().filter(|_| complaint != complained) {
                tracing::warn!(message, "logs not removed");
                self.event(Word::LOGS_NOT_REMOVED, message);
            }
            complained = complaint;
            tokio::time::sleep(pause).await;
        }
    }

    async fn pass(&self) -> Result<Pass, LogGcError> {
        let (layout, limit) = (self.layout.clone(), self.limit);
        let pass = tokio::task::spawn_blocking(move || collect(&layout, limit)).await;
        let pass = pass.map_err(|_| LogGcError::Thread)??;
        let limit = if self.limit == LogLimit::Unlimited { 0 } else { pass.limit };
        self.metrics.logs(pass.left, limit, pass.removed.values().sum());
        Ok(pass)
    }

    fn event(&self, reason: Word, message: String) {
        self.journal.record(Event::of_node(self.clock.unix(), EventKind::Warning, reason, message));
    }
}

/// Whether less than half of the limit is taken, and will be at the next look if it goes on like this. Of the first
/// look nothing follows.
fn is_roomy(before: Option<u64>, now: u64, limit: u64) -> bool {
    let periods = ROOMY.as_secs() / PERIOD.as_secs();
    before.is_some_and(|before| now.saturating_add(now.saturating_sub(before).saturating_mul(periods)) < limit / 2)
}

/// One look.
fn collect(layout: &Layout, limit: LogLimit) -> Result<Pass, LogGcError> {
    let limit = match limit {
        LogLimit::Bytes(bytes) => bytes,
        LogLimit::Auto => default_limit(logs::file_system(layout)?),
        LogLimit::Unlimited => u64::MAX,
    };
    let (files, found): (Vec<LogFiles>, Vec<AttemptLog>) =
        logs::list(layout)?.into_iter().map(|log| (log.files.clone(), log)).unzip();
    let mut pass = Pass { limit, left: total(&files), ..Pass::default() };
    for cut in make_room(&files, limit) {
        let Some(log) = found.get(cut.index) else { continue };
        let name = log.named(layout);
        match log.cut(&cut) {
            Ok(()) => {
                pass.left = pass.left.saturating_sub(cut.bytes);
                *pass.removed.entry(name).or_default() += cut.bytes;
            }
            Err(error) => pass.failed = Some(format!("cannot shorten the log of {name}: {error}")),
        }
    }
    Ok(pass)
}

/// A sentence for people.
fn removed(by_owner: &BTreeMap<String, u64>, limit: u64) -> String {
    let mut owners: Vec<(&String, &u64)> = by_owner.iter().collect();
    owners.sort_by_key(|(name, bytes)| (std::cmp::Reverse(**bytes), *name));
    let mut names: Vec<String> =
        owners.iter().take(NAMED).map(|(name, bytes)| format!("{name} {}", mib(**bytes))).collect();
    if owners.len() > NAMED {
        names.push(format!("{} more", owners.len() - NAMED));
    }
    let (all, limit, names) = (mib(by_owner.values().sum()), mib(limit), names.join(", "));
    format!("the logs of all containers were above {limit} (log_total_size): the oldest {all} were removed: {names}")
}

fn mib(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_much_output_is_looked_at_seldom() {
        for (before, now, roomy) in [
            (None, 0, false),
            (Some(0), 0, true),
            (Some(40), 40, true),
            (Some(50), 50, false),
            // Six periods on it would be above half.
            (Some(10), 20, false),
            (Some(10), 12, true),
            (Some(90), 10, true),
        ] {
            assert_eq!(is_roomy(before, now, 100), roomy, "{before:?} {now}");
        }
    }

    #[test]
    fn a_removal_names_those_who_write_most() {
        let owners = [("a/c", 5 << 20), ("b/c", 90 << 20), ("d/c", 7), ("e/c", 3 << 20)];
        let by_owner = owners.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        let expected = "the logs of all containers were above 100 MiB (log_total_size): the oldest 99 MiB were removed: \
                        b/c 90 MiB, a/c 5 MiB, e/c 3 MiB, 1 more";
        assert_eq!(removed(&by_owner, 100 << 20), expected);
    }
}
