//! Whether a new version stands its trial.
//!
//! A version is on trial from its first pod until its deadline (`progressDeadlineSeconds`, 600 s; Compose
//! `update_config.monitor`). It fails when a container keeps crashing or is killed for want of memory, when something
//! it needs can never be had, or when its pods are not all ready in time. It becomes the last good version at the end
//! of the trial, or when it is replaced while all its pods serve. What is no fault of a version never counts: a
//! registry that is down, a full disk, a dependency, a container that was lost with its shim or with the host.

use std::sync::Arc;

use super::versions::{Bad, Cause, Crashes, Memory, Trial, Version, on_failure};
use super::{ActionKey, Goal, Hold, Plan, View, instance, pod};
use crate::observed::{ContainerFacts, Exit, PodFacts};
use crate::pod::{ContainerSpec, ResolvedImages, RestartPolicy};
use crate::time::{Millis, Timestamp};
use crate::workload::{Controller, OnFailure};

/// So many ends of one container are too many.
const CRASHES: u32 = 3;
/// Ends within a shorter time than this may come from something that is still starting up.
const SETTLE: Millis = Millis::from_secs(10);
/// Failed versions that are remembered for each workload.
const REMEMBERED: usize = 32;

/// What a trial is measured by.
struct Rules {
    wished: usize,
    deadline: Millis,
    min_ready: Millis,
    /// Compose `monitor`: each new pod is watched for so long, and one end is one too many.
    monitor: Option<Millis>,
}

fn rules(goal: &Goal) -> Option<Rules> {
    let (wished, strategy) = match &goal.workload.controller {
        Controller::Single => (1, crate::workload::UpdateStrategy::default()),
        Controller::Replicated { replicas, strategy } => (*replicas as usize, strategy.clone()),
        Controller::Ordered { replicas, min_ready, .. } => {
            (*replicas as usize, crate::workload::UpdateStrategy { min_ready: *min_ready, ..Default::default() })
        }
        Controller::Job(_) | Controller::Cron(_) => return None,
    };
    let monitor = (strategy.monitor > Millis(0)).then_some(strategy.monitor);
    Some(Rules { wished, deadline: strategy.progress_deadline, min_ready: strategy.min_ready, monitor })
}

/// Looks at the version that a goal wishes; what is remembered of it anew goes into the plan.
pub(super) fn judge(view: &View<'_>, goal: &Goal, plan: &mut Plan) {
    let Some(rules) = rules(goal) else { return };
    let id = &goal.workload.id;
    let known = view.observed.versions.get(id);
    let mut memory = known.map_or_else(Memory::default, |known| Memory::clone(known));
    let mut changed = false;
    if let Some(trial) = memory.trial.take_if(|trial| trial.version.label != goal.version || goal.back.is_some()) {
        changed = true;
        if trial.proven && !memory.bad.contains_key(&trial.version.label) {
            memory.good = Some(trial.version);
        }
    }
    let settled = goal.back.is_some()
        || memory.good.as_ref().is_some_and(|good| good.label == goal.version)
        || memory.bad.contains_key(&goal.version);
    let current: Vec<&Arc<PodFacts>> = view.pods_of(id).iter().copied().filter(|pod| is_of(view, goal, pod)).collect();
    let begun = !current.is_empty()
        || view
            .observed
            .failures
            .keys()
            .any(|key| matches!(key, ActionKey::Create(of, _, revision) if of == id && *revision == goal.revision));
    if settled || !begun || rules.wished == 0 {
        if changed {
            plan.versions.push((id.clone(), Arc::new(memory)));
        }
        return;
    }
    let mut trial = memory.trial.take().unwrap_or_else(|| {
        changed = true;
        start(view, Version::of(goal, &view.goals.desired, ResolvedImages::new()))
    });
    if trial.version.images.is_empty()
        && let Some(pod) = current.first()
    {
        // Not at its begin: that may have been an attempt to make a pod that failed.
        trial.version.images = pod.record.images.clone();
        changed = true;
    }
    changed |= follow(view, goal, &rules, &current, &mut trial, plan);
    match verdict(view, goal, &rules, &current, &trial, plan) {
        Verdict::Open => memory.trial = Some(trial),
        Verdict::Good => {
            changed = true;
            memory.good = Some(trial.version);
        }
        Verdict::Failed(cause) if on_failure(&goal.workload) == OnFailure::Continue || memory.good.is_none() => {
            // There is nothing to go back to, or nobody wants to: it is said, and tried on.
            plan.hold(id, Hold::UpdateFailed { cause });
            memory.trial = Some(trial);
        }
        Verdict::Failed(cause) => {
            changed = true;
            if memory.bad.len() >= REMEMBERED {
                memory.bad.pop_first();
            }
            memory.bad.insert(trial.version.label, Bad { revision: goal.revision.clone(), cause });
        }
    }
    if changed {
        plan.versions.push((id.clone(), Arc::new(memory)));
    }
}

/// Whether a pod is one of the goal's version and is to stay.
fn is_of(view: &View<'_>, goal: &Goal, pod: &PodFacts) -> bool {
    let record = &pod.record;
    !view.observed.stopping.contains_key(&record.uid)
        && (Arc::ptr_eq(&record.spec, &goal.workload.template.spec)
            || *record.spec == *instance::spec(goal, record.ordinal))
}

fn start(view: &View<'_>, version: Version) -> Trial {
    Trial {
        version,
        boot_id: view.observed.boot_id.clone(),
        since: view.now,
        progress: view.now,
        best: 0,
        proven: false,
        crashes: std::collections::BTreeMap::new(),
    }
}

/// Brings a trial up to date with what is there; whether that is worth remembering.
fn follow(
    view: &View<'_>,
    goal: &Goal,
    rules: &Rules,
    current: &[&Arc<PodFacts>],
    trial: &mut Trial,
    plan: &mut Plan,
) -> bool {
    let mut changed = false;
    if trial.boot_id != view.observed.boot_id {
        // The times are on another clock. What was proved stays so.
        *trial = Trial { proven: trial.proven, ..start(view, trial.version.clone()) };
        changed = true;
    }
    for pod in current {
        changed |= count_crashes(view, pod, trial);
    }
    let serving = u32::try_from(available(view, rules, current).count()).unwrap_or(u32::MAX);
    if serving > trial.best {
        trial.best = serving;
        trial.progress = view.now;
        changed = true;
    }
    if view.now.since(trial.progress) >= SETTLE && hindered(view, goal, current, plan) {
        trial.progress = view.now;
        changed = true;
    }
    let last_crash = trial.crashes.values().flat_map(|pod| pod.values()).map(|crashes| crashes.last).max();
    let serving_since = available(view, rules, current).max();
    let settled = [last_crash, serving_since].into_iter().flatten().max().unwrap_or(trial.since).plus(settle(rules));
    let proven = serving as usize >= rules.wished && settled <= view.now;
    if serving as usize >= rules.wished && !proven {
        plan.wake_at(settled);
    }
    changed |= proven != trial.proven;
    trial.proven = proven;
    changed
}

fn settle(rules: &Rules) -> Millis {
    rules.monitor.map_or(SETTLE, |monitor| monitor.min(SETTLE))
}

/// Since when each pod that serves for long enough does.
fn available<'a>(
    view: &'a View<'_>,
    rules: &'a Rules,
    current: &'a [&Arc<PodFacts>],
) -> impl Iterator<Item = Timestamp> + 'a {
    current
        .iter()
        .filter_map(|pod| pod::pod_ready_since(pod, view.observed))
        .filter(|since| since.plus(rules.min_ready) <= view.now)
}

fn count_crashes(view: &View<'_>, pod: &PodFacts, trial: &mut Trial) -> bool {
    let mut changed = false;
    for container in pod.record.spec.all_containers() {
        let Some(facts) = pod.containers.get(&container.name) else { continue };
        let Some(exit) = crash(view, pod, container, facts).filter(|exit| exit.finished >= trial.since) else {
            continue;
        };
        let of_pod = trial.crashes.entry(pod.record.uid.clone()).or_default();
        match of_pod.get_mut(&container.name) {
            Some(known) if known.attempt >= facts.attempt => continue,
            Some(known) => {
                known.count = known.count.saturating_add(1);
                known.attempt = facts.attempt;
                known.last = exit.finished;
                known.code = exit.code;
            }
            None => {
                let (first, last) = (exit.finished, exit.finished);
                let crashes = Crashes { count: 1, attempt: facts.attempt, first, last, code: exit.code };
                of_pod.insert(container.name.clone(), crashes);
            }
        }
        changed = true;
    }
    changed
}

/// The exit of a container that should not have ended, where that was its own doing.
fn crash<'a>(
    view: &View<'_>,
    pod: &PodFacts,
    container: &ContainerSpec,
    facts: &'a ContainerFacts,
) -> Option<&'a Exit> {
    let exit = facts.exit()?;
    // One that ran and ended without a code was lost with its shim or with the host.
    let lost = exit.error.is_some() && exit.started.is_some();
    if lost || exit.stopped || exit.boot_id != view.observed.boot_id {
        return None;
    }
    let init = pod.record.spec.init_containers.iter().any(|c| c.name == container.name) && !container.is_sidecar();
    let policy = container.restart_policy.unwrap_or_else(|| pod.record.spec.restart_policy());
    (facts.unhealthy || exit.code != 0 || (!init && policy == RestartPolicy::Always)).then_some(exit)
}

/// Whether something that is no fault of the version keeps its pods from getting ready.
fn hindered(view: &View<'_>, goal: &Goal, current: &[&Arc<PodFacts>], plan: &Plan) -> bool {
    let id = &goal.workload.id;
    let waits = plan.holds.iter().any(|(of, hold)| of == id && matches!(hold, Hold::Pulling | Hold::Dependency { .. }));
    let of_workload = |key: &ActionKey| match key {
        ActionKey::Prepare(of, _) | ActionKey::Create(of, ..) => of == id,
        ActionKey::Pod(uid) | ActionKey::Container(uid, _) | ActionKey::Files(uid) => {
            current.iter().any(|pod| pod.record.uid == *uid)
        }
        ActionKey::Publish => true,
        ActionKey::Services | ActionKey::Names | ActionKey::Memory(_) => false,
    };
    waits || view.observed.failures.iter().any(|(key, failure)| !failure.permanent && of_workload(key))
}

enum Verdict {
    /// Too early to tell.
    Open,
    Good,
    Failed(Cause),
}

fn verdict(
    view: &View<'_>,
    goal: &Goal,
    rules: &Rules,
    current: &[&Arc<PodFacts>],
    trial: &Trial,
    plan: &mut Plan,
) -> Verdict {
    if let Some(cause) = crashed(view, rules, current, trial, plan).or_else(|| impossible(view, goal, current)) {
        return Verdict::Failed(cause);
    }
    if trial.proven {
        let end = match rules.monitor {
            Some(monitor) => available(view, rules, current).max().unwrap_or(view.now).plus(monitor),
            None => trial.since.plus(rules.deadline),
        };
        if end <= view.now {
            return Verdict::Good;
        }
        plan.wake_at(end);
    } else if available(view, rules, current).count() < rules.wished {
        let due = trial.progress.plus(rules.deadline);
        if due <= view.now {
            return Verdict::Failed(Cause::NotReady { deadline: rules.deadline });
        }
        plan.wake_at(due);
    }
    Verdict::Open
}

fn crashed(
    view: &View<'_>,
    rules: &Rules,
    current: &[&Arc<PodFacts>],
    trial: &Trial,
    plan: &mut Plan,
) -> Option<Cause> {
    for pod in current {
        let Some(of_pod) = trial.crashes.get(&pod.record.uid) else { continue };
        for (container, crashes) in of_pod {
            let facts = pod.containers.get(container);
            let exit = facts.and_then(ContainerFacts::exit);
            if exit.is_some_and(|exit| exit.oom && facts.is_some_and(|facts| facts.attempt == crashes.attempt)) {
                return Some(Cause::OutOfMemory { container: container.clone() });
            }
            let due = crashes.first.plus(settle(rules));
            let too_many = match rules.monitor {
                Some(_) => true,
                None => crashes.count >= CRASHES && due <= view.now,
            };
            // A container that stays ended gets no further chance to prove itself.
            let over = pod::pod_phase(pod, view.observed) == pod::PodPhase::Failed;
            if too_many || over {
                return Some(Cause::Crashed {
                    container: container.clone(),
                    times: crashes.count,
                    code: crashes.code,
                    error: exit.and_then(|exit| exit.error.clone()),
                });
            }
            if crashes.count >= CRASHES {
                plan.wake_at(due);
            }
        }
    }
    None
}

/// Something that trying again does not mend, and has been tried again already.
fn impossible(view: &View<'_>, goal: &Goal, current: &[&Arc<PodFacts>]) -> Option<Cause> {
    let of_version = |key: &ActionKey| match key {
        ActionKey::Create(of, _, revision) => *of == goal.workload.id && *revision == goal.revision,
        ActionKey::Pod(uid) | ActionKey::Container(uid, _) => current.iter().any(|pod| pod.record.uid == *uid),
        ActionKey::Prepare(..)
        | ActionKey::Files(_)
        | ActionKey::Publish
        | ActionKey::Services
        | ActionKey::Names
        | ActionKey::Memory(_) => false,
    };
    let failures = view.observed.failures.iter();
    let mut lasting = failures.filter(|(key, failure)| failure.permanent && failure.count >= 2 && of_version(key));
    lasting.next().map(|(_, failure)| Cause::CannotStart { message: failure.message.clone() })
}
