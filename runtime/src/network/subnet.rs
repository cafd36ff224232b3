//! Address ranges: what they contain, whether they overlap, and which one a network takes when none is asked for.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// An IPv4 range in CIDR form; the address is always the first of the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Net {
    first: u32,
    prefix: u8,
}

impl Ipv4Net {
    /// The range of `prefix` bits that contains `address`; `None` for prefixes above 32.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        (prefix <= 32).then(|| Self { first: address.to_bits() & mask, prefix })
    }

    /// Bits of the prefix.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// First address, which names the range.
    #[must_use]
    pub const fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first)
    }

    /// First address behind the range, as a number; 0 when the range reaches the end of all addresses.
    #[must_use]
    pub const fn end(self) -> u32 {
        self.first.wrapping_add(self.size() as u32)
    }

    /// How many addresses are in it.
    #[must_use]
    pub const fn size(self) -> u64 {
        1 << (32 - self.prefix)
    }

    /// The address at that place in the range.
    #[must_use]
    pub fn nth(self, offset: u32) -> Option<Ipv4Addr> {
        (u64::from(offset) < self.size()).then(|| Ipv4Addr::from_bits(self.first + offset))
    }

    /// The place of an address in the range.
    #[must_use]
    pub fn offset_of(self, address: Ipv4Addr) -> Option<u32> {
        address.to_bits().checked_sub(self.first).filter(|offset| u64::from(*offset) < self.size())
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.offset_of(other.network()).is_some() || other.offset_of(self.network()).is_some()
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

impl FromStr for Ipv4Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            Self::new(address.parse().ok()?, prefix.parse().ok()?)
        };
        parse().ok_or_else(|| format!("`{text}` is no IPv4 range such as 10.88.0.0/20"))
    }
}

impl TryFrom<String> for Ipv4Net {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Ipv4Net> for String {
    fn from(net: Ipv4Net) -> Self {
        net.to_string()
    }
}

/// The ranges a network may take by itself, in order: /20 pieces of 10.88.0.0/13, then of 172.24.0.0/13 and of
/// 192.168.0.0/16. Docker's and podman's defaults are among them only where their routes are not in use.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let pieces = |first: Ipv4Addr, count: u32| {
        (0..count).filter_map(move |i| Ipv4Net::new(Ipv4Addr::from_bits(first.to_bits() + (i << 12)), 20))
    };
    pieces(Ipv4Addr::new(10, 88, 0, 0), 128)
        .chain(pieces(Ipv4Addr::new(172, 24, 0, 0), 128))
        .chain(pieces(Ipv4Addr::new(192, 168, 0, 0), 16))
}

/// The first candidate that overlaps none of the ranges in use.
pub(super) fn choose(in_use: &[Ipv4Net]) -> Option<Ipv4Net> {
    candidates().find(|candidate| !in_use.iter().any(|used| used.overlaps(*candidate)))
}

/// A free range far from those that networks take, so that new networks do not meet it: from the end of 10.88.0.0/13.
pub(super) fn choose_last(in_use: &[Ipv4Net]) -> Option<Ipv4Net> {
    let first: Vec<Ipv4Net> = candidates().take(128).collect();
    let free = |candidate: &Ipv4Net| !in_use.iter().any(|used| used.overlaps(*candidate));
    first.into_iter().rev().find(free).or_else(|| candidates().find(free))
}

/// The first of the 2^64 addresses of a network's private IPv6 prefix (RFC 4193): the same on every start of one
/// machine, another one for each network and machine.
pub(super) fn unique_local_prefix(machine: &str, network: &str) -> Ipv6Addr {
    let hash = Sha256::digest(format!("mainstay ula\0{machine}\0{network}"));
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    // 40 bits of global id and 16 of subnet id.
    bytes[1..8].copy_from_slice(&hash[..7]);
    Ipv6Addr::from(bytes)
}

/// The address at that place behind an IPv6 prefix.
pub(super) fn nth6(prefix: Ipv6Addr, offset: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(prefix.to_bits() | u128::from(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().expect("a range")
    }

    #[test]
    fn ranges_are_read_and_shown() {
        for (text, shown) in [
            ("10.88.0.0/20", Some("10.88.0.0/20")),
            ("10.88.7.9/20", Some("10.88.0.0/20")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("1.2.3.4/32", Some("1.2.3.4/32")),
            ("1.2.3.4/33", None),
            ("1.2.3.4", None),
            ("fd00::/8", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Ipv4Net>().ok().map(|n| n.to_string()).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn overlap_is_seen_from_both_sides() {
        for (a, b, expected) in [
            ("10.88.0.0/20", "10.88.16.0/20", false),
            ("10.88.0.0/20", "10.88.15.0/24", true),
            ("10.0.0.0/8", "10.88.0.0/20", true),
            ("255.255.255.0/24", "0.0.0.0/24", false),
        ] {
            assert_eq!(net(a).overlaps(net(b)), expected, "{a} {b}");
            assert_eq!(net(b).overlaps(net(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn the_first_free_candidate_is_chosen() {
        assert_eq!(choose(&[]), Some(net("10.88.0.0/20")));
        assert_eq!(choose(&[net("10.88.0.0/16")]), Some(net("10.89.0.0/20")));
        assert_eq!(choose(&[net("10.0.0.0/8"), net("172.24.0.5/32")]), Some(net("172.24.16.0/20")));
        assert_eq!(choose(&[net("0.0.0.0/0")]), None);
    }

    #[test]
    fn private_prefixes_differ_by_machine_and_network() {
        let prefix = unique_local_prefix("m", "n");
        assert_eq!(prefix, unique_local_prefix("m", "n"));
        assert_ne!(prefix, unique_local_prefix("m", "o"));
        assert_ne!(prefix, unique_local_prefix("o", "n"));
        assert_eq!(prefix.octets()[0], 0xfd);
        assert_eq!(nth6(prefix, 5).to_bits() - prefix.to_bits(), 5);
    }
}
