//! Equal pods in a number: how many there are, and how a new version takes over.
//!
//! Everything that can fail early is done before anything old is touched: images of the new version are made
//! available, its references, volumes and ports checked. With a surge the new pod is ready before an old one ends, and so
//! it is for an old one that may serve though its checks have not told so yet; without one the old one ends first. Old
//! pods that are known not to serve end at once.

use std::sync::Arc;

use super::order::{dependencies_up, follows, tend};
use super::{Action, ActionKey, Goal, Hold, Plan, Reason, View, known_images};
use super::{drain, pod, successor};
use crate::diff;
use crate::observed::{PodFacts, PortKey};
use crate::time::{Millis, Timestamp};
use crate::workload::{UpdateStrategy, WorkloadId, WorkloadKind};

/// A pod of the workload and what this pass makes of it.
struct Member<'a> {
    pod: &'a Arc<PodFacts>,
    /// It is as the manifest wishes.
    current: bool,
    /// Its end is ordered or under way.
    ending: bool,
    /// Ready for long enough.
    available: bool,
    /// Not (yet) proved to serve, but it may: nothing says that it cannot.
    may_serve: bool,
    /// It is, but for the content of its files.
    outdated: bool,
    /// Something it depends on was replaced, and it is to follow.
    follows: Option<WorkloadId>,
    /// Since when it can serve.
    serving_since: Option<Timestamp>,
}

pub(super) fn plan(view: &View<'_>, goal: &Goal, replicas: u32, strategy: &UpdateStrategy, plan: &mut Plan) {
    let id = &goal.workload.id;
    let members: Vec<Member<'_>> =
        view.pods_of(id).iter().copied().map(|pod| member(view, goal, strategy, pod, plan)).collect();
    let wished = replicas as usize;
    let current: Vec<&Member<'_>> = members.iter().filter(|m| m.current && !m.ending).collect();
    let old: Vec<&Member<'_>> = members.iter().filter(|m| !m.current && !m.ending).collect();
    let making =
        view.observed.in_flight.iter().filter(|key| matches!(key, ActionKey::Create(w, ..) if w == id)).count();

    let needed = wished.saturating_sub(current.len() + making);
    let changes = needed > 0 || !old.is_empty();
    if let Some(bad) = &goal.failed {
        plan.hold(id, Hold::UpdateFailed { cause: bad.cause.clone() });
    }
    let prepared = match &goal.failed {
        // Nothing more is done for a version that failed; what there is of it, and of the one before, stays.
        Some(_) => old.is_empty() && prepare(view, goal, plan),
        None if changes => prepare(view, goal, plan),
        None => true,
    };
    let up = prepared && dependencies_up(view, goal, plan) && !(changes && successor::waits(view, goal, plan));
    // Nothing old is touched while the new version cannot start.
    let changed = |member: &Member<'_>| match &member.follows {
        Some(on) => Reason::DependencyRestarted { on: on.clone() },
        None if member.outdated => Reason::FilesChanged,
        None => goal.replaced(|| diff::changes(&member.pod.record.spec, &goal.workload.template.spec)),
    };
    if wished == 0 {
        for member in &old {
            pod::stop(view, member.pod, Reason::ScaledDown, plan);
        }
    } else if up {
        retire(view, goal, &members, wished, strategy, changed, plan);
    }
    for member in surplus(&current, wished) {
        if !member.available || wished == 0 || drain::drained(view, &goal.workload, member.pod, plan) {
            pod::stop(view, member.pod, Reason::ScaledDown, plan);
        }
    }
    if needed > 0 && up {
        let room = room(&members, making, wished, strategy);
        create(view, goal, needed.min(room), plan);
        if room == 0 && old.iter().any(|m| m.available || m.may_serve) {
            plan.hold(id, Hold::NotReady);
        }
    }
    // Last, since a pod that is stopped in this pass needs no care any more.
    for member in &members {
        let files = member.current.then_some(goal.files.as_str());
        if !plan.stops(&member.pod.record.uid) {
            tend(view, goal, member.pod, files, plan);
        }
    }
}

fn member<'a>(
    view: &View<'_>,
    goal: &Goal,
    strategy: &UpdateStrategy,
    pod: &'a Arc<PodFacts>,
    plan: &mut Plan,
) -> Member<'a> {
    let uid = &pod.record.uid;
    let ready = pod::pod_ready_since(pod, view.observed);
    let available = ready.is_some_and(|since| {
        let due: Timestamp = since.plus(strategy.min_ready);
        if due > view.now {
            plan.wake_at(due);
        }
        due <= view.now
    });
    let follows = follows(view, goal, pod);
    let same = is_current(goal, pod);
    let outdated = same && super::config::is_outdated(view, &goal.workload, uid, &goal.files);
    Member {
        pod,
        current: follows.is_none() && same && !outdated,
        outdated,
        follows,
        serving_since: ready,
        ending: pod::clear_failed(view, pod, plan) || view.busy_stopping(uid),
        // What is known to be a failed version is not waited for.
        may_serve: !available && goal.back.is_none() && pod::may_serve(pod, view.observed),
        available,
    }
}

/// Whether a pod is as its manifest wishes. The specs are compared field by field; labels count where a new set of
/// pods is made for them (everything but a bare pod).
fn is_current(goal: &Goal, pod: &PodFacts) -> bool {
    let template = &goal.workload.template;
    let same = Arc::ptr_eq(&pod.record.spec, &template.spec) || pod.record.spec == template.spec;
    let labels = goal.workload.id.kind == WorkloadKind::Pod
        || (pod.record.labels == template.labels && pod.record.annotations == template.annotations);
    same && labels
}

/// Does what can fail before anything old is touched; whether it is done.
pub(super) fn prepare(view: &View<'_>, goal: &Goal, plan: &mut Plan) -> bool {
    let id = &goal.workload.id;
    // The images of a good version are known, and going back must work without any registry.
    if known_images(goal).is_some() || view.observed.prepared.contains_key(&(id.clone(), goal.revision.clone())) {
        return true;
    }
    let action = Action::Prepare { goal: goal.clone() };
    let key = action.key();
    if view.busy(&key) {
        plan.hold(id, Hold::Pulling);
    } else if !view.is_blocked(&key, id, plan) {
        plan.push(id, action, Reason::ImagesNeeded);
    }
    false
}

/// Ends old pods as far as the strategy lets it.
fn retire(
    view: &View<'_>,
    goal: &Goal,
    members: &[Member<'_>],
    wished: usize,
    strategy: &UpdateStrategy,
    changed: impl Fn(&Member<'_>) -> Reason,
    plan: &mut Plan,
) {
    let mut old: Vec<&Member<'_>> = members.iter().filter(|m| !m.current && !m.ending).collect();
    // Without a surge the place of an old pod is needed before the new one can serve.
    let hopeful = |m: &Member<'_>| m.may_serve && strategy.max_surge > 0;
    if strategy.recreate {
        for member in old {
            pod::stop(view, member.pod, changed(member), plan);
        }
        return;
    }
    // The next batch waits after the last one has begun to serve (Compose `update_config.delay`).
    if strategy.delay > Millis(0)
        && let Some(last) = members.iter().filter(|m| m.current).filter_map(|m| m.serving_since).max()
        && last.plus(strategy.delay) > view.now
    {
        plan.wake_at(last.plus(strategy.delay));
        old.retain(|m| !m.available && !hopeful(m));
    }
    // Pods that do not serve cost nothing to lose: they go first. Those that may serve come next, those that nobody is
    // sent to before the others.
    old.sort_by_key(|m| {
        let reached = view.is_reached(&m.pod.record.uid);
        (m.available, hopeful(m), hopeful(m) && reached, std::cmp::Reverse(m.pod.record.ordinal))
    });
    let available = members.iter().filter(|m| m.available && !m.ending).count();
    let hoped = old.iter().filter(|m| hopeful(m)).count();
    let floor = wished.saturating_sub(strategy.max_unavailable as usize);
    let mut spare = available.saturating_sub(floor);
    // Of old pods that may serve, as many may go as others serve in their place.
    let mut spare_hope = (available + hoped).saturating_sub(floor);
    // With a surge, broken old pods wait too until the new version has proved itself to be no worse.
    let total = members.iter().filter(|m| !m.ending).count();
    let mut over = (total + usize::from(strategy.max_surge == 0)).saturating_sub(wished);
    if strategy.max_surge == 0 {
        over = over.max(strategy.max_unavailable as usize);
    }
    for member in old {
        if over == 0 {
            return;
        }
        if member.available || hopeful(member) {
            let spare = if member.available { &mut spare } else { &mut spare_hope };
            if *spare == 0 {
                return;
            }
            *spare -= 1;
            // Where another one serves in its place, it goes on accepting for a while. While its ports lead to it still
            // they are moved first. It counts as chosen all the same: with another one chosen beside it, the two would
            // hand the ports to each other for ever.
            let drained = strategy.max_surge == 0 || drain::drained(view, &goal.workload, member.pod, plan);
            if !drained || view.still_published(&member.pod.record.uid) {
                over -= 1;
                continue;
            }
        }
        over -= 1;
        pod::stop(view, member.pod, changed(member), plan);
    }
}

/// Current pods above the wished number, those that do not serve and the highest ordinals first.
fn surplus<'a>(current: &[&'a Member<'a>], wished: usize) -> Vec<&'a Member<'a>> {
    let mut current = current.to_vec();
    current.sort_by_key(|m| (m.available, std::cmp::Reverse(m.pod.record.ordinal)));
    let count = current.len().saturating_sub(wished);
    current.into_iter().take(count).collect()
}

/// How many new pods the strategy has room for. Pods that are ending count where no surge is allowed: what they hold
/// (volumes, ports) is free only when they are gone.
fn room(members: &[Member<'_>], making: usize, wished: usize, strategy: &UpdateStrategy) -> usize {
    let ending = members.iter().filter(|m| m.ending).count();
    let live = members.len() - ending + making;
    if strategy.recreate && members.iter().any(|m| !m.current) {
        return 0;
    }
    if strategy.max_surge == 0 {
        return wished.saturating_sub(live + ending);
    }
    (wished + strategy.max_surge as usize).saturating_sub(live)
}

fn create(view: &View<'_>, goal: &Goal, count: usize, plan: &mut Plan) {
    let id = &goal.workload.id;
    let taken = |ordinal: u32| {
        view.pods_of(id).iter().any(|pod| pod.record.ordinal == ordinal && pod.record.revision == goal.revision)
            || view.busy(&ActionKey::Create(id.clone(), ordinal, goal.revision.clone()))
    };
    for ordinal in (0..).filter(|ordinal| !taken(*ordinal)).take(count) {
        super::create(view, goal, ordinal, plan);
    }
}

impl View<'_> {
    /// Whether the end of a pod is under way.
    fn busy_stopping(&self, uid: &crate::observed::PodUid) -> bool {
        self.observed.stopping.contains_key(uid)
    }

    /// Whether anybody is sent to this pod now.
    fn is_reached(&self, uid: &crate::observed::PodUid) -> bool {
        self.observed.published.values().any(|target| target.pod == *uid) || self.observed.services.leads_to(uid)
    }

    /// Whether a port of this pod is to lead to some pod and it is not known where it leads now: by the rules of an
    /// earlier agent to this one, for all that is known.
    pub(super) fn leads_somewhere(&self, pod: &PodFacts) -> bool {
        let ports = || pod.record.spec.all_containers().flat_map(|container| &container.ports);
        let unknown = |key: &&PortKey| !self.observed.published.contains_key(*key);
        self.ports
            .keys()
            .filter(unknown)
            .any(|key| ports().any(|port| port.protocol == key.protocol && port.host_port == Some(key.host_port)))
    }

    /// Whether a published port leads to this pod now and is to lead to another one.
    pub(super) fn still_published(&self, uid: &crate::observed::PodUid) -> bool {
        self.observed
            .published
            .iter()
            .any(|(key, target)| target.pod == *uid && self.ports.get(key).is_some_and(|next| next.pod != *uid))
    }
}
