//! A shard of a log that grows by as many records as a test wants, and an
//! independent look at what is published of it.
//!
//! Use it with `#[path = "common/shard.rs"] mod shard;`.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::collections::HashMap;
use std::mem::forget;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use futures_util::stream::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::commit::Leaf;
use strongroom::audit::layout::{self, Object};
use strongroom::audit::log::{Log, LogConfig};
use strongroom::audit::publish::Publisher;
use strongroom::audit::{Action, Intent};
use strongroom::id::{CustomerId, StoreId};
use strongroom::merkle::{Hash, TreeHead, root, verify_consistency, verify_inclusion};
use strongroom::store::StorageClock;
use strongroom::system::SystemEntropy;
use strongroom::time::{Clock, Timestamp};
use strongroom::tlog::checkpoint::SignedCheckpoint;
use strongroom::tlog::tile::{Bundle, Tile, TilePath};
use tlog_tiles::{TileHashReader, TileReader, tlog};

#[path = "signer.rs"]
mod signer;
pub use signer::{authority, signer};

pub type Storage = Arc<dyn ObjectStore>;

pub const STORE: StoreId = StoreId::from_bytes([7; 16]);

/// Far above what any step takes.
pub const LONG: Duration = Duration::from_secs(60);

pub const DAY: Duration = Duration::from_secs(86_400);

/// 2026-11-22 at noon, and on from there as it is told.
#[derive(Debug)]
pub struct Hand(AtomicU64);

impl Hand {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_795_348_800_000_000)))
    }

    pub fn pass(&self, span: Duration) {
        self.0.fetch_add(u64::try_from(span.as_micros()).unwrap(), SeqCst);
    }

    pub fn set(&self, time: Timestamp) {
        self.0.store(time.micros(), SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(SeqCst)).unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::from_micros(self.0.load(SeqCst))
    }
}

/// The storage agrees with it: logs of months are written in seconds.
#[async_trait::async_trait]
impl StorageClock for Hand {
    async fn time(&self) -> strongroom::Result<Option<Timestamp>> {
        Ok(Some(self.now()))
    }

    fn dates_audit(&self) -> bool {
        false
    }
}

pub async fn open_at(storage: &Storage, shard: u16, clock: &Arc<Hand>) -> Log {
    try_open_at(storage, shard, clock).await.unwrap()
}

pub async fn try_open_at(storage: &Storage, shard: u16, clock: &Arc<Hand>) -> strongroom::Result<Log> {
    let mut config = LogConfig::new(STORE, signer());
    (config.deadline, config.shard) = (LONG, shard);
    config.storage_clock = Some(clock.clone());
    let clock: Arc<dyn Clock> = clock.clone();
    Log::open(Arc::clone(storage), config, clock, Arc::new(SystemEntropy)).await
}

pub async fn open(storage: &Storage) -> Log {
    open_at(storage, 0, &Hand::new()).await
}

/// So many records, of a few customers, and no outcomes behind them.
pub async fn grow(log: &Log, records: u64) {
    let access = Access::new(Principal::service("tests").unwrap(), Purpose::Operations);
    let intent = |number: u64| {
        let mut intent = Intent::new(log.request_id().unwrap(), &access, Action::Seal);
        intent.customer = Some(CustomerId::from_bytes([u8::try_from(number % 5).unwrap(); 16]));
        intent
    };
    for (open, receipt) in log.begin_all((0..records).map(intent).collect()).await.unwrap() {
        drop(receipt);
        // Dropped, it would add a record.
        forget(open);
    }
}

pub fn publisher(storage: &Storage) -> Publisher {
    Publisher::new(Arc::clone(storage), STORE, signer(), LONG)
}

pub async fn bytes_at(storage: &Storage, path: &Path) -> Option<Vec<u8>> {
    match storage.get(path).await {
        Ok(got) => Some(got.bytes().await.unwrap().to_vec()),
        Err(object_store::Error::NotFound { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Changes one bit in the middle of an object.
pub async fn flip(storage: &Storage, path: &Path) {
    let mut bytes = bytes_at(storage, path).await.expect("there is something to change");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    storage.put(path, bytes.into()).await.unwrap();
}

/// The published checkpoint, its signature verified.
pub async fn checkpoint(storage: &Storage, shard: u16) -> Option<SignedCheckpoint> {
    let bytes = bytes_at(storage, &Object::Checkpoint { shard }.path()).await?;
    let checkpoint = SignedCheckpoint::parse(&bytes).unwrap();
    checkpoint.verify(&layout::verifier(STORE, shard, authority())).unwrap();
    Some(checkpoint)
}

pub async fn leaves(storage: &Storage, shard: u16) -> Vec<Leaf> {
    let log = open_at(storage, shard, &Hand::new()).await;
    let commits: Vec<_> = log.commits(0..u64::MAX).await.unwrap().try_collect().await.unwrap();
    commits.iter().flat_map(|commit| commit.leaves().iter().copied()).collect()
}

/// Checks what is published of a shard by its commits alone: the root, every tile
/// and bundle, and proofs by another implementation. Returns the tree's head.
pub async fn check(storage: &Storage, shard: u16) -> TreeHead {
    let Some(checkpoint) = checkpoint(storage, shard).await else {
        return TreeHead { size: 0, root: root(&[]) };
    };
    let head = *checkpoint.checkpoint().head();
    let leaves = leaves(storage, shard).await;
    let of_tree = &leaves[..usize::try_from(head.size).unwrap()];
    let mut level: Vec<Hash> = of_tree.iter().map(|leaf| leaf.hash).collect();
    assert_eq!(root(&level), head.root);

    let mut tiles = HashMap::new();
    let mut number = 0;
    while !level.is_empty() {
        for (index, hashes) in level.chunks(256).enumerate() {
            let tile = Tile::new(number, index as u64, u16::try_from(hashes.len()).unwrap()).unwrap();
            let path = Object::Tile { shard, tile: TilePath::Tile(tile) }.path();
            assert_eq!(bytes_at(storage, &path).await, Some(Tile::encode(hashes)), "{tile}");
            tiles.insert(tile, Tile::encode(hashes));
        }
        level = level.chunks_exact(256).map(root).collect();
        number += 1;
    }
    assert_eq!(tiles.len(), Tile::all(head.size).count());
    for (index, entries) in of_tree.chunks(256).enumerate() {
        let bundle = Bundle::new(index as u64, u16::try_from(entries.len()).unwrap()).unwrap();
        let path = Object::Tile { shard, tile: TilePath::Bundle(bundle) }.path();
        let entries = entries.iter().flat_map(|leaf| [&[0, 32][..], leaf.data.as_bytes()].concat());
        assert_eq!(bytes_at(storage, &path).await, Some(entries.collect()), "{bundle}");
    }
    if head.size > 0 {
        check_proofs(storage, shard, &head, of_tree, &tiles).await;
    }
    head
}

/// The tiles as another implementation reads them.
struct Theirs<'a>(&'a HashMap<Tile, Vec<u8>>);

impl TileReader for Theirs<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let path = |tile: &tlog_tiles::Tile| tile.path().replacen("tile/8/", "tile/", 1);
        Ok(tiles.iter().map(|tile| self.0[&path(tile).parse::<Tile>().unwrap()].clone()).collect())
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

async fn check_proofs(
    storage: &Storage,
    shard: u16,
    head: &TreeHead,
    leaves: &[Leaf],
    tiles: &HashMap<Tile, Vec<u8>>,
) {
    let theirs = |hash: &Hash| tlog_tiles::Hash(*hash.as_bytes());
    let ours = |hashes: Vec<tlog_tiles::Hash>| {
        hashes.into_iter().map(|hash| Hash::from_bytes(hash.0)).collect::<Vec<_>>()
    };
    let served = Theirs(tiles);
    let reader = TileHashReader::new(head.size, theirs(&head.root), &served);
    let tree = publisher(storage).tree(shard, *head);
    for index in [0, 255, 256, head.size / 2, head.size - 1] {
        if index < head.size {
            let found = tree.inclusion(index).await.unwrap();
            assert_eq!(found.leaf, leaves[usize::try_from(index).unwrap()].hash);
            verify_inclusion(found.leaf, index, &found.path, head).unwrap();
            assert_eq!(found.path, ours(tlog::prove_record(head.size, index, &reader).unwrap()));
        }
    }
    for old in [1, 255, 256, 257, head.size / 2, head.size] {
        if (1..=head.size).contains(&old) {
            let found = tree.consistency(old).await.unwrap();
            let before: Vec<Hash> =
                leaves[..usize::try_from(old).unwrap()].iter().map(|leaf| leaf.hash).collect();
            assert_eq!(found.old, TreeHead { size: old, root: root(&before) });
            verify_consistency(&found.old, head, &found.proof).unwrap();
            assert_eq!(found.proof, ours(tlog::prove_tree(head.size, old, &reader).unwrap()));
        }
    }
}
