//! Certificates over a small log that is made up here, and what anyone could change in
//! them.

use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

use super::*;
use crate::access::{Access, Principal, Purpose};
use crate::audit::commit::leaf_of_line;
use crate::audit::layout::{CertificateStage, key_name, origin};
use crate::audit::signer::LocalSigner;
use crate::audit::{Action, Event, Intent, KeyRef, Outcome, OutcomeResult, Record, RingRef};
use crate::error::{Error, ErrorKind};
use crate::id::{BlobId, KekId, KmsKeyId, OrderId, RequestId, WriterId};
use crate::merkle::{TreeHead, prove_inclusion, root};
use crate::secret::Secret;
use crate::time::{Day, Timestamp};
use crate::tlog::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::tlog::proof::TlogProof;
use crate::tlog::{KeyName, NamedKey, SecretKey};

mod bundle;
mod epoch;

const STORE: StoreId = StoreId::from_bytes([7; 16]);
const ACME: CustomerId = CustomerId::from_bytes([1; 16]);
const RING: RingRef = RingRef { version: 42, hash: [0xab; 32] };
const ORDER: OrderId = OrderId::from_bytes([5; 16]);

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32]))
}

fn signer() -> LocalSigner {
    LocalSigner::new(secret(9))
}

fn witness(seed: u8) -> NamedKey {
    NamedKey::new("w.example".parse().unwrap(), secret(seed))
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn kek(byte: u8) -> KekId {
    KekId::from_bytes([byte; 16])
}

fn epoch_key(epoch: u32) -> KmsKeyId {
    format!("aws-kms:arn:aws:kms:eu-central-1:000000000000:key/{epoch}").parse().unwrap()
}

/// The intents of a destruction, each a minute after the one before.
fn intents(order: Option<OrderId>, epochs: std::ops::RangeInclusive<u32>) -> Vec<Intent> {
    let access = Access::new(Principal::service("sweeper").unwrap(), Purpose::RecordManagement);
    let mut made = 0;
    let mut new = |action, key: Option<KeyRef>| {
        made += 1;
        let intent = Intent::new(RequestId::from_bytes([made; 16]), &access, action);
        // What concerns the store is in the chain of its own id.
        let of_store = matches!(key, Some(KeyRef::Epoch { .. }));
        let customer = if of_store { CustomerId::from_bytes(*STORE.as_bytes()) } else { ACME };
        Intent { key, customer: Some(customer), ..intent }
    };
    let day = "2026-10-31".parse().unwrap();
    let mut all = Vec::new();
    for byte in [1, 2] {
        all.push(Intent { order, ..new(Action::ShredPend, Some(KeyRef::Kek { id: kek(byte), day })) });
        let drop = new(Action::ShredDrop, Some(KeyRef::Kek { id: kek(byte), day }));
        let certificate = Some(CertificateId::derive(STORE, ACME, 42));
        all.push(Intent { order, certificate, ring: Some(RING), ..drop });
    }
    all.push(Intent { order, ring: Some(RING), ..new(Action::RingWrite, None) });
    for epoch in epochs {
        let key = Some(KeyRef::Epoch { kms_key: epoch_key(epoch), epoch });
        all.push(new(Action::EpochDisable, key.clone()));
        all.push(new(Action::EpochDelete, key));
    }
    all
}

fn minute(number: usize) -> Timestamp {
    time(&format!("2026-11-08T03:{number:02}:00.000000Z"))
}

/// A log of these intents and their outcomes, and proofs of all.
fn log(store: StoreId, seed: u8, intents: &[Intent], result: OutcomeResult) -> Vec<Evidence> {
    let record = |at: usize, event| Record {
        nonce: RequestId::from_bytes([at.to_le_bytes()[0]; 16]),
        time: minute(at / 2),
        writer: WriterId::from_bytes([3; 16]),
        event,
        chain: None,
        stored: None,
    };
    let mut lines = Vec::new();
    for intent in intents {
        let Intent { request, customer, .. } = *intent;
        lines.push(record(lines.len(), Event::Intent(intent.clone())));
        let outcome = Outcome { request, customer, result, bytes: None, key: None, kms_request: None };
        lines.push(record(lines.len(), Event::Outcome(outcome)));
    }
    let lines: Vec<_> = lines.iter().map(|record| serde_json::to_vec(record).unwrap()).collect();
    let leaves: Vec<_> = lines.iter().map(|line| leaf_of_line(line).hash).collect();
    let head = TreeHead { size: leaves.len() as u64, root: root(&leaves) };
    let checkpoint = Checkpoint::new(origin(store, 0), head).unwrap();
    let signature = NamedKey::new(key_name(store, 0), secret(seed)).sign(&checkpoint.to_string());
    let cosignature = witness(4).cosign(&checkpoint, minute(0));
    let checkpoint = SignedCheckpoint::new(checkpoint, vec![signature, cosignature]).unwrap();
    let proof = |index: usize| {
        let path = prove_inclusion(&leaves, index).unwrap();
        let proof = TlogProof::new(index as u64, path, checkpoint.clone()).unwrap();
        proof.with_extra(lines[index].clone()).unwrap().to_string()
    };
    let evidence = intents.iter().enumerate().map(|(at, intent)| Evidence {
        what: What::ALL.into_iter().find(|what| what.action() == intent.action).unwrap(),
        intent: proof(2 * at),
        outcome: Some(proof(2 * at + 1)),
    });
    evidence.collect()
}

fn key(byte: u8, born: u32, last: u32) -> DroppedKey {
    DroppedKey {
        id: kek(byte),
        kind: KeyKind::Day,
        day: Some("2026-10-31".parse().unwrap()),
        check_value: CheckValue([byte; 8]),
        minted: time("2025-04-30T00:00:00.000000Z"),
        born,
        last,
    }
}

fn blobs() -> Blobs {
    let ids = |numbers: std::ops::Range<u8>| numbers.map(|n| BlobId::from_bytes([n; 16])).collect();
    Blobs::of(&ids(0..5), &ids(4..6), Some(12_345))
}

/// A good certificate of the first format. The epochs of its keys are 3 to 5.
fn body(stage: CertificateStage) -> CertificateBody {
    let last = stage == CertificateStage::Final;
    let survivors = vec![
        Survivors { class: SurvivorClass::Held, blobs: 1 },
        Survivors { class: SurvivorClass::Extended, blobs: 2 },
    ];
    let epochs: Vec<CertifiedEpoch> = (3..=5)
        .zip([5usize, 7, 9])
        .map(|(epoch, at)| EpochEnd {
            epoch,
            kms_key: epoch_key(epoch),
            disabled: minute(at),
            scheduled: minute(at + 1),
            gone: time("2026-11-30T00:00:00.000000Z"),
            seen: GoneBy::KmsReportsGone,
        })
        .map(CertifiedEpoch::InFull)
        .collect();
    let intents = intents(None, 3..=if last { 5 } else { 2 });
    CertificateBody {
        format: Format::V1,
        stage,
        certificate: CertificateId::derive(STORE, ACME, RING.version),
        store: STORE,
        customer: ACME,
        issued: time("2026-12-01T00:00:00.000000Z"),
        method: Method::new(stage, Assurance::Attested),
        scope: Scope { keys: vec![key(1, 3, 4), key(2, 4, 5)], blobs: blobs(), survivors: survivors.clone() },
        policy: Policy { version: 2, retention: "P18M".parse().unwrap(), window_days: 7 },
        authority: Authority::Routine,
        run_by: Principal::service("sweeper").unwrap(),
        ring: RingTransition { version: RING.version, hash: RING.hash, previous: RING.version - 1 },
        time: TimeEvidence {
            at: minute(0),
            readings: vec![
                ClockReading { source: ClockSource::Host, at: minute(1) },
                ClockReading { source: ClockSource::Log, at: minute(0) },
            ],
        },
        epochs: if last { epochs } else { Vec::new() },
        caches: last.then_some(Caches { ttl_seconds: 600, over: minute(30) }),
        verification: Verification::required(stage).to_vec(),
        limits: Limit::of(stage, Assurance::Attested, &survivors),
        missing: Vec::new(),
        ciphertext: last.then_some(Ciphertext { objects: 6, versions: Some(6) }),
        evidence: log(STORE, 9, &intents, OutcomeResult::Ok),
    }
}

/// The same by an order of two people.
fn ordered(stage: CertificateStage) -> CertificateBody {
    let mut body = body(stage);
    let last = stage == CertificateStage::Final;
    let intents = intents(Some(ORDER), 3..=if last { 5 } else { 2 });
    body.evidence = log(STORE, 9, &intents, OutcomeResult::Ok);
    body.authority = Authority::Order(Box::new(order(ORDER, ["p-17", "p-4"], [21, 22])));
    body
}

fn order(id: OrderId, people: [&str; 2], keys: [u8; 2]) -> SignedOrder {
    let person = |at: usize| Principal::person(people[at]).unwrap();
    let text = serde_json::json!({
        "format": "strongroom/order/v1",
        "id": id,
        "store": STORE,
        "requested_by": person(0),
        "customer": ACME,
    });
    let text = format!("{text:#}\n");
    let sign =
        |at: usize| NamedKey::new(person(at).to_string().parse().unwrap(), secret(keys[at])).sign(&text);
    let signer = |at: usize| Signer { principal: person(at), key: secret(keys[at]).public() };
    SignedOrder {
        id,
        requester: signer(0),
        approver: signer(1),
        register: RingRef { version: 3, hash: [0xcd; 32] },
        note: Note::new(text.clone(), vec![sign(0), sign(1)]).unwrap().to_string(),
    }
}

/// For tests of others.
pub(crate) mod testing {
    use super::*;
    use crate::audit::layout::Object;

    /// The drop of key 1 by a ring version.
    pub(crate) fn drop_of(request: RequestId, customer: CustomerId, ring: RingRef) -> Intent {
        let access = Access::new(Principal::service("test").unwrap(), Purpose::Operations);
        let intent = Intent::new(request, &access, Action::ShredDrop);
        let key = Some(KeyRef::Kek { id: kek(1), day: "2026-10-31".parse().unwrap() });
        Intent { key, customer: Some(customer), ring: Some(ring), ..intent }
    }

    /// The disabling of an epoch's KMS key, or the scheduling of its deletion.
    pub(crate) fn end_of(request: RequestId, store: StoreId, epoch: u32, action: Action) -> Intent {
        let access = Access::new(Principal::service("test").unwrap(), Purpose::Operations);
        let key = Some(KeyRef::Epoch { kms_key: epoch_key(epoch), epoch });
        let customer = Some(CustomerId::from_bytes(*store.as_bytes()));
        Intent { key, customer, ..Intent::new(request, &access, action) }
    }

    /// The paper of an epoch's end, and where it lives. The evidence has to be of the
    /// disabling and of the scheduling, at these times.
    pub(crate) fn epoch_end(
        store: StoreId,
        epoch: u32,
        [disabled, scheduled]: [Timestamp; 2],
        evidence: Vec<Evidence>,
    ) -> (Object, String) {
        let step = |at| EndStep { at, answer: StepAnswer::Ok };
        let gone = scheduled.saturating_add(LONGEST_WAIT);
        let (disabled, scheduled) = (step(disabled), step(scheduled));
        let body = EpochPaperBody {
            store,
            epoch,
            kms_key: epoch_key(epoch),
            disabled,
            scheduled,
            gone,
            issued: gone,
            evidence,
            ..super::epoch::body(epoch)
        };
        super::super::epoch::check(&body, &secret(9).public(), &[], 0).unwrap();
        (Object::EpochEnd { epoch }, super::epoch::note(&body, 9))
    }

    /// A final certificate that names these papers, after the same drop.
    pub(crate) fn last(interim: &str, papers: &[String]) -> (Object, String) {
        let mut body = Certificate::unverified(interim.as_bytes()).unwrap().body().clone();
        let verified = papers.iter().map(|paper| {
            verify_epoch(paper.as_bytes(), body.store, &secret(9).public(), &[], 0).unwrap().paper
        });
        let papers: BTreeMap<u32, EndOnPaper> = verified.map(|paper| (paper.end.epoch, paper)).collect();
        let key = &mut body.scope.keys[0];
        (key.born, key.last) = (*papers.keys().next().unwrap(), *papers.keys().next_back().unwrap());
        let survivors = body.scope.survivors.clone();
        body.format = Format::V2;
        body.stage = CertificateStage::Final;
        body.issued = time("2027-12-01T00:00:00.000000Z");
        body.method = Method::new(body.stage, Assurance::Attested);
        body.epochs = papers.values().map(|paper| CertifiedEpoch::Named(paper.name())).collect();
        body.caches = Some(Caches { ttl_seconds: 600, over: body.issued });
        body.verification = Verification::required(body.stage).to_vec();
        body.limits = Limit::of(body.stage, Assurance::Attested, &survivors);
        check::check(&body, &secret(9).public(), &[], 0).unwrap();
        check::ends(&body, &papers).unwrap();
        let (text, name) = (body.to_text(), certificate_key_name(body.store));
        let note = Note::new(text.clone(), vec![NamedKey::new(name, secret(9)).sign(&text)]).unwrap();
        (Object::Certificate { id: body.certificate, stage: body.stage }, note.to_string())
    }

    /// A certificate of that, and where it lives. The log's key is made of nines.
    pub(crate) fn interim(
        store: StoreId,
        customer: CustomerId,
        ring: RingRef,
        evidence: Vec<Evidence>,
    ) -> (Object, String) {
        let mut body = body(CertificateStage::Interim);
        let id = CertificateId::derive(store, customer, ring.version);
        (body.store, body.customer, body.certificate) = (store, customer, id);
        body.ring = RingTransition { version: ring.version, hash: ring.hash, previous: ring.version - 1 };
        body.run_by = Principal::service("test").unwrap();
        body.scope.keys.truncate(1);
        body.evidence = evidence;
        check::check(&body, &secret(9).public(), &[], 0).unwrap();
        let (text, name) = (body.to_text(), certificate_key_name(store));
        let note = Note::new(text.clone(), vec![NamedKey::new(name, secret(9)).sign(&text)]).unwrap();
        (Object::Certificate { id, stage: CertificateStage::Interim }, note.to_string())
    }
}

/// The end of an epoch in a certificate of the first format.
fn end(body: &mut CertificateBody, at: usize) -> &mut EpochEnd {
    match &mut body.epochs[at] {
        CertifiedEpoch::InFull(end) => end,
        CertifiedEpoch::Named(_) => panic!("it is of the second format"),
    }
}

async fn signed(body: CertificateBody) -> Certificate {
    sign(body, &BTreeMap::new(), &signer()).await.unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// That a certificate with this change is neither signed nor, if it was, verified.
#[track_caller]
fn refused(from: &CertificateBody, what: CertificateError, change: impl FnOnce(&mut CertificateBody)) {
    let mut body = from.clone();
    change(&mut body);
    let key = secret(9).public();
    let source = |error: Error| *std::error::Error::source(&error).unwrap().downcast_ref().unwrap();
    let found: CertificateError = source(check::check(&body, &key, &[], 0).unwrap_err());
    assert_eq!(found, what);
    let name = certificate_key_name(body.store);
    let text = body.to_text();
    let note = Note::new(text.clone(), vec![NamedKey::new(name, secret(9)).sign(&text)]).unwrap();
    let error = verify(note.to_string().as_bytes(), &key, &[], 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
}

#[test]
fn ids_are_derived_as_specified() {
    // Made with Python's hashlib.
    let id = CertificateId::derive(STORE, ACME, 42);
    assert_eq!(data_encoding::HEXLOWER.encode(id.as_bytes()), "12beb5ffda04574fa728559c83d488aa");
    assert_ne!(id, CertificateId::derive(STORE, ACME, 43));
    assert_ne!(id, CertificateId::derive(STORE, CustomerId::from_bytes([2; 16]), 42));
    assert_ne!(id, CertificateId::derive(StoreId::from_bytes([8; 16]), ACME, 42));
}

#[tokio::test]
async fn a_certificate_verifies_and_says_what_it_was_made_of() {
    for body in [
        body(CertificateStage::Interim),
        body(CertificateStage::Final),
        ordered(CertificateStage::Interim),
        ordered(CertificateStage::Final),
    ] {
        let certificate = signed(body.clone()).await;
        let note = certificate.to_note();
        assert!(note.starts_with("{\n  \"format\": \"strongroom/certificate/v1\",\n"), "{note}");
        let verified = verify(note.as_bytes(), &secret(9).public(), &[], 0).unwrap();
        assert_eq!(verified.body, body);
        assert_eq!(verified.proven.len(), 2 * body.evidence.len());
        assert_eq!(Certificate::parse(note.as_bytes(), &secret(9).public()).unwrap(), certificate);
        let error = verify(note.as_bytes(), &secret(8).public(), &[], 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        // One witness has seen that log, and another has not.
        let witnesses = [witness(4).cosigner(), witness(5).cosigner()];
        let seen = |quorum| verify(note.as_bytes(), &secret(9).public(), &witnesses, quorum);
        assert!(seen(1).unwrap().proven.iter().all(|proved| proved.cosigned.len() == 1));
        assert_eq!(seen(2).unwrap_err().kind(), ErrorKind::Integrity);

        assert!(verified.page.lines().all(|line| line.chars().count() <= 100), "{}", verified.page);
        for limit in &body.limits {
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words(&verified.page).contains(&words(limit.sentence())));
        }
    }
}

#[tokio::test]
async fn no_character_of_it_can_be_changed() {
    let mut body = ordered(CertificateStage::Interim);
    body.scope.keys.truncate(1);
    // The drop of the one key, and the writing of the ring.
    body.evidence = vec![body.evidence[1].clone(), body.evidence[4].clone()];
    let certificate = signed(body).await;
    let (note, key) = (certificate.to_note().into_bytes(), secret(9).public());
    assert!(verify(&note, &key, &[], 0).is_ok());
    for at in 0..note.len() {
        let mut altered = note.clone();
        altered[at] ^= 1;
        assert!(Certificate::parse(&altered, &key).is_err(), "byte {at}");
    }
    for at in (0..note.len()).step_by(7) {
        assert!(Certificate::parse(&note[..at], &key).is_err(), "cut to {at}");
    }
    let longer = [note.as_slice(), b"\n"].concat();
    assert!(Certificate::parse(&longer, &key).is_err());
}

#[tokio::test]
async fn a_note_of_another_kind_or_with_more_signatures_is_none() {
    let key = secret(9).public();
    let certificate = signed(body(CertificateStage::Interim)).await;
    let text = certificate.note.text().to_owned();
    let with = |name: KeyName, seed| NamedKey::new(name, secret(seed)).sign(&text);
    let good = with(certificate_key_name(STORE), 9);
    let parse = |text: &str, signatures: Vec<_>| {
        let note = Note::new(text.to_owned(), signatures).unwrap().to_string();
        Certificate::parse(note.as_bytes(), &key).map_err(|error| error.kind())
    };
    assert!(parse(&text, vec![good.clone()]).is_ok());
    // As a checkpoint's, another key's, and beside another's.
    for signatures in [
        vec![with(key_name(STORE, 0), 9)],
        vec![with(certificate_key_name(STORE), 8)],
        vec![good.clone(), with("person:p-1".parse().unwrap(), 8)],
        vec![good.clone(), good.clone()],
    ] {
        assert_eq!(parse(&text, signatures), Err(ErrorKind::Integrity));
    }
    let sign = |text: &str| vec![NamedKey::new(certificate_key_name(STORE), secret(9)).sign(text)];
    for (text, kind) in [
        (text.replace("certificate/v1", "certificate/v4"), ErrorKind::UnsupportedFormat),
        // It may not call itself what it is not: the epochs are as the first format has them.
        (text.replace("certificate/v1", "certificate/v01"), ErrorKind::UnsupportedFormat),
        (text.replace("certificate/v1", "order/v1"), ErrorKind::Integrity),
        (text.replace("  \"stage\"", "   \"stage\""), ErrorKind::Integrity),
        (text.replacen('{', "{\n  \"more\": 1,", 1), ErrorKind::Integrity),
        ("{}\n".to_owned(), ErrorKind::Integrity),
        ("text\n".to_owned(), ErrorKind::Integrity),
    ] {
        assert_eq!(parse(&text, sign(&text)), Err(kind), "{text}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    use CertificateError::Contradiction;
    let (interim, last) = (body(CertificateStage::Interim), body(CertificateStage::Final));
    let is = |part| Contradiction(part);
    refused(&last, is("id"), |body| body.certificate = CertificateId::from_bytes([1; 16]));
    refused(&last, is("id"), |body| body.ring.version += 1);
    refused(&last, is("ring version"), |body| body.ring.previous -= 1);
    refused(&last, is("list of keys"), |body| body.scope.keys.clear());
    refused(&last, is("list of keys"), |body| body.scope.keys.swap(0, 1));
    refused(&last, is("list of keys"), |body| body.scope.keys[1].id = kek(1));
    refused(&last, is("list of keys"), |body| body.scope.keys[0].day = None);
    refused(&last, is("list of keys"), |body| body.scope.keys[0].kind = KeyKind::Hold);
    refused(&last, is("list of keys"), |body| body.scope.keys[0].born = 9);
    refused(&last, is("count of blobs"), |body| {
        (body.scope.blobs.certain, body.scope.blobs.uncertain) = (0, 0)
    });
    refused(&last, is("count of blobs"), |body| body.scope.blobs.certain = u64::MAX);
    refused(&last, is("list of survivors"), |body| body.scope.survivors.swap(0, 1));
    refused(&last, is("list of survivors"), |body| body.scope.survivors[0].blobs = 0);
    refused(&last, is("list of clocks"), |body| {
        body.time.readings.pop();
    });
    refused(&last, is("list of clocks"), |body| body.time.readings[1].source = ClockSource::Host);
    refused(&last, is("time"), |body| body.time.at = minute(2));
    refused(&last, is("list of what was verified"), |body| {
        body.verification.remove(1);
    });
    refused(&last, is("list of what was verified"), |body| body.verification.swap(0, 1));
    refused(&last, is("list of what it does not cover"), |body| {
        body.limits.pop();
    });
    refused(&interim, is("list of what it does not cover"), |body| {
        body.limits.remove(0);
    });

    refused(&interim, is("category"), |body| body.method.category = Category::Purge);
    refused(&interim, is("category"), |body| body.stage = CertificateStage::Final);
    refused(&interim, is("stage"), |body| body.epochs = last.epochs.clone());
    refused(&interim, is("stage"), |body| body.caches = last.caches);
    refused(&interim, is("stage"), |body| body.ciphertext = last.ciphertext);
    refused(&last, is("time of caches"), |body| body.caches = None);
    refused(&last, is("time of caches"), |body| body.caches.as_mut().unwrap().ttl_seconds = 3600);
    refused(&last, is("time of caches"), |body| body.caches.as_mut().unwrap().over = minute(8));
    refused(&last, is("list of epochs"), |body| {
        body.epochs.remove(1);
    });
    refused(&last, is("list of epochs"), |body| body.epochs.swap(0, 1));
    refused(&last, is("list of epochs"), |body| body.scope.keys[1].last = 6);
    refused(&last, is("list of epochs"), |body| body.scope.keys[1].last = u32::MAX);
    refused(&last, is("list of epochs"), |body| body.scope.keys[0].born = 4);
    refused(&last, is("end of an epoch"), |body| end(body, 0).gone = minute(1));
    refused(&last, is("end of an epoch"), |body| end(body, 0).seen = GoneBy::FileRemoved);
    refused(&last, is("end of an epoch"), |body| body.issued = minute(40));
}

#[test]
fn best_effort_is_never_purge() {
    let mut body = body(CertificateStage::Final);
    let survivors = body.scope.survivors.clone();
    // Files are not attested, whatever is claimed.
    refused(&body, CertificateError::Contradiction("end of an epoch"), |body| {
        end(body, 0).kms_key = "local:x".parse().unwrap();
    });
    body.method = Method::new(CertificateStage::Final, Assurance::BestEffort);
    assert_eq!(body.method.category, Category::Clear);
    refused(&body, CertificateError::Contradiction("list of what it does not cover"), |_| {});
    body.limits = Limit::of(CertificateStage::Final, Assurance::BestEffort, &survivors);
    check::check(&body, &secret(9).public(), &[], 0).unwrap();
    refused(&body, CertificateError::Contradiction("category"), |body| {
        body.method.category = Category::Purge
    });
    // The first format claims nothing for a provider that is unknown, not even the least.
    refused(&body, CertificateError::Contradiction("end of an epoch"), |body| {
        end(body, 0).kms_key = "other:x".parse().unwrap();
    });
    body.method = Method::new(CertificateStage::Final, Assurance::NotProvable);
    body.limits = Limit::of(CertificateStage::Final, Assurance::NotProvable, &survivors);
    refused(&body, CertificateError::Contradiction("category"), |_| {});
}

#[test]
fn makers_and_checkers_go_by_one_table_of_providers() {
    let most = |key: &str| Assurance::of(&key.parse().unwrap());
    assert_eq!(most("aws-kms:x"), Assurance::ReportedGone);
    assert_eq!(most("local:x"), Assurance::FilesRemoved);
    // Whatever it is called: only what is in the table shows anything.
    for unknown in ["other:x", "aws:x", "aws-kms2:x", "locals:x", "gcp-kms:projects/x"] {
        assert_eq!(most(unknown), Assurance::NotProvable, "{unknown}");
    }
    let key = |text: &str| text.parse::<KmsKeyId>().unwrap();
    assert_eq!(weakest(&[key("aws-kms:a"), key("local:a")]), Assurance::FilesRemoved);
    assert_eq!(weakest(&[key("aws-kms:a"), key("other:a"), key("local:a")]), Assurance::NotProvable);
    assert_eq!(weakest(&[]), Assurance::NotProvable);
    let category = |assurance| Category::of(CertificateStage::Final, assurance);
    let all = [Assurance::ReportedGone, Assurance::FilesRemoved, Assurance::NotProvable];
    assert_eq!(all.map(category), [Category::Purge, Category::None, Category::NotProvable]);
}

/// A good one of the format that is made, whose epochs' papers are elsewhere.
fn newest(stage: CertificateStage, assurance: Assurance) -> CertificateBody {
    let last = stage == CertificateStage::Final;
    let mut body = body(stage);
    body.format = Format::V3;
    body.method = Method::new(stage, assurance);
    body.limits = Limit::of(stage, assurance, &body.scope.survivors);
    body.missing = Missing::ALL.to_vec();
    let name = |epoch| CertifiedEpoch::Named(EpochName { epoch, digest: [1; 32] });
    body.epochs = if last { (3..=5).map(name).collect() } else { Vec::new() };
    let (from, until) = (3, 2);
    body.evidence = log(STORE, 9, &intents(None, from..=until), OutcomeResult::Ok);
    body
}

#[test]
fn the_newest_format_claims_no_more_than_is_known() {
    use CertificateError::Contradiction;
    let shows = [Assurance::ReportedGone, Assurance::FilesRemoved, Assurance::NotProvable];
    for stage in [CertificateStage::Interim, CertificateStage::Final] {
        for assurance in shows {
            let good = newest(stage, assurance);
            check::check(&good, &secret(9).public(), &[], 0).unwrap();
            let page = page::page(&good, &[]);
            for word in ["vouch", "attest", "Clear"] {
                assert!(!page.contains(word), "{word}: {page}");
            }
            for part in ["VALIDATION", "accepted by  ", "s4.5.2", "ISO/IEC 19790", "plaintext", "title"] {
                assert!(page.contains(part), "{part}: {page}");
            }
            let reaches = page.contains("Purge technique");
            let reported = stage == CertificateStage::Final && assurance == Assurance::ReportedGone;
            assert_eq!(reaches, reported, "{page}");
            for more in [Category::Clear, Category::Purge] {
                if more != good.method.category {
                    refused(&good, Contradiction("category"), |body| body.method.category = more);
                }
            }
            // What is missing is named, all of it and in order.
            let is = Contradiction("list of what is missing in it");
            refused(&good, is, |body| body.missing.clear());
            for at in 0..Missing::ALL.len() {
                refused(&good, is, |body| {
                    body.missing.remove(at);
                });
            }
            refused(&good, is, |body| body.missing.swap(0, 1));
        }
        // The words of older formats are not of this one, nor the other way round.
        for old in [Assurance::Attested, Assurance::BestEffort] {
            refused(&newest(stage, old), Contradiction("category"), |_| {});
        }
        for new in [Assurance::ReportedGone, Assurance::FilesRemoved] {
            refused(&body(stage), Contradiction("category"), |body| body.method = Method::new(stage, new));
        }
        refused(&body(stage), Contradiction("list of what is missing in it"), |body| {
            body.missing = Missing::ALL.to_vec();
        });
    }
    assert!(Missing::ALL.is_sorted_by(|a, b| a < b));
}

#[test]
fn an_older_one_over_key_files_verifies_and_is_shown_for_what_it_is() {
    let mut old = body(CertificateStage::Final);
    old.method = Method::new(CertificateStage::Final, Assurance::BestEffort);
    old.limits = Limit::of(CertificateStage::Final, Assurance::BestEffort, &old.scope.survivors);
    check::check(&old, &secret(9).public(), &[], 0).unwrap();
    let page = page::page(&old, &[]);
    assert!(page.contains("none: the note says Clear") && page.contains("does not say"), "{page}");
}

#[test]
fn routine_destroys_what_is_over_and_nothing_else() {
    let is = CertificateError::Contradiction("authority");
    let body = body(CertificateStage::Interim);
    for day in ["2026-11-08", "2026-11-09"] {
        refused(&body, is, |body| body.scope.keys[0].day = Some(day.parse::<Day>().unwrap()));
    }
    refused(&body, is, |body| (body.scope.keys[0].kind, body.scope.keys[0].day) = (KeyKind::Name, None));
}

#[test]
fn an_order_is_by_two_people_who_signed_it() {
    let body = ordered(CertificateStage::Final);
    let with = |order: SignedOrder| {
        move |body: &mut CertificateBody| body.authority = Authority::Order(Box::new(order))
    };
    let is = CertificateError::Order;
    refused(&body, is, with(order(ORDER, ["p-17", "p-17"], [21, 22])));
    refused(&body, is, with(order(ORDER, ["p-17", "p-4"], [21, 21])));
    refused(
        &body,
        is,
        with(SignedOrder { id: OrderId::from_bytes([6; 16]), ..order(ORDER, ["a", "b"], [1, 2]) }),
    );
    let good = order(ORDER, ["p-17", "p-4"], [21, 22]);
    let approver = Signer { key: secret(23).public(), ..good.approver.clone() };
    refused(&body, is, with(SignedOrder { approver, ..good.clone() }));
    let approver = Signer { principal: Principal::person("p-5").unwrap(), ..good.approver.clone() };
    refused(&body, is, with(SignedOrder { approver, ..good.clone() }));
    // Approved and then asked for, without a second signature, and about somebody else.
    let turned =
        SignedOrder { requester: good.approver.clone(), approver: good.requester.clone(), ..good.clone() };
    refused(&body, is, with(turned));
    let mut other = body.clone();
    other.customer = CustomerId::from_bytes([2; 16]);
    other.certificate = CertificateId::derive(STORE, other.customer, RING.version);
    refused(&other, is, |_| {});
    let (first, _) = good.note.trim_end().rsplit_once('\n').unwrap();
    refused(&body, is, with(SignedOrder { note: format!("{first}\n"), ..good.clone() }));
    let mut altered = body.clone();
    let note = good.note.replace("order/v1", "order/v2");
    altered.authority = Authority::Order(Box::new(SignedOrder { note, ..good }));
    assert!(check::check(&altered, &secret(9).public(), &[], 0).is_err());

    // Another order, or none, than the one that the log names.
    let other = OrderId::from_bytes([6; 16]);
    refused(&body, CertificateError::OtherRecord, with(order(other, ["p-17", "p-4"], [21, 22])));
    refused(&body, CertificateError::OtherRecord, |body| body.authority = Authority::Routine);
}

#[test]
fn records_say_what_the_certificate_says() {
    use CertificateError::{Missing, OtherLog, OtherRecord};
    let good = body(CertificateStage::Final);
    let last = || intents(None, 3..=5);
    refused(&good, OtherRecord, |body| body.ring.hash = [1; 32]);
    refused(&good, OtherRecord, |body| body.run_by = Principal::service("other").unwrap());
    refused(&good, OtherRecord, |body| body.scope.keys[0].id = kek(0));
    refused(&good, OtherRecord, |body| body.scope.keys[0].day = Some("2026-10-30".parse().unwrap()));
    refused(&good, OtherRecord, |body| end(body, 0).kms_key = epoch_key(9));
    refused(&good, OtherRecord, |body| end(body, 0).disabled = minute(0));
    refused(&good, OtherRecord, |body| end(body, 0).scheduled = minute(0));
    refused(&good, OtherRecord, |body| body.evidence.push(body.evidence[0].clone()));
    refused(&good, OtherRecord, |body| body.evidence[0].what = What::Drop);
    refused(&good, OtherRecord, |body| body.evidence[0].outcome = body.evidence[1].outcome.clone());
    refused(&good, OtherRecord, |body| body.evidence[0].intent = body.evidence[0].outcome.clone().unwrap());
    refused(&good, Missing("the drop of each key"), |body| {
        body.evidence.remove(1);
    });
    refused(&good, Missing("the writing of the ring version"), |body| {
        body.evidence.remove(4);
    });
    refused(&good, Missing("the end of each epoch"), |body| {
        body.evidence.pop();
    });
    refused(&good, Missing("the end of each epoch"), |body| {
        body.evidence.remove(5);
    });

    let with = |evidence: Vec<Evidence>| move |body: &mut CertificateBody| body.evidence = evidence;
    refused(&good, OtherLog, with(log(StoreId::from_bytes([8; 16]), 9, &last(), OutcomeResult::Ok)));
    for result in [OutcomeResult::Conflict, OutcomeResult::KeyUnavailable, OutcomeResult::Denied] {
        refused(&good, OtherRecord, with(log(STORE, 9, &last(), result)));
    }
    let mut foreign = last();
    foreign[1].customer = Some(CustomerId::from_bytes([2; 16]));
    refused(&good, OtherRecord, with(log(STORE, 9, &foreign, OutcomeResult::Ok)));
    let mut certified = last();
    certified[1].certificate = Some(CertificateId::from_bytes([2; 16]));
    refused(&good, OtherRecord, with(log(STORE, 9, &certified, OutcomeResult::Ok)));

    // By another log's key, and a proof with another record in it.
    let key = secret(9).public();
    let mut altered = good.clone();
    altered.evidence = log(STORE, 8, &last(), OutcomeResult::Ok);
    assert_eq!(check::check(&altered, &key, &[], 0).unwrap_err().kind(), ErrorKind::Integrity);
    altered = good.clone();
    let other = log(STORE, 9, &foreign, OutcomeResult::Ok);
    let extra = |text: &str| text.lines().nth(1).unwrap().to_owned();
    let intent = &good.evidence[1].intent;
    altered.evidence[1].intent = intent.replace(&extra(intent), &extra(&other[1].intent));
    assert_eq!(check::check(&altered, &key, &[], 0).unwrap_err().kind(), ErrorKind::Integrity);

    // A writer that died or did not learn how it ended, and an outcome that is not there
    // yet, are no contradiction.
    for result in [OutcomeResult::Unknown, OutcomeResult::Unavailable, OutcomeResult::Aborted] {
        altered.evidence = log(STORE, 9, &last(), result);
        altered.evidence[0].outcome = None;
        check::check(&altered, &key, &[], 0).unwrap();
    }
}

#[tokio::test]
async fn what_would_not_verify_is_not_signed() {
    let mut body = body(CertificateStage::Final);
    body.limits.clear();
    let error = sign(body, &BTreeMap::new(), &signer()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
}

#[test]
fn blobs_are_counted_once_and_hashed_in_order() {
    let blobs = blobs();
    assert_eq!((blobs.certain, blobs.uncertain), (5, 1));
    let mut ids: Vec<u8> = Vec::new();
    (0..6u8).for_each(|n| ids.extend([n; 16]));
    assert_eq!(blobs.digest, <[u8; 32]>::from(Sha256::digest(&ids)));
    let none = BTreeSet::new();
    assert_eq!(Blobs::of(&none, &none, None).digest, <[u8; 32]>::from(Sha256::digest([])));
}
