//! Letting go of the oldest days of the log, once bases stand for them.
//!
//! Separate from the rest of the evidence, because nothing else of ours gives up records for
//! good, and because nobody does it but on purpose.
//!
//! Order: the whole log is verified, bases included → the bases that stand for what goes are on
//! record, and published → commits go, then segments, the oldest first. If we stop between any
//! two, what is left begins at a base and is on record, and the next run goes on.

use super::Strongroom;
use super::keyring::Asker;
use crate::access::Access;
use crate::audit::BaseRef;
use crate::audit::layout::{FIRST_SHARD, Object};
use crate::audit::verify::{self, Options};
use crate::error::{Error, ErrorKind, Result};
use crate::store::StorageKind;
use crate::time::Timestamp;

/// How many bases stand behind what is removed, at least.
const BASES: usize = 2;

/// What of one shard may go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemovedDays {
    /// The base that stands for it.
    pub base: BaseRef,
    /// The paths of the segments, the oldest first.
    pub segments: Vec<String>,
    /// Whether they are removed: on a bucket no program of ours deletes anything.
    pub removed: bool,
}

impl Strongroom {
    /// What of the log is from before a time and may go: days for which a base stands, with
    /// another behind it.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if a base is not what was written,
    /// [`ErrorKind::AuditUnavailable`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn removable_days(&self, before: Timestamp) -> Result<Vec<RemovedDays>> {
        let reader = self.log_reader();
        let mut days = Vec::new();
        for shard in reader.shards().await? {
            let of_shard = reader.shard(shard).await?;
            let mut bases = Vec::new();
            for segment in of_shard.segments() {
                let commits = segment.last.saturating_add(1);
                if reader.has_base(shard, commits).await? {
                    bases.push((commits, segment.until));
                }
            }
            let may_stand = bases.len().saturating_sub(BASES - 1);
            let chosen = bases.iter().take(may_stand).rfind(|(_, until)| *until < before);
            let Some((commits, _)) = chosen.filter(|(commits, _)| *commits > of_shard.begin()) else {
                continue;
            };
            let Some(base) = reader.base(shard, *commits).await? else { continue };
            let gone = of_shard.segments().iter().filter(|segment| segment.last < *commits);
            days.push(RemovedDays {
                base: base.reference(),
                segments: gone.map(|segment| Object::Segment(*segment).path().to_string()).collect(),
                removed: false,
            });
        }
        Ok(days)
    }

    /// Removes what [`Strongroom::removable_days`] has, after the whole log was verified. That
    /// it may go is on record before anything does. On a bucket it is only recorded: who owns the
    /// bucket removes the segments, or moves them to colder storage, when its lock lets them.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if the log does not verify: nothing is removed then. As
    /// [`Strongroom::destruction_time`], [`Log::begin`](crate::audit::log::Log::begin) and
    /// [`Strongroom::publish_log`].
    ///
    /// # Cancel safety
    /// What is gone is gone, and on record; call it again for the rest.
    pub async fn remove_days(&self, access: &Access, before: Timestamp) -> Result<Vec<RemovedDays>> {
        let room = &*self.0;
        self.destruction_time(access).await?;
        // The log's memory of the time begins with the one that was accepted last.
        let accepted = room.keyring.register(Asker::of(access)).await?.clock.at();
        let before = before.min(accepted);
        let mut days = Vec::new();
        for day in self.removable_days(before).await? {
            // Whoever looks for what is open begins where the newest commit says that all before
            // is settled: that must not go.
            let log = room.shard(day.base.shard).await?;
            let settled = log.settle_exactly().await?;
            log.close().await?;
            if day.base.commits <= settled.below {
                days.push(day);
            }
        }
        if days.is_empty() {
            return Ok(days);
        }
        let authority = Some(room.log.authority());
        let options = Options { authority, store: Some(room.store), ..Options::new(room.clock.now()) };
        if !verify::verify(room.storages.audit.clone(), options).await?.is_ok() {
            let sentence =
                "the audit log does not verify: nothing was removed. `audit verify` says what is wrong";
            return Err(Error::new(ErrorKind::Integrity, sentence));
        }
        // Those of other shards too: their records may be in what goes of the first.
        let mut standing = self.removed().await?;
        standing.retain(|base| days.iter().all(|day| day.base.shard != base.shard));
        standing.extend(days.iter().map(|day| day.base));
        let first = room.shard(FIRST_SHARD).await?;
        first.record_removals(&standing).await?;
        first.close().await?;
        self.publish_log().await?;
        if room.storages.audit_kind() == StorageKind::Local {
            for day in &mut days {
                room.publisher.remove_before(day.base.shard, day.base.commits).await?;
                day.removed = true;
            }
        }
        Ok(days)
    }
}
