//! Canaries: whatever a customer wants kept secret is planted everywhere it can
//! be given to us, and searched for everywhere it must not turn up, in every
//! spelling that a library below might give it.
//!
//! What may show a secret is what hands it to who asked for it: the plaintext
//! that is opened, and the accessors of `Metadata`, `BlobName`, `Label` and
//! `CustomerInfo`, and `Display` of `Label`. Their `Debug` may not. What a caller
//! reads from is the caller's: the cause of its own reader's failure is passed on.

mod common;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::path::Path as FilePath;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Heard, Raw, TestClock, Wiretap, access, objects, options, registry, write};
use data_encoding::{BASE32, BASE32_NOPAD, BASE64, BASE64URL, HEXLOWER, HEXUPPER};
use futures_util::TryStreamExt;
use strongroom::access::{Access, Origin, Principal, PrincipalId, Purpose};
use strongroom::audit::Event;
use strongroom::entropy::{Entropy, EntropyError};
use strongroom::envelope::{Binding, BlobName, Dek, Header, Kek, Metadata};
use strongroom::id::{BlobId, CustomerId, DataKeyId, KekId, KmsKeyId, Label};
use strongroom::kms::local::InsecureLocalKms;
use strongroom::kms::{DataKey, KmsDestroyer};
use strongroom::retention::{Period, Window};
use strongroom::ring::{Change, DirectoryKey, Entry, EntryKind, Ring, Settings, Tenancy};
use strongroom::room::{
    ByteRange, Customer, KeyChoice, NewCustomer, Options, SealOptions, Source, Strongroom,
};
use strongroom::secret::Secret;
use strongroom::store::{StorageUrl, Storages, layout};
use strongroom::suite::Suite;
use strongroom::system::SystemEntropy;
use strongroom::time::{Day, Timestamp};
use strongroom::{Error, ErrorKind};

/// A secret, in all the spellings that are searched for.
struct Canary {
    what: String,
    spellings: Vec<(&'static str, Vec<u8>)>,
}

impl Canary {
    /// A text, which may have been written in any way that text is written in.
    fn text(what: &str, text: &str) -> Self {
        let mut canary = Self::key(what, text.as_bytes());
        let reversed: String = text.chars().rev().collect();
        let json = serde_json::to_string(text).unwrap();
        let ascii_json: String = text
            .encode_utf16()
            .map(
                |unit| if unit < 128 { char::from(unit as u8).to_string() } else { format!("\\u{unit:04x}") },
            )
            .collect();
        let percent: String = text
            .bytes()
            .map(|c| if c.is_ascii_alphanumeric() { char::from(c).to_string() } else { format!("%{c:02X}") })
            .collect();
        canary.spellings.extend([
            ("in lower case", text.to_lowercase().into_bytes()),
            ("in upper case", text.to_uppercase().into_bytes()),
            ("in UTF-16LE", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            ("in UTF-16BE", text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
            ("in JSON", json.trim_matches('"').as_bytes().to_vec()),
            ("in ASCII JSON", ascii_json.into_bytes()),
            ("in Debug", text.escape_debug().to_string().into_bytes()),
            ("in a URL", percent.into_bytes()),
            ("reversed", reversed.into_bytes()),
        ]);
        canary
    }

    /// Bytes that are no text.
    fn key(what: &str, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 8, "{what} is too short to be told from chance");
        let mut spellings = vec![
            ("raw", bytes.to_vec()),
            ("reversed bytes", bytes.iter().rev().copied().collect()),
            ("in hex", HEXLOWER.encode(bytes).into_bytes()),
            ("in HEX", HEXUPPER.encode(bytes).into_bytes()),
            // As `{:?}` writes a slice.
            ("as a list", format!("{bytes:?}").trim_matches(['[', ']']).as_bytes().to_vec()),
        ];
        // In a longer text, the bytes begin at any place of a group: what
        // depends on its neighbours is left out.
        for (name, encode, group, bits) in [
            ("in base64", (|b: &[u8]| BASE64.encode(b)) as fn(&[u8]) -> String, 3, 6),
            ("in base64url", |b| BASE64URL.encode(b), 3, 6),
            ("in base32", |b| BASE32.encode(b), 5, 5),
            ("in base32 of lower case", |b| BASE32.encode(b).to_lowercase(), 5, 5),
            ("in our base32", our_base32, 5, 5),
        ] {
            for before in 0..group {
                let padded = [vec![0; before], bytes.to_vec()].concat();
                let text = encode(&padded);
                let first = (before * 8).div_ceil(bits);
                let last = padded.len() * 8 / bits;
                spellings.push((name, text.as_bytes()[first..last].to_vec()));
            }
        }
        Self { what: what.to_owned(), spellings }
    }
}

/// Lower-case base32 of the alphabet that ids are written in.
fn our_base32(bytes: &[u8]) -> String {
    let symbols = b"0123456789abcdefghjkmnpqrstvwxyz";
    let rfc = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let ours = |c: u8| symbols[rfc.iter().position(|r| *r == c).unwrap()];
    BASE32_NOPAD.encode(bytes).bytes().map(|c| char::from(ours(c))).collect()
}

/// One spelling of one canary.
type Needle<'a> = (&'a Canary, &'static str, &'a [u8]);

/// All that came out, with where it came from.
#[derive(Default)]
struct Haystack(Vec<(String, Vec<u8>)>);

impl Haystack {
    fn add(&mut self, from: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((from.into(), bytes.into()));
    }

    fn debug(&mut self, from: &str, value: &(impl Debug + ?Sized)) {
        self.add(format!("Debug of {from}"), format!("{value:?}"));
        self.add(format!("pretty Debug of {from}"), format!("{value:#?}"));
    }

    fn error(&mut self, from: &str, error: &Error) {
        self.debug(from, error);
        self.add(format!("Display of {from}"), error.to_string());
        self.add(format!("chain of {from}"), error.chain());
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            self.foreign(from, error);
            cause = error.source();
        }
    }

    fn foreign(&mut self, from: &str, error: &(dyn std::error::Error + 'static)) {
        self.debug(from, error);
        self.add(format!("Display of {from}"), error.to_string());
    }

    /// The error of something that has to fail.
    fn fails<T>(&mut self, from: &str, result: Result<T, Error>) -> ErrorKind {
        let Err(error) = result else { panic!("{from} did not fail") };
        self.error(from, &error);
        error.kind()
    }

    /// The same for the errors of the small types.
    fn refuses<T, E: std::error::Error + 'static>(&mut self, from: &str, result: Result<T, E>) {
        let Err(error) = result else { panic!("{from} was taken") };
        self.foreign(from, &error);
    }

    /// Where canaries show.
    fn find(&self, canaries: &[Canary]) -> BTreeSet<String> {
        let mut by_start: HashMap<[u8; START], Vec<Needle<'_>>> = HashMap::new();
        for canary in canaries {
            for (spelling, needle) in &canary.spellings {
                let start = needle[..START].try_into().unwrap();
                by_start.entry(start).or_default().push((canary, spelling, needle));
            }
        }
        // Most places begin nothing: two bytes tell.
        let mut begins = vec![false; 1 << 16];
        by_start
            .keys()
            .for_each(|start| begins[usize::from(u16::from_le_bytes([start[0], start[1]]))] = true);
        let mut found = BTreeSet::new();
        let mut searched = HashSet::new();
        for (from, bytes) in self.0.iter().filter(|(_, bytes)| searched.insert(bytes)) {
            for (at, start) in bytes.windows(START).enumerate() {
                if !begins[usize::from(u16::from_le_bytes([start[0], start[1]]))] {
                    continue;
                }
                for (canary, spelling, needle) in by_start.get(start).into_iter().flatten() {
                    if bytes[at..].starts_with(needle) {
                        found.insert(format!("{} {spelling} in {from}", canary.what));
                    }
                }
            }
        }
        found
    }
}

/// How many bytes of a canary are looked up at once. All are longer.
const START: usize = 8;

/// Remembers every 32 bytes that were given: KEKs, DEKs, the directory key and
/// the keys of the local KMS. Ids, salts and nonces are shorter.
#[derive(Debug)]
struct WiretapEntropy(Arc<Heard>);

impl Entropy for WiretapEntropy {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError> {
        SystemEntropy.fill(out)?;
        if out.len() == 32 {
            self.0.hear("a key", out);
        }
        Ok(())
    }
}

const PLAINTEXT: &str = "Diagnosis: Fuchs' corneal dystrophy, Jörg Österreicher";
const NAME: &str = "charts/Österreicher Jörg 1957 knee";
const CONTENT_TYPE: &str = "application/x-canary-Oesterreicher";
const PAIR_KEY: &str = "patient \"surname\" ✚";
const PAIR_VALUE: &str = "Österreicher\\Jörg-44-81-93";
const LABEL: &str = "st-vincent.clinic_canary";
const OTHER_LABEL: &str = "elm-street.clinic_canary";
/// Text that is given where it does not belong.
const MISPLACED: &str = "Jane Q. Canary, born 1961-02-03";
/// The same for where only a slug could get through.
const MISPLACED_SLUG: &str = "jane-q-canary-1961";
const NEVER_SEALED: &str = "never/sealed under this Österreicher";

fn canaries() -> Vec<Canary> {
    [
        ("the plaintext", PLAINTEXT),
        ("the name", NAME),
        ("the content type", CONTENT_TYPE),
        ("the pair's key", PAIR_KEY),
        ("the pair's value", PAIR_VALUE),
        ("the label", LABEL),
        ("the other label", OTHER_LABEL),
        ("misplaced text", MISPLACED),
        ("a misplaced slug", MISPLACED_SLUG),
        ("a name never sealed", NEVER_SEALED),
    ]
    .map(|(what, text)| Canary::text(what, text))
    .into_iter()
    .chain([Canary::key("the start of the plaintext", &PLAINTEXT.as_bytes()[..32])])
    .collect()
}

#[test]
fn the_scanner_finds_every_spelling_of_every_canary() {
    let heard = [5_u8; 32].iter().enumerate().map(|(i, b)| b.wrapping_mul(i as u8 + 3)).collect::<Vec<_>>();
    let mut all = canaries();
    all.push(Canary::key("a key", &heard));
    for canary in &all {
        assert!(canary.spellings.len() > 20);
        for (spelling, bytes) in &canary.spellings {
            let mut hay = Haystack::default();
            hay.add("nowhere", "nothing of the kind, 0123456789abcdef");
            assert!(hay.find(slice::from_ref(canary)).is_empty());
            hay.add("here", [b"before ", &bytes[..], b" behind"].concat());
            let found = hay.find(slice::from_ref(canary));
            assert!(found.contains(&format!("{} {spelling} in here", canary.what)), "{spelling}: {found:?}");
            // One byte of it changed: not found by that spelling.
            let mut changed = bytes.clone();
            changed[bytes.len() / 2] ^= 0x80;
            let mut hay = Haystack::default();
            hay.add("here", changed);
            assert!(hay.find(slice::from_ref(canary)).is_empty());
        }
    }
    // As other code writes it, not as the canary was spelt.
    for before in 0..6 {
        let text = format!("{}{PAIR_VALUE} and more", "x".repeat(before));
        for encoded in [
            BASE64.encode(text.as_bytes()),
            BASE64URL.encode(text.as_bytes()),
            BASE32.encode(text.as_bytes()),
            our_base32(text.as_bytes()),
            HEXLOWER.encode(text.as_bytes()),
            format!("{:?}", text.as_bytes()),
            format!("{text:?}"),
            serde_json::to_string(&text).unwrap(),
        ] {
            let mut hay = Haystack::default();
            hay.add("here", encoded.clone());
            assert!(!hay.find(&[Canary::text("it", PAIR_VALUE)]).is_empty(), "{encoded}");
        }
    }
    let mut hay = Haystack::default();
    hay.debug("an error", &std::io::Error::other(PLAINTEXT));
    assert!(!hay.find(&all).is_empty());
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn metadata() -> Metadata {
    Metadata::new()
        .with_name(NAME.parse().unwrap())
        .with_content_type(CONTENT_TYPE)
        .unwrap()
        .with_pair(PAIR_KEY, PAIR_VALUE)
        .unwrap()
}

/// Long enough for several chunks, with the canary over and over.
fn plaintext() -> Bytes {
    PLAINTEXT.repeat(800).into_bytes().into()
}

struct Corpus {
    raw: Raw,
    room: Strongroom,
    clock: Arc<TestClock>,
    heard: Arc<Heard>,
    kms: strongroom::kms::KmsRegistry,
    directory: tempfile::TempDir,
    hay: Haystack,
    options: Options,
}

impl Corpus {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = TestClock::at("2026-11-22T02:26:13.000000Z");
        let heard = Arc::new(Heard::default());
        let entropy = Arc::new(WiretapEntropy(heard.clone()));
        let kms =
            InsecureLocalKms::open(directory.path().join("kms"), clock.clone(), entropy.clone()).unwrap();
        let kms = registry(Arc::new(Wiretap { kms, heard: heard.clone() }));
        let mut options = options(&clock);
        options.entropy = entropy;
        let raw = Raw::default();
        let epoch = KeyChoice::New("local".into());
        let (room, _) =
            Strongroom::init(raw.storages(), kms.clone(), epoch, &access(), options.clone()).await.unwrap();
        let hay = Haystack::default();
        Self { raw, room, clock, heard, kms, directory, hay, options }
    }

    async fn customer(&mut self, text: &str) -> Customer {
        let new = NewCustomer::new(label(text), KeyChoice::New("local".into()));
        self.hay.debug("NewCustomer", &new);
        let info = self.room.add_customer(&access(), new).await.unwrap();
        assert_eq!(info.label.as_str(), text);
        self.hay.debug("CustomerInfo", &info);
        self.room.customer(&label(text), access()).await.unwrap()
    }

    /// Everything that is stored, and every record as it is read back.
    async fn collect(&mut self) {
        self.room.log().flush().await.unwrap();
        for (name, storage) in self.raw.all() {
            for (path, bytes) in objects(storage).await {
                self.hay.add(format!("a path of {name}"), path.as_ref());
                self.hay.add(format!("{name}/{path}"), bytes);
            }
        }
        let records = common::records_since(&self.room, 0).await;
        for record in &records {
            self.hay.debug("a record", record);
            self.hay.add("a record", serde_json::to_string(record).unwrap());
        }
        assert!(records.len() > 100, "{}", records.len());
        let commits = self.room.log().commits(0..u64::MAX).await.unwrap();
        for commit in commits.try_collect::<Vec<_>>().await.unwrap() {
            self.hay.debug("a commit", &commit);
        }
    }

    /// The canaries, and every key that ever was.
    fn secrets(&self) -> Vec<Canary> {
        let mut all = canaries();
        let mut heard = self.heard.0.lock().unwrap().clone();
        heard.extend(kms_keys(&self.directory.path().join("kms")));
        heard.sort();
        heard.dedup_by(|a, b| a.1 == b.1);
        all.extend(heard.iter().map(|(what, bytes)| Canary::key(what, bytes)));
        all
    }
}

/// What the local KMS's files hold: 32 bytes from the 43rd on.
fn kms_keys(directory: &FilePath) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let keys: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|end| end == "key"))
        .map(|path| ("a KMS key".to_owned(), std::fs::read(path).unwrap()[43..75].to_vec()))
        .collect();
    assert_eq!(keys.len(), 3);
    keys
}

#[tokio::test]
async fn no_secret_shows_anywhere() {
    let mut c = Corpus::new().await;
    let acme = c.customer(LABEL).await;
    let other = c.customer(OTHER_LABEL).await;
    let blobs = use_it(&mut c, &acme).await;
    other.seal(plaintext(), SealOptions::new().metadata(metadata())).await.unwrap();
    fail_with_arguments(&mut c, &acme).await;
    fail_with_damage(&mut c, &acme, &blobs).await;
    c.collect().await;

    let secrets = c.secrets();
    let keys = secrets.len() - canaries().len();
    // 2 customers with 31 days, a name key and a data key each, the epoch, the
    // directory key, 3 KMS keys, and a DEK for each blob.
    assert!(keys > 75, "only {keys} keys were heard");
    let found = c.hay.find(&secrets);
    let some: Vec<_> = found.iter().take(20).collect();
    assert!(found.is_empty(), "{} leaks in {}: {some:#?}", found.len(), c.hay.0.len());

    // The search was over what it should have been over.
    for what in
        ["blobs/blob/", "blobs/name/", "keys/ring/", "keys/epoch/", "keys/label/", "audit/wal/", "audit/pin/"]
    {
        assert!(c.hay.0.iter().any(|(from, _)| from.starts_with(what)), "nothing of {what}");
    }
    // What is sealed is there: the same search finds a blob's own bytes.
    let path = layout::blob(acme.id(), blobs[0]);
    let stored = common::read(&c.raw.blobs, &path).await;
    assert!(!c.hay.find(&[Canary::key("ciphertext", &stored[300..340])]).is_empty());
}

/// Every operation as it should go, in both suites.
async fn use_it(c: &mut Corpus, acme: &Customer) -> Vec<BlobId> {
    let mut blobs = Vec::new();
    for suite in Suite::ALL {
        let sealing = SealOptions::new().suite(suite).metadata(metadata());
        c.hay.debug("SealOptions", &sealing);
        let source = Source::from(plaintext());
        c.hay.debug("Source", &source);
        let sealed = acme.seal(source, sealing).await.unwrap();
        c.hay.debug("Sealed", &sealed);
        let opened = acme.open(sealed.id).await.unwrap();
        c.hay.debug("Opened", &opened);
        c.hay.debug("BlobInfo", opened.info());
        assert_eq!(opened.info().metadata.name().unwrap().as_str(), NAME);
        assert_eq!(opened.bytes(1 << 20).await.unwrap(), plaintext());
        let ranged = acme.open_range(sealed.id, ByteRange::Last(100)).await.unwrap();
        c.hay.debug("a ranged Opened", &ranged);
        drop(ranged);
        let info = acme.verify(sealed.id).await.unwrap();
        c.hay.debug("a verified BlobInfo", &info);
        let info = acme.stat(sealed.id).await.unwrap();
        c.hay.debug("Metadata", &info.metadata);
        c.hay.debug("BlobName", info.metadata.name().unwrap());
        blobs.push(sealed.id);
    }
    let name: BlobName = NAME.parse().unwrap();
    assert_eq!(acme.find(&name).await.unwrap().len(), 2);
    c.hay.debug("the newest BlobInfo", &acme.newest(&name).await.unwrap());
    let listed: Vec<_> = acme.list().try_collect().await.unwrap();
    c.hay.debug("Listed", &listed);
    let info = acme.set(Some("P24M".parse().unwrap()), Some(Suite::ChaCha20Poly1305)).await.unwrap();
    c.hay.debug("CustomerInfo", &info);
    c.hay.debug("all CustomerInfos", &c.room.customers(&access()).await.unwrap());
    // Asked for is given.
    assert_eq!(info.label.to_string(), LABEL);
    c.hay.debug("Label", &info.label);
    c.hay.debug("KeyChoice", &KeyChoice::Existing(info.kms_key.clone()));
    c.hay.debug("KeyChoice", &KeyChoice::Existing(info.kms_key));
    c.hay.debug("Strongroom", &c.room);
    c.hay.debug("Customer", acme);
    c.hay.debug("Log", c.room.log());
    c.hay.debug("Head", &c.room.log().head());
    c.hay.debug("Options", &c.options);
    c.hay.debug("Storages", &c.raw.storages());
    c.hay.debug("KmsRegistry", &c.kms);
    c.hay.debug("Access", &access());
    let secret = || Secret::init(|out: &mut [u8; 32]| out.copy_from_slice(&PLAINTEXT.as_bytes()[..32]));
    c.hay.debug("DataKey", &DataKey::new(secret()));
    let (kek, dek, id) = (Kek::new(secret()), Dek::new(secret()), [1; 16]);
    c.hay.debug("Kek", &kek);
    c.hay.debug("Dek", &dek);
    c.hay.debug("DirectoryKey", &DirectoryKey::new(secret()));
    let binding = Binding {
        store: c.room.store_id(),
        customer: acme.id(),
        blob: blobs[0],
        kek: KekId::from_bytes(id),
        suite: Suite::Aes256Gcm,
    };
    let header = Header::seal(
        binding,
        "2026-11-22T02:26:13.000000Z".parse().unwrap(),
        &kek,
        [1; 24],
        &dek,
        &metadata(),
    );
    c.hay.debug("Header", &header);
    c.hay.debug("what a header holds", &(header.unwrap(&kek).unwrap(), header.metadata(&dek)));
    let settings = Settings {
        label: label(LABEL),
        kms_key: "local:x".parse().unwrap(),
        suite: Suite::Aes256Gcm,
        strict: false,
        phi: true,
        tenancy: Tenancy::Held,
    };
    let since = "2026-11-22T02:26:13.000000Z".parse().unwrap();
    let owner = (c.room.store_id(), acme.id());
    let ring = Ring::first(owner, 1, settings, (since, Period::DEFAULT, Window::DEFAULT));
    c.hay.debug("Ring", &ring);
    c.hay.debug("Change", &Change::Settings(ring.settings.clone()));
    let key = (DataKeyId::from_bytes(id), &DataKey::new(secret()));
    let entry = Entry::seal(owner, since, KekId::from_bytes(id), EntryKind::Name, &kek, key, [1; 24]);
    c.hay.debug("Entry", &entry);
    c.hay.debug("PayloadKeys", &strongroom::schedule::payload(&secret(), Suite::Aes256Gcm, &[1; 24], &[]));
    blobs
}

/// Whatever may be given, with text in it that must not come back.
async fn fail_with_arguments(c: &mut Corpus, acme: &Customer) {
    for text in
        [MISPLACED, &MISPLACED.to_uppercase(), &format!("-{MISPLACED_SLUG}"), &MISPLACED_SLUG.repeat(9)]
    {
        c.hay.refuses("a label", text.parse::<Label>());
        c.hay.refuses("a principal", text.parse::<Principal>());
        c.hay.refuses("a principal", format!("person:{text}").parse::<Principal>());
        c.hay.refuses("a principal", format!("unix:{text}").parse::<Principal>());
        c.hay.refuses("a person", Principal::person(text));
        c.hay.refuses("a service", Principal::service(text));
        c.hay.refuses("a principal id", text.parse::<PrincipalId>());
        c.hay.refuses("a purpose", text.parse::<Purpose>());
        c.hay.refuses("a day", text.parse::<Day>());
        c.hay.refuses("a day", format!("2026-02-30{text}").parse::<Day>());
        c.hay.refuses("a moment", text.parse::<Timestamp>());
        c.hay.refuses("a period", text.parse::<Period>());
        c.hay.refuses("a period", format!("P{text}").parse::<Period>());
        c.hay.refuses("a blob id", text.parse::<BlobId>());
        c.hay.refuses("a customer id", text.parse::<CustomerId>());
        c.hay.refuses("a KMS key", text.parse::<KmsKeyId>());
        c.hay.refuses("a KMS key", format!("local:{MISPLACED}{text}").parse::<KmsKeyId>());
        c.hay.refuses("a KMS key", KmsKeyId::new(&format!("{text}?"), "x"));
        c.hay.refuses("a name", format!("{text}\n").parse::<BlobName>());
        c.hay.refuses("a name", text.repeat(99).parse::<BlobName>());
        c.hay.refuses("a content type", Metadata::new().with_content_type(&text.replace('/', "")));
        c.hay.refuses("a content type", Metadata::new().with_content_type(&format!("{text}/\u{7f}")));
        c.hay.refuses("a key", Metadata::new().with_pair(&format!("{text}\0"), ""));
        c.hay.refuses("a value", Metadata::new().with_pair("key", &format!("{text}\u{202e}")));
        c.hay.refuses(
            "a record",
            serde_json::from_str::<Event>(&format!("{{\"{text}\": 1}}")).map_err(hidden),
        );
    }
    for url in [
        format!("file://{MISPLACED_SLUG}/x"),
        format!("{MISPLACED_SLUG}://bucket"),
        format!("s3://user:{MISPLACED_SLUG}@bucket/x"),
        format!("s3://bucket/x?{MISPLACED_SLUG}"),
    ] {
        let parsed = url.parse::<StorageUrl>();
        if let Ok(parsed) = &parsed {
            // What was taken as a URL is a place, which is no secret.
            assert!(!url.contains('@') && !url.contains('?'), "{parsed:?}");
        } else {
            c.hay.refuses("a URL", parsed);
        }
    }

    // KMS keys: nobody's, no provider's, one that is not there.
    for key in [
        format!("{MISPLACED_SLUG}:x"),
        format!("local:{MISPLACED_SLUG}"),
        "local:00000000000000000000000000".to_owned(),
        format!("aws-kms:arn:aws:kms:us-east-1:000000000000:key/{MISPLACED_SLUG}"),
    ] {
        let new = NewCustomer::new(label(MISPLACED_SLUG), KeyChoice::Existing(key.parse().unwrap()));
        c.hay.fails("an unknown KMS key", c.room.add_customer(&access(), new).await);
    }
    for key in [KeyChoice::New(MISPLACED.into()), KeyChoice::New(MISPLACED_SLUG.into())] {
        let new = NewCustomer::new(label(MISPLACED_SLUG), key);
        c.hay.fails("an unknown provider", c.room.add_customer(&access(), new).await);
    }

    // What is not there, and what is there already.
    let unknown = c.room.customer(&label(MISPLACED_SLUG), access()).await;
    assert_eq!(c.hay.fails("an unknown label", unknown), ErrorKind::NotFound);
    let again = NewCustomer::new(label(LABEL), KeyChoice::New("local".into()));
    let again = c.room.add_customer(&access(), again).await;
    assert_eq!(c.hay.fails("a label that is taken", again), ErrorKind::AlreadyExists);
    let never: BlobName = NEVER_SEALED.parse().unwrap();
    assert_eq!(acme.find(&never).await.unwrap(), []);
    assert_eq!(c.hay.fails("an unknown name", acme.newest(&never).await), ErrorKind::NotFound);
    let nobody = BlobId::new("2028-05-22".parse().unwrap(), [9; 13]).unwrap();
    for id in [nobody, BlobId::from_bytes([0xFF; 16])] {
        c.hay.fails("an unknown blob", acme.open(id).await);
        c.hay.fails("an unknown blob", acme.stat(id).await);
        c.hay.fails("an unknown blob", acme.verify(id).await);
    }
    c.hay.fails("a shorter period", acme.set(Some("P1D".parse().unwrap()), None).await);
    let named = SealOptions::new().metadata(metadata());
    let far = named.clone().retain_until(Day::from_number(u32::MAX));
    c.hay.fails("a day too far", acme.seal(plaintext(), far).await);
    let sealed = acme.seal(plaintext(), named).await.unwrap().id;
    for range in [ByteRange::Last(0), ByteRange::Inclusive(5, 4), ByteRange::From(u64::MAX)] {
        c.hay.fails("a range", acme.open_range(sealed, range).await);
    }
    c.hay.fails("a limit", acme.open(sealed).await.unwrap().bytes(10).await);

    // A writer that fails, one that goes away, and a reader that fails: the
    // plaintext in front of it does not show.
    let mut room_for = [0; 1000];
    let mut full = std::io::Cursor::new(&mut room_for[..]);
    c.hay.fails("a full writer", acme.open(sealed).await.unwrap().copy_to(&mut full).await);
    let pieces = [Ok(plaintext()), Err(std::io::Error::other("the pipe broke"))];
    let source = Source::stream(futures_util::stream::iter(pieces));
    let named = SealOptions::new().metadata(metadata());
    assert_eq!(c.hay.fails("a failing reader", acme.seal(source, named.clone()).await), ErrorKind::Io);
    let stuck = Source::stream(futures_util::stream::pending());
    assert!(tokio::time::timeout(Duration::from_millis(50), acme.seal(stuck, named)).await.is_err());
    drop(acme.open(sealed).await.unwrap());

    // Who asks is in the log, by id; a person's text cannot be.
    let by = Access::new(Principal::person("p-17").unwrap(), Purpose::Treatment)
        .from_origin(Origin::Address("192.0.2.1".parse().unwrap()));
    c.hay.debug("Access", &by);
    let by_person = c.room.customer(&label(LABEL), by).await.unwrap();
    by_person.stat(sealed).await.unwrap();
}

/// serde's own errors quote what they read: ours never passes one on.
fn hidden(_: serde_json::Error) -> std::io::Error {
    std::io::Error::other("not a record")
}

/// Every blob and key object damaged, and the KMS key disabled.
async fn fail_with_damage(c: &mut Corpus, acme: &Customer, blobs: &[BlobId]) {
    for blob in blobs {
        let path = layout::blob(acme.id(), *blob);
        let bytes = common::read(&c.raw.blobs, &path).await;
        for at in [0, 9, 12, 14, 20, 40, 60, 80, 100, 150, 170, 400, 600, 20_000, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            write(&c.raw.blobs, &path, damaged).await;
            let opened = match acme.open(*blob).await {
                Ok(opened) => {
                    c.hay.debug("an Opened that will fail", &opened);
                    opened.bytes(1 << 20).await
                }
                Err(error) => Err(error),
            };
            c.hay.fails("a damaged blob", opened);
            c.hay.fails("a damaged blob", acme.verify(*blob).await);
        }
        write(&c.raw.blobs, &path, PLAINTEXT).await;
        c.hay.fails("text in place of a blob", acme.open(*blob).await);
        write(&c.raw.blobs, &path, bytes).await;
    }
    // The keys storage with text in it that it must not repeat.
    for (path, bytes) in objects(&c.raw.keys).await {
        for wrong in [
            bytes[..bytes.len() / 2].to_vec(),
            MISPLACED.into(),
            format!("{{\"format\":\"{MISPLACED}\"}}").into(),
        ] {
            write(&c.raw.keys, &path, wrong).await;
            let reopened = Strongroom::open(c.raw.storages(), c.kms.clone(), c.options.clone()).await;
            let room = match reopened {
                Ok(room) => room,
                Err(error) => {
                    c.hay.error("a damaged store", &error);
                    continue;
                }
            };
            for text in [LABEL, OTHER_LABEL] {
                if let Err(error) = room.customer(&label(text), access()).await {
                    c.hay.error("a damaged store", &error);
                }
            }
            if let Err(error) = room.customers(&access()).await {
                c.hay.error("a damaged store", &error);
            }
        }
        write(&c.raw.keys, &path, bytes).await;
    }
    // Two stores' storages together, and none.
    let mixed = Storages::from_parts(c.raw.blobs.clone(), c.raw.keys.clone(), Raw::default().audit);
    c.hay.fails("mixed storages", Strongroom::open(mixed, c.kms.clone(), c.options.clone()).await);
    let none = Strongroom::open(Storages::memory(), c.kms.clone(), c.options.clone()).await;
    c.hay.fails("no store", none);

    let info = acme.info().await.unwrap();
    let (clock, entropy) = (c.clock.clone(), c.options.entropy.clone());
    let provider = InsecureLocalKms::open(c.directory.path().join("kms"), clock, entropy).unwrap();
    c.clock.pass(Duration::from_secs(301));
    provider.disable(&info.kms_key).await.unwrap();
    assert_eq!(c.hay.fails("a disabled key", acme.stat(blobs[0]).await), ErrorKind::KeyUnavailable);
    let named = SealOptions::new().metadata(metadata());
    c.hay.fails("a disabled key", acme.seal(plaintext(), named).await);
    c.hay.fails("a disabled key", acme.find(&NAME.parse().unwrap()).await);
    let existing = NewCustomer::new(label(MISPLACED_SLUG), KeyChoice::Existing(info.kms_key.clone()));
    c.hay.fails("a disabled key", c.room.add_customer(&access(), existing).await);
    provider.enable(&info.kms_key).await.unwrap();
}
