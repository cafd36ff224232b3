//! Clears up behind pods that are gone, in a thread of its own.
//!
//! Deleting an interface waits for every processor to let go of it: tens of milliseconds on a busy host, for something
//! that the kernel does by itself when the pod's namespace ends. Nobody has to wait for it: the pod's addresses are
//! free, and the longest unused addresses are given out first.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use super::link::Links;
use super::{NetworkError, Result, conntrack, lock};

/// What pods have left. The thread ends with this value.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    shared: Arc<Shared>,
    wake: Mutex<Option<mpsc::Sender<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    left: Mutex<Left>,
    /// Held while clearing up, so that who waits for the end of it does.
    work: Mutex<()>,
}

#[derive(Debug, Default)]
struct Left {
    interfaces: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Reaper {
    /// Hands interfaces and addresses over.
    pub(super) fn take(&self, interfaces: Vec<String>, addresses: Vec<IpAddr>) -> Result<()> {
        {
            let mut left = lock(&self.shared.left);
            left.interfaces.extend(interfaces);
            left.addresses.extend(addresses);
        }
        let mut wake = lock(&self.wake);
        if wake.as_ref().is_some_and(|sender| sender.send(()).is_ok()) {
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel();
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new()
            .name("network-reap".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                while receiver.recv().is_ok() {
                    if let Err(error) = clear(&shared) {
                        tracing::warn!(%error, "traces of a pod stayed in the network");
                    }
                }
            })
            .map_err(NetworkError::namespace("start a thread"))?;
        let _ = sender.send(());
        *wake = Some(sender);
        Ok(())
    }

    /// An interface of that name is wanted again.
    pub(super) fn spare(&self, interface: &str) {
        lock(&self.shared.left).interfaces.remove(interface);
    }

    /// Clears up everything before it returns.
    pub(super) fn finish(&self) -> Result<()> {
        clear(&self.shared)
    }
}

fn clear(shared: &Shared) -> Result<()> {
    let _work = lock(&shared.work);
    let left = &shared.left;
    // All addresses that have come together by now take one look through the table.
    let addresses = std::mem::take(&mut lock(left).addresses);
    let mut result = conntrack::delete_of_addresses(&addresses).map(drop);
    let links = Links::open()?;
    // One at a time, so that the pod that wants its interface again can still say so.
    while let Some(name) = pop(left) {
        if links.find(&name)?.is_some() {
            result = links.delete(&name).and(result);
        }
    }
    result
}

fn pop(left: &Mutex<Left>) -> Option<String> {
    lock(left).interfaces.pop_first()
}
