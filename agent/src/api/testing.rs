//! An agent's interface in a temporary directory, for tests: a runtime that answers with fixed readings, a snapshot
//! that the test sets and an inbox that the test reads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime::Runtime;
use runtime::api::{
    ContainerStart, ContainerStats, ExecResult, FailureClass, FileSet, FilesChange, ImageInfo, NetworkStats, PortFault,
    PullCredentials, Result, RuntimeError, RuntimeEvent, StopScope,
};
use spec::image_ref::ImageRef;
use spec::observed::{
    Addresses, ContainerFacts, DiskUsage, PodFacts, PodFailure, PodRecord, PodUid, PortKey, PortTarget,
};
use spec::pod::PullPolicy;
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, watch};

use super::{ApiState, Server};
use crate::config::Settings;
use crate::events::Journal;
use crate::reconciler::Event;
use crate::status::{
    ContainerStatus, HeldStatus, PodStatus, Snapshot, SourceStatus, StepStatus, WaitStatus, WorkloadStatus,
};
use crate::telemetry::Metrics;

/// Readings and log files, nothing else.
#[derive(Default)]
pub(crate) struct Readable {
    pub(crate) logs: Vec<PathBuf>,
}

fn refuse<T>(operation: &str) -> Result<T> {
    Err(RuntimeError {
        operation: operation.to_owned(),
        class: FailureClass::Permanent,
        hint: None,
        source: "it is a test".into(),
    })
}

#[async_trait]
impl Runtime for Readable {
    async fn list(&self) -> Result<Vec<PodFacts>> {
        Ok(Vec::new())
    }
    async fn inspect(&self, _: &PodUid) -> Result<Option<PodFacts>> {
        Ok(None)
    }
    fn events(&self) -> mpsc::UnboundedReceiver<RuntimeEvent> {
        mpsc::unbounded_channel().1
    }
    async fn image(&self, _: &ImageRef) -> Result<Option<ImageInfo>> {
        Ok(None)
    }
    async fn pull(&self, _: &ImageRef, _: PullPolicy, _: &PullCredentials) -> Result<ImageInfo> {
        refuse("pull")
    }
    async fn check_pod(&self, _: Arc<PodRecord>) -> Result<()> {
        refuse("check a pod")
    }
    async fn create_pod(&self, _: Arc<PodRecord>, _: BTreeMap<String, FileSet>) -> Result<Addresses> {
        refuse("create a pod")
    }
    async fn start_container(&self, _: ContainerStart) -> Result<ContainerFacts> {
        refuse("start a container")
    }
    async fn signal_container(&self, _: &PodUid, _: &str, _: i32) -> Result<()> {
        refuse("signal a container")
    }
    async fn stop_container(&self, _: &PodUid, _: &str, _: Duration, _: StopScope) -> Result<()> {
        refuse("stop a container")
    }
    async fn mark_unhealthy(&self, _: &PodUid, _: &str, _: u32) -> Result<()> {
        refuse("mark a container")
    }
    async fn exec(&self, pod: &PodUid, _: &str, _: &[String], _: Duration) -> Result<ExecResult> {
        match pod.0.as_str() {
            "unreachable" => {
                refuse("run a command").map_err(|error| RuntimeError { class: FailureClass::Transient, ..error })
            }
            "slow" => Ok(ExecResult { code: None, output: b"begun".to_vec() }),
            _ => refuse("run a command"),
        }
    }
    async fn socket(&self, pod: &PodUid, _: SocketAddr) -> std::io::Result<TcpSocket> {
        match pod.0.as_str() {
            "unreachable" => Err(std::io::ErrorKind::NotFound.into()),
            _ => TcpSocket::new_v4(),
        }
    }
    async fn fail_pod(&self, _: &PodUid, _: &PodFailure) -> Result<()> {
        refuse("fail a pod")
    }
    async fn disk_usage(&self, _: &PodUid) -> Result<DiskUsage> {
        refuse("measure a pod")
    }
    async fn remove_pod(&self, _: &PodUid) -> Result<()> {
        refuse("remove a pod")
    }
    async fn publish(&self, _: &BTreeMap<PortKey, PortTarget>) -> Result<Vec<PortFault>> {
        refuse("publish ports")
    }
    async fn connections(&self, _: &PodUid) -> Result<usize> {
        refuse("count connections")
    }
    async fn service_state(&self) -> Result<spec::services::ServiceState> {
        refuse("look Services up")
    }
    async fn publish_services(&self, _: &spec::services::ServiceSet) -> Result<Vec<runtime::api::ServiceFault>> {
        refuse("open Services")
    }
    async fn define_network(&self, _: &spec::workload::NetworkSpec) -> Result<()> {
        refuse("define network")
    }
    async fn set_names(&self, _: &spec::names::NameTable) -> Result<()> {
        refuse("set names")
    }
    async fn update_files(&self, _: &PodUid, _: BTreeMap<String, FileSet>, _: FilesChange) -> Result<bool> {
        refuse("update files")
    }
    async fn teardown(&self) -> Result<()> {
        refuse("tear down")
    }
    async fn stats(&self, _: &PodUid, container: &str) -> Result<ContainerStats> {
        if container == "unreadable" {
            return refuse("read statistics");
        }
        Ok(ContainerStats { cpu_nanos: 2_000_000_000, pids: 3, working_set_bytes: 5 << 20, ..Default::default() })
    }
    async fn network_stats(&self, _: &PodUid) -> Result<Option<NetworkStats>> {
        Ok(Some(NetworkStats { bytes: (100, 200), packets: (1, 2) }))
    }
    fn has_file(&self, _: &PodFacts, _: &str, _: &std::path::Path) -> bool {
        false
    }
    fn log_files(&self, _: &PodUid, _: &str) -> Vec<PathBuf> {
        self.logs.clone()
    }
}

/// A served interface.
pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) settings: Arc<Settings>,
    pub(crate) snapshot: watch::Sender<Arc<Snapshot>>,
    pub(crate) journal: Journal,
    pub(crate) inbox: mpsc::UnboundedReceiver<Event>,
    pub(crate) server: Server,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with_metrics(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub(crate) async fn with_metrics(address: std::net::SocketAddr) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let settings = Arc::new(Settings {
            run_dir: dir.path().join("run"),
            data_dir: dir.path().join("data"),
            metrics_listen: Some(address),
            ..Settings::default()
        });
        let logs = vec![dir.path().join("0.log")];
        let metrics = Metrics::new();
        let journal = Journal::open(&settings.events_dir(), Some(metrics.clone())).expect("the journal opens");
        let (snapshot, seen) = watch::channel(Arc::new(Snapshot::default()));
        let (commands, inbox) = mpsc::unbounded_channel();
        let state = ApiState {
            snapshot: seen,
            runtime: Arc::new(Readable { logs }),
            metrics,
            journal: journal.clone(),
            commands,
            settings: Arc::clone(&settings),
            reload: crate::reload::Handle {
                requests: mpsc::unbounded_channel().0,
                instance: "test".into(),
                exe: "/usr/bin/mainstay".into(),
            },
            sync: Arc::new(|| {}),
            reading: Arc::new(|| {
                let (reply, answer) = tokio::sync::oneshot::channel();
                reply.send(4).expect("the receiver is here");
                answer
            }),
        };
        let server = Server::start(state, None).await.expect("the interface can be served");
        Self { dir, settings, snapshot, journal, inbox, server }
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.snapshot.send_replace(Arc::new(snapshot));
    }
}

/// An agent with a bit of everything.
pub(crate) fn busy_snapshot() -> Snapshot {
    let container = |name: &str, state: &str| ContainerStatus {
        name: name.to_owned(),
        image: "docker.io/library/nginx:1.27".to_owned(),
        state: state.to_owned(),
        ..ContainerStatus::default()
    };
    let running = ContainerStatus {
        ready: true,
        pid: Some(4711),
        restarts: 2,
        running_seconds: Some(3_725),
        ..container("nginx", "running")
    };
    let web = |index: u32, containers: Vec<ContainerStatus>| PodStatus {
        uid: format!("{index:016x}"),
        name: format!("web-1a2b3c4d-{index}"),
        phase: "Running".to_owned(),
        ready: true,
        reason: None,
        message: None,
        ip: Some(format!("10.88.0.{}", index + 2)),
        revision: "1a2b3c4d".to_owned(),
        created: 1_700_000_000,
        containers,
    };
    let exited = ContainerStatus {
        exit_code: Some(137),
        reason: Some("OOMKilled".to_owned()),
        restarts: 7,
        ..container("worker", "exited")
    };
    Snapshot {
        version: "0.1.0".to_owned(),
        services: vec![crate::status::ServiceStatus {
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            kind: "NodePort".to_owned(),
            address: Some("10.95.241.7".to_owned()),
            ports: vec!["80/tcp".to_owned()],
            host_ports: vec!["30080/tcp".to_owned()],
            pods: vec!["web-0".to_owned(), "web-1".to_owned()],
            ..crate::status::ServiceStatus::default()
        }],
        pid: 42,
        passes: 9,
        reading: 4,
        converged: false,
        sources: vec![SourceStatus {
            approve: None,
            revision: None,
            path: "/etc/mainstay/manifests".to_owned(),
            state: "degraded".to_owned(),
            files: 3,
            errors: vec!["error[M0012]: unknown field `imagee`\n --> jobs.yaml:7:9".to_owned()],
            broken: 1,
            warnings: vec!["warning: values.yaml is no manifest".to_owned()],
            last_success: Some(1_700_000_000),
        }],
        workloads: vec![
            WorkloadStatus {
                kind: "Deployment".to_owned(),
                namespace: "default".to_owned(),
                name: "web".to_owned(),
                phase: "Running".to_owned(),
                desired: 2,
                ready: 2,
                updated: 2,
                source: "web.yaml".to_owned(),
                pods: vec![web(0, vec![running.clone(), container("logger", "waiting")]), web(1, vec![running])],
                ..WorkloadStatus::default()
            },
            WorkloadStatus {
                kind: "Pod".to_owned(),
                namespace: "jobs".to_owned(),
                name: "worker".to_owned(),
                phase: "Pending".to_owned(),
                desired: 1,
                source: "jobs.yaml".to_owned(),
                held: Some(HeldStatus {
                    reason: "broken".to_owned(),
                    message: "jobs.yaml is broken, the last good version stays".to_owned(),
                }),
                waiting: vec![WaitStatus {
                    reason: "backing_off".to_owned(),
                    message: "container `worker` waits before its next start".to_owned(),
                    ..WaitStatus::default()
                }],
                pods: vec![PodStatus {
                    uid: "00000000000000ff".to_owned(),
                    name: "worker".to_owned(),
                    phase: "Running".to_owned(),
                    created: 1_699_990_000,
                    containers: vec![exited],
                    ..PodStatus::default()
                }],
                ..WorkloadStatus::default()
            },
        ],
        ports: BTreeMap::from([("8080/tcp".to_owned(), "web-1a2b3c4d-0:80".to_owned())]),
        removal: None,
        paused: Vec::new(),
        generation: None,
        rolled_back_to: None,
        drained: None,
        pulls: Vec::new(),
        plan: vec![StepStatus {
            action: "stop_pod".to_owned(),
            workload: Some("Deployment/default/web".to_owned()),
            reason: "spec_changed".to_owned(),
            changes: vec!["containers[nginx].image: \"nginx:1.26\" -> \"nginx:1.27\"".to_owned()],
        }],
    }
}
