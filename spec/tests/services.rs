//! Table tests of Services: what is wished and what runs, and the entrances that follow, a line each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use spec::observed::{Addresses, ContainerFacts, ContainerState, PodFacts, PodRecord, PodUid, PortKey, PortTarget};
use spec::plan::{Action, Goals, Health, Observed, plan, services};
use spec::pod::{ContainerSpec, Handler, PodSpec, Port, PortRef, Probe, Protocol};
use spec::services::{ServiceRange, ServiceState};
use spec::time::Timestamp;
use spec::workload::{Desired, Exposure, Service, ServicePort, SourceRef, WorkloadId, WorkloadKind};

const NOW: Timestamp = Timestamp(10_000_000);

/// Three pods `0`, `1`, `2` of app `web` at 10.88.0.10 and on, with port `http` 8080 and a readiness probe.
struct World {
    desired: Desired,
    observed: Observed,
}

impl World {
    fn new() -> Self {
        let mut observed = Observed { boot_id: "boot".into(), ..Observed::default() };
        observed.service_state = ServiceState {
            range: Some(ServiceRange { first: Ipv4Addr::new(10, 99, 0, 0), prefix: 20 }),
            gateway: Some(Ipv4Addr::new(10, 88, 0, 1)),
            ..ServiceState::default()
        };
        let mut world = Self { desired: Desired::default(), observed };
        for index in 0..3 {
            world.pod(index, "default", &[("app", "web")], |_| {});
            world.ready(index, true);
        }
        world
    }

    fn pod(&mut self, index: u8, namespace: &str, labels: &[(&str, &str)], change: impl FnOnce(&mut PodSpec)) {
        let port = Port { name: Some("http".into()), container_port: 8080, ..Port::default() };
        let probe = Probe {
            handler: Handler::Exec(vec!["true".into()]),
            initial_delay: None,
            period: None,
            timeout: None,
            success_threshold: None,
            failure_threshold: None,
            termination_grace: None,
            start_period: None,
            start_interval: None,
        };
        let container = ContainerSpec {
            name: "main".into(),
            ports: vec![port],
            readiness: Some(probe),
            ..ContainerSpec::default()
        };
        let mut spec = PodSpec { containers: vec![container], ..PodSpec::default() };
        change(&mut spec);
        let record = PodRecord {
            uid: PodUid(index.to_string()),
            workload: WorkloadId { kind: WorkloadKind::Deployment, namespace: namespace.into(), name: "web".into() },
            ordinal: index.into(),
            revision: String::new(),
            name: format!("web-{index}"),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            annotations: BTreeMap::new(),
            depends_on: Vec::new(),
            source: SourceRef::default(),
            images: BTreeMap::new(),
            created_unix: 0,
            created: Timestamp(0),
            boot_id: "boot".into(),
            run: None,
            bound: BTreeMap::new(),
            spec: Arc::new(spec),
        };
        let v4 = (!record.spec.host_network).then(|| Ipv4Addr::new(10, 88, 0, 10 + index));
        let state = ContainerState::Running { pid: 1, started: Timestamp(1000) };
        let facts = PodFacts {
            record: Arc::new(record),
            sandbox: true,
            failed: None,
            addresses: Addresses { v4, v6: None },
            containers: BTreeMap::from([("main".to_owned(), ContainerFacts::new(0, 0, state))]),
        };
        self.observed.pods.insert(facts.record.uid.clone(), Arc::new(facts));
    }

    fn ready(&mut self, index: u8, ready: bool) {
        let key = (PodUid(index.to_string()), "main".to_owned());
        let health =
            Health { attempt: 0, started: true, ready, since: Timestamp(2000), failed: false, refused: !ready };
        self.observed.health.insert(key, health);
    }

    fn service(&mut self, service: Service) {
        self.desired.services.insert((service.namespace.clone(), service.name.clone()), Arc::new(service));
    }

    /// `entrance -> pod:port pod:port`, without the virtual addresses' values.
    fn entrances(&self) -> Vec<String> {
        let all = services(
            &Goals::new(&Arc::new(self.desired.clone())),
            &self.observed,
            &self.observed.published,
            &BTreeSet::new(),
        );
        let mut lines: Vec<String> = all
            .set
            .entrances
            .iter()
            .map(|(entrance, balance)| {
                let at = if entrance.address.is_some() { "ip:" } else { "host:" };
                let pods: Vec<String> = balance.backends.iter().map(|b| format!("{}:{}", b.pod, b.port)).collect();
                let sticky = if balance.sticky { " sticky" } else { "" };
                format!("{at}{}/{} -> {}{sticky}", entrance.port, entrance.protocol, pods.join(" "))
            })
            .collect();
        lines.sort();
        lines
    }

    fn address(&self, name: &str) -> Option<Ipv4Addr> {
        let all = services(
            &Goals::new(&Arc::new(self.desired.clone())),
            &self.observed,
            &self.observed.published,
            &BTreeSet::new(),
        );
        all.set.leases.addresses.get(&format!("default/{name}")).copied()
    }

    fn faults(&self) -> Vec<String> {
        let all = services(
            &Goals::new(&Arc::new(self.desired.clone())),
            &self.observed,
            &self.observed.published,
            &BTreeSet::new(),
        );
        all.faults.into_values().flatten().collect()
    }

    /// What was decided is done.
    fn publish(&mut self) {
        let all = services(
            &Goals::new(&Arc::new(self.desired.clone())),
            &self.observed,
            &self.observed.published,
            &BTreeSet::new(),
        );
        self.observed.services = all.set;
    }
}

fn web() -> Service {
    Service {
        namespace: "default".into(),
        name: "web".into(),
        selector: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        ports: vec![ServicePort { port: 80, target: Some(PortRef::Number(8080)), ..ServicePort::default() }],
        ..Service::default()
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut World), service: Service, expected: &[&str]) {
    let mut world = World::new();
    change(&mut world);
    world.service(service);
    assert_eq!(world.entrances(), expected);
}

#[test]
fn pods_behind_a_service() {
    let all = ["ip:80/tcp -> 0:8080 1:8080 2:8080"];
    check(|_| {}, web(), &all);
    check(|w| w.ready(1, false), web(), &["ip:80/tcp -> 0:8080 2:8080"]);
    check(|w| w.ready(1, false), Service { publish_not_ready: true, ..web() }, &all);
    check(|w| w.pod(1, "other", &[("app", "web")], |_| {}), web(), &["ip:80/tcp -> 0:8080 2:8080"]);
    check(|w| w.pod(1, "default", &[("app", "db")], |_| {}), web(), &["ip:80/tcp -> 0:8080 2:8080"]);
    check(|_| {}, Service { selector: BTreeMap::new(), ..web() }, &["ip:80/tcp -> "]);
    check(|_| {}, Service { client_ip_affinity: true, ..web() }, &["ip:80/tcp -> 0:8080 1:8080 2:8080 sticky"]);
    check(|_| {}, Service { headless: true, ..web() }, &[]);
    check(|_| {}, Service { external_name: Some("example.com".into()), ..web() }, &[]);
    // A pod that was told to end gets nobody, whatever its probe says.
    let stopping = |w: &mut World| {
        w.observed.stopping.insert(PodUid("0".into()), spec::plan::Reason::Removed);
    };
    check(stopping, Service { publish_not_ready: true, ..web() }, &["ip:80/tcp -> 1:8080 2:8080"]);
    // On the host's network a pod is where the host is.
    check(|w| w.pod(2, "default", &[("app", "web")], |spec| spec.host_network = true), web(), &all);
}

#[test]
fn ports_by_number_by_name_and_by_protocol() {
    let ports = |ports: &[ServicePort]| Service { ports: ports.to_vec(), ..web() };
    let http = || Some(PortRef::Name("http".into()));
    check(
        |_| {},
        ports(&[ServicePort { port: 80, target: http(), ..ServicePort::default() }]),
        &["ip:80/tcp -> 0:8080 1:8080 2:8080"],
    );
    // Each pod has its own idea of what a name means; one without it is left out.
    let renamed = |w: &mut World| {
        w.pod(0, "default", &[("app", "web")], |spec| spec.containers[0].ports[0].container_port = 9090);
        w.pod(1, "default", &[("app", "web")], |spec| spec.containers[0].ports.clear());
    };
    check(
        renamed,
        ports(&[ServicePort { port: 80, target: http(), ..ServicePort::default() }]),
        &["ip:80/tcp -> 0:9090 2:8080"],
    );
    check(
        |_| {},
        ports(&[
            ServicePort { port: 53, protocol: Protocol::Udp, ..ServicePort::default() },
            ServicePort { port: 53, ..ServicePort::default() },
        ]),
        &["ip:53/tcp -> 0:53 1:53 2:53", "ip:53/udp -> 0:53 1:53 2:53"],
    );
}

#[test]
fn ports_of_the_host() {
    let with = |exposure, node_port| {
        let mut service = Service { exposure, ..web() };
        service.ports[0].node_port = node_port;
        service
    };
    let one = "0:8080 1:8080 2:8080";
    let cluster = format!("ip:80/tcp -> {one}");
    check(|_| {}, with(Exposure::NodePort, Some(30080)), &[&format!("host:30080/tcp -> {one}"), &cluster]);
    check(|_| {}, with(Exposure::LoadBalancer, None), &[&format!("host:80/tcp -> {one}"), &cluster]);
    check(
        |_| {},
        with(Exposure::LoadBalancer, Some(30080)),
        &[&format!("host:30080/tcp -> {one}"), &format!("host:80/tcp -> {one}"), &cluster],
    );
    let mut world = World::new();
    let key = PortKey { protocol: Protocol::Tcp, host_ip: None, host_port: 30080 };
    let target = PortTarget { pod: PodUid("0".into()), addresses: Addresses::default(), container_port: 1 };
    world.observed.published.insert(key, target);
    world.service(with(Exposure::NodePort, Some(30080)));
    assert_eq!(world.entrances(), [cluster]);
    assert_eq!(world.faults(), ["port 30080/tcp of the host is taken: a pod publishes it"]);
}

#[test]
fn a_node_port_is_chosen_and_kept() {
    let mut world = World::new();
    let service = |name: &str| Service { name: name.into(), exposure: Exposure::NodePort, ..web() };
    world.service(service("b"));
    let chosen = world.entrances();
    assert!(chosen[0].starts_with("host:3"), "{chosen:?}");
    world.publish();
    // Others come; what was given stays, and nobody gets it twice.
    for index in 0..200 {
        world.service(service(&format!("a{index}")));
    }
    let all = world.entrances();
    assert!(all.contains(&chosen[0]));
    let host = |line: &&String| line.starts_with("host:");
    assert_eq!(all.iter().filter(host).collect::<BTreeSet<_>>().len(), 201);
    assert_eq!(world.faults(), Vec::<String>::new());
}

#[test]
fn an_address_follows_from_the_name_and_stays() {
    let mut world = World::new();
    world.service(web());
    let first = world.address("web").expect("there is a range");
    assert_eq!(World { desired: world.desired.clone(), ..World::new() }.address("web"), Some(first), "no chance in it");
    world.publish();
    // One that asks for it by number comes later and gets it: people's words count more.
    world.service(Service { name: "a".into(), cluster_ip: Some(first), ..web() });
    assert_eq!(world.address("a"), Some(first));
    let second = world.address("web").expect("another one");
    assert_ne!(second, first);
    world.publish();
    world.desired.services.remove(&("default".to_owned(), "a".to_owned()));
    assert_eq!(world.address("web"), Some(second), "not moved twice");

    let outside = Ipv4Addr::new(10, 96, 0, 10);
    world.service(Service { name: "out".into(), cluster_ip: Some(outside), ..web() });
    assert_ne!(world.address("out"), Some(outside));
    assert_eq!(
        world.faults(),
        [
            "address 10.96.0.10 cannot be given: it is not in 10.99.0.0/20 (setting `service_subnet`); another one is used"
        ]
    );
    world.observed.service_state.range = Some(ServiceRange { first: Ipv4Addr::new(10, 99, 0, 0), prefix: 30 });
    world.desired.services.clear();
    for name in ["x", "y", "z"] {
        world.service(Service { name: name.into(), ..web() });
    }
    assert_eq!(world.faults(), ["no address is left in 10.99.0.0/30 (setting `service_subnet`)"]);
}

#[test]
fn a_pod_leaves_its_services_before_it_is_stopped() {
    let mut world = World::new();
    world.service(web());
    world.publish();
    let steps = |world: &World| {
        let plan = plan(&Goals::new(&Arc::new(world.desired.clone())), &world.observed, NOW);
        let word = |step: &spec::plan::Step| match &step.action {
            Action::PublishServices { services } => {
                format!("to {} pods", services.entrances.values().map(|b| b.backends.len()).sum::<usize>())
            }
            Action::StopPod { pod, .. } => format!("stop {}", pod.record.name),
            other => other.word().to_owned(),
        };
        plan.steps.iter().map(word).filter(|word| word != "set_names").collect::<Vec<_>>()
    };
    // The Deployment is gone, so all three are to end.
    assert_eq!(steps(&world), ["to 0 pods"]);
    for balance in world.observed.services.entrances.values_mut() {
        balance.backends.clear();
    }
    assert_eq!(steps(&world), ["stop web-0", "stop web-1", "stop web-2"]);
}
