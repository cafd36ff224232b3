//! Every metric: name, type, labels and help, in one place. `docs/metrics.md` repeats this list and a test compares
//! list, document and what `/metrics` serves.
//!
//! Rules: base units (seconds, bytes), unit in the plural, counters end in `_total`, times of a last success in
//! `_timestamp_seconds`, facts about the build in `_info`. Labels come from enums or from names in manifests, never
//! from messages, digests or paths. Series of one container live only as long as the container.

/// What kind of series it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it counts or measures.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($ident:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $ident: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// Every metric, in the order of the documentation.
        pub const METRICS: &[Metric] = &[$($ident),*];
    };
}

metrics! {
    BUILD_INFO = Gauge "mainstay_build_info" ["version", "architecture"]
        "Always 1; the labels say what was built.";

    RECONCILES = Counter "mainstay_reconciles_total" ["outcome"]
        "Passes of the reconcile loop; an error is one that followed an action that failed, or could not list what runs.";
    RECONCILE_SECONDS = Histogram "mainstay_reconcile_duration_seconds" []
        "Time that a pass took, from reading the facts to handing out the actions.";
    LAST_RECONCILE = Gauge "mainstay_last_reconcile_success_timestamp_seconds" []
        "Unix time of the last pass that knew what runs.";
    RESYNC_INTERVAL = Gauge "mainstay_resync_interval_seconds" []
        "Time between two passes when nothing happens.";
    RECONCILE_LAG = Histogram "mainstay_reconcile_lag_seconds" []
        "Time that the oldest event of a pass waited for it, at most.";
    INBOX = Gauge "mainstay_inbox_events" []
        "Events that the last pass took in.";
    RUNNING_ACTIONS = Gauge "mainstay_running_actions" []
        "Actions that were being carried out after the last pass.";
    ACTIONS = Counter "mainstay_actions_total" ["action", "reason", "outcome"]
        "Actions that were carried out, with the reason that the plan gave.";
    ACTION_SECONDS = Histogram "mainstay_action_duration_seconds" ["action"]
        "Time that an action took.";
    PLANNED = Gauge "mainstay_planned_actions" []
        "Actions of the last plan.";

    WORKLOADS = Gauge "mainstay_workloads" ["phase"]
        "Workloads by phase.";
    HELD = Gauge "mainstay_workloads_held" ["reason"]
        "Workloads that are frozen at their last good version.";
    WAITING = Gauge "mainstay_workloads_waiting" ["reason"]
        "Workloads that wait for something before they go on.";
    PODS = Gauge "mainstay_pods" ["phase"]
        "Pods by phase.";
    CONTAINERS = Gauge "mainstay_containers" ["state"]
        "Containers of all pods by state.";
    CRON_RUNS = Counter "mainstay_cronjob_runs_total" ["namespace", "cronjob", "outcome"]
        "Runs of CronJobs that ended.";
    CRON_NEXT = Gauge "mainstay_cronjob_next_run_timestamp_seconds" ["namespace", "cronjob"]
        "Unix time that the next run is due at.";
    CRON_LAST = Gauge "mainstay_cronjob_last_run_timestamp_seconds" ["namespace", "cronjob"]
        "Unix time that the newest run was due at.";
    CRON_SUCCESS = Gauge "mainstay_cronjob_last_success_timestamp_seconds" ["namespace", "cronjob"]
        "Unix time that the newest run that succeeded was due at.";
    PORTS = Gauge "mainstay_published_ports" []
        "Ports of the host that lead to a pod.";
    RESTARTS = Counter "mainstay_container_restarts_total" ["namespace", "workload", "container"]
        "Starts of a container after its first one.";
    OOMS = Counter "mainstay_container_ooms_total" ["namespace", "workload", "container"]
        "Ends of a container for want of memory.";
    VERSIONS_FAILED = Counter "mainstay_versions_failed_total" ["cause", "reaction"]
        "New versions of workloads that failed, and whether the update was rolled_back or paused for it.";
    PROBES = Counter "mainstay_probes_total" ["probe", "outcome"]
        "Probes that were carried out.";
    PROBE_SECONDS = Histogram "mainstay_probe_duration_seconds" ["probe"]
        "Time until a probe had its answer.";

    PULLS = Counter "mainstay_image_pulls_total" ["outcome"]
        "Images that were fetched from a registry, or were to be.";
    PULL_BYTES = Counter "mainstay_image_pull_bytes_total" []
        "Compressed bytes of layers that have come, those of pulls that failed included; counted as they come.";
    PULL_SECONDS = Histogram "mainstay_image_pull_duration_seconds" []
        "Time from asking for an image until it was unpacked and verified.";
    PULLS_RUNNING = Gauge "mainstay_image_pulls_running" []
        "Images that are being fetched now.";
    PULL_LEFT = Gauge "mainstay_image_pull_remaining_bytes" []
        "Compressed bytes that running pulls have still to fetch, of images whose manifest is known.";

    GC_IMAGES = Counter "mainstay_image_gc_images_total" []
        "Images that were removed because nobody needed them.";
    GC_BYTES = Counter "mainstay_image_gc_bytes_total" []
        "Bytes of layers that were removed with them.";
    IMAGE_DISK = Gauge "mainstay_image_filesystem_used_ratio" []
        "How full the file system of the images was when it was last looked at, from 0 to 1.";

    IMAGES = Gauge "mainstay_images" []
        "Images in the store when it was last measured (every 5 minutes at most).";
    IMAGE_BYTES = Gauge "mainstay_image_store_bytes" []
        "Bytes of all layers in the store at that time, shared ones once.";
    VOLUME_BYTES = Gauge "mainstay_volume_bytes" ["volume"]
        "Bytes that a named volume took at that time; of the 200 largest.";
    LOG_BYTES = Gauge "mainstay_log_bytes" []
        "Bytes of the log files of all containers when they were last looked at.";
    LOG_LIMIT = Gauge "mainstay_log_limit_bytes" []
        "Bytes that the log files of all containers may take together; 0 without a limit.";
    LOG_REMOVED = Counter "mainstay_log_removed_bytes_total" []
        "Bytes of log files that were removed because all together were above the limit.";

    MANIFESTS = Gauge "mainstay_manifests" ["state"]
        "Manifest files by state: ok, or broken (their last good version is kept).";
    FINDINGS = Gauge "mainstay_manifest_findings" ["severity"]
        "Errors and warnings about manifests that `mainstay status` shows.";
    SOURCE_FAILED = Gauge "mainstay_source_failed" ["source"]
        "1 while a source cannot be read as a whole; everything of it stays as it is.";
    SOURCE_REVISION = Gauge "mainstay_source_revision_info" ["source", "revision"]
        "Always 1; the labels say which commit or digest of a source that is followed counts.";
    SOURCE_INTERVAL = Gauge "mainstay_source_interval_seconds" ["source"]
        "Time between two readings of a source when nothing happens.";
    SOURCE_SUCCESS = Gauge "mainstay_source_last_success_timestamp_seconds" ["source"]
        "Unix time at which a source was last read without an error, before a restart too; 0 for never.";

    EVENTS = Counter "mainstay_events_total" ["type"]
        "Events that were recorded.";
    EVENTS_LOST = Counter "mainstay_events_lost_total" []
        "Events that could not be written to the journal.";

    NOTIFICATIONS = Counter "mainstay_notifications_total" ["webhook", "outcome"]
        "Events for a webhook: sent (ok), given up (error), or dropped since too many were waiting.";
    SYNC_REQUESTS = Counter "mainstay_sync_requests_total" ["outcome"]
        "Requests to the sync hook: with the right secret (ok) or without (error).";

    RELOAD_OK = Gauge "mainstay_config_last_reload_successful" []
        "1 when the configuration could be used when it was last read, else 0.";
    RELOAD_AT = Gauge "mainstay_config_last_reload_success_timestamp_seconds" []
        "Unix time at which the configuration was last read and could be used.";

    CPU = Counter "mainstay_container_cpu_seconds_total" ["namespace", "workload", "pod", "container"]
        "CPU time that a container used.";
    THROTTLED = Counter "mainstay_container_cpu_throttled_seconds_total" ["namespace", "workload", "pod", "container"]
        "Time for which a container was kept from the CPU by its limit.";
    THROTTLES = Counter "mainstay_container_cpu_throttled_periods_total" ["namespace", "workload", "pod", "container"]
        "Periods in which a container was held back by its CPU limit.";
    STALLED = Counter "mainstay_container_pressure_stalled_seconds_total" ["namespace", "workload", "pod", "container", "resource"]
        "Time in which a part of a container waited for `cpu`, `memory` or `io` (PSI); cgroup v2 only.";
    WORKING_SET = Gauge "mainstay_container_memory_working_set_bytes" ["namespace", "workload", "pod", "container"]
        "Memory of a container without reclaimable page cache; the kernel ends it when this reaches the limit.";
    MEMORY = Gauge "mainstay_container_memory_bytes" ["namespace", "workload", "pod", "container"]
        "Memory of a container, page cache included.";
    MEMORY_LIMIT = Gauge "mainstay_container_memory_limit_bytes" ["namespace", "workload", "pod", "container"]
        "Memory limit of a container; absent without one.";
    PIDS = Gauge "mainstay_container_pids" ["namespace", "workload", "pod", "container"]
        "Processes and threads of a container.";
    FS_READ = Counter "mainstay_container_fs_read_bytes_total" ["namespace", "workload", "pod", "container"]
        "Bytes that a container read from block devices.";
    FS_WRITE = Counter "mainstay_container_fs_write_bytes_total" ["namespace", "workload", "pod", "container"]
        "Bytes that a container wrote to block devices.";
    NET_RX_BYTES = Counter "mainstay_pod_network_receive_bytes_total" ["namespace", "workload", "pod"]
        "Bytes that a pod received.";
    NET_TX_BYTES = Counter "mainstay_pod_network_transmit_bytes_total" ["namespace", "workload", "pod"]
        "Bytes that a pod sent.";
    NET_RX_PACKETS = Counter "mainstay_pod_network_receive_packets_total" ["namespace", "workload", "pod"]
        "Packets that a pod received.";
    NET_TX_PACKETS = Counter "mainstay_pod_network_transmit_packets_total" ["namespace", "workload", "pod"]
        "Packets that a pod sent.";
    SCRAPE_FAILURES = Gauge "mainstay_scrape_failures" []
        "Containers and pods whose readings could not be taken for this answer.";

    PROCESS_CPU = Counter "process_cpu_seconds_total" []
        "CPU time that the agent used.";
    PROCESS_RSS = Gauge "process_resident_memory_bytes" []
        "Resident memory of the agent.";
    PROCESS_VIRTUAL = Gauge "process_virtual_memory_bytes" []
        "Virtual memory of the agent.";
    PROCESS_FDS = Gauge "process_open_fds" []
        "Open file descriptors of the agent.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" []
        "File descriptors that the agent may open.";
    PROCESS_THREADS = Gauge "process_threads" []
        "Threads of the agent.";
    PROCESS_START = Gauge "process_start_time_seconds" []
        "Unix time at which the agent started.";
}
