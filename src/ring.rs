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
//! * a held key, or any key of a held customer, is not dropped;
//! * from `Pending` on a key wraps nothing new.
//!
//! Who may corrupt it: the keys storage could withhold the newest version; the
//! audit log pins version and hash, and an older ring is refused.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::audit::KeyUseReceipt;
use crate::codec::{DecodeError, Encode, Writer, strictly_ascending};
use crate::envelope::{self, Kek};
use crate::id::{CustomerId, DataKeyId, KekId, KmsKeyId, Label, StoreId};
use crate::kms::{DataKey, WrappedDataKey};
use crate::retention::Period;
use crate::schedule::{self, Salt};
use crate::secret::Secret;
use crate::suite::{AeadKey, KEY_LEN, OpenError, Suite, TAG_LEN};
use crate::time::{Day, Timestamp};

pub mod sealed;
mod tombstone;
mod usage;

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
    /// The data keys under which the entries are sealed, sorted by id.
    pub data_keys: Vec<RingDataKey>,
    /// The live keys, sorted by id.
    pub entries: Vec<Entry>,
    /// Every key that was dropped, sorted by id: none ever returns.
    pub dropped: Vec<Dropped>,
}

/// What a customer chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What people call the customer.
    pub label: Label,
    /// The KMS key under which new data keys are made.
    pub kms_key: KmsKeyId,
    /// How long new blobs are kept.
    pub period: Period,
    /// The suite of new blobs.
    pub suite: Suite,
    /// A legal hold on everything: nothing of this customer is dropped.
    pub held: bool,
}

/// A customer data key as the customer's KMS key wrapped it.
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
    /// A legal hold on this key.
    pub held: bool,
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
    /// Its check value.
    pub check_value: [u8; 8],
}

/// One step from a version to the next.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// Adds keys, and the data keys that they are sealed under if those are new.
    Mint {
        /// New data keys.
        data_keys: Vec<RingDataKey>,
        /// New keys.
        entries: Vec<Entry>,
    },
    /// Replaces what the customer chose, but for the hold.
    Settings(Settings),
    /// Places or lifts the hold on the whole customer.
    HoldCustomer(bool),
    /// Places or lifts the hold on all keys of a day.
    HoldDay(Day, bool),
    /// Puts keys into the window before their destruction.
    Pend {
        /// Which.
        keys: BTreeSet<KekId>,
        /// The end of the window.
        until: Timestamp,
    },
    /// Takes keys back out of the window.
    Cancel(BTreeSet<KekId>),
    /// Drops keys whose window is over at `now`.
    Drop {
        /// Which.
        keys: BTreeSet<KekId>,
        /// The lower bound of the time.
        now: Timestamp,
    },
    /// Changes nothing but the epoch.
    Reissue {
        /// The new epoch.
        epoch: u32,
    },
}

/// Why a step is not taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingRefusal {
    /// The key is not in the ring.
    #[error("the ring has no such key")]
    UnknownKey,
    /// The id is in the ring already, or was dropped from it.
    #[error("a key of this id is in the ring, or was dropped from it")]
    Returned,
    /// The key is held, or the customer is.
    #[error("the key is under a legal hold")]
    Held,
    /// The window is not over, or was never opened.
    #[error("the window before destruction is not over")]
    WindowOpen,
    /// The name key and hold keys are not dropped by day.
    #[error("the key is not a day key")]
    NotADayKey,
    /// The epoch would go down.
    #[error("an epoch never goes down")]
    EpochReturned,
    /// The new retention period could end sooner than the one that stands.
    #[error("a retention period is lengthened here, never shortened")]
    Shortened,
    /// The result would break an invariant.
    #[error("the ring would not be consistent")]
    Inconsistent,
    /// Another version than the one after this.
    #[error("not the next version of this ring")]
    NotNext,
}

impl Ring {
    /// The first version of a new customer's ring, with no keys yet.
    #[must_use]
    pub fn first(store: StoreId, customer: CustomerId, epoch: u32, settings: Settings) -> Self {
        let (data_keys, entries, dropped) = (Vec::new(), Vec::new(), Vec::new());
        Self { store, customer, version: 1, epoch, settings, data_keys, entries, dropped }
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

    /// The next version.
    ///
    /// # Errors
    /// [`RingRefusal`]; then nothing changes.
    pub fn apply(&self, change: Change) -> Result<Self, RingRefusal> {
        let mut next = self.clone();
        next.version = self.version.checked_add(1).ok_or(RingRefusal::Inconsistent)?;
        match change {
            Change::Mint { data_keys, entries } => next.mint(data_keys, entries)?,
            Change::Settings(settings) => next.set(settings)?,
            Change::HoldCustomer(held) => next.settings.held = held,
            Change::HoldDay(day, held) => next.hold_day(day, held)?,
            Change::Pend { keys, until } => {
                next.for_each_day_key(&keys, |entry| entry.state = EntryState::Pending { until })?;
            }
            Change::Cancel(keys) => next.for_each_day_key(&keys, |entry| entry.state = EntryState::Active)?,
            Change::Drop { keys, now } => next.drop_keys(&keys, now)?,
            Change::Reissue { epoch } if epoch < self.epoch => return Err(RingRefusal::EpochReturned),
            Change::Reissue { epoch } => next.epoch = epoch,
        }
        next.check().map_err(|_| RingRefusal::Inconsistent)?;
        self.check_successor(&next)?;
        Ok(next)
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
        if !self.dropped.iter().all(|gone| next.dropped.binary_search_by_key(&gone.id, |d| d.id).is_ok()) {
            return Err(RingRefusal::Returned);
        }
        // A key that was here is here still, or was dropped.
        let known = |entry: &Entry| next.entry(entry.id).is_some() || next.was_dropped(entry.id);
        if !self.entries.iter().all(known) {
            return Err(RingRefusal::Inconsistent);
        }
        Ok(())
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

    /// A key that may wrap a new blob which is kept until `day`. Of several the
    /// one with the smallest id, so that nodes agree.
    #[must_use]
    pub fn day_key(&self, day: Day) -> Option<&Entry> {
        let fits = |entry: &&Entry| entry.kind == EntryKind::Day(day) && entry.state == EntryState::Active;
        self.entries.iter().find(fits)
    }

    /// The name key of the smallest id: the one new tags are made with.
    #[must_use]
    pub fn name_key(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.kind == EntryKind::Name)
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
        if self.entries.iter().any(|entry| self.was_dropped(entry.id)) {
            return Err(DecodeError::Invalid("dropped"));
        }
        let only_days_pend = |entry: &Entry| {
            matches!((entry.kind, entry.state), (EntryKind::Day(_), _) | (_, EntryState::Active))
        };
        if !self.entries.iter().all(only_days_pend) || self.dropped.iter().any(|d| d.version > self.version) {
            return Err(DecodeError::Invalid("state"));
        }
        Ok(())
    }

    fn mint(&mut self, data_keys: Vec<RingDataKey>, entries: Vec<Entry>) -> Result<(), RingRefusal> {
        for key in data_keys {
            match self.data_keys.binary_search_by_key(&key.id, |known| known.id) {
                Ok(_) => return Err(RingRefusal::Returned),
                Err(at) => self.data_keys.insert(at, key),
            }
        }
        for entry in entries {
            if self.was_dropped(entry.id) {
                return Err(RingRefusal::Returned);
            }
            match self.entries.binary_search_by_key(&entry.id, |known| known.id) {
                Ok(_) => return Err(RingRefusal::Returned),
                Err(at) => self.entries.insert(at, entry),
            }
        }
        Ok(())
    }

    fn set(&mut self, settings: Settings) -> Result<(), RingRefusal> {
        if !self.settings.period.never_exceeds(settings.period) {
            return Err(RingRefusal::Shortened);
        }
        // A hold is its own change, and a label is what the directory names.
        self.settings = Settings { held: self.settings.held, label: self.settings.label.clone(), ..settings };
        Ok(())
    }

    fn hold_day(&mut self, day: Day, held: bool) -> Result<(), RingRefusal> {
        let mut found = false;
        for entry in self.entries.iter_mut().filter(|entry| entry.kind == EntryKind::Day(day)) {
            (entry.held, found) = (held, true);
        }
        if found { Ok(()) } else { Err(RingRefusal::UnknownKey) }
    }

    fn for_each_day_key(
        &mut self,
        keys: &BTreeSet<KekId>,
        change: impl Fn(&mut Entry),
    ) -> Result<(), RingRefusal> {
        for id in keys {
            let found = self
                .entries
                .binary_search_by_key(id, |entry| entry.id)
                .map_err(|_| RingRefusal::UnknownKey)?;
            let entry = &mut self.entries[found];
            if !matches!(entry.kind, EntryKind::Day(_)) {
                return Err(RingRefusal::NotADayKey);
            }
            change(entry);
        }
        Ok(())
    }

    fn drop_keys(&mut self, keys: &BTreeSet<KekId>, now: Timestamp) -> Result<(), RingRefusal> {
        for id in keys {
            let entry = self.entry(*id).ok_or(RingRefusal::UnknownKey)?;
            if entry.held || self.settings.held {
                return Err(RingRefusal::Held);
            }
            if !matches!(entry.state, EntryState::Pending { until } if until <= now) {
                return Err(RingRefusal::WindowOpen);
            }
            let gone =
                Dropped { id: *id, kind: entry.kind, version: self.version, check_value: entry.check_value };
            self.entries.retain(|entry| entry.id != *id);
            match self.dropped.binary_search_by_key(id, |dropped| dropped.id) {
                Ok(_) => return Err(RingRefusal::Returned),
                Err(at) => self.dropped.insert(at, gone),
            }
        }
        Ok(())
    }
}

impl Entry {
    /// Seals a new key under a customer data key. `salt` is fresh and random.
    #[must_use]
    pub fn seal(
        ring: (StoreId, CustomerId),
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
            held: false,
            check_value,
            data_key: data_key.0,
            salt,
            sealed,
        }
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

    /// The tag of a label.
    #[must_use]
    pub fn label_tag(&self, label: &Label) -> [u8; 32] {
        schedule::label_tag(&self.0, label.as_str())
    }

    /// Its bytes, for sealing it into an epoch record.
    pub(crate) fn secret(&self) -> &Secret<KEY_LEN> {
        &self.0
    }
}

#[cfg(test)]
mod tests;
