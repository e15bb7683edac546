//! The vectors in the manual, made anew from the code.
//!
//! `tests/vectors/format-v1.json` is a chapter of the manual (`manual::vectors`)
//! and what the decoder in Python is held against. Here every value in it is
//! computed again: what the library has a function for by that function, and
//! what the manual only describes (associated data, infos) put together by hand
//! and then seen to seal to the same bytes. So neither can drift from the other.
//!
//! Until format v1 is frozen, `STRONGROOM_BLESS=1` writes the file.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::log::{Log, LogConfig};
use strongroom::audit::{Action, Intent, KeyUseReceipt};
use strongroom::codec::{Encode, Writer};
use strongroom::entropy::{Entropy, EntropyError};
use strongroom::envelope::{Binding, Dek, Header, Kek, KmsWrapped, Metadata, Unwrapped, Wrap};
use strongroom::id::{BlobId, CustomerId, DataKeyId, HoldId, KekId, OrderId, StoreId};
use strongroom::kms::local::InsecureLocalKms;
use strongroom::kms::{EncryptionContext, GeneratedDataKey, Kms, KmsAdmin};
use strongroom::payload;
use strongroom::retention::{Period, Window};
use strongroom::ring::sealed::EpochRecord;
use strongroom::ring::{
    DirectoryKey, Dropped, Entry, EntryKind, Hold, HoldScope, HoldState, Policy, Ring, RingDataKey, Settings,
    Tenancy, certificate_id,
};
use strongroom::schedule::{self, Salt};

#[path = "common/signer.rs"]
mod signer;
use signer::signer;

use strongroom::secret::Secret;
use strongroom::store::{Storages, layout};
use strongroom::suite::{AeadKey, KEY_LEN, Suite};
use strongroom::system::SystemEntropy;
use strongroom::time::{Clock, Day, Timestamp};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/format-v1.json");

const STORE: StoreId = StoreId::from_bytes(counting(1));
const CUSTOMER: CustomerId = CustomerId::from_bytes(counting(0x11));
const DATA_KEY: DataKeyId = DataKeyId::from_bytes(counting(0x21));
const DAY_KEK: KekId = KekId::from_bytes(counting(0x31));
const NAME_KEK: KekId = KekId::from_bytes(counting(0x41));
/// A key of a later day.
const LATER_KEK: KekId = KekId::from_bytes(counting(0x81));
/// A key of the first day that was dropped.
const GONE_KEK: KekId = KekId::from_bytes(counting(0x91));
const DAY: Day = Day::from_number(21_326);
const LATER: Day = Day::from_number(21_691);
/// Not quite a chunk more than one.
const LONG: usize = 16_384 + 10;
const LABEL: &str = "acme";
const NAME: &str = "db/nightly";
const EPOCH: u32 = 1;

#[tokio::test]
async fn the_manuals_vectors_are_what_the_code_makes() {
    let made = vectors().await;
    if std::env::var_os("STRONGROOM_BLESS").is_some() {
        let text = serde_json::to_string_pretty(&made).unwrap() + "\n";
        std::fs::write(FILE, text).unwrap();
        eprintln!("wrote {FILE}");
    }
    let stored: Value = serde_json::from_slice(&std::fs::read(FILE).unwrap()).unwrap();
    for (part, made) in made.as_object().unwrap() {
        assert_eq!(stored[part], *made, "`{part}` of {FILE}");
    }
    assert_eq!(stored, made);
}

/// The record sizes and offsets that the manual's tables state.
#[tokio::test]
async fn the_sizes_are_those_of_the_tables() {
    let vectors = vectors().await;
    let len = |pointer: &str| vectors.pointer(pointer).unwrap().as_str().unwrap().len() / 2;
    assert_eq!(len("/local_kms/key_files/0/content"), 107);
    assert_eq!(len("/local_kms/epoch_data_key/wrapped"), 98);
    assert_eq!(len("/ring/entries/0/aad"), 53);
    assert_eq!(len("/ring/prefix"), 78);
    assert_eq!(len("/ring/entries/0/encoding"), 139);
    assert_eq!(len("/blobs/0/header/wrap_aad"), 70);
    assert_eq!(len("/blobs/0/header/metadata_aad"), 165);
    assert_eq!(len("/blobs/0/header/metadata_plaintext"), 128);
    assert_eq!(len("/blobs/1/header/metadata_plaintext"), 64);
    assert_eq!(len("/blobs/0/header/bytes"), 165 + 128 + 16);
    assert_eq!(len("/wrap/front"), 113);
    assert_eq!(len("/wrap/object"), 161);
    let kms = len("/strict/wrapped_plaintext") + 16;
    assert_eq!(len("/blobs/4/header/wrapped_dek"), kms);
    assert_eq!(len("/blobs/4/header/bytes"), 117 + kms + 4 + 64 + 16);
    assert_eq!(vectors["blobs"].as_array().unwrap().len(), 5);
}

async fn vectors() -> Value {
    let kms = LocalKms::new().await;
    let mut objects = BTreeMap::new();
    let marker = format!(
        "{{\"format\":\"strongroom-store-v1\",\"store\":\"{STORE}\",\"log_key\":\"{}\"}}\n",
        signer::authority()
    );
    for storage in ["audit", "blobs", "keys"] {
        objects.insert(format!("{storage}/store"), hex(marker.as_bytes()));
    }

    let (epoch_key, wrapped_epoch) =
        kms.data_key(0, EncryptionContext::epoch(STORE, EPOCH), 0xD0, 0xA0).await;
    let (customer_key, wrapped_customer) =
        kms.data_key(1, EncryptionContext::customer(STORE, CUSTOMER, DATA_KEY), 0xD1, 0xA1).await;

    let epoch_salt = salt(0x50);
    let directory = DirectoryKey::new(secret(0xD2));
    let created = at("2026-11-22T02:26:13.000000Z");
    let record = EpochRecord::seal(
        (STORE, EPOCH),
        created,
        kms.keys[0].clone(),
        (&epoch_key.plaintext, epoch_key.wrapped),
        &directory,
        epoch_salt,
    );
    let record = record.to_bytes();
    let (record_aad, sealed_directory) = record.split_at(record.len() - 48);
    let directory_wrapping = schedule::directory_seal(epoch_key.plaintext.secret(), STORE, &epoch_salt);
    assert_eq!(sealed(Suite::Aes256Gcm, &directory_wrapping, record_aad, &[0xD2; 32]), sealed_directory);
    objects.insert(format!("keys/{}", layout::epoch(EPOCH)), hex(&record));

    let label_tag = schedule::label_tag(&secret(0xD2), LABEL);
    let label_path = format!("keys/{}", layout::label(&label_tag));
    objects.insert(label_path.clone(), hex(format!("{CUSTOMER}\n").as_bytes()));

    let keys = [
        (DAY_KEK, EntryKind::Day(DAY), 0xD3, 0x51),
        (NAME_KEK, EntryKind::Name, 0xD4, 0x52),
        (LATER_KEK, EntryKind::Day(LATER), 0xD5, 0x54),
    ];
    let entry = |(id, kind, key, from): (KekId, EntryKind, u8, u8)| {
        Entry::seal(
            (STORE, CUSTOMER),
            created,
            id,
            kind,
            &Kek::new(secret(key)),
            (DATA_KEY, &customer_key.plaintext),
            salt(from),
        )
    };
    let settings = Settings {
        label: LABEL.parse().unwrap(),
        kms_key: kms.keys[1].clone(),
        suite: Suite::Aes256Gcm,
        strict: false,
        phi: true,
        tenancy: Tenancy::Held,
    };
    let data_key =
        RingDataKey { id: DATA_KEY, kms_key: kms.keys[1].clone(), wrapped: customer_key.wrapped.clone() };
    let policy = (created, Period::DEFAULT, Window::DEFAULT);
    let mut ring = Ring::first((STORE, CUSTOMER), EPOCH, settings, policy)
        .with_first_keys(vec![data_key], keys.map(entry).to_vec())
        .unwrap();
    // As if all this had been before: a ring of one version is shorter to read.
    let (ordered, released) = (OrderId::from_bytes(counting(0xA1)), OrderId::from_bytes(counting(0xB1)));
    let earlier = at("2026-11-22T02:28:00.000000Z");
    ring.policies.push(Policy {
        number: 2,
        since: earlier,
        period: "P12M3D".parse().unwrap(),
        window: "P14D".parse().unwrap(),
        order: Some(ordered),
    });
    ring.dropped.push(Dropped {
        id: GONE_KEK,
        kind: EntryKind::Day(DAY),
        version: 1,
        minted: created,
        born: EPOCH,
        last: EPOCH,
        at: earlier,
        order: Some(ordered),
        check_value: schedule::check_value(&secret(0xD6)),
    });
    let hold =
        |id, scope, state| Hold { id: HoldId::from_bytes(counting(id)), scope, placed: created, state };
    ring.holds.push(hold(0xC1, HoldScope::Customer, HoldState::Complete));
    ring.holds.push(hold(0xC2, HoldScope::Day(DAY), HoldState::Released { order: released, at: earlier }));
    ring.withdrawn.push(blob_id(0x70));
    ring.orders.extend([ordered, released]);
    ring.check().unwrap();
    let ring_salt = salt(0x53);
    let ring_bytes = ring.seal(&epoch_key.plaintext, ring_salt);
    let ring_key = schedule::ring_seal(epoch_key.plaintext.secret(), STORE, CUSTOMER, 1, &ring_salt);
    let (prefix, ring_sealed) = ring_bytes.split_at(78);
    assert_eq!(sealed(Suite::Aes256Gcm, &ring_key, prefix, &ring.to_bytes()), ring_sealed);
    let ring_path = format!("keys/{}", layout::ring(CUSTOMER, 1));
    objects.insert(ring_path.clone(), hex(&ring_bytes));
    let entries = keys.map(|key| entry_vector(key, &entry(key), customer_key.plaintext.secret()));

    let sealed_at = at("2026-11-22T02:30:00.000001Z");
    let name_tag = schedule::name_tag(&secret(0xD4), NAME);
    let (day, gone) = ((DAY_KEK, 0xD3), (GONE_KEK, 0xD6));
    let dek = |from: u8| Dek::new(secret(from + 1));
    let (aes, chacha, none) = (Suite::Aes256Gcm, Suite::ChaCha20Poly1305, Metadata::new());
    let long: Vec<u8> = (0..LONG).map(|at| (at * 7 + at / 251).to_le_bytes()[0]).collect();
    let strict_id = blob_id(0x90);
    let context = EncryptionContext::blob(STORE, CUSTOMER, strict_id);
    let (strict_key, mut strict) = kms.data_key(1, context, 0x91, 0xA2).await;
    let kms_wrapped = KmsWrapped::new(kms.keys[1].clone(), strict_key.wrapped.as_bytes().to_vec()).unwrap();
    strict["wrapped_plaintext"] = hex(&kms_wrapped.to_bytes()).into();
    let strict_dek = Dek::strict(strict_key.plaintext.into_secret(), kms_wrapped);
    let mut blobs = [
        blob(aes, sealed_at, (0xB0, &dek(0xB0)), day, &full_metadata(), b"Strongroom keeps ePHI sealed."),
        blob(chacha, sealed_at, (0xB8, &dek(0xB8)), day, &none, b""),
        blob(aes, sealed_at, (0x88, &dek(0x88)), day, &none, &long),
        blob(aes, sealed_at, (0x80, &dek(0x80)), gone, &none, b"Kept for longer."),
        blob(aes, sealed_at, (0x90, &strict_dek), day, &none, b"Each reading is a call."),
    ];
    for made in &blobs {
        objects.insert(text(made, "path"), text(made, "object"));
    }
    // Its bytes are among the objects, and its plaintext is a rule.
    let parts = blobs[2].as_object_mut().unwrap();
    parts.retain(|name, _| !["plaintext", "payload", "object"].contains(&name.as_str()));
    parts.insert("plaintext_len".into(), LONG.into());
    parts.insert("plaintext_sha256".into(), hex(&Sha256::digest(&long)).into());
    let wrap = wrap(aes, blob_id(0x80), &dek(0x80));
    objects.insert(text(&wrap, "path"), text(&wrap, "object"));
    let named: BlobId = text(&blobs[0], "id").parse().unwrap();
    let name_path = format!("blobs/{}", layout::name(CUSTOMER, &name_tag, sealed_at, named));
    objects.insert(name_path.clone(), String::new());

    json!({
        "format": "Strongroom format v1, test vectors",
        "store": id(STORE, STORE.as_bytes()),
        "customer": id(CUSTOMER, CUSTOMER.as_bytes()),
        "local_kms": {
            "key_files": kms.files(),
            "epoch_data_key": wrapped_epoch,
            "customer_data_key": wrapped_customer,
        },
        "data_keys_json": {
            "epoch": { EPOCH.to_string(): hex(epoch_key.plaintext.secret().expose()) },
            "data_keys": { DATA_KEY.to_string(): hex(customer_key.plaintext.secret().expose()) },
            "blobs": { strict_id.to_string(): hex(strict_dek.secret().expose()) },
        },
        "epoch": {
            "number": EPOCH,
            "created": created,
            "created_micros": created.micros(),
            "salt": hex(&epoch_salt),
            "directory_key": hex(&[0xD2; 32]),
            "directory_wrapping_key": hex(directory_wrapping.expose()),
            "aad": hex(record_aad),
            "sealed_directory_key": hex(sealed_directory),
        },
        "label": { "label": LABEL, "tag": hex(&label_tag), "path": label_path },
        "ring": {
            "path": ring_path,
            "version": 1,
            "data_key": id(DATA_KEY, DATA_KEY.as_bytes()),
            "entries": entries,
            "body": hex(&ring.to_bytes()),
            "salt": hex(&ring_salt),
            "sealing_key": hex(ring_key.expose()),
            "prefix": hex(prefix),
        },
        "name": { "name": NAME, "name_key": hex(&[0xD4; 32]), "tag": hex(&name_tag), "path": name_path },
        "blobs": blobs,
        "wrap": wrap,
        "strict": strict,
        "certificate": { "ring_version": 1, "id": certificate_id(STORE, CUSTOMER, 1) },
        "objects": objects,
    })
}

fn entry_vector(
    (entry_id, kind, key, from): (KekId, EntryKind, u8, u8),
    made: &Entry,
    data_key: &Secret<KEY_LEN>,
) -> Value {
    let sealing = schedule::entry_seal(data_key, entry_id, &salt(from));
    let mut aad = Writer::default();
    aad.raw(STORE.as_bytes()).raw(CUSTOMER.as_bytes()).raw(entry_id.as_bytes());
    match kind {
        EntryKind::Day(day) => aad.u8(1).u32(day.number()),
        EntryKind::Hold => aad.u8(2).u32(0),
        EntryKind::Name => aad.u8(3).u32(0),
    };
    let bytes = sealed(Suite::Aes256Gcm, &sealing, aad.as_bytes(), &[key; 32]);
    let encoding = made.to_bytes();
    assert!(encoding.ends_with(&bytes), "the AAD is as the manual has it");
    json!({
        "kind": match kind { EntryKind::Day(day) => format!("day {day}"), EntryKind::Hold => "hold".into(), EntryKind::Name => "name".into() },
        "id": id(entry_id, entry_id.as_bytes()),
        "key": hex(&[key; 32]),
        "check_value": hex(&schedule::check_value(&secret(key))),
        "salt": hex(&salt(from)),
        "sealing_key": hex(sealing.expose()),
        "aad": hex(aad.as_bytes()),
        "sealed": hex(&bytes),
        "encoding": hex(&encoding),
    })
}

fn full_metadata() -> Metadata {
    Metadata::new()
        .with_name(NAME.parse().unwrap())
        .with_content_type("application/sql")
        .unwrap()
        .with_pair("host", "db-1")
        .unwrap()
        .with_pair("ward", "7 Süd")
        .unwrap()
}

fn metadata_plaintext(metadata: &Metadata) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(metadata.name().map_or("", |name| name.as_str()).as_bytes());
    out.bytes(metadata.content_type().unwrap_or_default().as_bytes());
    out.u32(u32::try_from(metadata.pairs().count()).unwrap());
    for (key, value) in metadata.pairs() {
        out.bytes(key.as_bytes()).bytes(value.as_bytes());
    }
    let mut bytes = out.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    bytes
}

fn blob_id(from: u8) -> BlobId {
    BlobId::new(DAY, std::array::from_fn(|at| from + u8::try_from(at).unwrap())).unwrap()
}

/// One more wrap of a blob's DEK, under the key of the later day.
fn wrap(suite: Suite, blob: BlobId, dek: &Dek) -> Value {
    let (made_at, kek, wrap_salt) = (at("2026-11-23T08:00:00.000000Z"), Kek::new(secret(0xD5)), salt(0x55));
    let binding = Binding { store: STORE, customer: CUSTOMER, blob, kek: LATER_KEK, suite };
    let content = Unwrapped::Dek(Dek::new(Secret::init(|out| *out = *dek.secret().expose())));
    let object = Wrap::seal((binding, LATER), made_at, &kek, wrap_salt, &content).to_bytes();

    let mut front = Writer::default();
    front.raw(b"SRM-WRAP").u8(1).u8(254).u16(suite.id());
    front.raw(STORE.as_bytes()).raw(CUSTOMER.as_bytes()).raw(blob.as_bytes()).raw(LATER_KEK.as_bytes());
    front.u32(LATER.number()).u64(made_at.micros()).u8(1).raw(&wrap_salt);
    let key = schedule::dek_wrap(kek.secret(), suite, blob, &wrap_salt);
    let wrapped = sealed(suite, &key, front.as_bytes(), dek.secret().expose());
    assert_eq!(object, [front.as_bytes(), &wrapped].concat());
    json!({
        "path": format!("blobs/{}", layout::wrap(CUSTOMER, blob, LATER_KEK)),
        "blob": blob,
        "day": LATER,
        "made_at": made_at,
        "made_at_micros": made_at.micros(),
        "wrap_salt": hex(&wrap_salt),
        "wrap_key": hex(key.expose()),
        "front": hex(front.as_bytes()),
        "wrapped_dek": hex(&wrapped),
        "object": hex(&object),
    })
}

fn blob(
    suite: Suite,
    sealed_at: Timestamp,
    (from, dek): (u8, &Dek),
    (kek_id, key): (KekId, u8),
    metadata: &Metadata,
    plaintext: &[u8],
) -> Value {
    let (blob_id, kek) = (blob_id(from), Kek::new(secret(key)));
    let (wrap_salt, payload_salt) = (salt(from + 2), salt(from + 3));
    let binding = Binding { store: STORE, customer: CUSTOMER, blob: blob_id, kek: kek_id, suite };
    let header = Header::seal(binding, sealed_at, &kek, wrap_salt, dek, metadata);

    let (wrap_key, wrapped_at) = match dek.kms() {
        None => (schedule::dek_wrap(kek.secret(), suite, blob_id, &wrap_salt), 113),
        Some(_) => (schedule::strict_wrap(kek.secret(), suite, blob_id, &wrap_salt), 117),
    };
    let mut wrap_aad = Writer::default();
    wrap_aad.raw(STORE.as_bytes()).raw(CUSTOMER.as_bytes()).raw(blob_id.as_bytes()).raw(kek_id.as_bytes());
    wrap_aad.u32(DAY.number()).u16(suite.id());
    let content = dek.kms().map_or_else(|| dek.secret().expose().to_vec(), Encode::to_bytes);
    let wrapped = sealed(suite, &wrap_key, wrap_aad.as_bytes(), &content);
    assert_eq!(header.as_bytes()[wrapped_at..][..wrapped.len()], wrapped);

    let metadata_key = schedule::metadata(dek.secret(), suite);
    let (metadata_aad, sealed_metadata) = header.as_bytes().split_at(wrapped_at + wrapped.len() + 4);
    let metadata_plaintext = metadata_plaintext(metadata);
    assert_eq!(sealed(suite, &metadata_key, metadata_aad, &metadata_plaintext), sealed_metadata);

    let context: [u8; 32] = Sha256::digest(header.as_bytes()).into();
    assert_eq!(context, header.context());
    let keys = schedule::payload(dek.secret(), suite, &payload_salt, &context);
    let payload = payload::seal(dek.secret(), suite, &payload_salt, &context, plaintext).unwrap();
    let object = [header.as_bytes(), &payload].concat();
    json!({
        "path": format!("blobs/{}", layout::blob(CUSTOMER, blob_id)),
        "id": blob_id,
        "id_bytes": hex(blob_id.as_bytes()),
        "suite": suite.aead_name(),
        "dek": hex(dek.secret().expose()),
        "header": {
            "sealed_at": sealed_at,
            "sealed_at_micros": sealed_at.micros(),
            "kek": kek_id,
            "wrap_kind": if dek.kms().is_none() { 1 } else { 2 },
            "wrap_salt": hex(&wrap_salt),
            "wrap_key": hex(wrap_key.expose()),
            "wrap_aad": hex(wrap_aad.as_bytes()),
            "wrapped_dek": hex(&wrapped),
            "name": metadata.name().map(|name| name.as_str()),
            "content_type": metadata.content_type(),
            "pairs": metadata.pairs().collect::<BTreeMap<_, _>>(),
            "metadata_plaintext": hex(&metadata_plaintext),
            "metadata_key": hex(metadata_key.expose()),
            "metadata_aad": hex(metadata_aad),
            "sealed_metadata": hex(sealed_metadata),
            "bytes": hex(header.as_bytes()),
        },
        "context": hex(&context),
        "payload_salt": hex(&payload_salt),
        "payload_key": hex(keys.key.expose()),
        "base_nonce": hex(&keys.base_nonce),
        "commitment": hex(&keys.commitment),
        "plaintext": hex(plaintext),
        "payload": hex(&payload),
        "object": hex(&object),
    })
}

/// The local KMS over a source of randomness that says what it is told to.
struct LocalKms {
    kms: InsecureLocalKms,
    log: Log,
    script: Arc<Script>,
    directory: tempfile::TempDir,
    keys: Vec<strongroom::id::KmsKeyId>,
}

impl LocalKms {
    async fn new() -> Self {
        let (directory, script) = (tempfile::tempdir().unwrap(), Arc::new(Script::default()));
        let clock: Arc<dyn Clock> = Arc::new(FixedClock);
        let entropy = Arc::<Script>::clone(&script);
        let kms = InsecureLocalKms::open(directory.path().join("keys"), Arc::clone(&clock), entropy).unwrap();
        let audit = Storages::memory().audit;
        let log =
            Log::open(audit, LogConfig::new(STORE, signer()), clock, Arc::new(SystemEntropy)).await.unwrap();
        let mut made = Self { kms, log, script, directory, keys: Vec::new() };
        for (id, key) in [(0x61, 0xC0), (0x71, 0xC1)] {
            made.script.push(&counting(id));
            made.script.push(&[key; 32]);
            made.keys.push(made.kms.create_key(&EncryptionContext::epoch(STORE, EPOCH)).await.unwrap());
        }
        made
    }

    async fn receipt(&self) -> KeyUseReceipt {
        let access = Access::new(Principal::Unix(0), Purpose::SystemAdministration);
        let request = self.log.request_id().unwrap();
        let (open, receipt) =
            self.log.begin(Intent::new(request, &access, Action::KmsGenerateDataKey)).await.unwrap();
        drop(open);
        receipt
    }

    async fn data_key(
        &self,
        key: usize,
        context: EncryptionContext,
        byte: u8,
        from: u8,
    ) -> (GeneratedDataKey, Value) {
        let wrapping_salt = salt(from);
        self.script.push(&[byte; 32]);
        self.script.push(&wrapping_salt);
        let name = &self.keys[key];
        let made = self.kms.generate_data_key(self.receipt().await, name, &context).await.unwrap();
        let wrapped = made.wrapped.as_bytes();

        let mut pairs = Writer::default();
        pairs.u32(u32::try_from(context.pairs().count()).unwrap());
        for (name, value) in context.pairs() {
            pairs.bytes(name.as_bytes()).bytes(value.as_bytes());
        }
        let mut aad = Writer::default();
        aad.raw(&wrapped[..50]).bytes(pairs.as_bytes());
        let wrapping = schedule::local_kms(&secret(if key == 0 { 0xC0 } else { 0xC1 }), &wrapping_salt);
        assert_eq!(sealed(Suite::Aes256Gcm, &wrapping, aad.as_bytes(), &[byte; 32]), wrapped[50..]);
        let vector = json!({
            "kms_key": name,
            "context": context.pairs().collect::<BTreeMap<_, _>>(),
            "data_key": hex(&[byte; 32]),
            "salt": hex(&wrapping_salt),
            "wrapping_key": hex(wrapping.expose()),
            "aad": hex(aad.as_bytes()),
            "wrapped": hex(wrapped),
        });
        (made, vector)
    }

    fn files(&self) -> Vec<Value> {
        let file = |key: &strongroom::id::KmsKeyId| {
            let name = format!("{}.key", key.name());
            let content = std::fs::read(self.directory.path().join("keys").join(&name)).unwrap();
            json!({ "name": name, "content": hex(&content) })
        };
        self.keys.iter().map(file).collect()
    }
}

#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        at("2026-11-22T02:26:13.000000Z")
    }

    fn uptime(&self) -> Duration {
        Duration::ZERO
    }
}

#[derive(Debug, Default)]
struct Script(Mutex<VecDeque<Vec<u8>>>);

impl Script {
    fn push(&self, bytes: &[u8]) {
        self.0.lock().unwrap().push_back(bytes.to_vec());
    }
}

impl Entropy for Script {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError> {
        out.copy_from_slice(&self.0.lock().unwrap().pop_front().expect("the script has an answer"));
        Ok(())
    }
}

fn sealed(suite: Suite, key: &Secret<KEY_LEN>, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut bytes = plaintext.to_vec();
    let tag = AeadKey::new(suite, key).seal_in_place(&[0; 12], aad, &mut bytes);
    bytes.extend_from_slice(&tag);
    bytes
}

/// 16 bytes that count up from `from`.
const fn counting(from: u8) -> [u8; 16] {
    let mut bytes = [from; 16];
    let mut at = 1;
    while at < 16 {
        bytes[at] = bytes[at - 1] + 1;
        at += 1;
    }
    bytes
}

fn salt(byte: u8) -> Salt {
    let mut salt = [byte; 24];
    salt[23] = 0;
    salt
}

fn secret(byte: u8) -> Secret<KEY_LEN> {
    Secret::init(|out| out.fill(byte))
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn id(text: impl ToString, bytes: &[u8]) -> Value {
    json!({ "text": text.to_string(), "bytes": hex(bytes) })
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

fn text(vector: &Value, field: &str) -> String {
    vector[field].as_str().unwrap().to_owned()
}

/// The manual shows the file, whole.
#[test]
fn the_manual_includes_the_vectors() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual.rs");
    assert!(std::fs::read_to_string(manual).unwrap().contains("../tests/vectors/format-v1.json"));
}
