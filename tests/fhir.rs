//! The FHIR export, judged by a public model of FHIR R4 and by the rules of the
//! IHE BALP profiles that it claims; and as it was written once, byte for byte.
//!
//! The model is Python's `fhir.resources`, which `tests/fhir/validate` installs
//! once into a virtual environment of its own.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use strongroom::access::Purpose;
use strongroom::audit::fhir::audit_event;
use strongroom::audit::operation::{Entry, Operation, Paired, Pairing};
use strongroom::audit::{Action, OutcomeResult, Record};
use strongroom::id::{BlobId, CustomerId, DataKeyId, KekId, RequestId, StoreId, WriterId};

const STORE: StoreId = StoreId::from_bytes([0x51; 16]);

#[test]
fn every_combination_is_a_valid_audit_event() {
    let lines = combinations();
    assert_eq!(lines.len(), Action::ALL.len() * (OutcomeResult::ALL.len() + 1) * 3 * 2);
    let claims = |profile: &str| lines.iter().filter(|line| line.contains(profile)).count();
    // Sealing; opening, opening in part, a look at the metadata, and the return to a customer.
    assert_eq!((claims("IHE.BasicAudit.Create"), claims("IHE.BasicAudit.Read")), (2, 8));
    let Some(verdict) = validate(&lines) else { return };
    assert_eq!(verdict, Verdict { all: true, wrong: Vec::new(), valid: lines.len() });
}

/// The other half: what is wrong is refused, each fault alone.
#[test]
fn the_validator_refuses_what_is_wrong() {
    type Break = fn(&mut Value);
    let broken: [(&str, Break); 27] = [
        ("no type", |event| drop(event.as_object_mut().unwrap().remove("type"))),
        ("no recorded", |event| drop(event.as_object_mut().unwrap().remove("recorded"))),
        ("no agent", |event| drop(event.as_object_mut().unwrap().remove("agent"))),
        ("no source", |event| drop(event.as_object_mut().unwrap().remove("source"))),
        ("no observer", |event| drop(event["source"].as_object_mut().unwrap().remove("observer"))),
        ("no requestor", |event| drop(event["agent"][0].as_object_mut().unwrap().remove("requestor"))),
        ("another resource", |event| event["resourceType"] = json!("Patient")),
        ("an unknown element", |event| event["patient"] = json!("x")),
        ("an empty array", |event| event["entity"] = json!([])),
        ("a null", |event| event["outcomeDesc"] = Value::Null),
        ("an outcome that is a number", |event| event["outcome"] = json!(0)),
        ("an outcome of no value set", |event| event["outcome"] = json!("1")),
        ("an action of no value set", |event| event["action"] = json!("X")),
        ("a network type of no value set", |event| event["agent"][1]["network"]["type"] = json!("6")),
        ("a requestor that is text", |event| event["agent"][0]["requestor"] = json!("true")),
        ("two requestors", |event| event["agent"][1]["requestor"] = json!(true)),
        ("a type that is a list", |event| event["type"] = json!([event["type"]])),
        ("a code with a space in front", |event| event["type"]["code"] = json!(" rest")),
        ("an id with an underscore", |event| event["id"] = json!("a_b")),
        ("an id of 65 characters", |event| event["id"] = json!("a".repeat(65))),
        ("a time without a zone", |event| event["recorded"] = json!("2026-11-22T02:26:13")),
        ("a detail without a value", |event| {
            let detail = event["entity"][0]["detail"][0].as_object_mut().unwrap();
            drop(detail.remove("valueString"));
        }),
        ("a period that ends before it starts", |event| {
            event["period"]["end"] = json!("2020-01-01T00:00:00.000000Z");
        }),
        ("a profile of successes with a failure", |event| event["outcome"] = json!("4")),
        ("a profile without the server's network", |event| {
            drop(event["agent"][2].as_object_mut().unwrap().remove("network"));
        }),
        ("a profile without data", |event| drop(event["entity"].as_array_mut().unwrap().remove(0))),
        ("a profile of another action", |event| event["action"] = json!("C")),
    ];
    let good = combinations().into_iter().find(|line| line.contains("IHE.BasicAudit.Read")).unwrap();
    let mut lines: Vec<String> = broken
        .iter()
        .map(|(_, fault)| {
            let mut event = serde_json::from_str(&good).unwrap();
            fault(&mut event);
            format!("{event}\n")
        })
        .collect();
    let last = lines.len() + 1;
    lines.push(good);
    let Some(verdict) = validate(&lines) else { return };
    let passed: Vec<&str> = broken
        .iter()
        .enumerate()
        .filter(|(at, _)| !verdict.wrong.contains(&(at + 1)))
        .map(|(_, (what, _))| *what)
        .collect();
    assert!(passed.is_empty(), "these went through: {passed:?}");
    assert!(!verdict.all && verdict.valid == 1 && !verdict.wrong.contains(&last), "{verdict:?}");
    // Not JSON, and nothing at all.
    assert_eq!(validate(&["{\n".to_owned()]), Some(Verdict { all: false, wrong: vec![1], valid: 0 }));
    assert_eq!(validate(&[]), Some(Verdict { all: false, wrong: Vec::new(), valid: 0 }));
}

/// With `STRONGROOM_REGENERATE_FHIR=1` the file is written anew.
#[test]
fn events_are_as_they_were_written_once() {
    let path = directory().join("golden.ndjson");
    let events = golden();
    if std::env::var_os("STRONGROOM_REGENERATE_FHIR").is_some_and(|value| value == "1") {
        fs::write(&path, events.concat()).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap();
    let expected: Vec<&str> = expected.split_inclusive('\n').collect();
    assert_eq!(events, expected);
}

/// A handful that has one of everything: a peer seals, a process opens, a denial,
/// a ring version, a KMS call that was never closed, and one that a restart closed.
fn golden() -> Vec<String> {
    let peer = json!({ "address": "2001:db8::7" });
    let kms = json!({ "epoch": { "kms_key": "local:0g40r40m30g209185gr38e1w8g", "epoch": 7 } });
    let data_key = DataKeyId::from_bytes([9; 16]);
    let customer = json!({ "customer": { "kms_key": "aws-kms:arn:aws:kms:us-east-1:000000000000:key/1234", "data_key": data_key } });
    let ring = json!({ "version": 2, "hash": "ab".repeat(32) });
    let seal = json!({ "action": "seal", "origin": peer, "principal": "service:billing" });
    let open = json!({ "action": "open", "principal": "unix:1000", "purpose": "HSYSADMIN" });
    let cases = [
        (seal, Some(json!({ "bytes": 40_000 }))),
        (open, Some(json!({ "bytes": 40_000, "key": KekId::from_bytes([6; 16]) }))),
        (json!({ "action": "open", "origin": peer }), Some(json!({ "result": "denied" }))),
        (json!({ "action": "ring-write", "blob": null, "key": kms, "ring": ring }), Some(json!({}))),
        (json!({ "action": "kms-decrypt", "blob": null, "key": customer }), None),
        (json!({ "action": "verify" }), Some(json!({ "result": "unknown" }))),
    ];
    cases.iter().enumerate().map(|(n, (intent, outcome))| event(n, intent, outcome.as_ref())).collect()
}

/// Each action with each result and none, from each kind of origin, on a blob and
/// on none; principals, purposes and keys take turns.
fn combinations() -> Vec<String> {
    let kek = KekId::from_bytes([6; 16]);
    let keys = [
        json!({ "kek": { "id": kek, "day": "2028-05-22" } }),
        json!({ "day": { "day": "2028-05-22" } }),
        json!({ "name-key": { "id": kek } }),
        json!({ "customer": { "kms_key": "local:k", "data_key": DataKeyId::from_bytes([7; 16]) } }),
        json!({ "epoch": { "kms_key": "aws-kms:arn:aws:kms:us-east-1:000000000000:key/1", "epoch": 1 } }),
        json!({ "blob": { "kms_key": "local:k" } }),
        Value::Null,
    ];
    let origins =
        [json!({ "process": 4242 }), json!({ "address": "192.0.2.7" }), json!({ "address": "2001:db8::7" })];
    let principals = ["person:p-17", "service:billing", "unix:1000", "person:a.b_c"];
    let results = || OutcomeResult::ALL.into_iter().map(Some).chain([None]);
    let mut lines = Vec::new();
    for action in Action::ALL {
        for result in results() {
            for origin in &origins {
                for blob in [json!(BlobId::from_bytes([5; 16])), Value::Null] {
                    let n = lines.len();
                    let mut intent = json!({
                        "action": action,
                        "origin": origin,
                        "blob": blob,
                        "principal": principals[n % principals.len()],
                        "purpose": Purpose::ALL[n % Purpose::ALL.len()],
                        "key": keys[n % keys.len()],
                    });
                    if n.is_multiple_of(2) {
                        intent["cause"] = json!(RequestId::from_bytes([8; 16]));
                        intent["ring"] = json!({ "version": u64::MAX, "hash": "0f".repeat(32) });
                    }
                    let outcome = result.map(|result| json!({ "result": result, "bytes": n, "key": kek }));
                    lines.push(event(n, &intent, outcome.as_ref()));
                }
            }
        }
    }
    lines
}

/// The line of an operation whose records have these fields besides the usual.
fn event(n: usize, intent: &Value, outcome: Option<&Value>) -> String {
    let request = RequestId::from_bytes([1; 16]);
    let mut whole = json!({
        "request": request,
        "principal": "person:p-17",
        "origin": { "process": 4242 },
        "purpose": "TREAT",
        "customer": CustomerId::from_bytes([4; 16]),
        "blob": BlobId::from_bytes([5; 16]),
    });
    update(&mut whole, intent);
    let outcome = outcome.map(|fields| {
        let mut whole = json!({ "request": request, "result": "ok" });
        update(&mut whole, fields);
        record("2026-11-22T02:26:13.250000Z", &json!({ "outcome": whole }))
    });
    let intent = record("2026-11-22T02:26:13.000001Z", &json!({ "intent": whole }));
    let operation = pair(u64::try_from(n).unwrap(), intent, outcome);
    audit_event(STORE, &operation).to_line()
}

fn update(whole: &mut Value, fields: &Value) {
    for (name, value) in fields.as_object().unwrap() {
        whole[name] = value.clone();
    }
}

fn record(time: &str, event: &Value) -> Record {
    let (nonce, writer) = (RequestId::from_bytes([2; 16]), WriterId::from_bytes([3; 16]));
    serde_json::from_value(json!({ "nonce": nonce, "time": time, "writer": writer, "event": event })).unwrap()
}

fn pair(n: u64, intent: Record, outcome: Option<Record>) -> Operation {
    let time = "2026-11-22T02:26:14.000000Z".parse().unwrap();
    let at = |index, record| Entry { shard: 3, seq: n, index, time, record };
    let mut pairing = Pairing::default();
    assert_eq!(pairing.push(at(2 * n, intent)), Paired::Kept);
    let paired = outcome.map(|outcome| pairing.push(at(2 * n + 1, outcome)));
    match paired {
        Some(Paired::Operation(operation)) => *operation,
        None => pairing.finish().remove(0),
        Some(other) => panic!("{other:?}"),
    }
}

/// What the validator says: line numbers are from 1.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    all: bool,
    wrong: Vec<usize>,
    valid: usize,
}

/// `None` if there is no validator here.
fn validate(lines: &[String]) -> Option<Verdict> {
    let mut command = Command::new("bash");
    command.arg(directory().join("validate"));
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return not_run("there is no bash") };
    let (mut stdin, text) = (child.stdin.take().unwrap(), lines.concat());
    // It may end without reading, where there is no python.
    let writer = std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let (said, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    let all = match output.status.code() {
        Some(0) => true,
        Some(1) => false,
        Some(69) => return not_run(&error),
        other => panic!("the validator ended with {other:?}: {error}"),
    };
    // An exit code of 1 can be a fault of the validator: then it counted nothing.
    let (wrong, count) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
    let count = count.strip_suffix(" not").and_then(|count| count.split_once(" valid, "));
    let Some((valid, refused)) = count else { panic!("the validator broke down: {error}") };
    let number = |line: &str| line.split_once(": ").unwrap().0.parse().unwrap();
    let wrong: Vec<usize> = wrong.lines().map(number).collect();
    assert_eq!(refused, wrong.len().to_string());
    Some(Verdict { all, wrong, valid: valid.parse().unwrap() })
}

fn not_run<T>(why: &str) -> Option<T> {
    let required = std::env::var_os("STRONGROOM_TEST_REQUIRE_FHIR").is_some_and(|value| value == "1");
    assert!(!required, "no FHIR validator, and STRONGROOM_TEST_REQUIRE_FHIR=1: {why}");
    eprintln!("NOT RUN: the validation of the FHIR export: {why}");
    None
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fhir")
}
