//! Commands that hold until they are taken back: `pause`, `resume`, `rollback`, `drain`, `uncordon`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::output::{CliError, Io, Outcome};
use crate::orders::Order;
use crate::status::{Snapshot, WorkloadStatus};

/// How often `drain` looks whether something still runs.
const LOOK: Duration = Duration::from_millis(100);

fn send(client: &Client, order: &Order, io: &mut Io<'_>) -> Result<(), super::output::Failed> {
    let body = serde_json::to_value(order).unwrap_or_default();
    let answer: Value = client.post("/v1/orders", &body)?;
    let message = answer.get("message").and_then(Value::as_str).unwrap_or_default();
    if io.json {
        io.json(&json!({ "message": message }))?;
    } else {
        writeln!(io.err, "{message}")?;
    }
    Ok(())
}

/// `Kind/namespace/name` of what was named.
fn full(client: &Client, name: Option<&str>) -> Result<Option<String>, CliError> {
    let Some(name) = name else { return Ok(None) };
    let snapshot: Snapshot = client.get("/v1/status")?;
    Ok(Some(super::names::full(super::names::workload(&snapshot, name)?)))
}

pub(super) fn pause(client: &Client, name: Option<&str>, io: &mut Io<'_>) -> Outcome {
    send(client, &Order::Pause { workload: full(client, name)? }, io)?;
    Ok(0)
}

pub(super) fn resume(client: &Client, name: Option<&str>, io: &mut Io<'_>) -> Outcome {
    send(client, &Order::Resume { workload: full(client, name)? }, io)?;
    Ok(0)
}

pub(super) fn rollback(client: &Client, generation: u64, io: &mut Io<'_>) -> Outcome {
    send(client, &Order::Rollback { generation }, io)?;
    Ok(0)
}

pub(super) fn uncordon(client: &Client, io: &mut Io<'_>) -> Outcome {
    send(client, &Order::Uncordon, io)?;
    Ok(0)
}

/// Stops everything and waits for it; 1 when something still runs at the end of the time.
pub(super) fn drain(client: &Client, timeout: Duration, io: &mut Io<'_>) -> Outcome {
    send(client, &Order::Drain, io)?;
    let deadline = Instant::now() + timeout;
    loop {
        let snapshot: Snapshot = client.get("/v1/status")?;
        let left: Vec<String> =
            snapshot.workloads.iter().filter(|workload| runs(workload)).map(super::names::full).collect();
        // Until its first pass an agent does not know what runs.
        if snapshot.passes > 0 && left.is_empty() {
            return Ok(0);
        }
        if Instant::now() >= deadline {
            writeln!(io.err, "still running: {}", left.join(", "))?;
            return Ok(1);
        }
        std::thread::sleep(LOOK);
    }
}

fn runs(workload: &WorkloadStatus) -> bool {
    workload.pods.iter().any(|pod| pod.containers.iter().any(|container| container.state == "running"))
}
