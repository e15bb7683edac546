//! Offboarding over whole stores: closed, returned, destroyed and finished, with a crash
//! at every write, an altered return, holds in the way, and two nodes.

#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use faults::FaultStore;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest as _, Sha256};
use strongroom::audit::{Action, OutcomeResult};
use strongroom::envelope::Metadata;
use strongroom::id::{BlobId, CustomerId, OrderId};
use strongroom::kms::{DestroyerRegistry, KeyState, Kms, KmsDestroyer};
use strongroom::order::{NewPerson, OrderKind, ReturnTo};
use strongroom::room::{Customer, KeyChoice, NewCustomer, Options, SealOptions, Strongroom};
use strongroom::secret::Secret;
use strongroom::shred::HoldTarget;
use strongroom::shred::offboard::manifest::{List, Manifest, NotReturned};
use strongroom::shred::offboard::{CustomerKeyEnd, Destination, Proof, Returns, Stage};
use strongroom::tlog::{NamedKey, SecretKey};
use strongroom::{ErrorKind, Result};
use world::{World, access, add, label, pairs, pattern, records};

const DAY: Duration = Duration::from_hours(24);

fn person(name: &str, seed: u8) -> NamedKey {
    NamedKey::new(name.parse().unwrap(), SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32])))
}

fn people() -> [NamedKey; 2] {
    [person("person:a", 1), person("person:b", 2)]
}

/// A store with two people and a customer with blobs.
struct Place {
    world: World,
    room: Strongroom,
    acme: Customer,
    blobs: BTreeMap<BlobId, Bytes>,
    back: FaultStore,
}

impl Place {
    async fn new() -> Self {
        let world = World::new();
        world.kms.hurry();
        let mut options = world.options();
        options.people = people().iter().map(|key| NewPerson::try_from(key.verifier()).unwrap()).collect();
        let room = world.init(options).await.unwrap();
        let acme = add(&room, "acme").await.unwrap();
        let mut blobs = BTreeMap::new();
        for length in [0, 1000, 300_000] {
            let metadata = Metadata::new().with_name("a/b".parse().unwrap()).with_pair("k", "v").unwrap();
            let sealed = acme.seal(pattern(length), SealOptions::new().metadata(metadata)).await.unwrap();
            blobs.insert(sealed.id, pattern(length));
        }
        Self { world, room, acme, blobs, back: FaultStore::memory() }
    }

    fn customer(&self) -> CustomerId {
        self.acme.id()
    }

    async fn node(&self) -> Strongroom {
        self.world.node(self.world.options()).await.unwrap()
    }

    fn destination(&self) -> Destination {
        Destination::plaintext(Arc::new(self.back.clone()))
    }

    async fn close(&self, return_to: ReturnTo) -> OrderId {
        self.order(&self.room, return_to).await.unwrap()
    }

    /// Asked for by a, approved by b.
    async fn order(&self, room: &Strongroom, return_to: ReturnTo) -> Result<OrderId> {
        let [a, b] = people();
        let who = "person:a".parse().unwrap();
        let (what, validity) = (OrderKind::Offboard { return_to }, strongroom::shred::VALIDITY);
        let order = room.draft_order(&access(), what, Some(self.customer()), who, validity).await?;
        let id = room.request_order(&access(), &order.sign(&a).unwrap()).await?;
        room.approve_order(&access(), id, &b).await?;
        Ok(id)
    }

    async fn give_back(&self, room: &Strongroom) -> Result<Returns> {
        room.return_blobs(&access(), self.customer(), &self.destination()).await
    }

    async fn destroy(&self, room: &Strongroom) -> Result<()> {
        let destination = self.destination();
        let proof = Proof { destination: &destination, missing: 0 };
        room.destroy_customer(&access(), self.customer(), Some(proof)).await.map(drop)
    }

    /// Days pass, each with a sweep.
    async fn days(&self, count: u32) {
        for _ in 0..count {
            // Each commit is a moment later than the one before it, and so than a clock that stands still.
            self.world.clock.advance(DAY + Duration::from_millis(1));
            let sweep = self.room.sweep(&access()).await.unwrap();
            for swept in sweep.customers.into_values() {
                swept.unwrap();
            }
        }
    }

    async fn stage(&self) -> Stage {
        self.room.offboard_status(&access(), self.customer()).await.unwrap().stage
    }

    /// Whether every blob stands at the destination, and the manifest says so.
    async fn check_returned(&self) {
        let storage = self.back.inner();
        for (blob, bytes) in &self.blobs {
            let path = Path::from(format!("blob/{blob}"));
            assert_eq!(&storage.get(&path).await.unwrap().bytes().await.unwrap(), bytes);
            let path = Path::from(format!("meta/{blob}.json"));
            let meta = storage.get(&path).await.unwrap().bytes().await.unwrap();
            assert_eq!(meta, "{\"name\":\"a/b\",\"content_type\":null,\"meta\":{\"k\":\"v\"}}\n");
        }
        let (manifest, list) = self.newest_manifest().await;
        assert_eq!(manifest.body().counts.returned, self.blobs.len() as u64);
        assert_eq!(manifest.body().counts.missing, 0);
        for (blob, bytes) in &self.blobs {
            let returned = list.0[blob].returned.unwrap();
            assert_eq!(
                (returned.bytes, returned.sha256.0),
                (bytes.len() as u64, Sha256::digest(bytes).into())
            );
        }
    }

    /// As whoever has the files and the log's key reads them.
    async fn newest_manifest(&self) -> (Manifest, List) {
        let storage = self.back.inner();
        let mut names: Vec<Path> = storage
            .list(Some(&Path::from("manifest")))
            .map_ok(|meta| meta.location)
            .try_collect()
            .await
            .unwrap();
        names.sort();
        let note = storage.get(names.last().unwrap()).await.unwrap().bytes().await.unwrap();
        let manifest = Manifest::verify(&note, &self.room.log().authority()).unwrap();
        let reference = manifest.body().list;
        let digest = data_encoding::HEXLOWER.encode(&reference.sha256.0);
        let path = Path::from(format!("list/{digest}.ndjson"));
        let bytes = storage.get(&path).await.unwrap().bytes().await.unwrap();
        (manifest, List::parse(&bytes, &reference).unwrap())
    }

    fn destroyers(&self) -> DestroyerRegistry {
        DestroyerRegistry::new().with(Arc::clone(&self.world.kms) as Arc<dyn KmsDestroyer>)
    }

    async fn finish(&self) -> Result<CustomerKeyEnd> {
        let ends = self.room.finish_offboarding(&access(), self.customer(), &self.destroyers()).await?;
        let [(_, end)] = ends.try_into().unwrap();
        Ok(end)
    }
}

#[track_caller]
fn refused<T>(result: Result<T>, part: &str) {
    let error = result.err().expect("it is refused");
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.chain());
    assert!(error.chain().contains(part), "{}", error.chain());
}

#[tokio::test]
async fn a_customer_leaves_with_everything_and_nothing_stays() {
    let p = Place::new().await;
    refused(p.give_back(&p.room).await, "not closed");
    refused(p.destroy(&p.room).await, "not closed");
    let order = p.close(ReturnTo::Plaintext).await;
    assert_eq!(p.stage().await, Stage::Closed);
    for day in ["2026-01-01", "2090-01-01"] {
        let until = SealOptions::new().retain_until(day.parse().unwrap());
        refused(p.acme.seal(pattern(1), until).await, "the customer is closed");
    }
    p.acme.open(*p.blobs.keys().next().unwrap()).await.unwrap();

    p.days(1).await;
    refused(p.destroy(&p.room).await, "no manifest");
    let returns = p.give_back(&p.room).await.unwrap();
    assert_eq!(returns.manifest.body().order, order);
    p.check_returned().await;
    // Each was opened once, under a record; a second run opens none, and signs nothing.
    let opened = || async {
        let all = records(&p.room).await;
        let all = pairs(&all);
        let opened = all.iter().filter(|(intent, outcomes)| {
            intent.action == Action::OffboardReturn
                && intent.key.is_some()
                && outcomes.iter().any(|outcome| outcome.result == OutcomeResult::Ok)
        });
        let named = all.iter().filter(|(intent, _)| intent.returned.is_some()).count();
        (opened.count(), named)
    };
    assert_eq!(opened().await, (3, 4));
    let again = p.give_back(&p.room).await.unwrap();
    assert_eq!(again.manifest, returns.manifest);
    assert_eq!(opened().await, (3, 4));

    refused(p.finish().await, "has keys yet");
    p.destroy(&p.room).await.unwrap();
    assert_eq!(p.stage().await, Stage::Destroying);
    p.destroy(&p.room).await.unwrap();
    p.days(6).await;
    assert_eq!(p.stage().await, Stage::Destroying);
    p.days(2).await;
    let status = p.room.offboard_status(&access(), p.customer()).await.unwrap();
    assert_eq!((status.stage, status.active, status.pending), (Stage::Destroyed, 0, 0));
    for blob in p.blobs.keys() {
        assert_eq!(p.acme.open(*blob).await.unwrap_err().kind(), ErrorKind::KeyDestroyed);
    }
    let error = p.room.reopen_customer(&access(), p.customer()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyDestroyed);

    let CustomerKeyEnd::Scheduled(Some(due)) = p.finish().await.unwrap() else { panic!("not scheduled") };
    assert_eq!(p.finish().await.unwrap(), CustomerKeyEnd::Scheduled(Some(due)));
    let state = p.world.kms.describe(&status.kms_key).await.unwrap();
    assert_eq!(state, KeyState::PendingDeletion(Some(due)));
    p.days(31).await;
    for _ in 0..2 {
        assert_eq!(p.finish().await.unwrap(), CustomerKeyEnd::Gone);
    }
    let all = records(&p.room).await;
    let ends: Vec<_> = pairs(&all)
        .into_iter()
        .filter(|(intent, _)| intent.action == Action::CustomerKeyDelete)
        .map(|(intent, outcomes)| (intent.order, outcomes[0].result))
        .collect();
    assert_eq!(ends, [(Some(order), OutcomeResult::Ok), (Some(order), OutcomeResult::KeyDestroyed)]);
    p.world.verify_log(&p.room).await;
}

#[tokio::test]
async fn a_return_to_a_store_of_the_customers_own() {
    let p = Place::new().await;
    p.close(ReturnTo::Resealed).await;
    let own = World::new();
    own.kms.hurry();
    let theirs = own.init(own.options()).await.unwrap();
    let into = add(&theirs, "we").await.unwrap();
    let storage: Arc<dyn ObjectStore> = Arc::new(p.back.clone());
    let destination = Destination::resealed(Arc::clone(&storage), into.clone());
    // Into the store itself it would be destroyed with the rest.
    let circle = Destination::resealed(storage, p.acme.clone());
    let error = p.room.return_blobs(&access(), p.customer(), &circle).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);

    let returns = p.room.return_blobs(&access(), p.customer(), &destination).await.unwrap();
    for (blob, bytes) in &p.blobs {
        let id = returns.list.0[blob].returned.unwrap().resealed.unwrap();
        let opened = into.open(id).await.unwrap();
        assert_eq!(opened.info().metadata.name().unwrap().as_str(), "a/b");
        assert_eq!(&opened.bytes(1 << 20).await.unwrap(), bytes);
    }
    let again = p.room.return_blobs(&access(), p.customer(), &destination).await.unwrap();
    assert_eq!(again.manifest, returns.manifest);
    let listed: Vec<_> = into.list().try_collect().await.unwrap();
    assert_eq!(listed.len(), p.blobs.len());
    p.days(1).await;
    refused(p.destroy(&p.room).await, "in another form");

    // Altered in their store, it is found.
    let path = Path::from(format!("blob/{}/{}/{}", into.id(), listed[0].id.day(), listed[0].id));
    let good = own.blobs.inner().get(&path).await.unwrap().bytes().await.unwrap();
    let mut bad = good.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    own.blobs.inner().put(&path, bad.into()).await.unwrap();
    let proof = Proof { destination: &destination, missing: 0 };
    let error = p.room.destroy_customer(&access(), p.customer(), Some(proof)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    own.blobs.inner().put(&path, good.into()).await.unwrap();
    p.room.destroy_customer(&access(), p.customer(), Some(proof)).await.unwrap();
    p.days(8).await;
    assert_eq!(p.stage().await, Stage::Destroyed);
    assert_eq!(into.verify(listed[0].id).await.unwrap().id, listed[0].id);
}

#[tokio::test]
async fn what_was_altered_at_the_destination_is_found() {
    let p = Place::new().await;
    p.close(ReturnTo::Plaintext).await;
    p.days(1).await;
    p.give_back(&p.room).await.unwrap();
    let storage = p.back.inner();
    let paths: Vec<Path> = storage.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
    for path in paths {
        let good = storage.get(&path).await.unwrap().bytes().await.unwrap();
        let mut bad = good.to_vec();
        match bad.get_mut(good.len() / 2) {
            Some(byte) => *byte ^= 1,
            None => bad.push(1),
        }
        storage.put(&path, bad.clone().into()).await.unwrap();
        let destroyed = p.destroy(&p.room).await;
        let is_note = path.as_ref().starts_with("returned/");
        if is_note {
            // What is written down beside a blob is for the next run, and nothing rests on it.
            destroyed.unwrap();
            p.room.reopen_customer(&access(), p.customer()).await.unwrap();
            p.close(ReturnTo::Plaintext).await;
            p.days(1).await;
        } else {
            assert_eq!(destroyed.unwrap_err().kind(), ErrorKind::Integrity, "{path}");
        }
        assert_eq!(p.stage().await, Stage::Closed);
        // Nor does a run that returns again sign what was altered.
        let again = p.give_back(&p.room).await;
        if path.as_ref().starts_with("blob/") || path.as_ref().starts_with("meta/") {
            assert_eq!(again.unwrap_err().kind(), ErrorKind::Integrity, "{path}");
        }
        storage.put(&path, good.into()).await.unwrap();
        p.give_back(&p.room).await.unwrap();
        p.check_returned().await;
    }
    // Who alters the blob and what is written down of it: the log has the digest.
    let blob = *p.blobs.keys().next().unwrap();
    let line = Path::from(format!("returned/{blob}.json"));
    let text = storage.get(&line).await.unwrap().bytes().await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    let (was, now) = (Sha256::digest(&p.blobs[&blob]), Sha256::digest(b"forged"));
    let hex = |hash: &[u8]| data_encoding::HEXLOWER.encode(hash);
    let forged = text.replace(&hex(&was), &hex(&now));
    assert_ne!(forged, text);
    storage.put(&line, forged.into()).await.unwrap();
    storage.put(&Path::from(format!("blob/{blob}")), "forged".into()).await.unwrap();
    assert_eq!(p.give_back(&p.room).await.unwrap_err().kind(), ErrorKind::Integrity);
    // Removed, it is returned again.
    storage.delete(&line).await.unwrap();
    storage.delete(&Path::from(format!("blob/{blob}"))).await.unwrap();
    p.give_back(&p.room).await.unwrap();
    p.check_returned().await;
    p.destroy(&p.room).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_return_ends_the_same_wherever_it_stops() {
    let mut stopped = 0;
    for place in ["destination", "audit"] {
        for k in 1.. {
            let p = Place::new().await;
            p.close(ReturnTo::Plaintext).await;
            p.days(1).await;
            let mut options = p.world.options();
            options.log_deadline = Duration::from_millis(500);
            let room = p.world.node(options).await.unwrap();
            let faulty = if place == "audit" { &p.world.audit } else { &p.back };
            let writes = faulty.writes();
            faulty.lose_answer(k);
            faulty.fail_from(k + 1);
            let first = p.give_back(&room).await;
            let reached = faulty.writes() >= writes + k;
            faulty.heal();
            if first.is_err() {
                stopped += 1;
                let destroyed = p.destroy(&p.room).await;
                // Once the manifest stands, everything is there.
                if destroyed.is_ok() {
                    p.check_returned().await;
                    p.room.reopen_customer(&access(), p.customer()).await.unwrap();
                    p.close(ReturnTo::Plaintext).await;
                    p.days(1).await;
                }
            }
            let node = p.node().await;
            p.give_back(&node).await.unwrap();
            p.check_returned().await;
            p.destroy(&node).await.unwrap();
            p.world.verify_log(&p.room).await;
            if !reached {
                break;
            }
        }
    }
    assert!(stopped > 12, "{stopped}");
}

#[tokio::test(start_paused = true)]
async fn closing_destroying_and_finishing_end_the_same_wherever_they_stop() {
    let mut stopped = 0;
    for place in ["keys", "audit"] {
        for k in 1.. {
            let p = Place::new().await;
            let faulty = if place == "audit" { &p.world.audit } else { &p.world.keys };
            let mut options: Options = p.world.options();
            options.log_deadline = Duration::from_millis(300);
            let fail = || {
                faulty.lose_answer(k);
                faulty.fail_from(k + 1);
                faulty.writes() + k
            };
            let room = p.world.node(options.clone()).await.unwrap();
            let mut at = fail();
            stopped += u32::from(p.order(&room, ReturnTo::Plaintext).await.is_err());
            let mut reached = faulty.writes() >= at;
            faulty.heal();
            // What was approved is done by the next sweep; what was not is asked for anew.
            p.room.sweep(&access()).await.unwrap();
            if p.stage().await == Stage::Open {
                p.close(ReturnTo::Plaintext).await;
            }
            assert_eq!(p.stage().await, Stage::Closed);
            p.days(1).await;
            p.give_back(&p.room).await.unwrap();

            let room = p.world.node(options.clone()).await.unwrap();
            at = fail();
            stopped += u32::from(p.destroy(&room).await.is_err());
            reached |= faulty.writes() >= at;
            faulty.heal();
            p.destroy(&p.node().await).await.unwrap();
            assert_eq!(p.stage().await, Stage::Destroying);
            p.days(8).await;
            assert_eq!(p.stage().await, Stage::Destroyed);

            let room = p.world.node(options).await.unwrap();
            at = fail();
            let ended = room.finish_offboarding(&access(), p.customer(), &p.destroyers()).await;
            stopped += u32::from(ended.is_err());
            reached |= faulty.writes() >= at;
            faulty.heal();
            assert!(matches!(p.finish().await.unwrap(), CustomerKeyEnd::Scheduled(Some(_))));
            p.world.verify_log(&p.room).await;
            if !reached {
                break;
            }
        }
    }
    assert!(stopped > 8, "{stopped}");
}

#[tokio::test]
async fn holds_stand_in_the_way_and_are_named() {
    let p = Place::new().await;
    let placed = p.acme.place_hold(HoldTarget::Customer).await.unwrap();
    p.close(ReturnTo::Plaintext).await;
    p.days(1).await;
    p.give_back(&p.room).await.unwrap();
    refused(p.destroy(&p.room).await, &placed.hold.id.to_string());
    assert_eq!(p.stage().await, Stage::Closed);
    let status = p.room.offboard_status(&access(), p.customer()).await.unwrap();
    assert_eq!(status.holds, [placed.hold.id]);
    // That it was refused is on the record.
    let all = records(&p.room).await;
    let noted = pairs(&all).into_iter().any(|(intent, outcomes)| {
        intent.action == Action::ShredSweep
            && intent.customer == Some(p.customer())
            && outcomes.iter().any(|outcome| outcome.result == OutcomeResult::Denied)
    });
    assert!(noted);
    p.days(3).await;
    assert_eq!(p.stage().await, Stage::Closed);
}

#[tokio::test]
async fn nothing_enters_the_window_before_the_return_is_complete() {
    let p = Place::new().await;
    // A node that has the ring from before.
    let stale = p.node().await.customer(&label("acme"), access()).await.unwrap();
    stale.info().await.unwrap();
    p.close(ReturnTo::Plaintext).await;
    p.give_back(&p.room).await.unwrap();
    refused(p.destroy(&p.room).await, "less than a day ago");
    let late = stale.seal(pattern(50), SealOptions::new()).await.unwrap().id;
    p.days(1).await;
    refused(stale.seal(pattern(1), SealOptions::new()).await, "the customer is closed");
    refused(p.destroy(&p.room).await, "that the manifest does not have");
    let returns = p.give_back(&p.room).await.unwrap();
    assert!(returns.list.0[&late].returned.is_some());

    // Damaged and missing ones are told, and taken only by who says how many.
    let stored = p.world.blobs.inner();
    let customer = p.customer();
    let path = |blob: BlobId| Path::from(format!("blob/{customer}/{}/{blob}", blob.day()));
    let new = Place { back: FaultStore::memory(), ..p };
    let p = &new;
    let [one, two] = [0, 1].map(|at| *p.blobs.keys().nth(at).unwrap());
    let mut bytes = stored.get(&path(one)).await.unwrap().bytes().await.unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    stored.put(&path(one), bytes.into()).await.unwrap();
    stored.delete(&path(two)).await.unwrap();
    let returns = p.give_back(&p.room).await.unwrap();
    assert_eq!(returns.list.0[&one].not_returned, Some(NotReturned::Damaged));
    assert_eq!(returns.list.0[&two].not_returned, Some(NotReturned::NotFound));
    assert_eq!(returns.manifest.body().counts.missing, 2);
    refused(p.destroy(&p.room).await, "does not have 2 of the blobs");
    let destination = p.destination();
    for missing in [1, 3] {
        let proof = Proof { destination: &destination, missing };
        refused(p.room.destroy_customer(&access(), p.customer(), Some(proof)).await, "does not have 2");
    }
    refused(p.room.destroy_customer(&access(), p.customer(), None).await, "asks for a return");
    let proof = Proof { destination: &destination, missing: 2 };
    p.room.destroy_customer(&access(), p.customer(), Some(proof)).await.unwrap();
}

#[tokio::test]
async fn one_person_takes_it_back_while_there_is_a_key() {
    let p = Place::new().await;
    let first = p.close(ReturnTo::Nothing).await;
    p.days(1).await;
    p.room.destroy_customer(&access(), p.customer(), None).await.unwrap();
    p.days(5).await;
    p.room.reopen_customer(&access(), p.customer()).await.unwrap();
    p.room.reopen_customer(&access(), p.customer()).await.unwrap();
    assert_eq!(p.stage().await, Stage::Open);
    p.days(3).await;
    for (blob, bytes) in &p.blobs {
        assert_eq!(&p.acme.open(*blob).await.unwrap().bytes(1 << 20).await.unwrap(), bytes);
    }
    p.acme.seal(pattern(1), SealOptions::new()).await.unwrap();
    refused(p.room.destroy_customer(&access(), p.customer(), None).await, "not closed");
    // The order is used up, sweeps included.
    assert_ne!(p.close(ReturnTo::Nothing).await, first);
    assert_eq!(p.stage().await, Stage::Closed);
}

#[tokio::test]
async fn one_person_cannot_close() {
    let p = Place::new().await;
    let [a, _] = people();
    let what = OrderKind::Offboard { return_to: ReturnTo::Nothing };
    let who = "person:a".parse().unwrap();
    let order = p.room.draft_order(&access(), what, Some(p.customer()), who, DAY).await.unwrap();
    let signed = order.sign(&a).unwrap();
    let id = p.room.request_order(&access(), &signed).await.unwrap();
    assert!(p.room.approve_order(&access(), id, &a).await.is_err());
    assert!(p.room.approve_order(&access(), id, &person("person:b", 7)).await.is_err());
    assert!(p.room.approve_order(&access(), id, &person("person:c", 3)).await.is_err());
    p.days(1).await;
    assert_eq!(p.stage().await, Stage::Open);
    refused(p.room.destroy_customer(&access(), p.customer(), None).await, "not closed");
}

#[tokio::test]
async fn a_kms_key_that_somebody_needs_stays() {
    let p = Place::new().await;
    let kms_key = p.acme.info().await.unwrap().kms_key;
    let other = NewCustomer::new(label("other"), KeyChoice::Existing(kms_key.clone()));
    p.room.add_customer(&access(), other).await.unwrap();
    let other = p.room.customer(&label("other"), access()).await.unwrap();
    p.close(ReturnTo::Nothing).await;
    p.days(1).await;
    p.room.destroy_customer(&access(), p.customer(), None).await.unwrap();
    p.days(8).await;
    assert_eq!(p.finish().await.unwrap(), CustomerKeyEnd::Shared);
    assert_eq!(p.world.kms.describe(&kms_key).await.unwrap(), KeyState::Enabled);
    // A ring that cannot be read might need it.
    p.world.keys.take_down();
    assert!(p.node_that_finishes().await.is_err());
    p.world.keys.heal();
    other.rekey(KeyChoice::New("local".into())).await.unwrap();
    assert!(matches!(p.finish().await.unwrap(), CustomerKeyEnd::Scheduled(Some(_))));
}

impl Place {
    async fn node_that_finishes(&self) -> Result<()> {
        self.room.finish_offboarding(&access(), self.customer(), &self.destroyers()).await.map(drop)
    }
}

/// The commands on a store in a directory, by the clock of this machine.
#[cfg(feature = "cli")]
#[tokio::test]
async fn the_commands_go_the_same_way() {
    use std::process::Command;

    use strongroom::kms::KmsRegistry;
    use strongroom::kms::local::InsecureLocalKms;
    use strongroom::store::{CreateRoot, StorageUrl, StorageUrls, Storages};
    use strongroom::system::{SystemClock, SystemEntropy};
    use world::signer;

    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let run_on = |store: &str, args: &[&str]| {
        let (clean, json) = (args.contains(&"put"), !args.contains(&"put"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.env_clear().args(args).args(json.then_some("--json")).arg("--store").arg(at(store));
        command.arg("--local-kms").arg(at("kms")).arg("--log-key").arg(at(&format!("{store}.key")));
        command.args(["--principal", "service:tests"]).args(clean.then_some("--quiet"));
        let ran = command.output().unwrap();
        let text = String::from_utf8(if ran.status.success() { ran.stdout } else { ran.stderr }).unwrap();
        let said = text.lines().last().unwrap_or_default().to_owned();
        (ran.status.code().unwrap(), said)
    };
    let run = |args: &[&str]| run_on("ours", args);
    let json = |args: &[&str]| {
        let (code, said) = run(args);
        assert_eq!(code, 0, "{args:?}: {said}");
        serde_json::from_str::<serde_json::Value>(&said).unwrap()
    };
    signer::write_key(&at("ours.key"));
    signer::write_key(&at("theirs.key"));
    let [a, b] = people();
    let (first, second) = (a.verifier().to_string(), b.verifier().to_string());
    json(&["init", "--person", &first, "--person", &second]);
    json(&["customer", "add", "acme", "--kms", "local"]);
    std::fs::write(at("file"), b"text").unwrap();
    let (code, blob) = run(&["put", "--customer", "acme", at("file").to_str().unwrap()]);
    assert_eq!(code, 0, "{blob}");

    let rekeyed = json(&["rekey", "acme", "--kms", "local"]);
    assert_eq!(rekeyed["changed"], true);
    let status = json(&["rekey", "acme", "--status"]);
    assert_eq!((&status["kms_key"], &status["former"][0]["uses_since"]), (&rekeyed["kms_key"], &0.into()));
    assert_eq!(status["former"][0]["kms_key"], rekeyed["from"]);
    assert_eq!(run(&["rekey", "acme"]).0, 64);

    assert_eq!(json(&["offboard", "status", "acme"])["stage"], "open");
    let back = at("back").to_str().unwrap().to_owned();
    assert_eq!(run(&["offboard", "return", "acme", "--to", &back]).0, 77);
    let urls = StorageUrls::new(StorageUrl::directory(at("ours")).unwrap());
    let storages = Storages::open(&urls, CreateRoot::No, Arc::new(SystemClock)).await.unwrap();
    let kms = InsecureLocalKms::open(at("kms"), Arc::new(SystemClock), Arc::new(SystemEntropy)).unwrap();
    let kms = KmsRegistry::new().with(Arc::new(kms));
    let room = Strongroom::open(storages, kms, Options::new(signer::signer())).await.unwrap();
    let customer = room.customer(&label("acme"), access()).await.unwrap().id();
    let order = async |return_to| {
        let what = OrderKind::Offboard { return_to };
        let who = "person:a".parse().unwrap();
        let order = room.draft_order(&access(), what, Some(customer), who, DAY * 10).await.unwrap();
        let id = room.request_order(&access(), &order.sign(&a).unwrap()).await.unwrap();
        room.approve_order(&access(), id, &b).await.unwrap();
        room.log().flush().await.unwrap();
        id
    };
    let id = order(ReturnTo::Plaintext).await;

    let returned = json(&["offboard", "return", "acme", "--to", &back]);
    assert_eq!((&returned["counts"]["returned"], &returned["order"]), (&1.into(), &id.to_string().into()));
    assert_eq!(std::fs::read(at("back").join("blob").join(&blob)).unwrap(), b"text");
    for args in [&["offboard", "destroy", "acme", "--to", &back][..], &["offboard", "finish", "acme"]] {
        let (code, said) = run(args);
        assert_eq!(code, 77, "{said}");
        assert!(said.contains("less than a day ago") || said.contains("has keys yet"), "{said}");
    }

    // Sealed again, into a store of their own, by another order.
    assert_eq!(json(&["offboard", "reopen", "acme"])["stage"], "open");
    order(ReturnTo::Resealed).await;
    assert_eq!(run(&["offboard", "return", "acme", "--to", &back]).0, 77);
    for args in [&["init"][..], &["customer", "add", "we", "--kms", "local"]] {
        assert_eq!(run_on("theirs", args).0, 0);
    }
    let (store, key) = (at("theirs"), at("theirs.key"));
    let into = ["--into-store", store.to_str().unwrap(), "--into-log-key", key.to_str().unwrap()];
    let again = at("again").to_str().unwrap().to_owned();
    let to = ["offboard", "return", "acme", "--to", &again];
    assert_eq!(run(&[&to[..], &into].concat()).0, 64, "whose");
    let said = json(&[&to[..], &into, &["--into-customer", "we"]].concat());
    assert_eq!((&said["return_to"], &said["counts"]["returned"]), (&"resealed".into(), &1.into()));
    assert_eq!(run_on("theirs", &["verify", "--customer", "we", "--all"]).0, 0);

    room.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_at_once() {
    let p = Place::new().await;
    p.close(ReturnTo::Plaintext).await;
    p.days(1).await;
    let (one, two) = (p.node().await, p.node().await);
    let (a, b) = tokio::join!(p.give_back(&one), p.give_back(&two));
    // Both write the same; of two manifests with one number one is told to run again.
    for result in [a, b] {
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
        }
    }
    p.give_back(&one).await.unwrap();
    p.check_returned().await;
    let (a, b) = tokio::join!(p.destroy(&one), p.destroy(&two));
    a.unwrap();
    b.unwrap();
    assert_eq!(p.stage().await, Stage::Destroying);
    p.days(8).await;
    assert_eq!(p.stage().await, Stage::Destroyed);
}
