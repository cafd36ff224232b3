//! What a container's health is judged by: the probes of its manifest, and for Compose services the HEALTHCHECK of
//! the image where the manifest names none (Docker's rule). Kubernetes does not look at HEALTHCHECK.

use serde::{Deserialize, Serialize};

use crate::observed::{ContainerFacts, PodFacts};
use crate::pod::{ContainerSpec, Handler, Probe, RestartPolicy};
use crate::time::Millis;
use crate::workload::WorkloadKind;

/// A label with `false` keeps an unhealthy service from being restarted.
pub const HEAL_LABEL: &str = "mainstay.heal";

/// Between two checks (moby, daemon/health.go: defaultProbeInterval).
pub const INTERVAL: Millis = Millis::from_secs(30);
/// Longest answer time (defaultProbeTimeout).
pub const TIMEOUT: Millis = Millis::from_secs(30);
/// Between two checks in the start period (defaultStartInterval).
pub const START_INTERVAL: Millis = Millis::from_secs(5);
/// Failures in a row that count (defaultProbeRetries).
pub const RETRIES: u32 = 3;

/// The HEALTHCHECK of an image as its configuration has it. What is zero or missing there is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageCheck {
    /// `["CMD", ...]` or `["CMD-SHELL", "..."]`.
    pub test: Vec<String>,
    /// The image's `SHELL`, which `CMD-SHELL` is run by.
    pub shell: Vec<String>,
    /// Numbers.
    #[serde(flatten)]
    pub numbers: Numbers,
}

/// The numbers of a health check; what is `None` comes from the image, else from Docker's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Numbers {
    /// Between two checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Millis>,
    /// Longest answer time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
    /// Failures in this time after the start do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<Millis>,
    /// Between two checks in the start period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<Millis>,
    /// Failures in a row that count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

impl Numbers {
    /// These, and where one is missing the other's (moby, daemon/commit.go: merge).
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            interval: self.interval.or(other.interval),
            timeout: self.timeout.or(other.timeout),
            start_period: self.start_period.or(other.start_period),
            start_interval: self.start_interval.or(other.start_interval),
            retries: self.retries.or(other.retries),
        }
    }

    /// What was lowered to a probe. A number that is Docker's default may as well not have been written.
    fn of(probe: &Probe) -> Self {
        let unless = |value: Option<Millis>, default| value.filter(|value| *value != default);
        Self {
            interval: unless(probe.period, INTERVAL),
            timeout: unless(probe.timeout, TIMEOUT),
            start_period: probe.start_period,
            start_interval: unless(probe.start_interval, START_INTERVAL),
            retries: probe.failure_threshold.filter(|retries| *retries != RETRIES),
        }
    }

    /// The probe that tells whether a container can serve.
    #[must_use]
    pub fn readiness(self, handler: Handler) -> Probe {
        Probe {
            handler,
            period: Some(self.interval.unwrap_or(INTERVAL)),
            timeout: Some(self.timeout.unwrap_or(TIMEOUT)),
            failure_threshold: Some(self.retries.unwrap_or(RETRIES)),
            start_period: self.start_period,
            start_interval: self.start_period.map(|_| self.start_interval.unwrap_or(START_INTERVAL)),
            ..Probe::default()
        }
    }
}

/// The probe that tells whether a container must be started again, from the one that tells whether it can serve.
/// Docker's first check comes one interval after the start; so late does the first failure count.
#[must_use]
pub fn liveness(readiness: &Probe) -> Probe {
    let first = if readiness.start_period.is_some() { readiness.start_interval } else { readiness.period };
    Probe { initial_delay: first, ..readiness.clone() }
}

/// What a container is probed by.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checks {
    /// Holds the other two back until it has passed.
    pub startup: Option<Probe>,
    /// Tells whether it lives.
    pub liveness: Option<Probe>,
    /// Tells whether it can serve.
    pub readiness: Option<Probe>,
}

impl Checks {
    /// Whether one run of a check answers both questions: so it is with every healthcheck of Compose.
    #[must_use]
    pub fn is_one(&self) -> bool {
        match (&self.liveness, &self.readiness) {
            (Some(live), Some(ready)) => {
                Probe { initial_delay: None, ..live.clone() } == *ready && ready.initial_delay.is_none()
            }
            _ => false,
        }
    }
}

/// The HEALTHCHECK of its image that counts for a container, if one does.
fn of_image<'a>(pod: &PodFacts, container: &ContainerSpec, facts: &'a ContainerFacts) -> Option<&'a ImageCheck> {
    let runs_on = pod.record.spec.containers.iter().any(|c| c.name == container.name);
    let counts = pod.record.workload.kind == WorkloadKind::Service && runs_on && !container.no_image_check;
    facts.image_check.as_ref().filter(|_| counts)
}

/// The command of a test; `None` when there is nothing to run (`NONE`).
fn command(check: &ImageCheck) -> Option<Handler> {
    let (kind, words) = check.test.split_first()?;
    let words = match (kind.as_str(), words) {
        (_, []) => return None,
        ("CMD", words) => words.to_vec(),
        ("CMD-SHELL", words) => {
            let default = || ["/bin/sh", "-c"].map(str::to_owned).to_vec();
            let mut all = if check.shell.is_empty() { default() } else { check.shell.clone() };
            all.push(words.join(" "));
            all
        }
        _ => return None,
    };
    Some(Handler::Exec(words))
}

/// Whether a container is ready only when a check has passed.
#[must_use]
pub fn is_checked(pod: &PodFacts, container: &ContainerSpec) -> bool {
    container.readiness.is_some()
        || container.startup.is_some()
        || pod
            .containers
            .get(&container.name)
            .and_then(|facts| of_image(pod, container, facts))
            .is_some_and(|check| command(check).is_some())
}

/// What the newest attempt of a container is probed by.
#[must_use]
pub fn checks(pod: &PodFacts, container: &ContainerSpec) -> Checks {
    let own = Checks {
        startup: container.startup.clone(),
        liveness: container.liveness.clone(),
        readiness: container.readiness.clone(),
    };
    let Some(image) = pod.containers.get(&container.name).and_then(|facts| of_image(pod, container, facts)) else {
        return own;
    };
    let (readiness, heals) = match &own.readiness {
        Some(probe) => (Numbers::of(probe).or(image.numbers).readiness(probe.handler.clone()), own.liveness.is_some()),
        None => {
            let Some(handler) = command(image) else { return own };
            // Nothing would start it again: an unhealthy container that runs is better than none, as with Docker.
            let restarts = pod.record.spec.restart_policy() != RestartPolicy::Never;
            let label = container.labels.get(HEAL_LABEL);
            let numbers = container.image_check.unwrap_or_default().or(image.numbers);
            (numbers.readiness(handler), restarts && label.is_none_or(|label| heals(label)))
        }
    };
    Checks { startup: None, liveness: heals.then(|| liveness(&readiness)), readiness: Some(readiness) }
}

/// What the value of [`HEAL_LABEL`] says.
#[must_use]
pub fn heals(label: &str) -> bool {
    !matches!(label.trim().to_ascii_lowercase().as_str(), "false" | "no" | "off" | "0")
}
