//! The key ring: one customer's settings and keys, as a pure state machine.
//!
//! A [`Ring`] is one version: who the customer is, which KMS key and which data
//! keys it has, and an [`Entry`] for each live key. [`Ring::apply`] gives the
//! next version or says why not; nothing is ever changed in place, and a version
//! that was written is never overwritten. The stored form is in [`sealed`].
//!
//! Two seals protect a key: its entry is sealed under a customer data key, and
//! the whole ring under the epoch's data key. So flags, drops and re-issues need
//! no customer key, and one customer's disabled key delays nobody else.
//!
//! Invariants, kept by `apply` and checked on everything that is read
//! ([`Ring::check`], [`Ring::check_successor`]):
//! * versions count up by one and epochs never go down;
//! * the id of a dropped key never returns, and stays in the list;
//! * entries are sorted by id, and each refers to a data key of the ring;
//! * a key that a hold covers is not dropped; a hold is released by an order of two
//!   people, and stays in the list;
//! * from `Pending` on a key wraps nothing new, and it is dropped when its window is
//!   over and no sooner;
//! * a policy and an order that was used stay in their lists;
//! * what an order that destroys owns is its own until it is carried out or taken back,
//!   whatever else is taken back or held.
//!
//! Who may corrupt it: the keys storage could withhold the newest version; the
//! audit log pins version and hash, and an older ring is refused.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::audit::KeyUseReceipt;
use crate::codec::{DecodeError, Encode, Writer, strictly_ascending};
use crate::envelope::{self, Kek};
use crate::id::{BlobId, CustomerId, DataKeyId, HoldId, KekId, KmsKeyId, Label, OrderId, StoreId};
use crate::kms::{DataKey, WrappedDataKey};
use crate::retention::{Period, Window};
use crate::schedule::{self, SALT_LEN, Salt};
use crate::secret::Secret;
use crate::suite::{AeadKey, KEY_LEN, OpenError, Suite, TAG_LEN};
use crate::time::{Day, Timestamp};

mod body;
mod change;
mod claim;
pub mod delta;
mod due;
pub mod growth;
mod hold;
pub mod sealed;
mod tombstone;
mod usage;

pub use change::{Change, RingRefusal};
pub use claim::{Claim, ClaimState};
pub use due::Due;
pub use growth::GrowthRefusal;
pub use hold::{Hold, HoldScope, HoldState};
pub use tombstone::certificate_id;
pub use usage::{OpenKey, Rewrap, UseError, WrapProof};

/// One version of one customer's ring. Holds no key in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// The store.
    pub store: StoreId,
    /// The customer.
    pub customer: CustomerId,
    /// From 1, without gaps.
    pub version: u64,
    /// The epoch under whose data key this version is sealed.
    pub epoch: u32,
    /// What the customer chose.
    pub settings: Settings,
    /// How long blobs are kept and keys wait: every policy there was, in order. The
    /// last one is for what is sealed from now on.
    pub policies: Vec<Policy>,
    /// The order by which the customer was closed: nothing is sealed any more.
    pub closed: Option<OrderId>,
    /// The data keys under which the entries are sealed, sorted by id.
    pub data_keys: Vec<RingDataKey>,
    /// The live keys, sorted by id.
    pub entries: Vec<Entry>,
    /// Every key that was dropped, sorted by id: none ever returns.
    pub dropped: Vec<Dropped>,
    /// Every legal hold there was, sorted by id.
    pub holds: Vec<Hold>,
    /// Blobs that were withdrawn by an order, sorted: they are not opened, though a
    /// key of theirs may live for a while. Taking back the last order on a blob gives it
    /// back.
    pub withdrawn: Vec<BlobId>,
    /// Orders that were used on this ring, sorted: none is used twice.
    pub orders: Vec<OrderId>,
    /// What the orders that destroy own, sorted by order. One that was taken back has none.
    pub claims: Vec<Claim>,
    /// Optional parts that a later version of this program wrote, as they were.
    pub(crate) later: Vec<LaterPart>,
}

/// A part of a ring's body that this version does not know, and that may be ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LaterPart {
    pub(crate) tag: u8,
    pub(crate) bytes: Vec<u8>,
}

/// What a customer chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What people call the customer.
    pub label: Label,
    /// The KMS key under which new data keys are made.
    pub kms_key: KmsKeyId,
    /// The suite of new blobs.
    pub suite: Suite,
    /// Strict accountability: each blob's DEK is under the customer's KMS key too, so
    /// that each opening is a call there.
    pub strict: bool,
    /// Whether the blobs hold protected health information. Once it is said that they do,
    /// it stays so.
    pub phi: bool,
    /// Whose hand is on the keys.
    pub tenancy: Tenancy,
}

/// Whose hand is on a customer's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tenancy {
    /// Ours: nodes use them as the policy allows, and each use is on record.
    Held,
    /// The customer's: nodes seal, and open within a session that the customer can end.
    Customer,
}

impl Tenancy {
    /// The number that stands for it in a ring.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Held => 1,
            Self::Customer => 2,
        }
    }

    /// Its name, in JSON and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Customer => "customer",
        }
    }

    /// The tenancy of a number.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::Held),
            2 => Some(Self::Customer),
            _ => None,
        }
    }
}

impl fmt::Display for Tenancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that names no tenancy.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not `held` or `customer`")]
pub struct ParseTenancyError;

impl FromStr for Tenancy {
    type Err = ParseTenancyError;

    fn from_str(text: &str) -> Result<Self, ParseTenancyError> {
        let all = [Self::Held, Self::Customer];
        all.into_iter().find(|tenancy| tenancy.as_str() == text).ok_or(ParseTenancyError)
    }
}

/// How long blobs are kept, and how long a key waits for its destruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// From 1, without gaps.
    pub number: u32,
    /// Since when.
    pub since: Timestamp,
    /// How long a blob is kept that is sealed under it.
    pub period: Period,
    /// How long a destruction can be cancelled.
    pub window: Window,
    /// The order of two people that shortened something.
    pub order: Option<OrderId>,
}

/// A customer data key as the customer's KMS key wrapped it, but for one that
/// [no KMS key wraps](RingDataKey::outer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingDataKey {
    /// Its id, part of the encryption context.
    pub id: DataKeyId,
    /// The KMS key that unwraps it.
    pub kms_key: KmsKeyId,
    /// The ciphertext.
    pub wrapped: WrappedDataKey,
}

/// What a key of the ring is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// Wraps the DEKs of blobs that are kept until this day.
    Day(Day),
    /// Wraps the DEKs of held blobs.
    Hold,
    /// Makes the tags under which names are looked up.
    Name,
}

/// Where a live key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// Wraps and unwraps.
    Active,
    /// Will be dropped after this moment; unwraps, but wraps nothing new.
    Pending {
        /// The end of the window in which it can be cancelled.
        until: Timestamp,
        /// The order by which it is destroyed early.
        order: Option<OrderId>,
    },
}

/// A live key, sealed under a customer data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: KekId,
    /// What it is for.
    pub kind: EntryKind,
    /// Where it stands.
    pub state: EntryState,
    /// When it was made.
    pub minted: Timestamp,
    /// The epoch of the first version that had it.
    pub born: u32,
    /// Names the key in certificates.
    pub check_value: [u8; 8],
    /// The data key it is sealed under.
    pub data_key: DataKeyId,
    salt: Salt,
    sealed: [u8; KEY_LEN + TAG_LEN],
}

/// What remains of a dropped key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its id.
    pub id: KekId,
    /// What it was for.
    pub kind: EntryKind,
    /// The ring version that no longer had it.
    pub version: u64,
    /// When it was made.
    pub minted: Timestamp,
    /// The epoch of the first version that had it.
    pub born: u32,
    /// The epoch of the last version that had it: once all from `born` to this one are
    /// destroyed, no copy of any version opens any more.
    pub last: u32,
    /// The lower bound of the time when it was dropped.
    pub at: Timestamp,
    /// The order by which it was destroyed early.
    pub order: Option<OrderId>,
    /// Its check value.
    pub check_value: [u8; 8],
}

impl Ring {
    /// The first version of a new customer's ring, with no keys yet.
    #[must_use]
    pub fn first(
        (store, customer): (StoreId, CustomerId),
        epoch: u32,
        settings: Settings,
        (since, period, window): (Timestamp, Period, Window),
    ) -> Self {
        Self {
            store,
            customer,
            version: 1,
            epoch,
            settings,
            policies: vec![Policy { number: 1, since, period, window, order: None }],
            closed: None,
            data_keys: Vec::new(),
            entries: Vec::new(),
            dropped: Vec::new(),
            holds: Vec::new(),
            withdrawn: Vec::new(),
            orders: Vec::new(),
            claims: Vec::new(),
            later: Vec::new(),
        }
    }

    /// This first version with keys in it: a ring is not written without.
    ///
    /// # Errors
    /// [`RingRefusal`] as [`Ring::apply`], and [`RingRefusal::NotNext`] past
    /// version 1.
    pub fn with_first_keys(
        self,
        data_keys: Vec<RingDataKey>,
        entries: Vec<Entry>,
    ) -> Result<Self, RingRefusal> {
        if self.version != 1 || !self.entries.is_empty() {
            return Err(RingRefusal::NotNext);
        }
        let mut ring = self;
        ring.mint(data_keys, entries)?;
        ring.check().map_err(|_| RingRefusal::Inconsistent)?;
        Ok(ring)
    }

    /// Checks that `next` could have come from this version, at whatever
    /// distance: what a node asks of every ring that it reads after this one.
    ///
    /// # Errors
    /// [`RingRefusal`], naming what does not hold.
    pub fn check_successor(&self, next: &Self) -> Result<(), RingRefusal> {
        if (next.store, next.customer) != (self.store, self.customer) || next.version <= self.version {
            return Err(RingRefusal::NotNext);
        }
        if next.epoch < self.epoch {
            return Err(RingRefusal::EpochReturned);
        }
        // What was dropped, held or ordered stays so; a policy too.
        let dropped = |gone: &Dropped| next.dropped(gone.id) == Some(gone);
        let held = |hold: &Hold| next.hold(hold.id).is_some_and(|later| hold.may_become(later));
        if !self.dropped.iter().all(dropped)
            || !self.orders.iter().all(|order| next.orders.binary_search(order).is_ok())
        {
            return Err(RingRefusal::Returned);
        }
        if !self.holds.iter().all(held) {
            return Err(RingRefusal::Held);
        }
        // A key that was here is here still, with the same age, or was dropped.
        let known = |entry: &Entry| match next.entry(entry.id) {
            Some(later) => entry.is_same_key(later),
            None => next.was_dropped(entry.id),
        };
        if !next.policies.starts_with(&self.policies) || !self.entries.iter().all(known) {
            return Err(RingRefusal::Inconsistent);
        }
        if !self.claims_precede(next) {
            return Err(RingRefusal::Returned);
        }
        Ok(())
    }

    /// The same ring without what opens its keys: to compare later ones with.
    #[must_use]
    pub(crate) fn bare(&self) -> Self {
        let bare =
            |entry: &Entry| Entry { salt: [0; SALT_LEN], sealed: [0; KEY_LEN + TAG_LEN], ..entry.clone() };
        let wrapped = |key: &RingDataKey| match key.is_outer() {
            true => RingDataKey { wrapped: WrappedDataKey::new(Vec::new()), ..key.clone() },
            false => key.clone(),
        };
        let (entries, data_keys) =
            (self.entries.iter().map(bare).collect(), self.data_keys.iter().map(wrapped).collect());
        Self { entries, data_keys, ..self.clone() }
    }

    /// The live key of this id.
    #[must_use]
    pub fn entry(&self, id: KekId) -> Option<&Entry> {
        let found = self.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        Some(&self.entries[found])
    }

    /// What remains of the key of this id, if it was dropped.
    #[must_use]
    pub fn dropped(&self, id: KekId) -> Option<&Dropped> {
        let found = self.dropped.binary_search_by_key(&id, |dropped| dropped.id).ok()?;
        Some(&self.dropped[found])
    }

    /// Whether the key of this id was dropped.
    #[must_use]
    pub fn was_dropped(&self, id: KekId) -> bool {
        self.dropped(id).is_some()
    }

    /// The policy for what is sealed from now on.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        self.policies.last().expect("`check` wants one policy at least")
    }

    /// The hold of this id.
    #[must_use]
    pub fn hold(&self, id: HoldId) -> Option<&Hold> {
        let found = self.holds.binary_search_by_key(&id, |hold| hold.id).ok()?;
        Some(&self.holds[found])
    }

    /// The holds that stand.
    pub fn live_holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(|hold| hold.is_live())
    }

    /// Whether a hold that stands covers this key: then it is not dropped.
    #[must_use]
    pub fn is_held(&self, entry: &Entry) -> bool {
        self.live_holds().any(|hold| hold.covers(entry))
    }

    /// Whether this blob was withdrawn.
    #[must_use]
    pub fn is_withdrawn(&self, blob: BlobId) -> bool {
        self.withdrawn.binary_search(&blob).is_ok()
    }

    /// Whether everything is under a legal hold.
    #[must_use]
    pub fn is_customer_held(&self) -> bool {
        self.live_holds().any(|hold| hold.scope == HoldScope::Customer)
    }

    /// A key that may wrap a new blob which is kept until `day`. Of several the
    /// one with the smallest id, so that nodes agree.
    #[must_use]
    pub fn day_key(&self, day: Day) -> Option<&Entry> {
        let fits = |entry: &&Entry| entry.kind == EntryKind::Day(day) && entry.state == EntryState::Active;
        self.entries.iter().find(fits)
    }

    /// The name key that new tags are made with: of those under the outer seal alone, or else of
    /// all, the one with the smallest id.
    #[must_use]
    pub fn name_key(&self) -> Option<&Entry> {
        let any = || self.entries.iter().find(|entry| entry.kind == EntryKind::Name);
        self.outer_name_key().or_else(any)
    }

    /// The days among `days` that have no key a new blob could use.
    #[must_use]
    pub fn missing_days(&self, days: impl Iterator<Item = Day>) -> Vec<Day> {
        let present: BTreeSet<Day> = (self.entries.iter())
            .filter(|entry| entry.state == EntryState::Active)
            .filter_map(|entry| if let EntryKind::Day(day) = entry.kind { Some(day) } else { None })
            .collect();
        days.filter(|day| !present.contains(day)).collect()
    }

    /// The wrapped data key of this id.
    #[must_use]
    pub fn data_key(&self, id: DataKeyId) -> Option<&RingDataKey> {
        let found = self.data_keys.binary_search_by_key(&id, |key| key.id).ok()?;
        Some(&self.data_keys[found])
    }

    /// Opens one key for one use, which `receipt` stands for.
    ///
    /// # Errors
    /// [`UseError`]: the key is not here, or its entry does not open under
    /// `data_key`.
    pub fn open_key(
        &self,
        receipt: KeyUseReceipt,
        id: KekId,
        data_key: &DataKey,
    ) -> Result<OpenKey, UseError> {
        // The receipt ends here: one receipt, one key, one use.
        drop(receipt);
        let entry = match self.entry(id) {
            Some(entry) => entry,
            None if self.was_dropped(id) => return Err(UseError::Destroyed),
            None => return Err(UseError::Unknown),
        };
        let kek =
            entry.open(self.store, self.customer, data_key).map_err(|OpenError| UseError::Authentication)?;
        Ok(OpenKey::new((self.store, self.customer), entry, kek))
    }

    /// Checks everything that one version can show by itself.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`], naming the field.
    pub fn check(&self) -> Result<(), DecodeError> {
        strictly_ascending(&self.data_keys, "data keys", |key| key.id)?;
        strictly_ascending(&self.entries, "entries", |entry| entry.id)?;
        strictly_ascending(&self.dropped, "dropped", |dropped| dropped.id)?;
        let orphan = |entry: &Entry| self.data_key(entry.data_key).is_none();
        if self.version == 0 || self.entries.iter().any(orphan) {
            return Err(DecodeError::Invalid("entries"));
        }
        self.check_outer()?;
        if self.entries.iter().any(|entry| self.was_dropped(entry.id)) {
            return Err(DecodeError::Invalid("dropped"));
        }
        // The name key goes last, with the whole customer.
        let pends = |entry: &Entry| entry.kind != EntryKind::Name || self.closed.is_some();
        // By an order a key may be in the window and held: the order is suspended.
        let may_pend = |entry: &Entry| entry.order().is_some() || !self.keeps_active(entry);
        let state = |entry: &Entry| entry.state == EntryState::Active || pends(entry) && may_pend(entry);
        let gone = |dropped: &Dropped| dropped.version <= self.version && dropped.born <= dropped.last;
        if !self.entries.iter().all(|entry| state(entry) && entry.born <= self.epoch)
            || !self.dropped.iter().all(|dropped| gone(dropped) && dropped.last <= self.epoch)
        {
            return Err(DecodeError::Invalid("state"));
        }
        let numbered = self.policies.iter().zip(1..).all(|(policy, number)| policy.number == number);
        if self.policies.is_empty() || !numbered {
            return Err(DecodeError::Invalid("policies"));
        }
        strictly_ascending(&self.holds, "holds", |hold| hold.id)?;
        strictly_ascending(&self.withdrawn, "withdrawn", |blob| *blob)?;
        strictly_ascending(&self.orders, "orders", |order| *order)?;
        let used = |order: &OrderId| self.orders.binary_search(order).is_ok();
        if !self.holds.iter().all(|hold| hold.is_consistent(self)) {
            return Err(DecodeError::Invalid("holds"));
        }
        let named = (self.closed.iter())
            .chain(self.policies.iter().filter_map(|policy| policy.order.as_ref()))
            .chain(self.dropped.iter().filter_map(|dropped| dropped.order.as_ref()))
            .chain(self.entries.iter().filter_map(Entry::order));
        if !named.into_iter().all(used) {
            return Err(DecodeError::Invalid("orders"));
        }
        strictly_ascending(&self.claims, "claims", |claim| claim.order)?;
        if !self.claims_are_consistent() {
            return Err(DecodeError::Invalid("claims"));
        }
        Ok(())
    }

    /// Whether a hold on the key's day or on the customer keeps it out of the window.
    fn keeps_active(&self, entry: &Entry) -> bool {
        self.live_holds().any(|hold| hold.keeps_active(entry))
    }
}

impl Entry {
    /// Seals a new key under a customer data key. `salt` is fresh and random. The epoch
    /// is set when the key is added to a ring.
    #[must_use]
    pub fn seal(
        ring: (StoreId, CustomerId),
        minted: Timestamp,
        id: KekId,
        kind: EntryKind,
        kek: &Kek,
        data_key: (DataKeyId, &DataKey),
        salt: Salt,
    ) -> Self {
        let key = AeadKey::new(Suite::Aes256Gcm, &schedule::entry_seal(data_key.1.secret(), id, &salt));
        let sealed = envelope::seal_key(&key, &entry_aad(ring.0, ring.1, id, kind), kek.secret());
        let check_value = schedule::check_value(kek.secret());
        Self {
            id,
            kind,
            state: EntryState::Active,
            minted,
            born: 0,
            check_value,
            data_key: data_key.0,
            salt,
            sealed,
        }
    }

    /// The same key under another data key, for a [`Change::Rekey`]. It is in the clear in
    /// between, which `receipt` stands for. `salt` is fresh and random.
    ///
    /// # Errors
    /// [`OpenError`] if it does not open under the data key that it is under now.
    pub fn reseal(
        &self,
        receipt: KeyUseReceipt,
        ring: (StoreId, CustomerId),
        now_under: &DataKey,
        data_key: (DataKeyId, &DataKey),
        salt: Salt,
    ) -> Result<Self, OpenError> {
        // One receipt, one key, one use.
        drop(receipt);
        let kek = self.open(ring.0, ring.1, now_under)?;
        let sealed = Self::seal(ring, self.minted, self.id, self.kind, &kek, data_key, salt);
        Ok(Self { state: self.state, born: self.born, ..sealed })
    }

    /// The order by which it will be dropped early.
    #[must_use]
    pub fn order(&self) -> Option<&OrderId> {
        match &self.state {
            EntryState::Pending { order, .. } => order.as_ref(),
            EntryState::Active => None,
        }
    }

    /// Whether `later` is this key, whatever state and data key it is in.
    fn is_same_key(&self, later: &Self) -> bool {
        let identity = |entry: &Self| (entry.id, entry.kind, entry.minted, entry.born, entry.check_value);
        identity(self) == identity(later)
    }

    fn open(&self, store: StoreId, customer: CustomerId, data_key: &DataKey) -> Result<Kek, OpenError> {
        let key =
            AeadKey::new(Suite::Aes256Gcm, &schedule::entry_seal(data_key.secret(), self.id, &self.salt));
        envelope::open_key(&key, &entry_aad(store, customer, self.id, self.kind), &self.sealed).map(Kek::new)
    }
}

/// What never changes about an entry. State and holds do, without the customer's
/// key; the outer seal has them.
fn entry_aad(store: StoreId, customer: CustomerId, id: KekId, kind: EntryKind) -> Vec<u8> {
    let mut aad = Writer::default();
    store.encode(&mut aad);
    customer.encode(&mut aad);
    id.encode(&mut aad);
    kind.encode(&mut aad);
    aad.into_bytes()
}

/// The store's directory key: under which tag a customer's label is found.
#[derive(Debug)]
pub struct DirectoryKey(Secret<KEY_LEN>);

impl DirectoryKey {
    /// A directory key of these bytes.
    #[must_use]
    pub fn new(bytes: Secret<KEY_LEN>) -> Self {
        Self(bytes)
    }

    /// By which it is told from another, without saying anything of it.
    #[must_use]
    pub fn check_value(&self) -> [u8; 8] {
        schedule::check_value(&self.0)
    }

    /// The tag of a label.
    #[must_use]
    pub fn label_tag(&self, label: &Label) -> [u8; 32] {
        schedule::label_tag(&self.0, label.as_str())
    }

    /// The tag of one principal's idempotency key.
    #[must_use]
    pub fn once_tag(&self, principal: &crate::access::Principal, once: &str) -> [u8; 32] {
        schedule::once_tag(&self.0, &principal.to_string(), once)
    }

    /// Whether it is the same key, in constant time.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Its bytes, for sealing it into an epoch record.
    pub(crate) fn secret(&self) -> &Secret<KEY_LEN> {
        &self.0
    }
}

#[cfg(test)]
mod tests;
