//! Nerves of mainstay: sources, the reconcile loop, metrics, API and command line.

pub mod config;
pub mod events;
pub mod status;
pub mod telemetry;
