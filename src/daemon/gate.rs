//! The gate: from what a connection and a token prove to the one who asks.
//!
//! Every request is looked at by itself, so that who was taken out of the directory asks
//! nothing more on a connection that stands.
//!
//! * A certificate that is listed as revoked lets nobody in, with a token or without.
//! * With a token, who asks is the token's subject, and what the connection proves says from where.
//! * Without one, it is who the certificate or the socket's peer is.

use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;

use super::api::Caller;
use super::directory::{Credential, Directory, Identified, Stranger};
use super::oidc::Verifier;
use super::peer::Peer;
use crate::access::policy::Subject;
use crate::access::{Access, Factor, Origin};
use crate::audit::log::Log;
use crate::audit::{Action, Intent, OutcomeResult};
use crate::error::Result;

/// Who is who: the directory of the moment, and the issuers of tokens.
#[derive(Debug)]
pub struct Gate {
    directory: RwLock<Arc<Directory>>,
    tokens: Option<Verifier>,
}

impl Gate {
    /// A gate with this directory. Without `tokens`, no token is accepted.
    #[must_use]
    pub fn new(directory: Directory, tokens: Option<Verifier>) -> Self {
        Self { directory: RwLock::new(Arc::new(directory)), tokens }
    }

    /// From now on, requests go by this directory, which [`record`] has put on the record.
    pub fn replace(&self, directory: Directory) {
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(directory);
    }

    /// The directory of the moment.
    #[must_use]
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who asks, if it is somebody.
    async fn identify(&self, peer: &Peer, token: Option<&str>) -> Option<Known> {
        let directory = self.directory();
        let by_connection = directory.identify(&Credential::from(peer));
        let Some(token) = token else { return by_connection.ok().map(Known::from) };
        if by_connection == Err(Stranger::Revoked) {
            return None;
        }
        let claims = self.tokens.as_ref()?.verify(token).await.ok()?;
        directory.identify(&Credential::Token(&claims)).ok().map(Known::from)
    }
}

/// Somebody, with the second factor that they had.
struct Known(Arc<Subject>, Option<Factor>);

impl From<Identified<'_>> for Known {
    fn from(known: Identified<'_>) -> Self {
        Self(Arc::new(known.subject.clone()), known.factor)
    }
}

/// Records in `log` that requests go by this directory, before they do: the digest of its file.
///
/// # Errors
/// As [`Log::begin`]: then nothing may go by it.
///
/// # Cancel safety
/// It may be on the record all the same.
pub async fn record(log: &Log, own: &Access, directory: &Directory) -> Result<()> {
    let mut intent = Intent::new(log.request_id()?, own, Action::AccessMap);
    intent.digest = Some(directory.digest());
    let (open, receipt) = log.begin(intent).await?;
    // No key is used.
    drop(receipt);
    // If we stop here, the log has a mapping that nobody went by.
    open.finish(OutcomeResult::Ok, None).await
}

/// Puts the [`Caller`] into a request.
pub async fn admit(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let caller = match request.extensions().get::<Peer>().cloned() {
        Some(peer) => {
            let known = match token(&request) {
                Token::None => gate.identify(&peer, None).await,
                Token::Bearer(token) => gate.identify(&peer, Some(&token)).await,
                // Something that was meant to say who asks, and says nothing to us.
                Token::Unknown => None,
            };
            let (subject, factor) = known.map(|Known(subject, factor)| (subject, factor)).unzip();
            Caller { subject, factor: factor.flatten(), origin: peer.origin }
        }
        // Not through a listener of ours: nobody.
        None => Caller { subject: None, factor: None, origin: Origin::Process(std::process::id()) },
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

enum Token {
    None,
    Bearer(String),
    Unknown,
}

/// The token of a request (RFC 6750 s2.1). Two are none.
fn token(request: &Request) -> Token {
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Token::None };
    let bearer = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    match bearer.filter(|_| values.next().is_none()) {
        Some(token) => Token::Bearer(token),
        None => Token::Unknown,
    }
}
