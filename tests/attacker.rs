//! The attacker's test: whoever holds every object version that was ever written, may
//! call the KMS with the rights of the service at any later time, and may use every public
//! call, recovers nothing that was finally shredded.
//!
//! Not covered: a copy of an epoch's KMS key that was made before its deletion. That the
//! KMS deletes is what all of this relies on.

#[path = "common/attacker.rs"]
mod attacker;
#[path = "common/mod.rs"]
mod common;
#[path = "common/destroy.rs"]
mod destroy;
#[path = "common/faults.rs"]
mod faults;

use std::collections::BTreeMap;
use std::sync::Arc;

use attacker::Attacker;
use common::{Raw, objects, write};
use destroy::{DAY, Vault, access, day, opens, refused};
use faults::FaultStore;
use object_store::memory::InMemory;
use strongroom::ErrorKind;
use strongroom::audit::layout::CertificateStage;
use strongroom::id::BlobId;
use strongroom::kms::{Kms, KmsDestroyer};
use strongroom::order::OrderKind;
use strongroom::register::EpochPhase;
use strongroom::retention::Window;
use strongroom::room::{ByteRange, Customer, KeyChoice, NewCustomer, SealOptions, Strongroom};
use strongroom::shred::HoldTarget;
use strongroom::shred::epoch::FinishOptions;
use strongroom::store::Storages;
use strongroom::suite::Suite;
use strongroom::time::Day;

/// A vault of which every write is kept, whatever is deleted afterwards.
struct Watched {
    vault: Vault,
    stores: [FaultStore; 3],
    /// What was there before the watch began: the store as `init` made it.
    first: Vec<Vec<u8>>,
}

impl Watched {
    async fn new() -> Self {
        let mut vault = Vault::new().await;
        let mut first = Vec::new();
        for (_, storage) in vault.raw.all() {
            first.extend(objects(storage).await.into_iter().map(|(_, bytes)| bytes));
        }
        let Raw { blobs, keys, audit } = vault.raw.clone();
        let stores = [FaultStore::new(blobs), FaultStore::new(keys), FaultStore::new(audit)];
        let [blobs, keys, audit] = stores.clone().map(Arc::new);
        vault.room = vault.node_over(Storages::from_parts(blobs, keys, audit)).await;
        Self { vault, stores, first }
    }

    /// Everything that was ever written, with the KMS as it is now.
    async fn attack(&self) -> BTreeMap<BlobId, Vec<u8>> {
        let written = self.stores.iter().flat_map(FaultStore::written).map(|written| written.body.to_vec());
        Attacker::new(self.first.iter().cloned().chain(written), &self.vault.local).await.blobs().await
    }

    async fn rotate(&self) {
        let rotated = self.vault.room.rotate_epoch(&access(), KeyChoice::New("local".into())).await.unwrap();
        assert!(rotated.left_behind.is_empty(), "{:?}", rotated.left_behind);
    }

    /// One step of ending epochs.
    async fn finish(&self) {
        let options = FinishOptions::default();
        let steps = self.vault.room.finish_epochs(&access(), &self.vault.destroyers, options).await.unwrap();
        for step in steps {
            step.result.unwrap();
        }
    }

    /// Days with a sweep and a step of ending epochs each.
    async fn days_that_finish(&self, days: u32) {
        for _ in 0..days {
            self.vault.days(1).await;
            self.finish().await;
        }
    }

    async fn is_gone(&self, epoch: u32) -> bool {
        let register = self.vault.room.register(&access()).await.unwrap();
        matches!(register.epoch_state(epoch).unwrap().state, EpochPhase::Gone { .. })
    }
}

/// What becomes of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its keys are dropped in the first epoch.
    First,
    /// Its keys are dropped in the second.
    Second,
    /// It is kept.
    Lives,
}

/// A customer with a blob of every kind.
struct Story {
    customer: Customer,
    blobs: BTreeMap<BlobId, (String, Fate)>,
}

impl Story {
    async fn begin(vault: &Vault, strict: bool) -> Self {
        let label = if strict { "strict" } else { "plain" };
        let mut new = NewCustomer::new(label.parse().unwrap(), KeyChoice::New("local".into()));
        (new.period, new.window) = ("P3D".parse().unwrap(), Window::new(2).unwrap());
        new.strict = strict;
        vault.room.add_customer(&access(), new).await.unwrap();
        let customer = vault.of(&vault.room, label).await;
        let mut story = Self { customer, blobs: BTreeMap::new() };

        story.seal("expired", None, Fate::First).await;
        let extended = story.seal("extended", None, Fate::Lives).await;
        story.customer.extend(extended, day("2027-06-01")).await.unwrap();
        let twice = story.seal("extended by a little, twice", None, Fate::First).await;
        story.customer.extend(twice, day("2026-11-26")).await.unwrap();
        story.customer.extend(twice, day("2026-11-27")).await.unwrap();
        let held = story.seal("held", None, Fate::Lives).await;
        story.customer.place_hold(HoldTarget::Blob(held)).await.unwrap();
        let released = story.seal("held and released", None, Fate::First).await;
        let hold = story.customer.place_hold(HoldTarget::Blob(released)).await.unwrap().hold.id;
        vault.order(OrderKind::ReleaseHold { hold }, Some(&story.customer)).await;

        let early = story.seal("a day early", Some(day("2027-03-01")), Fate::First).await;
        vault.order(OrderKind::DestroyDays { days: vec![early.day()] }, Some(&story.customer)).await;
        let victim = story.seal("one blob early", Some(day("2027-04-01")), Fate::First).await;
        story.seal("its neighbour", Some(day("2027-04-01")), Fate::Lives).await;
        let extended = story.seal("its neighbour, extended", Some(day("2027-04-01")), Fate::Lives).await;
        story.customer.extend(extended, day("2027-04-02")).await.unwrap();
        vault.order(OrderKind::DestroyBlob { blob: victim }, Some(&story.customer)).await;
        story.seal("sealed beside it later", Some(day("2027-04-01")), Fate::Lives).await;

        let moved = story.customer.rekey(KeyChoice::New("local".into())).await;
        assert_eq!(moved.is_ok(), !strict, "{moved:?}");
        story.seal("after the rekey", None, Fate::First).await;
        story.seal("later", Some(day("2026-12-05")), Fate::Second).await;
        story
    }

    async fn seal(&mut self, text: &str, until: Option<Day>, fate: Fate) -> BlobId {
        let text = format!("{text}, of {}", self.customer.id());
        // Under both suites by turns.
        let suites = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
        let mut options = SealOptions::new().suite(suites[self.blobs.len() % 2]);
        if let Some(day) = until {
            options = options.retain_until(day);
        }
        let id = self.customer.seal(text.clone().into_bytes(), options).await.unwrap().id;
        self.blobs.insert(id, (text, fate));
        id
    }

    /// Everything alive opens, and nothing else, by whatever public call.
    async fn check(&self, room: &Strongroom, vault: &Vault, dead: &[Fate]) {
        let info = self.customer.info().await.unwrap();
        let customer = vault.of(room, info.label.as_str()).await;
        for (blob, (text, fate)) in &self.blobs {
            if !dead.contains(fate) {
                assert_eq!(opens(&customer, *blob).await, text.as_bytes(), "{text}");
                continue;
            }
            let range = ByteRange::Inclusive(0, 3);
            let part = customer.open_range(*blob, range).await;
            let errors = [
                refused(&customer, *blob).await,
                match part {
                    Ok(opened) => opened.bytes(99).await.expect_err(text),
                    Err(error) => error,
                },
                customer.stat(*blob).await.expect_err(text),
                customer.verify(*blob).await.expect_err(text),
                customer.extend(*blob, day("2027-09-01")).await.expect_err(text),
                customer.place_hold(HoldTarget::Blob(*blob)).await.expect_err(text),
            ];
            for error in errors {
                assert_eq!(error.kind(), ErrorKind::KeyDestroyed, "{text}: {}", error.chain());
            }
        }
    }
}

/// What of `stories` is in `loot`, which has nothing else.
fn assert_recovered(stories: &[Story], loot: &BTreeMap<BlobId, Vec<u8>>, recovered: &[Fate], when: &str) {
    let all = || stories.iter().flat_map(|story| &story.blobs);
    for (blob, (text, fate)) in all() {
        let found = loot.get(blob).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let expected = recovered.contains(fate).then(|| text.clone());
        assert_eq!(found, expected, "{when}: {text}");
    }
    let known = loot.keys().all(|blob| all().any(|(id, _)| id == blob));
    assert!(known, "{when}: a blob that no story has");
}

/// That a store opens nothing and destroys nothing over these keys and this log.
async fn assert_restored_in_vain(
    vault: &Vault,
    stories: &[Story],
    (keys, audit): (Arc<InMemory>, Arc<InMemory>),
    kind: ErrorKind,
) {
    let storages = Storages::from_parts(vault.raw.blobs.clone(), keys, audit);
    let room = vault.node_over(storages).await;
    for story in stories {
        let label = story.customer.info().await.unwrap().label;
        for blob in story.blobs.keys() {
            let error = match room.customer(&label, access()).await {
                Ok(customer) => refused(&customer, *blob).await,
                Err(error) => error,
            };
            assert_eq!(error.kind(), kind, "{}", error.chain());
        }
    }
    // The register is older than the log says, or opens no longer.
    let error = room.sweep(&access()).await.map(drop).unwrap_err();
    let kinds = [ErrorKind::Integrity, ErrorKind::KeyDestroyed];
    assert!(kinds.contains(&error.kind()), "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_kept_everything_recovers_nothing_that_is_final() {
    use Fate::{First, Lives, Second};
    let watched = Watched::new().await;
    let vault = &watched.vault;
    let mut stories = Vec::new();
    for strict in [false, true] {
        stories.push(Story::begin(vault, strict).await);
    }
    vault.days(1).await;
    let (old_keys, old_audit) = (vault.raw.keys.fork(), vault.raw.audit.fork());
    vault.days(8).await;
    for story in &stories {
        story.check(&vault.room, vault, &[First]).await;
    }

    // The keys come back from a backup, while their epoch lives: the log knows better.
    let alone = (Arc::new(old_keys.fork()), vault.raw.audit.clone());
    assert_restored_in_vain(vault, &stories, alone, ErrorKind::Integrity).await;

    // The attack works: nobody can open those blobs any longer, and an old ring can.
    assert_recovered(&stories, &watched.attack().await, &[First, Second, Lives], "before the epoch's end");
    watched.rotate().await;
    assert_recovered(&stories, &watched.attack().await, &[First, Second, Lives], "after the rotation");
    // Disabled it is of no use, and is not final: somebody may enable it.
    watched.finish().await;
    assert_recovered(&stories, &watched.attack().await, &[Second, Lives], "while the key is disabled");
    let kms_key = vault.room.register(&access()).await.unwrap().epochs[0].kms_key.clone();
    vault.local.enable(&kms_key).await.unwrap();
    assert_recovered(&stories, &watched.attack().await, &[First, Second, Lives], "enabled by an attacker");
    vault.local.disable(&kms_key).await.unwrap();
    watched.days_that_finish(9).await;
    assert!(watched.is_gone(1).await);
    // What was dropped under the second epoch is refused as well, and is not final.
    for story in &stories {
        story.check(&vault.room, vault, &[First, Second]).await;
    }
    assert_recovered(&stories, &watched.attack().await, &[Second, Lives], "after the epoch's end");
    watched.rotate().await;
    for story in &mut stories {
        story.seal("under the third epoch", Some(day("2027-02-01")), Lives).await;
    }
    watched.days_that_finish(10).await;
    assert!(watched.is_gone(2).await);
    assert_recovered(&stories, &watched.attack().await, &[Lives], "after both ends");
    // Not with every right at the KMS either.
    for epoch in vault.room.register(&access()).await.unwrap().epochs.iter().take(2) {
        assert!(vault.local.cancel_deletion(&epoch.kms_key).await.is_err());
        assert!(vault.local.enable(&epoch.kms_key).await.is_err());
        assert!(vault.local.describe(&epoch.kms_key).await.is_err());
    }
    assert_recovered(&stories, &watched.attack().await, &[Lives], "with every right");

    // Each has its final certificate.
    for story in &stories {
        story.check(&vault.room, vault, &[First, Second]).await;
        for (blob, (text, _)) in story.blobs.iter().filter(|(_, (_, fate))| *fate != Lives) {
            let id = refused(&story.customer, *blob).await.certificate().unwrap();
            let last = vault.room.certificate(id, CertificateStage::Final).await.unwrap();
            assert!(last.is_some(), "{text}");
        }
    }

    // Every blob and wrap comes back from a backup, after what was left was removed.
    for story in &stories {
        vault.room.remove_remains(&access(), story.customer.id()).await.unwrap().complete().unwrap();
    }
    for written in watched.stores[0].written() {
        write(&vault.raw.blobs, &written.path, written.body.to_vec()).await;
    }
    let fresh = vault.node().await;
    for story in &stories {
        for room in [&vault.room, &fresh] {
            story.check(room, vault, &[First, Second]).await;
        }
    }

    // The keys come back, and the log with them: they open no longer.
    let both = (Arc::new(old_keys.fork()), Arc::new(old_audit));
    assert_restored_in_vain(vault, &stories, both, ErrorKind::KeyDestroyed).await;
    let alone = (Arc::new(old_keys), vault.raw.audit.clone());
    assert_restored_in_vain(vault, &stories, alone, ErrorKind::KeyDestroyed).await;
    vault.clock.pass(DAY);
    vault.sweep().await;
    let report = vault.room.verify_log().await.unwrap();
    assert!(report.is_ok(), "{:?}", report.findings);
}

/// A blob that two people withdrew takes no new path while it waits for its destruction:
/// else one person could take it out of their order, and it would outlive its certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_blob_cannot_be_kept_by_an_extension() {
    let watched = Watched::new().await;
    let vault = &watched.vault;
    let acme = vault.customer("acme", 30).await;
    let victim = acme.seal(b"by mistake".to_vec(), SealOptions::new()).await.unwrap().id;
    vault.order(OrderKind::DestroyBlob { blob: victim }, Some(&acme)).await;
    let error = acme.extend(victim, day("2027-06-01")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.chain());
    vault.days(8).await;
    assert_eq!(refused(&acme, victim).await.kind(), ErrorKind::KeyDestroyed);
    // By the rings as they are now, which is what is left when the epoch has ended.
    watched.rotate().await;
    watched.days_that_finish(10).await;
    assert_eq!(watched.attack().await, BTreeMap::new());
}
