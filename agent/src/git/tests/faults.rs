//! What can go wrong with a remote, its content and the clone.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::command::{Limits, check_version};
use super::super::poll_within;
use super::*;

fn told(result: Result<String, GitError>, want: &str) {
    let error = spec::causes::chain(&result.expect_err(want));
    assert!(error.contains(want), "{want}: {error}");
    assert!(!error.contains('\n') && error.len() < 700, "{error}");
}

#[tokio::test]
async fn histories_may_be_rewritten_and_branches_may_go() {
    let remote = Remote::new();
    let source = remote.source(Some("main"), Some("hosts/web"));
    let first = follow(&remote, &source).await.expect("a first revision");
    remote.commit("hosts/web/a.yaml", "two");
    follow(&remote, &source).await.expect("a second");
    // Back, and on to something that has nothing in common with it.
    remote.git(&["reset", "--quiet", "--hard", &first]);
    assert_eq!(follow(&remote, &source).await.expect("back"), first);
    assert_eq!(remote.current("a.yaml").as_deref(), Some("one"));
    remote.git(&["checkout", "--quiet", "--orphan", "other"]);
    let other = remote.commit("hosts/web/a.yaml", "other");
    remote.git(&["branch", "--force", "main", "other"]);
    assert_eq!(follow(&remote, &source).await.expect("another history"), other);
    assert_eq!(remote.current("a.yaml").as_deref(), Some("other"));
    remote.git(&["branch", "-D", "main"]);
    told(follow(&remote, &source).await, "the remote has no branch or tag `main`");
    assert_eq!(remote.current("a.yaml").as_deref(), Some("other"));
}

#[tokio::test]
async fn an_empty_repository_says_so() {
    let remote = Remote::new();
    std::fs::remove_dir_all(remote.work()).expect("it is there");
    std::fs::create_dir(remote.work()).expect("a directory");
    remote.git(&["init", "--quiet", "--initial-branch=main"]);
    told(follow(&remote, &remote.source(None, None)).await, "it is empty");
    told(follow(&remote, &remote.source(Some("main"), None)).await, "no branch or tag `main`");
    remote.commit("a.yaml", "one");
    follow(&remote, &remote.source(None, None)).await.expect("the first commit");
    assert_eq!(remote.current("a.yaml").as_deref(), Some("one"));
}

/// An agent, and with it git, may be killed at any moment.
#[tokio::test]
async fn what_a_killed_git_leaves_behind_is_in_nobodys_way() {
    let remote = Remote::new();
    let source = remote.source(Some("main"), Some("hosts/web"));
    follow(&remote, &source).await.expect("a first revision");
    let locks = [
        "index.lock",
        "index",
        "repository/shallow.lock",
        "repository/config.lock",
        "repository/HEAD.lock",
        "repository/packed-refs.lock",
        "repository/refs/mainstay/fetched.lock",
    ];
    for (number, lock) in locks.iter().enumerate() {
        std::fs::write(remote.home().join(lock), "").expect("a file");
        let draft = remote.home().join("draft");
        std::fs::create_dir_all(draft.join("hosts")).expect("a directory");
        std::fs::write(draft.join("half.yaml"), "half").expect("a file");
        drop(std::os::unix::fs::symlink("nowhere", remote.home().join("current.new")));
        let content = number.to_string();
        remote.commit("hosts/web/a.yaml", &content);
        follow(&remote, &source).await.unwrap_or_else(|error| panic!("{lock}: {error}"));
        assert_eq!(remote.current("a.yaml"), Some(content), "{lock}");
        assert_eq!(remote.current("half.yaml"), None, "{lock}");
    }
}

#[tokio::test]
async fn a_cache_that_is_gone_is_made_again() {
    let remote = Remote::new();
    let source = remote.source(Some("main"), Some("hosts/web"));
    let commit = follow(&remote, &source).await.expect("a first revision");
    for part in ["", "revisions", "repository", "current", "repository/HEAD"] {
        let path = remote.home().join(part);
        let gone = if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        gone.expect("it was there");
        // As the follower knows it: the revision that was last in place.
        poll(&source, &remote.home(), Some(&commit)).await.unwrap_or_else(|error| panic!("{part}: {error}"));
        assert_eq!(remote.current("a.yaml").as_deref(), Some("one"), "{part}");
    }
}

/// A power cut after the files of a revision got their name and before they were on the disk.
#[tokio::test]
async fn a_damaged_directory_of_a_revision_is_written_anew() {
    let remote = Remote::new();
    let source = remote.source(Some("main"), Some("hosts/web"));
    let first = follow(&remote, &source).await.expect("a first revision");
    let second = remote.commit("hosts/web/a.yaml", "two");
    let place = std::fs::read_link(remote.home().join("current")).expect("it is a link");
    let damaged = remote.home().join(place.to_str().expect("a commit").replace(&first, &second));
    std::fs::create_dir(&damaged).expect("the directory is ours");
    for file in ["a.yaml", "b.yaml"] {
        std::fs::write(damaged.join(file), "").expect("a file");
    }
    assert_eq!(follow(&remote, &source).await.expect("a second"), second);
    assert_eq!(remote.current("a.yaml").as_deref(), Some("two"));
    assert_eq!(remote.current("b.yaml"), None);
}

/// Overwrites every object of the clone that is of this kind; how many.
fn damage(remote: &Remote, kind: &str) -> usize {
    use std::os::unix::fs::PermissionsExt as _;
    let clone = remote.home().join("repository");
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("--git-dir").arg(&clone).args(args).output().expect("git is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // A file for each object, whatever it was fetched as.
    for entry in std::fs::read_dir(clone.join("objects/pack")).expect("a directory").flatten() {
        let aside = remote.dir.path().join(entry.file_name());
        std::fs::rename(entry.path(), &aside).expect("the same file system");
        if aside.extension().is_some_and(|extension| extension == "pack") {
            let pack = std::fs::File::open(&aside).expect("it is there");
            let unpack = ["unpack-objects", "-q"];
            let status = Command::new("git").arg("--git-dir").arg(&clone).args(unpack).stdin(pack).status();
            assert!(status.expect("git is installed").success());
        }
    }
    let objects = git(&["cat-file", "--batch-all-objects", "--batch-check"]);
    let mut damaged = 0;
    for line in objects.lines().filter(|line| line.split(' ').nth(1) == Some(kind)) {
        let (directory, file) = line.split(' ').next().expect("a name").split_at(2);
        let path = clone.join("objects").join(directory).join(file);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
        std::fs::write(&path, "damaged").expect("it is ours");
        damaged += 1;
    }
    damaged
}

/// git asks the remote only for what it thinks it has not: after a power cut the objects of a revision may be there and
/// empty, which is seen when its files are written.
#[tokio::test]
async fn a_clone_with_damaged_contents_is_made_again() {
    damages(&Remote::new()).await;
}

/// Objects that are missing on purpose are no damage, and damage is none that is on purpose.
#[tokio::test]
async fn so_is_one_that_has_only_some_files() {
    let remote = Remote::new();
    remote.git(&["config", "uploadpack.allowFilter", "true"]);
    remote.commit("elsewhere/b.yaml", "elsewhere");
    damages(&remote).await;
}

async fn damages(remote: &Remote) {
    remote.commit("hosts/web/stays.yaml", "stays");
    let source = remote.source(Some("main"), Some("hosts/web"));
    follow(remote, &source).await.expect("a first revision");
    for kind in ["blob", "tree", "commit"] {
        assert!(damage(remote, kind) > 0, "{kind}");
        std::fs::remove_dir_all(remote.home().join("revisions")).expect("it was not written yet");
        follow(remote, &source).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(remote.current("stays.yaml").as_deref(), Some("stays"), "{kind}");
        assert!(damage(remote, kind) > 0, "{kind}");
        remote.commit("hosts/web/a.yaml", kind);
        follow(remote, &source).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(remote.current("a.yaml").as_deref(), Some(kind));
    }
    // What the remote itself has not is no damage: the clone stays.
    let objects = remote.home().join("repository/objects");
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).expect("a clone"));
    let before = inode(&objects);
    for path in ["hosts/none", "hosts/web/a.yaml"] {
        let none = remote.source(Some("main"), Some(path));
        told(follow(remote, &none).await, &format!("cannot find the directory `{path}` in revision"));
        assert_eq!(inode(&objects), before, "{path}");
    }
}

/// A repository on this host belongs to whoever works in it. Nothing of its configuration is run.
#[tokio::test]
async fn a_repository_of_another_user_is_followed_and_runs_nothing() {
    let remote = Remote::new();
    let ran = remote.dir.path().join("ran");
    let script = remote.dir.path().join("script");
    std::fs::write(&script, format!("#!/bin/sh\ntouch '{}'\nexec \"$@\"\n", ran.display())).expect("a file");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let script = script.display().to_string();
    for key in
        ["uploadpack.packObjectsHook", "core.fsmonitor", "core.alternateRefsCommand", "core.pager", "core.sshCommand"]
    {
        remote.git(&["config", key, &script]);
    }
    for hook in ["post-checkout", "reference-transaction", "pre-auto-gc"] {
        std::os::unix::fs::symlink(&script, remote.work().join(".git/hooks").join(hook)).expect("a hook");
    }
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let given = Command::new("chown").args(["-hR", "12345:12345"]).arg(remote.work()).status().expect("chown");
    assert!(given.success());
    for url in [format!("file://{}", remote.work().display()), remote.work().display().to_string()] {
        drop(std::fs::remove_dir_all(remote.home()));
        follow(&remote, &GitSource { url, ..remote.source(Some("main"), None) }).await.expect("a revision");
        assert_eq!(remote.current("hosts/web/a.yaml").as_deref(), Some("one"));
    }
    assert!(!ran.exists(), "nothing of the repository was run");
}

#[tokio::test]
async fn more_than_manifests_is_refused() {
    let remote = Remote::new();
    let source = remote.source(Some("main"), None);
    follow(&remote, &source).await.expect("a first revision");
    let noise: String = (0..200_000_u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect();
    std::fs::write(remote.work().join("hosts/web/noise"), &noise).expect("a file");
    remote.commit("hosts/web/b.yaml", "two");
    let poll = async |limits: Limits| poll_within(&source, &remote.home(), None, limits).await;
    told(poll(Limits { fetched: 100 << 10, ..Limits::default() }).await, "takes more than 0 MiB");
    told(poll(Limits { bytes: 1 << 20, ..Limits::default() }).await, "3 files of 1 MiB together");
    told(poll(Limits { files: 1, ..Limits::default() }).await, "at most 1 and 256 MiB");
    assert_eq!(remote.current("hosts/web/a.yaml").as_deref(), Some("one"));
    assert_eq!(remote.current("hosts/web/noise"), None);
    poll(Limits::default()).await.expect("it is small");
    assert_eq!(remote.current("hosts/web/noise"), Some(noise));
}

/// Answers each connection by its number, or never; the requests that came.
async fn server(answer: impl Fn(usize) -> Option<String> + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap_or(0);
            let number = {
                let mut requests = requests.lock().expect("not poisoned");
                requests.push(String::from_utf8_lossy(&buffer[..read]).into_owned());
                requests.len()
            };
            match answer(number) {
                Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                None => open.push(stream),
            }
        }
    });
    (format!("http://{address}"), seen)
}

/// Processes whose command line or environment has this in it.
fn processes_with(text: &str) -> usize {
    let holds = |path: PathBuf| std::fs::read(path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text));
    let entries = std::fs::read_dir("/proc").expect("proc").flatten().map(|entry| entry.path());
    let own = std::process::id().to_string();
    entries.filter(|path| !path.ends_with(&own)).filter(|path| holds(path.join("cmdline"))).count()
}

#[tokio::test]
async fn a_remote_that_hangs_is_given_up_with_everything_that_was_started_for_it() {
    let remote = Remote::new();
    let (url, seen) = server(|_| None).await;
    let source = GitSource { url: format!("{url}/fleet.git"), ..remote.source(Some("main"), None) };
    let limits = Limits { time: Duration::from_millis(1500), ..Limits::default() };
    let home = remote.home();
    told(poll_within(&source, &home, None, limits).await, "`git ls-remote` did not end within 1.5s");
    assert!(!seen.lock().expect("not poisoned").is_empty(), "it was asked");
    // git speaks http by a process of its own.
    let gone = async {
        while processes_with(&source.url) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("nothing is left");
}

#[tokio::test]
async fn a_token_goes_to_its_host_only_and_nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let remote = Remote::new();
    let (elsewhere, seen_elsewhere) = server(|_| Some("HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n".to_owned())).await;
    let to = elsewhere.clone();
    let moved = move |_| {
        Some(format!(
            "HTTP/1.1 301 x\r\nlocation: {to}/fleet.git/info/refs?service=git-upload-pack\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ))
    };
    let (url, seen) = server(moved).await;
    let token = remote.dir.path().join("token");
    std::fs::write(&token, "a-canary\n").expect("a file");
    let mode = |mode| std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    let token_file = Some(token.clone());
    let source = GitSource { url: format!("{url}/fleet.git"), token_file, ..remote.source(Some("main"), None) };
    mode(0o644);
    told(follow(&remote, &source).await, "is open to others (mode 0644");
    assert!(seen.lock().expect("not poisoned").is_empty(), "nothing was asked with it");
    mode(0o600);
    told(follow(&remote, &source).await, "301");
    let login = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "git:a-canary");
    let requests = seen.lock().expect("not poisoned").concat();
    assert!(requests.contains(&format!("Authorization: Basic {login}")), "{requests}");
    assert_eq!(*seen_elsewhere.lock().expect("not poisoned"), Vec::<String>::new());
    assert_eq!(processes_with("a-canary") + processes_with(&login), 0);
}

#[tokio::test]
async fn odd_contents_do_no_harm() {
    let remote = Remote::new();
    let first = remote.commit("hosts/web/a\u{1b}[2J\nb.yaml", "odd name");
    remote.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{first},hosts/web/module")]);
    std::fs::write(
        remote.work().join(".gitmodules"),
        "[submodule \"m\"]\n\tpath = hosts/web/module\n\turl = file:///etc\n",
    )
    .expect("a file");
    remote.git(&["add", ".gitmodules"]);
    remote.git(&["commit", "--quiet", "-m", "module"]);
    let source = remote.source(Some("main"), Some("hosts/web"));
    follow(&remote, &source).await.expect("a revision");
    assert_eq!(remote.current("a\u{1b}[2J\nb.yaml").as_deref(), Some("odd name"));
    let module = remote.home().join("current/module");
    assert!(!module.exists() || std::fs::read_dir(&module).is_ok_and(|mut inside| inside.next().is_none()));
    told(
        follow(&remote, &remote.source(None, Some("hosts/web/a.yaml"))).await,
        "cannot find the directory `hosts/web/a.yaml`",
    );
    told(follow(&remote, &remote.source(None, Some("hosts/none"))).await, "cannot find the directory `hosts/none`");
    assert_eq!(remote.current("a.yaml").as_deref(), Some("one"));
}

#[test]
fn a_git_that_passes_over_settings_is_refused() {
    let check = |text: &str, verifies: bool, want: Option<&str>| {
        let error = check_version(text, verifies).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), want, "{text}");
    };
    check("git version 2.47.3\n", true, None);
    check("git version 2.39.5 (Apple Git-154)\n", true, None);
    check("git version 3.0.0-rc1\n", true, None);
    check("git version 2.31.0\n", false, None);
    check("git version 2.25.1\n", false, Some("git 2.25.1 is too old: at least 2.31 is needed"));
    let needs_more = "git 2.31.0 is too old: at least 2.34 is needed to verify signatures";
    check("git version 2.31.0\n", true, Some(needs_more));
    check("busybox\n", false, Some("git busybox is too old: at least 2.31 is needed"));
}
