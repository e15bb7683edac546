//! A shard's tiles and entry bundles on the storage: written as the tree grows,
//! and read for proofs.
//!
//! Separate from the publishing, which says when they are written and for which
//! tree. Nothing here is ever overwritten: equal sizes give equal bytes, so what
//! is found under a path has to be what would have been written.
//!
//! Invariants: a [`StoredTree`] gives out what was checked against its head; a
//! [`TileWriter`] goes on from tiles that hash to the root it was resumed at.
//! Whoever holds the storage can leave tiles out, and can do no more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use tokio::time::timeout;

use crate::audit::commit::Leaf;
use crate::audit::layout::Object;
use crate::audit::log::wal::request_within;
use crate::error::{Error, ErrorKind, Result};
use crate::merkle::{Hash, TreeHead, leaf_hash};
use crate::store::store_error;
use crate::tlog::tile::{Bundle, Tile, TileError, TilePath, WIDTH};
use crate::tlog::{Consistency, Inclusion, TileBuilder, TiledTree};

/// Tiles that are written, or read, at once.
const AT_ONCE: usize = 16;

/// The longest tile or bundle that is read, in bytes: 256 entries of 65535.
const MAX_LEN: u64 = 256 * (2 + 65535);

/// Where a shard's tiles are.
#[derive(Clone, Debug)]
pub(super) struct Tiles {
    pub(super) storage: Arc<dyn ObjectStore>,
    pub(super) shard: u16,
    /// For one request.
    pub(super) limit: Duration,
}

impl Tiles {
    fn path(&self, tile: TilePath) -> Path {
        Object::Tile { shard: self.shard, tile }.path()
    }

    async fn read(&self, tile: TilePath) -> Result<Option<Bytes>> {
        read(&*self.storage, &self.path(tile), self.limit, MAX_LEN).await
    }

    /// The hashes of these tiles, as far as they are there. In place of a partial
    /// tile that is gone stands the full one.
    async fn fetch(&self, tiles: impl IntoIterator<Item = Tile>) -> Result<BTreeMap<Tile, Vec<Hash>>> {
        let read = tiles.into_iter().map(|tile| async move {
            for tile in [tile, tile.full()] {
                if let Some(bytes) = self.read(TilePath::Tile(tile)).await? {
                    return Ok::<_, Error>(Some((tile, tile.decode(&bytes)?)));
                }
            }
            Ok(None)
        });
        let fetched = stream::iter(read).buffer_unordered(AT_ONCE);
        fetched.try_filter_map(|found| async move { Ok(found) }).try_collect().await
    }

    /// The entries of the partial bundle of a tree, `None` if it is gone.
    async fn partial_entries(&self, size: u64) -> Result<Option<Vec<Hash>>> {
        let width = usize::try_from(size % u64::from(WIDTH)).expect("below the width");
        let Some(bundle) = Bundle::between(size - size % u64::from(WIDTH), size).next() else {
            return Ok(Some(Vec::new()));
        };
        for bundle in [bundle, bundle.full()] {
            if let Some(bytes) = self.read(TilePath::Bundle(bundle)).await? {
                let entries = bundle.decode(&bytes)?.into_iter().take(width);
                let entries = entries.map(|entry| entry.try_into().map(Hash::from_bytes));
                let entries = entries.collect::<Result<_, _>>().map_err(|_| TileError::Bundle)?;
                return Ok(Some(entries));
            }
        }
        Ok(None)
    }
}

/// A tree whose tiles are on the storage.
#[derive(Clone, Debug)]
pub struct StoredTree {
    tiles: Tiles,
    tree: TiledTree,
}

impl StoredTree {
    /// The tree of a shard with this head, which the caller trusts, as it is published
    /// on `storage`. `limit` is for one request.
    #[must_use]
    pub fn on(storage: Arc<dyn ObjectStore>, shard: u16, limit: Duration, head: TreeHead) -> Self {
        Self::new(Tiles { storage, shard, limit }, head)
    }

    pub(super) fn new(tiles: Tiles, head: TreeHead) -> Self {
        Self { tiles, tree: TiledTree::new(head) }
    }

    /// Its size and root.
    #[must_use]
    pub fn head(&self) -> &TreeHead {
        self.tree.head()
    }

    /// The leaf with number `index`, and the proof of it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if there is no such leaf,
    /// [`ErrorKind::Integrity`] if a tile is missing or not the tree's,
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn inclusion(&self, index: u64) -> Result<Inclusion> {
        let tiles = self.tiles.fetch(self.tree.inclusion_tiles(index)?).await?;
        Ok(self.tree.prove_inclusion(index, |tile| tiles.get(tile).map(Vec::as_slice))?)
    }

    /// The tree of the first `old_size` leaves, and the proof that this one comes
    /// from it.
    ///
    /// # Errors
    /// As [`StoredTree::inclusion`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn consistency(&self, old_size: u64) -> Result<Consistency> {
        let tiles = self.tiles.fetch(self.tree.consistency_tiles(old_size)?).await?;
        Ok(self.tree.prove_consistency(old_size, |tile| tiles.get(tile).map(Vec::as_slice))?)
    }

    /// Checks that it comes from the tree with head `old`.
    pub(super) async fn continues(&self, old: &TreeHead) -> Result<()> {
        if old.size <= self.head().size && self.consistency(old.size).await?.old == *old {
            return Ok(());
        }
        let sentence = "a checkpoint of the audit log was signed that the log does not continue";
        Err(Error::new(ErrorKind::Integrity, sentence))
    }
}

/// Writes the tiles of a tree while it grows.
pub(super) struct TileWriter {
    tiles: Tiles,
    builder: TileBuilder,
    /// Those of the partial bundle.
    entries: Vec<Hash>,
    writes: FuturesUnordered<BoxFuture<'static, Result<()>>>,
}

impl TileWriter {
    /// From the empty tree.
    pub(super) fn new(tiles: Tiles) -> Self {
        Self { tiles, builder: TileBuilder::new(), entries: Vec::new(), writes: FuturesUnordered::new() }
    }

    /// From the tree with this head; `None` if one of its partial tiles is gone.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if they are there and not the tree's.
    pub(super) async fn resume(tiles: Tiles, head: &TreeHead) -> Result<Option<Self>> {
        let found = tiles.fetch(TileBuilder::needed(head.size)).await?;
        let builder = match TileBuilder::resume(head, |tile| found.get(tile).map(Vec::as_slice)) {
            Err(TileError::Missing(_)) => return Ok(None),
            builder => builder?,
        };
        let Some(entries) = tiles.partial_entries(head.size).await? else { return Ok(None) };
        let leaves = builder.partial().find(|(tile, _)| tile.level() == 0);
        let leaves = leaves.map_or(&[][..], |(_, leaves)| leaves);
        if !entries.iter().map(|entry| leaf_hash(entry.as_bytes())).eq(leaves.iter().copied()) {
            return Err(TileError::Mismatch.into());
        }
        Ok(Some(Self { builder, entries, ..Self::new(tiles) }))
    }

    /// How many leaves the tree has.
    pub(super) fn size(&self) -> u64 {
        self.builder.size()
    }

    /// Appends a leaf. Writes of full tiles are begun, and waited for where there
    /// are too many.
    pub(super) async fn push(&mut self, leaf: &Leaf) -> Result<()> {
        self.entries.push(leaf.data);
        if self.entries.len() == usize::from(WIDTH) {
            let bundle = Bundle::new(self.size() / u64::from(WIDTH), WIDTH)?;
            let entries = std::mem::take(&mut self.entries);
            self.write(TilePath::Bundle(bundle), Bundle::encode(entries.iter().map(Hash::as_bytes))?);
        }
        for (tile, hashes) in self.builder.push(leaf.hash) {
            self.write(TilePath::Tile(tile), Tile::encode(&hashes));
        }
        while self.writes.len() >= AT_ONCE {
            self.writes.try_next().await?;
        }
        Ok(())
    }

    /// Writes the partial tiles too. When it returns, all tiles of the tree are
    /// durable that were not before.
    pub(super) async fn finish(mut self) -> Result<TreeHead> {
        let partial: Vec<_> =
            self.builder.partial().map(|(tile, hashes)| (tile, Tile::encode(hashes))).collect();
        for (tile, bytes) in partial {
            self.write(TilePath::Tile(tile), bytes);
        }
        if let Ok(width @ 1..) = u16::try_from(self.entries.len()) {
            let bundle = Bundle::new(self.size() / u64::from(WIDTH), width)?;
            let bytes = Bundle::encode(self.entries.iter().map(Hash::as_bytes))?;
            self.write(TilePath::Bundle(bundle), bytes);
        }
        while self.writes.try_next().await?.is_some() {}
        Ok(self.builder.head())
    }

    fn write(&self, tile: TilePath, bytes: Vec<u8>) {
        let (tiles, path) = (self.tiles.clone(), self.tiles.path(tile));
        let write = async move { create_same(&*tiles.storage, &path, bytes.into(), tiles.limit).await };
        self.writes.push(write.boxed());
    }
}

/// Puts `bytes` at `path`, where nothing else may ever stand. Durable when it
/// returns.
///
/// # Errors
/// [`ErrorKind::Integrity`] if something else stands there,
/// [`ErrorKind::AuditUnavailable`]; then it may be stored or not.
async fn create_same(storage: &dyn ObjectStore, path: &Path, bytes: Bytes, limit: Duration) -> Result<()> {
    let put = storage.put_opts(path, bytes.clone().into(), PutMode::Create.into());
    match timeout(limit, put).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(object_store::Error::AlreadyExists { .. })) => {}
        Ok(Err(error)) => return Err(unwritten().with_source(store_error(error, "store an object"))),
        Err(elapsed) => return Err(unwritten().with_source(elapsed)),
    }
    match read(storage, path, limit, MAX_LEN).await? {
        Some(found) if found == bytes => Ok(()),
        Some(_) => {
            let sentence = "a tile of the audit log is not the one that its commits give";
            Err(Error::new(ErrorKind::Integrity, sentence))
        }
        // Taken and not there: the storage is of two minds.
        None => Err(unwritten()),
    }
}

/// The error of a write to the audit storage that failed, or may have.
pub(super) fn unwritten() -> Error {
    Error::new(ErrorKind::AuditUnavailable, "the audit storage could not be written")
}

/// The object at `path`, of `most` bytes at most; `None` if there is none.
pub(super) async fn read(
    storage: &dyn ObjectStore,
    path: &Path,
    limit: Duration,
    most: u64,
) -> Result<Option<Bytes>> {
    let read = async {
        let got = storage.get(path).await?;
        // The storage's word on the size is believed before it fills memory.
        if got.meta.size > most { Ok(None) } else { Ok(Some(got.bytes().await?)) }
    };
    match request_within(limit, read).await? {
        Some(None) => {
            let sentence = "an object of the audit log is larger than it can be";
            Err(Error::new(ErrorKind::Integrity, sentence))
        }
        found => Ok(found.flatten()),
    }
}
