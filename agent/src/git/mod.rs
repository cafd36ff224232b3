//! A Git repository as a source: follows a branch, tag or commit and puts the files of the revision that counts into
//! a directory, which is then read like any other.
//!
//! The remote is asked with `ls-remote` first; only a change is fetched, one commit deep, submodules never. The clone
//! is a cache: when something is wrong with it, it is made again. The switch to another revision is one rename of a
//! symlink. A fetch that fails and a signature that is not good change nothing.

mod command;

use std::path::{Path, PathBuf};

use spec::digest::Digest;

pub use command::GitError;

use self::command::Git;
use crate::config::GitSource;

/// The local name of what was fetched.
const FETCHED: &str = "refs/mainstay/fetched";

/// One try: asks, fetches and switches when there is something new. The commit that counts then.
pub(crate) async fn poll(source: &GitSource, home: &Path, now: Option<&str>) -> Result<String, GitError> {
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
