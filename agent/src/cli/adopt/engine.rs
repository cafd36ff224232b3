//! Asks Docker or Podman, or reads what was saved of their answers.

use std::io::Read as _;
use std::process::Command;

use serde_json::Value;

use super::super::output::CliError;
use super::Wanted;

/// An answer above this many bytes is of no host.
const MAX_BYTES: u64 = 64 << 20;

/// The program to be asked; `None` where a file is read.
pub(super) fn program(from: &str) -> Option<&str> {
    matches!(from, "docker" | "podman").then_some(from)
}

pub(super) fn read(wanted: &Wanted<'_>) -> Result<Value, CliError> {
    let bytes = match wanted.from {
        "-" => read_all(std::io::stdin().lock()).map_err(|error| CliError::new("cannot read stdin").cause(error))?,
        from if program(from).is_some() => ask(from, wanted.names)?,
        path => std::fs::File::open(path)
            .and_then(read_all)
            .map_err(|error| CliError::new(format!("cannot read {path}")).cause(error))?,
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        CliError::new("cannot read the answer of `inspect` as JSON").cause(place)
    })
}

fn read_all(from: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the program says of these containers, or of all that run.
fn ask(program: &str, names: &[String]) -> Result<Vec<u8>, CliError> {
    let mut args: Vec<String> = vec!["inspect".to_owned(), "--type=container".to_owned()];
    if names.is_empty() {
        let listed = run(program, &["ps".to_owned(), "--quiet".to_owned(), "--no-trunc".to_owned()])?;
        let ids: Vec<String> = String::from_utf8_lossy(&listed).split_whitespace().map(str::to_owned).collect();
        if ids.is_empty() {
            return Ok(b"[]".to_vec());
        }
        args.extend(ids);
    } else {
        args.extend(names.iter().cloned());
    }
    run(program, &args)
}

/// What the program says of volumes, networks or images.
pub(super) fn objects(program: &str, kind: &str, names: Vec<String>) -> Result<Vec<Value>, CliError> {
    let args: Vec<String> = [kind, "inspect"].into_iter().map(str::to_owned).chain(names).collect();
    let answer = run(program, &args)?;
    serde_json::from_slice(&answer)
        .map_err(|error| CliError::new(format!("cannot read the answer of `{program} {kind} inspect`")).cause(error))
}

fn run(program: &str, args: &[String]) -> Result<Vec<u8>, CliError> {
    let failed = || CliError::new(format!("cannot run `{program} {}`", args.join(" ")));
    let output = Command::new(program).args(args).output().map_err(|error| {
        failed().cause(error).hint("`--from FILE` takes the output of `docker inspect` from elsewhere")
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(failed().cause(String::from_utf8_lossy(&output.stderr).trim()))
}
