//! The words that say why an event was written down. People choose from them which events a webhook gets, so there is a
//! list, and nothing is written down with a word that is not in it.

use spec::plan::{Action, Reason};

/// Why an event was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word(&'static str);

macro_rules! words {
    ($($name:ident = $word:literal,)*) => {
        #[expect(missing_docs, reason = "each says itself what it is")]
        impl Word {
            $(pub const $name: Self = Self($word);)*
        }

        /// Words of the agent.
        const OWN: &[&str] = &[$($word),*];
    };
}

words! {
    BACKING_OFF = "backing_off",
    CLOCK_BEHIND = "clock_behind",
    CLOCK_NOT_SET = "clock_not_set",
    CREATE_POD_FAILED = "create_pod_failed",
    DRAINED = "drained",
    EXITED = "exited",
    FAIL_POD_FAILED = "fail_pod_failed",
    FETCHING_IMAGES = "fetching_images",
    GAVE_UP = "gave_up",
    HELD = "held",
    HELD_NO_MORE = "held_no_more",
    IMAGES_FETCHED = "images_fetched",
    IMAGE_GC = "image_gc",
    IMAGE_GC_FAILED = "image_gc_failed",
    JOB_FAILED = "job_failed",
    LISTEN_FAILED = "listen_failed",
    LOGS_NOT_REMOVED = "logs_not_removed",
    LOGS_REMOVED = "logs_removed",
    NETWORK_WARNING = "network_warning",
    NOT_READY = "not_ready",
    OOM_KILLED = "oom_killed",
    PAUSED = "paused",
    PUBLISH_PORTS_FAILED = "publish_ports_failed",
    PUBLISH_SERVICES_FAILED = "publish_services_failed",
    PULL_FAILED = "pull_failed",
    RELOADING = "reloading",
    RELOAD_REFUSED = "reload_refused",
    REMEMBER_FAILED = "remember_failed",
    REMOVAL_APPROVED = "removal_approved",
    REMOVAL_HELD = "removal_held",
    RESTORE_POD_FAILED = "restore_pod_failed",
    RESUMED = "resumed",
    ROLLBACK_OVER = "rollback_over",
    ROLLED_BACK = "rolled_back",
    RUNTIME_MISSING = "runtime_missing",
    SET_NAMES_FAILED = "set_names_failed",
    SOURCE_APPROVED = "source_approved",
    SOURCE_CHANGED = "source_changed",
    SOURCE_FAILED = "source_failed",
    SOURCE_RECOVERED = "source_recovered",
    SOURCE_SWITCHED = "source_switched",
    START_CONTAINER_FAILED = "start_container_failed",
    STOP_CONTAINER_FAILED = "stop_container_failed",
    STOP_POD_FAILED = "stop_pod_failed",
    UNHEALTHY = "unhealthy",
    UPDATE_FAILED = "update_failed",
    UPDATE_FILES_FAILED = "update_files_failed",
}

/// Words of the plan for a step that was carried out.
const STEPS: &[&str] = &[
    "missing",
    "spec_changed",
    "not_started",
    "exited",
    "sandbox_lost",
    "scaled_down",
    "removed",
    "unhealthy",
    "replaced",
    "deadline_exceeded",
    "evicted",
    "files_changed",
    "ports_changed",
    "services_changed",
    "names_changed",
    "images_needed",
    "scheduled",
    "new_schedule",
    "run_missed",
    "run_started",
    "run_ended",
    "run_replaced",
    "history_limit",
    "time_to_live",
    "job_ended",
    "down",
    "drained",
    "dependency_restarted",
    "rolled_back",
];

impl Word {
    /// Every word that there is, some twice.
    pub fn all() -> impl Iterator<Item = &'static str> {
        OWN.iter().chain(STEPS).copied()
    }

    /// That of a step that was carried out.
    #[must_use]
    pub const fn of_step(reason: &Reason) -> Self {
        Self(reason.word())
    }

    /// That of an action that failed.
    #[must_use]
    pub const fn of_failure(action: &Action) -> Self {
        match action {
            Action::Prepare { .. } => Self::PULL_FAILED,
            Action::CreatePod { .. } => Self::CREATE_POD_FAILED,
            Action::RestorePod { .. } => Self::RESTORE_POD_FAILED,
            Action::StartContainer { .. } => Self::START_CONTAINER_FAILED,
            Action::StopContainer { .. } => Self::STOP_CONTAINER_FAILED,
            Action::StopPod { .. } => Self::STOP_POD_FAILED,
            Action::FailPod { .. } => Self::FAIL_POD_FAILED,
            Action::Publish { .. } => Self::PUBLISH_PORTS_FAILED,
            Action::PublishServices { .. } => Self::PUBLISH_SERVICES_FAILED,
            Action::SetNames { .. } => Self::SET_NAMES_FAILED,
            Action::UpdateFiles { .. } => Self::UPDATE_FILES_FAILED,
            Action::Remember { .. } => Self::REMEMBER_FAILED,
        }
    }

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The words that the function `word` of a type of the plan can give, by its source.
    fn of(source: &str, implementation: &str) -> Vec<String> {
        let (_, rest) = source.split_once(implementation).expect("it is implemented");
        let (body, _) = rest.split_once("\n}\n").expect("it ends");
        let (_, word) = body.split_once("fn word(").expect("it has words");
        word.lines().filter_map(|line| Some(line.split_once("=> \"")?.1.split_once('"')?.0.to_owned())).collect()
    }

    #[test]
    fn every_word_of_the_plan_is_in_the_list() {
        let reasons = of(include_str!("../../../spec/src/plan/reason.rs"), "\nimpl Reason {");
        assert_eq!(reasons, STEPS);
        let actions = of(include_str!("../../../spec/src/plan/mod.rs"), "\nimpl Action {");
        assert!(actions.len() > 10, "{actions:?}");
        for action in actions {
            assert!(OWN.contains(&format!("{action}_failed").as_str()), "{action}");
        }
    }

    #[test]
    fn every_word_is_documented_and_no_other() {
        let words: BTreeSet<&str> = Word::all().collect();
        let list = words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        // However its lines are broken.
        let document = include_str!("../../../docs/operations.md").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(document.contains(&format!(" {list}. ")), "docs/operations.md should hold this:\n{list}.\n");
    }
}
