//! The whole agent but its hands and its files, on simulated time: random edits, faults before and after effects,
//! lost hints, killed containers, reboots, pauses, windows, rollbacks, drains, held removals, a crash of the agent at any
//! await.
//! Rules are checked on every decision; when the faults stop, the world must become what is wished.

#[path = "world/wish.rs"]
mod wish;
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
use agent::reconciler::{Command, Event, Parts, Planner, Reconciler};
use agent::status::Snapshot;
use agent::telemetry::Metrics;
use agent::versions::Versions;
use runtime::sim::{Faults, Rng, Sim};
use spec::budget::Budget;
use spec::workload::WorkloadId;
use wish::{Wishes, differences, id, plain, random_wish, reading, sharers, volume, workload};
use world::SimClock;
use world::referee::Referee;

struct Life {
    task: tokio::task::JoinHandle<()>,
    events: tokio::sync::mpsc::UnboundedSender<Event>,
    snapshots: tokio::sync::watch::Receiver<Arc<Snapshot>>,
    metrics: Metrics,
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
        referee.world.get_or_insert_with(|| world.clone());
        referee.check(goals, observed, now, &plan);
        referee.opened.drain(..).for_each(|id| world.inputs_changed(&id));
        plan
    });
    let metrics = Metrics::default();
    let (reconciler, events) = Reconciler::new(Parts {
        history: Some(History::open(dir, 4).expect("a directory of our own")),
        windows: Vec::new(),
        orders: Orders::open(dir),
        executor,
        clock,
        metrics: metrics.clone(),
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
    Life { task, events, snapshots, metrics }
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
        let events = 5 + rng.below(if seed.is_multiple_of(8) { 36 } else { 12 });
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
            match rng.below(14) {
                0..=3 => {
                    let index = small(rng.below(size + 2));
                    let before = wishes.get(&index).map(|wish| id(index, wish));
                    if rng.below(4) == 0 {
                        wishes.remove(&index);
                    } else {
                        wishes.insert(index, random_wish(&mut rng, index));
                    }
                    let after = wishes.get(&index).map(|wish| id(index, wish));
                    let sharers = sharers(index, &wishes);
                    for id in [before, after].into_iter().flatten().chain(sharers).collect::<BTreeSet<_>>() {
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
                11 => {
                    let index = small(rng.below(size));
                    if let Some(config) = wishes.get_mut(&index).and_then(|wish| wish.config.as_mut()) {
                        config.edit += 1;
                        sharers(index, &wishes).iter().for_each(|id| sim.inputs_changed(id));
                        if std::mem::take(&mut back) {
                            all_inputs_changed(&sim);
                        }
                        revision += 1;
                        life.tell(&wishes, revision);
                    }
                }
                12 => sim.set_locked(&volume(small(rng.below(size))), rng.below(3) > 0),
                _ => life.approve(&sim),
            }
            if life.task.is_finished() {
                life = start();
                life.tell(&wishes, revision);
            }
        }
        sim.set_faults(Faults::none());
        (0..small(size + 2)).for_each(|index| sim.set_locked(&volume(index), false));
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

/// A pass that followed an action that failed, or that did not know what runs, is no good one.
#[test]
fn passes_with_errors_are_counted_as_such() {
    world::in_simulated_time(async move {
        let sim = Sim::new(1, Faults::none());
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let journal = Journal::open(dir.path(), None).expect("a new journal can be made");
        let life = start_agent(&sim, &journal, dir.path(), &Arc::default());
        let errors = || -> u32 {
            let text = life.metrics.text();
            let line = text.lines().find(|line| line.starts_with("mainstay_reconciles_total{outcome=\"error\"}"));
            line.and_then(|line| line.split(' ').next_back()?.parse().ok()).expect("the metric is there")
        };
        let after = async |seconds| {
            let before = errors();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            errors() - before
        };
        life.tell(&Wishes::from([(0, plain("sim/run:1", 1))]), 1);
        assert_eq!(after(300).await, 0);
        // Nothing is to be done, and nothing can be seen either.
        sim.set_faults(Faults { before: 1000, ..Faults::none() });
        assert!(after(300).await >= 4);
        sim.set_faults(Faults::none());
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(after(300).await, 0);
        life.tell(&Wishes::from([(0, plain("sim/run:1", 1)), (1, plain("sim/missing:1", 1))]), 2);
        assert!(after(15).await >= 2, "tried at 0 and 10 s");
        assert_eq!(after(10).await, 0, "each failure once");
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
    let Ok(text) = std::env::var("MAINSTAY_SIM_SEEDS") else { return 0..2000 };
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
