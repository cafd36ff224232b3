//! Logging in: basic, bearer tokens, identity tokens.
//!
//! A request is first sent with what is known, and a challenge (401) is answered once per login there is. Tokens are
//! shared by all pulls of a repository with the same secrets and renewed when they run out, also in mid-pull.
//!
//! Source: docker's "Token Authentication Specification" and "Oauth2 Token Authentication".

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::body::Body;
use super::challenge::{self, Challenge};
use super::client::{Client, Session, detail, same_origin};
use super::errors::{RegistryError, clean};
use super::hosts::{Endpoint, authority, is_loopback};
use super::retry::Retries;
use crate::api::PullCredentials;
use crate::image::credentials::{self, Found, Login};

/// How long a token is valid when its service does not say (docker's specification: 60 seconds).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token that runs out within this time is renewed first.
const MARGIN: Duration = Duration::from_secs(5);
/// Largest answer of a token service.
const MAX_TOKEN_ANSWER: u64 = 1024 * 1024;
const MAX_REDIRECTS: usize = 5;

/// What a request carries.
#[derive(Clone)]
pub(super) struct Authorization {
    /// The header, marked as sensitive.
    pub(super) header: HeaderValue,
    /// When it runs out; never for passwords.
    expires: Option<Instant>,
    /// Which login it comes from.
    login: usize,
}

impl Authorization {
    fn valid(&self) -> bool {
        self.expires.is_none_or(|expires| Instant::now() + MARGIN < expires)
    }
}

/// Tokens by place, repository and secrets. The lock is held only to look up or insert.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<TokenKey, Authorization>>);

type TokenKey = (String, String, [u8; 32]);

/// The logins of one pull at one place.
pub(super) struct Logins {
    secrets: Arc<PullCredentials>,
    key: TokenKey,
    /// Looked up at the first challenge: most images are public, and helpers are slow.
    /// Guards also that one request at a time asks for a token.
    state: tokio::sync::Mutex<Option<Found>>,
}

impl Logins {
    pub(super) fn new(endpoint: &Endpoint, secrets: Arc<PullCredentials>) -> Self {
        let key = (endpoint.base.to_string(), endpoint.repository.clone(), credentials::fingerprint(&secrets));
        Self { secrets, key, state: tokio::sync::Mutex::new(None) }
    }

    /// Whether there is a login at all.
    pub(super) async fn any(&self, client: &Client, endpoint: &Endpoint) -> bool {
        !self.find(&mut *self.state.lock().await, client, endpoint).await.logins.is_empty()
    }

    async fn find<'a>(&self, state: &'a mut Option<Found>, client: &Client, endpoint: &Endpoint) -> &'a mut Found {
        if state.is_none() {
            let mut found = client.files().find(&self.secrets, &endpoint.name, &endpoint.repository).await;
            from_role(client, endpoint, &mut found, None).await;
            *state = Some(found);
        }
        state.get_or_insert_default()
    }

    /// What is known to work, if anything.
    pub(super) fn current(&self, client: &Client) -> Option<Authorization> {
        let tokens = client.tokens().0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(&self.key).filter(|known| known.valid()).cloned()
    }

    /// Answers a 401 or 403 with another login, a fresh token, or the error that there is none.
    ///
    /// `used` is what the refused request carried, `attempts` how many answers this request has had already.
    pub(super) async fn answer(
        &self,
        client: &Client,
        session: &Session,
        refused: reqwest::Response,
        used: Option<&Authorization>,
        attempts: usize,
    ) -> Result<Authorization, RegistryError> {
        let status = refused.status();
        let challenges: Vec<Challenge> = refused
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .take(8)
            .flat_map(|value| challenge::parse(&String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let reason = detail(refused).await;
        let mut state = self.state.lock().await;
        // Another request of this pull may have answered the same challenge while this one waited.
        if attempts == 0
            && let Some(known) = self.current(client)
            && used.is_none_or(|used| used.header != known.header)
        {
            return Ok(known);
        }
        let found = self.find(&mut state, client, &session.endpoint).await;
        // A token that was cached may just be too old: the same login gets a fresh one. What was fresh is wrong.
        let mut first = match used {
            Some(used) if attempts > 0 || status == StatusCode::FORBIDDEN => used.login + 1,
            Some(used) => used.login,
            None => 0,
        };
        let name = &session.endpoint.name;
        let unasked = challenges.is_empty() && (status == StatusCode::FORBIDDEN || found.logins.is_empty());
        if unasked && !found.kept {
            return Err(denied(found, name.clone(), reason));
        }
        let mut last = denied(found, name.clone(), reason);
        loop {
            for index in first..found.logins.len().max(1) {
                let login = found.logins.get(index);
                match self.log_in(client, session, &challenges, login).await {
                    Ok(mut answer) => {
                        answer.login = index;
                        let mut tokens = client.tokens().0.lock().unwrap_or_else(PoisonError::into_inner);
                        tokens.retain(|_, known| known.valid());
                        tokens.insert(self.key.clone(), answer.clone());
                        return Ok(answer);
                    }
                    Err(RegistryError::Denied { host, detail, .. }) => last = denied(found, host, detail),
                    Err(other) => return Err(other),
                }
            }
            // A password that was kept may have been taken back: there is a new one for the asking, once.
            let kept = std::mem::take(&mut found.kept);
            let Some(refused) = found.logins.pop_if(|_| kept) else { break };
            from_role(client, &session.endpoint, found, Some(&refused)).await;
            first = 0;
        }
        // Not to be tried again by the next request either.
        client.tokens().0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        Err(last)
    }

    async fn log_in(
        &self,
        client: &Client,
        session: &Session,
        challenges: &[Challenge],
        login: Option<&Login>,
    ) -> Result<Authorization, RegistryError> {
        let host = session.endpoint.name.clone();
        if let Some(Login::Bearer(token)) = login {
            return bearer(&host, token.expose(), None);
        }
        if let Some(challenge) = challenges.iter().find(|c| c.scheme == "bearer") {
            return token(client, session, challenge, login).await;
        }
        let basic = challenges.is_empty() || challenges.iter().any(|c| c.scheme == "basic");
        match login {
            Some(Login::Basic(user, password)) if basic => {
                Ok(Authorization { header: basic_header(&host, user, password.expose())?, expires: None, login: 0 })
            }
            None if basic => Err(RegistryError::Denied { host, detail: String::new(), looked: String::new() }),
            Some(Login::Identity(_)) if basic => Err(RegistryError::Login {
                host,
                reason: "it wants a password, and there is only an identity token".to_owned(),
            }),
            _ => {
                let schemes: Vec<_> = challenges.iter().take(4).map(|c| clean(&c.scheme, 20)).collect();
                let reason = format!("it wants `{}`, which is neither Basic nor Bearer", schemes.join(", "));
                Err(RegistryError::Login { host, reason })
            }
        }
    }
}

/// Why a registry that refuses is not asked further.
fn denied(found: &Found, host: String, detail: String) -> RegistryError {
    match &found.unsure {
        Some(reason) if found.logins.is_empty() => RegistryError::NoRole { host, reason: reason.clone() },
        _ => RegistryError::Denied { host, detail, looked: found.looked.join(", ") },
    }
}

/// The login that the instance's role gives, when nothing else does; another one than was `refused`.
#[cfg(feature = "ecr")]
async fn from_role(client: &Client, endpoint: &Endpoint, found: &mut Found, refused: Option<&Login>) {
    let set = client.config().hosts.get(&endpoint.name).and_then(|host| host.ecr_region.as_deref());
    let Some(region) = set.or_else(|| super::ecr::region(&endpoint.name)) else { return };
    if found.logins.is_empty() {
        match super::ecr::login(client, &endpoint.name, region, refused).await {
            Ok((login, kept)) => {
                found.looked.push("the instance's role (gave one)".to_owned());
                found.logins.push(login);
                found.kept = kept;
            }
            Err(error) => {
                found.looked.push(format!("the instance's role ({})", error.reason));
                found.unsure = error.for_now.then_some(error.reason);
            }
        }
    }
}

#[cfg(not(feature = "ecr"))]
async fn from_role(_: &Client, _: &Endpoint, _: &mut Found, _: Option<&Login>) {}

fn basic_header(host: &str, user: &str, password: &[u8]) -> Result<HeaderValue, RegistryError> {
    let mut pair = Vec::with_capacity(user.len() + 1 + password.len());
    pair.extend_from_slice(user.as_bytes());
    pair.push(b':');
    pair.extend_from_slice(password);
    sensitive(host, &format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
}

fn bearer(host: &str, token: &[u8], life: Option<Duration>) -> Result<Authorization, RegistryError> {
    let token = std::str::from_utf8(token).ok().filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic()));
    let Some(token) = token else {
        return Err(RegistryError::Login { host: host.to_owned(), reason: "the token has odd characters".to_owned() });
    };
    let header = sensitive(host, &format!("Bearer {token}"))?;
    Ok(Authorization { header, expires: life.map(|life| Instant::now() + life), login: 0 })
}

fn sensitive(host: &str, text: &str) -> Result<HeaderValue, RegistryError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| RegistryError::Login { host: host.to_owned(), reason: "the login is no header".to_owned() })?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a token service answers; both names of the token are in use.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
}

/// Gets a token as a bearer challenge asks.
async fn token(
    client: &Client,
    session: &Session,
    challenge: &Challenge,
    login: Option<&Login>,
) -> Result<Authorization, RegistryError> {
    let host = &session.endpoint.name;
    let refuse = |reason: String| RegistryError::Login { host: host.clone(), reason };
    let realm = challenge.get("realm").unwrap_or_default();
    let shown = clean(realm.split_once('?').map_or(realm, |(path, _)| path), 80);
    let realm = Url::parse(realm).map_err(|error| refuse(format!("the realm `{shown}` is not an address: {error}")))?;
    let base = &session.endpoint.base;
    if !matches!(realm.scheme(), "http" | "https") || realm.host_str().is_none() {
        return Err(refuse(format!("the realm `{shown}` is neither http nor https")));
    }
    if !realm.username().is_empty() || realm.password().is_some() {
        return Err(refuse("the realm holds a user name".to_owned()));
    }
    if !same_origin(&realm, base) {
        let plain = realm.scheme() == "http";
        if plain && (base.scheme() == "https" || !client.config().may_use(&realm)) {
            return Err(refuse(format!("the token service `{shown}` speaks http without TLS")));
        }
        if is_loopback(&realm) && !is_loopback(base) {
            return Err(refuse(format!("the token service `{shown}` would be this machine")));
        }
    }
    let scope = match challenge.get("scope") {
        Some(scope) if !scope.is_empty() && scope.len() <= 4096 => scope.to_owned(),
        _ => format!("repository:{}:pull", session.endpoint.repository),
    };
    let request = TokenRequest { client, realm, service: challenge.get("service").unwrap_or_default(), scope: &scope };
    let mut retries = Retries::new(client.config());
    loop {
        match request.send(login).await {
            Ok(answer) => return Ok(answer),
            Err(error) => retries.after(error).await?,
        }
    }
}

struct TokenRequest<'a> {
    client: &'a Client,
    realm: Url,
    service: &'a str,
    scope: &'a str,
}

impl TokenRequest<'_> {
    async fn send(&self, login: Option<&Login>) -> Result<Authorization, RegistryError> {
        let host = authority(&self.realm);
        match login {
            None => self.read(self.get(None).await?).await,
            Some(Login::Bearer(token)) => bearer(&host, token.expose(), None),
            Some(Login::Identity(token)) => {
                let token = String::from_utf8_lossy(token.expose()).into_owned();
                self.read(self.post(&[("grant_type", "refresh_token"), ("refresh_token", &token)]).await?).await
            }
            Some(Login::Basic(user, password)) => {
                let answer = self.get(Some(basic_header(&host, user, password.expose())?)).await?;
                // Services that know only OAuth2 refuse the GET (docker does it the other way round).
                if !matches!(answer.status().as_u16(), 400 | 404 | 405 | 501) {
                    return self.read(answer).await;
                }
                let password = String::from_utf8_lossy(password.expose()).into_owned();
                let form = [("grant_type", "password"), ("username", user.as_str()), ("password", &password)];
                self.read(self.post(&form).await?).await
            }
        }
    }

    async fn get(&self, login: Option<HeaderValue>) -> Result<reqwest::Response, RegistryError> {
        let mut url = self.realm.clone();
        if !self.service.is_empty() {
            url.query_pairs_mut().append_pair("service", self.service);
        }
        for scope in self.scope.split(' ').filter(|scope| !scope.is_empty()) {
            url.query_pairs_mut().append_pair("scope", scope);
        }
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = HeaderMap::new();
            if let Some(login) = login.as_ref().filter(|_| same_origin(&url, &self.realm)) {
                headers.insert(header::AUTHORIZATION, login.clone());
            }
            let response = self.client.send(&Method::GET, &url, headers, None).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            url = self.client.redirect(&url, response.headers())?;
        }
        let reason = format!("more than {MAX_REDIRECTS} redirects for a token");
        Err(RegistryError::Redirect { host: authority(&self.realm), reason })
    }

    /// Never redirected: the form holds the secret.
    async fn post(&self, login: &[(&str, &str)]) -> Result<reqwest::Response, RegistryError> {
        let mut form = vec![("service", self.service), ("scope", self.scope), ("client_id", "mainstay")];
        form.extend_from_slice(login);
        self.client.send(&Method::POST, &self.realm, HeaderMap::new(), Some(&form)).await
    }

    async fn read(&self, response: reqwest::Response) -> Result<Authorization, RegistryError> {
        let host = authority(&self.realm);
        let status = response.status();
        if status != StatusCode::OK {
            let reply = super::client::Reply { response, host: host.clone() };
            return Err(match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    RegistryError::Denied { host, detail: detail(reply.response).await, looked: String::new() }
                }
                StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => {
                    let detail = detail(reply.response).await;
                    let reason = format!("its token service `{host}` answered {}{detail}", status.as_u16());
                    RegistryError::Login { host, reason }
                }
                _ => reply.into_error("a token").await,
            });
        }
        let what = "token";
        let body = Body::new(response, host.clone(), self.client.pace()).document(what, MAX_TOKEN_ANSWER).await?;
        let refuse = |reason: &str| RegistryError::Login { host: host.clone(), reason: reason.to_owned() };
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|_| refuse("the token service's answer is not valid JSON"))?;
        let filled = |token: Option<String>| token.filter(|token| !token.is_empty());
        let token = filled(answer.token)
            .or_else(|| filled(answer.access_token))
            .ok_or_else(|| refuse("the token service's answer holds no token"))?;
        let life = match answer.expires_in {
            Some(serde_json::Value::Number(seconds)) => seconds.as_f64().map(|s| s.clamp(0.0, 86_400.0)),
            Some(serde_json::Value::String(text)) => text.trim().parse().ok().map(|s: f64| s.clamp(0.0, 86_400.0)),
            _ => None,
        };
        let life = life.filter(|s| s.is_finite()).map_or(DEFAULT_LIFE, Duration::from_secs_f64);
        bearer(&host, token.as_bytes(), Some(life))
    }
}
