//! A daemon, as whoever asks it: the command line with `--daemon`.
//!
//! Separate from the command line, which prints the same whether it asked a store or a daemon,
//! and from the daemon, of whose code nothing is used here: what is agreed on is HTTP, the
//! [endpoints](../daemon/endpoints/index.html) and the JSON of [`crate::json`].
//!
//! HTTP/1.1 over TLS with a client certificate, or over a Unix socket; never over plaintext
//! TCP. Each connection has one request at a time. What is read or written of a blob streams:
//! in memory are a few pieces of it.
//!
//! Invariants: nothing is sent before the daemon's certificate has verified under the CA that was
//! given. A request that changes something is sent once, but for a blob that is sealed under an
//! idempotency key. What a daemon says is checked before it is used: a draft says what was
//! asked for before it is signed, and a blob is the one that was asked for and of the length
//! that was said. Its sentences are printed; whoever may answer in its place may lie in them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::access::Purpose;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{EmergencyId, SessionId};

mod address;
mod admission;
mod ask;
mod audit;
mod customer;
mod download;
mod inventory;
mod orders;
pub(crate) mod problem;
mod store;
mod tls;
mod upload;
mod wire;

pub(crate) use self::audit::NEWEST;
pub(crate) use address::{DaemonUrl, DaemonUrlError};
pub(crate) use customer::RemoteCustomer;
pub(crate) use download::Download;
pub(crate) use upload::{Replay, Upload};

/// How a daemon is reached.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where it is.
    pub(crate) daemon: DaemonUrl,
    /// The client's certificate, then those between it and its CA. PEM.
    pub(crate) certificate: Option<PathBuf>,
    /// Its private key, for its owner only, who may let a group read it. PEM.
    pub(crate) key: Option<PathBuf>,
    /// The CAs of the daemon's certificate. PEM. The system's are not asked: whom the public
    /// trusts says nothing about a daemon of one's own.
    pub(crate) ca: Option<PathBuf>,
    /// A bearer token, read anew for each request.
    pub(crate) token: Option<PathBuf>,
    /// Why, for the audit log.
    pub(crate) purpose: Purpose,
    /// Within which session of the customer's.
    pub(crate) session: Option<SessionId>,
    /// In which emergency, where one was declared at this daemon.
    pub(crate) emergency: Option<EmergencyId>,
}

/// A daemon that can be asked. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    wire: wire::Wire,
    token: Option<PathBuf>,
    purpose: Purpose,
    session: Option<SessionId>,
    emergency: Option<EmergencyId>,
}

impl Client {
    /// Reads the TLS files. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if a daemon at `https://` comes without them;
    /// [`ErrorKind::Configuration`] for files that are missing, unfit, or open to others.
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let Settings { daemon, certificate, key, ca, token, purpose, session, emergency } = settings;
        let connector = match &daemon {
            DaemonUrl::Unix(_) => None,
            DaemonUrl::Https { .. } => {
                let (Some(certificate), Some(key), Some(ca)) = (certificate, key, ca) else {
                    let sentence = "a daemon at https:// takes --client-certificate, --client-key, and --ca, the CA of \
                                    the daemon's certificate";
                    return Err(Error::new(ErrorKind::InvalidInput, sentence));
                };
                Some(tls::connector(&certificate, &key, &ca)?)
            }
        };
        let wire = wire::Wire::new(daemon, connector)?;
        Ok(Self(Arc::new(Inner { wire, token, purpose, session, emergency })))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// The answer is none that there is to this question.
fn nonsense() -> Error {
    let sentence = "what answers is not a strongroom daemon, or one of another version";
    Error::new(ErrorKind::UnsupportedFormat, sentence)
}
