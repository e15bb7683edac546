//! One blob, early: its neighbours are made safe, and then its keys are dropped.
//!
//! A blob dies when the keys die that it is wrapped under, and its neighbours of the same
//! day with it. So these are wrapped again under another key of their day first. Which
//! they are comes from the log, where each has an intent before it exists; one whose
//! writer may still be at it keeps the drop waiting. A neighbour that another order destroys
//! is made safe as well, by a key that this order leads: it is not that order's turn yet,
//! and it may be taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::paths::{BlobPaths, Certainty, Paths};
use crate::audit::Action;
use crate::audit::history::History;
use crate::error::{ErrorKind, Result};
use crate::id::{BlobId, CustomerId, KekId};
use crate::ring::{EntryKind, Ring};
use crate::room::keyring::{Asker, Want};
use crate::room::wraps::{Reason, rewrap};
use crate::room::{Customer, Strongroom};
use crate::time::Day;

/// What became of the neighbours of a blob that is destroyed by itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Neighbours {
    /// Those that have another path for as long as they are kept.
    pub(super) safe: BTreeSet<BlobId>,
    /// Those whose writers never ended, and that are not on the storage.
    pub(super) missing: BTreeSet<BlobId>,
    /// Those that are not safe yet.
    pub(super) unsafe_yet: BTreeSet<BlobId>,
}

impl Neighbours {
    pub(super) fn is_safe(&self) -> bool {
        self.unsafe_yet.is_empty()
    }
}

impl Strongroom {
    /// Sees to it that every other blob under `keys` has a path that outlives them.
    ///
    /// # Errors
    /// As [`Customer::extend`]: one of them may fail; what was done stands.
    pub(super) async fn make_neighbours_safe(
        &self,
        asker: Asker<'_>,
        ring: &Arc<Ring>,
        keys: &BTreeSet<KekId>,
        blob: BlobId,
    ) -> Result<Neighbours> {
        let paths = self.paths_of(ring, keys).await?;
        let mut neighbours = Neighbours::default();
        // Whose a withdrawn blob is without a claim is not known: its order came before there
        // were any, and its keys with it.
        let is_claimed = |other: BlobId| ring.claims.iter().any(|claim| claim.blob == Some(other));
        let others: Vec<(BlobId, &BlobPaths)> = (paths.under(keys))
            .filter(|(other, _)| *other != blob && (!ring.is_withdrawn(*other) || is_claimed(*other)))
            .collect();
        for (other, paths) in others {
            if is_safe(ring, keys, other, paths) {
                neighbours.safe.insert(other);
            } else if paths.open || ring.is_withdrawn(other) {
                // Its writer may be at it: settling the log closes what nobody ends.
                neighbours.unsafe_yet.insert(other);
            } else {
                match self.rewrap_neighbour(asker, ring.customer, other, promised(ring, other, paths)).await {
                    Ok(()) => neighbours.safe.insert(other),
                    // Its writer never ended. One that is known to have been there may come
                    // back, and is not given up while its day lasts.
                    Err(error)
                        if error.kind() == ErrorKind::NotFound
                            && paths.keys.values().all(|certainty| *certainty == Certainty::Possible) =>
                    {
                        neighbours.missing.insert(other)
                    }
                    // A key that cannot be used now, or a storage that does not answer.
                    Err(_) => neighbours.unsafe_yet.insert(other),
                };
            }
        }
        Ok(neighbours)
    }

    /// Wraps a blob again, under an active key of the day until which it is kept.
    pub(super) async fn rewrap_neighbour(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        blob: BlobId,
        day: Day,
    ) -> Result<()> {
        let customer = Customer::new(self.clone(), customer, asker.access.clone());
        let ring = self.0.keyring.ensure(asker, customer.id(), &Want::DayKeys(day)).await?;
        let Some(to) = ring.day_key(day) else {
            return Err(crate::error::Error::new(ErrorKind::Conflict, "the ring has no key for this day"));
        };
        let reason = Reason { action: Action::Rewrap, hold: None };
        rewrap(&customer, blob, to.id, reason).await.map(drop)
    }

    /// The live keys that one blob is or may be wrapped under.
    pub(super) async fn keys_of(&self, ring: &Ring, blob: BlobId) -> Result<BTreeMap<KekId, Certainty>> {
        let history = History::open(&self.log_reader()).await?;
        let paths = Paths::of_days(&history, ring.customer, BTreeSet::from([blob.day()])).await?;
        let keys = paths.blob(blob).into_iter().flat_map(|paths| paths.keys.iter());
        Ok(keys.filter(|(key, _)| ring.entry(**key).is_some()).map(|(key, sure)| (*key, *sure)).collect())
    }
}

/// Until when a blob is kept, as far as the log knows.
pub(super) fn promised(ring: &Ring, blob: BlobId, paths: &BlobPaths) -> Day {
    let days = paths.keys.keys().filter_map(|key| match ring.entry(*key)?.kind {
        EntryKind::Day(day) => Some(day),
        _ => None,
    });
    days.max().unwrap_or(blob.day()).max(blob.day())
}

/// Whether a blob has a path, other than by `keys`, for as long as it is kept.
pub(super) fn is_safe(ring: &Ring, keys: &BTreeSet<KekId>, blob: BlobId, paths: &BlobPaths) -> bool {
    // Also what an order destroys: it is to go by that order alone, which may be taken back.
    let until = promised(ring, blob, paths);
    paths.keys.iter().any(|(key, certainty)| {
        // One in the window has a guard of its own against being dropped early.
        let kept = |kind| matches!(kind, EntryKind::Day(day) if day >= until);
        let outlives = ring.entry(*key).is_some_and(|entry| kept(entry.kind));
        *certainty == Certainty::Certain && !keys.contains(key) && outlives
    })
}
