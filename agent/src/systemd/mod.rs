//! What the agent and systemd tell each other: readiness, a line of status, the watchdog.
//!
//! Owns the notify socket. It never decides anything and does nothing where no service manager listens: without
//! `NOTIFY_SOCKET` no message is built, without `WATCHDOG_USEC` no timer runs.

mod listen;
mod notify;
mod sys;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::headline::status_line;
use crate::reconciler::Event;
use crate::status::Snapshot;

pub use listen::Inherited;
pub use notify::{Notifier, NotifyError};

/// Exit code of an agent that a service manager started and `mainstay down` ended.
///
/// `down` means that nothing is to run until somebody starts the agent again, so the unit must not restart it then:
/// `RestartPreventExitStatus=` names this code, `SuccessExitStatus=` makes it no failure. It is not 0, since an agent
/// that ends with 0 for any other reason (a stray TERM) has to come back.
pub const EXIT_AFTER_DOWN: u8 = 3;

/// Exit code of an agent whose configuration cannot be used (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// Waits until what is wrong may have been mended, while the service manager is told why.
///
/// systemd starts a unit that failed anew within its `RestartSec=`, which is short so that a crash of the agent is
/// hardly noticed. A broken file does not get better in 100 ms: the pause is made here, and ends early when `mended`.
pub fn pause_before_retry(why: &str, mended: impl Fn() -> bool) {
    let Ok(notifier) = Notifier::of_process() else { return };
    if !notifier.is_heard() {
        return;
    }
    notifier.status(&format!("not started: {why}"));
    for _ in 0..PAUSE.as_secs() {
        std::thread::sleep(Duration::from_secs(1));
        if mended() {
            return;
        }
    }
}

/// So long nothing is tried again.
const PAUSE: Duration = Duration::from_secs(10);

/// How long a message of the watchdog may be missing before systemd ends the agent (`WATCHDOG_USEC`, sd_watchdog_enabled(3)).
/// Nothing when the manager watches nobody or another process.
#[must_use]
pub fn watchdog_limit(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Option<Duration> {
    let limit: u64 = variable("WATCHDOG_USEC")?.parse().ok().filter(|limit| *limit > 0)?;
    match variable("WATCHDOG_PID") {
        Some(other) if other.parse() != Ok(pid) => None,
        _ => Some(Duration::from_micros(limit)),
    }
}

/// Reports to the service manager until it is dropped: ready when the loop answers for the first time (it has listed
/// what runs by then; whether there is a source does not matter), each change of the status line, and a sign of life
/// at half of the watchdog's time, each only after the loop itself has answered.
pub async fn report(
    notifier: Arc<Notifier>,
    watchdog: Option<Duration>,
    events: mpsc::UnboundedSender<Event>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) {
    if !notifier.is_heard() || !answers(&events).await {
        return;
    }
    notifier.ready();
    tokio::join!(statuses(&notifier, snapshots), signs_of_life(&notifier, watchdog, &events));
}

/// Whether the loop answers; waits as long as that takes.
pub(crate) async fn answers(events: &mpsc::UnboundedSender<Event>) -> bool {
    let (reply, answer) = oneshot::channel();
    events.send(Event::Ping(reply)).is_ok() && answer.await.is_ok()
}

async fn statuses(notifier: &Notifier, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    let mut told = String::new();
    loop {
        let line = status_line(&snapshots.borrow_and_update());
        if line != told {
            notifier.status(&line);
            told = line;
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

async fn signs_of_life(notifier: &Notifier, limit: Option<Duration>, events: &mpsc::UnboundedSender<Event>) {
    let Some(limit) = limit else { return };
    loop {
        // A loop that is stuck never answers: nothing is sent, and systemd ends the agent when the time is over.
        if !answers(events).await {
            return;
        }
        notifier.alive();
        tokio::time::sleep(limit / 2).await;
    }
}

#[cfg(test)]
mod tests;
