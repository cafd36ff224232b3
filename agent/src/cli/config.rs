//! `mainstay config`: effective settings and where each comes from.

use serde_json::{Value, json};

use super::output::{CliError, Io, Outcome, Table};
use crate::config::{ConfigError, Entry, Loaded, Problem};

pub(super) fn config(loaded: &Loaded, io: &mut Io<'_>) -> Outcome {
    let entries = loaded.entries();
    if io.json {
        let entry = |entry: &Entry| {
            (entry.key.name.to_owned(), json!({ "value": entry.value, "origin": entry.origin.to_string() }))
        };
        let settings: serde_json::Map<String, Value> = entries.iter().map(entry).collect();
        io.json(&json!({ "settings": settings, "files": loaded.files, "warnings": loaded.warnings }))?;
        return Ok(0);
    }
    let mut table = Table::new(&["SETTING", "VALUE", "ORIGIN"]);
    for entry in &entries {
        let value = match &entry.value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.row([entry.key.name.to_owned(), value, entry.origin.to_string()]);
    }
    table.write(io.out)?;
    for warning in &loaded.warnings {
        writeln!(io.err, "warning: {warning}")?;
    }
    Ok(0)
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
