//! Makes sockets that belong to the network namespaces of pods.
//!
//! On one thread that does nothing else, since a thread a probe would cost more than the probe. Between two requests it
//! is in its own namespace again, so that it keeps no pod's alive.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::sync::oneshot;

struct Request {
    netns: PathBuf,
    to: SocketAddr,
    reply: oneshot::Sender<io::Result<OwnedFd>>,
}

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub struct Sockets {
    requests: mpsc::Sender<Request>,
}

impl Sockets {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start() -> io::Result<Self> {
        let home = File::open("/proc/thread-self/ns/net")?;
        let (requests, queue) = mpsc::channel::<Request>();
        let work = move || {
            for Request { netns, to, reply } in queue {
                let made = make(&netns, to);
                // A thread that cannot come back must make no other socket: that one would be in the wrong place.
                if let Err(error) = setns(&home, CloneFlags::CLONE_NEWNET) {
                    tracing::error!(%error, "no connections into pods any more: cannot leave a network namespace");
                    return;
                }
                // Whoever asked may have stopped to wait.
                let _ = reply.send(made);
            }
        };
        std::thread::Builder::new().name("sockets".to_owned()).stack_size(128 * 1024).spawn(work)?;
        Ok(Self { requests })
    }

    /// A TCP socket of a pinned network namespace, to be connected to an address of this family. It does not block.
    ///
    /// # Errors
    /// There is no such namespace, or no socket can be had.
    pub async fn tcp(&self, netns: PathBuf, to: SocketAddr) -> io::Result<OwnedFd> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { netns, to, reply }).map_err(|_| io::Error::other("the thread has ended"))?;
        answer.await.map_err(io::Error::other)?
    }
}

fn make(netns: &Path, to: SocketAddr) -> io::Result<OwnedFd> {
    setns(File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    Ok(socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?)
}
