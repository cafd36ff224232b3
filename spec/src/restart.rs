//! When a container that ended runs again, as arithmetic on recorded facts.
//!
//! Numbers: Kubernetes (kubelet): the first restart is immediate, then 10 s doubling to 300 s, afresh after a run of
//! 10 minutes. Compose sets its own through [`RestartBackoff`].

use crate::observed::Exit;
use crate::pod::{RestartBackoff, RestartPolicy};
use crate::time::{Millis, Timestamp};

/// Kubernetes' first wait.
pub const INITIAL: Millis = Millis::from_secs(10);
/// Kubernetes' longest wait.
pub const MAX: Millis = Millis::from_secs(300);
/// Kubernetes' length of a run after which the series starts afresh.
pub const RESET_AFTER: Millis = Millis::from_secs(600);

/// What follows from an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// It stays ended.
    Stay,
    /// Too many attempts: it stays ended although the policy would restart it.
    GiveUp,
    /// It runs again at that moment (which may be past), as this step of the series.
    At {
        /// When.
        due: Timestamp,
        /// The series number of the next attempt.
        series: u32,
    },
}

/// What follows from `exit` of an attempt with that series number. An exit of an earlier boot has no moment on this
/// boot's clock, and the host's end is no failure of the container: a restart is due at once, as the first of a new
/// series (as with the kubelet, whose waits do not outlive a reboot). Who had given up before stays so.
#[must_use]
pub fn after_exit(
    policy: RestartPolicy,
    backoff: Option<&RestartBackoff>,
    exit: &Exit,
    series: u32,
    boot_id: &str,
) -> Restart {
    match policy {
        RestartPolicy::Never => return Restart::Stay,
        // Who ended it was to end the whole pod and did not get there, or ended everything for a shutdown.
        _ if exit.stopped => return Restart::At { due: Timestamp(0), series },
        RestartPolicy::OnFailure if exit.code == 0 => return Restart::Stay,
        RestartPolicy::OnFailure | RestartPolicy::Always => {}
    }
    let settings = backoff.cloned().unwrap_or_default();
    let reset_after = settings.reset_after.unwrap_or(RESET_AFTER);
    let ran = exit.started.map_or(Millis(0), |started| exit.finished.since(started));
    let series = if ran >= reset_after { 0 } else { series };
    if !may_restart(Some(&settings), series) {
        return Restart::GiveUp;
    }
    if exit.boot_id != boot_id {
        return Restart::At { due: Timestamp(0), series: 0 };
    }
    Restart::At { due: exit.finished.plus(wait(&settings, series)), series: series.saturating_add(1) }
}

/// What follows from the end of a service that was ended for being unhealthy, whatever its exit code. Kubernetes' waits
/// count, not Docker's: checks take their time, so each run is long enough to start Docker's series afresh.
#[must_use]
pub fn after_unhealthy(backoff: Option<&RestartBackoff>, exit: &Exit, series: u32, boot_id: &str) -> Restart {
    let limits = RestartBackoff { max_attempts: backoff.and_then(|b| b.max_attempts), ..RestartBackoff::default() };
    after_exit(RestartPolicy::Always, Some(&limits), exit, series, boot_id)
}

/// Whether a series of restarts may go on.
#[must_use]
pub fn may_restart(backoff: Option<&RestartBackoff>, series: u32) -> bool {
    backoff.and_then(|backoff| backoff.max_attempts).is_none_or(|max| series < max)
}

/// The wait before a restart that would be step `series + 1`.
fn wait(settings: &RestartBackoff, series: u32) -> Millis {
    if let Some(initial) = settings.initial {
        // Docker's series starts with its first wait: 100 ms, 200 ms, ...
        return doubled(initial, series, settings.max.unwrap_or(MAX));
    }
    match series {
        0 => Millis(0),
        n => doubled(INITIAL, n - 1, settings.max.unwrap_or(MAX)),
    }
}

/// `initial` doubled `times` times, at most `max`.
#[must_use]
pub fn doubled(initial: Millis, times: u32, max: Millis) -> Millis {
    let factor = 1u64.checked_shl(times.min(40)).unwrap_or(u64::MAX);
    Millis(initial.0.saturating_mul(factor).min(max.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32, started: u64, finished: u64) -> Exit {
        Exit {
            code,
            signal: None,
            oom: false,
            started: Some(Timestamp(started)),
            finished: Timestamp(finished),
            finished_unix: 0,
            boot_id: "b".into(),
            error: None,
            message: None,
            stopped: false,
        }
    }

    #[test]
    fn policies_decide_by_exit_code() {
        use RestartPolicy::{Always, Never, OnFailure};
        for (policy, code, again) in [
            (Always, 0, true),
            (Always, 1, true),
            (OnFailure, 0, false),
            (OnFailure, 3, true),
            (Never, 0, false),
            (Never, 1, false),
        ] {
            let next = after_exit(policy, None, &exit(code, 0, 5), 0, "b");
            assert_eq!(matches!(next, Restart::At { .. }), again, "{policy:?} {code}");
        }
    }

    #[test]
    fn an_end_with_a_pod_that_stays_after_all_is_none_of_its_own() {
        use RestartPolicy::{Always, Never, OnFailure};
        let again = Restart::At { due: Timestamp(0), series: 4 };
        for (policy, code, expected) in [
            (Always, 0, again),
            (Always, 143, again),
            (OnFailure, 0, again),
            (OnFailure, 137, again),
            (Never, 0, Restart::Stay),
        ] {
            let exit = Exit { stopped: true, ..exit(code, 0, 5) };
            assert_eq!(after_exit(policy, None, &exit, 4, "b"), expected, "{policy:?} {code}");
        }
    }

    #[test]
    fn waits_are_kubernetes_numbers() {
        let waits: Vec<u64> = (0..8)
            .map(|series| match after_exit(RestartPolicy::Always, None, &exit(1, 0, 1000), series, "b") {
                Restart::At { due, series: next } => {
                    assert_eq!(next, series + 1);
                    (due.0 - 1000) / 1000
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_long_run_starts_the_series_afresh() {
        let next = after_exit(RestartPolicy::Always, None, &exit(1, 0, 600_000), 6, "b");
        assert_eq!(next, Restart::At { due: Timestamp(600_000), series: 1 });
    }

    #[test]
    fn an_exit_of_an_earlier_boot_is_due_at_once_and_begins_a_new_series() {
        let next = after_exit(RestartPolicy::Always, None, &exit(137, 0, 1000), 5, "other");
        assert_eq!(next, Restart::At { due: Timestamp(0), series: 0 });
        let limited = RestartBackoff { max_attempts: Some(3), ..RestartBackoff::default() };
        let next = after_exit(RestartPolicy::OnFailure, Some(&limited), &exit(1, 0, 1000), 3, "other");
        assert_eq!(next, Restart::GiveUp);
    }

    #[test]
    fn docker_starts_with_its_first_wait_and_can_give_up() {
        let backoff = RestartBackoff {
            initial: Some(Millis(100)),
            max: Some(Millis::from_secs(60)),
            reset_after: Some(Millis::from_secs(10)),
            max_attempts: Some(3),
        };
        let at = |series| after_exit(RestartPolicy::OnFailure, Some(&backoff), &exit(1, 0, 1000), series, "b");
        assert_eq!(at(0), Restart::At { due: Timestamp(1100), series: 1 });
        assert_eq!(at(2), Restart::At { due: Timestamp(1400), series: 3 });
        assert_eq!(at(3), Restart::GiveUp);
    }
}
