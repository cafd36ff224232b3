//! The command line: parses what was typed, asks the agent or does it itself, and shows the answer.
//!
//! Data goes to stdout, everything else to stderr; `-o json` gives stable keys; a reader that goes away early
//! (`| head`) is no failure. Nothing here writes state of the agent: commands go through its socket.

mod adopt;
mod args;
mod attach;
pub(crate) mod client;
mod config;
mod control;
mod convert;
mod cp;
mod disk;
mod events;
mod exec;
mod explain;
mod forward;
mod history;
mod images;
mod logs;
mod manifests;
mod moment;
mod names;
mod orders;
mod output;
mod plan;
mod progress;
mod ps;
mod run;
mod schema;
mod shutdown;
mod stats;
mod status;
mod store;
mod upgrade;
mod validate;
mod why;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::clock::Clock as _;
use crate::config::{Layers, Loaded, Places, Settings};
use crate::decrypt::Keys;
use args::{Cli, Command, Common, Format};
use client::Client;
use output::{CliError, Failed, Io, Outcome};

/// Runs what was typed.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers and go to stdout; clap knows which is which.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let (stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color_of_errors = stderr.is_terminal() && !plain;
    // Following commands flush at each line themselves.
    let mut out = std::io::BufWriter::new(stdout.lock());
    let mut io = Io {
        out: &mut out,
        err: &mut stderr,
        json: cli.common.output == Format::Json,
        color: std::io::stdout().is_terminal() && !plain,
        now: crate::clock::HostClock.unix(),
    };
    let outcome = dispatch(cli, &mut io).and_then(|code| {
        io.out.flush()?;
        Ok(code)
    });
    // Dropping the writer would try again to write what nobody reads.
    let (_, unwritten) = out.into_parts();
    drop(unwritten);
    ExitCode::from(code_of(outcome, &mut std::io::stderr(), color_of_errors))
}

/// The exit code of an outcome, after telling what went wrong.
fn code_of(outcome: Outcome, err: &mut dyn std::io::Write, color: bool) -> u8 {
    match outcome {
        Ok(code) => code,
        Err(Failed::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(Failed::Output(error)) => {
            drop(CliError::new("cannot write the answer").cause(error).write(err, color));
            2
        }
        Err(Failed::Told(error)) => {
            drop(error.write(err, color));
            2
        }
    }
}

fn dispatch(cli: Cli, io: &mut Io<'_>) -> Outcome {
    let common = &cli.common;
    match cli.command {
        Command::Run(args) => run::run(common, &args, io),
        Command::Status { name, wait } => {
            status::status(&client(common, io)?, name.as_deref(), wait.map(Into::into), io)
        }
        Command::Ps { all } => ps::ps(&client(common, io)?, all, io),
        Command::Logs { name, follow, container, tail, since, until, previous, timestamps } => {
            let tail = tail.filter(|lines| *lines != usize::MAX);
            let name = names::with_container(name, container);
            let wanted = logs::Wanted { name, follow, tail, since, until, previous, timestamps };
            logs::logs(&settings(common, io)?, &wanted, io)
        }
        Command::Events { follow, name, tail, since, warnings } => {
            let wanted = events::Wanted { follow, about: name, tail, since, warnings };
            events::events(&settings(common, io)?, &wanted, io)
        }
        Command::Validate { paths, partial, strict, sarif } => {
            // A configuration that is broken is another command's business; it only has no key then.
            let loaded = layers(common, &[])?.load().ok();
            let keys = Keys::load(loaded.and_then(|loaded| loaded.settings.age_identity).as_deref());
            validate::validate(&paths, validate::Wanted { partial, strict, sarif }, &keys, io)
        }
        Command::Plan { paths } if paths.is_empty() => control::plan(&client(common, io)?, io),
        Command::Plan { paths } => plan::plan(&paths, &settings(common, io)?, io),
        Command::Convert { words } => convert::convert(&words, io),
        Command::Adopt { from, dir, names } => {
            let sources = if dir.is_some() { adopt::sources(&settings(common, io)?) } else { Vec::new() };
            adopt::adopt(&adopt::Wanted { from: &from, dir: dir.as_deref(), sources: &sources, names: &names }, io)
        }
        Command::Explain { field } => explain::explain(field.as_deref(), io),
        Command::Down { yes } => control::down(&settings_of_last(common, io)?, yes, io),
        Command::Shutdown { timeout } => shutdown::shutdown(&settings_of_last(common, io)?, timeout.into(), io),
        Command::Reload => upgrade::reload(&client(common, io)?, io),
        Command::Upgrade { binary } => upgrade::upgrade(&client(common, io)?, &binary, io),
        Command::Sync => control::sync(&client(common, io)?, io),
        Command::Retry { name } => control::retry(&client(common, io)?, &name, io),
        Command::Approve { id } => control::approve(&client(common, io)?, &id, io),
        Command::Why { name, tail } => why::why(&settings(common, io)?, &name, tail, io),
        Command::Pause { name } => orders::pause(&client(common, io)?, name.as_deref(), io),
        Command::Resume { name } => orders::resume(&client(common, io)?, name.as_deref(), io),
        Command::History => history::history(&settings(common, io)?, io),
        Command::Diff { from, to } => history::diff(&settings(common, io)?, from, to, io),
        Command::Rollback { generation } => orders::rollback(&client(common, io)?, generation, io),
        Command::Drain { timeout } => orders::drain(&client(common, io)?, timeout.into(), io),
        Command::Uncordon => orders::uncordon(&client(common, io)?, io),
        Command::Exec { stdin, tty, user, workdir, env, container, privileged, name, command } => {
            let name = names::with_container(name, container);
            let wanted = exec::Wanted { name, stdin, tty, user, workdir, env, privileged, command };
            exec::exec(&settings(common, io)?, wanted, io)
        }
        Command::Cp { from, to } => cp::cp(&settings(common, io)?, &from, &to, io),
        Command::Attach { stdin, detach_keys, name } => {
            attach::attach(&settings(common, io)?, &attach::Wanted { name, stdin, detach_keys }, io)
        }
        Command::PortForward { name, ports, address } => {
            forward::forward(&settings(common, io)?, &name, &ports, address, io)
        }
        Command::Stats { name } => stats::stats(&client(common, io)?, name.as_deref(), io),
        Command::Top { name } => stats::top(&client(common, io)?, name.as_deref(), io),
        Command::Images => images::images(&settings(common, io)?, io),
        Command::Pull { image, platform, missing } => {
            let wanted = images::Pull { image: &image, platform: platform.as_deref(), missing };
            images::pull(&settings(common, io)?, &wanted, io)
        }
        Command::Load { path } => images::load_images(&settings(common, io)?, &path, io),
        Command::Unpack { source, destination, image } => {
            images::unpack(&settings(common, io)?, &source, image.as_deref(), &destination, io)
        }
        Command::Tag { image, name } => store::tag(&settings(common, io)?, &image, &name, io),
        Command::Rmi { images } => store::remove(&settings(common, io)?, &images, io),
        Command::Pin { images, off } => store::pin(&settings(common, io)?, &images, !off, io),
        Command::Prune { older_than, loaded, named } => {
            store::prune(&settings(common, io)?, &store::Prune { older_than: older_than.into(), loaded, named }, io)
        }
        Command::Df => store::usage(&settings(common, io)?, io),
        Command::Verify { repair } => store::verify(&settings(common, io)?, repair, io),
        Command::Save { path, images } => store::save_images(&settings(common, io)?, &images, &path, io),
        Command::Schema { kind } => schema::schema(kind.as_deref(), io),
        Command::Completions { shell } => completions(shell, io),
        Command::Man { dir } => manpages(&dir),
        Command::Config => config::config(&loaded(common, &[])?, io),
        Command::Version => version(io),
    }
}

fn completions(shell: clap_complete::Shell, io: &mut Io<'_>) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mainstay", &mut script);
    io.out.write_all(&script)?;
    Ok(0)
}

fn manpages(dir: &std::path::Path) -> Outcome {
    let failed = |error| CliError::new("cannot write the manual pages").place(dir.display().to_string()).cause(error);
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
    Ok(0)
}

fn version(io: &mut Io<'_>) -> Outcome {
    if io.json {
        io.json(&serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "architecture": std::env::consts::ARCH,
            "api": 1,
        }))?;
    } else {
        writeln!(io.out, "mainstay {} ({})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)?;
    }
    Ok(0)
}

/// The layers that these flags make, with more flags of a command.
fn layers(common: &Common, more: &[(&str, String)]) -> Result<Layers, CliError> {
    let mut flags = Vec::new();
    for pair in &common.set {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(CliError::new(format!("--set wants KEY=VALUE, found `{pair}`")));
        };
        flags.push((format!("{}{key}", crate::config::SET), value.to_owned()));
    }
    for (key, path) in [("data_dir", &common.data_dir), ("run_dir", &common.run_dir)] {
        if let Some(path) = path {
            flags.push((key.to_owned(), run::absolute(path)?));
        }
    }
    flags.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    Ok(Layers::of_process(common.config.clone(), flags))
}

/// The configuration, every problem of it told at once.
fn loaded(common: &Common, more: &[(&str, String)]) -> Result<Loaded, Failed> {
    layers(common, more)?.load().map_err(|error| config::refused(&error).into())
}

/// Settings for a command that only needs to find the agent: a broken file must not hide a running agent.
fn settings(common: &Common, io: &mut Io<'_>) -> Result<Settings, Failed> {
    match layers(common, &[])?.load() {
        Ok(loaded) => Ok(loaded.settings),
        Err(_) => settings_of_last(common, io),
    }
}

/// Settings for a command that must find the containers of the last agent, whatever the files say by now.
fn settings_of_last(common: &Common, io: &mut Io<'_>) -> Result<Settings, Failed> {
    let layers = layers(common, &[])?;
    let loaded = match layers.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            let given = Layers { config: Some("/dev/null".into()), ..layers.clone() };
            given.load().map_err(|error| Failed::from(config::refused(&error)))?;
            let instead = "using what the agent had, what can be understood, variables and flags";
            writeln!(io.err, "warning: {error}; {instead} (see `mainstay config`)")?;
            layers.salvage()
        }
    };
    Ok(Places::recall(loaded))
}

fn client(common: &Common, io: &mut Io<'_>) -> Result<Client, Failed> {
    Ok(Client::new(settings(common, io)?.socket()))
}

#[cfg(test)]
mod tests;
