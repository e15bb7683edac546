//! The log, read from its storage alone: what an auditor does who has read access
//! to one bucket, the log's public key, and nothing else.
//!
//! A [`LogReader`] is one store's log, a [`ShardReader`] one shard of it up to where
//! it ended when it was opened. Commits come from segments where there are any, and
//! from `wal/` elsewhere. Separate from the writer, because nothing here needs a
//! private key, and nothing is written.
//!
//! To find a time, not everything is read. A segment's name says which times are in
//! it. Among the commits behind the segments, the time never goes back, so that a
//! few headers lead to the first of a range by bisection; and a record of time *t*
//! is in a commit of time *t* to *t* + the lag of any commit behind it
//! ([`Header::lag`]).
//!
//! Invariants: what is given out was decoded strictly, is signed by a writer that the
//! log's key endorsed or is in a segment that it signed, follows from the commit
//! before it where that was read too, and is named by the commit behind it, if there
//! is one. What cannot be read so is an error and is not left out.
//!
//! Whoever holds the storage can leave out what is newest, whole segments' worth of
//! it, or a whole shard: seeing that takes a checkpoint that was kept elsewhere. A
//! [`History`](crate::audit::history::History) sees it of a shard that the first one names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};

use super::wal::{Mark, Wal, request_within};
use crate::audit::Event;
use crate::audit::authority::Authority;
use crate::audit::base::Base;
use crate::audit::commit::{Commit, Header, MAX_LEN};
use crate::audit::layout::{self, FIRST_SHARD, Object, SegmentName};
use crate::audit::operation::Entry;
use crate::audit::publish::StoredTree;
use crate::audit::segment::MAX_BODY;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, StoreId};
use crate::merkle::{Hash, TreeHead};
use crate::time::Timestamp;

mod bases;
mod segments;
mod walk;

use walk::Walk;

/// Headers read at once when a place is searched for: 8 times closer each time.
const PROBES: u64 = 7;

/// The largest segment that is read, in bytes: its commits, the last of which may be
/// as large as any, and a header with a number for each of them.
const MAX_SEGMENT: u64 = MAX_BODY + 2 * MAX_LEN as u64;

/// Commits read at once from the newest back, at most.
const BACK: u64 = 64;

/// The log of one store on its storage.
#[derive(Clone, Debug)]
pub struct LogReader {
    storage: Arc<dyn ObjectStore>,
    store: StoreId,
    authority: Authority,
    limit: Duration,
    named: Arc<Mutex<Named>>,
}

/// What the first shard says of the others, as far as it was read.
#[derive(Debug, Default)]
struct Named {
    /// How many of its commits were read.
    commits: u64,
    /// How many records each shard has at least.
    records: BTreeMap<u16, u64>,
}

impl LogReader {
    /// The log of `store` on `storage`, whose keys are `authority`. A request may take
    /// up to `limit`. Nothing is read yet.
    #[must_use]
    pub fn open(
        storage: Arc<dyn ObjectStore>,
        store: StoreId,
        authority: impl Into<Authority>,
        limit: Duration,
    ) -> Self {
        Self { storage, store, authority: authority.into(), limit, named: Arc::default() }
    }

    /// The store whose log it is.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// The log's keys.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The shards that there are, in order. The first is always one of them.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read,
    /// [`ErrorKind::Integrity`] if something stands among the shards that is none.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn shards(&self) -> Result<Vec<u16>> {
        let mut shards = BTreeSet::from([FIRST_SHARD]);
        for (folder, of) in [
            (layout::commits(), layout::commits_of as fn(u16) -> Path),
            (layout::segments(), layout::segments_of),
        ] {
            let listed = self.storage.list_with_delimiter(Some(&folder));
            let Some(listed) = request_within(self.limit, listed).await? else { continue };
            for path in listed.common_prefixes {
                let name = path.filename().unwrap_or_default();
                let shard = u16::from_str_radix(name, 16).ok().filter(|shard| of(*shard) == path);
                shards.insert(shard.ok_or_else(|| intruder("shards"))?);
            }
            if !listed.objects.is_empty() {
                return Err(intruder("shards"));
            }
        }
        Ok(shards.into_iter().collect())
    }

    /// How many records each shard has at least: the newest base of the first shard says it, and the commits
    /// behind that. Clones of a reader read each of these commits once.
    pub(in crate::audit) async fn named(
        &self,
        first: &ShardReader,
        base: Option<&Base>,
    ) -> Result<BTreeMap<u16, u64>> {
        let known = || self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = base.map_or(first.begin(), |base| base.header().commits).max(known().commits);
        let of_base = base.iter().flat_map(|base| &base.header().used).map(|shard| (*shard, 1));
        let mut said: Vec<(u16, u64)> = of_base.collect();
        let mut commits = first.commits(begin..first.end().max(begin), None);
        while let Some(commit) = commits.try_next().await? {
            said.extend(commit.records().iter().filter_map(|record| match &record.event {
                Event::Shard(head) => Some((head.shard, head.tree.size)),
                _ => None,
            }));
        }
        let mut known = known();
        known.commits = known.commits.max(first.end());
        for (shard, size) in said {
            let records = known.records.entry(shard).or_default();
            *records = (*records).max(size);
        }
        Ok(known.records.clone())
    }

    /// A shard as it is now: what is appended later is not seen.
    ///
    /// # Errors
    /// As [`LogReader::shards`]; [`ErrorKind::Integrity`] also if commits are missing
    /// or segments overlap.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn shard(&self, shard: u16) -> Result<ShardReader> {
        let segments = self.segments(shard).await?;
        let wal = self.wal(shard);
        let covered = segments.last().map_or(0, |last| last.last.saturating_add(1));
        let saved = wal.saved().await?.map_or(0, |saved| saved.head.next());
        let end = wal.end_near(covered.max(saved)).await?;
        // One that is missing can look like the end, if no search went behind it.
        let behind = (1..=PROBES).map(|more| wal.object_mark(end.saturating_add(more)));
        let some = try_join_all(behind).await?.iter().any(Option::is_some);
        if some && wal.object_mark(end).await?.is_none() {
            return Err(wal.missing(end));
        }
        let begin = self.begin(&wal, &segments).await?;
        Ok(ShardReader { wal, segments: segments.into(), begin, end, seen: Arc::default() })
    }

    /// The first commit that there is: another than the first of all only where a base stands
    /// for those before it.
    async fn begin(&self, wal: &Wal, segments: &[SegmentName]) -> Result<u64> {
        let first = segments.first().map_or(0, |segment| segment.first);
        if first == 0 || wal.object_mark(first - 1).await?.is_some() {
            return Ok(0);
        }
        let base = self.base(wal.shard, first).await?.ok_or_else(|| wal.missing(first - 1))?;
        let names = |previous: Hash| previous == base.head(&self.authority).previous();
        let shard = ShardReader {
            wal: wal.clone(),
            segments: segments.into(),
            begin: first,
            end: first,
            seen: Arc::default(),
        };
        if names(shard.segment_header(&segments[0]).await?.0.previous) {
            Ok(first)
        } else {
            Err(wal.missing(first - 1))
        }
    }

    /// What the names of a shard's segments say, in order.
    async fn segments(&self, shard: u16) -> Result<Vec<SegmentName>> {
        let mut names = Vec::new();
        let mut listed = self.storage.list(Some(&layout::segments_of(shard)));
        while let Some(Some(meta)) = request_within(self.limit, listed.try_next()).await? {
            match Object::at(&meta.location) {
                Some(Object::Segment(name)) if name.first <= name.last => names.push(name),
                _ => return Err(intruder("segments")),
            }
        }
        names.sort_unstable();
        if names.is_sorted_by(|a, b| a.last < b.first) {
            return Ok(names);
        }
        Err(Error::new(ErrorKind::Integrity, format!("segments of shard {shard:04x} of the log overlap")))
    }

    /// The newest `count` records of all shards, oldest first, by the time of their
    /// commits.
    ///
    /// # Errors
    /// As [`ShardReader::commits`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn newest(&self, count: usize) -> Result<Vec<Entry>> {
        let of_shard = |shard| async move { self.shard(shard).await?.newest(count).await };
        let mut entries = try_join_all(self.shards().await?.into_iter().map(of_shard)).await?.concat();
        entries.sort_by_key(|entry| (entry.time, entry.shard, entry.index));
        Ok(entries.split_off(entries.len().saturating_sub(count)))
    }

    fn wal(&self, shard: u16) -> Wal {
        Wal::new(Arc::clone(&self.storage), self.store, shard, &self.authority, self.limit)
    }

    /// The published tree of a shard with this head, which the caller trusts.
    pub(in crate::audit) fn tree(&self, shard: u16, head: TreeHead) -> StoredTree {
        StoredTree::on(Arc::clone(&self.storage), shard, self.limit, head)
    }

    /// The paths below `folder`, in no order.
    pub(crate) async fn list(&self, folder: &Path) -> Result<Vec<Path>> {
        let mut paths = Vec::new();
        let mut listed = self.storage.list(Some(folder));
        while let Some(Some(meta)) = request_within(self.limit, listed.try_next()).await? {
            paths.push(meta.location);
        }
        Ok(paths)
    }

    /// The object at `path`, `None` if there is none.
    pub(in crate::audit) async fn get(&self, path: &Path, max: u64) -> Result<Option<Bytes>> {
        let got = fetch(&self.storage, self.limit, path, None).await?;
        match got {
            Some((_, mark)) if mark.size > max => Err(Error::new(
                ErrorKind::Integrity,
                "an object of the audit log is too large for what it is",
            )),
            got => Ok(got.map(|(bytes, _)| bytes)),
        }
    }
}

/// One shard, up to where it ended when it was opened.
#[derive(Clone, Debug)]
pub struct ShardReader {
    wal: Wal,
    /// In order, and none over another.
    segments: Arc<[SegmentName]>,
    /// The first commit that there is.
    begin: u64,
    end: u64,
    /// What headers have said, for the next search.
    seen: Arc<Mutex<BTreeMap<u64, Seen>>>,
}

/// What a search needs of a header.
#[derive(Clone, Copy, Debug)]
struct Seen {
    time: Timestamp,
    lag: Duration,
    /// Records up to its end.
    size: u64,
}

impl ShardReader {
    /// Which shard.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.wal.shard
    }

    /// The number of the first commit that is there: 0, unless the first ones were removed and a
    /// base stands for them.
    #[must_use]
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// What the names of its segments say, in order.
    #[must_use]
    pub fn segments(&self) -> &[SegmentName] {
        &self.segments
    }

    /// How many commits it has.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many records it has up to its end; none if all its commits were removed.
    pub(in crate::audit) async fn records(&self) -> Result<u64> {
        match self.end.checked_sub(1).filter(|last| *last >= self.begin) {
            Some(last) => Ok(self.see(last).await?.size),
            None => Ok(0),
        }
    }

    /// The numbers of commits among which are all that have a time of `since` or later
    /// and a record from before `until`. Others may be among them.
    ///
    /// # Errors
    /// As [`ShardReader::commits`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn span(&self, since: Timestamp, until: Option<Timestamp>) -> Result<Range<u64>> {
        let start = match self.segments.iter().position(|segment| segment.until >= since) {
            // What stands before a segment and in none is as old as it is.
            Some(at) => at.checked_sub(1).map_or(self.begin, |before| self.segments[before].last + 1),
            None => self.first(self.behind()..self.end, |seen| seen.time >= since).await?,
        };
        let end = match until {
            None => self.end,
            Some(until) => self.end_of(until).await?,
        };
        Ok(start..end.max(start))
    }

    /// The time of the newest commit that is no later than `limit`, `None` if none
    /// is. Commits that stand between two segments are passed over.
    ///
    /// # Errors
    /// As [`ShardReader::commits`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn newest_by(&self, limit: Timestamp) -> Result<Option<Timestamp>> {
        let behind = self.behind();
        let later = self.first(behind..self.end, |seen| seen.time > limit).await?;
        if later > behind {
            return Ok(Some(self.see(later - 1).await?.time));
        }
        let later = self.segments.partition_point(|segment| segment.until <= limit);
        let mut newest = later.checked_sub(1).map(|before| self.segments[before].until);
        // The next segment ends later, and may begin sooner.
        if let Some(segment) = self.segments.get(later).filter(|segment| segment.from <= limit) {
            let mut commits = self.commits(segment.first..segment.last + 1, None);
            while let Some(commit) = commits.try_next().await? {
                newest = newest.max(Some(commit.header().time).filter(|time| *time <= limit));
            }
        }
        Ok(newest)
    }

    /// The time of the newest commit, `None` if there is none.
    ///
    /// # Errors
    /// As [`ShardReader::commits`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn newest_time(&self) -> Result<Option<Timestamp>> {
        self.newest_by(Timestamp::MAX).await
    }

    /// The number behind the last commit that can have a record from before `until`.
    async fn end_of(&self, until: Timestamp) -> Result<u64> {
        let behind = self.behind();
        let mut end = behind;
        if let Some(tip) = self.end.checked_sub(1).filter(|tip| *tip >= behind) {
            end = self.end;
            let mut lag = self.see(tip).await?.lag;
            if self.see(behind).await?.time > until.saturating_add(lag) {
                end = behind;
            }
            // The lag at the end of the range bounds that of all in it. It may be far
            // less than the newest, which one outage raised for good.
            while behind < end {
                let limit = until.saturating_add(lag);
                let nearer = self.first(behind..end, |seen| seen.time > limit).await?;
                if nearer >= end {
                    break;
                }
                end = nearer;
                lag = self.see(end).await?.lag;
            }
        }
        if end > behind {
            return Ok(end);
        }
        let last = self.segments.iter().rposition(|segment| segment.from < until);
        // What stands behind a segment and in none may have records as old.
        Ok(last.map_or(0, |last| self.segments.get(last + 1).map_or(behind, |next| next.first)))
    }

    /// The number behind the last segment.
    fn behind(&self) -> u64 {
        self.segments.last().map_or(0, |last| last.last.saturating_add(1))
    }

    /// The commits of a range, each checked against the one before it. With
    /// `customers`, a segment may be passed over that has no record of any of them.
    /// The stream ends with the first error.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read;
    /// [`ErrorKind::Integrity`] or [`ErrorKind::UnsupportedFormat`] if a commit or a
    /// segment is missing, or is not what the log's key stands for.
    ///
    /// # Cancel safety
    /// Nothing is written.
    #[must_use]
    pub fn commits(
        &self,
        range: Range<u64>,
        customers: Option<BTreeSet<CustomerId>>,
    ) -> BoxStream<'static, Result<Commit>> {
        let range = range.start..range.end.min(self.end);
        let walk = Walk::new(self.clone(), range, customers);
        stream::try_unfold(walk, |mut walk| async move { Ok(walk.next().await?.map(|next| (next, walk))) })
            .boxed()
    }

    /// The record that is leaf `index` of the shard's tree, `None` if it has fewer.
    ///
    /// # Errors
    /// As [`ShardReader::commits`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn entry(&self, index: u64) -> Result<Option<Entry>> {
        let (mut low, mut high) = (0, self.segments.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let (header, _) = self.segment_header(&self.segments[middle]).await?;
            if header.new.size > index { high = middle } else { low = middle + 1 }
        }
        let start = low.checked_sub(1).map_or(self.begin, |before| self.segments[before].last + 1);
        let range = match self.segments.get(low) {
            Some(segment) => start..segment.last + 1,
            None => match self.first(start..self.end, |seen| seen.size > index).await? {
                seq if seq < self.end => seq..seq + 1,
                _ => return Ok(None),
            },
        };
        let mut commits = self.commits(range, None);
        while let Some(commit) = commits.try_next().await? {
            if commit.header().old.size > index {
                let sentence = format!("the segment with record {index} of the audit log was removed");
                return Err(Error::new(ErrorKind::NotFound, sentence));
            }
            if commit.header().new.size > index {
                return Ok(entries(commit).find(|entry| entry.index == index));
            }
        }
        Ok(None)
    }

    /// The newest `count` records, oldest first.
    async fn newest(&self, count: usize) -> Result<Vec<Entry>> {
        let mut newest: VecDeque<Entry> = VecDeque::new();
        let (mut end, mut step) = (self.end, 4);
        while newest.len() < count && end > self.begin {
            let start = end.saturating_sub(step).max(self.begin);
            // A segment is read whole.
            let start = self
                .segments
                .iter()
                .find(|segment| (segment.first..=segment.last).contains(&start))
                .map_or(start, |segment| segment.first);
            let older: Vec<Commit> = self.commits(start..end, None).try_collect().await?;
            for entry in older.into_iter().flat_map(entries).collect::<Vec<_>>().into_iter().rev() {
                newest.push_front(entry);
            }
            (end, step) = (start, (2 * step).min(BACK));
        }
        Ok(newest.split_off(newest.len().saturating_sub(count)).into())
    }

    /// The first commit of `range` that `fits`, where all behind one that fits do too;
    /// the end of the range if there is none.
    async fn first(&self, mut range: Range<u64>, fits: impl Fn(&Seen) -> bool) -> Result<u64> {
        for (seq, seen) in self.seen.lock().unwrap_or_else(PoisonError::into_inner).range(range.clone()) {
            if fits(seen) {
                range.end = *seq;
                break;
            }
            range.start = seq + 1;
        }
        while range.start < range.end {
            let span = range.end - range.start;
            let count = span.min(PROBES);
            let place = |number| u128::from(span) * u128::from(number) / u128::from(count + 1);
            let places = (1..=count).map(|number| range.start + u64::try_from(place(number)).unwrap_or(0));
            let places: Vec<u64> = places.collect();
            let seen = try_join_all(places.iter().map(|seq| self.see(*seq))).await?;
            match seen.iter().position(&fits) {
                Some(0) => range.end = places[0],
                Some(at) => range = places[at - 1] + 1..places[at],
                None => range.start = places.last().map_or(range.end, |last| last + 1),
            }
        }
        Ok(range.start)
    }

    async fn see(&self, seq: u64) -> Result<Seen> {
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&seq).copied();
        if let Some(seen) = known {
            return Ok(seen);
        }
        let header = self.header(seq).await?;
        let seen = Seen { time: header.time, lag: Duration::from_micros(header.lag), size: header.new.size };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(seq, seen);
        Ok(seen)
    }

    async fn header(&self, seq: u64) -> Result<Header> {
        self.wal.header(seq).await?.ok_or_else(|| self.wal.missing(seq))
    }

    /// Which commit number `seq` says is before it.
    async fn previous_of(&self, seq: u64) -> Result<Hash> {
        match self.segments.iter().find(|segment| segment.first == seq) {
            Some(segment) => Ok(self.segment_header(segment).await?.0.previous),
            None => Ok(self.header(seq).await?.previous),
        }
    }
}

/// The records of a commit in their places.
pub fn entries(commit: Commit) -> impl Iterator<Item = Entry> {
    let header = commit.header();
    let (shard, seq, time, first) = (header.shard, header.seq, header.time, header.old.size);
    let records = commit.into_records().into_iter();
    records.zip(first..).map(move |(record, index)| Entry { shard, seq, index, time, record })
}

/// An object, or its first bytes, and what the storage says of it.
async fn fetch(
    storage: &Arc<dyn ObjectStore>,
    limit: Duration,
    path: &Path,
    first: Option<u64>,
) -> Result<Option<(Bytes, Mark)>> {
    let range = first.map(|first| GetRange::Bounded(0..first));
    let options = GetOptions::new().with_range(range);
    let read = async {
        let got = storage.get_opts(path, options).await?;
        let mark = Mark::from(got.meta.clone());
        // The storage's word on the size is believed before it fills memory.
        let bytes = if mark.size > MAX_SEGMENT { Bytes::new() } else { got.bytes().await? };
        Ok((bytes, mark))
    };
    request_within(limit, read).await
}

fn intruder(among: &'static str) -> Error {
    let sentence = format!("an object stands among the {among} of the audit log that is none of them");
    Error::new(ErrorKind::Integrity, sentence)
}
