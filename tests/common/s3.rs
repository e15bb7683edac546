//! An S3 in this process, over HTTP on loopback, that fails on demand: for what only the wire
//! shows, as how a real client takes 409 and 412 apart.
//!
//! One bucket of small objects. It checks no signature. A fault is chosen for each request by a
//! function of what it is.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};

pub const BUCKET: &str = "bucket";

/// What a request is.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Counted from 1.
    pub number: u64,
    pub method: Method,
    /// The key, empty for a list.
    pub key: String,
    /// What a list is of.
    pub prefix: String,
    /// How many requests of this method there were for this key, this one included.
    pub times: u64,
}

impl Seen {
    pub fn is_write(&self) -> bool {
        self.method == Method::PUT
    }
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// 409 ConditionalRequestConflict, and nothing changes.
    Conflict,
    /// It takes effect, and 409 is the answer.
    ConflictAfter,
    /// 409 OperationAborted.
    Aborted,
    /// 503 SlowDown.
    Busy,
    /// No answer, and nothing changes.
    Hang,
    /// It takes effect, and there is no answer.
    HangAfter,
    /// It takes effect, and the connection is closed.
    LoseAnswer,
    /// It takes effect, and then again; the second answer is given.
    Double,
    /// A server that is not one to build on.
    Lax(Lax),
}

/// What a server does not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lax {
    /// `If-None-Match` is ignored.
    NoneMatch,
    /// `If-None-Match` is looked at when a request arrives, and not when its object is stored.
    Racy,
    /// `If-Match` is ignored.
    Match,
    /// `Range` is ignored: 200 and the whole object.
    Range,
    /// `Range` is answered with 206, its own header, and the first bytes of the object.
    WrongRange,
    /// Objects are read as they were when the server was frozen.
    Read,
    /// Objects are listed as they were when the server was frozen.
    List,
}

type Choose = dyn Fn(&Seen) -> Fault + Send + Sync;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    frozen: BTreeMap<String, Bytes>,
    seen: BTreeMap<(Method, String), u64>,
    statuses: BTreeMap<u16, u64>,
}

/// See the module.
#[derive(Clone)]
pub struct S3 {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    choose: Arc<Mutex<Arc<Choose>>>,
    requests: Arc<AtomicU64>,
    /// What it says the time is, if not what it is.
    date: Arc<Mutex<Option<&'static str>>>,
}

impl S3 {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let s3 = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
            choose: Arc::new(Mutex::new(Arc::new(|_: &Seen| Fault::None))),
            requests: Arc::default(),
            date: Arc::default(),
        };
        let server = s3.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(server.clone().serve(stream));
            }
        });
        s3
    }

    /// Requests from now on fail so.
    pub fn fail(&self, choose: impl Fn(&Seen) -> Fault + Send + Sync + 'static) {
        *self.choose.lock().unwrap() = Arc::new(choose);
    }

    pub fn heal(&self) {
        self.fail(|_| Fault::None);
    }

    /// What stale answers show from now on.
    pub fn freeze(&self) {
        let mut state = self.state.lock().unwrap();
        state.frozen = state.objects.clone();
    }

    /// From now on every answer has this `Date`, or the right one.
    pub fn set_date(&self, date: Option<&'static str>) {
        *self.date.lock().unwrap() = date;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// How often this status was answered.
    pub fn answered(&self, status: u16) -> u64 {
        self.state.lock().unwrap().statuses.get(&status).copied().unwrap_or(0)
    }

    pub fn keys(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    async fn serve(self, stream: TcpStream) {
        let service = service_fn(move |request| self.clone().answer(request));
        // A connection that is closed on purpose ends so.
        let _ =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
        let path = percent(parts.uri.path());
        let key = path.trim_start_matches('/').strip_prefix(BUCKET).unwrap_or("").trim_start_matches('/');
        let method = parts.method.clone();
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let times = {
            let mut state = self.state.lock().unwrap();
            let times = state.seen.entry((method.clone(), key.to_owned())).or_default();
            *times += 1;
            *times
        };
        let query = parts.uri.query().unwrap_or("").split('&');
        let prefix =
            query.filter_map(|pair| pair.strip_prefix("prefix=")).map(percent).next().unwrap_or_default();
        let seen = Seen { number, method, key: key.to_owned(), prefix, times };
        let choose = Arc::clone(&self.choose.lock().unwrap());
        let fault = choose(&seen);
        let work = || self.work(&parts, key, &body);
        let mut response = match fault {
            Fault::Lax(lax) => self.lax(lax, parts.clone(), key, &body).await,
            Fault::None => work(),
            Fault::Conflict => error(409, "ConditionalRequestConflict"),
            Fault::ConflictAfter => {
                work();
                error(409, "ConditionalRequestConflict")
            }
            Fault::Aborted => error(409, "OperationAborted"),
            Fault::Busy => error(503, "SlowDown"),
            Fault::Hang => std::future::pending().await,
            Fault::HangAfter => {
                work();
                std::future::pending().await
            }
            Fault::LoseAnswer => {
                work();
                return Err(Closed);
            }
            Fault::Double => {
                work();
                work()
            }
        };
        if let Some(date) = *self.date.lock().unwrap() {
            response.headers_mut().insert("date", hyper::header::HeaderValue::from_static(date));
        }
        *self.state.lock().unwrap().statuses.entry(response.status().as_u16()).or_default() += 1;
        Ok(response)
    }

    async fn lax(
        &self,
        lax: Lax,
        mut parts: hyper::http::request::Parts,
        key: &str,
        body: &Bytes,
    ) -> Response<Full<Bytes>> {
        let is_read = matches!(parts.method, Method::GET | Method::HEAD);
        match lax {
            Lax::NoneMatch => drop(parts.headers.remove("if-none-match")),
            Lax::Match => drop(parts.headers.remove("if-match")),
            Lax::Range => drop(parts.headers.remove("range")),
            Lax::Racy if parts.headers.contains_key("if-none-match") => {
                let exists = self.state.lock().unwrap().objects.contains_key(key);
                if !exists {
                    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                    parts.headers.remove("if-none-match");
                }
            }
            Lax::WrongRange if is_read && parts.headers.contains_key("range") => {
                let mut response = self.work(&parts, key, body);
                let whole = self.state.lock().unwrap().objects.get(key).cloned().unwrap_or_default();
                let length = response.body().size_hint().exact().unwrap_or(0) as usize;
                if response.status() == 206 {
                    *response.body_mut() = Full::new(whole.slice(..length));
                }
                return response;
            }
            Lax::Read | Lax::List if is_read && key.is_empty() == (lax == Lax::List) => {
                let mut frozen = self.state.lock().unwrap().frozen.clone();
                return work_on(&mut frozen, &parts, key, body);
            }
            Lax::Racy | Lax::WrongRange | Lax::Read | Lax::List => {}
        }
        self.work(&parts, key, body)
    }

    fn work(&self, parts: &hyper::http::request::Parts, key: &str, body: &Bytes) -> Response<Full<Bytes>> {
        work_on(&mut self.state.lock().unwrap().objects, parts, key, body)
    }
}

fn work_on(
    objects: &mut BTreeMap<String, Bytes>,
    parts: &hyper::http::request::Parts,
    key: &str,
    body: &Bytes,
) -> Response<Full<Bytes>> {
    {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        if key.is_empty() && parts.method == Method::GET {
            return list(objects, parts.uri.query().unwrap_or(""));
        }
        let there = objects.get(key).cloned();
        match parts.method {
            Method::PUT => {
                let exists = header("if-none-match") == Some("*") && there.is_some();
                let wants = header("if-match").map(str::to_owned);
                let differs = wants.is_some_and(|wants| there.as_ref().map(etag) != Some(wants));
                if exists || differs {
                    return error(412, "PreconditionFailed");
                }
                objects.insert(key.to_owned(), body.clone());
                Response::builder().header("etag", etag(body)).body(Full::default()).unwrap()
            }
            Method::GET | Method::HEAD => {
                let Some(found) = there else { return error(404, "NoSuchKey") };
                let size = found.len();
                let range = header("range").and_then(|range| wanted(range, size));
                let (status, from, to) = match (header("range"), range) {
                    (None, _) => (200, 0, size),
                    (Some(_), Some((from, to))) => (206, from, to),
                    (Some(_), None) => return error(416, "InvalidRange"),
                };
                let mut response = Response::builder()
                    .status(status)
                    .header("etag", etag(&found))
                    .header("last-modified", "Sun, 22 Nov 2026 02:26:13 GMT")
                    .header("content-length", to - from);
                if status == 206 {
                    response = response
                        .header("content-range", format!("bytes {from}-{}/{size}", to.saturating_sub(1)));
                }
                let body = if parts.method == Method::GET { found.slice(from..to) } else { Bytes::new() };
                response.body(Full::new(body)).unwrap()
            }
            Method::DELETE => {
                objects.remove(key);
                Response::builder().status(204).body(Full::default()).unwrap()
            }
            _ => error(501, "NotImplemented"),
        }
    }
}

/// The service gives up a connection without an answer.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed")
    }
}

impl std::error::Error for Closed {}

impl From<Infallible> for Closed {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

fn etag(body: &Bytes) -> String {
    format!("\"{}\"", data_encoding::HEXLOWER.encode(&Sha256::digest(body)[..16]))
}

fn error(status: u16, code: &str) -> Response<Full<Bytes>> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
    let status = StatusCode::from_u16(status).unwrap();
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

/// The first and the end of `bytes=a-b`, `bytes=a-` or `bytes=-n`.
fn wanted(range: &str, size: usize) -> Option<(usize, usize)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    if from.is_empty() {
        return Some((size.saturating_sub(to.parse().ok()?), size));
    }
    let from: usize = from.parse().ok()?;
    let to = if to.is_empty() { size } else { (to.parse::<usize>().ok()? + 1).min(size) };
    (from < size).then_some((from, to))
}

fn list(objects: &BTreeMap<String, Bytes>, query: &str) -> Response<Full<Bytes>> {
    let asked = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        pair.map(percent).unwrap_or_default()
    };
    let (prefix, delimiter, after) = (asked("prefix"), asked("delimiter"), asked("start-after"));
    let (mut contents, mut folders) = (String::new(), Vec::new());
    for (key, body) in objects {
        let Some(rest) = key.strip_prefix(&prefix) else { continue };
        if *key <= after && !after.is_empty() {
            continue;
        }
        if !delimiter.is_empty()
            && let Some((folder, _)) = rest.split_once(&delimiter)
        {
            let folder = format!("{prefix}{folder}{delimiter}");
            if folders.last() != Some(&folder) {
                folders.push(folder);
            }
            continue;
        }
        contents += &format!(
            "<Contents><Key>{key}</Key><LastModified>2026-11-22T02:26:13.000Z</LastModified>\
             <ETag>{}</ETag><Size>{}</Size></Contents>",
            etag(body).replace('"', "&quot;"),
            body.len()
        );
    }
    let folders: String = folders
        .iter()
        .map(|folder| format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"))
        .collect();
    let body =
        format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}{folders}</ListBucketResult>");
    Response::builder().body(Full::new(body.into())).unwrap()
}

fn percent(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}
