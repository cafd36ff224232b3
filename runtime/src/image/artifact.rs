//! Artifacts: what registries keep beside images, such as directories of manifests.
//!
//! They are fetched whole and handed on in memory; every byte has passed its digest check by then. Connections, logins,
//! mirrors, retries and limits are those of images. Nothing is written here, and no content is understood.

use std::sync::Arc;

use spec::digest::Digest;
use spec::image_ref::ImageRef;

use super::registry::artifact;
use super::registry::{Client, Endpoint, ManifestError, RegistryError};
use crate::api::PullCredentials;

/// Fetches artifacts. Cheap to clone; all clones share connections and tokens.
#[derive(Clone)]
pub struct Artifacts(Client);

/// An artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The digest of its manifest: it stands for all of it.
    pub digest: Digest,
    /// Its layers, in their order.
    pub layers: Vec<Layer>,
}

/// A layer of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The name of the file that it was made of, when it says one. Anybody may have written it.
    pub title: Option<String>,
    /// Its content, still compressed.
    pub bytes: Vec<u8>,
}

/// Why there is no artifact.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The registry or the way to it.
    #[error("cannot fetch artifact `{reference}`")]
    Registry {
        /// Which.
        reference: String,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
    /// It is no artifact.
    #[error("cannot use artifact `{reference}`")]
    Manifest {
        /// Which.
        reference: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// It is too large.
    #[error("cannot use artifact `{reference}`: its layers have {found} bytes, at most {limit} are fetched")]
    TooLarge {
        /// Which.
        reference: String,
        /// Its size, as its manifest says.
        found: u64,
        /// The limit.
        limit: u64,
    },
}

impl std::fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Artifacts")
    }
}

impl Artifacts {
    /// Over the connections and logins of images.
    pub(super) const fn new(client: Client) -> Self {
        Self(client)
    }

    /// The artifact that a reference names now; `None` when that is the one which is known already. Its layers may
    /// have `limit` bytes in all.
    ///
    /// # Errors
    /// No place has it, or it cannot be used.
    pub async fn fetch(
        &self,
        reference: &ImageRef,
        known: Option<Digest>,
        limit: u64,
    ) -> Result<Option<Artifact>, ArtifactError> {
        if known.is_some() && known == reference.digest() {
            return Ok(None);
        }
        let failed = |source| ArtifactError::Registry { reference: reference.to_string(), source: Box::new(source) };
        let mut outcome = None;
        for endpoint in self.0.config().endpoints(reference).map_err(failed)? {
            match self.fetch_from(endpoint, reference, known, limit).await {
                Ok(found) => return Ok(found),
                // The registry itself comes last: its word is the one that counts.
                Err(error) => outcome = Some(error),
            }
        }
        // There is always the registry.
        outcome.map_or(Ok(None), Err)
    }

    async fn fetch_from(
        &self,
        endpoint: Endpoint,
        reference: &ImageRef,
        known: Option<Digest>,
        limit: u64,
    ) -> Result<Option<Artifact>, ArtifactError> {
        let name = || reference.to_string();
        let failed = |source| ArtifactError::Registry { reference: name(), source: Box::new(source) };
        let session = self.0.session(endpoint, Arc::new(PullCredentials::default()));
        let wanted = reference.manifest_reference();
        // Registries count manifests that are fetched; looking at the digest is free.
        if let Some(known) = known
            && session.head(&wanted).await.map_err(failed)? == Some(known)
        {
            return Ok(None);
        }
        let raw = session.manifest(&wanted, reference.digest().map(|digest| (digest, None))).await.map_err(failed)?;
        if known == Some(raw.digest) {
            return Ok(None);
        }
        let parts = artifact::read(&raw.bytes, raw.content_type.as_deref())
            .map_err(|source| ArtifactError::Manifest { reference: name(), source })?;
        let found = parts.iter().map(|part| part.blob.size).fold(0, u64::saturating_add);
        if found > limit {
            return Err(ArtifactError::TooLarge { reference: name(), found, limit });
        }
        let mut layers = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let what = format!("layer {} of {}", index + 1, parts.len());
            let bytes = session.small_blob(&part.blob, &what).await.map_err(failed)?;
            layers.push(Layer { title: part.title.clone(), bytes });
        }
        Ok(Some(Artifact { digest: raw.digest, layers }))
    }
}
