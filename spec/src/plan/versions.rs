//! Versions of a workload: the wished one, the last good one, those that failed; and which of them is to run.
//!
//! What is remembered ([`Memory`]) is data: it goes into each plan with what was observed, and comes out of it changed.
//! A version is the template with everything it refers to, so that going back brings configuration and secrets back
//! too. How many pods there are and how they take over is not part of it: that follows the manifest at all times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Goal;
use crate::digest::Digest;
use crate::observed::PodUid;
use crate::pod::{EnvSource, FilesSource, PodSpec, ResolvedImages, VolumeSource};
use crate::time::{Millis, Timestamp};
use crate::workload::{Controller, Desired, OnFailure, Workload};

/// The annotation that says what becomes of a version that fails: `rollback`, `pause` or `continue`.
pub const ON_FAILURE: &str = "mainstay/on-failure";

/// A workload at one version, with everything it refers to.
#[derive(Debug, Clone)]
pub struct Version {
    /// Label of template and content. It depends on secrets: it stays in memory and in sealed files.
    pub label: String,
    /// The workload.
    pub workload: Arc<Workload>,
    /// The ConfigMaps, Secrets and networks that its pods refer to, and nothing else.
    pub objects: Arc<Desired>,
    /// What its images stood for.
    pub images: ResolvedImages,
}

/// What is remembered of the versions of one workload.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The last version that stood its trial.
    pub good: Option<Version>,
    /// The version that is being tried.
    pub trial: Option<Trial>,
    /// Versions that failed, by label: none of them is tried again.
    pub bad: BTreeMap<String, Bad>,
}

/// A version that has not proved itself yet.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Which.
    pub version: Version,
    /// The boot whose clock the times are on.
    pub boot_id: String,
    /// When its first pod was seen.
    pub since: Timestamp,
    /// When more of its pods served than ever before, or something else was last in the way.
    pub progress: Timestamp,
    /// The most pods that have served at once.
    pub best: u32,
    /// All its pods serve, and have not crashed for a while: should it be replaced now, it was good.
    pub proven: bool,
    /// Crashes by pod and container.
    pub crashes: BTreeMap<PodUid, BTreeMap<String, Crashes>>,
}

/// How often a container has crashed in a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crashes {
    /// So often.
    pub count: u32,
    /// The attempt that was counted last.
    pub attempt: u32,
    /// When the first one was.
    pub first: Timestamp,
    /// When the last one was.
    pub last: Timestamp,
    /// The exit code of the last one.
    pub code: i32,
}

/// A version that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bad {
    /// Label of its template, as status and pods show it.
    pub revision: String,
    /// What was wrong with it.
    pub cause: Cause,
}

impl Bad {
    /// What people call this version and the good one with that template: the same template may have failed with
    /// other files.
    #[must_use]
    pub fn names(&self, good: &str) -> [String; 2] {
        let bad = &self.revision;
        if bad == good {
            [format!("{bad} with its new files"), format!("{good} with the files of before")]
        } else {
            [bad.clone(), good.to_owned()]
        }
    }
}

/// What was wrong with a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// A container ended again and again.
    Crashed {
        /// Which.
        container: String,
        /// So often.
        times: u32,
        /// With this code in the end.
        code: i32,
        /// Why it could not start, when that is so.
        error: Option<String>,
    },
    /// A container was killed for want of memory.
    OutOfMemory {
        /// Which.
        container: String,
    },
    /// Not all its pods got ready in time.
    NotReady {
        /// The time it had.
        deadline: Millis,
    },
    /// Something that its pods need can never be had.
    CannotStart {
        /// What it said.
        message: String,
    },
}

impl Cause {
    /// The word for metric labels.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Crashed { .. } => "crashed",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::NotReady { .. } => "not_ready",
            Self::CannotStart { .. } => "cannot_start",
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Crashed { container, times, error: Some(error), .. } => {
                write!(f, "container `{container}` failed to start {times} times: {error}")
            }
            Self::Crashed { container, times: 1, code, .. } => {
                write!(f, "container `{container}` ended with code {code}")
            }
            Self::Crashed { container, times, code, .. } => {
                write!(f, "container `{container}` ended {times} times, the last time with code {code}")
            }
            Self::OutOfMemory { container } => write!(f, "container `{container}` was killed for want of memory"),
            Self::NotReady { deadline } => write!(f, "its pods were not ready within {} s", deadline.0 / 1000),
            Self::CannotStart { message } => f.write_str(message),
        }
    }
}

/// A goal that is not what the manifest wishes: the wished version failed, the last good one runs.
#[derive(Debug, Clone)]
pub struct Back {
    /// The version that runs instead.
    pub version: Version,
    /// The one that failed.
    pub bad: Bad,
}

impl Version {
    /// The wished version of a goal.
    #[must_use]
    pub fn of(goal: &Goal, desired: &Desired, images: ResolvedImages) -> Self {
        Self {
            label: goal.version.clone(),
            workload: Arc::clone(&goal.workload),
            objects: Arc::new(objects(desired, &goal.workload)),
            images,
        }
    }

    /// This version of the template under the manifest's present rules: number of pods, strategy, dependencies.
    fn under(&self, wish: &Workload) -> Workload {
        let controller = match (&wish.controller, &self.workload.controller) {
            (
                Controller::Ordered { replicas, first_ordinal, parallel, partition, on_delete, min_ready, .. },
                Controller::Ordered { claims, service_name, .. },
            ) => Controller::Ordered {
                replicas: *replicas,
                first_ordinal: *first_ordinal,
                parallel: *parallel,
                partition: *partition,
                on_delete: *on_delete,
                min_ready: *min_ready,
                claims: claims.clone(),
                service_name: service_name.clone(),
            },
            (wished, _) => wished.clone(),
        };
        Workload { controller, template: self.workload.template.clone(), ..wish.clone() }
    }
}

/// The label of a goal's version: another template or another content of its generated files has another label.
pub(super) fn label(workload: &Workload, revision: &str, files: &str) -> String {
    let claims = match &workload.controller {
        Controller::Ordered { claims, service_name, .. } => format!("{claims:?}{service_name:?}"),
        Controller::Single | Controller::Replicated { .. } | Controller::Job(_) | Controller::Cron(_) => String::new(),
    };
    Digest::of(format!("{revision}\n{files}\n{claims}").as_bytes()).hex().chars().take(16).collect()
}

/// What becomes of a version of this workload that fails.
#[must_use]
pub fn on_failure(workload: &Workload) -> OnFailure {
    match workload.annotations.get(ON_FAILURE).map(String::as_str) {
        Some("rollback") => return OnFailure::Rollback,
        Some("pause") => return OnFailure::Pause,
        Some("continue") => return OnFailure::Continue,
        Some(_) | None => {}
    }
    match &workload.controller {
        Controller::Replicated { strategy, .. } => strategy.on_failure,
        Controller::Single | Controller::Ordered { .. } => OnFailure::Rollback,
        Controller::Job(_) | Controller::Cron(_) => OnFailure::Continue,
    }
}

/// The goal as it is to run: the wished one, or the last good version where the wished one is known to fail.
pub(super) fn choose(wished: Goal, memory: Option<&Arc<Memory>>) -> Goal {
    let Some(memory) = memory else { return wished };
    let Some(bad) = memory.bad.get(&wished.version) else { return wished };
    match (on_failure(&wished.workload), &memory.good) {
        (OnFailure::Rollback, Some(good)) if good.label != wished.version => {
            let mut goal = Goal::of(&Arc::new(good.under(&wished.workload)), &good.objects);
            goal.back = Some(Arc::new(Back { version: good.clone(), bad: bad.clone() }));
            goal
        }
        (OnFailure::Pause, _) => Goal { failed: Some(bad.clone()), ..wished },
        (OnFailure::Rollback | OnFailure::Continue, _) => wished,
    }
}

/// The objects that the pods of a workload refer to.
fn objects(desired: &Desired, workload: &Workload) -> Desired {
    let namespace = &workload.id.namespace;
    let spec = &workload.template.spec;
    let (configs, secrets) = references(spec);
    let key = |name: &&str| (namespace.clone(), (*name).to_owned());
    let mut found = Desired::default();
    for key in configs.iter().map(key) {
        if let Some(config) = desired.configs.get(&key) {
            found.configs.insert(key, Arc::clone(config));
        }
    }
    for key in secrets.iter().map(key) {
        if let Some(secret) = desired.secrets.get(&key) {
            found.secrets.insert(key, Arc::clone(secret));
        }
    }
    for attachment in &spec.networks {
        if let Some(network) = desired.networks.get(&attachment.network) {
            found.networks.insert(attachment.network.clone(), Arc::clone(network));
        }
    }
    found
}

/// Names of the ConfigMaps and of the Secrets that a pod refers to.
fn references(spec: &PodSpec) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let mut configs = BTreeSet::new();
    let mut secrets: BTreeSet<&str> = spec.image_pull_secrets.iter().map(String::as_str).collect();
    for variable in spec.all_containers().flat_map(|container| &container.env) {
        if let EnvSource::Secret { name, .. } = &variable.source {
            secrets.insert(name);
        }
    }
    for volume in &spec.volumes {
        let VolumeSource::Files(files) = &volume.source else { continue };
        for source in &files.sources {
            match source {
                FilesSource::ConfigMap { name, .. } => drop(configs.insert(name.as_str())),
                FilesSource::Secret { name, .. } => drop(secrets.insert(name.as_str())),
                FilesSource::DownwardApi { .. } => {}
            }
        }
    }
    (configs, secrets)
}
