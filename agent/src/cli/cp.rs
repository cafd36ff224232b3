//! `mainstay cp`: copies files between a container and the host, or as a tar archive over standard streams.

use std::path::PathBuf;

use runtime::exec::copy::{self, Copied, CopyError};

use super::exec::{Running, running};
use super::output::{CliError, Failed, Io, Outcome, size};
use crate::config::Settings;

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// A tar archive on a standard stream.
    Stream,
    Host(PathBuf),
    Container(String, PathBuf),
}

/// `NAME[/CONTAINER]:PATH`, a path of the host, or `-`. A path of the host with a colon is written `./a:b`.
fn parse(text: &str) -> End {
    match text.split_once(':') {
        _ if text == "-" => End::Stream,
        Some((name, path)) if !name.is_empty() && !name.starts_with(['/', '.']) => {
            End::Container(name.to_owned(), PathBuf::from(if path.is_empty() { "/" } else { path }))
        }
        _ => End::Host(PathBuf::from(text)),
    }
}

pub(super) fn cp(settings: &Settings, from: &str, to: &str, io: &mut Io<'_>) -> Outcome {
    let told = |error: CopyError| CliError::of(&error);
    let copied = match (parse(from), parse(to)) {
        (End::Container(name, path), End::Stream) => {
            let (container, root) = open(settings, &name, io)?;
            let copied = copy::export(&root, &path, &mut *io.out).map_err(|error| container.failed(&error))?;
            io.out.flush()?;
            copied
        }
        (End::Container(name, path), End::Host(target)) => {
            let (container, root) = open(settings, &name, io)?;
            let (host, target) = (copy::host_root().map_err(told)?, copy::absolute(&target).map_err(told)?);
            copy::copy((&root, &path), (&host, &target)).map_err(|error| container.failed(&error))?
        }
        (End::Stream, End::Container(name, path)) => {
            let (container, root) = open(settings, &name, io)?;
            let into = copy::destination(&root, &path).map_err(|error| container.failed(&error))?;
            copy::import(&into, std::io::stdin().lock()).map_err(|error| container.failed(&error))?
        }
        (End::Host(source), End::Container(name, path)) => {
            let (container, root) = open(settings, &name, io)?;
            let (host, source) = (copy::host_root().map_err(told)?, copy::absolute(&source).map_err(told)?);
            copy::copy((&host, &source), (&root, &path)).map_err(|error| container.failed(&error))?
        }
        (from, to) => {
            let both = matches!((from, to), (End::Container(..), End::Container(..)));
            let what = if both { "both ends are in containers" } else { "neither end is in a container" };
            return Err(CliError::new(what)
                .hint("write the end in a container as NAME[/CONTAINER]:PATH, the other as a path of this host or `-`")
                .into());
        }
    };
    report(copied, io)
}

fn open(settings: &Settings, name: &str, io: &mut Io<'_>) -> Result<(Running, copy::Root), Failed> {
    let container = running(settings, name, io)?;
    let root = copy::container_root(&container.attempt.run).map_err(|error| container.failed(&error))?;
    Ok((container, root))
}

fn report(Copied { entries, bytes, skipped }: Copied, io: &mut Io<'_>) -> Outcome {
    writeln!(io.err, "{} copied, {}", super::control::count(count(entries), "entry"), size(bytes))?;
    if skipped > 0 {
        let what = super::control::count(count(skipped), "entry");
        writeln!(io.err, "warning: {what} left out: device nodes and sockets are not copied")?;
    }
    Ok(0)
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let container = |name: &str, path: &str| End::Container(name.to_owned(), PathBuf::from(path));
        for (text, end) in [
            ("-", End::Stream),
            ("web:/etc", container("web", "/etc")),
            ("default/web/main:a/b:c", container("default/web/main", "a/b:c")),
            ("web:", container("web", "/")),
            ("./a:b", End::Host("./a:b".into())),
            ("/a:b", End::Host("/a:b".into())),
            ("file", End::Host("file".into())),
        ] {
            assert_eq!(parse(text), end, "{text}");
        }
    }
}
