//! Nerves of mainstay: sources, the reconcile loop, metrics, API and command line.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod decrypt;
pub mod discover;
pub mod disk;
pub mod events;
pub mod executor;
pub mod gc;
pub mod git;
pub mod history;
pub mod memory;
pub mod orders;
pub mod probe;
pub mod reconciler;
mod record;
pub mod reload;
pub mod run;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod systemd;
pub mod telemetry;
pub mod versions;
pub mod webhook;
