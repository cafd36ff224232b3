//! The durable record of a container's end, and the clocks it is dated with.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use spec::observed::Exit;
use spec::time::Timestamp;

/// How an attempt ended, as `exit.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Of this format: 1.
    pub version: u32,
    /// [`super::ContainerConfig::id`] of the attempt.
    pub id: String,
    /// How it ended.
    #[serde(flatten)]
    pub exit: Exit,
}

/// Now, on the boot-time clock.
#[must_use]
pub fn now() -> Timestamp {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let millis = time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000);
    Timestamp(u64::try_from(millis).unwrap_or(0))
}

/// Now, in seconds of Unix time.
#[must_use]
pub fn now_unix() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// Id of this boot.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// When a process was started, in clock ticks since boot: with the pid it names a process for good.
#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything; field 22 counts from the start of the line.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Writes a file so that after a power cut there is the old one or the new one: temporary file, fsync, rename,
/// fsync of the directory. Makes missing directories.
///
/// # Errors
/// Any step fails; the file is then as before.
pub fn write_durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(dir)?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".tmp");
    let temporary = dir.join(name);
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(dir)?.sync_all()
}

/// Reads an exit record; `None` when there is none or it is damaged (then it says nothing).
#[must_use]
pub fn read_exit(path: &Path) -> Option<ExitRecord> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes an exit record.
///
/// # Errors
/// See [`write_durable`].
pub fn write_exit(path: &Path, record: &ExitRecord) -> io::Result<()> {
    write_durable(path, &serde_json::to_vec_pretty(record).map_err(io::Error::other)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_disk() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("deep/exit.json");
        let exit = Exit {
            code: 137,
            signal: Some(9),
            oom: true,
            started: Some(Timestamp(5)),
            finished: now(),
            finished_unix: now_unix(),
            boot_id: boot_id(),
            error: None,
            message: Some("bye".to_owned()),
            stopped: false,
        };
        let record = ExitRecord { version: 1, id: "a-b-0".to_owned(), exit };
        write_exit(&path, &record).expect("written");
        assert_eq!(read_exit(&path), Some(record));
        assert_eq!(fs::read_dir(path.parent().expect("a parent")).expect("listed").count(), 1);
        fs::write(&path, "{").expect("damaged");
        assert_eq!(read_exit(&path), None);
    }

    #[test]
    fn this_process_has_a_start_time() {
        assert!(start_time(std::process::id()).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time(u32::MAX), None);
    }
}
