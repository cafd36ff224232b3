//! `mainstay attach`: shows what a container writes and hands it what is typed, until it ends or one detaches.

use std::io::IsTerminal as _;

use runtime::container::record::read_exit;
use runtime::exec::{AttachOptions, Attached};

use super::exec::running;
use super::output::{CliError, Io, Outcome};
use crate::config::Settings;

/// What to attach to, and how.
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) stdin: bool,
    pub(super) detach_keys: String,
}

pub(super) fn attach(settings: &Settings, wanted: &Wanted, io: &mut Io<'_>) -> Outcome {
    let detach = keys(&wanted.detach_keys)?;
    let container = running(settings, &wanted.name, io)?;
    let hint = match (wanted.stdin && std::io::stdin().is_terminal(), detach.is_empty()) {
        (true, false) => format!("type {} to detach", wanted.detach_keys),
        _ => "end it with ctrl-c; the container goes on".to_owned(),
    };
    writeln!(io.err, "attached to container `{}` of pod `{}`: {hint}", container.container, container.pod)?;
    io.err.flush()?;
    let options = AttachOptions { stdin: wanted.stdin, detach };
    match runtime::exec::attach(&container.attempt.run, &options) {
        Ok(Attached::Detached) => {
            writeln!(io.err, "detached; the container goes on")?;
            Ok(0)
        }
        // The record is written before the connection is closed. Without one the container runs on.
        Ok(Attached::Ended) => match read_exit(&container.attempt.exit_file()) {
            Some(record) => Ok(u8::try_from(record.exit.code).unwrap_or(u8::MAX)),
            None => Err(CliError::new("cut off: this reader was too far behind")
                .hint("the container goes on, and its log is whole: `mainstay logs`")
                .into()),
        },
        Err(error) => Err(container.failed(&error).into()),
    }
}

/// `ctrl-p,ctrl-q` as Docker writes it; `none` for no keys.
fn keys(text: &str) -> Result<Vec<u8>, CliError> {
    if text == "none" || text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|key| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
            (Some(letter), _) => match letter.as_bytes() {
                [byte @ (b'@'..=b'_' | b'a'..=b'z')] => Some(byte.to_ascii_uppercase() & 0x1f),
                _ => None,
            },
            (None, [byte]) if byte.is_ascii_graphic() => Some(*byte),
            _ => None,
        })
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| {
            CliError::new(format!("`{text}` names no keys")).hint("write them as `ctrl-p,ctrl-q`, or `none`")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_docker_does() {
        for (text, bytes) in [
            ("ctrl-p,ctrl-q", Some(&[0x10, 0x11][..])),
            ("ctrl-],x", Some(&[0x1d, b'x'])),
            ("none", Some(&[])),
            ("ctrl-pp", None),
            ("ctrl-", None),
        ] {
            assert_eq!(keys(text).ok().as_deref(), bytes, "{text}");
        }
    }
}
