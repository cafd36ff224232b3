//! The shim executes its own program again once the container runs.
//!
//! Making a container takes a megabyte of heap, stack and touched pages, serving it nearly nothing, and a process cannot
//! give back all of what it once touched. A new image of the same process can: same process id, same children, same
//! descriptors, same lock. With a hundred containers that is a third of what mainstay takes.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::serve::{Handover, Server};
use crate::sys;

/// Executes this program again, which goes on in [`resume`]. Returns only when it cannot be done, and the process is then
/// as it was: of what it serves nothing has been read or closed.
pub(super) fn renew(dir: &Path, server: &Server, lock: &File) -> io::Error {
    let handover = server.handover(lock);
    let state = match write(&handover) {
        Ok(state) => state,
        Err(error) => return error,
    };
    let inherit = |open: bool| {
        handover.descriptors().chain([state.as_raw_fd()]).try_for_each(|fd| sys::keep_across_exec(fd, open))
    };
    let error = match inherit(true) {
        // The link is resolved by the kernel: it works with a binary that has been replaced or removed as well.
        Ok(()) => Command::new("/proc/self/exe")
            .arg0("mainstay-shim")
            .args(["shim".as_ref(), dir.as_os_str(), state.as_raw_fd().to_string().as_ref()])
            .env_clear()
            .exec(),
        Err(error) => error,
    };
    // Containers' helpers must not inherit them.
    let _ = inherit(false);
    error
}

/// A file in memory with what the next image needs.
fn write(handover: &Handover) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create("handover", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(handover)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// Goes on as a shim. `state` is the number of the descriptor that [`renew`] left.
pub(super) fn resume(state: &str) -> i32 {
    // It was the name of the link that was executed.
    let _ = nix::sys::prctl::set_name(c"mainstay-shim");
    match read(state) {
        Ok((mut server, lock)) => {
            sys::limit_arenas(1);
            sys::trim_heap();
            server.run();
            drop(lock);
            0
        }
        Err(error) => {
            // Without a server the container has no parent: it is ended, and the agent starts another.
            eprintln!("mainstay shim: cannot go on: {error}");
            1
        }
    }
}

fn read(state: &str) -> io::Result<(Server, OwnedFd)> {
    let number = state.parse().map_err(io::Error::other)?;
    let mut text = Vec::new();
    File::from(sys::take_fd(number)?).read_to_end(&mut text)?;
    let handover: Handover = serde_json::from_slice(&text)?;
    for fd in handover.descriptors() {
        sys::keep_across_exec(fd, false)?;
    }
    let lock = sys::take_fd(handover.lock)?;
    Ok((Server::resume(handover)?, lock))
}
