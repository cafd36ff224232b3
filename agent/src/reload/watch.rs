//! Notices when files of the configuration change.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};

use crate::config::{drop_ins, is_drop_in};

/// Several files are often written at once, and a file in several steps.
const SILENCE: Duration = Duration::from_millis(300);

/// The watch; it ends when this is dropped.
#[derive(Debug)]
pub struct Watching {
    _watcher: notify::RecommendedWatcher,
}

/// Whether a path is one that settings are read from.
fn counts(path: &Path, file: &Path) -> bool {
    let drop_ins = drop_ins(file);
    path == file || path == drop_ins || (path.parent() == Some(&drop_ins) && is_drop_in(path))
}

/// Calls `changed` after each change of this file or of a drop-in beside it. Nothing where neither can be watched:
/// then a reload is asked for by hand.
pub fn watch(file: &Path, changed: impl Fn() + Send + 'static) -> Option<Watching> {
    let (nudge, nudges) = channel();
    let watched = file.to_owned();
    let handler = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let reading = matches!(event.kind, notify::EventKind::Access(kind)
            if !matches!(kind, notify::event::AccessKind::Close(notify::event::AccessMode::Write)));
        if !reading && event.paths.iter().any(|path| counts(path, &watched)) {
            // The thread ends with the watch.
            let _ = nudge.send(());
        }
    };
    let mut watcher = notify::recommended_watcher(handler)
        .inspect_err(|error| tracing::warn!(%error, "no inotify: changes of the configuration are not noticed"))
        .ok()?;
    let dir: PathBuf = file.parent()?.to_owned();
    // Directories that are not there have nothing in them that could change; most hosts have no configuration.
    watcher.watch(&dir, RecursiveMode::NonRecursive).ok()?;
    drop(watcher.watch(&drop_ins(file), RecursiveMode::NonRecursive));
    let thread = std::thread::Builder::new().name("configuration".to_owned()).spawn(move || {
        while nudges.recv().is_ok() {
            loop {
                match nudges.recv_timeout(SILENCE) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            changed();
        }
    });
    thread.inspect_err(|error| tracing::warn!(%error, "changes of the configuration are not noticed")).ok()?;
    Some(Watching { _watcher: watcher })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_count() {
        let check = |path: &str, expected: bool| {
            assert_eq!(counts(Path::new(path), Path::new("/etc/mainstay/config.toml")), expected, "{path}");
        };
        check("/etc/mainstay/config.toml", true);
        check("/etc/mainstay/conf.d", true);
        check("/etc/mainstay/conf.d/10-a.toml", true);
        check("/etc/mainstay/conf.d/10-a.toml.swp", false);
        check("/etc/mainstay/conf.d/notes", false);
        check("/etc/mainstay/config.toml~", false);
        check("/etc/mainstay/manifests", false);
    }

    #[test]
    fn a_written_drop_in_is_noticed() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::create_dir(dir.path().join("conf.d")).expect("the directory is ours");
        let (tell, told) = channel();
        let watching = watch(&dir.path().join("config.toml"), move || {
            let _ = tell.send(());
        })
        .expect("inotify works");
        std::fs::write(dir.path().join("conf.d/10-a.toml"), "log_level = \"debug\"\n").expect("the directory is ours");
        told.recv_timeout(Duration::from_secs(20)).expect("the change is told");
        drop(watching);
        // The thread ends with the watch, and with it the sender.
        assert!(told.recv_timeout(Duration::from_secs(20)).is_err());
    }
}
