//! Bearer tokens of the operator's identity providers: the [`Verifier`].
//!
//! JWTs by OpenID Connect Core and RFC 9068, under the rules of RFC 8725. An issuer is known
//! by the exact text of its URL; its keys are fetched from it over TLS.
//!
//! Separate from the [`directory`](super::directory), which says whose a token is, and asks a
//! person's for a second factor. Below it, `token` reads a token and asks nobody, `keys`
//! fetches and keeps the issuers' keys, `replay` remembers what may be used once.
//!
//! Invariants: [`Claims`] are of a token whose signature was verified under an algorithm
//! of a fixed list and a key of that algorithm, that is of a configured issuer, for us, and in
//! its time. Who sends a token is told that it was not accepted, and never why. Whoever has an
//! issuer's key is whoever they say they are.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;

use super::outbound;
use crate::access::Factor;
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Clock, Timestamp};

pub(crate) mod keys;
mod replay;
pub(crate) mod token;

use keys::{KeySource, Keys};
use replay::Used;

/// How long a token is at most, in bytes.
pub const MAX_TOKEN_LEN: usize = 16 * 1024;

/// How far the issuer's clock may be from ours, in seconds.
pub const LEEWAY_SECONDS: u64 = 60;

/// An issuer, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// Its URL, exactly as it is in the claim `iss`. `https://`, or `http://` of a loopback
    /// address: who can answer there is on this host already.
    pub issuer: String,
    /// What we are to it: one of the audiences of a token.
    pub audience: String,
    /// Where its keys are. Without it, where its metadata says that they are (OpenID Connect
    /// Discovery s4).
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// The CAs that its certificate is of, PEM, in place of the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// What tells of a second factor.
    #[serde(default)]
    pub mfa: SecondFactor,
    /// Whether a token is good for one request only. It then has a `jti`, and is remembered by
    /// this process until it expires: not by another one, nor across a restart.
    #[serde(default)]
    pub single_use: bool,
}

/// Which claims tell of a second factor. Either is enough. With neither, none of the issuer's
/// tokens does, and none makes a person of who has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondFactor {
    /// Methods, of which `amr` has one (RFC 8176 s2: `mfa`, `hwk`, `otp`, …).
    #[serde(default)]
    pub amr: BTreeSet<String>,
    /// Classes, of which `acr` is one.
    #[serde(default)]
    pub acr: BTreeSet<String>,
}

/// Why a token is not accepted. For tests and for counting: who asks is told that it was not.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not accepted")]
#[non_exhaustive]
pub enum Refusal {
    /// It is longer than [`MAX_TOKEN_LEN`].
    TooLong,
    /// It is not a JWT of three parts (RFC 7515 s3.1), or a claim is of the wrong kind, or
    /// there twice.
    Malformed,
    /// Its algorithm is not one of RS256, PS256, ES256, ES384 and EdDSA.
    Algorithm,
    /// It has critical parameters, of which none is known (RFC 7515 s4.1.11).
    Critical,
    /// It is another kind of token than `JWT` or `at+jwt` (RFC 8725 s3.11).
    Type,
    /// Its issuer is none of those that are configured.
    Issuer,
    /// Its issuer has no such key for this algorithm.
    UnknownKey,
    /// It does not say under which key it is, and its issuer has several; or its issuer has
    /// several by one name.
    AmbiguousKey,
    /// Its issuer's keys cannot be had.
    Unavailable,
    /// The signature does not verify.
    Signature,
    /// It is for somebody else.
    Audience,
    /// It has no end.
    NoExpiry,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is to be used once, and has no `jti` to know it by.
    NoTokenId,
    /// It is to be used once, and was.
    Replayed,
    /// It is to be used once, and no more can be remembered.
    Full,
}

impl Refusal {
    /// A stable name, for counting.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Critical => "critical",
            Self::Type => "type",
            Self::Issuer => "issuer",
            Self::UnknownKey => "unknown-key",
            Self::AmbiguousKey => "ambiguous-key",
            Self::Unavailable => "unavailable",
            Self::Signature => "signature",
            Self::Audience => "audience",
            Self::NoExpiry => "no-expiry",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::NoTokenId => "no-token-id",
            Self::Replayed => "replayed",
            Self::Full => "full",
        }
    }
}

/// What a verified token says. There is no other way to have one than [`Verifier::verify`].
#[derive(Clone, PartialEq, Eq)]
pub struct Claims {
    issuer: String,
    subject: String,
    expires: Timestamp,
    factor: Option<Factor>,
}

impl Claims {
    /// Whose word it is: one of the configured issuers.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Of whom, by the issuer's name for them.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// When it ends, leeway not counted.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Whether they have shown a second factor.
    #[must_use]
    pub fn second_factor(&self) -> bool {
        self.factor.is_some()
    }

    /// Which second factor they have shown.
    #[must_use]
    pub fn factor(&self) -> Option<Factor> {
        self.factor
    }

    #[cfg(test)]
    pub(super) fn for_test(issuer: &str, subject: &str, second_factor: bool) -> Self {
        Self {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            expires: Timestamp::MAX,
            factor: second_factor.then_some(Factor::OneTimePassword),
        }
    }
}

impl fmt::Debug for Claims {
    /// Without the names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("expires", &self.expires)
            .field("factor", &self.factor)
            .finish_non_exhaustive()
    }
}

/// Verifies tokens of the configured issuers.
pub struct Verifier {
    issuers: Vec<Issuer>,
    clock: Arc<dyn Clock>,
    used: Used,
}

struct Issuer {
    config: IssuerConfig,
    keys: Arc<Keys>,
}

impl Verifier {
    /// A verifier of the tokens of `issuers`. Nobody is asked for keys yet. Proxies are those of
    /// the environment (`HTTPS_PROXY`, `NO_PROXY`), and none for loopback addresses.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where an issuer or its CAs cannot be used, or it is there twice.
    pub fn new(issuers: Vec<IssuerConfig>, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut seen = BTreeSet::new();
        let mut known = Vec::with_capacity(issuers.len());
        for config in issuers {
            if !seen.insert(config.issuer.clone()) {
                return Err(unfit("an issuer is there twice"));
            }
            if config.audience.is_empty() {
                return Err(unfit("the audience of an issuer's tokens is empty"));
            }
            let url = outbound::url(&config.issuer, "the URL of an issuer", true)?;
            if url.query().is_some() || url.fragment().is_some() {
                return Err(unfit("the URL of an issuer has no query and no `#`"));
            }
            let source = match &config.jwks_url {
                Some(jwks) => KeySource::At(outbound::url(jwks, "the URL of an issuer's keys", true)?),
                None => KeySource::discovered(&config.issuer)
                    .ok_or_else(|| unfit("there is no metadata under the URL of an issuer"))?,
            };
            let keys = Arc::new(Keys::new(source, &url, config.ca.as_deref(), Arc::clone(&clock))?);
            known.push(Issuer { config, keys });
        }
        Ok(Self { issuers: known, clock, used: Used::default() })
    }

    /// Verifies a token: what comes after `Bearer ` (RFC 6750 s2.1).
    ///
    /// It may ask the issuer for its keys, which takes 10 s at most.
    ///
    /// # Errors
    /// [`Refusal`], of which who asks must not be told more than that it is one.
    ///
    /// # Cancel safety
    /// Dropped, a token that is good for one request may be used up.
    pub async fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        let token = token::parse(token)?;
        // Not verified yet: it says whose key to take, and is verified by that key.
        let issuer = self.issuers.iter().find(|known| known.config.issuer == token.claims.iss);
        let issuer = issuer.ok_or(Refusal::Issuer)?;
        let key = issuer.keys.find(token.algorithm, token.key_id.as_deref()).await?;
        key.verify(&token)?;
        let now = self.clock.now();
        let expires = token.claims.check(&issuer.config.audience, now)?;
        if issuer.config.single_use {
            let id = token.claims.jti.as_deref().filter(|id| !id.is_empty()).ok_or(Refusal::NoTokenId)?;
            self.used.use_up(&issuer.config.issuer, id, expires, now)?;
        }
        Ok(Claims {
            factor: token.claims.factor(&issuer.config.mfa),
            issuer: token.claims.iss,
            subject: token.claims.sub,
            expires,
        })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("issuers", &self.issuers.len()).finish_non_exhaustive()
    }
}

fn unfit(message: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests;
