//! Which part of what is wished is let through: pauses, maintenance windows, lock files, a generation that the node is
//! to stay at, and removals above the budget. What is held back stays as it was let through last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtime::Runtime;
use spec::budget;
use spec::hold::{Pause, merge};
use spec::manifest::HOLD_WHILE_FILE as HOLD_WHILE;
use spec::observed::PodFacts;
use spec::plan::Goals;
use spec::window::{self, Window, any_open};
use spec::workload::{Desired, Workload, WorkloadId};

use super::Reconciler;
use crate::events::Word;
use crate::history::{Generation, Images, label};
use crate::orders::Standing;
use crate::status::SourceStatus;

/// How often a lock file is looked for while it holds a change back.
const LOCK_LOOK: Duration = Duration::from_secs(2);

/// What the gates know.
#[derive(Default)]
pub(super) struct Gates {
    /// What was let through last.
    applied: Arc<Desired>,
    /// Whether that is on the disk.
    saved: bool,
    /// The generation that the node stays at.
    pinned: Option<(u64, Arc<Generation>)>,
    /// What is closed now.
    closed: BTreeMap<WorkloadId, Pause>,
    /// Removals that wait for approval, as they were counted in last.
    removals: BTreeSet<WorkloadId>,
    /// Windows of workloads without their own.
    windows: Vec<Window>,
}

impl Gates {
    /// Gates that know nothing yet.
    pub(super) fn new(windows: Vec<Window>) -> Self {
        Self { windows, ..Self::default() }
    }
}

impl Reconciler {
    /// What is wished now: by the sources, or by the generation that the node is to stay at.
    pub(super) fn wished(&self) -> &Desired {
        self.gates.pinned.as_ref().map_or(&self.reading.desired, |(_, generation)| &generation.desired)
    }

    /// Takes up what was let through before the agent was restarted.
    pub(super) fn load_gates(&mut self) {
        let Some(history) = &self.history else { return };
        if let Some(applied) = history.applied() {
            self.gates.applied = Arc::new(applied);
            self.gates.saved = true;
        }
        if let Some(pin) = self.orders.standing().pinned {
            match history.load(pin.generation) {
                Ok(generation) => self.gates.pinned = Some((pin.generation, Arc::new(generation))),
                Err(error) => tracing::error!(%error, "the generation to stay at is lost; the sources count again"),
            }
        }
    }

    /// Lets the sources count again once they wish for something else than at the time of the rollback. A source that
    /// cannot be read wishes for nothing else.
    pub(super) fn check_pin(&mut self) {
        let Some(pin) = self.orders.standing().pinned else { return };
        let readable = self.reading.sources.iter().all(|source| !matches!(source.state.as_str(), "failed" | "waiting"));
        if readable && pin.revision != wish_label(&self.reading.desired) {
            self.unpin("the sources changed");
        }
    }

    pub(super) fn unpin(&mut self, why: &str) {
        if let Some((number, _)) = self.gates.pinned.take() {
            self.say(Word::ROLLBACK_OVER, None, format!("generation {number} is left: {why}"));
        }
        if let Err(error) = self.orders.change(|standing| standing.pinned = None) {
            tracing::error!(%error, "the end of the rollback is not written down");
        }
    }

    /// Stays at a generation from now on.
    pub(super) fn pin(&mut self, number: u64, generation: Generation) {
        self.gates.pinned = Some((number, Arc::new(generation)));
        self.reconsider();
    }

    /// The generation that the node stays at.
    pub(super) fn pinned(&self) -> Option<u64> {
        self.gates.pinned.as_ref().map(|(number, _)| *number)
    }

    /// Whether something steers the gates at all: without it nothing is looked at in a pass.
    fn is_gated(&self, standing: &Standing) -> bool {
        let annotated = |workload: &Arc<Workload>| {
            workload.annotations.contains_key(window::ANNOTATION) || workload.annotations.contains_key(HOLD_WHILE)
        };
        !standing.paused.is_empty()
            || !self.gates.windows.is_empty()
            || self.removal.is_some()
            || self.wished().workloads.values().chain(self.gates.applied.workloads.values()).any(annotated)
    }

    /// Closed workloads and why, and when that may change (Unix time in seconds).
    fn closed(&self, standing: &Standing) -> (BTreeMap<WorkloadId, Pause>, Option<i64>) {
        let mut closed = BTreeMap::new();
        let mut next: Option<i64> = None;
        if self.gates.pinned.is_some() || !self.is_gated(standing) {
            return (closed, next);
        }
        let unix = self.clock.unix();
        let (wished, applied) = (&self.wished().workloads, &self.gates.applied.workloads);
        let running = self.observed.pods.values().map(|pod| &pod.record.workload);
        let ids: BTreeSet<&WorkloadId> = wished.keys().chain(applied.keys()).chain(running).collect();
        for id in ids {
            let annotations = wished.get(id).or_else(|| applied.get(id)).map(|workload| &workload.annotations);
            let annotation = |name: &str| annotations.and_then(|annotations| annotations.get(name));
            let own = annotation(window::ANNOTATION).map(|text| window::parse_all(text));
            if own.as_ref().is_some_and(Result::is_err) {
                tracing::warn!(workload = %id, "its maintenance window cannot be read and is always closed");
            }
            let (open, change) = match &own {
                None => any_open(&self.gates.windows, unix),
                Some(Ok(windows)) => any_open(windows, unix),
                // Not to be understood: nothing is changed rather than at a wrong time.
                Some(Err(_)) => (false, None),
            };
            next = [next, change].into_iter().flatten().min();
            let lock = annotation(HOLD_WHILE).filter(|file| self.is_locked(id, file));
            let pause = if standing.paused.contains_key("*") || standing.paused.contains_key(&id.to_string()) {
                Pause::Ordered
            } else if let Some(file) = lock {
                Pause::Lock { file: file.clone() }
            } else if !open {
                Pause::Window
            } else {
                continue;
            };
            closed.insert(id.clone(), pause);
        }
        (closed, next)
    }

    /// Whether a lock file exists, as a running container of the workload sees it.
    fn is_locked(&self, id: &WorkloadId, file: &str) -> bool {
        let pods = self.observed.pods.values().filter(|pod| pod.record.workload == *id);
        pods.into_iter().any(|pod| lock_exists(self.executor.runtime.as_ref(), pod, file))
    }

    /// Workloads that are protected from removal: as they are wished, and those that are not any more as they were wished
    /// last.
    pub(super) fn protected(&self) -> BTreeSet<WorkloadId> {
        let says = |annotations: &BTreeMap<String, String>| {
            annotations.get(budget::PROTECTED).is_some_and(|value| value == "true")
        };
        let wished = &self.wished().workloads;
        let known = self.orders.standing().protected;
        let now = wished.iter().filter(|(_, workload)| says(&workload.annotations)).map(|(id, _)| id);
        let records = self.observed.pods.values().map(|pod| &pod.record);
        let before = records
            .filter(|record| !wished.contains_key(&record.workload))
            .filter(|record| says(&record.annotations) || known.contains(&record.workload.to_string()));
        now.chain(before.map(|record| &record.workload)).cloned().collect()
    }

    /// Keeps which workloads are protected for the time when their manifests are gone, be that another agent's.
    fn save_protected(&self) {
        let now: BTreeSet<String> = self.protected().iter().map(ToString::to_string).collect();
        if now != self.orders.standing().protected
            && let Err(error) = self.orders.change(|standing| standing.protected = now)
        {
            tracing::error!(%error, "which workloads are protected is not written down");
        }
    }

    /// Looks at the gates again and plans for what is let through.
    pub(super) fn reconsider(&mut self) {
        if !self.ready {
            // Nothing was read yet: the first reading is looked at as a whole, by what is ordered then.
            return;
        }
        self.save_protected();
        self.hold_removals();
        let standing = self.orders.standing();
        let (closed, _) = self.closed(&standing);
        let removals = self.removal.as_ref().map(|removal| removal.workloads.clone()).unwrap_or_default();
        let ids: BTreeSet<WorkloadId> = closed.keys().chain(&removals).cloned().collect();
        let merged = merge(&self.gates.applied, self.wished(), &ids);
        let desired = Arc::new(merged.desired);
        let mut goals = Goals::with_versions(&desired, &self.observed.versions);
        if let Some((_, generation)) = &self.gates.pinned {
            for ((id, revision), images) in &generation.images {
                let goal = goals.workloads.get_mut(id).filter(|goal| goal.revision == *revision);
                goal.into_iter().for_each(|goal| goal.images = Some(images.clone()));
            }
        }
        let pending = |id: &WorkloadId| merged.pending.contains(id);
        goals.paused =
            closed.iter().filter(|(id, _)| pending(id)).map(|(id, pause)| (id.clone(), pause.clone())).collect();
        let unwished = ids.iter().filter(|id| !self.wished().workloads.contains_key(id));
        goals.unwished = unwished.filter(|id| goals.workloads.contains_key(id)).cloned().collect();
        // What is known from its pods only goes on as these are.
        goals.held = ids.into_iter().filter(|id| !goals.workloads.contains_key(id)).collect();
        goals.drained = standing.drained.is_some();
        self.gates.closed = closed;
        self.gates.removals = removals;
        self.note_changes(&goals, &desired);
        self.renew_memory(&goals);
        if let Some((_, generation)) = &self.gates.pinned {
            self.observed.prepared.retain(|key, images| generation.images.get(key).is_none_or(|known| known == images));
        }
        self.desired = desired;
        self.goals = goals;
        self.unrecorded = true;
        self.save_applied(&standing);
    }

    /// Keeps what was let through, as long as something may be held back.
    fn save_applied(&mut self, standing: &Standing) {
        let changed = self.gates.applied.workloads != self.desired.workloads
            || self.gates.applied.configs != self.desired.configs
            || self.gates.applied.secrets != self.desired.secrets;
        self.gates.applied = Arc::clone(&self.desired);
        let wanted = self.is_gated(standing);
        let Some(history) = &self.history else { return };
        if wanted == self.gates.saved && (!wanted || !changed) {
            return;
        }
        match history.save_applied(wanted.then_some(&*self.desired)) {
            Ok(()) => self.gates.saved = wanted,
            Err(error) => tracing::error!(%error, "what was let through is not written down"),
        }
    }

    /// Looks whether gates have opened or closed by themselves; when to look again.
    pub(super) fn check_gates(&mut self) -> Option<Duration> {
        let standing = self.orders.standing();
        if !self.is_gated(&standing) && self.gates.closed.is_empty() && self.gates.removals.is_empty() {
            return None;
        }
        let (closed, next) = self.closed(&standing);
        let removals = self.removal.as_ref().map(|removal| &removal.workloads);
        if closed != self.gates.closed || removals.unwrap_or(&BTreeSet::new()) != &self.gates.removals {
            self.reconsider();
        }
        let locked = self.goals.paused.values().any(|pause| matches!(pause, Pause::Lock { .. }));
        let change = next.map(|at| Duration::from_secs(u64::try_from(at - self.clock.unix()).unwrap_or(0).max(1)));
        [locked.then_some(LOCK_LOOK), change].into_iter().flatten().min()
    }

    /// Forgets failures, waits and preparations of what has other inputs now.
    fn renew_memory(&mut self, goals: &Goals) {
        let changed: BTreeSet<WorkloadId> = goals
            .workloads
            .iter()
            .filter(|(id, goal)| {
                self.goals.workloads.get(id).is_none_or(|old| old.revision != goal.revision || old.files != goal.files)
            })
            .map(|(id, _)| id.clone())
            .collect();
        let first = self.goals.workloads.is_empty();
        let of = |pods: &BTreeMap<_, Arc<PodFacts>>, uid: &spec::observed::PodUid| {
            pods.get(uid).is_some_and(|pod| changed.contains(&pod.record.workload))
        };
        let pods = &self.observed.pods;
        // What failed under other inputs is worth another try at once; what an earlier agent left is judged so, too.
        self.observed.failures.retain(|key, failure| goals.inputs(key, pods).is_some_and(|now| now == failure.inputs));
        if !first {
            self.observed.retry.extend(pods.keys().filter(|uid| of(pods, uid)).cloned());
        }
        self.observed
            .prepared
            .retain(|(id, revision), _| goals.workloads.get(id).is_some_and(|goal| goal.revision == *revision));
    }

    /// What the images of everything that is to be had stand for.
    pub(super) fn images(&self) -> Images {
        let mut images = Images::new();
        for pod in self.observed.pods.values() {
            let record = &pod.record;
            if self.goals.workloads.get(&record.workload).is_some_and(|goal| goal.revision == record.revision) {
                images.insert((record.workload.clone(), record.revision.clone()), record.images.clone());
            }
        }
        images
    }

    /// Writes a generation down when the node has become what it is to be.
    pub(super) fn record_generation(&mut self) {
        if !self.unrecorded {
            return;
        }
        let images = self.images();
        let revision = self.reading.revision.clone();
        // A state that was gone back to comes from what it came from then, and not from what the sources say now.
        let sources = if self.pinned().is_some() { BTreeMap::new() } else { followed(&self.reading.sources) };
        let Some(history) = &mut self.history else { return };
        match history.record(&self.goals, &self.desired, &images, &revision, sources, self.clock.unix()) {
            Ok(number) => {
                self.unrecorded = false;
                if let Some(number) = number {
                    tracing::info!(generation = number, "generation recorded");
                }
            }
            Err(error) => tracing::error!(error = spec::causes::chain(&error), "generation not recorded"),
        }
    }
}

/// The revision of each source that has one.
fn followed(sources: &[SourceStatus]) -> BTreeMap<String, String> {
    sources.iter().filter_map(|source| Some((source.path.clone(), source.revision.clone()?))).collect()
}

/// Label of what the sources wish for, wherever it is written.
pub(super) fn wish_label(desired: &Desired) -> String {
    label(&Goals::new(&Arc::new(desired.clone())), &Images::new())
}

/// Whether `VOLUME/PATH` exists, looked at through a running container that mounts the volume. Only whether it is
/// there is told, and it only ever holds changes of its own workload back.
fn lock_exists(runtime: &dyn Runtime, pod: &PodFacts, file: &str) -> bool {
    let Some((volume, path)) = file.split_once('/') else { return false };
    let path = Path::new(path);
    if path.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return false;
    }
    pod.record.spec.all_containers().any(|container| {
        let Some(mount) = container.mounts.iter().find(|mount| mount.volume == volume) else { return false };
        runtime.has_file(pod, &container.name, &Path::new(&mount.path).join(path))
    })
}
