//! All of a customer's blobs at a daemon: what a restore reads, and what is checked in whole.
//!
//! Separate from the rest of the [customer](super::customer), since here the client keeps what
//! there has to be, and judges by it what fails.
//!
//! Who may corrupt it: the daemon. It says which blobs there have to be, what they are called and
//! what is in them. What is held against it is its own: each blob has the length that was said
//! before, and a page goes on where the one before it ended.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::Mutex;

use super::ask::Question;
use super::customer::{RemoteCustomer, behind};
use super::nonsense;
use crate::drill::LogMark;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CustomerId, StoreId};
use crate::json::{Blob, Inventory, Row};
use crate::restore::source::{Found, LOOKING, Looked, Source};
use crate::restore::{CheckedBy, RestoreOptions, Restored, Selection, restore};
use crate::shred::inventory::{Excuse, Standing};
use crate::system::SystemClock;
use crate::time::Clock;

/// How many blobs a page has. For each the daemon reads all of the customer's records.
const PAGE: usize = 100_000;

/// What a customer has, at a daemon.
pub(crate) struct Inventoried {
    customer: RemoteCustomer,
    store: StoreId,
    /// As it was when a blob failed that lived before.
    since: Mutex<BTreeMap<BlobId, Standing>>,
}

impl RemoteCustomer {
    /// Opens the selected blobs into files, as [`Customer::restore`](crate::room::Customer::restore).
    ///
    /// # Errors
    /// The same, and [`ErrorKind::Unavailable`] if the daemon goes away.
    ///
    /// # Cancel safety
    /// The same.
    pub(crate) async fn restore(
        &self,
        to: &Path,
        selection: &Selection,
        options: RestoreOptions,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Restored> {
        restore(&self.inventoried().await?, to, selection, options, progress).await
    }

    /// The same customer, to have all of it. The daemon is asked whether it may be seen.
    pub(crate) async fn inventoried(&self) -> Result<Inventoried> {
        let Inventory { store, .. } = self.inventory_page(0, None).await?;
        Ok(Inventoried { customer: self.clone(), store, since: Mutex::default() })
    }

    async fn inventory_page(&self, limit: usize, after: Option<BlobId>) -> Result<Inventory> {
        let path = self.path(&format!("/inventory?limit={limit}{}", behind(after)));
        self.client().json(&Question::get(path)).await
    }
}

impl Inventoried {
    /// Whether a blob that failed, and lived when it was looked up, does not have to open by now.
    async fn came_to_that(&self, blob: BlobId, error: &Error) -> bool {
        let gone = error.kind() == ErrorKind::KeyDestroyed;
        let excused = |now: &BTreeMap<BlobId, Standing>| match now.get(&blob) {
            // What the log named, and is neither alive nor on the storage, was destroyed.
            None => gone,
            Some(standing) => standing.excuse(error) == Excuse::Yes,
        };
        let mut since = self.since.lock().await;
        if !since.is_empty() && excused(&since) {
            return true;
        }
        match self.inventory().await {
            Ok(now) => {
                *since = now;
                excused(&since)
            }
            Err(_) => false,
        }
    }
}

impl Source for Inventoried {
    fn clock(&self) -> &dyn Clock {
        &SystemClock
    }

    fn whose(&self) -> (StoreId, CustomerId) {
        (self.store, self.customer.id())
    }

    fn checked_by(&self) -> CheckedBy {
        CheckedBy::Daemon
    }

    async fn inventory(&self) -> Result<BTreeMap<BlobId, Standing>> {
        let (mut found, mut after) = (BTreeMap::new(), None);
        loop {
            let Inventory { store, blobs, next, .. } = self.customer.inventory_page(PAGE, after).await?;
            // In order, and behind the page before: one that goes back would never end.
            let in_order = blobs.is_sorted_by_key(|row| row.blob)
                && blobs.first().is_none_or(|first| after < Some(first.blob))
                && next.is_none_or(|next| blobs.last().is_some_and(|last| last.blob == next));
            if store != self.store || !in_order {
                return Err(nonsense());
            }
            found.extend(blobs.into_iter().map(|row| (row.blob, row.standing.into())));
            match next {
                Some(next) => after = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// By the list, which has them a page at a time; what it does not have by itself.
    fn look(&self, blobs: BTreeMap<BlobId, Standing>) -> BoxStream<'_, Result<Looked>> {
        let begin = Some((self.customer.rows(), blobs));
        let look =
            move |(blob, standing)| async move { looked((blob, standing), self.customer.stat(blob).await) };
        let steps = stream::try_unfold(begin, move |at| async move {
            let Some((mut rows, mut left)) = at else { return Ok::<_, Error>(None) };
            while let Some(row) = rows.try_next().await? {
                let (blob, found) = match row {
                    Row::Blob(found) => (found.blob, Ok(found)),
                    Row::Failed { blob, error, .. } => (blob, Err(Error::from(error))),
                };
                // What was sealed since is for the next run.
                if let Some(standing) = left.remove(&blob) {
                    let one = stream::iter([looked((blob, standing), found)]).boxed();
                    return Ok(Some((one, Some((rows, left)))));
                }
            }
            Ok(Some((stream::iter(left).map(look).buffered(LOOKING).boxed(), None)))
        });
        steps.try_flatten().boxed()
    }

    async fn open(&self, blob: BlobId, bytes: u64) -> Result<BoxStream<'static, Result<Bytes>>> {
        let download = self.customer.open(blob, None).await?;
        if download.range != (0..bytes) {
            return Err(nonsense());
        }
        Ok(download.pieces)
    }

    async fn is_destroyed(&self, (blob, standing): (BlobId, Standing), error: &Error) -> bool {
        match standing.excuse(error) {
            Excuse::Yes => true,
            Excuse::No => false,
            Excuse::UnlessItLives => self.came_to_that(blob, error).await,
        }
    }

    /// Who may not open one that lives may open none: each try would be one more denial on
    /// record. And a daemon that went away answers for no other.
    async fn is_final(&self, error: &Error) -> bool {
        match error.kind() {
            ErrorKind::Denied => true,
            ErrorKind::Unavailable => self.mark().await.is_err(),
            _ => false,
        }
    }

    async fn mark(&self) -> Result<LogMark> {
        let Inventory { log, .. } = self.customer.inventory_page(0, None).await?;
        Ok(log)
    }
}

fn looked((blob, standing): (BlobId, Standing), found: Result<Blob>) -> Result<Looked> {
    let found = found.map(|Blob { name, sealed_at, bytes, .. }| Found { name, sealed_at, bytes });
    Ok(Looked { blob, standing, found })
}
