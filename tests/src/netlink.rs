//! The few netlink messages the harness needs itself: loopback up, list nftables tables, and plant things that the leak
//! check must find. Written by hand so that no `ip` or `nft` binary is needed and nothing of the product is trusted.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
// linux/netfilter/nfnetlink.h and nf_tables.h
const NFNL_BATCH_BEGIN: u16 = 0x10;
const NFNL_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = 10 << 8;
const NFT_MSG_GETTABLE: u16 = (10 << 8) | 1;
const NFT_MSG_DELTABLE: u16 = (10 << 8) | 2;
const NFPROTO_INET: u8 = 1;

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(u32::try_from(16 + body.len()).expect("a message is short").to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(u16::try_from(4 + value.len()).expect("an attribute is short").to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Sends a request in this thread's network namespace and collects the answers up to `expected` acknowledgements
/// or the end of a dump.
fn exchange(protocol: SockProtocol, request: &[u8], mut expected: usize) -> io::Result<Vec<(u16, Vec<u8>)>> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    sendto(socket.as_raw_fd(), request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answers = Vec::new();
    let mut buffer = vec![0; 65_536];
    while expected > 0 {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let (Some(size), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
            let body = rest.get(16..size as usize).ok_or(io::ErrorKind::InvalidData)?;
            match kind {
                NLMSG_DONE => expected = 0,
                NLMSG_ERROR => {
                    let code = u32_at(body, 0).ok_or(io::ErrorKind::InvalidData)?.cast_signed();
                    if code != 0 {
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    expected = expected.saturating_sub(1);
                }
                _ => answers.push((kind, body.to_vec())),
            }
            rest = rest.get((size as usize).next_multiple_of(4)..).unwrap_or_default();
        }
    }
    Ok(answers)
}

/// Sets the loopback interface of this thread's network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let up = libc::IFF_UP.cast_unsigned();
    let mut link = vec![0; 4];
    // The loopback interface has index 1 in every namespace.
    link.extend(1i32.to_ne_bytes());
    link.extend(up.to_ne_bytes());
    link.extend(up.to_ne_bytes());
    exchange(SockProtocol::NetlinkRoute, &message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &link), 1)?;
    Ok(())
}

/// Names of all nftables tables in this thread's network namespace; none where the kernel has no nftables.
///
/// # Errors
/// When the kernel refuses.
pub fn tables() -> io::Result<Vec<String>> {
    let request = message(NFT_MSG_GETTABLE, NLM_F_REQUEST | NLM_F_DUMP, &[0, 0, 0, 0]);
    let answers = match exchange(SockProtocol::NetlinkNetFilter, &request, 1) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::EINVAL | libc::EOPNOTSUPP)) => {
            return Ok(Vec::new());
        }
        answers => answers?,
    };
    let mut names = Vec::new();
    for (_, body) in answers {
        // struct nfgenmsg, then attributes; NFTA_TABLE_NAME is 1 and comes first.
        if let (Some(length), Some(1)) = (u16_at(&body, 4), u16_at(&body, 6)) {
            let name = body.get(8..4 + usize::from(length)).unwrap_or_default();
            names.push(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned());
        }
    }
    Ok(names)
}

/// Makes an interface of a kind (`veth`, `bridge`, `dummy`): for seeing the leak check find it.
///
/// # Errors
/// When the kernel refuses.
pub fn plant_link(name: &str, kind: &str) -> io::Result<()> {
    const IFLA_IFNAME: u16 = 3;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    let mut link = vec![0; 16];
    link.extend(attribute(IFLA_IFNAME, format!("{name}\0").as_bytes()));
    link.extend(attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, kind.as_bytes())));
    exchange(SockProtocol::NetlinkRoute, &message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, &link), 1)?;
    Ok(())
}

/// Makes an empty nftables table: for seeing the leak check find it.
///
/// # Errors
/// When the kernel refuses.
pub fn plant_table(name: &str) -> io::Result<()> {
    change_table(NFT_MSG_NEWTABLE, NLM_F_CREATE, NFPROTO_INET, name)
}

/// Removes the nftables tables of this name, of every family, as a firewall reload does. None is no failure.
///
/// # Errors
/// When the kernel refuses.
pub fn remove_table(name: &str) -> io::Result<()> {
    // Family 0 stands for all of them (nf_tables_deltable in the kernel).
    change_table(NFT_MSG_DELTABLE, 0, 0, name)
}

fn change_table(kind: u16, flags: u16, family: u8, name: &str) -> io::Result<()> {
    // res_id of a batch is the subsystem, nf_tables, in network order.
    let marker = [0, 0, 0, 10];
    let mut table = vec![family, 0, 0, 0];
    table.extend(attribute(1, format!("{name}\0").as_bytes()));
    let mut batch = message(NFNL_BATCH_BEGIN, NLM_F_REQUEST, &marker);
    batch.extend(message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, &table));
    batch.extend(message(NFNL_BATCH_END, NLM_F_REQUEST, &marker));
    exchange(SockProtocol::NetlinkNetFilter, &batch, 1)?;
    Ok(())
}
