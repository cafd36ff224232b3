//! Why a pull failed, and what to do about it.

use std::sync::Arc;

use spec::image_ref::ImageRef;

use crate::api::{FailureClass, RuntimeError};
use crate::image::registry::{ManifestError, RegistryError};
use crate::image::store::StoreError;

/// A pull that failed. Cheap to clone: everyone who waited for the pull gets it.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct PullError(Arc<PullFailure>);

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum PullFailure {
    /// `imagePullPolicy: Never`.
    #[error("image `{0}` is not in the store, and imagePullPolicy is Never")]
    NotInStore(String),
    /// The platform makes no sense.
    #[error("cannot use platform: {0}")]
    Platform(String),
    /// The registry or the way to it.
    #[error("cannot fetch {what}")]
    Registry {
        /// "the manifest", "layer 2 of 5".
        what: String,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
    /// What the registry has is not an image for this host.
    #[error("cannot use image `{reference}`")]
    Manifest {
        /// What was asked for.
        reference: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// Unpacking or storing.
    #[error("cannot store {what}")]
    Store {
        /// "layer 2 of 5", "the image".
        what: String,
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
    /// A layer that is what its digest says, and cannot be inflated all the same.
    #[error("cannot unpack {what}, though it came as its digest says")]
    Corrupt {
        /// "layer 2 of 5".
        what: String,
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
    /// The unpacking or storing ended without a result.
    #[error("cannot store {0}: it was broken off")]
    Unfinished(String),
    /// Every mirror failed, and then the registry did.
    #[error("no mirror has it ({mirrors})")]
    Mirrors {
        /// What each mirror said.
        mirrors: String,
        /// What the registry said.
        #[source]
        source: Box<PullFailure>,
    },
    /// The registry must be asked and cannot be, though the image is here.
    #[error("an older `{reference}` is in the store, but imagePullPolicy is Always")]
    Always {
        /// What was asked for.
        reference: String,
        /// Why the registry cannot be asked.
        #[source]
        source: Box<PullFailure>,
    },
}

impl PullError {
    /// Why.
    #[must_use]
    pub fn failure(&self) -> &PullFailure {
        &self.0
    }

    /// The error for people.
    #[must_use]
    pub fn into_runtime(self, reference: &ImageRef) -> RuntimeError {
        RuntimeError {
            operation: format!("pull image `{reference}`"),
            class: self.0.class(),
            hint: self.0.hint(),
            source: Box::new(self),
        }
    }
}

impl From<PullFailure> for PullError {
    fn from(failure: PullFailure) -> Self {
        Self(Arc::new(failure))
    }
}

impl PullFailure {
    /// What it means for trying again.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NotInStore(_) | Self::Platform(_) | Self::Manifest { .. } | Self::Corrupt { .. } => {
                FailureClass::Permanent
            }
            Self::Registry { source, .. } => source.class(),
            Self::Store { source, .. } if source.is_transient() => FailureClass::Transient,
            Self::Store { .. } => FailureClass::Permanent,
            Self::Unfinished(_) => FailureClass::Transient,
            Self::Mirrors { source, .. } | Self::Always { source, .. } => source.class(),
        }
    }

    /// Something the reader can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotInStore(reference) => {
                Some(format!("run `mainstay pull {reference}`, or set imagePullPolicy to IfNotPresent"))
            }
            Self::Platform(_) => Some("write a platform as `linux/amd64` or `linux/arm/v7`".to_owned()),
            Self::Registry { source, .. } => Some(source.hint()),
            Self::Manifest { source, .. } => Some(match source {
                ManifestError::NoPlatform { .. } | ManifestError::WrongPlatform { .. } => {
                    "use an image that is built for this host, or say which one with `platform`".to_owned()
                }
                ManifestError::SchemaOne => "push the image again with a current docker or buildah".to_owned(),
                ManifestError::NotAnImage(_) => {
                    "name a container image; charts and other artifacts do not run".to_owned()
                }
                _ => "push the image again; what the registry has is broken".to_owned(),
            }),
            Self::Store { source, .. } => source.hint().map(str::to_owned),
            Self::Corrupt { .. } => Some("push the image again; what the registry has is broken".to_owned()),
            Self::Unfinished(_) => None,
            Self::Mirrors { source, .. } => source.hint(),
            Self::Always { .. } => {
                Some("set imagePullPolicy to IfNotPresent to start from the store when the registry is away".to_owned())
            }
        }
    }

    /// Whether another place may have what this one has not.
    pub(super) fn elsewhere(&self) -> bool {
        match self {
            Self::Registry { .. } | Self::Manifest { .. } => true,
            Self::Store { .. }
            | Self::Corrupt { .. }
            | Self::Unfinished(_)
            | Self::NotInStore(_)
            | Self::Platform(_)
            | Self::Mirrors { .. }
            | Self::Always { .. } => false,
        }
    }
}
