//! Keeping the log fit to be shown: closing what dead writers left, publishing,
//! and keeping each day.
//!
//! Separate from the operations, because none of them waits for it, and any node
//! may do it for all.

use std::sync::Arc;

use super::{Inner, Strongroom};
use crate::audit::ShardHead;
use crate::audit::layout::FIRST_SHARD;
use crate::audit::log::{Log, LogConfig, Settled};
use crate::audit::publish::{Published, Publisher};
use crate::error::Result;

/// What [`Strongroom::maintain_log`] did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Maintained {
    /// Of each shard, what was closed.
    pub settled: Vec<(u16, Settled)>,
    /// Of each shard, how many segments were made.
    pub segments: Vec<(u16, usize)>,
    /// Of each shard, what was published.
    pub published: Vec<(u16, Published)>,
}

impl Strongroom {
    /// Publishes what the log's shards have that was not published, the first
    /// one last, so that it names how far the others are published.
    ///
    /// # Errors
    /// As [`Publisher::publish`] and [`Log::begin`]. Whatever was recorded stays
    /// recorded.
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn publish_log(&self) -> Result<Vec<(u16, Published)>> {
        let room = &*self.0;
        let publisher = room.publisher();
        let first = room.shard(FIRST_SHARD).await?;
        let (mut all, mut moved) = (Vec::new(), Vec::new());
        for shard in first.shards().await?.into_iter().filter(|shard| *shard != FIRST_SHARD) {
            let published = publisher.publish(shard, &[]).await?;
            if published.tree.size > published.before {
                moved.push(ShardHead { shard, tree: published.tree });
            }
            all.push((shard, published));
        }
        // If we stop here, the first shard learns of it when they have moved again.
        if !moved.is_empty() {
            first.name_shards(&moved).await?;
        }
        all.push((FIRST_SHARD, publisher.publish(FIRST_SHARD, &room.witnesses).await?));
        Ok(all)
    }

    /// Publishes the first shard only, which is all that a program needs to do
    /// that shares it and ends: a few requests.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn publish_first_shard(&self) -> Result<Published> {
        self.0.publisher().publish(FIRST_SHARD, &self.0.witnesses).await
    }

    /// What is to be done once a day at least, on any node or from cron: closes
    /// the open intents of dead writers, keeps each day that is over as segments, so
    /// that its small commits may age out, and publishes everything.
    ///
    /// # Errors
    /// As [`Log::settle`], [`Publisher::segment_days`] and
    /// [`Strongroom::publish_log`].
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn maintain_log(&self) -> Result<Maintained> {
        let room = &*self.0;
        let publisher = room.publisher();
        let mut done = Maintained::default();
        for shard in room.shard(FIRST_SHARD).await?.shards().await? {
            let log = room.shard(shard).await?;
            done.settled.push((shard, log.settle().await?));
            // A day is over for the log when a later one has begun in it. In a
            // shard that is somebody's own, the owner sees to that.
            let owned = log.head().owner().is_some();
            if !owned && publisher.needs_mark(shard, room.clock.now()).await? {
                log.mark().await?;
            }
            done.segments.push((shard, publisher.segment_days(shard).await?.len()));
            log.close().await?;
        }
        done.published = self.publish_log().await?;
        Ok(done)
    }
}

impl Inner {
    fn publisher(&self) -> Publisher {
        let (storage, signer) = (Arc::clone(&self.storages.audit), Arc::clone(&self.log_config.signer));
        Publisher::new(storage, self.store, signer, self.log_config.deadline)
    }

    /// A handle on the log of one shard, as a writer of its own.
    async fn shard(&self, shard: u16) -> Result<Log> {
        let config = LogConfig { shard, ..self.log_config.clone() };
        let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(&self.entropy));
        Log::open(Arc::clone(&self.storages.audit), config, clock, entropy).await
    }
}
