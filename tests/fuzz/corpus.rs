//! What the fuzz tests begin with: the golden files, and of what no golden store has, the objects
//! of a store that is made here, always the same.

use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use data_encoding::HEXLOWER;
use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use serde_json::Value;
use strongroom::access::{Access, Origin, Principal, Purpose};
use strongroom::audit::authority::{Authority, KeyChange, LogKeys};
use strongroom::audit::signer::{LocalSigner, LogSigner};
use strongroom::codec::Encode;
use strongroom::envelope::Metadata;
use strongroom::id::{CustomerId, OrderId, StoreId};
use strongroom::kms::local::InsecureLocalKms;
use strongroom::kms::{DataKey, DestroyerRegistry, KmsRegistry};
use strongroom::order::{NewPerson, OrderKind, ReturnTo};
use strongroom::register::Register;
use strongroom::register::sealed::SealedRegister;
use strongroom::ring::sealed::SealedRing;
use strongroom::ring::{Ring, Tenancy};
use strongroom::room::{Customer, KeyChoice, NewCustomer, SealOptions, Strongroom};
use strongroom::secret::Secret;
use strongroom::session::SessionLimits;
use strongroom::shred::VALIDITY;
use strongroom::shred::epoch::FinishOptions;
use strongroom::shred::offboard::Destination;
use strongroom::suite::Suite;
use strongroom::tlog::{NamedKey, SecretKey};

use crate::common::signer::signer;
use crate::common::{CountingEntropy, Heard, Raw, TestClock, Wiretap, objects, options, pattern};

const DAY: Duration = Duration::from_hours(24);

/// The root of the repository, for the test and for the package in `tests/fuzz`.
fn root() -> PathBuf {
    let here = FilePath::new(env!("CARGO_MANIFEST_DIR"));
    if here.join("tests/golden").is_dir() { here.to_owned() } else { here.join("../..") }
}

/// The key of the log, which tests have in common.
pub fn log_key() -> SecretKey {
    SecretKey::from_seed(&Secret::init(|seed| *seed = [9; 32]))
}

/// The key that follows it.
pub fn next_log_key() -> SecretKey {
    SecretKey::from_seed(&Secret::init(|seed| *seed = [19; 32]))
}

pub struct World {
    /// What there is to begin with, by storage and path: `audit/wal/0000/…`.
    pub objects: Vec<(String, Vec<u8>)>,
    pub store: StoreId,
    /// One with a ring of many kinds of entries.
    pub customer: CustomerId,
    /// The log's keys, as they are after the change.
    pub authority: Authority,
    /// Opens what is in `rings` and `registers`.
    pub epoch_key: DataKey,
    pub rings: Vec<Ring>,
    pub registers: Vec<Register>,
}

/// Made once. It takes a second or two.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        // In a thread of its own: whoever asks may have a runtime already.
        let made = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(make())
        });
        made.join().unwrap()
    })
}

impl World {
    /// The contents of the objects whose path begins so, each once, the shortest first.
    pub fn at(&self, prefixes: &[&str]) -> Vec<Vec<u8>> {
        let is_one = |path: &str| prefixes.iter().any(|prefix| path.starts_with(prefix));
        let mut found: Vec<Vec<u8>> =
            self.objects.iter().filter(|(path, _)| is_one(path)).map(|(_, bytes)| bytes.clone()).collect();
        found.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        found.dedup();
        assert!(!found.is_empty(), "nothing to begin with at {prefixes:?}");
        found
    }

    /// All paths, without the name of the storage.
    pub fn paths(&self) -> Vec<Vec<u8>> {
        let path = |(path, _): &(String, Vec<u8>)| path.split_once('/').unwrap().1.as_bytes().to_vec();
        let mut paths: Vec<_> = self.objects.iter().map(path).collect();
        paths.sort();
        paths.dedup();
        paths
    }
}

impl World {
    /// Takes the seals off what the epochs' keys open, so that what is inside is among the objects too.
    fn open(&mut self, heard: &Heard) {
        let keys: Vec<DataKey> = heard.0.lock().unwrap().iter().map(|(_, key)| data_key(key)).collect();
        let mut inside = Vec::new();
        for (path, bytes) in &self.objects {
            if path.starts_with("keys/ring/") {
                let Ok(sealed) = SealedRing::parse(bytes) else { continue };
                self.rings.extend(keys.iter().find_map(|key| sealed.open(key).ok()));
            } else if path.starts_with("keys/register/") {
                let Ok(sealed) = SealedRegister::parse(bytes) else { continue };
                self.registers.extend(keys.iter().find_map(|key| sealed.open(key).ok()));
            }
        }
        // That of the customer which has most in it, the newest last.
        let most = self.rings.iter().max_by_key(|ring| ring.to_bytes().len()).unwrap().customer;
        self.rings.sort_by_key(|ring| (ring.customer == most, ring.version));
        for (number, ring) in self.rings.iter().enumerate() {
            inside.push((format!("made/ring-body/{number}"), ring.to_bytes()));
        }
        for (number, register) in self.registers.iter().enumerate() {
            inside.push((format!("made/register-body/{number}"), register.to_bytes()));
        }
        self.objects.extend(inside);
    }

    /// The ring that most is in.
    pub fn ring(&self) -> &Ring {
        self.rings.last().unwrap()
    }
}

fn data_key(bytes: &[u8]) -> DataKey {
    DataKey::new(Secret::init(|key| key.copy_from_slice(bytes)))
}

fn files(directory: &FilePath, prefix: &str, into: &mut Vec<(String, Vec<u8>)>) {
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        match entry.path() {
            path if path.is_dir() => files(&path, &format!("{name}/"), into),
            path => into.push((name, fs::read(path).unwrap())),
        }
    }
}

/// With an origin that is the same in every run.
fn as_service(name: &str, purpose: Purpose) -> Access {
    Access::new(Principal::service(name).unwrap(), purpose).from_origin(Origin::Process(1))
}

fn access() -> Access {
    as_service("fuzz", Purpose::RecordManagement)
}

pub fn person(name: &str) -> NamedKey {
    let seed = name.bytes().last().unwrap();
    let secret = SecretKey::from_seed(&Secret::init(|out| out.fill(seed)));
    NamedKey::new(format!("person:{name}").parse().unwrap(), secret)
}

pub fn people() -> Vec<NewPerson> {
    ["a", "b", "c"].map(|name| NewPerson::try_from(person(name).verifier()).unwrap()).to_vec()
}

/// The objects that stand in the repository.
fn golden() -> Vec<(String, Vec<u8>)> {
    let (root, mut found) = (root(), Vec::new());
    for store in ["v1", "v1-one-commit", "v1-far-day"] {
        files(&root.join("tests/golden").join(store), "", &mut found);
    }
    // What the stores are expected to hold is no object.
    found.retain(|(path, _)| path != "expected.json");
    files(&root.join("tests/certificate/v1"), "certificates/", &mut found);
    let vectors = fs::read(root.join("tests/vectors/format-v1.json")).unwrap();
    let vectors: Value = serde_json::from_slice(&vectors).unwrap();
    let hex = |value: &Value| HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap();
    for (path, bytes) in vectors["objects"].as_object().unwrap() {
        found.push((path.clone(), hex(bytes)));
    }
    for key in ["epoch_data_key", "customer_data_key"] {
        found.push((format!("made/data-key/{key}"), hex(&vectors["local_kms"][key]["wrapped"])));
    }
    for (number, blob) in vectors["blobs"].as_array().unwrap().iter().enumerate() {
        found.push((format!("made/metadata/{number}"), hex(&blob["header"]["metadata_plaintext"])));
    }
    found.push(("made/kms-wrapped/0".to_owned(), hex(&vectors["strict"]["wrapped_plaintext"])));
    found.push(("made/ring-body/vector".to_owned(), hex(&vectors["ring"]["body"])));
    found
}

async fn make() -> World {
    let home = tempfile::tempdir().unwrap();
    let clock = TestClock::at("2026-11-22T02:26:13.000000Z");
    let entropy = CountingEntropy::new("strongroom fuzz tests");
    let local = InsecureLocalKms::open(home.path().join("kms"), clock.clone(), entropy.clone()).unwrap();
    let heard = Arc::new(Heard::default());
    let tapped = Arc::new(Wiretap { kms: local.clone(), heard: heard.clone() });
    let kms = KmsRegistry::new().with(tapped.clone()).with_grants(Arc::new(local));
    let destroyers = DestroyerRegistry::new().with(tapped);
    let raw = Raw::default();
    let mut options = options(&clock);
    (options.entropy, options.people) = (entropy, people());
    let by = access();
    let init = Strongroom::init(raw.storages(), kms.clone(), local_key(), &by, options.clone());
    let (room, _) = init.await.unwrap();

    let acme = customer(&room, "acme", "P2D", Tenancy::Held).await;
    let globex = customer(&room, "globex", "P18M", Tenancy::Held).await;
    let own = customer(&room, "own", "P18M", Tenancy::Customer).await;
    let named = |name: &str| Metadata::new().with_name(name.parse().unwrap()).with_pair("ward", "7").unwrap();
    let once = || SealOptions::new().once("nightly".parse().unwrap()).metadata(named("db/nightly"));
    let first = acme.seal(pattern(0), once()).await.unwrap().id;
    acme.seal(pattern(20_000), SealOptions::new().metadata(named("Befunde/Österreicher.png"))).await.unwrap();
    let chacha = SealOptions::new().suite(Suite::ChaCha20Poly1305);
    let held = globex.seal(pattern(5), chacha).await.unwrap().id;
    own.seal(pattern(9), SealOptions::new()).await.unwrap();
    acme.extend(first, "2027-01-31".parse().unwrap()).await.unwrap();
    globex.place_hold(strongroom::shred::HoldTarget::Blob(held)).await.unwrap();

    let guest = as_service("guest", Purpose::Treatment);
    let limits = SessionLimits::or_default(None, None);
    let asked = room.request_access(&guest, own.id(), limits).await.unwrap();
    room.approve_access(&by, own.id(), asked).await.unwrap();
    room.end_session(&by, own.id(), asked).await.unwrap();
    room.open_session(&by, own.id(), limits).await.unwrap();
    let destroy = OrderKind::DestroyBlob { blob: first };
    order(&room, destroy, Some(acme.id())).await;

    // A key is deleted a day of watch and a week after it was disabled.
    for day in 0..12 {
        clock.pass(DAY);
        room.sweep(&by).await.unwrap();
        if day == 1 {
            room.rotate_epoch(&by, local_key()).await.unwrap();
        }
        room.finish_epochs(&by, &destroyers, FinishOptions::default()).await.unwrap();
        if day % 4 == 3 {
            room.maintain_log().await.unwrap();
        }
    }
    order(&room, OrderKind::Offboard { return_to: ReturnTo::Plaintext }, Some(globex.id())).await;
    let back = Arc::new(InMemory::new());
    let destination = Destination::plaintext(Arc::clone(&back) as Arc<dyn ObjectStore>);
    room.return_blobs(&by, globex.id(), &destination).await.unwrap();
    let mut view = room.customer_view(own.id()).await.unwrap().pieces;
    let mut lines = Vec::new();
    while let Some(piece) = view.try_next().await.unwrap() {
        lines.extend_from_slice(&piece);
    }
    let next: Arc<dyn LogSigner> = Arc::new(LocalSigner::new(next_log_key()));
    let rotate = order(&room, OrderKind::RotateLogKey { key: next.public() }, None).await;
    room.close().await.unwrap();
    options.other_log_signer = Some(next);
    let room = Strongroom::open(raw.storages(), kms, options).await.unwrap();
    room.rotate_log_key(&by, rotate).await.unwrap();
    room.close().await.unwrap();

    let mut found = golden();
    found.push(("made/view".to_owned(), lines));
    for (path, bytes) in objects(&back).await {
        found.push((format!("back/{path}"), bytes));
    }
    for (name, storage) in raw.all() {
        for (path, bytes) in objects(storage).await {
            found.push((format!("{name}/{path}"), bytes));
        }
    }
    files(&home.path().join("kms"), "kms/", &mut found);
    let store = room.store_id();
    let authority = signer().public().authority();
    for (path, bytes) in &found {
        if path.starts_with("audit/key/") {
            authority.extend(KeyChange::parse(bytes, store).unwrap()).unwrap();
        }
    }
    let mut world = World {
        objects: found,
        store,
        customer: acme.id(),
        authority,
        epoch_key: DataKey::new(Secret::init(|key| *key = [7; 32])),
        rings: Vec::new(),
        registers: Vec::new(),
    };
    world.open(&heard);
    world
}

async fn customer(room: &Strongroom, label: &str, period: &str, tenancy: Tenancy) -> Customer {
    let mut new = NewCustomer::new(label.parse().unwrap(), local_key());
    (new.period, new.tenancy) = (period.parse().unwrap(), tenancy);
    room.add_customer(&access(), new).await.unwrap();
    room.customer(&label.parse().unwrap(), access()).await.unwrap()
}

fn local_key() -> KeyChoice {
    KeyChoice::New("local".into())
}

/// Asked for by one person and approved by another.
async fn order(room: &Strongroom, what: OrderKind, customer: Option<CustomerId>) -> OrderId {
    let who = Principal::person("a").unwrap();
    let order = room.draft_order(&access(), what, customer, who, VALIDITY).await.unwrap();
    let id = room.request_order(&access(), &order.sign(&person("a")).unwrap()).await.unwrap();
    room.approve_order(&access(), id, &person("b")).await.unwrap();
    id
}
