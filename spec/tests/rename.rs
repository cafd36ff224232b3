//! Renaming and changing the kind: a removal and an addition in one revision that use the same things.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use spec::observed::{Addresses, ContainerFacts, ContainerState, PodFacts, PodRecord, PodUid};
use spec::plan::{Action, ActionKey, Failure, Goals, Observed, Reason, plan};
use spec::pod::{ContainerSpec, PodSpec, Port, Volume, VolumeMount, VolumeSource};
use spec::time::Timestamp;
use spec::workload::{Controller, Desired, PodTemplate, SourceRef, UpdateStrategy, Workload, WorkloadId, WorkloadKind};

const NOW: Timestamp = Timestamp(10_000_000);

fn id(name: &str) -> WorkloadId {
    WorkloadId { kind: WorkloadKind::Deployment, namespace: "default".into(), name: name.into() }
}

/// What a pod uses: `data`, `port` and `host` (the host's network).
fn pod_spec(uses: &str) -> PodSpec {
    let has = |word| uses.split(' ').any(|used| used == word);
    let mut container = ContainerSpec { name: "main".into(), ..ContainerSpec::default() };
    let mut spec = PodSpec { host_network: has("host"), ..PodSpec::default() };
    if has("data") {
        spec.volumes = vec![Volume { name: "d".into(), source: VolumeSource::Named { name: "d".into() } }];
        container.mounts = vec![VolumeMount { volume: "d".into(), path: "/d".into(), ..VolumeMount::default() }];
    }
    if has("port") || has("host") {
        let host_port = has("port").then_some(80);
        container.ports = vec![Port { container_port: 80, host_port, ..Port::default() }];
    }
    spec.containers = vec![container];
    spec
}

/// A node where `old` runs and `new` is wished, each with what it uses.
struct Node {
    desired: Arc<Desired>,
    observed: Observed,
    held: bool,
    unwished: BTreeSet<WorkloadId>,
}

impl Node {
    fn new(old: &str, new: &str) -> Self {
        let mut observed = Observed { boot_id: "boot".into(), ..Observed::default() };
        let state = ContainerState::Running { pid: 1, started: Timestamp(1000) };
        let record = PodRecord {
            uid: PodUid("0".into()),
            workload: id("old"),
            ordinal: 0,
            revision: "r".into(),
            name: "old-0".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            depends_on: Vec::new(),
            source: SourceRef::default(),
            spec: Arc::new(pod_spec(old)),
            images: BTreeMap::new(),
            created_unix: 0,
            created: Timestamp(0),
            boot_id: "boot".into(),
            run: None,
            bound: BTreeMap::new(),
        };
        let pod = PodFacts {
            record: Arc::new(record),
            sandbox: true,
            addresses: Addresses { v4: Some(Ipv4Addr::new(10, 88, 0, 10)), v6: None },
            containers: BTreeMap::from([("main".to_owned(), ContainerFacts::new(0, 0, state))]),
            failed: None,
        };
        observed.pods.insert(pod.record.uid.clone(), Arc::new(pod));
        let workload = Workload {
            id: id("new"),
            source: SourceRef::default(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            controller: Controller::Replicated { replicas: 1, strategy: UpdateStrategy::default() },
            template: PodTemplate { spec: Arc::new(pod_spec(new)), ..PodTemplate::default() },
            depends_on: Vec::new(),
        };
        let mut desired = Desired::default();
        desired.workloads.insert(workload.id.clone(), Arc::new(workload));
        Self { desired: Arc::new(desired), observed, held: false, unwished: BTreeSet::new() }
    }

    fn prepared(mut self) -> Self {
        let revisions = self.desired.workloads.values().map(|workload| spec::plan::revision(workload));
        self.observed.prepared.extend(revisions.map(|revision| ((id("new"), revision), BTreeMap::new())));
        self
    }

    /// What is done, then what is waited for.
    fn outcome(&self) -> String {
        let mut goals = Goals::new(&self.desired);
        goals.unwished = self.unwished.clone();
        goals.held = if self.held { BTreeSet::from([id("old")]) } else { BTreeSet::new() };
        let plan = plan(&goals, &self.observed, NOW);
        let steps = plan.steps.iter().filter_map(|step| match &step.action {
            Action::StopPod { pod, .. } => Some(format!("stop {}", pod.record.name)),
            Action::CreatePod { name, .. } => Some(format!("create {}", name.split('-').next().unwrap_or_default())),
            Action::SetNames { .. } | Action::Publish { .. } => None,
            other => Some(other.word().to_owned()),
        });
        let holds = plan.holds.iter().map(|(id, hold)| format!("{}: {}", id.name, hold.word()));
        steps.chain(holds).collect::<Vec<_>>().join(", ")
    }
}

#[test]
fn what_is_removed_stays_until_its_successor_can_be_made() {
    for (old, new, before, after) in [
        // The same data: one after the other.
        ("data", "data", "pull, old: successor", "stop old-0, new: dependency"),
        ("data port", "data", "pull, old: successor", "stop old-0, new: dependency"),
        // The same published port moves from one to the other.
        ("port", "port", "pull, old: successor", "stop old-0, create new"),
        ("port", "data", "stop old-0, pull", "stop old-0, create new"),
        ("", "", "stop old-0, pull", "stop old-0, create new"),
        // The same port on the host's own network: whether it is free shows when the old one has ended.
        ("host", "host", "stop old-0, pull", "stop old-0, new: dependency"),
        ("host data", "data", "stop old-0, pull", "stop old-0, new: dependency"),
    ] {
        let node = Node::new(old, new);
        assert_eq!(node.outcome(), before, "{old} -> {new}");
        assert_eq!(node.prepared().outcome(), after, "{old} -> {new}");
    }
}

#[test]
fn nothing_is_made_beside_what_writes_the_same_data() {
    let mut node = Node::new("data", "data").prepared();
    let uid = PodUid("0".into());
    // While it ends, after its end has failed, and when it is gone.
    node.observed.stopping.insert(uid.clone(), Reason::Removed);
    node.observed.in_flight.insert(ActionKey::Pod(uid.clone()));
    assert_eq!(node.outcome(), "new: dependency");
    node.observed.in_flight.clear();
    let message = "it still runs after SIGKILL".to_owned();
    let failure = Failure { count: 1, at: NOW, message, permanent: false, inputs: String::new() };
    node.observed.failures.insert(ActionKey::Pod(uid), failure);
    assert_eq!(node.outcome(), "old: failed, new: dependency");
    node.observed.pods.clear();
    assert_eq!(node.outcome(), "create new");
    // A removal that is held keeps the successor from being made, too.
    let mut node = Node::new("data", "data").prepared();
    node.held = true;
    assert_eq!(node.outcome(), "new: dependency");
    // So does one that goes on by its manifest of before.
    let mut node = Node::new("data", "data").prepared();
    let old = Workload { id: id("old"), ..Workload::clone(&node.desired.workloads[&id("new")]) };
    Arc::make_mut(&mut node.desired).workloads.insert(id("old"), Arc::new(old));
    node.observed
        .prepared
        .insert((id("old"), spec::plan::revision(&node.desired.workloads[&id("old")])), BTreeMap::new());
    assert_eq!(node.outcome(), "create new", "two workloads may share what they write, where both are wished");
    node.unwished = BTreeSet::from([id("old")]);
    assert_eq!(node.outcome(), "new: dependency");
    let mut node = Node::new("port", "").prepared();
    node.held = true;
    assert_eq!(node.outcome(), "create new");
}

/// Also one that was there before, where its new version writes what a pod that is to go writes: nothing of it is
/// touched until that one is gone.
#[test]
fn an_update_waits_for_what_it_cannot_stand_beside() {
    for (own, new, expected) in [
        ("", "data", "new: dependency"),
        ("port", "host data", "new: dependency"),
        ("data", "", "create new"),
        ("data", "data port", "stop new-0, new: not_ready"),
    ] {
        for stop_first in [false, true] {
            let mut node = Node::new("data host", new).prepared();
            node.held = true;
            let old = Arc::clone(&node.observed.pods[&PodUid("0".into())]);
            let record = PodRecord {
                uid: PodUid("1".into()),
                workload: id("new"),
                name: "new-0".into(),
                spec: Arc::new(pod_spec(own)),
                ..PodRecord::clone(&old.record)
            };
            let pod = PodFacts { record: Arc::new(record), ..PodFacts::clone(&old) };
            node.observed.pods.insert(pod.record.uid.clone(), Arc::new(pod));
            if stop_first {
                let workload = Arc::make_mut(&mut node.desired).workloads.get_mut(&id("new")).expect("it is wished");
                let strategy = UpdateStrategy { max_surge: 0, max_unavailable: 1, ..UpdateStrategy::default() };
                Arc::make_mut(workload).controller = Controller::Replicated { replicas: 1, strategy };
            }
            let expected = if stop_first && new.is_empty() { "stop new-0, new: not_ready" } else { expected };
            assert_eq!(node.outcome(), expected, "{own} -> {new}, stop first: {stop_first}");
        }
    }
}

#[test]
fn who_is_not_to_run_is_not_waited_for() {
    for controller in [
        Controller::Replicated { replicas: 0, strategy: UpdateStrategy::default() },
        Controller::Ordered {
            replicas: 0,
            first_ordinal: 0,
            parallel: false,
            partition: 0,
            on_delete: false,
            min_ready: spec::time::Millis(0),
            claims: Vec::new(),
            service_name: None,
        },
    ] {
        let mut node = Node::new("data", "data");
        let desired = Arc::make_mut(&mut node.desired);
        for workload in desired.workloads.values_mut() {
            Arc::make_mut(workload).controller = controller.clone();
        }
        assert_eq!(node.outcome(), "stop old-0", "{controller:?}");
    }
}
