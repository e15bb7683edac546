//! What a drop destroys goes by the paths that the log has of each blob, whoever recorded
//! them, in whatever order, and whatever they were told.

mod common;
#[path = "common/destroy.rs"]
mod destroy;
#[path = "common/faults.rs"]
mod faults;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{TestClock, options};
use destroy::{DAY, Vault, access, keys_of, opens, person, refused, seal};
use faults::FaultStore;
use object_store::ObjectStoreExt;
use strongroom::ErrorKind;
use strongroom::audit::layout::CertificateStage;
use strongroom::certificate::{CertificateBody, SurvivorClass};
use strongroom::id::{BlobId, CustomerId};
use strongroom::order::OrderKind;
use strongroom::retention::clock::AGREEMENT;
use strongroom::room::{Customer, Strongroom};
use strongroom::shred::{HoldTarget, VALIDITY};
use strongroom::store::Storages;
use strongroom::time::{Clock, Timestamp};

/// Lets the day of `blob` die, and gives what its certificate says.
async fn certified(vault: &Vault, acme: &Customer, blob: BlobId, days: u32) -> CertificateBody {
    vault.days(days).await;
    let id = refused(acme, blob).await.certificate().unwrap();
    let kept = vault.room.certificate(id, CertificateStage::Interim).await.unwrap().unwrap();
    kept.body().clone()
}

fn survivors(body: &CertificateBody) -> BTreeMap<SurvivorClass, u64> {
    body.scope.survivors.iter().map(|of| (of.class, of.blobs)).collect()
}

/// A node whose clock is as far behind as is allowed writes its extension into the log in
/// front of the seal.
#[tokio::test]
async fn an_extension_that_the_log_has_before_the_seal_is_a_path() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 1).await;
    vault.clock.pass(Duration::from_hours(2));
    let (kept, gone) = (seal(&acme, "kept").await, seal(&acme, "gone").await);

    let behind = TestClock::at("2026-11-22T02:26:13.000000Z");
    behind.set(Timestamp::from_micros(vault.clock.now().micros() - 240_000_000).unwrap());
    assert!(Duration::from_micros(240_000_000) < AGREEMENT);
    let slow = Strongroom::open(vault.raw.storages(), vault.kms.clone(), options(&behind)).await.unwrap();
    let of_slow = vault.of(&slow, "acme").await;
    let until = kept.day().plus(100);
    assert!(of_slow.extend(kept, until).await.unwrap().changed);
    slow.close().await.unwrap();

    let body = certified(&vault, &acme, gone, 9).await;
    assert_eq!(body.scope.blobs.certain, 1);
    assert_eq!(survivors(&body), [(SurvivorClass::Extended, 1)].into());
    assert_eq!(opens(&acme, kept).await, b"kept");
    assert_eq!(acme.stat(kept).await.unwrap().retain_until, until);
}

/// The new path was written, and could not be read back: its writer is told that it
/// failed. The next who asks is told that it stands, and then the log says so too.
#[tokio::test]
async fn an_extension_that_was_told_to_have_failed_is_a_path() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 1).await;
    let (kept, gone) = (seal(&acme, "kept").await, seal(&acme, "gone").await);
    let blobs = FaultStore::new(vault.raw.blobs.clone());
    let (keys, audit) = (vault.raw.keys.clone(), vault.raw.audit.clone());
    let node = vault.node_over(Storages::from_parts(Arc::new(blobs.clone()), keys, audit)).await;
    let of_node = vault.of(&node, "acme").await;
    let until = kept.day().plus(100);
    of_node.stat(kept).await.unwrap();
    blobs.fail_reads_after_a_write();
    let told = of_node.extend(kept, until).await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Unavailable);
    assert_eq!(destroy::count(&vault.raw.blobs, "wrap/").await, 1);
    blobs.heal();
    let again = of_node.extend(kept, until).await.unwrap();
    assert!(!again.changed);
    assert_eq!(again.retain_until, until);

    // As a neighbour of a blob that is destroyed early it is safe where it is.
    vault.order(OrderKind::DestroyBlob { blob: gone }, Some(&acme)).await;
    assert_eq!(destroy::count(&vault.raw.blobs, "wrap/").await, 1);
    let body = certified(&vault, &acme, gone, 9).await;
    assert_eq!((body.scope.blobs.certain, survivors(&body)), (1, [(SurvivorClass::Extended, 1)].into()));
    assert_eq!(opens(&acme, kept).await, b"kept");
}

/// An order that was taken back leaves a blob like any other.
#[tokio::test]
async fn a_blob_that_was_spared_is_a_neighbour_like_any_other() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 30).await;
    let (spared, victim) = (seal(&acme, "spared").await, seal(&acme, "victim").await);
    let first = vault.order(OrderKind::DestroyBlob { blob: spared }, Some(&acme)).await;
    assert_eq!(refused(&acme, spared).await.kind(), ErrorKind::Denied);
    vault.room.cancel_shred(&access(), acme.id(), &keys_of(&first)).await.unwrap();
    let fresh = vault.node().await;
    assert_eq!(opens(&vault.of(&fresh, "acme").await, spared).await, b"spared");
    assert!(acme.extend(spared, spared.day().plus(5)).await.unwrap().changed);

    vault.order(OrderKind::DestroyBlob { blob: victim }, Some(&acme)).await;
    let body = certified(&vault, &acme, victim, 9).await;
    assert_eq!((body.scope.blobs.certain, survivors(&body)), (1, [(SurvivorClass::Extended, 1)].into()));
    assert_eq!(opens(&acme, spared).await, b"spared");
    vault.days(35).await;
    assert_eq!(refused(&acme, spared).await.kind(), ErrorKind::KeyDestroyed);
}

/// More keys are due at once than one certificate is to have room for.
#[tokio::test]
async fn many_keys_are_dropped_in_several_versions_and_each_is_certified() {
    const KEYS: u32 = 70;
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 1).await;
    let mut blobs = Vec::new();
    for _ in 0..KEYS {
        blobs.push(seal(&acme, "a").await);
        vault.clock.pass(DAY);
        vault.room.trusted_time(&access(), None).await.unwrap();
    }
    vault.clock.pass(DAY * 2);
    vault.order(OrderKind::SetClock { at: vault.clock.now() }, None).await;
    let pended: usize = vault.sweep().await.values().map(|swept| swept.pended.len()).sum();
    assert!(pended >= KEYS as usize, "{pended}");
    for _ in 0..7 {
        vault.clock.pass(DAY);
        vault.room.trusted_time(&access(), None).await.unwrap();
    }
    let swept = vault.sweep().await.remove(&acme.id()).unwrap();
    assert_eq!(swept.dropped.len(), pended);
    assert!(swept.certificates.len() >= 2);
    let mut certain = 0;
    for id in swept.certificates.keys() {
        let kept = vault.room.certificate(*id, CertificateStage::Interim).await.unwrap().unwrap();
        assert!(kept.body().scope.keys.len() <= 64);
        certain += kept.body().scope.blobs.certain;
    }
    assert_eq!(certain, u64::from(KEYS));
    for blob in blobs {
        let id = refused(&acme, blob).await.certificate().unwrap();
        assert!(swept.certificates.contains_key(&id));
    }
}

/// Somebody takes a shard of the log away: what was sealed by it would look as if it had never been.
#[tokio::test]
async fn a_shard_that_was_taken_away_stops_what_goes_by_paths() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let victim = seal(&acme, "victim").await;
    let mut own = options(&vault.clock);
    own.own_shard = true;
    let node = Strongroom::open(vault.raw.storages(), vault.kms.clone(), own).await.unwrap();
    let neighbour = seal(&vault.of(&node, "acme").await, "neighbour").await;
    node.close().await.unwrap();
    vault.room.publish_log().await.unwrap();
    let mut hidden = common::objects(&vault.raw.audit).await;
    hidden.retain(|(path, _)| path.as_ref().starts_with("wal/") && !path.as_ref().starts_with("wal/0000/"));
    assert!(!hidden.is_empty(), "the node had a shard of its own");
    for (path, _) in &hidden {
        vault.raw.audit.delete(path).await.unwrap();
    }
    let id = vault.request(OrderKind::DestroyBlob { blob: victim }, Some(&acme)).await;
    let mut failed: Vec<_> =
        vault.room.approve_order(&access(), id, &destroy::key("b")).await.err().into_iter().collect();
    for _ in 0..9 {
        vault.clock.pass(DAY);
        let sweep = vault.room.sweep(&access()).await.unwrap();
        failed.extend(sweep.customers.into_values().filter_map(Result::err));
    }
    assert!(failed.iter().any(|error| error.kind() == ErrorKind::Integrity), "{failed:?}");
    assert_eq!(opens(&acme, neighbour).await, b"neighbour");
    // When it is there again, the order goes on.
    for (path, bytes) in hidden {
        vault.raw.audit.put(&path, bytes.into()).await.unwrap();
    }
    vault.days(9).await;
    assert_eq!(opens(&acme, neighbour).await, b"neighbour");
    assert_eq!(refused(&acme, victim).await.kind(), ErrorKind::KeyDestroyed);
}

#[tokio::test]
async fn every_future_can_move_between_threads() {
    fn moves<T: Send>(work: T) {
        drop(work);
    }
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 1).await;
    let (room, access, blob) = (&vault.room, access(), seal(&acme, "a").await);
    let (customer, order): (CustomerId, _) = (acme.id(), OrderKind::DestroyBlob { blob });
    let id = vault.request(order.clone(), Some(&acme)).await;
    let time = room.destruction_time(&access).await.unwrap();
    let key = destroy::key("b");
    moves(room.sweep(&access));
    moves(room.destruction_time(&access));
    moves(room.plan_customer(&access, customer, &time));
    moves(room.shred_status(&access, &[customer].into()));
    moves(room.draft_order(&access, order, Some(customer), person("a"), VALIDITY));
    moves(room.approve_order(&access, id, &key));
    moves(room.orders(&access));
    moves(room.remove_remains(&access, customer));
    moves(acme.place_hold(HoldTarget::Blob(blob)));
    moves(acme.extend(blob, blob.day().plus(1)));
    moves(room.destroy_customer(&access, customer, None));
    moves(room.reopen_customer(&access, customer));
}
