//! What a container may use of its host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::is_default;

record! {
    /// Limits and requests, in base units.
    pub struct Resources {
        /// Request: CPU in thousandths of a core.
        pub cpu_request_milli: Option<u64>,
        /// Limit: CPU in thousandths of a core.
        pub cpu_limit_milli: Option<u64>,
        /// Request: bytes of memory.
        pub memory_request: Option<u64>,
        /// Limit: bytes of memory.
        pub memory_limit: Option<u64>,
        /// Bytes of memory above which it is slowed down and made to give back (version 2 only).
        pub memory_high: Option<u64>,
        /// Limit: bytes of memory and swap together.
        pub memory_swap_limit: Option<i64>,
        /// Limit: processes and threads.
        pub pids_limit: Option<i64>,
        /// Relative CPU weight (`cpu_shares` of Compose).
        pub cpu_shares: Option<u64>,
        /// CPUs it may use, such as `0-2,4`.
        pub cpuset: Option<String>,
        /// Huge pages by page size: bytes.
        pub hugepages: BTreeMap<String, u64>,
        /// Relative block I/O weight, 10 to 1000.
        pub blkio_weight: Option<u16>,
        /// Limits of block devices of the host, whole disks.
        pub disk_limits: Vec<DiskLimit>,
        /// Change of the badness for the OOM killer.
        pub oom_score_adj: Option<i32>,
        /// Out of memory, one process is killed instead of the whole container (version 2; kubelet
        /// `singleProcessOOMKill`, and Docker always).
        pub single_process_oom_kill: bool,
        /// Never OOM-killed (v1 only).
        pub oom_kill_disable: bool,
        /// Ephemeral storage limit in bytes.
        pub ephemeral_storage_limit: Option<u64>,
        /// Ephemeral storage request in bytes.
        pub ephemeral_storage_request: Option<u64>,
    }
}

record! {
    /// How fast a container may use a block device (`blkio_config.device_*` of Compose).
    pub struct DiskLimit {
        /// The device's node on the host, such as `/dev/sda`.
        pub path: String,
        /// Bytes read a second.
        pub read_bps: Option<u64>,
        /// Bytes written a second.
        pub write_bps: Option<u64>,
        /// Reads a second.
        pub read_iops: Option<u64>,
        /// Writes a second.
        pub write_iops: Option<u64>,
    }
}
