//! What simulations of the loop have in common.

pub(crate) mod referee;

use runtime::sim::Sim;
use spec::time::Timestamp;

/// The simulated world's clock. Its wall clock is the worst there is: it begins in 1970 and is stepped every minute,
/// forwards and back. Nothing but schedules may take notice.
pub(crate) struct SimClock(pub(crate) Sim);

impl agent::clock::Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn unix(&self) -> i64 {
        match self.0.now().0 / 60_000 % 4 {
            0 => 0,
            1 => 1_800_000_000,
            2 => 1000,
            _ => 4_102_444_800,
        }
    }
}
