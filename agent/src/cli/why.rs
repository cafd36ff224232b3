//! `mainstay why NAME`: the chain from cause to effect out of the journal, the last exit, the last log lines, and what
//! the workload waits for now. Works from disk while no agent runs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::client::Client;
use super::disk::{attempts, container_dir};
use super::logs::files::{Lines, newest, open_all};
use super::output::{CliError, Io, Outcome, clean, clean_lines};
use crate::config::Settings;
use crate::events::{Filter, Record};
use crate::status::{HeldStatus, Snapshot, WaitStatus, WorkloadStatus};

/// Lines of a log that are shown.
const LINES: usize = 5;

/// Causes behind causes that are shown.
const DEEPEST: usize = 4;

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    workload: String,
    phase: Option<String>,
    ready: Option<String>,
    held: Option<HeldStatus>,
    waiting: Vec<WaitStatus>,
    last_exit: Option<Record>,
    logs: Vec<Log>,
    /// Oldest first; `cause` of each leads to another one's `number`.
    events: Vec<Record>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Log {
    pod: String,
    container: String,
    attempt: u32,
    lines: Vec<String>,
}

pub(super) fn why(settings: &Settings, name: &str, tail: usize, io: &mut Io<'_>) -> Outcome {
    let snapshot = match Client::new(settings.socket()).get::<Snapshot>("/v1/status") {
        Ok(snapshot) => snapshot,
        Err(_) => super::disk::snapshot(&settings.data_dir)?,
    };
    let found = super::names::workload(&snapshot, name);
    let about = found.as_ref().map_or_else(|_| name.to_owned(), |workload| super::names::full(workload));
    let filter = Filter { about: Some(about.clone()), ..Filter::default() };
    let all = crate::events::read(&settings.events_dir(), &filter).map_err(|error| CliError::of(&error))?;
    let answer = match found {
        Ok(workload) => of(settings, workload, &all, tail),
        // What is gone has a past all the same.
        Err(_) if !all.is_empty() => {
            Answer { workload: about, events: shown(&all, tail), last_exit: last_exit(&all), ..Answer::default() }
        }
        Err(error) => return Err(error.into()),
    };
    if io.json {
        io.json(&answer)?;
    } else {
        show(&answer, io)?;
    }
    Ok(0)
}

fn of(settings: &Settings, workload: &WorkloadStatus, all: &[Record], tail: usize) -> Answer {
    let mut logs = Vec::new();
    for pod in &workload.pods {
        for container in pod.containers.iter().filter(|container| !container.init || container.exit_code.is_some()) {
            let dir = container_dir(&settings.data_dir, &pod.uid, &container.name);
            // An attempt that has just begun says little: the one before tells why it began.
            let Some((attempt, lines)) = attempts(&dir).into_iter().rev().find_map(|attempt| {
                let lines = last_lines(&dir.join(attempt.to_string()).join("log"));
                (!lines.is_empty()).then_some((attempt, lines))
            }) else {
                continue;
            };
            logs.push(Log { pod: pod.name.clone(), container: container.name.clone(), attempt, lines });
        }
    }
    Answer {
        workload: super::names::full(workload),
        phase: (!workload.phase.is_empty()).then(|| workload.phase.clone()),
        ready: (!workload.phase.is_empty()).then(|| format!("{}/{}", workload.ready, workload.desired)),
        held: workload.held.clone(),
        waiting: workload.waiting.clone(),
        last_exit: last_exit(all),
        logs,
        events: shown(all, tail),
    }
}

fn last_exit(all: &[Record]) -> Option<Record> {
    all.iter().rev().find(|record| is_exit(record)).cloned()
}

fn is_exit(record: &Record) -> bool {
    // The start after an exit has the exit as its reason; the exit itself names it in its message.
    record.event.reason == "oom_killed"
        || (record.event.reason == "exited" && record.event.message.starts_with("container "))
}

/// The newest events, and what they follow from.
fn shown(all: &[Record], tail: usize) -> Vec<Record> {
    let by_number: BTreeMap<u64, &Record> = all.iter().map(|record| (record.number, record)).collect();
    let mut wanted: BTreeMap<u64, &Record> = BTreeMap::new();
    for record in all.iter().rev().take(tail) {
        let mut next = Some(record);
        for _ in 0..=DEEPEST {
            let Some(record) = next else { break };
            wanted.insert(record.number, record);
            next = record.event.cause.and_then(|cause| by_number.get(&cause).copied());
        }
    }
    wanted.into_values().cloned().collect()
}

/// The last lines of a log in CRI format, without times and streams.
fn last_lines(log: &std::path::Path) -> Vec<String> {
    let files = open_all(log).and_then(|files| newest(files, LINES)).unwrap_or_default();
    let mut lines = Vec::new();
    for file in files {
        let mut reader = Lines::new(file);
        while let Ok(Some(line)) = reader.next() {
            let text = String::from_utf8_lossy(&line).into_owned();
            lines.push(text.splitn(4, ' ').nth(3).unwrap_or_default().to_owned());
        }
    }
    let skip = lines.len().saturating_sub(LINES);
    lines.split_off(skip)
}

fn show(answer: &Answer, io: &mut Io<'_>) -> std::io::Result<()> {
    let phase = answer.phase.as_deref().unwrap_or("not running here");
    let ready = answer.ready.as_ref().map(|ready| format!(", {ready} ready")).unwrap_or_default();
    writeln!(io.out, "{}: {phase}{ready}", clean(&answer.workload))?;
    if let Some(held) = &answer.held {
        writeln!(io.out, "held:      {}", clean_lines(&held.message))?;
    }
    if answer.waiting.is_empty() && answer.phase.is_some() {
        writeln!(io.out, "waits for: nothing")?;
    }
    for wait in &answer.waiting {
        writeln!(io.out, "waits for: {}", clean_lines(&wait.message))?;
    }
    if let Some(exit) = &answer.last_exit {
        writeln!(io.out, "last exit: {}: {}", moment(exit), clean_lines(&exit.event.message))?;
    }
    for log in &answer.logs {
        writeln!(io.out, "log of {} in {}, attempt {}:", clean(&log.container), clean(&log.pod), log.attempt)?;
        for line in &log.lines {
            writeln!(io.out, "    {}", clean(line))?;
        }
    }
    if !answer.events.is_empty() {
        writeln!(io.out, "what happened:")?;
    }
    let depths = depths(&answer.events);
    for record in &answer.events {
        let depth = depths.get(&record.number).copied().unwrap_or_default();
        let indent = "  ".repeat(depth);
        writeln!(
            io.out,
            "  {} {indent}{}: {}",
            moment(record),
            clean(&record.event.reason),
            clean(&record.event.message)
        )?;
    }
    Ok(())
}

/// How many causes each event has behind it.
fn depths(events: &[Record]) -> BTreeMap<u64, usize> {
    let mut depths = BTreeMap::new();
    for record in events {
        let above = record.event.cause.and_then(|cause| depths.get(&cause).copied());
        depths.insert(record.number, above.map_or(0, |depth: usize| (depth + 1).min(DEEPEST)));
    }
    depths
}

fn moment(record: &Record) -> String {
    let millis = u64::try_from(record.event.unix_millis).unwrap_or(0);
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis)).to_string()
}
