//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::pace::{Answers, Pace};
use super::places::{Holder, Places};
use super::{Accepted, Limits, stopped};
use crate::daemon::peer::{Peer, PeerCredential};
use crate::daemon::tls::H2;
use crate::system::SystemClock;
use crate::time::Clock;

/// How long a connection with nothing under way may take to close.
const CLOSING: Duration = Duration::from_secs(5);

/// The least that hyper takes as the length of a head, in bytes.
const MIN_HEAD_LEN: u32 = 8192;

/// What one connection may buffer of what is sent, on each stream, in bytes. HTTP/2.
const SEND_BUFFER: usize = 64 * 1024;

/// What a client may send ahead of what is read, in bytes: on each stream, and on all of a
/// connection. HTTP/2.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What lets connections in.
pub(super) struct Door {
    app: axum::Router,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
}

/// Which HTTP is spoken.
#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
    /// What the client begins with.
    Either,
}

impl Door {
    pub(super) fn new(app: axum::Router, limits: Limits, shutdown: watch::Receiver<bool>) -> Self {
        Self { app, limits, shutdown }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Sees to a connection until it ends. How it fails is its client's business.
    pub(super) async fn admit(&self, accepted: Accepted, places: &Places) {
        match accepted {
            Accepted::Tls { stream, from, tls } => {
                let Some(_place) = places.take(Holder::at(from.ip())) else { return too_many() };
                // Without it, small answers wait for the client's acknowledgement.
                let _ = stream.set_nodelay(true);
                let handshake = TlsAcceptor::from(tls.current()).accept(stream);
                let mut shutdown = self.shutdown.clone();
                let stream = tokio::select! {
                    stream = timeout(self.limits.handshake, handshake) => stream,
                    () = stopped(&mut shutdown) => return,
                };
                let stream = match stream {
                    Ok(Ok(stream)) => stream,
                    // The client's certificate, mostly. What it sent is not repeated.
                    Ok(Err(_)) => return tracing::debug!("a TLS handshake has failed"),
                    Err(_) => return tracing::debug!("a TLS handshake has taken too long"),
                };
                let connection = stream.get_ref().1;
                let peer = match Peer::of_tls(from.ip(), connection) {
                    Ok(peer) => peer,
                    Err(error) => return tracing::debug!(reason = %error, "a client is refused"),
                };
                // HTTP/2 is agreed on in the handshake or not spoken: RFC 9113 s3.2.
                let protocol = match connection.alpn_protocol() == Some(H2) {
                    true => Protocol::Http2,
                    false => Protocol::Http1,
                };
                self.serve(stream, peer, protocol).await;
            }
            Accepted::Unix(stream) => match Peer::of_unix(&stream) {
                Ok(peer) => {
                    let PeerCredential::Unix { uid } = peer.credential else { return };
                    let Some(_place) = places.take(Holder::User(uid)) else { return too_many() };
                    self.serve(stream, peer, Protocol::Either).await;
                }
                Err(error) => tracing::debug!(reason = %error, "a client is refused"),
            },
        }
    }

    async fn serve<S>(&self, stream: S, peer: Peer, protocol: Protocol)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (activity, answers) = (Activity::default(), Answers::default());
        let age = match &peer.credential {
            // It is not proven any more that they are who they are.
            PeerCredential::Certificate(shown) => {
                let left = shown.not_after().micros().saturating_sub(SystemClock.now().micros());
                self.limits.connection_age.min(Duration::from_micros(left))
            }
            PeerCredential::Unix { .. } => self.limits.connection_age,
        };
        let app = TowerToHyperService::new(self.app.clone());
        let answer = service_fn(|mut request: Request<Incoming>| {
            let (busy, pace) = (activity.begin(), answers.begin());
            request.extensions_mut().insert(peer.clone());
            let answered = app.call(request);
            async move {
                let response: Response<Body> = answered.await?;
                Ok::<_, Infallible>(response.map(|body| Tracked { body, pace, _busy: busy }))
            }
        });
        let builder = self.builder(protocol);
        let connection = builder.serve_connection(TokioIo::new(stream), answer);
        tokio::select! {
            () = self.see_through(connection, &activity, age) => {}
            // All of it: an HTTP/2 stream cannot be ended from here, and what was made for it
            // would stay in memory.
            () = answers.unread_for(self.limits.write_idle) => {
                tracing::warn!("a client takes nothing of its answer: its connection is cut");
            }
        }
    }

    fn builder(&self, protocol: Protocol) -> auto::Builder<TokioExecutor> {
        let limits = &self.limits;
        let head_len = limits.head_len.max(MIN_HEAD_LEN);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.request_head)
            .max_buf_size(usize::try_from(head_len).unwrap_or(usize::MAX))
            .max_headers(limits.header_fields);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(head_len)
            .keep_alive_interval(limits.ping)
            .keep_alive_timeout(limits.ping)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER);
        match protocol {
            Protocol::Http1 => builder.http1_only(),
            Protocol::Http2 => builder.http2_only(),
            Protocol::Either => builder,
        }
    }

    /// Sees a connection through: until its client ends it, it is idle for too long, it is too
    /// old, or the server ends. In the last three cases what is under way is finished.
    async fn see_through<C: GracefulConnection>(&self, connection: C, activity: &Activity, age: Duration) {
        let mut shutdown = self.shutdown.clone();
        let mut connection = pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = activity.idle_for(self.limits.idle) => {}
            () = sleep(age) => {}
            () = stopped(&mut shutdown) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = activity.idle_for(CLOSING) => {}
        }
    }
}

/// What a connection is at.
#[derive(Clone)]
struct Activity(watch::Sender<usize>);

impl Default for Activity {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Activity {
    /// A request begins. It is over when what is returned is dropped.
    fn begin(&self) -> Busy {
        self.0.send_modify(|requests| *requests += 1);
        Busy(self.0.clone())
    }

    /// Until nothing has happened for `span`, and nothing is under way.
    async fn idle_for(&self, span: Duration) {
        let mut requests = self.0.subscribe();
        loop {
            let idle = *requests.borrow_and_update() == 0;
            // Every beginning and end counts as a change, whatever the number is after it. There
            // is a sender as long as `self`.
            match idle {
                true if timeout(span, requests.changed()).await.is_err() => return,
                true => {}
                false => drop(requests.changed().await),
            }
        }
    }
}

/// A request that is under way: until its answer's last byte was handed over.
struct Busy(watch::Sender<usize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

/// The body of an answer, with what tells how it is taken and when it is done.
struct Tracked {
    body: Body,
    pace: Pace,
    _busy: Busy,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.pace.asked();
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_ready() {
            self.pace.handed_over();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn too_many() {
    tracing::warn!("a peer has too many connections: this one is closed");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the time that tokio has paused")]
    #[tokio::test(start_paused = true)]
    async fn idle_is_counted_from_the_end_of_the_last_request() {
        let activity = Activity::default();
        let span = Duration::from_secs(10);
        let begun = tokio::time::Instant::now();
        let requests = async {
            sleep(Duration::from_secs(9)).await;
            let long = activity.begin();
            sleep(Duration::from_secs(60)).await;
            drop(activity.begin());
            drop(long);
            sleep(Duration::from_secs(9)).await;
            drop(activity.begin());
        };
        tokio::join!(requests, activity.idle_for(span));
        assert_eq!(begun.elapsed().as_secs(), 9 + 60 + 9 + 10);
    }
}
