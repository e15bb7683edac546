//! Which writers with something open are dead.
//!
//! No two hosts' clocks are compared for it. Where the audit storage has a clock, it dates a
//! writer's last commit and says what time it is now. Where it has none, as a directory, a
//! program watches: a writer is dead whose last commit stayed its last for
//! [`LogConfig::idle`](super::LogConfig::idle) of the watcher's own running time. While the watcher's machine is suspended it
//! watches nothing, and a program never takes its own writers for dead.
//!
//! A program that does not stay for so long leaves what it saw for the next one, in
//! `watch/<boot>` on the audit storage: the running time is the machine's, and goes on from program to program until it is
//! started again. That object is a hint and no evidence. Whoever forges it can have a writer
//! fenced that lives, which costs that writer the operations it has open, and nothing else.
//!
//! Separate from the settling, which asks who is dead and closes what they left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};

use super::Inner;
use super::wal::{Wal, request_within};
use crate::audit::layout::Object;
use crate::error::Result;
use crate::id::WriterId;
use crate::time::BootId;

const FORMAT: &str = "strongroom-watch-v1";

/// The longest object that is read, in bytes: some thousands of writers.
const MAX_LEN: u64 = 1 << 20;

/// What the handles of one program on a log know of writers. Clones of a
/// [`LogConfig`](super::LogConfig) share it.
#[derive(Debug, Default)]
pub struct Watch {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The writers of this program that live.
    own: BTreeSet<WriterId>,
    /// Others with something open in a shard.
    seen: BTreeMap<(u16, WriterId), Sighting>,
    /// Whether what an earlier program left was read.
    recalled: bool,
    /// Whether there is something to leave.
    changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sighting {
    /// The number of its last commit.
    last: u64,
    /// Since when that is so, in running time.
    since: Duration,
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, writer: WriterId) {
        self.state().own.insert(writer);
    }

    pub(super) fn leave(&self, writer: WriterId) {
        self.state().own.remove(&writer);
    }

    fn is_own(&self, writer: WriterId) -> bool {
        self.state().own.contains(&writer)
    }

    /// For how long a writer's last commit in a shard has been this one, as far as was watched.
    fn unchanged(&self, shard: u16, writer: WriterId, last: u64, awake: Duration) -> Duration {
        let mut state = self.state();
        let fresh = Sighting { last, since: awake };
        let seen = state.seen.get(&(shard, writer)).copied().filter(|seen| seen.last == last);
        let sighting = seen.unwrap_or(fresh);
        if seen.is_none() {
            state.seen.insert((shard, writer), fresh);
            state.changed = true;
        }
        awake.saturating_sub(sighting.since)
    }

    /// Forgets the writers that have nothing open in a shard any more.
    pub(super) fn keep_only(&self, shard: u16, open: &BTreeSet<WriterId>) {
        let mut state = self.state();
        let before = state.seen.len();
        state.seen.retain(|(of, writer), _| *of != shard || open.contains(writer));
        state.changed |= state.seen.len() != before;
    }

    /// Takes over what an earlier program of this boot saw.
    fn recall(&self, found: &Stored, awake: Duration) {
        let mut state = self.state();
        for one in &found.writers {
            let since = Duration::from_millis(one.since);
            let known = state.seen.get(&(one.shard, one.writer));
            // What was seen later than now was not seen in this boot.
            if since <= awake && known.is_none_or(|known| known.last == one.last && since < known.since) {
                state.seen.insert((one.shard, one.writer), Sighting { last: one.last, since });
            }
        }
    }

    fn stored(&self, boot: BootId) -> Stored {
        let state = self.state();
        let writers = state.seen.iter().map(|((shard, writer), seen)| StoredSighting {
            shard: *shard,
            writer: *writer,
            last: seen.last,
            // Rounded up: never longer ago than it was.
            since: u64::try_from(seen.since.as_millis()).unwrap_or(u64::MAX).saturating_add(1),
        });
        Stored { format: FORMAT.to_owned(), boot: boot.to_string(), writers: writers.collect() }
    }
}

/// The object that is left for the next program.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    format: String,
    /// Which start of which machine the times count from.
    boot: String,
    writers: Vec<StoredSighting>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredSighting {
    shard: u16,
    writer: WriterId,
    /// The number of its last commit.
    last: u64,
    /// Since when, in milliseconds of running time.
    since: u64,
}

impl Inner {
    /// Whether the audit storage dates its objects by a clock that can be asked.
    fn is_dated(&self) -> bool {
        self.config.storage_clock.as_ref().is_some_and(|clock| clock.dates_audit())
    }

    /// Those of `writers`, each with the number of its last commit in the shard, that are dead.
    pub(super) async fn dead(
        &self,
        wal: &Wal,
        writers: &BTreeMap<WriterId, u64>,
    ) -> Result<BTreeSet<WriterId>> {
        let (watch, awake) = (&self.config.watch, self.clock.awake());
        let (mut dead, mut doubtful) = (BTreeSet::new(), Vec::new());
        for (writer, last) in writers {
            if *writer == self.writer || watch.is_own(*writer) {
                continue;
            }
            match watch.unchanged(wal.shard, *writer, *last, awake) >= self.config.idle {
                true => drop(dead.insert(*writer)),
                false => doubtful.push((*writer, *last)),
            }
        }
        let clock = self.config.storage_clock.as_ref().filter(|clock| clock.dates_audit());
        if let (Some(clock), false) = (clock, doubtful.is_empty())
            // One that does not tell the time says of nobody that they are dead.
            && let Ok(Some(now)) = clock.time().await
        {
            for (writer, last) in doubtful {
                // A commit without an object of its own is in a segment, and weeks old.
                let stored = wal.stored_at(last).await?;
                if stored.is_none_or(|stored| stored.saturating_add(self.config.idle) < now) {
                    dead.insert(writer);
                }
            }
        }
        Ok(dead)
    }

    /// Reads what earlier programs of this boot saw, once, where it is needed.
    pub(super) async fn recall_watch(&self) {
        let Some(boot) = self.clock.boot().filter(|_| !self.is_dated()) else { return };
        if std::mem::replace(&mut self.config.watch.state().recalled, true) {
            return;
        }
        let wal = self.wal();
        let path = Object::Watch { boot }.path();
        let read = async {
            let got = wal.storage.get(&path).await?;
            if got.meta.size > MAX_LEN { Ok(None) } else { got.bytes().await.map(Some) }
        };
        // Without it, it takes longer.
        if let Ok(Some(Some(bytes))) = request_within(wal.limit, read).await
            && let Ok(found) = serde_json::from_slice::<Stored>(&bytes)
            && found.format == FORMAT
            && found.boot == boot.to_string()
        {
            self.config.watch.recall(&found, self.clock.awake());
        }
    }

    /// Leaves what this program saw for the next one.
    pub(super) async fn keep_watch(&self) {
        let Some(boot) = self.clock.boot().filter(|_| !self.is_dated()) else { return };
        if !std::mem::take(&mut self.config.watch.state().changed) {
            return;
        }
        let (wal, stored) = (self.wal(), self.config.watch.stored(boot));
        let path = Object::Watch { boot }.path();
        // If we stop here, or it cannot be written, the next program watches from its beginning.
        let _ = match stored.writers.is_empty() {
            true => request_within(wal.limit, wal.storage.delete(&path)).await,
            false => {
                let bytes = serde_json::to_vec(&stored).expect("a watch has string keys only");
                let options = PutOptions::from(PutMode::Overwrite);
                let put = wal.storage.put_opts(&path, bytes.into(), options);
                request_within(wal.limit, async { put.await.map(drop) }).await
            }
        };
    }
}

/// Reads the object: for [`crate::fuzz`].
pub(crate) fn fuzz(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Stored>(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: WriterId = WriterId::from_bytes([1; 16]);
    const B: WriterId = WriterId::from_bytes([2; 16]);
    const BOOT: BootId = BootId::from_bytes([7; 16]);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_writer_is_watched_from_its_last_commit_on() {
        let watch = Watch::default();
        assert_eq!(watch.unchanged(3, A, 7, s(100)), s(0));
        assert_eq!(watch.unchanged(3, A, 7, s(160)), s(60));
        // In another shard it is another matter, and with another commit it lives.
        assert_eq!(watch.unchanged(4, A, 7, s(160)), s(0));
        assert_eq!(watch.unchanged(3, A, 8, s(170)), s(0));
        watch.keep_only(3, &BTreeSet::from([B]));
        assert_eq!(watch.unchanged(3, A, 8, s(180)), s(0));
        assert_eq!(watch.unchanged(4, A, 7, s(180)), s(20));
    }

    #[test]
    fn the_next_program_of_the_same_boot_goes_on() {
        let first = Watch::default();
        first.unchanged(3, A, 7, s(100));
        first.unchanged(3, B, 9, s(100));
        let stored = serde_json::to_vec(&first.stored(BOOT)).unwrap();
        let stored: Stored = serde_json::from_slice(&stored).unwrap();
        let next = Watch::default();
        next.recall(&stored, s(400));
        assert_eq!(next.unchanged(3, A, 7, s(701)), s(601) - Duration::from_millis(1));
        // It wrote since.
        assert_eq!(next.unchanged(3, B, 10, s(701)), s(0));
        // Nothing was seen later than now.
        let other = Watch::default();
        other.recall(&stored, s(50));
        assert_eq!(other.unchanged(3, A, 7, s(60)), s(0));
    }
}
