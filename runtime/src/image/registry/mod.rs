//! Client of the OCI distribution API: the pull half.
//!
//! Owns connections, logins, redirects, retries and the checks on what a registry sends. Everything a registry says
//! is hostile until its digest has been checked. Never writes to disk: blobs are handed on piece by piece.
//!
//! Source: OCI distribution specification 1.1; docker's "Token Authentication Specification".

mod auth;
mod blob;
mod body;
mod challenge;
mod client;
#[cfg(feature = "ecr")]
mod ecr;
mod errors;
mod hosts;
mod manifest;
mod retry;
mod tls;

pub(crate) use blob::{Ended, Sink};
pub(crate) use client::{Client, RawManifest, Session};
#[cfg(feature = "ecr")]
pub use ecr::EcrConfig;
pub use errors::RegistryError;
pub(crate) use errors::clean;
pub(crate) use hosts::Endpoint;
pub use hosts::{HostConfig, RegistryConfig};
pub use manifest::ManifestError;
pub(crate) use manifest::{Config, Descriptor, Document, Manifest, Platform};
