//! Keeping the log fit to be shown: closing what dead writers left, publishing,
//! keeping each day, and giving a customer its records.
//!
//! Separate from the operations, because none of them waits for it, and any node
//! may do it for all.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::{Inner, Strongroom};
use crate::access::Access;
use crate::audit::layout::FIRST_SHARD;
use crate::audit::log::{Log, LogConfig, Settled};
use crate::audit::publish::{Published, Removed};
use crate::audit::voucher::Versioned;
use crate::audit::{Action, BaseRef, Event, Intent, OutcomeResult, ShardHead, View};
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;
use crate::store::StorageKind;
use crate::time::{Day, Timestamp};
use crate::tlog::checkpoint::SignedCheckpoint;

/// How many shards are published at a time.
const TOGETHER: usize = 4;

/// How many records a program leaves unpublished at its end: maintainers publish them.
const MUCH: u64 = 256;

/// What [`Strongroom::maintain_log`] did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Maintained {
    /// Of each shard, what was closed.
    pub settled: Vec<(u16, Settled)>,
    /// Of each shard, how many segments were made.
    pub segments: Vec<(u16, usize)>,
    /// Of each shard, how many bases were made.
    pub bases: Vec<(u16, usize)>,
    /// Of each shard, what was published.
    pub published: Vec<(u16, Published)>,
    /// The worst of what failed, in one shard or another.
    pub failed: Option<Error>,
    /// Of each shard of a log in a local directory, what was removed because segments have
    /// held it for 35 days, or a wider tile has taken its place.
    pub removed: Vec<(u16, Removed)>,
}

/// What [`Strongroom::customer_view`] made.
#[non_exhaustive]
pub struct CustomerView {
    /// What was recorded.
    pub view: View,
    /// Of each shard, what was published.
    pub published: Vec<(u16, Published)>,
    /// The file, in pieces. It is whole when the stream has ended without an error.
    pub pieces: BoxStream<'static, Result<Bytes>>,
}

impl fmt::Debug for CustomerView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomerView").field("view", &self.view).finish_non_exhaustive()
    }
}

impl Strongroom {
    /// Publishes what the log's shards have that was not published, the first
    /// one last, so that it names how far the others are published.
    ///
    /// # Errors
    /// As [`Publisher::publish`](crate::audit::publish::Publisher::publish) and [`Log::begin`]. Whatever was recorded stays
    /// recorded.
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn publish_log(&self) -> Result<Vec<(u16, Published)>> {
        let (published, failed) = self.publish_shards().await?;
        failed.map_or(Ok(published), Err)
    }

    /// The same; and what was published all the same if another shard than the first could not
    /// be: the worst of the errors.
    ///
    /// # Errors
    /// As [`Strongroom::publish_log`], for the first shard.
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn publish_shards(&self) -> Result<(Vec<(u16, Published)>, Option<Error>)> {
        let room = &*self.0;
        let publisher = &room.publisher;
        let first = room.shard(FIRST_SHARD).await?;
        publisher.take_note(&first.head());
        let (mut all, mut moved) = (Vec::new(), Vec::new());
        let shards = first.shards().await?.into_iter().filter(|shard| *shard != FIRST_SHARD);
        let publish = |shard| async move { (shard, publisher.publish_new(shard).await) };
        let mut published = stream::iter(shards).map(publish).buffered(TOGETHER);
        let mut failed = None;
        while let Some((shard, published)) = published.next().await {
            match published {
                Ok(published) => {
                    if published.tree.size > published.before {
                        moved.push(ShardHead { shard, tree: published.tree });
                    }
                    all.push((shard, published));
                }
                // The others are published all the same.
                Err(error) => failed = Some(worse(failed, error)),
            }
        }
        drop(published);
        // If we stop here, the first shard learns of it when they have moved again.
        all.push((FIRST_SHARD, self.publish_first(&first, &moved).await?));
        Ok((all, failed))
    }

    /// Publishes the first shard, with where others stand that were published before.
    async fn publish_first(&self, first: &Log, moved: &[ShardHead]) -> Result<Published> {
        if !moved.is_empty() {
            first.name_shards(moved).await?;
        }
        // If we stop here, the next to publish the first shard publishes that too.
        self.0.publisher.publish(FIRST_SHARD, &self.0.witnesses).await
    }

    /// Records a view of a customer, publishes the log up to it, and makes the file that
    /// the customer is given: see [`audit::view`](crate::audit::view).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a customer of whom there is no record, and then
    /// there is none of this either; [`ErrorKind::Integrity`] if the log's first commits are missing
    /// without a record of their removal; as [`Log::record_view`], [`Strongroom::publish_log`] and
    /// [`Publisher::view`](crate::audit::publish::Publisher::view).
    ///
    /// # Cancel safety
    /// The view may be on the record. Call it again, and there is another.
    pub async fn customer_view(&self, customer: CustomerId) -> Result<CustomerView> {
        let room = &*self.0;
        let first = room.shard(FIRST_SHARD).await?;
        // A wrong id must not look like a customer of whom nothing was recorded.
        if first.count_records(customer).await?.shards.iter().all(|shard| shard.records == 0) {
            return Err(Error::new(ErrorKind::NotFound, "the log has no record of this customer"));
        }
        let removed = self.removed_on_record().await?;
        let view = first.record_view_behind(&removed, customer).await?;
        first.close().await?;
        // If we stop here, the view is on the record and nobody has it.
        let published = self.publish_log().await?;
        let pieces = room.publisher.view(&view).await?;
        Ok(CustomerView { view, published, pieces })
    }

    /// The checkpoint of the log's first shard that is published, signed and with the
    /// cosignatures of witnesses; `None` if nothing is published yet.
    ///
    /// # Errors
    /// As [`Publisher::checkpoint`](crate::audit::publish::Publisher::checkpoint).
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn published_checkpoint(&self) -> Result<Option<SignedCheckpoint>> {
        self.0.publisher.checkpoint(FIRST_SHARD).await
    }

    /// Makes again what of the log's derived objects was lost: tiles, bundles, and
    /// the pins of rings. Publish afterwards.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if one is there and is not what the commits make: it
    /// has to be removed first, and looked into; else as
    /// [`Strongroom::publish_log`].
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn restore_log(&self) -> Result<()> {
        let room = &*self.0;
        for shard in room.shard(FIRST_SHARD).await?.shards().await? {
            let log = room.shard(shard).await?;
            room.publisher.take_note(&log.head());
            room.publisher.restore(shard).await?;
            // A ring write is pinned before its outcome says that it ended well.
            let mut written = HashMap::new();
            let of_shard = self.log_reader().shard(shard).await?;
            let mut commits = of_shard.commits(of_shard.begin()..u64::MAX, None);
            while let Some(commit) = commits.try_next().await? {
                for record in commit.into_records() {
                    match record.event {
                        Event::Intent(intent) => {
                            if let (Some(of), Some(version)) = (Versioned::written_by(&intent), intent.ring) {
                                written.insert(intent.request, (of, version));
                            }
                        }
                        Event::Outcome(outcome) => {
                            let ended = written.remove(&outcome.request);
                            if let Some((of, version)) = ended.filter(|_| outcome.result == OutcomeResult::Ok)
                            {
                                let vouched = log.vouch(of, version, outcome.request).await?;
                                if of != Versioned::Epoch {
                                    log.pin(&vouched).await?;
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Publishes the shard that this program writes to, if it has much that was not
    /// published: what a program does at its end where nobody maintains the log. `None` if
    /// there was little.
    ///
    /// # Errors
    /// As [`Strongroom::publish_log`].
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn publish_if_much(&self) -> Result<Option<Published>> {
        let (log, publisher) = (&self.0.log, &self.0.publisher);
        if !log.has_written() || log.unpublished() < MUCH {
            return Ok(None);
        }
        let head = log.head();
        publisher.take_note(&head);
        if head.shard() == FIRST_SHARD {
            return publisher.publish(FIRST_SHARD, &self.0.witnesses).await.map(Some);
        }
        let published = publisher.publish_new(head.shard()).await?;
        let first = self.0.shard(FIRST_SHARD).await?;
        // If we stop here, the first shard learns of it when this one has moved again.
        self.publish_first(&first, &[ShardHead { shard: head.shard(), tree: published.tree }]).await.map(Some)
    }

    /// Says that this host's clock is right today, where the log is so old that it is in doubt
    /// and no second clock tells ([`Log::confirm_time`]). Returns the time at which the log goes on.
    ///
    /// # Errors
    /// As [`Log::confirm_time`].
    ///
    /// # Cancel safety
    /// It is on record or not; call it again.
    pub async fn confirm_time(&self, access: &Access, today: Day) -> Result<Timestamp> {
        // In the first shard, which all others are held against.
        let first = self.0.shard(FIRST_SHARD).await?;
        let intent = Intent::new(first.request_id()?, access, Action::ClockConfirm);
        let confirmed = first.confirm_time(intent, today).await;
        first.close().await?;
        confirmed
    }

    /// What is to be done once a day at least, on any node or from cron: closes
    /// the open intents of dead writers, keeps each day that is over as segments, so
    /// that its small commits may age out, and publishes everything. In a local directory it
    /// removes the commits that segments have held for 35 days. What fails in one shard does
    /// not keep it from the others.
    ///
    /// # Errors
    /// As [`Log::settle`] and [`Strongroom::publish_log`]: the first of several.
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn maintain_log(&self) -> Result<Maintained> {
        let mut done = self.maintain_shards().await?;
        match done.failed.take() {
            None => Ok(done),
            Some(error) => Err(error),
        }
    }

    /// The same, with what was done although something failed ([`Maintained::failed`]).
    ///
    /// # Errors
    /// As [`Strongroom::maintain_log`], if the shards cannot be listed.
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn maintain_shards(&self) -> Result<Maintained> {
        let room = &*self.0;
        let mut done = Maintained::default();
        let mut failed = None;
        for shard in self.0.shard(FIRST_SHARD).await?.shards().await? {
            if let Err(error) = self.maintain_shard(shard, &mut done).await {
                failed = Some(worse(failed, error));
            }
        }
        match self.publish_shards().await {
            Ok((published, unpublished)) => {
                done.published = published;
                if let Some(error) = unpublished {
                    failed = Some(worse(failed, error));
                }
            }
            Err(error) => failed = Some(worse(failed, error)),
        }
        // On a bucket, a lifecycle rule does that, and nothing of ours may.
        if room.storages.audit_kind() == StorageKind::Local {
            for (shard, _) in &done.segments {
                match room.publisher.remove_aged(*shard, room.clock.now()).await {
                    Ok(removed) => done.removed.push((*shard, removed)),
                    Err(error) => failed = Some(worse(failed, error)),
                }
            }
        }
        done.failed = failed;
        Ok(done)
    }

    async fn maintain_shard(&self, shard: u16, done: &mut Maintained) -> Result<()> {
        let room = &*self.0;
        let publisher = &room.publisher;
        let log = room.shard(shard).await?;
        publisher.take_note(&log.head());
        match log.settle().await {
            Ok(settled) => done.settled.push((shard, settled)),
            // Others write all the time, and one of them closes it the next time.
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(error),
        }
        // A day is over for the log when a later one has begun in it.
        if publisher.needs_mark(shard, room.clock.now()).await? {
            match room.log.owns(shard) {
                true => room.log.say_alive().await?,
                false => log.mark().await?,
            }
        }
        done.segments.push((shard, publisher.segment_days(shard).await?.len()));
        log.close().await?;
        done.bases.push((shard, self.make_bases(shard).await?));
        Ok(())
    }
}

impl Strongroom {
    /// The bases that stand for what was removed of the log.
    pub(super) async fn removed(&self) -> Result<Vec<BaseRef>> {
        let reader = self.log_reader();
        let mut removed = Vec::new();
        for shard in reader.shards().await? {
            let begin = reader.shard(shard).await?.begin();
            if begin > 0 {
                removed.extend(reader.base(shard, begin).await?.map(|base| base.reference()));
            }
        }
        Ok(removed)
    }

    /// The same, if the log has a record of each removal. Commits that are missing without one were deleted by
    /// somebody else, and a record that we write now would make that look like a removal by the rules.
    async fn removed_on_record(&self) -> Result<Vec<BaseRef>> {
        let removed = self.removed().await?;
        let mut without = removed.clone();
        if without.is_empty() {
            return Ok(removed);
        }
        // Each removal records the others again, so that their records are never in what it removes.
        let first = self.log_reader().shard(FIRST_SHARD).await?;
        let mut commits = first.commits(first.begin()..first.end(), None);
        while !without.is_empty()
            && let Some(commit) = commits.try_next().await?
        {
            for record in commit.records() {
                if let Event::Removal(base) = &record.event {
                    without.retain(|of| of != base);
                }
            }
        }
        let Some(base) = without.first() else { return Ok(removed) };
        let message = format!(
            "the first commits of shard {:04x} of the audit log are missing, and no removal of them is on record: \
             `audit verify` says what is wrong",
            base.shard
        );
        Err(Error::new(ErrorKind::Integrity, message))
    }

    /// Makes the bases of a shard that are missing behind its segments, and says how many.
    async fn make_bases(&self, shard: u16) -> Result<usize> {
        let publisher = &self.0.publisher;
        let mut made = 0;
        while let Some(new) = publisher.next_base(shard).await? {
            // If we stop behind this, the record is of a base that the next run makes.
            self.0.shard(FIRST_SHARD).await?.record_base(new.reference()).await?;
            publisher.keep_base(new).await?;
            made += 1;
        }
        Ok(made)
    }
}

/// The one of two errors that somebody has to look into.
fn worse(known: Option<Error>, error: Error) -> Error {
    match known {
        Some(known) if error.kind().is_retryable() || !known.kind().is_retryable() => known,
        _ => error,
    }
}

impl Inner {
    /// A handle on the log of one shard, as a writer of its own.
    pub(super) async fn shard(&self, shard: u16) -> Result<Log> {
        let config = LogConfig { shard, ..self.log_config.clone() };
        let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(&self.entropy));
        Log::open(Arc::clone(&self.storages.audit), config, clock, entropy).await
    }
}
