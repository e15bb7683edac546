//! The audit log, asked of a daemon: the same as on a store, and proven.

use super::*;

/// A home with two blobs that were sealed through its daemon, of which nothing is published.
fn with_a_log() -> (Home, Daemon) {
    let home = Home::new();
    let daemon = home.serve();
    fs::write(home.path("dump"), "x").unwrap();
    for _ in 0..2 {
        home.ask(&daemon, "portal", &["put", "--customer", "acme", "--name", "n", "dump"]).is(0);
    }
    (home, daemon)
}

/// The public key of its log.
fn log_key(home: &Home) -> String {
    let made: Value = serde_json::from_str(&home.run(&["--json", "init"]).is(0).out).unwrap();
    made["log_key"].as_str().unwrap().to_owned()
}

#[test]
fn a_daemons_log_is_shown_and_exported_as_a_stores() {
    let (home, daemon) = with_a_log();
    // To read it where it is leaves no record, and the question itself is not shown.
    for count in ["1", "7", "1000"] {
        let tail = ["--json", "audit", "tail", "-n", count];
        let here = home.run(&tail).is(0).out;
        assert_eq!(here, home.ask(&daemon, "auditor", &tail).is(0).out, "{count}");
    }
    let rows = |text: &str| {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).collect::<Vec<_>>()
    };
    let tail = ["audit", "tail", "-n", "500"];
    let there = rows(&home.ask(&daemon, "auditor", &tail).is(0).out);
    let here = rows(&home.run(&tail).is(0).out);
    assert!(there.len() > 10 && there.iter().all(|row| here.contains(row)), "{there:?}\n{here:?}");
    assert!(there.iter().any(|row| row.contains(" seal acme ")), "{there:?}");
    home.ask(&daemon, "auditor", &["audit", "tail", "-n", "1001"]).is(64).says("the newest 1000 at most");

    for format in ["jsonl", "fhir"] {
        let export = ["audit", "export", "--format", format, "--action", "seal", "-o"];
        home.run(&[&export[..], &["here"]].concat()).is(0);
        home.ask(&daemon, "auditor", &[&export[..], &["there"]].concat()).is(0);
        let (here, there) = (fs::read(home.path("here")).unwrap(), fs::read(home.path("there")).unwrap());
        assert!(here == there && here.iter().filter(|byte| **byte == b'\n').count() == 2, "{format}");
        home.ask(&daemon, "auditor", &[&export[..], &["there"]].concat()).is(73);
        let forced = [&["--json"], &export[..], &["there", "--force"]].concat();
        assert_eq!(home.ask(&daemon, "auditor", &forced).is(0).out, "{\"operations\":2}\n");
        fs::remove_file(home.path("here")).unwrap();
        fs::remove_file(home.path("there")).unwrap();
        home.ask(&daemon, "portal", &[&export[..], &["there"]].concat()).is(77).says("deny.role");
        assert!(!home.path("there").exists());
    }
    let key = log_key(&home);
    for args in [&["audit", "tail"][..], &["audit", "export", "--format", "jsonl"]] {
        let with_key = [args, &["--key", &key]].concat();
        home.ask(&daemon, "auditor", &with_key).is(64).says("--key checks nothing of a list");
    }

    // Page by page, and a page that is none leaves no file.
    let query = ["--json", "audit", "query", "--action", "seal", "--limit", "1"];
    let first = home.run(&query).is(0);
    let next: Value = serde_json::from_str(&first.err).unwrap();
    let after = ["--after", next["next"].as_str().unwrap()];
    let second = home.run(&[&query[..], &after].concat()).is(0);
    let page = |line: &str, next: &Value| {
        format!("{{\"store\":\"{BLOB}\",\"operations\":[{}],\"next\":{next}}}", line.trim_end())
    };
    let pages = [page(&first.out, &next["next"]), page(&second.out, &Value::Null)];
    let count = scripted(&home.path("pages"), move |at, _, stream| {
        answer(stream, "200 OK", "", pages.get(at).map_or("{}", String::as_str));
    });
    let export = ["--daemon", "unix:pages", "audit", "export", "--format", "jsonl"];
    assert_eq!(home.run(&export).is(0).out, first.out + &second.out);
    assert_eq!(count.load(Ordering::SeqCst), 2);
    home.run(&[&export[..], &["-o", "none"]].concat()).is(76);
    assert!(!home.path("none").exists());
}

#[test]
fn a_daemons_proofs_are_checked() {
    let (home, daemon) = with_a_log();
    let query = ["--json", "audit", "query", "--action", "seal"];
    let seals = home.ask(&daemon, "auditor", &query).is(0).out;
    let seals: Vec<Value> = seals.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let request = seals[0]["request"].as_str().unwrap();
    let proof = ["audit", "proof", request];
    let unpublished =
        home.ask(&daemon, "auditor", &proof).is(66).says("hint: publish the log, and ask again");
    assert_eq!(masked(&unpublished.err), masked(&home.run(&proof).is(66).err));
    home.ask(&daemon, "auditor", &["audit", "publish"]).is(77).says("deny.role");
    // A line for each shard: the daemon's own, and the first.
    let values = |ran: Ran| {
        let out = ran.is(0).out;
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let published = values(home.ask(&daemon, "admin", &["--json", "audit", "publish", "--restore"]));
    let mut here = values(home.run(&["--json", "audit", "publish"]));
    assert_eq!(published.len(), 2, "{published:?}");
    for (there, here) in published.iter().zip(&mut here) {
        assert!(there["new"].as_u64().unwrap() > 0 && here["new"] == 0, "{there} {here}");
        here["new"] = there["new"].clone();
    }
    assert_eq!(published, here);
    let maintained = home.ask(&daemon, "admin", &["audit", "maintain"]).is(0).out;
    assert_eq!(masked(&maintained), masked(&home.run(&["--no-publish", "audit", "maintain"]).is(0).out));
    assert!(
        maintained
            .starts_with("dead writers: 0, with 0 operations closed as unknown; days kept: 0 segments\n")
    );

    let key = log_key(&home);
    let place = format!("{}:{}", seals[0]["shard"], seals[0]["index"]);
    for (at, args) in [
        &[request][..],
        &[&place],
        &[request, "--customer", "acme", "--key", &key],
        &[request, "--outcome", "--key", &key],
        &[request, "--outcome", "--customer", "acme", "--since", "2026-01-01"],
    ]
    .into_iter()
    .enumerate()
    {
        let (here, there) = (format!("here{at}"), format!("there{at}"));
        home.run(&[&["--no-publish", "audit", "proof", "-o", &here], args].concat()).is(0);
        home.ask(&daemon, "auditor", &[&["audit", "proof", "-o", &there], args].concat()).is(0);
        // What was asked since is not published.
        assert_eq!(fs::read(home.path(&here)).unwrap(), fs::read(home.path(&there)).unwrap(), "{args:?}");
        let checked = home.run(&["--json", "audit", "check-proof", &there, "--key", &key]).is(0);
        assert!(checked.out.contains(request));
    }
    home.run(&["customer", "add", "zenith", "--kms", "local", "-q"]).is(0);
    for ran in [
        home.run(&[&proof[..], &["--customer", "zenith"]].concat()),
        home.ask(&daemon, "auditor", &[&proof[..], &["--customer", "zenith"]].concat()),
    ] {
        assert!(ran.is(66).says("there is no such record in the audit log").out.is_empty());
    }
    let checkpoint = ["audit", "checkpoint"];
    let here = home.run(&checkpoint).is(0).out;
    for more in [&[][..], &["--key", &key]] {
        assert_eq!(home.ask(&daemon, "auditor", &[&checkpoint[..], more].concat()).is(0).out, here);
    }
    // Of the wrong key, or that of another store's log.
    let wrong = "ab".repeat(32);
    let public = *key.parse::<VerifierKey>().unwrap().public();
    let elsewhere = format!("strongroom/{BLOB}").parse().unwrap();
    let elsewhere = VerifierKey::ed25519(elsewhere, public).to_string();
    for key in [&wrong, &elsewhere] {
        let none = [&proof[..], &["-o", "none", "--key", key]].concat();
        home.ask(&daemon, "auditor", &none).is(65);
        let ran = home.ask(&daemon, "auditor", &[&checkpoint[..], &["--key", key]].concat()).is(65);
        assert!(ran.out.is_empty() && !home.path("none").exists());
    }

    // Another record's proof is none, and neither is something else.
    let other = fs::read_to_string(home.path("there3")).unwrap();
    scripted(&home.path("liar"), move |at, _, stream| match at {
        0..4 => answer(stream, "200 OK", "", &other),
        _ => answer(stream, "200 OK", "", "a proof"),
    });
    for args in [
        &[request][..],
        &["0:0"],
        &[seals[1]["request"].as_str().unwrap(), "--outcome"],
        &[request, "--outcome", "--customer", BLOB],
    ] {
        let ran = home.run(&[&["--daemon", "unix:liar", "audit", "proof"], args].concat());
        assert!(ran.is(65).says("the proof of another record").out.is_empty());
    }
    for command in [&["audit", "proof", request][..], &["audit", "checkpoint"]] {
        home.run(&[&["--daemon", "unix:liar"], command].concat()).is(76);
    }
}

#[test]
fn a_daemons_view_is_whole_or_no_file() {
    let (home, daemon) = with_a_log();
    let key = log_key(&home);
    let view = ["audit", "view", "--customer", "acme", "-o", "acme.view"];
    let made = home.ask(&daemon, "auditor", &[&["--json"], &view[..]].concat()).is(0).out;
    let made: Value = serde_json::from_str(&made).unwrap();
    let checked = home.run(&["--json", "audit", "check-view", "acme.view", "--key", &key]).is(0).out;
    let checked: Value = serde_json::from_str(&checked).unwrap();
    let counted: u64 =
        checked["shards"].as_array().unwrap().iter().filter_map(|of| of["counted"].as_u64()).sum();
    assert_eq!((made["records"].as_u64(), &made["customer"]), (Some(counted), &checked["customer"]));
    home.ask(&daemon, "auditor", &view).is(73).says("--force");
    let forced = home.ask(&daemon, "privacy", &[&view[..], &["--force"]].concat()).is(0).out;
    assert!(
        forced
            .ends_with(&format!("customer {}, and that of this view\n", made["customer"].as_str().unwrap()))
    );
    let piped = home.ask(&daemon, "auditor", &["audit", "view", "--customer", "acme"]).is(0).out;
    assert!(piped.starts_with("{\"format\":\"strongroom-view-v1\""));
    home.ask(&daemon, "portal", &["audit", "view", "--customer", "acme", "-o", "none"]).is(77);

    // One that lacks a record, breaks off, or is somebody else's.
    let text = fs::read_to_string(home.path("acme.view")).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let last = lines.len() - 1;
    let short = [&lines[..1], &lines[2..]].concat().concat();
    let cut = lines[..last].concat() + &lines[last][..lines[last].len() - 9];
    let wrong = [short, lines[..last].concat(), cut, text.clone()];
    let daemons_word = wrong.clone();
    scripted(&home.path("liar"), move |at, _, stream| match daemons_word.get(at) {
        Some(text) => answer(stream, "200 OK", "", text),
        // Fewer bytes than were said.
        None => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
            stream.write_all((head + &text[..text.len() / 2]).as_bytes()).unwrap();
        }
    });
    let acme = made["customer"].as_str().unwrap();
    let ask = |customer: &str| {
        home.run(&["--daemon", "unix:liar", "audit", "view", "--customer", customer, "-o", "none"])
    };
    for _ in 0..3 {
        ask(acme).is(65).says("the view that the daemon gave is not complete");
    }
    ask(BLOB).is(65).says("the view of another customer");
    ask(acme).is(69).says("the connection to the daemon broke");
    assert!(!home.path("none").exists());
}

#[test]
fn who_reads_one_customers_log_reads_no_others() {
    let home = Home::new();
    home.run(&["customer", "add", "zenith", "--kms", "local", "-q"]).is(0);
    fs::write(home.path("dump"), "x").unwrap();
    for customer in ["acme", "zenith"] {
        home.run(&["put", "--customer", customer, "dump"]).is(0);
    }
    let shown: Value =
        serde_json::from_str(&home.run(&["--json", "customer", "show", "zenith"]).out).unwrap();
    let request = |customer: &str| {
        let query = ["--json", "audit", "query", "--action", "seal", "--customer", customer];
        let line: Value = serde_json::from_str(home.run(&query).is(0).out.trim_end()).unwrap();
        line["request"].as_str().unwrap().to_owned()
    };
    let (ours, theirs) = (request("zenith"), request("acme"));
    // The daemon does so too, but nobody knows when.
    home.run(&["audit", "publish"]).is(0);
    home.principals(&format!("[{}]", shown["customer"]));
    let daemon = home.serve();
    let ask = |args: &[&str]| home.ask(&daemon, "auditor", &[&["audit"], args].concat());
    assert!(ask(&["proof", &ours, "--customer", "zenith"]).is(0).out.starts_with("c2sp.org/tlog-proof@v1\n"));
    ask(&["proof", &theirs, "--customer", "zenith"]).is(66).says("there is no such record in the audit log");
    ask(&["proof", &theirs, "--customer", "acme"]).is(66).says("there is no customer of this label for you");
    for args in [&["proof", &theirs][..], &["proof", "0:0"], &["tail"], &["tail", "--json"], &["checkpoint"]]
    {
        assert!(ask(args).is(77).says("deny.customer").out.is_empty(), "{args:?}");
    }
    ask(&["view", "--customer", "zenith", "-o", "zenith.view"]).is(0);
    ask(&["view", "--customer", "acme", "-o", "acme.view"]).is(66);
    let exported =
        ask(&["export", "--format", "jsonl", "--customer", "zenith", "--action", "seal"]).is(0).out;
    assert!(exported.lines().count() == 1 && exported.contains(&ours));
    ask(&["export", "--format", "jsonl", "-o", "all"]).is(77).says("deny.customer");
    assert!(!home.path("acme.view").exists() && !home.path("all").exists());
}
