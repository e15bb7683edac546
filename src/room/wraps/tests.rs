//! Paths that live, die and are altered. What drops and holds keys is elsewhere;
//! here the ring is changed directly.

use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::PutPayload;

use super::*;
use crate::access::{Access, Principal, Purpose};
use crate::audit::signer::LocalSigner;
use crate::audit::{Event, Record};
use crate::kms::local::InsecureLocalKms;
use crate::kms::{DataKey, GeneratedDataKey, KeyState, Kms, KmsAdmin, KmsDestroyer, KmsError, KmsRegistry};
use crate::retention::clock::trusted_at;
use crate::retention::permit::permit_expiry;
use crate::ring::{Change, Settings};
use crate::room::{BlobInfo, KeyChoice, NewCustomer, Options, SealOptions, Strongroom};
use crate::store::Storages;
use crate::system::{SystemClock, SystemEntropy};

struct Fixture {
    room: Strongroom,
    acme: Customer,
    kms: Arc<CountedKms>,
    storages: Storages,
    _directory: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let kms = InsecureLocalKms::open(directory.path().join("kms"), clock, entropy).unwrap();
        let kms = Arc::new(CountedKms { kms, calls: Mutex::default() });
        let registry = KmsRegistry::new().with(Arc::clone(&kms) as Arc<dyn KmsAdmin>);
        let signer = Arc::new(LocalSigner::generate(&SystemEntropy).unwrap());
        let access = Access::new(Principal::service("tests").unwrap(), Purpose::SystemAdministration);
        let (storages, local) = (Storages::memory(), || KeyChoice::New("local".into()));
        let options = Options::new(signer);
        let (room, _) =
            Strongroom::init(storages.clone(), registry, local(), &access, options).await.unwrap();
        room.add_customer(&access, NewCustomer::new("acme".parse().unwrap(), local())).await.unwrap();
        let acme = room.customer(&"acme".parse().unwrap(), access).await.unwrap();
        Self { room, acme, kms, storages, _directory: directory }
    }

    async fn seal(&self) -> BlobId {
        self.acme.seal(b"text".to_vec(), SealOptions::new()).await.unwrap().id
    }

    async fn strict(&self) -> Customer {
        let ring = self.acme.ring().await.unwrap();
        self.change(Change::Settings(Settings { strict: true, ..ring.settings.clone() })).await;
        self.acme.clone()
    }

    async fn open(&self, blob: BlobId) -> Result<Bytes> {
        self.acme.open(blob).await?.bytes(100).await
    }

    async fn opens(&self, blob: BlobId) {
        assert_eq!(self.open(blob).await.unwrap(), b"text".as_slice());
    }

    async fn refused(&self, blob: BlobId) -> Error {
        self.open(blob).await.expect_err("it must not open")
    }

    async fn change(&self, change: Change) -> Arc<Ring> {
        self.room.0.keyring.change(self.acme.asker(), self.acme.id, change).await.unwrap()
    }

    /// Drops a key of the ring. Returns the version that no longer has it.
    async fn drop_key(&self, kek: KekId) -> u64 {
        self.pend_key(kek).await;
        self.drop_pended(kek).await
    }

    /// Puts a key into the window, long after any day of these tests.
    async fn pend_key(&self, kek: KekId) {
        let over = trusted_at("2090-01-01T00:00:00.000000Z".parse().unwrap());
        let permit = permit_expiry("2089-12-31".parse().unwrap(), &over).unwrap();
        self.change(Change::Pend { keys: BTreeSet::from([kek]), permit, withdraw: None }).await;
    }

    async fn drop_pended(&self, kek: KekId) -> u64 {
        let time = trusted_at("2091-01-01T00:00:00.000000Z".parse().unwrap());
        self.change(Change::Drop { keys: BTreeSet::from([kek]), time }).await.version
    }

    /// Adds a key to the ring.
    async fn mint(&self, kind: EntryKind) -> KekId {
        let asker = self.acme.asker();
        let entry = self.room.0.keyring.new_entry(asker, self.acme.id, kind).await.unwrap();
        let id = entry.id;
        self.change(Change::Mint { data_keys: Vec::new(), entries: vec![entry] }).await;
        id
    }

    async fn stat(&self, blob: BlobId) -> BlobInfo {
        self.acme.stat(blob).await.unwrap()
    }

    async fn extend(&self, blob: BlobId, days: u32) -> KekId {
        let until = blob.day().plus(days);
        let extended = self.acme.extend(blob, until).await.unwrap();
        assert_eq!(extended, Extended { id: blob, retain_until: until, changed: true });
        self.acme.ring().await.unwrap().day_key(until).unwrap().id
    }

    async fn read(&self, path: &Path) -> Bytes {
        self.storages.blobs.get(path).await.unwrap().bytes().await.unwrap()
    }

    async fn write(&self, path: &Path, bytes: impl Into<PutPayload>) {
        self.storages.blobs.put(path, bytes.into()).await.unwrap();
    }

    async fn intents(&self) -> Vec<Intent> {
        let intent = |record: Record| match record.event {
            Event::Intent(intent) => Some(intent),
            _ => None,
        };
        self.room.log().tail(usize::MAX).await.unwrap().into_iter().filter_map(intent).collect()
    }

    /// The contexts of the calls to the KMS since the last time, one line each.
    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.kms.calls.lock().unwrap())
    }
}

/// The local provider, which tells what it was asked for.
#[derive(Debug)]
struct CountedKms {
    kms: InsecureLocalKms,
    calls: Mutex<Vec<String>>,
}

impl CountedKms {
    fn count(&self, call: &str, key: &KmsKeyId, context: &EncryptionContext) {
        let pairs: Vec<_> = context.pairs().map(|(name, value)| format!("{name}={value}")).collect();
        self.calls.lock().unwrap().push(format!("{call} {key} {}", pairs.join(" ")));
    }
}

#[async_trait]
impl Kms for CountedKms {
    fn provider(&self) -> &'static str {
        self.kms.provider()
    }

    async fn generate_data_key(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        self.count("generate", key, context);
        self.kms.generate_data_key(receipt, key, context).await
    }

    async fn decrypt(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        self.count("decrypt", key, context);
        self.kms.decrypt(receipt, key, wrapped, context).await
    }

    async fn describe(&self, key: &KmsKeyId) -> Result<KeyState, KmsError> {
        self.kms.describe(key).await
    }
}

#[async_trait]
impl KmsAdmin for CountedKms {
    async fn create_key(&self, tags: &EncryptionContext) -> Result<KmsKeyId, KmsError> {
        self.kms.create_key(tags).await
    }
}

#[tokio::test]
async fn an_extended_blob_outlives_its_day_key_and_its_neighbour_does_not() {
    let f = Fixture::new().await;
    let (kept, neighbour) = (f.seal().await, f.seal().await);
    let first = f.stat(kept).await;
    assert_eq!((first.retain_until, first.held), (kept.day(), false));
    let stored = f.read(&layout::blob(f.acme.id, kept)).await;
    let later = f.extend(kept, 400).await;
    let info = f.stat(kept).await;
    assert_eq!((info.retain_until, info.kek), (kept.day().plus(400), first.kek));
    assert_eq!(f.read(&layout::blob(f.acme.id, kept)).await, stored, "the blob itself is as it was");

    let version = f.drop_key(first.kek).await;
    f.opens(kept).await;
    let info = f.stat(kept).await;
    assert_eq!((info.retain_until, info.kek), (kept.day().plus(400), later));
    let gone = f.refused(neighbour).await;
    assert_eq!(gone.kind(), ErrorKind::KeyDestroyed);
    let certificate = certificate_id(f.room.store_id(), f.acme.id, version);
    assert_eq!(gone.certificate(), Some(certificate));
    assert!(gone.to_string().contains(&certificate.to_string()));
    assert_eq!(
        f.acme.extend(neighbour, neighbour.day().plus(9)).await.unwrap_err().certificate(),
        Some(certificate)
    );

    // It can be extended on, from the path that is left; and dies with the last.
    let last = f.extend(kept, 500).await;
    f.drop_key(later).await;
    f.opens(kept).await;
    let version = f.drop_key(last).await;
    let gone = f.refused(kept).await;
    assert_eq!(gone.certificate(), Some(certificate_id(f.room.store_id(), f.acme.id, version)));
}

#[tokio::test]
async fn extending_again_or_to_less_changes_nothing() {
    let f = Fixture::new().await;
    let blob = f.seal().await;
    let path = layout::wrap(f.acme.id, blob, f.extend(blob, 400).await);
    let stands = f.read(&path).await;
    let writes = f.intents().await.iter().filter(|intent| intent.action == Action::Extend).count();
    assert_eq!(writes, 1);
    for days in [400, 399, 0] {
        let again = f.acme.extend(blob, blob.day().plus(days)).await.unwrap();
        assert_eq!(again, Extended { id: blob, retain_until: blob.day().plus(400), changed: false });
    }
    // What the log has of it is said again, for whoever was told that it failed.
    assert_eq!(f.intents().await.iter().filter(|intent| intent.action == Action::Extend).count(), 4);
    assert_eq!(f.read(&path).await, stands);
    let other = f.seal().await;
    assert!(!f.acme.extend(other, other.day()).await.unwrap().changed);
    let missing = BlobId::new(blob.day(), [1; 13]).unwrap();
    assert_eq!(f.acme.extend(missing, blob.day()).await.unwrap_err().kind(), ErrorKind::NotFound);
    let never = Day::from_number(u32::MAX);
    assert_eq!(f.acme.extend(blob, never).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

/// A path whose key is about to be dropped is no promise.
#[tokio::test]
async fn a_pending_key_keeps_nothing_and_wraps_nothing() {
    let f = Fixture::new().await;
    let blob = f.seal().await;
    let later = f.extend(blob, 400).await;
    f.pend_key(later).await;
    let reason = Reason { action: Action::Rewrap, hold: None };
    assert_eq!(rewrap(&f.acme, blob, later, reason).await.unwrap_err().kind(), ErrorKind::Denied);
    let again = f.acme.extend(blob, blob.day().plus(400)).await.unwrap();
    assert!(again.changed);
    let second = f.acme.ring().await.unwrap().day_key(blob.day().plus(400)).unwrap().id;
    assert_ne!(second, later);
    f.drop_pended(later).await;
    assert_eq!(f.stat(blob).await.retain_until, blob.day().plus(400));
}

#[tokio::test]
async fn the_log_names_both_keys_before_either_is_used() {
    let f = Fixture::new().await;
    let blob = f.seal().await;
    let first = f.stat(blob).await.kek;
    let later = f.extend(blob, 3).await;
    let intents = f.intents().await;
    let extend = intents.iter().find(|intent| intent.action == Action::Extend).unwrap();
    assert_eq!((extend.blob, extend.customer), (Some(blob), Some(f.acme.id)));
    assert_eq!(extend.key, Some(KeyRef::Kek { id: later, day: blob.day().plus(3) }));
    let unwrap = intents.iter().find(|intent| intent.action == Action::Rewrap).unwrap();
    assert_eq!((unwrap.cause, unwrap.blob), (Some(extend.request), Some(blob)));
    assert_eq!(unwrap.key, Some(KeyRef::Kek { id: first, day: blob.day() }));
}

/// Also shown: the ring's other days are of no use to a wrap.
#[tokio::test]
async fn no_altered_or_moved_side_object_opens_or_promises_anything() {
    let f = Fixture::new().await;
    let (one, two) = (f.seal().await, f.seal().await);
    let own = f.stat(one).await.kek;
    let later = f.extend(one, 10).await;
    let other = f.extend(two, 11).await;
    let path = layout::wrap(f.acme.id, one, later);
    let good = f.read(&path).await;
    assert_eq!(good.len(), 161);

    // The header's key lives: what is wrong beside it promises nothing.
    let mut bad = good.to_vec();
    bad[160] ^= 1;
    f.write(&path, bad).await;
    f.opens(one).await;
    assert_eq!(f.stat(one).await.retain_until, one.day());
    // Nor does it pass for an extension.
    let failed = f.acme.extend(one, one.day().plus(10)).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Authentication);
    f.write(&path, good.clone()).await;
    assert_eq!(f.stat(one).await.retain_until, one.day().plus(10));

    f.drop_key(own).await;
    for byte in 0..good.len() {
        let mut bad = good.to_vec();
        bad[byte] ^= 1 << (byte % 8);
        f.write(&path, bad).await;
        assert_eq!(f.refused(one).await.kind(), ErrorKind::Authentication, "byte {byte}");
    }
    for bad in
        [Bytes::new(), good.slice(..160), [good.as_ref(), b"x"].concat().into(), vec![0; 100_000].into()]
    {
        f.write(&path, bad).await;
        assert_eq!(f.refused(one).await.kind(), ErrorKind::Authentication);
    }
    let of_two = layout::wrap(f.acme.id, two, other);
    f.write(&path, f.read(&of_two).await).await;
    assert_eq!(f.refused(one).await.kind(), ErrorKind::Authentication, "another blob's");
    f.storages.blobs.delete(&path).await.unwrap();
    f.write(&layout::wrap(f.acme.id, one, other), good.clone()).await;
    assert_eq!(f.refused(one).await.kind(), ErrorKind::Authentication, "below another key");
    f.storages.blobs.delete(&layout::wrap(f.acme.id, one, other)).await.unwrap();
    assert_eq!(f.refused(one).await.kind(), ErrorKind::KeyDestroyed, "hidden");

    // One that does not open does not take another with it.
    f.write(&path, good.clone()).await;
    let last = f.extend(one, 12).await;
    f.opens(one).await;
    f.write(&layout::wrap(f.acme.id, one, last), good.clone()).await;
    f.opens(one).await;
    let mut bad = f.read(&path).await.to_vec();
    bad[130] ^= 1;
    f.write(&path, bad).await;
    assert_eq!(f.refused(one).await.kind(), ErrorKind::Authentication);
}

#[tokio::test]
async fn a_hold_key_keeps_one_blob_when_its_day_dies() {
    let f = Fixture::new().await;
    let (held, neighbour) = (f.seal().await, f.seal().await);
    let day_key = f.stat(held).await.kek;
    let (hold_key, hold) = (f.mint(EntryKind::Hold).await, HoldId::from_bytes([5; 16]));
    let reason = Reason { action: Action::HoldPlace, hold: Some(hold) };
    let wrap = rewrap(&f.acme, held, hold_key, reason).await.unwrap();
    assert_eq!((wrap.day, wrap.binding.kek), (held.day(), hold_key));
    // Run again, it finds what is there.
    assert_eq!(rewrap(&f.acme, held, hold_key, reason).await.unwrap(), wrap);
    let intents = f.intents().await;
    let placed = intents.iter().find(|intent| intent.action == Action::HoldPlace).unwrap();
    assert_eq!((placed.hold, &placed.key), (Some(hold), &Some(KeyRef::HoldKey { id: hold_key })));
    let info = f.stat(held).await;
    assert_eq!((info.held, info.retain_until), (true, held.day()));
    assert!(!f.stat(neighbour).await.held);

    f.drop_key(day_key).await;
    f.opens(held).await;
    assert!(f.stat(held).await.held);
    assert_eq!(f.refused(neighbour).await.kind(), ErrorKind::KeyDestroyed);
    // And on to a day again, as a hold that ends asks for.
    f.extend(held, 20).await;
    let info = f.stat(held).await;
    assert_eq!((info.held, info.retain_until), (true, held.day().plus(20)));
}

/// As for a single blob's early end: its neighbours go to another key of the day.
#[tokio::test]
async fn another_key_of_the_same_day_is_a_path() {
    let f = Fixture::new().await;
    let blob = f.seal().await;
    let first = f.stat(blob).await.kek;
    let second = f.mint(EntryKind::Day(blob.day())).await;
    let early = f.mint(EntryKind::Day(Day::from_number(blob.day().number() - 1))).await;
    let reason = Reason { action: Action::Rewrap, hold: None };
    rewrap(&f.acme, blob, second, reason).await.unwrap();
    assert_eq!(rewrap(&f.acme, blob, early, reason).await.unwrap_err().kind(), ErrorKind::Denied);
    let name_key = f.acme.ring().await.unwrap().name_key().unwrap().id;
    assert_eq!(rewrap(&f.acme, blob, name_key, reason).await.unwrap_err().kind(), ErrorKind::Denied);
    let unknown = KekId::from_bytes([1; 16]);
    assert_eq!(rewrap(&f.acme, blob, unknown, reason).await.unwrap_err().kind(), ErrorKind::NotFound);
    f.drop_key(first).await;
    f.opens(blob).await;
    assert_eq!(f.stat(blob).await.kek, second);
}

#[tokio::test]
async fn under_strict_accountability_each_reading_is_one_call_of_the_customers_kms() {
    let f = Fixture::new().await;
    // Sealed before the customer becomes strict.
    let plain = f.seal().await;
    let strict = f.strict().await;
    let kms_key = f.acme.info().await.unwrap().kms_key;
    f.calls();
    let blob = strict.seal(b"text".to_vec(), SealOptions::new()).await.unwrap().id;
    let context = format!(
        "{kms_key} strongroom:blob={blob} strongroom:customer={} strongroom:store={} strongroom:use=blob",
        f.acme.id,
        f.room.store_id()
    );
    assert_eq!(f.calls(), [format!("generate {context}")]);
    for _ in 0..3 {
        f.opens(blob).await;
        assert_eq!(f.calls(), [format!("decrypt {context}")]);
    }
    f.stat(blob).await;
    assert_eq!(f.calls(), [format!("decrypt {context}")]);
    f.opens(plain).await;
    assert_eq!(f.calls(), [""; 0]);

    // Each call has its own intent, which names the KMS key and the blob.
    let intents = f.intents().await;
    let key = KeyRef::Blob { kms_key: kms_key.clone() };
    let of_blob = |action| {
        let fits = |intent: &&Intent| intent.action == action && intent.key.as_ref() == Some(&key);
        intents.iter().filter(fits).filter(|intent| intent.blob == Some(blob)).count()
    };
    assert_eq!((of_blob(Action::KmsGenerateDataKey), of_blob(Action::KmsDecrypt)), (1, 4));

    // Extending asks no KMS, and works while the customer does not let us read.
    f.kms.kms.disable(&kms_key).await.unwrap();
    f.extend(blob, 30).await;
    assert_eq!(f.calls(), [""; 0]);
    assert_eq!(f.refused(blob).await.kind(), ErrorKind::KeyUnavailable);
    assert_eq!(f.calls().len(), 1);
    // The ring's keys are cached: other blobs are read until their term is over.
    f.opens(plain).await;
    f.kms.kms.enable(&kms_key).await.unwrap();
    f.opens(blob).await;
}

#[tokio::test]
async fn the_death_of_the_day_key_kills_a_strict_blob_too() {
    let f = Fixture::new().await;
    let strict = f.strict().await;
    let options = || SealOptions::new().metadata(Metadata::new().with_name("n".parse().unwrap()));
    let blob = strict.seal(b"text".to_vec(), options()).await.unwrap().id;
    let neighbour = strict.seal(b"text".to_vec(), options()).await.unwrap().id;
    let first = f.stat(blob).await;
    assert_eq!(first.metadata.name().unwrap().as_str(), "n");
    f.extend(blob, 30).await;
    f.drop_key(first.kek).await;
    f.calls();
    assert_eq!(f.refused(neighbour).await.kind(), ErrorKind::KeyDestroyed);
    assert_eq!(f.calls(), [""; 0], "the KMS is not even asked");
    f.opens(blob).await;
    assert_eq!(f.calls().len(), 1);
}

/// A KMS ciphertext of one blob in the header of another would be refused by the
/// KMS itself: its context has the blob.
#[tokio::test]
async fn a_strict_dek_is_bound_to_its_blob_in_the_kms() {
    let f = Fixture::new().await;
    let strict = f.strict().await;
    let (one, two) = (BlobId::from_bytes([1; 16]), BlobId::from_bytes([2; 16]));
    let kms_key = f.acme.info().await.unwrap().kms_key;
    let intent = kms_intent(&strict, None, Action::KmsGenerateDataKey, one, &kms_key).unwrap();
    let begun = f.room.log().begin(intent).await.unwrap();
    let kept = strict_dek(&strict, one, &kms_key, begun).await.unwrap();
    let kms = kept.kms().unwrap().clone();
    let asker = strict.asker();
    let again = dek(&strict, asker, one, Unwrapped::Kms(kms.clone())).await.unwrap();
    assert_eq!(again.secret().expose(), kept.secret().expose());
    let moved = dek(&strict, asker, two, Unwrapped::Kms(kms)).await.unwrap_err();
    assert_eq!(moved.kind(), ErrorKind::Authentication);
}
