//! Health checks, run by the agent from within the pod's network: nothing is needed in the image.
//!
//! One task per running container that has probes; it reports a [`Health`] whenever it changes. Numbers and rules are
//! Kubernetes' (Probe: period 10 s, timeout 1 s, thresholds 1 and 3; a startup probe holds the others back;
//! readiness never restarts) and Docker's where a Compose healthcheck set them (start period, start interval).

mod check;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime::Runtime;
use spec::health::{self, Checks};
use spec::observed::{ContainerState, PodFacts, PodUid};
use spec::plan::Health;
use spec::pod::Probe;
use spec::services::ReadyContainers;
use spec::time::{Millis, Timestamp};
use tokio::sync::mpsc;

use crate::clock::SharedClock;
use crate::telemetry::Metrics;

pub use check::{Fault, check};

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
            refused: false,
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
            Err(_) => Err(Fault::Sick(format!("no answer within {}", humantime::format_duration(limit)))),
        };
        let result = match result {
            Ok(()) => Ok(()),
            Err(Fault::Sick(message)) => Err(message),
            Err(Fault::Unknown(message)) => {
                tracing::warn!(pod = %self.pod.record.name, container = self.container, message, "not probed");
                return Err(message);
            }
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
            let failed = streak.failed >= probe.failure_threshold.unwrap_or(3);
            let passed = streak.passed >= probe.success_threshold.unwrap_or(1);
            let mut health = health.lock().await;
            let ready = passed || (health.ready && !failed);
            let refused = !ready && (failed || health.refused);
            if health.ready != ready || health.refused != refused {
                if health.ready != ready {
                    health.since = self.clock.now();
                }
                (health.ready, health.refused) = (ready, refused);
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
                (health.ready, health.failed, health.refused) = (ready, failed, failed);
                self.report(health, message);
            }
            self.pause(probe, &streak).await;
        }
    }
}
