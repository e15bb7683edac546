//! The daemon as it is run, `strongroom serve`, and asked by other people's clients: curl over
//! TLS with client certificates and over the Unix socket, and Python's own HTTP and TLS.
#![cfg(feature = "daemon")]

#[path = "common/daemon.rs"]
mod home;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use home::{Home, has, json, pattern, until};
use serde_json::Value;
use strongroom::merkle::Hash;

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
    let maps = || {
        let records = home.records().into_iter().filter(|record| record["action"] == "access-map");
        let mut maps: Vec<_> =
            records.map(|record| (record["principal"].clone(), record["digest"].clone())).collect();
        maps.sort_by_key(|(_, digest)| digest.to_string());
        maps
    };
    let digest = |text: &str| {
        let digest = Hash::of(text.as_bytes()).to_string();
        (Value::from("service:daemon"), Value::from(digest))
    };
    assert_eq!(maps(), [digest(&text)]);
    home.write("principals.toml", "this is no mapping");
    daemon.signal("HUP");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(
        home.answer(&daemon, "portal", &home.blobs(), &[]).0,
        200,
        "what cannot be read changes nothing"
    );
    let without = text.replace("spiffe://clinic/portal", "spiffe://clinic/nobody");
    home.write("principals.toml", &without);
    daemon.signal("HUP");
    until("the portal is out", || home.answer(&daemon, "portal", &home.blobs(), &[]).0 == 401);
    assert_eq!(home.answer(&daemon, "backup", &home.blobs(), &[]).0, 200);
    // Which mapping the daemon went by is on the record, and what could not be read is not.
    let mut both = [digest(&text), digest(&without)];
    both.sort_by_key(|(_, digest)| digest.to_string());
    assert_eq!(maps(), both);
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

/// What it may do at most, by the unit's text alone.
#[test]
fn the_unit_lets_it_do_what_it_needs_and_no_more() {
    let unit = include_str!("../examples/strongroom.service");
    let settings: BTreeSet<&str> = unit.lines().filter(|line| !line.starts_with(['#', '['])).collect();
    for setting in [
        "Type=notify",
        "User=strongroom",
        "LimitCORE=0",
        "LimitMEMLOCK=infinity",
        "MemorySwapMax=0",
        "UMask=0077",
        "AmbientCapabilities=",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
        "PrivateDevices=yes",
        "PrivateTmp=yes",
        "PrivateUsers=yes",
        "ProtectHome=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "ProtectProc=invisible",
        "ProtectSystem=strict",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "RestrictNamespaces=yes",
        "RestrictSUIDSGID=yes",
        "MemoryDenyWriteExecute=yes",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged @resources",
    ] {
        assert!(settings.contains(setting), "the unit lacks {setting}");
        println!("{setting}");
    }
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
