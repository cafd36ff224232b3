//! Whether git is changing a directory at this moment. A checkout removes and writes files one by one; while it does
//! it holds `index.lock` (gitrepository-layout(5)), so a directory below such a lock is half old, half new.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What git says of some directories: whether it is changing one now, and which indexes they have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitState {
    /// The lock of an operation that is going on.
    pub lock: Option<PathBuf>,
    /// Indexes by device, inode and time of change: each operation that changes files puts a new one in place.
    indexes: BTreeSet<(u64, u64, i64, i64)>,
}

impl GitState {
    /// Looks at the repositories that directories belong to.
    #[must_use]
    pub fn of<'a>(directories: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut state = Self::default();
        for dir in directories {
            let Ok(real) = dir.canonicalize() else { continue };
            // The nearest repository is the one that the directory belongs to.
            let Some(git) = real.ancestors().find_map(git_dir) else { continue };
            let lock = git.join("index.lock");
            if lock.exists() {
                state.lock = Some(lock);
            }
            if let Ok(meta) = git.join("index").metadata() {
                state.indexes.insert((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec()));
            }
        }
        state
    }
}

/// The git directory of a work tree's top: `.git` itself, or where the file `.git` points to (linked work trees and
/// submodules).
fn git_dir(top: &Path) -> Option<PathBuf> {
    let git = top.join(".git");
    let meta = git.metadata().ok()?;
    if meta.is_dir() {
        return Some(git);
    }
    let text = std::fs::read_to_string(&git).ok()?;
    Some(top.join(text.strip_prefix("gitdir:")?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_the_work_tree_above_counts() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (sub, linked) = (dir.path().join("a/b"), dir.path().join("linked"));
        std::fs::create_dir_all(&sub).expect("made");
        std::fs::create_dir_all(&linked).expect("made");
        let is_busy = |path: &Path| GitState::of([path]).lock.is_some();
        assert!(!is_busy(&sub), "no repository at all");
        std::fs::create_dir_all(dir.path().join(".git/worktrees/l")).expect("made");
        std::fs::write(linked.join(".git"), "gitdir: ../.git/worktrees/l\n").expect("written");
        assert!(!is_busy(&sub) && !is_busy(&linked));
        std::fs::write(dir.path().join(".git/index.lock"), "").expect("written");
        assert!(is_busy(&sub) && !is_busy(&linked), "a linked work tree has an index of its own");
        std::fs::write(dir.path().join(".git/worktrees/l/index.lock"), "").expect("written");
        assert!(is_busy(&linked));
        std::fs::write(dir.path().join(".git/index"), "1").expect("written");
        let before = GitState::of([sub.as_path()]);
        std::fs::rename(dir.path().join(".git/index.lock"), dir.path().join(".git/index")).expect("renamed");
        assert_ne!(before, GitState::of([sub.as_path()]), "an operation that is over is noticed, too");
    }
}
