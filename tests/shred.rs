//! Destruction from outside: routine expiry, holds, orders of two people, one blob early.

#[path = "common/mod.rs"]
mod common;
#[path = "common/destroy.rs"]
mod destroy;

use common::records_since;
use destroy::{DAY, Vault, access, count, day, key, keys_of, opens, person, refused, seal};
use strongroom::ErrorKind;
use strongroom::audit::layout::CertificateStage;
use strongroom::audit::{Action, Event};
use strongroom::certificate;
use strongroom::order::OrderKind;
use strongroom::ring::HoldState;
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
