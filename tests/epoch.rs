//! Epochs over whole stores: rotated, ended, crashed in between, and left behind.

#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use faults::FaultStore;
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::audit::{Action, KeyRef, KeyUseReceipt, OutcomeResult};
use strongroom::id::{CustomerId, KmsKeyId};
use strongroom::kms::{
    DataKey, DestroyerRegistry, EncryptionContext, GeneratedDataKey, KeyState, Kms, KmsDestroyer, KmsError,
    KmsErrorKind, WrappedDataKey,
};
use strongroom::register::EpochPhase;
use strongroom::room::{KeyChoice, Options, SealOptions, Strongroom};
use strongroom::shred::epoch::{
    EpochStep, FinishOptions, Head, KmsSays, LeftBehind, NextStep, Rotated, StepTaken, Why, epochs_destroyed,
};
use strongroom::store::Storages;
use strongroom::suite::Suite;
use strongroom::time::Timestamp;
use strongroom::{ErrorKind, Result};
use world::{TestKms, World, access, add, label, pairs, records};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);

/// A store with two customers, `a` and `b`.
struct Place {
    world: World,
    room: Strongroom,
}

impl Place {
    async fn new() -> Self {
        let world = World::new();
        world.kms.hurry();
        let room = world.init(world.options()).await.unwrap();
        for name in ["a", "b"] {
            add(&room, name).await.unwrap();
        }
        Self { world, room }
    }

    async fn node(&self) -> Strongroom {
        self.world.node(self.world.options()).await.unwrap()
    }

    /// For a node whose log fails: it gives up soon.
    fn hasty(&self) -> Options {
        let mut options = self.world.options();
        options.log_deadline = Duration::from_millis(150);
        options
    }

    fn destroyers(&self) -> DestroyerRegistry {
        DestroyerRegistry::new().with(Arc::clone(&self.world.kms) as Arc<dyn KmsDestroyer>)
    }

    /// Time goes on, with a sign of life every day.
    async fn wait(&self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(DAY);
            self.world.clock.advance(step);
            self.room.destruction_time(&access()).await.unwrap();
            left -= step;
        }
    }

    async fn rotate(&self) -> Rotated {
        rotate(&self.room).await.unwrap()
    }

    async fn finish(&self) -> Vec<EpochStep> {
        self.room.finish_epochs(&access(), &self.destroyers(), FinishOptions::default()).await.unwrap()
    }

    /// What was done about the only epoch that is ending.
    async fn step(&self) -> StepTaken {
        only(self.finish().await)
    }

    async fn phase(&self, epoch: u32) -> EpochPhase {
        self.room.register(&access()).await.unwrap().epoch_state(epoch).unwrap().state
    }

    async fn key(&self, epoch: u32) -> KmsKeyId {
        self.room.register(&access()).await.unwrap().epoch_state(epoch).unwrap().kms_key.clone()
    }

    async fn customer(&self, name: &str) -> CustomerId {
        self.room.customer(&label(name), access()).await.unwrap().info().await.unwrap().id
    }

    /// All that is stored now, as a backup has it.
    async fn copy(&self) -> [Arc<dyn ObjectStore>; 3] {
        [copy(&self.world.blobs).await, copy(&self.world.keys).await, copy(&self.world.audit).await]
    }

    /// The store that a backup is, with the KMS of today.
    async fn restored(&self, [blobs, keys, audit]: [Arc<dyn ObjectStore>; 3]) -> Strongroom {
        let storages = Storages::from_parts(blobs, keys, audit);
        Strongroom::open(storages, self.world.registry(), self.world.options()).await.unwrap()
    }

    /// Puts a ring of a new customer there that a node wrote which knew nothing of any
    /// rotation since `then`.
    async fn late_customer(&self, then: [Arc<dyn ObjectStore>; 3]) -> CustomerId {
        let (keys, audit) = (Arc::clone(&then[1]), Arc::clone(&then[2]));
        let late = self.restored(then).await;
        let id = add(&late, "late").await.unwrap().info().await.unwrap().id;
        let path = Path::from(format!("ring/{id}/{:016x}", 1));
        let ring = keys.get(&path).await.unwrap().bytes().await.unwrap();
        self.world.keys.inner().put(&path, ring.into()).await.unwrap();
        // It had vouched for the ring, as every writer does.
        let folder = Path::from(format!("voucher/{id}"));
        let vouchers: Vec<_> = audit.list(Some(&folder)).try_collect().await.unwrap();
        for meta in vouchers {
            let lines = audit.get(&meta.location).await.unwrap().bytes().await.unwrap();
            self.world.audit.inner().put(&meta.location, lines.into()).await.unwrap();
        }
        id
    }

    /// That one epoch is current and everything is under it.
    #[track_caller]
    fn assert_is_complete(&self, register: &strongroom::register::Register, newest: u32) {
        let current: Vec<_> =
            register.epochs.iter().filter(|epoch| epoch.state == EpochPhase::Current).collect();
        assert_eq!(current.len(), 1, "{:?}", register.epochs);
        assert_eq!((current[0].number, register.epoch), (newest, newest));
    }
}

async fn rotate(room: &Strongroom) -> Result<Rotated> {
    room.rotate_epoch(&access(), KeyChoice::New("local".into())).await
}

#[track_caller]
fn only(mut steps: Vec<EpochStep>) -> StepTaken {
    assert_eq!(steps.len(), 1, "{steps:?}");
    steps.remove(0).result.unwrap()
}

async fn copy(of: &FaultStore) -> Arc<dyn ObjectStore> {
    let (from, to) = (of.inner(), InMemory::new());
    let all: Vec<_> = from.list(None).try_collect().await.unwrap();
    for object in all {
        let bytes = from.get(&object.location).await.unwrap().bytes().await.unwrap();
        to.put(&object.location, bytes.into()).await.unwrap();
    }
    Arc::new(to)
}

async fn opens(room: &Strongroom, name: &str) -> Result<()> {
    let customer = room.customer(&label(name), access()).await?;
    let sealed = customer.seal(b"fine".to_vec(), SealOptions::new()).await?;
    customer.verify(sealed.id).await.map(drop)
}

#[tokio::test]
async fn an_epoch_ends_and_every_copy_under_it_is_dead() {
    let place = Place::new().await;
    let a = place.room.customer(&label("a"), access()).await.unwrap();
    let blob = a.seal(b"kept".to_vec(), SealOptions::new()).await.unwrap().id;
    let backup = place.copy().await;
    let first = place.key(1).await;

    let status = place.room.epoch_status(&access()).await.unwrap();
    assert_eq!((status.epochs.len(), status.epochs[0].rings, status.epochs[0].register), (1, 2, true));
    assert_eq!(status.epochs[0].next, NextStep::Rotate);
    assert!(place.finish().await.is_empty(), "nothing is retired yet");

    let rotated = place.rotate().await;
    assert_eq!((rotated.epoch, rotated.reissued, rotated.resumed), (2, 2, false));
    assert_eq!((rotated.retired, rotated.left_behind, rotated.vain), (vec![1], vec![], None));
    assert_ne!(rotated.kms_key, first);
    let status = place.room.epoch_status(&access()).await.unwrap();
    let rings: Vec<_> = status.epochs.iter().map(|epoch| (epoch.rings, epoch.register)).collect();
    assert_eq!(rings, [(0, false), (2, true)]);
    assert_eq!(status.epochs[0].next, NextStep::Disable);
    // So far, a backup is as good as ever.
    opens(&place.restored(backup.clone()).await, "a").await.unwrap();

    let until = place.world_now().saturating_add(DAY);
    assert_eq!(place.step().await, StepTaken::Disabled { watched_until: until });
    assert_eq!(place.world.kms.describe(&first).await.unwrap(), KeyState::Disabled);
    place.wait(23 * HOUR).await;
    assert_eq!(place.step().await, StepTaken::Waits { until });
    let status = place.room.epoch_status(&access()).await.unwrap();
    assert_eq!((status.epochs[0].next, status.epochs[0].not_before), (NextStep::Schedule, Some(until)));
    place.wait(2 * HOUR).await;
    let due = place.world_now().saturating_add(7 * DAY);
    assert_eq!(place.step().await, StepTaken::Scheduled { due });
    place.wait(6 * DAY).await;
    assert_eq!(place.step().await, StepTaken::Waits { until: due });
    let register = place.room.register(&access()).await.unwrap();
    assert_eq!(epochs_destroyed(&register, 1, 1), None);
    place.wait(DAY + HOUR).await;
    assert_eq!(place.step().await, StepTaken::Gone);
    assert!(place.finish().await.is_empty());
    let register = place.room.register(&access()).await.unwrap();
    let gone = epochs_destroyed(&register, 1, 1).unwrap();
    assert_eq!((gone[0].kms_key.clone(), gone[0].seen_at), (first.clone(), place.world_now()));
    assert_eq!(place.room.epoch_status(&access()).await.unwrap().epochs[0].next, NextStep::Nothing);

    // What lives goes on.
    a.verify(blob).await.unwrap();
    opens(&place.node().await, "b").await.unwrap();
    // Whoever has a whole backup, log and all, and may ask the KMS, opens nothing.
    let restored = place.restored(backup.clone()).await;
    assert_eq!(opens(&restored, "a").await.unwrap_err().kind(), ErrorKind::KeyDestroyed);
    assert_eq!(restored.register(&access()).await.unwrap_err().kind(), ErrorKind::KeyDestroyed);

    place.world.verify_log(&place.room).await;
    let written = records(&place.room).await;
    let ended: Vec<_> = pairs(&written)
        .into_iter()
        .filter(|(intent, _)| matches!(intent.action, Action::EpochDisable | Action::EpochDelete))
        .map(|(intent, outcomes)| (intent.action, intent.key.clone(), outcomes[0].result))
        .collect();
    let key = Some(KeyRef::Epoch { kms_key: first, epoch: 1 });
    let ok = OutcomeResult::Ok;
    assert_eq!(ended, [(Action::EpochDisable, key.clone(), ok), (Action::EpochDelete, key, ok)]);
}

impl Place {
    fn world_now(&self) -> Timestamp {
        strongroom::time::Clock::now(&*self.world.clock)
    }
}

#[tokio::test]
async fn a_restored_old_ring_is_refused_and_stops_the_end_of_its_epoch() {
    let place = Place::new().await;
    let a = place.customer("a").await;
    place.rotate().await;
    let newest = Path::from(format!("ring/{a}/{:016x}", 2));
    let keys = place.world.keys.inner();
    let ring = keys.get(&newest).await.unwrap().bytes().await.unwrap();
    keys.delete(&newest).await.unwrap();
    let error = opens(&place.node().await, "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{}", error.chain());
    // What stands in front of it says nothing: it is not the one that the log vouches for.
    let heads = vec![LeftBehind { head: Head::Ring(a), why: Why::Failed(ErrorKind::Integrity) }];
    assert_eq!(place.step().await, StepTaken::LeftBehind { heads, enabled: false });
    keys.put(&newest, ring.into()).await.unwrap();
    assert!(matches!(place.step().await, StepTaken::Disabled { .. }));
}

#[tokio::test]
async fn a_customer_whose_key_is_disabled_delays_nobody() {
    let place = Place::new().await;
    let info = place.room.customer(&label("a"), access()).await.unwrap().info().await.unwrap();
    place.world.kms.disable(&info.kms_key).await.unwrap();
    place.world.clock.advance(6 * MINUTE);
    let error = opens(&place.room, "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyUnavailable);
    place.world.kms.forget();
    let rotated = place.rotate().await;
    assert_eq!((rotated.reissued, rotated.retired.len()), (2, 1));
    let used: Vec<_> = place.world.kms.counts().into_keys().map(|(_, key)| key).collect();
    assert!(!used.contains(&info.kms_key), "no customer's key is used");
    assert!(matches!(place.step().await, StepTaken::Disabled { .. }));
    place.wait(25 * HOUR).await;
    assert!(matches!(place.step().await, StepTaken::Scheduled { .. }));
    // And the customer is back when its key is.
    place.world.kms.enable(&info.kms_key).await.unwrap();
    opens(&place.room, "a").await.unwrap();
}

#[tokio::test]
async fn of_two_nodes_that_rotate_at_once_one_epoch_comes() {
    let place = Place::new().await;
    let nodes = [place.node().await, place.node().await, place.node().await];
    let rotated: Vec<_> = join_all(nodes.iter().map(rotate)).await.into_iter().map(Result::unwrap).collect();
    assert!(rotated.iter().all(|rotated| rotated.epoch == 2 && rotated.left_behind.is_empty()));
    assert!(rotated.iter().all(|one| one.kms_key == rotated[0].kms_key));
    assert_eq!(rotated.iter().map(|one| one.reissued).sum::<usize>(), 2, "each ring was moved once");
    let vain: Vec<_> = rotated.iter().filter_map(|one| one.vain.clone()).collect();
    assert!(!vain.is_empty() && !vain.contains(&rotated[0].kms_key), "{vain:?}");
    place.assert_is_complete(&place.room.register(&access()).await.unwrap(), 2);
    opens(&place.room, "a").await.unwrap();
    place.world.verify_log(&place.room).await;

    // So do those who finish.
    let (destroyers, access) = (place.destroyers(), access());
    let finish = |node| Strongroom::finish_epochs(node, &access, &destroyers, FinishOptions::default());
    for step in join_all(nodes.iter().map(finish)).await {
        let step = only(step.unwrap());
        assert!(matches!(step, StepTaken::Disabled { .. } | StepTaken::Waits { .. }), "{step:?}");
    }
    assert!(matches!(place.phase(1).await, EpochPhase::Disabled { .. }));
}

#[tokio::test]
async fn a_customer_who_comes_late_under_the_old_epoch_is_taken_along() {
    let place = Place::new().await;
    let then = place.copy().await;
    place.rotate().await;
    // Before anything is disabled: refused, and nothing has to be undone.
    let late = place.late_customer(then.clone()).await;
    let heads = vec![LeftBehind { head: Head::Ring(late), why: Why::Epoch(1) }];
    assert_eq!(place.step().await, StepTaken::LeftBehind { heads, enabled: false });
    assert!(matches!(place.phase(1).await, EpochPhase::Retired { .. }));
    let rotated = place.rotate().await;
    assert_eq!((rotated.epoch, rotated.reissued, rotated.retired), (3, 3, vec![2]));
    assert!(place.finish().await.iter().all(|step| matches!(step.result, Ok(StepTaken::Disabled { .. }))));
    let written = records(&place.room).await;
    let disables: Vec<_> = pairs(&written)
        .into_iter()
        .filter(|(intent, _)| intent.action == Action::EpochDisable)
        .map(|(_, outcomes)| outcomes[0].result)
        .collect();
    assert_eq!(disables, [OutcomeResult::Denied, OutcomeResult::Ok, OutcomeResult::Ok]);
}

#[tokio::test]
async fn an_epoch_that_is_needed_after_all_is_enabled_again() {
    // While it is watched, and while its deletion is pending.
    for pending in [false, true] {
        let place = Place::new().await;
        let then = place.copy().await;
        let first = place.key(1).await;
        place.rotate().await;
        assert!(matches!(place.step().await, StepTaken::Disabled { .. }));
        if pending {
            place.wait(25 * HOUR).await;
            assert!(matches!(place.step().await, StepTaken::Scheduled { .. }));
        }
        // The late writer had the epoch's key in its cache.
        let kms = &place.world.kms;
        let state = kms.describe(&first).await.unwrap();
        kms.cancel_deletion(&first).await.unwrap();
        kms.enable(&first).await.unwrap();
        let late = place.late_customer(then).await;
        kms.disable(&first).await.unwrap();
        if pending {
            kms.schedule_deletion(&first, 7).await.unwrap();
        }
        assert_eq!(
            std::mem::discriminant(&kms.describe(&first).await.unwrap()),
            std::mem::discriminant(&state)
        );

        let heads = vec![LeftBehind { head: Head::Ring(late), why: Why::Epoch(1) }];
        assert_eq!(place.step().await, StepTaken::LeftBehind { heads, enabled: true });
        assert_eq!(kms.describe(&first).await.unwrap(), KeyState::Enabled);
        assert!(matches!(place.phase(1).await, EpochPhase::Retired { .. }));
        let rotated = place.rotate().await;
        assert_eq!((rotated.epoch, rotated.reissued, rotated.left_behind), (3, 3, vec![]));
        assert!(
            place.finish().await.iter().all(|step| matches!(step.result, Ok(StepTaken::Disabled { .. })))
        );
        let written = records(&place.room).await;
        let enabled = pairs(&written).into_iter().filter(|(intent, _)| intent.action == Action::EpochEnable);
        assert_eq!(enabled.count(), 1);
    }
}

#[tokio::test]
async fn customers_who_come_during_a_rotation_are_moved_or_begin_under_it() {
    let place = Place::new().await;
    let node = place.node().await;
    opens(&node, "a").await.unwrap();
    let adding = async {
        for name in ["c", "d", "e", "f"] {
            add(&node, name).await.unwrap();
        }
    };
    let (rotated, ()) = tokio::join!(place.rotate(), adding);
    assert_eq!(rotated.left_behind, []);
    // All of them, whenever they came: nothing is left under the old epoch.
    let infos = place.node().await.customers(&access()).await.unwrap();
    assert_eq!(infos.len(), 6);
    assert!(infos.iter().all(|info| info.epoch == 2), "{infos:?}");
    assert!(matches!(place.step().await, StepTaken::Disabled { .. }));
}

#[tokio::test]
async fn a_stale_node_reads_for_its_term_and_writes_under_the_new_epoch() {
    let place = Place::new().await;
    let stale = place.node().await;
    let a = stale.customer(&label("a"), access()).await.unwrap();
    let sealed = a.seal(b"x".to_vec(), SealOptions::new()).await.unwrap().id;
    place.rotate().await;
    assert!(matches!(place.step().await, StepTaken::Disabled { .. }));

    // With what it has cached.
    a.verify(sealed).await.unwrap();
    assert_eq!(a.info().await.unwrap().epoch, 1);
    // Its new version loses against the one that is there, and is made anew on it.
    let info = a.set(None, Some(Suite::ChaCha20Poly1305)).await.unwrap();
    assert_eq!((info.epoch, info.ring_version), (2, 3));
    let added = add(&stale, "c").await.unwrap().info().await.unwrap();
    assert_eq!(added.epoch, 2, "a new customer goes under the newest epoch, whatever is cached");

    // A ring that was cached later than its epoch's key.
    let place = Place::new().await;
    let stale = place.node().await;
    stale.customer(&label("b"), access()).await.unwrap();
    place.world.clock.advance(4 * MINUTE);
    let a = stale.customer(&label("a"), access()).await.unwrap();
    place.rotate().await;
    assert!(matches!(place.step().await, StepTaken::Disabled { .. }));
    place.world.clock.advance(2 * MINUTE);
    assert_eq!(a.info().await.unwrap().epoch, 1, "cached still");
    assert_eq!(a.set(None, Some(Suite::ChaCha20Poly1305)).await.unwrap().epoch, 2);
    place.world.clock.advance(6 * MINUTE);
    opens(&stale, "a").await.unwrap();
    opens(&stale, "b").await.unwrap();
}

#[tokio::test]
async fn a_kms_key_in_a_state_that_nobody_asked_for_is_told() {
    let place = Place::new().await;
    let first = place.key(1).await;
    place.rotate().await;
    let kms = &place.world.kms;
    place.step().await;
    // Enabled by hand: it was open to anyone meanwhile, and its end begins anew.
    kms.enable(&first).await.unwrap();
    let says = KmsSays::State(KeyState::Enabled);
    assert_eq!(place.room.epoch_status(&access()).await.unwrap().epochs[0].next, NextStep::Look);
    assert_eq!(place.step().await, StepTaken::Unexpected { kms: says, begins_anew: true });
    assert!(matches!(place.step().await, StepTaken::Disabled { .. }));
    place.wait(25 * HOUR).await;
    place.step().await;
    // Its deletion was taken back by hand.
    kms.cancel_deletion(&first).await.unwrap();
    let says = KmsSays::State(KeyState::Disabled);
    assert_eq!(place.step().await, StepTaken::Unexpected { kms: says, begins_anew: true });
    assert!(matches!(place.step().await, StepTaken::Disabled { .. }));

    // Deleted by hand, before anything was asked for: never certified.
    let place = Place::new().await;
    let first = place.key(1).await;
    place.rotate().await;
    place.world.kms.schedule_deletion(&first, 7).await.unwrap();
    place.wait(8 * DAY).await;
    for _ in 0..2 {
        let taken = StepTaken::Unexpected { kms: KmsSays::Gone, begins_anew: false };
        assert_eq!(place.step().await, taken);
    }
    assert!(matches!(place.phase(1).await, EpochPhase::Retired { .. }));
}

#[tokio::test]
async fn nothing_ends_on_doubt() {
    let place = Place::new().await;
    place.rotate().await;
    let options = FinishOptions::default();
    // A ring that does not verify.
    let a = place.customer("a").await;
    let path = Path::from(format!("ring/{a}/{:016x}", 2));
    let keys = place.world.keys.inner();
    let good = keys.get(&path).await.unwrap().bytes().await.unwrap();
    let mut bad = good.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    keys.put(&path, bad.into()).await.unwrap();
    let heads = vec![LeftBehind { head: Head::Ring(a), why: Why::Failed(ErrorKind::Integrity) }];
    assert_eq!(place.step().await, StepTaken::LeftBehind { heads: heads.clone(), enabled: false });
    assert_eq!(place.room.epoch_status(&access()).await.unwrap().unreadable, heads);
    keys.put(&path, good.into()).await.unwrap();

    // A clock that jumped.
    let room = place.node().await;
    place.world.clock.advance(30 * HOUR);
    let error = room.finish_epochs(&access(), &place.destroyers(), options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.chain());
    assert!(matches!(place.phase(1).await, EpochPhase::Retired { .. }));
    let written = records(&room).await;
    let refused = |action| {
        let found = pairs(&written).into_iter().filter(|(intent, _)| intent.action == action);
        found.filter(|(_, outcomes)| outcomes[0].result == OutcomeResult::Denied).count()
    };
    assert_eq!((refused(Action::EpochDisable), refused(Action::ClockSet)), (1, 1));

    // No such provider among the destroyers.
    let place = Place::new().await;
    place.rotate().await;
    let steps = place.room.finish_epochs(&access(), &DestroyerRegistry::new(), options).await.unwrap();
    assert_eq!(steps[0].result.as_ref().unwrap_err().kind(), ErrorKind::Configuration);
}

/// A key that is disabled stays so, whatever somebody adds to the keys storage or brings back there.
#[tokio::test]
async fn no_key_is_used_again_for_a_ring_that_nobody_vouches_for() {
    let place = Place::new().await;
    let a = place.customer("a").await;
    place.rotate().await;
    let keys = place.world.keys.inner();
    let ring = |customer, version| Path::from(format!("ring/{customer}/{version:016x}"));
    let of_first = keys.get(&ring(a, 1)).await.unwrap().bytes().await.unwrap();
    let newest = keys.get(&ring(a, 2)).await.unwrap().bytes().await.unwrap();
    assert!(matches!(place.step().await, StepTaken::Disabled { .. }));

    let nobody = CustomerId::from_bytes([9; 16]);
    keys.put(&ring(nobody, 1), of_first.into()).await.unwrap();
    assert!(matches!(place.step().await, StepTaken::Waits { .. }));
    keys.delete(&ring(a, 2)).await.unwrap();
    assert!(matches!(place.step().await, StepTaken::Waits { .. }));
    place.wait(25 * HOUR).await;
    let failed = |customer| LeftBehind { head: Head::Ring(customer), why: Why::Failed(ErrorKind::Integrity) };
    let mut heads = vec![failed(a), failed(nobody)];
    heads.sort_by_key(|left| left.head);
    assert_eq!(place.step().await, StepTaken::LeftBehind { heads, enabled: false });

    keys.put(&ring(a, 2), newest.into()).await.unwrap();
    keys.delete(&ring(nobody, 1)).await.unwrap();
    assert!(matches!(place.step().await, StepTaken::Scheduled { .. }));
}

/// Somebody takes away all that says that there is a customer, but for the log.
#[tokio::test]
async fn a_customer_that_is_hidden_keeps_its_epoch() {
    let place = Place::new().await;
    let a = place.customer("a").await;
    for _ in 0..3 {
        place.wait(25 * HOUR).await;
        place.room.maintain_log().await.unwrap();
    }
    place.rotate().await;
    assert!(matches!(place.step().await, StepTaken::Disabled { .. }));
    let (keys, audit) = (place.world.keys.inner(), place.world.audit.inner());
    for (storage, folder) in [(keys, format!("ring/{a}")), (audit, format!("pin/{a}"))] {
        let listed: Vec<_> = storage.list(Some(&Path::from(folder))).try_collect().await.unwrap();
        for meta in listed {
            storage.delete(&meta.location).await.unwrap();
        }
    }
    place.wait(25 * HOUR).await;
    let heads = vec![LeftBehind { head: Head::Ring(a), why: Why::Failed(ErrorKind::NotFound) }];
    assert_eq!(place.step().await, StepTaken::LeftBehind { heads, enabled: false });
}

#[tokio::test]
async fn an_epoch_has_a_kms_key_of_its_own_and_a_record_of_this_store() {
    let place = Place::new().await;
    let of_customer = place.room.customer(&label("a"), access()).await.unwrap().info().await.unwrap().kms_key;
    for taken in [place.key(1).await, of_customer] {
        let choice = KeyChoice::Existing(taken);
        let error = place.room.rotate_epoch(&access(), choice).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}", error.chain());
    }
    // Somebody who may write to the keys storage, and has KMS keys of their own.
    let theirs = InMemory::new();
    let marker = place.world.audit.inner().get(&Path::from("store")).await.unwrap().bytes().await.unwrap();
    theirs.put(&Path::from("store"), marker.into()).await.unwrap();
    let keys: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let storages = Storages::from_parts(Arc::new(InMemory::new()), Arc::clone(&keys), Arc::new(theirs));
    let choice = KeyChoice::New("local".into());
    let (registry, options) = (place.world.registry(), place.world.options());
    let (foreign, _) = Strongroom::init(storages, registry, choice, &access(), options).await.unwrap();
    assert_eq!(foreign.store_id(), place.room.store_id());
    rotate(&foreign).await.unwrap();
    let path = Path::from(format!("epoch/{:08x}", 2));
    let record = keys.get(&path).await.unwrap().bytes().await.unwrap();
    place.world.keys.inner().put(&path, record.into()).await.unwrap();
    let error = rotate(&place.room).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{}", error.chain());
    assert_eq!(place.room.register(&access()).await.unwrap().newest_epoch().number, 1);
    place.world.keys.inner().delete(&path).await.unwrap();
    assert_eq!(
        place.node().await.rotate_epoch(&access(), KeyChoice::New("local".into())).await.unwrap().epoch,
        2
    );
}

#[tokio::test]
async fn a_rotation_that_stopped_at_any_write_is_completed_by_the_next() {
    // Writes of rings, records and the register, which fail from the k-th on.
    let mut steps = 0;
    for k in 1.. {
        let place = Place::new().await;
        place.world.keys.fail_from(k);
        let first = rotate(&place.room).await;
        place.world.keys.heal();
        if first.as_ref().is_ok_and(|rotated| rotated.left_behind.is_empty()) {
            break;
        }
        steps += 1;
        let node = place.node().await;
        opens(&node, "a").await.unwrap();
        let rotated = rotate(&node).await.unwrap();
        assert_eq!((rotated.epoch, rotated.left_behind), (2, vec![]), "write {k}");
        place.assert_is_complete(&node.register(&access()).await.unwrap(), 2);
        assert!(matches!(place.step().await, StepTaken::Disabled { .. }));
        opens(&place.node().await, "b").await.unwrap();
        place.world.verify_log(&node).await;
    }
    assert_eq!(steps, 6, "the record, three of the register, two rings");
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_lost_its_log_at_any_write_is_completed_by_the_next() {
    let stopped = async |k: u64| {
        let place = Place::new().await;
        let options = place.hasty();
        let dying = place.world.node(options).await.unwrap();
        place.world.audit.fail_from(k);
        let first = rotate(&dying).await;
        place.world.audit.heal();
        let failed = !first.is_ok_and(|rotated| rotated.left_behind.is_empty());
        let node = place.node().await;
        let before = node.register(&access()).await.unwrap();
        let current = before.epochs.iter().filter(|epoch| epoch.state == EpochPhase::Current).count();
        if before.newest_epoch().number == 1 || current > 1 {
            let rotated = rotate(&node).await.unwrap();
            assert_eq!((rotated.epoch, rotated.left_behind), (2, vec![]), "write {k}");
        }
        place.assert_is_complete(&node.register(&access()).await.unwrap(), 2);
        assert!(matches!(only(finish_by(&node, &place.destroyers()).await), StepTaken::Disabled { .. }));
        opens(&node, "a").await.unwrap();
        failed
    };
    let mut from = 1;
    loop {
        let failed = join_all((from..from + 8).map(&stopped)).await;
        from += 8;
        if !failed[7] {
            break;
        }
    }
    assert!(from > 17, "a rotation writes more often to the log than {from}");
}

async fn finish_by(room: &Strongroom, destroyers: &DestroyerRegistry) -> Vec<EpochStep> {
    room.finish_epochs(&access(), destroyers, FinishOptions::default()).await.unwrap()
}

/// A KMS of which one answer is lost, or one call.
#[derive(Debug)]
struct Losing {
    kms: Arc<TestKms>,
    /// How many calls that end something there are still until then.
    until: AtomicUsize,
    /// Whether the call took effect.
    effect: bool,
}

impl Losing {
    async fn call<T>(&self, call: impl Future<Output = Result<T, KmsError>>) -> Result<T, KmsError> {
        let lost = KmsError::new(KmsErrorKind::Unavailable, "the answer is lost");
        match self.until.fetch_sub(1, Ordering::SeqCst) {
            1 if self.effect => call.await.and(Err(lost)),
            1 => Err(lost),
            _ => call.await,
        }
    }
}

#[async_trait]
impl Kms for Losing {
    fn provider(&self) -> &'static str {
        self.kms.provider()
    }

    async fn generate_data_key(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        self.kms.generate_data_key(receipt, key, context).await
    }

    async fn decrypt(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        self.kms.decrypt(receipt, key, wrapped, context).await
    }

    async fn describe(&self, key: &KmsKeyId) -> Result<KeyState, KmsError> {
        self.kms.describe(key).await
    }
}

#[async_trait]
impl KmsDestroyer for Losing {
    async fn enable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.call(self.kms.enable(key)).await
    }

    async fn disable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.call(self.kms.disable(key)).await
    }

    async fn schedule_deletion(&self, key: &KmsKeyId, days: u32) -> Result<Timestamp, KmsError> {
        self.call(self.kms.schedule_deletion(key, days)).await
    }

    async fn cancel_deletion(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.call(self.kms.cancel_deletion(key)).await
    }
}

#[tokio::test]
async fn an_end_whose_kms_call_was_lost_is_gone_on_with() {
    for effect in [false, true] {
        let place = Place::new().await;
        place.rotate().await;
        let lose = |until| {
            let kms = Arc::clone(&place.world.kms);
            DestroyerRegistry::new().with(Arc::new(Losing { kms, until: AtomicUsize::new(until), effect }))
        };
        let lost = async || {
            let steps = finish_by(&place.room, &lose(1)).await;
            assert_eq!(steps[0].result.as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
        };
        lost().await;
        assert!(matches!(place.phase(1).await, EpochPhase::Retired { .. }));
        assert!(matches!(place.step().await, StepTaken::Disabled { .. }));
        place.wait(25 * HOUR).await;
        lost().await;
        assert!(matches!(place.phase(1).await, EpochPhase::Disabled { .. }));
        let due = match place.step().await {
            StepTaken::Scheduled { due } => due,
            other => panic!("{other:?}"),
        };
        place.wait(8 * DAY).await;
        assert!(due < place.world_now());
        assert_eq!(place.step().await, StepTaken::Gone);
    }
}

#[tokio::test]
async fn a_deletion_that_was_scheduled_and_not_noted_is_believed_when_it_must_be_over() {
    let place = Place::new().await;
    place.rotate().await;
    place.step().await;
    place.wait(25 * HOUR).await;
    let kms = Arc::clone(&place.world.kms);
    let losing =
        DestroyerRegistry::new().with(Arc::new(Losing { kms, until: AtomicUsize::new(1), effect: true }));
    let asked = place.world_now();
    assert!(finish_by(&place.room, &losing).await[0].result.is_err());
    place.wait(10 * DAY).await;
    // The key is gone, and when that was due nobody noted.
    match place.step().await {
        StepTaken::Waits { until } => assert!(until >= asked.saturating_add(30 * DAY)),
        other => panic!("{other:?}"),
    }
    place.wait(21 * DAY).await;
    assert_eq!(place.step().await, StepTaken::Gone);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_stopped_at_any_write_is_gone_on_with() {
    // Each stage, with the first write to the keys storage failing, then the answer to it
    // lost, then the same of the log.
    for fault in 0..4 {
        let place = Place::new().await;
        place.rotate().await;
        let mut reached = Vec::new();
        for (stage, wait) in [25 * HOUR, 8 * DAY, HOUR].into_iter().enumerate() {
            let options = place.hasty();
            let dying = place.world.node(options).await.unwrap();
            let time = dying.destruction_time(&access()).await;
            assert!(time.is_ok());
            match fault {
                0 => place.world.keys.fail_from(1),
                1 => place.world.keys.lose_answer(1),
                2 => place.world.audit.fail_from(1),
                _ => place.world.audit.fail_from(5),
            }
            let run = dying.finish_epochs(&access(), &place.destroyers(), FinishOptions::default()).await;
            place.world.keys.heal();
            place.world.audit.heal();
            let done = run.is_ok_and(|steps| steps.iter().all(|step| step.result.is_ok()));
            let again = place.finish().await;
            let phase = place.phase(1).await;
            let as_far = matches!(
                (stage, phase),
                (0, EpochPhase::Disabled { .. })
                    | (1, EpochPhase::PendingDeletion { .. })
                    | (2, EpochPhase::Gone { .. })
            );
            assert!(as_far, "fault {fault}, stage {stage}: {phase:?}, {again:?}");
            reached.push(done);
            place.wait(wait).await;
        }
        assert!(fault == 1 || reached.contains(&false), "fault {fault} was none: {reached:?}");
        opens(&place.node().await, "a").await.unwrap();
        place.world.verify_log(&place.room).await;
    }
}
