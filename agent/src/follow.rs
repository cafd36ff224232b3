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
        let status = Known { revision: revision_of(&home), ..Known::default() };
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
        if let Some(error) = known.error {
            let error = format!("{error}; the last revision stays");
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
            let pause = spread(name, period);
            loop {
                let before = view.status();
                let next = match remote.poll(&home, before.revision.as_deref(), &tools.artifacts).await {
                    Ok(revision) => {
                        // A clock of today fits a float to the microsecond.
                        tools.metrics.source_success(&view.label, tools.clock.unix() as f64);
                        if before.revision.as_ref() != Some(&revision) {
                            tracing::info!(source = view.label, revision, "source switched to another revision");
                        }
                        Known { revision: Some(revision), last_success: Some(tools.clock.unix()), error: None }
                    }
                    Err(error) => {
                        if before.error.as_ref() != Some(&error) {
                            tracing::error!(source = view.label, error, "source not followed");
                        }
                        Known { error: Some(error), ..before.clone() }
                    }
                };
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

/// The time to the next question: up to a tenth longer, by host and name, so that a fleet does not ask at once.
fn spread(name: &str, period: Duration) -> Duration {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let digest = Digest::of(format!("{}\n{name}", host.to_string_lossy()).as_bytes());
    let part = u32::from_str_radix(digest.hex().get(..4).unwrap_or("0"), 16).unwrap_or(0);
    period + period.mul_f64(f64::from(part) / f64::from(0xffff) / 10.0)
}

/// The commit or digest whose files count, as the symlink tells.
pub(crate) fn revision_of(home: &Path) -> Option<String> {
    let target = std::fs::read_link(home.join("current")).ok()?;
    let name = target.file_name()?.to_str()?;
    Some(name.split('-').next()?.to_owned())
}
