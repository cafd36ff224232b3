//! Processes in containers: what one becomes ([`launch`]) and joining one that runs.

pub(crate) mod launch;
