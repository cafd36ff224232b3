//! The log files of all containers: how much they take, and removing what `spec::logs` says goes.
//!
//! A running container's files belong to its shim, which is asked; those of one that has ended belong to nobody.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use spec::logs::{Cut, LogFile, LogFiles};
use spec::observed::{PodRecord, PodUid};

use super::layout::{Attempt, Layout, attempts};
use super::records;
use crate::container::ShimClient;

/// The log of one attempt.
#[derive(Debug)]
pub struct AttemptLog {
    /// Whose: `pod/container`.
    pub owner: String,
    /// What there is of it.
    pub files: LogFiles,
    attempt: Attempt,
}

/// Every log of a data directory that has files.
///
/// # Errors
/// The directory cannot be read. A pod that goes while it is looked at is none.
pub fn list(layout: &Layout) -> io::Result<Vec<AttemptLog>> {
    let mut found = Vec::new();
    for pod in fs::read_dir(layout.pods())? {
        let uid = PodUid(pod?.file_name().to_string_lossy().into_owned());
        // Containers are directories of numbers; a directory of volumes has none.
        for container in fs::read_dir(layout.pod(&uid)).into_iter().flatten().flatten() {
            let container = container.file_name().to_string_lossy().into_owned();
            if container == "volumes" {
                continue;
            }
            for number in attempts(&layout.container(&uid, &container)) {
                let attempt = layout.attempt(&uid, &container, number);
                let files = files(&attempt.log());
                if !files.is_empty() {
                    let live = !attempt.exit_file().exists();
                    let owner = format!("{uid}/{container}");
                    found.push(AttemptLog { owner, files: LogFiles { live, files }, attempt });
                }
            }
        }
    }
    Ok(found)
}

/// Size and time of each file, newest first.
fn files(log: &Path) -> Vec<LogFile> {
    let file = |meta: Metadata| LogFile { size: meta.len(), modified: meta.mtime() };
    let rotated: Vec<LogFile> = (1..).map_while(|number| fs::metadata(rotated(log, number)).ok()).map(file).collect();
    let current = match fs::metadata(log) {
        Ok(meta) => file(meta),
        Err(_) if rotated.is_empty() => return rotated,
        // In the moment of a rotation there is no current file.
        Err(_) => LogFile { size: 0, modified: i64::MAX },
    };
    std::iter::once(current).chain(rotated).collect()
}

/// The file that was the log so many rotations ago, beside the one that is written.
pub(crate) fn rotated(log: &Path, number: usize) -> PathBuf {
    log.with_file_name(format!("log.{number}"))
}

impl AttemptLog {
    /// The name of its pod in place of the uid, where the record tells it.
    #[must_use]
    pub fn named(&self, layout: &Layout) -> String {
        let (uid, container) = self.owner.split_once('/').unwrap_or((&self.owner, ""));
        let record = records::read::<PodRecord>(&layout.pod(&PodUid(uid.to_owned())).join("pod.json"));
        record.ok().flatten().map_or_else(|| self.owner.clone(), |record| format!("{}/{container}", record.name))
    }

    /// Removes what goes.
    ///
    /// # Errors
    /// The disk or the shim refuses. A container that ended in between is looked at again the next time.
    pub fn cut(&self, cut: &Cut) -> io::Result<()> {
        if self.files.live {
            return ShimClient::connect(&self.attempt.run)?.cut_log(u32::try_from(cut.keep).unwrap_or(u32::MAX));
        }
        let log = self.attempt.log();
        // From the oldest, so that an end in the middle leaves no gap.
        for place in (cut.keep..self.files.files.len()).rev() {
            let path = if place == 0 { log.clone() } else { rotated(&log, place) };
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The size of the file system of the logs in bytes.
///
/// # Errors
/// It cannot be asked.
pub fn file_system(layout: &Layout) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(&layout.data)?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_ended_attempts_are_listed_and_cut() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout { data: dir.path().to_owned(), run: dir.path().join("run"), cgroup: "none".to_owned() };
        let uid = PodUid("u".to_owned());
        let attempt = layout.attempt(&uid, "c", 3);
        fs::create_dir_all(&attempt.dir).expect("made");
        // A volume may hold whatever names it likes.
        fs::create_dir_all(layout.pod(&uid).join("volumes/1")).expect("made");
        fs::write(layout.pod(&uid).join("volumes/1/log"), "not ours").expect("written");
        for (name, bytes) in [("log", 10), ("log.1", 20), ("log.2", 30), ("exit.json", 1)] {
            fs::write(attempt.dir.join(name), vec![b'x'; bytes]).expect("written");
        }
        let found = list(&layout).expect("listed");
        let sizes: Vec<Vec<u64>> =
            found.iter().map(|log| log.files.files.iter().map(|file| file.size).collect()).collect();
        assert_eq!(sizes, [[10, 20, 30]]);
        let log = found.first().expect("one");
        assert!(!log.files.live);
        for keep in [2, 0] {
            log.cut(&Cut { index: 0, keep, bytes: 0 }).expect("cut");
            let left = list(&layout).expect("listed");
            assert_eq!(left.iter().map(|log| log.files.files.len()).sum::<usize>(), keep);
        }
        fs::remove_file(attempt.exit_file()).expect("removed");
        fs::write(attempt.log(), "x").expect("written");
        assert!(list(&layout).expect("listed").iter().all(|log| log.files.live));
    }
}
