//! Ordering between workloads, draining and the bounds of strategies, as tables of what a plan does.

use std::collections::BTreeMap;
use std::sync::Arc;

use spec::image_ref::ImageRef;
use spec::observed::{Addresses, ContainerFacts, ContainerState, Exit, PodFacts, PodRecord, PodUid, PortTarget};
use spec::plan::{Action, Goals, Observed, plan, port_map, stop_order};
use spec::pod::{ContainerSpec, EnvSource, EnvVar, PodSpec, Port, RestartPolicy};
use spec::time::{Millis, Timestamp};
use spec::workload::{
    Controller, Dependency, DependencyCondition, Desired, PodTemplate, SourceRef, UpdateStrategy, Workload, WorkloadId,
    WorkloadKind,
};

const NOW: Timestamp = Timestamp(10_000_000);

fn id(name: &str) -> WorkloadId {
    WorkloadId { kind: WorkloadKind::Deployment, namespace: "default".into(), name: name.into() }
}

fn workload(name: &str, version: &str, depends_on: &[(&str, bool)]) -> Workload {
    let container = ContainerSpec {
        name: "main".into(),
        image: Some(ImageRef::parse("app:1").expect("valid")),
        env: vec![EnvVar { name: "V".into(), source: EnvSource::Literal(version.into()) }],
        ..ContainerSpec::default()
    };
    let spec =
        PodSpec { containers: vec![container], restart_policy: Some(RestartPolicy::Always), ..PodSpec::default() };
    let depends_on = depends_on
        .iter()
        .map(|(on, restart)| Dependency {
            workload: id(on),
            condition: DependencyCondition::Healthy,
            restart: *restart,
            required: true,
        })
        .collect();
    Workload {
        id: id(name),
        source: SourceRef::default(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        controller: Controller::Replicated { replicas: 1, strategy: UpdateStrategy::default() },
        template: PodTemplate { spec: Arc::new(spec), ..PodTemplate::default() },
        depends_on,
    }
}

/// A pod of a workload, running since then; ended at that moment when `since` is negative; never started when it is 0.
fn pod(workload: &Workload, number: u32, since: i64) -> PodFacts {
    let at = Timestamp(since.unsigned_abs());
    let state = if since > 0 {
        ContainerState::Running { pid: 1, started: at }
    } else {
        ContainerState::Exited(Exit {
            code: 137,
            signal: Some(9),
            oom: false,
            started: Some(Timestamp(1)),
            finished: at,
            finished_unix: 0,
            boot_id: "boot".into(),
            error: None,
            message: None,
            stopped: false,
        })
    };
    let facts = ContainerFacts::new(0, 0, state);
    PodFacts {
        record: Arc::new(PodRecord {
            uid: PodUid(format!("{number:016x}")),
            workload: workload.id.clone(),
            ordinal: number,
            revision: spec::plan::revision(workload),
            name: format!("{}-{number}", workload.id.name),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            run: None,
            bound: BTreeMap::new(),
            depends_on: workload.depends_on.iter().map(|dependency| dependency.workload.clone()).collect(),
            source: SourceRef::default(),
            spec: Arc::clone(&workload.template.spec),
            images: BTreeMap::new(),
            created_unix: 0,
            created: Timestamp(1),
            boot_id: "boot".into(),
        }),
        sandbox: true,
        addresses: Addresses { v4: Some(std::net::Ipv4Addr::new(10, 0, 0, 1)), v6: None },
        containers: if since == 0 { BTreeMap::new() } else { BTreeMap::from([("main".to_owned(), facts)]) },
        failed: None,
    }
}

struct World {
    desired: Arc<Desired>,
    observed: Observed,
}

impl World {
    fn new(wished: &[&Workload], pods: Vec<PodFacts>) -> Self {
        let mut desired = Desired::default();
        let mut observed = Observed { boot_id: "boot".into(), ..Observed::default() };
        for workload in wished {
            desired.workloads.insert(workload.id.clone(), Arc::new(Workload::clone(workload)));
            observed.prepared.insert((workload.id.clone(), spec::plan::revision(workload)), BTreeMap::new());
        }
        observed.pods = pods.into_iter().map(|pod| (pod.record.uid.clone(), Arc::new(pod))).collect();
        Self { desired: Arc::new(desired), observed }
    }

    fn steps_at(&self, now: Timestamp) -> Vec<String> {
        self.steps_of(&Goals::new(&self.desired), now)
    }

    fn steps_of(&self, goals: &Goals, now: Timestamp) -> Vec<String> {
        let plan = plan(goals, &self.observed, now);
        let step = |step: &spec::plan::Step| match &step.action {
            Action::CreatePod { name, .. } => format!("create {}", name.split('-').next().unwrap_or_default()),
            Action::StopPod { pod, .. } => format!("stop {} {}", pod.record.name, step.reason.word()),
            Action::StartContainer { pod, .. } => format!("start {}", pod.record.name),
            other => other.word().to_owned(),
        };
        // Names follow whatever happens; they are not what is asked here.
        plan.steps.iter().filter(|step| !matches!(step.action, Action::SetNames { .. })).map(step).collect()
    }

    fn steps(&self) -> Vec<String> {
        self.steps_at(NOW)
    }
}

#[test]
fn dependencies_hold_at_every_start() {
    let (db, app) = (workload("db", "1", &[]), workload("app", "1", &[("db", false)]));
    let both = [&db, &app];
    // The first time.
    assert_eq!(World::new(&both, vec![]).steps(), ["create db"]);
    assert_eq!(World::new(&both, vec![pod(&db, 1, 5)]).steps(), ["create app"]);
    // After a crash of everything.
    assert_eq!(World::new(&both, vec![pod(&db, 1, -5), pod(&app, 2, -5)]).steps(), ["start db-1"]);
    assert_eq!(World::new(&both, vec![pod(&db, 1, 9), pod(&app, 2, -5)]).steps(), ["start app-2"]);
    // After a reboot: namespaces are gone, too.
    let mut world = World::new(&both, vec![pod(&db, 1, -5), pod(&app, 2, -5)]);
    for pod in world.observed.pods.values_mut() {
        *pod = Arc::new(PodFacts { sandbox: false, ..PodFacts::clone(pod) });
    }
    assert_eq!(world.steps(), ["restore_pod"]);
    // One that runs is left alone when its dependency goes.
    assert_eq!(World::new(&both, vec![pod(&db, 1, -5), pod(&app, 2, 7)]).steps(), ["start db-1"]);
}

#[test]
fn dependents_end_before_what_they_depend_on() {
    let (db, app) = (workload("db", "1", &[]), workload("app", "1", &[("db", false)]));
    let top = workload("top", "1", &[("app", false), ("db", false)]);
    let pods = vec![pod(&db, 1, 5), pod(&app, 2, 6), pod(&top, 3, 7)];
    let mut world = World::new(&[], pods.clone());
    assert_eq!(world.steps(), ["stop top-3 removed"]);
    world.observed.pods.retain(|_, pod| pod.record.name != "top-3");
    assert_eq!(world.steps(), ["stop app-2 removed"]);
    world.observed.pods.retain(|_, pod| pod.record.name != "app-2");
    assert_eq!(world.steps(), ["stop db-1 removed"]);
    let names: Vec<Vec<&str>> =
        stop_order(&pods).iter().map(|group| group.iter().map(|pod| pod.record.name.as_str()).collect()).collect();
    assert_eq!(names, [["top-3"], ["app-2"], ["db-1"]]);
    // One that stays needs what is removed: it is not waited for.
    assert_eq!(World::new(&[&app], vec![pod(&db, 1, 5), pod(&app, 2, 6)]).steps(), ["stop db-1 removed"]);
    // Records of a circle last for ever neither.
    let (a, b) = (workload("a", "1", &[("b", false)]), workload("b", "1", &[("a", false)]));
    assert_eq!(World::new(&[], vec![pod(&a, 1, 5), pod(&b, 2, 5)]).steps().len(), 2);
}

#[test]
fn a_node_is_emptied_in_the_same_order() {
    let (db, app) = (workload("db", "1", &[]), workload("app", "1", &[("db", false)]));
    // Of a workload that is not wished any more, but still needs what is.
    let gone = workload("gone", "1", &[("app", false)]);
    let mut world = World::new(&[&db, &app], vec![pod(&db, 1, 5), pod(&app, 2, 6), pod(&gone, 3, 7)]);
    for expected in ["stop gone-3 drained", "stop app-2 drained", "stop db-1 drained"] {
        let goals = Goals { drained: true, ..Goals::new(&world.desired) };
        assert_eq!(world.steps_of(&goals, NOW), [expected]);
        world.observed.pods.retain(|_, pod| !expected.contains(&pod.record.name));
    }
}

#[test]
fn a_dependent_follows_a_restart_where_it_is_told_to() {
    let db = workload("db", "1", &[]);
    for (restart, db_since, expected) in [(true, 5, vec![]), (true, 9000, vec!["create app"]), (false, 9000, vec![])] {
        let app = workload("app", "1", &[("db", restart)]);
        let world = World::new(&[&db, &app], vec![pod(&db, 1, db_since), pod(&app, 2, 7000)]);
        assert_eq!(world.steps(), expected, "{restart} {db_since}");
    }
    let app = workload("app", "1", &[("db", true)]);
    let world = World::new(&[&db, &app], vec![pod(&db, 1, 9000), pod(&app, 2, 7000), pod(&app, 3, 9500)]);
    assert_eq!(world.steps(), ["stop app-2 dependency_restarted"]);
    // Another replica is no restart.
    let world = World::new(&[&db, &app], vec![pod(&db, 1, 5), pod(&db, 4, 9000), pod(&app, 2, 7000)]);
    assert!(!world.steps().iter().any(|step| step.contains("app")), "{:?}", world.steps());
}

/// A workload that publishes a port of the host.
fn with_port(version: &str) -> Workload {
    let mut workload = workload("web", version, &[]);
    let mut spec = PodSpec::clone(&workload.template.spec);
    let port = Port { container_port: 80, host_port: Some(8080), ..Port::default() };
    spec.containers.iter_mut().for_each(|container| container.ports.push(port.clone()));
    workload.template.spec = Arc::new(spec);
    workload
}

#[test]
fn of_two_old_pods_that_serve_one_ends_for_the_new_one() {
    // An update that was cut off by another one has left two old versions, whichever of them has the port.
    for holder in 1..=2 {
        let (first, second, third) = (with_port("1"), with_port("2"), with_port("3"));
        let mut world = World::new(&[&third], vec![pod(&first, 1, 5), pod(&second, 2, 9)]);
        let goals = Goals::new(&world.desired);
        let other = PodUid(format!("{:016x}", 3 - holder));
        world.observed.stopping.insert(other.clone(), spec::plan::Reason::ScaledDown);
        world.observed.published = port_map(&goals, &world.observed);
        world.observed.stopping.clear();
        let stopped = (0..20).find_map(|second| {
            let now = NOW.plus(Millis(1000 * second));
            let plan = plan(&goals, &world.observed, now);
            world.observed.draining.retain(|uid, _| plan.draining.contains(uid));
            for uid in &plan.draining {
                world.observed.draining.entry(uid.clone()).or_insert(now);
            }
            if plan.steps.iter().any(|step| matches!(step.action, Action::Publish { .. })) {
                world.observed.published = port_map(&goals, &world.observed);
            }
            plan.steps.iter().find_map(|step| match &step.action {
                Action::StopPod { pod, .. } => Some(pod.record.uid.clone()),
                _ => None,
            })
        });
        let stopped = stopped.expect("one of them ends within twenty seconds");
        assert!(world.observed.published.values().all(|target| target.pod != stopped), "the port has moved before");
    }
}

#[test]
fn a_replaced_pod_is_drained_after_its_port_has_moved() {
    let (old, new) = (with_port("1"), with_port("2"));
    let mut world = World::new(&[&new], vec![pod(&old, 1, 5), pod(&new, 2, 9000)]);
    let goals = Goals::new(&world.desired);
    let map = port_map(&goals, &world.observed);
    let key = map.keys().next().expect("one port").clone();
    let target = |uid: &str| PortTarget {
        pod: PodUid(uid.into()),
        addresses: Addresses { v4: Some(std::net::Ipv4Addr::new(10, 0, 0, 1)), v6: None },
        container_port: 80,
    };
    // The port moves first, also where a new agent does not know yet where it leads: draining has not begun before.
    assert_eq!(world.steps(), ["publish_ports"]);
    assert!(plan(&goals, &world.observed, NOW.plus(Millis::from_secs(60))).draining.is_empty());
    world.observed.published.insert(key.clone(), target("0000000000000001"));
    assert_eq!(world.steps(), ["publish_ports"]);
    // Then the old pod is drained: at least 2 s, then until nobody is connected to it any more, at most 10 s.
    world.observed.published.insert(key, target("0000000000000002"));
    let drain = plan(&goals, &world.observed, NOW);
    assert_eq!(world.steps(), Vec::<String>::new());
    assert_eq!(drain.draining.len(), 1);
    assert_eq!(drain.wake, Some(NOW.plus(Millis(2000))));
    world.observed.draining.extend(drain.draining.into_iter().map(|uid| (uid, NOW)));
    for (annotation, idle, due) in [
        (None, false, 10_000),
        (None, true, 2000),
        (Some("5s"), false, 5000),
        (Some("5s"), true, 2000),
        (Some("500ms"), false, 500),
        (Some("500ms"), true, 500),
        (Some("0s"), false, 0),
        (Some("no length"), false, 10_000),
    ] {
        let mut workload = new.clone();
        workload.annotations.extend(annotation.map(|text| ("mainstay/drain".to_owned(), text.to_owned())));
        let mut desired = Desired::default();
        desired.workloads.insert(workload.id.clone(), Arc::new(workload));
        world.desired = Arc::new(desired);
        world.observed.idle = idle.then(|| PodUid("0000000000000001".into())).into_iter().collect();
        if due > 0 {
            assert_eq!(world.steps_at(NOW.plus(Millis(due - 1))), Vec::<String>::new(), "{annotation:?} {idle}");
        }
        assert_eq!(world.steps_at(NOW.plus(Millis(due))), ["stop web-1 spec_changed"], "{annotation:?} {idle}");
    }
}

#[test]
fn the_next_batch_waits_for_the_delay() {
    let mut new = workload("web", "2", &[]);
    let old = workload("web", "1", &[]);
    new.controller = Controller::Replicated {
        replicas: 2,
        strategy: UpdateStrategy { delay: Millis::from_secs(30), ..UpdateStrategy::default() },
    };
    let started = i64::try_from(NOW.0).expect("small") - 10_000;
    let world = World::new(&[&new], vec![pod(&old, 1, 5), pod(&old, 2, 5), pod(&new, 3, started)]);
    assert_eq!(world.steps(), Vec::<String>::new());
    assert_eq!(world.steps_at(NOW.plus(Millis::from_secs(20))), ["stop web-2 spec_changed"]);
}
