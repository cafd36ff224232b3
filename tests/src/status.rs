//! `mainstay status -o json` as its users read it. Unknown keys are ignored, as a script would.

use serde::Deserialize;
use serde_json::Value;

/// The whole answer.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Status {
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

/// One manifest file.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Source {
    /// Its path.
    pub path: String,
    /// Whether it counts.
    pub state: String,
    /// What is wrong with it.
    #[serde(default)]
    pub errors: Vec<Value>,
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

    /// The file whose path ends so.
    pub fn source(&self, end: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.path.ends_with(end))
    }
}
