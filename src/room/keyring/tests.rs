//! What cannot be seen from outside: when keys leave memory.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::access::{Principal, Purpose};
use crate::audit::signer::LocalSigner;
use crate::kms::local::InsecureLocalKms;
use crate::room::{CustomerInfo, KeyChoice, NewCustomer, Options, Strongroom};
use crate::store::Storages;
use crate::system::SystemEntropy;
use crate::time::Timestamp;

#[derive(Debug, Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        "2026-11-22T00:00:00.000000Z".parse().unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// Time of the runtime passes as soon as all wait; the clock is moved by hand.
#[tokio::test(start_paused = true)]
async fn keys_that_nobody_asks_for_leave_memory_when_their_term_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    let kms = InsecureLocalKms::open(directory.path().join("kms"), clock.clone(), Arc::new(SystemEntropy));
    let registry = KmsRegistry::new().with(Arc::new(kms.unwrap()));
    let access = Access::new(Principal::service("tests").unwrap(), Purpose::SystemAdministration);
    let signer = Arc::new(LocalSigner::generate(&SystemEntropy).unwrap());
    let options = Options { clock: clock.clone(), ..Options::new(signer) };
    let local = || KeyChoice::New("local".into());
    let (room, _) = Strongroom::init(Storages::memory(), registry, local(), &access, options).await.unwrap();
    room.add_customer(&access, NewCustomer::new("acme".parse().unwrap(), local())).await.unwrap();
    let acme = room.customer(&"acme".parse().unwrap(), access.clone()).await.unwrap();

    let keyring = &room.0.keyring;
    let asker = Asker::of(&access);
    let epoch = Arc::downgrade(&keyring.current_epoch(asker).await.unwrap());
    let ring = acme.ring().await.unwrap();
    let entry = ring.entries.iter().find(|entry| entry.kind == EntryKind::Name).unwrap();
    let data_key = Arc::downgrade(&keyring.data_key(asker, &ring, entry.data_key).await.unwrap());
    drop(ring);

    clock.0.store(299, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(epoch.upgrade().is_some() && data_key.upgrade().is_some(), "within their term");
    // The epoch's key was loaded at 0, and so was the customer's.
    clock.0.store(300, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(epoch.upgrade().is_none(), "the epoch's key is still in memory");
    assert!(data_key.upgrade().is_none(), "the customer's key is still in memory");

    // A key in use is the user's until it lets go, and no longer.
    let held = keyring.current_epoch(asker).await.unwrap();
    let epoch = Arc::downgrade(&held);
    clock.0.store(1000, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(epoch.upgrade().is_some());
    drop(held);
    assert!(epoch.upgrade().is_none());
}

/// A store on these storages with a customer whose keys are in its own hand.
async fn in_own_hand(
    storages: Storages,
    directory: &tempfile::TempDir,
    (clock, access): (&Arc<TestClock>, &Access),
) -> (Strongroom, CustomerInfo) {
    let kms = InsecureLocalKms::open(directory.path().join("kms"), clock.clone(), Arc::new(SystemEntropy));
    let kms = Arc::new(kms.unwrap());
    let registry = KmsRegistry::new().with(kms.clone()).with_grants(kms);
    let signer = Arc::new(LocalSigner::generate(&SystemEntropy).unwrap());
    let options = Options { clock: clock.clone(), ..Options::new(signer) };
    let local = || KeyChoice::New("local".into());
    let (room, _) = Strongroom::init(storages, registry, local(), access, options).await.unwrap();
    let mut new = NewCustomer::new("acme".parse().unwrap(), local());
    new.tenancy = Tenancy::Customer;
    let acme = room.add_customer(access, new).await.unwrap();
    (room, acme)
}

/// What a session unwrapped leaves with it, and what this node made when its term is over.
#[tokio::test(start_paused = true)]
async fn keys_in_a_customers_own_hand_leave_memory_with_the_session_or_the_term() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    let access = Access::new(Principal::service("tests").unwrap(), Purpose::SystemAdministration);
    let (room, acme) = in_own_hand(Storages::memory(), &directory, (&clock, &access)).await;
    let acme = acme.id;

    let keyring = &room.0.keyring;
    let outside = Asker { access: &access, cause: None };
    let ring = keyring.ring(outside, acme).await.unwrap();
    let (id, own) = {
        let day = ring.promised(clock.now());
        let (entry, own) = keyring.own_entry(&ring, day).unwrap();
        (entry.data_key, Arc::downgrade(&own))
    };
    assert_eq!(keyring.data_key(outside, &ring, id).await.unwrap_err().kind(), ErrorKind::Denied);

    let session = room.open_session(&access, acme, crate::session::SessionLimits::DEFAULT).await.unwrap();
    let within = access.clone().within(session.id);
    let inside = Asker { access: &within, cause: None };
    let unwrapped = Arc::downgrade(&keyring.data_key(inside, &ring, id).await.unwrap());
    assert!(unwrapped.upgrade().is_some(), "it is cached");
    // That it is cached lets nobody in who is not in a session.
    assert_eq!(keyring.data_key(outside, &ring, id).await.unwrap_err().kind(), ErrorKind::Denied);
    room.end_session(&access, acme, session.id).await.unwrap();
    assert!(unwrapped.upgrade().is_none(), "what was unwrapped is still in memory");

    clock.0.store(12 * 3600 - 1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(own.upgrade().is_some(), "within its term");
    clock.0.store(12 * 3600, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(own.upgrade().is_none(), "what this node made is still in memory");
}

/// Programs once added a name key each. What was sealed under those names is found beside the rest.
#[tokio::test]
async fn names_under_a_programs_own_key_are_still_found() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    let access = Access::new(Principal::service("tests").unwrap(), Purpose::SystemAdministration);
    let storages = Storages::memory();
    let (room, acme) = in_own_hand(storages.clone(), &directory, (&clock, &access)).await;
    let (asker, keyring) = (Asker { access: &access, cause: None }, &room.0.keyring);
    let (stored, key) = keyring.new_data_key(asker, acme.id, acme.kms_key).await.unwrap();
    let kinds = [EntryKind::Name].into_iter();
    let own = keyring.new_entries(acme.id, kinds, (stored.id, &key)).unwrap();
    let own_id = own[0].id;
    let ring =
        keyring.change(asker, acme.id, Change::Mint { data_keys: vec![stored], entries: own }).await.unwrap();
    assert_ne!(ring.name_key().unwrap().id, own_id, "new names go under the one that all open");

    let name: crate::envelope::BlobName = "nightly".parse().unwrap();
    let receipt = KeyUseReceipt::mint(RequestId::from_bytes([0; 16]));
    let tag = ring.open_key(receipt, own_id, &key).unwrap().name_tag(&name).unwrap();
    let old = BlobId::new(Day::from_number(21_000), [7; 13]).unwrap();
    let path = layout::name(acme.id, &tag, "2026-01-01T00:00:00.000000Z".parse().unwrap(), old);
    storages.blobs.put(&path, object_store::PutPayload::new()).await.unwrap();
    let named = crate::envelope::Metadata::new().with_name(name.clone());
    let customer = room.customer_by_id(acme.id, access.clone()).await.unwrap();
    let sealed = customer.seal(b"x".to_vec(), crate::room::SealOptions::new().metadata(named)).await.unwrap();

    let session = room.open_session(&access, acme.id, crate::session::SessionLimits::DEFAULT).await.unwrap();
    let within = room.customer_by_id(acme.id, access.within(session.id)).await.unwrap();
    assert_eq!(within.find(&name).await.unwrap(), [sealed.id, old]);
}

impl Keyring {
    /// Writes the next version of a ring, as whoever destroys and holds will.
    pub(in crate::room) async fn change(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        change: Change,
    ) -> Result<Arc<Ring>> {
        let ring = self.fresh_ring(asker, customer).await?;
        let next = Arc::new(ring.apply(change).map_err(refused)?);
        let epoch = self.epoch(asker, next.epoch).await?;
        Ok(self.write_ring(asker, &epoch, next).await?.expect("nobody else writes"))
    }

    /// A key of this kind that is not in the ring yet.
    pub(in crate::room) async fn new_entry(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        kind: EntryKind,
    ) -> Result<Entry> {
        let ring = self.ring(asker, customer).await?;
        let id = ring.data_keys[0].id;
        let data_key = self.data_key(asker, &ring, id).await?;
        Ok(self.new_entries(customer, std::iter::once(kind), (id, &data_key))?.remove(0))
    }
}
