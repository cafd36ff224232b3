//! Logins for AWS ECR from the role of the EC2 instance: no key on disk, nothing to renew by hand.
//!
//! Instance metadata (IMDSv2 only) gives the role's keys, a signed request to ECR turns them into a password that is
//! valid for twelve hours. Nothing of it is written anywhere.
//!
//! Sources: EC2 user guide, "Use the Instance Metadata Service"; ECR API reference, GetAuthorizationToken; IAM user
//! guide, "Create a signed AWS API request".

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use spec::secret::SecretBytes;
use tokio::time::timeout;

use super::body::Body;
use super::client::Client;
use super::errors::clean;
use crate::api::FailureClass;
use crate::image::credentials::Login;
use crate::imds::{ImdsError, Session};

mod sign;

/// The metadata service answers at once or is not there.
const METADATA_LIMIT: Duration = Duration::from_secs(2);
/// A password is renewed when it has less than this left (it starts with twelve hours).
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 60);
/// Answers of both services are a few kilobytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// Where AWS is; for tests and private endpoints.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EcrConfig {
    /// The instance metadata service.
    pub metadata_endpoint: String,
    /// The ECR API; that of the registry's region when not set.
    pub api_endpoint: Option<String>,
}

impl Default for EcrConfig {
    fn default() -> Self {
        Self { metadata_endpoint: "http://169.254.169.254".to_owned(), api_endpoint: None }
    }
}

/// Passwords by region. The lock is held over a renewal, so that one request does for all pulls.
#[derive(Default)]
pub(super) struct Passwords(tokio::sync::Mutex<HashMap<String, (Login, SystemTime)>>);

/// The region of a registry host, when it is one of ECR's: `<account>.dkr.ecr.<region>.amazonaws.com`, or with IPv6
/// `<account>.dkr-ecr.<region>.on.aws`; with `ecr-fips`, and in China, too.
pub(super) fn region(registry: &str) -> Option<&str> {
    let (account, rest) = registry.split_once(".dkr")?;
    let rest = rest.strip_prefix('.').or_else(|| rest.strip_prefix('-'))?;
    let rest = rest.strip_prefix("ecr.").or_else(|| rest.strip_prefix("ecr-fips."))?;
    let both = registry.contains(".dkr-");
    let zones: &[&str] =
        if both { &[".on.aws", ".on.amazonwebservices.com.cn"] } else { &[".amazonaws.com", ".amazonaws.com.cn"] };
    let region = zones.iter().find_map(|zone| rest.strip_suffix(zone))?;
    let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let named = !region.is_empty() && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (digits && named).then_some(region)
}

/// Why the role gives no login; holds no secret.
#[derive(Debug)]
pub(super) struct NoLogin {
    pub(super) reason: String,
    /// Whether there may be one a moment later.
    pub(super) for_now: bool,
}

impl From<String> for NoLogin {
    fn from(reason: String) -> Self {
        Self { reason, for_now: false }
    }
}

/// Whether a status tells nothing about what was asked.
fn is_for_now(status: reqwest::StatusCode) -> bool {
    status.is_server_error() || status == reqwest::StatusCode::TOO_MANY_REQUESTS
}

/// Keys of the instance's role.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleKeys {
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    authorization_data: Vec<Token>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    authorization_token: String,
    expires_at: f64,
}

/// The login for a region, and whether it was known already. One that was `refused` is asked for anew.
pub(super) async fn login(
    client: &Client,
    registry: &str,
    region: &str,
    refused: Option<&Login>,
) -> Result<(Login, bool), NoLogin> {
    let mut known = client.passwords().0.lock().await;
    let now = SystemTime::now();
    if let Some((login, expires)) = known.get(region)
        && *expires > now + RENEW_BEFORE
        && refused != Some(login)
    {
        return Ok((login.clone(), true));
    }
    known.remove(region);
    let config = &client.config().ecr;
    let late = |_| NoLogin { reason: "the instance metadata service does not answer".to_owned(), for_now: true };
    let keys = timeout(METADATA_LIMIT, role_keys(&config.metadata_endpoint)).await.map_err(late)??;
    let token = password(client, registry, region, &keys, now).await?;
    let bad = || "ECR's answer holds no login".to_owned();
    let decoded = base64::engine::general_purpose::STANDARD.decode(&token.authorization_token).map_err(|_| bad())?;
    let decoded = String::from_utf8(decoded).map_err(|_| bad())?;
    let (user, password) = decoded.split_once(':').ok_or_else(bad)?;
    let login = Login::Basic(user.to_owned(), SecretBytes::new(password.as_bytes().to_vec()));
    let seconds = if token.expires_at.is_finite() { token.expires_at.clamp(0.0, 1e10) } else { 0.0 };
    known.insert(region.to_owned(), (login.clone(), SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)));
    Ok((login, false))
}

async fn role_keys(endpoint: &str) -> Result<RoleKeys, NoLogin> {
    let failed = |error: ImdsError| NoLogin {
        for_now: match &error {
            ImdsError::Request { source, .. } => source.is_timeout(),
            ImdsError::Refused { status, .. } => is_for_now(*status),
            ImdsError::Odd { .. } => false,
        },
        reason: clean(&spec::causes::chain(&error), 200),
    };
    let session = Session::open(endpoint).await.map_err(failed)?;
    let roles = "iam/security-credentials/";
    let role = session.get(roles).await.map_err(failed)?.unwrap_or_default();
    let role = role.lines().next().unwrap_or_default().trim();
    if role.is_empty() || !role.chars().all(|c| c.is_ascii_alphanumeric() || "+=,.@-_".contains(c)) || role == ".." {
        return Err("the instance has no role".to_owned().into());
    }
    let keys = session.get(&format!("{roles}{role}")).await.map_err(failed)?.unwrap_or_default();
    serde_json::from_str(&keys).map_err(|_| format!("the keys of role `{role}` cannot be read").into())
}

async fn password(
    client: &Client,
    registry: &str,
    region: &str,
    keys: &RoleKeys,
    now: SystemTime,
) -> Result<Token, NoLogin> {
    let zone = if registry.ends_with(".cn") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let endpoint = match &client.config().ecr.api_endpoint {
        Some(endpoint) => endpoint.clone(),
        None => format!("https://api.ecr.{region}.{zone}"),
    };
    let url = Url::parse(&endpoint).map_err(|error| error.to_string())?;
    let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
    let body = b"{}".to_vec();
    let host = super::hosts::authority(&url);
    let date = sign::amz_date(now);
    let signed = [
        ("content-type", "application/x-amz-json-1.1"),
        ("host", host.as_str()),
        ("x-amz-date", date.as_str()),
        ("x-amz-security-token", keys.token.as_str()),
        ("x-amz-target", target),
    ];
    let request = sign::Request { method: "POST", path: "/", headers: &signed, body: &body };
    let scope = sign::Scope { date: &date, region, service: "ecr" };
    let authorization = request.authorization(&keys.access_key_id, &keys.secret_access_key, &scope);
    let mut all = headers(&signed)?;
    all.extend(headers(&[("authorization", &authorization)])?);
    let answer = call(client, Method::POST, url, all, body).await?;
    let tokens: Tokens = serde_json::from_slice(&answer).map_err(|_| "ECR's answer cannot be read".to_owned())?;
    tokens.authorization_data.into_iter().next().ok_or_else(|| "ECR's answer holds no login".to_owned().into())
}

fn headers(pairs: &[(&str, &str)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| format!("the value of `{name}` is no header"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

async fn call(
    client: &Client,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
) -> Result<Vec<u8>, NoLogin> {
    let host = super::hosts::authority(&url);
    let failed = |error: super::RegistryError| NoLogin {
        for_now: error.class() == FailureClass::Transient,
        reason: clean(&error.to_string(), 200),
    };
    let sent = client.send_body(&method, &url, headers, body).await.map_err(failed)?;
    let status = sent.status();
    if !status.is_success() {
        let reason = format!("`{host}` answered {}{}", status.as_u16(), super::client::detail(sent).await);
        // The services of AWS answer so with 400, too ("Common Errors" of each, ThrottlingException).
        let for_now = is_for_now(status) || reason.contains(": ThrottlingException");
        return Err(NoLogin { reason, for_now });
    }
    Body::new(sent, host, client.pace()).document("login", MAX_ANSWER).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_from_hosts() {
        for (host, expected) in [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("12345.dkr.ecr.eu-west-1.amazonaws.com", None),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.io", None),
            ("123456789012.dkr.ecr.a.b.amazonaws.com", None),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", Some("eu-west-1")),
            ("123456789012.dkr-ecr-fips.us-east-1.on.aws", Some("us-east-1")),
            ("123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", Some("cn-north-1")),
            ("123456789012.dkr-ecr.eu-west-1.amazonaws.com", None),
            ("123456789012.dkr.ecr.eu-west-1.on.aws", None),
            ("123456789012.dkr-ecr.eu-west-1.on.aws.evil.io", None),
            ("public.ecr.aws", None),
            ("docker.io", None),
        ] {
            assert_eq!(region(host), expected, "{host}");
        }
    }
}
