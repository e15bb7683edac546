//! Where the chain of each customer ends, so that the next record of a customer
//! can name the one before, whoever writes it and however long ago that was.
//!
//! Every commit lists the ends of the chains of the customers in its *span*:
//! itself and so many commits before it as make the lowest bit set in its
//! number, counted from 1 (a Fenwick tree). The spans of commit *n*, of the one
//! before *n*'s span and so on cover the whole shard, in as many commits as
//! there are bits set in *n*: a writer that starts reads these, at most 64, and
//! knows all. A span is joined from those before it as the right edge of a
//! Merkle tree is from its subtrees, and costs as little.
//!
//! Separate from the commit, and pure. Invariant: one node for each bit set in
//! the number of commits, the longest span first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::CustomerId;
use crate::merkle::Hash;

/// The end of one customer's chain in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainEnd {
    /// The customer.
    pub customer: CustomerId,
    /// How many records there are, which is the number of the last.
    pub records: u64,
    /// The leaf hash of the last.
    pub last: Hash,
}

/// The ends within one span of commits.
type Node = Arc<BTreeMap<CustomerId, ChainEnd>>;

/// The ends of all chains of a shard. Two are equal that say the same of every customer.
#[derive(Clone, Debug, Default)]
pub struct Chains {
    commits: u64,
    nodes: Vec<Node>,
}

impl PartialEq for Chains {
    fn eq(&self, other: &Self) -> bool {
        self.commits == other.commits && self.all() == other.all()
    }
}

impl Eq for Chains {}

impl Chains {
    /// Those of a shard without a commit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The numbers (from 0) of the commits that together list all chains of a
    /// shard of `commits`, the longest span first.
    #[must_use]
    pub fn listed_by(commits: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut rest = commits;
        while let Some(last) = rest.checked_sub(1) {
            numbers.push(last);
            // Without its lowest bit: what is before the span.
            rest &= last;
        }
        numbers.reverse();
        numbers
    }

    /// The chains of a shard of `commits`, from the lists of the commits that
    /// [`Chains::listed_by`] names, in its order. `None` if it is not one list
    /// for each of them.
    #[must_use]
    pub fn from_lists(commits: u64, lists: &[&[ChainEnd]]) -> Option<Self> {
        let nodes = lists.iter().map(|list| node(list)).collect::<Vec<_>>();
        (u32::try_from(nodes.len()) == Ok(commits.count_ones())).then_some(Self { commits, nodes })
    }

    /// How many commits they are the chains of.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// Where a customer's chain ends, `None` if it has no record.
    #[must_use]
    pub fn end(&self, customer: CustomerId) -> Option<ChainEnd> {
        // The newest span that knows the customer.
        self.nodes.iter().rev().find_map(|node| node.get(&customer)).copied()
    }

    /// All customers' ends, by customer.
    #[must_use]
    pub fn all(&self) -> BTreeMap<CustomerId, ChainEnd> {
        self.nodes.iter().flat_map(|node| node.iter()).map(|(customer, end)| (*customer, *end)).collect()
    }

    /// The next commit moved these ends.
    pub fn push(&mut self, moved: BTreeMap<CustomerId, ChainEnd>) {
        let mut span = moved;
        for _ in 0..self.commits.trailing_ones() {
            let older = self.nodes.pop().expect("there is one node for each bit set in the number");
            for (customer, end) in older.iter() {
                span.entry(*customer).or_insert(*end);
            }
        }
        self.nodes.push(Arc::new(span));
        self.commits += 1;
    }

    /// A list for each commit that [`Chains::listed_by`] names, in its order, for
    /// [`Chains::from_lists`]: what the commit lists, without the ends that a later one of them
    /// lists anew. These are never asked for again: a span is joined with all behind it first.
    #[must_use]
    pub fn lists(&self) -> Vec<Vec<ChainEnd>> {
        let mut seen = BTreeSet::new();
        let mut lists = Vec::new();
        for node in self.nodes.iter().rev() {
            let new = |end: &&ChainEnd| !seen.contains(&end.customer);
            let list: Vec<ChainEnd> = node.values().filter(new).copied().collect();
            seen.extend(list.iter().map(|end| end.customer));
            lists.push(list);
        }
        lists.reverse();
        lists
    }

    /// What the last commit lists: the ends in its span, by customer.
    #[must_use]
    pub fn list(&self) -> Vec<ChainEnd> {
        self.nodes.last().map(|node| node.values().copied().collect()).unwrap_or_default()
    }
}

fn node(list: &[ChainEnd]) -> Node {
    Arc::new(list.iter().map(|end| (end.customer, *end)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(customer: u8, records: u64) -> ChainEnd {
        let last = Hash::of(&[customer, u8::try_from(records % 251).unwrap()]);
        ChainEnd { customer: CustomerId::from_bytes([customer; 16]), records, last }
    }

    #[test]
    fn lists_of_few_commits_give_all_chains() {
        let mut chains = Chains::new();
        let mut lists: Vec<Vec<ChainEnd>> = Vec::new();
        let mut counts: BTreeMap<u8, u64> = BTreeMap::new();
        for commit in 0..600u64 {
            assert_eq!(chains.commits(), commit);
            // Customer 0 once and never again, 1 seldom, the others by turns.
            let seldom = if commit == 0 { 0 } else { 1 };
            let here = [if commit % 97 == 0 { seldom } else { 2 }, 3 + u8::try_from(commit % 7).unwrap()];
            let moved = here.map(|customer| {
                let count = counts.entry(customer).or_default();
                *count += 1;
                end(customer, *count)
            });
            chains.push(moved.into_iter().map(|end| (end.customer, end)).collect());
            lists.push(chains.list());

            let listed_by = Chains::listed_by(commit + 1);
            assert!(listed_by.is_sorted() && listed_by.last() == Some(&commit));
            let read: Vec<&[ChainEnd]> =
                listed_by.iter().map(|seq| lists[usize::try_from(*seq).unwrap()].as_slice()).collect();
            assert_eq!(Chains::from_lists(commit + 1, &read).as_ref(), Some(&chains));
            let lists = chains.lists();
            let mut again =
                Chains::from_lists(commit + 1, &lists.iter().map(Vec::as_slice).collect::<Vec<_>>());
            assert_eq!(again.as_ref(), Some(&chains));
            assert_eq!(lists.concat().len(), chains.all().len(), "each once");
            // What comes behind is listed alike.
            let (again, mut on) = (again.as_mut().unwrap(), chains.clone());
            for more in 0..20 {
                let moved =
                    BTreeMap::from([(CustomerId::from_bytes([3 + more % 7; 16]), end(3 + more % 7, 9000))]);
                again.push(moved.clone());
                on.push(moved);
                assert_eq!(again.list(), on.list());
            }
            assert_eq!(Chains::from_lists(commit + 1, &read[1..]), None);
            for (customer, count) in &counts {
                assert_eq!(
                    chains.end(CustomerId::from_bytes([*customer; 16])),
                    Some(end(*customer, *count)),
                    "{commit}"
                );
            }
            assert_eq!(chains.all().len(), counts.len());
        }
        assert_eq!(chains.end(CustomerId::from_bytes([99; 16])), None);
        assert_eq!(Chains::listed_by(0), Vec::<u64>::new());
        assert_eq!(Chains::listed_by(0b1011), [7, 9, 10]);
        assert_eq!(Chains::listed_by(u64::MAX).len(), 64);
    }
}
