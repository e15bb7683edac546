//! What a client is told when something is refused or fails: problem details (RFC 9457)
//! with stable codes.
//!
//! Invariant: the sentences are ours and hold ids at most, as those of [`Error`] do.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::alarm::AlarmKind;
use crate::access::RuleId;
use crate::error::{Error, ErrorKind};

/// How long a client is asked to wait before it tries again, in seconds.
const RETRY_SECONDS: u64 = 2;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    more: Map<String, Value>,
    /// In seconds.
    retry_after: Option<u64>,
    /// What somebody has to be told because of it.
    alarm: Option<AlarmKind>,
}

impl Problem {
    /// A problem with a code of its own.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), more: Map::new(), retry_after: None, alarm: None }
    }

    /// A request that cannot be understood.
    #[must_use]
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-input", detail)
    }

    /// Whoever asks is not known.
    #[must_use]
    pub fn unknown() -> Self {
        let detail = "the certificate, socket peer or token is not that of anyone who is known here";
        Self::new(StatusCode::UNAUTHORIZED, "unknown-principal", detail)
    }

    /// Whoever asks may not.
    #[must_use]
    pub fn denied(rule: &RuleId) -> Self {
        let detail = "the policy does not allow this; the rule says why, and it is on record";
        let mut problem = Self::new(StatusCode::FORBIDDEN, "denied", detail);
        problem.more.insert("rule".to_owned(), json!(rule));
        problem
    }

    /// The same, with one more member.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The same, for a client that is to wait so many seconds before it tries again.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }
}

/// The status that an error is answered with, and every one that there can be.
#[must_use]
pub const fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::AlreadyExists | ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
        ErrorKind::KeyUnavailable | ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::KeyDestroyed => StatusCode::GONE,
        ErrorKind::Unavailable | ErrorKind::AuditUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        // The client went away in the middle of what it sent.
        ErrorKind::Io => StatusCode::BAD_REQUEST,
        ErrorKind::Authentication | ErrorKind::Integrity | ErrorKind::UnsupportedFormat => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        ErrorKind::Configuration => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        let status = status_of(kind);
        // What lies behind a failure of ours is for our logs.
        let detail = if status.is_server_error() { error.to_string() } else { error.chain() };
        let mut problem = Self::new(status, kind.as_str(), detail);
        problem.retry_after = kind.is_retryable().then_some(RETRY_SECONDS);
        problem.alarm = AlarmKind::of(&error);
        match error.certificate() {
            Some(certificate) => problem.with("certificate", certificate.to_string()),
            None => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = Map::new();
        body.insert("type".to_owned(), format!("urn:strongroom:problem:{}", self.code).into());
        body.insert("title".to_owned(), self.status.canonical_reason().unwrap_or("Problem").into());
        body.insert("status".to_owned(), self.status.as_u16().into());
        body.insert("code".to_owned(), self.code.into());
        body.insert("detail".to_owned(), self.detail.into());
        body.extend(self.more);
        let mut response = (self.status, Json(Value::Object(body))).into_response();
        if let Some(alarm) = self.alarm {
            response.extensions_mut().insert(alarm);
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
