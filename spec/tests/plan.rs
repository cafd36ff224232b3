//! Table tests of the plan: a wish, what is there, and the steps that follow, a line each.

use std::collections::BTreeMap;
use std::sync::Arc;

use spec::image_ref::ImageRef;
use spec::observed::{
    Addresses, ContainerFacts, ContainerState, DiskUsage, Exit, PodFacts, PodFailure, PodFailureReason, PodRecord,
    PodUid,
};
use spec::plan::{Action, ActionKey, Failure, Goals, Hold, Observed, Reason, plan};
use spec::pod::{
    ContainerSpec, EnvSource, EnvVar, FilesSource, FilesVolume, PodSpec, RestartPolicy, Volume, VolumeMount,
    VolumeSource,
};
use spec::secret::SecretBytes;
use spec::time::{Millis, Timestamp};
use spec::workload::{
    Controller, Desired, JobSpec, PodTemplate, SecretData, SourceRef, UpdateStrategy, Workload, WorkloadId,
    WorkloadKind,
};

const NOW: Timestamp = Timestamp(10_000_000);

/// A workload whose pods have this version.
fn workload(controller: Controller, version: &str) -> Workload {
    let kind = match &controller {
        Controller::Single => WorkloadKind::Pod,
        Controller::Replicated { .. } => WorkloadKind::Deployment,
        Controller::Ordered { .. } => WorkloadKind::StatefulSet,
        Controller::Job(_) => WorkloadKind::Job,
        Controller::Cron(_) => WorkloadKind::CronJob,
    };
    Workload {
        id: WorkloadId { kind, namespace: "default".into(), name: "w".into() },
        source: SourceRef::default(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        controller,
        template: PodTemplate { spec: Arc::new(pod_spec(version)), ..PodTemplate::default() },
        depends_on: Vec::new(),
    }
}

fn pod_spec(version: &str) -> PodSpec {
    let container = ContainerSpec {
        name: "main".into(),
        image: Some(ImageRef::parse("app:1").expect("valid")),
        env: vec![EnvVar { name: "V".into(), source: EnvSource::Literal(version.into()) }],
        ..ContainerSpec::default()
    };
    PodSpec { containers: vec![container], ..PodSpec::default() }
}

/// How a pod of a case is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Is {
    New,
    Runs,
    Ended(i32),
    /// Was told to end with its pod, and ended with that code.
    Stopped(i32),
}

/// A node with that wish and those pods: ordinal, version, state. Images are there.
struct Case {
    desired: Arc<Desired>,
    observed: Observed,
}

impl Case {
    fn new(workload: Workload, pods: &[(u32, &str, Is)]) -> Self {
        let mut observed = Observed { boot_id: "boot".into(), ..Observed::default() };
        for (index, (ordinal, version, is)) in pods.iter().enumerate() {
            let mut spec = PodSpec::clone(&workload.template.spec);
            spec.containers = pod_spec(version).containers;
            let same = spec == *workload.template.spec;
            let record = PodRecord {
                uid: PodUid(format!("{index:016x}")),
                workload: workload.id.clone(),
                ordinal: *ordinal,
                revision: if same { spec::plan::revision(&workload) } else { "old".into() },
                name: format!("{version}-{ordinal}"),
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                depends_on: Vec::new(),
                source: SourceRef::default(),
                spec: if same { Arc::clone(&workload.template.spec) } else { Arc::new(spec) },
                images: BTreeMap::new(),
                created_unix: 0,
                created: Timestamp(0),
                boot_id: "boot".into(),
                run: None,
                bound: BTreeMap::new(),
            };
            let state = match is {
                Is::New => None,
                Is::Runs => Some(ContainerState::Running { pid: 1, started: Timestamp(1000) }),
                Is::Ended(code) | Is::Stopped(code) => Some(ContainerState::Exited(Exit {
                    code: *code,
                    signal: None,
                    oom: false,
                    started: Some(Timestamp(1000)),
                    finished: Timestamp(2000),
                    finished_unix: 0,
                    boot_id: "boot".into(),
                    error: None,
                    message: None,
                    stopped: matches!(is, Is::Stopped(_)),
                })),
            };
            let containers = state.map(|state| ("main".to_owned(), ContainerFacts::new(0, 0, state))).into_iter();
            let facts = PodFacts {
                record: Arc::new(record),
                sandbox: true,
                addresses: Addresses::default(),
                containers: containers.collect(),
                failed: None,
            };
            observed.pods.insert(facts.record.uid.clone(), Arc::new(facts));
        }
        let revision = spec::plan::revision(&workload);
        observed.prepared.insert((workload.id.clone(), revision), BTreeMap::new());
        let mut desired = Desired::default();
        desired.workloads.insert(workload.id.clone(), Arc::new(workload));
        Self { desired: Arc::new(desired), observed }
    }

    fn steps(&self) -> Vec<String> {
        self.steps_to(&Goals::new(&self.desired))
    }

    fn steps_to(&self, goals: &Goals) -> Vec<String> {
        let plan = plan(goals, &self.observed, NOW);
        // Names follow whatever happens; they are not what is asked here.
        plan.steps
            .iter()
            .filter(|step| !matches!(step.action, Action::SetNames { .. }))
            .map(|step| match &step.action {
                Action::CreatePod { ordinal, .. } => format!("create {ordinal}"),
                Action::StopPod { pod, .. } => format!("stop {}", pod.record.name),
                Action::StartContainer { pod, attempt, .. } => format!("start {} #{attempt}", pod.record.name),
                other => other.word().to_owned(),
            })
            .collect()
    }
}

#[track_caller]
fn check(workload: Workload, pods: &[(u32, &str, Is)], expected: &[&str]) {
    assert_eq!(Case::new(workload, pods).steps(), expected);
}

fn replicas(replicas: u32, surge: u32, unavailable: u32) -> Controller {
    let strategy = UpdateStrategy { max_surge: surge, max_unavailable: unavailable, ..UpdateStrategy::default() };
    Controller::Replicated { replicas, strategy }
}

fn set(replicas: u32, parallel: bool) -> Controller {
    Controller::Ordered {
        replicas,
        first_ordinal: 0,
        parallel,
        partition: 0,
        on_delete: false,
        min_ready: Millis(0),
        claims: Vec::new(),
        service_name: None,
    }
}

fn job(completions: u32, parallelism: u32, backoff_limit: u32) -> Workload {
    let job = JobSpec {
        completions: Some(completions),
        parallelism,
        backoff_limit,
        active_deadline: None,
        ttl_after_finished: None,
        indexed: false,
        suspend: false,
        failure_policy: Vec::new(),
        backoff_limit_per_index: None,
        max_failed_indexes: None,
    };
    let mut workload = workload(Controller::Job(job), "a");
    let mut spec = pod_spec("a");
    spec.restart_policy = Some(RestartPolicy::Never);
    workload.template.spec = Arc::new(spec);
    workload
}

#[test]
fn a_bare_pod_ends_before_its_successor_starts() {
    check(workload(Controller::Single, "a"), &[], &["create 0"]);
    check(workload(Controller::Single, "a"), &[(0, "a", Is::New)], &["start a-0 #0"]);
    check(workload(Controller::Single, "a"), &[(0, "a", Is::Runs)], &[]);
    check(workload(Controller::Single, "b"), &[(0, "a", Is::Runs)], &["stop a-0"]);
    check(workload(Controller::Single, "a"), &[(0, "a", Is::Ended(1))], &["start a-0 #1"]);
}

/// Whoever began to end a pod may be gone before it has: its containers' ends are not the end of its work.
#[test]
fn an_end_that_was_cut_off_is_not_the_end_of_the_work() {
    let once = |policy| {
        let mut workload = workload(Controller::Single, "a");
        let mut spec = pod_spec("a");
        spec.restart_policy = Some(policy);
        workload.template.spec = Arc::new(spec);
        workload
    };
    let drained = |workload, is| {
        let case = Case::new(workload, &[(0, "a", is)]);
        case.steps_to(&Goals { drained: true, ..Goals::new(&case.desired) })
    };
    for (policy, is, expected, on_an_empty_node) in [
        (RestartPolicy::OnFailure, Is::Ended(0), &[][..], &[][..]),
        (RestartPolicy::OnFailure, Is::Stopped(0), &["start a-0 #1"][..], &["stop a-0"][..]),
        (RestartPolicy::Always, Is::Stopped(0), &["start a-0 #1"], &["stop a-0"]),
        (RestartPolicy::Always, Is::Stopped(143), &["start a-0 #1"], &["stop a-0"]),
        (RestartPolicy::Never, Is::Ended(0), &[], &[]),
        (RestartPolicy::Never, Is::Stopped(0), &[], &["stop a-0"]),
    ] {
        check(once(policy), &[(0, "a", is)], expected);
        assert_eq!(drained(once(policy), is), on_an_empty_node, "{policy:?} {is:?}");
    }
    // A Job counts it as a failure, never as work done.
    check(job(1, 1, 1), &[(0, "a", Is::Ended(0))], &["remember"]);
    check(job(1, 1, 1), &[(0, "a", Is::Stopped(0))], &["create 1"]);
}

#[test]
fn with_a_surge_the_new_one_is_ready_before_the_old_one_goes() {
    let w = |n| workload(replicas(n, 1, 0), "b");
    check(w(1), &[(0, "a", Is::Runs)], &["create 0"]);
    check(w(1), &[(0, "a", Is::Runs), (0, "b", Is::New)], &["start b-0 #0"]);
    check(w(1), &[(0, "a", Is::Runs), (0, "b", Is::Runs)], &["stop a-0"]);
    check(w(2), &[(0, "a", Is::Runs), (1, "a", Is::Runs)], &["create 0"]);
    check(w(2), &[(0, "a", Is::Runs), (1, "a", Is::Runs), (0, "b", Is::Runs)], &["stop a-1"]);
    // Scaling needs no update.
    check(workload(replicas(3, 1, 0), "a"), &[(0, "a", Is::Runs)], &["create 1", "create 2"]);
    check(workload(replicas(1, 1, 0), "a"), &[(0, "a", Is::Runs), (1, "a", Is::Runs)], &["stop a-1"]);
    check(workload(replicas(0, 1, 0), "a"), &[(0, "a", Is::Runs)], &["stop a-0"]);
}

#[test]
fn without_a_surge_one_old_pod_goes_at_a_time() {
    check(workload(replicas(2, 0, 1), "b"), &[(0, "a", Is::Runs), (1, "a", Is::Runs)], &["stop a-1"]);
    check(workload(replicas(2, 0, 1), "b"), &[(0, "a", Is::Runs)], &["create 0"]);
}

#[test]
fn two_versions_never_write_the_same_data() {
    let mut workload = workload(replicas(2, 1, 0), "b");
    let mut spec = pod_spec("b");
    spec.volumes = vec![Volume { name: "d".into(), source: VolumeSource::Named { name: "d".into() } }];
    for container in &mut spec.containers {
        container.mounts = vec![VolumeMount { volume: "d".into(), path: "/d".into(), ..VolumeMount::default() }];
    }
    workload.template.spec = Arc::new(spec);
    let mut case = Case::new(workload, &[(0, "a", Is::Runs), (1, "a", Is::Runs)]);
    for pod in case.observed.pods.values_mut() {
        let mut facts = PodFacts::clone(pod);
        let mut record = PodRecord::clone(&facts.record);
        let mut spec = PodSpec::clone(&record.spec);
        for container in &mut spec.containers {
            container.mounts = vec![VolumeMount { volume: "d".into(), path: "/d".into(), ..VolumeMount::default() }];
        }
        record.spec = Arc::new(spec);
        facts.record = Arc::new(record);
        *pod = Arc::new(facts);
    }
    assert_eq!(case.steps(), ["stop a-0", "stop a-1"]);
}

#[test]
fn a_version_whose_images_are_missing_touches_nothing_old() {
    let mut case = Case::new(workload(replicas(1, 1, 0), "b"), &[(0, "a", Is::Runs)]);
    case.observed.prepared.clear();
    assert_eq!(case.steps(), ["pull"]);
}

/// Whatever a version cannot be prepared for (a reference, a volume, a port, an image), no kind of workload gives up
/// what it has for it.
#[test]
fn a_version_that_cannot_be_prepared_touches_nothing_old() {
    let recreate = Controller::Replicated {
        replicas: 2,
        strategy: UpdateStrategy { recreate: true, ..UpdateStrategy::default() },
    };
    for controller in [Controller::Single, replicas(2, 1, 0), replicas(2, 0, 1), recreate, set(2, false)] {
        let mut case = Case::new(workload(controller, "b"), &[(0, "a", Is::Runs)]);
        case.observed.prepared.clear();
        assert_eq!(case.steps(), ["pull"]);
        let goals = Goals::new(&case.desired);
        let step = plan(&goals, &case.observed, NOW).steps.into_iter().next().expect("one step");
        let failure =
            |at| Failure { count: 3, at, message: "there is nothing".into(), permanent: false, inputs: String::new() };
        case.observed.failures.insert(step.action.key(), failure(NOW));
        assert_eq!(case.steps(), Vec::<String>::new());
        let held = plan(&goals, &case.observed, NOW).holds;
        assert!(
            held.iter().any(|(_, hold)| matches!(hold, Hold::Failed { message, .. } if message == "there is nothing"))
        );
        // It is tried again, however often it has failed.
        case.observed.failures.insert(step.action.key(), failure(Timestamp(NOW.0 - 600_000)));
        assert_eq!(case.steps(), ["pull"]);
    }
}

/// Where the new pod needs what the old one has, an old one that cannot be removed keeps the new one from being made.
#[test]
fn nothing_is_added_when_the_removal_it_needs_has_failed() {
    let recreate = Controller::Replicated {
        replicas: 1,
        strategy: UpdateStrategy { recreate: true, ..UpdateStrategy::default() },
    };
    for controller in [Controller::Single, replicas(1, 0, 1), recreate, set(1, false)] {
        let mut case = Case::new(workload(controller.clone(), "b"), &[(0, "a", Is::Runs)]);
        assert_eq!(case.steps(), ["stop a-0"], "{controller:?}");
        let uid = case.observed.pods.keys().next().expect("one pod").clone();
        let reason = Reason::ScaledDown;
        case.observed.stopping.insert(uid.clone(), reason);
        // While it ends, after its end has failed, and when it is tried again.
        case.observed.in_flight.insert(ActionKey::Pod(uid.clone()));
        assert_eq!(case.steps(), Vec::<String>::new(), "{controller:?}");
        case.observed.in_flight.clear();
        let failure = |at| Failure {
            count: 1,
            at,
            message: "it still runs after SIGKILL".into(),
            permanent: false,
            inputs: String::new(),
        };
        case.observed.failures.insert(ActionKey::Pod(uid.clone()), failure(NOW));
        assert_eq!(case.steps(), Vec::<String>::new(), "{controller:?}");
        case.observed.failures.insert(ActionKey::Pod(uid.clone()), failure(Timestamp(NOW.0 - 5000)));
        assert_eq!(case.steps(), ["stop a-0"], "{controller:?}");
        // Only when it is gone.
        case.observed.pods.clear();
        assert_eq!(case.steps(), ["create 0"], "{controller:?}");
    }
}

/// Files that cannot be swapped are waited for as everything else is; the pod is cared for all the same.
#[test]
fn files_that_cannot_be_written_are_not_tried_all_the_time() {
    let mut workload = workload(replicas(1, 1, 0), "a");
    let mut spec = pod_spec("a");
    let source = FilesSource::ConfigMap { name: "c".into(), optional: true, items: Vec::new() };
    let files = FilesVolume { sources: vec![source], ..FilesVolume::default() };
    spec.volumes = vec![Volume { name: "c".into(), source: VolumeSource::Files(files) }];
    workload.template.spec = Arc::new(spec);
    for (is, expected) in [(Is::Runs, vec![]), (Is::Ended(1), vec!["start a-0 #1"])] {
        let mut case = Case::new(workload.clone(), &[(0, "a", is)]);
        let uid = case.observed.pods.keys().next().expect("one pod").clone();
        case.observed.files.insert(uid.clone(), "of before".into());
        assert_eq!(case.steps().first().map(String::as_str), Some("update_files"));
        let message = "there is no space".to_owned();
        let failure = Failure { count: 4, at: NOW, message, permanent: false, inputs: String::new() };
        case.observed.failures.insert(ActionKey::Files(uid.clone()), failure);
        assert_eq!(case.steps(), expected);
        let plan = plan(&Goals::new(&case.desired), &case.observed, NOW);
        assert_eq!(plan.wake, Some(NOW.plus(Millis::from_secs(8))));
        assert!(
            plan.holds
                .iter()
                .any(|(_, hold)| matches!(hold, Hold::Failed { message, .. } if message.contains("space")))
        );
    }
}

/// What a failure counts under: everything of the sources that its action depends on, and nothing else.
#[test]
fn other_inputs_end_a_wait() {
    let inputs = |change: &dyn Fn(&mut Workload), login: &str| {
        let mut workload = workload(replicas(1, 1, 0), "a");
        let mut spec = pod_spec("a");
        spec.image_pull_secrets = vec!["login".into()];
        workload.template.spec = Arc::new(spec);
        let id = workload.id.clone();
        change(&mut workload);
        let mut desired = Desired::default();
        let data = BTreeMap::from([("k".to_owned(), SecretBytes::new(login.into()))]);
        let secret = SecretData { data, kind: String::new() };
        desired.secrets.insert(("default".into(), "login".into()), Arc::new(secret));
        desired.workloads.insert(id.clone(), Arc::new(workload));
        let goals = Goals::new(&Arc::new(desired));
        goals.inputs(&ActionKey::Create(id, 0, String::new()), &BTreeMap::new()).expect("it is of a workload")
    };
    let before = inputs(&|_| {}, "x");
    assert_eq!(inputs(&|_| {}, "x"), before);
    assert_eq!(inputs(&|workload| workload.controller = replicas(3, 1, 0), "x"), before);
    assert_eq!(inputs(&|workload| workload.annotations = BTreeMap::from([("k".into(), "v".into())]), "x"), before);
    assert_ne!(inputs(&|_| {}, "y"), before, "another login");
    assert_ne!(inputs(&|workload| workload.template.spec = Arc::new(pod_spec("b")), "x"), before, "another version");
}

#[test]
fn a_set_starts_and_ends_in_order() {
    check(workload(set(3, false), "a"), &[], &["create 0"]);
    check(workload(set(3, false), "a"), &[(0, "a", Is::New)], &["start a-0 #0"]);
    check(workload(set(3, false), "a"), &[(0, "a", Is::Runs)], &["create 1"]);
    check(workload(set(3, true), "a"), &[], &["create 0", "create 1", "create 2"]);
    let three = [(0, "a", Is::Runs), (1, "a", Is::Runs), (2, "a", Is::Runs)];
    check(workload(set(3, false), "a"), &three, &[]);
    check(workload(set(1, false), "a"), &three, &["stop a-2"]);
    check(workload(set(3, false), "b"), &three, &["stop a-2"]);
    // The next one is updated only when the last one serves again.
    check(workload(set(2, false), "b"), &[(0, "a", Is::Runs), (1, "b", Is::New)], &["start b-1 #0"]);
    check(workload(set(2, false), "b"), &[(0, "a", Is::Runs), (1, "b", Is::Runs)], &["stop a-0"]);
}

#[test]
fn a_job_runs_to_its_end_and_never_again() {
    check(job(1, 1, 6), &[], &["create 0"]);
    check(job(1, 1, 6), &[(0, "a", Is::Runs)], &[]);
    check(job(1, 1, 6), &[(0, "a", Is::Ended(0))], &["remember"]);
    check(job(3, 2, 6), &[], &["create 0", "create 1"]);
    check(job(3, 2, 6), &[(0, "a", Is::Ended(0)), (1, "a", Is::Runs)], &["create 2"]);
    // The last failure is long ago: its wait is over.
    check(job(1, 1, 6), &[(0, "a", Is::Ended(1))], &["create 1"]);
    check(job(1, 1, 1), &[(0, "a", Is::Ended(1)), (1, "a", Is::Ended(1))], &["remember"]);
}

#[test]
fn what_is_in_flight_is_not_done_again() {
    for (workload, pods) in [
        (workload(replicas(3, 1, 0), "a"), vec![]),
        (workload(set(2, true), "a"), vec![]),
        (job(2, 2, 6), vec![]),
        (workload(replicas(1, 1, 0), "b"), vec![(0, "a", Is::Runs), (0, "b", Is::New)]),
    ] {
        let mut case = Case::new(workload, &pods);
        let goals = Goals::new(&case.desired);
        let first = plan(&goals, &case.observed, NOW);
        assert!(!first.steps.is_empty());
        case.observed.in_flight.extend(first.steps.iter().map(|step| step.action.key()));
        assert_eq!(case.steps(), Vec::<String>::new());
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn a_pod() -> impl Strategy<Value = (u32, &'static str, Is)> {
        let state = prop_oneof![Just(Is::New), Just(Is::Runs), Just(Is::Ended(0)), Just(Is::Ended(1))];
        (0u32..4, prop_oneof![Just("a"), Just("b"), Just("c")], state)
    }

    fn a_workload() -> impl Strategy<Value = Workload> {
        let controller = prop_oneof![
            Just(Controller::Single),
            (0u32..4, 0u32..3, 0u32..3).prop_map(|(n, surge, down)| replicas(n, surge, down.max(1 - surge.min(1)))),
            (0u32..4, any::<bool>()).prop_map(|(n, parallel)| set(n, parallel)),
        ];
        (controller, prop_oneof![Just("a"), Just("b")]).prop_map(|(controller, version)| workload(controller, version))
    }

    proptest! {
        /// What is in flight is not planned again, and one pass never stops and tends the same pod.
        #[test]
        fn a_pass_is_consistent(workload in a_workload(), pods in prop::collection::vec(a_pod(), 0..6)) {
            let mut case = Case::new(workload, &pods);
            let goals = Goals::new(&case.desired);
            let first = plan(&goals, &case.observed, NOW);
            let mut stopped = std::collections::BTreeSet::new();
            let mut tended = std::collections::BTreeSet::new();
            let mut keys = std::collections::BTreeSet::new();
            for step in &first.steps {
                prop_assert!(keys.insert(step.action.key()), "one action a key");
                match &step.action {
                    Action::StopPod { pod, .. } => drop(stopped.insert(pod.record.uid.clone())),
                    Action::StartContainer { pod, .. } | Action::RestorePod { pod } => {
                        tended.insert(pod.record.uid.clone());
                    }
                    _ => {}
                }
            }
            prop_assert!(stopped.is_disjoint(&tended));
            case.observed.in_flight.extend(keys);
            prop_assert_eq!(case.steps(), Vec::<String>::new());
        }

        /// A boot in 1970 and steps of the wall clock change no decision: nothing restarts, no wait is cut short.
        #[test]
        fn the_wall_clock_decides_nothing(
            workload in a_workload(),
            pods in prop::collection::vec(a_pod(), 0..6),
            unix in prop_oneof![Just(0i64), Just(1), Just(1_800_000_000), Just(4_102_444_800), any::<i64>()],
        ) {
            let mut case = Case::new(workload, &pods);
            let all = |case: &Case| {
                let plan = plan(&Goals::new(&case.desired), &case.observed, NOW);
                (case.steps(), plan.wake, format!("{:?}", plan.holds))
            };
            let before = all(&case);
            case.observed.unix = unix;
            prop_assert_eq!(all(&case), before);
        }

        /// A workload whose removal is held loses nothing; one that is gone for good loses everything.
        #[test]
        fn only_what_is_not_held_is_removed(workload in a_workload(), pods in prop::collection::vec(a_pod(), 1..6)) {
            let case = Case::new(workload, &pods);
            let mut goals = Goals::default();
            let count = |goals: &Goals| {
                let plan = plan(goals, &case.observed, NOW);
                plan.steps.iter().filter(|step| matches!(step.action, Action::StopPod { .. })).count()
            };
            prop_assert_eq!(count(&goals), pods.len());
            goals.held.extend(case.desired.workloads.keys().cloned());
            prop_assert_eq!(count(&goals), 0);
        }

        /// Availability never falls below what the strategy allows: no more serving pods are stopped at once.
        #[test]
        fn the_bounds_of_the_strategy_are_kept(
            n in 0u32..5,
            surge in 0u32..3,
            unavailable in 0u32..3,
            pods in prop::collection::vec(a_pod(), 0..8),
        ) {
            let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
            let case = Case::new(workload(replicas(n, surge, unavailable), "b"), &pods);
            let plan = plan(&Goals::new(&case.desired), &case.observed, NOW);
            let serving = pods.iter().filter(|pod| pod.2 == Is::Runs).count();
            let stopped = plan
                .steps
                .iter()
                .filter(|step| match &step.action {
                    Action::StopPod { pod, .. } => pod.containers.get("main").is_some_and(ContainerFacts::is_running),
                    _ => false,
                })
                .count();
            let floor = (n as usize).saturating_sub(unavailable as usize);
            prop_assert!(stopped == 0 || serving - stopped >= floor, "{serving} serve, {stopped} are stopped, floor {floor}");
            let created = plan.steps.iter().filter(|step| matches!(step.action, Action::CreatePod { .. })).count();
            let most = (n + surge) as usize;
            prop_assert!(created == 0 || pods.len() + created <= most.max(n as usize), "{} there, {created} more", pods.len());
        }
    }
}

#[test]
fn a_pod_above_its_disk_limit_fails_and_where_pods_are_made_another_takes_its_place() {
    let limited = |controller, version| {
        let mut workload = workload(controller, version);
        let mut spec = PodSpec::clone(&workload.template.spec);
        let source = VolumeSource::EmptyDir { memory: false, size_limit: Some(1 << 20) };
        spec.volumes = vec![Volume { name: "v".into(), source }];
        workload.template.spec = Arc::new(spec);
        workload
    };
    let uid = PodUid(format!("{:016x}", 0));
    let with = |workload, used: u64, failed: bool, is| {
        let mut case = Case::new(workload, &[(0, "a", is)]);
        let volumes = BTreeMap::from([("v".to_owned(), used)]);
        case.observed.disk.insert(uid.clone(), DiskUsage { volumes, containers: BTreeMap::new() });
        if failed {
            let failed = PodFailure { reason: PodFailureReason::Evicted, message: String::new() };
            let facts = case.observed.pods.get_mut(&uid).expect("there is one pod");
            *facts = Arc::new(PodFacts { failed: Some(failed), ..PodFacts::clone(facts) });
        }
        case
    };
    let deployment = || limited(replicas(1, 1, 0), "a");
    let pod = || limited(Controller::Single, "a");
    for (case, expected) in [
        (with(deployment(), 1 << 20, false, Is::Runs), &[][..]),
        (with(deployment(), (1 << 20) + 1, false, Is::Runs), &["fail_pod"]),
        // Marked, but not stopped yet: by an agent that died in between.
        (with(pod(), 0, true, Is::Runs), &["fail_pod"]),
        (with(pod(), 2 << 20, true, Is::Ended(137)), &[]),
        (with(deployment(), 0, true, Is::Ended(137)), &["stop a-0", "create 1"]),
        (with(limited(set(1, false), "a"), 0, true, Is::Ended(137)), &["stop a-0"]),
        // A bare pod stays as it ended until its manifest is another one.
        (with(limited(Controller::Single, "b"), 0, true, Is::Ended(137)), &["stop a-0"]),
    ] {
        assert_eq!(case.steps(), expected);
    }
}

#[test]
fn a_pod_above_its_deadline_fails_and_stays_so() {
    let mut workload = workload(Controller::Single, "a");
    let mut spec = PodSpec::clone(&workload.template.spec);
    spec.active_deadline = Some(Millis::from_secs(1));
    workload.template.spec = Arc::new(spec);
    assert_eq!(Case::new(workload, &[(0, "a", Is::Runs)]).steps(), ["fail_pod"]);
}
