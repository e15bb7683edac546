//! All of a customer's blobs through a daemon: restored, verified, and missed where they are lost.

use super::*;

#[test]
fn a_restore_through_a_daemon_is_killed_and_goes_on() {
    let home = Home::new();
    let mut daemon = home.serve();
    let bytes = |number: u8| vec![number; 12_000_000];
    for number in 0..6_u8 {
        fs::write(home.path("dump"), bytes(number)).unwrap();
        home.ask(&daemon, "portal", &["put", "--customer", "acme", "--name", &format!("n/{number}"), "dump"])
            .is(0);
    }
    let line = ["--json", "restore", "--customer", "acme", "--to", "back", "--jobs", "2"];
    let whole = || {
        let files = files(&home.path("back"));
        let whole: Vec<_> = files.iter().filter(|(path, _)| path.starts_with("n/")).collect();
        assert!(
            whole.iter().all(|(path, found)| **found == bytes(path[2..].parse().unwrap())),
            "what has its name is whole"
        );
        (whole.len(), files.len())
    };
    let begin = |daemon: &Daemon| {
        let before = files_in(&home.path("back/n"));
        let mut command = home.asking(&daemon.url, "portal", &line);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // Until one more is there, and others are on their way.
        until("it has got further", || files_in(&home.path("back/n")) > before);
        child
    };
    let mut child = begin(&daemon);
    child.kill().unwrap();
    child.wait().unwrap();
    let (first, _) = whole();
    assert!((1..6).contains(&first), "{first}");

    // The daemon goes away: nothing is taken for whole, and the run ends.
    let child = begin(&daemon);
    drop(daemon);
    Ran::of(child.wait_with_output().unwrap()).is(69);
    let (second, all) = whole();
    assert!(second > first && second == all, "no part is left: {first}, {second}, {all}");

    daemon = home.serve();
    let told: Value = serde_json::from_str(&home.ask(&daemon, "portal", &line).is(0).out).unwrap();
    let (restored, skipped) = (told["restored"].as_u64().unwrap(), told["skipped"].as_u64().unwrap());
    assert_eq!(
        (restored + skipped, usize::try_from(skipped).unwrap(), whole()),
        (6, second, (6, 6)),
        "{told}"
    );
    assert_eq!(told["checked_by"], "daemon");
    assert!(told["log"]["size"].as_u64().unwrap() > 0);
    // The same directory, from the store and over the socket: there is nothing to do.
    for ran in [home.run(&line), home.ask(&daemon, "socket", &line)] {
        let told: Value = serde_json::from_str(&ran.is(0).out).unwrap();
        assert_eq!((&told["restored"], &told["skipped"]), (&0.into(), &6.into()));
    }
    // What was altered is brought back, and nothing else is opened.
    fs::write(home.path("back/n/3"), "altered").unwrap();
    let told = home.ask(&daemon, "portal", &line[1..]).is(0).out;
    assert!(told.contains("restored       1 blobs, 12000000 bytes\n"), "{told}");
    assert!(told.contains("checked        by the daemon, as it released it\n"), "{told}");
    assert_eq!(whole(), (6, 6));
}

fn files_in(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

#[test]
fn what_the_storage_lost_is_missed_through_a_daemon() {
    let home = Home::new();
    let daemon = home.serve();
    let put = |name: &str| {
        fs::write(home.path("dump"), name).unwrap();
        home.ask(&daemon, "portal", &["put", "--customer", "acme", "--name", name, "dump"])
            .is(0)
            .out
            .trim()
            .to_owned()
    };
    let (lost, damaged, kept) = (put("lost"), put("damaged"), put("kept"));
    let blobs = home.path("data/strongroom/store/blobs/blob");
    let of = |blob: &str| blobs.join(files(&blobs).into_keys().find(|path| path.ends_with(blob)).unwrap());
    fs::remove_file(of(&lost)).unwrap();
    let mut bytes = fs::read(of(&damaged)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(of(&damaged), bytes).unwrap();

    let all = ["verify", "--customer", "acme", "--all"];
    for ran in [home.run(&all), home.ask(&daemon, "portal", &all), home.ask(&daemon, "backup", &all)] {
        let ran = ran.is(65);
        assert!(ran.out.contains(&format!("{lost}  FAILED  there is no such blob\n")), "{}", ran.out);
        assert!(ran.out.contains(&format!("{damaged}  FAILED  ")), "{}", ran.out);
        assert!(ran.out.contains(&format!("{kept}  ok  4 bytes\n")), "{}", ran.out);
        assert!(ran.err.contains("2 blobs did not verify"), "{}", ran.err);
    }
    for (to, who) in [("here", None), ("there", Some("portal"))] {
        let line = ["restore", "--customer", "acme", "--to", to, "--report", "report.json"];
        let ran = who.map_or_else(|| home.run(&line), |who| home.ask(&daemon, who, &line)).is(65);
        assert!(ran.out.contains(&format!("{lost}  FAILED  not-found\n")), "{}", ran.out);
        assert!(ran.out.contains(&format!("{damaged}  FAILED  authentication\n")), "{}", ran.out);
        assert_eq!(files(&home.path(to)), BTreeMap::from([("kept".to_owned(), b"kept".to_vec())]));
        let report: Value = serde_json::from_slice(&fs::read(home.path("report.json")).unwrap()).unwrap();
        assert_eq!((&report["failed"], &report["ok"]), (&2.into(), &false.into()));
        assert_eq!(report["checked_by"], if who.is_some() { "daemon" } else { "store" });
    }
}

#[test]
fn whose_keys_are_in_their_own_hand_keeps_nobody_else_from_being_checked() {
    let home = Home::new();
    let daemon = home.serve();
    home.ask(&daemon, "admin", &["customer", "add", "own", "--kms", "local", "--tenancy", "customer"]).is(0);
    fs::write(home.path("dump"), "x").unwrap();
    for customer in ["acme", "own"] {
        home.ask(&daemon, "portal", &["put", "--customer", customer, "dump"]).is(0);
    }
    for ran in [home.run(&["verify", "--all"]), home.ask(&daemon, "portal", &["verify", "--all"])] {
        let ran = ran.is(0).says("was not checked: its keys are in its own hand, and that takes a session");
        assert_eq!(ran.out.matches("  ok  1 bytes\n").count(), 1, "{}", ran.out);
    }
    let own = ["verify", "--customer", "own", "--all"];
    home.run(&own).is(77);
    home.ask(&daemon, "portal", &own).is(77).says("strongroom session open");
}

#[test]
fn who_may_open_none_is_denied_once() {
    let home = Home::new();
    let daemon = home.serve();
    fs::write(home.path("dump"), "x").unwrap();
    for _ in 0..3 {
        home.run(&["put", "--customer", "acme", "dump"]).is(0);
    }
    // Who may not see which there are gets no directory.
    let line = ["restore", "--customer", "acme", "--to", "back", "--jobs", "1"];
    home.ask(&daemon, "admin", &line).is(77).says("deny.role");
    assert!(!home.path("back").exists());
    // Who may, and may not open them, is on record with the first.
    home.ask(&daemon, "backup", &line).is(77).says("deny.role");
    assert!(files(&home.path("back")).is_empty());
    let denied = ["--json", "audit", "query", "--action", "open", "--outcome", "denied"];
    assert_eq!(home.run(&denied).is(0).out.lines().count(), 1);
}

#[test]
fn what_a_daemon_makes_up_stays_below_the_directory() {
    let home = Home::new();
    let root = "0".repeat(64);
    let row = format!(
        r#"{{"blob":"{BLOB}","name":"../../outside","content_type":null,"meta":{{}},"bytes":7,"stored_bytes":9,
        "sealed_at":"2026-11-22T02:26:13.000000Z","retain_until":"2099-01-01","held":false,"suite":"aes-256-gcm","kek":"{BLOB}"}}"#
    );
    let lies = |path: &str, body: &'static str| {
        let (root, row) = (root.clone(), row.clone());
        scripted(&home.path(path), move |_, head, stream| {
            let json = |blobs: String| {
                let mark = format!(r#"{{"shard":0,"size":1,"root":"{root}"}}"#);
                format!(r#"{{"store":"{BLOB}","log":{mark},"blobs":[{blobs}],"next":null}}"#)
            };
            match head {
                head if head.contains("/find") => answer(stream, "200 OK", "", CUSTOMER),
                head if head.contains("/inventory?limit=0") => {
                    answer(stream, "200 OK", "", &json(String::new()))
                }
                head if head.contains("/inventory") => {
                    answer(stream, "200 OK", "", &json(format!(r#"{{"blob":"{BLOB}","standing":"lives"}}"#)));
                }
                head if head.contains("/blobs?") => {
                    answer(stream, "200 OK", "", &format!(r#"{{"blobs":[{row}],"next":null}}"#));
                }
                _ => answer(stream, "200 OK", &format!("etag: \"{BLOB}\"\r\n"), body),
            }
        });
        Ran::of(
            home.command(&[
                "--daemon",
                &format!("unix:{path}"),
                "restore",
                "--customer",
                "acme",
                "--to",
                "back",
            ])
            .output()
            .unwrap(),
        )
    };
    // Of another length than was said: nothing is written.
    let ran = lies("longer", "eight...").is(76);
    assert!(ran.out.contains("FAILED  unsupported-format"), "{}", ran.out);
    assert!(files(&home.path("back")).is_empty());
    lies("honest", "seven..").is(0);
    let expected = BTreeMap::from([(format!("by-id/{BLOB}"), b"seven..".to_vec())]);
    assert_eq!(files(&home.path("back")), expected);
    assert!(!home.path("outside").exists());
}

#[test]
fn what_was_destroyed_meanwhile_is_no_failure() {
    let home = Home::new();
    let root = "0".repeat(64);
    let blob = |last: char| format!("{}{last}", &BLOB[..25]);
    let blobs = ['0', '4', '8'].map(blob);
    let [destroyed, gone, lives] = blobs.clone();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    scripted(&home.path("sweeping"), move |_, head, stream| {
        let page = |rows: Vec<(&String, &str)>| {
            let row =
                |(blob, standing): (&String, &str)| format!(r#"{{"blob":"{blob}","standing":"{standing}"}}"#);
            let rows = rows.into_iter().map(row).collect::<Vec<_>>().join(",");
            let mark = format!(r#"{{"shard":0,"size":1,"root":"{root}"}}"#);
            format!(r#"{{"store":"{BLOB}","log":{mark},"blobs":[{rows}],"next":null}}"#)
        };
        match head {
            head if head.contains("/find") => answer(stream, "200 OK", "", CUSTOMER),
            head if head.contains("limit=0 ") => answer(stream, "200 OK", "", &page(Vec::new())),
            head if head.contains("/inventory") => {
                // All live; then a sweep comes by.
                let now = match count.fetch_add(1, Ordering::SeqCst) {
                    0 => blobs.iter().map(|blob| (blob, "lives")).collect(),
                    _ => vec![(&blobs[0], "destroyed"), (&blobs[2], "lives")],
                };
                answer(stream, "200 OK", "", &page(now));
            }
            // None is listed: each is looked at by itself.
            head if head.contains("/blobs?") => answer(stream, "200 OK", "", r#"{"blobs":[],"next":null}"#),
            head if head.contains("/metadata") => {
                let blob = blobs.iter().find(|blob| head.contains(blob.as_str())).unwrap();
                let row = format!(
                    r#"{{"blob":"{blob}","name":null,"content_type":null,"meta":{{}},"bytes":7,"stored_bytes":9,
                    "sealed_at":"2026-11-22T02:26:13.000000Z","retain_until":"2099-01-01","held":false,
                    "suite":"aes-256-gcm","kek":"{BLOB}"}}"#
                );
                answer(stream, "200 OK", "", &row);
            }
            _ => {
                let problem =
                    format!(r#"{{"code":"key-destroyed","detail":"it is gone","certificate":"{BLOB}"}}"#);
                answer(stream, "410 Gone", "", &problem);
            }
        }
    });
    let line = ["--daemon", "unix:sweeping", "restore", "--customer", "acme", "--to", "back"];
    let ran = home.run(&line);
    assert_ne!(ran.code, Some(0));
    assert!(ran.out.contains("destroyed      2\nfailed         1\n"), "{}{}", ran.out, ran.err);
    for blob in [destroyed, gone] {
        assert!(
            ran.out.contains(&format!("{blob}  destroyed  key-destroyed  certificate {BLOB}\n")),
            "{}",
            ran.out
        );
    }
    assert!(ran.out.contains(&format!("{lives}  FAILED  key-destroyed")), "{}", ran.out);
    assert!((2..=4).contains(&asked.load(Ordering::SeqCst)), "it is looked up when it is not known");
}

#[test]
fn an_inventory_that_goes_back_is_none() {
    let home = Home::new();
    let (root, other) = ("0".repeat(64), format!("{}0", &BLOB[..25]));
    for (at, (blobs, next)) in [
        (vec![BLOB, &other], String::from("null")),
        (vec![&other], format!("\"{BLOB}\"")),
        (vec![&other], format!("\"{other}\"")),
    ]
    .into_iter()
    .enumerate()
    {
        let row = |blob: &str| format!(r#"{{"blob":"{blob}","standing":"lives"}}"#);
        let rows = blobs.into_iter().map(row).collect::<Vec<_>>().join(",");
        let mark = format!(r#"{{"shard":0,"size":1,"root":"{root}"}}"#);
        let page = format!(r#"{{"store":"{BLOB}","log":{mark},"blobs":[{rows}],"next":{next}}}"#);
        let path = format!("back-{at}");
        scripted(&home.path(&path), move |_, head, stream| {
            let body = if head.contains("/find") { CUSTOMER } else { &page };
            answer(stream, "200 OK", "", body);
        });
        let daemon = format!("unix:{path}");
        let verify = ["--daemon", &daemon, "verify", "--customer", "acme", "--all"];
        home.run(&verify).is(76).says("is not a strongroom daemon");
    }
}
