//! What can go wrong with volumes.

use std::io;
use std::path::{Path, PathBuf};

/// A failed volume operation.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A path of the host is not what the volume says it must be (Kubernetes HostPathType).
    #[error("cannot use host path {} for volume `{volume}`: {found}, and it must be {wanted}", path.display())]
    HostPath {
        /// The volume.
        volume: String,
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What must be there.
        wanted: &'static str,
    },
    /// A name or path of the manifest that would lead elsewhere than it may.
    #[error("cannot use {what} `{value}`: {why}")]
    Refused {
        /// What kind of value.
        what: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A mount names a volume that the pod does not have.
    #[error("cannot find volume `{0}` in the pod")]
    Unknown(String),
    /// The content of a volume of files was not handed over.
    #[error("cannot fill volume `{0}`: its files were not resolved")]
    NoFiles(String),
    /// A volume that outlives pods is mounted.
    #[error("cannot remove volume `{0}`: it is mounted")]
    Busy(String),
    /// The kernel refused a step.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Several steps of a removal failed; the others were done.
    #[error("cannot remove everything: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<VolumeError>),
}

/// What functions of this module return.
pub(super) type Result<T> = std::result::Result<T, VolumeError>;

/// Says on which path something failed; takes errors of std, nix and rustix.
pub(super) fn failed<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> VolumeError {
    move |source| VolumeError::Io { what, path: path.to_owned(), source: source.into() }
}
