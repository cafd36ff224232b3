//! What can go wrong with pod networks.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use super::subnet::Ipv4Net;

/// A failed network operation.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel offers no nf_tables.
    #[error(
        "cannot use nf_tables: load the kernel modules nf_tables, nft_nat, nft_masq, nft_fib_inet, nft_reject_inet"
    )]
    NoNfTables(#[source] io::Error),
    /// A netlink socket did not open.
    #[error("cannot open a {family} socket")]
    Socket {
        /// Which netlink family.
        family: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The rule set could not be read or changed. Nothing of the change was done.
    #[error("cannot {what}")]
    Rules {
        /// What was refused.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An interface, address or route could not be read or changed.
    #[error("cannot {what}")]
    Link {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection tracking table could not be read or changed.
    #[error("cannot {what}")]
    Conntrack {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A namespace could not be made, entered or removed.
    #[error("cannot {what}")]
    Namespace {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A kernel parameter could not be set.
    #[error("cannot set kernel parameter `{name}` to `{value}`")]
    Sysctl {
        /// Dotted name.
        name: String,
        /// The value.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record could not be read or written.
    #[error("cannot {what} {}", path.display())]
    Record {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name or option that networks cannot be made with.
    #[error("cannot use {what}: {why}")]
    Config {
        /// Which value.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// Routes of the host cover every range that could be taken.
    #[error("cannot find a free address range for network `{network}`: set one that no route of this host covers")]
    NoSubnet {
        /// The network.
        network: String,
    },
    /// A range overlaps another network of ours.
    #[error("cannot use {subnet} for network `{network}`: network `{other}` has {other_subnet}")]
    SubnetTaken {
        /// The network.
        network: String,
        /// The wished range.
        subnet: Ipv4Net,
        /// The network that has it.
        other: String,
        /// Its range.
        other_subnet: Ipv4Net,
    },
    /// Every address of the range is leased.
    #[error("cannot give an address of network `{network}`: all {leased} of {subnet} are in use")]
    Exhausted {
        /// The network.
        network: String,
        /// Its range.
        subnet: Ipv4Net,
        /// Addresses in use.
        leased: usize,
    },
    /// The wished address cannot be given.
    #[error("cannot give address {address} of network `{network}`: {why}")]
    Address {
        /// The network.
        network: String,
        /// The address.
        address: IpAddr,
        /// Why not.
        why: String,
    },
    /// Pods still use what was to be removed.
    #[error("cannot remove {what}: {pods} pods still use it")]
    InUse {
        /// What.
        what: String,
        /// How many pods.
        pods: usize,
    },
    /// Several steps of a removal failed; the others were done.
    #[error("cannot remove everything: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<NetworkError>),
}

impl NetworkError {
    pub(super) fn link(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Link { what, source }
    }

    pub(super) fn namespace(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Namespace { what, source }
    }

    /// `Ok` for no errors, the error itself for one, all of them for more.
    pub(super) fn collect(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}
