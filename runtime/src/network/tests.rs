//! The whole network in namespaces of its own: a host, its pods, and another host beside it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use spec::pod::Protocol;

use super::*;

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
        create_namespaces(&dir, &request).expect("root may make namespaces");
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
        let veth = Veth {
            host_name: "wan",
            bridge,
            netns: file.as_fd(),
            pod_name: "wan",
            pod_index: 2,
            mac: [2, 0, 0, 0, 0, 2],
            mtu: 1500,
        };
        links.create_veth(&veth).expect("made");
        links.configure(bridge, &wire(1), &[]).expect("configured");
        let routes = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), "2001:db8::1".parse().expect("an address")];
        namespace::inside(&file, || Links::open()?.configure(2, &wire(2), &routes)).expect("configured");
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
