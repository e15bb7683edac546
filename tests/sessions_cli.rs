//! `strongroom session`, as a customer whose keys are in its own hand types it, and as those do whom it
//! lets in: the program itself, on a store.
#![cfg(feature = "cli")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

const NOBODYS: &str = "019mx0xqp7xz8cphp0tt9dmxsc";

/// What a run of the program left.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }

    #[track_caller]
    fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Denied, because of `why`, with a hint that says `hint`.
    #[track_caller]
    fn denied(self, why: &str, hint: &str) {
        assert_eq!(self.code, Some(77), "{}", self.err);
        assert!(self.out.is_empty(), "{}", self.out);
        let hinted = self.err.lines().find(|line| line.starts_with("hint: ")).unwrap_or_default();
        assert!(self.err.contains(why) && hinted.contains(hint), "{}", self.err);
    }
}

struct Home(tempfile::TempDir);

impl Home {
    /// With a store, a customer `own` whose keys are in its own hand, and `acme`, whose keys are in ours.
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        home.run("init -q").ok();
        home.run("customer add own --kms local --tenancy customer -q").ok();
        home.run("customer add acme --kms local -q").ok();
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.env_clear().env("HOME", self.path()).env("XDG_DATA_HOME", self.path().join("data"));
        command.current_dir(self.path()).stdin(Stdio::null()).args(arguments.split(' '));
        command
    }

    fn run(&self, arguments: &str) -> Ran {
        Self::ran(&mut self.command(arguments))
    }

    fn ran(command: &mut Command) -> Ran {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn put(&self, more: &str, text: &str) -> String {
        fs::write(self.path().join("file"), text).unwrap();
        self.run(&format!("{more}put --customer own file")).ok().trim().to_owned()
    }
}

#[test]
fn blobs_are_sealed_always_and_opened_within_a_session_until_it_ends() {
    let home = Home::new();
    let before = home.put("", "sealed before");
    let get = format!("get --customer own {before} -o -");
    home.run(&get).denied("blobs open within a session only", "`strongroom session open`");
    home.run(&format!("stat --customer own {before}")).denied("within a session only", "--session");
    home.run(&format!("--session {NOBODYS} {get}")).denied("no such session", "`strongroom session open`");

    let opened = home.run("--principal service:clinic session open --customer own --idle 30m");
    assert!(opened.err.contains("until nobody has used it for 30m, for whoever may read"), "{}", opened.err);
    let id = opened.ok().trim().to_owned();
    assert_eq!(home.run(&format!("--session {id} {get}")).ok(), "sealed before");
    let named = Home::ran(home.command(&get).env("STRONGROOM_SESSION", &id));
    assert_eq!(named.ok(), "sealed before");
    let within = home.put(&format!("--session {id} "), "sealed within");
    home.run(&format!("--session {id} restore --customer own --to back -q")).ok();
    let restored = |blob: &str| fs::read_to_string(home.path().join("back/by-id").join(blob)).unwrap();
    assert_eq!((restored(&before), restored(&within)), ("sealed before".into(), "sealed within".into()));
    let listed = home.run("session list --customer own --json").json();
    assert_eq!((&listed["session"], &listed["state"]), (&id.as_str().into(), &"open".into()));
    assert_eq!((&listed["why"], &listed["only"]), (&Value::Null, &Value::Null));
    assert_eq!((&listed["idle_seconds"], &listed["absolute_seconds"]), (&1800.into(), &28_800.into()));

    let ended = home.run(&format!("session end --customer own {id}")).ok();
    let row: Vec<&str> = ended.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[1], *row.last().unwrap()), (id.as_str(), "ended", "-"));
    home.run(&format!("--session {id} {get}")).denied("the session is over", "`strongroom session request`");
    let ended = home.run(&format!("session end --customer own {id} --json")).json();
    assert_eq!((&ended["state"], &ended["why"]), (&"over".into(), &"asked".into()));
    home.put("", "sealed after");
    let denials = home.run("audit query --action open --outcome denied --json").ok();
    assert_eq!(denials.lines().count(), 3, "{denials}");
    let opened = home.run("audit query --action session-open --json").json();
    assert_eq!(opened["principal"], "service:clinic");
}

#[test]
fn who_asks_is_let_in_alone_and_for_what_they_said() {
    let home = Home::new();
    let blob = home.put("", "a secret");
    let asking = "--principal person:p-17 --purpose TREAT";
    let asked = home.run(&format!("{asking} session request --customer own --absolute 5m"));
    let id = asked.out.trim().to_owned();
    assert!(asked.err.contains(&format!("strongroom session approve --customer own {id}")), "{}", asked.err);
    asked.ok();
    let listed = home.run("session requests --customer own --json").json();
    assert_eq!(listed["access_request"], id.as_str());
    assert_eq!(listed["by"], serde_json::json!({ "principal": "person:p-17", "purpose": "TREAT" }));
    assert_eq!((&listed["idle_seconds"], &listed["absolute_seconds"]), (&300.into(), &300.into()));
    assert!(home.run("session requests --customer own").ok().contains("person:p-17 (TREAT)"));
    assert_eq!(home.run("session list --customer own --json").ok(), "", "it is no session yet");

    let approve = format!("session approve --customer own {id}");
    let theirs = home.run(&format!("{asking} {approve}"));
    assert_eq!(theirs.code, Some(77));
    assert!(theirs.err.contains("nobody approves what they asked for themselves"), "{}", theirs.err);
    let clinic = format!("--principal service:clinic {approve}");
    let approved = home.run(&clinic);
    assert!(approved.err.contains("for person:p-17 (TREAT) alone"), "{}", approved.err);
    assert_eq!(approved.ok().trim(), id);
    assert_eq!(home.run(&clinic).code, Some(77), "once");
    assert_eq!(home.run("session requests --customer own --json").ok(), "");

    let get = format!("--session {id} get --customer own {blob} -o -");
    assert_eq!(home.run(&format!("{asking} {get}")).ok(), "a secret");
    home.run(&format!("--principal person:p-18 --purpose TREAT {get}"))
        .denied("another principal's", "`strongroom session request`");
    home.run(&format!("--principal person:p-17 --purpose HRESCH {get}"))
        .denied("for another purpose", "--purpose");
}

#[test]
fn what_no_session_is_for_or_has_is_refused() {
    let home = Home::new();
    let wrong = home.run("session open --customer own --idle 2h --absolute 1h");
    assert_eq!(wrong.code, Some(64));
    assert!(wrong.err.contains("idle for 1 minute at least"), "{}", wrong.err);
    let held = home.run("session open --customer acme");
    assert_eq!(held.code, Some(64));
    assert!(held.err.contains("there are no sessions, and blobs open without"), "{}", held.err);
    for none in ["session end", "session approve"] {
        assert_eq!(home.run(&format!("{none} --customer own {NOBODYS}")).code, Some(66), "{none}");
    }
    assert_eq!(home.run("session list --customer own --json").ok(), "");
    let unfit = Home::ran(home.command("ls --customer acme").env("STRONGROOM_SESSION", "JANE"));
    assert_eq!(unfit.code, Some(64));
    assert!(unfit.err.contains("STRONGROOM_SESSION") && !unfit.err.contains("JANE"), "{}", unfit.err);
    // What is in our hand takes none, and does not mind one.
    fs::write(home.path().join("file"), "held").unwrap();
    let blob = home.run("put --customer acme file").ok();
    let get = format!("--session {NOBODYS} get --customer acme {} -o -", blob.trim());
    assert_eq!(home.run(&get).ok(), "held");
}
