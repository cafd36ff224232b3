//! Puts another binary in the place of this one, so that there is always a whole one: the old or the new.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Why a binary cannot be put in place. The old one is in place still.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// It cannot be read, or not be written beside the old one.
    #[error("cannot copy {} to {}", from.display(), to.display())]
    Copy {
        /// The new binary.
        from: PathBuf,
        /// Its copy.
        to: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The old one cannot be kept.
    #[error("cannot keep the present binary as {}", path.display())]
    Keep {
        /// Its name from then on.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The switch itself.
    #[error("cannot put the new binary in place as {}", path.display())]
    Rename {
        /// The place.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A copy beside the place that it is for. Removed when it is not used.
#[derive(Debug)]
pub struct Draft(Option<PathBuf>);

impl Draft {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            drop(fs::remove_file(path));
        }
    }
}

/// The name under which the binary before is kept.
pub type Backup = PathBuf;

/// Where the binary before is kept after [`replace`].
#[must_use]
pub fn backup_of(place: &Path) -> Backup {
    beside(place, ".previous")
}

fn beside(place: &Path, ending: &str) -> PathBuf {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    place.with_file_name(name)
}

/// Copies a binary beside the place that it is for, on the disk and executable.
///
/// # Errors
/// It cannot be read, or the directory cannot be written.
pub(super) fn draft(binary: &Path, place: &Path) -> Result<Draft, ReplaceError> {
    let to = beside(place, ".new");
    let copy = || {
        // A draft of an earlier try may be running its check still: never write into it.
        match fs::remove_file(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::copy(binary, &to)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        File::open(&to)?.sync_all()
    };
    let draft = Draft(Some(to.clone()));
    copy().map_err(|source| ReplaceError::Copy { from: binary.to_owned(), to: to.clone(), source })?;
    Ok(draft)
}

/// Switches: the old binary keeps a second name, the new one takes its first one.
///
/// # Errors
/// The disk refuses; then the old one is in place.
pub fn replace(mut draft: Draft, place: &Path) -> Result<(), ReplaceError> {
    let backup = backup_of(place);
    let keep = || {
        let second = beside(place, ".previous.new");
        match fs::remove_file(&second) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::hard_link(place, &second)?;
        fs::rename(&second, &backup)
    };
    keep().map_err(|source| ReplaceError::Keep { path: backup.clone(), source })?;
    let switch = || {
        fs::rename(draft.path(), place)?;
        File::open(place.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    switch().map_err(|source| ReplaceError::Rename { path: place.to_owned(), source })?;
    draft.0 = None;
    Ok(())
}
