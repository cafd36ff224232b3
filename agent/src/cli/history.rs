//! `mainstay history` and `mainstay diff`: read from the data directory, with or without an agent.

use super::output::{CliError, Failed, Io, Outcome, Table, ago, clean};
use crate::config::Settings;
use crate::history::{Summary, compare, list, read};

pub(super) fn history(settings: &Settings, io: &mut Io<'_>) -> Outcome {
    let generations = list(&settings.data_dir);
    if io.json {
        io.json(&generations)?;
        return Ok(0);
    }
    if generations.is_empty() {
        writeln!(io.err, "no generations yet: the first is written when everything is as wished")?;
        return Ok(0);
    }
    let mut table = Table::new(&["GENERATION", "WHEN", "WORKLOADS", "REVISION", "CHANGES"]);
    for generation in &generations {
        let mut changes: Vec<String> = generation.changes.iter().take(2).map(|change| clean(change)).collect();
        let more = generation.changes.len().saturating_sub(changes.len());
        if more > 0 {
            changes.push(format!("and {more} more"));
        }
        table.row([
            generation.number.to_string(),
            ago(io.now, generation.unix),
            generation.workloads.len().to_string(),
            revisions(generation),
            changes.join("; "),
        ]);
    }
    table.write(io.out)?;
    Ok(0)
}

/// What people know of a commit or digest: its first digits. Which source each belongs to is in the JSON.
fn revisions(generation: &Summary) -> String {
    let short = |revision: &String| -> String {
        let digits = revision.strip_prefix("sha256:").unwrap_or(revision);
        clean(&digits.chars().take(12).collect::<String>())
    };
    let all: Vec<String> = generation.sources.values().map(short).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(",") }
}

pub(super) fn diff(settings: &Settings, from: u64, to: Option<u64>, io: &mut Io<'_>) -> Outcome {
    let newest = || list(&settings.data_dir).last().map(|generation| generation.number);
    let to = to.or_else(newest).ok_or_else(|| CliError::new("there are no generations yet"))?;
    let open = |number| {
        read(&settings.data_dir, number).map_err(|error| -> Failed {
            CliError::of(&error).hint("`mainstay history` lists them; run the command as root").into()
        })
    };
    let found = compare(Some(&open(from)?), &open(to)?);
    if io.json {
        io.json(&found)?;
        return Ok(u8::from(!found.is_empty()));
    }
    for difference in &found {
        writeln!(io.out, "{} {}", difference.kind, clean(&difference.object))?;
        for change in &difference.changes {
            writeln!(io.out, "    {}", clean(change))?;
        }
    }
    if found.is_empty() {
        writeln!(io.out, "no difference")?;
    }
    Ok(u8::from(!found.is_empty()))
}
