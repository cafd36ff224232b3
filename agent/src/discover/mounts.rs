//! Which file system a directory is on, by the mount table: a source on a file system that is not mounted any more
//! shows the empty directory below, which says nothing about what is wished.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Mount points of this process's view.
#[derive(Debug, Default)]
pub struct Mounts(BTreeSet<PathBuf>);

impl Mounts {
    /// As they are now; none when the table cannot be read, so that nothing is concluded from it.
    #[must_use]
    pub fn now() -> Self {
        std::fs::read("/proc/self/mountinfo").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// Reads proc(5) mountinfo: the fifth field of each line.
    fn parse(text: &[u8]) -> Self {
        let field = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(unescape);
        Self(text.split(|byte| *byte == b'\n').filter_map(field).collect())
    }

    /// The mount point that a path without symlinks is below.
    #[must_use]
    pub fn of(&self, path: &Path) -> Option<&Path> {
        path.ancestors().find_map(|above| self.0.get(above).map(PathBuf::as_path))
    }

    /// Whether something is mounted exactly there. With an empty table that is not known, and true.
    #[must_use]
    pub fn has(&self, point: &Path) -> bool {
        self.0.is_empty() || self.0.contains(point)
    }

    /// The mount points that some directories are on.
    #[must_use]
    pub fn below<'a>(&self, directories: impl IntoIterator<Item = &'a Path>) -> BTreeSet<PathBuf> {
        let real = directories.into_iter().filter_map(|dir| dir.canonicalize().ok());
        real.filter_map(|dir| self.of(&dir).map(Path::to_owned)).collect()
    }
}

/// Spaces, tabs, line feeds and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_longest_mount_point_above_it() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:40 / /srv/my\\040disk rw - nfs4 host:/x rw\n";
        let mounts = Mounts::parse(table);
        for (path, point) in [("/etc", "/"), ("/srv/my disk/a/b", "/srv/my disk"), ("/srv/my", "/"), ("/", "/")] {
            assert_eq!(mounts.of(Path::new(path)), Some(Path::new(point)), "{path}");
        }
        assert!(mounts.has(Path::new("/srv/my disk")) && !mounts.has(Path::new("/srv")));
        assert!(Mounts::default().has(Path::new("/anything")), "an unreadable table proves nothing");
    }
}
