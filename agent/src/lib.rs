//! Nerves.
