//! Turns what the loop knows into the [`Snapshot`] that everybody else reads, and steps into sentences.

use std::collections::{BTreeMap, BTreeSet};

use spec::budget::HeldRemoval;
use spec::hold::Pause;
use spec::observed::{ContainerFacts, ContainerState, Exit, PodFacts, PodUid};
use spec::plan::{
    Action, ActionKey, Goal, Goals, Hold, Observed, Plan, PodPhase, Reason, Step, pod_phase, pod_ready_since,
};
use spec::pod::ContainerSpec;
use spec::services::{Entrance, address_key};
use spec::time::Timestamp;
use spec::workload::{Controller, Desired, Exposure, Service, WorkloadId};

use crate::orders::Standing;
use crate::reconciler::Reading;
use crate::status::{
    ContainerStatus, CronStatus, HeldStatus, PausedStatus, PodStatus, RemovalStatus, ServiceStatus, Snapshot,
    StepStatus, WaitStatus, WorkloadStatus,
};

/// What a snapshot is made from.
pub struct Facts<'a> {
    /// The desired state.
    pub desired: &'a Desired,
    /// Goals of the last pass.
    pub goals: &'a Goals,
    /// What was observed.
    pub observed: &'a Observed,
    /// The sources.
    pub reading: &'a Reading,
    /// A held removal.
    pub removal: Option<&'a HeldRemoval>,
    /// What people ordered.
    pub orders: &'a Standing,
    /// The generation that the node stays at.
    pub pinned: Option<u64>,
    /// The newest generation.
    pub generation: Option<u64>,
    /// The last plan.
    pub plan: &'a Plan,
    /// Passes so far.
    pub passes: u64,
    /// The moment.
    pub now: Timestamp,
}

/// The snapshot of a pass.
#[must_use]
pub fn build(facts: &Facts<'_>) -> Snapshot {
    let mut pods: BTreeMap<&WorkloadId, Vec<&PodFacts>> = BTreeMap::new();
    for pod in facts.observed.pods.values() {
        pods.entry(&pod.record.workload).or_default().push(pod);
    }
    let mut workloads: Vec<WorkloadStatus> =
        facts.goals.workloads.keys().map(|id| workload(facts, id, pods.get(id).map_or(&[], Vec::as_slice))).collect();
    // What is wished no longer and still there.
    for (id, members) in pods.iter().filter(|(id, _)| !facts.goals.workloads.contains_key(**id)) {
        workloads.push(workload(facts, id, members));
    }
    let name = |target: &spec::observed::PortTarget| {
        let pod = facts.observed.pods.get(&target.pod).map_or(target.pod.0.as_str(), |pod| pod.record.name.as_str());
        format!("{pod}:{}", target.container_port)
    };
    Snapshot {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        passes: facts.passes,
        reading: facts.reading.number,
        converged: facts.plan.steps.is_empty() && facts.observed.in_flight.is_empty() && facts.plan.holds.is_empty(),
        sources: facts.reading.sources.clone(),
        workloads,
        ports: facts.observed.published.iter().map(|(key, target)| (key.to_string(), name(target))).collect(),
        services: facts.goals.services.values().map(|known| service(facts, known)).collect(),
        plan: facts.plan.steps.iter().map(step).collect(),
        removal: facts.removal.map(|removal| RemovalStatus {
            id: removal.id.clone(),
            message: removal.reason.clone(),
            workloads: removal.workloads.iter().map(ToString::to_string).collect(),
        }),
        paused: paused(facts),
        generation: facts.generation,
        rolled_back_to: facts.pinned,
        drained: facts.orders.drained,
        // Known at the moment of an answer only: see `pulls`.
        pulls: Vec::new(),
    }
}

/// Standing pauses, and changes that something else holds back.
fn paused(facts: &Facts<'_>) -> Vec<PausedStatus> {
    let pending = |name: &str| name == "*" && !facts.goals.paused.is_empty();
    let ordered = facts.orders.paused.keys().map(|name| PausedStatus {
        workload: name.clone(),
        message: Pause::Ordered.to_string(),
        pending: pending(name) || facts.goals.paused.keys().any(|id| id.to_string() == *name),
    });
    let others = facts.goals.paused.iter().filter(|(_, pause)| **pause != Pause::Ordered);
    let others =
        others.map(|(id, pause)| PausedStatus { workload: id.to_string(), message: pause.to_string(), pending: true });
    ordered.chain(others).collect()
}

fn service(facts: &Facts<'_>, service: &Service) -> ServiceStatus {
    let (namespace, name) = (&service.namespace, &service.name);
    let leases = &facts.plan.services.set.leases;
    let address = leases.addresses.get(&address_key(namespace, name)).copied();
    let kind = match (&service.external_name, service.headless, service.exposure) {
        (Some(_), ..) => "ExternalName",
        (None, true, _) => "Headless",
        (None, false, Exposure::Cluster) => "ClusterIP",
        (None, false, Exposure::NodePort) => "NodePort",
        (None, false, Exposure::LoadBalancer) => "LoadBalancer",
    };
    let open = |entrance: &&Entrance| facts.observed.services.entrances.contains_key(entrance);
    let wished: BTreeSet<Entrance> = spec::plan::host_entrances(service, leases).collect();
    let pods: BTreeSet<PodUid> = if service.headless {
        spec::plan::service_pods(facts.goals, facts.observed, service).map(|pod| pod.record.uid.clone()).collect()
    } else {
        let at =
            facts.observed.services.entrances.iter().filter(|(at, _)| at.address.is_some() && at.address == address);
        at.flat_map(|(_, balance)| &balance.backends).map(|backend| backend.pod.clone()).collect()
    };
    let pod_name = |uid: &PodUid| facts.observed.pods.get(uid).map(|pod| pod.record.name.clone());
    let mut problems = facts.plan.services.faults.get(&(namespace.clone(), name.clone())).cloned().unwrap_or_default();
    if let Some(failure) = facts.observed.failures.get(&ActionKey::Services)
        && wished.iter().any(|entrance| !open(&entrance))
    {
        problems.push(failure.message.clone());
    }
    ServiceStatus {
        namespace: namespace.clone(),
        name: name.clone(),
        kind: kind.to_owned(),
        address: address.map(|address| address.to_string()),
        external_name: service.external_name.clone(),
        ports: service.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect(),
        host_ports: wished.iter().filter(open).map(ToString::to_string).collect(),
        pods: pods.iter().filter_map(pod_name).collect(),
        problems,
    }
}

fn workload(facts: &Facts<'_>, id: &WorkloadId, pods: &[&PodFacts]) -> WorkloadStatus {
    let goal = facts.goals.workloads.get(id);
    let desired = match goal.map(|goal| &goal.workload.controller) {
        None => 0,
        Some(Controller::Single) => 1,
        // As many as the runs that go on need.
        Some(Controller::Cron(_)) => u32::try_from(pods.iter().filter(|pod| goes_on(facts, pod)).count()).unwrap_or(0),
        Some(Controller::Replicated { replicas, .. } | Controller::Ordered { replicas, .. }) => *replicas,
        Some(Controller::Job(job)) => job.completions.unwrap_or(1),
    };
    let statuses: Vec<PodStatus> = pods.iter().map(|pod| pod_status(facts, pod)).collect();
    let ready = statuses.iter().filter(|pod| pod.ready).count();
    let updated = goal.map_or(0, |goal| statuses.iter().filter(|pod| pod.revision == goal.revision).count());
    let held = match facts.removal {
        Some(removal) if removal.workloads.contains(id) => Some(HeldStatus {
            reason: "removal_budget".to_owned(),
            message: format!("{}; release it with `mainstay approve {}`", removal.reason, removal.id),
        }),
        _ => facts.reading.held.get(id).cloned().or_else(|| rolled_back(goal?)),
    };
    let waiting = facts
        .plan
        .holds
        .iter()
        .filter(|(of, _)| of == id)
        .map(|(_, hold)| {
            let pulling = goal.filter(|_| matches!(hold, Hold::Pulling));
            let images = pulling.map(|goal| crate::pulls::images(&goal.workload.template.spec));
            let images = images.into_iter().flatten().map(ToString::to_string).collect();
            WaitStatus { reason: hold.word().to_owned(), message: hold.to_string(), images }
        })
        .collect();
    let source = goal
        .map(|goal| goal.workload.source.file.clone())
        .or_else(|| pods.first().map(|pod| pod.record.source.file.clone()))
        .unwrap_or_default();
    let wished = goal.is_some() || held.is_some();
    let cron = goal.and_then(|goal| cron_status(facts, goal, pods));
    let ended = goal.and_then(|goal| job_phase(facts, goal));
    let phase = match (&cron, ended) {
        (Some(cron), _) => cron_phase(cron),
        (None, Some(phase)) => phase,
        (None, None) => phase(wished, desired, &statuses),
    };
    WorkloadStatus {
        kind: id.kind.to_string(),
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        phase: phase.to_owned(),
        desired,
        ready: u32::try_from(ready).unwrap_or(u32::MAX),
        updated: u32::try_from(updated).unwrap_or(u32::MAX),
        source,
        held,
        waiting,
        cron,
        pods: statuses,
    }
}

fn goes_on(facts: &Facts<'_>, pod: &PodFacts) -> bool {
    !pod_phase(pod, facts.observed).is_over()
}

fn cron_status(facts: &Facts<'_>, goal: &Goal, pods: &[&PodFacts]) -> Option<CronStatus> {
    let Controller::Cron(cron) = &goal.workload.controller else { return None };
    let observed = facts.observed;
    let memory = observed.memories.get(&goal.workload.id);
    let active: BTreeSet<i64> =
        pods.iter().filter(|pod| goes_on(facts, pod)).filter_map(|pod| pod.record.run).collect();
    Some(CronStatus {
        schedule: cron.schedule.clone(),
        time_zone: cron.time_zone.clone().unwrap_or_else(|| observed.zone.clone()),
        suspended: cron.suspend,
        active: u32::try_from(active.len()).unwrap_or(u32::MAX),
        next_run: spec::plan::next_run(cron, memory, &observed.zone, observed.unix),
        last_run: memory.and_then(|memory| memory.last_run),
        last_succeeded: memory.and_then(|memory| memory.last_end.as_ref()).map(|end| end.succeeded),
        last_success: memory.and_then(|memory| memory.last_success),
    })
}

/// A CronJob is as its newest run; between two good runs it waits for its time.
const fn cron_phase(cron: &CronStatus) -> &'static str {
    match cron {
        CronStatus { active: 1.., .. } => "Running",
        CronStatus { last_succeeded: Some(false), .. } => "Failed",
        _ => "Scheduled",
    }
}

/// The phase of a Job that has ended: its pods may be gone.
fn job_phase(facts: &Facts<'_>, goal: &Goal) -> Option<&'static str> {
    let Controller::Job(_) = &goal.workload.controller else { return None };
    let finished = facts.observed.memories.get(&goal.workload.id)?.finished.as_ref()?;
    let same = finished.spec == goal.workload.template.spec;
    same.then_some(if finished.failure.is_none() { "Succeeded" } else { "Failed" })
}

/// Why the last good version runs instead of the wished one, where that is so.
fn rolled_back(goal: &Goal) -> Option<HeldStatus> {
    let back = goal.back.as_ref()?;
    let (bad, id) = (&back.bad, &goal.workload.id);
    let [failed, good] = bad.names(&goal.revision);
    let failed = format!("version {failed} failed: {}", bad.cause);
    let message = format!("{failed}; version {good} runs until the manifest changes or `mainstay retry {id}`");
    Some(HeldStatus { reason: "rolled_back".to_owned(), message })
}

/// A workload's phase from its pods': the least advanced counts.
fn phase(wished: bool, desired: u32, pods: &[PodStatus]) -> &'static str {
    if !wished {
        return "Stopping";
    }
    let any = |phase: &str| pods.iter().any(|pod| pod.phase == phase);
    if any("Failed") {
        "Failed"
    } else if pods.len() < desired as usize || any("Pending") {
        "Pending"
    } else if !pods.is_empty() && pods.iter().all(|pod| pod.phase == "Succeeded") {
        "Succeeded"
    } else {
        "Running"
    }
}

fn pod_status(facts: &Facts<'_>, pod: &PodFacts) -> PodStatus {
    let record = &pod.record;
    let phase = if facts.observed.stopping.contains_key(&record.uid) {
        "Stopping"
    } else {
        match pod_phase(pod, facts.observed) {
            PodPhase::Pending => "Pending",
            PodPhase::Running => "Running",
            PodPhase::Succeeded => "Succeeded",
            PodPhase::Failed => "Failed",
        }
    };
    let one = |container: &ContainerSpec, init: bool| container_status(facts, pod, container, init);
    PodStatus {
        uid: record.uid.0.clone(),
        name: record.name.clone(),
        phase: phase.to_owned(),
        ready: pod_ready_since(pod, facts.observed).is_some(),
        reason: pod.failed.as_ref().map(|failure| failure.reason.to_string()),
        message: pod.failed.as_ref().map(|failure| failure.message.clone()),
        ip: pod.addresses.v4.map(|ip| ip.to_string()),
        revision: record.revision.clone(),
        created: record.created_unix,
        containers: (record.spec.init_containers.iter().map(|c| one(c, true)))
            .chain(record.spec.containers.iter().map(|c| one(c, false)))
            .collect(),
    }
}

fn container_status(facts: &Facts<'_>, pod: &PodFacts, container: &ContainerSpec, init: bool) -> ContainerStatus {
    let known = pod.containers.get(&container.name);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.as_ref().map(ToString::to_string).unwrap_or_default(),
        digest: pod.record.images.get(&container.name).map(ToString::to_string),
        state: "waiting".to_owned(),
        init,
        restarts: known.map_or(0, |facts: &ContainerFacts| facts.attempt),
        ..ContainerStatus::default()
    };
    match known.map(|facts| &facts.state) {
        None => {}
        Some(ContainerState::Running { pid, started }) => {
            "running".clone_into(&mut status.state);
            status.pid = Some(*pid);
            status.running_seconds = Some(facts.now.since(*started).0 / 1000);
            status.ready = match facts.observed.health.get(&(pod.record.uid.clone(), container.name.clone())) {
                Some(health) => health.started && health.ready,
                None => !spec::health::is_checked(pod, container),
            };
        }
        Some(ContainerState::Exited(exit)) => {
            "exited".clone_into(&mut status.state);
            status.exit_code = Some(exit.code);
            status.reason = Some(exit_reason(exit).to_owned());
            status.message = exit.error.clone().or_else(|| exit.message.clone());
        }
    }
    status
}

/// Kubernetes' word for how a container ended.
fn exit_reason(exit: &Exit) -> &'static str {
    if exit.oom {
        "OOMKilled"
    } else if exit.error.is_some() {
        "CannotStart"
    } else if exit.stopped {
        "Stopped"
    } else if exit.code == 0 {
        "Completed"
    } else {
        "Error"
    }
}

fn step(step: &Step) -> StepStatus {
    StepStatus {
        action: step.action.word().to_owned(),
        workload: step.workload.as_ref().map(ToString::to_string),
        reason: step.reason.word().to_owned(),
        changes: match &step.reason {
            Reason::SpecChanged { changes } => changes.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        },
    }
}

/// Where a published port is reached from the host itself.
#[must_use]
pub fn address(key: &spec::observed::PortKey) -> String {
    let ip = key.host_ip.filter(|ip| !ip.is_unspecified()).unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    let address = std::net::SocketAddr::new(ip, key.host_port);
    match key.protocol {
        spec::pod::Protocol::Tcp => format!("http://{address}/"),
        other => format!("{other}://{address}"),
    }
}

fn moment(unix: i64) -> String {
    spec::cron::Zone::utc().show(unix)
}

/// A step for people: what and why.
#[must_use]
pub fn sentence(step: &Step) -> String {
    let what = match &step.action {
        Action::Prepare { goal } => {
            let images = crate::pulls::images(&goal.workload.template.spec);
            let images: Vec<String> = images.iter().map(ToString::to_string).collect();
            format!("pull {}", images.join(", "))
        }
        Action::CreatePod { name, .. } => format!("create pod {name}"),
        Action::RestorePod { pod } => format!("restore pod {}", pod.record.name),
        Action::StartContainer { pod, container, attempt: 0, .. } => {
            format!("start container {container} of pod {}", pod.record.name)
        }
        Action::StartContainer { pod, container, attempt, .. } => {
            format!("start container {container} of pod {} again (restart {attempt})", pod.record.name)
        }
        Action::StopContainer { pod, container, .. } => {
            format!("stop container {container} of pod {}", pod.record.name)
        }
        Action::StopPod { pod, .. } => format!("stop pod {}", pod.record.name),
        Action::FailPod { pod, .. } => format!("end pod {} for good", pod.record.name),
        Action::Publish { ports } => {
            let ports: Vec<String> = ports.keys().map(ToString::to_string).collect();
            if ports.is_empty() { "publish no ports".to_owned() } else { format!("publish {}", ports.join(", ")) }
        }
        Action::PublishServices { services } => {
            let pods: std::collections::BTreeSet<_> =
                services.entrances.values().flat_map(|balance| &balance.backends).map(|backend| &backend.pod).collect();
            format!("open {} ports of Services to {} pods", services.entrances.len(), pods.len())
        }
        Action::SetNames { names } => {
            let count =
                names.cluster.len() + names.networks.values().map(std::collections::BTreeMap::len).sum::<usize>();
            format!("tell pods {count} names")
        }
        Action::UpdateFiles { pod, .. } => format!("update files of pod {}", pod.record.name),
        Action::Remember { workload, memory: Some(_) } => format!("write down about {workload}"),
        Action::Remember { workload, memory: None } => format!("forget {workload}"),
    };
    let why = match &step.reason {
        Reason::SpecChanged { changes } => {
            let shown: Vec<String> = changes.iter().take(3).map(ToString::to_string).collect();
            let more = if changes.len() > 3 { format!(" and {} more", changes.len() - 3) } else { String::new() };
            format!("changed {}{more}", shown.join("; "))
        }
        Reason::Exited { oom: true, .. } => "it was killed for want of memory".to_owned(),
        Reason::Evicted { message } => message.clone(),
        Reason::Exited { code, .. } => format!("it ended with code {code}"),
        Reason::DependencyRestarted { on } => format!("{on} was restarted"),
        Reason::Scheduled { at } => format!("scheduled for {}", moment(*at)),
        Reason::RunStarted { at } => format!("the run of {} was started", moment(*at)),
        Reason::RunMissed { at } => {
            format!("the run of {} could not start within startingDeadlineSeconds, it is left out", moment(*at))
        }
        Reason::RunEnded { at, succeeded: true } => format!("the run of {} succeeded", moment(*at)),
        Reason::RunEnded { at, succeeded: false } => format!("the run of {} failed", moment(*at)),
        Reason::JobEnded { failure: None } => "the Job succeeded".to_owned(),
        Reason::JobEnded { failure: Some(failure) } => format!("the Job failed: {failure}"),
        Reason::RolledBack { cause } => format!("the new version failed: {cause}"),
        other => other.word().replace('_', " "),
    };
    format!("{what}: {why}")
}
