//! The whole network in namespaces of its own: a host, its pods, and another host beside it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use spec::pod::Protocol;

use super::*;

mod services;

/// Runs a test on a host of its own: a network namespace with loopback, in a thread that ends with it.
/// Without root it says so and does nothing.
pub(crate) fn on_a_host(test: impl FnOnce(&Host) + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: network tests need root");
        return;
    }
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make namespaces");
            Links::open().and_then(|l| l.set_up(1, "lo")).expect("a new namespace has loopback");
            let host = Host { dir: tempfile::tempdir().expect("a directory") };
            test(&host);
        });
        run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Runs nft as the oracle; `None`, with a reason, where it is not installed.
pub(crate) fn nft(arguments: &[&str]) -> Option<String> {
    match Command::new("nft").args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).expect("nft prints text"))
        }
        Err(error) => {
            eprintln!("skipped: nft cannot be run: {error}");
            None
        }
    }
}

pub(crate) struct Host {
    dir: tempfile::TempDir,
}

impl Drop for Host {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.dir.path().join("ns")).into_iter().flatten().flatten() {
            remove_namespaces(&entry.path()).expect("unpinned");
        }
    }
}

impl Host {
    fn config(&self) -> NetworkConfig {
        NetworkConfig::new(self.dir.path().join("state"))
    }

    fn network(&self) -> Network {
        Network::open(self.config()).expect("no records yet")
    }

    fn namespace(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join("ns").join(name);
        let request = NamespaceRequest { net: true, ..NamespaceRequest::default() };
        create_namespaces(&dir, &request, None).expect("root may make namespaces");
        dir.join("net")
    }

    /// A pod that is attached to these networks.
    fn pod(&self, network: &Network, name: &str, networks: &[&str]) -> Pod {
        let attachments: Vec<_> = networks
            .iter()
            .map(|n| NetworkAttachment { network: (*n).to_owned(), ..NetworkAttachment::default() })
            .collect();
        let netns = self.namespace(name);
        let uid = PodUid(name.to_owned());
        let addresses = network.attach(&uid, &netns, &attachments).expect("attached");
        Pod { uid, place: Place::Namespace(File::open(&netns).expect("pinned")), netns, addresses }
    }

    /// Another host on the same wire: this one is 192.0.2.1 and 2001:db8::1, that one ends in 2.
    fn neighbour(&self) -> Place {
        let netns = self.namespace("neighbour");
        let file = File::open(netns).expect("pinned");
        let links = Links::open().expect("rtnetlink");
        links.create_bridge("stub", [2, 0, 0, 0, 0, 9], 1500).expect("made");
        let bridge = links.find("stub").expect("readable").expect("there").index;
        let veth =
            Veth { host_name: "wan", bridge, netns: file.as_fd(), pod_name: "wan", mac: [2, 0, 0, 0, 0, 2], mtu: 1500 };
        links.create_veth(&veth).expect("made");
        links.configure("stub", &wire(1), &[]).expect("configured");
        let routes = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), "2001:db8::1".parse().expect("an address")];
        namespace::inside(&file, || Links::open()?.configure("wan", &wire(2), &routes)).expect("configured");
        Place::Namespace(file)
    }
}

fn wire(last: u8) -> [(IpAddr, u8); 2] {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into());
    [(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 24), (IpAddr::V6(v6), 64)]
}

struct Pod {
    uid: PodUid,
    netns: PathBuf,
    place: Place,
    addresses: Addresses,
}

impl Pod {
    fn v4(&self) -> Ipv4Addr {
        self.addresses.v4.expect("every pod has one")
    }

    fn target(&self, container_port: u16) -> PortTarget {
        PortTarget { pod: self.uid.clone(), addresses: self.addresses, container_port }
    }
}

/// Where a socket is made. It stays there whichever thread uses it later.
enum Place {
    Here,
    Namespace(File),
}

impl Place {
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self {
            Self::Here => work(),
            Self::Namespace(netns) => namespace::inside(netns, || Ok(work())).expect("can be entered"),
        }
    }

    /// A server that tells each client its name and the client's address.
    fn serve(&self, address: &str, name: &'static str) {
        let listener = self.run(|| TcpListener::bind(address)).expect("a free port");
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(mut client) = client else { return };
                std::thread::spawn(move || {
                    let peer = client.peer_addr().expect("connected").ip();
                    writeln!(client, "{name} {peer}").ok();
                    // Echo until the client goes.
                    let mut byte = [0];
                    while client.read_exact(&mut byte).is_ok() && client.write_all(&byte).is_ok() {}
                });
            }
        });
    }

    fn serve_udp(&self, address: &str, name: &'static str) {
        let socket = self.run(|| UdpSocket::bind(address)).expect("a free port");
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                socket.send_to(name.as_bytes(), peer).ok();
            }
        });
    }

    fn connect(&self, address: &str) -> std::io::Result<TcpStream> {
        let address: SocketAddr = address.parse().expect("address and port");
        let stream = self.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(stream)
    }

    /// What the server at that address says; or how the attempt ended.
    fn ask(&self, address: &str) -> String {
        match self.connect(address).and_then(|mut stream| line(&mut stream)) {
            Ok(answer) => answer,
            Err(error) => format!("{:?}", error.kind()),
        }
    }
}

fn line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        if byte == *b"\n" {
            return Ok(text);
        }
        text.push(char::from(byte[0]));
    }
}

fn ask_udp(socket: &UdpSocket) -> String {
    let mut buffer = [0; 64];
    for _ in 0..5 {
        // A first datagram may meet a closed port while rules change; UDP clients try again.
        if socket.send(b"?").is_ok()
            && let Ok(length) = socket.recv(&mut buffer)
        {
            return String::from_utf8_lossy(&buffer[..length]).into_owned();
        }
    }
    "no answer".to_owned()
}

fn udp_client(place: &Place, address: &str) -> UdpSocket {
    let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = place.run(|| UdpSocket::bind(any)).expect("a free port");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("supported");
    socket.connect(address).expect("an address");
    socket
}

fn key(protocol: Protocol, host_ip: Option<&str>, host_port: u16) -> PortKey {
    PortKey { protocol, host_ip: host_ip.map(|ip| ip.parse().expect("an address")), host_port }
}

fn publish(network: &Network, ports: &[(PortKey, PortTarget)]) {
    let faults = network.publish(&ports.iter().cloned().collect()).expect("published");
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn namespaces_are_pinned_below_one_mount_however_many_pods_come_at_once() {
    on_a_host(|host| {
        // Mounts of this thread and of those it starts, which end with the test.
        unshare(CloneFlags::CLONE_NEWNS).expect("root may make namespaces");
        let none: Option<&str> = None;
        nix::mount::mount(none, "/", none, nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE, none)
            .expect("a namespace of our own");
        let dir = host.dir.path().join("namespaces");
        for _ in 0..20 {
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        start.wait();
                        super::mount_namespaces(&dir).expect("mounted");
                    });
                }
            });
            let table = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("proc");
            let place = dir.display().to_string();
            assert_eq!(table.lines().filter(|line| line.split(' ').nth(4) == Some(place.as_str())).count(), 1);
            super::unmount_namespaces(&dir).expect("unmounted");
            super::unmount_namespaces(&dir).expect("gone already");
            assert!(!dir.exists());
        }
    });
}

#[test]
fn published_ports_are_reached_from_everywhere() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        let pod = host.pod(&network, "a", &[]);
        let other = host.pod(&network, "b", &[]);
        pod.place.serve("[::]:8080", "a");
        publish(&network, &[(key(Protocol::Tcp, None, 80), pod.target(8080))]);
        let gateway = network.gateway(None).expect("made");
        let (gateway4, gateway6) = (gateway.v4.expect("has one"), gateway.v6.expect("has one"));
        let mapped = |ip: &str| format!("a ::ffff:{ip}");
        let (a4, a6) = (pod.v4(), pod.addresses.v6.expect("has one"));
        let own = |place: &Pod| mapped(&place.v4().to_string());
        for (name, place, address, expected) in [
            ("loopback", &Place::Here, "127.0.0.1:80".to_owned(), mapped(&gateway4.to_string())),
            ("loopback, other", &Place::Here, "127.9.9.9:80".to_owned(), mapped(&gateway4.to_string())),
            ("own address", &Place::Here, "192.0.2.1:80".to_owned(), mapped("192.0.2.1")),
            ("bridge address", &Place::Here, format!("{gateway4}:80"), mapped(&gateway4.to_string())),
            ("other host", &neighbour, "192.0.2.1:80".to_owned(), mapped("192.0.2.2")),
            ("other pod", &other.place, "192.0.2.1:80".to_owned(), mapped(&gateway4.to_string())),
            ("other pod by bridge", &other.place, format!("{gateway4}:80"), mapped(&gateway4.to_string())),
            ("itself", &pod.place, "192.0.2.1:80".to_owned(), mapped(&gateway4.to_string())),
            ("pod to pod", &other.place, format!("{a4}:8080"), own(&other)),
            ("host to pod", &Place::Here, format!("{a4}:8080"), mapped(&gateway4.to_string())),
            ("own address, IPv6", &Place::Here, "[2001:db8::1]:80".to_owned(), "a 2001:db8::1".to_owned()),
            ("other host, IPv6", &neighbour, "[2001:db8::1]:80".to_owned(), "a 2001:db8::2".to_owned()),
            ("other pod, IPv6", &other.place, "[2001:db8::1]:80".to_owned(), format!("a {gateway6}")),
            ("itself, IPv6", &pod.place, "[2001:db8::1]:80".to_owned(), format!("a {gateway6}")),
            (
                "pod to pod, IPv6",
                &other.place,
                format!("[{a6}]:8080"),
                format!("a {}", other.addresses.v6.expect("one")),
            ),
            ("loopback, IPv6", &Place::Here, "[::1]:80".to_owned(), "ConnectionRefused".to_owned()),
            ("another port", &Place::Here, "127.0.0.1:81".to_owned(), "ConnectionRefused".to_owned()),
            ("pod's address from outside", &neighbour, format!("{a4}:8080"), "TimedOut".to_owned()),
        ] {
            assert_eq!(place.ask(&address), expected, "{name}");
        }
        publish(&network, &[]);
        assert_eq!(Place::Here.ask("127.0.0.1:80"), "ConnectionRefused");
        assert_eq!(neighbour.ask("192.0.2.1:80"), "ConnectionRefused");
    });
}

#[test]
fn udp_flows_follow_a_change_of_the_target() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        let (a, b) = (host.pod(&network, "a", &[]), host.pod(&network, "b", &[]));
        for (pod, name) in [(&a, "a"), (&b, "b")] {
            pod.place.serve_udp("[::]:53", name);
        }
        let port = key(Protocol::Udp, None, 53);
        publish(&network, &[(port.clone(), a.target(53))]);
        let clients = [
            udp_client(&neighbour, "192.0.2.1:53"),
            udp_client(&neighbour, "[2001:db8::1]:53"),
            udp_client(&Place::Here, "127.0.0.1:53"),
            udp_client(&b.place, "192.0.2.1:53"),
        ];
        assert_eq!(clients.each_ref().map(ask_udp), ["a"; 4]);
        // The same sockets, hence the same flows.
        publish(&network, &[(port, b.target(53))]);
        assert_eq!(clients.each_ref().map(ask_udp), ["b"; 4]);
    });
}

#[test]
fn a_namespace_that_was_made_anew_is_connected_with_the_same_address() {
    on_a_host(|host| {
        let network = host.network();
        let first = host.pod(&network, "a", &[]);
        let again = network.attach(&first.uid, &first.netns, &[]).expect("attached already");
        assert_eq!(again, first.addresses);
        let second = host.pod(&network, "a", &[]);
        assert_eq!(second.addresses, first.addresses);
        second.place.serve("[::]:80", "second");
        assert!(Place::Here.ask(&format!("{}:80", second.v4())).starts_with("second"));
        network.detach(&second.uid).expect("attached");
        network.detach(&second.uid).expect("detached already");
        assert_ne!(host.pod(&network, "b", &[]).addresses, first.addresses);
        network.teardown().expect_err("a pod is left");
    });
}

#[test]
fn flows_of_an_address_are_forgotten_with_its_pod() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        neighbour.serve_udp("[::]:53", "out");
        let pods = ["a", "b", "c"].map(|name| host.pod(&network, name, &[]));
        let clients: Vec<_> = pods
            .iter()
            .flat_map(|p| ["192.0.2.2:53", "[2001:db8::2]:53"].map(|address| udp_client(&p.place, address)))
            .collect();
        assert!(clients.iter().all(|c| ask_udp(c) == "out"));
        let flows = || {
            let table = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").expect("readable");
            pods.each_ref().map(|p| table.lines().filter(|l| l.contains(&format!("src={} ", p.v4()))).count())
        };
        assert_eq!(flows(), [1, 1, 1]);
        network.detach(&pods[0].uid).expect("attached");
        network.reaper.finish().expect("cleared up");
        assert_eq!(flows(), [0, 1, 1]);
        network.detach(&pods[1].uid).expect("attached");
        network.detach(&pods[2].uid).expect("attached");
        network.teardown().expect("no pod is left");
        assert_eq!(flows(), [0, 0, 0]);
    });
}

#[test]
fn a_bound_port_is_reached_by_its_address_only() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        let (a, b) = (host.pod(&network, "a", &[]), host.pod(&network, "b", &[]));
        a.place.serve("[::]:80", "a");
        b.place.serve("[::]:80", "b");
        publish(
            &network,
            &[
                (key(Protocol::Tcp, Some("127.0.0.1"), 80), a.target(80)),
                (key(Protocol::Tcp, Some("192.0.2.1"), 80), b.target(80)),
                (key(Protocol::Tcp, Some("2001:db8::1"), 80), b.target(80)),
                (key(Protocol::Tcp, Some("0.0.0.0"), 81), a.target(80)),
            ],
        );
        let first = |place: &Place, address: &str| place.ask(address).split(' ').next().map(str::to_owned);
        for (place, address, expected) in [
            (&Place::Here, "127.0.0.1:80", "a"),
            (&Place::Here, "127.0.0.2:80", "ConnectionRefused"),
            (&Place::Here, "192.0.2.1:80", "b"),
            (&neighbour, "192.0.2.1:80", "b"),
            (&neighbour, "[2001:db8::1]:80", "b"),
            (&a.place, "192.0.2.1:80", "b"),
            (&a.place, "10.88.0.1:80", "ConnectionRefused"),
            (&neighbour, "192.0.2.1:81", "a"),
            (&neighbour, "[2001:db8::1]:81", "ConnectionRefused"),
        ] {
            assert_eq!(first(place, address).as_deref(), Some(expected), "{address}");
        }
    });
}

#[test]
fn established_connections_stay_and_new_ones_move_at_once() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        let (a, b) = (host.pod(&network, "a", &[]), host.pod(&network, "b", &[]));
        a.place.serve("[::]:80", "a");
        b.place.serve("[::]:80", "b");
        let port = key(Protocol::Tcp, None, 8080);
        let addresses =
            [(&neighbour, "192.0.2.1:8080"), (&Place::Here, "127.0.0.1:8080"), (&b.place, "192.0.2.1:8080")];
        for round in 0..10 {
            publish(&network, &[(port.clone(), a.target(80))]);
            let mut old = addresses.map(|(place, address)| place.connect(address).expect("published"));
            for stream in &mut old {
                assert!(line(stream).expect("answered").starts_with('a'));
            }
            publish(&network, &[(port.clone(), b.target(80))]);
            for (place, address) in addresses {
                assert!(place.ask(address).starts_with('b'), "round {round}: {address}");
            }
            for stream in &mut old {
                let mut byte = [0];
                stream.write_all(b"x").and_then(|()| stream.read_exact(&mut byte)).expect("still connected");
            }
        }
    });
}

#[test]
fn pods_get_out_but_not_to_cloud_metadata_or_the_hosts_loopback() {
    on_a_host(|host| {
        let neighbour = host.neighbour();
        let links = Links::open().expect("rtnetlink");
        // Cloud metadata on the next host, and on this one as some agents put it.
        let metadata: [(IpAddr, u8); 3] =
            ["169.254.169.254", "169.254.170.2", "fd00:ec2::254"].map(|ip| (ip.parse().expect("an address"), 32));
        neighbour.serve("[::]:80", "out");
        Place::Here.serve("127.0.0.1:90", "loopback");
        for (on_this_host, allow, expected) in [
            (false, false, "ConnectionRefused"),
            (false, true, "out"),
            (true, false, "ConnectionRefused"),
            (true, true, "here"),
        ] {
            if on_this_host {
                links.configure("stub", &metadata, &[]).expect("added");
            } else {
                let route = |ip: &str| Command::new("ip").args(["route", "replace", ip, "dev", "stub"]).status();
                neighbour.run(|| Links::open().and_then(|l| l.configure("wan", &metadata, &[]))).expect("added");
                for (address, _) in metadata {
                    assert!(route(&address.to_string()).expect("ip is there").success());
                }
            }
            if on_this_host && !allow {
                Place::Here.serve("[::]:80", "here");
            }
            let config = NetworkConfig { allow_metadata: allow, ..host.config() };
            let network = Network::open(config).expect("good records");
            let pod = host.pod(&network, "p", &[]);
            for address in ["169.254.169.254:80", "169.254.170.2:80", "[fd00:ec2::254]:80"] {
                let got = pod.place.ask(address);
                assert_eq!(got.split(' ').next(), Some(expected), "{address} {on_this_host} {allow}");
            }
            assert_eq!(pod.place.ask("192.0.2.2:80"), "out ::ffff:192.0.2.1", "masqueraded");
            assert_eq!(pod.place.ask("[2001:db8::2]:80"), "out 2001:db8::1", "masqueraded");
            // A pod with a route of its own to the host's loopback (CVE-2020-8558).
            pod.place.run(|| {
                let run = |words: &[&str]| Command::new(words[0]).args(&words[1..]).status().expect("runs").success();
                assert!(run(&["ip", "addr", "flush", "dev", "lo"]));
                assert!(run(&["ip", "route", "replace", "127.0.0.1", "via", "10.88.0.1"]));
                namespace::set_sysctl("net.ipv4.conf.all.route_localnet", "1").expect("own namespace");
                run(&["ip", "rule", "add", "pref", "1", "lookup", "main"]);
                run(&["ip", "route", "flush", "table", "local", "127.0.0.0/8"]);
            });
            assert_eq!(pod.place.ask("127.0.0.1:90"), "TimedOut");
        }
    });
}

#[test]
fn networks_are_apart_and_internal_ones_have_no_way_out() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        neighbour.serve("[::]:80", "out");
        let options = |internal| NetworkOptions { ipv6: true, internal, ..NetworkOptions::default() };
        network.define_network("back", &options(true)).expect("a free range");
        let web = host.pod(&network, "web", &["front", "back"]);
        let db = host.pod(&network, "db", &["back"]);
        let other = host.pod(&network, "other", &[]);
        for (pod, name) in [(&web, "web"), (&db, "db"), (&other, "other")] {
            pod.place.serve("[::]:80", name);
        }
        publish(&network, &[(key(Protocol::Tcp, None, 8080), web.target(80))]);
        let of = |pod: &Pod, net: &str| network.addresses(&pod.uid)[net].v4.expect("has one");
        let default = network.config.name.as_str();
        for (name, place, address, expected) in [
            ("within a network", &web.place, format!("{}:80", of(&db, "back")), "db"),
            ("back again", &db.place, format!("{}:80", of(&web, "back")), "web"),
            ("across networks", &other.place, format!("{}:80", of(&web, "front")), "TimedOut"),
            ("into internal", &other.place, format!("{}:80", of(&db, "back")), "TimedOut"),
            ("by published port", &other.place, "192.0.2.1:8080".to_owned(), "web"),
            ("from outside", &neighbour, "192.0.2.1:8080".to_owned(), "web"),
            ("out", &web.place, "192.0.2.2:80".to_owned(), "out"),
            ("out of internal", &db.place, "192.0.2.2:80".to_owned(), "NetworkUnreachable"),
            ("host to internal", &Place::Here, format!("{}:80", of(&db, "back")), "db"),
            ("host to default", &Place::Here, format!("{}:80", of(&other, default)), "other"),
        ] {
            assert_eq!(place.ask(&address).split(' ').next(), Some(expected), "{name}");
        }
        assert!(network.check().expect("readable").is_whole());
        network.remove_network("back").expect_err("pods are on it");
        for pod in [&web, &db, &other] {
            network.detach(&pod.uid).expect("attached");
        }
        network.remove_network("back").expect("no pod is on it");
        network.remove_network("back").expect("gone already");
        network.teardown().expect("no pod is left");
        network.teardown().expect("gone already");
        let left: Vec<_> = Links::open().and_then(|l| l.all()).expect("readable").into_iter().map(|l| l.name).collect();
        assert!(!left.iter().any(|name| name.starts_with("ms") || name.starts_with("mainstay")), "{left:?}");
    });
}

#[test]
fn what_others_break_is_seen_told_and_mended() {
    on_a_host(|host| {
        let network = host.network();
        let pod = host.pod(&network, "a", &[]);
        pod.place.serve("[::]:80", "a");
        publish(&network, &[(key(Protocol::Tcp, None, 8080), pod.target(80))]);
        let mut hints = network.watch().expect("notifications");
        let ok = |what: &str| assert!(Place::Here.ask("127.0.0.1:8080").starts_with('a'), "{what}");
        ok("before");
        assert_eq!(network.check().expect("readable"), NetworkState::default());
        for (program, arguments, expected) in [
            ("nft", "flush ruleset", "chain refuse of table mainstay is missing"),
            ("nft", "delete element inet mainstay ports4 { tcp . 8080 }", "the elements of set ports4 were changed"),
            ("nft", "flush chain inet mainstay source", "the rules of chain source of table mainstay were changed"),
            ("ip", "link set mainstay0 down", "bridge mainstay0 is down"),
            ("ip", "addr flush dev mainstay0", "bridge mainstay0 has no route to 10.88.0.0/20"),
            ("ip", "link del mainstay0", "bridge mainstay0 is missing"),
        ] {
            let status = Command::new(program).args(arguments.split(' ')).status().expect("installed");
            assert!(status.success(), "{arguments}");
            assert_eq!(hints.blocking_next(), Some(()), "{arguments}");
            let state = network.check().expect("readable");
            assert_eq!(state.faults.first().map(String::as_str), Some(expected), "{arguments}");
            network.repair().expect("mended");
            assert_eq!(network.check().expect("readable"), NetworkState::default(), "{arguments}");
            ok(arguments);
            // The mending of a bridge brings hints of its own; they must have passed before the next round.
            while hints.try_next() {}
        }
        // Only what others do gives a hint.
        let other = host.pod(&network, "b", &[]);
        publish(&network, &[(key(Protocol::Tcp, None, 8080), other.target(80))]);
        assert!(!hints.try_next());

        Links::open()
            .and_then(|l| l.delete(&network.host_interface(&pod.uid, &network_lease(&network, &pod))))
            .expect("there");
        assert_eq!(network.check().expect("readable").cut_off, std::slice::from_ref(&pod.uid));
        network.attach(&pod.uid, &pod.netns, &[]).expect("attached again");
        assert!(network.check().expect("readable").is_whole());
    });
}

fn network_lease(network: &Network, pod: &Pod) -> Lease {
    lock(&network.leases).of(&pod.uid).first().cloned().expect("attached")
}

#[test]
fn another_agent_takes_over_without_a_gap() {
    on_a_host(|host| {
        let network = host.network();
        let pod = host.pod(&network, "a", &[]);
        pod.place.serve("[::]:80", "a");
        let port = key(Protocol::Tcp, None, 8080);
        publish(&network, &[(port.clone(), pod.target(80))]);
        drop(network);
        let ok = || Place::Here.ask("127.0.0.1:8080").starts_with('a');
        assert!(ok(), "without an agent");
        let network = host.network();
        network.ensure().expect("all is there");
        assert!(ok(), "before it has published");
        assert_eq!(network.attach(&pod.uid, &pod.netns, &[]).expect("attached already"), pod.addresses);
        publish(&network, &[(port.clone(), pod.target(80))]);
        assert!(ok());
        // Rules of another version are replaced; their ports stay.
        drop(network);
        nft(&["flush chain inet mainstay input"]);
        let network = host.network();
        network.ensure().expect("replaced");
        assert!(ok(), "with the rules replaced");
        assert_eq!(network.check().expect("readable"), NetworkState::default());

        // A service of the host that was quicker keeps its port, and the other ports are published.
        drop(network);
        let _service = TcpListener::bind("127.0.0.1:8080").expect("nobody holds it now");
        let network = host.network();
        let second = key(Protocol::Tcp, None, 8081);
        let wished = BTreeMap::from([(port.clone(), pod.target(80)), (second, pod.target(80))]);
        let faults = network.publish(&wished).expect("published");
        assert_eq!(faults.iter().map(PortFault::key).collect::<Vec<_>>(), [&port]);
        assert!(Place::Here.ask("127.0.0.1:8081").starts_with('a'));
    });
}

#[test]
fn a_firewall_that_drops_forwarded_packets_is_told() {
    on_a_host(|host| {
        let network = host.network();
        network.ensure().expect("set up");
        let warnings = || network.check().expect("readable").warnings;
        assert_eq!(warnings(), Vec::<String>::new());
        let docker = "table ip filter { chain DOCKER-USER { }; chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }; }";
        if nft(&[docker]).is_none() {
            return;
        }
        let warning = warnings().pop().expect("told");
        assert!(warning.starts_with("chain FORWARD of table filter drops forwarded packets"), "{warning}");
        assert!(warning.contains("iptables -I DOCKER-USER -i mainstay0 -j ACCEPT"), "{warning}");
        nft(&["add rule ip filter DOCKER-USER iifname mainstay0 accept"]);
        nft(&["add rule ip filter DOCKER-USER oifname mainstay0 accept"]);
        assert_eq!(warnings(), Vec::<String>::new());
    });
}
