//! Sockets that systemd has made and hands over: sd_listen_fds(3).

use std::fmt;
use std::sync::Arc;

use listenfd::ListenFd;

use super::{Socket, TcpListener, UnixSocket};
use crate::daemon::tls::ReloadingTls;
use crate::error::{Error, ErrorKind, Result};

/// Sockets that were handed over when the process was started.
pub struct Activated(ListenFd);

impl Activated {
    /// Takes them. They are gone from the environment then, and are not handed on to
    /// processes that this one starts. To be called before the process has threads, as one
    /// of them may be reading the environment: first thing in `main`.
    #[must_use]
    pub fn from_environment() -> Self {
        // Without it, descriptors meant for a process above this one would be taken.
        match std::env::var_os("LISTEN_PID") {
            Some(_) => Self(ListenFd::from_env()),
            None => Self(ListenFd::empty()),
        }
    }

    /// How many they are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn into_sockets(mut self, tls: Option<&Arc<ReloadingTls>>) -> Result<Vec<Socket>> {
        (0..self.0.len()).map(|place| self.take(place, tls)).collect()
    }

    fn take(&mut self, place: usize, tls: Option<&Arc<ReloadingTls>>) -> Result<Socket> {
        let unfit = || {
            let message = "a socket that was handed over is not a listening stream socket of TCP or Unix";
            Error::new(ErrorKind::Configuration, message)
        };
        if let Ok(Some(listener)) = self.0.take_unix_listener(place) {
            listener.set_nonblocking(true).map_err(|error| unfit().with_source(error))?;
            let listener = tokio::net::UnixListener::from_std(listener);
            return Ok(Socket::Unix(UnixSocket::handed_over(
                listener.map_err(|error| unfit().with_source(error))?,
            )));
        }
        let listener = self.0.take_tcp_listener(place).ok().flatten().ok_or_else(unfit)?;
        let tls = tls.ok_or_else(|| {
            let message = "a TCP socket was handed over, and there is no TLS in the configuration: add it, or \
                           hand over a Unix socket";
            Error::new(ErrorKind::Configuration, message)
        })?;
        listener.set_nonblocking(true).map_err(|error| unfit().with_source(error))?;
        let listener = TcpListener::from_std(listener).map_err(|error| unfit().with_source(error))?;
        Ok(Socket::Tls { listener, tls: Arc::clone(tls) })
    }
}

impl fmt::Debug for Activated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activated").field("count", &self.count()).finish()
    }
}
