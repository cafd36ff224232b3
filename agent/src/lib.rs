//! Nerves of mainstay: sources, the reconcile loop, metrics, API and command line.

pub mod status;
