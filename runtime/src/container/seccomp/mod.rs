//! System call filters: profiles as people write them, the built-in one, and the compiler to BPF.
//!
//! libcontainer ignores `linux.seccomp` without libseccomp, so filters are compiled here and installed by the
//! container's first process right before exec. Profiles are in the format of Docker and of the OCI runtime
//! specification (config-linux.md, "Seccomp"). Never sets `no_new_privs`: that is the container's own choice.

mod compile;
mod default_profile;
mod numbers;
mod profile;

use std::path::Path;

use spec::pod::Seccomp;

pub use compile::Filter;
pub use profile::Profile;

use super::caps::CapSet;

/// What can be wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// It cannot be read.
    #[error("cannot read seccomp profile {path}")]
    Read {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not a profile.
    #[error("cannot parse seccomp profile {path}")]
    Parse {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It uses something that is not supported here.
    #[error("cannot use a seccomp profile with {0}")]
    Unsupported(String),
    /// It has more rules than a filter can hold.
    #[error("seccomp profile is too large: {0} instructions, the kernel takes 4096")]
    TooLarge(usize),
}

/// Longest profile that is read, in bytes.
const MAX_PROFILE: u64 = 4 << 20;

/// The filter for a container, or `None` when it runs without one.
///
/// # Errors
/// A profile of the host that is missing or wrong.
pub fn filter_for(wanted: Option<&Seccomp>, caps: CapSet) -> Result<Option<Filter>, SeccompError> {
    profile_for(wanted)?.map(|profile| compile::compile(&profile, caps)).transpose()
}

/// What `linux.seccomp` of an OCI configuration says for the same container, for runtimes that install it themselves.
///
/// # Errors
/// As [`filter_for`].
pub(crate) fn oci(wanted: Option<&Seccomp>, caps: CapSet) -> Result<Option<serde_json::Value>, SeccompError> {
    Ok(profile_for(wanted)?.map(|profile| compile::oci(&profile, caps)))
}

fn profile_for(wanted: Option<&Seccomp>) -> Result<Option<Profile>, SeccompError> {
    Ok(Some(match wanted {
        Some(Seccomp::Unconfined) => return Ok(None),
        None | Some(Seccomp::RuntimeDefault) => default_profile::profile(),
        Some(Seccomp::Localhost(path)) => read(Path::new(path))?,
    }))
}

fn read(path: &Path) -> Result<Profile, SeccompError> {
    use std::io::Read as _;
    let shown = path.display().to_string();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_PROFILE).read_to_string(&mut text))
        .map_err(|source| SeccompError::Read { path: shown.clone(), source })?;
    serde_json::from_str(&text).map_err(|source| SeccompError::Parse { path: shown, source })
}
