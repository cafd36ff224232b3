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
pub(crate) use manifest::artifact;
pub(crate) use manifest::{Config, Descriptor, Document, Manifest, Platform};
pub(crate) use manifest::{check_file, check_host};

/// Reads arbitrary bytes as everything that a registry sends: the entry point for fuzzing. The first byte chooses the
/// media type. A finding is a panic.
pub fn fuzz_one(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let wanted = Platform::of_host();
    let kinds = [
        None,
        Some("application/vnd.oci.image.index.v1+json"),
        Some("application/vnd.oci.image.manifest.v1+json"),
        Some("application/vnd.docker.distribution.manifest.list.v2+json"),
        Some("application/octet-stream"),
    ];
    let kind = kinds.get(usize::from(*choice) % kinds.len()).copied().flatten();
    if let Ok(Document::Manifest(manifest)) = Document::read(bytes, kind, &wanted) {
        // Every answer is fine.
        let _ = Config::read(bytes, &manifest, &wanted, false);
    }
    let empty = Manifest { config: Descriptor { digest: spec::digest::Digest::of(b""), size: 0 }, layers: Vec::new() };
    let _ = Config::read(bytes, &empty, &wanted, true);
    let _ = check_host(bytes);
    let _ = super::store::parse_manifest(bytes);
    let _ = super::store::parse_config(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = challenge::parse(&text);
    let _ = clean(&text, 100);
}
