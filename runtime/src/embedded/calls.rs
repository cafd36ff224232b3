//! The trait: each call is one piece of blocking work.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use spec::causes::chain;
use spec::image_ref::ImageRef;
use spec::names::NameTable;
use spec::observed::{
    Addresses, ContainerFacts, ContainerState, DiskUsage, PodFacts, PodFailure, PodRecord, PodUid, PortKey, PortTarget,
};
use spec::pod::PullPolicy;
use spec::services::{ServiceSet, ServiceState};
use spec::workload::NetworkSpec;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;

use super::{EXEC_OUTPUT, Embedded, Inner, failure, layout, logs, records, transient};
use crate::api::{
    ContainerStart, ContainerStats, ExecResult, FailureClass, FileSet, FilesChange, ImageInfo, NetworkStats, PortFault,
    PullCredentials, PullProgress, Pulls, Result, Runtime, RuntimeError, RuntimeEvent, ServiceFault, StopScope,
};
use crate::container::{ShimClient, cgroup};
use crate::exec;

#[async_trait]
impl Runtime for Embedded {
    async fn list(&self) -> Result<Vec<PodFacts>> {
        let pods = self
            .blocking(|inner| {
                let (found, damaged) = records::pods(inner.layout());
                let newer = |error: &records::RecordError| matches!(error, records::RecordError::Newer { .. });
                let (newer, damaged): (Vec<_>, Vec<_>) =
                    damaged.into_iter().partition(|(_, error)| error.as_ref().is_some_and(newer));
                if let Some(error) = newer.into_iter().find_map(|(_, error)| error) {
                    return Err(failure("list pods", FailureClass::Permanent, error));
                }
                for (uid, error) in damaged {
                    // A pod without a readable record cannot be kept going: what is left of it is removed.
                    let error = error.map(|error| chain(&error)).unwrap_or_default();
                    tracing::warn!(pod = %uid, error, "pod without a record removed");
                    inner.remove_pod(&uid)?;
                }
                inner.tell_foreign();
                found.into_iter().map(|record| inner.facts(record)).collect::<Result<Vec<_>>>()
            })
            .await?;
        for pod in &pods {
            for (name, facts) in pod.containers.iter().filter(|(_, facts)| facts.is_running()) {
                self.watch(&pod.record.uid, name, facts.attempt);
            }
        }
        Ok(pods)
    }

    async fn inspect(&self, pod: &PodUid) -> Result<Option<PodFacts>> {
        let pod = pod.clone();
        self.blocking(move |inner| {
            let path = inner.layout().pod(&pod).join("pod.json");
            let record = records::read::<PodRecord>(&path)
                .map_err(|error| transient(format!("inspect pod {pod}"))(error.into()))?;
            record.map(|record| inner.facts(record)).transpose()
        })
        .await
    }

    fn events(&self) -> mpsc::UnboundedReceiver<RuntimeEvent> {
        let taken = self.0.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if taken.is_some() {
            self.start_responder();
            self.watch_network();
        }
        taken.unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    async fn image(&self, reference: &ImageRef) -> Result<Option<ImageInfo>> {
        let reference = reference.clone();
        self.blocking(move |inner| {
            let image = inner
                .store
                .image(&reference)
                .map_err(|error| transient(format!("look image `{reference}` up"))(error.into()))?;
            Ok(image.map(|image| ImageInfo { digest: image.digest, size: image.size, fetched: 0, reference }))
        })
        .await
    }

    async fn pull(&self, reference: &ImageRef, policy: PullPolicy, credentials: &PullCredentials) -> Result<ImageInfo> {
        let (sender, mut progress) = mpsc::unbounded_channel();
        let info = self.pull_with_progress(reference, policy, credentials, Some(sender)).await?;
        let mut received = BTreeMap::new();
        while let Ok(event) = progress.try_recv() {
            if let PullProgress::Bytes { digest, received: bytes } = event {
                received.insert(digest, bytes);
            }
        }
        Ok(ImageInfo { fetched: received.values().sum(), ..info })
    }

    fn pulls(&self) -> Pulls {
        self.0.puller.pulls()
    }

    async fn check_pod(&self, record: Arc<PodRecord>) -> Result<()> {
        self.blocking(move |inner| inner.check_pod(&record)).await
    }

    async fn create_pod(&self, record: Arc<PodRecord>, files: BTreeMap<String, FileSet>) -> Result<Addresses> {
        self.blocking(move |inner| inner.create_pod(&record, &files)).await
    }

    async fn start_container(&self, start: ContainerStart) -> Result<ContainerFacts> {
        let (uid, name) = (start.pod.uid.clone(), start.container.name.clone());
        let facts = self.blocking(move |inner| inner.start(&start)).await?;
        if facts.is_running() {
            self.watch(&uid, &name, facts.attempt);
        }
        Ok(facts)
    }

    async fn signal_container(&self, pod: &PodUid, container: &str, signal: i32) -> Result<()> {
        let (pod, container) = (pod.clone(), container.to_owned());
        self.blocking(move |inner| {
            let operation = format!("signal container `{container}`");
            let attempt = inner.running(&pod, &container)?;
            ShimClient::connect(&attempt.run)
                .and_then(|mut client| client.signal(signal))
                .map_err(|error| transient(&operation)(error.into()))
        })
        .await
    }

    async fn stop_container(&self, pod: &PodUid, container: &str, grace: Duration, scope: StopScope) -> Result<()> {
        let (pod, container) = (pod.clone(), container.to_owned());
        self.blocking(move |inner| inner.stop(&pod, &container, grace, scope)).await
    }

    async fn mark_unhealthy(&self, pod: &PodUid, container: &str, attempt: u32) -> Result<()> {
        let attempt = self.layout().attempt(pod, container, attempt);
        self.blocking(move |_| {
            let file = attempt.unhealthy_file();
            crate::container::record::write_durable(&file, b"")
                .map_err(|error| transient(&format!("write {}", file.display()))(error.into()))
        })
        .await
    }

    async fn exec(&self, pod: &PodUid, container: &str, command: &[String], timeout: Duration) -> Result<ExecResult> {
        let (pod, container, command) = (pod.clone(), container.to_owned(), command.to_vec());
        self.blocking(move |inner| {
            let operation = format!("run a command in container `{container}`");
            let dir = inner.running(&pod, &container)?.run;
            let request = exec::ExecRequest { args: command, ..exec::ExecRequest::default() };
            let captured = exec::capture(&dir, &request, EXEC_OUTPUT, timeout, &inner.self_exe).map_err(|error| {
                let class = match error {
                    exec::ExecError::Failed(_) => FailureClass::Permanent,
                    exec::ExecError::Request { .. } | exec::ExecError::Spawn(_) => FailureClass::Transient,
                };
                RuntimeError { operation, class, hint: None, source: error.into() }
            })?;
            Ok(ExecResult { code: captured.code, output: captured.output })
        })
        .await
    }

    async fn socket(&self, pod: &PodUid, to: SocketAddr) -> std::io::Result<TcpSocket> {
        let netns = self.layout().namespaces(pod).join("net");
        let socket = self.sockets()?.tcp(netns, to).await?;
        Ok(TcpSocket::from_std_stream(socket.into()))
    }

    async fn fail_pod(&self, pod: &PodUid, failure: &PodFailure) -> Result<()> {
        let (pod, failure) = (pod.clone(), failure.clone());
        self.blocking(move |inner| inner.fail_pod(&pod, &failure)).await
    }

    async fn disk_usage(&self, pod: &PodUid) -> Result<DiskUsage> {
        let pod = pod.clone();
        self.blocking(move |inner| inner.disk_usage(&pod)).await
    }

    async fn remove_pod(&self, pod: &PodUid) -> Result<()> {
        let pod = pod.clone();
        self.blocking(move |inner| inner.remove_pod(&pod)).await
    }

    async fn publish(&self, ports: &BTreeMap<PortKey, PortTarget>) -> Result<Vec<PortFault>> {
        let ports = ports.clone();
        self.blocking(move |inner| inner.publish(&ports)).await
    }

    async fn connections(&self, pod: &PodUid) -> Result<usize> {
        let pod = pod.clone();
        self.blocking(move |inner| {
            inner.network.connections(&pod).map_err(|error| transient("count connections to a pod")(error.into()))
        })
        .await
    }

    async fn service_state(&self) -> Result<ServiceState> {
        self.blocking(|inner| {
            inner.network.service_state().map_err(|error| transient("look up what Services were given")(error.into()))
        })
        .await
    }

    async fn publish_services(&self, services: &ServiceSet) -> Result<Vec<ServiceFault>> {
        let services = services.clone();
        self.blocking(move |inner| inner.publish_services(&services)).await
    }

    async fn define_network(&self, network: &NetworkSpec) -> Result<()> {
        let network = network.clone();
        self.blocking(move |inner| inner.define_network(&network)).await
    }

    async fn set_names(&self, names: &NameTable) -> Result<()> {
        let names = names.clone();
        self.blocking(move |inner| inner.set_names(&names)).await
    }

    async fn update_files(&self, pod: &PodUid, files: BTreeMap<String, FileSet>, change: FilesChange) -> Result<bool> {
        let pod = pod.clone();
        self.blocking(move |inner| inner.update_files(&pod, &files, &change)).await
    }

    async fn teardown(&self) -> Result<()> {
        self.blocking(Inner::teardown).await
    }

    async fn stats(&self, pod: &PodUid, container: &str) -> Result<ContainerStats> {
        let (pod, container) = (pod.clone(), container.to_owned());
        self.blocking(move |inner| {
            let operation = format!("read the cgroup of container `{container}`");
            let attempts = layout::attempts(&inner.layout().container(&pod, &container));
            let Some(number) = attempts.last() else {
                return Err(failure(operation, FailureClass::Permanent, "it never ran"));
            };
            let attempt = inner.layout().attempt(&pod, &container, *number);
            let layout = cgroup::Layout::detect().map_err(|error| transient(&operation)(error.into()))?;
            cgroup::stats(&layout, &attempt.cgroup).map_err(|error| transient(&operation)(error.into()))
        })
        .await
    }

    async fn network_stats(&self, pod: &PodUid) -> Result<Option<NetworkStats>> {
        let pod = pod.clone();
        self.blocking(move |inner| {
            inner.network.stats(&pod).map_err(|error| transient("read interface counters")(error.into()))
        })
        .await
    }

    fn has_file(&self, pod: &PodFacts, container: &str, path: &Path) -> bool {
        let state = pod.containers.get(container).map(|facts| &facts.state);
        let Some(ContainerState::Running { pid, .. }) = state else { return false };
        let inside = path.strip_prefix("/").unwrap_or(path);
        Path::new("/proc").join(pid.to_string()).join("root").join(inside).symlink_metadata().is_ok()
    }

    fn log_files(&self, pod: &PodUid, container: &str) -> Vec<PathBuf> {
        let layout = self.layout();
        let Some(number) = layout::attempts(&layout.container(pod, container)).last().copied() else {
            return Vec::new();
        };
        let log = layout.attempt(pod, container, number).log();
        let rotated = (1..100).map(|number| logs::rotated(&log, number)).take_while(|path| path.exists());
        std::iter::once(log.clone()).chain(rotated).collect()
    }
}
