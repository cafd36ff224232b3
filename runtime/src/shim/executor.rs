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

    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}
