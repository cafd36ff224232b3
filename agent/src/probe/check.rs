//! One check of a container: a command in it, a connection, or a request over HTTP or gRPC.
//!
//! Connections are made from within the pod's network namespace, so that a pod without an address can be checked and no
//! rule of the host's firewall stands between. The rules of requests are the kubelet's: a fresh connection for each,
//! certificates are not verified, redirects are followed on the same host only (Kubernetes HTTPGetAction).

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, LOCATION, TE, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::Url;
use runtime::Runtime;
use runtime::api::FailureClass;
use rustls::pki_types::ServerName;
use spec::observed::PodFacts;
use spec::pod::{Handler, PortRef};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

/// Redirects that are followed, as the kubelet does.
const REDIRECTS: usize = 10;
/// Longest gRPC answer that is read: a health status has two bytes.
const GRPC_ANSWER: usize = 4096;

/// Why a check did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The container is not well.
    Sick(String),
    /// It could not be asked, through no fault of its own: that counts neither for it nor against it, as with the kubelet.
    Unknown(String),
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::Sick(message)
    }
}

impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        Self::Sick(message.to_owned())
    }
}

impl Fault {
    /// The same with words before it.
    fn of(self, what: &str) -> Self {
        match self {
            Self::Sick(message) => Self::Sick(format!("{what}: {message}")),
            Self::Unknown(message) => Self::Unknown(message),
        }
    }
}

/// Does one check.
///
/// # Errors
/// The container is not well, or cannot be asked.
pub async fn check(
    handler: &Handler,
    pod: &PodFacts,
    container: &str,
    limit: Duration,
    runtime: &dyn Runtime,
) -> Result<(), Fault> {
    let dial = Dial { runtime, pod };
    match handler {
        Handler::Exec(command) => {
            let result = runtime.exec(&pod.record.uid, container, command, limit).await.map_err(|error| {
                let message = spec::causes::chain(&error);
                match error.class {
                    FailureClass::Permanent => Fault::Sick(message),
                    FailureClass::Transient => Fault::Unknown(message),
                }
            })?;
            let why = match result.code {
                Some(0) => return Ok(()),
                Some(code) => format!("exit code {code}"),
                None => format!("no end within {}", humantime::format_duration(limit)),
            };
            let output = String::from_utf8_lossy(&result.output);
            Err(format!("{why}: {}", output.trim().chars().take(200).collect::<String>()).into())
        }
        Handler::Tcp { port, host } => {
            let (host, port) = address(pod, container, host.as_deref(), port)?;
            dial.connect(&host, port).await.map(drop)
        }
        Handler::Http { path, port, host, https, headers } => {
            let (host, port) = address(pod, container, host.as_deref(), port)?;
            let scheme = if *https { "https" } else { "http" };
            let path = path.strip_prefix('/').unwrap_or(path);
            let url = format!("{scheme}://{}/{path}", authority(&host, port));
            let url = Url::parse(&url).map_err(|error| format!("{url}: {error}"))?;
            let status = dial.get(url.clone(), headers).await.map_err(|fault| fault.of(url.as_str()))?;
            let well = status.is_success() || status.is_redirection();
            if well { Ok(()) } else { Err(format!("{url}: HTTP status {}", status.as_u16()).into()) }
        }
        Handler::Grpc { port, service } => {
            let (host, port) = address(pod, container, None, &PortRef::Number(*port))?;
            let answer = dial.grpc(&host, port, service.as_deref().unwrap_or("")).await;
            answer.map_err(|fault| fault.of(&authority(&host, port)))
        }
        Handler::Sleep(_) => Err("`sleep` is a hook, not a check".into()),
    }
}

/// Host and port of a check: the pod's own address unless another host is named.
fn address(pod: &PodFacts, container: &str, host: Option<&str>, port: &PortRef) -> Result<(String, u16), String> {
    let port = match port {
        PortRef::Number(port) => *port,
        PortRef::Name(name) => {
            let ports = || pod.record.spec.all_containers().filter(|c| c.name == container).flat_map(|c| &c.ports);
            ports()
                .find(|port| port.name.as_deref() == Some(name))
                .map(|port| port.container_port)
                .ok_or_else(|| format!("container `{container}` has no port named `{name}`"))?
        }
    };
    let own = || pod.addresses.v4.map(IpAddr::from).or(pod.addresses.v6.map(IpAddr::from));
    let host = match host {
        Some(host) => host.trim_matches(['[', ']']).to_owned(),
        None => own().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_string(),
    };
    Ok((host, port))
}

/// `host:port` as it is written in a URL.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Connects for one pod.
struct Dial<'a> {
    runtime: &'a dyn Runtime,
    pod: &'a PodFacts,
}

impl Dial<'_> {
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Fault> {
        let failed = |error: std::io::Error| format!("{}: {error}", authority(host, port));
        let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => tokio::net::lookup_host((host, port)).await.map_err(failed)?.collect(),
        };
        let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
        for to in addresses {
            let socket = match (self.pod.record.spec.host_network, to.is_ipv4()) {
                (false, _) => self.runtime.socket(&self.pod.record.uid, to).await,
                (true, true) => TcpSocket::new_v4(),
                (true, false) => TcpSocket::new_v6(),
            };
            let socket = socket.map_err(|error| Fault::Unknown(format!("cannot reach into the pod: {error}")))?;
            match socket.connect(to).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(failed(last).into())
    }

    async fn get(&self, mut url: Url, headers: &[(String, String)]) -> Result<StatusCode, Fault> {
        let first = url.host_str().unwrap_or_default().to_owned();
        for _ in 0..=REDIRECTS {
            let answer = self.get_once(&url, headers).await?;
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            match next {
                Some(next) if answer.status().is_redirection() && next.host_str() == Some(&first) => url = next,
                _ => return Ok(answer.status()),
            }
        }
        Err(format!("more than {REDIRECTS} redirects").into())
    }

    async fn get_once(&self, url: &Url, headers: &[(String, String)]) -> Result<Response<Incoming>, Fault> {
        let host = url.host_str().ok_or("the address names no host")?.trim_matches(['[', ']']);
        let port = url.port_or_known_default().ok_or("the address names no port")?;
        let stream = self.connect(host, port).await?;
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let mut request = Request::builder().method(Method::GET).uri(target).header(CONNECTION, "close");
        let named = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        for (name, default) in
            [(HOST, authority(host, port)), (USER_AGENT, "mainstay-probe".to_owned()), (ACCEPT, "*/*".to_owned())]
        {
            if !named(name.as_str()) {
                request = request.header(name, default);
            }
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        if url.scheme() == "https" {
            let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
            let stream = tls()?.connect(name, stream).await.map_err(|error| error.to_string())?;
            Ok(ask(stream, request).await?)
        } else {
            Ok(ask(stream, request).await?)
        }
    }

    /// The gRPC health checking protocol (grpc.health.v1.Health/Check) with its two small messages written by hand.
    async fn grpc(&self, host: &str, port: u16, service: &str) -> Result<(), Fault> {
        let name = u8::try_from(service.len()).ok().filter(|len| *len < 128).ok_or("service name is too long")?;
        let mut message = Vec::new();
        if name > 0 {
            message.extend([0x0a, name]);
            message.extend(service.as_bytes());
        }
        let length = u32::try_from(message.len()).map_err(|error| error.to_string())?;
        let mut body = vec![0];
        body.extend(length.to_be_bytes());
        body.extend(message);
        let stream = self.connect(host, port).await?;
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| root_cause(&error))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}/grpc.health.v1.Health/Check", authority(host, port)))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|error| root_cause(&error))?;
            let body = Limited::new(answer.into_body(), GRPC_ANSWER).collect().await;
            body.map(|body| body.to_bytes()).map_err(|error| root_cause(error.as_ref()))
        };
        // Frame: flag, length, then HealthCheckResponse with field 1 (varint) = SERVING (1).
        match drive(answer, connection).await?.get(5..) {
            Some([0x08, 0x01, ..]) => Ok(()),
            Some([0x08, status, ..]) => Err(format!("gRPC health status {status}").into()),
            _ => Err("gRPC health check was refused".into()),
        }
    }
}

/// One request over HTTP/1.1 on a connection of its own; the body of the answer is not read.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, String> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| root_cause(&error))?;
    drive(sender.send_request(request), connection).await.map_err(|error| root_cause(&error))
}

/// Waits for an answer while its connection works, without a task of its own.
async fn drive<T>(answer: impl Future<Output = T>, connection: impl Future) -> T {
    let (mut answer, connection) = (pin!(answer), pin!(connection));
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        _ = connection => {}
    }
    // The connection has ended: what it brought is there, or the answer fails.
    answer.await
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    spec::causes::causes(error).last().unwrap_or(error).to_string()
}

fn tls() -> Result<tokio_rustls::TlsConnector, String> {
    static CONFIG: OnceLock<Result<Arc<rustls::ClientConfig>, String>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| unverified::config().map(Arc::new).map_err(|error| error.to_string()));
    config.clone().map(tokio_rustls::TlsConnector::from)
}

/// TLS without verification: a check asks whether a server answers, not who it is.
mod unverified {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    struct Anyone(Arc<CryptoProvider>);

    pub(super) fn config() -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let verifier = Arc::new(Anyone(provider));
        Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}
