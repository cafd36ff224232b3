//! Revisions of what is followed elsewhere: each in a directory of its own below `revisions`, and the symlink `current`
//! to the one that counts.
//!
//! The switch is one rename of that symlink, after everything that it leads to is on the disk. When the remote was
//! reached last is the time of the file `asked`, so that a restart does not forget it. `remote.json` names the remote that
//! all this is of: the directory has a name that the settings may give to another one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The time of the last success is noted this often at most: a host that idles writes next to nothing.
const NOTED: Duration = Duration::from_secs(300);

/// Makes the directories of a source, for root only.
pub(crate) fn prepare(home: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(home.join("revisions"))
}

/// An empty directory for a revision that is being written.
pub(crate) fn draft(home: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;
    let draft = home.join("draft");
    if draft.exists() {
        std::fs::remove_dir_all(&draft)?;
    }
    std::fs::DirBuilder::new().mode(0o700).create(&draft)?;
    Ok(draft)
}

/// Whether the files at this place, seen from the directory of the source, are there and those that count.
pub(crate) fn counts(home: &Path, place: &Path) -> bool {
    std::fs::read_link(home.join("current")).is_ok_and(|now| now == place) && home.join(place).is_dir()
}

/// Lets the files at this place count; revisions other than this one and the one before are removed.
pub(crate) fn switch(home: &Path, place: &Path) -> io::Result<()> {
    // After a power cut the link may be there and what it leads to empty.
    nix::unistd::syncfs(std::fs::File::open(home)?)?;
    let link = home.join("current.new");
    drop(std::fs::remove_file(&link));
    std::os::unix::fs::symlink(place, &link)?;
    let before = std::fs::read_link(home.join("current")).ok();
    std::fs::rename(&link, home.join("current"))?;
    // The one before stays: somebody may be reading it now.
    let kept = [Some(place.to_owned()), before];
    for entry in std::fs::read_dir(home.join("revisions"))?.flatten() {
        if !kept.contains(&Some(Path::new("revisions").join(entry.file_name()))) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
    Ok(())
}

/// The commit or digest whose files count, as the symlink tells.
pub(crate) fn current(home: &Path) -> Option<String> {
    let target = std::fs::read_link(home.join("current")).ok()?;
    let name = target.file_name()?.to_str()?;
    Some(name.split('-').next()?.to_owned())
}

/// Notes that the remote has answered and what it named counts. Losing the note costs nothing but itself.
pub(crate) fn note_success(home: &Path, unix: i64) {
    let path = home.join("asked");
    let Ok(since) = u64::try_from(unix) else { return };
    let time = UNIX_EPOCH + Duration::from_secs(since);
    let known = std::fs::metadata(&path).and_then(|meta| meta.modified()).ok();
    if known.is_some_and(|known| time.duration_since(known).is_ok_and(|old| old < NOTED)) {
        return;
    }
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    drop(file.and_then(|file| file.set_modified(time)));
}

/// Where the files come from.
#[derive(Serialize, Deserialize)]
struct Origin {
    schema: u32,
    /// URL, reference and path, as people see them.
    remote: String,
}

/// Notes of which remote the files are that count. Losing the note lets the next one be taken for it.
pub(crate) fn note_remote(home: &Path, remote: &str) {
    if self::remote(home).as_deref() == Some(remote) {
        return;
    }
    let origin = Origin { schema: 1, remote: remote.to_owned() };
    if let Err(error) = crate::record::write(&home.join(ORIGIN), &origin) {
        tracing::warn!(%error, remote, "cannot note whose files these are");
    }
}

/// Of which remote the files are that count; `None` when it was never noted.
pub(crate) fn remote(home: &Path) -> Option<String> {
    crate::record::read(&home.join(ORIGIN)).map(|Origin { remote, .. }| remote)
}

const ORIGIN: &str = "remote.json";

/// When the remote was reached last, in seconds of Unix time, up to five minutes too early.
pub(crate) fn last_success(home: &Path) -> Option<i64> {
    let time = |name: &str| std::fs::symlink_metadata(home.join(name)).and_then(|meta| meta.modified()).ok();
    // The switch to a revision was a success, too.
    let last: SystemTime = time("asked").into_iter().chain(time("current")).max()?;
    i64::try_from(last.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_success_is_known_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let home = dir.path();
        assert_eq!(last_success(home), None);
        note_success(home, 1_700_000_000);
        assert_eq!(last_success(home), Some(1_700_000_000));
        note_success(home, 1_700_000_299);
        assert_eq!(last_success(home), Some(1_700_000_000), "written seldom");
        note_success(home, 1_700_000_300);
        assert_eq!(last_success(home), Some(1_700_000_300));
        // A clock that was wrong does not stay wrong.
        note_success(home, 1_600_000_000);
        assert_eq!(last_success(home), Some(1_600_000_000));
    }

    #[test]
    fn a_switch_keeps_the_revision_before_and_no_other() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let home = dir.path();
        prepare(home).expect("the directory is ours");
        for name in ["aa-1", "bb-1", "cc-1"] {
            let place = Path::new("revisions").join(name);
            assert!(!counts(home, &place), "{name}");
            std::fs::rename(draft(home).expect("a draft"), home.join(&place)).expect("one file system");
            switch(home, &place).expect("it is there");
            assert!(counts(home, &place), "{name}");
        }
        assert_eq!(current(home).as_deref(), Some("cc"));
        let kept = std::fs::read_dir(home.join("revisions")).expect("it is there").count();
        assert_eq!(kept, 2);
        std::fs::remove_dir_all(home.join("revisions")).expect("ours");
        assert!(!counts(home, Path::new("revisions/cc-1")), "a link that leads nowhere counts for nothing");
        assert!(last_success(home).is_some(), "the switch was a success");
    }
}
