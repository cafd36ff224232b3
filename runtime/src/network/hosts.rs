//! The files that tell a pod names: /etc/hosts, /etc/resolv.conf and /etc/hostname, as text.
//!
//! Only [`host_resolver`] reads files; rendering is pure.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use spec::observed::Addresses;
use spec::pod::{DnsConfig, DnsPolicy, HostAlias};

/// The name that stands for the bridge's address in host aliases (Docker: `--add-host name:host-gateway`).
const HOST_GATEWAY: &str = "host-gateway";

/// What /etc/hosts is made of.
#[derive(Debug, Clone, Default)]
pub struct HostsFile<'a> {
    /// The pod's own addresses, on its first network.
    pub addresses: Addresses,
    /// Its host name.
    pub hostname: &'a str,
    /// Its full name, when it has a subdomain.
    pub fqdn: Option<&'a str>,
    /// Lines from the manifest.
    pub aliases: &'a [HostAlias],
    /// What `host-gateway` stands for.
    pub gateway: Addresses,
    /// Names of other pods: address and names.
    pub neighbours: &'a [(IpAddr, Vec<String>)],
}

impl HostsFile<'_> {
    /// The file as the kubelet writes it (pkg/kubelet/kubelet_pods.go, `managedHostsFileContent`).
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::from(
            "# Managed by mainstay: changes are lost when the pod is replaced.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n",
        );
        let names = self.fqdn.into_iter().chain([self.hostname]).collect::<Vec<_>>().join("\t");
        let own: Vec<IpAddr> = super::both(self.addresses).collect();
        for address in own.iter().filter(|_| !self.hostname.is_empty()) {
            line(&mut text, &address.to_string(), &names);
        }
        // Without a network the host name must still lead somewhere (Debian's way).
        if own.is_empty() && !self.hostname.is_empty() {
            line(&mut text, "127.0.1.1", &names);
        }
        text.push_str(&render_aliases(self.aliases, self.gateway));
        if !self.neighbours.is_empty() {
            text.push_str("\n# Other pods.\n");
        }
        for (address, names) in self.neighbours {
            line(&mut text, &address.to_string(), &names.join("\t"));
        }
        text
    }
}

/// The lines that a pod on the host's network gets below a copy of the host's own file.
#[must_use]
pub fn render_aliases(aliases: &[HostAlias], gateway: Addresses) -> String {
    let mut text = String::new();
    for alias in aliases {
        let names: Vec<&str> = alias.hostnames.iter().map(String::as_str).filter(|n| is_one_word(n)).collect();
        if text.is_empty() {
            text.push_str("\n# From hostAliases.\n");
        }
        if alias.ip == HOST_GATEWAY {
            let on_host = super::both(gateway).next().is_none().then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
            for address in super::both(gateway).chain(on_host) {
                line(&mut text, &address.to_string(), &names.join("\t"));
            }
        } else if is_one_word(&alias.ip) {
            line(&mut text, &alias.ip, &names.join("\t"));
        }
    }
    text
}

/// A value with white space or a line break in it would write other lines than it says.
fn is_one_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#')
}

fn line(text: &mut String, address: &str, names: &str) {
    let _ = writeln!(text, "{address}\t{names}");
}

/// The content of /etc/hostname.
#[must_use]
pub fn render_hostname(hostname: &str) -> String {
    format!("{hostname}\n")
}

/// What a resolv.conf says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers, in order of asking.
    pub nameservers: Vec<String>,
    /// Domains to try short names in.
    pub searches: Vec<String>,
    /// Options such as `ndots:2`.
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads resolv.conf(5); lines that it does not know are left out. The last `search` or `domain` counts.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next();
            let words = words.map(str::to_owned);
            match keyword {
                Some("nameserver") => resolver.nameservers.extend(words.take(1)),
                Some("search" | "domain") => resolver.searches = words.collect(),
                Some("options") => resolver.options.extend(words),
                _ => {}
            }
        }
        // `.` is how resolvers write "no search domain".
        resolver.searches.retain(|s| s != ".");
        resolver
    }

    /// The file.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for server in &self.nameservers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.searches.is_empty() {
            let _ = writeln!(text, "search {}", self.searches.join(" "));
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }

    /// Only the name servers that a pod with its own loopback can reach.
    fn without_loopback(mut self) -> Self {
        self.nameservers.retain(|server| {
            let address = server.split('%').next().and_then(|a| a.parse::<IpAddr>().ok());
            address.is_some_and(|a| !a.is_loopback() && a != IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        });
        self
    }
}

/// The host's resolver as a pod can use it. Without host network, resolvers on the host's loopback are out of a pod's
/// reach: where systemd-resolved's stub is the only one, the servers behind it are taken. May be without any server.
///
/// # Errors
/// When /etc/resolv.conf is there and cannot be read.
pub fn host_resolver(host_network: bool) -> io::Result<Resolver> {
    resolver_of(Path::new("/etc/resolv.conf"), Path::new("/run/systemd/resolve/resolv.conf"), host_network)
}

fn resolver_of(file: &Path, behind_stub: &Path, host_network: bool) -> io::Result<Resolver> {
    let read = |path: &Path| match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Resolver::default()),
        other => other.map(|bytes| Resolver::parse(&String::from_utf8_lossy(&bytes))),
    };
    let resolver = read(file)?;
    if host_network {
        return Ok(resolver);
    }
    let reachable = resolver.clone().without_loopback();
    if !reachable.nameservers.is_empty() || resolver.nameservers.is_empty() {
        return Ok(reachable);
    }
    Ok(Resolver { nameservers: read(behind_stub)?.without_loopback().nameservers, ..reachable })
}

/// The responder on a pod's bridge, for pods that use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnResolver {
    /// Its address.
    pub address: Ipv4Addr,
    /// The namespace in whose domain short names are looked for; `None` where names are looked up as they are (Compose).
    pub namespace: Option<String>,
}

/// The resolver of a pod: the policy's, with `dnsConfig` appended (Kubernetes PodSpec.dnsPolicy, PodDNSConfig).
/// Options with the same name replace those of the host. `None` takes nothing but `dnsConfig`.
///
/// With a responder of ours that one comes first. The servers of the host stay behind it: while no agent runs it refuses
/// at once, and the world outside can still be found.
#[must_use]
pub fn pod_resolver(host: &Resolver, dns: &DnsConfig, own: Option<&OwnResolver>) -> Resolver {
    let words = |from: &[String]| from.iter().filter(|w| is_one_word(w)).cloned().collect::<Vec<_>>();
    let mut resolver = match (dns.policy, own) {
        (Some(DnsPolicy::None), None) => Resolver::default(),
        (_, None) => host.clone(),
        (_, Some(own)) => in_front_of(host, dns, own, &words(&dns.nameservers)),
    };
    resolver.nameservers = unique(resolver.nameservers, words(&dns.nameservers));
    resolver.searches = unique(resolver.searches, words(&dns.searches));
    for option in words(&dns.options) {
        set_option(&mut resolver.options, option);
    }
    resolver
}

fn in_front_of(host: &Resolver, dns: &DnsConfig, own: &OwnResolver, wished: &[String]) -> Resolver {
    let first = vec![own.address.to_string()];
    let mut resolver = host.clone();
    let dots = match &own.namespace {
        Some(namespace) => {
            let domain = spec::names::CLUSTER_DOMAIN;
            let cluster = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
            resolver.searches = unique(cluster, resolver.searches);
            resolver.nameservers = unique(first, unique(wished.to_vec(), resolver.nameservers));
            "ndots:5"
        }
        None => {
            // Docker: what the service says stands for what the host says.
            if !dns.searches.is_empty() {
                resolver.searches.clear();
            }
            let behind = if wished.is_empty() { resolver.nameservers } else { wished.to_vec() };
            resolver.nameservers = unique(first, behind);
            "ndots:0"
        }
    };
    set_option(&mut resolver.options, dots.to_owned());
    resolver
}

fn set_option(options: &mut Vec<String>, option: String) {
    let name = option.split(':').next().unwrap_or_default();
    options.retain(|o| o.split(':').next() != Some(name));
    options.push(option);
}

fn unique(first: Vec<String>, then: Vec<String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for word in first.into_iter().chain(then) {
        if !all.contains(&word) {
            all.push(word);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(ip: &str, names: &[&str]) -> HostAlias {
        HostAlias { ip: ip.to_owned(), hostnames: names.iter().map(|n| (*n).to_owned()).collect() }
    }

    fn after_localhost(text: &str) -> &str {
        text.split_once("ip6-allrouters\n").expect("the fixed lines come first").1
    }

    #[test]
    fn hosts_has_the_pod_its_aliases_and_its_neighbours() {
        let v4 = Ipv4Addr::new(10, 88, 0, 2);
        let gateway = Addresses { v4: Some(Ipv4Addr::new(10, 88, 0, 1)), v6: None };
        let file = HostsFile {
            addresses: Addresses { v4: Some(v4), v6: Some("fd00::2".parse().expect("an address")) },
            hostname: "web",
            fqdn: Some("web.sub.ns.svc.cluster.local"),
            aliases: &[alias("1.2.3.4", &["a", "b"]), alias("host-gateway", &["host.docker.internal"])],
            gateway,
            neighbours: &[(IpAddr::V4(Ipv4Addr::new(10, 88, 0, 3)), vec!["db".to_owned()])],
        };
        assert_eq!(
            after_localhost(&file.render()),
            "10.88.0.2\tweb.sub.ns.svc.cluster.local\tweb\n\
             fd00::2\tweb.sub.ns.svc.cluster.local\tweb\n\
             \n# From hostAliases.\n\
             1.2.3.4\ta\tb\n\
             10.88.0.1\thost.docker.internal\n\
             \n# Other pods.\n\
             10.88.0.3\tdb\n"
        );
        let alone = HostsFile { hostname: "web", ..HostsFile::default() };
        assert_eq!(after_localhost(&alone.render()), "127.0.1.1\tweb\n");
    }

    #[test]
    fn an_alias_cannot_write_further_lines() {
        let text = render_aliases(&[alias("1.2.3.4", &["a\n6.6.6.6 bank", "good"])], Addresses::default());
        assert_eq!(text, "\n# From hostAliases.\n1.2.3.4\tgood\n");
    }

    #[test]
    fn loopback_resolvers_are_replaced_unless_on_the_host_network() {
        let dir = tempfile::tempdir().expect("a directory");
        let behind = dir.path().join("behind");
        fs::write(&behind, "nameserver 10.0.0.2\nnameserver 127.0.0.1\nsearch other\n").expect("written");
        for (text, host_network, expected) in [
            (
                "nameserver 9.9.9.9\nsearch a b\noptions ndots:2 edns0\n",
                false,
                "nameserver 9.9.9.9\nsearch a b\noptions ndots:2 edns0\n",
            ),
            ("nameserver 127.0.0.53\nsearch .\noptions edns0\n", false, "nameserver 10.0.0.2\noptions edns0\n"),
            ("nameserver 127.0.0.53\n", true, "nameserver 127.0.0.53\n"),
            ("nameserver 127.0.0.1\nnameserver ::1\nnameserver 1.1.1.1 # x\n", false, "nameserver 1.1.1.1\n"),
            ("nameserver fe80::1%eth0\n", false, "nameserver fe80::1%eth0\n"),
            ("# nothing\n", false, ""),
        ] {
            let file = dir.path().join("resolv.conf");
            fs::write(&file, text).expect("written");
            let got = resolver_of(&file, &behind, host_network).expect("readable");
            assert_eq!(got.render(), expected, "{text:?} {host_network}");
        }
        let none = dir.path().join("none");
        assert_eq!(resolver_of(&none, &none, false).expect("absent is fine"), Resolver::default());
    }

    #[test]
    fn settings_of_the_pod_are_merged_into_those_of_the_host() {
        let host = Resolver::parse("nameserver 9.9.9.9\nsearch a\noptions ndots:1 edns0");
        let strings = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let mut dns = DnsConfig {
            policy: None,
            nameservers: strings(&["1.1.1.1", "9.9.9.9", "bad\nnameserver 6.6.6.6"]),
            searches: strings(&["b", "a"]),
            options: strings(&["ndots:5"]),
        };
        let merged = pod_resolver(&host, &dns, None).render();
        assert_eq!(merged, "nameserver 9.9.9.9\nnameserver 1.1.1.1\nsearch a b\noptions edns0 ndots:5\n");
        dns.policy = Some(DnsPolicy::None);
        assert_eq!(
            pod_resolver(&host, &dns, None).render(),
            "nameserver 1.1.1.1\nnameserver 9.9.9.9\nsearch b a\noptions ndots:5\n"
        );
        assert_eq!(pod_resolver(&host, &DnsConfig::default(), None), host);
    }

    #[test]
    fn our_own_responder_comes_first() {
        let host = Resolver::parse("nameserver 9.9.9.9\nsearch corp\noptions ndots:1 edns0");
        let address = Ipv4Addr::new(10, 88, 0, 1);
        let own = |namespace: Option<&str>| OwnResolver { address, namespace: namespace.map(str::to_owned) };
        let mut dns = DnsConfig::default();
        assert_eq!(
            pod_resolver(&host, &dns, Some(&own(Some("shop")))).render(),
            "nameserver 10.88.0.1\nnameserver 9.9.9.9\n\
             search shop.svc.cluster.local svc.cluster.local cluster.local corp\noptions edns0 ndots:5\n"
        );
        assert_eq!(
            pod_resolver(&host, &dns, Some(&own(None))).render(),
            "nameserver 10.88.0.1\nnameserver 9.9.9.9\nsearch corp\noptions edns0 ndots:0\n"
        );
        dns.nameservers = vec!["1.1.1.1".to_owned()];
        dns.searches = vec!["lab".to_owned()];
        dns.options = vec!["ndots:2".to_owned()];
        assert_eq!(
            pod_resolver(&host, &dns, Some(&own(None))).render(),
            "nameserver 10.88.0.1\nnameserver 1.1.1.1\nsearch lab\noptions edns0 ndots:2\n"
        );
        assert_eq!(
            pod_resolver(&host, &dns, Some(&own(Some("shop")))).render(),
            "nameserver 10.88.0.1\nnameserver 1.1.1.1\nnameserver 9.9.9.9\n\
             search shop.svc.cluster.local svc.cluster.local cluster.local corp lab\noptions edns0 ndots:2\n"
        );
    }
}
