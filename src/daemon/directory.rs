//! Whom the operator knows: credentials, the principals that they are of, and what those are
//! there for.
//!
//! ```toml
//! revoked_certificates = ["<SHA-256 of the DER, in hex>"]
//!
//! [[principal]]
//! id = "service:nightly-backup"
//! roles = ["backup-job"]
//! customers = "all"                        # or a list of customer ids
//! phi = true
//! trained_until = "2027-05-01"
//! certificate = ["spiffe://clinic/backup"] # URIs, DNS names, or `sha256:` and a fingerprint
//! uid = [1001]
//! token = [{ issuer = "https://idp.example", subject = "abc" }]
//!
//! [[principal]]
//! id = "person:p-18"
//! roles = ["auditor"]
//! customers = "all"
//! certificate = ["p-18.clinic.example"]
//! factor = "smart-card"                    # of a person with a certificate or uid: always
//! ```
//!
//! Separate from how a credential is proven ([`peer`](super::peer), [`oidc`](super::oidc)) and
//! from what the principal may do (the [policy](crate::access::policy)).
//!
//! Invariants: a credential is of one principal at most, and roles that do not go together
//! are nobody's. Whoever is not in it is nobody. It is asked anew for every request, so that
//! who was taken out of the file is out with its next reading, on connections that stand too.
//! Whoever may write the file decides who may do what, and should not be able to use a key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use thiserror::Error;

use super::oidc::Claims;
use super::peer::{ClientCertificate, Peer, PeerCredential};
use crate::access::policy::Subject;
use crate::access::{Factor, Principal};
use crate::merkle::Hash;

mod parse;

/// Why a file of configuration cannot be used. It says the line and what to do, and repeats
/// nothing of what is in it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {what}")]
pub struct ConfigError {
    line: usize,
    what: &'static str,
}

impl ConfigError {
    pub(super) const fn new(line: usize, what: &'static str) -> Self {
        Self { line, what }
    }

    /// The line, from 1.
    #[must_use]
    pub const fn line(&self) -> usize {
        self.line
    }

    /// What is wrong there, and what to do.
    #[must_use]
    pub const fn what(&self) -> &'static str {
        self.what
    }
}

/// What was proven to us.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// To hold the key of a certificate.
    Certificate(&'a ClientCertificate),
    /// To be a user of this host.
    Uid(u32),
    /// To have a token, by its verified claims.
    Token(&'a Claims),
}

impl<'a> From<&'a PeerCredential> for Credential<'a> {
    fn from(proven: &'a PeerCredential) -> Self {
        match proven {
            PeerCredential::Certificate(certificate) => Self::Certificate(certificate),
            PeerCredential::Unix { uid } => Self::Uid(*uid),
        }
    }
}

impl<'a> From<&'a Peer> for Credential<'a> {
    fn from(peer: &'a Peer) -> Self {
        Self::from(&peer.credential)
    }
}

/// Why a credential makes nobody of who has it. For tests and for counting: who asks is told
/// that they were not accepted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not accepted")]
#[non_exhaustive]
pub enum Stranger {
    /// Nobody in the directory has it.
    Unknown,
    /// The certificate is listed as revoked.
    Revoked,
    /// The names in the certificate are of several principals.
    Ambiguous,
    /// A person, whose token asserts no second factor.
    SecondFactorMissing,
}

/// Who has proven a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identified<'a> {
    /// Who.
    pub subject: &'a Subject,
    /// Of a person, which second factor they had.
    pub factor: Option<Factor>,
}

/// The operator's mapping file, parsed and checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Directory {
    subjects: Vec<Subject>,
    /// Which second factor goes with the certificates and the uids of each.
    factors: Vec<Option<Factor>>,
    digest: Hash,
    /// The place in `subjects`.
    credentials: BTreeMap<Key, usize>,
    revoked: BTreeSet<[u8; 32]>,
}

/// A credential as it is looked up.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Uri(String),
    Dns(String),
    Fingerprint([u8; 32]),
    Uid(u32),
    Token { issuer: String, subject: String },
}

impl Directory {
    /// Parses and checks a mapping file.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing found wrong with it.
    pub fn parse(toml: &str) -> Result<Self, ConfigError> {
        parse::parse(toml)
    }

    /// Who it is that has proven `credential`.
    ///
    /// A certificate on the revocation list identifies nobody. A token identifies a person only
    /// if it asserts a second factor; for a person's certificate or uid, the file says which
    /// factor goes with it.
    ///
    /// # Errors
    /// [`Stranger`] where it is nobody.
    pub fn identify(&self, credential: &Credential<'_>) -> Result<Identified<'_>, Stranger> {
        let place = match credential {
            Credential::Certificate(certificate) => self.holder(certificate)?,
            Credential::Uid(uid) => self.find(&Key::Uid(*uid)).ok_or(Stranger::Unknown)?,
            Credential::Token(claims) => {
                let key =
                    Key::Token { issuer: claims.issuer().to_owned(), subject: claims.subject().to_owned() };
                self.find(&key).ok_or(Stranger::Unknown)?
            }
        };
        let subject = &self.subjects[place];
        if !matches!(subject.principal, Principal::Person(_)) {
            return Ok(Identified { subject, factor: None });
        }
        let factor = match credential {
            Credential::Certificate(_) | Credential::Uid(_) => self.factors[place],
            Credential::Token(claims) => claims.factor(),
        };
        factor.map(|_| Identified { subject, factor }).ok_or(Stranger::SecondFactorMissing)
    }

    /// SHA-256 of the file.
    #[must_use]
    pub fn digest(&self) -> Hash {
        self.digest
    }

    /// Everyone in it, in the order of the file.
    #[must_use]
    pub fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    fn find(&self, key: &Key) -> Option<usize> {
        self.credentials.get(key).copied()
    }

    fn holder(&self, certificate: &ClientCertificate) -> Result<usize, Stranger> {
        if self.revoked.contains(certificate.fingerprint()) {
            return Err(Stranger::Revoked);
        }
        let keys = std::iter::once(Key::Fingerprint(*certificate.fingerprint()))
            .chain(certificate.uris().iter().cloned().map(Key::Uri))
            .chain(certificate.dns_names().iter().cloned().map(Key::Dns));
        let places: BTreeSet<usize> = keys.filter_map(|key| self.credentials.get(&key).copied()).collect();
        match (places.first(), places.len()) {
            (Some(place), 1) => Ok(*place),
            (None, _) => Err(Stranger::Unknown),
            _ => Err(Stranger::Ambiguous),
        }
    }
}

impl fmt::Debug for Directory {
    /// How many, and not who.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("principals", &self.subjects.len())
            .field("credentials", &self.credentials.len())
            .field("revoked", &self.revoked.len())
            .finish()
    }
}

#[cfg(test)]
mod tests;
