//! TLS: who is trusted, and what is said when somebody is not.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::fake::{Server, TestImage, http};
use super::{patient, reference, rig, root};
use crate::image::registry::{HostConfig, RegistryConfig};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/image/tests/tls").join(name)
}

pub(super) fn server_config(wants_client: bool) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = |name| CertificateDer::from_pem_file(file(name)).expect("a certificate");
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = if wants_client {
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.pem")).expect("a CA");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_file(file("server.key")).expect("a key");
    Arc::new(builder.with_single_cert(vec![certificate("server.pem")], key).expect("a server configuration"))
}

pub(super) fn host(ca: Option<&str>, client: Option<(&str, &str)>) -> HostConfig {
    HostConfig {
        plain_http: Some(false),
        ca_files: ca.map(file).into_iter().collect(),
        client_cert: client.map(|(cert, _)| file(cert)),
        client_key: client.map(|(_, key)| file(key)),
        ..HostConfig::default()
    }
}

/// What a pull from a registry with TLS comes to with these settings of its host.
async fn check(wants_client: bool, host: HostConfig, expected: &str) {
    let image = TestImage::usual();
    let (digest, served) = (image.digest(), image.clone());
    let server = Server::start_with(Some(server_config(wants_client)), move |request| served.answer(request));
    let mut config = patient();
    config.hosts.insert(server.address.to_string(), host);
    let error = rig(config).refused(&reference(&server, "team/app"), &Vec::new()).await;
    let expected = if expected.is_empty() { format!("pulled {digest}") } else { expected.to_owned() };
    assert!(error.contains(&expected), "expected `{expected}` in {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_decide() {
    if !root() {
        return;
    }
    let client = Some(("client.pem", "client.key"));
    check(false, host(Some("ca.pem"), None), "").await;
    check(true, host(Some("ca.pem"), client), "").await;
    check(true, host(Some("ca.pem"), None), "registry").await;
    check(false, host(None, None), "add the CA of").await;
    check(false, host(Some("README"), None), "it holds no CA certificate").await;
    check(false, host(Some("missing.pem"), None), "cannot use certificate file").await;
    check(false, host(Some("ca.pem"), Some(("client.pem", "README"))), "cannot use certificate file").await;
    let half = HostConfig { client_key: None, ..host(Some("ca.pem"), client) };
    check(false, half, "`client_key` is missing beside it").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_and_https_are_told_apart() {
    if !root() {
        return;
    }
    let image = TestImage::usual();
    let served = image.clone();
    let plain = Server::start(move |request| served.answer(request));
    let mut config = patient();
    config.hosts.insert(plain.address.to_string(), host(Some("ca.pem"), None));
    let error = rig(config).refused(&reference(&plain, "team/app"), &Vec::new()).await;
    assert!(error.contains("seems to speak http without TLS"), "{error}");

    // From https nobody is sent to http, not even on the same machine.
    let address = plain.address;
    let secure = Server::start_with(Some(server_config(false)), move |_| {
        http(307, &[("location", &format!("http://{address}/v2/team/app/manifests/latest"))], "")
    });
    let mut config = patient();
    config.hosts.insert(secure.address.to_string(), host(Some("ca.pem"), None));
    let error = rig(config).refused(&reference(&secure, "team/app"), &Vec::new()).await;
    assert!(error.contains("it leads from https to http without TLS"), "{error}");
    assert_eq!(plain.count("/manifests/"), 0);
}

#[test]
fn settings_are_read_and_misspelt_ones_refused() {
    let read = |text: &str| serde_json::from_str::<RegistryConfig>(text);
    let config = read(
        r#"{"stall_limit": "45s", "bytes_per_second": 1000000, "hosts": {"docker.io": {"mirrors": ["mirror.gcr.io"]},
            "registry.local:5000": {"plain_http": true}}, "localhost:5000": {"plain_http": false}}"#,
    )
    .expect("it is valid");
    let names: Vec<_> = config.hosts.keys().map(String::as_str).collect();
    assert_eq!(names, ["docker.io", "localhost:5000", "registry.local:5000"]);
    assert_eq!(config.stall_limit, std::time::Duration::from_secs(45));
    assert_eq!(config.parallel_layers, 3);
    for text in [
        r#"{"stall": "1s"}"#,
        r#"{"a.io": {"plain": true}}"#,
        r#"{"a.io": {}, "hosts": {"a.io": {}}}"#,
        r#"{"a.io": 7}"#,
        r#"{"hosts": {"a": {"mirror": []}}}"#,
        r#"{"stall_limit": "soon"}"#,
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}
