//! The HTTP front: the daemon's router in memory, and requests that are made of bytes.
//!
//! An input is one request:
//!
//! ```text
//! <who asks: one byte>METHOD path?query
//! name: value
//!
//! body, in pieces that end with the byte 0x1e
//! ```
//!
//! The bytes 1 to 4 stand for ids of the store that is asked: a customer, one whose keys are in
//! its own hand, a blob and a session.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::stream;
use strongroom::access::policy::{Reach, Role, RoleMatrix, Subject};
use strongroom::access::{Access, Factor, Origin, Principal, Purpose};
use strongroom::daemon::api::{Caller, Figures, Shared, router};
use strongroom::daemon::endpoints::TABLE;
use strongroom::daemon::limits::{Allowance, Limiter};
use strongroom::daemon::tasks::Punctual;
use strongroom::kms::KmsRegistry;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::ring::Tenancy;
use strongroom::room::{KeyChoice, NewCustomer, SealOptions, Strongroom};
use strongroom::session::SessionLimits;
use strongroom::system::SystemClock;
use tower::ServiceExt;

use crate::common::{CountingEntropy, Raw, TestClock, options, pattern};
use crate::corpus::{World, people};

/// After so many requests the store is made anew, so that it does not grow.
const FRESH: u32 = 400;

/// No limit: the clock stands still.
const BOUNDLESS: Allowance = Allowance {
    requests_per_second: 1_000_000,
    burst: 1_000_000,
    concurrent_per_principal: 1_000,
    concurrent_per_customer: 1_000,
};

/// The longest answer that is read.
const LONGEST: usize = 64 << 20;

/// What a request may take, whatever its length: the pipeline of a seal, the answer, and what the
/// store keeps of it, in bytes.
pub const LIMIT: usize = 8 << 20;

/// Where a piece of a body ends.
const PIECE: u8 = 0x1e;

struct Place {
    runtime: tokio::runtime::Runtime,
    shared: Arc<Shared>,
    asked: u32,
    customer: String,
    own: String,
    blob: String,
    session: String,
    _home: tempfile::TempDir,
}

fn access() -> Access {
    let service = Principal::service("daemon").unwrap();
    Access::new(service, Purpose::SystemAdministration).from_origin(Origin::Process(1))
}

impl Place {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Self::make()).with(runtime)
    }

    async fn make() -> Made {
        let home = tempfile::tempdir().unwrap();
        let (raw, clock) = (Raw::default(), TestClock::at("2026-11-22T02:26:13.000000Z"));
        let entropy = CountingEntropy::new("strongroom fuzz tests of HTTP");
        let local = InsecureLocalKms::open(home.path().join("kms"), clock.clone(), entropy.clone()).unwrap();
        let local = Arc::new(local);
        let kms = KmsRegistry::new().with(Arc::clone(&local) as _).with_grants(local);
        let mut options = options(&clock);
        (options.entropy, options.people) = (entropy, people());
        let key = || KeyChoice::New("local".into());
        let (room, _) = Strongroom::init(raw.storages(), kms, key(), &access(), options).await.unwrap();
        let add = async |label: &str, tenancy| {
            let mut new = NewCustomer::new(label.parse().unwrap(), key());
            (new.tenancy, new.phi) = (tenancy, true);
            room.add_customer(&access(), new).await.unwrap();
            room.customer(&label.parse().unwrap(), access()).await.unwrap()
        };
        let (acme, own) = (add("acme", Tenancy::Held).await, add("own", Tenancy::Customer).await);
        let blob = acme.seal(pattern(20_000), SealOptions::new()).await.unwrap().id;
        let limits = SessionLimits::or_default(None, None);
        let session = room.open_session(&access(), own.id(), limits).await.unwrap().id;
        let shared = Shared {
            room: room.clone(),
            policy: Arc::new(RoleMatrix),
            clock,
            body_idle: Duration::from_secs(60),
            published: Punctual::new(Arc::new(SystemClock), None),
            limiter: Limiter::new(BOUNDLESS),
            figures: Figures::default(),
            own: access(),
        };
        let [customer, own] = [acme.id(), own.id()].map(|id| id.to_string());
        Made {
            shared: Arc::new(shared),
            customer,
            own,
            blob: blob.to_string(),
            session: session.to_string(),
            home,
        }
    }

    fn app(&self, who: u8) -> Router {
        let person = who & 1 != 0;
        let principal =
            if person { Principal::person("a").unwrap() } else { Principal::service("client").unwrap() };
        let roles = match usize::from(who >> 3) {
            0 => Role::ALL.iter().copied().collect(),
            one => [Role::ALL[one % Role::ALL.len()]].into_iter().collect(),
        };
        let subject = Subject {
            principal,
            roles,
            reach: Reach::All,
            phi: who & 2 == 0,
            trained_until: Some("9999-12-31".parse().unwrap()),
        };
        let caller = Caller {
            subject: (who & 4 == 0).then(|| Arc::new(subject)),
            factor: person.then_some(Factor::Other),
            origin: Origin::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))),
        };
        router(Arc::clone(&self.shared)).layer(Extension(caller))
    }
}

struct Made {
    shared: Arc<Shared>,
    customer: String,
    own: String,
    blob: String,
    session: String,
    home: tempfile::TempDir,
}

impl Made {
    fn with(self, runtime: tokio::runtime::Runtime) -> Place {
        let Self { shared, customer, own, blob, session, home } = self;
        Place { runtime, shared, asked: 0, customer, own, blob, session, _home: home }
    }
}

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// Makes the store that the next request meets, so that what it takes is not the request's.
pub fn prepare() {
    PLACE.with_borrow_mut(|place| {
        if place.as_ref().is_none_or(|place| place.asked >= FRESH) {
            *place = None;
            *place = Some(Place::new());
        }
    });
}

/// The request that an input is, if any.
fn request(input: &[u8], ids: [&str; 4]) -> Option<(u8, Request<Body>)> {
    let (who, rest) = input.split_first()?;
    let mut named = Vec::with_capacity(rest.len() + 128);
    for byte in rest {
        match ids.get(usize::from(*byte).wrapping_sub(1)) {
            Some(id) => named.extend_from_slice(id.as_bytes()),
            None => named.push(*byte),
        }
    }
    let rest = named.as_slice();
    let mut lines = rest.split(|byte| *byte == b'\n');
    let first = lines.next()?;
    let (method, target) = first.split_at(first.iter().position(|byte| *byte == b' ')?);
    let mut request = Request::builder().method(Method::from_bytes(method).ok()?).uri(&target[1..]);
    let mut length = first.len() + 1;
    for line in lines {
        length += line.len() + 1;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let name = HeaderName::from_bytes(name).ok()?;
        request = request.header(name, HeaderValue::from_bytes(value).ok()?);
    }
    let body = rest.get(length..).unwrap_or_default();
    let pieces: Vec<Result<Bytes, std::convert::Infallible>> =
        body.split(|byte| *byte == PIECE).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let body = if body.is_empty() { Body::empty() } else { Body::from_stream(stream::iter(pieces)) };
    Some((*who, request.body(body).ok()?))
}

/// Asks, and reads the answer to its end.
pub fn ask(input: &[u8]) -> Option<(StatusCode, Bytes)> {
    prepare();
    PLACE.with_borrow_mut(|place| {
        let place = place.as_mut().unwrap();
        let ids = [&place.customer, &place.own, &place.blob, &place.session].map(String::as_str);
        let (who, request) = request(input, ids)?;
        place.asked += 1;
        let app = place.app(who);
        Some(place.runtime.block_on(async move {
            let response = app.oneshot(request).await.unwrap();
            let status = response.status();
            // An answer that breaks off is one too: its client sees that it did.
            (status, to_bytes(response.into_body(), LONGEST).await.unwrap_or_default())
        }))
    })
}

pub fn run(input: &[u8]) {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    static WATCHED: Once = Once::new();
    // In tasks and threads too, whose panics reach nobody else.
    WATCHED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            before(panic);
        }));
    });
    let before = PANICS.load(Ordering::SeqCst);
    let asked = ask(input);
    assert_eq!(PANICS.load(Ordering::SeqCst), before, "something panicked");
    if let Some((status, body)) = asked {
        assert!(
            status != StatusCode::INTERNAL_SERVER_ERROR,
            "{status}: {}",
            String::from_utf8_lossy(&body[..body.len().min(400)])
        );
    }
}

/// A request for each endpoint, and some that are the same in other words.
pub fn seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for row in TABLE {
        for (customer, session) in [("\x01", ""), ("\x02", "strongroom-session: \x04\n")] {
            let mut path = row.path.replace("{customer}", customer).replace("{blob}", "\x03");
            for id in ["{session}", "{order}", "{certificate}", "{emergency}"] {
                path = path.replace(id, "\x04");
            }
            for body in bodies(row.path, row.method) {
                let head = format!("{} {path}\ncontent-type: application/json\n{session}", row.method);
                found.push([b"\0", head.as_bytes(), b"\n", body.as_bytes()].concat());
            }
        }
    }
    for (line, headers, body) in [
        ("POST /v1/customers/\x01/blobs", "strongroom-name: a%20b\nstrongroom-meta: k=v\n", "a\x1eb\x1ec"),
        ("POST /v1/customers/\x01/blobs", "strongroom-retain-until: 2028-05-22\nidempotency-key: k\n", "a"),
        ("POST /v1/customers/\x01/blobs", "strongroom-expect-bytes: 1\nstrongroom-suite: aes-256-gcm\n", "a"),
        ("GET /v1/customers/\x01/blobs/\x03", "range: bytes=5-17\nif-range: \"x\"\n", ""),
        ("GET /v1/customers/\x01/blobs/\x03", "if-none-match: *\nstrongroom-purpose: TREAT\n", ""),
        ("GET /v1/customers/\x01/blobs?limit=1&after=\x03", "", ""),
        ("GET /v1/audit/operations?limit=5", "strongroom-request: 00000000000000000000000000\n", ""),
        ("GET /v1/health", "strongroom-emergency: \x04\n", ""),
        ("GET /v1/ready", "", ""),
        ("GET /v1/openapi.json", "", ""),
        ("POST /v1/audit/query", "content-type: application/json\ntransfer-encoding: gzip\n", "{}"),
    ] {
        for who in [0, 1, 4] {
            found.push([&[who], line.as_bytes(), b"\n", headers.as_bytes(), b"\n", body.as_bytes()].concat());
        }
    }
    // Orders of another store, signed well.
    for note in world.at(&["audit/order/"]) {
        for path in ["/v1/orders", "/v1/orders/\x04/approval"] {
            let head = format!("POST {path}\ncontent-type: text/plain\n\n");
            found.push([b"\x01", head.as_bytes(), &note].concat());
        }
    }
    found
}

/// Bodies that fit an endpoint.
fn bodies(path: &str, method: &Method) -> Vec<String> {
    if *method == Method::GET || *method == Method::HEAD {
        return vec![String::new()];
    }
    let mut bodies = vec!["{}".to_owned()];
    let mut more = |body: &str| bodies.push(body.replace("CUSTOMER", "\x01").replace("ID", "\x04"));
    match path {
        path if path.ends_with("/find") => {
            more(r#"{"name":"a"}"#);
            more(r#"{"label":"acme"}"#);
        }
        path if path.ends_with("/holds") => {
            more(r#"{"day":"2028-05-22"}"#);
            more("{\"blob\":\"\x03\"}");
        }
        path if path.contains("/blobs/") => more(r#"{"until":"2029-11-30"}"#),
        path if path.contains("/audit/") => {
            more(
                r#"{"customer":"CUSTOMER","principal":"service:daemon","action":"seal","outcome":"ok","purpose":"HSYSADMIN","from":"2026-11-22T00:00:00.000000Z","until":"2027-11-22T00:00:00.000000Z","limit":3}"#,
            );
            more(r#"{"customer":"CUSTOMER","shard":0,"index":3}"#);
            more(r#"{"request":"ID","outcome":true}"#);
            more(r#"{"restore":true}"#);
        }
        path if path.contains("order") => {
            more(
                r#"{"what":{"destroy-days":{"days":["2028-05-22"]}},"customer":"CUSTOMER","requested_by":"person:a"}"#,
            );
            more(
                "{\"what\":{\"destroy-blob\":{\"blob\":\"\x03\"}},\"customer\":\"CUSTOMER\",\"requested_by\":\"person:a\"}",
            );
            more(r#"{"what":{"set-clock":{"at":"2027-11-22T00:00:00.000000Z"}},"requested_by":"person:b"}"#);
        }
        path if path.contains("session") || path.contains("access") || path.contains("emergenc") => {
            more(r#"{"idle_seconds":60,"absolute_seconds":600}"#);
            more(r#"{"seconds":600}"#);
        }
        path if path.contains("shred") => more(r#"{"keys":["ID"]}"#),
        _ => {
            more(
                r#"{"label":"new","kms_key":"local","retention":"P18M","suite":"aes-256-gcm","phi":true,"tenancy":"held"}"#,
            );
            more(r#"{"retention":"P24M","window":"P8D"}"#);
            more(r#"{"kms_key":"local"}"#);
        }
    }
    bodies
}

/// What is answered to them: what a client reads.
pub fn answers() -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = seeds(crate::corpus::world())
        .iter()
        .filter_map(|input| ask(input))
        .map(|(_, body)| body.to_vec())
        .filter(|body| body.starts_with(b"{") && body.len() < 16 << 10)
        .collect();
    found.sort();
    found.dedup();
    found.truncate(80);
    found
}
