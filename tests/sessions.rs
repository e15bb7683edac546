//! A customer whose keys are in its own hand: nodes seal without unwrapping anything, and
//! open within a session, which the KMS ends and not our good will.

mod common;
#[path = "common/faults.rs"]
mod faults;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::ErrorKind;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::{Action, Intent, KeyUseReceipt, OutcomeResult};
use strongroom::envelope::Metadata;
use strongroom::id::{BlobId, KmsKeyId, SessionId};
use strongroom::kms::local::InsecureLocalKms;
use strongroom::kms::{
    DataKey, EncryptionContext, GeneratedDataKey, Grant, GrantId, KeyState, Kms, KmsAdmin, KmsError,
    KmsErrorKind, KmsGrants, KmsRegistry, WrappedDataKey,
};
use strongroom::ring::{GrowthRefusal, Tenancy};
use strongroom::room::{
    ByteRange, Customer, KeyChoice, NewCustomer, Options, SealOptions, Session, SessionState, Strongroom,
};
use strongroom::session::{EndReason, SessionLimits};
use strongroom::system::SystemEntropy;

use common::{Raw, TestClock, access, operations, options, pattern, records_since};
use faults::FaultStore;
use strongroom::store::Storages;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// The local provider, which counts what customers' keys are asked for, and on demand loses
/// what a session asks for.
#[derive(Debug)]
struct Counted {
    kms: InsecureLocalKms,
    unwraps: AtomicUsize,
    makes: AtomicUsize,
    /// Refuses to unwrap anything of a customer's.
    refuses: AtomicBool,
    grants_fail: AtomicBool,
    retiring_fails: AtomicBool,
}

impl Counted {
    fn taken(&self) -> (usize, usize) {
        (self.makes.swap(0, SeqCst), self.unwraps.swap(0, SeqCst))
    }
}

fn down() -> KmsError {
    KmsError::new(KmsErrorKind::Unavailable, "the KMS does not answer")
}

#[async_trait]
impl Kms for Counted {
    fn provider(&self) -> &'static str {
        "local"
    }

    async fn generate_data_key(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        self.makes.fetch_add(usize::from(!context.is_of_epoch()), SeqCst);
        self.kms.generate_data_key(receipt, key, context).await
    }

    async fn decrypt(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        if !context.is_of_epoch() {
            self.unwraps.fetch_add(1, SeqCst);
            if self.refuses.load(SeqCst) {
                return Err(KmsError::new(KmsErrorKind::KeyUnavailable, "kms:Decrypt is denied"));
            }
        }
        self.kms.decrypt(receipt, key, wrapped, context).await
    }

    async fn describe(&self, key: &KmsKeyId) -> Result<KeyState, KmsError> {
        self.kms.describe(key).await
    }
}

#[async_trait]
impl KmsAdmin for Counted {
    async fn create_key(&self, tags: &EncryptionContext) -> Result<KmsKeyId, KmsError> {
        self.kms.create_key(tags).await
    }
}

#[async_trait]
impl KmsGrants for Counted {
    async fn check_fit(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.kms.check_fit(key).await
    }

    async fn create_grant(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        grant: &Grant,
    ) -> Result<GrantId, KmsError> {
        let made = self.kms.create_grant(receipt, key, grant).await;
        // As where only the answer was lost.
        if self.grants_fail.load(SeqCst) { Err(down()) } else { made }
    }

    async fn retire_grants(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        session: SessionId,
    ) -> Result<usize, KmsError> {
        if self.retiring_fails.load(SeqCst) {
            return Err(down());
        }
        self.kms.retire_grants(receipt, key, session).await
    }

    async fn grants(&self, key: &KmsKeyId) -> Result<Vec<SessionId>, KmsError> {
        self.kms.grants(key).await
    }
}

/// A store with the customer `acme`, whose keys are in its own hand.
struct World {
    raw: Raw,
    room: Strongroom,
    kms: Arc<Counted>,
    clock: Arc<TestClock>,
    key: KmsKeyId,
    _directory: tempfile::TempDir,
}

fn reader() -> Access {
    Access::new(Principal::service("reader").unwrap(), Purpose::Treatment)
}

fn officer() -> Access {
    Access::new(Principal::person("officer").unwrap(), Purpose::Operations)
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut NewCustomer)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = TestClock::at("2026-11-22T02:26:13.000000Z");
        let kms = Arc::new(Counted {
            kms: local(directory.path().join("kms"), &clock),
            unwraps: AtomicUsize::new(0),
            makes: AtomicUsize::new(0),
            refuses: AtomicBool::new(false),
            grants_fail: AtomicBool::new(false),
            retiring_fails: AtomicBool::new(false),
        });
        let raw = Raw::default();
        let epoch_key = KeyChoice::New("local".into());
        let (room, _) =
            Strongroom::init(raw.storages(), registry(&kms), epoch_key, &access(), options(&clock))
                .await
                .unwrap();
        let mut new = NewCustomer::new("acme".parse().unwrap(), KeyChoice::New("local".into()));
        new.tenancy = Tenancy::Customer;
        change(&mut new);
        let info = room.add_customer(&access(), new).await.unwrap();
        assert_eq!(info.tenancy, Tenancy::Customer);
        kms.taken();
        Self { raw, room, kms, clock, key: info.kms_key, _directory: directory }
    }

    /// Another node, with nothing in its memory.
    async fn node(&self) -> Strongroom {
        self.node_with(registry(&self.kms), options(&self.clock)).await
    }

    async fn node_with(&self, kms: KmsRegistry, options: Options) -> Strongroom {
        Strongroom::open(self.raw.storages(), kms, options).await.unwrap()
    }

    async fn session(&self) -> Session {
        let acme = acme(&self.room, reader()).await;
        self.room.open_session(&officer(), acme.id(), SessionLimits::DEFAULT).await.unwrap()
    }
}

fn local(path: PathBuf, clock: &Arc<TestClock>) -> InsecureLocalKms {
    InsecureLocalKms::open(path, clock.clone(), Arc::new(SystemEntropy)).unwrap()
}

fn registry(kms: &Arc<Counted>) -> KmsRegistry {
    KmsRegistry::new().with(kms.clone()).with_grants(kms.clone())
}

async fn acme(room: &Strongroom, access: Access) -> Customer {
    room.customer(&"acme".parse().unwrap(), access).await.unwrap()
}

async fn seal(customer: &Customer, text: &str) -> BlobId {
    let named = Metadata::new().with_name(text.parse().unwrap());
    let options = SealOptions::new().metadata(named);
    customer.seal(text.as_bytes().to_vec(), options).await.unwrap().id
}

async fn open(customer: &Customer, blob: BlobId) -> Result<Vec<u8>, ErrorKind> {
    let opened = customer.open(blob).await.map_err(|error| error.kind())?;
    opened.bytes(1 << 20).await.map(|bytes| bytes.to_vec()).map_err(|error| error.kind())
}

/// How what was asked for of `action` ended, and in which session, since a commit.
async fn outcomes(room: &Strongroom, from: u64, action: Action) -> Vec<(Option<SessionId>, OutcomeResult)> {
    let records = records_since(room, from).await;
    let of = |intent: &&Intent| intent.action == action;
    let found = operations(&records).into_iter().filter(|(intent, _)| of(intent));
    found.map(|(intent, outcome)| (intent.session, outcome.unwrap().result)).collect()
}

#[tokio::test]
async fn out_of_session_it_seals_and_unwraps_nothing() {
    let world = World::new().await;
    world.kms.refuses.store(true, SeqCst);
    // The node that made the ring has its key; one that begins anew mints its own.
    let mut blobs = vec![seal(&acme(&world.room, reader()).await, "first").await];
    assert_eq!(world.kms.taken(), (0, 0));
    for _ in 0..2 {
        let node = world.node().await;
        let acme = acme(&node, reader()).await;
        let before = acme.info().await.unwrap();
        for text in ["one", "two", "three"] {
            blobs.push(seal(&acme, text).await);
        }
        blobs.push(acme.seal(vec![7; 1000], SealOptions::new()).await.unwrap().id);
        // One data key, however many blobs there are, and none for names.
        assert_eq!(world.kms.taken(), (1, 0));
        let after = acme.info().await.unwrap();
        assert_eq!((after.keys, after.ring_version), (before.keys + 1, before.ring_version + 1));
        // What it has in memory seals, and opens nothing.
        for blob in &blobs {
            assert_eq!(open(&acme, *blob).await, Err(ErrorKind::Denied));
        }
        assert_eq!(world.kms.taken(), (0, 0));

        // A new term, a new key.
        world.clock.pass(12 * HOUR);
        blobs.push(seal(&acme, "later").await);
        assert_eq!(world.kms.taken(), (1, 0));
    }

    // Within a session all of it opens, by whatever key, and every name is found.
    world.kms.refuses.store(false, SeqCst);
    let session = world.session().await;
    let node = world.node().await;
    let acme = acme(&node, reader().within(session.id)).await;
    for blob in &blobs {
        assert!(open(&acme, *blob).await.is_ok());
    }
    assert_eq!(acme.find(&"one".parse().unwrap()).await.unwrap().len(), 2);
    assert_eq!(acme.newest(&"first".parse().unwrap()).await.unwrap().id, blobs[0]);
    // And what is sealed in it is sealed with the keys that are there.
    let before = acme.info().await.unwrap();
    seal(&acme, "inside").await;
    assert_eq!(acme.info().await.unwrap().keys, before.keys);
}

#[tokio::test]
async fn strict_accountability_seals_out_of_session_too() {
    let world = World::with(|new| new.strict = true).await;
    world.kms.refuses.store(true, SeqCst);
    let node = world.node().await;
    let blob = seal(&acme(&node, reader()).await, "x").await;
    // One for the day, one for the blob.
    assert_eq!(world.kms.taken(), (2, 0));
    world.kms.refuses.store(false, SeqCst);
    let session = world.session().await;
    assert_eq!(open(&acme(&node, reader().within(session.id)).await, blob).await.unwrap(), b"x");
}

/// Each program that starts adds a key of its own to the ring, 64 of them a day, and what comes after
/// them is told to let a daemon seal.
#[tokio::test]
async fn the_65th_own_key_of_a_day_is_refused() {
    let world = World::new().await;
    let mut programs = Vec::new();
    for number in 0..64 {
        let node = world.node().await;
        seal(&acme(&node, reader()).await, &number.to_string()).await;
        programs.push(node);
    }
    assert_eq!(world.kms.taken(), (64, 0));
    let before = acme(&world.node().await, reader()).await.info().await.unwrap();
    assert_eq!(before.keys, 32 + 64);
    for _ in 0..3 {
        let node = world.node().await;
        let refused = acme(&node, reader()).await.seal(pattern(1), SealOptions::new()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
        assert!(refused.to_string().contains("let a daemon seal"), "{refused}");
        let cause = std::error::Error::source(&refused).and_then(|cause| cause.downcast_ref());
        assert_eq!(cause, Some(&GrowthRefusal::TooManyOwnKeys));
    }
    // Nothing was asked for, and nothing written.
    assert_eq!(world.kms.taken(), (0, 0));
    assert_eq!(acme(&world.node().await, reader()).await.info().await.unwrap(), before);

    // Whoever has a key goes on with it, and a session seals with the keys that are there.
    seal(&acme(&programs[0], reader()).await, "more").await;
    let session = world.session().await;
    seal(&acme(&world.node().await, reader().within(session.id)).await, "inside").await;
    assert_eq!(acme(&world.node().await, reader()).await.info().await.unwrap(), before);
    // The next day has its own.
    world.clock.pass(24 * HOUR);
    seal(&acme(&world.node().await, reader()).await, "tomorrow").await;
}

/// A name is found with the same KMS calls and requests whatever the number of programs that sealed.
#[tokio::test]
async fn names_are_found_in_constant_work() {
    let mut costs = Vec::new();
    for programs in [1, 8, 60] {
        let world = World::new().await;
        for number in 0..programs {
            seal(&acme(&world.node().await, reader()).await, &number.to_string()).await;
        }
        let last = seal(&acme(&world.node().await, reader()).await, "nightly").await;
        let session = world.session().await;
        let Raw { blobs, keys, audit } = world.raw.clone();
        let stores = [FaultStore::new(blobs), FaultStore::new(keys), FaultStore::new(audit)];
        let [blobs, keys, audit] = stores.each_ref().map(|store| Arc::new(store.clone()));
        let storages = Storages::from_parts(blobs, keys, audit);
        let node = Strongroom::open(storages, registry(&world.kms), options(&world.clock)).await.unwrap();
        let acme = acme(&node, reader().within(session.id)).await;
        acme.info().await.unwrap();
        stores.iter().for_each(FaultStore::reset_counts);
        world.kms.taken();
        assert_eq!(acme.find(&"nightly".parse().unwrap()).await.unwrap(), [last]);
        node.log().flush().await.unwrap();
        let requests: Vec<u64> = stores.iter().take(2).map(FaultStore::requests).collect();
        costs.push((world.kms.taken(), requests));
        assert_eq!(acme.newest(&"nightly".parse().unwrap()).await.unwrap().id, last);
    }
    assert_eq!(costs[0].0, (0, 0), "a name takes no KMS call");
    assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
}

#[tokio::test]
async fn nothing_is_seen_outside_a_session_and_the_attempt_is_on_record() {
    let world = World::new().await;
    let blob = seal(&acme(&world.room, reader()).await, "x").await;
    let never = SessionId::from_bytes([9; 16]);
    let ended = world.session().await;
    let id = acme(&world.room, reader()).await.id();
    world.room.end_session(&officer(), id, ended.id).await.unwrap();
    let head = world.room.log().head().next();
    for access in [reader(), reader().within(never), reader().within(ended.id)] {
        let acme = acme(&world.room, access.clone()).await;
        assert_eq!(open(&acme, blob).await, Err(ErrorKind::Denied));
        let kinds = [
            acme.open_range(blob, ByteRange::From(0)).await.map(drop),
            acme.stat(blob).await.map(drop),
            acme.stat_listed(blob).await.map(drop),
            acme.verify(blob).await.map(drop),
            acme.find(&"x".parse().unwrap()).await.map(drop),
            acme.newest(&"x".parse().unwrap()).await.map(drop),
            acme.list().try_collect::<Vec<_>>().await.map(drop),
            acme.extend(blob, blob.day().plus(100)).await.map(drop),
        ];
        for (index, result) in kinds.into_iter().enumerate() {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Denied, "{index}");
        }
    }
    for action in [Action::Open, Action::OpenRange, Action::Stat, Action::Verify] {
        let found = outcomes(&world.room, head, action).await;
        let expected = [None, Some(never), Some(ended.id)].map(|id| (id, OutcomeResult::Denied));
        assert_eq!(found, expected, "{action:?}");
    }
    // A lookup by name twice, and a list by id and by listing.
    for (action, times) in [(Action::Find, 6), (Action::List, 6)] {
        let found = outcomes(&world.room, head, action).await;
        assert_eq!(found.len(), times, "{action:?}");
        assert!(found.iter().all(|(_, result)| *result == OutcomeResult::Denied));
    }
    assert_eq!(world.kms.unwraps.load(SeqCst), 0, "no key was asked for");
}

#[tokio::test]
async fn a_session_opens_and_its_end_closes_at_the_kms_too() {
    let world = World::new().await;
    let blob = seal(&acme(&world.room, reader()).await, "x").await;
    let head = world.room.log().head().next();
    let session = world.session().await;
    assert_eq!((session.state, session.only.clone()), (SessionState::Open, None));
    assert_eq!(session.expires, session.opened.saturating_add(8 * HOUR));
    assert_eq!(world.kms.grants(&world.key).await.unwrap(), [session.id]);
    let acme = acme(&world.room, reader().within(session.id)).await;
    assert_eq!(open(&acme, blob).await.unwrap(), b"x");
    assert_eq!(acme.stat(blob).await.unwrap().bytes, 1);
    assert_eq!(acme.list().try_collect::<Vec<_>>().await.unwrap().len(), 1);
    // A blob that was sealed by the node's own key opens by what the KMS unwraps.
    assert_eq!(world.kms.taken().1, 1);

    // At once on the node that ends it, whatever is cached there.
    let ended = world.room.end_session(&officer(), acme.id(), session.id).await.unwrap();
    assert_eq!(ended.state, SessionState::Over(EndReason::Asked));
    assert_eq!(open(&acme, blob).await, Err(ErrorKind::Denied));
    assert!(world.kms.grants(&world.key).await.unwrap().is_empty());
    // Ending it twice is no error, and changes nothing.
    let again = world.room.end_session(&officer(), acme.id(), session.id).await.unwrap();
    assert_eq!(again.state, ended.state);
    let opened = outcomes(&world.room, head, Action::SessionOpen).await;
    assert_eq!(opened, [(Some(session.id), OutcomeResult::Ok)]);
    let ended = outcomes(&world.room, head, Action::SessionEnd).await;
    assert_eq!(ended, [(Some(session.id), OutcomeResult::Ok); 2]);
    let unknown = SessionId::from_bytes([9; 16]);
    let missing = world.room.end_session(&officer(), acme.id(), unknown).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);

    // Another session is another grant, and the first stays over.
    let second = world.session().await;
    assert_eq!(open(&acme, blob).await, Err(ErrorKind::Denied));
    let listed = world.room.sessions(&officer(), acme.id()).await.unwrap();
    let states: Vec<_> = listed.iter().map(|session| session.state).collect();
    assert_eq!(listed.len(), 2);
    assert!(states.contains(&SessionState::Open) && states.contains(&SessionState::Over(EndReason::Asked)));
    assert!(listed.contains(&second));
}

/// Whoever has the epoch's data key could make a paper that opens: nobody vouched for it.
#[tokio::test]
async fn a_session_whose_paper_nobody_vouched_for_opens_nothing() {
    let world = World::new().await;
    let blob = seal(&acme(&world.room, reader()).await, "x").await;
    let session = world.session().await;
    let within = reader().within(session.id);
    assert_eq!(open(&acme(&world.node().await, within.clone()).await, blob).await.unwrap(), b"x");
    let customer = acme(&world.room, reader()).await.id();
    let folder = Path::from(format!("voucher/{customer}-{}", session.id));
    let vouchers: Vec<Path> =
        world.raw.audit.list(Some(&folder)).map_ok(|meta| meta.location).try_collect().await.unwrap();
    assert_eq!(vouchers.len(), 1, "the paper that opens it");
    for path in vouchers {
        world.raw.audit.delete(&path).await.unwrap();
    }
    let head = world.room.log().head().next();
    let node = world.node().await;
    assert_eq!(open(&acme(&node, within).await, blob).await, Err(ErrorKind::Integrity));
    assert!(!outcomes(&node, head, Action::KeysRead).await.is_empty(), "it is on record");
}

/// What a node believes is one thing, and what the KMS does another.
#[tokio::test]
async fn the_kms_refuses_without_a_grant_whatever_a_node_believes() {
    let world = World::new().await;
    let blob = seal(&acme(&world.room, reader()).await, "x").await;
    let session = world.session().await;
    // As if the customer took the grant away in its own console.
    let grants = &world.kms.kms;
    let key = &world.key;
    let head = world.room.log().head().next();
    let receipt = || async {
        let intent = Intent::new(world.room.log().request_id().unwrap(), &officer(), Action::SessionEnd);
        let (open, receipt) = world.room.log().begin(intent).await.unwrap();
        open.record(OutcomeResult::Ok, None);
        receipt
    };
    assert_eq!(grants.retire_grants(receipt().await, key, session.id).await.unwrap(), 1);
    // Else the other writes in a shard of its own.
    world.room.log().flush().await.unwrap();
    let node = world.node().await;
    let acme = acme(&node, reader().within(session.id)).await;
    assert_eq!(open(&acme, blob).await, Err(ErrorKind::KeyUnavailable));
    assert_eq!(
        outcomes(&node, head, Action::KmsDecrypt).await.last().unwrap(),
        &(Some(session.id), OutcomeResult::KeyUnavailable)
    );

    // A grant for another customer or store lets nothing through here.
    let id = acme.id();
    for grant in [
        Grant {
            store: node.store_id(),
            customer: strongroom::id::CustomerId::from_bytes([1; 16]),
            session: session.id,
        },
        Grant { store: strongroom::id::StoreId::from_bytes([1; 16]), customer: id, session: session.id },
    ] {
        grants.create_grant(receipt().await, key, &grant).await.unwrap();
        assert_eq!(open(&acme, blob).await, Err(ErrorKind::KeyUnavailable));
        grants.retire_grants(receipt().await, key, session.id).await.unwrap();
    }
    let own = Grant { store: node.store_id(), customer: id, session: session.id };
    grants.create_grant(receipt().await, key, &own).await.unwrap();
    assert_eq!(open(&acme, blob).await.unwrap(), b"x");
}

#[tokio::test]
async fn another_node_stops_within_the_check_and_drops_its_keys() {
    let world = World::new().await;
    let blob = seal(&acme(&world.room, reader()).await, "x").await;
    let session = world.session().await;
    let node = world.node().await;
    let theirs = acme(&node, reader().within(session.id)).await;
    assert_eq!(open(&theirs, blob).await.unwrap(), b"x");
    world.room.end_session(&officer(), theirs.id(), session.id).await.unwrap();
    // It has the key, and looked a moment ago.
    assert_eq!(open(&theirs, blob).await.unwrap(), b"x");
    world.clock.pass(5 * SECOND);
    assert_eq!(open(&theirs, blob).await, Err(ErrorKind::Denied));
    // It dropped the key: in the next session the KMS is asked again.
    world.kms.taken();
    let second = world.session().await;
    assert_eq!(open(&acme(&node, reader().within(second.id)).await, blob).await.unwrap(), b"x");
    assert_eq!(world.kms.taken(), (0, 1));
}

#[tokio::test]
async fn a_stream_in_flight_ends_within_the_check() {
    let world = World::new().await;
    let content = pattern(20 << 20);
    let writer = acme(&world.room, reader()).await;
    let blob = writer.seal(content.clone(), SealOptions::new()).await.unwrap().id;
    let node = world.node().await;
    let session = world.session().await;
    let head = world.room.log().head().next();
    let theirs = acme(&node, reader().within(session.id)).await;
    let mut stream = theirs.open(blob).await.unwrap().into_stream();
    let mut seen = stream.try_next().await.unwrap().unwrap().to_vec();
    world.room.end_session(&officer(), theirs.id(), session.id).await.unwrap();
    world.clock.pass(5 * SECOND);
    let error = loop {
        match stream.try_next().await {
            Ok(Some(piece)) => seen.extend_from_slice(&piece),
            Ok(None) => panic!("it went on to the end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(stream.try_next().await.unwrap().is_none(), "nothing follows");
    assert!(!seen.is_empty() && seen.len() < content.len() && content.starts_with(&seen));
    node.log().flush().await.unwrap();
    let records = records_since(&world.room, head).await;
    let found = operations(&records);
    let (_, outcome) = found.iter().find(|(intent, _)| intent.action == Action::Open).unwrap();
    let outcome = outcome.unwrap();
    assert_eq!(outcome.result, OutcomeResult::Denied);
    assert_eq!(outcome.bytes, Some(u64::try_from(seen.len()).unwrap()), "what left is on record");
}

#[tokio::test]
async fn a_session_is_over_by_the_clock_and_whoever_notices_ends_it() {
    for (step, times, why) in [(15 * MINUTE, 1, EndReason::Idle), (14 * MINUTE, 35, EndReason::Expired)] {
        let world = World::new().await;
        let blob = seal(&acme(&world.room, reader()).await, "x").await;
        let session = world.session().await;
        let acme = acme(&world.room, reader().within(session.id)).await;
        let mut open_for = 0;
        for _ in 0..times {
            world.clock.pass(step);
            match open(&acme, blob).await {
                Ok(_) => open_for += 1,
                Err(kind) => {
                    assert_eq!(kind, ErrorKind::Denied);
                    break;
                }
            }
        }
        // 34 times 14 minutes is less than 8 hours, and 35 times is more.
        assert_eq!(open_for, times - 1);
        let listed = world.room.sessions(&officer(), acme.id()).await.unwrap();
        assert_eq!(listed[0].state, SessionState::Over(why));
        assert!(world.kms.grants(&world.key).await.unwrap().is_empty(), "the grant went with it");
        let ended = outcomes(&world.room, 0, Action::SessionEnd).await;
        assert_eq!(ended, [(Some(session.id), OutcomeResult::Ok)]);
    }
}

/// A node that serves keeps the session open for one that does not.
#[tokio::test]
async fn uses_on_one_node_count_on_another() {
    let world = World::new().await;
    let blob = seal(&acme(&world.room, reader()).await, "x").await;
    let session = world.session().await;
    let (one, two) = (world.node().await, world.node().await);
    let theirs = acme(&one, reader().within(session.id)).await;
    let others = acme(&two, reader().within(session.id)).await;
    open(&others, blob).await.unwrap();
    for _ in 0..4 {
        world.clock.pass(10 * MINUTE);
        open(&theirs, blob).await.unwrap();
    }
    world.clock.pass(10 * MINUTE);
    assert_eq!(open(&others, blob).await.unwrap(), b"x");
    // Not more than one mark a minute, however many uses.
    let marks = || async {
        let all = common::objects(&world.raw.keys).await;
        all.iter().filter(|(path, _)| path.as_ref().contains("/use/")).count()
    };
    let before = marks().await;
    for _ in 0..100 {
        open(&theirs, blob).await.unwrap();
    }
    assert!(marks().await <= before + 1);
}

#[tokio::test]
async fn the_sweep_ends_what_is_over_and_takes_stray_grants_away() {
    let world = World::new().await;
    let id = acme(&world.room, reader()).await.id();
    let idle = world.session().await;
    // Somebody's answer was lost, and the end of it too: a grant that no session has.
    world.kms.grants_fail.store(true, SeqCst);
    world.kms.retiring_fails.store(true, SeqCst);
    let failed = world.room.open_session(&officer(), id, SessionLimits::DEFAULT).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unavailable);
    world.kms.grants_fail.store(false, SeqCst);
    assert_eq!(world.kms.grants(&world.key).await.unwrap().len(), 2);
    // An end that could not be finished at the KMS is an end for all nodes.
    let ended = world.session().await;
    let failed = world.room.end_session(&officer(), id, ended.id).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unavailable);
    let states = world.room.sessions(&officer(), id).await.unwrap();
    assert_eq!(states.iter().filter(|session| session.state == SessionState::Open).count(), 1);
    world.kms.retiring_fails.store(false, SeqCst);

    let node = world.node().await;
    let swept = node.end_overdue_sessions(&access()).await.unwrap();
    assert_eq!(swept.len(), 1);
    let gone = swept[&id].as_ref().unwrap();
    assert!(gone.len() == 2 && gone.contains(&ended.id) && !gone.contains(&idle.id));
    assert_eq!(world.kms.grants(&world.key).await.unwrap(), [idle.id]);

    world.clock.pass(15 * MINUTE);
    let swept = node.end_overdue_sessions(&access()).await.unwrap();
    assert_eq!(swept[&id].as_ref().unwrap().iter().collect::<Vec<_>>(), [&idle.id]);
    assert!(world.kms.grants(&world.key).await.unwrap().is_empty());
    assert!(node.end_overdue_sessions(&access()).await.unwrap()[&id].as_ref().unwrap().is_empty());
}

#[tokio::test]
async fn an_access_request_lets_one_principal_in_for_one_purpose() {
    let world = World::new().await;
    let blob = seal(&acme(&world.room, reader()).await, "x").await;
    let id = acme(&world.room, reader()).await.id();
    let room = &world.room;
    let asked = room.request_access(&reader(), id, SessionLimits::DEFAULT).await.unwrap();
    let within = |access: Access| access.within(asked);
    assert_eq!(open(&acme(room, within(reader())).await, blob).await, Err(ErrorKind::Denied), "asked only");
    let listed = room.access_requests(&officer(), id).await.unwrap();
    assert_eq!((listed.len(), listed[0].id), (1, asked));
    assert_eq!(
        (&listed[0].guest.principal, listed[0].guest.purpose),
        (&reader().principal, Purpose::Treatment)
    );

    let own = room.approve_access(&reader(), id, asked).await.unwrap_err();
    assert_eq!(own.kind(), ErrorKind::Denied);
    let session = room.approve_access(&officer(), id, asked).await.unwrap();
    assert_eq!((session.id, session.only.as_ref()), (asked, Some(&listed[0].guest)));
    assert!(room.access_requests(&officer(), id).await.unwrap().is_empty());
    assert_eq!(open(&acme(room, within(reader())).await, blob).await.unwrap(), b"x");
    let another = Access::new(Principal::service("another").unwrap(), Purpose::Treatment);
    let elsewhy = Access::new(reader().principal, Purpose::Research);
    for access in [another, elsewhy] {
        assert_eq!(open(&acme(room, within(access)).await, blob).await, Err(ErrorKind::Denied));
    }
    let again = room.approve_access(&officer(), id, asked).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Denied, "approved once");
    let all =
        [OutcomeResult::Denied, OutcomeResult::Ok, OutcomeResult::Denied].map(|result| (Some(asked), result));
    assert_eq!(outcomes(room, 0, Action::AccessApprove).await, all);
    assert_eq!(outcomes(room, 0, Action::AccessRequest).await, [(Some(asked), OutcomeResult::Ok)]);

    // What nobody asked for, and what was asked for too long ago.
    let unknown = room.approve_access(&officer(), id, SessionId::from_bytes([9; 16])).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    let late = room.request_access(&reader(), id, SessionLimits::DEFAULT).await.unwrap();
    world.clock.pass(7 * 24 * HOUR + SECOND);
    assert!(room.access_requests(&officer(), id).await.unwrap().is_empty());
    let refused = room.approve_access(&officer(), id, late).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn the_keys_storage_makes_no_session() {
    let world = World::new().await;
    let blob = seal(&acme(&world.room, reader()).await, "x").await;
    let session = world.session().await;
    let keys = &world.raw.keys;
    let paper = |id: SessionId| {
        let customer = session.customer;
        object_store::path::Path::from(format!("session/{customer}/{id}/open"))
    };
    let good = common::read(keys, &paper(session.id)).await;
    // Under another id, and altered under its own.
    let copied = SessionId::from_bytes([9; 16]);
    common::write(keys, &paper(copied), good.clone()).await;
    let node = world.node().await;
    let refused = open(&acme(&node, reader().within(copied)).await, blob).await;
    assert_eq!(refused, Err(ErrorKind::Integrity));
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    common::write(keys, &paper(session.id), bad).await;
    let refused = open(&acme(&node, reader().within(session.id)).await, blob).await;
    assert_eq!(refused, Err(ErrorKind::Integrity));
    common::write(keys, &paper(session.id), good).await;
    assert_eq!(open(&acme(&node, reader().within(session.id)).await, blob).await.unwrap(), b"x");
}

#[tokio::test]
async fn what_cannot_have_sessions_says_so() {
    let world = World::new().await;
    let room = &world.room;
    let new = NewCustomer::new("held".parse().unwrap(), KeyChoice::New("local".into()));
    let held = room.add_customer(&access(), new).await.unwrap();
    let limits = SessionLimits::DEFAULT;
    assert_eq!(
        room.open_session(&officer(), held.id, limits).await.unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let id = acme(room, reader()).await.id();
    let endless = SessionLimits { absolute: 48 * HOUR, ..limits };
    assert_eq!(room.open_session(&officer(), id, endless).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    // A key that unwraps without a grant is not put into a customer's hand.
    let mut new = NewCustomer::new("loose".parse().unwrap(), KeyChoice::Existing(held.kms_key));
    new.tenancy = Tenancy::Customer;
    assert_eq!(room.add_customer(&access(), new).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    // Where no grants are made, sessions are opened elsewhere.
    let without = world.node_with(KmsRegistry::new().with(world.kms.clone()), options(&world.clock)).await;
    let refused = without.open_session(&officer(), id, limits).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Configuration);
    // And within one that was, such a node opens.
    let blob = seal(&acme(&without, reader()).await, "x").await;
    let session = world.session().await;
    assert_eq!(open(&acme(&without, reader().within(session.id)).await, blob).await.unwrap(), b"x");
}

/// What was seen: after one `put` of a host that was ahead, a session of one minute was open for ever.
#[tokio::test]
async fn a_log_that_is_ahead_keeps_no_session_open() {
    let minute = SessionLimits { idle: MINUTE, absolute: MINUTE };
    for ahead in [30 * MINUTE, 20 * 24 * HOUR] {
        let world = World::new().await;
        let blob = seal(&acme(&world.room, reader()).await, "x").await;
        let wrong = TestClock::at("2026-11-22T02:26:13.000000Z");
        wrong.pass(ahead);
        let options = options(&wrong);
        let far = world.node_with(registry(&world.kms), options).await;
        seal(&acme(&far, reader()).await, "y").await;
        // Two programs that begin afterwards, and one that was there.
        let room = world.node().await;
        assert_eq!(room.log().ahead().as_secs(), ahead.as_secs());
        let id = acme(&room, reader()).await.id();
        let session = room.open_session(&officer(), id, minute).await.unwrap();
        for node in [&room, &world.node().await, &world.room] {
            assert_eq!(open(&acme(node, reader().within(session.id)).await, blob).await.unwrap(), b"x");
        }
        world.clock.pass(MINUTE + 10 * SECOND);
        for node in [&room, &world.node().await, &world.room, &far] {
            let within = acme(node, reader().within(session.id)).await;
            assert_eq!(open(&within, blob).await, Err(ErrorKind::Denied), "{ahead:?}");
        }
    }
}

/// A session does not last longer because a host's clock goes back: what passed, passed.
#[tokio::test]
async fn a_clock_that_goes_back_keeps_no_session_open() {
    let world = World::new().await;
    let blob = seal(&acme(&world.room, reader()).await, "x").await;
    let id = acme(&world.room, reader()).await.id();
    let limits = SessionLimits { idle: HOUR, absolute: HOUR };
    let begin = strongroom::time::Clock::now(&*world.clock);
    let session = world.room.open_session(&officer(), id, limits).await.unwrap();
    let within = acme(&world.room, reader().within(session.id)).await;
    for _ in 0..5 {
        // By uptime, in the program that saw it begin.
        assert!(open(&within, blob).await.is_ok());
        world.clock.pass(11 * MINUTE);
        world.clock.set(begin);
    }
    world.clock.pass(6 * MINUTE);
    world.clock.set(begin);
    assert_eq!(open(&within, blob).await, Err(ErrorKind::Denied));

    // By the log, over programs that come and go: each has used what it opened at its time.
    let session = world.room.open_session(&officer(), id, limits).await.unwrap();
    for minutes in [20, 50, 61] {
        world.clock.set(begin);
        world.clock.pass(minutes * MINUTE);
        let node = world.node().await;
        acme(&node, reader()).await.info().await.unwrap();
        world.clock.set(begin);
        let node = world.node().await;
        let opened = open(&acme(&node, reader().within(session.id)).await, blob).await;
        assert_eq!(opened.is_ok(), minutes < 60, "{minutes}");
    }
}

/// What one that is ahead opened is of no use to others, and nothing of theirs depends on it.
#[tokio::test]
async fn a_session_that_begins_later_opens_nothing() {
    let world = World::new().await;
    let blob = seal(&acme(&world.room, reader()).await, "x").await;
    let wrong = TestClock::at("2026-11-22T02:26:13.000000Z");
    wrong.pass(10 * MINUTE);
    let far = world.node_with(registry(&world.kms), options(&wrong)).await;
    let id = acme(&far, reader()).await.id();
    let session = far.open_session(&officer(), id, SessionLimits::DEFAULT).await.unwrap();
    let within = reader().within(session.id);
    assert!(open(&acme(&far, within.clone()).await, blob).await.is_ok());
    let here = acme(&world.room, within.clone()).await;
    let error = here.open(blob).await.unwrap_err();
    assert!(error.chain().contains("at a later time than this host's clock"), "{}", error.chain());
    assert!(!world.room.is_session_open(&within, id, session.id).await.unwrap());
    // It was not ended for it: when the clock has caught up, it is open.
    world.clock.pass(6 * MINUTE);
    assert!(open(&acme(&world.node().await, within).await, blob).await.is_ok());
    world.room.end_session(&officer(), id, session.id).await.unwrap();
}
