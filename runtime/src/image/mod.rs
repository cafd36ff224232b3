//! Images: references to layers on disk. Registry client, content store, unpacking, garbage collection.

pub mod store;
pub mod unpack;
