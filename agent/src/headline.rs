//! One line about everything, for `mainstay status` and `systemctl status`: counts, and whether they are what is wished.
//!
//! The only place that decides whether everything is as wished. Reads the published snapshot and nothing else.

use crate::status::{Snapshot, WorkloadStatus};

/// How near the node is to what is wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// No source has been read yet.
    Unread,
    /// There is something to do or to wait for.
    Changing,
    /// There is nothing to do, and yet something is held back, wrong or not up.
    Partly,
    /// Everything is as the sources wish, or as somebody ordered.
    Settled,
}

fn standing(snapshot: &Snapshot) -> Standing {
    let ordered_empty = snapshot.drained.is_some();
    if snapshot.passes == 0 {
        Standing::Unread
    } else if !snapshot.converged {
        Standing::Changing
    } else if snapshot.sources.iter().any(|source| source.state != "ok")
        || snapshot.workloads.iter().any(|workload| workload.held.is_some())
        || !ordered_empty && !snapshot.workloads.iter().all(is_well)
        || !ordered_empty && snapshot.services.iter().any(|service| !service.problems.is_empty())
    {
        Standing::Partly
    } else {
        Standing::Settled
    }
}

/// Whether everything is as wished and nothing is held back or wrong.
pub(crate) fn is_settled(snapshot: &Snapshot) -> bool {
    standing(snapshot) == Standing::Settled
}

/// Whether a workload, looked at alone, is what its manifest wishes while nothing is to be done for it.
fn is_well(workload: &WorkloadStatus) -> bool {
    workload.held.is_none() && !is_short(workload) && is_up(workload)
}

fn is_up(workload: &WorkloadStatus) -> bool {
    match workload.phase.as_str() {
        "Running" | "Scheduled" | "Succeeded" => true,
        // One that is suspended.
        "Pending" => workload.kind == "Job",
        _ => false,
    }
}

/// Runs, but not all of it can serve. Pods of a Job need not: they run to their end.
fn is_short(workload: &WorkloadStatus) -> bool {
    let serves = !matches!(workload.kind.as_str(), "Job" | "CronJob");
    serves && workload.phase == "Running" && workload.ready < workload.desired
}

/// What there is, such as `42 running, 1 held, 1 error`.
fn counts(snapshot: &Snapshot) -> String {
    let workloads = |wanted: &dyn Fn(&WorkloadStatus) -> bool| -> usize {
        snapshot.workloads.iter().filter(|workload| wanted(workload)).count()
    };
    let phase = |phase: &str| workloads(&|workload| workload.phase == phase);
    let is = |number: usize, word: &str| (number > 0).then(|| format!("{number} {word}"));
    let are = |number: usize, one: &str, more: &str| is(number, if number == 1 { one } else { more });
    let unread = snapshot.sources.iter().filter(|source| source.state == "waiting").count();
    let errors = snapshot.sources.iter().map(|source| source.errors.len()).sum();
    let troubled = snapshot.services.iter().filter(|service| !service.problems.is_empty()).count();
    let parts = [
        snapshot.workloads.is_empty().then(|| "no workloads".to_owned()),
        is(phase("Running"), "running"),
        is(workloads(&is_short), "not ready"),
        is(phase("Scheduled"), "scheduled"),
        is(phase("Pending"), "pending"),
        is(phase("Succeeded"), "succeeded"),
        is(phase("Failed"), "failed"),
        is(phase("Stopping"), "stopping"),
        is(workloads(&|workload| workload.held.is_some()), "held"),
        is(workloads(&|workload| !workload.waiting.is_empty()), "waiting"),
        are(errors, "error", "errors"),
        are(unread, "source not fetched yet", "sources not fetched yet"),
        are(troubled, "Service in trouble", "Services in trouble"),
        snapshot.drained.map(|_| "drained".to_owned()),
        snapshot.rolled_back_to.map(|number| format!("rolled back to generation {number}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// For `mainstay status`: what there is, what is to be done, and whether it is as wished.
pub(crate) fn headline(snapshot: &Snapshot) -> String {
    let counts = counts(snapshot);
    let steps = snapshot.plan.len();
    let ordered = snapshot.drained.is_some() || snapshot.rolled_back_to.is_some();
    match standing(snapshot) {
        Standing::Unread => "the sources have not been read yet".to_owned(),
        Standing::Changing if steps == 0 => counts,
        Standing::Changing => format!("{counts}, {steps} {} to do", if steps == 1 { "step" } else { "steps" }),
        Standing::Partly if snapshot.workloads.iter().any(is_well) => format!("{counts}; the rest as wished"),
        Standing::Partly => counts,
        Standing::Settled if ordered => format!("{counts}; all as ordered"),
        Standing::Settled => format!("{counts}; all as wished"),
    }
}

/// For `systemctl status`.
#[must_use]
pub fn status_line(snapshot: &Snapshot) -> String {
    if standing(snapshot) == Standing::Unread {
        return "waiting for the first reading of the sources".to_owned();
    }
    let generation = snapshot.generation.map(|number| format!(", generation {number}")).unwrap_or_default();
    counts(snapshot) + &generation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{HeldStatus, ServiceStatus, SourceStatus, StepStatus, WaitStatus};

    fn workload(kind: &str, phase: &str, ready: u32) -> WorkloadStatus {
        WorkloadStatus {
            kind: kind.to_owned(),
            phase: phase.to_owned(),
            desired: 1,
            ready,
            ..WorkloadStatus::default()
        }
    }

    fn running() -> WorkloadStatus {
        workload("Deployment", "Running", 1)
    }

    fn held() -> WorkloadStatus {
        WorkloadStatus { held: Some(HeldStatus::default()), ..running() }
    }

    fn source(state: &str, errors: usize) -> SourceStatus {
        SourceStatus { state: state.to_owned(), errors: vec!["x".to_owned(); errors], ..SourceStatus::default() }
    }

    fn settled(workloads: Vec<WorkloadStatus>) -> Snapshot {
        Snapshot { passes: 1, converged: true, sources: vec![source("ok", 0)], workloads, ..Snapshot::default() }
    }

    /// What both lines say, and whether `status --wait` is content.
    fn check(snapshot: &Snapshot, line: &str, unit: &str, content: bool) {
        assert_eq!(headline(snapshot), line);
        assert_eq!(status_line(snapshot), unit, "{line}");
        assert_eq!(is_settled(snapshot), content, "{line}");
    }

    #[test]
    fn everything_is_as_wished_only_when_it_is() {
        let good = |workloads: Vec<WorkloadStatus>, counts: &str| {
            check(&settled(workloads), &format!("{counts}; all as wished"), counts, true);
        };
        good(vec![], "no workloads");
        good(vec![running(), running()], "2 running");
        good(vec![running(), workload("CronJob", "Scheduled", 0)], "1 running, 1 scheduled");
        good(vec![workload("Job", "Succeeded", 0), workload("Job", "Running", 0)], "1 running, 1 succeeded");
        // A Job that is suspended.
        good(vec![workload("Job", "Pending", 0)], "1 pending");

        let rest = |workloads: Vec<WorkloadStatus>, counts: &str| {
            check(&settled(workloads), &format!("{counts}; the rest as wished"), counts, false);
        };
        rest(vec![running(), running(), held()], "3 running, 1 held");
        rest(vec![running(), workload("Job", "Failed", 0)], "1 running, 1 failed");
        rest(vec![running(), workload("Deployment", "Running", 0)], "2 running, 1 not ready");
        rest(vec![running(), workload("Pod", "Stopping", 0)], "1 running, 1 stopping");

        let bad = |workloads: Vec<WorkloadStatus>, line: &str| check(&settled(workloads), line, line, false);
        bad(vec![held()], "1 running, 1 held");
        bad(vec![workload("Job", "Failed", 0)], "1 failed");
        bad(vec![workload("Pod", "Pending", 0)], "1 pending");
    }

    #[test]
    fn sources_services_and_orders_count() {
        let with = |state: &str, errors: usize, workloads: Vec<WorkloadStatus>| Snapshot {
            sources: vec![source("ok", 0), source(state, errors)],
            ..settled(workloads)
        };
        let check_both = |snapshot: &Snapshot, counts: &str, verdict: &str, content: bool| {
            check(snapshot, &format!("{counts}{verdict}"), counts, content);
        };
        let rest = "; the rest as wished";
        check_both(&with("degraded", 1, vec![running(), held()]), "2 running, 1 held, 1 error", rest, false);
        check_both(&with("degraded", 2, vec![running()]), "1 running, 2 errors", rest, false);
        check_both(&with("failed", 1, vec![]), "no workloads, 1 error", "", false);
        check_both(&with("waiting", 0, vec![]), "no workloads, 1 source not fetched yet", "", false);
        let service = ServiceStatus { problems: vec!["its port is taken".to_owned()], ..ServiceStatus::default() };
        let troubled = Snapshot { services: vec![service], ..settled(vec![running()]) };
        check_both(&troubled, "1 running, 1 Service in trouble", rest, false);
        let back = Snapshot { rolled_back_to: Some(3), ..settled(vec![running()]) };
        check_both(&back, "1 running, rolled back to generation 3", "; all as ordered", true);
        let drained = Snapshot { drained: Some(1), ..settled(vec![workload("Pod", "Pending", 0)]) };
        check_both(&drained, "1 pending, drained", "; all as ordered", true);
    }

    #[test]
    fn while_there_is_something_to_do_nothing_is_promised() {
        let changing = |workloads: Vec<WorkloadStatus>, steps: usize| Snapshot {
            converged: false,
            plan: vec![StepStatus::default(); steps],
            generation: Some(17),
            ..settled(workloads)
        };
        check(
            &Snapshot { passes: 0, ..settled(vec![]) },
            "the sources have not been read yet",
            "waiting for the first reading of the sources",
            false,
        );
        check(&changing(vec![running()], 1), "1 running, 1 step to do", "1 running, generation 17", false);
        check(&changing(vec![running()], 2), "1 running, 2 steps to do", "1 running, generation 17", false);
        let waits = WorkloadStatus { waiting: vec![WaitStatus::default()], ..held() };
        check(
            &changing(vec![waits], 0),
            "1 running, 1 held, 1 waiting",
            "1 running, 1 held, 1 waiting, generation 17",
            false,
        );
    }
}
