//! The sockets: what is accepted on them, how many at a time, and for how long.
//!
//! TCP with TLS and client certificates ([`tls`](super::tls)), and Unix sockets; TCP without
//! TLS is not to be had. HTTP/1.1 and HTTP/2. A request is handed on with the
//! [`Peer`](super::peer::Peer) in its extensions.
//!
//! Separate from what is answered. Everyone can connect: what they can use up before they have
//! shown a certificate is a place in a bounded number of connections, for
//! [`Limits::handshake`]. Afterwards all of it is bounded by [`Limits`] but the bodies of requests and the
//! length of answers, which are the application's to bound, as it alone knows what they are.
//!
//! Invariants: no request without a peer. One peer never has all places. Places are for each
//! socket, so that a flooded network leaves the Unix socket free.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::tls::ReloadingTls;
use crate::error::{Error, ErrorKind, Result};

mod activation;
mod connection;
mod pace;
mod places;
mod unix;

pub use activation::Activated;
use connection::Door;
use places::Places;
use unix::UnixSocket;

/// How long it waits where the system has no connection to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection, and all of them together, may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many connections are open at a time, on each socket. More wait to be accepted.
    pub connections: usize,
    /// How many of them are one peer's: an IPv4 address, an IPv6 network of 64 bits, or a user
    /// of this host. More are closed at once.
    pub connections_per_peer: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long the head of a request may take, HTTP/1.1.
    pub request_head: Duration,
    /// How long a connection is kept without a request. With HTTP/1.1 it is
    /// [`Limits::request_head`] where that is shorter.
    pub idle: Duration,
    /// How long a connection takes new requests. It ends, too, when the client's certificate
    /// does. What is under way then is finished.
    pub connection_age: Duration,
    /// How long a client may take nothing of an answer, while more of it is there. Then it is cut:
    /// after a quarter more of this time at most.
    pub write_idle: Duration,
    /// How long what is under way may still take when the server ends.
    pub grace: Duration,
    /// How long the head of a request is at most, in bytes, and at least 8192.
    pub head_len: u32,
    /// How many header fields one has at most, HTTP/1.1.
    pub header_fields: usize,
    /// How many requests a connection has under way at a time, HTTP/2.
    pub streams: u32,
    /// How often a client is asked whether it is still there, and how long it may take to
    /// say so, HTTP/2.
    pub ping: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_peer: 64,
            handshake: Duration::from_secs(10),
            request_head: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            connection_age: Duration::from_secs(60 * 60),
            write_idle: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            head_len: 32 * 1024,
            header_fields: 64,
            streams: 64,
            ping: Duration::from_secs(20),
        }
    }
}

/// How serving has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// How many connections were cut, as they were not done within [`Limits::grace`].
    pub cut: usize,
}

/// Sockets that are listened on, and not accepted from yet.
#[derive(Default)]
pub struct Listeners {
    sockets: Vec<Socket>,
}

enum Socket {
    Tls { listener: TcpListener, tls: Arc<ReloadingTls> },
    Unix(UnixSocket),
}

/// A connection at its beginning.
enum Accepted {
    Tls { stream: TcpStream, from: SocketAddr, tls: Arc<ReloadingTls> },
    Unix(UnixStream),
}

impl Listeners {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens on a TCP address, with TLS. Port 0 is one that is free
    /// ([`Listeners::addresses`] tells).
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where the address cannot be listened on.
    pub async fn bind_tls(&mut self, address: SocketAddr, tls: Arc<ReloadingTls>) -> Result<()> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Error::new(ErrorKind::Configuration, "a TCP address cannot be listened on").with_source(error)
        })?;
        self.sockets.push(Socket::Tls { listener, tls });
        Ok(())
    }

    /// Listens on a Unix socket at `path`, which its owner and its group may use. A socket that
    /// was left there is taken away if nobody answers on it.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where somebody answers on it, or something else is there;
    /// [`ErrorKind::Configuration`] where it cannot be made.
    ///
    /// # Cancel safety
    /// Dropped, an empty directory may be left beside `path`.
    pub async fn bind_unix(&mut self, path: &Path) -> Result<()> {
        self.sockets.push(Socket::Unix(UnixSocket::bind(path).await?));
        Ok(())
    }

    /// Takes the sockets that systemd has handed over, in a runtime. How many they are is
    /// returned.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where one is not a listening TCP or Unix stream socket, or
    /// is a TCP one and there is no TLS for it.
    pub fn adopt(&mut self, activated: Activated, tls: Option<&Arc<ReloadingTls>>) -> Result<usize> {
        let sockets = activated.into_sockets(tls)?;
        let count = sockets.len();
        self.sockets.extend(sockets);
        Ok(count)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// The TCP addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let address = |socket: &Socket| match socket {
            Socket::Tls { listener, .. } => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        };
        self.sockets.iter().filter_map(address).collect()
    }

    /// Serves `app` on all of them until `shutdown` is `true` or its sender is gone. Then
    /// nothing is accepted any more, and what is under way is finished, or cut after
    /// [`Limits::grace`]. While it serves it looks whether the TLS files have changed.
    ///
    /// # Cancel safety
    /// Dropped, connections are cut.
    pub async fn serve(self, app: axum::Router, limits: Limits, shutdown: watch::Receiver<bool>) -> Drained {
        let mut watchers = JoinSet::new();
        let mut watched: Vec<Arc<ReloadingTls>> = Vec::new();
        for socket in &self.sockets {
            if let Socket::Tls { tls, .. } = socket
                && !watched.iter().any(|other| Arc::ptr_eq(other, tls))
            {
                watched.push(Arc::clone(tls));
                watchers.spawn(Arc::clone(tls).watch());
            }
        }
        let mut loops = JoinSet::new();
        for socket in self.sockets {
            let door = Door::new(app.clone(), limits.clone(), shutdown.clone());
            loops.spawn(accept(socket, Arc::new(door), shutdown.clone()));
        }
        let mut drained = Drained { cut: 0 };
        while let Some(ended) = loops.join_next().await {
            drained.cut += ended.expect("accepting neither panics nor is aborted");
        }
        drained
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").field("sockets", &self.sockets.len()).finish()
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tls { listener, tls } => {
                let (stream, from) = listener.accept().await?;
                Ok(Accepted::Tls { stream, from, tls: Arc::clone(tls) })
            }
            Self::Unix(socket) => Ok(Accepted::Unix(socket.accept().await?)),
        }
    }
}

/// Accepts on one socket until the end. How many connections were cut is returned.
async fn accept(socket: Socket, door: Arc<Door>, mut shutdown: watch::Receiver<bool>) -> usize {
    let slots = Arc::new(Semaphore::new(door.limits().connections));
    let places = Places::new(door.limits().connections_per_peer);
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot.expect("the semaphore is never closed"), socket.accept().await)
        };
        tokio::select! {
            () = stopped(&mut shutdown) => break,
            (slot, accepted) = accepted => match accepted {
                Ok(accepted) => {
                    let (door, places) = (Arc::clone(&door), places.clone());
                    connections.spawn(async move {
                        door.admit(accepted, &places).await;
                        drop(slot);
                    });
                }
                // No file descriptors, or a client that went away at once.
                Err(error) => {
                    tracing::warn!(reason = %error.kind(), "a connection cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
        while connections.try_join_next().is_some() {}
    }
    // From here on the system refuses who connects, and another process may listen.
    drop(socket);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(door.limits().grace, all).await;
    while connections.try_join_next().is_some() {}
    let cut = connections.len();
    connections.shutdown().await;
    cut
}

/// Until the server is to end. Without a sender there is nobody to end it later, so that it
/// ends then.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    drop(shutdown.wait_for(|stop| *stop).await);
}
