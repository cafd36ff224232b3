//! Services in the kernel: who is reached, by whom, and what stays when the pods behind them change.

use spec::services::{Backend, ServiceSet};

use super::*;

/// The virtual address of the tests.
const WEB: Ipv4Addr = Ipv4Addr::new(10, 95, 241, 7);

/// Entrances with the pods behind them, which listen on 8080.
fn set(entrances: &[(Protocol, Option<Ipv4Addr>, u16, &[&Pod])]) -> ServiceSet {
    let mut set = ServiceSet::default();
    for (protocol, address, port, pods) in entrances {
        let backends = pods.iter().map(|pod| Backend {
            pod: pod.uid.clone(),
            port: 8080,
            v4: pod.addresses.v4,
            v6: pod.addresses.v6,
        });
        let entrance = Entrance { protocol: *protocol, address: *address, port: *port };
        set.entrances.insert(entrance, Balance { sticky: false, backends: backends.collect() });
    }
    set
}

/// The names that answer within many tries, in order.
fn answers(from: &Place, address: &str) -> Vec<String> {
    let all: std::collections::BTreeSet<String> = (0..40).map(|_| first_word(&from.ask(address))).collect();
    all.into_iter().collect()
}

fn first_word(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn a_service_spreads_over_its_pods_for_pods_and_host_and_refuses_without_any() {
    on_a_host(|host| {
        let network = host.network();
        let state = network.service_state().expect("a range is free");
        assert_eq!(state.range.map(|range| range.to_string()).as_deref(), Some("10.95.240.0/20"));
        let a = host.pod(&network, "a", &[]);
        let b = host.pod(&network, "b", &[]);
        let client = host.pod(&network, "client", &[]);
        let other = host.pod(&network, "other", &["project"]);
        a.place.serve("0.0.0.0:8080", "a");
        b.place.serve("0.0.0.0:8080", "b");
        let open = |pods: &[&Pod]| {
            let faults = network.publish_services(&set(&[(Protocol::Tcp, Some(WEB), 80, pods)])).expect("published");
            assert!(faults.is_empty());
        };
        open(&[&a, &b]);
        for place in [&client.place, &Place::Here, &a.place] {
            assert_eq!(answers(place, "10.95.241.7:80"), ["a", "b"]);
        }
        assert_eq!(first_word(&client.place.ask("10.95.241.7:81")), "ConnectionRefused", "no such port");
        assert_eq!(first_word(&Place::Here.ask("10.95.241.8:80")), "ConnectionRefused", "no such Service");
        assert_eq!(first_word(&other.place.ask("10.95.241.7:80")), "ConnectionRefused", "another network");
        assert_eq!(network.check().expect("readable").faults, Vec::<String>::new());

        // A connection stays with its pod when that pod is no longer behind the Service.
        let mut streams: Vec<_> = (0..8).map(|_| client.place.connect("10.95.241.7:80").expect("accepted")).collect();
        streams.iter_mut().for_each(|stream| drop(line(stream).expect("an answer")));
        open(&[&b]);
        assert_eq!(answers(&client.place, "10.95.241.7:80"), ["b"]);
        for stream in &mut streams {
            stream.write_all(b"x").expect("still open");
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("still answered");
        }
        open(&[]);
        for place in [&client.place, &Place::Here] {
            assert_eq!(place.ask("10.95.241.7:80"), "ConnectionRefused");
        }
        // A pod reaches itself.
        open(&[&a]);
        assert_eq!(answers(&a.place, "10.95.241.7:80"), ["a"]);

        // The agent ends; what it opened stays, and the next one finds what was given out.
        drop(network);
        let network = host.network();
        assert_eq!(network.service_state().expect("recorded").range, state.range);
        network.ensure().expect("set up");
        assert_eq!(answers(&client.place, "10.95.241.7:80"), ["a"]);
        network.publish_services(&ServiceSet::default()).expect("published");
        assert_eq!(client.place.ask("10.95.241.7:80"), "NetworkUnreachable", "without Services there is no route");
    });
}

#[test]
fn a_service_on_the_host_is_reached_from_everywhere() {
    on_a_host(|host| {
        let network = host.network();
        let neighbour = host.neighbour();
        network.service_state().expect("a range is free");
        let a = host.pod(&network, "a", &[]);
        let b = host.pod(&network, "b", &[]);
        let other = host.pod(&network, "other", &["project"]);
        for address in ["0.0.0.0:8080", "[::]:8080"] {
            // [::] takes IPv4 too: the first one is in its way.
            if address.starts_with('0') == cfg!(target_os = "linux") {
                a.place.serve(address, "a");
                b.place.serve(address, "b");
            }
        }
        let open = |pods: &[&Pod]| {
            let wished = set(&[(Protocol::Tcp, None, 30080, pods), (Protocol::Tcp, Some(WEB), 80, pods)]);
            network.publish_services(&wished).expect("published")
        };
        assert!(open(&[&a, &b]).is_empty());
        for (place, address) in [
            (&Place::Here, "127.0.0.1:30080"),
            (&Place::Here, "192.0.2.1:30080"),
            (&neighbour, "192.0.2.1:30080"),
            (&a.place, "192.0.2.1:30080"),
            (&other.place, "192.0.2.1:30080"),
        ] {
            assert_eq!(answers(place, address), ["a", "b"], "{address}");
        }
        assert_eq!(neighbour.ask("10.95.241.7:80"), "ConnectionRefused", "a virtual address is for this host only");
        let taken = std::net::TcpListener::bind("127.0.0.1:30080").expect_err("held");
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
        open(&[]);
        for (place, address) in [(&Place::Here, "127.0.0.1:30080"), (&neighbour, "192.0.2.1:30080")] {
            assert_eq!(place.ask(address), "ConnectionRefused", "{address}");
        }
        network.publish_services(&ServiceSet::default()).expect("published");
        let listener = std::net::TcpListener::bind("127.0.0.1:30080").expect("given back");
        let faults = open(&[&a]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].1.to_string().contains("the port is taken by"), "{}", faults[0].1);
        drop(listener);
    });
}

#[test]
fn the_same_client_comes_to_the_same_pod() {
    on_a_host(|host| {
        let network = host.network();
        network.service_state().expect("a range is free");
        let pods: Vec<Pod> = ["a", "b", "c"].iter().map(|name| host.pod(&network, name, &[])).collect();
        for (pod, name) in pods.iter().zip(["a", "b", "c"]) {
            pod.place.serve("0.0.0.0:8080", name);
        }
        let clients: Vec<Pod> = (0..8).map(|n| host.pod(&network, &format!("client{n}"), &[])).collect();
        let mut wished = set(&[(Protocol::Tcp, Some(WEB), 80, &pods.iter().collect::<Vec<_>>())]);
        wished.entrances.values_mut().for_each(|balance| balance.sticky = true);
        network.publish_services(&wished).expect("published");
        let mut seen = std::collections::BTreeSet::new();
        for client in &clients {
            let answers = answers(&client.place, "10.95.241.7:80");
            assert_eq!(answers.len(), 1, "{answers:?}");
            seen.extend(answers);
        }
        assert!(seen.len() > 1, "all clients came to one pod: {seen:?}");
    });
}

#[test]
fn udp_flows_leave_a_pod_that_is_no_longer_behind_the_service() {
    on_a_host(|host| {
        let network = host.network();
        network.service_state().expect("a range is free");
        let a = host.pod(&network, "a", &[]);
        let b = host.pod(&network, "b", &[]);
        let client = host.pod(&network, "client", &[]);
        a.place.serve_udp("0.0.0.0:8080", "a");
        b.place.serve_udp("0.0.0.0:8080", "b");
        let open = |pods: &[&Pod]| {
            let wished = set(&[(Protocol::Udp, Some(WEB), 53, pods), (Protocol::Udp, None, 30053, pods)]);
            network.publish_services(&wished).expect("published");
        };
        open(&[&a]);
        for (place, address) in [(&client.place, "10.95.241.7:53"), (&Place::Here, "127.0.0.1:30053")] {
            open(&[&a]);
            let socket = place.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a port");
            place.run(|| socket.connect(address)).expect("a route");
            socket.set_read_timeout(Some(Duration::from_secs(1))).expect("settable");
            assert_eq!(ask_udp(&socket), "a");
            // A second pod comes: the flow stays.
            open(&[&a, &b]);
            assert_eq!(ask_udp(&socket), "a");
            open(&[&b]);
            assert_eq!(ask_udp(&socket), "b");
            open(&[]);
            let refused = (0..3).any(|_| {
                let told = socket.send(b"?").and_then(|_| socket.recv(&mut [0; 8]));
                told.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
            });
            assert!(refused, "{address} is not refused");
        }
    });
}
