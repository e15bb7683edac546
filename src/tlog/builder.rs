//! Tiles out of leaves.
//!
//! To go on writing a log's tiles, its right edge is enough: the partial tile of
//! each level, which the last writer left in the storage. Separate from reading,
//! which needs no state.
//!
//! Invariant: a builder holds fewer than 256 hashes a level, those that a tree of
//! its size has in partial tiles. What the storage gave us in their place was
//! hashed up to the root that the caller trusts.

use crate::merkle::{Frontier, Hash, TreeHead, root};

use super::tile::{HEIGHT, Tile, TileError, WIDTH};

/// The right edge of a tree, which cuts tiles of the leaves that it is given.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TileBuilder {
    size: u64,
    /// The hashes of the partial tile at each level, or none of them.
    levels: Vec<Vec<Hash>>,
}

impl TileBuilder {
    /// The edge of the empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The tiles that [`TileBuilder::resume`] asks for: the partial ones of the
    /// tree, at most 8.
    pub fn needed(size: u64) -> impl Iterator<Item = Tile> {
        Tile::partial(size)
    }

    /// The edge of the tree with `head`, from its partial tiles. `get` gives the
    /// hashes of a tile; where the partial tile is gone, those of the full one.
    ///
    /// # Errors
    /// [`TileError::Missing`] without a tile, and [`TileError::Mismatch`] if they
    /// do not make up the tree.
    pub fn resume<'a>(head: &TreeHead, get: impl Fn(&Tile) -> Option<&'a [Hash]>) -> Result<Self, TileError> {
        let mut levels = Vec::new();
        for tile in Self::needed(head.size) {
            levels.resize(usize::from(tile.level()), Vec::new());
            levels.push(look_up(&tile, &get)?.to_vec());
        }
        let builder = Self { size: head.size, levels };
        if builder.head() == *head { Ok(builder) } else { Err(TileError::Mismatch) }
    }

    /// Appends a leaf by its hash. Gives the tiles that it filled, lowest level
    /// first: mostly none.
    ///
    /// # Panics
    /// If there are 2^64 - 1 leaves already.
    pub fn push(&mut self, leaf: Hash) -> Vec<(Tile, Vec<Hash>)> {
        self.size = self.size.checked_add(1).expect("no log reaches 2^64 records");
        let mut full = Vec::new();
        let mut node = leaf;
        for (level, count) in counts(self.size) {
            let at = usize::from(level);
            if self.levels.len() == at {
                self.levels.push(Vec::new());
            }
            self.levels[at].push(node);
            if self.levels[at].len() < usize::from(WIDTH) {
                break;
            }
            let hashes = std::mem::take(&mut self.levels[at]);
            node = root(&hashes);
            let tile = Tile::new(level, (count >> HEIGHT) - 1, WIDTH).expect("a full tile of a tree");
            full.push((tile, hashes));
        }
        full
    }

    /// The partial tiles that the tree has now, lowest level first. Together with
    /// what [`TileBuilder::push`] gave, these are the tiles of
    /// [`Tile::between`], and some that were written before.
    pub fn partial(&self) -> impl Iterator<Item = (Tile, &[Hash])> {
        Tile::partial(self.size).map(|tile| (tile, self.levels[usize::from(tile.level())].as_slice()))
    }

    /// How many leaves the tree has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The size and the root of the tree.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        self.frontier().head()
    }

    /// The right edge in the form that has no tiles.
    #[must_use]
    pub fn frontier(&self) -> Frontier {
        let mut edge = Vec::new();
        for hashes in self.levels.iter().rev() {
            let mut rest = hashes.as_slice();
            while !rest.is_empty() {
                let (subtree, after) = rest.split_at(1 << rest.len().ilog2());
                edge.push(root(subtree));
                rest = after;
            }
        }
        Frontier::from_parts(self.size, edge).expect("a level has as many hashes as the size says")
    }
}

/// The levels of a tree, with how many hashes each has.
fn counts(size: u64) -> impl Iterator<Item = (u8, u64)> {
    (0..8).map(move |level| (level, super::tile::count(size, level)))
}

/// The hashes of a tile, or of the full one in its place.
pub(super) fn look_up<'a>(
    tile: &Tile,
    get: &impl Fn(&Tile) -> Option<&'a [Hash]>,
) -> Result<&'a [Hash], TileError> {
    let hashes = match get(tile) {
        None if !tile.is_full() => get(&tile.full()),
        found => found,
    };
    let hashes = hashes.ok_or(TileError::Missing(*tile))?;
    hashes.get(..usize::from(tile.width())).ok_or(TileError::Length)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::merkle::leaf_hash;

    pub(in super::super) type Tiles = BTreeMap<Tile, Vec<Hash>>;

    pub(in super::super) fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
    }

    /// All tiles that a log of these leaves ever had, written after each of `sizes`.
    pub(in super::super) fn tiles(leaves: &[Hash], sizes: &[usize]) -> Tiles {
        let mut tiles = Tiles::new();
        let mut builder = TileBuilder::new();
        let mut done = 0;
        for size in sizes {
            tiles.extend(leaves[done..*size].iter().flat_map(|leaf| builder.push(*leaf)));
            tiles.extend(builder.partial().map(|(tile, hashes)| (tile, hashes.to_vec())));
            done = *size;
        }
        tiles
    }

    pub(in super::super) fn from<'a>(tiles: &'a Tiles) -> impl Fn(&Tile) -> Option<&'a [Hash]> {
        |tile| tiles.get(tile).map(Vec::as_slice)
    }

    /// By the definition: c2sp.org/tlog-tiles, "Merkle Tree".
    fn defined(tile: &Tile, leaves: &[Hash]) -> Vec<Hash> {
        let span = 256_usize.pow(tile.level().into());
        let first = usize::try_from(tile.index()).unwrap() * 256;
        (first..first + usize::from(tile.width()))
            .map(|at| root(&leaves[at * span..(at + 1) * span]))
            .collect()
    }

    #[test]
    fn tiles_are_those_of_the_definition() {
        let all = leaves(70_000);
        for size in [0, 1, 2, 255, 256, 257, 511, 512, 1000, 65_535, 65_536, 65_537, 70_000] {
            let found = tiles(&all[..size], &[size]);
            let listed: BTreeSet<Tile> = Tile::all(size as u64).collect();
            assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), listed);
            for (tile, hashes) in &found {
                assert_eq!(hashes, &defined(tile, &all), "{tile} of {size}");
            }
        }
    }

    #[test]
    fn it_goes_on_where_another_stopped() {
        let all = leaves(66_000);
        let sizes = [0, 1, 200, 256, 300, 65_535, 65_536, 65_600, 66_000];
        let tiles = tiles(&all, &sizes);
        let mut whole = TileBuilder::new();
        for pair in sizes.windows(2) {
            let resumed = TileBuilder::resume(&whole.head(), from(&tiles));
            assert_eq!(resumed.as_ref().map(TileBuilder::head), Ok(whole.head()));
            let mut resumed = resumed.unwrap();
            for leaf in &all[pair[0]..pair[1]] {
                assert_eq!(whole.push(*leaf), resumed.push(*leaf));
            }
            assert!(whole.partial().eq(resumed.partial()));
            assert_eq!(whole.size(), pair[1] as u64);
            assert_eq!(whole.head().root, root(&all[..pair[1]]));
        }
        // Full tiles alone are enough for a tree that they cover.
        let full: Tiles = tiles.into_iter().filter(|(tile, _)| tile.is_full()).collect();
        let head = TreeHead { size: 300, root: root(&all[..300]) };
        let resumed = TileBuilder::resume(&head, from(&full)).unwrap();
        assert_eq!(resumed.head(), head);
    }

    #[test]
    fn it_does_not_go_on_from_other_tiles() {
        let all = leaves(300);
        let good = tiles(&all, &[300]);
        let head = TreeHead { size: 300, root: root(&all) };
        assert!(TileBuilder::resume(&head, from(&good)).is_ok());
        for tile in TileBuilder::needed(300) {
            let mut bad = good.clone();
            *bad.get_mut(&tile).unwrap().last_mut().unwrap() = Hash::ZERO;
            assert_eq!(TileBuilder::resume(&head, from(&bad)), Err(TileError::Mismatch));
            bad.get_mut(&tile).unwrap().pop();
            assert_eq!(TileBuilder::resume(&head, from(&bad)), Err(TileError::Length));
            bad.remove(&tile);
            let resumed = TileBuilder::resume(&head, from(&bad));
            assert_eq!(resumed, Err(TileError::Missing(tile)));
        }
        let other = TreeHead { root: Hash::ZERO, ..head };
        assert_eq!(TileBuilder::resume(&other, from(&good)), Err(TileError::Mismatch));
    }

    proptest! {
        #[test]
        fn it_is_the_frontier_of_the_same_leaves(count in 0..2000_u64) {
            let mut builder = TileBuilder::new();
            let mut frontier = Frontier::new();
            for leaf in leaves(count) {
                builder.push(leaf);
                frontier.push(leaf);
            }
            prop_assert_eq!(builder.frontier(), frontier);
        }
    }
}
