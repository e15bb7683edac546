//! Destruction as a person or a cron job meets it: the program itself, in a home of its
//! own. Its clock cannot be set, so what takes days was made before by the library, in a
//! store whose time began twelve days ago.
#![cfg(feature = "cli")]

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::id::BlobId;
use strongroom::kms::KmsRegistry;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::room::{KeyChoice, NewCustomer, SealOptions, Strongroom};
use strongroom::store::{CreateRoot, StorageUrls, Storages};
use strongroom::system::{SystemClock, SystemEntropy};
use strongroom::time::{Clock, Timestamp};

use common::TestClock;

/// A home with the keys `a.key`, `b.key`, `c.key` and `x.key` in it.
struct Home(tempfile::TempDir);

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }

    /// On standard output or standard error.
    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(self.out.contains(text) || self.err.contains(text), "{text}: {}{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

impl Home {
    fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With a store in which `person:a` and `person:b` may sign, and the customer `acme`.
    fn new() -> Self {
        let home = Self::empty();
        let [a, b, _, _] = ["a", "b", "c", "x"].map(|name| home.keygen(name));
        home.run(&["init", "-q", "--person", &a, "--person", &b]).ok();
        home.run(&["customer", "add", "acme", "--kms", "local", "--retention", "P30D", "--window", "P1D"])
            .ok();
        home
    }

    fn keygen(&self, name: &str) -> String {
        let (person, file) = (format!("person:{name}"), format!("{name}.key"));
        self.run(&["--principal", &person, "person", "keygen", "-o", &file]).ok().out.trim_end().to_owned()
    }

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

    /// What is printed with `--json`, as one object.
    #[track_caller]
    fn json(&self, line: &str) -> Value {
        self.line(&format!("--json {line}")).ok().json()
    }

    fn write(&self, name: &str, bytes: &str) {
        fs::write(self.0.path().join(name), bytes).unwrap();
    }

    /// Seals a blob: its id and its day.
    fn put(&self, name: &str) -> (String, String) {
        self.write("blob", "a secret");
        let put = self.json(&format!("put --customer acme --name {name} blob"));
        (text(&put["blob"]), text(&put["retain_until"]))
    }
}

#[test]
fn a_hold_is_placed_by_one_and_released_by_two() {
    let home = Home::new();
    let (blob, day) = home.put("reports/JANE");
    let placed = home.json("hold place --customer acme --name reports/JANE");
    assert_eq!((text(&placed["scope"]), text(&placed["blob"])), ("blob".into(), blob));
    assert_eq!(text(&placed["state"]), "complete");
    let hold = text(&placed["hold"]);
    home.line("hold place --customer acme --all").ok().says("all complete");
    assert_eq!(text(&home.json(&format!("hold place --customer acme --day {day}"))["day"]), day);

    // By one person it is only asked for.
    let asked = home.json(&format!("hold release --customer acme {hold} --sign-with a.key"));
    let order = text(&asked["order"]);
    assert_eq!(text(&asked["approve"]), format!("strongroom order approve {order} --sign-with FILE"));
    home.line(&format!("order approve {order} --sign-with a.key")).fails(77).says("did not ask for it");
    home.line(&format!("order approve {order} --sign-with x.key")).fails(77).says("person list");
    let held = |home: &Home| {
        let listed = home.line("--json hold list --customer acme").ok().lines();
        let found = listed.into_iter().find(|found| found["hold"] == hold.as_str()).unwrap();
        (text(&found["state"]), found["released_by"].clone())
    };
    assert_eq!(held(&home), ("complete".into(), Value::Null));
    home.line(&format!("order approve {order} --sign-with b.key")).ok().says("done: version");
    assert_eq!(held(&home), ("released".into(), order.as_str().into()));
    assert_eq!(text(&home.json(&format!("order approve {order} --sign-with b.key"))["done"]), "before");
    home.line(&format!("hold release --customer acme {hold} --sign-with a.key")).fails(77).says("already");
    home.line(&format!("hold release --customer acme {order} --sign-with a.key")).fails(66).says("hold list");
    home.line("hold list --customer acme").ok().says("RELEASED BY ORDER").says(&order).says("all");
    // The other two stand.
    let status = home.json("shred status --customer acme");
    assert_eq!(status["customers"][0]["holds"].as_array().unwrap().len(), 2);
}

#[test]
fn a_day_is_destroyed_early_by_two_and_taken_back_by_one() {
    let home = Home::new();
    let (_, day) = home.put("reports/a");
    home.line("shred plan").ok();
    assert!(home.line("--json shred plan").ok().out.is_empty());
    home.line("shred status").ok().says("nothing is under way");
    let asked =
        home.line(&format!("shred request --customer acme --day {day} --sign-with a.key --valid 2d")).ok();
    let asked = asked.says("another registered person").says("order show").says(&day);
    let listed = home.line("--json order list").ok().lines();
    assert_eq!((listed.len(), text(&listed[0]["state"])), (1, "requested".into()));
    let order = text(&listed[0]["order"]);
    assert!(asked.out.contains(&order));
    let shown = home.line(&format!("order show {order}")).ok();
    for part in
        [&order, &day, "acme (", "version ", "SHA-256 ", "person:a (a registered person)", "approve it"]
    {
        assert!(shown.out.contains(part), "{part}: {}", shown.out);
    }
    home.line("shred status").ok().says("requested").says("acme");

    home.line(&format!("shred approve {order} --sign-with a.key")).fails(77);
    let done = home.json(&format!("shred approve {order} --sign-with b.key"));
    let key = text(&done["keys"][0]);
    assert_eq!((text(&done["done"]), done["keys"].as_array().unwrap().len()), ("pended".into(), 1));
    let shown = home.json(&format!("order show {order}"));
    assert_eq!(
        (text(&shown["state"]), text(&shown["what"]["destroy-days"]["days"][0])),
        ("done".into(), day.clone())
    );
    let signed: Vec<_> = shown["signatures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|by| (text(&by["by"]), text(&by["standing"])))
        .collect();
    assert_eq!(signed, [("person:a".into(), "good".into()), ("person:b".into(), "good".into())]);

    let planned = home.line("--json shred plan --customer acme").ok().lines();
    assert_eq!(planned.len(), 1);
    let plan = &planned[0];
    assert_eq!(
        (text(&plan["key"]), text(&plan["verdict"]), text(&plan["order"])),
        (key.clone(), "waits".into(), order.clone())
    );
    assert_eq!((&plan["blobs"], &plan["bytes"], &plan["uncertain"]), (&1.into(), &8.into(), &0.into()));
    home.line("shred plan").ok().says("in the window until").says(&order);
    // The window is a day: nothing is dropped yet.
    home.line("shred run").ok().says("nothing was due");
    let status = home.line("shred status").ok().says("IN THE WINDOW").says(&key);
    assert!(!status.out.contains("requested"), "{}", status.out);
    let window = &home.json("shred status")["customers"][0]["window"];
    assert_eq!((text(&window[0]["key"]), text(&window[0]["until"])), (key.clone(), text(&done["until"])));

    home.line("shred cancel --customer acme --day 2020-01-01").fails(66).says("shred status");
    let cancelled = home.json(&format!("shred cancel --customer acme --day {day}"));
    assert_eq!(cancelled["cancelled"], serde_json::json!([key]));
    home.line(&format!("shred cancel --customer acme --key {key}")).fails(77);
    home.line(&format!("shred cancel --customer acme --key {order}")).fails(66);
    home.line("shred status").ok().says("nothing is under way");
    home.line("get --customer acme --name reports/a").ok().says("a secret");
    // The order was used; it does nothing again.
    assert_eq!(text(&home.json(&format!("shred approve {order} --sign-with b.key"))["done"]), "before");
}

#[test]
fn one_blob_is_withdrawn_at_once() {
    let home = Home::new();
    home.put("reports/JANE");
    let (victim, _) = home.put("reports/JANE");
    let asked = home.json("shred request --customer acme --name reports/JANE --sign-with b.key");
    assert_eq!(text(&asked["what"]["destroy-blob"]["blob"]), victim, "the newest of the name");
    let order = text(&asked["order"]);
    home.line(&format!("shred approve {order} --sign-with a.key")).ok().says("in the window until");
    let refused = home.line(&format!("get --customer acme {victim}")).fails(77);
    assert!(!refused.err.contains("JANE"));
    home.line("get --customer acme --name reports/JANE --nth 2").ok().says("a secret");
}

#[test]
fn a_key_signs_where_the_store_is_not() {
    let home = Home::new();
    let elsewhere = |line: &str| {
        let ran = home.line(&format!("--store /nonexistent {line}"));
        home.write("signed", &ran.out);
        ran
    };
    home.line("order draft shorten-retention --customer acme --retention P1D").fails(64).says("--principal");
    let what = "shorten-retention --customer acme --retention P20D";
    let draft = home.line(&format!("--principal person:a order draft {what} --valid 36h")).ok();
    home.write("draft", &draft.out);
    assert!(home.line("--json order list").ok().out.is_empty(), "a draft is not kept");
    home.line("order submit draft").fails(64);
    elsewhere("order sign draft --sign-with b.key").fails(64);
    home.line("order submit signed").fails(64);
    elsewhere("order sign draft --sign-with a.key").ok().says("shorten retention to P20D");
    let asked = home.line("order submit signed").ok().says("order approve");
    let order = text(&home.line("--json order list").ok().lines()[0]["order"]);
    assert!(asked.out.contains(&order));

    home.write("asked", &home.line(&format!("order show {order} --note")).ok().out);
    elsewhere("order sign asked --sign-with a.key").fails(77).says("another person");
    elsewhere("order sign asked --sign-with x.key").ok();
    home.line("order submit signed").fails(77);
    elsewhere("order sign asked --sign-with b.key").ok();
    home.write("changed", &fs::read_to_string(home.0.path().join("signed")).unwrap().replace("P20D", "P10D"));
    let changed = home.line("order submit changed");
    assert!(matches!(changed.code, 65 | 77), "{}: {}", changed.code, changed.err);
    assert_eq!(home.json("retention show acme")["policies"].as_array().unwrap().len(), 1);
    assert_eq!(text(&home.line("--json order submit signed").ok().json()["done"]), "ring");
    let policies = home.json("retention show acme")["policies"].clone();
    assert_eq!(policies.as_array().unwrap().len(), 2);
    assert_eq!((text(&policies[0]["retention"]), &policies[0]["order"]), ("P30D".into(), &Value::Null));
    assert_eq!((text(&policies[1]["retention"]), text(&policies[1]["order"])), ("P20D".into(), order));
    home.line("retention show acme").ok().says("ORDER").says("P20D");
    // One person makes it longer, and no shorter.
    home.line("retention set acme --period P40D").ok().says("P40D");
    home.line("retention set acme --period P5D").fails(77).says("shorten-retention");
}

#[test]
fn people_change_by_an_order() {
    let home = Home::new();
    let d = home.keygen("d");
    let asked = home.json(&format!("order request set-people --add {d} --remove person:a --sign-with a.key"));
    let order = text(&asked["order"]);
    assert_eq!(asked["customer"], Value::Null);
    home.line("shred status").ok().says("remove person:a");
    assert!(home.line("shred status --customer acme").ok().out.contains("nothing is under way"));
    let done = home.json(&format!("order approve {order} --sign-with b.key"));
    assert_eq!(text(&done["done"]), "register");
    let signed = home.line(&format!("order show {order}")).ok();
    signed.says("person:a (a person who has left)").says("person:b (a registered person)");
    home.line("person list").ok().says("person:d");
    home.line("order request set-clock --at 2020-01-01T00:00:00Z --sign-with b.key")
        .fails(64)
        .says("within an hour");
    let now = SystemClock.now();
    home.line(&format!("order request set-clock --at {now} --sign-with a.key")).fails(77).says("person list");
    let asked = home.json(&format!("order request set-clock --at {now} --sign-with b.key"));
    let done = home.json(&format!("order approve {} --sign-with d.key", text(&asked["order"])));
    assert_eq!(text(&done["done"]), "register");
    // Too few would be left: it is approved, not done, and told so.
    let asked = home.json("order request set-people --remove person:d --sign-with d.key");
    let order = text(&asked["order"]);
    let refused = home.line(&format!("order approve {order} --sign-with b.key"));
    assert_ne!(refused.code, 0);
    home.line("order request set-people --sign-with b.key").fails(64);
    home.line("order request set-people --remove person:b").fails(64).says("order draft");
    let asked = home.json("order request offboard --customer acme --return nothing --sign-with b.key");
    assert_eq!(text(&asked["what"]["offboard"]["return_to"]), "nothing");
}

#[test]
fn errors_repeat_nothing_and_have_their_codes() {
    let home = Home::new();
    home.put("reports/JANE");
    home.write("JANE.txt", "JANE\n");
    let unknown = "0".repeat(26);
    for (line, code) in [
        ("order show JANE", 64),
        ("hold place --customer acme --name JANE", 66),
        ("hold place --customer acme --day JANE", 64),
        ("hold place --customer jane --all", 66),
        ("shred request --customer acme --name JANE --sign-with a.key", 66),
        ("shred request --customer acme --name reports/JANE --sign-with JANE.txt", 78),
        ("shred request --customer acme --name reports/JANE --sign-with JANE.key", 66),
        ("shred request --customer acme --name reports/JANE --sign-with x.key", 77),
        ("order sign JANE.txt --sign-with a.key", 64),
        ("order sign JANE --sign-with a.key", 66),
        ("order submit JANE.txt", 64),
        ("shred status --customer jane", 66),
    ] {
        let _ = fs::set_permissions(home.0.path().join("JANE.txt"), private());
        let ran = home.line(line).fails(code);
        assert!(!ran.err.to_lowercase().contains("jane"), "{line}: {}", ran.err);
    }
    for line in [format!("order show {unknown}"), format!("order approve {unknown} --sign-with b.key")] {
        home.line(&line).fails(66).says("order list");
    }
    assert!(home.line("--json order list").ok().out.is_empty());
}

fn private() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o600)
}

/// A home whose store is twelve days old: a blob of the first day, whose key was dropped,
/// and one of the fifth, whose key is in the window. Gives both.
async fn twelve_days_later() -> (Home, BlobId, BlobId) {
    const DAY: Duration = Duration::from_hours(24);
    let home = Home::empty();
    let data = home.0.path().join("data/strongroom");
    for directory in ["store", "kms"] {
        fs::create_dir_all(data.join(directory)).unwrap();
    }
    fs::set_permissions(data.join("kms"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    common::signer::write_key(&data.join("kms/log.key"));
    let now = SystemClock.now();
    let began = now.micros() - u64::try_from((DAY * 12).as_micros()).unwrap() - 60_000_000;
    let clock = TestClock::at(&Timestamp::from_micros(began).unwrap().to_string());
    let urls = StorageUrls {
        root: data.join("store").to_str().unwrap().parse().unwrap(),
        blobs: None,
        keys: None,
        audit: None,
    };
    let storages = Storages::open(&urls, CreateRoot::Yes, clock.clone()).await.unwrap();
    let local = InsecureLocalKms::open(data.join("kms"), clock.clone(), Arc::new(SystemEntropy)).unwrap();
    let kms = KmsRegistry::new().with(Arc::new(local));
    let access = Access::new(Principal::service("past").unwrap(), Purpose::RecordManagement);
    let choice = || KeyChoice::New("local".into());
    let options = common::options(&clock);
    let (room, _) = Strongroom::init(storages, kms, choice(), &access, options).await.unwrap();
    let mut new = NewCustomer::new("acme".parse().unwrap(), choice());
    new.period = "P3D".parse().unwrap();
    room.add_customer(&access, new).await.unwrap();
    let acme = room.customer(&"acme".parse().unwrap(), access.clone()).await.unwrap();
    let mut blobs = Vec::new();
    for day in 0..12 {
        if day == 0 || day == 4 {
            blobs.push(acme.seal(b"a secret".to_vec(), SealOptions::new()).await.unwrap().id);
        }
        clock.pass(DAY);
        let swept = room.sweep(&access).await.unwrap();
        assert!(swept.customers.values().all(Result::is_ok));
    }
    room.publish_log().await.unwrap();
    room.close().await.unwrap();
    (home, blobs[0], blobs[1])
}

#[tokio::test]
async fn what_is_destroyed_answers_with_its_certificate() {
    let (home, gone, pending) = twelve_days_later().await;
    for line in [
        format!("get --customer acme {gone} -o copy"),
        format!("stat --customer acme {gone}"),
        format!("verify --customer acme {gone}"),
    ] {
        home.line(&line).fails(79).says("certificate");
    }
    assert!(!home.0.path().join("copy").exists());
    let refused = home.line(&format!("--json get --customer acme {gone} -o copy")).fails(79);
    let error = serde_json::from_str::<Value>(&refused.err).unwrap()["error"].clone();
    let certificate = text(&error["certificate"]);
    assert!(text(&error["message"]).contains(&certificate));
    home.line(&format!("certificate show {certificate}")).ok().says(&certificate);

    // It waits for its epoch to end.
    let status = home.json("shred status");
    let unfinished = &status["customers"][0]["unfinished"][0];
    assert_eq!(
        (text(&unfinished["certificate"]), text(&unfinished["stage"])),
        (certificate.clone(), "interim".into())
    );
    assert_eq!(unfinished["epochs"], serde_json::json!([1]));
    home.line("shred status").ok().says("NOT FINAL").says(&certificate).says("the end of epoch 1");

    // The other one is in the window because its day is over; taken out, it goes back.
    home.line(&format!("get --customer acme {pending}")).ok().says("a secret");
    let verdict = |home: &Home| {
        let lines = home.line("--json shred plan").ok().lines();
        let day = pending.day().to_string();
        text(&lines.iter().find(|line| line["day"] == day.as_str()).unwrap()["verdict"])
    };
    assert_eq!(verdict(&home), "waits");
    home.line("shred plan").ok().says("its day is over");
    home.line(&format!("shred cancel --customer acme --day {}", pending.day()))
        .ok()
        .says("out of the window");
    assert_eq!(verdict(&home), "pend");
    home.line(&format!("hold place --customer acme --day {}", pending.day())).ok();
    assert_eq!(verdict(&home), "held");
    home.line("shred plan").ok().says("kept by hold");
    home.line("shred run").ok().says("HELD");

    // What is left of the first goes when asked for, and counts.
    let run = home.line("--json shred run --delete-ciphertext").ok().lines();
    let removed = &run[0]["removed"];
    assert_eq!((&removed["objects"], &removed["denied"]), (&1.into(), &0.into()), "{removed}");
    assert!(removed["bytes"].as_u64().unwrap() > 8);
    // Without what was left of it, nothing says any more that there was such a blob, but
    // the log and its certificate.
    home.line(&format!("get --customer acme {gone} -o copy")).fails(66);
    home.line(&format!("certificate show {certificate}")).ok();
    home.line("audit verify").ok();
}

#[tokio::test]
async fn a_customer_that_fails_is_told_and_stops_no_other() {
    let (home, _, _) = twelve_days_later().await;
    home.line("customer add zenith --kms local").ok();
    let shown = home.json("customer show zenith");
    // Its newest ring is altered.
    let ring = home.0.path().join("data/strongroom/store/keys/ring").join(text(&shown["customer"]));
    let newest = fs::read_dir(ring).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&newest, bytes).unwrap();
    let run = home.line("--json shred run").fails(65);
    let lines = run.lines();
    assert_eq!(lines.len(), 2);
    let of = |id: &str| lines.iter().find(|line| line["customer"] == id).unwrap();
    assert_eq!(of(&text(&shown["customer"]))["error"]["exit"], 65);
    let other = lines.iter().find(|line| line.get("error").is_none()).unwrap();
    assert!(other["pended"].is_array());
    home.line("shred run").fails(65).says("customers that failed: 1");
}
