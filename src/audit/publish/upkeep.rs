//! What a local directory no longer needs of the log: commits that segments have held for long
//! enough, and partial tiles that wider ones have taken the place of.
//!
//! On a bucket a lifecycle rule removes the commits, and no program of ours may delete there.
//! A directory has no such rule: without this it keeps each record twice, and each small
//! commit in a file of its own, for good. Separate from the publishing, because this is the one place
//! that deletes from the audit storage.
//!
//! Invariants: a commit's object goes only if a segment that the log's key signed, read and
//! verified in this same run, has the same bytes, and both have been there for [`KEPT`], by the
//! time in the commits *and* by the storage's own. Objects go in rising order, so that what is
//! left is a suffix, wherever we stop. The newest commit stays. A segment goes only where a base
//! stands for it, on purpose and on record. Nothing else of the log is ever removed: no full
//! tile, no checkpoint, nothing that the published checkpoint needs.
//!
//! A clock that is wrong costs the second copy of a record and never the first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::time::timeout;

use super::Publisher;
use super::segments::{MAX_OBJECT, read_limit};
use super::tiles::{read, unwritten};
use crate::audit::commit::MAX_LEN;
use crate::audit::layout::{self, Object, SegmentName};
use crate::audit::log::wal::request_within;
use crate::audit::segment::Segment;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{store_error, stored_at};
use crate::time::Timestamp;
use crate::tlog::tile::{Bundle, Tile, TilePath};

/// For how long what a wider object has taken the place of is kept.
const KEPT: Duration = Duration::from_secs(35 * DAY);

const DAY: u64 = 24 * 3600;

/// What was removed of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// Commits that are in segments.
    pub commits: u64,
    /// Partial tiles and bundles.
    pub tiles: u64,
}

impl Publisher {
    /// Removes the objects of a shard that a local directory no longer needs: commits that a
    /// verified segment has held for 35 days, and partial tiles that wider ones have replaced. On
    /// a bucket nothing of ours deletes; call it for a directory only.
    ///
    /// Any number of programs may do so at once.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if a commit and its segment differ, or a segment is not what was
    /// written: nothing more is removed then. [`ErrorKind::AuditUnavailable`] if the storage
    /// does not answer.
    ///
    /// # Cancel safety
    /// What is gone is gone, and the rest goes the next time.
    pub async fn remove_aged(&self, shard: u16, now: Timestamp) -> Result<Removed> {
        let commits = self.remove_commits(shard, now).await?;
        let tiles = self.remove_partial_tiles(shard, now).await?;
        Ok(Removed { commits, tiles })
    }

    /// Removes the first commits of a shard of a local directory, and the segments that hold them,
    /// where a base stands for them and that is on record. On a bucket nothing of ours deletes.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the storage does not answer.
    ///
    /// # Cancel safety
    /// What is gone is gone, and the rest goes the next time.
    pub async fn remove_before(&self, shard: u16, commits: u64) -> Result<()> {
        // The commits first: a segment holds them as long as any is there.
        for folder in [layout::commits_of(shard), layout::segments_of(shard)] {
            let mut listed = self.listed(&folder).await?;
            listed.retain(|(object, _)| match object {
                Object::Commit { seq, .. } => *seq < commits,
                Object::Segment(name) => name.last < commits,
                _ => false,
            });
            listed.sort_unstable_by_key(|(object, _)| *object);
            for (_, meta) in listed {
                // If we stop here, what is left begins at a base: there is one behind each segment.
                self.remove(&meta.location).await?;
            }
        }
        Ok(())
    }

    async fn remove_commits(&self, shard: u16, now: Timestamp) -> Result<u64> {
        let mut segments = BTreeMap::new();
        for (object, meta) in self.listed(&layout::segments_of(shard)).await? {
            if let Object::Segment(name) = object {
                segments.insert(name.first, (name, meta));
            }
        }
        let commits = self.listed(&layout::commits_of(shard)).await?.into_iter();
        let mut left: BTreeSet<u64> = commits.filter_map(|(object, _)| commit_of(&object)).collect();
        let Some(newest) = left.last().copied() else { return Ok(0) };
        // Where the first segments were removed, a base stands for them.
        let begin = segments.keys().next().copied().unwrap_or(0);
        if begin > 0 && !self.reader().has_base(shard, begin).await? {
            return Ok(0);
        }
        let (mut removed, mut next) = (0, begin);
        for (name, meta) in segments.into_values() {
            // A day later than the last commit, its own day is over too.
            let over = name.until.saturating_add(Duration::from_secs(DAY));
            let is_old = [over, written_at(&meta)].iter().all(|since| since.saturating_add(KEPT) <= now);
            // Behind a gap, or beside one that is too young, nothing goes: what is left is a suffix.
            if name.first != next || name.last >= newest || !is_old {
                break;
            }
            next = name.last.saturating_add(1);
            let later = left.split_off(&next);
            let covered = std::mem::replace(&mut left, later);
            if !covered.is_empty() {
                removed += self.remove_covered(name, &covered).await?;
            }
        }
        Ok(removed)
    }

    /// Removes the objects of these commits, which are in the segment.
    async fn remove_covered(&self, name: SegmentName, covered: &BTreeSet<u64>) -> Result<u64> {
        let path = Object::Segment(name).path();
        let limit = read_limit(self.limit);
        let stored = read(&*self.storage, &path, limit, MAX_OBJECT).await?.ok_or_else(unwritten)?;
        let segment = Segment::decode(&stored, &self.authority)?;
        let header = segment.header();
        if header.name() != name || header.store != self.store {
            return Err(differs());
        }
        let mut removed = 0;
        for (commit, bytes) in segment.commits() {
            let seq = commit.header().seq;
            if !covered.contains(&seq) {
                continue;
            }
            let path = Object::Commit { shard: name.shard, seq }.path();
            match read(&*self.storage, &path, self.limit, MAX_LEN as u64).await? {
                Some(found) if found == *bytes => {
                    // If we stop behind this, the commits up to here are in segments alone, and
                    // the next run goes on with the one behind.
                    removed += u64::from(self.remove(&path).await?);
                }
                Some(_) => return Err(differs()),
                // Another program has been here.
                None => {}
            }
        }
        Ok(removed)
    }

    /// Removes partial tiles that the full one, or a wider one, has taken the place of, unless the
    /// published checkpoint's tree has them (c2sp.org/tlog-tiles, Partial Tiles).
    async fn remove_partial_tiles(&self, shard: u16, now: Timestamp) -> Result<u64> {
        let Some(checkpoint) = self.checkpoint(shard).await? else { return Ok(0) };
        let size = checkpoint.checkpoint().head().size;
        let mut needed: BTreeSet<TilePath> = Tile::all(size).map(TilePath::Tile).collect();
        needed.extend(Bundle::all(size).map(TilePath::Bundle));
        let listed = self.listed(&layout::tiles_of(shard)).await?;
        let mut widest: BTreeMap<(Option<u8>, u64), u16> = BTreeMap::new();
        let tiles: Vec<(TilePath, ObjectMeta)> = listed
            .into_iter()
            .filter_map(|(object, meta)| match object {
                Object::Tile { tile, .. } => Some((tile, meta)),
                _ => None,
            })
            .collect();
        for (tile, _) in &tiles {
            let (place, width) = place_of(tile);
            let so_far = widest.entry(place).or_default();
            *so_far = width.max(*so_far);
        }
        let mut removed = 0;
        for (tile, meta) in tiles {
            let (place, width) = place_of(&tile);
            let is_old = written_at(&meta).saturating_add(KEPT) <= now;
            if is_old && widest.get(&place).is_some_and(|widest| width < *widest) && !needed.contains(&tile) {
                // If we stop behind this, readers find the wider one in its place.
                removed += u64::from(self.remove(&meta.location).await?);
            }
        }
        Ok(removed)
    }

    /// What there is of the log under a folder.
    async fn listed(&self, folder: &Path) -> Result<Vec<(Object, ObjectMeta)>> {
        let mut list = self.storage.list(Some(folder));
        let mut found = Vec::new();
        while let Some(Some(meta)) = request_within(self.limit, list.try_next()).await? {
            // Whatever else lies there is not ours to remove.
            found.extend(Object::at(&meta.location).map(|object| (object, meta)));
        }
        Ok(found)
    }

    /// Whether it was there.
    async fn remove(&self, path: &Path) -> Result<bool> {
        match timeout(self.limit, self.storage.delete(path)).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(object_store::Error::NotFound { .. })) => Ok(false),
            Ok(Err(error)) => Err(unwritten().with_source(store_error(error, "remove an object"))),
            Err(elapsed) => Err(unwritten().with_source(elapsed)),
        }
    }
}

fn commit_of(object: &Object) -> Option<u64> {
    match object {
        Object::Commit { seq, .. } => Some(*seq),
        _ => None,
    }
}

fn place_of(tile: &TilePath) -> ((Option<u8>, u64), u16) {
    match tile {
        TilePath::Tile(tile) => ((Some(tile.level()), tile.index()), tile.width()),
        TilePath::Bundle(bundle) => ((None, bundle.index()), bundle.width()),
    }
}

/// When the storage says that an object was written. Where it does not say, just now.
fn written_at(meta: &ObjectMeta) -> Timestamp {
    stored_at(meta).unwrap_or(Timestamp::MAX)
}

fn differs() -> Error {
    let sentence = "a commit of the audit log and the segment that holds it differ: nothing was removed";
    Error::new(ErrorKind::Integrity, sentence)
}
