//! Format v1, as it was written: stores with their KMS keys under `tests/golden`, which every
//! later version has to open. This one still writes the newest of them, byte for byte.
//!
//! There are several because an order of steps that changes draws its randomness in another
//! order: `v1` is of before records of a KMS call and of its uses shared a commit, `v1-one-commit` of
//! before a day far beyond the policy got one key in place of a month's. The keys in
//! them protect nothing. With `STRONGROOM_REGENERATE_GOLDEN=1` the newest is written anew, which
//! is done for a new one only.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{CountingEntropy, Heard, Raw, TestClock, Wiretap, access, objects, options, pattern, write};
use data_encoding::HEXLOWER;
use futures_util::TryStreamExt;
use object_store::path::Path;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use strongroom::audit::log::{Log, LogConfig};
use strongroom::envelope::Metadata;
use strongroom::id::BlobId;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::room::{
    BlobInfo, ByteRange, Customer, CustomerInfo, KeyChoice, NewCustomer, SealOptions, Strongroom,
};
use strongroom::suite::Suite;
use strongroom::system::SystemEntropy;

/// When the golden store was made.
const THEN: &str = "2026-11-22T02:26:13.000001Z";
/// When it is opened again: while its day keys are still to be kept.
const LATER: &str = "2027-03-01T12:00:00.000000Z";

/// The stores, the newest last.
const STORES: [&str; 3] = ["v1", "v1-one-commit", "v1-far-day"];

fn home_of(store: &str) -> PathBuf {
    FilePath::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(store)
}

/// Of the store that is written today.
fn home() -> PathBuf {
    home_of(STORES[2])
}

fn regenerating() -> bool {
    std::env::var_os("STRONGROOM_REGENERATE_GOLDEN").is_some_and(|value| value == "1")
}

/// All files under a directory, by their path in it.
fn files(directory: &FilePath) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

/// A golden store made anew: its objects and KMS files by path, and what is in it.
struct Made {
    files: BTreeMap<String, Vec<u8>>,
    expected: Value,
}

async fn make() -> Made {
    let directory = tempfile::tempdir().unwrap();
    let kms_files = directory.path().join("kms");
    let clock = TestClock::at(THEN);
    let entropy = CountingEntropy::new("strongroom golden store, format v1");
    let kms = InsecureLocalKms::open(kms_files.clone(), clock.clone(), entropy.clone()).unwrap();
    let heard = Arc::new(Heard::default());
    let kms = common::registry(Arc::new(Wiretap { kms, heard: heard.clone() }));
    let mut options = options(&clock);
    options.entropy = entropy;
    let raw = Raw::default();
    let local = || KeyChoice::New("local".into());
    let (room, _) =
        Strongroom::init(raw.storages(), kms.clone(), local(), &access(), options.clone()).await.unwrap();
    let store = room.store_id();

    let mut customers = Vec::new();
    for (label, period, suite) in
        [("acme", "P18M", Suite::Aes256Gcm), ("globex", "P6Y", Suite::ChaCha20Poly1305)]
    {
        clock.pass(Duration::from_millis(1_001));
        let mut new = NewCustomer::new(label.parse().unwrap(), KeyChoice::New("local".into()));
        (new.period, new.suite) = (period.parse().unwrap(), suite);
        room.add_customer(&access(), new).await.unwrap();
        customers.push(room.customer(&label.parse().unwrap(), access()).await.unwrap());
    }
    let named = |name: &str| Metadata::new().with_name(name.parse().unwrap());
    let full = named("Befunde/Österreicher 1957.png")
        .with_content_type("image/png")
        .unwrap()
        .with_pair("ward", "7")
        .unwrap()
        .with_pair("Größe", "")
        .unwrap();
    let long = Metadata::new().with_pair("notes", &"x".repeat(4_000)).unwrap();
    let plain = SealOptions::new;
    let far = "2040-02-29".parse().unwrap();
    let mut sealed = Vec::new();
    for (owner, length, with) in [
        (0, 0, plain()),
        (0, 1, plain().metadata(full.clone())),
        (0, 16_384, plain().metadata(named("db/nightly"))),
        (0, 16_385, plain().suite(Suite::ChaCha20Poly1305).metadata(named("db/nightly"))),
        (0, 5, plain().retain_until(far).metadata(long)),
        (1, 0, plain().metadata(full)),
        (1, 100, plain()),
        (1, 16_383, plain().suite(Suite::Aes256Gcm)),
    ] {
        clock.pass(Duration::from_secs(3_601));
        let customer: &Customer = &customers[owner];
        sealed.push((owner, customer.seal(pattern(length), with).await.unwrap()));
    }
    customers[0].set(Some("P24M".parse().unwrap()), None).await.unwrap();
    room.close().await.unwrap();
    let infos: Vec<_> = room.customers(&access()).await.unwrap().iter().map(customer).collect();

    let mut files = BTreeMap::new();
    for (name, storage) in raw.all() {
        for (path, bytes) in objects(storage).await {
            files.insert(format!("{name}/{path}"), bytes);
        }
    }
    let keys = self::files(&kms_files).into_iter().filter(|(name, _)| name.ends_with(".key"));
    files.extend(keys.map(|(name, bytes)| (format!("kms/{name}"), bytes)));
    // What is asked for now is no part of it.
    let room = Strongroom::open(raw.fork().storages(), kms, options).await.unwrap();
    let mut blobs = Vec::new();
    for (owner, sealed) in sealed {
        let label = infos[owner]["label"].as_str().unwrap().parse().unwrap();
        let customer = room.customer(&label, access()).await.unwrap();
        let info = customer.stat(sealed.id).await.unwrap();
        blobs.push(blob(&customer, &info, &pattern(usize::try_from(sealed.bytes).unwrap())));
    }
    let data_keys: BTreeMap<String, String> = {
        let heard = heard.0.lock().unwrap();
        heard.iter().map(|(context, key)| (context.clone(), HEXLOWER.encode(key))).collect()
    };
    let expected = json!({
        "about": "Test data. The keys in `kms` and the data keys below protect nothing. Byte i of a \
                  plaintext is the lowest byte of i * 7 + i / 251.",
        "store": store,
        "customers": infos,
        "blobs": blobs,
        "data_keys": data_keys,
    });
    Made { files, expected }
}

fn customer(info: &CustomerInfo) -> Value {
    json!({
        "label": info.label.to_string(),
        "id": info.id,
        "kms_key": info.kms_key,
        "period": info.period.to_string(),
        "suite": info.suite.to_string(),
        "held": info.held,
        "ring_version": info.ring_version,
        "epoch": info.epoch,
        "keys": info.keys,
    })
}

fn blob(customer: &Customer, info: &BlobInfo, plaintext: &[u8]) -> Value {
    json!({
        "customer": customer.id(),
        "id": info.id,
        "bytes": info.bytes,
        "stored_bytes": info.stored_bytes,
        "sealed_at": info.sealed_at,
        "retain_until": info.retain_until,
        "suite": info.suite.to_string(),
        "kek": info.kek,
        "name": info.metadata.name().map(|name| name.as_str().to_owned()),
        "content_type": info.metadata.content_type(),
        "pairs": info.metadata.pairs().collect::<BTreeMap<_, _>>(),
        "sha256": HEXLOWER.encode(&Sha256::digest(plaintext)),
    })
}

fn regenerate(made: &Made) {
    let _ = fs::remove_dir_all(home());
    for (name, bytes) in &made.files {
        let path = home().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let mut text = serde_json::to_string_pretty(&made.expected).unwrap();
    text.push('\n');
    fs::write(home().join("expected.json"), text).unwrap();
}

/// A golden store in memory, and its KMS directory with the modes that git does not keep.
async fn golden(store: &str) -> (Raw, tempfile::TempDir, Value) {
    let home = || home_of(store);
    let raw = Raw::default();
    for (name, storage) in raw.all() {
        for (path, bytes) in files(&home().join(name)) {
            write(storage, &Path::from(path), bytes).await;
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let kms = directory.path().join("kms");
    fs::create_dir(&kms).unwrap();
    fs::set_permissions(&kms, fs::Permissions::from_mode(0o700)).unwrap();
    for (name, bytes) in files(&home().join("kms")) {
        fs::write(kms.join(&name), bytes).unwrap();
        fs::set_permissions(kms.join(&name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let expected = serde_json::from_slice(&fs::read(home().join("expected.json")).unwrap()).unwrap();
    (raw, directory, expected)
}

/// Where the commits of the log are.
const WAL: &str = "audit/wal/";

/// The lines of all records in the log, sorted: behind the first two lines of each
/// commit.
fn records(files: &BTreeMap<String, Vec<u8>>) -> Vec<&str> {
    let mut all = Vec::new();
    for (_, commit) in files.iter().filter(|(name, _)| name.starts_with(WAL)) {
        let lines: Vec<_> = std::str::from_utf8(commit).unwrap().lines().collect();
        all.extend_from_slice(&lines[2..]);
    }
    all.sort_unstable();
    assert!(all.len() > 50, "{}", all.len());
    all
}

#[tokio::test]
async fn the_golden_store_is_what_we_write_today() {
    let made = make().await;
    if regenerating() {
        regenerate(&made);
    }
    let mut kept = files(&home());
    let expected: Value = serde_json::from_slice(&kept.remove("expected.json").unwrap()).unwrap();
    for part in ["store", "customers", "data_keys", "blobs"] {
        assert!(made.expected[part] == expected[part], "`{part}` is no longer what was expected");
    }
    assert_eq!(made.expected.as_object().unwrap().len(), 5);
    assert!(records(&made.files) == records(&kept), "the log says something else");
    // Which records share a commit is a matter of timing, and so is which heads are saved.
    let rest = |files: &BTreeMap<String, Vec<u8>>| {
        let mut files = files.clone();
        files.retain(|name, _| !name.starts_with(WAL) && !name.starts_with("audit/head/"));
        // What the storages were tried with is different each time, and nobody reads it.
        files.retain(|name, _| !name.contains("/probe/"));
        files
    };
    let (made, kept_rest) = (rest(&made.files), rest(&kept));
    assert!(made.keys().eq(kept_rest.keys()), "{:?}\n{:?}", made.keys(), kept_rest.keys());
    for (name, bytes) in &kept_rest {
        assert!(made[name] == *bytes, "{name} is written in another way than it was");
    }
    assert!(kept.values().map(Vec::len).sum::<usize>() < 200_000);
    // Rings, blobs of both suites, names, labels, pins, the epoch, the register: all there.
    let count = |prefix: &str| kept.keys().filter(|name| name.starts_with(prefix)).count();
    let counts = [
        "blobs/blob/",
        "blobs/name/",
        "keys/ring/",
        "keys/epoch/",
        "keys/label/",
        "keys/register/",
        "audit/pin/",
    ];
    assert_eq!(counts.map(count), [8, 4, 4, 1, 2, 1, 5]);
}

#[tokio::test]
async fn the_golden_stores_open() {
    if regenerating() {
        return;
    }
    for store in STORES {
        opens(store).await;
    }
}

async fn opens(store: &str) {
    let (raw, directory, expected) = golden(store).await;
    let clock = TestClock::at(LATER);
    let kms = InsecureLocalKms::open(directory.path().join("kms"), clock.clone(), Arc::new(SystemEntropy));
    let kms = common::registry(Arc::new(kms.unwrap()));
    let room = Strongroom::open(raw.storages(), kms, options(&clock)).await.unwrap();
    assert_eq!(json!(room.store_id()), expected["store"]);
    // Nobody used it for months, and its storages have no clock.
    room.confirm_time(&access(), strongroom::time::Clock::now(&*clock).day()).await.unwrap();

    let infos = room.customers(&access()).await.unwrap();
    assert_eq!(json!(infos.iter().map(customer).collect::<Vec<_>>()), expected["customers"]);

    let mut customers = BTreeMap::new();
    for info in &infos {
        let customer = room.customer(&info.label, access()).await.unwrap();
        customers.insert(info.id.to_string(), customer);
    }
    let blobs = expected["blobs"].as_array().unwrap();
    assert_eq!(blobs.len(), 8);
    for golden in blobs {
        let customer = &customers[golden["customer"].as_str().unwrap()];
        let id: BlobId = golden["id"].as_str().unwrap().parse().unwrap();
        let opened = customer.open(id).await.unwrap();
        let info = opened.info().clone();
        let plaintext = opened.bytes(100_000).await.unwrap();
        assert_eq!(blob(customer, &info, &plaintext), *golden);
        assert_eq!(plaintext, pattern(plaintext.len()));
        assert_eq!(customer.stat(id).await.unwrap(), info);
        assert_eq!(customer.verify(id).await.unwrap(), info);
        if let Some(last) = plaintext.last() {
            let range = customer.open_range(id, ByteRange::Last(1)).await.unwrap();
            assert_eq!(range.bytes(1).await.unwrap(), [*last][..]);
        }
        if let Some(name) = info.metadata.name() {
            let found = customer.find(name).await.unwrap();
            assert!(found.contains(&id));
        }
    }
    // The newest of a name that was used twice.
    let acme = &customers[infos[0].id.to_string().as_str()];
    let newest = acme.newest(&"db/nightly".parse().unwrap()).await.unwrap();
    assert_eq!(json!(newest.id), blobs[3]["id"]);
    // It goes on as a store, with new day keys in its ring.
    let sealed = acme.seal(pattern(100), SealOptions::new()).await.unwrap();
    assert_eq!(acme.open(sealed.id).await.unwrap().bytes(100).await.unwrap(), pattern(100));
    assert_eq!(acme.info().await.unwrap().ring_version, infos[0].ring_version + 1);
    room.close().await.unwrap();
}

/// Every record of the golden log reads, and each commit follows from the last.
#[tokio::test]
async fn the_golden_logs_read() {
    if regenerating() {
        return;
    }
    for store in STORES {
        reads(store).await;
    }
}

async fn reads(store: &str) {
    let (raw, _directory, expected) = golden(store).await;
    let store = expected["store"].as_str().unwrap().parse().unwrap();
    let clock = TestClock::at(LATER);
    let log = Log::open(
        raw.audit.clone(),
        LogConfig::new(store, common::signer::signer()),
        clock,
        Arc::new(SystemEntropy),
    )
    .await
    .unwrap();
    let commits: Vec<_> = log.commits(0..u64::MAX).await.unwrap().try_collect().await.unwrap();
    assert_eq!(commits.len() as u64, log.head().next());
    let records: Vec<_> = commits.into_iter().flat_map(|commit| commit.into_records()).collect();
    let operations = common::operations(&records);
    assert!(operations.len() > 20, "{}", operations.len());
    assert!(operations.iter().all(|(_, outcome)| outcome.is_some()));
}
