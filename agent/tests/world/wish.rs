//! What simulated sources wish for, and whether a simulated world has become that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent::reconciler::Reading;
use agent::status::Snapshot;
use runtime::sim::{Rng, Sim};
use spec::health::{self, Numbers};
use spec::image_ref::ImageRef;
use spec::observed::{ContainerFacts, PodFacts};
use spec::pod::{
    ContainerSpec, EnvSource, EnvVar, FilesSource, FilesVolume, Handler, PodSpec, Port, Probe, RestartPolicy, Volume,
    VolumeMount, VolumeSource,
};
use spec::time::Millis;
use spec::workload::{
    ConfigData, Controller, Dependency, DependencyCondition, Desired, PodTemplate, SourceRef, UpdateStrategy, Workload,
    WorkloadId, WorkloadKind,
};

use super::world;
use super::world::referee;

/// One workload of a simulated wish.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wish {
    image: &'static str,
    replicas: u32,
    version: u64,
    volume: bool,
    port: bool,
    policy: RestartPolicy,
    strategy: Strategy,
    probes: Probes,
    pub(crate) config: Option<Config>,
    /// One with a lower number that it depends on, where that is wished.
    needs: Option<usize>,
}

/// How a new version takes over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Strategy {
    Default,
    StopFirst,
    Recreate,
}

/// How a container is asked whether it is well.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Probes {
    None,
    Ready,
    Live,
    /// A startup probe, then both.
    All,
    /// One for both, as a healthcheck of Compose.
    Check,
}

/// Files of a ConfigMap, which others may use too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Config {
    map: u64,
    /// Part of the content.
    pub(crate) edit: u64,
    reaction: &'static str,
}

pub(crate) type Wishes = BTreeMap<usize, Wish>;

fn is_deployment(wish: &Wish) -> bool {
    wish.replicas > 1 || wish.policy == RestartPolicy::Always
}

/// Whether a workload has a maintenance window: each of its versions, so that it is no question which one counts.
pub(crate) fn is_windowed(index: usize) -> bool {
    index % 4 == 3
}

/// Whether a workload has a lock file: each of its versions.
fn is_lockable(index: usize) -> bool {
    index % 3 == 1
}

/// The named volume of a workload.
pub(crate) fn volume(index: usize) -> String {
    format!("v{index}")
}

pub(crate) fn id(index: usize, wish: &Wish) -> WorkloadId {
    let kind = match (is_deployment(wish), index % 5) {
        (true, 4) => WorkloadKind::Service,
        (true, _) => WorkloadKind::Deployment,
        (false, _) => WorkloadKind::Pod,
    };
    WorkloadId { kind, namespace: "default".into(), name: format!("w{index}") }
}

pub(crate) fn workload(index: usize, wish: &Wish, wishes: &Wishes) -> Arc<Workload> {
    let needed = wish.needs.and_then(|needed| wishes.get(&needed).map(|wish| id(needed, wish)));
    let strategy = match wish.strategy {
        Strategy::Default => UpdateStrategy::default(),
        Strategy::StopFirst => UpdateStrategy { max_surge: 0, max_unavailable: 1, ..UpdateStrategy::default() },
        Strategy::Recreate => UpdateStrategy { recreate: true, ..UpdateStrategy::default() },
    };
    let mut container = ContainerSpec {
        name: "main".into(),
        image: Some(ImageRef::parse(wish.image).expect("valid reference")),
        env: vec![EnvVar { name: "VERSION".into(), source: EnvSource::Literal(wish.version.to_string()) }],
        ..ContainerSpec::default()
    };
    let mut annotations = BTreeMap::new();
    if is_windowed(index) {
        annotations.insert(spec::window::ANNOTATION.to_owned(), world::WINDOW.to_owned());
    }
    if is_lockable(index) {
        annotations.insert(spec::manifest::HOLD_WHILE_FILE.to_owned(), "data/lock".to_owned());
    }
    let mut spec = PodSpec { restart_policy: Some(wish.policy), ..PodSpec::default() };
    if wish.volume {
        container.mounts.push(VolumeMount { volume: "data".into(), path: "/data".into(), ..VolumeMount::default() });
        spec.volumes.push(Volume { name: "data".into(), source: VolumeSource::Named { name: volume(index) } });
    }
    if wish.port {
        let host_port = Some(8000 + u16::try_from(index).expect("few workloads"));
        container.ports.push(Port { container_port: 80, host_port, ..Port::default() });
    }
    if let Some(config) = wish.config {
        annotations.insert(spec::plan::ON_CONFIG_CHANGE.to_owned(), config.reaction.to_owned());
        container.mounts.push(VolumeMount { volume: "conf".into(), path: "/conf".into(), ..VolumeMount::default() });
        let map = FilesSource::ConfigMap { name: map_name(config.map), optional: false, items: Vec::new() };
        let files = FilesVolume { sources: vec![map], ..FilesVolume::default() };
        spec.volumes.push(Volume { name: "conf".into(), source: VolumeSource::Files(files) });
    }
    ask(&mut container, wish.probes);
    spec.containers.push(container);
    Arc::new(Workload {
        id: id(index, wish),
        source: SourceRef::default(),
        labels: BTreeMap::new(),
        annotations,
        controller: if is_deployment(wish) {
            Controller::Replicated { replicas: wish.replicas, strategy }
        } else {
            Controller::Single
        },
        template: PodTemplate { spec: Arc::new(spec), ..PodTemplate::default() },
        depends_on: needed.into_iter().map(dependency).collect(),
    })
}

fn map_name(map: u64) -> String {
    format!("map{map}")
}

/// The ConfigMaps: each holds what all that use it have written into it.
fn configs(wishes: &Wishes) -> BTreeMap<(String, String), Arc<ConfigData>> {
    let mut texts: BTreeMap<u64, String> = BTreeMap::new();
    for (index, config) in wishes.iter().filter_map(|(index, wish)| Some((index, wish.config?))) {
        *texts.entry(config.map).or_default() += &format!("{index}: {}\n", config.edit);
    }
    let data = |text: String| Arc::new(ConfigData(BTreeMap::from([("key".to_owned(), text.into_bytes())])));
    texts.into_iter().map(|(map, text)| (("default".to_owned(), map_name(map)), data(text))).collect()
}

/// Workloads that read a ConfigMap which this one reads too.
pub(crate) fn sharers(index: usize, wishes: &Wishes) -> Vec<WorkloadId> {
    let map = |wish: &Wish| wish.config.map(|config| config.map);
    let Some(of) = wishes.get(&index).and_then(map) else { return Vec::new() };
    wishes.iter().filter(|(_, wish)| map(wish) == Some(of)).map(|(index, wish)| id(*index, wish)).collect()
}

fn ask(container: &mut ContainerSpec, probes: Probes) {
    let probe = |seconds, failures| Probe {
        handler: Handler::Exec(vec!["check".to_owned()]),
        period: Some(Millis::from_secs(seconds)),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    match probes {
        Probes::None => {}
        Probes::Ready => container.readiness = Some(probe(2, 2)),
        Probes::Live => container.liveness = Some(probe(2, 2)),
        Probes::All => {
            container.startup = Some(probe(1, 30));
            container.liveness = Some(probe(2, 2));
            container.readiness = Some(probe(1, 1));
        }
        Probes::Check => {
            let numbers = Numbers {
                interval: Some(Millis::from_secs(2)),
                timeout: Some(Millis::from_secs(1)),
                start_period: Some(Millis::from_secs(5)),
                start_interval: Some(Millis::from_secs(1)),
                retries: Some(2),
            };
            let check = numbers.readiness(Handler::Exec(vec!["check".to_owned()]));
            container.liveness = Some(health::liveness(&check));
            container.readiness = Some(check);
        }
    }
}

fn dependency(workload: WorkloadId) -> Dependency {
    Dependency { workload, condition: DependencyCondition::Healthy, restart: false, required: true }
}

fn one_of<T: Copy>(rng: &mut Rng, list: &[T]) -> T {
    let index = usize::try_from(rng.below(list.len() as u64)).expect("small");
    list.get(index).copied().expect("below the length")
}

pub(crate) fn random_wish(rng: &mut Rng, index: usize) -> Wish {
    let image = [
        "sim/run:1",
        "sim/run:2",
        "sim/exit-1-700:1",
        "sim/exit-0-900:1",
        "sim/stubborn:1",
        "sim/broken:1",
        "sim/missing:1",
        "sim/slow-4000:1",
        "sim/slow-99999999:1",
        "sim/hang-9000:1",
    ];
    let image = one_of(rng, &image);
    let policy = one_of(rng, &[RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never]);
    let policy = if rng.below(2) == 0 { RestartPolicy::Always } else { policy };
    Wish {
        image,
        replicas: if policy == RestartPolicy::Always { u32::try_from(rng.below(4)).expect("small") } else { 1 },
        version: rng.below(3),
        volume: rng.below(3) == 0 || (is_lockable(index) && rng.below(2) == 0),
        port: rng.below(3) == 0,
        policy,
        strategy: one_of(rng, &[Strategy::Default, Strategy::Default, Strategy::StopFirst, Strategy::Recreate]),
        probes: one_of(rng, &[Probes::None, Probes::None, Probes::Ready, Probes::Live, Probes::All, Probes::Check]),
        config: (rng.below(3) == 0).then(|| Config {
            map: rng.below(2),
            edit: rng.below(3),
            reaction: one_of(rng, &["live", "restart", "signal:SIGHUP"]),
        }),
        needs: (rng.below(4) == 0)
            .then(|| usize::try_from(rng.below(index as u64)).expect("small"))
            .filter(|n| *n < index),
    }
}

/// A plain Deployment of one pod, without anything of what a wish may have.
pub(crate) fn plain(image: &'static str, version: u64) -> Wish {
    let (policy, strategy) = (RestartPolicy::Always, Strategy::Default);
    let (probes, config) = (Probes::None, None);
    Wish { image, replicas: 1, version, volume: false, port: false, policy, strategy, probes, config, needs: None }
}

pub(crate) fn reading(wishes: &Wishes, revision: u64) -> Box<Reading> {
    let workloads =
        wishes.iter().map(|(index, wish)| workload(*index, wish, wishes)).map(|w| (w.id.clone(), w)).collect();
    Box::new(Reading {
        desired: Desired { workloads, configs: configs(wishes), ..Desired::default() },
        revision: revision.to_string(),
        ..Reading::default()
    })
}

/// Whether the pods of a wish run on, whatever happens to them.
pub(crate) fn serves(wish: &Wish) -> bool {
    let kind = wish.image.trim_start_matches("sim/").split(['-', ':']).next().unwrap_or_default();
    let well = match kind {
        "run" | "stubborn" => true,
        "slow" => wish.image == "sim/slow-4000:1" && wish.probes != Probes::Live || wish.probes == Probes::None,
        "hang" => wish.probes == Probes::None,
        _ => false,
    };
    wish.policy != RestartPolicy::Never && well
}

/// What is wrong with the files of a pod that should have those that are wished.
fn outdated(sim: &Sim, pod: &PodFacts, wish: &Wish, wishes: &Wishes) -> Option<String> {
    let config = wish.config?;
    let wished = configs(wishes);
    let wished = wished.get(&("default".to_owned(), map_name(config.map)))?.0.get("key")?.clone();
    let (files, told) = sim.files(&pod.record.uid);
    let has = files.get("conf").and_then(|set| set.files.get("key")).map(|file| file.bytes.expose().to_vec());
    let name = &pod.record.name;
    if has.as_ref() != Some(&wished) {
        return Some(format!("{name} has other files than are wished"));
    }
    let heard = config.reaction == "live" || told.iter().all(|told| *told == files);
    (!heard).then(|| format!("{name} was not told of its files"))
}

/// What is wrong with a world that should be as wished.
pub(crate) fn differences(sim: &Sim, wishes: &Wishes, snapshot: &Snapshot) -> Vec<String> {
    let pods = sim.pods();
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for (index, wish) in wishes {
        let wanted = workload(*index, wish, wishes);
        known.insert(wanted.id.clone());
        let of: Vec<_> = pods.iter().filter(|pod| pod.record.workload == wanted.id).collect();
        // What waits for something that does not serve, or not always, may be in any state.
        let mut needs = wish.needs.and_then(|needed| wishes.get(&needed));
        let mut waits = false;
        while let Some(needed) = needs {
            waits |= !serves(needed) || needed.replicas == 0;
            needs = needed.needs.and_then(|needed| wishes.get(&needed));
        }
        if waits || wish.image.contains("missing") {
            continue;
        }
        let back = snapshot.workloads.iter().any(|w| {
            w.name == wanted.id.name
                && w.kind == wanted.id.kind.to_string()
                && w.held.as_ref().is_some_and(|held| held.reason == "rolled_back")
        });
        if back {
            // What has ended for good keeps its files, whichever are wished.
            let failed = |pod: &PodFacts| {
                let with_files = referee::runs(pod) && outdated(sim, pod, wish, wishes).is_none();
                pod.record.spec == wanted.template.spec && (wish.config.is_none() || with_files)
            };
            if of.iter().any(|pod| failed(pod)) {
                wrong.push(format!("{} still has pods of the version that failed", wanted.id));
            }
            continue;
        }
        let current = of.iter().filter(|pod| pod.record.spec == wanted.template.spec).count();
        let serves = serves(wish);
        // A version that cannot serve does not take over from one that can.
        let enough = if serves { current == wish.replicas as usize } else { current >= 1 || wish.replicas == 0 };
        if !enough {
            wrong.push(format!("{} has {current} pods of its version, wants {}", wanted.id, wish.replicas));
        }
        if serves && of.len() != current {
            wrong.push(format!("{} still has {} old pods", wanted.id, of.len() - current));
        }
        if serves {
            for pod in of.iter().filter(|pod| !pod.containers.get("main").is_some_and(ContainerFacts::is_running)) {
                wrong.push(format!("{} does not run", pod.record.name));
            }
        }
        for pod in of.iter().filter(|pod| pod.record.spec == wanted.template.spec) {
            wrong.extend(serves.then(|| outdated(sim, pod, wish, wishes)).flatten());
            wrong.extend(referee::hangs(pod, sim.now()).then(|| format!("{} hangs", pod.record.name)));
        }
        if serves
            && wish.port
            && wish.replicas > 0
            && !sim.ports().keys().any(|key| usize::from(key.host_port) == 8000 + index)
        {
            wrong.push(format!("{} has no port", wanted.id));
        }
    }
    // What cannot be made replaces nothing: a Deployment in the place of a Pod that uses the same volume or port.
    let impossible = |pod: &&PodFacts| {
        wishes
            .iter()
            .any(|(index, wish)| pod.record.workload.name == format!("w{index}") && wish.image.contains("missing"))
    };
    // Such a one that runs keeps what it depends on.
    let needed = |pod: &&PodFacts| {
        let needs = |other: &&PodFacts| other.record.depends_on.contains(&pod.record.workload);
        pods.iter().filter(needs).any(|other| impossible(&other) && referee::runs(other))
    };
    let impossible = |pod: &&PodFacts| impossible(pod) || needed(pod);
    for pod in pods.iter().filter(|pod| !known.contains(&pod.record.workload) && !impossible(pod)) {
        wrong.push(format!("{} should be gone", pod.record.name));
    }
    wrong
}
