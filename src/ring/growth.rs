//! How far a ring grows by what somebody asks for, and no further: pure bounds.
//!
//! A version of a ring is one object with all live keys in it, and nodes delete none. So what one
//! program asks for must add few keys, and all programs together a bounded number:
//!
//! * days at the end of the policy's period get their keys a month at a time, as one follows the other;
//!   any other day gets one key;
//! * a writer alone keeps a blob for [`WRITER_DAYS`] longer than the policy does, and has
//!   [`FAR_KEYS`] keys of days beyond the policy at most; a privacy officer keeps it longer;
//! * where the keys are in the customer's own hand, programs add [`OWN_KEYS_A_DAY`] keys of their own a
//!   day, and none for names: those are found under one key, whatever programs there were
//!   ([`RingDataKey::outer`]).

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::{Entry, EntryKind, Ring, RingDataKey, Tenancy};
use crate::codec::DecodeError;
use crate::id::{DataKeyId, KmsKeyId};
use crate::kms::{DataKey, WrappedDataKey};
use crate::secret::Secret;
use crate::suite::KEY_LEN;
use crate::time::{Day, Timestamp};

/// How many days' keys are minted in one ring version, at the end of the policy's period.
pub const MINT_DAYS: u32 = 31;

/// For how many days longer than the customer's policy a writer alone keeps a blob: two hundred years. No
/// law asks for longer, so that what does is a mistake, or is for a privacy officer to want.
pub const WRITER_DAYS: u32 = 73_050;

/// How many live keys a ring has of days beyond the policy's, before a writer gets no more.
pub const FAR_KEYS: usize = 4_096;

/// How many keys of their own programs add to a ring in one UTC day.
pub const OWN_KEYS_A_DAY: usize = 64;

/// Why a ring gets no more keys by what was asked for.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrowthRefusal {
    /// The day is further off than a writer alone may ask for.
    #[error("a writer alone keeps a blob of this customer until {limit} at most")]
    TooFar {
        /// The last day that it may.
        limit: Day,
    },
    /// The ring has as many days beyond the policy as writers get.
    #[error("the ring has keys of {FAR_KEYS} days beyond the customer's policy, which is the most")]
    TooManyDays,
    /// Programs have added as many keys today as they may.
    #[error("programs have added {OWN_KEYS_A_DAY} keys of their own to the ring today, which is the most")]
    TooManyOwnKeys,
}

impl Ring {
    /// Until when a blob is kept that is sealed at `now`, by the policy.
    #[must_use]
    pub fn promised(&self, now: Timestamp) -> Day {
        self.policy().period.retain_until(now)
    }

    /// The days that get a key when `day` has none: routine goes on day by day, and what somebody asked
    /// for does not.
    #[must_use]
    pub fn days_to_mint(&self, day: Day, now: Timestamp) -> Vec<Day> {
        let promised = self.promised(now);
        let is_routine = (promised..=promised.plus(MINT_DAYS)).contains(&day);
        let count = if is_routine { MINT_DAYS } else { 1 };
        let mut days = self.missing_days((0..count).map(|days| day.plus(days)));
        // At the end of the calendar they are all one.
        days.dedup();
        days
    }

    /// That a writer alone may keep a blob until `day`.
    ///
    /// # Errors
    /// [`GrowthRefusal`]: a privacy officer may.
    pub fn permit_writer(&self, day: Day, now: Timestamp) -> Result<(), GrowthRefusal> {
        let limit = self.writer_limit(now);
        if day > limit {
            return Err(GrowthRefusal::TooFar { limit });
        }
        let routine = self.promised(now).plus(MINT_DAYS);
        let is_far = |entry: &&Entry| matches!(entry.kind, EntryKind::Day(day) if day > routine);
        let is_new = day > routine && self.day_key(day).is_none();
        match is_new && self.entries.iter().filter(is_far).count() >= FAR_KEYS {
            true => Err(GrowthRefusal::TooManyDays),
            false => Ok(()),
        }
    }

    /// The last day until which a writer alone may keep a blob.
    #[must_use]
    pub fn writer_limit(&self, now: Timestamp) -> Day {
        self.promised(now).plus(WRITER_DAYS)
    }

    /// That a program may add a key of its own today.
    ///
    /// # Errors
    /// [`GrowthRefusal::TooManyOwnKeys`]: a daemon seals all day with a few.
    pub fn permit_own_key(&self, now: Timestamp) -> Result<(), GrowthRefusal> {
        // Programs add one key at a time. What was added together is the month of a session, or that of
        // the first ring.
        let mut added = BTreeMap::<_, usize>::new();
        let of_today = self
            .entries
            .iter()
            .filter(|entry| matches!(entry.kind, EntryKind::Day(_)) && entry.minted.day() == now.day());
        of_today.for_each(|entry| *added.entry((entry.data_key, entry.minted)).or_default() += 1);
        match added.values().filter(|count| **count == 1).count() >= OWN_KEYS_A_DAY {
            true => Err(GrowthRefusal::TooManyOwnKeys),
            false => Ok(()),
        }
    }

    /// The name key that is under the outer seal alone.
    #[must_use]
    pub fn outer_name_key(&self) -> Option<&Entry> {
        let mut names = self.entries.iter().filter(|entry| entry.kind == EntryKind::Name);
        names.find(|entry| self.is_outer(entry))
    }

    /// The KMS keys that this ring is under, and the one that new data keys come from.
    #[must_use]
    pub fn kms_keys(&self) -> BTreeSet<KmsKeyId> {
        let under = self.data_keys.iter().filter(|key| !key.is_outer()).map(|key| &key.kms_key);
        under.chain([&self.settings.kms_key]).cloned().collect()
    }

    /// Whether a key is under the outer seal alone, and under no KMS key of the customer's.
    #[must_use]
    pub fn is_outer(&self, entry: &Entry) -> bool {
        self.data_key(entry.data_key).is_some_and(RingDataKey::is_outer)
    }

    /// That nothing but names, of a customer whose keys are in its own hand, is under the outer seal alone.
    pub(super) fn check_outer(&self) -> Result<(), DecodeError> {
        let mut outer = self.data_keys.iter().filter(|key| key.is_outer()).peekable();
        if outer.peek().is_some() && self.settings.tenancy != Tenancy::Customer {
            return Err(DecodeError::Invalid("data keys"));
        }
        if outer.any(|key| key.wrapped.as_bytes().len() != KEY_LEN) {
            return Err(DecodeError::Invalid("data keys"));
        }
        match self.entries.iter().all(|entry| entry.kind == EntryKind::Name || !self.is_outer(entry)) {
            true => Ok(()),
            false => Err(DecodeError::Invalid("entries")),
        }
    }
}

impl RingDataKey {
    /// What such a data key has in place of a KMS key.
    const OUTER: &'static str = "ring:outer";

    /// A data key that no KMS key wraps: the outer seal of the ring protects it alone.
    ///
    /// It is for the name key of a customer whose keys are in its own hand. There no program can unwrap
    /// what another one made, so that each would need a name key of its own, and a look-up by name would
    /// ask under as many keys as there were programs. Under this one all make the same tag.
    #[must_use]
    pub fn outer(id: DataKeyId, key: &Secret<KEY_LEN>) -> Self {
        let kms_key = Self::OUTER.parse().expect("it has the form of a KMS key");
        Self { id, kms_key, wrapped: WrappedDataKey::new(key.expose().to_vec()) }
    }

    /// Whether it is one that no KMS key wraps.
    #[must_use]
    pub fn is_outer(&self) -> bool {
        self.kms_key.as_str() == Self::OUTER
    }

    /// The data key itself, if it is one that no KMS key wraps.
    #[must_use]
    pub fn unwrapped(&self) -> Option<DataKey> {
        let mut bytes = self.is_outer().then(|| self.wrapped.as_bytes().to_vec())?;
        Secret::take_from(&mut bytes).map(DataKey::new)
    }
}
