//! HTTP/2: a registry that speaks it, and ones that end streams and connections when they like.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::fake::{Reply, Request, TestImage};
use super::tls::{host, server_config};
use super::{patient, quick, rig, root};
use spec::image_ref::ImageRef;

/// What becomes of a request for the last layer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// RST_STREAM instead of an answer.
    Refused,
    /// RST_STREAM in the middle of the body.
    Reset,
    /// GOAWAY, as proxies that are restarted send it.
    Away,
    /// GOAWAY with an error.
    Calm,
    /// A head, and no body.
    Silent,
    /// The body ends early, as if that were all.
    Short,
    /// One byte too many.
    Long,
}

/// Serves an image over HTTP/2, with a fault in the first answers that have its last layer.
async fn serve(image: TestImage, fault: Fault, times: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut config = (*server_config(false)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (acceptor, left) = (TlsAcceptor::from(Arc::new(config)), Arc::new(AtomicUsize::new(times)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (image, acceptor, left) = (image.clone(), acceptor.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                let mut open = Vec::new();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let request = Request {
                        method: request.method().to_string(),
                        target: request.uri().path().to_owned(),
                        headers: request
                            .headers()
                            .iter()
                            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
                            .collect(),
                        body: String::new(),
                        count: 0,
                    };
                    let Reply::Http { status, headers, body } = image.answer(&request) else { continue };
                    let head = headers.iter().fold(http::Response::builder().status(status), |head, (name, value)| {
                        head.header(name.as_str(), value.as_str())
                    });
                    let head = head.body(()).expect("a head");
                    let now = request.is_blob(image.last().digest)
                        && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                    match Some(fault).filter(|_| now) {
                        Some(Fault::Refused) => respond.send_reset(Reason::REFUSED_STREAM),
                        Some(Fault::Away) => connection.abrupt_shutdown(Reason::NO_ERROR),
                        Some(Fault::Calm) => connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM),
                        fault => {
                            let Ok(mut stream) = respond.send_response(head, false) else { continue };
                            let part = match fault {
                                Some(Fault::Silent) => Vec::new(),
                                Some(Fault::Reset | Fault::Short) => body.get(..1000).unwrap_or_default().to_vec(),
                                Some(Fault::Long) => [body.as_slice(), b"x"].concat(),
                                _ => body,
                            };
                            let ends = !matches!(fault, Some(Fault::Silent | Fault::Reset));
                            let _ = stream.send_data(Bytes::from(part), ends);
                            if fault == Some(Fault::Reset) {
                                stream.send_reset(Reason::INTERNAL_ERROR);
                            }
                            open.push(stream);
                        }
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_connections_may_end_at_any_time() {
    if !root() {
        return;
    }
    let mut wrong = Vec::new();
    for (fault, times, expected) in [
        (Fault::Refused, 0, "pulled"),
        (Fault::Refused, 1, "pulled"),
        (Fault::Reset, 1, "pulled"),
        (Fault::Away, 1, "pulled"),
        (Fault::Calm, 1, "pulled"),
        (Fault::Short, 1, "pulled"),
        (Fault::Refused, 99, "broke off its answer"),
        (Fault::Reset, 99, "broke off its answer"),
        (Fault::Away, 99, "broke off its answer"),
        (Fault::Calm, 99, "broke off its answer"),
        (Fault::Short, 99, "ended layer 2 of 2 after"),
        (Fault::Long, 99, "is larger than"),
        (Fault::Silent, 99, "sent nothing"),
    ] {
        let image = TestImage::usual();
        let address = serve(image.clone(), fault, times).await;
        let mut config = if fault == Fault::Silent { quick() } else { patient() };
        config.hosts.insert(address.to_string(), host(Some("ca.pem"), None));
        let rig = rig(config);
        let name = ImageRef::parse(&format!("{address}/team/app")).expect("a reference");
        let found = rig.refused(&name, &Vec::new()).await;
        // Layers that were under way when another one failed go away by themselves.
        let deadline = Instant::now() + Duration::from_secs(10);
        while expected != "pulled" && !rig.has_no_image() && Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        let right = match expected {
            "pulled" => found == format!("pulled {}", image.digest()),
            _ => found.contains(expected) && rig.has_no_image(),
        };
        if !right {
            wrong.push(format!("{fault:?} {times} times: expected `{expected}` in {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
