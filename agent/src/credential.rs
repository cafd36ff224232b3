//! Files with credentials: named by an absolute path, or as `credential:NAME` for one that systemd hands over
//! (`LoadCredential=`, `LoadCredentialEncrypted=`; systemd.exec(5), "Credentials").
//!
//! A file that others can read is refused. What is read here is never logged.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What stands before the name of a credential of systemd.
const SCHEME: &str = "credential:";

/// A credential above this many bytes is none.
const MAX_BYTES: u64 = 1 << 20;

/// Why a credential cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// systemd has handed nothing over.
    #[error("credential `{0}` is not there: this process was started without credentials")]
    NoDirectory(String),
    /// It cannot be read.
    #[error("cannot read `{path}`", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others could have read it.
    #[error("`{path}` is open to others (mode {mode:04o}, owner {owner})", path = path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// It is too long.
    #[error("`{path}` has more than {MAX_BYTES} bytes", path = path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
}

impl CredentialError {
    /// What the reader can do.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoDirectory(name) => {
                format!("add `LoadCredential={name}:/path/of/the/file` to mainstay.service (systemctl edit mainstay)")
            }
            Self::Open { path, .. } => format!("chown root {0} && chmod 0600 {0}", path.display()),
            Self::Read { .. } | Self::TooLarge { .. } => "name a file with the credential in it".to_owned(),
        }
    }
}

/// The file that a setting names.
///
/// # Errors
/// It is a credential of systemd, and there are none.
pub fn resolve(setting: &Path) -> Result<PathBuf, CredentialError> {
    resolve_in(setting, std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).as_deref())
}

fn resolve_in(setting: &Path, directory: Option<&Path>) -> Result<PathBuf, CredentialError> {
    match setting.to_str().and_then(|text| text.strip_prefix(SCHEME)) {
        Some(name) => match directory {
            Some(directory) => Ok(directory.join(name)),
            None => Err(CredentialError::NoDirectory(name.to_owned())),
        },
        None => Ok(setting.to_owned()),
    }
}

/// Whether a setting names a file with a credential: an absolute path, or `credential:` and a plain name.
#[must_use]
pub fn is_valid(setting: &Path) -> bool {
    match setting.to_str().and_then(|text| text.strip_prefix(SCHEME)) {
        Some(name) => !name.is_empty() && !name.starts_with('.') && !name.contains('/'),
        None => setting.is_absolute(),
    }
}

/// Reads a credential that nobody but root, or who runs this, may know.
///
/// # Errors
/// It is not there, not readable, or open to others.
pub fn read(setting: &Path) -> Result<Vec<u8>, CredentialError> {
    let path = resolve(setting)?;
    let failed = |source| CredentialError::Read { path: path.clone(), source };
    let file = std::fs::File::open(&path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let (mode, owner) = (meta.mode() & 0o7777, meta.uid());
    // systemd gives 0440 where the unit has a user of its own, and keeps others away by the directory.
    let of_systemd = path != setting;
    let strangers = owner != 0 && owner != nix::unistd::geteuid().as_raw();
    if !of_systemd && (mode & 0o077 != 0 || strangers) {
        return Err(CredentialError::Open { path, mode, owner });
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(CredentialError::TooLarge { path });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn names_of_credentials_lead_to_their_directory() {
        let check = |setting: &str, directory: Option<&str>, expected: Option<&str>| {
            let found = resolve_in(Path::new(setting), directory.map(Path::new)).ok();
            assert_eq!(found.as_deref(), expected.map(Path::new), "{setting}");
        };
        check("/etc/key", Some("/run/c"), Some("/etc/key"));
        check("credential:key", Some("/run/c"), Some("/run/c/key"));
        check("credential:key", None, None);
        for (setting, valid) in
            [("/a", true), ("a", false), ("credential:a.txt", true), ("credential:", false), ("credential:../a", false)]
        {
            assert_eq!(is_valid(Path::new(setting)), valid, "{setting}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("key");
        std::fs::write(&path, "secret").expect("written");
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o666, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
            let read = read(&path);
            assert_eq!(read.is_ok(), good, "{mode:o}: {read:?}");
            if let Err(error) = read {
                assert!(error.to_string().contains(&format!("mode {mode:04o}")), "{error}");
                assert!(error.hint().contains("chmod 0600"), "{}", error.hint());
            }
        }
    }
}
