//! `mainstay exec`: runs a program in a container that runs. It ends with the program's own exit code.

use std::fs::File;
use std::process::Stdio;

use runtime::container::Env;
use runtime::embedded::{Attempt, Layout};
use runtime::exec::{ExecRequest, spawn};
use spec::observed::PodUid;

use super::client::Client;
use super::output::{CliError, Failed, Io, Outcome};
use crate::config::Settings;
use crate::status::Snapshot;

/// What to run, and how.
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) stdin: bool,
    pub(super) tty: bool,
    pub(super) user: Option<String>,
    pub(super) workdir: Option<String>,
    pub(super) env: Vec<String>,
    pub(super) privileged: bool,
    pub(super) command: Vec<String>,
}

/// A container that runs, and where its shim is.
pub(super) struct Running {
    pub(super) attempt: Attempt,
    pub(super) uid: PodUid,
    pub(super) pod: String,
    pub(super) container: String,
}

impl Running {
    /// An error about this container.
    pub(super) fn failed(&self, error: &dyn std::error::Error) -> CliError {
        let told = CliError::of(error).place(format!("container `{}` of pod `{}`", self.container, self.pod));
        if nix::unistd::geteuid().is_root() { told } else { told.hint("run the command as root, such as with sudo") }
    }
}

/// Where the agent of these settings keeps everything.
pub(super) fn layout(settings: &Settings) -> Layout {
    Layout { data: settings.data_dir.clone(), run: settings.run_dir.clone(), cgroup: settings.cgroup_parent.clone() }
}

/// Finds the container that a name means, and that it runs.
pub(super) fn running(settings: &Settings, name: &str, io: &mut Io<'_>) -> Result<Running, Failed> {
    let client = Client::new(settings.socket());
    // Containers run on without their agent, so they can be entered without it.
    let snapshot: Snapshot = match client.get("/v1/status") {
        Ok(snapshot) => snapshot,
        Err(error) => match super::disk::snapshot(&settings.data_dir)? {
            snapshot if snapshot.workloads.is_empty() => return Err(error.into()),
            snapshot => snapshot,
        },
    };
    let target = super::names::resolve(&snapshot, name)?;
    if let Some(remark) = target.remark() {
        writeln!(io.err, "{remark}")?;
    }
    let layout = layout(settings);
    let (uid, container) = (PodUid(target.pod.uid.clone()), &target.container.name);
    let newest = super::disk::attempts(&layout.container(&uid, container)).last().copied();
    let attempt = newest.map(|number| layout.attempt(&uid, container, number));
    let Some(attempt) = attempt.filter(|attempt| !attempt.exit_file().exists()) else {
        return Err(CliError::new(format!("container `{container}` of pod `{}` does not run", target.pod.name))
            .hint(format!("`mainstay status {}` says why", super::names::full(target.workload)))
            .into());
    };
    Ok(Running { attempt, uid, pod: target.pod.name.clone(), container: container.clone() })
}

pub(super) fn exec(settings: &Settings, wanted: Wanted, io: &mut Io<'_>) -> Outcome {
    let container = running(settings, &wanted.name, io)?;
    let mut env = Vec::new();
    for pair in &wanted.env {
        match pair.split_once('=') {
            Some((name, value)) => env.push((name.to_owned(), value.to_owned())),
            // What is not set here is not set there (docker exec).
            None => env.extend(std::env::var(pair).map(|value| (pair.clone(), value))),
        }
    }
    let request = ExecRequest {
        args: wanted.command,
        env: Env(env),
        cwd: wanted.workdir,
        user: wanted.user,
        tty: wanted.tty,
        privileged: wanted.privileged,
    };
    io.err.flush()?;
    let program = File::open("/proc/self/exe").map_err(|error| container.failed(&error))?;
    let stdin = if wanted.stdin { Stdio::inherit() } else { Stdio::null() };
    let process = spawn(&container.attempt.run, &request, [stdin, Stdio::inherit(), Stdio::inherit()], &program);
    let code = process.and_then(|mut process| process.wait()).map_err(|error| container.failed(&error))?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
