//! Judges every plan by rules of its own, over all lives of an agent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spec::observed::{ContainerFacts, PodFacts, PodUid, PortKey};
use spec::plan::{Action, Goal, Goals, Observed, Plan, Reason, Step, pod_phase};
use spec::time::{Millis, Timestamp};
use spec::window::ANNOTATION;
use spec::workload::{Controller, UpdateStrategy, WorkloadId};

use super::is_closed;

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
    /// What was let through last of workloads with a maintenance window, while that was open.
    let_through: BTreeMap<WorkloadId, String>,
    /// Of these, another version was let through, since the last time somebody asked.
    pub(crate) opened: Vec<WorkloadId>,
    /// Somebody went back to a generation, which no window holds up.
    pub(crate) windows_over: bool,
    /// Pods made by workload and version.
    made: BTreeMap<(WorkloadId, String), u32>,
}

pub(crate) fn runs(pod: &PodFacts) -> bool {
    pod.containers.values().any(ContainerFacts::is_running)
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

    /// Looks at a plan and what it was made from.
    pub(crate) fn check(&mut self, goals: &Goals, observed: &Observed, now: Timestamp, plan: &Plan) {
        for (key, target) in &observed.published {
            let before = self.published.insert(key.clone(), target.pod.clone());
            self.moved.extend(before.filter(|before| *before != target.pod).map(|before| (before, now)));
        }
        self.check_windows(goals, now);
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
                Action::StartContainer { pod, .. } => self.check_start(goals, observed, pod),
                _ => {}
            }
        }
        for goal in goals.workloads.values() {
            let Controller::Replicated { replicas, strategy } = &goal.workload.controller else { continue };
            if !one_after_the_other(goal, observed) {
                self.check_numbers(goal.workload.id.clone(), *replicas as usize, strategy, observed, plan);
            }
        }
    }

    /// Nothing changes outside of maintenance windows: nothing new is let through, and nothing is taken away.
    fn check_windows(&mut self, goals: &Goals, now: Timestamp) {
        let windowed = |goal: &&Goal| goal.workload.annotations.contains_key(ANNOTATION);
        let here: BTreeMap<WorkloadId, &Goal> =
            goals.workloads.values().filter(windowed).map(|goal| (goal.workload.id.clone(), goal)).collect();
        if !is_closed(now) {
            let as_wished = |goal: &&Goal| goal.back.is_none();
            self.let_through.retain(|id, _| here.contains_key(id));
            let wished = here.values().copied().filter(as_wished);
            for goal in wished {
                let id = &goal.workload.id;
                let before = self.let_through.insert(id.clone(), goal.revision.clone());
                self.opened.extend((before.as_ref() != Some(&goal.revision)).then(|| id.clone()));
            }
            return;
        }
        if self.windows_over {
            return;
        }
        for (id, goal) in &here {
            // A version that fails is gone back from at any time.
            if goal.back.is_none() && self.let_through.get(id) != Some(&goal.revision) {
                self.broken.insert(format!("window: {id} changes while it is closed, at {}", now.0));
            }
        }
        for id in self.let_through.keys().filter(|id| !here.contains_key(id) && !goals.held.contains(id)) {
            self.broken.insert(format!("window: {id} is removed while it is closed, at {}", now.0));
        }
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
        let replaced = matches!(step.reason, Reason::SpecChanged { .. }) && runs(pod) && surges;
        let last = self.moved.get(&record.uid);
        if replaced && last.is_some_and(|last| now.since(*last) < Millis(2000)) {
            self.broken.insert(format!("drain: {} ends too soon after its port has moved, at {}", record.name, now.0));
        }
    }

    fn check_start(&mut self, goals: &Goals, observed: &Observed, pod: &PodFacts) {
        let Some(goal) = goals.workloads.get(&pod.record.workload) else { return };
        for dependency in &goal.workload.depends_on {
            let up = observed.pods.values().any(|other| other.record.workload == dependency.workload && runs(other));
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
        observed: &Observed,
        plan: &Plan,
    ) {
        let staying =
            |pod: &&Arc<PodFacts>| pod.record.workload == id && !observed.stopping.contains_key(&pod.record.uid);
        let stopped: BTreeSet<&PodUid> = plan
            .steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::StopPod { pod, .. } => Some(&pod.record.uid),
                _ => None,
            })
            .collect();
        let serving = observed.pods.values().filter(staying).filter(|pod| runs(pod)).count();
        let ending =
            observed.pods.values().filter(staying).filter(|p| runs(p) && stopped.contains(&p.record.uid)).count();
        let floor = wished.saturating_sub(strategy.max_unavailable as usize);
        if ending > 0 && serving - ending < floor {
            self.broken.insert(format!("bounds: {id} would serve with {} of {wished}", serving - ending));
        }
        let made = plan.steps.iter().filter(|step| match &step.action {
            Action::CreatePod { goal, .. } => goal.workload.id == id,
            _ => false,
        });
        let (made, there) = (made.count(), observed.pods.values().filter(staying).count());
        if made > 0 && there + made > wished + strategy.max_surge as usize {
            self.broken.insert(format!("surge: {id} would have {} pods", there + made));
        }
    }
}
