//! Requests that two programs could read differently: where one ends is never a guess (RFC 9112
//! s6.3, s11.2). Raw bytes on a connection, with a request hidden behind each: it is not answered,
//! the connection is closed, and nothing is stored, opened or on record but what was asked.
#![cfg(feature = "daemon")]

#[path = "common/daemon.rs"]
mod home;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use home::Home;

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(20);

/// What is answered to these bytes, until the connection is closed.
fn answers(home: &Home, sent: &[u8]) -> String {
    let mut stream = UnixStream::connect(home.path("socket")).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    // It may be closed before all of it is sent.
    let _ = stream.write_all(sent);
    let mut answered = Vec::new();
    match stream.read_to_end(&mut answered) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("it is not closed: {error}"),
    }
    String::from_utf8(answered).unwrap()
}

/// The status of each answer.
fn statuses(answered: &str) -> Vec<&str> {
    answered.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

/// Bodies of blobs, as text.
fn blobs(home: &Home) -> Vec<String> {
    let read = |id: String| home.run(&["get", "--customer", "acme", &id, "-o", "-"]).stdout;
    home.listed().into_iter().map(|id| String::from_utf8(read(id)).unwrap()).collect()
}

#[test]
fn where_a_request_ends_is_never_a_guess() {
    let home = Home::new();
    let daemon = home.serve();
    let path = home.blobs();
    // Who reads a body as shorter than it is meant finds this behind it.
    let hidden = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nhidden");
    let length = hidden.len();
    let chunked = format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n");
    let shape = |version: &str, fields: &str, body: &str| {
        format!("POST {path} HTTP/{version}\r\nhost: localhost\r\n{fields}\r\n{body}")
    };
    let of_length = |text: &str| shape("1.1", &format!("content-length: {text}\r\n"), &hidden);
    let coded = |text: &str| shape("1.1", &format!("transfer-encoding: {text}\r\n"), &chunked);
    let in_chunks = |body: String| shape("1.1", "transfer-encoding: chunked\r\n", &body);
    let refused = [
        ("two lengths", of_length("0\r\ncontent-length: 6")),
        ("a list of lengths", of_length("0, 6")),
        ("a length with a sign", of_length("+0")),
        ("a negative length", of_length("-1")),
        ("a hexadecimal length", of_length("0x0")),
        ("an empty length", of_length("")),
        ("a length that is none", of_length("0 0")),
        ("a length beyond 64 bits", of_length("18446744073709551616")),
        ("another coding", coded("identity")),
        ("a coding before", coded("gzip, chunked")),
        ("a coding behind", coded("chunked, identity")),
        ("chunked twice", coded("chunked, chunked")),
        ("in two fields", coded("chunked\r\ntransfer-encoding: identity")),
        ("almost the coding", coded("xchunked")),
        ("the coding with a character before", coded("\x0bchunked")),
        ("the coding in HTTP/1.0", shape("1.0", "transfer-encoding: chunked\r\n", &chunked)),
        ("a space before the colon", shape("1.1", "content-length : 0\r\n", &hidden)),
        ("a folded line", shape("1.1", "x: a\r\n content-length: 0\r\n", &hidden)),
        ("a field without a name", shape("1.1", ": a\r\n", &hidden)),
        ("a carriage return in a value", shape("1.1", "x: a\rcontent-length: 0\r\n", &hidden)),
        ("a zero byte in a value", shape("1.1", "x: a\0\r\n", &hidden)),
        ("a chunk of a length that is none", in_chunks(format!("zz\r\n{hidden}\r\n0\r\n\r\n"))),
        ("a chunk with a sign", in_chunks(format!("+{length:x}\r\n{hidden}\r\n0\r\n\r\n"))),
        ("a chunk of 0x", in_chunks(format!("0x{length:x}\r\n{hidden}\r\n0\r\n\r\n"))),
        ("a chunk beyond 64 bits", in_chunks(format!("1{length:016x}\r\n{hidden}\r\n0\r\n\r\n"))),
        ("a chunk that is longer than it says", in_chunks(format!("1\r\n{hidden}\r\n0\r\n\r\n"))),
        ("a line feed in an extension", in_chunks(format!("{length:x};a\n{hidden}\r\n0\r\n\r\n"))),
    ];
    for (what, sent) in refused {
        let answered = answers(&home, sent.as_bytes());
        let told = statuses(&answered);
        assert!(told == ["400"] || told == ["501"], "{what}: {answered}");
    }
    assert_eq!(blobs(&home), [""; 0], "nothing is stored");

    // A length beside chunks counts for nothing, wherever it is (RFC 9112 s6.3): what is stored is
    // what the chunks have.
    let both = [
        "content-length: 3\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
    ];
    for fields in both {
        let sent = shape("1.1", &format!("connection: close\r\n{fields}"), "5\r\nwhole\r\n0\r\n\r\n");
        assert_eq!(statuses(&answers(&home, sent.as_bytes())), ["201"], "{fields}");
    }
    assert_eq!(blobs(&home), ["whole", "whole"]);
    let opened = home.records().iter().filter(|record| record["action"] == "open").count();
    assert_eq!(opened, 2, "nothing was opened but by this test");
    daemon.signal("TERM");
    assert_eq!(daemon.ended(), Some(0));
}
