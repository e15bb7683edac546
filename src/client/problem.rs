//! What a daemon refuses or fails, as the error that a store would have given.
//!
//! Problem details (RFC 9457): the stable `code` says which kind of error it is, and the
//! `detail` is its sentence.

use http_body_util::{BodyExt, Limited};
use hyper::Response;
use hyper::body::{Body, Bytes};
use hyper::header::HeaderMap;
use hyper::http::StatusCode;
use serde::Deserialize;

use super::ask::REQUEST_ID;
use crate::access::RuleId;
use crate::error::{Error, ErrorKind, Source};
use crate::id::RequestId;
use crate::json::Failed;
use crate::ring::RingRefusal;
use crate::session::SessionRefusal;

/// How long problem details are at most, in bytes.
const MAX_LEN: usize = 64 * 1024;

#[derive(Deserialize)]
struct Problem {
    #[serde(flatten)]
    failed: Failed,
    rule: Option<RuleId>,
}

/// Reads why a request was refused. Where the reason did not come whole, the status says what it
/// can.
pub(super) async fn read<B>(response: Response<B>) -> Error
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = response.into_parts();
    let bytes = match Limited::new(body, MAX_LEN).collect().await {
        Ok(whole) => whole.to_bytes(),
        Err(_) => Bytes::new(),
    };
    told(parts.status, &parts.headers, &bytes)
}

fn told(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let error = match serde_json::from_slice::<Problem>(body) {
        // A blob's: the sentence of a store.
        Ok(_) if status == StatusCode::RANGE_NOT_SATISFIABLE => {
            Error::new(ErrorKind::InvalidInput, "the range begins behind the end of the blob")
        }
        Ok(problem) => {
            let kind = problem.failed.kind().unwrap_or_else(|| kind_of(status));
            let detail = problem.failed.detail.to_string();
            let sentence = match &problem.rule {
                Some(rule) => format!("{detail} ({rule})"),
                None => detail,
            };
            let error = match refusal(problem.rule.as_ref(), &sentence) {
                Some(refusal) if kind == ErrorKind::Denied => Error::new(kind, sentence).with_source(refusal),
                _ => Error::new(kind, sentence),
            };
            match problem.failed.certificate {
                Some(certificate) => error.with_certificate(certificate),
                None => error,
            }
        }
        Err(_) => {
            Error::new(kind_of(status), format!("the daemon answered {}, without a reason", status.as_u16()))
        }
    };
    let request = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()?.parse::<RequestId>().ok());
    match request {
        Some(request) => error.with_request(request),
        None => error,
    }
}

/// A refusal that the command line has a hint for, by the rule of the policy or by what is said.
fn refusal(rule: Option<&RuleId>, sentence: &str) -> Option<Source> {
    if rule.is_some_and(|rule| rule.as_str() == "deny.session") {
        return Some(SessionRefusal::Required.into());
    }
    let says = |refusal: String| sentence.ends_with(&refusal);
    if says(RingRefusal::Shortened.to_string()) {
        return Some(RingRefusal::Shortened.into());
    }
    SessionRefusal::ALL.into_iter().find(|refusal| says(refusal.to_string())).map(Into::into)
}

/// What a status says where there is no code that is known.
fn kind_of(status: StatusCode) -> ErrorKind {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => ErrorKind::Conflict,
        StatusCode::GONE => ErrorKind::KeyDestroyed,
        StatusCode::METHOD_NOT_ALLOWED => ErrorKind::UnsupportedFormat,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => ErrorKind::Unavailable,
        StatusCode::INTERNAL_SERVER_ERROR => ErrorKind::Configuration,
        status if status.is_client_error() => ErrorKind::InvalidInput,
        _ => ErrorKind::Unavailable,
    }
}

/// Reads a refusal: for [`crate::fuzz`].
pub(crate) fn fuzz(status: StatusCode, body: &[u8]) -> Error {
    told(status, &HeaderMap::new(), body)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn error(status: u16, body: &str) -> Error {
        told(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn a_code_is_the_kind_and_the_detail_the_sentence() {
        let known = json!({ "type": "x", "status": 503, "code": "audit-unavailable", "detail": "no log" });
        let known = error(503, &known.to_string());
        assert_eq!((known.kind(), known.chain()), (ErrorKind::AuditUnavailable, "no log".into()));
        let denied = json!({ "code": "denied", "detail": "no", "rule": "role.none" }).to_string();
        assert_eq!(error(403, &denied).chain(), "no (role.none)");
        let later = json!({ "code": "too-many-requests", "detail": "wait" }).to_string();
        assert_eq!(error(429, &later).kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn without_a_reason_the_status_is_told_and_nothing_of_the_body() {
        for (status, kind) in [
            (400, ErrorKind::InvalidInput),
            (403, ErrorKind::Denied),
            (410, ErrorKind::KeyDestroyed),
            (500, ErrorKind::Configuration),
            (507, ErrorKind::Unavailable),
        ] {
            let error = error(status, "<html>JANE</html>");
            assert_eq!(error.kind(), kind, "{status}");
            assert!(error.chain().contains(&status.to_string()) && !error.chain().contains("JANE"));
        }
    }

    #[test]
    fn what_the_command_line_hints_at_is_found_again() {
        let detail = format!("refused: {}", RingRefusal::Shortened);
        let error = error(403, &json!({ "code": "denied", "detail": detail }).to_string());
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
        assert_eq!(source, Some(&RingRefusal::Shortened));
        assert_eq!(error.chain(), detail);
    }

    #[test]
    fn what_takes_a_session_is_told_by_rule_or_sentence() {
        let refusal = |problem: Value| {
            let error = error(403, &problem.to_string());
            std::error::Error::source(&error).and_then(|source| source.downcast_ref()).copied()
        };
        let over = format!("refused: {}", SessionRefusal::Over);
        assert_eq!(refusal(json!({ "code": "denied", "detail": over })), Some(SessionRefusal::Over));
        let by_rule = |rule: &str| refusal(json!({ "code": "denied", "detail": "no", "rule": rule }));
        assert_eq!(by_rule("deny.session"), Some(SessionRefusal::Required));
        assert_eq!(by_rule("deny.role"), None);
        let unknown = SessionRefusal::Unknown.to_string();
        assert_eq!(refusal(json!({ "code": "not-found", "detail": unknown })), None, "nobody was refused");
    }
}
