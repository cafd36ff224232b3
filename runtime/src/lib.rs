//! Hands of mainstay: images, containers, networks and volumes of one Linux host.
//!
//! Knows no manifest and decides nothing: the agent's executor calls [`Runtime`], one call an action.
//! Facts on disk are the truth after a restart; see ARCHITECTURE.md for the layout.

pub mod api;
pub mod container;
pub mod dns;
pub mod embedded;
pub mod exec;
pub mod image;
pub mod imds;
pub mod network;
pub mod shim;
#[cfg(feature = "sim")]
pub mod sim;
pub mod sys;
pub mod volume;

pub use api::Runtime;
pub use embedded::Embedded;

/// Chooses the TLS implementation of this process. Called before any client is made; calling again changes nothing.
pub fn install_crypto() {
    // An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
