//! What simulations of the loop have in common.

pub(crate) mod referee;

use runtime::sim::Sim;
use spec::time::Timestamp;

/// Runs to its end on one thread whose time passes only where everything waits for it.
pub(crate) fn in_simulated_time<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a current-thread runtime needs no resources").block_on(what)
}

/// The simulated world's clock. Its wall clock is the worst there is: it begins in 1970 and is stepped every minute,
/// forwards and back. Nothing but schedules may take notice.
pub(crate) struct SimClock(pub(crate) Sim);

impl agent::clock::Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn unix(&self) -> i64 {
        wall(self.0.now())
    }
}

/// What the clock on the wall shows.
fn wall(now: Timestamp) -> i64 {
    match now.0 / 60_000 % 4 {
        0 => 0,
        1 => 1_800_000_000,
        2 => 1000,
        _ => 4_102_444_800,
    }
}

/// A maintenance window that the clock on the wall goes into and out of.
pub(crate) const WINDOW: &str = "00:00-00:10";

/// Whether that window has been closed for long enough that what was decided before is over.
fn is_closed(now: Timestamp) -> bool {
    let closed = |now| match spec::window::parse_all(WINDOW) {
        Ok(windows) => !spec::window::any_open(&windows, wall(now)).0,
        Err(_) => false,
    };
    closed(now) && closed(Timestamp(now.0.saturating_sub(2000)))
}
