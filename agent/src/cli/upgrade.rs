//! `reload` and `upgrade`: ask the agent to take something new in, and watch that it does.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::client::Client;
use super::output::{CliError, Failed, Io, Outcome};
use crate::reload::{Verdict, backup_of};
use crate::status::Snapshot;

/// The agent that takes over lists what runs and answers within this.
const LIMIT: Duration = Duration::from_secs(60);

/// What an agent says about itself.
#[derive(Debug, Deserialize)]
struct Agent {
    version: String,
    /// Agents before 0.1 reloads did not know it.
    #[serde(default)]
    instance: String,
    #[serde(default)]
    exe: PathBuf,
}

/// Lets the agent take its configuration in anew.
pub(super) fn reload(client: &Client, io: &mut Io<'_>) -> Outcome {
    let before: Agent = client.get("/v1/version")?;
    let verdict = ask(client, None)?;
    let after = wait(client, &before).map_err(|_| late("the agent"))?;
    say(&verdict, &after, io)
}

/// Lets another binary take over, and takes the one before back when it does not come up.
pub(super) fn upgrade(client: &Client, binary: &Path, io: &mut Io<'_>) -> Outcome {
    let before: Agent = client.get("/v1/version")?;
    let binary = super::run::absolute(binary)?;
    let verdict = ask(client, Some(&binary))?;
    match wait(client, &before) {
        Ok(after) => say(&verdict, &after, io),
        Err(()) => {
            // It had said yes and does not answer. Whoever restarts the agent finds the one before in its place.
            let kept = backup_of(&before.exe);
            std::fs::rename(&kept, &before.exe).map_err(|error| {
                late("the new binary").hint(format!("put {} back by hand", kept.display())).cause(error)
            })?;
            let hint =
                "the binary before is in its place again; restart the agent, such as with `systemctl restart mainstay`";
            Err(late("the new binary").hint(hint).into())
        }
    }
}

fn late(who: &str) -> CliError {
    CliError::new(format!("{who} does not answer within {} s after it took over", LIMIT.as_secs()))
}

fn ask(client: &Client, binary: Option<&str>) -> Result<Verdict, Failed> {
    let answer = client.post("/v1/reload", &json!({ "binary": binary }))?;
    serde_json::from_value(answer)
        .map_err(|error| CliError::new("cannot understand the agent's answer").cause(error).into())
}

/// Waits until another agent answers whose loop goes round. It need not have read its sources: one of them may hang, and
/// did so before.
fn wait(client: &Client, before: &Agent) -> Result<Agent, ()> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        let client = client.until(deadline);
        let agent = client.get::<Agent>("/v1/version").ok().filter(|agent| agent.instance != before.instance);
        let goes_round = || match client.request("GET", "/v1/ping", None) {
            Ok(answer) if answer.status == 200 => true,
            // A version of before this question.
            Ok(_) => client.get::<Snapshot>("/v1/status").is_ok_and(|snapshot| snapshot.passes > 0),
            Err(_) => false,
        };
        if let Some(agent) = agent
            && goes_round()
        {
            return Ok(agent);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(())
}

fn say(verdict: &Verdict, after: &Agent, io: &mut Io<'_>) -> Outcome {
    if io.json {
        io.json(&json!({ "version": after.version, "changed": verdict.changed }))?;
    } else if verdict.changed.is_empty() {
        writeln!(io.err, "reloaded; version {}", after.version)?;
    } else {
        writeln!(io.err, "reloaded; version {}; changed: {}", after.version, verdict.changed.join(", "))?;
    }
    Ok(0)
}
