//! Settings per registry host, and which addresses a reference is fetched from.
//!
//! Owns [`RegistryConfig`] (a section of the configuration file) and the rule for plain http. Never connects.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use spec::image_ref::{DEFAULT_REGISTRY, ImageRef};

use super::errors::RegistryError;

/// Where Docker Hub's API is served.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// How registries are reached: the `registries` table of the configuration file.
///
/// Hosts may stand beside the other settings: `[registries."registry.local:5000"]` is the same as
/// `[registries.hosts."registry.local:5000"]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default, remote = "Self")]
pub struct RegistryConfig {
    /// Settings by registry, as it is written in references (`host` or `host:port`; `docker.io` for Docker Hub).
    pub hosts: BTreeMap<String, HostConfig>,
    /// Files with logins in the format of docker's `config.json`; the usual places when not set.
    pub credential_files: Option<Vec<PathBuf>>,
    /// Where AWS is, for logins from the instance's role.
    #[cfg(feature = "ecr")]
    pub ecr: super::ecr::EcrConfig,
    /// Images whose layers are fetched from one registry at once.
    pub parallel_images: usize,
    /// Layers of one image that are fetched at once.
    pub parallel_layers: usize,
    /// Layers of all images that are fetched from one registry at once.
    pub parallel_downloads: usize,
    /// Bytes a second that all downloads together may use; no limit when not set.
    pub bytes_per_second: Option<u64>,
    /// How long a connection may take to come up.
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// How long a registry may send nothing, or less than `min_bytes_per_second`. A transfer that has brought much is tried
    /// once more then, for as long again.
    #[serde(deserialize_with = "duration")]
    pub stall_limit: Duration,
    /// Average rate over the stall limit below which a transfer counts as stalled.
    pub min_bytes_per_second: u64,
    /// How often a request is tried, the first time included.
    pub tries: u32,
    /// The pause before the first retry; it doubles for each further one.
    #[serde(deserialize_with = "duration")]
    pub retry_pause: Duration,
    /// The longest `Retry-After` that is waited for; a longer one fails the pull at once.
    #[serde(deserialize_with = "duration")]
    pub retry_after_limit: Duration,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            credential_files: None,
            #[cfg(feature = "ecr")]
            ecr: super::ecr::EcrConfig::default(),
            parallel_images: 3,
            parallel_layers: 3,
            parallel_downloads: 6,
            bytes_per_second: None,
            connect_timeout: Duration::from_secs(10),
            stall_limit: Duration::from_secs(30),
            min_bytes_per_second: 1024,
            tries: 5,
            retry_pause: Duration::from_millis(250),
            retry_after_limit: Duration::from_secs(30),
        }
    }
}

impl<'de> Deserialize<'de> for RegistryConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = serde_json::Map::deserialize(deserializer)?;
        // No setting has a dot or a colon in its name, and every registry has one or is `localhost`.
        let is_host = |key: &String| key.contains(['.', ':']) || key == "localhost";
        let names: Vec<String> = all.keys().filter(|key| is_host(key)).cloned().collect();
        for name in names {
            let Some(settings) = all.remove(&name) else { continue };
            let hosts = all.entry("hosts").or_insert_with(|| serde_json::Map::new().into());
            if let Some(hosts) = hosts.as_object_mut()
                && hosts.insert(name.clone(), settings).is_some()
            {
                return Err(D::Error::custom(format!("`{name}` is set twice")));
            }
        }
        Self::deserialize(serde_json::Value::Object(all)).map_err(D::Error::custom)
    }
}

/// Settings of one registry host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// Asked in this order before the registry itself: `[http://|https://]host[:port][/prefix]`.
    pub mirrors: Vec<String>,
    /// Speak http without TLS. Loopback addresses do so unless this says `false` or a CA file is given.
    pub plain_http: Option<bool>,
    /// PEM files with certificate authorities that are trusted for this host, beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// PEM file with the client certificate chain.
    pub client_cert: Option<PathBuf>,
    /// PEM file with the private key of the client certificate.
    pub client_key: Option<PathBuf>,
    /// Take logins from the instance's role, as for ECR in this region. Hosts of ECR itself need no setting.
    #[cfg(feature = "ecr")]
    pub ecr_region: Option<String>,
}

impl HostConfig {
    /// Whether this host needs a TLS configuration of its own.
    pub(super) fn own_tls(&self) -> bool {
        !self.ca_files.is_empty() || self.client_cert.is_some() || self.client_key.is_some()
    }
}

/// One place that serves a repository.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `scheme://host:port/`.
    pub(crate) base: Url,
    /// The name people know it by; credentials are looked up with it.
    pub(crate) name: String,
    /// Repository at this place, with the mirror's prefix.
    pub(crate) repository: String,
    /// Query that tells a mirror which registry is meant (`ns`, as containerd does).
    namespace: Option<String>,
}

impl Endpoint {
    /// Address of a manifest by tag or digest (OCI distribution specification, "Pulling manifests").
    pub(crate) fn manifest(&self, reference: &str) -> Url {
        self.url("manifests", reference)
    }

    /// Address of a blob (OCI distribution specification, "Pulling blobs").
    pub(crate) fn blob(&self, digest: &str) -> Url {
        self.url("blobs", digest)
    }

    /// Where a registry says whether it wants a login (OCI distribution specification, "Determining Support").
    pub(crate) fn ping(&self) -> Url {
        let mut url = self.base.clone();
        url.set_path("/v2/");
        url
    }

    fn url(&self, kind: &str, name: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{kind}/{name}", self.repository));
        url.set_query(None);
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        url
    }
}

impl RegistryConfig {
    /// The places to ask for this reference: mirrors in their order, then the registry itself.
    pub(crate) fn endpoints(&self, reference: &ImageRef) -> Result<Vec<Endpoint>, RegistryError> {
        let registry = reference.registry();
        let mut endpoints = Vec::new();
        for mirror in self.hosts.get(registry).map(|host| host.mirrors.as_slice()).unwrap_or_default() {
            endpoints.push(self.mirror(mirror, reference)?);
        }
        let host = if registry == DEFAULT_REGISTRY { DOCKER_HUB_API } else { registry };
        endpoints.push(Endpoint {
            base: self.base(None, host, registry)?,
            name: registry.to_owned(),
            repository: reference.repository().to_owned(),
            namespace: None,
        });
        Ok(endpoints)
    }

    fn mirror(&self, text: &str, reference: &ImageRef) -> Result<Endpoint, RegistryError> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        let (host, prefix) = rest.trim_end_matches('/').split_once('/').unwrap_or((rest.trim_end_matches('/'), ""));
        let base = self.base(scheme, host, host)?;
        let repository = match prefix {
            "" => reference.repository().to_owned(),
            prefix => format!("{prefix}/{}", reference.repository()),
        };
        Ok(Endpoint { base, name: host.to_owned(), repository, namespace: Some(reference.registry().to_owned()) })
    }

    fn base(&self, scheme: Option<&str>, host: &str, name: &str) -> Result<Url, RegistryError> {
        let bad = |reason: String| RegistryError::BadHost { host: name.to_owned(), reason };
        if let Some(other) = scheme.filter(|scheme| !matches!(*scheme, "http" | "https")) {
            return Err(bad(format!("`{other}://` is neither http nor https")));
        }
        let mut url =
            Url::parse(&format!("{}://{host}/", scheme.unwrap_or("https"))).map_err(|error| bad(error.to_string()))?;
        if url.host_str().is_none() || !url.username().is_empty() || url.password().is_some() || url.path() != "/" {
            return Err(bad("it is not `host` or `host:port`".to_owned()));
        }
        if scheme.is_none() && self.plain(name, &url) {
            url = Url::parse(&format!("http://{host}/")).map_err(|error| bad(error.to_string()))?;
        }
        Ok(url)
    }

    /// Whether http without TLS is spoken with this host by its settings or because it is this machine.
    pub(super) fn plain(&self, name: &str, url: &Url) -> bool {
        match self.hosts.get(name) {
            Some(HostConfig { plain_http: Some(plain), .. }) => *plain,
            Some(host) if host.own_tls() => false,
            _ => is_loopback(url),
        }
    }

    /// Whether this address may be used although it is not encrypted.
    pub(super) fn may_use(&self, url: &Url) -> bool {
        url.scheme() == "https" || (url.scheme() == "http" && (self.plain(&authority(url), url)))
    }

    /// Settings of the host that an address names.
    pub(super) fn host(&self, url: &Url) -> Option<&HostConfig> {
        let key = authority(url);
        let key = if key == DOCKER_HUB_API { DEFAULT_REGISTRY } else { key.as_str() };
        self.hosts.get(key)
    }
}

/// `host` or `host:port` of an address, as references write it.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Whether the address is this machine: 127.0.0.0/8, ::1 or `localhost`.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(D::Error::custom)
}
