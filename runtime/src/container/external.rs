//! Another OCI runtime: a program with the command line of runc, which crun, runsc and others share
//! (`--root`, `--log`, `create`, `start`, `exec`, `kill`, `delete`).
//!
//! Its state lies in the run directory of the attempt, so it knows of that one container alone and goes with it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use crate::exec::launch::DEFAULT_PATH;
use crate::sys;

/// How long one call may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A runtime of the configuration (`[runtimes.NAME]`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// What pods call it.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Before its own arguments and the verb, such as `--platform=kvm`.
    pub args: Vec<String>,
}

impl Program {
    /// Why it cannot be run; `None` when it can, as far as that is to be seen.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let why = match fs::metadata(&self.path) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => return None,
            Ok(_) => "it is no program".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => "it is not there".to_owned(),
            Err(error) => error.to_string(),
        };
        Some(format!("cannot use the program {} of runtime `{}`: {why}", self.path.display(), self.name))
    }
}

/// One container of such a runtime.
#[derive(Debug, Clone, Copy)]
pub(crate) struct External<'a> {
    pub(crate) program: &'a Program,
    /// Run directory of the attempt.
    pub(crate) dir: &'a Path,
    /// Id of the attempt.
    pub(crate) id: &'a str,
}

impl External<'_> {
    /// Runs `VERB ARGS ID [MORE]` and waits for its end; why it failed is what it logged.
    pub(crate) fn call(&self, verb: &str, args: &[OsString], more: &[&str], streams: [Stdio; 3]) -> Result<(), String> {
        let name = &self.program.name;
        // One of its own for each call: a signal may be sent while a command is run.
        let log = self.dir.join(format!("runtime-{}-{verb}.log", std::process::id()));
        let [stdin, stdout, stderr] = streams;
        let mut command = Command::new(&self.program.path);
        let child = sys::with_clean_start(&mut command)
            .args(&self.program.args)
            .arg("--root")
            .arg(self.dir.join("state"))
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json", verb])
            .args(args)
            .arg(self.id)
            .args(more)
            .current_dir("/")
            .env_clear()
            .env("PATH", DEFAULT_PATH)
            // Some keep files of their own below it.
            .env("XDG_RUNTIME_DIR", self.dir)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn();
        let mut child = child
            .map_err(|error| format!("cannot run {} of runtime `{name}`: {error}", self.program.path.display()))?;
        let status = wait(&mut child);
        let said = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        match status {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(match fault(&said) {
                Some(message) => format!("runtime `{name}`: {message}"),
                None => format!("runtime `{name}` could not `{verb}`: {status}"),
            }),
            Ok(None) => Err(format!("runtime `{name}` did not end `{verb}` within {LIMIT:?}")),
            Err(error) => Err(format!("cannot wait for runtime `{name}`: {error}")),
        }
    }

    /// Has it forget the container, whose processes are gone. Nothing is done a second time.
    pub(crate) fn delete(&self) {
        let state = self.dir.join("state");
        if state.exists() {
            // It may know of nothing, when it failed early.
            let _ = self.quiet("delete", &["--force"], &[]);
            let _ = fs::remove_dir_all(state);
        }
    }

    /// [`Self::call`] without streams.
    pub(crate) fn quiet(&self, verb: &str, args: &[&str], more: &[&str]) -> Result<(), String> {
        let args: Vec<OsString> = args.iter().map(Into::into).collect();
        self.call(verb, &args, more, [Stdio::null(), Stdio::null(), Stdio::null()])
    }
}

/// Waits for a program, and ends it when it takes too long.
fn wait(child: &mut Child) -> io::Result<Option<std::process::ExitStatus>> {
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).ok_or(io::ErrorKind::InvalidData)?;
    let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let limit = rustix::time::Timespec { tv_sec: LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            _ => return child.wait().map(Some),
        }
    }
}

/// The last error of a log in lines of JSON, as runc writes it.
fn fault(log: &str) -> Option<String> {
    let error = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let bad = matches!(line.get("level")?.as_str()?, "error" | "fatal");
        bad.then(|| line.get("msg")?.as_str().map(str::to_owned))?
    };
    log.lines().rev().find_map(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_told() {
        let log = "{\"level\":\"warning\",\"msg\":\"old\"}\n{\"level\":\"error\",\"msg\":\"no such file\"}\nnoise\n\
                   {\"level\":\"debug\",\"msg\":\"later\"}\n";
        assert_eq!(fault(log).as_deref(), Some("no such file"));
        assert_eq!(fault(""), None);
    }

    #[test]
    fn a_call_tells_why_it_failed_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let script = dir.path().join("fake");
        let text = "#!/bin/sh\nwhile [ \"$1\" != --log ]; do shift; done\n\
                    [ \"$5\" = start ] && exit 0\n\
                    [ \"$5\" = kill ] && exit 3\n\
                    echo '{\"level\":\"error\",\"msg\":\"broken '\"$6 $7\"'\"}' >\"$2\"; exit 1\n";
        fs::write(&script, text).expect("written");
        let mut program = Program { name: "fake".to_owned(), path: script.clone(), args: vec!["--debug".to_owned()] };
        assert!(program.fault().is_some_and(|why| why.contains("no program")));
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("set");
        assert_eq!(program.fault(), None);
        let external = External { program: &program, dir: dir.path(), id: "id-1" };
        assert_eq!(external.quiet("start", &[], &[]), Ok(()));
        assert_eq!(external.quiet("delete", &["--force"], &[]), Err("runtime `fake`: broken --force id-1".to_owned()));
        let other = external.quiet("kill", &[], &["9"]).expect_err("it fails");
        assert!(other.contains("could not `kill`"), "{other}");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1, "only the script is there");
        program.path = dir.path().join("missing");
        assert!(program.fault().is_some_and(|why| why.contains("not there")));
    }
}
