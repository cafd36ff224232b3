//! The thread that reads sources: woken by inotify, by a timer, or by hand.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecursiveMode, Watcher as _};

use super::{LONGEST_DEBOUNCE, Sources};
use crate::reconciler::Reading;

/// Silence after the last change before the directory is read. Files are complete when they are closed or renamed,
/// which is what is waited for; the rest is for changes of several files at once.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// How often a root that is not there is looked for.
const MISSING_ROOT: Duration = Duration::from_secs(1);

/// Silence after a write to a manifest that was not followed by a close: whoever writes it is not done.
const UNFINISHED: Duration = Duration::from_secs(3);

/// A file that is written to without end is read after so long all the same.
const LONGEST_WRITE: Duration = Duration::from_secs(10);

/// How often the lock of a git operation is looked for while it is there, and how long it is believed.
const GIT_LOOK: Duration = Duration::from_millis(20);
const GIT_LONGEST: Duration = Duration::from_secs(60);

/// The reading thread; it ends when this is dropped.
pub struct Watching {
    nudge: Sender<Nudge>,
}

impl Watching {
    /// Reads the sources at each call; for those who follow something elsewhere.
    pub fn reader(&self) -> impl Fn() + Send + Sync + 'static {
        let nudge = self.nudge.clone();
        // The thread may have ended with the agent.
        move || drop(nudge.send(Nudge::Read))
    }

    /// Tells, when everything that is in the sources now has been read, the number of the newest [`Reading`]. Who is in
    /// the middle of writing a file is waited for.
    pub fn asker(&self) -> impl Fn() -> oneshot::Receiver<u64> + Send + Sync + 'static {
        let nudge = self.nudge.clone();
        move || {
            let (reply, answer) = oneshot::channel();
            // The thread may have ended with the agent: then nobody answers.
            drop(nudge.send(Nudge::Tell(reply)));
            answer
        }
    }

    /// Reads the sources now.
    pub fn resync(&self) {
        // The thread lives as long as this does.
        let _ = self.nudge.send(Nudge::Read);
    }
}

enum Nudge {
    /// These are complete.
    Changed(Vec<PathBuf>),
    /// Somebody writes these.
    Writing(Vec<PathBuf>),
    Read,
    /// Somebody wants to know when they have been read.
    Tell(oneshot::Sender<u64>),
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
        let mut writers = Writers::default();
        let mut stale = None;
        // Rising over restarts of the agent as well, so that nobody waits for a number of the one before.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mut number = u64::try_from(now.as_millis()).unwrap_or(0);
        loop {
            watcher.renew();
            if !wait_for_git(&mut sources, &mut stale, &nudges, &mut writers) {
                return;
            }
            let asked = std::mem::take(&mut writers.asked);
            if let Some(reading) = sources.read() {
                number += 1;
                if !deliver(Reading { number, ..reading }) {
                    return;
                }
            }
            if sources.is_deferred() {
                // What was there when they asked is known when it is confirmed.
                writers.asked.extend(asked);
            } else {
                // Who has asked may have gone.
                for reply in asked {
                    let _ = reply.send(number);
                }
            }
            // A root that is missing has nothing to watch: it is looked for.
            let mut limit = if watcher.all_watched() { resync } else { resync.min(MISSING_ROOT) };
            limit = limit.min(sources.again().unwrap_or(limit));
            writers.bound.clone_from(&sources.bound);
            if !wait(&nudges, &mut writers, limit) {
                return;
            }
        }
    })?;
    Ok(Watching { nudge })
}

/// Files that were written to and not closed since, with the moment of the last write.
#[derive(Debug, Default)]
struct Writers {
    last: HashMap<PathBuf, Instant>,
    /// Files that count beside the manifests: those that services mount one by one.
    bound: BTreeSet<PathBuf>,
    /// Who wants to know when the sources have been read.
    asked: Vec<oneshot::Sender<u64>>,
}

impl Writers {
    fn take(&mut self, nudge: Nudge, now: Instant) {
        match nudge {
            // Logs and the like are no manifests: who writes them holds nothing up.
            Nudge::Writing(paths) => {
                let counts = |path: &&PathBuf| {
                    let absolute = || std::path::absolute(path).is_ok_and(|path| self.bound.contains(&path));
                    matters(path) || (!self.bound.is_empty() && absolute())
                };
                self.last.extend(paths.iter().filter(counts).map(|path| (path.clone(), now)));
            }
            Nudge::Changed(paths) => self.last.retain(|path, _| !paths.contains(path)),
            Nudge::Read => {}
            Nudge::Tell(reply) => self.asked.push(reply),
        }
    }

    /// How long to wait for those who write; nothing when nobody does.
    fn left(&self, now: Instant) -> Option<Duration> {
        let last = self.last.values().max()?;
        Some((*last + UNFINISHED).saturating_duration_since(now))
    }
}

fn matters(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    crate::discover::counts(name) || name.as_encoded_bytes().ends_with(b"env")
}

/// Waits until the sources should be read; false when nobody wants to know any more.
fn wait(nudges: &Receiver<Nudge>, writers: &mut Writers, resync: Duration) -> bool {
    let started = Instant::now();
    let mut limit = resync;
    let mut first: Option<Instant> = None;
    loop {
        match nudges.recv_timeout(limit) {
            Ok(Nudge::Read) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
            Ok(nudge) => {
                writers.take(nudge, Instant::now());
                if !writers.asked.is_empty() && writers.left(Instant::now()).is_none() {
                    return true;
                }
                first.get_or_insert_with(Instant::now);
            }
            Err(RecvTimeoutError::Timeout) => {
                let now = Instant::now();
                let writing = writers.left(now).is_some_and(|left| !left.is_zero());
                if !writing || now.duration_since(first.unwrap_or(started)) >= LONGEST_WRITE {
                    writers.last.clear();
                    return true;
                }
            }
        }
        let now = Instant::now();
        let begun = first.unwrap_or(started);
        let (quiet, longest) = match writers.left(now) {
            Some(left) => (left, LONGEST_WRITE),
            None => (DEBOUNCE, LONGEST_DEBOUNCE),
        };
        limit = quiet.min((begun + longest).saturating_duration_since(now));
    }
}

/// Waits while git is changing a source: in the middle of a checkout files are missing. A lock that stays for long was
/// left behind by a git that was killed, and is passed over from then on. False when nobody wants to know any more.
fn wait_for_git(
    sources: &mut Sources,
    stale: &mut Option<(PathBuf, std::time::SystemTime)>,
    nudges: &Receiver<Nudge>,
    writers: &mut Writers,
) -> bool {
    let started = Instant::now();
    while let Some(lock) = sources.git_lock() {
        let made = std::fs::metadata(&lock).and_then(|meta| meta.modified()).ok().map(|time| (lock.clone(), time));
        if made.is_some() && made == *stale {
            break;
        }
        if started.elapsed() >= GIT_LONGEST {
            tracing::warn!(lock = %lock.display(), "git left its lock behind; the source is read all the same");
            *stale = made;
            break;
        }
        match nudges.recv_timeout(GIT_LOOK) {
            Ok(nudge) => writers.take(nudge, Instant::now()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    true
}

/// inotify watches of all roots. What cannot be watched is still read by the timer.
struct Watches {
    roots: Vec<PathBuf>,
    watcher: Option<notify::RecommendedWatcher>,
    /// Watched roots and which directory each was: another one under the same path is watched anew.
    watched: HashMap<PathBuf, (u64, u64)>,
}

impl Watches {
    fn new(roots: Vec<PathBuf>, events: Sender<Nudge>) -> Self {
        let handler = move |event: notify::Result<notify::Event>| {
            let nudge = match event.map(|event| (event.kind, event.paths)) {
                Err(_) => Nudge::Changed(Vec::new()),
                Ok((EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Remove(_), paths)) => {
                    Nudge::Changed(paths)
                }
                Ok((
                    EventKind::Modify(notify::event::ModifyKind::Name(_) | notify::event::ModifyKind::Metadata(_)),
                    paths,
                )) => Nudge::Changed(paths),
                Ok((EventKind::Create(notify::event::CreateKind::File) | EventKind::Modify(_), paths)) => {
                    Nudge::Writing(paths)
                }
                Ok((EventKind::Create(_), paths)) => Nudge::Changed(paths),
                Ok((EventKind::Access(_) | EventKind::Any | EventKind::Other, _)) => return,
            };
            // The reader is gone when the agent ends.
            let _ = events.send(nudge);
        };
        let watcher = notify::recommended_watcher(handler)
            .inspect_err(|error| tracing::warn!(%error, "no inotify: sources are read by the timer only"))
            .ok();
        Self { roots, watcher, watched: HashMap::new() }
    }

    fn all_watched(&self) -> bool {
        self.watcher.is_none() || self.roots.iter().all(|root| self.watched.contains_key(root))
    }

    /// Watches roots that were not there before, and those that are another directory now.
    fn renew(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        for root in &self.roots {
            let now = std::fs::metadata(root).ok().map(|meta| (meta.dev(), meta.ino()));
            let known = self.watched.get(root).copied();
            if now == known {
                continue;
            }
            if known.is_some() {
                // The watch is on what was there before.
                drop(watcher.unwatch(root));
                self.watched.remove(root);
            }
            if let Some(now) = now
                && watcher.watch(root, RecursiveMode::Recursive).is_ok()
            {
                self.watched.insert(root.clone(), now);
                // A root that is a link is swapped in the directory that the link is in.
                if let Some(above) = root.parent()
                    && root.is_symlink()
                    && !self.roots.iter().any(|other| above.starts_with(other))
                {
                    drop(watcher.watch(above, RecursiveMode::NonRecursive));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_holds_a_reading_up_until_it_is_closed() {
        let now = Instant::now();
        let paths = |name: &str| vec![PathBuf::from(name)];
        let left = |nudges: Vec<Nudge>| {
            let mut writers = Writers::default();
            nudges.into_iter().for_each(|nudge| writers.take(nudge, now));
            writers.left(now).is_some()
        };
        assert!(left(vec![Nudge::Writing(paths("/m/a.yaml"))]));
        assert!(
            left(vec![Nudge::Writing(paths("/m/a.yaml")), Nudge::Changed(paths("/m/b.yaml"))]),
            "another file's end"
        );
        assert!(!left(vec![Nudge::Writing(paths("/m/a.yaml")), Nudge::Changed(paths("/m/a.yaml"))]));
        for other in ["/m/app.log", "/m/.a.yaml.swp", "/m/a.yaml~"] {
            assert!(!left(vec![Nudge::Writing(paths(other))]), "{other} is no manifest");
        }
    }

    #[test]
    fn who_asks_waits_for_nobody_but_those_who_write() {
        let (nudge, nudges) = channel();
        let mut writers = Writers::default();
        let paths = || vec![PathBuf::from("/m/a.yaml")];
        let ask = || {
            let (reply, answer) = oneshot::channel();
            nudge.send(Nudge::Tell(reply)).expect("it is open");
            answer
        };
        let read_without_resync = |writers: &mut Writers| wait(&nudges, writers, Duration::from_secs(600));
        let mut answer = ask();
        assert!(read_without_resync(&mut writers));
        assert!(answer.try_recv().is_err(), "nothing was read yet");
        assert_eq!(std::mem::take(&mut writers.asked).len(), 1);
        nudge.send(Nudge::Writing(paths())).expect("it is open");
        let _answer = ask();
        nudge.send(Nudge::Changed(paths())).expect("it is open");
        assert!(read_without_resync(&mut writers));
        assert!(nudges.try_recv().is_err(), "the end of the file was waited for");
        assert_eq!(writers.asked.len(), 1);
    }
}
