//! Rotation of the audit log's signing key.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::audit::authority::{Authority, KeyChange};
use strongroom::audit::layout::{CertificateStage, FIRST_SHARD, Object, key_name, origin, verifier};
use strongroom::audit::log::verify_chain;
use strongroom::audit::segment::Segment;
use strongroom::audit::signer::{LocalSigner, LogSigner};
use strongroom::audit::verify::{Options as VerifyOptions, Report, verify};
use strongroom::audit::{Event, Record};
use strongroom::certificate;
use strongroom::id::OrderId;
use strongroom::order::OrderKind;
use strongroom::room::{Options, Strongroom};
use strongroom::secret::Secret;
use strongroom::shred::{Executed, OrderState};
use strongroom::tlog::checkpoint::{Checkpoint, SignedCheckpoint};
use strongroom::tlog::note::NoteSignature;
use strongroom::tlog::{PublicKey, SecretKey};
use strongroom::{Error, ErrorKind};

mod common;
#[path = "common/destroy.rs"]
mod destroy;

use common::signer::signer;
use common::{objects, options};
use destroy::{Vault, access, key, opens, people, request, seal};

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32]))
}

fn local(seed: u8) -> Arc<dyn LogSigner> {
    Arc::new(LocalSigner::new(secret(seed)))
}

/// The key that comes after that of [`signer`].
fn next() -> Arc<dyn LogSigner> {
    local(10)
}

fn with(vault: &Vault, main: Arc<dyn LogSigner>, other: Option<Arc<dyn LogSigner>>) -> Options {
    let mut options = options(&vault.clock);
    options.people = people();
    (options.log_signer, options.other_log_signer) = (main, other);
    options
}

async fn try_open(vault: &Vault, options: Options) -> Result<Strongroom, Error> {
    Strongroom::open(vault.raw.storages(), vault.kms.clone(), options).await
}

/// A program with these keys, in a shard of its own.
async fn node(vault: &Vault, main: Arc<dyn LogSigner>, other: Option<Arc<dyn LogSigner>>) -> Strongroom {
    let mut options = with(vault, main, other);
    options.own_shard = true;
    try_open(vault, options).await.unwrap()
}

async fn both(vault: &Vault) -> Strongroom {
    node(vault, signer(), Some(next())).await
}

/// An order for the next key, approved.
async fn ordered(vault: &Vault, key_of: &Arc<dyn LogSigner>) -> OrderId {
    let id = request(&vault.room, OrderKind::RotateLogKey { key: key_of.public() }, None).await;
    let done = vault.room.approve_order(&access(), id, &key("b")).await.unwrap();
    assert_eq!(done, Executed::Approved);
    id
}

async fn verified(storage: &Arc<InMemory>, authority: Option<PublicKey>, vault: &Vault) -> Report {
    let mut options = VerifyOptions::new(vault.room.now());
    options.authority = authority;
    verify(Arc::clone(storage) as Arc<dyn ObjectStore>, options).await.unwrap()
}

fn change_path(number: u32) -> Path {
    Object::KeyChange { number }.path()
}

async fn change(vault: &Vault, number: u32) -> KeyChange {
    let bytes = common::read(&vault.raw.audit, &change_path(number)).await;
    KeyChange::parse(&bytes, vault.room.store_id()).unwrap()
}

/// In which commits a change of the key is, by path.
async fn changed(storage: &InMemory) -> BTreeSet<String> {
    let has = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("\"event\":{\"key\":");
    let all = objects(storage).await.into_iter();
    all.filter(|(path, bytes)| path.as_ref().starts_with("wal/") && has(bytes))
        .map(|(path, _)| path.to_string())
        .collect()
}

async fn checkpoint(storage: &InMemory) -> SignedCheckpoint {
    let path = Object::Checkpoint { shard: FIRST_SHARD }.path();
    SignedCheckpoint::parse(&common::read(storage, &path).await).unwrap()
}

#[tokio::test]
async fn writers_at_work_go_on_with_the_next_key_and_stop_without_it() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let early = seal(&acme, "early").await;
    let (ready, unready) = (both(&vault).await, node(&vault, signer(), None).await);
    let (at_ready, at_unready) = (vault.of(&ready, "acme").await, vault.of(&unready, "acme").await);
    seal(&at_ready, "before").await;
    seal(&at_unready, "before").await;
    // A blob is being read while the key changes.
    let reading = at_ready.open(early).await.unwrap();

    let order = ordered(&vault, &next()).await;
    let rotated = both(&vault).await.rotate_log_key(&access(), order).await.unwrap();
    assert_eq!((rotated.number, rotated.key, rotated.resumed), (2, next().public(), false));
    assert_eq!(changed(&vault.raw.audit).await.len(), rotated.shards);
    assert!(rotated.shards >= 4, "{rotated:?}");

    assert_eq!(reading.bytes(1 << 20).await.unwrap(), "early");
    seal(&at_ready, "after").await;
    assert_eq!(opens(&at_ready, early).await, b"early");
    let refused = at_unready.open(early).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AuditUnavailable);
    assert!(refused.chain().contains("replaced by key number 2"), "{}", refused.chain());

    // A new program needs the new key.
    let error = try_open(&vault, with(&vault, signer(), None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{}", error.chain());
    assert!(error.chain().contains("number 2"), "{}", error.chain());
    let error = try_open(&vault, with(&vault, local(11), None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{}", error.chain());
    let fresh = node(&vault, next(), None).await;
    let at_fresh = vault.of(&fresh, "acme").await;
    assert_eq!(opens(&at_fresh, early).await, b"early");
    seal(&at_fresh, "later").await;

    ready.close().await.unwrap();
    fresh.close().await.unwrap();
    fresh.publish_log().await.unwrap();
    for known in [None, Some(signer().public()), Some(next().public())] {
        let report = verified(&vault.raw.audit, known, &vault).await;
        assert!(report.is_ok(), "{:?}", report.findings);
        assert_eq!(report.authority, Some(next().public()));
        let told = report.findings.iter().filter(|finding| finding.problem.code() == "key-changed").count();
        assert_eq!(told, usize::from(known != Some(next().public())), "{:?}", report.findings);
    }
    let stranger = verified(&vault.raw.audit, Some(local(11).public()), &vault).await;
    assert!(!stranger.is_ok());
    let orders = fresh.orders(&access()).await.unwrap();
    assert!(orders.iter().all(|order| order.state == OrderState::Done));
}

#[tokio::test]
async fn checkpoints_have_both_lines_as_long_as_both_keys_are_there() {
    let vault = Vault::new().await;
    let store = vault.room.store_id();
    let order = ordered(&vault, &next()).await;
    let room = both(&vault).await;
    room.publish_log().await.unwrap();
    let of = |key: PublicKey| verifier(store, FIRST_SHARD, key);
    let before = checkpoint(&vault.raw.audit).await;
    before.verify(&of(signer().public())).unwrap();
    assert!(before.verify(&of(next().public())).is_err());

    room.rotate_log_key(&access(), order).await.unwrap();
    room.publish_log().await.unwrap();
    let after = checkpoint(&vault.raw.audit).await;
    assert_eq!(after.note().signatures().len(), 2);
    assert_eq!(after.checkpoint().origin(), &origin(store, FIRST_SHARD));
    for key in [signer().public(), next().public()] {
        after.verify(&of(key)).unwrap();
    }
    room.close().await.unwrap();

    // Without the old one, its line is gone with the next checkpoint.
    let alone = try_open(&vault, with(&vault, next(), None)).await.unwrap();
    alone.log().say_alive().await.unwrap();
    alone.publish_log().await.unwrap();
    let alone = checkpoint(&vault.raw.audit).await;
    assert!(alone.verify(&of(signer().public())).is_err());
    alone.verify(&of(next().public())).unwrap();
}

#[tokio::test]
async fn a_rotation_that_was_stopped_is_run_again_with_the_same_order() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    let early = seal(&acme, "early").await;
    for _ in 0..2 {
        seal(&vault.of(&node(&vault, signer(), None).await, "acme").await, "more").await;
    }
    let order = ordered(&vault, &next()).await;
    let before = vault.raw.fork();
    let full = both(&vault).await.rotate_log_key(&access(), order).await.unwrap();
    let after = objects(&vault.raw.audit).await;
    let changes = changed(&vault.raw.audit).await;
    // What is there after each step: the statement, then one shard after the other.
    let none_used = before.fork();
    common::write(&none_used.audit, &change_path(2), change(&vault, 2).await.to_string()).await;
    let mut states = vec![(0, none_used)];
    for reached in 0..=changes.len() {
        let raw = vault.raw.fork();
        for change in changes.iter().skip(reached) {
            let (folder, first) = change.rsplit_once('/').unwrap();
            for (path, _) in &after {
                if path.as_ref().rsplit_once('/').is_some_and(|(of, seq)| of == folder && seq >= first) {
                    raw.audit.delete(path).await.unwrap();
                }
            }
            // A saved head of later would be of commits that were never there.
            let head = Path::from(folder.replace("wal", "head"));
            let _ = raw.audit.delete(&head).await;
            if let Some((_, bytes)) = objects(&before.audit).await.into_iter().find(|(path, _)| *path == head)
            {
                common::write(&raw.audit, &head, bytes).await;
            }
        }
        states.push((reached, raw));
    }
    for (reached, raw) in states {
        let stopped = Vault { raw, directory: tempfile::tempdir().unwrap(), ..vault_like(&vault) };
        let storage = &stopped.raw.audit;
        let report = verified(storage, None, &vault).await;
        let behind = report.findings.iter().any(|finding| finding.problem.code() == "key-behind");
        // A shard without a commit is behind nothing.
        let left = changes.iter().skip(reached).any(|path| !path.ends_with("/0000000000000000"));
        assert_eq!(behind, left, "{reached}: {:?}", report.findings);
        if reached == 0 {
            // Nothing is under the new key, and whoever has the old one goes on.
            let old = try_open(&stopped, with(&stopped, signer(), None)).await.unwrap();
            assert_eq!(opens(&stopped.of(&old, "acme").await, early).await, b"early");
            old.close().await.unwrap();
        }
        let room = both(&stopped).await;
        let again = room.rotate_log_key(&access(), order).await.unwrap();
        assert!(again.resumed);
        assert_eq!((again.number, again.key), (full.number, full.key));
        let once_more = room.rotate_log_key(&access(), order).await.unwrap();
        assert_eq!(once_more.shards, 0);
        assert_eq!(opens(&stopped.of(&room, "acme").await, early).await, b"early");
        room.close().await.unwrap();
        let report = verified(storage, None, &vault).await;
        assert!(report.is_ok(), "{reached}: {:?}", report.findings);
        assert!(!report.findings.iter().any(|finding| finding.problem.code() == "key-behind"));
    }
}

/// The parts of a vault that another one shares.
fn vault_like(vault: &Vault) -> Vault {
    let room = vault.room.clone();
    Vault {
        raw: vault.raw.clone(),
        room,
        kms: vault.kms.clone(),
        destroyers: vault.destroyers.clone(),
        provider: vault.provider,
        local: vault.local.clone(),
        clock: vault.clock.clone(),
        directory: tempfile::tempdir().unwrap(),
    }
}

#[tokio::test]
async fn an_order_brings_one_key_once() {
    let vault = Vault::new().await;
    let (first, second) = (ordered(&vault, &next()).await, ordered(&vault, &local(11)).await);
    let room = both(&vault).await;
    // The key that it names is not at hand.
    let error = room.rotate_log_key(&access(), second).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{}", error.chain());
    // One person is not two.
    let asked = request(&vault.room, OrderKind::RotateLogKey { key: next().public() }, None).await;
    let error = room.rotate_log_key(&access(), asked).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(changed(&vault.raw.audit).await.is_empty());
    assert_eq!(room.rotate_log_key(&access(), first).await.unwrap().number, 2);
    room.close().await.unwrap();

    // The next change, and none back.
    let again = node(&vault, next(), Some(local(11))).await;
    assert_eq!(again.rotate_log_key(&access(), second).await.unwrap().number, 3);
    let back = request(&again, OrderKind::RotateLogKey { key: signer().public() }, None).await;
    again.approve_order(&access(), back, &key("b")).await.unwrap();
    let error = again.rotate_log_key(&access(), back).await.unwrap_err();
    assert!(!error.kind().is_retryable(), "{}", error.chain());
    again.close().await.unwrap();
    let newest = try_open(&vault, with(&vault, local(11), None)).await.unwrap();
    newest.publish_log().await.unwrap();
    for known in [None, Some(signer().public()), Some(next().public()), Some(local(11).public())] {
        let report = verified(&vault.raw.audit, known, &vault).await;
        assert!(report.is_ok(), "{:?}", report.findings);
    }
    // Whoever reads from the first key on comes to the newest.
    let storage: Arc<dyn ObjectStore> = vault.raw.audit.clone();
    verify_chain(storage, vault.room.store_id(), 0, signer().public()).await.unwrap();
}

#[tokio::test]
async fn each_thing_that_is_not_as_it_was_written_is_named() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 300).await;
    seal(&acme, "blob").await;
    let order = ordered(&vault, &next()).await;
    let room = both(&vault).await;
    seal(&vault.of(&room, "acme").await, "blob").await;
    room.rotate_log_key(&access(), order).await.unwrap();
    seal(&vault.of(&room, "acme").await, "blob").await;
    room.close().await.unwrap();
    vault.clock.pass(Duration::from_secs(3600));
    let clean = vault.raw.fork();
    let report = verified(&clean.audit, None, &vault).await;
    assert!(report.is_ok(), "{:?}", report.findings);

    let statement = common::read(&clean.audit, &change_path(2)).await;
    let named = async |storage: Arc<InMemory>, path: &Path, code: &str| {
        let report = verified(&storage, None, &vault).await;
        let found = report.findings.iter().any(|finding| {
            finding.path == path.as_ref() && finding.problem.code() == code && !report.is_ok()
        });
        assert!(found, "{path}: {code}: {:?}", report.findings);
    };
    // Changed.
    let fork = clean.fork();
    let mut bytes = statement.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    common::write(&fork.audit, &change_path(2), bytes).await;
    named(fork.audit, &change_path(2), "unreadable").await;
    // Removed, or withheld.
    let fork = clean.fork();
    fork.audit.delete(&change_path(2)).await.unwrap();
    named(fork.audit.clone(), &change_path(2), "missing").await;
    let error = Strongroom::open(fork.storages(), vault.kms.clone(), with(&vault, next(), None)).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Configuration);
    // Doubled, and out of sequence.
    let fork = clean.fork();
    common::write(&fork.audit, &change_path(3), statement.clone()).await;
    named(fork.audit, &change_path(3), "misplaced").await;
    let fork = clean.fork();
    common::write(&fork.audit, &change_path(4), statement.clone()).await;
    named(fork.audit, &change_path(3), "missing").await;
    // A commit with the record is changed or removed.
    for path in changed(&clean.audit).await {
        let path = Path::from(path);
        let fork = clean.fork();
        let mut bytes = common::read(&fork.audit, &path).await;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        common::write(&fork.audit, &path, bytes).await;
        named(fork.audit, &path, "unreadable").await;
        // Where it is the last of its shard, only the first shard tells: the log was not published.
        let fork = clean.fork();
        fork.audit.delete(&path).await.unwrap();
        let report = verified(&fork.audit, None, &vault).await;
        let codes: BTreeSet<_> = report.findings.iter().map(|finding| finding.problem.code()).collect();
        assert!(!report.is_ok() && (codes.contains("missing") || codes.contains("key-behind")), "{codes:?}");
    }
    // All of it is rolled back, and the statement is not.
    let fork = clean.fork();
    for path in changed(&clean.audit).await {
        let (folder, first) = path.rsplit_once('/').unwrap();
        for (path, _) in objects(&fork.audit).await {
            if path.as_ref().rsplit_once('/').is_some_and(|(of, seq)| of == folder && seq >= first) {
                fork.audit.delete(&path).await.unwrap();
            }
        }
    }
    named(fork.audit, &change_path(2), "key-behind").await;
    // The marker is that of another key.
    let fork = clean.fork();
    let marker = common::read(&fork.audit, &Object::Marker.path()).await;
    let text = String::from_utf8(marker).unwrap();
    let other = text.replace(&signer().public().to_string(), &local(12).public().to_string());
    common::write(&fork.audit, &Object::Marker.path(), other).await;
    let report = verified(&fork.audit, Some(signer().public()), &vault).await;
    assert!(report.findings.iter().any(|finding| finding.problem.code() == "other-key"));
}

#[tokio::test]
async fn a_stolen_old_key_signs_neither_a_checkpoint_nor_a_segment_of_what_came_after() {
    let vault = Vault::new().await;
    let store = vault.room.store_id();
    let order = ordered(&vault, &next()).await;
    let room = both(&vault).await;
    room.rotate_log_key(&access(), order).await.unwrap();
    for _ in 0..2 {
        vault.clock.pass(Duration::from_secs(86_400));
        room.maintain_log().await.unwrap();
    }
    room.close().await.unwrap();
    assert!(verified(&vault.raw.audit, None, &vault).await.is_ok());

    let fork = vault.raw.fork();
    let published = checkpoint(&fork.audit).await;
    let signed = Checkpoint::new(origin(store, FIRST_SHARD), *published.checkpoint().head()).unwrap();
    let line = secret(9).sign(signed.to_string().as_bytes());
    let line = NoteSignature::ed25519(key_name(store, FIRST_SHARD), signer().public(), &line);
    let stolen = SignedCheckpoint::new(signed, vec![line]).unwrap();
    let path = Object::Checkpoint { shard: FIRST_SHARD }.path();
    common::write(&fork.audit, &path, stolen.to_string()).await;
    let report = verified(&fork.audit, None, &vault).await;
    let named = |finding: &strongroom::audit::verify::Finding| {
        finding.path == path.as_ref() && finding.problem.code() == "old-key"
    };
    assert!(report.findings.iter().any(named), "{:?}", report.findings);
    // The next publishing signs the same tree anew.
    let again =
        Strongroom::open(fork.storages(), vault.kms.clone(), with(&vault, next(), None)).await.unwrap();
    again.publish_log().await.unwrap();
    checkpoint(&fork.audit).await.verify(&verifier(store, FIRST_SHARD, next().public())).unwrap();

    let fork = vault.raw.fork();
    let authority = Authority::from(signer().public());
    authority.extend(change(&vault, 2).await).unwrap();
    let mut forged = 0;
    for (path, bytes) in objects(&fork.audit).await {
        let Some(Object::Segment(_)) = Object::at(&path) else { continue };
        let segment = Segment::decode(&bytes.into(), &authority).unwrap();
        let after =
            segment.commits().iter().any(|(commit, _)| commit.header().endorser(&authority).unwrap() == 2);
        let body: Vec<u8> = segment.commits().iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
        let signature = secret(9).sign(&segment.header().message());
        let stolen = segment.header().object(signature, &body);
        assert_eq!(Segment::decode(&stolen, &authority).is_err(), after);
        common::write(&fork.audit, &path, stolen.to_vec()).await;
        let report = verified(&fork.audit, None, &vault).await;
        let found = report.findings.iter().any(|finding| {
            finding.path == path.as_ref() && finding.problem.to_string().contains("not in force any longer")
        });
        assert_eq!(found, after, "{:?}", report.findings);
        forged += usize::from(after);
    }
    assert!(forged > 0);
}

#[tokio::test]
async fn certificates_of_before_and_after_verify_with_the_statement() {
    let mut vault = Vault::new().await;
    let acme = vault.customer("acme", 1).await;
    seal(&acme, "before").await;
    vault.days(9).await;
    let order = ordered(&vault, &next()).await;
    vault.room = try_open(&vault, with(&vault, signer(), Some(next()))).await.unwrap();
    vault.room.rotate_log_key(&access(), order).await.unwrap();
    let globex = vault.customer("globex", 1).await;
    seal(&globex, "after").await;
    vault.days(9).await;
    vault.room.publish_log().await.unwrap();
    let report = vault.room.verify_log().await.unwrap();
    assert!(report.is_ok(), "{:?}", report.findings);

    let statement = change(&vault, 2).await;
    let mut seen = BTreeSet::new();
    for (path, note) in objects(&vault.raw.audit).await {
        let Some(Object::Certificate { stage: CertificateStage::Interim, .. }) = Object::at(&path) else {
            continue;
        };
        let alone = |key: PublicKey| certificate::verify(&note, &key, &[], 0).is_ok();
        let signed_by = |key: PublicKey| certificate::Certificate::parse(&note, &key).is_ok();
        seen.insert(signed_by(next().public()));
        for key in [signer().public(), next().public()] {
            let chain = Authority::from(key);
            chain.extend(statement.clone()).unwrap();
            certificate::verify(&note, &chain, &[], 0).unwrap();
            assert!(signed_by(key) || !alone(key), "{path}");
        }
    }
    assert_eq!(seen, [false, true].into());
}

/// That a record of the change is in the one form that the manual has.
#[tokio::test]
async fn the_record_names_the_statement() {
    let vault = Vault::new().await;
    let order = ordered(&vault, &next()).await;
    let room = both(&vault).await;
    room.rotate_log_key(&access(), order).await.unwrap();
    let statement = change(&vault, 2).await;
    assert_eq!((statement.body().number, statement.body().order.id), (2, order));
    let records: Vec<Record> = common::records_since(&room, 0).await;
    let own = records.iter().find_map(|record| match &record.event {
        Event::Key(change) => Some(*change),
        _ => None,
    });
    assert_eq!(own.unwrap().digest, statement.digest());
}
