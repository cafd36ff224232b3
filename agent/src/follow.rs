//! What is followed elsewhere and read here: Git repositories, archives, artifacts of registries.
//!
//! Each has a directory below the data directory with a symlink `current` to the revision that counts, which is then
//! read like any other source. A try that fails changes nothing, and is told in the status.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::image::artifact::Artifacts;
use spec::digest::Digest;
use tokio::sync::Notify;

use crate::clock::SharedClock;
use crate::config::{ArchiveSource, GitSource, OciSource, Settings};
use crate::events::{Event, EventKind, Journal, Word};
use crate::revisions;
use crate::status::SourceStatus;
use crate::telemetry::Metrics;

/// How long after a failure an archive is tried again; its digest never changes.
const AGAIN: Duration = Duration::from_secs(60);

/// Something that is followed.
#[derive(Debug, Clone)]
pub enum Remote {
    /// A repository.
    Git(GitSource),
    /// An archive.
    Archive(ArchiveSource),
    /// An artifact of a registry.
    Oci(OciSource),
}

impl Remote {
    /// Everything that the settings name.
    #[must_use]
    pub fn all(settings: &Settings) -> Vec<Self> {
        let repositories = settings.git.iter().cloned().map(Self::Git);
        let archives = settings.archives.iter().cloned().map(Self::Archive);
        repositories.chain(archives).chain(settings.oci.iter().cloned().map(Self::Oci)).collect()
    }

    /// For people.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Git(source) => source.label(),
            Self::Archive(source) => source.label(),
            Self::Oci(source) => source.label(),
        }
    }

    /// Where its revisions are kept.
    fn home(&self, data_dir: &Path) -> PathBuf {
        match self {
            Self::Git(source) => source.directory(data_dir),
            Self::Archive(source) => source.directory(data_dir),
            Self::Oci(source) => source.directory(data_dir),
        }
    }

    fn name_and_period(&self) -> (&str, Duration) {
        match self {
            Self::Git(source) => (&source.name, source.poll),
            Self::Archive(source) => (&source.name, AGAIN),
            Self::Oci(source) => (&source.name, source.poll),
        }
    }

    /// As it was left by the last agent.
    #[must_use]
    pub fn view(&self, data_dir: &Path) -> View {
        let home = self.home(data_dir);
        let revision = revisions::current(&home);
        let status = match revisions::remote(&home).filter(|remote| *remote != self.label()) {
            // The name belonged to another one, which says nothing of this one.
            Some(remote) => {
                let whose = |revision: String| format!("{remote} at {}", short(&revision));
                Known { files_of: revision.map(whose), ..Known::default() }
            }
            None => Known { revision, last_success: revisions::last_success(&home), ..Known::default() },
        };
        View { label: self.label(), root: home.join("current"), status: Arc::new(Mutex::new(status)) }
    }

    /// One try; the revision that counts then, or what went wrong with all its causes.
    async fn poll(&self, home: &Path, known: Option<&str>, artifacts: &Artifacts) -> Result<String, String> {
        match self {
            Self::Git(source) => {
                crate::git::poll(source, home, known).await.map_err(|error| spec::causes::chain(&error))
            }
            Self::Archive(source) => {
                crate::archive::https::poll(source, home).await.map_err(|error| spec::causes::chain(&error))
            }
            Self::Oci(source) => crate::archive::oci::poll(source, home, known, artifacts)
                .await
                .map_err(|error| spec::causes::chain(&error)),
        }
    }
}

/// What is known of something that is followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The commit or digest whose files count.
    pub revision: Option<String>,
    /// When the remote last answered and what it named was in place, in seconds of Unix time.
    pub last_success: Option<i64>,
    /// What went wrong at the last try.
    pub error: Option<String>,
    /// Whose files count as long as there is no revision: those of another remote, which had the name before.
    pub files_of: Option<String>,
}

impl Known {
    /// What stays when the remote cannot be reached.
    fn stays(&self) -> Option<String> {
        let revision = self.revision.as_ref().map(|revision| format!("revision {revision}"));
        revision.or_else(|| self.files_of.as_ref().map(|other| format!("{other}, which had this name before,")))
    }
}

/// A revision for people.
fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}

/// What everybody may see of something that is followed.
#[derive(Debug, Clone)]
pub struct View {
    /// What it is, for people.
    pub label: String,
    /// The directory where its files appear.
    pub root: PathBuf,
    // Held to copy.
    status: Arc<Mutex<Known>>,
}

impl View {
    /// Completes the status of the directory by what is known of the remote.
    pub fn tell(&self, status: &mut SourceStatus) {
        let known = self.status();
        status.path.clone_from(&self.label);
        status.revision = known.revision;
        status.last_success = known.last_success;
        if status.revision.is_none() && known.error.is_none() {
            // There is nothing to read before it was fetched for the first time, and nothing wrong with that.
            "waiting".clone_into(&mut status.state);
            match &known.files_of {
                None => status.errors.clear(),
                Some(other) => status.warnings.push(format!("nothing was fetched yet: the files are those of {other}")),
            }
        }
        if let Some(error) = known.error {
            let stays = match (&status.revision, &known.files_of) {
                (Some(_), _) => "; the last revision stays".to_owned(),
                (None, Some(other)) => format!("; the files of {other} stay"),
                (None, None) => String::new(),
            };
            let error = format!("{error}{stays}");
            if status.state == "failed" {
                status.errors.clear();
            } else {
                "degraded".clone_into(&mut status.state);
            }
            status.errors.push(error);
        }
    }

    fn set(&self, status: Known) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// What is known now.
    #[must_use]
    pub fn status(&self) -> Known {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What following needs.
#[derive(Clone)]
pub struct Tools {
    /// The data directory.
    pub data_dir: PathBuf,
    /// For the time of the last success.
    pub clock: SharedClock,
    /// Where it is counted.
    pub metrics: Metrics,
    /// Where it is told what became of a source.
    pub journal: Journal,
    /// How artifacts are fetched.
    pub artifacts: Artifacts,
}

/// Follows one remote until it is dropped.
#[derive(Debug)]
pub struct Follower {
    ask: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Begins to follow. `changed` is called after each try that changed what the view says.
    #[must_use]
    pub fn start(remote: Remote, view: View, tools: Tools, changed: impl Fn() + Send + 'static) -> Self {
        let ask = Arc::new(Notify::new());
        let wake = Arc::clone(&ask);
        let task = tokio::spawn(async move {
            let home = remote.home(&tools.data_dir);
            let (name, period) = remote.name_and_period();
            let host = nix::unistd::gethostname().unwrap_or_default();
            let pause = spread(&host.to_string_lossy(), name, period);
            tools.metrics.source_interval(&view.label, pause);
            // A clock of today fits a float to the microsecond. 0 stands for never.
            let reached = |unix: i64| tools.metrics.source_success(&view.label, unix as f64);
            reached(view.status().last_success.unwrap_or(0));
            loop {
                let before = view.status();
                // The files of another remote may be just those that this one has.
                let now = revisions::current(&home);
                let next = match remote.poll(&home, now.as_deref(), &tools.artifacts).await {
                    Ok(revision) => {
                        let unix = tools.clock.unix();
                        reached(unix);
                        revisions::note_success(&home, unix);
                        revisions::note_remote(&home, &view.label);
                        Known { revision: Some(revision), last_success: Some(unix), ..Known::default() }
                    }
                    Err(error) => Known { error: Some(error), ..before.clone() },
                };
                for (kind, reason, message) in news(&view.label, &before, &next) {
                    match kind {
                        EventKind::Normal => tracing::info!(source = view.label, reason = reason.as_str(), "{message}"),
                        EventKind::Warning => {
                            tracing::error!(source = view.label, reason = reason.as_str(), "{message}")
                        }
                    }
                    tools.journal.record(Event::of_node(tools.clock.unix(), kind, reason, message));
                }
                view.set(next.clone());
                if next != before {
                    changed();
                }
                // Nobody asking before the time is the normal case.
                let _ = tokio::time::timeout(pause, wake.notified()).await;
            }
        });
        Self { ask, task }
    }

    /// Asks the remote now.
    pub fn poll_now(&self) {
        self.ask.notify_one();
    }
}

/// What a try has changed, as events: nobody is told twice of the same error.
fn news(label: &str, before: &Known, next: &Known) -> Vec<(EventKind, Word, String)> {
    let mut news = Vec::new();
    match &next.error {
        Some(error) if before.error.as_ref() != Some(error) => {
            let stays = next.stays().map(|what| format!("; {what} stays")).unwrap_or_default();
            news.push((EventKind::Warning, Word::SOURCE_FAILED, format!("{label}: {error}{stays}")));
        }
        None if before.error.is_some() => {
            news.push((EventKind::Normal, Word::SOURCE_RECOVERED, format!("{label} can be read again")));
        }
        Some(_) | None => {}
    }
    match &next.revision {
        Some(revision) if before.revision.as_ref() != Some(revision) => {
            let before = before.revision.as_ref().or(before.files_of.as_ref());
            let from = before.map(|before| format!(", before it {before}")).unwrap_or_default();
            news.push((EventKind::Normal, Word::SOURCE_SWITCHED, format!("{label}: revision {revision} counts{from}")));
        }
        Some(_) | None => {}
    }
    news
}

/// The time to the next question: up to a tenth longer, by host and name, so that a fleet does not ask at once.
fn spread(host: &str, name: &str, period: Duration) -> Duration {
    let digest = Digest::of(format!("{host}\n{name}").as_bytes());
    let part = u32::from_str_radix(digest.hex().get(..4).unwrap_or("0"), 16).unwrap_or(0);
    period + period.mul_f64(f64::from(part) / f64::from(0xffff) / 10.0)
}

#[cfg(test)]
mod tests;
