//! What is published of the log: right at every size, by whom and however often it
//! is published, and never of a log that is not what it was.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::stream::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::audit::layout::{self, Object};
use strongroom::audit::log::Log;
use strongroom::audit::publish::Publisher;
use strongroom::audit::signer::LogSigner;
use strongroom::merkle::TreeHead;
use strongroom::secret::Secret;
use strongroom::time::Timestamp;
use strongroom::tlog::note::NoteSignature;
use strongroom::tlog::tile::{Bundle, Tile, TilePath};
use strongroom::tlog::{NamedKey, PublicKey, SecretKey, Signature, VerifierKey};
use strongroom::witness::client::{Witness, WitnessError};
use strongroom::witness::{AddCheckpoint, KnownLogs, Refusal, decide};
use strongroom::{Error, ErrorKind};
use tempfile::TempDir;

#[path = "common/faults.rs"]
mod faults;
#[path = "common/shard.rs"]
mod shard;
use faults::FaultStore;
use shard::{
    Hand, LONG, STORE, Storage, authority, bytes_at, check, checkpoint, flip, grow, open, open_at, publisher,
    signer,
};

const CHECKPOINT: Object = Object::Checkpoint { shard: 0 };

fn memory() -> Storage {
    Arc::new(InMemory::new())
}

fn local(folder: &TempDir) -> Storage {
    Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap())
}

fn tile(tile: Tile) -> Path {
    Object::Tile { shard: 0, tile: TilePath::Tile(tile) }.path()
}

fn bundle(bundle: Bundle) -> Path {
    Object::Tile { shard: 0, tile: TilePath::Bundle(bundle) }.path()
}

fn commit(seq: u64) -> Path {
    Object::Commit { shard: 0, seq }.path()
}

/// A key that counts what it signs, and can be made to misbehave.
#[derive(Debug)]
struct Key {
    signed: AtomicU64,
    mood: Mutex<Mood>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Good,
    Slow,
    Hangs,
    Fails,
    SignsAnother,
}

impl Key {
    fn new() -> Arc<Self> {
        Arc::new(Self { signed: AtomicU64::new(0), mood: Mutex::new(Mood::Good) })
    }

    fn publisher(self: &Arc<Self>, storage: &Storage, limit: Duration) -> Publisher {
        let key: Arc<dyn LogSigner> = self.clone();
        Publisher::new(Arc::clone(storage), STORE, key, limit)
    }
}

#[async_trait::async_trait]
impl LogSigner for Key {
    fn public(&self) -> PublicKey {
        authority()
    }

    async fn sign(&self, message: &[u8]) -> Result<Signature, Error> {
        self.signed.fetch_add(1, SeqCst);
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Good => signer().sign(message).await,
            Mood::Slow => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                signer().sign(message).await
            }
            Mood::Hangs => pending().await,
            Mood::Fails => Err(Error::new(ErrorKind::Unavailable, "the KMS is down")),
            Mood::SignsAnother => signer().sign(b"another").await,
        }
    }
}

async fn all_sizes(storage: &Storage) {
    let log = open(storage).await;
    let publisher = publisher(storage);
    let empty = publisher.publish(0, &[]).await.unwrap();
    assert_eq!((empty.tree.size, empty.before), (0, 0));
    let mut before = 0;
    for size in [1, 2, 3, 100, 255, 256, 257, 510, 512, 513, 1000, 1024, 1300] {
        // In several commits, so that the published size is within the log.
        let more = size - before;
        grow(&log, more - more / 2).await;
        if more / 2 > 0 {
            grow(&log, more / 2).await;
        }
        let published = publisher.publish(0, &[]).await.unwrap();
        assert_eq!((published.before, published.tree.size), (before, size));
        assert_eq!(check(storage, 0).await, published.tree);
        assert_eq!(published.tree, log.head().tree());
        // Again, by another that remembers nothing: nothing changes.
        let again = shard::publisher(storage).publish(0, &[]).await.unwrap();
        assert_eq!(again.checkpoint, published.checkpoint);
        before = size;
    }
}

#[tokio::test]
async fn a_tree_of_any_size_is_published_in_memory() {
    all_sizes(&memory()).await;
}

#[tokio::test]
async fn a_tree_of_any_size_is_published_in_a_directory() {
    let folder = TempDir::new().unwrap();
    all_sizes(&local(&folder)).await;
}

#[tokio::test]
async fn a_tree_of_three_levels_is_published() {
    let storage = memory();
    let log = open(&storage).await;
    let publisher = publisher(&storage);
    let mut before = 0;
    for size in [65_535, 65_536, 65_537, 66_000] {
        grow(&log, size - before).await;
        let begun = Instant::now();
        let published = publisher.publish(0, &[]).await.unwrap();
        // Not an assertion: what it costs, for those who run this with `--nocapture`.
        println!("{} records published in {:?}", size - before, begun.elapsed());
        assert_eq!(published.tree.size, size);
        assert_eq!(check(&storage, 0).await, published.tree);
        before = size;
    }
}

#[tokio::test]
async fn each_shard_is_a_log_of_its_own() {
    let storage = memory();
    let publisher = publisher(&storage);
    for shard in [0, 1, 0xfff] {
        grow(&open_at(&storage, shard, &Hand::new()).await, 300 + u64::from(shard)).await;
        let published = publisher.publish(shard, &[]).await.unwrap();
        assert_eq!(check(&storage, shard).await, published.tree);
        assert_eq!(published.tree.size, 300 + u64::from(shard));
    }
    let moved = bytes_at(&storage, &CHECKPOINT.path()).await.unwrap();
    storage.put(&Object::Checkpoint { shard: 1 }.path(), moved.into()).await.unwrap();
    assert_eq!(publisher.publish(1, &[]).await.unwrap_err().kind(), ErrorKind::Integrity);
}

/// A log of 250 published records and 300 more, in three commits.
async fn half_published() -> Arc<InMemory> {
    let inner = Arc::new(InMemory::new());
    let storage: Storage = inner.clone();
    let log = open(&storage).await;
    grow(&log, 250).await;
    publisher(&storage).publish(0, &[]).await.unwrap();
    for records in [4, 95, 201] {
        grow(&log, records).await;
    }
    inner
}

#[tokio::test]
async fn stopped_at_any_write_the_next_one_completes_it() {
    let half = half_published().await;
    type Plan = fn(&FaultStore, u64);
    let plans: [Plan; 3] = [FaultStore::fail_write, FaultStore::lose_answer, FaultStore::fail_from];
    for plan in plans {
        for number in 1.. {
            let faulty = FaultStore::new(Arc::new(half.fork()));
            let storage: Storage = Arc::new(faulty.clone());
            plan(&faulty, number);
            let stopped = publisher(&storage).publish(0, &[]).await;
            // Whatever is published is whole.
            let (left, reached) = (check(&faulty.inner(), 0).await, faulty.writes() >= number);
            assert!([250, 550].contains(&left.size));
            if !reached {
                assert_eq!(stopped.unwrap().tree.size, 550);
                assert!(number > 5, "tiles of two levels, bundles and a checkpoint");
                break;
            }
            assert_eq!(stopped.unwrap_err().kind(), ErrorKind::AuditUnavailable);
            faulty.heal();
            let published = publisher(&storage).publish(0, &[]).await.unwrap();
            assert_eq!(published.tree.size, 550);
            assert_eq!(check(&faulty.inner(), 0).await, published.tree);
        }
    }
}

#[tokio::test]
async fn a_storage_that_hangs_is_given_up() {
    let faulty = FaultStore::new(Arc::new(half_published().await.fork()));
    let storage: Storage = Arc::new(faulty.clone());
    let publisher = Key::new().publisher(&storage, Duration::from_millis(50));
    faulty.hang_writes();
    assert_eq!(publisher.publish(0, &[]).await.unwrap_err().kind(), ErrorKind::AuditUnavailable);
    faulty.heal();
    faulty.hang_reads();
    assert_eq!(publisher.publish(0, &[]).await.unwrap_err().kind(), ErrorKind::AuditUnavailable);
    faulty.heal();
    assert_eq!(check(&storage, 0).await.size, 250);
    assert_eq!(publisher.publish(0, &[]).await.unwrap().tree.size, 550);
}

#[tokio::test]
async fn a_key_that_does_not_sign_leaves_the_old_checkpoint() {
    let storage: Storage = half_published().await;
    let before = checkpoint(&storage, 0).await;
    let key = Key::new();
    let publisher = key.publisher(&storage, Duration::from_millis(200));
    for (mood, kind) in [
        (Mood::Hangs, ErrorKind::Unavailable),
        (Mood::Fails, ErrorKind::Unavailable),
        (Mood::SignsAnother, ErrorKind::KeyUnavailable),
    ] {
        *key.mood.lock().unwrap() = mood;
        assert_eq!(publisher.publish(0, &[]).await.unwrap_err().kind(), kind, "{mood:?}");
        assert_eq!(checkpoint(&storage, 0).await, before);
    }
    *key.mood.lock().unwrap() = Mood::Slow;
    assert_eq!(publisher.publish(0, &[]).await.unwrap().tree.size, 550);
    assert_eq!(check(&storage, 0).await.size, 550);
    assert_eq!(key.signed.load(SeqCst), 4);
}

#[tokio::test]
async fn the_end_of_a_known_log_is_not_searched_for() {
    let inner = Arc::new(InMemory::new());
    let at: Storage = inner.clone();
    let log = open(&at).await;
    for _ in 0..200 {
        grow(&log, 1).await;
    }
    let requests = async |note: bool| {
        let faulty = FaultStore::new(Arc::new(inner.fork()));
        let publisher = publisher(&(Arc::new(faulty.clone()) as Storage));
        if note {
            publisher.take_note(&log.head());
        }
        assert_eq!(publisher.publish(0, &[]).await.unwrap().tree.size, 200);
        faulty.count(faults::Call::Head)
    };
    let (searched, known) = (requests(false).await, requests(true).await);
    assert!(known <= 8 && known < searched, "{known} and {searched}");
    // A head that the storage does not have is no smaller log.
    let storage: Storage = Arc::new(inner.fork());
    storage.delete(&commit(199)).await.unwrap();
    let publisher = publisher(&storage);
    publisher.take_note(&log.head());
    assert_eq!(publisher.publish(0, &[]).await.unwrap_err().kind(), ErrorKind::Integrity);
}

/// Nothing is signed, and what is published stays.
async fn assert_refused(storage: &Storage, what: &str) {
    let before = bytes_at(storage, &CHECKPOINT.path()).await;
    let key = Key::new();
    let error = key.publisher(storage, LONG).publish(0, &[]).await.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Integrity, "{what}: {}", error.chain());
    assert_eq!(key.signed.load(SeqCst), 0, "{what}");
    assert_eq!(bytes_at(storage, &CHECKPOINT.path()).await, before, "{what}");
}

#[tokio::test]
async fn what_was_altered_is_not_signed() {
    let half = half_published().await;
    let edge = Tile::new(0, 0, 250).unwrap();
    let entries = Bundle::new(0, 250).unwrap();
    for path in [tile(edge), bundle(entries), CHECKPOINT.path(), commit(0), commit(1), commit(2), commit(3)] {
        let storage: Storage = Arc::new(half.fork());
        flip(&storage, &path).await;
        assert_refused(&storage, path.as_ref()).await;
    }
    // Something else where a tile of the larger tree belongs.
    for path in [
        tile(edge.full()),
        bundle(entries.full()),
        tile(Tile::new(0, 2, 38).unwrap()),
        tile(Tile::new(1, 0, 2).unwrap()),
        bundle(Bundle::new(2, 38).unwrap()),
    ] {
        let storage: Storage = Arc::new(half.fork());
        storage.put(&path, vec![1; 64].into()).await.unwrap();
        assert_refused(&storage, path.as_ref()).await;
    }
}

#[tokio::test]
async fn a_checkpoint_by_another_key_is_not_continued() {
    let storage: Storage = half_published().await;
    let published = checkpoint(&storage, 0).await.unwrap();
    let name = layout::key_name(STORE, 0);
    let other = NamedKey::new(name, SecretKey::from_seed(&Secret::init(|seed| *seed = [8; 32])));
    let line = other.sign(&published.checkpoint().to_string());
    let forged =
        strongroom::tlog::checkpoint::SignedCheckpoint::new(published.checkpoint().clone(), vec![line])
            .unwrap();
    storage.put(&CHECKPOINT.path(), forged.to_string().into()).await.unwrap();
    assert_refused(&storage, "another key").await;
}

/// A writer that does not see the checkpoint, which would keep it from opening.
async fn open_unchecked(storage: &Storage) -> Log {
    let path = Path::from("checkpoint");
    let kept = bytes_at(storage, &path).await.unwrap();
    storage.delete(&path).await.unwrap();
    let log = open(storage).await;
    storage.put(&path, kept.into()).await.unwrap();
    log
}

#[tokio::test]
async fn a_log_that_was_rolled_back_is_not_signed() {
    let half = half_published().await;
    let storage: Storage = Arc::new(half.fork());
    let kept = publisher(&storage);
    kept.publish(0, &[]).await.unwrap();
    // The newest commits cut off, for one who remembers nothing and one who does.
    for cut in [2, 1, 0] {
        for seq in cut..4 {
            drop(storage.delete(&commit(seq)).await);
        }
        assert_refused(&storage, "cut off").await;
        assert_eq!(kept.publish(0, &[]).await.unwrap_err().kind(), ErrorKind::Integrity);
    }
    // The same, and grown again past the published size, by a writer that the
    // log's key endorsed.
    grow(&open_unchecked(&storage).await, 1000).await;
    assert_refused(&storage, "another history").await;
    // Of the very same size.
    let storage: Storage = Arc::new(half.fork());
    for seq in 0..4 {
        storage.delete(&commit(seq)).await.unwrap();
    }
    grow(&open_unchecked(&storage).await, 250).await;
    assert_refused(&storage, "another history of the same size").await;
    // With the old commits up to a point within what was published.
    let storage: Storage = memory();
    let log = open(&storage).await;
    grow(&log, 100).await;
    grow(&log, 100).await;
    publisher(&storage).publish(0, &[]).await.unwrap();
    storage.delete(&commit(1)).await.unwrap();
    grow(&open_unchecked(&storage).await, 101).await;
    assert_refused(&storage, "rewritten from the middle").await;
}

#[tokio::test]
async fn tiles_that_are_gone_are_made_again() {
    let half = half_published().await;
    let storage: Storage = Arc::new(half.fork());
    publisher(&storage).publish(0, &[]).await.unwrap();
    grow(&open(&storage).await, 1).await;
    for prefix in ["tile/0", "tile/1", "tile/entries", "tile"] {
        let prefix = Path::from(prefix);
        let paths: Vec<_> = storage.list(Some(&prefix)).try_collect().await.unwrap();
        assert!(!paths.is_empty());
        for meta in paths {
            storage.delete(&meta.location).await.unwrap();
        }
        grow(&open(&storage).await, 3).await;
        let published = publisher(&storage).publish(0, &[]).await.unwrap();
        assert_eq!(check(&storage, 0).await, published.tree);
    }
    // A partial tile whose full one is there is not missed.
    let storage: Storage = Arc::new(half.fork());
    publisher(&storage).publish(0, &[]).await.unwrap();
    storage.delete(&tile(Tile::new(0, 0, 250).unwrap())).await.unwrap();
    grow(&open(&storage).await, 1).await;
    assert_eq!(publisher(&storage).publish(0, &[]).await.unwrap().tree.size, 551);
}

/// Many publish while the log grows. What is there in the end is the newest of all.
async fn race(storage: &Storage) {
    let log = open(storage).await;
    let publishers: Vec<_> = (0..3).map(|_| publisher(storage)).collect();
    for round in 0..12 {
        let growing = async {
            for more in [1, 40, 130] {
                grow(&log, more + round).await;
            }
        };
        let publishing = join_all(publishers.iter().map(|publisher| async {
            let mut largest = 0;
            for _ in 0..3 {
                largest = largest.max(publisher.publish(0, &[]).await.unwrap().tree.size);
            }
            largest
        }));
        let ((), sizes) = tokio::join!(growing, publishing);
        let head = check(storage, 0).await;
        assert!(sizes.iter().all(|size| *size <= head.size), "{sizes:?} and then {}", head.size);
    }
    let published = publishers[0].publish(0, &[]).await.unwrap();
    assert_eq!(published.tree, log.head().tree());
    assert_eq!(check(storage, 0).await, published.tree);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_publish_at_once_agree_in_memory() {
    race(&memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_publish_at_once_agree_in_a_directory() {
    let folder = TempDir::new().unwrap();
    race(&local(&folder)).await;
}

/// A witness by the rules, or not.
struct Judge {
    key: NamedKey,
    verifier: VerifierKey,
    last: Mutex<Option<TreeHead>>,
    silent: Mutex<bool>,
}

impl Judge {
    fn new(seed: u8) -> Arc<Self> {
        let name = format!("witness-{seed}").parse().unwrap();
        let key = NamedKey::new(name, SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32])));
        Arc::new(Self { verifier: key.cosigner(), key, last: Mutex::default(), silent: Mutex::default() })
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Witness for Judge {
    fn key(&self) -> &VerifierKey {
        &self.verifier
    }

    async fn cosign(&self, request: &AddCheckpoint) -> Result<Vec<NoteSignature>, WitnessError> {
        if *self.silent.lock().unwrap() {
            return Err(WitnessError::Unavailable("out for lunch".into()));
        }
        let logs = KnownLogs::new([layout::verifier(STORE, 0, authority())]).unwrap();
        let mut last = self.last.lock().unwrap();
        match decide(last.as_ref(), request, &logs) {
            Ok(_) => {}
            Err(Refusal::Conflict { size }) => return Err(WitnessError::Conflict { size }),
            Err(_) => return Err(WitnessError::Inconsistent),
        }
        let checkpoint = request.checkpoint().checkpoint();
        *last = Some(*checkpoint.head());
        Ok(vec![self.key.cosign(checkpoint, Timestamp::from_micros(1_795_348_800_000_000).unwrap())])
    }
}

#[tokio::test]
async fn witnesses_cosign_what_is_published() {
    let storage: Storage = half_published().await;
    let (one, two) = (Judge::new(1), Judge::new(2));
    let witnesses: [Arc<dyn Witness>; 2] = [one.clone(), two.clone()];
    *two.silent.lock().unwrap() = true;
    let publisher = publisher(&storage);
    let cosigned = async |by: &Arc<Judge>| {
        let checkpoint = checkpoint(&storage, 0).await.unwrap();
        assert_eq!(checkpoint.checkpoint().head().size % 550, 0);
        checkpoint.cosigned_by(&by.verifier).unwrap().is_some()
    };
    let published = publisher.publish(0, &witnesses).await.unwrap();
    let results: Vec<_> = published.cosigned.iter().map(|one| one.result.is_ok()).collect();
    assert_eq!(results, [true, false]);
    assert_eq!(published.alarms().count(), 0);
    assert!(cosigned(&one).await && !cosigned(&two).await);
    // Back again, it cosigns what is published already, and the other stays.
    *two.silent.lock().unwrap() = false;
    let published = publisher.publish(0, &witnesses).await.unwrap();
    assert!(published.cosigned.iter().all(|one| one.result.is_ok()));
    assert!(cosigned(&one).await && cosigned(&two).await);
    // And both go on with the log.
    grow(&open(&storage).await, 550).await;
    let published = publisher.publish(0, &witnesses).await.unwrap();
    assert!(published.cosigned.iter().all(|one| one.result.is_ok()));
    assert!(cosigned(&one).await && cosigned(&two).await);
    assert_eq!(check(&storage, 0).await.size, 1100);
}

#[tokio::test]
async fn a_witness_that_has_seen_another_history_is_an_alarm() {
    let storage: Storage = half_published().await;
    let (good, wronged) = (Judge::new(1), Judge::new(2));
    let other = strongroom::merkle::leaf_hash(b"another");
    for size in [1, 300, 550, 551] {
        *wronged.last.lock().unwrap() = Some(TreeHead { size, root: other });
        let witnesses: [Arc<dyn Witness>; 2] = [wronged.clone(), good.clone()];
        let published = publisher(&storage).publish(0, &witnesses).await.unwrap();
        let alarms: Vec<_> = published.alarms().map(|(name, _)| name.as_str()).collect();
        assert_eq!(alarms, ["witness-2"], "{size}");
        let checkpoint = checkpoint(&storage, 0).await.unwrap();
        assert_eq!(checkpoint.checkpoint().head().size, 550);
        assert!(checkpoint.cosigned_by(&good.verifier).unwrap().is_some());
        assert!(checkpoint.cosigned_by(&wronged.verifier).unwrap().is_none());
    }
}

#[tokio::test]
async fn proofs_of_what_is_not_there_fail() {
    let storage: Storage = half_published().await;
    let publisher = publisher(&storage);
    let head = publisher.publish(0, &[]).await.unwrap().tree;
    let tree = publisher.tree(0, head);
    assert_eq!(tree.inclusion(550).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(tree.consistency(551).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let paths: Vec<_> = storage.list(None).map_ok(|meta| meta.location).collect::<Vec<_>>().await;
    let tiles = paths.into_iter().map(Result::unwrap).filter(|path| path.as_ref().starts_with("tile/0/000"));
    for path in tiles {
        storage.delete(&path).await.unwrap();
    }
    assert_eq!(tree.inclusion(0).await.unwrap_err().kind(), ErrorKind::Integrity);
}
