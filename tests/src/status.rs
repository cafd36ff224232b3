//! `mainstay status -o json` as its users read it. Unknown keys are ignored, as a script would.

use serde::Deserialize;
use serde_json::Value;

/// The whole answer.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Status {
    /// Number of passes of this agent; before the first one it knows pods, but not how they are.
    #[serde(default)]
    pub passes: u64,
    /// Whether the last pass saw every source and left nothing to do.
    #[serde(default)]
    pub converged: bool,
    /// Published ports: `8080/tcp` and where it leads.
    #[serde(default)]
    pub ports: std::collections::BTreeMap<String, String>,
    /// Workloads, wished for or still there.
    #[serde(default)]
    pub workloads: Vec<Workload>,
    /// Manifest files.
    #[serde(default)]
    pub sources: Vec<Source>,
}

/// One workload.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Workload {
    /// `Pod`, `Deployment`, ...
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub phase: String,
    /// Pods wished for.
    #[serde(default)]
    pub desired: u32,
    /// Pods ready.
    #[serde(default)]
    pub ready: u32,
    /// Why its wish is frozen, if it is.
    #[serde(default)]
    pub held: Value,
    /// Its pods.
    #[serde(default)]
    pub pods: Vec<Pod>,
}

/// One pod.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Pod {
    /// Unique over time.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub phase: String,
    /// Its address.
    #[serde(default)]
    pub ip: Option<String>,
    /// Its containers.
    #[serde(default)]
    pub containers: Vec<Container>,
}

/// One container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Its name.
    pub name: String,
    /// `running`, `waiting` or `exited`.
    pub state: String,
    /// Process id on the host, while it runs.
    #[serde(default)]
    pub pid: Option<i32>,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u32,
    /// How the last attempt ended.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Why it is as it is.
    #[serde(default)]
    pub reason: Option<String>,
}

/// One source of manifests.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Source {
    /// Its path.
    pub path: String,
    /// `ok`, `degraded` or `failed`.
    pub state: String,
    /// What is wrong with its files, for people.
    #[serde(default)]
    pub errors: Vec<Value>,
    /// What is odd about them.
    #[serde(default)]
    pub warnings: Vec<Value>,
}

impl Status {
    /// The workload of this name, of whichever kind.
    pub fn workload(&self, name: &str) -> Option<&Workload> {
        self.workloads.iter().find(|workload| workload.name == name)
    }

    /// Every container of a workload.
    pub fn containers(&self, workload: &str) -> Vec<&Container> {
        self.workload(workload).into_iter().flat_map(|w| &w.pods).flat_map(|pod| &pod.containers).collect()
    }

    /// Host process ids of a workload's running containers, sorted.
    pub fn pids(&self, workload: &str) -> Vec<i32> {
        let running = self.containers(workload).into_iter().filter(|container| container.state == "running");
        let mut pids: Vec<i32> = running.filter_map(|container| container.pid).collect();
        pids.sort_unstable();
        pids
    }

    /// Everything that sources complain about, one text.
    pub fn errors(&self) -> String {
        let errors = self.sources.iter().flat_map(|source| &source.errors);
        errors
            .map(|error| error.as_str().map_or_else(|| error.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Whether a workload is frozen at its last good version.
    pub fn is_held(&self, workload: &str) -> bool {
        self.workload(workload).is_some_and(|found| !found.held.is_null())
    }
}
