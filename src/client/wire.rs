//! Connections to a daemon, and one request on each.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::DaemonUrl;
use super::tls;
use crate::error::{Error, ErrorKind, Result};

/// How long a connection and its handshake may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long the reason why a connection ended may take.
const REASON: Duration = Duration::from_secs(1);

/// How many connections are kept for the next request.
const IDLE: usize = 4;

/// What is sent.
pub(super) type Outgoing = UnsyncBoxBody<Bytes, io::Error>;

/// A daemon that connections are made to.
pub(super) struct Wire {
    to: DaemonUrl,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// What is in the `Host` of each request (RFC 9110 s7.2).
    host: String,
    idle: Mutex<Vec<Link>>,
}

/// One connection. Dropped, it is closed at once, whatever is under way on it.
pub(super) struct Link {
    sender: SendRequest<Outgoing>,
    /// What moves its bytes: the error that it ended with, if it was one.
    driver: JoinHandle<Option<hyper::Error>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Wire {
    pub(super) fn new(to: DaemonUrl, connector: Option<TlsConnector>) -> Result<Self> {
        let (host, tls) = match (&to, connector) {
            (DaemonUrl::Https { host, port }, Some(connector)) => {
                let unfit = |_| Error::new(ErrorKind::InvalidInput, "the daemon's host is no name of a host");
                let name = ServerName::try_from(host.clone()).map_err(unfit)?;
                let shown =
                    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                (shown, Some((connector, name)))
            }
            _ => ("localhost".to_owned(), None),
        };
        Ok(Self { to, tls, host, idle: Mutex::default() })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// A connection that is kept, if it is open still.
    pub(super) async fn kept(&self) -> Option<Link> {
        loop {
            let mut link = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if link.sender.ready().await.is_ok() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(&self, link: Link) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE && !link.sender.is_closed() {
            idle.push(link);
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if nobody answers; [`ErrorKind::Configuration`] if who answers
    /// is not who it should be.
    pub(super) async fn connect(&self) -> Result<Link> {
        let late = || Error::new(ErrorKind::Unavailable, "the daemon did not answer in time");
        timeout(CONNECT, self.connected()).await.unwrap_or_else(|_| Err(late()))
    }

    async fn connected(&self) -> Result<Link> {
        let unreachable = |error: io::Error| {
            Error::new(ErrorKind::Unavailable, "the daemon cannot be reached").with_source(error)
        };
        match (&self.to, &self.tls) {
            (DaemonUrl::Unix(path), _) => link(UnixStream::connect(path).await.map_err(unreachable)?).await,
            (DaemonUrl::Https { host, port }, Some((connector, name))) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
                // Without it, small requests wait for the daemon's acknowledgement.
                let _ = stream.set_nodelay(true);
                let secured = connector.connect(name.clone(), stream).await;
                link(secured.map_err(|error| tls::refused(&error).unwrap_or_else(|| unreachable(error)))?)
                    .await
            }
            (DaemonUrl::Https { .. }, None) => {
                Err(Error::new(ErrorKind::Configuration, "a daemon at https:// is reached over TLS"))
            }
        }
    }
}

async fn link(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Link> {
    let (sender, connection) = Builder::new().handshake(TokioIo::new(stream)).await.map_err(broke)?;
    let driver = tokio::spawn(async move { connection.await.err() });
    Ok(Link { sender, driver })
}

impl Link {
    /// Sends a request, and waits for the head of its answer.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the daemon does not accept the client's certificate, which with
    /// TLS 1.3 it says after the handshake (RFC 8446 s4.4.2.4); else [`ErrorKind::Unavailable`].
    pub(super) async fn send(&mut self, request: Request<Outgoing>) -> Result<Response<Incoming>> {
        let error = match self.sender.send_request(request).await {
            Ok(response) => return Ok(response),
            Err(error) => broke(error),
        };
        // The request may have met a connection that had ended before, for a reason of its own.
        match timeout(REASON, &mut self.driver).await {
            Ok(Ok(Some(reason))) => Err(tls::refused(&reason).unwrap_or(error)),
            _ => Err(error),
        }
    }
}

/// A connection that ended before its answer did.
pub(super) fn broke(error: hyper::Error) -> Error {
    tls::refused(&error).unwrap_or_else(|| {
        Error::new(ErrorKind::Unavailable, "the connection to the daemon broke").with_source(error)
    })
}
