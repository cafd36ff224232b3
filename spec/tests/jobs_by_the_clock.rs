//! CronJobs and the ends of Jobs on a simulated host: the plan is made and carried out, time is moved on by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use spec::image_ref::ImageRef;
use spec::observed::{Addresses, ContainerFacts, ContainerState, Exit, PodFacts, PodRecord, PodUid};
use spec::plan::{Action, Goals, Observed, Plan, plan};
use spec::pod::{ContainerSpec, PodSpec, RestartPolicy};
use spec::time::{Millis, Timestamp};
use spec::workload::{
    Concurrency, Controller, CronSpec, Desired, FailureAction, FailureRule, JobSpec, PodTemplate, SourceRef, Workload,
    WorkloadId, WorkloadKind,
};

/// 2026-11-20T12:00:00Z.
const NOON: i64 = 1_795_176_000;

fn job(change: impl FnOnce(&mut JobSpec)) -> JobSpec {
    let mut job = JobSpec {
        completions: Some(1),
        parallelism: 1,
        backoff_limit: 0,
        active_deadline: None,
        ttl_after_finished: None,
        indexed: false,
        suspend: false,
        failure_policy: Vec::new(),
        backoff_limit_per_index: None,
        max_failed_indexes: None,
    };
    change(&mut job);
    job
}

/// A run at each full hour.
fn hourly(change: impl FnOnce(&mut CronSpec)) -> Controller {
    let mut cron = CronSpec {
        schedule: "0 * * * *".into(),
        time_zone: None,
        concurrency: Concurrency::Allow,
        starting_deadline: None,
        suspend: false,
        successful_history: 3,
        failed_history: 1,
        job: job(|_| {}),
    };
    change(&mut cron);
    Controller::Cron(cron)
}

/// A host with one workload. What the plan says happens at once.
struct Host {
    workload: Workload,
    wished: bool,
    observed: Observed,
    now: Timestamp,
    boots: u32,
    pods_made: u64,
    /// Moments that pods were made for, in minutes after [`NOON`]; of a Job, ordinals.
    started: Vec<i64>,
}

impl Host {
    fn new(controller: Controller) -> Self {
        let kind = if matches!(controller, Controller::Job(_)) { WorkloadKind::Job } else { WorkloadKind::CronJob };
        let container = ContainerSpec {
            name: "main".into(),
            image: Some(ImageRef::parse("app:1").expect("valid")),
            ..ContainerSpec::default()
        };
        let spec =
            PodSpec { containers: vec![container], restart_policy: Some(RestartPolicy::Never), ..PodSpec::default() };
        let workload = Workload {
            id: WorkloadId { kind, namespace: "default".into(), name: "w".into() },
            source: SourceRef::default(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            controller,
            template: PodTemplate { spec: Arc::new(spec), ..PodTemplate::default() },
            depends_on: Vec::new(),
        };
        let observed = Observed { boot_id: "0".into(), unix: NOON + 30, ..Observed::default() };
        let mut host = Self {
            workload,
            wished: true,
            observed,
            now: Timestamp(1_000_000),
            boots: 0,
            pods_made: 0,
            started: Vec::new(),
        };
        host.settle();
        host
    }

    fn plan(&self) -> Plan {
        let mut desired = Desired::default();
        if self.wished {
            desired.workloads.insert(self.workload.id.clone(), Arc::new(self.workload.clone()));
        }
        plan(&Goals::new(&Arc::new(desired)), &self.observed, self.now)
    }

    /// Plans and does until nothing is left.
    fn settle(&mut self) {
        for _ in 0..100 {
            let steps = self.plan().steps;
            let mut idle = true;
            for step in steps {
                idle &= matches!(step.action, Action::SetNames { .. });
                self.act(step.action);
            }
            if idle {
                return;
            }
        }
        panic!("never settles: {:?}", self.plan().steps);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Prepare { goal } => {
                self.observed.prepared.insert((goal.workload.id.clone(), goal.revision), BTreeMap::new());
            }
            Action::CreatePod { goal, ordinal, name, spec, images, run } => {
                self.pods_made += 1;
                self.started.push(run.map_or(i64::from(ordinal), |at| (at - NOON) / 60));
                let record = PodRecord {
                    uid: PodUid(format!("{:016x}", self.pods_made)),
                    workload: goal.workload.id.clone(),
                    ordinal,
                    revision: goal.revision,
                    name,
                    labels: goal.workload.template.labels.clone(),
                    annotations: goal.workload.template.annotations.clone(),
                    depends_on: Vec::new(),
                    source: SourceRef::default(),
                    spec,
                    images,
                    created_unix: self.observed.unix,
                    created: self.now,
                    boot_id: self.observed.boot_id.clone(),
                    run,
                    bound: BTreeMap::new(),
                };
                let facts = PodFacts {
                    record: Arc::new(record),
                    sandbox: true,
                    addresses: Addresses::default(),
                    failed: None,
                    containers: BTreeMap::new(),
                };
                self.observed.pods.insert(facts.record.uid.clone(), Arc::new(facts));
            }
            Action::RestorePod { pod } => self.change(&pod.record.uid, |facts| facts.sandbox = true),
            Action::StartContainer { pod, container, attempt, series } => {
                let state = ContainerState::Running { pid: 1, started: self.now };
                self.change(&pod.record.uid, |facts| {
                    facts.containers.insert(container, ContainerFacts::new(attempt, series, state));
                });
            }
            Action::StopPod { pod, .. } => drop(self.observed.pods.remove(&pod.record.uid)),
            Action::Remember { workload, memory } => {
                match memory {
                    // As on disk: it must survive being written and read.
                    Some(memory) => {
                        let text = serde_json::to_vec(&memory).expect("it can be written");
                        let read = serde_json::from_slice(&text).expect("it can be read");
                        self.observed.memories.insert(workload, read)
                    }
                    None => self.observed.memories.remove(&workload),
                };
            }
            Action::SetNames { names } => self.observed.names = Some(*names),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn change(&mut self, uid: &PodUid, change: impl FnOnce(&mut PodFacts)) {
        let known = self.observed.pods.get_mut(uid).expect("the pod is there");
        let mut facts = PodFacts::clone(known);
        change(&mut facts);
        *known = Arc::new(facts);
    }

    /// Time goes by, on both clocks.
    fn pass(&mut self, seconds: i64) {
        self.now = self.now.plus(Millis::from_secs(seconds.unsigned_abs()));
        self.observed.unix += seconds;
        self.settle();
    }

    /// The wall clock is set.
    fn set_clock(&mut self, unix: i64) {
        self.observed.unix = unix;
        self.settle();
    }

    /// Everything that runs ends with that code.
    fn end(&mut self, code: i32) {
        let running: Vec<PodUid> = self.observed.pods.keys().cloned().collect();
        let (now, unix, boot_id) = (self.now, self.observed.unix, self.observed.boot_id.clone());
        for uid in running {
            self.change(&uid, |facts| {
                for container in facts.containers.values_mut() {
                    let ContainerState::Running { started, .. } = container.state else { continue };
                    container.state = ContainerState::Exited(Exit {
                        code,
                        signal: None,
                        oom: false,
                        started: Some(started),
                        finished: now,
                        finished_unix: unix,
                        boot_id: boot_id.clone(),
                        error: None,
                        message: None,
                        stopped: false,
                    });
                }
            });
        }
        self.settle();
    }

    /// The agent ends and starts again: only what is on disk is known.
    fn restart_agent(&mut self) {
        let old = std::mem::take(&mut self.observed);
        self.observed = Observed {
            boot_id: old.boot_id,
            pods: old.pods,
            memories: old.memories,
            unix: old.unix,
            zone: old.zone,
            ..Observed::default()
        };
        self.settle();
    }

    /// The host is off for so long. What ran is killed.
    fn reboot(&mut self, seconds: i64) {
        self.end(137);
        self.boots += 1;
        self.observed.boot_id = self.boots.to_string();
        self.observed.unix += seconds;
        self.now = Timestamp(60_000);
        for uid in self.observed.pods.keys().cloned().collect::<Vec<_>>() {
            self.change(&uid, |facts| facts.sandbox = false);
        }
        self.restart_agent();
    }

    fn pods(&self) -> Vec<&str> {
        self.observed.pods.values().map(|pod| pod.record.name.as_str()).collect()
    }

    fn holds(&self) -> Vec<&'static str> {
        self.plan().holds.iter().map(|(_, hold)| hold.word()).collect()
    }
}

const HOUR: i64 = 3600;

#[test]
fn runs_start_by_the_clock() {
    let mut host = Host::new(hourly(|_| {}));
    assert_eq!(host.started, [0i64; 0], "a new schedule makes up for nothing");
    let wake = host.plan().wake.expect("it wakes for the next run");
    assert_eq!(wake.since(host.now), Millis::from_secs(3570));
    host.pass(3569);
    assert_eq!(host.started, [0i64; 0]);
    host.pass(1);
    assert_eq!(host.started, [60]);
    assert_eq!(host.pods(), [format!("w-{}-0", (NOON + HOUR) / 60)]);
    host.end(0);
    host.pass(HOUR);
    assert_eq!(host.started, [60, 120]);
    let pod = host.observed.pods.values().next().expect("a pod");
    assert_eq!(pod.record.labels["job-name"], format!("w-{}", (NOON + HOUR) / 60));
}

#[test]
fn no_restart_runs_a_moment_twice() {
    for limit in [0, 3] {
        let mut host = Host::new(hourly(|cron| cron.successful_history = limit));
        host.pass(HOUR);
        host.restart_agent();
        host.end(0);
        assert_eq!(host.pods().len(), limit.min(1) as usize);
        host.restart_agent();
        host.reboot(60);
        host.restart_agent();
        assert_eq!(host.started, [60]);
        host.pass(HOUR);
        assert_eq!(host.started, [60, 120]);
    }
}

#[test]
fn after_a_long_time_away_the_latest_run_is_made_up_for() {
    let mut host = Host::new(hourly(|cron| cron.schedule = "* * * * *".into()));
    host.reboot(400 * 86_400);
    assert_eq!(host.started, [400 * 1440], "one, however many were missed");
    host.end(0);
    // The first run that a schedule has, too: that it was there is remembered.
    let mut host = Host::new(hourly(|_| {}));
    host.restart_agent();
    host.reboot(2 * HOUR);
    assert_eq!(host.started, [120]);
    // Suspended ones likewise (CronJob, suspend).
    let mut host = Host::new(hourly(|cron| cron.suspend = true));
    host.pass(5 * HOUR);
    assert_eq!((host.started.len(), host.plan().wake), (0, None));
    host.workload.controller = hourly(|_| {});
    host.settle();
    assert_eq!(host.started, [300]);
}

#[test]
fn a_run_that_is_too_late_is_left_out() {
    let mut host = Host::new(hourly(|cron| cron.starting_deadline = Some(Millis::from_secs(120))));
    host.reboot(HOUR + 95);
    assert_eq!(host.started, [0i64; 0], "125 s late");
    host.pass(HOUR);
    assert_eq!(host.started, [0i64; 0], "125 s late again");
    host.pass(HOUR - 100);
    assert_eq!(host.started, [180], "25 s late");
}

#[test]
fn one_at_a_time() {
    // Allow: side by side.
    let mut host = Host::new(hourly(|_| {}));
    host.pass(HOUR);
    host.pass(HOUR);
    assert_eq!((host.started.as_slice(), host.pods().len()), ([60, 120].as_slice(), 2));
    // Forbid: the latest waits, the ones before are left out.
    let mut host = Host::new(hourly(|cron| cron.concurrency = Concurrency::Forbid));
    host.pass(HOUR);
    host.pass(HOUR);
    assert_eq!(host.holds(), ["previous_run"]);
    host.pass(HOUR);
    assert_eq!(host.started, [60]);
    host.end(0);
    assert_eq!(host.started, [60, 180]);
    // Replace: the old one ends first.
    let mut host = Host::new(hourly(|cron| cron.concurrency = Concurrency::Replace));
    host.pass(HOUR);
    host.pass(HOUR);
    assert_eq!(host.started, [60, 120]);
    assert_eq!(host.pods(), [format!("w-{}-0", (NOON + 2 * HOUR) / 60)]);
}

#[test]
fn ended_runs_are_kept_as_far_as_the_limits_say() {
    let mut host = Host::new(hourly(|cron| (cron.successful_history, cron.failed_history) = (2, 1)));
    for code in [0, 1, 0, 1, 0, 1] {
        host.pass(HOUR);
        host.end(code);
    }
    let minute = |n: i64| format!("w-{}-0", (NOON + n * HOUR) / 60);
    assert_eq!(host.pods(), [minute(3), minute(5), minute(6)]);
    let memory = &host.observed.memories[&host.workload.id];
    assert_eq!(memory.last_run, Some(NOON + 6 * HOUR));
    assert_eq!(memory.last_success, Some(NOON + 5 * HOUR));
    assert_eq!(memory.last_end.as_ref().map(|end| end.succeeded), Some(false));
    // Time to live, by the wall clock when a reboot lies between.
    let mut host = Host::new(hourly(|cron| cron.job.ttl_after_finished = Some(Millis::from_secs(600))));
    host.pass(HOUR);
    host.end(0);
    host.pass(599);
    assert_eq!(host.pods().len(), 1);
    host.pass(1);
    assert_eq!(host.pods().len(), 0);
    host.pass(HOUR - 600);
    host.end(0);
    host.reboot(600);
    assert_eq!((host.pods().len(), host.started.as_slice()), (0, [60, 120].as_slice()));
}

#[test]
fn steps_of_the_clock() {
    // Back: nothing runs twice, and it goes on where it was.
    let mut host = Host::new(hourly(|_| {}));
    host.pass(HOUR);
    host.end(0);
    host.set_clock(NOON + 10);
    assert_eq!(host.holds(), ["clock_behind"]);
    host.pass(2 * HOUR);
    host.end(0);
    assert_eq!(host.started, [60, 120]);
    // Forward: as after a long time away.
    host.set_clock(NOON + 10 * HOUR + 5);
    assert_eq!(host.started, [60, 120, 600]);
    // A host without a clock starts in 1970: it waits, and then makes up for the one that it missed, if it did.
    let mut host = Host::new(hourly(|_| {}));
    host.reboot(0);
    host.set_clock(12);
    host.pass(5 * HOUR);
    assert_eq!((host.holds(), host.started.len()), (vec!["clock_not_set"], 0));
    host.set_clock(NOON + 59 * 60);
    assert_eq!(host.started.len(), 0);
    host.set_clock(NOON + 61 * 60);
    assert_eq!(host.started, [60]);
    // A schedule that is new on such a host makes up for nothing.
    let mut host = Host::new(hourly(|_| {}));
    host.observed.memories.clear();
    host.set_clock(0);
    host.set_clock(NOON + 61 * 60);
    assert_eq!(host.started.len(), 0);
}

#[test]
fn zones_count() {
    // 12:00 UTC is 07:00 in New York: 08:00 comes in an hour.
    let at_eight = |cron: &mut CronSpec| "0 8 * * *".clone_into(&mut cron.schedule);
    let mut host = Host::new(hourly(|cron| {
        at_eight(cron);
        cron.time_zone = Some("America/New_York".into());
    }));
    host.pass(HOUR);
    assert_eq!(host.started, [60]);
    let mut host = Host::new(hourly(at_eight));
    host.observed.zone = "America/New_York".into();
    host.pass(HOUR);
    assert_eq!(host.started, [60]);
}

#[test]
fn a_schedule_that_goes_takes_all_with_it() {
    let mut host = Host::new(hourly(|_| {}));
    host.pass(HOUR);
    host.wished = false;
    host.settle();
    assert_eq!((host.pods().len(), host.observed.memories.len()), (0, 0));
    host.wished = true;
    host.settle();
    assert_eq!(host.started, [60], "it is a new one, and makes up for nothing");
}

#[test]
fn a_new_template_is_for_new_runs() {
    let mut host = Host::new(hourly(|_| {}));
    host.pass(HOUR);
    let mut spec = PodSpec::clone(&host.workload.template.spec);
    spec.containers[0].tty = true;
    host.workload.template.spec = Arc::new(spec);
    host.settle();
    assert_eq!(host.started, [60], "the run goes on");
    host.pass(HOUR);
    assert_eq!(host.started, [60, 120]);
    assert_eq!(host.observed.pods.values().filter(|pod| pod.record.spec.containers[0].tty).count(), 1);
}

#[test]
fn a_job_that_ended_stays_ended() {
    // Its pods go after a while, the memory of its end does not.
    let mut host = Host::new(Controller::Job(job(|job| job.ttl_after_finished = Some(Millis::from_secs(5)))));
    host.end(0);
    host.pass(5);
    assert_eq!(host.pods().len(), 0);
    host.restart_agent();
    host.reboot(100);
    assert_eq!(host.started, [0]);
    // Another template is another Job.
    let mut spec = PodSpec::clone(&host.workload.template.spec);
    spec.containers[0].tty = true;
    host.workload.template.spec = Arc::new(spec);
    host.settle();
    assert_eq!(host.started, [0, 0]);
    // One that ran for too long is stopped, and does not start anew.
    let mut host = Host::new(Controller::Job(job(|job| job.active_deadline = Some(Millis::from_secs(60)))));
    host.pass(60);
    assert_eq!((host.pods().len(), host.holds()), (0, vec!["job_failed"]));
    host.restart_agent();
    host.pass(HOUR);
    assert_eq!(host.started, [0]);
    // Its time runs on while the host is off.
    let mut host = Host::new(Controller::Job(job(|job| {
        job.active_deadline = Some(Millis::from_secs(600));
        job.backoff_limit = 9;
    })));
    host.reboot(601);
    assert_eq!((host.started.as_slice(), host.holds()), ([0].as_slice(), vec!["job_failed"]));
}

#[test]
fn failures_of_a_job() {
    let mut host = Host::new(Controller::Job(job(|job| job.backoff_limit = 2)));
    for _ in 0..5 {
        host.end(1);
        host.pass(400);
    }
    assert_eq!((host.started.as_slice(), host.holds()), ([0, 1, 2].as_slice(), vec!["job_failed"]));
    // By a rule.
    let rule = |action| FailureRule { action, container: None, not_in: false, exit_codes: vec![42] };
    let with = |action, code: i32| {
        let mut host = Host::new(Controller::Job(job(|job| job.failure_policy = vec![rule(action)])));
        host.end(code);
        (host.started.len(), host.holds())
    };
    assert_eq!(with(FailureAction::FailJob, 42), (1, vec!["job_failed"]));
    assert_eq!(with(FailureAction::Ignore, 42), (2, vec![]));
    assert_eq!(with(FailureAction::Ignore, 41), (1, vec!["job_failed"]));
}

#[test]
fn indexes() {
    let indexed = |change: &dyn Fn(&mut JobSpec)| {
        Host::new(Controller::Job(job(|job| {
            (job.indexed, job.completions, job.parallelism) = (true, Some(3), 3);
            change(job);
        })))
    };
    let mut host = indexed(&|_| {});
    let annotation = "batch.kubernetes.io/job-completion-index";
    let of: Vec<&str> = host.observed.pods.values().map(|pod| pod.record.annotations[annotation].as_str()).collect();
    assert_eq!(of, ["0", "1", "2"]);
    host.end(0);
    assert_eq!((host.started.as_slice(), host.holds()), ([0, 1, 2].as_slice(), vec![]));
    // Each has its own failures; those that can go on do.
    let mut host = indexed(&|job| {
        (job.backoff_limit, job.backoff_limit_per_index) = (u32::MAX, Some(1));
    });
    host.end(1);
    host.pass(400);
    assert_eq!(host.started, [0, 1, 2, 3, 4, 5]);
    host.end(1);
    assert_eq!(host.holds(), ["job_failed"]);
    // Too many of them.
    let mut host = indexed(&|job| {
        (job.parallelism, job.backoff_limit, job.backoff_limit_per_index) = (1, u32::MAX, Some(0));
        job.max_failed_indexes = Some(1);
    });
    host.end(1);
    assert_eq!(host.started, [0, 1]);
    host.end(1);
    assert_eq!((host.started.as_slice(), host.holds()), ([0, 1].as_slice(), vec!["job_failed"]));
}

#[test]
fn a_work_queue_ends_when_all_its_pods_have() {
    let mut host = Host::new(Controller::Job(job(|job| (job.completions, job.parallelism) = (None, 2))));
    let first = host.observed.pods.keys().next().cloned().expect("a pod");
    let others: Vec<_> = host.observed.pods.keys().skip(1).cloned().collect();
    let kept: Vec<_> = others.iter().map(|uid| Arc::clone(&host.observed.pods[uid])).collect();
    host.end_only(&first);
    assert_eq!(host.pods().len(), 1 + kept.len(), "the others work on");
    assert!(host.observed.memories.is_empty());
    host.end(0);
    assert_eq!(host.started, [0, 1]);
    assert_eq!(host.observed.memories.len(), 1);
}

impl Host {
    /// One pod ends well.
    fn end_only(&mut self, uid: &PodUid) {
        let others = self.observed.pods.clone();
        let (now, unix) = (self.now, self.observed.unix);
        self.observed.pods.retain(|known, _| known == uid);
        let exit = |started| Exit {
            code: 0,
            signal: None,
            oom: false,
            started: Some(started),
            finished: now,
            finished_unix: unix,
            boot_id: "0".into(),
            error: None,
            message: None,
            stopped: false,
        };
        self.change(uid, |facts| {
            for container in facts.containers.values_mut() {
                container.state = ContainerState::Exited(exit(now));
            }
        });
        for (other, facts) in others.into_iter().filter(|(other, _)| other != uid) {
            self.observed.pods.insert(other, facts);
        }
        self.settle();
    }
}

proptest! {
    /// Whatever happens on the way, no moment of a schedule is run twice, and none before the schedule was there.
    #[test]
    fn a_moment_is_never_run_twice(
        events in prop::collection::vec((0u8..7, 0i64..10_000), 1..40),
        concurrency in prop::sample::select(vec![Concurrency::Allow, Concurrency::Forbid, Concurrency::Replace]),
        limits in (0u32..2, 0u32..2),
        deadline in prop::option::of(0u64..3000),
    ) {
        let mut host = Host::new(hourly(|cron| {
            cron.schedule = "*/7 * * * *".into();
            cron.concurrency = concurrency;
            (cron.successful_history, cron.failed_history) = limits;
            cron.starting_deadline = deadline.map(Millis::from_secs);
        }));
        for (what, amount) in events {
            match what {
                0 | 1 => host.pass(amount),
                2 => host.end(0),
                3 => host.end(1),
                4 => host.restart_agent(),
                5 => host.reboot(amount),
                _ => host.set_clock(host.observed.unix - amount),
            }
        }
        let mut once = host.started.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), host.started.len(), "{:?}", &host.started);
        prop_assert!(host.started.iter().all(|minute| *minute > 0), "{:?}", &host.started);
    }
}
