//! Where a program starts: the head of a shard, in a few requests whatever its history.
//!
//! A saved head ([`SavedHead`]) is read, and the commits behind it are followed one by
//! one. Writers save one every few commits, so that there are few of them. Without one,
//! the end is searched for among the commits ([`Wal::end`]), and the ends of chains are
//! read from those that list them.
//!
//! Separate from the commits' paths and reads, because it is the one thing that depends
//! on an object which is replaced.

use futures_util::future::try_join_all;
use futures_util::stream::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};

use super::super::open::LeftOpen;
use super::{Mark, Wal, request_within};
use crate::audit::commit::{Commit, Writer};
use crate::audit::head::{Head, MAX_LEN, SavedHead};
use crate::audit::layout::{self, Object};
use crate::error::{Error, ErrorKind, Result};

/// Commits that are looked for at once behind a saved head, and then each time.
const FIRST_LOOK: u64 = 5;
const NEXT_LOOK: u64 = 8;

/// So many commits are followed from a saved head. Behind more, the end is searched for.
const FOLLOWED: u64 = 1024;

/// Where a shard stands, and how that was found.
#[derive(Clone, Debug)]
pub(in crate::audit) struct Start {
    /// The head, with the ends of customers' chains.
    pub(in crate::audit) head: Head,
    /// What the storage says of the last commit.
    pub(in crate::audit) mark: Option<Mark>,
    /// How many commits the saved head is of; 0 without one.
    pub(in crate::audit) saved: u64,
    /// How many commits are known to be in segments.
    pub(in crate::audit) covered: u64,
    /// How many records are published.
    pub(in crate::audit) published: u64,
    /// Whether the commits behind the saved head leave something open.
    pub(in crate::audit) busy: bool,
}

impl Start {
    /// Where a shard was found to stand, without a saved head.
    fn found(head: Head, mark: Option<Mark>, covered: u64) -> Self {
        Self { head, mark, saved: 0, covered, published: 0, busy: false }
    }
}

impl Wal {
    /// Where the shard stands. It may not stand before the published checkpoint: then
    /// commits were cut off.
    pub(in crate::audit) async fn newest(&self) -> Result<Start> {
        let (published, saved) = tokio::try_join!(self.published(), self.saved())?;
        let mut start = self.follow_saved(saved).await?;
        let mut looked_again = false;
        loop {
            let tree = start.head.tree();
            if published.size < tree.size || published == tree {
                start.published = published.size;
                return Ok(start);
            }
            // Others may have gone on, and published, after we had seen the end.
            let known = start.head.next();
            start = self.search(known).await?;
            if start.head.next() == known && std::mem::replace(&mut looked_again, true) {
                let sentence = format!(
                    "commits of shard {:04x} of the audit log are gone or replaced that its checkpoint is of",
                    self.shard
                );
                return Err(Error::new(ErrorKind::Integrity, sentence));
            }
        }
    }

    /// The saved head. `None` if it is missing, or cannot be used: then the end is searched
    /// for, which takes more requests.
    pub(in crate::audit) async fn saved(&self) -> Result<Option<SavedHead>> {
        let path = Object::Head { shard: self.shard }.path();
        let read = async {
            let got = self.storage.get(&path).await?;
            if got.meta.size > MAX_LEN as u64 { Ok(None) } else { got.bytes().await.map(Some) }
        };
        let Some(Some(bytes)) = request_within(self.limit, read).await? else { return Ok(None) };
        let decode = || SavedHead::decode(&bytes, (self.store, self.shard), &self.authority).ok();
        Ok(match decode() {
            None if self.learn().await? => decode(),
            saved => saved,
        })
    }

    /// Saves a head for those who start later, and says whether it is there.
    pub(in crate::audit) async fn save(&self, saved: &SavedHead, writer: &Writer) -> bool {
        let path = Object::Head { shard: self.shard }.path();
        let bytes = saved.encode(writer);
        let put = self.storage.put_opts(&path, bytes.into(), PutMode::Overwrite.into());
        // If we stop here, an older one stands, and programs go a longer way.
        matches!(tokio::time::timeout(self.limit, put).await, Ok(Ok(_)))
    }

    async fn follow_saved(&self, saved: Option<SavedHead>) -> Result<Start> {
        let Some(SavedHead { mut head, covered }) = saved else { return self.search(0).await };
        let begin = head.next();
        let first = begin.saturating_sub(1);
        let (newer, found) = tokio::try_join!(
            self.segments_behind(covered),
            self.look(first..begin.saturating_add(FIRST_LOOK))
        )?;
        // What a segment covers is taken, whether its own object is still there or not.
        if newer {
            return self.search(begin).await;
        }
        let mut found = found.into_iter();
        let mut mark = None;
        if begin > 0 {
            match found.next() {
                Some((commit, at)) if commit.header().seq == first && commit.hash() == head.previous() => {
                    mark = Some(at);
                }
                // It aged out, or the saved head is of another history than what is stored.
                _ => return self.search(begin).await,
            }
        }
        if head.chains().is_none() {
            head = head.with_chains(self.chains(begin).await?);
        }
        let mut start = Start { saved: begin, ..Start::found(head, mark, covered) };
        let mut wanted = FIRST_LOOK;
        let mut open = LeftOpen::default();
        loop {
            let mut count = 0;
            for (commit, mark) in found {
                open.follow(&commit);
                start.head = self.follow(&start.head, &commit)?;
                start.mark = Some(mark);
                count += 1;
            }
            if count < wanted {
                start.busy = !open.intents.is_empty();
                return Ok(start);
            }
            if start.head.next() - begin >= FOLLOWED {
                return self.search(start.head.next()).await;
            }
            wanted = NEXT_LOOK;
            let next = start.head.next();
            found = self.look(next..next.saturating_add(wanted)).await?.into_iter();
        }
    }

    /// The commits of a range that have an object, up to the first that has none.
    async fn look(&self, range: std::ops::Range<u64>) -> Result<Vec<(Commit, Mark)>> {
        let read = try_join_all(range.map(|seq| self.new_commit(seq))).await?;
        Ok(read.into_iter().map_while(std::convert::identity).collect())
    }

    /// Whether there is a segment that begins at commit `covered` or behind it.
    async fn segments_behind(&self, covered: u64) -> Result<bool> {
        let (folder, from) = (layout::segments_of(self.shard), layout::segments_from(self.shard, covered));
        let mut list = self.storage.list_with_offset(Some(&folder), &from);
        Ok(request_within(self.limit, list.try_next()).await?.flatten().is_some())
    }

    /// Where the shard stands, by a search for its end from `known` on.
    async fn search(&self, known: u64) -> Result<Start> {
        let end = self.end(known).await?;
        let covered = self.covered().await?;
        let Some(last) = end.checked_sub(1) else {
            return Ok(Start::found(self.empty(), None, covered));
        };
        let commit = async { self.commit(last).await?.ok_or_else(|| self.missing(last)) };
        let ((commit, mark), chains) = tokio::try_join!(commit, self.chains(end))?;
        let head = self.head_after(&commit)?.with_chains(chains);
        Ok(Start::found(head, Some(mark), covered))
    }
}
