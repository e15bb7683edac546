//! As many connections as there may be, over TLS: all are served, one more is refused, and
//! what they take is bounded. On loopback.
#![cfg(feature = "daemon")]

#[path = "common/descriptors.rs"]
mod descriptors;
#[path = "common/daemon.rs"]
mod home;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use home::{Daemon, Home};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Connection = SendRequest<Empty<Bytes>>;

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(60);

/// What a client of the home has to connect with.
#[derive(Clone)]
struct Client {
    tls: TlsConnector,
    address: SocketAddr,
}

impl Client {
    fn new(home: &Home, daemon: &Daemon) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(home.path("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificate = CertificateDer::from_pem_file(home.path("portal.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(home.path("portal.key")).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let address = daemon.url.strip_prefix("https://").unwrap().parse().unwrap();
        Self { tls: TlsConnector::from(Arc::new(config)), address }
    }

    /// A connection on which a request was answered.
    async fn connect(&self) -> Result<Connection, Failure> {
        let connected = timeout(LONG, async {
            let stream = TcpStream::connect(self.address).await?;
            let stream = self.tls.connect(ServerName::try_from("127.0.0.1")?, stream).await?;
            let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            ask(&mut sender).await?;
            Ok(sender)
        });
        connected.await?
    }
}

async fn ask(connection: &mut Connection) -> Result<(), Failure> {
    connection.ready().await?;
    let request = Request::get("https://127.0.0.1/v1/health").body(Empty::new())?;
    let answer = connection.send_request(request).await?;
    let status = answer.status();
    answer.into_body().collect().await?;
    if status == StatusCode::OK { Ok(()) } else { Err(format!("it answers {status}").into()) }
}

/// Pages are 4 KiB here as on every machine that this is run on.
fn resident_mib(daemon: &Daemon) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/statm", daemon.child.id())).unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() / 256
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_over_tls_are_served_and_one_more_is_refused() {
    let count = descriptors::connections(10_000);
    let home = Home::new();
    let config = fs::read_to_string(home.path("daemon.toml")).unwrap();
    let limits = format!("[limits]\nconnections = {}\nconnections_per_peer = {count}\n", count + 10);
    home.write("daemon.toml", &config.replace("[limits]\n", &limits));
    let daemon = home.serve();
    let client = Client::new(&home, &daemon);
    drop(client.connect().await.unwrap());

    let (before, begun) = (resident_mib(&daemon), Instant::now());
    let connecting = stream::iter(0..count).map(|_| client.connect()).buffer_unordered(64);
    let mut held: Vec<Connection> = connecting.try_collect().await.unwrap();
    let (after, took) = (resident_mib(&daemon), begun.elapsed());
    println!("{count} connections in {took:?}: {before} to {after} MiB resident");
    assert!(after < before + 1024, "{before} to {after} MiB");
    // One more is closed at once, and whoever has one is served as before.
    assert!(client.connect().await.is_err(), "one more than the limit of a peer");
    for connection in held.iter_mut().step_by(count / 10) {
        ask(connection).await.unwrap();
    }
    drop(held);
    // Their places are given back.
    let begun = Instant::now();
    while client.connect().await.is_err() {
        assert!(begun.elapsed() < LONG, "no place is given back");
        sleep(Duration::from_millis(50)).await;
    }
    daemon.signal("TERM");
    assert_eq!(daemon.ended(), Some(0));
}
