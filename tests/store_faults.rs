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
use strongroom::store::upload::{BlobWriter, PartPlan};
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
