//! Hints that somebody changed what is ours: `nft flush ruleset`, a firewall reload, a deleted bridge.
//!
//! The kernel tells by multicast; nothing is polled. Our own changes give no hint.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

use super::netlink::{self, Message, Netlink};
use super::table::{DELCHAIN, DELRULE, DELSET, DELSETELEM, DELTABLE, NEWSETELEM};
use super::{Network, NetworkError, Result, lock};

const GROUP_NFTABLES: u32 = 7;
const GROUP_LINK: u32 = 1;
const GROUP_IPV4_ADDRESS: u32 = 5;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_DELADDR: u16 = 21;
const IFF_UP: u8 = 1;

/// A stream of hints; ends its thread when dropped. A hint may be lost or doubled, and tells nothing but "look again".
#[derive(Debug)]
pub struct Hints {
    receiver: mpsc::Receiver<()>,
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Hints {
    /// Waits for the next hint; `None` when there will be no more.
    pub async fn next(&mut self) -> Option<()> {
        self.receiver.recv().await
    }

    /// The same for threads.
    pub fn blocking_next(&mut self) -> Option<()> {
        self.receiver.blocking_recv()
    }

    /// Whether a hint has come, without waiting.
    pub fn try_next(&mut self) -> bool {
        self.receiver.try_recv().is_ok()
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        // Closing the pipe ends the thread's poll.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Network {
    /// Starts to watch the kernel for changes of our rules and bridges by others.
    ///
    /// # Errors
    /// When the kernel offers no notifications.
    pub fn watch(&self) -> Result<Hints> {
        let rules = Netlink::open(NETLINK_NETFILTER).map_err(NetworkError::NoNfTables)?;
        let failed = |source| NetworkError::Socket { family: "netlink notification", source };
        rules.join(GROUP_NFTABLES).map_err(failed)?;
        let links = Netlink::open(NETLINK_ROUTE).map_err(failed)?;
        links.join(GROUP_LINK).map_err(failed)?;
        links.join(GROUP_IPV4_ADDRESS).map_err(failed)?;
        let (stopped, stop) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        // One waiting hint says as much as many.
        let (sender, receiver) = mpsc::channel(1);
        let mut bridges: Vec<String> = lock(&self.leases).segments().map(|s| s.bridge.clone()).collect();
        // The default bridge may not have been made yet; networks defined later are seen by their rules.
        bridges.push(format!("{}0", self.config.name));
        let watcher = Watcher {
            rules,
            links,
            stopped,
            table: self.config.name.clone(),
            bridges,
            own_port: Arc::clone(&self.rules_port),
            sender,
        };
        let thread = std::thread::Builder::new()
            .name("network-watch".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || watcher.run())
            .map_err(failed)?;
        Ok(Hints { receiver, stop: Some(stop), thread: Some(thread) })
    }
}

struct Watcher {
    rules: Netlink,
    links: Netlink,
    stopped: OwnedFd,
    table: String,
    bridges: Vec<String>,
    own_port: Arc<AtomicU32>,
    sender: mpsc::Sender<()>,
}

impl Watcher {
    fn run(&self) {
        loop {
            let mut waiting = [self.rules.as_fd(), self.links.as_fd(), self.stopped.as_fd()]
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut waiting, PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => {
                    tracing::warn!(%error, "network changes are no longer watched");
                    return;
                }
            }
            if waiting[2].any() == Some(true) || self.sender.is_closed() {
                return;
            }
            let changed = self.drain(&self.rules, |m| self.is_rule_change(m))
                | self.drain(&self.links, |m| self.is_link_change(m));
            if changed {
                // Full means that a hint is waiting already.
                let _ = self.sender.try_send(());
            }
        }
    }

    fn drain(&self, socket: &Netlink, counts: impl Fn(&Message) -> bool) -> bool {
        let mut changed = false;
        loop {
            match socket.receive_messages() {
                Ok(messages) => changed |= messages.iter().any(&counts),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return changed,
                // Notifications were lost: anything may have changed.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(_) => return changed,
            }
        }
    }

    fn is_rule_change(&self, message: &Message) -> bool {
        let own = message.port != 0 && message.port == self.own_port.load(Ordering::Acquire);
        let kinds = [DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM, NEWSETELEM];
        // The table's name is the first attribute of every object.
        let table = message.payload.get(4..).and_then(|p| netlink::attribute(p, 1)).map(netlink::text);
        !own && kinds.contains(&(message.kind & 0xff)) && table.as_ref() == Some(&self.table)
    }

    fn is_link_change(&self, message: &Message) -> bool {
        let (header, name) = match message.kind {
            RTM_NEWLINK | RTM_DELLINK => (16, 3),
            RTM_DELADDR => (8, 3),
            _ => return false,
        };
        let name = message.payload.get(header..).and_then(|p| netlink::attribute(p, name)).map(netlink::text);
        let is_up = message.payload.get(8).is_some_and(|flags| flags & IFF_UP != 0);
        // Notifications of the bridge's ports carry the family AF_BRIDGE and the port's name.
        name.is_some_and(|name| self.bridges.contains(&name)) && (message.kind != RTM_NEWLINK || !is_up)
    }
}
