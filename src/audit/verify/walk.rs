//! The walk over one shard: every commit from the first to the last, each
//! against the one before it.
//!
//! After a commit that is missing or damaged the walk goes on behind the next
//! good one, on the word of its writer, whom the log's key endorsed: so one
//! changed bit is one finding. The leaves of what is missing are taken from the
//! tiles, if they lead to the tree that the good commit names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;

use super::bases::Bases;
use super::cuts::{Cuts, may_have_gone};
use super::finding::{Problem, RecordProblem};
use super::inventory::ShardObjects;
use super::records::{Claimant, Claimed, Records, Story};
use super::source::{self, Found, Piece, Placed, Read, commits, pieces};
use super::tree::{Tree, sizes};
use super::{Context, Signed, keys};
use crate::audit::base::Base;
use crate::audit::chains::{ChainEnd, Chains};
use crate::audit::commit::{Commit, MAX_LEN};
use crate::audit::head::Head;
use crate::audit::layout::{FIRST_SHARD, Object};
use crate::error::Result;
use crate::merkle::{Frontier, Hash, TreeHead};
use crate::time::Timestamp;

/// How long a commit stays in `wal/` at least, a day for the rule's clock taken
/// off.
const COMMITS_KEPT: Duration = Duration::from_secs(34 * 24 * 3600);

/// How many missing commits in a row are named one by one.
const NAMED: u64 = 100;

/// How far the clocks of writers may be ahead of ours.
pub(super) const AHEAD: Duration = Duration::from_secs(600);

/// What was found of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardReport {
    /// The shard.
    pub shard: u16,
    /// The first commit that is there, `None` without any.
    pub first: Option<u64>,
    /// How many commits the shard has had up to the last good one.
    pub commits: u64,
    /// The tree after the last good commit; its size is the number of records.
    pub tree: TreeHead,
    /// The earliest record that was read.
    pub from: Option<Timestamp>,
    /// The time of the last commit.
    pub until: Option<Timestamp>,
    /// The tree of the checkpoint, if there is one that the log's key signed.
    pub checkpoint: Option<TreeHead>,
    /// How many segments were listed.
    pub segments: usize,
    /// How many tiles and entry bundles were listed.
    pub tiles: usize,
}

pub(super) struct Walk<'a> {
    context: &'a Context,
    shard: u16,
    objects: &'a ShardObjects,
    /// Where the shard stands after the last good commit.
    head: Head,
    /// What commits list of customers' chains, as far as it is still needed.
    lists: BTreeMap<u64, Vec<ChainEnd>>,
    tree: Tree<'a>,
    records: Records<'a>,
    cuts: Cuts<'a>,
    bases: Bases<'a>,
    /// What was said of the tree, smallest first.
    claimed: VecDeque<Claimed>,
    /// Commits that are there and not good, since the last good one.
    bad: BTreeSet<u64>,
    first: Option<u64>,
    from: Option<Timestamp>,
    /// Behind how many records the log's key changed, and to which.
    changed: Vec<(u64, u32)>,
    /// Whether a commit from the future was noted.
    future: bool,
}

impl<'a> Walk<'a> {
    /// A walk over a shard, of whose trees something is claimed.
    pub(super) fn new(
        context: &'a Context,
        shard: u16,
        objects: &'a ShardObjects,
        mut claimed: Vec<Claimed>,
        start: Option<Base>,
    ) -> Self {
        claimed.sort_by_key(|claimed| claimed.head.size);
        Self {
            bases: Bases::new(context, shard, objects, start),
            context,
            shard,
            objects,
            head: Head::empty(context.store, shard, &context.authority),
            lists: BTreeMap::new(),
            tree: Tree::new(context, shard, objects),
            records: Records::new(context, shard),
            cuts: Cuts::new(context, shard, objects),
            claimed: claimed.into(),
            bad: BTreeSet::new(),
            first: None,
            from: None,
            changed: Vec::new(),
            future: false,
        }
    }

    /// Walks to the end. `listed` are all shards of which there is an object.
    pub(super) async fn run(
        mut self,
        story: &mut Story,
        listed: &BTreeSet<u16>,
        checkpoint: Option<Signed>,
    ) -> Result<ShardReport> {
        match self.bases.start().cloned() {
            Some(base) => self.begin_at(story, &base).await?,
            None => self.check_claims(&self.head.clone(), None),
        }
        let mut pieces = pieces(self.context, self.shard, self.objects);
        while let Some(piece) = pieces.try_next().await? {
            match piece {
                Piece::Commits(range) => {
                    let mut commits = commits(self.context, self.shard, range);
                    while let Some((seq, found)) = commits.try_next().await? {
                        self.found(story, seq, found).await?;
                    }
                }
                Piece::Segment(commits) => self.segment(story, commits).await?,
            }
        }
        // What is derived was listed first: on a live log it may be of commits
        // that came after the list of commits.
        while self.is_short(story, listed) {
            let seq =
                self.bad.last().map_or(self.head.next(), |bad| bad.saturating_add(1).max(self.head.next()));
            match source::commit(self.context, self.shard, seq).await? {
                Found::Nothing => break,
                found => self.found(story, seq, found).await?,
            }
        }
        self.finish(story, checkpoint).await
    }

    fn is_short(&self, story: &Story, listed: &BTreeSet<u16>) -> bool {
        let claimed = self.claimed.back().map_or(0, |claimed| claimed.head.size);
        let segments = self.objects.segments.iter().map(|name| name.last.saturating_add(1)).max();
        self.head.tree().size < claimed.max(self.tree.listed_size())
            || Some(self.head.next()) < segments
            || self.shard == FIRST_SHARD
                && listed.iter().any(|shard| *shard != FIRST_SHARD && !story.named.contains_key(shard))
    }

    async fn found(&mut self, story: &mut Story, seq: u64, found: Found) -> Result<()> {
        match found {
            Found::Nothing => {}
            Found::Bad => {
                self.bad.insert(seq);
                story.gaps = true;
            }
            Found::Commit(placed) => self.step(story, *placed).await?,
        }
        Ok(())
    }

    /// The commits of a segment, and those beside it.
    async fn segment(&mut self, story: &mut Story, commits: Vec<(Placed, Bytes)>) -> Result<()> {
        let stored = commits.iter().map(|(placed, bytes)| {
            let header = placed.commit.header();
            // It ages by the storage's clock, and the log's may be ahead.
            (header.seq, header.last, bytes.clone())
        });
        let stored: Vec<_> = stored.collect();
        let (context, shard, objects) = (self.context, self.shard, self.objects);
        stream::iter(stored)
            .map(Ok)
            .try_for_each_concurrent(source::READ_AHEAD, |(seq, time, bytes)| {
                compare(context, shard, objects, seq, time, bytes)
            })
            .await?;
        for (placed, _) in commits {
            self.step(story, placed).await?;
        }
        Ok(())
    }

    fn path(&self, seq: u64) -> Path {
        Object::Commit { shard: self.shard, seq }.path()
    }

    /// The next commit that was found in its place.
    async fn step(&mut self, story: &mut Story, placed: Placed) -> Result<()> {
        let Placed { commit, len } = placed;
        let header = commit.header();
        let (seq, path) = (header.seq, self.path(header.seq));
        if seq < self.head.next() {
            // Only a segment in a place of its own making leads here.
            return Ok(());
        }
        if let Some(change) = commit.key_change() {
            keys::look_for(self.context, story, change.number).await?;
        }
        let in_place = seq == self.head.next();
        let verified = if in_place { Some(self.head.verify(&commit)) } else { None };
        let mut before = None;
        let after = match verified {
            Some(Ok(after)) => {
                before = Some(self.head.clone());
                after
            }
            refused => match Head::after(&commit, &self.context.authority) {
                Ok(after) => {
                    // Behind one that goes back to a key before, the later one is in force all the same.
                    let after = after.under_key(self.head.in_force().unwrap_or_default());
                    match refused {
                        Some(Err(error)) => {
                            self.context.findings.wrong(&path, Problem::NotNext(error.chain()));
                        }
                        _ => self.missing(self.head.next()..seq),
                    }
                    self.resume(story, &commit, in_place).await?;
                    after
                }
                Err(error) => {
                    self.context.findings.wrong(&path, Problem::unreadable(&error));
                    self.bad.insert(seq);
                    story.gaps = true;
                    return Ok(());
                }
            },
        };
        self.bad.clear();
        let after = self.with_chains(after, &commit);
        self.check_claims(&after, before.as_ref().map(|before| (before.frontier(), &commit)));
        commit.leaves().iter().for_each(|leaf| self.tree.push(leaf));
        self.tree.catch_up().await?;
        self.records.take(story, before.as_ref(), &commit);
        self.cuts.take(header, len).await?;
        self.bases.take(&commit, &after).await?;
        if self.first.is_none() {
            // A clock may be behind by as much as one may be ahead.
            let views = story.absent.remove(&self.shard).unwrap_or_default();
            let late = views.iter().filter(|(_, time)| *time > header.time.saturating_add(AHEAD));
            late.for_each(|(at, _)| at.wrong(self.context, RecordProblem::ViewShards));
            self.first = Some(seq);
            let named = story.named.get(&self.shard).map(|named| named.key);
            let found = after.key();
            if let Some(needed) = named.filter(|named| found < *named && seq == 0) {
                self.context.findings.wrong(&path, Problem::OldKey { found, needed });
            }
        }
        if let Some(change) = commit.key_change().filter(|change| change.number == after.key()) {
            self.changed.push((header.old.size, change.number));
        }
        self.from = Some(self.from.map_or(header.first, |from| from.min(header.first)));
        if header.time > self.context.now.saturating_add(AHEAD) && !self.future {
            self.future = true;
            self.context.findings.note(&path, Problem::Future(header.time));
        }
        self.head = after;
        Ok(())
    }

    /// Names the commits that are missing.
    fn missing(&self, gap: Range<u64>) {
        let findings = &self.context.findings;
        let count = gap.end - gap.start;
        let named = gap.start..gap.end.min(gap.start.saturating_add(NAMED));
        let rest = named.end;
        for seq in named.filter(|seq| !self.bad.contains(seq)) {
            findings.wrong(&self.path(seq), Problem::Missing("a later commit is there"));
        }
        if count > NAMED {
            let more = gap.end - rest - 1;
            findings.wrong(&self.path(rest), Problem::MissingMany { more });
        }
    }

    /// Begins behind a base: what came before was removed.
    async fn begin_at(&mut self, story: &mut Story, base: &Base) -> Result<()> {
        story.gaps = true;
        self.head = base.head(&self.context.authority);
        // Whoever signed for this tree, or a larger one, had that key.
        self.changed.push((base.header().size - 1, self.head.key()));
        self.records.start(story, base);
        self.tree.begin_at(base.tree()).await?;
        // What is claimed of trees before it follows from the tiles.
        let size = base.header().size;
        while let Some(claimed) = self.claimed.pop_front_if(|claimed| claimed.head.size <= size) {
            let root = match claimed.head.size {
                at if at == size => Some(base.tree().root),
                at => self.tree.old_root(base.tree(), at).await?,
            };
            // A base does not say which heads there were before it.
            if root != Some(claimed.head.root) {
                self.check_claim(&claimed, Some(root.unwrap_or(Hash::ZERO)), None);
            }
        }
        Ok(())
    }

    /// Goes on behind what is missing or wrong, with the tree that `commit` says
    /// was there before it.
    async fn resume(&mut self, story: &mut Story, commit: &Commit, in_place: bool) -> Result<()> {
        let old = commit.header().old;
        if in_place && self.head.tree() == old {
            // Nothing is missing; the commit contradicts the one before in
            // something else.
            return Ok(());
        }
        story.gaps = true;
        self.records.gap();
        self.cuts.gap();
        self.bases.gap();
        if self.tree.is_at(&old) {
            return Ok(());
        }
        let on_the_way =
            self.claimed.iter().map(|claimed| claimed.head.size).filter(|size| *size <= old.size);
        let roots = self.tree.fill(&old, &sizes(on_the_way)).await?;
        while let Some(claimed) = self.claimed.pop_front_if(|claimed| claimed.head.size <= old.size) {
            if let Ok(found) = roots.binary_search_by_key(&claimed.head.size, |(size, _)| *size) {
                // A tree between commits of which nothing is known but its root.
                self.check_claim(&claimed, Some(roots[found].1), None);
            }
        }
        Ok(())
    }

    /// The head with the ends of customers' chains, as soon as commits that were
    /// read list all of them.
    fn with_chains(&mut self, head: Head, commit: &Commit) -> Head {
        let header = commit.header();
        let needed = Chains::listed_by(head.next());
        self.lists.insert(header.seq, header.chains.clone());
        self.lists.retain(|seq, _| needed.contains(seq));
        if head.chains().is_some() || self.lists.len() < needed.len() {
            return head;
        }
        let lists: Vec<&[ChainEnd]> = self.lists.values().map(Vec::as_slice).collect();
        match Chains::from_lists(head.next(), &lists) {
            Some(chains) => head.with_chains(chains),
            None => head,
        }
    }

    /// Checks what was claimed of the trees up to `after`, which `commit` leads
    /// to from the tree with this edge.
    fn check_claims(&mut self, after: &Head, from: Option<(&Frontier, &Commit)>) {
        let size = after.tree().size;
        while let Some(claimed) = self.claimed.pop_front_if(|claimed| claimed.head.size <= size) {
            if claimed.head.size == size {
                self.check_claim(&claimed, Some(after.tree().root), Some(after));
                continue;
            }
            let root = from.and_then(|(edge, commit)| root_at(edge, commit, claimed.head.size));
            self.check_claim(&claimed, root, None);
        }
    }

    /// Checks one claim: `root` is what the tree of its size has, if that is
    /// known, and `head` where the shard stood, if it ever stood there.
    fn check_claim(&self, claimed: &Claimed, root: Option<Hash>, head: Option<&Head>) {
        let differs = root.is_some_and(|root| root != claimed.head.root);
        let checkpoint = Object::Checkpoint { shard: self.shard }.path();
        match claimed.by {
            Claimant::Checkpoint if differs => {
                self.context.findings.wrong(&checkpoint, Problem::Root(claimed.head.size));
            }
            Claimant::Pinned if differs => {
                self.context.findings.wrong(&checkpoint, Problem::Rewritten(claimed.head.size));
            }
            Claimant::Paper(paper) if differs => {
                self.context.findings.wrong(&paper.path(), Problem::PaperTree(claimed.head.size));
            }
            Claimant::Checkpoint | Claimant::Pinned | Claimant::Paper(_) => {}
            Claimant::Head(at) | Claimant::View(at, ..) if differs || head.is_none() && root.is_some() => {
                at.wrong(self.context, RecordProblem::NeverHead(self.shard));
            }
            Claimant::Head(_) => {}
            Claimant::View(at, customer, records, last) => {
                let Some(chains) = head.and_then(Head::chains) else { return };
                let end = chains.end(customer).map_or((0, Hash::ZERO), |end| (end.records, end.last));
                if end != (records, last) {
                    at.wrong(self.context, RecordProblem::ViewRecords(self.shard));
                }
            }
        }
    }

    async fn finish(mut self, story: &mut Story, signed: Option<Signed>) -> Result<ShardReport> {
        let checkpoint = signed.map(|signed| signed.head);
        let tree = self.head.tree();
        let (records, next) = (tree.size, self.head.next());
        let path = Object::Checkpoint { shard: self.shard }.path();
        let findings = &self.context.findings;
        let short = !self.claimed.is_empty() || self.tree.listed_size() > records;
        if short && !self.bad.contains(&next) {
            findings.wrong(&self.path(next), Problem::Missing("what is derived from it is there"));
        }
        for claimed in std::mem::take(&mut self.claimed) {
            let size = claimed.head.size;
            match claimed.by {
                Claimant::Checkpoint => findings.wrong(&path, Problem::Larger { size, records }),
                Claimant::Pinned => findings.wrong(&path, Problem::RolledBack { size, records }),
                Claimant::Paper(paper) => findings.wrong(&paper.path(), Problem::PaperTree(size)),
                Claimant::Head(at) | Claimant::View(at, ..) => {
                    at.wrong(self.context, RecordProblem::ShardBehind(self.shard));
                }
            }
        }
        if let Some(newer) = checkpoint.and_then(|checkpoint| records.checked_sub(checkpoint.size))
            && newer > 0
        {
            findings.note(&path, Problem::Uncovered(newer));
        }
        if let Some(Signed { head, key: found }) = signed {
            let before = self.changed.iter().rev().find(|(size, _)| *size < head.size);
            if let Some((_, needed)) = before.filter(|(_, needed)| found < *needed) {
                findings.wrong(&path, Problem::OldKey { found, needed: *needed });
            }
        }
        keys::followed(self.context, story, self.shard, &self.head);
        let report = ShardReport {
            shard: self.shard,
            first: self.first,
            commits: next,
            tree,
            from: self.from,
            until: self.first.map(|_| self.head.time()),
            checkpoint,
            segments: self.objects.segments.len(),
            tiles: self.objects.tiles.len(),
        };
        story.gaps |= self.first.is_some_and(|first| first > 0);
        self.bases.finish(story).await?;
        self.cuts.finish().await?;
        self.tree.finish(checkpoint.map_or(0, |checkpoint| checkpoint.size)).await?;
        Ok(report)
    }
}

/// Compares a commit in `wal/` with what a segment has of it.
async fn compare(
    context: &Context,
    shard: u16,
    objects: &ShardObjects,
    seq: u64,
    time: Timestamp,
    bytes: Bytes,
) -> Result<()> {
    let listed = objects.has_commit(seq);
    let may_have_gone = may_have_gone(time, COMMITS_KEPT, context.now);
    let first = objects.first_commit();
    if !listed && may_have_gone && first.is_none_or(|first| seq < first) {
        return Ok(());
    }
    let path = Object::Commit { shard, seq }.path();
    let problem = match source::read(&*context.storage, &path, MAX_LEN as u64).await? {
        Read::Bytes(found) if found == bytes => return Ok(()),
        Read::Bytes(found) => match Commit::decode(&found) {
            Ok(_) => Problem::DiffersFromSegment,
            Err(error) => Problem::unreadable(&error),
        },
        Read::TooLarge => Problem::DiffersFromSegment,
        // Aged out since it was listed.
        Read::Gone if listed && may_have_gone => return Ok(()),
        Read::Gone if first < Some(seq) && first.is_some() => Problem::Missing("those before it are there"),
        Read::Gone => Problem::Missing("it is younger than 35 days"),
    };
    context.findings.wrong(&path, problem);
    Ok(())
}

/// The root of the tree of `size` leaves that lies within `commit`.
fn root_at(edge: &Frontier, commit: &Commit, size: u64) -> Option<Hash> {
    let count = usize::try_from(size.checked_sub(edge.size())?).ok()?;
    let mut frontier = edge.clone();
    commit.leaves().iter().take(count).for_each(|leaf| frontier.push(leaf.hash));
    (frontier.size() == size).then(|| frontier.root())
}
