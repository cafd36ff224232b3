//! The short form of `volumes`: `[SOURCE:]TARGET[:MODE]` (compose-go, package format).

use super::tree::Tree;

/// A short form, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Short {
    /// Name or path; `None` for an anonymous volume.
    pub(super) source: Option<String>,
    /// Path inside.
    pub(super) target: String,
    /// What follows, in order.
    pub(super) modes: Vec<String>,
}

/// Takes a short form apart.
pub(super) fn parse(text: &str) -> Result<Short, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 1 && parts.iter().any(|part| part.is_empty()) {
        return Err("there is nothing between two colons, or before or after one".to_owned());
    }
    let owned = |part: &&str| (*part).to_owned();
    match parts.as_slice() {
        [drive, ..] if windows_drive(drive, text) => Err("it is a path of Windows; only Linux is supported".to_owned()),
        [target] => Ok(Short { target: owned(target), ..Short::default() }),
        [source, target] => Ok(Short { source: Some(owned(source)), target: owned(target), modes: Vec::new() }),
        [source, target, modes] => Ok(Short {
            source: Some(owned(source)),
            target: owned(target),
            modes: modes.split(',').map(str::to_owned).collect(),
        }),
        _ => Err("it has too many colons".to_owned()),
    }
}

/// `C:\x:/data`, or `c:/x:/data`; but `d:/data:ro` is the volume `d`.
fn windows_drive(first: &str, text: &str) -> bool {
    let mut chars = first.chars();
    let letter = chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next().is_none();
    let rest = text.get(1..).unwrap_or_default();
    letter && (rest.starts_with(":\\") || rest.starts_with(":/") && rest[2..].contains(":/"))
}

/// Whether a source is a path of the host rather than the name of a volume.
pub(super) fn is_path(source: &str) -> bool {
    source.starts_with(['.', '/', '~'])
}

/// What makes two entries of `volumes` the same when files are merged: the path inside.
pub(super) fn merge_key(item: &Tree) -> Option<String> {
    match item.str() {
        Some(text) => parse(text).ok().map(|short| short.target),
        None => item.get("target").and_then(Tree::text),
    }
    .map(|target| if target.len() > 1 { target.trim_end_matches('/').to_owned() } else { target })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms() {
        let short = |source: Option<&str>, target: &str, modes: &[&str]| {
            Ok(Short {
                source: source.map(str::to_owned),
                target: target.to_owned(),
                modes: modes.iter().map(|mode| (*mode).to_owned()).collect(),
            })
        };
        #[rustfmt::skip]
        let good = [
            ("/data", short(None, "/data", &[])), ("data:/data", short(Some("data"), "/data", &[])),
            ("./a:/b:ro", short(Some("./a"), "/b", &["ro"])), ("~/a:/b:z,ro", short(Some("~/a"), "/b", &["z", "ro"])),
        ];
        for (text, expected) in good {
            assert_eq!(parse(text), expected, "{text}");
        }
        for text in ["", ":", ":/data", "a:", "a::ro", "a:/b:ro:x", "C:\\x:/data", "c:/x:/data"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
