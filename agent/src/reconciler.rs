//! The loop: the single owner of everything the agent knows. It takes events in, observes, plans and hands the steps
//! to the executor, one task each. It makes no decision of its own: those are in [`spec::plan`].
//!
//! Level, not edge: any event may be lost or doubled, since each pass plans from facts. Cancel safety: the loop waits
//! on one channel and one timer only; both may be dropped at any time without losing a message.

mod causes;
mod ending;
mod failed;
mod gate;
mod notes;
mod pace;
mod people;
mod rounds;

use self::notes::event;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use runtime::api::RuntimeEvent;
use spec::budget::{self, Budget};
use spec::observed::{ContainerFacts, ContainerState, PodFacts, PodUid};
use spec::plan::{Action, ActionKey, Goals, Health, Hold, Memory, Observed, Plan, Step};
use spec::services::ServiceState;
use spec::time::{Millis, Timestamp};
use spec::window::Window;
use spec::workload::{Desired, WorkloadId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::SharedClock;
use crate::disk::{DiskReport, DiskWatch};
use crate::drain::DrainWatch;
use crate::events::{EventKind, Journal, Word};
use crate::executor::{Executor, Outcome, newer};
use crate::failures::Failures;
use crate::history::History;
use crate::orders::{Order, Orders};
use crate::probe::{HealthReport, Prober};
use crate::status::{HeldStatus, Snapshot, SourceStatus};
use crate::telemetry::Metrics;
use crate::traces::Traces;
use crate::versions::Versions;

/// What people can ask the loop for.
#[derive(Debug)]
pub enum Command {
    /// Stop and remove everything, then end.
    Down {
        /// Answers when all is gone, or with what failed.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Let what is in flight end, at most so long, start nothing more, and end.
    Settle(Duration),
    /// Forget failures and backoff of a workload (`Kind/namespace/name`).
    Retry {
        /// Which.
        workload: String,
        /// Answers whether there is such a workload.
        reply: oneshot::Sender<bool>,
    },
    /// Carry out what holds until it is taken back.
    Order {
        /// What.
        order: Order,
        /// Answers with a sentence about what holds now, or why it cannot be.
        reply: oneshot::Sender<Result<String, String>>,
    },
    /// Release a held removal.
    Approve {
        /// Its id.
        id: String,
        /// Answers whether that id is held now.
        reply: oneshot::Sender<Result<bool, String>>,
    },
}

/// The desired state as the sources give it now.
#[derive(Debug, Default)]
pub struct Reading {
    /// Everything that is wished, last good versions included.
    pub desired: Desired,
    /// The sources' own state.
    pub sources: Vec<SourceStatus>,
    /// Workloads frozen at their last good version, and why.
    pub held: BTreeMap<WorkloadId, HeldStatus>,
    /// Label of this state of the sources.
    pub revision: String,
    /// A number that rises with each reading.
    pub number: u64,
}

/// Everything that can happen to the loop.
#[derive(Debug)]
pub enum Event {
    /// The sources were read and something changed.
    Sources(Box<Reading>),
    /// A hint of the runtime.
    Runtime(RuntimeEvent),
    /// What an inspection found, with the loop's turn when it was asked.
    Inspected(PodUid, u64, Option<Box<PodFacts>>),
    /// What a listing of everything found, with the loop's turn when it was asked.
    Listed(u64, Vec<PodFacts>),
    /// A listing of everything failed.
    Unlisted,
    /// An action ended.
    Done(Box<Step>, Outcome, Duration),
    /// A probe's result.
    Health(HealthReport),
    /// A pod takes more of the disk than it may.
    Disk(DiskReport),
    /// Whether the kernel tracks no connection to a pod that is being drained since then.
    Idle(PodUid, Timestamp, bool),
    /// Somebody asks.
    Command(Command),
    /// Somebody wants to know whether the loop still goes round: it answers, and that is all.
    Ping(oneshot::Sender<()>),
}

/// The loop's state.
pub struct Reconciler {
    executor: Executor,
    clock: SharedClock,
    desired: Arc<Desired>,
    goals: Goals,
    observed: Observed,
    reading: Reading,
    budget: Budget,
    orders: Orders,
    history: Option<History>,
    gates: gate::Gates,
    /// Number of the last event of each workload that caused something.
    causes: BTreeMap<WorkloadId, u64>,
    /// Something may differ from the newest generation.
    unrecorded: bool,
    removal: Option<budget::HeldRemoval>,
    ready: bool,
    turn: u64,
    passes: u64,
    /// An action failed since the last pass.
    failed: bool,
    /// The last listing failed: what is known of pods may be old.
    blind: bool,
    touched: BTreeMap<PodUid, u64>,
    last_holds: Vec<(WorkloadId, Hold)>,
    prober: Prober,
    disks: DiskWatch,
    drains: DrainWatch,
    metrics: Metrics,
    traces: Option<Traces>,
    journal: Journal,
    snapshot: watch::Sender<Arc<Snapshot>>,
    events: mpsc::UnboundedSender<Event>,
    inbox: mpsc::UnboundedReceiver<Event>,
    resync: Duration,
    versions: Versions,
    failures: Failures,
    planner: Planner,
    /// Everything this loop has going; it ends with the loop.
    tasks: tokio::task::JoinSet<()>,
}

/// What the loop is made from.
pub struct Parts {
    /// Hands.
    pub executor: Executor,
    /// Time.
    pub clock: SharedClock,
    /// Where metrics are counted.
    pub metrics: Metrics,
    /// Where events are kept.
    pub journal: Journal,
    /// Where snapshots go.
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    /// How much may be removed at once.
    pub budget: Budget,
    /// What people ordered.
    pub orders: Orders,
    /// Generations; without them there is no rollback to one.
    pub history: Option<History>,
    /// When changes of workloads without windows of their own are let through.
    pub windows: Vec<Window>,
    /// Time between two listings of everything.
    pub resync: Duration,
    /// Where versions are remembered.
    pub versions: Versions,
    /// What was remembered of them.
    pub known_versions: BTreeMap<WorkloadId, Arc<Memory>>,
    /// Where failures of actions are kept for the next agent.
    pub failures: Failures,
    /// What decides: [`spec::plan::plan`], unless a test puts something between.
    pub planner: Planner,
}

/// Decides from what is wished, what is there and the time.
pub type Planner = Arc<dyn Fn(&Goals, &Observed, Timestamp) -> Plan + Send + Sync>;

impl Reconciler {
    /// A loop that knows nothing yet, and the way to send it events.
    #[must_use]
    pub fn new(parts: Parts) -> (Self, mpsc::UnboundedSender<Event>) {
        let (events, inbox) = mpsc::unbounded_channel();
        let (reports, mut health) = mpsc::unbounded_channel();
        let prober =
            Prober::new(Arc::clone(&parts.executor.runtime), Arc::clone(&parts.clock), parts.metrics.clone(), reports);
        let disks = DiskWatch::new(Arc::clone(&parts.executor.runtime), events.clone());
        let drains = DrainWatch::new(Arc::clone(&parts.executor.runtime), events.clone());
        let forward = events.clone();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            while let Some(report) = health.recv().await {
                if forward.send(Event::Health(report)).is_err() {
                    break;
                }
            }
        });
        let observed = Observed {
            boot_id: parts.executor.boot_id.to_string(),
            memories: parts.executor.memories.load(),
            versions: parts.known_versions,
            failures: parts.failures.taken_over(&parts.executor.boot_id, parts.clock.now()),
            ..Observed::default()
        };
        let reconciler = Self {
            executor: parts.executor,
            clock: parts.clock,
            desired: Arc::default(),
            goals: Goals::default(),
            observed,
            reading: Reading::default(),
            budget: parts.budget,
            orders: parts.orders,
            history: parts.history,
            gates: gate::Gates::new(parts.windows),
            causes: BTreeMap::new(),
            unrecorded: true,
            removal: None,
            ready: false,
            turn: 0,
            passes: 0,
            failed: false,
            blind: false,
            touched: BTreeMap::new(),
            last_holds: Vec::new(),
            prober,
            disks,
            drains,
            metrics: parts.metrics,
            traces: None,
            journal: parts.journal,
            snapshot: parts.snapshot,
            events: events.clone(),
            inbox,
            resync: parts.resync,
            versions: parts.versions,
            failures: parts.failures,
            planner: parts.planner,
            tasks,
        };
        (reconciler, events)
    }

    /// Runs until it is told to go down or to settle (then `Ok`) or every sender of events is gone.
    pub async fn run(mut self) -> Result<(), runtime::api::RuntimeError> {
        let state = self.executor.runtime.service_state().await?;
        let first = self.executor.runtime.list().await?;
        self.listed(0, first);
        self.load_gates();
        self.take_over(state);
        let mut hints = self.executor.runtime.events();
        let forward = self.events.clone();
        self.tasks.spawn(async move {
            while let Some(hint) = hints.recv().await {
                if forward.send(Event::Runtime(hint)).is_err() {
                    break;
                }
            }
        });
        let mut next_resync = tokio::time::Instant::now() + self.resync;
        let mut wake = None;
        let (mut pace, mut begun) = (pace::Pace::new(), tokio::time::Instant::now());
        loop {
            let timer = wake.map_or(next_resync, |wake: tokio::time::Instant| wake.min(next_resync));
            // What is here already came during the pass before, at its begin at the earliest.
            let came = (!self.inbox.is_empty()).then_some(begun);
            tokio::select! {
                event = self.inbox.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    let came = came.unwrap_or_else(tokio::time::Instant::now);
                    if let Event::Ping(reply) = event {
                        // Nothing has changed: no pass. Whoever asked may be gone.
                        let _ = reply.send(());
                        begun = tokio::time::Instant::now();
                        continue;
                    }
                    // What comes meanwhile is taken together with it.
                    tokio::time::sleep_until(pace.next(tokio::time::Instant::now())).await;
                    self.metrics.taken_in(self.inbox.len() + 1, came.elapsed());
                    if self.apply_all(event).await {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep_until(timer) => {}
            }
            if tokio::time::Instant::now() >= next_resync {
                next_resync = tokio::time::Instant::now() + self.resync;
                self.list();
            }
            begun = tokio::time::Instant::now();
            pace.passed(self.observed.pods.len());
            wake = self.pass().map(|at| {
                let wait = at.since(self.clock.now()).as_duration();
                tokio::time::Instant::now() + wait.max(Duration::from_millis(1))
            });
        }
    }

    /// Takes over what earlier agents gave Services and knew to be ready.
    fn take_over(&mut self, state: ServiceState) {
        let now = self.clock.now();
        for (uid, containers) in &state.ready {
            for (name, attempt) in containers {
                let facts = self.observed.pods.get(uid).and_then(|pod| pod.containers.get(name));
                if facts.is_some_and(|facts| facts.is_running() && facts.attempt == *attempt) {
                    let (attempt, since) = (*attempt, now);
                    let health = Health { attempt, started: true, ready: true, since, failed: false, refused: false };
                    self.observed.health.insert((uid.clone(), name.clone()), health);
                }
            }
        }
        self.observed.services.leases = state.leases.clone();
        self.observed.services.ready = state.ready.clone();
        self.prober.remember(state.ready.clone());
        self.observed.service_state = state;
    }

    /// Takes an event and all that wait behind it; whether the loop is to end.
    async fn apply_all(&mut self, first: Event) -> bool {
        let mut next = Some(first);
        while let Some(event) = next {
            if self.apply(event).await {
                return true;
            }
            next = self.inbox.try_recv().ok();
        }
        false
    }

    async fn apply(&mut self, event: Event) -> bool {
        self.turn += 1;
        match event {
            Event::Sources(reading) => self.sources(*reading),
            Event::Runtime(RuntimeEvent::ContainerChanged(pod, _)) => self.inspect(pod),
            Event::Runtime(RuntimeEvent::PullBegan(pull)) => self.pull_began(&pull),
            Event::Runtime(RuntimeEvent::NetworkWarning(what)) => self.warn(Word::NETWORK_WARNING, what),
            Event::Runtime(RuntimeEvent::NetworkChanged) => self.network_changed(),
            Event::Inspected(pod, turn, facts) => self.inspected(&pod, turn, facts.map(|facts| *facts)),
            Event::Listed(turn, pods) => {
                self.blind = false;
                self.listed(turn, pods);
            }
            Event::Unlisted => self.blind = true,
            Event::Done(step, outcome, elapsed) => self.done(*step, outcome, elapsed),
            Event::Health(report) => self.health(report),
            Event::Disk(report) => {
                self.observed.disk.insert(report.pod, report.usage);
            }
            Event::Idle(pod, since, idle) => self.idle(pod, since, idle),
            Event::Command(command) => return self.command(command).await,
            Event::Ping(reply) => drop(reply.send(())),
        }
        false
    }

    fn sources(&mut self, reading: Reading) {
        self.ready = true;
        self.note_held(&reading);
        self.observed.zone = self.clock.zone();
        self.reading = reading;
        self.forget_approvals();
        self.check_pin();
        self.reconsider();
        let (goals, pods) = (&self.goals.workloads, &self.observed.pods);
        let gone = |id: &WorkloadId| !goals.contains_key(id) && !pods.values().any(|pod| pod.record.workload == *id);
        let forgotten: Vec<WorkloadId> = self.observed.versions.keys().filter(|id| gone(id)).cloned().collect();
        for id in forgotten {
            self.observed.versions.remove(&id);
            self.versions.remove(&id);
        }
    }

    /// Holds removals that are above the budget.
    fn hold_removals(&mut self) {
        let wished = &self.wished().workloads;
        if self.observed.pods.values().all(|pod| wished.contains_key(&pod.record.workload)) {
            // So it is nearly always, and this is asked in each pass.
            self.removal = None;
            return;
        }
        let running: BTreeSet<WorkloadId> = self
            .observed
            .pods
            .values()
            .filter(|pod| !self.observed.stopping.contains_key(&pod.record.uid))
            .map(|pod| pod.record.workload.clone())
            .collect();
        let wished: BTreeSet<WorkloadId> = self.wished().workloads.keys().cloned().collect();
        let protected = self.protected();
        let revision = &self.reading.revision;
        let approved = self.orders.standing().removals;
        let removal = budget::check(&running, &wished, &protected, revision, self.budget, &approved);
        if let Some(removal) = &removal
            && self.removal.as_ref().is_none_or(|known| known.id != removal.id)
        {
            tracing::warn!(id = %removal.id, reason = %removal.reason, "removal held");
            let message = format!("{}; release it with `mainstay approve {}`", removal.reason, removal.id);
            self.journal.record(event(self.clock.unix(), EventKind::Warning, Word::REMOVAL_HELD, None, message));
        }
        self.removal = removal;
    }

    fn inspect(&mut self, pod: PodUid) {
        let (runtime, events, turn) = (Arc::clone(&self.executor.runtime), self.events.clone(), self.turn);
        self.tasks.spawn(async move {
            match runtime.inspect(&pod).await {
                Ok(facts) => {
                    let _ = events.send(Event::Inspected(pod, turn, facts.map(Box::new)));
                }
                Err(error) => tracing::warn!(%pod, %error, "cannot inspect pod"),
            }
        });
    }

    fn list(&mut self) {
        let (runtime, events, turn) = (Arc::clone(&self.executor.runtime), self.events.clone(), self.turn);
        self.tasks.spawn(async move {
            match runtime.list().await {
                Ok(pods) => {
                    let _ = events.send(Event::Listed(turn, pods));
                }
                Err(error) => {
                    tracing::error!(%error, "cannot list pods");
                    let _ = events.send(Event::Unlisted);
                }
            }
        });
    }

    fn inspected(&mut self, uid: &PodUid, turn: u64, facts: Option<PodFacts>) {
        match facts {
            Some(facts) => self.merge(facts),
            None if self.is_settled(uid, turn) => self.forget(uid),
            None => {}
        }
    }

    fn listed(&mut self, turn: u64, pods: Vec<PodFacts>) {
        let seen: BTreeSet<PodUid> = pods.iter().map(|pod| pod.record.uid.clone()).collect();
        for facts in pods {
            self.merge(facts);
        }
        let gone: Vec<PodUid> = self
            .observed
            .pods
            .keys()
            .filter(|uid| !seen.contains(*uid) && self.is_settled(uid, turn))
            .cloned()
            .collect();
        for uid in gone {
            self.forget(&uid);
        }
    }

    /// Whether nothing was done to a pod since that turn, nor is being done.
    fn is_settled(&self, uid: &PodUid, turn: u64) -> bool {
        let busy = self.observed.in_flight.iter().any(|key| key.pod() == Some(uid));
        !busy && self.touched.get(uid).is_none_or(|touched| *touched <= turn)
    }

    fn forget(&mut self, uid: &PodUid) {
        self.observed.pods.remove(uid);
        self.observed.stopping.remove(uid);
        self.observed.files.remove(uid);
        self.observed.disk.remove(uid);
        self.observed.health.retain(|(pod, _), _| pod != uid);
        self.observed.failures.retain(|key, _| key.pod() != Some(uid));
        self.touched.remove(uid);
    }

    /// Takes facts in, keeping the later reading of each container.
    fn merge(&mut self, mut facts: PodFacts) {
        let uid = facts.record.uid.clone();
        match self.observed.pods.get(&uid) {
            Some(known) => {
                let known = Arc::clone(known);
                // The record never changes: one allocation stays shared.
                facts.record = Arc::clone(&known.record);
                facts.failed = known.failed.clone().or(facts.failed);
                for (name, old) in &known.containers {
                    let merged = match facts.containers.remove(name) {
                        Some(new) => {
                            if new.exit().is_some_and(|exit| exit.oom)
                                && (old.attempt < new.attempt || old.is_running())
                            {
                                self.metrics.container_oom(&known.record.workload, name);
                            }
                            let merged = newer(old.clone(), new);
                            self.note_exit(&known.record, name, Some(old), &merged);
                            merged
                        }
                        None => old.clone(),
                    };
                    facts.containers.insert(name.clone(), merged);
                }
            }
            None => {
                // Adopted: what its generated files contain is not known until they are written again.
                self.observed.files.entry(uid.clone()).or_insert_with(|| spec::plan::UNKNOWN_FILES.to_owned());
            }
        }
        self.observed.pods.insert(uid, Arc::new(facts));
    }

    fn done(&mut self, step: Step, outcome: Outcome, elapsed: Duration) {
        let key = step.action.key();
        let ok = !matches!(outcome, Outcome::Failed(_));
        self.failed |= !ok;
        self.observed.in_flight.remove(&key);
        self.metrics.action(step.action.word(), step.reason.word(), ok, elapsed);
        self.trace(&step, &outcome, elapsed);
        if matches!(step.action, Action::Prepare { .. }) {
            let bytes = if let Outcome::Prepared(_, fetched) = &outcome { *fetched } else { 0 };
            self.metrics.image_pull(ok, elapsed);
            self.pulled(&key, bytes, elapsed);
        }
        if let Some(uid) = key.pod() {
            self.touched.insert(uid.clone(), self.turn);
        }
        match outcome {
            Outcome::Failed(error) => self.failed(&step, key, &error.report(), error.is_permanent()),
            outcome => {
                let faulty = match &outcome {
                    Outcome::Published(_, faults) => !faults.is_empty(),
                    Outcome::ServicesPublished(_, faults) => !faults.is_empty(),
                    _ => false,
                };
                if !faulty {
                    self.observed.failures.remove(&key);
                }
                self.succeeded(&step, &key, outcome);
            }
        }
    }

    fn failed(&mut self, step: &Step, key: ActionKey, message: &str, permanent: bool) {
        let count = self.observed.failures.get(&key).map_or(0, |failure| failure.count).saturating_add(1);
        tracing::warn!(
            action = step.action.word(),
            workload = step.workload.as_ref().map(tracing::field::display),
            attempt = count,
            error = message,
            "action failed"
        );
        if count == 1 {
            let reason = Word::of_failure(&step.action);
            self.journal.record(self.step_event(step, EventKind::Warning, reason, message.to_owned()));
        }
        // It may have done its work all the same.
        match &key {
            ActionKey::Pod(uid) | ActionKey::Container(uid, _) | ActionKey::Files(uid) => self.inspect(uid.clone()),
            ActionKey::Create(..) => self.list(),
            ActionKey::Prepare(..)
            | ActionKey::Publish
            | ActionKey::Services
            | ActionKey::Names
            | ActionKey::Memory(_) => {}
        }
        self.note_failure(step, key, count, message, permanent);
    }

    fn succeeded(&mut self, step: &Step, key: &ActionKey, outcome: Outcome) {
        let pod_of = |key: &ActionKey| key.pod().cloned();
        match outcome {
            Outcome::Prepared(images, _) => {
                if let ActionKey::Prepare(id, revision) = key {
                    self.observed.prepared.insert((id.clone(), revision.clone()), images);
                }
            }
            Outcome::PodReady(facts, label) => {
                let uid = facts.record.uid.clone();
                if facts.record.run.is_some() {
                    // The next run may be far away: its images are looked for again.
                    self.observed.prepared.retain(|(id, _), _| *id != facts.record.workload);
                }
                self.observed.files.insert(uid.clone(), label);
                self.touched.insert(uid.clone(), self.turn);
                self.observed.pods.insert(uid, Arc::new(*facts));
            }
            Outcome::Started(facts) => {
                if let ActionKey::Container(uid, name) = key
                    && let Some(pod) = self.observed.pods.get(uid)
                {
                    if facts.attempt > 0 {
                        self.metrics.container_restart(&pod.record.workload, name);
                    }
                    let mut pod = PodFacts::clone(pod);
                    let old = pod.containers.remove(name);
                    let merged = match &old {
                        Some(old) => newer(old.clone(), facts),
                        None => facts,
                    };
                    if let Some(exit) = merged.exit() {
                        // It was over before the answer came.
                        let started = ContainerState::Running { pid: 0, started: exit.started.unwrap_or_default() };
                        let before = old.filter(|old| old.attempt == merged.attempt);
                        let before = before.unwrap_or(ContainerFacts { state: started, ..merged.clone() });
                        self.note_exit(&pod.record, name, Some(&before), &merged);
                    }
                    pod.containers.insert(name.clone(), merged);
                    self.observed.pods.insert(uid.clone(), Arc::new(pod));
                    self.observed.health.remove(&(uid.clone(), name.clone()));
                }
            }
            Outcome::ContainerStopped => {
                if let Some(uid) = pod_of(key) {
                    self.inspect(uid);
                }
            }
            Outcome::PodFailed(failure) => {
                if let Some(uid) = pod_of(key) {
                    if let Some(pod) = self.observed.pods.get(&uid) {
                        let pod = PodFacts { failed: Some(failure), ..PodFacts::clone(pod) };
                        self.observed.pods.insert(uid.clone(), Arc::new(pod));
                    }
                    self.inspect(uid);
                }
            }
            Outcome::PodGone => {
                if let Some(uid) = pod_of(key) {
                    self.forget(&uid);
                }
            }
            Outcome::Published(ports, faults) => {
                for (key, target) in &ports {
                    if self.observed.published.get(key) != Some(target) {
                        let pod = self.observed.pods.get(&target.pod).map(|pod| pod.record.name.as_str());
                        tracing::info!(address = crate::snapshot::address(key), pod, "port published");
                    }
                }
                self.drain_anew(&ports);
                self.observed.published = ports;
                if !faults.is_empty() {
                    let message = faults.iter().map(|f| f.message.as_str()).collect::<Vec<_>>().join("; ");
                    self.failed(step, key.clone(), &message, false);
                    return;
                }
            }
            Outcome::ServicesPublished(services, faults) => {
                self.observed.services = *services;
                if !faults.is_empty() {
                    let message = faults.iter().map(|f| f.message.as_str()).collect::<Vec<_>>().join("; ");
                    self.failed(step, key.clone(), &message, false);
                    return;
                }
            }
            Outcome::Named(names) => self.observed.names = Some(*names),
            Outcome::FilesUpdated(label) => {
                if let Some(uid) = pod_of(key) {
                    self.observed.files.insert(uid, label);
                }
            }
            Outcome::Remembered(memory) => {
                if let ActionKey::Memory(id) = key {
                    self.remembered(id, memory, &step.reason);
                }
            }
            Outcome::Failed(_) => {}
        }
        let sentence = crate::snapshot::sentence(step);
        let kind = if step.reason.is_bad_news() { EventKind::Warning } else { EventKind::Normal };
        self.journal.record(self.step_event(step, kind, Word::of_step(&step.reason), sentence));
    }

    async fn command(&mut self, command: Command) -> bool {
        // Whoever asked may be gone by the time of the answer: that changes nothing.
        match command {
            Command::Down { reply } => {
                let result = self.down().await;
                let ended = result.is_ok();
                let _ = reply.send(result);
                return ended;
            }
            Command::Settle(limit) => {
                let _ = tokio::time::timeout(limit, self.settle()).await;
                return true;
            }
            Command::Retry { workload, reply } => {
                let _ = reply.send(self.retry(&workload));
            }
            Command::Order { order, reply } => {
                let _ = reply.send(self.order(order));
            }
            Command::Approve { id, reply } => {
                let _ = reply.send(self.approve(&id));
            }
        }
        false
    }

    /// One pass: plan, publish what is known, start what is to be done. Returns when to look again.
    fn pass(&mut self) -> Option<Timestamp> {
        if !self.ready {
            return None;
        }
        while self.tasks.try_join_next().is_some() {}
        let started = std::time::Instant::now();
        self.hold_removals();
        let gates = self.check_gates();
        self.observed.unix = self.clock.unix();
        let plan = self.plan();
        self.passes += 1;
        self.observed.retry.clear();
        self.failures.keep(&self.observed.failures, &self.observed.boot_id);
        self.note_holds(&plan);
        for step in &plan.steps {
            self.start(step.clone());
        }
        self.prober.follow(self.observed.pods.values());
        self.disks.follow(self.observed.pods.values());
        self.drains.follow(&self.observed.draining);
        let snapshot = Arc::new(crate::snapshot::build(&crate::snapshot::Facts {
            desired: &self.desired,
            goals: &self.goals,
            observed: &self.observed,
            reading: &self.reading,
            removal: self.removal.as_ref(),
            orders: &self.orders.standing(),
            pinned: self.pinned(),
            generation: self.history.as_ref().and_then(|history| history.newest()).map(|newest| newest.number),
            plan: &plan,
            passes: self.passes,
            now: self.clock.now(),
        }));
        if snapshot.converged && snapshot.workloads.iter().all(is_up) && !self.goals.drained {
            self.record_generation();
        }
        self.metrics.observe_snapshot(&snapshot);
        self.snapshot.send_replace(snapshot);
        let failed = std::mem::take(&mut self.failed);
        self.metrics.reconcile(started.elapsed(), !failed && !self.blind, !self.blind);
        self.metrics.running_actions(self.observed.in_flight.len());
        let gates =
            gates.map(|wait| self.clock.now().plus(Millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))));
        [plan.wake, gates].into_iter().flatten().min()
    }

    fn start(&mut self, step: Step) {
        tracing::info!(
            action = step.action.word(),
            reason = step.reason.word(),
            workload = step.workload.as_ref().map(tracing::field::display),
            "{}",
            crate::snapshot::sentence(&step)
        );
        self.observed.in_flight.insert(step.action.key());
        if let Action::StopPod { pod, .. } = &step.action {
            self.observed.stopping.entry(pod.record.uid.clone()).or_insert_with(|| step.reason.clone());
        }
        let desired = match (&step.workload, &step.action) {
            (Some(id), Action::CreatePod { goal, .. } | Action::Prepare { goal }) => {
                self.goals.objects(&self.observed, id, &goal.revision)
            }
            (
                Some(id),
                Action::RestorePod { pod }
                | Action::StartContainer { pod, .. }
                | Action::StopContainer { pod, .. }
                | Action::StopPod { pod, .. }
                | Action::UpdateFiles { pod, .. },
            ) => self.goals.objects(&self.observed, id, &pod.record.revision),
            _ => Arc::clone(&self.desired),
        };
        let (executor, events) = (self.executor.clone(), self.events.clone());
        self.tasks.spawn(async move {
            let started = tokio::time::Instant::now();
            let outcome = executor.execute(step.action.clone(), desired).await;
            // Without the loop nobody waits for the outcome; facts on disk tell the next one.
            let _ = events.send(Event::Done(Box::new(step), outcome, started.elapsed()));
        });
    }
}

/// Whether all of its pods can serve, or have done their work.
fn is_up(workload: &crate::status::WorkloadStatus) -> bool {
    workload.phase == "Succeeded" || (workload.phase == "Running" && workload.ready >= workload.desired)
}
