//! What is left of shredded blobs on the storage, and its removal.
//!
//! Shredding does not depend on it: what is left cannot be read. It takes space, shows
//! sizes and days, and its name tags can be tested by whoever has the name key. The
//! removal goes through the days of which a key was dropped, and takes each blob that the log
//! says is shredded, also where other keys of its day live: a blob that lives on by another
//! path stays, and so does whatever is not ours. Run again, it takes what came back, out of a
//! backup perhaps.

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
        let mut days: BTreeSet<Day> = present.into_iter().filter(|day| had_a_key(&ring, *day)).collect();
        if days.is_empty() {
            return Ok(remains);
        }
        let gone: BTreeSet<KekId> = ring.dropped.iter().map(|dropped| dropped.id).collect();
        let history = History::open(&self.log_reader()).await?;
        let paths = Paths::of_days(&history, ring.customer, days.clone()).await?;
        let scope = paths.scope(&ring, ring.version, &gone);
        // A day that has a live key lies there for years: it is looked at closely only if a
        // shredded blob does.
        for day in days.clone() {
            if has_live_key(&ring, day) && !self.has_remains(customer, day, &scope).await? {
                days.remove(&day);
            }
        }
        if days.is_empty() {
            return Ok(remains);
        }
        // The wraps and names go before the blobs: while the blobs are there, their day is
        // looked at again.
        remains.purged += self.purge_names(customer, &days, &scope).await?;
        for day in days {
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

    /// Whether a shredded blob of a day lies there.
    async fn has_remains(&self, customer: CustomerId, day: Day, scope: &Scope) -> Result<bool> {
        if !scope.gone().any(|blob| blob.day() == day) {
            return Ok(false);
        }
        let is_gone = |path: &Path| {
            let blob = layout::read_blob(path).filter(|(owner, _)| *owner == customer).map(|(_, blob)| blob);
            blob.is_some_and(|blob| scope.is_gone(blob))
        };
        let failed = |error| store_error(error, "list the blobs of a day");
        let mut listed = self.0.storages.blobs.list(Some(&layout::blobs_of_day(customer, day)));
        while let Some(object) = listed.try_next().await.map_err(failed)? {
            if is_gone(&object.location) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn purge_day(&self, customer: CustomerId, day: Day, scope: &Scope) -> Result<Purged> {
        let storages = &self.0.storages;
        let is_gone = |blob: BlobId| blob.day() == day && scope.is_gone(blob);
        let of_blob = |path: &Path| {
            layout::read_blob(path).is_some_and(|(owner, blob)| owner == customer && is_gone(blob))
        };
        let mut purged = Purged::default();
        for blob in scope.gone().filter(|blob| blob.day() == day) {
            let of_wrap = |path: &Path| {
                layout::read_wrap(path).is_some_and(|(owner, of, _)| (owner, of) == (customer, blob))
            };
            if self.is_there(&layout::wraps_of(customer, blob)).await? {
                purged += storages.purge(&layout::wraps_of(customer, blob), of_wrap).await?;
            }
        }
        purged += storages.purge(&layout::blobs_of_day(customer, day), of_blob).await?;
        Ok(purged)
    }

    /// The tags under which shredded blobs of these days could be looked up.
    async fn purge_names(&self, customer: CustomerId, days: &BTreeSet<Day>, scope: &Scope) -> Result<Purged> {
        let is_gone = |blob: BlobId| days.contains(&blob.day()) && scope.is_gone(blob);
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

/// Whether a key of this day was dropped.
fn had_a_key(ring: &Ring, day: Day) -> bool {
    ring.dropped.iter().any(|dropped| dropped.kind == EntryKind::Day(day))
}

fn has_live_key(ring: &Ring, day: Day) -> bool {
    ring.entries.iter().any(|entry| entry.kind == EntryKind::Day(day))
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
