//! `mainstay events`: from the agent, or from the journal itself while the agent is not running.

use std::time::{Duration, SystemTime};

use super::client::Client;
use super::moment::Moment;
use super::output::{CliError, Failed, Io, Outcome, clean};
use crate::config::Settings;
use crate::events::{EventKind, Filter, Record};

/// What was asked for.
pub(super) struct Wanted {
    pub(super) follow: bool,
    pub(super) about: Option<String>,
    pub(super) tail: usize,
    pub(super) since: Option<Moment>,
    pub(super) warnings: bool,
}

pub(super) fn events(settings: &Settings, wanted: &Wanted, io: &mut Io<'_>) -> Outcome {
    let now = Duration::from_secs(u64::try_from(io.now).unwrap_or(0));
    let since = wanted.since.and_then(|since| {
        let since = since.at(now).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).ok()
    });
    let filter = Filter {
        limit: Some(wanted.tail),
        kind: wanted.warnings.then_some(EventKind::Warning),
        about: wanted.about.clone(),
        since,
    };
    if wanted.follow {
        return follow(&Client::new(settings.socket()), &filter, io);
    }
    // The journal is a file: it can be read whether the agent runs or not, by whoever may read it.
    let records = crate::events::read(&settings.events_dir(), &filter).map_err(|error| CliError::of(&error))?;
    if io.json {
        io.json(&records)?;
        return Ok(0);
    }
    for record in &records {
        show(record, io)?;
    }
    if records.is_empty() {
        writeln!(io.err, "no events")?;
    }
    Ok(0)
}

/// How long after the agent went away it is looked for again.
const AGAIN: Duration = Duration::from_millis(250);

/// Events as they come. An agent that goes away (an upgrade, a restart) is waited for, and nothing is told twice or left
/// out: the numbers of events go on.
fn follow(client: &Client, filter: &Filter, io: &mut Io<'_>) -> Outcome {
    let mut filter = filter.clone();
    let mut last: Option<u64> = None;
    let mut told_away = false;
    follow_once(client, &filter, &mut last, io)?;
    // All that is kept is asked for; what was shown is left out below.
    filter.limit = None;
    if last.is_none() {
        filter.since = filter.since.max(io.now.checked_mul(1000));
    }
    loop {
        match follow_once(client, &filter, &mut last, io) {
            Ok(()) => told_away = false,
            Err(Failed::Output(error)) => return Err(Failed::Output(error)),
            Err(_) if told_away => {}
            Err(_) => {
                writeln!(io.err, "the agent is away; waiting for it")?;
                io.err.flush()?;
                told_away = true;
            }
        }
        std::thread::sleep(AGAIN);
    }
}

/// Events of one connection, without those up to `last`.
fn follow_once(client: &Client, filter: &Filter, last: &mut Option<u64>, io: &mut Io<'_>) -> Result<(), Failed> {
    let mut path = format!("/v1/events?follow=true&limit={}", filter.limit.unwrap_or(usize::MAX));
    if filter.kind.is_some() {
        path.push_str("&kind=Warning");
    }
    if let Some(about) = &filter.about {
        path.push_str("&about=");
        path.push_str(&escape(about));
    }
    if let Some(since) = filter.since {
        path.push_str(&format!("&since={since}"));
    }
    let mut failed: Option<std::io::Error> = None;
    client.lines(&path, &mut |line| {
        let written = match serde_json::from_slice::<Record>(line) {
            Ok(record) if last.is_some_and(|last| record.number <= last) => Ok(()),
            Ok(record) => {
                *last = Some(record.number);
                if io.json { io.out.write_all(line) } else { show(&record, io) }
            }
            Err(error) => Err(error.into()),
        };
        match written.and_then(|()| io.out.flush()) {
            Ok(()) => true,
            Err(error) => {
                failed = Some(error);
                false
            }
        }
    })?;
    failed.map_or(Ok(()), |error| Err(Failed::Output(error)))
}

/// For a query.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn show(record: &Record, io: &mut Io<'_>) -> std::io::Result<()> {
    let event = &record.event;
    let millis = u64::try_from(event.unix_millis).unwrap_or(0);
    let time = std::time::UNIX_EPOCH + Duration::from_millis(millis);
    let word = match event.kind {
        EventKind::Normal => "normal ",
        EventKind::Warning => "warning",
    };
    let word = match (io.color, event.kind) {
        (true, EventKind::Warning) => format!("\u{1b}[1;33m{word}\u{1b}[0m"),
        (true, EventKind::Normal) | (false, _) => word.to_owned(),
    };
    let about = [event.workload.as_deref(), event.pod.as_deref(), event.container.as_deref()];
    let about: Vec<&str> = about.into_iter().flatten().collect();
    let about = if about.is_empty() { "node".to_owned() } else { about.join(" ") };
    writeln!(
        io.out,
        "{} {word} {} {}: {}",
        humantime::format_rfc3339_seconds(time),
        clean(&event.reason),
        clean(&about),
        clean(&event.message)
    )
}
