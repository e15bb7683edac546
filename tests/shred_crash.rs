//! A process that stops at any write of a destruction: whoever comes next finds what is
//! left to do and completes it, once.

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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aftermath::alive;
use common::{Raw, write};
use destroy::{DAY, Vault, access, count, key, person, seal};
use faults::FaultStore;
use strongroom::id::{BlobId, CustomerId};
use strongroom::order::OrderKind;
use strongroom::retention::Window;
use strongroom::ring::{EntryKind, EntryState, HoldState, Ring};
use strongroom::room::{Customer, KeyChoice, NewCustomer, Strongroom};
use strongroom::shred::{HoldTarget, OrderState, Swept, VALIDITY};
use strongroom::store::Storages;
use strongroom::time::Clock;

/// What a process left that stopped after some writes, and the node that comes next.
struct Left<'a> {
    vault: &'a Vault,
    raw: Raw,
    next: Strongroom,
    /// Whether what it was at ended well.
    done: bool,
    what: String,
}

impl Left<'_> {
    async fn acme(&self) -> Customer {
        self.vault.of(&self.next, "acme").await
    }

    async fn sweep(&self) -> BTreeMap<CustomerId, Swept> {
        let sweep = self.next.sweep(&access()).await.unwrap();
        let all = sweep.customers.into_iter();
        all.map(|(customer, swept)| (customer, swept.unwrap_or_else(|error| self.fail(&error)))).collect()
    }

    fn fail(&self, error: &strongroom::Error) -> ! {
        panic!("{}: {}", self.what, error.chain())
    }

    async fn days(&self, days: u32) {
        for _ in 0..days {
            self.vault.clock.pass(DAY);
            // As the daily task does: it closes what the dead one left open.
            self.next.maintain_log().await.unwrap();
            self.sweep().await;
        }
    }

    async fn newest_ring(&self) -> Ring {
        aftermath::newest_ring(self.vault, &self.raw, &self.acme().await).await
    }

    /// Approves what was asked for and not approved, and says whether anything was.
    async fn approve_rest(&self) -> bool {
        let orders = self.next.orders(&access()).await.unwrap();
        assert!(orders.len() <= 1, "{}", self.what);
        for order in &orders {
            if order.state == OrderState::Requested {
                let id = order.signed.order().id;
                self.next.approve_order(&access(), id, &key("b")).await.unwrap();
            }
        }
        !orders.is_empty()
    }

    /// That no order was left, or done twice.
    async fn assert_used(&self, orders: usize) {
        assert_eq!(self.newest_ring().await.orders.len(), orders, "{}", self.what);
        let states = self.next.orders(&access()).await.unwrap();
        assert!(states.iter().all(|order| order.state == OrderState::Done), "{}", self.what);
    }

    /// All that holds of a store at any time.
    async fn end(&self) {
        aftermath::certificates(self.vault, &self.raw, &self.next).await;
        self.next.log().flush().await.unwrap();
        aftermath::verify(&self.next).await;
    }
}

/// Lets a process do `act` on a copy of the vault and stop before its `n`-th write, for
/// every `n`, and lets `check` see what is left. Returns how many writes there are.
async fn stop_at_every_write(
    vault: &Vault,
    act: impl AsyncFn(&Strongroom) -> strongroom::Result<()>,
    check: impl AsyncFn(&Left<'_>),
) -> u64 {
    fail_at_every_write(vault, FaultStore::fail_from, act, check).await
}

/// The same where the `n`-th write goes wrong in the way of `fault`.
async fn fail_at_every_write(
    vault: &Vault,
    fault: fn(&FaultStore, u64),
    act: impl AsyncFn(&Strongroom) -> strongroom::Result<()>,
    check: impl AsyncFn(&Left<'_>),
) -> u64 {
    let begins = vault.clock.now();
    for write in 1.. {
        vault.clock.set(begins);
        let raw = vault.raw.fork();
        let blobs = FaultStore::new(raw.blobs.clone());
        let (keys, audit) = (blobs.beside(raw.keys.clone()), blobs.beside(raw.audit.clone()));
        let storages = Storages::from_parts(Arc::new(blobs.clone()), Arc::new(keys), Arc::new(audit));
        let mut options = common::options(&vault.clock);
        options.log_deadline = Duration::from_millis(400);
        let node = Strongroom::open(storages, vault.kms.clone(), options).await.unwrap();
        fault(&blobs, write);
        let acted = act(&node).await;
        let _: strongroom::Result<()> = node.close().await;
        let reached = blobs.writes() >= write;
        drop(node);
        let what = format!("write {write}: {acted:?}");
        // Those who wait for the dead one take it for dead.
        vault.clock.pass(Duration::from_mins(15));
        let next = vault.node_over(raw.storages()).await;
        let left = Left { vault, raw, next, done: acted.is_ok(), what };
        check(&left).await;
        left.end().await;
        if !reached {
            assert!(acted.is_ok(), "{}", left.what);
            return write - 1;
        }
    }
    unreachable!("it ends")
}

/// A customer with two blobs of a day and a window of two days, `days` sweeps later.
async fn scene(kept: u32, days: u32) -> (Vault, [BlobId; 2]) {
    let vault = Vault::new().await;
    let mut new = NewCustomer::new("acme".parse().unwrap(), KeyChoice::New("local".into()));
    (new.period, new.window) = (format!("P{kept}D").parse().unwrap(), Window::new(2).unwrap());
    vault.room.add_customer(&access(), new).await.unwrap();
    let acme = vault.of(&vault.room, "acme").await;
    let blobs = [seal(&acme, "one").await, seal(&acme, "two").await];
    vault.days(days).await;
    vault.room.log().flush().await.unwrap();
    (vault, blobs)
}

async fn sweep(node: &Strongroom) -> strongroom::Result<()> {
    for (_, swept) in node.sweep(&access()).await?.customers {
        swept?;
    }
    Ok(())
}

/// Asks for something and approves it, as two people do.
async fn order(node: &Strongroom, customer: CustomerId, what: OrderKind) -> strongroom::Result<()> {
    let order = node.draft_order(&access(), what, Some(customer), person("a"), VALIDITY).await?;
    let id = node.request_order(&access(), &order.sign(&key("a")).unwrap()).await?;
    node.approve_order(&access(), id, &key("b")).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn putting_a_day_into_the_window() {
    let (vault, [one, two]) = scene(3, 3).await;
    vault.clock.pass(DAY);
    let writes = stop_at_every_write(&vault, sweep, async |left| {
        left.sweep().await;
        let ring = left.newest_ring().await;
        let of_day = |kind| kind == EntryKind::Day(one.day());
        let entries: Vec<_> = ring.entries.iter().filter(|entry| of_day(entry.kind)).collect();
        assert_eq!(entries.len(), 1, "{}", left.what);
        assert!(matches!(entries[0].state, EntryState::Pending { order: None, .. }), "{}", left.what);
        for (blob, text) in [(one, "one"), (two, "two")] {
            assert!(alive(&left.acme().await, blob, text).await, "{}", left.what);
        }
    });
    assert!(writes.await >= 4);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_day_and_certifying_it() {
    let (vault, [one, two]) = scene(3, 5).await;
    vault.clock.pass(DAY);
    let writes = stop_at_every_write(&vault, sweep, async |left| {
        left.sweep().await;
        let ring = left.newest_ring().await;
        assert_eq!(ring.dropped.len(), 1, "{}", left.what);
        for (blob, text) in [(one, "one"), (two, "two")] {
            assert!(!alive(&left.acme().await, blob, text).await, "{}", left.what);
        }
        let certificates = aftermath::certificates(left.vault, &left.raw, &left.next).await;
        let body = certificates.values().next().unwrap();
        assert_eq!((certificates.len(), body.scope.blobs.certain), (1, 2), "{}", left.what);
        // Nothing is done twice.
        assert!(left.sweep().await.values().all(|swept| swept.certificates.is_empty()), "{}", left.what);
    });
    assert!(writes.await >= 8);
}

/// What a writer was told is one thing, what stands is another: it is certified once, and
/// by what stands.
#[tokio::test(start_paused = true)]
async fn dropping_a_day_while_the_answer_to_a_write_is_lost() {
    let (vault, [one, two]) = scene(3, 5).await;
    vault.clock.pass(DAY);
    let writes = fail_at_every_write(&vault, FaultStore::lose_answer, sweep, async |left| {
        left.sweep().await;
        for (blob, text) in [(one, "one"), (two, "two")] {
            assert!(!alive(&left.acme().await, blob, text).await, "{}", left.what);
        }
        let certificates = aftermath::certificates(left.vault, &left.raw, &left.next).await;
        let body = certificates.values().next().unwrap();
        assert_eq!((certificates.len(), body.scope.blobs.certain), (1, 2), "{}", left.what);
    });
    assert!(writes.await >= 8);
}

#[tokio::test(start_paused = true)]
async fn destroying_a_day_by_order() {
    let (vault, [one, two]) = scene(30, 0).await;
    let acme = vault.of(&vault.room, "acme").await.id();
    let act =
        async |node: &Strongroom| order(node, acme, OrderKind::DestroyDays { days: vec![one.day()] }).await;
    let writes = stop_at_every_write(&vault, act, async |left| {
        let ordered = left.approve_rest().await;
        assert!(ordered || !left.done);
        left.days(4).await;
        for (blob, text) in [(one, "one"), (two, "two")] {
            assert_eq!(alive(&left.acme().await, blob, text).await, !ordered, "{}", left.what);
        }
        left.assert_used(usize::from(ordered)).await;
    });
    assert!(writes.await >= 8);
}

#[tokio::test(start_paused = true)]
async fn destroying_one_blob_by_order() {
    let (vault, [one, two]) = scene(30, 0).await;
    let acme = vault.of(&vault.room, "acme").await.id();
    let act = async |node: &Strongroom| order(node, acme, OrderKind::DestroyBlob { blob: one }).await;
    let writes = stop_at_every_write(&vault, act, async |left| {
        let ordered = left.approve_rest().await;
        assert!(ordered || !left.done);
        left.days(4).await;
        assert_eq!(alive(&left.acme().await, one, "one").await, !ordered, "{}", left.what);
        assert!(alive(&left.acme().await, two, "two").await, "{}", left.what);
        left.assert_used(usize::from(ordered)).await;
    });
    assert!(writes.await >= 10);
}

#[tokio::test(start_paused = true)]
async fn destroying_a_blob_beside_one_whose_order_is_under_way() {
    let (vault, [one, two]) = scene(30, 0).await;
    let acme = vault.of(&vault.room, "acme").await;
    vault.order(OrderKind::DestroyBlob { blob: one }, Some(&acme)).await;
    vault.room.log().flush().await.unwrap();
    let what = OrderKind::DestroyBlob { blob: two };
    let act = async |node: &Strongroom| order(node, acme.id(), what.clone()).await;
    let writes = stop_at_every_write(&vault, act, async |left| {
        let mut orders = left.next.orders(&access()).await.unwrap();
        for requested in orders.iter().filter(|order| order.state == OrderState::Requested) {
            left.next.approve_order(&access(), requested.signed.order().id, &key("b")).await.unwrap();
        }
        let ordered = orders.len() == 2;
        assert!(ordered || !left.done);
        left.days(4).await;
        assert!(!alive(&left.acme().await, one, "one").await, "{}", left.what);
        assert_eq!(alive(&left.acme().await, two, "two").await, !ordered, "{}", left.what);
        orders = left.next.orders(&access()).await.unwrap();
        assert!(orders.iter().all(|order| order.state == OrderState::Done), "{}", left.what);
        // Each has a certificate of its own, of its one blob.
        let bodies = aftermath::certificates(left.vault, &left.raw, &left.next).await;
        assert!(bodies.values().all(|body| body.scope.blobs.certain == 1), "{}", left.what);
        assert_eq!(bodies.len(), orders.len(), "{}", left.what);
    });
    assert!(writes.await >= 10);
}

#[tokio::test(start_paused = true)]
async fn taking_one_of_two_orders_back() {
    let (vault, [one, two]) = scene(30, 0).await;
    let acme = vault.of(&vault.room, "acme").await;
    let keys = destroy::keys_of(&vault.order(OrderKind::DestroyBlob { blob: one }, Some(&acme)).await);
    vault.order(OrderKind::DestroyBlob { blob: two }, Some(&acme)).await;
    vault.room.log().flush().await.unwrap();
    let act = async |node: &Strongroom| node.cancel_shred(&access(), acme.id(), &keys).await.map(drop);
    let writes = stop_at_every_write(&vault, act, async |left| {
        let back = left.newest_ring().await.claims.len() == 1;
        assert!(back || !left.done);
        left.days(4).await;
        assert_eq!(alive(&left.acme().await, one, "one").await, back, "{}", left.what);
        assert!(!alive(&left.acme().await, two, "two").await, "{}", left.what);
    });
    assert!(writes.await >= 3);
}

#[tokio::test(start_paused = true)]
async fn dropping_one_blob_whose_neighbours_are_not_safe_yet() {
    let (vault, [one, two]) = scene(30, 0).await;
    let acme = vault.of(&vault.room, "acme").await;
    // A node that does not know of the order seals under the key that is to be dropped.
    let stale = vault.of(&vault.node().await, "acme").await;
    stale.info().await.unwrap();
    vault.order(OrderKind::DestroyBlob { blob: one }, Some(&acme)).await;
    let late = seal(&stale, "late").await;
    vault.days(1).await;
    vault.clock.pass(DAY);
    vault.room.log().flush().await.unwrap();
    let writes = stop_at_every_write(&vault, sweep, async |left| {
        // Storages without a clock: what was left open is seen first, and closed ten minutes later.
        left.next.maintain_log().await.unwrap();
        left.vault.clock.pass(Duration::from_mins(10));
        left.next.maintain_log().await.unwrap();
        left.sweep().await;
        assert!(!alive(&left.acme().await, one, "one").await, "{}", left.what);
        for (blob, text) in [(two, "two"), (late, "late")] {
            assert!(alive(&left.acme().await, blob, text).await, "{}", left.what);
        }
    });
    assert!(writes.await >= 8);
}

#[tokio::test(start_paused = true)]
async fn placing_a_hold_on_one_blob() {
    let (vault, [one, two]) = scene(3, 2).await;
    let act = async |node: &Strongroom| {
        let acme = node.customer(&"acme".parse().unwrap(), access()).await?;
        acme.place_hold(HoldTarget::Blob(one)).await.map(drop)
    };
    let writes = stop_at_every_write(&vault, act, async |left| {
        left.sweep().await;
        let ring = left.newest_ring().await;
        assert!(ring.holds.len() <= 1 && (ring.holds.len() == 1 || !left.done), "{}", left.what);
        assert!(ring.holds.iter().all(|hold| hold.state == HoldState::Complete), "{}", left.what);
        left.days(6).await;
        let held = !ring.holds.is_empty();
        assert_eq!(alive(&left.acme().await, one, "one").await, held, "{}", left.what);
        assert!(!alive(&left.acme().await, two, "two").await, "{}", left.what);
    });
    assert!(writes.await >= 8);
}

#[tokio::test(start_paused = true)]
async fn releasing_a_hold_by_order() {
    let (vault, [one, _]) = scene(3, 2).await;
    let acme = vault.of(&vault.room, "acme").await;
    let hold = acme.place_hold(HoldTarget::Blob(one)).await.unwrap().hold.id;
    vault.days(6).await;
    vault.room.log().flush().await.unwrap();
    let act = async |node: &Strongroom| order(node, acme.id(), OrderKind::ReleaseHold { hold }).await;
    let writes = stop_at_every_write(&vault, act, async |left| {
        let ordered = left.approve_rest().await;
        assert!(ordered || !left.done);
        left.days(4).await;
        assert_eq!(alive(&left.acme().await, one, "one").await, !ordered, "{}", left.what);
        left.assert_used(usize::from(ordered)).await;
    });
    assert!(writes.await >= 6);
}

#[tokio::test(start_paused = true)]
async fn removing_what_is_left() {
    let (vault, [one, _]) = scene(3, 2).await;
    let acme = vault.of(&vault.room, "acme").await;
    acme.extend(one, one.day().plus(90)).await.unwrap();
    vault.days(6).await;
    // What a backup brought back.
    write(&vault.raw.blobs, &"blob/other".into(), b"not ours".to_vec()).await;
    vault.room.log().flush().await.unwrap();
    let act = async |node: &Strongroom| node.remove_remains(&access(), acme.id()).await?.complete();
    let writes = stop_at_every_write(&vault, act, async |left| {
        let remains = left.next.remove_remains(&access(), acme.id()).await.unwrap();
        remains.complete().unwrap();
        assert_eq!(count(&left.raw.blobs, "blob/").await, 2, "{}", left.what);
        assert!(alive(&left.acme().await, one, "one").await, "{}", left.what);
    });
    assert!(writes.await >= 3);
}
