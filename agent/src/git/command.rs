//! Runs the `git` program with an environment of its own: no user or system configuration, no prompt, no hook, only
//! the configured transport, and credentials for the configured host only.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::process::Command;

use crate::config::{GitSource, Transport};
use crate::credential;

/// A call of git that takes longer is given up. git itself gives up a transfer that stands still after 30 s.
const LIMIT: Duration = Duration::from_secs(300);

/// Variables of the agent that git may need to reach the network.
const PASSED_ON: &[&str] = &["PATH", "http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"];

/// What can go wrong with a repository.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The program is missing or cannot be run.
    #[error("cannot run `git`: install it on this host")]
    Run(#[source] std::io::Error),
    /// It took too long.
    #[error("`git {0}` did not end within {LIMIT:?}")]
    TooSlow(&'static str),
    /// It failed.
    #[error("cannot {what}: {told}")]
    Failed {
        /// What was being done.
        what: String,
        /// The last thing that git said.
        told: String,
    },
    /// A file with a credential cannot be read.
    #[error("cannot read `{path}`", path = path.display())]
    Credential {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// systemd has handed over no credentials.
    #[error(transparent)]
    NoCredentials(#[from] credential::CredentialError),
    /// The remote has nothing of that name.
    #[error("the remote has no branch or tag `{0}`")]
    NoReference(String),
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
}

impl<'a> Git<'a> {
    pub(super) fn new(source: &'a GitSource, home: &'a Path) -> Self {
        Self { source, home }
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
        ];
        let mut settings: Vec<(String, String)> =
            fixed.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        settings.push((format!("protocol.{}.allow", transport.word()), "always".to_owned()));
        if let Some(file) = &self.source.ca_file {
            settings.push(("http.sslCAInfo".to_owned(), file.display().to_string()));
        }
        if let Some(file) = &self.source.allowed_signers_file {
            settings.push(("gpg.ssh.allowedSignersFile".to_owned(), file.display().to_string()));
        }
        if let Some(path) = &self.source.token_file {
            let path = &credential::resolve(path)?;
            let token =
                std::fs::read_to_string(path).map_err(|source| GitError::Credential { path: path.clone(), source })?;
            let login = STANDARD.encode(format!("{}:{}", self.source.username, token.trim()));
            let host: Vec<&str> = self.source.url.splitn(4, '/').take(3).collect();
            settings.push((format!("http.{}/.extraHeader", host.join("/")), format!("Authorization: Basic {login}")));
        }
        Ok(settings)
    }

    /// Runs git; what it wrote to its output. `what` says what for, behind "cannot".
    pub(super) async fn run(&self, verb: &'static str, args: &[&str], what: &str) -> Result<String, GitError> {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(self.home.join("repository")).arg(verb).args(args);
        command.env_clear().current_dir(self.home);
        command.envs(PASSED_ON.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))));
        command.env("HOME", self.home).env("LC_ALL", "C");
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "true");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_INDEX_FILE", self.home.join("index"));
        if verb == "checkout-index" {
            command.env("GIT_WORK_TREE", self.work_tree());
        }
        let settings = self.settings()?;
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (key, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key).env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        if self.source.transport() == Transport::Ssh {
            command.env("GIT_SSH_COMMAND", self.ssh()?);
        }
        let command = command.stdin(Stdio::null()).kill_on_drop(true);
        let output = match tokio::time::timeout(LIMIT, command.output()).await {
            Ok(output) => output.map_err(GitError::Run)?,
            Err(_) => return Err(GitError::TooSlow(verb)),
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(GitError::Failed { what: what.to_owned(), told: last_words(&output.stderr, &output.stdout) })
    }

    fn ssh(&self) -> Result<String, GitError> {
        let mut command =
            "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=30".to_owned();
        let mut option = |name: &str, path: &Path| {
            // git gives this line to a shell.
            command.push_str(&format!(" -o {name}='{}'", path.display().to_string().replace('\'', r"'\''")));
        };
        if let Some(file) = &self.source.known_hosts_file {
            option("UserKnownHostsFile", file);
            option("GlobalKnownHostsFile", Path::new("/dev/null"));
        }
        if let Some(file) = &self.source.ssh_key_file {
            option("IdentityFile", &credential::resolve(file)?);
            command.push_str(" -o IdentitiesOnly=yes");
        }
        Ok(command)
    }
}

/// The line that says most: git's `fatal:` or `error:`, else the last one.
fn last_words(err: &[u8], out: &[u8]) -> String {
    let text = String::from_utf8_lossy(if err.is_empty() { out } else { err }).into_owned();
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find(|line| line.starts_with("fatal:")).or_else(|| lines().next_back()).unwrap_or("git failed");
    let line = line.trim_start_matches("fatal: ").trim_start_matches("error: ");
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}
