//! What becomes of blobs when their storage fails.

#[path = "common/faults.rs"]
mod faults;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use faults::{Call, FaultStore, OnRead};
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::ErrorKind;
use strongroom::store::upload::{BlobWriter, PartPlan, is_in_doubt};
use strongroom::store::{Storages, store_error};

const PART: usize = 10;

fn path() -> Path {
    Path::from("blob")
}

/// Writes `len` bytes in odd pieces and finishes.
async fn upload(store: &FaultStore, len: usize) -> strongroom::Result<u64> {
    let body: Vec<u8> = (0u8..=250).cycle().take(len).collect();
    let mut writer = BlobWriter::new(Arc::new(store.clone()), path(), PartPlan::even(PART));
    for piece in body.chunks(7) {
        writer.write(Bytes::copy_from_slice(piece)).await?;
    }
    writer.finish().await
}

async fn visible(store: &FaultStore) -> Option<u64> {
    let all: Vec<_> = store.inner().list(None).try_collect().await.expect("memory lists");
    assert!(all.len() <= 1, "{all:?}");
    all.first().map(|meta| meta.size)
}

async fn eventually(what: &str, done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 s: {what}");
}

#[tokio::test]
async fn whichever_write_fails_nothing_is_visible() {
    // 5 parts and a completion, or one put.
    for (len, writes) in [(45, 6), (9, 1)] {
        for k in 1..=writes {
            let store = FaultStore::memory();
            store.fail_write(k);
            let error = upload(&store, len).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{len} {k}");
            assert_eq!(visible(&store).await, None, "{len} {k}");
            if len > PART {
                eventually("the parts are removed", || store.count(Call::Abort) == 1).await;
            }
        }
        let store = FaultStore::memory();
        assert_eq!(upload(&store, len).await.unwrap(), len as u64);
        assert_eq!(store.writes(), writes);
    }
}

#[tokio::test]
async fn a_lost_answer_to_the_last_write_is_found_out() {
    for (len, writes) in [(45, 6), (9, 1)] {
        let store = FaultStore::memory();
        store.lose_answer(writes);
        assert_eq!(upload(&store, len).await.unwrap(), len as u64);
        assert_eq!(visible(&store).await, Some(len as u64));
    }
    // That of a part is not: the upload is given up.
    let store = FaultStore::memory();
    store.lose_answer(2);
    upload(&store, 45).await.unwrap_err();
    assert_eq!(visible(&store).await, None);
}

#[tokio::test]
async fn a_failed_writer_stays_failed() {
    let store = FaultStore::memory();
    store.fail_from(1);
    let mut writer = BlobWriter::new(Arc::new(store.clone()), path(), PartPlan::even(PART));
    let mut failed = false;
    for _ in 0..9 {
        failed |= writer.write(Bytes::from_static(&[1; 20])).await.is_err();
    }
    assert!(failed);
    store.heal();
    assert!(writer.write(Bytes::from_static(b"x")).await.is_err());
    assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(visible(&store).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_write_spoils_the_writer() {
    let store = FaultStore::memory();
    store.hang_writes();
    let mut writer = BlobWriter::new(Arc::new(store.clone()), path(), PartPlan::even(PART));
    let write = writer.write(Bytes::from_static(&[1; 99]));
    assert!(tokio::time::timeout(Duration::from_secs(1), write).await.is_err());
    store.heal();
    assert!(writer.finish().await.is_err());
    assert_eq!(visible(&store).await, None);
}

#[tokio::test]
async fn two_parts_at_most_are_on_their_way() {
    let store = FaultStore::memory();
    let mut writer = BlobWriter::new(Arc::new(store.clone()), path(), PartPlan::even(PART));
    // The upload begins before its parts hang.
    writer.write(Bytes::from_static(&[1; 11])).await.unwrap();
    store.hang_writes();
    let write = writer.write(Bytes::from_static(&[1; 99]));
    assert!(tokio::time::timeout(Duration::from_millis(100), write).await.is_err());
    assert!(store.count(Call::Part) <= 3, "{}", store.count(Call::Part));
    writer.abort().await.unwrap();
    assert_eq!(store.count(Call::Abort), 1);
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_hangs_does_not_answer() {
    let store = FaultStore::memory();
    let shared = || Arc::new(store.clone()) as Arc<dyn ObjectStore>;
    let storages = Storages::from_parts(shared(), shared(), shared());
    upload(&store, 45).await.unwrap();
    store.hang_writes();
    store.hang_reads();

    let kind = |error| store_error(error, "try").kind();
    let blobs = &storages.blobs;
    let body = Bytes::from_static(b"x");
    assert_eq!(kind(blobs.put(&path(), body.into()).await.unwrap_err()), ErrorKind::Unavailable);
    assert_eq!(kind(blobs.get(&path()).await.unwrap_err()), ErrorKind::Unavailable);
    assert_eq!(kind(blobs.get_range(&path(), 0..1).await.unwrap_err()), ErrorKind::Unavailable);
    assert_eq!(kind(blobs.head(&path()).await.unwrap_err()), ErrorKind::Unavailable);
    assert_eq!(kind(blobs.delete(&path()).await.unwrap_err()), ErrorKind::Unavailable);
    assert_eq!(kind(blobs.list(None).try_next().await.unwrap_err()), ErrorKind::Unavailable);
    assert_eq!(kind(blobs.list_with_delimiter(None).await.unwrap_err()), ErrorKind::Unavailable);
    assert_eq!(kind(blobs.put_multipart(&path()).await.unwrap_err()), ErrorKind::Unavailable);

    let mut writer = storages.blob_writer(Path::from("other"));
    writer.write(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(writer.finish().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn the_double_spoils_what_it_is_told_to() {
    let store = FaultStore::memory();
    store.put(&path(), "0123456789".into()).await.unwrap();
    store.on_read(OnRead::CutAt(4));
    assert_eq!(store.get(&path()).await.unwrap().bytes().await.unwrap(), "0123");
    assert_eq!(store.get_range(&path(), 2..8).await.unwrap(), "23");
    store.on_read(OnRead::Flip { byte: 3, bit: 1 });
    assert_eq!(store.get_range(&path(), 2..8).await.unwrap(), "214567");
    assert_eq!(store.get_range(&path(), 4..8).await.unwrap(), "4567");
    assert_eq!((store.count(Call::Get), store.bytes_fetched()), (4, 4 + 2 + 6 + 4));
    store.heal();
    store.deny_all();
    let error = store_error(store.get(&path()).await.unwrap_err(), "read");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert_eq!(store.written().len(), 1);
    assert_eq!(store.written()[0].body, "0123456789");
}

/// A cloud storage that answers at once, but for what a test asks of it.
fn cloud(store: &FaultStore) -> Arc<dyn ObjectStore> {
    let shared = || Arc::new(store.clone()) as Arc<dyn ObjectStore>;
    Storages::from_cloud_parts(shared(), shared(), shared()).blobs
}

async fn short(store: &Arc<dyn ObjectStore>, body: &'static str) -> strongroom::Result<u64> {
    let mut writer = BlobWriter::new(Arc::clone(store), path(), PartPlan::even(100));
    writer.write(Bytes::from_static(body.as_bytes())).await?;
    writer.finish().await
}

/// On the time that tokio has paused, so that it is the same on every machine.
fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// What happens to the first put.
const FAULTS: [fn(&FaultStore); 7] = [
    |_| {},
    |store| store.conflict_write(1),
    |store| (1..=5).for_each(|k| store.conflict_write(k)),
    |store| store.hang_write(1),
    |store| store.hang_after_write(1),
    |store| store.double_write(1),
    |store| store.lose_answer(1),
];

#[tokio::test(start_paused = true)]
async fn a_write_that_met_trouble_is_ours_within_three_seconds() {
    for (n, fault) in FAULTS.into_iter().enumerate() {
        let store = FaultStore::memory();
        let blobs = cloud(&store);
        fault(&store);
        let begun = now();
        assert_eq!(short(&blobs, "body").await.unwrap(), 4, "{n}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{n}: {:?}", begun.elapsed());
        assert_eq!(blobs.get(&path()).await.unwrap().bytes().await.unwrap(), "body");
        // Those that come later are told from it, whatever happens to them.
        fault(&store);
        let error = short(&blobs, "other").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{n}");
        fault(&store);
        assert_eq!(short(&blobs, "body").await.unwrap(), 4, "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_hung_request_of_any_kind_is_sent_again() {
    let store = FaultStore::memory();
    let cloud = cloud(&store);
    cloud.put(&path(), "0123456789".into()).await.unwrap();
    store.reset_counts();
    let second = Duration::from_secs(1);

    for body in 0..3 {
        let begun = now();
        store.hang_read(1);
        match body {
            0 => assert_eq!(cloud.get_range(&path(), 2..4).await.unwrap(), "23"),
            1 => assert_eq!(cloud.head(&path()).await.unwrap().size, 10),
            _ => assert_eq!(cloud.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 1),
        }
        assert_eq!(begun.elapsed().as_secs(), second.as_secs(), "{body}");
    }
    store.hang_read(1);
    assert_eq!(cloud.list_with_delimiter(None).await.unwrap().common_prefixes.len(), 0);
    assert_eq!((store.count(Call::Get), store.count(Call::Head), store.count(Call::List)), (2, 2, 4));

    // What overwrites with bytes is sent once: a late one would undo a later one.
    store.hang_write(1);
    let begun = now();
    cloud.put(&path(), "x".into()).await.unwrap_err();
    assert_eq!((store.count(Call::Put), begun.elapsed().as_secs()), (1, 20));
    store.hang_write(1);
    cloud.put(&path(), "".into()).await.unwrap();
    assert_eq!(store.count(Call::Put), 3);
}

#[tokio::test(start_paused = true)]
async fn storages_of_the_caller_get_no_second_requests_unless_asked() {
    let store = FaultStore::memory();
    let shared = || Arc::new(store.clone()) as Arc<dyn ObjectStore>;
    let storages = Storages::from_parts(shared(), shared(), shared());
    store.hang_read(1);
    storages.blobs.head(&path()).await.unwrap_err();
    assert_eq!(store.count(Call::Head), 1);
    // A conflict is no answer on any storage.
    store.conflict_write(1);
    assert_eq!(short(&storages.blobs, "body").await.unwrap(), 4);
    assert_eq!(store.count(Call::Put), 2);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_that_does_not_end_is_no_object() {
    let store = FaultStore::memory();
    (1..=100).for_each(|k| store.conflict_write(k));
    let begun = now();
    let error = short(&cloud(&store), "body").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("under way at each attempt"), "{}", error.chain());
    assert!(is_in_doubt(&error) && begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_not_made_worse() {
    let store = FaultStore::memory();
    let cloud = cloud(&store);
    store.hang_reads();
    for _ in 0..400 {
        cloud.head(&path()).await.unwrap_err();
    }
    let extra = store.count(Call::Head) - 400;
    assert!(extra <= 400 / 10 + 20, "{extra}");
    store.heal();
    store.take_down();
    store.reset_counts();
    for _ in 0..400 {
        cloud.head(&path()).await.unwrap_err();
    }
    let extra = store.count(Call::Head) - 400;
    assert!(extra <= 400 / 10 + 20, "{extra}");
}

#[tokio::test]
async fn an_error_says_whether_the_blob_may_be_there() {
    // 5 parts and a completion: only the last leaves it open.
    for k in 1..=6 {
        let store = FaultStore::memory();
        store.fail_write(k);
        let error = upload(&store, 45).await.unwrap_err();
        assert_eq!(is_in_doubt(&error), k == 6, "{k}");
    }
    let store = FaultStore::memory();
    store.deny_all();
    assert!(!is_in_doubt(&upload(&store, 5).await.unwrap_err()));
}

#[tokio::test(start_paused = true)]
async fn a_completion_without_an_answer_is_found() {
    let store = FaultStore::memory();
    store.hang_after_write(6);
    let begun = now();
    assert_eq!(upload(&store, 45).await.unwrap(), 45);
    assert!(begun.elapsed() < Duration::from_secs(3));
}
