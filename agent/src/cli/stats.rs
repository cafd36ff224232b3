//! `mainstay stats` and `mainstay top`: what containers use now. Two readings a moment apart make the rates.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::client::Client;
use super::output::{CliError, Io, Outcome, Table, size};
use crate::status::{StatsAnswer, StatsEntry};

/// Between the two readings of one answer.
const SAMPLE: Duration = Duration::from_secs(1);

/// Between two answers of `top`.
const REFRESH: Duration = Duration::from_secs(2);

/// What one container uses.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    workload: String,
    pod: String,
    container: String,
    /// Thousandths of a core, over the time between the readings.
    cpu_milli: u64,
    /// Without page cache that can be given back.
    memory_bytes: u64,
    memory_limit_bytes: Option<u64>,
    pids: u64,
    read_bytes: u64,
    written_bytes: u64,
    /// Of the whole pod, since it started; none on the host's network.
    received_bytes: Option<u64>,
    sent_bytes: Option<u64>,
    throttled_milliseconds: u64,
}

pub(super) fn stats(client: &Client, name: Option<&str>, io: &mut Io<'_>) -> Outcome {
    let first = read(client, name)?;
    std::thread::sleep(SAMPLE);
    let rows = rows(&first, &read(client, name)?);
    show(&rows, io)?;
    Ok(0)
}

/// Shows the same again and again until it is ended.
pub(super) fn top(client: &Client, name: Option<&str>, io: &mut Io<'_>) -> Outcome {
    let mut before = read(client, name)?;
    let mut wait = SAMPLE;
    let mut told = false;
    loop {
        std::thread::sleep(wait);
        wait = REFRESH;
        let after = match read(client, name) {
            Ok(after) => after,
            // The agent is replaced or the workload is: both come back.
            Err(error) => {
                if !told {
                    writeln!(io.err, "{}; waiting", error.message)?;
                    io.err.flush()?;
                    told = true;
                }
                continue;
            }
        };
        told = false;
        let mut rows = rows(&before, &after);
        before = after;
        rows.sort_by_key(|row| std::cmp::Reverse((row.cpu_milli, row.memory_bytes)));
        if io.json {
            serde_json::to_writer(&mut *io.out, &rows).map_err(std::io::Error::from)?;
            writeln!(io.out)?;
        } else {
            if std::io::stdout().is_terminal() {
                // Home and clear: the new table stands where the old one was.
                write!(io.out, "\u{1b}[H\u{1b}[2J")?;
            }
            table(&rows, io)?;
        }
        io.out.flush()?;
    }
}

struct Reading {
    at: Instant,
    answer: StatsAnswer,
}

fn read(client: &Client, name: Option<&str>) -> Result<Reading, CliError> {
    let mut answer: StatsAnswer = client.get("/v1/stats")?;
    if let Some(name) = name {
        let fits = |entry: &StatsEntry| {
            let full = format!("{}/{}", entry.namespace, entry.workload);
            [&entry.workload, &entry.pod, &full, &format!("{}/{}", entry.namespace, entry.pod)]
                .into_iter()
                .any(|known| known == name)
        };
        answer.containers.retain(fits);
        if answer.containers.is_empty() {
            return Err(CliError::new(format!("nothing of `{name}` runs")).hint("`mainstay ps` lists what does"));
        }
    }
    Ok(Reading { at: Instant::now(), answer })
}

/// One row a container that both readings have.
fn rows(before: &Reading, after: &Reading) -> Vec<Row> {
    let key = |entry: &StatsEntry| (entry.namespace.clone(), entry.pod.clone(), entry.container.clone());
    let known: BTreeMap<_, u64> =
        before.answer.containers.iter().map(|entry| (key(entry), entry.stats.cpu_nanos)).collect();
    let nanos = after.at.saturating_duration_since(before.at).as_nanos().max(1);
    let networks: BTreeMap<_, _> =
        after.answer.pods.iter().map(|pod| ((pod.namespace.as_str(), pod.pod.as_str()), &pod.stats)).collect();
    let row = |entry: &StatsEntry| {
        let stats = &entry.stats;
        // A container that has just started has used what it has since then.
        let used = stats.cpu_nanos.saturating_sub(known.get(&key(entry)).copied().unwrap_or(0));
        let network = networks.get(&(entry.namespace.as_str(), entry.pod.as_str()));
        Row {
            namespace: entry.namespace.clone(),
            workload: entry.workload.clone(),
            pod: entry.pod.clone(),
            container: entry.container.clone(),
            cpu_milli: u64::try_from(u128::from(used) * 1000 / nanos).unwrap_or(u64::MAX),
            memory_bytes: stats.working_set_bytes,
            memory_limit_bytes: stats.memory_limit,
            pids: stats.pids,
            read_bytes: stats.io_bytes.0,
            written_bytes: stats.io_bytes.1,
            received_bytes: network.map(|network| network.bytes.0),
            sent_bytes: network.map(|network| network.bytes.1),
            throttled_milliseconds: stats.throttled.1 / 1_000_000,
        }
    };
    after.answer.containers.iter().map(row).collect()
}

fn show(rows: &[Row], io: &mut Io<'_>) -> std::io::Result<()> {
    if io.json { io.json(&rows) } else { table(rows, io) }
}

fn table(rows: &[Row], io: &mut Io<'_>) -> std::io::Result<()> {
    let mut table = Table::new(&[
        "NAMESPACE",
        "POD",
        "CONTAINER",
        "CPU",
        "MEMORY",
        "LIMIT",
        "PIDS",
        "NET IN",
        "NET OUT",
        "READ",
        "WRITTEN",
    ]);
    for row in rows {
        table.row([
            row.namespace.clone(),
            row.pod.clone(),
            row.container.clone(),
            format!("{}.{}%", row.cpu_milli / 10, row.cpu_milli % 10),
            size(row.memory_bytes),
            row.memory_limit_bytes.map(size).unwrap_or_default(),
            row.pids.to_string(),
            row.received_bytes.map(size).unwrap_or_default(),
            row.sent_bytes.map(size).unwrap_or_default(),
            size(row.read_bytes),
            size(row.written_bytes),
        ]);
    }
    if table.is_empty() {
        return writeln!(io.err, "no running containers");
    }
    table.write(io.out)
}

#[cfg(test)]
mod tests {
    use runtime::api::{ContainerStats, NetworkStats};

    use super::*;
    use crate::status::NetworkEntry;

    #[test]
    fn rates_come_from_two_readings() {
        let at = Instant::now();
        let reading = |seconds: u64, cpu_nanos: u64| Reading {
            at: at + Duration::from_secs(seconds),
            answer: StatsAnswer {
                containers: vec![StatsEntry {
                    namespace: "default".into(),
                    workload: "web".into(),
                    pod: "web-0".into(),
                    container: "main".into(),
                    stats: ContainerStats { cpu_nanos, working_set_bytes: 5, ..ContainerStats::default() },
                }],
                pods: vec![NetworkEntry {
                    namespace: "default".into(),
                    workload: "web".into(),
                    pod: "web-0".into(),
                    stats: NetworkStats { bytes: (7, 8), ..NetworkStats::default() },
                }],
            },
        };
        let found = rows(&reading(0, 1_000_000_000), &reading(2, 2_000_000_000));
        let row = found.first().expect("there is one");
        assert_eq!((row.cpu_milli, row.memory_bytes), (500, 5));
        assert_eq!((row.received_bytes, row.sent_bytes), (Some(7), Some(8)));
    }
}
