//! `ports` and `expose`: `[[HOST_IP:]HOST_PORT[-RANGE]:]PORT[-RANGE][/PROTOCOL]`, and the long form.
//!
//! Rules: Compose specification, "ports"; docker/go-connections `nat` for the short form.

use std::net::IpAddr;

use super::tree::Tree;
use crate::pod::Protocol;

/// A port with everything that was written about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PortSpec {
    /// Address of the host.
    pub(super) ip: Option<IpAddr>,
    /// First and last port of the host.
    pub(super) host: Option<(u16, u16)>,
    /// First and last port inside.
    pub(super) container: (u16, u16),
    /// Transport.
    pub(super) protocol: Protocol,
}

/// Reads a short form.
pub(super) fn parse(text: &str) -> Result<PortSpec, String> {
    let (rest, protocol) = match text.split_once('/') {
        Some((rest, name)) => (rest, protocol(name)?),
        None => (text, Protocol::Tcp),
    };
    let mut parts = rest.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let ip = parts.next().unwrap_or_default();
    if container.is_empty() {
        return Err("the port of the container is missing".to_owned());
    }
    let container = range(container)?;
    let host = if host.is_empty() { None } else { Some(host_range(host)?) };
    if ip.contains(':') && !ip.starts_with('[') {
        return Err(format!("`{ip}` is no IPv4 address, and one of IPv6 stands in brackets: [{ip}]"));
    }
    let ip = if ip.is_empty() { None } else { Some(address(ip)?) };
    let spec = PortSpec { ip, host, container, protocol };
    check(&spec)?;
    Ok(spec)
}

/// Ranges must fit: equally long, or many host ports to choose one from.
pub(super) fn check(spec: &PortSpec) -> Result<(), String> {
    let length = |(first, last): (u16, u16)| u32::from(last) - u32::from(first);
    match spec.host {
        Some(host) if length(host) != length(spec.container) && length(spec.container) != 0 => Err(format!(
            "the range of the host has {} ports and the one of the container {}",
            length(host) + 1,
            length(spec.container) + 1
        )),
        _ => Ok(()),
    }
}

/// A transport by name.
pub(super) fn protocol(name: &str) -> Result<Protocol, String> {
    match name.to_ascii_lowercase().as_str() {
        "tcp" | "" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err(format!("`{name}` is not a protocol; there are tcp, udp and sctp")),
    }
}

/// An address, with or without brackets.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| format!("`{text}` is not an IP address"))
}

/// `80` or `80-89`, from 1 on.
pub(super) fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = host_range(text)?;
    if first == 0 { Err("port 0 is not a port of a container".to_owned()) } else { Ok((first, last)) }
}

/// The same, where 0 means any.
pub(super) fn host_range(text: &str) -> Result<(u16, u16), String> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u16>().ok().filter(|_| digits).ok_or_else(|| {
            if digits {
                format!("{part} is not a port; the highest is 65535")
            } else {
                format!("`{part}` is not a port number")
            }
        })
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if last < first { Err(format!("the range {first}-{last} ends before it starts")) } else { Ok((first, last)) }
}

/// What makes two entries of `ports` the same when files are merged.
pub(super) fn merge_key(item: &Tree) -> Option<String> {
    if let Some(text) = item.text() {
        let spec = parse(&text).ok()?;
        let ip = spec.ip.map_or(String::new(), |ip| ip.to_string());
        return Some(format!("{ip}|{:?}|{:?}|{}", spec.host.map(show), show(spec.container), spec.protocol));
    }
    let get = |key: &str| item.get(key).and_then(Tree::text);
    let protocol = protocol(&get("protocol").unwrap_or_default()).ok()?;
    let host = get("published").filter(|text| !text.is_empty());
    Some(format!("{}|{:?}|{:?}|{protocol}", get("host_ip").unwrap_or_default(), host, get("target")?))
}

fn show((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(spec: &str) -> String {
        match parse(spec) {
            Ok(spec) => format!(
                "{}{}{}/{}",
                spec.ip.map_or(String::new(), |ip| format!("{ip} ")),
                spec.host.map_or(String::new(), |host| format!("{}:", show(host))),
                show(spec.container),
                spec.protocol
            ),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn short_forms() {
        #[rustfmt::skip]
        let cases = [
            ("80", "80/tcp"), ("80/udp", "80/udp"), ("80/UDP", "80/udp"), ("8080:80", "8080:80/tcp"), ("53:53/udp", "53:53/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080:80/tcp"), ("127.0.0.1::80", "127.0.0.1 80/tcp"), ("0.0.0.0:80:80", "0.0.0.0 80:80/tcp"),
            ("[::1]:8080:80", "::1 8080:80/tcp"), ("::1:8080:80", "error: `::1` is no IPv4 address, and one of IPv6 stands in brackets: [::1]"), (":80", "80/tcp"),
            ("3000-3005", "3000-3005/tcp"), ("9090-9091:8080-8081", "9090-9091:8080-8081/tcp"), ("8000-9000:80", "8000-9000:80/tcp"),
            ("6060:6060/sctp", "6060:6060/sctp"),
            ("", "error: the port of the container is missing"), ("80:", "error: the port of the container is missing"),
            ("0", "error: port 0 is not a port of a container"), ("65536", "error: 65536 is not a port; the highest is 65535"),
            ("http", "error: `http` is not a port number"), ("80:http", "error: `http` is not a port number"), ("80/icmp", "error: `icmp` is not a protocol; there are tcp, udp and sctp"),
            ("90-80", "error: the range 90-80 ends before it starts"),
            ("80-82:80-81", "error: the range of the host has 3 ports and the one of the container 2"),
            ("localhost:80:80", "error: `localhost` is not an IP address"), ("1.2.3:80:80", "error: `1.2.3` is not an IP address"),
            ("-1:80", "error: `` is not a port number"), ("+80:80", "error: `+80` is not a port number"),
        ];
        for (spec, expected) in cases {
            assert_eq!(text(spec), expected, "{spec}");
        }
    }
}
