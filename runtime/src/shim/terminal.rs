//! Receiving the terminal that libcontainer makes inside the container.

use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::sys;

/// The socket that the terminal's master side arrives on.
pub(super) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// Makes it at `dir/console.sock`.
    pub(super) fn listen(dir: &Path) -> io::Result<Self> {
        let path = dir.join("console.sock");
        let handle = File::open(dir)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/console.sock", handle.as_raw_fd()))?;
        Ok(Self { listener, path })
    }

    /// The master side, which has been sent when libcontainer's create is done.
    pub(super) fn receive(self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let mut bytes = [0; 64];
        let mut iov = [IoSliceMut::new(&mut bytes)];
        let mut space = nix::cmsg_space!([i32; 1]);
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let _ = fs::remove_file(&self.path);
        let fds = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        sys::take_fd(fds.ok_or_else(|| io::Error::other("no terminal was sent"))?)
    }
}
