//! `mainstay adopt`: Compose files for what runs under Docker or Podman. Asks those for what they know and starts,
//! stops and changes nothing.

mod check;
mod container;
mod docker;
mod engine;
mod health;
mod known;
mod limits;
mod mounts;
mod networks;
mod podman;
mod volumes;

use std::path::{Path, PathBuf};

use super::output::{CliError, Io, Outcome};
use crate::config::Settings;
use known::Known;
use serde_json::{Value, json};

/// What is to be adopted.
pub(super) struct Wanted<'a> {
    /// `docker`, `podman`, a file with the output of their `inspect`, or `-`.
    pub(super) from: &'a str,
    /// Where files are written; without it they are shown.
    pub(super) dir: Option<&'a Path>,
    /// Where the agent reads manifests.
    pub(super) sources: &'a [PathBuf],
    /// Which containers; all that run without a name.
    pub(super) names: &'a [String],
}

/// A file for a container.
struct Made {
    file: String,
    text: String,
    notes: Vec<String>,
}

pub(super) fn adopt(wanted: &Wanted<'_>, io: &mut Io<'_>) -> Outcome {
    if let Some(dir) = wanted.dir {
        outside_of_sources(dir, wanted.sources)?;
    }
    let inspected = engine::read(wanted)?;
    let list = inspected.as_array().ok_or_else(|| {
        CliError::new("cannot use this as the output of `inspect`").hint("save it with: docker inspect $(docker ps -q)")
    })?;
    let mut known = Known::of(list);
    if let Some(program) = engine::program(wanted.from) {
        let mut unanswered = Vec::new();
        known.ask(list, &mut |kind, names| {
            engine::objects(program, kind, names).unwrap_or_else(|error| {
                unanswered.push(error);
                Vec::new()
            })
        });
        for error in unanswered {
            writeln!(io.err, "warning: {}: {}", error.message, error.causes.join(": "))?;
        }
    }
    let mut made: Vec<Made> = Vec::new();
    let mut refused = 0;
    for name in wanted.names.iter().filter(|name| !list.iter().any(|found| container::is_called(found, name))) {
        refused += 1;
        writeln!(io.err, "error: there is no container `{name}`")?;
    }
    let asked_for =
        |found: &&Value| wanted.names.is_empty() || wanted.names.iter().any(|name| container::is_called(found, name));
    for found in list.iter().filter(asked_for).filter_map(|found| container::container(found, &known)) {
        let name = found.name.clone();
        match found.convert() {
            Ok(mut converted) => {
                let file = file_name(&name, &made);
                converted.notes.extend(check::errors(&file, &converted.text));
                made.push(Made { file, text: converted.text, notes: converted.notes });
            }
            Err(error) => {
                refused += 1;
                writeln!(io.err, "error: cannot write a manifest for `{name}`\ncause: {error}")?;
            }
        }
    }
    if let Some(dir) = wanted.dir.filter(|_| !made.is_empty()) {
        std::fs::create_dir_all(dir)
            .map_err(|error| CliError::new(format!("cannot make {}", dir.display())).cause(error))?;
        let mut written = Vec::new();
        for file in made {
            let path = dir.join(&file.file);
            // One that is there already is no reason to leave the others out.
            if let Err(error) = write_new(&path, &file.text) {
                refused += 1;
                writeln!(io.err, "error: cannot write {}\ncause: {error}", path.display())?;
                continue;
            }
            written.push(file);
        }
        made = written;
    }
    if io.json {
        let files = made.iter().map(|made| json!({ "file": made.file, "compose": made.text, "notes": made.notes }));
        io.json(&json!({ "files": files.collect::<Vec<_>>(), "refused": refused }))?;
        return Ok(u8::from(refused > 0));
    }
    for Made { file, text, notes } in &made {
        match wanted.dir {
            Some(dir) => writeln!(io.err, "wrote {}", dir.join(file).display())?,
            None => write!(io.out, "# {file}\n{text}\n")?,
        }
        for note in notes {
            writeln!(io.err, "note: {note}")?;
        }
    }
    if made.is_empty() && refused == 0 {
        writeln!(io.err, "no container to adopt")?;
    } else if wanted.dir.is_some() && !made.is_empty() {
        let next =
            "`mainstay validate` them, stop the containers there, copy their volumes, move the files into a source";
        writeln!(io.err, "next: {next}")?;
    }
    Ok(u8::from(refused > 0))
}

/// Where an agent of these settings reads manifests, and where the one that runs does.
pub(super) fn sources(settings: &Settings) -> Vec<PathBuf> {
    let of_last: Option<Vec<PathBuf>> = crate::record::read(&settings.sources_file());
    settings.sources.iter().cloned().chain(of_last.unwrap_or_default()).collect()
}

/// The agent would start what is written into a source at once, beside the originals.
fn outside_of_sources(dir: &Path, sources: &[PathBuf]) -> Result<(), CliError> {
    let Some(source) = sources.iter().find(|source| real(dir).starts_with(real(source))) else { return Ok(()) };
    let source = source.display();
    Err(CliError::new("cannot write into a directory that the agent reads")
        .place(dir.display().to_string())
        .cause(format!(
            "{source} is a source: copies of the containers would start there while the originals run, without their data"
        ))
        .hint(format!(
            "write elsewhere, such as --dir ./adopted; copy the volumes, stop the old containers, then move the files to {source}"
        )))
}

/// A path without symlinks, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = path.ancestors().find_map(|above| {
        let rest = path.strip_prefix(above).ok()?;
        Some(above.canonicalize().ok()?.join(rest))
    });
    found.unwrap_or(path)
}

/// `NAME.compose.yaml`: a project of its own. Names of containers that differ in their case, say, get a number.
fn file_name(container: &str, made: &[Made]) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c.to_ascii_lowercase() } else { '-' };
    let name: String = container.chars().map(plain).collect();
    let mut file = format!("{name}.compose.yaml");
    let mut number = 1;
    while made.iter().any(|other| other.file == file) {
        number += 1;
        file = format!("{name}-{number}.compose.yaml");
    }
    file
}

/// Readable by its owner only: variables of containers are often passwords.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests;
