//! Notices when files of the configuration change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};

use crate::config::{drop_ins, is_drop_in};

/// Several files are often written at once, and a file in several steps.
const SILENCE: Duration = Duration::from_millis(300);

/// The watch; it ends when this is dropped.
#[derive(Debug)]
pub struct Watching {
    // Held while directories are added.
    _watcher: Arc<Mutex<notify::RecommendedWatcher>>,
}

/// Where files of the configuration are now, without a symlink in any path.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    /// The directory of the drop-ins.
    drop_ins: Option<PathBuf>,
    /// What symlinks lead to.
    targets: BTreeSet<PathBuf>,
}

impl Places {
    fn of(file: &Path) -> Self {
        let drop_ins = drop_ins(file).canonicalize().ok();
        let entries = drop_ins.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
        let files = entries.map(|entry| entry.path()).filter(|path| is_drop_in(path)).chain([file.to_owned()]);
        let targets = files.filter(|path| path.is_symlink()).filter_map(|path| path.canonicalize().ok()).collect();
        Self { drop_ins, targets }
    }

    fn directories(&self) -> BTreeSet<&Path> {
        self.drop_ins.as_deref().into_iter().chain(self.targets.iter().filter_map(|path| path.parent())).collect()
    }

    /// Whether a path is one that settings are read from.
    fn counts(&self, path: &Path, file: &Path) -> bool {
        let is_below = |dir: &PathBuf| path.parent() == Some(dir) && is_drop_in(path);
        path == file
            || path == drop_ins(file)
            || is_below(&drop_ins(file))
            || self.drop_ins.as_ref().is_some_and(is_below)
            || self.targets.contains(path)
    }
}

/// Calls `changed` after each change of this file or of a drop-in beside it, also behind symlinks. Nothing where the
/// directory cannot be watched: then a reload is asked for by hand.
pub fn watch(file: &Path, changed: impl Fn() + Send + 'static) -> Option<Watching> {
    let (nudge, nudges) = channel();
    // Most hosts have no configuration; a directory that is not there has nothing in it that could change.
    let dir = file.parent()?.canonicalize().ok()?;
    let file = dir.join(file.file_name()?);
    let mut known = Places::of(&file);
    let watched = file.clone();
    let handler = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let reading = matches!(event.kind, notify::EventKind::Access(kind)
            if !matches!(kind, notify::event::AccessKind::Close(notify::event::AccessMode::Write)));
        if reading {
            return;
        }
        // A symlink on the way may have another target now, whatever its name is.
        let before = std::mem::replace(&mut known, Places::of(&watched));
        if before != known || event.paths.iter().any(|path| known.counts(path, &watched)) {
            // The thread ends with the watch.
            let _ = nudge.send(());
        }
    };
    let mut watcher = notify::recommended_watcher(handler)
        .inspect_err(|error| tracing::warn!(%error, "no inotify: changes of the configuration are not noticed"))
        .ok()?;
    watcher.watch(&dir, RecursiveMode::NonRecursive).ok()?;
    follow(&mut watcher, &file);
    let watcher = Arc::new(Mutex::new(watcher));
    let weak = Arc::downgrade(&watcher);
    let thread = std::thread::Builder::new().name("configuration".to_owned()).spawn(move || {
        while nudges.recv().is_ok() {
            loop {
                match nudges.recv_timeout(SILENCE) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            // Before the files are read: what is written from now on is noticed.
            let Some(watcher) = weak.upgrade() else { return };
            follow(&mut watcher.lock().unwrap_or_else(PoisonError::into_inner), &file);
            drop(watcher);
            changed();
        }
    });
    thread.inspect_err(|error| tracing::warn!(%error, "changes of the configuration are not noticed")).ok()?;
    Some(Watching { _watcher: watcher })
}

/// Watches the directories that lead elsewhere or came later. Watching one twice is the same as once.
fn follow(watcher: &mut notify::RecommendedWatcher, file: &Path) {
    for directory in Places::of(file).directories() {
        if file.parent() != Some(directory) {
            drop(watcher.watch(directory, RecursiveMode::NonRecursive));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_count() {
        let check = |path: &str, expected: bool| {
            let places =
                Places { drop_ins: Some("/elsewhere/d".into()), targets: [PathBuf::from("/elsewhere/x")].into() };
            assert_eq!(places.counts(Path::new(path), Path::new("/etc/mainstay/config.toml")), expected, "{path}");
        };
        check("/etc/mainstay/config.toml", true);
        check("/etc/mainstay/conf.d", true);
        check("/etc/mainstay/conf.d/10-a.toml", true);
        check("/etc/mainstay/conf.d/10-a.toml.swp", false);
        check("/etc/mainstay/conf.d/notes", false);
        check("/etc/mainstay/config.toml~", false);
        check("/etc/mainstay/manifests", false);
        check("/elsewhere/d/10-a.toml", true);
        check("/elsewhere/x", true);
        check("/elsewhere/y.toml", false);
    }

    /// A configuration that is watched, and what was told of it.
    struct World {
        dir: tempfile::TempDir,
        told: std::sync::mpsc::Receiver<()>,
        watching: Option<Watching>,
    }

    impl World {
        fn new(prepare: impl Fn(&Path)) -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory can be made");
            std::fs::create_dir_all(dir.path().join("etc")).expect("the directory is ours");
            prepare(dir.path());
            let (tell, told) = channel();
            let watching = watch(&dir.path().join("etc/config.toml"), move || {
                let _ = tell.send(());
            });
            Self { dir, told, watching: Some(watching.expect("inotify works")) }
        }

        #[track_caller]
        fn noticed(&self, change: impl Fn(&Path)) {
            while self.told.try_recv().is_ok() {}
            change(self.dir.path());
            self.told.recv_timeout(Duration::from_secs(20)).expect("the change is told");
        }
    }

    fn write(path: &Path) {
        std::fs::write(path, "log_level = \"debug\"\n").expect("the directory is ours");
    }

    fn link(target: &str, path: &Path) {
        let new = path.with_file_name("new.link");
        std::os::unix::fs::symlink(target, &new).expect("the directory is ours");
        std::fs::rename(new, path).expect("the directory is ours");
    }

    #[test]
    fn a_written_drop_in_is_noticed() {
        let mut world = World::new(|dir| std::fs::create_dir(dir.join("etc/conf.d")).expect("the directory is ours"));
        world.noticed(|dir| write(&dir.join("etc/conf.d/10-a.toml")));
        drop(world.watching.take());
        // The thread ends with the watch, and with it the sender.
        while world.told.recv_timeout(Duration::from_secs(20)).is_ok() {}
        assert!(matches!(world.told.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)));
    }

    #[test]
    fn a_directory_that_comes_later_is_watched() {
        let world = World::new(|_| {});
        for _ in 0..2 {
            world.noticed(|dir| std::fs::create_dir(dir.join("etc/conf.d")).expect("the directory is ours"));
            world.noticed(|dir| write(&dir.join("etc/conf.d/10-a.toml")));
            world.noticed(|dir| write(&dir.join("etc/conf.d/20-b.toml")));
            world.noticed(|dir| std::fs::remove_dir_all(dir.join("etc/conf.d")).expect("the directory is ours"));
        }
    }

    #[test]
    fn what_a_link_leads_to_is_watched() {
        let world = World::new(|dir| {
            for name in ["one", "two", "three"] {
                std::fs::create_dir(dir.join(name)).expect("the directory is ours");
                write(&dir.join(name).join("m.toml"));
            }
            link("../one/m.toml", &dir.join("etc/config.toml"));
            link("../three", &dir.join("etc/conf.d"));
        });
        world.noticed(|dir| write(&dir.join("one/m.toml")));
        world.noticed(|dir| write(&dir.join("three/m.toml")));
        world.noticed(|dir| link("../two/m.toml", &dir.join("etc/config.toml")));
        world.noticed(|dir| write(&dir.join("two/m.toml")));
        // As Kubernetes and others write directories: all files lead through one link.
        world.noticed(|dir| {
            link("../one", &dir.join("etc/..data"));
            link("..data/m.toml", &dir.join("etc/config.toml"));
        });
        world.noticed(|dir| link("../two", &dir.join("etc/..data")));
        world.noticed(|dir| write(&dir.join("two/m.toml")));
    }
}
