//! The way through a range of commits, wherever they stand.
//!
//! Separate from the shard, because it has a state: the head that the next commit
//! has to follow from.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::ShardReader;
use crate::audit::commit::Commit;
use crate::audit::head::Head;
use crate::audit::layout::SegmentName;
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;

/// A part of a range.
#[derive(Debug)]
enum Step {
    Segment(SegmentName),
    /// In no segment.
    Commits(Range<u64>),
}

/// A way through a range.
pub(super) struct Walk {
    shard: ShardReader,
    customers: Option<BTreeSet<CustomerId>>,
    range: Range<u64>,
    steps: VecDeque<Step>,
    ready: Option<BoxStream<'static, Result<(Commit, Head)>>>,
    /// Behind the last commit that was given out.
    head: Option<Head>,
    /// Whether that one was read by itself, so that the log's key does not stand for
    /// it but by the commit behind it.
    unnamed: bool,
}

impl Walk {
    pub(super) fn new(
        shard: ShardReader,
        range: Range<u64>,
        customers: Option<BTreeSet<CustomerId>>,
    ) -> Self {
        let steps = steps(&shard.segments, &range);
        Self { shard, customers, range, steps, ready: None, head: None, unnamed: false }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Commit>> {
        loop {
            if let Some(ready) = &mut self.ready {
                if let Some((commit, head)) = ready.try_next().await? {
                    self.head = Some(head);
                    return Ok(Some(commit));
                }
                self.ready = None;
                if self.unnamed {
                    self.check_named().await?;
                }
            }
            match self.steps.pop_front() {
                None => return Ok(None),
                Some(Step::Segment(name)) => self.enter_segment(&name).await?,
                Some(Step::Commits(range)) => self.enter_commits(range).await?,
            }
        }
    }

    async fn enter_segment(&mut self, name: &SegmentName) -> Result<()> {
        let head = self.head.take();
        let Some(segment) = self.shard.segment(name, self.customers.as_ref()).await? else { return Ok(()) };
        let authority = self.shard.wal.authority.clone();
        let mut commits = Vec::with_capacity(segment.commits().len());
        for (commit, _) in segment.into_commits() {
            if let (Some(head), true) = (&head, commits.is_empty()) {
                self.shard.wal.follow(head, &commit)?;
            }
            commits.push(commit);
        }
        // That its commits follow from each other was checked when it was decoded.
        let range = self.range.clone();
        let ready = commits.into_iter().filter(move |commit| range.contains(&commit.header().seq));
        let with_head = move |commit: Commit| Ok((commit.clone(), Head::after(&commit, &authority)?));
        self.ready = Some(stream::iter(ready.map(with_head)).boxed());
        self.unnamed = false;
        Ok(())
    }

    async fn enter_commits(&mut self, range: Range<u64>) -> Result<()> {
        let wal = &self.shard.wal;
        let before = self.head.take();
        let (first, _) = wal.commit(range.start).await?.ok_or_else(|| wal.missing(range.start))?;
        let head = match before {
            Some(head) => wal.follow(&head, &first)?,
            None => wal.head_after(&first)?,
        };
        let rest = wal.walk(head.clone(), range.end).map_ok(|(commit, _, head)| (commit, head));
        self.ready = Some(stream::iter([Ok((first, head))]).chain(rest).boxed());
        self.unnamed = true;
        Ok(())
    }

    /// Checks that the commit behind the last one names it: of two that were signed
    /// for one number, only one was stored.
    async fn check_named(&mut self) -> Result<()> {
        let Some(head) = &self.head else { return Ok(()) };
        if head.next() >= self.shard.end {
            return Ok(());
        }
        if self.shard.previous_of(head.next()).await? == head.previous() {
            return Ok(());
        }
        let before = head.next() - 1;
        let sentence = format!("commit {before} of the audit log is not the one that the next one names");
        Err(Error::new(ErrorKind::Integrity, sentence))
    }
}

/// Where the commits of a range stand.
fn steps(segments: &[SegmentName], range: &Range<u64>) -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    let mut at = range.start;
    for segment in segments {
        if segment.last < at || segment.first >= range.end {
            continue;
        }
        if at < segment.first {
            steps.push_back(Step::Commits(at..segment.first));
        }
        steps.push_back(Step::Segment(*segment));
        at = segment.last + 1;
    }
    if at < range.end {
        steps.push_back(Step::Commits(at..range.end));
    }
    steps
}
