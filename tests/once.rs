//! Idempotency keys: what is sent twice is stored once, and nothing is taken for it that
//! is not the same.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::ErrorKind;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::query::{self, Filter};
use strongroom::audit::{Action, OutcomeResult};
use strongroom::envelope::Metadata;
use strongroom::room::{Customer, SealOptions};

use common::{Fixture, add_customer, fixture, operations, pattern, read, records_since, write};

fn once(key: &str) -> SealOptions {
    SealOptions::new().once(key.parse().unwrap())
}

fn named(key: &str, name: &str) -> SealOptions {
    once(key).metadata(Metadata::new().with_name(name.parse().unwrap()))
}

async fn blobs(of: &Customer) -> BTreeSet<String> {
    let listed: Vec<_> = of.list().try_collect().await.unwrap();
    listed.iter().map(|listed| listed.id.to_string()).collect()
}

/// The claims on the storage of blobs.
async fn claims(fixture: &Fixture) -> Vec<Path> {
    let objects: Vec<_> = fixture.raw.blobs.list(Some(&"once".into())).try_collect().await.unwrap();
    objects.into_iter().map(|object| object.location).collect()
}

#[tokio::test]
async fn what_is_sent_twice_is_stored_once() {
    for length in [0, 1, 16 * 1024, 3 * 1024 * 1024 + 1] {
        let fixture = fixture().await;
        let first = fixture.acme.seal(pattern(length), named("k", "db/nightly")).await.unwrap();
        assert!(!first.replayed);
        let begin = records_since(&fixture.room, 0).await.len();
        fixture.clock.pass(Duration::from_hours(23));
        let node = fixture.reopen().await.unwrap();
        let acme = node.customer(&"acme".parse().unwrap(), common::access()).await.unwrap();
        let again = acme.seal(pattern(length), named("k", "db/nightly")).await.unwrap();
        assert!(again.replayed);
        assert_eq!((again.id, again.bytes, again.stored_bytes), (first.id, first.bytes, first.stored_bytes));
        assert_eq!(again.retain_until, first.retain_until);
        assert_eq!(blobs(&acme).await, BTreeSet::from([first.id.to_string()]));
        // No key of the customer's was used for it.
        let records = records_since(&node, begin as u64).await;
        assert!(!operations(&records).iter().any(|(intent, _)| intent.action == Action::Seal));
    }
}

#[tokio::test]
async fn other_bytes_or_another_name_under_one_key_are_refused() {
    let fixture = fixture().await;
    let first = fixture.acme.seal(pattern(5), named("k", "monday")).await.unwrap();
    let refused = [
        (pattern(6), named("k", "monday")),
        (pattern(4), named("k", "monday")),
        (b"other".to_vec().into(), named("k", "monday")),
        (pattern(5), named("k", "tuesday")),
        (pattern(5), once("k")),
    ];
    for (bytes, options) in refused {
        let error = fixture.acme.seal(bytes, options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("take another one"), "{error}");
    }
    assert_eq!(blobs(&fixture.acme).await, BTreeSet::from([first.id.to_string()]));
}

#[tokio::test]
async fn a_key_is_one_principals_and_one_customers() {
    let fixture = fixture().await;
    let first = fixture.acme.seal(pattern(5), once("k")).await.unwrap();
    let other = Access::new(Principal::service("other").unwrap(), Purpose::Operations);
    let others = fixture.room.customer(&"acme".parse().unwrap(), other).await.unwrap();
    let second = others.seal(pattern(5), once("k")).await.unwrap();
    let beta = add_customer(&fixture.room, "beta").await;
    let third = beta.seal(pattern(5), once("k")).await.unwrap();
    assert!([second.replayed, third.replayed] == [false; 2] && second.id != first.id);
    let stored: Vec<_> = claims(&fixture).await;
    assert_eq!(stored.len(), 3);
    // Neither the key nor the principal is to be seen there.
    for path in stored {
        let object = read(&fixture.raw.blobs, &path).await;
        assert!(!path.as_ref().contains("tests") && !object.windows(5).any(|bytes| bytes == b"tests"));
    }
}

#[tokio::test]
async fn an_old_key_is_refused_until_it_is_removed() {
    let fixture = fixture().await;
    let first = fixture.acme.seal(pattern(5), once("k")).await.unwrap();
    fixture.clock.pass(Duration::from_hours(24) + Duration::from_secs(1));
    let error = fixture.acme.seal(pattern(5), once("k")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("more than 24 hours ago"), "{error}");
    // The storage's own clock is the machine's: what was just written is new.
    fixture.clock.set(now());
    assert_eq!(fixture.room.remove_old_claims().await.unwrap(), 0);
    fixture.clock.pass(Duration::from_hours(73));
    assert_eq!(fixture.room.remove_old_claims().await.unwrap(), 1);
    assert_eq!(claims(&fixture).await.len(), 0);
    let second = fixture.acme.seal(pattern(5), once("k")).await.unwrap();
    assert!(!second.replayed && second.id != first.id);
    assert_eq!(blobs(&fixture.acme).await.len(), 2);
}

fn now() -> strongroom::time::Timestamp {
    use strongroom::time::Clock as _;
    strongroom::system::SystemClock.now()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_stores() {
    let fixture = fixture().await;
    for round in 0..10 {
        let key = format!("k{round}");
        let nodes = join_all((0..4).map(|_| fixture.reopen())).await;
        let attempts = nodes.iter().map(|node| {
            let options = once(&key);
            async move {
                let acme = node.as_ref().unwrap().customer(&"acme".parse().unwrap(), common::access()).await;
                acme.unwrap().seal(pattern(100_000), options).await.unwrap()
            }
        });
        let sealed = join_all(attempts).await;
        let ids: BTreeSet<_> = sealed.iter().map(|sealed| sealed.id).collect();
        assert_eq!(ids.len(), 1, "round {round}");
        assert_eq!(sealed.iter().filter(|sealed| !sealed.replayed).count(), 1);
        assert_eq!(blobs(&fixture.acme).await.len(), round + 1);
    }
    // Who was late is on record as that.
    // Nodes that meet go to shards of their own.
    let seals = Filter { action: Some(Action::Seal), ..Filter::default() };
    let found = query::operations(&fixture.room.log_reader(), &seals, None);
    let found: Vec<_> = found.try_collect().await.unwrap();
    let results: Vec<_> = found.iter().map(|operation| operation.outcome().unwrap().result).collect();
    assert_eq!(results.iter().filter(|result| **result == OutcomeResult::Ok).count(), 10);
    assert!(results.iter().all(|result| matches!(result, OutcomeResult::Ok | OutcomeResult::Conflict)));
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_a_blob_is_waited_for_and_then_given_up() {
    let fixture = fixture().await;
    let first = fixture.acme.seal(pattern(5), once("k")).await.unwrap();
    // As if it had stopped between its claim and its blob.
    let path = strongroom::store::layout::blob(fixture.acme.id(), first.id);
    fixture.raw.blobs.delete(&path).await.unwrap();
    let error = fixture.acme.seal(pattern(5), once("k")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    fixture.clock.pass(Duration::from_mins(10) + Duration::from_secs(1));
    let second = fixture.acme.seal(pattern(5), once("k")).await.unwrap();
    assert!(!second.replayed && second.id != first.id);
    let third = fixture.acme.seal(pattern(5), once("k")).await.unwrap();
    assert_eq!((third.id, third.replayed), (second.id, true));
}

#[tokio::test]
async fn the_storage_cannot_make_a_key_stand_for_another_blob() {
    let fixture = fixture().await;
    fixture.acme.seal(pattern(5), once("a")).await.unwrap();
    let [of_a] = claims(&fixture).await.try_into().unwrap();
    fixture.acme.seal(pattern(5), once("b")).await.unwrap();
    let of_b = claims(&fixture).await.into_iter().find(|path| *path != of_a).unwrap();
    let stolen = read(&fixture.raw.blobs, &of_a).await;
    write(&fixture.raw.blobs, &of_b, stolen).await;
    let error = fixture.acme.seal(pattern(5), once("b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    write(&fixture.raw.blobs, &of_b, b"SRM-ONCE".to_vec()).await;
    let error = fixture.acme.seal(pattern(5), once("b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
}

#[tokio::test]
async fn a_source_that_breaks_off_claims_nothing() {
    let fixture = fixture().await;
    let pieces = [Ok(pattern(10)), Err(std::io::Error::other("the pipe broke"))];
    let source = strongroom::room::Source::stream(futures_util::stream::iter(pieces));
    let error = fixture.acme.seal(source, once("k")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(claims(&fixture).await.len(), 0);
    let sealed = fixture.acme.seal(pattern(10), once("k")).await.unwrap();
    assert!(!sealed.replayed);
}

#[tokio::test]
async fn it_is_kept_a_day_longer() {
    let fixture = fixture().await;
    let plain = fixture.acme.seal(pattern(5), SealOptions::new()).await.unwrap();
    let keyed = fixture.acme.seal(pattern(5), once("k")).await.unwrap();
    assert_eq!(keyed.retain_until, plain.retain_until.plus(1));
}
