//! `shutdown`: what a host does before it goes down. Everything is stopped in order and nothing is forgotten, so that the next boot
//! begins where this one ends; `down` in contrast removes.

use std::sync::Arc;
use std::time::Duration;

use super::control::count;
use super::output::{CliError, Failed, Io, Outcome};
use crate::config::Settings;

/// Stops every container, dependents first, within a time.
pub(super) fn shutdown(settings: &Settings, limit: Duration, io: &mut Io<'_>) -> Outcome {
    let told = |error: &crate::run::RunError| CliError { hint: error.hint().map(str::to_owned), ..CliError::of(error) };
    let options = crate::run::options(settings, true).map_err(|error| told(&error))?;
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let threads = threads.map_err(|error| CliError::new("cannot start threads").cause(error))?;
    let stopped = threads.block_on(async {
        let runtime = runtime::Embedded::open(options).map_err(|error| told(&error.into()))?;
        let clock: crate::clock::SharedClock = Arc::new(crate::clock::HostClock);
        let executor = crate::run::executor(settings, Arc::new(runtime), Arc::clone(&clock));
        // Manifests say who depends on whom. Without them all are stopped at the same time.
        let metrics = crate::telemetry::Metrics::new();
        let sources = crate::source::Sources::open(
            crate::record::read(&settings.sources_file()).unwrap_or_else(|| settings.sources.clone()),
            settings.data_dir.clone(),
            match settings.node_metadata {
                Some(_) => crate::ec2::merged(&settings.node_labels, crate::ec2::known(&settings.data_dir)),
                None => settings.node_labels.clone(),
            },
            clock,
            metrics,
            crate::orders::Orders::open(&settings.data_dir),
        );
        let remotes = crate::follow::Remote::all(settings);
        let views = remotes.iter().map(|remote| remote.view(&settings.data_dir));
        let identity = settings.age_identity.clone();
        let sources = sources.map(|sources| sources.with_age_identity(identity).with_repositories(views));
        let desired = sources.ok().and_then(|mut sources| sources.read()).map(|reading| reading.desired);
        executor
            .shutdown(&desired.unwrap_or_default(), limit)
            .await
            .map_err(|cause| Failed::from(CliError::new("cannot stop everything").cause(cause)))
    })?;
    if io.json {
        io.json(&serde_json::json!({ "shutdown": true, "pods": stopped }))?;
    } else {
        writeln!(io.err, "stopped {}; they start again with the agent", count(stopped, "pod"))?;
    }
    Ok(0)
}
