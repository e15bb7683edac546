//! `person`: who may sign orders, and their keys.
//!
//! Keys are made where their owner is, and need no store: what is handed in is the
//! public key.

use serde_json::json;

use super::args::{Person, PersonFound, PersonKeygen};
use super::failure::Failure;
use super::output::{Column, Output, line, seconds, table};
use super::{Answer, Backend, key_file};
use crate::access::Principal;
use crate::config::Config;
use crate::error::Error;
use crate::json;
use crate::system::SystemEntropy;
use crate::tlog::{NamedKey, SecretKey};

/// Makes a person's key, and prints the public one.
pub(super) fn keygen(config: &Config, command: &PersonKeygen, output: Output) -> Result<(), Failure> {
    let person = config.access().principal;
    if !matches!(person, Principal::Person(_)) {
        let message = "a key for orders is a person's, and it is not said whose";
        return Err(Failure::usage(message).hint("say it with --principal person:<id>"));
    }
    let name = person.to_string().parse().expect("a principal has no space and no plus");
    let key = NamedKey::new(name, SecretKey::generate(&SystemEntropy).map_err(Error::from)?);
    key_file::store(&command.output, &key)?;
    let public = key.verifier();
    output.print(&match output.json {
        true => line(&json!({ "principal": person, "key": public })),
        false => format!("{public}\n"),
    })
}

pub(super) async fn run(backend: &Backend, command: Person) -> Answer {
    let explain = |error| backend.explain(error);
    match command {
        Person::Found(PersonFound { people }) => {
            let store = backend.store()?;
            let people = store.room.found_people(&backend.access, &people).await.map_err(explain)?;
            Ok(list(backend.output, &people.iter().map(json::Person::from).collect::<Vec<_>>()))
        }
        Person::List => Ok(list(backend.output, &backend.people().await.map_err(explain)?)),
        // Done before a backend was opened.
        Person::Keygen(_) => Ok(String::new()),
    }
}

fn list(output: Output, people: &[json::Person]) -> String {
    if output.json {
        return line(&json!({ "people": people }));
    }
    let columns = ["PERSON", "SINCE", "UNTIL", "KEY"].map(|name| (name, Column::Whole));
    let rows = people.iter().map(|person| {
        vec![
            person.principal.to_string(),
            seconds(person.since),
            person.until.map_or_else(|| "-".to_owned(), seconds),
            person.key.to_string(),
        ]
    });
    table(&columns, rows)
}
