//! A version of a ring as what changed since an earlier one.
//!
//! A whole version has all keys that live and what remains of all that were dropped, so that whole
//! versions alone take room with the square of their number: nodes delete none. Where a ring is not
//! small, most of its versions are therefore stored as what changed since one that is whole, its
//! *base*, which the stored form names by version and hash. Whoever believes the one believes the
//! other. A reader fetches two objects, never more: no version is over one that is not whole.
//!
//! Both are under the same epoch. A re-issue is whole, so that an epoch's end leaves nothing that a
//! later version needs.

use std::collections::BTreeSet;

use super::body::{decode_option, encode_option};
use super::{Dropped, Entry, Hold, Policy, Ring, RingDataKey, Settings};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer, strictly_ascending};
use crate::id::{BlobId, DataKeyId, KekId, OrderId};
use crate::kms::DataKey;
use crate::schedule::Salt;

/// The length of a body, in bytes, below which a version is stored whole: that of some 460 keys.
pub const SMALL: usize = 64 << 10;

/// The whole version that a stored form is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its number.
    pub version: u64,
    /// SHA-256 of its stored form.
    pub hash: [u8; 32],
}

/// What changed.
pub(super) struct Delta {
    settings: Settings,
    policies: Vec<Policy>,
    closed: Option<OrderId>,
    holds: Vec<Hold>,
    withdrawn: Vec<BlobId>,
    orders: Vec<OrderId>,
    /// Data keys that are left out, and new ones.
    data_keys_out: Vec<DataKeyId>,
    data_keys_in: Vec<RingDataKey>,
    /// Entries that are left out, and those that are new or not as they were.
    entries_out: Vec<KekId>,
    entries_in: Vec<Entry>,
    /// What was dropped since.
    dropped: Vec<Dropped>,
}

impl Ring {
    /// The stored form of this version: whole, or what changed since `base` where that takes less room
    /// in the long run. `salt` is fresh and random. Of the base's entries no key is needed
    /// (`Ring::bare`).
    #[must_use]
    pub fn stored(&self, base: Option<(Base, &Self)>, epoch_key: &DataKey, salt: Salt) -> Vec<u8> {
        let whole = self.to_bytes().len();
        let changes = base.filter(|_| whole >= SMALL).and_then(|base| {
            let steps = usize::try_from(self.version.checked_sub(base.0.version)?).ok()?;
            let bytes = self.seal_changes(base, epoch_key, salt)?;
            // What is over one base grows step by step. Once all of it together takes as much as a whole
            // version, another whole one takes less.
            (bytes.len().saturating_mul(steps) < 2 * whole).then_some(bytes)
        });
        changes.unwrap_or_else(|| self.seal(epoch_key, salt))
    }
}

impl Delta {
    /// What changed from `base` to `ring`, if it can be said so.
    pub(super) fn between(base: &Ring, ring: &Ring) -> Option<Self> {
        let same = |one: &Ring| (one.store, one.customer, one.epoch);
        if same(base) != same(ring) || base.version >= ring.version {
            return None;
        }
        // Another seal of the same key is under another data key.
        let is_as_before = |entry: &&Entry| {
            base.entry(entry.id).is_some_and(|before| {
                before.is_same_key(entry) && (before.state, before.data_key) == (entry.state, entry.data_key)
            })
        };
        let delta = Self {
            settings: ring.settings.clone(),
            policies: ring.policies.clone(),
            closed: ring.closed,
            holds: ring.holds.clone(),
            withdrawn: ring.withdrawn.clone(),
            orders: ring.orders.clone(),
            data_keys_out: (base.data_keys.iter().map(|key| key.id))
                .filter(|id| ring.data_key(*id).is_none())
                .collect(),
            data_keys_in: (ring.data_keys.iter())
                .filter(|key| base.data_key(key.id).is_none())
                .cloned()
                .collect(),
            entries_out: (base.entries.iter().map(|entry| entry.id))
                .filter(|id| ring.entry(*id).is_none())
                .collect(),
            entries_in: ring.entries.iter().filter(|entry| !is_as_before(entry)).cloned().collect(),
            dropped: ring.dropped.iter().filter(|gone| !base.was_dropped(gone.id)).copied().collect(),
        };
        // That it leads back is shown and not believed.
        let led = delta.apply(base, ring.version).ok()?;
        (led.bare() == ring.bare()).then_some(delta)
    }

    /// The version that this makes of `base`.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] if it says what is so already, or the result is not consistent.
    pub(super) fn apply(&self, base: &Ring, version: u64) -> Result<Ring, DecodeError> {
        strictly_ascending(&self.data_keys_out, "data keys", |id| *id)?;
        strictly_ascending(&self.data_keys_in, "data keys", |key| key.id)?;
        strictly_ascending(&self.entries_out, "entries", |id| *id)?;
        strictly_ascending(&self.entries_in, "entries", |entry| entry.id)?;
        strictly_ascending(&self.dropped, "dropped", |gone| gone.id)?;
        let (put, out): (BTreeSet<_>, BTreeSet<_>) = (
            self.entries_in.iter().map(|entry| entry.id).collect(),
            self.entries_out.iter().copied().collect(),
        );
        let is_news = self.data_keys_out.iter().all(|id| base.data_key(*id).is_some())
            && self.data_keys_in.iter().all(|key| base.data_key(key.id).is_none())
            && self.entries_out.iter().all(|id| base.entry(*id).is_some() && !put.contains(id))
            && self.entries_in.iter().all(|entry| base.entry(entry.id) != Some(entry))
            && self.dropped.iter().all(|gone| !base.was_dropped(gone.id));
        if !is_news {
            return Err(DecodeError::Invalid("changes"));
        }
        let mut ring = Ring {
            // A ring that has some, or what a later version wrote, is stored whole.
            claims: Vec::new(),
            later: Vec::new(),
            store: base.store,
            customer: base.customer,
            version,
            epoch: base.epoch,
            settings: self.settings.clone(),
            policies: self.policies.clone(),
            closed: self.closed,
            data_keys: base.data_keys.clone(),
            entries: base.entries.clone(),
            dropped: base.dropped.clone(),
            holds: self.holds.clone(),
            withdrawn: self.withdrawn.clone(),
            orders: self.orders.clone(),
        };
        ring.data_keys.retain(|key| self.data_keys_out.binary_search(&key.id).is_err());
        ring.data_keys.extend_from_slice(&self.data_keys_in);
        ring.data_keys.sort_by_key(|key| key.id);
        ring.entries.retain(|entry| !out.contains(&entry.id) && !put.contains(&entry.id));
        ring.entries.extend_from_slice(&self.entries_in);
        ring.entries.sort_by_key(|entry| entry.id);
        ring.dropped.extend_from_slice(&self.dropped);
        ring.dropped.sort_by_key(|gone| gone.id);
        ring.check()?;
        Ok(ring)
    }
}

impl Encode for Delta {
    fn encode(&self, out: &mut Writer) {
        self.settings.encode(out);
        out.list(&self.policies);
        encode_option(self.closed.as_ref(), out);
        out.list(&self.holds).list(&self.withdrawn).list(&self.orders);
        out.list(&self.data_keys_out).list(&self.data_keys_in);
        out.list(&self.entries_out).list(&self.entries_in).list(&self.dropped);
    }
}

impl Decode for Delta {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            settings: Settings::decode(from)?,
            policies: from.list()?,
            closed: decode_option(from)?,
            holds: from.list()?,
            withdrawn: from.list()?,
            orders: from.list()?,
            data_keys_out: from.list()?,
            data_keys_in: from.list()?,
            entries_out: from.list()?,
            entries_in: from.list()?,
            dropped: from.list()?,
        })
    }
}

/// Reads changes, applies them to a version and writes them again: for [`crate::fuzz`].
pub(crate) fn fuzz(bytes: &[u8], base: &Ring) -> Option<Vec<u8>> {
    let delta = Delta::from_bytes(bytes).ok()?;
    let _ = delta.apply(base, base.version.saturating_add(1));
    Some(delta.to_bytes())
}

/// Writes what changed from one version to another: for [`crate::fuzz`].
pub(crate) fn fuzz_between(base: &Ring, ring: &Ring) -> Option<Vec<u8>> {
    Delta::between(base, ring).map(|delta| delta.to_bytes())
}
