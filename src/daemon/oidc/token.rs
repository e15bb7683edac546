//! A token as it is read: pure, and before anything of it is believed.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::Algorithm;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Number;

use super::{LEEWAY_SECONDS, MAX_TOKEN_LEN, Refusal, SecondFactor};
use crate::access::Factor;
use crate::time::Timestamp;

/// How long a name in it is at most, in bytes (OpenID Connect Core s2: 255 for `sub`).
const MAX_NAME_LEN: usize = 255;

/// A token, taken apart.
pub(super) struct Token<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) claims: RawClaims,
    /// What is signed: RFC 7515 s5.2, step 8.
    pub(super) message: &'a [u8],
    pub(super) signature: &'a str,
}

/// The header. Parameters that point at keys (`jku`, `jwk`, `x5u`, `x5c`) are not looked at.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

/// The claims, before they are checked.
#[derive(Deserialize)]
pub(super) struct RawClaims {
    pub(super) iss: String,
    pub(super) sub: String,
    aud: Audience,
    exp: Option<Number>,
    nbf: Option<Number>,
    iat: Option<Number>,
    pub(super) jti: Option<String>,
    #[serde(default)]
    amr: Vec<String>,
    acr: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Takes a token apart: compact serialisation, RFC 7515 s3.1.
pub(super) fn parse(token: &str) -> Result<Token<'_>, Refusal> {
    if token.len() > MAX_TOKEN_LEN {
        return Err(Refusal::TooLong);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(Refusal::Malformed)?;
    let header: Header = decode(header)?;
    let algorithm = algorithm(&header.alg).ok_or(Refusal::Algorithm)?;
    if header.crit {
        return Err(Refusal::Critical);
    }
    if !header.typ.as_deref().is_none_or(is_access_token) {
        return Err(Refusal::Type);
    }
    let claims: RawClaims = decode(payload)?;
    let names = [Some(claims.sub.as_str()), claims.jti.as_deref(), header.kid.as_deref()];
    if claims.sub.is_empty() || names.iter().flatten().any(|name| name.len() > MAX_NAME_LEN) {
        return Err(Refusal::Malformed);
    }
    Ok(Token { algorithm, key_id: header.kid, claims, message: signed.as_bytes(), signature })
}

/// The algorithms there are: asymmetric ones, so that an issuer's public key is no secret to
/// sign with (RFC 8725 s3.1, s3.2).
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "RS256" => Some(Algorithm::RS256),
        "PS256" => Some(Algorithm::PS256),
        "ES256" => Some(Algorithm::ES256),
        "ES384" => Some(Algorithm::ES384),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

impl RawClaims {
    /// When it ends, if it is for `audience` and its time is now.
    pub(super) fn check(&self, audience: &str, now: Timestamp) -> Result<Timestamp, Refusal> {
        let ours = match &self.aud {
            Audience::One(one) => one == audience,
            Audience::Several(several) => several.iter().any(|one| one == audience),
        };
        if !ours {
            return Err(Refusal::Audience);
        }
        let now = now.micros() / 1_000_000;
        let expires = seconds(self.exp.as_ref().ok_or(Refusal::NoExpiry)?)?;
        // "On or after" which it is not accepted: RFC 7519 s4.1.4.
        if now >= expires.saturating_add(LEEWAY_SECONDS) {
            return Err(Refusal::Expired);
        }
        for begins in [&self.nbf, &self.iat].into_iter().flatten() {
            if seconds(begins)? > now.saturating_add(LEEWAY_SECONDS) {
                return Err(Refusal::NotYetValid);
            }
        }
        Ok(Timestamp::from_micros(expires.saturating_mul(1_000_000)).unwrap_or(Timestamp::MAX))
    }

    /// Which second factor they have shown, if one that is accepted is told of: the most telling
    /// of all that the token names.
    pub(super) fn factor(&self, accepted: &SecondFactor) -> Option<Factor> {
        let by_method = self.amr.iter().any(|method| accepted.amr.contains(method));
        let by_class = self.acr.as_ref().is_some_and(|class| accepted.acr.contains(class));
        let named = self.amr.iter().filter_map(|method| Factor::of_method(method)).min();
        match (by_method, by_class) {
            (false, false) => None,
            (_, true) => named.or(Some(Factor::Class)),
            (true, false) => named.or(Some(Factor::Other)),
        }
    }
}

/// A NumericDate (RFC 7519 s2) in whole seconds. It may have a fraction, and is not before 1970.
fn seconds(number: &Number) -> Result<u64, Refusal> {
    let whole = number.as_u64();
    let fraction =
        || std::time::Duration::try_from_secs_f64(number.as_f64()?).ok().map(|span| span.as_secs());
    whole.or_else(fraction).ok_or(Refusal::Malformed)
}

fn is_access_token(typ: &str) -> bool {
    // `application/` may be left out: RFC 7515 s4.1.9.
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

fn decode<T: DeserializeOwned>(part: &str) -> Result<T, Refusal> {
    let bytes = BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Refusal::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::Malformed)
}

fn is_there<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(from).map(|_| true)
}

/// Takes a token apart, and looks at what it claims: for [`crate::fuzz`].
pub(crate) fn fuzz(token: &str, now: Timestamp) -> bool {
    let Ok(token) = parse(token) else { return false };
    let _ = token.claims.check("https://strongroom.example", now);
    let _ = token.claims.factor(&SecondFactor::default());
    true
}
