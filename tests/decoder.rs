//! A decoder in Python, written to the manual's text and sharing no code with the
//! library, opens what the library sealed, and nothing that was altered.
//!
//! It has the store's files and the local key directory, and no Strongroom: the
//! test that the manual has every byte, label and path.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::{Value, json};
use strongroom::access::{Access, Principal, Purpose};
use strongroom::envelope::Metadata;
use strongroom::id::{BlobId, CustomerId};
use strongroom::kms::KmsRegistry;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::room::{Customer, KeyChoice, NewCustomer, Options, SealOptions, Strongroom};
use strongroom::store::{CreateRoot, StorageUrl, StorageUrls, Storages};
use strongroom::suite::Suite;
use strongroom::system::{SystemClock, SystemEntropy};

#[path = "common/signer.rs"]
mod signer;
use signer::signer;

const SIZES: [usize; 6] = [0, 1, 16383, 16384, 16385, 40_000];

#[tokio::test(flavor = "multi_thread")]
async fn it_opens_what_the_library_sealed() {
    let Some(decoder) = Decoder::find() else { return };
    let (home, room, acme) = store().await;
    for suite in Suite::ALL {
        for size in SIZES {
            let name = format!("{suite}/{size}");
            let (plaintext, options) = (pattern(size), options(&name, suite));
            let sealed = acme.seal(plaintext.clone(), options).await.unwrap();
            let metadata = expected(&name, suite, sealed.id, &sealed.retain_until.to_string());
            for (how, which) in
                [("by id", vec![sealed.id.to_string()]), ("by name", vec!["--name".into(), name.clone()])]
            {
                let opened = decoder.open(&home, &acme.id().to_string(), &which);
                assert_eq!(opened.plaintext(), plaintext, "{name} {how}");
                let mut found: Value = serde_json::from_slice(&opened.0.stderr).unwrap();
                assert!(found.as_object_mut().unwrap().remove("sealed_at_micros").is_some());
                assert_eq!(found, metadata, "{name} {how}");
            }
        }
    }
    room.close().await.unwrap();
}

/// A ring of two versions, a label, a name used twice, and no metadata at all.
#[tokio::test(flavor = "multi_thread")]
async fn it_takes_the_newest_ring_and_the_newest_use_of_a_name() {
    let Some(decoder) = Decoder::find() else { return };
    let (home, room, acme) = store().await;
    let first = acme.seal(pattern(10), options("db/nightly", Suite::Aes256Gcm)).await.unwrap();
    acme.set(Some("P6Y".parse().unwrap()), Some(Suite::ChaCha20Poly1305)).await.unwrap();
    let second = acme.seal(pattern(20), options("db/nightly", Suite::Aes256Gcm)).await.unwrap();
    let plain = acme.seal(pattern(30), SealOptions::new()).await.unwrap();
    assert!(acme.info().await.unwrap().ring_version >= 2);
    room.close().await.unwrap();

    let open = |which: &[&str]| {
        let which: Vec<String> = which.iter().map(ToString::to_string).collect();
        decoder.open(&home, "label:acme", &which)
    };
    assert_eq!(open(&["--name", "db/nightly"]).plaintext(), pattern(20));
    assert_eq!(open(&[&first.id.to_string()]).plaintext(), pattern(10));
    assert_eq!(open(&[&plain.id.to_string()]).plaintext(), pattern(30));

    // A use of a name without its blob is passed over.
    fs::remove_file(blob_path(&home, acme.id(), second.id)).unwrap();
    assert_eq!(open(&["--name", "db/nightly"]).plaintext(), pattern(10));
    assert_eq!(open(&["--name", "db/nightly "]).code(), 3);
    assert_eq!(open(&[&second.id.to_string()]).code(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_refuses_what_was_altered() {
    let Some(decoder) = Decoder::find() else { return };
    let (home, room, acme) = store().await;
    let mut blobs = Vec::new();
    for suite in Suite::ALL {
        blobs.push(acme.seal(pattern(1000), options("a", suite)).await.unwrap().id);
    }
    room.close().await.unwrap();
    let open = |blob: BlobId| decoder.open(&home, &acme.id().to_string(), &[blob.to_string()]);

    for blob in &blobs {
        let path = blob_path(&home, acme.id(), *blob);
        let good = fs::read(&path).unwrap();
        // One in each field of the header, in salt, commitment, text and tag.
        let header = usize::from(good[12]) * 256 + usize::from(good[13]);
        let fields = [0, 8, 9, 13, 15, 16, 32, 51, 71, 72, 88, 89, 113, 150, 164, 165, 200, header - 1];
        let payload = [header, header + 24, header + 56, header + 600, good.len() - 1];
        for at in fields.into_iter().chain(payload) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            open(*blob).is_refused(&format!("byte {at} of {}", good.len()));
        }
        for cut in [0, 100, header, header + 56, good.len() - 1] {
            fs::write(&path, &good[..cut]).unwrap();
            open(*blob).is_refused(&format!("{cut} bytes left"));
        }
        fs::write(&path, [good.as_slice(), b"x"].concat()).unwrap();
        open(*blob).is_refused("one byte more");
        fs::write(&path, &good).unwrap();
        assert_eq!(open(*blob).plaintext(), pattern(1000));
    }

    // One blob at the other's path.
    let paths: Vec<PathBuf> = blobs.iter().map(|blob| blob_path(&home, acme.id(), *blob)).collect();
    let good = fs::read(&paths[0]).unwrap();
    fs::copy(&paths[1], &paths[0]).unwrap();
    open(blobs[0]).is_refused("another blob");
    fs::write(&paths[0], good).unwrap();

    // The ring, the epoch record, and the key files.
    let keys = home.path().join("store/keys");
    let ring = keys.join(format!("ring/{}/{:016x}", acme.id(), 1));
    let epoch = keys.join("epoch/00000001");
    let key_files = fs::read_dir(home.path().join("kms")).unwrap().map(|file| file.unwrap().path());
    let key_files = key_files.filter(|file| file.extension().is_some_and(|extension| extension == "key"));
    for path in [ring, epoch].into_iter().chain(key_files) {
        let good = fs::read(&path).unwrap();
        for at in [8, 30, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            open(blobs[0]).is_refused(&format!("byte {at} of {}", path.display()));
        }
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(open(blobs[0]).plaintext(), pattern(1000));
}

/// The store in the manual's chapter of vectors, from the key files and from
/// data keys that someone else unwrapped.
#[test]
fn it_opens_the_manuals_vectors() {
    let Some(decoder) = Decoder::find() else { return };
    let vectors = include_str!("vectors/format-v1.json");
    let vectors: Value = serde_json::from_str(vectors).unwrap();
    let home = tempfile::tempdir().unwrap();
    let write = |path: PathBuf, content: &Value| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, unhex(content)).unwrap();
    };
    for (path, content) in vectors["objects"].as_object().unwrap() {
        write(home.path().join("store").join(path), content);
    }
    for file in vectors["local_kms"]["key_files"].as_array().unwrap() {
        write(home.path().join("kms").join(file["name"].as_str().unwrap()), &file["content"]);
    }
    let keys = home.path().join("data-keys.json");
    fs::write(&keys, vectors["data_keys_json"].to_string()).unwrap();

    let customer = vectors["customer"]["text"].as_str().unwrap();
    for blob in vectors["blobs"].as_array().unwrap() {
        let id = blob["id"].as_str().unwrap().to_owned();
        let plaintext = match blob["plaintext_len"].as_u64() {
            Some(length) => pattern(usize::try_from(length).unwrap()),
            None => unhex(&blob["plaintext"]),
        };
        assert_eq!(decoder.open(&home, customer, std::slice::from_ref(&id)).plaintext(), plaintext);
        let opened = decoder.run(&home, customer, &[id, "--keys".into(), keys.to_str().unwrap().into()]);
        assert_eq!(opened.plaintext(), plaintext);
    }
    // The fourth has no path but the one beside it; in each field of it a bit counts.
    let wrapped = vectors["blobs"][3]["id"].as_str().unwrap().to_owned();
    let side = home.path().join("store").join(vectors["wrap"]["path"].as_str().unwrap());
    let good = fs::read(&side).unwrap();
    for at in [0, 8, 11, 12, 28, 44, 60, 79, 87, 88, 89, 113, 160] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&side, &bad).unwrap();
        decoder.open(&home, customer, std::slice::from_ref(&wrapped)).is_refused(&format!("byte {at}"));
    }
    fs::remove_file(&side).unwrap();
    assert_eq!(decoder.open(&home, customer, std::slice::from_ref(&wrapped)).code(), 3);
    let named = decoder.open(&home, "label:acme", &["--name".into(), "db/nightly".into()]);
    assert_eq!(named.plaintext(), unhex(&vectors["blobs"][0]["plaintext"]));
}

/// A ring that is not small any more is stored as what changed since a version that is whole.
#[tokio::test]
async fn it_takes_a_ring_that_is_stored_as_what_changed() {
    let Some(decoder) = Decoder::find() else { return };
    let (home, room, acme) = store().await;
    let first = acme.seal(pattern(10), options("n", Suite::Aes256Gcm)).await.unwrap();
    let mut last = first;
    let path = |version: u64| home.path().join(format!("store/keys/ring/{}/{version:016x}", acme.id()));
    let form = |version| fs::read(path(version)).unwrap()[8];
    while form(acme.info().await.unwrap().ring_version) == 1 {
        let far = SealOptions::new().retain_until(last.retain_until.plus(40));
        last = acme.seal(pattern(20), far).await.unwrap();
        assert!(acme.info().await.unwrap().ring_version < 600, "no version is stored as what changed");
    }
    let version = acme.info().await.unwrap().ring_version;
    assert_eq!((form(version), form(version - 1)), (2, 1));
    room.close().await.unwrap();
    let open = |which: &[&str]| {
        let which: Vec<String> = which.iter().map(ToString::to_string).collect();
        decoder.open(&home, &acme.id().to_string(), &which)
    };
    assert_eq!(open(&[&last.id.to_string()]).plaintext(), pattern(20));
    assert_eq!(open(&["--name", "n"]).plaintext(), pattern(10));
    // Its base is believed by its hash.
    let mut base = fs::read(path(version - 1)).unwrap();
    base[60] ^= 1;
    fs::write(path(version - 1), base).unwrap();
    assert_eq!(open(&[&last.id.to_string()]).code(), 1);
}

/// It imports nothing but Python's standard library, and nothing of ours.
#[test]
fn it_stands_alone() {
    let text = fs::read_to_string(Decoder::script()).unwrap();
    let imported: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("import ") || line.starts_with("from "))
        .collect();
    let known = ["argparse", "datetime", "hashlib", "hmac", "json", "os", "re", "struct", "sys"];
    assert_eq!(imported, known.map(|module| format!("import {module}")));
}

/// Every magic, label and context name that it uses is in the manual's text.
#[test]
fn what_it_knows_is_in_the_manual() {
    let manual = [include_str!("../src/manual/format.md"), include_str!("../src/manual/keys.md")].concat();
    let script = fs::read_to_string(Decoder::script()).unwrap();
    let ours = |text: &&str| {
        ["strongroom", "SRM-", "SRlkms", "c2sp.org/", "AEAD_"].iter().any(|begin| text.starts_with(begin))
    };
    let literals: Vec<&str> =
        script.split('"').filter(ours).map(|text| text.trim_end_matches("\\0")).collect();
    assert!(literals.len() > 25, "{literals:?}");
    for literal in literals {
        assert!(manual.contains(literal), "{literal}");
    }
}

async fn store() -> (tempfile::TempDir, Strongroom, Customer) {
    let home = tempfile::tempdir().unwrap();
    let kms = InsecureLocalKms::open(home.path().join("kms"), Arc::new(SystemClock), Arc::new(SystemEntropy));
    let registry = KmsRegistry::new().with(Arc::new(kms.unwrap()));
    let urls = StorageUrls::new(StorageUrl::directory(home.path().join("store")).unwrap());
    let storages = Storages::open(&urls, CreateRoot::Yes, Arc::new(SystemClock)).await.unwrap();
    let access = Access::new(Principal::service("tests").unwrap(), Purpose::SystemAdministration);
    let epoch_key = KeyChoice::New("local".into());
    let (room, _) =
        Strongroom::init(storages, registry, epoch_key, &access, Options::new(signer())).await.unwrap();
    let new = NewCustomer::new("acme".parse().unwrap(), KeyChoice::New("local".into()));
    room.add_customer(&access, new).await.unwrap();
    let acme = room.customer(&"acme".parse().unwrap(), access).await.unwrap();
    (home, room, acme)
}

fn options(name: &str, suite: Suite) -> SealOptions {
    let metadata = Metadata::new()
        .with_name(name.parse().unwrap())
        .with_content_type("text/plain; charset=utf-8")
        .unwrap()
        .with_pair("ward", "7 Süd")
        .unwrap()
        .with_pair("empty", "")
        .unwrap();
    SealOptions::new().metadata(metadata).suite(suite)
}

fn expected(name: &str, suite: Suite, blob: BlobId, retain_until: &str) -> Value {
    json!({
        "blob": blob,
        "name": name,
        "content_type": "text/plain; charset=utf-8",
        "pairs": { "ward": "7 Süd", "empty": "" },
        "retain_until": retain_until,
        "suite": suite.aead_name(),
    })
}

/// Plaintext in which every chunk and every position differs.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251).to_le_bytes()[0]).collect()
}

fn blob_path(home: &tempfile::TempDir, customer: CustomerId, blob: BlobId) -> PathBuf {
    home.path().join(format!("store/blobs/blob/{customer}/{}/{blob}", blob.day()))
}

fn unhex(text: &Value) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_str().unwrap().as_bytes()).unwrap()
}

struct Decoder;

impl Decoder {
    fn script() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/decoder/decode.py"))
    }

    /// `None` where there is no Python, unless that is not allowed.
    fn find() -> Option<Self> {
        if Command::new("python3").arg("--version").output().is_ok_and(|found| found.status.success()) {
            return Some(Self);
        }
        let required = std::env::var_os("STRONGROOM_TEST_REQUIRE_PYTHON").is_some_and(|value| value == "1");
        assert!(!required, "there is no python3, and STRONGROOM_TEST_REQUIRE_PYTHON=1");
        eprintln!("NOT RUN: the decoder of the manual needs python3");
        None
    }

    fn open(&self, home: &tempfile::TempDir, customer: &str, which: &[String]) -> Opened {
        let keys = home.path().join("kms").to_str().unwrap().to_owned();
        self.run(home, customer, &[which, &["--local-kms".into(), keys]].concat())
    }

    fn run(&self, home: &tempfile::TempDir, customer: &str, arguments: &[String]) -> Opened {
        let mut command = Command::new("python3");
        // Isolated: nothing is imported from the current directory or the user's.
        command.arg("-I").arg(Self::script()).arg(home.path().join("store")).arg(customer).args(arguments);
        Opened(command.output().unwrap())
    }
}

struct Opened(Output);

impl Opened {
    fn plaintext(&self) -> &[u8] {
        assert!(self.0.status.success(), "{}", String::from_utf8_lossy(&self.0.stderr));
        &self.0.stdout
    }

    fn code(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    /// Refused as what it is, not by a fault of the decoder's own.
    fn is_refused(&self, what: &str) {
        let error = String::from_utf8_lossy(&self.0.stderr);
        assert_eq!(self.code(), 1, "{what}: {error}");
        assert!(error.starts_with("decode.py: ") && error.lines().count() == 1, "{what}: {error}");
        assert!(self.0.stdout.is_empty(), "{what}");
    }
}
