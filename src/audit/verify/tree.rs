//! The tiles and entry bundles of one shard, made again from its records and
//! compared with what is stored.
//!
//! Memory: the right edge of the tree, one bundle of entries and a few tiles on
//! their way, besides the names that were listed.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use object_store::path::Path;

use super::Context;
use super::finding::Problem;
use super::inventory::{ShardObjects, failed};
use super::source::{READ_AHEAD, Read, read};
use crate::audit::commit::Leaf;
use crate::audit::layout::Object;
use crate::error::Result;
use crate::merkle::{Hash, TreeHead, leaf_hash};
use crate::tlog::tile::{Bundle, Tile, TilePath, WIDTH};
use crate::tlog::{TileBuilder, TiledTree};

/// The largest entry bundle that is read, in bytes.
const MAX_BUNDLE: u64 = 256 * (2 + 65535);

/// Which tile, whatever its width: its level, or `None` for a bundle.
type Place = (Option<u8>, u64);

pub(super) struct Tree<'a> {
    context: &'a Context,
    shard: u16,
    objects: &'a ShardObjects,
    /// `None` where leaves are missing that no tile has.
    builder: Option<TileBuilder>,
    /// The entries of the bundle that is being filled; `None` where one is not
    /// known.
    entries: Vec<Option<Hash>>,
    /// Where the tiles and bundles are that were not come to yet, and how wide.
    waiting: BTreeMap<Place, Vec<u16>>,
    comparing: FuturesUnordered<BoxFuture<'a, Result<()>>>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(context: &'a Context, shard: u16, objects: &'a ShardObjects) -> Self {
        let mut waiting: BTreeMap<Place, Vec<u16>> = BTreeMap::new();
        for path in &objects.tiles {
            let (place, width) = match path {
                TilePath::Tile(tile) => ((Some(tile.level()), tile.index()), tile.width()),
                TilePath::Bundle(bundle) => ((None, bundle.index()), bundle.width()),
            };
            waiting.entry(place).or_default().push(width);
        }
        let builder = Some(TileBuilder::new());
        let comparing = FuturesUnordered::new();
        Self { context, shard, objects, builder, entries: Vec::new(), waiting, comparing }
    }

    /// How many leaves there must be for all that was listed at level 0.
    pub(super) fn listed_size(&self) -> u64 {
        let last = |path: &TilePath| match path {
            TilePath::Tile(tile) if tile.level() == 0 => {
                tile.index().saturating_mul(WIDTH.into()).saturating_add(tile.width().into())
            }
            TilePath::Bundle(bundle) => {
                bundle.index().saturating_mul(WIDTH.into()).saturating_add(bundle.width().into())
            }
            TilePath::Tile(_) => 0,
        };
        self.objects.tiles.iter().map(last).max().unwrap_or(0)
    }

    /// Appends a leaf, and compares what it completes.
    pub(super) fn push(&mut self, leaf: &Leaf) {
        self.push_hash(leaf.hash, Some(leaf.data));
    }

    fn push_hash(&mut self, hash: Hash, entry: Option<Hash>) {
        let Some(builder) = &mut self.builder else { return };
        let full = builder.push(hash);
        let size = builder.size();
        for (tile, hashes) in full {
            self.compare_tile(tile, &hashes);
        }
        self.entries.push(entry);
        if size.is_multiple_of(WIDTH.into()) {
            let entries = std::mem::take(&mut self.entries);
            self.compare_bundle(size / u64::from(WIDTH) - 1, &entries);
        }
    }

    /// Waits until few comparisons are under way.
    pub(super) async fn catch_up(&mut self) -> Result<()> {
        while self.comparing.len() > READ_AHEAD {
            self.comparing.try_next().await?;
        }
        Ok(())
    }

    /// Goes on to `head` with leaves from the stored tiles, because commits are
    /// missing. Gives the roots at those of `sizes`, in rising order, that lie on
    /// the way. If the tiles do not lead to `head`, no tile can be compared any
    /// more.
    pub(super) async fn fill(&mut self, head: &TreeHead, sizes: &[u64]) -> Result<Vec<(u64, Hash)>> {
        let mut roots = Vec::new();
        let Some(begin) = self.builder.as_ref().map(TileBuilder::size) else { return Ok(roots) };
        let mut index = begin / u64::from(WIDTH);
        let mut size = begin;
        while size < head.size {
            let Some(hashes) = stored_hashes(self.context, self.shard, self.objects, 0, index).await? else {
                break;
            };
            let entries = stored_entries(self.context, self.shard, self.objects, index).await?;
            let from = usize::try_from(size % u64::from(WIDTH)).expect("below the width");
            let more = usize::try_from(head.size - size).unwrap_or(usize::MAX);
            let got = hashes.len();
            for (at, hash) in hashes.into_iter().enumerate().skip(from).take(more) {
                let entry = entries.get(at).copied().filter(|entry| leaf_hash(entry.as_bytes()) == hash);
                self.push_hash(hash, entry);
                size += 1;
                if sizes.binary_search(&size).is_ok() {
                    let root = self.builder.as_ref().map(|builder| builder.head().root);
                    roots.extend(root.map(|root| (size, root)));
                }
            }
            self.catch_up().await?;
            if got < usize::from(WIDTH) {
                break;
            }
            index += 1;
        }
        if self.builder.as_ref().map(TileBuilder::head).as_ref() != Some(head) {
            self.give_up(begin);
            roots.clear();
        }
        Ok(roots)
    }

    /// Begins with a tree whose records were removed. Its tiles stand by themselves: those that
    /// lead to it are compared with it, and those of its beginning are not read.
    pub(super) async fn begin_at(&mut self, head: TreeHead) -> Result<()> {
        let found = self.stored(TileBuilder::needed(head.size)).await?;
        match TileBuilder::resume(&head, |tile| found.get(tile).map(Vec::as_slice)) {
            Ok(builder) => self.builder = Some(builder),
            Err(_) => return Ok(self.give_up(0)),
        }
        let entries =
            stored_entries(self.context, self.shard, self.objects, head.size / u64::from(WIDTH)).await?;
        let within = usize::try_from(head.size % u64::from(WIDTH)).expect("below the width");
        self.entries = (0..within).map(|at| entries.get(at).copied()).collect();
        let covered = |level: Option<u8>, index: u64| {
            let leaves = u64::from(WIDTH).checked_pow(u32::from(level.unwrap_or(0)) + 1);
            leaves.and_then(|leaves| leaves.checked_mul(index + 1)).is_some_and(|end| end <= head.size)
        };
        self.waiting.retain(|(level, index), _| !covered(*level, *index));
        Ok(())
    }

    /// The root of the first `size` leaves of a tree, by its tiles; `None` if they do not show it.
    pub(super) async fn old_root(&mut self, head: TreeHead, size: u64) -> Result<Option<Hash>> {
        let tree = TiledTree::new(head);
        let Ok(needed) = tree.consistency_tiles(size) else { return Ok(None) };
        let found = self.stored(needed).await?;
        let shown = tree.prove_consistency(size, |tile| found.get(tile).map(Vec::as_slice));
        Ok(shown.ok().map(|shown| shown.old.root))
    }

    /// The hashes of tiles, as far as they are stored.
    async fn stored(&mut self, tiles: impl IntoIterator<Item = Tile>) -> Result<BTreeMap<Tile, Vec<Hash>>> {
        let mut found = BTreeMap::new();
        for tile in tiles {
            let (context, shard, objects) = (self.context, self.shard, self.objects);
            let hashes = stored_hashes(context, shard, objects, tile.level(), tile.index()).await?;
            if let Some(hashes) = hashes.as_ref().and_then(|hashes| hashes.get(..tile.width().into())) {
                found.insert(tile, hashes.to_vec());
            }
        }
        Ok(found)
    }

    /// Whether the tree is this one.
    pub(super) fn is_at(&self, head: &TreeHead) -> bool {
        self.builder.as_ref().is_some_and(|builder| builder.head() == *head)
    }

    fn give_up(&mut self, from: u64) {
        if self.builder.take().is_some() && !self.objects.tiles.is_empty() {
            let path = Object::Checkpoint { shard: self.shard }.path();
            self.context.findings.note(&path, Problem::TilesUnchecked(from));
        }
    }

    fn compare_tile(&mut self, tile: Tile, hashes: &[Hash]) {
        for width in self.waiting.remove(&(Some(tile.level()), tile.index())).unwrap_or_default() {
            let stored = TilePath::Tile(Tile::new(tile.level(), tile.index(), width).expect("it was listed"));
            match hashes.get(..width.into()) {
                Some(hashes) => self.compare(stored, Tile::encode(hashes), 32),
                None => self.beyond(stored),
            }
        }
    }

    fn compare_bundle(&mut self, index: u64, entries: &[Option<Hash>]) {
        for width in self.waiting.remove(&(None, index)).unwrap_or_default() {
            let stored = TilePath::Bundle(Bundle::new(index, width).expect("it was listed"));
            let Some(entries) = entries.get(..width.into()) else {
                self.beyond(stored);
                continue;
            };
            // Of an entry that is not known, the stored one did not fit its leaf.
            let known = entries.iter().map(|entry| entry.unwrap_or(Hash::ZERO));
            let expected = Bundle::encode(known.map(|entry| *entry.as_bytes())).expect("entries are short");
            self.compare(stored, expected, 34);
        }
    }

    /// Compares a stored file with what it has to be, pieces of so many bytes
    /// side by side.
    fn compare(&mut self, tile: TilePath, expected: Vec<u8>, piece: usize) {
        let (context, shard, objects) = (self.context, self.shard, self.objects);
        self.comparing.push(Box::pin(compare(context, shard, objects, tile, expected, piece)));
    }

    fn beyond(&self, tile: TilePath) {
        let size = self.builder.as_ref().map_or(0, TileBuilder::size);
        let path = Object::Tile { shard: self.shard, tile }.path();
        self.context.findings.wrong(&path, Problem::Beyond(size));
    }

    /// Compares the partial tiles of the whole tree, and names what belongs to
    /// no tree of this log, and what the tree of the checkpoint, of `needed`
    /// records, has not.
    pub(super) async fn finish(mut self, needed: u64) -> Result<()> {
        if let Some(builder) = self.builder.clone() {
            let partial: Vec<_> = builder.partial().map(|(tile, hashes)| (tile, hashes.to_vec())).collect();
            for (tile, hashes) in partial {
                self.compare_tile(tile, &hashes);
            }
            let entries = std::mem::take(&mut self.entries);
            self.compare_bundle(builder.size() / u64::from(WIDTH), &entries);
            for ((level, index), widths) in std::mem::take(&mut self.waiting) {
                for width in widths {
                    self.beyond(match level {
                        Some(level) => TilePath::Tile(Tile::new(level, index, width).expect("it was listed")),
                        None => TilePath::Bundle(Bundle::new(index, width).expect("it was listed")),
                    });
                }
            }
        }
        while self.comparing.try_next().await?.is_some() {}
        let (context, shard, objects) = (self.context, self.shard, self.objects);
        let missing = Tile::all(needed)
            .map(|tile| (TilePath::Tile(tile), TilePath::Tile(tile.full())))
            .chain(
                Bundle::all(needed).map(|bundle| (TilePath::Bundle(bundle), TilePath::Bundle(bundle.full()))),
            )
            .filter(|(tile, full)| !objects.tiles.contains(tile) && !objects.tiles.contains(full));
        let mut missing = stream::iter(missing)
            .map(|(tile, full)| missing_at(context, shard, tile, full))
            .buffered(READ_AHEAD);
        while let Some(path) = missing.try_next().await? {
            let problem = Problem::Missing("the tree of the checkpoint has it");
            path.into_iter().for_each(|path| context.findings.wrong(&path, problem.clone()));
        }
        Ok(())
    }
}

async fn compare(
    context: &Context,
    shard: u16,
    objects: &ShardObjects,
    tile: TilePath,
    expected: Vec<u8>,
    piece: usize,
) -> Result<()> {
    let path = Object::Tile { shard, tile }.path();
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).expect("a length fits 64 bits");
    let problem = match read(&*context.storage, &path, MAX_BUNDLE).await? {
        Read::Bytes(found) if found == expected => return Ok(()),
        Read::Bytes(found) if found.len() != expected.len() => {
            Problem::Length { found: length(&found), expected: length(&expected) }
        }
        Read::Bytes(found) => {
            let differs = found.chunks(piece).zip(expected.chunks(piece)).position(|(a, b)| a != b);
            Problem::Entry(u64::try_from(differs.unwrap_or(0)).expect("below the width"))
        }
        Read::TooLarge => Problem::Unreadable("it is larger than a tile or a bundle can be".to_owned()),
        // A partial tile may go when the full one is there, or a wider one.
        Read::Gone if wider_is_there(context, shard, objects, tile).await? => return Ok(()),
        Read::Gone => Problem::Missing("it was listed"),
    };
    context.findings.wrong(&path, problem);
    Ok(())
}

/// The path of a tile that is not there, nor the full one in its place.
async fn missing_at(context: &Context, shard: u16, tile: TilePath, full: TilePath) -> Result<Option<Path>> {
    let path = Object::Tile { shard, tile }.path();
    let there = exists(context, &path).await?
        || tile != full && exists(context, &Object::Tile { shard, tile: full }.path()).await?;
    Ok((!there).then_some(path))
}

/// The hashes of the widest stored tile at `index` of a level that can be read.
async fn stored_hashes(
    context: &Context,
    shard: u16,
    objects: &ShardObjects,
    level: u8,
    index: u64,
) -> Result<Option<Vec<Hash>>> {
    for width in (1..=WIDTH).rev() {
        let tile = Tile::new(level, index, width).expect("a width of tiles");
        if !objects.tiles.contains(&TilePath::Tile(tile)) {
            continue;
        }
        let path = Object::Tile { shard, tile: TilePath::Tile(tile) }.path();
        if let Read::Bytes(bytes) = read(&*context.storage, &path, MAX_BUNDLE).await?
            && let Ok(hashes) = tile.decode(&bytes)
        {
            return Ok(Some(hashes));
        }
    }
    Ok(None)
}

/// The entries of the widest stored bundle at `index` that can be read.
async fn stored_entries(
    context: &Context,
    shard: u16,
    objects: &ShardObjects,
    index: u64,
) -> Result<Vec<Hash>> {
    for width in (1..=WIDTH).rev() {
        let bundle = Bundle::new(index, width).expect("a width of bundles");
        if !objects.tiles.contains(&TilePath::Bundle(bundle)) {
            continue;
        }
        let path = Object::Tile { shard, tile: TilePath::Bundle(bundle) }.path();
        if let Read::Bytes(bytes) = read(&*context.storage, &path, MAX_BUNDLE).await?
            && let Ok(entries) = bundle.decode(&bytes)
        {
            let hash = |entry: &[u8]| entry.try_into().map_or(Hash::ZERO, Hash::from_bytes);
            return Ok(entries.into_iter().map(hash).collect());
        }
    }
    Ok(Vec::new())
}

async fn wider_is_there(
    context: &Context,
    shard: u16,
    objects: &ShardObjects,
    tile: TilePath,
) -> Result<bool> {
    let (full, width) = match tile {
        TilePath::Tile(tile) => (TilePath::Tile(tile.full()), tile.width()),
        TilePath::Bundle(bundle) => (TilePath::Bundle(bundle.full()), bundle.width()),
    };
    let of_width = |width| match tile {
        TilePath::Tile(tile) => Tile::new(tile.level(), tile.index(), width).map(TilePath::Tile),
        TilePath::Bundle(bundle) => Bundle::new(bundle.index(), width).map(TilePath::Bundle),
    };
    let mut wider = (width + 1..WIDTH).filter_map(|width| of_width(width).ok());
    if wider.any(|wider| objects.tiles.contains(&wider)) {
        return Ok(true);
    }
    Ok(full != tile
        && (objects.tiles.contains(&full)
            || exists(context, &Object::Tile { shard, tile: full }.path()).await?))
}

/// Whether there is something at `path` now.
pub(super) async fn exists(context: &Context, path: &Path) -> Result<bool> {
    use object_store::ObjectStoreExt;
    match context.storage.head(path).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// The numbers of leaves, for binary search.
pub(super) fn sizes(sizes: impl Iterator<Item = u64>) -> Vec<u64> {
    sizes.collect::<BTreeSet<_>>().into_iter().collect()
}
