//! Does what the plan says: one action, a few calls of the runtime, one outcome. Decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime::Runtime;
use runtime::api::{
    ContainerStart, FailureClass, FileContent, FileSet, FilesChange, PortFault, RegistryAuth, RuntimeError,
    ServiceFault, StopScope,
};
use spec::env::{EnvError, NodeFacts, PodContext};
use spec::files::FilesError;
use spec::names::NameTable;
use spec::observed::{
    Addresses, ContainerFacts, JobMemory, PodFacts, PodFailure, PodRecord, PodUid, PortKey, PortTarget,
};
use spec::plan::{Action, Goal, Reaction};
use spec::pod::{ContainerSpec, EnvSource, Handler, PodSpec, ResolvedImages, VolumeSource};
use spec::services::ServiceSet;
use spec::time::Timestamp;
use spec::workload::Desired;

use crate::clock::SharedClock;
use crate::memory::{Memories, MemoryError};

/// Everything an action needs besides itself.
#[derive(Clone)]
pub struct Executor {
    /// Hands.
    pub runtime: Arc<dyn Runtime>,
    /// Time.
    pub clock: SharedClock,
    /// Facts of the node.
    pub node: Arc<NodeFacts>,
    /// This boot.
    pub boot_id: Arc<str>,
    /// Unique ids for new pods: an input, so that simulations can repeat themselves.
    pub uids: Arc<dyn Fn() -> PodUid + Send + Sync>,
    /// What is remembered of workloads.
    pub memories: Memories,
    /// At most so many pods are made and containers started at once.
    pub starts: Arc<tokio::sync::Semaphore>,
}

/// What came of an action.
#[derive(Debug)]
pub enum Outcome {
    /// What each container's image stands for, and how many bytes were fetched for it.
    Prepared(ResolvedImages, u64),
    /// The pod exists, with the label of its generated files.
    PodReady(Box<PodFacts>, String),
    /// An attempt of the container was started (and may have ended already).
    Started(ContainerFacts),
    /// The container has ended.
    ContainerStopped,
    /// The pod is marked as failed, and nothing in it runs any more.
    PodFailed(PodFailure),
    /// The pod is gone.
    PodGone,
    /// These ports are published, and these could not be.
    Published(BTreeMap<PortKey, PortTarget>, Vec<PortFault>),
    /// Services are open like this, and these entrances could not be had.
    ServicesPublished(Box<ServiceSet>, Vec<ServiceFault>),
    /// Pods know these names.
    Named(Box<NameTable>),
    /// The pod's generated files have this label.
    FilesUpdated(String),
    /// It is written down.
    Remembered(Option<JobMemory>),
    /// It failed.
    Failed(ActionError),
}

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// A call of the runtime failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A variable has no value.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// Files of a volume cannot be made.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Something cannot be written down.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A container has no image.
    #[error("container `{0}` names no image")]
    NoImage(String),
}

impl ActionError {
    /// Whether trying again is pointless until an input changes.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Runtime(error) => error.class == FailureClass::Permanent,
            Self::Env(_) | Self::Files(_) | Self::NoImage(_) => true,
            Self::Memory(_) => false,
        }
    }

    /// Something the reader can do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Runtime(error) => error.hint.as_deref(),
            Self::Env(_) | Self::Files(_) => Some("add the missing object, or mark the reference `optional: true`"),
            Self::NoImage(_) | Self::Memory(_) => None,
        }
    }

    /// The message with the whole chain of causes, and the hint.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = spec::causes::chain(self);
        if let Some(hint) = self.hint() {
            text.push_str(" (hint: ");
            text.push_str(hint);
            text.push(')');
        }
        text
    }
}

impl Executor {
    /// Does one action. `desired` is the state the plan was made from.
    pub async fn execute(&self, action: Action, desired: Arc<Desired>) -> Outcome {
        let result = match action {
            Action::Prepare { goal } => {
                self.prepare(&goal, &desired).await.map(|(images, fetched)| Outcome::Prepared(images, fetched))
            }
            Action::CreatePod { goal, ordinal, name, spec, images, run } => {
                let record = PodRecord { run, ..self.record(&goal, (self.uids)(), ordinal, name, spec, images) };
                let record = Arc::new(record);
                self.make_pod(record, &desired, goal.files, BTreeMap::new()).await
            }
            Action::RestorePod { pod } => {
                self.make_pod(Arc::clone(&pod.record), &desired, String::new(), pod.containers.clone()).await
            }
            Action::StartContainer { pod, container, attempt, series } => {
                self.start(&pod, &container, attempt, series, &desired).await.map(Outcome::Started)
            }
            Action::StopContainer { pod, container, grace, unhealthy } => self
                .stop_one(&pod, &container, grace.as_duration(), unhealthy)
                .await
                .map(|()| Outcome::ContainerStopped),
            Action::FailPod { pod, failure, grace } => self.fail_pod(&pod, failure, grace.as_duration()).await,
            Action::StopPod { pod, grace } => self.stop_pod(&pod, grace.as_duration()).await,
            Action::Publish { ports } => self.runtime.publish(&ports).await.map_err(ActionError::from).map(|faults| {
                let mut published = ports;
                published.retain(|key, _| faults.iter().all(|fault| fault.key != *key));
                Outcome::Published(published, faults)
            }),
            Action::PublishServices { mut services } => {
                self.runtime.publish_services(&services).await.map_err(ActionError::from).map(|faults| {
                    services.entrances.retain(|entrance, _| faults.iter().all(|fault| fault.entrance != *entrance));
                    Outcome::ServicesPublished(services, faults)
                })
            }
            Action::SetNames { names } => {
                self.runtime.set_names(&names).await.map(|()| Outcome::Named(names)).map_err(ActionError::from)
            }
            Action::UpdateFiles { pod, label, reaction } => self.update_files(&pod, &desired, label, reaction).await,
            Action::Remember { workload, memory } => {
                let memories = self.memories.clone();
                let write = move || memories.set(&workload, memory.as_ref()).map(|()| Outcome::Remembered(memory));
                match tokio::task::spawn_blocking(write).await {
                    Ok(written) => written.map_err(ActionError::from),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
            }
        };
        result.unwrap_or_else(Outcome::Failed)
    }

    async fn prepare(&self, goal: &Goal, desired: &Desired) -> Result<(ResolvedImages, u64), ActionError> {
        let spec = &goal.workload.template.spec;
        if let Some(images) = &goal.images {
            // They are here, or are gone: then it is better to know before anything is ended for them.
            self.check(goal, images.clone(), desired).await?;
            return Ok((images.clone(), 0));
        }
        let credentials = pull_credentials(desired, &goal.workload.id.namespace, spec);
        let mut images = ResolvedImages::new();
        let mut fetched = 0u64;
        for container in spec.all_containers() {
            let image = container.image.as_ref().ok_or_else(|| ActionError::NoImage(container.name.clone()))?;
            let info = self.runtime.pull(image, container.pull_policy(), &credentials).await?;
            fetched = fetched.saturating_add(info.fetched);
            images.insert(container.name.clone(), info.digest);
        }
        for volume in &spec.volumes {
            let VolumeSource::Image { image, pull_policy } = &volume.source else { continue };
            let policy = pull_policy.unwrap_or_else(|| image.default_pull_policy());
            let info = self.runtime.pull(image, policy, &credentials).await?;
            fetched = fetched.saturating_add(info.fetched);
            images.insert(spec::observed::volume_image(&volume.name), info.digest);
        }
        self.check(goal, images.clone(), desired).await?;
        Ok((images, fetched))
    }

    /// Tries out whatever of a new pod can fail, as far as that leaves no trace: the values it refers to, then what the
    /// runtime knows of volumes, users and ports.
    async fn check(&self, goal: &Goal, images: ResolvedImages, desired: &Desired) -> Result<(), ActionError> {
        let workload = &goal.workload;
        let spec = Arc::clone(&workload.template.spec);
        let uid = PodUid("0000000000000000".to_owned());
        let record = Arc::new(self.record(goal, uid, 0, workload.id.name.clone(), spec, images));
        self.files(&record, Addresses::default(), desired)?;
        for container in record.spec.all_containers() {
            self.env(&record, container, Addresses::default(), desired)?;
        }
        Ok(self.runtime.check_pod(record).await?)
    }

    fn record(
        &self,
        goal: &Goal,
        uid: PodUid,
        ordinal: u32,
        name: String,
        spec: Arc<PodSpec>,
        images: ResolvedImages,
    ) -> PodRecord {
        let template = &goal.workload.template;
        PodRecord {
            uid,
            workload: goal.workload.id.clone(),
            ordinal,
            revision: goal.revision.clone(),
            name,
            labels: template.labels.clone(),
            annotations: template.annotations.clone(),
            depends_on: goal.workload.depends_on.iter().map(|dependency| dependency.workload.clone()).collect(),
            source: goal.workload.source.clone(),
            spec,
            images,
            created_unix: self.clock.unix(),
            created: self.clock.now(),
            boot_id: self.boot_id.to_string(),
            run: None,
            bound: template.bound.clone(),
        }
    }

    async fn make_pod(
        &self,
        record: Arc<PodRecord>,
        desired: &Desired,
        label: String,
        containers: BTreeMap<String, ContainerFacts>,
    ) -> Result<Outcome, ActionError> {
        let _permit = self.starts.acquire().await;
        let files = self.files(&record, Addresses::default(), desired)?;
        for attachment in &record.spec.networks {
            if let Some(network) = desired.networks.get(&attachment.network) {
                self.runtime.define_network(network).await?;
            }
        }
        let addresses = self.runtime.create_pod(Arc::clone(&record), files).await?;
        let facts = PodFacts { record, sandbox: true, addresses, containers, failed: None };
        Ok(Outcome::PodReady(Box::new(facts), label))
    }

    async fn start(
        &self,
        pod: &PodFacts,
        name: &str,
        attempt: u32,
        series: u32,
        desired: &Desired,
    ) -> Result<ContainerFacts, ActionError> {
        let _permit = self.starts.acquire().await;
        let record = &pod.record;
        let container = container_of(record, name).ok_or_else(|| ActionError::NoImage(name.to_owned()))?;
        let image = *record.images.get(name).ok_or_else(|| ActionError::NoImage(name.to_owned()))?;
        let env = self.env(record, container, pod.addresses, desired)?;
        let mut container = container.clone();
        if container.expand_args {
            let known: BTreeMap<&str, &str> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let expand =
                |text: &String| spec::env::expand(text, |name| known.get(name).map(|value| (*value).to_owned()));
            container.command = container.command.map(|words| words.iter().map(expand).collect());
            container.args = container.args.map(|words| words.iter().map(expand).collect());
            for mount in container.mounts.iter_mut().filter(|mount| mount.sub_path_expr) {
                mount.sub_path = mount.sub_path.as_ref().map(expand);
            }
        }
        let hooks = container.post_start.clone();
        let start = ContainerStart {
            pod: Arc::clone(record),
            container: Arc::new(container),
            attempt,
            series,
            image,
            env,
            files: self.files(record, pod.addresses, desired)?,
        };
        let facts = self.runtime.start_container(start).await?;
        for hook in &hooks {
            if !self.hook(pod, name, hook, Duration::from_secs(60)).await {
                // A postStart hook that fails ends the container (Kubernetes API, Lifecycle.postStart).
                self.runtime.stop_container(&record.uid, name, Duration::ZERO, StopScope::Container).await?;
                break;
            }
        }
        Ok(facts)
    }

    async fn stop_one(
        &self,
        pod: &PodFacts,
        name: &str,
        grace: Duration,
        unhealthy: Option<u32>,
    ) -> Result<(), ActionError> {
        if let Some(attempt) = unhealthy {
            // First: an agent that dies in between must know why it ended, whatever its exit code says.
            self.runtime.mark_unhealthy(&pod.record.uid, name, attempt).await?;
        }
        self.stop(pod, name, grace, StopScope::Container).await
    }

    async fn stop(&self, pod: &PodFacts, name: &str, grace: Duration, scope: StopScope) -> Result<(), ActionError> {
        let started = tokio::time::Instant::now();
        if let Some(container) = container_of(&pod.record, name)
            && pod.containers.get(name).is_some_and(ContainerFacts::is_running)
        {
            for hook in &container.pre_stop {
                let left = grace.saturating_sub(started.elapsed());
                self.hook(pod, name, hook, left).await;
            }
        }
        // A preStop hook that used the grace period up leaves the container two seconds (kubelet).
        let left = grace.saturating_sub(started.elapsed());
        let left = if left.is_zero() && !grace.is_zero() { Duration::from_secs(2) } else { left };
        Ok(self.runtime.stop_container(&pod.record.uid, name, left, scope).await?)
    }

    /// Runs a hook; whether it succeeded.
    async fn hook(&self, pod: &PodFacts, container: &str, hook: &Handler, limit: Duration) -> bool {
        let run = async {
            match hook {
                Handler::Exec(command) => match self.runtime.exec(&pod.record.uid, container, command, limit).await {
                    Ok(result) => result.code == Some(0),
                    Err(error) => {
                        tracing::warn!(pod = %pod.record.name, container, %error, "hook failed");
                        false
                    }
                },
                Handler::Sleep(length) => {
                    tokio::time::sleep(length.as_duration()).await;
                    true
                }
                Handler::Http { .. } | Handler::Tcp { .. } | Handler::Grpc { .. } => {
                    crate::probe::check(hook, pod, container, limit, self.runtime.as_ref()).await.is_ok()
                }
            }
        };
        tokio::time::timeout(limit, run).await.unwrap_or(false)
    }

    async fn stop_pod(&self, pod: &PodFacts, grace: Duration) -> Result<Outcome, ActionError> {
        self.stop_containers(pod, grace).await?;
        self.runtime.remove_pod(&pod.record.uid).await?;
        Ok(Outcome::PodGone)
    }

    /// The mark comes first: whatever happens after it, nothing of the pod is started again.
    async fn fail_pod(&self, pod: &PodFacts, failure: PodFailure, grace: Duration) -> Result<Outcome, ActionError> {
        self.runtime.fail_pod(&pod.record.uid, &failure).await?;
        self.stop_containers(pod, grace).await?;
        Ok(Outcome::PodFailed(failure))
    }

    /// Stops all containers of a pod, sidecars last.
    async fn stop_containers(&self, pod: &PodFacts, grace: Duration) -> Result<(), ActionError> {
        let started = tokio::time::Instant::now();
        let spec = &pod.record.spec;
        let sidecar = |c: &&ContainerSpec| c.is_sidecar();
        let main = spec.containers.iter().chain(spec.init_containers.iter().filter(|c| !c.is_sidecar()));
        let stops = main.map(|container| self.stop(pod, &container.name, grace, StopScope::Pod));
        let mut first_error = futures_util::future::join_all(stops).await.into_iter().find_map(Result::err);
        for container in spec.init_containers.iter().rev().filter(sidecar) {
            let left = grace.saturating_sub(started.elapsed());
            if let Err(error) = self.stop(pod, &container.name, left, StopScope::Pod).await {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Stops every container within this time, dependents first, and forgets nothing: for a shutdown. Returns how many
    /// pods ran.
    pub async fn shutdown(&self, desired: &Desired, limit: Duration) -> Result<usize, String> {
        let deadline = tokio::time::Instant::now() + limit;
        let report = |error: ActionError| error.report();
        let mut pods = self.runtime.list().await.map_err(|error| report(error.into()))?;
        pods.retain(|pod| pod.containers.values().any(ContainerFacts::is_running));
        let workloads = pods.iter().map(|pod| pod.record.workload.clone()).collect();
        let needs = |workload: &Arc<spec::workload::Workload>| {
            workload.depends_on.iter().map(|on| on.workload.clone()).collect()
        };
        let depends = desired.workloads.iter().map(|(id, workload)| (id.clone(), needs(workload))).collect();
        let mut failed = Vec::new();
        for group in spec::shutdown::order(&workloads, &depends) {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let members = pods.iter().filter(|pod| group.contains(&pod.record.workload));
            let stops = members.map(|pod| {
                let grace = pod.record.spec.termination_grace().as_duration().min(left);
                tracing::info!(pod = %pod.record.name, "stopping for a shutdown");
                self.stop_containers(pod, grace)
            });
            let results = futures_util::future::join_all(stops).await;
            failed.extend(results.into_iter().filter_map(|result| result.err().map(report)));
        }
        if failed.is_empty() { Ok(pods.len()) } else { Err(failed.join("; ")) }
    }

    /// Stops and removes every pod there is a record of, then what they shared.
    pub async fn down(&self) -> Result<(), String> {
        let report = |error: ActionError| error.report();
        let pods = self.runtime.list().await.map_err(|error| report(error.into()))?;
        // Dependents before what they depend on.
        for group in spec::plan::stop_order(&pods) {
            let stops = group.iter().map(|pod| self.stop_pod(pod, pod.record.spec.termination_grace().as_duration()));
            let failed: Vec<String> = futures_util::future::join_all(stops)
                .await
                .into_iter()
                .filter_map(|result| result.err().map(report))
                .collect();
            if !failed.is_empty() {
                return Err(failed.join("; "));
            }
        }
        self.memories.clear().map_err(|error| report(error.into()))?;
        self.runtime.teardown().await.map_err(|error| report(error.into()))
    }

    async fn update_files(
        &self,
        pod: &PodFacts,
        desired: &Desired,
        label: String,
        reaction: Reaction,
    ) -> Result<Outcome, ActionError> {
        let files = self.files(&pod.record, pod.addresses, desired)?;
        let change = match &reaction {
            Reaction::Live => FilesChange::Swap,
            Reaction::Signal(signal) => FilesChange::Signal(signal.clone()),
            Reaction::Restart => FilesChange::Compare,
        };
        let mut differed = self.runtime.update_files(&pod.record.uid, files, change).await?;
        // What an earlier version made has no labels: nothing is known of it, and nothing is done for it.
        let wished = desired.workloads.get(&pod.record.workload).map(|workload| &workload.template.bound);
        differed |= !pod.record.bound.is_empty() && wished.is_some_and(|wished| *wished != pod.record.bound);
        // Files that stay as they are have no label that anybody wishes.
        let outdated = differed && reaction == Reaction::Restart;
        Ok(Outcome::FilesUpdated(if outdated { format!("not {label}") } else { label }))
    }

    /// The variables of a container, with their values.
    fn env(
        &self,
        record: &PodRecord,
        container: &ContainerSpec,
        addresses: Addresses,
        desired: &Desired,
    ) -> Result<Vec<(String, String)>, EnvError> {
        let context = PodContext { record, addresses, node: &self.node };
        let namespace = &record.workload.namespace;
        let secret = |name: &str, key: &str| {
            let secret = desired.secrets.get(&(namespace.clone(), name.to_owned()))?;
            Some(secret.data.get(key)?.expose().to_vec())
        };
        spec::env::resolve(container, &context, &secret)
    }

    /// The content of a pod's generated volumes.
    fn files(
        &self,
        record: &PodRecord,
        addresses: Addresses,
        desired: &Desired,
    ) -> Result<BTreeMap<String, FileSet>, ActionError> {
        let context = PodContext { record, addresses, node: &self.node };
        let fact = |source: &EnvSource| match source {
            EnvSource::Field(path) => spec::env::field(&context, path),
            EnvSource::ResourceField { .. } => {
                let item = ContainerSpec {
                    env: vec![spec::pod::EnvVar { name: "x".to_owned(), source: source.clone() }],
                    ..ContainerSpec::default()
                };
                let resolved = spec::env::resolve(&item, &context, &|_, _| None).ok()?;
                resolved.into_iter().next().map(|(_, value)| value)
            }
            EnvSource::Literal(text) | EnvSource::Template(text) => Some(text.clone()),
            EnvSource::Secret { .. } => None,
        };
        let mut sets = BTreeMap::new();
        for volume in &record.spec.volumes {
            let VolumeSource::Files(files) = &volume.source else { continue };
            let rendered = spec::files::render(desired, &record.workload.namespace, &volume.name, files, &fact)?;
            let owner = match (files.uid, files.gid) {
                (None, None) => None,
                (uid, gid) => Some((uid.unwrap_or(0), gid.unwrap_or(0))),
            };
            let files_of = rendered
                .into_iter()
                .map(|(path, file)| (path, FileContent { bytes: file.bytes, mode: file.mode, owner }))
                .collect();
            sets.insert(volume.name.clone(), FileSet { memory: spec::files::holds_secrets(files), files: files_of });
        }
        Ok(sets)
    }
}

fn container_of<'a>(record: &'a PodRecord, name: &str) -> Option<&'a ContainerSpec> {
    record.spec.all_containers().find(|c| c.name == name)
}

/// A new pod's unique id: 16 hex digits of randomness.
#[must_use]
pub fn random_uid() -> PodUid {
    use std::fmt::Write as _;
    let mut bytes = [0u8; 8];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .expect("the kernel's random numbers are available once the system has booted");
    PodUid(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Registry logins from the Secrets that a pod names (`kubernetes.io/dockerconfigjson`, `kubernetes.io/dockercfg`).
fn pull_credentials(desired: &Desired, namespace: &str, spec: &PodSpec) -> Vec<(String, RegistryAuth)> {
    let mut found = Vec::new();
    for name in &spec.image_pull_secrets {
        let Some(secret) = desired.secrets.get(&(namespace.to_owned(), name.clone())) else { continue };
        for key in [".dockerconfigjson", ".dockercfg"] {
            let Some(bytes) = secret.data.get(key) else { continue };
            let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes.expose()) else { continue };
            let auths = value.get("auths").unwrap_or(&value);
            let Some(auths) = auths.as_object() else { continue };
            for (host, entry) in auths {
                if let Some(auth) = RegistryAuth::of_entry(entry) {
                    found.push((host.clone(), auth));
                }
            }
        }
    }
    found
}

/// The later of two readings of one container: a higher attempt, and of one attempt its end.
#[must_use]
pub fn newer(a: ContainerFacts, b: ContainerFacts) -> ContainerFacts {
    if b.attempt > a.attempt || (b.attempt == a.attempt && !b.is_running()) { b } else { a }
}

/// When an attempt started, for people.
#[must_use]
pub fn running_since(facts: &ContainerFacts) -> Option<Timestamp> {
    match facts.state {
        spec::observed::ContainerState::Running { started, .. } => Some(started),
        spec::observed::ContainerState::Exited(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use spec::secret::SecretBytes;
    use spec::workload::SecretData;

    use super::*;

    #[test]
    fn pull_secrets_hold_passwords_and_tokens() {
        let secret = |text: &str| SecretBytes::new(text.as_bytes().to_vec());
        // What Azure's command line writes: a name that stands for nobody, and the token that counts.
        let azure = r#"{"auth":"MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwOg==","identitytoken":"t"}"#;
        for (key, text, expected) in [
            (
                ".dockerconfigjson",
                format!(r#"{{"auths":{{"r.io":{azure}}}}}"#),
                Some(RegistryAuth::Identity(secret("t"))),
            ),
            (
                ".dockercfg",
                r#"{"r.io":{"auth":"dTpw"}}"#.to_owned(),
                Some(RegistryAuth::Basic("u".into(), secret("p"))),
            ),
            (".dockercfg", r#"{"r.io":{"registrytoken":"t"}}"#.to_owned(), Some(RegistryAuth::Bearer(secret("t")))),
            (".dockercfg", r#"{"r.io":{}}"#.to_owned(), None),
            (".dockercfg", "[]".to_owned(), None),
        ] {
            let data = SecretData { data: [(key.to_owned(), secret(&text))].into(), kind: String::new() };
            let secrets = [(("default".to_owned(), "login".to_owned()), Arc::new(data))].into();
            let desired = Desired { secrets, ..Desired::default() };
            let spec = PodSpec { image_pull_secrets: vec!["login".to_owned()], ..PodSpec::default() };
            let found = pull_credentials(&desired, "default", &spec);
            let expected: Vec<_> = expected.into_iter().map(|auth| ("r.io".to_owned(), auth)).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
