//! Doubt: nothing is destroyed on it, for that customer or at all; it is said why, and on
//! the record; every other customer goes on; and once it is gone, what was due is done.

#[path = "common/aftermath.rs"]
mod aftermath;
#[path = "common/attacker.rs"]
mod attacker;
#[path = "common/mod.rs"]
mod common;
#[path = "common/destroy.rs"]
mod destroy;
#[path = "common/faults.rs"]
mod faults;

use std::sync::Arc;
use std::time::Duration;

use aftermath::alive;
use common::{Raw, read, records_since, write};
use destroy::{DAY, Vault, access, key, opens, refused, seal};
use faults::FaultStore;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use sha2::{Digest, Sha256};
use strongroom::ErrorKind;
use strongroom::audit::layout::Object;
use strongroom::audit::voucher::Versioned;
use strongroom::audit::{Action, Event, OutcomeResult, RingRef};
use strongroom::id::{BlobId, CustomerId};
use strongroom::kms::KmsDestroyer;
use strongroom::order::OrderKind;
use strongroom::room::{Customer, Strongroom};
use strongroom::shred::HoldTarget;
use strongroom::store::{Storages, layout};

/// Two customers of whom a day is due to be dropped.
struct Scene {
    vault: Vault,
    acme: Customer,
    other: Customer,
    blob: BlobId,
    others: BlobId,
}

impl Scene {
    async fn new() -> Self {
        let vault = Vault::new().await;
        let (acme, other) = (vault.customer("acme", 3).await, vault.customer("other", 3).await);
        let (blob, others) = (seal(&acme, "acme's").await, seal(&other, "other's").await);
        vault.days(10).await;
        vault.clock.pass(DAY);
        Self { vault, acme, other, blob, others }
    }

    /// Where the newest version of acme's ring is.
    async fn newest_ring(&self) -> Path {
        let version = self.acme.info().await.unwrap().ring_version;
        layout::ring(self.acme.id(), version)
    }

    /// A sweep that is refused for acme for this reason, on the record, and done for the
    /// other one.
    async fn refused_for_acme(&self, kind: ErrorKind) {
        let from = self.vault.room.log().head().next();
        let mut sweep = self.vault.room.sweep(&access()).await.unwrap();
        let error = sweep.customers.remove(&self.acme.id()).unwrap().unwrap_err();
        assert_eq!(error.kind(), kind, "{}", error.chain());
        sweep.customers.remove(&self.other.id()).unwrap().unwrap();
        assert!(!alive(&self.other, self.others, "other's").await);
        let refusals = refusals(&self.vault.room, from, self.acme.id()).await;
        assert_eq!(refusals, [kind.into()]);
    }

    /// All that was due is done, now that there is no doubt.
    async fn completes(&self) {
        for swept in self.vault.sweep().await.into_values() {
            assert!(swept.waiting.is_empty());
        }
        for (customer, blob, text) in
            [(&self.acme, self.blob, "acme's"), (&self.other, self.others, "other's")]
        {
            assert!(!alive(customer, blob, text).await);
        }
        aftermath::certificates(&self.vault, &self.vault.raw, &self.vault.room).await;
        self.vault.room.log().flush().await.unwrap();
        aftermath::verify(&self.vault.room).await;
    }
}

/// How the sweeps of a customer ended that were refused.
async fn refusals(room: &Strongroom, from: u64, customer: CustomerId) -> Vec<OutcomeResult> {
    let records = records_since(room, from).await;
    let all = common::operations(&records).into_iter();
    all.filter(|(intent, _)| intent.action == Action::ShredSweep && intent.customer == Some(customer))
        .map(|(_, outcome)| outcome.unwrap().result)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_does_not_verify() {
    let scene = Scene::new().await;
    let (keys, path) = (&scene.vault.raw.keys, scene.newest_ring().await);
    let good = read(keys, &path).await;
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    write(keys, &path, bad).await;
    scene.refused_for_acme(ErrorKind::Integrity).await;
    write(keys, &path, good).await;
    scene.completes().await;
}

/// The holds are in the ring, under its seal: one that could not be read is a ring that
/// cannot. So is one of a version that comes after this program.
#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_a_later_format() {
    let scene = Scene::new().await;
    let keys = &scene.vault.raw.keys;
    let mut later = read(keys, &scene.newest_ring().await).await;
    let version = scene.acme.info().await.unwrap().ring_version;
    // The format's version and its complement stand behind the magic.
    (later[8], later[9]) = (3, !3);
    let path = layout::ring(scene.acme.id(), version + 1);
    // Its writer vouched for it, as every writer does.
    let (of, log) = (Versioned::Ring(scene.acme.id()), scene.vault.room.log());
    let written = RingRef { version: version + 1, hash: Sha256::digest(&later).into() };
    let vouched = log.vouch(of, written, log.request_id().unwrap()).await.unwrap();
    write(keys, &path, later).await;
    scene.refused_for_acme(ErrorKind::UnsupportedFormat).await;
    keys.delete(&path).await.unwrap();
    let (version, hash, key) = (written.version, written.hash, vouched.key());
    scene.vault.raw.audit.delete(&Object::Voucher { of, version, hash, key }.path()).await.unwrap();
    scene.completes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_is_older_than_the_log_says() {
    let scene = Scene::new().await;
    let (keys, path) = (&scene.vault.raw.keys, scene.newest_ring().await);
    let newest = read(keys, &path).await;
    keys.delete(&path).await.unwrap();
    scene.refused_for_acme(ErrorKind::Integrity).await;
    write(keys, &path, newest).await;
    scene.completes().await;
}

/// A backup of the log was restored. It does not know of a blob that was sealed since, and
/// of the ring's versions since: a drop would go by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_behind_the_rings() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 30).await;
    let first = seal(&acme, "by mistake").await;
    vault.room.log().flush().await.unwrap();
    let old = Arc::new(vault.raw.audit.fork());
    let neighbour = seal(&acme, "its neighbour").await;
    // The ring goes on, by more than a version whose writer could have died before its pin.
    for days in [40, 80, 120] {
        let until = first.day().plus(days);
        acme.extend(neighbour, until).await.unwrap();
    }
    vault.room.log().flush().await.unwrap();
    let Raw { blobs, keys, audit: _ } = vault.raw.clone();
    let room = vault.node_over(Storages::from_parts(blobs, keys, old)).await;
    let error = match room.sweep(&access()).await {
        Ok(mut sweep) => sweep.customers.remove(&acme.id()).unwrap().expect_err("the log is behind"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Integrity, "{}", error.chain());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_written() {
    let scene = Scene::new().await;
    let Raw { blobs, keys, audit } = scene.vault.raw.clone();
    let faulty = FaultStore::new(audit);
    let mut options = common::options(&scene.vault.clock);
    options.log_deadline = Duration::from_millis(400);
    let storages = Storages::from_parts(blobs, keys, Arc::new(faulty.clone()));
    let room = Strongroom::open(storages, scene.vault.kms.clone(), options).await.unwrap();
    let before = common::objects(&scene.vault.raw.keys).await.len();
    for denied in [false, true] {
        if denied {
            faulty.fail_from(1);
        } else {
            faulty.take_down();
        }
        let error = match room.sweep(&access()).await {
            Ok(mut sweep) => sweep.customers.remove(&scene.acme.id()).unwrap().unwrap_err(),
            Err(error) => error,
        };
        let kinds = [ErrorKind::AuditUnavailable, ErrorKind::Unavailable];
        assert!(kinds.contains(&error.kind()), "{}", error.chain());
        faulty.heal();
    }
    assert_eq!(common::objects(&scene.vault.raw.keys).await.len(), before, "no ring was written");
    for (customer, blob) in [(&scene.acme, scene.blob), (&scene.other, scene.others)] {
        opens(customer, blob).await;
    }
    scene.completes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_went_back_or_on() {
    let scene = Scene::new().await;
    let now = strongroom::time::Clock::now(&*scene.vault.clock);
    let back = |days: u32| now.micros() - u64::from(days) * 86_400_000_000;
    for micros in [back(2), back(400), now.micros() + 30 * 3_600_000_000, now.micros() + 30 * 86_400_000_000]
    {
        scene.vault.clock.set(strongroom::time::Timestamp::from_micros(micros).unwrap());
        let from = scene.vault.room.log().head().next();
        let error = scene.vault.room.sweep(&access()).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.chain());
        let recorded = records_since(&scene.vault.room, from).await;
        let noted = |record: &strongroom::audit::Record| matches!(&record.event, Event::Intent(intent) if intent.action == Action::ClockSet);
        assert!(recorded.iter().any(noted));
        for (customer, blob) in [(&scene.acme, scene.blob), (&scene.other, scene.others)] {
            opens(customer, blob).await;
        }
    }
    scene.vault.clock.set(now);
    scene.completes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn something_among_the_orders_that_is_none() {
    let scene = Scene::new().await;
    let path: Path = "order/stranger".into();
    write(&scene.vault.raw.audit, &path, b"{}".to_vec()).await;
    // It orders nothing, and whoever can put it there must not stop what is due. It is a
    // finding of whoever verifies the log.
    scene.vault.sweep().await;
    let report = scene.vault.room.verify_log().await.unwrap();
    assert!(report.findings.iter().any(|finding| finding.path == path.as_ref()));
    scene.vault.raw.audit.delete(&path).await.unwrap();
    scene.completes().await;
}

/// A destruction that needs the customer's key waits for it, and nobody waits with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_customers_key_that_is_disabled() {
    let vault = Vault::new().await;
    let (acme, other) = (vault.customer("acme", 30).await, vault.customer("other", 3).await);
    let (victim, neighbour) = (seal(&acme, "victim").await, seal(&acme, "neighbour").await);
    let day_key = seal(&other, "other's").await;
    // The neighbours are made safe when the order is done; what is sealed by a node that
    // does not know of it is not.
    let stale = vault.of(&vault.node().await, "acme").await;
    stale.info().await.unwrap();
    vault.order(OrderKind::DestroyBlob { blob: victim }, Some(&acme)).await;
    let late = seal(&stale, "late").await;
    let key = acme.info().await.unwrap().kms_key;
    vault.local.disable(&key).await.unwrap();
    vault.clock.pass(Duration::from_mins(10));
    vault.days(12).await;
    let swept = vault.sweep().await;
    assert_eq!(swept[&acme.id()].waiting.len(), 1, "{swept:?}");
    assert!(!alive(&other, day_key, "other's").await);
    vault.local.enable(&key).await.unwrap();
    vault.clock.pass(Duration::from_mins(10));
    assert!(vault.sweep().await[&acme.id()].waiting.is_empty());
    for (blob, text) in [(neighbour, "neighbour"), (late, "late")] {
        assert!(alive(&acme, blob, text).await);
    }
    assert_eq!(refused(&acme, victim).await.kind(), ErrorKind::KeyDestroyed);
}

/// An approved order that can no longer be done, since another one did it, is no doubt.
/// The customer's other days go on.
#[tokio::test(flavor = "multi_thread")]
async fn an_approved_order_that_has_nothing_left_to_do() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 30).await;
    let blob = seal(&acme, "early").await;
    let what = || OrderKind::DestroyDays { days: vec![blob.day()] };
    let held = seal(&acme, "held").await;
    let hold = acme.place_hold(HoldTarget::Blob(held)).await.unwrap().hold.id;
    let twice = [what(), what(), OrderKind::ReleaseHold { hold }, OrderKind::ReleaseHold { hold }];
    let mut ids = Vec::new();
    for what in twice {
        ids.push(vault.request(what, Some(&acme)).await);
    }
    for (number, id) in ids.into_iter().enumerate() {
        let done = vault.room.approve_order(&access(), id, &key("b")).await;
        assert_eq!(done.is_ok(), number % 2 == 0, "{done:?}");
    }
    let sweep = vault.room.sweep(&access()).await.unwrap();
    let errors: Vec<_> = sweep.customers.values().filter_map(|swept| swept.as_ref().err()).collect();
    assert!(errors.is_empty(), "{:?}", errors.iter().map(|error| error.chain()).collect::<Vec<_>>());
    vault.days(9).await;
    assert!(!alive(&acme, blob, "early").await);
    assert!(!alive(&acme, held, "held").await);
}
