//! The agent as a process: puts the parts together and runs them until it is told to end.

use crate::config::Settings;

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The interface cannot be served.
    #[error(transparent)]
    Api(#[from] crate::api::ApiError),
}

impl RunError {
    /// What the reader can do.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Api(error) => error.hint(),
        }
    }
}

/// Runs until the agent is told to end; the exit code of the process.
///
/// # Errors
///
/// Something that it cannot do without is missing.
pub async fn run(settings: Settings) -> Result<u8, RunError> {
    tracing::info!(data_dir = %settings.data_dir.display(), "agent started");
    Ok(0)
}
