//! What an unhealthy container leads to, and what the HEALTHCHECK of an image counts for, as tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use spec::health::{ImageCheck, Numbers, checks, is_checked};
use spec::image_ref::ImageRef;
use spec::observed::{Addresses, ContainerFacts, ContainerState, Exit, PodFacts, PodRecord, PodUid};
use spec::plan::{Action, Goals, Health, Observed, plan};
use spec::pod::{ContainerSpec, Handler, PodSpec, Probe, RestartBackoff, RestartPolicy};
use spec::time::{Millis, Timestamp};
use spec::workload::{Controller, Desired, PodTemplate, SourceRef, UpdateStrategy, Workload, WorkloadId, WorkloadKind};

const STARTED: Timestamp = Timestamp(1_000_000);
const ENDED: Timestamp = Timestamp(1_100_000);

fn workload(
    kind: WorkloadKind,
    policy: RestartPolicy,
    max_attempts: Option<u32>,
    container: ContainerSpec,
) -> Workload {
    // As a Compose service has it: Docker's waits.
    let backoff = RestartBackoff {
        initial: Some(Millis(100)),
        max: Some(Millis::from_secs(60)),
        reset_after: Some(Millis::from_secs(10)),
        max_attempts,
    };
    let image = Some(ImageRef::parse("app:1").expect("valid"));
    let spec = PodSpec {
        containers: vec![ContainerSpec { name: "main".into(), image, ..container }],
        restart_policy: Some(policy),
        restart_backoff: (kind == WorkloadKind::Service).then_some(backoff),
        ..PodSpec::default()
    };
    Workload {
        id: WorkloadId { kind, namespace: "shop".into(), name: "web".into() },
        source: SourceRef::default(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        controller: Controller::Replicated { replicas: 1, strategy: UpdateStrategy::default() },
        template: PodTemplate { spec: Arc::new(spec), ..PodTemplate::default() },
        depends_on: Vec::new(),
    }
}

fn pod(workload: &Workload, facts: ContainerFacts) -> PodFacts {
    PodFacts {
        record: Arc::new(PodRecord {
            uid: PodUid("a".repeat(16)),
            workload: workload.id.clone(),
            ordinal: 0,
            revision: spec::plan::revision(workload),
            name: "web-1".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            run: None,
            bound: BTreeMap::new(),
            depends_on: Vec::new(),
            source: SourceRef::default(),
            spec: Arc::clone(&workload.template.spec),
            images: BTreeMap::new(),
            created_unix: 0,
            created: Timestamp(1),
            boot_id: "boot".into(),
        }),
        sandbox: true,
        addresses: Addresses::default(),
        containers: BTreeMap::from([("main".to_owned(), facts)]),
        failed: None,
    }
}

/// What the plan does, and what it waits for.
fn steps(workload: &Workload, pod: PodFacts, unhealthy: bool, now: Timestamp) -> String {
    let mut observed = Observed { boot_id: "boot".into(), ..Observed::default() };
    let uid = pod.record.uid.clone();
    if unhealthy {
        let health = Health { attempt: 0, started: true, ready: false, since: STARTED, failed: true, refused: true };
        observed.health.insert((uid.clone(), "main".to_owned()), health);
    }
    observed.pods.insert(uid, Arc::new(pod));
    observed.prepared.insert((workload.id.clone(), spec::plan::revision(workload)), BTreeMap::new());
    let mut desired = Desired::default();
    desired.workloads.insert(workload.id.clone(), Arc::new(workload.clone()));
    let plan = plan(&Goals::new(&Arc::new(desired)), &observed, now);
    let mut words: Vec<String> = plan
        .steps
        .iter()
        .filter(|step| !matches!(step.action, Action::SetNames { .. }))
        .map(|step| match &step.action {
            Action::StopContainer { unhealthy, .. } => format!("stop {} mark={unhealthy:?}", step.reason.word()),
            Action::StartContainer { attempt, series, .. } => {
                format!("start #{attempt} series {series} {}", step.reason.word())
            }
            other => other.word().to_owned(),
        })
        .collect();
    words.extend(plan.holds.iter().map(|(_, hold)| hold.word().to_owned()));
    words.join(", ")
}

fn probe() -> Probe {
    Numbers::default().readiness(Handler::Exec(vec!["check".into()]))
}

#[test]
fn an_unhealthy_service_is_restarted_with_backoff_whatever_its_exit_code() {
    use RestartPolicy::{Always, Never, OnFailure};
    use WorkloadKind::{Deployment, Service};
    let container = || ContainerSpec { liveness: Some(probe()), readiness: Some(probe()), ..ContainerSpec::default() };
    let check = |kind, policy, max, series, running: bool, after: u64, expected: &str| {
        let workload = workload(kind, policy, max, container());
        let state = if running {
            ContainerState::Running { pid: 1, started: STARTED }
        } else {
            ContainerState::Exited(Exit {
                code: 0,
                signal: None,
                oom: false,
                started: Some(STARTED),
                finished: ENDED,
                finished_unix: 0,
                boot_id: "boot".into(),
                error: None,
                message: None,
                stopped: false,
            })
        };
        let unhealthy = !running && kind == Service;
        let facts = ContainerFacts { unhealthy, ..ContainerFacts::new(0, series, state) };
        let found = steps(&workload, pod(&workload, facts), running, ENDED.plus(Millis::from_secs(after)));
        assert_eq!(found, expected, "{kind} {policy:?} {max:?} {series} running={running} after {after} s");
    };
    // It is ended, and that is written down for a service; not when nothing would start it again.
    check(Service, Always, None, 0, true, 0, "stop unhealthy mark=Some(0)");
    check(Service, OnFailure, Some(3), 2, true, 0, "stop unhealthy mark=Some(0)");
    check(Service, OnFailure, Some(3), 3, true, 0, "gave_up");
    check(Deployment, Always, None, 9, true, 0, "stop unhealthy mark=None");
    // It comes back although it ended with 0: at once first, then by Kubernetes' series, which a run of 100 s (in which
    // checks failed one by one) does not start afresh.
    check(Service, OnFailure, None, 0, false, 0, "start #1 series 1 unhealthy");
    check(Service, Always, None, 1, false, 9, "backing_off");
    check(Service, Always, None, 1, false, 10, "start #1 series 2 unhealthy");
    check(Service, Always, None, 3, false, 39, "backing_off");
    check(Service, Always, None, 3, false, 40, "start #1 series 4 unhealthy");
    // With Kubernetes the exit code decides.
    check(Deployment, OnFailure, None, 0, false, 0, "");
    check(Deployment, Never, None, 0, false, 0, "");
    check(Deployment, Always, None, 0, false, 0, "start #1 series 1 exited");
}

fn image(test: &[&str]) -> ImageCheck {
    let numbers = Numbers { interval: Some(Millis(7)), retries: Some(9), ..Numbers::default() };
    ImageCheck { test: test.iter().map(|&word| word.to_owned()).collect(), shell: Vec::new(), numbers }
}

/// `command | period timeout retries | heals`, or nothing.
fn shown(
    kind: WorkloadKind,
    policy: RestartPolicy,
    container: ContainerSpec,
    image_check: Option<ImageCheck>,
) -> String {
    let workload = workload(kind, policy, None, container);
    let state = ContainerState::Running { pid: 1, started: STARTED };
    let pod = pod(&workload, ContainerFacts { image_check, ..ContainerFacts::new(0, 0, state) });
    let container = &workload.template.spec.containers[0];
    let found = checks(&pod, container);
    assert_eq!(is_checked(&pod, container), found.readiness.is_some() || found.startup.is_some());
    let Some(ready) = &found.readiness else {
        assert_eq!(found.liveness, None);
        return String::new();
    };
    let Handler::Exec(command) = &ready.handler else { panic!("{ready:?}") };
    let number = |length: Option<Millis>| length.map_or(0, |length| length.0);
    let (period, timeout) = (number(ready.period), number(ready.timeout));
    let retries = ready.failure_threshold.unwrap_or(0);
    if let Some(live) = &found.liveness {
        assert!(found.is_one(), "{found:?}");
        let first = if ready.start_period.is_some() { ready.start_interval } else { ready.period };
        assert_eq!(live.initial_delay, first, "Docker's first check comes one interval after the start");
    }
    format!("{} | {period} {timeout} {retries} | {}", command.join(" "), found.liveness.is_some())
}

#[test]
fn the_healthcheck_of_an_image_counts_for_services_without_one() {
    use RestartPolicy::{Always, Never};
    use WorkloadKind::{Deployment, Service};
    let none = ContainerSpec::default;
    let cmd = || Some(image(&["CMD", "a", "b"]));
    let labelled = |value: &str| ContainerSpec {
        labels: BTreeMap::from([("mainstay.heal".to_owned(), value.to_owned())]),
        ..ContainerSpec::default()
    };
    let own = |interval: Option<u64>| {
        let numbers = Numbers { interval: interval.map(Millis), ..Numbers::default() };
        let readiness = numbers.readiness(Handler::Exec(vec!["own".into()]));
        let liveness = Some(spec::health::liveness(&readiness));
        ContainerSpec { liveness, readiness: Some(readiness), ..ContainerSpec::default() }
    };
    let off = ContainerSpec { no_image_check: true, ..ContainerSpec::default() };
    let numbers = Numbers { interval: Some(Millis(50)), timeout: Some(Millis(60)), ..Numbers::default() };
    let tuned = ContainerSpec { image_check: Some(numbers), ..ContainerSpec::default() };
    let mut shell = image(&["CMD-SHELL", "x && y"]);
    shell.shell = vec!["/bin/bash".into(), "-ec".into()];
    for (kind, policy, container, image_check, expected) in [
        (Service, Always, none(), None, ""),
        (Service, Always, none(), cmd(), "a b | 7 30000 9 | true"),
        (Service, Always, none(), Some(image(&["CMD-SHELL", "x && y"])), "/bin/sh -c x && y | 7 30000 9 | true"),
        (Service, Always, none(), Some(shell), "/bin/bash -ec x && y | 7 30000 9 | true"),
        (Service, Always, none(), Some(image(&["NONE"])), ""),
        (Service, Always, none(), Some(image(&["CMD"])), ""),
        (Service, Never, none(), cmd(), "a b | 7 30000 9 | false"),
        (Service, Always, labelled("false"), cmd(), "a b | 7 30000 9 | false"),
        (Service, Always, labelled("true"), cmd(), "a b | 7 30000 9 | true"),
        (Service, Always, off, cmd(), ""),
        (Service, Always, tuned, cmd(), "a b | 50 60 9 | true"),
        // Numbers that the manifest leaves out come from the image also when the command does not.
        (Service, Always, own(None), cmd(), "own | 7 30000 9 | true"),
        (Service, Always, own(Some(80)), cmd(), "own | 80 30000 9 | true"),
        (Service, Always, own(None), None, "own | 30000 30000 3 | true"),
        (Deployment, Always, none(), cmd(), ""),
    ] {
        let case = format!("{kind} {policy:?} {container:?} {image_check:?}");
        assert_eq!(shown(kind, policy, container, image_check), expected, "{case}");
    }
}
