//! Queries and what becomes of them, a line each.

use proptest::prelude::*;

use super::*;

fn zone() -> Zone {
    let pod = |name: &str| PodUid(name.to_owned());
    let addresses = |last: &[u8]| Meaning::Addresses(last.iter().map(|n| Ipv4Addr::new(10, 88, 0, *n)).collect());
    let mut zone = Zone::default();
    for (name, meaning) in [
        ("web.default.svc.cluster.local", addresses(&[200])),
        ("db.default.svc.cluster.local", addresses(&[2, 3])),
        ("db-0.db.default.svc.cluster.local", addresses(&[2])),
        ("idle.default.svc.cluster.local", addresses(&[])),
        ("many.default.svc.cluster.local", addresses(&(0..200).collect::<Vec<_>>())),
        (
            "_pg._tcp.db.default.svc.cluster.local",
            Meaning::Ports(vec![(5432, "db-0.db.default.svc.cluster.local".into())]),
        ),
        ("out.default.svc.cluster.local", Meaning::Alias("example.com".into())),
        ("same.default.svc.cluster.local", Meaning::Alias("web.default.svc.cluster.local".into())),
    ] {
        zone.table.cluster.insert(name.to_owned(), meaning);
    }
    zone.table.reverse.insert(Ipv4Addr::new(10, 88, 0, 2), "db-0.db.default.svc.cluster.local".into());
    for (network, name, pods) in [
        ("blog_default", "db", vec!["b1"]),
        ("blog_default", "blog-db-1", vec!["b1"]),
        ("shop_default", "db", vec!["s1", "s2"]),
        ("shop_default", "till", vec!["s2"]),
        ("shop_default", "gone", vec![]),
    ] {
        let names = zone.table.networks.entry(network.to_owned()).or_default();
        names.insert(name.to_owned(), pods.into_iter().map(pod).collect());
    }
    for (network, name, last) in [("blog_default", "b1", 1), ("shop_default", "s1", 1), ("shop_default", "s2", 2)] {
        let third = if network == "blog_default" { 1 } else { 2 };
        let members = zone.members.entry(network.to_owned()).or_default();
        members.insert(pod(name), Ipv4Addr::new(10, 89, third, last));
    }
    zone.ranges = vec!["10.88.0.0/15".parse().expect("a range")];
    zone
}

fn cluster() -> Client {
    Client { pod: None, cluster: true, networks: Vec::new() }
}

fn project(networks: &[&str]) -> Client {
    Client { pod: None, cluster: false, networks: networks.iter().map(|n| (*n).to_owned()).collect() }
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 7;
    message.add_query(Query::query(absolute(name).expect("a name"), kind));
    message.to_vec().expect("a message")
}

/// The answer as text: code, then data.
fn ask(client: &Client, name: &str, kind: RecordType) -> String {
    match answer(&query(name, kind), client, &zone(), true, 0) {
        Answer::Ready(packet) => {
            let message = Message::from_vec(&packet).expect("our own answers can be read");
            assert_eq!(message.metadata.id, 7);
            assert!(message.answers.iter().chain(&message.authorities).all(|record| record.ttl <= 5));
            let data: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
            let cut = if message.metadata.truncation { " cut" } else { "" };
            format!("{:?}{cut} {}", message.metadata.response_code, data.join(" ")).trim_end().to_owned()
        }
        Answer::Forward => "forward".to_owned(),
        Answer::Alias(_, query) => format!("alias {}", query.name()),
        Answer::Silence => "silence".to_owned(),
    }
}

#[test]
fn names_of_services() {
    for (name, kind, expected) in [
        ("web.default.svc.cluster.local", RecordType::A, "NoError 10.88.0.200"),
        ("WEB.Default.svc.cluster.LOCAL", RecordType::A, "NoError 10.88.0.200"),
        ("web.default.svc.cluster.local", RecordType::AAAA, "NoError"),
        ("db.default.svc.cluster.local", RecordType::A, "NoError 10.88.0.2 10.88.0.3"),
        ("db-0.db.default.svc.cluster.local", RecordType::A, "NoError 10.88.0.2"),
        ("idle.default.svc.cluster.local", RecordType::A, "NoError"),
        ("none.default.svc.cluster.local", RecordType::A, "NXDomain"),
        ("default.svc.cluster.local", RecordType::A, "NoError"),
        ("many.default.svc.cluster.local", RecordType::A, "NoError cut"),
        ("out.default.svc.cluster.local", RecordType::A, "alias example.com."),
        ("out.default.svc.cluster.local", RecordType::CNAME, "NoError example.com."),
        ("same.default.svc.cluster.local", RecordType::A, "NoError web.default.svc.cluster.local. 10.88.0.200"),
        (
            "_pg._tcp.db.default.svc.cluster.local",
            RecordType::SRV,
            "NoError 0 100 5432 db-0.db.default.svc.cluster.local.",
        ),
        ("2.0.88.10.in-addr.arpa", RecordType::PTR, "NoError db-0.db.default.svc.cluster.local."),
        ("9.0.88.10.in-addr.arpa", RecordType::PTR, "NXDomain"),
        ("8.8.8.8.in-addr.arpa", RecordType::PTR, "forward"),
        ("example.com", RecordType::A, "forward"),
        ("web", RecordType::A, "forward"),
    ] {
        assert_eq!(ask(&cluster(), name, kind), expected, "{name} {kind}");
    }
}

#[test]
fn names_of_a_project_are_known_on_its_networks_only() {
    for (networks, name, expected) in [
        (&["blog_default"][..], "db", "NoError 10.89.1.1"),
        (&["shop_default"], "DB", "NoError 10.89.2.1 10.89.2.2"),
        (&["blog_default", "shop_default"], "db", "NoError 10.89.1.1 10.89.2.1 10.89.2.2"),
        (&["blog_default"], "till", "NXDomain"),
        (&["shop_default"], "till", "NoError 10.89.2.2"),
        (&["shop_default"], "gone", "NoError"),
        (&["blog_default"], "elsewhere", "forward"),
        (&["blog_default"], "web.default.svc.cluster.local", "forward"),
    ] {
        assert_eq!(ask(&project(networks), name, RecordType::A), expected, "{networks:?} {name}");
    }
    let reverse = |network| ask(&project(&[network]), "1.1.89.10.in-addr.arpa", RecordType::PTR);
    assert_eq!(reverse("blog_default"), "NoError blog-db-1.blog_default.");
    assert_eq!(reverse("shop_default"), "NXDomain");
    assert_eq!(ask(&cluster(), "till", RecordType::A), "NXDomain");
}

#[test]
fn addresses_take_turns() {
    let zone = zone();
    let first = |turn| {
        let packet = query("db.default.svc.cluster.local", RecordType::A);
        match answer(&packet, &cluster(), &zone, true, turn) {
            Answer::Ready(packet) => Message::from_vec(&packet).expect("readable").answers[0].data.to_string(),
            other => format!("{other:?}"),
        }
    };
    assert_eq!([first(0), first(1), first(2)], ["10.88.0.2", "10.88.0.3", "10.88.0.2"]);
}

#[test]
fn what_is_no_query_gets_no_answer_or_an_error() {
    let ask = |packet: &[u8]| match answer(packet, &cluster(), &zone(), true, 0) {
        Answer::Ready(packet) => format!("{:?}", Message::from_vec(&packet).expect("readable").metadata.response_code),
        other => format!("{other:?}"),
    };
    let mut own_answer = query("web", RecordType::A);
    own_answer[2] |= 0x80;
    assert_eq!(ask(&own_answer), "Silence");
    assert_eq!(ask(&[]), "Silence");
    assert_eq!(ask(&[0; 11]), "Silence");
    assert_eq!(ask(&query("web", RecordType::A)[..15]), "FormErr");
    assert_eq!(ask(&[0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "FormErr");
    let mut update = query("web", RecordType::A);
    update[2] = 5 << 3;
    assert!(["NotImp", "FormErr"].contains(&ask(&update).as_str()));
}

proptest! {
    #[test]
    fn no_packet_can_panic(packet: Vec<u8>, udp: bool, turn: usize) {
        let _ = answer(&packet, &cluster(), &zone(), udp, turn);
        let _ = complete(Message::query(), Some(&packet), udp);
        let _ = refusal(&packet, ResponseCode::ServFail);
    }

    #[test]
    fn no_damaged_query_can_panic(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut packet = query("db.default.svc.cluster.local", RecordType::A);
        for (place, byte) in damage {
            let place = place.index(packet.len());
            packet[place] = byte;
        }
        let _ = answer(&packet, &project(&["blog_default"]), &zone(), true, 1);
    }
}
