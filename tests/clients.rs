//! The daemon, asked by public clients and judged by public tools: httpx and requests with client
//! certificates, people with tokens of a real OpenID Connect issuer, a validator of
//! OpenAPI documents, and a property-based tester of APIs.
//!
//! They come from PyPI, pinned by `tests/clients/requirements.txt`.
#![cfg(feature = "daemon")]

#[path = "common/daemon.rs"]
mod home;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use home::Home;

fn script(name: &str) -> Command {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut command = Command::new("bash");
    command.arg(tests.join("python")).arg(tests.join("clients/requirements.txt"));
    command.arg(tests.join("clients").join(name));
    command
}

/// Whether a script ran. It did not where there is no Python or no PyPI, which it says; in CI it
/// has to.
fn ran(status: ExitStatus, said: &str) -> bool {
    if status.code() != Some(69) {
        return true;
    }
    let required = std::env::var_os("STRONGROOM_TEST_REQUIRE_CLIENTS").is_some_and(|value| value == "1");
    assert!(!required, "no public clients, and STRONGROOM_TEST_REQUIRE_CLIENTS=1: {said}");
    eprintln!("NOT RUN: public clients of the daemon: {said}");
    false
}

#[test]
fn people_log_in_at_an_issuer_and_programs_show_certificates() {
    let home = Home::new();
    let mut command = script("flow.py");
    command.current_dir(home.dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut flow = command.spawn().unwrap();
    let mut stderr = flow.stderr.take().unwrap();
    let hears = std::thread::spawn(move || {
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        said
    });
    let mut issuer = String::new();
    BufReader::new(flow.stdout.take().unwrap()).read_line(&mut issuer).unwrap();
    let issuer = issuer.trim();
    if issuer.is_empty() {
        let status = flow.wait().unwrap();
        let said = hears.join().unwrap();
        assert!(!ran(status, &said), "{said}");
        return;
    }
    let person = |subject: &str, roles: &str| {
        format!(
            "[[principal]]\nid = \"person:{subject}\"\nroles = [{roles}]\ncustomers = \"all\"\nphi = true\n\
             trained_until = \"9999-12-31\"\ntoken = [{{ issuer = \"{issuer}\", subject = \"{subject}\" }}]\n"
        )
    };
    let principals = fs::read_to_string(home.path("principals.toml")).unwrap();
    let people = [principals, person("p-17", "\"privacy-officer\""), person("p-18", "\"privacy-officer\"")];
    home.write("principals.toml", &people.join("\n"));
    let daemon = fs::read_to_string(home.path("daemon.toml")).unwrap();
    let accepted = format!(
        "[[issuer]]\nissuer = \"{issuer}\"\naudience = \"strongroom\"\nmfa = {{ amr = [\"mfa\"] }}\n"
    );
    home.write("daemon.toml", &format!("{daemon}{accepted}"));
    let daemon = home.serve();
    writeln!(flow.stdin.take().unwrap(), "{} {}", daemon.url, home.blobs()).unwrap();
    let status = flow.wait().unwrap();
    assert!(status.success(), "{}", hears.join().unwrap());
    // Each attempt with another's token is on record, as somebody who is not known.
    let denied = home.records().into_iter().filter(|record| record["outcome"]["result"] == "denied");
    assert!(denied.filter(|record| record["principal"] == "service:unknown").count() >= 16);
}

#[test]
fn the_daemon_answers_as_its_document_says() {
    let home = Home::new();
    let mut principals = fs::read_to_string(home.path("principals.toml")).unwrap();
    // Everything that there is to be asked for, by three who may ask for it.
    for (name, roles) in [
        ("everybody", "\"writer\", \"reader\", \"backup-job\", \"operator\""),
        ("officer", "\"writer\", \"privacy-officer\", \"operator\""),
        ("admin", "\"writer\", \"key-administrator\", \"operator\""),
    ] {
        principals.push_str(&format!(
            "[[principal]]\nid = \"service:{name}\"\nroles = [{roles}]\ncustomers = \"all\"\nphi = true\n\
             trained_until = \"9999-12-31\"\ncertificate = [\"spiffe://clinic/{name}\"]\n"
        ));
    }
    home.write("principals.toml", &principals);
    // It opens a connection for every operation, and closes none before the end.
    let daemon = fs::read_to_string(home.path("daemon.toml")).unwrap();
    home.write("daemon.toml", &daemon.replace("[limits]", "[limits]\nconnections_per_peer = 512"));
    let daemon = home.serve();
    fs::write(home.path("dump"), b"a blob").unwrap();
    let blob = home.seal(&daemon, "portal", "dump");
    let mut command = script("openapi.py");
    command.current_dir(home.dir.path()).args([&daemon.url, &home.customer, &blob]);
    let output = command.args(["everybody", "officer", "admin"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if ran(output.status, &said) {
        assert!(output.status.success(), "{said}");
    }
    assert_eq!(home.answer(&daemon, "portal", "/v1/ready", &[]).0, 200, "it is alive");
    home.run(&["audit", "verify"]);
}
