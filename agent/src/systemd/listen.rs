//! Sockets that systemd has bound before the agent was started (sd_listen_fds(3)).

use std::io;
use std::os::fd::{AsFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The first descriptor that is handed over, SD_LISTEN_FDS_START.
const FIRST: i32 = 3;

/// The socket of the API, as handed over.
#[derive(Debug)]
pub struct Inherited(OwnedFd);

impl Inherited {
    /// What this process was given; `None` when nothing. Called once.
    ///
    /// # Errors
    /// It is no listening socket of this kind.
    pub fn of_process() -> io::Result<Option<Self>> {
        let variable = |name: &str| std::env::var(name).ok();
        match count(variable, std::process::id()) {
            0 => Ok(None),
            1 => {
                let fd = super::sys::take(FIRST).ok_or(io::ErrorKind::InvalidInput)?;
                // No container may ever hold it.
                set_cloexec(&fd, true)?;
                Ok(Some(Self(fd)))
            }
            more => Err(io::Error::other(format!("one socket is expected, {more} were handed over"))),
        }
    }

    /// A listener on it. The descriptor itself stays, for [`Inherited::hand_on`].
    ///
    /// # Errors
    /// No more descriptors.
    pub fn listener(&self) -> io::Result<UnixListener> {
        Ok(UnixListener::from(self.0.try_clone()?))
    }

    /// Keeps it open over the execution of another program in this process, under the same number.
    ///
    /// # Errors
    /// The kernel refuses, which it never does for an open descriptor.
    pub fn hand_on(self) -> io::Result<()> {
        set_cloexec(&self.0, false)?;
        // Left open on purpose: it belongs to the program that comes next.
        let _ = self.0.into_raw_fd();
        Ok(())
    }
}

fn set_cloexec(fd: &OwnedFd, on: bool) -> io::Result<()> {
    let flags = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// How many descriptors were handed over to the process with this id.
fn count(variable: impl Fn(&str) -> Option<String>, pid: u32) -> u32 {
    let ours = variable("LISTEN_PID").is_some_and(|for_pid| for_pid.parse() == Ok(pid));
    if !ours {
        return 0;
    }
    variable("LISTEN_FDS").and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_for_this_process() {
        let check = |for_pid: Option<&str>, number: Option<&str>, expected: u32| {
            let variable = |name: &str| match name {
                "LISTEN_PID" => for_pid.map(str::to_owned),
                "LISTEN_FDS" => number.map(str::to_owned),
                other => panic!("no such variable: {other}"),
            };
            assert_eq!(count(variable, 42), expected, "{for_pid:?} {number:?}");
        };
        check(None, None, 0);
        check(Some("42"), Some("1"), 1);
        check(Some("43"), Some("1"), 0);
        check(None, Some("1"), 0);
        check(Some("42"), None, 0);
        check(Some("42"), Some("x"), 0);
    }
}
