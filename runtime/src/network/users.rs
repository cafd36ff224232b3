//! A user namespace, and others that belong to it.
//!
//! A process with threads cannot make one, so a short-lived process of this program does (`mainstay shim --namespaces`).
//! It waits while its ids are mapped from outside, makes the other namespaces as the root of the first, and waits until
//! all are pinned.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use super::error::NetworkError;
use crate::container::ID_COUNT;
use crate::sys;

type Result<T> = std::result::Result<T, NetworkError>;

/// The users of a pod: what [`super::NamespaceRequest`] needs for a user namespace.
#[derive(Debug)]
pub struct UserRange<'a> {
    /// The id of the host that is root inside; the ones above it follow.
    pub first: u32,
    /// This program.
    pub self_exe: &'a File,
}

/// A process in new namespaces, which it keeps for as long as this value lives.
pub(super) struct Holder {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Holder {
    /// Makes the namespaces.
    pub(super) fn start(users: &UserRange<'_>, flags: CloneFlags, sysctls: &BTreeMap<String, String>) -> Result<Self> {
        let mut child = Command::new(format!("/proc/self/fd/{}", users.self_exe.as_raw_fd()))
            .arg0("mainstay-namespaces")
            .args(["shim", "--namespaces"])
            .arg(flags.bits().to_string())
            .args(sysctls.iter().map(|(name, value)| format!("{name}={value}")))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(NetworkError::namespace("create a user namespace"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut holder = Self { child, stdin };
        let made = stdout.map_or(Err(io::ErrorKind::BrokenPipe.into()), |pipe| holder.map(users.first, pipe));
        made.map_err(NetworkError::namespace("create a user namespace"))?;
        Ok(holder)
    }

    /// Maps the ids when the first namespace is there, and waits for the others.
    fn map(&mut self, first: u32, pipe: ChildStdout) -> io::Result<()> {
        let mut answers = BufReader::new(pipe);
        await_done(&mut answers)?;
        let map = format!("0 {first} {ID_COUNT}\n");
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{file}", self.child.id()), &map)?;
        }
        if let Some(stdin) = &mut self.stdin {
            stdin.write_all(b"\n")?;
        }
        await_done(&mut answers)
    }

    /// The file of one of its namespaces.
    pub(super) fn file(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.child.id())
    }
}

fn await_done(answers: &mut impl BufRead) -> io::Result<()> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    match line.trim_end() {
        "done" => Ok(()),
        "" => Err(io::Error::other("its process ended")),
        why => Err(io::Error::other(why.to_owned())),
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// The process itself: its arguments are the other namespaces, as flags of unshare(2), and kernel parameters of them.
pub(crate) fn hold(args: &[std::ffi::OsString]) -> i32 {
    let mut stdin = io::stdin().lock();
    let say = |text: &str| println!("{text}");
    let mut run = || -> io::Result<()> {
        sys::assert_single_thread()?;
        let mut args = args.iter().filter_map(|arg| arg.to_str());
        let flags = args.next().and_then(|flags| flags.parse().ok()).and_then(CloneFlags::from_bits);
        let flags = flags.ok_or(io::ErrorKind::InvalidInput)?;
        unshare(CloneFlags::CLONE_NEWUSER)?;
        say("done");
        stdin.read_exact(&mut [0])?;
        sys::set_ids(0, 0, &[])?;
        unshare(flags)?;
        for (name, value) in args.filter_map(|arg| arg.split_once('=')) {
            super::namespace::set_sysctl(name, value).map_err(|error| io::Error::other(spec::causes::chain(&error)))?;
        }
        Ok(())
    };
    let done = run();
    say(&done.as_ref().map_or_else(ToString::to_string, |()| "done".to_owned()));
    // Until all is pinned, or whoever asked is gone.
    let _ = stdin.read_to_end(&mut Vec::new());
    i32::from(done.is_err())
}
