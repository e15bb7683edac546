//! A limit for what a server of a cloud storage answers besides objects: lists, confirmations,
//! errors.
//!
//! Separate because these bodies are read below us, whole and into memory, and a server may send
//! any length, or announce one that cannot be allocated. Objects are not limited here: each has the
//! limit of its kind ([`limits`](super::limits)), and comes in pieces.

use std::fmt;

use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService, ReqwestConnector,
};

/// How long an answer is at most, in bytes. A page of a list has 1,000 objects, each of some 6 KiB
/// where every byte of its key has to be escaped.
pub const MOST: u64 = 16 << 20;

/// Makes clients whose answers are limited: a connector for the builders of cloud storages.
#[derive(Clone, Copy, Debug)]
pub struct Limiting {
    /// Whether the body of an object is an answer too.
    pub objects: bool,
}

impl HttpConnector for Limiting {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Client { client, objects: self.objects }))
    }
}

#[derive(Debug)]
struct Client {
    client: HttpClient,
    objects: bool,
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let object = !self.objects && asks_for_object(&request);
        let answer = self.client.execute(request).await?;
        if object && answer.status().is_success() { Ok(answer) } else { limited(answer) }
    }
}

/// A list is a read too, and says so.
fn asks_for_object(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    let lists = |pair: &str| matches!(pair.split('=').next(), Some("list-type" | "comp" | "uploads"));
    request.method().as_str() == "GET" && !query.split('&').any(lists)
}

fn limited(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    use hyper::body::Body;

    let (parts, body) = answer.into_parts();
    if body.size_hint().lower() > MOST {
        return Err(too_long());
    }
    let body = Limited::new(body, usize::try_from(MOST).expect("it fits in memory"));
    let body = body.map_err(|error| match error.downcast::<HttpError>() {
        Ok(error) => *error,
        Err(_) => too_long(),
    });
    Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
}

fn too_long() -> HttpError {
    HttpError::new(HttpErrorKind::Decode, TooLong)
}

#[derive(Debug)]
struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an answer that is no object has more than {MOST} bytes")
    }
}

impl std::error::Error for TooLong {}

#[cfg(test)]
mod tests {
    use object_store::client::HttpRequestBody;

    use super::*;

    fn request(method: &str, uri: &str) -> HttpRequest {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = uri.parse().unwrap();
        request
    }

    #[test]
    fn only_an_object_is_read_beyond_the_limit() {
        for (method, uri, object) in [
            ("GET", "http://host/bucket/key", true),
            ("GET", "http://host/bucket/key?versionId=list-type", true),
            ("GET", "http://host/bucket?list-type=2&prefix=x", false),
            ("GET", "http://host/bucket?restype=container&comp=list", false),
            ("PUT", "http://host/bucket/key", false),
            ("POST", "http://host/bucket/key?uploads", false),
        ] {
            assert_eq!(asks_for_object(&request(method, uri)), object, "{method} {uri}");
        }
    }

    #[tokio::test]
    async fn what_is_longer_is_not_collected() {
        let answer = |bytes: usize| HttpResponse::new(HttpResponseBody::from(vec![0; bytes]));
        let most = usize::try_from(MOST).unwrap();
        assert_eq!(limited(answer(most)).unwrap().into_body().bytes().await.unwrap().len(), most);
        assert!(limited(answer(most + 1)).unwrap_err().to_string().contains("more than"));
    }
}
