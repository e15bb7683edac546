//! What is left of shredded blobs on the storage, and its removal.
//!
//! Shredding does not depend on it: what is left cannot be read. It takes space, shows
//! sizes and days, and its name tags can be tested by whoever has the name key. The
//! removal is by day, after every key of the day was dropped, and takes only what the log
//! says is shredded: a blob that lives on by another path stays, and so does whatever is
//! not ours. Run again, it takes what came back, out of a backup perhaps.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::paths::{Paths, Scope};
use crate::access::Access;
use crate::audit::history::History;
use crate::audit::{Action, Intent, KeyRef};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CustomerId, KekId};
use crate::ring::{EntryKind, Ring};
use crate::room::Strongroom;
use crate::room::keyring::{Asker, close};
use crate::store::purge::Purged;
use crate::store::{layout, store_error};
use crate::time::Day;

/// What was removed of one customer.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Remains {
    /// The days whose remains were removed.
    pub days: BTreeSet<Day>,
    /// Blobs, their wraps and names, with all versions.
    pub purged: Purged,
}

impl Strongroom {
    /// Removes what is left of a customer's shredded blobs, in every version that the
    /// storage keeps.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the storage does not answer; what may not be deleted
    /// is counted. [`ErrorKind::KeyDestroyed`] never: no key is used.
    ///
    /// # Cancel safety
    /// What was removed is gone; call it again for the rest.
    pub async fn remove_remains(&self, access: &Access, customer: CustomerId) -> Result<Remains> {
        let asker = Asker::of(access);
        let ring = self.0.keyring.fresh_ring(asker, customer).await?;
        let present: BTreeSet<Day> = self.0.storages.list_days(customer).await?.into_iter().collect();
        let mut remains = Remains::default();
        let over: Vec<Day> = present.into_iter().filter(|day| is_shredded(&ring, *day)).collect();
        if over.is_empty() {
            return Ok(remains);
        }
        let gone: BTreeSet<KekId> = ring.dropped.iter().map(|dropped| dropped.id).collect();
        let history = History::open(&self.log_reader()).await?;
        let paths = Paths::of_days(&history, ring.customer, over.iter().copied().collect()).await?;
        let scope = paths.scope(&ring, ring.version, &gone);
        // The wraps and names go before the blobs: while the blobs are there, their day is
        // looked at again.
        remains.purged += self.purge_names(customer, &over, &scope).await?;
        for day in over {
            let mut intent = Intent::new(self.0.log.request_id()?, access, Action::CiphertextDelete);
            (intent.customer, intent.key) = (Some(customer), Some(KeyRef::Day { day }));
            let (open, receipt) = self.0.log.begin(intent).await?;
            drop(receipt);
            let purged = self.purge_day(customer, day, &scope).await;
            remains.purged += close(open, purged).await?;
            remains.days.insert(day);
        }
        Ok(remains)
    }

    async fn purge_day(&self, customer: CustomerId, day: Day, scope: &Scope) -> Result<Purged> {
        let storages = &self.0.storages;
        let is_gone = |blob: BlobId| {
            blob.day() == day && (scope.shredded.contains(&blob) || scope.uncertain.contains(&blob))
        };
        let of_blob = |path: &Path| {
            layout::read_blob(path).is_some_and(|(owner, blob)| owner == customer && is_gone(blob))
        };
        let mut purged = Purged::default();
        for blob in scope.shredded.iter().chain(&scope.uncertain).filter(|blob| blob.day() == day) {
            let of_wrap = |path: &Path| {
                layout::read_wrap(path).is_some_and(|(owner, of, _)| (owner, of) == (customer, *blob))
            };
            if self.is_there(&layout::wraps_of(customer, *blob)).await? {
                purged += storages.purge(&layout::wraps_of(customer, *blob), of_wrap).await?;
            }
        }
        purged += storages.purge(&layout::blobs_of_day(customer, day), of_blob).await?;
        Ok(purged)
    }

    /// The tags under which shredded blobs of these days could be looked up.
    async fn purge_names(&self, customer: CustomerId, days: &[Day], scope: &Scope) -> Result<Purged> {
        let is_gone = |blob: BlobId| {
            days.contains(&blob.day()) && (scope.shredded.contains(&blob) || scope.uncertain.contains(&blob))
        };
        let of_name = |path: &Path| {
            layout::named_blob(path).is_some_and(|(owner, blob)| owner == customer && is_gone(blob))
        };
        self.0.storages.purge(&layout::names_of_customer(customer), of_name).await
    }

    async fn is_there(&self, prefix: &Path) -> Result<bool> {
        let found = self.0.storages.blobs.list(Some(prefix)).try_next().await;
        Ok(found.map_err(|error| store_error(error, "list the wraps of a blob"))?.is_some())
    }
}

/// Whether there were keys of this day, and all of them are gone.
fn is_shredded(ring: &Ring, day: Day) -> bool {
    let of_day = EntryKind::Day(day);
    let lives = ring.entries.iter().any(|entry| entry.kind == of_day);
    !lives && ring.dropped.iter().any(|dropped| dropped.kind == of_day)
}

/// A purge that was refused in part is told, not hidden.
impl Remains {
    /// That everything was removed that was to be.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if some may not be deleted.
    pub fn complete(&self) -> Result<()> {
        match self.purged.failed.total() {
            0 => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Denied,
                "some of the ciphertext may not be deleted; it stays unreadable",
            )),
        }
    }
}
