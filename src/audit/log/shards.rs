//! Several shards: a program that stays takes one of its own, so that it does not
//! race others for the next number; and the first shard's log names them all.
//!
//! The first shard is everybody's. A shard of one's own begins with a record in
//! the first, durable before anything is in it, so that nobody can leave out a
//! whole shard; then its first commit claims it. Released, or taken from a dead
//! owner, it is free for the next. So there are as many shards as programs ran
//! at once at most.

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::ObjectStore;

use super::queue::Place;
use super::wal::request_within;
use super::{Log, LogConfig};
use crate::audit::layout::{self, FIRST_SHARD};
use crate::audit::{Event, ShardHead, View, ViewShard};
use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;
use crate::merkle::{Frontier, Hash, TreeHead};
use crate::time::Clock;

impl Log {
    /// Opens the log with a shard of its own, whatever shard `config` names: a
    /// free one, one whose owner is dead ([`Log::settle`]), or a new one.
    /// [`Log::close`] gives it back.
    ///
    /// # Errors
    /// As [`Log::open`] and [`Log::begin`]; [`ErrorKind::Conflict`] if there is no
    /// shard left.
    ///
    /// # Cancel safety
    /// A shard may have been claimed; it is taken back when its claim has been
    /// idle for long enough.
    pub async fn open_own(
        storage: Arc<dyn ObjectStore>,
        config: LogConfig,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let open = |shard| {
            let config = LogConfig { shard, ..config.clone() };
            Self::open(Arc::clone(&storage), config, Arc::clone(&clock), Arc::clone(&entropy))
        };
        let first = open(FIRST_SHARD).await?;
        for shard in FIRST_SHARD + 1..=u16::MAX {
            let log = open(shard).await?;
            let head = log.head();
            if head.next() == 0 {
                first.name_shards(&[ShardHead { shard, tree: Frontier::new().head() }]).await?;
            }
            if head.owner().is_some() {
                log.settle().await?;
                if log.head().owner().is_some() {
                    continue;
                }
            }
            // If we stop here, the shard is named and empty, or free: the next one
            // takes it.
            let head = log.head();
            let claim = log.inner.record(log.inner.nonce()?, Event::Claim);
            let place = Place { seq: head.next(), settled: head.settled() };
            match log.inner.append_at(vec![claim], Some(place)).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                claimed => {
                    first.close().await?;
                    return claimed.map(|()| log);
                }
            }
        }
        Err(Error::new(ErrorKind::Conflict, "every shard of the audit log has an owner"))
    }

    /// Records in the first shard where others stand. When it returns, that is
    /// durable.
    ///
    /// # Errors
    /// As [`Log::begin`].
    ///
    /// # Panics
    /// In another shard than the first.
    pub async fn name_shards(&self, heads: &[ShardHead]) -> Result<()> {
        assert_eq!(self.inner.config.shard, FIRST_SHARD, "shards are named in the first");
        let records = heads.iter().map(|head| {
            let nonce = self.inner.nonce()?;
            Ok(self.inner.record(nonce, Event::Shard(*head)))
        });
        self.inner.append_at(records.collect::<Result<_>>()?, None).await
    }

    /// Records that this writer lives, so that the day before is over for the
    /// log too.
    ///
    /// # Errors
    /// As [`Log::begin`].
    pub async fn mark(&self) -> Result<()> {
        let alive = self.inner.record(self.inner.nonce()?, Event::Alive);
        let head = self.head();
        let place = Place { seq: head.next(), settled: head.settled() };
        match self.inner.append_at(vec![alive], Some(place)).await {
            // Another has written, which does as well.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            marked => marked,
        }
    }

    /// Whether this handle has written anything yet.
    #[must_use]
    pub fn has_written(&self) -> bool {
        self.inner.pen.initialized()
    }

    /// Whether another writer has gone on behind the last commit that this handle
    /// knows.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn is_behind(&self) -> Result<bool> {
        Ok(self.inner.wal.new_commit(self.head().next()).await?.is_some())
    }

    /// How many records a customer has in every shard now.
    ///
    /// # Errors
    /// As [`Log::commits`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn count_records(&self, customer: CustomerId) -> Result<View> {
        let mut shards = Vec::new();
        for shard in self.shards().await? {
            let wal = self.inner.wal.of_shard(shard);
            let end = wal.end(0).await?;
            let (mut tree, mut records, mut last) = (Frontier::new().head(), 0, Hash::ZERO);
            if let Some(newest) = end.checked_sub(1) {
                tree = wal.header(newest).await?.ok_or_else(|| wal.missing(newest))?.new;
                if let Some(found) = wal.chains(end).await?.end(customer) {
                    (records, last) = (found.records, found.last);
                }
            }
            shards.push(ViewShard { shard, tree, records, last });
        }
        Ok(View { customer, shards })
    }

    /// Records in the first shard how many records a customer has in every shard,
    /// and returns it: the end of a view that the customer is given. It is in the
    /// customer's own chain, so that it cannot be left out, and whoever verifies the log
    /// checks that it is true.
    ///
    /// # Errors
    /// As [`Log::begin`] and [`Log::commits`].
    ///
    /// # Panics
    /// In another shard than the first.
    pub async fn record_view(&self, customer: CustomerId) -> Result<View> {
        assert_eq!(self.inner.config.shard, FIRST_SHARD, "views are recorded in the first");
        let view = self.count_records(customer).await?;
        let record = self.inner.record(self.inner.nonce()?, Event::View(view.clone()));
        self.inner.append_at(vec![record], None).await?;
        Ok(view)
    }

    /// The shards that there are, by a listing. Which there have to be is in the
    /// first shard's records.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn shards(&self) -> Result<BTreeSet<u16>> {
        let wal = &self.inner.wal;
        let mut shards = BTreeSet::from([FIRST_SHARD]);
        for prefix in [layout::commits(), layout::segments()] {
            let listed = request_within(wal.limit, wal.storage.list_with_delimiter(Some(&prefix))).await?;
            let folders = listed.map(|listed| listed.common_prefixes).unwrap_or_default();
            shards
                .extend(folders.iter().filter_map(|folder| u16::from_str_radix(folder.filename()?, 16).ok()));
        }
        Ok(shards)
    }

    /// Where a shard stands on the storage now.
    ///
    /// # Errors
    /// As [`Log::commits`].
    pub async fn tree_of(&self, shard: u16) -> Result<TreeHead> {
        let wal = self.inner.wal.of_shard(shard);
        match wal.end(0).await?.checked_sub(1) {
            None => Ok(Frontier::new().head()),
            Some(last) => Ok(wal.header(last).await?.ok_or_else(|| wal.missing(last))?.new),
        }
    }
}
