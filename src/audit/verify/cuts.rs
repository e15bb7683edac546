//! Where segments are cut: the commits alone decide it, so that the segments
//! that a shard must have can be told from its commits.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Context;
use super::finding::Problem;
use super::tree::exists;
use crate::audit::commit::Header;
use crate::audit::layout::{Object, SegmentName};
use crate::audit::segment::MAX_BODY;
use crate::error::Result;
use crate::time::{Day, Timestamp};

/// How long after the end of its last commit's day a segment has to be there.
/// Commits are kept four times as long.
const OVERDUE: Duration = Duration::from_secs(8 * 24 * 3600);

/// The segments of one shard, up to where the walk has come.
pub(super) struct Cuts<'a> {
    context: &'a Context,
    shard: u16,
    /// Those that were listed and not come to yet.
    waiting: BTreeSet<SegmentName>,
    /// The last commit in any of them.
    last: Option<u64>,
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
    pub(super) fn new(context: &'a Context, shard: u16, listed: &BTreeSet<SegmentName>) -> Self {
        let last = listed.iter().map(|name| name.last).max();
        Self { context, shard, waiting: listed.clone(), last, current: None, day: None }
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
        // Without any, nobody keeps segments here, and nothing is lost by it yet.
        let overdue = self.last.is_some() && self.context.now > name.until.saturating_add(OVERDUE);
        let path = Object::Segment(name).path();
        if self.last > Some(name.last) && !exists(self.context, &path).await? {
            self.context.findings.wrong(&path, Problem::Missing("there is a later one"));
        } else if overdue && !exists(self.context, &path).await? {
            self.context.findings.wrong(&path, Problem::Missing("its day is long over"));
        }
        Ok(())
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
