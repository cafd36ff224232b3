//! `mainstay run`: from flags to settings, and into the agent.

use std::path::Path;

use super::args::{Common, RunArgs};
use super::output::{CliError, Failed, Io, Outcome};
use crate::config::Settings;
use crate::run::Ended;

/// A path that means the same from everywhere.
pub(super) fn absolute(path: &Path) -> Result<String, CliError> {
    let failed = || CliError::new(format!("cannot use the path `{}`", path.display()));
    let path = std::path::absolute(path).map_err(|error| failed().cause(error))?;
    path.into_os_string().into_string().map_err(|_| failed().cause("it is not UTF-8"))
}

pub(super) fn run(common: &Common, args: &RunArgs, io: &mut Io<'_>) -> Outcome {
    let mut flags: Vec<(&str, String)> = Vec::new();
    for (key, value) in [
        ("metrics_listen", &args.metrics_listen),
        ("log_format", &args.log_format),
        ("log_level", &args.log_level),
        ("bridge", &args.bridge),
        ("subnet", &args.subnet),
        ("service_subnet", &args.service_subnet),
        ("cgroup_parent", &args.cgroup_parent),
        ("node_name", &args.node_name),
        ("node_labels", &args.node_labels),
        ("resync", &args.resync),
        ("boot_id", &args.boot_id),
    ] {
        flags.extend(value.clone().map(|value| (key, value)));
    }
    if args.allow_metadata {
        flags.push(("allow_metadata", "true".to_owned()));
    }
    let mut loaded = match super::layers(common, &flags)?.load() {
        Ok(loaded) => loaded,
        Err(error) if args.check => return Err(super::config::refused(&error).into()),
        Err(error) => {
            super::config::refused(&error).write(io.err, io.color)?;
            let mended = || super::layers(common, &flags).is_ok_and(|layers| layers.load().is_ok());
            crate::systemd::pause_before_retry(&error.to_string(), mended);
            return Ok(crate::systemd::EXIT_CONFIG);
        }
    };
    if !args.sources.is_empty() {
        let sources = args.sources.iter().map(|path| absolute(path).map(Into::into)).collect::<Result<_, _>>()?;
        loaded.settings.sources = sources;
    }
    if args.check {
        return check(&loaded.settings, io);
    }
    for warning in &loaded.warnings {
        writeln!(io.err, "warning: {warning}")?;
    }
    crate::telemetry::init_logging(loaded.settings.log_format, &loaded.settings.log_level);
    // One for the loop and one for its helpers, however many threads come and go.
    ::runtime::sys::limit_arenas(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| CliError::new("cannot start the agent").cause(error))?;
    let config = std::path::absolute(super::layers(common, &[])?.file().0)
        .map_err(|error| CliError::new("cannot tell where the configuration is").cause(error))?;
    match runtime.block_on(crate::run::run(loaded.settings, config)) {
        Ok(Ended::Code(code)) => Ok(code),
        Ok(Ended::Again(invocation)) => {
            // Threads that are in the middle of something go when the next program takes over.
            runtime.shutdown_timeout(std::time::Duration::from_millis(500));
            Err(CliError::new("cannot execute the agent anew").cause(invocation.execute()).into())
        }
        Err(error) => {
            if matches!(error, crate::run::RunError::Newer(_)) {
                // Nothing mends this but another binary.
                crate::systemd::pause_before_retry(&error.to_string(), || false);
            }
            let hint = error.hint().map(str::to_owned);
            Err(Failed::from(CliError { hint, ..CliError::of(&error) }))
        }
    }
}

/// `run --check`: whether an agent could work with this configuration, on this host.
fn check(settings: &Settings, io: &mut Io<'_>) -> Outcome {
    let answer = crate::reload::check(settings).map_err(|error| match error {
        crate::reload::CheckError::Newer(_) => CliError::of(&error).hint(crate::reload::Newer::HINT),
        _ => CliError::of(&error),
    })?;
    if io.json {
        io.json(&answer)?;
    } else {
        writeln!(
            io.out,
            "version {} can run here; {} known",
            answer.version,
            super::control::count(answer.pods, "pod")
        )?;
        for why in crate::run::missing_runtimes(settings).map_err(|error| CliError::of(&error))? {
            writeln!(io.out, "warning: {why}")?;
        }
    }
    Ok(0)
}
