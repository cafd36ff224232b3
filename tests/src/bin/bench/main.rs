//! Measures mainstay beside the bare floor and whatever peers are installed, and prints ratios of one run.
//!
//! `cargo run --release -p tests --bin bench -- [SECTION...] [--n 10,100] [--runs 3] [--idle 60]`, as root, on a quiet
//! machine. Sections: start, fleet, host, growth, pull, logs, exec, probes; all of them without an argument, and `peers`, which is
//! `fleet` beside Podman and Docker Compose. Nothing here is a test: no figure is asserted. Rounds of mainstay and of the
//! others are interleaved, so that all see the same machine.
//!
//! "Running" is the container's own first act: a line in a FIFO that is mounted into it.

mod bell;
mod fleet;
mod floor;
mod growth;
mod meter;
mod peers;
mod pull;
mod start;
mod streams;
mod table;
mod world;

use std::process::ExitCode;

use table::Table;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Sizes of fleets, in containers.
    pub(crate) sizes: Vec<u32>,
    /// Rounds of each measurement.
    pub(crate) runs: u32,
    /// Length of the idle measurement, in seconds.
    pub(crate) idle: u64,
}

const SECTIONS: [&str; 9] = ["start", "fleet", "peers", "host", "growth", "pull", "logs", "exec", "probes"];
const USAGE: &str =
    "usage: bench [start|fleet|peers|host|growth|pull|logs|exec|probes]... [--n 10,100] [--runs N] [--idle SECONDS]";

fn main() -> ExitCode {
    let (sections, options) = match arguments(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(why) => {
            eprintln!("bench: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if !tests::require_root("bench") {
        return ExitCode::from(2);
    }
    println!("{}", world::header());
    for section in sections {
        let options = options.clone();
        // A thread for each section: the world of one is a pair of namespaces of its thread.
        let run = move || -> Vec<Table> {
            match section.as_str() {
                "start" => start::measure(&options),
                "fleet" => fleet::measure(&options, world::Net::Own, false),
                "peers" => fleet::measure(&options, world::Net::Own, true),
                "host" => fleet::measure(&options, world::Net::Host, false),
                "growth" => growth::measure(&options),
                "pull" => pull::measure(&options),
                "logs" => streams::logs(&options),
                "exec" => streams::exec(&options),
                _ => streams::probes(&options),
            }
        };
        match std::thread::spawn(run).join() {
            Ok(tables) => tables.iter().for_each(|table| println!("{table}")),
            Err(_) => return ExitCode::FAILURE,
        }
    }
    ExitCode::SUCCESS
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<(Vec<String>, Options), String> {
    let mut sections = Vec::new();
    let mut options = Options { sizes: vec![10, 50, 100], runs: 3, idle: 20 };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--n" => options.sizes = value()?.split(',').map(number).collect::<Result<_, _>>()?,
            "--runs" => options.runs = number(&value()?)?,
            "--idle" => options.idle = number(&value()?)?,
            known if SECTIONS.contains(&known) => sections.push(word),
            _ => return Err(format!("unknown argument `{word}`")),
        }
    }
    if sections.is_empty() {
        // Peers are the fleet once more, and slow.
        sections = SECTIONS.iter().filter(|name| **name != "peers").map(|name| (*name).to_owned()).collect();
    }
    Ok((sections, options))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not a fitting number"))
}
