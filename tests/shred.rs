//! Destruction from outside: routine expiry, holds, orders of two people, one blob early.

#[path = "common/mod.rs"]
mod common;
#[path = "common/destroy.rs"]
mod destroy;

use std::collections::BTreeSet;

use common::records_since;
use destroy::{DAY, Vault, access, count, day, key, keys_of, opens, person, refused, seal};
use futures_util::TryStreamExt;
use strongroom::ErrorKind;
use strongroom::audit::layout::CertificateStage;
use strongroom::audit::{Action, Event, papers};
use strongroom::certificate::{self, Authority, CertificateBody};
use strongroom::envelope::Metadata;
use strongroom::id::{BlobId, KekId, OrderId};
use strongroom::order::{OrderKind, ReturnTo};
use strongroom::ring::HoldState;
use strongroom::room::{Customer, KeyChoice, SealOptions};
use strongroom::shred::{Executed, HoldTarget, OrderState, VALIDITY};
use strongroom::time::{Clock, Timestamp};

#[tokio::test]
async fn a_blob_lives_until_its_day_and_window_are_over_and_no_longer() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 3).await;
    let blob = seal(&acme, "until the 25th").await;
    assert_eq!(blob.day(), day("2026-11-25"));
    vault.days(3).await;
    assert_eq!(opens(&acme, blob).await, b"until the 25th", "its day is not over");
    vault.days(1).await;
    assert_eq!(opens(&acme, blob).await, b"until the 25th", "it is in the window");
    vault.days(6).await;
    assert_eq!(opens(&acme, blob).await, b"until the 25th", "it is in the window");
    vault.clock.pass(DAY);
    let swept = vault.sweep().await.remove(&acme.id()).unwrap();
    assert_eq!((swept.dropped.len(), swept.certificates.len()), (1, 1));
    let error = refused(&acme, blob).await;
    assert_eq!(error.kind(), ErrorKind::KeyDestroyed);
    let (id, stage) = swept.certificates.into_iter().next().unwrap();
    assert_eq!((error.certificate(), stage), (Some(id), CertificateStage::Interim));

    // The certificate stands by itself.
    let kept = vault.room.certificate(id, stage).await.unwrap().unwrap();
    let authority = vault.room.log().authority();
    let verified = certificate::verify(kept.to_note().as_bytes(), &authority, &[], 0).unwrap();
    assert_eq!(verified.body.scope.blobs.certain, 1);
    assert_eq!(verified.body.scope.blobs.plaintext_bytes, Some(14));
    assert!(verified.page.contains(&acme.id().to_string()));

    // Nothing more happens to it, and the log verifies.
    assert_eq!(vault.sweep().await[&acme.id()].certificates.len(), 0);
    vault.room.publish_log().await.unwrap();
    let report = vault.room.verify_log().await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[tokio::test]
async fn what_is_left_is_removed_and_removed_again_when_it_comes_back() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 3).await;
    let (gone, kept) = (seal(&acme, "gone").await, seal(&acme, "kept").await);
    acme.extend(kept, day("2027-06-01")).await.unwrap();
    let before = common::objects(&vault.raw.blobs).await;
    vault.days(11).await;
    assert_eq!(refused(&acme, gone).await.kind(), ErrorKind::KeyDestroyed);
    for _ in 0..2 {
        let remains = vault.room.remove_remains(&access(), acme.id()).await.unwrap();
        assert_eq!((remains.days.len(), remains.purged.objects), (1, 1));
        assert_eq!(count(&vault.raw.blobs, "blob/").await, 1);
        assert_eq!(opens(&acme, kept).await, b"kept");
        // A backup is restored.
        for (path, bytes) in &before {
            common::write(&vault.raw.blobs, path, bytes.clone()).await;
        }
        assert_eq!(refused(&acme, gone).await.kind(), ErrorKind::KeyDestroyed);
    }
}

#[tokio::test]
async fn a_held_blob_outlives_its_neighbours_until_two_people_release_it() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 3).await;
    let (held, neighbour) = (seal(&acme, "held").await, seal(&acme, "neighbour").await);
    let placed = acme.place_hold(HoldTarget::Blob(held)).await.unwrap();
    assert_eq!(placed.hold.state, HoldState::Complete);
    vault.days(20).await;
    assert_eq!(opens(&acme, held).await, b"held");
    assert_eq!(refused(&acme, neighbour).await.kind(), ErrorKind::KeyDestroyed);
    let done = vault.order(OrderKind::ReleaseHold { hold: placed.hold.id }, Some(&acme)).await;
    assert!(matches!(done, Executed::Ring(_)));
    assert_eq!(opens(&acme, held).await, b"held", "the window is still to come");
    vault.days(8).await;
    assert_eq!(refused(&acme, held).await.kind(), ErrorKind::KeyDestroyed);
}

#[tokio::test]
async fn holds_on_a_day_and_on_a_customer_keep_all_that_is_there() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 3).await;
    let first = seal(&acme, "first").await;
    let hold = acme.place_hold(HoldTarget::Day(first.day())).await.unwrap().hold;
    vault.days(1).await;
    let second = seal(&acme, "second").await;
    vault.days(20).await;
    assert_eq!(opens(&acme, first).await, b"first");
    assert_eq!(refused(&acme, second).await.kind(), ErrorKind::KeyDestroyed);
    let third = seal(&acme, "third").await;
    acme.place_hold(HoldTarget::Customer).await.unwrap();
    vault.order(OrderKind::ReleaseHold { hold: hold.id }, Some(&acme)).await;
    vault.days(20).await;
    assert_eq!(opens(&acme, third).await, b"third");
    assert_eq!(opens(&acme, first).await, b"first", "the hold on the customer covers it now");
    let late = acme.place_hold(HoldTarget::Day(second.day())).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn two_people_destroy_a_day_early_and_one_may_take_it_back_in_time() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let blob = seal(&acme, "early").await;
    let what = || OrderKind::DestroyDays { days: vec![blob.day()] };
    let executed = vault.order(what(), Some(&acme)).await;
    vault.days(6).await;
    assert_eq!(opens(&acme, blob).await, b"early");
    vault.room.cancel_shred(&access(), acme.id(), &keys_of(&executed)).await.unwrap();
    vault.days(10).await;
    assert_eq!(opens(&acme, blob).await, b"early");
    vault.order(what(), Some(&acme)).await;
    vault.days(7).await;
    let error = refused(&acme, blob).await;
    assert_eq!(error.kind(), ErrorKind::KeyDestroyed);
    let id = error.certificate().unwrap();
    let kept = vault.room.certificate(id, CertificateStage::Interim).await.unwrap().unwrap();
    let authority = vault.room.log().authority();
    let page = certificate::verify(kept.to_note().as_bytes(), &authority, &[], 0).unwrap().page;
    assert!(page.contains("person:a") && page.contains("person:b"), "{page}");
}

#[tokio::test]
async fn one_blob_is_destroyed_early_and_its_neighbours_live() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 30).await;
    let (victim, neighbour) = (seal(&acme, "by mistake").await, seal(&acme, "neighbour").await);
    let extended = seal(&acme, "extended").await;
    acme.extend(extended, day("2027-06-01")).await.unwrap();
    vault.order(OrderKind::DestroyBlob { blob: victim }, Some(&acme)).await;
    let error = refused(&acme, victim).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "withdrawn at once: {error:?}");
    let later = seal(&acme, "later").await;
    assert_eq!(later.day(), victim.day());
    vault.days(8).await;
    assert_eq!(refused(&acme, victim).await.kind(), ErrorKind::KeyDestroyed);
    for (blob, text) in [(neighbour, "neighbour"), (extended, "extended"), (later, "later")] {
        assert_eq!(opens(&acme, blob).await, text.as_bytes());
    }
    // And each dies in its own time.
    vault.days(35).await;
    assert_eq!(refused(&acme, neighbour).await.kind(), ErrorKind::KeyDestroyed);
    assert_eq!(opens(&acme, extended).await, b"extended");
}

#[tokio::test]
async fn an_order_is_approved_at_once_where_the_clock_is_behind_the_requesters() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let blob = seal(&acme, "early").await;
    vault.days(1).await;
    let ahead = vault.clock.now();
    let id = vault.request(OrderKind::DestroyDays { days: vec![blob.day()] }, Some(&acme)).await;
    let four_minutes = 4 * 60 * 1_000_000;
    vault.clock.set(Timestamp::from_micros(ahead.micros() - four_minutes).unwrap());
    let executed = vault.room.approve_order(&access(), id, &key("b")).await.unwrap();
    assert_eq!(keys_of(&executed).len(), 1);
}

#[tokio::test]
async fn one_person_cannot_do_it() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let blob = seal(&acme, "kept").await;
    let hold = acme.place_hold(HoldTarget::Customer).await.unwrap().hold.id;
    for what in [
        OrderKind::DestroyDays { days: vec![blob.day()] },
        OrderKind::DestroyBlob { blob },
        OrderKind::ReleaseHold { hold },
        OrderKind::ShortenRetention { period: "P1D".parse().unwrap() },
    ] {
        let id = vault.request(what, Some(&acme)).await;
        for name in ["a", "x"] {
            let error = vault.room.approve_order(&access(), id, &key(name)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{name}");
        }
    }
    // Nobody's request is not even kept.
    let days = OrderKind::DestroyDays { days: vec![blob.day()] };
    let stranger =
        vault.room.draft_order(&access(), days, Some(acme.id()), person("x"), VALIDITY).await.unwrap();
    let signed = stranger.sign(&key("x")).unwrap();
    assert_eq!(vault.room.request_order(&access(), &signed).await.unwrap_err().kind(), ErrorKind::Denied);
    let states: Vec<OrderState> =
        vault.room.orders(&access()).await.unwrap().into_iter().map(|order| order.state).collect();
    assert_eq!(states, [OrderState::Requested; 4]);
    vault.days(20).await;
    assert_eq!(opens(&acme, blob).await, b"kept");
    // Every refusal is on the record.
    let denied = records_since(&vault.room, 0).await.into_iter().filter(|record| {
        matches!(&record.event, Event::Outcome(outcome) if outcome.result == strongroom::audit::OutcomeResult::Denied)
    });
    assert_eq!(denied.count(), 9);
}

#[tokio::test]
async fn doubt_about_the_time_stops_everything_and_two_people_end_it() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 3).await;
    let blob = seal(&acme, "kept").await;
    // The clock jumps a year, and once more after it has written to the log itself.
    for _ in 0..3 {
        vault.clock.pass(DAY * 365);
        let error = vault.room.sweep(&access()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.chain().contains("25 hours"), "{}", error.chain());
    }
    let recorded = records_since(&vault.room, 0).await;
    let refusals = recorded
        .iter()
        .filter(|record| matches!(&record.event, Event::Intent(intent) if intent.action == Action::ClockSet));
    assert_eq!(refusals.count(), 3);
    assert_eq!(opens(&acme, blob).await, b"kept");
    // It was right all along: two people say so.
    let at = vault.clock.now();
    vault.order(OrderKind::SetClock { at }, None).await;
    vault.days(9).await;
    assert_eq!(refused(&acme, blob).await.kind(), ErrorKind::KeyDestroyed);
}

#[tokio::test]
async fn a_day_of_one_blob_and_of_many_cost_the_same_key_operations() {
    let mut costs = Vec::new();
    for blobs in [1, 100] {
        let vault = Vault::new().await;
        let acme = vault.customer("acme", 3).await;
        for number in 0..blobs {
            seal(&acme, &number.to_string()).await;
        }
        vault.days(10).await;
        let from = vault.room.log().head().next();
        vault.days(1).await;
        let records = records_since(&vault.room, from).await;
        let uses = |action| {
            let is = |record: &&strongroom::audit::Record| matches!(&record.event, Event::Intent(intent) if intent.action == action);
            records.iter().filter(is).count()
        };
        let all = [Action::ShredDrop, Action::RingWrite, Action::KmsDecrypt, Action::KmsGenerateDataKey];
        costs.push(all.map(uses));
    }
    assert_eq!(costs[0], costs[1]);
    // One drop, and two ring versions: the next day's key enters the window as well.
    assert_eq!(costs[0][..2], [1, 2]);
}

#[tokio::test]
async fn two_orders_for_the_same_stop_no_sweep() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 3).await;
    let blob = seal(&acme, "kept for 3 days").await;
    let hold = acme.place_hold(HoldTarget::Customer).await.unwrap().hold.id;
    for what in [
        || OrderKind::DestroyDays { days: vec!["2026-11-25".parse().unwrap()] },
        || OrderKind::DestroyDays { days: vec!["2026-11-25".parse().unwrap()] },
    ] {
        let id = vault.request(what(), Some(&acme)).await;
        let error = vault.room.approve_order(&access(), id, &key("b")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "it is held: {error:?}");
    }
    let first = vault.request(OrderKind::ReleaseHold { hold }, Some(&acme)).await;
    let second = vault.request(OrderKind::ReleaseHold { hold }, Some(&acme)).await;
    vault.room.approve_order(&access(), first, &key("b")).await.unwrap();
    let error = vault.room.approve_order(&access(), second, &key("b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "it was released: {error:?}");
    // The second of each finds nothing to do, and what is due goes on.
    vault.days(12).await;
    assert_eq!(refused(&acme, blob).await.kind(), ErrorKind::KeyDestroyed);
}

/// The state of an order.
async fn state(vault: &Vault, order: OrderId) -> OrderState {
    let orders = vault.room.orders(&access()).await.unwrap();
    orders.into_iter().find(|status| status.signed.order().id == order).unwrap().state
}

/// An order, approved; its keys, if it could be taken up.
async fn approved(vault: &Vault, acme: &Customer, what: OrderKind) -> (OrderId, BTreeSet<KekId>) {
    let id = vault.request(what, Some(acme)).await;
    let executed = vault.room.approve_order(&access(), id, &key("b")).await.unwrap();
    (id, keys_of(&executed))
}

/// All certificates that there are, verified: none of them is without a scope.
async fn certificates(vault: &Vault) -> Vec<CertificateBody> {
    let authority = vault.room.log().authority();
    let mut found = Vec::new();
    for (id, stage) in papers::certificates(&vault.room.log_reader()).await.unwrap() {
        let note = vault.room.certificate(id, stage).await.unwrap().unwrap().to_note();
        let body = certificate::verify(note.as_bytes(), &authority, &[], 0).unwrap().body;
        let blobs = body.scope.blobs.certain + body.scope.blobs.uncertain;
        assert!(blobs > 0 || matches!(body.authority, Authority::Routine), "{body:?}");
        found.push(body);
    }
    found
}

fn is_by(body: &CertificateBody, order: OrderId) -> bool {
    matches!(&body.authority, Authority::Order(signed) if signed.id == order)
}

#[tokio::test]
async fn taking_one_order_back_leaves_another_one_on_the_same_day_alone() {
    for second_too in [false, true] {
        let vault = Vault::new().await;
        let acme = vault.customer("acme", 300).await;
        let (one, other) = (seal(&acme, "one").await, seal(&acme, "other").await);
        let neighbour = seal(&acme, "neighbour").await;
        let (first, of_first) = approved(&vault, &acme, OrderKind::DestroyBlob { blob: one }).await;
        let (second, of_second) = approved(&vault, &acme, OrderKind::DestroyBlob { blob: other }).await;
        assert_eq!(refused(&acme, one).await.kind(), ErrorKind::Denied);
        assert_eq!(refused(&acme, other).await.kind(), ErrorKind::Denied);
        vault.days(1).await;

        let ring = vault.room.cancel_shred(&access(), acme.id(), &of_first).await.unwrap();
        assert_eq!(opens(&acme, one).await, b"one", "its order was taken back");
        assert_eq!(refused(&acme, other).await.kind(), ErrorKind::Denied, "its order stands");
        assert_eq!(
            (state(&vault, first).await, state(&vault, second).await),
            (OrderState::Cancelled, OrderState::UnderWay)
        );
        // The key stays in the window: the other blob is under it as well.
        assert!(of_first.iter().all(|key| ring.entry(*key).unwrap().order() == Some(&second)));
        if second_too {
            vault.room.cancel_shred(&access(), acme.id(), &of_second).await.unwrap();
            assert_eq!(opens(&acme, other).await, b"other");
            assert_eq!(state(&vault, second).await, OrderState::Cancelled);
        }
        vault.days(10).await;
        for (blob, text) in [(one, "one"), (neighbour, "neighbour")] {
            assert_eq!(opens(&acme, blob).await, text.as_bytes());
        }
        let bodies = certificates(&vault).await;
        if second_too {
            assert_eq!(opens(&acme, other).await, b"other");
            assert!(bodies.is_empty());
            continue;
        }
        assert_eq!(state(&vault, second).await, OrderState::Done);
        let error = refused(&acme, other).await;
        assert_eq!(error.kind(), ErrorKind::KeyDestroyed);
        let [body] = bodies.as_slice() else { panic!("{bodies:?}") };
        assert!(is_by(body, second) && error.certificate() == Some(body.certificate));
        assert_eq!(body.scope.blobs.certain, 1);
    }
}

#[tokio::test]
async fn each_order_on_a_day_is_carried_out_and_certified_by_itself() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let mut blobs = Vec::new();
    for number in 0..4 {
        blobs.push(seal(&acme, &number.to_string()).await);
    }
    let mut orders = Vec::new();
    for blob in &blobs[..3] {
        orders.push(approved(&vault, &acme, OrderKind::DestroyBlob { blob: *blob }).await.0);
        // Windows that end on different days.
        vault.days(2).await;
    }
    vault.days(12).await;
    let bodies = certificates(&vault).await;
    assert_eq!(bodies.len(), 3);
    for (blob, order) in blobs.iter().zip(&orders) {
        assert_eq!(state(&vault, *order).await, OrderState::Done);
        let error = refused(&acme, *blob).await;
        assert_eq!(error.kind(), ErrorKind::KeyDestroyed);
        let body = bodies.iter().find(|body| is_by(body, *order)).unwrap();
        assert_eq!(body.scope.blobs.certain, 1, "one blob, one order, one certificate");
    }
    assert_eq!(opens(&acme, blobs[3]).await, b"3");
}

/// Of two orders on a day, the first is suspended by a hold: the second takes nothing along that the first may
/// have to give back.
#[tokio::test]
async fn a_blob_whose_order_is_suspended_keeps_its_day() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let (held, other) = (seal(&acme, "held").await, seal(&acme, "other").await);
    let (_, keys) = approved(&vault, &acme, OrderKind::DestroyBlob { blob: held }).await;
    let hold = acme.place_hold(HoldTarget::Blob(held)).await.unwrap().hold.id;
    let (second, _) = approved(&vault, &acme, OrderKind::DestroyBlob { blob: other }).await;
    vault.days(10).await;
    assert_eq!(refused(&acme, other).await.kind(), ErrorKind::Denied, "it waits, and nobody reads it");
    vault.order(OrderKind::ReleaseHold { hold }, Some(&acme)).await;
    vault.room.cancel_shred(&access(), acme.id(), &keys).await.unwrap();
    vault.days(20).await;
    assert_eq!(opens(&acme, held).await, b"held", "nobody ordered its destruction any more");
    assert_eq!(refused(&acme, other).await.kind(), ErrorKind::KeyDestroyed);
    assert_eq!(state(&vault, second).await, OrderState::Done);
}

/// What is being read when two people order its destruction is read no further.
#[tokio::test]
async fn a_blob_that_is_withdrawn_stops_being_read() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let bytes = vec![7; 8 << 20];
    let blob = acme.seal(bytes, SealOptions::new()).await.unwrap().id;
    let mut stream = acme.open(blob).await.unwrap().into_stream();
    stream.try_next().await.unwrap().unwrap();
    approved(&vault, &acme, OrderKind::DestroyBlob { blob }).await;
    let error = loop {
        match stream.try_next().await {
            Ok(piece) => assert!(piece.is_some(), "it was read to the end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.chain());
}

#[tokio::test]
async fn a_hold_suspends_an_order_and_uses_none_up() {
    enum On {
        Day,
        Customer,
        Blob,
    }
    for one_blob in [true, false] {
        for on in [On::Day, On::Customer, On::Blob] {
            let vault = Vault::new().await;
            let acme = vault.customer("acme", 300).await;
            let (blob, neighbour) = (seal(&acme, "victim").await, seal(&acme, "neighbour").await);
            let (what, target) = match (one_blob, on) {
                (true, On::Day) => (OrderKind::DestroyBlob { blob }, HoldTarget::Day(blob.day())),
                (true, On::Customer) => (OrderKind::DestroyBlob { blob }, HoldTarget::Customer),
                (true, On::Blob) => (OrderKind::DestroyBlob { blob }, HoldTarget::Blob(blob)),
                (false, On::Day) => {
                    (OrderKind::DestroyDays { days: vec![blob.day()] }, HoldTarget::Day(blob.day()))
                }
                (false, On::Customer) => {
                    (OrderKind::DestroyDays { days: vec![blob.day()] }, HoldTarget::Customer)
                }
                // A blob of a day that is destroyed outlives it: that is another test's.
                (false, On::Blob) => continue,
            };
            let (order, keys) = approved(&vault, &acme, what).await;
            vault.days(3).await;
            let hold = acme.place_hold(target).await.unwrap().hold.id;
            assert_eq!(state(&vault, order).await, OrderState::Suspended);
            let status = vault.room.shred_status(&access(), &BTreeSet::from([acme.id()])).await.unwrap();
            let window = status.into_values().next().unwrap().unwrap().window;
            assert!(keys.iter().all(|key| window.iter().any(|held| held.key == *key && held.held)));
            vault.days(30).await;
            assert_eq!(state(&vault, order).await, OrderState::Suspended);
            if one_blob {
                assert_eq!(refused(&acme, blob).await.kind(), ErrorKind::Denied, "withdrawn, and held");
            } else {
                assert_eq!(opens(&acme, blob).await, b"victim");
            }
            assert!(certificates(&vault).await.is_empty());

            vault.order(OrderKind::ReleaseHold { hold }, Some(&acme)).await;
            assert_eq!(state(&vault, order).await, OrderState::UnderWay, "the order goes on");
            // With a whole window.
            vault.days(6).await;
            assert!(certificates(&vault).await.is_empty());
            vault.days(2).await;
            assert_eq!(state(&vault, order).await, OrderState::Done);
            let error = refused(&acme, blob).await;
            assert_eq!(error.kind(), ErrorKind::KeyDestroyed);
            let bodies = certificates(&vault).await;
            let [body] = bodies.as_slice() else { panic!("{bodies:?}") };
            assert!(is_by(body, order) && error.certificate() == Some(body.certificate));
            if one_blob {
                assert_eq!(opens(&acme, neighbour).await, b"neighbour");
                assert_eq!(body.scope.blobs.certain, 1);
            } else {
                assert_eq!(refused(&acme, neighbour).await.kind(), ErrorKind::KeyDestroyed);
                assert_eq!(body.scope.blobs.certain, 2);
            }
        }
    }
}

#[tokio::test]
async fn an_order_that_a_hold_suspends_can_be_taken_back_meanwhile() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let (blob, other) = (seal(&acme, "kept").await, seal(&acme, "gone").await);
    let (first, keys) = approved(&vault, &acme, OrderKind::DestroyBlob { blob }).await;
    let (second, _) = approved(&vault, &acme, OrderKind::DestroyBlob { blob: other }).await;
    let hold = acme.place_hold(HoldTarget::Day(blob.day())).await.unwrap().hold.id;
    vault.room.cancel_shred(&access(), acme.id(), &keys).await.unwrap();
    assert_eq!(state(&vault, first).await, OrderState::Cancelled);
    assert_eq!(state(&vault, second).await, OrderState::Suspended);
    assert_eq!(opens(&acme, blob).await, b"kept");
    vault.order(OrderKind::ReleaseHold { hold }, Some(&acme)).await;
    vault.days(8).await;
    assert_eq!(opens(&acme, blob).await, b"kept");
    assert_eq!(refused(&acme, other).await.kind(), ErrorKind::KeyDestroyed);
    assert_eq!(certificates(&vault).await.len(), 1);
}

#[tokio::test]
async fn a_blob_that_is_ordered_twice_takes_two_to_be_given_back() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let blob = seal(&acme, "victim").await;
    acme.extend(blob, day("2028-06-01")).await.unwrap();
    let (first, keys) = approved(&vault, &acme, OrderKind::DestroyBlob { blob }).await;
    assert_eq!(keys.len(), 2, "its day's, and the later one's");
    let (second, _) = approved(&vault, &acme, OrderKind::DestroyBlob { blob }).await;
    vault.room.cancel_shred(&access(), acme.id(), &keys).await.unwrap();
    assert_eq!(state(&vault, first).await, OrderState::Cancelled);
    assert_eq!(refused(&acme, blob).await.kind(), ErrorKind::Denied);
    vault.days(8).await;
    assert_eq!(state(&vault, second).await, OrderState::Done);
    assert_eq!(refused(&acme, blob).await.kind(), ErrorKind::KeyDestroyed);
    let bodies = certificates(&vault).await;
    assert!(bodies.len() == 1 && is_by(&bodies[0], second) && bodies[0].scope.keys.len() == 2);
}

#[tokio::test]
async fn an_order_on_a_day_and_one_on_a_blob_of_it_do_not_undo_each_other() {
    for day_first in [true, false] {
        for cancel_day in [true, false] {
            let vault = Vault::new().await;
            let acme = vault.customer("acme", 300).await;
            let (blob, neighbour) = (seal(&acme, "victim").await, seal(&acme, "neighbour").await);
            let on_day = OrderKind::DestroyDays { days: vec![blob.day()] };
            let on_blob = OrderKind::DestroyBlob { blob };
            let (of_day, of_blob) = match day_first {
                true => (vault_order(&vault, &acme, on_day).await, vault_order(&vault, &acme, on_blob).await),
                false => {
                    let first = vault_order(&vault, &acme, on_blob).await;
                    (vault_order(&vault, &acme, on_day).await, first)
                }
            };
            vault.days(1).await;
            // What leads a key is what is taken back by it.
            let status = vault.room.shred_status(&access(), &BTreeSet::from([acme.id()])).await.unwrap();
            let window = status.into_values().next().unwrap().unwrap().window;
            assert!(window.iter().all(|key| key.order == Some(of_day)), "all of the day goes by its order");
            let keys: BTreeSet<KekId> = window.iter().map(|key| key.key).collect();
            if cancel_day {
                vault.room.cancel_shred(&access(), acme.id(), &keys).await.unwrap();
                assert_eq!(state(&vault, of_day).await, OrderState::Cancelled);
            }
            assert_eq!(state(&vault, of_blob).await, OrderState::UnderWay);
            assert_eq!(refused(&acme, blob).await.kind(), ErrorKind::Denied, "one person does not undo it");
            vault.days(9).await;
            assert_eq!(state(&vault, of_blob).await, OrderState::Done);
            assert_eq!(refused(&acme, blob).await.kind(), ErrorKind::KeyDestroyed);
            match cancel_day {
                true => assert_eq!(opens(&acme, neighbour).await, b"neighbour"),
                false => assert_eq!(refused(&acme, neighbour).await.kind(), ErrorKind::KeyDestroyed),
            }
            let bodies = certificates(&vault).await;
            let [body] = bodies.as_slice() else { panic!("{bodies:?}") };
            assert!(is_by(body, if cancel_day { of_blob } else { of_day }));
        }
    }
}

async fn vault_order(vault: &Vault, acme: &Customer, what: OrderKind) -> OrderId {
    let id = vault.request(what, Some(acme)).await;
    vault.room.approve_order(&access(), id, &key("b")).await.unwrap();
    id
}

#[tokio::test]
async fn an_offboarding_that_is_taken_back_leaves_earlier_orders_alone() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let (blob, neighbour) = (seal(&acme, "victim").await, seal(&acme, "neighbour").await);
    let (order, _) = approved(&vault, &acme, OrderKind::DestroyBlob { blob }).await;
    let closing = vault_order(&vault, &acme, OrderKind::Offboard { return_to: ReturnTo::Nothing }).await;
    assert_eq!(state(&vault, closing).await, OrderState::UnderWay);
    vault.days(2).await;
    vault.room.destroy_customer(&access(), acme.id(), None).await.unwrap();
    vault.days(1).await;
    // A hold placed now suspends both.
    let hold = acme.place_hold(HoldTarget::Customer).await.unwrap().hold.id;
    for of in [order, closing] {
        assert_eq!(state(&vault, of).await, OrderState::Suspended);
    }
    vault.days(20).await;
    vault.order(OrderKind::ReleaseHold { hold }, Some(&acme)).await;
    for of in [order, closing] {
        assert_eq!(state(&vault, of).await, OrderState::UnderWay);
    }
    vault.room.reopen_customer(&access(), acme.id()).await.unwrap();
    assert_eq!(state(&vault, closing).await, OrderState::Cancelled);
    assert_eq!(state(&vault, order).await, OrderState::UnderWay);
    assert_eq!(refused(&acme, blob).await.kind(), ErrorKind::Denied);
    assert_eq!(opens(&acme, neighbour).await, b"neighbour");
    vault.days(8).await;
    assert_eq!(refused(&acme, blob).await.kind(), ErrorKind::KeyDestroyed);
    assert_eq!(opens(&acme, neighbour).await, b"neighbour");
    assert_eq!(certificates(&vault).await.len(), 1);
}

#[tokio::test]
async fn an_order_outlives_what_is_done_to_the_ring_meanwhile() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let (one, other) = (seal(&acme, "one").await, seal(&acme, "other").await);
    let before = common::objects(&vault.raw.blobs).await;
    let (first, of_first) = approved(&vault, &acme, OrderKind::DestroyBlob { blob: one }).await;
    let (second, _) = approved(&vault, &acme, OrderKind::DestroyBlob { blob: other }).await;
    vault.room.rotate_epoch(&access(), KeyChoice::New("local".into())).await.unwrap();
    acme.rekey(KeyChoice::New("local".into())).await.unwrap();
    for (path, bytes) in &before {
        common::write(&vault.raw.blobs, path, bytes.clone()).await;
    }
    assert!(acme.extend(other, day("2028-06-01")).await.is_err(), "nothing keeps it longer");
    vault.room.cancel_shred(&access(), acme.id(), &of_first).await.unwrap();
    assert_eq!(
        (state(&vault, first).await, state(&vault, second).await),
        (OrderState::Cancelled, OrderState::UnderWay)
    );
    vault.days(9).await;
    assert_eq!(opens(&acme, one).await, b"one");
    assert_eq!(refused(&acme, other).await.kind(), ErrorKind::KeyDestroyed);
    assert_eq!(certificates(&vault).await.len(), 1);
}

#[tokio::test]
async fn an_order_that_nothing_is_left_for_makes_no_certificate() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let blob = seal(&acme, "extended").await;
    let empty = day("2027-09-25");
    let id = vault.request(OrderKind::DestroyDays { days: vec![empty] }, Some(&acme)).await;
    let error = vault.room.approve_order(&access(), id, &key("b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "nothing was sealed to be kept until then");
    let (order, _) = approved(&vault, &acme, OrderKind::DestroyDays { days: vec![blob.day()] }).await;
    acme.extend(blob, day("2028-06-01")).await.unwrap();
    vault.days(9).await;
    assert_eq!(opens(&acme, blob).await, b"extended");
    assert_eq!(state(&vault, order).await, OrderState::Cancelled);
    assert!(certificates(&vault).await.is_empty());
}

#[tokio::test]
async fn the_ciphertext_of_one_blob_goes_while_its_neighbours_live() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let named = async |text: &str| {
        let options = SealOptions::new().metadata(Metadata::new().with_name(text.parse().unwrap()));
        acme.seal(text.as_bytes().to_vec(), options).await.unwrap().id
    };
    let (gone, held, kept) = (named("gone").await, named("held").await, named("kept").await);
    acme.extend(gone, day("2028-06-01")).await.unwrap();
    let hold = acme.place_hold(HoldTarget::Blob(held)).await.unwrap().hold.id;
    let remove = async || vault.room.remove_remains(&access(), acme.id()).await.unwrap();
    assert!(remove().await.days.is_empty(), "nothing is shredded");
    approved(&vault, &acme, OrderKind::DestroyBlob { blob: gone }).await;
    vault.days(8).await;
    assert_eq!(refused(&acme, gone).await.kind(), ErrorKind::KeyDestroyed);
    let before = common::objects(&vault.raw.blobs).await;
    let count_of = async |blob: BlobId| {
        let all = common::objects(&vault.raw.blobs).await;
        all.iter().filter(|(path, _)| path.as_ref().contains(&blob.to_string())).count()
    };
    for _ in 0..2 {
        let remains = remove().await;
        assert_eq!(remains.days, BTreeSet::from([gone.day()]));
        // The blob, its name and its wraps.
        assert_eq!(count_of(gone).await, 0);
        assert!(remains.purged.objects >= 3);
        assert!(remove().await.days.is_empty(), "there is nothing left to remove");
        for (blob, text) in [(held, "held"), (kept, "kept")] {
            assert_eq!(opens(&acme, blob).await, text.as_bytes());
        }
        // A backup is restored.
        for (path, bytes) in &before {
            common::write(&vault.raw.blobs, path, bytes.clone()).await;
        }
    }
    // What was kept by a hold goes after it, and what is under the newest key of its day stays.
    vault.order(OrderKind::ReleaseHold { hold }, Some(&acme)).await;
    vault.days(8).await;
    approved(&vault, &acme, OrderKind::DestroyBlob { blob: held }).await;
    vault.days(8).await;
    remove().await;
    assert_eq!((count_of(gone).await, count_of(held).await), (0, 0));
    assert_eq!(opens(&acme, kept).await, b"kept");
    // A day that was destroyed, and of which a newer key lives.
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let gone = seal(&acme, "gone").await;
    approved(&vault, &acme, OrderKind::DestroyDays { days: vec![gone.day()] }).await;
    let kept = seal(&acme, "kept").await;
    assert_eq!(kept.day(), gone.day());
    vault.days(8).await;
    assert_eq!(refused(&acme, gone).await.kind(), ErrorKind::KeyDestroyed);
    let remains = vault.room.remove_remains(&access(), acme.id()).await.unwrap();
    assert_eq!((remains.days.len(), remains.purged.objects), (1, 1));
    assert_eq!(count(&vault.raw.blobs, "blob/").await, 1);
    assert_eq!(opens(&acme, kept).await, b"kept");
}
