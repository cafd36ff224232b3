//! Runs the `git` program with an environment of its own: no user or system configuration, no prompt, no hook, only
//! the configured transport, and credentials for the configured host only. What it starts ends with it, and neither
//! its time nor its files are without limit.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, prlimit};
use tokio::process::Command;

use crate::config::{GitSource, Transport};
use crate::credential;

/// The first version that takes its settings from the environment (Git 2.31 release notes, `GIT_CONFIG_COUNT`), and the
/// first that verifies signatures of ssh (Git 2.34 release notes).
const OLDEST: (u32, u32) = (2, 31);
const OLDEST_VERIFIER: (u32, u32) = (2, 34);

/// How much one repository may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A call of git that takes longer is given up. git itself gives up a transfer that stands still after 30 s.
    pub(super) time: Duration,
    /// The longest file that git may write, in bytes: all that is fetched at once is one.
    pub(super) fetched: u64,
    /// Files of a revision, and their bytes.
    pub(super) files: usize,
    pub(super) bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(300), fetched: 1 << 30, files: 50_000, bytes: 256 << 20 }
    }
}

/// Variables of the agent that git may need to reach the network.
const PASSED_ON: &[&str] = &["PATH", "http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"];

/// Serves a repository of this host, whoever owns it: the configuration names it, and git takes none of our settings along
/// to what serves it. It runs no hooks, and no program that such a repository's own configuration names.
const UPLOAD_PACK: &str = "--upload-pack=git -c 'safe.directory=*' upload-pack";

/// What git calls the repository that a clone without all of its files has them from.
pub(super) const REMOTE: &str = "source";

/// What can go wrong with a repository.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The program is missing or cannot be run.
    #[error("cannot run `git`: install it on this host")]
    Run(#[source] std::io::Error),
    /// It is of a version that would pass over settings.
    #[error("git {found} is too old: at least {}.{} is needed{}", needed.0, needed.1, if *needed == OLDEST_VERIFIER { " to verify signatures" } else { "" })]
    TooOld {
        /// What it says of itself.
        found: String,
        /// The oldest that will do.
        needed: (u32, u32),
    },
    /// It took too long.
    #[error("`git {verb}` did not end within {limit:?}")]
    TooSlow {
        /// What was being done.
        verb: &'static str,
        /// The time that it had.
        limit: Duration,
    },
    /// More is served than a repository of manifests has.
    #[error("the repository is refused: one revision of it takes more than {} MiB", .0 >> 20)]
    TooMuch(u64),
    /// A revision has more in it than manifests.
    #[error("revision {revision} is refused: it has {files} files of {} MiB together below the directory that is followed, at most {most} and {} MiB are read", bytes >> 20, most_bytes >> 20)]
    TooLarge {
        /// The commit.
        revision: String,
        /// How many files.
        files: usize,
        /// And their bytes.
        bytes: u64,
        /// How many there may be.
        most: usize,
        /// And their bytes.
        most_bytes: u64,
    },
    /// It failed.
    #[error("cannot {what}: {told}")]
    Failed {
        /// What was being done.
        what: String,
        /// The last thing that git said.
        told: String,
    },
    /// A token or key cannot be used.
    #[error(transparent)]
    Credential(#[from] credential::CredentialError),
    /// The file with the allowed signers cannot be read.
    #[error("cannot read `{path}`", path = path.display())]
    Signers {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The remote has nothing of that name.
    #[error("the remote has no branch or tag `{0}`")]
    NoReference(String),
    /// The remote has nothing at all.
    #[error("the remote has no `HEAD`: it is empty, or a branch has to be named with `ref`")]
    Empty,
    /// A revision lacks the directory that is followed.
    #[error("cannot find the directory `{path}` in revision {revision}", path = path.display())]
    NoDirectory {
        /// Which.
        path: std::path::PathBuf,
        /// The commit.
        revision: String,
    },
    /// The signature is missing, wrong or of somebody else.
    #[error("revision {revision} has no good signature of an allowed signer: {told}")]
    Signature {
        /// The commit.
        revision: String,
        /// What git said.
        told: String,
    },
    /// The files of a revision cannot be written.
    #[error("cannot write the files of revision {revision}")]
    Write {
        /// The commit.
        revision: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The `git` program for one repository.
pub(super) struct Git<'a> {
    source: &'a GitSource,
    /// The directory of this repository's cache.
    home: &'a Path,
    limits: Limits,
}

/// What git has started goes with it: a transport that hangs would stay for ever.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It has ended just now.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

impl<'a> Git<'a> {
    pub(super) fn new(source: &'a GitSource, home: &'a Path, limits: Limits) -> Self {
        Self { source, home, limits }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether the version that is installed takes all of the settings seriously.
    pub(super) async fn check_version(&self) -> Result<(), GitError> {
        let told = self.run("version", &[], "ask git for its version").await?;
        check_version(&told, self.source.allowed_signers_file.is_some())
    }

    /// Where `checkout-index` writes.
    pub(super) fn work_tree(&self) -> std::path::PathBuf {
        self.home.join("draft")
    }

    /// Settings of git for this repository: nothing else is read.
    fn settings(&self) -> Result<Vec<(String, String)>, GitError> {
        let transport = self.source.transport();
        let fixed = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("credential.helper", ""),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("safe.directory", "*"),
            ("submodule.recurse", "false"),
            ("protocol.allow", "never"),
            ("http.followRedirects", "false"),
            ("http.lowSpeedLimit", "1000"),
            ("http.lowSpeedTime", "30"),
            ("transfer.fsckObjects", "true"),
            ("gpg.format", "ssh"),
            // A signature says itself of which kind it is; only those of ssh have a list of who may sign.
            ("gpg.program", "false"),
            ("gpg.openpgp.program", "false"),
            ("gpg.x509.program", "false"),
        ];
        let mut settings: Vec<(String, String)> =
            fixed.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        settings.push((format!("remote.{REMOTE}.url"), self.source.url.clone()));
        settings.push((format!("remote.{REMOTE}.promisor"), "true".to_owned()));
        settings.push((format!("protocol.{}.allow", transport.word()), "always".to_owned()));
        if let Some(file) = &self.source.ca_file {
            settings.push(("http.sslCAInfo".to_owned(), file.display().to_string()));
        }
        if let Some(file) = &self.source.allowed_signers_file {
            settings.push(("gpg.ssh.allowedSignersFile".to_owned(), file.display().to_string()));
        }
        if let Some(path) = &self.source.token_file {
            let token = credential::read(path)?;
            let login = [self.source.username.as_bytes(), b":", token.trim_ascii()].concat();
            let login = STANDARD.encode(login);
            let host: Vec<&str> = self.source.url.splitn(4, '/').take(3).collect();
            settings.push((format!("http.{}/.extraHeader", host.join("/")), format!("Authorization: Basic {login}")));
        }
        Ok(settings)
    }

    /// Runs git; what it wrote to its output. `what` says what for, behind "cannot".
    pub(super) async fn run(&self, verb: &'static str, args: &[&str], what: &str) -> Result<String, GitError> {
        self.run_with("", verb, args, what).await
    }

    /// Runs git with a list of objects as its input.
    pub(super) async fn run_with(
        &self,
        input: &str,
        verb: &'static str,
        args: &[&str],
        what: &str,
    ) -> Result<String, GitError> {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(self.home.join("repository")).arg(verb);
        if matches!(verb, "ls-remote" | "fetch") && self.source.transport() == Transport::File {
            command.arg(UPLOAD_PACK);
        }
        command.args(args);
        command.env_clear().current_dir(self.home);
        command.envs(PASSED_ON.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))));
        command.env("HOME", self.home).env("LC_ALL", "C");
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "true");
        // A repository that lacks objects would name where they come from, and by which program.
        command.env("GIT_NO_LAZY_FETCH", "1");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_INDEX_FILE", self.home.join("index"));
        // A path is a name and no pattern.
        command.env("GIT_LITERAL_PATHSPECS", "1");
        if verb == "checkout-index" {
            command.env("GIT_WORK_TREE", self.work_tree());
        }
        let mut settings = self.settings()?;
        if !input.is_empty() {
            // Single objects are fetched: a server that is told of commits would take the files of these for known.
            settings.push(("fetch.negotiationAlgorithm".to_owned(), "noop".to_owned()));
        }
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (key, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key).env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        if self.source.transport() == Transport::Ssh {
            command.env("GIT_SSH_COMMAND", self.ssh()?);
        }
        command
            .stdin(given(input).map_err(GitError::Run)?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(GitError::Run)?;
        let group = Group::of(&child);
        if let Some(pid) = group.0.and_then(|pid| rustix::process::Pid::from_raw(pid.as_raw())) {
            // It fetches nothing before it has asked the remote, which takes longer; when it has ended there is no need.
            let most = Some(self.limits.fetched);
            let _ = prlimit(Some(pid), Resource::Fsize, Rlimit { current: most, maximum: most });
            // It has the token: a crash of it must not write that to a disk.
            let _ = prlimit(Some(pid), Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        }
        let waiting = tokio::time::timeout(self.limits.time, child.wait_with_output());
        tokio::pin!(waiting);
        // Dropped before git itself is, so that the number of the group is still that of this one.
        let mut group = group;
        let output = match waiting.as_mut().await {
            Ok(output) => output.map_err(GitError::Run)?,
            Err(_) => return Err(GitError::TooSlow { verb, limit: self.limits.time }),
        };
        group.0 = None;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        // The kernel's answer to a file that is longer than it may be.
        let told = String::from_utf8_lossy(&output.stderr);
        if told.contains("died of signal 25") || told.contains("File too large") {
            return Err(GitError::TooMuch(self.limits.fetched));
        }
        Err(GitError::Failed { what: what.to_owned(), told: last_words(&output.stderr, &output.stdout) })
    }

    pub(super) fn ssh(&self) -> Result<String, GitError> {
        let mut command = "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=30 \
             -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
            .to_owned();
        let mut option = |name: &str, path: &Path| {
            // ssh splits the value at white space and replaces what begins with `%`, and a shell reads all of it before.
            let value = path.display().to_string().replace('%', "%%");
            command.push_str(&format!(" -o '{name}=\"{}\"'", value.replace('\'', r"'\''")));
        };
        if let Some(file) = &self.source.known_hosts_file {
            option("UserKnownHostsFile", file);
            option("GlobalKnownHostsFile", Path::new("/dev/null"));
        }
        if let Some(file) = &self.source.ssh_key_file {
            // ssh would pass over a key that others can read, and ask the host in vain.
            drop(credential::read(file)?);
            option("IdentityFile", &credential::resolve(file)?);
            command.push_str(" -o IdentitiesOnly=yes");
        }
        Ok(command)
    }
}

/// An input that is there as a whole: nobody has to write it while the output is read.
fn given(input: &str) -> std::io::Result<Stdio> {
    if input.is_empty() {
        return Ok(Stdio::null());
    }
    let mut file = File::from(rustix::fs::memfd_create("input", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(input.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// Whether this answer of `git version` is that of one that will do.
pub(super) fn check_version(told: &str, verifies: bool) -> Result<(), GitError> {
    let found = told.trim().strip_prefix("git version ").unwrap_or(told).trim();
    let mut numbers = found.split(['.', ' ', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let needed = if verifies { OLDEST_VERIFIER } else { OLDEST };
    if version < needed {
        return Err(GitError::TooOld { found: found.chars().take(40).collect(), needed });
    }
    Ok(())
}

/// The line that says most: git's `fatal:` or `error:`, what ssh said before it, else the last one.
fn last_words(err: &[u8], out: &[u8]) -> String {
    let text = String::from_utf8_lossy(if err.is_empty() { out } else { err }).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let fatal = lines.iter().position(|line| line.starts_with("fatal:"));
    let line = match fatal {
        // git knows only that ssh has ended.
        Some(at) if lines.get(at).is_some_and(|line| line.contains("Could not read from remote")) => {
            at.checked_sub(1).and_then(|before| lines.get(before))
        }
        Some(at) => lines.get(at),
        None => lines.last(),
    };
    let line = line.copied().unwrap_or("git failed").trim_start_matches("fatal: ").trim_start_matches("error: ");
    let told: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
    if told.starts_with("Host key verification failed") {
        return format!("{told} The host does not have the key that `known_hosts_file` gives for it");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn what_says_most_is_told() {
        let check = |err: &str, want: &str| assert_eq!(last_words(err.as_bytes(), b"out"), want);
        check("remote: x\nfatal: repository 'u' not found\n", "repository 'u' not found");
        check("warning: x\nerror: bad signature\n", "bad signature");
        check("", "out");
        check("fatal: a\u{1b}[31mb\n", "a[31mb");
        let tail = "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access \
                    rights\nand the repository exists.\n";
        check(&format!("git@h: Permission denied (publickey).\n{tail}"), "git@h: Permission denied (publickey).");
        check(
            &format!("No key is known\nHost key verification failed.\n{tail}"),
            "Host key verification failed. The host does not have the key that `known_hosts_file` gives for it",
        );
        check(tail, "git failed");
    }
}
