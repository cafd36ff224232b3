//! Health checks, run by the agent: nothing is needed in the image.
//!
//! One task per running container that has probes; it reports a [`Health`] whenever it changes. Numbers and rules are
//! Kubernetes' (Probe: period 10 s, timeout 1 s, thresholds 1 and 3; a startup probe holds the others back;
//! readiness never restarts) and Docker's where a Compose healthcheck set them (start period, start interval).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use runtime::Runtime;
use spec::health::{self, Checks};
use spec::observed::{ContainerState, PodFacts, PodUid};
use spec::plan::Health;
use spec::pod::{Handler, PortRef, Probe};
use spec::services::ReadyContainers;
use spec::time::{Millis, Timestamp};
use tokio::sync::mpsc;

use crate::clock::SharedClock;
use crate::telemetry::Metrics;

/// A container's health has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// The pod.
    pub pod: PodUid,
    /// The container.
    pub container: String,
    /// What it is now.
    pub health: Health,
    /// What the last failed check said.
    pub message: Option<String>,
}

/// Runs the probes of all containers.
pub struct Prober {
    runtime: Arc<dyn Runtime>,
    clock: SharedClock,
    metrics: Metrics,
    reports: mpsc::UnboundedSender<HealthReport>,
    tasks: BTreeMap<(PodUid, String, u32), tokio::task::JoinHandle<()>>,
    /// What an earlier agent knew to be ready.
    known: ReadyContainers,
}

impl Prober {
    /// Reports go to `reports`.
    #[must_use]
    pub fn new(
        runtime: Arc<dyn Runtime>,
        clock: SharedClock,
        metrics: Metrics,
        reports: mpsc::UnboundedSender<HealthReport>,
    ) -> Self {
        Self { runtime, clock, metrics, reports, tasks: BTreeMap::new(), known: ReadyContainers::new() }
    }

    /// Takes over what an earlier agent knew: these are ready until their probes say otherwise.
    pub fn remember(&mut self, known: ReadyContainers) {
        self.known = known;
    }

    /// Starts probing what runs and is not probed yet, ends probing what does not run any more.
    pub fn follow<'a>(&mut self, pods: impl Iterator<Item = &'a Arc<PodFacts>>) {
        let mut wanted = std::collections::BTreeSet::new();
        for pod in pods {
            for container in pod.record.spec.all_containers() {
                let has_probe = container.liveness.is_some() || health::is_checked(pod, container);
                let Some(facts) = pod.containers.get(&container.name).filter(|facts| has_probe && facts.is_running())
                else {
                    continue;
                };
                let ContainerState::Running { started, .. } = facts.state else { continue };
                let key = (pod.record.uid.clone(), container.name.clone(), facts.attempt);
                wanted.insert(key.clone());
                let known = self.known.get(&pod.record.uid).and_then(|containers| containers.get(&container.name));
                let known_ready = known == Some(&facts.attempt);
                self.tasks.entry(key).or_insert_with(|| {
                    let task = Task {
                        runtime: Arc::clone(&self.runtime),
                        clock: Arc::clone(&self.clock),
                        metrics: self.metrics.clone(),
                        reports: self.reports.clone(),
                        pod: Arc::clone(pod),
                        container: container.name.clone(),
                        checks: health::checks(pod, container),
                        attempt: facts.attempt,
                        started,
                        known_ready,
                    };
                    tokio::spawn(task.run())
                });
            }
        }
        self.tasks.retain(|key, task| {
            let keep = wanted.contains(key);
            if !keep {
                task.abort();
            }
            keep
        });
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}

struct Task {
    runtime: Arc<dyn Runtime>,
    clock: SharedClock,
    metrics: Metrics,
    reports: mpsc::UnboundedSender<HealthReport>,
    pod: Arc<PodFacts>,
    container: String,
    checks: Checks,
    attempt: u32,
    started: Timestamp,
    known_ready: bool,
}

/// Successes or failures in a row of one probe.
#[derive(Default)]
struct Streak {
    passed: u32,
    failed: u32,
    ever_passed: bool,
}

impl Task {
    async fn run(self) {
        let mut health = Health {
            attempt: self.attempt,
            started: self.checks.startup.is_none() || self.known_ready,
            ready: self.checks.readiness.is_none() || self.known_ready,
            since: self.clock.now(),
            failed: false,
        };
        if let Some(startup) = &self.checks.startup
            && !health.started
        {
            if !self.until_decided(startup).await {
                health.failed = true;
                self.report(health, Some("startup probe failed".to_owned()));
                return;
            }
            health.started = true;
            health.since = self.clock.now();
        }
        self.report(health, None);
        if let (Some(readiness), Some(liveness), true) =
            (&self.checks.readiness, &self.checks.liveness, self.checks.is_one())
        {
            self.both(readiness, liveness.initial_delay.unwrap_or(Millis(0)), health).await;
            return;
        }
        let health = tokio::sync::Mutex::new(health);
        let live = async {
            if let Some(probe) = &self.checks.liveness
                && let Err(message) = self.while_alive(probe).await
            {
                let mut health = health.lock().await;
                health.failed = true;
                self.report(*health, Some(message));
            }
        };
        let ready = async {
            if let Some(probe) = &self.checks.readiness {
                self.readiness(probe, &health).await;
            }
        };
        tokio::join!(live, ready);
    }

    fn report(&self, health: Health, message: Option<String>) {
        let report =
            HealthReport { pod: self.pod.record.uid.clone(), container: self.container.clone(), health, message };
        // The loop has ended when nobody listens: then there is nothing to report to.
        let _ = self.reports.send(report);
    }

    async fn wait_initial(&self, probe: &Probe) {
        let due = self.started.plus(probe.initial_delay.unwrap_or(Millis(0)));
        tokio::time::sleep(due.since(self.clock.now()).as_duration()).await;
    }

    /// Whether failures still do not count (Compose start period).
    fn in_start_period(&self, probe: &Probe, streak: &Streak) -> bool {
        !streak.ever_passed && probe.start_period.is_some_and(|period| self.clock.now() < self.started.plus(period))
    }

    async fn pause(&self, probe: &Probe, streak: &Streak) {
        let period = probe.period.unwrap_or(Millis::from_secs(10));
        let period = match probe.start_interval {
            Some(interval) if self.in_start_period(probe, streak) => interval,
            _ => period,
        };
        tokio::time::sleep(period.as_duration().max(Duration::from_millis(10))).await;
    }

    async fn once(&self, kind: &'static str, probe: &Probe, streak: &mut Streak) -> Result<(), String> {
        let limit = probe.timeout.unwrap_or(Millis::from_secs(1)).as_duration();
        let check = check(&probe.handler, &self.pod, &self.container, limit, self.runtime.as_ref());
        let started = tokio::time::Instant::now();
        // When it began decides, as with Docker: a slow check of the start period does not count.
        let excused = self.in_start_period(probe, streak);
        let result = match tokio::time::timeout(limit, check).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {}", humantime::format_duration(limit))),
        };
        self.metrics.probe(kind, result.is_ok(), started.elapsed());
        match &result {
            Ok(()) => {
                streak.passed = streak.passed.saturating_add(1);
                streak.failed = 0;
                streak.ever_passed = true;
            }
            Err(_) => {
                streak.passed = 0;
                if !excused {
                    streak.failed = streak.failed.saturating_add(1);
                }
            }
        }
        result
    }

    async fn until_decided(&self, probe: &Probe) -> bool {
        self.wait_initial(probe).await;
        let mut streak = Streak::default();
        loop {
            // The result is in the streak.
            let _ = self.once("startup", probe, &mut streak).await;
            if streak.passed >= probe.success_threshold.unwrap_or(1) {
                return true;
            }
            if streak.failed >= probe.failure_threshold.unwrap_or(3) {
                return false;
            }
            self.pause(probe, &streak).await;
        }
    }

    /// Returns when the container is to be ended, with the last failure.
    async fn while_alive(&self, probe: &Probe) -> Result<std::convert::Infallible, String> {
        self.wait_initial(probe).await;
        let mut streak = Streak::default();
        loop {
            if let Err(message) = self.once("liveness", probe, &mut streak).await
                && streak.failed >= probe.failure_threshold.unwrap_or(3)
            {
                return Err(message);
            }
            self.pause(probe, &streak).await;
        }
    }

    async fn readiness(&self, probe: &Probe, health: &tokio::sync::Mutex<Health>) {
        self.wait_initial(probe).await;
        let mut streak = Streak::default();
        loop {
            let message = self.once("readiness", probe, &mut streak).await.err();
            let ready = {
                let now = health.lock().await.ready;
                (now && streak.failed < probe.failure_threshold.unwrap_or(3))
                    || streak.passed >= probe.success_threshold.unwrap_or(1)
            };
            let mut health = health.lock().await;
            if health.ready != ready {
                health.ready = ready;
                health.since = self.clock.now();
                self.report(*health, message);
            }
            drop(health);
            self.pause(probe, &streak).await;
        }
    }

    /// One check that tells both whether the container can serve and whether it lives (a healthcheck of Compose).
    /// Failures before `first` after the start do not count: it is asked earlier only to be ready earlier.
    async fn both(&self, probe: &Probe, first: Millis, mut health: Health) {
        let counts_from = self.started.plus(first);
        let mut streak = Streak::default();
        loop {
            let early = self.clock.now() < counts_from;
            let message = self.once("readiness", probe, &mut streak).await.err();
            if early {
                streak.failed = 0;
            }
            let failed = streak.failed >= probe.failure_threshold.unwrap_or(3);
            let ready = streak.passed > 0 || (health.ready && !failed);
            if health.ready != ready || health.failed != failed {
                if health.ready != ready {
                    health.since = self.clock.now();
                }
                (health.ready, health.failed) = (ready, failed);
                self.report(health, message);
            }
            self.pause(probe, &streak).await;
        }
    }
}

/// Does one check; the error says what was wrong.
pub async fn check(
    handler: &Handler,
    pod: &PodFacts,
    container: &str,
    limit: Duration,
    runtime: &dyn Runtime,
) -> Result<(), String> {
    match handler {
        Handler::Exec(command) => {
            let result =
                runtime.exec(&pod.record.uid, container, command, limit).await.map_err(|error| error.to_string())?;
            match result.code {
                0 => Ok(()),
                code => {
                    let output = String::from_utf8_lossy(&result.output);
                    Err(format!("exit code {code}: {}", output.trim().chars().take(200).collect::<String>()))
                }
            }
        }
        Handler::Tcp { port, host } => {
            let address = address(pod, container, host.as_deref(), port)?;
            tokio::net::TcpStream::connect(&address).await.map(drop).map_err(|error| format!("{address}: {error}"))
        }
        Handler::Http { path, port, host, https, headers } => {
            let address = address(pod, container, host.as_deref(), port)?;
            let scheme = if *https { "https" } else { "http" };
            let path = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
            let url = format!("{scheme}://{address}{path}");
            let mut request = client()?.get(&url);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let answer = request.send().await.map_err(|error| format!("{url}: {}", root_cause(&error)))?;
            let code = answer.status().as_u16();
            if (200..400).contains(&code) { Ok(()) } else { Err(format!("{url}: HTTP status {code}")) }
        }
        Handler::Grpc { port, service } => grpc(pod, container, *port, service.as_deref().unwrap_or("")).await,
        Handler::Sleep(_) => Err("`sleep` is a hook, not a check".to_owned()),
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    spec::causes::causes(error).last().unwrap_or(error).to_string()
}

/// `host:port` of a check: the pod's own address unless another host is named.
fn address(pod: &PodFacts, container: &str, host: Option<&str>, port: &PortRef) -> Result<String, String> {
    let port = match port {
        PortRef::Number(port) => *port,
        PortRef::Name(name) => {
            let ports = || pod.record.spec.all_containers().filter(|c| c.name == container).flat_map(|c| &c.ports);
            ports()
                .find(|port| port.name.as_deref() == Some(name))
                .map(|port| port.container_port)
                .ok_or_else(|| format!("container `{container}` has no port named `{name}`"))?
        }
    };
    Ok(match host {
        Some(host) if host.contains(':') => format!("[{host}]:{port}"),
        Some(host) => format!("{host}:{port}"),
        None => {
            let ip = pod.addresses.v4.map(IpAddr::from).or(pod.addresses.v6.map(IpAddr::from));
            SocketAddr::new(ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port).to_string()
        }
    })
}

/// One client for all checks: no redirects followed, certificates not verified (Kubernetes HTTPGetAction).
fn client() -> Result<&'static reqwest::Client, String> {
    static CLIENT: std::sync::OnceLock<Result<reqwest::Client, String>> = std::sync::OnceLock::new();
    CLIENT
        .get_or_init(|| {
            runtime::install_crypto();
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .danger_accept_invalid_certs(true)
                .no_proxy()
                .pool_max_idle_per_host(0)
                .user_agent("mainstay-probe")
                .build()
                .map_err(|error| error.to_string())
        })
        .as_ref()
        .map_err(Clone::clone)
}

/// The gRPC health checking protocol (grpc.health.v1.Health/Check) with its two small messages written by hand.
async fn grpc(pod: &PodFacts, container: &str, port: u16, service: &str) -> Result<(), String> {
    let address = address(pod, container, None, &PortRef::Number(port))?;
    let name = u8::try_from(service.len()).ok().filter(|len| *len < 128).ok_or("service name is too long")?;
    let mut message = Vec::new();
    if name > 0 {
        message.extend([0x0a, name]);
        message.extend(service.as_bytes());
    }
    let length = u32::try_from(message.len()).map_err(|error| error.to_string())?;
    let mut body = vec![0];
    body.extend(length.to_be_bytes());
    body.extend(message);
    static CLIENT: std::sync::OnceLock<Result<reqwest::Client, String>> = std::sync::OnceLock::new();
    let client = CLIENT
        .get_or_init(|| {
            runtime::install_crypto();
            reqwest::Client::builder()
                .http2_prior_knowledge()
                .no_proxy()
                .pool_max_idle_per_host(0)
                .build()
                .map_err(|error| error.to_string())
        })
        .as_ref()
        .map_err(Clone::clone)?;
    let answer = client
        .post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .send()
        .await
        .map_err(|error| format!("{address}: {}", root_cause(&error)))?;
    let bytes = answer.bytes().await.map_err(|error| format!("{address}: {}", root_cause(&error)))?;
    // Frame: flag, length, then HealthCheckResponse with field 1 (varint) = SERVING (1).
    match bytes.get(5..) {
        Some([0x08, 0x01, ..]) => Ok(()),
        Some([0x08, status, ..]) => Err(format!("{address}: gRPC health status {status}")),
        _ => Err(format!("{address}: gRPC health check was refused")),
    }
}
