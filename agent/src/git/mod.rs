//! A Git repository as a source: follows a branch, tag or commit and puts the files of the revision that counts into
//! a directory, which is then read like any other.
//!
//! The remote is asked with `ls-remote` first; only a change is fetched, one commit deep, submodules never. The clone
//! is a cache: when something is wrong with it, it is made again. The switch to another revision is one rename of a
//! symlink. A fetch that fails and a signature that is not good change nothing, and are told in the status.

mod command;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use spec::digest::Digest;
use tokio::sync::Notify;

pub use command::GitError;

use self::command::Git;
use crate::clock::SharedClock;
use crate::config::{ArchiveSource, GitSource};
use crate::status::SourceStatus;
use crate::telemetry::Metrics;

/// The local name of what was fetched.
const FETCHED: &str = "refs/mainstay/fetched";

/// What is known of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitStatus {
    /// The commit whose files count.
    pub revision: Option<String>,
    /// When the remote last answered and what it named was in place, in seconds of Unix time.
    pub last_success: Option<i64>,
    /// What went wrong at the last try.
    pub error: Option<String>,
}

/// Follows one repository until it is dropped.
#[derive(Debug)]
pub struct Follower {
    ask: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

/// What everybody may see of a repository.
#[derive(Debug, Clone)]
pub struct GitView {
    /// The repository for people.
    pub label: String,
    /// The directory where its files appear.
    pub root: PathBuf,
    status: Arc<Mutex<GitStatus>>,
}

impl GitView {
    /// The repository as it was left by the last agent.
    #[must_use]
    pub fn of(source: &GitSource, data_dir: &Path) -> Self {
        Self::at(source.label(), &source.directory(data_dir))
    }

    /// The archive as it was left by the last agent.
    #[must_use]
    pub fn of_archive(source: &ArchiveSource, data_dir: &Path) -> Self {
        Self::at(source.label(), &source.directory(data_dir))
    }

    fn at(label: String, home: &Path) -> Self {
        let status = GitStatus { revision: revision_of(home), ..GitStatus::default() };
        Self { label, root: home.join("current"), status: Arc::new(Mutex::new(status)) }
    }

    /// Completes the status of the directory by what is known of the repository.
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

    fn set(&self, status: GitStatus) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// What is known now.
    #[must_use]
    pub fn status(&self) -> GitStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Begins to follow. `changed` is called after each try that changed what the view says.
    #[must_use]
    pub fn start(
        source: GitSource,
        view: GitView,
        data_dir: &Path,
        clock: SharedClock,
        metrics: Metrics,
        changed: impl Fn() + Send + 'static,
    ) -> Self {
        let home = source.directory(data_dir);
        let pause = spread(&source.name, source.poll);
        Self::follow(view, pause, clock, metrics, changed, move |known| {
            let (source, home) = (source.clone(), home.clone());
            async move { poll(&source, &home, known.as_deref()).await }
        })
    }

    /// Begins to follow an archive, in the same way.
    #[must_use]
    pub fn start_archive(
        source: ArchiveSource,
        view: GitView,
        data_dir: &Path,
        clock: SharedClock,
        metrics: Metrics,
        changed: impl Fn() + Send + 'static,
    ) -> Self {
        let home = source.directory(data_dir);
        let pause = spread(&source.name, source.again());
        Self::follow(view, pause, clock, metrics, changed, move |_| {
            let (source, home) = (source.clone(), home.clone());
            async move { crate::archive::poll(&source, &home).await }
        })
    }

    fn follow<E, F>(
        view: GitView,
        pause: Duration,
        clock: SharedClock,
        metrics: Metrics,
        changed: impl Fn() + Send + 'static,
        poll: impl Fn(Option<String>) -> F + Send + 'static,
    ) -> Self
    where
        E: std::error::Error + Send + 'static,
        F: Future<Output = Result<String, E>> + Send,
    {
        let ask = Arc::new(Notify::new());
        let wake = Arc::clone(&ask);
        let task = tokio::spawn(async move {
            loop {
                let before = view.status();
                let next = match poll(before.revision.clone()).await {
                    Ok(revision) => {
                        // A clock of today fits a float to the microsecond.
                        metrics.source_success(&view.label, clock.unix() as f64);
                        if before.revision.as_ref() != Some(&revision) {
                            tracing::info!(source = view.label, revision, "source switched to another revision");
                        }
                        GitStatus { revision: Some(revision), last_success: Some(clock.unix()), error: None }
                    }
                    Err(error) => {
                        let error = spec::causes::chain(&error);
                        if before.error.as_ref() != Some(&error) {
                            tracing::error!(source = view.label, error, "source not followed");
                        }
                        GitStatus { error: Some(error), ..before.clone() }
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

/// The time to the next question: up to a tenth longer, by host and repository, so that a fleet does not ask at once.
fn spread(name: &str, period: Duration) -> Duration {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let digest = Digest::of(format!("{}\n{name}", host.to_string_lossy()).as_bytes());
    let part = u32::from_str_radix(digest.hex().get(..4).unwrap_or("0"), 16).unwrap_or(0);
    period + period.mul_f64(f64::from(part) / f64::from(0xffff) / 10.0)
}

/// The commit whose files count, as the symlink tells.
fn revision_of(home: &Path) -> Option<String> {
    let target = std::fs::read_link(home.join("current")).ok()?;
    let name = target.file_name()?.to_str()?;
    Some(name.split('-').next()?.to_owned())
}

/// One try: asks, fetches and switches when there is something new. The commit that counts then.
async fn poll(source: &GitSource, home: &Path, now: Option<&str>) -> Result<String, GitError> {
    prepare(home).map_err(|error| GitError::Write { revision: "(none)".to_owned(), source: error })?;
    let git = Git::new(source, home);
    let wanted = wanted(source, &git).await?;
    if now == Some(wanted.commit.as_str())
        && home.join("current").read_link().ok() == Some(place(source, &wanted.commit))
    {
        return Ok(wanted.commit);
    }
    let commit = match fetch(source, home, &git, &wanted).await {
        Ok(commit) => commit,
        Err(error @ GitError::Signature { .. }) => return Err(error),
        Err(_) => {
            // The clone is a cache: whatever is wrong with it, a new one has not.
            drop(std::fs::remove_dir_all(home.join("repository")));
            fetch(source, home, &git, &wanted).await?
        }
    };
    switch(source, home, &git, &commit).await?;
    Ok(commit)
}

fn prepare(home: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(home.join("revisions"))
}

/// What the remote names.
struct Wanted {
    /// Its name on the remote: a full reference, or a commit.
    name: String,
    /// The commit.
    commit: String,
    /// An annotated tag, which carries the signature itself.
    tag: bool,
}

async fn wanted(source: &GitSource, git: &Git<'_>) -> Result<Wanted, GitError> {
    let reference = source.reference.as_deref().unwrap_or("HEAD");
    if matches!(reference.len(), 40 | 64) && reference.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Wanted { name: reference.to_owned(), commit: reference.to_ascii_lowercase(), tag: false });
    }
    let what = format!("ask {}", source.url);
    let listed = git.run("ls-remote", &["--", &source.url, reference, &format!("{reference}^{{}}")], &what).await?;
    let found: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    // A branch counts before a tag of the same name; a full reference is what it says.
    for name in [reference.to_owned(), format!("refs/heads/{reference}"), format!("refs/tags/{reference}")] {
        let Some((object, _)) = found.iter().find(|(_, other)| *other == name) else { continue };
        let peeled = format!("{name}^{{}}");
        let commit = found.iter().find(|(_, other)| *other == peeled).map(|(object, _)| *object);
        return Ok(Wanted { commit: commit.unwrap_or(object).to_string(), tag: commit.is_some(), name });
    }
    Err(GitError::NoReference(reference.to_owned()))
}

/// Fetches what is wanted and checks its signature; the commit.
async fn fetch(source: &GitSource, home: &Path, git: &Git<'_>, wanted: &Wanted) -> Result<String, GitError> {
    if !home.join("repository").join("HEAD").exists() {
        git.run("init", &["--quiet", "--bare"], "make a place for the repository").await?;
    }
    let what = format!("fetch {} of {}", wanted.name, source.url);
    let refspec = format!("+{}:{FETCHED}", wanted.name);
    let args = ["--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", &source.url, &refspec];
    git.run("fetch", &args, &what).await?;
    let commit = git.run("rev-parse", &["--verify", &format!("{FETCHED}^{{commit}}")], "find the commit").await?;
    let commit = commit.trim().to_owned();
    if source.allowed_signers_file.is_some() {
        let verb = if wanted.tag { "verify-tag" } else { "verify-commit" };
        git.run(verb, &[FETCHED], "verify").await.map_err(|error| match error {
            GitError::Failed { told, .. } => GitError::Signature { revision: commit.clone(), told },
            other => other,
        })?;
    }
    Ok(commit)
}

/// The files of a revision, seen from the directory of the repository. Another path in it is another place.
fn place(source: &GitSource, commit: &str) -> PathBuf {
    let path = source.path.as_deref().unwrap_or(Path::new("")).to_string_lossy().into_owned();
    Path::new("revisions").join(format!("{commit}-{}", Digest::of(path.as_bytes()).short()))
}

/// Writes the files of a revision and lets it count.
async fn switch(source: &GitSource, home: &Path, git: &Git<'_>, commit: &str) -> Result<(), GitError> {
    let failed = |error| GitError::Write { revision: commit.to_owned(), source: error };
    let place = place(source, commit);
    let directory = home.join(&place);
    if !directory.is_dir() {
        let tree = match &source.path {
            Some(path) => format!("{commit}:{}", path.display()),
            None => format!("{commit}^{{tree}}"),
        };
        let what = match &source.path {
            Some(path) => format!("find the directory `{}` in revision {commit}", path.display()),
            None => format!("read revision {commit}"),
        };
        git.run("read-tree", &[&tree], &what).await?;
        let draft = git.work_tree();
        if draft.exists() {
            std::fs::remove_dir_all(&draft).map_err(failed)?;
        }
        std::fs::create_dir(&draft).map_err(failed)?;
        git.run("checkout-index", &["--all", "--force", "--quiet"], "write the files").await?;
        std::fs::rename(&draft, &directory).map_err(failed)?;
    }
    let link = home.join("current.new");
    drop(std::fs::remove_file(&link));
    std::os::unix::fs::symlink(&place, &link).map_err(failed)?;
    let before = std::fs::read_link(home.join("current")).ok();
    std::fs::rename(&link, home.join("current")).map_err(failed)?;
    // The one before stays: somebody may be reading it now.
    let kept = [Some(place), before];
    for entry in std::fs::read_dir(home.join("revisions")).map_err(failed)?.flatten() {
        let name = Path::new("revisions").join(entry.file_name());
        if !kept.contains(&Some(name)) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
