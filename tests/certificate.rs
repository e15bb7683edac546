//! Certificates over a log that the library writes and publishes, and what the program
//! makes of them: in a directory with nothing in it, and on the audit storage.
//!
//! The pages that people read are in `tests/certificate/*.txt`.
//! `UPDATE_GOLDEN=1 cargo test --test certificate` writes those files.
#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use serde_json::Value;
use strongroom::ErrorKind;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::layout::{self, CertificateStage, Object};
use strongroom::audit::log::{Log, LogReader};
use strongroom::audit::papers;
use strongroom::audit::proof::{ProvenOperation, prove_all, prove_requests};
use strongroom::audit::publish::Publisher;
use strongroom::audit::voucher::Versioned;
use strongroom::audit::{Action, Intent, KeyRef, OutcomeResult, RingRef};
use strongroom::certificate::{
    Assurance, Authority, Blobs, Bundle, Caches, Certificate, CertificateBody, CertifiedEpoch, CheckValue,
    Ciphertext, ClockReading, ClockSource, DroppedKey, EndOnPaper, EndStep, EpochPaperBody, EpochPaperFormat,
    Evidence, Format, GoneBy, KeyKind, Limit, Method, Missing, Policy, RingTransition, Scope, SignedOrder,
    Signer, StepAnswer, SurvivorClass, Survivors, TimeEvidence, Verification, sign, sign_epoch, verify,
    verify_epoch,
};
use strongroom::id::{BlobId, CertificateId, CustomerId, KekId, KmsKeyId, OrderId, RequestId};
use strongroom::secret::Secret;
use strongroom::store::marker::Marker;
use strongroom::time::{Day, Timestamp};
use strongroom::tlog::note::Note;
use strongroom::tlog::{NamedKey, SecretKey, VerifierKey};

#[path = "common/calendar.rs"]
mod calendar;
#[path = "common/signer.rs"]
mod signer;
use calendar::{LONG, STORE, SetClock, Storage, log, reader, time};
use signer::{authority, signer};

const ACME: CustomerId = CustomerId::from_bytes([1; 16]);
const RING: RingRef = RingRef { version: 42, hash: [0xab; 32] };
const KEK: KekId = KekId::from_bytes([3; 16]);
const ORDER: OrderId = OrderId::from_bytes([5; 16]);
const EPOCHS: [u32; 2] = [8, 9];

/// A log in which a day key was dropped and the epochs under it ended.
struct World {
    storage: Storage,
    clock: Arc<SetClock>,
    log: Log,
    /// Every request, in order.
    requests: Vec<RequestId>,
}

impl World {
    async fn new(storage: Storage) -> Self {
        Marker { store: STORE, log_key: authority() }.write(&*storage).await.unwrap();
        let clock = SetClock::at(time("2026-11-08T03:00:00.000000Z"));
        let log = log(&storage, 0, &clock).await;
        Self { storage, clock, log, requests: Vec::new() }
    }

    /// Does something, a minute after what was done before.
    async fn does(&mut self, who: &str, action: Action, with: impl FnOnce(Intent) -> Intent) {
        self.clock.forward(60_000_000);
        let access = Access::new(who.parse().unwrap(), Purpose::RecordManagement);
        let intent = with(Intent::new(self.log.request_id().unwrap(), &access, action));
        self.requests.push(intent.request);
        let (customer, ring) = (intent.customer, intent.ring);
        // No key is used: the receipt goes unused.
        let (open, _) = self.log.begin(intent).await.unwrap();
        if let (Action::RingWrite, Some(customer), Some(ring)) = (action, customer, ring) {
            let vouched = self.log.vouch(Versioned::Ring(customer), ring, open.request()).await.unwrap();
            self.log.pin(&vouched).await.unwrap();
        }
        open.finish(OutcomeResult::Ok, None).await.unwrap();
    }

    async fn drops(&mut self) {
        let of_acme = |intent| Intent { customer: Some(ACME), order: Some(ORDER), ..intent };
        let key = || Some(KeyRef::Kek { id: KEK, day: day() });
        self.does("person:p-17", Action::OrderRequest, of_acme).await;
        self.does("person:p-4", Action::OrderApprove, of_acme).await;
        self.does("service:sweeper", Action::ShredPend, |intent| Intent { key: key(), ..of_acme(intent) })
            .await;
        let ring = Some(RING);
        self.does("service:sweeper", Action::ShredDrop, |intent| Intent {
            key: key(),
            ring,
            ..of_acme(intent)
        })
        .await;
        self.does("service:sweeper", Action::RingWrite, |intent| Intent { ring, ..of_acme(intent) }).await;
    }

    async fn ends_epochs(&mut self) {
        // What concerns the store is in the chain of its own id.
        let customer = Some(CustomerId::from_bytes(*STORE.as_bytes()));
        for epoch in EPOCHS {
            for action in [Action::EpochDisable, Action::EpochDelete] {
                let key = Some(KeyRef::Epoch { kms_key: epoch_key(epoch), epoch });
                self.does("service:keeper", action, |intent| Intent { customer, key, ..intent }).await;
            }
        }
    }

    fn reader(&self) -> LogReader {
        reader(&self.storage)
    }

    async fn publish(&self) {
        let publisher = Publisher::new(Arc::clone(&self.storage), STORE, signer(), LONG);
        publisher.publish(0, &[]).await.unwrap();
    }

    async fn proven(&self) -> Vec<ProvenOperation> {
        self.publish().await;
        let from = time("2026-11-08T00:00:00.000000Z");
        prove_requests(&self.reader(), &self.requests, from, None).await.unwrap()
    }

    /// The papers of the ends of epochs, kept.
    async fn papers(&self, proven: &[ProvenOperation]) -> BTreeMap<u32, EndOnPaper> {
        let mut ends = BTreeMap::new();
        for epoch in EPOCHS {
            let note = sign_epoch(paper(epoch, proven), &*signer()).await.unwrap().to_note();
            papers::keep(&*self.storage, Object::EpochEnd { epoch }, note.clone(), LONG).await.unwrap();
            let verified = verify_epoch(note.as_bytes(), STORE, &authority(), &[], 0).unwrap();
            ends.insert(epoch, verified.paper);
        }
        ends
    }

    /// What is given away: a certificate with the papers that it names.
    async fn bundle(&self, certificate: &Certificate) -> String {
        let epochs: Vec<u32> = certificate.body().named().map(|name| name.epoch).collect();
        let papers = papers::epoch_ends(&self.reader(), epochs.clone()).await.unwrap();
        Bundle::of(certificate.to_note(), &epochs, papers).unwrap().to_text()
    }

    /// The certificate of what was done until now.
    async fn certify(&self, stage: CertificateStage) -> Certificate {
        let proven = self.proven().await;
        let papers = match stage {
            CertificateStage::Interim => BTreeMap::new(),
            CertificateStage::Final => self.papers(&proven).await,
        };
        let signed = sign(body(stage, &proven, &papers), &papers, &*signer()).await;
        let certificate = signed.unwrap_or_else(|error| panic!("{}", error.chain()));
        let paper = Object::Certificate { id: certificate.body().certificate, stage };
        papers::keep(&*self.storage, paper, certificate.to_note(), LONG).await.unwrap();
        certificate
    }
}

fn day() -> Day {
    "2028-05-22".parse().unwrap()
}

fn epoch_key(epoch: u32) -> KmsKeyId {
    format!("aws-kms:arn:aws:kms:eu-central-1:000000000000:key/{epoch:08}-0000-4000-8000-000000000000")
        .parse()
        .unwrap()
}

fn order() -> SignedOrder {
    let text = serde_json::json!({
        "format": "strongroom/order/v1",
        "id": ORDER,
        "store": STORE,
        "what": { "destroy-days": { "days": [day()] } },
        "requested_by": "person:p-17",
        "customer": ACME,
    });
    let text = format!("{text:#}\n");
    let key = |seed: u8| SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32]));
    let sign = |who: &str, seed| NamedKey::new(who.parse().unwrap(), key(seed)).sign(&text);
    let signer =
        |who: &str, seed| Signer { principal: who.parse::<Principal>().unwrap(), key: key(seed).public() };
    let signatures = vec![sign("person:p-17", 21), sign("person:p-4", 22)];
    SignedOrder {
        id: ORDER,
        requester: signer("person:p-17", 21),
        approver: signer("person:p-4", 22),
        register: RingRef { version: 3, hash: [0xcd; 32] },
        note: Note::new(text.clone(), signatures).unwrap().to_string(),
    }
}

/// When the epochs' keys were seen gone.
fn gone() -> Timestamp {
    time("2026-11-30T12:00:00.000000Z")
}

fn is_of_epoch(proven: &ProvenOperation, epoch: Option<u32>) -> bool {
    let key = &proven.operation.intent().key;
    matches!(key, Some(KeyRef::Epoch { epoch: of, .. }) if epoch.is_none_or(|epoch| *of == epoch))
}

fn paper(epoch: u32, proven: &[ProvenOperation]) -> EpochPaperBody {
    let of_epoch = || proven.iter().filter(|proven| is_of_epoch(proven, Some(epoch)));
    let step = |action| {
        let of_action = |proven: &&ProvenOperation| proven.operation.intent().action == action;
        let at = of_epoch().find(of_action).unwrap().operation.intent_entry().record.time;
        EndStep { at, answer: StepAnswer::Ok }
    };
    EpochPaperBody {
        format: EpochPaperFormat::V2,
        store: STORE,
        epoch,
        kms_key: epoch_key(epoch),
        assurance: Assurance::ReportedGone,
        issued: gone(),
        register: RingRef { version: 31, hash: [0xef; 32] },
        disabled: step(Action::EpochDisable),
        scheduled: step(Action::EpochDelete),
        gone: gone(),
        seen: GoneBy::KmsReportsGone,
        evidence: of_epoch().map(|proven| Evidence::of(proven).unwrap()).collect(),
    }
}

fn body(
    stage: CertificateStage,
    proven: &[ProvenOperation],
    papers: &BTreeMap<u32, EndOnPaper>,
) -> CertificateBody {
    let last = stage == CertificateStage::Final;
    let survivors = vec![Survivors { class: SurvivorClass::Held, blobs: 1 }];
    let blobs = |numbers: std::ops::Range<u8>| -> BTreeSet<BlobId> {
        numbers.map(|number| BlobId::new(day(), [number; 13]).unwrap()).collect()
    };
    let dropped = time("2026-11-08T03:04:00.000000Z");
    CertificateBody {
        format: Format::V3,
        stage,
        certificate: CertificateId::derive(STORE, ACME, RING.version),
        store: STORE,
        customer: ACME,
        issued: if last { time("2026-12-01T00:00:00.000000Z") } else { time("2026-11-08T03:06:00.000000Z") },
        method: Method {
            // As this program's, whose number changes.
            tool_version: serde_json::from_str("\"1.2.3\"").unwrap(),
            ..Method::new(stage, Assurance::ReportedGone)
        },
        scope: Scope {
            keys: vec![DroppedKey {
                id: KEK,
                kind: KeyKind::Day,
                day: Some(day()),
                check_value: CheckValue([7; 8]),
                minted: time("2026-11-01T00:00:00.000000Z"),
                born: EPOCHS[0],
                last: EPOCHS[1],
            }],
            blobs: Blobs::of(&blobs(0..100), &blobs(100..102), Some(123_456_789)),
            survivors: survivors.clone(),
        },
        policy: Policy { version: 2, retention: "P18M".parse().unwrap(), window_days: 7 },
        authority: Authority::Order(Box::new(order())),
        run_by: Principal::service("sweeper").unwrap(),
        ring: RingTransition { version: RING.version, hash: RING.hash, previous: RING.version - 1 },
        time: TimeEvidence {
            at: dropped,
            readings: vec![
                ClockReading { source: ClockSource::Host, at: dropped },
                ClockReading { source: ClockSource::Store, at: time("2026-11-08T03:04:01.000000Z") },
                ClockReading { source: ClockSource::Log, at: time("2026-11-08T03:03:00.000000Z") },
            ],
        },
        epochs: papers.values().map(|paper| CertifiedEpoch::Named(paper.name())).collect(),
        caches: last.then_some(Caches { ttl_seconds: 600, over: gone() }),
        verification: Verification::required(stage).to_vec(),
        limits: Limit::of(stage, Assurance::ReportedGone, &survivors),
        missing: Missing::ALL.to_vec(),
        ciphertext: last.then_some(Ciphertext { objects: 101, versions: None }),
        evidence: proven
            .iter()
            .filter(|proven| !is_of_epoch(proven, None))
            .map(|proven| Evidence::of(proven).unwrap())
            .collect(),
    }
}

/// The program, run in an empty directory without a store.
struct Alone {
    dir: tempfile::TempDir,
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Alone {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn write(&self, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.dir.path().join("certificate.note"), bytes).unwrap();
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.env_clear().env("HOME", self.dir.path()).current_dir(self.dir.path()).args(args);
        let ran = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: ran.status.code().unwrap(), out: text(ran.stdout), err: text(ran.stderr) }
    }

    fn verify(&self, more: &[&str]) -> Ran {
        let key = authority().to_string();
        let given = ["certificate", "verify", "certificate.note", "--key", &key];
        self.run(&[&given[..], more].concat())
    }
}

#[track_caller]
fn golden(name: &str, found: &str) {
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".into());
    let path = Path::new(&root).join("tests/certificate").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{} is not what is shown", path.display());
}

#[tokio::test]
async fn it_verifies_on_another_machine_and_fails_when_a_character_changes() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    world.drops().await;
    let interim = world.certify(CertificateStage::Interim).await;
    world.ends_epochs().await;
    let last = world.certify(CertificateStage::Final).await;
    assert_eq!(interim.body().certificate, last.body().certificate);

    let alone = Alone::new();
    for (certificate, name) in [(&interim, "interim.txt"), (&last, "final.txt")] {
        alone.write(world.bundle(certificate).await);
        let ran = alone.verify(&[]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        let (verdict, page) = ran.out.split_once("\n\n").unwrap();
        assert!(verdict.starts_with("ok: "), "{verdict}");
        golden(name, page);
    }
    let ran = alone.verify(&["--json"]);
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((said["ok"].as_bool(), said["records"].as_u64()), (Some(true), Some(18)));
    assert_eq!(said["certificate"]["stage"], "final");
    assert_eq!(said["epochs"].as_array().map(Vec::len), Some(2));
    // An interim one names no paper, and is verified by itself; a final one is not.
    alone.write(interim.to_note());
    assert_eq!(alone.verify(&[]).code, 0);
    alone.write(last.to_note());
    let ran = alone.verify(&[]);
    assert_eq!((ran.code, ran.out.as_str()), (65, ""));
    assert!(ran.err.contains("the papers of the ends of 2 epochs are not in the file"), "{}", ran.err);
    assert!(ran.err.contains("certificate show ID --bundle"), "{}", ran.err);
    alone.write(world.bundle(&last).await);
    // By the name of the log's key, and by that of another store's.
    let key = VerifierKey::ed25519(layout::key_name(STORE, 0), authority()).to_string();
    let ran = alone.run(&["certificate", "verify", "certificate.note", "--key", &key]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let other = strongroom::id::StoreId::from_bytes([8; 16]);
    let key = VerifierKey::ed25519(layout::key_name(other, 0), authority()).to_string();
    assert_eq!(alone.run(&["certificate", "verify", "certificate.note", "--key", &key]).code, 65);
    // No witness has seen this log.
    let witness = SecretKey::from_seed(&Secret::init(|to| *to = [4; 32]));
    let witness = NamedKey::new("w.example".parse().unwrap(), witness).cosigner().to_string();
    assert_eq!(alone.verify(&["--witness", &witness]).code, 65);
    assert_eq!(alone.verify(&["--witness", &witness, "--quorum", "0"]).code, 0);
    let ran = alone.run(&["certificate", "verify", "certificate.note"]);
    assert_eq!(ran.code, 64, "{}", ran.err);

    let note = world.bundle(&last).await.into_bytes();
    for at in (0..note.len()).step_by(note.len() / 23) {
        let mut altered = note.clone();
        altered[at] ^= 1;
        alone.write(&altered);
        let ran = alone.verify(&[]);
        assert_eq!((ran.code, ran.out.as_str()), (65, ""), "byte {at}: {}", ran.err);
    }
    // Only the program, the file and what the tests put there: no store was made.
    let left: Vec<_> =
        std::fs::read_dir(alone.dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["certificate.note"]);
}

#[tokio::test]
async fn the_audit_storage_keeps_lists_and_checks_them() {
    let dir = tempfile::tempdir().unwrap();
    let storage: Storage = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    let mut world = World::new(Arc::clone(&storage)).await;
    world.drops().await;
    let interim = world.certify(CertificateStage::Interim).await;
    let id = interim.body().certificate.to_string();
    let (alone, key) = (Alone::new(), authority().to_string());
    let place = dir.path().to_str().unwrap().to_owned();
    let run = |args: &[&str]| alone.run(&[args, &["--audit-store", &place, "--key", &key]].concat());

    let listed = run(&["certificate", "list"]);
    assert_eq!((listed.code, listed.err.as_str()), (0, ""));
    assert!(listed.out.lines().nth(1).unwrap().starts_with(&format!("{id}  interim")), "{}", listed.out);
    let shown = run(&["certificate", "show", &id]);
    assert_eq!(shown.out, interim.to_page());
    world.ends_epochs().await;
    let last = world.certify(CertificateStage::Final).await;
    let bundle = world.bundle(&last).await;
    let verified = verify(bundle.as_bytes(), &authority(), &[], 0).unwrap();
    assert_eq!(run(&["certificate", "show", &id]).out, verified.page);
    assert_eq!(run(&["certificate", "show", &id, "--note"]).out, last.to_note());
    assert_eq!(run(&["certificate", "show", &id, "--bundle"]).out, bundle);
    assert_eq!(run(&["certificate", "show", &id, "--bundle", "--note"]).code, 64);
    let shown: Value = serde_json::from_str(&run(&["certificate", "show", &id, "--json"]).out).unwrap();
    assert_eq!(shown, serde_json::to_value(last.body()).unwrap());
    assert_eq!(run(&["certificate", "show", &CertificateId::from_bytes([1; 16]).to_string()]).code, 66);
    let listed = run(&["certificate", "list", "--json", "--customer", &ACME.to_string()]);
    let said: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!((said["stage"].as_str(), said["blobs"].as_u64()), (Some("final"), Some(100)));
    let other = CustomerId::from_bytes([2; 16]).to_string();
    assert_eq!(run(&["certificate", "list", "--json", "--customer", &other]).out, "");

    world.log.close().await.unwrap();
    world.publish().await;
    let checked = run(&["audit", "verify"]);
    assert_eq!(checked.code, 0, "{}", checked.out);
    // Without a paper that it names, a certificate is incomplete wherever it is looked at.
    let path = Object::EpochEnd { epoch: EPOCHS[1] }.path();
    let paper = storage.get(&path).await.unwrap().bytes().await.unwrap();
    storage.delete(&path).await.unwrap();
    let checked = run(&["audit", "verify"]);
    assert_eq!(checked.code, 65);
    assert!(checked.out.contains(&format!("wrong: {path}: is missing")), "{}", checked.out);
    for form in ["--json", "--note", "--bundle"] {
        assert_eq!(run(&["certificate", "show", &id, form]).code, 65, "{form}");
    }
    assert_eq!(run(&["certificate", "list"]).code, 65);
    storage.put(&path, paper.into()).await.unwrap();
    assert_eq!(run(&["audit", "verify"]).code, 0);

    let path = Object::Certificate { id: last.body().certificate, stage: CertificateStage::Final }.path();
    for altered in [last.to_note().replace("P18M", "P17M"), interim.to_note(), String::new()] {
        storage.put(&path, altered.into()).await.unwrap();
        let checked = run(&["audit", "verify"]);
        assert_eq!(checked.code, 65);
        assert!(checked.out.contains(&format!("wrong: {path}: ")), "{}", checked.out);
        assert_eq!(run(&["certificate", "show", &id]).code, 65);
        let listed = run(&["certificate", "list"]);
        assert_eq!(listed.code, 65);
        assert!(listed.out.contains("DOES NOT VERIFY"), "{}", listed.out);
    }
}

#[tokio::test]
async fn what_is_not_published_cannot_be_proven_yet() {
    let mut world = World::new(Arc::new(InMemory::new())).await;
    let (from, reader) = (time("2026-11-08T00:00:00.000000Z"), world.reader());
    world.drops().await;
    let prove = async |requests: &[RequestId]| prove_requests(&reader, requests, from, None).await;
    assert_eq!(prove(&world.requests).await.unwrap_err().kind(), ErrorKind::NotFound);
    let proven = world.proven().await;
    let asked: Vec<_> = proven.iter().map(|proven| proven.operation.intent().request).collect();
    assert_eq!(asked, world.requests);
    let unknown = RequestId::from_bytes([9; 16]);
    assert_eq!(prove(&[world.requests[0], unknown]).await.unwrap_err().kind(), ErrorKind::NotFound);
    // In whatever order they are asked for.
    let turned: Vec<_> = world.requests.iter().rev().copied().collect();
    let first = prove(&turned).await.unwrap().remove(0);
    assert_eq!(first.operation.intent().action, Action::RingWrite);
    let entries: Vec<_> = proven.iter().map(|proven| proven.operation.intent_entry().clone()).collect();
    let again = prove_all(&reader, &entries).await.unwrap();
    assert!(again.iter().eq(proven.iter().map(|proven| &proven.intent)));
}
