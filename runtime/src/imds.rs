//! What the metadata service of EC2 tells about this machine, by version 2 of its protocol alone.
//!
//! Owns the token of one session. Never goes through a proxy (none could reach the link-local address of this very
//! machine), follows no redirect and writes nothing down.
//!
//! Source: EC2 user guide, "Use the Instance Metadata Service".

use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{RequestBuilder, StatusCode};

/// The service answers at once or is not there.
const LIMIT: Duration = Duration::from_secs(2);
/// How long the token of a session is good for, in seconds: a session is a handful of questions.
const TOKEN_SECONDS: &str = "60";
/// Answers are a few kilobytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Why the service told nothing.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// It cannot be asked.
    #[error("cannot ask the metadata service for `{what}`")]
    Request {
        /// For what.
        what: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It says no.
    #[error("the metadata service answered {status} for `{what}`")]
    Refused {
        /// For what.
        what: String,
        /// Its answer.
        status: StatusCode,
    },
    /// What it says is not what such a service says.
    #[error("the metadata service answered something else than a short text for `{what}`")]
    Odd {
        /// For what.
        what: String,
    },
}

/// Questions to the service under one token.
pub struct Session {
    http: reqwest::Client,
    endpoint: String,
    token: HeaderValue,
}

impl Session {
    /// Asks for a token. `endpoint` is where the service is, such as `http://169.254.169.254`.
    ///
    /// # Errors
    /// Nobody is there, or it is no service of version 2.
    pub async fn open(endpoint: &str) -> Result<Self, ImdsError> {
        let what = || "token".to_owned();
        crate::install_crypto();
        let builder = reqwest::Client::builder().timeout(LIMIT).redirect(reqwest::redirect::Policy::none());
        let http = builder.no_proxy().user_agent("mainstay").build();
        let http = http.map_err(|source| ImdsError::Request { what: what(), source })?;
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let put = http.put(format!("{endpoint}/latest/api/token"));
        let told = text(&what(), put.header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS)).await?;
        let token = told.ok_or_else(|| ImdsError::Refused { what: what(), status: StatusCode::NOT_FOUND })?;
        let mut token = HeaderValue::from_str(&token).map_err(|_| ImdsError::Odd { what: what() })?;
        token.set_sensitive(true);
        Ok(Self { http, endpoint, token })
    }

    /// The text at a path below `latest/meta-data/`, without the white space around it; `None` where there is nothing.
    ///
    /// # Errors
    /// The service does not answer, or refuses.
    pub async fn get(&self, path: &str) -> Result<Option<String>, ImdsError> {
        let request = self.http.get(format!("{}/latest/meta-data/{path}", self.endpoint));
        text(path, request.header("x-aws-ec2-metadata-token", self.token.clone())).await
    }
}

async fn text(what: &str, request: RequestBuilder) -> Result<Option<String>, ImdsError> {
    let failed = |source: reqwest::Error| ImdsError::Request { what: what.to_owned(), source: source.without_url() };
    let odd = || ImdsError::Odd { what: what.to_owned() };
    let mut answer = request.send().await.map_err(failed)?;
    match answer.status() {
        status if status.is_success() => {}
        StatusCode::NOT_FOUND => return Ok(None),
        status => return Err(ImdsError::Refused { what: what.to_owned(), status }),
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER {
            return Err(odd());
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| odd())?;
    Ok(Some(text.trim().to_owned()))
}
