//! Rotation of the audit log's signing key as two people and an auditor meet it: the program
//! itself, in a home of its own.
#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

struct Home(tempfile::TempDir);

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    #[track_caller]
    fn fails(self, code: i32, told: &str) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(self.err.contains(told), "{}", self.err);
    }
}

impl Home {
    fn run(&self, args: &[&str]) -> Ran {
        let home = self.0.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.env_clear().env("HOME", home).env("XDG_DATA_HOME", home.join("data"));
        let output = command.current_dir(home).stdin(Stdio::null()).args(args).output().unwrap();
        let code = output.status.code().expect("it ended by itself");
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        Ran { code, out, err }
    }

    fn line(&self, line: &str) -> Ran {
        self.run(&line.split(' ').collect::<Vec<_>>())
    }

    #[track_caller]
    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.line(&format!("--json {line}")).ok()).unwrap()
    }
}

#[test]
fn two_people_replace_the_key_and_an_auditor_follows() {
    let home = Home(tempfile::tempdir().unwrap());
    let person = |name: &str| {
        let line = format!("--principal person:{name} person keygen -o {name}.key");
        home.line(&line).ok().trim_end().to_owned()
    };
    let [a, b] = ["a", "b"].map(person);
    let made = home.json(&format!("init --person {a} --person {b}"));
    let old = made["log_key"].as_str().unwrap().to_owned();
    let both = "--other-log-key next.key";

    home.line("audit new-key").fails(64, "--other-log-key");
    let new = home.json(&format!("{both} audit new-key"))["key"].as_str().unwrap().to_owned();
    assert_eq!(home.line(&format!("{both} audit new-key")).ok().trim_end(), new, "it is made once");
    let asked = home.json(&format!("order request rotate-log-key --new-key {new} --sign-with a.key"));
    let order = asked["order"].as_str().unwrap().to_owned();
    let rotate = format!("{both} audit rotate-key {order}");
    assert_ne!(home.line(&rotate).code, 0, "one person is not two");
    let done = home.json(&format!("order approve {order} --sign-with b.key"));
    assert_eq!(done["done"], "approved");
    // Without the new key nothing happens.
    home.line(&format!("audit rotate-key {order}")).fails(78, "--other-log-key");
    let rotated = home.json(&rotate);
    assert_eq!((&rotated["number"], &rotated["key"]), (&2.into(), &Value::from(new.clone())));
    assert_eq!(home.json(&rotate)["resumed"], true);

    // Whoever has the old key alone writes nothing more.
    home.line("customer list").fails(78, "key number 2");
    home.line(&format!("{both} customer list")).ok();
    home.line("--log-key next.key customer list").ok();

    let keys = home.line("--json audit keys").ok();
    let keys: Vec<Value> = keys.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(keys.len(), 2);
    assert_eq!((&keys[0]["key"], &keys[1]["key"]), (&Value::from(old.clone()), &Value::from(new.clone())));
    assert_eq!(
        (&keys[1]["order"], &keys[1]["approved_by"]["principal"]),
        (&order.into(), &"person:b".into())
    );
    assert!(home.line("audit keys").ok().contains("person:a, person:b"));
    let statement = home.line("audit keys --change 2").ok();
    fs::write(home.0.path().join("change"), statement).unwrap();
    assert_ne!(home.line("audit keys --change 3").code, 0);

    home.line(&format!("{both} audit publish")).ok();
    for key in [&old, &new] {
        home.line(&format!("audit verify --key {key}")).ok();
        home.line(&format!("audit checkpoint --key {key}")).ok();
    }
    // A proof that the new key alone signed, for one who has the old key and the statement.
    home.line("--log-key next.key customer add acme --kms local").ok();
    home.line("--log-key next.key audit maintain").ok();
    let last = home.line("--log-key next.key --json audit query --limit 1").ok();
    let first: Value = serde_json::from_str(last.lines().next().unwrap()).unwrap();
    let request = first["request"].as_str().unwrap();
    home.line(&format!("audit proof {request} --key {old} -o proof")).ok();
    home.line(&format!("audit check-proof proof --key {new}")).ok();
    home.line(&format!("audit check-proof proof --key {old}")).fails(65, "checkpoint");
    home.line(&format!("audit check-proof proof --key {old} --key-change change")).ok();
}
