//! `mainstay convert`: a `docker run` command as a Compose file, or a Compose project as Kubernetes objects. Asks no
//! agent and changes nothing.

use std::io::Read as _;
use std::path::Path;

use serde_json::json;
use spec::diagnostic::Diagnostic;
use spec::manifest::compose::convert::{
    ConvertError, Converted, ConvertedProject, docker_run, docker_run_words, objects,
};

use super::output::{CliError, Io, Outcome};
use crate::discover::{self, Neighbours, Project};

/// Longer than any command line that a system takes.
const MAX_BYTES: u64 = 1 << 20;

/// `docker run ...` as one text or word by word, or `-` for a text on stdin.
pub(super) fn convert(words: &[String], io: &mut Io<'_>) -> Outcome {
    if let [path] = words
        && Path::new(path).exists()
    {
        return project(Path::new(path), io);
    }
    let converted = match words {
        [dash] if dash == "-" => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text);
            read.map_err(|error| CliError::new("cannot read stdin").cause(error))?;
            docker_run(&text)
        }
        // One text was quoted, so that nobody has split it yet.
        [line] => docker_run(line),
        // The shell has replaced what it replaces: a `$` that is left is meant as such.
        words => docker_run_words(&words.iter().map(|word| word.replace('$', "$$")).collect::<Vec<_>>()),
    };
    let Converted { name, text, notes } = converted.map_err(|error| refused(&error))?;
    if io.json {
        io.json(&json!({ "name": name, "compose": text, "notes": notes }))?;
        return Ok(0);
    }
    show(&text, &notes, io)
}

/// A Compose file, or the project of a directory, as Kubernetes objects.
fn project(path: &Path, io: &mut Io<'_>) -> Outcome {
    let project = if path.is_dir() {
        let listing = discover::discover(path).map_err(|error| CliError::of(&error))?;
        let (projects, _) = discover::projects(listing.files.iter().map(|file| file.path.as_path()));
        match <[Project; 1]>::try_from(projects) {
            Ok([one]) => one,
            Err(several) => {
                let told = CliError::new(format!("{} holds {} Compose projects", path.display(), several.len()));
                return Err(told.hint("name one Compose file").into());
            }
        }
    } else {
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        Project { dir, name: None, files: vec![path.to_owned()] }
    };
    let loaded = discover::load_project(&project, Neighbours::Known).map_err(|error| CliError::of(&error))?;
    if loaded.diagnostics.iter().any(Diagnostic::is_error) {
        let text = |file: &str| loaded.files.get(file).and_then(|bytes| std::str::from_utf8(bytes).ok());
        io.err.write_all(spec::render::render(&loaded.diagnostics, text, io.color).as_bytes())?;
        return Ok(1);
    }
    let ConvertedProject { text, notes } = objects(&loaded.project);
    if io.json {
        io.json(&json!({ "objects": text, "notes": notes }))?;
        return Ok(0);
    }
    show(&text, &notes, io)
}

/// What was made, and what of it a reader should know.
fn show(text: &str, notes: &[String], io: &mut Io<'_>) -> Outcome {
    io.out.write_all(text.as_bytes())?;
    io.out.flush()?;
    for note in notes {
        writeln!(io.err, "note: {note}")?;
    }
    Ok(0)
}

fn refused(error: &ConvertError) -> CliError {
    let told = CliError::new(error.to_string());
    match error {
        ConvertError::NotRun => told.hint("write it like: mainstay convert 'docker run -d -p 80:80 nginx'"),
        ConvertError::NoImage => told.hint("the image comes after the flags: docker run [FLAGS] IMAGE [COMMAND]"),
        _ => told,
    }
}
