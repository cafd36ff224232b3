//! Judges every plan by rules of its own, over all lives of an agent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use runtime::Runtime;
use runtime::sim::{Sim, is_well};
use spec::manifest::HOLD_WHILE_FILE;
use spec::observed::{ContainerFacts, ContainerState, PodFacts, PodUid, PortKey, PortTarget};
use spec::plan::{Action, Goal, Goals, Observed, Plan, Reason, Step, pod_phase};
use spec::pod::ContainerSpec;
use spec::time::{Millis, Timestamp};
use spec::window::ANNOTATION;
use spec::workload::{Controller, UpdateStrategy, WorkloadId};

use super::is_closed;

/// What may hold changes of a workload back.
#[derive(Clone, Copy)]
struct Gates {
    windowed: bool,
    locks: bool,
}

/// What a referee remembers from plan to plan, over all lives of the agent.
#[derive(Default)]
pub(crate) struct Referee {
    broken: BTreeSet<String>,
    /// Where ports lead.
    published: BTreeMap<PortKey, PodUid>,
    /// When a port was seen to have moved from a pod to another one.
    moved: BTreeMap<PodUid, Timestamp>,
    /// Pods whose end was ordered.
    begun: BTreeSet<PodUid>,
    /// The version of what was let through last of each workload, and what may hold its changes back.
    let_through: BTreeMap<WorkloadId, (String, Gates)>,
    /// Of these, another version was let through, since the last time somebody asked.
    pub(crate) opened: Vec<WorkloadId>,
    /// What is really so.
    pub(crate) world: Option<Sim>,
    /// Somebody went back to a generation, which no window holds up.
    pub(crate) windows_over: bool,
    /// Pods made by workload and version.
    made: BTreeMap<(WorkloadId, String), u32>,
}

pub(crate) fn runs(pod: &PodFacts) -> bool {
    pod.containers.values().any(ContainerFacts::is_running)
}

/// Time after which every probe of a simulated container has noticed how it is.
const NOTICED: Millis = Millis(30_000);

/// A running container, and for how long.
fn running<'a>(pod: &'a PodFacts, name: &str, now: Timestamp) -> Option<(&'a ContainerSpec, Millis)> {
    let ContainerState::Running { started, .. } = pod.containers.get(name)?.state else { return None };
    let container = pod.record.spec.all_containers().find(|container| container.name == name)?;
    Some((container, now.since(started)))
}

/// Whether a container runs and has been well for so long, or ever since its start.
fn is_well_for(pod: &PodFacts, name: &str, long: Millis, now: Timestamp) -> bool {
    running(pod, name, now).is_some_and(|(container, runs_for)| {
        let before = Millis(runs_for.0.saturating_sub(long.0));
        container.image.as_ref().is_some_and(|image| is_well(image, runs_for) && is_well(image, before))
    })
}

/// Whether a container that has not been well for a minute is left as it is although it is to be asked.
pub(crate) fn hangs(pod: &PodFacts, now: Timestamp) -> bool {
    running(pod, "main", now).is_some_and(|(container, runs_for)| {
        let before = Millis(runs_for.0.saturating_sub(60_000));
        let well = |image| is_well(image, runs_for) || is_well(image, before);
        container.liveness.is_some() && runs_for.0 > 60_000 && !container.image.as_ref().is_some_and(well)
    })
}

fn is_asked(container: &ContainerSpec) -> bool {
    container.startup.is_some() || container.readiness.is_some()
}

/// Whether a pod runs and, where its probes ask, was well at least once.
fn was_well(pod: &PodFacts, now: Timestamp) -> bool {
    running(pod, "main", now).is_some_and(|(container, runs_for)| {
        let well = |image| is_well(image, Millis(0)) || is_well(image, runs_for);
        !is_asked(container) || container.image.as_ref().is_some_and(well)
    })
}

/// Whether a pod has run for so long and, where its probes ask, is known to be well.
fn serves_for(pod: &PodFacts, long: Millis, now: Timestamp) -> bool {
    running(pod, "main", now).is_some_and(|(container, runs_for)| {
        runs_for.0 >= long.0 && (!is_asked(container) || is_well_for(pod, "main", NOTICED, now))
    })
}

/// Whether all old pods of a workload end before a new one is made.
fn one_after_the_other(goal: &Goal, observed: &Observed) -> bool {
    let Controller::Replicated { strategy, .. } = &goal.workload.controller else { return true };
    let spec = &goal.workload.template.spec;
    let mut pods = observed.pods.values().filter(|pod| pod.record.workload == goal.workload.id);
    strategy.recreate || pods.any(|pod| pod.record.spec.shares_writable_data(spec))
}

/// How many pods more than wished a workload may have while it is updated, where that is any.
fn surge(goal: &Goal, observed: &Observed) -> Option<u32> {
    let Controller::Replicated { strategy, .. } = &goal.workload.controller else { return None };
    (strategy.max_surge > 0 && !one_after_the_other(goal, observed)).then_some(strategy.max_surge)
}

impl Referee {
    /// How many pods of a version were made.
    pub(crate) fn made(&self, id: &WorkloadId, revision: &str) -> u32 {
        self.made.get(&(id.clone(), revision.to_owned())).copied().unwrap_or(0)
    }

    /// Every rule that was broken.
    pub(crate) fn broken(&self) -> impl Iterator<Item = String> {
        self.broken.clone().into_iter()
    }

    fn really_runs(&self, pod: &PodFacts, container: &str) -> bool {
        self.world.as_ref().map_or_else(|| runs(pod), |world| world.runs(pod, container))
    }

    /// Looks at a plan and what it was made from.
    pub(crate) fn check(&mut self, goals: &Goals, observed: &Observed, now: Timestamp, plan: &Plan) {
        for (key, target) in &observed.published {
            let before = self.published.insert(key.clone(), target.pod.clone());
            self.moved.extend(before.filter(|before| *before != target.pod).map(|before| (before, now)));
        }
        self.check_gates(goals, observed, now);
        if goals.drained {
            // Everything ends, whatever it is.
            return;
        }
        let mut slots = BTreeSet::new();
        for step in &plan.steps {
            match &step.action {
                Action::CreatePod { goal, ordinal, .. } => {
                    let id = goal.workload.id.clone();
                    let there = observed.pods.values().any(|pod| {
                        pod.record.workload == id
                            && pod.record.ordinal == *ordinal
                            && pod.record.revision == goal.revision
                    });
                    if there || !slots.insert((id.clone(), *ordinal, goal.revision.clone())) {
                        self.broken.insert(format!("slot: {id} #{ordinal} is made twice"));
                    }
                    *self.made.entry((id, goal.revision.clone())).or_default() += 1;
                }
                Action::StopPod { pod, .. } => self.check_stop(goals, observed, now, pod, step),
                Action::StartContainer { pod, .. } => self.check_start(goals, observed, now, pod),
                Action::StopContainer { pod, container, .. }
                    if step.reason == Reason::Unhealthy && is_well_for(pod, container, NOTICED, now) =>
                {
                    // What has ended without anybody knowing does not answer either.
                    let runs = self.really_runs(pod, container);
                    let broken = format!("health: {} is ended although it is well, at {}", pod.record.name, now.0);
                    self.broken.extend(runs.then_some(broken));
                }
                Action::Publish { ports } => self.check_ports(observed, now, ports),
                _ => {}
            }
        }
        for goal in goals.workloads.values() {
            let Controller::Replicated { replicas, strategy } = &goal.workload.controller else { continue };
            if !one_after_the_other(goal, observed) {
                self.check_numbers(goal.workload.id.clone(), *replicas as usize, strategy, (observed, now), plan);
            }
        }
    }

    /// Nothing changes outside of maintenance windows and beside lock files: nothing new is let through, and nothing is
    /// taken away.
    fn check_gates(&mut self, goals: &Goals, observed: &Observed, now: Timestamp) {
        let lock = Path::new("/data/lock");
        let locks = |pod: &&Arc<PodFacts>| self.world.as_ref().is_some_and(|world| world.has_file(pod, "main", lock));
        let locked: BTreeSet<&WorkloadId> =
            observed.pods.values().filter(locks).map(|pod| &pod.record.workload).collect();
        let shut = |id: &WorkloadId, gates: Gates| {
            !self.windows_over && ((gates.locks && locked.contains(id)) || (gates.windowed && is_closed(now)))
        };
        for (id, goal) in &goals.workloads {
            let before = self.let_through.get(id).map(|(version, _)| version);
            if goal.back.is_some() || before == Some(&goal.version) {
                // A version that fails is gone back from at any time.
                continue;
            }
            let annotated = |name| goal.workload.annotations.contains_key(name);
            let gates = Gates { windowed: annotated(ANNOTATION), locks: annotated(HOLD_WHILE_FILE) };
            if shut(id, gates) {
                self.broken.insert(format!("gate: {id} changes while it is shut, at {}", now.0));
            }
            self.opened.push(id.clone());
            self.let_through.insert(id.clone(), (goal.version.clone(), gates));
        }
        let gone = |id: &WorkloadId| !goals.workloads.contains_key(id) && !goals.held.contains(id);
        for (id, (_, gates)) in self.let_through.iter().filter(|(id, _)| gone(id)) {
            if shut(id, *gates) {
                self.broken.insert(format!("gate: {id} is removed while it is shut, at {}", now.0));
            }
        }
        self.let_through.retain(|id, _| !gone(id));
    }

    fn check_stop(&mut self, goals: &Goals, observed: &Observed, now: Timestamp, pod: &PodFacts, step: &Step) {
        let record = &pod.record;
        let id = &record.workload;
        // What was begun when nothing spoke against it is brought to its end.
        let begun = self.begun.contains(&record.uid);
        if !goals.held.contains(id) {
            self.begun.insert(record.uid.clone());
        } else if !begun {
            self.broken.insert(format!("held: {id} is touched: {:?}", step.reason));
        }
        let removed = |id: &WorkloadId| !goals.workloads.contains_key(id) && !goals.held.contains(id);
        let over = |pod: &PodFacts| pod_phase(pod, observed).is_over();
        let others = observed.pods.values().filter(|other| removed(&other.record.workload) && !over(other));
        let needed =
            others.into_iter().any(|other| other.record.depends_on.contains(id) && other.record.workload != *id);
        if removed(id) && needed && !over(pod) && !begun {
            self.broken.insert(format!("end: {id} ends before what depends on it"));
        }
        let surges = goals.workloads.get(id).is_some_and(|goal| surge(goal, observed).is_some());
        // What has ended without anybody knowing serves nobody.
        let serves = self.really_runs(pod, "main") && serves_for(pod, Millis(0), now);
        let replaced = matches!(step.reason, Reason::SpecChanged { .. }) && serves && surges;
        let last = self.moved.get(&record.uid);
        if replaced && last.is_some_and(|last| now.since(*last) < Millis(2000)) {
            self.broken.insert(format!("drain: {} ends too soon after its port has moved, at {}", record.name, now.0));
        }
    }

    /// Nothing leads to what was never well while something that is well could be led to.
    fn check_ports(&mut self, observed: &Observed, now: Timestamp, ports: &BTreeMap<PortKey, PortTarget>) {
        for (key, target) in ports {
            let Some(pod) = observed.pods.get(&target.pod).filter(|pod| !was_well(pod, now)) else { continue };
            let before = observed.published.get(key).and_then(|before| observed.pods.get(&before.pod));
            let better = before.filter(|before| before.record.workload == pod.record.workload);
            if better.is_some_and(|better| {
                serves_for(better, NOTICED, now) && !observed.stopping.contains_key(&better.record.uid)
            }) {
                self.broken.insert(format!("port: {key} leads to {}, which was never well", pod.record.name));
            }
        }
    }

    fn check_start(&mut self, goals: &Goals, observed: &Observed, now: Timestamp, pod: &PodFacts) {
        let Some(goal) = goals.workloads.get(&pod.record.workload) else { return };
        for dependency in &goal.workload.depends_on {
            let mut others = observed.pods.values().filter(|other| other.record.workload == dependency.workload);
            let up = others.any(|other| runs(other) && was_well(other, now));
            if !runs(pod) && !up {
                self.broken.insert(format!("start: {} before {}", pod.record.name, dependency.workload));
            }
        }
    }

    fn check_numbers(
        &mut self,
        id: WorkloadId,
        wished: usize,
        strategy: &UpdateStrategy,
        (observed, now): (&Observed, Timestamp),
        plan: &Plan,
    ) {
        let is_staying =
            |pod: &Arc<PodFacts>| pod.record.workload == id && !observed.stopping.contains_key(&pod.record.uid);
        let stopped: BTreeSet<&PodUid> = plan
            .steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::StopPod { pod, .. } => Some(&pod.record.uid),
                _ => None,
            })
            .collect();
        let staying = || observed.pods.values().filter(|pod| is_staying(pod) && runs(pod));
        let serving = staying().filter(|pod| was_well(pod, now)).count();
        let serves = |pod: &PodFacts| self.really_runs(pod, "main") && serves_for(pod, NOTICED, now);
        let ends = |pod: &&Arc<PodFacts>| stopped.contains(&pod.record.uid) && serves(pod);
        let ending = staying().filter(ends).count();
        let floor = wished.saturating_sub(strategy.max_unavailable as usize);
        if ending > 0 && serving - ending < floor {
            self.broken.insert(format!("bounds: {id} would serve with {} of {wished}", serving - ending));
        }
        let made = plan.steps.iter().filter(|step| match &step.action {
            Action::CreatePod { goal, .. } => goal.workload.id == id,
            _ => false,
        });
        let (made, there) = (made.count(), observed.pods.values().filter(|pod| is_staying(pod)).count());
        if made > 0 && there + made > wished + strategy.max_surge as usize {
            self.broken.insert(format!("surge: {id} would have {} pods", there + made));
        }
    }
}
