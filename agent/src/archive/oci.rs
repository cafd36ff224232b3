//! An artifact of a registry as a source: what `flux push artifact` or `oras push` puts there.
//!
//! Layers that are tar archives, with gzip or without, are unpacked one after the other into the same directory; others
//! are files with the name of their title. A file that is there twice refuses all of it. The media types are no help:
//! `oras` calls a plain file a tar archive, so the bytes decide.

use std::path::Path;

use runtime::image::artifact::{ArtifactError, Artifacts};
use spec::digest::Digest;
use spec::image_ref::InvalidImageRef;

use super::{Content, MAX_SERVED, Selection, UnpackError};
use crate::config::OciSource;
use crate::revisions;

/// Why an artifact is no source now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OciError {
    /// It has no proper name.
    #[error(transparent)]
    Name(#[from] InvalidImageRef),
    /// It cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] ArtifactError),
    /// It cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

/// One try: asks for the digest, and fetches and switches when it is another one. What counts then.
pub(crate) async fn poll(
    source: &OciSource,
    home: &Path,
    known: Option<&str>,
    artifacts: &Artifacts,
) -> Result<String, OciError> {
    let selection = Selection { strip: source.strip, path: source.path.clone() };
    // What is there counts only when it is the part of the artifact that is wanted now.
    let known = known.filter(|hex| revisions::counts(home, &selection.place(hex)));
    let digest = known.and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok());
    let fetched = artifacts.fetch(&source.image_ref()?, digest, MAX_SERVED as u64).await?;
    match (fetched, known) {
        (Some(artifact), _) => {
            let layers = artifact.layers.into_iter().map(|layer| Content { name: layer.title, bytes: layer.bytes });
            super::switch(selection, home, &artifact.digest.hex(), layers.collect()).await?;
            Ok(artifact.digest.hex())
        }
        (None, known) => Ok(known.unwrap_or_default().to_owned()),
    }
}
