//! How answers look: aligned tables, JSON, and errors in four parts.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;
use spec::causes::causes;

/// Where a command writes, and how.
pub(crate) struct Io<'a> {
    /// Data.
    pub(crate) out: &'a mut dyn Write,
    /// Everything else.
    pub(crate) err: &'a mut dyn Write,
    /// JSON instead of tables.
    pub(crate) json: bool,
    /// Colours may be used.
    pub(crate) color: bool,
    /// Seconds of Unix time.
    pub(crate) now: i64,
}

impl Io<'_> {
    /// A value as JSON, for `-o json`.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.out, value)?;
        writeln!(self.out)
    }
}

/// Why a command ended without its answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Said in four parts.
    Told(Box<CliError>),
    /// The output could not be written.
    Output(io::Error),
}

impl From<CliError> for Failed {
    fn from(error: CliError) -> Self {
        Self::Told(Box::new(error))
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// What a command ends with: 0 fine, 1 the answer is no, 2 it could not be done.
pub(crate) type Outcome = Result<u8, Failed>;

/// An error for people: what, where, why, what to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CliError {
    pub(crate) message: String,
    pub(crate) place: Option<String>,
    pub(crate) causes: Vec<String>,
    pub(crate) hint: Option<String>,
}

impl CliError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    pub(crate) fn place(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    pub(crate) fn cause(mut self, cause: impl Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An error with everything below it.
    pub(crate) fn of(error: &dyn std::error::Error) -> Self {
        let mut told = Self::new(error.to_string());
        told.causes.extend(causes(error).map(ToString::to_string));
        told
    }

    pub(crate) fn write(&self, err: &mut dyn Write, color: bool) -> io::Result<()> {
        let paint = |code: &str, word: &str| if color { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word.into() };
        writeln!(err, "{} {}", paint("1;31", "error:"), self.message)?;
        if let Some(place) = &self.place {
            writeln!(err, "  {} {place}", paint("1;34", "-->"))?;
        }
        for cause in &self.causes {
            writeln!(err, "{} {cause}", paint("1", "cause:"))?;
        }
        if let Some(hint) = &self.hint {
            writeln!(err, "{} {hint}", paint("1;32", "hint:"))?;
        }
        Ok(())
    }
}

/// Rows under a heading, each column as wide as its widest cell.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        // What containers and manifests say must not steer the terminal.
        self.rows.push(cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { clean(&cell) }).into());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let pad = width.saturating_sub(cell.chars().count()) + 2;
                line.extend(std::iter::repeat_n(' ', pad));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Control characters become visible ones.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// The same, but lines stay lines.
pub(crate) fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// A length of time in at most two units: `3d4h`, `2m5s`, `0s`.
pub(crate) fn age(seconds: u64) -> String {
    const UNITS: [(u64, char); 4] = [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, unit) in UNITS {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(format!("{count}{unit}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.concat() }
}

/// How long ago a moment was.
pub(crate) fn ago(now: i64, then: i64) -> String {
    format!("{} ago", age(u64::try_from(now.saturating_sub(then)).unwrap_or(0)))
}

/// Bytes in binary units: `512B`, `1.5MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal only")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_at_most_two_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (125, "2m5s"), (3_600, "1h"), (3_605, "1h"), (273_600, "3d4h")]
        {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn sizes_are_in_binary_units() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1024, "1.0KiB"), (1_572_864, "1.5MiB"), (1_048_575, "1.0MiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(&["NAME", "NOTE"]);
        table.row(["a\u{1b}[31m".to_owned(), String::new()]);
        let mut out = Vec::new();
        table.write(&mut out).expect("it can be written");
        assert_eq!(String::from_utf8_lossy(&out), "NAME    NOTE\na\u{fffd}[31m  -\n");
    }
}
