//! A daemon as it is run, `strongroom serve`, with a store, certificates and what else it
//! needs: what the tests share that ask it with other people's clients.
//!
//! Use it with `#[path = "common/daemon.rs"] mod home;`.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::Value;

pub const PRINCIPALS: &str = r#"
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

/// Who has a certificate. The first two are in the mapping, the stranger never is.
pub const CLIENTS: [&str; 6] = ["portal", "backup", "stranger", "everybody", "officer", "admin"];

/// A store with the customer `acme`, a CA, and what a daemon needs.
pub struct Home {
    pub dir: tempfile::TempDir,
    pub customer: String,
}

pub struct Daemon {
    pub child: Child,
    pub url: String,
}

impl Home {
    pub fn new() -> Self {
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
             [tasks]\nsweep_seconds = 0\npublish_seconds = 0\nmaintain_seconds = 0\n",
        );
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(0o600)).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.env_clear().env("HOME", self.dir.path()).env("XDG_DATA_HOME", self.path("data"));
        command.current_dir(self.dir.path()).stdin(Stdio::null()).args(args);
        command
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// A CA, the server's certificate, and those of the [clients](CLIENTS).
    pub fn certificates(&self) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the CA of a test");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        self.write("ca.pem", &ca.pem());
        let client = |name: &str| {
            let uri = SanType::URI(format!("spiffe://clinic/{name}").as_str().try_into().unwrap());
            (name.to_owned(), uri, ExtendedKeyUsagePurpose::ClientAuth)
        };
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        let server = ("server".to_owned(), address, ExtendedKeyUsagePurpose::ServerAuth);
        for (name, san, usage) in [server].into_iter().chain(CLIENTS.map(client)) {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![san];
            params.distinguished_name.push(DnType::CommonName, &name);
            params.extended_key_usages = vec![usage];
            params.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate().unwrap();
            self.write(&format!("{name}.pem"), &params.signed_by(&key, &ca).unwrap().pem());
            self.write(&format!("{name}.key"), &key.serialize_pem());
        }
    }

    /// A daemon that answers.
    pub fn serve(&self) -> Daemon {
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

    pub fn blobs(&self) -> String {
        format!("/v1/customers/{}/blobs", self.customer)
    }

    /// curl with the certificate of `who`, or on the socket.
    pub fn curl(&self, daemon: &Daemon, who: &str, path: &str, more: &[&str]) -> Command {
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

    pub fn answer(&self, daemon: &Daemon, who: &str, path: &str, more: &[&str]) -> (u16, Vec<u8>) {
        let told = [more, &["-w", "\n%{http_code}"]].concat();
        let output = self.curl(daemon, who, path, &told).output().unwrap();
        let at = output.stdout.iter().rposition(|byte| *byte == b'\n').unwrap();
        let code = std::str::from_utf8(&output.stdout[at + 1..]).unwrap().parse().unwrap();
        (code, output.stdout[..at].to_vec())
    }

    /// Seals what is in a file, as a pipe, and gives the blob's id.
    pub fn seal(&self, daemon: &Daemon, who: &str, file: &str) -> String {
        let mut curl = self.curl(daemon, who, &self.blobs(), &["-f", "-X", "POST", "-T", "-"]);
        let output = curl.stdin(fs::File::open(self.path(file)).unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        json(&output)["blob"].as_str().unwrap().to_owned()
    }

    pub fn listed(&self) -> BTreeSet<String> {
        let output = self.run(&["ls", "--customer", "acme", "--ids"]);
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    pub fn records(&self) -> Vec<Value> {
        let output = self.run(&["--json", "audit", "query", "--limit", "1000"]);
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Daemon {
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub fn ended(mut self) -> Option<i32> {
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

pub fn rustix_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    tempfile::tempdir().unwrap().path().metadata().unwrap().uid()
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251).to_le_bytes()[0]).collect()
}

/// Whether other people's clients are here. In CI they have to be.
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        let required = std::env::var_os("STRONGROOM_TEST_REQUIRE_CLIENTS").is_some_and(|value| value == "1");
        assert!(!required, "there is no {program}, and STRONGROOM_TEST_REQUIRE_CLIENTS=1");
        eprintln!("NOT RUN: there is no {program} to ask the daemon with");
    }
    found
}

pub fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}
