//! What a daemon tells of its audit log, and to whom: proofs, the checkpoint, the newest entries,
//! and a customer's view, each checked as whoever gets it would.
#![cfg(feature = "daemon")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Request, StatusCode};
use common::signer::authority;
use common::{Raw, TestClock, options, records_since};
use futures_util::StreamExt;
use serde_json::{Value, json};
use strongroom::access::policy::{Reach, Role, RoleMatrix, Subject};
use strongroom::access::{Access, Origin, Principal, Purpose};
use strongroom::audit::layout;
use strongroom::audit::proof::{Proved, check as check_proof};
use strongroom::audit::view::{Trust, ViewReport, check as check_view};
use strongroom::audit::{Action, Event, OutcomeResult, Record};
use strongroom::daemon::api::{Caller, Figures, REQUEST_ID, Shared, router};
use strongroom::daemon::limits::{Allowance, Limiter};
use strongroom::id::{CustomerId, RequestId};
use strongroom::kms::KmsRegistry;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::room::{Customer, KeyChoice, NewCustomer, SealOptions, Strongroom};
use strongroom::secret::Secret;
use strongroom::system::SystemEntropy;
use strongroom::time::{Clock, Timestamp};
use strongroom::tlog::checkpoint::SignedCheckpoint;
use strongroom::tlog::note::NoteSignature;
use strongroom::tlog::proof::TlogProof;
use strongroom::tlog::{NamedKey, SecretKey, VerifierKey};
use strongroom::witness::AddCheckpoint;
use strongroom::witness::client::{Witness, WitnessError};
use tower::ServiceExt;

/// A witness that cosigns whatever it is shown, until it has seen another history.
struct Signing {
    key: NamedKey,
    verifier: VerifierKey,
    contradicts: Mutex<bool>,
}

impl Signing {
    fn new(name: &str, seed: u8) -> Arc<Self> {
        let secret = SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32]));
        let key = NamedKey::new(name.parse().unwrap(), secret);
        Arc::new(Self { verifier: key.cosigner(), key, contradicts: Mutex::default() })
    }
}

impl std::fmt::Debug for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signing").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl Witness for Signing {
    fn key(&self) -> &VerifierKey {
        &self.verifier
    }

    async fn cosign(&self, request: &AddCheckpoint) -> Result<Vec<NoteSignature>, WitnessError> {
        if *self.contradicts.lock().unwrap() {
            return Err(WitnessError::Inconsistent);
        }
        let at = Timestamp::from_micros(1_795_348_800_000_000).unwrap();
        Ok(vec![self.key.cosign(request.checkpoint().checkpoint(), at)])
    }
}

/// A store with two customers, two witnesses, and a daemon's answers.
struct Place {
    room: Strongroom,
    shared: Arc<Shared>,
    clock: Arc<TestClock>,
    acme: Customer,
    zenith: Customer,
    witnesses: [Arc<Signing>; 2],
    _directory: tempfile::TempDir,
}

fn own() -> Access {
    Access::new(Principal::service("daemon").unwrap(), Purpose::SystemAdministration)
}

async fn customer(room: &Strongroom, label: &str) -> Customer {
    let new = NewCustomer::new(label.parse().unwrap(), KeyChoice::New("local".into()));
    room.add_customer(&own(), new).await.unwrap();
    room.customer(&label.parse().unwrap(), own()).await.unwrap()
}

impl Place {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = TestClock::at("2026-11-22T02:26:13.000000Z");
        let keys = directory.path().join("kms");
        let local = InsecureLocalKms::open(keys, clock.clone(), Arc::new(SystemEntropy)).unwrap();
        let kms = KmsRegistry::new().with(Arc::new(local));
        let witnesses = [Signing::new("one.example/w", 41), Signing::new("two.example/w", 42)];
        let mut options = options(&clock);
        options.witnesses = witnesses.iter().map(|one| Arc::clone(one) as Arc<dyn Witness>).collect();
        let (storages, epoch) = (Raw::default().storages(), KeyChoice::New("local".into()));
        let (room, _) = Strongroom::init(storages, kms, epoch, &own(), options).await.unwrap();
        let (acme, zenith) = (customer(&room, "acme").await, customer(&room, "zenith").await);
        let shared = Arc::new(Shared {
            room: room.clone(),
            policy: Arc::new(RoleMatrix),
            clock: clock.clone(),
            body_idle: Duration::from_secs(60),
            published: strongroom::daemon::tasks::Punctual::new(
                Arc::new(strongroom::system::SystemClock),
                None,
            ),
            limiter: Limiter::new(Allowance::default()),
            figures: Figures::default(),
            own: own(),
        });
        Self { room, shared, clock, acme, zenith, witnesses, _directory: directory }
    }

    async fn send(&self, reach: Reach, role: Role, request: Request<Body>) -> axum::response::Response {
        let subject = Subject {
            principal: Principal::service("auditor").unwrap(),
            roles: [role].into(),
            reach,
            phi: true,
            trained_until: Some(self.clock.now().day()),
        };
        let origin = Origin::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
        let caller = Caller { subject: Some(Arc::new(subject)), factor: None, origin };
        router(Arc::clone(&self.shared)).layer(Extension(caller)).oneshot(request).await.unwrap()
    }

    async fn answer(&self, reach: Reach, request: Request<Body>) -> Answer {
        let (parts, body) = self.send(reach, Role::Auditor, request).await.into_parts();
        let text = String::from_utf8(to_bytes(body, 1 << 26).await.unwrap().to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// As an auditor of everybody.
    async fn ask(&self, request: Request<Body>) -> Answer {
        self.answer(Reach::All, request).await
    }

    /// As one of acme alone.
    async fn ask_for_acme(&self, request: Request<Body>) -> Answer {
        self.answer(Reach::These([self.acme.id()].into()), request).await
    }

    /// Seals a blob: the request that did.
    async fn seal(&self, customer: &Customer) -> RequestId {
        let from = self.room.log().head().next();
        customer.seal(b"a".to_vec(), SealOptions::new()).await.unwrap();
        let records = records_since(&self.room, from).await;
        let seal = records.iter().find_map(|record| match &record.event {
            Event::Intent(intent) if intent.action == Action::Seal => Some(intent.request),
            _ => None,
        });
        seal.unwrap()
    }

    async fn find(&self, request: RequestId) -> Value {
        let page = self.ask(post("/v1/audit/query", &json!({ "request": request }))).await.is(200).json();
        page["operations"][0].clone()
    }

    fn checked(&self, text: &str, quorum: usize) -> Proved {
        let log = layout::verifier(self.room.store_id(), layout::FIRST_SHARD, authority());
        let witnesses = self.witnesses.each_ref().map(|one| one.verifier.clone());
        let proof = TlogProof::parse(text.as_bytes()).unwrap();
        check_proof(&proof, &log, &witnesses, quorum).unwrap()
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The code of a problem, and its sentence.
    #[track_caller]
    fn problem(&self) -> (String, String) {
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json");
        let problem = self.json();
        (problem["code"].as_str().unwrap().to_owned(), problem["detail"].as_str().unwrap().to_owned())
    }

    fn named(&self) -> RequestId {
        self.headers[REQUEST_ID].to_str().unwrap().parse().unwrap()
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(path: &str, value: &Value) -> Request<Body> {
    let request = Request::post(path).header(CONTENT_TYPE, "application/json");
    request.body(Body::from(value.to_string())).unwrap()
}

fn proof(value: &Value) -> Request<Body> {
    post("/v1/audit/proof", value)
}

fn view(customer: CustomerId) -> Request<Body> {
    Request::post(format!("/v1/customers/{customer}/audit/view")).body(Body::empty()).unwrap()
}

/// How the asking that a request caused ended, by the records.
fn asked(records: &[Record], cause: RequestId) -> Vec<(Option<CustomerId>, String, OutcomeResult)> {
    let intents = records.iter().filter_map(|record| match &record.event {
        Event::Intent(intent) if intent.action == Action::AuditRead && intent.cause == Some(cause) => {
            Some(intent)
        }
        _ => None,
    });
    let result = |request| {
        records.iter().find_map(|record| match &record.event {
            Event::Outcome(outcome) if outcome.request == request => Some(outcome.result),
            _ => None,
        })
    };
    let rule = |intent: &strongroom::audit::Intent| intent.rule.as_ref().unwrap().to_string();
    intents.map(|intent| (intent.customer, rule(intent), result(intent.request).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_proven_with_a_quorum_of_witnesses() {
    let place = Place::new().await;
    let (acme, request) = (place.acme.id(), place.seal(&place.acme).await);
    let unpublished = place.ask(proof(&json!({ "request": request }))).await.is(404);
    assert_eq!(unpublished.problem().0, "not-published");
    assert_eq!(unpublished.json()["hint"], "publish the log, and ask again");
    place.room.publish_log().await.unwrap();

    let sealed = place.find(request).await;
    let from = place.room.log().head().next();
    for (of, outcome) in [(&sealed, false), (&sealed["outcome"], true)] {
        let by_request = json!({ "request": request, "outcome": outcome, "from": sealed["time"] });
        let by_place = json!({ "shard": of["shard"], "index": of["index"] });
        let by_customer = json!({ "request": request, "outcome": outcome, "customer": acme });
        let mut proofs = Vec::new();
        for body in [by_request, by_place, by_customer] {
            let answer = place.ask(proof(&body)).await.is(200);
            assert_eq!(answer.headers[CONTENT_TYPE], "text/plain; charset=utf-8");
            let Proved { record, index, cosigned, .. } = place.checked(&answer.text, 2);
            assert_eq!((json!(index), cosigned.len()), (of["index"].clone(), 2));
            match (&record.event, outcome) {
                (Event::Intent(intent), false) => assert_eq!(intent.request, request),
                (Event::Outcome(ended), true) => assert_eq!(ended.request, request),
                other => panic!("{other:?}"),
            }
            let records = records_since(&place.room, from).await;
            let customer = body["customer"].is_string().then_some(acme);
            let on_record = (customer, "role.auditor".to_owned(), OutcomeResult::Ok);
            assert_eq!(asked(&records, answer.named()), [on_record]);
            proofs.push(answer.text);
        }
        assert!(proofs.iter().all(|other| *other == proofs[0]));
    }
    // It is in the times that are given, or it is not found.
    let later = json!({ "request": request, "from": "2030-01-01T00:00:00.000000Z" });
    assert_eq!(place.ask(proof(&later)).await.is(404).problem().0, "not-found");
    for bad in [
        json!({}),
        json!({ "request": request, "shard": 0, "index": 0 }),
        json!({ "shard": 0 }),
        json!({ "shard": 0, "index": 0, "outcome": true }),
        json!({ "shard": 0, "index": 0, "until": sealed["time"] }),
        json!({ "shard": 65_536, "index": 0 }),
        json!({ "request": request, "Jane": "Doe" }),
    ] {
        let refused = place.ask(proof(&bad)).await.is(400);
        assert!(refused.problem().0 == "invalid-input" && !refused.text.contains("Jane"), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_there_for_one_customer_gets_no_proof_of_anothers_record() {
    let place = Place::new().await;
    let (acme, zenith) = (place.acme.id(), place.zenith.id());
    let (ours, theirs) = (place.seal(&place.acme).await, place.seal(&place.zenith).await);
    place.room.publish_log().await.unwrap();
    let missing = RequestId::from_bytes([9; 16]);
    let proven = place.ask_for_acme(proof(&json!({ "customer": acme, "request": ours }))).await.is(200);
    assert_eq!(place.checked(&proven.text, 2).record.event.customer(), Some(acme));

    // Another's record, one of nobody, and one that is not there: the same to them.
    let foreign = place.find(theirs).await;
    let none = place.ask_for_acme(proof(&json!({ "customer": acme, "request": missing }))).await.is(404);
    for body in [
        json!({ "customer": acme, "request": theirs }),
        json!({ "customer": acme, "request": theirs, "outcome": true }),
        json!({ "customer": acme, "shard": foreign["shard"], "index": foreign["index"] }),
        json!({ "customer": acme, "shard": 0, "index": 0 }),
        json!({ "customer": acme, "shard": 0, "index": 999_999 }),
        json!({ "customer": acme, "shard": 77, "index": 0 }),
    ] {
        let from = place.room.log().head().next();
        let answer = place.ask_for_acme(proof(&body)).await.is(404);
        assert_eq!((answer.problem(), answer.json()), (none.problem(), none.json()), "{body}");
        let on_record = (Some(acme), "role.auditor".to_owned(), OutcomeResult::NotFound);
        assert_eq!(asked(&records_since(&place.room, from).await, answer.named()), [on_record]);
    }
    // Nothing of the sort is asked of another customer, or of all.
    for body in [
        json!({ "customer": zenith, "request": theirs }),
        json!({ "request": theirs }),
        json!({ "request": ours }),
        json!({ "shard": 0, "index": 0 }),
    ] {
        let denied = place.ask_for_acme(proof(&body)).await.is(403);
        assert_eq!(denied.json()["rule"], "deny.customer", "{body}");
    }
    for path in ["/v1/audit/operations", "/v1/audit/records", "/v1/audit/checkpoint"] {
        assert_eq!(place.ask_for_acme(get(path)).await.is(403).json()["rule"], "deny.customer", "{path}");
    }
    assert_eq!(place.ask_for_acme(view(zenith)).await.is(403).json()["rule"], "deny.customer");
    // Whoever may read all of it, may have a proof of all of it.
    for body in [json!({ "request": theirs }), json!({ "shard": 0, "index": 0 })] {
        place.ask(proof(&body)).await.is(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_checkpoint_is_the_signed_note_with_its_cosignatures() {
    let place = Place::new().await;
    let none = place.ask(get("/v1/audit/checkpoint")).await.is(404);
    assert_eq!(none.problem().0, "not-published");
    for _ in 0..2 {
        place.seal(&place.acme).await;
        let published = place.room.publish_log().await.unwrap().pop().unwrap().1;
        let answer = place.ask(get("/v1/audit/checkpoint")).await.is(200);
        assert_eq!(answer.headers[CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(answer.text, published.checkpoint.to_string());
        let signed = SignedCheckpoint::parse(answer.text.as_bytes()).unwrap();
        let log = layout::verifier(place.room.store_id(), layout::FIRST_SHARD, authority());
        assert_eq!(*signed.verify(&log).unwrap().head(), published.tree);
        for witness in &place.witnesses {
            assert!(signed.cosigned_by(&witness.verifier).unwrap().is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_entries_come_without_the_question() {
    let place = Place::new().await;
    let mut seals = Vec::new();
    for _ in 0..3 {
        seals.push(json!(place.seal(&place.acme).await));
    }
    let all = records_since(&place.room, 0).await;
    let from = place.room.log().head().next();
    let newest = place.ask(get("/v1/audit/records?limit=5")).await.is(200);
    let records: Vec<Record> = serde_json::from_value(newest.json()["records"].clone()).unwrap();
    assert_eq!(records, all[all.len() - 5..]);
    let on_record = (None, "role.auditor".to_owned(), OutcomeResult::Ok);
    assert_eq!(asked(&records_since(&place.room, from).await, newest.named()), [on_record]);

    // The one before is over by now, and is the newest.
    let newest = place.ask(get("/v1/audit/operations?limit=1")).await.is(200).json();
    let before = &newest["operations"][0];
    assert_eq!((&before["action"], &before["outcome"]["result"]), (&json!("audit-read"), &json!("ok")));
    let newest = place.ask(get("/v1/audit/operations")).await.is(200);
    let rows = newest.json()["operations"].as_array().unwrap().clone();
    assert!(rows.iter().all(|row| row["cause"] != json!(newest.named())), "the question is not in it");
    let sealed: Vec<_> =
        rows.iter().filter(|row| row["action"] == "seal").map(|row| &row["request"]).collect();
    assert_eq!(sealed, seals.iter().collect::<Vec<_>>(), "oldest first");
    for path in ["/v1/audit/operations", "/v1/audit/records"] {
        for bad in ["limit=0", "limit=1001", "limit=x", "limit=-1", "other=1"] {
            let refused = place.ask(get(&format!("{path}?{bad}"))).await.is(400);
            assert_eq!(refused.problem().0, "invalid-input", "{path} {bad}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_publishes_and_hears_of_witnesses() {
    let place = Place::new().await;
    let publish = || post("/v1/audit/publication", &json!({}));
    assert_eq!(place.ask(publish()).await.is(403).json()["rule"], "deny.role");
    let operator = async |request| {
        let response = place.send(Reach::All, Role::Operator, request).await;
        assert_eq!(response.status(), 200);
        to_bytes(response.into_body(), 1 << 20).await.unwrap()
    };
    let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let first = value(&operator(publish()).await);
    let shard = &first["published"][0];
    assert!(shard["new"] == shard["records"] && shard["new"].as_u64().unwrap() > 0, "{first}");
    assert_eq!(
        (&shard["cosigned"], &shard["refused"]),
        (&json!(["one.example/w", "two.example/w"]), &json!([]))
    );
    let checkpoint = place.ask(get("/v1/audit/checkpoint")).await.is(200).text;
    assert_eq!(checkpoint.lines().nth(1).unwrap(), shard["records"].to_string());
    let restore = post("/v1/audit/publication", &json!({ "restore": true }));
    assert!(
        value(&operator(restore).await)["published"][0]["new"].as_u64().unwrap() > 0,
        "the questions since"
    );

    *place.witnesses[0].contradicts.lock().unwrap() = true;
    place.seal(&place.acme).await;
    let maintenance = Request::post("/v1/audit/maintenance").body(Body::empty()).unwrap();
    let done = value(&operator(maintenance).await);
    assert_eq!((&done["fenced"], &done["segments"]), (&json!(0), &json!(0)));
    let shard = &done["published"][0];
    assert_eq!(shard["cosigned"], json!(["two.example/w"]));
    let refused = &shard["refused"][0];
    assert_eq!((&refused["witness"], &refused["contradicts"]), (&json!("one.example/w"), &json!(true)));
    let figures = operator(get("/metrics")).await;
    let figures = String::from_utf8(figures.to_vec()).unwrap();
    assert!(figures.contains("strongroom_alarms_total{kind=\"rollback\"} 1"), "{figures}");
}

fn report(place: &Place, text: &str) -> ViewReport {
    let witnesses = place.witnesses.iter().map(|one| one.verifier.clone()).collect();
    check_view(text.as_bytes(), &Trust::new(authority(), witnesses, 2).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_view_streams_and_is_complete() {
    let place = Place::new().await;
    let acme = place.acme.id();
    for _ in 0..3 {
        place.seal(&place.acme).await;
        place.seal(&place.zenith).await;
    }
    let from = place.room.log().head().next();
    let made = place.ask_for_acme(view(acme)).await.is(200);
    assert_eq!(made.headers[CONTENT_TYPE], "application/x-ndjson");
    let found = report(&place, &made.text);
    assert!(found.is_complete() && found.customer == acme, "{:?}", found.findings);
    assert_eq!(found.cosigned.len(), 2);
    assert!(!made.text.contains(&place.zenith.id().to_string()));
    // The question is in the view, and how it ended is on record behind it.
    assert!(made.text.contains(&made.named().to_string()));
    let on_record = |result| (Some(acme), "role.auditor".to_owned(), result);
    let records = records_since(&place.room, from).await;
    assert_eq!(asked(&records, made.named()), [on_record(OutcomeResult::Ok)]);

    // Whoever leaves in the middle has no view, and the record says so.
    let response = place.send(Reach::All, Role::PrivacyOfficer, view(acme)).await;
    let named = response.headers()[REQUEST_ID].to_str().unwrap().parse().unwrap();
    let mut pieces = response.into_body().into_data_stream();
    pieces.next().await.unwrap().unwrap();
    drop(pieces);
    let records = records_since(&place.room, from).await;
    let (_, rule, result) = &asked(&records, named)[0];
    assert_eq!((rule.as_str(), *result), ("role.privacy-officer", OutcomeResult::Aborted));

    // Where a witness has seen another history, nobody is given one.
    *place.witnesses[1].contradicts.lock().unwrap() = true;
    let refused = place.ask(view(acme)).await.is(500);
    let (code, detail) = refused.problem();
    assert!(code == "integrity" && detail.ends_with("another history of the audit log: two.example/w"));
    let records = records_since(&place.room, from).await;
    assert_eq!(asked(&records, refused.named()), [on_record(OutcomeResult::IntegrityFailed)]);
}
