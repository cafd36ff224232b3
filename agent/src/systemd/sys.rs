//! The one call for which the compiler has to be told who owns a descriptor.

use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// Takes a descriptor that this process was started with.
///
/// `None` for the standard ones, which have an owner. Called at most once for each number, before anything else in
/// the process has opened files by number.
pub(super) fn take(number: RawFd) -> Option<OwnedFd> {
    if number < 3 {
        return None;
    }
    // SAFETY: sd_listen_fds(3) promises that descriptors from 3 on are open and meant for this process, whose id the
    // caller has compared; nobody else in this process has taken this one, since the caller does it once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
