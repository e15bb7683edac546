//! A store whose time passes day by day, with people who may sign orders.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::id::{BlobId, CustomerId, KekId, OrderId};
use strongroom::kms::local::InsecureLocalKms;
use strongroom::kms::{DestroyerRegistry, KmsAdmin, KmsDestroyer, KmsRegistry};
use strongroom::order::{NewPerson, OrderKind};
use strongroom::room::{Customer, KeyChoice, NewCustomer, Options, SealOptions, Strongroom};
use strongroom::secret::Secret;
use strongroom::shred::{Executed, Swept, VALIDITY};
use strongroom::store::Storages;
use strongroom::system::SystemEntropy;
use strongroom::time::Day;
use strongroom::tlog::{NamedKey, SecretKey};

use crate::common::{Raw, TestClock, options};

pub const DAY: Duration = Duration::from_hours(24);

pub struct Vault {
    pub raw: Raw,
    pub room: Strongroom,
    pub kms: KmsRegistry,
    pub destroyers: DestroyerRegistry,
    /// The prefix of the provider of its keys.
    pub provider: &'static str,
    pub local: InsecureLocalKms,
    pub clock: Arc<TestClock>,
    pub directory: tempfile::TempDir,
}

pub fn access() -> Access {
    Access::new(Principal::service("sweeper").unwrap(), Purpose::RecordManagement)
}

/// The key of a person: `person:a`, `person:b`, `person:c` are registered.
pub fn key(name: &str) -> NamedKey {
    let seed = name.bytes().last().unwrap();
    let secret = SecretKey::from_seed(&Secret::init(|out| out.fill(seed)));
    NamedKey::new(format!("person:{name}").parse().unwrap(), secret)
}

pub fn person(name: &str) -> Principal {
    Principal::person(name).unwrap()
}

pub fn people() -> Vec<NewPerson> {
    ["a", "b", "c"].map(|name| NewPerson::try_from(key(name).verifier()).unwrap()).to_vec()
}

impl Vault {
    pub async fn new() -> Self {
        Self::over("2026-11-22T02:26:13.000000Z", Arc::new).await
    }

    /// A store whose keys are of the provider that `make` makes, perhaps out of the local
    /// one, from the time `begin` on.
    pub async fn over<K: KmsAdmin + KmsDestroyer + 'static>(
        begin: &str,
        make: impl FnOnce(InsecureLocalKms) -> Arc<K>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let raw = Raw::default();
        let clock = TestClock::at(begin);
        let keys = directory.path().join("kms");
        let local = InsecureLocalKms::open(keys, clock.clone(), Arc::new(SystemEntropy)).unwrap();
        let provider = make(local.clone());
        let name = provider.provider();
        let kms = KmsRegistry::new().with(provider.clone());
        let destroyers = DestroyerRegistry::new().with(provider);
        let epoch_key = KeyChoice::New(name.into());
        let (room, _) =
            Strongroom::init(raw.storages(), kms.clone(), epoch_key, &access(), Self::options(&clock))
                .await
                .unwrap();
        Self { raw, room, kms, destroyers, provider: name, local, clock, directory }
    }

    fn options(clock: &Arc<TestClock>) -> Options {
        let mut options = options(clock);
        options.people = people();
        options
    }

    /// Another node of the same store.
    pub async fn node(&self) -> Strongroom {
        self.node_over(self.raw.storages()).await
    }

    pub async fn node_over(&self, storages: Storages) -> Strongroom {
        Strongroom::open(storages, self.kms.clone(), Self::options(&self.clock)).await.unwrap()
    }

    /// A customer whose blobs are kept for so many days.
    pub async fn customer(&self, label: &str, days: u32) -> Customer {
        let mut new = NewCustomer::new(label.parse().unwrap(), KeyChoice::New(self.provider.into()));
        new.period = format!("P{days}D").parse().unwrap();
        self.room.add_customer(&access(), new).await.unwrap();
        self.of(&self.room, label).await
    }

    pub async fn of(&self, room: &Strongroom, label: &str) -> Customer {
        room.customer(&label.parse().unwrap(), access()).await.unwrap()
    }

    /// Lets days pass, each with its sweep.
    pub async fn days(&self, days: u32) {
        for _ in 0..days {
            self.clock.pass(DAY);
            self.sweep().await;
        }
    }

    /// Sweeps, and nothing may fail.
    pub async fn sweep(&self) -> std::collections::BTreeMap<CustomerId, Swept> {
        let sweep = self.room.sweep(&access()).await.unwrap();
        sweep.customers.into_iter().map(|(customer, swept)| (customer, swept.unwrap())).collect()
    }

    /// Asks for something in the name of `person:a`.
    pub async fn request(&self, what: OrderKind, customer: Option<&Customer>) -> OrderId {
        request(&self.room, what, customer).await
    }

    /// The same, approved by `person:b`.
    pub async fn order(&self, what: OrderKind, customer: Option<&Customer>) -> Executed {
        order(&self.room, what, customer).await
    }
}

/// Asks for something in the name of `person:a`.
pub async fn request(room: &Strongroom, what: OrderKind, customer: Option<&Customer>) -> OrderId {
    let of = customer.map(Customer::id);
    let order = room.draft_order(&access(), what, of, person("a"), VALIDITY).await.unwrap();
    let signed = order.sign(&key("a")).unwrap();
    room.request_order(&access(), &signed).await.unwrap()
}

/// The same, approved by `person:b`.
pub async fn order(room: &Strongroom, what: OrderKind, customer: Option<&Customer>) -> Executed {
    let id = request(room, what, customer).await;
    room.approve_order(&access(), id, &key("b")).await.unwrap()
}

pub async fn seal(customer: &Customer, text: &str) -> BlobId {
    customer.seal(text.as_bytes().to_vec(), SealOptions::new()).await.unwrap().id
}

pub async fn opens(customer: &Customer, blob: BlobId) -> Vec<u8> {
    customer.open(blob).await.unwrap().bytes(1 << 20).await.unwrap().to_vec()
}

pub async fn refused(customer: &Customer, blob: BlobId) -> strongroom::Error {
    match customer.open(blob).await {
        Ok(opened) => opened.bytes(1 << 20).await.expect_err("it must not open"),
        Err(error) => error,
    }
}

pub fn day(text: &str) -> Day {
    text.parse().unwrap()
}

pub fn keys_of(executed: &Executed) -> BTreeSet<KekId> {
    match executed {
        Executed::Pended { keys, .. } => keys.clone(),
        other => panic!("{other:?} puts no keys into the window"),
    }
}

pub async fn count(store: &InMemory, prefix: &str) -> usize {
    crate::common::objects(store).await.iter().filter(|(path, _)| path.as_ref().starts_with(prefix)).count()
}
