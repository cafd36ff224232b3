//! A tar archive as a source: fetched over https, accepted by its digest.
//!
//! What the digest names never changes, so that nothing is asked once it is there.

use std::path::Path;

use spec::digest::Digest;

use super::{Content, MAX_SERVED, Selection, UnpackError};
use crate::config::ArchiveSource;
use crate::credential::{self, CredentialError};
use crate::revisions;

/// Why an archive is no source now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// The token cannot be had.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// It cannot be fetched.
    #[error("cannot fetch {url}")]
    Fetch {
        /// From where.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server says no.
    #[error("cannot fetch {url}: the server answered {status}")]
    Refused {
        /// From where.
        url: String,
        /// Its answer.
        status: u16,
    },
    /// It is another file.
    #[error("the archive has the digest sha256:{found}, not sha256:{wanted}")]
    Digest {
        /// What is served.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// It cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

/// One try: fetches and switches when this digest is not there yet. What counts then.
pub(crate) async fn poll(source: &ArchiveSource, home: &Path) -> Result<String, ArchiveError> {
    let selection = Selection { strip: source.strip, path: source.path.clone() };
    if !revisions::counts(home, &selection.place(source.hex())) {
        let content = Content { name: None, bytes: fetch(source).await? };
        super::switch(selection, home, source.hex(), vec![content]).await?;
    }
    Ok(source.hex().to_owned())
}

async fn fetch(source: &ArchiveSource) -> Result<Vec<u8>, ArchiveError> {
    let failed = |error: reqwest::Error| ArchiveError::Fetch { url: source.url.clone(), source: error.without_url() };
    runtime::install_crypto();
    // A token goes to the host of the URL only: reqwest drops it when a redirect leads to another one.
    let client = reqwest::Client::builder()
        .https_only(source.url.starts_with("https://"))
        .connect_timeout(std::time::Duration::from_secs(10))
        .read_timeout(std::time::Duration::from_secs(30))
        .user_agent("mainstay")
        .build()
        .map_err(failed)?;
    let mut request = client.get(&source.url);
    if let Some(file) = &source.token_file {
        request = request.bearer_auth(String::from_utf8_lossy(&credential::read(file)?).trim());
    }
    let mut answer = request.send().await.map_err(failed)?;
    if !answer.status().is_success() {
        return Err(ArchiveError::Refused { url: source.url.clone(), status: answer.status().as_u16() });
    }
    let mut bytes = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(failed)? {
        if bytes.len() + part.len() > MAX_SERVED {
            return Err(UnpackError::TooLarge.into());
        }
        bytes.extend_from_slice(&part);
    }
    if !source.is_this(&bytes) {
        let (found, wanted) = (Digest::of(&bytes).hex(), source.hex().to_owned());
        return Err(ArchiveError::Digest { found, wanted });
    }
    Ok(bytes)
}
