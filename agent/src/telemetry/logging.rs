//! Log lines: to stderr, as text or JSON, filtered. Fields carry the values; messages have no variable parts.
//!
//! Where stderr is the journal's (`JOURNAL_STREAM`, systemd.exec(5)) text goes there in the journal's own protocol, with
//! the values as fields. JSON has its values in itself and stays a line of the stream: it begins with its priority as in
//! sd-daemon(3), which the journal takes off again. So does text where the journal's socket is out of reach.

use std::io::{IsTerminal as _, Write};
use std::path::Path;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::journal::{self, Journal};
use crate::config::LogFormat;

/// Sets up log lines for this process. Called once; a second call changes nothing.
pub fn init(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt().with_env_filter(filter.clone()).with_ansi(color).with_target(false);
    let set = match (format, is_journal()) {
        (LogFormat::Text, false) => lines.with_writer(std::io::stderr).finish().try_init(),
        (LogFormat::Text, true) => match Journal::at(Path::new(journal::SOCKET)) {
            Ok(journal) => tracing_subscriber::registry().with(filter).with(journal).try_init(),
            Err(_) => lines.without_time().with_writer(Stream).finish().try_init(),
        },
        (LogFormat::Json, false) => lines.with_writer(std::io::stderr).json().flatten_event(true).finish().try_init(),
        (LogFormat::Json, true) => lines.with_writer(Stream).json().flatten_event(true).finish().try_init(),
    };
    // A subscriber is there already: a test's, or that of an earlier call.
    drop(set);
}

/// Whether stderr goes to the journal.
fn is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let stderr = nix::sys::stat::fstat(std::io::stderr()).ok();
    stream.zip(stderr).is_some_and(|(stream, stat)| is_stream(&stream, stat.st_dev, stat.st_ino))
}

/// Whether `device:inode` names this file.
fn is_stream(stream: &str, device: u64, inode: u64) -> bool {
    stream.split_once(':').is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

/// Writes to stderr as the journal's stream, each line with a priority.
struct Stream;

impl<'a> MakeWriter<'a> for Stream {
    type Writer = Prefixed<std::io::Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        Prefixed { to: std::io::stderr(), priority: priority(Level::INFO) }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        Prefixed { to: std::io::stderr(), priority: priority(*meta.level()) }
    }
}

/// syslog(3)'s number for a level.
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// A line for a stream of the journal, with its priority.
pub(super) fn to_stream(to: impl Write, level: Level, text: &str) -> std::io::Result<()> {
    Prefixed { to, priority: priority(level) }.write_all(format!("{text}\n").as_bytes())
}

/// One event: `<N>` before each of its lines, in a single write.
struct Prefixed<W> {
    to: W,
    priority: u8,
}

impl<W: Write> Write for Prefixed<W> {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let mut lines = Vec::with_capacity(event.len() + 8);
        for line in event.split_inclusive(|byte| *byte == b'\n') {
            lines.extend_from_slice(format!("<{}>", self.priority).as_bytes());
            lines.extend_from_slice(line);
        }
        self.to.write_all(&lines)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let check = |stream: &str, expected: bool| assert_eq!(is_stream(stream, 9, 4711), expected, "{stream}");
        check("9:4711", true);
        check("9:4712", false);
        check("8:4711", false);
        check("9", false);
        check("", false);
        check("a:b", false);
    }

    #[test]
    fn every_line_of_an_event_has_its_priority() {
        let check = |level: Level, event: &str, expected: &str| {
            let mut writer = Prefixed { to: Vec::new(), priority: priority(level) };
            writer.write_all(event.as_bytes()).expect("memory takes everything");
            assert_eq!(String::from_utf8_lossy(&writer.to), expected);
        };
        check(Level::ERROR, "a\n", "<3>a\n");
        check(Level::WARN, "a\nb\n", "<4>a\n<4>b\n");
        check(Level::INFO, "a", "<6>a");
        check(Level::TRACE, "a\n", "<7>a\n");
    }
}
