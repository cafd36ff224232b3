//! nf_tables rules in the form the kernel wants: each rule is a list of expressions over registers.
//!
//! Only what our own table needs. The result of every rule here is compared with what `nft` prints for it
//! (see the tests of [`super::table`]).

use sha2::{Digest as _, Sha256};

use super::netlink::Attributes;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;

/// Register 1 is 16 bytes wide; registers 8 to 23 are its and its neighbours' 4-byte parts.
const REG_1: u32 = 1;
const REG_2: u32 = 2;
const REG32_00: u32 = 8;
/// Behind the longest key of a map, room for an IPv6 address.
const REG32_08: u32 = 16;

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
/// `IP_CT_ESTABLISHED` and `IP_CT_RELATED` as bits of the state that nf_tables loads.
const STATE_ESTABLISHED_RELATED: u32 = 2 | 4;
/// `IPS_DST_NAT`.
const STATUS_DNAT: u32 = 0x20;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const RTN_LOCAL: u32 = 2;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;

const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NFT_JUMP: i32 = -3;
const NFT_RETURN: i32 = -5;

/// So many places a balanced port has for the pods behind it: a number that most small numbers divide, so that two to
/// six, eight, ten and twelve pods get equal shares, and the most pods that get any.
pub(super) const PLACES: u32 = 120;

/// Fixed, so that the same client finds the same place after the table was made anew.
const CLIENT_HASH_SEED: u32 = 0x6d61_696e;

/// How a connection gets its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pick {
    /// By chance.
    Random,
    /// By the client's address.
    Client,
}

/// IP version of addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    const fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Bytes of an address.
    const fn width(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    const fn source_offset(self) -> u32 {
        match self {
            Self::V4 => 12,
            Self::V6 => 8,
        }
    }

    const fn destination_offset(self) -> u32 {
        match self {
            Self::V4 => 16,
            Self::V6 => 24,
        }
    }
}

/// A rule: its expressions, and a comment with which it is recognised in the kernel.
pub(super) struct Rule {
    expressions: Attributes,
    comment: &'static str,
}

impl Rule {
    /// A rule that matches everything so far. The comment says what the rule is for.
    pub(super) fn new(comment: &'static str) -> Self {
        Self { expressions: Attributes::default(), comment }
    }

    /// The comment as the kernel keeps it: with a hash of the expressions, so that a rule of another version is seen.
    pub(super) fn comment(&self) -> String {
        let hash = Sha256::digest(self.expressions.as_bytes());
        format!("{} #{:02x}{:02x}{:02x}", self.comment, hash[0], hash[1], hash[2])
    }

    /// The encoded expressions.
    pub(super) fn expressions(&self) -> &[u8] {
        self.expressions.as_bytes()
    }

    fn push(mut self, name: &str, data: impl FnOnce(&mut Attributes)) -> Self {
        self.expressions.nest(NFTA_LIST_ELEM, |a| {
            a.text(NFTA_EXPR_NAME, name);
            a.nest(NFTA_EXPR_DATA, data);
        });
        self
    }

    fn meta(self, key: u32, register: u32) -> Self {
        self.push("meta", |a| {
            a.be32(1, register);
            a.be32(2, key);
        })
    }

    fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        self.push("payload", |a| {
            a.be32(1, register);
            a.be32(2, base);
            a.be32(3, offset);
            a.be32(4, length);
        })
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        self.push("cmp", |a| {
            a.be32(1, REG_1);
            a.be32(2, operator);
            a.nest(3, |a| a.bytes(NFTA_DATA_VALUE, value));
        })
    }

    fn lookup(self, set: &str, inverted: bool) -> Self {
        self.push("lookup", |a| {
            a.text(1, set);
            a.be32(2, REG_1);
            if inverted {
                a.be32(5, 1);
            }
        })
    }

    fn family(self, family: Family) -> Self {
        self.meta(META_NFPROTO, REG_1).compare(CMP_EQ, &[family.number()])
    }

    /// `iifname @set`
    pub(super) fn input_in(self, set: &str) -> Self {
        self.meta(META_IIFNAME, REG_1).lookup(set, false)
    }

    /// `oifname @set`
    pub(super) fn output_in(self, set: &str) -> Self {
        self.meta(META_OIFNAME, REG_1).lookup(set, false)
    }

    /// `oifname != @set`
    pub(super) fn output_not_in(self, set: &str) -> Self {
        self.meta(META_OIFNAME, REG_1).lookup(set, true)
    }

    /// `iifname . oifname @set`
    pub(super) fn interfaces_in(self, set: &str) -> Self {
        self.meta(META_IIFNAME, REG_1).meta(META_OIFNAME, REG_2).lookup(set, false)
    }

    /// `ip saddr @set` or `ip6 saddr @set`
    pub(super) fn source_in(self, family: Family, set: &str) -> Self {
        self.family(family).payload(NETWORK_HEADER, family.source_offset(), family.width(), REG_1).lookup(set, false)
    }

    /// `ip daddr @set` or `ip6 daddr @set`
    pub(super) fn destination_in(self, family: Family, set: &str) -> Self {
        self.family(family)
            .payload(NETWORK_HEADER, family.destination_offset(), family.width(), REG_1)
            .lookup(set, false)
    }

    /// `ip saddr 127.0.0.0/8`
    pub(super) fn source_loopback4(self) -> Self {
        self.family(Family::V4).payload(NETWORK_HEADER, Family::V4.source_offset(), 1, REG_1).compare(CMP_EQ, &[127])
    }

    /// `ip daddr 127.0.0.0/8`
    pub(super) fn destination_loopback4(self) -> Self {
        self.family(Family::V4)
            .payload(NETWORK_HEADER, Family::V4.destination_offset(), 1, REG_1)
            .compare(CMP_EQ, &[127])
    }

    /// `ip6 daddr ::1`
    pub(super) fn destination_loopback6(self) -> Self {
        self.family(Family::V6)
            .payload(NETWORK_HEADER, Family::V6.destination_offset(), 16, REG_1)
            .compare(CMP_EQ, &std::net::Ipv6Addr::LOCALHOST.octets())
    }

    /// `fib daddr type local`
    pub(super) fn destination_local(self) -> Self {
        self.push("fib", |a| {
            a.be32(1, REG_1);
            a.be32(2, 3); // the address type
            a.be32(3, 2); // of the destination
        })
        .compare(CMP_EQ, &RTN_LOCAL.to_ne_bytes())
    }

    /// `meta l4proto tcp`
    pub(super) fn tcp(self) -> Self {
        self.meta(META_L4PROTO, REG_1).compare(CMP_EQ, &[6])
    }

    /// `meta l4proto . th dport @set`
    pub(super) fn port_in(self, set: &str) -> Self {
        self.meta(META_L4PROTO, REG32_00).payload(TRANSPORT_HEADER, 2, 2, REG32_00 + 1).lookup(set, false)
    }

    fn conntrack_bits(self, key: u32, mask: u32) -> Self {
        self.push("ct", |a| {
            a.be32(1, REG_1);
            a.be32(2, key);
        })
        .push("bitwise", |a| {
            a.be32(1, REG_1);
            a.be32(2, REG_1);
            a.be32(3, 4);
            a.nest(4, |a| a.bytes(NFTA_DATA_VALUE, &mask.to_ne_bytes()));
            a.nest(5, |a| a.bytes(NFTA_DATA_VALUE, &[0; 4]));
        })
        .compare(CMP_NEQ, &[0; 4])
    }

    /// `ct state established,related`
    pub(super) fn established(self) -> Self {
        self.conntrack_bits(CT_STATE, STATE_ESTABLISHED_RELATED)
    }

    /// `ct status dnat`
    pub(super) fn translated(self) -> Self {
        self.conntrack_bits(CT_STATUS, STATUS_DNAT)
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        self.push("immediate", |a| {
            a.be32(1, 0);
            a.nest(2, |a| {
                a.nest(NFTA_DATA_VERDICT, |a| {
                    a.bytes(1, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        a.text(2, chain);
                    }
                });
            });
        })
    }

    pub(super) fn accept(self) -> Self {
        self.verdict(NF_ACCEPT, None)
    }

    pub(super) fn discard(self) -> Self {
        self.verdict(NF_DROP, None)
    }

    pub(super) fn leave(self) -> Self {
        self.verdict(NFT_RETURN, None)
    }

    pub(super) fn jump(self, chain: &str) -> Self {
        self.verdict(NFT_JUMP, Some(chain))
    }

    /// `reject with tcp reset`
    pub(super) fn reset(self) -> Self {
        self.reject(1, 0)
    }

    /// `reject with icmpx admin-prohibited`
    pub(super) fn prohibit(self) -> Self {
        self.reject(2, 3)
    }

    /// `reject with icmpx port-unreachable`
    pub(super) fn unreachable(self) -> Self {
        self.reject(2, 1)
    }

    fn reject(self, kind: u32, code: u8) -> Self {
        self.push("reject", |a| {
            a.be32(1, kind);
            a.bytes(2, &[code]);
        })
    }

    /// `masquerade`
    pub(super) fn masquerade(self) -> Self {
        self.push("masq", |_| {})
    }

    /// `dnat ip to [ip daddr .] meta l4proto . th dport map @set`; the map gives address . port.
    pub(super) fn translate(self, family: Family, set: &str, with_address: bool) -> Self {
        let (rule, _) = self.service_key(family, with_address);
        rule.translate_by(family, set)
    }

    /// The same with a place behind the port: `... . numgen random mod 120 map @set`, or with `jhash ip saddr`.
    pub(super) fn spread(self, family: Family, set: &str, with_address: bool, pick: Pick) -> Self {
        let (rule, register) = self.service_key(family, with_address);
        let rule = match pick {
            Pick::Random => rule.push("numgen", |a| {
                a.be32(1, register);
                a.be32(2, PLACES);
                a.be32(3, 1); // random
                a.be32(4, 0);
            }),
            Pick::Client => {
                rule.payload(NETWORK_HEADER, family.source_offset(), family.width(), REG32_08).push("hash", |a| {
                    a.be32(1, REG32_08);
                    a.be32(2, register);
                    a.be32(3, family.width());
                    a.be32(4, PLACES);
                    a.be32(5, CLIENT_HASH_SEED);
                    a.be32(6, 0);
                    a.be32(7, 0); // jhash
                })
            }
        };
        rule.translate_by(family, set)
    }

    /// Loads `[ip daddr .] meta l4proto . th dport`; returns the register behind it as well.
    fn service_key(self, family: Family, with_address: bool) -> (Self, u32) {
        let mut rule = self.family(family);
        let mut register = REG32_00;
        if with_address {
            rule = rule.payload(NETWORK_HEADER, family.destination_offset(), family.width(), REG_1);
            register += family.width() / 4;
        }
        (rule.meta(META_L4PROTO, register).payload(TRANSPORT_HEADER, 2, 2, register + 1), register + 2)
    }

    /// Looks the loaded key up and sends the connection to the address and port that are found.
    fn translate_by(self, family: Family, set: &str) -> Self {
        self.push("lookup", |a| {
            a.text(1, set);
            a.be32(2, REG32_00);
            a.be32(3, REG32_00);
        })
        .push("nat", |a| {
            a.be32(1, 1); // to a new destination
            a.be32(2, u32::from(family.number()));
            a.be32(3, REG32_00);
            a.be32(5, REG32_00 + family.width() / 4);
        })
    }
}
