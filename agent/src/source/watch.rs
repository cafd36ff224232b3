//! The thread that reads sources: woken by inotify, by a timer, or by hand.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecursiveMode, Watcher as _};

use super::{LONGEST_DEBOUNCE, Sources};
use crate::reconciler::Reading;

/// Silence after the last change before the directory is read. Files are complete when they are closed or renamed,
/// which is what is waited for; the rest is for changes of several files at once.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// How often a root that is not there is looked for.
const MISSING_ROOT: Duration = Duration::from_secs(1);

/// Silence after a write that was not followed by a close.
const UNFINISHED: Duration = Duration::from_millis(500);

/// The reading thread; it ends when this is dropped.
pub struct Watching {
    nudge: Sender<Nudge>,
}

impl Watching {
    /// Reads the sources now.
    pub fn resync(&self) {
        // The thread lives as long as this does.
        let _ = self.nudge.send(Nudge::Read);
    }
}

enum Nudge {
    /// Something is complete.
    Changed,
    /// Somebody writes.
    Writing,
    Read,
}

/// Starts the thread. The first reading is handed over as soon as it is there.
///
/// # Errors
/// The thread cannot be started.
pub fn watch(
    mut sources: Sources,
    resync: Duration,
    deliver: impl Fn(Reading) -> bool + Send + 'static,
) -> std::io::Result<Watching> {
    let (nudge, nudges) = channel();
    let events = nudge.clone();
    let roots = sources.roots.clone();
    std::thread::Builder::new().name("sources".to_owned()).spawn(move || {
        let mut watcher = Watches::new(roots, events);
        loop {
            watcher.renew();
            if let Some(reading) = sources.read()
                && !deliver(reading)
            {
                return;
            }
            // A root that is missing has nothing to watch: it is looked for.
            let limit = if watcher.all_watched() { resync } else { resync.min(MISSING_ROOT) };
            if !wait(&nudges, limit) {
                return;
            }
        }
    })?;
    Ok(Watching { nudge })
}

/// Waits until the sources should be read; false when nobody wants to know any more.
fn wait(nudges: &Receiver<Nudge>, resync: Duration) -> bool {
    let mut quiet = match nudges.recv_timeout(resync) {
        Ok(Nudge::Read) | Err(RecvTimeoutError::Timeout) => return true,
        Err(RecvTimeoutError::Disconnected) => return false,
        Ok(Nudge::Changed) => DEBOUNCE,
        Ok(Nudge::Writing) => UNFINISHED,
    };
    let limit = Instant::now() + LONGEST_DEBOUNCE;
    loop {
        let left = limit.saturating_duration_since(Instant::now()).min(quiet);
        match nudges.recv_timeout(left) {
            Ok(Nudge::Read) | Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
            Ok(Nudge::Changed) => quiet = DEBOUNCE,
            Ok(Nudge::Writing) => quiet = UNFINISHED,
        }
    }
}

/// inotify watches of all roots. What cannot be watched is still read by the timer.
struct Watches {
    roots: Vec<PathBuf>,
    watcher: Option<notify::RecommendedWatcher>,
    watched: Vec<PathBuf>,
}

impl Watches {
    fn new(roots: Vec<PathBuf>, events: Sender<Nudge>) -> Self {
        let handler = move |event: notify::Result<notify::Event>| {
            let nudge = match event.map(|event| event.kind) {
                Ok(EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Remove(_)) | Err(_) => {
                    Nudge::Changed
                }
                Ok(EventKind::Modify(notify::event::ModifyKind::Name(_) | notify::event::ModifyKind::Metadata(_))) => {
                    Nudge::Changed
                }
                Ok(EventKind::Create(notify::event::CreateKind::File)) | Ok(EventKind::Modify(_)) => Nudge::Writing,
                Ok(EventKind::Create(_)) => Nudge::Changed,
                Ok(EventKind::Access(_) | EventKind::Any | EventKind::Other) => return,
            };
            // The reader is gone when the agent ends.
            let _ = events.send(nudge);
        };
        let watcher = notify::recommended_watcher(handler)
            .inspect_err(|error| tracing::warn!(%error, "no inotify: sources are read by the timer only"))
            .ok();
        Self { roots, watcher, watched: Vec::new() }
    }

    fn all_watched(&self) -> bool {
        self.watcher.is_none() || self.roots.iter().all(|root| self.watched.contains(root))
    }

    /// Watches roots that were not there before, and those that were replaced.
    fn renew(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        for root in &self.roots {
            let there = root.exists();
            let known = self.watched.contains(root);
            if there && !known && watcher.watch(root, RecursiveMode::Recursive).is_ok() {
                self.watched.push(root.clone());
            } else if !there && known {
                // The watch went with the directory.
                drop(watcher.unwatch(root));
                self.watched.retain(|watched| watched != root);
            }
        }
    }
}
