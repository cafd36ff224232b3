//! A new configuration or a new binary takes over from a running agent.
//!
//! There is one way for both. The binary that would run next is asked with `run --check`, under the arguments and the
//! environment of this agent, whether it could work: it reads the configuration and every record of a pod and changes
//! nothing. Only then what is in hand is let end for a moment, and the process executes that binary in place: same
//! process id, same service, and no container notices, since the agent's end is never a workload's end. Whatever is
//! wrong is said, and this agent goes on as it is.
//!
//! Owns the question, the verdict and the switch of the file. It decides nothing about workloads.

mod check;
mod inherited;
mod records;
mod replace;
mod watch;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

pub(crate) use check::shown;
pub use check::{Answer, CheckError, ask, check};
pub use inherited::reap as reap_inherited;
pub use records::Newer;
pub(crate) use records::check as check_records;
pub use replace::{Backup, ReplaceError, backup_of, replace};
pub use watch::{Watching, watch};

/// Settings that name where things are. Containers of the old place would be out of reach, so they change only
/// between `mainstay down` and the next start.
pub const FIXED: [&str; 5] = ["data_dir", "run_dir", "cgroup_parent", "bridge", "subnet"];

/// How this process was started, and how it is started again.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The binary's path when it started: what was put there since is what runs next.
    pub exe: PathBuf,
    /// Its arguments, the name first.
    pub args: Vec<OsString>,
}

impl Invocation {
    /// Of this process.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn of_process() -> std::io::Result<Self> {
        Ok(Self { exe: std::env::current_exe()?, args: std::env::args_os().collect() })
    }

    /// The arguments that ask the same question as `run` without running: `--check` is put right behind `run`.
    #[must_use]
    pub fn check_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = self.args.iter().skip(1).cloned().collect();
        let at = args.iter().position(|arg| arg == "run").map_or(0, |at| at + 1);
        args.splice(at..at, ["--check", "--output", "json"].map(OsString::from));
        args
    }

    /// Becomes that binary. Returns only when it cannot; the program that runs now is tried as well, since it is
    /// there even when its file is gone.
    #[must_use]
    pub fn execute(&self) -> std::io::Error {
        use std::os::unix::process::CommandExt as _;
        let mut first = None;
        for program in [self.exe.as_path(), Path::new("/proc/self/exe")] {
            let mut command = std::process::Command::new(program);
            let mut args = self.args.iter();
            if let Some(name) = args.next() {
                command.arg0(name);
            }
            let error = command.args(args).exec();
            tracing::error!(program = %program.display(), %error, "cannot execute");
            first.get_or_insert(error);
        }
        first.unwrap_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether the agent executes itself anew; false when a file changed that changes no setting.
    pub reloading: bool,
    /// Version that takes over.
    pub version: String,
    /// Settings that change.
    pub changed: Vec<String>,
}

/// Why nothing changes.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// What would run next says no, or nothing.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A setting that cannot change now.
    #[error("cannot change {} while containers may run", .0.join(", "))]
    Fixed(Vec<String>),
    /// An address that the next agent would serve on is in use, or none of this host.
    #[error("cannot serve `{setting}` on {address}")]
    Address {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The new binary cannot be put in place.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
}

impl Refusal {
    /// What the reader can do.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Fixed(_) => Some("run `mainstay down`, change it, and start the agent again"),
            Self::Check(CheckError::Newer(_)) => Some(Newer::HINT),
            Self::Address { .. } => Some("choose another one, or end what uses it"),
            Self::Check(_) | Self::Replace(_) => None,
        }
    }
}

/// One who wants the agent to take something new in.
#[derive(Debug)]
pub struct Request {
    /// A binary that is to take over; without one, what is in this agent's place now.
    pub binary: Option<PathBuf>,
    /// Also when no setting changes.
    pub always: bool,
    /// Told the verdict.
    pub reply: Option<oneshot::Sender<Result<Verdict, Refusal>>>,
}

/// How requests are made, and by what an agent is told from the one that takes over.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Takes requests.
    pub requests: mpsc::UnboundedSender<Request>,
    /// Differs from one agent to the next, also in the same process.
    pub instance: Arc<str>,
    /// The binary's path.
    pub exe: PathBuf,
}

/// Settings that differ between what this agent has and what the next one would have.
fn changes(now: &Map<String, Value>, next: &Map<String, Value>) -> Vec<String> {
    let names = now.keys().chain(next.keys().filter(|name| !now.contains_key(*name)));
    // A setting that only one of two versions knows is no change that anybody made.
    names.filter(|name| now.get(*name).zip(next.get(*name)).is_some_and(|(a, b)| a != b)).cloned().collect()
}

/// Where an agent with these settings serves on TCP.
fn addresses(settings: &Map<String, Value>) -> impl Iterator<Item = (&'static str, SocketAddr)> {
    let hook = settings.get("sync_hook").and_then(|hook| hook.get("listen"));
    [("metrics_listen", settings.get("metrics_listen")), ("sync_hook", hook)]
        .into_iter()
        .filter_map(|(setting, address)| Some((setting, address?.as_str()?.parse().ok()?)))
}

/// The verdict over an answer.
fn judge(now: &Map<String, Value>, answer: &Answer, always: bool) -> Result<Verdict, Refusal> {
    let changed = changes(now, &answer.settings);
    let fixed: Vec<String> = changed.iter().filter(|name| FIXED.contains(&name.as_str())).cloned().collect();
    if !fixed.is_empty() {
        return Err(Refusal::Fixed(fixed));
    }
    for (setting, address) in addresses(&answer.settings) {
        // This agent's own is free once it has ended, and so is another one with the same port.
        if addresses(now).any(|(_, other)| other.port() == address.port()) {
            continue;
        }
        std::net::TcpListener::bind(address).map_err(|source| Refusal::Address { setting, address, source })?;
    }
    Ok(Verdict { reloading: always || !changed.is_empty(), version: answer.version.clone(), changed })
}

/// Answers requests until one is to be carried out; then the agent ends and [`Invocation::execute`] follows.
///
/// `told` hears every verdict and every refusal.
pub async fn decide(
    invocation: &Invocation,
    now: &Map<String, Value>,
    requests: &mut mpsc::UnboundedReceiver<Request>,
    told: impl Fn(Result<&Verdict, &Refusal>),
) {
    while let Some(request) = requests.recv().await {
        let verdict = one(invocation, now, &request).await;
        told(verdict.as_ref());
        let go = verdict.as_ref().is_ok_and(|verdict| verdict.reloading);
        if let Some(reply) = request.reply {
            // Whoever asked may be gone: that changes nothing.
            let _ = reply.send(verdict);
        }
        if go {
            return;
        }
    }
    std::future::pending().await
}

async fn one(invocation: &Invocation, now: &Map<String, Value>, request: &Request) -> Result<Verdict, Refusal> {
    let Some(binary) = &request.binary else {
        return judge(now, &ask(&invocation.exe, &invocation.check_args()).await?, request.always);
    };
    let draft = replace::draft(binary, &invocation.exe)?;
    // The copy is asked, not what it was copied from: exactly those bytes will run.
    let verdict = match ask(draft.path(), &invocation.check_args()).await {
        Ok(answer) => judge(now, &answer, true)?,
        Err(error) => return Err(error.into()),
    };
    replace(draft, &invocation.exe)?;
    Ok(verdict)
}

#[cfg(test)]
mod tests;
