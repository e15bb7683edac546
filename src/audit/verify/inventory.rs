//! What lies on an audit storage, from its listing.
//!
//! Commits are listed last: what is derived from commits was written after
//! them, so that on a live log everything that the first list has is explained
//! by the second.
//!
//! Memory: 8 bytes a commit while they are listed, and a few more than that for
//! each tile, segment and pin.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use futures_util::stream::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::finding::{Findings, Problem};
use crate::audit::layout::{self, Object, SegmentName};
use crate::audit::voucher::Versioned;
use crate::error::{Error, Result};
use crate::id::CustomerId;
use crate::store::layout::read_probe;
use crate::store::store_error;
use crate::tlog::tile::TilePath;

/// Everything that was listed.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) shards: BTreeMap<u16, ShardObjects>,
    pub(super) pins: BTreeSet<(CustomerId, u64)>,
    /// Vouchers, each by what it is for and the number of the log's key.
    pub(super) vouchers: BTreeSet<(Versioned, u64, [u8; 32], u32)>,
    /// The log's keys of which there is a statement, by number.
    pub(super) keys: BTreeSet<u32>,
    /// Certificates, orders, the ends of epochs and saved heads.
    pub(super) papers: BTreeSet<Object>,
}

/// What was listed of one shard.
#[derive(Debug, Default)]
pub(super) struct ShardObjects {
    /// The numbers of its commits, in order and apart.
    pub(super) commits: Vec<RangeInclusive<u64>>,
    pub(super) segments: BTreeSet<SegmentName>,
    pub(super) tiles: BTreeSet<TilePath>,
    pub(super) checkpoint: bool,
    /// Of how many commits there are bases.
    pub(super) bases: BTreeSet<u64>,
    /// Of how many commits the bases are whose extracts were listed.
    pub(super) extracts: BTreeSet<u64>,
}

impl ShardObjects {
    /// Whether a commit was listed.
    pub(super) fn has_commit(&self, seq: u64) -> bool {
        let after = self.commits.partition_point(|range| *range.start() <= seq);
        after.checked_sub(1).is_some_and(|at| self.commits[at].contains(&seq))
    }

    /// The first commit that was listed.
    pub(super) fn first_commit(&self) -> Option<u64> {
        self.commits.first().map(|range| *range.start())
    }
}

/// Lists everything but the commits, and names what does not belong.
pub(super) async fn derived(storage: &dyn ObjectStore, findings: &Findings) -> Result<Inventory> {
    let mut inventory = Inventory::default();
    let top = storage.list_with_delimiter(None).await.map_err(failed)?;
    for object in top.objects {
        inventory.add(&object.location, findings);
    }
    let commits = layout::commits();
    for prefix in top.common_prefixes.iter().filter(|prefix| **prefix != commits) {
        let mut names = storage.list(Some(prefix));
        while let Some(object) = names.try_next().await.map_err(failed)? {
            inventory.add(&object.location, findings);
        }
    }
    Ok(inventory)
}

impl Inventory {
    /// Lists the commits.
    pub(super) async fn add_commits(&mut self, storage: &dyn ObjectStore, findings: &Findings) -> Result<()> {
        let mut numbers: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
        let mut names = storage.list(Some(&layout::commits()));
        while let Some(object) = names.try_next().await.map_err(failed)? {
            match Object::at(&object.location) {
                Some(Object::Commit { shard, seq }) => numbers.entry(shard).or_default().push(seq),
                _ => findings.wrong(&object.location, Problem::Stranger),
            }
        }
        for (shard, numbers) in numbers {
            self.shards.entry(shard).or_default().commits = ranges(numbers);
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, findings: &Findings) {
        match Object::at(path) {
            // One is read whether it is listed or not, the other is nothing that anybody relies on.
            Some(Object::Marker | Object::Watch { .. }) => {}
            Some(Object::Segment(name)) => {
                self.shards.entry(name.shard).or_default().segments.insert(name);
            }
            Some(Object::Checkpoint { shard }) => self.shards.entry(shard).or_default().checkpoint = true,
            Some(Object::Tile { shard, tile }) => {
                self.shards.entry(shard).or_default().tiles.insert(tile);
            }
            Some(Object::Pin { customer, version }) => {
                self.pins.insert((customer, version));
            }
            Some(Object::Voucher { of, version, hash, key }) => {
                self.vouchers.insert((of, version, hash, key));
            }
            Some(
                paper @ (Object::Certificate { .. }
                | Object::Order { .. }
                | Object::EpochEnd { .. }
                | Object::Head { .. }),
            ) => {
                self.papers.insert(paper);
            }
            Some(Object::KeyChange { number }) => {
                self.keys.insert(number);
            }
            Some(Object::Base { shard, commits }) => {
                self.shards.entry(shard).or_default().bases.insert(commits);
            }
            Some(Object::Extract { shard, commits }) => {
                self.shards.entry(shard).or_default().extracts.insert(commits);
            }
            // What the storage was tried with is nothing of the log's.
            None if read_probe(path).is_some() => {}
            Some(Object::Commit { .. }) | None => findings.wrong(path, Problem::Stranger),
        }
    }
}

/// The numbers as ranges.
fn ranges(mut numbers: Vec<u64>) -> Vec<RangeInclusive<u64>> {
    numbers.sort_unstable();
    let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(range) if number <= *range.end() => {}
            Some(range) if number - 1 == *range.end() => *range = *range.start()..=number,
            _ => ranges.push(number..=number),
        }
    }
    ranges
}

/// A storage that cannot be read, which is no finding.
pub(super) fn failed(error: object_store::Error) -> Error {
    store_error(error, "read the audit storage")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_ranges() {
        assert_eq!(ranges(vec![]), []);
        assert_eq!(ranges(vec![5, 1, 2, u64::MAX, 0]), [0..=2, 5..=5, u64::MAX..=u64::MAX]);
        let objects = ShardObjects { commits: ranges(vec![5, 1, 2]), ..ShardObjects::default() };
        let has: Vec<u64> = (0..8).filter(|seq| objects.has_commit(*seq)).collect();
        assert_eq!(has, [1, 2, 5]);
    }
}
