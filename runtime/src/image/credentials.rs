//! Where logins for registries come from: imagePullSecrets, then files in docker's format, then their helpers.
//!
//! Reads files and runs `docker-credential-*` programs; never talks to a registry, never logs a secret.

use std::collections::BTreeSet;
use std::path::PathBuf;

use base64::Engine as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use spec::secret::SecretBytes;

use crate::api::PullCredentials;
pub(crate) use crate::api::RegistryAuth as Login;

mod helper;

/// Logins for a repository in the order in which they are tried, and where they were looked for.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Best first.
    pub(crate) logins: Vec<Login>,
    /// Places, with what was there.
    pub(crate) looked: Vec<String>,
    /// The only login is one of this machine that was kept from before: when it is refused, there may be a newer one.
    pub(crate) kept: bool,
    /// Why nobody can tell now whether this machine has a login.
    pub(crate) unsure: Option<String>,
}

/// At most this many logins are tried; more failures would look like an attack to a registry.
const MAX_LOGINS: usize = 4;
/// A file with logins is a few kilobytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Files with logins.
#[derive(Debug, Clone)]
pub struct CredentialFiles(Vec<PathBuf>);

impl CredentialFiles {
    /// Exactly these files, in this order.
    #[must_use]
    pub const fn new(paths: Vec<PathBuf>) -> Self {
        Self(paths)
    }

    /// The usual places: what variables name, then those of this agent, podman and docker.
    #[must_use]
    pub fn usual() -> Self {
        Self(places(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)))
    }

    /// Every login that fits the registry and repository. Helpers are run with a time limit.
    pub(crate) async fn find(&self, secrets: &PullCredentials, registry: &str, repository: &str) -> Found {
        let mut found = Found::default();
        let mut matching: Vec<(usize, Login)> = secrets
            .iter()
            .filter_map(|(key, auth)| key_matches(key, registry, repository).map(|length| (length, auth.clone())))
            .collect();
        matching.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        found.looked.push(match (secrets.len(), matching.len()) {
            (0, _) => "imagePullSecrets (none given)".to_owned(),
            (all, fitting) => format!("imagePullSecrets ({fitting} of {all} for this registry)"),
        });
        found.logins.extend(matching.into_iter().map(|(_, login)| login));
        for path in &self.0 {
            let (note, logins) = from_file(path.clone(), registry, repository).await;
            found.looked.push(format!("{} ({note})", path.display()));
            found.logins.extend(logins);
        }
        let mut unique: Vec<Login> = Vec::new();
        for login in found.logins {
            if !unique.contains(&login) && unique.len() < MAX_LOGINS {
                unique.push(login);
            }
        }
        found.logins = unique;
        found
    }
}

/// Where logins are looked for, by the environment; those of podman and docker in the order of containers-auth.json(5).
fn places(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let below = |name: &str, rest: &str| variable(name).map(|directory| directory.join(rest));
    let all = [
        below("DOCKER_CONFIG", "config.json"),
        variable("REGISTRY_AUTH_FILE"),
        // systemd.exec(5), "Credentials": `LoadCredential=registry-auth:FILE` in the unit is enough.
        below("CREDENTIALS_DIRECTORY", "registry-auth"),
        Some("/etc/mainstay/auth.json".into()),
        below("XDG_RUNTIME_DIR", "containers/auth.json"),
        Some("/run/containers/0/auth.json".into()),
        below("XDG_CONFIG_HOME", "containers/auth.json").or_else(|| below("HOME", ".config/containers/auth.json")),
        below("HOME", ".docker/config.json"),
        // A service has no home.
        Some("/root/.config/containers/auth.json".into()),
        Some("/root/.docker/config.json".into()),
    ];
    let mut seen = BTreeSet::new();
    all.into_iter().flatten().filter(|path| seen.insert(path.clone())).collect()
}

/// Stands for a set of imagePullSecrets within this process, so that tokens and pulls are shared only among equals.
pub(crate) fn fingerprint(secrets: &PullCredentials) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (key, auth) in secrets {
        let (kind, user, secret) = match auth {
            Login::Basic(user, password) => ("basic", user.as_str(), password),
            Login::Identity(token) => ("identity", "", token),
            Login::Bearer(token) => ("bearer", "", token),
        };
        for part in [key.as_bytes(), kind.as_bytes(), user.as_bytes(), secret.expose()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hash.finalize().into()
}

/// `config.json` as docker and podman write it; what else is in it does not matter here.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: serde_json::Map<String, serde_json::Value>,
    #[serde(default, rename = "credHelpers")]
    helpers: serde_json::Map<String, serde_json::Value>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

/// One entry of `auths`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

async fn from_file(path: PathBuf, registry: &str, repository: &str) -> (String, Vec<Login>) {
    let text = tokio::task::spawn_blocking(move || read_limited(&path)).await;
    let text = match text {
        Ok(Ok(text)) => text,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => return ("not there".to_owned(), Vec::new()),
        Ok(Err(error)) => return (format!("unreadable: {error}"), Vec::new()),
        Err(_) => return ("unreadable".to_owned(), Vec::new()),
    };
    // The parser's message can quote the file, and the file holds secrets: only the place is shown.
    let file: File = match serde_json::from_slice(&text) {
        Ok(file) => file,
        Err(error) => {
            return (format!("not valid: line {}, column {}", error.line(), error.column()), Vec::new());
        }
    };
    let helper = best(&file.helpers, registry, repository)
        .and_then(|(key, value)| value.as_str().map(|helper| (helper.to_owned(), key.to_owned())))
        .or_else(|| file.store.clone().map(|helper| (helper, helper::server_name(registry).to_owned())));
    let mut notes = Vec::new();
    if let Some((helper, server)) = helper.filter(|(helper, _)| !helper.is_empty()) {
        match helper::get(&helper, &server).await {
            Ok(Some(login)) => return (format!("docker-credential-{helper} gave one"), vec![login]),
            Ok(None) => notes.push(format!("docker-credential-{helper} has none for `{server}`")),
            Err(reason) => notes.push(reason),
        }
    }
    match best(&file.auths, registry, repository).map(|(_, value)| entry(value)) {
        Some(Ok(login)) => return ("has one".to_owned(), vec![login]),
        Some(Err(reason)) => notes.push(reason.to_owned()),
        None => notes.push("none for this registry".to_owned()),
    }
    (notes.join("; "), Vec::new())
}

fn read_limited(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let file = std::fs::File::open(path)?;
    // A FIFO or a device in this place would block the pull.
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other("larger than 1 MiB"));
    }
    Ok(text)
}

impl Login {
    /// The login of an entry of `auths`, as docker and podman write them; `None` when it holds none.
    #[must_use]
    pub fn of_entry(value: &serde_json::Value) -> Option<Self> {
        entry(value).ok()
    }
}

fn entry(value: &serde_json::Value) -> Result<Login, &'static str> {
    let entry: Entry = serde_json::from_value(value.clone()).map_err(|_| "its entry is not valid")?;
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let Some(token) = filled(entry.registrytoken) {
        return Ok(Login::Bearer(SecretBytes::new(token.into_bytes())));
    }
    if let Some(token) = filled(entry.identitytoken) {
        return Ok(Login::Identity(SecretBytes::new(token.into_bytes())));
    }
    if let Some(auth) = filled(entry.auth) {
        let bad = "its `auth` is not base64 of `user:password`";
        let decoded = base64::engine::general_purpose::STANDARD.decode(auth.trim()).map_err(|_| bad)?;
        let decoded = decoded.strip_suffix(b"\0").unwrap_or(&decoded);
        let colon = decoded.iter().position(|byte| *byte == b':').ok_or(bad)?;
        let (user, password) = decoded.split_at_checked(colon).ok_or(bad)?;
        let user = String::from_utf8(user.to_vec()).map_err(|_| bad)?;
        return Ok(Login::Basic(user, SecretBytes::new(password.get(1..).unwrap_or_default().to_vec())));
    }
    match (filled(entry.username), entry.password) {
        (Some(user), Some(password)) => Ok(Login::Basic(user, SecretBytes::new(password.into_bytes()))),
        _ => Err("its entry is empty"),
    }
}

/// The entry with the longest key that fits.
fn best<'a>(
    map: &'a serde_json::Map<String, serde_json::Value>,
    registry: &str,
    repository: &str,
) -> Option<(&'a str, &'a serde_json::Value)> {
    map.iter()
        .filter_map(|(key, value)| key_matches(key, registry, repository).map(|length| (length, key.as_str(), value)))
        .max_by_key(|(length, ..)| *length)
        .map(|(_, key, value)| (key, value))
}

/// Whether a key stands for the registry and repository, and how much of it: longer is better.
///
/// Keys are hosts, hosts with a path prefix (auth.json), addresses such as `https://index.docker.io/v1/`, and with
/// `*` inside labels of the host (Kubernetes, "Pull an Image from a Private Registry").
fn key_matches(key: &str, registry: &str, repository: &str) -> Option<usize> {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest).trim_end_matches('/');
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    if !host_matches(canonical(host), canonical(registry)) {
        return None;
    }
    let fits = path.is_empty() || repository.strip_prefix(path).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    let exact = usize::from(!host.contains('*'));
    fits.then_some(2 * path.len() + exact)
}

/// One name for the names that Docker Hub has.
fn canonical(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => spec::image_ref::DEFAULT_REGISTRY,
        host => host.strip_suffix(":443").unwrap_or(host),
    }
}

fn host_matches(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.to_ascii_lowercase(), host.to_ascii_lowercase());
    if pattern == host {
        return true;
    }
    let (patterns, labels): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), host.split('.').collect());
    pattern.contains('*')
        && patterns.len() == labels.len()
        && patterns.iter().zip(&labels).all(|(pattern, label)| label_matches(pattern, label))
}

fn label_matches(pattern: &str, label: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == label };
    let Some(rest) = label.strip_prefix(head) else { return false };
    (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| label_matches(tail, rest)))
}

#[cfg(test)]
mod tests;
