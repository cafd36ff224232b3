//! Errors as answers: `{"error": {"code", "message", "hint"}}`.

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// The body of every answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// One stable word: `not_found`, `bad_request`, `unavailable`, `failed`, ...
    pub code: String,
    /// For people.
    pub message: String,
    /// What the reader can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(super) fn not_found(message: String) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "not_found", message, hint: None }
    }

    pub(super) fn bad_request(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "bad_request", message, hint: None }
    }

    /// The loop does not answer.
    pub(super) fn unavailable() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "unavailable",
            message: "the agent is ending".to_owned(),
            hint: Some("try again when it runs again".to_owned()),
        }
    }

    pub(super) fn failed(message: String) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: "failed", message, hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = ErrorDetail { code: self.code.to_owned(), message: self.message, hint: self.hint };
        (self.status, Json(ErrorBody { error })).into_response()
    }
}

pub(super) async fn not_found(uri: Uri) -> Response {
    Failure::not_found(format!("there is no {}", uri.path())).into_response()
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{} does not take {method}", uri.path());
    Failure { status: StatusCode::METHOD_NOT_ALLOWED, code: "wrong_method", message, hint: None }.into_response()
}
