//! The commits that have aged out: what `wal/` no longer has is in a segment.
//!
//! Separate from the commits' own objects, because only a miss leads here. The
//! names of the segments are listed once, and then only what is new of them; the
//! header of one segment is kept, and of its commits those that are asked for are
//! read, by range.
//!
//! A segment's header is believed because the log's key signed it, a commit in it
//! as far as one of `wal/` is. Whoever can write to the storage can put names here
//! that lead to nothing: reading them is an error then, and never an older commit.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::stream::TryStreamExt;
use object_store::{GetOptions, GetRange, ObjectStoreExt};

use super::Wal;
use crate::audit::commit::MAX_LEN;
use crate::audit::layout::{Object, SegmentName, segments_of};
use crate::audit::segment::Header;
use crate::error::{Error, ErrorKind, Result};

/// How much of a segment is read first, for its header, in bytes.
const HEADER_GUESS: u64 = 64 << 10;

/// What is known of a shard's segments.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// By the number of the last commit.
    names: Mutex<BTreeMap<u64, SegmentName>>,
    /// The one that was read last. Locked while one is opened, so that many who
    /// want the same read it once.
    opened: tokio::sync::Mutex<Option<Arc<Opened>>>,
    /// Commits below this number are sought in segments first.
    aged: AtomicU64,
}

impl Cache {
    fn names(&self) -> MutexGuard<'_, BTreeMap<u64, SegmentName>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, seq: u64) -> Option<SegmentName> {
        let names = self.names();
        names.range(seq..).next().map(|(_, name)| *name).filter(|name| name.first <= seq)
    }
}

/// A segment whose header was read and verified.
#[derive(Debug)]
struct Opened {
    name: SegmentName,
    /// Where each commit begins, in bytes, and where the last ends.
    edges: Vec<u64>,
}

/// A commit in a segment, or its beginning.
#[derive(Debug)]
pub(super) struct Archived {
    pub(super) bytes: Bytes,
    /// How long the whole commit is, in bytes.
    pub(super) size: u64,
}

impl Wal {
    /// The number behind the last commit that a segment holds: all below are
    /// taken, whether their own objects are still there or not.
    pub(in crate::audit) async fn covered(&self) -> Result<u64> {
        self.refresh().await?;
        Ok(self.cache.names().last_key_value().map_or(0, |(last, _)| last.saturating_add(1)))
    }

    /// The segments, in order.
    pub(in crate::audit) async fn segments(&self) -> Result<Vec<SegmentName>> {
        self.refresh().await?;
        Ok(self.cache.names().values().copied().collect())
    }

    /// The number of the first commit that a segment holds, 0 without segments: those before it
    /// were removed, perhaps since the segments were listed.
    pub(in crate::audit) async fn first(&self) -> Result<u64> {
        let mut list = self.storage.list(Some(&segments_of(self.shard)));
        let mut first = None::<u64>;
        while let Some(Some(meta)) = self.request(list.try_next()).await? {
            if let Some(Object::Segment(name)) = Object::at(&meta.location) {
                first = Some(first.map_or(name.first, |first| first.min(name.first)));
            }
        }
        let first = first.unwrap_or(0);
        self.cache.names().retain(|_, name| name.first >= first);
        Ok(first)
    }

    /// Whether a segment holds commit `seq`.
    pub(super) async fn is_archived(&self, seq: u64) -> Result<bool> {
        Ok(self.segment_of(seq).await?.is_some())
    }

    /// Whether the object of commit `seq` is likely to have aged out.
    pub(super) fn seems_aged(&self, seq: u64) -> bool {
        seq < self.cache.aged.load(Relaxed)
    }

    /// Commit `seq` from its segment, `most` bytes of it at most; `None` if no
    /// segment holds it.
    pub(super) async fn archived(&self, seq: u64, most: u64) -> Result<Option<Archived>> {
        let Some(name) = self.segment_of(seq).await? else { return Ok(None) };
        let Some(opened) = self.opened(name).await? else {
            // It may have been removed since it was listed.
            let first = self.first().await?;
            return if seq < first {
                Ok(None)
            } else {
                Err(self.unusable(&name, "it was there and is missing"))
            };
        };
        let at =
            usize::try_from(seq - name.first).expect("it has a length in the header, which is in memory");
        let (begin, end) = (opened.edges[at], opened.edges[at + 1]);
        let size = end - begin;
        if size > MAX_LEN as u64 {
            return Err(self.unusable(&name, "a commit in it is too large for one"));
        }
        let path = Object::Segment(name).path();
        let range = begin..begin + size.min(most);
        let got = self.request(self.storage.get_range(&path, range)).await?;
        let bytes = got.ok_or_else(|| self.unusable(&name, "it was there and is missing"))?;
        self.cache.aged.fetch_max(seq.saturating_add(1), Relaxed);
        Ok(Some(Archived { bytes, size }))
    }

    async fn segment_of(&self, seq: u64) -> Result<Option<SegmentName>> {
        let known = self.cache.find(seq);
        if known.is_some() {
            return Ok(known);
        }
        self.refresh().await?;
        Ok(self.cache.find(seq))
    }

    /// Lists the segments that are newer than those that are known.
    async fn refresh(&self) -> Result<()> {
        let folder = segments_of(self.shard);
        let newest = self.cache.names().values().next_back().map(|name| Object::Segment(*name).path());
        let mut list = match &newest {
            None => self.storage.list(Some(&folder)),
            Some(newest) => self.storage.list_with_offset(Some(&folder), newest),
        };
        while let Some(Some(meta)) = self.request(list.try_next()).await? {
            match Object::at(&meta.location) {
                Some(Object::Segment(name)) if name.shard == self.shard && name.first <= name.last => {
                    self.cache.names().insert(name.last, name);
                }
                // No segment, and so it holds no commit. Saying that something is
                // there which should not be is for those who verify all.
                _ => {}
            }
        }
        Ok(())
    }

    async fn opened(&self, name: SegmentName) -> Result<Option<Arc<Opened>>> {
        let mut last = self.cache.opened.lock().await;
        if let Some(opened) = last.as_ref().filter(|opened| opened.name == name) {
            return Ok(Some(Arc::clone(opened)));
        }
        let Some(opened) = self.open_segment(name).await?.map(Arc::new) else { return Ok(None) };
        *last = Some(Arc::clone(&opened));
        Ok(Some(opened))
    }

    /// `None` if it is not there.
    async fn open_segment(&self, name: SegmentName) -> Result<Option<Opened>> {
        let path = Object::Segment(name).path();
        let mut guess = HEADER_GUESS;
        let (header, begin, size) = loop {
            let options = GetOptions::new().with_range(Some(GetRange::Bounded(0..guess)));
            let read = async {
                let got = self.storage.get_opts(&path, options).await?;
                let size = got.meta.size;
                Ok((got.bytes().await?, size))
            };
            let Some((bytes, size)) = self.request(read).await? else { return Ok(None) };
            let decoded = match Header::decode(&bytes, &self.authority) {
                Err(_) if self.learn().await? => Header::decode(&bytes, &self.authority),
                decoded => decoded,
            };
            if let Some((header, length)) = decoded? {
                break (header, length, size);
            }
            if guess >= size {
                return Err(self.unusable(&name, "it ends before its header does"));
            }
            guess = guess.saturating_mul(8);
        };
        if header.name() != name || header.store != self.store {
            return Err(self.unusable(&name, "it belongs to another store or another place"));
        }
        let mut edges = vec![u64::try_from(begin).expect("a length fits 64 bits")];
        for length in &header.lengths {
            let end = edges.last().and_then(|edge| edge.checked_add(*length));
            edges.push(end.ok_or_else(|| self.unusable(&name, "its header contradicts itself"))?);
        }
        if edges.last() != Some(&size) {
            return Err(self.unusable(&name, "it is not as long as its header says"));
        }
        Ok(Some(Opened { name, edges }))
    }

    fn unusable(&self, name: &SegmentName, what: &'static str) -> Error {
        let SegmentName { shard, first, last, .. } = name;
        let sentence =
            format!("the segment with commits {first} to {last} of shard {shard:04x} cannot be used");
        Error::new(ErrorKind::Integrity, sentence).with_source(Error::new(ErrorKind::Integrity, what))
    }
}
