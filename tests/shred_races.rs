//! Destruction against everything that may happen in the same moment, on many nodes:
//! whichever ring version comes first wins, all nodes see the same, and the certificate
//! tells.

#[path = "common/aftermath.rs"]
mod aftermath;
#[path = "common/attacker.rs"]
mod attacker;
#[path = "common/mod.rs"]
mod common;
#[path = "common/destroy.rs"]
mod destroy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aftermath::alive;
use common::Raw;
use destroy::{DAY, Vault, access, day, keys_of, opens, refused, seal};
use futures_util::future::join_all;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use strongroom::ErrorKind;
use strongroom::certificate::{CertificateBody, SurvivorClass};
use strongroom::id::{BlobId, KekId};
use strongroom::order::OrderKind;
use strongroom::ring::{EntryKind, HoldState, Ring};
use strongroom::room::{Customer, KeyChoice, SealOptions, Strongroom};
use strongroom::shred::{Executed, HoldTarget};
use strongroom::store::Storages;

const NODES: u32 = 8;
/// How often each race is run, with the storages a little slower for other nodes.
const TRIALS: u32 = 4;

/// What a node's storages take for a write and a read.
#[derive(Clone, Copy, Default)]
struct Slow {
    keys: Duration,
    others: Duration,
}

impl Slow {
    /// Different for each node and trial.
    fn of(node: u32, trial: u32) -> Self {
        let millis = |factor: u32| Duration::from_millis(u64::from((node * factor + trial * 3) % 5));
        Self { keys: millis(7), others: millis(3) }
    }

    fn storages(self, raw: &Raw) -> Storages {
        let throttled = |inner: &Arc<InMemory>, wait| -> Arc<dyn ObjectStore> {
            let config = ThrottleConfig { wait_put_per_call: wait, ..ThrottleConfig::default() };
            Arc::new(ThrottledStore::new(Arc::clone(inner), config))
        };
        Storages::from_parts(
            throttled(&raw.blobs, self.others),
            throttled(&raw.keys, self.keys),
            throttled(&raw.audit, self.others),
        )
    }
}

/// A copy of a vault's storages, and nodes on it that know nothing yet.
struct Arena<'a> {
    vault: &'a Vault,
    raw: Raw,
    nodes: Vec<Strongroom>,
}

impl<'a> Arena<'a> {
    async fn new(vault: &'a Vault, trial: u32) -> Self {
        let raw = vault.raw.fork();
        let nodes = (0..NODES).map(|node| vault.node_over(Slow::of(node, trial).storages(&raw)));
        let nodes = join_all(nodes).await;
        Self { vault, raw, nodes }
    }

    async fn customer(&self, node: u32) -> Customer {
        self.vault.of(&self.nodes[node as usize], "acme").await
    }

    /// Sweeps on this node; races that it loses are left to the next time.
    async fn sweep(&self, node: u32) -> BTreeSet<KekId> {
        let sweep = self.nodes[node as usize].sweep(&access()).await.unwrap();
        let mut dropped = BTreeSet::new();
        for (_, swept) in sweep.customers {
            match swept {
                Ok(swept) => dropped.extend(swept.dropped),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain()),
            }
        }
        dropped
    }

    async fn rings(&self) -> Vec<Ring> {
        aftermath::rings(self.vault, &self.raw).await
    }

    /// Ends the race: what is wanting is done, the log verifies, all nodes agree on each
    /// blob once their caches are old, and each drop has one certificate, by ring version.
    async fn end(&self, blobs: &[(BlobId, &str)]) -> BTreeMap<u64, CertificateBody> {
        self.vault.clock.pass(Duration::from_mins(6));
        self.sweep(0).await;
        for (blob, text) in blobs {
            let first = alive(&self.customer(0).await, *blob, text).await;
            for node in 1..NODES {
                assert_eq!(alive(&self.customer(node).await, *blob, text).await, first, "{text}");
            }
        }
        let certificates = aftermath::certificates(self.vault, &self.raw, &self.nodes[0]).await;
        for node in &self.nodes {
            node.log().flush().await.unwrap();
        }
        aftermath::verify(&self.vault.node_over(self.raw.storages()).await).await;
        certificates.into_values().map(|body| (body.ring.version, body)).collect()
    }
}

/// A customer whose two blobs are to be dropped by the next sweep.
async fn due() -> (Vault, [BlobId; 2]) {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 3).await;
    let blobs = [seal(&acme, "one").await, seal(&acme, "two").await];
    vault.days(10).await;
    vault.clock.pass(DAY);
    (vault, blobs)
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_and_drops_in_one_moment() {
    let (vault, [blob, neighbour]) = due().await;
    let start = vault.clock.clone();
    let at = strongroom::time::Clock::now(&*start);
    for target in [HoldTarget::Customer, HoldTarget::Day(blob.day()), HoldTarget::Blob(blob)] {
        for trial in 0..TRIALS + 2 {
            vault.clock.set(at);
            let arena = Arena::new(&vault, trial).await;
            let hold = async |node| arena.customer(node).await.place_hold(target).await;
            let (holds, dropped) = match trial {
                // The hold first, then the drop; and the other way round.
                0 => {
                    let hold = hold(0).await;
                    assert!(hold.is_ok(), "{hold:?}");
                    (vec![hold], arena.sweep(1).await)
                }
                1 => {
                    let dropped = arena.sweep(1).await;
                    assert!(!dropped.is_empty());
                    (vec![hold(0).await], dropped)
                }
                _ => {
                    let holds = join_all((0..NODES / 2).map(hold));
                    let sweeps = join_all((NODES / 2..NODES).map(|node| arena.sweep(node)));
                    let (holds, sweeps) = tokio::join!(holds, sweeps);
                    (holds, sweeps.into_iter().flatten().collect())
                }
            };
            let placed: Vec<_> = holds.iter().filter_map(|hold| hold.as_ref().ok()).collect();
            let certificates = arena.end(&[(blob, "one"), (neighbour, "two")]).await;
            let rings = arena.rings().await;
            let newest = rings.last().unwrap();
            // All that were placed stand, and those that were not say why.
            for hold in &placed {
                assert!(newest.hold(hold.hold.id).unwrap().is_live());
            }
            let key = |ring: &Ring| ring.entries.iter().any(|entry| entry.kind == EntryKind::Day(blob.day()));
            let what = format!("{target:?}, trial {trial}, {} holds of {}", placed.len(), holds.len());
            let opens = alive(&arena.customer(0).await, blob, "one").await;
            let neighbour = alive(&arena.customer(0).await, neighbour, "two").await;
            match target {
                HoldTarget::Customer => {
                    assert_eq!(placed.len(), holds.len(), "{what}");
                    assert_eq!((opens, neighbour), (key(newest), key(newest)), "{what}");
                }
                HoldTarget::Day(_) => {
                    assert_eq!(opens, !placed.is_empty(), "{what}");
                    assert_eq!((neighbour, key(newest)), (opens, opens), "{what}");
                }
                HoldTarget::Blob(_) => {
                    assert_eq!(opens, !placed.is_empty(), "{what}");
                    assert!(placed.iter().all(|hold| hold.hold.state == HoldState::Complete), "{what}");
                    assert!(!neighbour, "{what}: its day is dropped all the same");
                    let drop = certificates.values().next().unwrap();
                    let held = drop.scope.survivors.iter().find(|of| of.class == SurvivorClass::Held);
                    assert_eq!(held.map(|of| of.blobs), opens.then_some(1), "{what}");
                    assert_eq!(drop.scope.blobs.certain, if opens { 1 } else { 2 }, "{what}");
                }
            }
            for error in holds.iter().filter_map(|hold| hold.as_ref().err()) {
                let kinds = match opens {
                    true => &[ErrorKind::Conflict][..],
                    false => &[ErrorKind::NotFound, ErrorKind::KeyDestroyed],
                };
                assert!(kinds.contains(&error.kind()), "{what}: {}", error.chain());
            }
            assert!(dropped.is_empty() || !neighbour, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_that_sweep_drop_once_and_certify_once() {
    let (vault, [one, two]) = due().await;
    for trial in 0..TRIALS {
        let arena = Arena::new(&vault, trial).await;
        let sweeps = join_all((0..NODES).map(|node| arena.sweep(node))).await;
        let dropped: Vec<KekId> = sweeps.into_iter().flatten().collect();
        assert_eq!(dropped.len(), 1, "one node did it");
        let certificates = arena.end(&[(one, "one"), (two, "two")]).await;
        assert_eq!(certificates.len(), 1);
        assert_eq!(certificates.values().next().unwrap().scope.blobs.certain, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_was_promised_outlives_the_drop() {
    let (vault, [blob, neighbour]) = due().await;
    let at = strongroom::time::Clock::now(&*vault.clock);
    for trial in 0..TRIALS {
        vault.clock.set(at);
        let arena = Arena::new(&vault, trial).await;
        let until = day("2027-06-01");
        let extend = async |node| arena.customer(node).await.extend(blob, until).await;
        let extends = join_all((0..NODES / 2).map(extend));
        let sweeps = join_all((NODES / 2..NODES).map(|node| arena.sweep(node)));
        let (extended, _) = tokio::join!(extends, sweeps);
        let promised = extended.iter().any(Result::is_ok);
        let certificates = arena.end(&[(blob, "one"), (neighbour, "two")]).await;
        let opens = alive(&arena.customer(0).await, blob, "one").await;
        assert!(opens || !promised, "a promise is kept: {extended:?}");
        assert!(!alive(&arena.customer(0).await, neighbour, "two").await);
        for error in extended.iter().filter_map(|extended| extended.as_ref().err()) {
            let kinds = [ErrorKind::KeyDestroyed, ErrorKind::Conflict];
            assert!(kinds.contains(&error.kind()), "{}", error.chain());
        }
        // One that may have been extended is not certified as shredded: not where it was, and
        // not where somebody was still at it when the certificate was made, and failed then.
        let drop = certificates.values().next().unwrap();
        let surviving: u64 = drop.scope.survivors.iter().map(|survivors| survivors.blobs).sum();
        assert_eq!(drop.scope.blobs.certain + surviving, 2);
        assert!(surviving == 1 || !opens, "{surviving} survive");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_while_its_day_is_ordered_away_is_alive_or_certified() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 30).await;
    let first = seal(&acme, "first").await;
    let at = strongroom::time::Clock::now(&*vault.clock);
    for trial in 0..TRIALS / 2 {
        vault.clock.set(at);
        let arena = Arena::new(&vault, trial).await;
        // Each node has the ring from before.
        for node in 0..NODES {
            arena.customer(node).await.info().await.unwrap();
        }
        let order = async {
            let room = &arena.nodes[0];
            let what = OrderKind::DestroyDays { days: vec![first.day()] };
            let (of, by) = (Some(acme.id()), destroy::person("a"));
            let order = room.draft_order(&access(), what, of, by, strongroom::shred::VALIDITY).await.unwrap();
            let signed = order.sign(&destroy::key("a")).unwrap();
            let id = room.request_order(&access(), &signed).await.unwrap();
            room.approve_order(&access(), id, &destroy::key("b")).await.unwrap()
        };
        let seals = (1..NODES).map(|node| {
            let arena = &arena;
            async move {
                let customer = arena.customer(node).await;
                let mut sealed = Vec::new();
                for number in 0..6 {
                    let text = format!("node {node}, number {number}");
                    let id = customer.seal(text.clone().into_bytes(), SealOptions::new()).await.unwrap().id;
                    sealed.push((id, text));
                }
                sealed
            }
        });
        let (executed, sealed) = tokio::join!(order, join_all(seals));
        let keys = keys_of(&executed);
        let sealed: Vec<(BlobId, String)> = sealed.into_iter().flatten().collect();
        // A stale node seals in the window, under the key that it knows; it goes by its
        // ring for five minutes at most.
        let stale = seal(&arena.customer(7).await, "stale").await;
        let mut blobs: Vec<_> = sealed.iter().map(|(id, text)| (*id, text.as_str())).collect();
        blobs.extend([(first, "first"), (stale, "stale")]);
        for _ in 0..6 {
            vault.clock.pass(DAY);
            arena.sweep(1).await;
            for (blob, text) in &blobs {
                assert_eq!(opens(&arena.customer(1).await, *blob).await, text.as_bytes());
            }
        }
        let late = seal(&arena.customer(7).await, "late").await;
        blobs.push((late, "late"));
        vault.clock.pass(DAY);
        arena.sweep(2).await;
        let certificates = arena.end(&blobs).await;
        let mut dead = 0;
        for (blob, text) in &blobs {
            dead += u64::from(!alive(&arena.customer(0).await, *blob, text).await);
        }
        assert!(!alive(&arena.customer(0).await, first, "first").await);
        assert!(alive(&arena.customer(0).await, late, "late").await, "it has a new key of its day");
        let drop = certificates.values().next().unwrap();
        let certified: BTreeSet<KekId> = drop.scope.keys.iter().map(|key| key.id).collect();
        assert_eq!((certified, drop.scope.blobs.certain), (keys, dead));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_and_a_drop_in_one_moment() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 30).await;
    let blob = seal(&acme, "kept or not").await;
    let executed = vault.order(OrderKind::DestroyDays { days: vec![blob.day()] }, Some(&acme)).await;
    let keys = keys_of(&executed);
    vault.days(6).await;
    vault.clock.pass(DAY);
    let at = strongroom::time::Clock::now(&*vault.clock);
    for trial in 0..TRIALS {
        vault.clock.set(at);
        let arena = Arena::new(&vault, trial).await;
        let cancel =
            async |node: u32| arena.nodes[node as usize].cancel_shred(&access(), acme.id(), &keys).await;
        let cancels = (0..NODES / 2).map(cancel);
        let sweeps = (NODES / 2..NODES).map(|node| arena.sweep(node));
        let (cancelled, _) = tokio::join!(join_all(cancels), join_all(sweeps));
        let certificates = arena.end(&[(blob, "kept or not")]).await;
        let opens = alive(&arena.customer(0).await, blob, "kept or not").await;
        let cancels = cancelled.iter().filter(|cancelled| cancelled.is_ok()).count();
        assert_eq!((cancels, certificates.len()), (usize::from(opens), usize::from(!opens)), "one of them");
        for error in cancelled.iter().filter_map(|cancelled| cancelled.as_ref().err()) {
            let kinds = [ErrorKind::NotFound, ErrorKind::Denied, ErrorKind::Conflict];
            assert!(kinds.contains(&error.kind()), "{}", error.chain());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_among_all_of_them() {
    let (vault, [blob, neighbour]) = due().await;
    let at = strongroom::time::Clock::now(&*vault.clock);
    for trial in 0..TRIALS {
        vault.clock.set(at);
        let arena = Arena::new(&vault, trial).await;
        let rotate = async |node: u32| {
            arena.nodes[node as usize].rotate_epoch(&access(), KeyChoice::New("local".into())).await
        };
        let hold = async |node| arena.customer(node).await.place_hold(HoldTarget::Blob(blob)).await;
        let new = async |node| seal(&arena.customer(node).await, "new").await;
        let (rotations, _, hold, new) = tokio::join!(
            join_all([0, 1].map(rotate)),
            join_all((2..5).map(|node| arena.sweep(node))),
            hold(5),
            join_all([6, 7].map(new)),
        );
        for error in rotations.iter().filter_map(|rotated| rotated.as_ref().err()) {
            assert!(error.kind().is_retryable(), "{}", error.chain());
        }
        let rotated = rotate(0).await.unwrap();
        assert!(rotated.left_behind.is_empty(), "{rotated:?}");
        let held = match &hold {
            Ok(_) => true,
            Err(error) => {
                let kinds = [ErrorKind::KeyDestroyed, ErrorKind::NotFound, ErrorKind::Conflict];
                assert!(kinds.contains(&error.kind()), "{}", error.chain());
                false
            }
        };
        let mut blobs = vec![(blob, "one"), (neighbour, "two")];
        blobs.extend(new.iter().map(|blob| (*blob, "new")));
        arena.end(&blobs).await;
        let customer = arena.customer(0).await;
        assert!(!held || alive(&customer, blob, "one").await);
        assert!(!alive(&customer, neighbour, "two").await);
        for blob in new {
            assert_eq!(opens(&customer, blob).await, b"new");
        }
        let rings = arena.rings().await;
        assert!(rings.last().unwrap().epoch >= 2);
    }
}

/// An extension whose record comes after the log was read for an order, and whose ring
/// was read before the order's version was written.
#[tokio::test(flavor = "multi_thread")]
async fn an_extension_does_not_slip_past_the_order_for_its_blob() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 30).await;
    let blob = seal(&acme, "by mistake").await;
    let order = vault.request(OrderKind::DestroyBlob { blob }, Some(&acme)).await;
    // Its last write, the ring's, takes long.
    let slow = Slow { keys: Duration::from_millis(600), ..Slow::default() };
    let node = vault.node_over(slow.storages(&vault.raw)).await;
    // Warm, so that it does not write the trusted time when it is asked.
    node.sweep(&access()).await.unwrap();
    let (by, key) = (access(), destroy::key("b"));
    let approve = node.approve_order(&by, order, &key);
    // Each to another day, so that each is a path of its own.
    let extend = async {
        let mut tries = Vec::new();
        for days in 1..=30 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            tries.push(acme.extend(blob, blob.day().plus(days)).await);
        }
        tries
    };
    let (executed, tries) = tokio::join!(approve, extend);
    let executed = executed.unwrap();
    assert!(matches!(executed, Executed::Pended { .. }));
    let extended = tries.iter().filter(|tried| tried.as_ref().is_ok_and(|done| done.changed)).count();
    // A path that came late enters a window of its own when the others are over.
    vault.days(17).await;
    // Whichever was first: it was certified as destroyed and is, or the order never took it.
    let error = refused(&acme, blob).await;
    let newest = aftermath::newest_ring(&vault, &vault.raw, &acme).await;
    let paths = common::objects(&vault.raw.blobs).await;
    let live = paths.iter().filter_map(|(path, _)| {
        let (_, of, kek) = strongroom::store::layout::read_wrap(path)?;
        (of == blob).then_some(kek)
    });
    let live: Vec<KekId> = live.filter(|kek| newest.entry(*kek).is_some()).collect();
    assert_eq!((error.kind(), live), (ErrorKind::KeyDestroyed, vec![]), "{extended} extensions were made");
}
