//! Networks of containers: which they join with what address, and what these are.

use std::net::Ipv4Addr;

use serde_json::Value;
use spec::manifest::compose::convert::{RunLine, RunNetwork};

use super::container::{elements, list, pairs, text};
use super::docker::Fields;
use super::known::{Known, is_own};

impl Fields<'_> {
    pub(super) fn networks(&mut self) {
        let mode = text(&self.host["NetworkMode"]);
        if matches!(mode, "host" | "none") || mode.starts_with("container:") {
            return self.flag("network", mode);
        }
        let id = text(&self.inspected["Id"]);
        let mut joined: Vec<(&String, &Value)> =
            pairs(&self.inspected["NetworkSettings"]["Networks"]).filter(|(network, _)| is_own(network)).collect();
        // The first one is that of the command line.
        joined.sort_by_key(|(network, _)| *network != mode);
        if joined.is_empty() && is_own(mode) {
            self.flag("network", mode);
        }
        for (network, joined) in joined {
            let mut options = String::new();
            for alias in list(&joined["Aliases"]) {
                // Docker adds these by itself.
                if alias != self.name && !id.starts_with(alias) {
                    options += &format!(",alias={alias}");
                }
            }
            for (option, field) in [("ip", "IPv4Address"), ("ip6", "IPv6Address")] {
                match text(&joined["IPAMConfig"][field]) {
                    "" => {}
                    address => options += &format!(",{option}={address}"),
                }
            }
            self.flag("network", if options.is_empty() { network.clone() } else { format!("name={network}{options}") });
            if joined["DriverOpts"].as_object().is_some_and(|options| !options.is_empty()) {
                self.lost("DriverOpts", &format!("of the network `{network}`"));
            }
        }
        let links =
            pairs(&self.inspected["NetworkSettings"]["Networks"]).flat_map(|(_, joined)| list(&joined["Links"]));
        for link in list(&self.host["Links"]).into_iter().chain(links) {
            // `/db:/web/alias`, or `db:alias` of a network.
            let (other, alias) = link.split_once(':').unwrap_or((link, ""));
            let alias = alias.rsplit('/').next().unwrap_or_default();
            self.flag("link", format!("{}:{alias}", other.trim_start_matches('/')));
        }
    }
}

/// Writes what is special about the networks that a container joins. An address that it would not get is left out: a
/// service that wishes for one does not start without it.
pub(super) fn define(line: &mut RunLine, name: &str, known: &Known, notes: &mut Vec<String>) {
    for (network, address) in joined(line, name, notes) {
        let missing = |address: Ipv4Addr| {
            format!(
                "`{name}` does not start before `networks.{network}` has the subnet of {address}: write `ipam: {{config: [{{subnet: ...}}]}}` there"
            )
        };
        let Some(found) = known.network(&network) else {
            notes.extend(address.map(missing));
            continue;
        };
        let driver = found["Driver"].as_str().unwrap_or_else(|| text(&found["driver"]));
        if !matches!(driver, "" | "bridge") {
            notes.push(format!("network `{network}` of `{name}` becomes a bridge: there is no driver `{driver}`"));
        }
        let options = pairs(&found["Options"]).chain(pairs(&found["options"]));
        // What newer versions of Docker say of every network.
        let options: Vec<&str> =
            options.map(|(key, _)| key.as_str()).filter(|key| !key.contains(".enable_ipv")).collect();
        if !options.is_empty() {
            let options = options.join(", ");
            notes.push(format!("options of network `{network}` of `{name}` were left out: {options}"));
        }
        let subnets: Vec<&str> = elements(&found["IPAM"]["Config"])
            .map(|config| text(&config["Subnet"]))
            .chain(elements(&found["subnets"]).map(|config| text(&config["subnet"])))
            .collect();
        let subnet = match address {
            Some(address) => subnets.into_iter().find(|subnet| contains(subnet, address)),
            None => subnets.into_iter().find(|subnet| is_chosen(subnet)),
        };
        match (subnet, address) {
            (None, Some(address)) => notes.push(missing(address)),
            (None, None) => {}
            (Some(subnet), _) => notes.push(format!(
                "network `{network}` of `{name}` keeps its subnet {subnet}: remove the old network before the first start, since both cannot have it"
            )),
        }
        let on = |field: &str, small: &str| found[field] == true || found[small] == true;
        let special = RunNetwork {
            subnet: subnet.map(str::to_owned),
            internal: on("Internal", "internal"),
            ipv6: on("EnableIPv6", "ipv6_enabled"),
        };
        line.networks.insert(network, special);
    }
}

/// The networks that a line joins, each with the address that is wished for.
fn joined(line: &mut RunLine, name: &str, notes: &mut Vec<String>) -> Vec<(String, Option<Ipv4Addr>)> {
    let mut joined: Vec<(String, Option<Ipv4Addr>)> = Vec::new();
    let mut of_first = None;
    let mut note = |address: &str| {
        notes.push(format!(
            "address {address} of `{name}` was left out: networks have IPv6 ranges of their own, which nobody chooses"
        ));
    };
    line.flags.retain_mut(|(flag, value)| {
        match *flag {
            "ip6" => {
                note(value);
                return false;
            }
            "ip" => of_first = value.parse().ok(),
            "network" | "net" if value.contains("ip6=") => {
                let (of_6, kept): (Vec<&str>, Vec<&str>) = value.split(',').partition(|part| part.starts_with("ip6="));
                of_6.iter().for_each(|part| note(part.trim_start_matches("ip6=")));
                *value = kept.join(",");
            }
            _ => {}
        }
        if matches!(*flag, "network" | "net") {
            let part = |start: &str| value.split(',').find_map(|part| part.strip_prefix(start));
            let network = part("name=").unwrap_or(value).to_owned();
            if is_own(&network) {
                joined.push((network, part("ip=").and_then(|address| address.parse().ok())));
            }
        }
        true
    });
    match joined.first_mut() {
        Some((_, address)) => *address = address.or(of_first),
        None => joined.extend(of_first.map(|address| ("default".to_owned(), Some(address)))),
    }
    joined
}

/// The first address of a subnet and the length of its prefix; `None` for one of IPv6.
fn parsed(subnet: &str) -> Option<(u32, u32)> {
    let (first, length) = subnet.split_once('/')?;
    let (first, length): (Ipv4Addr, u32) = (first.parse().ok()?, length.parse().ok()?);
    (length <= 32).then(|| (first.to_bits(), length))
}

fn contains(subnet: &str, address: Ipv4Addr) -> bool {
    parsed(subnet).is_some_and(|(first, length)| {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        first & mask == address.to_bits() & mask
    })
}

/// Whether somebody chose a subnet of IPv4: neither engine takes it by itself.
fn is_chosen(subnet: &str) -> bool {
    parsed(subnet).is_some_and(|(first, length)| {
        !matches!(
            (first.to_be_bytes(), length),
            ([172, 17..=31, 0, 0], 16) | ([192, 168, _, 0], 20) | ([10, 89..=255, _, 0], 24)
        )
    })
}
