//! Images: fetched from registries, unpacked layer by layer, kept in a content store.
//!
//! A layer becomes visible only when its compressed and its uncompressed digest are what the manifest and the config
//! say; an image only when every layer of it is there.

pub mod artifact;
pub mod credentials;
pub mod gc;
mod hash;
mod json;
pub mod load;
pub mod overlay;
mod pipe;
mod progress;
pub mod pull;
pub mod quickstart;
pub mod registry;
pub mod save;
pub mod store;
mod tarball;
pub mod unpack;
pub mod verify;

#[cfg(test)]
mod tests;
