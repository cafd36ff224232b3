//! What libcontainer runs in place of its own executor, inside the container's first process.
//!
//! The default one demands PATH, loses the order of the environment, refuses programs that only root may execute,
//! and tells of errors after the start was reported as done. Ours writes them on a close-on-exec pipe, whose end
//! without a word means that the program runs.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::rc::Rc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};

use crate::exec::launch::Launch;
use crate::sys;

/// Executes a [`Launch`].
#[derive(Clone)]
pub(super) struct LaunchExecutor {
    pub(super) launch: Rc<Launch>,
    /// Where a failure is written, as JSON. Inherited over libcontainer's clones, so known by number only.
    pub(super) errors: RawFd,
    /// Whether the cgroup files inside are to be read only.
    pub(super) read_only_cgroups: bool,
}

impl Executor for LaunchExecutor {
    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let errors = self.errors;
        let failure = self.launch.run(&|| drop(sys::take_fd(errors)));
        if let Ok(bytes) = serde_json::to_vec(&failure) {
            let _ = sys::write_raw(errors, &bytes);
        }
        Err(ExecutorError::Other(failure.message))
    }

    /// Runs after the root has been entered and before the start is reported as possible.
    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        // libcontainer mounts the hierarchies of version 1 writable whatever the options say, and a root inside
        // could then raise its own limits.
        if self.read_only_cgroups
            && std::path::Path::new("/sys/fs/cgroup").is_dir()
            && let Err(error) = sys::mount_read_only(c"/sys/fs/cgroup")
        {
            let message = format!("cannot make /sys/fs/cgroup read-only: {error}");
            return Err(ExecutorValidationError::ArgValidationError(message));
        }
        Ok(())
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}
