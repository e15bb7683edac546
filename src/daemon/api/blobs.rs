//! Blobs: sealing, opening, listing, and what is done with one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, IF_RANGE,
    LOCATION, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use futures_util::{StreamExt, TryStreamExt};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::endpoints::Endpoint;
use super::super::problem::Problem;
use super::{Ask, header, id, json as read_json};
use crate::access::policy::Operation;
use crate::envelope::{BlobName, Metadata};
use crate::error::{Error, ErrorKind};
use crate::id::{BlobId, CustomerId};
use crate::json::{self as shown, Failed, Row};
use crate::room::{BlobInfo, ByteRange, Customer, Listed, Opened, SealOptions, Source};
use crate::time::Day;

/// A blob's name, percent-encoded UTF-8.
pub(super) const NAME: HeaderName = HeaderName::from_static("strongroom-name");
/// One pair of metadata, `key=value`, both percent-encoded UTF-8. As often as there are pairs.
pub(super) const META: HeaderName = HeaderName::from_static("strongroom-meta");
/// The day until which a blob is kept at least.
pub(super) const RETAIN_UNTIL: HeaderName = HeaderName::from_static("strongroom-retain-until");
/// How many bytes have to come, or nothing is stored.
pub(super) const EXPECT_BYTES: HeaderName = HeaderName::from_static("strongroom-expect-bytes");
/// Another algorithm suite than the customer's.
pub(super) const SUITE: HeaderName = HeaderName::from_static("strongroom-suite");

/// A key under which the same may be sent again for 24 hours, and is stored once.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// That it had been stored before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What is not written as it is in a header: all but visible ASCII, and what parts it.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'=').add(b'"').add(b',').add(b';');

/// How many rows a page has at most, and unless less is asked for.
const PAGE: usize = 1000;
const PAGE_DEFAULT: usize = 100;

/// How many blobs are looked at together for a page.
const TOGETHER: usize = 16;

type Of = Path<(String, String)>;

pub(super) async fn seal(
    ask: Ask,
    Path(customer): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let customer: CustomerId = id(&customer, "customer")?;
    let customer = ask.customer(Endpoint::Seal, customer).await?;
    let options = options(&headers)?;
    let expected: Option<u64> = header(&headers, &EXPECT_BYTES, "a number of bytes")?;
    let pieces = pieces(body, ask.shared().body_idle, expected);
    let sealed = customer.seal(Source::stream(pieces), options).await?;
    let location = format!("/v1/customers/{}/blobs/{}", customer.id(), sealed.id);
    let body = json!({
        "blob": sealed.id,
        "bytes": sealed.bytes,
        "stored_bytes": sealed.stored_bytes,
        "retain_until": sealed.retain_until,
        "replayed": sealed.replayed,
    });
    let mut response = (StatusCode::CREATED, [(LOCATION, location)], Json(body)).into_response();
    if sealed.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn options(headers: &HeaderMap) -> Result<SealOptions, Problem> {
    let mut metadata = Metadata::new();
    if let Some(name) = headers.get(NAME) {
        metadata = metadata.with_name(name_of(&decoded(name.as_bytes())?)?);
    }
    if let Some(content_type) = headers.get(CONTENT_TYPE) {
        let text = content_type.to_str().map_err(|_| Problem::invalid("the content type is not text"))?;
        metadata = metadata.with_content_type(text).map_err(|error| Problem::invalid(error.to_string()))?;
    }
    for pair in headers.get_all(META) {
        let mut parts = pair.as_bytes().splitn(2, |byte| *byte == b'=');
        let (key, value) = (parts.next().unwrap_or_default(), parts.next());
        let value = value.ok_or_else(|| Problem::invalid("a Strongroom-Meta header is not key=value"))?;
        let (key, value) = (decoded(key)?, decoded(value)?);
        metadata = metadata.with_pair(&key, &value).map_err(|error| Problem::invalid(error.to_string()))?;
    }
    let mut options = SealOptions::new().metadata(metadata);
    if let Some(suite) = header(headers, &SUITE, "a suite")? {
        options = options.suite(suite);
    }
    if let Some(key) = header(headers, &IDEMPOTENCY_KEY, "1 to 64 visible characters")? {
        options = options.once(key);
    }
    Ok(match header::<Day>(headers, &RETAIN_UNTIL, "a day (YYYY-MM-DD)")? {
        Some(day) => options.retain_until(day),
        None => options,
    })
}

fn decoded(text: &[u8]) -> Result<String, Problem> {
    let decoded = percent_decode(text).decode_utf8();
    decoded
        .map(|text| text.into_owned())
        .map_err(|_| Problem::invalid("a header is not percent-encoded UTF-8"))
}

fn name_of(text: &str) -> Result<BlobName, Problem> {
    text.parse().map_err(|_| Problem::invalid("that is no name for a blob"))
}

/// The pieces of a body. A client that is silent for too long, or that sends another
/// number of bytes than it promised, has sent nothing.
fn pieces(
    body: Body,
    idle: Duration,
    expected: Option<u64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let begin = (body.into_data_stream(), 0_u64, false);
    stream::unfold(begin, move |(mut body, seen, ended)| async move {
        if ended {
            return None;
        }
        let next = match tokio::time::timeout(idle, body.next()).await {
            Ok(Some(Ok(piece))) => {
                let seen = seen.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                return Some((Ok(piece), (body, seen, false)));
            }
            Ok(Some(Err(_))) => io::Error::new(io::ErrorKind::ConnectionAborted, "the body broke off"),
            Ok(None) if expected.is_none_or(|expected| expected == seen) => return None,
            Ok(None) => {
                io::Error::new(io::ErrorKind::UnexpectedEof, "the body has another length than was said")
            }
            Err(_) => {
                io::Error::new(io::ErrorKind::TimedOut, "the next piece of the body did not come in time")
            }
        };
        Some((Err(next), (body, seen, true)))
    })
}

pub(super) async fn open(
    ask: Ask,
    Path((customer, blob)): Of,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (customer, blob): (CustomerId, BlobId) = (id(&customer, "customer")?, id(&blob, "blob")?);
    let range = asked_range(&headers, blob);
    let customer = ask.on_blob(Endpoint::OpenBlob, customer, Some(blob)).await?;
    if let Some(answer) = precondition(&headers, blob) {
        // That it is there has to be known before it is said to be unchanged.
        customer.stat(blob).await?;
        return Ok(answer);
    }
    let Some(range) = range else {
        let opened = customer.open(blob).await?;
        return streamed(StatusCode::OK, opened).await;
    };
    match customer.open_range(blob, range).await {
        Ok(opened) => streamed(StatusCode::PARTIAL_CONTENT, opened).await,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
            unsatisfiable(&customer, blob, error).await
        }
        Err(error) => Err(error.into()),
    }
}

async fn unsatisfiable(customer: &Customer, blob: BlobId, error: Error) -> Result<Response, Problem> {
    let Ok(info) = customer.stat(blob).await else { return Err(error.into()) };
    let detail = "no byte of the blob is in that range";
    let mut response =
        Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range-not-satisfiable", detail).into_response();
    response.headers_mut().insert(CONTENT_RANGE, value(&format!("bytes */{}", info.bytes)));
    Ok(response)
}

pub(super) async fn head(
    ask: Ask,
    Path((customer, blob)): Of,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (customer, blob): (CustomerId, BlobId) = (id(&customer, "customer")?, id(&blob, "blob")?);
    let customer = ask.on_blob(Endpoint::HeadBlob, customer, Some(blob)).await?;
    let info = customer.stat(blob).await?;
    if let Some(answer) = precondition(&headers, blob) {
        return Ok(answer);
    }
    let mut response = StatusCode::OK.into_response();
    describe(response.headers_mut(), &info);
    response.headers_mut().insert(CONTENT_LENGTH, info.bytes.into());
    Ok(response)
}

pub(super) async fn stat(ask: Ask, Path((customer, blob)): Of) -> Result<Json<Value>, Problem> {
    let (customer, blob): (CustomerId, BlobId) = (id(&customer, "customer")?, id(&blob, "blob")?);
    let customer = ask.on_blob(Endpoint::StatBlob, customer, Some(blob)).await?;
    Ok(Json(shown::blob(&customer.stat(blob).await?)))
}

pub(super) async fn verify(ask: Ask, Path((customer, blob)): Of) -> Result<Json<Value>, Problem> {
    let (customer, blob): (CustomerId, BlobId) = (id(&customer, "customer")?, id(&blob, "blob")?);
    let customer = ask.on_blob(Endpoint::VerifyBlob, customer, Some(blob)).await?;
    let info = customer.verify(blob).await?;
    Ok(Json(json!({ "blob": info.id, "ok": true, "bytes": info.bytes })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Extension {
    until: Day,
}

pub(super) async fn extend(
    ask: Ask,
    Path((customer, blob)): Of,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let (customer, blob): (CustomerId, BlobId) = (id(&customer, "customer")?, id(&blob, "blob")?);
    let mut customer = ask.on_blob(Endpoint::ExtendBlob, customer, Some(blob)).await?;
    let Extension { until } = read_json(&headers, body).await?;
    if customer.permit_writer(until).await.is_err() {
        // More than a writer alone may ask for.
        let what = (customer.id(), Some(blob));
        customer = ask.for_more(Endpoint::ExtendBlob, Operation::ExtendFar, what).await?;
    }
    let extended = customer.extend(blob, until).await?;
    Ok(Json(json!({
        "blob": extended.id,
        "retain_until": extended.retain_until,
        "changed": extended.changed,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<usize>,
    after: Option<BlobId>,
    /// Only ids and what the storage says: no blob is opened.
    #[serde(default)]
    ids: bool,
}

pub(super) async fn list(
    ask: Ask,
    Path(customer): Path<String>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::ListBlobs, id(&customer, "customer")?).await?;
    let Query(Page { limit, after, ids }) = page.map_err(|_| {
        Problem::invalid(
            "a page has a limit, the id of the blob that it comes after, and whether it has ids only",
        )
    })?;
    let limit = limit.unwrap_or(PAGE_DEFAULT);
    if limit == 0 || limit > PAGE {
        return Err(Problem::invalid(format!("a page has 1 to {PAGE} rows")));
    }
    let mut page = customer.page(after, limit + 1).await?;
    let more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().copied().filter(|_| more);
    let of = Arc::new(customer);
    if ids {
        let listed = |blob| {
            let customer = Arc::clone(&of);
            async move {
                let Listed { id: blob, stored_bytes, stored_at } = customer.listed(blob).await?;
                Ok::<_, Error>(shown::Listed { blob, stored_bytes, stored_at })
            }
        };
        let rows: Vec<_> = stream::iter(page).map(listed).buffered(TOGETHER).collect().await;
        // What went away meanwhile is not there.
        let gone =
            |row: &Result<_, Error>| row.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
        let rows = rows.into_iter().filter(|row| !gone(row)).collect::<Result<Vec<_>, _>>()?;
        return Ok(Json(json!({ "blobs": rows, "next": next })));
    }
    let rows: Vec<Row> = stream::iter(page)
        .map(|blob| {
            let customer = Arc::clone(&of);
            let ask = &ask;
            async move {
                let info = customer.stat_listed(blob).await;
                let stored = match &info {
                    Ok(_) => None,
                    Err(_) => customer.listed(blob).await.ok().map(|listed| listed.stored_bytes),
                };
                row(ask, customer.id(), (blob, stored), info)
            }
        })
        .buffered(TOGETHER)
        .collect()
        .await;
    Ok(Json(json!({ "blobs": rows, "next": next })))
}

/// A blob in a listing. One that cannot be opened hides no other.
fn row(
    ask: &Ask,
    customer: CustomerId,
    (blob, stored_bytes): (BlobId, Option<u64>),
    info: Result<BlobInfo, Error>,
) -> Row {
    match info {
        Ok(info) => Row::Blob(shown::Blob::from(&info)),
        Err(error) => {
            ask.observe(customer, &error);
            Row::Failed { blob, stored_bytes, error: Failed::from(&error) }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Find {
    name: String,
    limit: Option<usize>,
    /// Only the ids of all: no blob is opened.
    #[serde(default)]
    ids: bool,
}

pub(super) async fn find(
    ask: Ask,
    Path(customer): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let customer = ask.customer(Endpoint::FindBlobs, id(&customer, "customer")?).await?;
    let Find { name, limit, ids } = read_json(&headers, body).await?;
    let name = name_of(&name)?;
    let limit = limit.unwrap_or(if ids { usize::MAX } else { PAGE_DEFAULT });
    let found = customer.find(&name).await?;
    if ids {
        let found: Vec<BlobId> = found.into_iter().take(limit).collect();
        return Ok(Json(json!({ "blobs": found })));
    }
    let limit = limit.min(PAGE);
    let named = Arc::new(customer.only_named(&name));
    let rows: Vec<Row> = stream::iter(found.into_iter().take(limit))
        .map(|blob| {
            let customer = Arc::clone(&named);
            let ask = &ask;
            async move { row(ask, customer.id(), (blob, None), customer.stat(blob).await) }
        })
        .buffered(TOGETHER)
        .collect()
        .await;
    Ok(Json(json!({ "blobs": rows })))
}

/// What is sent of a blob, as it is opened. Where it fails in the middle the connection
/// breaks, and what came is shorter than was said.
async fn streamed(status: StatusCode, opened: Opened) -> Result<Response, Problem> {
    let (range, info) = (opened.range(), opened.info().clone());
    let mut pieces = opened.into_counted_stream();
    if range.is_empty() {
        // Nobody asks for the pieces of nothing, and that it is nothing shows at the end only.
        while pieces.try_next().await?.is_some() {}
    }
    let pieces = pieces.map_err(io::Error::other);
    let mut response = (status, Body::from_stream(pieces)).into_response();
    let headers = response.headers_mut();
    describe(headers, &info);
    headers.insert(CONTENT_LENGTH, (range.end - range.start).into());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = range.end.saturating_sub(1);
        headers.insert(CONTENT_RANGE, value(&format!("bytes {}-{last}/{}", range.start, info.bytes)));
    }
    Ok(response)
}

fn describe(headers: &mut HeaderMap, info: &BlobInfo) {
    let metadata = &info.metadata;
    let content_type = metadata.content_type().unwrap_or("application/octet-stream");
    headers.insert(CONTENT_TYPE, value(content_type));
    headers.insert(ETAG, value(&etag(info.id)));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(RETAIN_UNTIL, value(&info.retain_until.to_string()));
    if let Some(name) = metadata.name() {
        headers.insert(NAME, value(&encoded(name.as_str())));
    }
    for (key, of) in metadata.pairs() {
        headers.append(META, value(&format!("{}={}", encoded(key), encoded(of))));
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// A header's value. What does not fit into one is left out, and cannot be: it is encoded.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A blob never changes, so that its id stands for what is in it.
fn etag(blob: BlobId) -> String {
    format!("\"{blob}\"")
}

/// The answer to a precondition (RFC 9110 s13) that decides by itself.
fn precondition(headers: &HeaderMap, blob: BlobId) -> Option<Response> {
    let names = |name: &HeaderName| {
        let tags = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let mut tags = tags.flat_map(|value| value.split(',')).map(str::trim).peekable();
        let given = tags.peek().is_some();
        given.then(|| tags.any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag(blob)))
    };
    if names(&IF_MATCH) == Some(false) {
        let detail = "the blob has another entity tag";
        return Some(
            Problem::new(StatusCode::PRECONDITION_FAILED, "precondition-failed", detail).into_response(),
        );
    }
    if names(&IF_NONE_MATCH) == Some(true) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        response.headers_mut().insert(ETAG, value(&etag(blob)));
        return Some(response);
    }
    None
}

/// The range that is asked for (RFC 9110 s14). What is not one range of bytes is not looked
/// at, and the whole is sent, as that section has it.
fn asked_range(headers: &HeaderMap, blob: BlobId) -> Option<ByteRange> {
    let text = headers.get(RANGE)?.to_str().ok()?;
    let unchanged = headers.get(IF_RANGE).is_none_or(|tag| tag.as_bytes() == etag(blob).as_bytes());
    let range = text.strip_prefix("bytes=").filter(|_| unchanged)?.trim();
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|c| c.is_ascii_digit()));
    match (first.trim(), last.trim()) {
        ("", last) => Some(ByteRange::Last(number(last)?)),
        (first, "") => Some(ByteRange::From(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(ByteRange::Inclusive(first, last))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Option<ByteRange> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, value(text));
        asked_range(&headers, BlobId::from_bytes([1; 16]))
    }

    #[test]
    fn one_range_of_bytes_is_taken_and_nothing_else() {
        assert_eq!(range("bytes=0-0"), Some(ByteRange::Inclusive(0, 0)));
        assert_eq!(range("bytes=5-"), Some(ByteRange::From(5)));
        assert_eq!(range("bytes=-5"), Some(ByteRange::Last(5)));
        for bad in ["bytes=5-4", "bytes=0-1,3-4", "bytes=-", "bytes=+1-2", "lines=0-1", "bytes", "bytes=a-b"]
        {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_range_of_another_version_is_none() {
        let blob = BlobId::from_bytes([1; 16]);
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, value("bytes=0-0"));
        headers.insert(IF_RANGE, value(&etag(blob)));
        assert!(asked_range(&headers, blob).is_some());
        headers.insert(IF_RANGE, value("\"other\""));
        assert_eq!(asked_range(&headers, blob), None);
    }

    #[test]
    fn tags_decide() {
        let blob = BlobId::from_bytes([1; 16]);
        let with = |name: HeaderName, tag: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value(tag));
            precondition(&headers, blob).map(|response| response.status().as_u16())
        };
        assert_eq!(with(IF_NONE_MATCH, &etag(blob)), Some(304));
        assert_eq!(with(IF_NONE_MATCH, &format!("\"x\", W/{}", etag(blob))), Some(304));
        assert_eq!(with(IF_NONE_MATCH, "*"), Some(304));
        assert_eq!(with(IF_NONE_MATCH, "\"x\""), None);
        assert_eq!(with(IF_MATCH, "\"x\""), Some(412));
        assert_eq!(with(IF_MATCH, &etag(blob)), None);
    }

    #[test]
    fn what_is_no_header_is_encoded_and_read_back() {
        for text in ["scans/ct-1", "Größe, 100 %", "a=b;c\r\nSet-Cookie: x", "\u{1F5DD}"] {
            let coded = encoded(text);
            assert!(HeaderValue::from_str(&coded).is_ok_and(|value| value.to_str().is_ok()), "{coded}");
            assert_eq!(decoded(coded.as_bytes()).unwrap(), text);
        }
        assert!(decoded(b"%ff").is_err());
    }

    #[tokio::test]
    async fn a_body_that_is_late_or_of_another_length_is_none() {
        let late = Body::from_stream(stream::pending::<io::Result<Bytes>>());
        let mut late = Box::pin(pieces(late, Duration::from_millis(1), None));
        assert_eq!(late.next().await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(late.next().await.is_none());
        for (expected, good) in [(None, true), (Some(3), true), (Some(2), false), (Some(4), false)] {
            let read = pieces(Body::from("abc"), Duration::from_secs(60), expected);
            assert_eq!(read.try_collect::<Vec<_>>().await.is_ok(), good, "{expected:?}");
        }
    }
}
