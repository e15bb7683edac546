//! What the records of a shard say to each other: intents and outcomes, fenced
//! writers, the shards that the first one names, and views.
//!
//! Separate from the walk, which sees to it that commits follow from each other;
//! a log whose commits do can still tell a false story, if its writers were not
//! ours.
//!
//! Memory: 16 bytes and some for every request there ever was, so that none is
//! begun twice; besides that, what is open.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use object_store::path::Path;

use super::Context;
use super::finding::{Problem, RecordProblem};
use crate::audit::base::{Base, OpenIntent};
use crate::audit::commit::{Commit, Header};
use crate::audit::head::Head;
use crate::audit::layout::{FIRST_SHARD, Object};
use crate::audit::voucher::Versioned;
use crate::audit::{BaseRef, Event, Intent, Outcome, OutcomeResult, RingRef, ShardHead, View, ViewShard};
use crate::id::{CustomerId, RequestId, WriterId};
use crate::merkle::{Hash, TreeHead};
use crate::time::Timestamp;

/// How many commits of others there may be between the look at a shard and the
/// view that tells of it.
const RECENT: usize = 1024;

/// Which record: its shard, its commit, its line there and its leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) shard: u16,
    pub(super) seq: u64,
    pub(super) line: u64,
    pub(super) leaf: u64,
}

impl At {
    pub(super) fn path(self) -> Path {
        Object::Commit { shard: self.shard, seq: self.seq }.path()
    }

    /// Names the record as wrong.
    pub(super) fn wrong(self, context: &Context, problem: RecordProblem) {
        let Self { line, leaf, .. } = self;
        context.findings.wrong(&self.path(), Problem::Record { line, leaf, problem });
    }
}

/// A tree of which someone said that a log had it.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) head: TreeHead,
    pub(super) by: Claimant,
}

/// Who said so.
#[derive(Clone, Debug)]
pub(super) enum Claimant {
    /// The checkpoint that is stored.
    Checkpoint,
    /// A checkpoint that was kept elsewhere.
    Pinned,
    /// A certificate or another paper, in its proofs.
    Paper(Object),
    /// A record of the first shard.
    Head(At),
    /// A view, which also says what of it is the customer's.
    View(At, CustomerId, u64, Hash),
}

/// What all shards have in common.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// Every request that was begun.
    requests: HashSet<RequestId>,
    /// The shards that were named so far.
    pub(super) named: BTreeMap<u16, Named>,
    /// What is said of the trees of other shards.
    pub(super) claimed: BTreeMap<u16, Vec<Claimed>>,
    /// Views that do not list a shard that was named, with their times: it must
    /// have had no records then.
    pub(super) absent: BTreeMap<u16, Vec<(At, Timestamp)>>,
    /// The versions on the keys storage that intents name.
    pub(super) versions: HashMap<(Versioned, u64), Vec<RingRef>>,
    /// Their writes that ended well.
    pub(super) written: Vec<(At, RequestId, Versioned, RingRef)>,
    /// The log's key under which the first shard is at its end, and since when.
    pub(super) key: Option<(u32, Timestamp)>,
    /// The time of the first shard's newest change of the key.
    pub(super) key_since: Option<Timestamp>,
    /// The keys whose statements records named and were looked for.
    pub(super) sought_keys: BTreeSet<u32>,
    /// Whether commits were missing or damaged anywhere, or were removed.
    pub(super) gaps: bool,
    /// What is on record of bases, and since when, by shard and number of commits.
    pub(super) bases: BTreeMap<(u16, u64), Vec<Said>>,
    /// The bases that stand for commits which may be missing.
    pub(super) removed: Vec<BaseRef>,
}

/// Which record says what a base is, and since when.
pub(super) type Said = (At, Timestamp, BaseRef);

/// What the first shard has said of another so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Named {
    /// The log's key under which it was named: it begins under no earlier one.
    pub(super) key: u32,
    /// Which leaf said first that it had any.
    grown: Option<u64>,
}

impl Story {
    /// Whether there is an intent of this request.
    pub(super) fn was_begun(&self, request: RequestId) -> bool {
        self.requests.contains(&request)
    }
}

/// An intent without an outcome so far.
#[derive(Debug)]
struct Open {
    seq: u64,
    writer: WriterId,
    customer: Option<CustomerId>,
    /// The version that it writes.
    wrote: Option<(Versioned, RingRef)>,
}

/// The records of one shard, up to where the walk has come.
pub(super) struct Records<'a> {
    context: &'a Context,
    shard: u16,
    open: HashMap<RequestId, Open>,
    /// How many open intents there are in each commit that has some.
    open_in: BTreeMap<u64, u64>,
    fenced: HashSet<WriterId>,
    /// Whether commits are missing: an outcome's intent may be in one.
    gap: bool,
    /// Where the first shard stood lately, for views.
    recent: VecDeque<Head>,
}

impl<'a> Records<'a> {
    pub(super) fn new(context: &'a Context, shard: u16) -> Self {
        Self {
            context,
            shard,
            open: HashMap::new(),
            open_in: BTreeMap::new(),
            fenced: HashSet::new(),
            gap: false,
            recent: VecDeque::new(),
        }
    }

    /// Begins behind a base.
    pub(super) fn start(&mut self, story: &mut Story, base: &Base) {
        let header = base.header();
        for open in &header.open {
            story.requests.insert(open.request);
            let OpenIntent { request, seq, writer, customer } = *open;
            self.open.insert(request, Open { seq, writer, customer, wrote: None });
            *self.open_in.entry(seq).or_default() += 1;
        }
        story.named.extend(header.named.iter().map(|shard| (*shard, Named::default())));
        // Said before all that is read now.
        story
            .named
            .extend(header.used.iter().map(|shard| (*shard, Named { grown: Some(0), ..Named::default() })));
    }

    /// Commits are missing here: what is open may have been closed in them.
    pub(super) fn gap(&mut self) {
        self.gap = true;
        self.open.clear();
        self.open_in.clear();
    }

    /// Takes the records of the next commit, which stands behind `before`.
    pub(super) fn take(&mut self, story: &mut Story, before: Option<&Head>, commit: &Commit) {
        let header = commit.header();
        if let (FIRST_SHARD, Some(before)) = (self.shard, before) {
            self.recent.truncate(RECENT - 1);
            self.recent.push_front(before.clone());
        }
        let path = Object::Commit { shard: self.shard, seq: header.seq }.path();
        let key = header.endorser(&self.context.authority).unwrap_or_default();
        if self.fenced.contains(&header.writer) {
            self.context.findings.wrong(&path, Problem::Fenced(header.writer));
        }
        let fences = commit.records().iter().filter_map(|record| match &record.event {
            Event::Fence(fence) => Some(fence.writer),
            _ => None,
        });
        let fences: Vec<WriterId> = fences.collect();
        self.fenced.extend(&fences);
        for (index, record) in (0u64..).zip(commit.records()) {
            let at =
                At { shard: self.shard, seq: header.seq, line: index + 3, leaf: header.old.size + index };
            match &record.event {
                Event::Intent(intent) => self.intent(story, at, record.writer, intent),
                Event::Outcome(outcome) => self.outcome(story, at, record.writer, outcome),
                Event::Shard(head) => self.shard_head(story, at, *head, key),
                Event::View(view) => self.view(story, at, record.time, view),
                Event::Key(_) if self.shard == FIRST_SHARD => story.key_since = Some(header.time),
                Event::Base(base) => {
                    if self.is_first(at) {
                        let said = (at, record.time, *base);
                        story.bases.entry((base.shard, base.commits)).or_default().push(said);
                    }
                }
                Event::Removal(base) => {
                    if self.is_first(at) {
                        story.removed.push(*base);
                    }
                }
                Event::Alive | Event::Fence(_) | Event::Claim | Event::Release | Event::Key(_) => {}
            }
        }
        for fenced in fences {
            if self.open.values().any(|open| open.writer == fenced) {
                self.context.findings.wrong(&path, Problem::FencedOpen(fenced));
            }
        }
        self.check_settled(header, &path);
    }

    /// Whether the first shard stood like this not long ago. The writer of a view
    /// looks first, and others may write before the view is in its place.
    fn was_true(&self, customer: CustomerId, said: &ViewShard) -> bool {
        let stood = self.recent.iter().find(|head| head.tree().size == said.tree.size);
        stood.is_some_and(|head| {
            let end = head.chains().and_then(|chains| chains.end(customer));
            let end = end.map_or((0, Hash::ZERO), |end| (end.records, end.last));
            head.tree() == said.tree && (head.chains().is_none() || end == (said.records, said.last))
        })
    }

    fn check_settled(&self, header: &Header, path: &Path) {
        if let Some((open, _)) = self.open_in.first_key_value()
            && *open < header.settled
        {
            let problem = Problem::NotSettled { settled: header.settled, open: *open };
            self.context.findings.wrong(path, problem);
        }
    }

    fn intent(&mut self, story: &mut Story, at: At, writer: WriterId, intent: &Intent) {
        let request = intent.request;
        if !story.requests.insert(request) {
            at.wrong(self.context, RecordProblem::SecondIntent(request));
            return;
        }
        let of = Versioned::written_by(intent);
        if let (Some(of), Some(version)) = (of, intent.ring) {
            story.versions.entry((of, version.version)).or_default().push(version);
        }
        let wrote = of.zip(intent.ring);
        self.open.insert(request, Open { seq: at.seq, writer, customer: intent.customer, wrote });
        *self.open_in.entry(at.seq).or_default() += 1;
    }

    fn outcome(&mut self, story: &mut Story, at: At, writer: WriterId, outcome: &Outcome) {
        let request = outcome.request;
        let Some(open) = self.open.remove(&request) else {
            if !story.requests.contains(&request) {
                if !self.gap {
                    at.wrong(self.context, RecordProblem::NoIntent(request));
                }
            } else if !self.gap {
                at.wrong(self.context, RecordProblem::SecondOutcome(request));
            }
            return;
        };
        if let Some(count) = self.open_in.get_mut(&open.seq) {
            *count -= 1;
            if *count == 0 {
                self.open_in.remove(&open.seq);
            }
        }
        if open.customer != outcome.customer {
            at.wrong(self.context, RecordProblem::OtherCustomer(request));
        }
        if open.writer != writer && !self.fenced.contains(&open.writer) {
            at.wrong(self.context, RecordProblem::OtherWriter(request));
        }
        if let (Some((of, version)), OutcomeResult::Ok) = (open.wrote, outcome.result) {
            story.written.push((at, request, of, version));
        }
    }

    /// Whether it is the first shard that says it; otherwise that is named.
    fn is_first(&self, at: At) -> bool {
        if self.shard != FIRST_SHARD {
            at.wrong(self.context, RecordProblem::OutsideFirstShard);
        }
        self.shard == FIRST_SHARD
    }

    fn shard_head(&self, story: &mut Story, at: At, named: ShardHead, key: u32) {
        let ShardHead { shard, tree } = named;
        if shard == FIRST_SHARD {
            at.wrong(self.context, RecordProblem::OutsideFirstShard);
            return;
        }
        if !self.is_first(at) {
            return;
        }
        if tree.size > 0 && !self.gap && !story.named.contains_key(&shard) {
            at.wrong(self.context, RecordProblem::ShardNotOpened(shard));
        }
        // A smaller tree than before is no fault: of two who look, the first may be
        // the second to say it.
        // Where it was named first is known only if it had no records then.
        let key = if tree.size == 0 { key } else { 0 };
        let named = story.named.entry(shard).or_insert(Named { key, grown: None });
        if tree.size > 0 {
            named.grown.get_or_insert(at.leaf);
        }
        let claimed = Claimed { head: tree, by: Claimant::Head(at) };
        story.claimed.entry(shard).or_default().push(claimed);
    }

    fn view(&self, story: &mut Story, at: At, time: Timestamp, view: &View) {
        if !self.is_first(at) {
            return;
        }
        if !self.gap && !lists_all(story, view) {
            at.wrong(self.context, RecordProblem::ViewShards);
        }
        for shard in
            story.named.keys().filter(|shard| view.shards.iter().all(|listed| listed.shard != **shard))
        {
            story.absent.entry(*shard).or_default().push((at, time));
        }
        for shard in &view.shards {
            if shard.shard == FIRST_SHARD {
                if !self.gap && !self.was_true(view.customer, shard) {
                    at.wrong(self.context, RecordProblem::ViewRecords(FIRST_SHARD));
                }
                continue;
            }
            let by = Claimant::View(at, view.customer, shard.records, shard.last);
            story.claimed.entry(shard.shard).or_default().push(Claimed { head: shard.tree, by });
        }
    }
}

/// Whether a view lists the first shard, all others that had records where it
/// stood there, and none that was not named.
fn lists_all(story: &Story, view: &View) -> bool {
    let Some(stood) = view.shards.first().filter(|shard| shard.shard == FIRST_SHARD) else { return false };
    let listed: BTreeSet<u16> = view.shards.iter().skip(1).map(|shard| shard.shard).collect();
    let mut grown =
        story.named.iter().filter(|(_, named)| named.grown.is_some_and(|leaf| leaf < stood.tree.size));
    view.shards.is_sorted_by(|a, b| a.shard < b.shard)
        && listed.iter().all(|shard| story.named.contains_key(shard))
        && grown.all(|(shard, _)| listed.contains(shard))
}
