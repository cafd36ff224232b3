//! The socket: for root only, and never taken from an agent that answers.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};

use super::ApiError;

/// Binds the socket. It appears under its name with mode 0600 and listening already, so nobody ever sees it half made.
pub(super) async fn bind(path: &Path) -> Result<UnixListener, ApiError> {
    let failed = |source| ApiError::Socket { path: path.to_owned(), source };
    match UnixStream::connect(path).await {
        Ok(_) => return Err(ApiError::Taken { path: path.to_owned() }),
        // Left behind by an agent that was killed, or none at all.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {}
        Err(error) => return Err(failed(error)),
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    let draft = path.with_extension("new");
    match std::fs::remove_file(&draft) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(&draft).map_err(failed)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)?;
    Ok(listener)
}

/// A listener that somebody else has bound.
pub(super) fn take(listener: std::os::unix::net::UnixListener) -> std::io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}
