//! Containers: their configuration, start, state, end and removal, as blocking functions.
//!
//! The agent never is a container's parent: [`start`] runs a shim (`crate::shim`) that is, and that lives on when
//! the agent does not. Everything here works from the run directory of an attempt and its exit record alone.

pub(crate) mod apparmor;
pub mod bundle;
pub mod caps;
pub mod cdi;
pub mod cgroup;
pub mod config;
pub(crate) mod console;
pub mod external;
pub mod handle;
pub mod lifecycle;
pub mod record;
pub mod seccomp;
pub mod users;

pub use config::{ContainerConfig, Env, ID_COUNT, Mount, MountKind, Namespace, Namespaces, Rootfs, User, Users};
pub use handle::{Request, Response, ShimClient, ShimState};
pub use lifecycle::{
    ContainerError, ContainerState, Failure, Running, cleanup, inspect, kill_all, start, start_pod_init,
};
pub use record::{ExitRecord, boot_id, now};
