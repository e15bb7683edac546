//! Which intents of a writer are open in the shard that it writes to.
//!
//! Separate from the committer, and pure: an owner says in each commit from where on something
//! is open, and a writer leaves a shard only if nothing of its own is.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::queue::Ticket;
use crate::audit::commit::{Line, Step};
use crate::id::RequestId;

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

    /// Whether `ticket` has an outcome whose intent is none of these.
    pub(super) fn lacks(&self, ticket: &Ticket) -> bool {
        let mut begun = HashSet::new();
        ticket.lines.iter().any(|line| match line.step {
            Some(Step::Begins(request)) => !begun.insert(request),
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
