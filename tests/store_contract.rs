//! What every storage must do: one suite, run on each of them.
//!
//! S3 is LocalStack's, where `localstack/run` set one up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use strongroom::ErrorKind;
use strongroom::store::upload::{BlobWriter, PartPlan};
use strongroom::store::{CreateRoot, StorageUrl, StorageUrls, Storages, store_error};
use strongroom::system::SystemClock;

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    let urls = StorageUrls::new(StorageUrl::memory());
    suite(&open(&urls).await).await;
    suite(&Storages::memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files() {
    let dir = tempfile::tempdir().unwrap();
    let urls = StorageUrls::new(StorageUrl::directory(dir.path()).unwrap());
    suite(&open(&urls).await).await;

    // Not even a staging file is left, though a dropped writer cleans up later.
    for _ in 0..500 {
        if staging_files(dir.path()).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("left: {:?}", staging_files(dir.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    let Some([blobs, keys, audit]) = localstack() else { return };
    #[cfg(feature = "aws")]
    {
        use strongroom::entropy::Entropy;

        let mut run = [0; 8];
        strongroom::system::SystemEntropy.fill(&mut run).unwrap();
        let run = u64::from_le_bytes(run);
        let url = |bucket: &str| format!("s3://{bucket}/contract-{run:016x}").parse::<StorageUrl>().unwrap();
        let urls = StorageUrls {
            root: StorageUrl::memory(),
            blobs: Some(url(&blobs)),
            keys: Some(url(&keys)),
            audit: Some(url(&audit)),
        };
        let storages = open(&urls).await;
        assert_eq!(storages.kind(), strongroom::store::StorageKind::Cloud);
        suite(&storages).await;
        // Whether the bucket has the rule is not ours to say; that it answers is.
        assert!(storages.removes_abandoned_parts().await.unwrap().is_some());

        let missing = StorageUrls::new(url("strongroom-no-such-bucket"));
        let storages = open(&missing).await;
        let body = Bytes::from_static(b"x");
        let error = storages.blobs.put(&Path::from("x"), body.into()).await.unwrap_err();
        let error = store_error(error, "write");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error:?}");
    }
    #[cfg(not(feature = "aws"))]
    panic!("LocalStack is there ({blobs}, {keys}, {audit}), feature `aws` is not");
}

/// The three buckets, or `None` and a word about it.
#[allow(clippy::print_stderr, reason = "a test that did not run says so")]
fn localstack() -> Option<[String; 3]> {
    let reason = "STRONGROOM_TEST_LOCALSTACK is not set; run the tests through `localstack/run`";
    if std::env::var_os("STRONGROOM_TEST_LOCALSTACK").is_none() {
        let required = std::env::var("STRONGROOM_TEST_REQUIRE_LOCALSTACK");
        assert!(required.as_deref() != Ok("1"), "{reason}");
        eprintln!("NOT RUN: {reason}");
        return None;
    }
    let bucket = |name: &str| {
        std::env::var(format!("STRONGROOM_TEST_BUCKET_{name}")).expect("`localstack/run` sets the buckets")
    };
    Some([bucket("BLOBS"), bucket("KEYS"), bucket("AUDIT")])
}

async fn open(urls: &StorageUrls) -> Storages {
    let clock = Arc::new(SystemClock);
    Storages::open(urls, CreateRoot::Yes, clock).await.expect("the storages of a test open")
}

async fn suite(storages: &Storages) {
    for store in [&storages.blobs, &storages.keys, &storages.audit] {
        one_of_many_creates(store).await;
        what_is_written_is_read(store).await;
        lists_are_complete(store).await;
        missing_objects_are_not_found(store).await;
    }
    let plan = PartPlan::new(storages.kind());
    unfinished_blobs_are_invisible(&storages.blobs, plan).await;
    long_and_short_blobs_arrive(&storages.blobs, plan).await;
}

async fn one_of_many_creates(store: &Arc<dyn ObjectStore>) {
    for round in 0..4 {
        let path = Path::from(format!("race/{round}"));
        let writers = (0..16).map(|writer| {
            let (store, path) = (Arc::clone(store), path.clone());
            tokio::spawn(async move {
                let body = Bytes::from(format!("writer {writer}"));
                let put = store.put_opts(&path, body.clone().into(), PutOptions::from(PutMode::Create)).await;
                put.map(|_| body).map_err(|error| store_error(error, "create"))
            })
        });
        let mut winners = Vec::new();
        for result in join_all(writers).await {
            match result.expect("no writer panics") {
                Ok(body) => winners.push(body),
                Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}"),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(read(store, &path).await, winners[0]);
    }
}

async fn what_is_written_is_read(store: &Arc<dyn ObjectStore>) {
    let path = Path::from("read/object");
    let body = pattern(3_000_000);
    store.put(&path, body.clone().into()).await.expect("it is written");
    assert_eq!(read(store, &path).await, body);
    assert_eq!(store.head(&path).await.expect("it is there").size, 3_000_000);
    for range in [0..1, 1_999_999..2_500_001, 2_999_999..3_000_000] {
        let place = |at| usize::try_from(at).expect("it is small");
        let want = body.slice(place(range.start)..place(range.end));
        assert_eq!(store.get_range(&path, range).await.expect("a range is read"), want);
    }
    let ranges = [5..10, 2_000_000..2_000_001, 10..20];
    let parts = store.get_ranges(&path, &ranges).await.expect("ranges are read");
    assert_eq!(parts, [body.slice(5..10), body.slice(2_000_000..2_000_001), body.slice(10..20)]);

    let beyond = store.get_range(&path, 3_000_000..3_000_001).await;
    let error = store_error(beyond.expect_err("there is nothing"), "read");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");

    let empty = Path::from("read/empty");
    store.put(&empty, Bytes::new().into()).await.expect("it is written");
    assert_eq!(read(store, &empty).await, Bytes::new());
}

async fn lists_are_complete(store: &Arc<dyn ObjectStore>) {
    let mut paths: Vec<_> = (0..25).map(|i| Path::from(format!("list/{}/{i:03}", i % 3))).collect();
    for path in &paths {
        store.put(path, "x".into()).await.expect("it is written");
    }
    paths.sort();
    let prefix = Path::from("list");
    let metas: Vec<_> = store.list(Some(&prefix)).try_collect().await.expect("a list");
    let mut listed: Vec<_> = metas.into_iter().map(|meta| meta.location).collect();
    listed.sort();
    assert_eq!(listed, paths);

    let after: Vec<_> =
        store.list_with_offset(Some(&prefix), &paths[10]).try_collect().await.expect("a list");
    assert_eq!(after.len(), 14);
    let level = store.list_with_delimiter(Some(&prefix)).await.expect("a level");
    assert_eq!((level.common_prefixes.len(), level.objects.len()), (3, 0));
}

async fn missing_objects_are_not_found(store: &Arc<dyn ObjectStore>) {
    let path = Path::from("missing");
    for error in [
        store.get(&path).await.map(drop).expect_err("it is missing"),
        store.head(&path).await.map(drop).expect_err("it is missing"),
        store.get_range(&path, 0..9).await.map(drop).expect_err("it is missing"),
    ] {
        let error = store_error(error, "read");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    }
}

async fn unfinished_blobs_are_invisible(store: &Arc<dyn ObjectStore>, plan: PartPlan) {
    let prefix = Path::from("unfinished");
    let nothing = async || {
        let seen: Vec<_> = store.list(Some(&prefix)).try_collect().await.expect("a list");
        assert!(seen.is_empty(), "{seen:?}");
    };
    for (name, len) in [("short", 1000), ("long", 20 << 20)] {
        let path = prefix.clone().join(name);
        let body = pattern(len);
        for give_up in [true, false] {
            let mut writer = BlobWriter::new(Arc::clone(store), path.clone(), plan);
            writer.write(body.clone()).await.expect("it is taken");
            nothing().await;
            if give_up {
                writer.abort().await.expect("parts are removed");
            } else {
                drop(writer);
            }
            nothing().await;
        }
        let mut writer = BlobWriter::new(Arc::clone(store), path.clone(), plan);
        writer.write(body.clone()).await.expect("it is taken");
        assert_eq!(writer.finish().await.expect("it is finished"), len as u64);
        assert_eq!(read(store, &path).await, body);
        store.delete(&path).await.expect("it is deleted");
        nothing().await;
    }
}

async fn long_and_short_blobs_arrive(store: &Arc<dyn ObjectStore>, plan: PartPlan) {
    let first = plan.part_len(0).expect("there is a first part");
    for (len, step) in [
        (0, 1),
        (1, 1),
        (100_000, 777),
        (first, 16_400),
        (first + 1, 16_400),
        (2 * first, 1 << 20),
        ((40 << 20) + 12_345, 16_400),
    ] {
        let path = Path::from(format!("blobs/{len}"));
        let body = pattern(len);
        let mut writer = BlobWriter::new(Arc::clone(store), path.clone(), plan);
        let mut rest = body.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(step.min(rest.len()));
            writer.write(piece).await.expect("it is taken");
        }
        assert_eq!(writer.written(), len as u64);
        assert_eq!(writer.finish().await.expect("it is finished"), len as u64);
        assert!(read(store, &path).await == body, "{len}");
    }
}

async fn read(store: &Arc<dyn ObjectStore>, path: &Path) -> Bytes {
    store.get(path).await.expect("it is there").bytes().await.expect("it is read")
}

/// Bytes that do not repeat at a power of two.
fn pattern(len: usize) -> Bytes {
    (0u8..=250).cycle().take(len).collect()
}

fn staging_files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(staging_files(&path));
        } else if path.to_string_lossy().contains('#') {
            found.push(path);
        }
    }
    found
}
