//! Metrics of the agent and readings of its containers, in Prometheus' text format.
//!
//! Owns a registry of its own (never the global one), so that several agents fit into one test. What the loop does is
//! counted as it happens; what it publishes is taken from its snapshots; what the kernel knows about containers is
//! read at the moment of a scrape and at no other time, so that an idle agent is idle.

mod containers;
mod journal;
mod logging;
mod names;
mod process;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{
    Counter, CounterVec, Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, Opts, Registry,
    TextEncoder,
};
use runtime::api::Pulls;
use spec::workload::WorkloadId;

use crate::sizes::Sizes;
use crate::status::Snapshot;

pub use containers::{Readings, gather};
pub use logging::init as init_logging;
pub use names::{Kind, METRICS, Metric};

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Counters and gauges of one agent. Cheap to clone: all clones are the same counters.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    reconciles: CounterVec,
    reconcile_seconds: Histogram,
    last_reconcile: Gauge,
    resync_interval: Gauge,
    lag: Histogram,
    inbox: Gauge,
    running: Gauge,
    actions: CounterVec,
    action_seconds: HistogramVec,
    planned: Gauge,
    workloads: GaugeVec,
    held: GaugeVec,
    waiting: GaugeVec,
    pods: GaugeVec,
    containers: GaugeVec,
    ports: Gauge,
    restarts: CounterVec,
    cron_runs: CounterVec,
    cron_next: GaugeVec,
    cron_last: GaugeVec,
    cron_success: GaugeVec,
    ooms: CounterVec,
    versions_failed: CounterVec,
    probes: CounterVec,
    probe_seconds: HistogramVec,
    pulls: CounterVec,
    pull_bytes: Counter,
    pull_seconds: Histogram,
    pulls_running: Gauge,
    pull_left: Gauge,
    /// Bytes that are in `pull_bytes` already.
    pulled: AtomicU64,
    gc_images: Counter,
    gc_bytes: Counter,
    image_disk: Gauge,
    images: Gauge,
    image_bytes: Gauge,
    volume_bytes: GaugeVec,
    log_bytes: Gauge,
    log_limit: Gauge,
    log_removed: Counter,
    manifests: GaugeVec,
    findings: GaugeVec,
    source_failed: GaugeVec,
    source_success: GaugeVec,
    source_revision: GaugeVec,
    source_interval: GaugeVec,
    events: CounterVec,
    events_lost: Counter,
    notifications: CounterVec,
    sync_requests: CounterVec,
    reload_ok: Gauge,
    reload_at: Gauge,
    /// Label sets of restarts and OOMs in use, so that those of vanished workloads can be dropped. Held for a few
    /// map operations only.
    container_series: Mutex<BTreeSet<[String; 3]>>,
    /// The same of CronJobs' runs.
    cron_series: Mutex<BTreeSet<[String; 2]>>,
}

/// Series with the same labels.
type Labels<'a> = &'a [&'a str];

const PHASES: [&str; 5] = ["Pending", "Running", "Succeeded", "Failed", "Stopping"];
/// CronJobs between two runs have one more.
const WORKLOAD_PHASES: [&str; 6] = ["Pending", "Running", "Succeeded", "Failed", "Stopping", "Scheduled"];
const STATES: [&str; 3] = ["waiting", "running", "exited"];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Fresh counters.
    #[must_use]
    pub fn new() -> Self {
        const QUICK: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        const SLOW: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0];
        let registry = Registry::new();
        let make = Maker(&registry);
        let build = make.gauges(names::BUILD_INFO);
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), std::env::consts::ARCH]).set(1.0);
        let inner = Inner {
            reconciles: make.counters(names::RECONCILES),
            reconcile_seconds: make.histograms(names::RECONCILE_SECONDS, QUICK).with_label_values(NONE),
            last_reconcile: make.gauges(names::LAST_RECONCILE).with_label_values(NONE),
            resync_interval: make.gauges(names::RESYNC_INTERVAL).with_label_values(NONE),
            lag: make.histograms(names::RECONCILE_LAG, QUICK).with_label_values(NONE),
            inbox: make.gauges(names::INBOX).with_label_values(NONE),
            running: make.gauges(names::RUNNING_ACTIONS).with_label_values(NONE),
            actions: make.counters(names::ACTIONS),
            action_seconds: make.histograms(names::ACTION_SECONDS, SLOW),
            planned: make.gauges(names::PLANNED).with_label_values(NONE),
            workloads: make.gauges(names::WORKLOADS),
            held: make.gauges(names::HELD),
            waiting: make.gauges(names::WAITING),
            pods: make.gauges(names::PODS),
            containers: make.gauges(names::CONTAINERS),
            ports: make.gauges(names::PORTS).with_label_values(NONE),
            restarts: make.counters(names::RESTARTS),
            cron_runs: make.counters(names::CRON_RUNS),
            cron_next: make.gauges(names::CRON_NEXT),
            cron_last: make.gauges(names::CRON_LAST),
            cron_success: make.gauges(names::CRON_SUCCESS),
            ooms: make.counters(names::OOMS),
            versions_failed: make.counters(names::VERSIONS_FAILED),
            probes: make.counters(names::PROBES),
            probe_seconds: make.histograms(names::PROBE_SECONDS, QUICK),
            pulls: make.counters(names::PULLS),
            pull_bytes: make.counters(names::PULL_BYTES).with_label_values(NONE),
            pull_seconds: make.histograms(names::PULL_SECONDS, SLOW).with_label_values(NONE),
            pulls_running: make.gauges(names::PULLS_RUNNING).with_label_values(NONE),
            pull_left: make.gauges(names::PULL_LEFT).with_label_values(NONE),
            pulled: AtomicU64::new(0),
            gc_images: make.counters(names::GC_IMAGES).with_label_values(NONE),
            gc_bytes: make.counters(names::GC_BYTES).with_label_values(NONE),
            image_disk: make.gauges(names::IMAGE_DISK).with_label_values(NONE),
            images: make.gauges(names::IMAGES).with_label_values(NONE),
            image_bytes: make.gauges(names::IMAGE_BYTES).with_label_values(NONE),
            volume_bytes: make.gauges(names::VOLUME_BYTES),
            log_bytes: make.gauges(names::LOG_BYTES).with_label_values(NONE),
            log_limit: make.gauges(names::LOG_LIMIT).with_label_values(NONE),
            log_removed: make.counters(names::LOG_REMOVED).with_label_values(NONE),
            manifests: make.gauges(names::MANIFESTS),
            findings: make.gauges(names::FINDINGS),
            source_failed: make.gauges(names::SOURCE_FAILED),
            source_success: make.gauges(names::SOURCE_SUCCESS),
            source_revision: make.gauges(names::SOURCE_REVISION),
            source_interval: make.gauges(names::SOURCE_INTERVAL),
            events: make.counters(names::EVENTS),
            events_lost: make.counters(names::EVENTS_LOST).with_label_values(NONE),
            notifications: make.counters(names::NOTIFICATIONS),
            sync_requests: make.counters(names::SYNC_REQUESTS),
            reload_ok: make.gauges(names::RELOAD_OK).with_label_values(NONE),
            reload_at: make.gauges(names::RELOAD_AT).with_label_values(NONE),
            container_series: Mutex::new(BTreeSet::new()),
            cron_series: Mutex::new(BTreeSet::new()),
            registry: registry.clone(),
        };
        let metrics = Self(Arc::new(inner));
        metrics.start_at_zero();
        metrics
    }

    /// Series whose labels are known beforehand exist from the first scrape on, so that `rate()` sees their first
    /// step.
    fn start_at_zero(&self) {
        let inner = &self.0;
        for outcome in ["ok", "error"] {
            inner.reconciles.with_label_values(&[outcome]);
            inner.pulls.with_label_values(&[outcome]);
            inner.sync_requests.with_label_values(&[outcome]);
        }
        for cause in ["crashed", "out_of_memory", "not_ready", "cannot_start"] {
            for reaction in ["rolled_back", "paused"] {
                inner.versions_failed.with_label_values(&[cause, reaction]);
            }
        }
        for kind in ["normal", "warning"] {
            inner.events.with_label_values(&[kind]);
        }
        self.observe_snapshot(&Snapshot::default());
        // The agent would not have started with a configuration that cannot be used.
        self.reload(true, crate::clock::Clock::unix(&crate::clock::HostClock));
    }

    /// The configuration was read at this Unix time, and whether it can be used.
    pub fn reload(&self, ok: bool, unix: i64) {
        self.0.reload_ok.set(if ok { 1.0 } else { 0.0 });
        if ok {
            self.0.reload_at.set(as_float(u64::try_from(unix).unwrap_or(0)));
        }
    }

    /// A pass of the loop has ended: whether nothing had failed before it, and whether it knew what runs.
    pub fn reconcile(&self, elapsed: Duration, ok: bool, seeing: bool) {
        self.0.reconciles.with_label_values(&[outcome(ok)]).inc();
        self.0.reconcile_seconds.observe(elapsed.as_secs_f64());
        if seeing {
            self.0.last_reconcile.set(unix_now());
        }
    }

    /// A pass is about to take in so many events, the oldest of which has waited for so long.
    pub fn taken_in(&self, events: usize, waited: Duration) {
        self.0.inbox.set(as_float(events as u64));
        self.0.lag.observe(waited.as_secs_f64());
    }

    /// So many actions are being carried out.
    pub fn running_actions(&self, actions: usize) {
        self.0.running.set(as_float(actions as u64));
    }

    /// Images and volumes were measured.
    pub fn sizes(&self, sizes: &Sizes) {
        let inner = &self.0;
        inner.images.set(as_float(sizes.images.0 as u64));
        inner.image_bytes.set(as_float(sizes.images.1));
        inner.volume_bytes.reset();
        for (volume, bytes) in &sizes.volumes {
            inner.volume_bytes.with_label_values(&[volume.as_str()]).set(as_float(*bytes));
        }
    }

    /// An action has ended. `word` and `reason` are the words of the plan.
    pub fn action(&self, word: &'static str, reason: &'static str, ok: bool, elapsed: Duration) {
        self.0.actions.with_label_values(&[word, reason, outcome(ok)]).inc();
        self.0.action_seconds.with_label_values(&[word]).observe(elapsed.as_secs_f64());
    }

    /// A container was started again.
    pub fn container_restart(&self, workload: &WorkloadId, container: &str) {
        self.begin_container(&workload.namespace, &workload.name, container);
        self.0.restarts.with_label_values(&[workload.namespace.as_str(), &workload.name, container]).inc();
    }

    /// A run of a CronJob has ended.
    pub fn run_ended(&self, workload: &WorkloadId, ok: bool) {
        self.begin_schedule(&workload.namespace, &workload.name);
        self.0.cron_runs.with_label_values(&[workload.namespace.as_str(), &workload.name, outcome(ok)]).inc();
    }

    /// Counters of a CronJob are there before its first run has ended.
    fn begin_schedule(&self, namespace: &str, name: &str) {
        let new = [namespace.to_owned(), name.to_owned()];
        if self.0.cron_series.lock().unwrap_or_else(PoisonError::into_inner).insert(new) {
            for ok in [true, false] {
                self.0.cron_runs.with_label_values(&[namespace, name, outcome(ok)]);
            }
        }
    }

    /// Moments of every CronJob; series of those that are gone are dropped.
    fn observe_schedules(&self, snapshot: &Snapshot) {
        let inner = &self.0;
        for vector in [&inner.cron_next, &inner.cron_last, &inner.cron_success] {
            vector.reset();
        }
        for workload in &snapshot.workloads {
            let Some(cron) = &workload.cron else { continue };
            self.begin_schedule(&workload.namespace, &workload.name);
            for (vector, moment) in [
                (&inner.cron_next, cron.next_run),
                (&inner.cron_last, cron.last_run),
                (&inner.cron_success, cron.last_success),
            ] {
                if let Some(moment) = moment.and_then(|moment| u64::try_from(moment).ok()) {
                    vector.with_label_values(&[workload.namespace.as_str(), &workload.name]).set(as_float(moment));
                }
            }
        }
    }

    /// A container was ended by the kernel for want of memory.
    pub fn container_oom(&self, workload: &WorkloadId, container: &str) {
        self.begin_container(&workload.namespace, &workload.name, container);
        self.0.ooms.with_label_values(&[workload.namespace.as_str(), &workload.name, container]).inc();
    }

    /// A version of a workload failed. `cause` is the word of the plan.
    pub fn version_failed(&self, cause: &'static str, rolled_back: bool) {
        let reaction = if rolled_back { "rolled_back" } else { "paused" };
        self.0.versions_failed.with_label_values(&[cause, reaction]).inc();
    }

    /// Counters of a container are there before anything has happened to it: `increase()` of a series that appears with
    /// its first step is nothing.
    fn begin_container(&self, namespace: &str, workload: &str, container: &str) {
        let new = [namespace, workload, container].map(str::to_owned);
        if self.0.container_series.lock().unwrap_or_else(PoisonError::into_inner).insert(new) {
            for vector in [&self.0.restarts, &self.0.ooms] {
                vector.with_label_values(&[namespace, workload, container]);
            }
        }
    }

    /// A pull from a registry has ended.
    pub fn image_pull(&self, ok: bool, elapsed: Duration) {
        self.0.pulls.with_label_values(&[outcome(ok)]).inc();
        if ok {
            self.0.pull_seconds.observe(elapsed.as_secs_f64());
        }
    }

    /// What goes on with images at the moment of a scrape.
    pub fn pulls(&self, pulls: &Pulls) {
        // Two scrapes at once must not count the same bytes.
        let before = self.0.pulled.fetch_max(pulls.fetched, Ordering::Relaxed);
        self.0.pull_bytes.inc_by(as_float(pulls.fetched.saturating_sub(before)));
        self.0.pulls_running.set(as_float(pulls.running.len() as u64));
        let left = pulls.running.iter().map(|pull| pull.bytes.saturating_sub(pull.received));
        self.0.pull_left.set(as_float(left.fold(0, u64::saturating_add)));
    }

    /// The disk of the images was looked at: what was removed, and how full it is in per cent.
    pub fn image_gc(&self, images: u64, bytes: u64, used_percent: u8) {
        self.0.gc_images.inc_by(as_float(images));
        self.0.gc_bytes.inc_by(as_float(bytes));
        self.0.image_disk.set(f64::from(used_percent) / 100.0);
    }

    /// The logs of all containers were looked at: what they take now, what they may take, and how much was removed.
    pub fn logs(&self, bytes: u64, limit: u64, removed: u64) {
        self.0.log_bytes.set(as_float(bytes));
        self.0.log_limit.set(as_float(limit));
        self.0.log_removed.inc_by(as_float(removed));
    }

    /// A source was read without an error at this Unix time.
    pub fn source_success(&self, source: &str, unix: f64) {
        self.0.source_success.with_label_values(&[source]).set(unix);
    }

    /// A source is asked, or read anew, this often.
    pub fn source_interval(&self, source: &str, interval: Duration) {
        self.0.source_interval.with_label_values(&[source]).set(interval.as_secs_f64());
    }

    /// The loop looks at everything this often.
    pub fn resync_interval(&self, interval: Duration) {
        self.0.resync_interval.set(interval.as_secs_f64());
    }

    /// A probe has its answer. `probe` is `startup`, `readiness` or `liveness`.
    pub fn probe(&self, probe: &'static str, ok: bool, elapsed: Duration) {
        self.0.probes.with_label_values(&[probe, outcome(ok)]).inc();
        self.0.probe_seconds.with_label_values(&[probe]).observe(elapsed.as_secs_f64());
    }

    /// An event was recorded; `stored` is false when the journal could not take it.
    pub fn event(&self, kind: &'static str, stored: bool) {
        self.0.events.with_label_values(&[kind]).inc();
        if !stored {
            self.0.events_lost.inc();
        }
    }

    /// So many events for a webhook of the configuration were sent, given up or dropped.
    pub fn notification(&self, webhook: &str, outcome: &'static str, events: u64) {
        self.0.notifications.with_label_values(&[webhook, outcome]).inc_by(as_float(events));
    }

    /// There is a webhook of this name in the configuration: its counters are there before the first event.
    pub fn webhook(&self, name: &str) {
        for outcome in ["ok", "error", "dropped"] {
            self.notification(name, outcome, 0);
        }
    }

    /// Somebody has called the sync hook, with the secret or without.
    pub fn sync_request(&self, ok: bool) {
        self.0.sync_requests.with_label_values(&[outcome(ok)]).inc();
    }

    /// Sets every gauge that follows from what the loop has published.
    pub fn observe_snapshot(&self, snapshot: &Snapshot) {
        let inner = &self.0;
        let pods = || snapshot.workloads.iter().flat_map(|workload| &workload.pods);
        count(&inner.workloads, &WORKLOAD_PHASES, snapshot.workloads.iter().map(|workload| workload.phase.as_str()));
        count(&inner.pods, &PHASES, pods().map(|pod| pod.phase.as_str()));
        count(&inner.containers, &STATES, pods().flat_map(|pod| &pod.containers).map(|c| c.state.as_str()));
        count(&inner.held, &[], snapshot.workloads.iter().filter_map(|w| Some(w.held.as_ref()?.reason.as_str())));
        let waits = snapshot.workloads.iter().filter_map(|w| Some(w.waiting.first()?.reason.as_str()));
        count(&inner.waiting, &[], waits);
        self.observe_schedules(snapshot);
        for workload in &snapshot.workloads {
            for container in workload.pods.iter().flat_map(|pod| &pod.containers) {
                self.begin_container(&workload.namespace, &workload.name, &container.name);
            }
        }
        inner.ports.set(as_float(snapshot.ports.len() as u64));
        inner.planned.set(as_float(snapshot.plan.len() as u64));

        let (mut ok, mut broken, mut errors, mut warnings) = (0, 0, 0, 0);
        inner.source_failed.reset();
        inner.source_revision.reset();
        for source in &snapshot.sources {
            let bad = source.broken.min(source.files);
            ok += source.files - bad;
            broken += bad;
            errors += source.errors.len();
            warnings += source.warnings.len();
            let failed = if source.state == "failed" { 1.0 } else { 0.0 };
            inner.source_failed.with_label_values(&[source.path.as_str()]).set(failed);
            if let Some(revision) = &source.revision {
                inner.source_revision.with_label_values(&[source.path.as_str(), revision]).set(1.0);
            }
        }
        for (vector, label, value) in [
            (&inner.manifests, "ok", ok),
            (&inner.manifests, "broken", broken),
            (&inner.findings, "error", errors),
            (&inner.findings, "warning", warnings),
        ] {
            vector.with_label_values(&[label]).set(as_float(value as u64));
        }
        self.forget_gone(snapshot);
    }

    /// Drops series of workloads that are gone: cardinality is bounded by what the manifests name now.
    fn forget_gone(&self, snapshot: &Snapshot) {
        let mut series = self.0.container_series.lock().unwrap_or_else(PoisonError::into_inner);
        series.retain(|[namespace, workload, container]| {
            let stays = snapshot.workloads.iter().any(|w| w.namespace == *namespace && w.name == *workload);
            if !stays {
                for vector in [&self.0.restarts, &self.0.ooms] {
                    // "Not there" is as good as removed.
                    drop(vector.remove_label_values(&[namespace.as_str(), workload, container]));
                }
            }
            stays
        });
        drop(series);
        let mut runs = self.0.cron_series.lock().unwrap_or_else(PoisonError::into_inner);
        runs.retain(|[namespace, name]| {
            let stays =
                snapshot.workloads.iter().any(|w| w.cron.is_some() && w.namespace == *namespace && w.name == *name);
            if !stays {
                for ok in [true, false] {
                    drop(self.0.cron_runs.remove_label_values(&[namespace.as_str(), name, outcome(ok)]));
                }
            }
            stays
        });
    }

    /// Everything that is counted, with the agent's own process, without readings of containers.
    #[must_use]
    pub fn text(&self) -> String {
        self.text_with(&Readings::default())
    }

    /// Everything that is counted, and these readings of containers.
    #[must_use]
    pub fn text_with(&self, readings: &Readings) -> String {
        let mut families = self.0.registry.gather();
        let scraped = Registry::new();
        readings.register(&Maker(&scraped));
        process::register(&Maker(&scraped));
        families.extend(scraped.gather());
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&families, &mut out) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// No labels.
const NONE: Labels<'static> = &[];

/// Makes series from entries of the table and registers them.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn counters(&self, metric: Metric) -> CounterVec {
        debug_assert_eq!(metric.kind, Kind::Counter);
        self.register(CounterVec::new(Opts::new(metric.name, metric.help), metric.labels))
    }

    fn gauges(&self, metric: Metric) -> GaugeVec {
        debug_assert_eq!(metric.kind, Kind::Gauge);
        self.register(GaugeVec::new(Opts::new(metric.name, metric.help), metric.labels))
    }

    fn histograms(&self, metric: Metric, buckets: &[f64]) -> HistogramVec {
        debug_assert_eq!(metric.kind, Kind::Histogram);
        let opts = HistogramOpts::new(metric.name, metric.help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, metric.labels))
    }

    fn register<T: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<T>) -> T {
        let made = made.expect("names and labels of the table are valid, a test makes them all");
        self.0.register(Box::new(made.clone())).expect("names of the table are unique, a test makes them all");
        made
    }
}

/// Sets a gauge for each label to the number of times that it occurs; known labels are there even at zero.
fn count<'a>(vector: &GaugeVec, known: &[&str], seen: impl Iterator<Item = &'a str>) {
    vector.reset();
    for label in known {
        vector.with_label_values(&[*label]).set(0.0);
    }
    for label in seen {
        vector.with_label_values(&[label]).inc();
    }
}

const fn outcome(ok: bool) -> &'static str {
    if ok { "ok" } else { "error" }
}

/// Counters of bytes are floats in Prometheus: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn as_float(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "exact for the next 280 million years")]
fn unix_now() -> f64 {
    use crate::clock::Clock as _;
    crate::clock::HostClock.unix() as f64
}

#[cfg(test)]
mod tests;
