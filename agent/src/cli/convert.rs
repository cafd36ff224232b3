//! `mainstay convert`: a `docker run` command as a Compose file. Asks no agent and changes nothing.

use std::io::Read as _;

use serde_json::json;
use spec::manifest::compose::convert::{ConvertError, Converted, docker_run, docker_run_words};

use super::output::{CliError, Io, Outcome};

/// Longer than any command line that a system takes.
const MAX_BYTES: u64 = 1 << 20;

/// `docker run ...` as one text or word by word, or `-` for a text on stdin.
pub(super) fn convert(words: &[String], io: &mut Io<'_>) -> Outcome {
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
