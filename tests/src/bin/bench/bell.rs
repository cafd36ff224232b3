//! The FIFO that containers announce themselves in.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Where the FIFO is in containers.
pub(crate) const INSIDE: &str = "/bell/fifo";

/// Lines of containers, as they come.
#[derive(Debug)]
pub(crate) struct Bell {
    dir: PathBuf,
    file: File,
    rest: String,
}

impl Bell {
    /// Makes the FIFO in a new directory below `parent`; the directory is to be mounted at `/bell`.
    pub(crate) fn new(parent: &Path) -> Self {
        let dir = parent.join("bell");
        fs::create_dir_all(&dir).expect("the directory is ours");
        let path = dir.join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("the directory is ours");
        // Open for both: no end of file when the last writer goes.
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .expect("the FIFO is ours");
        Self { dir, file, rest: String::new() }
    }

    /// The directory to mount.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits for `count` lines that `fits` accepts, and returns them.
    ///
    /// # Panics
    /// When they do not come within half a minute: the measurement is worth nothing then.
    pub(crate) fn wait(&mut self, count: u32, fits: impl Fn(&str) -> bool) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut found = Vec::new();
        while found.len() < count as usize {
            assert!(Instant::now() < deadline, "{} of {count} containers said that they run: {found:?}", found.len());
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(1000_u16)).expect("a FIFO can be polled");
            let mut buffer = [0; 65536];
            if let Ok(read) = self.file.read(&mut buffer) {
                self.rest.push_str(&String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()));
            }
            while let Some((line, rest)) = self.rest.split_once('\n') {
                if fits(line) {
                    found.push(line.to_owned());
                }
                self.rest = rest.to_owned();
            }
        }
        found
    }
}
