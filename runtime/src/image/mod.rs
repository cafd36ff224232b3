//! Images: fetched from registries, unpacked layer by layer, kept in a content store.
//!
//! A layer becomes visible only when its compressed and its uncompressed digest are what the manifest and the config
//! say; an image only when every layer of it is there.

pub mod credentials;
mod pipe;
mod progress;
pub mod pull;
pub mod registry;
pub mod store;
pub mod unpack;

#[cfg(test)]
mod tests;

pub mod gc;
pub mod load;
pub mod overlay;
pub mod quickstart;
pub mod save;
mod tarball;
pub mod verify;
