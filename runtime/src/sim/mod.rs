//! A seeded runtime in memory, for simulations: the same trait, no kernel.
//!
//! The world outlives the agent that uses it. An image's name says how its containers behave:
//!
//! | repository | behaviour |
//! |---|---|
//! | `sim/run` | runs until it is stopped |
//! | `sim/exit-<code>-<ms>` | ends with that code after that time |
//! | `sim/stubborn` | ignores the stop signal, needs the kill |
//! | `sim/slow-<ms>` | runs, and is well only so long after its start |
//! | `sim/hang-<ms>` | runs, and is well only so long after its start; then no more |
//! | `sim/broken` | its program cannot be started |
//! | `sim/missing` | is in no registry |
//!
//! A command in a container ends with 0 where that is well, else with 1.
//!
//! Faults strike before an effect (nothing was done) and after it (done, but reported as failed), latencies come from
//! the seed, and every broken rule is written down as a violation.

mod behaviour;
mod rng;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use spec::digest::Digest;
use spec::image_ref::ImageRef;
use spec::observed::{
    Addresses, ContainerFacts, ContainerState, DiskUsage, Exit, PodFacts, PodFailure, PodRecord, PodUid, PortKey,
    PortTarget,
};
use spec::pod::{PullPolicy, VolumeSource};
use spec::services::{ServiceRange, ServiceSet, ServiceState};
use spec::time::Timestamp;
use spec::workload::WorkloadId;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;

use crate::api::{
    ContainerStart, ContainerStats, ExecResult, FailureClass, FileSet, FilesChange, ImageInfo, NetworkStats, PortFault,
    PullCredentials, Result, Runtime, RuntimeError, RuntimeEvent, ServiceFault, StopScope,
};

use behaviour::{Behaviour, behaviour};

pub use behaviour::is_well;
pub use rng::Rng;

/// How hostile the world is.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// Chance in a thousand that a call fails before it does anything.
    pub before: u64,
    /// Chance in a thousand that a call reports a failure after it has done its work.
    pub after: u64,
    /// Chance in a thousand that a hint is lost.
    pub lost_hint: u64,
    /// Longest latency of a call in milliseconds.
    pub latency: u64,
}

impl Faults {
    /// No faults, short latencies.
    #[must_use]
    pub const fn none() -> Self {
        Self { before: 0, after: 0, lost_hint: 0, latency: 5 }
    }
}

struct SimPod {
    record: Arc<PodRecord>,
    sandbox: bool,
    containers: BTreeMap<String, ContainerFacts>,
    failed: Option<PodFailure>,
    /// What its generated volumes hold.
    files: BTreeMap<String, FileSet>,
    /// What containers were told last that they hold: by their start, or by a signal.
    told: BTreeMap<String, BTreeMap<String, FileSet>>,
}

struct World {
    rng: Rng,
    faults: Faults,
    pods: BTreeMap<PodUid, SimPod>,
    ports: BTreeMap<PortKey, PortTarget>,
    services: ServiceSet,
    listeners: Vec<mpsc::UnboundedSender<RuntimeEvent>>,
    boot_id: String,
    next_pid: u32,
    trace: Vec<String>,
    violations: Vec<String>,
    /// Starts before the end of a backoff that each pod may still have: its inputs changed.
    pardons: BTreeMap<PodUid, u32>,
    /// Named volumes in which every file is said to be.
    locked: BTreeSet<String>,
}

/// The world. Clones share it.
#[derive(Clone)]
pub struct Sim {
    world: Arc<Mutex<World>>,
    start: tokio::time::Instant,
}

fn failure(operation: &str, class: FailureClass, why: &str) -> RuntimeError {
    RuntimeError { operation: operation.to_owned(), class, hint: None, source: why.to_owned().into() }
}

impl Sim {
    /// A world from a seed.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        let world = World {
            rng: Rng::new(seed),
            faults,
            pods: BTreeMap::new(),
            ports: BTreeMap::new(),
            services: ServiceSet::default(),
            listeners: Vec::new(),
            boot_id: "boot-1".to_owned(),
            next_pid: 100,
            trace: Vec::new(),
            violations: Vec::new(),
            pardons: BTreeMap::new(),
            locked: BTreeSet::new(),
        };
        Self { world: Arc::new(Mutex::new(world)), start: tokio::time::Instant::now() }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        // Guards the in-memory world for the length of one step; no step panics while it holds it.
        self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Milliseconds on the simulated boot-time clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let elapsed = tokio::time::Instant::now().saturating_duration_since(self.start);
        Timestamp(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_add(3_600_000))
    }

    /// A new pod's id, from the seed.
    #[must_use]
    pub fn next_uid(&self) -> PodUid {
        PodUid(format!("{:016x}", self.world().rng.draw()))
    }

    /// Changes how hostile the world is.
    pub fn set_faults(&self, faults: Faults) {
        self.world().faults = faults;
    }

    /// Everything that was done, in order.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.world().trace.clone()
    }

    /// Rules that were broken.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.world().violations.clone()
    }

    /// Says that the inputs of a workload have changed: each container of its pods may be tried again once without
    /// waiting.
    pub fn inputs_changed(&self, workload: &WorkloadId) {
        let mut world = self.world();
        let pods: Vec<(PodUid, usize)> = world
            .pods
            .values()
            .filter(|pod| pod.record.workload == *workload)
            .map(|pod| (pod.record.uid.clone(), pod.containers.len()))
            .collect();
        for (uid, containers) in pods {
            *world.pardons.entry(uid).or_default() += u32::try_from(containers).unwrap_or(u32::MAX);
        }
    }

    /// The pods as they are: name, whether all containers run, record.
    #[must_use]
    pub fn pods(&self) -> Vec<PodFacts> {
        self.world().pods.values().map(facts).collect()
    }

    /// What the generated volumes of a pod hold, and what its running containers were told last that they hold.
    #[must_use]
    pub fn files(&self, pod: &PodUid) -> (BTreeMap<String, FileSet>, Vec<BTreeMap<String, FileSet>>) {
        let world = self.world();
        let Some(pod) = world.pods.get(pod) else { return Default::default() };
        let running = pod.containers.iter().filter(|(_, facts)| facts.is_running());
        (pod.files.clone(), running.filter_map(|(name, _)| pod.told.get(name).cloned()).collect())
    }

    /// Whether an attempt that is known as running still runs.
    #[must_use]
    pub fn runs(&self, pod: &PodFacts, container: &str) -> bool {
        let world = self.world();
        let known = pod.containers.get(container).filter(|facts| facts.is_running());
        let now = world.pods.get(&pod.record.uid).and_then(|pod| pod.containers.get(container));
        now.zip(known).is_some_and(|(now, known)| now.is_running() && now.attempt == known.attempt)
    }

    /// Makes lock files in a named volume, or removes them.
    pub fn set_locked(&self, volume: &str, locked: bool) {
        let mut world = self.world();
        if locked {
            world.locked.insert(volume.to_owned())
        } else {
            world.locked.remove(volume)
        };
    }

    /// What Services open.
    #[must_use]
    pub fn services(&self) -> ServiceSet {
        self.world().services.clone()
    }

    /// The published ports.
    #[must_use]
    pub fn ports(&self) -> BTreeMap<PortKey, PortTarget> {
        self.world().ports.clone()
    }

    /// This boot.
    #[must_use]
    pub fn boot_id(&self) -> String {
        self.world().boot_id.clone()
    }

    /// Kills a random running container, as somebody with a shell would.
    pub fn kill_random(&self) {
        let mut world = self.world();
        let running: Vec<(PodUid, String, u32)> = world
            .pods
            .iter()
            .flat_map(|(uid, pod)| {
                pod.containers
                    .iter()
                    .filter(|(_, facts)| facts.is_running())
                    .map(|(name, facts)| (uid.clone(), name.clone(), facts.attempt))
            })
            .collect();
        if running.is_empty() {
            return;
        }
        let index = world.rng.below(running.len() as u64);
        let Some((uid, name, attempt)) = usize::try_from(index).ok().and_then(|index| running.get(index)).cloned()
        else {
            return;
        };
        drop(world);
        self.end(&uid, &name, attempt, 137, false);
    }

    /// Everything that runs ends without a record, and a new boot begins.
    pub fn reboot(&self) {
        let now = self.now();
        let mut world = self.world();
        let boot = format!("boot-{}", world.trace.len());
        let old = std::mem::replace(&mut world.boot_id, boot);
        for pod in world.pods.values_mut() {
            pod.sandbox = false;
            for facts in pod.containers.values_mut() {
                if let ContainerState::Running { started, .. } = facts.state {
                    facts.state = ContainerState::Exited(exit(137, Some(started), now, &old, Some("lost")));
                }
            }
        }
        world.ports.clear();
        world.services.entrances.clear();
        world.trace.push("reboot".to_owned());
    }

    /// Ends an attempt, if it still runs.
    fn end(&self, uid: &PodUid, name: &str, attempt: u32, code: i32, stopped: bool) {
        let now = self.now();
        let mut world = self.world();
        let boot = world.boot_id.clone();
        let Some(facts) = world.pods.get_mut(uid).and_then(|pod| pod.containers.get_mut(name)) else { return };
        let ContainerState::Running { started, .. } = facts.state else { return };
        if facts.attempt != attempt {
            return;
        }
        facts.state = ContainerState::Exited(Exit { stopped, ..exit(code, Some(started), now, &boot, None) });
        world.trace.push(format!("{} end {name} of {uid}: {code}", now.0));
        world.hint(RuntimeEvent::ContainerChanged(uid.clone(), name.to_owned()));
    }

    /// Waits as the seed says, then may fail before the effect.
    async fn enter(&self, operation: &str) -> Result<()> {
        let (wait, fails) = {
            let mut world = self.world();
            let latency = world.faults.latency;
            let before = world.faults.before;
            (world.rng.below(latency + 1), world.rng.below(1000) < before)
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        if fails { Err(failure(operation, FailureClass::Transient, "injected before the effect")) } else { Ok(()) }
    }

    /// May fail although the effect is there.
    fn leave<T>(&self, operation: &str, value: T) -> Result<T> {
        let mut world = self.world();
        let after = world.faults.after;
        if world.rng.below(1000) < after {
            return Err(failure(operation, FailureClass::Transient, "injected after the effect"));
        }
        Ok(value)
    }
}

impl World {
    fn hint(&mut self, hint: RuntimeEvent) {
        if self.rng.below(1000) < self.faults.lost_hint {
            return;
        }
        self.listeners.retain(|listener| listener.send(hint.clone()).is_ok());
    }
}

fn exit(code: i32, started: Option<Timestamp>, finished: Timestamp, boot: &str, error: Option<&str>) -> Exit {
    Exit {
        code,
        signal: (code > 128).then_some(code - 128),
        oom: false,
        started,
        finished,
        finished_unix: 0,
        boot_id: boot.to_owned(),
        error: error.map(str::to_owned),
        message: None,
        stopped: false,
    }
}

fn facts(pod: &SimPod) -> PodFacts {
    let octet = pod.record.uid.0.bytes().fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    PodFacts {
        record: Arc::clone(&pod.record),
        sandbox: pod.sandbox,
        addresses: Addresses { v4: Some(std::net::Ipv4Addr::new(10, 88, octet, octet.wrapping_add(1))), v6: None },
        containers: pod.containers.clone(),
        failed: pod.failed.clone(),
    }
}

fn image_of(record: &PodRecord, container: &str) -> Option<ImageRef> {
    record.spec.all_containers().find(|c| c.name == container)?.image.clone()
}

#[async_trait]
impl Runtime for Sim {
    async fn list(&self) -> Result<Vec<PodFacts>> {
        self.enter("list pods").await?;
        Ok(self.pods())
    }

    async fn inspect(&self, pod: &PodUid) -> Result<Option<PodFacts>> {
        self.enter("inspect pod").await?;
        Ok(self.world().pods.get(pod).map(facts))
    }

    fn events(&self) -> mpsc::UnboundedReceiver<RuntimeEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.world().listeners.push(sender);
        receiver
    }

    async fn image(&self, reference: &ImageRef) -> Result<Option<ImageInfo>> {
        let digest = Digest::of(reference.to_string().as_bytes());
        Ok(Some(ImageInfo { reference: reference.clone(), digest, size: 1, fetched: 0 }))
    }

    async fn pull(&self, reference: &ImageRef, _: PullPolicy, _: &PullCredentials) -> Result<ImageInfo> {
        let operation = format!("pull image `{reference}`");
        self.enter(&operation).await?;
        if reference.repository().ends_with("missing") {
            let line = format!("{} {reference} is in no registry", self.now().0);
            self.world().trace.push(line);
            return Err(failure(&operation, FailureClass::Permanent, "not found"));
        }
        let digest = Digest::of(reference.to_string().as_bytes());
        self.leave(&operation, ImageInfo { reference: reference.clone(), digest, size: 1, fetched: 0 })
    }

    async fn check_pod(&self, _: Arc<PodRecord>) -> Result<()> {
        self.enter("check pod").await?;
        self.leave("check pod", ())
    }

    async fn create_pod(&self, record: Arc<PodRecord>, files: BTreeMap<String, FileSet>) -> Result<Addresses> {
        self.enter("create pod").await?;
        let addresses = {
            let mut world = self.world();
            let now = self.now();
            world.trace.push(format!("{} create {} {}", now.0, record.name, record.uid));
            let pod = world.pods.entry(record.uid.clone()).or_insert_with(|| SimPod {
                record: Arc::clone(&record),
                sandbox: true,
                containers: BTreeMap::new(),
                failed: None,
                files: BTreeMap::new(),
                told: BTreeMap::new(),
            });
            pod.sandbox = true;
            pod.files = files;
            facts(pod).addresses
        };
        self.leave("create pod", addresses)
    }

    async fn start_container(&self, start: ContainerStart) -> Result<ContainerFacts> {
        let operation = format!("start container `{}`", start.container.name);
        self.enter(&operation).await?;
        let uid = start.pod.uid.clone();
        let name = start.container.name.clone();
        let Some(image) = start.container.image.clone() else {
            return Err(failure(&operation, FailureClass::Permanent, "no image"));
        };
        let now = self.now();
        let behaviour = behaviour(&image);
        let facts = {
            let mut world = self.world();
            let known = world.pods.get(&uid).and_then(|pod| pod.containers.get(&name));
            if let Some(known) = known.filter(|known| known.attempt == start.attempt) {
                return Ok(known.clone());
            }
            world.check_start(&start, now);
            world.next_pid += 1;
            let pid = world.next_pid;
            let boot = world.boot_id.clone();
            let state = match behaviour {
                Behaviour::Broken => {
                    ContainerState::Exited(exit(127, None, now, &boot, Some("no such program in the image")))
                }
                Behaviour::Run
                | Behaviour::Exit(..)
                | Behaviour::Stubborn
                | Behaviour::Slow(_)
                | Behaviour::Hang(_) => ContainerState::Running { pid, started: now },
            };
            let facts = ContainerFacts::new(start.attempt, start.series, state);
            world.trace.push(format!("{} start {name} of {} #{}", now.0, start.pod.name, start.attempt));
            if let Some(pod) = world.pods.get_mut(&uid) {
                pod.containers.insert(name.clone(), facts.clone());
                pod.told.insert(name.clone(), pod.files.clone());
            }
            facts
        };
        if let Behaviour::Exit(code, millis) = behaviour {
            let (sim, attempt) = (self.clone(), start.attempt);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                sim.end(&uid, &name, attempt, code, false);
            });
        }
        self.leave(&operation, facts)
    }

    async fn signal_container(&self, _: &PodUid, _: &str, _: i32) -> Result<()> {
        Ok(())
    }

    async fn stop_container(&self, pod: &PodUid, container: &str, grace: Duration, scope: StopScope) -> Result<()> {
        self.enter("stop container").await?;
        let running = self.world().pods.get(pod).and_then(|pod| {
            let facts = pod.containers.get(container)?;
            facts.is_running().then_some((facts.attempt, behaviour(&image_of(&pod.record, container)?)))
        });
        if let Some((attempt, behaviour)) = running {
            let stubborn = matches!(behaviour, Behaviour::Stubborn);
            let wait = if stubborn { grace } else { Duration::from_millis(10).min(grace) };
            tokio::time::sleep(wait).await;
            self.end(pod, container, attempt, if stubborn { 137 } else { 0 }, scope == StopScope::Pod);
        }
        self.leave("stop container", ())
    }

    async fn mark_unhealthy(&self, pod: &PodUid, container: &str, attempt: u32) -> Result<()> {
        if let Some(facts) = self.world().pods.get_mut(pod).and_then(|pod| pod.containers.get_mut(container)) {
            facts.unhealthy |= facts.attempt == attempt;
        }
        Ok(())
    }

    async fn exec(&self, pod: &PodUid, container: &str, _: &[String], _: Duration) -> Result<ExecResult> {
        self.enter("run a command").await?;
        let well = self.world().pods.get(pod).and_then(|pod| {
            let ContainerState::Running { started, .. } = pod.containers.get(container)?.state else { return None };
            Some(is_well(&image_of(&pod.record, container)?, self.now().since(started)))
        });
        let Some(well) = well else { return Err(failure("run a command", FailureClass::Permanent, "it does not run")) };
        self.leave("run a command", ExecResult { code: Some(i32::from(!well)), output: Vec::new() })
    }

    async fn socket(&self, _: &PodUid, _: SocketAddr) -> std::io::Result<TcpSocket> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    async fn fail_pod(&self, pod: &PodUid, failure: &PodFailure) -> Result<()> {
        self.enter("fail pod").await?;
        {
            let now = self.now();
            let mut world = self.world();
            if let Some(found) = world.pods.get_mut(pod) {
                let name = found.record.name.clone();
                found.failed.get_or_insert_with(|| failure.clone());
                world.trace.push(format!("{} fail {name}: {}", now.0, failure.reason));
            }
        }
        self.leave("fail pod", ())
    }

    async fn disk_usage(&self, _: &PodUid) -> Result<DiskUsage> {
        Ok(DiskUsage::default())
    }

    async fn remove_pod(&self, pod: &PodUid) -> Result<()> {
        self.enter("remove pod").await?;
        {
            let now = self.now();
            let mut world = self.world();
            if let Some(gone) = world.pods.remove(pod) {
                if gone.containers.values().any(ContainerFacts::is_running) {
                    world.violations.push(format!("pod {} was removed while a container ran", gone.record.name));
                }
                world.trace.push(format!("{} remove {}", now.0, gone.record.name));
            }
        }
        self.leave("remove pod", ())
    }

    async fn publish(&self, ports: &BTreeMap<PortKey, PortTarget>) -> Result<Vec<PortFault>> {
        self.enter("publish ports").await?;
        {
            let now = self.now();
            let mut world = self.world();
            let leads = ports.iter().map(|(key, target)| format!("{key} to {}", target.pod));
            let line = format!("{} publish {}", now.0, leads.collect::<Vec<_>>().join(", "));
            world.trace.push(line);
            world.ports.clone_from(ports);
        }
        self.leave("publish ports", Vec::new())
    }

    async fn connections(&self, _: &PodUid) -> Result<usize> {
        self.enter("count connections").await?;
        Ok(usize::try_from(self.world().rng.below(3)).unwrap_or(0))
    }

    async fn service_state(&self) -> Result<ServiceState> {
        let world = self.world();
        Ok(ServiceState {
            range: Some(ServiceRange { first: std::net::Ipv4Addr::new(10, 95, 240, 0), prefix: 20 }),
            gateway: Some(std::net::Ipv4Addr::new(10, 88, 0, 1)),
            leases: world.services.leases.clone(),
            ready: world.services.ready.clone(),
        })
    }

    async fn publish_services(&self, services: &ServiceSet) -> Result<Vec<ServiceFault>> {
        self.enter("publish services").await?;
        self.world().services = services.clone();
        self.leave("publish services", Vec::new())
    }

    async fn define_network(&self, _: &spec::workload::NetworkSpec) -> Result<()> {
        self.enter("define network").await
    }

    async fn set_names(&self, _: &spec::names::NameTable) -> Result<()> {
        self.enter("set names").await?;
        self.leave("set names", ())
    }

    async fn update_files(&self, pod: &PodUid, files: BTreeMap<String, FileSet>, change: FilesChange) -> Result<bool> {
        self.enter("update files").await?;
        let differed = {
            let (now, mut world) = (self.now(), self.world());
            let Some(found) = world.pods.get_mut(pod) else {
                return Err(failure("update files", FailureClass::Transient, "there is no such pod"));
            };
            let differed = found.files != files;
            let line = format!("{} files of {}: {change:?}, differed: {differed}", now.0, found.record.name);
            if change != FilesChange::Compare {
                found.files = files;
            }
            if matches!(change, FilesChange::Signal(_)) {
                let files = &found.files;
                found.told.values_mut().for_each(|told| told.clone_from(files));
            }
            world.trace.push(line);
            differed
        };
        self.leave("update files", differed)
    }

    async fn teardown(&self) -> Result<()> {
        let mut world = self.world();
        world.ports.clear();
        world.services.entrances.clear();
        Ok(())
    }

    async fn stats(&self, _: &PodUid, _: &str) -> Result<ContainerStats> {
        Ok(ContainerStats::default())
    }

    async fn network_stats(&self, _: &PodUid) -> Result<Option<NetworkStats>> {
        Ok(None)
    }

    fn has_file(&self, pod: &PodFacts, container: &str, path: &Path) -> bool {
        let runs = self.runs(pod, container);
        let world = self.world();
        let spec = &pod.record.spec;
        let mut mounts = spec.all_containers().filter(|c| runs && c.name == container).flat_map(|c| &c.mounts);
        let mount = mounts.find(|mount| path.starts_with(&mount.path));
        let volume = mount.and_then(|mount| spec.volumes.iter().find(|volume| volume.name == mount.volume));
        volume.is_some_and(|v| matches!(&v.source, VolumeSource::Named { name } if world.locked.contains(name)))
    }

    fn log_files(&self, _: &PodUid, _: &str) -> Vec<PathBuf> {
        Vec::new()
    }
}

impl World {
    /// The rules that every start must keep.
    fn check_start(&mut self, start: &ContainerStart, now: Timestamp) {
        let name = &start.container.name;
        let mut broken = Vec::new();
        match self.pods.get(&start.pod.uid) {
            None => broken.push(format!("started {name} in a pod that does not exist")),
            Some(pod) => {
                if pod.failed.is_some() {
                    broken.push(format!("started {name} of {}, which has failed", start.pod.name));
                }
                if !pod.sandbox {
                    broken.push(format!("started {name} of {} without namespaces", start.pod.name));
                }
                match pod.containers.get(name) {
                    Some(facts) if facts.is_running() => {
                        broken.push(format!("two live containers for {name} of {}", start.pod.name));
                    }
                    Some(facts) if start.attempt <= facts.attempt => {
                        broken.push(format!("attempt {} of {name} again", start.attempt));
                    }
                    Some(facts) => {
                        let early = too_early(facts, &self.boot_id, now, start);
                        let pardons = self.pardons.get_mut(&start.pod.uid).filter(|left| early.is_some() && **left > 0);
                        match pardons {
                            Some(left) => *left -= 1,
                            None => broken.extend(early),
                        }
                    }
                    None => {}
                }
            }
        }
        // Of one workload, pods of one version may share what they write.
        let others = self.pods.values().filter(|pod| {
            (pod.record.workload != start.pod.workload || pod.record.spec != start.pod.spec)
                && pod.record.spec.shares_writable_data(&start.pod.spec)
                && pod.containers.values().any(ContainerFacts::is_running)
        });
        for other in others {
            broken.push(format!("{} writes the same data as {}", start.pod.name, other.record.name));
        }
        self.violations.extend(broken);
    }
}

/// Kubernetes' waits, computed apart from the product: 0, 10, 20, 40 ... 300 s, afresh after ten minutes.
fn too_early(facts: &ContainerFacts, boot: &str, now: Timestamp, start: &ContainerStart) -> Option<String> {
    let exit = facts.exit()?;
    let started = exit.started?;
    // One that was told to end with its pod did not fail.
    if exit.stopped || exit.boot_id != boot || exit.finished.since(started).0 >= 600_000 || facts.series == 0 {
        return None;
    }
    let wait = (10_000u64 << (facts.series - 1).min(10)).min(300_000);
    let due = exit.finished.0 + wait;
    (now.0 < due).then(|| format!("{} restarted {} ms before its backoff ended", start.container.name, due - now.0))
}
