//! The whole agent but its hands and its files, on simulated time: random edits, faults before and after effects,
//! lost hints, killed containers, reboots, pauses, windows, rollbacks, drains, held removals, a crash of the agent at any
//! await.
//! Rules are checked on every decision; when the faults stop, the world must become what is wished.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::events::Journal;
use agent::executor::Executor;
use agent::failures::Failures;
use agent::history::History;
use agent::orders::{Order, Orders};
use agent::reconciler::{Command, Event, Parts, Planner, Reading, Reconciler};
use agent::status::Snapshot;
use agent::telemetry::Metrics;
use agent::versions::Versions;
use runtime::sim::{Faults, Rng, Sim};
use spec::budget::Budget;
use spec::image_ref::ImageRef;
use spec::observed::{ContainerFacts, PodFacts};
use spec::pod::{ContainerSpec, EnvSource, EnvVar, PodSpec, Port, RestartPolicy, Volume, VolumeMount, VolumeSource};
use spec::workload::{
    Controller, Dependency, DependencyCondition, Desired, PodTemplate, SourceRef, UpdateStrategy, Workload, WorkloadId,
    WorkloadKind,
};
use world::SimClock;
use world::referee::{self, Referee};

/// One workload of a simulated wish.
#[derive(Debug, Clone, PartialEq)]
struct Wish {
    image: &'static str,
    replicas: u32,
    version: u64,
    volume: bool,
    port: bool,
    policy: RestartPolicy,
    strategy: Strategy,
    /// One with a lower number that it depends on, where that is wished.
    needs: Option<usize>,
}

/// How a new version takes over.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Strategy {
    Default,
    StopFirst,
    Recreate,
}

type Wishes = BTreeMap<usize, Wish>;

fn is_deployment(wish: &Wish) -> bool {
    wish.replicas > 1 || wish.policy == RestartPolicy::Always
}

/// Whether a workload has a maintenance window: each of its versions, so that it is no question which one counts.
fn is_windowed(index: usize) -> bool {
    index % 4 == 3
}

fn id(index: usize, wish: &Wish) -> WorkloadId {
    let kind = if is_deployment(wish) { WorkloadKind::Deployment } else { WorkloadKind::Pod };
    WorkloadId { kind, namespace: "default".into(), name: format!("w{index}") }
}

fn workload(index: usize, wish: &Wish, wishes: &Wishes) -> Arc<Workload> {
    let needed = wish.needs.and_then(|needed| wishes.get(&needed).map(|wish| id(needed, wish)));
    let strategy = match wish.strategy {
        Strategy::Default => UpdateStrategy::default(),
        Strategy::StopFirst => UpdateStrategy { max_surge: 0, max_unavailable: 1, ..UpdateStrategy::default() },
        Strategy::Recreate => UpdateStrategy { recreate: true, ..UpdateStrategy::default() },
    };
    let mut container = ContainerSpec {
        name: "main".into(),
        image: Some(ImageRef::parse(wish.image).expect("valid reference")),
        env: vec![EnvVar { name: "VERSION".into(), source: EnvSource::Literal(wish.version.to_string()) }],
        ..ContainerSpec::default()
    };
    let annotations = if is_windowed(index) {
        BTreeMap::from([(spec::window::ANNOTATION.to_owned(), world::WINDOW.to_owned())])
    } else {
        BTreeMap::new()
    };
    let mut spec = PodSpec { restart_policy: Some(wish.policy), ..PodSpec::default() };
    if wish.volume {
        container.mounts.push(VolumeMount { volume: "data".into(), path: "/data".into(), ..VolumeMount::default() });
        spec.volumes.push(Volume { name: "data".into(), source: VolumeSource::Named { name: format!("v{index}") } });
    }
    if wish.port {
        let host_port = Some(8000 + u16::try_from(index).expect("few workloads"));
        container.ports.push(Port { container_port: 80, host_port, ..Port::default() });
    }
    spec.containers.push(container);
    Arc::new(Workload {
        id: id(index, wish),
        source: SourceRef::default(),
        labels: BTreeMap::new(),
        annotations,
        controller: if is_deployment(wish) {
            Controller::Replicated { replicas: wish.replicas, strategy }
        } else {
            Controller::Single
        },
        template: PodTemplate { spec: Arc::new(spec), ..PodTemplate::default() },
        depends_on: needed.into_iter().map(dependency).collect(),
    })
}

fn dependency(workload: WorkloadId) -> Dependency {
    Dependency { workload, condition: DependencyCondition::Healthy, restart: false, required: true }
}

fn random_wish(rng: &mut Rng, index: usize) -> Wish {
    let image = [
        "sim/run:1",
        "sim/run:2",
        "sim/exit-1-700:1",
        "sim/exit-0-900:1",
        "sim/stubborn:1",
        "sim/broken:1",
        "sim/missing:1",
    ][usize::try_from(rng.below(7)).expect("small")];
    let policy = [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never]
        [usize::try_from(rng.below(3)).expect("small")];
    let policy = if rng.below(2) == 0 { RestartPolicy::Always } else { policy };
    Wish {
        image,
        replicas: if policy == RestartPolicy::Always { u32::try_from(rng.below(4)).expect("small") } else { 1 },
        version: rng.below(3),
        volume: rng.below(3) == 0,
        port: rng.below(3) == 0,
        policy,
        strategy: [Strategy::Default, Strategy::Default, Strategy::StopFirst, Strategy::Recreate]
            [usize::try_from(rng.below(4)).expect("small")],
        needs: (rng.below(4) == 0)
            .then(|| usize::try_from(rng.below(index as u64)).expect("small"))
            .filter(|n| *n < index),
    }
}

/// A plain Deployment of one pod, without anything of what a wish may have.
fn plain(image: &'static str, version: u64) -> Wish {
    let (policy, strategy) = (RestartPolicy::Always, Strategy::Default);
    Wish { image, replicas: 1, version, volume: false, port: false, policy, strategy, needs: None }
}

fn reading(wishes: &Wishes, revision: u64) -> Box<Reading> {
    let workloads =
        wishes.iter().map(|(index, wish)| workload(*index, wish, wishes)).map(|w| (w.id.clone(), w)).collect();
    Box::new(Reading {
        desired: Desired { workloads, ..Desired::default() },
        revision: revision.to_string(),
        ..Reading::default()
    })
}

struct Life {
    task: tokio::task::JoinHandle<()>,
    events: tokio::sync::mpsc::UnboundedSender<Event>,
    snapshots: tokio::sync::watch::Receiver<Arc<Snapshot>>,
}

/// What is ordered may change what any workload is to be.
fn all_inputs_changed(sim: &Sim) {
    let ids: BTreeSet<WorkloadId> = sim.pods().iter().map(|pod| pod.record.workload.clone()).collect();
    ids.iter().for_each(|id| sim.inputs_changed(id));
}

impl Life {
    fn tell(&self, wishes: &Wishes, revision: u64) {
        let _ = self.events.send(Event::Sources(reading(wishes, revision)));
    }

    fn order(&self, sim: &Sim, order: Order) {
        all_inputs_changed(sim);
        // What comes of it shows in the world.
        let (reply, _) = tokio::sync::oneshot::channel();
        let _ = self.events.send(Event::Command(Command::Order { order, reply }));
    }

    /// Approves the removal that waits, if one does.
    fn approve(&self, sim: &Sim) {
        let Some(id) = self.snapshots.borrow().removal.as_ref().map(|removal| removal.id.clone()) else { return };
        all_inputs_changed(sim);
        let (reply, _) = tokio::sync::oneshot::channel();
        let _ = self.events.send(Event::Command(Command::Approve { id, reply }));
    }
}

fn start_agent(sim: &Sim, journal: &Journal, dir: &std::path::Path, referee: &Arc<Mutex<Referee>>) -> Life {
    let (versions, known_versions) = Versions::open(dir).expect("a directory of our own");
    let clock = Arc::new(SimClock(sim.clone()));
    let executor = Executor {
        runtime: Arc::new(sim.clone()),
        clock: clock.clone(),
        node: Arc::default(),
        boot_id: sim.boot_id().into(),
        uids: {
            let sim = sim.clone();
            Arc::new(move || sim.next_uid())
        },
        memories: agent::memory::Memories::new(dir),
        starts: Arc::new(tokio::sync::Semaphore::new(4)),
    };
    let (snapshot, snapshots) = tokio::sync::watch::channel(Arc::default());
    let referee = Arc::clone(referee);
    let world = sim.clone();
    let judged: Planner = Arc::new(move |goals, observed, now| {
        let plan = spec::plan::plan(goals, observed, now);
        let mut referee = referee.lock().expect("no rule panics");
        referee.check(goals, observed, now, &plan);
        referee.opened.drain(..).for_each(|id| world.inputs_changed(&id));
        plan
    });
    let (reconciler, events) = Reconciler::new(Parts {
        history: Some(History::open(dir, 4).expect("a directory of our own")),
        windows: Vec::new(),
        orders: Orders::open(dir),
        executor,
        clock,
        metrics: Metrics::default(),
        journal: journal.clone(),
        snapshot,
        budget: Budget { minimum: 1, percent: 0 },
        resync: Duration::from_secs(60),
        versions,
        known_versions,
        failures: Failures::open(dir, dir).expect("a directory of our own"),
        planner: judged,
    });
    let task = tokio::spawn(async move {
        // A first listing that fails ends the agent; its supervisor starts it again.
        let _ = reconciler.run().await;
    });
    Life { task, events, snapshots }
}

/// Whether the pods of a wish run on, whatever happens to them.
fn serves(wish: &Wish) -> bool {
    wish.policy != RestartPolicy::Never && (wish.image.contains("run") || wish.image.contains("stubborn"))
}

/// What is wrong with a world that should be as wished.
fn differences(sim: &Sim, wishes: &Wishes, snapshot: &Snapshot) -> Vec<String> {
    let pods = sim.pods();
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for (index, wish) in wishes {
        let wanted = workload(*index, wish, wishes);
        known.insert(wanted.id.clone());
        let of: Vec<_> = pods.iter().filter(|pod| pod.record.workload == wanted.id).collect();
        // What waits for something that does not serve, or not always, may be in any state.
        let mut needs = wish.needs.and_then(|needed| wishes.get(&needed));
        let mut waits = false;
        while let Some(needed) = needs {
            waits |= !serves(needed) || needed.replicas == 0;
            needs = needed.needs.and_then(|needed| wishes.get(&needed));
        }
        if waits || wish.image.contains("missing") {
            continue;
        }
        let back = snapshot.workloads.iter().any(|w| {
            w.name == wanted.id.name
                && w.kind == wanted.id.kind.to_string()
                && w.held.as_ref().is_some_and(|held| held.reason == "rolled_back")
        });
        if back {
            if of.iter().any(|pod| pod.record.spec == wanted.template.spec) {
                wrong.push(format!("{} still has pods of the version that failed", wanted.id));
            }
            continue;
        }
        let current = of.iter().filter(|pod| pod.record.spec == wanted.template.spec).count();
        let serves = serves(wish);
        // A version that cannot serve does not take over from one that can.
        let enough = if serves { current == wish.replicas as usize } else { current >= 1 || wish.replicas == 0 };
        if !enough {
            wrong.push(format!("{} has {current} pods of its version, wants {}", wanted.id, wish.replicas));
        }
        if serves && of.len() != current {
            wrong.push(format!("{} still has {} old pods", wanted.id, of.len() - current));
        }
        if serves {
            for pod in of.iter().filter(|pod| !pod.containers.get("main").is_some_and(ContainerFacts::is_running)) {
                wrong.push(format!("{} does not run", pod.record.name));
            }
        }
        if serves
            && wish.port
            && wish.replicas > 0
            && !sim.ports().keys().any(|key| usize::from(key.host_port) == 8000 + index)
        {
            wrong.push(format!("{} has no port", wanted.id));
        }
    }
    // What cannot be made replaces nothing: a Deployment in the place of a Pod that uses the same volume or port.
    let impossible = |pod: &&PodFacts| {
        wishes
            .iter()
            .any(|(index, wish)| pod.record.workload.name == format!("w{index}") && wish.image.contains("missing"))
    };
    // Such a one that runs keeps what it depends on.
    let needed = |pod: &&PodFacts| {
        let needs = |other: &&PodFacts| other.record.depends_on.contains(&pod.record.workload);
        pods.iter().filter(needs).any(|other| impossible(&other) && referee::runs(other))
    };
    let impossible = |pod: &&PodFacts| impossible(pod) || needed(pod);
    for pod in pods.iter().filter(|pod| !known.contains(&pod.record.workload) && !impossible(pod)) {
        wrong.push(format!("{} should be gone", pod.record.name));
    }
    wrong
}

/// Runs one seed; the trace and everything that is wrong.
fn simulate(seed: u64) -> (Vec<String>, Vec<String>) {
    world::in_simulated_time(async move {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let faults = Faults { before: 60, after: 60, lost_hint: 200, latency: 40 };
        let sim = Sim::new(seed, faults);
        // In memory where there is such a place: nothing here is about disks, and fsync is slow.
        let memory = std::path::Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::tempdir_in(parent).expect("a temporary directory can be made");
        let journal = Journal::open(dir.path(), None).expect("a new journal can be made");
        // Most bugs need few workloads and few events, and small worlds are soon done.
        let size = 1 + rng.below(5);
        let events = 5 + rng.below(36);
        let small = |number: u64| usize::try_from(number).expect("small");
        let mut wishes: Wishes = (0..small(size)).map(|index| (index, random_wish(&mut rng, index))).collect();
        let referee: Arc<Mutex<Referee>> = Arc::default();
        let start = || start_agent(&sim, &journal, dir.path(), &referee);
        let mut life = start();
        let mut revision = 0;
        // A generation that was gone back to stays until the sources change; then everything may.
        let mut back = false;
        life.tell(&wishes, revision);
        for _ in 0..events {
            tokio::time::sleep(Duration::from_millis(rng.below(4000))).await;
            match rng.below(12) {
                0..=3 => {
                    let index = small(rng.below(size + 2));
                    let before = wishes.get(&index).map(|wish| id(index, wish));
                    if rng.below(4) == 0 {
                        wishes.remove(&index);
                    } else {
                        wishes.insert(index, random_wish(&mut rng, index));
                    }
                    let after = wishes.get(&index).map(|wish| id(index, wish));
                    for id in [before, after].into_iter().flatten().collect::<BTreeSet<_>>() {
                        sim.inputs_changed(&id);
                    }
                    if std::mem::take(&mut back) {
                        all_inputs_changed(&sim);
                    }
                    revision += 1;
                    life.tell(&wishes, revision);
                }
                4..=6 => sim.kill_random(),
                7 | 8 => {
                    life.task.abort();
                    let _ = life.task.await;
                    life = start();
                    life.tell(&wishes, revision);
                }
                9 => {
                    life.task.abort();
                    let _ = life.task.await;
                    sim.reboot();
                    life = start();
                    life.tell(&wishes, revision);
                }
                10 => {
                    let one = wishes.iter().next().map(|(index, wish)| id(*index, wish).to_string());
                    let order = match rng.below(6) {
                        0 => Order::Pause { workload: None },
                        1 => Order::Pause { workload: one },
                        2 => Order::Rollback { generation: 1 + rng.below(4) },
                        3 => Order::Drain,
                        _ => Order::Resume { workload: None },
                    };
                    if matches!(order, Order::Rollback { .. }) {
                        back = true;
                        referee.lock().expect("no rule panics").windows_over = true;
                    }
                    life.order(&sim, order);
                }
                _ => life.approve(&sim),
            }
            if life.task.is_finished() {
                life = start();
                life.tell(&wishes, revision);
            }
        }
        sim.set_faults(Faults::none());
        if life.task.is_finished() {
            life = start();
        }
        life.tell(&wishes, revision);
        tokio::time::sleep(Duration::from_secs(1)).await;
        life.order(&sim, Order::Resume { workload: None });
        let mut wrong = Vec::new();
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_secs(30)).await;
            life.approve(&sim);
            wrong = differences(&sim, &wishes, &life.snapshots.borrow());
            if wrong.is_empty() {
                break;
            }
        }
        let snapshot = life.snapshots.borrow().clone();
        if !wrong.is_empty() {
            wrong.push(format!("last snapshot: {}", serde_json::to_string(&*snapshot).unwrap_or_default()));
        }
        wrong.extend(sim.violations());
        let referee = referee.lock().expect("no rule panics");
        wrong.extend(referee.broken());
        for (index, wish) in &wishes {
            let wished = workload(*index, wish, &wishes);
            let made = referee.made(&wished.id, &spec::plan::revision(&wished));
            if made > 100 {
                wrong.push(format!("{made} pods of one version of {} were made", wished.id));
            }
        }
        (sim.trace(), wrong)
    })
}

/// An agent that is killed every half second does not try what failed any oftener than one that lives on; other inputs
/// and a person's word are tried at once.
#[test]
fn waits_after_failures_outlive_the_agent() {
    world::in_simulated_time(async move {
        let sim = Sim::new(1, Faults::none());
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let journal = Journal::open(dir.path(), None).expect("a new journal can be made");
        let wish = |version| BTreeMap::from([(0, plain("sim/missing:1", version))]);
        let pulls = || sim.trace().iter().filter(|line| line.contains("is in no registry")).count();
        let lives = async |number: u32, version: u64| {
            for _ in 0..number {
                let life = start_agent(&sim, &journal, dir.path(), &Arc::default());
                life.tell(&wish(version), version);
                tokio::time::sleep(Duration::from_millis(500)).await;
                life.task.abort();
                let _ = life.task.await;
            }
        };
        // Tried at 0, 10, 30 and 70 s.
        lives(240, 1).await;
        assert_eq!(pulls(), 4, "{:?}", sim.trace());
        lives(20, 2).await;
        assert_eq!(pulls(), 5, "another version is tried at once, and waited for anew");
        let life = start_agent(&sim, &journal, dir.path(), &Arc::default());
        life.tell(&wish(2), 2);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let retried = async || {
            let before = pulls();
            let (reply, answer) = tokio::sync::oneshot::channel();
            let workload = "Deployment/default/w0".to_owned();
            let _ = life.events.send(Event::Command(Command::Retry { workload, reply }));
            assert!(answer.await.expect("the loop answers"), "it is known");
            tokio::time::sleep(Duration::from_secs(1)).await;
            pulls() - before
        };
        assert_eq!((retried().await, retried().await), (1, 1));
    });
}

/// The annotation of a workload protects it when its manifest is gone, also where its pods do not carry it, and also
/// from an agent that never saw the manifest.
#[test]
fn what_is_protected_stays_when_its_manifest_is_gone() {
    world::in_simulated_time(async move {
        let sim = Sim::new(1, Faults::none());
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let journal = Journal::open(dir.path(), None).expect("a new journal can be made");
        let start = || start_agent(&sim, &journal, dir.path(), &Arc::default());
        let wishes = Wishes::from([(0, plain("sim/run:1", 1)), (1, plain("sim/run:1", 1))]);
        let protected = |is: bool, revision| {
            let mut reading = reading(&wishes, revision);
            for workload in reading.desired.workloads.values_mut() {
                let annotations = [(spec::budget::PROTECTED.to_owned(), is.to_string())];
                Arc::make_mut(workload).annotations = annotations.into();
            }
            Event::Sources(reading)
        };
        let without_first = Wishes::from([(1, plain("sim/run:1", 1))]);
        let life = start();
        let _ = life.events.send(protected(true, 1));
        tokio::time::sleep(Duration::from_secs(10)).await;
        life.tell(&without_first, 2);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(sim.pods().len(), 2, "{:?}", sim.trace());
        assert!(life.snapshots.borrow().removal.is_some(), "it says so");
        life.task.abort();
        let _ = life.task.await;
        let life = start();
        life.tell(&without_first, 2);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(sim.pods().len(), 2, "another agent: {:?}", sim.trace());
        // Without the annotation it goes like any other.
        let _ = life.events.send(protected(false, 3));
        tokio::time::sleep(Duration::from_secs(10)).await;
        life.tell(&without_first, 4);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(sim.pods().len(), 1, "{:?}", sim.trace());
    });
}

/// Who approves a removal is asked again when the sources come back to that state after having been in another one.
#[test]
fn an_approval_is_over_when_the_sources_are_in_another_state() {
    world::in_simulated_time(async move {
        let sim = Sim::new(1, Faults::none());
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let journal = Journal::open(dir.path(), None).expect("a new journal can be made");
        let life = start_agent(&sim, &journal, dir.path(), &Arc::default());
        let all: Wishes = (0..3).map(|index| (index, plain("sim/run:1", 1))).collect();
        let one = Wishes::from([(0, plain("sim/run:1", 1))]);
        let pods = async |wishes: &Wishes, revision| {
            life.tell(wishes, revision);
            tokio::time::sleep(Duration::from_secs(60)).await;
            sim.pods().len()
        };
        assert_eq!((pods(&all, 1).await, pods(&one, 2).await), (3, 3), "two at once are held");
        life.approve(&sim);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(sim.pods().len(), 1, "{:?}", sim.trace());
        assert_eq!(pods(&one, 2).await, 1, "the same state again");
        assert_eq!((pods(&all, 1).await, pods(&one, 2).await), (3, 3), "nobody was asked about this");
    });
}

/// `MAINSTAY_SIM_SEEDS`: how many seeds, or which ones (`448..449`).
fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("MAINSTAY_SIM_SEEDS") else { return 0..150 };
    let number = |text: &str| text.parse().expect("MAINSTAY_SIM_SEEDS is a number or a range of two");
    text.split_once("..").map_or_else(|| 0..number(&text), |(from, to)| number(from)..number(to))
}

#[test]
fn the_world_becomes_what_is_wished_whatever_happens_on_the_way() {
    let seeds = seeds();
    let next = AtomicU64::new(seeds.start);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let (trace, wrong) = simulate(seed);
            assert!(wrong.is_empty(), "seed {seed}:\n{}\n--- trace\n{}", wrong.join("\n"), trace.join("\n"));
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
}

#[test]
fn a_seed_always_gives_the_same_trace() {
    assert_eq!(simulate(7), simulate(7));
}
