//! The daemon's log at an OpenTelemetry collector: what comes there, over TLS and with a token,
//! and that nothing depends on it.
#![cfg(feature = "otel")]

#[path = "common/daemon.rs"]
mod home;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use home::{Home, has, until};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A collector with the home's certificate, and what came.
struct Collector {
    address: SocketAddr,
    /// What is answered.
    status: Arc<AtomicU16>,
    /// The bodies of requests with the token.
    received: Arc<Mutex<Vec<Bytes>>>,
    _runtime: tokio::runtime::Runtime,
}

const TOKEN: &str = "a-token-of-the-clinic";

impl Collector {
    fn new(home: &Home) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let certificate = CertificateDer::from_pem_file(home.path("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(home.path("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (status, received) = (Arc::new(AtomicU16::new(200)), Arc::<Mutex<Vec<Bytes>>>::default());
        let (answer, kept) = (Arc::clone(&status), Arc::clone(&received));
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                    async move {
                        assert_eq!(request.uri().path(), "/otel/v1/logs");
                        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                        assert_eq!(request.headers()["authorization"], format!("Bearer {TOKEN}").as_str());
                        let status = answer.load(SeqCst);
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        if status == 200 {
                            kept.lock().unwrap().push(body);
                        }
                        let answer = Response::builder().status(status).body(Full::<Bytes>::default());
                        Ok::<_, Infallible>(answer.unwrap())
                    }
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        });
        Self { address, status, received, _runtime: runtime }
    }

    fn configure(&self, home: &Home, ca: &str) {
        home.write("token", TOKEN);
        let config = std::fs::read_to_string(home.path("daemon.toml")).unwrap();
        let url = format!("https://{}/otel/", self.address);
        let table = format!(
            "\n[log]\nlevel = \"debug\"\n[log.otlp]\nurl = \"{url}\"\nca = \"{ca}\"\ntoken_file = \"token\"\n"
        );
        home.write("daemon.toml", &(config + &table));
    }

    fn requests(&self) -> Vec<ExportLogsServiceRequest> {
        let received = self.received.lock().unwrap();
        received.iter().map(|body| ExportLogsServiceRequest::decode(&body[..]).unwrap()).collect()
    }

    fn records(&self) -> Vec<(String, LogRecord)> {
        let scopes = self.requests().into_iter().flat_map(|request| request.resource_logs);
        let scopes = scopes.flat_map(|logs| logs.scope_logs);
        let scoped = scopes.flat_map(|logs| {
            let name = logs.scope.map(|scope| scope.name).unwrap_or_default();
            logs.log_records.into_iter().map(move |record| (name.clone(), record))
        });
        scoped.collect()
    }

    fn has(&self, body: &str) -> bool {
        self.records().iter().any(|(_, record)| text(record.body.as_ref()) == Some(body))
    }
}

fn text(value: Option<&AnyValue>) -> Option<&str> {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => Some(text),
        _ => None,
    }
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    attributes.iter().find(|one| one.key == key).and_then(|one| text(one.value.as_ref()))
}

#[test]
fn records_come_to_the_collector_with_what_they_say_and_nothing_else() {
    if !has("curl") {
        return;
    }
    let home = Home::new();
    let collector = Collector::new(&home);
    collector.configure(&home, "ca.pem");
    let daemon = home.serve();
    home.write("Jane-Doe", "a diagnosis of Jane-Doe");
    let blob = home.seal(&daemon, "portal", "Jane-Doe");
    let named = ["-X", "POST", "-H", "strongroom-name: Jane-Doe", "-d", "x"];
    assert_eq!(home.answer(&daemon, "portal", &home.blobs(), &named).0, 201);
    assert_eq!(home.answer(&daemon, "stranger", &home.blobs(), &[]).0, 401);
    daemon.signal("HUP");
    until("records come while it runs", || collector.has("the principals were read anew"));
    daemon.signal("TERM");
    assert_eq!(daemon.ended(), Some(0));

    // The last ones too, as they are sent before it ends.
    assert!(collector.has("the daemon ends when what is under way is done"));
    let records = collector.records();
    let serves = records.iter().find(|(_, record)| text(record.body.as_ref()) == Some("the daemon serves"));
    let (scope, serves) = serves.unwrap();
    assert_eq!((scope.as_str(), serves.severity_text.as_str()), ("strongroom::cli::serve", "INFO"));
    assert_eq!(attribute(&serves.attributes, "store").unwrap().len(), 26);
    let resource = collector.requests()[0].resource_logs[0].resource.clone().unwrap();
    assert_eq!(attribute(&resource.attributes, "service.name"), Some("strongroom"));
    assert_eq!(attribute(&resource.attributes, "service.version"), Some(env!("CARGO_PKG_VERSION")));
    assert!(records.iter().all(|(scope, _)| scope.starts_with("strongroom")), "{records:?}");
    let all = collector.received.lock().unwrap().concat();
    for private in ["Jane-Doe", TOKEN, &blob] {
        assert!(!all.windows(private.len()).any(|window| window == private.as_bytes()), "{private}");
    }
}

#[test]
fn nothing_waits_for_a_collector_that_fails() {
    if !has("curl") {
        return;
    }
    for (status, ca) in [(503, "ca.pem"), (200, "portal.pem")] {
        let home = Home::new();
        let collector = Collector::new(&home);
        collector.status.store(status, SeqCst);
        collector.configure(&home, ca);
        let begun = Instant::now();
        let mut command = home.command(&["serve", "--config", "daemon.toml"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("it listens", || home.path("socket").exists());
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sSf", "--max-time", "20", "--unix-socket"]).arg(home.path("socket"));
        assert!(curl.arg("http://localhost/v1/health").output().unwrap().status.success());
        std::thread::sleep(Duration::from_secs(3));
        let killed =
            std::process::Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status();
        assert!(killed.unwrap().success());
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success() && begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(told.matches("the collector does not take this log").count(), 1, "{told}");
        assert!(told.contains("the daemon serves") && !told.contains(TOKEN), "{told}");
        assert!(collector.requests().is_empty());
    }
}

#[test]
fn a_collector_that_cannot_be_used_is_told_before_anything_is_done() {
    let home = Home::new();
    let collector = Collector::new(&home);
    collector.configure(&home, "ca.pem");
    let good = std::fs::read_to_string(home.path("daemon.toml")).unwrap();
    assert!(home.command(&["serve", "--config", "daemon.toml", "--check"]).status().unwrap().success());
    for (from, to, says) in [
        ("https://127", "http://SECRET.example/127", "https://"),
        ("\"ca.pem\"\ntoken", "\"none.pem\"\ntoken", "CAs of the collector"),
        ("token_file = \"token\"", "token_file = \"none\"", "token of the collector"),
    ] {
        assert!(good.contains(from), "{from}");
        home.write("daemon.toml", &good.replace(from, to));
        let checked = home.command(&["serve", "--config", "daemon.toml", "--check"]).output().unwrap();
        let told = String::from_utf8(checked.stderr).unwrap();
        assert!(!checked.status.success() && told.contains(says) && !told.contains("SECRET"), "{told}");
    }
}
