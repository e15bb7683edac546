//! What the log has of drops that want a certificate, read once for all customers.
//!
//! A certificate takes the wrap paths under the keys that were dropped, the tombstones of
//! these keys, the writing of the ring version, and for a final one the ends of epochs. All
//! of that is all over the log, whose times are of many clocks: so the whole of it is read,
//! and once for a sweep rather than once for a certificate.
//!
//! In memory are the paths of the blobs under these keys, and those records.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;

use super::ends::{EpochRecords, ended_well, may_have_ended_well};
use super::paths::{Paths, UnderKeys};
use crate::audit::log::LogReader;
use crate::audit::operation::Operation;
use crate::audit::query::{Filter, operations};
use crate::audit::{Action, KeyRef, RingRef};
use crate::error::Result;
use crate::id::{CustomerId, KekId};

/// The drops that want a certificate: by customer, the ring versions, each with the keys that
/// it no longer had.
pub(super) type Wanted = BTreeMap<CustomerId, BTreeMap<u64, BTreeSet<KekId>>>;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Records {
    customers: BTreeMap<CustomerId, OfCustomer>,
    /// How epochs ended.
    pub(super) epochs: EpochRecords,
}

/// What was found of one customer.
#[derive(Debug, Default)]
pub(super) struct OfCustomer {
    /// The paths of the blobs under all the keys.
    pub(super) paths: Paths,
    /// The tombstone of each key.
    tombstones: BTreeMap<KekId, Operation>,
    /// Each writing of one of the ring versions.
    writes: Vec<Operation>,
}

/// Whose write a ring version is, by what stands.
#[derive(Debug)]
pub(super) enum Write<'a> {
    /// This one's.
    By(&'a Operation),
    /// Something else stands than anyone said they wrote.
    OfAnother,
    /// Nobody said so.
    Unknown,
}

impl Records {
    /// Reads the log, once, or twice where a blob came under one of the keys later.
    ///
    /// # Errors
    /// As [`crate::audit::query::query`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub(super) async fn read(reader: &LogReader, store: CustomerId, wanted: &Wanted) -> Result<Self> {
        let keys = |versions: &BTreeMap<u64, BTreeSet<KekId>>| versions.values().flatten().copied().collect();
        let mut under: BTreeMap<CustomerId, UnderKeys> =
            wanted.iter().map(|(customer, versions)| (*customer, UnderKeys::new(keys(versions)))).collect();
        let mut records = Self::default();
        // Epochs are in the chain of the store itself.
        let customer = wanted.is_empty().then_some(store);
        let mut found = operations(reader, &Filter { customer, ..Filter::default() }, None);
        while let Some(operation) = found.try_next().await? {
            let Some(customer) = operation.intent().customer else { continue };
            if customer == store {
                records.epochs.take(operation);
            } else if let (Some(versions), Some(under)) = (wanted.get(&customer), under.get_mut(&customer)) {
                under.take(&operation);
                records.customers.entry(customer).or_default().take(versions, under.keys(), operation);
            }
        }
        if under.values().any(UnderKeys::is_incomplete) {
            let mut again = operations(reader, &Filter::default(), None);
            while let Some(operation) = again.try_next().await? {
                let under = operation.intent().customer.and_then(|customer| under.get_mut(&customer));
                if let Some(under) = under {
                    under.take_late(&operation);
                }
            }
        }
        for (customer, under) in under {
            records.customers.entry(customer).or_default().paths = under.finish();
        }
        Ok(records)
    }

    pub(super) fn of(&self, customer: CustomerId) -> Option<&OfCustomer> {
        self.customers.get(&customer)
    }
}

impl OfCustomer {
    fn take(
        &mut self,
        versions: &BTreeMap<u64, BTreeSet<KekId>>,
        keys: &BTreeSet<KekId>,
        operation: Operation,
    ) {
        let intent = operation.intent();
        if !may_have_ended_well(&operation) {
            return;
        }
        match (intent.action, &intent.key, intent.ring) {
            (
                Action::ShredDrop,
                Some(KeyRef::Kek { id, .. } | KeyRef::HoldKey { id } | KeyRef::NameKey { id }),
                _,
            ) if keys.contains(id) => {
                let id = *id;
                let is_known = self.tombstones.get(&id).is_some_and(ended_well);
                if ended_well(&operation) || !is_known {
                    self.tombstones.insert(id, operation);
                }
            }
            (Action::RingWrite, _, Some(ring)) if versions.contains_key(&ring.version) => {
                self.writes.push(operation);
            }
            _ => {}
        }
    }

    /// The tombstone of a key.
    pub(super) fn tombstone(&self, key: KekId) -> Option<&Operation> {
        self.tombstones.get(&key)
    }

    /// Whose write a ring version is. Nodes that lost a race for it may have begun the same and
    /// never said how it ended: the hash of what stands tells.
    pub(super) fn write(&self, ring: RingRef) -> Write<'_> {
        let mut of_version = self
            .writes
            .iter()
            .filter(|write| write.intent().ring.is_some_and(|written| written.version == ring.version));
        let by = of_version.clone().rfind(|write| write.intent().ring == Some(ring));
        match (by, of_version.next()) {
            (Some(write), _) => Write::By(write),
            (None, Some(_)) => Write::OfAnother,
            (None, None) => Write::Unknown,
        }
    }
}
