//! Where segments are cut: the commits alone decide it, so that the segments
//! that a shard must have can be told from its commits.

use std::collections::BTreeSet;
use std::time::Duration;

use object_store::ObjectStoreExt;

use super::finding::Problem;
use super::inventory::{ShardObjects, failed};
use super::tree::exists;
use super::{Context, OVERDUE};
use crate::audit::commit::Header;
use crate::audit::layout::{Object, SegmentName};
use crate::audit::segment::MAX_BODY;
use crate::error::Result;
use crate::store::stored_at;
use crate::time::{Day, Timestamp};

/// The segments of one shard, up to where the walk has come.
pub(super) struct Cuts<'a> {
    context: &'a Context,
    shard: u16,
    /// Those that were listed and not come to yet.
    waiting: BTreeSet<SegmentName>,
    /// The last commit in any of them.
    last: Option<u64>,
    /// Of how many commits there are bases: each is made behind a segment.
    bases: &'a BTreeSet<u64>,
    /// The segment that is being filled, `None` where it is not known where it
    /// began.
    current: Option<Part>,
    /// The day of the commit before, if it is the one before.
    day: Option<Days>,
}

/// The day of a commit, and the one that it is kept with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Days {
    time: Day,
    kept: Day,
}

/// Commits of one segment.
#[derive(Clone, Copy, Debug)]
struct Part {
    name: SegmentName,
    day: Days,
    bytes: u64,
}

impl<'a> Cuts<'a> {
    pub(super) fn new(context: &'a Context, shard: u16, objects: &'a ShardObjects) -> Self {
        let (waiting, bases) = (objects.segments.clone(), &objects.bases);
        let last = waiting.iter().map(|name| name.last).max();
        Self { context, shard, waiting, last, bases, current: None, day: None }
    }

    /// Commits are missing here.
    pub(super) fn gap(&mut self) {
        self.current = None;
        self.day = None;
    }

    /// Takes the next commit, of `len` bytes.
    pub(super) async fn take(&mut self, header: &Header, len: u64) -> Result<()> {
        let day = Days { time: header.time.day(), kept: header.kept_with() };
        // Before the log was cut by the days of records where it is ahead, it was not.
        let goes_on = |part: &Part| {
            let spans = |name: &SegmentName| name.first == part.name.first && name.last >= header.seq;
            part.day.time == day.time && self.waiting.iter().any(spans)
        };
        if self.current.is_some_and(|part| part.day != day && !goes_on(&part)) {
            self.close(true).await?;
        }
        let begins = header.seq == 0
            || self.day.is_some_and(|before| before != day)
            || self.waiting.iter().any(|name| name.first == header.seq);
        self.current = match self.current {
            Some(Part { name, bytes, .. }) => {
                let name = SegmentName {
                    last: header.seq,
                    from: name.from.min(header.first),
                    until: header.time,
                    ..name
                };
                Some(Part { name, day, bytes: bytes + len })
            }
            None if begins => {
                let (first, shard) = (header.seq, self.shard);
                let name = SegmentName { shard, first, last: first, from: header.first, until: header.time };
                Some(Part { name, day, bytes: len })
            }
            None => None,
        };
        self.day = Some(day);
        if self.current.is_some_and(|part| part.bytes >= MAX_BODY) {
            self.close(true).await?;
            // The next commit begins a segment, whatever its day.
            self.current = None;
            self.day = Some(Days { time: Day::from_number(0), kept: Day::from_number(0) });
        }
        Ok(())
    }

    /// The segment is over, or, at the end of the log, may be.
    async fn close(&mut self, over: bool) -> Result<()> {
        let Some(Part { name, .. }) = self.current.take() else { return Ok(()) };
        if self.waiting.remove(&name) || !over {
            return Ok(());
        }
        let path = Object::Segment(name).path();
        let has_later = self.last > Some(name.last);
        let has_base = self.bases.contains(&name.last.saturating_add(1));
        // Without any, nobody keeps segments here, and nothing is lost by it yet.
        let overdue = self.last.is_some() && self.is_old(name.until);
        if !(has_later || has_base || overdue) || exists(self.context, &path).await? {
            return Ok(());
        }
        if has_later {
            self.context.findings.wrong(&path, Problem::Missing("there is a later one"));
        } else if has_base {
            self.context.findings.wrong(&path, Problem::Missing("there is a base behind it"));
        } else if self.is_long_stored(name.last).await? {
            self.context.findings.wrong(&path, Problem::Missing("its day is long over"));
        }
        Ok(())
    }

    /// Whether a segment that ends at this time has to be there by now.
    fn is_old(&self, until: Timestamp) -> bool {
        self.context.now > until.saturating_add(OVERDUE)
    }

    /// Whether a commit was stored so long ago that its segment has to be there by now. A host whose clock is
    /// days behind writes commits that look old at once. If the commit is gone, or the storage does not date
    /// it, the commit's own time counts.
    async fn is_long_stored(&self, seq: u64) -> Result<bool> {
        let path = Object::Commit { shard: self.shard, seq }.path();
        match self.context.storage.head(&path).await {
            Ok(meta) => Ok(stored_at(&meta).is_none_or(|at| self.is_old(at))),
            Err(object_store::Error::NotFound { .. }) => Ok(true),
            Err(error) => Err(failed(error)),
        }
    }

    /// The end of the log: names the segments that its commits do not make.
    pub(super) async fn finish(mut self) -> Result<()> {
        self.close(false).await?;
        for name in &self.waiting {
            self.context.findings.wrong(&Object::Segment(*name).path(), Problem::NotCut);
        }
        Ok(())
    }
}

/// Whether a commit of this time may have left `wal/`.
pub(super) fn may_have_gone(time: Timestamp, kept: Duration, now: Timestamp) -> bool {
    time.saturating_add(kept) <= now
}
