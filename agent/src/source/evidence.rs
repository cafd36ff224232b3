//! Whether what a source shows is evidence. A directory is remembered by device, inode and the mount points that it
//! stands on; another one that shows nothing, or one whose file system is gone, is an error of the source and no wish.
//!
//! What is remembered lies in `<data>/sources.json`. Losing that file makes nothing worse than a first start: an empty
//! directory is then doubted as long as good objects of it are known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spec::digest::Digest;

use crate::discover::{Identity, Listing, Mounts};

/// A source as it was when it was believed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    device: u64,
    inode: u64,
    mounts: BTreeSet<PathBuf>,
    files: usize,
    /// When it was read, in seconds of Unix time, at most an hour before the last time.
    #[serde(default)]
    pub(super) read: Option<i64>,
}

/// The time of reading is written down this often: a host that idles writes next to nothing.
const NOTED: i64 = 3600;

impl Known {
    /// A listing as it is remembered.
    pub(super) fn of(listing: &Listing, mounts: &Mounts) -> Self {
        let Identity { device, inode } = listing.identity;
        let directories = listing.directories.iter().map(PathBuf::as_path);
        Self { device, inode, mounts: mounts.below(directories), files: listing.files.len(), read: None }
    }

    /// Read at this time, which is noted when what was noted before is old.
    pub(super) fn read_at(mut self, unix: i64, before: Option<&Self>) -> Self {
        let noted = before.and_then(|known| known.read);
        self.read = noted.filter(|noted| (0..NOTED).contains(&unix.saturating_sub(*noted))).or(Some(unix));
        self
    }
}

/// Why a listing is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doubt {
    /// What `mainstay approve` takes: names this source in exactly this state.
    pub id: String,
    /// What is wrong, for people.
    pub message: String,
}

/// Judges a listing by what was known before. `had_objects` tells that good objects of this source are known.
pub(super) fn judge(
    root: &Path,
    before: Option<&Known>,
    now: &Known,
    mounted: impl Fn(&Path) -> bool,
    had_objects: bool,
) -> Option<Doubt> {
    let same = before.is_some_and(|known| known.device == now.device && known.inode == now.inode);
    let unmounted = before.and_then(|known| known.mounts.iter().find(|point| !mounted(point)));
    let had_files = before.map_or(had_objects, |known| known.files > 0 || had_objects);
    let what = if let Some(point) = unmounted {
        format!("{} is not mounted any more", point.display())
    } else if !same && had_files && now.files == 0 {
        format!("{} is another directory than before, without any manifest", root.display())
    } else {
        return None;
    };
    let text = format!("{}\n{}\n{}\n{what}", root.display(), now.device, now.inode);
    let id: String = Digest::of(text.as_bytes()).hex().chars().take(10).collect();
    let message = format!("{what}; if this is meant, say so with `mainstay approve {id}`");
    Some(Doubt { id, message })
}

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    schema: u32,
    sources: BTreeMap<PathBuf, Known>,
}

/// Reads what was remembered; nothing when it cannot be read.
pub(super) fn load(data_dir: &Path) -> BTreeMap<PathBuf, Known> {
    let stored: Option<Stored> = crate::record::read(&data_dir.join(FILE));
    stored.unwrap_or_default().sources
}

/// Remembers.
pub(super) fn save(data_dir: &Path, sources: &BTreeMap<PathBuf, Known>) {
    let stored = Stored { schema: 1, sources: sources.clone() };
    if let Err(error) = crate::record::write(&data_dir.join(FILE), &stored) {
        tracing::warn!(%error, "identity of sources not saved");
    }
}

const FILE: &str = "sources.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn known(inode: u64, mounts: &[&str], files: usize) -> Known {
        Known { device: 7, inode, mounts: mounts.iter().map(PathBuf::from).collect(), files, read: None }
    }

    #[test]
    fn only_the_same_directory_or_one_with_manifests_is_evidence() {
        let root = Path::new("/srv/manifests");
        let here = |points: &'static [&'static str]| move |point: &Path| points.iter().any(|p| Path::new(p) == point);
        let nfs = || known(1, &["/srv"], 5);
        let local = || known(1, &["/"], 5);
        // before, now, mounted, good objects known, doubted
        type Case = (&'static str, Option<Known>, Known, &'static [&'static str], bool, bool);
        let cases: [Case; 11] = [
            ("first start", None, known(1, &["/"], 0), &["/"], false, false),
            ("emptied by hand", Some(local()), known(1, &["/"], 0), &["/"], true, false),
            ("emptied and made anew", Some(local()), known(2, &["/"], 0), &["/"], true, true),
            ("swapped for one with manifests", Some(local()), known(2, &["/"], 3), &["/"], true, false),
            ("unmounted, nothing below", Some(nfs()), known(2, &["/"], 0), &["/"], true, true),
            ("unmounted, old files below", Some(nfs()), known(2, &["/"], 4), &["/"], true, true),
            ("unmounted, same numbers by chance", Some(nfs()), known(1, &["/"], 5), &["/"], true, true),
            ("mounted over with manifests", Some(local()), known(9, &["/srv"], 5), &["/", "/srv"], true, false),
            ("an empty disk mounted over", Some(local()), known(9, &["/srv"], 0), &["/", "/srv"], true, true),
            ("nothing remembered, objects known", None, known(1, &["/"], 0), &["/"], true, true),
            ("was empty before", Some(known(1, &["/"], 0)), known(2, &["/"], 0), &["/"], false, false),
        ];
        for (what, before, now, mounted, had, doubted) in cases {
            assert_eq!(judge(root, before.as_ref(), &now, here(mounted), had).is_some(), doubted, "{what}");
        }
    }

    #[test]
    fn an_approval_is_for_one_state_only() {
        let root = Path::new("/srv/manifests");
        let id = |inode| {
            judge(root, Some(&known(1, &["/"], 5)), &known(inode, &["/"], 0), |_| true, true).expect("doubted").id
        };
        assert_eq!(id(2), id(2));
        assert_ne!(id(2), id(3));
    }

    #[test]
    fn the_time_of_reading_is_written_seldom() {
        let read = |before: Option<i64>, unix: i64| {
            let before = Known { read: before, ..known(1, &["/"], 1) };
            known(1, &["/"], 1).read_at(unix, Some(&before)).read
        };
        assert_eq!(read(None, 5000), Some(5000));
        assert_eq!(read(Some(5000), 8599), Some(5000));
        assert_eq!(read(Some(5000), 8600), Some(8600));
        assert_eq!(read(Some(5000), 4000), Some(4000), "a clock that was wrong does not stay wrong");
    }
}
