//! Hands of mainstay: images, containers, networks and volumes of one Linux host.
//!
//! Knows no manifest and decides nothing: the agent's executor calls [`Runtime`], one call an action.
//! Facts on disk are the truth after a restart; see ARCHITECTURE.md for the layout.

pub mod api;
pub mod network;
pub mod volume;

pub use api::Runtime;
