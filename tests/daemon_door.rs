//! Whole connections through the daemon's door: who is let in, who is kept out, and that one
//! client is not in the way of another.

#![cfg(feature = "daemon")]

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use strongroom::access::Origin;
use strongroom::daemon::directory::{Credential, Directory};
use strongroom::daemon::listen::{Activated, Drained, Limits, Listeners};
use strongroom::daemon::peer::{Peer, PeerCredential};
use strongroom::daemon::tls::{ReloadingTls, TlsFiles};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const REQUEST: &[u8] = b"GET /who HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(20);

/// A certificate authority.
type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What a client shows.
struct Shown {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

fn client_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

fn shown(ca: &Ca, params: &CertificateParams) -> Shown {
    let key = KeyPair::generate().unwrap();
    Shown { certificate: params.signed_by(&key, ca).unwrap().der().clone(), key }
}

/// A server with a TLS and a Unix socket, and the CA of its clients.
struct Server {
    directory: TempDir,
    ca: Ca,
    tls: Arc<ReloadingTls>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    served: JoinHandle<Drained>,
    /// How many requests to `/wait` have begun, and what lets them go on.
    waiting: Arc<AtomicUsize>,
    go_on: Arc<Notify>,
    /// Whom the operator knows.
    directory_file: Arc<RwLock<Directory>>,
}

/// Writes a file by renaming, for its owner only.
fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
    fs::rename(&new, path).unwrap();
}

fn write_server_files(directory: &Path, ca: &Ca) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    write(&directory.join("certificate"), &params.signed_by(&key, ca).unwrap().pem());
    write(&directory.join("key"), &key.serialize_pem());
}

fn tls_files(directory: &Path) -> TlsFiles {
    let path = |name: &str| directory.join(name);
    let crl = path("crl").exists().then(|| path("crl"));
    TlsFiles { certificate: path("certificate"), key: path("key"), client_ca: path("ca"), crl }
}

fn crl(ca: &Ca, revoked: &[u64], next_update: i32) -> String {
    let each = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2021, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2021, 1, 1),
        next_update: date_time_ymd(next_update, 1, 1),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(each).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(ca).unwrap().pem().unwrap()
}

/// Says who the peer is.
async fn who(Extension(peer): Extension<Peer>) -> String {
    match (&peer.credential, peer.origin) {
        (PeerCredential::Certificate(shown), Origin::Address(address)) => {
            format!("{} at {address}", shown.uris().join(" "))
        }
        (PeerCredential::Unix { uid }, Origin::Process(process)) => format!("user {uid} in {process}"),
        other => panic!("{other:?}"),
    }
}

impl Server {
    async fn start(limits: Limits) -> Self {
        Self::start_with(limits, ca(), |_, _| {}).await
    }

    async fn start_with(limits: Limits, ca: Ca, more: impl FnOnce(&Path, &Ca)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("ca"), &ca.pem());
        write_server_files(directory.path(), &ca);
        more(directory.path(), &ca);
        let tls = Arc::new(ReloadingTls::load(tls_files(directory.path())).unwrap());
        let mut listeners = Listeners::new();
        listeners.bind_tls("127.0.0.1:0".parse().unwrap(), Arc::clone(&tls)).await.unwrap();
        listeners.bind_unix(&directory.path().join("socket")).await.unwrap();
        let address = listeners.addresses()[0];

        let (waiting, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (began, going) = (Arc::clone(&waiting), Arc::clone(&go_on));
        let wait = move || {
            let (began, going) = (Arc::clone(&began), Arc::clone(&going));
            async move {
                began.fetch_add(1, Ordering::SeqCst);
                going.notified().await;
                Body::from("done")
            }
        };
        let directory_file = Arc::new(RwLock::new(Directory::parse("").unwrap()));
        let mapping = Arc::clone(&directory_file);
        let known = move |Extension(peer): Extension<Peer>| async move {
            let mapping = mapping.read().unwrap();
            match mapping.identify(&Credential::from(&peer)) {
                Ok(known) => known.subject.principal.to_string(),
                Err(stranger) => format!("{stranger:?}"),
            }
        };
        let app = Router::new().route("/who", get(who)).route("/wait", get(wait)).route("/known", get(known));
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(listeners.serve(app, limits, stopped));
        Self { directory, ca, tls, address, stop, served, waiting, go_on, directory_file }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn client(&self) -> Shown {
        shown(&self.ca, &client_params("spiffe://clinic/backup"))
    }

    async fn waits_for(&self, count: usize) {
        let begun = async {
            while self.waiting.load(Ordering::SeqCst) < count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, begun).await.expect("the request arrives");
    }

    async fn connect(&self, client: Option<&Shown>) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_with(client, &[b"http/1.1"], rustls::ALL_VERSIONS).await
    }

    async fn connect_with(
        &self,
        client: Option<&Shown>,
        protocols: &[&[u8]],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            None => config.with_no_client_auth(),
            Some(shown) => {
                let key = PrivateKeyDer::Pkcs8(shown.key.serialize_der().into());
                config.with_client_auth_cert(vec![shown.certificate.clone()], key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// What is answered to one request on a new connection. With TLS 1.3 a client hears only
    /// then that its certificate is refused (RFC 8446 s4.4.2.4).
    async fn ask(&self, client: Option<&Shown>) -> std::io::Result<String> {
        let mut stream = self.connect(client).await?;
        stream.write_all(REQUEST).await?;
        read(&mut stream).await
    }

    async fn is_alive(&self) {
        let answer = timeout(LONG, self.ask(Some(&self.client()))).await.expect("in time").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    async fn end(self) -> Drained {
        self.stop.send(true).unwrap();
        timeout(LONG, self.served).await.expect("it ends in time").unwrap()
    }
}

/// All there is to read. Empty where the connection was closed or reset without an answer.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<String> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8(answer).unwrap())
}

/// Whether nothing was answered: an error, or the end at once.
fn refused(answer: &std::io::Result<String>) -> bool {
    answer.as_ref().map_or(true, String::is_empty)
}

/// How long until the other side closes.
async fn closed_after(stream: &mut (impl AsyncRead + Unpin)) -> Duration {
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it is closed in time");
    begun.elapsed()
}

fn quick() -> Limits {
    Limits {
        handshake: Duration::from_millis(500),
        request_head: Duration::from_millis(500),
        idle: Duration::from_secs(1),
        grace: Duration::from_secs(1),
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_client_of_the_ca_is_known_by_its_certificate_and_address() {
    let server = Server::start(Limits::default()).await;
    let client = server.client();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut stream = server.connect_with(Some(&client), &[b"http/1.1"], &[version]).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let answer = read(&mut stream).await.unwrap();
        assert!(answer.ends_with("\r\n\r\nspiffe://clinic/backup at 127.0.0.1"), "{answer}");
    }
    assert_eq!(server.end().await, Drained { cut: 0 });
}

#[tokio::test]
async fn http_2_is_spoken_where_it_was_agreed_on() {
    let server = Server::start(Limits::default()).await;
    let client = server.client();
    let stream = server.connect_with(Some(&client), &[b"h2"], rustls::ALL_VERSIONS).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |more: &str| {
        let request = Request::get("https://localhost/who").header("x-more", more);
        request.body(Empty::<bytes::Bytes>::new()).unwrap()
    };
    let answer = sender.send_request(request("")).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "spiffe://clinic/backup at 127.0.0.1");

    // Too long a head is refused, and the connection goes on.
    let long = "a".repeat(usize::try_from(Limits::default().head_len).unwrap() + 1);
    match sender.send_request(request(&long)).await {
        Ok(answer) => assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        // The client may know the server's limit, and not send it.
        Err(error) => assert!(error.is_user() || error.to_string().contains("http2"), "{error:?}"),
    }
    assert_eq!(sender.send_request(request("")).await.unwrap().status(), StatusCode::OK);
    drop(sender);
    let _ = connection.await;

    // Who did not agree on it does not get it.
    let mut stream = server.connect(Some(&client)).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
    server.is_alive().await;
}

#[tokio::test]
async fn who_has_no_certificate_of_the_ca_is_not_let_in() {
    let server = Server::start(Limits::default()).await;
    let name = "spiffe://clinic/backup";
    let mut expired = client_params(name);
    expired.not_after = date_time_ymd(2025, 1, 1);
    let mut early = client_params(name);
    early.not_before = date_time_ymd(2099, 1, 1);
    let alone = {
        let key = KeyPair::generate().unwrap();
        Shown { certificate: client_params(name).self_signed(&key).unwrap().der().clone(), key }
    };
    let blank = shown(&server.ca, &{
        let mut params = client_params(name);
        params.subject_alt_names = vec![SanType::URI("spiffe://clinic/a b".try_into().unwrap())];
        params
    });
    for (what, client) in [
        ("no certificate", None),
        ("an expired one", Some(shown(&server.ca, &expired))),
        ("one before its time", Some(shown(&server.ca, &early))),
        ("a foreign one", Some(shown(&ca(), &client_params(name)))),
        ("a self-signed one", Some(alone)),
        ("one that cannot be read", Some(blank)),
    ] {
        assert!(refused(&server.ask(client.as_ref()).await), "{what}");
    }
    // No plaintext either.
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(REQUEST).await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.windows(4).any(|part| part == b"HTTP"), "{answer:?}");
    server.is_alive().await;
}

/// A ClientHello as clients before TLS 1.3 send it: RFC 5246 s7.4.1.2.
fn client_hello(minor: u8) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    // No session; ECDHE with ECDSA and AES-128, with GCM and CBC; no compression.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x09, 1, 0]);
    // P-256, its points uncompressed, ECDSA with SHA-256 on it, the extended master secret.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3, 0, 23, 0, 0];
    hello.extend([0, u8::try_from(extensions.len()).unwrap()]);
    hello.extend(extensions);
    let len = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, len + 4, 1, 0, 0, len];
    record.extend(hello);
    record
}

#[tokio::test]
async fn older_versions_of_tls_are_refused() {
    /// The types of records: RFC 8446 s5.1.
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    /// RFC 8446 s6.2.
    const PROTOCOL_VERSION: u8 = 70;
    let server = Server::start(Limits::default()).await;
    for (minor, refused) in [(1, true), (2, true), (3, false)] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&client_hello(minor)).await.unwrap();
        let mut answer = [0; 7];
        timeout(LONG, stream.read_exact(&mut answer)).await.expect("in time").unwrap();
        match refused {
            true => assert_eq!((answer[0], answer[6]), (ALERT, PROTOCOL_VERSION), "1.{}", minor - 1),
            false => assert_eq!(answer[0], HANDSHAKE, "1.{}: {answer:?}", minor - 1),
        }
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_not_let_in() {
    let ca = ca();
    let with_serial = |serial: u64| {
        let mut params = client_params("spiffe://clinic/backup");
        params.serial_number = Some(SerialNumber::from(serial));
        params
    };
    let (good, revoked) = (shown(&ca, &with_serial(1)), shown(&ca, &with_serial(2)));
    let write_list = |directory: &Path, ca: &Ca| write(&directory.join("crl"), &crl(ca, &[2], 2100));
    let server = Server::start_with(Limits::default(), ca, write_list).await;
    assert!(!refused(&server.ask(Some(&good)).await));
    assert!(refused(&server.ask(Some(&revoked)).await));

    // A list that is past its next update says nothing any more.
    write(&server.directory.path().join("crl"), &crl(&server.ca, &[2], 2022));
    server.tls.reload().unwrap();
    assert!(refused(&server.ask(Some(&good)).await));
    write(&server.directory.path().join("crl"), &crl(&server.ca, &[1, 2], 2100));
    server.tls.reload().unwrap();
    assert!(refused(&server.ask(Some(&good)).await));
}

#[tokio::test]
async fn revocation_by_mapping_counts_on_connections_that_stand() {
    let server = Server::start(Limits::default()).await;
    let client = server.client();
    let entry = "[[principal]]\nid = \"service:a\"\nroles = [\"writer\"]\ncustomers = \"all\"\n\
                 certificate = [\"spiffe://clinic/backup\"]\n";
    let hex = data_encoding::HEXLOWER.encode(&Sha256::digest(&client.certificate));
    let mut standing = server.connect(Some(&client)).await.unwrap();
    for (mapping, expected) in [
        (String::new(), "Unknown"),
        (entry.to_owned(), "service:a"),
        (format!("revoked_certificates = [\"{hex}\"]\n{entry}"), "Revoked"),
        (entry.replace("spiffe://clinic/backup", "spiffe://clinic/other"), "Unknown"),
    ] {
        *server.directory_file.write().unwrap() = Directory::parse(&mapping).unwrap();
        standing.write_all(b"GET /known HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with(expected) {
            let mut some = [0; 1024];
            let len = timeout(LONG, standing.read(&mut some)).await.expect("in time").unwrap();
            assert_ne!(len, 0, "{expected}: {answer}");
            answer.push_str(std::str::from_utf8(&some[..len]).unwrap());
        }
    }
}

#[tokio::test]
async fn changed_files_count_from_the_next_connection() {
    let server = Server::start(Limits::default()).await;
    let client = server.client();
    let mut standing = server.connect(Some(&client)).await.unwrap();
    let other = ca();
    write(&server.directory.path().join("ca"), &other.pem());
    server.tls.reload().unwrap();
    standing.write_all(REQUEST).await.unwrap();
    assert!(read(&mut standing).await.unwrap().contains(" 200 "), "what stands goes on");
    assert!(refused(&server.ask(Some(&client)).await));
    assert!(!refused(&server.ask(Some(&shown(&other, &client_params("spiffe://clinic/b")))).await));

    write(&server.directory.path().join("ca"), "broken");
    assert!(server.tls.reload().is_err());
    assert!(!refused(&server.ask(Some(&shown(&other, &client_params("spiffe://clinic/b")))).await));
}

#[tokio::test]
async fn nothing_is_resumed() {
    let server = Server::start(Limits::default()).await;
    let client = server.client();
    let mut roots = RootCertStore::empty();
    roots.add(server.ca.der().clone()).unwrap();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(client.key.serialize_der().into());
        // One configuration is one memory of sessions.
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(vec![client.certificate.clone()], key)
            .unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        for _ in 0..2 {
            let stream = TcpStream::connect(server.address).await.unwrap();
            let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            assert!(read(&mut stream).await.unwrap().contains(" 200 "));
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        }
    }
}

#[tokio::test]
async fn who_is_slow_is_cut_and_in_nobodys_way() {
    let server = Server::start(quick()).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let client = server.client();
    let mut drip = server.connect(Some(&client)).await.unwrap();
    drip.write_all(b"GET /who HTTP/1.1\r\nhost: local").await.unwrap();
    let mut mute = server.connect_with(Some(&client), &[b"h2"], rustls::ALL_VERSIONS).await.unwrap();
    let mut local = UnixStream::connect(server.socket()).await.unwrap();
    local.write_all(b"P").await.unwrap();
    server.is_alive().await;
    for (what, span) in [
        ("no handshake", closed_after(&mut silent).await),
        ("half a head", closed_after(&mut drip).await),
        ("no request, HTTP/2", closed_after(&mut mute).await),
        ("no protocol", closed_after(&mut local).await),
    ] {
        assert!(span < Duration::from_secs(10), "{what}: {span:?}");
    }
    server.is_alive().await;
}

#[tokio::test]
async fn one_client_does_not_take_all_places() {
    let limits = Limits { connections: 4, connections_per_peer: 2, ..Limits::default() };
    let server = Server::start(limits).await;
    let client = server.client();
    let first = server.connect(Some(&client)).await.unwrap();
    let _second = server.connect(Some(&client)).await.unwrap();
    for _ in 0..5 {
        assert!(refused(&server.ask(Some(&client)).await));
    }
    // Users of this host have places of their own.
    let mut local = UnixStream::connect(server.socket()).await.unwrap();
    local.write_all(REQUEST).await.unwrap();
    assert!(read(&mut local).await.unwrap().contains(" 200 "));
    drop(first);
    let again = async {
        while refused(&server.ask(Some(&client)).await) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, again).await.expect("a place that was given back is taken again");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let server = Server::start(Limits { connections: 1, ..quick() }).await;
    let client = server.client();
    let first = server.connect(Some(&client)).await.unwrap();
    let waits = timeout(Duration::from_millis(200), server.ask(Some(&client))).await;
    assert!(waits.is_err(), "it is neither served nor refused");
    drop(first);
    server.is_alive().await;
}

#[tokio::test]
async fn a_head_that_is_too_big_is_refused() {
    let server = Server::start(Limits::default()).await;
    let client = server.client();
    let long = format!("x-long: {}\r\n", "a".repeat(64 * 1024));
    let many: String = (0..200).map(|each| format!("x-{each}: 1\r\n")).collect();
    for fields in [long, many] {
        let (mut from, mut to) = tokio::io::split(server.connect(Some(&client)).await.unwrap());
        let head = format!("GET /who HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n");
        // It may be closed before all of it is sent.
        let sending = tokio::spawn(async move {
            let _ = to.write_all(head.as_bytes()).await;
            to
        });
        let mut status = [0; 12];
        timeout(LONG, from.read_exact(&mut status)).await.expect("in time").unwrap();
        assert_eq!(&status, b"HTTP/1.1 431");
        drop(sending.await);
        server.is_alive().await;
    }
}

async fn ask_to_wait(stream: &mut (impl AsyncWrite + Unpin)) {
    let request = b"GET /wait HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
}

#[tokio::test]
async fn what_is_under_way_is_finished_at_the_end() {
    let server = Server::start(Limits::default()).await;
    let (address, socket) = (server.address, server.socket());
    let mut busy = server.connect(Some(&server.client())).await.unwrap();
    let _idle = server.connect(Some(&server.client())).await.unwrap();
    ask_to_wait(&mut busy).await;
    server.waits_for(1).await;
    let go_on = Arc::clone(&server.go_on);
    let end = tokio::spawn(server.end());
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, refused).await.expect("nothing is accepted any more");
    assert!(!end.is_finished());
    go_on.notify_one();
    assert!(read(&mut busy).await.unwrap().ends_with("done"));
    assert_eq!(end.await.unwrap(), Drained { cut: 0 });
    assert!(!socket.exists(), "the Unix socket is taken away");
}

#[tokio::test]
async fn what_is_not_finished_in_time_is_cut() {
    let server = Server::start(quick()).await;
    let mut busy = server.connect(Some(&server.client())).await.unwrap();
    ask_to_wait(&mut busy).await;
    server.waits_for(1).await;
    assert_eq!(server.end().await, Drained { cut: 1 });
    assert!(refused(&read(&mut busy).await));
}

#[tokio::test]
async fn a_request_outlives_idle_time_and_age() {
    let limits = Limits { connection_age: Duration::from_millis(100), ..quick() };
    let server = Server::start(limits).await;
    let mut busy = server.connect(Some(&server.client())).await.unwrap();
    ask_to_wait(&mut busy).await;
    server.waits_for(1).await;
    sleep(Duration::from_millis(1500)).await;
    server.go_on.notify_one();
    let answer = read(&mut busy).await.unwrap();
    assert!(answer.ends_with("done"), "and then it is closed: {answer}");
}

#[tokio::test]
async fn a_unix_peer_is_its_user_and_process() {
    let server = Server::start(Limits::default()).await;
    let mode = fs::metadata(server.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut stream = UnixStream::connect(server.socket()).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let (user, process) = (rustix::process::geteuid().as_raw(), std::process::id());
    let answer = read(&mut stream).await.unwrap();
    assert!(answer.ends_with(&format!("\r\n\r\nuser {user} in {process}")), "{answer}");
}

/// Set for a process that was started with a socket, to what it is to answer.
const ACTIVATED: &str = "STRONGROOM_TEST_ACTIVATED";

/// Runs itself once more, with a socket as descriptor 3, as systemd would.
#[test]
fn a_socket_that_was_handed_over_is_served() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if std::env::var_os(ACTIVATED).is_some() {
        let activated = Activated::from_environment();
        assert_eq!(activated.count(), 1);
        return runtime().block_on(async {
            let mut listeners = Listeners::new();
            assert_eq!(listeners.adopt(activated, None).unwrap(), 1);
            let (_stop, stopped) = watch::channel(false);
            let app = Router::new().route("/who", get(who));
            let _ = timeout(LONG, listeners.serve(app, Limits::default(), stopped)).await;
        });
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut child = std::process::Command::new("sh")
        .args(["-c", "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_socket_that_was_handed_over_is_served"])
        .env(ACTIVATED, "1")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let answer = runtime().block_on(async {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        timeout(LONG, read(&mut stream)).await
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let answer = answer.expect("it answers in time").unwrap();
    assert!(answer.contains("\r\n\r\nuser "), "{answer}");
    assert!(path.exists(), "it is not ours to take away");
}
