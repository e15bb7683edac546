//! What was allowed when it began is cut when it is allowed no longer: streams in flight
//! when a key is disabled in the KMS, or destroyed.

#[path = "common/mod.rs"]
mod common;
#[path = "common/destroy.rs"]
mod destroy;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use strongroom::audit::{Action, OutcomeResult};
use strongroom::kms::local::InsecureLocalKms;
use strongroom::kms::{KmsDestroyer, KmsRegistry};
use strongroom::room::SealOptions;
use strongroom::system::SystemEntropy;
use strongroom::{ErrorKind, Result};

use common::{Raw, TestClock, new_store, operations, options, pattern, records_since};
use destroy::{DAY, Vault};

const LENGTH: usize = 24 << 20;

/// Takes what still comes, and says how much that was and how it ended.
async fn rest(mut stream: BoxStream<'static, Result<Bytes>>) -> (usize, Option<ErrorKind>) {
    let mut taken = 0;
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => taken += piece.len(),
            Err(error) => return (taken, Some(error.kind())),
        }
    }
    (taken, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_flight_ends_when_the_customers_key_is_disabled() {
    let (directory, raw) = (tempfile::tempdir().unwrap(), Raw::default());
    let clock = TestClock::at("2026-11-22T02:26:13.000000Z");
    let kms = InsecureLocalKms::open(directory.path().join("kms"), clock.clone(), Arc::new(SystemEntropy));
    let kms = Arc::new(kms.unwrap());
    let registry = KmsRegistry::new().with(Arc::clone(&kms) as _);
    let ttl = Duration::from_secs(30);
    let mut options = options(&clock);
    options.key_ttl = ttl;
    let (room, acme) = new_store(&raw, &registry, options).await;
    let blob = acme.seal(pattern(LENGTH), SealOptions::new()).await.unwrap().id;
    let key = acme.info().await.unwrap().kms_key;

    let mut stream = acme.open(blob).await.unwrap().into_stream();
    let first = stream.next().await.unwrap().unwrap().len();
    kms.disable(&key).await.unwrap();
    // Within the term the key that is in memory goes on.
    let second = stream.next().await.unwrap().unwrap().len();
    let from = room.log().head().next();
    clock.pass(ttl + Duration::from_secs(1));
    let (taken, end) = rest(stream).await;
    assert_eq!((taken, end), (0, Some(ErrorKind::KeyUnavailable)));
    // The bytes that left are on record.
    let records = records_since(&room, 0).await;
    let opened = operations(&records).into_iter().filter(|(intent, _)| intent.action == Action::Open);
    let ended: Vec<_> = opened.map(|(_, outcome)| outcome.unwrap().clone()).collect();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].result, OutcomeResult::KeyUnavailable);
    assert_eq!(ended[0].bytes, Some((first + second) as u64));
    assert!(room.log().head().next() > from);

    kms.enable(&key).await.unwrap();
    clock.pass(ttl);
    let (taken, end) = rest(acme.open(blob).await.unwrap().into_stream()).await;
    assert_eq!((taken, end), (LENGTH, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_flight_ends_when_its_key_is_dropped() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 3).await;
    let blob = acme.seal(pattern(LENGTH), SealOptions::new()).await.unwrap().id;
    vault.days(4).await;
    vault.days(6).await;
    let mut stream = acme.open(blob).await.unwrap().into_stream();
    stream.next().await.unwrap().unwrap();
    // Its window ends.
    vault.clock.pass(DAY);
    assert_eq!(vault.sweep().await[&acme.id()].dropped.len(), 1);
    let (_, end) = rest(stream).await;
    assert_eq!(end, Some(ErrorKind::KeyDestroyed));
}
