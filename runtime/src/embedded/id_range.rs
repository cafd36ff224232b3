//! The user and group ids of pods with a user namespace of their own (`hostUsers: false`): 65,536 for each, which no other
//! pod has and nobody else on the host uses.
//!
//! A range is written beside the pod's record before anything is made with it, so it stays the same over restarts of the
//! agent and reboots, and is free again when the pod's directory is gone.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use spec::observed::PodUid;

use super::layout::Layout;
use super::records::{self, RecordError};
use crate::container::ID_COUNT;

/// The first id of the first range: above what systemd hands out to containers and below its foreign ids (systemd,
/// UIDS-GIDS), hence far above those of people, services and /etc/subuid.
const FIRST: u32 = 0x7000_0000;

/// How many ranges there are before systemd's foreign ids.
const RANGES: u32 = 0x0ffd;

/// Why a pod has no range.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdRangeError {
    /// A record cannot be read or written.
    #[error("cannot use the record of the pod's user ids")]
    Record(#[source] RecordError),
    /// The records of other pods cannot be listed.
    #[error("cannot list the user ids of other pods")]
    List(#[source] std::io::Error),
    /// Every range is somebody's.
    #[error("all {RANGES} ranges of user ids are taken by pods")]
    Full,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Record {
    first: u32,
}

fn file(layout: &Layout, uid: &PodUid) -> PathBuf {
    layout.pod(uid).join("users.json")
}

/// The first id of a pod's range; `None` when it has none.
pub(super) fn of(layout: &Layout, uid: &PodUid) -> Result<Option<u32>, IdRangeError> {
    let record = records::read::<Record>(&file(layout, uid)).map_err(IdRangeError::Record)?;
    Ok(record.map(|record| record.first))
}

/// The first id of a pod's range, chosen and written down when it has none yet: the lowest that is free.
pub(super) fn choose(layout: &Layout, uid: &PodUid) -> Result<u32, IdRangeError> {
    // Pods are made at the same time, but by one process only, which holds the lock of the directory.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(first) = of(layout, uid)? {
        return Ok(first);
    }
    let mut taken = BTreeSet::new();
    for entry in std::fs::read_dir(layout.pods()).map_err(IdRangeError::List)? {
        let name = entry.map_err(IdRangeError::List)?.file_name();
        taken.extend(of(layout, &PodUid(name.to_string_lossy().into_owned()))?);
    }
    let first = (0..RANGES).map(|index| FIRST + index * ID_COUNT).find(|first| !taken.contains(first));
    let first = first.ok_or(IdRangeError::Full)?;
    records::write(&file(layout, uid), &Record { first }).map_err(IdRangeError::Record)?;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_pods_share_a_range() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout { data: dir.path().join("data"), run: dir.path().join("run"), cgroup: "x".to_owned() };
        let pods = ["a", "b", "c"].map(|name| PodUid(name.to_owned()));
        for uid in &pods {
            std::fs::create_dir_all(layout.pod(uid)).expect("made");
        }
        let [a, b, c] = &pods;
        assert_eq!(of(&layout, a).expect("read"), None);
        assert_eq!(choose(&layout, a).expect("free"), 0x7000_0000);
        assert_eq!(choose(&layout, b).expect("free"), 0x7001_0000);
        // It stays, and is free again with the pod.
        assert_eq!(choose(&layout, a).expect("known"), 0x7000_0000);
        std::fs::remove_dir_all(layout.pod(a)).expect("removed");
        assert_eq!(choose(&layout, c).expect("free"), 0x7000_0000);
        assert_eq!(of(&layout, c).expect("read"), Some(0x7000_0000));
        // A record that cannot be read may say anything: nothing is given out past it.
        std::fs::write(file(&layout, b), "{").expect("written");
        std::fs::create_dir_all(layout.pod(a)).expect("made");
        assert!(choose(&layout, a).is_err());
    }
}
