//! A program that dies at any of its writes, or whose writes fail or seem to:
//! whatever it acknowledged is there, whatever is there is whole, and the next
//! program goes on.

#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use faults::FaultStore;
use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;
use strongroom::audit::log::verify_chain;
use strongroom::audit::{Action, OutcomeResult};
use strongroom::envelope::{BlobName, Metadata};
use strongroom::id::BlobId;
use strongroom::room::{Customer, KeyChoice, NewCustomer, Options, SealOptions, Strongroom};
use strongroom::store::Storages;
use strongroom::time::Day;
use strongroom::{ErrorKind, Result};
use world::{World, access, label, pairs, pattern, records};

const NAMES: [&str; 3] = ["blobs", "keys", "audit"];

/// The three storages under one root.
fn storages(root: &Arc<dyn ObjectStore>) -> Storages {
    let under = |name: &str| Arc::new(PrefixStore::new(Arc::clone(root), name)) as Arc<dyn ObjectStore>;
    let [blobs, keys, audit] = NAMES.map(under);
    Storages::from_parts(blobs, keys, audit)
}

/// Storages whose writes are counted each for itself, and all of them together.
struct Failing {
    all: FaultStore,
    each: [FaultStore; 3],
}

impl Failing {
    fn new() -> Self {
        let all = FaultStore::memory();
        let each = NAMES.map(|name| FaultStore::new(Arc::new(PrefixStore::new(all.clone(), name))));
        Self { all, each }
    }

    fn storages(&self) -> Storages {
        let [blobs, keys, audit] = self.each.each_ref().map(|store| Arc::new(store.clone()));
        Storages::from_parts(blobs, keys, audit)
    }
}

fn name() -> BlobName {
    "db/nightly".parse().expect("a name")
}

/// What callers were told.
#[derive(Default)]
struct Told {
    sealed: Vec<(BlobId, Bytes)>,
    named: Vec<BlobId>,
    opened: Vec<BlobId>,
    set: bool,
}

struct Program<'w> {
    world: &'w World,
    options: Options,
    large: Bytes,
}

impl Program<'_> {
    async fn init(&self, storages: Storages) -> Result<Strongroom> {
        let key = KeyChoice::New("local".into());
        let kms = self.world.registry();
        Strongroom::init(storages, kms, key, &access(), self.options.clone()).await.map(|(room, _)| room)
    }

    /// All that a store is used for, once.
    async fn run(&self, room: &Strongroom, told: &mut Told) -> Result<()> {
        let acme = match room.customer(&label("acme"), access()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let new = NewCustomer::new(label("acme"), KeyChoice::New("local".into()));
                room.add_customer(&access(), new).await?;
                room.customer(&label("acme"), access()).await?
            }
            found => found?,
        };
        self.seal(&acme, pattern(1000), SealOptions::new(), told).await?;
        let named = SealOptions::new().metadata(Metadata::new().with_name(name()));
        let blob = self.seal(&acme, self.large.clone(), named, told).await?;
        told.named.push(blob);
        // A day that the ring has no key of.
        let later = SealOptions::new().retain_until(Day::from_number(40_000));
        self.seal(&acme, pattern(10), later, told).await?;
        acme.open(blob).await?.bytes(1 << 30).await?;
        told.opened.push(blob);
        acme.set(Some("P7Y".parse().expect("a period")), None).await?;
        told.set = true;
        Ok(())
    }

    async fn seal(
        &self,
        acme: &Customer,
        bytes: Bytes,
        options: SealOptions,
        told: &mut Told,
    ) -> Result<BlobId> {
        let sealed = acme.seal(bytes.clone(), options).await?;
        told.sealed.push((sealed.id, bytes));
        Ok(sealed.id)
    }

    /// Runs once on failing storages, checks what is left, runs again to the end,
    /// and checks that.
    async fn survive(&self, failing: &Failing, what: &str, dead: bool) {
        let mut told = Told::default();
        if let Ok(room) = self.init(failing.storages()).await {
            let _ = self.run(&room, &mut told).await;
            if !dead {
                let _ = room.close().await;
            }
        }
        // The dead one's storage stays dead; others reach it past the faults.
        let sound = failing.all.inner();
        if let Ok(room) =
            Strongroom::open(storages(&sound), self.world.registry(), self.options.clone()).await
        {
            self.check(&room, &sound, &told, what).await;
        } else {
            assert!(told.sealed.is_empty(), "{what}");
        }
        let room =
            self.init(storages(&sound)).await.unwrap_or_else(|error| panic!("{what}: init again: {error:?}"));
        let mut again = Told::default();
        self.run(&room, &mut again).await.unwrap_or_else(|error| panic!("{what}: once more: {error:?}"));
        assert_eq!(again.sealed.len(), 3);
        let room =
            Strongroom::open(storages(&sound), self.world.registry(), self.options.clone()).await.unwrap();
        again.sealed.append(&mut told.sealed);
        again.named.append(&mut told.named);
        again.opened.append(&mut told.opened);
        self.check(&room, &sound, &again, what).await;
    }

    async fn check(&self, room: &Strongroom, sound: &Arc<dyn ObjectStore>, told: &Told, what: &str) {
        match room.customer(&label("acme"), access()).await {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{what}: {error:?}");
                assert!(told.sealed.is_empty(), "{what}: the customer is gone");
            }
            Ok(acme) => self.check_customer(&acme, told, what).await,
        }
        let audit = Arc::new(PrefixStore::new(Arc::clone(sound), "audit"));
        let report = room.verify_log().await.unwrap();
        assert!(report.is_ok(), "{what}: {:#?}", report.findings);
        for shard in room.log_reader().shards().await.unwrap() {
            verify_chain(audit.clone(), room.store_id(), shard, room.log().authority())
                .await
                .unwrap_or_else(|error| panic!("{what}: {error:?}"));
        }

        let all = records(room).await;
        let pairs = pairs(&all);
        let ended = |action, blob| {
            let fits =
                |(intent, outcomes): &&(&strongroom::audit::Intent, Vec<&strongroom::audit::Outcome>)| {
                    intent.action == action
                        && intent.blob == blob
                        && outcomes.iter().any(|outcome| outcome.result == OutcomeResult::Ok)
                };
            pairs.iter().find(fits).is_some()
        };
        for (blob, _) in &told.sealed {
            assert!(ended(Action::Seal, Some(*blob)), "{what}: no record of a seal");
        }
        for blob in &told.opened {
            assert!(ended(Action::Open, Some(*blob)), "{what}: no record of an open");
        }
        assert!(!told.set || ended(Action::CustomerSet, None), "{what}: no record of a change");
        assert!(pairs.iter().all(|(_, outcomes)| outcomes.len() <= 1), "{what}: two outcomes");
        // Every call that the KMS ever saw.
        let requests: BTreeSet<_> = pairs.iter().map(|(intent, _)| intent.request.to_string()).collect();
        let of_this_store = self.world.kms.requests();
        assert!(
            of_this_store.iter().all(|request| requests.contains(&request.to_string())),
            "{what}: a KMS call"
        );
    }

    async fn check_customer(&self, acme: &Customer, told: &Told, what: &str) {
        for (blob, bytes) in &told.sealed {
            let opened = async { acme.open(*blob).await?.bytes(1 << 30).await };
            let opened = opened.await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
            assert!(opened == bytes, "{what}: other bytes");
        }
        let listed: Vec<_> = acme.list().try_collect().await.unwrap();
        assert!(told.sealed.iter().all(|(blob, _)| listed.iter().any(|listed| listed.id == *blob)), "{what}");
        for listed in &listed {
            let verified = acme.verify(listed.id).await;
            verified.unwrap_or_else(|error| panic!("{what}: half a blob is visible: {error:?}"));
        }
        let found = acme.find(&name()).await.unwrap();
        assert!(told.named.iter().all(|blob| found.contains(blob)), "{what}: a name is lost");
        if !told.named.is_empty() {
            let newest = acme.newest(&name()).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
            assert_eq!(newest.metadata.name(), Some(&name()));
        }
        if told.set {
            assert_eq!(acme.info().await.unwrap().period, "P7Y".parse().unwrap(), "{what}");
        }
    }
}

/// For each write in turn: of one storage, and of all three.
async fn at_every_write(fault: impl Fn(&FaultStore, u64), name: &str, dead: bool) {
    let large = pattern(9_000_000);
    // How records share commits depends on the moment, and with it which write
    // of all is the k-th. That of the blobs or the keys is always the same.
    for place in NAMES.iter().chain(&["all"]) {
        for k in 1.. {
            let world = World::new();
            world.kms.hurry();
            let mut options = world.options();
            // Longer than anything takes that does not fail.
            options.log_deadline = if dead { Duration::from_millis(500) } else { Duration::from_secs(10) };
            let program = Program { world: &world, options, large: large.clone() };
            let failing = Failing::new();
            let which = NAMES.iter().position(|name| name == place);
            let faulty = which.map_or(&failing.all, |which| &failing.each[which]);
            fault(faulty, k);
            program.survive(&failing, &format!("{name} {k} of {place}"), dead).await;
            if faulty.writes() < k {
                println!("{name}: {} writes of {place}", k - 1);
                assert!(k > 5, "{place}: {k}");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_write_may_fail() {
    at_every_write(FaultStore::fail_write, "failed write", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_any_write_may_be_lost() {
    at_every_write(FaultStore::lose_answer, "lost answer", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_may_die_after_any_write() {
    let fault = |store: &FaultStore, k| {
        store.lose_answer(k);
        store.fail_from(k + 1);
    };
    at_every_write(fault, "death after write", true).await;
}
