//! What a key management service must do for us: the contract, and the errors.
//!
//! A KMS keeps key-encryption keys that never leave it and makes *data keys*
//! under them: 32 bytes in the clear, to use, and the same bytes wrapped, to
//! store. Providers are on floor 4 ([`local`], `aws`) and pass one contract
//! test suite. Separate from them so that nothing below knows a provider.
//!
//! Trust: a KMS is trusted to keep keys and to destroy them. It learns the
//! encryption context, which holds opaque ids only and shows up in the clear
//! in its own logs (CloudTrail).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;

use crate::audit::{KeyUseReceipt, KmsAnswer};
use crate::error::{Error, ErrorKind, Source};
use crate::id::{BlobId, CustomerId, DataKeyId, KmsKeyId, SessionId, StoreId};
use crate::secret::Secret;
use crate::time::Timestamp;

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(test)]
pub(crate) mod contract;
pub mod local;

/// A KMS that can make and unwrap data keys.
///
/// # Contract
/// * **Naming**: the key id is passed on every call and the id in the answer is
///   compared with it; a mismatch is [`KmsErrorKind::Authentication`]. A key is
///   never found by trying.
/// * **Context**: what was wrapped under one [`EncryptionContext`] unwraps under
///   an equal one only; any other is [`KmsErrorKind::Authentication`].
/// * **Evidence**: each call takes the receipt of a durable intent by value. A
///   provider may retry within the call; that is one use. What the KMS calls the request it
///   notes in the receipt ([`KeyUseReceipt::answer`]), for a refusal too: the last try's.
/// * **Retry**: throttling and passing faults are retried inside, with jitter
///   and within a bound of seconds, and end as [`KmsErrorKind::Unavailable`].
///   A refusal is never retried.
/// * **Time**: a call ends within its provider's deadline even if the other side
///   hangs.
/// * **Cancel safety**: dropping the future leaves no state behind here; the
///   call may or may not have been made.
/// * **Secrets**: plaintext of a data key is in [`DataKey`] only; every buffer it
///   passed through is wiped.
#[async_trait]
pub trait Kms: Send + Sync + fmt::Debug {
    /// The prefix of this provider's key ids: `local`, `aws-kms`.
    fn provider(&self) -> &'static str;

    /// Makes a data key under `key`.
    ///
    /// # Errors
    /// [`KmsError`], by what to do about it.
    async fn generate_data_key(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError>;

    /// Unwraps a data key that was made under `key` with an equal context.
    ///
    /// # Errors
    /// [`KmsError`], by what to do about it.
    async fn decrypt(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError>;

    /// The lasting id of a key that may be named by an alias: what to store.
    /// Uses no key, and needs no receipt.
    ///
    /// # Errors
    /// [`KmsError`]; [`KmsErrorKind::Invalid`] if it is no key for data keys.
    async fn resolve(&self, key: &KmsKeyId) -> Result<KmsKeyId, KmsError> {
        Ok(key.clone())
    }

    /// The lasting id of a key that shall become an epoch's, as
    /// [`Kms::resolve`] gives it, if the end of this one key is the end of every
    /// copy: it lives in one place, and its material was made in the KMS and
    /// never left it.
    ///
    /// # Errors
    /// As [`Kms::resolve`]; [`KmsErrorKind::Invalid`] if copies of its material
    /// may outlive it.
    async fn resolve_for_epoch(&self, key: &KmsKeyId) -> Result<KmsKeyId, KmsError> {
        self.resolve(key).await
    }

    /// The state of a key. Uses no key, and needs no receipt.
    ///
    /// [`KmsErrorKind::KeyDestroyed`] is the provider's word that the key is gone
    /// for good, and a certificate may rest on it: a provider says so only where
    /// it knows that it asked in the right place, and anything less is another
    /// kind. A key that was made seconds ago may not be known everywhere yet, so
    /// a caller that certifies has seen the key pending deletion before, and
    /// its day of deletion pass.
    ///
    /// # Errors
    /// [`KmsError`]; a key that does not exist is [`KmsErrorKind::KeyDestroyed`].
    async fn describe(&self, key: &KmsKeyId) -> Result<KeyState, KmsError>;
}

/// The part of a KMS that makes keys. `init`, the rotation of epochs and whoever
/// adds a customer hold one; it ends no key ([`KmsDestroyer`] does).
#[async_trait]
pub trait KmsAdmin: Kms {
    /// Makes a new enabled key, which lives in one place only and whose material
    /// never was outside the KMS. `tags` name what it is for, with opaque ids.
    ///
    /// # Errors
    /// [`KmsError`].
    async fn create_key(&self, tags: &EncryptionContext) -> Result<KmsKeyId, KmsError>;
}

/// The part of a KMS that ends keys. Only the commands that finish an epoch or
/// the offboarding of a customer hold one, with credentials of their own: no
/// daemon can ask for a deletion, because nothing it has been given knows how.
///
/// # Contract
/// * `disable` takes effect for every later call that starts after it returned.
/// * `schedule_deletion` makes the key unusable at once and destroys it no
///   sooner than `days` later; until then `cancel_deletion` leaves it disabled.
/// * All are idempotent: asking for the state a key is in is no error. So is
///   disabling a key that is pending deletion, scheduling it once more (the
///   first date stands), and cancelling where nothing is scheduled.
/// * What they did is seen with [`Kms::describe`], to the end: a key that is gone
///   is [`KmsErrorKind::KeyDestroyed`], and nothing else is.
#[async_trait]
pub trait KmsDestroyer: Kms {
    /// Lets a disabled key be used again.
    ///
    /// # Errors
    /// [`KmsError`]; [`KmsErrorKind::KeyUnavailable`] while it is pending deletion.
    async fn enable(&self, key: &KmsKeyId) -> Result<(), KmsError>;

    /// Stops all use of a key.
    ///
    /// # Errors
    /// [`KmsError`].
    async fn disable(&self, key: &KmsKeyId) -> Result<(), KmsError>;

    /// Destroys a key after `days` (7 to 30), and returns when.
    ///
    /// # Errors
    /// [`KmsError`]; [`KmsErrorKind::Invalid`] outside 7 to 30.
    async fn schedule_deletion(&self, key: &KmsKeyId, days: u32) -> Result<Timestamp, KmsError>;

    /// Takes a scheduled deletion back; the key is disabled afterwards. A key
    /// that is not pending deletion stays as it is.
    ///
    /// # Errors
    /// [`KmsError`]; [`KmsErrorKind::KeyDestroyed`] if it is too late.
    async fn cancel_deletion(&self, key: &KmsKeyId) -> Result<(), KmsError>;

    /// The same, noting in `answer` what the KMS calls each change that it is asked for. `None`
    /// of a provider whose KMS calls requests nothing.
    fn noting(&self, answer: &KmsAnswer) -> Option<Arc<dyn KmsDestroyer>> {
        let _ = answer;
        None
    }
}

/// The part of a KMS that lets a customer's key unwrap for the time of a session, and no
/// longer: for a key that is in the customer's hand. While no grant stands, the KMS
/// refuses to unwrap, whatever this program believes.
///
/// Give it credentials of the customer's, which the nodes that seal and open do not have:
/// whoever may make grants may let themselves in.
///
/// # Contract
/// * A key in the customer's hand unwraps what a grant covers while that grant stands:
///   each pair of [`Grant::constraint`] is in the context of the call. Making data keys
///   takes no grant.
/// * `create_grant` is idempotent by the grant's session: asked again for the same one, it
///   gives the one that stands.
/// * `retire_grants` takes every grant of a session away, for every later call that starts
///   after it took effect: at once, or where the provider says so within minutes. None is
///   no error.
/// * **Evidence**: each call that changes something takes the receipt of a durable intent
///   by value.
/// * **Retry**, **time** and **cancel safety** are those of [`Kms`]. A call that was given
///   up may have been made: a grant is found again by its session.
#[async_trait]
pub trait KmsGrants: Kms {
    /// Whether `key` can be in a customer's hand: as far as the provider can tell, it
    /// unwraps under a grant only.
    ///
    /// # Errors
    /// [`KmsError`]; [`KmsErrorKind::Invalid`] if it is known to unwrap without.
    async fn check_fit(&self, key: &KmsKeyId) -> Result<(), KmsError>;

    /// Lets `key` unwrap what `grant` covers, and returns what the provider calls it.
    ///
    /// # Errors
    /// [`KmsError`], by what to do about it.
    async fn create_grant(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        grant: &Grant,
    ) -> Result<GrantId, KmsError>;

    /// Takes every grant of `session` on `key` away, and returns how many there were.
    ///
    /// # Errors
    /// [`KmsError`]; then some may stand.
    async fn retire_grants(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        session: SessionId,
    ) -> Result<usize, KmsError>;

    /// The sessions that have a grant on `key`, sorted. Uses no key, and needs no receipt.
    ///
    /// # Errors
    /// [`KmsError`].
    async fn grants(&self, key: &KmsKeyId) -> Result<Vec<SessionId>, KmsError>;
}

/// What a grant lets be done: to unwrap the data keys of one customer of one store,
/// within one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The store.
    pub store: StoreId,
    /// The customer.
    pub customer: CustomerId,
    /// The session that it is for, by which it is found again.
    pub session: SessionId,
}

impl Grant {
    /// The pairs that the context of a call must have.
    #[must_use]
    pub fn constraint(&self) -> EncryptionContext {
        EncryptionContext(BTreeMap::from([
            ("strongroom:store", self.store.to_string()),
            ("strongroom:customer", self.customer.to_string()),
        ]))
    }

    /// Whether it covers a call with this context.
    #[must_use]
    pub fn covers(&self, context: &EncryptionContext) -> bool {
        self.constraint().0.iter().all(|(name, value)| context.0.get(name) == Some(value))
    }
}

/// What a provider calls a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantId(String);

impl GrantId {
    /// The longest, in bytes.
    pub const MAX_LEN: usize = 128;

    /// The id that a provider gave, if it is 1 to 128 of `A-Z a-z 0-9 -`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        (plain && (1..=Self::MAX_LEN).contains(&text.len())).then(|| Self(text.to_owned()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The providers of this program, by the prefix of their key ids. They seal, open
/// and make keys; some make grants, with credentials that may be others.
///
/// A key cannot be ended with what a registry hands out:
///
/// ```
/// # async fn look(kms: strongroom::kms::KmsRegistry, key: strongroom::id::KmsKeyId) {
/// let _state = kms.get(&key).unwrap().describe(&key).await;
/// # }
/// ```
///
/// ```compile_fail,E0599
/// # async fn look(kms: strongroom::kms::KmsRegistry, key: strongroom::id::KmsKeyId) {
/// let _due = kms.get(&key).unwrap().schedule_deletion(&key, 7).await;
/// # }
/// ```
///
/// That takes a [`DestroyerRegistry`]:
///
/// ```
/// # use strongroom::kms::DestroyerRegistry;
/// # async fn look(kms: DestroyerRegistry, key: strongroom::id::KmsKeyId) {
/// let _due = kms.get(&key).unwrap().schedule_deletion(&key, 7).await;
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct KmsRegistry {
    providers: Providers<dyn KmsAdmin>,
    granters: Providers<dyn KmsGrants>,
}

impl KmsRegistry {
    /// A registry without providers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same registry with `provider`, in place of another of its prefix.
    #[must_use]
    pub fn with(mut self, provider: Arc<dyn KmsAdmin>) -> Self {
        self.providers.insert(provider.provider(), provider);
        self
    }

    /// The same registry with `provider` to make and retire grants, in place of another of
    /// its prefix.
    #[must_use]
    pub fn with_grants(mut self, provider: Arc<dyn KmsGrants>) -> Self {
        self.granters.insert(provider.provider(), provider);
        self
    }

    /// Who makes and retires the grants on `key`.
    ///
    /// # Errors
    /// [`KmsErrorKind::Configuration`] if nobody here does: sessions are opened and ended
    /// elsewhere.
    pub fn granter(&self, key: &KmsKeyId) -> Result<&Arc<dyn KmsGrants>, KmsError> {
        let none = "grants on this KMS key are not made here: no provider was set up for them";
        self.granters.find(key.provider()).ok_or_else(|| KmsError::new(KmsErrorKind::Configuration, none))
    }

    /// The provider of `key`.
    ///
    /// # Errors
    /// As [`KmsRegistry::provider`].
    pub fn get(&self, key: &KmsKeyId) -> Result<&Arc<dyn KmsAdmin>, KmsError> {
        self.provider(key.provider())
    }

    /// The provider whose key ids begin with `prefix`, to make a key with.
    ///
    /// # Errors
    /// [`KmsErrorKind::Configuration`] if there is none: it was not registered,
    /// was not built in, or does not exist.
    pub fn provider(&self, prefix: &str) -> Result<&Arc<dyn KmsAdmin>, KmsError> {
        self.providers.get(prefix)
    }
}

/// The providers that may end keys, by the prefix of their key ids: for the
/// commands that finish an epoch or an offboarding, and for no one else.
#[derive(Clone, Debug, Default)]
pub struct DestroyerRegistry(Providers<dyn KmsDestroyer>);

impl DestroyerRegistry {
    /// A registry without providers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same registry with `provider`, in place of another of its prefix.
    #[must_use]
    pub fn with(mut self, provider: Arc<dyn KmsDestroyer>) -> Self {
        self.0.insert(provider.provider(), provider);
        self
    }

    /// The provider of `key`.
    ///
    /// # Errors
    /// As [`KmsRegistry::provider`].
    pub fn get(&self, key: &KmsKeyId) -> Result<&Arc<dyn KmsDestroyer>, KmsError> {
        self.0.get(key.provider())
    }
}

/// What the registries are made of.
#[derive(Debug)]
struct Providers<P: ?Sized>(BTreeMap<&'static str, Arc<P>>);

impl<P: ?Sized> Providers<P> {
    fn insert(&mut self, prefix: &'static str, provider: Arc<P>) {
        self.0.insert(prefix, provider);
    }

    fn find(&self, prefix: &str) -> Option<&Arc<P>> {
        self.0.get(prefix)
    }

    fn get(&self, prefix: &str) -> Result<&Arc<P>, KmsError> {
        self.find(prefix).ok_or_else(|| {
            let message = match prefix {
                "local" => "local keys are not set up here: name the key directory",
                "aws-kms" if cfg!(feature = "aws") => "AWS KMS is not set up here",
                "aws-kms" => "AWS KMS is not in this program: build it with the feature `aws`",
                _ => "no such key provider: key ids begin with `local:` or `aws-kms:`",
            };
            KmsError::new(KmsErrorKind::Configuration, message)
        })
    }
}

impl<P: ?Sized> Clone for Providers<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: ?Sized> Default for Providers<P> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// What a provider's answer shows about the end of a key, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DestructionAssurance {
    /// Nothing that this program knows how to read.
    NotProvable,
    /// The file of the key was overwritten and unlinked. The medium may still hold its bytes.
    FilesRemoved,
    /// The provider had scheduled the deletion, and reports the key gone after that date. It
    /// shows nothing else: that no copy remains is the provider's word in its documentation.
    ReportedGone,
}

/// What the answer of each provider shows. The maker and the checker of a certificate both go
/// by this table, and a provider cannot speak for itself: a new one is a row here.
const ASSURANCES: [(&str, DestructionAssurance); 2] =
    [("aws-kms", DestructionAssurance::ReportedGone), ("local", DestructionAssurance::FilesRemoved)];

impl DestructionAssurance {
    /// What the provider of this key shows about its end. A provider without a row in the
    /// table shows nothing.
    #[must_use]
    pub fn of(key: &KmsKeyId) -> Self {
        let row = ASSURANCES.into_iter().find(|(provider, _)| *provider == key.provider());
        row.map_or(Self::NotProvable, |(_, assurance)| assurance)
    }
}

/// Where a key stands in its life, in AWS KMS's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Can be used.
    Enabled,
    /// Cannot be used until it is enabled.
    Disabled,
    /// Cannot be used, and will be destroyed no sooner than this.
    PendingDeletion(Option<Timestamp>),
    /// Cannot be used for another reason (being made, imported material gone).
    Unavailable,
}

/// What a data key is bound to: pairs of fixed names and opaque ids. Equal sets
/// are equal contexts, whatever their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptionContext(BTreeMap<&'static str, String>);

impl EncryptionContext {
    /// The context of an epoch's data key.
    #[must_use]
    pub fn epoch(store: StoreId, epoch: u32) -> Self {
        Self(BTreeMap::from([
            ("strongroom:use", "epoch".to_owned()),
            ("strongroom:store", store.to_string()),
            ("strongroom:epoch", epoch.to_string()),
        ]))
    }

    /// The tags of a KMS key that is made for a new customer.
    #[must_use]
    pub fn new_customer(store: StoreId, customer: CustomerId) -> Self {
        Self(BTreeMap::from([
            ("strongroom:use", "customer".to_owned()),
            ("strongroom:store", store.to_string()),
            ("strongroom:customer", customer.to_string()),
        ]))
    }

    /// The same tags for a key that is to be in the customer's hand: one that unwraps under
    /// a grant only ([`KmsGrants`]), where the provider can see to that itself.
    #[must_use]
    pub fn in_customers_hand(mut self) -> Self {
        self.0.insert("strongroom:tenancy", "customer".to_owned());
        self
    }

    /// Whether they are the tags of a key that is to be in a customer's hand.
    #[must_use]
    pub fn is_in_customers_hand(&self) -> bool {
        self.0.get("strongroom:tenancy").is_some_and(|value| value == "customer")
    }

    /// The context of a customer's data key.
    #[must_use]
    pub fn customer(store: StoreId, customer: CustomerId, data_key: DataKeyId) -> Self {
        Self(BTreeMap::from([
            ("strongroom:use", "ring".to_owned()),
            ("strongroom:store", store.to_string()),
            ("strongroom:customer", customer.to_string()),
            ("strongroom:data-key", data_key.to_string()),
        ]))
    }

    /// Whether it is an epoch's.
    #[must_use]
    pub fn is_of_epoch(&self) -> bool {
        self.0.get("strongroom:use").is_some_and(|value| value == "epoch")
    }

    /// The context of one blob's DEK, under strict accountability.
    #[must_use]
    pub fn blob(store: StoreId, customer: CustomerId, blob: BlobId) -> Self {
        Self(BTreeMap::from([
            ("strongroom:use", "blob".to_owned()),
            ("strongroom:store", store.to_string()),
            ("strongroom:customer", customer.to_string()),
            ("strongroom:blob", blob.to_string()),
        ]))
    }

    /// The pairs, sorted by name.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

/// A data key in the clear: it opens what a KMS key protects, for as long as it
/// is held.
#[derive(Debug)]
pub struct DataKey(Secret<32>);

impl DataKey {
    /// A data key of these bytes.
    #[must_use]
    pub fn new(bytes: Secret<32>) -> Self {
        Self(bytes)
    }

    /// Its bytes, for the key schedule.
    #[must_use]
    pub fn secret(&self) -> &Secret<32> {
        &self.0
    }

    /// Its bytes, where the data key itself is a blob's DEK.
    #[must_use]
    pub fn into_secret(self) -> Secret<32> {
        self.0
    }
}

/// A data key as the KMS wrapped it. Not secret by itself.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedDataKey(Vec<u8>);

impl fmt::Debug for WrappedDataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappedDataKey").finish_non_exhaustive()
    }
}

impl WrappedDataKey {
    /// The longest that is stored, in bytes. AWS KMS's are under 400.
    pub const MAX_LEN: usize = 6144;

    /// The ciphertext of a data key.
    #[must_use]
    pub fn new(ciphertext: Vec<u8>) -> Self {
        Self(ciphertext)
    }

    /// The ciphertext.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A new data key, in the clear and wrapped.
#[derive(Debug)]
pub struct GeneratedDataKey {
    /// To use now.
    pub plaintext: DataKey,
    /// To store.
    pub wrapped: WrappedDataKey,
}

/// What a KMS error asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KmsErrorKind {
    /// No answer, throttled, or out of order: retry later.
    Unavailable,
    /// The key is disabled or pending deletion, or its use is denied to us.
    KeyUnavailable,
    /// The key does not exist, or no longer.
    KeyDestroyed,
    /// The ciphertext, the context or the key id does not fit.
    Authentication,
    /// The request is not one the KMS takes.
    Invalid,
    /// The provider cannot be used as it is set up (credentials, file modes).
    Configuration,
}

/// Why a KMS call failed.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct KmsError {
    kind: KmsErrorKind,
    message: &'static str,
    #[source]
    source: Option<Source>,
}

impl KmsError {
    /// An error with a fixed sentence.
    #[must_use]
    pub fn new(kind: KmsErrorKind, message: &'static str) -> Self {
        Self { kind, message, source: None }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> KmsErrorKind {
        self.kind
    }
}

impl From<KmsError> for Error {
    fn from(error: KmsError) -> Self {
        let (kind, message) = match error.kind {
            KmsErrorKind::Unavailable => (ErrorKind::Unavailable, "the KMS is unavailable"),
            KmsErrorKind::KeyUnavailable => (ErrorKind::KeyUnavailable, "the KMS key cannot be used"),
            KmsErrorKind::KeyDestroyed => (ErrorKind::KeyDestroyed, "the KMS key does not exist"),
            KmsErrorKind::Authentication => return Self::authentication().with_source(error),
            KmsErrorKind::Invalid => (ErrorKind::InvalidInput, "the KMS refused the request"),
            KmsErrorKind::Configuration => {
                (ErrorKind::Configuration, "the KMS cannot be used as it is set up")
            }
        };
        Self::new(kind, message).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_sorted_and_holds_ids() {
        let store = StoreId::from_bytes([1; 16]);
        let context = EncryptionContext::epoch(store, 7);
        let names: Vec<_> = context.pairs().map(|(name, _)| name).collect();
        assert_eq!(names, ["strongroom:epoch", "strongroom:store", "strongroom:use"]);
    }

    #[test]
    fn a_missing_provider_says_what_to_do() {
        let error = KmsRegistry::new().get(&"aws-kms:arn".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Configuration);
        assert_eq!(error.to_string().contains("feature `aws`"), cfg!(not(feature = "aws")));
        for error in [
            KmsRegistry::new().get(&"vault:a".parse().unwrap()).unwrap_err(),
            DestroyerRegistry::new().get(&"vault:a".parse().unwrap()).unwrap_err(),
        ] {
            assert!(error.to_string().contains("no such key provider"));
        }
    }

    static_assertions::assert_not_impl_any!(DataKey: Clone, serde::Serialize, PartialEq);
}
