//! What can be written.

pub mod compose;
