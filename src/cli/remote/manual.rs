//! That the manual says of each command where it is done, as it is.

use std::collections::{BTreeMap, BTreeSet};

use clap::{CommandFactory, Parser};

use super::{Cli, Where, place_of};
use crate::tlog::VerifierKey;

const MANUAL: &str = include_str!("../../manual/access.md");

const ID: &str = "019mx0xqp7xz8cphp0tt9dmxsc";

const LOG: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

/// A public key of this name.
fn key(name: &str) -> String {
    let log: VerifierKey = LOG.parse().unwrap();
    VerifierKey::ed25519(name.parse().unwrap(), *log.public()).to_string()
}

/// What has to be typed behind a command.
fn arguments(command: &str) -> String {
    let acme = "--customer acme";
    match command {
        "customer add" => "acme --kms local".into(),
        "customer set" => "acme --suite aes-256-gcm".into(),
        "customer show" | "retention show" | "offboard status" | "offboard reopen" | "offboard finish"
        | "offboard destroy" => "acme".into(),
        "retention set" => "acme --period P6Y".into(),
        "retention extend" => format!("{acme} {ID} --until 2099-01-01"),
        "rekey" => "acme --status".into(),
        "offboard return" => "acme --to back".into(),
        "put" => format!("{acme} -"),
        "get" | "stat" | "verify" => format!("{acme} {ID}"),
        "restore" => format!("{acme} --to back"),
        "ls" | "hold list" => acme.into(),
        "hold place" => format!("{acme} --all"),
        "hold release" => format!("{acme} {ID} --sign-with key"),
        "shred cancel" => format!("{acme} --day 2099-01-01"),
        "shred request" => format!("{acme} --day 2099-01-01 --sign-with key"),
        "shred approve" | "order approve" => format!("{ID} --sign-with key"),
        "order show" | "certificate show" => ID.into(),
        "order request" => "--sign-with key set-clock --at 2026-11-22T02:26:13.000000Z".into(),
        "order draft" => "set-clock --at 2026-11-22T02:26:13.000000Z".into(),
        "order sign" => "FILE --sign-with key".into(),
        "order submit" | "certificate verify" => "FILE".into(),
        "session open" | "session list" | "session request" | "session requests" | "emergency declare" => {
            acme.into()
        }
        "session end" | "session approve" | "emergency review" => format!("{acme} {ID}"),
        "emergency fold" => "--directory sink".into(),
        "person keygen" => "-o key".into(),
        "audit confirm-time" => "2026-11-22".into(),
        "audit remove" => "--before 2020-11-22".into(),
        "audit export" => "--format jsonl -o FILE".into(),
        "audit proof" | "audit rotate-key" => ID.into(),
        "audit view" => format!("{acme} -o FILE"),
        "audit check-proof" | "audit check-view" => format!("FILE --key {}", key("log")),
        "person found" => format!("--person {} --person {}", key("person:a"), key("person:b")),
        "access test" => "--principals FILE --who service:a --do seal".into(),
        "serve" => "--config FILE".into(),
        "completions" => "bash".into(),
        "witness key" => "--name example.com/w --key FILE".into(),
        "witness serve" => format!("--key FILE --state DIR --log {}", key("log")),
        "witness cosign" => format!("--key FILE --state DIR --log {} --from DIR", key("log")),
        "witness show" => "--state DIR".into(),
        _ => String::new(),
    }
}

/// Every command, with the one below it where it has some.
fn commands() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let below: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        match below.is_empty() {
            true => found.extend([name.to_owned()]),
            false => found.extend(below.iter().map(|below| format!("{name} {below}"))),
        }
    }
    found
}

/// The commands of the manual's table, and where it says that each is done.
fn table() -> BTreeMap<String, Where> {
    let (_, rows) = MANUAL.split_once("| command | is done | why |\n|---|---|---|\n").expect("the table");
    let mut found = BTreeMap::new();
    for row in rows.lines().take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [commands, place, why] = cells[..] else { panic!("three cells: {row}") };
        let place = match place {
            "by the daemon" => Where::Daemon,
            "here" => Where::Here,
            "where the store is" => Where::Nowhere,
            other => panic!("no place: {other}"),
        };
        assert!(place != Where::Nowhere || !why.is_empty(), "it says why: {row}");
        for command in commands.split(", ") {
            let command = command.trim_matches('`').to_owned();
            assert!(found.insert(command.clone(), place).is_none(), "{command} is there twice");
        }
    }
    found
}

#[test]
fn the_manual_says_where_each_command_is_done() {
    let table = table();
    for command in commands() {
        assert!(table.contains_key(&command), "the table of commands lacks `{command}`");
    }
    let mut wrong = Vec::new();
    for (command, told) in table {
        let line = format!("strongroom {command} {}", arguments(&command));
        match Cli::try_parse_from(line.split_whitespace()) {
            Ok(cli) if place_of(&cli.command) == told => {}
            Ok(cli) => wrong.push(format!("{command}: the program says {:?}", place_of(&cli.command))),
            Err(error) => wrong.push(format!("{line}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
