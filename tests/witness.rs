//! A witness over HTTP on loopback, as its log, as a stranger with a socket, and as
//! the operator with the command line meet it.
#![cfg(feature = "witness")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use strongroom::ErrorKind;
use strongroom::merkle::{Hash, TreeHead, leaf_hash, prove_consistency, root};
use strongroom::secret::Secret;
use strongroom::system::SystemClock;
use strongroom::tlog::checkpoint::{Checkpoint, SignedCheckpoint};
use strongroom::tlog::note::Note;
use strongroom::tlog::{NamedKey, SecretKey};
use strongroom::witness::client::{Outcome, Refused, Witness, WitnessError, cosign_checkpoint};
use strongroom::witness::http::HttpWitness;
use strongroom::witness::server::{Event, HEAD_TIME, MAX_CONNECTIONS, Server};
use strongroom::witness::state::{Ledger, log_name};
use strongroom::witness::{AddCheckpoint, KnownLogs, MAX_REQUEST_LEN};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const LOG: &str = "example.com/log";
const NEVER: usize = usize::MAX;

fn named(name: &str, seed: u8) -> NamedKey {
    NamedKey::new(name.parse().unwrap(), SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32])))
}

fn log() -> NamedKey {
    named(LOG, 1)
}

fn witness_key() -> NamedKey {
    named("example.com/witness", 9)
}

/// The leaves of one history, or of another that leaves it at `fork`.
fn leaves(size: usize, fork: usize) -> Vec<Hash> {
    (0..size).map(|number| leaf_hash(format!("{number} {}", number >= fork).as_bytes())).collect()
}

fn signed_by(key: &NamedKey, leaves: &[Hash]) -> SignedCheckpoint {
    let head = TreeHead { size: leaves.len() as u64, root: root(leaves) };
    let checkpoint = Checkpoint::new(key.name().clone().into(), head).unwrap();
    let signature = key.sign(&checkpoint.to_string());
    SignedCheckpoint::new(checkpoint, vec![signature]).unwrap()
}

fn request(old: usize, new: usize, fork: usize) -> AddCheckpoint {
    let leaves = leaves(new, fork);
    let proof = prove_consistency(&leaves, old).unwrap();
    AddCheckpoint::new(old as u64, proof, signed_by(&log(), &leaves)).unwrap()
}

/// A witness on loopback.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    events: Arc<Mutex<Vec<String>>>,
}

impl Running {
    async fn start(ledger: Ledger) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let events = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&events);
        let listener = Arc::new(move |event| {
            heard.lock().unwrap().push(match event {
                Event::Alarm { origin } => format!("{origin}: alarm"),
                Event::Unproven { origin } => format!("{origin}: unproven"),
                other => format!("{other:?}"),
            });
        });
        let logs = KnownLogs::new([log().verifier()]).unwrap();
        let server = Server::new(ledger, logs, witness_key(), Arc::new(SystemClock), listener);
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(async move { server.serve(socket, async { drop(stopped.await) }).await });
        Self { address, stop, served, events }
    }

    async fn new(path: &Path) -> Self {
        Self::start(Ledger::create(&path.join("state"), &witness_key().cosigner()).unwrap()).await
    }

    async fn again(path: &Path) -> Self {
        Self::start(Ledger::open(&path.join("state"), &witness_key().cosigner()).unwrap()).await
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), self.served).await.expect("it ends").unwrap();
    }

    fn client(&self) -> HttpWitness {
        client(self.address)
    }

    /// Posts a body as someone who never heard of this library.
    async fn post(&self, body: impl Into<Vec<u8>>) -> Answer {
        let body = body.into();
        let head = format!(
            "POST /add-checkpoint HTTP/1.1\r\nHost: witness\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.send([head.into_bytes(), body].concat()).await
    }

    async fn send(&self, request: Vec<u8>) -> Answer {
        let address = self.address;
        tokio::task::spawn_blocking(move || raw(address, &request)).await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: witness\r\nConnection: close\r\n\r\n").into_bytes())
            .await
    }
}

fn client(address: SocketAddr) -> HttpWitness {
    HttpWitness::new(&format!("http://{address}/").parse().unwrap(), witness_key().cosigner()).unwrap()
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn raw(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // One that does not want to hear more closes before it was sent.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

async fn ask(witness: &HttpWitness, known: u64, new: usize, fork: usize) -> Outcome {
    let leaves = leaves(new, fork);
    let prove = async |old: u64| Ok(prove_consistency(&leaves, usize::try_from(old).unwrap()).unwrap());
    cosign_checkpoint(witness, &signed_by(&log(), &leaves), known, prove).await.unwrap()
}

fn path() -> String {
    format!("/{}/checkpoint", log_name(&LOG.parse().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_grows_and_each_checkpoint_is_cosigned() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::new(dir.path()).await;
    assert_eq!(running.get(&path()).await.status, 404, "nothing was cosigned yet");
    let mut known = 0;
    for new in [1, 2, 3, 3, 7, 8, 9, 64, 65, 200, 256, 257] {
        let Outcome::Cosigned { checkpoint, at } = ask(&running.client(), known, new, NEVER).await else {
            panic!("{new}")
        };
        assert_eq!(checkpoint.cosigned_by(&witness_key().cosigner()).unwrap(), Some(at));
        assert_eq!(checkpoint.verify(&log().verifier()).unwrap().head().size, new as u64);
        // It shows to anyone what it has cosigned, with both signatures.
        let shown = running.get(&path()).await;
        assert_eq!((shown.status, shown.body), (200, checkpoint.to_string()));
        known = new as u64;
        if new == 8 {
            running.stop().await;
            running = Running::again(dir.path()).await;
        }
        if new == 64 {
            known = 0;
        }
    }
    assert_eq!(*running.events.lock().unwrap(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_client_gets_what_the_specification_says() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::new(dir.path()).await;
    let first = request(0, 5, NEVER);
    let answer = running.post(first.to_string()).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.starts_with("\u{2014} example.com/witness ") && answer.body.ends_with('\n'));
    // As the specification puts it: the answer at the end of the note makes a note.
    let note = format!("{}{}", first.checkpoint(), answer.body);
    let note = Note::parse(note.as_bytes()).unwrap();
    assert!(note.verified_by(&witness_key().cosigner()).unwrap().is_some());

    // A replay has the wrong size by now.
    for (old, new) in [(0, 5), (0, 9), (3, 9), (6, 9), (3, 4)] {
        let answer = running.post(request(old, new, NEVER).to_string()).await;
        assert_eq!((answer.status, answer.body.as_str()), (409, "5\n"), "{old} {new}");
        assert!(answer.head.contains("\r\ncontent-type: text/x.tlog.size"), "{}", answer.head);
    }
    let unknown = AddCheckpoint::new(0, Vec::new(), signed_by(&named("example.com/x", 1), &leaves(5, NEVER)));
    assert_eq!(running.post(unknown.unwrap().to_string()).await.status, 404);
    let stranger = AddCheckpoint::new(0, Vec::new(), signed_by(&named(LOG, 2), &leaves(5, NEVER)));
    assert_eq!(running.post(stranger.unwrap().to_string()).await.status, 403);
    let good = request(5, 9, NEVER).to_string();
    let spoilt = good.replacen("\n9\n", "\n10\n", 1);
    assert_eq!(running.post(spoilt).await.status, 403, "what is signed was changed");
    for (from, to) in
        [("old 5", "old 05"), ("old 5", "old 10"), ("old 5", "new 5"), ("\n\n", "\n"), ("\n9\n", "\n09\n")]
    {
        assert_eq!(running.post(good.replacen(from, to, 1)).await.status, 400, "{from:?} {to:?}");
    }
    assert_eq!(running.post("").await.status, 400);
    assert_eq!(running.post(vec![0xFF; 100]).await.status, 400);
    assert_eq!(running.post(good.replacen("\n9\n", "\n0\n", 1)).await.status, 422, "the empty tree");
    let mut hashes: Vec<&str> = good.lines().collect();
    hashes.remove(1);
    assert_eq!(running.post(hashes.join("\n") + "\n").await.status, 422, "a hash is missing");

    for (line, status) in [
        ("GET /add-checkpoint", 405),
        ("DELETE /add-checkpoint", 405),
        ("POST /", 404),
        ("GET /", 404),
        ("GET /add-checkpoint/", 404),
        ("GET /../etc/passwd", 404),
        ("GET //checkpoint", 404),
        (&format!("POST {}", path()), 405),
        (&format!("GET {}", path().to_uppercase()), 404),
        (&format!("GET {}", path().replace(|c: char| c.is_ascii_digit(), "0")), 404),
    ] {
        let head = format!("{line} HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(running.send(head.into_bytes()).await.status, status, "{line}");
    }
    // After all of this nothing has changed.
    assert_eq!(running.post(good).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_rolled_back_or_rewritten_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::new(dir.path()).await;
    assert!(matches!(ask(&running.client(), 0, 9, NEVER).await, Outcome::Cosigned { .. }));

    // Rolled back: the old sizes do not fit, whatever the log claims to know.
    for known in [0, 4, 7, 9] {
        let outcome = ask(&running.client(), known, 7, NEVER).await;
        assert!(matches!(outcome, Outcome::Refused(Refused::Ahead { size: 9 })), "{outcome:?}");
    }
    assert_eq!(running.post(request(7, 7, NEVER).to_string()).await.status, 409);
    assert_eq!(running.post(request(7, 12, 7).to_string()).await.status, 409);
    assert_eq!(*running.events.lock().unwrap(), [] as [String; 0]);

    // And grown again, along another branch.
    for (new, event) in [(9, "alarm"), (12, "unproven")] {
        let outcome = ask(&running.client(), 9, new, 7).await;
        let Outcome::Refused(refused) = outcome else { panic!("{outcome:?}") };
        assert_eq!(strongroom::Error::from(refused).kind(), ErrorKind::Integrity);
        assert_eq!(running.post(request(9, new, 7).to_string()).await.status, 422);
        assert_eq!(
            running.events.lock().unwrap().drain(..).collect::<Vec<_>>(),
            [format!("{LOG}: {event}"), format!("{LOG}: {event}")]
        );
    }
    let evidence = dir.path().join(format!("state/{}.evidence", log_name(&LOG.parse().unwrap())));
    assert!(evidence.exists());
    // The true log goes on as if nothing had been.
    assert!(matches!(ask(&running.client(), 9, 12, NEVER).await, Outcome::Cosigned { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_requests_for_one_place_one_is_cosigned() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::new(dir.path()).await;
    let mut old = 0;
    for round in 1..20 {
        let news = [old + round, old + round + 1];
        let (a, b) = tokio::join!(
            running.post(request(old, news[0], NEVER).to_string()),
            running.post(request(old, news[1], NEVER).to_string())
        );
        let won = match (a.status, b.status) {
            (200, 409) => 0,
            (409, 200) => 1,
            other => panic!("{other:?}"),
        };
        old = news[won];
        assert_eq!([b, a][won].body, format!("{old}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::new(dir.path()).await;
    assert_eq!(running.post(vec![b'x'; MAX_REQUEST_LEN]).await.status, 400);
    assert_eq!(running.post(vec![b'x'; MAX_REQUEST_LEN + 1]).await.status, 413);
    let chunk = format!("{:x}\r\n{}\r\n", 60_000, "x".repeat(60_000));
    let head =
        "POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = chunk.repeat(2) + "0\r\n\r\n";
    assert_eq!(running.send((head.to_owned() + &body).into_bytes()).await.status, 413);
    let head =
        format!("GET / HTTP/1.1\r\nHost: w\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(running.send(head.into_bytes()).await.status, 431);
    let lines: String = (0..200).map(|number| format!("X{number}: y\r\n")).collect();
    let head = format!("GET / HTTP/1.1\r\nHost: w\r\nConnection: close\r\n{lines}\r\n");
    assert_eq!(running.send(head.into_bytes()).await.status, 431);
    assert_eq!(running.post(request(0, 5, NEVER).to_string()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_waited_for_in_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::new(dir.path()).await;
    let address = running.address;
    let connected = Arc::new(AtomicUsize::new(0));
    let half = |text: &'static str| {
        let connected = Arc::clone(&connected);
        tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            let mut stream = TcpStream::connect(address).unwrap();
            connected.fetch_add(1, Ordering::SeqCst);
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            (start.elapsed(), String::from_utf8(answer).unwrap())
        })
    };
    let bound = HEAD_TIME + Duration::from_secs(10);
    let body = half("POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 100\r\n\r\nold");
    // All the others keep every connection there is.
    let heads: Vec<_> = (1..MAX_CONNECTIONS).map(|_| half("POST /add-checkpoint HTTP/1.1\r\nHos")).collect();
    while connected.load(Ordering::SeqCst) < MAX_CONNECTIONS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let start = Instant::now();
    assert_eq!(running.post(request(0, 5, NEVER).to_string()).await.status, 200);
    assert!(start.elapsed() < bound, "{:?}", start.elapsed());
    assert!(start.elapsed() > HEAD_TIME / 2, "there was a connection left: {:?}", start.elapsed());
    for head in heads {
        assert!(head.await.unwrap().0 < bound);
    }
    let (took, answer) = body.await.unwrap();
    assert!(took < bound && answer.starts_with("HTTP/1.1 408 "), "{took:?} {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::new(dir.path()).await;
    // Someone is connected, and says nothing.
    let idle = TcpStream::connect(running.address).unwrap();
    assert_eq!(running.post(request(0, 5, NEVER).to_string()).await.status, 200);
    let address = running.address;
    running.stop().await;
    assert!(TcpStream::connect(address).is_err());
    drop(idle);
    let outcome = ask(&client(address), 5, 6, NEVER).await;
    assert!(matches!(outcome, Outcome::Unavailable(_)), "{outcome:?}");
    let running = Running::again(dir.path()).await;
    assert!(matches!(ask(&running.client(), 5, 6, NEVER).await, Outcome::Cosigned { .. }));
}

/// Answers one request with `answer`, whatever it is.
async fn impostor(answer: String) -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = socket.accept().unwrap();
        let mut piece = [0; 65_536];
        let _ = stream.read(&mut piece);
        let _ = stream.write_all(answer.as_bytes());
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_believes_nothing_that_is_not_signed() {
    let request = request(0, 5, NEVER);
    let answered = async |status: &str, header: &str, body: String| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{header}\r\n", body.len());
        client(impostor(head + &body).await).cosign(&request).await
    };
    let size = "Content-Type: text/x.tlog.size\r\n";
    for body in ["5", "05\n", "5\n\n", "-5\n", "", "x\n", "18446744073709551616\n"] {
        let error = answered("409 Conflict", size, body.to_owned()).await.unwrap_err();
        assert!(matches!(error, WitnessError::Unavailable(_)), "{body:?}");
    }
    let error = answered("409 Conflict", size, "5\n".to_owned()).await.unwrap_err();
    assert!(matches!(error, WitnessError::Conflict { size: 5 }));
    let error = answered("409 Conflict", "", "5\n".to_owned()).await.unwrap_err();
    assert!(matches!(error, WitnessError::Unavailable(_)), "a conflict of something else");
    for body in [String::new(), "x\n".to_owned(), "\u{2014} a b\n".to_owned(), "x".repeat(1 << 20)] {
        let error = answered("200 OK", "", body).await.unwrap_err();
        assert!(matches!(error, WitnessError::Unavailable(_)));
    }
    let error = answered("302 Found", "Location: http://127.0.0.1:1/\r\n", String::new()).await.unwrap_err();
    assert!(matches!(error, WitnessError::Unavailable(_)), "it goes nowhere else");
    for (status, expected) in [
        ("400 Bad Request", "does not take"),
        ("403 Forbidden", "does not trust"),
        ("404 Not Found", "does not know"),
        ("413 Payload Too Large", "does not take"),
        ("422 Unprocessable Entity", "does not continue"),
        ("429 Too Many Requests", "does not answer"),
        ("500 Internal Server Error", "does not answer"),
        ("503 Service Unavailable", "does not answer"),
    ] {
        let error = answered(status, "", "secret words".to_owned()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{status}: {error}");
        assert!(!format!("{error:?}").contains("secret"));
    }
}

#[cfg(feature = "cli")]
mod command_line {
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Child, Command, Stdio};

    use serde_json::Value;
    use strongroom::tlog::tile::Tile;
    use strongroom::tlog::{TileBuilder, VerifierKey};

    use super::*;

    struct Home(tempfile::TempDir);

    /// A program that is killed when the test fails.
    struct Served {
        child: Child,
        address: SocketAddr,
    }

    impl Drop for Served {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    impl Home {
        fn command(&self, args: &[&str]) -> Command {
            let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
            // No home: a witness needs none.
            command.env_clear().current_dir(self.0.path()).arg("witness").args(args).stdin(Stdio::null());
            command
        }

        /// Exit code, standard output and standard error.
        fn run(&self, args: &[&str]) -> (i32, String, String) {
            let output = self.command(args).output().unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
        }

        fn serve_args<'a>(log: &'a str, more: &[&'a str]) -> Vec<&'a str> {
            let args = ["serve", "--key", "key", "--state", "state", "--listen", "127.0.0.1:0", "--log", log];
            [&args[..], more].concat()
        }

        fn serve(&self, more: &[&str]) -> Served {
            let log = log().verifier().to_string();
            let args = Self::serve_args(&log, more);
            let mut command = self.command(&args);
            let mut child =
                command.arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            let said: Value = serde_json::from_str(&line).unwrap();
            Served { child, address: said["listening"].as_str().unwrap().parse().unwrap() }
        }
    }

    impl Served {
        fn post(&self, old: usize, new: usize, fork: usize) -> Answer {
            let body = request(old, new, fork).to_string();
            let head = "POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length";
            raw(self.address, format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes())
        }

        fn signal(&mut self, name: &str) -> Option<i32> {
            let id = self.child.id().to_string();
            assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
            self.child.wait().unwrap().code()
        }

        fn said(&mut self) -> String {
            let mut text = String::new();
            self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            text
        }
    }

    #[test]
    fn a_witness_from_its_key_to_an_alarm() {
        let home = Home(tempfile::tempdir().unwrap());
        let (code, public, _) = home.run(&["key", "--name", "example.com/witness", "--key", "key"]);
        let public: VerifierKey = public.trim_end().parse().unwrap();
        assert_eq!((code, public.name().as_str()), (0, "example.com/witness"));
        let mode = fs::metadata(home.0.path().join("key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let before = fs::read(home.0.path().join("key")).unwrap();
        assert_eq!(home.run(&["key", "--name", "example.com/witness", "--key", "key"]).0, 73);
        assert_eq!(fs::read(home.0.path().join("key")).unwrap(), before, "a key is never written over");

        let log_key = log().verifier().to_string();
        let (code, _, error) = home.run(&Home::serve_args(&log_key, &[]));
        assert_eq!(code, 66, "a state is missing: {error}");
        assert!(error.contains("--new"), "{error}");

        let mut served = home.serve(&["--new"]);
        let answer = served.post(0, 5, NEVER);
        assert_eq!(answer.status, 200);
        let note = format!("{}{}", request(0, 5, NEVER).checkpoint(), answer.body);
        let note = SignedCheckpoint::parse(note.as_bytes()).unwrap();
        assert!(note.cosigned_by(&public).unwrap().is_some());
        let (code, _, error) = home.run(&Home::serve_args(&log_key, &[]));
        assert_eq!(code, 75, "another has the state: {error}");
        assert_eq!(served.signal("KILL"), None);

        assert_eq!(home.run(&Home::serve_args(&log_key, &["--new"])).0, 73, "there is a state");
        let mut served = home.serve(&[]);
        assert_eq!(served.post(0, 5, NEVER).body, "5\n");
        assert_eq!(served.post(5, 9, NEVER).status, 200);
        assert_eq!(served.signal("TERM"), Some(0));
        assert_eq!(served.said(), "");

        let (code, shown, _) = home.run(&["show", "--state", "state", "--json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!((code, &shown["key"]), (0, &Value::from(public.to_string())));
        let row = &shown["logs"][0];
        assert_eq!((row["origin"].as_str(), row["size"].as_u64()), (Some(LOG), Some(9)));
        assert_eq!(row["root"], root(&leaves(9, NEVER)).to_string());
        assert_eq!(row["evidence"], Value::Null);

        let mut served = home.serve(&[]);
        assert_eq!(served.post(9, 9, 3).status, 422);
        assert_eq!(served.signal("INT"), Some(0));
        let said: Value = serde_json::from_str(&served.said()).unwrap();
        assert_eq!(said["alarm"]["origin"], LOG);
        let (code, shown, error) = home.run(&["show", "--state", "state"]);
        assert_eq!(code, 65, "{error}");
        assert!(shown.contains(LOG) && shown.starts_with("LOG"), "{shown}");
        assert!(error.contains("keep a copy"), "{error}");
    }

    /// Posts, if the witness is there to the end.
    fn try_post(address: SocketAddr, old: usize, new: usize) -> Option<u16> {
        let body = request(old, new, NEVER).to_string();
        let head = "POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length";
        let mut stream = TcpStream::connect(address).ok()?;
        stream.write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.get(9..12)?.parse().ok()
    }

    #[test]
    fn killed_at_work_it_has_what_it_answered_for() {
        let home = Home(tempfile::tempdir().unwrap());
        assert_eq!(home.run(&["key", "--name", "example.com/witness", "--key", "key"]).0, 0);
        let mut size = 0;
        for round in 0..8 {
            let mut served = home.serve(if round == 0 { &["--new"] } else { &[] });
            let address = served.address;
            let (first, answers) = std::sync::mpsc::channel();
            let log = std::thread::spawn(move || {
                let (mut answered, mut asked) = (size, size);
                loop {
                    asked += 1;
                    match try_post(address, answered, asked) {
                        Some(200) => {
                            answered = asked;
                            let _ = first.send(());
                        }
                        None => return (answered, asked),
                        Some(status) => panic!("{status} for {asked} after {answered}"),
                    }
                }
            });
            answers.recv().expect("a first answer");
            // Another moment in each round.
            std::thread::sleep(Duration::from_millis(17 * round));
            assert_eq!(served.signal("KILL"), None);
            let (answered, asked) = log.join().unwrap();
            let shown: Value =
                serde_json::from_str(&home.run(&["show", "--state", "state", "--json"]).1).unwrap();
            size = usize::try_from(shown["logs"][0]["size"].as_u64().unwrap()).unwrap();
            assert!((answered..=asked).contains(&size), "{answered} {asked} {size}");
        }
    }

    #[test]
    fn a_published_log_is_cosigned_from_cron() {
        let home = Home(tempfile::tempdir().unwrap());
        assert_eq!(home.run(&["key", "--name", "example.com/witness", "--key", "key"]).0, 0);
        let log_key = log().verifier().to_string();
        let publish = |size, fork| {
            let leaves = leaves(size, fork);
            let mut builder = TileBuilder::new();
            let full: Vec<_> = leaves.iter().flat_map(|leaf| builder.push(*leaf)).collect();
            let partial = builder.partial().map(|(tile, hashes)| (tile, hashes.to_vec()));
            for (tile, hashes) in full.into_iter().chain(partial) {
                let path = home.0.path().join("log").join(tile.to_string());
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, Tile::encode(&hashes)).unwrap();
            }
            let checkpoint = signed_by(&log(), &leaves).to_string();
            fs::write(home.0.path().join("log/checkpoint"), checkpoint).unwrap();
        };
        let look = |more: &[&str]| {
            let args = ["cosign", "--key", "key", "--state", "state", "--from", "./log", "--log", &log_key];
            home.run(&[&args[..], more].concat())
        };
        assert_eq!(look(&["--new"]).0, 66, "there is no log");
        publish(200, NEVER);
        for size in [200, 200, 700] {
            publish(size, NEVER);
            let (code, note, error) = look(&[]);
            assert_eq!(code, 0, "{error}");
            let note = SignedCheckpoint::parse(note.as_bytes()).unwrap();
            assert_eq!(note.verify(&log().verifier()).unwrap().head().size, size as u64);
        }
        for (size, fork) in [(600, NEVER), (700, 300), (900, 300)] {
            publish(size, fork);
            let (code, out, error) = look(&[]);
            assert_eq!((code, out.as_str()), (65, ""), "{error}");
            assert!(error.contains("hint: do not retry"), "{error}");
        }
        publish(900, NEVER);
        let (code, out, _) = look(&["--json"]);
        let out: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, out["size"].as_u64()), (0, Some(900)));
        assert_eq!(home.run(&["show", "--state", "state"]).0, 65, "what was seen is not forgotten");
    }

    #[test]
    fn a_key_or_a_state_that_is_not_fit_is_refused() {
        let home = Home(tempfile::tempdir().unwrap());
        let log_key = log().verifier().to_string();
        let serve = |more: &[&str]| home.run(&Home::serve_args(&log_key, more)).0;
        assert_eq!(serve(&["--new"]), 66, "no key");
        assert_eq!(home.run(&["key", "--name", "example.com/witness", "--key", "key"]).0, 0);
        let key = home.0.path().join("key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(serve(&["--new"]), 78, "others can read it");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&key, "PRIVATE+KEY+secret").unwrap();
        let (code, _, error) = home.run(&Home::serve_args(&log_key, &["--new"]));
        assert_eq!(code, 78);
        assert!(!error.contains("secret"), "{error}");
        assert!(!home.0.path().join("state").exists());
        assert_eq!(home.run(&["key", "--name", "with space", "--key", "other"]).0, 64);
        assert_eq!(home.run(&["serve", "--key", "key", "--state", "state", "--log", "x"]).0, 64);
        assert_eq!(home.run(&["show", "--state", "nowhere"]).0, 66);
    }
}
