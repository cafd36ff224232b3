//! What libcontainer runs in place of its own executor, inside the container's first process.
//!
//! The default one demands PATH, loses the order of the environment, refuses programs that only root may execute,
//! and tells of errors after the start was reported as done. Ours writes them on a close-on-exec pipe, whose end
//! without a word means that the program runs.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::RawFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::rc::Rc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};

use super::cgroup_mount::CgroupMount;
use crate::exec::launch::Launch;
use crate::sys;

/// Executes a [`Launch`].
#[derive(Clone)]
pub(super) struct LaunchExecutor {
    pub(super) launch: Rc<Launch>,
    /// Where a failure is written, as JSON. Inherited over libcontainer's clones, so known by number only.
    pub(super) errors: RawFd,
    /// Directories that device nodes are in, such as /dev/net.
    pub(super) device_dirs: BTreeSet<PathBuf>,
    /// How the cgroup files appear inside.
    pub(super) cgroups: Option<CgroupMount>,
}

impl Executor for LaunchExecutor {
    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let errors = self.errors;
        let failure = self.launch.run(&|| drop(sys::take_fd(errors)));
        if let Ok(mut bytes) = serde_json::to_vec(&failure) {
            // libcontainer's own lines follow on the same pipe.
            bytes.push(b'\n');
            let _ = sys::write_raw(errors, &bytes);
        }
        Err(ExecutorError::Other(failure.message))
    }

    /// Runs after the root has been entered and before the start is reported as possible.
    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        for dir in &self.device_dirs {
            // libcontainer makes them while it has no umask.
            let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755));
        }
        if let Some(cgroups) = &self.cgroups {
            cgroups.mount().map_err(|error| {
                ExecutorValidationError::ArgValidationError(format!("cannot mount /sys/fs/cgroup: {error}"))
            })?;
        }
        Ok(())
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}
