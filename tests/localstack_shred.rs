//! Destruction on S3 and AWS KMS, as LocalStack plays them, as far as it goes in its time:
//! up to keys whose deletion is pending. Where days have to pass the storages are in
//! memory, because the clock of S3 would be asked, and cannot be moved.
#![cfg(feature = "aws")]

#[path = "common/mod.rs"]
mod common;
#[path = "common/destroy.rs"]
mod destroy;
#[path = "common/localstack.rs"]
mod prepared;

use std::sync::Arc;
use std::time::Duration;

use common::signer::signer;
use destroy::{DAY, Vault, access, day, keys_of, opens, order, people, refused, seal};
use object_store::ObjectStoreExt;
use strongroom::ErrorKind;
use strongroom::audit::layout::CertificateStage;
use strongroom::audit::log::verify_chain;
use strongroom::audit::{Action, Event};
use strongroom::certificate::{self, Assurance, Category};
use strongroom::id::{CertificateId, KmsKeyId};
use strongroom::kms::aws::AwsKms;
use strongroom::kms::{KeyState, Kms, KmsDestroyer, KmsRegistry};
use strongroom::order::{OrderKind, ReturnTo};
use strongroom::register::EpochPhase;
use strongroom::ring::HoldState;
use strongroom::room::{Customer, KeyChoice, NewCustomer, Options, Strongroom};
use strongroom::shred::epoch::{FinishOptions, KmsSays, StepTaken};
use strongroom::shred::offboard::{CustomerKeyEnd, Stage};
use strongroom::shred::{HoldTarget, OrderState, Verdict};
use strongroom::store::{CreateRoot, StorageUrls, Storages, layout};
use strongroom::system::SystemClock;
use strongroom::time::Clock;

use prepared::{Prepared, localstack};

/// Where all keys are made, on the test's own clock.
async fn vault() -> Vault {
    // AWS KMS says when it means to delete a key: by the clock of today.
    Vault::over(&SystemClock.now().to_string(), |_| Arc::new(AwsKms::from_env())).await
}

/// The three buckets, in a folder of this run, as the buckets outlive a test.
async fn buckets(prepared: &Prepared, folder: &str) -> Storages {
    let folder = format!("{folder}-{}", std::process::id());
    let url = |bucket: &str| format!("s3://{bucket}/{folder}").parse().unwrap();
    let urls = StorageUrls {
        // The one that keeps versions.
        blobs: Some(url(&prepared.keys)),
        keys: Some(url(&prepared.keys)),
        audit: Some(url(&prepared.audit)),
        ..StorageUrls::new(url(&prepared.blobs))
    };
    Storages::open(&urls, CreateRoot::No, Arc::new(SystemClock)).await.unwrap()
}

async fn kms_key(customer: &Customer) -> KmsKeyId {
    customer.info().await.unwrap().kms_key
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_on_s3_is_ordered_into_the_window_and_taken_out_again() {
    let Some(prepared) = localstack() else { return };
    let storages = buckets(&prepared, "shred").await;
    let kms = KmsRegistry::new().with(Arc::new(AwsKms::from_env()));
    let mut options = Options::new(signer());
    options.people = people();
    let epoch_key = KeyChoice::New("aws-kms".into());
    let (room, _) =
        Strongroom::init(storages.clone(), kms.clone(), epoch_key, &access(), options).await.unwrap();
    let new = NewCustomer::new("acme".parse().unwrap(), KeyChoice::New("aws-kms".into()));
    room.add_customer(&access(), new).await.unwrap();
    let acme = room.customer(&"acme".parse().unwrap(), access()).await.unwrap();
    let (held, other) = (seal(&acme, "held").await, seal(&acme, "other").await);
    assert_eq!(held.day(), other.day());
    let placed = acme.place_hold(HoldTarget::Blob(held)).await.unwrap();
    assert_eq!(placed.hold.state, HoldState::Complete);

    // S3 tells whole seconds, and by them people sign only from when they were registered.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Two clocks agree: that of this machine, and S3's.
    let time = room.destruction_time(&access()).await.unwrap();
    assert!(time.readings().len() >= 2, "{:?}", time.readings());
    let what = || OrderKind::DestroyDays { days: vec![other.day()] };
    let verdicts = async || {
        let plan = room.plan_customer(&access(), acme.id(), &time).await.unwrap();
        plan.keys.into_iter().map(|key| (key.key, key.verdict)).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        let executed = order(&room, what(), Some(&acme)).await;
        let keys = keys_of(&executed);
        assert_eq!(keys.len(), 1);
        let waiting = verdicts().await;
        assert!(
            waiting.iter().all(|(key, verdict)| {
                keys.contains(key) && matches!(verdict, Verdict::Waits(_, Some(_)))
            })
        );
        assert_eq!(waiting.len(), 1);
        // In the window both open yet, on another node too.
        let node = Strongroom::open(storages.clone(), kms.clone(), Options::new(signer())).await.unwrap();
        for room in [&room, &node] {
            let acme = room.customer(&"acme".parse().unwrap(), access()).await.unwrap();
            assert_eq!(opens(&acme, held).await, b"held");
            assert_eq!(opens(&acme, other).await, b"other");
        }
        node.close().await.unwrap();
        let swept = room.sweep(&access()).await.unwrap().customers.remove(&acme.id()).unwrap().unwrap();
        assert!(swept.dropped.is_empty() && swept.certificates.is_empty(), "the window is not over");
        room.cancel_shred(&access(), acme.id(), &keys).await.unwrap();
        assert_eq!(verdicts().await, []);
    }
    // What was taken back stays taken back: an order counts once.
    room.sweep(&access()).await.unwrap();
    assert_eq!(verdicts().await, []);
    order(&room, what(), Some(&acme)).await;
    assert_eq!(verdicts().await.len(), 1);
    let orders = room.orders(&access()).await.unwrap();
    let count = |state| orders.iter().filter(|order| order.state == state).count();
    assert_eq!((count(OrderState::Cancelled), count(OrderState::UnderWay), orders.len()), (2, 1, 3));
    let (store, authority) = (room.store_id(), room.log().authority());
    room.close().await.unwrap();
    verify_chain(storages.audit, store, 0, authority).await.unwrap();
}

/// What is done now about the only epoch that ends. AWS KMS keeps its keys for 30 days
/// here, so that it does not mean to delete them before the test's clock has come there.
async fn finish(vault: &Vault) -> StepTaken {
    let options = FinishOptions { days: 30, ..FinishOptions::default() };
    let mut steps = vault.room.finish_epochs(&access(), &vault.destroyers, options).await.unwrap();
    assert_eq!(steps.len(), 1, "{steps:?}");
    steps.remove(0).result.unwrap()
}

async fn phase(vault: &Vault, epoch: u32) -> (KmsKeyId, EpochPhase) {
    let register = vault.room.register(&access()).await.unwrap();
    let epoch = register.epoch_state(epoch).unwrap();
    (epoch.kms_key.clone(), epoch.state)
}

/// That an interim certificate stands by itself and claims nothing yet, and that there is
/// no final one.
async fn is_interim(vault: &Vault, id: CertificateId) {
    let kept = vault.room.certificate(id, CertificateStage::Interim).await.unwrap().unwrap();
    let authority = vault.room.log().authority();
    let verified = certificate::verify(kept.to_note().as_bytes(), &authority, &[], 0).unwrap();
    let method = &verified.body.method;
    assert_eq!((method.category, method.assurance), (Category::Pending, Assurance::ReportedGone));
    assert!(vault.room.certificate(id, CertificateStage::Final).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_goes_to_pending_deletion_and_begins_anew_when_that_is_cancelled() {
    let Some(_prepared) = localstack() else { return };
    let vault = vault().await;
    let aws = AwsKms::from_env();
    let (acme, globex) = (vault.customer("acme", 3).await, vault.customer("globex", 3).await);
    let (blob, theirs) = (seal(&acme, "acme's").await, seal(&globex, "globex's").await);
    let backup = vault.raw.fork();

    // The customer's key that is disabled delays nobody, itself included.
    aws.disable(&kms_key(&globex).await).await.unwrap();
    vault.days(10).await;
    assert_eq!(opens(&acme, blob).await, b"acme's", "it is in the window");
    let unusable = vault.of(&vault.node().await, "globex").await;
    assert_eq!(refused(&unusable, theirs).await.kind(), ErrorKind::KeyUnavailable);
    vault.days(1).await;
    let mut certificates = Vec::new();
    for (customer, blob) in [(&acme, blob), (&globex, theirs)] {
        let error = refused(customer, blob).await;
        assert_eq!(error.kind(), ErrorKind::KeyDestroyed, "{}", error.chain());
        certificates.push(error.certificate().unwrap());
        is_interim(&vault, certificates[certificates.len() - 1]).await;
    }

    let rotated = vault.room.rotate_epoch(&access(), KeyChoice::New("aws-kms".into())).await.unwrap();
    assert_eq!((rotated.reissued, rotated.retired, rotated.left_behind), (2, vec![1], vec![]));
    let (key, _) = phase(&vault, 1).await;
    assert!(matches!(finish(&vault).await, StepTaken::Disabled { .. }));
    assert_eq!(aws.describe(&key).await.unwrap(), KeyState::Disabled);
    // AWS KMS opens nothing of a backup any more.
    let restored = vault.node_over(backup.fork().storages()).await;
    let error = restored.customer(&"acme".parse().unwrap(), access()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyUnavailable, "{}", error.chain());
    assert!(matches!(finish(&vault).await, StepTaken::Waits { .. }), "it is watched for a day");
    vault.days(1).await;
    let StepTaken::Scheduled { due } = finish(&vault).await else { panic!("not scheduled") };
    assert_eq!(aws.describe(&key).await.unwrap(), KeyState::PendingDeletion(Some(due)));
    assert_eq!(finish(&vault).await, StepTaken::Waits { until: due });

    // Somebody takes it back.
    aws.cancel_deletion(&key).await.unwrap();
    let kms = KmsSays::State(KeyState::Disabled);
    assert_eq!(finish(&vault).await, StepTaken::Unexpected { kms, begins_anew: true });
    assert!(matches!(phase(&vault, 1).await.1, EpochPhase::Retired { .. }));
    vault.sweep().await;
    assert!(matches!(finish(&vault).await, StepTaken::Disabled { .. }));
    vault.days(1).await;
    let StepTaken::Scheduled { due } = finish(&vault).await else { panic!("not scheduled") };
    assert_eq!(aws.describe(&key).await.unwrap(), KeyState::PendingDeletion(Some(due)));

    // The day comes, and AWS KMS does not say that the key is gone: nothing is certified.
    vault.days(31).await;
    assert!(matches!(finish(&vault).await, StepTaken::Waits { .. }));
    vault.sweep().await;
    for id in certificates {
        is_interim(&vault, id).await;
    }
    let again = seal(&acme, "alive").await;
    assert_eq!(opens(&acme, again).await, b"alive");
    vault.room.publish_log().await.unwrap();
    let report = vault.room.verify_log().await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_customer_who_leaves_goes_to_pending_deletion() {
    let Some(_prepared) = localstack() else { return };
    let vault = vault().await;
    let aws = AwsKms::from_env();
    let (acme, globex) = (vault.customer("acme", 300).await, vault.customer("globex", 300).await);
    let (blob, theirs) = (seal(&acme, "acme's").await, seal(&globex, "globex's").await);
    let keys = [kms_key(&acme).await, kms_key(&globex).await];
    vault.order(OrderKind::Offboard { return_to: ReturnTo::Nothing }, Some(&acme)).await;
    vault.days(2).await;
    let destroying = vault.room.destroy_customer(&access(), acme.id(), None).await.unwrap();
    assert!(!destroying.pended.is_empty());
    let finish = async || vault.room.finish_offboarding(&access(), acme.id(), &vault.destroyers).await;
    vault.days(6).await;
    assert_eq!(opens(&acme, blob).await, b"acme's", "it is in the window");
    assert_eq!(finish().await.unwrap_err().kind(), ErrorKind::Denied);
    vault.days(2).await;
    let error = refused(&acme, blob).await;
    assert_eq!(error.kind(), ErrorKind::KeyDestroyed, "{}", error.chain());
    is_interim(&vault, error.certificate().unwrap()).await;
    let stage = vault.room.offboard_status(&access(), acme.id()).await.unwrap().stage;
    assert_eq!(stage, Stage::Destroyed);

    assert_eq!(aws.describe(&keys[0]).await.unwrap(), KeyState::Enabled);
    let ends = finish().await.unwrap();
    let [(key, CustomerKeyEnd::Scheduled(Some(due)))] = &ends[..] else { panic!("{ends:?}") };
    assert_eq!(*key, keys[0]);
    assert_eq!(aws.describe(key).await.unwrap(), KeyState::PendingDeletion(Some(*due)));
    assert_eq!(finish().await.unwrap(), ends, "it is asked for once");
    // The one who stays is not touched.
    assert_eq!(aws.describe(&keys[1]).await.unwrap(), KeyState::Enabled);
    assert_eq!(opens(&globex, theirs).await, b"globex's");
    let records = common::records_since(&vault.room, 0).await;
    let asked = records.iter().filter(
        |record| matches!(&record.event, Event::Intent(intent) if intent.action == Action::CustomerKeyDelete),
    );
    assert_eq!(asked.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_shredded_is_removed_from_s3_in_all_versions() {
    let Some(prepared) = localstack() else { return };
    // Rings and log are in memory and blobs in a bucket that keeps versions. While days
    // pass, the bucket is not asked what time it is.
    let vault = vault().await;
    let bucket = buckets(&prepared, "remains").await;
    for (path, bytes) in common::objects(&vault.raw.blobs).await {
        bucket.blobs.put(&path, bytes.into()).await.unwrap();
    }
    let mut seen = vault.raw.storages();
    seen.blobs = Arc::clone(&bucket.blobs);
    let mut all = bucket.clone();
    (all.keys, all.audit) = (seen.keys.clone(), seen.audit.clone());

    vault.customer("acme", 3).await;
    let node = vault.node_over(seen).await;
    let acme = vault.of(&node, "acme").await;
    let (gone, kept) = (seal(&acme, "gone").await, seal(&acme, "kept").await);
    let deleted = seal(&acme, "deleted").await;
    acme.extend(kept, day("2099-01-01")).await.unwrap();
    let path = |blob| layout::blob(acme.id(), blob);
    // An old copy is put back over one, and another is deleted as S3 deletes.
    let bytes = bucket.blobs.get(&path(gone)).await.unwrap().bytes().await.unwrap();
    bucket.blobs.put(&path(gone), bytes.clone().into()).await.unwrap();
    bucket.blobs.delete(&path(deleted)).await.unwrap();
    for _ in 0..11 {
        vault.clock.pass(DAY);
        node.sweep(&access()).await.unwrap().customers.remove(&acme.id()).unwrap().unwrap();
    }
    assert_eq!(refused(&acme, gone).await.kind(), ErrorKind::KeyDestroyed);

    let remover = vault.node_over(all).await;
    let remains = remover.remove_remains(&access(), acme.id()).await.unwrap();
    remains.complete().unwrap();
    let purged = remains.purged;
    assert_eq!((purged.objects, purged.versions, purged.delete_markers), (2, 3, 1), "{purged:?}");
    assert_eq!(opens(&acme, kept).await, b"kept");
    // A backup brings one back: it is removed again, and never opened.
    bucket.blobs.put(&path(gone), bytes.into()).await.unwrap();
    assert_eq!(refused(&acme, gone).await.kind(), ErrorKind::KeyDestroyed);
    let again = remover.remove_remains(&access(), acme.id()).await.unwrap().purged;
    assert_eq!((again.objects, again.versions, again.delete_markers), (1, 1, 0), "{again:?}");
    assert_eq!(opens(&acme, kept).await, b"kept");
}
