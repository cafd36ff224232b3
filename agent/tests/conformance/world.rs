//! A runtime of each kind with images that behave alike, and pods to ask it about.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use runtime::Runtime;
use runtime::api::{ContainerStart, RuntimeEvent, StopScope};
use runtime::container::external::Program;
use runtime::embedded::{Embedded, Layout, Options};
use runtime::image::registry::RegistryConfig;
use runtime::network::NetworkConfig;
use runtime::sim::{Faults, Sim};
use serde_json::json;
use spec::digest::Digest;
use spec::image_ref::ImageRef;
use spec::observed::{ContainerFacts, PodFacts, PodRecord, PodUid};
use spec::pod::PullPolicy;

const BUSYBOX: &str = "/bin/busybox";

/// Why there can be no real containers.
pub(crate) fn cannot_run() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("containers need root");
    }
    (!Path::new(BUSYBOX).exists()).then_some("no /bin/busybox to make an image of")
}

/// runc, where it is installed.
pub(crate) fn runc() -> Option<Program> {
    let paths = ["/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc", "/usr/local/bin/runc"];
    let path = paths.iter().map(PathBuf::from).find(|path| path.exists())?;
    Some(Program { name: "runc".to_owned(), path, args: Vec::new() })
}

/// Which implementation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Sim,
    BuiltIn,
    External(Program),
}

impl Kind {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Sim => "sim",
            Self::BuiltIn => "embedded",
            Self::External(program) => &program.name,
        }
    }
}

/// One of them, for one case.
pub(crate) struct World {
    kind: Kind,
    dir: Option<tempfile::TempDir>,
    cgroup: String,
    pub(crate) runtime: Arc<dyn Runtime>,
    pods: Vec<PodUid>,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Commands of the images; the simulated ones have the same names.
const IMAGES: [(&str, &[&str]); 4] = [
    ("run", &["sh", "-c", "trap 'echo ended; exit 0' TERM; echo ready; while :; do sleep 0.02; done"]),
    ("exit-7-50", &["sh", "-c", "echo ready; sleep 0.05; exit 7"]),
    ("stubborn", &["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done"]),
    ("broken", &["/no/such/program"]),
];

impl World {
    pub(crate) fn new(kind: &Kind) -> Self {
        let cgroup = format!("mainstay-conformance-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (dir, runtime): (_, Arc<dyn Runtime>) = match kind {
            Kind::Sim => (None, Arc::new(Sim::new(7, Faults::none()))),
            Kind::BuiltIn | Kind::External(_) => {
                let dir = tempfile::tempdir().expect("a temporary directory");
                let runtime = open(dir.path(), &cgroup, kind);
                let archive = dir.path().join("images.tar");
                write_images(&archive);
                runtime::image::load::load(runtime.store(), &archive).expect("images are loaded");
                (Some(dir), Arc::new(runtime))
            }
        };
        Self { kind: kind.clone(), dir, cgroup, runtime, pods: Vec::new() }
    }

    /// Another agent on the same host: it knows nothing.
    pub(crate) fn restart(&mut self) {
        if let Some(dir) = &self.dir {
            self.runtime = Arc::new(open(dir.path(), &self.cgroup, &self.kind));
        }
    }

    /// A pod of one container, made.
    pub(crate) async fn pod(&mut self, image: &str) -> Arc<PodRecord> {
        let record = self.record(image).await;
        self.runtime.create_pod(Arc::clone(&record), BTreeMap::new()).await.expect("made");
        record
    }

    /// A pod of one container that is not made yet.
    pub(crate) async fn record(&mut self, image: &str) -> Arc<PodRecord> {
        let reference = format!("sim.local/sim/{image}:1");
        let parsed = ImageRef::parse(&reference).expect("a reference");
        let found = self.runtime.pull(&parsed, PullPolicy::IfNotPresent, &Vec::new()).await.expect("an image");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let uid = format!("conformance{number:06}");
        let mut record = json!({
            "uid": uid, "workload": {"kind": "Pod", "namespace": "default", "name": "p"}, "ordinal": 0, "name": "p",
            "labels": {}, "annotations": {}, "source": {"file": "/p.json", "line": 1},
            "spec": {
                "no_network": true, "restart_policy": "Never",
                "containers": [{"name": "main", "image": reference}],
            },
            "images": {"main": found.digest.to_string()}, "created_unix": 0, "created": 0,
            "boot_id": runtime::container::boot_id(),
        });
        if let Kind::External(program) = &self.kind {
            record["spec"]["runtime_class"] = json!(program.name);
        }
        self.pods.push(PodUid(uid));
        Arc::new(serde_json::from_value(record).expect("a record"))
    }

    /// Starts an attempt of the container of a pod.
    pub(crate) async fn start(&self, pod: &Arc<PodRecord>, attempt: u32) -> ContainerFacts {
        let container = pod.spec.containers.first().expect("a container").clone();
        let image: Digest = *pod.images.get("main").expect("an image");
        let start = ContainerStart {
            pod: Arc::clone(pod),
            container: Arc::new(container),
            attempt,
            series: 0,
            image,
            env: Vec::new(),
            files: BTreeMap::new(),
        };
        let facts = self.runtime.start_container(start).await.expect("an attempt");
        if facts.is_running() {
            // What is written first says that signals are handled now.
            self.until("it is ready", async || self.logs(pod).is_none_or(|text| text.contains("ready"))).await;
        }
        facts
    }

    /// The log; `None` where a runtime has none.
    pub(crate) fn logs(&self, pod: &PodRecord) -> Option<String> {
        let files = self.runtime.log_files(&pod.uid, "main");
        if self.kind == Kind::Sim {
            return None;
        }
        Some(files.iter().rev().map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect())
    }

    pub(crate) async fn inspect(&self, pod: &PodRecord) -> Option<PodFacts> {
        self.runtime.inspect(&pod.uid).await.expect("inspected")
    }

    /// The container of a pod.
    pub(crate) async fn container(&self, pod: &PodRecord) -> ContainerFacts {
        self.inspect(pod).await.expect("a pod").containers.get("main").expect("a container").clone()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self, pod: &PodRecord) -> ContainerFacts {
        self.until("it has ended", async || !self.container(pod).await.is_running()).await;
        self.container(pod).await
    }

    /// Waits for a state.
    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds().await {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the hint that a container has changed.
    pub(crate) async fn hinted(
        &self,
        events: &mut tokio::sync::mpsc::UnboundedReceiver<RuntimeEvent>,
        pod: &PodRecord,
    ) {
        let wanted = RuntimeEvent::ContainerChanged(pod.uid.clone(), "main".to_owned());
        let waiting = async { while events.recv().await.expect("events go on") != wanted {} };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("a hint comes");
    }

    /// Removes everything; nothing may be left.
    pub(crate) async fn end(self) {
        for uid in &self.pods {
            self.runtime.stop_container(uid, "main", Duration::ZERO, StopScope::Pod).await.expect("stopped");
            self.runtime.remove_pod(uid).await.expect("removed");
        }
        assert!(self.runtime.list().await.expect("listed").is_empty());
        let mut left = self.runtime.teardown().await;
        // The last shim leaves its cgroup when it ends, a moment after its container.
        for _ in 0..200 {
            if left.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            left = self.runtime.teardown().await;
        }
        left.expect("nothing is left");
    }
}

fn open(dir: &Path, cgroup: &str, kind: &Kind) -> Embedded {
    let mut runtimes = BTreeMap::new();
    if let Kind::External(program) = kind {
        runtimes.insert(program.name.clone(), program.clone());
    }
    let options = Options {
        layout: Layout { data: dir.join("data"), run: dir.join("run"), cgroup: cgroup.to_owned() },
        boot_id: runtime::container::boot_id(),
        network: NetworkConfig::new(dir.join("data/network")),
        registries: RegistryConfig::default(),
        log_max_size: 0,
        log_max_files: 0,
        memory_high_percent: 0,
        runtimes,
        exclusive: false,
    };
    Embedded::open(options).expect("a runtime")
}

/// A Docker archive with every image: one layer with busybox.
fn write_images(path: &Path) {
    let busybox = std::fs::read(BUSYBOX).expect("busybox");
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, "bin/busybox", &busybox, 0o755);
    for name in ["sh", "sleep", "echo", "cat"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, format!("bin/{name}"), "busybox").expect("a link");
    }
    let layer = layer.into_inner().expect("a layer");
    let mut archive = tar::Builder::new(std::fs::File::create(path).expect("a file"));
    add(&mut archive, "layer.tar", &layer, 0o644);
    let mut manifest = Vec::new();
    for (name, command) in IMAGES {
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"Cmd": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
        })
        .to_string();
        add(&mut archive, &format!("{name}.json"), config.as_bytes(), 0o644);
        let tag = format!("sim.local/sim/{name}:1");
        manifest.push(json!({"Config": format!("{name}.json"), "RepoTags": [tag], "Layers": ["layer.tar"]}));
    }
    add(&mut archive, "manifest.json", json!(manifest).to_string().as_bytes(), 0o644);
    archive.finish().expect("an archive");
}

fn add<W: std::io::Write>(archive: &mut tar::Builder<W>, name: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, name, bytes).expect("an entry");
}
