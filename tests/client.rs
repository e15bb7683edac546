//! The command line as the daemon's client: the daemon as it is run, asked over TLS with client
//! certificates and over its Unix socket, and the same commands run on a store beside it.
#![cfg(feature = "daemon")]

#[path = "client/audit.rs"]
mod audit;
#[path = "client/customers.rs"]
mod customers;
#[path = "client/restore.rs"]
mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::Value;
use strongroom::tlog::VerifierKey;

const MIB: usize = 1 << 20;

/// The most that a client may hold, whatever it sends: a debug build with TLS, and its pieces.
const MEMORY: u64 = 96 * MIB as u64;

/// Who asks, and their roles. Separated duties take several.
const WHO: [(&str, &str); 7] = [
    ("service:portal", r#""writer", "reader", "operator""#),
    ("service:backup", r#""backup-job""#),
    ("service:admin", r#""key-administrator", "writer", "operator""#),
    ("service:privacy", r#""privacy-officer""#),
    ("service:auditor", r#""auditor""#),
    ("person:doctor", r#""reader""#),
    ("person:officer", r#""privacy-officer""#),
];

/// The name of the certificate of one of them.
fn short(principal: &str) -> &str {
    principal.split_once(':').unwrap().1
}

/// A directory with a store, a CA, certificates, and the keys of two people.
struct Home {
    dir: tempfile::TempDir,
    /// The public keys of the two.
    people: Vec<String>,
}

struct Daemon {
    child: Child,
    url: String,
}

impl Home {
    fn new() -> Self {
        let mut home = Self { dir: tempfile::tempdir().unwrap(), people: Vec::new() };
        for name in ["anna", "bob"] {
            let output =
                home.run(&["--principal", &format!("person:{name}"), "person", "keygen", "-o", name]);
            home.people.push(output.out.trim().to_owned());
        }
        home.run(&["init", "-q", "--person", &home.people[0], "--person", &home.people[1]]).is(0);
        home.run(&["customer", "add", "acme", "--kms", "local", "-q"]).is(0);
        home.certificates();
        home.principals(r#""all""#);
        home.write(
            "daemon.toml",
            "principals = \"principals.toml\"\n[listen]\ntls = \"127.0.0.1:0\"\ncertificate = \"server.pem\"\n\
             key = \"server.key\"\nclient_ca = \"ca.pem\"\nunix = \"socket\"\n[limits]\ndrain_seconds = 20\n\
             [tasks]\nsweep_seconds = 0\nmaintain_seconds = 0\n",
        );
        home
    }

    /// Who may do what, for these customers.
    fn principals(&self, customers: &str) {
        let uid = self.dir.path().metadata().unwrap().uid();
        let mut text = String::new();
        let common = "phi = true\ntrained_until = \"9999-12-31\"";
        for (id, roles) in WHO {
            let name = short(id);
            let factor = if id.starts_with("person:") { "factor = \"smart-card\"\n" } else { "" };
            text.push_str(&format!(
                "[[principal]]\nid = \"{id}\"\nroles = [{roles}]\ncustomers = {customers}\n{common}\n\
                 certificate = [\"spiffe://clinic/{name}\"]\n{factor}\n"
            ));
        }
        text.push_str(&format!(
            "[[principal]]\nid = \"unix:{uid}\"\nroles = [\"writer\", \"reader\"]\ncustomers = {customers}\n\
             {common}\nuid = [{uid}]\n"
        ));
        self.write("principals.toml", &text);
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

    /// The same, asked of a daemon, by the certificate of `who` or on the socket.
    fn asking(&self, daemon: &str, who: &str, args: &[&str]) -> Command {
        let mut command = self.command(args);
        match who {
            "socket" => command.env("STRONGROOM_DAEMON", "unix:socket"),
            who => command
                .env("STRONGROOM_DAEMON", daemon)
                .env("STRONGROOM_CLIENT_CERTIFICATE", format!("{who}.pem"))
                .env("STRONGROOM_CLIENT_KEY", format!("{who}.key"))
                .env("STRONGROOM_CA", "ca.pem"),
        };
        // Whatever is needed of a store is not there.
        command.env_remove("HOME").env_remove("XDG_DATA_HOME");
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    #[track_caller]
    fn ask(&self, daemon: &Daemon, who: &str, args: &[&str]) -> Ran {
        Ran::of(self.asking(&daemon.url, who, args).output().unwrap())
    }

    /// A CA, the server's certificate, and those of the services.
    fn certificates(&self) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the CA of a test");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        self.write("ca.pem", &ca.pem());
        let uri = |name: &str| SanType::URI(format!("spiffe://clinic/{name}").try_into().unwrap());
        let server = SanType::IpAddress([127, 0, 0, 1].into());
        let mut all = vec![("server", server, ExtendedKeyUsagePurpose::ServerAuth)];
        let clients = WHO.map(|(id, _)| short(id)).into_iter().chain(["stranger"]);
        all.extend(clients.map(|name| (name, uri(name), ExtendedKeyUsagePurpose::ClientAuth)));
        for (name, san, usage) in all {
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
        let url = line.trim().strip_prefix("listening at ").unwrap_or_else(|| panic!("it said {line:?}"));
        Daemon { child, url: url.to_owned() }
    }

    fn seals(&self) -> Vec<Value> {
        let ran = self.run(&["--json", "audit", "query", "--action", "seal", "--limit", "1000"]);
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn is_empty(&self) -> bool {
        self.run(&["ls", "--customer", "acme", "--ids"]).is(0).out.is_empty()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn address(&self) -> SocketAddr {
        self.url.strip_prefix("https://").unwrap().parse().unwrap()
    }
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    fn is(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(self, what: &str) -> Self {
        assert!(self.err.contains(what), "not {what:?}: {}", self.err);
        self
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251).to_le_bytes()[0]).collect()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Without what differs from one store to the next: ids, keys, hashes and times of day.
fn masked(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_word) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        let is_time = word.len() == 5
            && word.as_bytes()[2] == b'T'
            && rest.as_bytes().get(5) == Some(&b':')
            && word.bytes().filter(u8::is_ascii_digit).count() == 4;
        match word.len() {
            26 | 32 | 64 => out.push_str("ID"),
            5 if is_time => {
                let end = rest.find('Z').unwrap_or(5);
                out.push_str(&format!("{}TIME", &word[..2]));
                rest = &rest[end..];
                continue;
            }
            _ => out.push_str(word),
        }
        rest = &rest[word.len()..];
    }
    out.push_str(rest);
    // The daemon's name of the request, which a store does not have.
    let lines = out.lines().filter(|line| !line.starts_with("request: "));
    lines.collect::<Vec<_>>().join("\n")
}

/// What a restore told, without what cannot be the same: how long it took, where the log stood, and
/// who checked the bytes.
fn restored(text: &str) -> String {
    if let Ok(Value::Object(mut told)) = serde_json::from_str(text)
        && told.get("format").is_some_and(|format| format == "strongroom/restore/v1")
    {
        for differs in ["milliseconds", "log", "checked_by", "started", "finished"] {
            assert!(told.remove(differs).is_some(), "{differs}");
        }
        return Value::Object(told).to_string();
    }
    text.lines().filter(|line| !line.starts_with("checked  ")).collect::<Vec<_>>().join("\n")
}

/// The first word of a line of an earlier output, for a later command.
fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

/// All files below a directory, but what a restore keeps for its next run.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut directories) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            match path.is_dir() {
                true => directories.push(path),
                false => drop(found.insert(name, fs::read(path).unwrap())),
            }
        }
    }
    found.remove(".strongroom-restore");
    found
}

#[test]
fn a_daemon_answers_each_command_as_a_store_does() {
    let (here, there) = (Home::new(), Home::new());
    for home in [&here, &there] {
        fs::write(home.path("dump"), pattern(300_000)).unwrap();
        fs::write(home.path("empty"), "").unwrap();
    }
    let daemon = there.serve();
    // `<0>` is the first word that the command before the last `=0` has printed, in its own home.
    let mut words = [Vec::<String>::new(), Vec::new()];
    let acme = "--customer acme";
    let script: Vec<(&str, String)> = vec![
        ("admin", "customer add beta --kms local --retention P2Y --window P10D --strict --no-phi".into()),
        ("admin", "customer add beta --kms local".into()),
        ("admin", "customer list".into()),
        ("admin", "--json customer list".into()),
        ("admin", "customer show acme".into()),
        ("admin", "--json customer show beta".into()),
        ("admin", "customer set acme --suite chacha20-poly1305".into()),
        ("admin", "customer set acme --retention P1D".into()),
        ("admin", "customer show nobody".into()),
        (
            "portal",
            format!("put {acme} --name db/größe --content-type text/plain --meta ward=7 --meta a=%3D dump"),
        ),
        (
            "portal",
            format!("--json put {acme} --name db/größe --suite aes-256-gcm --retain-until 2099-01-01 empty"),
        ),
        ("portal", format!("put {acme} --expect-bytes 7 -")),
        ("portal", format!("put {acme} --exec -- sh -c printf%20x;exit%203")),
        ("portal", format!("put {acme} missing")),
        ("portal", format!("ls {acme} --name db/größe")),
        ("portal", format!("--json ls {acme} --name db/größe")),
        ("portal", format!("ls {acme}")),
        ("portal", format!("ls {acme} --name none")),
        ("portal", "ls --customer nobody".into()),
        ("portal", format!("stat {acme} --name db/größe --nth 2")),
        ("portal", format!("--json stat {acme} --name db/größe")),
        ("portal", format!("stat {acme} --name db/größe --nth 3")),
        ("portal", format!("stat {acme} 019mx0xqp7xz8cphp0tt9dmxsc")),
        ("portal", format!("get {acme} --name db/größe --nth 2 --range 5-9 -o -")),
        ("portal", format!("--json get {acme} --name db/größe --nth 2 --range -7 -o part")),
        ("portal", format!("get {acme} --name db/größe --nth 2 --range 300000- -o part2")),
        ("portal", format!("get {acme} --name db/größe -o got")),
        ("portal", format!("get {acme} --name db/größe -o got")),
        ("portal", format!("get {acme} --name none -o none")),
        ("portal", format!("verify {acme} --name db/größe")),
        ("portal", format!("--json verify {acme} --name db/größe")),
        ("portal", format!("verify {acme} --name none")),
        ("portal", format!("verify {acme} 019mx0xqp7xz8cphp0tt9dmxsc")),
        ("portal", format!("retention extend {acme} --name db/größe --nth 2 --until 2098-01-01")),
        ("portal", format!("--json retention extend {acme} --name db/größe --nth 2 --until 2097-01-01")),
        ("privacy", "retention show acme".into()),
        ("admin", "retention set acme --period P6Y".into()),
        ("admin", "retention set acme --period P1D".into()),
        ("privacy", "--json retention show acme".into()),
        ("privacy", format!("hold place {acme} --day 2099-01-01")),
        ("privacy", format!("--json hold place {acme} --blob <blob>")),
        ("privacy", format!("hold place {acme} --all=0")),
        ("privacy", format!("hold list {acme}")),
        ("privacy", format!("--json hold list {acme}")),
        ("privacy", format!("hold release {acme} <0> --sign-with anna")),
        ("privacy", format!("hold release {acme} 019mx0xqp7xz8cphp0tt9dmxsc --sign-with anna")),
        ("privacy", "order list".into()),
        ("privacy", "--json order list".into()),
        ("privacy", "order show <order>".into()),
        ("privacy", "--json order show <order>".into()),
        ("privacy", "order approve <order> --sign-with anna".into()),
        ("privacy", "order approve <order> --sign-with bob".into()),
        ("privacy", "--json order approve <order> --sign-with bob".into()),
        ("privacy", "order show 019mx0xqp7xz8cphp0tt9dmxsc".into()),
        ("privacy", format!("--json shred request {acme} --day 2098-01-01 --sign-with anna")),
        ("privacy", format!("shred plan {acme}")),
        ("privacy", format!("--json shred plan {acme}")),
        ("privacy", format!("shred status {acme}")),
        ("privacy", format!("--json shred status {acme}")),
        ("privacy", format!("shred cancel {acme} --day 2030-01-01")),
        ("admin", "shred run".into()),
        ("admin", "--json shred run".into()),
        ("auditor", "shred status".into()),
        ("auditor", "person list".into()),
        ("auditor", "--json person list".into()),
        ("auditor", "certificate list".into()),
        ("auditor", "--json certificate list --customer acme".into()),
        ("auditor", "certificate show 019mx0xqp7xz8cphp0tt9dmxsc".into()),
        ("admin", "customer add own --kms local --tenancy customer".into()),
        ("portal", "put --customer own --name n dump".into()),
        ("privacy", "session list --customer own".into()),
        ("privacy", "session open --customer own --idle 30m=0".into()),
        ("portal", "session list --customer own".into()),
        ("privacy", "--json session list --customer own".into()),
        ("portal", "--session <0> get --customer own --name n -o own-got".into()),
        ("portal", "--session <0> --json stat --customer own --name n".into()),
        ("privacy", "session end --customer own <0>".into()),
        ("privacy", "--json session end --customer own <0>".into()),
        ("portal", "--purpose TREAT session request --customer own --absolute 5m=0".into()),
        ("privacy", "session requests --customer own".into()),
        ("privacy", "--json session requests --customer own".into()),
        ("privacy", "session approve --customer own <0>".into()),
        ("privacy", "session approve --customer own <0>".into()),
        ("portal", "--purpose TREAT --session <0> verify --customer own --name n".into()),
        ("portal", "--session <0> verify --customer own --name n".into()),
        ("privacy", "session list --customer own".into()),
        ("privacy", "--json session open --customer own".into()),
        ("privacy", "session open --customer own --idle 2h --absolute 1h".into()),
        ("privacy", "session open --customer acme".into()),
        ("privacy", "session end --customer own 019mx0xqp7xz8cphp0tt9dmxsc".into()),
        ("privacy", "session approve --customer own 019mx0xqp7xz8cphp0tt9dmxsc".into()),
        ("privacy", "session list --customer nobody".into()),
        ("auditor", "emergency list --customer acme".into()),
        ("auditor", "--json emergency list --customer acme".into()),
        ("officer", "emergency review --customer acme 019mx0xqp7xz8cphp0tt9dmxsc".into()),
        ("auditor", "epoch status".into()),
        ("admin", "epoch rotate".into()),
        ("admin", "--json epoch rotate".into()),
        ("auditor", "--json epoch status".into()),
        ("portal", format!("restore {acme} --name-prefix db/ --latest --to back --dry-run")),
        ("portal", format!("restore {acme} --name-prefix db/ --latest --to back")),
        ("portal", format!("--json restore {acme} --to back --jobs 2")),
        ("portal", format!("--json restore {acme} --sealed-until 2026-01-01 --to back")),
        ("portal", "restore --customer beta --to back".into()),
        ("portal", format!("restore {acme} --to empty")),
        ("portal", "restore --customer nobody --to back".into()),
        ("admin", "rekey acme --status".into()),
        ("admin", "rekey acme --kms local".into()),
        ("admin", "--json rekey acme --kms local".into()),
        ("admin", "--json rekey acme --status".into()),
        ("admin", "rekey beta --kms local".into()),
        ("admin", "rekey acme --kms other".into()),
        ("portal", format!("verify {acme} --name db/größe")),
        ("privacy", "offboard status acme".into()),
        ("privacy", "offboard reopen acme".into()),
        ("privacy", "order request --sign-with anna offboard --customer beta --return nothing=0".into()),
        ("privacy", "order approve <0> --sign-with bob".into()),
        ("auditor", "--json offboard status beta".into()),
        ("privacy", "--json offboard reopen beta".into()),
        ("auditor", "offboard status beta".into()),
        ("auditor", "audit query --day 2001-01-01".into()),
        ("auditor", "audit tail -n 0".into()),
        ("auditor", "--json audit export --format jsonl --day 2001-01-01 -o nothing".into()),
        ("auditor", "audit export --format fhir --day 2001-01-01 -o nothing".into()),
        ("auditor", "audit export --format fhir --customer nobody".into()),
        ("auditor", "audit proof 7:0".into()),
        ("auditor", "audit proof 0:999999 --customer acme".into()),
        ("auditor", "audit proof 019mx0xqp7xz8cphp0tt9dmxsc".into()),
        ("auditor", "audit proof 0:0 --outcome".into()),
        ("auditor", "audit proof 0:0 -o nothing".into()),
        ("auditor", "audit view --customer nobody -o none".into()),
    ];
    for (who, line) in script {
        let mut texts = Vec::new();
        for (at, home) in [&here, &there].into_iter().enumerate() {
            let (line, keep) = match line.strip_suffix("=0") {
                Some(line) => (line, true),
                None => (line.as_str(), false),
            };
            let mut line = line.to_owned();
            if line.contains("<0>") {
                line = line.replace("<0>", words[at].last().unwrap());
            }
            if line.contains("<blob>") {
                let shown =
                    home.run(&["--json", "stat", "--customer", "acme", "--name", "db/größe", "--nth", "2"]);
                let shown: Value = serde_json::from_str(&shown.out).unwrap();
                line = line.replace("<blob>", shown["blob"].as_str().unwrap());
            }
            if line.contains("<order>") {
                let orders = home.run(&["--json", "order", "list"]).out;
                let order: Value = serde_json::from_str(orders.lines().next().unwrap()).unwrap();
                line = line.replace("<order>", order["order"].as_str().unwrap());
            }
            let args: Vec<String> = line.split(' ').map(|word| word.replace("%20", " ")).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let ran = match at {
                0 => {
                    // Where it is told who did something, it is the same one.
                    let principal = WHO.iter().find(|(id, _)| short(id) == who).unwrap().0;
                    let mut command = home.command(&args);
                    Ran::of(command.env("STRONGROOM_PRINCIPAL", principal).output().unwrap())
                }
                _ => home.ask(&daemon, who, &args),
            };
            if keep {
                words[at].push(first_word(&ran.out));
            }
            let shown = home.people.iter().fold(ran.out, |text, key| text.replace(key, "THEIR KEY"));
            let mut out = masked(&restored(&shown));
            if line.contains("hold list") || line.contains("shred ") {
                // By their ids, which nobody knows before.
                let mut parts: Vec<&str> =
                    out.split(['\n', '{', '}']).map(|part| part.trim_matches(',')).collect();
                parts.sort_unstable();
                out = parts.join("\n");
            }
            texts.push(format!("{:?}\n{}\n-- stderr\n{}", ran.code, out, masked(&ran.err)));
        }
        // Who may not be told whether there is such a customer is told so.
        let there = texts[1].replace("no customer of this label for you", "no customer of this label");
        assert_eq!(texts[0], there, "{line}\n(a store, then a daemon)");
    }
    assert_eq!(fs::read(there.path("part")).unwrap(), pattern(300_000)[299_993..]);
    for home in [&here, &there] {
        let files = files(&home.path("back"));
        let mut lengths: Vec<usize> = files.values().map(Vec::len).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [0, 300_000], "{:?}", files.keys());
    }
    assert_eq!(fs::read(there.path("got")).unwrap(), b"");
    assert_eq!(fs::read(there.path("own-got")).unwrap(), pattern(300_000));
    assert!(!there.path("part2").exists() && !there.path("none").exists());

    // What lists in no order, and what the log says of who asked.
    let ids = |ran: Ran| {
        let mut lines: Vec<String> = ran.is(0).out.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for more in [&["--ids"][..], &["--json"], &["--ids", "--json"]] {
        let args = [&["ls", "--customer", "acme"], more].concat();
        assert_eq!(ids(there.run(&args)), ids(there.ask(&daemon, "portal", &args)), "{more:?}");
    }
    let all = ["verify", "--customer", "acme", "--all"];
    assert_eq!(ids(there.run(&all)), ids(there.ask(&daemon, "portal", &all)));
    assert_eq!(ids(there.run(&all)), ids(there.ask(&daemon, "backup", &all)));
    let query = ["--json", "audit", "query", "--action", "seal", "--by", "service:portal"];
    let (store, asked) = (there.run(&query).is(0), there.ask(&daemon, "auditor", &query).is(0));
    assert_eq!(store.out, asked.out);
    let first: Value = serde_json::from_str(asked.out.lines().next().unwrap()).unwrap();
    assert_eq!((&first["purpose"], &first["rule"]), (&"HSYSADMIN".into(), &"role.writer".into()));
    let labelled = ["audit", "query", "--customer", "acme", "--action", "extend"];
    assert_eq!(there.run(&labelled).is(0).out, there.ask(&daemon, "auditor", &labelled).is(0).out);
    let paged = ["audit", "query", "--limit", "3"];
    there.ask(&daemon, "auditor", &paged).is(0).says("ask again with --after");
}

#[test]
fn a_list_longer_than_a_page_comes_whole() {
    let home = Home::new();
    let daemon = home.serve();
    fs::write(home.path("dump"), "x").unwrap();
    for _ in 0..5 {
        home.run(&["put", "--customer", "acme", "--name", "n", "dump"]).is(0);
    }
    let customer: Value =
        serde_json::from_str(&home.run(&["--json", "customer", "show", "acme"]).out).unwrap();
    let path = format!("/v1/customers/{}/blobs", customer["customer"].as_str().unwrap());
    // In pages of two, straight from the socket: nothing is left out, and nothing there twice.
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let mut stream = UnixStream::connect(home.path("socket")).unwrap();
        let get = format!(
            "GET {path}?ids=true&limit=2{after} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(get.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let page: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        seen.extend(
            page["blobs"].as_array().unwrap().iter().map(|row| row["blob"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let listed = home.ask(&daemon, "socket", &["ls", "--customer", "acme", "--ids"]).is(0).out;
    let listed: Vec<&str> = listed.lines().collect();
    assert_eq!((seen.len(), &seen), (5, &listed.iter().map(ToString::to_string).collect::<Vec<_>>()));
}

#[test]
fn a_dump_through_a_pipe_comes_out_identical() {
    let home = Home::new();
    let daemon = home.serve();
    let dump = pattern(20_000_000);
    for who in ["portal", "socket"] {
        let mut put =
            home.asking(&daemon.url, who, &["put", "--customer", "acme", "--name", "db/nightly", "-"]);
        let mut child = put.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        for piece in dump.chunks(77_777) {
            input.write_all(piece).unwrap();
        }
        drop(input);
        let blob = Ran::of(child.wait_with_output().unwrap()).is(0).out.trim().to_owned();
        home.ask(&daemon, who, &["get", "--customer", "acme", "--name", "db/nightly", "-o", "copy"]).is(0);
        assert!(fs::read(home.path("copy")).unwrap() == dump, "{who}");
        fs::remove_file(home.path("copy")).unwrap();
        let mut get = home.asking(&daemon.url, who, &["get", "--customer", "acme", &blob]);
        assert!(get.output().unwrap().stdout == dump, "{who}");
    }
}

/// The most memory that a process has held so far, in bytes.
fn most_memory(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn memory_does_not_grow_with_the_blob() {
    let home = Home::new();
    let daemon = home.serve();
    let (piece, count) = (pattern(MIB), 256);
    let mut put = home.asking(&daemon.url, "portal", &["put", "--customer", "acme", "-"]);
    let mut child = put.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for _ in 0..count {
        input.write_all(&piece).unwrap();
    }
    let most = most_memory(&child);
    assert!(most < MEMORY, "{} MiB to put {count} MiB", most / MIB as u64);
    drop(input);
    let blob = Ran::of(child.wait_with_output().unwrap()).is(0).out.trim().to_owned();
    let mut get = home.asking(&daemon.url, "portal", &["get", "--customer", "acme", &blob]);
    let mut child = get.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut got = vec![0; MIB];
    for at in 0..count {
        output.read_exact(&mut got).unwrap();
        assert!(got == piece, "{at}");
        if at == count - 1 {
            // It may be done, and gone, when its last bytes are in the pipe.
            break;
        }
        if at % 64 == 63 {
            thread::sleep(Duration::from_millis(50));
            let most = most_memory(&child);
            assert!(most < MEMORY, "{} MiB to get {at} MiB", most / MIB as u64);
        }
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_is_killed_or_fails_half_way_leaves_nothing() {
    let home = Home::new();
    let daemon = home.serve();
    let ended = |count: usize| {
        until("it is on record how it ended", || {
            let seals = home.seals();
            seals.len() >= count && seals.iter().all(|seal| !seal["outcome"].is_null())
        });
    };
    for (at, (who, signal)) in
        [("portal", "KILL"), ("socket", "KILL"), ("portal", "TERM")].into_iter().enumerate()
    {
        let mut put = home.asking(&daemon.url, who, &["put", "--customer", "acme", "--once", "nightly", "-"]);
        let mut child =
            put.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(&pattern(3_000_000)).unwrap();
        until("the upload has begun", || home.seals().len() > at);
        assert!(
            Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success()
        );
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert!(ran.code != Some(0) && ran.out.is_empty());
        if signal == "TERM" {
            ran.is(143).says("not stored");
        }
        ended(at + 1);
    }
    // The input fails: the last chunk is never sent.
    let exec = ["put", "--customer", "acme", "--exec", "--", "sh", "-c", "head -c 3000000 /dev/zero; exit 3"];
    home.ask(&daemon, "portal", &exec).is(74).says("the program failed (exit status: 3)");
    ended(4);
    // The daemon dies.
    let mut put = home.asking(&daemon.url, "portal", &["put", "--customer", "acme", "-"]);
    let mut child = put.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&pattern(3_000_000)).unwrap();
    until("the upload has begun", || home.seals().len() > 4);
    drop(daemon);
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.is(69).says("nothing was stored");
    drop(input);
    assert!(home.is_empty());
    assert!(home.seals().iter().all(|seal| seal["outcome"]["result"] != "ok"));
}

#[test]
fn an_early_answer_is_what_is_told_and_nothing_was_read() {
    let home = Home::new();
    let daemon = home.serve();
    // Who may not seal: nothing is taken out of the pipe, and nobody waits for its end.
    let mut put = home.asking(&daemon.url, "auditor", &["--json", "put", "--customer", "acme", "-"]);
    let mut child = put.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let input = child.stdin.take().unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap()).is(77);
    drop(input);
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    let error = &error["error"];
    assert_eq!((&error["kind"], &error["exit"]), (&"denied".into(), &77.into()));
    assert!(error["message"].as_str().unwrap().contains("(deny.role)"), "{error}");
    // The request is the one that is on record.
    let request = error["request"].as_str().unwrap().to_owned();
    assert_eq!(request.len(), 26);

    // One who answers in the middle, whatever is still being sent.
    let path = home.path("early");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream).unwrap();
        let found = r#"{"customer":"019mx0xqp7xz8cphp0tt9dmxsc"}"#;
        answer(&mut stream, "200 OK", "", found);
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream).unwrap();
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        stream.read_exact(&mut vec![0; 2 * MIB]).unwrap();
        let problem = r#"{"code":"unavailable","detail":"the storage is full","status":507}"#;
        answer(&mut stream, "507 Insufficient Storage", "", problem);
        thread::sleep(Duration::from_millis(200));
        let _ = stream.shutdown(Shutdown::Both);
    });
    let args = ["--daemon", "unix:early", "put", "--customer", "acme", "-"];
    let mut child = home
        .command(&args)
        .stdin(fs::File::open("/dev/zero").unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    daemon.join().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it waits for the end of what has none");
        thread::sleep(Duration::from_millis(20));
    }
    Ran::of(child.wait_with_output().unwrap()).is(69).says("strongroom: the storage is full\n");
}

/// Reads the head of a request; `None` if the client has gone before.
fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    stream.read_exact(&mut vec![0; length.unwrap_or(0)]).ok()?;
    Some(text)
}

fn answer(stream: &mut impl Write, status: &str, headers: &str, body: &str) {
    let head =
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).unwrap();
}

const CUSTOMER: &str = r#"{"customer":"019mx0xqp7xz8cphp0tt9dmxsc"}"#;
const BLOB: &str = "019mx0xqp7xz8cphp0tt9dmxsc";

/// A daemon of which each request is answered by `each`, told which one it is. A connection without one keeps
/// no other waiting.
fn scripted(
    path: &Path,
    each: impl Fn(usize, &str, &mut UnixStream) + Send + Sync + 'static,
) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(path).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let (counted, each) = (Arc::clone(&count), Arc::new(each));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (counted, each) = (Arc::clone(&counted), Arc::clone(&each));
            thread::spawn(move || {
                let Some(head) = read_head(&mut stream) else { return };
                each(counted.fetch_add(1, Ordering::SeqCst), &head, &mut stream);
            });
        }
    });
    count
}

#[test]
fn what_breaks_off_is_gone_on_with_and_never_taken_for_whole() {
    let home = Home::new();
    let bytes = pattern(100_000);
    let whole = bytes.clone();
    // Each answer breaks off further on, the last one comes to the end.
    scripted(&home.path("breaking"), move |_, head, stream| {
        if head.contains("/find") {
            return answer(stream, "200 OK", "", CUSTOMER);
        }
        let from =
            head.lines().find_map(|line| line.strip_prefix("range: bytes=")?.split_once('-')?.0.parse().ok());
        let from: usize = from.unwrap_or(0);
        let (status, range) = match from {
            0 => ("200 OK", String::new()),
            from => {
                assert!(head.contains(&format!("if-range: \"{BLOB}\"")), "{head}");
                ("206 Partial Content", format!("content-range: bytes {from}-99999/100000\r\n"))
            }
        };
        let length = whole.len() - from;
        let head =
            format!("HTTP/1.1 {status}\r\netag: \"{BLOB}\"\r\n{range}content-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&whole[from..(from + 30_000).min(whole.len())]).unwrap();
    });
    let args = ["--daemon", "unix:breaking", "get", "--customer", "acme", BLOB, "-o", "got"];
    home.run(&args).is(0);
    assert!(fs::read(home.path("got")).unwrap() == bytes);

    // One that never gets any further is given up, and leaves no file.
    let count = scripted(&home.path("stuck"), move |_, head, stream| {
        if head.contains("/find") {
            return answer(stream, "200 OK", "", CUSTOMER);
        }
        let status = if head.contains("\r\nrange:") { "503 Service Unavailable" } else { "200 OK" };
        let head = format!(
            "HTTP/1.1 {status}\r\netag: \"{BLOB}\"\r\nretry-after: 9999\r\ncontent-length: 100000\r\n\r\nabc"
        );
        stream.write_all(head.as_bytes()).unwrap();
    });
    let args = ["--daemon", "unix:stuck", "get", "--customer", "acme", BLOB, "-o", "stuck-got"];
    home.run(&args).is(69).says("did not come whole");
    assert!(!home.path("stuck-got").exists());
    assert_eq!(count.load(Ordering::SeqCst), 5, "the customer, the blob, and its rest three times");
    let left = fs::read_dir(home.dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part"));
    assert_eq!(left.count(), 0);
}

#[test]
fn a_busy_daemon_is_asked_again_if_that_changes_nothing() {
    let home = Home::new();
    let busy = r#"{"code":"unavailable","detail":"busy"}"#;
    let count = scripted(&home.path("busy"), move |at, _, stream| match at {
        0 | 1 => answer(stream, "503 Service Unavailable", "retry-after: 0\r\n", busy),
        2 => answer(stream, "429 Too Many Requests", "", busy),
        3 => answer(stream, "200 OK", "", CUSTOMER),
        _ => answer(stream, "503 Service Unavailable", "retry-after: 0\r\n", busy),
    });
    let args = ["--daemon", "unix:busy", "hold", "place", "--customer", "acme", "--all"];
    home.run(&args).is(69).says("busy");
    assert_eq!(count.load(Ordering::SeqCst), 5, "a hold is placed once");
}

#[test]
fn a_file_under_a_key_is_sent_again_and_a_stream_is_not() {
    let home = Home::new();
    fs::write(home.path("dump"), pattern(1_000_000)).unwrap();
    let sealed =
        format!(r#"{{"blob":"{BLOB}","bytes":1000000,"stored_bytes":1,"retain_until":"2099-01-01"}}"#);
    let seen = |path: &str| {
        let sealed = sealed.clone();
        scripted(&home.path(path), move |at, head, stream| {
            if head.contains("/find") {
                return answer(stream, "200 OK", "", CUSTOMER);
            }
            assert!(
                head.contains("expect: 100-continue") && head.contains("transfer-encoding: chunked"),
                "{head}"
            );
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            // The first two break; the third is taken whole.
            if at < 3 {
                stream.read_exact(&mut [0; 500_000]).unwrap();
                return;
            }
            assert!(head.contains("idempotency-key: night-1"), "{head}");
            let mut body = Vec::new();
            let mut piece = [0; 8192];
            while !body.ends_with(b"\r\n0\r\n\r\n") {
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0);
                body.extend_from_slice(&piece[..count]);
            }
            answer(stream, "201 Created", "", &sealed);
        })
    };
    let count = seen("flaky");
    let put = ["--daemon", "unix:flaky", "put", "--customer", "acme", "--once", "night-1", "dump"];
    assert_eq!(home.run(&put).is(0).out.trim(), BLOB);
    assert_eq!(count.load(Ordering::SeqCst), 4);
    // Without a key it is sent once, and so is what cannot be read again.
    let count = seen("flaky2");
    let put = ["--daemon", "unix:flaky2", "put", "--customer", "acme", "dump"];
    home.run(&put).is(69).says("nothing was stored");
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let count = seen("flaky3");
    let put = [
        "--daemon",
        "unix:flaky3",
        "put",
        "--customer",
        "acme",
        "--once",
        "n",
        "--exec",
        "--",
        "cat",
        "dump",
    ];
    home.run(&put).is(69).says("nothing was stored");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[test]
fn who_is_not_who_they_should_be_is_told_so() {
    let (home, other) = (Home::new(), Home::new());
    let daemon = home.serve();
    let ls = ["ls", "--customer", "acme"];
    home.ask(&daemon, "portal", &ls).is(0);
    // The daemon is of another CA: it gets nothing, not even the certificate.
    fs::copy(other.path("ca.pem"), home.path("other-ca.pem")).unwrap();
    let mut asked = home.asking(&daemon.url, "portal", &ls);
    let ran = Ran::of(asked.env("STRONGROOM_CA", "other-ca.pem").output().unwrap());
    ran.is(78).says("is not of the CA that was given: nothing was sent");
    // It is of another host.
    let mut asked = home.asking(&daemon.url.replace("127.0.0.1", "localhost"), "portal", &ls);
    Ran::of(asked.output().unwrap()).is(78).says("is of another host");
    // The client is of another CA, or nobody's.
    for name in ["portal.pem", "portal.key"] {
        fs::copy(other.path(name), home.path(&format!("other-{name}"))).unwrap();
    }
    home.ask(&daemon, "other-portal", &ls).is(77).says("does not accept the client's certificate");
    home.ask(&daemon, "stranger", &ls)
        .is(77)
        .says("is not that of anyone who is known here")
        .says("request: ");
    // No certificate, a key that others can read, and a certificate with another key.
    let mut bare = home.command(&ls);
    let ran = Ran::of(bare.args(["--daemon", &daemon.url]).output().unwrap());
    ran.is(64).says("--client-certificate, --client-key, and --ca");
    let mut mixed = home.asking(&daemon.url, "portal", &ls);
    let ran = Ran::of(mixed.env("STRONGROOM_CLIENT_KEY", "privacy.key").output().unwrap());
    ran.is(78).says("do not belong together");
    fs::set_permissions(home.path("admin.key"), Permissions::from_mode(0o644)).unwrap();
    home.ask(&daemon, "admin", &ls).is(78).says("others than its owner may use");
    // Never in plaintext, and nothing of what was typed is repeated.
    let plain = daemon.url.replace("https", "http");
    let ran = home.run(&["--daemon", &plain, "ls", "--customer", "acme"]).is(64).says("without TLS anyone");
    assert!(!ran.err.contains("127.0.0.1"));
    home.run(&["--daemon", "JANE", "ls", "--customer", "acme"])
        .is(64)
        .says("not https://host:port or unix:/path");
    // Nobody there.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = Ran::of(home.asking(&format!("https://{gone}"), "portal", &ls).output().unwrap());
    ran.is(69).says("the daemon cannot be reached");
    fs::write(home.path("no-socket"), "").unwrap();
    for path in ["unix:no-socket", "unix:nothing"] {
        home.run(&["--daemon", path, "ls", "--customer", "acme"]).is(69).says("the daemon cannot be reached");
    }
    // Not a daemon at all.
    scripted(&home.path("web"), |_, _, stream| answer(stream, "200 OK", "", "<html>JANE</html>"));
    let ran = home.run(&["--daemon", "unix:web", "ls", "--customer", "acme"]).is(76);
    assert!(!ran.err.contains("JANE"));
    assert_ne!(daemon.address().port(), gone.port());
}

#[test]
fn a_foreign_customer_is_none() {
    let home = Home::new();
    home.run(&["customer", "add", "zenith", "--kms", "local"]).is(0);
    let shown = home.run(&["--json", "customer", "show", "zenith"]);
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    home.principals(&format!("[{}]", shown["customer"]));
    let daemon = home.serve();
    home.ask(&daemon, "portal", &["ls", "--customer", "zenith"]).is(0);
    for args in [&["ls", "--customer", "acme"][..], &["ls", "--customer", "nobody"]] {
        home.ask(&daemon, "portal", args).is(66).says("there is no customer of this label for you");
    }
    fs::write(home.path("dump"), "x").unwrap();
    home.ask(&daemon, "portal", &["put", "--customer", "acme", "dump"]).is(66);
    home.ask(&daemon, "portal", &["restore", "--customer", "acme", "--to", "back"]).is(66);
    assert!(!home.path("back").exists());
    home.ask(&daemon, "admin", &["rekey", "acme", "--kms", "local"]).is(66);
    home.ask(&daemon, "admin", &["rekey", "acme", "--status"]).is(66);
    for what in ["status", "reopen"] {
        home.ask(&daemon, "privacy", &["offboard", what, "acme"]).is(66);
        home.ask(&daemon, "privacy", &["offboard", what, "zenith"]).is(0);
    }
    let listed = home.ask(&daemon, "admin", &["customer", "list"]).is(0);
    assert!(listed.out.contains("zenith") && !listed.out.contains("acme"));
}

#[test]
fn beyond_a_writers_limit_a_privacy_officer_extends() {
    let home = Home::new();
    let daemon = home.serve();
    fs::write(home.path("dump"), "x").unwrap();
    let put = |until: &str| {
        let put = ["put", "--customer", "acme", "--retain-until", until, "dump"];
        home.ask(&daemon, "portal", &put)
    };
    put("9999-12-31").is(77).says("a writer alone");
    put("2998-12-31").is(77).says("a writer alone");
    let blob = put("2099-01-01").is(0).out;
    let extend = |who: &str, until: &str| {
        let extend = ["retention", "extend", "--customer", "acme", blob.trim(), "--until", until];
        home.ask(&daemon, who, &extend)
    };
    for who in ["portal", "backup", "admin"] {
        extend(who, "2998-12-31").is(77);
    }
    extend("portal", "2099-12-31").is(0);
    extend("officer", "2998-12-31").is(0);
    home.ask(&daemon, "portal", &["get", "--customer", "acme", blob.trim(), "-o", "-"]).is(0);
    // Where there is no daemon there are no roles, and the same limit for who seals.
    let put = ["put", "--customer", "acme", "--retain-until", "2998-12-31", "dump"];
    home.run(&put).is(77).says("a writer alone");
    home.run(&["retention", "extend", "--customer", "acme", blob.trim(), "--until", "2999-12-31"]).is(0);
}

#[test]
fn what_a_daemon_has_no_endpoint_for_is_refused_before_anything_happens() {
    let home = Home::new();
    let count = scripted(&home.path("counting"), |_, _, stream| answer(stream, "200 OK", "", CUSTOMER));
    let daemon = ["--daemon", "unix:counting"];
    for args in [
        &["init"][..],
        &["doctor"],
        &["serve", "--config", "daemon.toml"],
        &["offboard", "return", "acme", "--to", "back"],
        &["offboard", "destroy", "acme"],
        &["offboard", "finish", "acme"],
        &["epoch", "finish"],
        &["emergency", "fold", "--directory", "sink"],
        &["shred", "run", "--delete-ciphertext"],
    ] {
        home.run(&[&daemon, args].concat()).is(64).says("a daemon has no endpoint for this command");
    }
    home.run(&[&daemon[..], &["--store", "x", "ls", "--customer", "acme"]].concat())
        .is(64)
        .says("where a store is");
    let person = ["--principal", "person:anna", "order", "list"];
    home.run(&[&daemon[..], &person].concat()).is(64).says("--principal says nothing");
    home.run(&["put", "--customer", "acme", "--once", "a b", "daemon.toml"]).is(64).says("1 to 64 visible");
    assert_eq!(count.load(Ordering::SeqCst), 0, "nothing was asked");
    // What needs neither is done here, whatever is in the environment.
    let mut local = home.command(&["completions", "bash"]);
    assert!(local.env("STRONGROOM_DAEMON", "unix:counting").output().unwrap().status.success());
    let mut local = home.command(&["audit", "verify"]);
    assert!(local.env("STRONGROOM_DAEMON", "unix:counting").output().unwrap().status.success());
}

#[test]
fn a_customer_lets_people_in_and_ends_it() {
    let home = Home::new();
    home.run(&["customer", "add", "own", "--kms", "local", "--tenancy", "customer", "-q"]).is(0);
    let daemon = home.serve();
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let ask = |who: &str, line: &str| {
        let words = words(line);
        home.ask(&daemon, who, &words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    fs::write(home.path("dump"), "a secret").unwrap();
    let blob = ask("portal", "put --customer own dump").is(0).out.trim().to_owned();
    let get = format!("get --customer own {blob} -o -");
    let refused =
        |ran: Ran| ran.is(77).says("(deny.session)").says("hint: the customer opens a session with");
    refused(ask("portal", &get));
    ask("portal", "session open --customer own").is(77).says("(deny.role)");
    let session = ask("privacy", "session open --customer own").is(0).out.trim().to_owned();
    assert_eq!(ask("portal", &format!("--session {session} {get}")).is(0).out, "a secret");
    // In the environment, and whoever may read: the session is no one's in particular.
    let words = words(&get);
    let args: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut named = home.asking(&daemon.url, "doctor", &args);
    assert_eq!(Ran::of(named.env("STRONGROOM_SESSION", &session).output().unwrap()).is(0).out, "a secret");
    ask("privacy", &format!("session end --customer own {session}")).is(0);
    refused(ask("portal", &format!("--session {session} {get}")));

    let asking = "--purpose TREAT session request --customer own --idle 1m --absolute 1h";
    let request = ask("doctor", asking).is(0).says("session approve --customer own").out.trim().to_owned();
    ask("doctor", &format!("session approve --customer own {request}")).is(77).says("(deny.role)");
    let approved = ask("privacy", &format!("session approve --customer own {request}"));
    assert_eq!(approved.is(0).says("for person:doctor (TREAT) alone").out.trim(), request);
    let within = format!("--purpose TREAT --session {request} {get}");
    assert_eq!(ask("doctor", &within).is(0).out, "a secret");
    let theirs = ask("portal", &within).is(77).says("the session is another principal's");
    theirs.says("hint: sessions are named with --session").says("request: ");
    let opened = ask("auditor", "--json audit query --action open --by person:doctor").is(0).out;
    assert!(opened.lines().last().unwrap().contains(&request), "{opened}");
}

#[test]
fn an_emergency_is_declared_at_a_daemon_and_read_in() {
    let home = Home::new();
    let config = fs::read_to_string(home.path("daemon.toml")).unwrap();
    fs::create_dir(home.path("sink")).unwrap();
    fs::set_permissions(home.path("sink"), Permissions::from_mode(0o700)).unwrap();
    home.write("daemon.toml", &format!("{config}[emergency]\ndirectory = \"sink\"\n"));
    fs::write(home.path("dump"), "a secret").unwrap();
    let blob = home.run(&["put", "--customer", "acme", "dump"]).is(0).out.trim().to_owned();
    let daemon = home.serve();
    let declare = ["emergency", "declare", "--customer", "acme", "--for", "30m"];
    home.ask(&daemon, "portal", &declare).is(77).says("(deny.person)");
    home.ask(&daemon, "doctor", &["emergency", "declare", "--customer", "acme", "--for", "5h"])
        .is(64)
        .says("1 minute to 4 hours");
    let declared = home.ask(&daemon, "doctor", &declare).is(0).says("read there with --emergency");
    let id = declared.out.trim();
    let get = ["--emergency", id, "get", "--customer", "acme", &blob, "-o", "-"];
    assert_eq!(home.ask(&daemon, "doctor", &get).is(0).out, "a secret");
    let listed = ["--json", "emergency", "list", "--customer", "acme", "--unreviewed"];
    let listed: Value = serde_json::from_str(&home.ask(&daemon, "auditor", &listed).is(0).out).unwrap();
    assert_eq!((&listed["emergency"], &listed["by"]), (&id.into(), &"person:doctor".into()));
    assert_eq!((&listed["uses"], &listed["reviewed_by"]), (&1.into(), &Value::Null));
    let opened = home.ask(&daemon, "auditor", &["--json", "audit", "query", "--action", "open"]).is(0).out;
    let opened: Value = serde_json::from_str(&opened).unwrap();
    assert_eq!((&opened["purpose"], &opened["principal"]), (&"ETREAT".into(), &"person:doctor".into()));
    assert_eq!(opened["factor"], "smart-card");
    let review = ["emergency", "review", "--customer", "acme", id];
    home.ask(&daemon, "privacy", &review).is(77).says("(deny.person)");
    home.ask(&daemon, "officer", &review).is(75).says("not over");
    home.ask(&daemon, "auditor", &["emergency", "list"]).is(64).says("hint: name it with --customer");

    // What it is for: the log cannot be written, and by the customer's label it is read all the same.
    let audit = home.path("data/strongroom/store/audit");
    let in_sink = || fs::metadata(home.path("sink").join(id)).unwrap().len();
    let before = in_sink();
    fs::rename(&audit, home.path("audit-away")).unwrap();
    fs::write(&audit, "in its place").unwrap();
    assert_eq!(home.ask(&daemon, "doctor", &get).is(0).out, "a secret");
    assert!(in_sink() > before, "it is recorded beside the log");
    fs::remove_file(&audit).unwrap();
    fs::rename(home.path("audit-away"), &audit).unwrap();

    // At a daemon only.
    home.run(&declare).is(64).says("at the daemon that is to read").says("hint: name it with --daemon");
    home.run(&get).is(64).says("at the daemon that is to read");
}

#[test]
fn a_job_that_is_run_twice_with_one_key_stores_once() {
    let home = Home::new();
    let daemon = home.serve();
    fs::write(home.path("dump"), pattern(300_000)).unwrap();
    let put = ["put", "--customer", "acme", "--once", "nightly-2026-11-23", "dump"];
    let mut stored = BTreeSet::new();
    for who in ["portal", "socket"] {
        let first = home.ask(&daemon, who, &put).is(0);
        let again = home.ask(&daemon, who, &put).is(0).says("nothing was stored");
        assert_eq!(first.out, again.out, "{who}");
        assert!(stored.insert(first.out), "each has its own keys");
    }
    // Where the store is, this user is who they are on the socket.
    let here = home.run(&put).is(0).says("nothing was stored");
    assert!(stored.contains(&here.out));
    let other = ["put", "--customer", "acme", "--once", "nightly-2026-11-23", "daemon.toml"];
    home.ask(&daemon, "portal", &other).says("take another one");
    home.run(&other).says("take another one");
    let listed = home.run(&["ls", "--customer", "acme", "--ids"]).is(0).out;
    assert_eq!(listed.lines().count(), stored.len());
}

#[test]
fn a_daemon_gets_no_signature_under_another_order() {
    let home = Home::new();
    // Another order, asked for by the same person, in the place of the one that was asked for.
    let removing = |person: &str| format!("set-people --remove person:{person}");
    let drafting = format!("--principal person:anna order draft {}", removing("anna"));
    let other = home.run(&drafting.split(' ').collect::<Vec<_>>()).is(0).out;
    scripted(&home.path("liar"), move |_, _, stream| answer(stream, "200 OK", "", &other));
    let asking = format!("--daemon unix:liar order request --sign-with anna {}", removing("bob"));
    let ran = home.run(&asking.split(' ').collect::<Vec<_>>()).is(65);
    ran.says("another order than the one that was asked for: it was not signed");
}

#[test]
fn a_token_is_sent_from_its_file_as_it_is_then() {
    let home = Home::new();
    home.write("token", "first.token\n");
    let path = home.path("token");
    scripted(&home.path("oidc"), move |at, head, stream| match at {
        0 => {
            assert!(head.contains("authorization: bearer first.token\r\n"), "{head}");
            fs::write(&path, "second.token").unwrap();
            answer(stream, "200 OK", "", CUSTOMER);
        }
        _ => {
            assert!(head.contains("authorization: bearer second.token\r\n"), "{head}");
            answer(stream, "200 OK", "", r#"{"blobs":[],"next":null}"#);
        }
    });
    let args = ["--daemon", "unix:oidc", "--token-file", "token", "ls", "--customer", "acme", "--ids"];
    home.run(&args).is(0);
    home.write("token", "");
    home.run(&args).is(78).says("does not have a bearer token");
}
