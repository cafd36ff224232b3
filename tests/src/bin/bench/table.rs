//! Samples by row and by who was measured, printed as a table of medians and ratios.

use std::fmt;

/// What one measurement gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Wall-clock time, or another figure in the unit of its row.
    pub(crate) wall: f64,
    /// CPU seconds, where they could be counted.
    pub(crate) cpu: Option<f64>,
}

#[derive(Debug)]
struct Row {
    what: String,
    unit: &'static str,
    who: Vec<(String, Vec<Sample>)>,
}

/// A table: rows of work, for each the agent, the floor and peers.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// How the agent is called in tables.
pub(crate) const MAINSTAY: &str = "mainstay";

impl Table {
    /// An empty one.
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a sample.
    pub(crate) fn add(&mut self, what: &str, unit: &'static str, who: &str, sample: Sample) {
        eprintln!(
            "  {what}: {who} {:.1} {unit}{}",
            sample.wall,
            sample.cpu.map_or(String::new(), |cpu| format!(", {cpu:.3} CPU s"))
        );
        let row = match self.rows.iter().position(|row| row.what == what) {
            Some(at) => at,
            None => {
                self.rows.push(Row { what: what.to_owned(), unit, who: Vec::new() });
                self.rows.len() - 1
            }
        };
        let Some(row) = self.rows.get_mut(row) else { return };
        match row.who.iter_mut().find(|(name, _)| name == who) {
            Some((_, samples)) => samples.push(sample),
            None => row.who.push((who.to_owned(), vec![sample])),
        }
    }

    /// Adds a line below the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

/// The median; 0 of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    if sorted.len().is_multiple_of(2) { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) } else { at(middle) }
}

fn wall(samples: &[Sample]) -> f64 {
    median(samples.iter().map(|sample| sample.wall))
}

fn cpu(samples: &[Sample]) -> Option<f64> {
    let values: Option<Vec<f64>> = samples.iter().map(|sample| sample.cpu).collect();
    values.map(median)
}

fn figure(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}\n", self.title)?;
        writeln!(f, "| work | who | median | min-max | CPU s | n | mainstay / this: wall | CPU |")?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let ours = row.who.iter().find(|(name, _)| name == MAINSTAY).map(|(_, samples)| samples.as_slice());
            for (who, samples) in &row.who {
                let low = samples.iter().map(|s| s.wall).fold(f64::INFINITY, f64::min);
                let high = samples.iter().map(|s| s.wall).fold(0.0, f64::max);
                let used = cpu(samples).map_or("-".to_owned(), |value| format!("{value:.3}"));
                let (mut by_wall, mut by_cpu) = ("-".to_owned(), "-".to_owned());
                if let Some(ours) = ours.filter(|_| who != MAINSTAY) {
                    by_wall = format!("{:.2}", wall(ours) / wall(samples));
                    if let (Some(ours), Some(theirs)) = (cpu(ours), cpu(samples).filter(|value| *value > 0.0)) {
                        by_cpu = format!("{:.2}", ours / theirs);
                    }
                }
                writeln!(
                    f,
                    "| {} | {who} | {} {} | {}-{} | {used} | {} | {by_wall} | {by_cpu} |",
                    row.what,
                    figure(wall(samples)),
                    row.unit,
                    figure(low),
                    figure(high),
                    samples.len(),
                )?;
            }
        }
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}
