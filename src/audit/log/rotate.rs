//! The change of the log's key, shard by shard.
//!
//! The statement that brings the new key is durable before any of it. Then each shard gets one
//! commit that begins with the record of the change, by a writer whom the new key endorsed. A writer
//! at work loses the race for that number like any other, reads the winner, and needs an endorsement by the new
//! key for its next commit; what it has open stays open. An owner keeps its shard: the commit has nothing but that
//! record in it.
//!
//! The first shard comes first. From then on no shard is named, but by a writer under the new
//! key, so that the shards that still have to follow are those that there are now.

use std::collections::BTreeSet;

use super::{Inner, Log};
use crate::audit::head::SavedHead;
use crate::audit::layout::FIRST_SHARD;
use crate::audit::{Event, KeyChanged};
use crate::error::{Error, ErrorKind, Result};
use crate::store::create::{Created, create_within};

/// How often a shard is looked at again because another writer was first.
const TRIES: u32 = 64;

impl Log {
    /// Has every shard follow to the newest of the log's keys, and returns those that did so now.
    /// Where one is under that key already, nothing is written.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] without the signer of that key; [`ErrorKind::Conflict`] if other writers
    /// were first all the time; as [`Log::begin`].
    ///
    /// # Cancel safety
    /// Some shards follow, and others do not yet; call it again.
    pub async fn change_key(&self) -> Result<BTreeSet<u16>> {
        let inner = &self.inner;
        let mut changed = BTreeSet::new();
        if inner.change_key(FIRST_SHARD).await? {
            changed.insert(FIRST_SHARD);
        }
        // If we stop here, or between two shards, those that were not reached are still under the key
        // before. Programs with both keys write to all of them, and the next run changes the rest.
        let mut others = inner.shards().await?;
        others.extend(inner.saved_heads().await?);
        for shard in others.into_iter().filter(|shard| *shard != FIRST_SHARD) {
            if inner.change_key(shard).await? {
                changed.insert(shard);
            }
        }
        Ok(changed)
    }
}

impl Inner {
    async fn change_key(&self, shard: u16) -> Result<bool> {
        let wal = self.wal().of_shard(shard);
        let (newest, _) = self.authority.newest();
        let mut changed = false;
        for _ in 0..TRIES {
            let start = wal.newest().await?;
            let head = start.head;
            let number = match head.in_force() {
                Some(key) if key >= newest => return Ok(changed),
                Some(key) => key + 1,
                // A shard that is named and has no commit begins with it.
                None => newest,
            };
            let Some(digest) = self.authority.change(number) else { return Ok(changed) };
            let pen = self.pen(number).await?;
            let mut line = self.record(self.nonce()?, Event::Key(KeyChanged { number, digest }));
            // Nothing is open in this commit, so that a settled shard stays one.
            let settled = if head.is_settled() { head.next() + 1 } else { 0 };
            let time = self.commit_time(&head, [&mut line].into_iter()).await?;
            let (bytes, after) = head.extend(&pen, time, [&line].into_iter(), settled);
            let path = wal.path(head.next());
            let what = "record the change of the log's key";
            let made = create_within(wal.limit, &*wal.storage, &path, bytes.into(), what).await;
            let made = made.map_err(|error| {
                Error::new(ErrorKind::AuditUnavailable, "the audit log cannot be written").with_source(error)
            })?;
            if made == Created::Ours {
                changed = true;
                // Without it, those who start read a few commits more.
                wal.save(&SavedHead { head: after, covered: start.covered }, &pen).await;
            }
        }
        Err(Error::new(ErrorKind::Conflict, "other writers were first all the time: try again"))
    }
}
