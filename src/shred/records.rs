//! What the log has of drops that want a certificate, read once for all customers.
//!
//! A certificate takes the wrap paths under the keys that were dropped, the tombstones of
//! these keys, the writing of the ring version, and for a final one the ends of epochs. All of
//! that is filed in the bases of the log, or is in the commits behind them.
//!
//! In memory are the paths of the blobs under these keys, and those records.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;

use super::ends::{EpochRecords, may_have_ended_well};
use super::paths::Paths;
use crate::audit::base::extract::Shelf;
use crate::audit::history::{History, Need};
use crate::audit::log::LogReader;
use crate::audit::operation::Operation;
use crate::audit::{Action, KeyRef, RingRef};
use crate::error::Result;
use crate::id::{CustomerId, KekId};
use crate::retention::clock::STEP;
use crate::time::Timestamp;

/// The drops that want a certificate, by customer.
pub(super) type Wanted = BTreeMap<CustomerId, Drops>;

/// The drops of one customer that want a certificate.
#[derive(Debug, Default)]
pub(super) struct Drops {
    /// The ring versions, each with the keys that it no longer had.
    pub(super) versions: BTreeMap<u64, BTreeSet<KekId>>,
    /// Where the operations on the blobs under each key are filed.
    pub(super) shelves: BTreeMap<KekId, Shelf>,
    /// When the first was dropped.
    pub(super) since: Option<Timestamp>,
}

/// A time that no record is before which was made behind `since`: its clock may be behind.
pub(super) fn earlier(since: Timestamp) -> Timestamp {
    since.saturating_sub(STEP)
}

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
    /// Reads what the log has of these drops; and of epochs' ends since a time, if one is given.
    ///
    /// # Errors
    /// As [`History::operations`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub(super) async fn read(
        reader: &LogReader,
        store: CustomerId,
        wanted: &Wanted,
        epochs_since: Option<Timestamp>,
    ) -> Result<Self> {
        let history = History::open(reader).await?;
        let mut records = Self::default();
        if let Some(since) = epochs_since {
            records.epochs = EpochRecords::read(&history, store, since).await?;
        }
        for (customer, drops) in wanted {
            let mut of_customer = OfCustomer::default();
            let show = |operation: &Operation| of_customer.take(drops, operation);
            let paths = Paths::under_keys_and(&history, *customer, &drops.shelves, show).await?;
            of_customer.paths = paths;
            let mut found = history.operations(Some(*customer), &Need::Customer(drops.since.map(earlier)));
            while let Some(operation) = found.try_next().await? {
                of_customer.take(drops, &operation);
            }
            records.customers.insert(*customer, of_customer);
        }
        Ok(records)
    }

    pub(super) fn of(&self, customer: CustomerId) -> Option<&OfCustomer> {
        self.customers.get(&customer)
    }
}

impl OfCustomer {
    fn take(&mut self, drops: &Drops, operation: &Operation) {
        let intent = operation.intent();
        if !may_have_ended_well(operation) {
            return;
        }
        match (intent.action, &intent.key, intent.ring) {
            (
                Action::ShredDrop,
                Some(KeyRef::Kek { id, .. } | KeyRef::HoldKey { id } | KeyRef::NameKey { id }),
                _,
            ) if drops.shelves.contains_key(id) => {
                let id = *id;
                let is_known = self.tombstones.get(&id).is_some_and(Operation::ended_well);
                if operation.ended_well() || !is_known {
                    self.tombstones.insert(id, operation.clone());
                }
            }
            (Action::RingWrite, _, Some(ring)) if drops.versions.contains_key(&ring.version) => {
                self.writes.push(operation.clone());
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
