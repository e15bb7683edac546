//! An issuer's public keys: fetched, kept for a while, and looked up.
//!
//! Who sends tokens can make us ask an issuer once in [`PAUSE`], and not more often, whatever
//! they put in them. Keys that the issuer no longer shows are gone within [`FRESH`], or, while
//! it does not answer, within [`KEPT`].

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::header::ACCEPT;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use super::Refusal;
use super::token::{self, Token};
use crate::daemon::outbound::{self, Patience};
use crate::error::Result;
use crate::time::Clock;

/// How long keys are taken as they are.
pub(super) const FRESH: Duration = Duration::from_secs(10 * 60);

/// How long they are taken where the issuer does not answer.
pub(super) const KEPT: Duration = Duration::from_secs(60 * 60);

/// How long after one question the next one is asked.
pub(super) const PAUSE: Duration = Duration::from_secs(30);

/// How long an issuer may take, for each of the two requests.
const PATIENCE: Patience = Patience { connect: Duration::from_secs(3), request: Duration::from_secs(5) };

/// The longest answer that is read, in bytes.
const MAX_ANSWER_LEN: usize = 512 * 1024;

/// How many keys of an issuer are looked at.
const MAX_KEYS: usize = 128;

/// Where keys are.
pub(super) enum KeySource {
    /// There.
    At(Url),
    /// Where the issuer's metadata says.
    Metadata { issuer: String, at: Url },
}

impl KeySource {
    /// By the issuer's metadata: OpenID Connect Discovery s4.1.
    pub(super) fn discovered(issuer: &str) -> Option<Self> {
        let at = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        Some(Self::Metadata { issuer: issuer.to_owned(), at: at.parse().ok()? })
    }
}

/// The keys of one issuer.
pub(super) struct Keys {
    source: KeySource,
    client: Client,
    clock: Arc<dyn Clock>,
    fetched: RwLock<Option<Fetched>>,
    /// Held while asking; when it was last begun, in uptime.
    asking: Arc<Mutex<Option<Duration>>>,
}

#[derive(Clone)]
struct Fetched {
    keys: Arc<Vec<PublicKey>>,
    at: Duration,
}

impl Keys {
    /// Keys of the issuer at `issuer`, which are not fetched yet.
    pub(super) fn new(
        source: KeySource,
        issuer: &Url,
        ca: Option<&Path>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let client = outbound::client(issuer, ca, PATIENCE, "an issuer")?;
        let (fetched, asking) = (RwLock::new(None), Arc::new(Mutex::new(None)));
        Ok(Self { source, client, clock, fetched, asking })
    }

    /// The key by the name `id` for `algorithm`; without a name, the only one there is for it.
    pub(super) async fn find(
        self: &Arc<Self>,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<PublicKey, Refusal> {
        if let Some(keys) = self.kept(FRESH) {
            match pick(&keys, algorithm, id) {
                Err(Refusal::UnknownKey) => {}
                decided => return decided,
            }
        }
        self.ask().await;
        pick(&self.kept(KEPT).ok_or(Refusal::Unavailable)?, algorithm, id)
    }

    fn kept(&self, for_at_most: Duration) -> Option<Arc<Vec<PublicKey>>> {
        let fetched = self.fetched.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let age = self.clock.uptime().saturating_sub(fetched.at);
        (age < for_at_most).then_some(fetched.keys)
    }

    /// Asks the issuer, unless it was asked just now. Who comes in the meantime waits.
    ///
    /// In a task of its own: a client that goes away while the issuer is being asked must not
    /// cost the others the answer until [`PAUSE`] is over.
    async fn ask(self: &Arc<Self>) {
        let mut asking = Arc::clone(&self.asking).lock_owned().await;
        let now = self.clock.uptime();
        if asking.is_some_and(|last| now.saturating_sub(last) < PAUSE) {
            return;
        }
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            *asking = Some(now);
            match this.fetch().await {
                Ok(keys) => {
                    let fetched = Fetched { keys: Arc::new(keys), at: now };
                    *this.fetched.write().unwrap_or_else(PoisonError::into_inner) = Some(fetched);
                }
                Err(why) => tracing::warn!(reason = why, "an issuer's keys cannot be fetched"),
            }
            drop(asking);
        });
        // It fails where the runtime ends, and we with it.
        let _ = task.await;
    }

    async fn fetch(&self) -> Result<Vec<PublicKey>, &'static str> {
        let at = match &self.source {
            KeySource::At(url) => url.clone(),
            KeySource::Metadata { issuer, at } => {
                let metadata: Metadata = self.get(at.clone()).await?;
                // OpenID Connect Discovery s4.3: or one issuer could speak for another.
                if metadata.issuer != *issuer {
                    return Err("its metadata is of another issuer");
                }
                outbound::url(&metadata.jwks_uri, "", true)
                    .map_err(|_| "the URL of its keys is not one of https://")?
            }
        };
        let set: KeySet = self.get(at).await?;
        // A key of a kind that is not known may be there for somebody else: RFC 7517 s5.
        Ok(set.keys.into_iter().take(MAX_KEYS).filter_map(PublicKey::read).collect())
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, url: Url) -> Result<T, &'static str> {
        let sent = self.client.get(url).header(ACCEPT, "application/json").send();
        let mut answer = sent.await.map_err(|_| "it does not answer")?;
        if answer.status() != StatusCode::OK {
            return Err("its answer is a failure or a redirection");
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|_| "its answer ends early")? {
            if body.len() + chunk.len() > MAX_ANSWER_LEN {
                return Err("its answer is too long");
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| "its answer is not what it should be")
    }
}

/// A public key that an issuer signs with.
#[derive(Clone)]
pub(super) struct PublicKey {
    id: Option<String>,
    kind: Kind,
    /// What its issuer says it is for, if it does.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// RFC 7517 s4, RFC 7518 s6, RFC 8037 s2.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl PublicKey {
    /// Reads a key, if it is one to verify signatures with, of a kind that is known.
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let to_verify = jwk.usage.is_none_or(|usage| usage == "sig")
            && jwk.key_ops.is_none_or(|operations| operations.iter().any(|one| one == "verify"));
        if !to_verify {
            return None;
        }
        let algorithm = match jwk.alg.as_deref() {
            None => None,
            // Its own name since RFC 9864 s2.2.
            Some("Ed25519") => Some(Algorithm::EdDSA),
            Some(name) => Some(token::algorithm(name)?),
        };
        let of_len = |part: &Option<String>, len: usize| {
            let text = part.as_deref()?;
            (BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.len() == len).then_some(text.to_owned())
        };
        let point = |len| Some((of_len(&jwk.x, len)?, of_len(&jwk.y, len)?));
        let (kind, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", None) => {
                let (modulus, exponent) = (jwk.n.as_deref()?, jwk.e.as_deref()?);
                // 2048 bits and more: RFC 7518 s3.3.
                let len = BASE64URL_NOPAD.decode(modulus.as_bytes()).ok()?.len();
                if !(256..=1024).contains(&len) {
                    return None;
                }
                (Kind::Rsa, DecodingKey::from_rsa_components(modulus, exponent))
            }
            ("EC", Some("P-256")) => {
                let (x, y) = point(32)?;
                (Kind::P256, DecodingKey::from_ec_components(&x, &y))
            }
            ("EC", Some("P-384")) => {
                let (x, y) = point(48)?;
                (Kind::P384, DecodingKey::from_ec_components(&x, &y))
            }
            ("OKP", Some("Ed25519")) => {
                (Kind::Ed25519, DecodingKey::from_ed_components(&of_len(&jwk.x, 32)?))
            }
            _ => return None,
        };
        Some(Self { id: jwk.kid, kind, algorithm, key: key.ok()? })
    }

    /// Whether it is one for an algorithm: by its kind, and by what its issuer says.
    fn fits(&self, algorithm: Algorithm) -> bool {
        let by_kind = match algorithm {
            Algorithm::RS256 | Algorithm::PS256 => self.kind == Kind::Rsa,
            Algorithm::ES256 => self.kind == Kind::P256,
            Algorithm::ES384 => self.kind == Kind::P384,
            Algorithm::EdDSA => self.kind == Kind::Ed25519,
            _ => false,
        };
        by_kind && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Verifies a token's signature.
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), Refusal> {
        let verified =
            jsonwebtoken::crypto::verify(token.signature, token.message, &self.key, token.algorithm);
        if verified.unwrap_or(false) { Ok(()) } else { Err(Refusal::Signature) }
    }
}

/// Keys are named, and never tried in turn.
fn pick(keys: &[PublicKey], algorithm: Algorithm, id: Option<&str>) -> Result<PublicKey, Refusal> {
    let named = |key: &&PublicKey| id.is_none() || key.id.as_deref() == id;
    let mut found = keys.iter().filter(|key| key.fits(algorithm)).filter(named);
    match (found.next(), found.next()) {
        (None, _) => Err(Refusal::UnknownKey),
        (Some(key), None) => Ok(key.clone()),
        (Some(_), Some(_)) => Err(Refusal::AmbiguousKey),
    }
}

/// Reads the answers of an issuer: for [`crate::fuzz`]. The number of keys in them.
pub(crate) fn fuzz(body: &[u8]) -> usize {
    let _ = serde_json::from_slice::<Metadata>(body);
    let Ok(KeySet { keys }) = serde_json::from_slice(body) else { return 0 };
    keys.into_iter().take(MAX_KEYS).filter_map(PublicKey::read).count()
}
