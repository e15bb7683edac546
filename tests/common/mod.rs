//! What the tests of the façade share: a store in memory whose raw storages the
//! test keeps, and doubles of clock and randomness.
//!
//! Use it with `mod common;`.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

pub mod signer;

use std::collections::HashMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};
use strongroom::access::{Access, Origin, Principal, Purpose};
use strongroom::audit::{Event, Intent, KeyUseReceipt, Outcome, Record};
use strongroom::entropy::{Entropy, EntropyError};
use strongroom::id::KmsKeyId;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::kms::{
    DataKey, EncryptionContext, GeneratedDataKey, KeyState, Kms, KmsAdmin, KmsDestroyer, KmsError,
    KmsRegistry, WrappedDataKey,
};
use strongroom::room::{Customer, KeyChoice, NewCustomer, Options, Strongroom};
use strongroom::store::{StorageClock, Storages};
use strongroom::time::{Clock, Timestamp};

use signer::signer;

/// A service at work, with an origin that is the same in every run.
pub fn access() -> Access {
    let service = Principal::service("tests").unwrap();
    Access::new(service, Purpose::SystemAdministration).from_origin(Origin::Process(1))
}

/// Bytes in which every chunk and every position differs.
pub fn pattern(length: usize) -> Bytes {
    (0..length).map(|index| (index * 7 + index / 251).to_le_bytes()[0]).collect()
}

/// The three storages of a store, as whoever holds the disks sees them.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    pub blobs: Arc<InMemory>,
    pub keys: Arc<InMemory>,
    pub audit: Arc<InMemory>,
}

impl Raw {
    pub fn storages(&self) -> Storages {
        let (blobs, keys, audit) = (self.blobs.clone(), self.keys.clone(), self.audit.clone());
        Storages::from_parts(blobs, keys, audit)
    }

    /// All storages with the names they go by.
    pub fn all(&self) -> [(&'static str, &InMemory); 3] {
        [("blobs", &self.blobs), ("keys", &self.keys), ("audit", &self.audit)]
    }

    /// Three copies that no longer follow the originals.
    pub fn fork(&self) -> Self {
        let fork = |store: &InMemory| Arc::new(store.fork());
        Self { blobs: fork(&self.blobs), keys: fork(&self.keys), audit: fork(&self.audit) }
    }
}

/// The bytes of an object.
pub async fn read(store: &InMemory, path: &Path) -> Vec<u8> {
    store.get(path).await.unwrap().bytes().await.unwrap().to_vec()
}

/// Puts an object there, whatever was there before.
pub async fn write(store: &InMemory, path: &Path, bytes: impl Into<Vec<u8>>) {
    store.put(path, bytes.into().into()).await.unwrap();
}

/// Every object of a storage with its bytes, in order of the paths.
pub async fn objects(store: &InMemory) -> Vec<(Path, Vec<u8>)> {
    let mut paths: Vec<Path> = store.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
    paths.sort();
    let mut objects = Vec::new();
    for path in paths {
        let bytes = read(store, &path).await;
        objects.push((path, bytes));
    }
    objects
}

/// A clock that is set by hand. `uptime` stands still as well, and counts one
/// microsecond for each look.
#[derive(Debug)]
pub struct TestClock {
    now: AtomicU64,
    up: AtomicU64,
}

impl TestClock {
    pub fn at(now: &str) -> Arc<Self> {
        let now: Timestamp = now.parse().unwrap();
        Arc::new(Self { now: AtomicU64::new(now.micros()), up: AtomicU64::new(0) })
    }

    pub fn set(&self, now: Timestamp) {
        self.now.store(now.micros(), SeqCst);
    }

    /// Lets time go by on both clocks.
    pub fn pass(&self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap();
        self.now.fetch_add(micros, SeqCst);
        self.up.fetch_add(micros, SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now.load(SeqCst)).unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::from_micros(self.up.fetch_add(1, SeqCst))
    }
}

/// A storage whose clock agrees with the host's.
#[async_trait]
impl StorageClock for TestClock {
    async fn time(&self) -> strongroom::Result<Option<Timestamp>> {
        Ok(Some(self.now()))
    }

    fn dates_audit(&self) -> bool {
        false
    }
}

/// Bytes that look random and are the same in every run: SHA-256 over a seed
/// and the number of the call.
#[derive(Debug)]
pub struct CountingEntropy {
    seed: &'static str,
    calls: AtomicU64,
}

impl CountingEntropy {
    pub fn new(seed: &'static str) -> Arc<Self> {
        Arc::new(Self { seed, calls: AtomicU64::new(0) })
    }
}

impl Entropy for CountingEntropy {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError> {
        let call = self.calls.fetch_add(1, SeqCst);
        for (block, part) in out.chunks_mut(32).enumerate() {
            let made = Sha256::new()
                .chain_update(self.seed)
                .chain_update(call.to_be_bytes())
                .chain_update(block.to_be_bytes())
                .finalize();
            part.copy_from_slice(&made[..part.len()]);
        }
        Ok(())
    }
}

/// A store in memory with one customer, `acme`.
pub struct Fixture {
    pub raw: Raw,
    pub room: Strongroom,
    pub acme: Customer,
    pub kms: KmsRegistry,
    pub clock: Arc<TestClock>,
    pub keys: tempfile::TempDir,
}

pub async fn fixture() -> Fixture {
    let keys = tempfile::tempdir().unwrap();
    let clock = TestClock::at("2026-11-22T02:26:13.000000Z");
    let kms = local_kms(keys.path().join("kms"), &clock);
    let raw = Raw::default();
    let (room, acme) = new_store(&raw, &kms, options(&clock)).await;
    Fixture { raw, room, acme, kms, clock, keys }
}

impl Fixture {
    /// The same store as another node sees it: nothing in its caches.
    pub async fn reopen(&self) -> strongroom::Result<Strongroom> {
        Strongroom::open(self.raw.storages(), self.kms.clone(), options(&self.clock)).await
    }

    /// One more customer.
    pub async fn customer(&self, label: &str) -> Customer {
        add_customer(&self.room, label).await
    }
}

pub fn local_kms(directory: PathBuf, clock: &Arc<TestClock>) -> KmsRegistry {
    let entropy = Arc::new(strongroom::system::SystemEntropy);
    registry(Arc::new(InsecureLocalKms::open(directory, clock.clone(), entropy).unwrap()))
}

pub fn registry(kms: Arc<dyn KmsAdmin>) -> KmsRegistry {
    KmsRegistry::new().with(kms)
}

pub fn options(clock: &Arc<TestClock>) -> Options {
    let mut options = Options::new(signer());
    options.clock = clock.clone();
    options
}

/// Makes a store with the customer `acme`.
pub async fn new_store(raw: &Raw, kms: &KmsRegistry, options: Options) -> (Strongroom, Customer) {
    let epoch_key = KeyChoice::New("local".into());
    let (room, made) =
        Strongroom::init(raw.storages(), kms.clone(), epoch_key, &access(), options).await.unwrap();
    assert!(made);
    let acme = add_customer(&room, "acme").await;
    (room, acme)
}

pub async fn add_customer(room: &Strongroom, label: &str) -> Customer {
    let new = NewCustomer::new(label.parse().unwrap(), KeyChoice::New("local".into()));
    room.add_customer(&access(), new).await.unwrap();
    room.customer(&label.parse().unwrap(), access()).await.unwrap()
}

/// The records of the log from commit `from` on. All that was asked for before
/// is in them.
pub async fn records_since(room: &Strongroom, from: u64) -> Vec<Record> {
    room.log().flush().await.unwrap();
    let commits = room.log().commits(from..u64::MAX).await.unwrap();
    let commits: Vec<_> = commits.try_collect().await.unwrap();
    commits.into_iter().flat_map(|commit| commit.into_records()).collect()
}

/// The intents among some records, each with its outcome.
pub fn operations(records: &[Record]) -> Vec<(&Intent, Option<&Outcome>)> {
    let (mut intents, mut outcomes) = (Vec::new(), HashMap::new());
    for record in records {
        match &record.event {
            Event::Intent(intent) => intents.push(intent),
            Event::Outcome(outcome) => {
                assert!(outcomes.insert(outcome.request, outcome).is_none(), "two outcomes of one intent");
            }
            Event::Claim | Event::Shard(_) => {}
            other => panic!("a new event: {other:?}"),
        }
    }
    intents.into_iter().map(|intent| (intent, outcomes.get(&intent.request).copied())).collect()
}

/// Remembers all data keys in the clear.
#[derive(Debug)]
pub struct Wiretap {
    pub kms: InsecureLocalKms,
    pub heard: Arc<Heard>,
}

/// Everything secret that was made, by key service and randomness.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<(String, Vec<u8>)>>);

impl Heard {
    pub fn hear(&self, what: &str, bytes: &[u8]) {
        self.0.lock().unwrap().push((what.to_owned(), bytes.to_vec()));
    }
}

impl Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heard").finish_non_exhaustive()
    }
}

#[async_trait]
impl Kms for Wiretap {
    fn provider(&self) -> &'static str {
        self.kms.provider()
    }

    async fn generate_data_key(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        let made = self.kms.generate_data_key(receipt, key, context).await?;
        self.heard.hear(&told(context), made.plaintext.secret().expose());
        Ok(made)
    }

    async fn decrypt(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        let opened = self.kms.decrypt(receipt, key, wrapped, context).await?;
        self.heard.hear(&told(context), opened.secret().expose());
        Ok(opened)
    }

    async fn describe(&self, key: &KmsKeyId) -> Result<KeyState, KmsError> {
        self.kms.describe(key).await
    }
}

#[async_trait]
impl KmsAdmin for Wiretap {
    async fn create_key(&self, tags: &EncryptionContext) -> Result<KmsKeyId, KmsError> {
        self.kms.create_key(tags).await
    }
}

#[async_trait]
impl KmsDestroyer for Wiretap {
    async fn enable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.kms.enable(key).await
    }

    async fn disable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.kms.disable(key).await
    }

    async fn schedule_deletion(&self, key: &KmsKeyId, days: u32) -> Result<Timestamp, KmsError> {
        self.kms.schedule_deletion(key, days).await
    }

    async fn cancel_deletion(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.kms.cancel_deletion(key).await
    }
}

/// What a data key is for, in one line.
fn told(context: &EncryptionContext) -> String {
    context.pairs().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}
