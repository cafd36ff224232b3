//! `run --check`: both sides of the question whether a binary could work here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use spec::observed::PodRecord;

use super::records;
use crate::config::{KEYS, Settings};
use crate::run::RunError;

/// A check that takes longer is a no.
const LIMIT: Duration = Duration::from_secs(30);

/// What a binary says about itself and this host. Unknown keys are ignored: the other one may be newer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Its version.
    pub version: String,
    /// The settings that it would have, by name.
    pub settings: Map<String, Value>,
    /// Records of pods that it understands.
    pub pods: usize,
}

/// Why a binary cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It cannot be started.
    #[error("cannot run {}", path.display())]
    Spawn {
        /// The binary.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It takes too long.
    #[error("{} did not answer within {} s", .0.display(), LIMIT.as_secs())]
    Slow(PathBuf),
    /// It says no.
    #[error("{text}")]
    Refused {
        /// What it said.
        text: String,
    },
    /// It says something else.
    #[error("{} is no mainstay that can be asked: {said}", path.display())]
    Strange {
        /// The binary.
        path: PathBuf,
        /// What it said instead.
        said: String,
    },
    /// A record is not understood.
    #[error("cannot read the record {}", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A newer version has been here.
    #[error(transparent)]
    Newer(#[from] records::Newer),
    /// Something that the agent cannot do without.
    #[error(transparent)]
    Run(#[from] Box<RunError>),
}

/// Looks whether an agent with these settings could work here. Reads only.
///
/// # Errors
/// The first thing that it would end with, or a record of a pod that it does not understand.
pub fn check(settings: &Settings) -> Result<Answer, CheckError> {
    // What only the runtime can judge: registries, the subnet.
    crate::run::options(settings, false).map_err(Box::new)?;
    let mut answer = Answer { version: env!("CARGO_PKG_VERSION").to_owned(), settings: shown(settings), pods: 0 };
    records::check(&settings.data_dir)?;
    let dir = settings.data_dir.join("pods");
    for path in records::below(&dir, "*/pod.json").map_err(|source| CheckError::Record { path: dir, source })? {
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // A pod that is being made or removed has none yet, or no more.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(CheckError::Record { path, source }),
        };
        serde_json::from_slice::<PodRecord>(&bytes)
            .map_err(|error| CheckError::Record { path, source: error.into() })?;
        answer.pods += 1;
    }
    Ok(answer)
}

/// Every setting by name.
pub(crate) fn shown(settings: &Settings) -> Map<String, Value> {
    KEYS.iter().map(|key| (key.name.to_owned(), key.value(settings))).collect()
}

/// Asks a binary.
///
/// # Errors
/// It cannot be asked, or says no.
pub async fn ask(binary: &Path, args: &[OsString]) -> Result<Answer, CheckError> {
    let path = || binary.to_owned();
    let mut command = tokio::process::Command::new(binary);
    // It must not speak to the service manager in this agent's name.
    command.args(args).env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env("NO_COLOR", "1");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.map_err(|_| CheckError::Slow(path()))?;
    let output = output.map_err(|source| CheckError::Spawn { path: path(), source })?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        let text = if said.is_empty() { format!("{} ended with {}", binary.display(), output.status) } else { said };
        // The word is said again by whoever shows this.
        let text = text.strip_prefix("error: ").map_or(text.clone(), str::to_owned);
        return Err(CheckError::Refused { text });
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| CheckError::Strange { path: path(), said: error.to_string() })
}
