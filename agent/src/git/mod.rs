//! A Git repository as a source: follows a branch, tag or commit and puts the files of the revision that counts into
//! a directory, which is then read like any other.
//!
//! The remote is asked with `ls-remote` first; only a change is fetched, one commit deep, submodules never. Of a
//! repository of which one directory is followed only the files of that come, where the server can leave out others. The
//! clone is a cache: when something is wrong with it, it is made again. The switch to another revision is one rename of a
//! symlink. A fetch that fails and a signature that is not good change nothing.

mod command;

use std::path::{Path, PathBuf};

use spec::digest::Digest;

pub use command::GitError;

use self::command::{Git, Limits, REMOTE};
use crate::config::GitSource;
use crate::revisions;

/// The local name of what was fetched.
const FETCHED: &str = "refs/mainstay/fetched";

/// One try: asks, fetches and switches when there is something new. The commit that counts then.
pub(crate) async fn poll(source: &GitSource, home: &Path, now: Option<&str>) -> Result<String, GitError> {
    poll_within(source, home, now, Limits::default()).await
}

async fn poll_within(source: &GitSource, home: &Path, now: Option<&str>, limits: Limits) -> Result<String, GitError> {
    revisions::prepare(home).map_err(|error| GitError::Write { revision: "(none)".to_owned(), source: error })?;
    let git = Git::new(source, home, limits);
    git.check_version().await?;
    // A list of signers that cannot be read is told before anybody is asked.
    let signers = signers(source)?;
    let wanted = wanted(source, &git).await?;
    let view = view(source, &wanted, signers.as_ref());
    if now == Some(wanted.commit.as_str()) && revisions::counts(home, &place(&view, &wanted.commit)) {
        return Ok(wanted.commit);
    }
    let part = source.path.is_some();
    match take(source, home, &git, &wanted, &view, part).await {
        Err(GitError::Failed { .. }) => {
            // The clone is a cache: whatever is wrong with it, a new one has not, and one that is whole least of all.
            drop(std::fs::remove_dir_all(home.join("repository")));
            take(source, home, &git, &wanted, &view, false).await
        }
        result => result,
    }
}

/// Fetches and switches. Damage of the clone may be noticed by each of its steps: an object that is there already is not
/// fetched again.
async fn take(
    source: &GitSource,
    home: &Path,
    git: &Git<'_>,
    wanted: &Wanted,
    view: &str,
    part: bool,
) -> Result<String, GitError> {
    let commit = fetch(source, home, git, wanted, part).await?;
    switch(source, home, git, &commit, place(view, &commit), part).await?;
    Ok(commit)
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
    // A repository with commits has a `HEAD`, unless that names a branch which is not there.
    match source.reference {
        None => Err(GitError::Empty),
        Some(_) => Err(GitError::NoReference(reference.to_owned())),
    }
}

/// Fetches what is wanted, of which `part` has no files yet, and checks its signature; the commit.
async fn fetch(
    source: &GitSource,
    home: &Path,
    git: &Git<'_>,
    wanted: &Wanted,
    part: bool,
) -> Result<String, GitError> {
    let place = "make a place for the repository";
    if !home.join("repository").join("HEAD").exists() {
        git.run("init", &["--quiet", "--bare"], place).await?;
    }
    if part {
        // Objects may be missing from such a clone: gitrepository-layout, "extensions.partialClone".
        git.run("config", &["core.repositoryFormatVersion", "1"], place).await?;
        git.run("config", &["extensions.partialClone", REMOTE], place).await?;
    }
    let what = format!("fetch {} of {}", wanted.name, source.url);
    let refspec = format!("+{}:{FETCHED}", wanted.name);
    let mut args = vec!["--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules"];
    args.extend(if part { ["--filter=blob:none", "--", REMOTE] } else { ["--no-filter", "--", &source.url] });
    args.push(&refspec);
    git.run("fetch", &args, &what).await?;
    let commit = git.run("rev-parse", &["--verify", &format!("{FETCHED}^{{commit}}")], "find the commit").await?;
    let commit = commit.trim().to_owned();
    if source.allowed_signers_file.is_some() {
        let verb = if wanted.tag { "verify-tag" } else { "verify-commit" };
        let bad = |told: String| GitError::Signature { revision: commit.clone(), told };
        git.run(verb, &[FETCHED], "verify").await.map_err(|error| match error {
            GitError::Failed { told, .. } => bad(told),
            other => other,
        })?;
        if wanted.tag {
            // Else an old tag could be served under the name of a new one.
            let tag = git.run("cat-file", &["tag", FETCHED], "read the tag").await?;
            let signed = tag.lines().find_map(|line| line.strip_prefix("tag ")).unwrap_or_default();
            if wanted.name.strip_prefix("refs/tags/") != Some(signed) {
                return Err(bad(format!("the tag that was signed is `{signed}`")));
            }
        }
    }
    Ok(commit)
}

/// Fetches the files of a tree that are missing, all at once.
async fn fetch_files(source: &GitSource, git: &Git<'_>, tree: &str, commit: &str) -> Result<(), GitError> {
    let what = format!("find out which files of revision {commit} are missing");
    let listed = git.run("rev-list", &["--objects", "--missing=print", tree], &what).await?;
    let missing: String = listed.lines().filter_map(|line| line.strip_prefix('?')).flat_map(|id| [id, "\n"]).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("fetch files of revision {commit} from {}", source.url);
    let args = ["--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--filter=blob:none"];
    git.run_with(&missing, "fetch", &[&args[..], &["--stdin", REMOTE]].concat(), &what).await.map(drop)
}

/// Who may sign.
fn signers(source: &GitSource) -> Result<Option<Digest>, GitError> {
    let Some(path) = &source.allowed_signers_file else { return Ok(None) };
    let bytes = std::fs::read(path).map_err(|source| GitError::Signers { path: path.clone(), source })?;
    Ok(Some(Digest::of(&bytes)))
}

/// What is made of a revision: another path in it is something else, and so is what others may have signed or what was
/// signed under another name.
fn view(source: &GitSource, wanted: &Wanted, signers: Option<&Digest>) -> String {
    let mut view = source.path.as_deref().unwrap_or(Path::new("")).to_string_lossy().into_owned();
    if let Some(signers) = signers {
        view.push_str(&format!("\n{} signed by {}", wanted.name, signers.hex()));
    }
    view
}

/// The files of a revision, seen from the directory of the repository.
fn place(view: &str, commit: &str) -> PathBuf {
    Path::new("revisions").join(format!("{commit}-{}", Digest::of(view.as_bytes()).short()))
}

/// Writes the files of a revision and lets it count.
async fn switch(
    source: &GitSource,
    home: &Path,
    git: &Git<'_>,
    commit: &str,
    place: PathBuf,
    part: bool,
) -> Result<(), GitError> {
    let failed = |error| GitError::Write { revision: commit.to_owned(), source: error };
    let directory = home.join(&place);
    if !revisions::counts(home, &place) {
        let tree = match &source.path {
            Some(path) => format!("{commit}:{}", path.display()),
            None => format!("{commit}^{{tree}}"),
        };
        let what = format!("read revision {commit}");
        if let Some(path) = &source.path {
            find(git, commit, path, &what).await?;
        }
        if part {
            fetch_files(source, git, &tree, commit).await?;
        }
        let listed = git.run("ls-tree", &["-r", "-l", "-z", "--full-tree", &tree], &what).await?;
        check_size(&listed, commit, git.limits())?;
        // A git that was killed leaves a lock behind.
        for name in ["index", "index.lock"] {
            drop(std::fs::remove_file(home.join(name)));
        }
        git.run("read-tree", &[&tree], &what).await?;
        let draft = revisions::draft(home).map_err(failed)?;
        git.run("checkout-index", &["--all", "--force", "--quiet"], "write the files").await?;
        // One that does not count may be what a power cut left of it.
        drop(std::fs::remove_dir_all(&directory));
        std::fs::rename(&draft, &directory).map_err(failed)?;
    }
    let home = home.to_owned();
    let switched = tokio::task::spawn_blocking(move || revisions::switch(&home, &place)).await;
    switched.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(failed)
}

/// Whether a revision has this directory: that it has not is nothing that another clone would mend.
async fn find(git: &Git<'_>, commit: &str, path: &Path, what: &str) -> Result<(), GitError> {
    let name = path.display().to_string();
    let listed = git.run("ls-tree", &["-d", "-z", "--full-tree", commit, "--", &name], what).await?;
    if listed.split_once('\t').is_some_and(|(facts, _)| facts.split(' ').nth(1) == Some("tree")) {
        return Ok(());
    }
    Err(GitError::NoDirectory { path: path.to_owned(), revision: commit.to_owned() })
}

/// Whether a revision is as small as one of manifests; `listed` is what `ls-tree -r -l -z` says.
fn check_size(listed: &str, commit: &str, limits: &Limits) -> Result<(), GitError> {
    let sizes = listed.split_terminator('\0').map(|entry| {
        let size = entry.split_once('\t').and_then(|(facts, _)| facts.split_ascii_whitespace().last());
        // Submodules have none.
        size.and_then(|size| size.parse::<u64>().ok()).unwrap_or(0)
    });
    let (files, bytes) = sizes.fold((0_usize, 0_u64), |(files, bytes), size| (files + 1, bytes.saturating_add(size)));
    if files > limits.files || bytes > limits.bytes {
        let (most, most_bytes) = (limits.files, limits.bytes);
        return Err(GitError::TooLarge { revision: commit.to_owned(), files, bytes, most, most_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
