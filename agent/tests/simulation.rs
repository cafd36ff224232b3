//! The whole agent but its hands and its files, on simulated time: random edits, faults before and after effects,
//! lost hints, killed containers, reboots, and a crash of the agent at any await. Rules are checked on every decision;
//! when the faults stop, the world must become what is wished.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent::events::Journal;
use agent::executor::Executor;
use agent::reconciler::{Event, Parts, Reading, Reconciler};
use agent::status::Snapshot;
use agent::telemetry::Metrics;
use agent::versions::Versions;
use runtime::sim::{Faults, Rng, Sim};
use spec::image_ref::ImageRef;
use spec::observed::ContainerFacts;
use spec::pod::{ContainerSpec, EnvSource, EnvVar, PodSpec, Port, RestartPolicy, Volume, VolumeMount, VolumeSource};
use spec::workload::{Controller, Desired, PodTemplate, SourceRef, UpdateStrategy, Workload, WorkloadId, WorkloadKind};
use world::SimClock;

/// One workload of a simulated wish.
#[derive(Debug, Clone, PartialEq)]
struct Wish {
    image: &'static str,
    replicas: u32,
    version: u64,
    volume: bool,
    port: bool,
    policy: RestartPolicy,
}

fn workload(index: usize, wish: &Wish) -> Arc<Workload> {
    let deployment = wish.replicas > 1 || wish.policy == RestartPolicy::Always;
    let kind = if deployment { WorkloadKind::Deployment } else { WorkloadKind::Pod };
    let mut container = ContainerSpec {
        name: "main".into(),
        image: Some(ImageRef::parse(wish.image).expect("valid reference")),
        env: vec![EnvVar { name: "VERSION".into(), source: EnvSource::Literal(wish.version.to_string()) }],
        ..ContainerSpec::default()
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
        id: WorkloadId { kind, namespace: "default".into(), name: format!("w{index}") },
        source: SourceRef::default(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        controller: if deployment {
            Controller::Replicated { replicas: wish.replicas, strategy: UpdateStrategy::default() }
        } else {
            Controller::Single
        },
        template: PodTemplate {
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            spec: Arc::new(spec),
            bound: BTreeMap::new(),
        },
        depends_on: Vec::new(),
    })
}

fn random_wish(rng: &mut Rng) -> Wish {
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
    }
}

fn reading(wishes: &BTreeMap<usize, Wish>, revision: u64) -> Box<Reading> {
    let workloads = wishes.iter().map(|(index, wish)| workload(*index, wish)).map(|w| (w.id.clone(), w)).collect();
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

fn start_agent(sim: &Sim, journal: &Journal, dir: &std::path::Path) -> Life {
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
    let (reconciler, events) = Reconciler::new(Parts {
        history: None,
        windows: Vec::new(),
        orders: agent::orders::Orders::open(std::path::Path::new("/nonexistent")),
        executor,
        clock,
        metrics: Metrics::default(),
        journal: journal.clone(),
        snapshot,
        budget: spec::budget::Budget { minimum: 1000, percent: 100 },
        resync: Duration::from_secs(60),
        versions,
        known_versions,
        planner: Arc::new(spec::plan::plan),
    });
    let task = tokio::spawn(async move {
        // A first listing that fails ends the agent; its supervisor starts it again.
        let _ = reconciler.run().await;
    });
    Life { task, events, snapshots }
}

/// What is wrong with a world that should be as wished.
fn differences(sim: &Sim, wishes: &BTreeMap<usize, Wish>, snapshot: &Snapshot) -> Vec<String> {
    let pods = sim.pods();
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for (index, wish) in wishes {
        let wanted = workload(*index, wish);
        known.insert(wanted.id.clone());
        let of: Vec<_> = pods.iter().filter(|pod| pod.record.workload == wanted.id).collect();
        if wish.image.contains("missing") {
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
        let serves =
            wish.policy != RestartPolicy::Never && (wish.image.contains("run") || wish.image.contains("stubborn"));
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
    for pod in pods.iter().filter(|pod| !known.contains(&pod.record.workload)) {
        wrong.push(format!("{} should be gone", pod.record.name));
    }
    wrong
}

/// Runs one seed; the trace and everything that is wrong.
fn simulate(seed: u64) -> (Vec<String>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a current-thread runtime needs no resources");
    runtime.block_on(async move {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let faults = Faults { before: 60, after: 60, lost_hint: 200, latency: 40 };
        let sim = Sim::new(seed, faults);
        // In memory where there is such a place: nothing here is about disks, and fsync is slow.
        let memory = std::path::Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::tempdir_in(parent).expect("a temporary directory can be made");
        let journal = Journal::open(dir.path(), None).expect("a new journal can be made");
        let mut wishes: BTreeMap<usize, Wish> = (0..6).map(|index| (index, random_wish(&mut rng))).collect();
        let mut life = start_agent(&sim, &journal, dir.path());
        let mut revision = 0;
        let _ = life.events.send(Event::Sources(reading(&wishes, revision)));
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_millis(rng.below(4000))).await;
            match rng.below(10) {
                0..=3 => {
                    let index = usize::try_from(rng.below(8)).expect("small");
                    let before = wishes.get(&index).map(|wish| workload(index, wish).id.clone());
                    if rng.below(4) == 0 {
                        wishes.remove(&index);
                    } else {
                        wishes.insert(index, random_wish(&mut rng));
                    }
                    let after = wishes.get(&index).map(|wish| workload(index, wish).id.clone());
                    for id in [before, after].into_iter().flatten().collect::<BTreeSet<_>>() {
                        sim.inputs_changed(&id);
                    }
                    revision += 1;
                    let _ = life.events.send(Event::Sources(reading(&wishes, revision)));
                }
                4..=6 => sim.kill_random(),
                7 | 8 => {
                    life.task.abort();
                    let _ = life.task.await;
                    life = start_agent(&sim, &journal, dir.path());
                    let _ = life.events.send(Event::Sources(reading(&wishes, revision)));
                }
                _ => {
                    life.task.abort();
                    let _ = life.task.await;
                    sim.reboot();
                    life = start_agent(&sim, &journal, dir.path());
                    let _ = life.events.send(Event::Sources(reading(&wishes, revision)));
                }
            }
            if life.task.is_finished() {
                life = start_agent(&sim, &journal, dir.path());
                let _ = life.events.send(Event::Sources(reading(&wishes, revision)));
            }
        }
        sim.set_faults(Faults::none());
        if life.task.is_finished() {
            life = start_agent(&sim, &journal, dir.path());
        }
        let _ = life.events.send(Event::Sources(reading(&wishes, revision)));
        let mut wrong = Vec::new();
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_secs(30)).await;
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
        (sim.trace(), wrong)
    })
}

fn seeds() -> u64 {
    std::env::var("MAINSTAY_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(150)
}

#[test]
fn the_world_becomes_what_is_wished_whatever_happens_on_the_way() {
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds() {
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
