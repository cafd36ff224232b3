//! The one place where decisions are made: what there should be, what there is and the time go in; what may be done
//! *now* comes out, each action with its reason, with the moment to look again and everything that is waited for.
//!
//! Next steps only: after each outcome the world is observed and planned again, so there is no graph and no undo.
//! What is in flight is part of [`Observed`], so planning twice is harmless. Removal comes before an addition that
//! needs it. Doing is the executor's, which decides nothing.

mod config;
mod cron;
mod disk;
mod drain;
mod empty;
mod failure;
mod instance;
mod job;
mod judge;
mod names;
mod order;
mod ordered;
mod pod;
mod ports;
mod reason;
mod replicated;
mod services;
mod successor;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::hold::Pause;
use crate::names::NameTable;
use crate::observed::{DiskUsage, JobMemory, PodFacts, PodFailure, PodUid, PortKey, PortTarget};
use crate::pod::{PodSpec, ResolvedImages};
use crate::services::{ServiceSet, ServiceState};
use crate::time::{Millis, Timestamp};
use crate::workload::{Controller, Desired, PodTemplate, Service, UpdateStrategy, Workload, WorkloadId};

pub use config::{ON_CONFIG_CHANGE, Reaction, UNKNOWN_FILES, reaction};
pub use cron::next_run;
pub use disk::{has_disk_limits, over_disk_limit};
pub use drain::{DRAIN, drain_time, is_drain_time};
pub use failure::{Failure, Kept};
pub use names::names;
pub use order::stop_order;
pub use pod::{PodPhase, pod_phase, pod_ready_since};
pub use ports::port_map;
pub use reason::{Hold, Reason};
pub use services::{Services, host_entrances, service_pods, services};
pub use versions::{Back, Bad, Cause, Crashes, Memory, ON_FAILURE, Trial, Version, on_failure};

/// A workload with what planning derives from it once.
#[derive(Debug, Clone)]
pub struct Goal {
    /// What is wished.
    pub workload: Arc<Workload>,
    /// Label of its template.
    pub revision: String,
    /// Label of the content of its generated volumes.
    pub files: String,
    /// Label of both: what a version is known by.
    pub version: String,
    /// Set where the wished version failed and this is the last good one.
    pub back: Option<Arc<Back>>,
    /// Set where this version failed and nothing more is done for it (`failure_action: pause`).
    pub failed: Option<Bad>,
    /// Set where its images are to be exactly these, whatever their names stand for now: those of a generation.
    pub images: Option<ResolvedImages>,
}

impl Goal {
    /// A workload as its manifest wishes it.
    #[must_use]
    pub fn of(workload: &Arc<Workload>, desired: &Desired) -> Self {
        let revision = revision(workload);
        let files = crate::files::content_label(desired, workload);
        let version = versions::label(workload, &revision, &files);
        Self { workload: Arc::clone(workload), revision, files, version, back: None, failed: None, images: None }
    }

    /// Why a pod of another version goes.
    fn replaced(&self, changes: impl FnOnce() -> Vec<crate::diff::Change>) -> Reason {
        match &self.back {
            Some(back) => Reason::RolledBack { cause: back.bad.cause.clone() },
            None => Reason::SpecChanged { changes: changes() },
        }
    }
}

/// Everything that is wished, ready for planning. Made once for each change of the desired state.
#[derive(Debug, Clone, Default)]
pub struct Goals {
    /// By identity.
    pub workloads: BTreeMap<WorkloadId, Goal>,
    /// Services by namespace and name.
    pub services: BTreeMap<(String, String), Arc<Service>>,
    /// Workloads that are wished no longer but whose removal is held: their pods are kept going as they are.
    pub held: BTreeSet<WorkloadId>,
    /// Workloads that are here only since their removal is held back: they are kept going as any other.
    pub unwished: BTreeSet<WorkloadId>,
    /// Workloads with a change that is held back, and why.
    pub paused: BTreeMap<WorkloadId, Pause>,
    /// Nothing is to run: everything is stopped, dependents first, and stays so.
    pub drained: bool,
    /// What all of this was derived from.
    pub desired: Arc<Desired>,
}

impl Goals {
    /// Derives labels from the desired state.
    #[must_use]
    pub fn new(desired: &Arc<Desired>) -> Self {
        Self::with_versions(desired, &BTreeMap::new())
    }

    /// The same, with the last good version in the place of each one that is known to fail.
    #[must_use]
    pub fn with_versions(desired: &Arc<Desired>, versions: &BTreeMap<WorkloadId, Arc<Memory>>) -> Self {
        let goal = |(id, workload): (&WorkloadId, &Arc<Workload>)| {
            (id.clone(), versions::choose(Goal::of(workload, desired), versions.get(id)))
        };
        let workloads = desired.workloads.iter().map(goal).collect();
        Self { workloads, services: desired.services.clone(), desired: Arc::clone(desired), ..Self::default() }
    }

    /// The objects that an action for this workload is to use: those of the last good version where the pod (or the
    /// new pod) is of that version and it is not the wished one, else the wished ones.
    #[must_use]
    pub fn objects(&self, observed: &Observed, workload: &WorkloadId, revision: &str) -> Arc<Desired> {
        let good = observed.versions.get(workload).and_then(|memory| memory.good.as_ref());
        let good = good.filter(|good| self::revision(&good.workload) == revision);
        let other = self.workloads.get(workload).is_none_or(|goal| goal.back.is_some() || goal.revision != revision);
        match good {
            Some(good) if other => Arc::clone(&good.objects),
            Some(_) | None => Arc::clone(&self.desired),
        }
    }
}

/// A short label of a workload's template: equal templates have equal labels.
#[must_use]
pub fn revision(workload: &Workload) -> String {
    let template = &workload.template;
    // Content is no part of it, neither that of generated files nor that of files of the host.
    let bytes = if template.bound.is_empty() {
        serde_json::to_vec(template)
    } else {
        serde_json::to_vec(&PodTemplate { bound: BTreeMap::new(), ..template.clone() })
    };
    let bytes = bytes.unwrap_or_default();
    Digest::of(&bytes).hex().chars().take(8).collect()
}

/// What there is, and what the agent remembers of its own doing.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// This boot.
    pub boot_id: String,
    /// Every pod there is a record of.
    pub pods: BTreeMap<PodUid, Arc<PodFacts>>,
    /// Versions of workloads that can be made now, with what their images stand for.
    pub prepared: BTreeMap<(WorkloadId, String), ResolvedImages>,
    /// Ports as they are published now.
    pub published: BTreeMap<PortKey, PortTarget>,
    /// Services as they are open now.
    pub services: ServiceSet,
    /// What Services can be given.
    pub service_state: ServiceState,
    /// Names as pods know them now; `None` before they were told any.
    pub names: Option<NameTable>,
    /// What is being done.
    pub in_flight: BTreeSet<ActionKey>,
    /// What failed and was not done since.
    pub failures: BTreeMap<ActionKey, Failure>,
    /// Probe results, by pod and container.
    pub health: BTreeMap<(PodUid, String), Health>,
    /// Label of the generated files that each pod has.
    pub files: BTreeMap<PodUid, String>,
    /// What pods take on the disk, as last measured. Only those above a limit need to be here.
    pub disk: BTreeMap<PodUid, DiskUsage>,
    /// Pods whose end was ordered: that is never taken back.
    pub stopping: BTreeMap<PodUid, Reason>,
    /// Pods whose waits people asked to cut short.
    pub retry: BTreeSet<PodUid>,
    /// What is remembered of workloads, as it is on disk.
    pub memories: BTreeMap<WorkloadId, JobMemory>,
    /// The wall clock, in seconds of Unix time: for schedules, and for waits that a reboot interrupts.
    pub unix: i64,
    /// IANA name of the host's time zone; UTC when empty or not known.
    pub zone: String,
    /// What is remembered of the versions of each workload.
    pub versions: BTreeMap<WorkloadId, Arc<Memory>>,
    /// Pods that are being drained, and since when: since their ports have moved, where they had any.
    pub draining: BTreeMap<PodUid, Timestamp>,
    /// Those of them that the kernel tracks no connection to.
    pub idle: BTreeSet<PodUid>,
}

/// Result of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// The attempt that was probed.
    pub attempt: u32,
    /// The startup probe has passed, or there is none.
    pub started: bool,
    /// Ready by the readiness probe.
    pub ready: bool,
    /// Since when.
    pub since: Timestamp,
    /// The liveness or startup probe has failed for good: the container must go.
    pub failed: bool,
    /// It is known that it cannot serve: the readiness probe has failed as often as its threshold says since it passed
    /// last. Where this and `ready` are false, nothing is known yet.
    pub refused: bool,
}

/// What an action is about; at most one action of a key is in flight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ActionKey {
    /// What a version of a workload needs before a pod of it is made.
    Prepare(WorkloadId, String),
    /// A pod that is being made: workload, ordinal, revision.
    Create(WorkloadId, u32, String),
    /// A pod as a whole.
    Pod(PodUid),
    /// A container of a pod.
    Container(PodUid, String),
    /// The generated files of a pod.
    Files(PodUid),
    /// The published ports.
    Publish,
    /// What Services open.
    Services,
    /// The names that pods know.
    Names,
    /// What is remembered of a workload.
    Memory(WorkloadId),
}

impl ActionKey {
    /// The pod that is acted on, if it is one.
    #[must_use]
    pub fn pod(&self) -> Option<&PodUid> {
        match self {
            Self::Pod(uid) | Self::Container(uid, _) | Self::Files(uid) => Some(uid),
            Self::Prepare(..) | Self::Create(..) | Self::Publish | Self::Services | Self::Names | Self::Memory(_) => {
                None
            }
        }
    }
}

/// Something to do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Do everything for a workload's version that can fail before anything old is touched: make its images available,
    /// each by its pull policy, and check that its references, volumes, devices, users and ports of the host are good.
    Prepare {
        /// The version.
        goal: Goal,
    },
    /// Make a new pod: record, namespaces, addresses, volumes.
    CreatePod {
        /// The version.
        goal: Goal,
        /// Which pod of the workload.
        ordinal: u32,
        /// Its name.
        name: String,
        /// What it is.
        spec: Arc<PodSpec>,
        /// What its images stand for.
        images: ResolvedImages,
        /// The moment of the schedule that it runs for (CronJob).
        run: Option<i64>,
    },
    /// Make namespaces and volumes of a recorded pod again.
    RestorePod {
        /// The pod.
        pod: Arc<PodFacts>,
    },
    /// Start an attempt of a container.
    StartContainer {
        /// The pod.
        pod: Arc<PodFacts>,
        /// The container.
        container: String,
        /// Number of the attempt.
        attempt: u32,
        /// Its place in the series of restarts.
        series: u32,
    },
    /// Stop one container: hook, signal, grace period, kill.
    StopContainer {
        /// The pod.
        pod: Arc<PodFacts>,
        /// The container.
        container: String,
        /// Time before the kill.
        grace: Millis,
        /// The attempt that is ended for being unhealthy: that is written down first.
        unhealthy: Option<u32>,
    },
    /// Stop all containers of a pod, then remove it.
    StopPod {
        /// The pod.
        pod: Arc<PodFacts>,
        /// Time before the kill.
        grace: Millis,
    },
    /// Write down that a pod has failed as a whole, then stop its containers; its record and logs stay.
    FailPod {
        /// The pod.
        pod: Arc<PodFacts>,
        /// Why.
        failure: PodFailure,
        /// Time before the kill.
        grace: Millis,
    },
    /// Replace the published ports.
    Publish {
        /// All of them.
        ports: BTreeMap<PortKey, PortTarget>,
    },
    /// Replace what Services open.
    PublishServices {
        /// All of it.
        services: Box<ServiceSet>,
    },
    /// Tell pods the names of others.
    SetNames {
        /// All of them.
        names: Box<NameTable>,
    },
    /// Swap the content of a pod's generated volumes; with [`Reaction::Restart`] only find out whether it differs.
    UpdateFiles {
        /// The pod.
        pod: Arc<PodFacts>,
        /// Label of the content.
        label: String,
        /// Who is told.
        reaction: Reaction,
    },
    /// Write down what must not be forgotten of a workload; `None` forgets all.
    Remember {
        /// Which.
        workload: WorkloadId,
        /// What.
        memory: Option<JobMemory>,
    },
}

impl Action {
    /// What it is about.
    #[must_use]
    pub fn key(&self) -> ActionKey {
        match self {
            Self::Prepare { goal } => ActionKey::Prepare(goal.workload.id.clone(), goal.revision.clone()),
            Self::CreatePod { goal, ordinal, .. } => {
                ActionKey::Create(goal.workload.id.clone(), *ordinal, goal.revision.clone())
            }
            Self::RestorePod { pod } | Self::StopPod { pod, .. } | Self::FailPod { pod, .. } => {
                ActionKey::Pod(pod.record.uid.clone())
            }
            Self::StartContainer { pod, container, .. } | Self::StopContainer { pod, container, .. } => {
                ActionKey::Container(pod.record.uid.clone(), container.clone())
            }
            Self::Publish { .. } => ActionKey::Publish,
            Self::PublishServices { .. } => ActionKey::Services,
            Self::SetNames { .. } => ActionKey::Names,
            Self::Remember { workload, .. } => ActionKey::Memory(workload.clone()),
            Self::UpdateFiles { pod, .. } => ActionKey::Files(pod.record.uid.clone()),
        }
    }

    /// Its name in logs, metrics and plans.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Prepare { .. } => "pull",
            Self::CreatePod { .. } => "create_pod",
            Self::RestorePod { .. } => "restore_pod",
            Self::StartContainer { .. } => "start_container",
            Self::StopContainer { .. } => "stop_container",
            Self::StopPod { .. } => "stop_pod",
            Self::FailPod { .. } => "fail_pod",
            Self::Publish { .. } => "publish_ports",
            Self::PublishServices { .. } => "publish_services",
            Self::SetNames { .. } => "set_names",
            Self::UpdateFiles { .. } => "update_files",
            Self::Remember { .. } => "remember",
        }
    }
}

/// An action and why.
#[derive(Debug, Clone)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// The workload it is for; none for the ports.
    pub workload: Option<WorkloadId>,
    /// Why.
    pub reason: Reason,
}

/// What may be done now.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In order of importance; all may run at once.
    pub steps: Vec<Step>,
    /// When to plan again although nothing happens.
    pub wake: Option<Timestamp>,
    /// What is waited for, by workload.
    pub holds: Vec<(WorkloadId, Hold)>,
    /// Pods that are to be stopped as soon as no Service leads to them any more.
    pub leaving: BTreeSet<PodUid>,
    /// What Services should open.
    pub services: Services,
    /// What is to be remembered of versions from now on; goals derived before it are out of date.
    pub versions: Vec<(WorkloadId, Arc<Memory>)>,
    /// Pods to be drained. Those that were not before make ports and names move: it is planned again at once.
    pub draining: BTreeSet<PodUid>,
}

impl Plan {
    fn push(&mut self, workload: &WorkloadId, action: Action, reason: Reason) {
        self.steps.push(Step { action, workload: Some(workload.clone()), reason });
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Whether this plan ends a pod.
    fn stops(&self, uid: &PodUid) -> bool {
        self.leaving.contains(uid)
            || self
                .steps
                .iter()
                .rev()
                .any(|step| matches!(&step.action, Action::StopPod { pod, .. } if pod.record.uid == *uid))
    }

    fn hold(&mut self, workload: &WorkloadId, hold: Hold) {
        self.holds.push((workload.clone(), hold));
    }
}

/// What one pass sees.
struct View<'a> {
    goals: &'a Goals,
    observed: &'a Observed,
    pods: BTreeMap<&'a WorkloadId, Vec<&'a Arc<PodFacts>>>,
    /// Pods of workloads that are not wished (any more).
    leftover: Vec<&'a PodFacts>,
    /// The port map that should be.
    ports: &'a BTreeMap<PortKey, PortTarget>,
    now: Timestamp,
}

impl<'a> View<'a> {
    fn pods_of(&self, id: &WorkloadId) -> &[&'a Arc<PodFacts>] {
        self.pods.get(id).map_or(&[], Vec::as_slice)
    }

    fn busy(&self, key: &ActionKey) -> bool {
        self.observed.in_flight.contains(key)
    }

    /// Whether anything about a pod is in flight.
    fn pod_busy(&self, pod: &PodFacts) -> bool {
        let uid = &pod.record.uid;
        self.busy(&ActionKey::Pod(uid.clone()))
            || self.busy(&ActionKey::Files(uid.clone()))
            || pod.record.spec.all_containers().any(|c| self.busy(&ActionKey::Container(uid.clone(), c.name.clone())))
    }

    /// How long ago something was: by the boot-time clock, or by the wall clock when a reboot lies between.
    fn age(&self, at: Timestamp, boot_id: &str, unix: i64) -> Millis {
        if boot_id == self.observed.boot_id {
            return self.now.since(at);
        }
        let passed = if self.observed.unix < cron::CLOCK_SET { 0 } else { self.observed.unix.saturating_sub(unix) };
        Millis::from_secs(u64::try_from(passed).unwrap_or(0))
    }

    /// When a failed action may be tried again, when that is later than now.
    fn blocked_until(&self, key: &ActionKey) -> Option<(Timestamp, &'a Failure)> {
        let failure = self.observed.failures.get(key)?;
        let due = failure.at.plus(failure.wait());
        (due > self.now).then_some((due, failure))
    }

    /// Whether a workload waits because this action failed a short while ago; the plan then says so.
    fn is_blocked(&self, key: &ActionKey, workload: &WorkloadId, plan: &mut Plan) -> bool {
        let Some((due, failure)) = self.blocked_until(key) else { return false };
        plan.hold(workload, Hold::Failed { message: failure.message.clone(), due });
        plan.wake_at(due);
        true
    }
}

/// Decides what may be done now.
#[must_use]
pub fn plan(goals: &Goals, observed: &Observed, now: Timestamp) -> Plan {
    let mut pods: BTreeMap<&WorkloadId, Vec<&Arc<PodFacts>>> = BTreeMap::new();
    for facts in observed.pods.values() {
        pods.entry(&facts.record.workload).or_default().push(facts);
    }
    let ports = ports::port_map(goals, observed);
    let unwished = |pod: &&PodFacts| {
        let id = &pod.record.workload;
        !goals.workloads.contains_key(id) || goals.unwished.contains(id)
    };
    let leftover: Vec<&PodFacts> = observed.pods.values().map(Arc::as_ref).filter(unwished).collect();
    let view = View { goals, observed, pods, leftover, ports: &ports, now };
    let mut plan = Plan::default();

    for (id, pause) in &goals.paused {
        plan.hold(id, Hold::Paused { pause: pause.clone() });
    }
    if goals.drained {
        empty::plan(&view, &mut plan);
    }
    let removed = |id: &WorkloadId| !goals.workloads.contains_key(id) && !goals.held.contains(id);
    // What is over needs nobody any more, and nobody it.
    let over = |pod: &PodFacts| pod::pod_phase(pod, observed).is_over();
    let leftover = view.leftover.iter().copied();
    let ending: Vec<&PodFacts> = leftover.filter(|pod| removed(&pod.record.workload) && !over(pod)).collect();
    let first = order::first_to_end(&ending);
    for (id, pods) in view.pods.iter().filter(|(id, _)| !goals.drained && !goals.workloads.contains_key(**id)) {
        for pod in pods {
            let begun = observed.stopping.contains_key(&pod.record.uid);
            if goals.held.contains(*id) || !(first.contains(*id) || begun || over(pod)) {
                pod::keep(&view, pod, None, &mut plan);
            } else if let Some(by) = successor::unprepared(&view, pod) {
                plan.hold(id, Hold::Successor { by: by.clone() });
                pod::keep(&view, pod, None, &mut plan);
            } else {
                pod::stop(&view, pod, Reason::Removed, &mut plan);
            }
        }
    }
    for goal in goals.workloads.values().filter(|_| !goals.drained) {
        plan_workload(&view, goal, &mut plan);
        judge::judge(&view, goal, &mut plan);
    }
    // While a removal is held, what is not wished may be a mistake: nothing is forgotten.
    for id in observed.memories.keys().filter(|_| goals.held.is_empty()) {
        if !goals.workloads.contains_key(id) && view.pods_of(id).is_empty() {
            remember(&view, id, None, Reason::Removed, &mut plan);
        }
    }
    if ports != observed.published && !view.busy(&ActionKey::Publish) {
        match view.blocked_until(&ActionKey::Publish) {
            Some((due, failure)) => {
                plan.wake_at(due);
                let missing = ports.iter().filter(|(key, target)| observed.published.get(*key) != Some(*target));
                let owners: BTreeSet<&WorkloadId> =
                    missing.filter_map(|(_, target)| Some(&observed.pods.get(&target.pod)?.record.workload)).collect();
                for owner in owners {
                    plan.hold(owner, Hold::Failed { message: failure.message.clone(), due });
                }
            }
            None => plan.steps.push(Step {
                action: Action::Publish { ports: ports.clone() },
                workload: None,
                reason: Reason::PortsChanged,
            }),
        }
    }
    plan_services(&view, &mut plan);
    plan
}

/// What Services open and what names mean, which follows from it.
fn plan_services(view: &View<'_>, plan: &mut Plan) {
    let mut leaving: BTreeSet<PodUid> = plan.leaving.union(&plan.draining).cloned().collect();
    leaving.extend(plan.steps.iter().filter_map(|step| match &step.action {
        Action::StopPod { pod, .. } => Some(pod.record.uid.clone()),
        _ => None,
    }));
    plan.services = services::services(view.goals, view.observed, view.ports, &leaving);
    let set = &plan.services.set;
    if *set != view.observed.services && !view.busy(&ActionKey::Services) {
        match view.blocked_until(&ActionKey::Services) {
            Some((due, _)) => plan.wake_at(due),
            None => plan.steps.push(Step {
                action: Action::PublishServices { services: Box::new(set.clone()) },
                workload: None,
                reason: Reason::ServicesChanged,
            }),
        }
    }
    let names = names::names(view.goals, view.observed, &plan.services.set, &leaving);
    let known = match &view.observed.names {
        Some(known) => *known == names,
        // With nobody there nobody has to be told.
        None => names == NameTable::default() && view.observed.pods.is_empty(),
    };
    if !known && !view.busy(&ActionKey::Names) {
        match view.blocked_until(&ActionKey::Names) {
            Some((due, _)) => plan.wake_at(due),
            None => plan.steps.push(Step {
                action: Action::SetNames { names: Box::new(names) },
                workload: None,
                reason: Reason::NamesChanged,
            }),
        }
    }
}

fn plan_workload(view: &View<'_>, goal: &Goal, plan: &mut Plan) {
    let spec = &goal.workload.template.spec;
    match &goal.workload.controller {
        Controller::Single => {
            // A bare pod keeps its identity: the old one ends before the new one starts.
            let strategy = UpdateStrategy { max_surge: 0, max_unavailable: 1, ..UpdateStrategy::default() };
            replicated::plan(view, goal, 1, &strategy, plan);
        }
        Controller::Replicated { replicas, strategy } => {
            let mut strategy = strategy.clone();
            if let (Some(_), Some(rollback)) = (&goal.back, &strategy.rollback) {
                strategy.max_surge = rollback.max_surge;
                strategy.max_unavailable = rollback.max_unavailable;
                strategy.delay = rollback.delay;
            }
            if spec.host_network {
                // Two pods on the host's network want the same ports.
                strategy.max_surge = 0;
                strategy.max_unavailable = strategy.max_unavailable.max(1);
            }
            // Two versions that write to the same directory lose data: all old pods end first.
            strategy.recreate |= view
                .pods_of(&goal.workload.id)
                .iter()
                .any(|pod| pod.record.spec != *spec && pod.record.spec.shares_writable_data(spec));
            replicated::plan(view, goal, *replicas, &strategy, plan);
        }
        Controller::Ordered { replicas, first_ordinal, parallel, partition, on_delete, min_ready, .. } => {
            let rules = ordered::Rules {
                replicas: *replicas,
                first: *first_ordinal,
                parallel: *parallel,
                partition: *partition,
                on_delete: *on_delete,
                min_ready: *min_ready,
            };
            ordered::plan(view, goal, &rules, plan);
        }
        Controller::Job(spec) => job::plan(view, goal, spec, plan),
        Controller::Cron(spec) => cron::plan(view, goal, spec, plan),
    }
}

/// Writes down what is to be remembered of a workload, unless that is being done or failed a short while ago.
fn remember(view: &View<'_>, id: &WorkloadId, memory: Option<JobMemory>, reason: Reason, plan: &mut Plan) {
    let key = ActionKey::Memory(id.clone());
    if view.busy(&key) || plan.steps.iter().any(|step| step.action.key() == key) {
        return;
    }
    if !view.is_blocked(&key, id, plan) {
        plan.push(id, Action::Remember { workload: id.clone(), memory }, reason);
    }
}

/// What the images of a version that is gone back to stand for: no registry is needed for it. Nothing is known of a
/// version that earlier agents tried before they had made a pod of it.
fn known_images(goal: &Goal) -> Option<&ResolvedImages> {
    goal.back.as_ref().map(|back| &back.version.images).filter(|images| !images.is_empty())
}

/// Makes the pod with this ordinal, unless that is being done or failed a short while ago.
fn create(view: &View<'_>, goal: &Goal, ordinal: u32, plan: &mut Plan) {
    create_for(view, goal, ordinal, None, plan);
}

/// The same for a run of a CronJob.
fn create_for(view: &View<'_>, goal: &Goal, ordinal: u32, run: Option<i64>, plan: &mut Plan) {
    let id = &goal.workload.id;
    if successor::waits(view, goal, plan) {
        return;
    }
    let images = match known_images(goal) {
        Some(images) => images,
        None => match view.observed.prepared.get(&(id.clone(), goal.revision.clone())) {
            Some(images) => images,
            None => return,
        },
    };
    let reason = match (&goal.back, run) {
        (Some(back), _) => Reason::RolledBack { cause: back.bad.cause.clone() },
        (None, Some(at)) => Reason::Scheduled { at },
        (None, None) => Reason::Missing,
    };
    let action = Action::CreatePod {
        goal: instance::goal(goal, ordinal, run),
        ordinal,
        name: instance::name(goal, ordinal, run),
        spec: instance::spec(goal, ordinal),
        images: images.clone(),
        run,
    };
    let key = action.key();
    // Two runs of a CronJob may want the same ordinal: one after the other.
    if view.busy(&key) || run.is_some() && plan.steps.iter().any(|step| step.action.key() == key) {
        return;
    }
    if !view.is_blocked(&key, id, plan) {
        plan.push(id, action, reason);
    }
}
