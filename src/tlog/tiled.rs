//! Proofs out of tiles.
//!
//! Nothing is fetched here: a [`TiledTree`] says which tiles it takes, and makes
//! the proof when they are there. Separate from building, because whoever reads a
//! log has no part in writing it.
//!
//! Invariant: what is given out was checked against the head of the tree. Whoever
//! serves the tiles can leave them out, and can do no more.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::merkle::{Hash, TreeHead, node_hash, root, verify_consistency, verify_inclusion};

use super::builder::look_up;
use super::tile::{HEIGHT, Tile, TileError, WIDTH, count};

/// A tree that is known by its head, and otherwise there as tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TiledTree {
    head: TreeHead,
}

/// That a leaf is in a tree, at the index that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// The hash of the leaf.
    pub leaf: Hash,
    /// The audit path, nearest sibling first: RFC 6962 s2.1.1.
    pub path: Vec<Hash>,
}

/// That a tree begins with the leaves of a smaller one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consistency {
    /// The head of the smaller tree.
    pub old: TreeHead,
    /// The proof: RFC 6962 s2.1.2.
    pub proof: Vec<Hash>,
}

impl TiledTree {
    /// The tree with this head, which the caller trusts.
    #[must_use]
    pub const fn new(head: TreeHead) -> Self {
        Self { head }
    }

    /// Its head.
    #[must_use]
    pub const fn head(&self) -> &TreeHead {
        &self.head
    }

    /// The tiles that [`TiledTree::prove_inclusion`] takes, in order.
    ///
    /// # Errors
    /// [`TileError::OutOfRange`] if there is no such leaf.
    pub fn inclusion_tiles(&self, index: u64) -> Result<Vec<Tile>, TileError> {
        Ok(self.tiles(index..index + 1, self.inclusion_ranges(index)?))
    }

    /// The leaf with number `index`, and the proof of it. `get` gives the hashes
    /// of a tile; where a partial tile is gone, those of the full one.
    ///
    /// # Errors
    /// [`TileError::OutOfRange`] if there is no such leaf, [`TileError::Missing`]
    /// without a tile, and [`TileError::Length`] or [`TileError::Mismatch`] if they
    /// are not the tree's.
    pub fn prove_inclusion<'a>(
        &self,
        index: u64,
        get: impl Fn(&Tile) -> Option<&'a [Hash]>,
    ) -> Result<Inclusion, TileError> {
        let ranges = self.inclusion_ranges(index)?;
        let leaf = self.root_of(index..index + 1, &get)?;
        let path =
            ranges.into_iter().map(|range| self.root_of(range, &get)).collect::<Result<Vec<_>, _>>()?;
        verify_inclusion(leaf, index, &path, &self.head).map_err(|_| TileError::Mismatch)?;
        Ok(Inclusion { leaf, path })
    }

    /// The tiles that [`TiledTree::prove_consistency`] takes, in order.
    ///
    /// # Errors
    /// [`TileError::OutOfRange`] if the tree is smaller than `old_size`.
    pub fn consistency_tiles(&self, old_size: u64) -> Result<Vec<Tile>, TileError> {
        Ok(self.tiles(0..old_size, self.consistency_ranges(old_size)?))
    }

    /// The head of the tree of the first `old_size` leaves, and the proof that
    /// this one comes from it. `get` is as in [`TiledTree::prove_inclusion`].
    ///
    /// # Errors
    /// [`TileError::OutOfRange`] if the tree is smaller than `old_size`,
    /// otherwise as [`TiledTree::prove_inclusion`].
    pub fn prove_consistency<'a>(
        &self,
        old_size: u64,
        get: impl Fn(&Tile) -> Option<&'a [Hash]>,
    ) -> Result<Consistency, TileError> {
        let ranges = self.consistency_ranges(old_size)?;
        let old = TreeHead { size: old_size, root: self.root_of(0..old_size, &get)? };
        let proof =
            ranges.into_iter().map(|range| self.root_of(range, &get)).collect::<Result<Vec<_>, _>>()?;
        verify_consistency(&old, &self.head, &proof).map_err(|_| TileError::Mismatch)?;
        Ok(Consistency { old, proof })
    }

    /// The leaves under each hash of an audit path: RFC 6962 s2.1.1.
    fn inclusion_ranges(&self, index: u64) -> Result<Vec<Range<u64>>, TileError> {
        if index >= self.head.size {
            return Err(TileError::OutOfRange);
        }
        let mut ranges = Vec::new();
        let mut tree = 0..self.head.size;
        while tree.end - tree.start > 1 {
            let middle = split(&tree);
            if index < middle {
                ranges.push(middle..tree.end);
                tree.end = middle;
            } else {
                ranges.push(tree.start..middle);
                tree.start = middle;
            }
        }
        ranges.reverse();
        Ok(ranges)
    }

    /// The leaves under each hash of a consistency proof: RFC 6962 s2.1.2.
    fn consistency_ranges(&self, old_size: u64) -> Result<Vec<Range<u64>>, TileError> {
        if old_size > self.head.size {
            return Err(TileError::OutOfRange);
        }
        let mut ranges = Vec::new();
        if old_size == 0 {
            return Ok(ranges);
        }
        let mut tree = 0..self.head.size;
        while old_size != tree.end {
            let middle = split(&tree);
            if old_size <= middle {
                ranges.push(middle..tree.end);
                tree.end = middle;
            } else {
                ranges.push(tree.start..middle);
                tree.start = middle;
            }
        }
        // Where the old tree is one subtree, the verifier knows its root.
        if tree.start > 0 {
            ranges.push(tree);
        }
        ranges.reverse();
        Ok(ranges)
    }

    /// The tiles that the roots over all of these ranges are made of, each once.
    fn tiles(&self, range: Range<u64>, others: Vec<Range<u64>>) -> Vec<Tile> {
        let nodes = others.into_iter().chain(std::iter::once(range)).flat_map(perfect);
        let tiles: BTreeSet<Tile> = nodes.map(|node| self.place(&node).0).collect();
        tiles.into_iter().collect()
    }

    /// The root over a range of leaves that a split of the tree ends at.
    fn root_of<'a>(
        &self,
        range: Range<u64>,
        get: &impl Fn(&Tile) -> Option<&'a [Hash]>,
    ) -> Result<Hash, TileError> {
        let mut right: Option<Hash> = None;
        for node in perfect(range).iter().rev() {
            let (tile, within) = self.place(node);
            let left = root(&look_up(&tile, get)?[within]);
            right = Some(right.map_or(left, |right| node_hash(&left, &right)));
        }
        Ok(right.unwrap_or_else(|| root(&[])))
    }

    /// The tile that a node is in, and which of its hashes the node is over.
    fn place(&self, node: &Node) -> (Tile, Range<usize>) {
        let level = u8::try_from(node.height / HEIGHT).expect("a tree has at most 64 levels");
        let below = node.height % HEIGHT;
        // The node as hashes of its level.
        let first = node.index << below;
        let tile = first >> HEIGHT;
        let present = count(self.head.size, level) - (tile << HEIGHT);
        let width = u16::try_from(present).map_or(WIDTH, |present| present.min(WIDTH));
        let start = usize::try_from(first % u64::from(WIDTH)).expect("below the width");
        let tile = Tile::new(level, tile, width).expect("a tile with a node of the tree has that node");
        (tile, start..start + (1 << below))
    }
}

/// A perfect subtree: leaves `index << height .. (index + 1) << height`.
struct Node {
    height: u32,
    index: u64,
}

/// The perfect subtrees that a range of leaves is made of, from left to right.
/// It starts where a subtree at least as large starts, as all ranges of a proof do.
fn perfect(range: Range<u64>) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut start = range.start;
    while let Some(height) = (range.end - start).checked_ilog2() {
        nodes.push(Node { height, index: start >> height });
        start += 1 << height;
    }
    nodes
}

/// Where RFC 6962 s2.1 splits a tree of two leaves or more.
fn split(tree: &Range<u64>) -> u64 {
    tree.start + (1 << (tree.end - tree.start - 1).ilog2())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::builder::tests::{Tiles, from, leaves, tiles};
    use super::*;
    use crate::merkle::{prove_consistency, prove_inclusion};

    const LARGEST: usize = 70_000;

    fn tree(leaves: &[Hash]) -> TiledTree {
        TiledTree::new(TreeHead { size: leaves.len() as u64, root: root(leaves) })
    }

    fn check(leaves: &[Hash], tiles: &Tiles, at: usize) {
        let tree = tree(leaves);
        let number = at as u64;
        // With the tiles that it said it takes, and no other.
        let only = |listed: Vec<Tile>| {
            let some = |tile: Tile| tiles.get(&tile).map(|hashes| (tile, hashes.clone()));
            listed.into_iter().filter_map(some).collect::<Tiles>()
        };
        if at < leaves.len() {
            let few = only(tree.inclusion_tiles(number).unwrap());
            let inclusion = tree.prove_inclusion(number, from(&few)).unwrap();
            assert_eq!(inclusion.leaf, leaves[at]);
            assert_eq!(Some(inclusion.path), prove_inclusion(leaves, at));
        }
        let few = only(tree.consistency_tiles(number).unwrap());
        let consistency = tree.prove_consistency(number, from(&few)).unwrap();
        assert_eq!(consistency.old, TreeHead { size: number, root: root(&leaves[..at]) });
        assert_eq!(Some(consistency.proof), prove_consistency(leaves, at));
    }

    #[test]
    fn all_proofs_in_small_trees() {
        for size in 0..40 {
            let all = leaves(size);
            let all_tiles = tiles(&all, &[all.len()]);
            (0..=all.len()).for_each(|at| check(&all, &all_tiles, at));
        }
    }

    #[test]
    fn proofs_at_the_ends_of_tiles() {
        let all = leaves(LARGEST as u64);
        for size in [255, 256, 257, 511, 512, 513, 65_537, LARGEST] {
            let all = &all[..size];
            let all_tiles = tiles(all, &[size]);
            let ends = [0, 255, 256, 300, 65_536, size];
            ends.iter().filter(|at| **at <= size).for_each(|at| check(all, &all_tiles, *at));
        }
    }

    #[test]
    fn a_full_tile_does_for_a_partial_one() {
        let all = leaves(600);
        let grown: Tiles = tiles(&all, &[600]);
        let old = tree(&all[..500]);
        // The log has written over 500 since: level 0, tile 1 is full now.
        let partial = Tile::new(0, 1, 244).unwrap();
        assert!(old.inclusion_tiles(400).unwrap().contains(&partial));
        assert!(!grown.contains_key(&partial));
        // What is not full yet has to be there as it was.
        let above = Tile::new(1, 0, 1).unwrap();
        assert_eq!(old.prove_inclusion(400, from(&grown)), Err(TileError::Missing(above)));
        let full: Tiles = tiles(&all, &[500, 600]).into_iter().filter(|(tile, _)| *tile != partial).collect();
        assert_eq!(old.prove_inclusion(400, from(&full)).unwrap().leaf, all[400]);
    }

    #[test]
    fn tiles_of_another_tree_prove_nothing() {
        let all = leaves(600);
        let good = tiles(&all, &[600]);
        let tree = tree(&all);
        for tile in tree.inclusion_tiles(300).unwrap() {
            let mut bad = good.clone();
            for hash in bad.get_mut(&tile).unwrap() {
                *hash = Hash::ZERO;
            }
            assert_eq!(tree.prove_inclusion(300, from(&bad)), Err(TileError::Mismatch));
            bad.remove(&tile);
            assert_eq!(tree.prove_inclusion(300, from(&bad)), Err(TileError::Missing(tile)));
            bad.insert(tile, vec![]);
            assert_eq!(tree.prove_inclusion(300, from(&bad)), Err(TileError::Length));
        }
        for old in [1, 255, 256, 300, 512, 599, 600] {
            for tile in tree.consistency_tiles(old).unwrap() {
                let mut bad = good.clone();
                for hash in bad.get_mut(&tile).unwrap() {
                    *hash = Hash::ZERO;
                }
                assert_eq!(tree.prove_consistency(old, from(&bad)), Err(TileError::Mismatch), "{old} {tile}");
            }
        }
        assert_eq!(tree.prove_inclusion(600, from(&good)), Err(TileError::OutOfRange));
        assert_eq!(tree.inclusion_tiles(600), Err(TileError::OutOfRange));
        assert_eq!(tree.prove_consistency(601, from(&good)), Err(TileError::OutOfRange));
        assert_eq!(tree.consistency_tiles(601), Err(TileError::OutOfRange));
    }

    #[test]
    fn the_largest_tree_is_within_bounds() {
        let tree = TiledTree::new(TreeHead { size: u64::MAX, root: Hash::ZERO });
        let tiles = tree.inclusion_tiles(u64::MAX - 1).unwrap();
        assert_eq!(tiles.iter().map(Tile::level).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(tree.consistency_tiles(u64::MAX).unwrap().len(), 8);
        assert_eq!(tree.inclusion_tiles(0).unwrap().len(), 15);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_proof_is_that_of_the_leaves(size in 0..3000_u64, at in any::<prop::sample::Index>()) {
            let all = leaves(size);
            check(&all, &tiles(&all, &[all.len()]), at.index(all.len() + 1));
        }
    }
}
