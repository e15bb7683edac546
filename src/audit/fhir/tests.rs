use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::audit::Action;
use crate::audit::operation::tests::{intent, outcome, paired};
use crate::id::{BlobId, CustomerId, DataKeyId, RequestId};

const STORE: StoreId = StoreId::from_bytes([0x51; 16]);
const REQUEST: RequestId = RequestId::from_bytes([1; 16]);
const ORIGINS: [&str; 3] =
    [r#"{"process":4242}"#, r#"{"address":"192.0.2.7"}"#, r#"{"address":"2001:db8::7"}"#];

fn event(intent_fields: &Value, outcome_fields: Option<&Value>) -> Value {
    let outcome = outcome_fields.map(|fields| outcome(REQUEST, fields));
    serde_json::to_value(audit_event(STORE, &paired(intent(REQUEST, intent_fields), outcome))).unwrap()
}

fn codes(codings: &Value) -> Vec<&str> {
    codings.as_array().unwrap().iter().map(|coding| coding["code"].as_str().unwrap()).collect()
}

/// The table as it is meant, written a second time by hand.
#[test]
fn every_action_has_its_type_subtypes_and_letter() {
    let expected: [(&str, &str, &[&str], &str); 51] = [
        ("init", "110100", &["110129", "init"], "C"),
        ("customer-add", "110100", &["110129", "customer-add"], "C"),
        ("customer-set", "110100", &["110129", "customer-set"], "U"),
        ("seal", "rest", &["create", "seal"], "C"),
        ("open", "rest", &["read", "open"], "R"),
        ("open-range", "rest", &["read", "open-range"], "R"),
        ("verify", "verify", &["verify"], "E"),
        ("stat", "rest", &["read", "stat"], "R"),
        ("list", "rest", &["search", "list"], "E"),
        ("find", "rest", &["search", "find"], "E"),
        ("kms-generate-data-key", "110100", &["110132", "kms-generate-data-key"], "E"),
        ("kms-decrypt", "110100", &["110132", "kms-decrypt"], "E"),
        ("ring-write", "110100", &["110129", "ring-write"], "U"),
        ("keys-read", "110100", &["110132", "keys-read"], "R"),
        ("extend", "rest", &["update", "extend"], "U"),
        ("rewrap", "rest", &["update", "rewrap"], "U"),
        ("hold-place", "110100", &["110129", "hold-place"], "C"),
        ("hold-release", "110100", &["110129", "hold-release"], "D"),
        ("shred-sweep", "110100", &["110132", "shred-sweep"], "E"),
        ("shred-pend", "110100", &["110129", "shred-pend"], "U"),
        ("shred-cancel", "110100", &["110129", "shred-cancel"], "U"),
        ("shred-drop", "110100", &["110132", "shred-drop"], "D"),
        ("certify", "110100", &["110129", "certify"], "C"),
        ("ciphertext-delete", "110100", &["110132", "ciphertext-delete"], "D"),
        ("order-request", "110100", &["110129", "order-request"], "C"),
        ("order-approve", "110100", &["110129", "order-approve"], "U"),
        ("people-set", "110100", &["110129", "people-set"], "U"),
        ("clock-set", "110100", &["110129", "clock-set"], "U"),
        ("register-write", "110100", &["110129", "register-write"], "U"),
        ("epoch-create", "110100", &["110132", "epoch-create"], "C"),
        ("epoch-disable", "110100", &["110132", "epoch-disable"], "U"),
        ("epoch-enable", "110100", &["110132", "epoch-enable"], "U"),
        ("epoch-delete", "110100", &["110132", "epoch-delete"], "D"),
        ("rekey", "110100", &["110129", "rekey"], "U"),
        ("offboard-return", "rest", &["read", "offboard-return"], "R"),
        ("offboard-close", "110100", &["110129", "offboard-close"], "D"),
        ("customer-key-delete", "110100", &["110132", "customer-key-delete"], "D"),
        ("admit", "110114", &["110122", "admit"], "E"),
        ("customer-read", "110100", &["110129", "customer-read"], "R"),
        ("audit-read", "110101", &["audit-read"], "R"),
        ("session-open", "110100", &["110132", "session-open"], "C"),
        ("session-end", "110100", &["110132", "session-end"], "D"),
        ("access-request", "110100", &["110129", "access-request"], "C"),
        ("access-approve", "110100", &["110129", "access-approve"], "U"),
        ("emergency-declare", "110100", &["110129", "emergency-declare"], "C"),
        ("emergency-fold", "110100", &["110129", "emergency-fold"], "U"),
        ("emergency-review", "110100", &["110129", "emergency-review"], "U"),
        ("access-map", "110100", &["110129", "access-map"], "U"),
        ("log-key-rotate", "110100", &["110129", "log-key-rotate"], "U"),
        ("epoch-write", "110100", &["110129", "epoch-write"], "U"),
        ("clock-confirm", "110100", &["110129", "clock-confirm"], "U"),
    ];
    assert_eq!(expected.map(|row| row.0), Action::ALL.map(Action::code));
    for (action, kind, subtypes, letter) in expected {
        let event = event(&json!({ "action": action }), Some(&json!({})));
        assert_eq!(event["type"]["code"], kind, "{action}");
        assert_eq!(codes(&event["subtype"]), subtypes, "{action}");
        assert_eq!(event["action"], letter, "{action}");
    }
}

#[test]
fn every_result_has_its_outcome_and_only_three_are_alerts() {
    let expected = [
        ("ok", "0"),
        ("aborted", "4"),
        ("authentication-failed", "8"),
        ("integrity-failed", "8"),
        ("key-unavailable", "8"),
        ("key-destroyed", "4"),
        ("not-found", "4"),
        ("conflict", "4"),
        ("denied", "4"),
        ("unavailable", "8"),
        ("failed", "8"),
        ("unknown", "12"),
    ];
    assert_eq!(expected.map(|row| row.0), OutcomeResult::ALL.map(OutcomeResult::code));
    for (result, code) in expected {
        let event = event(&json!({}), Some(&json!({ "result": result })));
        assert_eq!((&event["outcome"], &event["outcomeDesc"]), (&json!(code), &json!(result)));
        let alert = ["denied", "authentication-failed", "integrity-failed"].contains(&result);
        assert_eq!(event["type"]["code"] == "110113", alert, "{result}");
        assert_eq!(event["action"] == "E", alert, "{result}");
        assert_eq!(codes(&event["subtype"]).contains(&"110132"), result == "denied");
        assert_eq!(codes(&event["subtype"])[0], "read");
    }
    // It is said once that a restricted function was used.
    let denied = event(&json!({ "action": "kms-decrypt" }), Some(&json!({ "result": "denied" })));
    assert_eq!(codes(&denied["subtype"]), ["110132", "kms-decrypt"]);
}

#[test]
fn an_open_operation_claims_no_outcome() {
    let event = event(&json!({}), None);
    assert_eq!((event.get("outcome"), &event["outcomeDesc"]), (None, &json!("open")));
    assert_eq!(event["period"], json!({ "start": "2026-11-22T02:26:13.000001Z" }));
    assert_eq!(event["recorded"], "2026-11-22T02:26:13.000001Z");
}

/// What the profiles ask for and a log does not have is not claimed.
#[test]
fn a_profile_is_claimed_by_what_meets_it() {
    let blob = BlobId::from_bytes([2; 16]);
    let profile = |action: &str, origin: &str, with_blob: bool, result: Option<&str>| {
        let origin: Value = serde_json::from_str(origin).unwrap();
        let mut fields = json!({ "action": action, "origin": origin });
        if with_blob {
            fields["blob"] = json!(blob);
        }
        let event = event(&fields, result.map(|result| json!({ "result": result })).as_ref());
        event.get("meta").map(|meta| {
            let profile = meta["profile"][0].as_str().unwrap();
            profile.rsplit('.').next().unwrap().to_owned()
        })
    };
    for action in Action::ALL {
        let expected = match action {
            Action::Seal => Some("Create"),
            Action::Open | Action::OpenRange | Action::Stat | Action::OffboardReturn => Some("Read"),
            _ => None,
        };
        let code = action.code();
        for peer in &ORIGINS[1..] {
            assert_eq!(profile(code, peer, true, Some("ok")).as_deref(), expected, "{code}");
            assert_eq!(profile(code, peer, true, None), None);
            assert_eq!(profile(code, peer, false, Some("ok")), None);
        }
        assert_eq!(profile(code, ORIGINS[0], true, Some("ok")), None);
        for result in &OutcomeResult::ALL[1..] {
            assert_eq!(profile(code, ORIGINS[1], true, Some(result.code())), None);
        }
    }
}

#[test]
fn agents_are_the_principal_the_peer_and_the_node() {
    let event = event(&json!({ "origin": { "address": "192.0.2.7" } }), Some(&json!({})));
    let agents = event["agent"].as_array().unwrap();
    let requestors: Vec<&Value> = agents.iter().map(|agent| &agent["requestor"]).collect();
    assert_eq!(requestors, [true, false, false], "there is one initiator at most");
    let kinds: Vec<&Value> = agents.iter().map(|agent| &agent["type"]["coding"][0]["code"]).collect();
    assert_eq!(kinds, ["IRCP", "110152", "110153"]);
    let system = format!("urn:strongroom:store:{STORE}:principal");
    assert_eq!(agents[0]["who"]["identifier"], json!({ "system": system, "value": "person:p-17" }));
    assert_eq!(agents[0]["purposeOfUse"][0]["coding"][0]["code"], "TREAT");
    assert_eq!(agents[1]["network"], json!({ "address": "192.0.2.7", "type": "2" }));
    assert_eq!(agents[2]["who"], event["source"]["observer"]);
    assert_eq!(event["source"]["site"], STORE.to_string());
}

#[test]
fn a_period_never_runs_backwards() {
    let mut late = intent(REQUEST, &json!({}));
    late.time = "2026-11-22T02:26:59.000000Z".parse().unwrap();
    let event = audit_event(STORE, &paired(late, Some(outcome(REQUEST, &json!({})))));
    assert_eq!(event.period, Period { start: event.recorded, end: None });
}

#[test]
fn a_key_that_both_records_name_is_named_once() {
    let (one, two) = (KekId::from_bytes([1; 16]), KekId::from_bytes([2; 16]));
    let keks = |key: Value, used: KekId| {
        let event = event(&json!({ "key": key }), Some(&json!({ "key": used })));
        let entities = event["entity"].as_array().unwrap().clone();
        let what = entities.iter().map(|entity| entity["what"]["identifier"].clone());
        let keks: Vec<String> = what
            .filter(|what| what["system"] == "urn:strongroom:kek")
            .map(|what| what["value"].as_str().unwrap().to_owned())
            .collect();
        keks
    };
    assert_eq!(keks(json!({ "kek": { "id": one, "day": "2028-05-22" } }), one), [one.to_string()]);
    assert_eq!(keks(json!({ "name-key": { "id": one } }), two), [one.to_string(), two.to_string()]);
    assert_eq!(keks(json!({ "day": { "day": "2028-05-22" } }), two), [two.to_string()]);
}

/// Whatever is in the records, the strings of an event are codes of ours and of
/// the standards, or of the few alphabets that ids, numbers and times have.
#[test]
fn there_is_no_room_for_text() {
    let (customer, blob) = (CustomerId::from_bytes([4; 16]), BlobId::from_bytes([5; 16]));
    let kek = KekId::from_bytes([6; 16]);
    let keys = [
        json!({ "kek": { "id": kek, "day": "2028-05-22" } }),
        json!({ "day": { "day": "2028-05-22" } }),
        json!({ "name-key": { "id": kek } }),
        json!({ "hold-key": { "id": kek } }),
        json!({ "customer": { "kms_key": "local:k", "data_key": DataKeyId::from_bytes([7; 16]) } }),
        json!({ "epoch": { "kms_key": "aws-kms:arn:aws:kms:us-east-1:000000000000:key/1", "epoch": 1 } }),
        json!({ "blob": { "kms_key": "local:k" } }),
    ];
    let mut free = BTreeSet::new();
    let mut count = 0_usize;
    for action in Action::ALL {
        for result in OutcomeResult::ALL.map(Some).into_iter().chain([None]) {
            for (origin, principal) in
                ORIGINS.into_iter().zip(["person:p-17", "service:billing", "unix:1000"])
            {
                let key = &keys[count % keys.len()];
                let purpose = Purpose::ALL[count % Purpose::ALL.len()];
                count += 1;
                let fields = json!({
                    "cause": RequestId::from_bytes([8; 16]),
                    "principal": principal,
                    "origin": serde_json::from_str::<Value>(origin).unwrap(),
                    "purpose": purpose,
                    "action": action,
                    "customer": customer,
                    "blob": blob,
                    "key": key,
                    "ring": { "version": u64::MAX, "hash": "ab".repeat(32) },
                    "order": RequestId::from_bytes([9; 16]),
                    "hold": RequestId::from_bytes([10; 16]),
                    "certificate": RequestId::from_bytes([11; 16]),
                    "rule": "role.reader",
                    "session": RequestId::from_bytes([12; 16]),
                });
                let end = result.map(|result| json!({ "result": result, "bytes": u64::MAX, "key": kek }));
                strings(&event(&fields, end.as_ref()), "", &mut free);
            }
        }
    }
    assert_eq!(count, Action::ALL.len() * 13 * 3);
    assert!(free.is_empty(), "{free:?}");

    // The check itself finds what a person might have written.
    for element in
        ["id", "value", "valueString", "outcomeDesc", "display", "code", "type", "system", "name", "site"]
    {
        let mut found = BTreeSet::new();
        strings(&json!({ element: "Jane Doe, 1970" }), "", &mut found);
        assert_eq!(found.len(), 1, "{element}");
    }
}

/// Collects what is not of its element's alphabet.
fn strings(value: &Value, element: &str, free: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| strings(value, name, free)),
        Value::Array(values) => values.iter().for_each(|value| strings(value, element, free)),
        Value::String(text) if !allowed(element, text) => {
            free.insert(format!("{element}: {text}"));
        }
        _ => {}
    }
}

fn allowed(element: &str, text: &str) -> bool {
    let is_id = |text: &str| text.parse::<RequestId>().is_ok();
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    let is_time = |text: &str| text.parse::<Timestamp>().is_ok();
    let kebab = |text: &str| text.bytes().all(|c| c.is_ascii_lowercase() || c == b'-');
    match element {
        "resourceType" => text == "AuditEvent",
        "id" => {
            let parts: Vec<&str> = text.split('-').collect();
            text.len() <= 64 && parts.len() == 3 && is_id(parts[0]) && parts[1..].iter().all(|n| is_number(n))
        }
        "start" | "end" | "recorded" => is_time(text),
        "action" | "outcome" => is_number(text) || ["C", "R", "U", "D", "E"].contains(&text),
        "outcomeDesc" => text == "open" || OutcomeResult::ALL.iter().any(|result| result.code() == text),
        "site" => is_id(text),
        "profile" => text.starts_with("https://profiles.ihe.net/ITI/BALP/StructureDefinition/"),
        "system" => {
            let parts: Vec<&str> = text.split(':').collect();
            let ours = |part: &&str| kebab(part) || is_id(part);
            match parts.as_slice() {
                ["urn", "strongroom", rest @ ..] => rest.iter().all(ours),
                _ => text.starts_with("http://") || text.starts_with("https://profiles.ihe.net/"),
            }
        }
        "code" => {
            kebab(text)
                || is_number(text)
                || text.bytes().all(|c| c.is_ascii_uppercase())
                || text == "XrequestId"
        }
        "display" => text.len() < 32 && text.bytes().all(|c| c.is_ascii_alphabetic() || b" /()".contains(&c)),
        // The types of details and of networks.
        "type" => kebab(text) || ["2", "5"].contains(&text),
        "address" => text.parse::<std::net::IpAddr>().is_ok() || text.starts_with("urn:strongroom:writer:"),
        "value" | "valueString" => {
            is_id(text)
                || is_number(text)
                || is_time(text)
                || text.parse::<crate::time::Day>().is_ok()
                || text.parse::<std::net::IpAddr>().is_ok()
                || text.parse::<crate::access::Principal>().is_ok()
                || text.parse::<crate::id::KmsKeyId>().is_ok()
                || text == "ab".repeat(32)
                || text == "role.reader"
        }
        _ => false,
    }
}
