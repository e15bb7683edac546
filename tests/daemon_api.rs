//! The daemon's answers, from the router in memory: what each endpoint does, and for whom.
#![cfg(feature = "daemon")]

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, RANGE};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::{Extension, Router};
use common::{Raw, TestClock, options, pattern, records_since};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use strongroom::access::policy::{Operation, Policy, Question, Reach, Role, RoleMatrix, Subject, Target};
use strongroom::access::{Access, Origin, Principal, Purpose};
use strongroom::audit::{Action, Event, OutcomeResult};
use strongroom::daemon::api::{Caller, Figures, REQUEST_ID, Shared, router};
use strongroom::daemon::endpoints::{Endpoint, Row, TABLE};
use strongroom::daemon::limits::{Allowance, Limiter};
use strongroom::daemon::openapi;
use strongroom::id::{CustomerId, RequestId, SessionId};
use strongroom::kms::KmsRegistry;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::ring::Tenancy;
use strongroom::room::{Customer, KeyChoice, NewCustomer, SealOptions, Strongroom};
use strongroom::session::SessionLimits;
use strongroom::system::SystemEntropy;
use strongroom::time::{Clock, Day};
use tower::ServiceExt;

const FROM: Origin = Origin::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));

/// No limit: the clock stands still, and every endpoint is asked as every role. Limits have
/// tests of their own.
const BOUNDLESS: Allowance = Allowance {
    requests_per_second: 1_000_000,
    burst: 1_000_000,
    concurrent_per_principal: 1_000,
    concurrent_per_customer: 1_000,
};

struct Place {
    room: Strongroom,
    shared: Arc<Shared>,
    clock: Arc<TestClock>,
    acme: Customer,
    zenith: Customer,
    /// Its keys are in its own hand.
    own: Customer,
    _directory: tempfile::TempDir,
}

fn own() -> Access {
    Access::new(Principal::service("daemon").unwrap(), Purpose::SystemAdministration)
}

async fn customer(room: &Strongroom, label: &str, (phi, tenancy): (bool, Tenancy)) -> Customer {
    let mut new = NewCustomer::new(label.parse().unwrap(), KeyChoice::New("local".into()));
    (new.phi, new.tenancy) = (phi, tenancy);
    room.add_customer(&own(), new).await.unwrap();
    room.customer(&label.parse().unwrap(), own()).await.unwrap()
}

impl Place {
    async fn new() -> Self {
        Self::with(BOUNDLESS).await
    }

    async fn with(allowance: Allowance) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (raw, clock) = (Raw::default(), TestClock::at("2026-11-22T02:26:13.000000Z"));
        let keys = directory.path().join("kms");
        let local = InsecureLocalKms::open(keys, clock.clone(), Arc::new(SystemEntropy)).unwrap();
        let local = Arc::new(local);
        let kms = KmsRegistry::new().with(Arc::clone(&local) as _).with_grants(local);
        let epoch = KeyChoice::New("local".into());
        let (room, _) = Strongroom::init(raw.storages(), kms, epoch, &own(), options(&clock)).await.unwrap();
        let acme = customer(&room, "acme", (true, Tenancy::Held)).await;
        let zenith = customer(&room, "zenith", (true, Tenancy::Held)).await;
        let in_own_hand = customer(&room, "own", (true, Tenancy::Customer)).await;
        let shared = Arc::new(Shared {
            room: room.clone(),
            policy: Arc::new(RoleMatrix),
            clock: clock.clone(),
            body_idle: Duration::from_secs(60),
            published: strongroom::daemon::tasks::Punctual::new(
                Arc::new(strongroom::system::SystemClock),
                None,
            ),
            limiter: Limiter::new(allowance),
            figures: Figures::default(),
            own: own(),
        });
        Self { room, shared, clock, acme, zenith, own: in_own_hand, _directory: directory }
    }

    fn today(&self) -> Day {
        self.clock.now().day()
    }

    /// Somebody there for acme alone, of the PHI segment, trained until today.
    fn subject(&self, roles: &[Role]) -> Subject {
        Subject {
            principal: Principal::service("client").unwrap(),
            roles: roles.iter().copied().collect(),
            reach: Reach::These([self.acme.id()].into()),
            phi: true,
            trained_until: Some(self.today()),
        }
    }

    fn app(&self, subject: Option<Subject>) -> Router {
        let caller = Caller { subject: subject.map(Arc::new), factor: None, origin: FROM };
        router(Arc::clone(&self.shared)).layer(Extension(caller))
    }

    async fn ask(&self, roles: &[Role], request: Request<Body>) -> Answer {
        let subject = Subject { reach: Reach::All, ..self.subject(roles) };
        answer(self.app(Some(subject)), request).await
    }

    /// What was denied since `from`: action, outcome, rule, customer.
    async fn denials(&self, from: u64) -> Vec<(Action, String, Option<CustomerId>, Principal, Origin)> {
        let records = records_since(&self.room, from).await;
        let ended: BTreeSet<RequestId> = (records.iter())
            .filter_map(|record| match &record.event {
                Event::Outcome(outcome) if outcome.result == OutcomeResult::Denied => Some(outcome.request),
                _ => None,
            })
            .collect();
        let intents = records.iter().filter_map(|record| match &record.event {
            Event::Intent(intent) if ended.contains(&intent.request) => Some(intent),
            _ => None,
        });
        intents
            .map(|intent| {
                let rule = intent.rule.as_ref().map_or_else(String::new, ToString::to_string);
                (intent.action, rule, intent.customer, intent.principal.clone(), intent.origin)
            })
            .collect()
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Result<Bytes, axum::Error>,
}

impl Answer {
    #[track_caller]
    fn bytes(&self) -> &Bytes {
        self.body.as_ref().unwrap()
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(self.bytes()).unwrap()
    }

    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}", self.body);
        self
    }

    #[track_caller]
    fn code(&self) -> String {
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        problem["code"].as_str().unwrap().to_owned()
    }
}

async fn answer(app: Router, request: Request<Body>) -> Answer {
    let response = app.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 26).await;
    Answer { status: parts.status, headers: parts.headers, body }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(path: &str, value: &Value) -> Request<Body> {
    let request = Request::post(path).header(CONTENT_TYPE, "application/json");
    request.body(Body::from(value.to_string())).unwrap()
}

/// A request that fits an endpoint.
fn request(row: &Row, customer: CustomerId, blob: &str) -> Request<Body> {
    let path = row.path.replace("{customer}", &customer.to_string()).replace("{blob}", blob);
    let missing = RequestId::from_bytes([9; 16]).to_string();
    let path = path.replace("{order}", &missing).replace("{certificate}", &missing);
    let path = path.replace("{session}", &missing).replace("{emergency}", &missing);
    let body = match row.endpoint {
        Endpoint::FindBlobs => json!({ "name": "a" }),
        Endpoint::ExtendBlob => json!({ "until": "2026-11-30" }),
        Endpoint::AddCustomer => json!({ "label": "acme", "kms_key": "local" }),
        Endpoint::FindCustomer => json!({ "label": "acme" }),
        Endpoint::SetCustomer => json!({}),
        Endpoint::PlaceHold => json!({ "day": "2028-05-22" }),
        Endpoint::ShredCancel => json!({ "keys": [] }),
        Endpoint::OpenSession | Endpoint::RequestAccess | Endpoint::DeclareEmergency => json!({}),
        Endpoint::DraftOrder => json!({
            "what": { "destroy-days": { "days": ["2028-05-22"] } }, "customer": customer, "requested_by": "person:a",
        }),
        Endpoint::QueryAudit => json!({ "customer": customer, "limit": 1 }),
        Endpoint::RotateEpoch | Endpoint::Rekey => json!({ "kms_key": "nonsense" }),
        Endpoint::ProveRecord => json!({ "customer": customer, "shard": 0, "index": 0 }),
        Endpoint::PublishAudit => json!({}),
        _ => Value::Null,
    };
    let request = Request::builder().method(row.method.clone()).uri(path);
    match body {
        Value::Null => request.body(Body::empty()).unwrap(),
        body => request.header(CONTENT_TYPE, "application/json").body(Body::from(body.to_string())).unwrap(),
    }
}

/// What a request for an endpoint concerns, as the policy sees it. `None`: it cannot be said
/// before more is known, and is asked about elsewhere.
fn target(row: &Row, id: CustomerId) -> Option<Target> {
    let customer = Target::Customer { id, phi: true, sessions: false, session: None };
    match row.endpoint {
        // Of a note that nobody signed, and of what is not there.
        Endpoint::RequestOrder | Endpoint::ApproveOrder | Endpoint::FindCustomer => None,
        Endpoint::ListOrders
        | Endpoint::ShowOrder
        | Endpoint::ListPeople
        | Endpoint::ListCertificates
        | Endpoint::ShowCertificate => Some(Target::Covered),
        Endpoint::DraftOrder | Endpoint::QueryAudit | Endpoint::ProveRecord => Some(customer),
        _ if row.path.contains("{customer}") => Some(customer),
        _ => Some(Target::Store),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_answers_every_role_as_the_matrix_has_it() {
    let place = Place::new().await;
    let sealed = place.acme.seal(b"a".to_vec(), SealOptions::new()).await.unwrap().id.to_string();
    let today = place.today();
    let mut asked = 0;
    for row in TABLE {
        for role in Role::ALL {
            for (own_customer, phi, trained) in
                (0..8).map(|bits| (bits & 1 == 0, bits & 2 == 0, bits & 4 == 0))
            {
                let id = if own_customer { place.acme.id() } else { place.zenith.id() };
                let Some(target) = target(row, id) else { continue };
                let trained_until = if trained { today } else { Day::from_number(today.number() - 1) };
                let subject = Subject { phi, trained_until: Some(trained_until), ..place.subject(&[*role]) };
                let question = Question { subject: &subject, operation: row.operation, target, today };
                let expected = RoleMatrix.decide(&question);
                let from = place.room.log().head().next();
                let answer = answer(place.app(Some(subject.clone())), request(row, id, &sealed)).await;
                let what =
                    format!("{:?} by {role}, own {own_customer}, phi {phi}, trained {trained}", row.endpoint);
                let denials = place.denials(from).await;
                if expected.is_allowed() {
                    assert!(![401, 403].contains(&answer.status.as_u16()), "{what}: {:?}", answer.body);
                    assert_ne!(answer.status, 500, "{what}: {:?}", answer.body);
                    assert!(denials.is_empty(), "{what}: {denials:?}");
                } else {
                    assert_eq!(answer.status, 403, "{what}");
                    if row.method != Method::HEAD {
                        assert_eq!(
                            (answer.code(), answer.json()["rule"].as_str()),
                            ("denied".into(), Some(expected.rule().as_str())),
                            "{what}"
                        );
                    }
                    let customer = matches!(target, Target::Customer { .. }).then_some(id);
                    let rule = expected.rule().to_string();
                    let recorded = (row.action, rule, customer, subject.principal, FROM);
                    assert_eq!(denials, [recorded], "{what}");
                }
                asked += 1;
            }
        }
    }
    assert_eq!(asked, (TABLE.len() - 3) * Role::ALL.len() * 8);
}

/// In and out of a session: every endpoint and role, on a customer whose keys are in its own hand.
#[tokio::test(flavor = "multi_thread")]
async fn in_and_out_of_a_session_every_endpoint_answers_as_the_matrix_has_it() {
    let place = Place::new().await;
    let (room, own, today) = (&place.room, place.own.id(), place.today());
    let sealed = place.own.seal(b"a".to_vec(), SealOptions::new()).await.unwrap().id.to_string();
    let officer = Access::new(Principal::person("p-1").unwrap(), Purpose::Operations);
    let limits = SessionLimits::DEFAULT;
    let ended = room.open_session(&officer, own, limits).await.unwrap().id;
    room.end_session(&officer, own, ended).await.unwrap();
    let other = customer(room, "other", (true, Tenancy::Customer)).await.id();
    let foreign = room.open_session(&officer, other, limits).await.unwrap().id;
    let nobodys = SessionId::from_bytes([7; 16]);
    let (mut asked, mut by_session) = (0, 0);
    for row in TABLE.iter().filter(|row| row.path.contains("{customer}")) {
        for role in Role::ALL {
            // What ends, opens and asks for sessions itself would change the others' answers.
            let open = room.open_session(&officer, own, limits).await.unwrap().id;
            for (named, is_open) in [
                (None, false),
                (Some(open), true),
                (Some(ended), false),
                (Some(foreign), false),
                (Some(nobodys), false),
            ] {
                let reach = Reach::These([own].into());
                let subject = Subject { reach, ..place.subject(&[*role]) };
                let session = named.filter(|_| is_open);
                let target = Target::Customer { id: own, phi: true, sessions: true, session };
                let question = Question { subject: &subject, operation: row.operation, target, today };
                let expected = RoleMatrix.decide(&question);
                let mut request = request(row, own, &sealed);
                if let Some(named) = named {
                    request.headers_mut().insert("strongroom-session", named.to_string().parse().unwrap());
                }
                let from = room.log().head().next();
                let answer = answer(place.app(Some(subject)), request).await;
                let what = format!("{:?} by {role}, in {named:?}, open {is_open}", row.endpoint);
                let denials = place.denials(from).await;
                if expected.is_allowed() {
                    // Sealing takes no session, but one that is named and not open is no way in.
                    let is_closed = row.endpoint == Endpoint::Seal && named.is_some() && !is_open;
                    let status = answer.status.as_u16();
                    assert_eq!([401, 403].contains(&status), is_closed, "{what}: {:?}", answer.body);
                    assert_ne!(status, 500, "{what}: {:?}", answer.body);
                } else {
                    assert_eq!(answer.status, 403, "{what}");
                    let rule = expected.rule().to_string();
                    by_session += usize::from(rule == "deny.session");
                    assert_eq!(denials.len(), 1, "{what}");
                    assert_eq!((&denials[0].1, denials[0].2), (&rule, Some(own)), "{what}");
                }
                asked += 1;
            }
        }
    }
    assert!(asked > 600 && by_session > 50, "{asked}, {by_session}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_lets_somebody_in_and_out_again() {
    let place = Place::new().await;
    let own = place.own.id();
    let sealed = place.own.seal(pattern(100_000), SealOptions::new()).await.unwrap().id.to_string();
    let blob = format!("/v1/customers/{own}/blobs/{sealed}");
    let sessions = format!("/v1/customers/{own}/sessions");
    let within = |session: &Value| {
        let mut request = get(&blob);
        let session = session.as_str().unwrap().parse().unwrap();
        request.headers_mut().insert("strongroom-session", session);
        request
    };
    let (officer, reader) = ([Role::PrivacyOfficer], [Role::Reader]);
    for bad in [
        json!({ "idle_seconds": 59 }),
        json!({ "absolute_seconds": 86_401 }),
        json!({ "idle_seconds": 600, "absolute_seconds": 300 }),
        json!({ "name": "Jane Doe" }),
    ] {
        let refused = place.ask(&officer, post(&sessions, &bad)).await.is(400);
        assert!(!String::from_utf8_lossy(refused.bytes()).contains("Jane"));
    }
    let opened =
        place.ask(&officer, post(&sessions, &json!({ "absolute_seconds": 600 }))).await.is(201).json();
    assert_eq!((&opened["state"], &opened["idle_seconds"]), (&json!("open"), &json!(600)));
    assert_eq!(*place.ask(&reader, within(&opened["session"])).await.is(200).bytes(), pattern(100_000));
    let end = format!("{sessions}/{}/end", opened["session"].as_str().unwrap());
    let ended = place.ask(&officer, post(&end, &Value::Null)).await.is(200).json();
    assert_eq!((&ended["state"], &ended["why"]), (&json!("over"), &json!("asked")));
    assert_eq!(place.ask(&reader, within(&opened["session"])).await.is(403).json()["rule"], "deny.session");
    let listed = place.ask(&reader, get(&sessions)).await.is(200).json();
    assert_eq!(listed["sessions"][0]["session"], opened["session"]);

    // Afterwards, by request; for whoever asked, and nobody else.
    let requests = format!("/v1/customers/{own}/access-requests");
    let asked = place.ask(&reader, post(&requests, &json!({}))).await.is(201).json();
    let listed = place.ask(&officer, get(&requests)).await.is(200).json();
    let listed = &listed["access_requests"][0];
    assert_eq!(
        (&listed["access_request"], &listed["by"]["principal"]),
        (&asked["access_request"], &json!("service:client"))
    );
    let approval =
        post(&format!("{requests}/{}/approval", asked["access_request"].as_str().unwrap()), &Value::Null);
    let itself = place.ask(&officer, approval).await.is(403);
    assert_eq!(itself.code(), "denied", "nobody approves what they asked for themselves");
    let approval =
        post(&format!("{requests}/{}/approval", asked["access_request"].as_str().unwrap()), &Value::Null);
    let principal = Principal::person("p-2").unwrap();
    let second = Subject { reach: Reach::All, principal, ..place.subject(&officer) };
    let session = answer(place.app(Some(second)), approval).await.is(201).json();
    assert_eq!(session["only"]["principal"], "service:client");
    place.ask(&reader, within(&session["session"])).await.is(200);
    let another =
        Subject { reach: Reach::All, principal: Principal::service("b").unwrap(), ..place.subject(&reader) };
    answer(place.app(Some(another)), within(&session["session"])).await.is(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_twice_under_one_key_is_stored_once() {
    let place = Place::new().await;
    let blobs = format!("/v1/customers/{}/blobs", place.acme.id());
    let seal = |key: &str, bytes: &'static str| {
        Request::post(&blobs).header("idempotency-key", key).body(Body::from(bytes)).unwrap()
    };
    let first = place.ask(&[Role::BackupJob], seal("nightly-1", "bytes")).await.is(201);
    let again = place.ask(&[Role::BackupJob], seal("nightly-1", "bytes")).await.is(201);
    assert_eq!(first.json()["blob"], again.json()["blob"]);
    assert_eq!((&first.json()["replayed"], &again.json()["replayed"]), (&json!(false), &json!(true)));
    assert!(!first.headers.contains_key("idempotent-replayed"));
    assert_eq!(
        (&again.headers["idempotent-replayed"], &again.headers[LOCATION]),
        (&"true".parse().unwrap(), &first.headers[LOCATION])
    );
    assert_eq!(place.ask(&[Role::BackupJob], seal("nightly-1", "other")).await.is(409).code(), "conflict");
    for bad in ["", "a b", "Jane\u{e9}"] {
        let refused = place.ask(&[Role::BackupJob], seal(bad, "bytes")).await.is(400);
        assert!(!refused.json()["detail"].as_str().unwrap().contains("Jane"));
    }
    let listed = place.ask(&[Role::BackupJob], get(&blobs)).await.is(200).json();
    assert_eq!(listed["blobs"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_whom_nobody_knows_is_told_nothing_and_recorded() {
    let place = Place::new().await;
    for row in TABLE {
        let from = place.room.log().head().next();
        let answer = answer(place.app(None), request(row, place.acme.id(), "0")).await;
        if matches!(row.endpoint, Endpoint::RequestOrder | Endpoint::ApproveOrder)
            || row.path.contains("{blob}")
        {
            assert!([400, 404].contains(&answer.status.as_u16()), "{:?}", row.endpoint);
            continue;
        }
        assert_eq!(answer.status, 401, "{:?}", row.endpoint);
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        let denials = place.denials(from).await;
        assert_eq!(denials.len(), 1);
        assert_eq!((denials[0].0, &denials[0].3), (row.action, &Principal::service("unknown").unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_goes_in_and_comes_out_as_it_was() {
    let place = Place::new().await;
    let blobs = format!("/v1/customers/{}/blobs", place.acme.id());
    let bytes = pattern(3_000_000);
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        bytes.chunks(70_001).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let sealing = Request::post(&blobs)
        .header("strongroom-name", "scans%2Fgr%C3%B6%C3%9Fe")
        .header("strongroom-meta", "ward=7")
        .header("strongroom-meta", "unit=a%3Db")
        .header("strongroom-retain-until", "2040-01-01")
        .header("strongroom-expect-bytes", bytes.len())
        .header("strongroom-purpose", "TREAT")
        .header(CONTENT_TYPE, "application/dicom")
        .body(Body::from_stream(stream::iter(pieces)))
        .unwrap();
    let from = place.room.log().head().next();
    let sealed = place.ask(&[Role::Writer], sealing).await.is(201);
    let blob = sealed.json()["blob"].as_str().unwrap().to_owned();
    assert_eq!(sealed.headers[LOCATION], format!("{blobs}/{blob}"));
    assert_eq!(sealed.json()["retain_until"], "2040-01-01");
    // The request, its purpose and its rule reach the log.
    let named: RequestId = sealed.headers[REQUEST_ID].to_str().unwrap().parse().unwrap();
    let records = records_since(&place.room, from).await;
    let intent = records.iter().find_map(|record| match &record.event {
        Event::Intent(intent) if intent.action == Action::Seal => Some(intent.clone()),
        _ => None,
    });
    let intent = intent.unwrap();
    assert_eq!((intent.cause, intent.purpose, intent.origin), (Some(named), Purpose::Treatment, FROM));
    assert_eq!(intent.rule.unwrap().as_str(), "role.writer");

    let path = format!("{blobs}/{blob}");
    let whole = place.ask(&[Role::Reader], get(&path)).await.is(200);
    assert_eq!(*whole.bytes(), bytes);
    assert_eq!(whole.headers[CONTENT_TYPE], "application/dicom");
    assert_eq!(whole.headers["strongroom-name"], "scans/gr%C3%B6%C3%9Fe");
    let pairs: Vec<_> = whole.headers.get_all("strongroom-meta").iter().collect();
    assert_eq!(pairs, ["unit=a%3Db", "ward=7"]);
    for (range, from, to) in
        [("bytes=0-0", 0, 1), ("bytes=16383-16384", 16_383, 16_385), ("bytes=-5", 2_999_995, 3_000_000)]
    {
        let mut part = get(&path);
        part.headers_mut().insert(RANGE, range.parse().unwrap());
        let part = place.ask(&[Role::Reader], part).await.is(206);
        assert_eq!(*part.bytes(), bytes[from..to]);
        assert_eq!(part.headers["content-range"], format!("bytes {from}-{}/3000000", to - 1));
    }
    let mut beyond = get(&path);
    beyond.headers_mut().insert(RANGE, "bytes=3000000-".parse().unwrap());
    let beyond = place.ask(&[Role::Reader], beyond).await.is(416);
    assert_eq!(beyond.headers["content-range"], "bytes */3000000");
    let mut again = get(&path);
    again.headers_mut().insert(IF_NONE_MATCH, whole.headers[ETAG].clone());
    assert!(place.ask(&[Role::Reader], again).await.is(304).bytes().is_empty());
    let head = place.ask(&[Role::BackupJob], Request::head(&path).body(Body::empty()).unwrap()).await.is(200);
    assert_eq!((head.headers["content-length"].to_str().unwrap(), head.bytes().len()), ("3000000", 0));

    let stat = place.ask(&[Role::Reader], get(&format!("{path}/metadata"))).await.is(200).json();
    assert_eq!((&stat["name"], &stat["meta"]["ward"]), (&json!("scans/größe"), &json!("7")));
    let verified = place
        .ask(&[Role::BackupJob], post(&format!("{path}/verification"), &Value::Null))
        .await
        .is(200)
        .json();
    assert_eq!((&verified["ok"], &verified["bytes"]), (&json!(true), &json!(3_000_000)));
    let longer = place
        .ask(&[Role::Writer], post(&format!("{path}/extension"), &json!({ "until": "2041-01-01" })))
        .await;
    assert_eq!(longer.is(200).json()["retain_until"], "2041-01-01");
    let found =
        place.ask(&[Role::Reader], post(&format!("{blobs}/find"), &json!({ "name": "scans/größe" }))).await;
    assert_eq!(found.is(200).json()["blobs"][0]["blob"], blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_or_is_of_another_length_leaves_nothing() {
    let place = Place::new().await;
    let blobs = format!("/v1/customers/{}/blobs", place.acme.id());
    let broken = stream::iter([Ok(pattern(100_000)), Err(std::io::Error::other("gone"))]);
    let request = Request::post(&blobs).body(Body::from_stream(broken)).unwrap();
    assert_eq!(place.ask(&[Role::Writer], request).await.is(400).code(), "io");
    for expected in ["3", "5"] {
        let request = Request::post(&blobs)
            .header("strongroom-expect-bytes", expected)
            .body(Body::from("four"))
            .unwrap();
        assert_eq!(place.ask(&[Role::Writer], request).await.is(400).code(), "io");
    }
    let listed = place.ask(&[Role::Reader], get(&blobs)).await.is(200).json();
    assert_eq!(listed, json!({ "blobs": [], "next": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_too_many_is_told_to_wait_and_leaves_no_record() {
    let place = Place::with(Allowance { requests_per_second: 1, burst: 3, ..BOUNDLESS }).await;
    let path = format!("/v1/customers/{}/retention", place.acme.id());
    for _ in 0..3 {
        place.ask(&[Role::KeyAdministrator], get(&path)).await.is(200);
    }
    let from = place.room.log().head().next();
    let refused = place.ask(&[Role::KeyAdministrator], get(&path)).await.is(429);
    assert_eq!(
        (refused.code().as_str(), &refused.headers["retry-after"]),
        ("too-many-requests", &"1".parse().unwrap())
    );
    assert_eq!(refused.json()["limit"], "principal-rate");
    assert!(refused.headers[REQUEST_ID].to_str().unwrap().parse::<RequestId>().is_ok());
    assert!(records_since(&place.room, from).await.is_empty(), "it is not on the record");
    // Whoever nobody knows is a principal of its own, and has no part of the customer's.
    for status in [401, 401, 401, 429] {
        answer(place.app(None), get(&path)).await.is(status);
    }
    // Health is told to whoever asks.
    for _ in 0..10 {
        place.ask(&[], get("/v1/health")).await.is(200);
    }
    place.clock.pass(Duration::from_secs(1));
    let figures = place.ask(&[Role::Operator], get("/metrics")).await.is(200);
    let figures = String::from_utf8(figures.bytes().to_vec()).unwrap();
    assert!(figures.contains("strongroom_refused_total{limit=\"principal-rate\"} 2"), "{figures}");
    assert!(figures.contains("strongroom_requests_total{status=\"429\"} 2"), "{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saturated_customer_is_in_nobodys_way() {
    let place = Place::with(Allowance { concurrent_per_customer: 4, ..BOUNDLESS }).await;
    let blob = place.acme.seal(pattern(3_000_000), SealOptions::new()).await.unwrap().id;
    let other = place.zenith.seal(pattern(10), SealOptions::new()).await.unwrap().id;
    let path = |customer: CustomerId, blob| format!("/v1/customers/{customer}/blobs/{blob}");
    let reader = || Some(Subject { reach: Reach::All, ..place.subject(&[Role::Reader]) });
    let mut under_way = Vec::new();
    for _ in 0..4 {
        let opened = place.app(reader()).oneshot(get(&path(place.acme.id(), blob))).await.unwrap();
        assert_eq!(opened.status(), 200);
        under_way.push(opened);
    }
    let refused = answer(place.app(reader()), get(&path(place.acme.id(), blob))).await.is(429);
    assert_eq!(refused.json()["limit"], "customer-concurrency");
    // Another's, by the same principal: at once.
    let served = place.ask(&[Role::Reader], get(&path(place.zenith.id(), other)));
    let served = tokio::time::timeout(Duration::from_secs(5), served).await.expect("in time").is(200);
    assert_eq!(*served.bytes(), pattern(10));
    // Who is not there for it takes nothing of it.
    let elsewhere =
        Subject { reach: Reach::These([place.zenith.id()].into()), ..place.subject(&[Role::Reader]) };
    answer(place.app(Some(elsewhere)), get(&path(place.acme.id(), blob))).await.is(403);
    // A place is free when the last byte is out, or nobody takes the rest.
    let whole = to_bytes(under_way.pop().unwrap().into_body(), 1 << 26).await.unwrap();
    assert_eq!(whole, pattern(3_000_000));
    let again = place.app(reader()).oneshot(get(&path(place.acme.id(), blob))).await.unwrap();
    assert_eq!(again.status(), 200);
    place.ask(&[Role::Reader], get(&path(place.acme.id(), blob))).await.is(429);
    drop(under_way.pop());
    place.ask(&[Role::Reader], get(&path(place.acme.id(), blob))).await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_listed_in_pages() {
    let place = Place::new().await;
    let blobs = format!("/v1/customers/{}/blobs", place.acme.id());
    let mut all = BTreeSet::new();
    for _ in 0..5 {
        let sealed = place.acme.seal(b"a".to_vec(), SealOptions::new()).await.unwrap();
        all.insert(sealed.id.to_string());
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = place.ask(&[Role::Reader], get(&format!("{blobs}?limit=2{after}"))).await.is(200).json();
        seen.extend(
            page["blobs"].as_array().unwrap().iter().map(|row| row["blob"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, all.into_iter().collect::<Vec<_>>());
    for bad in ["limit=0", "limit=1001", "limit=x", "after=x", "other=1"] {
        let refused = place.ask(&[Role::Reader], get(&format!("{blobs}?{bad}"))).await;
        assert_eq!(refused.is(400).code(), "invalid-input", "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inventory_is_what_the_log_says_in_pages() {
    let place = Place::new().await;
    let inventory = format!("/v1/customers/{}/inventory", place.acme.id());
    let mut all = BTreeSet::new();
    for _ in 0..5 {
        all.insert(place.acme.seal(b"a".to_vec(), SealOptions::new()).await.unwrap().id.to_string());
    }
    let ask = |query: String| place.ask(&[Role::BackupJob], get(&format!("{inventory}{query}")));
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = ask(format!("?limit=2{after}")).await.is(200).json();
        assert_eq!(page["store"], place.room.store_id().to_string());
        for row in page["blobs"].as_array().unwrap() {
            assert_eq!(row["standing"], "lives");
            seen.push(row["blob"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, all.into_iter().collect::<Vec<_>>());
    let mark = ask("?limit=0".into()).await.is(200).json();
    assert_eq!((&mark["blobs"], &mark["next"]), (&json!([]), &Value::Null));
    let tree = place.room.log().head().tree();
    assert_eq!((mark["log"]["size"].as_u64(), &mark["log"]["root"]), (Some(tree.size), &json!(tree.root)));
    for bad in ["limit=100001", "limit=-1", "limit=x", "after=x", "other=1", "ids=true"] {
        assert_eq!(ask(format!("?{bad}")).await.is(400).code(), "invalid-input", "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_put_under_another_kms_key() {
    let place = Place::new().await;
    let sealed = place.acme.seal(pattern(100_000), SealOptions::new()).await.unwrap().id;
    let rekey = format!("/v1/customers/{}/rekey", place.acme.id());
    let administrator = [Role::KeyAdministrator];
    let before = place.ask(&administrator, get(&rekey)).await.is(200).json();
    assert_eq!(before["former"], json!([]));
    let from = place.room.log().head().next();
    let answer = place.ask(&administrator, post(&rekey, &json!({ "kms_key": "local" }))).await.is(200);
    let (named, rekeyed) = (answer.headers[REQUEST_ID].to_str().unwrap().to_owned(), answer.json());
    assert_eq!((&rekeyed["from"], &rekeyed["changed"]), (&before["kms_key"], &json!(true)));
    assert_ne!(rekeyed["kms_key"], before["kms_key"]);
    // Each key that was used is on record, by the role, and below the request.
    let records = records_since(&place.room, from).await;
    let intents = || {
        records.iter().filter_map(|record| match &record.event {
            Event::Intent(intent) => Some(intent),
            _ => None,
        })
    };
    let whole = intents().find(|intent| intent.action == Action::CustomerSet).unwrap();
    assert_eq!(whole.cause.map(|cause| cause.to_string()), Some(named));
    let uses: Vec<_> = intents().filter(|intent| intent.action == Action::Rekey).collect();
    assert_eq!(uses.len(), usize::try_from(rekeyed["keys"].as_u64().unwrap()).unwrap());
    for intent in uses {
        assert_eq!(intent.rule.as_ref().unwrap().as_str(), "role.key-administrator");
    }
    let after = place.ask(&[Role::Auditor], get(&rekey)).await.is(200).json();
    assert_eq!(
        (&after["kms_key"], &after["former"][0]["kms_key"]),
        (&rekeyed["kms_key"], &before["kms_key"])
    );
    let opened =
        place.ask(&[Role::Reader], get(&format!("/v1/customers/{}/blobs/{sealed}", place.acme.id())));
    assert_eq!(*opened.await.is(200).bytes(), pattern(100_000));
    // Only who sees to keys, with a key of a provider that there is.
    for (role, body, status) in [
        (Role::PrivacyOfficer, json!({ "kms_key": "local" }), 403),
        (Role::KeyAdministrator, json!({ "kms_key": "Jane Doe" }), 400),
        (Role::KeyAdministrator, json!({ "kms_key": "local", "force": true }), 400),
        (Role::KeyAdministrator, json!({}), 400),
    ] {
        let refused = place.ask(&[role], post(&rekey, &body)).await.is(status);
        assert!(!String::from_utf8_lossy(refused.bytes()).contains("Jane"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_told_apart_and_nothing_of_them_is_repeated() {
    let place = Place::new().await;
    let acme = place.acme.id();
    let (blobs, missing) = (format!("/v1/customers/{acme}/blobs"), RequestId::from_bytes([9; 16]));
    let with = |request: Request<Body>, name: &'static str, value: &'static str| {
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(name, value.parse().unwrap());
        Request::from_parts(parts, body)
    };
    for (request, status, code) in [
        (get("/v1/Jane-Doe"), 404, "no-such-endpoint"),
        (get("/v1/customers/..%2f..%2fetc/blobs"), 404, "not-found"),
        (get("/v1/customers/Jane-Doe/blobs"), 404, "not-found"),
        (get(&format!("/v1/customers/{missing}/blobs")), 404, "not-found"),
        (get(&format!("{blobs}/{missing}")), 404, "not-found"),
        (Request::delete(&blobs).body(Body::empty()).unwrap(), 405, "no-such-method"),
        (with(get(&blobs), "strongroom-purpose", "Jane Doe"), 400, "invalid-input"),
        (with(get(&blobs), "strongroom-request", "Jane Doe"), 400, "invalid-input"),
        (with(get(&blobs), "strongroom-session", "Jane Doe"), 400, "invalid-input"),
        (post(&format!("{blobs}/find"), &json!({ "name": "a", "Jane": "Doe" })), 400, "invalid-input"),
        (
            with(post(&format!("{blobs}/find"), &json!({})), "content-type", "text/plain"),
            415,
            "unsupported-media-type",
        ),
        (post(&format!("{blobs}/find"), &json!({ "name": "x".repeat(70_000) })), 413, "body-too-large"),
        (
            with(Request::post(&blobs).body(Body::from("x")).unwrap(), "strongroom-name", "%ff"),
            400,
            "invalid-input",
        ),
        (
            with(Request::post(&blobs).body(Body::from("x")).unwrap(), "strongroom-meta", "Jane Doe"),
            400,
            "invalid-input",
        ),
        (
            with(Request::post(&blobs).body(Body::from("x")).unwrap(), "strongroom-retain-until", "soon"),
            400,
            "invalid-input",
        ),
    ] {
        let what = format!("{request:?}");
        let answer = place.ask(&[Role::Reader, Role::Writer], request).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{what}");
        let body = String::from_utf8(answer.bytes().to_vec()).unwrap();
        assert!(!body.contains("Jane") && !body.contains("xxx"), "{body}");
    }
}

/// Time passes as soon as all wait.
#[tokio::test(start_paused = true)]
async fn a_body_of_json_that_does_not_come_is_not_waited_for() {
    let place = Place::new().await;
    let find = format!("/v1/customers/{}/blobs/find", place.acme.id());
    let silent = stream::pending().boxed();
    // A byte a second never ends, though each comes in time.
    let trickling = stream::repeat(()).then(async |()| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Bytes::from_static(b" ")
    });
    for slow in [silent, trickling.boxed()] {
        let body = stream::once(async { Bytes::from_static(b"{") }).chain(slow);
        let request = Request::post(&find).header(CONTENT_TYPE, "application/json");
        let request = request.body(Body::from_stream(body.map(Ok::<_, std::io::Error>))).unwrap();
        let begun = tokio::time::Instant::now();
        let answer = place.ask(&[Role::Reader], request).await.is(408);
        assert_eq!(answer.code(), "body-too-slow");
        assert_eq!(begun.elapsed().as_secs(), 30);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_are_found_by_label_by_whoever_is_there_for_them() {
    let place = Place::new().await;
    customer(&place.room, "open", (false, Tenancy::Held)).await;
    let find = |label: &str| post("/v1/customers/find", &json!({ "label": label }));
    let own = answer(place.app(Some(place.subject(&[Role::Writer]))), find("acme")).await.is(200);
    assert_eq!(own.json()["customer"], place.acme.id().to_string());
    for label in ["zenith", "nobody"] {
        let other = answer(place.app(Some(place.subject(&[Role::Writer]))), find(label)).await;
        assert_eq!(other.is(404).code(), "not-found", "{label}");
    }
    // Who is of no PHI segment sees those without PHI.
    let outside = Subject { phi: false, reach: Reach::All, ..place.subject(&[Role::KeyAdministrator]) };
    let listed = answer(place.app(Some(outside)), get("/v1/customers")).await.is(200).json();
    let labels: Vec<_> =
        listed["customers"].as_array().unwrap().iter().map(|row| row["label"].clone()).collect();
    assert_eq!(labels, ["open"]);
    let added = place
        .ask(
            &[Role::KeyAdministrator],
            post(
                "/v1/customers",
                &json!({
                    "label": "new", "kms_key": "local", "retention": "P6Y", "window": "P14D", "phi": false,
                }),
            ),
        )
        .await
        .is(201)
        .json();
    assert_eq!(
        (&added["retention"], &added["window"], &added["phi"]),
        (&json!("P72M"), &json!("P14D"), &json!(false))
    );
    let path = format!("/v1/customers/{}", added["customer"].as_str().unwrap());
    let change = Request::patch(&path).header(CONTENT_TYPE, "application/json");
    let change = change.body(Body::from(json!({ "retention": "P7Y" }).to_string())).unwrap();
    assert_eq!(place.ask(&[Role::KeyAdministrator], change).await.is(200).json()["retention"], "P84M");
    let policies = place.ask(&[Role::PrivacyOfficer], get(&format!("{path}/retention"))).await.is(200).json();
    assert_eq!(policies["policies"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_asked_and_that_is_in_it() {
    let place = Place::new().await;
    place.acme.seal(b"a".to_vec(), SealOptions::new()).await.unwrap();
    let asked = json!({ "customer": place.acme.id(), "action": "seal" });
    let page = place.ask(&[Role::Auditor], post("/v1/audit/query", &asked)).await.is(200).json();
    assert_eq!(page["operations"].as_array().unwrap().len(), 1);
    assert_eq!(page["operations"][0]["outcome"]["result"], "ok");
    let asked = json!({ "action": "audit-read" });
    let page = place.ask(&[Role::Auditor], post("/v1/audit/query", &asked)).await.is(200).json();
    assert_eq!(page["operations"][0]["rule"], "role.auditor");
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_health_and_document_are_there() {
    let place = Place::new().await;
    assert_eq!(place.ask(&[], get("/v1/health")).await.is(200).json()["status"], "alive");
    assert_eq!(place.ask(&[], get("/v1/ready")).await.is(200).json()["status"], "ready");
    let figures = place.ask(&[Role::Operator], get("/metrics")).await.is(200);
    let figures = String::from_utf8(figures.bytes().to_vec()).unwrap();
    assert!(figures.contains("strongroom_requests_total{status=\"200\"} 2"), "{figures}");
    let document = place.ask(&[], get("/v1/openapi.json")).await.is(200).json();
    assert_eq!(document, openapi::document());
    for row in TABLE {
        let described = &document["paths"][row.path][row.method.as_str().to_lowercase()];
        assert_eq!(described["operationId"], format!("{:?}", row.endpoint), "{:?}", row.endpoint);
        assert_eq!(described["x-operation"], row.operation.code());
    }
    let judged: BTreeSet<Operation> = TABLE.iter().map(|row| row.operation).collect();
    assert!(judged.contains(&Operation::Seal));
}
