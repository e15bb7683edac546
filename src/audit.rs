//! What the audit log records, as types without room for free text.
//!
//! A [`Record`] is one line of a commit: who did what to which ids, when and
//! why. The log itself, which makes records durable and chains them, is
//! [`log`] on floor 4. Separate, so that pure code can name a record without
//! being able to write one.
//!
//! Invariant: every field is an enum, a number, an id or a digest. PHI cannot
//! be put into a record by mistake, because nothing takes a string. New members are
//! optional, stand behind those that there are, and their absence is the old meaning
//! ([`members`]).

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::access::{Access, Factor, Origin, Principal, Purpose, RuleId};
use crate::error::ErrorKind;
use crate::id::{
    BlobId, CertificateId, CustomerId, DataKeyId, EmergencyId, HoldId, KekId, KmsKeyId, KmsRequestId,
    OrderId, RequestId, SessionId, WriterId,
};
use crate::merkle::{Hash, TreeHead};
use crate::time::{Day, Timestamp};

pub mod authority;
pub mod base;
pub mod chains;
pub mod commit;
pub mod emergency;
pub mod fhir;
pub mod head;
pub mod history;
pub mod layout;
pub mod log;
pub mod members;
pub mod operation;
pub mod papers;
pub mod proof;
pub mod publish;
pub mod query;
pub mod segment;
pub mod signer;
pub mod verify;
pub mod view;
pub mod voucher;

/// Proof that an intent to use a key is durable in the log.
///
/// Only the log makes one, after the commit that holds the intent was stored.
/// Whatever uses a key takes one by value, so that a use without a record does
/// not compile, and one record is one use.
///
/// ```
/// # use strongroom::{audit::KeyUseReceipt, id::KmsKeyId, kms::{EncryptionContext, Kms, KmsError}};
/// # async fn once(kms: &dyn Kms, receipt: KeyUseReceipt, key: &KmsKeyId, context: &EncryptionContext)
/// # -> Result<(), KmsError> {
/// kms.generate_data_key(receipt, key, context).await?;
/// # Ok(())
/// # }
/// ```
///
/// A second use of the same receipt does not compile:
///
/// ```compile_fail,E0382
/// # use strongroom::{audit::KeyUseReceipt, id::KmsKeyId, kms::{EncryptionContext, Kms, KmsError}};
/// # async fn twice(kms: &dyn Kms, receipt: KeyUseReceipt, key: &KmsKeyId, context: &EncryptionContext)
/// # -> Result<(), KmsError> {
/// kms.generate_data_key(receipt, key, context).await?;
/// kms.generate_data_key(receipt, key, context).await?;
/// # Ok(())
/// # }
/// ```
///
/// Nor does a copy of one, or one that nothing in the log stands for:
///
/// ```compile_fail,E0599
/// # fn copy(receipt: strongroom::audit::KeyUseReceipt) {
/// let again = receipt.clone();
/// # }
/// ```
///
/// ```compile_fail,E0624
/// # fn forge(request: strongroom::id::RequestId) {
/// let forged = strongroom::audit::KeyUseReceipt::mint(request);
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a receipt stands for one use of a key"]
pub struct KeyUseReceipt {
    request: RequestId,
    answer: KmsAnswer,
}

impl KeyUseReceipt {
    /// Called by the log once the intent of `request` is durable.
    pub(crate) fn mint(request: RequestId) -> Self {
        Self { request, answer: KmsAnswer::default() }
    }

    /// The request whose intent is durable.
    #[must_use]
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// Where a KMS's provider notes what the KMS calls the request that it makes of this use.
    #[must_use]
    pub fn answer(&self) -> &KmsAnswer {
        &self.answer
    }
}

/// What the KMS called the request that was made of it, for the outcome: noted by the
/// provider, whether the KMS did what it was asked or refused, and read when the outcome is
/// recorded, whatever became of its caller. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct KmsAnswer(Arc<Mutex<Option<KmsRequestId>>>);

impl KmsAnswer {
    /// Notes the id of a request, in place of an earlier one. None, or one that is not in the
    /// form of [`KmsRequestId`], leaves what there is.
    pub fn note(&self, id: Option<&str>) {
        if let Some(id) = id.and_then(|id| id.parse().ok()) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        }
    }

    /// The id of the last request, if there was one that has an id.
    #[must_use]
    pub fn id(&self) -> Option<KmsRequestId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 16 random bytes in base32: the salt of the leaf hash.
    pub nonce: RequestId,
    /// When the writer made the record.
    pub time: Timestamp,
    /// The running program that made it.
    pub writer: WriterId,
    /// What happened.
    pub event: Event,
    /// The record's place in the chain of its customer, if it concerns one. The
    /// log fills it in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chain: Option<Link>,
    /// The line that it was read from, where that has members which this version does not know
    /// ([`members`]).
    #[serde(skip)]
    pub(crate) stored: Option<Box<[u8]>>,
}

/// The place of a record among those of its customer in its shard: they are
/// numbered without a gap, and each names the one before. So a customer who is
/// given its own records, and nobody else's, sees whether one is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Its number, from 1.
    pub number: u64,
    /// The leaf hash of the one before, zeros in the first.
    pub previous: Hash,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "every other event is an intent")]
pub enum Event {
    /// A key is about to be used, or a key storage about to be written.
    Intent(Intent),
    /// How it ended.
    Outcome(Outcome),
    /// The writer lives, and has intents that are still open.
    Alive,
    /// Another writer counts as dead: from here on it writes no more to this
    /// shard, and the same commit has the outcomes of its open intents.
    Fence(Fence),
    /// The shard is its writer's own until it is released or the writer fenced.
    Claim,
    /// The shard is its writer's no longer.
    Release,
    /// Where another shard stands: the first shard's log is the log over all.
    Shard(ShardHead),
    /// How many records of a customer there are in each shard: the end of a
    /// view that the customer is given.
    View(View),
    /// From this commit on, writers of the shard are endorsed by the log's next key.
    Key(KeyChanged),
    /// A base of a shard was made, and this is it.
    Base(BaseRef),
    /// From here on, the commits of a shard before this base may be missing: it stands for them.
    Removal(BaseRef),
}

impl Event {
    /// The customer whom it concerns.
    #[must_use]
    pub fn customer(&self) -> Option<CustomerId> {
        match self {
            Self::Intent(intent) => intent.customer,
            Self::Outcome(outcome) => outcome.customer,
            Self::View(view) => Some(view.customer),
            Self::Alive
            | Self::Fence(_)
            | Self::Claim
            | Self::Release
            | Self::Shard(_)
            | Self::Base(_)
            | Self::Removal(_)
            | Self::Key(_) => None,
        }
    }
}

/// Which writer counts as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The writer.
    pub writer: WriterId,
}

/// Which key of the log counts from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChanged {
    /// Its number, from 2.
    pub number: u32,
    /// SHA-256 of the statement by which it came ([`authority::KeyChange`]).
    pub digest: Hash,
}

/// Where another shard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardHead {
    /// The shard. One that is named for the first time, with an empty tree,
    /// begins.
    pub shard: u16,
    /// Its tree.
    pub tree: TreeHead,
}

/// Where a base stands and what it is, as the record in the first shard has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRef {
    /// The shard.
    pub shard: u16,
    /// How many commits it is of.
    pub commits: u64,
    /// The tree of their records.
    pub tree: TreeHead,
    /// How many customers there are, and the root of the tree of their lines.
    pub customers: TreeHead,
    /// SHA-256 of the header's line, without the line feed.
    pub digest: Hash,
}

/// How many records of one customer there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The customer.
    pub customer: CustomerId,
    /// For every shard there is, in order, where it stood and what of it is the
    /// customer's. In the first shard, what stands before this record.
    pub shards: Vec<ViewShard>,
}

/// What of one shard is one customer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewShard {
    /// The shard.
    pub shard: u16,
    /// Its tree.
    pub tree: TreeHead,
    /// How many of its records are the customer's.
    pub records: u64,
    /// The leaf hash of the last of them, zeros if there is none.
    pub last: Hash,
}

/// That a key is about to be used: durable before it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Pairs with the outcome.
    pub request: RequestId,
    /// The operation that made this one necessary, when it was not a caller's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<RequestId>,
    /// Who.
    pub principal: Principal,
    /// From where.
    pub origin: Origin,
    /// Why.
    pub purpose: Purpose,
    /// What.
    pub action: Action,
    /// Whose.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub customer: Option<CustomerId>,
    /// To which blob.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub blob: Option<BlobId>,
    /// With which key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<KeyRef>,
    /// The version of a ring, or of the register, that is about to be written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ring: Option<RingRef>,
    /// By which order of two people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub order: Option<OrderId>,
    /// Which legal hold.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold: Option<HoldId>,
    /// Which certificate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificate: Option<CertificateId>,
    /// The rule of the policy that allowed it, or did not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<RuleId>,
    /// Within which session of the customer's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<SessionId>,
    /// What was written down of a return to a customer: of one blob, or the manifest of
    /// all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub returned: Option<Box<ReturnedRef>>,
    /// In which emergency.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub emergency: Option<Box<EmergencyRef>>,
    /// Which second factor the person had.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub factor: Option<Factor>,
    /// SHA-256 of the file that is from here on gone by: the mapping of credentials to
    /// principals.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<Hash>,
}

impl Intent {
    /// An intent by `access`; the other fields are set by struct update.
    #[must_use]
    pub fn new(request: RequestId, access: &Access, action: Action) -> Self {
        Self {
            request,
            cause: access.request,
            principal: access.principal.clone(),
            origin: access.origin,
            purpose: access.purpose,
            action,
            customer: None,
            blob: None,
            key: None,
            ring: None,
            order: None,
            hold: None,
            certificate: None,
            rule: access.rule.clone(),
            session: access.session,
            returned: None,
            emergency: access.emergency.map(|id| Box::new(EmergencyRef::new(id))),
            factor: access.factor,
            digest: None,
        }
    }
}

/// What is done. Each is one use of one key, or one write to the keys storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Action {
    /// A store is made.
    Init,
    /// A customer is added.
    CustomerAdd,
    /// A customer's settings are changed.
    CustomerSet,
    /// A blob is sealed.
    Seal,
    /// A blob is opened whole.
    Open,
    /// A part of a blob is opened.
    OpenRange,
    /// A blob is read through without releasing anything.
    Verify,
    /// A blob's metadata is opened.
    Stat,
    /// A blob's metadata is opened to list it.
    List,
    /// A name is looked up.
    Find,
    /// The KMS makes a data key.
    KmsGenerateDataKey,
    /// The KMS unwraps a data key.
    KmsDecrypt,
    /// A ring version is written.
    RingWrite,
    /// A ring, an epoch record or a label is read. Recorded where it is refused.
    KeysRead,
    /// A blob's key is wrapped under the key of a later day.
    Extend,
    /// A blob's key is wrapped under another key of its ring.
    Rewrap,
    /// A legal hold is placed, or what it needs is completed.
    HoldPlace,
    /// A legal hold is released.
    HoldRelease,
    /// What is due is looked for. Recorded where it is refused.
    ShredSweep,
    /// A key of a ring enters the window before its destruction.
    ShredPend,
    /// A key of a ring leaves that window again.
    ShredCancel,
    /// A key of a ring is dropped from it: its tombstone.
    ShredDrop,
    /// A certificate of destruction is made.
    Certify,
    /// What is left of shredded blobs is deleted.
    CiphertextDelete,
    /// Somebody asks for what takes two people.
    OrderRequest,
    /// Somebody else approves it.
    OrderApprove,
    /// Who may sign orders is changed.
    PeopleSet,
    /// The time that destruction goes by is accepted.
    ClockSet,
    /// A version of the store's register is written.
    RegisterWrite,
    /// An epoch begins.
    EpochCreate,
    /// The record of an epoch is written.
    EpochWrite,
    /// The KMS key of an epoch is disabled.
    EpochDisable,
    /// The KMS key of an epoch is enabled again, because a ring was left behind.
    EpochEnable,
    /// The deletion of an epoch's KMS key is scheduled.
    EpochDelete,
    /// A ring is moved to another KMS key of its customer.
    Rekey,
    /// A blob is returned to its customer.
    OffboardReturn,
    /// A customer is closed: nothing new is sealed for it.
    OffboardClose,
    /// The deletion of a customer's KMS key is scheduled.
    CustomerKeyDelete,
    /// Somebody asks to be let in. Recorded where it is refused, and nothing else says
    /// what was asked for.
    Admit,
    /// What is kept about a customer is read: settings, policies, holds, certificates.
    CustomerRead,
    /// The log is asked.
    AuditRead,
    /// A session begins: its grant is made at the customer's KMS.
    SessionOpen,
    /// A session ends: its grant is retired.
    SessionEnd,
    /// Somebody asks a customer to be let in.
    AccessRequest,
    /// The customer lets them in: a session for them begins.
    AccessApprove,
    /// A person declares an emergency, to read a customer's blobs while the log cannot be
    /// written.
    EmergencyDeclare,
    /// All that was done in an emergency is in the log.
    EmergencyFold,
    /// Somebody else has looked at what was done in an emergency.
    EmergencyReview,
    /// From here on, the daemon maps credentials to principals by another file.
    AccessMap,
    /// The signing key of the log is replaced by the next.
    LogKeyRotate,
    /// Somebody says that this host's clock is right, where the log is old and no second clock
    /// tells: the commit of this record is the step.
    ClockConfirm,
}

/// Which key is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeyRef {
    /// A key of a ring.
    Kek {
        /// Its id.
        id: KekId,
        /// The expiry day it belongs to.
        day: Day,
    },
    /// The ring key that wraps a blob of this day, before its header said which.
    Day {
        /// The expiry day.
        day: Day,
    },
    /// A key of a ring for held blobs.
    HoldKey {
        /// Its id.
        id: KekId,
    },
    /// A name key of a ring.
    NameKey {
        /// Its id.
        id: KekId,
    },
    /// A customer's KMS key, for a data key.
    Customer {
        /// The KMS key.
        kms_key: KmsKeyId,
        /// The data key.
        data_key: DataKeyId,
    },
    /// A customer's KMS key, for the DEK of the blob that the record names: strict
    /// accountability.
    Blob {
        /// The KMS key.
        kms_key: KmsKeyId,
    },
    /// An epoch's KMS key.
    Epoch {
        /// The KMS key.
        kms_key: KmsKeyId,
        /// The epoch.
        epoch: u32,
    },
}

/// One version of one customer's ring, as the log pins it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingRef {
    /// The version, from 1.
    pub version: u64,
    /// SHA-256 of the stored object.
    #[serde(with = "hex_digest")]
    pub hash: [u8; 32],
}

/// What was written down of a return to a customer, where it was returned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReturnedRef {
    /// SHA-256 of it.
    #[serde(with = "hex_digest")]
    pub sha256: [u8; 32],
}

/// Which emergency it was in, and what the log could not say at the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EmergencyRef {
    /// The emergency.
    pub id: EmergencyId,
    /// When it was done, where the log could not be written then and has it from the sink.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<Timestamp>,
    /// When the emergency is over, in its declaration.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
}

impl EmergencyRef {
    /// What names an emergency and says no more.
    #[must_use]
    pub const fn new(id: EmergencyId) -> Self {
        Self { id, at: None, until: None }
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Pairs with the intent.
    pub request: RequestId,
    /// Whose, as the intent has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub customer: Option<CustomerId>,
    /// How.
    pub result: OutcomeResult,
    /// Plaintext bytes sealed or released, where that has a meaning.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes: Option<u64>,
    /// The ring key that was used, where the intent could not name it yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<KekId>,
    /// What the KMS called the request, where it was asked and said so: the last one, if the
    /// operation took several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kms_request: Option<KmsRequestId>,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OutcomeResult {
    /// As asked.
    Ok,
    /// The caller went away before the end.
    Aborted,
    /// Bytes did not verify.
    AuthenticationFailed,
    /// The store contradicts the log.
    IntegrityFailed,
    /// The KMS key could not be used.
    KeyUnavailable,
    /// The key is gone.
    KeyDestroyed,
    /// There was nothing of that id.
    NotFound,
    /// Another writer came first; nothing was changed.
    Conflict,
    /// Not allowed.
    Denied,
    /// A storage or the KMS failed.
    Unavailable,
    /// Anything else; nothing was changed.
    Failed,
    /// The writer died; another one closed its intent.
    Unknown,
}

impl From<ErrorKind> for OutcomeResult {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::AlreadyExists | ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Authentication => Self::AuthenticationFailed,
            ErrorKind::Integrity => Self::IntegrityFailed,
            ErrorKind::KeyUnavailable => Self::KeyUnavailable,
            ErrorKind::KeyDestroyed => Self::KeyDestroyed,
            ErrorKind::Unavailable | ErrorKind::AuditUnavailable => Self::Unavailable,
            ErrorKind::Denied => Self::Denied,
            _ => Self::Failed,
        }
    }
}

/// A digest as lower-case hexadecimal.
pub(crate) mod hex_digest {
    use data_encoding::HEXLOWER;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(digest: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&HEXLOWER.encode(digest))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| serde::de::Error::custom("not a digest"))?;
        bytes.try_into().map_err(|_| serde::de::Error::custom("not a digest of 32 bytes"))
    }
}
