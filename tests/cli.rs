//! The command line as a person or a cron job meets it: the program itself, in
//! a home of its own.
//!
//! What people read is in `tests/cli/*.txt`, with ids and times made equal.
//! `UPDATE_GOLDEN=1 cargo test --test cli` writes those files.
#![cfg(feature = "cli")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use object_store::local::LocalFileSystem;
use serde_json::Value;
use strongroom::audit::log::verify_chain;
use strongroom::tlog::VerifierKey;

/// A home without anything in it.
struct Home {
    dir: tempfile::TempDir,
}

/// What a run of the program left.
struct Ran {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Ran {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap()
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.err);
        self
    }

    /// Failed with this code, in one line and perhaps a hint, and without output.
    #[track_caller]
    fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.err);
        assert!(self.err.starts_with("strongroom: "), "{}", self.err);
        let lines: Vec<_> = self.err.lines().collect();
        assert!(lines.len() == 1 || lines.len() == 2 && lines[1].starts_with("hint: "), "{}", self.err);
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{}", self.err);
        self
    }
}

impl Home {
    fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With a store and the customer `acme`.
    fn new() -> Self {
        let home = Self::empty();
        home.run(&["init", "-q"]).ok();
        home.run(&["customer", "add", "acme", "--kms", "local"]).ok();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("data/strongroom/store")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.env_clear().env("HOME", self.dir.path()).env("XDG_DATA_HOME", self.path("data"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.current_dir(self.dir.path()).stdin(Stdio::null()).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args))
    }

    fn run_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self.spawn(self.command(args).stdin(Stdio::piped()));
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || drop(stdin.write_all(input)));
            finished(child)
        })
    }

    fn spawn(&self, command: &mut Command) -> Child {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn put(&self, bytes: &[u8]) -> String {
        let ran = self.run_with_input(&["put", "--customer", "acme", "-"], bytes).ok();
        let id = ran.text().strip_suffix('\n').unwrap().to_owned();
        assert_eq!(id.len(), 26, "the id alone: {id}");
        id
    }

    fn get(&self, id: &str) -> Ran {
        self.run(&["get", "--customer", "acme", id, "-o", "-"])
    }

    fn ids(&self) -> Vec<String> {
        let ran = self.run(&["ls", "--customer", "acme", "--ids"]).ok();
        let mut ids: Vec<_> = ran.text().lines().map(str::to_owned).collect();
        ids.sort();
        ids
    }

    /// All files in the store whose path has `part` in it.
    fn stored(&self, part: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.store()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.to_str().unwrap().contains(part) {
                    found.push(path);
                }
            }
        }
        found
    }

    fn object(&self, id: &str) -> PathBuf {
        let found: Vec<_> =
            self.stored(id).into_iter().filter(|path| !path.iter().any(|part| part == "name")).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn records(&self) -> Vec<Value> {
        let ran = self.run(&["audit", "tail", "-n", "100000", "--json"]).ok();
        ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Checks every commit and record of the log from its files.
    fn verify_log(&self) -> u64 {
        let marker: Value =
            serde_json::from_slice(&fs::read(self.store().join("keys/store")).unwrap()).unwrap();
        let store = marker["store"].as_str().unwrap().parse().unwrap();
        let authority = serde_json::from_value(marker["log_key"].clone()).unwrap();
        let audit = LocalFileSystem::new_with_prefix(self.store().join("audit")).unwrap();
        let ran = self.run(&["audit", "verify"]);
        assert_eq!(ran.code, 0, "{}{}", ran.text(), ran.err);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let audit = Arc::new(audit);
        let shards = fs::read_dir(self.store().join("audit/wal")).unwrap();
        let shards = shards
            .map(|shard| u16::from_str_radix(shard.unwrap().file_name().to_str().unwrap(), 16).unwrap());
        let records =
            |shard| runtime.block_on(verify_chain(audit.clone(), store, shard, authority)).unwrap().records;
        shards.map(records).sum()
    }
}

fn ran(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    outcome(output)
}

fn finished(child: Child) -> Ran {
    outcome(child.wait_with_output().unwrap())
}

fn outcome(output: std::process::Output) -> Ran {
    let code = output.status.code().unwrap_or_else(|| -output.status.signal().unwrap());
    Ran { code, out: output.stdout, err: String::from_utf8(output.stderr).unwrap() }
}

/// Runs it with a pipe as output whose reader is gone.
fn nobody_reads(mut command: Command) -> Ran {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    finished(command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap())
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251) as u8).collect()
}

/// A session that is compared with a file: commands, what they printed, and how
/// they ended.
struct Transcript<'a> {
    home: &'a Home,
    text: String,
    seen: BTreeMap<String, String>,
}

impl<'a> Transcript<'a> {
    fn new(home: &'a Home) -> Self {
        Self { home, text: String::new(), seen: BTreeMap::new() }
    }

    fn run(&mut self, args: &[&str]) -> Ran {
        let ran = self.home.run(args);
        let quoted: Vec<_> = args
            .iter()
            .map(
                |arg| {
                    if arg.contains(' ') || arg.is_empty() { format!("'{arg}'") } else { (*arg).to_owned() }
                },
            )
            .collect();
        self.text.push_str(&format!("$ strongroom {}\n{}", quoted.join(" "), ran.text()));
        for line in ran.err.lines() {
            self.text.push_str(&format!("! {line}\n"));
        }
        if ran.code != 0 {
            self.text.push_str(&format!("exit {}\n", ran.code));
        }
        self.text.push('\n');
        ran
    }

    #[track_caller]
    fn matches(mut self, name: &str) {
        let text = std::mem::take(&mut self.text);
        let text = self.normal(&text);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, expected, "{name} differs; UPDATE_GOLDEN=1 writes it");
    }

    /// Ids by their order, times as one, of equal length.
    fn normal(&mut self, text: &str) -> String {
        let text = text.replace(self.home.dir.path().to_str().unwrap(), "~");
        let text: String = text.split_inclusive(char::is_whitespace).map(without_key).collect();
        let mut out = String::new();
        let mut word = String::new();
        for c in text.chars().chain(['\0']) {
            if c.is_ascii_alphanumeric() || "-:.".contains(c) {
                word.push(c);
                continue;
            }
            out.push_str(&self.word(&word));
            word.clear();
            if c != '\0' {
                out.push(c);
            }
        }
        out
    }

    fn word(&mut self, word: &str) -> String {
        let digits =
            |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
        if let Some((front, id)) = word.rsplit_once(':').filter(|(_, last)| last.len() == 26) {
            return format!("{front}:{}", self.word(id));
        }
        if word.len() == 26 && word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) {
            let next = self.seen.len() + 1;
            return self
                .seen
                .entry(word.to_owned())
                .or_insert_with(|| format!("{:.<26}", format!("id-{next}")))
                .clone();
        }
        let shape = digits(word);
        if shape == "0000-00-00" || shape.starts_with("0000-00-00T00:00:00") {
            shape
        } else {
            word.to_owned()
        }
    }
}

/// A log's public key, without what differs from store to store.
fn without_key(word: &str) -> String {
    match word.split_once('+').filter(|(name, _)| name.starts_with("strongroom/")) {
        Some((name, key)) => format!("{name}+id+key{}", &key[key.trim_end().len()..]),
        None => word.to_owned(),
    }
}

#[test]
fn a_tour() {
    let home = Home::empty();
    fs::write(home.path("report.txt"), "All is well.\n").unwrap();
    let mut tour = Transcript::new(&home);
    tour.run(&["init"]);
    tour.run(&["init"]);
    tour.run(&["customer", "add", "acme", "--kms", "local", "--retention", "P6Y"]);
    tour.run(&["customer", "add", "zenith", "--kms", "local", "--suite", "chacha20-poly1305"]);
    tour.run(&["customer", "list"]);
    tour.run(&["customer", "set", "acme", "--retention", "P10Y"]);
    tour.run(&["retention", "set", "acme", "--period", "P12Y", "--window", "P14D"]);
    tour.run(&["retention", "show", "zenith"]);
    let put = tour.run(&[
        "put",
        "--customer",
        "acme",
        "--name",
        "reports/monthly",
        "--content-type",
        "text/plain",
        "--meta",
        "ward=7",
        "report.txt",
    ]);
    let id = put.text().trim_end().to_owned();
    tour.run(&[
        "put",
        "--customer",
        "acme",
        "--retain-until",
        "2099-12-31",
        "--exec",
        "--",
        "printf",
        "from a program",
    ]);
    tour.run(&["get", "--customer", "acme", &id, "-o", "copy.txt"]);
    tour.run(&["get", "--customer", "acme", "--name", "reports/monthly"]);
    tour.run(&["get", "--customer", "acme", &id, "--range", "4-5", "-o", "-"]);
    tour.run(&["ls", "--customer", "acme"]);
    tour.run(&["stat", "--customer", "acme", &id]);
    tour.run(&["verify", "--customer", "acme", &id]);
    tour.run(&["retention", "extend", "--customer", "acme", &id, "--until", "2998-12-31"]);
    tour.run(&[
        "retention",
        "extend",
        "--customer",
        "acme",
        "--name",
        "reports/monthly",
        "--until",
        "2998-12-30",
    ]);
    tour.run(&["ls", "--customer", "zenith"]);
    tour.run(&["audit", "tail", "-n", "8"]);
    tour.matches("tour.txt");
    assert_eq!(fs::read_to_string(home.path("copy.txt")).unwrap(), "All is well.\n");
}

/// Makes a person's key in the home, and gives the public one.
fn person(home: &Home, name: &str) -> String {
    let (id, file) = (format!("person:{name}"), home.path(&format!("{name}.key")));
    let made = home.run(&["--principal", &id, "person", "keygen", "-o", file.to_str().unwrap()]).ok();
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    made.text().trim_end().to_owned()
}

#[test]
fn people_are_named_once() {
    let home = Home::empty();
    let [a, b, c] = ["a", "b", "c"].map(|name| person(&home, name));
    assert!(a.starts_with("person:a+"), "{a}");
    // A key is never overwritten, and is a person's.
    let file = home.path("a.key");
    let before = fs::read(&file).unwrap();
    let file = file.to_str().unwrap();
    home.run(&["--principal", "person:a", "person", "keygen", "-o", file]).fails(73);
    assert_eq!(fs::read(file).unwrap(), before);
    home.run(&["person", "keygen", "-o", "unused"]).fails(64);
    home.run(&["--principal", "service:x", "person", "keygen", "-o", "unused"]).fails(64);

    home.run(&["init", "--person", &a]).fails(64);
    home.run(&["init", "--person", &a, "--person", &b]).ok();
    let people = home.run(&["--json", "person", "list"]).ok().json();
    let people = people["people"].as_array().unwrap();
    assert_eq!(people.len(), 2);
    assert_eq!((people[0]["principal"].as_str(), people[0]["key"].as_str()), (Some("person:a"), Some(&*a)));
    assert!(people[0]["until"].is_null());
    assert!(home.run(&["person", "list"]).ok().text().contains(&b));
    home.run(&["person", "found", "--person", &b, "--person", &c]).fails(73);
    // Where there is a store, nobody is added on the quiet.
    home.run(&["init", "--person", &a, "--person", &b]).ok();
    home.run(&["init", "--person", &a, "--person", &c]).fails(73);
}

#[test]
fn people_who_are_founded_later_are_told_from_when_they_may_sign() {
    let home = Home::new();
    assert_eq!(home.run(&["--json", "person", "list"]).ok().json()["people"].as_array().unwrap().len(), 0);
    let [a, b] = ["a", "b"].map(|name| person(&home, name));
    home.run(&["person", "found", "--person", &a]).fails(64);
    let founded = home.run(&["--json", "person", "found", "--person", &a, "--person", &b]).ok().json();
    let since: strongroom::time::Timestamp = founded["people"][0]["since"].as_str().unwrap().parse().unwrap();
    let now = strongroom::time::Clock::now(&strongroom::system::SystemClock);
    let left = Duration::from_micros(since.micros() - now.micros());
    assert!(left > Duration::from_secs(6 * 86_400) && left <= Duration::from_secs(7 * 86_400), "{left:?}");
}

/// Lengthening is one person's to do, and what is sealed already stays as it was.
#[test]
fn a_retention_is_lengthened_and_every_version_of_it_is_kept() {
    let home = Home::new();
    let id = home.put(b"text");
    let kept = |id: &str| home.run(&["--json", "stat", "--customer", "acme", id]).ok().json();
    let until = kept(&id)["retain_until"].clone();
    let show = || home.run(&["--json", "retention", "show", "acme"]).ok().json();
    let policy = |policy: &Value| {
        ["number", "retention", "window", "order"].map(|field| policy[field].to_string()).join(" ")
    };
    let policies = |shown: &Value| shown["policies"].as_array().unwrap().iter().map(policy).collect();
    let first = show();
    assert_eq!(policy(&first["policy"]), r#"1 "P18M" "P7D" null"#);

    let set = |args: &[&str]| home.run(&[&["--json", "retention", "set", "acme"], args].concat());
    let longer = set(&["--period", "P2Y"]).ok().json();
    assert_eq!(longer["policy"]["since"], longer["policies"][1]["since"]);
    set(&["--window", "P30D"]).ok();
    set(&["--period", "P2Y", "--window", "P30D"]).ok();
    home.run(&["customer", "set", "acme", "--retention", "P3Y"]).ok();
    let all: Vec<String> = policies(&show());
    let (first, second) = (r#"1 "P18M" "P7D" null"#, r#"2 "P24M" "P7D" null"#);
    assert_eq!(all, [first, second, r#"3 "P24M" "P30D" null"#, r#"4 "P36M" "P30D" null"#]);
    assert_eq!(kept(&id)["retain_until"], until);
    assert_ne!(kept(&home.put(b"text"))["retain_until"], until);

    for shorter in [
        &["--period", "P35M"][..],
        &["--window", "P29D"],
        &["--period", "P4Y", "--window", "P7D"],
        &["--period", "P1D", "--window", "P60D"],
    ] {
        let refused = home.run(&[&["retention", "set", "acme"], shorter].concat()).fails(77);
        refused.says("shortened by two").says("strongroom order request shorten-retention");
    }
    let refused = home.run(&["customer", "set", "acme", "--retention", "P1Y"]).fails(77);
    refused.says("strongroom order request shorten-retention");
    assert_eq!(policies(&show()), all, "nothing was changed");
    set(&[]).says("is missing");
    set(&["--window", "P0D"]).says("--window");
    assert!(home.records().iter().any(|record| record["event"]["outcome"]["result"] == "denied"));
    home.verify_log();
}

// With all the commands that there are by default.
#[cfg(feature = "daemon")]
#[test]
fn the_help() {
    let home = Home::empty();
    let mut help = Transcript::new(&home);
    for args in
        [&["--help"][..], &["put", "-h"], &["put", "--help"], &["get", "--help"], &["verify", "--help"]]
    {
        assert_eq!(help.run(args).code, 0);
    }
    help.matches("help.txt");
    assert!(home.run(&["--version"]).ok().text().starts_with("strongroom "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(home.run(&["completions", shell]).ok().text().contains("strongroom"));
    }
    assert_eq!(home.names(), [] as [&str; 0], "nothing is made");
}

/// What README and manual tell people to type: each command with all its options is there.
#[test]
fn what_the_documents_tell_to_type_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = fs::read_dir(root.join("src/manual")).unwrap().map(|entry| entry.unwrap().path());
    let home = Home::empty();
    let mut seen = 0;
    for file in manual.chain([root.join("README.md")]) {
        let text = fs::read_to_string(&file).unwrap().replace("\\\n", " ");
        let mut in_shell = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("```") {
                in_shell = line == "```sh";
            }
            let command = line.split([';', '|', '>']).next().unwrap().split(" #").next().unwrap();
            let Some(words) = command.strip_prefix("strongroom ").filter(|_| in_shell) else { continue };
            // The shell takes the quotes away, and what follows is a program of somebody else's.
            let words = words.split(" -- ").next().unwrap();
            let told =
                Command::new("sh").args(["-fc", &format!("printf '%s\\n' {words} --help")]).output().unwrap();
            let told = String::from_utf8(told.stdout).unwrap();
            let ran = home.run(&told.lines().collect::<Vec<_>>());
            // A word in the place of an id is none.
            let exists = ran.code == 0 || ran.code == 64 && ran.err.contains(">: ");
            assert!(exists, "{}: {line}: {}", file.display(), ran.err);
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen} commands were found");
}

#[test]
fn bad_input_is_told_apart() {
    let home = Home::new();
    let id = home.put(b"0123456789");
    fs::write(home.path("file"), "x").unwrap();
    fs::write(home.path("old"), "old").unwrap();
    fs::create_dir(home.path("dir")).unwrap();
    let other = "019mx0xqp7xz8cphp0tt9dmxsc";
    let long = "n".repeat(1025);
    let mut bad = Transcript::new(&home);
    let acme = ["--customer", "acme"];
    for (code, args) in [
        // Unknown things.
        (66, &["ls", "--customer", "nobody"][..]),
        (66, &["customer", "show", "nobody"]),
        (66, &["customer", "set", "nobody", "--retention", "P6Y"]),
        (66, &["put", "--customer", "nobody", "file"]),
        (66, &["get", acme[0], acme[1], other, "-o", "out"]),
        (66, &["get", acme[0], acme[1], "--name", "nothing", "-o", "out"]),
        (66, &["stat", acme[0], acme[1], other]),
        (66, &["verify", acme[0], acme[1], other]),
        (66, &["verify", acme[0], acme[1], "--name", "nothing"]),
        (66, &["put", acme[0], acme[1], "no-such-file"]),
        (66, &["put", acme[0], acme[1], "dir"]),
        (66, &["put", acme[0], acme[1], "--exec", "--", "no-such-program"]),
        (73, &["customer", "add", "acme", "--kms", "local"]),
        // Wrong values.
        (64, &["ls", "--customer", "Not A Label"]),
        (64, &["get", acme[0], acme[1], "not-an-id"]),
        (64, &["put", acme[0], acme[1], "--name", "a\tb", "file"]),
        (64, &["put", acme[0], acme[1], "--name", "", "file"]),
        (64, &["put", acme[0], acme[1], "--name", &long, "file"]),
        (64, &["put", acme[0], acme[1], "--content-type", "plain", "file"]),
        (64, &["put", acme[0], acme[1], "--meta", "pair", "file"]),
        (64, &["put", acme[0], acme[1], "--meta", "a=1", "--meta", "a=2", "file"]),
        (64, &["put", acme[0], acme[1], "--suite", "rot13", "file"]),
        (64, &["put", acme[0], acme[1], "--retain-until", "tomorrow", "file"]),
        (64, &["customer", "add", "new", "--kms", "vault"]),
        (64, &["customer", "add", "new", "--kms", "local", "--retention", "18M"]),
        (64, &["customer", "set", "acme"]),
        (77, &["customer", "set", "acme", "--retention", "P1D"]),
        (64, &["--principal", "Jane Doe", "ls", acme[0], acme[1]]),
        (64, &["--purpose", "FUN", "ls", acme[0], acme[1]]),
        // Ranges.
        (64, &["get", acme[0], acme[1], &id, "-o", "-", "--range", "5-4"]),
        (64, &["get", acme[0], acme[1], &id, "-o", "-", "--range", "all"]),
        (64, &["get", acme[0], acme[1], &id, "-o", "-", "--range", "10-20"]),
        (64, &["get", acme[0], acme[1], &id, "-o", "-", "--range", "-0"]),
        // Outputs.
        (73, &["get", acme[0], acme[1], &id, "-o", "old"]),
        (73, &["get", acme[0], acme[1], &id, "-o", "dir", "--force"]),
        (73, &["get", acme[0], acme[1], &id, "-o", "no/such/dir/out"]),
        // Lengths.
        (74, &["put", acme[0], acme[1], "--expect-bytes", "2", "file"]),
        (74, &["put", acme[0], acme[1], "--expect-bytes", "9", "--exec", "--", "printf", "abc"]),
        (74, &["put", acme[0], acme[1], "--exec", "--", "sh", "-c", "printf abc; exit 3"]),
        // Keys.
        (79, &["customer", "add", "new", "--kms", "local:019mx0xqp7xz8cphp0tt9dmxsc"]),
        // Stores.
        (66, &["--store", "elsewhere", "ls", acme[0], acme[1]]),
        (66, &["--store", "dir", "ls", acme[0], acme[1]]),
        (64, &["--store", "https://example.com", "ls", acme[0], acme[1]]),
        (64, &["--store", "s3://KEY:SECRET@bucket", "ls", acme[0], acme[1]]),
        (64, &["--store", "s3:bucket", "ls", acme[0], acme[1]]),
        (78, &["--store", "file", "ls", acme[0], acme[1]]),
        (66, &["--store", "memory://", "ls", acme[0], acme[1]]),
        // Uses.
        (64, &[]),
        (64, &["nonsense"]),
        (64, &["put", acme[0], acme[1]]),
        (64, &["put", acme[0], acme[1], "file", "jane-doe"]),
        (64, &["put", acme[0], acme[1], "--frobnicate=jane-doe", "file"]),
        (64, &["put", acme[0], acme[1], "--exec"]),
        (64, &["put", acme[0], acme[1], "--exec", "file"]),
        (64, &["get", acme[0], acme[1], &id, "--name", "both"]),
        (64, &["get", acme[0], acme[1]]),
        (64, &["get", acme[0], acme[1], &id, "--nth", "2"]),
        (64, &["verify", acme[0], acme[1]]),
    ] {
        let ran = bad.run(args);
        assert_eq!(ran.code, code, "{args:?} {}", ran.err);
        let ran = ran.fails(code);
        assert!(ran.out.is_empty() || args[0] == "verify", "{args:?}");
        for typed in ["jane-doe", "Jane", "SECRET", "nothing", "no-such-file", "a\tb"] {
            assert!(!ran.err.contains(typed), "{}", ran.err);
        }
    }
    bad.matches("bad-input.txt");
    assert_eq!(home.ids(), [id]);
    assert_eq!(home.names(), ["data", "dir", "file", "old"], "nothing was left behind");
    assert_eq!(fs::read_to_string(home.path("old")).unwrap(), "old");
}

#[test]
fn every_size_comes_back() {
    let home = Home::new();
    for length in [0, 1, 16383, 16384, 16385, 1 << 20, (1 << 20) + 1] {
        let bytes = pattern(length);
        let from_pipe = home.put(&bytes);
        fs::write(home.path("file"), &bytes).unwrap();
        let from_file = home.run(&["put", "--customer", "acme", "--json", "file"]).ok().json();
        assert_eq!(from_file["bytes"], length);
        for id in [&*from_pipe, from_file["blob"].as_str().unwrap()] {
            assert!(home.get(id).ok().out == bytes, "{length}");
            let got =
                home.run(&["get", "--customer", "acme", id, "-o", "out", "--force", "--json"]).ok().json();
            assert_eq!((&got["blob"], &got["bytes"], &got["first"]), (&id.into(), &length.into(), &0.into()));
            assert!(fs::read(home.path("out")).unwrap() == bytes, "{length}");
            assert_eq!(home.run(&["stat", "--customer", "acme", id, "--json"]).ok().json()["bytes"], length);
        }
    }
    let verified = home.run(&["verify", "--customer", "acme", "--all", "--json"]).ok();
    let lines: Vec<Value> = verified.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 14);
    assert!(lines.iter().all(|line| line["ok"] == true));
    assert_eq!(fs::metadata(home.path("out")).unwrap().permissions().mode() & 0o777, 0o600);
    home.verify_log();
}

#[test]
fn ranges_are_inclusive() {
    let home = Home::new();
    let bytes = pattern(100_000);
    let id = home.put(&bytes);
    for (range, expected) in [
        ("0-0", &bytes[..1]),
        ("16383-16384", &bytes[16383..=16384]),
        ("99999-99999", &bytes[99_999..]),
        ("99990-200000", &bytes[99_990..]),
        ("50000-", &bytes[50_000..]),
        ("-10", &bytes[99_990..]),
        ("-1000000", &bytes[..]),
    ] {
        let ran = home.run(&["get", "--customer", "acme", &id, "--range", range]).ok();
        assert!(ran.out == expected, "{range}");
    }
    let empty = home.put(b"");
    home.run(&["get", "--customer", "acme", &empty, "--range", "0-"]).fails(64);
}

#[test]
fn names_lead_to_the_newest_and_to_those_before() {
    let home = Home::new();
    for (index, text) in ["one", "two", "three"].iter().enumerate() {
        home.run_with_input(&["put", "--customer", "acme", "--name", "jäne/nightly", "-"], text.as_bytes())
            .ok();
        home.run_with_input(&["put", "--customer", "acme", "--name", "other", "-"], &[index as u8]).ok();
    }
    let get =
        |more: &[&str]| home.run(&[&["get", "--customer", "acme", "--name", "jäne/nightly"], more].concat());
    assert_eq!(get(&[]).ok().text(), "three");
    assert_eq!(get(&["--nth", "1"]).ok().text(), "three");
    assert_eq!(get(&["--nth", "3"]).ok().text(), "one");
    get(&["--nth", "4"]).fails(66);
    get(&["--nth", "0"]).fails(64);
    let stat = home
        .run(&["stat", "--customer", "acme", "--name", "jäne/nightly", "--nth", "2", "--json"])
        .ok()
        .json();
    assert_eq!((&stat["bytes"], &stat["name"]), (&3.into(), &"jäne/nightly".into()));

    let ls = home.run(&["ls", "--customer", "acme", "--name", "jäne/nightly", "--ids"]).ok();
    let ids: Vec<_> = ls.text().lines().collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(home.get(ids[1]).ok().text(), "two");
    let verified = home.run(&["verify", "--customer", "acme", "--name", "jäne/nightly"]).ok();
    assert_eq!(verified.text().lines().count(), 3);

    // A name whose blob is gone is passed over.
    fs::remove_file(home.object(ids[0])).unwrap();
    assert_eq!(get(&[]).ok().text(), "two");
    assert_eq!(get(&["--nth", "2"]).ok().text(), "one");

    // A name is nowhere in the store, and not in any path.
    let status = Command::new("grep").args(["-rqa", "nightly"]).arg(home.store()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(home.stored("nightly").is_empty());
}

#[test]
fn damage_is_never_an_end() {
    let home = Home::new();
    let (whole, damaged) = (home.put(&pattern(100_000)), home.put(&pattern(3_000_000)));
    let path = home.object(&damaged);
    let original = fs::read(&path).unwrap();
    let middle = original.len() / 2;
    for damage in ["cut in a chunk", "cut between chunks", "cut to nothing", "flipped", "appended", "header"]
    {
        let mut bytes = original.clone();
        match damage {
            "cut in a chunk" => bytes.truncate(middle),
            "cut between chunks" => bytes.truncate(original.len() - original.len() % 16400 - 16400 * 3),
            "cut to nothing" => bytes.clear(),
            "flipped" => bytes[middle] ^= 1,
            "appended" => bytes.push(0),
            _ => bytes[100] ^= 1,
        }
        fs::write(&path, bytes).unwrap();
        home.run(&["get", "--customer", "acme", &damaged, "-o", "out"])
            .fails(65)
            .says("authentication failed");
        assert_eq!(home.names(), ["data"], "{damage}");
        let streamed = home.get(&damaged).fails(65);
        assert!(pattern(3_000_000).starts_with(&streamed.out), "what came is authentic: {damage}");
        home.run(&["verify", "--customer", "acme", &damaged]).fails(65);

        let all =
            home.run(&["verify", "--customer", "acme", "--all"]).fails(65).says("1 blob did not verify");
        assert!(all.text().contains(&format!("{whole}  ok  100000 bytes\n")), "{}", all.text());
        assert!(all.text().contains(&format!("{damaged}  FAILED  ")), "{}", all.text());
        let listed = home.run(&["ls", "--customer", "acme"]);
        // A bit in the middle is not seen by a look at the front and the end.
        assert_eq!(listed.code, if damage == "flipped" { 0 } else { 65 }, "{damage}: {}", listed.err);
        assert!(listed.text().contains(&whole) && listed.text().contains(&damaged));
        assert_eq!(home.ids().len(), 2);
    }
    let failures = home.records();
    let failed = |record: &&Value| record["event"]["outcome"]["result"] == "authentication-failed";
    assert!(failures.iter().filter(failed).count() >= 6 * 4, "every refusal is on the record");
    fs::write(&path, original).unwrap();
    home.run(&["verify", "--customer", "acme", "--all"]).ok();
    home.verify_log();
}

#[test]
fn later_formats_are_told_from_damage() {
    let home = Home::new();
    let id = home.put(b"text");
    let path = home.object(&id);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8..10].copy_from_slice(&[2, 0xFD]);
    fs::write(&path, bytes).unwrap();
    home.get(&id).fails(76).says("later format");
    home.run(&["verify", "--customer", "acme", "--all"]).fails(76);

    let marker = home.store().join("keys/store");
    let text = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, text.replace("strongroom-store-v1", "strongroom-store-v2")).unwrap();
    home.run(&["ls", "--customer", "acme"]).fails(76).says("later format");
    home.run(&["init"]).fails(76);
    fs::write(&marker, "{}").unwrap();
    home.run(&["ls", "--customer", "acme"]).fails(65);
}

#[test]
fn an_unfit_key_directory_is_refused_when_it_is_needed() {
    let home = Home::new();
    let keys = home.path("data/strongroom/kms");
    let mode = |mode| fs::set_permissions(&keys, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o755);
    home.run(&["ls", "--customer", "acme"]).fails(78).says("data/strongroom/kms");
    home.run(&["customer", "add", "new", "--kms", "local"]).fails(78);
    // Neither needs a key.
    home.run(&["init"]).ok();
    assert!(!home.records().is_empty());
    mode(0o700);
    home.run(&["ls", "--customer", "acme"]).ok();
    home.run(&["--local-kms", "elsewhere", "ls", "--customer", "acme"]).fails(78).says("elsewhere");
    fs::rename(&keys, home.path("moved")).unwrap();
    home.run(&["ls", "--customer", "acme"]).fails(78);
    let mut command = home.command(&["ls", "--customer", "acme"]);
    command.env("STRONGROOM_LOCAL_KMS", home.path("moved"));
    ran(command).ok();
}

#[test]
fn a_store_is_found_by_option_and_by_environment() {
    let home = Home::empty();
    home.run(&["--store", "a b", "-q", "init"]).ok();
    home.run(&["--store", "a b", "customer", "add", "acme", "--kms", "local"]).ok();
    let mut command = home.command(&["customer", "list", "--json"]);
    command.env("STRONGROOM_STORE", format!("file://{}", home.path("a%20b").display()));
    assert_eq!(ran(command).ok().json()["customers"][0]["label"], "acme");
    // Three storages apart.
    let apart = ["--store", "root", "--blobs-store", "b", "--keys-store", "k", "--audit-store", "l"];
    let made = home.run(&[&apart[..], &["init", "--json", "-q"]].concat()).ok().json();
    assert_eq!(made["created"], true);
    assert_eq!(home.names(), ["a b", "b", "data", "k", "l"]);
    let mixed = home.run(&[&apart[..6], &["--audit-store", "a b/audit", "customer", "list"]].concat());
    assert!(matches!(mixed.code, 65 | 78), "{}", mixed.err);
    assert_eq!(home.run(&[&apart[..], &["init", "--json"]].concat()).ok().json()["created"], false);
}

#[test]
fn json_is_for_programs() {
    let home = Home::new();
    fs::write(home.path("file"), "12345").unwrap();
    let put = home
        .run(&["--json", "put", "--customer", "acme", "--name", "n", "--meta", "k=v", "file"])
        .ok()
        .json();
    let id = put["blob"].as_str().unwrap();
    assert_eq!((&put["bytes"], put["retain_until"].as_str().unwrap().len()), (&5.into(), 10));
    let listed = home.run(&["ls", "--customer", "acme", "--json"]).ok().json();
    assert_eq!(
        (&listed["blob"], &listed["name"], &listed["meta"]["k"]),
        (&id.into(), &"n".into(), &"v".into())
    );
    assert_eq!(listed["content_type"], Value::Null);
    let ids = home.run(&["ls", "--customer", "acme", "--ids", "--json"]).ok().json();
    assert_eq!(ids["blob"], id);
    let shown = home.run(&["customer", "show", "acme", "--json"]).ok().json();
    assert_eq!((&shown["retention"], &shown["held"]), (&"P18M".into(), &false.into()));

    for (code, kind, args) in [
        (66, "not-found", &["ls", "--customer", "nobody", "--json"][..]),
        (64, "usage", &["ls", "--json"]),
        (64, "usage", &["--json", "nonsense"]),
        (66, "not-found", &["--store", "none", "--json", "ls", "--customer", "acme"]),
    ] {
        let ran = home.run(args);
        let error: Value = serde_json::from_str(&ran.err).unwrap();
        assert_eq!(
            (ran.code, &error["error"]["kind"], &error["error"]["exit"]),
            (code, &kind.into(), &code.into())
        );
        assert!(error["error"]["message"].is_string());
    }
    let records = home.records();
    assert!(records.iter().any(|record| record["event"]["intent"]["action"] == "seal"));
    assert!(records.iter().all(|record| record["nonce"].is_string() && record["time"].is_string()));
    let one = home.run(&["audit", "tail", "-n", "1", "--json"]).ok();
    assert_eq!(one.text().lines().count(), 1);
}

#[test]
fn keys_in_a_customers_own_hand_seal_and_do_not_open() {
    let home = Home::new();
    std::fs::write(home.path("file"), b"sealed").unwrap();
    let held = home.run(&["customer", "show", "acme", "--json"]).ok().json();
    assert_eq!(held["tenancy"], "held");
    let added = home.run(&["customer", "add", "own", "--kms", "local", "--tenancy", "customer"]).ok();
    let tenancy = added.text().lines().find(|line| line.starts_with("tenancy")).unwrap();
    assert!(tenancy.ends_with("customer"), "{tenancy}");
    assert_eq!(home.run(&["customer", "show", "own", "--json"]).ok().json()["tenancy"], "customer");
    // Each run is a program of its own, which unwraps nothing.
    let blob = home.run(&["put", "--customer", "own", "--name", "n", "file"]).ok();
    home.run(&["put", "--customer", "own", "--name", "n", "file"]).ok();
    home.run(&["get", "--customer", "own", blob.text().trim_end(), "-o", "-"]).fails(77).says("session");
    home.run(&["get", "--customer", "own", "--name", "n", "-o", "-"]).fails(77).says("session");
    home.run(&["ls", "--customer", "own"]).fails(77).says("session");
    assert_eq!(home.run(&["customer", "add", "x", "--kms", "local", "--tenancy", "ours"]).code, 64);
    let loose = held["kms_key"].as_str().unwrap();
    home.run(&["customer", "add", "y", "--kms", loose, "--tenancy", "customer"]).fails(64).says("grant");
}

#[test]
fn who_and_why_are_on_the_record() {
    let home = Home::new();
    let id = home.put(b"text");
    home.run(&["--principal", "person:p-17", "--purpose", "TREAT", "get", "--customer", "acme", &id]).ok();
    let records = home.records();
    let opened = records.iter().find(|record| record["event"]["intent"]["action"] == "open").unwrap();
    let intent = &opened["event"]["intent"];
    assert_eq!((&intent["principal"], &intent["purpose"]), (&"person:p-17".into(), &"TREAT".into()));
    let sealed = records.iter().find(|record| record["event"]["intent"]["action"] == "seal").unwrap();
    assert_eq!(sealed["event"]["intent"]["purpose"], "HSYSADMIN");
}

#[test]
fn a_producer_that_fails_leaves_nothing() {
    let home = Home::new();
    for script in
        ["exit 1", "printf abc; exit 1", "head -c 3000000 /dev/zero; exit 7", "printf abc; kill -9 $$"]
    {
        home.run(&["put", "--customer", "acme", "--name", "dump", "--exec", "--", "sh", "-c", script])
            .fails(74)
            .says("the program failed");
        assert_eq!(home.ids(), [] as [&str; 0], "{script}");
    }
    home.run(&["get", "--customer", "acme", "--name", "dump", "-o", "-"]).fails(66);
    let good = [
        "put",
        "--customer",
        "acme",
        "--name",
        "dump",
        "--exec",
        "--",
        "sh",
        "-c",
        "head -c 3000000 /dev/zero",
    ];
    let id = home.run(&good).ok().text().trim_end().to_owned();
    assert!(home.get(&id).ok().out == vec![0; 3_000_000]);
    assert!(home.stored("#").is_empty(), "half-written files are removed");

    // A pipe whose length is known.
    let expect = ["put", "--customer", "acme", "--expect-bytes", "10", "-"];
    home.run_with_input(&expect, b"0123456789").ok();
    home.run_with_input(&expect, b"012345678").fails(74).says("ended after 9 of 10 bytes");
    home.run_with_input(&expect, b"0123456789x").fails(74);
    // A file on standard input that somebody has read some of.
    fs::write(home.path("file"), "0123456789").unwrap();
    let mut file = fs::File::open(home.path("file")).unwrap();
    file.read_exact(&mut [0; 4]).unwrap();
    let ran = ran({
        let mut command = home.command(&["put", "--customer", "acme", "-"]);
        command.stdin(file);
        command
    });
    assert_eq!(home.get(ran.ok().text().trim_end()).ok().text(), "456789");
    home.verify_log();
}

#[test]
fn a_reader_that_goes_away_is_a_failure() {
    let home = Home::new();
    // More than waits between opening and writing: an abort comes before the end.
    let id = home.put(&pattern(12_000_000));
    // Of the plaintext.
    let mut child = home.spawn(&mut home.command(&["get", "--customer", "acme", &id]));
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    finished(child).fails(74).says("failed to write the output");
    // Of anything else; the blob is there all the same, and that is said.
    for args in [
        &["ls", "--customer", "acme"][..],
        &["--help"],
        &["audit", "tail"],
        &["put", "--customer", "acme", "file"],
    ] {
        fs::write(home.path("file"), "x").unwrap();
        nobody_reads(home.command(args)).fails(74).says("failed to write to standard output");
    }
    let told = nobody_reads(home.command(&["put", "--customer", "acme", "file"])).fails(74).err;
    let ids = home.ids();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().any(|id| told.contains(id)), "the id is not lost: {told}");
    // A full disk.
    let mut command = home.command(&["get", "--customer", "acme", &id]);
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap()).stderr(Stdio::piped());
    finished(command.spawn().unwrap()).fails(74).says("No space left");
    let aborted =
        home.records().iter().filter(|record| record["event"]["outcome"]["result"] == "aborted").count();
    assert!(aborted >= 2);
}

#[test]
fn signals_end_it_in_order() {
    let home = Home::new();
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut child = home.spawn(home.command(&["put", "--customer", "acme", "-"]).stdin(Stdio::piped()));
        let mut stdin = child.stdin.take().unwrap();
        // More than fits into the pipe: it is being sealed.
        stdin.write_all(&pattern(8 << 20)).unwrap();
        signal(&child, name);
        finished(child).fails(code).says(&format!("ended by SIG{name}"));
        drop(stdin);
        assert_eq!(home.ids(), [] as [&str; 0]);
        let records = home.records();
        let last = records.iter().rev().find(|record| record["event"]["outcome"]["result"] == "aborted");
        assert!(last.is_some(), "it is on the record");
        assert!(home.stored("#").is_empty(), "half-written files are removed");
    }
    // A program that was started is told to end.
    let script = "echo $$ > pid; printf abc; exec sleep 60";
    let child =
        home.spawn(&mut home.command(&["put", "--customer", "acme", "--exec", "--", "sh", "-c", script]));
    let pid = loop {
        match fs::read_to_string(home.path("pid")) {
            Ok(text) if text.ends_with('\n') => break text,
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, "TERM");
    finished(child).fails(143);
    std::thread::sleep(Duration::from_millis(100));
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim_end())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(" Z "), "it runs on: {state}");

    // An output file is not left half-written.
    let id = home.put(&pattern(64 << 20));
    let child = home.spawn(&mut home.command(&["get", "--customer", "acme", &id, "-o", "out"]));
    std::thread::sleep(Duration::from_millis(100));
    signal(&child, "INT");
    let ended = finished(child);
    assert!(ended.code == 130 || ended.code == 0, "{}", ended.err);
    assert_eq!(home.names().iter().filter(|name| name.contains("part")).count(), 0);
    home.verify_log();
}

#[test]
fn a_log_that_cannot_be_written_refuses_everything() {
    let home = Home::new();
    let id = home.put(b"text");
    let shard = home.store().join("audit/wal/0000");
    let aside = home.store().join("audit/aside");
    // A file where the shard's directory was, so that even root cannot write.
    fs::rename(&shard, &aside).unwrap();
    fs::write(&shard, "").unwrap();
    let refused = home.run(&["get", "--customer", "acme", &id, "-o", "out"]);
    assert!(matches!(refused.code, 65 | 75), "{} {}", refused.code, refused.err);
    let refused = home.run(&["put", "--customer", "acme", "--exec", "--", "echo"]);
    assert!(matches!(refused.code, 65 | 75), "{} {}", refused.code, refused.err);
    assert_eq!(home.names(), ["data"]);
    fs::remove_file(&shard).unwrap();
    fs::rename(&aside, &shard).unwrap();
    assert_eq!(home.ids(), [&*id]);
    assert_eq!(home.get(&id).ok().text(), "text");
}

#[test]
fn a_hundred_at_once_all_succeed() {
    let home = Home::new();
    let children: Vec<_> = (0..100)
        .map(|index| {
            let text = format!("printf 'number {index}'");
            let args = ["put", "--customer", "acme", "--name", "same", "--exec", "--", "sh", "-c", &text];
            home.spawn(&mut home.command(&args))
        })
        .collect();
    let mut ids: Vec<_> =
        children.into_iter().map(|child| finished(child).ok().text().trim_end().to_owned()).collect();
    ids.sort();
    assert_eq!(home.ids(), ids);
    assert_eq!(
        home.run(&["ls", "--customer", "acme", "--name", "same", "--ids"]).ok().text().lines().count(),
        100
    );
    home.run(&["verify", "--customer", "acme", "--all"]).ok();
    assert!(home.verify_log() >= 400);
    // As many shards as there were programs with something open at once, at most.
    let shards = fs::read_dir(home.store().join("audit/wal")).unwrap().count();
    assert!(shards <= 129, "{shards}");
    home.run(&["audit", "maintain"]).ok();
    home.run(&["audit", "verify"]).ok();
    for _ in 0..3 {
        home.put(b"x-ray");
    }
    assert_eq!(fs::read_dir(home.store().join("audit/wal")).unwrap().count(), shards);
}

#[test]
fn the_time_is_confirmed_with_todays_date_only() {
    let home = Home::new();
    let wrong = home.run(&["audit", "confirm-time", "2020-01-01"]).fails(64);
    wrong.says("this host's clock says that it is").says("name the right day in UTC");
    home.run(&["audit", "confirm-time", "yesterday"]).fails(64);
    home.run(&["audit", "confirm-time"]).fails(64);
    let today = || strongroom::time::Clock::now(&strongroom::system::SystemClock).day().to_string();
    // Midnight may come between the two.
    let confirmed = (0..2).any(|_| home.run(&["audit", "confirm-time", &today()]).code == 0);
    assert!(confirmed);
    let found = home.run(&["audit", "query", "--action", "clock-confirm", "--json"]).ok();
    assert!(found.text().contains(r#""action":"clock-confirm""#), "{}", found.text());
    home.run(&["audit", "verify"]).ok();
}

#[test]
fn killed_at_any_point_it_leaves_the_whole_blob_or_nothing() {
    let home = Home::new();
    let bytes = pattern(24 << 20);
    fs::write(home.path("file"), &bytes).unwrap();
    let mut killed = 0;
    for round in 0..20 {
        let args = ["put", "--customer", "acme", "--name", "nightly", "file"];
        let mut child = home.spawn(&mut home.command(&args));
        std::thread::sleep(Duration::from_millis(round * round + round));
        let _ = child.kill();
        let ended = finished(child);
        killed += u32::from(ended.code == -9);
        // Whatever is listed is whole, and the next run works.
        let listed = home.ids();
        let verified = home.run(&["verify", "--customer", "acme", "--all"]).ok();
        assert_eq!(verified.text().lines().count(), listed.len());
        assert!(verified.text().lines().all(|line| line.ends_with(&format!("{} bytes", bytes.len()))));
    }
    assert!(killed > 3, "{killed}");
    home.run(&["put", "--customer", "acme", "--name", "nightly", "file"]).ok();
    let out = home.run(&["get", "--customer", "acme", "--name", "nightly"]).ok().out;
    assert!(out == bytes);
    home.verify_log();
}

#[test]
fn a_changed_log_does_not_verify() {
    let home = Home::new();
    // Keys, blobs and local KMS keys are not needed, and neither is a private key.
    let audit = home.store().join("audit").to_str().unwrap().to_owned();
    let elsewhere = Home::empty();
    let verify = ["audit", "verify", "--audit-store", &audit];
    let ok = elsewhere.run(&verify).ok();
    assert!(ok.text().contains("\nnote: store: the log's key was taken from here"), "{}", ok.text());
    let last = ok.text().lines().last().unwrap();
    assert!(last.starts_with("ok: ") && last.contains(" 0 wrong"), "{last}");
    let found = elsewhere.run(&[&verify[..], &["--json"]].concat()).ok().json();
    assert_eq!(
        (&found["ok"], &found["wrong"], &found["shards"][0]["shard"]),
        (&true.into(), &0.into(), &0.into())
    );
    let key = found["key"].as_str().unwrap().to_owned();
    let known = elsewhere.run(&[&verify[..], &["--key", &key, "--json"]].concat()).ok().json();
    assert!(
        known["findings"].as_array().unwrap().iter().all(|finding| finding["code"] != "key-from-storage")
    );

    // A checkpoint that is kept shows a log that was rolled back.
    home.run(&["audit", "publish"]).ok();
    let old = elsewhere.path("old");
    copy(&home.store().join("audit"), &old);
    home.put(b"more");
    home.run(&["audit", "publish"]).ok();
    let kept = home.run(&["audit", "checkpoint"]).ok();
    assert!(kept.text().starts_with("strongroom/"), "{}", kept.text());
    fs::write(elsewhere.path("kept"), &kept.out).unwrap();
    let kept = [&verify[..], &["--key", &key, "--checkpoint", "kept"]].concat();
    elsewhere.run(&kept).ok();
    elsewhere.run(&["audit", "verify", "--audit-store", "old", "--key", &key]).ok();
    let rolled =
        elsewhere.run(&["audit", "verify", "--audit-store", "old", "--key", &key, "--checkpoint", "kept"]);
    assert!(rolled.text().contains("the log was rolled back"), "{}", rolled.text());
    rolled.fails(65);
    elsewhere.run(&[&verify[..], &["--key", &key, "--checkpoint", "none"]].concat()).fails(66);
    let other = elsewhere.run(&[&verify[..], &["--key", &"5".repeat(64)]].concat());
    assert!(other.text().contains("wrong: store: names another log key"), "{}", other.text());
    other.fails(65);
    elsewhere.run(&["audit", "verify", "--audit-store", "nowhere"]).fails(66);

    let first = find(home.dir.path(), "0000000000000000");
    let mut bytes = fs::read(&first).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&first, bytes).unwrap();
    let changed = home.run(&["audit", "verify"]);
    assert!(changed.text().contains("\nwrong: wal/0000/0000000000000000: "), "{}", changed.text());
    let changed = changed.fails(65);
    assert!(changed.err.contains("1 thing is wrong with the audit log"), "{}", changed.err);
    let changed = home.run(&["audit", "verify", "--json"]);
    assert_eq!(changed.code, 65);
    assert_eq!(changed.json()["findings"][0]["code"], "unreadable");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn what_was_lost_of_the_derived_is_made_again() {
    let home = Home::new();
    home.put(b"x-ray");
    home.run(&["audit", "publish"]).ok();
    let audit = home.store().join("audit");
    fs::remove_dir_all(audit.join("tile")).unwrap();
    fs::remove_dir_all(audit.join("pin")).unwrap();
    assert_eq!(home.run(&["audit", "verify"]).code, 65);
    home.run(&["audit", "publish", "--restore"]).ok();
    home.run(&["audit", "verify"]).ok();
    // What is there and wrong is not made good, but told.
    let tile = fs::read_dir(audit.join("tile/0/000.p")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&tile).unwrap();
    bytes[5] ^= 1;
    fs::write(&tile, &bytes).unwrap();
    home.run(&["audit", "publish", "--restore"]).fails(65);
    assert_eq!(fs::read(&tile).unwrap(), bytes);
    fs::remove_file(&tile).unwrap();
    home.run(&["audit", "publish", "--restore"]).ok();
    home.run(&["audit", "verify"]).ok();
}

#[test]
fn a_customer_gets_a_view_and_checks_it() {
    let home = Home::new();
    home.run(&["customer", "add", "globex", "--kms", "local"]).ok();
    let blob = home.put(b"x-ray");
    home.get(&blob).ok();
    let made = home.run(&["audit", "view", "--customer", "acme", "-o", "acme.view"]).ok();
    assert!(made.text().contains(" records of customer "), "{}", made.text());
    home.run(&["audit", "view", "--customer", "acme", "-o", "acme.view"]).fails(73).says("--force");
    let shown = home.run(&["customer", "show", "globex", "--json"]).ok().json();
    let text = fs::read_to_string(home.path("acme.view")).unwrap();
    assert!(!text.contains(shown["customer"].as_str().unwrap()), "another customer is in it");

    // Elsewhere, without a store.
    let customer = Home::empty();
    fs::copy(home.path("acme.view"), customer.path("acme.view")).unwrap();
    let marker = fs::read(home.store().join("audit/store")).unwrap();
    let marker: Value = serde_json::from_slice(&marker).unwrap();
    let key = marker["log_key"].as_str().unwrap();
    let check = |more: &[&str]| customer.run(&[&["audit", "check-view", "acme.view"][..], more].concat());
    check(&[]).fails(64).says("--key");
    let good = check(&["--key", key]).ok();
    let lines: Vec<&str> = good.text().lines().collect();
    assert!(lines[1].starts_with("shard 0000: ") && lines[1].contains(" and 1 later, "), "{lines:?}");
    assert!(lines.last().unwrap().starts_with("complete as of "), "{lines:?}");
    let public = serde_json::from_value(marker["log_key"].clone()).unwrap();
    let named = |name: String| VerifierKey::ed25519(name.parse().unwrap(), public).to_string();
    let vkey = named(format!("strongroom/{}", marker["store"].as_str().unwrap()));
    check(&["--key", &named("strongroom/other".to_owned())]).fails(65).says("another store's");
    assert_eq!(check(&["--key", &vkey]).ok().text(), good.text());
    let json = check(&["--key", key, "--json"]).ok().json();
    assert_eq!(
        (&json["complete"], &json["findings"]),
        (&Value::from(true), &Value::from(Vec::<Value>::new()))
    );
    assert_eq!(
        json["shards"][0]["records"].as_u64().unwrap(),
        json["shards"][0]["counted"].as_u64().unwrap() + 1
    );

    // A witness of the customer's own that has not seen it.
    let witness = customer.run(&["witness", "key", "--name", "example.com/w", "--key", "w.key"]).ok();
    let witness = witness.text().trim_end();
    let unseen = check(&["--key", key, "--witness", witness]);
    assert_eq!(
        (unseen.code, unseen.text().contains("0 of the witnesses cosigned it, and 1 have to")),
        (65, true)
    );
    check(&["--key", key, "--witness", witness, "--quorum", "0"]).ok();
    check(&["--key", key, "--witness", witness, "--quorum", "2"]).fails(64);
    check(&["--key", key, "--witness", &vkey]).fails(64);
    check(&["--key", witness]).fails(65).says("another store's");
    check(&["--key", &key.replace(|_: char| true, "0")]).fails(65);
    assert!(customer.run(&["audit", "check-view", "none", "--key", key]).fails(66).out.is_empty());

    // Without its third record, and without its first line.
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    lines.remove(3);
    fs::write(customer.path("acme.view"), lines.concat()).unwrap();
    let short = check(&["--key", key]);
    assert!(short.text().contains("INCOMPLETE: shard 0000: record 3 is missing\n"), "{}", short.text());
    assert!(!short.text().contains("complete as of"));
    let json = check(&["--key", key, "--json"]);
    let missing = &json.json()["findings"][0];
    assert_eq!((missing["what"].as_str(), missing["first"].as_u64()), (Some("missing"), Some(3)));
    assert_eq!((short.fails(65).code, json.code), (65, 65));
    fs::write(customer.path("acme.view"), lines[1..].concat()).unwrap();
    check(&["--key", key]).fails(65).says("first line");

    // By id, and to a pipe; the views before are on the record.
    let id = home.run(&["customer", "show", "acme", "--json"]).ok().json()["customer"]
        .as_str()
        .unwrap()
        .to_owned();
    let piped = home.run(&["audit", "view", "--customer", &id, "-o", "-"]).ok();
    assert!(piped.text().lines().count() > text.lines().count());
    home.run(&["audit", "view", "--customer", "nobody", "-o", "nobody.view"]).fails(66);
    let unheard = "0000000000000000000000000g";
    home.run(&["audit", "view", "--customer", unheard, "-o", "nobody.view"]).fails(66);
    assert!(!home.path("nobody.view").exists());
    assert_eq!(customer.names(), ["acme.view", "w.key"], "nothing is made by checking");
}

/// Lines of JSON.
fn lines(ran: &Ran) -> Vec<Value> {
    ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_log_is_asked() {
    let home = Home::new();
    let first = home.put(b"one");
    home.run(&[
        "--principal",
        "person:p-17",
        "--purpose",
        "TREAT",
        "get",
        "--customer",
        "acme",
        &first,
        "-o",
        "-",
    ])
    .ok();
    // The first customer in the log is the store itself, by its register.
    let shown = home.run(&["--json", "customer", "show", "acme"]).ok().json();
    let customer = shown["customer"].as_str().unwrap().to_owned();
    let all = lines(&home.run(&["audit", "query", "--json", "--limit", "1000"]).ok());
    let count = |fits: &dyn Fn(&Value) -> bool| all.iter().filter(|line| fits(line)).count();
    let ask = |args: &[&str]| {
        let ran = home.run(&[&["audit", "query", "--json", "--limit", "1000"], args].concat()).ok();
        assert_eq!(ran.err, "", "the log's key is there, and one page is enough");
        lines(&ran)
    };
    let opened = ask(&["--by", "person:p-17", "--for", "TREAT", "--action", "open", "--blob", &first]);
    assert_eq!(opened.len(), 1, "{opened:?}");
    assert_eq!((&opened[0]["outcome"]["result"], &opened[0]["outcome"]["bytes"]), (&"ok".into(), &3.into()));
    let request = opened[0]["request"].as_str().unwrap();
    assert_eq!(ask(&["--request", request]), opened);
    assert_eq!(ask(&["--customer", &customer]).len(), count(&|line| line["customer"] == *customer));
    assert_eq!(ask(&["--outcome", "ok"]).len(), count(&|line| line["outcome"]["result"] == "ok"));
    assert_eq!(ask(&["--outcome", "open"]), [] as [Value; 0]);
    let time = opened[0]["time"].as_str().unwrap();
    let day = &time[..10];
    assert_eq!(
        ask(&["--day", day, "--blob", &first]),
        ask(&["--since", day, "--until", day, "--blob", &first])
    );
    assert!(ask(&["--since", time]).contains(&opened[0]));
    assert!(!ask(&["--until", time]).contains(&opened[0]));
    assert_eq!(ask(&["--day", "2001-01-01"]), [] as [Value; 0]);

    // Pages, one after the other.
    let mut paged = Vec::new();
    let mut more = Vec::new();
    loop {
        let after: Vec<&str> = more.iter().flat_map(|next: &String| ["--after", next]).collect();
        let ran = home.run(&[&["audit", "query", "--json", "--limit", "3"], &*after].concat()).ok();
        let page = lines(&ran);
        assert!((1..=3).contains(&page.len()));
        paged.extend(page);
        if ran.err.is_empty() {
            break;
        }
        let next: Value = serde_json::from_str(&ran.err).unwrap();
        more = vec![next["next"].as_str().unwrap().to_owned()];
    }
    assert_eq!(paged, all);
    let ran = home.run(&["audit", "query", "--limit", "1"]).ok();
    assert!(ran.err.starts_with("strongroom: there is more: ask again with --after "), "{}", ran.err);
    assert_eq!(ran.text().lines().count(), 2, "{}", ran.text());

    // A label takes keys, and then people see labels.
    let table = home.run(&["audit", "query", "--customer", "acme", "--blob", &first]).ok();
    assert!(table.text().contains("acme") && !table.text().contains(&customer), "{}", table.text());
    let table = home.run(&["audit", "query", "--customer", &customer, "--blob", &first]).ok();
    assert!(!table.text().contains("acme") && table.text().contains(&customer), "{}", table.text());
    home.run(&["audit", "query", "--customer", "nobody"]).fails(66);
    home.run(&["audit", "query", "--principal", "person:p-17"]).fails(64).says("--by");
    home.run(&["audit", "export", "--format", "fhir", "--purpose", "TREAT"]).fails(64).says("--for");
    home.run(&["audit", "query", "--day", "2026-01-01", "--since", "2026-01-01"]).fails(64);
    home.run(&["audit", "query", "--limit", "0"]).fails(64);

    // Exports: the same operations.
    let exported = home.run(&["audit", "export", "--format", "jsonl", "--customer", &customer]).ok();
    assert_eq!(
        exported.text(),
        home.run(&["audit", "query", "--json", "--limit", "1000", "--customer", &customer]).ok().text()
    );
    let args = ["audit", "export", "--format", "fhir", "--blob", &first, "-o", "events.ndjson"];
    home.run(&args).ok();
    let events = fs::read_to_string(home.path("events.ndjson")).unwrap();
    assert_eq!(events.lines().count(), ask(&["--blob", &first]).len());
    for event in events.lines() {
        assert_eq!(serde_json::from_str::<Value>(event).unwrap()["resourceType"], "AuditEvent");
    }
    home.run(&args).fails(73);
    let forced = home.run(&[&args[..], &["--force", "--json"]].concat()).ok().json();
    assert_eq!(forced["operations"], events.lines().count());
}

/// A home with nothing but a copy of another's audit storage.
fn auditor(home: &Home) -> Home {
    let auditor = Home::empty();
    let copied =
        Command::new("cp").arg("-r").arg(home.store().join("audit")).arg(auditor.path("audit")).status();
    assert!(copied.unwrap().success());
    auditor
}

#[test]
fn an_auditor_needs_the_audit_storage_alone() {
    let home = Home::new();
    let blob = home.put(b"one");
    let auditor = auditor(&home);
    let log_key = Value::from(fs::read_to_string(home.store().join("audit/store")).unwrap());
    let marker: Value = serde_json::from_str(log_key.as_str().unwrap()).unwrap();
    let (store, key) = (marker["store"].as_str().unwrap(), marker["log_key"].as_str().unwrap());
    let before = auditor.names();
    let at = ["--audit-store", "audit", "audit"];
    let run = |args: &[&str]| auditor.run(&[&at[..], args].concat());

    for args in [&["query", "--json", "--blob", &blob][..], &["export", "--format", "jsonl", "--blob", &blob]]
    {
        let theirs = run(args).ok();
        assert!(
            theirs.err.starts_with("strongroom: the log's key is taken from its own storage"),
            "{}",
            theirs.err
        );
        let with_key = run(&[args, &["--key", key]].concat()).ok();
        assert_eq!(with_key.err, "");
        let ours = home.run(&[&["audit"], args].concat()).ok();
        assert!(ours.text() == theirs.text() && ours.text() == with_key.text());
        assert!(ours.text().lines().count() > 0);
    }
    assert_eq!(run(&["tail", "--json", "-n", "3"]).ok().text().lines().count(), 3);
    assert!(run(&["query"]).ok().text().contains(&blob));
    assert_eq!(auditor.names(), before, "nothing was made");

    run(&["query", "--key", &"ab".repeat(32)]).fails(65).says("another key");
    let public = strongroom::tlog::PublicKey::from_bytes(
        data_encoding::HEXLOWER.decode(key.as_bytes()).unwrap().try_into().unwrap(),
    );
    let named =
        |name: &str| strongroom::tlog::VerifierKey::ed25519(name.parse().unwrap(), public).to_string();
    run(&["query", "--key", &named(&format!("strongroom/{store}"))]).ok();
    run(&["query", "--key", &named(&format!("strongroom/{store}/0003"))]).ok();
    run(&["query", "--key", &named("strongroom/019mx0xqp7xz8cphp0tt9dmxsc")]).fails(65).says("another store");
    run(&["query", "--customer", "acme"]).fails(66);
    // Of an id it says whether the log knows it, without the store.
    let nobody = "00000000000000000000000000";
    for args in [
        &["query", "--customer", nobody, "--key", key][..],
        &["query", "--json", "--customer", nobody, "--key", key],
        &["export", "--format", "jsonl", "--customer", nobody, "--key", key],
        &["proof", "0:0", "--customer", nobody, "--key", key],
    ] {
        let ran = run(args);
        assert_eq!((ran.code, ran.out), (66, Vec::new()), "{args:?}: {}", ran.err);
    }
    let list = ["--audit-store", "audit", "certificate", "list", "--customer", nobody, "--key", key];
    assert_eq!(auditor.run(&list).fails(66).out, b"");
    let sealed = run(&["query", "--json", "--key", key, "--blob", &blob]).ok().text().to_owned();
    let sealed: Value = serde_json::from_str(sealed.lines().next().unwrap()).unwrap();
    let customer = sealed["customer"].as_str().unwrap();
    run(&["query", "--customer", customer, "--key", key]).ok();
    let list = ["--audit-store", "audit", "certificate", "list", "--customer", customer, "--key", key];
    auditor.run(&list).ok();
    auditor.run(&["--audit-store", "nowhere", "audit", "query"]).fails(66).says("no audit log");
    auditor.run(&["--audit-store", "audit", "--log-key", "nowhere", "audit", "query"]).fails(78);

    // What was changed is an error, and not left out.
    let commits = auditor.path("audit/wal/0000");
    let commit = fs::read_dir(commits).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    let mut bytes = fs::read(&commit).unwrap();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    fs::write(&commit, bytes).unwrap();
    run(&["query", "--key", key]).fails(65);
    let exported = run(&["export", "--format", "jsonl", "--key", key, "-o", "out"]).fails(65);
    assert!(exported.out.is_empty() && !auditor.path("out").exists());
}

#[test]
fn a_record_is_proven_to_an_outsider() {
    let home = Home::new();
    let put = ["put", "--no-publish", "--customer", "acme", "-"];
    let blob = home.run_with_input(&put, b"one").ok().text().trim_end().to_owned();
    let sealed = &lines(&home.run(&["audit", "query", "--json", "--action", "seal"]).ok())[0];
    let request = sealed["request"].as_str().unwrap();
    let place = |of: &Value| format!("{}:{}", of["shard"], of["index"]);
    let (intent, outcome) = (place(sealed), place(&sealed["outcome"]));
    home.run(&["audit", "proof", request]).fails(66).says("publish");

    home.run(&["audit", "publish"]).ok();
    let made = home.run(&["init", "--json"]).ok().json();
    let public = made["log_key"].as_str().unwrap().to_owned();
    for (args, kind) in [
        (&[request][..], "intent"),
        (&[&intent], "intent"),
        (&[request, "--outcome"], "outcome"),
        (&[&outcome], "outcome"),
    ] {
        home.run(&[&["audit", "proof", "-o", "p.tlog-proof", "--force"], args].concat()).ok();
        // Elsewhere, with the file and the key.
        let outsider = Home::empty();
        fs::copy(home.path("p.tlog-proof"), outsider.path("p")).unwrap();
        let checked = outsider.run(&["audit", "check-proof", "p", "--key", &public, "--json"]).ok().json();
        assert_eq!(checked["record"]["event"][kind]["request"], request, "{checked}");
        assert!(outsider.run(&["audit", "check-proof", "p", "--key", &public]).ok().text().contains(request));
        outsider.run(&["audit", "check-proof", "p", "--key", &"ab".repeat(32)]).fails(65);
        outsider.run(&["audit", "check-proof", "p", "--key", &public, "--quorum", "1"]).fails(64);
        let stranger = strongroom::tlog::PublicKey::from_bytes([3; 32]);
        let witness = strongroom::tlog::VerifierKey::cosigner("example.com/w".parse().unwrap(), stranger);
        let witnessed = ["audit", "check-proof", "p", "--key", &public, "--witness", &witness.to_string()];
        outsider.run(&witnessed).fails(65);
        outsider.run(&[&witnessed[..], &["--quorum", "0"]].concat()).ok();
        let text = fs::read_to_string(outsider.path("p")).unwrap();
        let index = text.lines().find(|line| line.starts_with("index ")).unwrap();
        fs::write(outsider.path("p"), text.replace(index, "index 0")).unwrap();
        outsider.run(&["audit", "check-proof", "p", "--key", &public]).fails(65);
    }
    let printed = home.run(&["audit", "proof", &intent]).ok();
    assert!(printed.text().starts_with("c2sp.org/tlog-proof@v1\n"));
    assert!(!printed.text().contains(&blob), "the record is in base64");
    home.run(&["audit", "proof", "0:99999"]).fails(66);
    home.run(&["audit", "proof", "7:0"]).fails(66);
    home.run(&["audit", "proof", &blob]).fails(66);
    home.run(&["audit", "proof", &intent, "--outcome"]).fails(64);
    home.run(&["audit", "check-proof", "nothing", "--key", &public]).fails(66);
}

/// The file of this name somewhere below a commit log.
fn find(below: &std::path::Path, name: &str) -> std::path::PathBuf {
    let mut waiting = vec![below.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.ends_with(std::path::Path::new("wal/0000").join(name)) {
                return path;
            }
        }
    }
    panic!("no commit {name}");
}
