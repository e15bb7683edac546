//! `verify` over logs as the library itself writes and publishes them. What an
//! attacker can do is tested beside the code, where stories can be made up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::log::{Log, LogConfig};
use strongroom::audit::publish::Publisher;
use strongroom::audit::verify::{Options, Report, Severity, verify};
use strongroom::audit::voucher::Versioned;
use strongroom::audit::{Action, Intent, OutcomeResult, RingRef};
use strongroom::id::{CustomerId, StoreId};
use strongroom::store::marker::Marker;
use strongroom::system::{SystemClock, SystemEntropy};
use strongroom::time::Clock;
use strongroom::tlog::checkpoint::SignedCheckpoint;

#[path = "common/signer.rs"]
mod signer;
use signer::{authority, signer};

type Storage = Arc<dyn ObjectStore>;

const STORE: StoreId = StoreId::from_bytes([7; 16]);

async fn new_storage() -> Storage {
    let storage: Storage = Arc::new(InMemory::new());
    Marker { store: STORE, log_key: authority() }.write(&*storage).await.unwrap();
    storage
}

async fn open(storage: &Storage) -> Log {
    let config = LogConfig::new(STORE, signer());
    Log::open(Arc::clone(storage), config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await.unwrap()
}

async fn open_own(storage: &Storage) -> Log {
    let config = LogConfig::new(STORE, signer());
    Log::open_own(Arc::clone(storage), config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await.unwrap()
}

async fn work(log: &Log, whose: u8, count: usize) {
    let access = Access::new(Principal::service("test").unwrap(), Purpose::Operations);
    for _ in 0..count {
        let mut intent = Intent::new(log.request_id().unwrap(), &access, Action::Seal);
        intent.customer = Some(CustomerId::from_bytes([whose; 16]));
        let (open, _receipt) = log.begin(intent).await.unwrap();
        open.finish(OutcomeResult::Ok, None).await.unwrap();
    }
}

async fn publish(storage: &Storage, shard: u16) -> SignedCheckpoint {
    let publisher = Publisher::new(Arc::clone(storage), STORE, signer(), Duration::from_secs(60));
    publisher.publish(shard, &[]).await.unwrap().checkpoint
}

async fn copy(storage: &Storage) -> Storage {
    let copy: Storage = Arc::new(InMemory::new());
    let objects: Vec<_> = storage.list(None).try_collect().await.unwrap();
    for object in objects {
        let bytes = storage.get(&object.location).await.unwrap().bytes().await.unwrap();
        copy.put(&object.location, bytes.into()).await.unwrap();
    }
    copy
}

async fn check(storage: &Storage, pinned: &[&SignedCheckpoint]) -> Report {
    let mut options = Options::new(SystemClock.now());
    options.authority = Some(authority());
    options.pinned = pinned.iter().map(|checkpoint| (*checkpoint).clone()).collect();
    verify(Arc::clone(storage), options).await.unwrap()
}

#[tokio::test]
async fn what_the_log_writes_and_the_publisher_publishes_verifies() {
    let storage = new_storage().await;
    let (shared, own) = (open(&storage).await, open_own(&storage).await);
    work(&shared, 1, 150).await;
    work(&own, 1, 20).await;
    work(&own, 2, 5).await;
    let customer = CustomerId::from_bytes([1; 16]);
    let access = Access::new(Principal::service("test").unwrap(), Purpose::Operations);
    let ring = RingRef { version: 1, hash: [3; 32] };
    let mut intent = Intent::new(shared.request_id().unwrap(), &access, Action::RingWrite);
    (intent.customer, intent.ring) = (Some(customer), Some(ring));
    let (open, _receipt) = shared.begin(intent).await.unwrap();
    let vouched = shared.vouch(Versioned::Ring(customer), ring, open.request()).await.unwrap();
    shared.pin(&vouched).await.unwrap();
    open.finish(OutcomeResult::Ok, None).await.unwrap();
    let old = (publish(&storage, 0).await, copy(&storage).await);

    shared.record_view(customer).await.unwrap();
    let (shard, tree) = (own.head().shard(), own.head().tree());
    shared.name_shards(&[strongroom::audit::ShardHead { shard, tree }]).await.unwrap();
    work(&shared, 2, 3).await;
    work(&own, 2, 1).await;
    own.close().await.unwrap();
    let kept = [publish(&storage, 0).await, publish(&storage, shard).await];

    let report = check(&storage, &[&old.0, &kept[0], &kept[1]]).await;
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.shards.len(), 2);
    assert_eq!(report.shards[0].checkpoint.unwrap(), *kept[0].checkpoint().head());
    // Work goes on behind the checkpoint.
    work(&shared, 2, 1).await;
    let report = check(&storage, &[&kept[0]]).await;
    assert!(report.is_ok() && report.notes == 1, "{:#?}", report.findings);

    // Rolled back, it is in order by itself, but for who kept a checkpoint.
    assert!(check(&old.1, &[&old.0]).await.is_ok());
    for kept in &kept {
        let report = check(&old.1, &[kept]).await;
        let rolled_back = |text: &str| text.contains("rolled back");
        assert!(report.findings.iter().any(|finding| rolled_back(&finding.problem.to_string())));
    }
}

#[tokio::test]
async fn commits_that_come_while_it_reads_are_no_finding() {
    let storage = new_storage().await;
    let log = open(&storage).await;
    work(&log, 1, 10).await;
    let writer = tokio::spawn({
        let (log, storage) = (log.clone(), Arc::clone(&storage));
        async move {
            for _ in 0..30 {
                work(&log, 2, 3).await;
                publish(&storage, 0).await;
            }
        }
    });
    while !writer.is_finished() {
        let report = check(&storage, &[]).await;
        assert!(report.is_ok(), "{:#?}", report.findings);
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn a_deleted_object_is_named_by_its_path() {
    let storage = new_storage().await;
    let log = open(&storage).await;
    work(&log, 1, 3).await;
    publish(&storage, 0).await;
    for path in ["store", "wal/0000/0000000000000002", "tile/0/000.p/6", "tile/entries/000.p/6", "checkpoint"]
    {
        let copy = copy(&storage).await;
        copy.delete(&Path::from(path)).await.unwrap();
        let report = check(&copy, &[]).await;
        let named = |finding: &&strongroom::audit::verify::Finding| {
            finding.severity == Severity::Wrong && finding.path == path
        };
        assert!(report.findings.iter().any(|finding| named(&finding)), "{path}: {:#?}", report.findings);
    }
}
