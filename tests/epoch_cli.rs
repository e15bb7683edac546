//! `strongroom epoch`, as a cron job runs it: the program itself, on a directory.
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn strongroom(home: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.env_clear().env("HOME", home).env("STRONGROOM_PRINCIPAL", "service:cron");
    command.args(arguments.split(' ')).output().unwrap()
}

#[track_caller]
fn ok(home: &Path, arguments: &str) -> String {
    let ran = strongroom(home, arguments);
    assert!(ran.status.success(), "{arguments}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[track_caller]
fn json(home: &Path, arguments: &str) -> Value {
    serde_json::from_str(&ok(home, &format!("{arguments} --json"))).unwrap()
}

#[test]
fn an_epoch_is_rotated_and_its_end_begins() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    ok(home, "init");
    for name in ["acme", "zenith"] {
        ok(home, &format!("customer add {name} --kms local"));
    }
    let text = ok(home, "epoch finish");
    assert!(text.contains("no epoch is retired"), "{text}");
    let status = json(home, "epoch status");
    assert_eq!((&status["epochs"][0]["rings"], &status["epochs"][0]["next"]), (&2.into(), &"rotate".into()));
    assert_eq!(status["unreadable"], Value::Array(vec![]));

    let rotated = json(home, "epoch rotate");
    assert_eq!((&rotated["epoch"], &rotated["reissued"]), (&2.into(), &2.into()));
    assert_eq!((&rotated["retired"][0], &rotated["vain"]), (&1.into(), &Value::Null));
    assert!(rotated["kms_key"].as_str().unwrap().starts_with("local:"), "as the epoch before");
    assert_eq!(json(home, "customer show acme")["epoch"], 2);

    let steps = json(home, "epoch finish");
    assert_eq!((&steps["epochs"][0]["epoch"], &steps["epochs"][0]["step"]), (&1.into(), &"disabled".into()));
    let steps = json(home, "epoch finish --watch 10m --days 30");
    assert_eq!(steps["epochs"][0]["step"], "waits");
    let text = ok(home, "epoch finish");
    assert!(text.starts_with("epoch 1: nothing to do before 20"), "{text}");
    let text = ok(home, "epoch status");
    let rows: Vec<Vec<_>> = text.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(
        (rows[1][0], rows[1][1], rows[1][3], rows[1][4]),
        ("1", "disabled", "disabled", "0"),
        "{text}"
    );
    assert_eq!((rows[2][0], rows[2][1], rows[2][3], rows[2][4]), ("2", "current", "enabled", "2"), "{text}");

    // In text, and with a second epoch.
    let text = ok(home, "epoch rotate --kms local");
    assert!(text.contains("rings moved  2") && text.contains("retired      epoch 2"), "{text}");
    ok(home, "customer show zenith");
}

#[test]
fn what_is_left_behind_is_named_and_ends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    ok(home, "init");
    ok(home, "customer add acme --kms local");
    ok(home, "epoch rotate");
    let id = json(home, "customer show acme")["customer"].as_str().unwrap().to_owned();
    let ring = home.join(".local/share/strongroom/store/keys/ring").join(&id).join(format!("{:016x}", 2));
    let mut bytes = std::fs::read(&ring).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&ring, bytes).unwrap();

    let ran = strongroom(home, "epoch finish");
    assert_eq!(ran.status.code(), Some(75));
    let (out, err) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
    assert!(out.contains(&format!("left behind: the ring of customer {id} cannot be read")), "{out}");
    assert!(err.contains("epoch rotate"), "{err}");
    let ran = strongroom(home, "epoch rotate --json");
    assert_eq!(ran.status.code(), Some(75));
    let rotated: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(rotated["left_behind"][0]["customer"], id.as_str());
    assert_eq!(rotated["retired"], Value::Array(vec![]));

    for wrong in [
        "epoch finish --watch 9m",
        "epoch finish --watch JANE",
        "epoch finish --days 6",
        "epoch rotate --kms JANE",
    ] {
        let ran = strongroom(home, wrong);
        assert_eq!(ran.status.code(), Some(64), "{wrong}");
        assert!(!String::from_utf8_lossy(&ran.stderr).contains("JANE"), "{wrong}");
    }
}
