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
mod tests {
    use super::*;

    #[test]
    fn a_first_fetch_is_waited_for_and_a_failure_is_told() {
        let check = |revision: Option<&str>, error: Option<&str>, found: &str, state: &str, errors: &[&str]| {
            let known = Known {
                revision: revision.map(str::to_owned),
                last_success: revision.map(|_| 7),
                error: error.map(str::to_owned),
                files_of: None,
            };
            let status = Arc::new(Mutex::new(known));
            let view = View { label: "fleet".to_owned(), root: PathBuf::from("/d/current"), status };
            let found_errors = if found == "failed" { vec!["there is no directory".to_owned()] } else { Vec::new() };
            let mut status = SourceStatus { state: found.to_owned(), errors: found_errors, ..SourceStatus::default() };
            view.tell(&mut status);
            assert_eq!((status.state.as_str(), status.errors.as_slice()), (state, errors_of(errors).as_slice()));
            assert_eq!(status.last_success.is_some(), revision.is_some());
        };
        fn errors_of(errors: &[&str]) -> Vec<String> {
            errors.iter().map(|error| (*error).to_owned()).collect()
        }
        check(None, None, "failed", "waiting", &[]);
        check(None, Some("it is away"), "failed", "failed", &["it is away"]);
        check(Some("aa"), None, "ok", "ok", &[]);
        check(Some("aa"), Some("it is away"), "ok", "degraded", &["it is away; the last revision stays"]);
        check(Some("aa"), None, "failed", "failed", &["there is no directory"]);
    }

    #[test]
    fn a_fleet_does_not_ask_at_once() {
        for period in [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(86_400)] {
            let hosts: Vec<String> = (0..100).map(|number| format!("web-{number}")).collect();
            let pauses: Vec<Duration> = hosts.iter().map(|host| spread(host, "fleet", period)).collect();
            assert!(pauses.iter().all(|pause| (period..=period.mul_f64(1.1)).contains(pause)), "{pauses:?}");
            // Each tenth of the extra time has some of them, and each host keeps its own.
            let slot = |pause: &Duration| ((*pause - period).as_secs_f64() / period.as_secs_f64() * 100.0) as u32;
            let slots: std::collections::BTreeSet<u32> = pauses.iter().map(slot).filter(|slot| *slot < 10).collect();
            assert_eq!(slots.len(), 10, "{pauses:?}");
            let again: Vec<Duration> = hosts.iter().map(|host| spread(host, "fleet", period)).collect();
            assert_eq!(again, pauses);
            assert_ne!(spread("web-1", "fleet", period), spread("web-1", "other", period));
        }
    }

    #[test]
    fn each_change_is_told_once() {
        let known = |text: &str| {
            let (revision, error) = text.split_once(' ').unwrap_or((text, ""));
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Known { revision: some(revision), error: some(error), ..Known::default() }
        };
        let check = |before: &str, next: &str, want: &[(&str, &str)]| {
            let news = news("fleet", &known(before), &known(next));
            let found: Vec<(&str, &str)> =
                news.iter().map(|(_, reason, text)| (reason.as_str(), text.as_str())).collect();
            assert_eq!(found, want, "{before:?} to {next:?}");
            for (kind, reason, _) in &news {
                assert_eq!(*kind == EventKind::Warning, *reason == Word::SOURCE_FAILED);
            }
        };
        check("", "aa", &[("source_switched", "fleet: revision aa counts")]);
        check("aa", "aa", &[]);
        check("aa", "bb", &[("source_switched", "fleet: revision bb counts, before it aa")]);
        check("", " away", &[("source_failed", "fleet: away")]);
        check("aa", "aa away", &[("source_failed", "fleet: away; revision aa stays")]);
        check("aa away", "aa away", &[]);
        check("aa away", "aa unsigned", &[("source_failed", "fleet: unsigned; revision aa stays")]);
        check("aa away", "aa", &[("source_recovered", "fleet can be read again")]);
        check(
            "aa away",
            "bb",
            &[
                ("source_recovered", "fleet can be read again"),
                ("source_switched", "fleet: revision bb counts, before it aa"),
            ],
        );
    }

    /// Alerts by the age of a source work when its remote is away, also when the agent was started meanwhile.
    #[tokio::test]
    async fn the_age_of_a_source_is_known_at_once() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let metrics = Metrics::new();
        let puller = runtime::image::pull::Puller::new(
            runtime::image::store::Store::open(&dir.path().join("images")).expect("a store"),
            runtime::image::registry::RegistryConfig::default(),
        );
        let tools = Tools {
            data_dir: dir.path().to_owned(),
            clock: Arc::new(crate::clock::HostClock),
            metrics: metrics.clone(),
            journal: Journal::open(&dir.path().join("events"), None).expect("a journal"),
            artifacts: puller.artifacts(),
        };
        let mut ages = Vec::new();
        for (name, known) in [("never", None), ("once", Some(1_700_000_000))] {
            let table = format!("name = '{name}'\nurl = 'file:///nonexistent'");
            let source: GitSource = toml::from_str(&table).expect("a repository");
            let remote = Remote::Git(source);
            if let Some(unix) = known {
                let home = remote.home(dir.path());
                revisions::prepare(&home).expect("ours");
                revisions::note_success(&home, unix);
            }
            let view = remote.view(dir.path());
            assert_eq!(view.status().last_success, known);
            let tried = Arc::new(Notify::new());
            let told = Arc::clone(&tried);
            let follower = Follower::start(remote, view, tools.clone(), move || told.notify_one());
            tokio::time::timeout(Duration::from_secs(30), tried.notified()).await.expect("it is tried");
            let text = metrics.text();
            let line = text.lines().find(|line| line.starts_with("mainstay_source_last_success_timestamp_seconds{"));
            ages.push(line.and_then(|line| line.split(' ').next_back()).map(str::to_owned));
            drop(follower);
        }
        assert_eq!(ages, [Some("0".to_owned()), Some("1700000000".to_owned())]);
    }

    /// A name that is given to another remote: its directory stays, and nothing that the one before did is told of it.
    #[test]
    fn another_remote_of_the_same_name_begins_anew() {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let remote = |url: &str, reference: &str| {
            let table = format!("name = 'fleet'\nurl = 'file:///{url}'\nref = '{reference}'");
            Remote::Git(toml::from_str(&table).expect("a repository"))
        };
        let home = remote("old", "main").home(dir.path());
        let status = |url: &str, reference: &str| remote(url, reference).view(dir.path()).status();
        assert_eq!(status("old", "main"), Known::default());
        revisions::prepare(&home).expect("ours");
        std::fs::create_dir(home.join("revisions/0123456789abcdef-1")).expect("ours");
        revisions::switch(&home, Path::new("revisions/0123456789abcdef-1")).expect("it is there");
        revisions::note_success(&home, 1_700_000_000);
        let own = Known {
            revision: Some("0123456789abcdef".to_owned()),
            last_success: revisions::last_success(&home),
            ..Known::default()
        };
        assert_eq!(status("old", "main"), own, "one of a version that made no such note");
        revisions::note_remote(&home, "file:///old#main");
        assert_eq!(status("old", "main"), own);
        let other = Known { files_of: Some("file:///old#main at 0123456789ab".to_owned()), ..Known::default() };
        assert_eq!(status("new", "main"), other);
        assert_eq!(status("old", "stable"), other);

        let told = |view: &View| {
            let mut status =
                SourceStatus { state: "ok".to_owned(), errors: vec!["broken".to_owned()], ..Default::default() };
            view.tell(&mut status);
            assert_eq!((status.revision, status.last_success), (None, None));
            (status.state, status.errors, status.warnings)
        };
        let view = remote("new", "main").view(dir.path());
        let warning = "nothing was fetched yet: the files are those of file:///old#main at 0123456789ab".to_owned();
        assert_eq!(told(&view), ("waiting".to_owned(), vec!["broken".to_owned()], vec![warning]));
        let failed = Known { error: Some("away".to_owned()), ..other.clone() };
        view.set(failed.clone());
        let error = "away; the files of file:///old#main at 0123456789ab stay".to_owned();
        assert_eq!(told(&view), ("degraded".to_owned(), vec!["broken".to_owned(), error], vec![]));
        let texts = |before: &Known, next: &Known| -> Vec<String> {
            news("fleet", before, next).into_iter().map(|(_, _, text)| text).collect()
        };
        let stays = "file:///old#main at 0123456789ab, which had this name before, stays";
        assert_eq!(texts(&other, &failed), [format!("fleet: away; {stays}")]);
        let fetched = Known { revision: Some("bb".to_owned()), ..Known::default() };
        let switched = "fleet: revision bb counts, before it file:///old#main at 0123456789ab";
        assert_eq!(texts(&other, &fetched), [switched]);

        // It has answered: what is there is its own, and no more that of the one before.
        revisions::note_remote(&home, &view.label);
        assert_eq!((status("new", "main"), status("old", "main").revision), (own, None));
    }
}
