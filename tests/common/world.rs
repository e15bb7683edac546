//! A store whose storages fail on demand, a KMS that counts and can be taken
//! down, and a clock that is moved by hand.
//!
//! Use it with `#[path = "common/world.rs"] mod world;`, beside `faults`.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

pub mod signer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::log::{ChainReport, verify_chain};
use strongroom::audit::{Event, Intent, KeyUseReceipt, Outcome, Record};
use strongroom::id::{KmsKeyId, Label, RequestId};
use strongroom::kms::local::InsecureLocalKms;
use strongroom::kms::{
    DataKey, EncryptionContext, GeneratedDataKey, KeyState, Kms, KmsAdmin, KmsDestroyer, KmsError,
    KmsErrorKind, KmsRegistry, WrappedDataKey,
};
use strongroom::room::{Customer, KeyChoice, NewCustomer, Options, Strongroom};
use strongroom::store::Storages;
use strongroom::system::SystemEntropy;
use strongroom::time::{Clock, Timestamp};
use tempfile::TempDir;

use crate::faults::FaultStore;
use signer::{authority, signer};

pub fn access() -> Access {
    Access::new(Principal::service("tests").expect("a slug"), Purpose::SystemAdministration)
}

pub fn label(text: &str) -> Label {
    text.parse().expect("a label")
}

pub fn pattern(length: usize) -> Bytes {
    (0..length).map(|index| (index * 7 + index / 251).to_le_bytes()[0]).collect()
}

/// Real time, for what a test prints.
pub fn elapsed() -> Duration {
    strongroom::system::SystemClock.uptime()
}

/// 2026-11-22, and on from there as it is told.
#[derive(Debug, Default)]
pub struct TestClock {
    moved: Mutex<Duration>,
    looks: AtomicU64,
}

impl TestClock {
    pub fn advance(&self, by: Duration) {
        *self.moved.lock().expect("no panic within") += by;
    }

    fn moved(&self) -> Duration {
        *self.moved.lock().expect("no panic within")
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_795_305_600_000_000).expect("in this century").saturating_add(self.moved())
    }

    /// Every look moves it on, as a real clock does.
    fn uptime(&self) -> Duration {
        self.moved() + Duration::from_nanos(self.looks.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a KMS was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KmsCall {
    GenerateDataKey,
    Decrypt,
}

/// The local provider, counted.
#[derive(Debug)]
pub struct TestKms {
    pub inner: InsecureLocalKms,
    calls: Mutex<BTreeMap<(KmsCall, KmsKeyId), Vec<RequestId>>>,
    down: AtomicBool,
    hangs: AtomicBool,
    hurries: AtomicBool,
    /// Where every call's intent must be before the call.
    evidence: Arc<dyn ObjectStore>,
    check_evidence: AtomicBool,
}

impl TestKms {
    /// Calls fail as those to a KMS that does not answer.
    pub fn down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Calls do not end.
    pub fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::SeqCst);
    }

    /// Calls take no longer than they must.
    pub fn hurry(&self) {
        self.hurries.store(true, Ordering::SeqCst);
    }

    /// From now on each call first reads the whole log and panics if its intent
    /// is not there.
    pub fn check_evidence(&self) {
        self.check_evidence.store(true, Ordering::SeqCst);
    }

    /// How often each key was used since the last [`TestKms::forget`].
    pub fn counts(&self) -> BTreeMap<(KmsCall, KmsKeyId), usize> {
        self.calls().iter().map(|(call, requests)| (call.clone(), requests.len())).collect()
    }

    /// How many calls there were.
    pub fn total(&self) -> usize {
        self.calls().values().map(Vec::len).sum()
    }

    /// The request of each call.
    pub fn requests(&self) -> Vec<RequestId> {
        self.calls().values().flatten().copied().collect()
    }

    pub fn forget(&self) {
        self.calls().clear();
    }

    fn calls(&self) -> MutexGuard<'_, BTreeMap<(KmsCall, KmsKeyId), Vec<RequestId>>> {
        self.calls.lock().expect("no panic within")
    }

    async fn enter(&self, call: KmsCall, key: &KmsKeyId, receipt: &KeyUseReceipt) -> Result<(), KmsError> {
        let request = receipt.request();
        receipt.answer().note(Some(&format!("kms-{request}")));
        self.calls().entry((call, key.clone())).or_default().push(request);
        if self.check_evidence.load(Ordering::SeqCst) {
            let found = stored_text(&*self.evidence).await.contains(&format!("\"request\":\"{request}\""));
            assert!(found, "the KMS was called before the intent was durable");
        }
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.down.load(Ordering::SeqCst) {
            return Err(KmsError::new(KmsErrorKind::Unavailable, "the KMS does not answer"));
        }
        if !self.hurries.load(Ordering::SeqCst) {
            // So that callers do meet.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// All commits as text.
async fn stored_text(audit: &dyn ObjectStore) -> String {
    let folder = Path::from("wal");
    let names: Vec<_> = audit.list(Some(&folder)).try_collect().await.expect("memory lists");
    let mut text = String::new();
    for name in names {
        let stored = audit.get(&name.location).await.expect("listed").bytes().await.expect("in memory");
        text.push_str(&String::from_utf8_lossy(&stored));
    }
    text
}

#[async_trait]
impl Kms for TestKms {
    fn provider(&self) -> &'static str {
        self.inner.provider()
    }

    async fn generate_data_key(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        self.enter(KmsCall::GenerateDataKey, key, &receipt).await?;
        self.inner.generate_data_key(receipt, key, context).await
    }

    async fn decrypt(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        self.enter(KmsCall::Decrypt, key, &receipt).await?;
        self.inner.decrypt(receipt, key, wrapped, context).await
    }

    async fn describe(&self, key: &KmsKeyId) -> Result<KeyState, KmsError> {
        self.inner.describe(key).await
    }
}

#[async_trait]
impl KmsAdmin for TestKms {
    async fn create_key(&self, tags: &EncryptionContext) -> Result<KmsKeyId, KmsError> {
        self.inner.create_key(tags).await
    }
}

#[async_trait]
impl KmsDestroyer for TestKms {
    async fn enable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.inner.enable(key).await
    }

    async fn disable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.inner.disable(key).await
    }

    async fn schedule_deletion(&self, key: &KmsKeyId, days: u32) -> Result<Timestamp, KmsError> {
        self.inner.schedule_deletion(key, days).await
    }

    async fn cancel_deletion(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.inner.cancel_deletion(key).await
    }
}

/// Storages, KMS and clock of one store; nodes come and go.
pub struct World {
    pub blobs: FaultStore,
    pub keys: FaultStore,
    pub audit: FaultStore,
    pub kms: Arc<TestKms>,
    pub clock: Arc<TestClock>,
    _directory: TempDir,
}

impl World {
    /// Empty storages in memory.
    pub fn new() -> Self {
        Self::over([FaultStore::memory(), FaultStore::memory(), FaultStore::memory()])
    }

    /// Over these storages of blobs, keys and audit.
    pub fn over([blobs, keys, audit]: [FaultStore; 3]) -> Self {
        let directory = tempfile::tempdir().expect("a directory for tests");
        let clock = Arc::new(TestClock::default());
        let inner = InsecureLocalKms::open(
            directory.path().join("kms"),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::new(SystemEntropy),
        );
        let kms = Arc::new(TestKms {
            inner: inner.expect("a fresh directory"),
            calls: Mutex::default(),
            down: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            hurries: AtomicBool::new(false),
            evidence: audit.inner(),
            check_evidence: AtomicBool::new(false),
        });
        Self { blobs, keys, audit, kms, clock, _directory: directory }
    }

    pub fn storages(&self) -> Storages {
        let shared = |store: &FaultStore| Arc::new(store.clone()) as Arc<dyn ObjectStore>;
        Storages::from_parts(shared(&self.blobs), shared(&self.keys), shared(&self.audit))
    }

    pub fn registry(&self) -> KmsRegistry {
        KmsRegistry::new().with(Arc::clone(&self.kms) as Arc<dyn KmsAdmin>)
    }

    pub fn options(&self) -> Options {
        let mut options = Options::new(signer());
        options.clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        options
    }

    /// Makes the store.
    pub async fn init(&self, options: Options) -> strongroom::Result<Strongroom> {
        let key = KeyChoice::New("local".into());
        Strongroom::init(self.storages(), self.registry(), key, &access(), options)
            .await
            .map(|(room, _)| room)
    }

    /// Another process on the same store.
    pub async fn node(&self, options: Options) -> strongroom::Result<Strongroom> {
        Strongroom::open(self.storages(), self.registry(), options).await
    }

    /// Checks the whole log on what is really stored.
    pub async fn verify_log(&self, room: &Strongroom) -> ChainReport {
        let report = room.verify_log().await.expect("the log can be read");
        assert!(report.is_ok(), "{:#?}", report.findings);
        let mut all = None;
        for shard in room.log_reader().shards().await.expect("the shards can be listed") {
            let of_shard = verify_chain(self.audit.inner(), room.store_id(), shard, authority()).await;
            let of_shard = of_shard.expect("the log verifies");
            let all = all.get_or_insert_with(|| ChainReport { commits: 0, records: 0, ..of_shard.clone() });
            (all.commits, all.records) = (all.commits + of_shard.commits, all.records + of_shard.records);
        }
        all.expect("there is a first shard")
    }
}

/// Adds a customer with a KMS key of its own.
pub async fn add(room: &Strongroom, name: &str) -> strongroom::Result<Customer> {
    let new = NewCustomer::new(label(name), KeyChoice::New("local".into()));
    room.add_customer(&access(), new).await?;
    room.customer(&label(name), access()).await
}

/// Every record there is, oldest first.
pub async fn records(room: &Strongroom) -> Vec<Record> {
    room.log().flush().await.expect("what nobody waits for can be written");
    let entries = room.log_reader().newest(usize::MAX).await.expect("the log can be read");
    entries.into_iter().map(|entry| entry.record).collect()
}

/// Every intent with its outcomes.
pub fn pairs(records: &[Record]) -> Vec<(&Intent, Vec<&Outcome>)> {
    let mut outcomes: BTreeMap<String, Vec<&Outcome>> = BTreeMap::new();
    for record in records {
        if let Event::Outcome(outcome) = &record.event {
            outcomes.entry(outcome.request.to_string()).or_default().push(outcome);
        }
    }
    let intents = records.iter().filter_map(|record| match &record.event {
        Event::Intent(intent) => Some(intent),
        _ => None,
    });
    intents.map(|intent| (intent, outcomes.remove(&intent.request.to_string()).unwrap_or_default())).collect()
}
