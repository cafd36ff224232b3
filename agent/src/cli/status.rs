//! `mainstay status`: sources, workloads, ports, and everything that is not as it should be.

use std::io;
use std::time::{Duration, Instant};

use super::client::Client;
use super::output::{CliError, Io, Outcome, Table, age, ago, clean, clean_lines};
use crate::headline::{headline, is_settled};
use crate::status::{CronStatus, Snapshot, WorkloadStatus};

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(100);

/// The answer of `/v1/reading`.
#[derive(serde::Deserialize)]
struct ReadingAnswer {
    reading: u64,
}

pub(super) fn status(client: &Client, name: Option<&str>, wait: Option<Duration>, io: &mut Io<'_>) -> Outcome {
    let (snapshot, well) = match wait {
        Some(wait) => settle(client, wait)?,
        None => (client.get("/v1/status")?, true),
    };
    let code = u8::from(!well);
    match name {
        Some(name) => {
            let workload = super::names::workload(&snapshot, name)?;
            if io.json { io.json(workload)? } else { details(workload, io)? }
        }
        None if io.json => io.json(&snapshot)?,
        None => overview(&snapshot, io)?,
    }
    Ok(code)
}

/// The state when it is settled, or when the time is over. What was written before this command is waited for: an agent
/// that has not read it yet would say that everything is as wished. So is an agent that is not there yet, or is replaced.
fn settle(client: &Client, wait: Duration) -> Result<(Snapshot, bool), CliError> {
    let deadline = Instant::now() + wait;
    let mut read = None;
    loop {
        let client = client.until(deadline);
        read = read.or_else(|| reading(&client));
        match client.get::<Snapshot>("/v1/status") {
            Ok(snapshot) => {
                let settled = read.is_some_and(|read| snapshot.reading >= read) && is_settled(&snapshot);
                if settled || Instant::now() >= deadline {
                    return Ok((snapshot, settled));
                }
            }
            Err(_) if Instant::now() < deadline && !client.is_denied() => read = None,
            Err(error) => return Err(error),
        }
        std::thread::sleep(LOOK.min(deadline.saturating_duration_since(Instant::now())));
    }
}

/// The number of a reading that has seen what is in the sources now; `None` when the agent does not say in time.
fn reading(client: &Client) -> Option<u64> {
    let answer = client.request("GET", "/v1/reading", None).ok()?;
    match serde_json::from_slice(&answer.body) {
        Ok(ReadingAnswer { reading }) => Some(reading),
        // An agent of before this question says that it does not know it.
        Err(_) => (answer.status == 404).then_some(0),
    }
}

fn overview(snapshot: &Snapshot, io: &mut Io<'_>) -> io::Result<()> {
    writeln!(io.out, "mainstay {} (pid {}): {}", snapshot.version, snapshot.pid, headline(snapshot))?;
    for source in &snapshot.sources {
        let at = source.revision.iter().map(|revision| format!(" at {}", revision.get(..12).unwrap_or(revision)));
        let at: String = at.collect();
        let read = source.last_success.map(|then| format!(", read {}", ago(io.now, then))).unwrap_or_default();
        writeln!(
            io.out,
            "source {}{at}: {}, {}{read}",
            clean(&source.path),
            source.state,
            super::control::count(source.files, "file")
        )?;
    }
    if let Some(number) = snapshot.rolled_back_to {
        writeln!(io.out, "rolled back to generation {number}: until the sources change or `mainstay resume`")?;
    }
    if let Some(since) = snapshot.drained {
        writeln!(io.out, "drained {}: nothing runs until `mainstay uncordon`", ago(io.now, since))?;
    }
    super::control::write_held(snapshot.removal.as_ref(), &snapshot.paused, io)?;
    let mut table = Table::new(&["KIND", "NAMESPACE", "NAME", "PHASE", "READY", "RESTARTS", "SOURCE", "NOTE"]);
    for workload in &snapshot.workloads {
        table.row([
            workload.kind.clone(),
            workload.namespace.clone(),
            workload.name.clone(),
            workload.phase.clone(),
            format!("{}/{}", workload.ready, workload.desired),
            restarts(workload).to_string(),
            workload.source.clone(),
            note(workload),
        ]);
    }
    if !table.is_empty() {
        writeln!(io.out)?;
        table.write(io.out)?;
    }
    if !snapshot.ports.is_empty() {
        writeln!(io.out)?;
        let mut table = Table::new(&["PORT", "LEADS TO"]);
        for (port, target) in &snapshot.ports {
            table.row([port.clone(), target.clone()]);
        }
        table.write(io.out)?;
    }
    services(snapshot, io)?;
    troubles(snapshot, io)
}

fn services(snapshot: &Snapshot, io: &mut Io<'_>) -> std::io::Result<()> {
    if snapshot.services.is_empty() {
        return Ok(());
    }
    writeln!(io.out)?;
    let mut table = Table::new(&["SERVICE", "NAMESPACE", "TYPE", "ADDRESS", "PORTS", "ON THE HOST", "PODS"]);
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    for service in &snapshot.services {
        table.row([
            service.name.clone(),
            service.namespace.clone(),
            service.kind.clone(),
            or_dash(service.address.clone().or_else(|| service.external_name.clone()).unwrap_or_default()),
            or_dash(service.ports.join(", ")),
            or_dash(service.host_ports.join(", ")),
            service.pods.len().to_string(),
        ]);
    }
    table.write(io.out)?;
    for service in &snapshot.services {
        for problem in &service.problems {
            writeln!(io.out, "warning: Service {}/{}: {problem}", service.namespace, service.name)?;
        }
    }
    Ok(())
}

fn restarts(workload: &WorkloadStatus) -> u32 {
    workload.pods.iter().flat_map(|pod| &pod.containers).map(|container| container.restarts).sum()
}

fn note(workload: &WorkloadStatus) -> String {
    let held = workload.held.iter().map(|held| format!("held: {}", held.reason));
    let waiting = workload.waiting.iter().map(|wait| wait.reason.clone());
    let cron = workload.cron.iter().map(|cron| match cron.next_run {
        _ if cron.suspended => "suspended".to_owned(),
        Some(next) => format!("next run {}", moment(cron, next)),
        None => "no next run".to_owned(),
    });
    let failed = workload.pods.iter().filter_map(|pod| pod.reason.clone());
    held.chain(waiting).chain(failed).chain(cron).collect::<Vec<_>>().join(", ")
}

/// A moment as a clock in the schedule's zone shows it.
fn moment(cron: &CronStatus, unix: i64) -> String {
    spec::cron::Zone::named(&cron.time_zone).unwrap_or(spec::cron::Zone::utc()).show(unix)
}

/// The schedule of a CronJob, what came of it and what comes next.
fn schedule(cron: &CronStatus, io: &mut Io<'_>) -> io::Result<()> {
    let suspended = if cron.suspended { ", suspended" } else { "" };
    writeln!(io.out, "runs:    `{}` in {}{suspended}", clean(&cron.schedule), clean(&cron.time_zone))?;
    if let Some(next) = cron.next_run {
        writeln!(io.out, "next:    {}", moment(cron, next))?;
    }
    if let Some(last) = cron.last_run {
        let how = match (cron.active, cron.last_succeeded) {
            (1.., _) => "runs",
            (_, Some(true)) => "succeeded",
            (_, Some(false)) => "failed",
            (_, None) => "started",
        };
        writeln!(io.out, "last:    {}, {how}", moment(cron, last))?;
    }
    match cron.last_success {
        Some(good) if cron.last_succeeded == Some(false) => writeln!(io.out, "success: {}", moment(cron, good)),
        _ => Ok(()),
    }
}

/// Sentences about what is not as it should be.
fn troubles(snapshot: &Snapshot, io: &mut Io<'_>) -> io::Result<()> {
    for workload in &snapshot.workloads {
        let id = super::names::full(workload);
        let held = workload.held.iter().map(|held| ("held", &held.message));
        let waiting = workload.waiting.iter().map(|wait| ("waiting", &wait.message));
        for (word, message) in held.chain(waiting) {
            writeln!(io.out, "\n{word} {id}: {}", clean_lines(message))?;
        }
        for pod in &workload.pods {
            if let (Some(reason), Some(message)) = (&pod.reason, &pod.message) {
                writeln!(io.out, "\nfailed {id}: pod {}: {reason}: {}", clean(&pod.name), clean_lines(message))?;
            }
        }
    }
    for source in &snapshot.sources {
        for text in source.errors.iter().chain(&source.warnings) {
            writeln!(io.out, "\n{}", clean_lines(text.trim_end()))?;
        }
    }
    Ok(())
}

fn details(workload: &WorkloadStatus, io: &mut Io<'_>) -> io::Result<()> {
    writeln!(io.out, "{}: {}", super::names::full(workload), workload.phase)?;
    writeln!(io.out, "source:  {}", clean(&workload.source))?;
    let WorkloadStatus { desired, ready, updated, .. } = workload;
    writeln!(io.out, "pods:    {desired} wished, {ready} ready, {updated} of the newest version")?;
    if let Some(cron) = &workload.cron {
        schedule(cron, io)?;
    }
    if let Some(held) = &workload.held {
        writeln!(io.out, "held:    {}", clean_lines(&held.message))?;
    }
    for wait in &workload.waiting {
        writeln!(io.out, "waiting: {}", clean_lines(&wait.message))?;
    }
    for pod in &workload.pods {
        let ready = if pod.ready { "ready" } else { "not ready" };
        let address = pod.ip.as_ref().map(|ip| format!(", {ip}")).unwrap_or_default();
        let made = ago(io.now, pod.created);
        writeln!(io.out, "\npod {} ({}): {}, {ready}{address}, made {made}", pod.name, pod.uid, pod.phase)?;
        if let (Some(reason), Some(message)) = (&pod.reason, &pod.message) {
            writeln!(io.out, "failed: {reason}: {}", clean_lines(message))?;
        }
        let mut table = Table::new(&["CONTAINER", "STATE", "READY", "RESTARTS", "UP", "PID", "IMAGE"]);
        for container in &pod.containers {
            table.row([
                if container.init { format!("{} (init)", container.name) } else { container.name.clone() },
                super::ps::state(container),
                if container.ready { "yes" } else { "no" }.to_owned(),
                container.restarts.to_string(),
                container.running_seconds.map(age).unwrap_or_default(),
                container.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                container
                    .digest
                    .as_ref()
                    .map_or(container.image.clone(), |digest| format!("{}@{digest}", container.image)),
            ]);
        }
        table.write(io.out)?;
        for container in &pod.containers {
            if let Some(message) = &container.message {
                writeln!(io.out, "{}: {}", container.name, clean_lines(message))?;
            }
        }
    }
    Ok(())
}
