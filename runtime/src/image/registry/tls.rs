//! TLS settings: the system's CA certificates, and those of single hosts.
//!
//! The ring provider is named in every configuration; nothing depends on a process-wide default.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::errors::RegistryError;
use super::hosts::HostConfig;

/// Where distributions keep their bundle of CA certificates: Debian and Alpine, RHEL, SUSE, Alpine's and BSD's.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The system's CA certificates, and where they were looked for.
#[derive(Clone)]
pub(super) struct Roots {
    store: Arc<RootCertStore>,
    /// Files that were tried, for the error when there are none.
    pub(super) looked: String,
}

impl Roots {
    /// None at all: for plain http.
    pub(super) fn none() -> Self {
        Self { store: Arc::new(RootCertStore::empty()), looked: String::new() }
    }

    /// Reads SSL_CERT_FILE when it is set, else the first bundle there is. Blocking, a few milliseconds.
    pub(super) fn of_system() -> Self {
        let files: Vec<PathBuf> = match std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
            Some(file) => vec![file.into()],
            None => BUNDLES.iter().map(PathBuf::from).collect(),
        };
        let looked = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        let mut store = RootCertStore::empty();
        for file in &files {
            if let Ok(certificates) = certificates(file) {
                store.add_parsable_certificates(certificates);
                if !store.is_empty() {
                    break;
                }
            }
        }
        Self { store: Arc::new(store), looked }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.store.is_empty()
    }
}

/// The TLS configuration for one host.
pub(super) fn config(roots: &Roots, host: Option<&HostConfig>) -> Result<ClientConfig, RegistryError> {
    let mut store = RootCertStore::clone(&roots.store);
    for path in host.map(|host| host.ca_files.as_slice()).unwrap_or_default() {
        let (added, _) = store.add_parsable_certificates(certificates(path)?);
        if added == 0 {
            return Err(bad(path, "it holds no CA certificate"));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| RegistryError::BadHost { host: "TLS".to_owned(), reason: error.to_string() })?
        .with_root_certificates(store);
    let mut config = match host.map(|host| (&host.client_cert, &host.client_key)) {
        Some((Some(cert), Some(key))) => {
            let chain = certificates(cert)?;
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, &error.to_string()))?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| bad(key, &error.to_string()))?
        }
        Some((Some(path), None)) => return Err(bad(path, "`client_key` is missing beside it")),
        Some((None, Some(path))) => return Err(bad(path, "`client_cert` is missing beside it")),
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    CertificateDer::pem_file_iter(path)
        .and_then(|all| all.collect::<Result<Vec<_>, _>>())
        .map_err(|error| bad(path, &error.to_string()))
}

fn bad(path: &Path, reason: &str) -> RegistryError {
    RegistryError::Certificate { path: path.to_owned(), reason: reason.to_owned() }
}
