//! Alarms to a real receiver over TLS: what raises one, what is in it, that it is sent once and
//! in the end, and that nobody waits for it.
#![cfg(feature = "daemon")]

mod common;
#[path = "common/faults.rs"]
mod faults;

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::{Extension, Router};
use common::{Fixture, Raw, access, fixture, options, pattern, read, write};
use faults::FaultStore;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use strongroom::access::policy::{Reach, Role, RoleMatrix, Subject};
use strongroom::access::{Origin, Principal};
use strongroom::daemon::alarm::{About, AlarmKind, Alarms, Delivery, Sender, Webhook};
use strongroom::daemon::api::{Caller, Figures, Shared, router};
use strongroom::daemon::config::{AlarmsConfig, DaemonConfig};
use strongroom::daemon::tasks::{self, Punctual};
use strongroom::daemon::{checks, drills};
use strongroom::envelope::Metadata;
use strongroom::id::{BlobId, KmsKeyId};
use strongroom::kms::KmsDestroyer;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::room::{SealOptions, Strongroom};
use strongroom::store::Storages;
use strongroom::system::{SystemClock, SystemEntropy};
use strongroom::time::Clock;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

const LONG: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_hours(24);
const MINUTE: Duration = Duration::from_mins(1);

/// What was received: who sent it by its token, and what.
type Received = Arc<Mutex<Vec<(Option<String>, Value)>>>;

/// Somebody who takes alarms.
struct Receiver {
    address: SocketAddr,
    tls: Arc<ServerConfig>,
    /// What is answered.
    answer: Arc<AtomicU16>,
    received: Received,
    task: Option<JoinHandle<()>>,
}

impl Receiver {
    /// With its CA, a token and a configuration in `directory`.
    async fn new(directory: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(directory.join("alarms.pem"), ca.pem()).unwrap();
        fs::write(directory.join("token"), "a-token-of-the-clinic\n").unwrap();
        fs::set_permissions(directory.join("token"), Permissions::from_mode(0o600)).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let certificate = params.signed_by(&key, &ca).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let mut receiver = Self {
            address: ([127, 0, 0, 1], 0).into(),
            tls: Arc::new(tls),
            answer: Arc::new(AtomicU16::new(204)),
            received: Received::default(),
            task: None,
        };
        receiver.up().await;
        receiver
    }

    async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        let (received, answer) = (Arc::clone(&self.received), Arc::clone(&self.answer));
        self.task = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let (received, answer) = (Arc::clone(&received), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (received, answer) = (Arc::clone(&received), Arc::clone(&answer));
                    async move {
                        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/hook"));
                        assert_eq!(request.headers()["content-type"], "application/json");
                        let token = request.headers().get("authorization");
                        let token = token.map(|value| value.to_str().unwrap().to_owned());
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        received.lock().unwrap().push((token, serde_json::from_slice(&body).unwrap()));
                        let status = StatusCode::from_u16(answer.load(SeqCst)).unwrap();
                        let answer = Response::builder().status(status).body(Empty::<Bytes>::new());
                        Ok::<_, Infallible>(answer.unwrap())
                    }
                });
                // One request a connection, so that going down is going down.
                let mut http = hyper::server::conn::http1::Builder::new();
                let _ = http.keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
            }
        }));
    }

    async fn down(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    fn config(&self, directory: &Path) -> AlarmsConfig {
        AlarmsConfig {
            webhook: Some(format!("https://{}/hook", self.address)),
            ca: Some(directory.join("alarms.pem")),
            token_file: Some(directory.join("token")),
            ..AlarmsConfig::default()
        }
    }

    fn taken(&self) -> Vec<Value> {
        self.received.lock().unwrap().iter().map(|(_, alarm)| alarm.clone()).collect()
    }

    fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<_> =
            self.taken().iter().map(|alarm| alarm["kind"].as_str().unwrap().to_owned()).collect();
        kinds.sort();
        kinds
    }

    async fn waits_for(&self, count: usize) {
        let came = timeout(LONG, async {
            while self.taken().len() < count {
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(came.await.is_ok(), "{count} alarms did not come: {:?}", self.taken());
    }
}

/// A store, a daemon's router over it, and somebody who takes its alarms.
struct Place {
    fixture: Fixture,
    receiver: Receiver,
    alarms: Alarms,
    shared: Arc<Shared>,
    dir: tempfile::TempDir,
    silence: oneshot::Sender<()>,
    delivery: JoinHandle<()>,
}

impl Place {
    async fn new() -> Self {
        let (fixture, dir) = (fixture().await, tempfile::tempdir().unwrap());
        let receiver = Receiver::new(dir.path()).await;
        let (alarms, delivery) = sent(&fixture, &receiver.config(dir.path()), fixture.clock.clone());
        let (silence, silenced) = oneshot::channel::<()>();
        let delivery = tokio::spawn(delivery.run(async move { drop(silenced.await) }));
        let shared = Arc::new(Shared {
            published: Punctual::new(fixture.clock.clone(), Some(MINUTE)),
            limiter: strongroom::daemon::limits::Limiter::default(),
            room: fixture.room.clone(),
            policy: Arc::new(RoleMatrix),
            clock: fixture.clock.clone(),
            body_idle: LONG,
            figures: Figures::new(alarms.clone()),
            own: access(),
        });
        Self { fixture, receiver, alarms, shared, dir, silence, delivery }
    }

    fn app(&self) -> Router {
        let subject = Subject {
            principal: Principal::service("client").unwrap(),
            roles: [Role::Reader, Role::Operator].into(),
            reach: Reach::All,
            phi: true,
            trained_until: Some(self.fixture.clock.now().day()),
        };
        let caller = Caller { subject: Some(Arc::new(subject)), factor: None, origin: Origin::Process(1) };
        router(Arc::clone(&self.shared)).layer(Extension(caller))
    }

    /// The status, and the body if it is whole.
    async fn get(&self, path: &str) -> (u16, Option<String>) {
        let response = self.app().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 24).await.ok();
        (status, body.map(|body| String::from_utf8_lossy(&body).into_owned()))
    }

    fn path(&self, blob: BlobId) -> String {
        format!("/v1/customers/{}/blobs/{blob}", self.fixture.acme.id())
    }

    async fn figure(&self, line: &str) -> bool {
        let (status, figures) = self.get("/metrics").await;
        assert_eq!(status, 200);
        figures.unwrap().lines().any(|found| found == line)
    }

    /// What is sent until now, and nothing after it.
    async fn end(self) -> Vec<Value> {
        drop(self.silence);
        timeout(LONG, self.delivery).await.unwrap().unwrap();
        self.receiver.taken()
    }
}

fn sent(fixture: &Fixture, config: &AlarmsConfig, clock: Arc<dyn Clock>) -> (Alarms, Delivery) {
    let webhook = Webhook::of(config).unwrap().unwrap();
    let (store, entropy) = (fixture.room.store_id(), Arc::new(SystemEntropy));
    let (alarms, delivery) = Alarms::sent(Sender { store, repeat: DAY, clock, entropy }, webhook);
    (alarms, delivery.take_up().unwrap())
}

/// Seals a blob whose name nobody must see, and alters a bit in the middle of it.
async fn tampered(fixture: &Fixture) -> BlobId {
    let metadata = Metadata::new().with_name("Jane Doe/1970-01-01".parse().unwrap());
    let options = SealOptions::new().metadata(metadata);
    let blob = fixture.acme.seal(pattern(3_000_000).to_vec(), options).await.unwrap().id;
    let objects = common::objects(&fixture.raw.blobs).await;
    let path = objects.into_iter().map(|(path, _)| path);
    let path = path.into_iter().find(|path| path.filename() == Some(&blob.to_string())).unwrap();
    let mut bytes = read(&fixture.raw.blobs, &path).await;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(&fixture.raw.blobs, &path, bytes).await;
    blob
}

#[tokio::test]
async fn a_tampered_blob_is_one_alarm_however_often_it_is_met() {
    let place = Place::new().await;
    let blob = tampered(&place.fixture).await;
    // The answer begins, and breaks off in the middle.
    let (status, body) = place.get(&place.path(blob)).await;
    assert_eq!((status, body), (200, None));
    for _ in 0..3 {
        assert_eq!(place.get(&place.path(blob)).await.1, None);
    }
    let verify = Request::post(format!("{}/verification", place.path(blob))).body(Body::empty()).unwrap();
    assert_eq!(place.app().oneshot(verify).await.unwrap().status(), 500);
    // What is not there is nobody's alarm.
    let none = place.path(BlobId::new(blob.day(), [9; 13]).unwrap());
    assert_eq!(place.get(&none).await.0, 404);
    place.receiver.waits_for(1).await;
    assert!(place.figure("strongroom_alarms_total{kind=\"authentication\"} 5").await);
    assert!(place.figure("strongroom_alarms_total{kind=\"rollback\"} 0").await);
    assert!(place.figure("strongroom_alarm_deliveries_total{result=\"delivered\"} 1").await);
    let (store, acme) = (place.fixture.room.store_id(), place.fixture.acme.id());
    let token = place.receiver.received.lock().unwrap()[0].0.clone();
    assert_eq!(token.as_deref(), Some("Bearer a-token-of-the-clinic"));
    let taken = place.end().await;
    assert_eq!(taken.len(), 1, "{taken:?}");
    let alarm = taken[0].as_object().unwrap();
    let members: Vec<_> = alarm.keys().map(String::as_str).collect();
    assert_eq!(members, ["alarm", "at", "customer", "kind", "request", "store"]);
    assert_eq!(alarm["kind"], "authentication");
    assert_eq!((&alarm["store"], &alarm["customer"]), (&store.to_string().into(), &acme.to_string().into()));
    for text in alarm.values().map(|value| value.as_str().unwrap()) {
        assert!(!text.contains("Jane") && !text.contains("acme") && text.len() <= 32, "{text}");
    }
}

#[tokio::test]
async fn a_damaged_blob_in_a_list_is_noticed_as_well() {
    let place = Place::new().await;
    let blob = tampered(&place.fixture).await;
    let objects = common::objects(&place.fixture.raw.blobs).await;
    let path =
        objects.into_iter().map(|(path, _)| path).find(|path| path.filename() == Some(&blob.to_string()));
    let path = path.unwrap();
    let mut bytes = read(&place.fixture.raw.blobs, &path).await;
    bytes[100] ^= 1;
    write(&place.fixture.raw.blobs, &path, bytes).await;
    let (status, rows) = place.get(&format!("/v1/customers/{}/blobs", place.fixture.acme.id())).await;
    assert!(status == 200 && rows.unwrap().contains("authentication"));
    place.receiver.waits_for(1).await;
    assert_eq!(place.receiver.kinds(), ["authentication"]);
}

/// Publishing may fail, and it may hang: both show by the time that has passed.
#[tokio::test]
async fn a_log_that_is_not_published_in_time_is_an_alarm() {
    let place = Place::new().await;
    let unready = |(status, body): (u16, Option<String>)| (status, body.unwrap().contains("not published"));
    place.fixture.clock.pass(3 * MINUTE - Duration::from_secs(1));
    assert_eq!(unready(place.get("/v1/ready").await), (200, false));
    place.fixture.clock.pass(Duration::from_secs(2));
    assert_eq!(unready(place.get("/v1/ready").await), (503, true));
    assert!(place.figure("strongroom_log_published_seconds_ago 181").await);
    // That somebody asked is no alarm, and the log itself can be written.
    assert!(place.figure("strongroom_alarms_total{kind=\"log-unpublished\"} 0").await);
    assert!(place.figure("strongroom_alarms_total{kind=\"log-unwritable\"} 0").await);

    let Raw { blobs, keys, audit } = &place.fixture.raw;
    let audit = FaultStore::new(audit.clone());
    let storages = Storages::from_parts(blobs.clone(), keys.clone(), Arc::new(audit.clone()));
    let room = Strongroom::open(storages, place.fixture.kms.clone(), options(&place.fixture.clock)).await;
    let room = room.unwrap();
    let config = "principals = \"/p.toml\"\n[tasks]\nsweep_seconds = 0\nmaintain_seconds = 0\n\
                  sessions_seconds = 0\ncheck_seconds = 0\n";
    let config = DaemonConfig::parse(config, Path::new("/daemon.toml")).unwrap();
    let begin = || tasks::begin(&config, &room, &access(), &place.alarms, &place.shared.published);
    audit.hang_writes();
    let tasks = begin();
    place.receiver.waits_for(1).await;
    assert_eq!(place.receiver.kinds(), ["log-unpublished"]);
    assert_eq!(place.get("/v1/ready").await.0, 503);
    drop(tasks);

    audit.heal();
    let tasks = begin();
    let ready = timeout(LONG, async {
        while place.get("/v1/ready").await.0 != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    });
    ready.await.unwrap();
    drop(tasks);
    assert_eq!(place.end().await.len(), 1);
}

#[tokio::test]
async fn a_receiver_that_is_down_slows_nothing_and_gets_it_in_the_end() {
    let mut place = Place::new().await;
    let blob = tampered(&place.fixture).await;
    place.receiver.answer.store(503, SeqCst);
    assert_eq!(place.get(&place.path(blob)).await, (200, None));
    place.receiver.waits_for(1).await;
    place.receiver.down().await;
    let begun = SystemClock.uptime();
    for number in 0..50 {
        place.alarms.raise(AlarmKind::EpochStuck, About::epoch(number));
    }
    assert!(SystemClock.uptime().saturating_sub(begun) < Duration::from_secs(1), "raising does not wait");
    assert_eq!(place.get("/v1/health").await.0, 200);
    place.receiver.answer.store(204, SeqCst);
    place.receiver.up().await;
    place.receiver.waits_for(52).await;
    let taken = place.end().await;
    let ids: Vec<_> = taken.iter().map(|alarm| alarm["alarm"].clone()).collect();
    assert_eq!(ids.iter().filter(|id| **id == ids[0]).count(), 2, "once refused, once taken");
    assert_eq!(taken.iter().filter(|alarm| alarm["kind"] == "epoch-stuck").count(), 50);
}

#[tokio::test]
async fn who_is_not_of_the_ca_gets_no_alarm() {
    let (fixture, dir, other) = (fixture().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (receiver, _) = (Receiver::new(dir.path()).await, Receiver::new(other.path()).await);
    let ca = Some(other.path().join("alarms.pem"));
    let config = AlarmsConfig { ca, spool: Some(dir.path().join("spool")), ..receiver.config(dir.path()) };
    let (alarms, delivery) = sent(&fixture, &config, fixture.clock.clone());
    alarms.raise(AlarmKind::EmergencyAccess, About::customer(fixture.acme.id()));
    timeout(LONG, delivery.run(sleep(Duration::from_millis(500)))).await.unwrap();
    assert!(receiver.taken().is_empty());
    // It waits for the next daemon, which knows better.
    assert_eq!(fs::read_dir(dir.path().join("spool")).unwrap().count(), 1);
    let config = AlarmsConfig { ca: Some(dir.path().join("alarms.pem")), ..config };
    let (_alarms, delivery) = sent(&fixture, &config, fixture.clock.clone());
    let spooled = || fs::read_dir(dir.path().join("spool")).unwrap().count();
    let gone = async {
        while spooled() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, delivery.run(gone)).await.unwrap();
    assert_eq!((receiver.kinds(), spooled()), (vec!["emergency-access".to_owned()], 0));
}

#[tokio::test]
async fn a_verification_that_fails_is_an_alarm_and_has_a_dated_result() {
    let place = Place::new().await;
    let reports = place.dir.path().join("reports");
    let good = drills::run(&place.fixture.room, &access(), &place.alarms, &reports).await.unwrap();
    assert!(good.ok);
    place.fixture.clock.pass(DAY);
    tampered(&place.fixture).await;
    let zenith = place.fixture.customer("zenith").await;
    zenith.seal(pattern(7).to_vec(), SealOptions::new()).await.unwrap();
    let bad = drills::run(&place.fixture.room, &access(), &place.alarms, &reports).await.unwrap();
    assert_eq!((bad.ok, bad.total.blobs, bad.total.failed()), (false, 1, 1));
    let mut results: Vec<PathBuf> =
        fs::read_dir(&reports).unwrap().map(|entry| entry.unwrap().path()).collect();
    results.sort();
    let results: Vec<Value> =
        results.iter().map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect();
    assert_eq!(results.iter().map(|result| result["ok"].clone()).collect::<Vec<_>>(), [true, false]);
    assert_eq!(results[1]["total"]["failures"]["authentication"], 1);
    // A result that cannot be written is an alarm too.
    fs::write(place.dir.path().join("file"), "").unwrap();
    let lost =
        drills::run(&place.fixture.room, &access(), &place.alarms, &place.dir.path().join("file")).await;
    assert!(lost.is_err());
    place.receiver.waits_for(3).await;
    assert_eq!(place.receiver.kinds(), ["authentication", "verification-failed", "verification-failed"]);
    let acme = place.fixture.acme.id().to_string();
    assert_eq!(place.receiver.taken().iter().filter(|alarm| alarm["customer"] == acme.as_str()).count(), 2);
}

#[tokio::test]
async fn keys_and_epochs_that_nobody_looks_after_are_alarms() {
    let place = Place::new().await;
    let (room, alarms) = (&place.fixture.room, &place.alarms);
    let look = || checks::look(room, &place.shared.own, alarms, 14 * DAY);
    look().await;
    place.fixture.clock.pass(13 * DAY);
    look().await;
    sleep(Duration::from_millis(200)).await;
    assert!(place.receiver.taken().is_empty(), "{:?}", place.receiver.taken());
    place.fixture.clock.pass(2 * DAY);
    let key: KmsKeyId = place.fixture.acme.info().await.unwrap().kms_key;
    let keys = place.fixture.keys.path().join("kms");
    let kms = InsecureLocalKms::open(keys, place.fixture.clock.clone(), Arc::new(SystemEntropy)).unwrap();
    kms.disable(&key).await.unwrap();
    for _ in 0..3 {
        look().await;
    }
    place.receiver.waits_for(2).await;
    assert_eq!(place.receiver.kinds(), ["epoch-stuck", "key-state"]);
    let of = place.receiver.taken().into_iter().find(|alarm| alarm["kind"] == "key-state").unwrap();
    assert_eq!(of["customer"], place.fixture.acme.id().to_string());
    assert!(place.figure("strongroom_alarms_total{kind=\"key-state\"} 3").await);
}

/// One host was ahead once: the others tell of it, and of their own clock if it jumps.
#[tokio::test]
async fn a_log_that_is_ahead_is_an_alarm_and_a_clock_that_jumped_too() {
    let place = Place::new().await;
    let room = &place.fixture.room;
    let look = || checks::look(room, &place.shared.own, &place.alarms, 14 * DAY);
    look().await;
    assert!(place.figure("strongroom_log_ahead_seconds 0").await);
    let wrong = common::TestClock::at("2026-11-22T02:26:13.000000Z");
    wrong.pass(20 * DAY);
    let far = Strongroom::open(place.fixture.raw.storages(), place.fixture.kms.clone(), options(&wrong));
    let far = far.await.unwrap();
    let acme = far.customer(&"acme".parse().unwrap(), access()).await.unwrap();
    acme.seal(b"x".to_vec(), SealOptions::new()).await.unwrap();
    // Whichever shard it wrote to, the next look finds it.
    look().await;
    place.receiver.waits_for(1).await;
    assert_eq!(place.receiver.kinds(), ["clock-doubt"]);
    assert!(place.figure("strongroom_log_ahead_seconds 1728000").await);
    assert!(place.figure("strongroom_alarms_total{kind=\"clock-doubt\"} 1").await);
    let (status, body) = place.get("/v1/ready").await;
    let body: Value = serde_json::from_str(&body.unwrap()).unwrap();
    assert_eq!((status, &body["log_ahead_seconds"]), (200, &1_728_000.into()));

    let blob = place.fixture.acme.list().try_next().await.unwrap().unwrap().id;
    let now = place.fixture.clock.now();
    place.fixture.clock.set(now.saturating_add(60 * DAY));
    let (status, body) = place.get(&place.path(blob)).await;
    // What lies behind it is for the daemon's own log.
    assert_eq!(status, 500, "{body:?}");
    assert!(place.figure("strongroom_alarms_total{kind=\"clock-doubt\"} 2").await);
    assert_eq!(place.get("/v1/ready").await.0, 503);
    place.fixture.clock.set(now);
    assert_eq!(place.get(&place.path(blob)).await.0, 200);
    assert_eq!(place.get("/v1/ready").await.0, 200);
    assert!(place.figure("strongroom_log_fences 0").await);
}

// --- the program ------------------------------------------------------------------------

struct Home(tempfile::TempDir);

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Home {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.env_clear().env("HOME", self.0.path()).env("XDG_DATA_HOME", self.0.path().join("data"));
        command.current_dir(self.0.path()).stdin(Stdio::null()).args(args);
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A daemon that answers at its socket.
    fn serve(&self) -> Daemon {
        let mut command = self.command(&["--json", "serve", "--config", "daemon.toml"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("\"store\""), "{line}");
        Daemon(child)
    }

    async fn get(&self, path: &str) -> u16 {
        let stream = UnixStream::connect(self.0.path().join("socket")).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let _ = answer.into_body().collect().await;
        connection.abort();
        status
    }

    /// How many files of JSON are in a directory.
    fn count(&self, directory: &str) -> usize {
        let entries = fs::read_dir(self.0.path().join(directory)).into_iter().flatten();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|of| of == "json"))
            .count()
    }

    async fn waits_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let held = timeout(LONG, async {
            while !holds(self) {
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(held.await.is_ok(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_delivered_outlives_the_daemon() {
    use std::os::unix::fs::MetadataExt;
    let home = Home(tempfile::tempdir().unwrap());
    let dir = home.0.path();
    home.run(&["init", "-q"]);
    home.run(&["customer", "add", "acme", "--kms", "local", "-q"]);
    fs::write(dir.join("input"), pattern(3_000_000)).unwrap();
    let blob = home.run(&["put", "--customer", "acme", "input"]).trim().to_owned();
    let shown: Value = serde_json::from_str(&home.run(&["--json", "customer", "show", "acme"])).unwrap();
    let customer = shown["customer"].as_str().unwrap();
    let object = dir.join("data/strongroom/store/blobs/blob").join(customer);
    let day = fs::read_dir(&object).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(day.join(&blob)).unwrap();
    bytes[1_500_000] ^= 1;
    fs::write(day.join(&blob), bytes).unwrap();

    let uid = dir.metadata().unwrap().uid();
    fs::write(
        dir.join("principals.toml"),
        format!(
            "[[principal]]\nid = \"unix:{uid}\"\nroles = [\"reader\"]\ncustomers = \"all\"\nphi = true\n\
             trained_until = \"9999-12-31\"\nuid = [{uid}]\n"
        ),
    )
    .unwrap();
    let mut receiver = Receiver::new(dir).await;
    receiver.down().await;
    fs::write(
        dir.join("daemon.toml"),
        format!(
            "principals = \"principals.toml\"\n[listen]\nunix = \"socket\"\n[tasks]\nsweep_seconds = 0\n\
             publish_seconds = 0\nmaintain_seconds = 0\ncheck_seconds = 0\nverify_seconds = 3600\nverify_reports = \"reports\"\n\
             [alarms]\nwebhook = \"https://{}/hook\"\nca = \"alarms.pem\"\ntoken_file = \"token\"\n\
             spool = \"spool\"\n",
            receiver.address
        ),
    )
    .unwrap();
    home.run(&["serve", "--config", "daemon.toml", "--check"]);

    let mut daemon = home.serve();
    let path = format!("/v1/customers/{customer}/blobs/{blob}");
    assert_eq!(home.get(&path).await, 200);
    // From the request and from the first verification, which has its result.
    home.waits_until("they are written down", |home| home.count("spool") == 2 && home.count("reports") == 1)
        .await;
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();

    receiver.up().await;
    fs::remove_file(dir.join("socket")).unwrap_or(());
    let _daemon = home.serve();
    receiver.waits_for(2).await;
    assert_eq!(receiver.kinds(), ["authentication", "verification-failed"]);
    home.waits_until("what was delivered is forgotten", |home| home.count("spool") == 0).await;
    assert_eq!(home.count("reports"), 1, "the next one is not due");
}
