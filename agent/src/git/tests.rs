//! With real repositories on this host.

mod faults;
mod signatures;
mod ssh;

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{GitError, poll};
use crate::config::GitSource;

struct Remote {
    dir: tempfile::TempDir,
}

impl Remote {
    fn new() -> Self {
        let remote = Self { dir: tempfile::tempdir().expect("a directory for the test") };
        std::fs::create_dir(remote.work()).expect("a work tree");
        remote.git(&["init", "--quiet", "--initial-branch=main"]);
        remote.commit("hosts/web/a.yaml", "one");
        remote
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "gpg.format=ssh"])
            .args(args)
            .current_dir(self.work())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn commit(&self, file: &str, content: &str) -> String {
        let path = self.work().join(file);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(path, content).expect("a file");
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "-m", content]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn source(&self, reference: Option<&str>, path: Option<&str>) -> GitSource {
        GitSource {
            name: "fleet".to_owned(),
            url: format!("file://{}", self.work().display()),
            reference: reference.map(str::to_owned),
            path: path.map(Into::into),
            poll: std::time::Duration::from_secs(60),
            username: "git".to_owned(),
            token_file: None,
            ca_file: None,
            ssh_key_file: None,
            known_hosts_file: None,
            allowed_signers_file: None,
        }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn current(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.home().join("current").join(file)).ok()
    }

    /// A key of its own; the file that allows it.
    fn signer(&self, name: &str) -> PathBuf {
        let key = self.dir.path().join(name);
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
        assert!(made.expect("ssh-keygen is installed").success());
        let public = std::fs::read_to_string(key.with_extension("pub")).expect("a public key");
        let allowed = self.dir.path().join(format!("{name}.allowed"));
        std::fs::write(&allowed, format!("t@example.org {public}")).expect("a file");
        self.git(&["config", "user.signingkey", &key.display().to_string()]);
        allowed
    }
}

async fn follow(remote: &Remote, source: &GitSource) -> Result<String, GitError> {
    poll(source, &remote.home(), crate::revisions::current(&remote.home()).as_deref()).await
}

#[tokio::test]
async fn a_branch_is_followed_and_a_path_is_all_that_is_seen() {
    let remote = Remote::new();
    let source = remote.source(Some("main"), Some("hosts/web"));
    follow(&remote, &source).await.expect("a first revision");
    assert_eq!(remote.current("a.yaml").as_deref(), Some("one"));
    let second = remote.commit("hosts/web/a.yaml", "two");
    assert_eq!(follow(&remote, &source).await.expect("a second"), second);
    assert_eq!(remote.current("a.yaml").as_deref(), Some("two"));
    let whole = remote.source(None, None);
    follow(&remote, &whole).await.expect("the whole tree");
    assert_eq!(remote.current("hosts/web/a.yaml").as_deref(), Some("two"));
    for number in 0..3 {
        remote.commit("hosts/web/a.yaml", &number.to_string());
        follow(&remote, &source).await.expect("one more");
    }
    let kept = std::fs::read_dir(remote.home().join("revisions")).expect("revisions").count();
    assert_eq!(kept, 2, "the one that counts, and the one before");
}

/// Where the server can leave out files, those of other directories do not come.
#[tokio::test]
async fn files_elsewhere_are_not_fetched() {
    let remote = Remote::new();
    remote.git(&["config", "uploadpack.allowFilter", "true"]);
    for number in 0..20 {
        remote.commit(&format!("elsewhere/{number}"), &format!("large {number}"));
    }
    let missing = || {
        let clone = remote.home().join("repository");
        let mut git = Command::new("git");
        git.arg("--git-dir").arg(clone).args(["rev-list", "--objects", "--missing=print", super::FETCHED]);
        let output = git.env("GIT_NO_LAZY_FETCH", "1").output().expect("git is installed");
        String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with('?')).count()
    };
    let part = remote.source(None, Some("hosts/web"));
    follow(&remote, &part).await.expect("a first revision");
    assert_eq!((remote.current("a.yaml").as_deref(), missing()), (Some("one"), 20));
    // Others change, this does; what is known already is not fetched again.
    remote.commit("elsewhere/20", "large 20");
    remote.commit("hosts/web/b.yaml", "two");
    follow(&remote, &part).await.expect("a second");
    assert_eq!((remote.current("a.yaml").as_deref(), remote.current("b.yaml").as_deref()), (Some("one"), Some("two")));
    assert_eq!(missing(), 21);
    // Another directory of the same revision, and then all of them.
    let other = remote.source(None, Some("elsewhere"));
    follow(&remote, &other).await.expect("another directory");
    assert_eq!(remote.current("20").as_deref(), Some("large 20"));
    follow(&remote, &remote.source(None, None)).await.expect("the whole tree");
    assert_eq!((remote.current("elsewhere/7").as_deref(), missing()), (Some("large 7"), 0));
    // What has no filters serves all, as it did before it had them.
    remote.git(&["config", "uploadpack.allowFilter", "false"]);
    remote.commit("hosts/web/b.yaml", "three");
    follow(&remote, &part).await.expect("a server without filters");
    assert_eq!((remote.current("b.yaml").as_deref(), missing()), (Some("three"), 0));
}

#[tokio::test]
async fn tags_and_commits_stay_where_they_are() {
    let remote = Remote::new();
    let first = remote.git(&["rev-parse", "HEAD"]);
    remote.git(&["tag", "plain"]);
    remote.git(&["tag", "-a", "-m", "annotated", "v1"]);
    remote.commit("hosts/web/a.yaml", "two");
    for reference in ["plain", "v1", "refs/tags/v1", first.as_str()] {
        let source = remote.source(Some(reference), None);
        assert_eq!(follow(&remote, &source).await.expect(reference), first, "{reference}");
        assert_eq!(remote.current("hosts/web/a.yaml").as_deref(), Some("one"), "{reference}");
    }
}

#[tokio::test]
async fn what_fails_changes_nothing() {
    let remote = Remote::new();
    let good = remote.source(Some("main"), Some("hosts/web"));
    follow(&remote, &good).await.expect("a first revision");
    remote.commit("hosts/web/a.yaml", "two");
    let gone = GitSource { url: "file:///nonexistent".to_owned(), ..good.clone() };
    let check = |result: Result<String, GitError>, want: &str| {
        let error = spec::causes::chain(&result.expect_err(want));
        assert!(error.contains(want), "{error}");
        assert_eq!(remote.current("a.yaml").as_deref(), Some("one"), "{want}");
    };
    check(follow(&remote, &gone).await, "cannot ask file:///nonexistent");
    check(follow(&remote, &remote.source(Some("nothing"), None)).await, "no branch or tag `nothing`");
    check(follow(&remote, &remote.source(None, Some("hosts/db"))).await, "cannot find the directory `hosts/db`");
    // The clone is a cache: damage is repaired by the next try.
    std::fs::remove_dir_all(remote.home().join("repository").join("objects")).expect("a clone");
    follow(&remote, &good).await.expect("repaired");
    assert_eq!(remote.current("a.yaml").as_deref(), Some("two"));
}

/// Nothing of the host's or user's configuration, and no hook of the repository, takes part.
#[tokio::test]
async fn links_stay_links_and_nothing_runs() {
    let remote = Remote::new();
    std::os::unix::fs::symlink("/etc/hostname", remote.work().join("hosts/web/link")).expect("a link");
    std::fs::write(remote.work().join(".gitattributes"), "* filter=evil\n").expect("a file");
    remote.commit("hosts/web/a.yaml", "two");
    follow(&remote, &remote.source(None, None)).await.expect("a revision");
    let link = remote.home().join("current/hosts/web/link");
    assert_eq!(std::fs::read_link(link).expect("a link"), Path::new("/etc/hostname"));
}
