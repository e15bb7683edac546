//! Which intents are open: a writer's own in the shard that it writes to ([`OpenHere`]), and
//! everybody's by what commits hold ([`LeftOpen`]).
//!
//! Separate from the committer, and pure: an owner says in each commit from where on something
//! is open, and a writer leaves a shard only if nothing of its own is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::audit::Event;
use crate::audit::commit::{Commit, Line, Step};
use crate::id::{CustomerId, RequestId, WriterId};

/// This writer's open intents in one shard.
#[derive(Debug, Default)]
pub(super) struct OpenHere {
    /// In which commit each is.
    requests: HashMap<RequestId, u64>,
    /// How many there are in each commit that has some.
    counts: BTreeMap<u64, u64>,
}

impl OpenHere {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The writer's commit `seq` with these lines is stored.
    pub(super) fn take<'a>(&mut self, seq: u64, lines: impl Iterator<Item = &'a Line>) {
        for line in lines {
            match line.step {
                Some(Step::Begins(request)) => {
                    self.requests.insert(request, seq);
                    *self.counts.entry(seq).or_default() += 1;
                }
                Some(Step::Ends(request)) => {
                    if let Some(seq) = self.requests.remove(&request) {
                        take_one(&mut self.counts, seq);
                    }
                }
                None => {}
            }
        }
    }

    /// Below which number all are settled once `lines` are in commit `seq`.
    pub(super) fn settled_by<'a>(&self, seq: u64, lines: impl Iterator<Item = &'a Line>) -> u64 {
        let mut counts = self.counts.clone();
        let mut begun = HashSet::new();
        for line in lines {
            match line.step {
                Some(Step::Begins(request)) => {
                    begun.insert(request);
                }
                Some(Step::Ends(request)) => {
                    if !begun.remove(&request)
                        && let Some(seq) = self.requests.get(&request)
                    {
                        take_one(&mut counts, *seq);
                    }
                }
                None => {}
            }
        }
        let here = if begun.is_empty() { seq + 1 } else { seq };
        counts.first_key_value().map_or(here, |(first, _)| *first)
    }

    /// Whether one of `lines` is an outcome whose intent is not here and not before it.
    pub(super) fn lacks<'a>(&self, mut lines: impl Iterator<Item = &'a Line>) -> bool {
        let mut begun = HashSet::new();
        lines.any(|line| match line.step {
            Some(Step::Begins(request)) => {
                begun.insert(request);
                false
            }
            Some(Step::Ends(request)) => !begun.contains(&request) && !self.requests.contains_key(&request),
            None => false,
        })
    }
}

fn take_one(counts: &mut BTreeMap<u64, u64>, seq: u64) {
    if let Some(count) = counts.get_mut(&seq) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&seq);
        }
    }
}

/// What commits leave open.
#[derive(Default)]
pub(super) struct LeftOpen {
    pub(super) intents: BTreeMap<RequestId, OpenSince>,
    /// The number of each writer's last commit.
    pub(super) last: BTreeMap<WriterId, u64>,
}

/// An intent that has no outcome, and the commit that it is in.
pub(super) struct OpenSince {
    pub(super) writer: WriterId,
    pub(super) customer: Option<CustomerId>,
    pub(super) seq: u64,
}

impl LeftOpen {
    /// The next commit.
    pub(super) fn follow(&mut self, commit: &Commit) {
        let (seq, writer) = (commit.header().seq, commit.header().writer);
        self.last.insert(writer, seq);
        let mut fenced = BTreeSet::new();
        for record in commit.records() {
            match &record.event {
                Event::Intent(intent) => {
                    let since = OpenSince { writer, customer: intent.customer, seq };
                    self.intents.insert(intent.request, since);
                }
                Event::Outcome(outcome) => {
                    self.intents.remove(&outcome.request);
                }
                Event::Fence(fence) => {
                    fenced.insert(fence.writer);
                }
                _ => {}
            }
        }
        self.intents.retain(|_, since| !fenced.contains(&since.writer));
    }
}
