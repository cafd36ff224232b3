//! New versions that fail, in a world without a kernel: every step of a plan takes effect at once, and the name of a
//! version says how its containers behave.

use std::collections::BTreeMap;
use std::sync::Arc;

use spec::digest::Digest;
use spec::image_ref::ImageRef;
use spec::observed::{Addresses, ContainerFacts, ContainerState, Exit, PodFacts, PodRecord, PodUid};
use spec::plan::{Action, Bad, Cause, Failure, Goals, Health, Observed, plan};
use spec::pod::{
    ContainerSpec, EnvSource, EnvVar, FilesSource, FilesVolume, Handler, PodSpec, Probe, RestartPolicy, Volume,
    VolumeSource,
};
use spec::time::{Millis, Timestamp};
use spec::workload::{
    ConfigData, Controller, Desired, OnFailure, PodTemplate, SourceRef, UpdateStrategy, Workload, WorkloadId,
    WorkloadKind,
};

fn id() -> WorkloadId {
    WorkloadId { kind: WorkloadKind::Deployment, namespace: "default".into(), name: "w".into() }
}

/// A workload of this version: `ok-*` serves, `crash-*` ends with 1 after a second, `once-*` does so once, `oom-*` is
/// killed for want of memory, `hang-*` never gets ready, `lost-*` is lost with its shim every second.
fn workload(version: &str, controller: Controller) -> Workload {
    let container = ContainerSpec {
        name: "main".into(),
        image: Some(ImageRef::parse("app:1").expect("valid")),
        env: vec![EnvVar { name: "V".into(), source: EnvSource::Literal(version.into()) }],
        readiness: Some(Probe { handler: Handler::Exec(vec!["true".into()]), ..Probe::default() }),
        ..ContainerSpec::default()
    };
    let files = FilesVolume {
        sources: vec![FilesSource::ConfigMap { name: "c".into(), optional: true, items: Vec::new() }],
        ..FilesVolume::default()
    };
    let spec = PodSpec {
        containers: vec![container],
        volumes: vec![Volume { name: "c".into(), source: VolumeSource::Files(files) }],
        restart_policy: Some(RestartPolicy::Always),
        ..PodSpec::default()
    };
    Workload {
        id: id(),
        source: SourceRef::default(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        controller,
        template: PodTemplate { spec: Arc::new(spec), ..PodTemplate::default() },
        depends_on: Vec::new(),
    }
}

fn replicas(replicas: u32, change: impl FnOnce(&mut UpdateStrategy)) -> Controller {
    let mut strategy = UpdateStrategy::default();
    change(&mut strategy);
    Controller::Replicated { replicas, strategy }
}

struct World {
    now: Timestamp,
    desired: Arc<Desired>,
    observed: Observed,
    pods_made: u32,
    /// Versions of the pods made, in order, and what else a test wants to see.
    made: Vec<String>,
    /// No call that makes a pod of such a version succeeds, and whether that will last.
    refused: Option<(&'static str, bool)>,
}

impl World {
    fn new() -> Self {
        Self {
            now: Timestamp(1_000_000),
            desired: Arc::default(),
            observed: Observed { boot_id: "boot".into(), ..Observed::default() },
            pods_made: 0,
            made: Vec::new(),
            refused: None,
        }
    }

    fn wish(&mut self, workload: Workload, config: &str) {
        let mut desired = Desired::default();
        let data = ConfigData(BTreeMap::from([("k".to_owned(), config.as_bytes().to_vec())]));
        desired.configs.insert(("default".into(), "c".into()), Arc::new(data));
        desired.workloads.insert(workload.id.clone(), Arc::new(workload));
        self.desired = Arc::new(desired);
    }

    fn version(pod: &PodFacts) -> String {
        match pod.record.spec.containers.first().and_then(|c| c.env.first()).map(|v| &v.source) {
            Some(EnvSource::Literal(version)) => version.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Versions of the pods that serve.
    fn serving(&self) -> Vec<String> {
        let ready = |pod: &&Arc<PodFacts>| spec::plan::pod_ready_since(pod, &self.observed).is_some();
        let mut all: Vec<String> = self.observed.pods.values().filter(ready).map(|pod| Self::version(pod)).collect();
        all.sort();
        all
    }

    fn goals(&self) -> Goals {
        Goals::with_versions(&self.desired, &self.observed.versions)
    }

    fn cause(&self) -> Option<Cause> {
        self.observed.versions.get(&id())?.bad.values().next().map(|bad| bad.cause.clone())
    }

    /// Lets the world go on for so many seconds.
    fn run(&mut self, seconds: u64) {
        let end = self.now.plus(Millis::from_secs(seconds));
        loop {
            let wake = self.settle();
            let next = wake.filter(|at| *at > self.now).unwrap_or(end);
            let next = next.min(self.next_end().unwrap_or(end));
            if next >= end {
                self.now = end;
                self.settle();
                return;
            }
            self.now = next;
            self.ends();
        }
    }

    /// Plans and does until nothing is left to do now.
    fn settle(&mut self) -> Option<Timestamp> {
        for _ in 0..200 {
            let plan = plan(&self.goals(), &self.observed, self.now);
            if plan.steps.is_empty() && plan.versions.is_empty() {
                return plan.wake;
            }
            self.observed.versions.extend(plan.versions.iter().cloned());
            if plan.versions.is_empty() {
                for step in plan.steps {
                    self.act(step.action);
                }
            }
        }
        panic!("no end of steps");
    }

    fn act(&mut self, action: Action) {
        let key = action.key();
        match action {
            Action::Prepare { goal } => {
                let images = BTreeMap::from([("main".to_owned(), Digest::of(goal.revision.as_bytes()))]);
                self.observed.prepared.insert((goal.workload.id.clone(), goal.revision), images);
            }
            Action::CreatePod { goal, ordinal, name, spec, images, run } => {
                self.pods_made += 1;
                let record = PodRecord {
                    uid: PodUid(format!("{:016x}", self.pods_made)),
                    workload: goal.workload.id.clone(),
                    ordinal,
                    revision: goal.revision.clone(),
                    name,
                    labels: BTreeMap::new(),
                    annotations: BTreeMap::new(),
                    depends_on: Vec::new(),
                    source: SourceRef::default(),
                    spec,
                    images,
                    created_unix: 0,
                    created: self.now,
                    boot_id: "boot".into(),
                    run,
                    bound: BTreeMap::new(),
                };
                let pod = PodFacts {
                    record: Arc::new(record),
                    sandbox: true,
                    addresses: Addresses::default(),
                    containers: BTreeMap::new(),
                    failed: None,
                };
                let version = Self::version(&pod);
                if let Some((prefix, permanent)) = self.refused
                    && version.starts_with(prefix)
                {
                    let count = self.observed.failures.get(&key).map_or(0, |failure| failure.count) + 1;
                    let failure =
                        Failure { count, at: self.now, message: "refused".into(), permanent, inputs: String::new() };
                    self.observed.failures.insert(key, failure);
                    return;
                }
                assert!(pod.record.images.contains_key("main"), "{version} is made without an image");
                self.made.push(version);
                self.observed.files.insert(pod.record.uid.clone(), goal.files);
                self.observed.pods.insert(pod.record.uid.clone(), Arc::new(pod));
            }
            Action::StartContainer { pod, container, attempt, series } => {
                let mut pod = PodFacts::clone(&pod);
                let state = ContainerState::Running { pid: 1, started: self.now };
                pod.containers.insert(container.clone(), ContainerFacts::new(attempt, series, state));
                let ready = !Self::version(&pod).starts_with("hang");
                let (since, refused) = (self.now, !ready);
                let health = Health { attempt, started: true, ready, since, failed: false, refused };
                self.observed.health.insert((pod.record.uid.clone(), container), health);
                self.observed.pods.insert(pod.record.uid.clone(), Arc::new(pod));
            }
            Action::StopPod { pod, .. } => {
                self.observed.pods.remove(&pod.record.uid);
                self.observed.stopping.remove(&pod.record.uid);
            }
            Action::UpdateFiles { pod, label, .. } => {
                self.made.push("files".to_owned());
                self.observed.files.insert(pod.record.uid.clone(), label);
            }
            Action::SetNames { names } => self.observed.names = Some(*names),
            Action::PublishServices { services } => self.observed.services = *services,
            other => panic!("{}", other.word()),
        }
    }

    /// When the next container ends by itself.
    fn next_end(&self) -> Option<Timestamp> {
        self.observed.pods.values().filter_map(|pod| Self::end_of(pod)).min()
    }

    fn end_of(pod: &PodFacts) -> Option<Timestamp> {
        let facts = pod.containers.get("main")?;
        let ContainerState::Running { started, .. } = facts.state else { return None };
        let version = Self::version(pod);
        let ends = ["crash", "oom", "lost"].iter().any(|word| version.starts_with(word))
            || (version.starts_with("once") && facts.attempt == 0);
        ends.then(|| started.plus(Millis(1000)))
    }

    fn ends(&mut self) {
        let now = self.now;
        for pod in self.observed.pods.values_mut() {
            if Self::end_of(pod).is_none_or(|end| end > now) {
                continue;
            }
            let version = Self::version(pod);
            let mut facts = PodFacts::clone(pod);
            if let Some(container) = facts.containers.get_mut("main") {
                container.state = ContainerState::Exited(Exit {
                    code: 1,
                    signal: None,
                    oom: version.starts_with("oom"),
                    started: Some(Timestamp(now.0 - 1000)),
                    finished: now,
                    finished_unix: 0,
                    boot_id: "boot".into(),
                    error: version.starts_with("lost").then(|| "lost".to_owned()),
                    message: None,
                    stopped: false,
                });
            }
            *pod = Arc::new(facts);
        }
    }
}

/// A world where `ok-1` has served for eleven minutes.
fn with_good(controller: Controller) -> World {
    let mut world = World::new();
    world.wish(workload("ok-1", controller), "one");
    world.run(660);
    assert!(world.observed.versions[&id()].good.is_some(), "it stood its trial");
    world
}

#[test]
fn a_version_that_fails_is_taken_back_and_not_tried_again() {
    for (version, seconds, word) in
        [("crash-2", 20, "crashed"), ("oom-2", 2, "out_of_memory"), ("hang-2", 601, "not_ready")]
    {
        for controller in [
            replicas(2, |_| {}),
            replicas(1, |strategy| (strategy.max_surge, strategy.max_unavailable) = (0, 1)),
            replicas(2, |strategy| strategy.recreate = true),
            Controller::Single,
        ] {
            let wished = match controller {
                Controller::Replicated { replicas, .. } => replicas as usize,
                _ => 1,
            };
            let mut world = with_good(controller.clone());
            world.wish(workload(version, controller), "one");
            world.run(seconds);
            assert_eq!(world.cause().map(|cause| cause.word()), Some(word), "{version}");
            world.run(5);
            assert_eq!(world.serving(), vec!["ok-1"; wished], "{version}");
            let made = world.made.len();
            world.run(3600);
            assert_eq!(world.made.len(), made, "{version} is not tried again");
            assert_eq!(world.observed.pods.len(), wished);
            let goals = world.goals();
            assert!(goals.workloads[&id()].back.is_some());
        }
    }
}

#[test]
fn with_a_surge_the_old_version_serves_all_the_while() {
    let mut world = with_good(replicas(1, |_| {}));
    world.wish(workload("hang-2", replicas(1, |_| {})), "one");
    for _ in 0..700 {
        world.run(1);
        assert_eq!(world.serving(), ["ok-1"]);
    }
    assert_eq!(world.observed.pods.len(), 1);
}

#[test]
fn a_version_that_recovers_or_is_slow_is_kept() {
    let mut world = with_good(replicas(1, |_| {}));
    world.wish(workload("once-2", replicas(1, |_| {})), "one");
    world.run(700);
    assert_eq!((world.serving(), world.cause()), (vec!["once-2".to_owned()], None));
    assert_eq!(world.observed.versions[&id()].good.as_ref().map(|good| good.label.clone()), {
        let goals = world.goals();
        Some(goals.workloads[&id()].version.clone())
    });
}

#[test]
fn what_is_no_fault_of_a_version_never_counts() {
    // Containers that are lost with their shims.
    let mut world = with_good(replicas(1, |_| {}));
    world.wish(workload("lost-2", replicas(1, |_| {})), "one");
    world.run(120);
    assert_eq!(world.cause(), None);
    // A disk that is full for an hour: calls fail, and may succeed later.
    let stop_first = |strategy: &mut UpdateStrategy| (strategy.max_surge, strategy.max_unavailable) = (0, 1);
    let mut world = with_good(replicas(2, stop_first));
    world.refused = Some(("ok-2", false));
    world.wish(workload("ok-2", replicas(2, stop_first)), "one");
    world.run(3600);
    assert_eq!(world.cause(), None);
    world.refused = None;
    world.run(1200);
    assert_eq!((world.serving(), world.cause()), (vec!["ok-2".to_owned(); 2], None));
    // A reboot in the middle.
    let mut world = with_good(replicas(1, |_| {}));
    world.wish(workload("hang-2", replicas(1, |_| {})), "one");
    world.run(500);
    world.observed.boot_id = "next".into();
    world.run(200);
    assert_eq!(world.cause(), None, "the deadline began anew");
}

#[test]
fn going_back_brings_the_configuration_back() {
    let mut world = with_good(replicas(1, |_| {}));
    world.wish(workload("crash-2", replicas(1, |_| {})), "two");
    world.run(60);
    assert_eq!(world.serving(), ["ok-1"]);
    let goals = world.goals();
    let revision = &goals.workloads[&id()].revision;
    let objects = goals.objects(&world.observed, &id(), revision);
    assert_eq!(objects.configs[&("default".to_owned(), "c".to_owned())].0["k"], b"one");
    // Pods of the old version are tended with what they were made with, also while the new one is on trial.
    let mut world = with_good(replicas(1, |_| {}));
    let old = world.goals().workloads[&id()].revision.clone();
    world.wish(workload("hang-2", replicas(1, |_| {})), "two");
    world.run(60);
    let goals = world.goals();
    let content = |revision: &str| {
        goals.objects(&world.observed, &id(), revision).configs[&("default".to_owned(), "c".to_owned())].0["k"].clone()
    };
    assert_eq!(content(&old), b"one");
    assert_eq!(content(&goals.workloads[&id()].revision), b"two");
}

#[test]
fn another_version_is_tried_and_the_failed_one_stays_known() {
    let mut world = with_good(replicas(1, |_| {}));
    world.wish(workload("crash-2", replicas(1, |_| {})), "one");
    world.run(60);
    world.wish(workload("ok-3", replicas(1, |_| {})), "one");
    world.run(30);
    assert_eq!(world.serving(), ["ok-3"]);
    // It has proved itself for a while: it is what the next one falls back to.
    let made = world.made.len();
    world.wish(workload("crash-2", replicas(1, |_| {})), "one");
    world.run(60);
    assert_eq!(world.serving(), ["ok-3"]);
    assert_eq!(world.made.len(), made, "the failed version is known");
}

#[test]
fn a_failed_version_follows_the_rules_of_its_manifest() {
    // Pause: nothing more is done for it.
    let pause = |strategy: &mut UpdateStrategy| {
        strategy.on_failure = OnFailure::Pause;
        (strategy.max_surge, strategy.max_unavailable) = (0, 1);
    };
    let mut world = with_good(replicas(2, pause));
    world.wish(workload("hang-2", replicas(2, pause)), "one");
    world.run(3600);
    let plan = plan(&world.goals(), &world.observed, world.now);
    assert_eq!(plan.holds.iter().map(|(_, hold)| hold.word()).collect::<Vec<_>>(), ["update_failed"]);
    assert_eq!(world.serving(), ["ok-1"], "one was replaced, the other one stays");
    // Continue: as if nothing had happened.
    let go_on = |strategy: &mut UpdateStrategy| strategy.on_failure = OnFailure::Continue;
    let mut world = with_good(replicas(1, go_on));
    world.wish(workload("crash-2", replicas(1, go_on)), "one");
    world.run(600);
    assert!(world.goals().workloads[&id()].back.is_none());
    // The annotation is stronger than the default.
    let mut world = with_good(replicas(1, |_| {}));
    let mut next = workload("crash-2", replicas(1, |_| {}));
    next.annotations.insert("mainstay/on-failure".into(), "continue".into());
    world.wish(next, "one");
    world.run(600);
    assert_eq!(world.cause(), None);
}

#[test]
fn scaling_works_while_the_last_good_version_runs() {
    let mut world = with_good(replicas(1, |_| {}));
    world.wish(workload("crash-2", replicas(1, |_| {})), "one");
    world.run(60);
    world.wish(workload("crash-2", replicas(3, |_| {})), "one");
    world.run(5);
    assert_eq!(world.serving(), ["ok-1"; 3]);
}

#[test]
fn compose_monitor_makes_one_end_too_many_and_the_trial_short() {
    let monitor = |strategy: &mut UpdateStrategy| strategy.monitor = Millis::from_secs(5);
    let mut world = World::new();
    world.wish(workload("ok-1", replicas(1, monitor)), "one");
    world.run(6);
    assert!(world.observed.versions[&id()].good.is_some());
    world.wish(workload("once-2", replicas(1, monitor)), "one");
    world.run(3);
    assert_eq!(world.cause().map(|cause| cause.word()), Some("crashed"));
    assert_eq!(world.serving(), ["ok-1"]);
}

#[test]
fn what_can_never_start_is_taken_back_soon() {
    let stop_first = |strategy: &mut UpdateStrategy| (strategy.max_surge, strategy.max_unavailable) = (0, 1);
    let mut world = with_good(replicas(2, stop_first));
    world.refused = Some(("ok-2", true));
    world.wish(workload("ok-2", replicas(2, stop_first)), "one");
    world.run(15);
    // One pod of two was replaced, the other one serves; what fails is its successor.
    assert_eq!(world.serving(), ["ok-1"; 2], "{:?}", world.cause());
}

#[test]
fn a_version_whose_first_pod_was_late_can_be_gone_back_to() {
    let mut world = World::new();
    world.refused = Some(("ok-1", false));
    world.wish(workload("ok-1", replicas(2, |_| {})), "one");
    world.run(30);
    assert!(world.made.is_empty(), "{:?}", world.made);
    world.refused = None;
    world.run(900);
    world.wish(workload("crash-2", replicas(2, |_| {})), "one");
    // Whoever goes back has not prepared that version himself.
    world.observed.prepared.clear();
    world.run(30);
    assert_eq!(world.serving(), ["ok-1"; 2], "{:?}", world.cause());
}

#[test]
fn versions_with_one_template_are_told_apart() {
    let cause = Cause::Crashed { container: "main".into(), times: 1, code: 1, error: None };
    let bad = Bad { revision: "aa".into(), cause };
    assert_eq!(bad.names("bb"), ["aa", "bb"]);
    assert_eq!(bad.names("aa"), ["aa with its new files", "aa with the files of before"]);
}
