//! `mainstay config`: effective settings and where each comes from.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::client::Client;
use super::output::{CliError, Io, Outcome, Table};
use crate::config::{ConfigError, Entry, Loaded, Problem};

/// An agent that does not answer by then is not asked: the command is for one that does not come up, too.
const LIMIT: Duration = Duration::from_secs(2);

pub(super) fn config(loaded: &Loaded, io: &mut Io<'_>) -> Outcome {
    let entries = loaded.entries();
    // The unit's environment and arguments are not those of this command.
    let agent: Map<String, Value> =
        Client::new(loaded.settings.socket()).until(Instant::now() + LIMIT).get("/v1/config").unwrap_or_default();
    let of_agent = |entry: &Entry| agent.get(entry.key.name).filter(|value| **value != entry.value);
    if io.json {
        let entry = |entry: &Entry| {
            let mut shown = json!({ "value": entry.value, "origin": entry.origin.to_string() });
            if let Some(value) = of_agent(entry) {
                shown["agent"] = value.clone();
            }
            (entry.key.name.to_owned(), shown)
        };
        let settings: serde_json::Map<String, Value> = entries.iter().map(entry).collect();
        io.json(&json!({ "settings": settings, "files": loaded.files, "warnings": loaded.warnings }))?;
        return Ok(0);
    }
    let mut table = Table::new(&["SETTING", "VALUE", "ORIGIN"]);
    for entry in &entries {
        table.row([entry.key.name.to_owned(), plain(&entry.value), entry.origin.to_string()]);
    }
    table.write(io.out)?;
    for (entry, value) in entries.iter().filter_map(|entry| Some((entry, of_agent(entry)?))) {
        writeln!(io.err, "note: the agent that runs has {} = {}", entry.key.name, super::output::clean(&plain(value)))?;
    }
    for warning in &loaded.warnings {
        writeln!(io.err, "warning: {warning}")?;
    }
    Ok(0)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Everything that is wrong with the configuration, the first problem as the error itself.
pub(super) fn refused(error: &ConfigError) -> CliError {
    let mut told = CliError::new("cannot use the configuration");
    for problem in &error.problems {
        told.causes.push(describe(problem));
    }
    told.hint("`mainstay config` lists every setting and where it comes from")
}

/// A problem with the line it is in and a caret under it.
fn describe(problem: &Problem) -> String {
    let mut text = problem.message.clone();
    if let Some(place) = &problem.place {
        let number = place.line.to_string();
        let pad = " ".repeat(number.len());
        let before: String =
            place.text.chars().take(place.column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
        text.push_str(&format!(
            "\n  {pad}--> {}:{}:{}\n  {pad} |\n  {number} | {}\n  {pad} | {before}^",
            place.file.display(),
            place.line,
            place.column,
            super::output::clean(&place.text),
        ));
    }
    if let Some(hint) = &problem.hint {
        text.push_str(&format!("\n  help: {hint}"));
    }
    text
}
