//! What an operation asks of the storages: ranges cost what they return.

#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

use std::sync::Arc;

use bytes::Bytes;
use faults::{Call, FaultStore};
use object_store::ObjectStore;
use strongroom::envelope::Metadata;
use strongroom::id::BlobId;
use strongroom::room::{ByteRange, Customer, KeyChoice, SealOptions, Source, Strongroom};
use strongroom::store::{CreateRoot, StorageKind, StorageUrl, StorageUrls, Storages};
use world::{World, access, add, label};

const MIB: u64 = 1 << 20;
const CHUNK: u64 = (16 << 10) + 16;
/// The header of a blob with little metadata.
const HEADER: u64 = 2 << 10;

/// The bytes of a large plaintext from `start` on, without keeping it.
fn piece(start: u64, len: u64) -> Bytes {
    (start..start + len).map(|at| (at * 7 + at / 251).to_le_bytes()[0]).collect()
}

fn large(len: u64) -> Source {
    let block = piece(0, 251 * 256);
    let block_len = block.len() as u64;
    let pieces = (0..len.div_ceil(block_len)).map(move |index| {
        let left = usize::try_from((len - index * block_len).min(block_len)).expect("a block");
        Ok(block.slice(..left))
    });
    Source::stream(futures_util::stream::iter(pieces))
}

/// As `large` has them.
fn expected(start: u64, end: u64) -> Bytes {
    let block = piece(0, 251 * 256);
    (start..end).map(|at| block[usize::try_from(at % block.len() as u64).expect("in the block")]).collect()
}

async fn check(storages: Storages, len: u64) {
    let world = World::new();
    let kind = storages.kind();
    let key = KeyChoice::New("local".into());
    let quiet = world.options();
    let (room, _) =
        Strongroom::init(storages.clone(), world.registry(), key, &access(), quiet.clone()).await.unwrap();
    let acme = add(&room, "acme").await.unwrap();
    let sealed = acme.seal(large(len), SealOptions::new()).await.unwrap();
    assert_eq!(sealed.bytes, len);
    let mut metadata = Metadata::new().with_name("n".repeat(900).parse().unwrap());
    for key in 0..8 {
        metadata = metadata.with_pair(&format!("key-{key}"), &"v".repeat(900)).unwrap();
    }
    let wordy = acme.seal(large(3 * MIB), SealOptions::new().metadata(metadata)).await.unwrap();

    // The same storages, counted. What `Storages` says of their kind stays.
    let mut counted = storages;
    let count = |store: &mut Arc<dyn ObjectStore>| {
        let counting = FaultStore::new(Arc::clone(store));
        *store = Arc::new(counting.clone());
        counting
    };
    let (blobs, keys, audit) =
        (count(&mut counted.blobs), count(&mut counted.keys), count(&mut counted.audit));
    assert_eq!(counted.kind(), kind);
    let room = Strongroom::open(counted, world.registry(), quiet).await.unwrap();
    [&blobs, &keys, &audit].into_iter().for_each(FaultStore::reset_counts);
    let acme = room.customer(&label("acme"), access()).await.unwrap();
    acme.open_range(sealed.id, ByteRange::Inclusive(0, MIB - 1)).await.unwrap().bytes(2 << 20).await.unwrap();
    println!(
        "{kind:?}: a cold range of 1 MiB: {} requests to blobs, {} to keys, {} to audit ({} commits and pins)",
        blobs.requests(),
        keys.requests(),
        audit.requests(),
        audit.writes(),
    );
    assert!(blobs.requests() <= 2 && keys.requests() <= 6 && audit.requests() <= 40);

    for (range, start) in [
        (ByteRange::Inclusive(0, MIB - 1), 0),
        (ByteRange::Inclusive(16 * MIB, 17 * MIB - 1), 16 * MIB),
        (ByteRange::Inclusive(5 * MIB + 1, 6 * MIB), 5 * MIB + 1),
        (ByteRange::Inclusive(5 * MIB - 1, 6 * MIB - 2), 5 * MIB - 1),
        (ByteRange::Inclusive(len - MIB, len - 1), len - MIB),
        (ByteRange::Inclusive(len - MIB, u64::MAX), len - MIB),
        (ByteRange::From(len - MIB), len - MIB),
        (ByteRange::Last(MIB), len - MIB),
    ] {
        let (bytes, requests) = fetched(&blobs, &acme, sealed.id, range, start..start + MIB).await;
        assert!(bytes <= MIB + 2 * CHUNK + HEADER, "{kind:?} {range:?}: {bytes}");
        assert!(requests <= 3, "{kind:?} {range:?}: {requests}");
    }
    for (range, start) in [(ByteRange::Inclusive(7, 7), 7), (ByteRange::Last(1), len - 1)] {
        let (bytes, _) = fetched(&blobs, &acme, sealed.id, range, start..start + 1).await;
        assert!(bytes <= 2 * CHUNK + HEADER, "{kind:?} {range:?}: {bytes}");
    }

    for blob in [sealed.id, wordy.id] {
        blobs.reset_counts();
        let info = acme.stat(blob).await.unwrap();
        let header = if blob == wordy.id { 10 << 10 } else { 0 };
        assert!(blobs.bytes_fetched() <= header + HEADER + CHUNK, "{kind:?}: {}", blobs.bytes_fetched());
        // Header, last chunk, and a list of what else wraps its DEK.
        assert!(blobs.requests() <= 4);
        assert_eq!(info.bytes, if blob == wordy.id { 3 * MIB } else { len });
    }
    let (bytes, _) =
        fetched(&blobs, &acme, wordy.id, ByteRange::Inclusive(MIB, 2 * MIB - 1), MIB..2 * MIB).await;
    assert!(bytes <= MIB + 2 * CHUNK + (10 << 10), "{kind:?}: {bytes}");

    // A whole blob is fetched once.
    let (bytes, _) = fetched(&blobs, &acme, wordy.id, ByteRange::From(0), 0..3 * MIB).await;
    assert!(bytes <= wordy.stored_bytes + HEADER, "{bytes}");
    blobs.reset_counts();
    acme.verify(sealed.id).await.unwrap();
    assert_eq!((blobs.bytes_fetched(), blobs.count(Call::Head)), (sealed.stored_bytes, 0));
}

/// The bytes and requests that a range costs; and it is the right one.
async fn fetched(
    blobs: &FaultStore,
    acme: &Customer,
    blob: BlobId,
    range: ByteRange,
    positions: std::ops::Range<u64>,
) -> (u64, u64) {
    blobs.reset_counts();
    let opened = acme.open_range(blob, range).await.unwrap();
    assert_eq!(opened.range(), positions, "{range:?}");
    let bytes = opened.bytes(4 << 20).await.unwrap();
    assert!(bytes == expected(positions.start, positions.end), "{range:?}: other bytes");
    (blobs.bytes_fetched(), blobs.requests())
}

/// No multiple of the chunk, of a part or of anything else.
const LARGE: u64 = 200 * MIB + 12_345;

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_a_cloud_storage_cost_what_they_return() {
    let memory = Storages::memory();
    let storages = Storages::from_parts(memory.blobs, memory.keys, memory.audit);
    assert_eq!(storages.kind(), StorageKind::Cloud);
    check(storages, LARGE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_a_local_storage_cost_what_they_return() {
    let directory = tempfile::tempdir().unwrap();
    let urls = StorageUrls::new(StorageUrl::directory(directory.path().join("store")).unwrap());
    let clock = Arc::new(strongroom::system::SystemClock);
    let storages = Storages::open(&urls, CreateRoot::Yes, clock).await.unwrap();
    assert_eq!(storages.kind(), StorageKind::Local);
    check(storages, LARGE / 4).await;
}
