//! Receiving the terminal that a runtime makes inside the container (OCI runtimes: `--console-socket`).

use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::sys;

/// The socket that the terminal's master side arrives on.
pub(crate) struct Console {
    listener: UnixListener,
    dir: File,
    path: PathBuf,
}

impl Console {
    /// Makes it at `dir/name`.
    pub(crate) fn listen(dir: &Path, name: &str) -> io::Result<Self> {
        let handle = File::open(dir)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))?;
        Ok(Self { listener, dir: handle, path: dir.join(name) })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A short path to it for other processes while this value lives: socket addresses hold 108 bytes.
    pub(crate) fn address(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        Path::new(&format!("/proc/{}/fd/{}", std::process::id(), self.dir.as_raw_fd())).join(name)
    }

    /// The master side, which has been sent when the runtime's create is done.
    pub(crate) fn receive(self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let mut bytes = [0; 64];
        let mut iov = [IoSliceMut::new(&mut bytes)];
        let mut space = nix::cmsg_space!([i32; 1]);
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let fds = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        sys::take_fd(fds.ok_or_else(|| io::Error::other("no terminal was sent"))?)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
