//! Whoever may write to the keys storage, call one customer's KMS key, and use a node's rights at
//! the KMS, but has neither the log's key nor that of a writer: they *add* what the log does not
//! know. Nothing of it is believed, by a node that runs or by one that starts, nobody pins it, and no
//! KMS key that stands in it is asked; without it all is as before.

#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};
use strongroom::ErrorKind;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::log::{Log, LogConfig};
use strongroom::audit::voucher::Versioned;
use strongroom::audit::{Action, Intent, KeyUseReceipt, OutcomeResult, RingRef};
use strongroom::codec::{Decode, Encode};
use strongroom::id::{BlobId, CustomerId, KmsKeyId, StoreId};
use strongroom::kms::{DataKey, EncryptionContext, Kms};
use strongroom::order::NewPerson;
use strongroom::register::sealed::SealedRegister;
use strongroom::register::{NewEpoch, RegisterChange};
use strongroom::ring::Ring;
use strongroom::ring::sealed::{EpochRecord, SealedRing};
use strongroom::room::{KeyChoice, SealOptions, Strongroom};
use strongroom::secret::Secret;
use strongroom::store::{Storages, layout};
use strongroom::suite::Suite;
use strongroom::system::SystemEntropy;
use strongroom::time::{Clock, Timestamp};
use strongroom::tlog::{NamedKey, SecretKey};
use world::signer::signer;
use world::{World, access, add, label, pattern};

/// See above.
struct Attacker {
    world: World,
    store: StoreId,
    /// The customer that is attacked, and the KMS key of another, which is theirs.
    victim: CustomerId,
    own_key: KmsKeyId,
    /// What makes receipts: a log of their own.
    log: Log,
}

impl Attacker {
    async fn new() -> (Self, Strongroom) {
        let world = World::new();
        let room = world.init(world.options()).await.unwrap();
        let victim = add(&room, "acme").await.unwrap().id();
        let own_key = add(&room, "tenant").await.unwrap().info().await.unwrap().kms_key;
        let config = LogConfig::new(StoreId::from_bytes([0xA7; 16]), signer());
        let storage = Storages::memory().audit;
        let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
        let log = Log::open(storage, config, clock, Arc::new(SystemEntropy)).await.unwrap();
        let store = room.store_id();
        (Self { world, store, victim, own_key, log }, room)
    }

    async fn receipt(&self) -> KeyUseReceipt {
        let access = Access::new(Principal::Unix(0), Purpose::SystemAdministration);
        let intent = Intent::new(self.log.request_id().unwrap(), &access, Action::KmsDecrypt);
        self.log.begin(intent).await.unwrap().1
    }

    fn keys(&self) -> Arc<dyn ObjectStore> {
        self.world.keys.inner()
    }

    async fn read(&self, path: &Path) -> Vec<u8> {
        self.keys().get(path).await.unwrap().bytes().await.unwrap().to_vec()
    }

    /// An epoch's record and its data key.
    async fn epoch(&self, number: u32) -> (EpochRecord, DataKey) {
        let record = EpochRecord::from_bytes(&self.read(&layout::epoch(number)).await).unwrap();
        let context = EncryptionContext::epoch(self.store, number);
        let key =
            self.world.kms.inner.decrypt(self.receipt().await, &record.kms_key, &record.wrapped, &context);
        let key = key.await.unwrap();
        (record, key)
    }

    /// The record of an epoch under a KMS key, with the store's own directory key.
    async fn forged_epoch(&self, number: u32, kms_key: &KmsKeyId) -> (Vec<u8>, DataKey) {
        let (record, data_key) = self.epoch(1).await;
        let directory = record.open(&data_key).unwrap();
        let context = EncryptionContext::epoch(self.store, number);
        let made =
            self.world.kms.inner.generate_data_key(self.receipt().await, kms_key, &context).await.unwrap();
        let key = (&made.plaintext, made.wrapped);
        let record = EpochRecord::seal(
            (self.store, number),
            record.created,
            kms_key.clone(),
            key,
            &directory,
            [9; 24],
        );
        (record.to_bytes(), made.plaintext)
    }

    async fn ring(&self) -> Ring {
        let stored = self.read(&layout::ring(self.victim, 1)).await;
        SealedRing::parse(&stored).unwrap().open(&self.epoch(1).await.1).unwrap()
    }

    /// The victim's ring in the next version, under an epoch of theirs or the store's own.
    async fn forged_ring(&self, epoch: u32, key: &DataKey) -> (Path, Vec<u8>) {
        let mut next = self.ring().await;
        (next.version, next.epoch) = (2, epoch);
        next.settings.strict = !next.settings.strict;
        (layout::ring(self.victim, 2), next.seal(key, [8; 24]))
    }

    /// The register in the next version, with two people of theirs.
    async fn forged_register(&self) -> (Path, Vec<u8>) {
        let stored = self.read(&layout::register(1)).await;
        let key = self.epoch(1).await.1;
        let register = SealedRegister::parse(&stored).unwrap().open(&key).unwrap();
        let person = |name: &str, seed| -> NewPerson {
            let key = SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32]));
            NamedKey::new(name.parse().unwrap(), key).verifier().try_into().unwrap()
        };
        let people = vec![person("person:e-1", 1), person("person:e-2", 2)];
        let found = RegisterChange::FoundPeople { people, now: Timestamp::from_micros(1).unwrap() };
        (layout::register(2), register.apply(found).unwrap().seal(&key, [7; 24]))
    }

    /// The register with an epoch more.
    async fn register_with(&self, record: &[u8]) -> (Path, Vec<u8>) {
        let stored = self.read(&layout::register(1)).await;
        let key = self.epoch(1).await.1;
        let register = SealedRegister::parse(&stored).unwrap().open(&key).unwrap();
        let kms_key = EpochRecord::from_bytes(record).unwrap().kms_key;
        let epoch = NewEpoch { number: 2, kms_key, record: None };
        let at = Timestamp::from_micros(1).unwrap();
        (
            layout::register(2),
            register.apply(RegisterChange::BeginEpoch { epoch, at }).unwrap().seal(&key, [6; 24]),
        )
    }

    /// Everything that could be planted, by what it is.
    async fn plans(&self) -> BTreeMap<&'static str, Vec<(Path, Vec<u8>)>> {
        let (own, first) = (self.own_key.clone(), self.epoch(1).await);
        let (second, second_key) = self.forged_epoch(2, &own).await;
        let (again, again_key) = self.forged_epoch(1, &first.0.kms_key).await;
        let (other, _) = self.forged_epoch(1, &own).await;
        let (far, _) = self.forged_epoch(9, &own).await;
        let epoch = |bytes: &Vec<u8>, number| (layout::epoch(number), bytes.clone());
        let resealed = (layout::ring(self.victim, 1), self.ring().await.seal(&again_key, [5; 24]));
        BTreeMap::from([
            ("an epoch", vec![epoch(&second, 2)]),
            ("an epoch far ahead", vec![epoch(&far, 9)]),
            (
                "an epoch, a ring and a register",
                vec![
                    epoch(&second, 2),
                    self.forged_ring(2, &second_key).await,
                    self.register_with(&second).await,
                ],
            ),
            ("an epoch and a ring under it", vec![epoch(&second, 2), self.forged_ring(2, &second_key).await]),
            ("the first epoch under the same KMS key", vec![epoch(&again, 1)]),
            ("the first epoch under their KMS key", vec![epoch(&other, 1)]),
            ("the first epoch and the ring under it", vec![epoch(&again, 1), resealed]),
            ("a ring", vec![self.forged_ring(1, &first.1).await]),
            ("people", vec![self.forged_register().await]),
        ])
    }

    /// Puts it there, and returns what takes it away again.
    async fn plant(&self, objects: &[(Path, Vec<u8>)]) -> Vec<(Path, Option<Vec<u8>>)> {
        let mut before = Vec::new();
        for (path, bytes) in objects {
            let old = match self.keys().get(path).await {
                Ok(old) => Some(old.bytes().await.unwrap().to_vec()),
                Err(_) => None,
            };
            before.push((path.clone(), old));
            self.keys().put(path, bytes.clone().into()).await.unwrap();
        }
        before
    }

    async fn undo(&self, before: Vec<(Path, Option<Vec<u8>>)>) {
        for (path, old) in before {
            match old {
                Some(old) => _ = self.keys().put(&path, old.into()).await.unwrap(),
                None => self.keys().delete(&path).await.unwrap(),
            }
        }
    }

    async fn audit(&self, kind: &str) -> Vec<String> {
        paths(&*self.world.audit.inner(), kind).await
    }
}

async fn paths(storage: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    let listed = storage.list(Some(&Path::from(prefix))).map_ok(|meta| meta.location.to_string());
    let mut paths: Vec<String> = listed.try_collect().await.unwrap();
    paths.sort();
    paths
}

async fn seal(room: &Strongroom) -> strongroom::Result<BlobId> {
    let customer = room.customer(&label("acme"), access()).await?;
    Ok(customer.seal(pattern(100), SealOptions::new()).await?.id)
}

/// What asks for the register.
async fn people(room: &Strongroom) -> strongroom::Result<usize> {
    Ok(room.register(&access()).await?.people.iter().count())
}

#[tokio::test(start_paused = true)]
async fn what_the_log_does_not_know_is_believed_by_nobody() {
    let plans: Vec<_> = Attacker::new().await.0.plans().await.into_keys().collect();
    assert_eq!(plans.len(), 9);
    for what in plans {
        let (attacker, running) = Attacker::new().await;
        let world = &attacker.world;
        let blob = seal(&running).await.unwrap();
        let objects = attacker.plans().await.remove(what).unwrap();
        let pins = attacker.audit("pin").await;
        let before = attacker.plant(&objects).await;
        let stored = paths(&*world.blobs.inner(), "blob").await;
        world.kms.forget();
        // One that starts, and one that has run for longer than it keeps keys.
        world.clock.advance(Duration::from_secs(3600));
        let starts = world.node(world.options()).await.unwrap();
        for room in [&starts, &running] {
            let of_register = objects.iter().all(|(path, _)| path.as_ref().starts_with("register"));
            let error = match of_register {
                true => people(room).await.unwrap_err(),
                false => seal(room).await.unwrap_err(),
            };
            assert_eq!(error.kind(), ErrorKind::Integrity, "{what}: {error}");
            // What was refused once is refused again.
            let again = if of_register { people(room).await.err() } else { seal(room).await.err() };
            assert_eq!(again.map(|error| error.kind()), Some(ErrorKind::Integrity), "{what}");
        }
        let asked = world.kms.counts();
        assert!(asked.keys().all(|(_, key)| *key != attacker.own_key), "{what}: their KMS key was asked");
        assert_eq!(paths(&*world.blobs.inner(), "blob").await, stored, "{what}");
        assert_eq!(attacker.audit("pin").await, pins, "{what}: it was pinned");
        let rotated = starts.rotate_epoch(&access(), KeyChoice::New("local".into())).await;
        match rotated {
            // The store goes on, and what was planted is left where it is.
            Ok(rotated) => assert_eq!(rotated.left_behind.len(), 1, "{what}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Integrity, "{what}"),
        }
        let refused = world::records(&starts).await;
        let refused = world::pairs(&refused).into_iter().filter(|(intent, outcomes)| {
            intent.action == Action::KeysRead
                && outcomes.iter().any(|outcome| outcome.result == OutcomeResult::IntegrityFailed)
        });
        assert!(refused.count() > 0, "{what}: nothing on record");
        attacker.undo(before).await;
        let mended = world.node(world.options()).await.unwrap();
        let customer = mended.customer(&label("acme"), access()).await.unwrap();
        assert_eq!(customer.stat(blob).await.unwrap().bytes, 100);
        seal(&running).await.unwrap();
        world.verify_log(&mended).await;
    }
}

/// Who had begun to write and was beaten, or stopped, vouched for a version that never stood: it is
/// as good as what stands, and its hash is known. What stands was pinned.
#[tokio::test(start_paused = true)]
async fn a_version_that_was_pinned_is_not_replaced_by_one_that_was_vouched_for() {
    let (attacker, room) = Attacker::new().await;
    let key = attacker.epoch(1).await.1;
    let (path, bytes) = (layout::ring(attacker.victim, 1), attacker.ring().await.seal(&key, [1; 24]));
    let version = RingRef { version: 1, hash: Sha256::digest(&bytes).into() };
    let of = Versioned::Ring(attacker.victim);
    room.log().vouch(of, version, room.log().request_id().unwrap()).await.unwrap();
    let before = attacker.plant(&[(path, bytes)]).await;
    let node = attacker.world.node(attacker.world.options()).await.unwrap();
    assert_eq!(seal(&node).await.unwrap_err().kind(), ErrorKind::Integrity);
    attacker.undo(before).await;
    seal(&attacker.world.node(attacker.world.options()).await.unwrap()).await.unwrap();
}

/// A writer that stopped behind the ring left it unpinned: the next reader finds the voucher, and
/// pins it with that; where the voucher was withheld, the log itself is read.
#[tokio::test(start_paused = true)]
async fn a_version_without_a_pin_is_taken_by_its_voucher_or_by_the_log() {
    let (attacker, room) = Attacker::new().await;
    let audit = attacker.world.audit.inner();
    let victim = attacker.victim;
    let customer = room.customer(&label("acme"), access()).await.unwrap();
    customer.set(None, Some(Suite::ChaCha20Poly1305)).await.unwrap();
    let pin = Path::from(format!("pin/{victim}/{:016x}", 2));
    let pinned = audit.get(&pin).await.unwrap().bytes().await.unwrap();
    for with_voucher in [true, false] {
        audit.delete(&pin).await.unwrap();
        if !with_voucher {
            for path in attacker.audit(&format!("voucher/{victim}/{:016x}", 2)).await {
                audit.delete(&Path::from(path)).await.unwrap();
            }
        }
        let node = attacker.world.node(attacker.world.options()).await.unwrap();
        seal(&node).await.unwrap();
        let again = audit.get(&pin).await.unwrap().bytes().await.unwrap();
        let line = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').next().unwrap().to_vec();
        assert_eq!(line(&again), line(&pinned));
        assert_eq!(again == pinned, with_voucher);
    }
    attacker.world.verify_log(&room).await;
}
