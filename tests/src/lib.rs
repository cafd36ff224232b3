//! The harness for tests of the real binary: images made in memory, a registry on loopback with faults, a private
//! world per test that is checked for leaks from outside of the product, and the agent as a child process.
//!
//! It knows the product only by its command line, its sockets and what the kernel shows. It never links to it.

pub mod agent;
pub mod binary;
pub mod git;
pub mod http;
pub mod image;
pub mod leaks;
pub mod manifest;
pub mod metrics;
pub mod netlink;
pub mod registry;
pub mod sandbox;
pub mod server;
pub mod source;
pub mod status;

pub use agent::Agent;
pub use image::{Image, ImageBuilder, Layer};
pub use registry::{Fault, Registry};
pub use sandbox::{Sandbox, require_root};
pub use server::Server;

/// A world with the fixture image on its registry as `app:1`, and that image's reference. The registry serves until it
/// is dropped; the sandbox comes first so that it is dropped last and sees what the rest leaves behind.
pub fn world(name: &str) -> (Sandbox, Registry, String) {
    let sandbox = Sandbox::new(name);
    let registry = Registry::start();
    let image = registry.push("app:1", &image::fixture_image());
    (sandbox, registry, image)
}
