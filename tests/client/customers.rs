//! Which customer is meant: every command that takes one, on a store and asked of a daemon, by its
//! label and by its id, and with a label and an id that nobody has.

use super::*;

/// An id that nobody has.
const NOBODY: &str = "00000000000000000000000000";

/// Each command that takes a customer, where `C` stands for the customer and `BLOB` for a blob of its;
/// and who asks a daemon for it, unless it takes the store.
const COMMANDS: &[(&str, Option<&str>)] = &[
    ("customer show C", Some("admin")),
    ("customer set C --suite aes-256-gcm", Some("admin")),
    ("retention show C", Some("admin")),
    ("retention set C --period P18M", Some("admin")),
    ("retention extend --customer C BLOB --until 2026-12-02", Some("portal")),
    ("rekey C --status", Some("admin")),
    ("put --customer C dump", Some("portal")),
    ("get --customer C BLOB -o -", Some("portal")),
    ("get --customer C --name n -o -", Some("portal")),
    ("ls --customer C --ids", Some("portal")),
    ("ls --customer C", Some("portal")),
    ("ls --customer C --name n", Some("portal")),
    ("stat --customer C BLOB", Some("portal")),
    ("verify --customer C BLOB", Some("portal")),
    ("verify --customer C --all", Some("portal")),
    ("restore --customer C --to back --dry-run", Some("portal")),
    ("hold list --customer C", Some("admin")),
    ("hold place --customer C --blob BLOB", Some("officer")),
    ("shred plan --customer C", Some("officer")),
    ("shred status --customer C", Some("officer")),
    ("shred cancel --customer C --day 2026-12-02", Some("officer")),
    ("shred request --customer C --day 2026-12-02 --sign-with anna", Some("officer")),
    ("order request shorten-retention --customer C --retention P12M --sign-with anna", Some("officer")),
    ("--principal person:anna order draft shorten-retention --customer C --retention P12M", Some("officer")),
    ("order request destroy --customer C --day 2026-12-02 --sign-with anna", Some("officer")),
    ("order request offboard --customer C --return nothing --sign-with anna", Some("officer")),
    ("session list --customer C", Some("officer")),
    ("session requests --customer C", Some("officer")),
    ("session open --customer C", Some("officer")),
    ("session request --customer C", Some("portal")),
    ("emergency list --customer C", Some("auditor")),
    ("offboard status C", Some("officer")),
    ("offboard reopen C", Some("officer")),
    ("offboard return C --to there", None),
    ("offboard destroy C", None),
    ("offboard finish C", None),
    ("audit query --customer C", Some("auditor")),
    ("audit query --customer C --json --action seal", Some("auditor")),
    ("audit export --customer C --format jsonl", Some("auditor")),
    ("audit proof 0:0 --customer C", Some("auditor")),
    ("audit view --customer C -o view --force", Some("auditor")),
    ("certificate list --customer C", Some("auditor")),
    ("certificate list --customer C --json", Some("auditor")),
];

/// What a customer must not be called.
const IN_THE_FORM_OF_AN_ID: &[&str] = &[
    "019mx0xqp7xz8cphp0tt9dmxsc",
    "019mx0xqp7xz8cphp0tt9dmxsd",
    "01arz3ndektsv4rrffq69g5fav",
    "ol9mxoxqp7xz8cphpott9dmxsc",
    "customer-019mx0xqp7xz8cphp0tt9dmxsc",
    "019mx-0xqp7-xz8cp-hp0tt-9dmxsc",
    "0bfa1b9c-60b4-4b5a-8c0b-6b8f3f1d9a11",
    "0bfa1b9c60b44b5a8c0b6b8f3f1d9a11",
];

#[test]
fn each_command_means_the_same_customer_by_label_and_by_id_and_an_unknown_one_is_66() {
    let home = Home::new();
    let shown = home.run(&["--json", "customer", "show", "acme"]).is(0);
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    let id = shown["customer"].as_str().unwrap();
    fs::write(home.path("dump"), "x").unwrap();
    let daemon = home.serve();
    let put = ["put", "--customer", "acme", "--name", "n", "dump"];
    let blob = home.ask(&daemon, "portal", &put).is(0).out;
    let mut wrong = Vec::new();
    for (line, who) in COMMANDS {
        let on = |who: Option<&str>, customer: &str| {
            let words = line.split(' ').map(|word| match word {
                "C" => customer,
                "BLOB" => blob.trim(),
                word => word,
            });
            let words: Vec<_> = words.collect();
            match who {
                Some(who) => home.ask(&daemon, who, &words),
                None => home.run(&words),
            }
        };
        for at in [None].into_iter().chain(who.map(Some)) {
            for nobody in [NOBODY, "nobody", "0bfa1b9c-60b4-4b5a-8c0b-6b8f3f1d9a11"] {
                let ran = on(at, nobody);
                // A blob that was named is told of, as failed.
                let tells = line.starts_with("verify");
                if ran.code != Some(66) || !(tells || ran.out.is_empty()) {
                    wrong.push(format!(
                        "{line:?} by {at:?} for {nobody}: {:?} {} {}",
                        ran.code, ran.out, ran.err
                    ));
                }
            }
            let (by_label, by_id) = (on(at, "acme"), on(at, id));
            // Some end with an error for the one that there is: the same, whatever it is called.
            if by_label.code != by_id.code || masked(&by_label.err) != masked(&by_id.err) {
                wrong.push(format!(
                    "{line:?} by {at:?}: {:?} {} {:?} {}",
                    by_label.code, by_label.err, by_id.code, by_id.err
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_label_in_the_form_of_an_id_is_refused_wherever_one_is_made() {
    let home = Home::new();
    let daemon = home.serve();
    let shown = home.run(&["--json", "customer", "show", "acme"]).is(0);
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    let labels = IN_THE_FORM_OF_AN_ID.iter().copied().chain(shown["customer"].as_str());
    for label in labels {
        let add = ["customer", "add", label, "--kms", "local"];
        home.run(&add).is(64).says("the label has the form of an id");
        let ran = home.ask(&daemon, "admin", &add).is(64).says("the label has the form of an id");
        assert!(!ran.err.contains(label), "{}", ran.err);
    }
    let listed = home.run(&["--json", "customer", "list"]).is(0).out;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["customers"].as_array().unwrap().len(), 1);
}
