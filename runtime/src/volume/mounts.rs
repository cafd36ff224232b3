//! What is mounted below a directory.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use super::sub_path::detach;

/// Mount points at or below a directory in the mount namespace of this thread, newest first, so that each can be
/// unmounted before what it lies on.
pub(super) fn below(dir: &Path) -> io::Result<impl Iterator<Item = PathBuf>> {
    let table = fs::read("/proc/thread-self/mountinfo")?;
    // Mount points are told by their real paths.
    let dir = match fs::canonicalize(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => dir.to_owned(),
        other => other?,
    };
    let mut found: Vec<PathBuf> = table
        .split(|b| *b == b'\n')
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(|point| PathBuf::from(std::ffi::OsString::from_vec(unescape(point))))
        .filter(|point| point.starts_with(&dir))
        .collect();
    found.reverse();
    Ok(found.into_iter())
}

/// Whether something is mounted at that very place.
pub(crate) fn is_mount_point(path: &Path) -> io::Result<bool> {
    let real = match fs::canonicalize(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    Ok(below(&real)?.any(|point| point == real))
}

/// Unmounts everything at or below a directory. All is tried; the first error is told.
pub(super) fn unmount_below(dir: &Path) -> io::Result<()> {
    below(dir)?.map(|point| detach(&point)).fold(Ok(()), io::Result::and)
}

/// Blanks, tabs, line breaks and backslashes are octal numbers in mountinfo.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let number = tail.get(..3).filter(|_| first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match number.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        for (text, expected) in [("/a\\040b", "/a b"), ("/a\\134b", "/a\\b"), ("/a\\04", "/a\\04"), ("/", "/")] {
            assert_eq!(unescape(text.as_bytes()), expected.as_bytes(), "{text}");
        }
    }
}
