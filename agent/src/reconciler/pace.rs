//! How often the loop may look at everything.
//!
//! A pass costs in proportion to the pods there are, and each ended action asks for one. One change after the other is
//! planned at once; a flood of them is gathered, so that passes take a quarter of the time at most and the rest is left
//! for the actions themselves. Goes by the number of pods and not by a clock's reading of a pass: the same events lead to
//! the same passes.

use std::time::Duration;

use tokio::time::Instant;

/// What a pass costs for each pod, measured.
const EACH_POD: Duration = Duration::from_micros(20);
/// Cost that is not waited for: the steps of one change follow each other without a pause.
const FREE: Duration = Duration::from_millis(20);
/// Passes take one part in so many.
const SHARE: u32 = 4;

/// Cost of passes that time has not yet made up for.
#[derive(Debug)]
pub(super) struct Pace {
    debt: Duration,
    at: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { debt: Duration::ZERO, at: Instant::now() }
    }

    /// When the next pass may begin.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        self.debt = self.debt.saturating_sub(now.saturating_duration_since(self.at) / SHARE);
        self.at = now;
        now + self.debt.saturating_sub(FREE) * SHARE
    }

    /// A pass over so many pods was made.
    pub(super) fn passed(&mut self, pods: usize) {
        self.debt += EACH_POD * u32::try_from(pods).unwrap_or(u32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a flood of events waits before each of `passes` passes over `pods` pods, in all.
    fn waited(pods: usize, passes: u32) -> Duration {
        let (mut pace, start) = (Pace::new(), Instant::now());
        let mut now = start;
        for _ in 0..passes {
            now = pace.next(now);
            pace.passed(pods);
        }
        now - start
    }

    #[test]
    fn a_single_change_waits_for_nothing_and_a_flood_is_gathered() {
        assert_eq!(waited(100, 10), Duration::ZERO, "the steps of one change among many pods");
        assert_eq!(waited(10, 90), Duration::ZERO, "few pods");
        assert_eq!(waited(100, 110), Duration::from_millis(8) * 99, "a pass of 2 ms every 8 ms");
    }

    #[test]
    fn time_makes_up_for_passes() {
        let (mut pace, now) = (Pace::new(), Instant::now());
        (0..100).for_each(|_| pace.passed(100));
        assert!(pace.next(now) > now);
        let later = now + Duration::from_secs(1);
        assert_eq!(pace.next(later), later);
    }
}
