//! Why something is done, and why something is not done yet: one typed word everywhere.

use serde::Serialize;

use super::versions::Cause;
use crate::cron::Zone;
use crate::diff::Change;
use crate::hold::Pause;
use crate::time::Timestamp;
use crate::workload::WorkloadId;

/// Why an action is taken. [`Reason::word`] is the same in plan, log, metric, event and status.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// Fewer pods than wished.
    Missing,
    /// The workload's template is another one now.
    SpecChanged {
        /// In what.
        changes: Vec<Change>,
    },
    /// The container has not run in this pod yet.
    NotStarted,
    /// The container ended and its policy runs it again.
    Exited {
        /// With this code.
        code: i32,
        /// Killed for want of memory.
        oom: bool,
    },
    /// The pod's namespaces are gone: a reboot, or a lost run directory.
    SandboxLost,
    /// More pods than wished.
    ScaledDown,
    /// Its manifest is gone.
    Removed,
    /// A probe failed for good.
    Unhealthy,
    /// A new version has taken over.
    Replaced,
    /// The pod ran for longer than `activeDeadlineSeconds`.
    DeadlineExceeded,
    /// The pod uses more disk than it may.
    Evicted {
        /// What of it is above which limit.
        message: String,
    },
    /// The content of generated volumes is another one now.
    FilesChanged,
    /// Ports are to lead elsewhere.
    PortsChanged,
    /// Services are to lead elsewhere.
    ServicesChanged,
    /// Names stand for other pods now.
    NamesChanged,
    /// Its images are needed.
    ImagesNeeded,
    /// The schedule of a CronJob says so.
    Scheduled {
        /// The moment, in seconds of Unix time.
        at: i64,
    },
    /// A CronJob is new here: its schedule counts from now on.
    NewSchedule,
    /// A run could not start within `startingDeadlineSeconds`.
    RunMissed {
        /// The moment, in seconds of Unix time.
        at: i64,
    },
    /// A run of a CronJob was started.
    RunStarted {
        /// The moment, in seconds of Unix time.
        at: i64,
    },
    /// A run of a CronJob ended.
    RunEnded {
        /// The moment, in seconds of Unix time.
        at: i64,
        /// Whether it did what it should.
        succeeded: bool,
    },
    /// A newer run takes its place (`concurrencyPolicy: Replace`).
    RunReplaced,
    /// There are more ended runs than are kept.
    HistoryLimit,
    /// It ended longer ago than `ttlSecondsAfterFinished`.
    TimeToLive,
    /// The Job has ended.
    JobEnded {
        /// Why it failed, when it did.
        failure: Option<String>,
    },
    /// The whole node is to be emptied.
    Down,
    /// The node is drained for maintenance.
    Drained,
    /// Something it depends on was replaced or restarted, and it is to follow.
    DependencyRestarted {
        /// What.
        on: WorkloadId,
    },
    /// The new version failed: the last good one comes back.
    RolledBack {
        /// What was wrong with it.
        cause: Cause,
    },
}

impl Reason {
    /// Whether people should be warned of it.
    #[must_use]
    pub const fn is_bad_news(&self) -> bool {
        matches!(
            self,
            Self::RunMissed { .. } | Self::RunEnded { succeeded: false, .. } | Self::JobEnded { failure: Some(_) }
        )
    }

    /// The word for logs, metric labels and status.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::SpecChanged { .. } => "spec_changed",
            Self::NotStarted => "not_started",
            Self::Exited { .. } => "exited",
            Self::SandboxLost => "sandbox_lost",
            Self::ScaledDown => "scaled_down",
            Self::Removed => "removed",
            Self::Unhealthy => "unhealthy",
            Self::Replaced => "replaced",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Evicted { .. } => "evicted",
            Self::FilesChanged => "files_changed",
            Self::PortsChanged => "ports_changed",
            Self::ServicesChanged => "services_changed",
            Self::NamesChanged => "names_changed",
            Self::ImagesNeeded => "images_needed",
            Self::Scheduled { .. } => "scheduled",
            Self::NewSchedule => "new_schedule",
            Self::RunMissed { .. } => "run_missed",
            Self::RunStarted { .. } => "run_started",
            Self::RunEnded { .. } => "run_ended",
            Self::RunReplaced => "run_replaced",
            Self::HistoryLimit => "history_limit",
            Self::TimeToLive => "time_to_live",
            Self::JobEnded { .. } => "job_ended",
            Self::Down => "down",
            Self::Drained => "drained",
            Self::DependencyRestarted { .. } => "dependency_restarted",
            Self::RolledBack { .. } => "rolled_back",
        }
    }
}

/// Why a workload is not further on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "hold", rename_all = "snake_case")]
pub enum Hold {
    /// Its images are being made available.
    Pulling,
    /// Something failed and is tried again.
    Failed {
        /// What it said.
        message: String,
        /// When it is tried again.
        due: Timestamp,
    },
    /// A container ended and waits for its next start.
    BackingOff {
        /// Which.
        container: String,
        /// When it starts again.
        due: Timestamp,
    },
    /// A container ended too often.
    GaveUp {
        /// Which.
        container: String,
    },
    /// Another workload is not up yet.
    Dependency {
        /// Which.
        on: WorkloadId,
    },
    /// It is wished no longer, and goes on until the workload that takes its place can be made.
    Successor {
        /// Which.
        by: WorkloadId,
    },
    /// The new version is not ready yet; the old one keeps running.
    NotReady,
    /// The new version failed, and there is nothing to go back to or its manifest says not to go back.
    UpdateFailed {
        /// What is wrong with it.
        cause: Cause,
    },
    /// A Job failed for good.
    JobFailed {
        /// Why.
        failure: String,
    },
    /// A change is held back.
    Paused {
        /// By what.
        pause: Pause,
    },
    /// A run is due while another still runs (`concurrencyPolicy: Forbid`).
    PreviousRun {
        /// The moment of the run that waits, in seconds of Unix time.
        at: i64,
    },
    /// The wall clock shows a time before this program was made: no schedule is followed.
    ClockNotSet,
    /// The wall clock shows a time before runs that were started already: none of them runs again.
    ClockBehind {
        /// The newest moment that is settled, in seconds of Unix time.
        settled: i64,
    },
}

impl Hold {
    /// The word for logs, metric labels and status.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pulling => "pulling",
            Self::Failed { .. } => "failed",
            Self::BackingOff { .. } => "backing_off",
            Self::GaveUp { .. } => "gave_up",
            Self::Dependency { .. } => "dependency",
            Self::Successor { .. } => "successor",
            Self::NotReady => "not_ready",
            Self::UpdateFailed { .. } => "update_failed",
            Self::JobFailed { .. } => "job_failed",
            Self::Paused { .. } => "paused",
            Self::PreviousRun { .. } => "previous_run",
            Self::ClockNotSet => "clock_not_set",
            Self::ClockBehind { .. } => "clock_behind",
        }
    }
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pulling => f.write_str("pulling images"),
            Self::Failed { message, .. } => write!(f, "{message}"),
            Self::BackingOff { container, .. } => write!(f, "container `{container}` waits before its next start"),
            Self::GaveUp { container } => write!(f, "container `{container}` ended too often"),
            Self::Dependency { on } => write!(f, "waiting for {on}"),
            Self::Successor { by } => write!(f, "it is removed when {by} can take its place"),
            Self::NotReady => f.write_str("the new version is not ready yet, the old one keeps running"),
            Self::UpdateFailed { cause } => write!(f, "this version failed: {cause}"),
            Self::Paused { pause } => write!(f, "a change waits: {pause}"),
            Self::JobFailed { failure } => write!(f, "the Job failed: {failure}"),
            Self::PreviousRun { at } => {
                write!(f, "the run of {} waits until the one before it has ended", Zone::utc().show(*at))
            }
            Self::ClockNotSet => f.write_str("the clock of this host is not set: no run is started until it is"),
            Self::ClockBehind { settled } => write!(
                f,
                "the clock of this host was set back: runs up to {} were started already and do not start again",
                Zone::utc().show(*settled)
            ),
        }
    }
}
