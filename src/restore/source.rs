//! Where a restore has the blobs from.
//!
//! A store that this program has open ([`InStore`]), or a daemon: what asks one is with the rest
//! of the client. Separate from the restore, which is the same of either.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::CheckedBy;
use crate::drill::LogMark;
use crate::envelope::BlobName;
use crate::error::{Error, Result};
use crate::id::{BlobId, CustomerId, StoreId};
use crate::ring::Ring;
use crate::room::{BlobInfo, Customer};
use crate::shred::inventory::{Standing, evidence, inventory, is_destroyed};
use crate::shred::paths::Paths;
use crate::time::{Clock, Timestamp};

/// How many blobs are looked at together, to find out what they are called.
pub(crate) const LOOKING: usize = 16;

/// One customer's blobs.
///
/// Contract: what there is comes from the log, and not from what the storage lists. A stream of
/// [`Source::open`] ends without an error only when all of the blob came, authentic as
/// [`Source::checked_by`] says. Methods are called at any number at once, and may be dropped.
pub(crate) trait Source: Sync {
    /// The time.
    fn clock(&self) -> &dyn Clock;

    /// The store and the customer.
    fn whose(&self) -> (StoreId, CustomerId);

    /// Who decrypts and authenticates.
    fn checked_by(&self) -> CheckedBy;

    /// What the customer has by now.
    fn inventory(&self) -> impl Future<Output = Result<BTreeMap<BlobId, Standing>>> + Send;

    /// Looks at each of these, in any order. What fails for one blob is its own; an item that is
    /// an error ends it.
    fn look(&self, blobs: BTreeMap<BlobId, Standing>) -> BoxStream<'_, Result<Looked>>;

    /// Opens a blob, which has so many `bytes`.
    fn open(
        &self,
        blob: BlobId,
        bytes: u64,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<Bytes>>>> + Send;

    /// Whether a blob that failed with this error did not have to open.
    fn is_destroyed(&self, blob: (BlobId, Standing), error: &Error) -> impl Future<Output = bool> + Send;

    /// Whether no other blob can be opened either.
    fn is_final(&self, error: &Error) -> impl Future<Output = bool> + Send;

    /// Where the log stands.
    fn mark(&self) -> impl Future<Output = Result<LogMark>> + Send;
}

/// What was found of a blob.
pub(crate) struct Looked {
    pub(crate) blob: BlobId,
    pub(crate) standing: Standing,
    pub(crate) found: Result<Found>,
}

/// What a restore has to know of a blob.
pub(crate) struct Found {
    pub(crate) name: Option<BlobName>,
    pub(crate) sealed_at: Timestamp,
    /// Its plaintext in bytes.
    pub(crate) bytes: u64,
}

/// In a store that is open here.
pub(super) struct InStore<'a> {
    customer: &'a Customer,
    ring: Arc<Ring>,
    paths: Paths,
}

impl<'a> InStore<'a> {
    /// The customer's, for whoever may see its blobs.
    pub(super) async fn of(customer: &'a Customer) -> Result<Self> {
        let (ring, paths) = evidence(customer).await?;
        Ok(Self { customer, ring, paths })
    }
}

impl Source for InStore<'_> {
    fn clock(&self) -> &dyn Clock {
        &*self.customer.room.0.clock
    }

    fn whose(&self) -> (StoreId, CustomerId) {
        (self.customer.room.store_id(), self.customer.id)
    }

    fn checked_by(&self) -> CheckedBy {
        CheckedBy::Store
    }

    async fn inventory(&self) -> Result<BTreeMap<BlobId, Standing>> {
        inventory(self.customer, &self.ring, &self.paths).await
    }

    fn look(&self, blobs: BTreeMap<BlobId, Standing>) -> BoxStream<'_, Result<Looked>> {
        let look = move |(blob, standing)| async move {
            let found = self.customer.stat_listed(blob).await.map(|info| {
                let BlobInfo { metadata, sealed_at, bytes, .. } = info;
                Found { name: metadata.name().cloned(), sealed_at, bytes }
            });
            Ok(Looked { blob, standing, found })
        };
        futures_util::stream::iter(blobs).map(look).buffered(LOOKING).boxed()
    }

    async fn open(&self, blob: BlobId, _: u64) -> Result<BoxStream<'static, Result<Bytes>>> {
        Ok(self.customer.open(blob).await?.into_stream())
    }

    async fn is_destroyed(&self, blob: (BlobId, Standing), error: &Error) -> bool {
        is_destroyed(self.customer, &self.paths, blob, error).await
    }

    async fn is_final(&self, _: &Error) -> bool {
        false
    }

    async fn mark(&self) -> Result<LogMark> {
        LogMark::of(&self.customer.room).await
    }
}
