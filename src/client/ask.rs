//! One question and its answer: headers, the bearer token, and what is asked again.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::http::request::Builder;
use hyper::http::{Method, StatusCode};
use hyper::{Request, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

use super::wire::{Link, Outgoing, broke};
use super::{Client, nonsense, problem};
use crate::error::{Error, ErrorKind, Result};
use crate::system::SystemClock;
use crate::time::Clock;

/// The name of a request, as the daemon tells it.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("strongroom-request");

const PURPOSE: HeaderName = HeaderName::from_static("strongroom-purpose");
const SESSION: HeaderName = HeaderName::from_static("strongroom-session");
const EMERGENCY: HeaderName = HeaderName::from_static("strongroom-emergency");

/// How long a daemon that is busy is asked again, from the first time on, before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long is waited where a busy daemon does not say.
const WAIT: Duration = Duration::from_secs(2);

/// The least that is waited, whatever it says.
const LEAST_WAIT: Duration = Duration::from_millis(200);

/// How long an answer in JSON, or a note, is at most, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// How long a bearer token is at most, in bytes.
const TOKEN_LIMIT: u64 = 16 * 1024;

/// What is asked.
pub(super) struct Question {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    media: Option<&'static str>,
    /// Whether it changes nothing, and can be asked again.
    changes_nothing: bool,
}

impl Question {
    pub(super) fn get(path: impl Into<String>) -> Self {
        let (headers, body) = (Vec::new(), Bytes::new());
        Self { method: Method::GET, path: path.into(), headers, body, media: None, changes_nothing: true }
    }

    /// Asks with a body, and changes nothing.
    pub(super) fn look(path: impl Into<String>, body: &Value) -> Self {
        Self { changes_nothing: true, ..Self::post(path, body) }
    }

    /// Changes something.
    pub(super) fn post(path: impl Into<String>, body: &Value) -> Self {
        let media = Some("application/json");
        let body = body.to_string().into();
        Self { method: Method::POST, body, media, changes_nothing: false, ..Self::get(path) }
    }

    /// Hands in a signed note.
    pub(super) fn note(path: impl Into<String>, note: String) -> Self {
        let media = Some("text/plain; charset=utf-8");
        Self { method: Method::POST, body: note.into(), media, changes_nothing: false, ..Self::get(path) }
    }

    pub(super) fn patch(path: impl Into<String>, body: &Value) -> Self {
        Self { method: Method::PATCH, ..Self::post(path, body) }
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl Client {
    /// What is answered as JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, question: &Question) -> Result<T> {
        let bytes = self.whole(question).await?;
        serde_json::from_slice(&bytes).map_err(|_| nonsense())
    }

    /// What is answered as a signed note, or the text of one.
    pub(super) async fn text(&self, question: &Question) -> Result<String> {
        let bytes = self.whole(question).await?;
        String::from_utf8(bytes.into()).map_err(|_| nonsense())
    }

    async fn whole(&self, question: &Question) -> Result<Bytes> {
        let (response, link) = self.answer(question).await?;
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => broke(*error),
            Err(_) => nonsense(),
        })?;
        self.0.wire.keep(link);
        Ok(body.to_bytes())
    }

    /// The answer to a question, if it is one of success, and the connection on which its body
    /// comes. One that is busy is asked again, if that changes nothing.
    pub(super) async fn answer(&self, question: &Question) -> Result<(Response<Incoming>, Link)> {
        let begun = SystemClock.uptime();
        loop {
            let (response, link) = self.send(question).await?;
            if response.status().is_success() {
                return Ok((response, link));
            }
            let wait = busy(&response).filter(|_| question.changes_nothing);
            let past = SystemClock.uptime().saturating_sub(begun);
            match wait.filter(|wait| past.saturating_add(*wait) <= PATIENCE) {
                Some(wait) => {
                    drop((response, link));
                    tokio::time::sleep(wait).await;
                }
                None => return Err(problem::read(response).await),
            }
        }
    }

    async fn send(&self, question: &Question) -> Result<(Response<Incoming>, Link)> {
        // The daemon may have closed one that was kept, and what was sent on it is then lost:
        // what changes something is sent on a new one.
        if question.changes_nothing
            && let Some(mut link) = self.0.wire.kept().await
            && let Ok(response) = link.send(self.request(question)?).await
        {
            return Ok((response, link));
        }
        let mut link = self.0.wire.connect().await?;
        let response = link.send(self.request(question)?).await.map_err(|error| {
            if question.changes_nothing || error.kind() != ErrorKind::Unavailable {
                return error;
            }
            let sentence = "the connection to the daemon broke before it answered, and it is not known whether it \
                            was done";
            Error::new(ErrorKind::Unavailable, sentence)
        })?;
        Ok((response, link))
    }

    fn request(&self, question: &Question) -> Result<Request<Outgoing>> {
        let mut request = self.begin(&question.method, &question.path)?;
        if let Some(media) = question.media {
            request = request.header(CONTENT_TYPE, media);
        }
        for (name, value) in &question.headers {
            request = request.header(name, value);
        }
        let body: Outgoing = match question.body.is_empty() {
            true => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            false => Full::new(question.body.clone()).map_err(|never| match never {}).boxed_unsync(),
        };
        request.body(body).map_err(|_| unsendable())
    }

    /// A request with what each one has.
    pub(super) fn begin(&self, method: &Method, path: &str) -> Result<Builder> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.0.wire.host())
            .header(USER_AGENT, concat!("strongroom/", env!("CARGO_PKG_VERSION")))
            .header(PURPOSE, self.0.purpose.code());
        if let Some(session) = self.0.session {
            request = request.header(SESSION, session.to_string());
        }
        if let Some(emergency) = self.0.emergency {
            request = request.header(EMERGENCY, emergency.to_string());
        }
        if let Some(path) = &self.0.token {
            request = request.header(AUTHORIZATION, token(path)?);
        }
        Ok(request)
    }
}

/// How long a daemon wants to be left alone (RFC 9110 s10.2.3), if that is its answer.
pub(super) fn busy<B>(response: &Response<B>) -> Option<Duration> {
    let is_busy =
        matches!(response.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    is_busy.then(|| seconds.map_or(WAIT, Duration::from_secs).max(LEAST_WAIT))
}

pub(super) fn unsendable() -> Error {
    Error::new(ErrorKind::InvalidInput, "the request cannot be sent")
}

/// The token that is in the file now.
fn token(path: &Path) -> Result<HeaderValue> {
    let unfit = |sentence| Error::new(ErrorKind::Configuration, sentence);
    let unread = |error: io::Error| unfit("the file with the token cannot be read").with_source(error);
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(TOKEN_LIMIT).unwrap_or(0)));
    File::open(path).map_err(unread)?.take(TOKEN_LIMIT).read_to_string(&mut text).map_err(unread)?;
    let token = text.trim_end();
    // RFC 6750 s2.1.
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
    if token.is_empty() || !token.bytes().all(fits) {
        return Err(unfit("the file with the token does not have a bearer token in it"));
    }
    let value = Zeroizing::new(format!("Bearer {token}"));
    let mut value = HeaderValue::from_str(&value).map_err(|_| unfit("the token cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_daemon_says_how_long() {
        let response = |status: u16, after: Option<&str>| {
            let mut response = Response::builder().status(status);
            if let Some(after) = after {
                response = response.header(RETRY_AFTER, after);
            }
            busy(&response.body(()).unwrap())
        };
        assert_eq!(response(503, Some("7")), Some(Duration::from_secs(7)));
        assert_eq!(response(429, None), Some(WAIT));
        assert_eq!(response(503, Some("Wed, 21 Oct 2026 07:28:00 GMT")), Some(WAIT));
        assert_eq!(response(503, Some("0")), Some(LEAST_WAIT));
        assert_eq!(response(500, Some("7")), None);
        assert_eq!(response(200, None), None);
    }

    #[test]
    fn a_token_is_one_and_shown_to_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "aaa.bbb-_.c==\n").unwrap();
        let value = token(&path).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer aaa.bbb-_.c==");
        assert!(!format!("{value:?}").contains("aaa"));
        for bad in ["", "\n", "a b", "a\nb", "\u{e9}"] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(token(&path).unwrap_err().kind(), ErrorKind::Configuration, "{bad:?}");
        }
        assert!(token(&directory.path().join("none")).is_err());
    }
}
