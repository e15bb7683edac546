//! The daemon under load, and against clients with bad manners: many connections, readers that do
//! not read, floods, kill -9 of two daemons on one store. By raw sockets, on loopback.
#![cfg(feature = "daemon")]

#[path = "common/descriptors.rs"]
mod descriptors;
#[path = "common/load.rs"]
mod load;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use load::{Daemon, Place, Plan, run, sample};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_strongroom");

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(60);

fn place(directory: &Path, limits: &str) -> Place {
    Place::new(Path::new(PROGRAM), directory, 1, limits).unwrap()
}

fn connect(place: &Place, socket: &str) -> UnixStream {
    let stream = UnixStream::connect(place.directory.join(socket)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

fn blobs(place: &Place) -> String {
    format!("/v1/customers/{}/blobs", place.customers[0])
}

/// The status and the body of an answer, on a connection of its own.
fn ask(
    place: &Place,
    socket: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = UnixStream::connect(place.directory.join(socket))?;
    stream.set_read_timeout(Some(LONG))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    Ok((status, answer.split_off(end + 4)))
}

fn seal(place: &Place, socket: &str, body: &[u8]) -> std::io::Result<String> {
    let (status, told) = ask(place, socket, "POST", &blobs(place), body)?;
    if status != 201 {
        return Err(ErrorKind::Other.into());
    }
    let told: Value = serde_json::from_slice(&told).map_err(|_| ErrorKind::UnexpectedEof)?;
    Ok(told["blob"].as_str().unwrap().to_owned())
}

fn is_alive(place: &Place) {
    assert_eq!(ask(place, "socket", "GET", "/v1/health", b"").unwrap().0, 200);
}

fn resident_mib(daemon: &Daemon) -> u64 {
    sample(daemon.0.id(), 0).unwrap().resident_kib / 1024
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251).to_le_bytes()[0]).collect()
}

/// The outcomes of an action, as the log has them.
fn outcomes(place: &Place, action: &str) -> Vec<Value> {
    let told = place.strongroom(&["--json", "audit", "query", "--limit", "1000"]).unwrap();
    let rows = String::from_utf8(told).unwrap();
    let rows = rows.lines().map(|row| serde_json::from_str::<Value>(row).unwrap());
    rows.filter(|row| row["action"] == action).map(|row| row["outcome"].clone()).collect()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LONG, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the other side has closed, after whatever it had to say.
fn is_closed(stream: &mut UnixStream) -> bool {
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
            Err(_) => return false,
        }
    }
}

#[test]
fn the_bench_in_short() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan { operations: 5_000, clients: 16, every: Duration::from_millis(500) };
    let report = runtime.block_on(run(Path::new(PROGRAM), directory.path(), plan, |line| println!("{line}")));
    let report = report.unwrap();
    assert!(report.sealed > 300 && report.took > Duration::ZERO);
    let last = report.samples.last().unwrap();
    assert_eq!(last.done, 5_000);
    assert!(last.resident_kib < 256 * 1024, "{last:?}");
    // 16 clients, the store's and the runtime's own.
    assert!(last.descriptors.is_none_or(|count| count < 200), "{last:?}");
}

#[test]
fn ten_thousand_connections_are_held_and_one_more_is_refused() {
    let count = descriptors::connections(10_000);
    let directory = tempfile::tempdir().unwrap();
    let limits = format!("connections = {}\nconnections_per_peer = {count}\n", count + 10);
    let place = place(directory.path(), &limits);
    let daemon = place.serve("socket").unwrap();
    is_alive(&place);
    let before = resident_mib(&daemon);
    let begun = Instant::now();
    let mut held: Vec<UnixStream> = Vec::new();
    // One place is left, for a request.
    while held.len() < count - 1 {
        held.push(connect(&place, "socket"));
    }
    is_alive(&place);
    let (after, took) = (resident_mib(&daemon), begun.elapsed());
    println!("{count} connections in {took:?}: {before} to {after} MiB resident");
    assert!(after < before + 400, "{before} to {after} MiB");
    // The first is served still, while all others wait.
    held[0].write_all(b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut status = [0; 12];
    held[0].read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    // The place of the request before is given back a moment later, and taken.
    until("one more is held", || {
        let mut one = connect(&place, "socket");
        one.write_all(b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut status = [0; 12];
        one.read_exact(&mut status).is_ok() && {
            let mut more = connect(&place, "socket");
            let refused = is_closed(&mut more);
            assert!(refused, "one more than the limit is closed at once");
            true
        }
    });
    drop(held);
    until("it answers again", || {
        ask(&place, "socket", "GET", "/v1/health", b"").is_ok_and(|(status, _)| status == 200)
    });
    daemon.end().unwrap();
}

#[test]
fn a_reader_that_does_not_read_is_cut_and_recorded_with_what_it_got() {
    let directory = tempfile::tempdir().unwrap();
    let place = place(directory.path(), "write_idle_seconds = 2\n");
    let daemon = place.serve("socket").unwrap();
    let length = 40_000_000;
    let blob = seal(&place, "socket", &pattern(length)).unwrap();
    let path = format!("{}/{blob}", blobs(&place));
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");

    let mut readers: Vec<UnixStream> = (0..20).map(|_| connect(&place, "socket")).collect();
    for reader in &mut readers {
        reader.write_all(request.as_bytes()).unwrap();
        // The head comes: it is under way.
        let mut status = [0; 12];
        reader.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
    }
    // One that reads slowly, and goes on, is not cut.
    let mut slow = connect(&place, "socket");
    slow.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut got = Vec::new();
    let mut piece = vec![0; 5_000_000];
    for _ in 0..7 {
        thread::sleep(Duration::from_secs(1));
        slow.read_exact(&mut piece).unwrap();
        got.extend_from_slice(&piece);
    }
    assert!(resident_mib(&daemon) < 400, "{} MiB", resident_mib(&daemon));
    slow.read_to_end(&mut got).unwrap();
    assert!(got.ends_with(&pattern(length)));
    until("all are on record", || outcomes(&place, "open").iter().all(|outcome| !outcome.is_null()));
    let cut: Vec<Value> =
        outcomes(&place, "open").into_iter().filter(|outcome| outcome["result"] != "ok").collect();
    assert_eq!(cut.len(), 20);
    for outcome in cut {
        let bytes = outcome["bytes"].as_u64().unwrap();
        assert!(outcome["result"] == "aborted" && bytes > 0 && bytes < length as u64, "{outcome}");
    }
    for reader in &mut readers {
        assert!(is_closed(reader), "its connection is gone");
    }
    daemon.end().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_http_2_that_is_not_read_is_cut_too() {
    let directory = tempfile::tempdir().unwrap();
    let place = place(directory.path(), "write_idle_seconds = 1\n");
    let daemon = place.serve("socket").unwrap();
    let blob = seal(&place, "socket", &pattern(20_000_000)).unwrap();
    let stream = tokio::net::UnixStream::connect(place.directory.join("socket")).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    // The connection is read all the time, and pings are answered; the stream is not.
    let connection = tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..20 {
        let request = Request::get(format!("http://localhost{}/{blob}", blobs(&place)));
        let answer = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        answers.push(answer);
    }
    let ended = tokio::time::timeout(LONG, connection).await.expect("it is cut");
    drop((ended, answers));
    until("all are on record", || {
        let outcomes = outcomes(&place, "open");
        outcomes.len() == 20 && outcomes.iter().all(|outcome| outcome["result"] == "aborted")
    });
    is_alive(&place);
    assert!(resident_mib(&daemon) < 400);
    daemon.end().unwrap();
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let place = place(directory.path(), "body_idle_seconds = 1\n");
    let daemon = place.serve("socket").unwrap();
    let mut loris = connect(&place, "socket");
    let head =
        format!("POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nabc", blobs(&place));
    loris.write_all(head.as_bytes()).unwrap();
    let mut status = [0; 12];
    loris.read_exact(&mut status).unwrap();
    assert_eq!(&status[..10], b"HTTP/1.1 4");
    let listed = place.strongroom(&["ls", "--customer", "customer-0", "--ids"]).unwrap();
    assert!(listed.is_empty(), "nothing is stored");
    until("it is on record", || outcomes(&place, "seal").iter().all(|outcome| outcome["result"] == "failed"));
    assert_eq!(outcomes(&place, "seal").len(), 1);
    is_alive(&place);
    daemon.end().unwrap();
}

#[test]
fn a_directory_is_listed_in_pages_that_leave_nothing_out() {
    let directory = tempfile::tempdir().unwrap();
    let place = place(directory.path(), "");
    let daemon = place.serve("socket").unwrap();
    let sealed: BTreeSet<String> = (0..50).map(|_| seal(&place, "socket", b"a").unwrap()).collect();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("{}?limit=7{after}", blobs(&place));
        let (status, page) = ask(&place, "socket", "GET", &path, b"").unwrap();
        assert_eq!(status, 200);
        let page: Value = serde_json::from_slice(&page).unwrap();
        let rows = page["blobs"].as_array().unwrap();
        seen.extend(rows.iter().map(|row| row["blob"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, sealed.into_iter().collect::<Vec<_>>());
    daemon.end().unwrap();
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A frame (RFC 9113 s4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// GET http://localhost/ (RFC 7541, appendix A has the indices).
const HEAD: &[u8] = b"\x82\x86\x84\x41\x09localhost";

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM_AND_HEADERS: u8 = 5;

#[test]
fn floods_of_http_2_end_their_own_connection_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let place = place(directory.path(), "");
    let daemon = place.serve("socket").unwrap();
    let streams = || (0..10_000_u32).map(|number| number * 2 + 1);
    // Streams that are opened and reset (CVE-2023-44487).
    let reset: Vec<u8> = streams()
        .flat_map(|stream| {
            let cancel = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            [frame(HEADERS, END_STREAM_AND_HEADERS, stream, HEAD), cancel].concat()
        })
        .collect();
    // More streams at once than there may be, whose bodies never come.
    let opened: Vec<u8> = streams().flat_map(|stream| frame(HEADERS, 4, stream, HEAD)).collect();
    // One head that is forty megabytes once it is unpacked: a long field in the dynamic table,
    // and named ten thousand times.
    let long = [HEAD, b"\x40\x01x\x7f\xa1\x1e", &[b'a'; 4000], &[0xbe; 10_000]].concat();
    let bomb = frame(HEADERS, END_STREAM_AND_HEADERS, 1, &long);
    // A head without an end (CVE-2024-27316).
    let mut endless = frame(HEADERS, 1, 1, HEAD);
    for _ in 0..5_000 {
        endless.extend(frame(9, 0, 1, &[b"\x00\x01x\x7f\xa1\x1e".as_slice(), &[b'a'; 4000]].concat()));
    }
    for (what, flood) in [("resets", reset), ("streams", opened), ("a bomb", bomb), ("no end", endless)] {
        let mut stream = connect(&place, "socket");
        stream.write_all(PREFACE).unwrap();
        let mut reading = stream.try_clone().unwrap();
        let reader = thread::spawn(move || is_closed(&mut reading));
        let sent = stream.write_all(&flood);
        is_alive(&place);
        // Closed by the daemon, or by us where it has only refused the streams.
        println!("{what}: {sent:?}");
        drop(stream.shutdown(std::net::Shutdown::Write));
        assert!(reader.join().unwrap(), "{what}");
        is_alive(&place);
        assert!(resident_mib(&daemon) < 200, "{what}: {} MiB", resident_mib(&daemon));
    }
    daemon.end().unwrap();
}

/// Without a limit, or as it has the capability; and else not at all.
#[test]
fn memory_is_locked_where_that_is_allowed() {
    const IPC_LOCK: u32 = 14;
    let directory = tempfile::tempdir().unwrap();
    let place = place(directory.path(), "");
    // A limit that cannot be lifted here stays.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    let daemon = place.serve("socket").unwrap();
    let of_process = |file: &str, field: &str| {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", daemon.0.id())).unwrap();
        text.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned()
    };
    let exempt = u64::from_str_radix(&of_process("status", "CapEff:"), 16).unwrap() >> IPC_LOCK & 1 == 1;
    let allowed = exempt || of_process("limits", "Max locked memory").starts_with("unlimited");
    let locked: u64 = of_process("status", "VmLck:").strip_suffix(" kB").unwrap().parse().unwrap();
    println!("memory may be locked: {allowed}; {locked} KiB are");
    assert!(if allowed { locked > 1024 } else { locked == 0 }, "{allowed}: {locked} KiB");
    daemon.end().unwrap();
}

#[test]
fn two_daemons_that_are_killed_under_load_lose_nothing_that_they_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let place = place(directory.path(), "");
    let acknowledged = Mutex::new(BTreeSet::new());
    let content = pattern(100_000);
    for round in 0..3_u64 {
        let daemons = ["a", "b"].map(|socket| place.serve(socket).unwrap());
        thread::scope(|scope| {
            for number in 0..8 {
                let (place, acknowledged, content) = (&place, &acknowledged, &content);
                scope.spawn(move || {
                    // Until its daemon is gone.
                    while let Ok(blob) = seal(place, ["a", "b"][number % 2], content) {
                        acknowledged.lock().unwrap().insert(blob);
                    }
                });
            }
            let [mut first, mut second] = daemons;
            thread::sleep(Duration::from_millis(800 + 150 * round));
            first.0.kill().unwrap();
            thread::sleep(Duration::from_millis(100));
            second.0.kill().unwrap();
        });
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    let daemons = ["a", "b"].map(|socket| place.serve(socket).unwrap());
    let listed = place.strongroom(&["ls", "--customer", "customer-0", "--ids"]).unwrap();
    let listed: BTreeSet<String> = String::from_utf8(listed).unwrap().lines().map(str::to_owned).collect();
    assert!(acknowledged.is_subset(&listed));
    // Whole or not there: what was stored and not acknowledged opens too, at both.
    for (number, blob) in listed.iter().enumerate() {
        let path = format!("{}/{blob}", blobs(&place));
        let (status, got) = ask(&place, ["a", "b"][number % 2], "GET", &path, b"").unwrap();
        assert!(status == 200 && got == content, "{blob}: {status}");
    }
    println!("{} acknowledged, {} listed", acknowledged.len(), listed.len());
    for daemon in daemons {
        daemon.end().unwrap();
    }
    place.strongroom(&["audit", "verify"]).unwrap();
}
