//! What a certificate says, as types without room for free text.
//!
//! Lists are in ascending order and hold nothing twice; what is not there is left out.
//! Three formats are read. In v1 a final certificate tells and proves the end of each epoch
//! itself, and in v2 it names a paper for each. Both claim more than is known: `clear` for key
//! files, and that a KMS attests an end which it reports. What is made is v3, which claims
//! neither, and names what NIST SP 800-88r2 s4.6 asks for and a certificate does not have.

use std::collections::BTreeSet;
use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::evidence::Evidence;
use crate::access::Principal;
use crate::audit::RingRef;
pub use crate::audit::layout::CertificateStage;
use crate::id::{BlobId, CertificateId, CustomerId, KekId, KmsKeyId, OrderId, StoreId};
use crate::kms::DestructionAssurance;
use crate::retention::Period;
use crate::time::{Day, Timestamp};
use crate::tlog::PublicKey;

mod epochs;
mod statements;

pub use epochs::*;
pub use statements::*;

/// All that a certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateBody {
    /// The format.
    pub format: Format,
    /// How far the destruction has come.
    pub stage: CertificateStage,
    /// [`CertificateId::derive`] of store, customer and ring version.
    pub certificate: CertificateId,
    /// The store.
    pub store: StoreId,
    /// Whose data it was.
    pub customer: CustomerId,
    /// When this certificate was made.
    pub issued: Timestamp,
    /// How it was destroyed.
    pub method: Method,
    /// What was destroyed.
    pub scope: Scope,
    /// Under which policy.
    pub policy: Policy,
    /// By whose order.
    pub authority: Authority,
    /// Who ran it.
    pub run_by: Principal,
    /// The ring version that no longer has the keys.
    pub ring: RingTransition,
    /// What time it was, and how that was known.
    pub time: TimeEvidence,
    /// In a final certificate, the end of each epoch under which a ring version with one
    /// of the keys was written. In an interim one, none.
    pub epochs: Vec<CertifiedEpoch>,
    /// In a final certificate, that no cache holds a key any longer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub caches: Option<Caches>,
    /// What was verified.
    pub verification: Vec<Verification>,
    /// What it does not cover.
    pub limits: Vec<Limit>,
    /// What SP 800-88r2 s4.6 lists and this certificate does not have. Formats v1 and v2 were
    /// silent about it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub missing: Vec<Missing>,
    /// In a final certificate, how much ciphertext was deleted before it was made, if any
    /// was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ciphertext: Option<Ciphertext>,
    /// Records of the log that show it, each with its proof.
    pub evidence: Vec<Evidence>,
}

impl CertificateBody {
    /// The papers that it names, by epoch.
    pub fn named(&self) -> impl Iterator<Item = EpochName> {
        self.epochs.iter().filter_map(CertifiedEpoch::named).copied()
    }
}

/// The format of a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// The first: its epochs are [`CertifiedEpoch::InFull`].
    #[serde(rename = "strongroom/certificate/v1")]
    V1,
    /// The second: its epochs are [`CertifiedEpoch::Named`].
    #[serde(rename = "strongroom/certificate/v2")]
    V2,
    /// The one that is made: it names what is missing, and claims no category that the end of
    /// the keys does not reach.
    #[default]
    #[serde(rename = "strongroom/certificate/v3")]
    V3,
}

/// How data were destroyed, NIST SP 800-88r2 s3.1 and its sample certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// The category of sanitization.
    pub category: Category,
    /// The technique.
    pub technique: Technique,
    /// What the KMS of the epochs shows.
    pub assurance: Assurance,
    /// The tool.
    pub tool: Tool,
    /// Its version.
    pub tool_version: ToolVersion,
}

impl Method {
    /// The method of this program.
    #[must_use]
    pub fn new(stage: CertificateStage, assurance: Assurance) -> Self {
        Self {
            category: Category::of(stage, assurance),
            technique: Technique::CryptographicErase,
            assurance,
            tool: Tool::Strongroom,
            tool_version: ToolVersion::current(),
        }
    }
}

/// A category of sanitization, NIST SP 800-88r2 s3.1. "Destroy" is not among them: that is
/// what is done to media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// None yet: the keys are out of use, and the epochs' keys are not destroyed.
    Pending,
    /// None: the keys are removed, and what they lay on is not sanitized.
    None,
    /// Clear, in a certificate of format v1 or v2 over key files: it is not reached by
    /// removing them.
    Clear,
    /// Purge, as far as the tool goes: the technique was completed, and the KMS reports the
    /// keys gone. That somebody accepts it is validation, which is not the tool's.
    Purge,
    /// None that can be shown: a KMS key was of a provider that this program knows nothing
    /// of.
    NotProvable,
}

impl Category {
    /// The category that a certificate may claim. Without a KMS that reports the end of its
    /// keys, never "Purge".
    #[must_use]
    pub const fn of(stage: CertificateStage, assurance: Assurance) -> Self {
        match (stage, assurance) {
            (CertificateStage::Interim, _) => Self::Pending,
            (CertificateStage::Final, Assurance::ReportedGone | Assurance::Attested) => Self::Purge,
            (CertificateStage::Final, Assurance::FilesRemoved) => Self::None,
            (CertificateStage::Final, Assurance::BestEffort) => Self::Clear,
            (CertificateStage::Final, Assurance::NotProvable) => Self::NotProvable,
        }
    }
}

/// A technique of sanitization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Technique {
    /// Cryptographic erase: the keys are sanitized, and the ciphertext stays.
    CryptographicErase,
}

/// What the KMS of the epochs shows about a key that it destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assurance {
    /// Nothing that this program knows of.
    NotProvable,
    /// That its file was removed; the medium may still hold the bytes.
    FilesRemoved,
    /// That the KMS reports it gone, after the date of deletion that it had named.
    ReportedGone,
    /// What formats v1 and v2 said for [`Assurance::FilesRemoved`].
    BestEffort,
    /// What formats v1 and v2 said for [`Assurance::ReportedGone`].
    Attested,
}

impl Assurance {
    /// The most that the end of this key can be certified with.
    #[must_use]
    pub fn of(key: &KmsKeyId) -> Self {
        match DestructionAssurance::of(key) {
            DestructionAssurance::NotProvable => Self::NotProvable,
            DestructionAssurance::FilesRemoved => Self::FilesRemoved,
            DestructionAssurance::ReportedGone => Self::ReportedGone,
        }
    }

    /// What it claims of a provider.
    #[must_use]
    pub const fn proves(self) -> DestructionAssurance {
        match self {
            Self::NotProvable => DestructionAssurance::NotProvable,
            Self::FilesRemoved | Self::BestEffort => DestructionAssurance::FilesRemoved,
            Self::ReportedGone | Self::Attested => DestructionAssurance::ReportedGone,
        }
    }

    /// Whether it is a word of the first formats of certificates and papers, and of no later
    /// one, or the other way round.
    pub(super) const fn is_word(self, first: bool) -> bool {
        match self {
            Self::NotProvable => true,
            Self::FilesRemoved | Self::ReportedGone => !first,
            Self::BestEffort | Self::Attested => first,
        }
    }
}

/// What destroyed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// This program.
    Strongroom,
}

/// The version of a program: 1 to 64 of `0-9 a-z A-Z . + -`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolVersion(String);

impl ToolVersion {
    /// That of this program.
    #[must_use]
    pub fn current() -> Self {
        Self(env!("CARGO_PKG_VERSION").to_owned())
    }
}

impl fmt::Display for ToolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for ToolVersion {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ToolVersion {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let plain = |c: u8| c.is_ascii_alphanumeric() || b".+-".contains(&c);
        if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text))
        } else {
            Err(serde::de::Error::custom("not a version"))
        }
    }
}

/// What was destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The keys, by id.
    pub keys: Vec<DroppedKey>,
    /// The blobs that no wrap path leads to any longer.
    pub blobs: Blobs,
    /// Blobs that were under the keys and live on by another path, by why.
    pub survivors: Vec<Survivors>,
}

/// One key that was destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DroppedKey {
    /// Its id.
    pub id: KekId,
    /// What it was for.
    pub kind: KeyKind,
    /// The expiry day of a day key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub day: Option<Day>,
    /// Its check value: whoever has a key can tell whether it is this one.
    pub check_value: CheckValue,
    /// When it was made.
    pub minted: Timestamp,
    /// The epoch of the first ring version with it.
    pub born: u32,
    /// The epoch of the last.
    pub last: u32,
}

/// What a key of a ring is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// Blobs that expire on one day.
    Day,
    /// Held blobs.
    Hold,
    /// Names.
    Name,
}

/// The check value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckValue(pub [u8; 8]);

impl fmt::Display for CheckValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

impl Serialize for CheckValue {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CheckValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = HEXLOWER.decode(String::deserialize(from)?.as_bytes()).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("not a check value"))
    }
}

/// The blobs of a scope. Their ids are not in the certificate; whoever has them can
/// compare the digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blobs {
    /// Those whose sealing ended well.
    pub certain: u64,
    /// Those of which the log has the intent and no good end: they may never have been.
    pub uncertain: u64,
    /// SHA-256 over the ids of both, 16 bytes each, in ascending order.
    #[serde(with = "crate::audit::hex_digest")]
    pub digest: [u8; 32],
    /// The plaintext bytes of the certain ones, if they are known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plaintext_bytes: Option<u64>,
}

impl Blobs {
    /// These blobs. One in both sets counts as certain.
    #[must_use]
    pub fn of(
        certain: &BTreeSet<BlobId>,
        uncertain: &BTreeSet<BlobId>,
        plaintext_bytes: Option<u64>,
    ) -> Self {
        let mut digest = Sha256::new();
        // The union of two ordered sets comes in order.
        certain.union(uncertain).for_each(|id| digest.update(id.as_bytes()));
        Self {
            certain: certain.iter().map(|_| 1).sum(),
            uncertain: uncertain.difference(certain).map(|_| 1).sum(),
            digest: digest.finalize().into(),
            plaintext_bytes,
        }
    }
}

/// Blobs that live on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survivors {
    /// Why.
    pub class: SurvivorClass,
    /// How many.
    pub blobs: u64,
}

/// Why a blob lives on whose key was destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SurvivorClass {
    /// A legal hold.
    Held,
    /// It is kept until a later day.
    Extended,
    /// It was wrapped under another key of its day, because its neighbour was to be
    /// destroyed and it was not.
    Rewrapped,
}

/// The policy that a destruction is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The version of the customer's policy.
    pub version: u64,
    /// How long its blobs are kept.
    #[serde(with = "as_text")]
    pub retention: Period,
    /// How many days lie between the announcement of a destruction and itself.
    pub window_days: u32,
}

/// By whose order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authority {
    /// Nobody's: the retention period was over, and the policy approves that.
    Routine,
    /// That of two people.
    Order(Box<SignedOrder>),
}

/// An order as two people signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedOrder {
    /// Its id.
    pub id: OrderId,
    /// Who asked for it.
    pub requester: Signer,
    /// Who approved it: somebody else.
    pub approver: Signer,
    /// The version of the store's register in which both keys are.
    pub register: RingRef,
    /// The signed note.
    pub note: String,
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// The person. It is also the name of the key under the note.
    pub principal: Principal,
    /// The personal key.
    pub key: PublicKey,
}

/// The ring version by which the keys were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RingTransition {
    /// Its number.
    pub version: u64,
    /// SHA-256 of the stored object.
    #[serde(with = "crate::audit::hex_digest")]
    pub hash: [u8; 32],
    /// The number of the version before, which had the keys.
    pub previous: u64,
}

/// What time it was when the keys were dropped, and how that was known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeEvidence {
    /// The time that was acted upon: it was this late at least.
    pub at: Timestamp,
    /// What the clocks said, by source: two at least.
    pub readings: Vec<ClockReading>,
}

/// What one clock said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockReading {
    /// Which.
    pub source: ClockSource,
    /// What it said.
    pub at: Timestamp,
}

/// A clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockSource {
    /// The machine's own.
    Host,
    /// The object store's.
    Store,
    /// The KMS's.
    Kms,
    /// The latest time that the log has.
    Log,
}

/// That no cache holds a key any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caches {
    /// The longest that a program keeps an opened ring, in seconds.
    pub ttl_seconds: u64,
    /// When that was over: this long after the keys were dropped, or later.
    pub over: Timestamp,
}

/// How much ciphertext was deleted. The destruction does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ciphertext {
    /// Objects.
    pub objects: u64,
    /// Versions of them, where the storage keeps versions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub versions: Option<u64>,
}

/// A type through its text.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}
