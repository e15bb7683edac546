//! A customer's ring under another KMS key: everything opens without the old one, the log
//! shows when that was last used, and a crash or a race ends with one result.

#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::ObjectStore;
use strongroom::ErrorKind;
use strongroom::audit::{Action, KeyRef, OutcomeResult};
use strongroom::envelope::Metadata;
use strongroom::id::{BlobId, KmsKeyId};
use strongroom::kms::{EncryptionContext, KmsAdmin, KmsDestroyer};
use strongroom::room::{Customer, KeyChoice, NewCustomer, SealOptions, Strongroom};
use world::{World, access, add, label, pairs, pattern, records};

const TTL: Duration = Duration::from_secs(301);

struct Fixture {
    world: World,
    room: Strongroom,
    acme: Customer,
    blobs: Vec<(BlobId, Bytes)>,
}

impl Fixture {
    async fn new() -> Self {
        let world = World::new();
        world.kms.hurry();
        let room = world.init(world.options()).await.unwrap();
        let acme = add(&room, "acme").await.unwrap();
        let mut blobs = Vec::new();
        for length in [0, 1000, 300_000] {
            let named = SealOptions::new().metadata(Metadata::new().with_name("a/b".parse().unwrap()));
            let sealed = acme.seal(pattern(length), named).await.unwrap();
            blobs.push((sealed.id, pattern(length)));
        }
        Self { world, room, acme, blobs }
    }

    /// A key to rekey to.
    async fn key(&self) -> KmsKeyId {
        let tags = EncryptionContext::new_customer(self.room.store_id(), self.acme.id());
        self.world.kms.create_key(&tags).await.unwrap()
    }

    async fn kms_key(&self) -> KmsKeyId {
        self.acme.info().await.unwrap().kms_key
    }

    async fn node(&self) -> Customer {
        let room = self.world.node(self.world.options()).await.unwrap();
        room.customer(&label("acme"), access()).await.unwrap()
    }

    async fn all_open(&self, customer: &Customer) {
        for (blob, bytes) in &self.blobs {
            assert_eq!(customer.open(*blob).await.unwrap().bytes(1 << 20).await.unwrap(), bytes);
        }
    }

    async fn stored_blobs(&self) -> BTreeSet<(String, Option<String>)> {
        let listed: Vec<_> = self.world.blobs.inner().list(None).try_collect().await.unwrap();
        listed.into_iter().map(|meta| (meta.location.to_string(), meta.e_tag)).collect()
    }
}

#[tokio::test]
async fn everything_opens_without_the_old_key() {
    let f = Fixture::new().await;
    let (old, new) = (f.kms_key().await, f.key().await);
    let before = f.stored_blobs().await;
    f.world.clock.advance(Duration::from_secs(60));
    let rekeyed = f.acme.rekey(KeyChoice::Existing(new.clone())).await.unwrap();
    assert!(rekeyed.changed);
    assert_eq!((&rekeyed.kms_key, &rekeyed.from), (&new, &old));
    assert_eq!(f.stored_blobs().await, before, "blobs are untouched");

    // One record for each key of the ring, and the two calls of the KMS.
    let all = records(&f.room).await;
    let all = pairs(&all);
    let keys: Vec<_> = all.iter().filter(|(intent, _)| intent.action == Action::Rekey).collect();
    assert_eq!(keys.len(), rekeyed.keys);
    assert!(keys.iter().all(|(_, outcomes)| outcomes.len() == 1 && outcomes[0].result == OutcomeResult::Ok));
    let named: BTreeSet<_> = keys.iter().map(|(intent, _)| format!("{:?}", intent.key)).collect();
    assert_eq!(named.len(), rekeyed.keys, "each key once");
    let made = all.iter().filter(|(intent, _)| {
        intent.action == Action::KmsGenerateDataKey
            && matches!(&intent.key, Some(KeyRef::Customer { kms_key, .. }) if *kms_key == new)
    });
    assert_eq!(made.count(), 1);

    f.world.clock.advance(TTL);
    f.world.kms.disable(&old).await.unwrap();
    let node = f.node().await;
    f.all_open(&node).await;
    f.all_open(&f.acme).await;
    let later = node.seal(pattern(10), SealOptions::new()).await.unwrap().id;
    assert_eq!(f.acme.open(later).await.unwrap().bytes(100).await.unwrap(), pattern(10));
    assert_eq!(node.find(&"a/b".parse().unwrap()).await.unwrap().len(), f.blobs.len());

    let status = node.rekey_status().await.unwrap();
    assert_eq!(status.kms_key, new);
    let since = status.since.unwrap();
    let [former] = status.former.try_into().unwrap();
    assert_eq!((former.kms_key, former.uses_since), (old, 0));
    assert!(former.last_use < since);
    // Run again, it finds that there is nothing to do.
    let again = node.rekey(KeyChoice::Existing(new.clone())).await.unwrap();
    assert!(!again.changed);
    assert_eq!((again.ring_version, again.from), (rekeyed.ring_version, new));
}

#[tokio::test]
async fn a_node_goes_on_with_the_old_key_until_its_term_is_over() {
    let f = Fixture::new().await;
    let (old, new) = (f.kms_key().await, f.key().await);
    // One has ring and data key, the other only the ring.
    let (warm, cool) = (f.node().await, f.node().await);
    f.all_open(&warm).await;
    cool.info().await.unwrap();
    f.world.clock.advance(Duration::from_secs(1));
    f.acme.rekey(KeyChoice::Existing(new.clone())).await.unwrap();
    f.world.clock.advance(Duration::from_secs(1));
    // Sealed with the ring from before, and under the same day key.
    let sealed = warm.seal(pattern(10), SealOptions::new()).await.unwrap().id;
    assert_eq!(f.acme.open(sealed).await.unwrap().bytes(100).await.unwrap(), pattern(10));
    f.all_open(&cool).await;
    let status = f.acme.rekey_status().await.unwrap();
    assert_eq!(status.former[0].uses_since, 1, "the other one asked for its data key");

    f.world.kms.disable(&old).await.unwrap();
    f.all_open(&warm).await;
    f.world.clock.advance(TTL);
    for node in [&warm, &cool] {
        f.all_open(node).await;
        assert_eq!(node.info().await.unwrap().kms_key, new);
    }
    assert_eq!(f.acme.rekey_status().await.unwrap().former[0].uses_since, 1);
    // What changes the ring from an old version begins anew on the new one.
    let day = sealed.day().plus(500);
    let far = warm.seal(pattern(10), SealOptions::new().retain_until(day)).await.unwrap();
    assert_eq!(far.retain_until, day);
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_one_result_wherever_it_stops() {
    let mut stopped = 0;
    for storage in 0..2 {
        for k in 1.. {
            let f = Fixture::new().await;
            let new = f.key().await;
            let mut options = f.world.options();
            options.log_deadline = Duration::from_millis(500);
            let room = f.world.node(options).await.unwrap();
            let node = room.customer(&label("acme"), access()).await.unwrap();
            let faulty = if storage == 0 { &f.world.keys } else { &f.world.audit };
            faulty.lose_answer(k);
            faulty.fail_from(k + 1);
            let writes = faulty.writes();
            let first = node.rekey(KeyChoice::Existing(new.clone())).await;
            let reached = faulty.writes() >= writes + k;
            drop((node, room));
            faulty.heal();
            stopped += u32::from(first.is_err());
            let node = f.node().await;
            let second = node.rekey(KeyChoice::Existing(new.clone())).await.unwrap();
            assert_eq!(second.kms_key, new);
            assert_eq!(node.info().await.unwrap().kms_key, new);
            f.all_open(&node).await;
            let report = node.rekey(KeyChoice::Existing(new)).await.unwrap();
            assert!(!report.changed);
            f.world.verify_log(&f.room).await;
            if !reached {
                break;
            }
        }
    }
    assert!(stopped > 3, "{stopped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_end_with_one_ring() {
    let f = Fixture::new().await;
    let (one, two) = (f.node().await, f.node().await);
    let new = f.key().await;
    let choice = || KeyChoice::Existing(new.clone());
    let (a, b) = tokio::join!(one.rekey(choice()), two.rekey(choice()));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a.changed != b.changed, "one of them did it: {a:?} {b:?}");
    assert_eq!((a.kms_key, a.ring_version), (b.kms_key, b.ring_version));
    f.all_open(&f.node().await).await;

    // To two keys: one after the other, whatever the order.
    let (third, fourth) = (f.key().await, f.key().await);
    let (a, b) = tokio::join!(
        one.rekey(KeyChoice::Existing(third.clone())),
        two.rekey(KeyChoice::Existing(fourth.clone())),
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    let (first, last) = if a.ring_version < b.ring_version { (a, b) } else { (b, a) };
    assert_eq!((&first.from, &last.from), (&new, &first.kms_key));
    let node = f.node().await;
    assert_eq!(node.info().await.unwrap().kms_key, last.kms_key);
    f.all_open(&node).await;
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_and_changes_nothing() {
    let f = Fixture::new().await;
    let version = f.acme.info().await.unwrap().ring_version;
    let new = f.key().await;
    f.world.kms.disable(&new).await.unwrap();
    let error = f.acme.rekey(KeyChoice::Existing(new.clone())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyUnavailable);
    f.world.kms.enable(&new).await.unwrap();
    // Without the old key, nobody can.
    let old = f.kms_key().await;
    f.world.kms.disable(&old).await.unwrap();
    let error = f.node().await.rekey(KeyChoice::Existing(new)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyUnavailable);
    f.world.kms.enable(&old).await.unwrap();
    assert_eq!(f.node().await.info().await.unwrap().ring_version, version);
    // A new key of the provider.
    let made = f.acme.rekey(KeyChoice::New("local".into())).await.unwrap();
    assert!(made.changed && made.kms_key != old);
    f.all_open(&f.node().await).await;

    let strict =
        NewCustomer { strict: true, ..NewCustomer::new(label("strict"), KeyChoice::New("local".into())) };
    f.room.add_customer(&access(), strict).await.unwrap();
    let strict = f.room.customer(&label("strict"), access()).await.unwrap();
    let error = strict.rekey(KeyChoice::New("local".into())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.chain().contains("wrapped by the KMS key"), "{}", error.chain());
}
