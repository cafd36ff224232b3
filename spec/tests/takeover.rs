//! Which old pods a rolling update ends, and where a published port leads meanwhile: a line for each state of the pods.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use spec::observed::{
    Addresses, ContainerFacts, ContainerState, Exit, PodFacts, PodRecord, PodUid, PortKey, PortTarget,
};
use spec::plan::{Action, Goals, Health, Observed, plan, port_map};
use spec::pod::{ContainerSpec, EnvSource, EnvVar, Handler, PodSpec, Port, Probe, Protocol};
use spec::time::{Millis, Timestamp};
use spec::workload::{Controller, Desired, PodTemplate, SourceRef, UpdateStrategy, Workload, WorkloadId, WorkloadKind};

const NOW: Timestamp = Timestamp(10_000_000);

fn pod_spec(version: &str) -> PodSpec {
    let container = ContainerSpec {
        name: "main".into(),
        env: vec![EnvVar { name: "V".into(), source: EnvSource::Literal(version.into()) }],
        ports: vec![Port { container_port: 80, host_port: Some(8000), ..Port::default() }],
        readiness: Some(Probe { handler: Handler::Exec(vec!["true".into()]), ..Probe::default() }),
        ..ContainerSpec::default()
    };
    PodSpec { containers: vec![container], ..PodSpec::default() }
}

fn key() -> PortKey {
    PortKey { protocol: Protocol::Tcp, host_ip: None, host_port: 8000 }
}

/// A node with pods `VERSION STATE`, the wished version being `c`. A `*` behind a state says that the port leads there.
fn node(pods: &[&str], surge: u32, replicas: u32) -> (Goals, Observed) {
    let strategy = UpdateStrategy {
        max_surge: surge,
        max_unavailable: u32::from(surge == 0),
        min_ready: Millis::from_secs(5),
        ..UpdateStrategy::default()
    };
    let workload = Workload {
        id: WorkloadId { kind: WorkloadKind::Deployment, namespace: "default".into(), name: "w".into() },
        source: SourceRef::default(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::from([(spec::plan::DRAIN.to_owned(), "0s".to_owned())]),
        controller: Controller::Replicated { replicas, strategy },
        template: PodTemplate { spec: Arc::new(pod_spec("c")), ..PodTemplate::default() },
        depends_on: Vec::new(),
    };
    let mut observed = Observed { boot_id: "boot".into(), ..Observed::default() };
    for (index, text) in pods.iter().enumerate() {
        let (version, state) = text.split_once(' ').expect("version and state");
        let (state, published) = state.strip_suffix('*').map_or((state, false), |state| (state, true));
        let index = u8::try_from(index).expect("few pods");
        let uid = PodUid(format!("{index:016x}"));
        let record = PodRecord {
            uid: uid.clone(),
            workload: workload.id.clone(),
            ordinal: index.into(),
            revision: if version == "c" { spec::plan::revision(&workload) } else { version.to_owned() },
            name: format!("{version}{index}"),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            depends_on: Vec::new(),
            source: SourceRef::default(),
            spec: Arc::new(pod_spec(version)),
            images: BTreeMap::new(),
            created_unix: 0,
            created: Timestamp(0),
            boot_id: "boot".into(),
            run: None,
            bound: BTreeMap::new(),
        };
        let started = Timestamp(NOW.0 - 8000);
        let facts = match state {
            "new" => None,
            "waits" => Some(ContainerState::Exited(Exit {
                code: 1,
                signal: None,
                oom: false,
                started: Some(started),
                finished: Timestamp(NOW.0 - 1000),
                finished_unix: 0,
                boot_id: "boot".into(),
                error: None,
                message: None,
                stopped: false,
            })),
            _ => Some(ContainerState::Running { pid: 1, started }),
        };
        let health = |ready, since, failed, refused| {
            Some(Health { attempt: 2, started: true, ready, since: Timestamp(NOW.0 - since), failed, refused })
        };
        let health = match state {
            "ready" => health(true, 6000, false, false),
            "young" => health(true, 1000, false, false),
            "asked" => health(false, 8000, false, false),
            "refused" => health(false, 8000, false, true),
            "sick" => health(false, 8000, true, false),
            "unasked" | "new" | "waits" => None,
            other => panic!("{other}"),
        };
        observed.health.extend(health.map(|health| ((uid.clone(), "main".to_owned()), health)));
        let addresses = Addresses { v4: Some(Ipv4Addr::new(10, 88, 0, 10 + index)), v6: None };
        if published {
            let target = PortTarget { pod: uid.clone(), addresses, container_port: 80 };
            observed.published.insert(key(), target);
        }
        let containers = facts.map(|state| ("main".to_owned(), ContainerFacts::new(2, 2, state)));
        let containers = containers.into_iter().collect();
        let facts = PodFacts { record: Arc::new(record), sandbox: true, addresses, containers, failed: None };
        observed.pods.insert(uid, Arc::new(facts));
    }
    observed.prepared.insert((workload.id.clone(), spec::plan::revision(&workload)), BTreeMap::new());
    let mut desired = Desired::default();
    desired.workloads.insert(workload.id.clone(), Arc::new(workload));
    (Goals::new(&Arc::new(desired)), observed)
}

/// What is made and ended, with the pod that the port is to lead to.
fn outcome(pods: &[&str], surge: u32, replicas: u32) -> String {
    let (goals, observed) = node(pods, surge, replicas);
    let steps = plan(&goals, &observed, NOW).steps;
    let words = steps.iter().filter_map(|step| match &step.action {
        Action::CreatePod { .. } => Some("create".to_owned()),
        Action::StopPod { pod, .. } => Some(format!("end {}", pod.record.name)),
        _ => None,
    });
    let mut words: Vec<String> = words.collect();
    let target = port_map(&goals, &observed).remove(&key()).expect("somebody has the port");
    words.push(format!("port {}", observed.pods[&target.pod].record.name));
    words.join(", ")
}

#[test]
fn an_old_pod_that_may_serve_is_kept_until_a_new_one_does() {
    for (pods, expected) in [
        // Nothing is known of the old pod, or it has not served for long: it stays, and its port with it.
        (&["a unasked*"][..], "create, port a0"),
        (&["a asked*", "c new"], "port a0"),
        (&["a asked*", "c unasked"], "port a0"),
        (&["a unasked*", "c asked"], "port a0"),
        (&["a young*", "c asked"], "port a0"),
        (&["a asked*", "c refused"], "port a0"),
        // Nothing was published by this agent yet.
        (&["a asked", "c asked"], "port a0"),
        // The new one serves: the port moves first, then the old one ends.
        (&["a asked*", "c young"], "port c1"),
        (&["a asked*", "c ready"], "port c1"),
        (&["a asked", "c ready*"], "end a0, port c1"),
        // What is known not to serve makes room at once, as in Kubernetes.
        (&["a refused*", "c asked"], "end a0, port c1"),
        (&["a sick*", "c asked"], "end a0, port c1"),
        (&["a waits*", "c asked"], "end a0, port c1"),
        (&["a new", "c asked"], "end a0, port c1"),
        // An update on top of another one: one of two old pods makes room for the new one, and not the one that serves.
        (&["a ready*", "b asked"], "end b1, port a0"),
        (&["a asked*", "b unasked"], "end b1, port a0"),
        (&["a unasked", "b asked*"], "end a0, port b1"),
        (&["a refused", "b asked*"], "end a0, port b1"),
        (&["a refused*", "b refused"], "end b1, port a0"),
    ] {
        assert_eq!(outcome(pods, 1, 1), expected, "{pods:?}");
    }
}

#[test]
fn many_old_pods_that_may_serve_are_replaced_one_by_one() {
    for (pods, expected) in [
        (&["a asked", "a asked", "a asked*"][..], "create, port a2"),
        (&["a asked", "a asked", "a asked*", "c asked"], "port a2"),
        (&["a asked", "a asked", "a asked*", "c ready"], "end a1, port c3"),
        (&["a asked", "a asked", "c ready*"], "create, port c2"),
        (&["a asked", "a asked", "c ready*", "c asked"], "port c2"),
        (&["a asked", "a asked", "c ready*", "c ready"], "end a1, port c2"),
        // Those that serve are worth more than those that may.
        (&["a ready*", "a ready", "a asked", "c ready"], "end a2, port c3"),
        (&["a ready*", "a ready", "a refused", "c asked"], "end a2, port a0"),
    ] {
        assert_eq!(outcome(pods, 1, 3), expected, "{pods:?}");
    }
}

#[test]
fn without_a_surge_an_old_pod_makes_room() {
    for (pods, expected) in [(&["a asked*"][..], "end a0, port a0"), (&["a ready*"], "end a0, port a0")] {
        assert_eq!(outcome(pods, 0, 1), expected, "{pods:?}");
    }
}
