//! Checks against real servers on loopback: what counts as well, and what is said when it is not.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use spec::observed::{Addresses, PodFacts, PodRecord, PodUid};
use spec::pod::{ContainerSpec, Handler, PodSpec, Port, PortRef};
use spec::time::Timestamp;
use spec::workload::SourceRef;
use spec::workload::{WorkloadId, WorkloadKind};
use tokio::net::TcpListener;

use super::{Fault, check};
use crate::api::testing::Readable;

/// What a server of a test speaks.
#[derive(Clone, Copy, PartialEq)]
enum Speaks {
    Http,
    Https,
    Grpc,
}

/// What was asked: path, then the headers that a test looks at.
type Asked = Arc<Mutex<Vec<String>>>;

async fn answer(request: Request<Incoming>, asked: Asked) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let header =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned();
    let line = format!("{path} host={} agent={} x={}", header("host"), header("user-agent"), header("x-test"));
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut response = Response::builder();
    let mut said = Bytes::new();
    match path.as_str() {
        "/sick" => response = response.status(StatusCode::SERVICE_UNAVAILABLE),
        "/moved" => response = response.status(StatusCode::FOUND).header("location", "/sick"),
        "/away" => response = response.status(StatusCode::FOUND).header("location", "http://elsewhere.invalid/"),
        "/round" => response = response.status(StatusCode::FOUND).header("location", "/round"),
        "/grpc.health.v1.Health/Check" => {
            let status = if body.ends_with(b"sick") { 2 } else { 1 };
            said = Bytes::from(vec![0, 0, 0, 0, 2, 0x08, status]);
        }
        _ => {}
    }
    Ok(response.body(Full::new(said)).expect("a response"))
}

/// Serves for as long as the test's runtime lives; the port and what was asked.
async fn serve(speaks: Speaks) -> (u16, Asked) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
                let http = hyper::server::conn::http1::Builder::new();
                // A client that has its answer may close: that is no failure of the server.
                match speaks {
                    Speaks::Http => drop(http.serve_connection(TokioIo::new(stream), service).await),
                    Speaks::Https => {
                        // One test speaks plain HTTP to it.
                        let Ok(stream) = acceptor().accept(stream).await else { return };
                        drop(http.serve_connection(TokioIo::new(stream), service).await);
                    }
                    Speaks::Grpc => {
                        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        drop(http.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            });
        }
    });
    (port, asked)
}

/// With a certificate that nobody here trusts.
fn acceptor() -> tokio_rustls::TlsAcceptor {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/../runtime/src/image/tests/tls");
    let certificate = CertificateDer::from_pem_file(format!("{files}/server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(format!("{files}/server.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a configuration");
    Arc::new(config).into()
}

fn pod(port: u16) -> PodFacts {
    pod_called("00", port)
}

fn pod_called(uid: &str, port: u16) -> PodFacts {
    let port = Port { name: Some("web".to_owned()), container_port: port, ..Port::default() };
    let container = ContainerSpec { name: "main".to_owned(), ports: vec![port], ..ContainerSpec::default() };
    PodFacts {
        record: Arc::new(PodRecord {
            uid: PodUid(uid.to_owned()),
            workload: WorkloadId { kind: WorkloadKind::Pod, namespace: "default".into(), name: "web".into() },
            ordinal: 0,
            revision: String::new(),
            name: "web-0".to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            run: None,
            bound: std::collections::BTreeMap::new(),
            depends_on: Vec::new(),
            source: SourceRef::default(),
            spec: Arc::new(PodSpec { containers: vec![container], ..PodSpec::default() }),
            images: BTreeMap::new(),
            created_unix: 0,
            created: Timestamp(0),
            boot_id: String::new(),
        }),
        sandbox: true,
        addresses: Addresses { v4: Some(Ipv4Addr::LOCALHOST), v6: None },
        containers: BTreeMap::new(),
        failed: None,
    }
}

/// What a check of a pod that serves on this port says.
async fn said(handler: Handler, port: u16) -> String {
    said_of(pod(port), handler).await
}

async fn said_of(pod: PodFacts, handler: Handler) -> String {
    let runtime = Readable::default();
    let checked = check(&handler, &pod, "main", Duration::from_secs(10), &runtime);
    match tokio::time::timeout(Duration::from_secs(20), checked).await.expect("it ends") {
        Ok(()) => "well".to_owned(),
        Err(Fault::Sick(message)) => message,
        Err(Fault::Unknown(message)) => format!("unknown: {message}"),
    }
}

fn get(path: &str, port: u16, https: bool, headers: &[(&str, &str)]) -> Handler {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Handler::Http { path: path.to_owned(), port: PortRef::Number(port), host: None, https, headers }
}

#[tokio::test]
async fn requests_over_http() {
    let (port, asked) = serve(Speaks::Http).await;
    for (path, expected) in [
        ("/", "well"),
        ("healthz?full=1", "well"),
        ("/sick", "HTTP status 503"),
        // On the same host it is followed, and decides; elsewhere the redirect itself is the answer.
        ("/moved", "HTTP status 503"),
        ("/away", "well"),
        ("/round", "more than 10 redirects"),
    ] {
        let said = said(get(path, port, false, &[]), port).await;
        assert!(said.contains(expected), "{path}: {said}");
    }
    let lines = || std::mem::take(&mut *asked.lock().unwrap_or_else(PoisonError::into_inner));
    lines();
    said(get("/", port, false, &[]), port).await;
    said(get("/", port, false, &[("Host", "shop"), ("User-Agent", "me"), ("X-Test", "1")]), port).await;
    assert_eq!(
        lines(),
        [format!("/ host=127.0.0.1:{port} agent=mainstay-probe x=-"), "/ host=shop agent=me x=1".to_owned()]
    );
    let by_name = |name: &str| Handler::Tcp { port: PortRef::Name(name.to_owned()), host: None };
    assert_eq!(said(by_name("web"), port).await, "well");
    assert_eq!(said(by_name("other"), port).await, "container `main` has no port named `other`");
}

#[tokio::test]
async fn https_is_not_verified() {
    let (port, _) = serve(Speaks::Https).await;
    assert_eq!(said(get("/", port, true, &[]), port).await, "well");
    assert!(said(get("/sick", port, true, &[]), port).await.ends_with("HTTP status 503"));
    assert_ne!(said(get("/", port, false, &[]), port).await, "well", "the server wants TLS");
}

#[tokio::test]
async fn grpc_health() {
    let (port, _) = serve(Speaks::Grpc).await;
    let ask = |service: Option<&str>| Handler::Grpc { port, service: service.map(str::to_owned) };
    assert_eq!(said(ask(None), port).await, "well");
    assert_eq!(said(ask(Some("shop")), port).await, "well");
    assert_eq!(said(ask(Some("sick")), port).await, format!("127.0.0.1:{port}: gRPC health status 2"));
}

#[tokio::test]
async fn a_pod_that_cannot_be_reached_into_is_not_sick() {
    let (port, _) = serve(Speaks::Http).await;
    for handler in [
        get("/", port, false, &[]),
        Handler::Tcp { port: PortRef::Number(port), host: None },
        Handler::Grpc { port, service: None },
    ] {
        let said = said_of(pod_called("unreachable", port), handler).await;
        assert!(said.starts_with("unknown: cannot reach into the pod"), "{said}");
    }
}

/// That the host cannot run a command now is no fault of the container; what happens within it is.
#[tokio::test]
async fn a_command_that_the_host_cannot_run_counts_for_nothing() {
    for (pod, expected) in [
        ("unreachable", "unknown: cannot run a command: it is a test"),
        ("slow", "no end within 10s: begun"),
        ("gone", "cannot run a command: it is a test"),
    ] {
        let said = said_of(pod_called(pod, 1), Handler::Exec(vec!["true".to_owned()])).await;
        assert_eq!(said, expected, "{pod}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    for handler in [
        get("/", port, false, &[]),
        Handler::Tcp { port: PortRef::Number(port), host: None },
        Handler::Grpc { port, service: None },
    ] {
        let said = said(handler, port).await;
        assert!(said.contains("refused") && said.contains(&port.to_string()), "{said}");
    }
}
