//! `mainstay logs`: reads the log files of containers themselves, so it works while the agent does not run.

mod cri;
pub(super) mod files;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::json;

use spec::observed::PodUid;

use super::client::Client;
use super::moment::Moment;
use super::output::{CliError, Failed, Io, Outcome};
use crate::config::Settings;
use crate::status::Snapshot;
use cri::{Entry, Joiner};
use files::Lines;

/// A follower that sees nothing looks after this time whether the container is still there, in milliseconds.
const LOOK: u16 = 1000;

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) follow: bool,
    pub(super) tail: Option<usize>,
    pub(super) since: Option<Moment>,
    pub(super) until: Option<Moment>,
    pub(super) previous: bool,
    pub(super) timestamps: bool,
}

pub(super) fn logs(settings: &Settings, wanted: &Wanted, io: &mut Io<'_>) -> Outcome {
    let client = Client::new(settings.socket());
    // Without an agent the records on disk say which pods there are.
    let snapshot: Snapshot = match client.get("/v1/status") {
        Ok(snapshot) => snapshot,
        Err(error) => match super::disk::snapshot(&settings.data_dir)? {
            snapshot if snapshot.workloads.is_empty() => return Err(error.into()),
            snapshot => snapshot,
        },
    };
    let target = super::names::resolve(&snapshot, &wanted.name)?;
    if let Some(remark) = target.remark() {
        writeln!(io.err, "{remark}")?;
    }
    let container = super::disk::container_dir(&settings.data_dir, &target.pod.uid, &target.container.name);
    let attempts = super::disk::attempts(&container);
    let layout = super::exec::layout(settings);
    let over = |attempt: &&u32| {
        let uid = PodUid(target.pod.uid.clone());
        !wanted.previous || layout.attempt(&uid, &target.container.name, **attempt).exit_file().exists()
    };
    let Some(attempt) = attempts.iter().rev().find(over).copied() else {
        let which = if wanted.previous { "previous " } else { "" };
        return Err(CliError::new(format!("container `{}` has no {which}log yet", target.container.name))
            .place(container.display().to_string())
            .hint(format!("`mainstay status {}` says what it waits for", super::names::full(target.workload)))
            .into());
    };
    let now = Duration::from_secs(u64::try_from(io.now).unwrap_or(0));
    // In the form of the log's own times: these compare as text.
    let text = |moment: Moment| humantime::format_rfc3339_nanos(moment.at(now)).to_string();
    let mut writer = Writer { wanted, since: wanted.since.map(text), until: wanted.until.map(text), io };
    let log = log_of(&container, attempt);
    let mut last = writer.show(&log).map_err(|error| told(error, &log))?;
    if wanted.follow && !wanted.previous {
        let ended = || ended(&client, &target.pod.uid, &target.container.name);
        return follow(&mut writer, &container, attempt, &mut last, &ended);
    }
    last.finish(&mut writer).map_err(|error| told(error, &log))?;
    Ok(0)
}

fn log_of(container: &Path, attempt: u32) -> PathBuf {
    container.join(attempt.to_string()).join("log")
}

/// What cannot be read, unless it is the output that cannot be written.
fn told(error: Failure, log: &Path) -> Failed {
    match error {
        Failure::Output(error) => Failed::Output(error),
        Failure::Input(error) => {
            CliError::new("cannot read the log").place(log.display().to_string()).cause(error).into()
        }
    }
}

enum Failure {
    Input(std::io::Error),
    Output(std::io::Error),
}

/// The end of what was read: where to go on.
struct Position {
    lines: Option<Lines>,
    joiner: Joiner,
}

impl Position {
    fn empty() -> Self {
        Self { lines: None, joiner: Joiner::default() }
    }

    /// Shows lines that came since; whether there were any.
    fn more(&mut self, log: &Path, writer: &mut Writer<'_, '_>) -> Result<bool, Failure> {
        let mut any = false;
        loop {
            let next = match &mut self.lines {
                Some(lines) => lines.successors(log).map_err(Failure::Input)?,
                None => files::open_all(log).map_err(Failure::Input)?,
            };
            if let Some(lines) = &mut self.lines {
                any |= writer.drain(lines, &mut self.joiner)?;
            }
            if next.is_empty() {
                return Ok(any);
            }
            for file in next {
                let mut lines = Lines::new(file);
                any |= writer.drain(&mut lines, &mut self.joiner)?;
                self.lines = Some(lines);
            }
        }
    }

    /// Shows what has no end and will not get one.
    fn finish(&mut self, writer: &mut Writer<'_, '_>) -> Result<(), Failure> {
        if let Some(lines) = &mut self.lines {
            let rest = files::unfinished(lines).map_err(Failure::Input)?;
            if let Some(entry) = self.joiner.line(&rest) {
                writer.entry(&entry)?;
            }
        }
        for entry in self.joiner.rest() {
            writer.entry(&entry)?;
        }
        Ok(())
    }
}

struct Writer<'a, 'io> {
    wanted: &'a Wanted,
    since: Option<String>,
    until: Option<String>,
    io: &'a mut Io<'io>,
}

impl Writer<'_, '_> {
    /// Shows what is there of an attempt's log.
    fn show(&mut self, log: &Path) -> Result<Position, Failure> {
        let mut position = Position::empty();
        let mut all = files::open_all(log).map_err(Failure::Input)?;
        let Some(tail) = self.wanted.tail else {
            for file in all {
                let mut lines = Lines::new(file);
                self.drain(&mut lines, &mut position.joiner)?;
                position.lines = Some(lines);
            }
            return Ok(position);
        };
        all = files::newest(all, tail).map_err(Failure::Input)?;
        let mut last = VecDeque::new();
        for file in all {
            let mut lines = Lines::new(file);
            while let Some(line) = lines.next().map_err(Failure::Input)? {
                last.extend(position.joiner.line(&line));
                if last.len() > tail {
                    last.pop_front();
                }
            }
            position.lines = Some(lines);
        }
        for entry in &last {
            self.entry(entry)?;
        }
        Ok(position)
    }

    fn drain(&mut self, lines: &mut Lines, joiner: &mut Joiner) -> Result<bool, Failure> {
        let mut any = false;
        while let Some(line) = lines.next().map_err(Failure::Input)? {
            if let Some(entry) = joiner.line(&line) {
                self.entry(&entry)?;
                any = true;
            }
        }
        Ok(any)
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Failure> {
        let early = self.since.as_ref().is_some_and(|since| entry.time < *since);
        if early || self.until.as_ref().is_some_and(|until| entry.time >= *until) {
            return Ok(());
        }
        self.write(entry).map_err(Failure::Output)
    }

    fn write(&mut self, entry: &Entry) -> std::io::Result<()> {
        if self.io.json {
            let text = String::from_utf8_lossy(&entry.text);
            serde_json::to_writer(
                &mut self.io.out,
                &json!({ "time": entry.time, "stream": entry.stream.name(), "text": text }),
            )?;
        } else {
            if self.wanted.timestamps {
                write!(self.io.out, "{} ", entry.time)?;
            }
            // As the program wrote it: whoever reads a log may want its colours.
            self.io.out.write_all(&entry.text)?;
        }
        self.io.out.write_all(b"\n")
    }
}

/// Whether a container is gone or will not run again.
fn ended(client: &Client, uid: &str, container: &str) -> bool {
    let Ok(snapshot) = client.get::<Snapshot>("/v1/status") else { return false };
    let pods = snapshot.workloads.iter().flat_map(|workload| &workload.pods);
    let Some(pod) = pods.into_iter().find(|pod| pod.uid == uid) else { return true };
    let exited = pod.containers.iter().any(|other| other.name == container && other.state == "exited");
    exited && (pod.phase == "Succeeded" || pod.phase == "Failed")
}

/// Shows what comes, through rotations and restarts, until the container is gone for good.
fn follow(
    writer: &mut Writer<'_, '_>,
    container: &Path,
    mut attempt: u32,
    position: &mut Position,
    ended: &dyn Fn() -> bool,
) -> Outcome {
    let failed =
        |error: nix::Error| CliError::new("cannot follow the log").place(container.display().to_string()).cause(error);
    let changes = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(failed)?;
    let watch = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    changes.add_watch(container, watch).map_err(failed)?;
    let mut log = log_of(container, attempt);
    loop {
        // Watched before it is read: what comes in between is seen.
        if let Some(dir) = log.parent() {
            // It may be gone already; then there is nothing to come.
            let _ = changes.add_watch(dir, watch);
        }
        let newest = super::disk::attempts(container).last().copied();
        let gone = newest.is_none();
        position.more(&log, writer).map_err(|error| told(error, &log))?;
        writer.io.out.flush()?;
        if let Some(newest) = newest.filter(|newest| *newest > attempt) {
            position.finish(writer).map_err(|error| told(error, &log))?;
            writeln!(writer.io.err, "the container was started again")?;
            // None in between is left out: each was an attempt with its own log.
            attempt = super::disk::attempts(container).into_iter().find(|other| *other > attempt).unwrap_or(newest);
            log = log_of(container, attempt);
            *position = Position::empty();
            continue;
        }
        let mut waiting = [PollFd::new(std::os::fd::AsFd::as_fd(&changes), PollFlags::POLLIN)];
        let quiet = poll(&mut waiting, PollTimeout::from(LOOK)).map_err(failed)? == 0;
        // Which change it was does not matter.
        let _ = changes.read_events();
        if gone || (quiet && ended()) {
            position.more(&log, writer).map_err(|error| told(error, &log))?;
            position.finish(writer).map_err(|error| told(error, &log))?;
            return Ok(0);
        }
    }
}

#[cfg(test)]
mod tests;
