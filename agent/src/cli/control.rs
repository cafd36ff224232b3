//! Commands that the loop carries out: `down`, `retry`, `approve`; and `plan` of a running agent.

use std::io::{BufRead as _, IsTerminal as _};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::Client;
use super::output::{CliError, Failed, Io, Outcome, clean};
use crate::config::Settings;
use crate::status::{Snapshot, StepStatus};

/// Stops everything that the agent manages; volumes stay. Works without an agent, too.
pub(super) fn down(settings: &Settings, yes: bool, io: &mut Io<'_>) -> Outcome {
    let client = Client::new(settings.socket());
    let running = client.get::<Snapshot>("/v1/status");
    let snapshot = match &running {
        Ok(snapshot) => snapshot.clone(),
        Err(_) => super::disk::snapshot(&settings.data_dir)?,
    };
    let pods: usize = snapshot.workloads.iter().map(|workload| workload.pods.len()).sum();
    let what = format!("{} of {}", count(pods, "pod"), count(snapshot.workloads.len(), "workload"));
    if !yes && pods > 0 && !confirmed(&what, io)? {
        return Ok(1);
    }
    match running {
        Ok(_) => drop(client.post("/v1/down", &json!({}))?),
        Err(_) => alone(settings)?,
    }
    if io.json {
        io.json(&json!({ "down": true, "pods": pods }))?;
    } else {
        writeln!(io.err, "stopped {what}; volumes stay")?;
    }
    Ok(0)
}

fn confirmed(what: &str, io: &mut Io<'_>) -> Result<bool, Failed> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::new(format!("not stopping {what} without a yes"))
            .hint("say it with `mainstay down -y`")
            .into());
    }
    write!(io.err, "Stop {what} and end the agent? Volumes stay. [y/N] ")?;
    io.err.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Does the agent's work without it: its locks make sure that it does not run.
fn alone(settings: &Settings) -> Result<(), CliError> {
    let told = |error: &crate::run::RunError| CliError { hint: error.hint().map(str::to_owned), ..CliError::of(error) };
    let options = crate::run::options(settings, true).map_err(|error| told(&error))?;
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let threads = threads.map_err(|error| CliError::new("cannot start threads").cause(error))?;
    threads.block_on(async {
        let runtime = runtime::Embedded::open(options).map_err(|error| told(&error.into()))?;
        let clock = std::sync::Arc::new(crate::clock::HostClock);
        let executor = crate::run::executor(settings, std::sync::Arc::new(runtime), clock);
        let failed = |cause: String| {
            CliError::new("cannot stop everything")
                .cause(cause)
                .hint("run `mainstay down` again: it goes on where it ended")
        };
        executor.down().await.map_err(failed)
    })
}

/// Has the sources read without waiting for their time.
pub(super) fn sync(client: &Client, io: &mut Io<'_>) -> Outcome {
    client.post("/v1/sync", &json!({}))?;
    writeln!(io.err, "reading all sources")?;
    Ok(0)
}

/// Tries again what failed, without waiting.
pub(super) fn retry(client: &Client, name: &str, io: &mut Io<'_>) -> Outcome {
    let snapshot: Snapshot = client.get("/v1/status")?;
    let id = super::names::full(super::names::workload(&snapshot, name)?);
    client.post("/v1/retry", &json!({ "workload": id }))?;
    writeln!(io.err, "trying {id} again")?;
    Ok(0)
}

/// Releases a held removal.
pub(super) fn approve(client: &Client, id: &str, io: &mut Io<'_>) -> Outcome {
    client.post("/v1/approve", &json!({ "id": id }))?;
    writeln!(io.err, "approved {id}")?;
    Ok(0)
}

#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    converged: bool,
    steps: Vec<StepStatus>,
}

/// What a running agent is about to do; 1 when there is something.
pub(super) fn plan(client: &Client, io: &mut Io<'_>) -> Outcome {
    let plan: Plan = client.get("/v1/plan")?;
    let code = u8::from(!plan.steps.is_empty());
    if io.json {
        io.json(&plan)?;
        return Ok(code);
    }
    if plan.steps.is_empty() {
        let text = if plan.converged { "nothing to do" } else { "nothing to do now; something is waited for" };
        writeln!(io.out, "{text}")?;
    }
    for step in &plan.steps {
        write_step(step, io)?;
    }
    Ok(code)
}

pub(super) fn write_step(step: &StepStatus, io: &mut Io<'_>) -> std::io::Result<()> {
    let about = step.workload.as_deref().unwrap_or("node");
    writeln!(io.out, "{} {about} ({})", step.action, step.reason)?;
    for change in &step.changes {
        writeln!(io.out, "    {}", clean(change))?;
    }
    Ok(())
}

/// `1 pod`, `2 pods`.
pub(super) fn count(number: usize, word: &str) -> String {
    format!("{number} {}", plural(number, word))
}

fn plural(number: usize, word: &str) -> String {
    if number == 1 { word.to_owned() } else { format!("{word}s") }
}
