//! `mainstay ps`: pods and their containers, one line each.

use serde_json::{Value, json};

use super::client::Client;
use super::output::{Io, Outcome, Table, age};
use crate::status::{ContainerStatus, PodStatus, Snapshot, WorkloadStatus};

pub(super) fn ps(client: &Client, all: bool, io: &mut Io<'_>) -> Outcome {
    let snapshot: Snapshot = client.get("/v1/status")?;
    let mut rows = Vec::new();
    for workload in &snapshot.workloads {
        for pod in &workload.pods {
            let shown = pod.containers.iter().filter(|container| all || container.state != "exited" || !container.init);
            rows.extend(shown.map(|container| (workload, pod, container)));
        }
    }
    if io.json {
        let rows: Vec<Value> = rows.iter().map(|(workload, pod, container)| row(workload, pod, container)).collect();
        io.json(&rows)?;
        return Ok(0);
    }
    let mut table =
        Table::new(&["NAMESPACE", "POD", "CONTAINER", "STATE", "READY", "RESTARTS", "UP", "PID", "ADDRESS", "IMAGE"]);
    for (workload, pod, container) in rows {
        table.row([
            workload.namespace.clone(),
            pod.name.clone(),
            container.name.clone(),
            state(container),
            if container.ready { "yes" } else { "no" }.to_owned(),
            container.restarts.to_string(),
            container.running_seconds.map(age).unwrap_or_default(),
            container.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            pod.ip.clone().unwrap_or_default(),
            short_image(&container.image),
        ]);
    }
    if table.is_empty() {
        writeln!(io.err, "no pods")?;
    } else {
        table.write(io.out)?;
    }
    Ok(0)
}

fn row(workload: &WorkloadStatus, pod: &PodStatus, container: &ContainerStatus) -> Value {
    let mut row = serde_json::to_value(container).unwrap_or_default();
    if let Value::Object(map) = &mut row {
        map.insert("workload".to_owned(), json!(format!("{}/{}/{}", workload.kind, workload.namespace, workload.name)));
        map.insert("namespace".to_owned(), json!(workload.namespace));
        map.insert("pod".to_owned(), json!(pod.name));
        map.insert("podUid".to_owned(), json!(pod.uid));
        map.insert("ip".to_owned(), json!(pod.ip));
    }
    row
}

/// `running`, `waiting` or `exited 137 OOMKilled`.
pub(super) fn state(container: &ContainerStatus) -> String {
    let mut text = container.state.clone();
    if container.state == "exited" {
        if let Some(code) = container.exit_code {
            text.push_str(&format!(" {code}"));
        }
        if let Some(reason) = container.reason.as_ref().filter(|reason| *reason != "Error") {
            text.push_str(&format!(" {reason}"));
        }
    }
    text
}

/// Without what everybody leaves out when typing.
fn short_image(image: &str) -> String {
    image.strip_prefix("docker.io/library/").or_else(|| image.strip_prefix("docker.io/")).unwrap_or(image).to_owned()
}
