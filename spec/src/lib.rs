//! Values and decisions of mainstay.
//!
//! Everything here is a value or a pure function: no I/O, no async, no clock, no randomness and no logging.
//! Manifests come in as text with a name, and leave as [`workload::Desired`]; what runs comes in as
//! [`observed`]; `plan` compares the two and says what may be done now, and why.

pub mod budget;
pub mod capability;
pub mod causes;
pub mod codes;
pub mod cron;
pub mod diagnostic;
pub mod diff;
pub mod digest;
pub mod env;
pub mod explain;
pub mod files;
pub mod fuzz;
pub mod health;
pub mod hold;
pub mod image_ref;
mod json;
pub mod load;
pub mod logs;
pub mod manifest;
pub mod names;
pub mod node;
pub mod observed;
pub mod plan;
pub mod pod;
pub mod qos;
pub mod quantity;
pub mod render;
pub mod restart;
pub mod schema;
pub mod secret;
pub mod services;
pub mod shutdown;
pub mod time;
mod toml_doc;
pub mod window;
pub mod workload;
mod yaml;
mod yaml_lenient;
