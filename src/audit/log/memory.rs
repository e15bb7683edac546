//! What the log remembers of the time: how far commits reach from one that is
//! believed.
//!
//! Separate from the reader, because it is a question to the store's own log, in its
//! first shard, whichever shard this handle writes to.

use super::{Log, NEAR, ShardReader};
use crate::audit::layout::FIRST_SHARD;
use crate::error::Result;
use crate::retention::clock::{STEP, bridge};
use crate::time::Timestamp;

impl Log {
    /// How far the commits of the first shard reach from `from`, without a gap of
    /// more than [`STEP`], the one before `from` included: [`bridge`] over their times. So one that leapt ahead
    /// bridges nothing when the time comes near it. Commits up to `ignored` bridge
    /// nothing, nor do those up to [`NEAR`] later: behind it, the log's time rises by a moment
    /// with each commit until the clocks have caught up.
    ///
    /// Not all are read: from each that is reached, the last one within a step is
    /// searched for, and with it all between them are reached.
    ///
    /// # Errors
    /// As [`ShardReader::commits`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn memory(&self, from: Timestamp, ignored: Option<Timestamp>) -> Result<Timestamp> {
        let shard = self.first_shard().await?;
        let ignored = ignored.map(|mark| mark.saturating_add(NEAR));
        let mut reach = from;
        let mut last = shard.newest_by(from).await?.unwrap_or(from);
        loop {
            let found = shard.newest_by(last.saturating_add(STEP)).await?;
            let next = bridge(reach, found.filter(|time| Some(*time) > ignored));
            if next <= reach {
                return Ok(reach);
            }
            (reach, last) = (next, next);
        }
    }

    /// The latest time of any commit, in every shard; `None` if there is none.
    ///
    /// # Errors
    /// As [`ShardReader::commits`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn newest_of_all(&self) -> Result<Option<Timestamp>> {
        let reader = self.inner.wal().reader();
        let mut newest = None;
        for shard in self.shards().await? {
            newest = newest.max(reader.shard(shard).await?.newest_time().await?);
        }
        if let Some(newest) = newest {
            self.inner.pace.note_elsewhere(newest);
        }
        Ok(newest)
    }

    async fn first_shard(&self) -> Result<ShardReader> {
        self.inner.wal().reader().shard(FIRST_SHARD).await
    }
}
