//! Images: references to layers on disk. Registry client, content store, unpacking, garbage collection.

pub mod load;
pub mod store;
pub mod unpack;
