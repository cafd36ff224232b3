//! Records on disk of pods and attempts: JSON with a schema version, written so that a power cut leaves the old one or
//! the new one.

use std::path::Path;

use serde::{Deserialize, Serialize};
use spec::health::ImageCheck;
use spec::observed::{ContainerFacts, ContainerState, Exit, PodRecord, PodUid};
use spec::time::Timestamp;

use super::layout::{Attempt, Layout, attempts};
use crate::container;

/// The schema that is written. Readers accept it and everything before.
const SCHEMA: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    schema: u32,
    #[serde(flatten)]
    record: T,
}

/// What a record says of itself, whatever else is in it; exit records call it `version`.
#[derive(Deserialize)]
struct Mark {
    #[serde(alias = "version")]
    schema: u32,
}

/// What is known of an attempt from the moment it is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StartRecord {
    /// Its place in the series of restarts.
    pub series: u32,
    /// The boot it was started in.
    pub boot_id: String,
    /// The digest it was started from.
    pub image: spec::digest::Digest,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// When it was started, on the boot-time clock.
    pub started: Timestamp,
    /// The HEALTHCHECK of its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_check: Option<ImageCheck>,
}

/// A record that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// The disk refuses.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// read or write.
        verb: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A newer version has written it. It may say what this one must not do, so nothing is done: containers run on.
    #[error(
        "record {} was written by a newer version (schema {schema}, this one knows {SCHEMA}): install that version again",
        path.display()
    )]
    Newer {
        /// The file.
        path: std::path::PathBuf,
        /// Its schema.
        schema: u32,
    },
    /// It is damaged.
    #[error("record {} is damaged", path.display())]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Why it cannot be told how an attempt is.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    /// Its records.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// What is left of it.
    #[error(transparent)]
    Container(#[from] container::ContainerError),
}

pub(super) fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), RecordError> {
    let failed = |source| RecordError::Io { verb: "write", path: path.to_owned(), source };
    let bytes = serde_json::to_vec(&Versioned { schema: SCHEMA, record }).map_err(|error| failed(error.into()))?;
    container::record::write_durable(path, &bytes).map_err(failed)
}

/// `None` when it is not there.
pub(super) fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, RecordError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RecordError::Io { verb: "read", path: path.to_owned(), source }),
    };
    match serde_json::from_slice::<Versioned<T>>(&bytes) {
        Ok(Versioned { schema, record }) if schema <= SCHEMA => Ok(Some(record)),
        Ok(Versioned { schema, .. }) => Err(RecordError::Newer { path: path.to_owned(), schema }),
        Err(source) => {
            // What cannot be parsed may be of a newer version, and is damaged if it is not.
            check(path, &bytes)?;
            Err(RecordError::Damaged { path: path.to_owned(), source })
        }
    }
}

/// Refuses what a newer version has written.
fn check(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    match serde_json::from_slice::<Mark>(bytes) {
        Ok(Mark { schema }) if schema > SCHEMA => Err(RecordError::Newer { path: path.to_owned(), schema }),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Every pod there is a record of. A directory without a readable one is told apart, never removed here.
pub(super) fn pods(layout: &Layout) -> (Vec<PodRecord>, Vec<(PodUid, Option<RecordError>)>) {
    let mut found = Vec::new();
    let mut damaged = Vec::new();
    for entry in std::fs::read_dir(layout.pods()).into_iter().flatten().flatten() {
        let uid = PodUid(entry.file_name().to_string_lossy().into_owned());
        match read::<PodRecord>(&layout.pod(&uid).join("pod.json")) {
            Ok(Some(record)) => found.push(record),
            Ok(None) => damaged.push((uid, None)),
            Err(error) => damaged.push((uid, Some(error))),
        }
    }
    (found, damaged)
}

/// The newest attempt of a container; `None` when there never was one.
pub(super) fn newest(
    layout: &Layout,
    uid: &PodUid,
    name: &str,
    boot_id: &str,
) -> Result<Option<(Attempt, ContainerFacts)>, AttemptError> {
    for number in attempts(&layout.container(uid, name)).into_iter().rev() {
        let attempt = layout.attempt(uid, name, number);
        let start = match read::<StartRecord>(&attempt.start_file()) {
            Ok(Some(start)) => start,
            Err(error @ RecordError::Newer { .. }) => return Err(error.into()),
            Ok(None) | Err(_) => continue,
        };
        if let Ok(bytes) = std::fs::read(attempt.exit_file()) {
            check(&attempt.exit_file(), &bytes)?;
        }
        let state = state(&attempt, &start, boot_id)?;
        let unhealthy = matches!(state, ContainerState::Exited(_)) && attempt.unhealthy_file().exists();
        let image_check = start.image_check;
        let facts = ContainerFacts { attempt: number, series: start.series, state, image_check, unhealthy };
        return Ok(Some((attempt, facts)));
    }
    Ok(None)
}

/// How an attempt is. One that ran in an earlier boot and has no exit record ended with that boot.
fn state(attempt: &Attempt, start: &StartRecord, boot_id: &str) -> Result<ContainerState, container::ContainerError> {
    if let Some(record) = container::record::read_exit(&attempt.exit_file()) {
        return Ok(ContainerState::Exited(record.exit));
    }
    if start.boot_id != boot_id {
        // Also when only the run directory is of another boot: whatever may be left of it must not run on.
        container::cleanup(&attempt.run, &attempt.cgroup)?;
        return Ok(ContainerState::Exited(ended_with_boot(start)));
    }
    Ok(match container::inspect(&attempt.run, &attempt.exit_file(), &attempt.cgroup)? {
        container::ContainerState::Running(shim) => ContainerState::Running { pid: shim.pid, started: shim.started },
        container::ContainerState::Exited(exit) => ContainerState::Exited(exit),
        container::ContainerState::Lost(exit) => ContainerState::Exited(Exit { started: Some(start.started), ..exit }),
    })
}

fn ended_with_boot(start: &StartRecord) -> Exit {
    Exit {
        code: 137,
        signal: Some(libc::SIGKILL),
        oom: false,
        started: Some(start.started),
        finished: start.started,
        finished_unix: 0,
        boot_id: start.boot_id.clone(),
        error: Some("the host was restarted".to_owned()),
        message: None,
        stopped: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> StartRecord {
        StartRecord {
            series: 0,
            boot_id: "b".to_owned(),
            image: spec::digest::Digest::of(b"image"),
            stop_signal: 15,
            started: Timestamp(1),
            image_check: None,
        }
    }

    #[test]
    fn records_of_newer_versions_are_refused_and_not_taken_for_damaged() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("start.json");
        write(&path, &start()).expect("written");
        let good = std::fs::read_to_string(&path).expect("there");
        let check = |text: &str, want: &str| {
            std::fs::write(&path, text).expect("the directory is ours");
            let found = match read::<StartRecord>(&path) {
                Ok(Some(_)) => "read",
                Ok(None) => "none",
                Err(RecordError::Newer { .. }) => "newer",
                Err(RecordError::Damaged { .. }) => "damaged",
                Err(RecordError::Io { .. }) => "io",
            };
            assert_eq!(found, want, "{text}");
        };
        check(&good, "read");
        check(&good.replace("{", "{\"added\":1,"), "read");
        // Also where everything that this version knows is in it, and where it is not.
        check(&good.replace("\"schema\":1", "\"schema\":2"), "newer");
        check("{\"schema\":2}", "newer");
        check("{\"schema\":1}", "damaged");
        check("{", "damaged");
    }

    #[test]
    fn an_end_that_a_newer_version_has_recorded_is_no_reason_to_start_anew() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout { data: dir.path().join("data"), run: dir.path().join("run"), cgroup: "none".to_owned() };
        let uid = PodUid("u".to_owned());
        let attempt = layout.attempt(&uid, "main", 0);
        write(&attempt.start_file(), &start()).expect("written");
        std::fs::write(attempt.exit_file(), "{\"version\":2,\"reason\":\"new words\"}").expect("the directory is ours");
        let error = newest(&layout, &uid, "main", "b").err().map(|error| error.to_string()).expect("refused");
        assert!(error.contains("exit.json was written by a newer version (schema 2"), "{error}");
    }
}
