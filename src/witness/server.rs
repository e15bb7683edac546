//! A witness over HTTP, as c2sp.org/tlog-witness has it: the server.
//!
//! | request | answer |
//! |---|---|
//! | `POST /add-checkpoint` | the cosignature, or the status of a [`Refusal`] |
//! | `GET /<SHA-256 of the origin>/checkpoint` | the last cosigned checkpoint, or 404 |
//!
//! HTTP/1.1 without TLS: what is answered is signed, and nothing is secret. It is
//! for a reverse proxy to add TLS, a path in front, and limits by address.
//!
//! Separate from the rules and the state, which know nothing of HTTP. Requests come
//! from anyone: all of them together are bounded in memory, connections and time,
//! and nothing of them gets into an [`Event`] but the names of known logs.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::http::TREE_SIZE;
use super::state::{CosignError, Ledger};
use super::{AddCheckpoint, KnownLogs, MAX_REQUEST_LEN, Refusal};
use crate::error::{Error, ErrorKind};
use crate::merkle::Hash;
use crate::time::Clock;
use crate::tlog::NamedKey;
use crate::tlog::checkpoint::Origin;

/// How many connections are open at a time. More wait to be accepted.
pub const MAX_CONNECTIONS: usize = 64;

/// How long a client may take to send the head of a request, or to begin the next one.
pub const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long it may take to send the body.
pub const BODY_TIME: Duration = Duration::from_secs(10);

/// How long a connection is kept in all.
pub const CONNECTION_TIME: Duration = Duration::from_secs(300);

/// How long a request that is under way may still take when its connection or the
/// server ends.
pub const GRACE_TIME: Duration = Duration::from_secs(5);

/// The longest head of a request, in bytes.
const MAX_HEAD_LEN: usize = 16 * 1024;

/// How long it waits where the system has no connection to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What the operator should hear of.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A log signed two trees of one size. Both are kept as evidence.
    Alarm {
        /// The log, one of those that are known.
        origin: Origin,
    },
    /// A checkpoint that a log signed came with a proof that does not hold. The log was
    /// rewritten, or a stranger made up a proof: the log's operator knows whether it
    /// sent it. The first such request is kept.
    Unproven {
        /// The log, one of those that are known.
        origin: Origin,
    },
    /// The state cannot be read or written, and something was not cosigned for it.
    Fault(Error),
}

/// What hears of events. It is called from the middle of things, and returns at once.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// A witness: its key, the logs that it knows, and what it remembers of them.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    ledger: Ledger,
    logs: KnownLogs,
    key: NamedKey,
    clock: Arc<dyn Clock>,
    listener: Listener,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("key", &self.0.key).field("logs", &self.0.logs).finish_non_exhaustive()
    }
}

impl Server {
    /// A witness that cosigns `logs` with `key`, whose state `ledger` is.
    #[must_use]
    pub fn new(
        ledger: Ledger,
        logs: KnownLogs,
        key: NamedKey,
        clock: Arc<dyn Clock>,
        listener: Listener,
    ) -> Self {
        Self(Arc::new(Inner { ledger, logs, key, clock, listener }))
    }

    /// Answers on `socket` until `stop` is done; then no connection is accepted any
    /// more, and those that are open get [`GRACE_TIME`] for the request they are at.
    ///
    /// # Cancel safety
    /// Dropped, connections end at once. What was being stored is stored.
    pub async fn serve(&self, socket: TcpListener, stop: impl Future<Output = ()>) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let (stopping, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot.expect("the semaphore is never closed"), socket.accept().await)
            };
            tokio::select! {
                () = &mut stop => break,
                (slot, accepted) = accepted => match accepted {
                    Ok((stream, _)) => {
                        let (server, stopped) = (self.clone(), stopped.clone());
                        connections.spawn(async move {
                            server.connection(stream, stopped).await;
                            drop(slot);
                        });
                    }
                    // No file descriptors, or a client that went away at once.
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
            }
            while connections.try_join_next().is_some() {}
        }
        drop(socket);
        drop(stopped);
        drop(stopping);
        while connections.join_next().await.is_some() {}
    }

    async fn connection(&self, stream: TcpStream, mut stopped: watch::Receiver<()>) {
        let answer = service_fn(|request| async move { Ok::<_, Infallible>(self.answer(request).await) });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(MAX_HEAD_LEN)
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = pin!(connection);
        // How a connection fails is its client's business.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = sleep(CONNECTION_TIME) => {}
            _ = stopped.changed() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(GRACE_TIME, connection).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if path == "/add-checkpoint" {
            if request.method() != Method::POST {
                return not_allowed("POST");
            }
            return self.add_checkpoint(request.into_body()).await;
        }
        match path.strip_prefix('/').and_then(|path| path.strip_suffix("/checkpoint")).and_then(log_name) {
            Some(_) if request.method() != Method::GET => not_allowed("GET"),
            Some(name) => self.checkpoint(name).await,
            None => status(StatusCode::NOT_FOUND),
        }
    }

    async fn add_checkpoint(&self, body: Incoming) -> Response<Full<Bytes>> {
        let body = match timeout(BODY_TIME, Limited::new(body, MAX_REQUEST_LEN).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return status(StatusCode::PAYLOAD_TOO_LARGE),
            Ok(Err(_)) => return status(StatusCode::BAD_REQUEST),
            Err(_) => return status(StatusCode::REQUEST_TIMEOUT),
        };
        let request = match AddCheckpoint::parse(&body) {
            Ok(request) => request,
            Err(refusal) => return refused(refusal),
        };
        let inner = Arc::clone(&self.0);
        // Should the client go away, it is stored all the same: half a change is none.
        let cosigned = self.blocking(move || {
            let origin = request.checkpoint().checkpoint().origin().clone();
            let cosigned = inner.ledger.cosign(&request, &inner.logs, &inner.key, inner.clock.now());
            (origin, cosigned)
        });
        match cosigned.await {
            Some((_, Ok(cosignature))) => text(StatusCode::OK, TEXT, format!("{cosignature}\n")),
            Some((origin, Err(CosignError::Refused(refusal)))) => {
                match refusal {
                    Refusal::Forked => (self.0.listener)(Event::Alarm { origin }),
                    Refusal::Unproven => (self.0.listener)(Event::Unproven { origin }),
                    _ => {}
                }
                refused(refusal)
            }
            Some((_, Err(CosignError::State(error)))) => self.fault(error),
            None => status(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    async fn checkpoint(&self, name: Hash) -> Response<Full<Bytes>> {
        let inner = Arc::clone(&self.0);
        match self.blocking(move || inner.ledger.last(name)).await {
            Some(Ok(Some(checkpoint))) => text(StatusCode::OK, TEXT, checkpoint.to_string()),
            Some(Ok(None)) => status(StatusCode::NOT_FOUND),
            Some(Err(error)) => self.fault(error),
            None => status(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// Runs `work` where it may block on the disk. `None` if it panicked, or the
    /// program is stopping.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => Some(done),
            Err(_) => {
                let message = "a request was given up half way";
                (self.0.listener)(Event::Fault(Error::new(ErrorKind::Unavailable, message)));
                None
            }
        }
    }

    fn fault(&self, error: Error) -> Response<Full<Bytes>> {
        (self.0.listener)(Event::Fault(error));
        status(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

fn refused(refusal: Refusal) -> Response<Full<Bytes>> {
    let code = StatusCode::from_u16(refusal.status()).expect("the statuses are those of HTTP");
    match refusal {
        Refusal::Conflict { size } => text(code, HeaderValue::from_static(TREE_SIZE), format!("{size}\n")),
        refusal => text(code, TEXT, format!("{refusal}\n")),
    }
}

fn not_allowed(method: &'static str) -> Response<Full<Bytes>> {
    let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    text(code, TEXT, format!("{}\n", code.canonical_reason().unwrap_or_default()))
}

fn text(code: StatusCode, content_type: HeaderValue, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn log_name(text: &str) -> Option<Hash> {
    Some(Hash::from_bytes(HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()?))
}
