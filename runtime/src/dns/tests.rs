//! The responder on a host of its own, with a server beside it that stands for the world.

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata::A};
use spec::names::Meaning;

use super::*;

/// Runs a test in a network namespace with loopback, in a tokio runtime of one thread.
fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    crate::network::on_a_host(|_| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test());
    });
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 7;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), RecordType::A));
    message.to_vec().expect("a message")
}

fn shown(reply: &[u8]) -> String {
    let message = Message::from_vec(reply).expect("an answer");
    assert_eq!(message.metadata.id, 7);
    let data: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
    format!("{:?} {}", message.metadata.response_code, data.join(" ")).trim_end().to_owned()
}

async fn over_udp(to: Ipv4Addr, name: &str) -> String {
    let socket = UdpSocket::bind("127.0.0.2:0").await.expect("a port");
    socket.connect((to, PORT)).await.expect("a route");
    socket.send(&query(name)).await.expect("sent");
    let mut buffer = vec![0; 4096];
    match tokio::time::timeout(Duration::from_secs(8), socket.recv(&mut buffer)).await {
        Ok(Ok(length)) => shown(&buffer[..length]),
        Ok(Err(error)) => error.kind().to_string(),
        Err(_) => "nothing".to_owned(),
    }
}

async fn over_tcp(to: Ipv4Addr, name: &str) -> String {
    let mut stream = TcpStream::connect((to, PORT)).await.expect("it listens");
    write_message(&mut stream, &query(name)).await.expect("sent");
    shown(&read_message(&mut stream).await.expect("an answer"))
}

/// A server that knows one address for everything.
async fn world(address: Ipv4Addr) {
    let udp = UdpSocket::bind((address, PORT)).await.expect("nobody has it");
    let tcp = TcpListener::bind((address, PORT)).await.expect("nobody has it");
    let reply = |packet: &[u8]| {
        let request = Message::from_vec(packet).expect("a query");
        let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
        let name = request.queries[0].name().clone();
        reply.add_queries(request.queries);
        reply.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(192, 0, 2, 80)))));
        reply.to_vec().expect("a message")
    };
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
            // Somebody guesses, wrongly: it must not be believed.
            let mut forged = reply(&buffer[..length]);
            forged[0] ^= 0xff;
            udp.send_to(&forged, peer).await.expect("sent");
            udp.send_to(&reply(&buffer[..length]), peer).await.expect("sent");
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let packet = read_message(&mut stream).await.expect("a query");
            write_message(&mut stream, &reply(&packet)).await.expect("sent");
        }
    });
}

#[test]
fn own_names_are_answered_and_others_asked_for() {
    on_a_host(|| async {
        let (ours, others) = (Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54));
        let pod = PodUid("p".to_owned());
        let me = pod.clone();
        let responder = Responder::new(Box::new(move |address| {
            address.is_loopback().then(|| Client { pod: Some(me.clone()), cluster: true, networks: Vec::new() })
        }));
        responder.listen(&[ours]);
        assert_ne!(
            over_udp(ours, "web.default.svc.cluster.local.").await,
            "nothing",
            "refused at once before names are known"
        );
        let mut table = NameTable::default();
        let addresses = Meaning::Addresses([Ipv4Addr::new(10, 0, 0, 1)].into());
        table.cluster.insert("web.default.svc.cluster.local".to_owned(), addresses);
        table.cluster.insert("out.default.svc.cluster.local".to_owned(), Meaning::Alias("example.com".to_owned()));
        table.upstreams.insert(pod, vec![others.into()]);
        responder.set(&table, BTreeMap::new(), Vec::new());
        responder.listen(&[ours]);
        assert_eq!(over_udp(ours, "web.default.svc.cluster.local.").await, "NoError 10.0.0.1");
        assert_eq!(over_tcp(ours, "web.default.svc.cluster.local.").await, "NoError 10.0.0.1");
        assert_eq!(over_udp(ours, "no.default.svc.cluster.local.").await, "NXDomain");
        assert_eq!(over_udp(ours, "example.com.").await, "ServFail", "no server is there");
        world(others).await;
        assert_eq!(over_udp(ours, "example.com.").await, "NoError 192.0.2.80");
        assert_eq!(over_tcp(ours, "example.com.").await, "NoError 192.0.2.80");
        assert_eq!(over_udp(ours, "out.default.svc.cluster.local.").await, "NoError example.com. 192.0.2.80");
        // Names change without a new socket.
        table.cluster.clear();
        responder.set(&table, BTreeMap::new(), Vec::new());
        assert_eq!(over_udp(ours, "web.default.svc.cluster.local.").await, "NXDomain");
        responder.listen(&[]);
        tokio::task::yield_now().await;
        assert_eq!(over_udp(ours, "example.com.").await, std::io::ErrorKind::ConnectionRefused.to_string());
    });
}
