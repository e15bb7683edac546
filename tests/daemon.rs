//! The daemon as it is run, `strongroom serve`, and asked by other people's clients: curl over
//! TLS with client certificates and over the Unix socket, and Python's own HTTP and TLS.
#![cfg(feature = "daemon")]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::Value;

const PRINCIPALS: &str = r#"
[[principal]]
id = "service:portal"
roles = ["writer", "reader"]
customers = "all"
phi = true
trained_until = "9999-12-31"
certificate = ["spiffe://clinic/portal"]

[[principal]]
id = "service:backup"
roles = ["backup-job"]
customers = "all"
phi = true
trained_until = "9999-12-31"
certificate = ["spiffe://clinic/backup"]
"#;

/// A store with the customer `acme`, a CA, and what a daemon needs.
struct Home {
    dir: tempfile::TempDir,
    customer: String,
}

struct Daemon {
    child: Child,
    url: String,
}

impl Home {
    fn new() -> Self {
        let mut home = Self { dir: tempfile::tempdir().unwrap(), customer: String::new() };
        home.run(&["init", "-q"]);
        home.run(&["customer", "add", "acme", "--kms", "local", "-q"]);
        let shown = home.run(&["--json", "customer", "show", "acme"]);
        home.customer = json(&shown)["customer"].as_str().unwrap().to_owned();
        home.certificates();
        let uid = rustix_uid();
        let by_socket = format!(
            "{PRINCIPALS}\n[[principal]]\nid = \"unix:{uid}\"\nroles = [\"writer\", \"reader\"]\ncustomers = \"all\"\n\
             phi = true\ntrained_until = \"9999-12-31\"\nuid = [{uid}]\n"
        );
        home.write("principals.toml", &by_socket);
        home.write(
            "daemon.toml",
            "principals = \"principals.toml\"\n[listen]\ntls = \"127.0.0.1:0\"\ncertificate = \"server.pem\"\n\
             key = \"server.key\"\nclient_ca = \"ca.pem\"\nunix = \"socket\"\n[limits]\ndrain_seconds = 20\n\
             [tasks]\nsweep_seconds = 0\nmaintain_seconds = 0\n",
        );
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.env_clear().env("HOME", self.dir.path()).env("XDG_DATA_HOME", self.path("data"));
        command.current_dir(self.dir.path()).stdin(Stdio::null()).args(args);
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// A CA, the server's certificate, and those of two services and of a stranger.
    fn certificates(&self) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the CA of a test");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        self.write("ca.pem", &ca.pem());
        let uri = |name: &str| SanType::URI(name.try_into().unwrap());
        for (name, san, usage) in [
            ("server", SanType::IpAddress([127, 0, 0, 1].into()), ExtendedKeyUsagePurpose::ServerAuth),
            ("portal", uri("spiffe://clinic/portal"), ExtendedKeyUsagePurpose::ClientAuth),
            ("backup", uri("spiffe://clinic/backup"), ExtendedKeyUsagePurpose::ClientAuth),
            ("stranger", uri("spiffe://clinic/stranger"), ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![san];
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![usage];
            params.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate().unwrap();
            self.write(&format!("{name}.pem"), &params.signed_by(&key, &ca).unwrap().pem());
            self.write(&format!("{name}.key"), &key.serialize_pem());
        }
    }

    /// A daemon that answers.
    fn serve(&self) -> Daemon {
        let mut command = self.command(&["serve", "--config", "daemon.toml"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line
            .trim()
            .strip_prefix("listening at ")
            .unwrap_or_else(|| panic!("it said {line:?}"))
            .to_owned();
        Daemon { child, url }
    }

    fn blobs(&self) -> String {
        format!("/v1/customers/{}/blobs", self.customer)
    }

    /// curl with the certificate of `who`, or on the socket.
    fn curl(&self, daemon: &Daemon, who: &str, path: &str, more: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command.current_dir(self.dir.path()).args(["-sS", "--max-time", "60"]).args(more);
        match who {
            "socket" => command.args(["--unix-socket", "socket", &format!("http://localhost{path}")]),
            who => command.args([
                "--cacert",
                "ca.pem",
                "--cert",
                &format!("{who}.pem"),
                "--key",
                &format!("{who}.key"),
                &format!("{}{path}", daemon.url),
            ]),
        };
        command.stdin(Stdio::null());
        command
    }

    fn answer(&self, daemon: &Daemon, who: &str, path: &str, more: &[&str]) -> (u16, Vec<u8>) {
        let told = [more, &["-w", "\n%{http_code}"]].concat();
        let output = self.curl(daemon, who, path, &told).output().unwrap();
        let at = output.stdout.iter().rposition(|byte| *byte == b'\n').unwrap();
        let code = std::str::from_utf8(&output.stdout[at + 1..]).unwrap().parse().unwrap();
        (code, output.stdout[..at].to_vec())
    }

    /// Seals what is in a file, as a pipe, and gives the blob's id.
    fn seal(&self, daemon: &Daemon, who: &str, file: &str) -> String {
        let mut curl = self.curl(daemon, who, &self.blobs(), &["-f", "-X", "POST", "-T", "-"]);
        let output = curl.stdin(fs::File::open(self.path(file)).unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        json(&output)["blob"].as_str().unwrap().to_owned()
    }

    fn listed(&self) -> BTreeSet<String> {
        let output = self.run(&["ls", "--customer", "acme", "--ids"]);
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    fn records(&self) -> Vec<Value> {
        let output = self.run(&["--json", "audit", "query", "--limit", "1000"]);
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Daemon {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn ended(mut self) -> Option<i32> {
        let code = self.child.wait().unwrap().code();
        // Nothing is left for `drop` to end.
        code
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rustix_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    tempfile::tempdir().unwrap().path().metadata().unwrap().uid()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251).to_le_bytes()[0]).collect()
}

/// Whether other people's clients are here. In CI they have to be.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        let required = std::env::var_os("STRONGROOM_TEST_REQUIRE_CLIENTS").is_some_and(|value| value == "1");
        assert!(!required, "there is no {program}, and STRONGROOM_TEST_REQUIRE_CLIENTS=1");
        eprintln!("NOT RUN: there is no {program} to ask the daemon with");
    }
    found
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_backup_goes_in_over_tls_and_the_socket_and_comes_out_identical() {
    if !has("curl") {
        return;
    }
    let home = Home::new();
    let daemon = home.serve();
    fs::write(home.path("dump"), pattern(20_000_000)).unwrap();
    for who in ["portal", "socket"] {
        let blob = home.seal(&daemon, who, "dump");
        let path = format!("{}/{blob}", home.blobs());
        let (code, got) = home.answer(&daemon, who, &path, &[]);
        assert!(code == 200 && got == pattern(20_000_000), "{who}: {code}");
        for version in ["--http1.1", "--http2"] {
            let (code, part) = home.answer(&daemon, "portal", &path, &[version, "-r", "16380-16390"]);
            assert!(code == 206 && part == pattern(16_391)[16_380..], "{version}: {code}");
        }
        // What the command line opens is the same.
        home.run(&["get", "--customer", "acme", &blob, "-o", "copy"]);
        assert_eq!(fs::read(home.path("copy")).unwrap(), pattern(20_000_000));
        fs::remove_file(home.path("copy")).unwrap();
    }
    // Who puts backups in does not take them out, and that is on record.
    let blob = home.seal(&daemon, "backup", "dump");
    assert_eq!(home.answer(&daemon, "backup", &format!("{}/{blob}", home.blobs()), &[]).0, 403);
    let denied = home.records().into_iter().find(|record| record["outcome"]["result"] == "denied").unwrap();
    assert_eq!((&denied["principal"], &denied["rule"]), (&"service:backup".into(), &"deny.role".into()));
    assert_eq!((&denied["action"], &denied["blob"]), (&"open".into(), &blob.into()));
    assert_eq!(denied["origin"]["address"], "127.0.0.1");
    daemon.signal("TERM");
    assert_eq!(daemon.ended(), Some(0));
    home.run(&["audit", "verify"]);
}

#[test]
fn an_upload_that_is_killed_half_way_leaves_nothing() {
    if !has("curl") {
        return;
    }
    let home = Home::new();
    let daemon = home.serve();
    for who in ["portal", "socket"] {
        let mut curl = home.curl(&daemon, who, &home.blobs(), &["-X", "POST", "-T", "-"]);
        let mut child =
            curl.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(&pattern(3_000_000)).unwrap();
        let before = home.records().len();
        until("the upload has begun", || {
            home.records().iter().any(|record| record["action"] == "seal" && record["outcome"].is_null())
        });
        child.kill().unwrap();
        child.wait().unwrap();
        until("it is on record how it ended", || {
            let records = home.records();
            records.len() >= before
                && records
                    .iter()
                    .filter(|record| record["action"] == "seal")
                    .all(|record| !record["outcome"].is_null())
        });
    }
    assert!(
        home.records()
            .iter()
            .filter(|record| record["action"] == "seal")
            .all(|record| record["outcome"]["result"] != "ok")
    );
    assert!(home.listed().is_empty());
}

#[test]
fn who_is_not_known_is_not_let_in() {
    if !has("curl") {
        return;
    }
    let home = Home::new();
    let daemon = home.serve();
    // Of the CA, and nobody's.
    assert_eq!(home.answer(&daemon, "stranger", &home.blobs(), &[]).0, 401);
    let refused = home.records().into_iter().find(|record| record["outcome"]["result"] == "denied").unwrap();
    assert_eq!(refused["principal"], "service:unknown");
    // Of another CA, or of none: no request gets in.
    let other = Home::new();
    for name in ["portal.pem", "portal.key"] {
        fs::copy(other.path(name), home.path(&format!("other-{name}"))).unwrap();
    }
    fs::rename(home.path("other-portal.pem"), home.path("other.pem")).unwrap();
    fs::rename(home.path("other-portal.key"), home.path("other.key")).unwrap();
    assert!(!home.curl(&daemon, "other", "/v1/health", &[]).output().unwrap().status.success());
    let bare = ["-sS", "--cacert", "ca.pem", &format!("{}/v1/health", daemon.url)];
    assert!(!Command::new("curl").current_dir(home.dir.path()).args(bare).output().unwrap().status.success());
    let plain = daemon.url.replace("https", "http");
    assert!(
        !Command::new("curl").args(["-sS", &format!("{plain}/v1/health")]).output().unwrap().status.success()
    );
    // Whatever a token says, nobody here believes in tokens.
    let token = "Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.";
    assert_eq!(home.answer(&daemon, "portal", &home.blobs(), &["-H", token]).0, 401);
    assert_eq!(home.answer(&daemon, "portal", &home.blobs(), &["-H", "Authorization: Basic eDp4"]).0, 401);

    // Taken out of the directory, from the next request on.
    assert_eq!(home.answer(&daemon, "portal", &home.blobs(), &[]).0, 200);
    let text = fs::read_to_string(home.path("principals.toml")).unwrap();
    home.write("principals.toml", "this is no mapping");
    daemon.signal("HUP");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(
        home.answer(&daemon, "portal", &home.blobs(), &[]).0,
        200,
        "what cannot be read changes nothing"
    );
    home.write("principals.toml", &text.replace("spiffe://clinic/portal", "spiffe://clinic/nobody"));
    daemon.signal("HUP");
    until("the portal is out", || home.answer(&daemon, "portal", &home.blobs(), &[]).0 == 401);
    assert_eq!(home.answer(&daemon, "backup", &home.blobs(), &[]).0, 200);
}

#[test]
fn what_was_acknowledged_outlives_the_end_of_the_process() {
    if !has("curl") {
        return;
    }
    let home = Home::new();
    fs::write(home.path("dump"), pattern(200_000)).unwrap();
    let mut acknowledged = BTreeSet::new();
    for _ in 0..3 {
        let daemon = home.serve();
        let sealed: Vec<Option<String>> = thread::scope(|scope| {
            let jobs: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut sealed = Vec::new();
                        for _ in 0..20 {
                            let mut curl =
                                home.curl(&daemon, "portal", &home.blobs(), &["-f", "-X", "POST", "-T", "-"]);
                            let output =
                                curl.stdin(fs::File::open(home.path("dump")).unwrap()).output().unwrap();
                            let blob = output
                                .status
                                .success()
                                .then(|| json(&output)["blob"].as_str().unwrap().to_owned());
                            sealed.push(blob);
                        }
                        sealed
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(700));
            daemon.signal("KILL");
            jobs.into_iter().flat_map(|job| job.join().unwrap()).collect()
        });
        assert!(sealed.iter().any(Option::is_none), "it ended under load");
        acknowledged.extend(sealed.into_iter().flatten());
    }
    assert!(!acknowledged.is_empty());
    let daemon = home.serve();
    let listed = home.listed();
    assert!(acknowledged.is_subset(&listed));
    // Whole or not there: what was stored and not acknowledged opens too.
    for blob in &listed {
        let (code, got) = home.answer(&daemon, "portal", &format!("{}/{blob}", home.blobs()), &[]);
        assert!(code == 200 && got == pattern(200_000), "{blob}: {code}");
    }
    drop(daemon);
    home.run(&["audit", "verify"]);
}

#[test]
fn what_is_under_way_is_finished_when_it_ends() {
    if !has("curl") {
        return;
    }
    let home = Home::new();
    let daemon = home.serve();
    let mut curl = home.curl(&daemon, "portal", &home.blobs(), &["-f", "-X", "POST", "-T", "-"]);
    let mut child = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(&pattern(1_000_000)).unwrap();
    until("the upload has begun", || home.records().iter().any(|record| record["action"] == "seal"));
    daemon.signal("TERM");
    thread::sleep(Duration::from_millis(300));
    assert!(
        !home.curl(&daemon, "portal", "/v1/health", &[]).output().unwrap().status.success(),
        "nothing more is accepted"
    );
    child.stdin.take().unwrap().write_all(&pattern(1_000_000)).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(json(&output)["bytes"], 2_000_000);
    assert_eq!(daemon.ended(), Some(0));
}

#[test]
fn pythons_own_client_is_answered() {
    if !has("curl") || !has("python3") {
        return;
    }
    let home = Home::new();
    let daemon = home.serve();
    fs::write(home.path("dump"), pattern(300_000)).unwrap();
    let script = r#"
import http.client, json, ssl, sys
host, port, base = sys.argv[1], int(sys.argv[2]), sys.argv[3]
context = ssl.create_default_context(cafile="ca.pem")
context.load_cert_chain("portal.pem", "portal.key")
connection = http.client.HTTPSConnection(host, port, context=context)
def ask(method, path, body=None, headers={}):
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    return response.status, response.headers, response.read()
data = open("dump", "rb").read()
def pieces():
    for at in range(0, len(data), 7001):
        yield data[at:at + 7001]
status, headers, body = ask("POST", base, pieces(), {"Strongroom-Name": "scans%2F%C3%A4", "Strongroom-Meta": "ward=7"})
assert status == 201, (status, body)
blob = json.loads(body)["blob"]
assert headers["Location"] == base + "/" + blob
status, headers, body = ask("GET", base + "/" + blob)
assert status == 200 and body == data
assert headers["Strongroom-Name"] == "scans/%C3%A4" and headers["Strongroom-Meta"] == "ward=7"
status, headers, body = ask("HEAD", base + "/" + blob)
assert status == 200 and headers["Content-Length"] == str(len(data)) and body == b""
status, headers, body = ask("GET", base + "/" + blob, None, {"If-None-Match": headers["ETag"]})
assert status == 304
status, headers, body = ask("POST", base + "/find", json.dumps({"name": "scans/\u00e4"}), {"Content-Type": "application/json"})
assert status == 200 and json.loads(body)["blobs"][0]["blob"] == blob, body
status, headers, body = ask("GET", base + "/nothing")
assert status == 404 and headers["Content-Type"] == "application/problem+json"
status, headers, body = ask("GET", "/v1/openapi.json")
assert json.loads(body)["openapi"] == "3.1.0"
"#;
    let (host, port) = daemon.url.strip_prefix("https://").unwrap().split_once(':').unwrap();
    let ran = Command::new("python3")
        .current_dir(home.dir.path())
        .args(["-c", script, host, port, &home.blobs()])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn the_configuration_is_checked_before_anything_is_done() {
    let home = Home::new();
    let check =
        |home: &Home| home.command(&["serve", "--config", "daemon.toml", "--check"]).output().unwrap();
    assert!(check(&home).status.success());
    let good = fs::read_to_string(home.path("daemon.toml")).unwrap();
    let loose =
        |home: &Home| fs::set_permissions(home.path("server.key"), Permissions::from_mode(0o644)).unwrap();
    type Spoil<'a> = (&'a str, &'a dyn Fn(&Home));
    let cases: [Spoil<'_>; 6] = [
        ("line 1", &|home| home.write("daemon.toml", &format!("Jane = 1\n{good}"))),
        ("line 3", &|home| {
            home.write("daemon.toml", &good.replace("tls = \"127.0.0.1:0\"", "tls = \"Jane\""))
        }),
        ("line 2", &|home| home.write("principals.toml", "[[principal]]\nJane = 1\n")),
        ("", &|home| home.write("ca.pem", "this is no certificate")),
        ("", &loose),
        ("cannot be read", &|home| fs::remove_file(home.path("principals.toml")).unwrap()),
    ];
    for (says, spoil) in cases {
        let home = Home::new();
        spoil(&home);
        let output = check(&home);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(told.contains(says) && !told.contains("Jane"), "{told}");
    }
    assert!(Path::new(&home.path("daemon.toml")).exists());
}

#[test]
fn the_policy_is_asked_without_a_daemon() {
    let home = Home::new();
    let ask = |more: &[&str]| {
        let args =
            [&["access", "test", "--principals", "principals.toml", "--customer", &home.customer], more]
                .concat();
        let output = home.command(&args).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let portal = ["--who", "service:portal", "--do", "open"];
    assert_eq!(ask(&portal), (0, "allowed by role.reader\n".to_owned()));
    assert_eq!(ask(&["--who", "service:backup", "--do", "open"]), (77, "denied by deny.role\n".to_owned()));
    let later = [&portal[..], &["--customer-tenancy"]].concat();
    assert_eq!(ask(&later), (77, "denied by deny.session\n".to_owned()));
    assert_eq!(ask(&[&later[..], &["--in-session"]].concat()).0, 0);
    assert_eq!(ask(&["--who", "service:nobody", "--do", "open"]).0, 66);
    let roles = home.run(&["access", "roles"]);
    let manual = include_str!("../src/manual/access.md");
    assert!(manual.contains(&String::from_utf8(roles.stdout).unwrap()));
}

/// systemd's own judgement of the unit, where the tool is at hand.
#[test]
fn the_unit_is_hardened() {
    if !Command::new("systemd-analyze").arg("--version").output().is_ok_and(|output| output.status.success())
    {
        eprintln!("NOT RUN: there is no systemd-analyze to judge the unit with");
        return;
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/strongroom.service");
    let output =
        Command::new("systemd-analyze").args(["security", "--offline=true"]).arg(unit).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let level = told.lines().find_map(|line| line.split_once("exposure level for strongroom.service: "));
    let level: f64 = level.unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert!(level <= 1.5, "{told}");
}
